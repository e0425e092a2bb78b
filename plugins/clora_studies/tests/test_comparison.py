"""`clora compare`: grouping over seeds, the three forms of the table, and what is said of folders that do not fit."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clora_studies import compare_command as command
from clora_studies.comparison import compare, read_runs

from clora.errors import CloraError
from clora.runs.files.sealed_json import write_sealed


def quantity(better: str | None) -> dict[str, Any]:
    return {"better": better, "unit": "", "headline": False, "reference": None}


BETTER = {"bcr": quantity("lower"), "vsa": quantity("higher"), "hue": quantity(None)}


def make_run(folder: Path, values: dict[str, Any] | None, **info: Any) -> Path:
    folder.mkdir(parents=True)
    nfe = info.pop("nfe", "4")
    say = {"name": folder.name, "title": "", "seed": 0, "digest": "d", "steps": 150, "seconds": 12.5, **info}
    write_sealed(folder / "run.json", {"ranks": 1, "recipe": "r", "machine": {}, "versions": {}, **say})
    if values is not None:
        nothing = {name: {} for name in ("per_effect", "per_picture", "matrices", "pictures", "grids")}
        found = {"values": values, "quantities": BETTER, "nfe": nfe, "summaries": [], **nothing}
        write_sealed(folder / "evaluate" / "results.json", found)
    return folder


def cli(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args([str(word) for word in words])) == 0
    return capsys.readouterr().out


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two recipes, the first with two seeds, the second without one of the values."""
    return [
        make_run(tmp_path / "a0", {"bcr": 0.25, "vsa": 4.0}, name="full", title="all of it", seed=0),
        make_run(tmp_path / "b", {"bcr": 0.5}, name="no_aop", nfe="40x2"),
        make_run(tmp_path / "a1", {"bcr": 0.125, "vsa": 4.5}, name="full", title="all of it", seed=7),
    ]


def test_seeds_become_one_row_with_mean_and_sample_sd(runs: list[Path]):
    table = compare(read_runs(runs))
    assert [row.name for row in table.rows] == ["full", "no_aop"]
    cell = table.rows[0].cells["bcr"]
    assert (cell.mean, cell.n) == (0.1875, 2)
    assert cell.sd == pytest.approx(((0.25 - 0.1875) ** 2 * 2) ** 0.5)
    assert table.rows[1].cells["bcr"].sd is None


def test_text_is_aligned_with_a_star_at_the_best(runs: list[Path], capsys: pytest.CaptureFixture[str]):
    lines = cli(capsys, *runs).splitlines()
    assert lines[0].split() == ["run", "bcr", "↓", "vsa", "↑", "NFE", "n"]
    assert lines[2].split() == ["all", "of", "it", "0.188", "±", "0.088*", "4.25", "±", "0.35", "4", "2"]
    assert lines[3].split() == ["no_aop", "0.500", "–", "40x2", "1"]
    assert lines[0].rstrip().endswith("n")
    assert len(lines[0]) == len(lines[2]) == len(lines[3])
    assert lines[-1] == "* best; mean ± sample standard deviation over n seeds"


def test_markdown_has_the_best_in_bold(runs: list[Path], capsys: pytest.CaptureFixture[str]):
    lines = cli(capsys, *runs, "--markdown").splitlines()
    assert lines[0] == "| run | bcr ↓ | vsa ↑ | NFE | n |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| all of it | **0.188 ± 0.088** | 4.25 ± 0.35 | 4 | 2 |"
    assert lines[3] == "| no_aop | 0.500 | – | 40x2 | 1 |"


def test_a_bar_in_a_title_does_not_break_the_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run(tmp_path / "a", {"bcr": 0.5}, title="a | b")
    assert "| a \\| b | 0.500 | 4 |" in cli(capsys, run, "--markdown").splitlines()


def test_json_is_complete(runs: list[Path], capsys: pytest.CaptureFixture[str]):
    found = json.loads(cli(capsys, *runs, "--json"))
    assert found["columns"][0] == {"name": "bcr", "better": "lower", "best": 0.1875}
    full, other = found["rows"]
    assert full["seeds"] == [0, 7]
    assert full["n"] == 2
    assert full["values"]["vsa"]["mean"] == 4.25
    assert full["runs"][1] == {
        "folder": str(runs[2]),
        "seed": 7,
        "digest": "d",
        "steps": 150,
        "seconds": 12.5,
        "nfe": "4",
        "values": {"bcr": 0.125, "vsa": 4.5},
    }
    assert other["values"]["vsa"] is None


def test_columns_choose_and_by_sorts(runs: list[Path], capsys: pytest.CaptureFixture[str]):
    lines = cli(capsys, runs[1], runs[0], runs[2], "--columns", "vsa,bcr", "--by", "bcr").splitlines()
    assert lines[0].split()[:4] == ["run", "vsa", "↑", "bcr"]
    assert lines[2].startswith("all of it")
    hidden = cli(capsys, runs[1], runs[0], "--columns", "vsa", "--by", "bcr").splitlines()
    assert hidden[2].startswith("all of it")


def test_a_value_that_only_some_seeds_have_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = [make_run(tmp_path / f"r{i}", {"bcr": 0.5, "vsa": None if i else 3.0}, name="r", seed=i) for i in range(2)]
    assert "3.00 (n=1)" in cli(capsys, *made)


def test_a_value_without_direction_has_neither_arrow_nor_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = [make_run(tmp_path / n, {"bcr": v, "hue": v}) for n, v in (("a", 0.5), ("b", 0.25))]
    head, _, first, second = cli(capsys, *made, "--by", "hue").splitlines()[:4]
    assert head.split() == ["run", "bcr", "↓", "hue", "NFE"]
    assert first.split() == ["a", "0.500", "0.500", "4"]
    assert second.split() == ["b", "0.250*", "0.250", "4"]
    assert json.loads(cli(capsys, *made, "--json"))["columns"][1] == {"name": "hue", "better": None, "best": None}


def test_one_row_has_no_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = cli(capsys, make_run(tmp_path / "a", {"bcr": 0.0012}))
    assert "*" not in out
    assert "0.00120" in out


def test_equal_digits_share_the_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = [make_run(tmp_path / n, {"bcr": v}) for n, v in (("a", 0.5), ("b", 0.50000001), ("c", 0.6))]
    assert cli(capsys, *made).count("0.500*") == 2


def test_unknown_columns_name_the_nearest(runs: list[Path]):
    with pytest.raises(CloraError) as caught:
        compare(read_runs(runs), ["bcs"], "vsb")
    assert str(caught.value).splitlines() == [
        "no run has the value 'bcs'; did you mean 'bcr'?",
        "no run has the value 'vsb'; did you mean 'vsa'?",
    ]


def test_the_same_name_and_seed_twice_is_refused(tmp_path: Path):
    made = [make_run(tmp_path / n, {"bcr": 0.5}, name="same", seed=3) for n in ("one", "two")]
    with pytest.raises(CloraError) as caught:
        compare(read_runs(made))
    message = str(caught.value)
    assert message.startswith(str(made[1]))
    assert str(made[0]) in message
    assert "seed 3" in message


@pytest.mark.parametrize(("key", "value", "words"), [("steps", 300, "300 updates against 150"), ("nfe", "8", "8 eval")])
def test_unlike_runs_of_one_name_are_not_averaged(tmp_path: Path, key: str, value: object, words: str):
    made = [
        make_run(tmp_path / "one", {"bcr": 0.5}, name="same", seed=0),
        make_run(tmp_path / "two", {"bcr": 0.5}, name="same", seed=1, **{key: value}),
    ]
    with pytest.raises(CloraError, match=words):
        compare(read_runs(made))


def test_all_problems_at_once(tmp_path: Path):
    torn = make_run(tmp_path / "torn", {"bcr": 0.5})
    (torn / "evaluate" / "results.json").write_text('{"values": ')
    word = make_run(tmp_path / "word", {"bcr": 0.5, "vsa": "high"})
    nan = make_run(tmp_path / "nan", {"bcr": 0.5})
    (nan / "evaluate" / "results.json").write_text('{"values": {"bcr": NaN}}')
    edited = make_run(tmp_path / "edited", {"bcr": 0.5})
    text = (edited / "evaluate" / "results.json").read_text()
    (edited / "evaluate" / "results.json").write_text(text.replace("0.5", "0.1"))
    listed = make_run(tmp_path / "listed", {"bcr": 0.5})
    (listed / "run.json").write_text("[]")
    nameless = make_run(tmp_path / "nameless", {"bcr": 0.5}, name=None)
    waiting = make_run(tmp_path / "waiting", None)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    folders = [
        torn,
        word,
        nan,
        edited,
        listed,
        nameless,
        waiting,
        tmp_path / "file",
        tmp_path / "empty",
        tmp_path / "absent",
    ]
    with pytest.raises(CloraError) as caught:
        read_runs(folders)
    lines = str(caught.value).splitlines()
    for folder, line, words in zip(
        folders,
        lines,
        (
            "is damaged",
            "values is damaged: 'vsa' must be a number, found the text 'high'",
            "is damaged: it is no JSON that can be read: NaN is no number",
            "results.json has changed since it was written: its checksum is wrong",
            "is damaged: it holds no map but a list",
            "'name' must be a text, found null",
            "has not been evaluated yet; `clora run` with its recipe finishes it",
            "it is a file",
            "no run.json",
            "there is no such folder",
        ),
        strict=True,
    ):
        assert str(folder) in line
        assert words in line
    assert caught.value.exit_code == 2


def test_comparing_needs_no_torch():
    code = "import sys, clora_studies.compare_command; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
