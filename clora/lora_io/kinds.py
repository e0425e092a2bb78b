"""The kinds of adapter that a linear may have in a file, and whether the shapes of one fit together.

| kind | delta, [out, in], before alpha / rank | paper |
|---|---|---|
| lora | B A | Hu et al., arXiv:2106.09685 |
| lokr | w1 kron w2, either of them w_a w_b, w2 also w2_a^T t2 w2_b | Yeh et al., LyCORIS, arXiv:2309.14859 |
| loha | (w1_a w1_b) * (w2_a w2_b) by element, each also w_a^T t w_b | Hyeon-Woo et al., FedPara, arXiv:2108.06098 |

A magnitude m makes any of them DoRA (Liu et al., arXiv:2402.09353): the new weight is m (W + delta) / |W + delta|.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

from attrs import frozen

from clora.contracts.convolution import Kernel2d
from clora.lora_io.header import FLOATS, Header, named
from clora.lora_io.keys import Kind
from clora.lora_io.linears import LinearRows

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
#: what a LoKr, LoHa or DoRA is cut to; a LoRA of this rank on all of Qwen-Image's linears has 1.2 G numbers already
MAX_RANK = 128
#: the most numbers of one factor, and of a linear whose LoKr, LoHa or DoRA is converted: small factors could ask for
#: any amount of memory, and so could a file that is large and empty on the disk
MOST_NUMBERS = 1 << 28


@frozen
class Entry:
    """The tensors' names of one linear's adapter, by part."""

    kind: Kind
    parts: Mapping[str, str]
    shape: tuple[int, int]  # (out, in) of its delta
    rank: int  # what divides alpha; 0 where nothing does: a LoKr of two whole factors
    most: int  # no delta of this entry has a higher rank; min(in, out) for DoRA
    peft: bool = False  # its alpha is in PEFT's adapter_config.json
    said: str | None = None  # the linear's name in the file, where that is the original code's
    rows: LinearRows | None = None  # of B, which the file has for several linears at once
    kernel: Kernel2d = ()  # of a convolution whose A is [r, in, kh, kw] in the file

    @property
    def alpha(self) -> str | None:
        """The alpha tensor's name."""
        return self.parts.get("alpha")

    @property
    def magnitude(self) -> str | None:
        """The name of DoRA's magnitude."""
        return self.parts.get("magnitude")

    @property
    def factor_names(self) -> list[str]:
        """The names of all tensors but alpha."""
        return [name for part, name in self.parts.items() if part != "alpha"]

    def factors(self, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """A [r, in] and B [out, r] of a LoRA among a file's tensors; a convolution's as matrices."""
        a, b = tensors[self.parts["a"]].flatten(1), tensors[self.parts["b"]].flatten(1)
        return a, b if self.rows is None else self.rows.of(b)

    @property
    def plain(self) -> bool:
        """Whether the file's factors are a LoRA as they stand."""
        return self.kind == "lora" and self.magnitude is None


def entry_of(header: Header, kind: Kind, parts: Mapping[str, str], peft: bool) -> Entry:
    """One linear's entry. Raises KeyError where a tensor is missing and ValueError where shapes do not go together."""
    shapes = {part: header.tensors[name].shape for part, name in parts.items()}
    kernel = _kernel(shapes)
    if kernel:
        shapes |= {"a": (shapes["a"][0], prod(shapes["a"][1:])), "b": shapes["b"][:2]}
    (out, inputs), rank, most = {"lora": _lora, "lokr": _lokr, "loha": _loha}[kind](shapes)
    most = min(most, out, inputs)
    if out * inputs > MOST_NUMBERS and (kind != "lora" or "magnitude" in shapes):
        raise ValueError(f"its delta of {inputs} -> {out} is larger than any linear that is known")
    if "magnitude" in shapes:
        most = min(out, inputs)
        given = shapes["magnitude"]
        if given not in ((out,), (out, 1), (1, inputs)):
            raise ValueError(f"its magnitude {list(given)} is neither [{out}], [{out}, 1] nor [1, {inputs}]")
    return Entry(kind, dict(parts), (out, inputs), rank, most, peft, kernel=kernel)


def _kernel(shapes: Mapping[str, Shape]) -> Kernel2d:
    """The kernel of a convolution's LoRA, A [r, in, kh, kw] and B [out, r, 1, 1]; () of a linear's.

    Raises ValueError where one alone is a convolution's, for a kernel in B, and for DoRA of a convolution.
    """
    a, b = shapes.get("a", ()), shapes.get("b", ())
    if len(a) != 4 and len(b) != 4:
        return ()
    if len(a) != 4 or b[2:] != (1, 1) or 0 in a:
        raise ValueError(f"A {list(a)} and B {list(b)} are not [r, in, kh, kw] and [out, r, 1, 1]")
    if "magnitude" in shapes:
        raise ValueError(f"its A {list(a)} belongs to a convolution, of which DoRA is not supported")
    return a[2:]


def faults_of_types(header: Header, parts: Mapping[str, str]) -> Iterator[str]:
    """Factors that are whole numbers or larger than any, and an alpha that is more than one number."""
    for part, name in parts.items():
        tensor = header.tensors[name]
        if part == "alpha":
            if tensor.shape not in ((), (1,)):
                yield f"{named(name)} is not one number but {list(tensor.shape)}"
        elif tensor.dtype not in FLOATS:
            yield f"{named(name)} is {tensor.dtype}; factors must be floating point"
        elif prod(tensor.shape) > MOST_NUMBERS:
            yield f"{named(name)} {list(tensor.shape)} is larger than any factor that is known"


def _lora(shapes: Mapping[str, Shape]) -> tuple[tuple[int, int], int, int]:
    a, b = shapes["a"], shapes["b"]
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or not a[0]:
        raise ValueError(f"A {list(a)} and B {list(b)} are not [r, in] and [out, r]")
    return (b[0], a[1]), a[0], a[0]


def _lokr(shapes: Mapping[str, Shape]) -> tuple[tuple[int, int], int, int]:
    """Both factors' shapes multiply; the decomposed factor's rank, the second's where both are, divides alpha."""
    (out1, in1), rank1 = _factor(shapes, "lokr_w1", None)
    (out2, in2), rank2 = _factor(shapes, "lokr_w2", "lokr_t2")
    most = min(rank1 or out1, out1, in1) * min(rank2 or out2, out2, in2)
    return (out1 * out2, in1 * in2), rank2 or rank1, most


def _loha(shapes: Mapping[str, Shape]) -> tuple[tuple[int, int], int, int]:
    """Both products have the delta's shape; the first one's rank divides alpha."""
    if ("hada_t1" in shapes) != ("hada_t2" in shapes):
        raise KeyError("hada_t1")
    first, rank1 = _factor(shapes, "hada_w1", "hada_t1")
    second, rank2 = _factor(shapes, "hada_w2", "hada_t2")
    if first != second:
        raise ValueError(f"its factors make {list(first)} and {list(second)}, which cannot be multiplied")
    return first, rank1, rank1 * rank2


def _factor(shapes: Mapping[str, Shape], name: str, core: str | None) -> tuple[tuple[int, int], int]:
    """The (out, in) of one factor, and its rank, 0 where it is stored whole. Raises KeyError where a tensor is missing.

    ValueError tells shapes that do not go together, convolutions above all.
    """
    used = {part: shape for part, shape in shapes.items() if part.startswith(name) or part == core}
    for part, shape in used.items():
        if len(shape) == 4:
            raise ValueError(f"{part} {list(shape)} belongs to a convolution; only linears are supported")
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"{part} {list(shape)} is no matrix")
    if name in used:
        if len(used) > 1:
            raise ValueError(f"{name} is stored both whole and decomposed: {', '.join(used)}")
        return (used[name][0], used[name][1]), 0
    a, b = used[f"{name}_a"], used[f"{name}_b"]
    if core in used:
        if used[core] != (a[0], b[0]):
            raise ValueError(
                f"{name}_a {list(a)}, {core} {list(used[core])} and {name}_b {list(b)} cannot be multiplied"
            )
        return (a[1], b[1]), b[0]
    if a[1] != b[0]:
        raise ValueError(f"{name}_a {list(a)} and {name}_b {list(b)} cannot be multiplied")
    return (a[0], b[1]), b[0]
