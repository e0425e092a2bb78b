"""Small valid files of every layout, damaged at random from a seed: only bounded sentences on the file come out."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clora.cli.inspect import as_json
from clora.cli.inspect_text import as_text
from clora.lora_io.base_weights import BaseWeights
from clora.lora_io.check import check_lora
from clora.lora_io.header import LoraFileError
from clora.lora_io.reader import read_lora
from clora.lora_io.survey import survey
from clora.lora_io.teacher import judge

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

LONGEST = 1_200
ROUNDS = 4  # of every mutation, for every layout
ODD = (None, True, -1, 0, 1, 3, 1.5, 1 << 62, 1 << 64, "x" * 9000, "\x1b[2J", [], [9] * 9, {}, {"a": [1]})
TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "U8", "BOOL", "Q4", "F4", "C64")


def parts(content: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + length], content[8 + length :]


def joined(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def flipped_header(content: bytes, draw: random.Random) -> bytes:
    header, data = parts(content)
    letters = bytearray(header)
    for _ in range(draw.randint(1, 3)):
        letters[draw.randrange(len(letters))] = draw.randrange(256)
    return joined(bytes(letters), data)


def flipped_anywhere(content: bytes, draw: random.Random) -> bytes:
    letters = bytearray(content)
    letters[draw.randrange(len(letters))] ^= 1 << draw.randrange(8)
    return bytes(letters)


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def grown(content: bytes, draw: random.Random) -> bytes:
    return content + draw.randbytes(draw.randint(1, 40))


def other_numbers(content: bytes, draw: random.Random) -> bytes:
    header, data = parts(content)
    at = draw.randrange(max(1, len(data) - 8))
    odd = draw.choice((b"\xff", b"\x7f", b"\x80", b"\x00", b"\x7e"))
    return joined(header, data[:at] + odd * min(8, len(data) - at) + data[at + 8 :])


def other_field(content: bytes, draw: random.Random) -> bytes:
    """A field of one tensor becomes something else, or another tensor's."""
    header, data = parts(content)
    tree = json.loads(header)
    names = [name for name in tree if name != "__metadata__"]
    key = draw.choice(("dtype", "shape", "data_offsets"))
    name, other = draw.choice(names), draw.choice(names)
    options = [tree[other][key], draw.choice(ODD), draw.choice(TYPES), [draw.choice(ODD) for _ in range(2)]]
    tree[name][key] = draw.choice(options)
    return joined(tree, data)


def other_type(content: bytes, draw: random.Random) -> bytes:
    header, data = parts(content)
    was = draw.choice(("F32", "F64"))
    return joined(header.replace(f'"{was}"'.encode(), f'"{draw.choice(TYPES)}"'.encode()), data)


def turned_shapes(content: bytes, draw: random.Random) -> bytes:
    header, data = parts(content)
    tree = json.loads(header)
    for name, entry in tree.items():
        if name != "__metadata__" and draw.random() < 0.5:
            entry["shape"] = draw.choice((entry["shape"][::-1], [1, *entry["shape"]], [*entry["shape"], 1]))
    return joined(tree, data)


def other_names(content: bytes, draw: random.Random) -> bytes:
    """Names are swapped, lose an end, or take on another's ending."""
    header, data = parts(content)
    tree = json.loads(header)
    names = [name for name in tree if name != "__metadata__"]
    name, other = draw.sample(names, 2)
    new = draw.choice(
        (other, name[:-1], name[3:], f"{name}.{other}", other.rpartition(".")[0] + ".alpha", "\u202e" + name)
    )
    renamed = {new if key == name else key: entry for key, entry in tree.items()}
    return joined(renamed, data)


def other_metadata(content: bytes, draw: random.Random) -> bytes:
    header, data = parts(content)
    tree = json.loads(header)
    texts = (
        "",
        "{",
        "[1]",
        '{"lora_alpha": 1e308}',
        '{"lora_alpha": -0.0}',
        '{"transformer.lora_alpha": [1]}',
        "9" * 5000,
    )
    keys = ("lora_adapter_metadata", "ss_network_dim", "ss_network_alpha", "clora", "modelspec.title")
    tree["__metadata__"] = {draw.choice(keys): draw.choice(texts) for _ in range(3)}
    if draw.random() < 0.2:
        tree["__metadata__"] = draw.choice(ODD)
    return joined(tree, data)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped_header, flipped_anywhere, cut, grown, other_numbers, other_field, other_type, turned_shapes, other_names,
    other_metadata,
)  # fmt: skip


def sentences(path: Path, shapes: dict[str, tuple[int, int]]) -> Iterator[str]:
    """All that is said of a file, by everything that reads one."""
    yield from check_lora(path, shapes, data=True)
    for strength in (None, "header", 0.5):
        judged = judge(path, shapes, BaseWeights("BF16", 0.1), strength=strength)
        yield from (*judged.problems, *judged.warnings)
    for known in (shapes, None):
        found = survey(path, known)
        yield from (*found.problems, *found.doubts)
        yield from as_text(found, FITS, every=True).splitlines()
        json.dumps(as_json(found), allow_nan=False)
        try:
            read_lora(path, known)
        except LoraFileError as error:
            yield from str(error).splitlines()


class _Fits:
    name, shapes = "none", None


FITS = _Fits()


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_damaged_file_is_told_in_bounded_sentences(written, shapes, mutate):
    path, layout = written
    whole = path.read_bytes()
    assert read_or_dora(path, shapes)
    for turn in range(ROUNDS):
        draw = random.Random(f"{layout}/{mutate.__name__}/{turn}")
        path.write_bytes(mutate(whole, draw))
        for sentence in sentences(path, shapes):
            assert len(sentence) < LONGEST, sentence[:2000]
            assert sentence.isprintable(), sentence


def read_or_dora(path: Path, shapes: dict[str, tuple[int, int]]) -> bool:
    """Whether the file was readable before it was damaged; DoRA is, beside its base."""
    try:
        return bool(read_lora(path, shapes).deltas)
    except LoraFileError as error:
        return "which can only be read together with the base's weights" in str(error)
