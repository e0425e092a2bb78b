"""What a LoRA file holds for a backbone, from its header alone: pairs of factors, leftovers, mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from attrs import field, frozen

from clora.lora_files.header import FLOATS, Header
from clora.lora_files.keys import Key, Names, is_flat, unsupported

#: how many names a message quotes
QUOTED = 3


@frozen
class Pair:
    """The tensors' names of one linear's LoRA."""

    a: str
    b: str
    rank: int
    alpha: str | None = None
    peft: bool = False


@frozen
class Contents:
    """A header, understood: `problems` make the file unusable; `unmatched` keys name no linear of the backbone."""

    pairs: Mapping[str, Pair]
    layout: str
    unmatched: tuple[str, ...]
    problems: tuple[str, ...] = field(factory=tuple)


def understand(path: Path, header: Header, shapes: Mapping[str, tuple[int, int]] | None) -> Contents:
    """Sort a file's tensors by linear and check every shape against `shapes` {module: (in, out)} where given."""
    names = Names(shapes)
    problems: list[str] = []
    parts: dict[str, dict[str, str]] = {}
    keys: dict[str, Key] = {}
    unmatched: list[str] = []
    foreign: dict[str, list[str]] = {}
    for name in header.tensors:
        kind, key = unsupported(name), names.understand(name)
        if kind is not None:
            foreign.setdefault(kind, []).append(name)
        elif key is None:
            unmatched.append(name)
        elif other := parts.setdefault(key.module, {}).get(key.part):
            problems.append(f"{path}: {other!r} and {name!r} are both the same factor of {key.module}")
        else:
            parts[key.module][key.part], keys[name] = name, key
    problems += [f"{path}: uses {kind} ({_some(found)}), which is not supported yet" for kind, found in foreign.items()]
    if shapes is None and any(is_flat(name) for name in unmatched):
        problems.append(f"{path}: its names have underscores for dots and need the backbone's list of linears")
    pairs: dict[str, Pair] = {}
    for module, found in parts.items():
        if "a" in found and "b" in found:
            tensor = header.tensors[found["a"]]
            rank = tensor.shape[0] if tensor.shape else 0
            pairs[module] = Pair(found["a"], found["b"], rank, found.get("alpha"), keys[found["a"]].peft)
            problems += [f"{path}: {fault}" for fault in _faults(header, module, pairs[module], shapes)]
        else:
            problems.append(f"{path}: {module} has {_some(list(found.values()))} without the rest of its LoRA")
    if not pairs and not problems and not unmatched:
        problems.append(f"{path}: holds no LoRA weights")
    alphas = any(pair.alpha for pair in pairs.values())
    layouts = sorted({key.layout for key in keys.values()} - {""})
    layout = " + ".join("comfyui with alpha" if alphas and name == "comfyui" else name for name in layouts)
    return Contents(pairs, layout, tuple(unmatched), tuple(problems))


def unmatched_problem(path: Path, contents: Contents, shapes: Mapping[str, tuple[int, int]] | None) -> Iterator[str]:
    """A sentence on the keys that name no linear, with the nearest one; nothing where every key is used."""
    if not contents.unmatched:
        return
    nearest = get_close_matches(contents.unmatched[0], list(shapes or ()), n=1, cutoff=0.3)
    hint = f"; the nearest is {nearest[0]}" if nearest else ""
    total = len(contents.unmatched) + sum(2 + (pair.alpha is not None) for pair in contents.pairs.values())
    many = "no key names" if not contents.pairs else f"{len(contents.unmatched)} of {total} keys name no"
    target = "a linear that carries adapters" if not contents.pairs else "linear that carries adapters"
    yield f"{path}: {many} {target}: {_some(contents.unmatched)}{hint}"


def _faults(header: Header, module: str, pair: Pair, shapes: Mapping[str, tuple[int, int]] | None) -> Iterator[str]:
    """What is wrong with one pair: A must be [r, in], B [out, r], both of floats, alpha one number."""
    a, b = header.tensors[pair.a], header.tensors[pair.b]
    for name, tensor in ((pair.a, a), (pair.b, b)):
        if tensor.dtype not in FLOATS:
            yield f"{name!r} is {tensor.dtype}; factors must be floating point"
    if pair.alpha is not None and header.tensors[pair.alpha].shape not in ((), (1,)):
        yield f"{pair.alpha!r} is not one number but {list(header.tensors[pair.alpha].shape)}"
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or pair.rank == 0:
        yield f"{module}: A {list(a.shape)} and B {list(b.shape)} are not [r, in] and [out, r]"
        return
    if shapes is not None and (a.shape[1], b.shape[0]) != tuple(shapes[module]):
        inputs, outputs = shapes[module]
        yield f"{module}: A {list(a.shape)} and B {list(b.shape)} do not fit a linear of {inputs} -> {outputs}"


def _some(names: tuple[str, ...] | list[str]) -> str:
    """A few names, quoted, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:QUOTED])
    return shown if len(names) <= QUOTED else f"{shown} and {len(names) - QUOTED} more"
