"""The FLUX.1 Kontext backbone component: where the model is, how its linears are named, how to load it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from attrs.validators import optional

from clora.api import (
    DiffusersFolder,
    Footprint,
    ModelPlace,
    NetworkMemory,
    Publication,
    TokenShift,
    between,
    library_errors,
    scheduler_misfits,
    shift_by_tokens,
    weights_misfits,
)

from . import linears
from .fields import FIELDS, clip_misfits, t5_misfits, vae_misfits

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from .loaded import LoadedFlux

#: the parts of a Kontext folder and the classes that may stand there
PARTS: Mapping[str, tuple[str, ...]] = {
    "scheduler": ("FlowMatchEulerDiscreteScheduler",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("T5EncoderModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("T5TokenizerFast", "T5Tokenizer"),
    "transformer": ("FluxTransformer2DModel",),
    "vae": ("AutoencoderKL",),
}

PUBLISHED = ModelPlace("black-forest-labs/FLUX.1-Kontext-dev")


@frozen
class FluxKontext:
    """FLUX.1 Kontext, through diffusers."""

    model: ModelPlace = PUBLISHED  # a folder in diffusers' layout or a Hub id
    revision: str | None = None  # of the Hub: a branch, tag or commit; null: its main branch
    #: what the distilled transformer is told; null: nothing
    guidance: float | None = field(default=2.5, validator=optional(between(0.0, 100.0)))
    max_sequence_length: int = field(default=512, validator=between(1, 512))  # tokens of T5 that a prompt may have
    #: of the square whose area a picture given by hand is resized to; null: Kontext's preferred sizes
    side: int | None = field(default=None, validator=optional(between(32, 4096)))
    memory: NetworkMemory = field(factory=NetworkMemory)  # how the transformer is kept; the other parts have its type

    @property
    def folder(self) -> DiffusersFolder:
        """Where the model's files are."""
        return DiffusersFolder(self.model, self.revision)

    def check(self) -> Iterable[str]:
        """Problems with the model's files, before a weight is loaded."""
        problems = list(self.folder.check(PARTS, FIELDS)) or list(self._misfits())
        yield from (f"backbone flux_kontext: {problem}" for problem in problems)

    def _misfits(self) -> Iterable[str]:
        """Parts that do not fit one another, and a guidance that the transformer cannot do without."""
        given, vae = self.config("transformer"), self.config("vae")
        config, where = linears.complete(given), self.folder.where("transformer/config.json")
        wrong = list(linears.misfits(given))
        yield from (f"{where}: {problem}" for problem in wrong)
        if wrong:
            return
        clip, t5 = self.config("text_encoder"), self.config("text_encoder_2")
        for name, needed, by in (
            ("in_channels", 4 * vae.get("latent_channels", 4), "2 x 2 latents of the VAE"),
            ("joint_attention_dim", t5.get("d_model"), "T5's d_model"),
            ("pooled_projection_dim", clip.get("hidden_size"), "CLIP's hidden_size"),
        ):
            if config[name] != needed:
                yield f"{where}: {name} is {config[name]}, but {by} is {needed}"
        for file, problems in (
            ("vae/config.json", vae_misfits(vae)),
            ("text_encoder/config.json", clip_misfits(clip)),
            ("text_encoder_2/config.json", t5_misfits(t5)),
            ("scheduler/scheduler_config.json", scheduler_misfits(self.config("scheduler"))),
        ):
            yield from (f"{self.folder.where(file)}: {problem}" for problem in problems)
        if self.guidance is None and config["guidance_embeds"]:
            yield "guidance: this transformer was distilled with guidance and needs a number, such as 2.5"
        yield from self.memory.check(config["num_layers"] + config["num_single_layers"])
        if self.folder.folder is not None:
            yield from weights_misfits(self.folder.part("transformer"), self.shapes())

    def config(self, part: str) -> Mapping[str, Any]:
        """A part's configuration, every field of its type and in its range. Raises CloraError where one is not."""
        return self.folder.config(part, FIELDS[part])

    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """(in, out) of every linear of the transformer, from its config.json alone."""
        return linears.shapes(self.config("transformer"))

    def targets(self) -> tuple[str, ...]:
        """The linears of the blocks."""
        return linears.in_blocks(self.shapes())

    def tokens(self, prompt: str) -> Sequence[int]:
        """T5's tokens of a prompt's own words, without the end of the text."""
        tokenizer = _t5_tokenizer(self.folder)
        with library_errors(self.folder.where("tokenizer_2")):
            return tokenizer(prompt, add_special_tokens=False).input_ids

    def multiple(self) -> int:
        """What a picture's sides are multiples of: the VAE's factor times the patch of two latents."""
        return side_multiple(self.config("vae"))

    def digest(self) -> str:
        """A hash of the model and the keys that change more of its output than the last bits."""
        keys = (self.memory.precision, self.guidance, self.max_sequence_length, self.side)
        return "-".join([self.folder.digest(), *map(str, keys)])

    def shift_for(self, size: tuple[int, int] | None) -> TokenShift | None:
        """3 for the paper's 4,096 tokens, moved as the model's own scheduler moves its shift; None needs a size."""
        multiple = side_multiple(self.folder.config_here("vae", FIELDS["vae"]))
        tokens = None if size is None else (size[0] // multiple) * (size[1] // multiple)
        where = self.folder.where("scheduler/scheduler_config.json")
        return shift_by_tokens(self.folder.config_here("scheduler", FIELDS["scheduler"]), tokens, where)

    def feature_width(self) -> int:
        """That of a token within the transformer."""
        config = linears.complete(self.config("transformer"))
        return config["num_attention_heads"] * config["attention_head_dim"]

    def latent_channels(self) -> int:
        """Those of the VAE."""
        return self.folder.config_here("vae", FIELDS["vae"]).get("latent_channels", 4)

    def publication(self) -> Publication:
        """What a card says of the base: the stock pipeline's call with the same guidance, length of text and size."""
        from .sizes import code

        call: dict[str, Any] = {} if self.guidance is None else {"guidance_scale": self.guidance}
        if self.max_sequence_length != 512:
            call["max_sequence_length"] = self.max_sequence_length
        if self.side is not None:
            call["_auto_resize"] = False  # it would make a megapixel of any source
        # left alone it makes a square of 1024 x 1024, whatever the source
        sizes = {"height": "source.height", "width": "source.width", "max_area": "source.height * source.width"}
        sizing = code(self.side, self.multiple())
        return Publication(self.model, "flux-1-kontext", "FluxKontextPipeline", call, sizing=sizing, call_sizes=sizes)

    def weight_files(self) -> Path:
        """The transformer's folder; of a Hub id it is downloaded."""
        return self.folder.part("transformer")

    def local_weights(self) -> Path | None:
        """The transformer's folder; None of a Hub id."""
        return None if self.folder.folder is None else self.folder.folder / "transformer"

    def footprint(self, rank: int, size: tuple[int, int]) -> Footprint:
        """What it takes in memory with a student of a rank and pictures of (height, width); reads no weights."""
        from .footprint import footprint

        return footprint(self, rank, size)

    def load(self, device: torch.device) -> LoadedFlux:
        """The model on a device; nothing is read before it is needed."""
        from .loaded import LoadedFlux

        return LoadedFlux(self, device)


def side_multiple(vae: Mapping[str, Any]) -> int:
    """The VAE's factor, 2 for each level but the first, times the patch of two latents."""
    return 2 ** len(vae.get("block_out_channels", (64,)))


@cache
def _t5_tokenizer(folder: DiffusersFolder) -> Any:
    from transformers import T5TokenizerFast  # pyright: ignore[reportAttributeAccessIssue] - an alias in 5

    return folder.load("tokenizer_2", T5TokenizerFast)
