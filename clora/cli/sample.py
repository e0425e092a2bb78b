"""`clora sample RUN --effect NAME --image X.png`: use a run's exported LoRA on a picture; several effects chain."""

from __future__ import annotations

import argparse
from pathlib import Path

from clora.cli.arguments import whole
from clora.errors import CloraError, hint, quoted, shown
from clora.files.untrusted_json import MAX_PROMPT, text_problem
from clora.process.stopping import during


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run's folder, exported")
    parser.add_argument(
        "--effect", action="append", default=[], metavar="NAME", help="an effect; give two to chain them"
    )
    parser.add_argument(
        "--passes", action="store_true", help="chain by one sampling after the other, not by one instruction"
    )
    parser.add_argument("--instruction", metavar="TEXT", help="a general instruction instead of an effect")
    parser.add_argument("--image", type=Path, required=True, help="the source picture")
    parser.add_argument("--out", type=Path, metavar="PNG", help="where to write (default: beside the source)")
    parser.add_argument("--seed", type=whole(0, 2**63 - 1), default=0, metavar="N", help="of the noise (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Make one picture with the exported file and the words it was trained under."""
    if bool(args.effect) == (args.instruction is not None):
        raise CloraError("give either --effect (once, or twice to chain) or --instruction")
    if args.passes and len(args.effect) < 2:
        raise CloraError("--passes needs two effects or more: it applies one after the other")
    if args.instruction is not None:
        wrong = text_problem(args.instruction, MAX_PROMPT) if args.instruction.strip() else "is empty"
        if wrong is not None:
            raise CloraError(f"--instruction {quoted(args.instruction)} {wrong}")
    from clora.cli.recipes import plan_of_run
    from clora.runs.run_dir import RunDir

    folder = RunDir(args.run_dir)
    plan, _ = plan_of_run(folder)
    for name in args.effect:
        if name not in plan.prompts:
            raise CloraError(f"{shown(args.run_dir)} has no effect {quoted(name)}{hint(name, plan.prompts)}")
    folder.check_lora()
    from clora.files.pictures import read_picture, write_picture
    from clora.inference.edit_sampler import Editor

    source = read_picture(args.image)
    out = args.out or args.image.with_name(f"{args.image.stem}-{'-'.join(args.effect) or 'edited'}.png")
    with during("", "no picture was written", "The same command makes it"):
        picture = Editor(plan, folder).edit(args.effect, args.instruction, source, args.seed, passes=args.passes)
        write_picture(out, picture)
    print(out)
    return 0
