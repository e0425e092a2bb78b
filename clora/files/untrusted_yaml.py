"""YAML that anybody may have written, as a tree of nodes with lines: bounded while it is read, nothing constructed.

PyYAML's own composer climbs two stack frames a bracket and hands an alias the same node again, so that whoever walks
the tree walks a few lines of aliases a million times. Here the parser's events are counted as they come.
"""

from __future__ import annotations

from functools import cache

import yaml
from attrs import define, field

from clora.errors import reason
from clora.files.untrusted_json import MAX_DEPTH

#: values and keys in a file: reading so many takes about a second
MAX_NODES = 200_000


class YamlError(ValueError):
    """A text that is no YAML or too much of it; `line` counts from 1, 0 where the whole file is meant."""

    def __init__(self, sentence: str, line: int = 0, *, too_much: bool = False) -> None:
        super().__init__(sentence)
        self.line = line
        self.too_much = too_much


def compose(text: str, most: int = MAX_NODES) -> yaml.Node | None:
    """The tree of the one document in a text, None where it is empty. Raises YamlError.

    Refused: more than `most` values and keys, what an alias repeats counted each time; nesting deeper than MAX_DEPTH.
    """
    tree = _Tree(most)
    documents = 0
    try:
        for event in yaml.parse(text, _loader()):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise YamlError("not YAML: but found another document", _line(event))
            elif isinstance(event, yaml.NodeEvent):
                tree.add(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                tree.close()
    except yaml.MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else min(error.problem_mark.line, text.count("\n")) + 1
        raise YamlError(f"not YAML: {reason(error.problem or error.context or error)}", line) from None
    except (yaml.YAMLError, RecursionError, UnicodeError) as error:
        raise YamlError(f"not YAML: {reason(error)}") from None
    return tree.root


@define
class _Open:
    """A list or mapping whose end has not come yet."""

    node: yaml.SequenceNode | yaml.MappingNode
    anchor: str | None
    size: int = 1
    key: yaml.Node | None = None


@define
class _Tree:
    """The tree as far as it has been read."""

    most: int
    root: yaml.Node | None = None
    total: int = 0
    _open: list[_Open] = field(factory=list)
    _known: dict[str, tuple[yaml.Node, int] | None] = field(factory=dict)  # anchor -> its node and size, once whole

    def add(self, event: yaml.NodeEvent) -> None:
        """Take the beginning of a node, or an alias of one."""
        line, anchor = _line(event), event.anchor
        if isinstance(event, yaml.AliasEvent):
            known = self._known.get(anchor, ())
            if not known:
                wrong = "found an undefined alias" if known == () else "an alias stands inside what it stands for"
                raise YamlError(f"not YAML: {wrong}", line)
            self._count(known[1], line)
            self._put(*known)
            return
        self._count(1, line)
        if anchor is not None and anchor in self._known:
            raise YamlError("not YAML: found duplicate anchor", line)
        node = _node(event)
        if isinstance(node, yaml.ScalarNode):
            if anchor is not None:
                self._known[anchor] = node, 1
            self._put(node, 1)
            return
        if len(self._open) == MAX_DEPTH:
            raise YamlError(f"nested too deeply: more than {MAX_DEPTH} levels")
        if anchor is not None:
            self._known[anchor] = None
        assert isinstance(node, yaml.SequenceNode | yaml.MappingNode)
        self._open.append(_Open(node, anchor))

    def close(self) -> None:
        """Take the end of the innermost list or mapping."""
        done = self._open.pop()
        if done.anchor is not None:
            self._known[done.anchor] = done.node, done.size
        self._put(done.node, done.size)

    def _put(self, node: yaml.Node, size: int) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.size += size
        if isinstance(parent.node, yaml.SequenceNode):
            parent.node.value.append(node)
        elif parent.key is None:
            parent.key = node
        else:
            parent.node.value.append((parent.key, node))
            parent.key = None

    def _count(self, size: int, line: int) -> None:
        self.total += size
        if self.total > self.most:
            repeated = " (what aliases repeat is counted each time)" if self._known else ""
            raise YamlError(f"has more than {self.most:,} values and keys{repeated}", line, too_much=True)


def _node(event: yaml.NodeEvent) -> yaml.Node:
    if isinstance(event, yaml.ScalarEvent):
        tag = _tag(yaml.ScalarNode, event.tag, event.value, event.implicit)
        return yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark, style=event.style)
    kind = yaml.SequenceNode if isinstance(event, yaml.SequenceStartEvent) else yaml.MappingNode
    assert isinstance(event, yaml.CollectionStartEvent)
    return kind(_tag(kind, event.tag, None, event.implicit), [], event.start_mark, event.end_mark)


def _tag(kind: type[yaml.Node], tag: str | None, value: str | None, implicit: object) -> str:
    return _resolver().resolve(kind, value, implicit) if tag is None or tag == "!" else tag


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1


@cache
def _resolver() -> yaml.resolver.Resolver:
    return yaml.resolver.Resolver()


def _loader() -> type:
    """libyaml's parser, fifty times as fast as PyYAML's own, wherever PyYAML was built with it."""
    return yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
