"""The small files of a model: where they may lie, how large they may be, and what no configuration may say.

A model's folder comes from elsewhere. Its configurations must lie in it; a link may lead out only as the Hugging Face
cache's do, from snapshots/<commit> to the blobs beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from clora.errors import CloraError, quoted, shown
from clora.files.untrusted_json import MAX_BYTES, MAX_DIGITS, read_map, read_text
from clora.toolkit.config_fields import told

#: bytes that are read of a vocabulary, a tokenizer or an index of weights; of every other small file, MAX_BYTES
MAX_VOCABULARY_BYTES = 64 << 20
VOCABULARIES = frozenset(
    ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.model")
)
#: endings of the files beside the weights that a library reads by itself
SMALL = (".json", ".txt", ".jinja", ".model")
#: files that are looked at in one part's folder
MAX_FILES = 1000
#: a tokenizer without a limit says int(1e30) for it
TOKENIZER_DIGITS = 31
#: characters of one text of a configuration; the longest that models have is a tokenizer's chat template
MAX_TEXT = 50_000
#: numbers of a configuration: their size, where they are not 0
LEAST_NUMBER, LARGEST_NUMBER = 1e-30, 1e12
#: what would run code from the folder or elsewhere, or take weights from elsewhere
REFUSED_KEYS: Mapping[str, str] = {"auto_map": "it names Python code, and no model's own code is run"}
REFUSED_FILES: Mapping[str, str] = {"adapter_config.json": "it would have another model loaded in this one's place"}


def inside(path: Path, home: Path) -> Path:
    """The path, if it and what it links to lie in the folder `home`. Raises CloraError where they do not."""
    try:
        real, root = path.resolve(), home.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle
        raise CloraError(f"{shown(path)}: is a link that leads nowhere") from None
    if not real.is_relative_to(root) and not _is_blob(real, root):
        raise CloraError(f"{shown(path)}: is a link out of the model's folder; put the file itself there")
    return path


def _is_blob(real: Path, root: Path) -> bool:
    """Whether a file is one of the Hugging Face cache's for a model in its snapshots/<commit>.

    It lies in models--owner--name/blobs, or in the cache's own blobs/<two digits>, which several models share.
    """
    for parent in root.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            return real.parent == parent.parent / "blobs" or real.parent.parent == parent.parent.parent / "blobs"
    return False


def read_config(path: Path, home: Path | None) -> Mapping[str, Any]:
    """A configuration of the model in the folder `home` (None: the Hub's client has put it where it is).

    Raises CloraError with the file where it lies elsewhere, is no plain JSON map, or says what none may say.
    """
    if home is not None:
        inside(path, home)
    digits = TOKENIZER_DIGITS if path.name == "tokenizer_config.json" else MAX_DIGITS
    tree = read_map(path, MAX_BYTES, digits, once=True)
    for problem in plain_problems(tree):
        raise CloraError(f"{shown(path)}: {problem}")
    return tree


def plain_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """What no field of a configuration may say, whoever reads it: endless texts, senseless numbers, code to run."""
    waiting: list[tuple[str, Any]] = [("", tree)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            for key in REFUSED_KEYS.keys() & value.keys():
                yield f"{name}{key}: {REFUSED_KEYS[key]}; remove the key where you trust the rest"
            if any(len(key) > MAX_TEXT for key in value):
                yield f"it has a key of more than {MAX_TEXT:,} characters"
            waiting += (
                (f"{name}{quoted(key)[1:-1] if len(key) < 60 else quoted(key)}.", each) for key, each in value.items()
            )
        elif isinstance(value, list):
            waiting += ((name, each) for each in value)
        elif isinstance(value, str) and len(value) > MAX_TEXT:
            yield f"{name[:-1]} is a text of {len(value):,} characters; at most {MAX_TEXT:,} are read"
        elif isinstance(value, float | int) and not isinstance(value, bool) and _is_senseless(name, value):
            size = "small" if abs(value) < 1 else "large"
            yield f"{name[:-1]} is {quoted(value)}; no number of a model is that {size}"


def _is_senseless(name: str, value: float) -> bool:
    most = 10**TOKENIZER_DIGITS if name == "model_max_length." else LARGEST_NUMBER
    return value != 0 and not LEAST_NUMBER <= abs(value) <= most


def small_files(folder: Path) -> list[Path]:
    """The files of a part's folder that a library may read beside the weights, sorted. Raises CloraError over many."""
    found = list(islice(folder.rglob("*"), MAX_FILES + 1))
    if len(found) > MAX_FILES:
        raise CloraError(f"{shown(folder)}: has more than {MAX_FILES} files")
    return sorted(file for file in found if file.suffix in SMALL)


def limit_of(file: Path) -> int:
    """How many bytes are read of a small file."""
    is_large = file.name in VOCABULARIES or file.name.endswith(".safetensors.index.json")
    return MAX_VOCABULARY_BYTES if is_large else MAX_BYTES


def files_problems(folder: Path, home: Path) -> list[str]:
    """What is wrong with the small files of one part of the model in `home`, as sentences: a few and a count."""
    try:
        inside(folder, home)
        files = small_files(folder)
    except CloraError as error:
        return [str(error)]
    return told(problem for file in files for problem in _file_problems(file, home))


def _file_problems(file: Path, home: Path) -> Iterator[str]:
    if file.name in REFUSED_FILES:
        yield f"{shown(file)}: {REFUSED_FILES[file.name]}; remove it"
        return
    try:
        inside(file, home)
        if file.name in VOCABULARIES or file.suffix != ".json":
            _check_vocabulary(file)
        elif not file.name.endswith(".safetensors.index.json"):  # told with the weights
            read_config(file, home)
    except CloraError as error:
        yield str(error)


def _check_vocabulary(file: Path) -> None:
    """A vocabulary, a tokenizer or a template can be read, and is a map where it is JSON."""
    if file.suffix == ".json":
        read_map(file, limit_of(file), TOKENIZER_DIGITS)
    elif file.suffix == ".model":  # SentencePiece's own binary form
        size = file.stat().st_size if file.is_file() else 0
        if not 0 < size <= limit_of(file):
            raise CloraError(f"{shown(file)}: has {size:,} bytes; 1 to {limit_of(file):,} are read of such a file")
    else:
        read_text(file, limit_of(file))
