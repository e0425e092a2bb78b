"""`clora export RUN`: the finished LoRA for other tools: elsewhere, in PEFT's layout, or folded into the base."""

from __future__ import annotations

import argparse
from pathlib import Path

from clora.api import CloraError, ExportedRun, HasWeightFiles, during

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
    """Write the LoRA and the exporters' files elsewhere, and what was asked for beside them."""
    found = ExportedRun.open(args.run_dir)
    files = _weight_files(found) if args.merge else None
    out = args.out or found.lora.path.parent
    if found.owns(out) and args.dtype is not None:
        raise CloraError("--dtype needs --out: the run's own export stays as it was trained")
    with found.writing(out):
        if not found.owns(out):
            found.write(out, args.dtype)
        print(out)
        if args.peft:
            _peft(found, out, args.dtype)
        if files is not None:
            _merge(found, files, out)
    return 0


def _weight_files(found: ExportedRun) -> Path:
    """The base's own files. Raises CloraError where the backbone has none that a LoRA could be merged into."""
    if not isinstance(found.backbone, HasWeightFiles):
        raise CloraError("--merge: this run's backbone does not tell where its weights' files are")
    return found.backbone.weight_files()


def _peft(found: ExportedRun, out: Path, dtype: str | None) -> None:
    import torch

    from .peft_folder import write_peft

    write_peft(out / "peft", found.lora.weights(), None if dtype is None else getattr(torch, dtype))
    print(out / "peft")


def _merge(found: ExportedRun, files: Path, out: Path) -> None:
    from .merged import MERGED, write_merged

    merged = write_merged(files, found.lora.weights(), out / MERGED, print)
    print(f"{out / MERGED}: {merged.linears} linears changed; storing took {merged.lost:.1%} of the change away")
