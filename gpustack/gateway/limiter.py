"""Holds requests of limited keys, users and models to their limits: reserves before the call, settles after it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import is_
from pathlib import Path
from typing import Final, TypeVar

import attrs
import trio

from gpustack.domain.access import ApiKey, Limits, Principal, User
from gpustack.domain.model import Model
from gpustack.domain.route import ModelRoute
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import LimitReached, Unavailable
from gpustack.gateway import window_file
from gpustack.http1.reply import Fields
from gpustack.metrics.traffic import Traffic
from gpustack.policy.usage_limit import (
    MINUTE,
    SOON,
    Admission,
    LimitKind,
    RecentUsage,
    Refusal,
    SlidingWindow,
    admit,
    ended,
    full,
    period_ends_in,
    share,
)
from gpustack.server.token_budget import BudgetBlock, TokenBudgets
from gpustack.store.store import Store

R = TypeVar("R", ApiKey, User, Model)

log = logging.getLogger(__name__)

_BUDGETS: Final = (LimitKind.DAY, LimitKind.MONTH)
_OF_A_MINUTE: Final = (LimitKind.REQUESTS, LimitKind.TOKENS)
_LONG: Final = 60.0
"""Seconds beyond which clients of OpenAI do not wait, but would ask again and again."""
_RATE, _QUOTA = "rate_limit_exceeded", "insufficient_quota"
_TYPES: Final[Mapping[LimitKind, tuple[str, str]]] = {
    LimitKind.REQUESTS: ("requests", _RATE),
    LimitKind.TOKENS: ("tokens", _RATE),
    LimitKind.CONCURRENT: ("requests", _RATE),
    LimitKind.DAY: (_QUOTA, _QUOTA),
    LimitKind.MONTH: (_QUOTA, _QUOTA),
}


@attrs.frozen
class LimitedSubject:
    """A key, a user or a model that is limited."""

    subject: str
    what: str
    """``key``, ``user`` or ``model``."""
    words: str
    limits: Limits
    since: datetime | None
    """When it was created: before that it cannot have used anything."""

    @property
    def counts_tokens(self) -> bool:
        return self.limits.tokens_per_minute is not None or bool(self.budgets())

    def budgets(self) -> list[tuple[LimitKind, int]]:
        pairs = ((kind, getattr(self.limits, kind.value)) for kind in _BUDGETS)
        return [(kind, limit) for kind, limit in pairs if limit is not None]


@attrs.frozen(eq=False)
class Permit:
    """A request that is let in: what it was promised, of whom, and the headers that tell what is left."""

    tokens: int
    seconds: tuple[tuple[str, int], ...]
    """Where it counts, by subject."""
    blocks: tuple[BudgetBlock, ...]
    fields: Fields


@attrs.frozen
class _RemainingQuota:
    """What is left of one limit, and when all of it will be there again."""

    limit: int
    left: int
    reset: float


@attrs.define(eq=False, repr=False)
class Limiter:
    """Owns what limited parties used within the last minute and have under way. A service: it leaves that behind
    for the next daemon. After a crash nobody knows it: then the minute before counts as used.

    ``_servers`` says how many servers let requests in, and which of them this is, from 0: each enforces its share.
    """

    _store: Store
    _budgets: TokenBudgets
    _traffic: Traffic
    _now: Callable[[], datetime]
    _monotonic: Callable[[], float]
    _servers: Callable[[], tuple[int, int]] = lambda: (1, 0)
    _file: Path | None = None
    _seen: Snapshot | None = None
    _tables: tuple[object, object, object] = (None, None, None)
    _parties: tuple[
        Mapping[int, LimitedSubject], Mapping[int, LimitedSubject], Mapping[int, LimitedSubject]
    ] = ({}, {}, {})
    _any: bool = False
    _states: dict[str, RecentUsage] = attrs.field(factory=dict)
    _began: tuple[datetime, float] | None = None
    """Set while the minute before counts as used."""
    _over: bool = False
    name: str = "limits"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        if self._file is not None:
            self._recall(self._file)
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Leave to the next daemon what was used, and let in no limited request any more."""
        if self._over or self._file is None:
            return
        self._over = True
        windows = {subject: state.window for subject, state in self._states.items()}
        window_file.save_windows(self._file, windows, self._monotonic(), self._now())

    def _recall(self, path: Path) -> None:
        now = self._monotonic()
        windows = window_file.load_windows(path, now, self._now())
        if windows is None:
            self._began = (self._now(), now)
        else:
            self._states.update((subject, RecentUsage(window)) for subject, window in windows.items())

    # --- for the gateway

    def of(self, principal: Principal, model: ModelRoute) -> tuple[LimitedSubject, ...]:
        """Who of those that a request concerns is limited: mostly nobody, and that costs next to nothing."""
        snapshot = self._store.snapshot
        if snapshot is not self._seen:
            self._seen = snapshot
            self._look(snapshot)
        if not self._any:
            return ()
        of_key, of_user, of_model = self._parties
        found = (
            of_key.get(principal.api_key_id or 0),
            of_user.get(principal.user_id or 0),
            of_model.get(model.model_id),
        )
        return tuple([party for party in found if party is not None])

    def peek(self, parties: Sequence[LimitedSubject]) -> None:
        """Raise ``LimitReached`` for a request that cannot be let in, however few tokens it may use. Nothing is
        reserved: it spares finding out how many those are."""
        now = self._monotonic()
        for party in parties:
            limits = attrs.evolve(self._share(party), tokens_per_minute=None)
            answer = admit(limits, self._state(party, now), 0, now)
            if isinstance(answer, Refusal):
                raise self._refusal(party, answer, 0)

    async def enter(self, parties: Sequence[LimitedSubject], tokens: int) -> Permit:
        """Reserve what a request may use of each party, all or nothing.

        Raises ``LimitReached``, and ``Unavailable`` while the database is away and nothing drawn is left.
        """
        while True:
            if self._over:
                raise Unavailable("The server hands over to another: try again in a moment", SOON)
            answer = self._try(parties, tokens)
            if isinstance(answer, Permit):
                return answer
            await self._budgets.draw([(block, tokens) for block in answer])

    def leave(self, permit: Permit, used: int) -> None:
        """Settle a request that has ended, however it did."""
        for subject, second in permit.seconds:
            self._states[subject] = ended(self._states[subject], second, permit.tokens - used)
        for block in permit.blocks:
            self._budgets.settle(block, permit.tokens, used)

    def fields(self, parties: Sequence[LimitedSubject]) -> Fields:
        """The headers that tell what is left: of several limits that which leaves least."""
        now = self._monotonic()
        requests: list[_RemainingQuota] = []
        tokens: list[_RemainingQuota] = []
        for party in parties:
            limits, window = self._share(party), self._state(party, now).window.at(now)
            reset = window.seconds[-1].at + MINUTE + 1 - now if window.seconds else 0.0
            for found, limit, used in (
                (requests, limits.requests_per_minute, window.requests),
                (tokens, limits.tokens_per_minute, window.tokens),
            ):
                if limit is not None:
                    found.append(_RemainingQuota(limit, max(limit - used, 0), reset))
            for kind, limit in party.budgets():
                block = self._budgets.block(party.subject, kind, limit)
                tokens.append(
                    _RemainingQuota(limit, self._budgets.remaining(block), period_ends_in(kind, self._now()))
                )
        return [*_fields(b"requests", requests), *_fields(b"tokens", tokens)]

    @property
    def under_way(self) -> int:
        """Requests of limited parties under way, once for each party."""
        return sum(state.under_way for state in self._states.values())

    # --- within

    def _try(self, parties: Sequence[LimitedSubject], tokens: int) -> Permit | list[BudgetBlock]:
        """Reserve in one step, or name the blocks from which more must be drawn first."""
        now = self._monotonic()
        admitted: list[tuple[str, Admission]] = []
        blocks: list[BudgetBlock] = []
        for party in parties:
            answer = self._admit(party, tokens, now)
            if isinstance(answer, Refusal):
                raise self._refusal(party, answer, tokens)
            admitted.append((party.subject, answer))
            for kind, limit in party.budgets():
                block = self._budgets.block(party.subject, kind, limit)
                if self._budgets.remaining(block) < max(tokens, 1):
                    raise self._refusal(party, self._spent(block, tokens), tokens)
                blocks.append(block)
        short = [block for block in blocks if self._budgets.spendable(block) < tokens]
        if short:
            return short
        for subject, letting in admitted:
            self._states[subject] = letting.state
        for block in blocks:
            self._budgets.take(block, tokens)
        seconds = tuple([(subject, letting.second) for subject, letting in admitted])
        return Permit(tokens, seconds, tuple(blocks), self.fields(parties))

    def _admit(self, party: LimitedSubject, tokens: int, now: float) -> Admission | Refusal:
        return admit(self._share(party), self._state(party, now), tokens, now)

    def _share(self, party: LimitedSubject) -> Limits:
        return share(party.limits, *self._servers())

    def _state(self, party: LimitedSubject, now: float) -> RecentUsage:
        state = self._states.get(party.subject)
        if state is not None:
            return state
        window = SlidingWindow()
        if self._began is not None:
            at, began = self._began
            if now - began > MINUTE + 1:
                self._began = None
            elif party.since is None or party.since < at:
                window = full(self._share(party), began)
        return RecentUsage(window)

    def _spent(self, block: BudgetBlock, tokens: int) -> Refusal:
        """Why a budget does not suffice: what is under way may give back in a moment, else the period must end."""
        waits = self._budgets.remaining(block) + block.promised >= tokens and block.promised
        after = SOON if waits else period_ends_in(block.kind, self._now())
        return Refusal(block.kind, block.limit, after if max(tokens, 1) <= block.limit else None)

    def _refusal(self, party: LimitedSubject, refusal: Refusal, tokens: int) -> LimitReached:
        self._traffic.refuse(party.what, refusal.kind.value)
        kind, code = _TYPES[refusal.kind]
        if refusal.retry_after is not None and refusal.kind in _OF_A_MINUTE:
            # The last second of the minute is not waited for: stock clients give up on more than a minute.
            refusal = attrs.evolve(refusal, retry_after=min(refusal.retry_after, _LONG))
        return LimitReached(_sentence(party, refusal, tokens), refusal.retry_after, kind=kind, code=code)

    def _look(self, snapshot: Snapshot) -> None:
        """Most commits change nothing of users, keys and models."""
        users, keys, models = snapshot.users, snapshot.api_keys, snapshot.models
        if all(map(is_, self._tables, (users, keys, models))):
            return
        self._parties = (
            _limited(keys, "key", lambda key: "this API key"),
            _limited(users, "user", lambda user: f"the account '{user.username}'"),
            _limited(models, "model", lambda model: f"the model '{model.name}'"),
        )
        self._any = any(self._parties)
        self._tables = (users, keys, models)
        subjects = {party.subject for found in self._parties for party in found.values()}
        for subject in [key for key, state in self._states.items() if key not in subjects]:
            if not self._states[subject].under_way:
                del self._states[subject]

    def __repr__(self) -> str:
        limited = sum(map(len, self._parties))
        return f"<Limiter: {limited} limited, {self.under_way} of their requests under way>"


def should_retry(error: LimitReached) -> bool:
    """Whether a client had better wait and ask again, rather than tell its user."""
    return error.retry_after is not None and error.retry_after <= _LONG


def _limited(records: Mapping[int, R], what: str, words: Callable[[R], str]) -> Mapping[int, LimitedSubject]:
    return {
        key: LimitedSubject(f"{what}:{key}", what, words(record), record.limits, record.created_at)
        for key, record in records.items()
        if record.limits is not None and record.limits != Limits()
    }


def _sentence(party: LimitedSubject, refusal: Refusal, tokens: int) -> str:
    who, limit = party.words, refusal.limit
    wait = "" if refusal.retry_after is None else f"try again in {math.ceil(refusal.retry_after)} s"
    if refusal.kind is LimitKind.REQUESTS:
        return _said(f"{who} may make {limit} requests a minute", wait)
    if refusal.kind is LimitKind.CONCURRENT:
        return _said(f"{who} may have {limit} requests under way at once", wait)
    span = {LimitKind.TOKENS: "a minute", LimitKind.DAY: "a day", LimitKind.MONTH: "a month"}[refusal.kind]
    less = "send a smaller max_tokens or a shorter prompt"
    advice = f"{wait}, or {less}" if wait else less
    return _said(
        f"{who} may use {limit} tokens {span}, and fewer are left than the {tokens} that this request may use",
        advice,
    )


def _said(reason: str, advice: str) -> str:
    sentence = reason[0].upper() + reason[1:]
    return f"{sentence}: {advice}" if advice else sentence


def _fields(name: bytes, lefts: Sequence[_RemainingQuota]) -> Fields:
    if not lefts:
        return []
    least = min(lefts, key=lambda one: (one.left, -one.reset))
    return [
        (b"x-ratelimit-limit-" + name, b"%d" % least.limit),
        (b"x-ratelimit-remaining-" + name, b"%d" % least.left),
        (b"x-ratelimit-reset-" + name, _duration(least.reset).encode()),
    ]


def _duration(seconds: float) -> str:
    """As OpenAI writes it: ``120ms``, ``7s``, ``6m0s``, ``23h59m59s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
