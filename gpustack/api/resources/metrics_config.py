"""The mapping of engines' metrics to the names they are shown under: the default, the present one, replacing it."""

from __future__ import annotations

from typing import Any

from gpustack.errors import Unavailable
from gpustack.metrics.mapping import default_map
from gpustack.metrics.mapping_file import MetricMapFile

from ..route import ADMIN, PEOPLE, WORKERS, ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Components, Dictionary, Document, Schema, Text

MAPPING = Document(
    name="MetricsConfig",
    fields={
        "gpustack_metrics": Dictionary(
            Document(name="MappedMetric", fields={"type": Text(), "description": Text()})
        ),
        "runtime_mapping": Dictionary(Dictionary(Dictionary(Text()))),
    },
    note="`gpustack_metrics` names what is shown, with its type (Gauge, Counter, Histogram or Summary). "
    "`runtime_mapping` says for each backend, and version range or `*`, which family of the engine becomes which.",
)


class _MappingBody:
    """Takes any JSON, since ``MetricMapFile`` names the faults; described as what that one accepts."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        return value

    def schema(self, components: Components) -> Schema:
        return MAPPING.schema(components)


def _config(call: ApiCall) -> MetricMapFile:
    if call.context.usage.metrics is None:
        raise Unavailable("This server keeps no mapping of metrics")
    return call.context.usage.metrics


async def _default(call: ApiCall) -> ApiResponse:
    return ApiResponse(document=default_map().document())


async def _get(call: ApiCall) -> ApiResponse:
    return ApiResponse(document=(await _config(call).current()).document())


async def _replace(call: ApiCall) -> ApiResponse:
    await _config(call).replace(call.document)
    return ApiResponse(document={"status": "ok"})


_READERS = PEOPLE | WORKERS

ROUTES = tagged(
    "metrics",
    (
        ApiRoute(
            method="GET",
            path="/v1/metrics/default-config",
            summary="Which metrics of engines are shown under which name, as GPUStack comes",
            handler=_default,
            allow=_READERS,
            answer=MAPPING,
        ),
        ApiRoute(
            method="GET",
            path="/v1/metrics/config",
            summary="Which metrics of engines are shown under which name now",
            handler=_get,
            allow=_READERS,
            answer=MAPPING,
        ),
        ApiRoute(
            method="POST",
            path="/v1/metrics/config",
            summary="Replace the mapping of engines' metrics; an empty object brings the default back",
            handler=_replace,
            allow=ADMIN,
            body=_MappingBody(),
            action="metrics.configure",
            answer=Document(name="Done", fields={"status": Text()}),
        ),
    ),
)
