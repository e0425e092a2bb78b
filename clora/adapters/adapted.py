"""One frozen network whose target linears can use any adapter, a different one in every row of a batch.

PEFT's own layers refuse a mixed-adapter batch in training (`adapter_names` raises) and copy nothing flat, so the
wrapping is ours; names, initialisation and files are PEFT's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from typing import Protocol

import torch
from torch import nn

from clora.adapters.adapter import Adapter
from clora.adapters.eager import Segment, add_segments, eager_lora_linear
from clora.adapters.feed_forward import join_feed_forwards
from clora.adapters.shared_input import SharedInput, shared_inputs
from clora.memory.linear import FrozenLinear
from clora.protocols import GroupsLinears, JoinsMlp

#: what stands for a module that an adapter does not cover
NOT_COVERED: tuple[None, None, float] = (None, None, 0.0)

Kernel = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None", Sequence[Segment]], torch.Tensor]


class Routing:
    """Which adapter each row of the coming forward uses; one object that all wrapped linears look at."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.runs: tuple[tuple[str | None, int], ...] = ()  # (adapter, how many rows in a row)
        self.rows = 0
        self.turn = 0  # counts how often rows were set; a forward that is made again has the turn of the first
        self.waiting: set[SharedInput] = set()  # those that hold outputs
        self._turns = 0

    @contextmanager
    def at(self, runs: tuple[tuple[str | None, int], ...], rows: int, turn: int | None = None) -> Iterator[None]:
        """Within it, these runs of rows; then what was set before. `turn` is that of a forward that is made again."""
        before = self.runs, self.rows, self.turn
        if turn is None:
            turn = self._turns = self._turns + 1
        self._forget()
        self.runs, self.rows, self.turn = runs, rows, turn
        try:
            yield
        finally:
            self._forget()
            self.runs, self.rows, self.turn = before

    def _forget(self) -> None:
        for linears in tuple(self.waiting):
            linears.forget()


class LoraLinear(nn.Module):
    """A frozen linear and the adapters that cover it."""

    def __init__(self, base: nn.Linear | FrozenLinear, routing: Routing) -> None:
        super().__init__()
        self.base = base
        self.routing = routing
        self.factors: dict[str, tuple[torch.Tensor, torch.Tensor, float]] = {}
        self.shared: SharedInput | None = None

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

    def segments(self, x: torch.Tensor) -> list[Segment]:
        """The row segments of x [B, ..., in] with the factors that cover this linear; none where no rows are set."""
        segments: list[Segment] = []
        for name, rows in self.routing.runs:
            a, b, scale = NOT_COVERED if name is None else self.factors.get(name, NOT_COVERED)
            segments.append((rows, a, b, scale))
        if x.shape[0] == self.routing.rows or not segments:
            return segments
        if x.shape[0] % self.routing.rows == 0:  # a network may stack its batch (Qwen 2511's zero_cond_t does)
            return segments * (x.shape[0] // self.routing.rows)
        if any(a is not None for _, a, _, _ in segments):
            raise ValueError(f"{x.shape[0]} rows reached a linear, but adapters are set for {self.routing.rows}")
        return segments


class Supply(Protocol):
    """Adapters that are put on the network when rows ask for them, and may leave it when others are asked for."""

    def held(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Within it those of `names` that it can give are on the network; other names are no concern of it."""
        ...


class AdaptedNetwork:
    """A frozen network with named adapters; `rows(...)` says which row of the next forwards uses which.

    `supply` gives adapters that come when first asked for.
    """

    def __init__(self, network: nn.Module, targets: Sequence[str], kernel: Kernel = eager_lora_linear) -> None:
        network.requires_grad_(False)
        self.network = network
        self.routing = Routing(kernel)
        self.adapters: dict[str, Adapter] = {}
        self.linears: dict[str, LoraLinear] = {}
        self.supply: Supply | None = None
        for target in targets:
            parent, _, leaf = target.rpartition(".")
            owner = network.get_submodule(parent)
            linear = network.get_submodule(target)
            if not isinstance(linear, nn.Linear | FrozenLinear):
                raise TypeError(f"target {target} is a {type(linear).__name__}, not a Linear")
            self.linears[target] = LoraLinear(linear, self.routing)
            setattr(owner, leaf, self.linears[target])
        if isinstance(kernel, GroupsLinears):
            for linears in shared_inputs(self.linears):
                shared = SharedInput(kernel, linears)
                for each in linears:
                    each.shared = shared
        if isinstance(kernel, JoinsMlp):
            join_feed_forwards(network, self.linears, kernel)

    def add(self, name: str, adapter: Adapter) -> Adapter:
        """Put an adapter under a name, replacing what stood there; modules that it does not cover lose theirs."""
        unknown = [module for module in adapter.factors if module not in self.linears]
        if unknown:
            raise ValueError(
                f"adapter {name} covers {len(unknown)} linears that the network lacks, such as {unknown[0]}"
            )
        self.adapters[name] = adapter
        for module, linear in self.linears.items():
            linear.factors.pop(name, None)
            if module in adapter.factors:
                linear.factors[name] = adapter.factors[module]
        return adapter

    def remove(self, name: str) -> None:
        """Take an adapter off the network; rows that ask for it afterwards are refused, or supplied anew."""
        self.adapters.pop(name, None)
        for linear in self.linears.values():
            linear.factors.pop(name, None)

    @contextmanager
    def rows(self, adapters: Sequence[str | None]) -> Iterator[None]:
        """Within it, row i of every batch uses adapters[i]; None is the bare base.

        Raises KeyError for a name that nobody added or supplies: falling back on the base would teach the wrong thing.
        """
        names = sorted({name for name in adapters if name is not None})
        with nullcontext() if self.supply is None else self.supply.held(names):
            for name in names:
                if name not in self.adapters:
                    raise KeyError(f"no adapter named {name!r}; there are {', '.join(sorted(self.adapters)) or 'none'}")
            runs = tuple((name, len(list(run))) for name, run in groupby(adapters))
            with self.routing.at(runs, len(adapters)):
                yield
