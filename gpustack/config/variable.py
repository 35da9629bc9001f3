"""Which variables of the environment we, our libraries and our children read, and how they are read as they are meant.

Only the standard library is imported here: every command comes through.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from gpustack.text import trimmed

_STARTS = ("GPUSTACK_", "GPU_STACK_", "HF_", "HUGGING_FACE_", "SSL_CERT_")
_ENDS = ("_PROXY", "_proxy")


def is_read(name: str) -> bool:
    """Whether the variable of that name means something to us, or to what is started by us."""
    return name.startswith(_STARTS) or name.endswith(_ENDS)


def trim(environ: MutableMapping[str, str]) -> None:
    """Take white space from both ends of those variables: libraries that read them by themselves do not."""
    for name, value in list(environ.items()):
        if is_read(name) and (meant := trimmed(value)) != value:
            environ[name] = meant
