"""The first losses of three worlds, to the last bit: what a change of the code's shape must leave as it is.

python tests/golden_losses.py    # writes golden_losses.json anew, for a change that is meant to move the numbers
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import torch
from tiny_recipe import tiny_recipe

from clora.config.load import load_recipe
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover
from clora.runs.files.steps import read_steps
from clora.runs.job import make_job
from clora.runs.pipeline import Pipeline
from clora.runs.progress import Progress
from clora.runs.run_dir import RunDir, digest_of
from clora.toolkit.memory.settings import NetworkMemory
from clora.training.distributed import Distributed
from clora.training.warm_start import warm_folder

FILE = Path(__file__).with_suffix(".json")
RECIPES = Path(__file__).parents[1] / "recipes"
WORLDS = ("quick start", "collection, shared rollouts", "tiny Qwen-Image-Edit")
COMMON = (
    "seed=0",
    "train={steps: 20, batch_size: 4, warmup_steps: 4}",
    "prepare={previews: 0, train_images: 3, general_images: 8}",
)
EMOJI = (*COMMON, "teacher.steps=2")
TINY = (*COMMON, "student={rank: 2, alpha: 2, steps: 3}", "teacher={steps: 1, slots: null}", "warm_start=null")

#: a relative difference: the same processor held to AVX2 instead of AVX512 gives at most 2e-5
ELSEWHERE = 1e-3
#: by name, of every update in turn
Losses: TypeAlias = "list[dict[str, float]]"


def machine() -> dict[str, str]:
    """What the last bits depend on; virtual machines call very different processors by one name."""
    info = Path("/proc/cpuinfo")
    first = info.read_text().split("\n\n")[0].splitlines() if info.exists() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
    kind = [told.get(key, "") for key in ("cpu family", "model", "stepping", "cache size", "flags")]
    return {
        "processor": told.get("model name", platform.processor()),
        "kind": digest_of(kind),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def losses_of(world: str, folder: Path, model: Path) -> Losses:
    """Losses and gradient norms of every update of a world, by one thread; `model` is the tiny Qwen's folder."""
    recipe, sets = RECIPES / "collection.yaml", EMOJI
    if world == "quick start":
        recipe, sets = RECIPES / "quickstart.yaml", (*EMOJI, "warm_start.updates=20")
    elif world == "tiny Qwen-Image-Edit":
        recipe, sets = _tiny(folder, model), TINY
    else:
        sets = (*EMOJI, "warm_start=null", "train.schedule=shared")
    catalogue = discover()
    run = RunDir(folder / "run")
    job = make_job(make_plan(load_recipe(recipe, (), list(sets), catalogue)), catalogue, run)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        Pipeline(job, catalogue, Distributed(), Progress(on=False)).run(until_export=True)
    finally:
        torch.set_num_threads(before)
    steps = [*read_steps(warm_folder(run.path) / run.steps.name).reports, *read_steps(run.steps).reports]
    norms = [{name: value for name, value in step.logs.items() if name.endswith("grad_norm")} for step in steps]
    return [{**step.losses, **norm} for step, norm in zip(steps, norms, strict=True)]


def _tiny(folder: Path, model: Path) -> Path:
    keys = {"model": str(model), "side": 64}
    component = discover().find("backbone", "qwen_image_edit").cls(**keys, memory=NetworkMemory(weights="fp32"))
    return tiny_recipe(folder, {"use": "qwen_image_edit", **keys, "memory": {"weights": "fp32"}}, component.shapes())


def read() -> tuple[Mapping[str, str], Mapping[str, Losses]]:
    """The machine and the losses of the file."""
    tree = json.loads(FILE.read_text())
    return tree["machine"], tree["losses"]


def differences(ours: Losses, golden: Losses, same_machine: bool) -> Sequence[str]:
    """A sentence for every number that differs: at all on the machine of the file, by more than ELSEWHERE elsewhere."""
    found = []
    if len(ours) != len(golden):
        found.append(f"{len(ours)} updates, {len(golden)} in the file")
    for update, (here, there) in enumerate(zip(ours, golden, strict=False), 1):
        if here.keys() != there.keys():
            found.append(f"update {update}: {sorted(here)}, {sorted(there)} in the file")
        for name in here.keys() & there.keys():
            far = abs(here[name] - there[name]) > ELSEWHERE * abs(there[name])
            if far or (same_machine and here[name] != there[name]):
                found.append(f"update {update}: {name} is {here[name]!r}, {there[name]!r} in the file")
    return found


def main() -> None:
    """Write the file anew."""
    from tiny_qwen import build

    losses = {}
    with TemporaryDirectory() as folder:
        model = build(Path(folder) / "model")
        for number, world in enumerate(WORLDS):
            place = Path(folder) / str(number)
            place.mkdir()
            losses[world] = losses_of(world, place, model)
            print(f"{world}: {len(losses[world])} updates", file=sys.stderr)
    FILE.write_text(json.dumps({"machine": machine(), "losses": losses}, indent=1) + "\n")


if __name__ == "__main__":
    main()
