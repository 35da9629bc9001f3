"""Ray as a process group of this machine: started in a folder of its own, adopted, ended with all it left."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from gpustack.engines.ray import LONGEST_FOLDER, STARTED, RayPorts, RayStart, reason_of_end
from gpustack.errors import Unavailable
from gpustack.nursery.adopt import adopt, end_remains
from gpustack.nursery.group import ProcessGroup
from gpustack.nursery.limiter import threads
from gpustack.nursery.log_file import LogFile
from gpustack.nursery.process import spawn_group
from gpustack.nursery.state import GroupState, forget_state, read_state

STATE_FILE: Final = "ray.json"
STOP_GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL. Ray has nothing to save, and by itself drains a machine for up to 30 s."""
_REST_GRACE = 1.0
"""The same where the first process has ended: it has ended the others, or they hang."""
_LOOK_AGAIN = 0.2
_READ = 64 << 10
_threads = threads("ray files", 1)


@attrs.frozen(kw_only=True)
class RayPlaces:
    """Where Ray's files are on this machine."""

    state_dir: Path
    log_file: Path
    folders: Path
    """Holds one folder for each start; ``/tmp`` is used where its name is too long for sockets."""

    @property
    def state_file(self) -> Path:
        return self.state_dir / STATE_FILE


@attrs.frozen(kw_only=True)
class RayProcess:
    """The Ray that runs here. Whoever holds it calls ``release`` in the end."""

    group: ProcessGroup
    incarnation: str
    """Of the head that it is, or has joined."""
    head_address: str | None
    """The head that it has joined; ``None`` for a head."""
    address: str
    """``host:port`` of the head."""
    version: str | None
    terms: str
    """What of the configuration it was started with."""
    folder: Path
    adopted: bool
    _places: RayPlaces

    @property
    def is_head(self) -> bool:
        return self.head_address is None

    async def says_started(self) -> bool:
        """Whether it runs and has said that it belongs to the cluster."""
        said = await _threads.run(_says_started, self._places.log_file)
        return said and self.group.alive

    async def started(self, within: float, ports: RayPorts) -> None:
        """Return once it belongs to the cluster. Raises ``Unavailable`` with the reason when it ends before, or is not
        there ``within`` seconds. Cancellable."""
        with trio.move_on_after(within):
            while not await self.says_started():
                if not self.group.alive:
                    raise Unavailable(await self.reason_of_end(ports))
                await trio.sleep(_LOOK_AGAIN)
            return
        raise Unavailable(
            f"Ray did not start within {within:g} s: this machine may be too busy, it is tried again"
        )

    async def reason_of_end(self, ports: RayPorts) -> str:
        """Why it ended, from its logs."""
        found: str = await _threads.run(
            partial(_reason, self._places.log_file, self.folder, ports, head=self.is_head)
        )
        return found

    async def release(self, *, end: bool) -> None:
        """End it with all that it started, or leave it for the next daemon. Not cancellable, but bounded."""
        if not end:
            self.group.leave()
        elif await self.group.end(STOP_GRACE if self.group.alive else _REST_GRACE) is not None:
            await _clean(self._places.state_file, self.folder)


async def start_ray(
    start: RayStart,
    *,
    environment: Mapping[str, str],
    incarnation: str,
    version: str | None,
    terms: str,
    places: RayPlaces,
    now: Callable[[], datetime],
) -> RayProcess:
    """Start it; its state file is written before it runs. Cancelled midway, nothing is left.

    Raises ``Unavailable`` when it cannot be started.
    """
    address = start.head_address or address_of(start.ip, start.ports.gcs)
    folder = Path(start.folder)
    try:
        await _threads.run(partial(places.state_dir.mkdir, parents=True, exist_ok=True, mode=0o700))
        group = await spawn_group(
            start.argv,
            env=environment,
            log=LogFile(places.log_file),
            state_file=places.state_file,
            meta={
                "ray": "head" if start.is_head else "node",
                "head": start.head_address or "",
                "address": address,
                "incarnation": incarnation,
                "version": version or "",
                "terms": terms,
                "folder": str(folder),
            },
            now=now,
        )
    except OSError as error:
        await remove_folder(folder)
        raise Unavailable(f"Ray cannot be started: {error.strerror or error}") from error
    except BaseException:
        await remove_folder(folder)
        raise
    return RayProcess(
        group=group,
        incarnation=incarnation,
        head_address=start.head_address,
        address=address,
        version=version,
        terms=terms,
        folder=folder,
        adopted=False,
        places=places,
    )


async def adopt_ray(places: RayPlaces) -> RayProcess | None:
    """The Ray that a former daemon left running; ``None`` if there is none. What a dead one left is ended.

    Raises ``Unavailable`` when that cannot be ended.
    """
    state = await _threads.run(read_state, places.state_file)
    if not isinstance(state, GroupState):
        return None
    folder = Path(state.meta.get("folder", ""))
    group = adopt(state)
    if group is None:
        if not await end_remains(state, STOP_GRACE):
            raise Unavailable(f"A former Ray (process {state.pid}) cannot be ended: it hangs in the kernel")
        await _clean(places.state_file, folder)
        return None
    return RayProcess(
        group=group,
        incarnation=state.meta.get("incarnation", ""),
        head_address=state.meta.get("head") or None,
        address=state.meta.get("address", ""),
        version=state.meta.get("version") or None,
        terms=state.meta.get("terms", ""),
        folder=folder,
        adopted=True,
        places=places,
    )


async def make_folder(places: RayPlaces) -> str:
    """A new folder for one start, which only we can read. Raises ``Unavailable``. Not to be left to others: it is
    removed after the end."""
    try:
        return await _threads.run(_folder, places.folders)
    except OSError as error:
        raise Unavailable(
            f"There is no folder for Ray: {error.strerror or error}: {error.filename}"
        ) from error


async def remove_folder(folder: Path) -> None:
    """Remove a folder that ``make_folder`` made, as far as that is possible. Bounded, not cancellable."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 10.0):
        await _threads.run(_remove, folder)


def is_free(port: int) -> bool:
    """Whether the port can be bound at every address now. Blocks no longer than a system call."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Ray does: what an ended connection left (TIME_WAIT) is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def refuse_taken_ports(ports: RayPorts, *, head: bool) -> None:
    """Raise ``Unavailable`` that names each pinned port in use and its option: Ray takes 40 s, and names none."""
    taken = [(port, option) for port, option in ports.pinned(head=head).items() if not is_free(port)]
    if taken:
        named = ", ".join(f"{port} ({option})" for port, option in taken)
        what = "Port" if len(taken) == 1 else "Ports"
        raise Unavailable(
            f"{what} {named} of Ray in use on this machine: end what listens there, or set another; it is tried again, "
            "for a passing connection may have it"
        )


def address_of(host: str, port: int) -> str:
    """``host:port``, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _folder(parent: Path) -> str:
    with suppress(OSError):
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    chosen = parent if len(str(parent)) + len("/r-12345678") <= LONGEST_FOLDER else None
    return tempfile.mkdtemp(prefix="r-", dir=chosen if chosen is not None else "/tmp")


def _remove(folder: Path) -> None:
    if folder.name.startswith("r-"):  # the path comes from a file
        shutil.rmtree(folder, ignore_errors=True)


async def _clean(state_file: Path, folder: Path) -> None:
    await remove_folder(folder)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 10.0):
        await _threads.run(forget_state, state_file)


def _says_started(log_file: Path) -> bool:
    return STARTED.encode() in _end_of(log_file)


def _reason(log_file: Path, folder: Path, ports: RayPorts, *, head: bool) -> str:
    logs = [*folder.glob("session_2*/logs/gcs_server.*"), *folder.glob("session_2*/logs/raylet*.*")]
    text = b"\n".join(_end_of(path) for path in sorted(logs)[:8])
    return reason_of_end(
        _end_of(log_file).decode("utf-8", "replace"), text.decode("utf-8", "replace"), ports, head=head
    )


def _end_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _READ))
            return file.read(_READ)
    except OSError:
        return b""
