"""Whether the network that is being loaded will be kept in shares by several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import nn

#: (network, its blocks) -> nothing; the network lies on the CPU and is on the device, in shares, afterwards
Share: TypeAlias = "Callable[[nn.Module, Sequence[nn.Module]], None]"

_SHARE: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def loaded_by(share: Share) -> Iterator[None]:
    """Within it networks that are made to fit are put on the device by `share`."""
    token = _SHARE.set(share)
    try:
        yield
    finally:
        _SHARE.reset(token)


def sharing() -> Share | None:
    """What puts a network on the device in shares, or None where each process keeps it whole.

    Load on the CPU where this is not None: the whole network may not fit on the device.
    """
    return _SHARE.get()
