"""A frozen edit model: before it is loaded, what it tells of itself, and in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:
    import torch

    from clora.contracts.loaded_backbone import LoadedBackbone
    from clora.toolkit.memory.settings import NetworkMemory


class Backbone(Protocol):
    """A frozen edit model: where it is, how its weights are named, how to load it."""

    def targets(self) -> tuple[str, ...]:
        """The dotted names of the linears and convolutions that the student trains, a part of `shapes`."""
        ...

    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """(in_features, out_features) of every linear that a teacher may change, by name, without loading weights.

        A `Convolution` for a two-dimensional convolution. `Linears` where files may also have the names of the model's
        original code.
        """
        ...

    def digest(self) -> str:
        """A hash of the weights and whatever else decides the model's output."""
        ...

    def load(self, device: torch.device) -> LoadedBackbone:
        """The model itself, frozen, in evaluation mode, on a device; its parts may come when they are first needed."""
        ...


def trained_shapes(backbone: Backbone) -> dict[str, tuple[int, int]]:
    """(in_features, out_features) of the linears that the student trains."""
    shapes = backbone.shapes()
    return {name: shapes[name] for name in backbone.targets()}


def feature_width(backbone: Backbone) -> int | None:
    """D of the features [R, L, D] that a forward with `depths` gives; None of a backbone that shows none."""
    return backbone.feature_width() if isinstance(backbone, StatesFeatures) else None


@runtime_checkable
class Tokenizes(Protocol):
    """A backbone whose tokenizer answers without any weights, so that triggers are checked as the model reads them."""

    def tokens(self, prompt: str) -> Sequence[int]:
        """The tokens of a prompt's own words, without the template around them."""
        ...


@runtime_checkable
class HasWeightFiles(Protocol):
    """A backbone whose transformer is a folder of safetensors files, so that a LoRA can be merged into a copy."""

    def weight_files(self) -> Path:
        """The folder with config.json and the safetensors files, whose tensors are named `LINEAR.weight`."""
        ...


@runtime_checkable
class HasLocalWeights(Protocol):
    """A backbone that can say where its transformer's weights lie, so that teachers are measured against them."""

    def local_weights(self) -> Path | None:
        """The folder of safetensors files with `LINEAR.weight`; None where it is not on this disk."""
        ...


@frozen
class Footprint:
    """What a backbone takes in memory, in bytes; 0 where it does not tell."""

    weights: int  # of the transformer, on the device
    row: int  # what a row keeps from its forward to its backward pass
    backward: int = 0  # the most that a row's backward pass takes beyond that
    sampling: int = 0  # the most that a row's forward pass without gradient takes
    waiting: int = 0  # of the transformer, in CPU memory
    text: int = 0  # weights of the text encoders
    pictures: int = 0  # weights of the VAE
    flops: int = 0  # arithmetic of a row's forward pass: multiplications and additions, no bytes
    blocks: int = 0  # how many transformer blocks there are, no bytes


@runtime_checkable
class KnowsFootprint(Protocol):
    """A backbone that can tell its footprint without loading weights, so that `clora validate` can add it up."""

    def footprint(self, rank: int, size: tuple[int, int]) -> Footprint:
        """The bytes of the weights as kept, and of a row: a picture of (height, width), a student of a rank."""
        ...


@frozen
class TokenShift:
    """The shift of a few-step schedule, and in a few words what it follows from."""

    shift: float  # s of shift_s(u) = s u / (1 + (s - 1) u)
    reason: str  # such as "1,024 tokens, by the scheduler of MODEL"


@runtime_checkable
class ShiftsByTokens(Protocol):
    """A backbone with a rule for the shift that belongs to its number of tokens (`student: {shift: null}`)."""

    def shift_for(self, size: tuple[int, int] | None) -> TokenShift | None:
        """The shift for pictures of (height, width), from configurations on this disk alone: no weights, no network.

        `size` is None where the dataset states none; None is the answer of a rule that needs it. Raises CloraError
        where a configuration that the rule reads cannot be had.
        """
        ...


@runtime_checkable
class StatesLatents(Protocol):
    """A backbone that knows its latents' channels before it is loaded, so that costs are counted on such latents."""

    def latent_channels(self) -> int:
        """C of the latents [B, C, H, W], from configurations on this disk alone; CloraError where they are not here."""
        ...


@runtime_checkable
class StatesFeatures(Protocol):
    """A backbone whose loaded form `HasFeatures`, and that knows their width before it is loaded."""

    def feature_width(self) -> int:
        """D of the features [R, L, D], from configurations on this disk alone; CloraError where they are not here."""
        ...


@runtime_checkable
class FitsMemory(Protocol):
    """A backbone whose transformer can be kept in fewer bytes by the keys under `memory:`."""

    @property
    def memory(self) -> NetworkMemory:
        """How it is kept."""
        ...


#: (the LoRA's file name, a prompt, steps, shift) -> a graph of nodes, as JSON, that edits a picture with the LoRA
Workflow = Callable[[str, str, int, float], Mapping[str, Any]]


@frozen
class Publication:
    """What an exported LoRA's files must say of its base."""

    base_model: str  # a hub id, or the folder that was trained on
    architecture: str  # ModelSpec's word for the base
    pipeline: str = ""  # the class of diffusers that loads the LoRA; "" where no stock class does
    call: Mapping[str, Any] = field(factory=dict)  # what its call needs beside picture, prompt and steps
    workflows: Mapping[str, Workflow] = field(factory=dict)  # by the name of the tool that carries it out
    #: lines of Python that bring the Pillow picture `source` to the size of its edit, where the pipeline would not
    sizing: Sequence[str] = ()
    call_sizes: Mapping[str, str] = field(factory=dict)  # and what its call then needs, as Python over `source`


@runtime_checkable
class Publishes(Protocol):
    """A backbone that is known to other tools, so that what is trained on it can be described to them."""

    def publication(self) -> Publication:
        """What a LoRA's header and the files beside it need to know; reads configurations alone."""
        ...
