"""Puts a value into a JSON, YAML or TOML file by changing one place of its text: everything else, comments too, stays.

Each result is read again and compared with what was meant; where they differ, nothing is done and it is said plainly.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from gpustack.errors import GpustackError

FORMS = ("json", "yaml", "toml")


class EditRefused(GpustackError):
    """The text cannot be changed without losing something of it."""


@attrs.frozen(kw_only=True)
class TextEdit:
    """``old`` at one place becomes ``new``; either may be empty."""

    at: int
    old: str
    new: str

    def applied(self, text: str) -> str:
        return text[: self.at] + self.new + text[self.at + len(self.old) :]

    def undone(self, text: str) -> str | None:
        """``text``, which others may have changed meanwhile, without this change; ``None`` where it is not to be found
        exactly once."""
        return text.replace(self.new, self.old) if self.new and text.count(self.new) == 1 else None


@attrs.frozen(kw_only=True)
class Setting:
    """A value in a document: at the end of the keys ``at``, or with ``listed`` as one more of the list there."""

    form: str
    at: Sequence[str] = ()
    value: Any
    listed: bool = False
    initial: Mapping[str, Any] = attrs.field(factory=dict)
    """What a document that is not there yet begins with."""


def edit_of(text: str, setting: Setting) -> TextEdit:
    """How ``text`` is changed to have the setting. Raises EditRefused."""
    if not text.strip():
        whole = (
            _merged(copy.deepcopy(dict(setting.initial)), setting)
            if setting.at or not setting.listed
            else [setting.value]
        )
        return TextEdit(at=0, old=text, new=_WRITE[setting.form](whole))
    before = _read(setting.form, text)
    edit = _EDIT[setting.form](text, setting)
    after = _read(setting.form, edit.applied(text))
    if after != _merged(copy.deepcopy(before), setting):
        raise EditRefused("it is written in a way in which this cannot be added without losing something")
    return edit


def read_setting(text: str, form: str) -> Any:
    """The document; raises EditRefused for a text that is none."""
    return _read(form, text) if text.strip() else None


def _merged(document: Any, setting: Setting) -> Any:
    """The document with the setting; raises EditRefused where something else stands there."""
    if not setting.at:
        if not isinstance(document, list):
            raise EditRefused("it is no list")
        return _with_entry(document, setting)
    inner = document
    for key in setting.at[:-1]:
        if not isinstance(inner, dict):
            raise EditRefused(f"{'.'.join(setting.at)} is something else there")
        inner = inner.setdefault(key, {})
    if not isinstance(inner, dict):
        raise EditRefused(f"{'.'.join(setting.at)} is something else there")
    last = setting.at[-1]
    if not setting.listed:
        inner[last] = setting.value
        return document
    there = inner.get(last)
    if there is not None and not isinstance(there, list):
        raise EditRefused(f"{'.'.join(setting.at)} is no list there")
    inner[last] = _with_entry(there or [], setting)
    return document


def _with_entry(entries: list[Any], setting: Setting) -> list[Any]:
    return [*entries, setting.value] if setting.form == "toml" else [setting.value, *entries]


def _read(form: str, text: str) -> Any:
    import tomllib

    import yaml

    try:
        if form == "json":
            return _JsonText(text).document()
        return tomllib.loads(text) if form == "toml" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise EditRefused(f"it is no {form.upper()} ({' '.join(str(error).split())[:100]})") from error


# ---- JSON, with the comments and trailing commas that editors take


@attrs.frozen
class _JsonNode:
    """A value and where it stands; an object has its members, each by the place of its key."""

    start: int
    end: int
    value: Any
    members: Mapping[str, tuple[int, _JsonNode]] | None = None


_JSON_BLANK = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.S)
_JSON_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_JSON_WORD = re.compile(r"-?[0-9][0-9.eE+-]*|true|false|null")


@attrs.define
class _JsonText:
    text: str

    def document(self) -> Any:
        return self.root().value

    def root(self) -> _JsonNode:
        """Raises ValueError."""
        node = self._value(self._skip(0))
        if (end := self._skip(node.end)) != len(self.text):
            raise ValueError(f"something follows at character {end}")
        return node

    def _skip(self, at: int) -> int:
        found = _JSON_BLANK.match(self.text, at)
        return at if found is None else found.end()

    def _value(self, at: int) -> _JsonNode:
        mark = self.text[at : at + 1]
        if mark == "{":
            return self._object(at)
        if mark == "[":
            return self._array(at)
        found = (_JSON_STRING if mark == '"' else _JSON_WORD).match(self.text, at)
        if found is None:
            raise ValueError(f"there is no value at character {at}")
        return _JsonNode(at, found.end(), json.loads(found[0]))

    def _object(self, start: int) -> _JsonNode:
        members: dict[str, tuple[int, _JsonNode]] = {}
        at = self._skip(start + 1)
        while self.text[at : at + 1] != "}":
            key = self._value(at)
            colon = self._skip(key.end)
            if not isinstance(key.value, str) or self.text[colon : colon + 1] != ":":
                raise ValueError(f"there is no name at character {at}")
            if key.value in members:
                raise ValueError(f"{key.value} is there twice")
            node = self._value(self._skip(colon + 1))
            members[key.value] = (at, node)
            at = self._next(node.end, "}")
        return _JsonNode(start, at + 1, {name: node.value for name, (_, node) in members.items()}, members)

    def _array(self, start: int) -> _JsonNode:
        entries = []
        at = self._skip(start + 1)
        while self.text[at : at + 1] != "]":
            node = self._value(at)
            entries.append(node.value)
            at = self._next(node.end, "]")
        return _JsonNode(start, at + 1, entries)

    def _next(self, at: int, end: str) -> int:
        """Where the next entry begins, or the end is."""
        at = self._skip(at)
        if self.text[at : at + 1] == ",":
            return self._skip(at + 1)
        if self.text[at : at + 1] != end:
            raise ValueError(f"there is no comma at character {at}")
        return at


def _edit_json(text: str, setting: Setting) -> TextEdit:
    if setting.listed:
        raise EditRefused("a list in JSON is not added to")
    node, left = _JsonText(text).root(), list(setting.at)
    depth = 0
    while left and node.members is not None and left[0] in node.members:
        node, depth = node.members[left.pop(0)][1], depth + 1
    if not left:
        pad = _indent_at(text, node.start)
        return TextEdit(at=node.start, old=text[node.start : node.end], new=_json(setting.value, pad))
    if node.members is None:
        raise EditRefused(f"{'.'.join(setting.at)} is something else there")
    value = setting.value
    for key in reversed(left[1:]):
        value = {key: value}
    first = next(iter(node.members.values()), None)
    outer = _indent_at(text, node.start)
    pad = (
        f"{outer}  "
        if first is None or "\n" not in text[node.start : first[0]]
        else _indent_at(text, first[0])
    )
    entry = f"\n{pad}{json.dumps(left[0])}: {_json(value, pad)}"
    return TextEdit(at=node.start + 1, old="", new=f"{entry}," if first is not None else f"{entry}\n{outer}")


def _json(value: Any, pad: str) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False).replace("\n", f"\n{pad}")


def _indent_at(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip())]


# ---- YAML


def _edit_yaml(text: str, setting: Setting) -> TextEdit:
    import yaml

    if len(setting.at) > 1 or not setting.listed:
        raise EditRefused("only a list at the top of a YAML file is added to")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not setting.at:
        return _entry_before(text, root, setting.value)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise EditRefused("it is not written as names, one on each line")
    key = setting.at[0]
    node = next((value for name, value in root.value if name.value == key), None)
    if node is None:
        gap = "" if text.endswith("\n") else "\n"
        return TextEdit(at=len(text), old="", new=f"{gap}{_yaml({key: [setting.value]})}")
    if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        return _entry_before(text, node, setting.value)
    old = text[node.start_mark.index : node.end_mark.index]
    if old.strip() not in ("[]", "null", "~", ""):
        raise EditRefused(f"{key} is not written as one entry on each line")
    return TextEdit(at=node.start_mark.index, old=old, new="\n" + _yaml([setting.value], "  ").rstrip("\n"))


def _entry_before(text: str, node: Any, value: Any) -> TextEdit:
    import yaml

    if not isinstance(node, yaml.SequenceNode) or node.flow_style:
        raise EditRefused("the list is not written as one entry on each line")
    line = text.rfind("\n", 0, node.start_mark.index) + 1
    return TextEdit(at=line, old="", new=_yaml([value], " " * node.start_mark.column))


def _yaml(value: Any, pad: str = "") -> str:
    import yaml

    text = str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000))
    return "".join(f"{pad}{line}\n" for line in text.splitlines())


# ---- TOML


def _edit_toml(text: str, setting: Setting) -> TextEdit:
    gap = "" if text.endswith("\n") else "\n"
    return TextEdit(at=len(text), old="", new=f"{gap}\n{_table(setting)}")


def _table(setting: Setting) -> str:
    if not isinstance(setting.value, dict):
        raise EditRefused("only a table is added to TOML")
    name = ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key) for key in setting.at)
    head = f"[[{name}]]" if setting.listed else f"[{name}]"
    return "\n".join([head, *(f"{key} = {_toml(value)}" for key, value in setting.value.items()), ""])


def _toml(value: Any) -> str:
    """Text, numbers and truth are written in TOML as in JSON."""
    if not isinstance(value, str | int | float | bool):
        raise EditRefused("a table in TOML is given text, numbers and true or false only")
    return json.dumps(value)


def _whole_toml(document: Any) -> str:
    parts = [
        f"{key} = {_toml(value)}\n" for key, value in document.items() if not isinstance(value, dict | list)
    ]
    for key, value in document.items():
        for entry in value if isinstance(value, list) else [value] if isinstance(value, dict) else []:
            nested = [name for name, one in entry.items() if isinstance(one, dict)]
            for name in nested:
                parts.append(_table(Setting(form="toml", at=(key, name), value=entry[name])))
            if not nested:
                parts.append(
                    _table(Setting(form="toml", at=(key,), value=entry, listed=isinstance(value, list)))
                )
    return "\n".join(parts)


_EDIT: Mapping[str, Callable[[str, Setting], TextEdit]] = {
    "json": _edit_json,
    "yaml": _edit_yaml,
    "toml": _edit_toml,
}
_WRITE: Mapping[str, Callable[[Any], str]] = {
    "json": lambda document: json.dumps(document, indent=2, ensure_ascii=False) + "\n",
    "yaml": _yaml,
    "toml": _whole_toml,
}
