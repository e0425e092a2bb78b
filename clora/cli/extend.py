"""`clora extend RUN --bank MORE.yaml`: new effects into a finished LoRA, the old ones replayed and measured again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from clora.cli.arguments import share, whole
from clora.cli.recipes import add_layer_arguments, tell_warnings
from clora.errors import CloraError

if TYPE_CHECKING:
    from clora.planning.plan import Plan
    from clora.plugin_system.catalogue import Catalogue
    from clora.runs.run_dir import RunDir

WORSE = 1  # the exit code where an old effect got worse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument(
        "--bank", type=Path, required=True, metavar="MANIFEST", help="the added effects, as in any bank"
    )
    parser.add_argument(
        "--updates-each",
        type=whole(1, 1_000_000),
        default=100,
        metavar="N",
        help="student updates for each added effect (default: 100)",
    )
    parser.add_argument(
        "--replay",
        type=share,
        default=0.5,
        metavar="SHARE",
        help="share of the effects' rows that replay old ones (default: 0.5)",
    )
    add_layer_arguments(parser)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where the new run lies (default: beside RUN)")
    parser.add_argument("--run-dir", dest="out", type=Path, metavar="DIR", help="the new run's own folder")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Train, export and evaluate the extension; 1 where an old effect got worse."""
    from clora.runs.run_dir import RunDir

    before = RunDir(args.run_dir)
    before.info()
    before.check_recipe()
    before.check_lora()
    plan, catalogue = _planned(args)
    tell_warnings(plan)
    from clora.cli.run import carry_out
    from clora.runs.job import run_folder

    folder = RunDir(args.out) if args.out else run_folder(plan, args.runs or args.run_dir.parent)
    return carry_out(plan, catalogue, folder, quiet=args.quiet, judge=lambda: _gate(before, folder))


def _planned(args: argparse.Namespace) -> tuple[Plan, Catalogue]:
    """The finished run's own recipe with the new bank beside its own, whatever else was asked for on top."""
    from clora.config.load import load_recipe
    from clora.planning.extension import finished_effects
    from clora.planning.plan import make_plan
    from clora.plugin_system.discovery import discover

    catalogue = discover()
    run = args.run_dir.resolve()
    recipe = run / "recipe.yaml"
    banks = load_recipe(recipe, (), (), catalogue).recipe.start
    number = 1 if banks is None else len(banks.teachers) + 1
    mine = [
        f"start.run={json.dumps(str(run))}",
        f"start.replay={args.replay}",
        f"start.teachers.added_{number}.use=bank",
        f"start.teachers.added_{number}.manifest={json.dumps(str(args.bank.resolve()))}",
        f"name={run.name.rsplit('-', 1)[0]}-extended",
        "warm_start=null",  # it starts from the finished LoRA
    ]
    first = load_recipe(recipe, args.with_files, mine, catalogue).recipe
    assert first.start is not None
    bank = first.start.teachers[f"added_{number}"]
    if problems := list(bank.check()):
        raise CloraError("\n".join(problems))
    added = [card.name for card in bank.cards()]
    known = finished_effects(run)
    if twice := [name for name in added if name in known]:
        raise CloraError(
            f"{args.bank}: {', '.join(twice)} is in the finished LoRA already; give the new one another name"
        )
    mine.append(f"train.steps={args.updates_each * len(added)}")
    if first.effects is not None:
        mine.append(f"effects=[{', '.join((*first.effects, *added))}]")
    return make_plan(load_recipe(recipe, args.with_files, [*mine, *args.sets], catalogue)), catalogue


def _gate(before: RunDir, after: RunDir) -> int:
    from clora.files.atomic import write_atomic
    from clora.runs.files.lock import held
    from clora.runs.regression import as_text, changes

    found = changes(before.read_results(), after.read_results())
    text = as_text(found)
    with held(after.path):
        write_atomic(after.path / "evaluate" / "regression.txt", text + "\n")
    print(text)
    return WORSE if any(change.worse for change in found) else 0
