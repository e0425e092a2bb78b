"""Errors that a person can mend: printed as they are, without a traceback, exit code 2."""

from __future__ import annotations


class CloraError(Exception):
    """A mistake in what a person gave, or a fault of the machine told in plain words."""

    exit_code = 2
