"""What detectors ask of the machine: tools, files, and calls into a library.

Every question goes through a ``DeviceProbe``, so that the answers can be recorded (``recording.py``) and given again.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

from gpustack.text import printable, said_by

TOOL_DEADLINE = 4.0
"""Seconds that one run of a vendor's tool may take. A look as a whole has ``detection.DEADLINE``."""
LOOK_DEADLINE = 9.0
"""Seconds for all tools of one look together, a little less than whoever waits for the look allows: then what the first
ones said is not lost."""
LONGEST_OUTPUT = 1 << 20
"""Bytes of a tool's output; the longest known (``amd-smi metric`` of eight cards) has 60 KiB."""
LONGEST_FILE = 1 << 16
MOST_NAMES = 4096


@attrs.frozen(kw_only=True)
class ToolAnswer:
    """What a tool wrote to its standard output, or to the file that it was asked for.

    ``fault`` is a clause ("is not installed", "did not answer within 4 s"); what it wrote before stands beside it. A
    tool that failed may have told of some devices all the same.
    """

    out: str = ""
    fault: str | None = None
    is_installed: bool = True


NOT_INSTALLED = ToolAnswer(fault="is not installed", is_installed=False)


@attrs.frozen(kw_only=True)
class CallAnswer:
    """The answer of a library as plain JSON values; or the name of its error, and the library's words for it."""

    value: Any = None
    error: str | None = None
    said: str = ""


class Library(Protocol):
    """A library that can be called by name, with plain values."""

    def call(self, function: str, *arguments: Any) -> CallAnswer:
        """Blocking, and may hang. Raises nothing of the library's own."""
        ...


class DeviceProbe(Protocol):
    """Blocking questions to the machine. None of them raises; what cannot be asked has a fault, or is unknown."""

    def run(self, tool: str, *arguments: str, file: str | None = None) -> ToolAnswer:
        """Run a vendor's tool. ``file``: it writes its answer there, in its working directory."""
        ...

    def read(self, path: str) -> str | None:
        """The text of a small file, without spaces around it; ``None`` where it cannot be read."""
        ...

    def names(self, path: str) -> tuple[str, ...]:
        """What is in a folder, sorted."""
        ...

    def call(self, function: str, *arguments: Any) -> CallAnswer:
        """Call the detector's library."""
        ...


@attrs.define(eq=False, kw_only=True)
class MachineProbe:
    """The machine itself. ``folders`` are looked through for tools after PATH; ``root`` is where files are read."""

    folders: Sequence[str] = ()
    root: Path = Path("/")
    deadline: float = TOOL_DEADLINE
    budget: float = LOOK_DEADLINE
    library: Library | None = None
    left: list[tuple[int, int]] = attrs.field(factory=list, init=False)
    """Tools that outlive their killing, because they hang inside the driver: pid and ``started_at``."""
    _begun: float = attrs.field(factory=time.monotonic, init=False)

    def run(self, tool: str, *arguments: str, file: str | None = None) -> ToolAnswer:
        program = find_tool(tool, self.folders)
        if program is None:
            return NOT_INSTALLED
        if self.left:
            return ToolAnswer(fault="was not run: another run hangs inside the driver")
        with tempfile.TemporaryDirectory(prefix="gpustack-look-", ignore_cleanup_errors=True) as folder:
            left = self._begun + self.budget - time.monotonic()
            answer, pid = _run([program, *arguments], folder, max(0.1, min(self.deadline, left)))
            start = None if pid is None else started_at(pid)
            if pid is not None and start is not None:
                self.left.append((pid, start))
            if file is None:
                return answer
            written = _read(Path(folder, file), LONGEST_OUTPUT)
            if written is None:
                return attrs.evolve(answer, out="", fault=answer.fault or f"did not write {file}")
            return attrs.evolve(answer, out=written)

    def read(self, path: str) -> str | None:
        found = _read(self.root / path.lstrip("/"), LONGEST_FILE)
        return None if found is None else found.strip()

    def names(self, path: str) -> tuple[str, ...]:
        try:
            with os.scandir(self.root / path.lstrip("/")) as entries:
                return tuple(sorted(entry.name for _, entry in zip(range(MOST_NAMES), entries, strict=False)))
        except OSError:
            return ()

    def call(self, function: str, *arguments: Any) -> CallAnswer:
        if self.library is None:
            return CallAnswer(error="LibraryNotFound", said="this detector has no library")
        return self.library.call(function, *arguments)


def find_tool(tool: str, folders: Sequence[str] = ()) -> str | None:
    """Where a tool is: on PATH, else in one of its vendor's folders."""
    return shutil.which(tool) or shutil.which(tool, path=os.pathsep.join(folders))


def _read(path: Path, limit: int) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return None


def started_at(pid: int) -> int | None:
    """When a process was started, in ticks since boot: another one of the same pid has another. ``None`` where it is
    gone, or a zombie, or the system does not tell."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(words[19]) if len(words) > 19 and words[0] not in "ZX" else None


def _run(argv: Sequence[str], folder: str, deadline: float) -> tuple[ToolAnswer, int | None]:
    """The answer, and the pid of a tool that could not be ended.

    In the process group of this child, so that whoever ends the child ends the tool; in no language but C.
    """
    kept = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    env = {
        **kept,
        "LC_ALL": "C",
        "LANG": "C",
        "LANGUAGE": "C",
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=folder,
        )
    except OSError as error:
        return ToolAnswer(fault=f"could not be started ({said_by(error)})"), None
    out, err, fault = _drain(process, time.monotonic() + deadline)
    if fault == "":
        fault = f"did not answer within {deadline:.2g} s"
    if fault is not None:
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        # one that hangs in the driver cannot be killed
        process.wait(0.5)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    text = out.decode("utf-8", "replace")
    if fault is None and process.returncode:
        last = err.decode("utf-8", "replace").strip().splitlines()[-1:]
        why = "".join(f" ({printable(line, 200)})" for line in last)
        fault = f"ended with {ending(process.returncode)}{why}"
    return ToolAnswer(out=text, fault=fault), process.pid if process.poll() is None else None


def _is_ours(name: str) -> bool:
    """Settings of this program, and what may be a secret: no business of a vendor's tool."""
    return name.startswith("GPUSTACK_") or any(
        word in name.upper() for word in ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "CREDENTIAL")
    )


def ending(code: int) -> str:
    """The end of a process in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _drain(process: subprocess.Popen[bytes], end: float) -> tuple[bytes, bytes, str | None]:
    """Output and errors until the process has ended, and a fault: "" when the time was up before."""
    kept = {"out": bytearray(), "err": bytearray()}
    with selectors.DefaultSelector() as selector:
        for name, stream in (("out", process.stdout), ("err", process.stderr)):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, name)
        fault: str | None = None
        while selector.get_map() and fault is None:
            left = end - time.monotonic()
            ready = selector.select(min(max(left, 0.0), 0.2))
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                kept[key.data] += chunk
                if not chunk:
                    selector.unregister(key.fileobj)
            if any(len(text) > LONGEST_OUTPUT for text in kept.values()):
                fault = f"said more than {LONGEST_OUTPUT} bytes"
            elif not ready and process.poll() is not None:
                # whom it left behind holds its pipes open
                break
            elif left <= 0:
                fault = ""
        if fault is None and process.poll() is None:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                fault = ""
    return bytes(kept["out"][:LONGEST_OUTPUT]), bytes(kept["err"]), fault
