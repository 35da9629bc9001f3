"""How events are written, and which of them an object means."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gpustack.cli.commands.events import EventLines, _about, _follow
from gpustack.cli.terminal import Terminal
from gpustack.errors import NotFound, Unavailable
from gpustack.remote.admin_client import CREATED, ResourceEvent


def event(name: str = "m-1", text: str = "Runs", **more: Any) -> dict[str, Any]:
    about = {"kind": "model-instance", "id": 7, "name": name}
    return {
        "id": 1,
        "at": "2026-01-31T08:00:00Z",
        "kind": "instance.running",
        "severity": "info",
        "actor": "",
    } | {
        "object": about,
        "text": text,
        **more,
    }


def lines(*events: dict[str, Any], form: str = "table", live: bool = False, width: int = 60) -> list[str]:
    stream = io.StringIO()
    told = EventLines(Terminal(stream, live=live, width=width, colour=live), form)
    for one in events:
        told.take(one)
    return stream.getvalue().splitlines()


def test_in_a_pipe_an_event_is_one_line_and_harmless() -> None:
    first, second = lines(event(), event("m\x1b[2J", "a\nlong \x1b]0;x\x07 text " * 9))
    assert first.endswith("  m-1         Runs") and second.endswith("text") and "\x1b" not in second
    assert second.index("a long") == first.index("Runs")
    [wide] = lines(event(actor="admin"), form="wide")
    assert wide.endswith("model-instance/m-1  instance.running: Runs (by admin)")


def test_at_a_terminal_what_happened_is_broken_and_has_the_colour_of_its_severity() -> None:
    shown = lines(event(text="word " * 20, severity="error"), live=True)
    assert len(shown) > 2 and all("\x1b[31m" in line for line in shown)
    plain = [line.replace("\x1b[31m", "").replace("\x1b[0m", "") for line in shown]
    assert max(map(len, plain)) < 60 and all(line.startswith(" " * 33) for line in plain[1:])


def test_as_json_each_event_is_a_line() -> None:
    assert [json.loads(line)["id"] for line in lines(event(), event(), form="json")] == [1, 1]


class BrokenStream:
    """A server whose streams of events break off after each event."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.left, self.asked = [*events], list[dict[str, Any]]()

    @asynccontextmanager
    async def watch(self, path: str, **asked: Any) -> AsyncIterator[AsyncIterator[ResourceEvent]]:
        self.asked.append(asked)
        if len(self.asked) % 2 == 0:
            raise Unavailable("nobody answers")
        yield self.stream()

    async def stream(self) -> AsyncIterator[ResourceEvent]:
        if not self.left:
            raise KeyError
        yield ResourceEvent(CREATED, self.left.pop(0))
        raise Unavailable("it broke off")


async def test_followed_events_go_on_behind_what_has_come(autojump_clock: object) -> None:
    server: Any = BrokenStream(event(), {**event(), "id": 5})
    stream, aside = io.StringIO(), io.StringIO()
    with pytest.raises(KeyError):
        await _follow(server, None, {"limit": 9}, EventLines(Terminal(stream), "json"), Terminal(aside))
    assert [json.loads(line)["id"] for line in stream.getvalue().splitlines()] == [1, 5]
    assert [one.get("since") for one in server.asked] == [None, 1, 1, 5, 5]
    assert aside.getvalue() == "it broke off; trying again\n" * 2
    server.asked = [{}]
    with pytest.raises(Unavailable):  # at first it is no interruption
        await _follow(server, None, {}, EventLines(Terminal(stream), "json"), Terminal(aside))


class Server:
    """Knows no object, and one page of events."""

    async def all(self, path: str, **filters: Any) -> list[Any]:
        return []

    async def get(self, path: str) -> dict[str, Any]:
        assert path.startswith("/v1/events?limit=1000&page=1")
        of_model = {"object": {"kind": "model", "id": 3, "name": "gone"}}
        return {"items": [event(), event(**of_model)]}


async def test_an_object_that_is_gone_is_known_by_its_events() -> None:
    server: Any = Server()
    assert await _about(server, None) == {}
    assert await _about(server, "m-1") == {"object": "model-instance:7"}
    assert await _about(server, "model/gone") == {"model_id": 3}
    with pytest.raises(NotFound, match="no event of it is kept"):
        await _about(server, "nobody")
