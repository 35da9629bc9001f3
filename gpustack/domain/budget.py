"""What of a budget has been drawn, so that no crash and no second server spends a token twice."""

from __future__ import annotations

import attrs

from .record import Record, stored


@stored("budget_draws", unique=(("subject", "period"),))
@attrs.frozen(kw_only=True)
class BudgetDraw(Record):
    """How much all servers together have drawn. What was drawn and not used is forfeit after a crash: too little is
    used then, never too much.

    ``subject`` is ``key:<id>``, ``user:<id>`` or ``model:<id>``; ``period`` a day (``2026-11-28``) or month
    (``2026-11``) of UTC.
    """

    subject: str
    period: str
    drawn: int = 0
