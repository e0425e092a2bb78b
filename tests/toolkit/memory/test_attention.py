"""Other ways to compute attention: the same numbers, or a word on what is missing before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from clora.toolkit.memory.fit import fit_network
from clora.toolkit.memory.settings import ATTENTION, NetworkMemory


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """diffusers remembers the last backend for models that are made later."""
    before, _ = _AttentionBackendRegistry.get_active_backend()
    yield
    _AttentionBackendRegistry.set_active_backend(before)


def velocity(how: NetworkMemory) -> torch.Tensor:
    torch.manual_seed(0)
    network = QwenImageTransformer2DModel(
        num_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=24, axes_dims_rope=(4, 6, 6)
    )
    fit_network(network, ("transformer_blocks",), how, torch.device("cpu"))
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return network(
            hidden_states=torch.randn(2, 4, 64, generator=random),
            encoder_hidden_states=torch.randn(2, 5, 24, generator=random),
            timestep=torch.tensor([0.3, 0.9]),
            img_shapes=[[(1, 2, 2)]] * 2,
            return_dict=False,
        )[0]


def test_plain_attention_gives_the_same_velocity() -> None:
    usual = velocity(NetworkMemory(weights="fp32"))
    plain = velocity(NetworkMemory(weights="fp32", attention="math"))
    assert _AttentionBackendRegistry.get_active_backend()[0] == AttentionBackendName._NATIVE_MATH
    torch.testing.assert_close(plain, usual, atol=1e-5, rtol=1e-4)


def test_every_word_is_one_of_diffusers_that_runs_no_code_from_the_hub() -> None:
    known = {backend.value for backend in AttentionBackendName}
    assert set(ATTENTION.values()) <= known
    assert not any(name.endswith("_hub") for name in ATTENTION.values())


def test_a_missing_package_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clora.toolkit.memory.settings.find_spec", lambda name: None)
    assert list(NetworkMemory(attention="flash").check(60)) == [
        "memory.attention: flash needs the package flash_attn, which is not installed"
    ]
    assert not list(NetworkMemory(attention="cudnn").check(60))
