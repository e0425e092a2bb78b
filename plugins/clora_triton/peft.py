"""LoRA linears of `peft` computed by this package: switched on by one call, and everything unusual stays PEFT's own.

PEFT asks a configuration's custom modules (`LoraConfig._register_custom_module`) before its own layers. The layer
offered there is PEFT's `lora.Linear` with another `forward`: parameters, files, merging and all variants are inherited.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from difflib import get_close_matches
from functools import lru_cache
from itertools import groupby
from typing import Any, cast

import torch
from peft import LoraConfig
from peft.tuners import lora
from peft.tuners.lora.layer import LoraLayer, dispatch_default
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn
from torch.nn.modules.module import _has_any_global_hook  # PEFT's layers are entered through hooks, ours skip them

from clora_triton.op import Segment, lora_linear

#: PEFT's name, in a mixed batch, for rows without adapter
BASE = "__base__"
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
#: one more than the largest seed of a dropout
_SEEDS = 2**63 - 1
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def plain_linear(module: object) -> bool:
    """True for torch's own linear with an ordinary weight: nothing quantised, sharded, parametrised or hooked."""
    return (
        type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and "forward" not in module.__dict__
        and not any(getattr(module, hooks) for hooks in _HOOKS)
    )


def _linear(module: nn.Module) -> nn.Linear:
    """The module as what `plain_linear` found it to be; no check, since this runs for every call."""
    return cast("nn.Linear", module)


def _plain_dropout(module: nn.Module) -> bool:
    """True for torch's own dropout where the operation does the same: it does nothing, or drops a part for good."""
    if type(module) is not nn.Dropout:
        return False
    plain = module.p < 1 and not module.inplace and not any(getattr(module, hooks) for hooks in _HOOKS)
    return plain or module.p == 0 or not module.training


def _share(dropout: nn.Module) -> float:
    """What a dropout (or none) hides of its input now."""
    return float(dropout.p) if isinstance(dropout, nn.Dropout) and dropout.training else 0.0


class Linear(lora.Linear):
    """PEFT's LoRA linear whose plain cases are one operation, for one adapter or a different one in every row.

    It bears PEFT's name in PEFT's messages and layer reports. Copied it stays what it is; pickled it becomes
    PEFT's own, so that a saved model loads where this package is not.
    """

    __module__ = lora.Linear.__module__

    def __deepcopy__(self, memo: dict[int, Any]) -> Linear:
        copied = memo[id(self)] = self.__class__.__new__(self.__class__)
        copied.__setstate__(deepcopy(self.__dict__, memo))
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return lora.Linear.__new__, (lora.Linear,), self.__dict__

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """x [B, ..., in] -> [B, ..., out]; what the operation does not cover goes through PEFT's forward."""
        if not args and (not kwargs or kwargs.keys() == {"adapter_names"}):
            found = self.segments(x, kwargs.get("adapter_names"))
            if found is not None:
                base, (segments, shares) = _linear(self.base_layer), found
                if not any(shares):
                    return lora_linear(x, base.weight, base.bias, segments)
                # from torch's generator, so that manual_seed governs it and a checkpointed forward draws it again
                seed = torch.randint(_SEEDS, (), device=x.device)
                return lora_linear(x, base.weight, base.bias, segments, dropout=shares, seed=seed)
        return super().forward(x, *args, **kwargs)

    def segments(self, x: torch.Tensor, names: Sequence[str] | None) -> tuple[list[Segment], list[float]] | None:
        """The operation's segments and their dropout; None where the call is one of those that PEFT itself computes."""
        if self._disable_adapters or self.merged_adapters or not plain_linear(self.base_layer):
            return None
        if _has_any_global_hook():
            return None
        base = _linear(self.base_layer)
        if not isinstance(x, torch.Tensor) or x.dim() < 2 or x.numel() == 0 or x.shape[-1] != base.in_features:
            return None
        if x.device.type not in ("cpu", "cuda") or x.device != base.weight.device:
            return None
        cast = torch.is_autocast_enabled(x.device.type)
        kind = torch.get_autocast_dtype(x.device.type) if cast else x.dtype
        if kind not in _TYPES or x.dtype not in _TYPES or not (cast or x.dtype == base.weight.dtype):
            return None
        runs = self._runs(x.shape[0], names)
        if runs is None:
            return None
        found: list[Segment] = []
        shares: list[float] = []
        for name, rows in runs:
            if name not in self.lora_A:
                found.append((rows, None, None, 0.0))
                shares.append(0.0)
            elif self._ordinary(name, x.device, kind):
                a, b = _linear(self.lora_A[name]), _linear(self.lora_B[name])
                found.append((rows, a.weight, b.weight, self.scaling[name]))
                shares.append(_share(self.lora_dropout[name]))
            else:
                return None
        return found, shares

    def _runs(self, rows: int, names: Sequence[str] | None) -> tuple[tuple[str, int], ...] | None:
        """(adapter, rows in a row) of the batch; None where that is PEFT's to say or to refuse."""
        if names is None:
            active = [name for name in self.active_adapters if name in self.lora_A]
            return ((active[0], rows),) if len(active) == 1 else None
        return _grouped(tuple(names)) if len(names) == rows else None

    def _ordinary(self, name: str, device: torch.device, kind: torch.dtype) -> bool:
        """True where the adapter is scale * B A and nothing else: no variant, bias, hook or foreign type.

        `kind` is the type that is computed in; factors may be float32 beside it, as masters.
        """
        dropout = self.lora_dropout[name]
        if name in self.lora_variant or not (plain_linear(self.lora_A[name]) and plain_linear(self.lora_B[name])):
            return False
        a, b = _linear(self.lora_A[name]), _linear(self.lora_B[name])
        if b.bias is not None:
            return False
        if type(dropout) is not nn.Identity and not _plain_dropout(dropout):
            return False
        if not isinstance(self.scaling[name], float | int):  # adapters made ready for hot-swapping keep a tensor there
            return False
        own = a.weight.dtype
        if own != kind and (own != torch.float32 or not self.cast_input_dtype_enabled):
            return False
        return b.weight.dtype == own and a.weight.device == b.weight.device == device


@lru_cache(maxsize=256)
def _grouped(names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((name, len(list(run))) for name, run in groupby(names))


def _dispatch(target: nn.Module, adapter_name: str, **kwargs: Any) -> nn.Module | None:
    """PEFT's layer for a plain linear, made ours; None for all else, which PEFT's own dispatchers then see."""
    base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    if type(base) is not nn.Linear or type(base.weight) is not nn.Parameter:
        return None
    layer = dispatch_default(target, adapter_name, **kwargs)
    if type(layer) is lora.Linear:
        layer.__class__ = Linear
    return layer


class _Mapping(dict[type, Any]):
    """A configuration's custom modules with ours behind them; what is registered later still reaches the user's own."""

    def __init__(self, config: LoraConfig) -> None:
        own = config.__dict__.get("_custom_modules") or {}
        super().__init__(own)
        self.setdefault(nn.Linear, _dispatch)
        self._config = config

    def update(self, mapping: dict[type, Any]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._config.__dict__["_custom_modules"] = (self._config.__dict__.get("_custom_modules") or {}) | mapping


class _CustomModules:
    """Stands for `_custom_modules` of every LoraConfig, made before or after, while the kernels are on for all."""

    def __get__(self, config: LoraConfig | None, owner: type) -> object:
        return self if config is None else _Mapping(config)

    def __set__(self, config: LoraConfig, value: dict[type, Any] | None) -> None:
        config.__dict__["_custom_modules"] = value


class Switch:
    """What was switched on; `off()`, or leaving it as a context manager, brings PEFT's own layers back."""

    def __init__(self, target: LoraConfig | nn.Module | None) -> None:
        self._layers: list[nn.Module] = []
        self._config: LoraConfig | None = None
        self._before: Any = None
        if isinstance(target, LoraConfig):
            self._config = target
            self._before = (target.__dict__.get("_custom_modules") or {}).get(nn.Linear)
            target._register_custom_module(cast("Any", {nn.Linear: _dispatch}))
        elif isinstance(target, nn.Module):
            self._layers = [module for module in target.modules() if type(module) is lora.Linear]
            for layer in self._layers:
                layer.__class__ = Linear
        elif target is None:
            _everywhere.append(self)
            LoraConfig._custom_modules = _CustomModules()  # pyright: ignore[reportAttributeAccessIssue]
        else:
            raise TypeError(f"expected a LoraConfig, a module or nothing, got {type(target).__name__}")

    def off(self) -> None:
        """Undo it: configurations no longer offer our layer, and a model given whole has PEFT's layers again."""
        for layer in self._layers:
            layer.__class__ = lora.Linear
        if self._config is not None:
            own: dict[type, Any] = dict(self._config.__dict__.get("_custom_modules") or {})
            own.pop(nn.Linear, None)
            self._config.__dict__["_custom_modules"] = own | ({nn.Linear: self._before} if self._before else {}) or None
        if self in _everywhere:
            _everywhere.remove(self)
            if not _everywhere:
                del LoraConfig._custom_modules  # pyright: ignore[reportAttributeAccessIssue]
        self._layers, self._config = [], None

    def __enter__(self) -> Switch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.off()


_everywhere: list[Switch] = []


def use_with_peft(target: LoraConfig | nn.Module | None = None) -> Switch:
    """Let PEFT's LoRA linears be computed by this package's operation.

    Without argument it holds for every LoRA put on a model from now on, also by diffusers and transformers; with a
    LoraConfig for that one; with a model for the layers that it has. Layers made meanwhile stay as they are.
    """
    return Switch(target)


@contextmanager
def mixed_adapters(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within it row i of every batch uses adapter names[i], `__base__` none, in training too; run backward inside.

    (A checkpointed forward runs again in backward, and must find the same rows.) Which adapters learn is PEFT's
    `requires_grad`, see `model.set_requires_grad`. Raises ValueError for names that no layer has.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer | AuxiliaryTrainingWrapper)]
    known = {
        name for layer in layers if isinstance(layer, LoraLayer) for name in (*layer.lora_A, *layer.lora_embedding_A)
    }
    wrong = sorted(set(names) - known - {BASE})
    if wrong:
        near = {name: get_close_matches(name, sorted(known), 1) for name in wrong}
        told = ", ".join(f"{name!r}" + (f" (is {found[0]!r} meant?)" if found else "") for name, found in near.items())
        raise ValueError(f"no such adapter: {told}; there are {', '.join(sorted(known)) or 'none'}")
    given = tuple(names)
    handles = [layer.register_forward_pre_hook(_Inject(given), with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Inject:
    """The hook by which PEFT's layers are told the rows' adapters, as PEFT itself tells them outside training."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = list(names)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "adapter_names": self.names}
