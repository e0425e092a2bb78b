"""A Qwen-Image transformer with random weights, as far as a training cycle asks for a model, and pictures for it.

Nothing is read or written: widths are those of the published model, numbers are random.
"""

from __future__ import annotations

import torch
from attrs import frozen

from clora.adapters.adapter import Adapter
from clora.api import Conditions, NetworkMemory, RoleConditions, Route, StepContext, StepRng
from clora.contracts.values import Phase
from clora.diffusion.flow import Schedule
from clora.planning.plan import Plan
from clora.planning.shift import student_shift
from clora.toolkit.memory.fit import fit_network

WORDS, TEXT, HEAD = 300, 3584, 128  # tokens of a prompt, their width, the width of an attention head
CHANNELS = 16
BLOCKS = ("transformer_blocks",)
TEACHERS = ("one", "two")


@frozen
class Size:
    """How many blocks, and how many heads of 128 wide they are: 60 and 24 are the published model's."""

    layers: int = 60
    heads: int = 24

    def build(self) -> torch.nn.Module:
        """The transformer on the default device."""
        from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

        return QwenImageTransformer2DModel(
            num_layers=self.layers,
            num_attention_heads=self.heads,
            attention_head_dim=HEAD,
            joint_attention_dim=TEXT,
            out_channels=CHANNELS,
        )

    def shapes(self) -> dict[str, tuple[int, int]]:
        """(in, out) of the linears of every block: the paper's targets, 14 a block."""
        with torch.device("meta"):
            parts = self.build().named_modules()
        linears = {name: part for name, part in parts if isinstance(part, torch.nn.Linear)}
        return {n: (p.in_features, p.out_features) for n, p in linears.items() if n.startswith(BLOCKS)}


class Model:
    """The transformer on random weights, as far as training asks for a backbone."""

    def __init__(self, size: Size, how: NetworkMemory, device: torch.device) -> None:
        self.how = how
        self.network = fit_network(size.build().to(how.dtype).eval(), BLOCKS, how, device)

    def velocity(self, x_sigma: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """The answer [B, 16, h, w]; the source's tokens follow those of the picture being made."""
        rows, channels, height, width = x_sigma.shape
        tokens = torch.cat([packed(x_sigma), packed(conditions.source)], 1).to(self.how.dtype)
        predicted = self.network(
            hidden_states=tokens,
            timestep=sigma.to(self.how.dtype),
            encoder_hidden_states=conditions.text.to(self.how.dtype),
            img_shapes=[[(1, height // 2, width // 2)] * 2] * rows,
            return_dict=False,
        )[0][:, : tokens.shape[1] // 2]
        grid = predicted.view(rows, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return grid.reshape(x_sigma.shape).to(x_sigma.dtype)


def packed(latents: torch.Tensor) -> torch.Tensor:
    """Latents [B, C, h, w] -> tokens [B, h/2 w/2, 4 C]."""
    rows, channels, height, width = latents.shape
    grid = latents.view(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(rows, height * width // 4, 4 * channels)


class Scenes:
    """Batches of random pictures and words on the recipe's routes."""

    def __init__(self, plan: Plan, side: int, device: torch.device, words: int = WORDS) -> None:
        """`side` is that of the latents: an eighth of the pictures'."""
        self.plan, self.device, self.words = plan, device, words
        self.source = torch.randn(1, CHANNELS, side, side, device=device)
        self.text = torch.randn(1, words, TEXT, device=device)

    def context(self, rng: StepRng, phase: Phase, schedule: Schedule) -> StepContext:
        """The scene of a step."""
        rows = self.plan.recipe.train.batch_size
        route: Route = self.plan.recipe.router.route(rng.named("router"), rows, TEACHERS)
        text, source = self.text.expand(rows, -1, -1), self.source.expand(rows, -1, -1, -1)
        mask = torch.ones(rows, self.words, dtype=torch.bool, device=self.device)
        words = Conditions(text, mask, source)
        roles, here = RoleConditions(words, words, words), tuple(range(rows))
        return StepContext(phase, rng, schedule, student_shift(self.plan.recipe), route, here, roles, source)


def adapters(size: Size, rank: int, device: torch.device) -> dict[str, Adapter]:
    """Student and critic to be trained, and the teachers."""
    shapes, made = size.shapes(), {}
    for name in ("student", "critic", *TEACHERS):
        fresh = Adapter.fresh(shapes, rank, rank, StepRng(0).named(name), trainable=name not in TEACHERS)
        made[name] = fresh.to(device)
    return made
