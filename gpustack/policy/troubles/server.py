"""The server itself: its database, its certificate, and its version."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from gpustack.policy.attention import AttentionLook, Trouble, TroubleObject, TroubleSeverity, cut
from gpustack.text import counted

KIND = "server"
RENEW_BEFORE = timedelta(days=21)
"""Before its end a certificate is to be renewed."""


def find(look: AttentionLook) -> Iterator[Trouble]:
    if look.database_fault is not None:
        yield Trouble(
            id=f"{KIND}:database",
            kind=KIND,
            severity=TroubleSeverity.CRITICAL,
            text=cut(f"The database fails, so nothing can be changed: {look.database_fault}"),
            since=None,
            object=TroubleObject(kind="server"),
        )
    ends = look.certificate_ends
    if ends is not None and ends - look.now < RENEW_BEFORE:
        over = ends <= look.now
        when = "has ended" if over else "ends"
        refused = "until there is a new one" if over else "then, unless there is a new one"
        yield Trouble(
            id=f"{KIND}:certificate",
            kind=KIND,
            severity=TroubleSeverity.CRITICAL if over else TroubleSeverity.WARNING,
            text=f"The certificate of this server {when} on {ends:%Y-%m-%d}: clients refuse it {refused} in its place, "
            "which is taken within seconds",
            since=ends if over else None,
            object=TroubleObject(kind="server"),
        )
    if look.latest_version is not None:
        yield Trouble(
            id=f"{KIND}:update",
            kind=KIND,
            severity=TroubleSeverity.NOTICE,
            text=f"Version {look.latest_version} has been announced; this is {look.version}",
            since=None,
            object=TroubleObject(kind="server"),
        )


def more(count: int) -> str:
    return f"{counted(count, 'more fault')} of the server"
