"""One reader for every layout: file -> {linear: (A, B, scale)}."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from clora.lora_files.contents import Contents, understand, unmatched_problem
from clora.lora_files.header import Header, LoraFileError, inspect_header
from clora.lora_files.scales import scales

if TYPE_CHECKING:
    import torch


@frozen(eq=False)
class LoraDelta:
    """One linear's change of weight, scale * b @ a: a [r, in], b [out, r]."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def weight(self) -> torch.Tensor:
        """scale * b @ a, [out, in]."""
        return self.scale * (self.b @ self.a)


@frozen(eq=False)
class LoraFile:
    """A LoRA file in memory; `unused` keys name no linear of the backbone."""

    deltas: Mapping[str, LoraDelta]
    layout: str
    unused: tuple[str, ...]
    metadata: Mapping[str, str]


def read_lora(
    path: Path,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    *,
    dtype: torch.dtype | None = None,
    allow_unused: bool = False,
) -> LoraFile:
    """Read a LoRA in any layout of `keys`, for a backbone whose linears are `shapes` {module: (in, out)}.

    Factors keep the file's type (8-bit floats become float32) unless `dtype` is given; they are on the CPU. Without
    `shapes` every dotted name is taken as it stands. Raises LoraFileError for whatever cannot be used, NaN and infinity
    included, and for keys that name no linear unless `allow_unused`.
    """
    header = inspect_header(path)
    contents = understand(path, header, shapes)
    problems = list(contents.problems)
    if not allow_unused or not contents.pairs:
        problems += unmatched_problem(path, contents, shapes)
    if problems:
        raise LoraFileError("\n".join(problems))
    tensors = load_tensors(path, contents, dtype)
    strength = scales(path, header, contents, {name: float(tensors[name]) for name in alpha_names(contents)})
    deltas = {m: LoraDelta(tensors[pair.a], tensors[pair.b], strength[m]) for m, pair in contents.pairs.items()}
    return LoraFile(deltas, contents.layout, contents.unmatched, header.metadata)


def alpha_names(contents: Contents) -> list[str]:
    """The names of the alpha tensors."""
    return [pair.alpha for pair in contents.pairs.values() if pair.alpha is not None]


def load_tensors(path: Path, contents: Contents, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """The factors and alphas by name, on the CPU. Raises LoraFileError naming tensors with NaN or infinity."""
    import torch
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, torch.Tensor] = {}
    broken: list[str] = []
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for pair in contents.pairs.values():
                for name in (pair.a, pair.b):
                    tensor = file.get_tensor(name)
                    kept = torch.float32 if tensor.element_size() == 1 else tensor.dtype
                    tensors[name] = tensor.to(dtype or kept)
                    if not bool(tensors[name].isfinite().all()):
                        broken.append(name)
                if pair.alpha is not None:
                    tensors[pair.alpha] = file.get_tensor(pair.alpha).reshape(())
    except (SafetensorError, OSError) as error:
        raise LoraFileError(f"{path}: cannot be read: {error}") from error
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise LoraFileError(f"{path}: NaN or infinity in {', '.join(map(repr, broken[:3]))}{more}")
    return tensors


def file_strengths(path: Path, header: Header, contents: Contents) -> dict[str, float]:
    """The scale of every linear, reading nothing but the alphas."""
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        alphas = {name: float(file.get_tensor(name).reshape(())) for name in alpha_names(contents)}
    return scales(path, header, contents, alphas)
