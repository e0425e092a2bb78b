"""Every hook is in CONTRIBUTING.md with its exact signature, and every registration hook stands for a section."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from clora import api
from clora.contracts import hookspecs
from clora.plugin_system.required_members import optional_protocols

ROOT = Path(__file__).parents[1]
HOOKS = {name: f for name, f in vars(hookspecs).items() if name.startswith("clora_") and inspect.isfunction(f)}


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_documented_with_its_signature(name: str) -> None:
    parameters = ", ".join(f"{p.name}: {p.annotation}" for p in inspect.signature(HOOKS[name]).parameters.values())
    returns = inspect.signature(HOOKS[name]).return_annotation
    assert f"`{name}({parameters}) -> {returns}`" in (ROOT / "CONTRIBUTING.md").read_text()


def test_every_hook_registers_a_kind_or_commands_or_observes() -> None:
    observers = {"clora_run_started", "clora_step_finished", "clora_checkpoint_saved", "clora_run_finished"}
    assert set(HOOKS) == {*hookspecs.KINDS.values(), hookspecs.COMMANDS} | observers


def test_every_optional_protocol_is_documented_and_exported() -> None:
    optional = [cls.__name__ for cls in optional_protocols()]
    assert len(optional) > 10
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert [name for name in optional if f"`{name}`" not in text] == []
    assert [name for name in optional if name not in vars(api)] == []


def test_every_hook_has_one_sentence() -> None:
    for name, hook in HOOKS.items():
        assert hook.__doc__, name
        assert hook.__doc__.strip().endswith("."), name
