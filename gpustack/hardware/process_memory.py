"""Host memory of processes, from Linux's /proc."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_FIELDS = ("RssAnon:", "VmSwap:")
_KIB = 1024


def anonymous_memory(pids: Iterable[int], root: Path = Path("/")) -> int | None:
    """Bytes that processes hold beside pages of files, in memory or swapped out; ``None`` where none can be read.

    What a process shares with its children since it forked counts for each of them. Blocks.
    """
    found: list[int] = []
    for pid in pids:
        try:
            text = (root / "proc" / str(pid) / "status").read_text("utf-8", "replace")
        except OSError:
            continue
        words = [line.split() for line in text.splitlines() if line.startswith(_FIELDS)]
        found += [int(one[1]) * _KIB for one in words if len(one) == 3 and one[1].isdigit()]
    return sum(found) if found else None
