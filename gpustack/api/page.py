"""Small pages for a person with a browser: no script, nothing from elsewhere, every text escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

import attrs

from .request import ApiRequest
from .route import ApiResponse

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;"
    "color-scheme:light dark;overflow-wrap:anywhere}h1{font-size:1.4rem}button{font:inherit}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = (
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'self'",
    ),
    ("X-Frame-Options", "DENY"),
    # With no-referrer browsers would not say that a form of this page comes from here.
    ("Referrer-Policy", "same-origin"),
)
_LONGEST = 2000


@attrs.frozen
class PageLink:
    """Something to click on. ``posts`` makes it a button that changes something."""

    text: str
    path: str
    posts: bool = False

    @property
    def html(self) -> str:
        path, text = escape(self.path, quote=True), escape(self.text)
        if self.posts:
            return f'<form method="post" action="{path}"><button>{text}</button></form>'
        return f'<p><a href="{path}">{text}</a></p>'


def page(
    title: str,
    *sentences: str,
    links: Sequence[PageLink] = (),
    status: int = 200,
    headers: tuple[tuple[str, str], ...] = (),
    onward_to: str | None = None,
) -> ApiResponse:
    """A page of a few sentences. With ``onward_to`` the browser goes on there by itself."""
    ahead = "" if onward_to is None else _ahead(onward_to)
    shown = title if title == "GPUStack" else f"{title} - GPUStack"
    told = "".join(f"<p>{escape(sentence[:_LONGEST])}</p>" for sentence in sentences)
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(shown)}</title>'
        f'<meta name="viewport" content="width=device-width">{ahead}<style>{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{told}{''.join(link.html for link in links)}</main></body></html>"
    )
    return ApiResponse(
        status=status,
        body=text.encode("utf-8", "replace"),
        content_type="text/html; charset=utf-8",
        headers=(*_HEADERS, *headers),
    )


def onward(url: str, title: str, headers: tuple[tuple[str, str], ...] = ()) -> ApiResponse:
    """Send a browser on after a form. Not by a redirect: ``form-action`` would hold for where that leads."""
    return page(title, links=(PageLink("Go on", url),), headers=headers, onward_to=url)


def redirect(url: str, headers: tuple[tuple[str, str], ...] = ()) -> ApiResponse:
    """Send a browser on with a GET."""
    return ApiResponse(
        status=303, body=b"", content_type="text/plain; charset=utf-8", headers=(("Location", url), *headers)
    )


def wants_page(ask: ApiRequest) -> bool:
    """Whether a browser asks for something to show; programs get JSON."""
    return "text/html" in ask.text(b"accept").lower()


def _ahead(url: str) -> str:
    return f'<meta http-equiv="refresh" content="0; url={escape(url, quote=True)}">'
