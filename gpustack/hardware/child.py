"""Runs another program for its output: in a session of its own, with a deadline and a bound on what it writes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

import attrs
import trio

from gpustack.text import said_by

KILL_WITHIN = 2.0
"""Seconds in which a killed child must be gone. One that hangs inside a driver cannot be killed at all."""

DRAIN_WITHIN = 1.0
"""Seconds after the end of the child in which its last output is still read."""


@attrs.frozen(kw_only=True)
class ChildResult:
    """What the child wrote, and its exit code; or why there is none (``fault``, a clause for a sentence).

    ``stuck`` is a child that is still there after it was killed. Whoever runs it again should wait until it is gone.
    """

    code: int | None = None
    out: bytes = b""
    err: bytes = b""
    fault: str | None = None
    stuck: trio.Process | None = attrs.field(default=None, repr=False)


async def run_child(
    argv: Sequence[str],
    *,
    deadline: float,
    env: Mapping[str, str] | None = None,
    limit: int = 4 << 20,
) -> ChildResult:
    """Run ``argv`` for at most ``deadline`` seconds and return what it wrote, up to ``limit`` bytes a stream.

    Its whole process group is killed when the deadline is over, when it writes more, and when this is cancelled.
    Raises nothing: the result tells of every failure.
    """
    try:
        process = await trio.lowlevel.open_process(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    except OSError as error:
        return ChildResult(fault=f"could not be started ({said_by(error)})")
    out, err = _BoundedOutput(limit), _BoundedOutput(limit)
    answered = False
    try:
        with trio.move_on_after(deadline):
            async with trio.open_nursery() as nursery:
                assert process.stdout is not None and process.stderr is not None
                nursery.start_soon(out.read_from, process.stdout)
                nursery.start_soon(err.read_from, process.stderr)
                await process.wait()
                answered = True
                # a process that it left behind may keep its pipes open for ever
                nursery.cancel_scope.deadline = trio.current_time() + DRAIN_WITHIN
    finally:
        gone = await _end(process)
    fault = None
    if not answered:
        fault = f"did not answer within {deadline:g} s"
    elif out.overrun or err.overrun:
        fault = f"said more than {limit} bytes"
    return ChildResult(
        code=process.returncode if answered else None,
        out=bytes(out.text),
        err=bytes(err.text),
        fault=fault,
        stuck=None if gone else process,
    )


async def _end(process: trio.Process) -> bool:
    """Kill the group and wait for the child; false when it is still there after ``KILL_WITHIN`` seconds."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_WITHIN):
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()
        await process.wait()
    return process.returncode is not None


@attrs.define(eq=False)
class _BoundedOutput:
    limit: int
    text: bytearray = attrs.field(factory=bytearray)
    overrun: bool = False

    async def read_from(self, stream: trio.abc.ReceiveStream) -> None:
        """Keep up to ``limit`` bytes and read on past them, so that the child does not block on a full pipe."""
        async for chunk in stream:
            room = self.limit - len(self.text)
            self.overrun = self.overrun or len(chunk) > room
            self.text += chunk[:room]
