"""The few-step schedule's shift follows the number of tokens as the model's own scheduler does."""

from __future__ import annotations

import pytest
import torch
from clora_flux.backbone import FluxKontext
from clora_flux.loaded import LoadedFlux

from clora.api import ShiftsByTokens


def _odds(loaded: LoadedFlux, height: int, width: int) -> float:
    """By how much the model's own scheduler multiplies the odds of a level: its shift for such pictures."""
    sigma = loaded.schedule(2, torch.empty(1, 16, height // 8, width // 8)).sigmas[1]  # of u = 0.5
    return sigma / (1 - sigma)


@pytest.mark.parametrize("size", [(1024, 1024), (512, 512), (32, 48), (1392, 752), (2048, 2048)])
def test_the_shift_is_three_at_4096_tokens_and_moves_as_the_models_own_levels(
    component: FluxKontext, loaded: LoadedFlux, size: tuple[int, int]
) -> None:
    assert isinstance(component, ShiftsByTokens)
    found = component.shift_for(size)
    assert found is not None
    assert found.shift == pytest.approx(3 * _odds(loaded, *size) / _odds(loaded, 1024, 1024), rel=1e-5)
    assert (found.shift == 3.0) == (size == (1024, 1024))
    assert found.reason.startswith(f"{size[0] * size[1] // 256:,} tokens")
    assert component.shift_for(None) is None
