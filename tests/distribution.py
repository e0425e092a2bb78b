"""A distribution of plugins as pip leaves one behind, so that clora finds it in a folder of sys.path."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path


def write_distribution(site: Path, name: str, entry_points: Mapping[str, str], version: str = "1.0") -> None:
    """Write what declares it into the folder: its metadata, and an entry point {name: module} for each plugin."""
    about = site / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{plugin} = {module}" for plugin, module in entry_points.items()]
    (about / "entry_points.txt").write_text("\n".join(["[clora.plugins]", *lines, ""]))
    importlib.invalidate_caches()
