"""An explanation as people read it: what is in the way, what would help, and workers that are alike together."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gpustack.cli import phrase
from gpustack.cli.lookup import INSTANCES
from gpustack.cli.terminal import Terminal
from gpustack.errors import Forbidden, NotFound, Unavailable
from gpustack.remote.admin_client import AdminClient
from gpustack.text import listed

_MARKS = {True: ("fits", "green"), False: ("no", "red")}
_UNKNOWN = ("not known yet", "yellow")
_MOST_SHOWN = 12
_WIDTH = 80
_LISTED = 3


async def refusal(client: AdminClient, instance: Mapping[str, Any]) -> str:
    """Why an instance can never be placed, as the scheduler explains it; empty while it may be, where nobody can say
    now, and of one that is gone meanwhile."""
    try:
        found = await client.get(f"{INSTANCES}/{instance['id']}/explain")
    except (NotFound, Forbidden, Unavailable):
        return ""
    return phrase.one_line(found.get("sentence") or "no reason is known") if found.get("final") else ""


def told(explanation: Mapping[str, Any], terminal: Terminal) -> str:
    """All lines of one explanation, within the width of the terminal."""
    now, width = datetime.now(UTC), max(min(terminal.width, 120), _WIDTH) - 1
    engine = explanation.get("engine")
    name = f"{explanation.get('instance')}{f' ({engine})' if engine else ''}"
    style = "green" if explanation.get("fits") else "yellow"
    sentence = str(explanation.get("sentence")).partition(" To make it fit: ")[0]
    lines = [terminal.style(line, style) for line in _wrapped(f"{name}: {sentence}", width)]
    if explanation.get("state") == "error":
        lines.append(f"  {terminal.style('error', 'red')}: {phrase.reason(dict(explanation), now)}")
    if explanation.get("note"):
        lines += _wrapped(explanation["note"], width, "  ")
    for sentence in explanation.get("memory") or ():
        lines += _wrapped(sentence, width, "  ")
    wait = explanation.get("waits_for") or {}
    if wait.get("sentence") and wait.get("what") != "place":
        text = f"Waits: {wait['sentence']}{phrase.until(wait.get('until'), now)}"
        lines += _wrapped(text, width, "  ")
    lines += _changes(explanation, width)
    lines += _places(explanation.get("places") or (), width)
    lines += _workers(explanation.get("workers") or (), terminal, width)
    return "\n".join(lines)


def _changes(explanation: Mapping[str, Any], width: int) -> Iterator[str]:
    listed = explanation.get("changes") or ()
    # The scheduler says itself only what it can find out at once: the list may have something smaller.
    change = listed[0].get("sentence") if listed else explanation.get("smallest_change")
    if change:
        yield from _wrapped(f"Smallest change: {change}", width, "  ")
    if len(listed) > 1 or any(one.get("by_api") for one in listed):
        yield "  Each of these would make it fit; --apply=KIND makes those with a star:"
        for one in listed:
            star = "*" if one.get("by_api") else " "
            yield from _wrapped(f"{star} {one.get('kind')}: {one.get('sentence')}", width, "    ")
    for sentence in explanation.get("unknown") or ():
        yield from _wrapped(f"Not known: {sentence}", width, "  ")


def _places(places: Sequence[Mapping[str, Any]], width: int) -> Iterator[str]:
    """The scores of the place, and of those that come after it."""
    if not places:
        return
    first, *others = places
    yield from _wrapped(f"Scores {_scores(first)}", width, "  ")
    for one in others:
        more = f" and {one['others']} more like it" if one.get("others") else ""
        why = f"; {one['why']}" if one.get("why") else ""
        text = f"After it: {', '.join(one.get('workers') or ())}{more}, {_scores(one)}{why}"
        yield from _wrapped(text, width, "  ")


def _scores(place: Mapping[str, Any]) -> str:
    parts = " + ".join(
        f"{one.get('name')} {one.get('value', 0):.1f} × {one.get('weight', 0):g}"
        for one in place.get("scores") or ()
    )
    return f"{place.get('score') or 0:.1f}{f' ({parts})' if parts else ''}"


def _workers(verdicts: Sequence[Mapping[str, Any]], terminal: Terminal, width: int) -> Iterator[str]:
    for verdict in verdicts[:_MOST_SHOWN]:
        mark, colour = _MARKS[verdict["fits"]] if "fits" in verdict else _UNKNOWN
        others = verdict.get("others") or ()
        like = f" and {len(others)} more like it" if len(others) > _LISTED else ""
        names = str(verdict.get("worker")) if like else ", ".join([str(verdict.get("worker")), *others])
        yield f"  {names}{like}: {terminal.style(mark, colour)}"
        for sentence in verdict.get("sentences") or ():
            yield from _wrapped(sentence, width, "    ")
        for device in verdict.get("devices") or ():
            if text := _device(device):
                yield from _wrapped(text, width, "    ")
    left = verdicts[_MOST_SHOWN:]
    if left:
        count = sum(1 + len(verdict.get("others") or ()) for verdict in left)
        yield f"  {count} more workers of {len(left)} kinds are no nearer; -o json shows all"


def _device(device: Mapping[str, Any]) -> str:
    """``GPU 0: 3.0 of 24.0 GiB free, short by …; held by m2-1``; empty where there is nothing to say."""
    if device.get("holds") is not False:
        return ""
    there = f"{phrase.size(device.get('free'))} of {phrase.size(device.get('total'))} free"
    held = device.get("held_by") or ()
    by = f" (held by {listed(held, _LISTED)})" if held else ""
    return f"GPU {device.get('index')}: {there}{by}; {device.get('sentence')}"


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """One text in lines that fit; what is too long for a line alone is left whole."""
    return textwrap.wrap(
        phrase.one_line(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    ) or [indent]
