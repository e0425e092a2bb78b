"""What the kernel benchmark computes: shapes of real models, and the floor that arithmetic alone sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from attrs import field, frozen

#: linears of a group: q, k and v
GROUP = 3


@frozen
class Case:
    """One LoRA linear in one setting; three adapters take parts of the batch in turn.

    Or a `group` of three such linears with one input, or an `mlp`, such a linear and one back with a GELU between: both
    have the same arithmetic beside the frozen one's.
    """

    shape: str
    inputs: int
    outputs: int
    rows: int  # feature vectors in all
    rank: int
    adapters: int
    dtype: torch.dtype = field(default=torch.float32)
    batch: int = field(default=8)  # rows of the first axis, along which adapters change
    kind: Literal["linear", "group", "mlp"] = field(default="linear")

    @property
    def answer(self) -> tuple[int, ...]:
        """The shape of the output; a group has one of its linears' outputs behind the other."""
        each = (self.batch, self.rows // self.batch)
        if self.kind == "group":
            return (GROUP, *each, self.outputs)
        return (*each, self.inputs if self.kind == "mlp" else self.outputs)

    def flop_limit(self, which: str) -> float:
        """FLOPs over those of the frozen linear, whose backward is dx alone: what no kernel can go below.

        The forward takes the factors to every row, or the factors into the weight once where nothing is rounded away by
        that. The backward has dy B, dB, dA and one more product of their size, for dx or for x A^T; or, beside a merged
        weight, dW = dy^T x and from it dA and dB.
        """
        beside = self.rank * (self.inputs + self.outputs) / (self.inputs * self.outputs)
        once = self.rank / self.rows
        merges = self.dtype == torch.float32 and self.adapters == 1
        forward = 1 + (min(beside, once) if merges else beside)
        backward = 1 + (min(2 * beside, 1 + 2 * once) if merges else 2 * beside)
        return {"forward": forward, "backward": backward, "both": (forward + backward) / 2}[which]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from the others, as a table has it: shape, rows, rank, adapters."""
        return self.shape, str(self.rows), str(self.rank), str(self.adapters)

    @property
    def compiles(self) -> bool:
        """Whether PEFT's layer is compiled too: on a CPU that takes longer than all else, so for one case a shape."""
        return self.dtype != torch.float32 or (self.adapters == 1 and self.rank < 128 and self.rows != 384)

    @property
    def names(self) -> list[str]:
        """The adapter of every row of the batch: contiguous parts, as equal as they get."""
        return [f"adapter{index * self.adapters // self.batch}" for index in range(self.batch)]

    @property
    def parts(self) -> list[int]:
        """How many rows of the batch each adapter has."""
        return [self.names.count(f"adapter{index}") for index in range(self.adapters)]


#: Qwen-Image's attention projections and MLP (hidden size 3072)
QWEN = {"attention": (3072, 3072), "up": (3072, 12288), "down": (12288, 3072)}
#: the emoji model's (hidden size 128), and a Qwen-Image block at a quarter of its width
SMALL = {
    **{
        f"emoji {name}": sizes
        for name, sizes in {"attention": (128, 128), "up": (128, 512), "down": (512, 128)}.items()
    },
    **{f"quarter {name}": (inputs // 4, outputs // 4) for name, (inputs, outputs) in QWEN.items()},
}


def cases(device: str) -> Iterator[Case]:
    """Everything that is measured on a device."""
    if device == "cpu":
        for shape, (inputs, outputs) in SMALL.items():
            emoji = shape.startswith("emoji")  # twelve pictures of 128 tokens, and their prompts of 32
            settings = [(1536, 16, 1), (1536, 16, 3), (384, 16, 1), (384, 16, 3), (1536, 128, 1)]
            for rows, rank, adapters in settings if emoji else [(512, 32, 1), (512, 32, 3)]:
                yield Case(shape, inputs, outputs, rows, rank, adapters, batch=12 if emoji else 8)
        for adapters in (1, 3):
            yield from _together("emoji", 128, 1536, 16, adapters, batch=12)
        yield from _together("quarter", 768, 512, 32, 3)
        return
    for shape, (inputs, outputs) in QWEN.items():
        for rank in (16, 64, 128, 256):
            for rows in (1024, 2048, 4096, 8192, 16384):
                for adapters in (1, 3):
                    yield Case(shape, inputs, outputs, rows, rank, adapters, torch.bfloat16)
    for rows in (4096, 8192):
        for adapters in (1, 3):
            yield from _together("Qwen-Image", 3072, rows, 128, adapters, torch.bfloat16)


def _together(
    model: str, width: int, rows: int, rank: int, adapters: int, dtype: torch.dtype = torch.float32, batch: int = 8
) -> Iterator[Case]:
    """q, k and v of one input, and the MLP, of a model of that width."""
    yield Case(f"{model} qkv", width, width, rows, rank, adapters, dtype, batch, "group")
    yield Case(f"{model} MLP", width, 4 * width, rows, rank, adapters, dtype, batch, "mlp")
