"""What a LoRA file holds for a backbone, from its header alone: adapters by linear, leftovers, mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from attrs import field, frozen

from clora.contracts.convolution import Convolution, told_size
from clora.errors import shown
from clora.lora_io.file_names import understood
from clora.lora_io.grammar import is_flat
from clora.lora_io.header import Header, brief, named
from clora.lora_io.keys import Key, Kind, Names
from clora.lora_io.kinds import Entry, entry_of, faults_of_types
from clora.lora_io.layouts import InstalledLayout
from clora.lora_io.linears import originals_of, sizes_of
from clora.lora_io.spread import spread

#: how many names a message quotes
QUOTED = 3
#: names longer than this are compared with none: the time grows with the square of their length
MOST_COMPARED = 200
TITLES = {"lora": "LoRA", "lokr": "LoKr", "loha": "LoHa"}


@frozen
class Contents:
    """A header, understood: `problems` make the file unusable; `unmatched` keys name no linear of the backbone."""

    entries: Mapping[str, Entry]
    layout: str
    unmatched: tuple[str, ...]
    problems: tuple[str, ...] = field(factory=tuple)
    matched: int = 0  # how many keys name a linear
    shapes: Mapping[str, tuple[int, ...]] = field(factory=dict)  # of every tensor in the file
    registered: tuple[InstalledLayout, ...] = ()  # the layouts of plugins that some name was understood by

    def names(self) -> list[str]:
        """Every tensor that is used."""
        return [name for entry in self.entries.values() for name in entry.parts.values()]


def understand(
    path: Path,
    header: Header,
    shapes: Mapping[str, tuple[int, int]] | None,
    guess: Callable[[str], str] | None = None,
) -> Contents:
    """Sort a file's tensors by linear and check every shape against `shapes` {module: (in, out)} where given.

    Without `shapes`, `guess` says what a name with underscores for dots may mean. Raises ComponentError for a
    registered layout that cannot be asked.
    """
    where = shown(path)
    read = understood(Names(shapes, guess), header.tensors)
    problems = [f"{where}: {problem}" for problem in read.problems]
    parts: dict[str, dict[str, str]] = {}
    for name, key in read.keys.items():
        other = parts.setdefault(key.module, {}).setdefault(key.part, name)
        if other != name:
            problems.append(
                f"{where}: {named(other)} and {named(name)} are both the same factor of {brief(key.module)}"
            )
    adapters = {key.adapter for key in read.keys.values() if key.adapter is not None}
    if len(adapters) > 1:
        many = f"adapters of {len(adapters)} names, {some(sorted(adapters))}"
        problem = f"{where}: holds {many}: which one is meant? Copy the tensors of one into a file of its own"
        return Contents({}, "", (), (problem,))
    foreign = read.unsupported.items()
    problems += [f"{where}: uses {kind} ({some(found)}), which is not supported" for kind, found in foreign]
    if shapes is None and any(is_flat(name) for name in read.unmatched):
        problems.append(f"{where}: its names have underscores for dots and need the backbone's list of linears")
    entries: dict[str, Entry] = {}
    for module, found in parts.items():
        entry, faults = _entry(header, module, found, read.keys, None if shapes is None else sizes_of(shapes, module))
        try:
            changed = () if entry is None else tuple(spread(module, entry, originals_of(shapes)))
        except ValueError as error:
            changed = ()
            faults.append(f"{brief(module)}: {error}")
        for linear, part in changed:
            if linear in entries:
                two = " and ".join(named(next(iter(each.parts.values()))) for each in (entries[linear], part))
                faults.append(f"{brief(linear)} is changed under two names, {two}")
            entries[linear] = part
        problems += [f"{where}: {fault}" for fault in faults]
    if not entries and not problems and not read.unmatched:
        problems.append(f"{where}: holds no LoRA weights")
    sizes = {name: tensor.shape for name, tensor in header.tensors.items()}
    layout = _layout(entries, read.keys)
    registered = tuple(dict.fromkeys(key.by for key in read.keys.values() if key.by is not None))
    return Contents(entries, layout, read.unmatched, tuple(problems), len(read.keys), sizes, registered)


def unmatched_problem(path: Path, contents: Contents, shapes: Mapping[str, tuple[int, int]] | None) -> Iterator[str]:
    """A sentence on the keys that name no linear, with the prefix too many, or the nearest linear.

    Nothing where every key is used.
    """
    if not contents.unmatched:
        return
    first = contents.unmatched[0]
    left = Names(shapes).leftover(first)
    if left is not None:
        hint = f"; {named(left[0])} before {left[1]} is no prefix that is known: take it off the names in a copy"
    else:
        known = [*(shapes or ()), *originals_of(shapes)] if len(first) <= MOST_COMPARED else []
        nearest = get_close_matches(first, known, n=1, cutoff=0.3)
        hint = f"; the nearest is {nearest[0]}" if nearest else ""
    total = len(contents.unmatched) + contents.matched
    many = f"{len(contents.unmatched)} of {total} keys name no" if contents.matched else "no key names"
    target = "linear that carries adapters" if contents.matched else "a linear that carries adapters"
    yield f"{shown(path)}: {many} {target}: {some(contents.unmatched)}{hint}"


def _entry(
    header: Header, module: str, parts: Mapping[str, str], keys: Mapping[str, Key], fits: tuple[int, int] | None
) -> tuple[Entry | None, list[str]]:
    """One linear's adapter, and what is wrong with it; `fits` is the linear's own (in, out)."""
    faults, module = list(faults_of_types(header, parts)), brief(module)
    kinds: dict[Kind, str] = {kind: name for name in parts.values() if (kind := keys[name].kind) is not None}
    if len(kinds) > 1:
        two = " and ".join(f"{named(name)} ({TITLES[kind]})" for kind, name in kinds.items())
        return None, [*faults, f"{module} has adapters of two kinds, {two}: which one is meant?"]
    kind = next(iter(kinds), None)
    if kind is None:
        return None, [*faults, f"{module} has {some(list(parts.values()))} without the rest of its LoRA"]
    try:
        entry = entry_of(header, kind, parts, any(keys[name].peft for name in parts.values()))
    except KeyError:
        return None, [*faults, f"{module} has {some(list(parts.values()))} without the rest of its {TITLES[kind]}"]
    except ValueError as error:
        return None, [*faults, f"{module}: {error}"]
    if fits is not None and not _fits(entry, fits):
        what = f"its {TITLES[kind]} of {entry.shape[1]} -> {entry.shape[0]} does"
        if kind == "lora":
            a, b = (list(header.tensors[parts[part]].shape) for part in "ab")
            what = f"A {a} and B {b} do"
        faults.append(f"{module}: {what} not fit {told_size(fits)}")
    return entry, faults


def _fits(entry: Entry, size: tuple[int, int]) -> bool:
    """Whether an adapter is of a linear's or a convolution's size; of a kernel of 1 x 1 a matrix will do."""
    kernel = size.kernel if isinstance(size, Convolution) else ()
    return entry.shape == (size[1], size[0]) and entry.kernel in ((kernel, ()) if kernel == (1, 1) else (kernel,))


def _layout(entries: Mapping[str, Entry], keys: Mapping[str, Key]) -> str:
    """The layouts' names with the kinds that are no plain LoRA, such as "comfyui with alpha" or "lycoris lokr"."""
    alphas = any(entry.alpha for entry in entries.values() if entry.kind == "lora")
    layouts = sorted({key.layout for key in keys.values()} - {""})
    text = " + ".join("comfyui with alpha" if alphas and name == "comfyui" else name for name in layouts)
    kinds = sorted({entry.kind for entry in entries.values()} - {"lora"})
    dora = ["dora"] if any(entry.magnitude for entry in entries.values()) else []
    return " ".join([text, *kinds, *dora])


def some(names: tuple[str, ...] | list[str]) -> str:
    """A few names, quoted, and how many more there are."""
    told = ", ".join(named(name) for name in names[:QUOTED])
    return told if len(names) <= QUOTED else f"{told} and {len(names) - QUOTED} more"
