"""The guide for users at /guide/, from files in the package: nothing is loaded from elsewhere."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from gpustack.errors import NotFound, Unavailable

from ..route import ApiCall, ApiResponse, ApiRoute, tagged

GUIDE = Path(__file__).parents[1] / "guide"
"""Built before packaging, by docs/guide/build.py."""

GUIDE_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Vary", "Accept-Encoding"),
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
}
_NOT_BUILT = "The guide is not part of this installation; in a checkout 'make guide' builds it."


@cache
def _files() -> Mapping[str, Path]:
    """The only files that are served, by name: no other name in a path reaches the disk."""
    return {path.name: path for path in GUIDE.glob("*.*")}


@cache
def _content(path: Path) -> tuple[bytes, bytes]:
    """A file as it is, and compressed."""
    plain = path.read_bytes()
    return plain, gzip.compress(plain, 6, mtime=0)


async def _page(call: ApiCall) -> ApiResponse:
    if call.request.path == "/guide":  # links of a page are relative to its folder
        return ApiResponse(status=308, body=b"", headers=(("Location", "/guide/"), *GUIDE_HEADERS))
    files = _files()
    if not files:
        raise Unavailable(_NOT_BUILT)
    name = call.request.params.get("name", "index.html")
    path = files.get(name)
    if path is None:
        raise NotFound(f"There is no page {name!r} in the guide; it begins at /guide/")
    # Programs and styles are asked for by the version of their content.
    versioned = path.suffix in (".css", ".js") and bool(call.request.query.pairs)
    caching = "public, max-age=604800" if versioned else "no-cache"
    plain, packed = _content(path)
    takes_gzip = "gzip" in call.request.text(b"accept-encoding").lower()
    return ApiResponse(
        body=packed if takes_gzip else plain,
        content_type=_TYPES.get(path.suffix, "text/plain; charset=utf-8"),
        headers=(
            ("Cache-Control", caching),
            *GUIDE_HEADERS,
            *((("Content-Encoding", "gzip"),) if takes_gzip else ()),
        ),
    )


ROUTES = tagged(
    "docs",
    (
        ApiRoute(
            method="GET",
            path="/guide/",
            summary="The guide for users",
            handler=_page,
            allow=None,
            hidden=True,
        ),
        ApiRoute(
            method="GET",
            path="/guide/{name}",
            summary="Its pages, and files that they offer",
            handler=_page,
            allow=None,
            hidden=True,
        ),
    ),
)
