"""What the dispatcher chose, kept on disk from one process to the next."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORMAT = 1
LIMIT = 4_000_000  # bytes; a file that is larger is none of ours
FOLDER_VARIABLE = "CLORA_TRITON_CACHE"
_log = logging.getLogger("clora_triton")


def cache_folder() -> Path:
    """Where choices are kept: $CLORA_TRITON_CACHE, else clora_triton in the user's cache folder."""
    own = os.environ.get(FOLDER_VARIABLE)
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clora_triton"


class Choices:
    """Names by key for one kind of machine, which `made_by` describes; a file of another kind is another file.

    The file is only ever a short cut: one that is missing, damaged, too large, from another version or in a folder that
    cannot be written means that something is measured again, and never that something fails.
    """

    def __init__(self, folder: Path, made_by: str) -> None:
        self.made_by = made_by
        self.path = folder / f"choices-{FORMAT}-{hashlib.sha256(made_by.encode()).hexdigest()[:16]}.json"
        self.known = self._read()

    def get(self, key: str, names: Sequence[str]) -> str | None:
        """What was chosen for a key; None where nothing was, or something that is not among `names`."""
        chosen = self.known.get(key, {}).get("choice")
        return chosen if chosen in names else None

    def put(self, key: str, choice: str, seconds: Mapping[str, float]) -> None:
        """Keep a choice and what it rests on; entries that another process wrote meanwhile stay."""
        times = {name: round(1e6 * value, 1) for name, value in seconds.items()}
        self.say(f"{key}: {choice} ({', '.join(f'{name} {us:g} us' for name, us in times.items())})")
        self.known = {**self._read(), **self.known, key: {"choice": choice, "microseconds": times}}
        try:
            self._write()
        except OSError as error:
            self.say(f"choices are not kept: {error}")

    def say(self, text: str) -> None:
        """A line in the log `clora_triton`."""
        _log.info("%s", text)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            if self.path.stat().st_size > LIMIT:
                return {}
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or content.get("made_by") != self.made_by:
            return {}
        entries = content.get("choices")
        if not isinstance(entries, dict):
            return {}
        return {k: e for k, e in entries.items() if isinstance(e, dict) and isinstance(e.get("choice"), str)}

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"made_by": self.made_by, "choices": self.known}, indent=1, sort_keys=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".choices-", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
