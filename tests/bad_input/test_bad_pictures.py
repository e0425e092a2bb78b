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


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            "effects: {sepia: {sorce: data}}",
            "2:44: unknown key 'sorce' in dataset.effects.sepia; did you mean 'source'?",
        ),
        (
            "effects: {sepia: {source: data, target: [x]}}",
            "2:66: dataset.effects.sepia.target: expected a path, found a list",
        ),
        ("effects: [data]", "2:35: dataset.effects: expected a path or a mapping or null, found a list"),
        ("effects: {}", "2:1: dataset: give it `effects`, `general` or both, each a list or a folder"),
        ("effects: data, size: [512]", "2:47: dataset.size: expected an integer or a list of 2 integers"),
        ("effects: data, size: [512, 0]", "2:47: dataset.size must be between 1 and 8000, found 0"),
        ("effects: data, size: [8001, 64]", "2:47: dataset.size must be between 1 and 8000, found 8001"),
        ("effects: data, fit: crp", "2:46: dataset.fit: expected one of pad, crop, found 'crp'; did you mean 'crop'?"),
        ("effects: data, fit: crop", "2:1: dataset: fit: crop needs a `size` to crop to"),
    ],
)
def test_a_dataset_of_pictures_with_a_mistake(told, keys, sentence):
    found = told(f"dataset: {{use: pictures, {keys}}}\n")
    assert any(line.startswith(f"r.yaml:{sentence}") for line in found), found


def test_every_mistake_of_every_effects_place_is_told_at_once(told, folder):
    (folder / "data/pairs/target").mkdir(parents=True)
    (folder / "data/pairs/source").mkdir()
    for name in ("source/one.png", "target/two.png"):
        (folder / "data/pairs" / name).write_bytes((folder / "data/a.png").read_bytes())
    (folder / "data/sepia.jsonl").write_text('{"image_path": "a.png", "caption": "x"}\n\n{"control_path": "c.png"}\n')
    (folder / "data/metadata.csv").write_text("image,prompt\na.png,x\n")
    found = told("""
        dataset:
          use: pictures
          effects: {thermal: data/pairs, sepia: data/sepia.jsonl}
          general: data/metadata.csv
          size: [32, 32]
        metrics: null
        """)
    assert [line.split(": dataset: ")[1] for line in found] == [
        "data/pairs/target: 'two.png' has no source of that name in data/pairs/source",
        "data/sepia.jsonl:1: 'source' is missing; 'image_path' is the target (musubi-tuner), its source is "
        "'control_path'",
        "data/sepia.jsonl:3: source 'c.png': there is no such picture",
        "data/metadata.csv:2: 'image' beside 'prompt' is the source in our lists and the target in DiffSynth-Studio's; "
        "write 'source', or give its source as 'edit_image'",
    ]


def test_a_metric_that_cannot_measure_the_dataset_is_told_before_the_training(told):
    (line,) = told("dataset: {use: jsonl, effects: data/effects.jsonl, general: data/general.jsonl}\n")
    assert line.startswith("r.yaml:1:10 -> recipes/collection.yaml:4:16 -> recipes/worlds/emoji.yaml:6:3: ")
    assert "metrics.truth: the dataset does not know" in line
    assert line.endswith("leave this metric out with `metrics: null`")


def test_a_dataset_without_a_general_stream(told):
    assert told("dataset: {use: jsonl, effects: data/effects.jsonl}\nmetrics: null\n") == [
        "r.yaml:2:1: dataset: the general stream has no pictures"
    ]
