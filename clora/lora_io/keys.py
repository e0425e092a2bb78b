"""What a tensor's name in a LoRA file says: which linear, which factor, which program's layout.

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
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from attrs import Factory, field, frozen

from clora.lora_io.linears import originals_of

Kind = Literal["lora", "lokr", "loha"]

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
_PARTS = {"A": "a", "down": "a", "B": "b", "up": "b"}
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
class Key:
    """A tensor's name, understood."""

    module: str  # the backbone's linear, or an original one that stands for several
    part: str  # a, b, lokr_w1, hada_t2, ..., alpha or magnitude
    kind: Kind | None  # None for alpha and magnitude, which go with any
    layout: str
    peft: bool  # its alpha is in PEFT's adapter_config.json
    adapter: str | None = None  # the adapter's name, where the tensor's name has one


def _flattened(shapes: Mapping[str, tuple[int, int]] | None) -> dict[str, str | None]:
    """{name with underscores: dotted name}; None where two linears share a flat name and neither can be meant."""
    flat: dict[str, str | None] = {}
    for module in (*(shapes or ()), *originals_of(shapes)):
        name = module.replace(".", "_")
        flat[name] = None if name in flat else module
    return flat


@frozen
class Names:
    """The linears that names in a file may mean; None takes every dotted name as it stands."""

    shapes: Mapping[str, tuple[int, int]] | None
    guess: Callable[[str], str] | None = None  # a flat name -> a dotted one, where there are no shapes
    flat: Mapping[str, str | None] = field(
        init=False, default=Factory(lambda self: _flattened(self.shapes), takes_self=True)
    )

    def understand(self, key: str) -> Key | None:
        """What a tensor's name means, or None where it names no linear here."""
        match = _PART.fullmatch(key)
        if match is None:
            return None
        said = match["module"]
        module = self._module(said)
        if module is None:
            return None
        part, kind = _part(match)
        layout = _layout(said, kind, match)
        if layout == "diffusers" and module in originals_of(self.shapes):
            layout = "original names"
        adapter = match["adapter"] or match["wide_adapter"] or match["its_adapter"]
        return Key(module, part, kind, layout, "base_model.model." in said, adapter)

    def leftover(self, key: str) -> tuple[str, str] | None:
        """(what stands before it, linear) where a name ends like a known linear's; None where it does not.

        A block's number in what stands before makes it the name of another model's linear.
        """
        match = _PART.fullmatch(key)
        if match is None or self.shapes is None:
            return None
        said = match["module"]
        known = {**dict.fromkeys(self.shapes), **dict.fromkeys(originals_of(self.shapes))}
        flat = {name: module for name, module in self.flat.items() if module is not None and "." in module}
        for at in range(1, len(said)):
            if said[at - 1] in "._" and not re.search(r"\d", said[:at]):
                linear = said[at:] if said[at:] in known and said[at - 1] == "." else flat.get(said[at:])
                if linear is not None:
                    return said[:at], linear
        return None

    def _module(self, said: str) -> str | None:
        for prefix in _FLAT_PREFIXES:
            if said.startswith(prefix):
                name = _WRAPPERS.sub("", said[len(prefix) :])
                return self.guess(name) if self.shapes is None and self.guess else self.flat.get(name)
        stripped = list(_stripped(said))
        if self.shapes is None:
            return stripped[-1]
        originals = originals_of(self.shapes)
        return next((name for name in stripped if name in self.shapes or name in originals), None)


def is_flat(key: str) -> bool:
    """Whether a name has underscores for dots, so that only a list of linears can tell them apart."""
    return key.startswith(_FLAT_PREFIXES)


def unsupported(key: str) -> str | None:
    """The kind of adapter a tensor belongs to, where it is one that cannot be read yet."""
    return next((kind for kind, pattern in _UNSUPPORTED if pattern.search(key)), None)


def _stripped(name: str) -> Iterator[str]:
    """The name as it is, then without its first known prefix, and so on."""
    yield name
    if (bare := _WRAPPERS.sub("", name)) != name:
        yield (name := bare)
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name[len(prefix) :]
        yield name


def _part(match: re.Match[str]) -> tuple[str, Kind | None]:
    """Which tensor of which kind of adapter a name is."""
    if match["alpha"]:
        return "alpha", None
    if match["magnitude"]:
        return "magnitude", None
    if match["lokr"]:
        return match["lokr"], "lokr"
    if match["loha"]:
        return match["loha"], "loha"
    return _PARTS[match["ab"] or match["wide"] or match["old"]], "lora"


def _layout(said: str, kind: Kind | None, match: re.Match[str]) -> str:
    """The layout's name, "" for an alpha or a magnitude, which several layouts write alike."""
    if kind is None:
        return ""
    if said.startswith(_FLAT_PREFIXES):
        return "lycoris" if said.startswith("lycoris_") else "kohya"
    if match["old"]:
        return "old diffusers"
    if "base_model.model." in said:
        return "peft"
    if match["wide"]:
        return "lightx2v"
    if match["adapter"] or said.startswith("pipe."):
        return "diffsynth"
    return "comfyui" if said.startswith("diffusion_model.") else "diffusers"
