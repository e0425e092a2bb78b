"""The Triton kernels' tests, each file in a process of its own.

Triton decides at its import whether it interprets, and other tests import it (through torch) the usual way. So the
files kernels_*.py are not collected with the rest: they run here, interpreted on the CPU and, where there is one, on
a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
HERE = Path(__file__).parent
HERE_AND_THERE = ("forward", "backward", "refusals", "op", "dropout", "tuning", "any_shape", "groups")


def passes(folder: Path, *names: str, interpret: bool) -> None:
    """Assert that these files' tests pass in a new process."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TRITON_CACHE_DIR": str(folder)}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    files = [str(HERE / f"kernels_{name}.py") for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files],
        cwd=HERE.parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.slow(40)
def test_in_the_interpreter(tmp_path: Path) -> None:
    passes(tmp_path, *HERE_AND_THERE, interpret=True)


@pytest.mark.slow(40)
def test_kernels_compile_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    passes(tmp_path, "compiled", interpret=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("names", [HERE_AND_THERE, ("real_shapes",)], ids="-".join)
def test_on_a_gpu(names: tuple[str, ...], tmp_path: Path) -> None:
    passes(tmp_path, *names, interpret=False)
