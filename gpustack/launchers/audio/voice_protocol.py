"""What the server and the process that speaks say to each other over pipes.

To the process: one JSON line for each text (``text``, ``voice``, ``speed``), and ``stop`` to end the one under way.
From it: frames of a kind (one byte), a length (four bytes, big-endian) and a content.
"""

from __future__ import annotations

import struct
from enum import Enum

HEAD = struct.Struct(">cI")
LONGEST = 16 << 20
STOP = b"stop\n"


class FrameKind(bytes, Enum):
    """What a frame holds."""

    READY = b"V"
    """A JSON object with ``voices``: sent once."""
    RATE = b"R"
    """Samples per second, as decimal digits: the first of each text."""
    SOUND = b"S"
    """Samples: signed, 16 bits, little-endian, one channel."""
    END = b"E"
    """The text was spoken, or stopped."""
    FAULT = b"F"
    """A sentence: why the text, or any, cannot be spoken."""


def frame(kind: FrameKind, content: bytes = b"") -> bytes:
    return HEAD.pack(kind.value, len(content)) + content
