"""A request that is let in, and what has come of it so far."""

from __future__ import annotations

import attrs

from gpustack.domain.access import Principal
from gpustack.domain.route import Route
from gpustack.gateway.ask import Ask
from gpustack.gateway.bound import Bound
from gpustack.gateway.limiter import Permit
from gpustack.gateway.route import InferenceRoute
from gpustack.gateway.tally import Tally
from gpustack.http1.exchange import Exchange
from gpustack.http1.fields import Headers
from gpustack.metrics.traffic import Passage
from gpustack.server.memory import MemoryHold


@attrs.define(eq=False)
class AdmittedRequest:
    """Filled in on its way: by whoever asks replicas, and by whoever passes the answer on."""

    exchange: Exchange
    route: InferenceRoute
    principal: Principal
    ask: Ask
    headers: Headers
    model: Route
    passage: Passage
    hold: MemoryHold
    tried: set[int] = attrs.field(factory=set)
    runs: int = 0
    """How often an engine may have begun to work on it."""
    tally: Tally | None = None
    failed: bool = False
    permit: Permit | None = None
    """Where it is limited."""
    bound: Bound = Bound(0, 0)
