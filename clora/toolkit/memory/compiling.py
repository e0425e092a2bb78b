"""Transformer blocks through torch.compile, in the pieces between their linears.

Which row uses which adapter is Python state that a LoraLinear reads, and a quantised or waiting weight is made where it
is used. Traced, every teacher and every mix of rows would be compiled anew. So the linears run as they are, and only
what lies between them is compiled: norms, modulation, rotary embedding, attention, activations. One piece then serves
every block, adapter, mix of rows, number of rows and of tokens; a lone row and a pass without gradient have their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

BACKEND = "inductor"
#: how many versions of one piece may be made. torch gives up after 8 and runs the piece as it is; of a Qwen-Image block
#: there are up to 16: with gradient or without, one row or several, masked words or none, the first block or a later
VERSIONS = 64


def compile_blocks(blocks: Sequence[nn.Module]) -> None:
    """Compile blocks, each when it first runs; before adapters are put on them or hooks that must stay outside."""
    _prepare()
    for block in blocks:
        # a class, as FSDP does: a compiled forward held by the block itself would keep it alive until Python's
        # garbage collector comes round, and a network that was let go must make room at once
        block.__class__ = _compiled(type(block), BACKEND)


@cache
def _compiled(kind: type[nn.Module], backend: str) -> type[nn.Module]:
    """The kind of block whose forward is compiled; all blocks share what was compiled for one."""
    import torch

    forward = torch.compile(kind.forward, backend=backend, dynamic=True)
    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


@cache
def _prepare() -> None:
    """Keep the linears out of what is compiled, and set what torch.compile takes from its configuration alone."""
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor
    import torch.fx.experimental._config as shapes

    from clora.adapters.feed_forward import LoraFeedForward
    from clora.adapters.lora_conv import LoraConv
    from clora.adapters.lora_linear import LoraLinear
    from clora.toolkit.memory.linear import FrozenLinear

    LoraLinear.forward = _outside(LoraLinear.forward)
    LoraConv.forward = _outside(LoraConv.forward, width=1)
    LoraFeedForward.forward = _outside(LoraFeedForward.forward)
    FrozenLinear.forward = _outside(FrozenLinear.forward)
    limit = "recompile_limit" if hasattr(dynamo, "recompile_limit") else "cache_size_limit"  # an older name
    settings: tuple[tuple[Any, str, object], ...] = (
        (dynamo, limit, max(getattr(dynamo, limit), VERSIONS)),
        # else sizes that happen to be equal, as two rows and two words, are compiled as if they had to be
        (shapes, "use_duck_shape", False),
        # no choice between kernels by the clock: a resumed run's numbers would depend on it
        (inductor, "deterministic", True),
    )
    for config, name, value in settings:
        if hasattr(config, name):  # the last came with a late torch
            setattr(config, name, value)


def _outside(forward: Callable[..., torch.Tensor], width: int = -1) -> Any:
    """A linear's forward that is never traced, and whose output is as wide wherever it is read.

    `width` is the axis of its output that has as many numbers as the module has outputs.
    """
    import torch
    from torch._dynamo import mark_static

    def outside(*args: Any, **kwargs: Any) -> torch.Tensor:
        y = forward(*args, **kwargs)
        mark_static(y, width % y.ndim)  # else the width is a variable too, which takes twice as long to trace
        return y

    return torch.compiler.disable(outside)
