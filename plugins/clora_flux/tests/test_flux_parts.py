"""Parts come when they are needed and go when they are told to; adapters stand on the transformer's own linears."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from attrs import evolve
from clora_flux import linears
from clora_flux.backbone import FluxKontext
from clora_flux.loaded import LoadedFlux

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.api import Conditions, KnowsSchedule, LoadsInParts, NetworkMemory, StepRng, Tokenizes

Photo = Callable[[int, int], tuple[Any, torch.Tensor]]
Condition = Callable[[Sequence[str], torch.Tensor], Conditions]
CPU = torch.device("cpu")


def _random_adapter(component: FluxKontext, names: Sequence[str], rank: int, seed: int) -> Adapter:
    shapes = {name: component.shapes()[name] for name in names}
    adapter = Adapter.fresh(shapes, rank, rank, StepRng(seed), trainable=False)
    adapter.flat.copy_(0.1 * torch.randn(adapter.flat.shape, generator=StepRng(seed).torch("both factors")))
    return adapter


def test_a_dropped_part_leaves_memory_and_comes_back(component: FluxKontext) -> None:
    loaded = component.load(CPU)
    assert isinstance(loaded, LoadsInParts)
    assert isinstance(loaded, KnowsSchedule)
    assert isinstance(component, Tokenizes)
    assert loaded._text is loaded._pictures is loaded._network is None  # loading is cheap
    picture = torch.zeros(1, 3, 16, 16)
    before = loaded.encode_prompts(["blue"], picture)
    parts = [weakref.ref(loaded.text.text_encoder_2), weakref.ref(loaded.pictures), weakref.ref(loaded.network)]
    assert loaded.network is loaded.network
    loaded.keep("network")
    gc.collect()
    assert [part() is None for part in parts] == [True, True, False]
    assert loaded.encode_prompts(["blue"], picture).text.equal(before.text)
    loaded.keep()
    gc.collect()
    assert parts[2]() is None


def test_everything_is_frozen_and_in_evaluation_mode(loaded: LoadedFlux) -> None:
    for part in (loaded.text.text_encoder, loaded.text.text_encoder_2, loaded.pictures, loaded.network):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_shapes_are_the_transformers_linears(component: FluxKontext, loaded: LoadedFlux) -> None:
    fresh = component.load(CPU).network
    linears = {name: m for name, m in fresh.named_modules() if isinstance(m, torch.nn.Linear)}
    assert component.shapes() == {name: (m.in_features, m.out_features) for name, m in linears.items()}
    assert list(component.targets()) == [name for name in component.shapes() if "transformer_blocks." in name]
    assert len(component.targets()) == 2 * 14 + 2 * 6


def test_every_row_uses_its_own_adapter(component: FluxKontext) -> None:
    loaded = component.load(CPU)
    adapted = AdaptedNetwork(loaded.network, tuple(component.shapes()))
    adapted.add("everywhere", _random_adapter(component, tuple(component.shapes()), 4, 1))
    adapted.add("blocks", _random_adapter(component, component.targets(), 2, 2))
    generator = torch.Generator().manual_seed(0)
    pictures, x = torch.rand(4, 3, 16, 32, generator=generator), torch.randn(4, 16, 2, 4, generator=generator)
    words, source = loaded.encode_prompts(["a", "b", "c", "d"], pictures), loaded.encode_images(pictures)
    conditions = Conditions(words.text, words.mask, source, words.pooled)
    sigma = torch.tensor([0.9, 0.6, 0.4, 0.1])
    who = [None, "blocks", "everywhere", "everywhere"]
    with torch.no_grad():
        with adapted.rows(who):
            together = loaded.velocity(x, sigma, conditions)
        for row, name in enumerate(who):
            with adapted.rows([name]):
                alone = loaded.velocity(x[row : row + 1], sigma[row : row + 1], conditions.take([row]))
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)
        with adapted.rows([None] * 4):
            base = loaded.velocity(x, sigma, conditions)
    changed = (together - base).flatten(1).abs().amax(1)
    assert changed[0] < 1e-5
    assert (changed[1:] > 1e-3).all()


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_checkpointing_gives_the_same_gradients(component: FluxKontext, weights: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures, x = torch.rand(3, 3, 16, 16, generator=generator), torch.randn(3, 16, 2, 2, generator=generator)
    gradients, saved = [], []
    for checkpointing in (False, True):
        loaded = evolve(component, memory=NetworkMemory(weights, gradient_checkpointing=checkpointing)).load(CPU)
        adapted = AdaptedNetwork(loaded.network, tuple(component.shapes()))
        student = Adapter.fresh(component.shapes(), 3, 3, StepRng(1))
        student.flat.copy_(0.1 * torch.randn(student.flat.shape, generator=StepRng(1).torch("both factors")))
        adapted.add("student", student)
        adapted.add("teacher", _random_adapter(component, component.targets(), 2, 2))
        words, source = loaded.encode_prompts(["a", "b", "c"], pictures), loaded.encode_images(pictures)
        conditions = Conditions(words.text, words.mask, source, words.pooled)
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), adapted.rows(["student", "student", None]):
            velocity = loaded.velocity(x, torch.tensor([0.8, 0.5, 0.3]), conditions)
        with adapted.rows(["teacher"] * 3), torch.no_grad():  # other rows between a forward and its backward
            loaded.velocity(x, torch.tensor([0.8, 0.5, 0.3]), conditions)
        velocity.square().mean().backward()
        assert student.flat_grad is not None
        gradients.append(student.flat_grad.clone())
        saved.append(sum(kept.values()))
    assert gradients[0].abs().max() > 0
    assert gradients[1].equal(gradients[0])
    assert saved[1] < 0.7 * saved[0]


def test_the_published_models_linears() -> None:
    shapes = linears.shapes({"guidance_embeds": True})
    assert len(linears.in_blocks(shapes)) == 19 * 14 + 38 * 6
    assert round(sum(ins * outs for ins, outs in shapes.values()) / 1e9, 1) == 11.9
