"""Kept: bound by bytes, what was used longest ago goes first."""

from __future__ import annotations

import torch

from clora.inference.lru_cache import LruCache


def floats(count: int) -> dict[str, torch.Tensor]:
    return {"numbers": torch.zeros(count)}


def test_the_record_used_longest_ago_goes_first() -> None:
    kept = LruCache(3 * 4 * 10)
    for name in "abc":
        kept.add(name, floats(10))
    assert kept.get("a") is not None
    kept.add("d", floats(10))
    assert kept.get("b") is None
    assert all(kept.get(name) is not None for name in "acd")
    assert kept.bytes == 120


def test_large_records_push_several_out_and_one_larger_than_all_still_stays() -> None:
    kept = LruCache(100)
    for name in "ab":
        kept.add(name, floats(10))
    kept.add("large", floats(1000))
    assert kept.get("large") is not None
    assert kept.bytes == 4000
    kept.add("small", floats(1))
    assert kept.get("large") is None
    assert kept.bytes == 4


def test_a_record_in_place_of_another_counts_once() -> None:
    kept = LruCache(100)
    kept.add("a", floats(10))
    kept.add("a", floats(5))
    assert kept.bytes == 20
