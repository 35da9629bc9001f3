"""The token that lets a machine join the cluster, and nothing else."""

from __future__ import annotations

import hmac


def is_token(given: str, token: str) -> bool:
    """Whether ``given`` is the cluster's token, in a time that tells nothing of it. No token: nothing is."""
    return bool(token) and hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), token.encode("utf-8", "surrogateescape")
    )
