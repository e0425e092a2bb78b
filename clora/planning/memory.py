"""Whether a run fits its GPU, said before anything is loaded: its memory by phase and part, and what saves how much.

The numbers are a prediction: sizes of tensors as the run's own code makes them, without what CUDA itself and the
allocator's gaps take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from clora.contracts.backbone import FitsMemory, Footprint, KnowsFootprint, trained_shapes
from clora.errors import CloraError, quoted
from clora.lora_io.check import numbers_held
from clora.lora_io.header import ITEM_BYTES, inspect_header
from clora.planning.optimizers import state_per_weight, works_on_matrices
from clora.toolkit.memory.quantizers import OFFERED
from clora.toolkit.memory.settings import NetworkMemory
from clora.training.critics import own_critics

if TYPE_CHECKING:
    from pathlib import Path

    from clora.planning.plan import Plan

GIB = 2**30
#: the share of a GPU's memory that tensors may fill: the rest is CUDA's own and the allocator's gaps
USABLE = 0.94
#: what `--memory` takes: a thousandth of a gigabyte, for models of a megabyte, to more than any machine has
LEAST_GB, MOST_GB = 0.001, 100_000
LONGEST_CAPACITY = 30
_CAPACITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(?:GB|GiB|G)", re.IGNORECASE | re.ASCII)


@frozen
class Counted:
    """The mean cost of one cycle per row of the batch, and how many rows are in memory at once."""

    forward_equivalents: float  # a forward is 1, with its backward 3
    rows_held: int  # whose activations one update holds
    rows_with_grad: int = 0  # of one pass through the network
    rows_without: int = 0
    #: one cycle asks for so many network evaluations that counting stopped within it: it costs more than this
    cut_short: bool = False


@frozen
class Phase:
    """What is in the device's memory at once in one phase of a run."""

    name: str
    parts: Mapping[str, int]  # bytes

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


@frozen
class Saving:
    """A change of the recipe, with the peak that it leads to once those before it are made too."""

    key: str
    peak: int  # bytes


def phases(plan: Plan, counted: Counted) -> list[Phase]:
    """The phases of a run, each with its parts; empty where the backbone does not tell."""
    recipe = plan.recipe
    if not isinstance(recipe.backbone, KnowsFootprint):
        return []
    footprint = recipe.backbone.footprint(recipe.student.rank, picture_size(plan))
    on_base = {"base": footprint.weights, "teachers": teachers_bytes(plan)}
    made = []
    if footprint.text or footprint.pictures:
        made.append(Phase("encoding", {"text encoders": footprint.text, "VAE": footprint.pictures}))
    rows = recipe.evaluate.batch_size
    sampling = {f"a forward of {rows} rows": footprint.sampling * rows, "VAE": footprint.pictures}
    made.append(Phase("sampling", {**on_base, **sampling}))
    if recipe.losses:
        made += _training(plan, footprint, counted, on_base)
    return [Phase(phase.name, {name: size for name, size in phase.parts.items() if size}) for phase in made]


def _training(plan: Plan, footprint: Footprint, counted: Counted, on_base: Mapping[str, int]) -> Iterator[Phase]:
    adapters = {"adapters in training": trained_bytes(plan)}
    held = footprint.row * counted.rows_held
    with_grad, without = counted.rows_with_grad, counted.rows_without
    if not plan.recipe.train.pack:  # a pass has no more rows than the batch
        with_grad, without = (min(rows, plan.recipe.train.batch_size) for rows in (with_grad, without))
    work = max(footprint.backward * with_grad, footprint.sampling * without)
    activations = {f"activations of {counted.rows_held} rows": held, "working memory": work}
    yield Phase("training", {**on_base, **adapters, **activations})
    largest = max(trained_numbers(plan), critic_numbers(plan))
    own = 0 if plan.recipe.train.offload_optimizer else 4 * largest  # elementwise, such as the root of a moment
    if works_on_matrices(plan.recipe):  # one matrix at a time, in three copies
        own = 3 * 4 * _largest_matrix(plan)
    yield Phase("update", {**on_base, **adapters, "the optimizer's own": own})


def _largest_matrix(plan: Plan) -> int:
    """Numbers of the largest factor in training."""
    critic = plan.recipe.critic
    rank = max(plan.recipe.student.rank, 0 if critic is None or critic.rank is None else critic.rank)
    return rank * max((max(shape) for shape in trained_shapes(plan.recipe.backbone).values()), default=0)


def trained_numbers(plan: Plan) -> int:
    """How many numbers the student has."""
    return plan.recipe.student.rank * _numbers_a_rank(plan)


def critic_numbers(plan: Plan) -> int:
    """How many numbers a critic has, 0 without one."""
    critic = plan.recipe.critic
    return 0 if critic is None else (critic.rank or plan.recipe.student.rank) * _numbers_a_rank(plan)


def _critics(plan: Plan) -> int:
    return 0 if plan.recipe.critic is None else 1 + len(own_critics(plan.recipe.critic))


def _numbers_a_rank(plan: Plan) -> int:
    return sum(inputs + outputs for inputs, outputs in trained_shapes(plan.recipe.backbone).values())


def trained_bytes(plan: Plan) -> int:
    """Bytes of student, critics and moving average in float32; 0 where nothing is trained."""
    recipe = plan.recipe
    student, critic = trained_numbers(plan), critic_numbers(plan) * _critics(plan)
    each = 2 + (0 if recipe.train.offload_optimizer else state_per_weight(recipe))  # weights and gradients, state
    average = student if recipe.student.ema is not None else 0
    return round(4 * (each * (student + critic) + average)) if recipe.losses else 0


def teachers_bytes(plan: Plan) -> int:
    """Bytes of the teachers on the device at once, in their files' own types; a slot is as large as the largest."""
    sizes = [_teacher_bytes(card.lora, plan.recipe.backbone.shapes()) for card in plan.cards]
    slots = plan.recipe.teacher.slots
    return sum(sizes) if slots is None else min(slots, len(sizes)) * max(sizes, default=0)


def _teacher_bytes(lora: Path, shapes: Mapping[str, tuple[int, int]]) -> int:
    """Bytes of the LoRA that a file becomes; the widest of its types holds them all."""
    factors = [tensor for tensor in inspect_header(lora).tensors.values() if len(tensor.shape) > 1]  # alphas have none
    widest = max((ITEM_BYTES[factor.dtype] for factor in factors), default=0)
    return numbers_held(lora, shapes) * widest


def picture_size(plan: Plan) -> tuple[int, int]:
    """(height, width) of the dataset's pictures, read off one of them."""
    dataset = plan.recipe.dataset
    height, width = dataset.images([dataset.general("train")[0].source]).shape[-2:]
    return height, width


def capacity(text: str) -> int:
    """A GPU's memory in bytes, as a person writes it (`24GB`); GB is read as GPUs are sold, 2^30 bytes.

    Raises CloraError for anything else, and outside of LEAST_GB to MOST_GB.
    """
    found = _CAPACITY.fullmatch(text.strip()) if len(text) <= LONGEST_CAPACITY else None
    if found is None:
        raise CloraError(f"--memory: {quoted(text)} is no amount of memory; write it as 24GB")
    if not LEAST_GB <= float(found[1]) <= MOST_GB:
        bounds = f"from {LEAST_GB:g}GB to {MOST_GB}GB"
        raise CloraError(f"--memory: {quoted(text)} is no amount of memory {bounds}; write it as 24GB")
    return round(float(found[1]) * GIB)


def own_capacity() -> int | None:
    """The memory of this machine's GPU in bytes; None where there is none."""
    import torch

    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else None


def savings(plan: Plan, counted: Counted, room: int) -> list[Saving]:
    """Changes that lower the peak, from the cheapest on, each on top of those before, until it fits in `room` bytes."""
    made: list[Saving] = []
    peak = _peak(plan, counted)
    for key, change in _changes(plan):
        if peak <= room:
            break
        changed = change(plan)
        after = _peak(changed, counted)
        if after < peak:
            plan, peak = changed, after
            made.append(Saving(key, peak))
    return made


def _peak(plan: Plan, counted: Counted) -> int:
    return max((phase.total for phase in phases(plan, counted)), default=0)


def _changes(plan: Plan) -> Iterator[tuple[str, Callable[[Plan], Plan]]]:
    """What a person may write, those that leave the result as it is before those that do not."""
    recipe, memory = plan.recipe, plan.recipe.backbone.memory if isinstance(plan.recipe.backbone, FitsMemory) else None
    if memory is not None and not memory.gradient_checkpointing:
        yield "backbone.memory.gradient_checkpointing: true", _memory(gradient_checkpointing=True)
    if recipe.evaluate.batch_size > 1:
        yield "evaluate.batch_size: 1", _section("evaluate", batch_size=1)
    if recipe.losses and recipe.train.pack:
        yield "train.pack: false", _section("train", pack=False)
    least = 2 * recipe.train.batch_size  # this step's teachers and the next one's
    if least < min(recipe.teacher.slots or len(plan.cards), len(plan.cards)):
        yield f"teacher.slots: {least}", _section("teacher", slots=least)
    if recipe.losses and not recipe.train.offload_optimizer and not works_on_matrices(recipe):
        yield "train.offload_optimizer: true", _section("train", offload_optimizer=True)
    if memory is not None:
        smaller = tuple(weights for weights in ("bf16", "fp8", "nf4") if weights in OFFERED[memory.quantizer])
        for weights in smaller[smaller.index(memory.weights) + 1 :] if memory.weights in smaller else smaller:
            yield f"backbone.memory.weights: {weights}", _memory(weights=weights)
        for number in _quarters(_blocks(plan)):
            yield f"backbone.memory.offload_blocks: {number}", _memory(offload_blocks=number)
    for rank in (64, 32, 16):
        if recipe.losses and rank < recipe.student.rank:
            yield f"student.rank: {rank} (a smaller student)", _section("student", rank=rank)


def _quarters(blocks: int) -> list[int]:
    return [number for number in dict.fromkeys(round(blocks * i / 4) for i in (1, 2, 3, 4)) if number]


def _blocks(plan: Plan) -> int:
    backbone = plan.recipe.backbone
    assert isinstance(backbone, KnowsFootprint)
    return backbone.footprint(plan.recipe.student.rank, picture_size(plan)).blocks


def _memory(**keys: object) -> Callable[[Plan], Plan]:
    def changed(plan: Plan) -> Plan:
        backbone = plan.recipe.backbone
        memory: NetworkMemory = evolve(backbone.memory, **keys)
        return evolve(plan, recipe=evolve(plan.recipe, backbone=evolve(backbone, memory=memory)))

    return changed


def _section(name: str, **keys: object) -> Callable[[Plan], Plan]:
    def changed(plan: Plan) -> Plan:
        section = evolve(getattr(plan.recipe, name), **keys)
        return evolve(plan, recipe=evolve(plan.recipe, **{name: section}))

    return changed
