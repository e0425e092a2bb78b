"""How a program names the tensors of its LoRA files: what a registered layout reads and, where it can, writes."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

from attrs import field, frozen
from attrs.validators import in_, instance_of

#: a factor of a linear's adapter: of LoRA, of LoKr, of LoHa; what goes with each of them
LoraPart: TypeAlias = Literal[
    "a", "b",  # A [r, in] and B [out, r] of a LoRA, delta = alpha / r B A
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",  # w1 kron w2
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",  # (w1_a w1_b) * (w2_a w2_b)
    "alpha",  # one number, which the rank divides
    "magnitude",  # DoRA's, a number for each output or each input
]  # fmt: skip
PARTS: tuple[LoraPart, ...] = get_args(LoraPart)


@frozen
class TensorName:
    """What the name of a tensor in a LoRA file says. Raises ValueError for a part that there is not."""

    #: the linear's name as it stands there, one letter or more; `transformer.` and other wrappers before it may stay
    linear: str = field(validator=instance_of(str))
    part: LoraPart = field(validator=in_(PARTS))  # which of its tensors it is
    flat: bool = field(default=False, validator=instance_of(bool))  # the linear has underscores where others have dots


class LoraLayout(Protocol):
    """Names tensors in a way of its own. It is made without keys, as no recipe names it: it serves wherever it is.

    It is asked for the names that clora's own layouts do not read, and its answer counts where the linear is one of
    the backbone's. So it changes how no other file is read.
    """

    def understand(self, name: str) -> TensorName | None:
        """What a tensor's name says; None where the name is not of this layout. The same answer each time.

        Names come out of strangers' files: any text of up to 500 visible letters. No two may mean the same tensor.
        """
        ...


@runtime_checkable
class WritesTensorNames(Protocol):
    """A layout that `write_lora` writes too."""

    def tensor_name(self, linear: str, part: LoraPart) -> str | None:
        """The tensor's name of a linear's `a`, `b` or `alpha`, which `understand` reads back; the linear is dotted.

        The strength is in B already. Where there is a name for alpha, alpha is written and equals the rank; None
        leaves it out.
        """
        ...
