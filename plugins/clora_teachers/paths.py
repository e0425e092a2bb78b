"""The paths of a manifest: inside the folders that the recipe allows, links followed, to files of the right kind."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import yaml
from attrs import frozen

from clora.api import PictureError, picture_size
from clora_teachers.problems import Problems, kind, word


@frozen
class Folders:
    """Where a manifest's files may lie, both resolved."""

    manifest: Path
    loras: Path | None = None  # the recipe's own `lora_folder`

    def for_loras(self) -> tuple[Path, ...]:
        """The folders that a LoRA's path may lead into, in the order in which a relative one is looked up."""
        return (self.manifest,) if self.loras is None else (self.manifest, self.loras)


def read_lora(text: str, node: yaml.Node, folders: Folders, problems: Problems) -> Path | None:
    """The path of a safetensors file, or None with the mistake noted."""
    places = _places(f"lora {text!r}", text, node, folders.for_loras(), problems)
    if places is None:
        return None
    if not places and folders.loras is None:
        problems.at(
            node,
            f"lora {text!r} leads out of the manifest's folder; copy the file beside the manifest, or name its folder "
            "in the recipe: `lora_folder` of the bank",
        )
    elif not places:
        problems.at(node, f"lora {text!r} leads out of the manifest's folder and of lora_folder, {folders.loras}")
    elif Path(text).suffix != ".safetensors":
        problems.at(node, f"lora {text!r} is no .safetensors file, and nothing else is read (a pickle can run code)")
    elif not any(place.is_file() for place in places):
        problems.at(node, f"lora {text!r}: there is no such file{_near(text, places)}")
    else:
        return next(place for place in places if place.is_file())
    return None


def read_pairs(node: yaml.Node, folders: Folders, problems: Problems) -> tuple[tuple[Path, Path], ...]:
    """The (before, after) pictures, each opened as far as its header; those with mistakes are noted and left out."""
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        problems.at(node, f"pairs must be a list of [before, after] pictures, not {_said(node)}")
        return ()
    if all(isinstance(item, yaml.ScalarNode) for item in node.value):
        problems.at(node, "pairs must be a list of [before, after] pictures; one pair is written [[before, after]]")
        return ()
    read = [_pair(item, folders, problems) for item in node.value]
    return tuple(pair for pair in read if pair is not None)


def _pair(node: yaml.Node, folders: Folders, problems: Problems) -> tuple[Path, Path] | None:
    if isinstance(node, yaml.MappingNode):
        by_key = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
        ends = [by_key[key] for key in ("before", "after") if key in by_key]
        right = len(node.value) == len(ends) == 2
    else:
        ends = node.value if isinstance(node, yaml.SequenceNode) else []
        right = len(ends) == 2
    if not right:
        problems.at(node, "a pair is [before, after], or a mapping with the keys before and after")
        return None
    before, after = (_picture(end, folders, problems) for end in ends)
    if before is None or after is None:
        return None
    if before == after:
        problems.at(node, f"before and after of a pair are the same picture, {before.name}")
        return None
    return before, after


def _picture(node: yaml.Node, folders: Folders, problems: Problems) -> Path | None:
    text = word("a picture's path", node, problems)
    if text is None:
        return None
    places = _places(f"picture {text!r}", text, node, (folders.manifest,), problems)
    if places is None:
        return None
    if not places:
        problems.at(node, f"picture {text!r} leads out of the manifest's folder; copy it beside the manifest")
    elif not places[0].is_file():
        problems.at(node, f"picture {text!r}: there is no such file{_near(text, places)}")
    else:
        try:
            picture_size(places[0])
            return places[0]
        except PictureError as error:
            problems.at(node, str(error).replace(str(places[0]), f"picture {text!r}"))
    return None


def _places(what: str, text: str, node: yaml.Node, folders: Sequence[Path], problems: Problems) -> list[Path] | None:
    """Where a path may lead, inside the folders alone; None, with the mistake noted, where it is no usable path."""
    try:
        given = Path(text).expanduser()
        found = [(folder / given).resolve() for folder in folders]
        for path in found:
            path.is_file()  # a name too long, a zero byte
    except (OSError, ValueError, RuntimeError):  # ... a loop of links, a home that nobody has
        problems.at(node, f"{what} is no usable path")
        return None
    return [path for path in found if any(path.is_relative_to(folder) for folder in folders)]


def _near(text: str, places: Sequence[Path]) -> str:
    """The end of a message about a missing file: the one beside it that was probably meant."""
    ending = Path(text).suffix
    stems = {file.stem for place in places if place.parent.is_dir() for file in place.parent.glob(f"*{ending}")}
    near = get_close_matches(Path(text).stem, sorted(stems), n=1)  # the ending alone makes no two names alike
    return f"; did you mean {near[0]}{ending}?" if near else ""


def _said(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "an empty list"
    return repr(node.value) if isinstance(node, yaml.ScalarNode) else kind(node)
