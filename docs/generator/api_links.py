"""Names of `clora.api` in a page's text become links to its reference."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

from reference_api import exported

API_PAGE = "reference/api.md"
_NAME = re.compile(r"(?<!\[)`([A-Z]\w*)`(?!\])")


def with_api_links(text: str, uri: str) -> str:
    """The page at `uri` with every public type in backticks as a link; blocks of code and headings stay as they are."""
    page = os.path.relpath(API_PAGE, PurePosixPath(uri).parent)
    names = {name for module in exported().values() for name in module}

    def linked(match: re.Match[str]) -> str:
        return f"[{match[0]}]({page}#{match[1].lower()})" if match[1] in names else match[0]

    lines, in_code = [], False
    for line in text.split("\n"):
        in_code ^= line.lstrip().startswith("```")
        lines.append(line if in_code or line.startswith("#") else _NAME.sub(linked, line))
    return "\n".join(lines)
