"""Which files of the repository the site holds: READMEs as pages, and every other file that a page links as a copy."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path, PurePosixPath

from attrs import frozen

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ADDRESS = re.compile(r"[a-z]+:|#|/")


@frozen
class Page:
    """A page of the site that is written by hand, and where its text lies in the repository."""

    uri: str  # its place in the site
    path: str  # its place in the repository


def pages(root: Path) -> list[Page]:
    """The pages that lie outside docs/: README, CONTRIBUTING and the plugins' READMEs."""
    plugins = sorted(path.parent.name for path in root.glob("plugins/*/README.md"))
    own = [Page("index.md", "README.md"), Page("contributing.md", "CONTRIBUTING.md")]
    return own + [Page(f"plugins/{name}.md", f"plugins/{name}/README.md") for name in plugins]


def site_uri(root: Path, path: str) -> str | None:
    """Where the site has a file or folder of the repository; None where there is no such file."""
    for page in pages(root):
        if path in (page.path, posixpath.dirname(page.path)) and path:
            return page.uri
    if not (root / path).is_file():
        return None
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}"


def with_site_links(root: Path, page: Page, text: str) -> tuple[str, dict[str, Path]]:
    """The page with its links as the site has them, and the files outside docs/ that it links, by their place there.

    A link that leads nowhere stays as it is, for mkdocs to refuse.
    """
    copies: dict[str, Path] = {}

    def replaced(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        if _ADDRESS.match(match[1]):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.path), target))
        uri = site_uri(root, path)
        if uri is None:
            return match[0]
        if uri.startswith("files/"):
            copies[uri] = root / path
        relative = os.path.relpath(uri, PurePosixPath(page.uri).parent)
        return f"]({relative}{'#' + anchor if anchor else ''})"

    return _LINK.sub(replaced, text), copies
