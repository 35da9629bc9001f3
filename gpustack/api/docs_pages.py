"""The pages that show the OpenAPI document, from files in the package: nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from gpustack.errors import NotFound, Unavailable

from .openapi import openapi
from .route import ApiCall, ApiResponse, ApiRoute, tagged
from .view import dumps

PAGES = Path(__file__).parent / "pages"
STATIC = Path(__file__).parent / "static"
"""Built before packaging, from the npm packages swagger-ui-dist and redoc."""

ASSETS = {
    "swagger-ui-bundle.js": STATIC,
    "swagger-ui.css": STATIC,
    "redoc.standalone.js": STATIC,
    "swagger.js": PAGES,
    "redoc.js": PAGES,
}
"""The only files that are served: no other name in a path reaches the disk."""

_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
"""Both viewers insert style elements; scripts come from files alone."""

PAGE_HEADERS = (
    ("Content-Security-Policy", _CONTENT_SECURITY),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)
_NOT_BUILT = (
    "The pages of the API documentation are not part of this installation: install a released wheel, or build "
    "them in a checkout with 'pip install .'. The document itself is at /openapi.json"
)


@cache
def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise Unavailable(_NOT_BUILT) from error


async def _swagger(call: ApiCall) -> ApiResponse:
    return _page("swagger.html", ("swagger-ui-bundle.js", "swagger-ui.css"))


async def _redoc(call: ApiCall) -> ApiResponse:
    return _page("redoc.html", ("redoc.standalone.js",))


def _page(name: str, needs: Sequence[str]) -> ApiResponse:
    for asset in needs:
        _file(ASSETS[asset] / asset)
    return ApiResponse(
        body=_file(PAGES / name), content_type="text/html; charset=utf-8", headers=PAGE_HEADERS
    )


async def _asset(call: ApiCall) -> ApiResponse:
    name = call.request.params["name"]
    if name not in ASSETS:
        raise NotFound(f"There is no file {name!r} here")
    return ApiResponse(
        body=_file(ASSETS[name] / name),
        content_type=_TYPES[Path(name).suffix],
        headers=(("Cache-Control", "public, max-age=3600"), *PAGE_HEADERS),
    )


def docs_routes(routes: Sequence[ApiRoute]) -> tuple[ApiRoute, ...]:
    """The routes that show the document of ``routes``; they are not in it themselves."""
    printed: list[bytes] = []

    async def document(call: ApiCall) -> ApiResponse:
        if not printed:
            made = openapi(routes, call.context.server.inference_routes, call.context.server.version)
            printed.append(dumps(made))
        return ApiResponse(body=printed[0])

    return tagged(
        "docs",
        (
            ApiRoute(
                method="GET",
                path="/openapi.json",
                summary="This API as an OpenAPI 3.1 document",
                handler=document,
                allow=None,
                hidden=True,
            ),
            ApiRoute(
                method="GET", path="/docs", summary="Swagger UI", handler=_swagger, allow=None, hidden=True
            ),
            ApiRoute(method="GET", path="/redoc", summary="ReDoc", handler=_redoc, allow=None, hidden=True),
            ApiRoute(
                method="GET",
                path="/docs/assets/{name}",
                summary="Files of these pages",
                handler=_asset,
                allow=None,
                hidden=True,
            ),
        ),
    )
