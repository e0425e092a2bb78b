"""A footprint found without numbers, against the bytes that a real network's forward and backward passes keep."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.diffusion.rng import StepRng
from clora.toolkit.memory.fit import fit_network
from clora.toolkit.memory.footprint import Blueprint, network_footprint
from clora.toolkit.memory.measure import LiveBytes
from clora.toolkit.memory.names import Quantizer, Weights
from clora.toolkit.memory.quantizers import OFFERED, OLDEST
from clora.toolkit.memory.settings import NetworkMemory

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

WORDS, SIDE, WIDTH, LAYERS = 40, 12, 64, 5


def build() -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=LAYERS,
        num_attention_heads=4,
        attention_head_dim=16,
        joint_attention_dim=24,
        axes_dims_rope=(4, 6, 6),
    )


def forward(network: nn.Module, device: str = "meta", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = torch.zeros(1, 2 * SIDE * SIDE, 16, device=device, dtype=dtype)
    return network(
        hidden_states=made,
        encoder_hidden_states=torch.zeros(1, WORDS, 24, device=device, dtype=dtype),
        timestep=torch.zeros(1, device=device, dtype=dtype),
        img_shapes=[[(1, SIDE, SIDE)] * 2],
        return_dict=False,
    )[0]


def targets() -> dict[str, tuple[int, int]]:
    with torch.device("meta"):
        parts = build().named_modules()
        return {
            name: (part.in_features, part.out_features)
            for name, part in parts
            if isinstance(part, nn.Linear) and name.startswith("transformer_blocks.")
        }


def blueprint(how: NetworkMemory, rank: int = 8) -> Blueprint:
    return Blueprint(build, partial(forward, dtype=how.dtype), ("transformer_blocks",), how, targets(), rank)


def real(how: NetworkMemory, rank: int = 8) -> AdaptedNetwork:
    torch.manual_seed(0)
    network = fit_network(build().to(how.dtype), ("transformer_blocks",), how, torch.device("cpu"))
    adapted = AdaptedNetwork(network, tuple(targets()))
    adapted.add("student", Adapter.fresh(targets(), rank, rank, StepRng(0)))
    return adapted


def kept(adapted: AdaptedNetwork) -> int:
    """The bytes that autograd itself keeps for a real forward pass, beside weights and adapters."""
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), adapted.rows(["student"]):
        forward(adapted.network, "cpu")
    own = [*adapted.network.parameters(), *adapted.network.buffers(), adapted.adapters["student"].flat]
    mine = {tensor.untyped_storage().data_ptr() for tensor in own}
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in mine)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rank", [4, 32])
def test_what_a_row_keeps_is_what_autograd_keeps(rank: int, checkpointing: bool) -> None:
    how = NetworkMemory("fp32", gradient_checkpointing=checkpointing)
    assert network_footprint(blueprint(how, rank)).row == pytest.approx(kept(real(how, rank)), rel=0.1)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("weights", "quantizer"), [("fp32", "own"), ("nf4", "torchao"), ("nf4", "bitsandbytes")])
def test_the_peaks_are_those_of_a_real_run(weights: Weights, quantizer: Quantizer, checkpointing: bool) -> None:
    if quantizer != "own":
        pytest.importorskip(quantizer)
    how = NetworkMemory(weights, gradient_checkpointing=checkpointing, quantizer=quantizer)
    predicted, adapted = network_footprint(blueprint(how)), real(how)
    with adapted.rows(["student"]):
        with torch.no_grad(), LiveBytes() as live:
            forward(adapted.network, "cpu", how.dtype)
        assert predicted.sampling == pytest.approx(live.peak, rel=0.1)
        with LiveBytes() as live:
            loss = forward(adapted.network, "cpu", how.dtype).sum()
            assert predicted.row == pytest.approx(live.now, rel=0.1)
            loss.backward()
        assert predicted.row + predicted.backward == pytest.approx(live.peak, rel=0.1)


HOW = [NetworkMemory("fp32"), NetworkMemory("bf16", offload_blocks=3), NetworkMemory("fp8")]
for quantizer in OLDEST:
    HOW += [NetworkMemory(weights, quantizer=quantizer) for weights in OFFERED[quantizer]]
    HOW.append(NetworkMemory("nf4", quantizer=quantizer, offload_blocks=3))


@pytest.mark.parametrize("how", HOW)
def test_the_weights_are_those_of_the_network_when_it_is_made(how: NetworkMemory) -> None:
    if how.quantizer != "own":
        pytest.importorskip(how.quantizer)
    predicted = network_footprint(blueprint(how))
    network = fit_network(build().to(how.dtype), ("transformer_blocks",), how, torch.device("cpu"))
    here = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    here += sum(b.numel() * b.element_size() for b in network.buffers())
    frozen = [part for part in network.modules() if getattr(part, "elsewhere", None) is not None]
    if frozen:
        blocks = frozen[0].elsewhere.blocks  # type: ignore[union-attr]
        assert predicted.waiting == sum(map(len, blocks.host)) == 3 * len(blocks.host[0])
        here += 2 * len(blocks.host[0])
    assert predicted.weights == here
    assert predicted.blocks == LAYERS


def test_arithmetic_is_counted_by_hand() -> None:
    pictures, words = 2 * SIDE * SIDE, WORDS
    block = 2 * 12 * WIDTH**2 * (pictures + words) + 2 * 2 * 6 * WIDTH**2  # linears of both streams, modulations
    block += 2 * 2 * (pictures + words) ** 2 * WIDTH  # queries with keys, scores with values
    lora = 2 * 8 * ((4 * 2 + 2 * 5) * WIDTH * (pictures + words) + 2 * 7 * WIDTH)
    around = 2 * (16 * pictures + 24 * words + 256 + WIDTH + 2 * WIDTH + 4 * 4 * pictures) * WIDTH
    assert network_footprint(blueprint(NetworkMemory("fp32"))).flops == LAYERS * (block + lora) + around
