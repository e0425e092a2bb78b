"""The few-step sampler as a configuration of diffusers' own scheduler, so that nobody needs ours."""

from __future__ import annotations

from typing import Any


def scheduler_config(shift: float) -> dict[str, Any]:
    """FlowMatchEulerDiscreteScheduler's configuration for the levels shift_s(1 - i / steps) with fresh noise.

    Its stochastic step predicts x0 and re-noises it to the next level: the student's sampler. Pipelines give it
    the unshifted levels 1 - i / steps themselves, and it must not shift by the picture's size.
    """
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": shift,
        "shift_terminal": None,
        "stochastic_sampling": True,
        "use_dynamic_shifting": False,
    }
