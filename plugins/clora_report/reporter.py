"""The reporter `html`: numbers, pictures, curves and the recipe of a run on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from clora.api import RunReport


@frozen
class HtmlReport:
    """One HTML page with everything in it: it opens offline, fetches nothing and runs no script."""

    file: str = "report.html"  # the name of the page in the run's folder

    def files(self) -> Sequence[str]:
        """The page."""
        return (self.file,)

    def report(self, run: RunReport) -> Mapping[str, str | bytes]:
        """The page's text."""
        from clora_report.page import page

        return {self.file: page(run)}
