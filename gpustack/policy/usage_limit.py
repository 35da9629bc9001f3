"""Whether a limit lets one more request in: windows of a minute, requests under way, and blocks of token budgets."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import attrs

from gpustack.domain.access import Limits

MINUTE: Final = 60
_KEPT: Final = MINUTE + 1
"""Clock seconds that count: the last sixty whole seconds and the present one, so that any sixty seconds are covered."""
SOON: Final = 1.0
"""``Retry-After`` in seconds where it is unknown when another request ends."""


class LimitKind(StrEnum):
    """What is limited."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    CONCURRENT = "concurrent_requests"
    DAY = "tokens_per_day"
    MONTH = "tokens_per_month"


@attrs.frozen
class WindowSlot:
    """The requests and tokens admitted within one second of the clock."""

    at: int
    requests: int
    tokens: int


@attrs.frozen
class SlidingWindow:
    """What was admitted during the last minute, by seconds, the oldest first.

    A request counts in the second in which it begins; its tokens are corrected there when it has ended.
    """

    seconds: tuple[WindowSlot, ...] = ()

    @property
    def requests(self) -> int:
        return sum([second.requests for second in self.seconds])

    @property
    def tokens(self) -> int:
        return sum([second.tokens for second in self.seconds])

    def at(self, now: float) -> SlidingWindow:
        """Without what is older than a minute."""
        first = math.floor(now) - _KEPT + 1
        if not self.seconds or self.seconds[0].at >= first:
            return self
        return SlidingWindow(tuple([second for second in self.seconds if second.at >= first]))

    def plus(self, now: float, requests: int, tokens: int) -> SlidingWindow:
        """With so much more at ``now``, or in the last second if the clock went back."""
        at = math.floor(now)
        last = self.seconds[-1] if self.seconds else None
        if last is None or last.at < at:
            return SlidingWindow((*self.seconds, WindowSlot(at, requests, tokens)))
        return SlidingWindow(
            (*self.seconds[:-1], WindowSlot(last.at, last.requests + requests, last.tokens + tokens))
        )

    def corrected(self, at: int, tokens: int) -> SlidingWindow:
        """With ``tokens`` more (or fewer) in the second ``at``, if that is still in the window."""
        return SlidingWindow(
            tuple(
                [
                    attrs.evolve(second, tokens=second.tokens + tokens) if second.at == at else second
                    for second in self.seconds
                ]
            )
        )

    def free_at(self, *, requests: int = 0, tokens: int = 0) -> float:
        """The time at which so much of its content will have left the window."""
        for second in self.seconds:
            requests -= second.requests
            tokens -= second.tokens
            if requests <= 0 and tokens <= 0:
                return float(second.at + _KEPT)
        return math.inf


@attrs.frozen
class RecentUsage:
    """What a subject used within the last minute, and its requests under way."""

    window: SlidingWindow = SlidingWindow()
    under_way: int = 0


@attrs.frozen
class Refusal:
    """Which limit refuses a request, and in how many seconds to ask again; ``None``: it can never pass."""

    kind: LimitKind
    limit: int
    retry_after: float | None


@attrs.frozen
class Admission:
    """The usage with the request in it. ``second`` is where it counts, for ``ended``."""

    state: RecentUsage
    second: int


def admit(limits: Limits, state: RecentUsage, tokens: int, now: float) -> Admission | Refusal:
    """Admit a request that may use up to ``tokens``, or say which limit refuses it for longest.

    All that it may use counts at once (reservation) and is corrected when it has ended (settlement): never more than a
    limit is admitted within any sixty seconds.
    """
    window = state.window.at(now)
    in_the_way = [
        refusal
        for refusal in (
            _too_many(limits, state),
            _too_often(limits, window, now),
            _too_much(limits, window, tokens, now),
        )
        if refusal is not None
    ]
    if in_the_way:
        return max(in_the_way, key=_wait)
    window = window.plus(now, 1, tokens)
    return Admission(RecentUsage(window, state.under_way + 1), window.seconds[-1].at)


def ended(state: RecentUsage, second: int, surplus: int) -> RecentUsage:
    """Settle a request that was admitted at ``second`` and used ``surplus`` tokens less than were reserved."""
    window = state.window.corrected(second, -surplus) if surplus else state.window
    return RecentUsage(window, state.under_way - 1)


def full(limits: Limits, now: float) -> SlidingWindow:
    """A window in which all limits are used up: after a crash nothing is known of the minute before."""
    return SlidingWindow(
        (WindowSlot(math.floor(now), limits.requests_per_minute or 0, limits.tokens_per_minute or 0),)
    )


def share(limits: Limits, servers: int, rank: int) -> Limits:
    """The share of one of several servers in the limits per minute and at once. The shares add up to the limit.

    A limit smaller than the number of servers is 1 for each, so that no server refuses everything. Budgets of days and
    months are not divided: servers draw blocks of them.
    """
    if servers <= 1:
        return limits
    return attrs.evolve(
        limits,
        requests_per_minute=_part(limits.requests_per_minute, servers, rank),
        tokens_per_minute=_part(limits.tokens_per_minute, servers, rank),
        concurrent_requests=_part(limits.concurrent_requests, servers, rank),
    )


def _part(limit: int | None, servers: int, rank: int) -> int | None:
    return None if limit is None else max(limit // servers + (rank < limit % servers), min(limit, 1))


def _wait(refusal: Refusal) -> float:
    return math.inf if refusal.retry_after is None else refusal.retry_after


def _too_many(limits: Limits, state: RecentUsage) -> Refusal | None:
    limit = limits.concurrent_requests
    if limit is None or state.under_way < limit:
        return None
    return Refusal(LimitKind.CONCURRENT, limit, SOON if limit else None)


def _too_often(limits: Limits, window: SlidingWindow, now: float) -> Refusal | None:
    limit = limits.requests_per_minute
    if limit is None:
        return None
    excess = window.requests + 1 - limit
    if excess <= 0:
        return None
    return Refusal(LimitKind.REQUESTS, limit, window.free_at(requests=excess) - now if limit else None)


def _too_much(limits: Limits, window: SlidingWindow, tokens: int, now: float) -> Refusal | None:
    limit = limits.tokens_per_minute
    if limit is None:
        return None
    excess = window.tokens + max(tokens, 1) - limit
    if excess <= 0:
        return None
    if max(tokens, 1) > limit:
        return Refusal(LimitKind.TOKENS, limit, None)
    return Refusal(LimitKind.TOKENS, limit, window.free_at(tokens=excess) - now)


_PART: Final = 16
"""A block is this part of what nobody has drawn yet: a crash forfeits no more, and blocks shrink towards the end."""


def period_name(kind: LimitKind, now: datetime) -> str:
    """The day (``2026-11-28``) or month (``2026-11``) it is."""
    today = now.astimezone(UTC).date().isoformat()
    return today if kind is LimitKind.DAY else today[:7]


def period_ends_in(kind: LimitKind, now: datetime) -> float:
    """Seconds until the next day or month begins."""
    now = now.astimezone(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind is LimitKind.DAY:
        return (midnight + timedelta(days=1) - now).total_seconds()
    first = midnight.replace(day=1)
    return ((first + timedelta(days=32)).replace(day=1) - now).total_seconds()


def is_period_over(name: str, now: datetime) -> bool:
    """Whether a period ended at least a day ago, so that no server is in it even if its clock is late."""
    past = (now.astimezone(UTC) - timedelta(days=1)).date().isoformat()
    return name < past[: len(name)]


def block_size(room: int, wanted: int, least: int) -> int:
    """How many tokens to draw. ``room``: those of the budget that nobody has drawn; ``wanted``: the most that all
    waiting requests together may use; ``least``: the most that the smallest of them may use.

    0 when ``room`` is not enough even for that one.
    """
    if room < least:
        return 0
    return min(room, max(wanted, room // _PART))
