"""Enforces the limits of keys, users and models: reserves what a request may use, settles when it has ended."""

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
from gpustack.http1.fields import Fields
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
"""Seconds: for longer than that clients of OpenAI do not wait, but ask again and again."""
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
    """An API key, a user or a model with limits."""

    key: str
    """Unique among all subjects, such as ``user:7``: under it budgets and windows are kept."""
    kind: str
    """``key``, ``user`` or ``model``."""
    words: str
    limits: Limits
    since: datetime | None
    """When it was created: it has used nothing before."""

    @property
    def counts_tokens(self) -> bool:
        return self.limits.tokens_per_minute is not None or bool(self.budgets())

    def budgets(self) -> list[tuple[LimitKind, int]]:
        pairs = ((kind, getattr(self.limits, kind.value)) for kind in _BUDGETS)
        return [(kind, limit) for kind, limit in pairs if limit is not None]


@attrs.frozen(eq=False)
class Permit:
    """What was reserved for a request that was let in, and the headers that tell the client what is left."""

    tokens: int
    seconds: tuple[tuple[str, int], ...]
    """The second of the window in which it counts, by subject."""
    blocks: tuple[BudgetBlock, ...]
    fields: Fields


@attrs.frozen
class _RemainingQuota:
    """What is left of one limit, and in how many seconds all of it will be available again."""

    limit: int
    left: int
    reset: float


@attrs.define(eq=False, repr=False)
class Limiter:
    """Owns what limited subjects used within the last minute and have in flight. A service: when it stops it leaves the
    last minute in a file for the next daemon. After a crash it is unknown, and the minute before the start counts as
    used.

    ``_servers`` tells how many servers let requests in, and which of them this is, from 0: each enforces its share.
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
    _subjects: tuple[
        Mapping[int, LimitedSubject], Mapping[int, LimitedSubject], Mapping[int, LimitedSubject]
    ] = ({}, {}, {})
    _any: bool = False
    _states: dict[str, RecentUsage] = attrs.field(factory=dict)
    _began: tuple[datetime, float] | None = None
    """When this server started, by both clocks; set while the minute before that counts as used."""
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
        """Write what was used for the next daemon, and let in no limited request any more."""
        if self._over or self._file is None:
            return
        self._over = True
        windows = {key: state.window for key, state in self._states.items()}
        window_file.save_windows(self._file, windows, self._monotonic(), self._now())

    def _recall(self, path: Path) -> None:
        now = self._monotonic()
        windows = window_file.load_windows(path, now, self._now())
        if windows is None:
            self._began = (self._now(), now)
        else:
            self._states.update((key, RecentUsage(window)) for key, window in windows.items())

    # --- for the gateway

    def of(self, principal: Principal, model: ModelRoute) -> tuple[LimitedSubject, ...]:
        """The key, the user and the model of a request, as far as they have limits. Very cheap where nobody has any."""
        snapshot = self._store.snapshot
        if snapshot is not self._seen:
            self._seen = snapshot
            self._look(snapshot)
        if not self._any:
            return ()
        of_key, of_user, of_model = self._subjects
        found = (
            of_key.get(principal.api_key_id or 0),
            of_user.get(principal.user_id or 0),
            of_model.get(model.model_id),
        )
        return tuple([subject for subject in found if subject is not None])

    def peek(self, subjects: Sequence[LimitedSubject]) -> None:
        """Raise ``LimitReached`` for a request that cannot be let in, however few tokens it may use. Reserves nothing:
        it saves finding out how many tokens those are."""
        now = self._monotonic()
        for subject in subjects:
            limits = attrs.evolve(self._share(subject), tokens_per_minute=None)
            answer = admit(limits, self._state(subject, now), 0, now)
            if isinstance(answer, Refusal):
                raise self._refusal(subject, answer, 0)

    async def enter(self, subjects: Sequence[LimitedSubject], tokens: int) -> Permit:
        """Reserve what a request may use at most, of every subject or of none.

        Raises ``LimitReached``, and ``Unavailable`` while the database cannot be reached and what was drawn is used up.
        """
        while True:
            if self._over:
                raise Unavailable("The server hands over to another: try again in a moment", SOON)
            answer = self._try(subjects, tokens)
            if isinstance(answer, Permit):
                return answer
            await self._budgets.draw([(block, tokens) for block in answer])

    def leave(self, permit: Permit, used: int) -> None:
        """Settle a request that has ended, however it ended: give back what was reserved and not used."""
        for key, second in permit.seconds:
            self._states[key] = ended(self._states[key], second, permit.tokens - used)
        for block in permit.blocks:
            self._budgets.settle(block, permit.tokens, used)

    def fields(self, subjects: Sequence[LimitedSubject]) -> Fields:
        """The headers that tell what is left: of several limits the one that leaves least."""
        now = self._monotonic()
        requests: list[_RemainingQuota] = []
        tokens: list[_RemainingQuota] = []
        for subject in subjects:
            limits, window = self._share(subject), self._state(subject, now).window.at(now)
            reset = window.seconds[-1].at + MINUTE + 1 - now if window.seconds else 0.0
            for found, limit, used in (
                (requests, limits.requests_per_minute, window.requests),
                (tokens, limits.tokens_per_minute, window.tokens),
            ):
                if limit is not None:
                    found.append(_RemainingQuota(limit, max(limit - used, 0), reset))
            for kind, limit in subject.budgets():
                block = self._budgets.block(subject.key, kind, limit)
                tokens.append(
                    _RemainingQuota(limit, self._budgets.remaining(block), period_ends_in(kind, self._now()))
                )
        return [*_fields(b"requests", requests), *_fields(b"tokens", tokens)]

    @property
    def under_way(self) -> int:
        """Requests of limited subjects in flight, counted once for each subject."""
        return sum(state.under_way for state in self._states.values())

    # --- within

    def _try(self, subjects: Sequence[LimitedSubject], tokens: int) -> Permit | list[BudgetBlock]:
        """Reserve in one step, or name the blocks from which more must be drawn first."""
        now = self._monotonic()
        admitted: list[tuple[str, Admission]] = []
        blocks: list[BudgetBlock] = []
        for subject in subjects:
            answer = admit(self._share(subject), self._state(subject, now), tokens, now)
            if isinstance(answer, Refusal):
                raise self._refusal(subject, answer, tokens)
            admitted.append((subject.key, answer))
            for kind, limit in subject.budgets():
                block = self._budgets.block(subject.key, kind, limit)
                if self._budgets.remaining(block) < max(tokens, 1):
                    raise self._refusal(subject, self._spent(block, tokens), tokens)
                blocks.append(block)
        short = [block for block in blocks if self._budgets.spendable(block) < tokens]
        if short:
            return short
        for key, letting in admitted:
            self._states[key] = letting.state
        for block in blocks:
            self._budgets.take(block, tokens)
        seconds = tuple([(key, letting.second) for key, letting in admitted])
        return Permit(tokens, seconds, tuple(blocks), self.fields(subjects))

    def _share(self, subject: LimitedSubject) -> Limits:
        return share(subject.limits, *self._servers())

    def _state(self, subject: LimitedSubject, now: float) -> RecentUsage:
        state = self._states.get(subject.key)
        if state is not None:
            return state
        window = SlidingWindow()
        if self._began is not None:
            at, began = self._began
            if now - began > MINUTE + 1:
                self._began = None
            elif subject.since is None or subject.since < at:
                window = full(self._share(subject), began)
        return RecentUsage(window)

    def _spent(self, block: BudgetBlock, tokens: int) -> Refusal:
        """Why a budget does not suffice. Requests in flight may give back enough soon, else the period must end."""
        waits = self._budgets.remaining(block) + block.promised >= tokens and block.promised
        after = SOON if waits else period_ends_in(block.kind, self._now())
        return Refusal(block.kind, block.limit, after if max(tokens, 1) <= block.limit else None)

    def _refusal(self, subject: LimitedSubject, refusal: Refusal, tokens: int) -> LimitReached:
        self._traffic.refuse(subject.kind, refusal.kind.value)
        kind, code = _TYPES[refusal.kind]
        if refusal.retry_after is not None and refusal.kind in _OF_A_MINUTE:
            # Not more than a minute: stock clients give up if they should wait longer.
            refusal = attrs.evolve(refusal, retry_after=min(refusal.retry_after, _LONG))
        return LimitReached(_sentence(subject, refusal, tokens), refusal.retry_after, kind=kind, code=code)

    def _look(self, snapshot: Snapshot) -> None:
        """Find the limited subjects again, if users, keys or models have changed."""
        users, keys, models = snapshot.users, snapshot.api_keys, snapshot.models
        if all(map(is_, self._tables, (users, keys, models))):
            return
        self._subjects = (
            _limited(keys, "key", lambda key: "this API key"),
            _limited(users, "user", lambda user: f"the account '{user.username}'"),
            _limited(models, "model", lambda model: f"the model '{model.name}'"),
        )
        self._any = any(self._subjects)
        self._tables = (users, keys, models)
        limited = {subject.key for found in self._subjects for subject in found.values()}
        for key in [key for key, state in self._states.items() if key not in limited]:
            if not self._states[key].under_way:
                del self._states[key]

    def __repr__(self) -> str:
        limited = sum(map(len, self._subjects))
        return f"<Limiter: {limited} limited, {self.under_way} of their requests under way>"


def should_retry(error: LimitReached) -> bool:
    """Whether a client should wait and ask again, rather than tell its user."""
    return error.retry_after is not None and error.retry_after <= _LONG


def _limited(records: Mapping[int, R], what: str, words: Callable[[R], str]) -> Mapping[int, LimitedSubject]:
    return {
        key: LimitedSubject(f"{what}:{key}", what, words(record), record.limits, record.created_at)
        for key, record in records.items()
        if record.limits is not None and record.limits != Limits()
    }


def _sentence(subject: LimitedSubject, refusal: Refusal, tokens: int) -> str:
    who, limit = subject.words, refusal.limit
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
