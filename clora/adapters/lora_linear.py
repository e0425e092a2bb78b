"""A frozen linear whose rows may use different adapters, what says which, and what a convolution has of the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import torch
from torch import nn

from clora.adapters.eager import Segment, add_segments
from clora.toolkit.memory.linear import FrozenLinear

#: what stands for a module that an adapter does not cover
NOT_COVERED: tuple[None, None, float] = (None, None, 0.0)

#: what carries adapters: a linear, one whose weight waits or is quantised, or a convolution
Base = TypeVar("Base", bound="nn.Linear | FrozenLinear | nn.Conv2d")
Kernel = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None", Sequence[Segment]], torch.Tensor]


class SharedOutputs(Protocol):
    """Outputs of several linears of one input, computed together when the first of them is asked."""

    def output(self, linear: LoraLinear, x: torch.Tensor) -> torch.Tensor | None:
        """The output of one of them for x; None where it is to be computed alone."""
        ...

    def forget(self) -> None:
        """Let go of what is held."""
        ...


class Routing:
    """Which adapter each row of the coming forward uses; one object that all wrapped linears look at."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.runs: tuple[tuple[str | None, int], ...] = ()  # (adapter, how many rows in a row)
        self.rows = 0
        self.frozen = False  # True: adapters compute and learn nothing
        self.turn = 0  # counts how often rows were set; a forward that is made again has the turn of the first
        self.waiting: set[SharedOutputs] = set()  # those that hold outputs
        self._turns = 0

    @contextmanager
    def at(
        self, runs: tuple[tuple[str | None, int], ...], rows: int, turn: int | None = None, *, frozen: bool = False
    ) -> Iterator[None]:
        """Within it, these runs of rows; then what was set before. `turn` is that of a forward that is made again."""
        before = self.runs, self.rows, self.turn, self.frozen
        if turn is None:
            turn = self._turns = self._turns + 1
        self._forget()
        self.runs, self.rows, self.turn, self.frozen = runs, rows, turn, frozen
        try:
            yield
        finally:
            self._forget()
            self.runs, self.rows, self.turn, self.frozen = before

    def _forget(self) -> None:
        for linears in tuple(self.waiting):
            linears.forget()


class LoraModule(nn.Module, Generic[Base]):
    """A frozen module of the network with the adapters that cover it; `factors` has A, B and scale by adapter."""

    def __init__(self, base: Base, routing: Routing) -> None:
        super().__init__()
        self.base = base
        self.routing = routing
        self.factors: dict[str, tuple[torch.Tensor, torch.Tensor, float]] = {}

    @property
    def weight_matrix(self) -> torch.Tensor:
        """The base's own weight, [out, in], of a convolution [out, in kh kw]; made for this call where quantised."""
        return self.base.weight.flatten(1)

    def segments(self, x: torch.Tensor) -> list[Segment]:
        """The row segments of x [B, ..., in] with the factors that cover this module; none where no rows are set."""
        segments: list[Segment] = []
        for name, rows in self.routing.runs:
            a, b, scale = NOT_COVERED if name is None else self.factors.get(name, NOT_COVERED)
            if self.routing.frozen and a is not None and b is not None:
                a, b = a.detach(), b.detach()
            segments.append((rows, a, b, scale))
        if x.shape[0] == self.routing.rows or not segments:
            return segments
        if x.shape[0] % self.routing.rows == 0:  # a network may stack its batch (Qwen 2511's zero_cond_t does)
            return segments * (x.shape[0] // self.routing.rows)
        if any(a is not None for _, a, _, _ in segments):
            raise ValueError(
                f"{x.shape[0]} rows reached a linear or convolution, but adapters are set for {self.routing.rows}"
            )
        return segments


class LoraLinear(LoraModule["nn.Linear | FrozenLinear"]):
    """A frozen linear and the adapters that cover it."""

    def __init__(self, base: nn.Linear | FrozenLinear, routing: Routing) -> None:
        super().__init__(base, routing)
        self.shared: SharedOutputs | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, ..., in] -> [B, ..., out], each row with its own adapter."""
        if self.shared is not None:
            y = self.shared.output(self, x)
            if y is not None:
                return y
        segments = self.segments(x)
        if all(a is None for _, a, _, _ in segments):
            return self.base(x)
        if isinstance(self.base, FrozenLinear):  # there is no weight to give a kernel: it is made for this call alone
            return add_segments(self.base(x), x, segments)
        return self.routing.kernel(x, self.base.weight, self.base.bias, segments)
