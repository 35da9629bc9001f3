"""The control loops of a server: one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from gpustack.nursery.service import Service
from gpustack.policy.liveness import LivenessSettings
from gpustack.server.facts import FactsSource
from gpustack.server.leases import Leases
from gpustack.server.liveness import Liveness
from gpustack.server.replicas import Replicas
from gpustack.server.scheduler import Scheduler
from gpustack.store.store import Store


def control_services(
    store: Store,
    *,
    facts: FactsSource,
    leases: Leases,
    liveness: LivenessSettings,
    rng: Random,
    monotonic: Callable[[], float],
) -> Sequence[Service]:
    """In the order of starting; they stop the other way round."""
    return (
        facts,
        Liveness(store, leases, liveness, monotonic),
        Scheduler(store, facts),
        Replicas(store, rng),
    )
