"""Files that commands read: those that are named, or stdin."""

from __future__ import annotations

import sys
from pathlib import Path

from gpustack.cli.command_line import CommandLine


def read_input(command_line: CommandLine, name: str, longest: int) -> bytes:
    """The content of a file, or of stdin for ``-``. Raises UsageError for one that cannot be read, or has more than
    ``longest`` bytes."""
    try:
        if name == "-":
            content = sys.stdin.buffer.read(longest + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(longest + 1)
    except OSError as error:
        raise command_line.error(f"{name}: {error.strerror or error}") from error
    if len(content) > longest:
        raise command_line.error(f"{name}: is longer than {longest} bytes")
    return content
