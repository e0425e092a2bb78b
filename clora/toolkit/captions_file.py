"""The captions file: effect -> caption, in YAML that people edit. A bank reads it, a captioning command writes it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import yaml
from attrs import define, field, frozen

from clora.errors import CloraError, hint, quoted, reason, shown
from clora.files.named_files import not_a_file, open_file
from clora.files.untrusted_json import MAX_NAME, MAX_PROMPT, text_problem
from clora.files.untrusted_yaml import YamlError, compose

KEYS = ("caption", "by", "request", "answer")
MAX_BYTES = 4 << 20
#: mistakes that are told of one file
SHOWN = 50
_INSTEAD = "the bank's manifest may hold captions too, in its key `caption`"


class CaptionsError(CloraError, ValueError):
    """A captions file that cannot be used; one mistake a line, each with file:line."""


@frozen
class WrittenCaption:
    """One effect's entry; `by`, `request` and `answer` are empty where a person wrote it."""

    caption: str  # one line, whatever its layout in the file
    by: str = ""  # the model that answered
    request: str = ""  # a fingerprint of what it was asked
    answer: str = ""  # a fingerprint of what it answered
    line: int = field(default=0, eq=False)  # of the file; 0 for an entry that is not written yet

    @property
    def edited(self) -> bool:
        """True where the caption is not, or no longer, what a model answered."""
        return self.answer != fingerprint(self.caption)


def fingerprint(*parts: str | bytes) -> str:
    """Sixteen letters that stand for texts or bytes."""
    made = blake2b(digest_size=8)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        made.update(len(raw).to_bytes(8, "little") + raw)
    return made.hexdigest()


def read_captions(path: Path) -> Mapping[str, WrittenCaption]:
    """The entries by effect, none where there is no such file. Raises CaptionsError with every mistake."""
    return parse_captions(captions_text(path), path)


def captions_text(path: Path) -> str:
    """The file as it is, empty where there is none. Raises CaptionsError where it is no text or too large."""
    try:
        wrong = not_a_file(path)
        if wrong == "does not exist":
            return ""
        if wrong is not None:
            raise CaptionsError(f"{shown(path)}: {wrong}")
        with open_file(path) as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise CaptionsError(f"{shown(path)}: the captions file is larger than {MAX_BYTES >> 20} MB; {_INSTEAD}")
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CaptionsError(f"{shown(path)}: the captions file is not text in UTF-8") from None
    except OSError as error:
        raise CaptionsError(f"{shown(path)}: cannot be read: {reason(error.strerror or error)}") from None


def _compose(text: str, path: Path) -> yaml.Node | None:
    """The text's tree of nodes, which constructs nothing."""
    try:
        return compose(text)
    except YamlError as error:
        line = f":{error.line}" if error.line else ""
        raise CaptionsError(f"{shown(path)}{line}: {error}{f'; {_INSTEAD}' if error.too_much else ''}") from None


@define
class _Problems:
    """The first mistakes with their lines, and how many there are."""

    found: list[tuple[int, str]] = field(factory=list)
    count: int = 0

    def at(self, line: int, sentence: str) -> None:
        self.count += 1
        if self.count <= SHOWN:
            self.found.append((line, sentence))

    def told(self, path: Path) -> str:
        lines = [f"{shown(path)}:{line}: {sentence}" for line, sentence in sorted(self.found)]
        return "\n".join([*lines, *([f"... and {self.count - SHOWN:,} more"] if self.count > SHOWN else [])])


def parse_captions(text: str, path: Path) -> dict[str, WrittenCaption]:
    """The entries of a text by effect. Raises CaptionsError with every mistake, each at its line of `path`."""
    root = _compose(text, path)
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        line = root.start_mark.line + 1
        raise CaptionsError(f"{shown(path)}:{line}: a captions file is a mapping of effect -> caption")
    problems = _Problems()
    found: dict[str, WrittenCaption] = {}
    for key, value in root.value:
        line = key.start_mark.line + 1
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if not name:
            problems.at(line, "an effect's name must stand here")
        elif (wrong := text_problem(name, MAX_NAME)) is not None:
            problems.at(line, f"the effect's name {quoted(name)} {wrong}")
        elif name in found:
            problems.at(line, f"the effect {quoted(name)} stands in line {found[name].line} already")
        else:
            found[name] = _entry(name, value, line, problems)
    if problems.count:
        raise CaptionsError(problems.told(path))
    return found


def _entry(name: str, node: yaml.Node, line: int, problems: _Problems) -> WrittenCaption:
    """An effect's value: its caption alone, or a mapping that has one."""
    if not isinstance(node, yaml.MappingNode):
        return WrittenCaption(_word(f"{name}: its caption", node, problems), line=line)
    words: dict[str, str] = {}
    for key, value in node.value:
        word, at = key.value if isinstance(key, yaml.ScalarNode) else "?", key.start_mark.line + 1
        if word not in KEYS:
            advice = hint(word, KEYS) if problems.count < SHOWN else ""
            problems.at(at, f"{name}: unknown key {quoted(word)}{advice}")
        elif word in words:
            problems.at(at, f"{name}: the key {word} stands here twice")
        else:
            words[word] = _word(f"{name}: {word}", value, problems, any_scalar=word != "caption")
    if "caption" not in words:
        problems.at(line, f"{name}: 'caption' is missing")
    return WrittenCaption(**{"caption": "", **words}, line=line)


def _word(what: str, node: yaml.Node, problems: _Problems, *, any_scalar: bool = False) -> str:
    """A text as one line; hashes of digits alone are numbers to YAML, and a caption of one word may be a boolean."""
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.ScalarNode):
        problems.at(line, f"{what} must be text")
    elif node.tag != "tag:yaml.org,2002:str" and not any_scalar:
        is_not = f", and {quoted(node.value)} is not; put it in quotes" if node.value else ", and nothing stands here"
        problems.at(line, f"{what} must be text{is_not}")
    elif not node.value.strip() and not any_scalar:
        problems.at(line, f"{what} is empty")
    elif (wrong := text_problem(node.value, MAX_PROMPT)) is not None:
        problems.at(line, f"{what} {wrong}")
    else:
        return " ".join(node.value.split())
    return ""
