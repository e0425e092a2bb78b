"""Which packages that only computing needs come into memory with a module."""

from __future__ import annotations

import subprocess
import sys

#: packages that only computing needs
HEAVY = ("torch", "diffusers", "peft", "transformers", "accelerate", "numpy")


def heavy_imports(module: str) -> str:
    """The names of the heavy packages, with commas between them, that importing a module in a new process imports.

    Empty where there are none, and where the module cannot be imported: that is told elsewhere.
    """
    program = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return ", ".join(done.stdout.split()) if done.returncode == 0 else ""
