"""What the keys of a list mean: our names, and those of lists that people have from other trainers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from clora.api import quoted
from clora_pictures.problems import Problems, near

Stream = Literal["effects", "general"]

#: DiffSynth-Studio's names of the source (Qwen-Image-Edit, Flux Kontext); beside them `image` is the target
_WITH_IMAGE = ("edit_image", "kontext_images")
#: what a line may say -> the keys that say it: ours first, then musubi-tuner's, DiffSynth-Studio's, and those of edit
#: datasets on the Hugging Face Hub. `image` and `file_name` depend on the other keys of their line (`_image`).
MEANINGS: Mapping[str, tuple[str, ...]] = {
    "source": ("source", "control_path", "control_path_0", *_WITH_IMAGE, "original_image", "input_image"),
    "target": ("target", "image_path", "edited_image", "output_image"),
    "instruction": ("instruction", "caption", "prompt", "edit_prompt", "text"),
    "effect": ("effect",),
    "split": ("split",),
}
#: what a line of a stream may say
SAYS: Mapping[Stream, tuple[str, ...]] = {
    "effects": ("source", "effect", "target", "instruction", "split"),
    "general": ("source", "instruction", "target", "split"),
}
PICTURES = ("source", "target")
_MEANING = {key: meaning for meaning, keys in MEANINGS.items() for key in keys}
_SEVERAL = re.compile(r"control_path_[1-9]\d*")
_SUFFIX = "_file_name"  # Hugging Face's imagefolder: a column of this ending holds pictures


def understood(
    line: int, value: Mapping[str, Any], stream: Stream, lenient: bool, problems: Problems
) -> dict[str, tuple[str, Any]]:
    """What a line says -> (its key, its value); unknown keys, contradictions and ambiguities are noted in `problems`.

    `lenient` leaves unknown keys alone, for lists that other programs read too.
    """
    said: dict[str, tuple[str, Any]] = {}
    for key, item in value.items():
        meaning = _image(line, key, value, problems) if key in ("image", "file_name") else _meaning(key)
        if _SEVERAL.fullmatch(key):
            problems.at(line, f"{quoted(key)} is one more source; a line has one")
        elif meaning not in SAYS[stream]:
            if not lenient:
                advice = "" if problems.advised else _advice(key, stream)
                problems.at(line, f"unknown key {quoted(key)}{advice}")
        elif meaning in said:
            problems.at(line, f"{said[meaning][0]!r} and {quoted(key)} both name the {meaning}; give one of them")
        else:
            said[meaning] = (key, item)
    return said


def missing(meaning: str, said: Mapping[str, tuple[str, Any]], value: Mapping[str, Any], lenient: bool) -> str:
    """The sentence about something that a line must say and does not."""
    sentence = f"{meaning!r} is missing"
    if meaning == "source" and said.get("target", ("",))[0] == "image_path":
        return f"{sentence}; 'image_path' is the target (musubi-tuner), its source is 'control_path'"
    return sentence + (f"; the line has {', '.join(quoted(key, 40) for key in list(value)[:10])}" if lenient else "")


def _meaning(key: str) -> str | None:
    meaning = _MEANING.get(key)
    if meaning is None and key.endswith(_SUFFIX):
        meaning = _MEANING.get(key.removesuffix(_SUFFIX))
        return meaning if meaning in PICTURES else None
    return meaning


def _image(line: int, key: str, value: Mapping[str, Any], problems: Problems) -> str:
    """Whether `image` or `file_name` is the source or the target of its line."""
    others = {_meaning(other) for other in value}
    if key == "file_name":
        return "target" if "source" in others and "target" not in others else "source"
    if any(other in value for other in _WITH_IMAGE):
        return "target"
    if "prompt" in value and not others & {"source", "target"}:
        problems.at(
            line,
            "'image' beside 'prompt' is the source in our lists and the target in DiffSynth-Studio's; write 'source', "
            "or give its source as 'edit_image'",
        )
    return "source"


def _advice(key: str, stream: Stream) -> str:
    known: Sequence[str] = SAYS[stream]
    names = [name for meaning in known for name in MEANINGS[meaning]] + ["image"]
    return near(key, known) or near(key, names) or f"; known: {', '.join(known)}"
