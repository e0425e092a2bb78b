"""The core's own commands, registered in the form in which plugins register theirs.

They stand beside the discovery and not in an entry point: `clora run` finds its module without importing a plugin, and
a plugin that takes one of their names is refused.
"""

from __future__ import annotations

from clora.contracts.command import Command


def clora_commands() -> list[Command]:
    """The commands in the order of `clora --help`."""
    return [
        Command(
            "run",
            "carry a recipe out, or go on where it was stopped",
            "clora.cli.run",
            computes=True,
            tells_threads=True,
        ),
        Command(
            "prepare",
            "make all that a run needs before it trains, to look at first",
            "clora.cli.prepare",
            computes=True,
            tells_threads=True,
        ),
        Command("validate", "check a recipe, its data and its teachers without loading a model", "clora.cli.validate"),
        Command("show", "print a recipe with every value and the place that gave it", "clora.cli.show"),
        Command("plugins", "list the installed plugins and what they offer", "clora.cli.plugins"),
        Command(
            "new-plugin",
            "write a plugin of your own: a distribution with a working component and its tests",
            "clora.cli.new_plugin",
        ),
        Command(
            "schema", "print the JSON Schema of recipes, with which editors complete and check them", "clora.cli.schema"
        ),
        Command("inspect", "tell what LoRA files hold, and which programs would get them wrong", "clora.cli.inspect"),
        Command("sample", "make pictures with a run's LoRA", "clora.cli.sample", computes=True),
        Command("evaluate", "measure a run's LoRA again", "clora.cli.evaluate", computes=True, tells_threads=True),
        Command(
            "extend",
            "add effects to a finished LoRA, and say which old ones got worse",
            "clora.cli.extend",
            computes=True,
            tells_threads=True,
        ),
    ]
