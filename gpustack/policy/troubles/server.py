"""The server itself: its database, and its version."""

from __future__ import annotations

from collections.abc import Iterator

from gpustack.policy.attention import AttentionLook, Trouble, TroubleObject, TroubleSeverity, cut
from gpustack.text import counted

KIND = "server"


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
