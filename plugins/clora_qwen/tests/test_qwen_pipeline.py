"""What this backbone computes is what diffusers' own edit pipelines compute, on a tiny model of every edition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from attrs import frozen
from clora_qwen.backbone import QwenImageEdit
from clora_qwen.loaded import LoadedQwen
from clora_qwen.pictures import pack, to_image, unpack
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from diffusers.schedulers import scheduling_flow_match_euler_discrete as scheduling
from PIL import Image

from clora.adapters.features import listening
from clora.api import Conditions, NetworkMemory, Schedule, StepRng
from clora.diffusion.sampling import euler, few_step

Drawn = Callable[..., Image.Image]
SIDE = 128  # of small_pictures
FP32 = NetworkMemory(weights="fp32")


pytestmark = [
    pytest.mark.slow,  # many short tests, which take seconds together
    pytest.mark.usefixtures("small_pictures"),
]


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


@frozen
class Both:
    """A stock pipeline, this backbone on the same files, and a picture that both take as it is."""

    pipe: Any
    loaded: LoadedQwen
    image: Image.Image  # 160 x 96: not square, and of the size that the pipeline would give it
    edition: str

    @property
    def picture(self) -> torch.Tensor:
        return as_tensor(self.image)

    def conditions(self, prompt: str) -> Conditions:
        words = self.loaded.encode_prompts([prompt], self.picture)
        return Conditions(words.text, words.mask, self.loaded.encode_images(self.picture))

    def watched(self) -> tuple[list[dict[str, Any]], list[torch.Tensor]]:
        """The arguments and outputs of every call of the stock transformer from now on."""
        asked: list[dict[str, Any]] = []
        answered: list[torch.Tensor] = []
        forward = self.pipe.transformer.forward

        def watch(**kwargs: Any) -> Any:
            answer = forward(**kwargs)
            asked.append(kwargs)
            answered.append(answer[0])
            return answer

        self.pipe.transformer.forward = watch
        return asked, answered


@pytest.fixture(params=["original", "2509", "2511"])
def edition(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[torch.float32])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def both(edition: str, dtype: torch.dtype, tiny_qwen: Callable[[str], Path], drawn: Drawn) -> Both:
    import tiny_qwen as tiny

    folder = tiny_qwen(edition)
    memory = NetworkMemory(weights="fp32" if dtype == torch.float32 else "bf16")
    backbone = QwenImageEdit(model=str(folder), memory=memory, side=SIDE)
    loaded = backbone.load(torch.device("cpu"))
    image = to_image(loaded.fit(as_tensor(drawn(313, 200)))[0])
    assert image.size == (160, 96)
    return Both(tiny.pipeline(folder, dtype), loaded, image, edition)


@pytest.mark.parametrize("size", [(313, 200), (90, 260), (64, 64), (400, 60)])
def test_a_picture_is_fitted_and_encoded_as_the_pipeline_does(both: Both, drawn: Drawn, size: tuple[int, int]) -> None:
    image = drawn(*size)
    asked, _ = both.watched()
    both.pipe(image, "blue", num_inference_steps=2, true_cfg_scale=1.0, output_type="latent")
    fitted = both.loaded.fit(as_tensor(image))
    source = pack(both.loaded.encode_images(fitted))
    seen = asked[0]["hidden_states"][:, -source.shape[1] :]
    made, picture = asked[0]["img_shapes"][0]
    assert picture == made == (1, fitted.shape[-2] // 16, fitted.shape[-1] // 16)
    assert torch.equal(source, seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], indirect=True)
def test_the_network_meets_what_the_pipeline_gives_it(both: Both) -> None:
    asked, answered = both.watched()
    both.pipe(
        both.image, "make it blue", negative_prompt="", true_cfg_scale=4.0, num_inference_steps=2,
        generator=torch.Generator().manual_seed(1), output_type="latent",
    )  # fmt: skip
    assert len(asked) == 4
    for call, answer, prompt in zip(asked, answered, ["make it blue", ""] * 2, strict=True):
        conditions = both.conditions(prompt)
        assert torch.equal(conditions.text, call["encoder_hidden_states"])
        assert bool(conditions.mask.all())
        assert call["encoder_hidden_states_mask"] is None
        source = pack(conditions.source)
        half = source.shape[1]
        assert torch.equal(source, call["hidden_states"][:, half:])
        x_sigma = unpack(call["hidden_states"][:, :half], *conditions.source.shape[-2:])
        with torch.no_grad():
            velocity = both.loaded.velocity(x_sigma, call["timestep"], conditions)
        assert torch.equal(pack(velocity), answer[:, :half])
        assert answer.dtype == both.loaded.dtype


def test_words_are_the_pipelines_own(both: Both) -> None:
    image: Any = both.image
    if both.edition != "original":
        width, height = pipeline_qwenimage_edit_plus.calculate_dimensions(384 * 384, image.width / image.height)
        image = [both.pipe.image_processor.resize(image, height, width)]
    words = both.loaded.encode_prompts(
        ["", "a <much> longer instruction, with größe"], both.picture.expand(2, -1, -1, -1)
    )
    for row, prompt in enumerate(["", "a <much> longer instruction, with größe"]):
        text, mask = both.pipe.encode_prompt(prompt=prompt, image=image)
        assert mask is None
        length = text.shape[1]
        assert torch.equal(words.text[row, :length], text[0])
        assert words.mask[row].tolist() == [i < length for i in range(words.text.shape[1])]
        assert not words.text[row, length:].any()


def test_few_steps_make_the_picture_of_the_stock_pipeline(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, steps = StepRng(3).named("sample"), 4
    conditions = both.conditions("turn it to gold")
    like = torch.empty_like(conditions.source)

    def velocity(x_sigma: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return both.loaded.velocity(x_sigma, sigma, conditions)

    ours = both.loaded.decode(few_step(velocity, like, Schedule.shifted(steps, 3.0), rng))
    both.pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=False, stochastic_sampling=True
    )
    # the stock scheduler draws once more after the last step and multiplies it by zero
    noises = iter([pack(rng.normal(f"noise/{i}", like)) for i in range(1, steps + 1)])
    monkeypatch.setattr(scheduling, "randn_tensor", lambda *args, **kwargs: next(noises))
    stock = both.pipe(
        both.image, "turn it to gold", true_cfg_scale=1.0, num_inference_steps=steps,
        latents=pack(rng.normal("noise/0", like)), output_type="pt",
    ).images  # fmt: skip
    assert stock.shape == ours.shape == both.picture.shape
    torch.testing.assert_close(ours / 2 + 0.5, stock, atol=2e-6, rtol=0)


def test_the_teachers_sampler_makes_the_picture_of_the_stock_pipeline(both: Both) -> None:
    rng, steps = StepRng(4).named("sample"), 5
    with_words, without = both.conditions("turn it to gold"), both.conditions("")
    like = torch.empty_like(with_words.source)
    schedule = both.loaded.schedule(steps, like)
    made = euler(
        lambda x, sigma: both.loaded.velocity(x, sigma, with_words),
        lambda x, sigma: both.loaded.velocity(x, sigma, without),
        like, schedule, 4.0, rng, both.loaded.guide,
    )  # fmt: skip
    ours = both.loaded.decode(made)
    stock = both.pipe(
        both.image, "turn it to gold", negative_prompt="", true_cfg_scale=4.0, num_inference_steps=steps,
        latents=pack(rng.normal("noise/0", like)), output_type="pt",
    ).images  # fmt: skip
    assert schedule.sigmas == tuple(both.pipe.scheduler.sigmas[:-1].tolist())
    assert schedule.sigmas[-1] == pytest.approx(0.02, abs=1e-6)  # shift_terminal
    torch.testing.assert_close(ours / 2 + 0.5, stock, atol=2e-6, rtol=0)


def test_features_are_the_tokens_of_the_picture_being_made(both: Both) -> None:
    loaded, conditions = both.loaded, both.conditions("turn it to gold")
    latents = torch.randn(conditions.source.shape, generator=torch.Generator().manual_seed(0))
    behind: list[torch.Tensor] = []
    loaded.network.norm_out.register_forward_pre_hook(lambda module, args: behind.append(args[0]))
    with torch.no_grad(), listening(loaded.blocks(), (1.0, 0.5)) as noted:
        loaded.velocity(latents, torch.tensor([0.3]), conditions)
    last, middle = (loaded.features(noted[depth], latents) for depth in (1.0, 0.5))
    tokens = latents.shape[-2] * latents.shape[-1] // 4
    assert last.equal(behind[0][:, :tokens])
    assert middle.shape == last.shape == (1, tokens, loaded.backbone.feature_width())
    assert not middle.equal(last)


@pytest.mark.parametrize("edition", ["2511"])
def test_a_loss_of_pictures_has_the_decoders_gradient(both: Both) -> None:
    latents = torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    ours, stock = latents.clone().requires_grad_(), latents.clone().requires_grad_()
    both.loaded.decode(ours).square().mean().backward()
    vae = both.pipe.vae
    mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    pictures = vae.decode(stock.unsqueeze(2) * std + mean, return_dict=False)[0][:, :, 0]
    pictures.clamp(-1, 1).square().mean().backward()
    assert ours.grad is not None
    assert ours.grad.abs().sum() > 0
    torch.testing.assert_close(ours.grad, stock.grad, atol=1e-7, rtol=1e-4)
    assert not any(weight.requires_grad for weight in both.loaded.pictures.parameters())


def test_guidance_keeps_the_norm_of_every_token_unless_told_otherwise(tiny_qwen: Callable[[str], Path]) -> None:
    random = torch.Generator().manual_seed(0)
    c, u = torch.randn(2, 16, 6, 10, generator=random), torch.randn(2, 16, 6, 10, generator=random)
    backbone = QwenImageEdit(model=str(tiny_qwen("2511")), memory=FP32)
    kept = backbone.load(torch.device("cpu")).guide(c, u, 4.0)
    torch.testing.assert_close(pack(kept).norm(dim=-1), pack(c).norm(dim=-1))
    plain = QwenImageEdit(model=backbone.model, memory=FP32, guidance_rescale=False)
    torch.testing.assert_close(plain.load(torch.device("cpu")).guide(c, u, 4.0), u + 4 * (c - u))
