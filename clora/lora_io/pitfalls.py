"""Which other programs would run a file at another strength than it was trained at, or leave part of it out: facts."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

#: what a file may be like; `survey` finds out
Trait = Literal[
    "alpha tensors",  # alphas as tensors, some of them not the rank
    "alpha tensors beside lora_A",  # ... in layout "comfyui with alpha"
    "alpha in the header",
    "alpha in adapter_config.json",
    "scaled lycoris",  # a LoKr or LoHa whose scale is not 1
    "dora_scale",
    "unmatched keys",
    "some linears only",
    "attention only",
    "ranks or alphas differ",
]


@frozen
class Pitfall:
    """One program's way with files of a kind: what happens, and where that was seen.

    {dropped} in `what` stands for the strength, in multiples of the right one, at which alpha == rank would run it.
    """

    program: str
    when: frozenset[Trait] = field(converter=frozenset)
    what: str
    source: str


PITFALLS = (
    Pitfall(
        "diffusers up to 0.41",
        {"alpha tensors beside lora_A"},
        "drops the .alpha beside lora_A and lora_B: runs at {dropped}",
        "fixed in 0.42",
    ),
    Pitfall(
        "sglang until January 2026",
        {"alpha tensors"},
        "takes alpha for the rank: runs at {dropped}",
        "sgl-project/sglang#17086",
    ),
    Pitfall("scripts that merge B A", {"alpha tensors"}, "many leave alpha out: {dropped}", "users' reports"),
    Pitfall(
        "ComfyUI",
        {"alpha in the header"},
        "reads alpha from tensors alone, not from the header: runs at {dropped}",
        "comfy/lora.py",
    ),
    Pitfall(
        "whatever gets the file alone",
        {"alpha in adapter_config.json"},
        "alpha is in adapter_config.json beside it: without that, {dropped}",
        "PEFT's layout",
    ),
    Pitfall(
        "LyCORIS 4.1.3, merging",
        {"scaled lycoris"},
        "get_merged_weight multiplies by alpha / rank twice",
        "lycoris/modules/lokr.py, loha.py",
    ),
    Pitfall(
        "diffusers 0.42",
        {"dora_scale"},
        "leaves dora_scale out, with a warning: the LoRA that remains is another change",
        "QwenImageLoraLoaderMixin",
    ),
    Pitfall(
        "diffusers, DiffSynth-Studio",
        {"unmatched keys"},
        "keys that match nothing load as a silent no-op",
        "huggingface/diffusers#9950",
    ),
    Pitfall(
        "CollectionLoRA's code",
        {"some linears only"},
        "the linears that it does not cover keep the previous teacher's weights",
        "its teacher switch",
    ),
    Pitfall("CollectionLoRA's code", {"attention only"}, "refuses it for too few tensors", "its loader"),
    Pitfall(
        "CollectionLoRA's code",
        {"ranks or alphas differ"},
        "takes the first teacher's rank and alpha for all: raises, or scales wrongly",
        "its teacher switch",
    ),
)


def pitfalls(traits: set[Trait]) -> list[Pitfall]:
    """Those that a file of these traits would meet."""
    return [pitfall for pitfall in PITFALLS if pitfall.when <= traits]
