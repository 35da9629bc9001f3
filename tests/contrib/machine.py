"""A machine of its own for a test: a real systemd in a container, on top of a throw-away copy of this one's files."""

from __future__ import annotations

import ctypes
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.needs import requires, requires_root

CHECKOUT = Path(__file__).resolve().parents[2]
WITHIN = 60.0
"""Seconds anything here may take on a busy machine; nothing is measured by it."""
_TARGET = "gpustack-test.target"
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
_CLONE_NEWNET = 0x40000000
_REFUSED = ("Operation not permitted", "Permission denied", "Read-only file system")


@attrs.define(eq=False)
class Machine:
    """A booted container. ``root`` is its file system as seen from here, ``leader`` its first process."""

    root: Path
    leader: int
    log: Path

    def try_(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine; whatever it returns."""
        enter = ["nsenter", "--target", str(self.leader), *_NAMESPACES, "--wdns=/", "--", *command]
        return subprocess.run(
            enter, capture_output=True, text=True, timeout=WITHIN, stdin=subprocess.DEVNULL, env=_ENVIRONMENT
        )

    def run(self, *command: str) -> str:
        """Run a command in the machine that must succeed; what it prints."""
        done = self.try_(*command)
        assert done.returncode == 0, f"{command} returned {done.returncode}: {done.stderr}{self.journal()}"
        return done.stdout

    def show(self, unit: str, key: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--property", key, "--value", unit).strip()

    def journal(self) -> str:
        """The last of what the units and systemd said."""
        return self.try_("journalctl", "--no-pager", "--quiet", "--output=short", "--lines=40").stdout

    def processes(self, unit: str) -> set[int]:
        """The processes of a unit, engines too, by their number inside."""
        told = self.run("systemctl", "show", "--property=ControlGroup", "--value", unit).strip()
        if not told:
            return set()
        inside = (
            "for f in /sys/fs/cgroup{,/systemd,/unified}$0/cgroup.procs; do cat $f 2>/dev/null; done; true"
        )
        return {int(pid) for pid in self.run("bash", "-c", inside, told).split()}

    def alive(self, pid: int) -> bool:
        """Whether a process, by its number inside, is there and no zombie."""
        told = self.try_("cat", f"/proc/{pid}/stat").stdout
        return bool(told) and told.rsplit(")", 1)[1].split()[0] != "Z"

    def connect(self, port: int) -> socket.socket:
        """A connection to a port on the machine's own loopback, which nobody else reaches."""
        found: list[socket.socket | OSError] = []

        def dial() -> None:
            # A socket stays in the network it was made in; a thread leaves ours alone and ends with it.
            with Path(f"/proc/{self.leader}/ns/net").open("rb") as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _CLONE_NEWNET):
                    found.append(OSError(ctypes.get_errno(), "setns"))
                    return
            try:
                found.append(socket.create_connection(("127.0.0.1", port), timeout=WITHIN))
            except OSError as error:
                found.append(error)

        task = threading.Thread(target=dial)
        task.start()
        task.join()
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]

    @contextmanager
    def request(
        self, method: str, path: str, body: Any = None, *, port: int = 80
    ) -> Iterator[http.client.HTTPResponse]:
        """Send one request on a connection of its own; the answer, whose body is still to be read."""
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.sock = self.connect(port)
        with closing(connection):
            headers = {"content-type": "application/json", "connection": "close"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            with connection.getresponse() as answer:
                yield answer

    def call(self, method: str, path: str, body: Any = None, *, port: int = 80) -> tuple[int, Any]:
        """Status and parsed JSON of one request."""
        with self.request(method, path, body, port=port) as answer:
            said = answer.read()
        return answer.status, json.loads(said) if said else None

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        """The first truthy value of ``holds``; fails with the journal when there is none in time."""
        end = time.monotonic() + WITHIN
        while time.monotonic() < end:
            try:
                found = holds()
            except (OSError, http.client.HTTPException):  # nobody answers yet
                found = None
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"not in time: {what}\n{self.journal()}")


_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@contextmanager
def machine(folder: Path, binds: Mapping[Path, str]) -> Iterator[Machine]:
    """Boot one below ``folder``; ``binds`` says what of this machine is seen where in it. Gone with the block.

    It has the files of this machine, and a network with nobody else in it. Skips the test where that cannot be had.
    """
    requires_root()
    requires("systemd-nspawn", apt="systemd-container")
    requires("nsenter", apt="util-linux")
    with ExitStack() as stack:
        # Without systemd outside there is one place for the groups of all containers' processes.
        turn = stack.enter_context((Path(tempfile.gettempdir()) / "gpustack-test-machine.lock").open("w"))
        fcntl.flock(turn, fcntl.LOCK_EX)
        root = stack.enter_context(_copied_root(folder))
        _prepare(root, binds)
        log = folder / "boot.log"
        process = stack.enter_context(_container(root, binds, log))
        made = Machine(root, 0, log)
        try:
            made.leader = _leader(process, log)
            made.until(lambda: made.try_("systemctl", "is-active", _TARGET).returncode == 0, "the boot")
            yield made
        finally:
            _power_off(process, made.leader)


@contextmanager
def _copied_root(folder: Path) -> Iterator[Path]:
    upper, root = folder / "upper", folder / "root"
    upper.mkdir()
    root.mkdir()
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(upper))
    try:
        (upper / "files").mkdir()
        (upper / "work").mkdir()
        layers = f"lowerdir=/,upperdir={upper}/files,workdir={upper}/work"
        _mount("-t", "overlay", "-o", layers, "overlay", str(root))
        try:
            yield root
        finally:
            subprocess.run(["umount", "--lazy", str(root)], check=True, timeout=WITHIN)
    finally:
        subprocess.run(["umount", "--lazy", str(upper)], check=True, timeout=WITHIN)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=WITHIN)
    if done.returncode:
        _refused(done.stderr)
        raise AssertionError(done.stderr)


def _refused(said: str) -> None:
    """Skip the test, in CI too, where the machine lets nobody mount or make control groups: no package mends that."""
    if any(words in said for words in _REFUSED):
        pytest.skip(f"systemd cannot be booted in here: {said.strip()[-500:]}")


def _prepare(root: Path, binds: Mapping[Path, str]) -> None:
    units = root / "etc" / "systemd" / "system"
    # What this machine starts of itself is none of the test's business.
    shutil.rmtree(units)
    units.mkdir()
    (units / _TARGET).write_text("[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\nAllowIsolate=yes\n")
    # Nor are its disks; and a machine without a number of its own would take this for its first boot and ask.
    for name, text in (("fstab", ""), ("crypttab", ""), ("machine-id", f"{uuid.uuid4().hex}\n")):
        (root / "etc" / name).unlink(missing_ok=True)
        (root / "etc" / name).write_text(text)
    for inside in binds.values():
        (root / inside.lstrip("/")).mkdir(parents=True, exist_ok=True)


@contextmanager
def _container(root: Path, binds: Mapping[Path, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = ["systemd-nspawn", "--quiet", "--register=no", "--private-network", "--link-journal=no"]
    if not Path("/run/systemd/system").exists():
        command.append("--keep-unit")  # there is no systemd outside to make one
    command += [f"--bind-ro={outside}:{inside}" for outside, inside in binds.items()]
    command += ["--console=pipe", f"--directory={root}", "--boot", f"systemd.unit={_TARGET}"]
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=_ENVIRONMENT
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(WITHIN)


def _leader(process: subprocess.Popen[bytes], log: Path) -> int:
    """The first process of the container, once it is systemd."""
    end = time.monotonic() + WITHIN
    while time.monotonic() < end and process.poll() is None:
        for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
            for pid in children.read_text().split():
                try:
                    if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                        return int(pid)
                except FileNotFoundError:
                    continue
        time.sleep(0.02)
    said = log.read_text(errors="replace")
    _refused(said)
    raise AssertionError(f"systemd did not come up: {said}")


def _power_off(process: subprocess.Popen[bytes], leader: int) -> None:
    """In order, so that nothing is left of its control groups; and by force when it does not."""
    if not leader or process.poll() is not None:
        return
    os.kill(leader, signal.SIGRTMIN + 4)
    try:
        process.wait(WITHIN)
    except subprocess.TimeoutExpired:
        os.kill(leader, signal.SIGKILL)


def python_binds() -> dict[Path, str]:
    """What the environment of ``install_python`` needs to see, and where."""
    binds = {CHECKOUT: "/srv/checkout", Path(pytest.__file__).parents[1]: "/srv/packages"}
    if _python_home() != sys.base_prefix:
        binds[Path(sys.base_prefix)] = _python_home()
    return binds


def install_python(root: Path) -> None:
    """Make ``/opt/gpustack`` below ``root``: a virtual environment around this Python and this checkout.

    It stands for the two commands of the README that need an index.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    place = root / "opt" / "gpustack"
    found = place / "lib" / version / "site-packages"
    found.mkdir(parents=True)
    (found / "installed.pth").write_text("/srv/checkout\n/srv/packages\n")
    (place / "bin").mkdir()
    (place / "bin" / "python").symlink_to(f"{_python_home()}/bin/{version}")
    (place / "pyvenv.cfg").write_text(f"home = {_python_home()}/bin\n")
    script = place / "bin" / "gpustack"
    script.write_text(
        "#!/opt/gpustack/bin/python\nimport sys\n\nfrom gpustack.cli.main import main\n\nsys.exit(main())\n"
    )
    script.chmod(0o755)


def python_settings() -> str:
    """What a unit needs to find the library of this Python, where that lies in a place closed to units."""
    return "" if _python_home() == sys.base_prefix else f"Environment=LD_LIBRARY_PATH={_python_home()}/lib\n"


def _python_home() -> str:
    # Homes are closed to the units, and this Python may live in one.
    return "/usr" if sys.base_prefix == "/usr" else "/opt/python"
