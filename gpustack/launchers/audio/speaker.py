"""The processes that speak: as many as texts may be spoken at a time, started anew where one has ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import attrs
import trio

from gpustack.launchers.service.call import ServiceFault

from .voice_protocol import HEAD, LONGEST, STOP, FrameKind

LOADS_WITHIN = 120.0
_ANSWERS_WITHIN = 120.0
"""Seconds that a process may be silent while it speaks."""
_STOPS_WITHIN = 5.0
_PIECE = 64 << 10


class SpeakerFailure(Exception):
    """The voices cannot be loaded; ``str()`` is a sentence."""


@attrs.frozen(kw_only=True)
class SoundPiece:
    """Samples (signed, 16 bits, little-endian, one channel) and how many of them make a second."""

    rate: int
    samples: bytes = attrs.field(repr=False)


@attrs.define(eq=False)
class Speaker:
    """One process. It speaks one text at a time."""

    process: trio.Process
    voices: tuple[str, ...] = ()
    _buffer: bytes = attrs.field(default=b"", repr=False)

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[SoundPiece]:
        """The sound, as it is made. Raises ``ServiceFault`` where the text cannot be spoken, or the process ends.

        Left alone before the end, the process has yet to be stopped: see ``stop``.
        """
        assert self.process.stdin is not None
        line = json.dumps({"text": text, "voice": voice, "speed": speed}).encode() + b"\n"
        rate = 0
        try:
            await self.process.stdin.send_all(line)
            while True:
                with trio.fail_after(_ANSWERS_WITHIN):
                    kind, content = await self.frame()
                match kind:
                    case FrameKind.RATE:
                        rate = int(content)
                    case FrameKind.SOUND:
                        yield SoundPiece(rate=rate, samples=content)
                    case FrameKind.FAULT:
                        raise ServiceFault(content.decode("utf-8", "replace"), param="input")
                    case _:
                        return
        except (OSError, trio.BrokenResourceError, trio.TooSlowError, EOFError) as error:
            self.process.kill()
            raise ServiceFault("The process that speaks has ended or hangs at this text", 500) from error

    async def stop(self) -> None:
        """Have the text under way stopped. Shielded; a process that does not stop in time is ended."""
        assert self.process.stdin is not None
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _STOPS_WITHIN) as patience:
            try:
                await self.process.stdin.send_all(STOP)
                while (await self.frame())[0] not in (FrameKind.END, FrameKind.FAULT):
                    pass
            except (OSError, trio.BrokenResourceError, EOFError):
                self.process.kill()
        if patience.cancelled_caught:
            self.process.kill()

    async def frame(self) -> tuple[FrameKind, bytes]:
        """The next frame. Raises ``EOFError`` at the end, or at what is none."""
        kind, length = HEAD.unpack(await self._exactly(HEAD.size))
        if length > LONGEST:
            raise EOFError
        try:
            return FrameKind(kind), await self._exactly(length)
        except ValueError as error:
            raise EOFError from error

    async def _exactly(self, size: int) -> bytes:
        assert self.process.stdout is not None
        while len(self._buffer) < size:
            piece = await self.process.stdout.receive_some(_PIECE)
            if not piece:
                raise EOFError
            self._buffer += piece
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found


class SpeakerPool:
    """Speakers that wait for texts. Used within ``open_speakers``."""

    def __init__(self, kind: str, model: str) -> None:
        self._command = [sys.executable, "-P", "-m", "gpustack.launchers.audio.voice_process", kind, model]
        self._idle: list[Speaker] = []
        self.voices: tuple[str, ...] = ()

    async def start_one(self) -> Speaker:
        """Start a process and wait until it has its voices. Raises ``SpeakerFailure``."""
        process = await trio.lowlevel.open_process(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
        )
        speaker, said = Speaker(process), ""
        try:
            with trio.move_on_after(LOADS_WITHIN):
                kind, content = await speaker.frame()
                if kind is FrameKind.READY:
                    self.voices = speaker.voices = tuple(json.loads(content)["voices"])
                    return speaker
                said = content.decode("utf-8", "replace")
        except EOFError:
            said = "The process that loads the voices ended; see above"
        finally:
            if not speaker.voices:
                await _end(speaker)
        raise SpeakerFailure(said or f"The voices were not loaded within {LOADS_WITHIN:g} s")

    @asynccontextmanager
    async def speaking(self, text: str, voice: str, speed: float) -> AsyncIterator[AsyncIterator[SoundPiece]]:
        """The sound of a text. When the block is left early, the process is stopped and can speak again."""
        speaker = await self._take()
        ended = False

        async def pieces() -> AsyncGenerator[SoundPiece, None]:
            nonlocal ended
            async for piece in speaker.speak(text, voice, speed):
                yield piece
            ended = True

        try:
            async with aclosing(pieces()) as made:
                yield made
        except ServiceFault:
            ended = True
            raise
        finally:
            if not ended:
                await speaker.stop()
            if speaker.process.poll() is None:
                self._idle.append(speaker)
            else:
                await _end(speaker)

    async def add(self) -> None:
        """Start a process that waits for a text."""
        self._idle.append(await self.start_one())

    async def close(self) -> None:
        """End all processes."""
        for speaker in self._idle:
            await _end(speaker)

    async def _take(self) -> Speaker:
        while self._idle:
            speaker = self._idle.pop()
            if speaker.process.poll() is None:
                return speaker
            await _end(speaker)
        try:
            return await self.start_one()
        except SpeakerFailure as error:
            raise ServiceFault(str(error), 500) from error


async def _end(speaker: Speaker) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _STOPS_WITHIN):
        if speaker.process.poll() is None:
            speaker.process.kill()
        await speaker.process.wait()
        for stream in (speaker.process.stdin, speaker.process.stdout):
            if stream is not None:
                await stream.aclose()
