"""A network made to fit: quantised, offloaded, checkpointed, compiled as its memory settings say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from clora.errors import CloraError
from clora.toolkit.memory.sharing import sharing

if TYPE_CHECKING:
    import torch
    from torch import nn

    from clora.toolkit.memory.settings import NetworkMemory

    Network = TypeVar("Network", bound=nn.Module)


def fit_network(network: nn.Module, blocks: Sequence[str], how: NetworkMemory, device: torch.device) -> nn.Module:
    """The same network, frozen and on a device, kept as `how` says; give it on the CPU, before it carries adapters.

    `blocks` are the dotted names of its lists of transformer blocks in the order in which they run. Each block passes
    over the device alone, so the device never holds more than the outcome and one block.
    """
    from clora.toolkit.memory.checkpointing import checkpointed
    from clora.toolkit.memory.precision import DTYPES
    from clora.toolkit.memory.settings import ATTENTION

    network.requires_grad_(False)
    dtype = DTYPES.get(how.weights)
    if dtype and any(part.is_floating_point() and part.dtype != dtype for part in network.parameters()):
        network.to(dtype)
    modules = block_modules(network, blocks)
    if how.compile and device.type != "meta":
        _compile(modules, device)
    share = sharing()
    if share is not None:
        if how.weights not in DTYPES or how.offload_blocks:
            raise CloraError(
                "train.shard_base shares whole bf16 or fp32 weights among the processes; "
                f"memory.weights {how.weights} with memory.offload_blocks {how.offload_blocks} keeps them otherwise"
            )
        share(network, modules)
    else:
        _place(network, modules, how, device)
    if how.attention != "sdpa":
        network.set_attention_backend(ATTENTION[how.attention])  # pyright: ignore[reportCallIssue] - the same
    if how.gradient_checkpointing:
        network.enable_gradient_checkpointing(checkpointed)  # pyright: ignore[reportCallIssue] - diffusers' ModelMixin
    return network


def load_fitted(
    load: Callable[[torch.device], Network], blocks: Sequence[str], how: NetworkMemory, device: torch.device
) -> Network:
    """`load`'s network as `fit_network` keeps it: read straight onto the device where it stays there as it is.

    Else it is read into CPU memory, for the device may not have room for the whole of it.
    """
    import torch

    from clora.toolkit.memory.precision import DTYPES

    as_it_is = how.weights in DTYPES and not how.offload_blocks and sharing() is None
    network = load(device if as_it_is else torch.device("cpu"))
    fit_network(network, blocks, how, device)
    return network


def _place(network: nn.Module, modules: Sequence[nn.Module], how: NetworkMemory, device: torch.device) -> None:
    """Move a network block by block, quantising and offloading on the way."""
    from clora.toolkit.memory.offload import OffloadedBlocks
    from clora.toolkit.memory.precision import DTYPES

    waiting = spread(how.offload_blocks, len(modules))
    elsewhere = OffloadedBlocks(device)
    for index, block in enumerate(modules):
        if index in waiting or how.weights not in DTYPES:
            frozen = freeze_linears(block, how, device)
            if index in waiting:
                elsewhere.add(frozen)
        block.to(device)
    network.to(device)


def _compile(modules: Sequence[nn.Module], device: torch.device) -> None:
    """Have the blocks compiled; raises CloraError where this machine cannot: another may have checked."""
    from clora.toolkit.memory.compilers import missing
    from clora.toolkit.memory.compiling import compile_blocks

    problems = list(missing(device.type == "cuda"))
    if problems:
        raise CloraError("; ".join(problems))
    compile_blocks(modules)


def block_modules(network: nn.Module, blocks: Sequence[str]) -> list[nn.Module]:
    """The transformer blocks of a network in the order in which they run."""
    return [block for name in blocks for block in network.get_submodule(name).children()]


def spread(count: int, of: int) -> frozenset[int]:
    """`count` of the numbers 0 .. of - 1, evenly: the blocks in between give a copy time to arrive."""
    return frozenset((2 * i + 1) * of // (2 * count) for i in range(count))


def freeze_linears(block: nn.Module, how: NetworkMemory, device: torch.device) -> list:
    """Put a FrozenLinear in the place of every linear of a block, its weight packed on the device."""
    from torch import nn

    from clora.toolkit.memory.linear import FrozenLinear
    from clora.toolkit.memory.quantizers import form_of

    form = form_of(how.weights, how.quantizer)
    frozen: list[FrozenLinear] = []
    for name, linear in [(name, part) for name, part in block.named_modules() if name and type(part) is nn.Linear]:
        parent, _, leaf = name.rpartition(".")
        frozen.append(FrozenLinear(form, linear, form.pack(linear.weight.to(device))))
        setattr(block.get_submodule(parent), leaf, frozen[-1])
    return frozen
