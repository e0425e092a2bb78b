"""FLUX.1 Kontext in memory, part by part: what diffusers' FluxKontextPipeline computes, step for step."""

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
    library_errors,
    load_fitted,
    pipeline_schedule,
)

from .sizes import fit
from .tokens import pack, positions, unpack

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
    from diffusers.pipelines.flux.pipeline_flux_kontext import FluxKontextPipeline

    from .backbone import FluxKontext

T = TypeVar("T")

#: the transformer's lists of blocks, in the order in which they run
BLOCKS = ("transformer_blocks", "single_transformer_blocks")
TRAIN_TIMESTEPS = 1000  # the pipeline counts noise levels in thousandths


class LoadedFlux:
    """The model's parts, each loaded when it is first needed."""

    def __init__(self, backbone: FluxKontext, device: torch.device) -> None:
        self.backbone = backbone
        self.folder = backbone.folder
        self.device = device
        self.dtype = backbone.memory.dtype
        self._text: FluxKontextPipeline | None = None
        self._pictures: AutoencoderKL | None = None
        self._network: FluxTransformer2DModel | None = None

    @property
    def text(self) -> FluxKontextPipeline:
        """CLIP and T5 with their tokenizers, as a pipeline without the other parts."""
        if self._text is None:
            from diffusers.pipelines.flux.pipeline_flux_kontext import FluxKontextPipeline
            from transformers import (
                CLIPTextModel,
                CLIPTokenizer,
                T5EncoderModel,
                T5TokenizerFast,  # pyright: ignore[reportAttributeAccessIssue] - an alias in 5
            )

            parts: dict[str, Any] = {
                "scheduler": self._scheduler(),
                "text_encoder": self._load("text_encoder", CLIPTextModel),
                "text_encoder_2": self._load("text_encoder_2", T5EncoderModel),
                "tokenizer": self.folder.load("tokenizer", CLIPTokenizer),
                "tokenizer_2": self.folder.load("tokenizer_2", T5TokenizerFast),
                "transformer": None,
                "vae": None,
            }
            for tokenizer, encoder in (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")):
                check_tokens(self.folder.where(tokenizer), parts[tokenizer], parts[encoder])
            with library_errors(self.folder.where("model_index.json")):
                self._text = FluxKontextPipeline(**parts)
        return self._text

    @property
    def pictures(self) -> AutoencoderKL:
        """The VAE."""
        if self._pictures is None:
            from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

            self._pictures = self._load("vae", AutoencoderKL)
        return self._pictures

    @property
    def network(self) -> FluxTransformer2DModel:
        """The transformer, frozen."""
        if self._network is None:
            self._network = self._build_network()
        return self._network

    def _build_network(self) -> FluxTransformer2DModel:
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

        def load(device: torch.device) -> FluxTransformer2DModel:
            return self.folder.load("transformer", FluxTransformer2DModel, dtype=self.dtype, device=device)

        return load_fitted(load, BLOCKS, self.backbone.memory, self.device)

    def keep(self, *parts: Part) -> None:
        """Drop the parts that are not named."""
        self._text = self._text if "text" in parts else None
        self._pictures = self._pictures if "pictures" in parts else None
        self._network = self._network if "network" in parts else None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def fit(self, picture: torch.Tensor) -> torch.Tensor:
        """A picture [1, 3, H, W] resized to the size that Kontext was trained on with the nearest aspect ratio."""
        return fit(picture, self.backbone.side, self.backbone.multiple())

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], images: torch.Tensor) -> TextEmbeddings:
        """Words [B] -> T5's [B, L, D], CLIP's pooled [B, P]; FLUX reads T5's padding too, so no token is masked."""
        pipeline = self.text
        with library_errors(f"{self.folder.where('text_encoder')} and text_encoder_2"):
            text, pooled, _ = pipeline.encode_prompt(
                list(prompts), device=self.device, max_sequence_length=self.backbone.max_sequence_length
            )
        assert text is not None  # the signature allows None for callers who bring their own
        return TextEmbeddings(text, torch.ones(text.shape[:2], dtype=torch.bool, device=text.device), pooled)

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures [B, 3, H, W] -> latents float32 [B, 16, H/8, W/8], the VAE's mode, shifted and scaled."""
        (height, width), multiple = images.shape[-2:], self.backbone.multiple()
        if height % multiple or width % multiple:
            raise CloraError(
                f"FLUX.1 Kontext takes pictures whose sides are multiples of {multiple}, not {width} x {height}; "
                "give the dataset such a size"
            )
        vae = self.pictures  # picture by picture, so that neither memory nor roundings depend on the batch
        pictures = (picture.to(self.device, vae.dtype) for picture in images.split(1))
        with library_errors(self.folder.where("vae")):
            modes = torch.cat([vae.encode(picture).latent_dist.mode() for picture in pictures])  # pyright: ignore
        return ((modes - vae.config["shift_factor"]) * vae.config["scaling_factor"]).float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 16, h, w] -> pictures float32 [B, 3, 8 h, 8 w], clamped to [-1, 1], with the latents' graph."""
        vae = self.pictures
        unscaled = latents.to(self.device, vae.dtype) / vae.config["scaling_factor"] + vae.config["shift_factor"]
        return torch.cat([vae.decode(row, return_dict=False)[0].float() for row in unscaled.split(1)]).clamp(-1, 1)

    def velocity(self, x_sigma: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """eps - x0 at x_sigma [B, 16, h, w], sigma [B]; the reference picture's tokens follow the made one's."""
        network, source, pooled = self.network, conditions.source, conditions.pooled
        made = pack(x_sigma)
        ids = torch.cat([positions(x_sigma, 0), positions(source, 1)])
        guidance = self.backbone.guidance if network.config["guidance_embeds"] else None
        predicted = network(
            hidden_states=torch.cat([made, pack(source)], dim=1).to(self.dtype),
            # in the pipeline's own order, for its roundings in bfloat16 are what the model is served with
            timestep=(sigma * TRAIN_TIMESTEPS).to(self.dtype) / TRAIN_TIMESTEPS,
            guidance=None if guidance is None else torch.full_like(sigma, guidance, dtype=torch.float32),
            pooled_projections=None if pooled is None else pooled.to(self.dtype),
            encoder_hidden_states=conditions.text.to(self.dtype),
            txt_ids=torch.zeros(conditions.text.shape[1], 3, device=sigma.device, dtype=self.dtype),
            img_ids=ids.to(self.dtype),
            return_dict=False,
        )[0]
        return unpack(predicted[:, : made.shape[1]], *x_sigma.shape[-2:]).to(x_sigma.dtype)

    def blocks(self) -> Sequence[torch.nn.Module]:
        """The transformer's blocks in the order in which they run."""
        return [*self.network.transformer_blocks, *self.network.single_transformer_blocks]

    def features(self, output: Any, x_sigma: torch.Tensor) -> torch.Tensor:
        """The tokens [B, h w / 4, D] of the picture being made; a block gives words, and these before the source's."""
        return output[1][:, : x_sigma.shape[-2] * x_sigma.shape[-1] // 4]

    def schedule(self, steps: int, latents: torch.Tensor) -> Schedule:
        """The levels of the pipeline's scheduler for latents [B, C, h, w], shifted by their number of tokens."""
        from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift

        tokens = latents.shape[-2] * latents.shape[-1] // 4
        where = self.folder.where("scheduler/scheduler_config.json")
        return pipeline_schedule(self._scheduler(), calculate_shift, steps, tokens, where)

    def _scheduler(self) -> Any:
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        return self.folder.load("scheduler", FlowMatchEulerDiscreteScheduler)

    def _load(self, part: str, cls: type[T]) -> T:
        return self.folder.load(part, cls, dtype=self.dtype, device=self.device)


def check_tokens(where: str, tokenizer: Any, encoder: Any) -> None:
    """Raise CloraError for a tokenizer that gives numbers which its text encoder has no words for."""
    highest, words = max(tokenizer.get_vocab().values()), encoder.config.vocab_size
    if highest >= words:
        raise CloraError(f"{where}: it has a token {highest}, but its text encoder {words} words")
