"""The component: its linears, its mistakes told before loading, its parts in memory, batches and adapters."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from attrs import evolve
from clora_qwen.backbone import QwenImageEdit
from clora_qwen.loaded import LoadedQwen
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.api import CloraError, Conditions, GeneralItem, NetworkMemory, StepRng

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

FP32 = NetworkMemory(weights="fp32")
CPU = torch.device("cpu")
WEIGHTS = Path("transformer") / "diffusion_pytorch_model.safetensors"


@pytest.fixture(params=["original", "2509", "2511"])
def backbone(request: pytest.FixtureRequest, tiny_qwen: Callable[[str], Path]) -> QwenImageEdit:
    return QwenImageEdit(model=str(tiny_qwen(request.param)), memory=FP32, side=64)


@pytest.fixture
def newest(tiny_qwen: Callable[[str], Path]) -> QwenImageEdit:
    return QwenImageEdit(model=str(tiny_qwen("2511")), memory=FP32, side=64)


@pytest.fixture
def broken(newest: QwenImageEdit, tmp_path: Path) -> QwenImageEdit:
    """A copy that a test may break."""
    return evolve(newest, model=str(shutil.copytree(newest.model, tmp_path / "model")))


def states(rows: int, height: int = 6, width: int = 10, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """x_sigma [rows, 16, height, width] and sigma [rows]."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 16, height, width, generator=random), torch.linspace(0.9, 0.2, rows)


def conditions(loaded: LoadedQwen, prompts: list[str]) -> Conditions:
    """The conditions of pictures of 80 x 48 pixels."""
    images = torch.rand(len(prompts), 3, 48, 80, generator=torch.Generator().manual_seed(9)) * 2 - 1
    words = loaded.encode_prompts(prompts, images)
    return Conditions(words.text, words.mask, loaded.encode_images(images))


def test_the_edition_is_read_from_the_model(tiny_qwen: Callable[[str], Path]) -> None:
    for edition in ("original", "2509", "2511"):
        backbone = QwenImageEdit(model=str(tiny_qwen(edition)))
        assert backbone.edition == edition
        assert list(backbone.check()) == []


def test_shapes_are_all_linears_and_targets_the_fourteen_of_every_block(backbone: QwenImageEdit) -> None:
    network = backbone.load(CPU).network
    real = {
        name: (part.in_features, part.out_features)
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear)
    }
    assert backbone.shapes() == real
    assert len(backbone.targets()) == 14 * 2
    assert set(backbone.targets()) == {name for name in real if name.startswith("transformer_blocks.")}


def test_the_published_sizes_give_the_published_linears(broken: QwenImageEdit) -> None:
    path = Path(broken.model) / "transformer" / "config.json"
    path.write_text('{"_class_name": "QwenImageTransformer2DModel"}')  # all else as the class completes it
    shapes = broken.shapes()
    assert len(broken.targets()) == 840
    assert shapes["transformer_blocks.59.img_mlp.net.0.proj"] == (3072, 12288)
    assert shapes["txt_in"] == (3584, 3072)
    assert shapes["proj_out"] == (3072, 64)
    assert broken.feature_width() == 3072


def test_another_kind_of_model_is_named_with_what_is_needed(broken: QwenImageEdit) -> None:
    path = Path(broken.model) / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"_class_name": "QwenImagePipeline"}))
    (problem,) = broken.check()
    assert f"{path}: its pipeline is QwenImagePipeline" in problem
    assert "QwenImageEditPipeline or QwenImageEditPlusPipeline" in problem
    with pytest.raises(CloraError, match="its pipeline is QwenImagePipeline"):
        broken.load(CPU)
    path.write_text(json.dumps(index | {"transformer": ["diffusers", "FluxTransformer2DModel"]}))
    (problem,) = broken.check()
    assert "transformer is a FluxTransformer2DModel" in problem


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("transformer", "num_layers", "sixty", "num_layers is 'sixty'; it must be a whole number from 1 to 256"),
        ("transformer", "num_layers", 10**9, "num_layers is 1000000000; it must be a whole number"),
        ("transformer", "use_layer3d_rope", True, "use_layer3d_rope is True"),
        ("transformer", "joint_attention_dim", 64, "joint_attention_dim is 64, but the text encoder's words have 32"),
        ("vae", "z_dim", 8, "in_channels is 64, but 2 x 2 latents of the VAE are 32"),
        ("vae", "latents_std", [1.0], "latents_std is not a list of 16 numbers"),
    ],
)
def test_parts_that_do_not_fit_are_named(broken: QwenImageEdit, part: str, key: str, value: object, words: str) -> None:
    path = Path(broken.model) / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    problems = list(broken.check())
    assert any(words in problem for problem in problems), problems


def test_files_that_cannot_be_used_are_named(broken: QwenImageEdit, tmp_path: Path) -> None:
    (missing,) = evolve(broken, model=str(tmp_path / "nowhere")).check()
    assert f"{tmp_path / 'nowhere'}' is no folder" in missing
    weights = Path(broken.model) / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    (truncated,) = broken.check()
    assert f"{weights}: truncated" in truncated
    weights.unlink()
    weights.with_name("diffusion_pytorch_model.bin").write_bytes(b"\x80\x02")
    (pickled,) = broken.check()
    assert "diffusion_pytorch_model.bin, which can run code" in pickled
    assert list(evolve(broken, memory=NetworkMemory(offload_blocks=3)).check()) == [pickled]  # one thing at a time
    shutil.copy(weights.with_name("config.json"), tmp_path)
    weights.write_bytes(whole)
    (many,) = evolve(broken, memory=NetworkMemory(offload_blocks=3)).check()
    assert "offload_blocks" in many


class Pictures:
    """A dataset with one picture of a size."""

    def __init__(self, width: int, height: int) -> None:
        self.size = height, width

    def sources(self, effect: str, split: str) -> tuple[str, ...]:
        return ("one",)

    def general(self, split: str) -> tuple[GeneralItem, ...]:
        return (GeneralItem("one", "blue"),)

    def images(self, names: Sequence[str]) -> torch.Tensor:
        return torch.zeros(len(names), 3, *self.size)


def test_a_dataset_of_another_size_is_told_before_the_run(newest: QwenImageEdit) -> None:
    assert list(newest.check_dataset(Pictures(80, 48))) == []
    (problem,) = newest.check_dataset(Pictures(80, 50))
    assert "its pictures are 80 x 50" in problem
    assert "multiples of 16" in problem


def test_tokens_are_those_of_the_words_alone(newest: QwenImageEdit) -> None:
    assert len(newest.tokens("<gold_x7>")) == len("<gold_x7>")
    assert newest.tokens("<|im_end|>") != newest.tokens("im_end")


def test_the_digest_follows_what_changes_the_output(newest: QwenImageEdit, tiny_qwen: Callable[[str], Path]) -> None:
    first = newest.digest()
    assert newest.digest() == first
    for other in (
        evolve(newest, model=str(tiny_qwen("2509"))),
        evolve(newest, guidance_rescale=False),
        evolve(newest, memory=NetworkMemory(weights="bf16")),
    ):
        assert other.digest() != first
    assert evolve(newest, memory=evolve(FP32, gradient_checkpointing=True, compile=True)).digest() == first


def test_a_card_says_how_the_stock_pipeline_is_called(backbone: QwenImageEdit) -> None:
    import inspect

    import diffusers

    told = backbone.publication()
    assert told.base_model == backbone.model
    assert told.architecture.startswith("Qwen-Image-Edit")
    call = inspect.signature(getattr(diffusers, told.pipeline).__call__).parameters
    assert {"image", "prompt", "num_inference_steps", *told.call} <= set(call)


def test_parts_leave_the_memory_when_they_are_not_kept(newest: QwenImageEdit) -> None:
    loaded = newest.load(CPU)
    assert not any((loaded._text, loaded._pictures, loaded._network))
    held = conditions(loaded, ["blue"])
    assert loaded._network is None, "the transformer is not needed for words and pictures"
    gone = [weakref.ref(loaded.text.text_encoder), weakref.ref(loaded.pictures)]
    loaded.keep("network")
    gc.collect()
    assert [part() for part in gone] == [None, None]
    network = loaded.network
    assert loaded.network is network
    with torch.no_grad():
        before = loaded.velocity(*states(1), held)
    gone = [weakref.ref(network)]
    del network
    loaded.keep("text", "pictures")
    gc.collect()
    assert gone[0]() is None
    again = conditions(loaded, ["blue"])
    assert torch.equal(again.text, held.text)
    loaded.keep("network")
    with torch.no_grad():
        assert torch.equal(loaded.velocity(*states(1), held), before)


def test_rows_of_a_batch_do_not_see_one_another(backbone: QwenImageEdit) -> None:
    loaded = backbone.load(CPU)
    together = conditions(loaded, ["", "turn the picture into a drawing with coloured chalk", "blue"])
    x_sigma, sigma = states(3)
    with torch.no_grad():
        batch = loaded.velocity(x_sigma, sigma, together)
        for row in range(3):
            length = int(together.mask[row].sum())
            alone = Conditions(
                together.text[row : row + 1, :length],
                together.mask[row : row + 1, :length],
                together.source[row : row + 1],
            )
            single = loaded.velocity(x_sigma[row : row + 1], sigma[row : row + 1], alone)
            torch.testing.assert_close(batch[row : row + 1], single, atol=3e-5, rtol=1e-4)
    assert not together.mask.all()


def test_every_row_has_its_own_adapter_and_the_base_stays(backbone: QwenImageEdit) -> None:
    """The oracle adds each adapter's B A to the weights of a network that knows no adapters."""
    loaded, plain = backbone.load(CPU), backbone.load(CPU)
    adapted = AdaptedNetwork(loaded.network, tuple(backbone.shapes()))
    names: list[str | None] = ["one", None, "two"]
    for name in ("one", "two"):
        made = Adapter.fresh(backbone.shapes(), 3, 6.0, StepRng(1).named(name), trainable=False)
        made.flat.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
        adapted.add(name, made)
    held = conditions(plain, ["a", "rather longer", "b"])
    x_sigma, sigma = states(3)
    with torch.no_grad(), adapted.rows(names):
        mixed = loaded.velocity(x_sigma, sigma, held)
    for row, name in enumerate(names):
        weights = {key: value.clone() for key, value in plain.network.state_dict().items()}
        if name is not None:
            for module, (a, b, scale) in adapted.adapters[name].factors.items():
                plain.network.get_submodule(module).weight.add_(scale * b @ a)  # pyright: ignore
        with torch.no_grad():
            expected = plain.velocity(x_sigma, sigma, held)[row]
        plain.network.load_state_dict(weights)
        torch.testing.assert_close(mixed[row], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("memory", [{"gradient_checkpointing": True}, {"offload_blocks": 1}], ids=["twice", "waiting"])
def test_gradients_do_not_depend_on_how_the_memory_is_saved(backbone: QwenImageEdit, memory: dict) -> None:
    def gradient(how: NetworkMemory) -> torch.Tensor:
        loaded = evolve(backbone, memory=how).load(CPU)
        adapted = AdaptedNetwork(loaded.network, backbone.targets())
        shapes = {name: backbone.shapes()[name] for name in backbone.targets()}
        student = adapted.add("student", Adapter.fresh(shapes, 2, 2.0, StepRng(0)))
        student.flat.add_(0.05 * torch.randn(student.flat.shape, generator=torch.Generator().manual_seed(0)))
        held = conditions(loaded, ["blue", "rather longer"])
        with adapted.rows(["student", None]):
            velocity = loaded.velocity(*states(2), held)
        velocity.square().mean().backward()
        assert student.flat_grad is not None
        return student.flat_grad

    expected = gradient(FP32)
    assert expected.abs().max() > 0
    torch.testing.assert_close(gradient(evolve(FP32, **memory)), expected, atol=1e-7, rtol=1e-5)


def test_a_strip_and_an_odd_size_have_an_answer(newest: QwenImageEdit) -> None:
    loaded = newest.load(CPU)
    assert loaded.fit(torch.zeros(1, 3, 2, 900)).shape == (1, 3, 32, 1344)
    with pytest.raises(CloraError, match="multiples of 16, not 50 x 48"):
        loaded.encode_images(torch.zeros(1, 3, 48, 50))
