"""Budgets of tokens a day and month: drawn from the store in blocks, spent in memory (drawn in README.md)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

import attrs
import trio

from gpustack.domain.usage import BudgetDraw
from gpustack.errors import GpustackError, Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import Wake
from gpustack.policy.usage_limit import LimitKind, block_size, is_period_over, period_name
from gpustack.server.row_write import write_rows
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

_LOOK_EVERY: Final = 30.0
_IDLE: Final = 60.0
"""Seconds after which the rest of a block that nobody spends is given back: another server may need it."""
_WITHIN: Final = 5.0
"""Seconds a draw may take; then the requests that wait for it fail. What it draws later is forfeit."""
_BACK_WITHIN: Final = 2.0
"""Seconds that a stop waits for giving back."""
_RETRY_AFTER: Final = 2.0


@attrs.define(eq=False)
class BudgetBlock:
    """The tokens that this server has drawn of one budget and not spent. Only ``TokenBudgets`` changes it."""

    subject: str
    kind: LimitKind
    period: str
    limit: int
    left: int = 0
    """Neither spent nor promised; below zero (a debt) where requests used more than they were promised."""
    promised: int = 0
    """To requests under way."""
    row: int | None = None
    touched: float = 0.0


_Row = tuple[str, str]
"""A subject and the period of its budget."""


@attrs.frozen
class _DrawRequest:
    """What to draw of one row: ``wanted`` tokens are needed in all, ``least`` by the smallest request.

    ``debt`` was spent already: it is added whatever the limit.
    """

    subject: str
    period: str
    row: int | None
    limit: int
    wanted: int
    least: int
    debt: int

    @property
    def about(self) -> _Row:
        return self.subject, self.period


@attrs.frozen
class _DrawResult:
    """The tokens drawn, beyond the debt."""

    row: int | None
    tokens: int


@attrs.define(eq=False)
class _PendingDraw:
    """Requests that wait for the next draw of a block (none where only a debt is to be written)."""

    block: BudgetBlock
    needs: list[int] = attrs.field(factory=list)
    answered: trio.Event = attrs.field(factory=trio.Event)
    fault: GpustackError | None = None

    def draw(self) -> _DrawRequest:
        block, needs = self.block, self.needs
        here, debt = max(block.left, 0), max(-block.left, 0)
        wanted, least = (sum(needs) - here, min(needs) - here) if needs else (0, 0)
        return _DrawRequest(
            block.subject, block.period, block.row, block.limit, max(wanted, 0), max(least, 0), debt
        )


@attrs.define(eq=False, repr=False)
class TokenBudgets:
    """Owns the blocks of this server. There is one draw at a time; requests that wait meanwhile share the next one.

    A token is spent only after its block was stored as drawn, so neither a crash nor another server spends it twice.
    What is left of a block at a crash is forfeit. README.md draws it, docs/limits.md has an example in numbers.
    """

    _store: Store
    _now: Callable[[], datetime]
    _monotonic: Callable[[], float]
    _blocks: dict[tuple[str, str], BudgetBlock] = attrs.field(factory=dict)
    _pending: dict[BudgetBlock, _PendingDraw] = attrs.field(factory=dict)
    _indebted: set[BudgetBlock] = attrs.field(factory=set)
    _asked: Wake = attrs.field(factory=Wake)
    _over: bool = False
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("budgets", passing=(Unavailable,)))
    draws: int = 0
    """How many transactions drew."""
    name: str = "budgets"

    def block(self, subject: str, kind: LimitKind, limit: int) -> BudgetBlock:
        """The block of a subject's budget for the present day or month, with the limit as it is now."""
        period = period_name(kind, self._now())
        found = self._blocks.get((subject, period))
        if found is None:
            found = self._blocks[subject, period] = BudgetBlock(subject, kind, period, limit)
        found.limit = limit
        return found

    def spendable(self, block: BudgetBlock) -> int:
        """Tokens of the block that may be promised now: fewer where the limit was lowered below what is drawn."""
        return block.left - max(self._drawn(block) - block.limit, 0)

    def room(self, block: BudgetBlock) -> int:
        """Tokens that no server has drawn yet, by the present snapshot."""
        return max(block.limit - self._drawn(block), 0)

    def remaining(self, block: BudgetBlock) -> int:
        """Tokens that this server could still spend: of its block, and not drawn yet."""
        return max(self.spendable(block) + self.room(block), 0)

    def take(self, block: BudgetBlock, tokens: int) -> None:
        """Promise tokens to a request that begins (its reservation)."""
        block.left -= tokens
        block.promised += tokens
        block.touched = self._monotonic()

    def settle(self, block: BudgetBlock, promised: int, used: int) -> None:
        """A request has ended that was promised ``promised`` tokens and used ``used``. More than promised is a debt."""
        block.promised -= promised
        block.left += promised - used
        if block.left < 0:
            self._indebted.add(block)
            self._asked.wake()

    async def draw(self, short: Sequence[tuple[BudgetBlock, int]]) -> None:
        """Wait for a draw of blocks that are too short for a request; the caller looks again then. Cancellable.

        Raises ``Unavailable`` when nothing could be drawn in time.
        """
        if self._over:
            raise _away()
        pending = []
        for block, need in short:
            waiting = self._pending.get(block)
            if waiting is None:
                waiting = self._pending[block] = _PendingDraw(block)
            waiting.needs.append(need)
            pending.append(waiting)
        self._asked.wake()
        with trio.move_on_after(2 * _WITHIN) as patience:
            for waiting in pending:
                await waiting.answered.wait()
                if waiting.fault is not None:
                    raise _away() from waiting.fault
        if patience.cancelled_caught:
            raise _away()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        looked = self._monotonic()
        try:
            while True:
                await self._asked.wait(_LOOK_EVERY)
                await self._draw_all()
                if self._monotonic() - looked >= _LOOK_EVERY:
                    looked = self._monotonic()
                    await self.tidy()
        finally:
            await self.give_up()

    async def give_up(self) -> None:
        """Give back what is left, then draw nothing any more. What is promised stays drawn.

        Not cancellable, but ends within ``_BACK_WITHIN`` seconds.
        """
        if self._over:
            return
        self._over = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _BACK_WITHIN):
            await self._give_back(list(self._blocks.values()))

    async def tidy(self) -> None:
        """Give back what nobody spends, and delete the rows of periods that are over."""
        now = self._now()
        for key in [key for key, block in self._blocks.items() if period_name(block.kind, now) != key[1]]:
            del self._blocks[key]
        if self._store.failure is not None:
            return
        since = self._monotonic() - _IDLE
        await self._give_back([b for b in self._blocks.values() if b.left > 0 and b.touched < since])
        rows = self._store.snapshot.all(BudgetDraw).values()
        over = [row.id for row in rows if is_period_over(row.period, now)]
        await self._attempt({("over", key): partial(_forget, key) for key in over})

    async def _draw_all(self) -> None:
        asked = self._asked_for()
        if not asked:
            return
        draws = tuple(waiting.draw() for waiting in asked)
        for waiting, draw in zip(asked, draws, strict=True):
            waiting.block.left += draw.debt  # the draw pays it: giving back meanwhile must not pay it again
        fault: GpustackError = Unavailable("The database takes long to answer")
        found: dict[_Row, _DrawResult] = {}
        with trio.move_on_after(_WITHIN):
            try:
                rows = {draw.about: partial(_draw, draw) for draw in draws}
                found = await write_rows(self._store, rows, self._faults)
                fault = Unavailable("This budget cannot be written down now")
            except Unavailable as error:
                fault = error
        self.draws += bool(found)
        for waiting, draw in zip(asked, draws, strict=True):
            drawn = found.get(draw.about)
            if drawn is not None:
                self._take_in(waiting, drawn)
            else:
                log.warning("Nothing could be drawn of a budget: subject=%s reason=%s", draw.subject, fault)
                self._owe(waiting, draw)
                waiting.fault = fault
            waiting.answered.set()

    def _asked_for(self) -> list[_PendingDraw]:
        """The draws that requests wait for, and those of debts that are not stored yet."""
        pending, self._pending = self._pending, {}
        indebted, self._indebted = self._indebted, set()
        for block in indebted:
            if block.left < 0 and block not in pending:
                pending[block] = _PendingDraw(block)
        return list(pending.values())

    def _take_in(self, waiting: _PendingDraw, drawn: _DrawResult) -> None:
        waiting.block.row = drawn.row
        waiting.block.left += drawn.tokens
        waiting.block.touched = self._monotonic()

    def _owe(self, waiting: _PendingDraw, draw: _DrawRequest) -> None:
        """A debt that could not be stored is part of the next draw again."""
        if draw.debt:
            waiting.block.left -= draw.debt
            self._indebted.add(waiting.block)

    async def _give_back(self, blocks: Sequence[BudgetBlock]) -> None:
        back: dict[tuple[str, int], Callable[[Tx], None]] = {}
        for block in blocks:
            if block.left and block.row is not None:
                back["back", block.row] = partial(_return, block.row, block.left)
                block.left = 0  # first: where the outcome of the write is unknown, it is forfeit
        await self._attempt(back)

    async def _attempt(self, rows: Mapping[tuple[str, int], Callable[[Tx], None]]) -> None:
        try:
            await write_rows(self._store, rows, self._faults)
        except Unavailable as error:
            log.warning("Budgets could not be written: reason=%s", error)

    def _drawn(self, block: BudgetBlock) -> int:
        row = self._store.snapshot.get(BudgetDraw, block.row)
        if row is None:
            row = self._store.snapshot.find(BudgetDraw, subject=block.subject, period=block.period)
            block.row = None if row is None else row.id
        return 0 if row is None else row.drawn

    def __repr__(self) -> str:
        left = sum(block.left for block in self._blocks.values())
        return f"<TokenBudgets: {len(self._blocks)} blocks, {left} tokens left in them, {self.draws} draws>"


def _draw(draw: _DrawRequest, tx: Tx) -> _DrawResult:
    row = tx.get(BudgetDraw, draw.row)
    if row is None:
        row = tx.find(BudgetDraw, subject=draw.subject, period=draw.period)
    before = 0 if row is None else row.drawn
    tokens = block_size(max(draw.limit - before - draw.debt, 0), draw.wanted, draw.least)
    after = before + draw.debt + tokens
    if row is None and after:
        row = tx.insert(BudgetDraw(subject=draw.subject, period=draw.period, drawn=after))
    elif row is not None:
        tx.change(BudgetDraw, row.id, drawn=after)  # nothing is written where nothing differs
    return _DrawResult(None if row is None else row.id, tokens)


def _return(key: int, tokens: int, tx: Tx) -> None:
    row = tx.get(BudgetDraw, key)
    if row is not None:
        tx.change(BudgetDraw, key, drawn=max(row.drawn - tokens, 0))


def _forget(key: int, tx: Tx) -> None:
    if tx.get(BudgetDraw, key) is not None:
        tx.delete(BudgetDraw, key)


def _away() -> Unavailable:
    return Unavailable(
        "The database is away, and nothing is left here of the budget of tokens: try again in a moment",
        _RETRY_AFTER,
    )
