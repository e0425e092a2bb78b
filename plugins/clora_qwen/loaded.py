"""Qwen-Image-Edit in memory, part by part: what diffusers' edit pipelines compute, step for step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from clora.api import (
    CloraError,
    Conditions,
    Part,
    Schedule,
    TextEmbeddings,
    guide,
    library_errors,
    load_fitted,
    pipeline_schedule,
)

from .backbone import MULTIPLE
from .pictures import CONDITION_SIDE, pack, resized, to_image, to_tensor, unpack
from .processor import check_tokens, load_processor

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

    from .backbone import QwenImageEdit

T = TypeVar("T")

TRAIN_TIMESTEPS = 1000  # the pipelines count noise levels in thousandths
BLOCKS = ("transformer_blocks",)


class LoadedQwen:
    """The model's parts, each loaded when it is first needed."""

    def __init__(self, backbone: QwenImageEdit, device: torch.device) -> None:
        self.backbone = backbone
        self.folder = backbone.folder
        self.device = device
        self.dtype = backbone.memory.dtype
        self.numbers_pictures = backbone.edition != "original"
        self._text: Any = None
        self._pictures: AutoencoderKLQwenImage | None = None
        self._network: QwenImageTransformer2DModel | None = None

    @property
    def text(self) -> Any:
        """Text encoder, tokenizer and processor, as the model's own pipeline without its other parts."""
        if self._text is None:
            import diffusers
            from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

            encoder = self._load("text_encoder", Qwen2_5_VLForConditionalGeneration)
            tokenizer = self.folder.load("tokenizer", Qwen2Tokenizer)
            check_tokens(self.folder, tokenizer, encoder.config)
            with library_errors(self.folder.where("model_index.json")):
                self._text = getattr(diffusers, self.backbone.pipeline)(
                    scheduler=self._scheduler(),
                    vae=None,
                    text_encoder=encoder,
                    tokenizer=tokenizer,
                    processor=load_processor(self.folder),
                    transformer=None,
                )
        return self._text

    @property
    def pictures(self) -> AutoencoderKLQwenImage:
        """The VAE."""
        if self._pictures is None:
            from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage

            self._pictures = self._load("vae", AutoencoderKLQwenImage)
        return self._pictures

    @property
    def network(self) -> QwenImageTransformer2DModel:
        """The transformer, frozen."""
        if self._network is None:
            self._network = self._build_network()
        return self._network

    def _build_network(self) -> QwenImageTransformer2DModel:
        from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

        def load(device: torch.device) -> QwenImageTransformer2DModel:
            return self.folder.load("transformer", QwenImageTransformer2DModel, dtype=self.dtype, device=device)

        return load_fitted(load, BLOCKS, self.backbone.memory, self.device)

    def keep(self, *parts: Part) -> None:
        """Drop the parts that are not named."""
        self._text = self._text if "text" in parts else None
        self._pictures = self._pictures if "pictures" in parts else None
        self._network = self._network if "network" in parts else None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def fit(self, picture: torch.Tensor) -> torch.Tensor:
        """A picture [1, 3, H, W] resized as the pipeline does: multiples of 32, the area of a square of `side`."""
        return to_tensor(resized(to_image(picture[0]), self.backbone.side)).to(picture.device)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], images: torch.Tensor) -> TextEmbeddings:
        """Words [B] read together with their source pictures [B, 3, H, W] -> text [B, L, D], mask [B, L].

        Row by row, as the pipeline does: the text encoder's own padding would change the last bits.
        """
        rows = [self._read(prompt, picture) for prompt, picture in zip(prompts, images, strict=True)]
        text = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=text.device)
        return TextEmbeddings(text, torch.arange(text.shape[1], device=text.device) < lengths[:, None])

    def _read(self, prompt: str, picture: torch.Tensor) -> torch.Tensor:
        """One prompt with its picture [3, H, W] -> [L, D]; the template's own head is cut off by the pipeline."""
        image = to_image(picture)
        seen = [resized(image, CONDITION_SIDE)] if self.numbers_pictures else image
        pipeline = self.text
        with library_errors(self.folder.where("text_encoder")):
            text, _ = pipeline.encode_prompt(prompt=[prompt], image=seen, device=self.device)
        return text[0]

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures [B, 3, H, W] in eight bits -> latents float32 [B, 16, H/8, W/8], the VAE's mode, normalised."""
        height, width = images.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise CloraError(
                f"Qwen-Image-Edit takes pictures whose sides are multiples of {MULTIPLE}, not {width} x {height}; "
                "give the dataset such a size"
            )
        vae, (mean, std) = self.pictures, self._statistics()
        pictures = (to_tensor(to_image(picture)).unsqueeze(2).to(self.device, vae.dtype) for picture in images)
        with library_errors(self.folder.where("vae")):
            modes = torch.cat([vae.encode(picture).latent_dist.mode() for picture in pictures])  # pyright: ignore
        return ((modes - mean) / std)[:, :, 0].float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 16, h, w] -> pictures float32 [B, 3, 8 h, 8 w], clamped to [-1, 1], with the latents' graph."""
        vae, (mean, std) = self.pictures, self._statistics()
        # the reciprocal first, as the pipeline does: its rounding is the model's
        unscaled = latents.to(self.device, vae.dtype).unsqueeze(2) / (1.0 / std) + mean
        pictures = [vae.decode(row, return_dict=False)[0][:, :, 0] for row in unscaled.split(1)]
        return torch.cat(pictures).float().clamp(-1, 1)

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The latents' mean and standard deviation, [1, 16, 1, 1, 1] each."""
        config = self.pictures.config
        return tuple(  # pyright: ignore[reportReturnType] - two of them
            torch.tensor(config[name]).view(1, -1, 1, 1, 1).to(self.device, self.dtype)
            for name in ("latents_mean", "latents_std")
        )

    def velocity(self, x_sigma: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """eps - x0 at x_sigma [B, 16, h, w], sigma [B]; the source's tokens follow those of the picture being made."""
        made, source = pack(x_sigma), pack(conditions.source)
        sizes = [(1, latents.shape[-2] // 2, latents.shape[-1] // 2) for latents in (x_sigma, conditions.source)]
        predicted = self.network(
            hidden_states=torch.cat([made, source.to(made.dtype)], dim=1).to(self.dtype),
            # in the pipeline's own order, for its roundings in bfloat16 are what the model is served with
            timestep=(sigma * TRAIN_TIMESTEPS).to(self.dtype) / TRAIN_TIMESTEPS,
            encoder_hidden_states=conditions.text.to(self.dtype),
            encoder_hidden_states_mask=None if bool(conditions.mask.all()) else conditions.mask,
            img_shapes=[sizes] * len(x_sigma),
            return_dict=False,
        )[0]
        return unpack(predicted[:, : made.shape[1]], *x_sigma.shape[-2:]).to(x_sigma.dtype)

    def blocks(self) -> Sequence[torch.nn.Module]:
        """The transformer's blocks in the order in which they run."""
        return list(self.network.transformer_blocks)

    def features(self, output: Any, x_sigma: torch.Tensor) -> torch.Tensor:
        """The tokens [B, h w / 4, D] of the picture being made; a block gives words, and these before the source's."""
        return output[1][:, : x_sigma.shape[-2] * x_sigma.shape[-1] // 4]

    def guide(self, conditional: torch.Tensor, unconditional: torch.Tensor, guidance_scale: float) -> torch.Tensor:
        """u + w (c - u), each token scaled to the norm of the conditional one's (`guidance_rescale`), [B, 16, h, w]."""
        guided = guide(conditional, unconditional, guidance_scale)
        if not self.backbone.guidance_rescale:
            return guided
        tokens = pack(guided)
        norms = tokens.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(tokens.dtype).tiny)
        kept = tokens * (pack(conditional).norm(dim=-1, keepdim=True) / norms)
        return unpack(kept, *guided.shape[-2:])

    def schedule(self, steps: int, latents: torch.Tensor) -> Schedule:
        """The levels of the model's own scheduler for latents [B, C, h, w], shifted by their number of tokens."""
        from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_shift

        tokens = latents.shape[-2] * latents.shape[-1] // 4
        where = self.folder.where("scheduler/scheduler_config.json")
        return pipeline_schedule(self._scheduler(), calculate_shift, steps, tokens, where)

    def _scheduler(self) -> Any:
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        return self.folder.load("scheduler", FlowMatchEulerDiscreteScheduler)

    def _load(self, part: str, cls: type[T]) -> T:
        return self.folder.load(part, cls, dtype=self.dtype, device=self.device)
