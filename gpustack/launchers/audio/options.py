"""The command line of the speech server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gpustack.launchers.service.argument import at_least_one, device_of
from gpustack.launchers.service.program import DRAIN_SECONDS

NAME = "vox_box"


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; ends the program with code 2 and a sentence where it is wrong."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="folder of a model, or espeak-ng")
    parser.add_argument("--served-model-name", default=None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--data-dir", type=Path, default=None, help="taken as the existing product's; not used"
    )
    parser.add_argument("--device", type=device_of, default=("cpu", 0), help="cpu, cuda, or cuda:INDEX")
    parser.add_argument("--compute-type", default="default", help="of CTranslate2: int8, float16, …")
    parser.add_argument("--cpu-threads", type=at_least_one, default=4)
    parser.add_argument("--parallel", type=at_least_one, default=2, help="requests worked on at a time")
    parser.add_argument("--max-waiting", type=at_least_one, default=64, help="requests that may wait")
    parser.add_argument("--max-audio-seconds", type=at_least_one, default=4 * 3600)
    parser.add_argument("--max-input-chars", type=at_least_one, default=4096)
    parser.add_argument("--beam-size", type=at_least_one, default=5)
    parser.add_argument("--no-vad", action="store_true", help="also listen to what sounds like silence")
    parser.add_argument("--voice", default=None, help="the voice of requests that say 'default'")
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_SECONDS)
    return parser.parse_args(argv)
