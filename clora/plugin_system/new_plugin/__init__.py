"""Writes a whole distribution around one working component, for `clora new-plugin`.

The `.txt` files beside this one are its modules, tests and papers, with `$package`, `$distribution`, `$word` (the
component's name in recipes), `$command` (a command's) and `$Class` in them.
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from string import Template

from attrs import frozen

from clora.errors import CloraError, quoted, shown
from clora.files.atomic import write_folder

FOLDER = Path(__file__).parent


@frozen
class Kind:
    """What a distribution gives, and what is its own in the files of that kind."""

    hook: str  # registers it
    recipe: str  # where it stands in a recipe, as YAML; the README has it
    called: str | None = None  # what texts call it, where that is not the kind's name
    init: str = "init.py"  # the template of the package's __init__.py
    modules: tuple[str, ...] = ()  # of the package, beside its own

    def with_article(self, kind: str) -> str:
        """`An exporter`."""
        called = self.called or kind
        return f"An {called}" if called[0] in "aeiou" else f"A {called}"


KINDS = {
    "loss": Kind("clora_losses", "losses:\n  mine: {use: $word, weight: 0.5}"),
    "simulation": Kind("clora_simulations", "simulations:\n  target: {use: $word}"),
    "router": Kind("clora_routers", "router: {use: $word, share: 0.7}"),
    "prompts": Kind("clora_prompts", "prompts: {use: $word}", called="prompt strategy"),
    "metric": Kind("clora_metrics", "metrics:\n  mine: $word"),
    "dataset": Kind("clora_datasets", "dataset: {use: $word, folder: pictures}"),
    "teachers": Kind("clora_teachers", "teachers: {use: $word, folder: loras}", called="bank of teachers"),
    "kernel": Kind("clora_kernels", "kernels: {use: $word}"),
    "optimizer": Kind("clora_optimizers", "optimizer: {use: $word, momentum: 0.9}"),
    "merger": Kind("clora_mergers", "serve: {adapter: merge, merge: {use: $word, rank: 32}}"),
    "lora_layout": Kind(
        "clora_lora_layouts",
        "title: mine   # no recipe names a layout: where it is installed, teachers' files in it are read",
        called="LoRA layout",
    ),
    "captioner": Kind("clora_captioners", "captioner: {use: $word}"),
    "exporter": Kind("clora_exporters", "exporters:\n  mine: {use: $word}"),
    "command": Kind(
        "clora_commands",
        "title: mine   # no recipe names a command; it is called as `clora $command`",
        init="init_command.py",
    ),
    "observer": Kind("clora_observers", "observers:\n  mine: {use: $word, every: 10}"),
    "reporter": Kind("clora_reporters", "reporters:\n  mine: {use: $word, file: numbers.md}"),
    "backbone": Kind("clora_backbones", "backbone: {use: $word, width: 64}", modules=("loaded.py",)),
}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MOST_NAME = 60


@frozen
class Names:
    """One name in the spellings that a distribution needs."""

    distribution: str  # clora-huber-loss

    @classmethod
    def of(cls, name: str) -> Names:
        """The names of a plugin. Raises CloraError for what pip, Python or a recipe could not take."""
        if not _NAME.fullmatch(name) or len(name) > MOST_NAME:
            raise CloraError(
                f"{quoted(name)} is no name for a plugin; small letters, digits and single hyphens make one, such as "
                "clora-huber-loss"
            )
        names = cls(name)
        taken = names.package in sys.stdlib_module_names or keyword.iskeyword(names.package)
        if taken or names.package == "clora":
            raise CloraError(f"{quoted(name)} is Python's or clora's own name; put another word before it")
        return names

    @property
    def package(self) -> str:
        """What Python imports."""
        return self.distribution.replace("-", "_")

    @property
    def word(self) -> str:
        """What a recipe uses."""
        return self.package.removeprefix("clora_")

    @property
    def command(self) -> str:
        """What the command line calls."""
        return self.word.replace("_", "-")

    @property
    def class_name(self) -> str:
        """The component's class."""
        return "".join(part.capitalize() for part in self.word.split("_"))


def write(name: str, kind: str, where: Path) -> Path:
    """Write the distribution into a new folder `where/NAME`, whole or not at all; returns the folder.

    Raises CloraError for a name that is none and for a folder that is there already.
    """
    names = Names.of(name)
    folder = where / names.distribution
    if folder.exists():
        raise CloraError(f"{shown(folder)} is there already; choose another name, or move it away")
    where.mkdir(parents=True, exist_ok=True)
    write_folder(folder, lambda made: _fill(made, names, kind))
    return folder


def _fill(folder: Path, names: Names, kind: str) -> None:
    its = KINDS[kind]
    words = {
        "distribution": names.distribution,
        "package": names.package,
        "word": names.word,
        "command": names.command,
        "Class": names.class_name,
        "kind": kind,
        "a_kind": its.with_article(kind),
        "hook": its.hook,
    }
    words["recipe"] = Template(its.recipe).substitute(words)
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        ".github/workflows/test.yml": "test.yml",
        f"tests/test_{names.word}.py": f"test_{kind}.py",
        f"src/{names.package}/{kind}.py": f"{kind}.py",
        f"src/{names.package}/__init__.py": its.init,
        f"src/{names.package}/py.typed": None,
        **{f"src/{names.package}/{module}": module for module in its.modules},
    }
    for path, source in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        text = "" if source is None else (FOLDER / f"{source}.txt").read_text(encoding="utf-8")
        file.write_text(Template(text).substitute(words), encoding="utf-8")
