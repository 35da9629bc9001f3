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
"""Characters of one that is chosen now; shorter ones that were chosen before hold on."""
SPECIAL = "!@#$%^&*_+"
LONGEST = 1024
"""Characters; a longer one costs time and protects nothing better."""

_CLASSES = (
    (string.ascii_uppercase, "an uppercase letter"),
    (string.ascii_lowercase, "a lowercase letter"),
    (string.digits, "a digit"),
    (SPECIAL, f"one of {SPECIAL}"),
)

# A hash takes 19 MiB and some 30 ms: two at a time keep a flood of logins from taking the machine.
_THREADS = threads("passwords", 2)

# Hash of a random password nobody has: checking against it costs what checking a real one does.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$DSPnoOo0nyg7xz2WKW7TRg$GHCG2yJgfaNGS+1NleUS/eR8g5QMbgnNI03RpjHQmj0"


async def hash_password(password: str) -> str:
    """The hash to store. Raises ``ValueError`` when the password is longer than ``LONGEST``."""
    if len(password) > LONGEST:
        raise ValueError(f"passwords have at most {LONGEST} characters")
    return await _THREADS.run(_hasher().hash, password)


async def verify_password(hashed: str | None, password: str) -> bool:
    """Whether the password is the one hashed. Without a hash the answer is no, after the same time.

    So nobody learns from the time which users exist or have a password.
    """
    if len(password) > LONGEST:
        return False
    good = await _THREADS.run(_matches, hashed or _NOBODY, password)
    return good and bool(hashed)


def needs_rehash(hashed: str) -> bool:
    """Whether the hash was made with other costs than ours: hash again at the next login."""
    return _hasher().check_needs_rehash(hashed)


def check_complexity(password: str) -> list[str]:
    """What is wrong with a password that somebody chose, a sentence each; empty when it will do."""
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
