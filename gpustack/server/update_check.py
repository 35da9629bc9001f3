"""Whether there is a newer version: asked in the background from time to time."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from datetime import datetime
from json import loads
from random import Random
from typing import Any

import attrs
import trio

from gpustack.nursery.quarantine import Quarantine
from gpustack.remote.http import RemoteError, shown
from gpustack.remote.redirect import fetch_document

log = logging.getLogger(__name__)

RELEASE_FEED: str | None = None
"""The URL at which releases are announced, unless ``--update-check-url`` names another. There is none yet, so nobody is
asked."""

EVERY = 12 * 3600.0
"""Seconds between two looks."""
_WITHIN = 10.0
_LARGEST = 64 << 10
_LONGEST_VERSION = 64
_SPREAD = 600.0


def is_development(version: str) -> bool:
    """Whether a version is no release, so that it cannot be compared."""
    return "0.0.0" in version or ".dev" in version or "+" in version


@attrs.define(eq=False, repr=False)
class UpdateCheck:
    """Owns the latest version known. A feed that does not answer, or not as expected, is ignored."""

    _version: str
    _url: str | None
    _now: Callable[[], datetime]
    _rng: Random
    _every: float = EVERY
    latest: str | None = None
    checked_at: datetime | None = None
    """When the feed last gave an answer."""
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("update-check"))
    name: str = "update-check"

    @property
    def asks(self) -> bool:
        """Whether a feed is asked."""
        return self._url is not None and not is_development(self._version)

    @property
    def shown(self) -> str:
        """The latest version known; the running one while the feed has told none."""
        return self.latest or self._version

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while self.asks:
            with self._faults.row("feed"):
                await self.look()
            # Spread, so that servers that were started together do not ask together.
            await trio.sleep(self._every + self._rng.uniform(0.0, min(_SPREAD, self._every)))
        await trio.sleep_forever()

    async def look(self) -> None:
        """Ask the feed once, within ``_WITHIN`` seconds."""
        assert self._url is not None
        system = f"{platform.system().lower()}; {platform.machine().lower()}"
        headers = {"user-agent": f"gpustack/{self._version} ({system})", "accept": "application/json"}
        try:
            answer = await fetch_document(self._url, headers=headers, limit=_LARGEST, deadline=_WITHIN)
        except RemoteError as error:
            log.debug("No word of new versions: %s", error)
            return
        found = _version_in(answer.body) if answer.status == 200 else None
        if found is None:
            log.debug("No word of new versions: feed=%s status=%d", shown(self._url), answer.status)
            return
        self.checked_at = self._now()
        if found not in (self.latest, self._version):
            log.info("Version %s of GPUStack has been announced; this is %s", found, self._version)
        self.latest = found

    def __repr__(self) -> str:
        return f"<UpdateCheck: {self.shown}, {'asking' if self.asks else 'asking nobody'}>"


def _version_in(body: bytes) -> str | None:
    """The version in an answer like ``{"latest_version": "1.2.3"}``, or a release as code forges describe it."""
    try:
        document: Any = loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    text = document.get("latest_version") or document.get("tag_name")
    if not isinstance(text, str):
        return None
    text = text.strip().removeprefix("v")
    good = 0 < len(text) <= _LONGEST_VERSION and text[0].isdigit() and text.isascii() and text.isprintable()
    return text if good and " " not in text else None
