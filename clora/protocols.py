"""One Protocol for every kind of component: what the training loop calls, with the shapes.

A component is a frozen attrs object made from its YAML keys. Whatever costs time or memory happens in the calls below,
never in the constructor, so that `clora validate` can build every component without loading a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:
    import torch

    from clora.evaluation import Evaluation, Measured
    from clora.flow import Schedule
    from clora.memory.settings import NetworkMemory
    from clora.seeding import Draws
    from clora.values import (
        Asking,
        Conditions,
        EffectCard,
        GeneralItem,
        LossTerm,
        Prompts,
        Route,
        Scene,
        Simulated,
        Split,
        Stream,
        Trajectory,
        Words,
    )


@frozen
class Component:
    """A name that recipes may `use:` and the attrs class behind it; the class's fields are its YAML keys."""

    name: str
    cls: type


@runtime_checkable
class Checked(Protocol):
    """A component that can find mistakes before any model is loaded."""

    def check(self) -> Iterable[str]:
        """Every problem as one sentence that names the file and the offending word; nothing if all is well."""
        ...


@runtime_checkable
class ChecksCards(Protocol):
    """A prompt strategy that can find effects whose words are missing or collide."""

    def check_cards(self, cards: Sequence[EffectCard], tokens: Callable[[str], Sequence[int]] | None) -> Iterable[str]:
        """Every mistake as one sentence that names the effects; `tokens`: the backbone's tokenizer, if it has one."""
        ...


@runtime_checkable
class RequestsCaptions(Protocol):
    """A prompt strategy whose student reads captions, and that knows how to ask for them."""

    def caption_request(self, card: EffectCard, pairs: int) -> str | None:
        """What a captioner is asked beside so many (before, after) pairs; None where captions are turned off."""
        ...


@runtime_checkable
class KeepsCaptions(Protocol):
    """A bank whose captions may lie in a file of their own, which `clora caption` writes."""

    @property
    def captions(self) -> Path | None:
        """The file; None where the recipe names none."""
        ...


@runtime_checkable
class ChecksDataset(Protocol):
    """A backbone or a metric that can find, before anything is trained, that a dataset's pictures do not suit it."""

    def check_dataset(self, dataset: Dataset) -> Iterable[str]:
        """Every reason as one sentence that says what to do instead."""
        ...


class Teachers(Protocol):
    """A bank of effect LoRAs."""

    def cards(self) -> Sequence[EffectCard]:
        """The effects of the bank, in a fixed order; reads the manifest, not the weights."""
        ...


class Router(Protocol):
    """Decides which stream and which teacher every row of a step follows (paper: PDSR)."""

    def route(self, draws: Draws, rows: int, effects: Sequence[str]) -> Route:
        """The route of the step that `draws` stands for; a pure function, so any step can be asked for in advance."""
        ...


class PromptStrategy(Protocol):
    """Decides what the student and the teacher read (paper: AOP)."""

    def effect(self, card: EffectCard) -> Prompts:
        """The words for a row of the effect stream, and for inference with that effect."""
        ...

    def general(self, item: GeneralItem) -> Prompts:
        """The words for a row of the general stream."""
        ...


class SimulationSchedule(Protocol):
    """Brings the student to a state it will meet at inference (paper: backward and target simulation)."""

    def simulate(self, scene: Scene) -> Asking[Simulated]:
        """A generator: yields `scene.forward("student", ...)` in tuples, returns where the student arrived.

        The last forward is asked for with grad=True; the scene drops the gradient in the critic's phase.
        """
        ...

    def check_schedule(self, schedule: Schedule) -> Iterable[str]:
        """Problems with the recipe's few-step schedule, such as bounds that leave no step."""
        ...


@runtime_checkable
class SharesTrajectory(Protocol):
    """A simulation whose rollout can serve a whole cycle while the student does not change."""

    def rollout(self, scene: Scene) -> Asking[Trajectory]:
        """The student's full few-step trajectory without gradient; later `simulate` reads `scene.trajectory`."""
        ...


class Loss(Protocol):
    """A term of the student's or the critic's objective."""

    streams: tuple[Stream, ...]
    weight: float

    def __call__(self, scene: Scene) -> Asking[LossTerm]:
        """A generator over the scene of its own streams' rows: yields forwards or an Await, returns the term."""
        ...


@runtime_checkable
class UsesSimulation(Protocol):
    """A loss that reads the outcome of a simulation, named in the recipe."""

    simulation: str


@runtime_checkable
class UsesCritic(Protocol):
    """A loss that asks the critic, so that the recipe needs a `critic:` section."""

    def needs_critic(self) -> bool:
        """True where this loss will ask for the role `critic`."""
        ...


class Dataset(Protocol):
    """Pictures by name."""

    def sources(self, effect: str, split: Split) -> Sequence[str]:
        """The names of an effect's source pictures."""
        ...

    def general(self, split: Split) -> Sequence[GeneralItem]:
        """Unlabelled pictures with instructions, in a fixed order."""
        ...

    def images(self, names: Sequence[str]) -> torch.Tensor:
        """Those pictures, float32 [B, 3, H, W] in [-1, 1]."""
        ...


@runtime_checkable
class HasPairs(Protocol):
    """A dataset that has examples of what an effect makes of a picture."""

    def pairs(self, effect: str) -> Sequence[tuple[Path, Path]]:
        """(source, target) files of an effect's train pictures that have a target; ValueError for an unknown effect."""
        ...


@runtime_checkable
class Truth(Protocol):
    """A dataset that knows the right answer (an embedded world)."""

    def truth(self, effect: str, names: Sequence[str], images: torch.Tensor | None = None) -> torch.Tensor:
        """What the effect makes of those pictures, [B, 3, H, W] in [-1, 1]; `images` stand in for them (chains)."""
        ...

    def general_truth(self, items: Sequence[GeneralItem]) -> torch.Tensor:
        """What the instructions make of their pictures, [B, 3, H, W] in [-1, 1]."""
        ...


class Backbone(Protocol):
    """A frozen edit model: where it is, how its weights are named, how to load it."""

    def targets(self) -> tuple[str, ...]:
        """The dotted names of the linears that the student trains, a part of `shapes`."""
        ...

    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """(in_features, out_features) of every linear that a teacher may change, by name, without loading weights."""
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


@runtime_checkable
class FitsMemory(Protocol):
    """A backbone whose transformer can be kept in fewer bytes by the keys under `memory:`."""

    @property
    def memory(self) -> NetworkMemory:
        """How it is kept."""
        ...


@runtime_checkable
class Tokenizes(Protocol):
    """A backbone whose tokenizer answers without any weights, so that triggers are checked as the model reads them."""

    def tokens(self, prompt: str) -> Sequence[int]:
        """The tokens of a prompt's own words, without the template around them."""
        ...


#: what an edit model is made of: text encoders, the pictures' VAE, the transformer
Part = Literal["text", "pictures", "network"]


#: (the LoRA's file name, a prompt, steps, shift) -> a ComfyUI workflow in its API format
Workflow = Callable[[str, str, int, float], Mapping[str, Any]]


@frozen
class Publication:
    """What an exported LoRA's card must say of its base."""

    base_model: str  # a hub id, or the folder that was trained on
    architecture: str  # ModelSpec's word for the base
    pipeline: str = ""  # the class of diffusers that loads the LoRA; "" where no stock class does
    call: Mapping[str, Any] = field(factory=dict)  # what its call needs beside picture, prompt and steps
    workflow: Workflow | None = None


@runtime_checkable
class Publishes(Protocol):
    """A backbone that is known to other tools, so that what is trained on it can be described to them."""

    def publication(self) -> Publication:
        """What a model card, ModelSpec and ComfyUI need to know; reads configurations alone."""
        ...


@runtime_checkable
class HasWeightFiles(Protocol):
    """A backbone whose transformer is a folder of safetensors files, so that a LoRA can be merged into a copy."""

    def weight_files(self) -> Path:
        """The folder with config.json and the safetensors files, whose tensors are named `LINEAR.weight`."""
        ...


class LoadedBackbone(Protocol):
    """An edit model in memory."""

    @property
    def network(self) -> torch.nn.Module:
        """The transformer, frozen: the same object until it is dropped."""
        ...

    def fit(self, picture: torch.Tensor) -> torch.Tensor:
        """A picture [1, 3, H, W] of any size as one that the model edits, [1, 3, h, w]."""
        ...

    def encode_prompts(self, prompts: Sequence[str], images: torch.Tensor) -> Words:
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


@runtime_checkable
class LoadsInParts(Protocol):
    """A loaded backbone too large to be in memory whole: parts are loaded when needed and dropped when told."""

    def keep(self, *parts: Part) -> None:
        """Drop every part that is not named; a dropped part is loaded again when it is next needed."""
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


class Captioner(Protocol):
    """Writes an effect's caption from its teacher's prompt and two of its pairs (paper: AOP)."""

    def name(self) -> str:
        """Which model answers, in a few words: a caption is asked for again where this has changed."""
        ...

    def ready(self) -> Iterable[str]:
        """What stands in the way of asking on this machine, such as a key that is not set, one sentence each.

        None of it belongs into `check`, for a run asks no captioner.
        """
        ...

    def caption(self, request: str, pairs: Sequence[tuple[Path, Path]]) -> str:
        """The answer to a request about (before, after) pictures; raises CloraError where there is none."""
        ...


@frozen
class TokensUsed:
    """What a captioner has been asked and has answered, in the tokens of its model."""

    asked: int
    answered: int


@runtime_checkable
class CountsTokens(Protocol):
    """A captioner that knows what its answers have cost."""

    def tokens_used(self) -> TokensUsed:
        """The sums over all answers since it was made."""
        ...


class Metric(Protocol):
    """Turns an evaluation's pictures into numbers."""

    def measure(self, evaluation: Evaluation) -> Measured:
        """The evaluation's numbers, with the direction in which each is better."""
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


@runtime_checkable
class Explains(Protocol):
    """A kernel that can say what it will compute with."""

    def explain(self, device: torch.device) -> str:
        """What computes on this device and why, for the run's log: a few words."""
        ...


@frozen
class RunInfo:
    """What a lifecycle hook is told of a run."""

    name: str
    folder: Path
    digest: str
    steps: int
