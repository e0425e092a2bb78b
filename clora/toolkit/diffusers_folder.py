"""A model in diffusers' layout, in a folder or on the Hugging Face Hub: checked by its small files, loaded by parts.

Nothing in it runs code: parts are loaded by classes that the caller names, and weights from safetensors alone. Every
field that is read, here or by a library, has its type and its range in a table of the model family.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NewType, TypeVar

from attrs import frozen

from clora.errors import CloraError, hint, quoted, reason, shown
from clora.files.untrusted_json import kind_of
from clora.toolkit.config_fields import Fields, Name, Several, check_fields, field_problems, told
from clora.toolkit.hub_files import hub_cached, hub_commit, hub_file, hub_folder, hub_reason
from clora.toolkit.library_errors import library_errors
from clora.toolkit.model_files import files_problems, inside, limit_of, read_config
from clora.toolkit.weight_files import is_file_name, weights_problems

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

#: a component's key of this type is a Hub id or a folder, which is relative to the recipe that it stands in
ModelPlace = NewType("ModelPlace", str)

#: the configuration of parts that have no weights; every other part has config.json
CONFIGS = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
    "processor": "preprocessor_config.json",
    "image_processor": "preprocessor_config.json",
    "feature_extractor": "preprocessor_config.json",
}
#: parts that model_index.json names at most
MAX_PARTS = 64
#: characters of a model's folder or Hub id
MAX_PLACE = 4096

#: of each weights file, so many pieces of so many bytes, evenly spread, are hashed beside its header
PIECES, PIECE = 16, 64 << 10


def placed(text: str, folder: Path) -> ModelPlace:
    """The absolute path of what looks like one or is a folder seen from `folder`; anything else is a Hub id."""
    path = folder / _path(text)
    return ModelPlace(os.path.normpath(path) if text.startswith((".", "/", "~")) or _is_folder(path) else text)


def _path(text: str) -> Path:
    """A path with the home folder in the place of `~`; that of a user who is not there stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _is_folder(path: Path) -> bool:
    """Whether there is such a folder; False for a name that no file can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


@frozen
class DiffusersFolder:
    """A local folder, or a Hub id such as Qwen/Qwen-Image-Edit-2511 with a revision (branch, tag or commit)."""

    model: str  # a folder as diffusers saves it, or a Hub id
    revision: str | None = None  # of the Hub: a branch, tag or commit; null: its main branch

    @property
    def folder(self) -> Path | None:
        """The folder on this disk; None for a Hub id. Raises CloraError for a name that no folder can have."""
        if not 1 <= len(self.model) <= MAX_PLACE or "\0" in self.model:
            raise CloraError(f"model: {quoted(self.model)} is no folder and no Hub id")
        path = _path(self.model)
        is_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", self.model) is not None
        try:
            return None if is_id and not path.exists() else path
        except OSError as error:
            raise CloraError(f"model: {shown(self.model)} cannot be read: {reason(error.strerror or error)}") from None

    def check(self, classes: Mapping[str, Sequence[str]], fields: Mapping[str, Fields] | None = None) -> list[str]:
        """Every problem as one sentence, by {part: names of classes that fit}; of a Hub id only small files are read.

        `fields` {part, or part/file beside its configuration: fields} tells their types and ranges. Weights in a folder
        are checked by their headers, so a download that broke off is found here.
        """
        try:
            index = self.index()
            problems = _wrong_classes(index, classes, self.where("model_index.json"))
            for part in classes:
                problems += self._check_part(part, fields or {})
        except CloraError as error:
            return [str(error)]
        return problems

    def index(self) -> Mapping[str, Any]:
        """model_index.json: the pipeline's class and {part: [library, class]}; CloraError where it is not so."""
        folder = self.folder
        if folder is not None and not _is_folder(folder):
            kind = "a file, not a folder" if os.path.lexists(folder) else "no folder and no Hub id"
            raise CloraError(f"model: {quoted(self.model, 400)} is {kind}; a Hub id looks like owner/name")
        index, where = self._json("model_index.json"), self.where("model_index.json")
        check_fields(index, {"_class_name": Name()}, where)
        parts = {name: value for name, value in index.items() if isinstance(value, list)}
        if len(parts) > MAX_PARTS:
            raise CloraError(f"{where}: names {len(parts):,} parts; a pipeline has at most {MAX_PARTS}")
        for name, value in parts.items():
            if not is_file_name(name):
                raise CloraError(f"{where}: {quoted(name)} is no name of a part")
            check_fields({name: value}, {name: Several(Name(null=True), 2, 2)}, where)
        return index

    def where(self, name: str) -> str:
        """A file of the model as a message names it."""
        return f"{shown(self.model)}/{name}"

    def config(self, part: str, fields: Fields | None = None) -> Mapping[str, Any]:
        """A part's configuration; CloraError where it is missing, no JSON map, or has a field that cannot be."""
        name = _config_file(part)
        config = self._json(name)
        check_fields(config, fields or {}, self.where(name))
        return config

    def config_here(self, part: str, fields: Fields | None = None) -> Mapping[str, Any]:
        """A part's configuration as `config` has it, without the network: CloraError where it is not on this disk."""
        name = _config_file(part)
        if self.folder is not None:
            return self.config(part, fields)
        path = hub_cached(self.model, self.revision, name)
        if path is None:
            raise CloraError(f"{self.where(name)} is not on this disk yet")
        config = read_config(path, None)
        check_fields(config, fields or {}, self.where(name))
        return config

    def load(
        self, part: str, cls: type[T], *, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> T:
        """A part by the class given, with `dtype` straight on the device, frozen and in evaluation mode.

        Leave `dtype` out for tokenizers, processors and schedulers. Raises CloraError where the part cannot be loaded.
        """
        folder = self.folder
        how: dict[str, Any] = {"subfolder": part, "local_files_only": folder is not None}
        if folder is None:
            how["revision"] = hub_commit(self.model, self.revision)
            self._check_download(part)
        if cls.__module__.startswith("transformers"):
            how["trust_remote_code"] = False  # else an unknown class asks the person at the keyboard
        if dtype is not None:
            how |= {_dtype_key(cls): dtype, "use_safetensors": True, "device_map": {"": device or "cpu"}}
        try:
            with library_errors(f"{self.where(part)} cannot be loaded"):
                return load_whole(cls, self.model if folder is None else str(folder), how, self.where(part))
        except CloraError as error:
            cause = error.__cause__
            if folder is not None or not isinstance(cause, OSError | ValueError):
                raise
            raise CloraError(f"{self.where(part)} cannot be loaded: {hub_reason(cause, self.model)}") from cause

    def _check_download(self, part: str) -> None:
        """Raise CloraError for what is wrong with the small files of a part on the Hub, before a library reads them."""
        folder = hub_folder(self.model, self.revision, part, weights=False)
        for problem in files_problems(folder, folder.parent):
            raise CloraError(problem)

    def part(self, part: str) -> Path:
        """A part's own folder, whole; of a Hub id it is downloaded. Raises CloraError where it cannot be."""
        folder = self.folder
        return hub_folder(self.model, self.revision, part) if folder is None else folder / part

    def stored(self, part: str) -> int:
        """The bytes of a part's safetensors files; 0 for a Hub id, whose weights may not be here yet."""
        folder = self.folder
        files = () if folder is None else (folder / part).glob("*.safetensors")
        return sum(file.stat().st_size for file in files if file.is_file())

    def digest(self) -> str:
        """A hash of what the model is: a Hub id's commit; a folder's configurations, weights' headers and samples.

        Cheap on purpose: of a 40 GB file about a megabyte is read. Raises CloraError for a file that cannot be read.
        """
        folder = self.folder
        if folder is None:
            return hub_commit(self.model, self.revision)
        hasher = blake2b(digest_size=8)
        for path in (folder / "model_index.json", *self._parts_files(folder)):
            hasher.update(path.relative_to(folder).as_posix().encode(errors="surrogateescape") + b"\0")
            try:
                _hash_samples(path, folder, hasher)
            except OSError as error:
                raise CloraError(f"{shown(path)}: cannot be read: {reason(error.strerror or error)}") from None
        return hasher.hexdigest()

    def _parts_files(self, folder: Path) -> list[Path]:
        """The configurations and weights of every part that model_index.json names, sorted."""
        parts = [name for name, value in self.index().items() if isinstance(value, list)]
        files = (file for part in parts for file in (folder / part).glob("*") if file.is_file())
        return sorted(file for file in files if file.suffix in (".json", ".txt", ".jinja", ".safetensors"))

    def _json(self, name: str) -> Mapping[str, Any]:
        folder = self.folder
        if folder is None:
            return read_config(hub_file(self.model, self.revision, name), None)
        return read_config(folder / name, folder)

    def _check_part(self, part: str, fields: Mapping[str, Fields]) -> list[str]:
        folder, name = self.folder, _config_file(part)
        try:
            config = self._json(name)
        except CloraError as error:
            return [str(error)]
        problems = field_problems(config, fields.get(part, {}), self.where(name))
        if folder is not None:
            wrong = files_problems(folder / part, folder)
            beside = [] if wrong else [file for file in fields if file.startswith(f"{part}/")]
            for file in (file for file in beside if (folder / file).is_file()):
                wrong += field_problems(self._json(file), fields[file], self.where(file))
            problems += wrong
            problems += weights_problems(folder / part) if part not in CONFIGS else []
        return told(problems)


def _config_file(part: str) -> str:
    return f"{part}/{CONFIGS.get(part, 'config.json')}"


def load_whole(cls: type[T], place: str, how: Mapping[str, Any], where: str) -> T:
    """What `from_pretrained` gives; of a network all weights must be in its files, and it is frozen.

    Raises CloraError, beginning with `where`, for weights that a library would draw at random, and whatever the
    library raises.
    """
    load: Any = cls.from_pretrained  # pyright: ignore[reportAttributeAccessIssue] - diffusers' or transformers' own
    if "use_safetensors" not in how:
        return load(place, **how)
    network, found = load(place, **how, output_loading_info=True)
    lost = sorted(found["missing_keys"])
    if lost:
        raise CloraError(f"{where}: its weights lack {len(lost):,} tensors of a {cls.__name__}: {quoted(lost[0])}")
    return network.eval().requires_grad_(False)


def _wrong_classes(index: Mapping[str, Any], classes: Mapping[str, Sequence[str]], where: str) -> list[str]:
    """Parts that the index lacks or gives to another class."""
    problems: list[str] = []
    known = [name for name, value in index.items() if isinstance(value, list)]
    for part, fitting in classes.items():
        entry = index.get(part)
        if not isinstance(entry, list):
            found = "" if entry is None else f", found {kind_of(entry)}"
            problems.append(f"{where} names no part {part!r}{found}{hint(part, known)}")
        elif entry[1] not in fitting:
            found = "no class" if entry[1] is None else f"a {quoted(entry[1])[1:-1]}"
            problems.append(f"{where}: {part} is {found}, which this backbone cannot use; it needs {fitting[0]}")
    return problems


def _hash_samples(path: Path, home: Path, hasher: Any) -> None:
    """Size and contents of a file; of weights the header and evenly spread pieces."""
    size = path.stat().st_size
    hasher.update(size.to_bytes(8, "little"))
    is_weights = path.suffix == ".safetensors"
    with path.open("rb") as file:
        if not is_weights or size <= PIECES * PIECE:
            if not is_weights and size > limit_of(inside(path, home)):
                raise CloraError(
                    f"{shown(path)}: is larger than the {limit_of(path):,} bytes that are read of such a file"
                )
            while piece := file.read(1 << 20):
                hasher.update(piece)
            return
        start = file.read(8)
        hasher.update(start + file.read(min(int.from_bytes(start, "little"), size)))
        for piece in range(PIECES):
            file.seek((size - PIECE) * piece // (PIECES - 1))
            hasher.update(file.read(PIECE))


def _dtype_key(cls: type) -> str:
    """What `from_pretrained` calls the type: transformers renamed its key with version 5."""
    if not cls.__module__.startswith("transformers"):
        return "torch_dtype"
    from transformers import __version__

    return "torch_dtype" if int(__version__.split(".")[0]) < 5 else "dtype"
