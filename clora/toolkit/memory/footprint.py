"""What a transformer takes in memory, from its configuration alone: it is built without numbers and its code is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from clora.contracts.backbone import Footprint

if TYPE_CHECKING:
    import torch
    from torch import nn

    from clora.toolkit.memory.measure import Measured
    from clora.toolkit.memory.settings import NetworkMemory


@frozen
class Blueprint:
    """All that the footprint of a transformer depends on."""

    build: Callable[[], nn.Module]  # the network with its configuration; called where tensors have no numbers
    forward: Callable[[nn.Module], torch.Tensor]  # its answer to one row of the largest size, on the meta device
    blocks: Sequence[str]  # the lists of transformer blocks, by dotted name
    memory: NetworkMemory  # how its weights are kept
    targets: Mapping[str, tuple[int, int]]  # (in, out) of the linears that carry adapters
    rank: int  # the trained adapter's


def network_footprint(plan: Blueprint) -> Footprint:
    """The bytes of the weights as kept, and of one row's activations; reads no weights.

    All blocks of a list are alike, so the activations are those of a network of two or three, drawn out to all.
    """
    whole = _built(plan)
    counts = [len(list(whole.get_submodule(name).children())) for name in plan.blocks]
    weights, waiting = _bytes(whole)
    cut = [min(2, count) for count in counts]
    few = _measured(plan, cut)
    held, flops = few.held, few.flops
    for i, (count, here) in enumerate(zip(counts, cut, strict=True)):
        if count > here:
            more = _measured(plan, [*cut[:i], here + 1, *cut[i + 1 :]])
            held += (count - here) * (more.held - few.held)
            flops += (count - here) * (more.flops - few.flops)
    return Footprint(
        weights=weights,
        row=held,
        backward=few.backward,
        sampling=few.sampling,
        waiting=waiting,
        flops=flops,
        blocks=sum(counts),
    )


def _built(plan: Blueprint, cut: Sequence[int] | None = None) -> nn.Module:
    """The network without numbers, as its memory settings keep it; of each list of blocks only the first few."""
    import torch

    from clora.toolkit.memory.fit import fit_network

    with torch.device("meta"):
        # torch's own `to`: that of diffusers' models warns about an empty list of modules
        network = torch.nn.Module.to(plan.build(), plan.memory.dtype).eval()
    how = plan.memory
    if cut is not None:
        for name, count in zip(plan.blocks, cut, strict=True):
            parent, _, leaf = name.rpartition(".")
            few = list(network.get_submodule(name).children())[:count]
            setattr(network.get_submodule(parent), leaf, torch.nn.ModuleList(few))
        how = evolve(how, offload_blocks=0)  # where weights wait changes no activation
    return fit_network(network, plan.blocks, how, torch.device("meta"))


def _bytes(network: nn.Module) -> tuple[int, int]:
    """The bytes of a fitted network on the device, and in CPU memory."""
    from clora.toolkit.memory.linear import FrozenLinear
    from clora.toolkit.memory.offload import OffloadedBlocks

    here = sum(part.numel() * part.element_size() for part in (*network.parameters(), *network.buffers()))
    sources = [part.elsewhere for part in network.modules() if isinstance(part, FrozenLinear)]
    blocks: set[OffloadedBlocks] = {source.blocks for source in sources if source is not None}
    here += sum(buffer.numel() for waiting in blocks for buffer in waiting.buffers)
    return here, sum(host.numel() for waiting in blocks for host in waiting.host)


def _measured(plan: Blueprint, cut: Sequence[int]) -> Measured:
    """What a row takes in a network of few blocks with a trained adapter on it."""
    import torch

    from clora.adapters.adapted import AdaptedNetwork
    from clora.adapters.adapter import Adapter, Slot
    from clora.toolkit.memory.measure import measure

    network = _built(plan, cut)
    present = {name for name, _ in network.named_modules()}
    slots: dict[str, Slot] = {}
    end = 0
    for name, (inputs, outputs) in plan.targets.items():
        if name in present:
            slots[name] = Slot(plan.rank, inputs, outputs, 1.0, end)
            end += slots[name].size
    adapted = AdaptedNetwork(network, tuple(slots))
    adapted.add("student", Adapter(slots, torch.empty(end, device="meta"), trainable=True))

    def forward() -> torch.Tensor:
        with adapted.rows(["student"]):
            return plan.forward(network)

    return measure(forward)
