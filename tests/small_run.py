"""The smallest run that has every stage, for tests that stop it."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from shallow_emoji import shallow_emoji

RECIPE = Path(__file__).parents[1] / "recipes/collection.yaml"
SETS = (
    *shallow_emoji(),
    "effects=[duotone_ocean]",
    "student.rank=2",
    "student.steps=3",
    "train.steps=3",
    "warm_start=null",
    "train.batch_size=4",
    "train.checkpoint_every=2",
    "teacher.steps=1",
    "prepare.train_images=2",
    "prepare.previews=1",
    "evaluate.images=1",
    "evaluate.general_images=1",
)


def run_words(runs: Path, *more: str) -> list[str]:
    """`run` and its words; `more` are further settings."""
    return ["run", str(RECIPE), *(word for text in (*SETS, *more) for word in ("--set", text)), "--runs", str(runs)]


def only_run(runs: Path) -> Path:
    """The one run of a folder."""
    (folder,) = (path for path in runs.iterdir() if not path.name.startswith("."))
    return folder


def check_same(ours: Path, theirs: Path) -> None:
    """Two runs trained, made and measured the same to the last bit."""
    for name in ("export/lora.safetensors", "checkpoints/000003/state.safetensors", "evaluate/pictures.safetensors"):
        mine, other = load_file(ours / name), load_file(theirs / name)
        assert mine.keys() == other.keys()
        assert all(mine[key].equal(other[key]) for key in mine), name
    assert (ours / "evaluate/results.json").read_text() == (theirs / "evaluate/results.json").read_text()
