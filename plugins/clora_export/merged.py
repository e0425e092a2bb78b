"""A LoRA folded into its base's weights, shard by shard, for servers that know no LoRA."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from attrs import evolve, frozen
from safetensors import safe_open
from safetensors.torch import save_file

from clora.api import CloraError, LoraDelta, write_folder

#: the folder of the base with the LoRA in its weights, as pipelines call their transformer's
MERGED = "transformer"
_INDEX = "*.safetensors.index.json"


@frozen
class Merged:
    """What a merge did: how many linears changed, and which share of the change rounding took away."""

    linears: int
    lost: float  # Frobenius norm of the rounding error over that of the change


def shards(files: Path) -> list[Path]:
    """The safetensors files of a model's folder, in order. Raises CloraError where there are none or one is missing."""
    index = next(iter(sorted(files.glob(_INDEX))), None)
    if index is None:
        found = sorted(files.glob("*.safetensors"))
        if len(found) != 1:
            raise CloraError(f"{files} has {len(found)} safetensors files and no index; a merge needs one or an index")
        return found
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CloraError(f"{index} is no index of safetensors files") from error
    for name in names:
        if Path(name).name != name or not (files / name).is_file():
            raise CloraError(f"{index} names {name!r}, which is not in its folder")
    return [files / name for name in names]


def write_merged(
    files: Path, deltas: Mapping[str, LoraDelta], out: Path, tell: Callable[[str], None] = lambda text: None
) -> Merged:
    """Write a copy of the transformer in `files` with every delta added to its linear, a shard at a time.

    Sums are made in float32 and stored in the base's own type. Raises CloraError where a linear is not there or is
    stored in a type that cannot be added to.
    """
    parts = shards(files)
    seen: set[str] = set()
    squares = {"change": 0.0, "lost": 0.0}

    def fill(folder: Path) -> None:
        for number, shard in enumerate(parts):
            tell(f"merge: {shard.name}, {number + 1} of {len(parts)}")
            tensors, metadata = _merged(shard, deltas, seen, squares)
            save_file(tensors, folder / shard.name, metadata)
        for beside in (files / "config.json", *files.glob(_INDEX)):
            shutil.copyfile(beside, folder / beside.name)
        missing = [module for module in deltas if module not in seen]
        if missing:
            raise CloraError(f"{files} has no weights of {len(missing)} linears of the LoRA, such as {missing[0]}")

    write_folder(out, fill)
    return Merged(len(seen), (squares["lost"] / squares["change"]) ** 0.5 if squares["change"] else 0.0)


def _merged(
    shard: Path, deltas: Mapping[str, LoraDelta], seen: set[str], squares: dict[str, float]
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    tensors: dict[str, torch.Tensor] = {}
    with safe_open(shard, framework="pt", device="cpu") as file:
        metadata = file.metadata() or {"format": "pt"}
        for name in file.keys():  # noqa: SIM118 - not a dict
            tensor = file.get_tensor(name)
            module = name.removesuffix(".weight")
            if name.endswith(".weight") and module in deltas:
                tensor = _added(shard, name, tensor, deltas[module], squares)
                seen.add(module)
            tensors[name] = tensor
    return tensors, metadata


def _added(shard: Path, name: str, weight: torch.Tensor, delta: LoraDelta, squares: dict[str, float]) -> torch.Tensor:
    change = evolve(delta, a=delta.a.float(), b=delta.b.float()).weight()
    if not weight.is_floating_point() or weight.element_size() < 2 or weight.shape != change.shape:
        raise CloraError(
            f"{shard}: {name} is {weight.dtype} {list(weight.shape)}; a merge needs unquantised {list(change.shape)}"
        )
    exact = weight.float() + change
    stored = exact.to(weight.dtype)
    squares["change"] += float(change.double().square().sum())
    squares["lost"] += float((stored.float() - exact).double().square().sum())
    return stored
