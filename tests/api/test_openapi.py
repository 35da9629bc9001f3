"""The OpenAPI document says what the application does: no route more or less, no answer of another form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gpustack.api.console_pages import CONSOLE_ROUTES
from gpustack.api.context import Version
from gpustack.api.openapi import openapi
from gpustack.api.resource import all_routes
from gpustack.api.v2.face import v2_routes
from gpustack.gateway.path import INFERENCE_PATHS

from .world import PASSWORD, TOKEN, World

DOCUMENT = openapi(all_routes(), INFERENCE_PATHS, Version(version="1.2.3"))
METHODS = {"get", "put", "post", "delete"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    named = {reference.removeprefix("#/components/schemas/") for reference in references(DOCUMENT)}
    assert named == set(schemas)
    assert all(schemas.values())


def test_it_has_the_form_of_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == "1.2.3"
    for method, path, operation in operations():
        assert method in METHODS
        assert operation["summary"]
        assert operation["responses"]["200"]["description"]
        placeholders = set(re.findall(r"{(\w+)}", path))
        given = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
        assert placeholders == given
        assert method != "get" or "requestBody" not in operation


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))


def test_each_security_requirement_is_defined() -> None:
    schemes = set(DOCUMENT["components"]["securitySchemes"])
    used = {name for _, _, operation in operations() for need in operation["security"] for name in need}
    assert used == schemes


def test_what_anybody_may_ask_needs_nothing_shown() -> None:
    open_to_all = {(method, path) for method, path, one in operations() if {} in one["security"]}
    names = ("/v1/models", "/v1-openai/models", "/v1/voices", "/v1/models/{id}", "/v1-openai/models/{name}")
    models = {("get", path) for path in names}
    assert open_to_all == models | {("post", route.path) for route in INFERENCE_PATHS}


async def test_the_document_has_every_route_of_the_application_and_no_other(world: World) -> None:
    hidden = {(route.method, route.path) for route in all_routes() if route.hidden}
    console = {route.path for route in CONSOLE_ROUTES}
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in world.app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in {"HEAD", "OPTIONS"}
    }
    faces = {(route.method, route.path) for route in v2_routes(all_routes())}
    inference = {("POST", route.path) for route in INFERENCE_PATHS}
    documented = {(method.upper(), path) for method, path, _ in operations()}
    assert documented == (served - hidden - faces) | inference
    assert {path for _, path in hidden} - console == {
        "/",
        "/auth/oidc/login",
        "/auth/saml/callback",
        "/auth/saml/finish",
        "/auth/saml/login",
        "/auth/saml/metadata",
        "/auth/oidc/callback",
        "/debug/tasks",
        "/debug/log_level",
        "/openapi.json",
        "/docs",
        "/redoc",
        "/docs/assets/{name}",
        "/guide/",
        "/guide/{name}",
    }


async def test_the_application_serves_it_to_anybody(world: World) -> None:
    served = world.rebuilt(inference_routes=INFERENCE_PATHS)
    answer = await served.ask("GET", "/openapi.json")
    assert answer.status_code == 200
    assert answer.json() == DOCUMENT


def properties(schema: dict[str, Any]) -> set[str]:
    name = schema["$ref"].removeprefix("#/components/schemas/")
    return set(DOCUMENT["components"]["schemas"][name]["properties"])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/users",
        "/v1/api-keys",
        "/v1/models",
        "/v1/workers",
        "/v1/gpu-devices",
        "/v1/model-instances",
        "/v1/model-files",
    ],
)
async def test_lists_answer_exactly_the_fields_that_are_documented(world: World, path: str) -> None:
    worker, _ = await world.worker("node")
    await world.instance(await world.model("m"), "m-1", worker)
    body = {"worker_id": worker.id, "source": "local_path", "local_path": "/x.gguf"}
    await world.ask("POST", "/v1/model-files", world.admin, json=body)
    item = (await world.get(path))["items"][0]
    page = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    name = page["$ref"].removeprefix("#/components/schemas/")
    listed = DOCUMENT["components"]["schemas"][name]["properties"]["items"]["items"]
    assert set(item) == properties(listed)


@pytest.mark.parametrize(
    ("path", "bearer", "body"),
    [
        ("/v1/users", None, {"username": "x", "password": PASSWORD}),
        ("/v1/api-keys", None, {"name": "x"}),
        ("/v1/models", None, {"name": "x", "source": "local_path", "local_path": "/x.gguf"}),
        ("/v1/workers", TOKEN, {"name": "x", "worker_uuid": "u"}),
    ],
)
async def test_creation_answers_exactly_the_fields_that_are_documented(
    world: World, path: str, bearer: str | None, body: dict[str, Any]
) -> None:
    made = await world.ask("POST", path, bearer or world.admin, json=body)
    assert made.status_code == 200, made.text
    content = DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"]
    assert set(made.json()) == properties(content["application/json"]["schema"])
