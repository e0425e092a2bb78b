"""HTML made of escaped pieces, and the skeleton of a page that fetches nothing.

Text becomes markup through `element` alone, which escapes it: what a recipe or a bank says can never become a tag.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path

_VOID = frozenset({"img", "meta", "br", "line", "path", "rect", "circle"})
#: Nothing but inline pictures and the page's own style may load, even if a piece of text were to slip through.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Text as HTML; what UTF-8 or HTML cannot hold (lone surrogates, NUL) becomes a replacement character."""
    if isinstance(text, Markup):
        return text
    clean = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    return Markup(html.escape(clean, quote=True))


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Pieces one after the other, those that are plain text escaped."""
    return Markup(escape(between).join(escape(part) for part in parts))


def element(name: str, /, *children: str, **attributes: str | float | bool | None) -> Markup:
    """One element; `class_` is class, `aria_label` is aria-label, True is a bare attribute, None and False are none."""
    written = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        written.append(label if value is True else f'{label}="{escape(str(value))}"')
    opening = " ".join(written)
    # Inside SVG a tag without its slash would swallow all that follows.
    return Markup(f"<{opening}/>" if name in _VOID else f"<{opening}>{join(children)}</{name}>")


def document(title: str, *body: str) -> str:
    """A whole page with the report's style, light or dark as the reader's system says."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )
    return f"<!doctype html>\n{element('html', head, element('body', *body), lang='en')}\n"
