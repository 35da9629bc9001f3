"""Reads GPUStack 0.7 or 2.x over its API, with a key of an administrator."""

from __future__ import annotations

from typing import Any

from gpustack.cli.imported import Doc, Imported, ImportFault, of_others
from gpustack.cli.importers.gpustack import Installation, convert, number_of
from gpustack.errors import Unauthorized
from gpustack.remote.http import HttpClient, HttpResponse
from gpustack.text import printable

_PER_PAGE = 100
_MOST_PAGES = 100
_WITHIN = 30.0
_LARGEST = 8 << 20
_LARGEST_IN_ALL = 64 << 20
_MOST_REQUESTS = 2000


async def read_installation(client: HttpClient, url: str, key: str | None, version: str) -> Imported:
    """Everything that its API shows of deployments, and the names of the rest. Raises GpustackError."""
    api = _Api(client, {} if key is None else {"authorization": f"Bearer {key}"})
    prefix = "/v2" if await api.status("/v2/models?page=1&perPage=1") != 404 else "/v1"
    models = await api.all(f"{prefix}/models")
    if models is None:
        raise Unauthorized(
            f"{url} does not show its models: give the key of an administrator (GPUSTACK_IMPORT_KEY, or --key-file)"
        )
    routes = await api.all("/v2/model-routes") if prefix == "/v2" else None
    allowed: dict[int, list[str]] = {}
    for route in routes or ():
        number = number_of(route.get("id"))
        if number is not None and str(route.get("access_policy")) in ("allowed_users", "allowed_principals"):
            allowed[number] = await api.names(f"/v2/model-routes/{number}/access")
    found = Installation(
        models=models,
        users=await api.all(f"{prefix}/users"),
        keys=await api.all(f"{prefix}/api-keys"),
        backends=await api.all("/v2/inference-backends") if prefix == "/v2" else [],
        workers=await api.all(f"{prefix}/workers"),
        routes=routes,
        allowed=allowed,
    )
    return convert(found, f"GPUStack {printable(version, 40)} at {url}")


class _Api:
    """Its answers, bounded in number, size and time."""

    def __init__(self, client: HttpClient, headers: dict[str, str]) -> None:
        self._client, self._headers = client, headers
        self._requests, self._size = 0, 0

    async def status(self, path: str) -> int:
        return (await self._get(path)).status

    async def _get(self, path: str) -> HttpResponse:
        if self._requests >= _MOST_REQUESTS or self._size >= _LARGEST_IN_ALL:
            raise ImportFault(f"before {path} it had told more than any installation has to tell")
        answer = await self._client.request(
            "GET", path, headers=self._headers, limit=_LARGEST, deadline=_WITHIN
        )
        self._requests += 1
        self._size += len(answer.body)
        return answer

    async def all(self, path: str) -> list[Doc] | None:
        """All items of a list; ``None`` where this key may not read it, or there is no such list."""
        found: list[Doc] = []
        for page in range(1, _MOST_PAGES + 1):
            answer = await self._get(f"{path}?page={page}&perPage={_PER_PAGE}")
            if answer.status in (401, 403, 404):
                return None
            if answer.status != 200:
                raise ImportFault(f"{path} answered {answer.status}")
            items, more = _page(of_others(answer.json(), path), path)
            found += items
            if not more:
                break
        return found

    async def names(self, path: str) -> list[str]:
        """The names of accounts that a list shows."""
        return [str(one.get("username")) for one in await self.all(path) or ()]


def _page(document: Any, path: str) -> tuple[list[Doc], bool]:
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ImportFault(f"{path} answered something that is no list of GPUStack")
    pagination = document.get("pagination")
    pages = pagination.get("totalPage") if isinstance(pagination, dict) else None
    number = pagination.get("page") if isinstance(pagination, dict) else None
    more = isinstance(pages, int) and isinstance(number, int) and number < pages and bool(items)
    return items, more
