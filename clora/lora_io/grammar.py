"""The layouts that clora reads by itself: what a tensor's name says of its linear, its factor and its program.

| layout | name (M is the linear's dotted name) |
|---|---|
| diffusers | transformer.M.lora_A.weight |
| comfyui | diffusion_model.M.lora_A.weight, and M.alpha in some |
| kohya | lora_unet_M-with-underscores.lora_down.weight and .alpha |
| lightx2v | M.lora_down.weight and M.alpha |
| diffsynth | M.lora_A.default.weight, or an adapter's name of one's own; pipe.dit.M in some |
| peft | base_model.model.M.lora_A.weight, alpha in adapter_config.json |
| old diffusers | transformer.M.lora.down.weight |
| lycoris | lycoris_M-with-underscores.lokr_w1, .hada_w1_a and .alpha; LoKr and LoHa stand in the other layouts too |

Before M may stand what a program wraps a model in: model., generator., pipe., dit., module., _orig_mod., ...
A linear may also have its name in the model's original code, such as double_blocks.0.img_attn.qkv: "original names".

DoRA adds one magnitude to a linear: M.dora_scale, M.lora_magnitude_vector[.default][.weight] or M.magnitude.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from attrs import frozen

from clora.contracts.lora_layout import PARTS, LoraPart, TensorName

#: the layouts' names; a registered one takes none of them
BUILT_IN = ("diffusers", "comfyui", "kohya", "lightx2v", "diffsynth", "peft", "old diffusers", "lycoris")
_PREFIXES = (
    "generator.", "pipe.", "dit.", "model.", "module.", "base_model.model.", "transformer.", "diffusion_model.",
)  # fmt: skip
#: what torch.compile, FSDP and checkpointing put into a module's name, wherever they wrapped something
_WRAPPERS = re.compile(r"(?:^|(?<=[._]))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)[._]")
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
_PART = re.compile(
    r"(?P<module>.+)\."
    r"(?:lora_(?P<ab>[AB])(?:\.(?P<adapter>[^.]+))?\.weight"
    r"|lora_(?P<wide>down|up)(?:\.(?P<wide_adapter>[^.]+))?\.weight"
    r"|lora\.(?P<old>down|up)\.weight"
    r"|(?P<lokr>lokr_(?:w[12](?:_[ab])?|t2))"
    r"|(?P<loha>hada_(?:w[12]_[ab]|t[12]))"
    r"|(?P<magnitude>dora_scale|magnitude|lora_magnitude_vector(?:\.(?!weight$)(?P<its_adapter>[^.]+))?(?:\.weight)?)"
    r"|(?P<alpha>alpha))"
)
_FACTORS: Mapping[str, LoraPart] = {"A": "a", "down": "a", "B": "b", "up": "b"}
_BY_NAME: Mapping[str, LoraPart] = {part: part for part in PARTS}
#: adapters that cannot become a LoRA here, and how their tensors are called
_UNSUPPORTED = (
    ("PEFT's LoKr or LoHa", re.compile(r"base_model\.model\..*\.(lokr|hada)_\w+(\.|$)")),
    ("LoKr of a convolution", re.compile(r"\.lokr_t1$")),
    ("OFT", re.compile(r"\.(oft|boft)_\w+(\.|$)")),
    ("GLoRA", re.compile(r"\.[ab][12]\.weight$")),
    ("LoRA with a middle factor", re.compile(r"\.lora_mid\.")),
    ("LoRA with biases", re.compile(r"\.lora_(A|B|down|up)(\.[^.]+)?\.bias$")),
    ("a difference of whole weights", re.compile(r"\.(diff|diff_b|w_norm|b_norm|set_weight|reshape_weight)$")),
)


@frozen
class BuiltInName:
    """A tensor's name in a layout of clora's own."""

    said: TensorName
    before: str  # all of the name that stands before the part
    layout: str  # "" for an alpha or a magnitude, which several layouts write alike
    peft: bool  # its alpha is in PEFT's adapter_config.json
    adapter: str | None  # the adapter's name, where the tensor's name has one


def built_in(name: str) -> BuiltInName | None:
    """What a tensor's name says in one of these layouts, or None."""
    match = _PART.fullmatch(name)
    if match is None:
        return None
    before = match["module"]
    prefix = next((prefix for prefix in _FLAT_PREFIXES if before.startswith(prefix)), "")
    said = TensorName(before.removeprefix(prefix), _part(match), flat=bool(prefix))
    adapter = match["adapter"] or match["wide_adapter"] or match["its_adapter"]
    return BuiltInName(said, before, _layout(before, match), "base_model.model." in before, adapter)


def unsupported(name: str) -> str | None:
    """The kind of adapter a tensor belongs to, where it is one that cannot be read yet."""
    return next((kind for kind, pattern in _UNSUPPORTED if pattern.search(name)), None)


def is_flat(name: str) -> bool:
    """Whether a name has underscores for dots, so that only a list of linears can tell them apart."""
    return name.startswith(_FLAT_PREFIXES)


def unwrapped(name: str) -> str:
    """A linear's name without what wrappers have put into it."""
    return _WRAPPERS.sub("", name)


def stripped(name: str) -> Iterator[str]:
    """A dotted name as it is, then without its first known prefix, and so on."""
    yield name
    if (bare := unwrapped(name)) != name:
        yield (name := bare)
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name[len(prefix) :]
        yield name


def _part(match: re.Match[str]) -> LoraPart:
    """Which tensor of which kind of adapter a name is."""
    if match["alpha"]:
        return "alpha"
    if match["magnitude"]:
        return "magnitude"
    if named := match["lokr"] or match["loha"]:
        return _BY_NAME[named]
    return _FACTORS[match["ab"] or match["wide"] or match["old"]]


def _layout(before: str, match: re.Match[str]) -> str:
    if match["alpha"] or match["magnitude"]:
        return ""
    if before.startswith(_FLAT_PREFIXES):
        return "lycoris" if before.startswith("lycoris_") else "kohya"
    if match["old"]:
        return "old diffusers"
    if "base_model.model." in before:
        return "peft"
    if match["wide"]:
        return "lightx2v"
    if match["adapter"] or before.startswith("pipe."):
        return "diffsynth"
    return "comfyui" if before.startswith("diffusion_model.") else "diffusers"
