"""What torch.compile needs beside torch, looked up before a run begins."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path


def missing(cuda: bool) -> Iterable[str]:
    """What torch.compile lacks on this machine, for its GPU or for its processor, each as one sentence."""
    if cuda and find_spec("triton") is None:
        yield "memory.compile: on a GPU it needs the package triton, which is not installed"
    if cuda:
        names = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    else:
        names = [os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")]
    if not any(shutil.which(name) for name in names):
        language, variable = ("C", "CC") if cuda else ("C++", "CXX")
        yield (
            f"memory.compile: it needs a {language} compiler, and there is no {' or '.join(names)}; "
            f"install one, or name yours in the environment's {variable}"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        yield f"memory.compile: it needs Python's headers (python3-dev), and there is no {header}"
