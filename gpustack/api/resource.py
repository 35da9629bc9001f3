"""A resource: how records of one class are listed, watched, read and written over HTTP. Its routes follow from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from gpustack.domain.access import KeyScope, Principal, Role
from gpustack.domain.record import Record, table_of
from gpustack.errors import NotFound, Unauthorized
from gpustack.plugins import siblings
from gpustack.policy.access import READING

from .access import guards_of, still_admitted
from .docs_pages import docs_routes
from .listing import ListSelection, PageRange, ordered, page_document, rendered
from .route import ADMIN, ApiCall, ApiResponse, ApiRoute, event_stream, tagged
from .shape import Boolean, Document, Integer, JsonShape, QueryParameter
from .view import Doc, RenderContext, View
from .watch import WatchStream, WatchSubject

Roles = frozenset[Role]
NO_ROLE: Roles = frozenset()

WATCH_PARAMETERS = (
    QueryParameter(
        name="watch", shape=Boolean(), note="Stream the list and then its changes, one JSON document a line."
    ),
    QueryParameter(
        name="sync", shape=Boolean(), note="With watch: mark the end of the replay, and number the events."
    ),
    QueryParameter(
        name="since", shape=Integer(least=0), note="With watch: resume after this revision; 410 when too old."
    ),
)


def _itself(record: Any) -> Sequence[Any]:
    return (record,)


def _by_id(item: Any) -> Any:
    return item.id


def _everything(principal: Principal, item: Any) -> bool:
    return True


@attrs.frozen(kw_only=True)
class Resource:
    """What one kind of record shows. ``<action>_by``: the roles that may do it."""

    path: str
    name: str
    """Singular, as in sentences: "Model instance"."""
    record: type[Record]
    view: View
    list_by: Roles = ADMIN
    list_scopes: frozenset[KeyScope] = READING
    read_by: Roles = ADMIN
    create_by: Roles = ADMIN
    update_by: Roles = ADMIN
    delete_by: Roles = ADMIN
    selection: ListSelection = ListSelection()
    visible: Callable[[Principal, Any], bool] = _everything
    """Whether a caller may see an item. What it may not see does not exist for it."""
    listed: Callable[[ApiCall], Callable[[Any], bool]] | None = None
    """Which items a list shows, depending on the call."""
    list_query: tuple[QueryParameter, ...] = ()
    items: Callable[[Any], Sequence[Any]] = _itself
    """The items that one record shows as in lists."""
    key: Callable[[Any], Any] = _by_id
    find: Callable[[ApiCall], Any] | None = None
    """Finds the item that a path names, where it is not named by the record's id."""
    view_for: Callable[[Principal], View] | None = None
    """The view for a caller, where it differs between callers."""
    page_extra: Callable[[ApiCall], Doc] | None = None
    """Further keys of the list's envelope."""
    create_body: JsonShape | None = None
    create: Callable[[ApiCall], Awaitable[Any]] | None = None
    create_action: str | None = None
    """The action in the audit trail, where it is not ``<name>.create``."""
    created: View | None = None
    """The view of what ``create`` returns, where that is more than the record."""
    update_body: JsonShape | None = None
    update: Callable[[ApiCall, Any], Awaitable[Any]] | None = None
    delete: Callable[[ApiCall, Any], Awaitable[Any]] | None = None
    deleted: JsonShape | None = None
    """The shape of what ``delete`` returns, where that is answered."""
    delete_query: tuple[QueryParameter, ...] = ()
    shows_load: bool = False
    """Its records are workers, of which the loads are shown too: a stream tells those that have changed."""
    routes: tuple[ApiRoute, ...] = ()
    """Further routes."""

    @property
    def tag(self) -> str:
        return self.path.rsplit("/", 1)[1]

    def view_of(self, call: ApiCall) -> View:
        return self.view_for(call.caller) if self.view_for else self.view

    def item(self, call: ApiCall) -> Any:
        """The item that the path names. Raises ``NotFound`` where there is none that the caller may see."""
        found = self.find(call) if self.find else call.snapshot.get(self.record, call.number())
        if found is None or not self.visible(call.caller, found):
            raise NotFound(f"{self.name} {call.request.params['id']} does not exist")
        if isinstance(found, Record):
            call.audit.concerns(found)
        return found

    def respond(self, call: ApiCall, item: Any) -> ApiResponse:
        """The answer that shows the item to the caller."""
        document = self.view_of(call).render(item, call.rendering(), call.context.documents.faults)
        return ApiResponse(document=document)


_Handler = Callable[[Resource, ApiCall], Awaitable[ApiResponse]]


def _word(name: str) -> str:
    """The name within a sentence: API and GPU keep their capitals."""
    return name if name[:2].isupper() else name.lower()


def _a(name: str) -> str:
    word = _word(name)
    return f"{'an' if word[0] in 'AEIOaeio' else 'a'} {word}"


def routes_of(resource: Resource) -> tuple[ApiRoute, ...]:
    """All routes of a resource. Its further ones come first, so that a word in a path wins over an id."""
    made = [*resource.routes]
    one, noun = resource.path + "/{id}", _a(resource.name)

    def add(method: str, path: str, summary: str, handler: _Handler, **more: Any) -> None:
        handle = partial(handler, resource)
        made.append(ApiRoute(method=method, path=path, summary=summary, handler=handle, **more))

    if resource.list_by:
        add(
            "GET",
            resource.path,
            f"List or watch {_word(resource.name)}s",
            list_or_watch,
            allow=resource.list_by,
            scopes=resource.list_scopes,
            query=(*resource.list_query, *resource.selection.parameters, *WATCH_PARAMETERS),
            answer=resource.view,
            listed=True,
        )
    if resource.create:
        add(
            "POST",
            resource.path,
            f"Create {noun}",
            _create,
            allow=resource.create_by,
            body=resource.create_body,
            action=resource.create_action,
            answer=resource.created or resource.view,
        )
    if resource.read_by:
        add("GET", one, f"Read {noun}", _read, allow=resource.read_by, answer=resource.view)
    if resource.update:
        add(
            "PUT",
            one,
            f"Change {noun}; fields that are not sent stay",
            _update,
            about=resource.record,
            allow=resource.update_by,
            body=resource.update_body,
            answer=resource.view,
        )
    if resource.delete:
        add(
            "DELETE",
            one,
            f"Delete {noun}",
            _delete,
            about=resource.record,
            allow=resource.delete_by,
            query=resource.delete_query,
            answer=resource.deleted,
        )
    return tagged(resource.tag, made)


async def list_or_watch(resource: Resource, call: ApiCall) -> ApiResponse:
    """A page, or with ``watch=true`` a stream. Raises ``MalformedRequest``, or ``RevisionExpired``."""
    listed = None if resource.listed is None else resource.listed(call)

    def visible(item: Any) -> bool:
        return (listed is None or listed(item)) and resource.visible(call.caller, item)

    predicate = resource.selection.predicate(call.query, visible)
    if call.query.flag("watch"):
        if call.caller.role is Role.ANYBODY:
            raise Unauthorized  # a stream costs memory: it is for callers who can be told apart
        return _watch(resource, call, predicate)
    page, context, view = PageRange.of(call.query), call.rendering(), resource.view_of(call)
    faults = call.context.documents.faults
    found: list[Any] = []
    for record in context.snapshot.all(resource.record).values():
        with faults.row((view.schema.name, record.id)):
            found += [item for item in resource.items(record) if predicate(item)]
    render = partial(view.render, faults=faults)
    found = await ordered(found, render, context, call.query)
    document = page_document(await rendered(page.cut(found), render, context), page, len(found))
    extra = resource.page_extra(call) if resource.page_extra else {}
    # A watch can continue from here without a gap: ?watch=true&since=<this>.
    revision = (("X-Revision", str(context.snapshot.revision)),)
    return ApiResponse(document={**extra, **document}, headers=revision)


def _watch(resource: Resource, call: ApiCall, predicate: Callable[[Any], bool]) -> ApiResponse:
    view, context = resource.view_of(call), call.context
    since = call.query.whole("since", -1, least=-1)
    stream = WatchStream(
        store=context.store,
        documents=context.documents,
        subject=WatchSubject(
            kind=view.schema.name,
            table=table_of(resource.record),
            items=resource.items,
            key=resource.key,
            document=partial(view.render, faults=context.documents.faults),
            predicate=predicate,
            visible=partial(resource.visible, call.caller),
            live=context.workers.live if resource.shows_load else None,
        ),
        rendering=context.rendering,
        allowed=lambda: still_admitted(context, call.caller),
        guards=guards_of(call.caller),
        numbered=call.query.flag("sync") or since >= 0,
        since=since if since >= 0 else None,
    )
    stream.check()
    return event_stream(stream)


async def _create(resource: Resource, call: ApiCall) -> ApiResponse:
    assert resource.create is not None
    if isinstance(call.document, Mapping) and resource.create_body is not None:
        call.audit.sets(call.document, resource.create_body)
    made = await resource.create(call)
    if resource.created is not None:
        return ApiResponse(document=resource.created.of(made, call.rendering()))
    return resource.respond(call, made)


async def _read(resource: Resource, call: ApiCall) -> ApiResponse:
    return resource.respond(call, resource.item(call))


async def _update(resource: Resource, call: ApiCall) -> ApiResponse:
    assert resource.update is not None
    item = resource.item(call)
    if isinstance(call.document, Mapping) and resource.update_body is not None:
        call.audit.sets(call.document, resource.update_body, resource.view.of(item, call.rendering()))
    return resource.respond(call, await resource.update(call, item))


async def _delete(resource: Resource, call: ApiCall) -> ApiResponse:
    assert resource.delete is not None
    item = resource.item(call)
    result = await resource.delete(call, item)
    return ApiResponse(document=None if resource.deleted is None else result)


def document_view(
    name: str, base: View, extra: dict[str, JsonShape], of: Callable[[Any, RenderContext], Doc]
) -> View:
    """A view with more fields than ``base``."""
    return View(schema=Document(name=name, fields={**base.schema.fields, **extra}), of=of)


def all_routes(*, docs: bool = True) -> tuple[ApiRoute, ...]:
    """Every route of the API. A module of ``resources/`` has a ``RESOURCE``, or ``ROUTES``, or both.

    ``docs``: with the routes that show the OpenAPI document.
    """
    made: list[ApiRoute] = []
    for module in siblings("gpustack.api.resources"):
        if hasattr(module, "RESOURCE"):
            made.extend(routes_of(module.RESOURCE))
        made.extend(getattr(module, "ROUTES", ()))
    return (*made, *docs_routes(made)) if docs else tuple(made)
