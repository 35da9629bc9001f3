"""Our routes once more under ``/v2``, for clients of GPUStack 2.x: the same handlers, with requests and answers
translated by the tables in ``resources/``, and every answer naming what it ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import attrs
import orjson

from gpustack.domain.access import Role
from gpustack.plugins import siblings

from ..body_stream import BodyStream
from ..context import ApiContext
from ..request import Query
from ..route import ApiCall, ApiResponse, ApiRoute, read_json, read_value
from ..shape import AttrsObject, Document, JsonShape
from ..view import View, dumps
from ..watch import ascii_json
from .cluster import check_cluster
from .translation import Reading, Translation

PREFIX = "/v2"
IGNORED = "X-GPUStack-Ignored"
"""The header of an answer that names what of the request had no meaning here."""
_OURS = "/v1/"
_ORGANIZATION = b"x-organization-id"
_SORTS = ("sort_by", "sortBy")
_SIZES = ("page_size", "per_page")

Parameter = Callable[[str, Reading], Iterable[tuple[str, str]]]
"""Makes of a parameter of theirs those of ours that mean the same."""


@attrs.frozen(kw_only=True)
class Face:
    """How the routes below one path of ours look under ``/v2``."""

    path: str
    """Ours, such as ``/v1/models``."""
    translation: Translation = Translation()
    views: tuple[str, ...] = ()
    """The names of the schemas of documents that ``translation`` shows, whatever the path that answers them."""
    parameters: Mapping[str, Parameter] = attrs.field(factory=dict)


_AS_WRITTEN = Face(path=PREFIX)
"""For routes that are written for ``/v2``."""
_NONE = Translation()
_ENVELOPE = ("items", "pagination")
"""The keys of a list; further ones, which ours have for OpenAI's clients, are left out."""


def v2_routes(routes: Sequence[ApiRoute]) -> tuple[ApiRoute, ...]:
    """The routes under ``/v2``: those that the resource files write themselves, then ours (``routes``) translated."""
    modules = siblings("gpustack.api.v2.resources")
    faces = [face for module in modules for face in getattr(module, "FACES", ())]
    faces.sort(key=lambda face: -len(face.path))  # the nearest to a path has it
    shows = {name: face.translation for face in faces for name in face.views}
    made: dict[tuple[str, str], ApiRoute] = {}
    for module in modules:
        for route in getattr(module, "ROUTES", ()):
            made[route.method, route.path] = _TranslatedRoute(_AS_WRITTEN, route, shows).route
    for face in faces:
        for route in routes:
            if _is_below(route.path, face.path) and _is_for_people(route):
                translated = _TranslatedRoute(face, route, shows).route
                made.setdefault((translated.method, translated.path), translated)
    return tuple(made.values())


def _is_below(path: str, face: str) -> bool:
    return path == face or path.startswith(face + "/")


def _is_for_people(route: ApiRoute) -> bool:
    """What only workers call is the protocol of our own workers."""
    return route.allow is None or bool(route.allow & {Role.ADMIN, Role.USER})


@attrs.frozen
class _TranslatedRoute:
    """One route of ours as it is under ``/v2``: who may call it, and what the audit trail says of it, stay."""

    face: Face
    ours: ApiRoute
    shows: Mapping[str, Translation]

    @property
    def route(self) -> ApiRoute:
        path = self.ours.path
        return attrs.evolve(
            self.ours,
            path=f"{PREFIX}/{path.removeprefix(_OURS)}" if path.startswith(_OURS) else path,
            handler=self.handle,
            reads_body=self.ours.body is not None,
            action=self.ours.audit_action,
            hidden=True,
            tag="v2",
        )

    async def handle(self, call: ApiCall) -> ApiResponse:
        reading = Reading(call.snapshot)
        query = Query(tuple(self._pairs(call.query, reading)))
        document = None if self.ours.body is None else self._read(call.document, self.ours.body, reading)
        asked = attrs.evolve(call, request=attrs.evolve(call.request, query=query), document=document)
        response = self._answer(await self.ours.handler(asked), call.context)
        return _noted(response, reading, call)

    def _pairs(self, query: Query, reading: Reading) -> Iterable[tuple[str, str]]:
        known = {parameter.name for parameter in self.ours.query}
        for name, value in query.pairs:
            if name in self.face.parameters:
                yield from self.face.parameters[name](value, reading)
            elif name == "cluster_id" and name not in known:
                check_cluster(value)
            elif name in _SORTS:
                yield name, self._sortable(value, reading)
            elif name.removesuffix("[]") in known or name in _SIZES:
                yield name, value
            elif value:
                reading.ignore(name)

    def _sortable(self, value: str, reading: Reading) -> str:
        """The fields to sort by without those that only their documents have."""
        kept, theirs = [], self._shows.shown - self._fields()
        for field in value.split(","):
            if field.strip().removeprefix("-") in theirs:
                reading.ignore(f"sort_by={field.strip()}")
            else:
                kept.append(field)
        return ",".join(kept)

    def _fields(self) -> frozenset[str]:
        answer = self.ours.answer
        return frozenset(answer.schema.fields) if isinstance(answer, View) else frozenset()

    def _read(self, raw: bytes, body: JsonShape, reading: Reading) -> Any:
        value = read_json(raw)
        if isinstance(value, dict):
            value = self.face.translation.read(value, _known(body), reading)
        return read_value(value, body)

    def _answer(self, response: ApiResponse, context: ApiContext) -> ApiResponse:
        document, shows = response.document, self._shows
        if response.stream is not None and response.content_type == "text/event-stream":
            return attrs.evolve(response, stream=_TranslatedEvents(response.stream, shows, context))
        if not isinstance(document, dict):
            return response
        snapshot = context.store.snapshot
        if not self.ours.listed:
            return attrs.evolve(response, document=shows.show(document, snapshot))
        page = {key: document[key] for key in _ENVELOPE if key in document}
        page["items"] = [shows.show(item, snapshot) for item in document["items"]]
        return attrs.evolve(response, document=page)

    @property
    def _shows(self) -> Translation:
        """That of the documents that it answers: the instances of a model are instances, whatever the path."""
        answer = self.ours.answer
        schema = answer.schema if isinstance(answer, View) else answer
        return self.shows.get(schema.name, _NONE) if isinstance(schema, Document) else _NONE


def _known(body: JsonShape) -> Mapping[str, Any]:
    if isinstance(body, Document):
        return body.fields
    return {field.name: field for field in attrs.fields(body.cls)} if isinstance(body, AttrsObject) else {}


def _noted(response: ApiResponse, reading: Reading, call: ApiCall) -> ApiResponse:
    if reading.unread:
        told = orjson.loads(dumps(response.document)) if isinstance(response.document, dict) else {}
        for name, value in reading.unread.items():
            if name not in told or told[name] != value:
                reading.ignore(name)
    if call.request.header(_ORGANIZATION):
        reading.ignore("X-Organization-Id")
    if not reading.ignored:
        return response
    return attrs.evolve(response, headers=(*response.headers, (IGNORED, reading.header)))


@attrs.define(eq=False)
class _TranslatedEvents:
    """The events of a watch with their documents translated. A piece of the stream has whole lines."""

    _stream: BodyStream
    _shows: Translation
    _context: ApiContext

    async def __aenter__(self) -> _TranslatedEvents:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object:
        return await self._stream.__aexit__(kind, error, trace)

    def __aiter__(self) -> _TranslatedEvents:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._stream)
        lines = [line for line in piece.split(b"\n") if line]
        return b"".join(map(self._line, lines)) or piece

    def _line(self, line: bytes) -> bytes:
        event = orjson.loads(line)
        data = event.get("data")
        if isinstance(data, dict) and len(data) > 1:  # of what the watcher may not see there is but the id
            event["data"] = self._shows.show(data, self._context.store.snapshot)
        return ascii_json(dumps(event)) + b"\n\n"
