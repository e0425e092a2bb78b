"""The records used last, in memory up to so many bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clora.runs.cache_shards import Record


class LruCache:
    """A cache bound by bytes: what was used longest ago goes first; the newest record always stays."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._records: OrderedDict[Hashable, Record] = OrderedDict()

    def get(self, key: Hashable) -> Record | None:
        """The record of a key, None where it is not kept."""
        found = self._records.get(key)
        if found is not None:
            self._records.move_to_end(key)
        return found

    def add(self, key: Hashable, record: Record) -> None:
        """Keep a record, in place of others where the budget asks for it."""
        before = self._records.pop(key, None)
        self.bytes += size(record) - (0 if before is None else size(before))
        self._records[key] = record
        while self.bytes > self.budget and len(self._records) > 1:
            self.bytes -= size(self._records.popitem(last=False)[1])


def size(record: Record) -> int:
    """The bytes of a record's tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in record.values())
