"""The report's page: whole, self-contained, escaped, readable without pictures."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from clora_report.page import page

from clora.api import (
    Composition,
    Cost,
    EffectReport,
    Matrix,
    Measured,
    PictureGrid,
    Quantity,
    Reference,
    RunInfo,
    RunReport,
    StepReport,
)

EVIL = "<script>alert('x')</script>\" onload=\"x"
VOID = {"img", "meta", "br", "line", "path", "rect", "circle"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in VOID, f"{tag} must close itself: inside SVG it would swallow what follows"
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def some(count: int, seed: int = 0, size: int = 8) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)


def report(title: str = "t", **parts: Any) -> RunReport:
    return RunReport(RunInfo("mine", Path("runs/mine"), "d1", 49), title, **parts)


def example(name: str = "duotone", other: str = "mirror") -> RunReport:
    roles = {role: some(3, seed) for seed, role in enumerate(("source", "truth", "teacher", "student"))}
    pictures = PictureGrid(("cat", "dog", "fox"), roles)
    general = {role: some(2, seed) for seed, role in enumerate(("source", "truth", "base", "student"))}
    row = {"bad_case_rate": 0.25, "distance": 0.01, "teacher_bad_case_rate": 0.125}
    measured = Measured(
        values={**row, "general_distance": 0.02, "general_distance_base": 0.01},
        quantities={
            "general_distance": Quantity("lower"),
            "bad_case_rate": Quantity("lower", "%", headline=True),
            "distance": Quantity("lower", headline=True),
            "teacher_bad_case_rate": Quantity("lower", "%", reference=Reference("teacher", "bad_case_rate")),
            "general_distance_base": Quantity("lower", reference=Reference("base", "general_distance")),
        },
        per_effect={name: row, other: row},
        matrices={
            "bleed": Matrix(
                (name, other), (name, other, "source"), ((0.75, 0.25, 0.0), (0.0, 1.0, 0.0)), name, "", True
            )
        },
    )
    return report(
        f"Two effects: {name}",
        verdict=f"It worked for {name}.",
        facts={"effects": "2", "note": name},
        recipe=f"name: {name}\n",
        effects=tuple(EffectReport(n, f"<{n}_X> caption of {n}", "a vague prompt", pictures) for n in (name, other)),
        general=PictureGrid(("invert it", name), general),
        compositions=(Composition((name, other), f"{name}, then {other}", PictureGrid(("cat",), {"both": some(1)})),),
        steps=tuple(StepReport(i, {name: 1.0 / i}, 1.0, 3.0, 1e-3, {f"{name}.gap": 0.5}) for i in range(1, 50)),
        measured=measured,
        cost=Cost(213.4, 400, 33.7, 1_500_000_000, {"prepare": 20.0}),
        machine={"processor": "abacus"},
        versions={"clora": "0.1.0"},
        warnings=(f"plugin {name} is broken",),
    )


def test_every_part_is_there():
    reader = Reader(page(example()))
    ids = {attributes.get("id") for _, attributes in reader.tags}
    assert ids >= {"numbers", "effects", "tables", "compositions", "general", "training", "cost", "recipe", "effect-1"}
    links = {a["href"] for tag, a in reader.tags if tag == "a"}
    assert {link[1:] for link in links if link} <= ids, "every link leads to a part of the page"
    text = " ".join(reader.text)
    for words in (
        "Two effects: duotone", "It worked for duotone.", "25.0 %", "teacher 12.5 %", "teacher (reference)",
        "base (reference)", "<duotone_X> caption of duotone",
        "caption of mirror", "a vague prompt", "invert it", "duotone, then mirror",
        "losses", "gap", "student update", "3 min 33 s", "33.7", "1.40 GiB", "name: duotone", "0.1.0", "abacus",
        "plugin duotone is broken",
    ):  # fmt: skip
        assert words in text, words


def test_nothing_is_fetched():
    text = page(example())
    reader = Reader(text)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in reader.tags}
    for tag, attributes in reader.tags:
        for key in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, key, value)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text).replace("http-equiv", "")
    assert any("default-src 'none'" in (a.get("content") or "") for tag, a in reader.tags if tag == "meta")


def test_what_a_recipe_or_bank_says_stays_text():
    reader = Reader(page(example(EVIL, "a & b")))
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not any("onload" in attributes for _, attributes in reader.tags)
    assert any(EVIL in text for text in reader.text)


def test_text_that_no_file_can_hold_is_replaced():
    text = page(example("lone \ud800 surrogate and \0"))
    assert text.encode("utf-8")
    assert "\0" not in text
    assert "lone ? surrogate and \ufffd" in text


def test_it_can_be_read_without_seeing_it():
    reader = Reader(page(example()))
    for tag, attributes in reader.tags:
        if tag == "img":
            assert attributes["alt"], "every picture says what it shows"
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
        if tag == "svg" and "x" not in attributes:
            assert attributes["role"] == "img"
            assert " at step 1 to " in (attributes["aria-label"] or "")
    assert "lower is better" in {a.get("aria-label") for _, a in reader.tags}
    assert ("html", {"lang": "en"}) in reader.tags


def test_empty_parts_are_left_out():
    reader = Reader(page(report("Nothing yet")))
    assert "section" not in {tag for tag, _ in reader.tags}
    bare = attrs.evolve(example(), measured=Measured({}), general=None, steps=(), compositions=())
    ids = {a.get("id") for _, a in Reader(page(bare)).tags}
    assert "effects" in ids
    assert not ids & {"numbers", "tables", "general", "training", "compositions"}


def measuring(values: dict[str, float], **quantities: Quantity) -> RunReport:
    return report(measured=Measured(values, quantities))


def test_the_headlines_are_those_that_the_metrics_name_in_their_order():
    text = page(
        measuring({"a": 1.0, "b": 2.0, "c": 3.0}, c=Quantity("higher", headline=True), a=Quantity(headline=True))
    )
    top = text[: text.index("<nav")]
    assert top.index("3.00") < top.index("1.00")
    assert "2.00" not in top
    assert top.count("is better") == 2 * 1, "a number without a direction has no arrow, and one is told in two ways"


def test_several_references_of_a_headline_are_told_apart():
    references = {name: Quantity(reference=Reference(who, "d")) for name, who in (("x", "draws"), ("y", "teacher"))}
    text = page(measuring({"d": 1.0, "x": 2.0, "y": 3.0}, d=Quantity(headline=True), **references))
    assert "draws 2.00, teacher 3.00" in text[: text.index("<nav")]


def test_without_headlines_the_first_four_numbers_are_shown():
    text = page(measuring({name: float(i) for i, name in enumerate("abcdef", 1)}))
    top = text[: text.index("<nav")]
    assert "4.00" in top
    assert "5.00" not in top


def test_nothing_is_guessed_from_a_name():
    text = page(measuring({"loss_rate": 0.5, "d": 1.0, "teacher_d": 2.0, "d_base": 3.0}))
    assert "50.0 %" not in text
    assert "(reference)" not in text
    assert "is better" not in text


def test_a_unit_stands_behind_its_number():
    text = page(measuring({"psnr": 31.25, "share": 0.5}, psnr=Quantity("higher", "dB"), share=Quantity(unit="%")))
    assert "31.2 dB" in text
    assert "50.0 %" in text


def test_a_table_of_a_metric_is_shown_with_its_unit_and_sentence():
    table = Matrix(("clay",), ("red", "blue"), ((12.5, 0.25),), note="What colours came.", unit="dB")
    text = page(report(measured=Measured({}, matrices={"colour_noise": table})))
    assert "What colours came." in text
    assert "Colour noise" in text
    assert "<td>12.5 dB</td><td>0.250 dB</td>" in text


def test_pictures_of_a_metric_are_shown_with_their_sentence():
    grid = PictureGrid(("clay", "ink"), {"truth": some(2), "student": some(2, 1)}, "The worst of each effect.")
    text = page(report(measured=Measured({}, grids={"worst_cases": grid})))
    assert "The worst of each effect." in text
    assert 'alt="worst cases. Rows: truth, student. Columns: clay, ink."' in text


def test_the_first_screen_shows_the_teacher_where_no_truth_is_known():
    rows = {role: some(1, seed) for seed, role in enumerate(("source", "teacher", "student"))}

    def seen(**more: torch.Tensor) -> str:
        return page(report(effects=(EffectReport("thermal", "", "", PictureGrid(("cat",), {**rows, **more})),)))

    assert "thermal on cat: source, teacher, student" in seen()
    known = seen(truth=some(1))
    assert "teacher" not in known[known.index("thermal on cat") :].split('"')[0]


def test_values_that_are_not_finite_are_dashes():
    measured = Measured({"distance": float("nan")}, {"distance": Quantity(unit="%")}, {"a": {"distance": float("nan")}})
    assert "–" in page(report(measured=measured))


@pytest.mark.parametrize("effects", [2, 50])
def test_size_stays_small(effects: int):
    names = [f"effect-{i}" for i in range(effects)]
    grid = PictureGrid(("a",) * 8, {role: some(8, i, 32) for i, role in enumerate(("source", "student"))})
    text = page(report(effects=tuple(EffectReport(name, "", "", grid) for name in names)))
    # Noise cannot be compressed: 16 pictures of 3 kB an effect, two more in the first screen, times 4/3, and words.
    assert len(text) < 20_000 + effects * 18 * 3072 * 1.7
