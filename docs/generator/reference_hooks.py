"""The reference of hooks: signature, sentence and what each one registers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from markdown_text import paragraphs

from clora.contracts import hookspecs
from clora.contracts.hookspecs import HOOK_VERSION, KINDS, UNNAMED_KINDS


def hooks_page() -> str:
    """All hooks in the order of `clora/contracts/hookspecs.py`."""
    hooks = [hook for name, hook in vars(hookspecs).items() if name.startswith("clora_") and inspect.isfunction(hook)]
    return "\n".join(
        [
            "# Hooks\n",
            f"Version {HOOK_VERSION} of the interface. A plugin implements a hook with a function of its name, marked "
            "`@hookimpl`; it may leave arguments out that it does not want. "
            "[What the core does with a plugin](../plugin_authors.md) says when each is called.",
            *(line for hook in hooks for line in _hook(hook)),
        ]
    )


def _hook(hook: Callable[..., Any]) -> Iterator[str]:
    name = hook.__name__
    yield f"\n## {name}\n"
    yield f"```python\ndef {name}{inspect.signature(hook)}\n```\n".replace("'", "")
    yield from (f"{paragraph}\n" for paragraph in paragraphs(hook.__doc__))
    for kind in (kind for kind, registers in KINDS.items() if registers == name):
        what = "No recipe names them" if kind in UNNAMED_KINDS else f"Recipe section `{kind}`"
        yield f"{what}: [the installed components](components/{kind}.md)."
