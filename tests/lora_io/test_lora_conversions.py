"""LoKr, LoHa and DoRA made into LoRA: the rank, the error that is told, and what cannot be converted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.inference.session import read_adapter
from clora.lora_io import convert
from clora.lora_io.check import check_lora
from clora.lora_io.convert import Limits
from clora.lora_io.header import LoraFileError
from clora.lora_io.reader import LoraFile, read_lora

Tensors = dict[str, torch.Tensor]
SHAPES = {"blocks.0.q": (12, 8), "blocks.0.k": (12, 8)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "effect.safetensors"


def drawn(seed: int, **shapes: tuple[int, ...]) -> Tensors:
    random = torch.Generator().manual_seed(seed)
    return {f"diffusion_model.blocks.0.q.{part}": torch.randn(s, generator=random) for part, s in shapes.items()}


def lokr(alpha: float = -6.0) -> tuple[Tensors, torch.Tensor]:
    """A LoKr of full rank 8 and its delta in float64."""
    tensors = drawn(1, lokr_w1=(2, 3), lokr_w2_a=(4, 3), lokr_w2_b=(3, 4))
    w1, a, b = (tensor.double() for tensor in tensors.values())
    tensors["diffusion_model.blocks.0.q.alpha"] = torch.tensor(alpha)
    return tensors, alpha / 3 * torch.kron(w1, a @ b)


def loha(rank: int) -> tuple[Tensors, torch.Tensor]:
    tensors = drawn(2, hada_w1_a=(8, rank), hada_w1_b=(rank, 12), hada_w2_a=(8, rank), hada_w2_b=(rank, 12))
    a1, b1, a2, b2 = (tensor.double() for tensor in tensors.values())
    return tensors, (a1 @ b1) * (a2 @ b2)


def dora() -> tuple[Tensors, torch.Tensor]:
    tensors = drawn(3, **{"lora_A.weight": (2, 12), "lora_B.weight": (8, 2), "magnitude": (8,)})
    a, b, m = (tensor.double() for tensor in tensors.values())
    new = base().double() + b @ a
    return tensors, m[:, None] * new / new.square().sum(1, keepdim=True).sqrt() - base().double()


def base(_module: str = "") -> torch.Tensor:
    return torch.randn(8, 12, generator=torch.Generator().manual_seed(4))


def read(path: Path, tensors: Tensors, limits: Limits | None = None) -> LoraFile:
    save_file(tensors, path)
    return read_lora(path, SHAPES, weights=base, limits=limits)


MADE = pytest.mark.parametrize(
    ("tensors", "delta"), [lokr(), loha(2), loha(3), dora()], ids=["lokr", "loha", "loha of full rank", "dora"]
)


@MADE
@pytest.mark.parametrize("rank", [1, 2, 3, 8])
def test_the_best_lora_of_a_rank_is_found_and_its_error_told(path, tensors, delta, rank):
    file = read(path, tensors, Limits(rank=rank))
    values = torch.linalg.svdvals(delta)
    cost, found = file.conversions["blocks.0.q"], file.deltas["blocks.0.q"]
    assert found.a.shape[0] == cost.rank <= rank
    best = float(values[rank:].square().sum().sqrt())
    error = float((found.weight().double() - delta).norm())
    assert error == pytest.approx(best, rel=1e-4, abs=1e-5)
    assert (cost.error, cost.norm) == pytest.approx((error, float(delta.norm())), rel=1e-4, abs=1e-5)
    assert file.loss == pytest.approx(error / float(delta.norm()), rel=1e-4, abs=1e-6)


@MADE
def test_the_smallest_rank_within_the_tolerance_is_taken(path, tensors, delta):
    values = torch.linalg.svdvals(delta)
    errors = [float(values[k:].norm() / values.norm()) for k in range(len(values))]
    for rank, error in enumerate(errors):
        if rank and error > 1e-6:
            cost = read(path, tensors, Limits(tolerance=error * 1.0001)).conversions["blocks.0.q"]
            assert cost.rank == rank
            assert cost.relative <= error * 1.0001


def test_a_large_delta_is_decomposed_as_well_and_takes_no_draw_from_others(path, monkeypatch):
    monkeypatch.setattr(convert, "EXACT", 16)
    random = torch.Generator().manual_seed(5)
    weight = torch.randn(96, 64, generator=random, dtype=torch.float64)
    a, b = torch.randn(3, 64, generator=random), torch.randn(96, 3, generator=random)
    m = weight.norm(dim=1) * (1 + 0.05 * torch.randn(96, generator=random, dtype=torch.float64))
    save_file({"q.lora_A.weight": a, "q.lora_B.weight": b, "q.magnitude": m.float()}, path)
    before = torch.get_rng_state()
    file = read_lora(path, weights=lambda _: weight.float(), limits=Limits(rank=6))
    assert torch.equal(torch.get_rng_state(), before)
    new = weight + b.double() @ a.double()
    delta = m.float().double()[:, None] * new / new.norm(dim=1, keepdim=True) - weight
    best, cost = float(torch.linalg.svdvals(delta)[6:].norm()), file.conversions["q"]
    assert float((file.deltas["q"].weight().double() - delta).norm()) == pytest.approx(cost.error, rel=1e-4)
    assert best <= cost.error * 1.0001 <= best * 1.02


def test_the_error_over_all_linears_counts_the_plain_ones_too(path):
    tensors, delta = lokr()
    a, b = torch.ones(1, 12), torch.ones(8, 1)
    tensors |= {"diffusion_model.blocks.0.k.lora_A.weight": a, "diffusion_model.blocks.0.k.lora_B.weight": b}
    file = read(path, tensors, Limits(rank=1))
    missing, whole = float(torch.linalg.svdvals(delta)[1:].norm()), (float(delta.norm()) ** 2 + 96) ** 0.5
    assert file.loss == pytest.approx(missing / whole, rel=1e-5)
    (note,) = file.notes()
    assert note.startswith("made into LoRA of rank up to 1: 1 linear from LoKr; this loses ")
    assert f"{missing / float(delta.norm()):.2%} (blocks.0.q)" in note


def test_a_delta_of_zero_stays_zero(path):
    tensors, _ = lokr()
    tensors["diffusion_model.blocks.0.q.lokr_w1"].zero_()
    file = read(path, tensors)
    assert not file.deltas["blocks.0.q"].weight().any()
    assert file.loss == 0


def test_a_zero_row_of_a_dora_stays_zero(path):
    tensors, _ = dora()
    tensors["diffusion_model.blocks.0.q.lora_B.weight"][2] = 0
    weight = base()
    weight[2] = 0
    save_file(tensors, path)
    delta = read_lora(path, SHAPES, weights=lambda _: weight).deltas["blocks.0.q"].weight()
    assert float(delta[2].abs().max()) < 1e-5
    assert delta.isfinite().all()


def test_dora_is_what_pefts_own_layer_computes(path):
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    model = nn.Module()
    model.q = nn.Linear(12, 8, bias=False)
    weight = model.q.weight.detach().clone()
    inject_adapter_in_model(LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=["q"]), model)
    state = {name: tensor for name, tensor in model.state_dict().items() if "lora" in name}
    for tensor in state.values():
        tensor.add_(torch.randn_like(tensor) * 0.3)
    expected = cast(Any, model.q)(torch.eye(12)).T.detach() - weight
    tensors = {name.replace("q.", "transformer.q."): tensor for name, tensor in state.items()}
    assert any("lora_magnitude_vector" in name for name in tensors)
    save_file(tensors | {"transformer.q.alpha": torch.tensor(5.0)}, path)
    found = read_lora(path, {"q": (12, 8)}, weights=lambda _: weight).deltas["q"].weight()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_dora_without_the_base_or_with_another_base_is_refused(path):
    tensors, _ = dora()
    save_file(tensors, path)
    assert check_lora(path, SHAPES, data=True) == []
    with pytest.raises(LoraFileError, match=r"is DoRA \('blocks.0.q'\), which can only be read together with the base"):
        read_lora(path, SHAPES)
    with pytest.raises(LoraFileError, match=r"is DoRA of \[8, 12\], but the base's weight is \[12, 8\]"):
        read_lora(path, weights=lambda _: base().T)


@MADE
def test_a_world_takes_such_a_teacher_and_says_what_it_cost(path, tensors, delta):
    network = nn.Module()
    network.blocks = nn.ModuleList([nn.ModuleDict({name: nn.Linear(12, 8, bias=False) for name in "qk"})])
    for linear in network.blocks[0].values():
        linear.weight.data.copy_(base())
    adapted = AdaptedNetwork(network, tuple(SHAPES))
    pace = SimpleNamespace(shared=False)
    device = torch.device("cpu")
    session = SimpleNamespace(shapes=SHAPES, adapted=adapted, device=device, pace=pace, cache=None, digest="base")
    save_file(tensors, path)
    with pytest.warns(UserWarning, match="made into LoRA of rank"):
        adapted.add("effect", read_adapter(cast(Any, session), path, scale=0.5))
    with adapted.rows(["effect"] * 12):
        changed = {name: adapted.linears[name](torch.eye(12)).T.double() - base().double() for name in SHAPES}
    torch.testing.assert_close(changed["blocks.0.q"], 0.5 * delta, rtol=1e-4, atol=1e-4)
    with adapted.rows(["effect"]):
        x = torch.randn(1, 12)
        assert torch.equal(adapted.linears["blocks.0.k"](x), x @ base().T)  # not covered: nothing is left of it


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"lokr_w1": (2, 3), "lokr_w2": (4, 5)}, "its LoKr of 15 -> 8 does not fit a linear of 12 -> 8"),
        ({"lokr_w1": (2, 3), "lokr_w2_a": (4, 2)}, "without the rest of its LoKr"),
        ({"lokr_w1": (2, 3)}, "without the rest of its LoKr"),
        ({"lokr_w1": (2, 3), "lokr_w2_a": (4, 2), "lokr_w2_b": (3, 4)}, "cannot be multiplied"),
        ({"lokr_w1": (2, 3), "lokr_w2": (4, 4), "lokr_w2_a": (4, 2)}, "stored both whole and decomposed"),
        ({"lokr_w1": (2, 3), "lokr_w2": (4, 4, 3, 3)}, "lokr_w2 [4, 4, 3, 3] belongs to a convolution"),
        (
            {"lokr_w1": (2, 3), "lokr_w2_a": (2, 4), "lokr_w2_b": (2, 4), "lokr_t2": (2, 2, 3, 3)},
            "lokr_t2 [2, 2, 3, 3] belongs to a convolution",
        ),
        ({"lokr_w1": (2, 3), "lokr_w2_a": (2, 4), "lokr_w2_b": (2, 4), "lokr_t2": (2, 3)}, "cannot be multiplied"),
        ({"lokr_w1": (2,), "lokr_w2": (4, 4)}, "lokr_w1 [2] is no matrix"),
        ({"lokr_w1": (2, 3), "lokr_w2_a": (4, 0), "lokr_w2_b": (0, 4)}, "is no matrix"),
        ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 12)}, "without the rest of its LoHa"),
        (
            {"hada_w1_a": (8, 2), "hada_w1_b": (2, 12), "hada_w2_a": (8, 2), "hada_w2_b": (2, 11)},
            "its factors make [8, 12] and [8, 11]",
        ),
        (
            {"hada_w1_a": (8, 2), "hada_w1_b": (2, 12), "hada_w2_a": (8, 2), "hada_w2_b": (2, 12), "hada_t1": (2, 2)},
            "without the rest of its LoHa",
        ),
        (
            {"hada_w1_a": (7, 2), "hada_w1_b": (2, 12), "hada_w2_a": (7, 2), "hada_w2_b": (2, 12)},
            "its LoHa of 12 -> 7 does not fit a linear of 12 -> 8",
        ),
        ({"lora_A.weight": (2, 12), "lora_B.weight": (8, 2), "magnitude": (12,)}, "its magnitude [12] is neither [8]"),
        ({"magnitude": (8,)}, "without the rest of its LoRA"),
        (
            {"lora_A.weight": (2, 12), "lora_B.weight": (8, 2), "lokr_w1": (2, 3), "lokr_w2": (4, 4)},
            "has adapters of two kinds",
        ),
        (
            {"lora_A.weight": (2, 12), "lora_B.weight": (8, 2), "lora_down.weight": (2, 12)},
            "are both the same factor of blocks.0.q",
        ),
    ],
)
def test_what_does_not_go_together_is_told_from_the_header(path, shapes, said):
    save_file(drawn(0, **shapes), path)
    (found,) = check_lora(path, SHAPES)
    assert said in found
    assert found.startswith(f"{path}: ")
    assert "blocks.0.q" in found
    with pytest.raises(LoraFileError):
        read_lora(path, SHAPES, weights=base)


@MADE
def test_nan_in_any_part_is_found_by_name(path, tensors, delta):
    for name, tensor in tensors.items():
        if tensor.ndim:
            save_file(tensors | {name: torch.full_like(tensor, torch.nan)}, path)
            (found,) = check_lora(path, SHAPES, data=True)
            assert found == f"{path}: NaN or infinity in {name!r}"
