"""What killed processes left of files that they were writing: finished renames, and the rest removed."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from clora.files.atomic import told_plainly

#: `.NAME.PROCESS-NUMBER.tmp`, `.old` for a whole folder that was being replaced, and safetensors' own `.tmpXXXXXX`
_HIDDEN = re.compile(r"\.(.+)\.\d+(?:-[0-9a-f]{8})?\.(tmp|old)|\.tmp[A-Za-z0-9]{6}")
#: seconds after which a temporary file in a folder that runs share is a killed process's
STALE = 3600


def sweep(folder: Path, older: float = 0.0) -> int:
    """Remove the temporary files and folders below a folder that have not changed for so many seconds; how many.

    A whole old folder whose new one was not put in place yet gets its name back. Links are not followed.
    """
    count = 0
    for where, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            found = _HIDDEN.fullmatch(name)
            if found is None or not _is_older(Path(where, name), older):
                continue
            if name in folders:
                folders.remove(name)  # not walked into
            _settle(Path(where, name), found[1], found[2])
            count += 1
    return count


def _settle(path: Path, name: str | None, ending: str | None) -> None:
    with told_plainly(path):
        if name and ending == "old" and not path.with_name(name).exists():
            path.rename(path.with_name(name))
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_older(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.lstat().st_mtime >= seconds
    except OSError:
        return False  # it has just been put in place
