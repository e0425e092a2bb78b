"""The noise levels of a model's own scheduler: what its configuration may say, and what its pipeline makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp
from typing import Any

from clora.contracts.backbone import TokenShift
from clora.diffusion.flow import PAPER_SHIFT, PAPER_TOKENS, Schedule
from clora.errors import CloraError, quoted
from clora.toolkit.config_fields import Fields, Flag, Name, Number, OneOf, Whole
from clora.toolkit.library_errors import library_errors

#: scheduler_config.json of diffusers' FlowMatchEulerDiscreteScheduler
FLOW_MATCH_EULER: Fields = {
    "_class_name": Name(),
    "num_train_timesteps": Whole(1, 100_000),
    "shift": Number(1e-3, 1e3),
    "use_dynamic_shifting": Flag(null=True),
    "base_shift": Number(-20.0, 20.0),
    "max_shift": Number(-20.0, 20.0),
    "base_image_seq_len": Whole(1, 1 << 20),
    "max_image_seq_len": Whole(1, 1 << 20),
    "invert_sigmas": Flag(null=True),
    "shift_terminal": Number(1e-4, 0.999, null=True),
    "use_karras_sigmas": Flag(null=True),
    "use_exponential_sigmas": Flag(null=True),
    "use_beta_sigmas": Flag(null=True),
    "time_shift_type": OneOf(("exponential", "linear")),
    "stochastic_sampling": Flag(null=True),
}
#: what diffusers' pipelines take where the scheduler is silent
_DEFAULTS = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
#: of the shift's logarithm: beyond it every level is 1 or 0
MOST_SHIFT = 50.0


def scheduler_misfits(config: Any) -> list[str]:
    """Fields of a scheduler's configuration that contradict one another, each as one sentence."""
    least, most = (config.get(name, _DEFAULTS[name]) for name in ("base_image_seq_len", "max_image_seq_len"))
    if least >= most:
        return [f"max_image_seq_len is {most}; it must be more than base_image_seq_len, {least}"]
    return []


def shift_by_tokens(config: Mapping[str, Any], tokens: int | None, where: str) -> TokenShift | None:
    """The paper's shift moved from its 4,096 tokens to so many, as a model's own scheduler moves its shift.

    shift(n) = 3 s(n) / s(4096): s = e^mu, or mu itself of a scheduler with `time_shift_type: linear`, and mu a straight
    line through (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift), diffusers' `calculate_shift`.
    Fields that `config` leaves out are the pipelines' own defaults. A scheduler without `use_dynamic_shifting` does not
    follow the tokens: 3. None where `tokens` is, and the scheduler follows them. Raises CloraError, beginning with
    `where`, where no number comes of it.
    """
    if not config.get("use_dynamic_shifting"):
        return TokenShift(PAPER_SHIFT, "the paper's: the model's own scheduler does not follow the number of tokens")
    if tokens is None:
        return None
    least, most, base, top = (config.get(name, default) for name, default in _DEFAULTS.items())
    if least >= most:
        raise CloraError(f"{where}: max_image_seq_len is {most}; it must be more than base_image_seq_len, {least}")
    here, there = (base + (top - base) * (count - least) / (most - least) for count in (tokens, PAPER_TOKENS))
    linear = config.get("time_shift_type") == "linear"
    if max(abs(here), abs(there)) > MOST_SHIFT or (linear and min(here, there) <= 0):
        raise CloraError(
            f"{where}: its shift for {tokens:,} tokens is none (mu is {here:.4g}, at 4,096 tokens {there:.4g})"
        )
    moved = PAPER_SHIFT * (here / there if linear else exp(here - there))
    return TokenShift(moved, f"{tokens:,} tokens: the paper's 3 for 4,096, moved as the model's own scheduler does")


def pipeline_schedule(
    scheduler: Any, calculate_shift: Callable[..., float], steps: int, tokens: int, where: str
) -> Schedule:
    """The levels of a model's own scheduler for pictures of so many tokens, as its pipeline asks for them.

    `calculate_shift` is the pipeline's. Raises CloraError, beginning with `where`, where there are no such levels.
    """
    import numpy as np

    with library_errors(where):
        mu = calculate_shift(tokens, *(scheduler.config.get(name, default) for name, default in _DEFAULTS.items()))
        if not abs(mu) <= MOST_SHIFT:
            raise CloraError(f"{where}: its shift for {tokens:,} tokens is e^{quoted(mu)}; no level is left between")
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps).tolist(), mu=mu)
        levels = scheduler.sigmas[:-1]
        if not bool(levels.isfinite().all()):  # it stretches the levels to a last one, which needs a first
            raise CloraError(f"the model's own scheduler has no levels for {steps} step; give the teacher more of them")
        return Schedule(tuple(levels.tolist()))
