"""What a benchmark's row says of where and when it was made."""

from __future__ import annotations

import csv
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch


def processor() -> str:
    """The processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def provenance() -> dict[str, str]:
    """Machine, threads, versions, commit and date."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        "threads": str(torch.get_num_threads()),
        "torch": version("torch"),
        "diffusers": version("diffusers"),
        "commit": commit.stdout.strip(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with their provenance as CSV; what a row itself says of it, such as its threads, goes before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list({**rows[0], **provenance()}))
        writer.writeheader()
        writer.writerows({**provenance(), **row} for row in rows)
