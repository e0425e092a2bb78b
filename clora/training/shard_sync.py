"""One frozen base for all ranks: each keeps its share of the weights, and a block's are gathered when it runs (FSDP2).

All ranks gather together, so all must evaluate the network equally often and in the same order, though their rows,
their streams and the lengths of their rollouts differ. Before every evaluation the ranks agree on one: those without
gradient first. A rank that has none of its own evaluates a row of no consequence; it would only wait for the others
instead. So no draw need be the same on all ranks, and a shared base trains what a base on every rank trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from clora.toolkit.memory.sharing import loaded_by
from clora.training.distributed import Distributed

#: what a rank would do next; the greatest wish of all ranks is done
DONE, WITH_GRADIENT, WITHOUT_GRADIENT = 0, 1, 2


class ShardSync:
    """How a rank keeps pace with the others in evaluating the network: nothing to do where each has it whole."""

    shared = False

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Within it the network is loaded."""
        yield

    def attend(self, network: nn.Module) -> None:
        """Take a network, on which adapters stand already, into one's care."""

    def finish(self) -> None:
        """Return once no rank has anything to evaluate in this part of the work; every rank calls it."""

    def owed(self) -> torch.Tensor | None:
        """A zero to add to what goes backward, so that all ranks go back through the same evaluations, or None."""
        return None


class CollectiveShardSync(ShardSync):
    """Keeps a network in shares and all ranks in step. Every rank makes one, at the same point of the work.

    `idle(grad)` evaluates the network once on anything, with a gradient to the student's weights where `grad`.
    """

    shared = True

    def __init__(self, ranks: Distributed, device: torch.device, idle: Callable[[bool], object]) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        self.ranks = ranks
        self.idle = idle
        self.mesh = init_device_mesh(device.type, (ranks.world_size,))
        # agreeing goes past the GPUs, which need not finish what they were given; a rank may evaluate for hours
        self.group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))
        self._idling = False
        self._outputs: list[torch.Tensor] = []

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Within it a backbone that can do so brings the network to the device block by block, in shares."""
        with loaded_by(self.share):
            yield

    def share(self, network: nn.Module, blocks: Sequence[nn.Module]) -> None:
        """Keep this rank's share of every block, then of what is left; each passes over the device whole, alone."""
        from torch.distributed.fsdp import fully_shard

        for module in (*blocks, network):
            module.register_forward_hook(_no_views)  # before FSDP's own, which hangs on what this one gives
            fully_shard(module, mesh=self.mesh)

    def attend(self, network: nn.Module) -> None:
        """Share the network, unless its backbone has, and agree with the other ranks before every forward."""
        from torch.distributed.fsdp import FSDPModule

        if not isinstance(network, FSDPModule):
            self.share(network, blocks_of(network))
        network.register_forward_pre_hook(self._before, prepend=True)
        network.register_forward_hook(self._after)

    def finish(self) -> None:
        """Evaluate along until all are done."""
        while turn := self._agree(DONE):
            self._evaluate_along(turn)

    def owed(self) -> torch.Tensor | None:
        """0 times every output that carries a gradient, this rank's own and those evaluated along."""
        outputs, self._outputs = self._outputs, []
        return sum((0 * output.float().sum() for output in outputs), torch.zeros(())) if outputs else None

    def _agree(self, mine: int) -> int:
        wish = torch.tensor(mine)
        torch.distributed.all_reduce(wish, torch.distributed.ReduceOp.MAX, group=self.group)
        return int(wish)

    def _evaluate_along(self, turn: int) -> None:
        self._idling = True
        try:
            with torch.set_grad_enabled(turn == WITH_GRADIENT):
                self.idle(turn == WITH_GRADIENT)
        finally:
            self._idling = False

    def _before(self, network: nn.Module, args: Any) -> None:
        """Wait for this rank's turn, evaluating along in the others'."""
        mine = WITH_GRADIENT if torch.is_grad_enabled() else WITHOUT_GRADIENT
        while not self._idling and (turn := self._agree(mine)) != mine:
            self._evaluate_along(turn)

    def _after(self, network: nn.Module, args: Any, output: Any) -> None:
        """Note what must go backward on every rank."""
        first = output if isinstance(output, torch.Tensor) else output[0]
        if first.requires_grad:
            self._outputs.append(first)


def _no_views(module: nn.Module, args: Any, output: Any) -> Any:
    """The output with storage of its own.

    FSDP hangs its hooks on it, and torch 2.13 crashes when a hook meets a view that was written into, as the sum of a
    linear and its adapter is.
    """
    if isinstance(output, torch.Tensor):
        return output.clone() if output.requires_grad and output._is_view() else output
    if type(output) is tuple:
        return tuple(_no_views(module, args, part) for part in output)
    return output


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The transformer blocks: the members of the network's own lists."""
    lists = [child for child in network.children() if isinstance(child, nn.ModuleList)]
    return [block for blocks in lists for block in blocks]
