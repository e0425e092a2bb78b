"""Every built-in component passes the checks for authors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clora.plugin_system.discovery import discover
from clora.testing.conformance import problems_of

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

ROOT = Path(__file__).parents[2]
BANK = ROOT / "plugins/clora_emoji/assets/teachers/bank.yaml"
#: the keys that a built-in needs; every other one is made without
KEYS: dict[tuple[str, str], dict[str, Any]] = {
    ("losses", "dmd"): {"simulation": "backward", "guidance_scale": 1.0},
    ("losses", "critic_flow_matching"): {"simulation": "backward"},
    ("losses", "opd"): {"simulation": "backward"},
    ("losses", "gan"): {"simulation": "backward"},
    ("teachers", "bank"): {"manifest": BANK},
    ("backbone", "qwen_image_edit"): {"model": ROOT},
    ("backbone", "flux_kontext"): {"model": ROOT},
    ("dataset", "pictures"): {"effects": ROOT, "general": ROOT},
    ("dataset", "jsonl"): {"effects": ROOT, "general": ROOT},
    ("metrics", "similarity"): {"model": ROOT},
    ("optimizer", "torch"): {"name": "SGD", "args": {"momentum": 0.9}},
    ("captioner", "openai"): {"model": "m", "url": "https://example.com/v1"},
}
#: what these do needs a GPU or an encoder's weights
OUTSIDE = {("kernels", "triton"), ("metrics", "similarity")}
OURS = [(c.kind, c.name) for c in discover().components if c.distribution == "clora"]


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_every_built_in_conforms(kind: str, name: str) -> None:
    part = discover().find(kind, name).cls(**KEYS.get((kind, name), {}))
    phase = "critic" if name.startswith("critic") else "student"
    assert problems_of(kind, part, phase=phase, computes=(kind, name) not in OUTSIDE) == []
