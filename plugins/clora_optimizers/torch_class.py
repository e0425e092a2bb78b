"""A class of torch.optim by its name, with arguments that its own signature and its own checks accept."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from clora.api import WorksOn, hint, quoted, reason

if TYPE_CHECKING:
    import torch

#: classes that the training loop cannot serve, and why
UNSUITED = {
    "LBFGS": "it computes the loss several times within an update",
    "SparseAdam": "it takes sparse gradients, and an adapter's are dense",
}
#: classes whose rule needs the shapes of the matrices
ON_MATRICES = frozenset({"Adafactor", "Muon"})
#: arguments that are the core's
GIVEN = ("params", "lr")
#: the matrix that arguments are tried on, large enough that a row of state beside it counts little
TRIED = (64, 128)


@frozen
class TorchClass:
    """Any optimizer of torch.optim that takes dense gradients and one loss: `{use: torch, name: SGD}`.

    The rate is the recipe's (`train.lr`, `critic.lr`), and so are its course and the clipping.
    """

    name: str  # of the class, such as SGD, RMSprop, NAdam, Adafactor
    args: dict[str, Any] = field(factory=dict)  # of the class, such as `momentum: 0.9`; params and lr are given

    @property
    def works_on(self) -> WorksOn:
        """Matrices for Adafactor and Muon, all numbers at once for the others."""
        return "matrices" if self.name in ON_MATRICES else "weights"

    def check(self) -> Iterable[str]:
        """A class that there is not, or not for this loop; arguments that it does not take."""
        known = _classes()
        if self.name in UNSUITED:
            yield f"torch.optim.{self.name} cannot train here: {UNSUITED[self.name]}"
        elif self.name not in known:
            yield f"torch.optim has no optimizer {quoted(self.name)}{hint(self.name, known)}"
        else:
            wrong = list(self._unknown(known[self.name])) or list(self._refused())
            yield from wrong

    def _unknown(self, cls: type[torch.optim.Optimizer]) -> Iterable[str]:
        takes = [name for name in inspect.signature(cls).parameters if name not in GIVEN]
        for name in self.args:
            if name in GIVEN:
                yield f"args: {name} is not given here; the rate is train.lr and critic.lr"
            elif name not in takes:
                yield f"args: torch.optim.{self.name} takes no {quoted(name)}{hint(name, takes)}"

    def _refused(self) -> Iterable[str]:
        """What the class itself says of the arguments' values, asked by an update of a small matrix."""
        try:
            self.state_per_weight()
        except Exception as error:  # of every kind: a text where a number belongs, a number out of bounds
            yield f"args: torch.optim.{self.name} refuses them: {type(error).__name__}: {reason(error)}"

    def make(self, parameters: Sequence[torch.Tensor], lr: float) -> torch.optim.Optimizer:
        """The class over the parameters."""
        return _classes()[self.name](parameters, lr=lr, **self.args)  # pyright: ignore[reportCallIssue]

    def state_per_weight(self) -> float:
        """Counted after one update of a small matrix."""
        import torch

        matrix = torch.ones(TRIED, requires_grad=True)
        matrix.grad = torch.ones(TRIED)
        optimizer = self.make([matrix], 1e-3)
        optimizer.step()
        tensors = [value for value in optimizer.state[matrix].values() if isinstance(value, torch.Tensor)]
        return sum(tensor.numel() for tensor in tensors if tensor.dim()) / matrix.numel()


def _classes() -> dict[str, type[torch.optim.Optimizer]]:
    """The optimizers of the installed torch by their names, but for those that the loop cannot serve."""
    import torch

    found = {name: value for name, value in vars(torch.optim).items() if isinstance(value, type)}
    return {
        name: cls
        for name, cls in found.items()
        if issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer and name not in UNSUITED
    }
