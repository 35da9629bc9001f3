"""The OpenAPI 3.1 document, made of the routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gpustack.domain.access import Role
from gpustack.domain.error_format import ErrorFormat, error_format_of
from gpustack.identity.sessions import COOKIE

from .context import RouteDescription, Version
from .route import ApiRoute
from .shape import Array, Components, Document, Integer, QueryParameter, Schema, Text
from .view import View

_PLACEHOLDER = re.compile(r"{(\w+)}")

_MANAGEMENT_ERROR = Document(
    name="Error",
    fields={"code": Integer(), "reason": Text(), "message": Text()},
    note="What went wrong, in one sentence.",
)
_OPENAI_ERROR = Document(
    name="OpenAIError",
    fields={
        "error": Document(
            name="OpenAIErrorBody", fields={"message": Text(), "code": Integer(), "type": Text()}
        )
    },
    note="What went wrong, in the form OpenAI's clients read.",
)
_ANTHROPIC_ERROR = Document(
    name="AnthropicError",
    fields={
        "type": Text(),
        "error": Document(name="AnthropicErrorBody", fields={"type": Text(), "message": Text()}),
    },
    note="What went wrong, in the form Anthropic's clients read.",
)
_SHARED_ERROR = Document(
    name="ModelsError",
    fields={**_MANAGEMENT_ERROR.fields, **_OPENAI_ERROR.fields},
    note="What went wrong, for our clients and for OpenAI's.",
)
_ERRORS = {
    ErrorFormat.MANAGEMENT: _MANAGEMENT_ERROR,
    ErrorFormat.SHARED: _SHARED_ERROR,
    ErrorFormat.OPENAI: _OPENAI_ERROR,
    ErrorFormat.ANTHROPIC: _ANTHROPIC_ERROR,
}
_PAGINATION = Document(
    name="Pagination",
    fields={"page": Integer(), "perPage": Integer(), "total": Integer(), "totalPage": Integer()},
)

_SECURITY: dict[str, Schema] = {
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key: gpustack_<16 hex digits>_<32 hex digits>. X-API-Key takes it too.",
    },
    "password": {"type": "http", "scheme": "basic", "description": "User name and password."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "Given by /auth/login. Requests that change something need a same-origin Origin header.",
    },
    "workerCredential": {
        "type": "http",
        "scheme": "bearer",
        "description": "What a worker got when it joined.",
    },
    "clusterToken": {"type": "http", "scheme": "bearer", "description": "The token with which workers join."},
}


def openapi(
    routes: Iterable[ApiRoute], inference: Sequence[RouteDescription], version: Version
) -> dict[str, Any]:
    """The document for all routes that are not hidden, and the routes of the gateway."""
    components: Components = {}
    errors = {error_format: document.schema(components) for error_format, document in _ERRORS.items()}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not route.hidden:
            error = errors[error_format_of(route.path)]
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components, error)
    for one in inference:
        paths.setdefault(one.path, {})["post"] = _inference(one, errors[one.error_format])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "GPUStack",
            "version": version.version,
            "description": "Management API and OpenAI-compatible inference of a GPUStack cluster.",
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(components.items())), "securitySchemes": _SECURITY},
    }


def _operation(route: ApiRoute, components: Components, error: Schema) -> Schema:
    made: Schema = {
        "operationId": operation_id(route.method, route.path),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": {"200": _answer(route, components), "default": _error(error)},
        "security": _security(route),
    }
    parameters = [_path_parameter(name) for name in _PLACEHOLDER.findall(route.path)]
    parameters += [_query_parameter(one, components) for one in route.query]
    if parameters:
        made["parameters"] = parameters
    if route.body is not None:
        content = {route.body_type: {"schema": route.body.schema(components)}}
        if route.body_type != "application/json":
            content["application/json"] = content[route.body_type]
        made["requestBody"] = {"required": True, "content": content}
    return made


def operation_id(method: str, path: str) -> str:
    """A unique name of a route."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", path) if word]
    return "_".join([method.lower(), *words])


def _answer(route: ApiRoute, components: Components) -> Schema:
    if route.answer_type != "application/json":
        # Tools judge each event of a stream by the schema, as an object.
        text: Schema = {} if route.answer_type == "text/event-stream" else {"type": "string"}
        if isinstance(route.answer, Document):
            text["x-documents"] = route.answer.schema(components)
        return {"description": "OK", "content": {route.answer_type: {"schema": text}}}
    if route.answer is None:
        return {"description": "OK", "content": {"application/json": {"schema": {}}}}
    shape = route.answer.schema if isinstance(route.answer, View) else route.answer
    if isinstance(shape, Document) and route.listed:
        page = Document(
            name=f"{shape.name}List", fields={"items": Array(shape), "pagination": _PAGINATION}
        ).schema(components)
        content: Schema = {"application/json": {"schema": page}}
        if any(one.name == "watch" for one in route.query):
            content["text/event-stream"] = {"schema": {"type": "string"}}
        return {"description": "OK", "content": content}
    return {"description": "OK", "content": {"application/json": {"schema": shape.schema(components)}}}


def _error(schema: Schema) -> Schema:
    return {"description": "What went wrong", "content": {"application/json": {"schema": schema}}}


def _security(route: ApiRoute) -> list[dict[str, list[str]]]:
    allow = route.allow or frozenset()
    names = []
    if allow & {Role.ADMIN, Role.USER}:
        names += ["apiKey", "password", "session"]
    if Role.WORKER in allow:
        names.append("workerCredential")
    if Role.JOINER in allow:
        names.append("clusterToken")
    # An empty requirement means no credentials: public models are for anybody.
    needs: list[dict[str, list[str]]] = [{name: []} for name in names]
    return [{}, *needs] if Role.ANYBODY in allow else needs


def _path_parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameter(parameter: QueryParameter, components: Components) -> Schema:
    schema = parameter.shape.schema(components)
    made: Schema = {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "schema": {"type": "array", "items": schema} if parameter.many else schema,
    }
    if parameter.note:
        made["description"] = parameter.note
    return made


def _inference(route: RouteDescription, error: Schema) -> Schema:
    kind = "multipart/form-data" if route.form else "application/json"
    content: Schema = {kind: {"schema": {"type": "object"}}}
    return {
        "operationId": operation_id("post", route.path),
        "summary": route.summary,
        "tags": ["inference"],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "What the engine answers",
                "content": {"application/json": {"schema": {}}, "text/event-stream": {"schema": {}}},
            },
            "default": _error(error),
        },
        "security": [{}, {"apiKey": []}, {"password": []}, {"session": []}],
    }
