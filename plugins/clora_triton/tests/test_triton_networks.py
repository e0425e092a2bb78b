"""Real transformers of a small size: with linears grouped they answer and learn as without, in no more memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from attrs import frozen
from clora_triton.groups import Linear, lora_linears
from clora_triton.kernels import Auto
from clora_triton.mlp import lora_mlp
from clora_triton.op import lora_linear
from torch import nn
from torch._dynamo.utils import counters

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.adapters.eager import eager_lora_linear
from clora.api import GroupsLinears, NetworkMemory
from clora.diffusion.rng import StepRng
from clora.toolkit.memory.compilers import missing
from clora.toolkit.memory.fit import fit_network
from clora.toolkit.memory.measure import Measured, measure

pytestmark = pytest.mark.slow  # many short tests, which take seconds together


@frozen
class Counting:
    """`auto`, and how many linears each of its groups had."""

    groups: list[int]

    def __call__(self, *given: Any) -> torch.Tensor:
        return Auto()(*given)

    def group(self, x: torch.Tensor, linears: Sequence[Linear]) -> list[torch.Tensor]:
        self.groups.append(len(linears))
        return Auto().group(x, linears)


def qwen(zero_cond_t: bool = False) -> nn.Module:
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

    torch.manual_seed(0)
    return QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, num_attention_heads=2, attention_head_dim=16,
        joint_attention_dim=24, axes_dims_rope=(4, 6, 6), zero_cond_t=zero_cond_t,
    ).eval()  # fmt: skip


def ask_qwen(network: nn.Module, rows: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return network(
        hidden_states=torch.randn(rows, 32, 16, generator=rng),
        encoder_hidden_states=torch.randn(rows, 5, 24, generator=rng),
        encoder_hidden_states_mask=torch.ones(rows, 5, dtype=torch.bool),
        timestep=torch.linspace(0.2, 0.9, rows),
        img_shapes=[[(1, 4, 4), (1, 4, 4)]] * rows,
        return_dict=False,
    )[0]


def flux() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, pooled_projection_dim=8, guidance_embeds=False, axes_dims_rope=(4, 6, 6),
    ).eval()  # fmt: skip


def ask_flux(network: nn.Module, rows: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return network(
        hidden_states=torch.randn(rows, 32, 16, generator=rng),
        encoder_hidden_states=torch.randn(rows, 5, 24, generator=rng),
        pooled_projections=torch.randn(rows, 8, generator=rng),
        timestep=torch.linspace(0.2, 0.9, rows),
        img_ids=torch.randn(32, 3, generator=rng),
        txt_ids=torch.zeros(5, 3),
        return_dict=False,
    )[0]


@frozen
class Model:
    build: Callable[[], nn.Module]
    ask: Callable[[nn.Module, int], torch.Tensor]
    blocks: tuple[str, ...]
    groups: list[int]  # of one forward
    mlps: int  # in one forward
    tokens: int  # that their answer's gradient reaches within MLPs: the last block's words have none in Qwen-Image


MODELS = {
    "qwen": Model(qwen, ask_qwen, ("transformer_blocks",), [3, 3] * 2, 4, 32 + 5 + 32),
    "qwen 2511": Model(lambda: qwen(True), ask_qwen, ("transformer_blocks",), [3, 3] * 2, 4, 32 + 5 + 32),
    "flux": Model(flux, ask_flux, ("transformer_blocks", "single_transformer_blocks"), [3, 3, 4, 4], 2, 32 + 5),
}


def adapted(model: Model, kernel: Any, **memory: Any) -> AdaptedNetwork:
    """A student on every linear of the blocks, and a teacher that lacks every to_k."""
    settings = NetworkMemory(weights="fp32", **memory)
    network = fit_network(model.build(), model.blocks, settings, torch.device("cpu"))
    shapes = {
        name: (part.in_features, part.out_features)
        for name, part in model.build().named_modules()
        if isinstance(part, nn.Linear) and name.startswith(model.blocks)
    }
    made = AdaptedNetwork(network, tuple(shapes), kernel)
    part = {name: shape for name, shape in shapes.items() if not name.endswith("to_k")}
    for name, its, rank, trainable in (("student", shapes, 4, True), ("teacher", part, 2, False)):
        adapter = Adapter.fresh(its, rank, 2.0 * rank, StepRng(0).named(name), trainable=trainable)
        adapter.flat.copy_(0.1 * StepRng(1).normal(name, adapter.flat))
        made.add(name, adapter)
    return made


def answer(made: AdaptedNetwork, model: Model, names: Sequence[str | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """The velocity and the student's gradient of its square."""
    student = made.adapters["student"]
    student.zero_grad()
    with made.rows(names):
        velocity = model.ask(made.network, len(names))
    velocity.square().mean().backward()
    assert student.flat_grad is not None
    return velocity.detach(), student.flat_grad.clone()


MIXED = ("student", "student", None, "teacher", "student")


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("names", [MIXED, ("student",) * 5])
@pytest.mark.parametrize("name", MODELS)
def test_grouped_it_answers_and_learns_as_one_by_one(name: str, names: Sequence[str | None], again: bool) -> None:
    model, kernel = MODELS[name], Counting([])
    assert isinstance(kernel, GroupsLinears)
    made = adapted(model, kernel, gradient_checkpointing=again)
    velocity, gradient = answer(made, model, names)
    assert kernel.groups == model.groups + (model.groups[::-1] if again and name == "flux" else model.groups * again)
    plain_velocity, plain_gradient = answer(adapted(model, lora_linear), model, names)
    torch.testing.assert_close(velocity, plain_velocity, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-4, atol=1e-4 * float(plain_gradient.abs().max()))
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", MODELS)
def test_a_pass_without_gradient_is_grouped_too(name: str) -> None:
    model, kernel = MODELS[name], Counting([])
    made, plain = adapted(model, kernel), adapted(model, lora_linear)
    with torch.no_grad(), made.rows(MIXED), plain.rows(MIXED):
        found, right = model.ask(made.network, 5), model.ask(plain.network, 5)
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)
    assert kernel.groups == model.groups


class Grouped:
    """The plain computation of single linears, of which `clora validate` predicts the memory, and our groups."""

    def __call__(self, *given: Any) -> torch.Tensor:
        return eager_lora_linear(*given)

    def group(self, x: torch.Tensor, linears: Sequence[Linear]) -> list[torch.Tensor]:
        return lora_linears(x, linears)


class Joined:
    """The plain computation of single linears, and our MLPs; how many there were."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *given: Any) -> torch.Tensor:
        return eager_lora_linear(*given)

    def mlp(self, x: torch.Tensor, up: Linear, down: Linear, activation: str) -> torch.Tensor:
        self.count += 1
        return lora_mlp(x, up, down, activation=activation)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("names", [MIXED, ("student",) * 5])
@pytest.mark.parametrize("name", MODELS)
def test_with_mlps_joined_it_answers_and_learns_as_without(name: str, names: Sequence[str | None], again: bool) -> None:
    model, kernel = MODELS[name], Joined()
    made = adapted(model, kernel, gradient_checkpointing=again)
    velocity, gradient = answer(made, model, names)
    assert kernel.count == model.mlps * (1 + again)
    plain_velocity, plain_gradient = answer(adapted(model, eager_lora_linear), model, names)
    torch.testing.assert_close(velocity, plain_velocity, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-4, atol=1e-4 * float(plain_gradient.abs().max()))


@pytest.mark.skipif(bool(list(missing(cuda=False))), reason="needs what torch.compile needs")
def test_compiled_blocks_leave_groups_and_mlps_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clora.toolkit.memory.compiling.BACKEND", "aot_eager")
    model, groups = MODELS["qwen"], Counting([])

    class Both(Joined):
        group = staticmethod(groups.group)

    kernel = Both()
    made = adapted(model, kernel, compile=True)
    velocity, gradient = answer(made, model, MIXED)
    assert (groups.groups, kernel.count) == (model.groups, model.mlps)
    plain_velocity, plain_gradient = answer(adapted(model, eager_lora_linear), model, MIXED)
    torch.testing.assert_close(velocity, plain_velocity, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-4, atol=1e-4 * float(plain_gradient.abs().max()))
    pieces = counters["stats"]["unique_graphs"]
    for names in (MIXED[::-1], ("student", None, "student", "teacher", "teacher")):
        answer(made, model, names)
    assert counters["stats"]["unique_graphs"] == pieces  # nothing of them is compiled, so nothing anew


@pytest.mark.parametrize("name", MODELS)
def test_joined_mlps_keep_half_of_what_their_parts_keep(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clora_triton.cpu.merges", lambda _: False)  # as in a large model's half precision
    model = MODELS[name]
    found: list[Measured] = []
    for kernel in (Joined(), eager_lora_linear):
        made = adapted(model, kernel)

        def forward(made: AdaptedNetwork = made) -> torch.Tensor:
            with made.rows(["student"] * 4):
                return model.ask(made.network, 4)

        found.append(measure(forward))
    ours, plain = found
    hidden = 4 * 32 * 4  # rows, the network's width, the MLP's over that
    assert plain.held - ours.held == model.tokens * hidden * 4  # bytes
    assert ours.held + ours.backward <= plain.held + plain.backward
    assert ours.sampling <= plain.sampling


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_groups_take_no_more_memory_than_is_predicted(name: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clora_triton.groups.merges_together", lambda _: False)  # as in a large model's half precision
    model = MODELS[name]
    found: list[Measured] = []
    for kernel in (Grouped(), eager_lora_linear):
        made = adapted(model, kernel, gradient_checkpointing=again)

        def forward(made: AdaptedNetwork = made) -> torch.Tensor:
            with made.rows(["student"] * 4):
                return model.ask(made.network, 4)

        found.append(measure(forward))
    ours, plain = found
    assert ours.held <= plain.held
    assert ours.held + ours.backward <= plain.held + plain.backward
    assert ours.sampling <= plain.sampling
