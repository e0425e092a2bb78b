"""The noise levels of a model's own scheduler: what its configuration may say, and what its pipeline makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clora.config_fields import Fields, Flag, Name, Number, OneOf, Whole
from clora.errors import CloraError, quoted
from clora.flow import Schedule
from clora.library_errors import library_errors

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
