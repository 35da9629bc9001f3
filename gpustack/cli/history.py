"""The questions of earlier chats: a file of the user, bounded in size, that can be switched off."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import attrs

from gpustack import durable_file

VARIABLE = "GPUSTACK_CHAT_HISTORY"
"""The variable that names another file, or ``off``."""

MOST = 500
MOST_BYTES = 1 << 20
_OFF = frozenset({"", "off", "no", "0", "false", "none"})


def history_path(env: Mapping[str, str]) -> Path | None:
    """Where questions are kept: $XDG_STATE_HOME/gpustack/chat-history, unless the variable says otherwise."""
    told = env.get(VARIABLE)
    if told is not None:
        return None if told.strip().lower() in _OFF else Path(told).expanduser()
    state = env.get("XDG_STATE_HOME") or ""
    root = Path(state) if Path(state).is_absolute() else Path("~/.local/state")
    with contextlib.suppress(RuntimeError):  # a user without a home
        return root.expanduser() / "gpustack" / "chat-history"
    return None


def history_of(env: Mapping[str, str]) -> ChatHistory | None:
    """The history that this environment means; ``None`` when it is switched off."""
    path = history_path(env)
    return None if path is None else ChatHistory(path)


@attrs.frozen
class ChatHistory:
    """Questions in a file that only its user can read, one JSON string a line, the oldest first.

    Several chats add to it at once. It holds at most ``MOST`` questions and ``MOST_BYTES`` after each ``load``.
    """

    path: Path

    def load(self) -> list[str]:
        """The questions in the file, ``MOST`` at most; broken lines are left out. Raises OSError."""
        try:
            with self._open(os.O_RDONLY) as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - MOST_BYTES))
                lines = file.read(MOST_BYTES).split(b"\n")
        except FileNotFoundError:
            return []
        kept = [text for line in lines if (text := _read(line)) is not None][-MOST:]
        if size > MOST_BYTES or len(lines) > 2 * MOST:
            self._replace(kept)
        return kept

    def add(self, question: str) -> None:
        """Add a question; a very large one (an eighth of ``MOST_BYTES``) is left out. Raises OSError."""
        line = json.dumps(question).encode() + b"\n"
        if len(line) > MOST_BYTES // 8:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._open(os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            file.write(line)

    def _replace(self, kept: list[str]) -> None:
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")  # several chats may do this
        durable_file.write(self.path, "".join(f"{json.dumps(question)}\n" for question in kept), draft=draft)

    def _open(self, flags: int) -> BinaryIO:
        """Open the file, and take the right to read it away from other users. Raises OSError."""
        descriptor = os.open(self.path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        file = os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "ab")
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            file.close()
            raise OSError(errno.EINVAL, "it is not a plain file")
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
        return file


def _read(line: bytes) -> str | None:
    try:
        text = json.loads(line)
    except ValueError:
        return None
    return text if isinstance(text, str) and text.strip() else None
