"""Tensors with a checksum: what is damaged is told and made again, and stays in its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from damage import WAYS, damage
from safetensors.torch import load_file, save_file

from clora.runs.files.checksums import DamagedError, make_way, set_aside
from clora.runs.files.leftovers import sweep
from clora.runs.files.tensors import kept_tensors, read_tensors, seal_tensors, write_tensors

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3, dtype=torch.uint8)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "thermal-1.safetensors", TENSORS)
    return tmp_path / "thermal-1.safetensors"


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("another of its kind",)])
def test_a_damaged_file_is_made_again_with_a_word(file: Path, way: str) -> None:
    whole = file.read_bytes()
    damage(file, way)
    told: list[str] = []
    found = kept_tensors(file, lambda: TENSORS, told.append)
    assert all(found[name].equal(TENSORS[name]) for name in TENSORS)
    assert file.read_bytes() == whole
    assert bool(told) == (way not in ("deleted", "renamed"))
    assert all(file.name in line for line in told)


def test_every_flipped_bit_is_found(file: Path) -> None:
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(DamagedError, match="is damaged"):
            read_tensors(file)


def test_a_file_in_anothers_place_is_not_taken(file: Path) -> None:
    file.rename(file.with_name("thermal-2.safetensors"))
    with pytest.raises(DamagedError, match="its checksum is wrong"):
        read_tensors(file.with_name("thermal-2.safetensors"))


def test_a_file_of_others_has_no_checksum_until_it_is_sealed(file: Path) -> None:
    save_file(TENSORS, file, {"who": "somebody"})
    with pytest.raises(DamagedError, match="its checksum is missing"):
        read_tensors(file)
    seal_tensors(file, file.name)
    assert read_tensors(file)["b"].equal(load_file(file)["b"])


def test_what_is_set_aside_gets_a_name_that_is_free(tmp_path: Path) -> None:
    for _ in range(3):
        (tmp_path / "x").mkdir()
        make_way(tmp_path / "x", lambda text: None)
    (tmp_path / "x").write_text("")
    make_way(tmp_path / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.damaged", "x.damaged-2", "x.damaged-3"]
    assert set_aside(tmp_path / "x").name == "x.damaged-4"


def test_leftovers_alone_are_swept(tmp_path: Path) -> None:
    ours = [".a.json.7-0123abcd.tmp", "deep/.b.7-0123abcd.old", ".000002.77.tmp", "deep/.tmpAbC123"]
    theirs = [".gitignore", ".a.tmp", "a.7-0123abcd.tmp", "deep/b", ".tmp-of-mine"]
    for name in (*ours, *theirs):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert sweep(tmp_path, older=3600) == 0
    assert sweep(tmp_path) == len(ours)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(theirs)


def test_a_whole_old_folder_gets_its_name_back(tmp_path: Path) -> None:
    (tmp_path / ".000004.7-0123abcd.old").mkdir()
    (tmp_path / ".000004.7-0123abcd.old" / "state").write_text("whole")
    sweep(tmp_path)
    assert (tmp_path / "000004" / "state").read_text() == "whole"
