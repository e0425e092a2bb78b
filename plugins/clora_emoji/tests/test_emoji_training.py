"""What the two training scripts share, and the LoRA files they leave behind."""

from __future__ import annotations

import json

import pytest
import torch
from clora_emoji import atlas, codec, lora_file, network, train_base
from clora_emoji.matching import Examples, Noise, flow_matching_loss
from peft import LoraConfig, inject_adapter_in_model
from safetensors import safe_open


@pytest.fixture
def adapted() -> torch.nn.Module:
    config = LoraConfig(r=8, lora_alpha=8, target_modules=list(lora_file.TARGETS))
    return inject_adapter_in_model(config, network.build())


def test_a_teacher_file_is_as_diffusers_writes_it(adapted, tmp_path):
    path = tmp_path / "one.safetensors"
    lora_file.write(adapted, path, rank=8, alpha=8)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["lora_adapter_metadata"])
        names = set(file.keys())
        tensor = file.get_tensor("transformer.transformer_blocks.5.attn.to_out.0.lora_A.weight")
    assert header["transformer.r"] == header["transformer.lora_alpha"] == 8
    assert names == {
        f"transformer.transformer_blocks.{block}.{target}.lora_{side}.weight"
        for block in range(6)
        for target in lora_file.TARGETS
        for side in "AB"
    }
    assert tensor.dtype == torch.bfloat16
    assert tensor.shape == (8, 128)
    assert path.stat().st_size < 700_000
    assert [p.name for p in tmp_path.iterdir()] == ["one.safetensors"]


def test_noise_levels_lie_between_picture_and_noise_and_lean_to_noise():
    uniform = Noise(3.0, 0.0).draw(4000, torch.Generator().manual_seed(0))
    shifted = Noise(3.0, 1.0).draw(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifted, 3 * uniform / (1 + 2 * uniform))
    assert shifted.min() >= 0
    assert shifted.max() < 1


def test_the_loss_is_zero_for_the_true_velocity():
    pixels = atlas.picture("noto", atlas.select("test")[:2])
    latents = codec.to_latents(pixels)
    eps = torch.zeros_like(latents)

    class Oracle(torch.nn.Module):
        """Knows the target, so it can solve x_sigma = (1 - sigma) * x0 + sigma * eps for eps - x0."""

        def forward(self, hidden_states, timestep, **_):
            x_sigma = hidden_states[:, :64, :48].transpose(1, 2).reshape(latents.shape)
            v = (x_sigma - latents) / timestep.view(-1, 1, 1, 1)
            tokens = v.flatten(2).transpose(1, 2)
            return (torch.cat([tokens, tokens], dim=1),)

    examples = Examples(eps, latents, ("make it grayscale", ""))
    loss = flow_matching_loss(Oracle(), examples, Noise(3.0, 1.0), 6, torch.Generator().manual_seed(1))
    assert loss < 1e-6


def test_base_examples_follow_from_the_seed_alone():
    recipe = train_base.read_recipe()
    pool = atlas.picture("noto", atlas.select("train")[:40])
    one, two = (train_base.draw_examples(recipe, pool, torch.Generator().manual_seed(5)) for _ in range(2))
    assert one.prompts == two.prompts
    assert torch.equal(one.source, two.source)
    assert torch.equal(one.target, two.target)
    assert one.source.shape == (recipe.batch, 48, 8, 8)
    assert one.target.abs().max() <= 1


def test_the_rates_warm_up_stay_and_fall():
    recipe = train_base.read_recipe()
    steps = (0, recipe.warmup, recipe.steps // 2 - 1, recipe.steps - 1, recipe.steps)
    shares = [train_base.course(recipe, step) for step in steps]
    assert shares[0] == pytest.approx(1 / recipe.warmup)
    assert shares[1] == shares[2] == 1.0
    assert 0 < shares[3] < 0.001
    assert shares[4] == 0.0


def test_every_parameter_has_one_optimiser_and_the_blocks_matrices_have_muon():
    recipe = train_base.read_recipe()
    model = network.build()
    muon, adam = (
        {id(p) for group in optimiser.param_groups for p in group["params"]}
        for optimiser in train_base.make_optimisers(model, recipe)
    )
    assert not muon & adam
    assert muon | adam == {id(p) for p in model.parameters()}
    blocks = {id(p) for p in model.transformer_blocks.parameters() if p.ndim == 2}
    assert muon == blocks
