"""clora: many effect LoRAs and few-step sampling, distilled into one LoRA (CollectionLoRA, arXiv 2605.25378).

From Python, `clora.run("recipes/quickstart.yaml", {"train.steps": 50})` carries a recipe out, and
`clora.open_run("runs/RUN").sample("thermal", "cat.png")` makes a picture with a finished run.
"""

from typing import TYPE_CHECKING, Any

from clora.contracts.version import __version__

if TYPE_CHECKING:
    from clora.inference.python_api import OpenRun as OpenRun, open_run as open_run, run as run

__all__ = ["OpenRun", "__version__", "open_run", "run"]


def __getattr__(name: str) -> Any:
    """What brings torch into memory, when it is first asked for."""
    if name not in ("OpenRun", "open_run", "run"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clora.inference import python_api as notebook

    return getattr(notebook, name)
