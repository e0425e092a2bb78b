"""The emoji world with two of the base's six transformer blocks, for runs of which no picture is looked at.

Every linear still learns, in every way that the whole network's do, and a run takes half the processor time.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

from clora_emoji.model_config import BASE

BLOCKS = 2
BANK = BASE.parent / "teachers"
#: where the files lie, for this process and those that it starts: a run's digest has their paths
FOLDER = "SHALLOW_EMOJI"


def shallow_emoji() -> tuple[str, str]:
    """The settings that lay this world under a recipe."""
    folder = shallow_folder()
    return f"backbone.weights={folder / 'base'}", f"teachers.manifest={folder / 'teachers/bank.yaml'}"


def whole_emoji() -> tuple[str, str]:
    """The settings that put the whole network back where `shallow_emoji` stands under a recipe."""
    return f"backbone.weights={BASE}", f"teachers.manifest={BANK / 'bank.yaml'}"


def shallow_folder() -> Path:
    """Where `base` and `teachers` lie, which are written when first asked for."""
    if FOLDER not in os.environ:
        folder = mkdtemp(prefix="shallow_emoji_")
        _write(Path(folder) / "base", Path(folder) / "teachers")
        os.environ[FOLDER] = folder
    return Path(os.environ[FOLDER])


def forget() -> None:
    """Remove the files, at the end of the tests."""
    if FOLDER in os.environ:
        shutil.rmtree(os.environ.pop(FOLDER))


def _write(base: Path, teachers: Path) -> None:
    base.mkdir()
    teachers.mkdir()
    config = json.loads((BASE / "config.json").read_text()) | {"num_layers": BLOCKS}
    (base / "config.json").write_text(json.dumps(config))
    _without_the_rest(BASE / "diffusion_pytorch_model.safetensors", base)
    shutil.copyfile(BANK / "bank.yaml", teachers / "bank.yaml")
    for lora in BANK.glob("*.safetensors"):
        _without_the_rest(lora, teachers)


def _without_the_rest(file: Path, folder: Path) -> None:
    """A copy of a file of tensors without those of the other blocks."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    def kept(name: str) -> bool:
        _, _, block = name.partition("transformer_blocks.")
        return not block or int(block.partition(".")[0]) < BLOCKS

    with safe_open(file, "pt") as source:
        tensors = {name: source.get_tensor(name) for name in source.keys() if kept(name)}  # noqa: SIM118
        save_file(tensors, folder / file.name, source.metadata())
