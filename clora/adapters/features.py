"""What the network's blocks give within a forward, for losses that look inside, such as a discriminator on features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

from torch import nn

from clora.contracts.loaded_backbone import HasFeatures, LoadedBackbone
from clora.errors import CloraError


def features_of(backbone: LoadedBackbone) -> HasFeatures:
    """The backbone, which shows its features. Raises CloraError where it does not."""
    if not isinstance(backbone, HasFeatures):
        raise CloraError(f"{type(backbone).__name__} shows no features: it has no blocks() and features()")
    return backbone


@contextmanager
def listening(blocks: Sequence[nn.Module], depths: Sequence[float]) -> Iterator[Mapping[float, Any]]:
    """Within it every forward notes by depth what the block at ceil(depth blocks), counted from 1, returns.

    A block that is run again in the backward pass, to save memory, is not noted again.
    """
    found: dict[float, Any] = {}

    def noting(depth: float) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            found.setdefault(depth, output)

        return note

    handles = [blocks[ceil(depth * len(blocks)) - 1].register_forward_hook(noting(depth)) for depth in depths]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
