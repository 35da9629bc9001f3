"""Asks another program a question: in a session of its own, with a deadline and bounded answers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

import attrs
import trio

from gpustack.text import said_by

BURIAL = 2.0
"""Seconds a killed child may take to be gone. One that hangs inside a driver cannot be killed at all."""

LAST_WORDS = 1.0
"""Seconds after the end of the child in which what it wrote last is still read."""


@attrs.frozen(kw_only=True)
class ChildResult:
    """What the child said before it ended, or why there is no answer (``fault``, a clause for a sentence).

    ``stuck`` is the child that outlived its killing; whoever asks again should see that it is gone first.
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

    Its whole process group is killed when it is late, says too much, or we are cancelled. Raises nothing of its own.
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
                nursery.start_soon(out.listen, process.stdout)
                nursery.start_soon(err.listen, process.stderr)
                await process.wait()
                answered = True
                # a process it left behind may hold its pipes open for ever
                nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS
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
    """Kill the group and bury the child; false when it is still there after a while."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + BURIAL):
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

    async def listen(self, stream: trio.abc.ReceiveStream) -> None:
        """Keep up to ``limit`` bytes and read on past them, so that the child does not block on a full pipe."""
        async for chunk in stream:
            room = self.limit - len(self.text)
            self.overrun = self.overrun or len(chunk) > room
            self.text += chunk[:room]
