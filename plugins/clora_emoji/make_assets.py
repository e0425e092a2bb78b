"""Draw the emoji atlases and the list of subjects from unpacked npm icon packages; needs resvg-py, run by hand.

python -m clora_emoji.make_assets node_modules/@iconify-json
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

ASSETS = Path(__file__).parent / "assets"
ARTISTS = ("noto", "noto-v1", "twemoji", "fluent-emoji-flat", "fluent-emoji-high-contrast")
SIZE = 32
SUPERSAMPLING = 8
COLUMNS = 32
# Noto files plants, flowers and traces under "Animals & Nature"; creatures alone make a test set of one kind.
_NOT_CREATURES = """
    blossom bouquet cactus cherry-blossom deciduous-tree evergreen-tree fallen-leaf four-leaf-clover herb hibiscus
    leaf-fluttering-in-wind maple-leaf mushroom palm-tree paw-prints pig-nose rose rosette seedling shamrock
    sheaf-of-rice spider-web spiral-shell sunflower tulip white-flower wilted-flower
"""
NOT_CREATURES = frozenset(_NOT_CREATURES.split())
GROUPS = {
    "Activities": "activities",
    "Animals & Nature": "animals",
    "Flags": "flags",
    "Food & Drink": "food",
    "Objects": "objects",
    "People & Body": "people",
    "Smileys & Emotion": "faces",
    "Symbols": "symbols",
    "Travel & Places": "travel",
}


def split_of(name: str) -> str:
    """Return "test" for about one name in five and "train" otherwise, from a hash of the name alone."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") % 5 == 0 else "train"


def read_set(packages: Path, artist: str) -> dict[str, Any]:
    """Return the parsed icons.json of one artist's package."""
    return json.loads((packages / artist / "icons.json").read_text(encoding="utf-8"))


def draw(icon: dict[str, Any], defaults: dict[str, Any]) -> Image.Image:
    """Return one icon on white as a SIZE x SIZE RGB picture, averaged down from SUPERSAMPLING times that."""
    import resvg_py  # pyright: ignore[reportMissingImports]  # the script's own need, not the library's

    left, top = icon.get("left", defaults.get("left", 0)), icon.get("top", defaults.get("top", 0))
    width = icon.get("width", defaults.get("width", 16))
    height = icon.get("height", defaults.get("height", 16))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000000" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )
    side = SIZE * SUPERSAMPLING
    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side)
    drawn = Image.open(io.BytesIO(bytes(png))).convert("RGBA").resize((side, side))
    white = Image.new("RGBA", (side, side), "white")
    white.alpha_composite(drawn)
    return white.convert("RGB").reduce(SUPERSAMPLING)


def list_subjects(packages: Path) -> list[dict[str, str]]:
    """Return name, category and split of every emoji that all artists have drawn, in order of name."""
    common = set.intersection(*(set(read_set(packages, artist)["icons"]) for artist in ARTISTS))
    metadata = json.loads((packages / "noto" / "metadata.json").read_text(encoding="utf-8"))
    category = {name: GROUPS.get(group, "other") for group, names in metadata["categories"].items() for name in names}
    subjects = []
    for name in sorted(common):
        group = "plants" if name in NOT_CREATURES else category.get(name, "other")
        subjects.append({"name": name, "category": group, "split": split_of(name)})
    return subjects


def make_atlas(packages: Path, artist: str, names: list[str]) -> Image.Image:
    """Return all subjects of one artist as a grid COLUMNS wide, row by row in the order of ``names``."""
    icons = read_set(packages, artist)
    rows = -(-len(names) // COLUMNS)
    atlas = Image.new("RGB", (COLUMNS * SIZE, rows * SIZE), "white")
    for index, name in enumerate(names):
        place = (index % COLUMNS * SIZE, index // COLUMNS * SIZE)
        atlas.paste(draw(icons["icons"][name], icons), place)
    return atlas


def main() -> None:
    """Write every atlas and subjects.json into the assets folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, help="folder that holds noto, twemoji, ... as unpacked by npm")
    packages: Path = parser.parse_args().packages
    ASSETS.mkdir(exist_ok=True)
    subjects = list_subjects(packages)
    lines = ",\n".join(json.dumps(subject) for subject in subjects)
    (ASSETS / "subjects.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    for artist in ARTISTS:
        path = ASSETS / f"{artist}.webp"
        make_atlas(packages, artist, [s["name"] for s in subjects]).save(path, lossless=True, quality=100, method=6)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
