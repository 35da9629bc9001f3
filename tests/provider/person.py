"""Somebody who signs in at the real provider without a browser: follows redirects and fills in its forms."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import httpx


@attrs.frozen(eq=False)
class Person:
    """``client`` keeps the cookies of everybody met; ``name`` is what the provider's form is given."""

    name: str
    client: httpx.Client

    def go(self, url: str, stop: Callable[[str], bool] = lambda url: False) -> httpx.Response:
        """Follow ``url`` through redirects and forms to a page that has none, or to a redirect that ``stop`` knows."""
        answer = self.client.get(url)
        for _ in range(15):
            if answer.next_request is not None:
                if stop(str(answer.next_request.url)):
                    return answer
                answer = self.client.send(answer.next_request)
                continue
            form = re.search(r'<form[^>]*action="([^"]+)".*?</form>', answer.text, re.DOTALL)
            prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
            if form is None or prompt is None:
                return answer
            fields = {"prompt": prompt[1]}
            if prompt[1] == "login":
                fields |= {"login": self.name, "password": "anything"}
            answer = self.client.post(str(answer.url.join(html.unescape(form[1]))), data=fields)
        raise AssertionError(f"too many steps, the last one {answer.url}")

    def back(self, login: str) -> str:
        """Sign in at the provider, but do not come back: the address that the browser would have been sent to."""
        answer = self.go(login, lambda url: "/auth/oidc/callback?" in url)
        assert answer.next_request is not None, answer.text[:500]
        return str(answer.next_request.url)


@contextmanager
def person(name: str) -> Iterator[Person]:
    """Somebody with a fresh browser, so to speak."""
    with httpx.Client(headers={"accept": "text/html"}, timeout=60.0) as client:
        yield Person(name, client)
