"""`clora validate --data`: every picture is decoded, damage is told at its line; doubtful pairs are warned of."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from PIL import Image

from clora import cli
from clora.contracts.data import PictureRow
from clora.toolkit import picture_check
from clora.toolkit.picture_check import check_pictures

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

RECIPE = """
extends: {parent}
teachers: {{manifest: bank/bank.yaml}}
dataset: {{use: pictures, effects: data/effects.jsonl, general: data/general.jsonl}}
metrics: null
"""
PARENT = Path(__file__).parents[2] / "recipes/collection.yaml"


def noise(path: Path, seed: int) -> None:
    """A picture that is like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def rows(path: Path, *lines: dict[str, str]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def line(source: str, target: str, effect: str = "sepia", split: str = "train") -> dict[str, str]:
    return {"source": source, "target": target, "effect": effect, "split": split}


@pytest.fixture
def data(folder) -> Path:
    """Ten different pictures, and lists of pairs without a mistake."""
    for number in range(10):
        noise(folder / f"data/{number}.png", number)
    write_good(folder / "data")
    Path("r.yaml").write_text(dedent(RECIPE).format(parent=PARENT))
    return folder / "data"


def write_good(data: Path, *more: dict[str, str]) -> None:
    effects = [
        line("0.png", "1.png"),
        line("2.png", "3.png", split="test"),
        line("0.png", "4.png", "thermal"),
        line("2.png", "5.png", "thermal", "test"),
    ]
    rows(data / "effects.jsonl", *effects, *more)
    general = [
        {"source": f"{name}.png", "instruction": "blur it", "split": s} for name, s in ((6, "train"), (7, "test"))
    ]
    rows(data / "general.jsonl", *general)


def validated(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["validate", "r.yaml", *words])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def warned(err: str) -> list[str]:
    """The warnings without the place in the recipe."""
    return [text.split(": dataset: ", 1)[1] for text in err.splitlines() if text.startswith("warning: ")]


def test_whole_pictures_are_counted_and_a_plain_check_says_that_it_read_no_pixels(data, capsys):
    code, out, err = validated(capsys)
    assert (code, warned(err)) == (0, [])
    assert "pictures were read as far as their headers; `--data` decodes every one\nvalid: " in out
    code, out, err = validated(capsys, "--data")
    assert (code, warned(err)) == (0, [])
    assert "8 pictures decoded, none is damaged\nvalid: nothing stands in the way of this run\n" in out
    assert "check pictures 8/8" in err


def test_every_damaged_picture_is_told_at_its_line(data, capsys):
    for name in ("1.png", "2.png", "7.png"):
        whole = (data / name).read_bytes()
        (data / name).write_bytes(whole[: len(whole) // 2])
    code, out, err = validated(capsys)
    assert code == 0, err
    code, out, err = validated(capsys, "--data")
    assert (code, out) == (2, "")
    told = [text.split(": dataset: ")[1] for text in err.splitlines() if ": dataset: " in text]
    assert [text.split(" ")[:3] for text in told] == [
        [f"{data}/effects.jsonl:1:", "target", f"{data}/1.png"],
        [f"{data}/effects.jsonl:2:", "source", f"{data}/2.png"],
        [f"{data}/effects.jsonl:4:", "source", f"{data}/2.png"],
        [f"{data}/general.jsonl:2:", "source", f"{data}/7.png"],
    ]
    assert all("cannot be read as a picture: " in text for text in told)


def test_pictures_of_a_banks_pairs_are_decoded_too(data, folder, capsys):
    bank = folder / "bank/bank.yaml"
    noise(folder / "bank/a.png", 1)
    noise(folder / "bank/b.png", 2)
    bank.write_text(bank.read_text() + "  pairs:\n  - [a.png, b.png]\n")
    line = len(bank.read_text().splitlines())
    (folder / "bank/b.png").write_bytes((folder / "bank/b.png").read_bytes()[:900])
    assert validated(capsys)[0] == 0
    code, _, err = validated(capsys, "--data")
    assert code == 2
    assert f"dataset: {folder}/bank/bank.yaml:{line}: target {folder}/bank/b.png cannot be read as a picture" in err


def test_a_dataset_without_files_has_nothing_to_decode(folder, capsys):
    Path("r.yaml").write_text(f"extends: {PARENT}\nteachers: {{manifest: bank/bank.yaml}}\n")
    code, out, _ = validated(capsys, "--data")
    assert code == 0
    assert "this dataset has no pictures of its own to decode" in out


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (line("8.png", "8.png"), "5: source and target are the same picture, '8.png'; an edit changes it"),
        (line("8.png", "8 copy.png"), "5: source and target are the same picture, '8.png' and '8 copy.png'; an edit"),
        (
            line("9.png", "0 copy.png"),
            "5: the target '0 copy.png' of sepia is the source of {data}/effects.jsonl:1 of sepia; are source and "
            "target swapped in one of them?",
        ),
        (
            line("9.png", "0.png", "thermal"),
            "5: the target '0.png' of thermal is the source of {data}/effects.jsonl:1 of sepia; are source and",
        ),
        (
            line("9.png", "1.png"),
            "1: 2 different sources of sepia have the same target, '1.png'; are source and target swapped?",
        ),
        (
            line("0 copy.png", "9.png", split="test"),
            "5: the test picture '0 copy.png' of sepia is the training picture '0.png' of {data}/effects.jsonl:1: what",
        ),
    ],
)
def test_doubtful_pairs_are_warned_of_by_path_or_bytes(data, capsys, more, sentence):
    for name in ("0", "8"):
        (data / f"{name} copy.png").write_bytes((data / f"{name}.png").read_bytes())
    write_good(data, more)
    code, out, err = validated(capsys)
    assert code == 0
    (warning,) = warned(err)
    assert warning.startswith(f"{data}/effects.jsonl:{sentence.replace('{data}', str(data))}")
    assert "valid: nothing stands in the way of this run; 1 warning above" in out


def test_with_data_pixels_are_compared(data, capsys):
    with Image.open(data / "0.png") as picture:
        picture.save(data / "0 again.webp", lossless=True)
    write_good(data, line("0 again.webp", "9.png", split="test"))
    code, _, err = validated(capsys)
    assert (code, warned(err)) == (0, [])
    code, out, err = validated(capsys, "--data")
    assert code == 0
    (warning,) = warned(err)
    assert "the test picture '0 again.webp' of sepia is the training picture '0.png'" in warning
    assert "1 warning above" in out


def test_warnings_of_a_kind_are_few(data, capsys):
    write_good(data, *(line(f"{n}.png", f"{n}.png", "sepia") for n in (6, 7, 8, 9) for _ in range(10)))
    _, _, err = validated(capsys)
    *few, more = warned(err)
    assert len(few) == 5
    assert more.endswith(": 35 more warnings like the one before")


def test_each_file_is_decoded_once_by_as_many_threads_as_asked_and_pixels_are_bounded(tmp_path, monkeypatch):
    for number in range(6):
        noise(tmp_path / f"{number}.png", number)
    listed = [PictureRow(f"x:{n}", tmp_path / f"{n % 6}.png") for n in range(30)]
    (tmp_path / "5.png").write_bytes(b"words")
    calls: list[Path] = []
    real = picture_check.picture_digest
    monkeypatch.setattr(picture_check, "picture_digest", lambda path: calls.append(path) or real(path))
    monkeypatch.setattr(picture_check, "PIXELS_AT_ONCE", 32 * 32)
    told: list[tuple[int, int]] = []
    found = check_pictures(listed, lambda _, done, total: told.append((done, total)), threads=4)
    assert sorted(calls) == [tmp_path / f"{n}.png" for n in range(5)]
    assert told == [(n, 6) for n in range(1, 7)]
    assert [text.split(":")[1] for text in found.problems] == ["5", "11", "17", "23", "29"]


def test_an_interrupt_ends_the_check(tmp_path, monkeypatch):
    for number in range(20):
        noise(tmp_path / f"{number}.png", number)
    calls: list[Path] = []
    real = picture_check.picture_digest
    monkeypatch.setattr(picture_check, "picture_digest", lambda path: calls.append(path) or real(path))

    def tell(_: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_pictures([PictureRow("x", tmp_path / f"{n}.png") for n in range(20)], tell, threads=1)
    assert len(calls) < 6
