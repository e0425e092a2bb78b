"""Adding effects to a finished LoRA: training starts from it, and the old effects are replayed (paper: Table 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

from clora.errors import CloraError, shown
from clora.files.untrusted_json import parse_json
from clora.lora_io.header import LoraFileError, inspect_header
from clora.runs.files.fields import Fields
from clora.runs.run_dir import RunDir, digest_file, digest_of

if TYPE_CHECKING:
    import torch

    from clora.adapters.adapter import Adapter
    from clora.config.schema import Start
    from clora.contracts.values import Prompts
    from clora.training.checkpoint import State


def finished_effects(run: Path) -> Mapping[str, str]:
    """The effects that a run's exported LoRA has, each with the words it answers to.

    Raises CloraError where the run has exported nothing, a file that does not say, or one that has changed since.
    """
    lora = RunDir(run).check_lora()
    text = inspect_header(lora).metadata.get("clora")
    if text is None:
        raise LoraFileError(
            f"{shown(lora)} does not say which effects it has; only what `clora run` exported can be extended"
        )
    where = f"{shown(lora)}: what its header says of effects"
    effects = Fields({"its header": parse_json(text, where)}, where).map("its header").map("effects")
    return effects.map_of(lambda each, name: each.map(name).text("prompt"))


def start_problems(start: Start, prompts: Mapping[str, Prompts]) -> Iterable[str]:
    """What keeps a run with these effects' words from going on from the finished one."""
    try:
        known = finished_effects(start.run)
    except CloraError as error:
        yield str(error)
        return
    lost = [name for name in known if name not in prompts]
    if lost:
        yield f"the effects {', '.join(lost)} are in {start.run}, but no bank of this recipe has them to replay"
    for name, words in known.items():
        if name in prompts and prompts[name].student != words:
            yield f"{name} was trained under {words!r}, not {prompts[name].student!r}; its words must stay"
    if all(name in known for name in prompts):
        yield "nothing is added: every effect of the banks is in the finished LoRA"


def mixed(effects: Sequence[str], known: Iterable[str], replay: float) -> tuple[str, ...]:
    """The effects as a router may draw them evenly, repeated so that `replay` of the draws fall on the known ones."""
    old, new = [name for name in effects if name in known], [name for name in effects if name not in known]
    share = Fraction(replay).limit_denominator(100)
    if not old or not new:
        return tuple(effects)
    if share == 0 or share == 1:
        return tuple(new if share == 0 else old)
    times_old, times_new = len(new) * share.numerator, len(old) * (share.denominator - share.numerator)
    common = gcd(times_old, times_new)
    return tuple(old) * (times_old // common) + tuple(new) * (times_new // common)


def start_digest(start: Start) -> str:
    """A hash of all that training starts from."""
    critic = _critic_file(start.run)
    return digest_of([digest_file(RunDir(start.run).lora), None if critic is None else digest_file(critic)])


def begin(state: State, finished: Adapter, start: Start) -> None:
    """Put a finished LoRA into a fresh student and its average, and the finished run's critic into every critic.

    A student of a higher rank keeps its own draw in the rows beyond; B is zero there, so nothing changes yet.
    Raises LoraFileError where the finished LoRA has more rank than the student.
    """
    student = state.student.adapter
    for module, (a, b, scale) in student.factors.items():
        if module not in finished.factors:
            continue
        old_a, old_b, old_scale = finished.factors[module]
        rank = old_a.shape[0]
        if rank > a.shape[0]:
            raise LoraFileError(f"the finished LoRA has rank {rank} at {module}; give student.rank {rank} or more")
        a.data[:rank] = old_a
        b.data[:, :rank] = old_b * (old_scale / scale)
    if state.average is not None:
        state.average.adapter.flat.copy_(student.flat)
    for name, critic in state.critics.items():
        kept = _critic(start.run, name)
        if kept is not None and kept.shape == critic.adapter.flat.shape:
            critic.adapter.flat.copy_(kept)


def _critic_file(run: Path) -> Path | None:
    """The newest good checkpoint's tensors, where the run has kept one."""
    from clora.training.checkpoint import newest_good

    return newest_good(run / "checkpoints")


def _critic(run: Path, name: str) -> torch.Tensor | None:
    """The finished run's critic of this name, or else its shared one."""
    from safetensors import safe_open

    file = _critic_file(run)
    if file is None:
        return None
    with safe_open(file, framework="pt", device="cpu") as tensors:
        kept = [key for key in (f"{name}.flat", "critic.flat") if key in tensors.keys()]  # noqa: SIM118
        return tensors.get_tensor(kept[0]) if kept else None
