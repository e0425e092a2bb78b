"""The LoRA layouts of the installed plugins, as files are read with them: made when a file first needs one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from attrs import define

from clora.contracts.lora_layout import LoraLayout, LoraPart, TensorName, WritesTensorNames
from clora.errors import CloraError, escaped, quoted
from clora.lora_io.header import MAX_NAME
from clora.plugin_system.guard import Owners, came

if TYPE_CHECKING:
    from clora.plugin_system.catalogue import Registered

#: the kind of the components, and the place that messages give them
LAYOUTS = "lora_layouts"


@define(eq=False, slots=False)
class RegisteredLayout:
    """A layout of a plugin. Whatever it does wrong is one ComponentError with its name, its plugin and its line."""

    origin: Registered

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.origin.name

    @property
    def distribution(self) -> str:
        """Whose it is."""
        return self.origin.distribution

    @property
    def code(self) -> str:
        """Distribution, version and the hash of its source."""
        return self.origin.code

    def understand(self, names: Iterable[str]) -> Mapping[str, TensorName]:
        """What names say that are of this layout. Raises ComponentError for an answer that is neither that nor None."""
        found: dict[str, TensorName] = {}
        for name in names:
            layout = self._made
            with self._owners.calling(LAYOUTS):
                answer = layout.understand(name)
            if isinstance(answer, TensorName):
                found[name] = answer
            elif answer is not None:
                told = f"its understand({quoted(name)}) gave {came(answer)}; expected a TensorName or None"
                raise self._owners.error(LAYOUTS, told)
        return found

    def tensor_name(self, linear: str, part: LoraPart) -> str | None:
        """The name to write. Raises CloraError for a layout that is only read, ComponentError for what is no name."""
        layout = self._made
        if not isinstance(layout, WritesTensorNames):
            raise CloraError(f"the LoRA layout {quoted(self.name)} of {self.origin.giver} can be read and not written")
        with self._owners.calling(LAYOUTS):
            name = layout.tensor_name(linear, part)
        fits = isinstance(name, str) and 0 < len(name) <= MAX_NAME and escaped(name) == name
        if fits or (name is None and part == "alpha"):
            return name
        told = f"its tensor_name({quoted(linear)}, {part!r}) gave {came(name)}"
        raise self._owners.error(LAYOUTS, f"{told}; expected a name of up to {MAX_NAME} letters that are shown")

    @cached_property
    def _owners(self) -> Owners:
        return Owners({LAYOUTS: self.origin.owner})

    @cached_property
    def _made(self) -> LoraLayout:
        """The layout itself. Raises ComponentError where it cannot be imported or made, or is none."""
        from clora.plugin_system.required_members import misfits_of

        try:
            cls = self.origin.cls
        except CloraError as error:
            raise self._owners.error(LAYOUTS, str(error)) from error
        with self._owners.calling(LAYOUTS):
            made = cls()
        misfits = list(misfits_of(LAYOUTS, made))
        if misfits:
            raise self._owners.error(LAYOUTS, "; ".join(misfits))
        return made
