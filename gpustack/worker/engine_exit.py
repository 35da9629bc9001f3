"""One sentence on how an engine ended, with the reason that its log gives."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from gpustack.nursery.group import ExitStatus
from gpustack.text import printable

_SEARCHED = 256 << 10
"""Bytes at the end of a log in which the reason is searched."""
_SHOWN = 300

_LEVEL = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} (?P<level>[A-Z]) +")
"""How a line of llama.cpp begins: a time and a level."""
_CRASH = re.compile(
    r"GGML_ASSERT\(|(?:CUDA|ROCm|HIP|Vulkan|MUSA|CANN) error\b|what\(\): |Segmentation fault"
    r"|(?:^|[\s\]])(?P<exception>[A-Za-z_][\w.]*(?:Error|Exception)): (?=\S)|^.*?\bValue error, (?=\S)"
)
"""What a program writes when it cannot go on, and hardly ever otherwise."""
_FAULT = re.compile(
    r"\b(?:errors?|failed|fatal|cannot|can't|couldn't|could not|unable|invalid|unknown|unrecognized|not found|no such"
    r"|denied|insufficient|out of memory|mismatch)\b",
    re.IGNORECASE,
)
_OURS = re.compile(r"\bllama_cpp: (?!listening on )")
_CONSEQUENCE = re.compile(
    r"failed to load (?:the |multimodal |draft |CLIP )?model(?:,? from '?[^']*'?|,? '[^']*')?$"
    r"|trying to fit params|exiting due to|failed to create.context|failed to init server|failed to measure"
    r"|failed to get memory usage|failed to load lora adapter '[^']*'$"
    r"|Engine ?core initialization failed|WorkerProc initialization failed|Engine ?Core failed to start"
    r"|EngineDeadError|(?:Engine core proc|WorkerProc|Worker proc)\b.* died unexpectedly|EngineGenerateError"
    r"|\bvalidation errors? for "
    r"|failed to allocate compute|^graph_reserve: |ggml_gallocr_reserve|failed to allocate buffer of size",
    re.IGNORECASE,
)
"""Errors of llama.cpp and vLLM that follow from another one, written before."""
_BESIDES = re.compile(r"^$|cleaning up before exit")
_CAUSE = re.compile(r"^.*?(?:error loading model: |what\(\): +|\bValue error, )(?=\S)")
"""What comes before the reason in a line that contains it."""
_BEHIND = re.compile(r" \[type=\w+, input_value=.*$")
"""What pydantic adds to a reason."""
_FILE = re.compile(r"failed to load model from (?P<file>\S.*)$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PROJECTOR = re.compile(r"\b(?:mtmd|clip|mmproj|multimodal)", re.IGNORECASE)

_PORT_TAKEN = re.compile(
    r"\baddress already in use|\bEADDRINUSE\b|failed to create server socket|couldn't bind (?:HTTP )?server socket",
    re.IGNORECASE,
)

_OUT_OF_MEMORY = ", which the kernel sends when memory runs out"


def describe_exit(how: ExitStatus, log: Path, *, ready: bool, projector: str | None = None) -> str:
    """How it ended, and the reason that its log gives. Reads the log: call it in a thread.

    ``projector`` is the file that it was given beside its model; it is named if the log complains of a projector.
    """
    when = "" if ready else " before it was ready"
    lines = _read(log)
    if not any(lines):
        return f"The engine {_ended(how)}{when}; its log is empty"
    reason = _crash(lines) if ready else _cause(lines)
    if reason:
        return f"The engine {_ended(how)}{when}: {reason}{_blamed(projector, lines)}"
    if how.code is None and how.signal is None:
        return f"The engine ended{when}; an earlier daemon had started it, so its exit code is not known"
    last = next(line for line in reversed(lines) if line)
    return f"The engine {_ended(how)}{when}; its log ends: {_plain(last)}"


def is_port_taken(sentence: str) -> bool:
    """Whether a sentence of ``describe_exit`` says that somebody took a port between its lease and the start.

    Ports come from a range out of which the kernel also gives them to clients, so that is nobody's fault.
    """
    return _PORT_TAKEN.search(sentence) is not None


def _read(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            whole = file.tell() <= _SEARCHED
            file.seek(0 if whole else file.tell() - _SEARCHED)
            lines = _COLOUR.sub("", file.read().decode(errors="replace")).splitlines()
    except OSError:
        return []
    return [printable(line.strip()) for line in (lines if whole else lines[1:] or lines)]


def _crash(lines: Sequence[str]) -> str:
    """The last line of a crash. An engine that served has logged other errors too, but those are of requests."""
    crashes = [line for line in reversed(lines) if _CRASH.search(line)]
    causes = [line for line in crashes if not _CONSEQUENCE.search(line)]
    return next((_plain(line) for line in (*causes, *crashes)), "")


def _cause(lines: Sequence[str]) -> str:
    """The first error in the last group of errors that does not follow from another one; else in the whole log."""
    complaints = (
        _last_complaint(lines),
        [line for line in lines if _CRASH.search(line)],
        [line for line in lines if _is_fault(line)],
    )
    causes = [line for faults in complaints for line in faults if not _CONSEQUENCE.search(line)]
    if causes:
        named = [found["file"] for found in map(_FILE.search, lines) if found]
        where = f" ({named[0]})" if named and "gguf_init" in causes[0] else ""
        return f"{_plain(causes[0])}{where}"
    return next((_plain(line) for faults in complaints for line in faults), "")


def _last_complaint(lines: Sequence[str]) -> list[str]:
    """The group of error lines at the end, in the order in which they were written."""
    found: list[str] = []
    for line in reversed(lines):
        if _is_fault(line):
            found.append(line)
        elif found and not _BESIDES.search(line):
            break
    return found[::-1]


def _is_fault(line: str) -> bool:
    level = _LEVEL.match(line)
    if level is not None:
        return level["level"] in "EF"
    return bool(_CRASH.search(line) or _FAULT.search(line) or _OURS.search(line))


def _plain(line: str) -> str:
    """A line without time, level and other prefixes, at most 300 characters long."""
    crash = _CRASH.search(line)
    if crash is not None and crash["exception"]:
        words = line[crash.start("exception") :]
    elif cause := _CAUSE.search(line):
        words = line[cause.end() :]
    else:
        words = _LEVEL.sub("", line)
    return " ".join(_BEHIND.sub("", words).split())[:_SHOWN]


def _blamed(projector: str | None, lines: Sequence[str]) -> str:
    if projector is None or not any(_is_fault(line) and _PROJECTOR.search(line) for line in lines):
        return ""
    return (
        f". It was given the projector {printable(projector)} beside the model: backend parameter --no-mmproj "
        "leaves it out, --mmproj names another"
    )


def _ended(how: ExitStatus) -> str:
    if how.signal is not None:
        try:
            name = signal.Signals(how.signal).name
        except ValueError:
            name = f"signal {how.signal}"
        return f"was ended by {name}{_OUT_OF_MEMORY if how.signal == signal.SIGKILL else ''}"
    return "ended" if how.code is None else f"exited with code {how.code}"
