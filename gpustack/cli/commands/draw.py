"""Have a deployed model draw an image, and keep it in a file.

Usage:
  gpustack draw [options] [--] MODEL PROMPT...

Prints the name of the file.

Options:
  -o, --output=FILE       Where the image goes (default: a name made of the prompt and the time, in this folder).
  --size=SIZE             Width and height (default: 512x512).
  --negative-prompt=TEXT  What should not be in it.
  --seed=NUMBER           The same number draws the same image again.
  --sample-steps=NUMBER   How many steps are taken.
  --sampler=NAME          By which method, such as euler.
  --cfg-scale=NUMBER      How closely the prompt is followed.
  --show                  Open the image when it is there.
  -h, --help              Show this help.

What is not given is left to the engine.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpustack.cli.command_line import CommandLine, given_only, read
from gpustack.cli.session import open_session
from gpustack.cli.terminal import stderr
from gpustack.errors import Unavailable

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_SIZE = re.compile(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}", re.ASCII)
_KINDS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}
_LONGEST_STEM = 23
_OPENERS = ("xdg-open", "open")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Ask, write the file, print its name."""
    command_line = read(__doc__, "draw", argv)
    wanted, prompt = request_fields(command_line), " ".join(command_line.many("PROMPT"))
    session, aside, name = open_session(env), stderr(env), command_line.required("MODEL")
    aside.draw("drawing")
    try:
        image = session.run(lambda client: _image(client, {"model": name, "prompt": prompt, **wanted}))
    finally:
        aside.clear()
    asked = command_line.text("--output")
    path = Path.cwd() / (asked or file_name(prompt, image, datetime.now().astimezone()))
    try:
        path.write_bytes(image)
    except OSError as error:
        raise Unavailable(f"The image cannot be written to {path}: {error.strerror}") from error
    print(path if asked is None else asked)
    if command_line.flag("--show") and not _opened(path):
        aside.say("No program to show it was found: look for xdg-open.")
    return 0


def request_fields(command_line: CommandLine) -> dict[str, Any]:
    """What the options set of a request; raises UsageError."""
    size = command_line.text("--size") or "512x512"
    if not _SIZE.fullmatch(size):
        raise command_line.error(f"--size must be WIDTHxHEIGHT in pixels, such as 512x512, not {size!r}")
    return given_only(
        {
            "n": 1,
            "size": size,
            "response_format": "b64_json",
            "negative_prompt": command_line.text("--negative-prompt"),
            "sampler": command_line.text("--sampler"),
            "seed": command_line.whole("--seed"),
            "sample_steps": command_line.whole("--sample-steps", least=1),
            "cfg_scale": command_line.number("--cfg-scale"),
        }
    )


def file_name(prompt: str, image: bytes, now: datetime) -> str:
    """A file name that says what is drawn, and when it was."""
    stem = re.sub(r"[^\w-]+", "_", prompt[:_LONGEST_STEM]).strip("_") or "image"
    kind = next((kind for magic, kind in _KINDS.items() if image.startswith(magic)), ".png")
    return f"{stem}_{now:%Y%m%d_%H%M%S}{kind}"


async def _image(client: AdminClient, document: dict[str, Any]) -> bytes:
    import base64

    answer = await client.draw(document)
    try:
        return base64.b64decode(answer["data"][0]["b64_json"], validate=True)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Unavailable(
            f"{document['model']} answered, but not with an image: is it a model that draws?"
        ) from error


def _opened(path: Path) -> bool:
    """Whether a program of the desktop opened the file."""
    program = next((found for name in _OPENERS if (found := shutil.which(name))), None)
    return program is not None and subprocess.run([program, str(path)], check=False).returncode == 0
