"""`clora export RUN`: the finished LoRA for other tools: elsewhere, in PEFT's layout, or folded into the base."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from clora.errors import CloraError
from clora.process.stopping import during

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clora.lora_io.reader import LoraDelta
    from clora.planning.plan import Plan
    from clora.runs.run_dir import RunDir

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run's folder, exported")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the run's own export folder)")
    parser.add_argument("--dtype", choices=DTYPES, help="the weights' type (default: as exported)")
    parser.add_argument("--peft", action="store_true", help="also write DIR/peft for PeftModel.from_pretrained")
    parser.add_argument(
        "--merge", action="store_true", help="also write DIR/transformer: the base's weights with the LoRA in them"
    )


@during("", "every file that is whole stays", "The same command writes them all")
def run(args: argparse.Namespace) -> int:
    """Write the bundle again from the exported file, and what was asked for beside it."""
    from clora.cli.recipes import plan_of_run
    from clora.runs.files.lock import held
    from clora.runs.run_dir import RunDir

    folder = RunDir(args.run_dir)
    plan, _ = plan_of_run(folder)
    folder.check_lora()
    files = _weight_files(plan) if args.merge else None
    out = args.out or folder.lora.parent
    own = out.resolve() == folder.lora.parent.resolve()
    if own and args.dtype is not None:
        raise CloraError("--dtype needs --out: the run's own export stays as it was trained")
    with held(folder.path) if out.resolve().is_relative_to(folder.path.resolve()) else nullcontext():
        _write(args, plan, folder, out, files, own=own)
    return 0


def _write(args: argparse.Namespace, plan: Plan, folder: RunDir, out: Path, files: Path | None, *, own: bool) -> None:
    import torch

    from clora.lora_io.reader import read_lora
    from clora.lora_io.writer import write_lora
    from clora.planning.export_files import WEIGHTS
    from clora.runs.stages.exporters import files_about, files_beside, write_files

    deltas = read_lora(folder.check_lora(), plan.recipe.backbone.shapes()).deltas
    dtype = None if args.dtype is None else getattr(torch, args.dtype)
    if not own:
        lora = out / WEIGHTS
        pictures = files_about(plan, folder, lora) if folder.pictures.exists() else ()
        write_lora(lora, deltas, plan.exported(lora).header, dtype=dtype)
        write_files(plan, out, files_beside(plan, lora))
        write_files(plan, out, pictures)
    print(out)
    if args.peft:
        from clora.bundle.peft_folder import write_peft

        write_peft(out / "peft", deltas, dtype)
        print(out / "peft")
    if files is not None:
        _merge(files, deltas, out)


def _weight_files(plan: Plan) -> Path:
    """The base's own files. Raises CloraError where the backbone has none that a LoRA could be merged into."""
    from clora.contracts.backbone import HasWeightFiles

    if not isinstance(plan.recipe.backbone, HasWeightFiles):
        raise CloraError("--merge: this run's backbone does not tell where its weights' files are")
    return plan.recipe.backbone.weight_files()


def _merge(files: Path, deltas: Mapping[str, LoraDelta], out: Path) -> None:
    from clora.bundle.merged import MERGED, write_merged

    merged = write_merged(files, deltas, out / MERGED, print)
    print(f"{out / MERGED}: {merged.linears} linears changed; storing took {merged.lost:.1%} of the change away")
