"""What a component must do beyond its signature, as checks that an author runs: `problems_of("losses", Mine())`.

They say what a person would otherwise learn in a run of hours: the same draws give the same result, a gradient reaches
who is trained, nothing that is handed in is changed, numbers have bounds, and a recipe that is only looked at brings
nothing heavy into memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from clora.config.fields import Key, keys_of
from clora.config.key_docs import sentence_of
from clora.contracts.method import KeepsState
from clora.contracts.values import Phase
from clora.plugin_system.guard import ComponentError, Owners
from clora.plugin_system.required_members import PROTOCOLS, likely_mistakes, misfits_of
from clora.testing.exporters import exporter_problems
from clora.testing.heavy_imports import heavy_imports
from clora.testing.kernels import kernel_problems
from clora.testing.lora_layouts import layout_problems
from clora.testing.losses import loss_problems
from clora.testing.mergers import merger_problems
from clora.testing.metrics import metric_problems
from clora.testing.observers import observer_problems
from clora.testing.optimizers import optimizer_problems
from clora.testing.prompts import prompt_problems
from clora.testing.reports import reporter_problems
from clora.testing.routers import router_problems
from clora.testing.simulations import simulation_problems
from clora.training.owned import state_problem


def problems_of(
    kind: str, part: Any, *, phase: Phase = "student", checks_imports: bool = True, computes: bool = True
) -> list[str]:
    """Everything that is wrong with a component of a kind (`losses`, `router`, `lora_layouts`, ...), a sentence each.

    `phase` is whom a loss trains. Unless `computes`, a component that needs a GPU or weights is looked at from outside
    alone, as backbones, datasets, banks and captioners always are: what they give depends on their files.
    """
    if kind not in PROTOCOLS:
        raise ValueError(f"{kind!r} is no kind of components; they are {', '.join(PROTOCOLS)}")
    found = list(misfits_of(kind, part))
    if found:
        return found
    found += [*_outside(type(part)), *likely_mistakes(part)]
    if checks_imports:
        found += _imports(type(part))
    if not computes:
        return found
    inside: Mapping[str, Callable[[Any], Iterator[str]]] = {
        "losses": lambda loss: loss_problems(loss, phase),
        "simulations": simulation_problems,
        "router": router_problems,
        "prompts": prompt_problems,
        "metrics": metric_problems,
        "kernels": kernel_problems,
        "exporters": exporter_problems,
        "observers": observer_problems,
        "optimizer": optimizer_problems,
        "merge": merger_problems,
        "lora_layouts": layout_problems,
        "reporters": reporter_problems,
    }
    try:
        every = chain(
            _state(part) if isinstance(part, KeepsState) else (), inside.get(kind, lambda part: iter(()))(part)
        )
        for problem in every:
            found.append(problem)  # one by one: what was found stays where the component raises later
    except ComponentError as error:
        found.append(str(error))
    return found


def _outside(cls: type) -> Iterator[str]:
    """Frozen, with a sentence, and bounds on every number."""
    if cls.__setattr__ is object.__setattr__:
        yield f"{cls.__name__} can be changed after it is made; use attrs' `frozen`"
    if not sentence_of(cls) or sentence_of(cls).startswith(f"{cls.__name__}("):
        yield f"{cls.__name__} has no docstring: `clora plugins` and editors have nothing to show"
    for key in keys_of(cls):
        if _is_number(key) and key.attribute.validator is None:
            yield f"{key.name} has no bounds; give it validator=between(low, high)"


def _is_number(key: Key) -> bool:
    return any(part in (int, float) for part in (key.type, *getattr(key.type, "__args__", ())))


def _imports(cls: type) -> Iterator[str]:
    """What importing the component's module brings into memory; nothing of a class that no file defines."""
    module = cls.__module__
    if module in ("__main__", "builtins") or getattr(sys.modules.get(module), "__file__", None) is None:
        return
    heavy = heavy_imports(module)
    if heavy:
        yield f"importing {module} imports {heavy}; import them where they compute, so that recipes are checked at once"


def _state(part: KeepsState) -> Iterator[str]:
    """A state of tensors that is taken back as it was given."""
    import torch

    with Owners().calling("state"):
        given = part.state()
        problem = state_problem(given)
        if problem is not None:
            yield problem
            return
        kept = {key: value.clone() for key, value in given.items()}
        part.restore(kept)
        again = part.state()
    if again.keys() != kept.keys() or not all(torch.equal(again[key], kept[key]) for key in kept):
        yield "its state() after restore() is not what was restored"
