"""What the routes work with: the store, and the other parts of the server, grouped by who needs them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import attrs

from gpustack.domain.access import Session, UserSource
from gpustack.domain.error_format import ErrorFormat
from gpustack.domain.launch import LaunchRecord
from gpustack.domain.worker import Worker
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.identity.person import VerifiedIdentity
from gpustack.identity.sign_in import SignInRequest
from gpustack.identity.sign_on_trial import SignOnTrial
from gpustack.metrics.mapping_file import MetricMapFile
from gpustack.policy.placement import GangSettings
from gpustack.server.audit_trail import AuditTrail
from gpustack.server.catalog import Catalog
from gpustack.server.cluster_load import LoadHistory
from gpustack.server.credential import LIFETIME
from gpustack.server.evaluation import Evaluator
from gpustack.server.facts import FactsCache
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.join import CloneDetector
from gpustack.server.live_status import LiveStatus
from gpustack.server.memory_budget import MemoryBudget
from gpustack.server.model_rates import ModelRates
from gpustack.server.ray_dashboard import RayDashboard
from gpustack.server.survival import SurvivalWatch
from gpustack.server.token_budget import TokenBudgets
from gpustack.server.update_check import UpdateCheck
from gpustack.store.server_registry import RegisteredServer
from gpustack.store.store import Store

from .attention_board import AttentionBoard
from .brief import BriefDocuments
from .change_feed import ChangeFeed
from .event_feed import EventFeed
from .status_intake import StatusIntake
from .throttle import LoginLimiters
from .view import RenderContext
from .watch import ChangeDocumentCache


class LogStream(Protocol):
    """A log as a worker sends it: an asynchronous iterator of bytes."""

    def __aiter__(self) -> Any: ...


class LogSource(Protocol):
    """Reads from its worker the log of an instance, and with what its engine was started."""

    async def launch(self, worker: Worker, instance_id: int, member: int = 0) -> LaunchRecord:
        """Raises ``NotFound`` where that is not on record, ``Unavailable`` when the worker does not answer."""
        ...

    def logs(
        self,
        worker: Worker,
        instance_id: int,
        *,
        tail: int,
        follow: bool,
        previous: bool,
        member: int = 0,
    ) -> AbstractAsyncContextManager[LogStream]:
        """Raises ``Unavailable`` on entry when the worker does not answer."""
        ...


class RouteDescription(Protocol):
    """A route of the gateway, as the OpenAPI document lists it."""

    @property
    def path(self) -> str: ...
    @property
    def operation(self) -> Any: ...
    @property
    def summary(self) -> str: ...
    @property
    def form(self) -> bool: ...
    @property
    def error_format(self) -> ErrorFormat: ...


class IdentityProvider(Protocol):
    """The identity provider that people sign in at, whatever its protocol (see ``api/sign_on.py``)."""

    @property
    def source(self) -> UserSource: ...

    async def request(self, rng: random.Random) -> SignInRequest:
        """A new request to sign a person in. Raises ``Unavailable`` while the provider cannot be used."""
        ...

    async def prove(
        self, answer: Mapping[str, str], secret: str, clock: Callable[[], datetime]
    ) -> VerifiedIdentity:
        """Check the fields that the browser brings back; ``secret`` is that of the request.

        Raises ``Forbidden`` or ``BadRequest`` with a sentence for the person, ``Unavailable`` when the provider has to
        be asked and does not answer.
        """
        ...

    def logout_url(self, session: Session) -> str | None:
        """Where a browser ends that login at the provider too; ``None`` where that is not possible."""
        ...


@attrs.frozen(kw_only=True)
class AccessRules:
    """How callers are admitted, as the options say."""

    force_auth_localhost: bool = False
    local_admins: frozenset[int] = frozenset()
    """Ids of the users of this machine whose programs act as an administrator without a key."""
    tls: bool = False
    """The front port speaks TLS: cookies are marked Secure."""
    session_minutes: int = 120
    trusted_origins: frozenset[str] = frozenset()
    """Origins whose pages may act with the login of their visitor."""


@attrs.frozen(kw_only=True)
class AccessControl:
    """What decides about a caller."""

    cluster_token: str = attrs.field(repr=False)
    logins: LoginLimiters
    rules: AccessRules = AccessRules()
    key_used: Callable[[int], None] = lambda key_id: None
    """Called with the id of every API key that admits a request."""


@attrs.frozen(kw_only=True)
class SignOn:
    """The identity provider that people sign in at, if there is one."""

    provider: IdentityProvider | None = None
    admin_groups: frozenset[str] | None = None
    """Members of one of these are administrators, other people who sign in there are not. ``None``: roles are given
    here."""


@attrs.frozen(kw_only=True)
class WorkerServices:
    """What serves workers, and reaches them."""

    heartbeats: HeartbeatTimes
    live: LiveStatus
    logs: LogSource
    intake: StatusIntake = attrs.field(factory=StatusIntake)
    clones: CloneDetector | None = None
    """Refuses a machine that joins with the identity of another one that is reachable."""
    heartbeat_interval: float = 15.0
    """Seconds."""
    credential_lifetime: timedelta = LIFETIME
    """Age from which the credential of a worker is replaced."""
    server_urls: Callable[[], Sequence[str]] = lambda: ()
    """Where workers may turn to when this server does not answer."""


@attrs.frozen(kw_only=True)
class HubAccess:
    """The model hub and our token for it, and ModelScope; an endpoint is ``None`` for the public one."""

    endpoint: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    model_scope: str | None = None


@attrs.frozen(kw_only=True)
class ModelServices:
    """What tells about models before and after they are deployed. ``None``: this server does not run it."""

    facts: FactsCache | None = None
    evaluator: Evaluator | None = None
    catalog: Catalog | None = None
    survival: SurvivalWatch | None = None
    hub: HubAccess = HubAccess()
    gangs: GangSettings = GangSettings()
    silence_allowed: timedelta | None = None
    """How long a worker may be not ready before its instances are placed elsewhere."""


@attrs.frozen(kw_only=True)
class UsageServices:
    """What measures and limits use."""

    load: LoadHistory | None = None
    budgets: TokenBudgets | None = None
    """The budget blocks that this server has drawn; without it only the stored draws are known."""
    metrics: MetricMapFile | None = None
    rates: ModelRates | None = None


@attrs.frozen(kw_only=True)
class Version:
    """Version and commit of this program."""

    version: str = "0.0.0"
    git_commit: str = ""


@attrs.frozen(kw_only=True)
class ServerSetting:
    """A setting as everybody may see it: a secret is masked. ``origin`` is where it was written."""

    name: str
    value: str
    origin: str
    is_default: bool
    is_secret: bool
    group: str
    help: str
    variable: str


async def _no_sign_on(issuer: str | None) -> SignOnTrial:
    return SignOnTrial(kind=None, fault="No identity provider is configured")


@attrs.frozen(kw_only=True)
class ServerDescription:
    """What the server tells of itself."""

    version: Version = Version()
    docs: bool = True
    """Serve the pages of the API documentation."""
    console: Path = Path(__file__).parent / "static" / "console"
    """Where the web console was built; where nothing is, there is none."""
    certificate_ends: Callable[[], datetime | None] = lambda: None
    """When clients refuse the certificate that it shows; ``None`` where it shows none."""
    readiness: Callable[[], tuple[bool, Mapping[str, str]]] = lambda: (True, {})
    """Whether it takes requests, and what each of its parts says."""
    draw_tasks: Callable[[], Any] = dict
    """The tree of tasks, as JSON."""
    updates: UpdateCheck | None = None
    servers: Callable[[], Sequence[RegisteredServer]] = lambda: ()
    """All servers of the cluster."""
    inference_routes: Sequence[RouteDescription] = ()
    settings: Sequence[ServerSetting] = ()
    sign_on_trial: Callable[[str | None], Awaitable[SignOnTrial]] = _no_sign_on
    """Tries the identity provider; with another OIDC issuer, that one."""


@attrs.frozen(kw_only=True)
class TransportLimits:
    """What answers may cost."""

    memory: MemoryBudget = attrs.field(factory=MemoryBudget.for_management)
    """Counts what is kept in memory for requests other than inference."""
    stalled_after: float = 30.0
    """Seconds without the client taking a byte, after which its connection is given up."""


@attrs.frozen(kw_only=True)
class ApiContext:
    """Handed to every route. ``clock`` is the wall clock, ``monotonic`` the clock of the heartbeats, in seconds."""

    store: Store
    keys: DerivedKeys
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    rng: random.Random
    access: AccessControl
    workers: WorkerServices
    sign_on: SignOn = SignOn()
    ray: RayDashboard | None = None
    models: ModelServices = ModelServices()
    usage: UsageServices = UsageServices()
    server: ServerDescription = ServerDescription()
    transport: TransportLimits = attrs.field(factory=TransportLimits)
    trail: AuditTrail = attrs.field(
        default=attrs.Factory(
            lambda self: AuditTrail(self.store, self.clock, self.monotonic), takes_self=True
        )
    )
    documents: ChangeDocumentCache = attrs.field(factory=ChangeDocumentCache)
    attention: AttentionBoard = attrs.field(
        default=attrs.Factory(lambda self: self._board(), takes_self=True), init=False
    )
    events: EventFeed = attrs.field(
        default=attrs.Factory(lambda self: EventFeed(self.store), takes_self=True)
    )
    feed: ChangeFeed = attrs.field(
        default=attrs.Factory(
            lambda self: ChangeFeed(self.store, BriefDocuments(self.workers.live, self.documents.faults)),
            takes_self=True,
        )
    )

    def _board(self) -> AttentionBoard:
        return AttentionBoard(
            self.store,
            self.models.facts,
            self.models.gangs,
            self.models.silence_allowed,
            self.models.survival,
            self.server.updates,
            self.server.version.version,
            self.server.certificate_ends,
            self.clock,
        )

    def rendering(self) -> RenderContext:
        """The present snapshot, for views."""
        return RenderContext(
            self.store.snapshot,
            self._heard,
            self.workers.live.of,
            self.models.gangs.ray,
            self.models.silence_allowed,
        )

    def _heard(self, worker_id: int) -> datetime | None:
        last = self.workers.heartbeats.last_heard(worker_id)
        return None if last is None else self.clock() - timedelta(seconds=self.monotonic() - last)
