"""An emoji model whose configuration was tampered with: told by file and field, before the network is built."""

from __future__ import annotations

from pathlib import Path

import hostile_models as hostile
import pytest
from clora_emoji import network
from clora_emoji.backbone import EmojiBackbone


@pytest.fixture
def backbone(tmp_path: Path) -> EmojiBackbone:
    """A copy whose files may be replaced."""
    return EmojiBackbone(hostile.linked(network.BASE, tmp_path / "model"))


def validated(backbone: EmojiBackbone) -> list[str]:
    """What validate asks of a backbone that has no problems, and otherwise its problems."""
    if problems := list(backbone.check()):
        return problems
    assert backbone.targets()
    assert backbone.footprint(4, (32, 32)).weights > 0
    return []


def test_no_file_and_no_field_ends_in_a_traceback(backbone: EmojiBackbone) -> None:
    assert validated(backbone) == []
    counts = hostile.drive(backbone.weights, lambda: validated(backbone), every=1)
    assert counts["told"] > 200
    assert counts["passed"] < counts["told"] / 5
    assert validated(backbone) == []


@pytest.mark.parametrize(
    ("field", "raw", "words"),
    [
        ("num_layers", "1000000000", "num_layers is 1000000000; it must be a whole number from 1 to 256"),
        ("num_layers", "200", "its weights lack transformer_blocks.6"),
        ("in_channels", "128", "in_channels is 128; it must be 64"),
        ("axes_dims_rope", "[8, 12, 14]", "axes_dims_rope is [8, 12, 14]; even numbers that add up to 32"),
        ("auto_map", '{"AutoModel": "evil.Evil"}', "auto_map: it names Python code"),
    ],
)
def test_a_field_is_named_with_its_file(backbone: EmojiBackbone, field: str, raw: str, words: str) -> None:
    with hostile.field_set(backbone.weights / "config.json", (field,), raw):
        problem = validated(backbone)[0]
    assert words in problem
    hostile.assert_plain(problem, backbone.weights)
