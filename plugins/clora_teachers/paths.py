"""The paths of a manifest: inside the folders that the recipe allows, links followed, to files of the right kind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import yaml
from attrs import field, frozen

from clora.api import OutsideError, PictureError, UnusablePathError, located, nearest, picture_size, quoted, shown
from clora_teachers.problems import Problems, kind, word

#: pairs of one teacher: a captioner is shown two of them
MAX_PAIRS = 1000
#: how many files of a folder are looked through for the name that was probably meant, and for how many mistakes
NEIGHBOURS, ADVISED = 2000, 10


@frozen
class Folders:
    """Where a manifest's files may lie, both resolved; `follow_links` lets links lead out of them."""

    manifest: Path
    loras: Path | None = None  # the recipe's own `lora_folder`
    follow_links: bool = False
    _looked: dict[Path, str | None] = field(factory=dict, eq=False, repr=False)

    def for_loras(self) -> tuple[Path, ...]:
        """The folders that a LoRA's path may lead into, in the order in which a relative one is looked up."""
        return (self.manifest,) if self.loras is None else (self.manifest, self.loras)

    def wrong_with(self, picture: Path) -> str | None:
        """What a picture's header tells against it, each picture looked at once; its path stands for it."""
        if picture not in self._looked:
            try:
                picture_size(picture)
                self._looked[picture] = None
            except PictureError as error:
                self._looked[picture] = str(error)
        return self._looked[picture]


def read_lora(text: str, node: yaml.Node, folders: Folders, problems: Problems) -> Path | None:
    """The path of a safetensors file, or None with the mistake noted."""
    what = f"lora {quoted(text)}"
    places = _places(what, text, node, folders.for_loras(), folders, problems)
    if places is None:
        return None
    if not places and folders.loras is None:
        problems.at(
            node,
            f"{what} leads out of the manifest's folder; copy the file beside the manifest, or name its folder "
            "in the recipe: `lora_folder` of the bank",
        )
    elif not places:
        problems.at(node, f"{what} leads out of the manifest's folder and of lora_folder, {shown(folders.loras or '')}")
    elif Path(text).suffix != ".safetensors":
        problems.at(node, f"{what} is no .safetensors file, and nothing else is read (a pickle can run code)")
    elif not any(place.is_file() for place in places):
        problems.at(node, f"{what}: there is no such file{_near(text, places, problems)}")
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
    if len(node.value) > MAX_PAIRS:
        problems.at(
            node, f"pairs has {len(node.value):,} pairs; at most {MAX_PAIRS:,} are read, of which two are shown"
        )
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
        problems.at(node, f"before and after of a pair are the same picture, {shown(before.name)}")
        return None
    return before, after


def _picture(node: yaml.Node, folders: Folders, problems: Problems) -> Path | None:
    text = word("a picture's path", node, problems)
    if text is None:
        return None
    what = f"picture {quoted(text)}"
    places = _places(what, text, node, (folders.manifest,), folders, problems)
    if places is None:
        return None
    if not places:
        problems.at(node, f"{what} leads out of the manifest's folder; copy it beside the manifest")
    elif not places[0].is_file():
        problems.at(node, f"{what}: there is no such file{_near(text, places, problems)}")
    elif (wrong := folders.wrong_with(places[0])) is not None:
        problems.at(node, wrong.replace(shown(places[0]), what))
    else:
        return places[0]
    return None


def _places(
    what: str, text: str, node: yaml.Node, inside: Sequence[Path], folders: Folders, problems: Problems
) -> list[Path] | None:
    """Where a path may lead, inside the folders alone; None, with the mistake noted, where it is no usable path."""
    found: list[Path] = []
    linked = False
    for folder in inside:
        try:
            given = Path(text).expanduser() if text.startswith("~") else text
            found.append(located(given, (folder,), follow_links=folders.follow_links))
        except OutsideError as error:
            linked |= error.linked
        except (UnusablePathError, RuntimeError):  # ... a home that nobody has
            problems.at(node, f"{what} is no usable path")
            return None
    if linked and not any(path.is_file() for path in found):
        problems.at(
            node,
            f"{what} is a link that leads out of its folder; `follow_links: true` of the bank follows it",
        )
        return None
    return found


def _near(text: str, places: Sequence[Path], problems: Problems) -> str:
    """The end of a message about a missing file: the one beside it that was probably meant."""
    if problems.count >= ADVISED:
        return ""
    ending = Path(text).suffix
    beside = [file for place in places if place.parent.is_dir() for file in islice(place.parent.iterdir(), NEIGHBOURS)]
    stems = {file.stem for file in beside if file.suffix == ending}  # the ending alone makes no two names alike
    near = nearest(Path(text).stem, sorted(stems))
    return f"; did you mean {quoted(near + ending)[1:-1]}?" if near else ""


def _said(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "an empty list"
    return quoted(node.value) if isinstance(node, yaml.ScalarNode) else kind(node)
