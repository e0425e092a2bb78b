"""The shipped recipes, spoilt in hundreds of seeded ways: each loads, or is refused in short lines with a place."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from clora.config import load_recipe
from clora.errors import CloraError
from clora.plugin_system.discovery import Catalogue, discover

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = sorted(path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*.yaml"))
#: spoilt texts of each recipe
TEXTS = 80

HOSTILE = (
    *("null", "~", "''", "[]", "{}", "true", "yes", "-1", "0", "1e400", "-1e308", "1e-320", ".inf", ".nan", "010"),
    *("9" * 5_000, "1" + "0" * 60, "0x10", "1:30", "a" * 20_000, '"' + "\\u202e" * 50 + '"', r'"\0"', r'"\ud800"'),
    *("[" * 200, "{" * 200, "- - - a", "&a [*a]", "*nothing", "!!python/none x", "!" + "t" * 3_000 + " x", "? x", "|"),
    *("'", '"', "%", "@", "`", ": :", "- x", "<<: {a: b}", "/etc/passwd", "../../../../../../../etc/passwd", "~/x"),
    *("~nobody-of-this-name", "a/" * 2_500, "b" * 300, "\x07", "\t", "\ufeff", "\u2028", "é" * 200, "${HOME}", "$(id)"),
)  # fmt: skip

Way = Callable[[random.Random, list[str]], list[str]]


def dropped(rng: random.Random, lines: list[str]) -> list[str]:
    at = rng.randrange(len(lines))
    return lines[:at] + lines[at + 1 :]


def doubled(rng: random.Random, lines: list[str]) -> list[str]:
    at = rng.randrange(len(lines))
    return lines[: at + 1] + lines[at:]


def swapped(rng: random.Random, lines: list[str]) -> list[str]:
    lines = list(lines)
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return lines


def cut(rng: random.Random, lines: list[str]) -> list[str]:
    text = "\n".join(lines) + "\n"
    return text[: rng.randrange(len(text))].split("\n")


def indented(rng: random.Random, lines: list[str]) -> list[str]:
    lines = list(lines)
    at = rng.randrange(len(lines))
    lines[at] = " " * rng.choice([1, 3, 2_000]) + lines[at]
    return lines


def revalued(rng: random.Random, lines: list[str]) -> list[str]:
    """One value, of a block or of a flow mapping, is a hostile one."""
    lines = list(lines)
    at = rng.choice([i for i, line in enumerate(lines) if ":" in line] or [0])
    places = list(re.finditer(r"(?<=: )[^,{}\[\]#]+", lines[at])) or [re.search(r"$", lines[at])]
    place = rng.choice(places)
    assert place is not None
    lines[at] = f"{lines[at][: place.start()]} {rng.choice(HOSTILE)}{lines[at][place.end() :]}"
    return lines


def rekeyed(rng: random.Random, lines: list[str]) -> list[str]:
    lines = list(lines)
    at = rng.randrange(len(lines))
    lines[at] = re.sub(r"[A-Za-z_]+(?=:)", lambda _: rng.choice(HOSTILE), lines[at], count=1)
    return lines


def flipped(rng: random.Random, lines: list[str]) -> list[str]:
    text = list("\n".join(lines) + "\n")
    for _ in range(rng.randint(1, 5)):
        text[rng.randrange(len(text))] = chr(rng.choice([rng.randrange(1, 128), rng.randrange(0xA0, 0xD7FF)]))
    return "".join(text).split("\n")


ALL_WAYS: tuple[Way, ...] = (dropped, doubled, swapped, cut, indented, revalued, revalued, revalued, rekeyed, flipped)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return discover()


def short_lines_with_places(error: CloraError) -> None:
    for line in str(error).split("\n"):
        assert len(line) <= 600, line
        assert line.isprintable(), line
        assert re.match(r"(--set [\w.]+|([^:]+:\d+:\d+ -> )*[^:]+(:\d+:\d+)?): \S", line), line


@pytest.mark.parametrize("name", SHIPPED)
def test_a_spoilt_recipe_loads_or_tells_its_mistakes(catalogue, tmp_path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    lines = (RECIPES / name).read_text().splitlines()
    file = tmp_path / "spoilt.yaml"
    parent = (RECIPES / name).parent
    seen = {"loaded": 0, "refused": 0}
    for seed in range(TEXTS):
        rng = random.Random(f"{name} {seed}")
        spoilt = lines
        for _ in range(rng.randint(1, 2)):
            spoilt = rng.choice(ALL_WAYS)(rng, spoilt or [""])
        text = re.sub(
            r"^((?:extends|default_world): )(?=[a-z.])", rf"\1{parent}/", "\n".join(spoilt), flags=re.MULTILINE
        )
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            loaded = load_recipe(file, (), (), catalogue)
        except CloraError as error:
            short_lines_with_places(error)
            seen["refused"] += 1
            continue
        seen["loaded"] += 1
        assert loaded.show().replace("\n", "").isprintable()
        file.write_text(loaded.resolved_yaml(), encoding="utf-8")
        assert load_recipe(file, (), (), catalogue).digest == loaded.digest
    assert seen["refused"] > TEXTS // 5
