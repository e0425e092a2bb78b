"""The pictures, the words, the codec and the network of the emoji world."""

from __future__ import annotations

import pytest
import torch
from clora_emoji import atlas, codec, network, words
from clora_emoji.backbone import EmojiBackbone
from clora_emoji.words import MAX_TOKENS

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.api import Conditions, StepRng


def test_every_artist_has_drawn_every_subject():
    for artist in atlas.ARTISTS:
        pictures = atlas.pictures(artist)
        assert pictures.shape == (len(atlas.subjects()), 3, 32, 32)
        assert pictures.dtype == torch.float32
        assert pictures.min() >= -1
        assert pictures.max() <= 1
        ink = (pictures < 0.99).flatten(1).float().mean(1)
        assert (ink > 0.01).all(), f"{artist} has an empty picture"


def test_splits_are_disjoint_and_about_four_to_one():
    train, test = atlas.select("train"), atlas.select("test")
    assert not set(train) & set(test)
    assert len(train) + len(test) == len(atlas.subjects()) == 1167
    assert 0.15 < len(test) / 1167 < 0.25
    held_out = atlas.select("test", atlas.TEST_CATEGORIES)
    assert len(held_out) >= 30
    assert {s.category for s in atlas.subjects() if s.name in held_out} == {"animals", "faces"}


def test_unknown_names_and_artists_are_refused():
    with pytest.raises(ValueError, match="nobody"):
        atlas.picture("noto", ["nobody"])
    with pytest.raises(ValueError, match="dali"):
        atlas.pictures("dali")


def test_codec_is_exact_both_ways():
    pixels = torch.randn(2, 3, 32, 32)
    latents = codec.to_latents(pixels)
    assert latents.shape == (2, 48, 8, 8)
    assert torch.equal(codec.to_pixels(latents), pixels)


def test_a_trigger_is_one_token_and_keeps_its_case():
    assert words.tokenise("Make it <sepia_RN8pcKD>, Brown!") == ["<bos>", "make", "it", "<sepia_RN8pcKD>", "brown"]
    assert words.tokenise("") == ["<bos>"]


def test_words_are_the_same_on_every_machine():
    vector = words.vector("grayscale")
    assert vector.shape == (128,)
    assert vector.mean().abs() < 1e-6
    assert abs(vector.std(correction=0).item() - 1) < 1e-6
    torch.testing.assert_close(vector[:3], torch.tensor([1.779688, -0.024203, -0.248282]), atol=1e-5, rtol=0)
    text, mask = words.encode(["", "make it grayscale"])
    assert text.shape == (2, 4, 128)
    assert mask.tolist() == [[True, False, False, False], [True] * 4]
    assert torch.equal(text[0, 0], text[1, 0])
    assert torch.equal(text[1, 3], vector)


def test_too_long_a_prompt_is_refused():
    words.encode(["word " * 31])
    with pytest.raises(ValueError, match="32 tokens"):
        words.encode(["fine", "word " * 32])


@pytest.fixture(scope="module")
def base():
    return network.load()


def test_the_base_has_the_configuration_of_the_code(base):
    fresh = network.build()
    assert sum(p.numel() for p in base.parameters()) == sum(p.numel() for p in fresh.parameters())
    assert {k: tuple(v.shape) for k, v in base.state_dict().items()} == {
        k: tuple(v.shape) for k, v in fresh.state_dict().items()
    }


def test_velocity_depends_on_source_prompt_and_padding_does_not_matter(base):
    rng = torch.Generator().manual_seed(0)
    x, source = torch.randn(2, 48, 8, 8, generator=rng), torch.randn(2, 48, 8, 8, generator=rng)
    sigma = torch.tensor([0.7, 0.3])
    prompts = ["make it grayscale", "flip it upside down"]
    with torch.no_grad():
        v = network.velocity(base, x, sigma, *words.encode(prompts), source)
        padded = network.velocity(base, x, sigma, *words.encode(prompts, length=9), source)
        other_source = network.velocity(base, x, sigma, *words.encode(prompts), source.flip(0))
        other_prompt = network.velocity(base, x, sigma, *words.encode(prompts[::-1]), source)
    assert v.shape == x.shape
    torch.testing.assert_close(v, padded, atol=1e-4, rtol=1e-4)
    assert (v - other_source).square().mean() > 1e-3
    assert (v - other_prompt).square().mean() > 1e-3


@pytest.mark.parametrize("rank", [4, 16])
def test_the_footprint_is_what_a_forward_keeps(rank: int) -> None:
    backbone = EmojiBackbone()
    loaded = backbone.load(torch.device("cpu"))
    footprint = backbone.footprint(rank, (32, 32))
    weights = sum(4 * parameter.numel() for parameter in loaded.network.parameters())
    assert footprint.weights == pytest.approx(weights, rel=0.02)  # the file has a header

    adapted = AdaptedNetwork(loaded.network, backbone.targets())
    student = adapted.add("student", Adapter.fresh(backbone.shapes(), rank, rank, StepRng(0)))
    images = torch.zeros(3, 3, 32, 32)
    words = loaded.encode_prompts([" ".join(["word"] * (MAX_TOKENS - 1))] * 3, images)
    assert words.text.shape[1] == MAX_TOKENS
    source = loaded.encode_images(images)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), adapted.rows(["student"] * 3):
        loaded.velocity(torch.zeros_like(source), torch.full((3,), 0.5), Conditions(words.text, words.mask, source))
    mine = {tensor.untyped_storage().data_ptr() for tensor in (*loaded.network.parameters(), student.flat)}
    measured = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in mine)
    assert footprint.row == pytest.approx(measured / 3, rel=0.1)
