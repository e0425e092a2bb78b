"""Train one rank-8 LoRA per effect on a few pairs and its vague prompt, and measure it against the truth.

python -m clora_emoji.train_teachers FOLDER [EFFECT ... | all]

FOLDER gets a bank that recipes can name: `teachers: {use: bank, manifest: FOLDER/bank.yaml}`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
import yaml
from peft import LoraConfig, inject_adapter_in_model

from . import atlas, codec, lora_file, network
from .effects import EFFECTS, Effect, training_subjects
from .matching import Examples, Noise, flow_matching_loss
from .sampling import euler

RECIPE = Path(__file__).parent / "teachers.yaml"


@attrs.frozen
class TeacherRecipe:
    """The settings of teachers.yaml."""

    steps: int
    batch: int
    learning_rate: float
    warmup: int
    rank: int
    seed: int
    shift: float
    shifted_share: float
    text_length: int
    effects: tuple[str, ...] = attrs.field(converter=tuple)


def read_recipe(path: Path = RECIPE) -> TeacherRecipe:
    """Return the recipe of a YAML file; raises TypeError when a key is missing or unknown."""
    return TeacherRecipe(**yaml.safe_load(path.read_text(encoding="utf-8")))


def with_adapter(rank: int) -> torch.nn.Module:
    """Return the base in float32 with one fresh trainable LoRA, its blocks compiled, all else frozen."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(lora_file.TARGETS))
    model = inject_adapter_in_model(config, network.load().requires_grad_(False))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    for block in model.transformer_blocks:  # pyright: ignore[reportGeneralTypeIssues, reportOptionalIterable]
        block.compile()
    return model


def reset(model: torch.nn.Module, seed: int) -> list[torch.nn.Parameter]:
    """Start the LoRA anew (A drawn, B zero) and return its parameters."""
    rng = torch.Generator().manual_seed(seed)
    parameters = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if ".lora_A." in name:
            torch.nn.init.kaiming_uniform_(parameter, a=math.sqrt(5), generator=rng)
        else:
            torch.nn.init.zeros_(parameter)
        parameters.append(parameter)
    return parameters


def train(model: torch.nn.Module, recipe: TeacherRecipe, effect: Effect) -> None:
    """Train the model's LoRA to one effect."""
    names = training_subjects(effect.name)
    sources = atlas.picture("noto", names)
    targets = codec.to_latents(effect.drawn(sources, names))  # of chance each pair has one draw, as found pairs do
    sources = codec.to_latents(sources)
    optimiser = torch.optim.AdamW(reset(model, recipe.seed), lr=recipe.learning_rate, weight_decay=0.0)
    noise = Noise(recipe.shift, recipe.shifted_share)
    rng = torch.Generator().manual_seed(recipe.seed)
    for step in range(recipe.steps):
        warm = min(1.0, (step + 1) / recipe.warmup)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        rows = torch.randint(len(names), (recipe.batch,), generator=rng)
        examples = Examples(sources[rows], targets[rows], (effect.teacher_prompt,) * recipe.batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = flow_matching_loss(model, examples, noise, recipe.text_length, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def draw_test(model: torch.nn.Module, effect: Effect, names: Sequence[str]) -> torch.Tensor:
    """Return the teacher's pictures [N, 3, 32, 32] of the named subjects: 20 Euler steps, guidance 1."""
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.compiler.set_stance("force_eager"):
        return euler(model, atlas.picture("noto", list(names)), [effect.teacher_prompt] * len(names), seed=3)


def measure(made: torch.Tensor, effect: Effect, rivals: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Return how far ``made`` [N, 3, 32, 32] is from the truth, how far the source is, and the share of bad cases.

    The truth of an effect with chance is its mean, which no single draw is near.

    A bad case is a picture that is nearer to the source or to a rival effect's truth than to its own.
    """
    source = atlas.picture("noto", list(names))
    wrong = [source, *(EFFECTS[name].apply(source, names) for name in rivals if name != effect.name)]
    truth = effect.apply(source, names)
    error = (made - truth).square().mean((1, 2, 3))
    nearest_wrong = torch.stack([(made - other).square().mean((1, 2, 3)) for other in wrong]).amin(0)
    return {
        "mse_to_truth": round(error.mean().item(), 5),
        "source_mse_to_truth": round((source - truth).square().mean().item(), 5),
        "bad_case_rate": round((nearest_wrong <= error).float().mean().item(), 4),
    }


def write_bank(names: Sequence[str], folder: Path) -> None:
    """Write bank.yaml: for every teacher its file, its vague prompt and its caption."""
    rows = [
        {
            "name": name,
            "lora": f"{name}.safetensors",
            "teacher_prompt": EFFECTS[name].teacher_prompt,
            "caption": EFFECTS[name].caption,
        }
        for name in names
    ]
    text = yaml.safe_dump(rows, sort_keys=False, allow_unicode=True, width=120)
    (folder / "bank.yaml").write_text("# Written by train_teachers.py; the first eight make the quick start.\n" + text)


def main() -> None:
    """Train the recipe's effects, or those named, and write LoRA files, bank.yaml and measured.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, metavar="FOLDER", help="where the bank is written")
    parser.add_argument("effects", nargs="*", help="effects to train, or `all` (default: those of teachers.yaml)")
    parser.add_argument("--measure", action="store_true", help="train nothing: measure the folder's LoRAs again")
    arguments = parser.parse_args()
    recipe = read_recipe()
    chosen = tuple(EFFECTS) if arguments.effects == ["all"] else tuple(arguments.effects) or recipe.effects
    unknown = [name for name in chosen if name not in EFFECTS]
    if unknown:
        parser.error(f"no effect named {', '.join(unknown)}; there are {', '.join(EFFECTS)}")
    test_names = atlas.select("test", atlas.TEST_CATEGORIES)
    arguments.output.mkdir(parents=True, exist_ok=True)
    model = with_adapter(recipe.rank)
    measured = {}
    for name in chosen:
        started = time.monotonic()
        path = arguments.output / f"{name}.safetensors"
        if not arguments.measure:
            train(model.train(), recipe, EFFECTS[name])
            lora_file.write(model, path, recipe.rank, recipe.rank)
        lora_file.read(model, path)  # as it was written, in bfloat16
        made = draw_test(model.eval(), EFFECTS[name], test_names)
        measured[name] = measure(made, EFFECTS[name], chosen, test_names)
        print(f"{name} {measured[name]} {time.monotonic() - started:.0f} s", flush=True)
    write_bank(chosen, arguments.output)
    draft = arguments.output / "measured.partial"
    draft.write_text(json.dumps(measured, indent=2) + "\n")
    os.replace(draft, arguments.output / "measured.json")


if __name__ == "__main__":
    main()
