"""Checksums of texts, files and tensors, and how a damaged file is told, set aside and found again.

What a checksum covers begins with the name that the file should have: a whole file in another's place is damage too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from clora.errors import CloraError, shown
from clora.files.atomic import told_plainly

if TYPE_CHECKING:
    import torch

#: who is told of damage, a line each time
Tell = Callable[[str], None]
#: the name that damaged folders and what stands in a file's way get: they are kept, for a person to look at
DAMAGED = ".damaged"


class DamagedError(CloraError):
    """A file that is not what was written; the message names it and says how that was seen."""


def warn(text: str) -> None:
    """A line on stderr, whether progress is wanted or not."""
    print(text, file=sys.stderr, flush=True)


def checksum_of(name: str, content: bytes, size: int = 16) -> str:
    """blake2b over a name and some bytes, in hexadecimal digits, two for each byte of `size`."""
    return blake2b(name.encode("utf-8", "surrogatepass") + b"\n" + content, digest_size=size).hexdigest()


def checksum_of_file(path: Path) -> str:
    """blake2b over a file's bytes, 32 hexadecimal digits."""
    hasher = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def checksum_of_tensors(name: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """blake2b over a name, and names, types, shapes and numbers of tensors that come in the order of their names."""
    import torch

    hasher = blake2b(name.encode("utf-8", "surrogatepass") + b"\n", digest_size=16)
    for key, tensor in tensors:
        hasher.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(tensor.detach().reshape(-1).view(torch.uint8).cpu().numpy().tobytes())
    return hasher.hexdigest()


def set_aside(path: Path) -> Path:
    """Give a path another name beside it, `NAME.damaged` or `NAME.damaged-2`, and return it; nothing is deleted.

    Raises CloraError where the folder cannot be written.
    """
    number, aside = 1, path.with_name(f"{path.name}{DAMAGED}")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}{DAMAGED}-{number}")
    with told_plainly(path):
        path.rename(aside)
    return aside


def make_way(path: Path, tell: Tell = warn) -> None:
    """Set aside a folder that stands where a file of ours belongs."""
    if path.is_dir() and not path.is_symlink():
        tell(f"{shown(path)} is a folder, not the file that was written; it is kept as {set_aside(path).name}")
