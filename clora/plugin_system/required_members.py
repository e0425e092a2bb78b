"""What a component of each section must have: the members of its protocol, missed before the run and not within it."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from inspect import get_annotations, signature
from types import FunctionType
from typing import Any

from clora.config.sections import component_kind
from clora.contracts import backbone, component, data, export, loaded_backbone, lora_layout, method, run
from clora.contracts.backbone import Backbone
from clora.contracts.data import Captioner, Dataset, Metric
from clora.contracts.export import Exporter
from clora.contracts.loaded_backbone import LoraKernel
from clora.contracts.lora_layout import LoraLayout
from clora.contracts.merger import Merger
from clora.contracts.method import Loss, PromptStrategy, Router, SimulationSchedule, Teachers
from clora.contracts.optimizer import Optimizer
from clora.contracts.report import Reporter
from clora.contracts.run import Observer
from clora.errors import quoted

#: how alike two names are of which one is the other misspelt: `weigth_at`, but not `checked`
ALIKE = 0.86
PROTOCOLS: dict[str, type] = {
    "teachers": Teachers,
    "router": Router,
    "prompts": PromptStrategy,
    "simulations": SimulationSchedule,
    "losses": Loss,
    "backbone": Backbone,
    "dataset": Dataset,
    "metrics": Metric,
    "kernels": LoraKernel,
    "optimizer": Optimizer,
    "captioner": Captioner,
    "exporters": Exporter,
    "observers": Observer,
    "merge": Merger,
    "reporters": Reporter,
    "lora_layouts": LoraLayout,
}


@cache
def members(kind: str) -> tuple[str, ...]:
    """The methods and values of a section's protocol, in its order."""
    return _members(PROTOCOLS[kind])


def _members(protocol: type) -> tuple[str, ...]:
    named = dict.fromkeys([*get_annotations(protocol), *vars(protocol)])
    return tuple(name for name in named if name == "__call__" or not name.startswith("_"))


@cache
def abilities() -> tuple[str, ...]:
    """The methods that a component may have and the core looks for."""
    return tuple(sorted({name for cls in (*PROTOCOLS.values(), *optional_protocols()) for name in _members(cls)}))


@cache
def optional_protocols() -> tuple[type, ...]:
    """The abilities beyond a section's protocol, as the core asks for them with isinstance."""
    named = [
        value
        for module in (method, backbone, loaded_backbone, data, export, lora_layout, run, component)
        for value in vars(module).values()
    ]
    return tuple(dict.fromkeys(each for each in named if getattr(each, "_is_runtime_protocol", False)))


def misfits(place: str, part: Any) -> Iterator[str]:
    """A sentence where a component lacks what its section's protocol has, or has it in another form."""
    kind = component_kind(tuple(place.split(".")))
    if kind is not None:
        yield from misfits_of(kind, part)


def misfits_of(kind: str, part: Any) -> Iterator[str]:
    """The same of a component of a kind."""
    protocol = PROTOCOLS[kind]
    missing = [name for name in members(kind) if not hasattr(part, name)]
    if missing:
        yield f"{quoted(type(part).__name__)} is no {protocol.__name__}: it has no {', '.join(missing)}"
    told = [_calls_otherwise(part, protocol, name) for name in members(kind) if name not in missing]
    yield from (f"{quoted(type(part).__name__)} is no {protocol.__name__}: its {each}" for each in told if each)


def likely_mistakes(part: Any) -> Iterator[str]:
    """A sentence for a method that is nearly named as one that is called, or is one and takes other arguments."""
    for name, value in vars(type(part)).items():
        if name.startswith("_") or not callable(value) or name in abilities():
            continue
        close = [near for near in get_close_matches(name, abilities(), n=1, cutoff=ALIKE) if not _has_own(part, near)]
        if close:
            yield f"nobody calls the method {quoted(name)} of {quoted(type(part).__name__)}; did you mean {close[0]!r}?"
    for protocol in optional_protocols():
        if isinstance(part, protocol):  # a value of that name is a key of the component's own
            methods = [name for name in _members(protocol) if callable(getattr(part, name))]
            told = [_calls_otherwise(part, protocol, name) for name in methods]
            whose = f"{quoted(type(part).__name__)} is taken for {protocol.__name__}"
            yield from (f"{whose}, but its {each}" for each in told if each)


def _has_own(part: Any, name: str) -> bool:
    """Whether a component has a member that is not merely what one of clora's base classes gives everyone."""
    owner = next((cls for cls in type(part).__mro__ if name in vars(cls)), None)
    if owner is None:
        return hasattr(part, name)
    return not (owner.__module__.startswith("clora.contracts.") and isinstance(vars(owner)[name], FunctionType))


def _calls_otherwise(part: Any, protocol: type, name: str) -> str:
    """What is wrong with a component's own form of a method, its name first; empty where it can be called as it is."""
    asked = vars(protocol).get(name)
    if not isinstance(asked, FunctionType):
        return ""
    given = getattr(part, name)
    if not callable(given):
        return f"{name} is no method"
    words = list(signature(asked).parameters)[1:]  # but for self
    try:
        signature(given).bind(*words)
    except TypeError:
        return f"{name} takes ({', '.join(signature(given).parameters)}); it is called with ({', '.join(words)})"
    except ValueError:  # a callable that tells no signature
        return ""
    return ""
