"""Bad lists of pictures and bad pictures: told by file and line, and nothing enormous is ever decoded."""

from __future__ import annotations

import json
import struct
import zlib

import pytest


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"source": "a.png",}', "1:20: not JSON: "),
        ('{"sorce": "a.png", "effect": "sepia"}', "1: unknown key 'sorce'; did you mean 'source'?"),
        ('{"source": "a.png", "effect": 3}', "1: effect must be text, found the number 3"),
        ('{"source": "a.jpg", "effect": "wool"}', "1: source 'a.jpg': there is no such picture; did you mean 'a.png'?"),
        ('{"source": "words.png", "effect": "sepia"}', "1: source data/words.png is not a picture that can be read"),
        (
            '{"source": "enormous.png", "effect": "sepia"}',
            "1: source data/enormous.png has hundreds of millions of pixels; at most 64,000,000 are read",
        ),
        (
            '{"source": "../secret.png", "effect": "sepia"}',
            "1: source '../secret.png' leads out of the file's folder; put the pictures beside the file or below it",
        ),
        ("", ": is empty"),
    ],
)  # fmt: skip
def test_a_list_of_pictures_with_a_mistake(told, folder, line, sentence):
    (folder / "data/words.png").write_text("these are words")
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)), (b"IEND", b""))
    chunks = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts]
    (folder / "data/enormous.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    (folder / "data/effects.jsonl").write_text(f"{line}\n")
    found = told(pictures=True)[0]
    assert found.startswith(f"r.yaml:3:1: dataset: data/effects.jsonl:{sentence.removeprefix(':')}"), found


def test_a_dataset_without_pictures_for_an_effect_or_a_split(told, folder):
    (folder / "data/effects.jsonl").write_text('{"source": "a.png", "effect": "sepai", "split": "train"}\n')
    assert [line.split(": dataset: ")[1] for line in told(pictures=True)] == [
        "data/effects.jsonl has no line of the effect 'thermal'; it has sepai",
        "data/effects.jsonl has no line of the effect 'sepia'; did you mean 'sepai'?",
    ]
    rows = [{"source": "a.png", "effect": effect, "split": "train"} for effect in ("thermal", "sepia")]
    (folder / "data/effects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [line.split(": dataset: ")[1] for line in told(pictures=True)] == [
        "no test pictures for the effect thermal",
        "no test pictures for the effect sepia",
    ]


def test_a_metric_that_cannot_measure_the_dataset_is_told_before_the_training(told):
    (line,) = told("dataset: {use: jsonl, effects: data/effects.jsonl, general: data/general.jsonl}\n")
    assert line.startswith("recipes/worlds/emoji.yaml:6:3: metrics.truth: the dataset does not know")
    assert line.endswith("leave this metric out with `metrics: null`")


def test_a_dataset_without_a_general_stream(told):
    assert told("dataset: {use: jsonl, effects: data/effects.jsonl}\nmetrics: null\n") == [
        "r.yaml:2:1: dataset: the general stream has no pictures"
    ]
