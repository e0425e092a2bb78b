"""LoRA files of FLUX as others write them fit the backbone's linears."""

from __future__ import annotations

from pathlib import Path

import torch
from clora_flux.backbone import FluxKontext
from diffusers import FluxKontextPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from clora.lora_io.check import check_lora
from clora.lora_io.reader import LoraDelta, read_lora
from clora.lora_io.writer import write_lora

#: what diffusers' own training script for Kontext trains unless told otherwise
TRAINED = (
    "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj",
    "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp",
)  # fmt: skip


def test_a_file_that_diffusers_saves_is_read_whole(component: FluxKontext, tmp_path: Path) -> None:
    transformer = component.load(torch.device("cpu")).network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=list(TRAINED)))
    FluxKontextPipeline.save_lora_weights(tmp_path, get_peft_model_state_dict(transformer))
    file = tmp_path / "pytorch_lora_weights.safetensors"
    assert check_lora(file, component.shapes()) == []
    read = read_lora(file, component.shapes())
    assert set(read.deltas) == {name for name in component.targets() if name.endswith(TRAINED)}
    wrapped = transformer.get_submodule("single_transformer_blocks.1.attn.to_v")
    delta = read.deltas["single_transformer_blocks.1.attn.to_v"].weight()
    torch.testing.assert_close(delta, wrapped.get_delta_weight("default"))


def test_a_file_on_every_linear_is_read_and_serves_in_the_stock_pipeline(
    component: FluxKontext, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    deltas = {
        name: LoraDelta(torch.randn(2, ins, generator=generator), torch.randn(outs, 2, generator=generator), 0.5)
        for name, (ins, outs) in component.shapes().items()
    }
    file = tmp_path / "ours.safetensors"
    write_lora(file, deltas)
    assert set(read_lora(file, component.shapes()).deltas) == set(component.shapes())
    stock = FluxKontextPipeline.from_pretrained(component.model)
    stock.load_lora_weights(file)
    for name, delta in deltas.items():
        served = stock.transformer.get_submodule(name).get_delta_weight("default_0")
        torch.testing.assert_close(served, delta.weight(), atol=1e-5, rtol=1e-5)


def test_a_key_of_another_family_is_told_with_the_nearest_linear(component: FluxKontext, tmp_path: Path) -> None:
    file = tmp_path / "qwen.safetensors"
    tensors = {
        "transformer.transformer_blocks.0.img_mlp.net.2.lora_A.weight": torch.zeros(2, 128),
        "transformer.transformer_blocks.0.img_mlp.net.2.lora_B.weight": torch.zeros(32, 2),
    }
    save_file(tensors, file)
    (problem,) = check_lora(file, component.shapes())
    assert "img_mlp" in problem
    assert "transformer_blocks.0.ff.net.2" in problem
