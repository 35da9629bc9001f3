"""Asks a site of releases, or a mirror of one, what it has: the newest version, hashes, and each file's size."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping

import attrs

from gpustack.artifacts.listing import RemoteFile
from gpustack.artifacts.tool_release import LISTING, REPOSITORY, SITE, TAG
from gpustack.errors import NotFound, Unavailable
from gpustack.remote.http import BadResponse, HttpClient, HttpResponse, StreamedResponse, shown
from gpustack.remote.redirect import MOST, next_url, refuse_inner

LISTS = ("SHA256SUMS", "sha256sums.txt", "sha256sum.txt", "checksums.txt")
"""Names under which mirrors keep the hashes of what lies beside them."""

REDIRECTS = (301, 302, 303, 307, 308)
_LARGEST = 8 << 30
_SUM = re.compile(r"([0-9a-fA-F]{64})[ \t]+[*]?(?:\./)?([\w.+-]+)", re.ASCII)
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_RANGE = re.compile(r"bytes 0-0/(\d+)")


@attrs.frozen(kw_only=True)
class ReleaseSite:
    """A site with the folders of a release site; ``listing`` is where its files can be asked for, if anywhere."""

    base: str = SITE
    listing: str | None = LISTING

    @classmethod
    def at(cls, base: str | None) -> ReleaseSite:
        """The public one, or the mirror at ``base``."""
        return cls() if base is None else cls(base=base.rstrip("/"), listing=None)

    def folder(self, tag: str) -> str:
        """Where the files of a version are."""
        return f"{self.base}/{REPOSITORY}/releases/download/{tag}"


async def newest_tag(client: HttpClient, site: ReleaseSite) -> str:
    """The version that the site calls its latest; raises NotFound where it does not say, RemoteError."""
    url = f"{site.base}/{REPOSITORY}/releases/latest"
    async with client.stream("GET", url) as incoming:
        where = incoming.headers.get("location", "")
        tag = where.rstrip("/").rpartition("/")[2] if incoming.status in REDIRECTS else ""
    if not TAG.fullmatch(tag) or "/releases/tag/" not in where:
        raise NotFound(
            f"{shown(url)} does not say which version is the latest (status {incoming.status}): name one with --version"
        )
    return tag


async def known_hashes(client: HttpClient, site: ReleaseSite, tag: str) -> dict[str, str] | None:
    """The names of the files of a version, with their SHA-256 (empty where not told); ``None`` without any list.

    Raises RemoteError when the site cannot be reached.
    """
    if site.listing is not None:
        reply = await client.request("GET", f"{site.listing}/repos/{REPOSITORY}/releases/tags/{tag}")
        return _assets(reply) if reply.status == 200 else None
    for name in LISTS:
        url = f"{site.folder(tag)}/{name}"
        # Not by the client's ``request``: some mirrors redirect to where their files are.
        async with _followed(client, url, {}) as incoming:
            if incoming.status == 200:
                text = (await incoming.read()).decode("utf-8", "replace")
                return _sums(text)
    return None


async def file_of(
    client: HttpClient, site: ReleaseSite, tag: str, name: str, sha256: str | None
) -> RemoteFile | None:
    """A file of a version with its size, or ``None`` where the site does not have it.

    Raises Unavailable when the site answers with something else, RemoteError.
    """
    url = f"{site.folder(tag)}/{name}"
    async with _followed(client, url, {"range": "bytes=0-0"}) as incoming:
        if incoming.status in (404, 410):
            return None
        if incoming.status not in (200, 206):
            raise Unavailable(f"{shown(url)} answered {incoming.status}: check --tools-download-base-url")
        size = _size(incoming)
    if size is None or not 0 < size <= _LARGEST:
        raise BadResponse(url, "does not tell the size of the file")
    return RemoteFile(name=name, size=size, sha256=sha256 or None, url=url)


def _size(incoming: StreamedResponse) -> int | None:
    if incoming.status == 206:
        found = _RANGE.fullmatch(incoming.headers.get("content-range", ""))
        return int(found[1]) if found and len(found[1]) < 16 else None
    told = incoming.headers.get("content-length", "")
    return int(told) if told.isascii() and told.isdigit() and len(told) < 16 else None


@contextlib.asynccontextmanager
async def _followed(
    client: HttpClient, url: str, headers: Mapping[str, str]
) -> AsyncIterator[StreamedResponse]:
    """The answer at the end of its redirects."""
    place = url
    answered: str | None = None
    for _ in range(MOST + 1):
        connected = await refuse_inner(place, url, answered)
        async with client.stream("GET", place, headers=headers, connected=connected) as incoming:
            if incoming.status not in REDIRECTS:
                yield incoming
                return
            answered = incoming.address
            place = next_url(place, incoming.headers.get("location"))
    raise BadResponse(url, f"redirects more than {MOST} times")


def _sums(text: str) -> dict[str, str]:
    """As ``sha256sum`` writes them."""
    found = (_SUM.fullmatch(line.strip()) for line in text.splitlines())
    return {one[2]: one[1].lower() for one in found if one is not None}


def _assets(reply: HttpResponse) -> dict[str, str] | None:
    """The files of a release as the site's own listing has them."""
    document = reply.json()
    assets = document.get("assets") if isinstance(document, dict) else None
    if not isinstance(assets, list):
        return None
    found: dict[str, str] = {}
    for asset in assets:
        if isinstance(asset, dict) and isinstance(asset.get("name"), str):
            digest = _DIGEST.fullmatch(str(asset.get("digest")))
            found[asset["name"]] = digest[1].lower() if digest else ""
    return found
