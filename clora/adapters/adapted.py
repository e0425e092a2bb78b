"""One frozen network whose linears and convolutions can use any adapter, a different one in every row of a batch.

PEFT's own layers refuse a mixed-adapter batch in training (`adapter_names` raises) and copy nothing flat, so the
wrapping is ours; names, initialisation and files are PEFT's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from typing import Protocol

from torch import nn

from clora.adapters.adapter import Adapter
from clora.adapters.eager import eager_lora_linear
from clora.adapters.feed_forward import join_feed_forwards
from clora.adapters.lora_conv import LoraConv
from clora.adapters.lora_linear import Kernel, LoraLinear, Routing
from clora.adapters.shared_input import SharedInput, shared_inputs
from clora.contracts.loaded_backbone import GroupsLinears, JoinsMlp
from clora.toolkit.memory.linear import FrozenLinear


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
        self.modules: dict[str, LoraLinear | LoraConv] = {}
        self.supply: Supply | None = None
        for target in targets:
            parent, _, leaf = target.rpartition(".")
            owner = network.get_submodule(parent)
            self.modules[target] = _wrapped(target, network.get_submodule(target), self.routing)
            setattr(owner, leaf, self.modules[target])
        self.linears = {target: module for target, module in self.modules.items() if isinstance(module, LoraLinear)}
        if isinstance(kernel, GroupsLinears):
            for linears in shared_inputs(self.linears):
                shared = SharedInput(kernel, linears)
                for each in linears:
                    each.shared = shared
        if isinstance(kernel, JoinsMlp):
            join_feed_forwards(network, self.linears, kernel)

    def add(self, name: str, adapter: Adapter) -> Adapter:
        """Put an adapter under a name, replacing what stood there; modules that it does not cover lose theirs."""
        unknown = [module for module in adapter.factors if module not in self.modules]
        if unknown:
            raise ValueError(
                f"adapter {name} covers {len(unknown)} modules that the network lacks, such as {unknown[0]}"
            )
        self.adapters[name] = adapter
        for target, module in self.modules.items():
            module.factors.pop(name, None)
            if target in adapter.factors:
                module.factors[name] = adapter.factors[target]
        return adapter

    def remove(self, name: str) -> None:
        """Take an adapter off the network; rows that ask for it afterwards are refused, or supplied anew."""
        self.adapters.pop(name, None)
        for module in self.modules.values():
            module.factors.pop(name, None)

    @contextmanager
    def rows(self, adapters: Sequence[str | None], *, frozen: bool = False) -> Iterator[None]:
        """Within it, row i of every batch uses adapters[i]; None is the bare base. `frozen` ones learn nothing.

        Raises KeyError for a name that nobody added or supplies: falling back on the base would teach the wrong thing.
        """
        names = sorted({name for name in adapters if name is not None})
        with nullcontext() if self.supply is None else self.supply.held(names):
            for name in names:
                if name not in self.adapters:
                    raise KeyError(f"no adapter named {name!r}; there are {', '.join(sorted(self.adapters)) or 'none'}")
            runs = tuple((name, len(list(run))) for name, run in groupby(adapters))
            with self.routing.at(runs, len(adapters), frozen=frozen):
                yield


def _wrapped(target: str, module: nn.Module, routing: Routing) -> LoraLinear | LoraConv:
    """A linear or a convolution that adapters can be put on. Raises TypeError for any other module."""
    if isinstance(module, nn.Linear | FrozenLinear):
        return LoraLinear(module, routing)
    if isinstance(module, nn.Conv2d):
        return LoraConv(module, routing)
    raise TypeError(f"target {target} is a {type(module).__name__}, neither a Linear nor a Conv2d")
