"""Two processes: the operator under DDP and under FSDP2 has the gradients of one process with the whole batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from clora_triton.op import lora_linear
from torch import distributed, multiprocessing, nn

ROWS = 4


class Layer(nn.Module):
    """A frozen linear, a trained adapter, and bare rows behind its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs), requires_grad=False)
        self.a = nn.Parameter(torch.randn(4, inputs))
        self.b = nn.Parameter(torch.randn(outputs, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0] - 1
        return lora_linear(x, self.weight, None, [(rows, self.a, self.b, 0.5), (1, None, None, 0.0)]).tanh()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Layer(12, 16), Layer(16, 8))


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(ROWS, 70, 12, generator=generator) for _ in range(2)]


def _work(rank: int, kind: str, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = network()
    if kind == "ddp":
        wrapped = nn.parallel.DistributedDataParallel(model)
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        for layer in model:
            fully_shard(layer, mesh=mesh)
        wrapped = fully_shard(model, mesh=mesh)
    wrapped(batches()[rank]).square().sum().backward()
    whole = {
        name: (p.grad.full_tensor() if kind == "fsdp" else p.grad).clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    if rank == 0:
        torch.save(whole, f"{folder}/grads.pt")
    distributed.barrier()
    # Without torch's own clean-up: a thread of gloo's may still run behind FSDP's last reduction, and the process would
    # be aborted in a destructor after all of the work is done.
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_have_the_gradients_of_one(kind: str, tmp_path: Path) -> None:
    multiprocessing.spawn(_work, (kind, str(tmp_path)), nprocs=2)
    model = network()
    for batch in batches():
        (model(batch).square().sum() / 2).backward()
    found = torch.load(tmp_path / "grads.pt", weights_only=True)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-4)
    assert len(found) == 4
