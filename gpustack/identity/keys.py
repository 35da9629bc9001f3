"""API keys, worker credentials and the cluster token as text."""

from __future__ import annotations

import hmac
import random
import re

import attrs

# Imported keys may have other lengths than those made here.
_API_KEY = re.compile(r"gpustack_([0-9A-Za-z]{1,64})_([0-9A-Za-z]{1,256})", re.ASCII)
_WORKER_KEY = re.compile(r"gpustack_worker_([1-9][0-9]{0,17})_([0-9A-Za-z]{1,256})", re.ASCII)


@attrs.frozen
class ApiKeyText:
    """``gpustack_<access>_<secret>`` taken apart."""

    access: str
    secret: str = attrs.field(repr=False)


@attrs.frozen
class WorkerKeyText:
    """``gpustack_worker_<id>_<secret>`` taken apart."""

    worker_id: int
    secret: str = attrs.field(repr=False)


def make_api_key(rng: random.Random) -> tuple[str, str, str]:
    """A new key: its public part (16 hex digits), its secret (32 hex digits), and the whole text.

    ``rng`` must be ``random.SystemRandom`` outside tests.
    """
    access, secret = f"{rng.getrandbits(64):016x}", make_secret(rng)
    return access, secret, f"gpustack_{access}_{secret}"


def make_secret(rng: random.Random) -> str:
    """128 random bits in hex."""
    return f"{rng.getrandbits(128):032x}"


def worker_key(worker_id: int, secret: str) -> str:
    """The credential of a worker, as it sends it: ``gpustack_worker_<id>_<secret>``."""
    return f"gpustack_worker_{worker_id}_{secret}"


def parse(text: str) -> ApiKeyText | WorkerKeyText | None:
    """The parts of a key; ``None`` for a text that has neither form."""
    if found := _WORKER_KEY.fullmatch(text):
        return WorkerKeyText(int(found[1]), found[2])
    if found := _API_KEY.fullmatch(text):
        return ApiKeyText(found[1], found[2])
    return None


def is_token(given: str, token: str) -> bool:
    """Whether ``given`` is the cluster token, compared in constant time. Without a token: no.

    The token lets a machine join the cluster, and nothing else.
    """
    return bool(token) and hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), token.encode("utf-8", "surrogateescape")
    )
