"""YAML that anybody may have written: PyYAML's own tree, bounded while it is read."""

from __future__ import annotations

import pytest
import yaml

from clora.files import untrusted_yaml
from clora.files.untrusted_yaml import YamlError, compose


def alike(ours: yaml.Node, theirs: yaml.Node) -> bool:
    if (type(ours), ours.tag, ours.start_mark.line) != (type(theirs), theirs.tag, theirs.start_mark.line):
        return False
    if isinstance(ours, yaml.ScalarNode):
        return ours.value == theirs.value
    pairs = isinstance(ours, yaml.MappingNode)
    mine, other = ([n for pair in node.value for n in pair] if pairs else node.value for node in (ours, theirs))
    return len(mine) == len(other) and all(map(alike, mine, other))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2.5, true, null, ~, x]\nb: {c: d}\n",
        "- &a {x: 1}\n- *a\n- !t z\n- ! z\n- 2001-01-01\n- 'q'\n-\n",
        "'x'",
        "- |\n  a\n  b\n- >-\n  c\n  d",
        "? [a]\n: b",
    ],
)
def test_the_tree_is_pyyamls(text, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(untrusted_yaml, "_loader", lambda: yaml.SafeLoader)
    ours, theirs = compose(text), yaml.compose(text, yaml.SafeLoader)
    assert ours is not None
    assert alike(ours, theirs)


@pytest.mark.parametrize("text", ["", "# nothing", "\n"])
def test_an_empty_text_has_no_tree(text):
    assert compose(text) is None


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("text", "sentence", "line"),
    [
        ("a: 1\n---\nb: 2", "not YAML: but found another document", 2),
        ("- x\n- &a [*a]", "not YAML: an alias stands inside what it stands for", 2),
        ("- x\n- *b", "not YAML: found an undefined alias", 2),
        ("- &a x\n- &a y", "not YAML: found duplicate anchor", 2),
        ("a: b: c", "not YAML: mapping values are not allowed", 1),
        ("- {a: 1, b", "not YAML: ", 1),
        ("- a\x07", "not YAML: unacceptable character #x0007", 0),
        ("[" * 10_000, "nested too deeply: more than 64 levels", 0),
        ("- " * 100 + "x", "nested too deeply: more than 64 levels", 0),
        ("- x\n" * 101, "has more than 100 values and keys", 100),
        ("- &a [1, 2, 3]\n" + "- *a\n" * 24, "has more than 100 values and keys (what aliases repeat is", 25),
        ("- &a [x]\n- &b [*a, *a, *a]\n- &c [*b, *b, *b]\n- &d [*c, *c, *c]\n- [*d, *d, *d]", "has more than 100", 5),
    ],
)
def test_what_is_no_yaml_or_too_much_is_told_with_its_line(text, sentence, line, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(untrusted_yaml, "_loader", lambda: yaml.SafeLoader)
    with pytest.raises(YamlError) as caught:
        compose(text, 100)
    assert str(caught.value).startswith(sentence)
    assert caught.value.line == line
    assert len(str(caught.value)) < 200
