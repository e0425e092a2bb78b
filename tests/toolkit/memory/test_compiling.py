"""Blocks through torch.compile: the same numbers, and nothing compiled anew for other teachers, mixes or sizes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.diffusion.rng import StepRng
from clora.errors import CloraError
from clora.toolkit.memory.checkpointing import checkpointed
from clora.toolkit.memory.compilers import missing
from clora.toolkit.memory.fit import fit_network
from clora.toolkit.memory.settings import NetworkMemory

CPU = torch.device("cpu")
LINEARS = {"up": (16, 32), "down": (32, 16)}


def pieces() -> int:
    """How many pieces torch.compile has made in this process."""
    return counters["stats"]["unique_graphs"]


class Block(nn.Module):
    """The least that has pieces: before, between and after two linears."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16, elementwise_affine=False)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Blocks(nn.Module):
    """Three blocks; with `twice` as under gradient_checkpointing, which is diffusers' to switch on."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        self.blocks = nn.Sequential(*(Block() for _ in range(3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpointed(block, x) if self.twice and torch.is_grad_enabled() else block(x)
        return x


class Net:
    """Three blocks kept as the settings say, with a student of rank 4 and teachers of other ranks."""

    def __init__(self, *, twice: bool = False, **settings: Any) -> None:
        torch.manual_seed(0)
        how = NetworkMemory(**{"weights": "fp32", **settings})
        self.network = fit_network(Blocks(twice=twice), ("blocks",), how, CPU)
        shapes = {f"blocks.{n}.{name}": shape for n in range(3) for name, shape in LINEARS.items()}
        self.adapted = AdaptedNetwork(self.network, tuple(shapes))
        for name, rank, covered in (("student", 4, 6), ("teacher", 2, 6), ("other", 3, 1)):
            some = dict(list(shapes.items())[:covered])
            made = Adapter.fresh(some, rank, rank, StepRng(0).named(name), trainable=name == "student")
            made.flat.copy_(0.1 * StepRng(1).normal(name, made.flat))
            self.adapted.add(name, made)
        self.student = self.adapted.adapters["student"]

    def __call__(self, *rows: str | None, tokens: int = 8) -> torch.Tensor:
        x = StepRng(2).normal("x", torch.empty(len(rows), tokens, 16))
        with self.adapted.rows(rows):
            return self.network(x)

    def results(self, *rows: str | None, tokens: int = 8) -> list[torch.Tensor]:
        """The answer with gradient and without, and the student's gradient of its square."""
        self.student.zero_grad()
        answer = self(*rows, tokens=tokens)
        answer.square().mean().backward()
        assert self.student.flat_grad is not None
        with torch.no_grad():
            return [answer.detach(), self.student.flat_grad.clone(), self(*rows, tokens=tokens)]


def same(one: Net, plain: Net, *rows: str | None, tokens: int = 8) -> None:
    """All that two networks compute for these rows."""
    for mine, its in zip(one.results(*rows, tokens=tokens), plain.results(*rows, tokens=tokens), strict=True):
        torch.testing.assert_close(mine, its)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of torch.compile but the generated code, over which a compiler sits long."""
    monkeypatch.setattr("clora.toolkit.memory.compiling.BACKEND", "aot_eager")


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_the_pieces_of_the_first_cycle_serve_every_other() -> None:
    plain, one, again = Net(), Net(compile=True), Net(compile=True, twice=True)
    before = pieces()
    same(one, plain, "teacher", "student", "student")
    made = pieces()
    assert made > before
    for each in (one, again):
        same(each, plain, "other", "student")
        same(each, plain, None, "student", "other", "teacher")
        same(each, plain, "student", "student", tokens=5)
        same(each, plain, *["student", None] * 8, tokens=16)  # as many rows as tokens and as numbers in each
    settings: dict[str, Any] = {"weights": "int8", "offload_blocks": 1}
    same(Net(compile=True, **settings), Net(**settings), "teacher", "student", "student")
    assert pieces() == made
    same(one, plain, "student")
    alone = pieces()
    assert made < alone <= 2 * made - before
    same(again, plain, "student", tokens=3)
    assert pieces() == alone


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_network_that_is_let_go_leaves_memory_at_once() -> None:
    one = Net(compile=True)
    one("student", "teacher")
    gone = weakref.ref(one.network)
    del one
    assert gone() is None


@pytest.mark.slow(10)
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_the_generated_code_computes_the_same() -> None:
    import torch._inductor.config as inductor

    rows, before = ("student", None, "teacher"), pieces()
    with inductor.patch({"cpp.simdlen": 1, "cpp_cache_precompile_headers": False, "compile_threads": 1}):
        same(Net(compile=True, twice=True), Net(), *rows)
    assert pieces() > before


def test_what_is_missing_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not list(NetworkMemory(compile=True).check(2))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("clora.toolkit.memory.compilers.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.platform", "linux")
    (processor,) = NetworkMemory(compile=True).check(2)
    assert processor == (
        "memory.compile: it needs a C++ compiler, and there is no g++; "
        "install one, or name yours in the environment's CXX"
    )
    assert [problem.split(": ")[1] for problem in missing(cuda=True)] == [
        "on a GPU it needs the package triton, which is not installed",
        "it needs a C compiler, and there is no gcc or clang; install one, or name yours in the environment's CC",
    ]
    monkeypatch.setenv("CXX", "my-compiler")
    with pytest.raises(CloraError, match="there is no my-compiler"):
        Net(compile=True)
    assert not list(NetworkMemory().check(2))


def test_pythons_headers_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: f"/nowhere/{name}")
    assert "there is no /nowhere/include/Python.h" in list(missing(cuda=False))[-1]


@pytest.mark.slow
def test_nothing_of_torch_compile_is_imported_without_the_key() -> None:
    code = """
import sys, torch
from torch.nn import Linear, Sequential
before = set(sys.modules)
from clora.toolkit.memory.settings import NetworkMemory
from clora.toolkit.memory.fit import fit_network
from clora.adapters.lora_linear import LoraLinear
fit_network(Sequential(Sequential(Linear(2, 2))), ("0",), NetworkMemory("fp32"), torch.device("cpu"))
assert not hasattr(LoraLinear.forward, "_torchdynamo_disable")
print([m for m in set(sys.modules) - before if m.startswith(("torch._dynamo", "torch._inductor"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_base_in_shares_is_compiled_too() -> None:
    code = """
import sys
import torch.distributed
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
import clora.toolkit.memory.compiling
clora.toolkit.memory.compiling.BACKEND = "aot_eager"
from clora.training.distributed import Distributed
from clora.training.shard_sync import CollectiveShardSync
from test_compiling import CPU, Net, pieces, same
with CollectiveShardSync(Distributed(), CPU, lambda grad: None).loading():
    one = Net(compile=True, twice=True)
assert isinstance(one.network.blocks[0], torch.distributed.fsdp.FSDPModule)
same(one, Net(), "student", None, "teacher")
made = pieces()
same(one, Net(), "other", "student", tokens=5)
assert pieces() == made > 0
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
