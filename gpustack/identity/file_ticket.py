"""Tickets with which one worker reads model files of another: issued by the server, checked by the worker that is read.

A ticket names its reader and when it ends, under an HMAC with a key derived from the forward key of the worker that is
read, which only that worker and the server have. It opens nothing but model files.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from gpustack.identity.derived_keys import derive

LIFETIME = 24 * 3600.0
"""Seconds. Long, because the clocks of the machines may differ."""
_FORM = re.compile(r"gpustack_files_(\d{1,18})_(\d{1,12})_([0-9a-f]{64})", re.ASCII)


def issue_ticket(forward_key: str, reader_id: int, now: float) -> str:
    """A ticket for the worker ``reader_id`` to the files of the worker with that forward key; ``now`` since 1970."""
    until = int(now + LIFETIME)
    return f"gpustack_files_{reader_id}_{until}_{_sign(forward_key, f'{reader_id} {until}')}"


def reader_of(ticket: str, forward_key: str, now: float) -> int | None:
    """The id of the worker that may read with ``ticket``; ``None`` if it is not of this key, or is over."""
    found = _FORM.fullmatch(ticket)
    if found is None or not hmac.compare_digest(_sign(forward_key, f"{found[1]} {found[2]}"), found[3]):
        return None
    return int(found[1]) if now < int(found[2]) else None


def _sign(forward_key: str, text: str) -> str:
    key = derive(forward_key.encode("utf-8", "surrogateescape"), "files")
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()
