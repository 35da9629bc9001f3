"""What the API is given: everyone it calls, and the rules it keeps."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol

import attrs

from gpustack.domain.access import Session, UserSource
from gpustack.domain.error_format import ErrorFormat
from gpustack.domain.worker import Worker
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.identity.person import AttributeNames
from gpustack.metrics.mapping_file import MetricMapFile
from gpustack.server.audit_trail import AuditTrail
from gpustack.server.catalog import Catalog
from gpustack.server.cluster_load import LoadHistory
from gpustack.server.credential import LIFETIME
from gpustack.server.evaluation import Evaluator
from gpustack.server.facts import FactsCache
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.join import CloneDetector
from gpustack.server.memory_budget import MemoryBudget
from gpustack.server.token_budget import TokenBudgets
from gpustack.server.update_check import UpdateCheck
from gpustack.store.server_registry import RegisteredServer
from gpustack.store.store import Store

from .pace import AddressRateLimiter
from .throttle import LoginThrottle
from .watch import ChangeDocumentCache
from .wire import RenderContext


class LogStream(Protocol):
    """What a worker answers when asked for a log: bytes as they come."""

    def __aiter__(self) -> Any: ...


class LogSource(Protocol):
    """How the server asks a worker for the logs of an instance; raises ``Unavailable`` when it cannot."""

    def logs(
        self, worker: Worker, instance_id: int, *, tail: int, follow: bool, previous: bool
    ) -> AbstractAsyncContextManager[LogStream]: ...


class RouteDescription(Protocol):
    """A route of the gateway, as the document lists it."""

    @property
    def path(self) -> str: ...
    @property
    def operation(self) -> Any: ...
    @property
    def summary(self) -> str: ...
    @property
    def form(self) -> bool: ...
    @property
    def dialect(self) -> ErrorFormat: ...


@attrs.frozen(kw_only=True)
class AccessRules:
    """How strictly callers are looked at."""

    force_auth_localhost: bool = False
    local_admins: frozenset[int] = frozenset()
    """Users of this machine, by number, whose programs are an administrator's without a key."""
    tls: bool = False
    """The front speaks TLS: cookies are marked Secure."""
    session_minutes: int = 120
    trusted_origins: frozenset[str] = frozenset()
    """Origins whose pages may act with the login of who visits them."""


class IdentityProvider(Protocol):
    """Another party that proves who people are."""

    @property
    def source(self) -> UserSource: ...

    def logout_url(self, session: Session) -> str | None:
        """Where a browser ends that login at the party too, if it can."""
        ...


@attrs.frozen(kw_only=True)
class SignOn:
    """Which other party proves who people are, if any, and what is made of what it tells."""

    party: IdentityProvider | None = None
    naming: AttributeNames = AttributeNames()
    admin_groups: frozenset[str] | None = None
    """Who is in one of these is an administrator, and nobody else that signs in so; ``None``: roles are given here."""


@attrs.frozen(kw_only=True)
class Version:
    """What this program is."""

    version: str = "0.0.0"
    git_commit: str = ""


@attrs.frozen(kw_only=True)
class HubAccess:
    """The hub that models come from, and what we show there; ``endpoint`` is ``None`` for the public one."""

    endpoint: str | None = None
    token: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class ApiContext:
    """Handed to every route. ``clock`` is the wall clock, ``monotonic`` the one of the leases."""

    store: Store
    keys: DerivedKeys
    cluster_token: str = attrs.field(repr=False)
    leases: HeartbeatTimes
    link: LogSource
    twins: CloneDetector | None = None
    """Refuses machines with the identity of another one that is there."""
    facts: FactsCache | None = None
    rules: AccessRules = AccessRules()
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    rng: random.Random
    draw_tasks: Callable[[], Any] = dict
    readiness: Callable[[], tuple[bool, Mapping[str, str]]] = lambda: (True, {})
    docs: bool = True
    version: Version = Version()
    sign_on: SignOn = SignOn()
    heartbeat_interval: float = 15.0
    credential_lifetime: timedelta = LIFETIME
    """After which a worker is given another."""
    stalled_after: float = 30.0
    """Seconds after which a client that takes nothing of its answer is given up."""
    servers: Callable[[], Sequence[RegisteredServer]] = lambda: ()
    """All servers of the cluster."""
    reached_at: Callable[[], Sequence[str]] = lambda: ()
    """Where workers may turn to when this server does not answer."""
    metrics: MetricMapFile | None = None
    load: LoadHistory | None = None
    budgets: TokenBudgets | None = None
    """What this server has drawn of budgets; without it only what is written down is known."""
    catalog: Catalog | None = None
    updates: UpdateCheck | None = None
    hub: HubAccess = HubAccess()
    evaluator: Evaluator | None = None
    inference_routes: Sequence[RouteDescription] = ()
    key_used: Callable[[int], None] = lambda key_id: None
    """Told of every API key that lets somebody in."""
    login_limiter: LoginThrottle = attrs.field(
        default=attrs.Factory(lambda self: LoginThrottle(self.monotonic), takes_self=True)
    )
    sign_in_pace: AddressRateLimiter = attrs.field(
        default=attrs.Factory(lambda self: AddressRateLimiter(self.monotonic), takes_self=True)
    )
    answer_pace: AddressRateLimiter = attrs.field(
        default=attrs.Factory(lambda self: AddressRateLimiter(self.monotonic), takes_self=True)
    )
    """Of the answers that are looked at: a refused one leaves its login under way."""

    trail: AuditTrail = attrs.field(
        default=attrs.Factory(
            lambda self: AuditTrail(self.store, self.clock, self.monotonic), takes_self=True
        )
    )
    memory: MemoryBudget = attrs.field(factory=MemoryBudget.for_management)
    """What is kept in memory for requests that are no inference."""
    printed: ChangeDocumentCache = attrs.field(factory=ChangeDocumentCache)

    def look(self) -> RenderContext:
        """The present snapshot, as views read it."""
        return RenderContext(self.store.snapshot, self._heard)

    def _heard(self, worker_id: int) -> datetime | None:
        last = self.leases.last_heard(worker_id)
        return None if last is None else self.clock() - timedelta(seconds=self.monotonic() - last)
