"""Whether the emoji teachers and the base would be better had they been trained on other noise levels.

    python benchmarks/training_noise.py WORK [--effects thermal gold_frame ...] [--seeds 11] [--base-steps 400]
        [--base-ways uniform ...] [--out benchmarks/results/training_noise.json]

Teachers: each effect anew for each way to draw noise levels and each seed, with all else as in teachers.yaml, sampled
at shift 1 and at shift 3, and its mean squared error to the truth on the test subjects. The base: a short course of
base.yaml (its steps alone are fewer) for each way, sampled likewise, and the error on the general edits. Every result
is written at once to WORK/training_noise.json, and what is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import attrs
import torch
from machine import provenance

ROOT = Path(__file__).parents[1]
WAYS = {
    "uniform": (1.0, 0.0),
    "half at shift 3": (3.0, 0.5),
    "all at shift 3": (3.0, 1.0),
    "half at shift 1/3": (1 / 3, 0.5),
}
SAMPLED_AT = (1.0, 3.0)
Results = dict[str, dict[str, float]]


def once(path: Path, results: Results, key: str, make: Callable[[], dict[str, float]]) -> None:
    """Put what ``make`` returns under the key and write all, unless the key is there."""
    if key in results:
        return
    results[key] = make()
    draft = path.with_suffix(".partial")
    draft.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)
    print(key, results[key], flush=True)


def teacher(model: torch.nn.Module, name: str, seed: int, shift: float, share: float) -> dict[str, float]:
    """The errors of one effect's teacher by the shift at which it is sampled."""
    from clora_emoji import atlas, train_teachers
    from clora_emoji.effects import EFFECTS
    from clora_emoji.sampling import euler

    recipe = attrs.evolve(train_teachers.read_recipe(), seed=seed, shift=shift, shifted_share=share)
    effect, names = EFFECTS[name], atlas.select("test", atlas.TEST_CATEGORIES)
    train_teachers.train(model.train(), recipe, effect)
    source = atlas.picture("noto", names)
    truth = effect.apply(source, names)
    errors = {}
    for at in SAMPLED_AT:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.compiler.set_stance("force_eager"):
            made = euler(model.eval(), source, [effect.teacher_prompt] * len(names), seed=3, shift=at)
        errors[f"sampled at {at:g}"] = round((made - truth).square().mean().item(), 5)
    return errors


def base(work: Path, steps: int, shift: float, share: float) -> dict[str, float]:
    """The errors of one base of some steps, trained here."""
    from clora_emoji import train_base

    recipe = attrs.evolve(
        train_base.read_recipe(), steps=steps, shift=shift, shifted_share=share, evaluate_every=steps + 1
    )
    folder = work / f"base_{steps}_{shift:.2f}_{share:g}"
    train_base.train(recipe, folder, folder / "base")
    return base_errors(folder / "base")


def base_errors(folder: Path) -> dict[str, float]:
    """The errors of a base in a folder, the mean over all general edits, by the shift at which it is sampled."""
    from clora_emoji import atlas, network
    from clora_emoji.general import GENERAL
    from clora_emoji.sampling import euler

    model = network.load(folder)
    names = atlas.select("test", atlas.TEST_CATEGORIES)[::6]
    source = atlas.picture("noto", names)
    errors = {}
    for at in SAMPLED_AT:
        found = []
        for edit in GENERAL.values():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                made = euler(model, source, [edit.phrasings[0]] * len(names), seed=1, shift=at)
            found.append((made - edit.apply(source)).square().mean().item())
        errors[f"sampled at {at:g}"] = round(sum(found) / len(found), 5)
    return errors


def table(results: Results) -> str:
    """A row for each way to draw noise levels, teachers as the mean over all that have been made, then the bases."""
    lines = ["| | trained | sampled at shift 1 | sampled at shift 3 |", "|---|---|---:|---:|"]
    for way in WAYS:
        rows = [row for key, row in results.items() if key.startswith(f"teacher, {way},")]
        if rows:
            means = [sum(row[f"sampled at {at:g}"] for row in rows) / len(rows) for at in SAMPLED_AT]
            lines.append(_row(f"{len(rows)} teachers", way, means))
    for key, row in results.items():
        if key.startswith("base, "):
            _, way, made = key.split(", ")
            lines.append(_row(f"base, {made}", way, [row[f"sampled at {at:g}"] for at in SAMPLED_AT]))
    return "\n".join(lines)


def _row(what: str, way: str, errors: Sequence[float]) -> str:
    return f"| {what} | {way} | " + " | ".join(f"{error:.4f}" for error in errors) + " |"


def main() -> None:
    """Make what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument(
        "--effects", nargs="*", default=["thermal", "gold_frame", "solarise", "neon_edges", "crystal_ball"]
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=[11])
    parser.add_argument("--base-steps", type=int, default=400, help="0: no base is trained")
    parser.add_argument("--base-ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/training_noise.json")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / "training_noise.json"
    results: Results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    from clora_emoji import network, train_teachers

    model = train_teachers.with_adapter(train_teachers.read_recipe().rank)
    for seed, name, way in product(arguments.seeds, arguments.effects, WAYS):
        once(path, results, f"teacher, {way}, {name}, seed {seed}", partial(teacher, model, name, seed, *WAYS[way]))
    for way in arguments.base_ways if arguments.base_steps else ():
        key = f"base, {way}, {arguments.base_steps} steps"
        once(path, results, key, partial(base, arguments.work, arguments.base_steps, *WAYS[way]))
    once(path, results, "base, half at shift 3, as committed", lambda: base_errors(network.BASE))
    print(table(results))
    text = json.dumps({**provenance(), "rows": results}, indent=1)
    arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
