"""What a client may take of us: sizes in bytes, times in seconds, counts of connections."""

from __future__ import annotations

import attrs

from gpustack.http1.fields import HEAD_LIMIT


@attrs.frozen(kw_only=True)
class ServerLimits:
    """Times are never cut short and at most two ticks of the reactor (about two seconds) late."""

    head_bytes: int = HEAD_LIMIT
    head_timeout: float = 15.0
    """From the first byte of a request (on a new connection: from its opening) to the end of its head."""
    idle_timeout: float = 75.0
    """Between two requests of a connection."""
    body_timeout: float = 60.0
    """Between two pieces of a request body."""
    whole_body_timeout: float = 900.0
    """For a request body from its head to its end, however steadily it comes: 64 MiB at half a megabit a second."""
    write_timeout: float = 60.0
    """Without the client taking a single byte of what is being sent to it."""
    connections: int = 16384
    connections_per_address: int | None = 4096
    linger_timeout: float = 5.0
    """After an early answer: how long what the client still sends is read and dropped, so that it gets
    the answer and not a reset."""
    linger_bytes: int = 64 * 1024 * 1024
