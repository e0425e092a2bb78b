"""The YAML keys by which a backbone's transformer is made to fit a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from clora.contracts.bounds import between
from clora.toolkit.memory.compilers import missing
from clora.toolkit.memory.names import Quantizer, Weights
from clora.toolkit.memory.quantizers import misfits

if TYPE_CHECKING:
    import torch

Attention = Literal["sdpa", "cudnn", "efficient", "math", "flash", "flash_3", "xformers"]
#: diffusers' names of them; those that fetch kernels from the Hub are left out, for that would run code from there
ATTENTION = {
    "sdpa": "native", "cudnn": "_native_cudnn", "efficient": "_native_efficient", "math": "_native_math",
    "flash": "flash", "flash_3": "_flash_3", "xformers": "xformers",
}  # fmt: skip
#: the package that an attention comes from, where it is not torch itself
PACKAGES = {"flash": "flash_attn", "flash_3": "flash_attn_interface", "xformers": "xformers"}


@frozen
class NetworkMemory:
    """YAML: `memory: {weights: fp8, gradient_checkpointing: true, offload_blocks: 20}` in a backbone's section."""

    weights: Weights = "bf16"  # what the base's linears are kept in
    #: keep only every block's input for the backward pass and compute the block again there: a third more compute
    gradient_checkpointing: bool = False
    #: how many transformer blocks wait in CPU memory and are copied to the GPU just before they run; 0 to 1000, and
    #: no more than the network has
    offload_blocks: int = field(default=0, validator=between(0, 1000))
    #: how attention is computed; flash and flash_3 take no mask: the rows of a pass must have texts of one length
    attention: Attention = "sdpa"
    #: who makes fp8, int8 or nf4; never chosen by what is installed, for the same recipe must give the same weights
    quantizer: Quantizer = "own"
    #: compile what lies between the linears of a block; other last bits, and minutes of compiling when a run starts
    compile: bool = False

    @property
    def precision(self) -> str:
        """What of these keys changes the network's output, for a backbone's digest."""
        return self.weights if self.quantizer == "own" else f"{self.weights} by {self.quantizer}"

    @property
    def dtype(self) -> torch.dtype:
        """The type to load the network in, which is that of its arithmetic and of whatever is not quantised."""
        import torch

        return torch.float32 if self.weights == "fp32" else torch.bfloat16

    def check(self, blocks: int) -> Iterable[str]:
        """Problems of these keys for a network of so many blocks, each as one sentence."""
        yield from misfits(self.weights, self.quantizer)
        package = PACKAGES.get(self.attention)
        if package is not None and find_spec(package) is None:
            yield f"memory.attention: {self.attention} needs the package {package}, which is not installed"
        if self.compile:
            import torch

            yield from missing(torch.cuda.is_available())
        if self.offload_blocks > blocks:
            yield f"memory.offload_blocks: the network has {blocks} blocks, {self.offload_blocks} cannot wait elsewhere"
