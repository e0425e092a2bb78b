"""The captioner `qwen_vl`: a Qwen vision-language model on this machine, through transformers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field, frozen

from clora.api import CloraError, between, quoted, read_map, reason, shown
from clora_captions.parts import parts, shrunk

if TYPE_CHECKING:
    import torch

PLACE = "<|image_pad|>"
#: the settings in a model's folder that only Python reads
SETTINGS = ("config.json", "generation_config.json", "preprocessor_config.json")
#: how Qwen's own chat template lays one question out
OPENING = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
CLOSING = "<|im_end|>\n<|im_start|>assistant\n"
#: words that look like the model's own signs, such as a placeholder of a picture that nobody gave
_PLAIN = re.compile(r"<\|(\w+)\|>")


LONGEST_NAME = 1000


def _one_line(instance: object, attribute: Any, value: str | None) -> None:
    if value is not None and not (value.strip() and len(value) <= LONGEST_NAME and value.isprintable()):
        raise ValueError(f"'{attribute.name}' must be one line of at most {LONGEST_NAME} characters")


@define
class _Loaded:
    """The model once it is needed, its tokenizer and its reader of pictures."""

    model: Any = None
    words: Any = None
    pictures: Any = None


@frozen
class QwenVl:
    """A Qwen2-VL or Qwen2.5-VL on this machine.

    Answers are greedy, so the same pictures and words give the same caption.
    """

    #: a folder or a Hub id, read from safetensors alone
    model: str = field(default="Qwen/Qwen2.5-VL-7B-Instruct", validator=_one_line)
    #: of the Hub: a branch, tag or commit; null: its main branch
    revision: str | None = field(default=None, validator=_one_line)
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"  # what the weights are kept in
    max_new_tokens: int = field(default=384, validator=between(16, 32_768))  # of an answer
    #: pixels to which the longer side of a picture is shrunk
    size: int = field(default=768, validator=between(64, 8192))
    _loaded: _Loaded = field(factory=_Loaded, init=False, repr=False, eq=False)

    def name(self) -> str:
        """The folder's name or the Hub id, with its revision."""
        folder = self._folder
        named = self.model if folder is None else os.path.basename(os.path.realpath(folder))
        return named if self.revision is None else f"{named}@{self.revision}"

    def ready(self) -> Iterable[str]:
        """A folder that is none or holds another kind of model, and a GPU that is not there."""
        folder = self._folder
        if folder is not None and not os.path.isfile(folder / "config.json"):
            place = quoted(self.model)
            yield f"{place} is no folder with a config.json; a Hub id looks like Qwen/Qwen2.5-VL-7B-Instruct"
        elif folder is not None and not any(folder.glob("*.safetensors")):
            yield f"{shown(self.model)} holds no .safetensors file, and nothing else is read (a pickle can run code)"
        elif folder is not None:
            yield from _unreadable(folder)
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                yield "device: cuda, but there is no GPU that torch can use"

    def caption(self, request: str, pairs: Sequence[tuple[Path, Path]]) -> str:
        """The model's answer. Raises CloraError where the model cannot be loaded, PictureError for a picture."""
        import torch

        asked = parts(request, pairs)
        images = [shrunk(part, self.size) for part in asked if isinstance(part, Path)]
        model = self._model()
        inputs = self._inputs(asked, images)
        length = inputs["input_ids"].shape[1]
        try:
            with torch.inference_mode():
                made = model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        except torch.cuda.OutOfMemoryError:
            raise CloraError(
                f"{shown(self.name())} needs more memory than the GPU has left; a smaller `size` needs less"
            ) from None
        if made.shape[1] - length >= self.max_new_tokens:
            raise CloraError(
                f"{shown(self.name())}: its answer breaks off after {self.max_new_tokens} tokens; raise max_new_tokens"
            )
        return self._loaded.words.decode(made[0, length:], skip_special_tokens=True)

    def _inputs(self, asked: Sequence[str | Path], images: Sequence[Any]) -> Mapping[str, torch.Tensor]:
        """What the model reads: in the words, one placeholder for every merged patch of the next picture.

        Qwen's own processor does the same, but cannot be made without torchvision, which its videos need.
        """
        import torch

        loaded = self._loaded
        seen = loaded.pictures(images=list(images), return_tensors="pt")
        counts = iter((seen["image_grid_thw"].prod(-1) // loaded.pictures.merge_size**2).tolist())
        read = [
            _PLAIN.sub(r"<\1>", part)
            if isinstance(part, str)
            else f"<|vision_start|>{PLACE * next(counts)}<|vision_end|>"
            for part in asked
        ]
        inputs = dict(loaded.words(OPENING + "\n".join(read) + CLOSING, return_tensors="pt"))
        if (
            "mm_token_type_ids" in signature(loaded.model.forward).parameters
        ):  # without it pictures lose their positions
            pad = loaded.words.convert_tokens_to_ids(PLACE)
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == pad).to(torch.int32)
        inputs |= {"pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"]}
        return {key: tensor.to(loaded.model.device) for key, tensor in inputs.items()}

    def _model(self) -> Any:
        """The model in memory, loaded at the first question."""
        if self._loaded.model is None:
            import torch
            from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer, __version__

            device = "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"
            dtype_key = "torch_dtype" if int(__version__.split(".")[0]) < 5 else "dtype"
            how = {dtype_key: getattr(torch, self.dtype), "use_safetensors": True, "device_map": {"": device}}
            self._loaded.words = self._part(AutoTokenizer)
            self._loaded.pictures = self._part(AutoImageProcessor)
            self._loaded.model = self._part(AutoModelForImageTextToText, **how).eval()
        return self._loaded.model

    def _part(self, cls: Any, **how: Any) -> Any:
        """A part of the model by a class of transformers; no code that lies beside the weights is run."""
        folder = self._folder
        if folder is None:
            how["revision"] = self.revision
        how |= {"trust_remote_code": False, "local_files_only": folder is not None}
        for problem in () if folder is None else _unreadable(folder):
            raise CloraError(problem)
        try:
            return cls.from_pretrained(self.model if folder is None else folder, **how)
        except Exception as error:  # whatever transformers makes of a folder that anybody may have written
            raise CloraError(f"{shown(self.model)} cannot be loaded: {reason(error)}") from error

    @property
    def _folder(self) -> Path | None:
        """The folder on this disk; None for a Hub id."""
        path = Path(os.path.expanduser(self.model))
        is_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", self.model) is not None
        return None if is_id and not os.path.exists(path) else path


def _unreadable(folder: Path) -> Iterable[str]:
    """The folder's settings that are no bounded JSON map: transformers would read them in any length."""
    for name in SETTINGS:
        if os.path.lexists(folder / name):
            try:
                read_map(folder / name)
            except CloraError as error:
                yield str(error)
