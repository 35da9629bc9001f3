"""``--dry-run``: the one place that keeps a command from changing anything, and tells what it would have changed.

``main`` sees the flag and puts it into the environment of the command. A session then talks through a
``RehearsingClient``, which reads as ever, and notes a change in place of sending it. What is changed on this machine
is told to ``intend`` just before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.cli.failure import DryRunEnd
from gpustack.cli.session import DRY_RUN_VARIABLE
from gpustack.remote.admin_client import AdminClient, Doc
from gpustack.text import MASK, masked_arguments, redacted

_VERBS = {"POST": "create", "PUT": "change", "DELETE": "remove"}
_SECRET = ("password", "token", "secret", "value", "env", "key")
"""Fields whose values are not shown; ``env`` may hold anything."""
_UNTIL = "/v1/"
_ASKS = ("/v1/plans", "/v1/models/evaluate")
"""What is posted there is a question."""
_SHOWN = 60


def is_dry(env: Mapping[str, str]) -> bool:
    """Whether the command is to change nothing."""
    return bool(env.get(DRY_RUN_VARIABLE))


def intend(env: Mapping[str, str], *sentences: str) -> None:
    """Say what is about to be changed on this machine, such as ``write /etc/x``; secrets in it are not shown. Raises
    DryRunEnd where nothing is to be changed; otherwise does nothing."""
    if is_dry(env):
        raise DryRunEnd([{"verb": text.partition(" ")[0], "told": redacted(text)} for text in sentences])


def told(end: DryRunEnd, env: Mapping[str, str]) -> str:
    """What would have been done, for stdout, in the form that the command line asks for."""
    from gpustack.cli.output import as_json, as_yaml
    from gpustack.cli.terminal import harmless

    form = env[DRY_RUN_VARIABLE]
    if form in ("json", "yaml"):
        return (as_json if form == "json" else as_yaml)(end.changes)
    lines = [f"would {one['told']}" for one in end.changes]
    return harmless("\n".join([*(lines or ["nothing would change"]), "Nothing is changed (--dry-run)."]))


@attrs.define(eq=False)
class RehearsingClient(AdminClient):
    """Reads from the server, and keeps every change in ``noted`` instead of sending it. It answers a change with the
    document as it would be, as far as that can be known here."""

    noted: list[Doc] = attrs.field(factory=list)
    _seen: dict[str, Doc] = attrs.field(factory=dict)

    async def _call(self, method: str, path: str, body: Doc | None = None) -> Any:
        if method == "GET" or _is_question(path, body):
            answer = await super()._call(method, path, body)
            self._remember(path.partition("?")[0], answer)
            return answer
        return self._note(method, path, body or {})

    async def attempt(self, path: str, document: Mapping[str, Any]) -> tuple[int, Doc]:
        if _is_question(path, document):
            return await super().attempt(path, document)
        return 200, self._note("POST", path, document)

    def _remember(self, path: str, answer: Any) -> None:
        if not isinstance(answer, dict):
            return
        items = answer.get("items")
        if isinstance(items, list):
            self._seen.update(
                (f"{path}/{one['id']}", one) for one in items if isinstance(one, dict) and "id" in one
            )
        elif "id" in answer:
            self._seen[path] = self._seen[f"{path.rpartition('/')[0]}/{answer['id']}"] = answer

    def _note(self, method: str, path: str, body: Mapping[str, Any]) -> Doc:
        bare = path.partition("?")[0]
        before = self._seen.get(bare) or self._seen.get(bare.rpartition("/")[0]) or {}
        new = {} if method == "POST" and bare not in self._seen else before
        fields = _differences(new, body)
        change = {"verb": _VERBS[method], "method": method, "path": bare, "object": _name(bare, before, body)}
        self.noted.append(
            {**change, "fields": fields, "told": _sentence(method, bare, change["object"], fields, before)}
        )
        return {"id": 0, "name": body.get("name"), **before, **body}


def _differences(before: Mapping[str, Any], body: Mapping[str, Any]) -> Doc:
    """From what to what each field goes. A mapping that stays one is told by its entries; of a new document what is
    empty is left out."""
    pairs = {}
    for name, value in body.items():
        old = before.get(name)
        if isinstance(old, dict) and isinstance(value, dict) and not _is_secret(name):
            inner = {**dict.fromkeys(old), **value}
            pairs.update({f"{name}.{key}": (old.get(key), one) for key, one in inner.items()})
        elif before or value not in (None, "", [], {}):
            pairs[name] = (old, value)
    return {
        name: {"from": _shown(name, old), "to": _shown(name, new)}
        for name, (old, new) in pairs.items()
        if old != new
    }


def _is_question(path: str, body: Mapping[str, Any] | None) -> bool:
    return (body or {}).get("dry_run") is True or path.partition("?")[0] in _ASKS


def _name(path: str, before: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """``models/tiny``: the kind as the API has it, and a name rather than a number."""
    kind, *rest = path.removeprefix(_UNTIL).split("/")
    called = before.get("name") or before.get("username") or body.get("name") or body.get("username")
    called = called or next((str(body[name]) for name in body if name.endswith("_filename")), "")
    return f"{kind}/{called or (rest or ['?'])[0]}" if called or rest else kind


def _sentence(method: str, path: str, name: Any, fields: Mapping[str, Doc], before: Mapping[str, Any]) -> str:
    if method == "POST" and before:  # a verb of a record: /v1/workers/3/bar
        return f"{path.rpartition('/')[2]} {name}"
    if method == "DELETE":
        return f"remove {name}"
    if method == "PUT":
        changes = [
            f"{field} {_drawn(pair['from'])} -> {_drawn(pair['to'])}" for field, pair in fields.items()
        ]
        return f"change {name}: {', '.join(changes)}" if changes else f"leave {name} as it is"
    told = [
        f"{field} {_drawn(pair['to'])}" for field, pair in fields.items() if field not in ("name", "username")
    ]
    return f"create {name}{': ' if told else ''}{', '.join(told)}"


def _is_secret(field: str) -> bool:
    return any(part in field for part in _SECRET)


def _shown(field: str, value: Any) -> Any:
    if value and not isinstance(value, bool | int | float) and _is_secret(field):
        return dict.fromkeys(value, MASK) if isinstance(value, dict) else MASK
    if isinstance(value, dict):
        return {name: _shown(str(name), one) for name, one in value.items()}
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return value
    if not all(isinstance(one, str) for one in texts):
        return [_shown("", one) for one in texts]
    shown = masked_arguments(texts)
    return shown[0] if isinstance(value, str) else shown


def _drawn(value: Any) -> str:
    from json import dumps

    text = "none" if value in (None, "", [], {}) and value is not False else value
    text = text if isinstance(text, str) else dumps(text, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
