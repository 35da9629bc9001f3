"""Small HTML pages for browsers: no script, nothing loaded from elsewhere, every text escaped."""

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
    # With no-referrer, browsers would send "Origin: null" with a form of this page.
    ("Referrer-Policy", "same-origin"),
)
_LONGEST = 2000
"""Characters of a sentence."""


@attrs.frozen
class PageLink:
    """A link, or with ``posts`` a button that posts to the path."""

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
    """A page of a few sentences. With ``onward_to`` the browser goes there by itself."""
    refresh = "" if onward_to is None else f"0; url={escape(onward_to, quote=True)}"
    ahead = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
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
    """Send a browser on after a form. Not by a redirect: the page's ``form-action`` would forbid its target."""
    return page(title, links=(PageLink("Go on", url),), headers=headers, onward_to=url)


def redirect(url: str, headers: tuple[tuple[str, str], ...] = ()) -> ApiResponse:
    """Send a browser to ``url``, with a GET."""
    return ApiResponse(
        status=303, body=b"", content_type="text/plain; charset=utf-8", headers=(("Location", url), *headers)
    )


def wants_page(request: ApiRequest) -> bool:
    """Whether a browser asks for a page; programs get JSON."""
    return "text/html" in request.text(b"accept").lower()
