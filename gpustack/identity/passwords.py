"""Passwords: what they must contain, and their argon2id hashes, made a few at a time."""

from __future__ import annotations

import string
from functools import cache
from typing import TYPE_CHECKING

from gpustack.config import secret
from gpustack.nursery.limiter import threads

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST = secret.SHORTEST["bootstrap_password"]
"""Characters of a new password; older ones may be shorter."""
SPECIAL = "!@#$%^&*_+"
LONGEST = 1024
"""Characters; a longer one would only cost time."""

_CLASSES = (
    (string.ascii_uppercase, "an uppercase letter"),
    (string.ascii_lowercase, "a lowercase letter"),
    (string.digits, "a digit"),
    (SPECIAL, f"one of {SPECIAL}"),
)

# A hash takes 19 MiB and about 30 ms: only two at a time, so that many logins do not load the machine.
_THREADS = threads("passwords", 2)

# The hash of a random password that nobody has: checking it takes as long as checking a real one.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$DSPnoOo0nyg7xz2WKW7TRg$GHCG2yJgfaNGS+1NleUS/eR8g5QMbgnNI03RpjHQmj0"


async def hash_password(password: str) -> str:
    """The hash to store. Raises ``ValueError`` when the password is longer than ``LONGEST``."""
    if len(password) > LONGEST:
        raise ValueError(f"passwords have at most {LONGEST} characters")
    return await _THREADS.run(_hasher().hash, password)


async def verify_password(hashed: str | None, password: str) -> bool:
    """Whether the password is the one that was hashed. Without a hash: no, after the same time.

    So the time does not tell which users exist or have a password.
    """
    if len(password) > LONGEST:
        return False
    good = await _THREADS.run(_matches, hashed or _NOBODY, password)
    return good and bool(hashed)


def needs_rehash(hashed: str) -> bool:
    """Whether the hash was made with other parameters than the present ones, and should be made again at a login."""
    return _hasher().check_needs_rehash(hashed)


def check_complexity(password: str) -> list[str]:
    """What is wrong with a new password, one sentence each; empty when it is good."""
    faults = [
        f"The password must contain {what}"
        for letters, what in _CLASSES
        if not any(letter in letters for letter in password)
    ]
    if len(password) < SHORTEST:
        faults.append(f"The password must have at least {SHORTEST} characters")
    if len(password) > LONGEST:
        faults.append(f"The password must have at most {LONGEST} characters")
    return faults


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)


def _matches(hashed: str, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
