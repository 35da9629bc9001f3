"""The program of the image server.

    python -m gpustack.launchers.images --model FOLDER --host 127.0.0.1 --port 8080 --device cuda:0

FOLDER holds a pipeline of diffusers (model_index.json). The key, if any, comes from GPUSTACK_ENGINE_API_KEY.
Exit codes: 0 after SIGTERM, 1 if the model cannot be loaded or the port not be taken, 2 if the arguments are wrong;
each with one sentence on stderr. It outlives whoever started it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from gpustack.launchers.service.app import EngineService
from gpustack.launchers.service.argument import at_least_one, device_of
from gpustack.launchers.service.program import DRAIN_SECONDS, engine_key, say, serve_until_told
from gpustack.launchers.service.work import WorkQueue

from .diffusers_painter import DiffusersPainter
from .drawing_paths import DrawingPaths, DrawLimits

NAME = "images"
DTYPES = ("auto", "float16", "bfloat16", "float32")


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; ends the program with code 2 and a sentence where it is wrong."""
    parser = argparse.ArgumentParser(prog=NAME, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="folder with model_index.json")
    parser.add_argument("--served-model-name", default=None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", type=device_of, default=("cpu", 0), help="cpu, cuda, or cuda:INDEX")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--cpu-threads", type=at_least_one, default=4)
    parser.add_argument("--max-waiting", type=at_least_one, default=64, help="requests that may wait")
    parser.add_argument("--max-images", type=at_least_one, default=4, help="images of one request")
    parser.add_argument("--max-side", type=at_least_one, default=2048, help="pixels of the longer side")
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_SECONDS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to end; returns the exit code."""
    settings = parsed(sys.argv[1:] if argv is None else argv)
    key = engine_key()
    if not Path(settings.model, "model_index.json").is_file():
        say(
            NAME,
            f"the server did not start: {settings.model} holds no pipeline of diffusers (model_index.json)",
        )
        return 1
    if _holds_code(settings.model):
        say(
            NAME,
            f"the server did not start: {settings.model} holds code (*.py); models that bring code are not run",
        )
        return 1
    try:
        painter = DiffusersPainter(
            settings.model,
            device=settings.device,
            dtype=settings.dtype,
            cpu_threads=settings.cpu_threads,
            side=settings.max_side,
        )
    except ImportError as error:
        say(
            NAME,
            f"the server did not start: diffusers is not installed here: pip install 'gpustack[images]' ({error})",
        )
        return 1
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        say(NAME, f"the server did not start: the pipeline cannot be loaded: {error}")
        return 1
    work = WorkQueue(1, settings.max_waiting)
    work.count("images", 0)
    model = {
        "id": settings.served_model_name or Path(settings.model).name,
        "object": "model",
        "created": 0,
        "owned_by": "gpustack",
    }
    paths = DrawingPaths(painter, work, DrawLimits(images=settings.max_images, side=settings.max_side))
    service = EngineService(model=model, key=key, routes=paths.routes, work=work, prefix="images:")
    try:
        trio.run(serve_until_told, service, NAME, settings.host, settings.port, settings.drain_seconds)
    except OSError as error:
        say(NAME, f"the server did not start: port {settings.port}: {error.strerror or error}")
        return 1
    return 0


def _holds_code(folder: str) -> bool:
    """Whether there is Python in the folder, at any depth: versions of diffusers differ in what they run of it."""
    return any(name.lower().endswith(".py") for _, _, names in os.walk(folder) for name in names)


if __name__ == "__main__":
    sys.exit(main())
