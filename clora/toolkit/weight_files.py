"""A model's weights in safetensors: what is wrong with them, by their headers and their index alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from clora.contracts.convolution import weight_shape
from clora.errors import CloraError, quoted, shown
from clora.files.untrusted_json import kind_of, read_json
from clora.lora_io.header import LoraFileError, TensorInfo, inspect_header
from clora.toolkit.config_fields import told
from clora.toolkit.model_files import limit_of

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: tensors and files of one index
MAX_TENSORS, MAX_SHARDS = 200_000, 1_000


def weights_problems(folder: Path) -> list[str]:
    """What is wrong with the weights in a folder, by the headers of its safetensors files; nothing else is read."""
    if not folder.is_dir():
        return [f"{shown(folder)}: there is no such folder"]
    try:
        for name in WEIGHTS:
            if _is_there(folder / f"{name}.index.json"):
                return told(_shards_problems(folder / f"{name}.index.json"))
            if _is_there(folder / name):
                inspect_header(folder / name)
                return []
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    except CloraError as error:
        return [str(error)]
    if pickles:
        return [
            f"{shown(folder)}: its weights are a pickle, {shown(pickles[0])}, which can run code when it is loaded; "
            "only safetensors files are read, so convert it where you trust it"
        ]
    return [f"{shown(folder)}: there are no weights; {' or '.join(WEIGHTS)} was expected"]


def _is_there(path: Path) -> bool:
    """Whether there is something of that name, if only a link that leads nowhere."""
    return path.exists() or path.is_symlink()


def weights_misfits(folder: Path, shapes: Mapping[str, tuple[int, int]]) -> list[str]:
    """Linears (in, out) that a configuration promises and a folder's weights lack or have in another size.

    The weights must have no problems. A library would build the network first and then draw the rest at random.
    """
    tensors: dict[str, TensorInfo] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= inspect_header(file).tensors
    found: list[str] = []
    for linear, size in shapes.items():
        tensor = tensors.get(f"{linear}.weight")
        if tensor is None:
            found.append(f"{shown(folder)}: its weights lack {linear}, which its config.json promises")
        elif tensor.shape != weight_shape(size):
            found.append(
                f"{shown(folder)}: {linear} is {quoted(list(tensor.shape))} in its weights, "
                f"but {list(weight_shape(size))} by its config.json"
            )
    return told(found, 2)


def _shards_problems(index: Path) -> Iterator[str]:
    """Shards that are missing, broken, lie elsewhere or lack tensors that the index promises."""
    for name, promised in sorted(_promised(index).items()):
        if not is_file_name(name) or not name.endswith(".safetensors"):
            yield f"{shown(index)}: {quoted(name)} is no safetensors file beside it"
            continue
        try:
            tensors = inspect_header(index.parent / name).tensors
        except LoraFileError as error:
            yield str(error)
            continue
        lost = [tensor for tensor in promised if tensor not in tensors]
        if lost:
            yield (
                f"{shown(index.parent / name)}: {len(lost):,} tensors that its index promises are not there: "
                f"{quoted(lost[0])}"
            )


def _promised(index: Path) -> dict[str, list[str]]:
    """{file: the tensors that an index has in it}. Raises CloraError for an index that is none."""
    where = shown(index)
    tree = read_json(index, limit_of(index), once=True)
    places = tree.get("weight_map") if isinstance(tree, dict) else None
    if not isinstance(places, dict) or not places:
        raise CloraError(f"{where}: its weight_map is no map of tensors to files, found {kind_of(places)}")
    if len(places) > MAX_TENSORS:
        raise CloraError(f"{where}: its weight_map has {len(places):,} tensors; at most {MAX_TENSORS:,} are read")
    if not isinstance(tree.get("metadata", {}), dict):
        raise CloraError(f"{where}: metadata must be a map, found {kind_of(tree['metadata'])}")
    files: dict[str, list[str]] = {}
    for tensor, file in places.items():
        if not isinstance(file, str):
            raise CloraError(
                f"{where}: its weight_map is no map of tensors to files: {quoted(tensor)} is in {kind_of(file)}"
            )
        files.setdefault(file, []).append(tensor)
    if len(files) > MAX_SHARDS:
        raise CloraError(f"{where}: its weight_map names {len(files):,} files; at most {MAX_SHARDS:,} are read")
    return files


def is_file_name(name: str) -> bool:
    """True for a plain file or folder name, without a way out of the folder."""
    return len(name) <= 255 and re.fullmatch(r"[\w-][\w.-]*", name) is not None
