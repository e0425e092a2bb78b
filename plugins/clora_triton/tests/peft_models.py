"""A small model with LoRA twice, by PEFT's layers and by ours, and what the two are compared by."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from clora_triton.peft import use_with_peft
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

X = torch.randn(4, 6, 12, generator=torch.Generator().manual_seed(3))


class Small(nn.Module):
    """Two linears, one without bias, and an embedding and a convolution that are not ours."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 20)
        self.second = nn.Linear(20, 7, bias=False)
        self.table = nn.Embedding(5, 12)
        self.conv = nn.Conv1d(12, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.conv((x + self.table(torch.tensor(0))).mT).mT
        return self.second(torch.tanh(self.first(x)))


def config(**options: object) -> LoraConfig:
    settings: dict[str, object] = {"r": 3, "lora_alpha": 5, "target_modules": ["first", "second"]}
    return LoraConfig(**{**settings, "init_lora_weights": False, **options})


def pair(*names: str, **options: object) -> tuple[PeftModel, PeftModel]:
    """The same model twice with the same adapters: PEFT's layers, and ours."""
    torch.manual_seed(0)
    base = Small()
    made: list[PeftModel] = []
    for ours in (False, True):
        torch.manual_seed(1)
        switch = use_with_peft() if ours else None
        model = get_peft_model(copy.deepcopy(base), config(**options), adapter_name=names[0] if names else "default")
        for name in names[1:]:
            model.add_adapter(name, config(**{**options, "r": 2}))
        if switch is not None:
            switch.off()
        made.append(model)
    return made[0], made[1]


def gradients(model: nn.Module, run: Callable[[nn.Module], torch.Tensor]) -> dict[str, torch.Tensor]:
    """The output and the gradient of every parameter that has one, of a loss that is not flat."""
    y = run(model)
    model.zero_grad()
    (y.square().mean() + y[..., 0].sum()).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"y": y.detach(), **grads}


def same(peft_model: nn.Module, ours: nn.Module, run: Callable[[nn.Module], torch.Tensor]) -> dict[str, torch.Tensor]:
    theirs, mine = gradients(peft_model, run), gradients(ours, run)
    assert theirs.keys() == mine.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            mine[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    return mine


def watched(seen: list[torch.Size]) -> Callable[..., torch.Tensor]:
    """Our operation, noting the shapes of the inputs that reach it."""
    from clora_triton.op import lora_linear

    def watch(x: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
        seen.append(x.shape)
        return lora_linear(x, *rest, **named)  # type: ignore[arg-type]

    return watch
