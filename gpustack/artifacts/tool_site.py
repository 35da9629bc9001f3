"""Asks a site of releases, or a mirror of it, for the newest version, and for hashes and sizes of files."""

from __future__ import annotations

import re

import attrs

from gpustack.artifacts.listing import RemoteFile
from gpustack.artifacts.range_request import stated_size
from gpustack.artifacts.tool_release import LISTING, REPOSITORY, SITE, TAG
from gpustack.errors import NotFound, Unavailable
from gpustack.remote.http import BadResponse, HttpClient, HttpResponse, shown
from gpustack.remote.redirect import REDIRECTS, follow_redirects

LISTS = ("SHA256SUMS", "sha256sums.txt", "sha256sum.txt", "checksums.txt")
"""Names of the files in which mirrors keep the hashes of a version's files."""

_LARGEST = 8 << 30
_SUM = re.compile(r"([0-9a-fA-F]{64})[ \t]+[*]?(?:\./)?([\w.+-]+)", re.ASCII)
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")


@attrs.frozen(kw_only=True)
class ReleaseSite:
    """A site with the paths of GitHub releases. ``listing`` is the API that lists its files, if it has one."""

    base: str = SITE
    listing: str | None = LISTING

    @classmethod
    def at(cls, base: str | None) -> ReleaseSite:
        """The public site, or the mirror at ``base``."""
        return cls() if base is None else cls(base=base.rstrip("/"), listing=None)

    def folder(self, tag: str) -> str:
        """The URL of the folder with the files of a version."""
        return f"{self.base}/{REPOSITORY}/releases/download/{tag}"


async def newest_tag(client: HttpClient, site: ReleaseSite) -> str:
    """The version that the site redirects "latest" to. Raises NotFound if it does not, RemoteError."""
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
    """The files of a version with their SHA-256 (empty where not stated); ``None`` if the site has no list.

    Raises RemoteError.
    """
    if site.listing is not None:
        reply = await client.request("GET", f"{site.listing}/repos/{REPOSITORY}/releases/tags/{tag}")
        return _read_assets(reply) if reply.status == 200 else None
    for name in LISTS:
        url = f"{site.folder(tag)}/{name}"
        async with follow_redirects(client, "GET", url, headers={}) as incoming:
            if incoming.status == 200:
                text = (await incoming.read()).decode("utf-8", "replace")
                return _read_sums(text)
    return None


async def file_of(
    client: HttpClient, site: ReleaseSite, tag: str, name: str, sha256: str | None
) -> RemoteFile | None:
    """A file of a version with its size; ``None`` if the site does not have it. Raises Unavailable, RemoteError."""
    url = f"{site.folder(tag)}/{name}"
    async with follow_redirects(client, "GET", url, headers={"range": "bytes=0-0"}) as incoming:
        if incoming.status in (404, 410):
            return None
        if incoming.status not in (200, 206):
            raise Unavailable(f"{shown(url)} answered {incoming.status}: check --tools-download-base-url")
        size = stated_size(incoming)
    if size is None or not 0 < size <= _LARGEST:
        raise BadResponse(url, "does not tell the size of the file")
    return RemoteFile(name=name, size=size, sha256=sha256 or None, url=url)


def _read_sums(text: str) -> dict[str, str]:
    """Hashes by file name, from a list in the format of ``sha256sum``."""
    found = (_SUM.fullmatch(line.strip()) for line in text.splitlines())
    return {one[2]: one[1].lower() for one in found if one is not None}


def _read_assets(reply: HttpResponse) -> dict[str, str] | None:
    """The files of a release in an answer of the GitHub API."""
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
