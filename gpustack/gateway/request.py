"""A request that is let in, and what has come of it so far."""

from __future__ import annotations

import attrs

from gpustack.domain.access import Principal
from gpustack.domain.route import ModelRoute
from gpustack.gateway.inference_request import InferenceRequest
from gpustack.gateway.limiter import Permit
from gpustack.gateway.meter import UsageMeter
from gpustack.gateway.path import InferencePath
from gpustack.gateway.token_bound import TokenBound
from gpustack.http1.exchange import Exchange
from gpustack.http1.fields import Headers
from gpustack.metrics.traffic import RequestMeasurement
from gpustack.server.memory_budget import MemoryReservation


@attrs.define(eq=False)
class AdmittedRequest:
    """Filled in on its way: by whoever asks replicas, and by whoever passes the answer on."""

    exchange: Exchange
    route: InferencePath
    principal: Principal
    ask: InferenceRequest
    headers: Headers
    model: ModelRoute
    passage: RequestMeasurement
    hold: MemoryReservation
    tried: set[int] = attrs.field(factory=set)
    runs: int = 0
    """How often an engine may have begun to work on it."""
    tally: UsageMeter | None = None
    failed: bool = False
    permit: Permit | None = None
    """Where it is limited."""
    bound: TokenBound = TokenBound(0, 0)
