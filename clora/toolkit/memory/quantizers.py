"""Who puts a weight into few bits: our own plain torch, or a package that has to be installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from clora.errors import CloraError
from clora.toolkit.memory.names import Quantizer, Weights

if TYPE_CHECKING:
    from clora.toolkit.memory.precision import Form

#: what each of them has, of the fewest bits last
OFFERED: Mapping[Quantizer, tuple[Weights, ...]] = {
    "own": ("fp32", "bf16", "fp8", "int8", "nf4"),
    "torchao": ("fp8", "int8", "nf4"),
    "bitsandbytes": ("int8", "nf4"),
}
#: the oldest versions whose functions are those that are called here
OLDEST: Mapping[Quantizer, tuple[int, int]] = {"torchao": (0, 18), "bitsandbytes": (0, 46)}


def misfits(weights: Weights, quantizer: Quantizer) -> Iterable[str]:
    """Why a quantizer cannot make such weights here, with what can, each as one sentence."""
    has = OFFERED[quantizer]
    if weights not in has:
        which = " or ".join(other for other, offered in OFFERED.items() if weights in offered)
        yield (
            f"memory.quantizer: {quantizer} makes no {weights} weights; "
            f"write quantizer: {which}, or weights: {' or '.join(has)}"
        )
    oldest = OLDEST.get(quantizer)
    if oldest is None:
        return
    least = ".".join(map(str, oldest))
    try:
        found = version(quantizer)
    except PackageNotFoundError:
        yield f"memory.quantizer: {quantizer} needs the package {quantizer} {least} or newer, which is not installed"
        return
    if _numbers(found) < oldest:
        yield f"memory.quantizer: {quantizer} needs the package {quantizer} {least} or newer, {found} is installed"


def _numbers(found: str) -> tuple[int, ...]:
    """The first two numbers of a version, 0 for what is none."""
    return tuple(int(part) if part.isdecimal() else 0 for part in found.split(".")[:2])


def form_of(weights: Weights, quantizer: Quantizer) -> Form:
    """The form that such weights are kept in. Raises CloraError for what `misfits` tells."""
    for problem in misfits(weights, quantizer):
        raise CloraError(problem)
    if quantizer == "torchao":
        from clora.toolkit.memory.by_torchao import FORMS
    elif quantizer == "bitsandbytes":
        from clora.toolkit.memory.by_bitsandbytes import FORMS
    else:
        from clora.toolkit.memory.precision import FORMS
    return FORMS[weights]
