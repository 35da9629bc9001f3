"""The web console: one shell for the addresses of its pages, and the files that it is built of.

The files are made by ``console/build.js`` and stand in a folder that is named by a hash of them. Nothing else in a path
reaches the disk, and only the addresses listed here are pages: everything else stays what the API says of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import attrs

from gpustack.errors import NotFound, Unavailable

from .context import ApiContext
from .page import wants_page
from .problems import problem_of_status
from .route import ApiCall, ApiResponse, ApiRoute, tagged

SHELL = "index.html"

PAGES = (
    "first-steps",
    "cluster",
    "models",
    "instances",
    "files",
    "playground",
    "usage",
    "access",
    "events",
    "settings",
    "account",
    "sign-in",
)
"""First parts of the addresses of pages, as ``console/src/paths.js`` has them. ``/`` is a page too."""

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".html": "text/html; charset=utf-8",
}
_CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_HEADERS = (
    ("Content-Security-Policy", _CONTENT_SECURITY),
    ("X-Frame-Options", "DENY"),
    # With no-referrer, browsers would send "Origin: null" with a form of this page.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Vary", "Accept, Accept-Encoding"),
)
_FOR_EVER = ("Cache-Control", "public, max-age=31536000, immutable")
_ASK_AGAIN = ("Cache-Control", "no-cache")


@attrs.frozen
class ConsoleFile:
    """One file of the console, as it is and compressed."""

    plain: bytes
    gzip: bytes | None


def is_built(context: ApiContext) -> bool:
    """Whether the console is part of this installation."""
    return (context.server.console / SHELL).is_file()


def shell(call: ApiCall) -> ApiResponse:
    """The page that loads the console. Raises ``Unavailable`` where it is not part of this installation."""
    if not is_built(call.context):
        raise Unavailable(
            "The web console is not part of this installation: install a released wheel, or build it in a checkout "
            "with 'pip install .'"
        )
    return _answer(call, call.context.server.console / SHELL, _ASK_AGAIN)


def _answer(call: ApiCall, path: Path, cached: tuple[str, str]) -> ApiResponse:
    file = _read(path, path.stat().st_mtime_ns)
    takes_gzip = "gzip" in call.request.text(b"accept-encoding").lower()
    packed = file.gzip if takes_gzip else None
    return ApiResponse(
        body=file.plain if packed is None else packed,
        content_type=_TYPES[path.suffix],
        headers=(*_HEADERS, cached, *(() if packed is None else (("Content-Encoding", "gzip"),))),
    )


@lru_cache(maxsize=256)
def _read(path: Path, changed: int) -> ConsoleFile:
    """``changed``: when it was written, so that the files of a new build are seen without a restart."""
    packed = path.with_name(f"{path.name}.gz")
    return ConsoleFile(path.read_bytes(), packed.read_bytes() if packed.is_file() else None)


@lru_cache(maxsize=4)
def _files(folder: Path, changed: int) -> Mapping[str, Path]:
    """What is served, by the end of its address."""
    found = (path for path in folder.glob("*/*") if path.suffix in _TYPES and path.is_file())
    return {f"{path.parent.name}/{path.name}": path for path in found}


async def _asset(call: ApiCall) -> ApiResponse:
    name = "{build}/{name}".format(**call.request.params)
    folder = call.context.server.console
    found = _files(folder, folder.stat().st_mtime_ns).get(name) if is_built(call.context) else None
    if found is None:
        raise NotFound(f"There is no file {name!r} here")
    return _answer(call, found, _FOR_EVER)


async def _page(call: ApiCall) -> ApiResponse:
    if not wants_page(call.request):
        # Perhaps an OpenAI client whose base URL lacks /v1: it reads another form than ours.
        path = call.request.path
        problem = problem_of_status(
            404,
            f"At {path} there is a page for browsers; the API begins at /v1, and its documentation is at /docs",
        )
        return ApiResponse(status=404, document=problem.document(path, for_anybody=True))
    return shell(call)


def _page_route(path: str, summary: str) -> ApiRoute:
    return ApiRoute(
        method="GET",
        path=path,
        summary=summary,
        handler=_page,
        allow=None,
        hidden=True,
        slashes=True,
    )


CONSOLE_ROUTES = tagged(
    "console",
    (
        ApiRoute(
            method="GET",
            path="/console/{build}/{name}",
            summary="Files of the web console",
            handler=_asset,
            allow=None,
            hidden=True,
        ),
        *(_page_route(f"/{name}", "A page of the web console, for browsers") for name in PAGES),
        *(_page_route(f"/{name}/{{rest}}", "A page of the web console, for browsers") for name in PAGES),
    ),
)
