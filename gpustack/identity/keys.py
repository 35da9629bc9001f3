"""API keys and worker credentials as text: made, and taken apart again."""

from __future__ import annotations

import random
import re

import attrs

from .derived_keys import DerivedKeys

# Longer than ours: keys made by other means (imported ones) may be of another length, within reason.
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
    """A new key: its public part (16 hex), its secret (32 hex), and the whole text, shown once.

    ``rng`` is ``random.SystemRandom`` wherever the key is to protect anything.
    """
    access, secret = f"{rng.getrandbits(64):016x}", make_secret(rng)
    return access, secret, f"gpustack_{access}_{secret}"


def make_secret(rng: random.Random) -> str:
    """128 random bits in hex."""
    return f"{rng.getrandbits(128):032x}"


def worker_key(worker_id: int, secret: str) -> str:
    """The credential of a worker, as it sends it."""
    return f"gpustack_worker_{worker_id}_{secret}"


def parse(text: str) -> ApiKeyText | WorkerKeyText | None:
    """Take a key apart; ``None`` when it is none of ours."""
    if found := _WORKER_KEY.fullmatch(text):
        return WorkerKeyText(int(found[1]), found[2])
    if found := _API_KEY.fullmatch(text):
        return ApiKeyText(found[1], found[2])
    return None


def hash_secret(keys: DerivedKeys, secret: str) -> str:
    """What is kept of an API key's secret. It is random already, so that a slow hash would add nothing."""
    return keys.api_hash(secret)
