"""Environment variables that the daemon, its libraries or its children read: which they are, and trimming them.

Imports ``text.py`` and the standard library only: every command runs through here, also those that must start fast.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from gpustack.text import trimmed

_STARTS = ("GPUSTACK_", "GPU_STACK_", "HF_", "HUGGING_FACE_", "SSL_CERT_")
_ENDS = ("_PROXY", "_proxy")


def is_read(name: str) -> bool:
    """Whether a variable of that name has a meaning to the daemon, to its libraries or to its children."""
    return name.startswith(_STARTS) or name.endswith(_ENDS)


def trim(environ: MutableMapping[str, str]) -> None:
    """Remove white space at both ends of those variables in ``environ``; libraries that read them do not do it."""
    for name, value in list(environ.items()):
        if is_read(name) and (meant := trimmed(value)) != value:
            environ[name] = meant
