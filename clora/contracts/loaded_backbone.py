"""An edit model in memory, and the arithmetic of its adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import torch

    from clora.contracts.values import Conditions, TextEmbeddings
    from clora.diffusion.flow import Schedule


class LoadedBackbone(Protocol):
    """An edit model in memory."""

    @property
    def network(self) -> torch.nn.Module:
        """The transformer, frozen: the same object until it is dropped."""
        ...

    def fit(self, picture: torch.Tensor) -> torch.Tensor:
        """A picture [1, 3, H, W] of any size as one that the model edits, [1, 3, h, w]."""
        ...

    def encode_prompts(self, prompts: Sequence[str], images: torch.Tensor) -> TextEmbeddings:
        """Words [B], read together with their source pictures [B, 3, H, W] where the model does so."""
        ...

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] -> latents [B, C, h, w]."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, h, w] -> pictures [B, 3, H, W], clamped to [-1, 1]."""
        ...

    def velocity(self, x_sigma: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """The network's velocity eps - x0 at x_sigma [B, C, h, w], sigma [B]."""
        ...


#: what an edit model is made of: text encoders, the pictures' VAE, the transformer
Part = Literal["text", "pictures", "network"]


@runtime_checkable
class LoadsInParts(Protocol):
    """A loaded backbone too large to be in memory whole: parts are loaded when needed and dropped when told."""

    def keep(self, *parts: Part) -> None:
        """Drop every part that is not named; a dropped part is loaded again when it is next needed."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A loaded backbone whose transformer blocks may be looked at from within a forward."""

    def blocks(self) -> Sequence[torch.nn.Module]:
        """The blocks of the network in the order in which they run."""
        ...

    def features(self, output: Any, x_sigma: torch.Tensor) -> torch.Tensor:
        """The tokens [B, L, D] of the picture being made, from what a block returned for x_sigma [B, C, h, w]."""
        ...


@runtime_checkable
class Guides(Protocol):
    """A loaded backbone with a guidance of its own, such as one that keeps the norm of the conditional velocity."""

    def guide(self, conditional: torch.Tensor, unconditional: torch.Tensor, guidance_scale: float) -> torch.Tensor:
        """The guided velocity [B, C, h, w]."""
        ...


@runtime_checkable
class KnowsSchedule(Protocol):
    """A loaded backbone that knows the noise levels its own pipeline would use (`teacher.shift: null`)."""

    def schedule(self, steps: int, latents: torch.Tensor) -> Schedule:
        """The levels for latents shaped like these, [B, C, h, w]."""
        ...


class LoraKernel(Protocol):
    """The computation of one LoRA linear whose batch rows may use different adapters."""

    def __call__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        segments: Sequence[tuple[int, torch.Tensor | None, torch.Tensor | None, float]],
    ) -> torch.Tensor:
        """x [B, ..., in] -> [B, ..., out].

        `segments` covers the rows in order: (row count, A [r, in] or None, B [out, r] or None, scale).
        """
        ...


#: (weight [out, in], bias [out] or None, segments as a LoraKernel takes them)
LoraOperands: TypeAlias = """tuple[
    torch.Tensor, torch.Tensor | None, Sequence[tuple[int, torch.Tensor | None, torch.Tensor | None, float]]
]"""


@runtime_checkable
class GroupsLinears(Protocol):
    """A kernel that computes several LoRA linears of one input better together than one by one."""

    def group(self, x: torch.Tensor, linears: Sequence[LoraOperands]) -> Sequence[torch.Tensor]:
        """x [B, ..., in] -> [B, ..., out] of every linear; all have the same row counts."""
        ...


@runtime_checkable
class JoinsMlp(Protocol):
    """A kernel that computes two LoRA linears and the activation between them better than one after the other."""

    def mlp(
        self, x: torch.Tensor, up: LoraOperands, down: LoraOperands, activation: Literal["gelu_tanh", "gelu"]
    ) -> torch.Tensor:
        """down(activation(up(x))), x [B, ..., in] -> [B, ..., out]."""
        ...


@runtime_checkable
class Explains(Protocol):
    """A kernel that can say what it will compute with."""

    def explain(self, device: torch.device) -> str:
        """What computes on this device and why, for the run's log: a few words."""
        ...
