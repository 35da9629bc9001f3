"""YAML documents that users wrote, with the line on which every value stands; bounded in time and memory."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from gpustack.text import is_text

if TYPE_CHECKING:
    import yaml

Path = tuple[str | int, ...]
"""Where a value stands in its document: the keys and positions that lead to it."""

MOST_DOCUMENTS = 1000
_MOST_VALUES = 100_000
"""Of all documents together, those that an alias repeats counted each time."""
_TEXT = 100
"""Characters of a text that count as one value more: a long one may be repeated as often."""
_DEEPEST = 50
_LONGEST_KEY = 1000
_LARGEST = 1 << 63

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,30})")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][-+]?[0-9]{1,4})?")
_STRING_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})


@attrs.frozen
class Mark:
    """Where a value begins. ``plain`` is how a value was written that is no text but has no quotes, like ``1.10``."""

    line: int
    plain: str | None = None


@attrs.frozen
class LineFault:
    """What is wrong, and on which line, counted from 1."""

    line: int
    sentence: str


@attrs.frozen
class YamlDocument:
    """One document: its value, of JSON's kinds, and the marks of its values by path."""

    value: Any
    marks: Mapping[Path, Mark]

    def mark(self, path: Path) -> Mark:
        """Where the value at ``path`` stands; that of the nearest one around it where there is none."""
        while path not in self.marks:
            path = path[:-1]
        return self.marks[path]


def resolved(text: str) -> str | int | float | bool | None:
    """What a scalar without quotes means: the core schema of YAML 1.2, decimal numbers alone.

    So ``no``, ``on``, ``12:30``, ``0x1f``, ``010`` and ``1_000`` are texts, which YAML 1.1 takes for other things.
    """
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and not re.fullmatch(r"[-+]?0[0-9]+", text):
        return float(text)
    return text


def read_documents(raw: bytes) -> tuple[list[YamlDocument], list[LineFault]]:
    """All documents that are not empty, and what is wrong: everything that can be found before the first fault of the
    syntax. Documents of a text with faults must not be used."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder()
    try:
        for event in yaml.parse(raw, Loader=loader):
            if not builder.take(event):
                break
    except yaml.MarkedYAMLError as error:
        builder.faults.append(_syntax_fault(error, raw))
    except yaml.YAMLError as error:
        builder.faults.append(LineFault(1, f"it is not YAML: {' '.join(str(error).split())[:200]}"))
    found = [one for one in builder.documents if one.value is not None]
    return found, sorted(builder.faults, key=lambda fault: fault.line)


def _syntax_fault(error: yaml.MarkedYAMLError, raw: bytes) -> LineFault:
    mark = error.problem_mark or error.context_mark
    line = 1 if mark is None else mark.line + 1
    lines = raw.splitlines()
    written = lines[line - 1] if line <= len(lines) else b""
    if b"\t" in written[: len(written) - len(written.lstrip())]:
        return LineFault(line, "a tab indents this line: YAML takes blanks alone there")
    said = " ".join(f"{error.problem or error.context or 'something is out of place'}".split())
    return LineFault(line, f"it is not YAML: {said[:200]}")


@attrs.define
class _Node:
    """A list or mapping that is being read, with its path and how many values it holds so far."""

    value: list[Any] | dict[str, Any]
    path: Path
    line: int
    anchor: str | None = None
    count: int = 1
    key: str | None = None
    """Of a mapping, the key whose value comes next."""
    merged: list[dict[str, Any]] = attrs.field(factory=list)


@attrs.define
class _Builder:
    """Makes values of the events of a parser, without recursion."""

    documents: list[YamlDocument] = attrs.field(factory=list)
    faults: list[LineFault] = attrs.field(factory=list)
    _open: list[_Node] = attrs.field(factory=list)
    _marks: dict[Path, Mark] = attrs.field(factory=dict)
    _anchors: dict[str, tuple[Any, int, int]] = attrs.field(factory=dict)
    """Value, count of values and depth by name."""
    _count: int = 0

    def take(self, event: yaml.Event) -> bool:
        """Whether to go on."""
        import yaml

        line = 1 if event.start_mark is None else event.start_mark.line + 1
        match event:
            case yaml.DocumentStartEvent():
                self._anchors, self._marks = {}, {(): Mark(line)}
                if len(self.documents) >= MOST_DOCUMENTS:
                    return self._stop(line, f"there are more than {MOST_DOCUMENTS} documents")
            case yaml.ScalarEvent():
                return self._scalar(event, line)
            case yaml.AliasEvent():
                return self._alias(str(event.anchor), line)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                return self._begin({} if isinstance(event, yaml.MappingStartEvent) else [], event, line)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                return self._end()
        return True

    def _stop(self, line: int, sentence: str) -> bool:
        self.faults.append(LineFault(line, sentence))
        return False

    def _path(self) -> Path:
        """Where the next value will stand."""
        if not self._open:
            return ()
        top = self._open[-1]
        return (*top.path, len(top.value) if isinstance(top.value, list) else str(top.key))

    def _begin(
        self,
        value: list[Any] | dict[str, Any],
        event: yaml.MappingStartEvent | yaml.SequenceStartEvent,
        line: int,
    ) -> bool:
        if len(self._open) >= _DEEPEST:
            return self._stop(line, f"values stand more than {_DEEPEST} deep in one another")
        if self._wants_key():
            return self._stop(line, "a key must be text, not a list or mapping")
        if event.tag not in (None, "!", f"tag:yaml.org,2002:{'map' if value == {} else 'seq'}"):
            self.faults.append(LineFault(line, f"the tag {event.tag} is not known here"))
        self._open.append(_Node(value, self._path(), line, event.anchor))
        self._marks.setdefault(self._open[-1].path, Mark(line))
        return True

    def _end(self) -> bool:
        node = self._open.pop()
        if isinstance(node.value, dict):
            for source in node.merged:
                node.value.update({key: one for key, one in source.items() if key not in node.value})
        if node.anchor is not None:
            self._anchors[node.anchor] = (node.value, node.count, _depth(node.value))
        return self._put(node.value, node.line, node.count)

    def _wants_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is None

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> bool:
        text = event.value
        if not is_text(text):
            return self._stop(line, "it holds half a character")
        if self._wants_key():
            return self._take_key(text, line)
        is_plain = event.implicit[0] and event.style in (None, "")
        if not is_plain and not event.implicit[1] and event.tag not in _STRING_TAGS:
            self.faults.append(LineFault(line, f"the tag {event.tag} is not known here"))
        value = resolved(text) if is_plain else text
        if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            self.faults.append(LineFault(line, "it holds a number that is too large"))
        if isinstance(value, float) and not math.isfinite(value):
            self.faults.append(LineFault(line, "it holds a number that is too large"))
        if not isinstance(value, str):
            self._marks[self._path()] = Mark(line, text)
        count = 1 + len(text) // _TEXT
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, count, 0)
        return self._put(value, line, count)

    def _take_key(self, text: str, line: int) -> bool:
        if len(text) > _LONGEST_KEY:
            return self._stop(line, f"a key has more than {_LONGEST_KEY} characters")
        top = self._open[-1]
        assert isinstance(top.value, dict)
        if text in top.value:
            self.faults.append(LineFault(line, f"{text}: stands here twice"))
        top.key = text
        top.count += len(text) // _TEXT
        self._marks.setdefault((*top.path, text), Mark(line))
        return True

    def _alias(self, name: str, line: int) -> bool:
        if name not in self._anchors:
            inside = any(node.anchor == name for node in self._open)
            said = "stands within what it repeats" if inside else "repeats what is not there"
            return self._stop(line, f"*{name} {said}")
        if self._wants_key():
            return self._stop(line, "a key must be text, not an alias")
        value, count, depth = self._anchors[name]
        if len(self._open) + depth > _DEEPEST:
            return self._stop(line, f"values stand more than {_DEEPEST} deep in one another")
        return self._put(value, line, count)

    def _put(self, value: Any, line: int, count: int) -> bool:
        """Put a complete value where it belongs. ``count`` is how many values it holds, itself among them."""
        if not self._open:
            self._count += count
            self.documents.append(YamlDocument(value, self._marks))
        else:
            top = self._open[-1]
            top.count += count
            if isinstance(top.value, list):
                self._marks.setdefault((*top.path, len(top.value)), Mark(line))
                top.value.append(value)
            else:
                self._put_member(top, value, line)
        if self._count + sum(node.count for node in self._open) > _MOST_VALUES:
            return self._stop(line, f"it holds more than {_MOST_VALUES} values, or as much text")
        return True

    def _put_member(self, top: _Node, value: Any, line: int) -> None:
        assert isinstance(top.value, dict)
        assert top.key is not None
        if top.key != "<<":
            top.value[top.key] = value
        else:
            parts = value if isinstance(value, list) else [value]
            if all(isinstance(part, dict) for part in parts):
                top.merged += parts
            else:
                self.faults.append(LineFault(line, "<<: takes a mapping, or a list of mappings"))
        top.key = None


def _depth(value: Any) -> int:
    """How deep a value goes; each list and mapping is looked at once, however often aliases repeat it."""
    deepest, level, seen = 0, [value], set[int]()
    while level := [one for one in level if isinstance(one, list | dict)]:
        deepest += 1
        level = [child for one in level for child in _new_children(one, seen)]
    return deepest


def _new_children(value: list[Any] | dict[str, Any], seen: set[int]) -> Iterator[Any]:
    for child in value if isinstance(value, list) else value.values():
        if not isinstance(child, list | dict):
            continue
        if id(child) not in seen:
            seen.add(id(child))
            yield child


def dump_documents(documents: list[dict[str, Any]], remarks: Mapping[int, str] = {}) -> str:
    """The documents as YAML that ``read_documents`` reads back equal, in the order of their keys. ``remarks`` are
    comments above documents, by their position."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = None if isinstance(resolved(value), str) else "'"
        if not value.replace(
            "\n", ""
        ).isprintable():  # some other characters break lines too, and would not come back
            style = '"'
        elif "\n" in value.strip("\n"):
            style = "|"
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    parts = []
    for number, document in enumerate(documents):
        body = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
        comment = "".join(f"# {line}\n" for line in remarks.get(number, "").splitlines())
        parts.append(f"---\n{comment}{body}")
    return "".join(parts)
