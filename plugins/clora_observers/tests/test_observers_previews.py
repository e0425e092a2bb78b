"""`previews`: a sheet of the right pictures, no more of them than are wanted, and other files left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from clora_observers.previews import Previews
from clora_observers.sheet import GAP, LINE, write_sheet
from PIL import Image

from clora.api import EffectEdits, Observation, PlanFacts, Prompts, RunInfo, SampleRequest, StepReport

WHITE = (255, 255, 255)


def samples(effect: str = "ink", count: int = 2, side: int = 32) -> EffectEdits:
    """Black sources; the results are red."""
    source = torch.full((count, 3, side, side), -1.0)
    student = source.clone()
    student[:, 0] = 1.0
    return EffectEdits(effect, tuple(f"{i}.png" for i in range(count)), source, student)


def seen(folder: Path, step: int) -> Observation:
    plan = PlanFacts({"ink": Prompts("all ink", "ink it")}, "")
    report = StepReport(step, {"ta_fm": 0.5}, 0.25, 3.0, 1e-3)
    return Observation(RunInfo("mine", folder, "digest", 9), plan, report, folder, (samples(),))


def pixel(path: Path, x: int, y: int) -> tuple[int, ...]:
    with Image.open(path) as image:
        found = image.convert("RGB").getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def test_sources_stand_above_what_the_student_makes_of_them(tmp_path: Path) -> None:
    sheet, side = tmp_path / "sheet.png", 96  # three pixels for each of a picture of 32
    write_sheet(sheet, [samples("ink"), samples("墨", count=3)], 256)
    block = LINE + 2 * (side + GAP)
    with Image.open(sheet) as image:
        assert image.size == (3 * side + 4 * GAP, 2 * block)
    for top in (LINE, block + LINE):
        for column in range(2):
            left = GAP + column * (side + GAP)
            assert pixel(sheet, left + side // 2, top + side // 2) == (0, 0, 0)
            assert pixel(sheet, left + side // 2, top + side + GAP + side // 2) == (255, 0, 0)
    assert pixel(sheet, GAP + 2 * (side + GAP) + side // 2, LINE + side // 2) == WHITE  # the first has two pictures


def test_a_large_picture_is_made_small_in_proportion(tmp_path: Path) -> None:
    wide = EffectEdits("ink", ("a",), torch.zeros(1, 3, 40, 80), torch.zeros(1, 3, 20, 40))
    write_sheet(tmp_path / "sheet.png", [wide], 20)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (40 + 2 * GAP, LINE + 2 * (20 + GAP))


def test_the_newest_sheets_are_kept_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "update_1.png", "update_000001.png.damaged"):
        (tmp_path / name).write_text("mine")
    for step in (5, 10, 15, 10):  # gone on with from an earlier checkpoint
        Previews(keep=2).observe(seen(tmp_path, step))
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["notes.txt", "update_000001.png.damaged", "update_000010.png", "update_000015.png", "update_1.png"]
    Previews(keep=None).observe(seen(tmp_path, 20))
    assert len(list(tmp_path.glob("update_0000??.png"))) == 3


def test_all_sheets_are_kept_where_no_number_is_given(tmp_path: Path) -> None:
    for step in range(1, 61):
        (tmp_path / f"update_{step:06}.png").write_bytes(b"old")
    Previews(keep=None).observe(seen(tmp_path, 61))
    assert len(list(tmp_path.iterdir())) == 61


def test_the_first_effects_are_asked_for_where_none_is_named() -> None:
    effects = tuple("abcdef")
    assert Previews(pictures=3).sample_request(effects) == SampleRequest(("a", "b", "c", "d"), 3)
    assert Previews(effects=("f", "b")).sample_request(effects) == SampleRequest(("f", "b"), 4)


@pytest.mark.parametrize("keys", [{"every": 0}, {"pictures": 17}, {"pictures": 0}, {"keep": 0}, {"height": 4}])
def test_numbers_outside_their_bounds_are_refused(keys: dict[str, int]) -> None:
    (name,) = keys
    with pytest.raises(ValueError, match=f"'{name}' must be between"):
        Previews(**keys)
