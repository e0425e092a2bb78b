"""A run's folder: what it says of itself, which stages are done, and hashes that never change."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

import pytest

from clora.errors import CloraError
from clora.runs import RunFolder, digest_file, digest_of, digest_once


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "collection-1234")


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
    folder.write_info({"name": "collection", "steps": 3})
    folder.write_info({"name": "collection", "steps": 4})
    assert folder.info() == {"name": "collection", "steps": 4}


@pytest.mark.parametrize("content", [b"", b'{"name": "coll', b"\xff\xfe\x00", b"[1, 2]", b'"text"'])
def test_a_damaged_run_json_is_told_plainly(folder, content):
    folder.write_info({})
    (folder.path / "run.json").write_bytes(content)
    with pytest.raises(CloraError, match=r"run\.json is damaged"):
        folder.info()


def test_a_folder_that_is_no_run_is_told_plainly(folder, tmp_path):
    with pytest.raises(CloraError, match="is not a run folder"):
        folder.info()
    (tmp_path / "file").write_text("")
    with pytest.raises(CloraError, match="is not a run folder"):
        RunFolder(tmp_path / "file").info()


def test_results_that_are_missing_or_damaged_are_told_plainly(folder):
    with pytest.raises(CloraError, match="has not been evaluated"):
        folder.read_results()
    folder.results.parent.mkdir(parents=True)
    folder.results.write_text('{"clip": 0.7}')
    assert folder.read_results() == {"clip": 0.7}
    folder.results.write_text('{"clip": 0.')
    with pytest.raises(CloraError, match=r"results\.json is damaged"):
        folder.read_results()


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
    output.unlink()
    assert not folder.stage_done("export", "bb")
    assert folder.stage_done("train", "aa")


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
    moved = RunFolder(folder.path.with_name("moved"))
    folder.path.rename(moved.path)
    assert moved.stage_done("export", "bb")


@pytest.mark.parametrize("content", ["", '{"train": {"inp', "[]"])
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
        RunFolder(tmp_path / "file" / "run").check_writable()


def test_a_large_file_is_hashed_once_for_each_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, cache = tmp_path / "teacher.safetensors", tmp_path / "cache"
    file.write_bytes(b"one")
    read: list[Path] = []
    monkeypatch.setattr("clora.runs.digest_file", lambda path: (read.append(path), digest_file(path))[1])
    first = digest_once(file, cache)
    assert first == digest_file(file) == digest_once(file, cache)
    assert len(read) == 1
    file.write_bytes(b"two")
    os.utime(file, ns=(5, 5))
    assert digest_once(file, cache) == digest_file(file) != first
    assert len(read) == 2
