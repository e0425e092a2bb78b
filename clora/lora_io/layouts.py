"""The layouts that plugins have registered in this process; the core's own are in `grammar`.

Whoever finds the plugins puts them here, all at once: files are read deep inside a run, and a layout belongs to the
installation, not to a recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from clora.contracts.lora_layout import LoraPart, TensorName
from clora.errors import CloraError, hint, quoted


class InstalledLayout(Protocol):
    """A registered layout, imported when a file first needs it; what it does wrong is told by its name and plugin."""

    @property
    def name(self) -> str:
        """What reports call it, and what `write_lora` takes."""
        ...

    @property
    def distribution(self) -> str:
        """Whose it is: two may have one name."""
        ...

    @property
    def code(self) -> str:
        """What a run depends on that read a file with it: distribution, version, hash of the source."""
        ...

    def understand(self, names: Iterable[str]) -> Mapping[str, TensorName]:
        """What those names say that are of this layout. Raises CloraError where the layout cannot be asked."""
        ...

    def tensor_name(self, linear: str, part: LoraPart) -> str | None:
        """The name to write, as `WritesTensorNames` has it. Raises CloraError for a layout that is only read."""
        ...


class _Installed:
    """What is registered in this process."""

    layouts: tuple[InstalledLayout, ...] = ()


def install(layouts: Iterable[InstalledLayout]) -> None:
    """Let these be the registered layouts, and no others."""
    _Installed.layouts = tuple(layouts)


def installed() -> tuple[InstalledLayout, ...]:
    """All registered layouts."""
    return _Installed.layouts


def layout_named(name: str, own: Iterable[str]) -> InstalledLayout:
    """The registered layout that is meant by `name` or `distribution:name`; `own` are names of the core's layouts.

    Raises CloraError where there is none, or more than one.
    """
    distribution, _, word = name.rpartition(":")
    found = [each for each in installed() if each.name == word and distribution in ("", each.distribution)]
    if len(found) > 1:
        choice = " or ".join(f"{each.distribution}:{each.name}" for each in found)
        raise CloraError(f"{len(found)} LoRA layouts are named {quoted(name)}; write {choice}")
    if not found:
        known = [*own, *(each.name for each in installed())]
        raise CloraError(f"no LoRA layout is named {quoted(name)}{hint(name, known)}")
    return found[0]
