"""Files that a data file names: inside their folders, links followed, and regular files at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clora.files.named_files import OutsideError, UnusablePathError, located, not_a_file, open_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `in` with links to a file of its own, to a folder and a file outside, to nothing and to one another."""
    inside = tmp_path / "in"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    for file in (inside / "a.png", inside / "sub/b.png", tmp_path / "out/secret.png"):
        file.write_bytes(b"x")
    for name, target in {
        "own": "sub/b.png",
        "out": "../out/secret.png",
        "away": "../out",
        "one": "two",
        "two": "one",
        "gone": "none.png",
    }.items():
        (inside / name).symlink_to(target)
    return inside


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.png", "a.png"),
        ("sub/../a.png", "a.png"),
        ("./sub//b.png", "sub/b.png"),
        ("own", "sub/b.png"),
        ("gone", "none.png"),
        ("new.png", "new.png"),
        ("~nobody.png", "~nobody.png"),
    ],
)
def test_what_stays_inside_is_given_with_its_links_followed(folder, name, found):
    assert located(name, (folder,)) == folder / found


@pytest.mark.parametrize(
    ("name", "linked"),
    [
        ("../out/secret.png", False),
        ("sub/../../out/secret.png", False),
        ("/etc/passwd", False),
        ("out", True),
        ("away/secret.png", True),
        ("away/../in/../../x", False),
    ],
)
def test_what_leads_out_is_refused_and_links_alone_can_be_allowed(folder, name, linked):
    with pytest.raises(OutsideError) as caught:
        located(name, (folder,))
    assert caught.value.linked == linked
    if linked:
        assert located(name, (folder,), follow_links=True) == folder / name
    else:
        with pytest.raises(OutsideError):
            located(name, (folder,), follow_links=True)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000, "a/" * 100_000, "one", "\u202egnp.a"])
def test_what_is_no_path_is_refused_at_once_and_cut(folder, name):
    with pytest.raises(UnusablePathError) as caught:
        located(name, (folder,))
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_a_name_longer_than_the_file_system_takes_is_told_where_it_is_looked_up(folder):
    assert not_a_file(located("y" * 300, (folder,))) == "cannot be read: File name too long"


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_links_of_the_hugging_face_cache_lead_to_their_own_blobs(tmp_path, kind):
    repository = tmp_path / f"hub/{kind}--a--b"
    snapshot = repository / "snapshots/0123"
    (snapshot / "sub").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs/abc").write_bytes(b"x")
    (snapshot / "x.png").symlink_to("../../blobs/abc")
    (snapshot / "sub/y.png").symlink_to("../../../blobs/abc")
    (snapshot / "z.png").symlink_to("../../refs/main")
    assert located("x.png", (snapshot,)) == snapshot / "x.png"
    assert located("y.png", (snapshot / "sub",)) == snapshot / "sub/y.png"
    with pytest.raises(OutsideError):
        located("z.png", (snapshot,))
    other = tmp_path / f"hub/{kind}--c--d/snapshots/1"
    other.mkdir(parents=True)
    (other / "x.png").symlink_to(repository / "blobs/abc")
    with pytest.raises(OutsideError):
        located("x.png", (other,))


def test_pipes_devices_and_folders_are_no_files_and_are_not_waited_for(folder):
    os.mkfifo(folder / "pipe")
    (folder / "null").symlink_to("/dev/null")
    cases = {
        "pipe": "is no file but a named pipe",
        "null": "is no file but a device",
        "sub": "is a folder",
        "none": "does not exist",
        "one": "cannot be read: Too many levels of symbolic links",
    }
    for name, words in cases.items():
        assert not_a_file(folder / name) == words
        with pytest.raises(OSError, match=name):
            open_file(folder / name)
    assert not_a_file(folder / "a.png") is None
    with open_file(folder / "a.png") as file:
        assert file.read() == b"x"
