"""A model in diffusers' layout, in a folder or on the Hugging Face Hub: checked by its small files, loaded by parts.

Nothing in it runs code: parts are loaded by classes that the caller names, and weights from safetensors alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NewType, TypeVar

from attrs import frozen

from clora.errors import CloraError, hint
from clora.hub_files import hub_commit, hub_file, hub_folder, hub_reason
from clora.lora_files.header import LoraFileError, inspect_header

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
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

#: of each weights file, so many pieces of so many bytes, evenly spread, are hashed beside its header
PIECES, PIECE = 16, 64 << 10


def placed(text: str, folder: Path) -> ModelPlace:
    """The absolute path of what looks like one or is a folder seen from `folder`; anything else is a Hub id."""
    path = folder / Path(text).expanduser()
    return ModelPlace(os.path.normpath(path) if text.startswith((".", "/", "~")) or path.is_dir() else text)


@frozen
class DiffusersFolder:
    """A local folder, or a Hub id such as Qwen/Qwen-Image-Edit-2511 with a revision (branch, tag or commit)."""

    model: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder on this disk; None for a Hub id."""
        path = Path(self.model).expanduser()
        is_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", self.model) is not None
        return None if is_id and not path.exists() else path

    def check(self, classes: Mapping[str, Sequence[str]]) -> list[str]:
        """Every problem as one sentence, by {part: names of classes that fit}; of a Hub id only small files are read.

        Weights in a folder are checked by their headers, so a download that broke off is found here.
        """
        try:
            index = self.index()
            problems = _wrong_classes(index, classes, f"{self.model}/model_index.json")
            for part in classes:
                problems += self._check_part(part)
        except CloraError as error:
            return [str(error)]
        return problems

    def index(self) -> Mapping[str, Any]:
        """model_index.json: the pipeline's class and {part: [library, class]}; CloraError where there is none."""
        folder = self.folder
        if folder is not None and not folder.is_dir():
            kind = "a file, not a folder" if folder.exists() else "no folder and no Hub id"
            raise CloraError(f"model: {self.model!r} is {kind}; a Hub id looks like Qwen/Qwen-Image-Edit-2511")
        return self._json("model_index.json")

    def config(self, part: str) -> Mapping[str, Any]:
        """A part's configuration; CloraError where it is missing or no JSON map."""
        return self._json(f"{part}/{CONFIGS.get(part, 'config.json')}")

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
        if dtype is not None:
            how |= {_dtype_key(cls): dtype, "use_safetensors": True, "device_map": {"": device or "cpu"}}
        try:
            loaded = cls.from_pretrained(self.model if folder is None else str(folder), **how)  # pyright: ignore
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise CloraError(f"{self.model}/{part} cannot be loaded: {hub_reason(error, self.model)}") from error
        return loaded if dtype is None else loaded.eval().requires_grad_(False)

    def part(self, part: str) -> Path:
        """A part's own folder, whole; of a Hub id it is downloaded. Raises CloraError where it cannot be."""
        folder = self.folder
        return hub_folder(self.model, self.revision, part) if folder is None else folder / part

    def stored(self, part: str) -> int:
        """The bytes of a part's safetensors files; 0 for a Hub id, whose weights may not be here yet."""
        folder = self.folder
        return 0 if folder is None else sum(file.stat().st_size for file in (folder / part).glob("*.safetensors"))

    def digest(self) -> str:
        """A hash of what the model is: a Hub id's commit; a folder's configurations, weights' headers and samples.

        Cheap on purpose: of a 40 GB file about a megabyte is read.
        """
        folder = self.folder
        if folder is None:
            return hub_commit(self.model, self.revision)
        hasher = blake2b(digest_size=8)
        for path in (folder / "model_index.json", *self._parts_files(folder)):
            hasher.update(path.relative_to(folder).as_posix().encode() + b"\0")
            _hash_samples(path, hasher)
        return hasher.hexdigest()

    def _parts_files(self, folder: Path) -> list[Path]:
        """The configurations and weights of every part that model_index.json names, sorted."""
        parts = [name for name, value in self.index().items() if isinstance(value, list)]
        files = (file for part in parts if _is_name(part) for file in (folder / part).glob("*") if file.is_file())
        return sorted(file for file in files if file.suffix in (".json", ".txt", ".jinja", ".safetensors"))

    def _json(self, name: str) -> Mapping[str, Any]:
        folder = self.folder
        path = hub_file(self.model, self.revision, name) if folder is None else folder / name
        return _read_json(path)

    def _check_part(self, part: str) -> list[str]:
        try:
            self.config(part)
            if self.folder is not None and part not in CONFIGS:
                return weights_problems(self.folder / part)
        except CloraError as error:
            return [str(error)]
        return []


def _wrong_classes(index: Mapping[str, Any], classes: Mapping[str, Sequence[str]], where: str) -> list[str]:
    """Parts that the index lacks or gives to another class."""
    problems: list[str] = []
    for part, fitting in classes.items():
        entry = index.get(part)
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)):
            known = [name for name, value in index.items() if isinstance(value, list)]
            problems.append(f"{where} names no part {part!r}{hint(part, known)}")
        elif entry[1] not in fitting:
            problems.append(f"{where}: {part} is a {entry[1]}, which this backbone cannot use; it needs {fitting[0]}")
    return problems


def weights_problems(folder: Path) -> list[str]:
    """What is wrong with the weights in a folder, by the headers of its safetensors files; nothing else is read."""
    if not folder.is_dir():
        return [f"{folder}: there is no such folder"]
    try:
        for name in WEIGHTS:
            if (folder / f"{name}.index.json").is_file():
                return _shards_problems(folder / f"{name}.index.json")
            if (folder / name).is_file():
                inspect_header(folder / name)
                return []
    except CloraError as error:
        return [str(error)]
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        return [
            f"{folder}: its weights are a pickle, {pickles[0]}, which can run code when it is loaded; only safetensors "
            "files are read, so convert it where you trust it"
        ]
    return [f"{folder}: there are no weights; {' or '.join(WEIGHTS)} was expected"]


def _shards_problems(index: Path) -> list[str]:
    """Shards that are missing, broken, lie elsewhere or lack tensors that the index promises."""
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()) or not places:
        return [f"{index}: its weight_map is no map of tensors to files"]
    problems: list[str] = []
    for name in sorted(set(places.values())):
        if not _is_name(name) or not name.endswith(".safetensors"):
            problems.append(f"{index}: {name!r} is no safetensors file beside it")
            continue
        try:
            tensors = inspect_header(index.parent / name).tensors
        except LoraFileError as error:
            problems.append(str(error))
            continue
        lost = [tensor for tensor, file in places.items() if file == name and tensor not in tensors]
        if lost:
            problems.append(
                f"{index.parent / name}: {len(lost)} tensors that its index promises are not there: {lost[0]}"
            )
    return problems


def _is_name(name: str) -> bool:
    """True for a plain file or folder name, without a way out of the folder."""
    return re.fullmatch(r"[\w-][\w.-]*", name) is not None


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CloraError(f"{path}: there is no such file") from None
    except OSError as error:
        raise CloraError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CloraError(f"{path}: is no JSON: {error}") from error
    if not isinstance(tree, dict):
        raise CloraError(f"{path}: is no JSON map")
    return tree


def _hash_samples(path: Path, hasher: Any) -> None:
    """Size and contents of a file; of weights the header and evenly spread pieces."""
    size = path.stat().st_size
    hasher.update(size.to_bytes(8, "little"))
    if path.suffix != ".safetensors" or size <= PIECES * PIECE:
        hasher.update(path.read_bytes())
        return
    with path.open("rb") as file:
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
