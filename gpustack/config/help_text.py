"""The help of the commands that take the options, which docopt reads as their grammar."""

from __future__ import annotations

import functools
import textwrap

from gpustack.config.option import Option, table
from gpustack.config.options import Options

_SUMMARY = {
    "start": "Run the GPUStack server with its built-in worker, or a worker that joins a server (--server-url).",
    "config": "Print every option as gpustack start would see it with the same flags, and where it came from.",
}
_TITLES = {"common": "Common options:", "server": "Server options:", "worker": "Worker options:"}
_WIDTH = 100
_INDENT = " " * 10


@functools.cache
def usage(command: str = "start") -> str:
    """The help of ``gpustack <command>``, ``start`` or ``config``, in the form that docopt reads."""
    flags = [option for option in table(Options) if option.flag]
    parts = [_SUMMARY[command], "", "Usage:", *_pattern(command, flags), ""]
    own = ["  -h, --help", f"{_INDENT}Show this help."]
    if command == "config":
        own += ["  --format=FORMAT", f"{_INDENT}table, yaml, env or markdown (default: table)."]
    for group, title in _TITLES.items():
        parts.append(title)
        if group == "common":
            parts += own
        for option in flags:
            if option.group == group and not option.hidden:
                parts += _entry(option)
        parts.append("")
    parts.append("Rarely needed:")
    for option in flags:
        if option.hidden:
            parts += _entry(option)
    parts += ["", *textwrap.wrap(_FOOT, _WIDTH)]
    return "\n".join(parts) + "\n"


_FOOT = (
    "Every option can be written in the environment as GPUSTACK_ and its name in upper case with _ for -, and in "
    "the YAML file under its name with _ for -. A flag wins over the environment, the environment over the file. "
    "A flag without a value is on; it can be turned off with =false."
)


def _pattern(command: str, flags: list[Option]) -> list[str]:
    # docopt allows an option of [options] once only, so options that may be repeated are written out.
    repeated = [f"[{option.flag}={option.metavar}]..." for option in flags if option.repeated]
    prefix = f"  gpustack {command} "
    lines = textwrap.wrap(" ".join(["[options]", *repeated]), _WIDTH - len(prefix), break_on_hyphens=False)
    return [prefix + lines[0], *(" " * len(prefix) + line for line in lines[1:])]


def _entry(option: Option) -> list[str]:
    names = option.flag if option.boolean else f"{option.flag}={option.metavar}"
    head = f"  {option.short}, {names}" if option.short else f"  {names}"
    text = f"{option.help} (default: {option.default_text})"
    return [head, *(_INDENT + line for line in _wrap(text))]


def _wrap(text: str) -> list[str]:
    """The lines of ``text``; none begins with a dash, which docopt would read as another option."""
    chunks: list[str] = []
    for word in text.split():
        if chunks and word.startswith("-"):
            chunks[-1] += f" {word}"
        else:
            chunks.append(word)
    lines = [chunks[0]]
    for chunk in chunks[1:]:
        if len(lines[-1]) + 1 + len(chunk) <= _WIDTH - len(_INDENT):
            lines[-1] += f" {chunk}"
        else:
            lines.append(chunk)
    return lines
