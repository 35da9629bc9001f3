"""What a server notes of requests in memory and stores soon after: budgets, usage, audit, the use of keys, limits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import attrs
import trio

from gpustack.cli.daemon.context import utc_now
from gpustack.config.options import Options
from gpustack.gateway.limiter import Limiter
from gpustack.metrics.traffic import Traffic
from gpustack.nursery.tier import Tier
from gpustack.server.audit_trail import AuditTrail
from gpustack.server.key_use import KeyUseLedger
from gpustack.server.token_budget import TokenBudgets
from gpustack.server.usage_ledger import UsageLedger
from gpustack.store.store import Store


@attrs.frozen(kw_only=True)
class Accounting:
    """Services that write to the store last, so they run in its tier and end before it."""

    traffic: Traffic
    """Requests as the exporter counts them; it is not stored."""
    budgets: TokenBudgets
    usage: UsageLedger
    trail: AuditTrail
    key_use: KeyUseLedger
    limiter: Limiter

    @classmethod
    def of(cls, options: Options, store: Store, share: Callable[[], tuple[int, int]]) -> Accounting:
        """``share`` tells how many servers let requests in, and which of them this is, from 0."""
        traffic, budgets = Traffic(), TokenBudgets(store, utc_now, trio.current_time)
        days = options.audit_retention_days
        return cls(
            traffic=traffic,
            budgets=budgets,
            usage=UsageLedger(store, utc_now, options.data_dir / "usage"),
            trail=AuditTrail(
                store,
                utc_now,
                trio.current_time,
                options.data_dir / "audit",
                timedelta(days=days) if days else None,
            ),
            key_use=KeyUseLedger(store, utc_now),
            limiter=Limiter(
                store,
                budgets,
                traffic,
                utc_now,
                trio.current_time,
                servers=share,
                file=options.data_dir / "limits.json",
            ),
        )

    async def start(self, state: Tier) -> None:
        """Run them in the tier of the store."""
        for service in (self.budgets, self.usage, self.trail, self.key_use, self.limiter):
            await state.start(service)

    async def give_up(self) -> None:
        """Store what is noted; from now on nothing is written to the store here, for the next daemon has it."""
        self.limiter.give_up()
        await self.usage.give_up()
        await self.trail.flush()
        await self.budgets.give_up()
        await self.key_use.give_up()
