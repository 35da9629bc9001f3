"""What GPUStack 2.x has and this product has not: each answers with the sentence that says what to use instead."""

from __future__ import annotations

import re
from functools import cached_property

import attrs

from gpustack.domain.access import KeyScope
from gpustack.errors import NotFound, NotOffered

from ...route import PEOPLE, ApiCall, ApiResponse, ApiRoute

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_WRITES = METHODS[1:]
_EVERYTHING = ("/v2/{rest}", "/model/proxy/{rest}")


@attrs.frozen(slots=False)
class Absence:
    """A path of theirs, and all below it, that answers 501 to these methods where nothing else answers."""

    path: str
    sentence: str
    methods: tuple[str, ...] = METHODS

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(self.path)) + "(/.*)?")


_JOIN = "Workers join with gpustack start --server-url URL and the token of the cluster, not by a request of this API"
_ONE_CLUSTER = "This server is one cluster, which is neither made nor changed here"
_ONE_ORGANIZATION = "There are no organizations or groups here: access is given to accounts"
_ROUTE = "A route is made and removed with its model"
_FILES = "Catalogs and backends are files of this installation"
_NO_BENCHMARKS = "The server runs no benchmarks"
_NO_EXPORT = "Usage is not written as a file here: POST /v2/usage/breakdown has it as JSON"

ABSENCES = (
    Absence("/v2/clusters/{id}/registration-token", _JOIN),
    Absence("/v2/clusters/{id}/manifests", _JOIN),
    Absence("/v2/clusters", _ONE_CLUSTER, _WRITES),
    Absence("/v2/workers/labels", "Set the labels of one worker at a time: PUT /v2/workers/{id}"),
    Absence("/v2/workers", _JOIN, ("POST",)),
    Absence("/v2/worker-heartbeat", _JOIN),
    Absence("/v2/worker-status", _JOIN),
    Absence(
        "/v2/worker-pools", "No machines are made here: a worker is a machine on which GPUStack is started"
    ),
    Absence("/v2/cloud-credentials", "No machines are made here, so no credentials of clouds are kept"),
    Absence("/v2/organizations", _ONE_ORGANIZATION),
    Absence("/v2/groups", _ONE_ORGANIZATION),
    Absence("/v2/user-groups", _ONE_ORGANIZATION),
    Absence("/v2/user-directory", "List accounts with GET /v2/users"),
    Absence("/v2/users/me/organizations", _ONE_ORGANIZATION),
    Absence("/v2/users/{id}/memberships", _ONE_ORGANIZATION),
    Absence("/v2/model-providers", "Models of other providers are not routed here"),
    Absence("/v2/model-routes", _ROUTE, ("POST", "DELETE")),
    Absence("/v2/model-route-targets", "A route leads to its own model alone", _WRITES),
    Absence("/v2/models/export", "gpustack export writes deployments as manifests"),
    Absence("/v2/models/import", "gpustack apply makes deployments of manifests"),
    Absence("/v2/models/{id}/restart", "Delete the instances of the model one by one: each is made anew"),
    Absence("/v2/models/{id}/rollback-preview", "gpustack rollback MODEL --dry-run shows it"),
    Absence("/v2/models/{id}/cache-metrics", "There are no shared cache services here"),
    Absence("/v2/model-instances/{id}/logs/download", "Read the log with GET /v2/model-instances/{id}/logs"),
    Absence(
        "/v2/model-instances/{id}/log-options", "A member has one log: GET /v2/model-instances/{id}/logs"
    ),
    Absence("/v2/benchmarks", _NO_BENCHMARKS),
    Absence("/v2/benchmark-profiles", _NO_BENCHMARKS),
    Absence("/v2/cache-services", "There are no shared cache services here"),
    Absence("/v2/draft-models", "A draft model is an option of the engine: write it into backend_parameters"),
    Absence("/v2/gpu-instances", "GPUs are not rented out here"),
    Absence("/v2/pd-modes", "Prefill and decode run in one engine here"),
    Absence("/v2/ota-sources", _FILES),
    Absence("/v2/source-probe", _FILES),
    Absence("/v2/config", "Options are set when the server starts: gpustack config shows them"),
    Absence("/v2/usage/breakdown/export", _NO_EXPORT),
    Absence("/model/proxy", "Send it to the path without /model/proxy/ID, with the model's name in its body"),
    Absence("/v2/resource-events", "What was used is told by POST /v2/usage/breakdown"),
)
"""One row a path; the first that fits is meant."""


async def _refuse(call: ApiCall) -> ApiResponse:
    path, method = call.request.path, call.request.method
    for absence in ABSENCES:
        if method in absence.methods and absence.pattern.fullmatch(path.rstrip("/")):
            raise NotOffered(absence.sentence)
    raise NotFound(f"There is nothing at {path} for {method}")


ROUTES = tuple(
    ApiRoute(
        method=method,
        path=path,
        summary="Say that something of GPUStack 2.x is not here",
        handler=_refuse,
        allow=PEOPLE,
        scopes=frozenset(KeyScope),
        slashes=True,
        action="",
    )
    for path in _EVERYTHING
    for method in METHODS
)
