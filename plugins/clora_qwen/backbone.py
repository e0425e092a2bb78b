"""The Qwen-Image-Edit backbone component: where the model is, how its linears are named, how to load it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from clora.api import (
    CloraError,
    Dataset,
    DiffusersFolder,
    Footprint,
    ModelPlace,
    NetworkMemory,
    Publication,
    TokenShift,
    between,
    library_errors,
    quoted,
    scheduler_misfits,
    shift_by_tokens,
    weights_misfits,
)

from . import linears
from .fields import FIELDS, encoder_misfits, vae_misfits, words_of

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from .loaded import LoadedQwen

#: the parts of a model and the classes that may stand there
PARTS: Mapping[str, tuple[str, ...]] = {
    "scheduler": ("FlowMatchEulerDiscreteScheduler",),
    "text_encoder": ("Qwen2_5_VLForConditionalGeneration",),
    "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
    "processor": ("Qwen2VLProcessor", "Qwen2_5_VLProcessor"),
    "transformer": ("QwenImageTransformer2DModel",),
    "vae": ("AutoencoderKLQwenImage",),
}
#: the pipelines, by the name that model_index.json has for them: of the first edition, and of 2509 and later
PIPELINES = ("QwenImageEditPipeline", "QwenImageEditPlusPipeline")

MULTIPLE = 16  # pixels to a token's side: the VAE's 8 times the packing's 2

Edition = Literal["original", "2509", "2511"]
#: what musubi-tuner writes into the LoRAs that it trains on them
ARCHITECTURES: Mapping[Edition, str] = {
    "original": "Qwen-Image-Edit",
    "2509": "Qwen-Image-Edit-Plus",
    "2511": "Qwen-Image-Edit-2511",
}

PUBLISHED = ModelPlace("Qwen/Qwen-Image-Edit-2511")


@frozen
class QwenImageEdit:
    """Qwen-Image-Edit, every edition of it, through diffusers.

    A dataset's pictures keep their own size, whose sides must be multiples of 16.
    """

    #: a folder in diffusers' layout or a Hub id; the edition is read from the model itself
    model: ModelPlace = PUBLISHED
    revision: str | None = None  # of the Hub: a branch, tag or commit; null: its main branch
    #: of the square whose area a picture given by hand is resized to
    side: int = field(default=1024, validator=between(32, 4096))
    guidance_rescale: bool = True  # true: guidance keeps the norm of the conditional velocity, as the pipeline does
    #: how the transformer is kept; the other parts are in float32 where it is, else in bfloat16
    memory: NetworkMemory = field(factory=NetworkMemory)

    @property
    def folder(self) -> DiffusersFolder:
        """Where the model's files are."""
        return DiffusersFolder(self.model, self.revision)

    @property
    def pipeline(self) -> str:
        """The name of the model's own pipeline class."""
        return str(self.folder.index().get("_class_name"))

    @property
    def edition(self) -> Edition:
        """The first edition reads one picture; 2509 numbers its pictures; 2511 sees its source without noise too."""
        if self.pipeline == PIPELINES[0]:
            return "original"
        return "2511" if self.config("transformer").get("zero_cond_t") else "2509"

    def config(self, part: str) -> Mapping[str, Any]:
        """A part's configuration, every field of its type and in its range. Raises CloraError where one is not."""
        return self.folder.config(part, FIELDS[part])

    def check(self) -> Iterable[str]:
        """Problems with the model's files, before a weight is loaded."""
        problems = list(self.folder.check(PARTS, FIELDS))
        yield from problems or self._misfits()

    def _misfits(self) -> Iterable[str]:
        """A model of another kind, and parts that do not fit one another."""
        if self.pipeline not in PIPELINES:
            yield (
                f"{self.folder.where('model_index.json')}: its pipeline is {quoted(self.pipeline)[1:-1]}; "
                f"a Qwen-Image-Edit has {' or '.join(PIPELINES)}"
            )
            return
        config, where = self.config("transformer"), self.folder.where("transformer/config.json")
        wrong = list(linears.misfits(config))
        yield from (f"{where}: {problem}" for problem in wrong)
        if wrong:
            return
        sizes, vae, encoder = linears.complete(config), self.config("vae"), self.config("text_encoder")
        yield from self.memory.check(sizes["num_layers"])
        words = words_of(encoder).get("hidden_size")
        channels = vae.get("z_dim", 16)
        width = sizes["joint_attention_dim"]
        if width != words:
            yield f"{where}: joint_attention_dim is {width}, but the text encoder's words have {words} numbers"
        if sizes["in_channels"] != 4 * channels:
            yield f"{where}: in_channels is {sizes['in_channels']}, but 2 x 2 latents of the VAE are {4 * channels}"
        for part, problems in (
            ("text_encoder/config.json", encoder_misfits(encoder, self.config("processor"))),
            ("vae/config.json", vae_misfits(vae)),
            ("scheduler/scheduler_config.json", scheduler_misfits(self.config("scheduler"))),
        ):
            yield from (f"{self.folder.where(part)}: {problem}" for problem in problems)
        if self.folder.folder is not None:
            yield from weights_misfits(self.folder.part("transformer"), self.shapes())

    def check_dataset(self, dataset: Dataset) -> Iterable[str]:
        """Pictures of a size that the VAE and the packing cannot halve four times, told by the first of them."""
        height, width = dataset.images([dataset.general("train")[0].source]).shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            yield (
                f"its pictures are {width} x {height}; Qwen-Image-Edit takes sides that are multiples of {MULTIPLE} "
                "(the model's own are of 32), so give the dataset such a size"
            )

    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """(in, out) of every linear that can carry an adapter, from config.json alone."""
        config = self.config("transformer")
        return {**linears.in_blocks(config), **linears.around_blocks(config)}

    def targets(self) -> tuple[str, ...]:
        """The linears that the student trains: the 14 of every block."""
        return tuple(linears.in_blocks(self.config("transformer")))

    def tokens(self, prompt: str) -> Sequence[int]:
        """The tokens of a prompt's own words."""
        tokenizer = _tokenizer(self.folder)
        with library_errors(self.folder.where("tokenizer")):
            return tokenizer(prompt, add_special_tokens=False)["input_ids"]

    def digest(self) -> str:
        """A hash of the model and of the keys that change more of its output than the last bits."""
        keys = (self.memory.precision, self.side, self.guidance_rescale)
        return "-".join([self.folder.digest(), *map(str, keys)])

    def footprint(self, rank: int, size: tuple[int, int]) -> Footprint:
        """What it takes in memory with a student of a rank and pictures of (height, width); reads no weights."""
        from .footprint import footprint

        return footprint(self, rank, size)

    def shift_for(self, size: tuple[int, int] | None) -> TokenShift | None:
        """3 for the paper's 4,096 tokens, moved as the model's own scheduler moves its shift; None needs a size."""
        tokens = None if size is None else (size[0] // MULTIPLE) * (size[1] // MULTIPLE)
        where = self.folder.where("scheduler/scheduler_config.json")
        return shift_by_tokens(self.folder.config_here("scheduler", FIELDS["scheduler"]), tokens, where)

    def feature_width(self) -> int:
        """That of a token within the transformer."""
        config = linears.complete(self.config("transformer"))
        return config["num_attention_heads"] * config["attention_head_dim"]

    def latent_channels(self) -> int:
        """Those of the VAE."""
        return self.folder.config_here("vae", FIELDS["vae"]).get("z_dim", 16)

    def publication(self) -> Publication:
        """What a card, ModelSpec and ComfyUI say of the base: the stock pipeline without guidance, and a workflow."""
        from .workflow import workflow

        made = partial(workflow, self.edition)
        call = {"true_cfg_scale": 1.0}
        return Publication(self.model, ARCHITECTURES[self.edition], self.pipeline, call, workflows={"comfyui": made})

    def weight_files(self) -> Path:
        """The transformer's folder; of a Hub id it is downloaded."""
        return self.folder.part("transformer")

    def local_weights(self) -> Path | None:
        """The transformer's folder; None of a Hub id."""
        return None if self.folder.folder is None else self.folder.folder / "transformer"

    def load(self, device: torch.device) -> LoadedQwen:
        """The model on a device; nothing is read before it is needed. Raises CloraError for another kind of model."""
        from .loaded import LoadedQwen

        if self.pipeline not in PIPELINES:
            raise CloraError(next(iter(self._misfits())))
        return LoadedQwen(self, device)


@cache
def _tokenizer(folder: DiffusersFolder) -> Any:
    from transformers import Qwen2Tokenizer

    return folder.load("tokenizer", Qwen2Tokenizer)
