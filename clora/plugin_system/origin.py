"""Whose a component or a command is, as messages and run.json say it."""

from __future__ import annotations

from abc import abstractmethod

from attrs import frozen

from clora.errors import quoted


@frozen
class Origin:
    """The plugin that something comes from: its entry point, and the distribution that installed it."""

    plugin: str
    distribution: str
    version: str

    @property
    @abstractmethod
    def name(self) -> str:
        """What people write to use it."""

    @property
    def owner(self) -> str:
        """What messages call it: `opd of clora-opd 0.2.0`."""
        return f"{self.name} of {self.distribution} {self.version}"

    @property
    def giver(self) -> str:
        """The plugin as messages name it: `'opd' of clora-opd 0.2.0`."""
        return f"{quoted(self.plugin)} of {self.distribution} {self.version}"
