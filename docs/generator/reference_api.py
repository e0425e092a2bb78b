"""The reference of `clora.api`: every name with its signature and sentence, read from the modules that define it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from markdown_text import code, first_sentence, paragraphs, plain, table

from clora import api
from clora.config.key_docs import key_docs

_QUOTED = re.compile(r"(: |-> )'([^']*)'")


def api_page() -> str:
    """All public names, by the module that defines them, in the order of `clora/api.py`."""
    head = "All that a plugin may import; `import clora.api` alone. Each name stands under the module that defines it."
    lines = ["# clora.api\n", head]
    for module, names in exported().items():
        source = importlib.import_module(module)
        lines += [f"\n## {module.removeprefix('clora.')}\n", *(f"{text}\n" for text in paragraphs(source.__doc__)[:1])]
        for name in names:
            lines += _name(name, module)
    return "\n".join(lines)


def exported() -> dict[str, list[str]]:
    """module -> the names that `clora/api.py` imports from it."""
    tree = ast.parse(Path(api.__file__).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    return {str(node.module): [alias.asname or alias.name for alias in node.names] for node in imports}


def _name(name: str, module: str) -> Iterator[str]:
    value = getattr(api, name)
    yield f"\n### {name}\n"
    if inspect.ismodule(value):
        yield first_sentence(value.__doc__)
    elif inspect.isclass(value):
        yield from _class(name, value)
    elif inspect.isroutine(value):
        yield from _signature(f"def {name}", value)
        yield first_sentence(value.__doc__)
    else:
        yield from _constant(name, value, module)


def _class(name: str, cls: type) -> Iterator[str]:
    bases = [base.__name__ for base in cls.__bases__ if base is not object]
    protocol = getattr(cls, "_is_protocol", False)
    if attrs.has(cls):
        yield from _signature(f"class {name}", cls)
    else:
        yield f"```python\nclass {name}({', '.join(bases)})\n```\n"
    yield f"{first_sentence(cls.__doc__)}\n"
    if attrs.has(cls):
        docs = key_docs(cls)
        rows = [(code(a.name), code(_written(a.type)), plain(docs.get(a.name, ""))) for a in attrs.fields(cls)]
        yield from table(("Field", "Type", "Meaning"), rows)
    for method, value in vars(cls).items():
        if _is_public(method, value, protocol):
            yield from _method(method, value)


def _is_public(name: str, value: Any, protocol: bool) -> bool:
    """True of the methods that the class itself documents; `__call__` counts where a protocol asks for it."""
    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    named = not name.startswith("_") or (name == "__call__" and protocol)
    return named and inspect.isfunction(function)


def _method(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, property):
        yield f"`{name}` (property): {first_sentence(value.__doc__)}\n"
        return
    function = getattr(value, "__func__", value)
    yield from _signature(f"def {name}", function)
    yield f"{first_sentence(function.__doc__)}\n"


def _signature(head: str, value: Any) -> Iterator[str]:
    try:
        text = str(inspect.signature(value))
    except ValueError:
        text = "(...)"
    yield f"```python\n{head}{_unquoted(text)}\n```\n"


def _constant(name: str, value: Any, module: str) -> Iterator[str]:
    source = inspect.getsource(importlib.import_module(module))
    yield f"```python\n{name} = {_defined(name, source) or repr(value)}\n```\n"
    comment = _comment_above(name, source)
    if comment:
        yield plain(comment)


def _defined(name: str, source: str) -> str:
    """What a module assigns to a name, as it is written."""
    for node in ast.parse(source).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.unparse(node.value) if node.value else ""  # pyright: ignore[reportAttributeAccessIssue]
    return ""


def _comment_above(name: str, source: str) -> str:
    """The comment of `#:` lines above a module's assignment."""
    lines = source.splitlines()
    place = next((i for i, line in enumerate(lines) if line.startswith((f"{name} =", f"{name}:"))), 0)
    found: list[str] = []
    while place and lines[place - 1].startswith("#:"):
        place -= 1
        found.insert(0, lines[place][2:].strip())
    return " ".join(found)


def _written(annotation: Any) -> str:
    return _unquoted(annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))


def _unquoted(text: str) -> str:
    """A signature without the quotes around annotations, which are texts until they are asked for."""
    return _QUOTED.sub(r"\1\2", text).replace("NOTHING", "...").replace("typing.", "")
