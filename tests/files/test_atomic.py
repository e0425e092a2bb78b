"""Atomic writes: the old file or the new one, nothing left over, and refusals told in plain words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from clora.errors import CloraError
from clora.files.atomic import told_plainly, write_atomic, write_atomic_with, write_folder


class Interrupted(Exception):  # noqa: N818 - a stand-in for whatever may stop a writer
    pass


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("data", "raw"), [("grün\n", "grün\n".encode()), (b"\x00\xff", b"\x00\xff")])
def test_write_atomic_makes_folders_and_replaces_the_content(tmp_path, data, raw):
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, "before, and longer than after")
    write_atomic(path, data)
    assert path.read_bytes() == raw
    assert everything_in(path.parent) == ["file"]


def test_a_writer_that_fails_leaves_the_old_content_and_no_litter(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise Interrupted

    with pytest.raises(Interrupted):
        write_atomic_with(path, half)
    assert path.read_text() == "old"
    assert everything_in(tmp_path) == ["file"]


def test_nothing_is_in_place_before_the_writer_is_done(tmp_path):
    path = tmp_path / "file"
    seen = []

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append(path.exists())
        assert temporary.parent == path.parent  # on the same file system, so that the rename is atomic

    write_atomic_with(path, write)
    assert seen == [False]
    assert path.read_text() == "new"


def test_a_folder_is_put_in_place_whole(tmp_path):
    path = tmp_path / "deep" / "000005"

    def fill(folder: Path) -> None:
        (folder / "a").write_text("1")
        assert not path.exists()
        (folder / "b").write_text("2")

    write_folder(path, fill)
    assert everything_in(path) == ["a", "b"]
    assert everything_in(path.parent) == ["000005"]


def test_a_folder_replaces_one_of_the_same_name(tmp_path):
    path = tmp_path / "000005"
    write_folder(path, lambda folder: (folder / "old").write_text("x") and None)
    write_folder(path, lambda folder: (folder / "new").write_text("y") and None)
    assert everything_in(path) == ["new"]
    assert everything_in(tmp_path) == ["000005"]


def test_a_folder_whose_filling_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "000005"
    write_folder(path, lambda folder: (folder / "old").write_text("x") and None)

    def half(folder: Path) -> None:
        (folder / "new").write_text("y")
        raise Interrupted

    with pytest.raises(Interrupted):
        write_folder(path, half)
    assert everything_in(path) == ["old"]
    assert everything_in(tmp_path) == ["000005"]


def test_an_old_folder_is_never_seen_torn(tmp_path, monkeypatch):
    """Killed at any moment, a reader finds the whole old folder, the whole new one or none."""
    path = tmp_path / "000005"
    old, new = ["a", "b", "c"], ["d", "e"]

    def filled_with(names: list[str]):
        return lambda folder: [(folder / name).write_text(name) for name in names] and None

    write_folder(path, filled_with(old))
    seen = []
    for module, name in [(os, "unlink"), (os, "rename"), (os, "rmdir"), (os, "fsync")]:
        real = getattr(module, name)

        def spying(*args, real=real, **more):
            result = real(*args, **more)
            seen.append(everything_in(path) if path.exists() else None)
            return result

        monkeypatch.setattr(module, name, spying)
    write_folder(path, filled_with(new))
    monkeypatch.undo()
    assert seen
    assert [state for state in seen if state not in (old, new, None)] == []
    assert everything_in(path) == new


def test_a_leftover_of_a_killed_process_is_no_obstacle(tmp_path):
    (tmp_path / f".000005.{os.getpid()}.tmp").mkdir()
    (tmp_path / f".000005.{os.getpid()}.tmp" / "torn").write_text("")
    write_folder(tmp_path / "000005", lambda folder: (folder / "a").write_text("1") and None)
    assert everything_in(tmp_path / "000005") == ["a"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EACCES, "no permission"),
        (errno.EPERM, "no permission"),
        (errno.EROFS, "read-only"),
    ],
)
def test_refusals_of_the_system_are_told_plainly(tmp_path, monkeypatch, number, words):
    path = tmp_path / "file"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(CloraError, match=words) as told:
        write_atomic(path, "new")
    assert str(path) in str(told.value)
    assert path.read_text() == "old"
    assert everything_in(tmp_path) == ["file"]
    with pytest.raises(CloraError, match=words):
        write_folder(tmp_path / "folder", refuse)
    assert everything_in(tmp_path) == ["file"]


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EFBIG, "larger than allowed")])
def test_an_error_that_has_the_systems_number_only_in_its_words_is_told_too(tmp_path, number, words):
    """safetensors raises an error of its own, which is no OSError."""

    def refuse(_: Path) -> None:
        raise RuntimeError(f"Error while serializing: I/O error: something (os error {number})")

    with pytest.raises(CloraError, match=words):
        write_atomic_with(tmp_path / "file", refuse)


def test_other_errors_pass_through_as_they_are(tmp_path):
    with pytest.raises(OSError, match="strange") as raised, told_plainly(tmp_path):
        raise OSError(errno.EIO, "strange")
    assert not isinstance(raised.value, CloraError)
    with pytest.raises(KeyError), told_plainly(tmp_path):
        raise KeyError("x")
    with pytest.raises(CloraError, match="ours"), told_plainly(tmp_path):
        raise CloraError("ours")


@pytest.mark.parametrize("below", ["x", "y/x", "z/y/x"])
def test_a_file_where_a_folder_should_be_is_told_plainly(tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CloraError, match="is a file, not a folder"):
        write_atomic(tmp_path / "file" / below, "")
    with pytest.raises(CloraError, match="is a file, not a folder"):
        write_folder(tmp_path / "file" / below, lambda folder: None)


def test_a_folder_where_a_file_should_be_is_told_plainly(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CloraError, match="a folder has that name"):
        write_atomic(tmp_path / "folder", "")
    assert everything_in(tmp_path) == ["folder"]
