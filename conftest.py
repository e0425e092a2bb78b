"""Fixtures for the tests of the core and of every plugin: models of a megabyte, built once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

pytest_plugins = ["processor_time", "pytester"]


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_qwen("2511")` is a tiny Qwen-Image-Edit's folder ("original", "2509", "2511"); copy it before a change."""

    @cache
    def folder(edition: str = "2511") -> Path:
        from tiny_qwen import build

        return build(tmp_path_factory.mktemp(f"qwen_{edition}"), edition=edition)  # pyright: ignore[reportArgumentType]

    return folder


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLUX.1 Kontext's folder; copy it before a change."""
    from tiny_flux import build

    return build(tmp_path_factory.mktemp("flux"))
