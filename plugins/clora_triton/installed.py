"""Whether the package triton is here; known without importing it, or torch."""

from __future__ import annotations

from importlib.util import find_spec


def has_triton() -> bool:
    """True where the package triton is installed (it has wheels for Linux alone)."""
    return find_spec("triton") is not None
