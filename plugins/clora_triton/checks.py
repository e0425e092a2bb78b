"""What a LoRA linear may be called with: every refusal says what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clora_triton.call import Call


def _refuse(what: str, expected: object, actual: object) -> None:
    raise ValueError(f"lora_linear: {what}: expected {expected}, got {actual}")


def check_base(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Raise ValueError where x, weight and bias do not make a linear, TypeError where their types differ."""
    if x.dim() < 2 or weight.dim() != 2 or x.shape[-1] != weight.shape[1]:
        _refuse("x and weight", "x [B, ..., in] and weight [out, in]", f"{tuple(x.shape)} and {tuple(weight.shape)}")
    if not x.is_floating_point() or x.dtype != weight.dtype:
        raise TypeError(f"lora_linear: weight: expected x's floating type {x.dtype}, got {weight.dtype}")
    if x.device != weight.device:
        _refuse("weight's device", x.device, weight.device)
    if bias is not None:
        if bias.dim() != 1 or bias.shape[0] != weight.shape[0]:
            _refuse("bias", f"[{weight.shape[0]}], one number for each of weight's outputs", list(bias.shape))
        if bias.dtype != x.dtype:
            raise TypeError(f"lora_linear: bias: expected x's type {x.dtype}, got {bias.dtype}")
        if bias.device != x.device:
            _refuse("bias's device", x.device, bias.device)


def check_factors(x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, name: str) -> None:
    """Raise ValueError or TypeError where A [r, in] and B [out, r] do not fit the base linear."""
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1] or a.shape[0] < 1:
        _refuse(f"{name}", "A [r, in] and B [out, r] of one rank r >= 1", f"A {list(a.shape)} and B {list(b.shape)}")
    if a.shape[1] != weight.shape[1] or b.shape[0] != weight.shape[0]:
        expected = f"A [r, {weight.shape[1]}] and B [{weight.shape[0]}, r]"
        _refuse(f"{name}", expected, f"A {list(a.shape)} and B {list(b.shape)}")
    if not (a.is_floating_point() and b.is_floating_point()):
        raise TypeError(f"lora_linear: {name}: expected floating types, got A {a.dtype} and B {b.dtype}")
    if a.device != x.device or b.device != x.device:
        _refuse(f"{name}'s device", x.device, f"A on {a.device} and B on {b.device}")


def check_dropout(dropout: object, seed: object, segments: int) -> list[float]:
    """One share for every segment; raise where one is no share, or where there is no seed to draw a mask from."""
    if isinstance(dropout, float | int):
        shares: list[object] = [dropout] * segments
    elif isinstance(dropout, Sequence) and not isinstance(dropout, str):
        shares = list(dropout)
        if len(shares) != segments:
            _refuse("dropout", f"one number, or one for each of {segments} segments", f"{len(shares)} numbers")
    else:
        raise TypeError(f"lora_linear: dropout: expected a number or a sequence of them, got {type(dropout).__name__}")
    checked: list[float] = []
    for share in shares:
        if not isinstance(share, float | int):
            raise TypeError(f"lora_linear: dropout: expected numbers, got {type(share).__name__}")
        if not 0 <= share < 1:
            _refuse("dropout", "0 <= p < 1", share)
        checked.append(float(share))
    if any(checked):
        _check_seed(seed, max(checked))
    return checked


def _check_seed(seed: object, share: float) -> None:
    expected = "a whole number of 64 bits, or an int64 tensor of no axes"
    if seed is None:
        _refuse("seed", f"{expected}, as dropout is {share:g}", None)
    if isinstance(seed, torch.Tensor):
        if seed.dtype != torch.int64 or seed.dim():
            raise TypeError(f"lora_linear: seed: expected {expected}, got {seed.dtype} {list(seed.shape)}")
    elif not isinstance(seed, int):
        raise TypeError(f"lora_linear: seed: expected {expected}, got {type(seed).__name__}")
    elif not -(2**63) <= seed < 2**63:
        _refuse("seed", f"{expected}, from -2^63 to 2^63 - 1", seed)


def check_rows(rows: Sequence[int], expected: int) -> None:
    """Raise ValueError where the segments do not cover x's rows, each once."""
    covered = 0
    for index, count in enumerate(rows):
        if count < 0:
            _refuse(f"segment {index}", "at least 0 rows", count)
        covered += count
    if covered < expected:
        _refuse("segments leave a gap", f"x's {expected} rows in all", f"{covered} (rows {covered}.. have no segment)")
    if covered > expected:
        _refuse("segments overlap or go on behind x's end", f"x's {expected} rows in all", covered)


def check_table(call: Call) -> None:
    """Raise where the lists of a call do not belong together or name an adapter that is not there."""
    if not len(call.a) == len(call.b) == len(call.scales):
        counts = f"{len(call.a)} A, {len(call.b)} B and {len(call.scales)} scales"
        _refuse("adapters", "one A, one B and one scale each", counts)
    if len(call.rows) != len(call.which):
        _refuse("segments", "one adapter index each", f"{len(call.rows)} row counts, {len(call.which)} indices")
    for index, adapter in enumerate(call.which):
        if not -1 <= adapter < len(call.a):
            _refuse(f"segment {index}'s adapter", f"an index from 0 to {len(call.a) - 1}, or -1 for none", adapter)
    if call.dropout is not None and len(call.dropout.p) != len(call.a):
        _refuse("dropout", f"one number for each of {len(call.a)} adapters", f"{len(call.dropout.p)} numbers")
    check_base(call.x, call.weight, call.bias)
    for index, (a, b) in enumerate(zip(call.a, call.b, strict=True)):
        check_factors(call.x, call.weight, a, b, f"adapter {index}")
    check_rows(call.rows, call.x.shape[0])
