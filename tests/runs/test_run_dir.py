"""A run's folder: what it says of itself, which stages are done, and hashes that never change."""

from __future__ import annotations

import os
from hashlib import blake2b
from math import isnan
from pathlib import Path

import pytest
from attrs import evolve

from clora.contracts.evaluation import Matrix, Quantity
from clora.errors import CloraError
from clora.runs.files.checksums import checksum_of_file
from clora.runs.files.record import RunRecord
from clora.runs.files.results import Results
from clora.runs.files.sealed_json import write_sealed
from clora.runs.run_dir import RunDir, digest_file, digest_of, digest_once

RECORD = RunRecord("collection", "", 0, "d", 3, 1.5, 1, "r", {"system": "Linux"}, {"clora": "1"})


@pytest.fixture
def folder(tmp_path) -> RunDir:
    return RunDir(tmp_path / "runs" / "collection-1234")


def test_digests_are_these_for_ever():
    assert digest_of({"b": [1, 2.5, None, True], "a": "ü"}) == "5582a9805df1fda9"


def test_digests_do_not_depend_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("other", [{"a": 2}, {"a": "1"}, {"a": 1.0}, {"a": True}, {"b": 1}, {"a": [1]}, {}, [1], None])
def test_different_values_have_different_digests(other):
    assert digest_of(other) != digest_of({"a": 1})


def test_a_files_digest_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "file"
    content = bytes(range(256)) * 5000  # more than one block
    path.write_bytes(content)
    assert digest_file(path) == blake2b(content, digest_size=8).hexdigest()


def test_what_is_written_of_a_run_is_read_again(folder):
    folder.write_info(RECORD)
    folder.write_info(evolve(RECORD, steps=4))
    assert folder.info() == evolve(RECORD, steps=4)
    results = Results(
        nfe="8",
        values={"a": 0.5},
        quantities={"a": Quantity(better="lower", headline=True)},
        per_effect={"x": {"a": 0.25}},
        per_picture={"x": {"a": (0.5, 0.25)}},
        pictures={"x": ("cat", "dog")},
    )
    matrix = Matrix(("x",), ("x", "source"), ((0.5, 0.25),))
    folder.write_results(evolve(results, matrices={"bleed": matrix}))
    assert folder.read_results() == evolve(results, matrices={"bleed": matrix})


@pytest.mark.parametrize("content", [b"", b'{"name": "coll', b"\xff\xfe\x00", b"[1, 2]", b'"text"', b"{}", b"NaN"])
def test_a_damaged_run_json_is_told_plainly(folder, content):
    folder.write_info(RECORD)
    (folder.path / "run.json").write_bytes(content)
    with pytest.raises(CloraError, match=r"run\.json is damaged"):
        folder.info()


def test_a_folder_that_is_no_run_is_told_plainly(folder, tmp_path):
    with pytest.raises(CloraError, match="is not a run folder"):
        folder.info()
    (tmp_path / "file").write_text("")
    with pytest.raises(CloraError, match="is not a run folder"):
        RunDir(tmp_path / "file").info()


def test_results_that_are_missing_or_damaged_are_told_plainly(folder):
    with pytest.raises(CloraError, match="has not been evaluated"):
        folder.read_results()
    folder.write_results(Results(values={"clip": 0.7, "missing": float("nan")}))
    assert folder.read_results().values["clip"] == 0.7
    assert isnan(folder.read_results().values["missing"])
    whole = folder.results.read_text()
    folder.results.write_text(whole.replace("0.7", "0.8"))
    with pytest.raises(CloraError, match=r"results\.json has changed since it was written: .*`clora evaluate"):
        folder.read_results()
    folder.results.write_text(whole[:40])
    with pytest.raises(CloraError, match=r"results\.json is damaged"):
        folder.read_results()


def test_every_flipped_bit_of_a_json_file_is_found(folder):
    folder.write_info(RECORD)
    path = folder.path / "run.json"
    whole = path.read_bytes()
    for place in range(0, 8 * len(whole), 3):
        raw = bytearray(whole)
        raw[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(raw))
        with pytest.raises(CloraError, match=r"run\.json (is damaged|has changed since it was written)"):
            folder.info()


def test_a_file_of_another_name_is_not_taken_for_this_one(folder):
    folder.write_info(RECORD)
    folder.write_marks(folder.marks())
    (folder.path / "run.json").replace(folder.path / "stages.json")
    with pytest.raises(CloraError, match=r"stages\.json has changed since it was written"):
        folder.marks()


@pytest.mark.parametrize(
    ("key", "value"), [("seconds", "long"), ("seed", -1), ("seed", True), ("machine", []), ("name", None)]
)
def test_a_field_of_another_type_is_told_by_its_name(folder, key, value):
    write_sealed(folder.path / "run.json", {**RECORD.tree(), key: value})
    with pytest.raises(CloraError, match=rf"run\.json is damaged: '{key}' must be"):
        folder.info()


def test_a_stage_is_done_from_the_same_inputs_while_its_outputs_stand(folder):
    assert not folder.stage_done("train", "aa")
    output = folder.lora
    output.parent.mkdir(parents=True)
    output.write_text("")
    folder.mark_done("train", "aa", ())
    folder.mark_done("export", "bb", (output,))
    assert folder.stage_done("train", "aa")
    assert folder.stage_done("export", "bb")
    assert not folder.stage_done("export", "cc")
    output.write_text("x")
    told: list[str] = []
    assert not folder.stage_done("export", "bb", told.append)
    output.unlink()
    assert not folder.stage_done("export", "bb", told.append)
    output.mkdir()
    assert not folder.stage_done("export", "bb", told.append)
    assert [line.partition("lora.safetensors ")[2] for line in told] == [
        "is damaged, or was changed, since it was written (1 bytes instead of 0); it is made again",
        "has gone; it is made again",
        "is damaged (a folder stands in its place); it is made again",
        "is a folder, not the file that was written; it is kept as lora.safetensors.damaged",
    ]
    assert folder.stage_done("train", "aa")


def test_a_file_belongs_to_the_stage_that_wrote_it_last(folder):
    folder.results.parent.mkdir(parents=True)
    folder.results.write_text("one")
    folder.mark_done("export", "aa", (folder.results,))
    folder.results.write_text("two")
    folder.mark_done("report", "bb", (folder.results,))
    assert folder.stage_done("export", "aa")
    assert folder.stage_done("report", "bb")
    folder.forget("report")
    assert not folder.marks().files


def test_what_a_reader_needs_is_checked(folder):
    with pytest.raises(CloraError, match="is not there: the run has made nothing of that name yet"):
        folder.check_lora()
    folder.lora.parent.mkdir(parents=True)
    folder.lora.write_bytes(b"weights")
    with pytest.raises(CloraError, match=r"has no checksum in stages\.json: the run has not finished it; `clora run`"):
        folder.check_lora()
    folder.mark_done("export", "aa", (folder.lora,))
    assert folder.check_lora() == folder.lora
    folder.lora.write_bytes(b"Weights")
    with pytest.raises(CloraError, match="its checksum is wrong"):
        folder.check_lora()
    folder.recipe.write_text("a: 1")
    folder.write_info(evolve(RECORD, recipe=checksum_of_file(folder.recipe)))
    folder.check_recipe()
    folder.recipe.write_text("a: 2")
    with pytest.raises(CloraError, match=r"recipe\.yaml has changed since it was written; .* --run-dir"):
        folder.check_recipe()


def test_a_stage_marked_again_has_the_new_inputs(folder):
    folder.mark_done("train", "aa", ())
    folder.mark_done("train", "bb", ())
    assert not folder.stage_done("train", "aa")
    assert folder.stage_done("train", "bb")


def test_forgotten_stages_are_done_again(folder):
    for stage in ("train", "export", "evaluate"):
        folder.mark_done(stage, "aa", ())
    folder.forget("export", "evaluate", "never done")
    assert [folder.stage_done(stage, "aa") for stage in ("train", "export", "evaluate")] == [True, False, False]


def test_a_run_that_was_moved_keeps_its_stages(folder):
    folder.lora.parent.mkdir(parents=True)
    folder.lora.write_text("")
    folder.mark_done("export", "bb", (folder.lora,))
    moved = RunDir(folder.path.with_name("moved"))
    folder.path.rename(moved.path)
    assert moved.stage_done("export", "bb")


@pytest.mark.parametrize("content", ["", '{"train": {"inp', "[]", "7", "null", '{"stages": 3}'])
def test_damaged_marks_are_told_plainly(folder, content):
    folder.mark_done("train", "aa", ())
    (folder.path / "stages.json").write_text(content)
    with pytest.raises(CloraError, match=r"stages\.json is damaged"):
        folder.stage_done("train", "aa")


def test_check_writable_leaves_nothing_and_tells_a_refusal(folder, tmp_path):
    folder.check_writable()
    assert list(folder.path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(CloraError, match="cannot write"):
        RunDir(tmp_path / "file" / "run").check_writable()


def test_a_large_file_is_hashed_once_for_each_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, cache = tmp_path / "teacher.safetensors", tmp_path / "cache"
    file.write_bytes(b"one")
    read: list[Path] = []
    monkeypatch.setattr("clora.runs.run_dir.digest_file", lambda path: (read.append(path), digest_file(path))[1])
    first = digest_once(file, cache)
    assert first == digest_file(file) == digest_once(file, cache)
    assert len(read) == 1
    (kept,) = (cache / "digests").iterdir()
    kept.write_bytes(kept.read_bytes().replace(first[:4].encode(), b"0000"))
    told: list[str] = []
    assert digest_once(file, cache, told.append) == first
    assert len(read) == 2
    assert len(told) == 1
    assert kept.name in told[0]
    file.write_bytes(b"two")
    os.utime(file, ns=(5, 5))
    assert digest_once(file, cache) == digest_file(file) != first
    assert len(read) == 3
