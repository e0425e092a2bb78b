"""The captions file: what people write in it is read, and stays when something is written beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from clora_captions.writing import put_caption
from hypothesis import given, settings, strategies as st

from clora.api import CaptionsError, WrittenCaption, fingerprint, read_captions


def answered(caption: str, request: str = "r1") -> WrittenCaption:
    return WrittenCaption(caption, "gpt-4o", request, fingerprint(caption))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "captions.yaml"


def test_a_file_that_is_not_there_has_no_captions_and_is_made_by_the_first(file):
    assert read_captions(file) == {}
    long = "redraw the subject as a monochrome ink drawing: broad, wet strokes # and no colour " * 4
    put_caption(file, "ink", answered(long.strip()))
    put_caption(file, "no", answered("yes: it is"))
    assert read_captions(file) == {"ink": answered(long.strip()), "no": answered("yes: it is")}
    assert max(len(line) for line in file.read_text().splitlines()) <= 120
    # other readers of YAML see the same
    plain = yaml.safe_load(file.read_text())
    assert [*plain] == ["ink", "no"]
    assert plain["ink"]["caption"] == long.strip()


PEOPLES = """\
# my own remark
ink: drawn in ink   # short

# about wool
wool:
  caption: |
    of wool,
    soft
  by: me
# the end
"""


def test_what_people_wrote_is_read_as_one_line(file):
    file.write_text(PEOPLES)
    assert read_captions(file) == {"ink": WrittenCaption("drawn in ink"), "wool": WrittenCaption("of wool, soft", "me")}
    assert all(entry.edited for entry in read_captions(file).values())


def test_writing_leaves_every_other_line_alone(file):
    file.write_text(PEOPLES)
    put_caption(file, "glass", answered("blown of glass"))
    assert file.read_text().startswith(PEOPLES)
    put_caption(file, "ink", answered("painted in ink"))
    text = file.read_text()
    assert read_captions(file)["ink"] == answered("painted in ink")
    for line in set(PEOPLES.splitlines()) - {"ink: drawn in ink   # short"}:
        assert line in text.splitlines()
    put_caption(file, "wool", answered("of felt"))
    assert [*read_captions(file)] == ["ink", "wool", "glass"]
    assert "# the end" in file.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "{ink: drawn in ink, wool: {caption: of wool}}",
        "  ink: drawn in ink\n  wool: of wool\n",
        "ink: &a drawn in ink\nwool: *a\n",
        "---\nink: drawn in ink\nwool: of wool\n...\n",
        "? ink\n: drawn in ink\n? wool\n: of wool\n",
        "{}",
    ],
)
def test_a_layout_without_lines_of_its_own_is_written_anew(file, text):
    file.write_text(text)
    before = dict(read_captions(file))
    put_caption(file, "glass", answered("blown of glass"))
    assert read_captions(file) == before | {"glass": answered("blown of glass")}
    put_caption(file, "ink", answered("painted in ink"))
    assert read_captions(file) == before | {"ink": answered("painted in ink"), "glass": answered("blown of glass")}


def test_only_a_caption_that_a_model_wrote_counts_as_unedited(file):
    put_caption(file, "ink", answered("drawn in ink"))
    assert not read_captions(file)["ink"].edited
    file.write_text(file.read_text().replace("drawn in", "drawn\n    in"))
    assert not read_captions(file)["ink"].edited  # other line breaks are no other words
    file.write_text(file.read_text().replace("drawn", "sketched"))
    assert read_captions(file)["ink"].edited


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- ink\n", ":1: a captions file is a mapping of effect -> caption"),
        ("ink: [", ":1: not YAML"),
        ("ink:\n  caption: turn it: into ink\n", ":2: not YAML: mapping values are not allowed in this context"),
        ("ink:\n", ":1: ink: its caption must be text, and nothing stands here"),
        ("ink: yes\n", ":1: ink: its caption must be text, and 'yes' is not; put it in quotes"),
        ("ink: {by: me}\n", ":1: ink: 'caption' is missing"),
        ("ink:\n  caption: x\n  capton: y\n", ":3: ink: unknown key 'capton'; did you mean 'caption'?"),
        ("ink:\n  caption: x\n  caption: y\n", ":3: ink: the key caption stands here twice"),
        ("ink: x\n\nink: y\n", ":3: the effect 'ink' stands in line 1 already"),
        ("? [a]\n: x\n", ":1: an effect's name must stand here"),
        ("ink: {caption: !!python/object:os.system x}\n", ":1: ink: caption must be text, and 'x' is not"),
        ("[" * 50_000, ": nested too deeply"),
        (b"\xff\xfe\xff", ": the captions file is not text in UTF-8"),
        ("#" * ((4 << 20) + 1), ": the captions file is larger than 4 MB"),
    ],
)
def test_a_mistake_is_told_at_its_line_and_nothing_is_written_over_it(file, text, said):
    raw = text.encode() if isinstance(text, str) else text
    file.write_bytes(raw)
    with pytest.raises(CaptionsError) as error:
        read_captions(file)
    assert str(error.value).startswith(f"{file}{said}")
    with pytest.raises(CaptionsError):
        put_caption(file, "wool", answered("of wool"))
    assert file.read_bytes() == raw


def test_all_mistakes_are_told_and_a_folder_is_one(file):
    file.write_text("a: ''\nb: []\nc: fine\nd: 3\n")
    with pytest.raises(CaptionsError) as error:
        read_captions(file)
    assert [line.split(":")[1] for line in str(error.value).splitlines()] == ["1", "2", "4"]
    with pytest.raises(CaptionsError, match="is a folder"):
        read_captions(file.parent)


def test_digests_that_look_like_numbers_are_read_as_they_are(file):
    file.write_text("ink:\n  caption: drawn\n  request: 0123456789012345\n  answer: 12e4\n")
    assert read_captions(file)["ink"] == WrittenCaption("drawn", "", "0123456789012345", "12e4")
    put_caption(file, "ink", WrittenCaption("drawn", "1.5", "0123", "1e3"))
    assert read_captions(file)["ink"] == WrittenCaption("drawn", "1.5", "0123", "1e3")


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=40)
names = st.from_regex(r"\A\w[\w-]{0,8}\Z") | st.sampled_from(["no", "1e3", "null", "0x1", "~"])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, words), min_size=1, max_size=5))
def test_whatever_is_put_is_read_again(tmp_path_factory, entries):
    file = tmp_path_factory.mktemp("captions") / "c.yaml"
    expected: dict[str, WrittenCaption] = {}
    for name, caption in entries:
        caption = " ".join(caption.split())
        if not caption or not caption.isprintable():
            continue
        expected[name] = answered(caption)
        put_caption(file, name, expected[name])
        assert read_captions(file) == expected
