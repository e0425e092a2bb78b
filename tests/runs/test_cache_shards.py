"""Shards: what is written is read back, whatever befalls a file on disk is found and told."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
import torch

from clora.errors import CloraError
from clora.runs.cache_shards import Shards
from clora.runs.files import tensors

RECORDS = {
    "a1": {"text": torch.arange(12, dtype=torch.bfloat16).reshape(3, 4), "pooled": torch.ones(2)},
    "b2": {"text": torch.zeros(0, 4)},
}


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Shards(tmp_path).write(RECORDS)
    return tmp_path


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_records_come_back_as_they_were(folder: Path, told: list[str]) -> None:
    shards = Shards(folder, told.append)
    for key, record in RECORDS.items():
        found = shards.read(key)
        assert found is not None
        assert found.keys() == record.keys()
        assert all(found[name].equal(record[name]) and found[name].dtype == record[name].dtype for name in record)
    assert shards.read("c3") is None
    assert "c3" not in shards
    assert not told


def test_another_process_sees_what_was_written_after_refresh(folder: Path) -> None:
    reader, writer = Shards(folder), Shards(folder)
    writer.write({"c3": {"text": torch.ones(1)}})
    assert "c3" not in reader
    reader.refresh()
    assert "c3" in reader
    assert "a1" in reader


def test_every_flipped_bit_is_found(folder: Path, told: list[str]) -> None:
    path = only_file(folder)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):  # header and data alike
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        told.clear()
        shards = Shards(folder, told.append)
        found = [shards.read(key) for key in RECORDS]
        assert found == [None, None], place
        assert len(told) == 1
        assert "\n" not in told[0]
        assert str(path) in told[0]
        assert not path.exists()


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_a_truncated_file_is_found_and_can_be_written_again(folder: Path, told: list[str], left: int) -> None:
    path = only_file(folder)
    path.write_bytes(path.read_bytes()[:left])
    shards = Shards(folder, told.append)
    assert "a1" not in shards
    assert "damaged" in told[0]
    shards.write(RECORDS)
    assert Shards(folder, told.append).read("a1") is not None
    assert len(told) == 1


def test_a_file_removed_while_it_is_known_is_a_miss(folder: Path, told: list[str]) -> None:
    shards = Shards(folder, told.append)
    only_file(folder).unlink()
    assert shards.read("a1") is None
    assert "a1" not in shards


def test_check_reads_only_the_files_of_its_part(tmp_path: Path, told: list[str]) -> None:
    for name in "abcd":
        Shards(tmp_path).write({name: {"text": torch.ones(3)}})
    for path in tmp_path.iterdir():
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(bytes(raw))
    Shards(tmp_path, told.append).check("abcd", part=0, parts=2)
    assert len(told) == 2
    Shards(tmp_path, told.append).check("ab", part=0, parts=1)
    assert len(list(tmp_path.iterdir())) == 4 - len(told)


def test_a_sound_file_is_read_through_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = Shards(folder)
    calls = []
    real = tensors.checksum_of_tensors
    monkeypatch.setattr(tensors, "checksum_of_tensors", lambda *named: calls.append(1) or real(*named))
    assert shards.read("a1")
    assert shards.read("b2")
    assert len(calls) == 1


def test_leftovers_of_killed_writers_go_once_they_are_old(folder: Path) -> None:
    new, old = folder / ".x.safetensors.1.tmp", folder / ".y.safetensors.2.tmp"
    for path in (new, old):
        path.write_bytes(b"torn")
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    Shards(folder).check([])
    assert new.exists()
    assert not old.exists()


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only")])
def test_a_disk_that_refuses_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tensors, "save_file", refuse)
    shards = Shards(folder)
    with pytest.raises(CloraError, match=words):
        shards.write({"c3": {"text": torch.ones(1)}})
    assert "c3" not in shards
    assert len(list(folder.iterdir())) == 1


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CloraError, match="is a file, not a folder"):
        Shards(tmp_path / "file" / "below").write(RECORDS)


def test_a_file_of_another_folder_is_not_taken_for_this_ones(tmp_path: Path, told: list[str]) -> None:
    """Teachers' outputs of two effects for one picture lie under one key in two folders."""
    for name, value in (("duotone", 0.0), ("mirror", 1.0)):
        Shards(tmp_path / name).write({"cat": {"latents": torch.full((2,), value)}})
    only_file(tmp_path / "duotone").replace(only_file(tmp_path / "mirror"))
    assert Shards(tmp_path / "mirror", told.append).read("cat") is None
    assert "its checksum is wrong" in told[0]


def test_a_folder_in_the_place_of_a_file_is_kept_aside(folder: Path, told: list[str]) -> None:
    path = only_file(folder)
    path.unlink()
    path.mkdir()
    shards = Shards(folder, told.append)
    assert shards.read("a1") is None
    shards.write(RECORDS)
    assert Shards(folder, told.append).read("a1") is not None
    assert path.with_name(f"{path.name}.damaged").is_dir()
