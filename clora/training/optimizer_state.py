"""A torch optimizer's state as named tensors, exact to resume whatever the optimizer keeps.

torch's own `load_state_dict` casts state to the parameter's type, which is not exact for optimizers that keep another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from clora.plugin_system.guard import came


def _numbers(group: Mapping[str, Any]) -> dict[str, bool | int | float]:
    """The numbers of a parameter group but for the rate, which the core sets before every update."""
    return {key: value for key, value in group.items() if key != "lr" and isinstance(value, bool | int | float)}


def _as_tensor(number: bool | int | float) -> torch.Tensor:
    """A number whose `item()` is the same again, type included."""
    return torch.tensor(number, dtype=torch.float64 if isinstance(number, float) else None)


class OptimizerState:
    """An optimizer's state by names: KIND.INDEX.KEY, the index that of the parameter or of its group.

    Kinds: `state` for tensors beside the weights, `scalar` for those of one number on the CPU (AdamW's step), `number`
    for Python's numbers, `group` for a group's numbers that have changed since the optimizer was made.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._made = [_numbers(group) for group in optimizer.param_groups]

    def _parameters(self) -> list[torch.Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that an exact resume needs. Raises TypeError for state that a checkpoint cannot keep."""
        found: dict[str, torch.Tensor] = {}
        parameters = self._parameters()
        known = set(map(id, parameters))
        strange = [key for key in self.optimizer.state if id(key) not in known]
        if strange:
            raise TypeError(f"the optimizer keeps state of {came(strange[0])}, which is none of its parameters")
        for index, parameter in enumerate(parameters):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:
                    kind, tensor = _kept(key, value)
                    found[f"{kind}.{index}.{key}"] = tensor
        for index, (group, made) in enumerate(zip(self.optimizer.param_groups, self._made, strict=True)):
            changed = {key: value for key, value in _numbers(group).items() if value != made.get(key)}
            found |= {f"group.{index}.{key}": _as_tensor(value) for key, value in changed.items()}
        return found

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave; what there was before goes."""
        self.optimizer.state.clear()
        for group, made in zip(self.optimizer.param_groups, self._made, strict=True):
            group.update(made)
        parameters = self._parameters()
        for name, value in tensors.items():
            kind, index, key = name.split(".", 2)
            if kind == "group":
                self.optimizer.param_groups[int(index)][key] = value.item()
                continue
            parameter = parameters[int(index)]
            if kind == "number":
                self.optimizer.state[parameter][key] = value.item()
            else:
                device = torch.device("cpu") if kind == "scalar" else parameter.device
                self.optimizer.state[parameter][key] = value.to(device, copy=True)


def _kept(key: object, value: object) -> tuple[str, torch.Tensor]:
    """The kind of a state's value and a tensor that holds it. Raises TypeError for anything but tensors and numbers."""
    if isinstance(key, str) and isinstance(value, torch.Tensor):
        return "scalar" if value.dim() == 0 and value.device.type == "cpu" else "state", value
    if isinstance(key, str) and isinstance(value, bool | int | float):
        return "number", _as_tensor(value)
    raise TypeError(f"the optimizer's state has {key!r}: {came(value)}; a checkpoint keeps tensors and numbers")
