"""The program of the speech server.

    python -m gpustack.launchers.audio --model FOLDER --host 127.0.0.1 --port 8080 --device cuda:0

FOLDER holds Whisper for CTranslate2, or voices of Piper or Kokoro; the word espeak-ng stands for that program's voices.
The key, if any, comes from GPUSTACK_ENGINE_API_KEY. Exit codes: 0 after SIGTERM, 1 if the model cannot be loaded or the
port not be taken, 2 if the arguments are wrong; each with one sentence on stderr. It outlives whoever started it.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from gpustack.launchers.service.app import EngineService, Handler
from gpustack.launchers.service.program import engine_key, say, serve_until_told
from gpustack.launchers.service.work import WorkQueue

from .kind import SpeechKind, UnknownSpeechModel, folder_of, kind_of
from .options import NAME, parsed

_PREFIX = "voxbox:"


class StartFailure(Exception):
    """The server cannot start; ``str()`` is a sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to end; returns the exit code."""
    settings = parsed(sys.argv[1:] if argv is None else argv)
    key = engine_key()
    try:
        kind = kind_of(settings.model)
        if kind is SpeechKind.WHISPER:
            trio.run(_listen, settings, key)
        else:
            trio.run(_speak, settings, kind, key)
    except (UnknownSpeechModel, StartFailure) as fault:
        say(NAME, f"the server did not start: {fault}")
        return 1
    except OSError as error:
        say(NAME, f"the server did not start: port {settings.port}: {error.strerror or error}")
        return 1
    return 0


async def _listen(settings: Namespace, key: str | None) -> None:
    """Serve transcriptions. Raises ``StartFailure``."""
    from .transcriber import Transcriber
    from .transcription import TranscriptionPaths

    try:
        transcriber = Transcriber(
            str(folder_of(settings.model)),
            device=settings.device,
            compute_type=settings.compute_type,
            cpu_threads=max(1, settings.cpu_threads // settings.parallel),
            workers=settings.parallel,
            beam_size=settings.beam_size,
            vad=not settings.no_vad,
            most_seconds=settings.max_audio_seconds,
        )
    except ImportError as error:
        raise StartFailure(
            f"faster-whisper is not installed here: pip install 'gpustack[audio]' ({error})"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        raise StartFailure(f"Whisper cannot be loaded: {error}") from error
    work = WorkQueue(settings.parallel, settings.max_waiting)
    work.count("audio_seconds", 0)
    await _serve(
        settings,
        key,
        work,
        {"languages": list(transcriber.languages)},
        TranscriptionPaths(transcriber, work).routes,
    )


async def _speak(settings: Namespace, kind: SpeechKind, key: str | None) -> None:
    """Serve speech. Raises ``StartFailure``."""
    from .speaker import SpeakerFailure, SpeakerPool
    from .speech import SpeechPaths

    speakers = SpeakerPool(kind, settings.model)
    try:
        await speakers.add()
        if settings.voice is not None and settings.voice not in speakers.voices:
            raise StartFailure(f"--voice {settings.voice}: there is no such voice")
        work = WorkQueue(settings.parallel, settings.max_waiting)
        work.count("speech_seconds", 0)
        paths = SpeechPaths(speakers, work, voice=settings.voice, most=settings.max_input_chars)
        await _serve(settings, key, work, {"voices": list(speakers.voices)}, paths.routes)
    except SpeakerFailure as fault:
        raise StartFailure(str(fault)) from fault
    finally:
        await speakers.close()


async def _serve(
    settings: Namespace,
    key: str | None,
    work: WorkQueue,
    about: Mapping[str, Any],
    routes: Mapping[tuple[str, str], Handler],
) -> None:
    name = settings.served_model_name or Path(settings.model).name
    model = {"id": name, "object": "model", "created": 0, "owned_by": "gpustack", **about}
    service = EngineService(model=model, key=key, routes=routes, work=work, prefix=_PREFIX)
    await serve_until_told(service, NAME, settings.host, settings.port, settings.drain_seconds)


if __name__ == "__main__":
    sys.exit(main())
