"""Gathers for a bug report what the server and this machine tell, without secrets, and packs it into one file."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from gpustack import __version__, durable_file
from gpustack.cli.checks.ports import daemon_of
from gpustack.cli.secret_scrubber import SecretScrubber
from gpustack.cli.session import Doc, ServerSession
from gpustack.config.datadir import SECRET_FILES
from gpustack.errors import GpustackError
from gpustack.text import printable, said_by

if TYPE_CHECKING:
    from gpustack.config.loader import Configuration
    from gpustack.remote.admin_client import AdminClient

LOG_TAIL = 512 << 10
"""Bytes of the end of each log."""
_MOST_LOGS = 40
_MOST = 8 << 20
"""Bytes of any other part."""
_LINES = 3000
_COMMAND_WITHIN = 20.0
_PART_WITHIN = 45.0
_PACKAGES = (
    "trio",
    "httpx",
    "quart",
    "hypercorn",
    "sqlalchemy",
    "orjson",
    "attrs",
    "llama-cpp-python",
    "ray",
)
_RECORDS = {
    "models": "/v1/models",
    "instances": "/v1/model-instances",
    "workers": "/v1/workers",
    "files": "/v1/model-files",
    "servers": "/v1/servers",
    "backends": "/v1/inference-backends",
    "devices": "/v1/gpu-devices",
}
_ANSWERS = {
    "server/ready.json": "/readyz",
    "server/version.json": "/version",
    "server/tasks.txt": "/debug/tasks",
    "server/log_level.txt": "/debug/log_level",
    "server/survival.json": "/v1/survival",
    "server/attention.json": "/v1/attention",
    "server/events.json": "/v1/events?limit=1000",
}
_WELL = frozenset({"running", "scheduled", "downloading", "starting"})


@attrs.define(eq=False)
class DebugBundle:
    """The parts by the names of their files, and what could not be had. Texts are kept as they come until ``finished``
    takes the secrets out of all of them: one may be learnt from a later part."""

    scrubber: SecretScrubber = attrs.field(factory=SecretScrubber)
    parts: dict[str, Any] = attrs.field(factory=dict)
    missing: dict[str, str] = attrs.field(factory=dict)

    def add(self, name: str, content: Any) -> None:
        """A text, or a document that becomes JSON."""
        if not isinstance(content, str):
            self.scrubber.learn_document(content)
        self.parts[name] = content

    def try_to(self, name: str, gather: Callable[[], Any]) -> None:
        """Add what ``gather`` returns, or why it cannot."""
        try:
            self.add(name, gather())
        except (GpustackError, OSError, ValueError, subprocess.SubprocessError) as error:
            self.missing[name] = said_by(error)

    def finished(self) -> dict[str, str]:
        """The files without secrets. Raises GpustackError if one should be left."""
        found = {}
        for name, content in self.parts.items():
            if isinstance(content, str):
                text = self.scrubber.text(content)
            else:
                text = json.dumps(self.scrubber.document(content), indent=1, ensure_ascii=False) + "\n"
            if self.scrubber.holds(text):
                raise GpustackError(f"{name} still holds a secret: the bundle is not written")
            found[printable(self.scrubber.text(name), 200)] = text[-_MOST:]
        missing = "".join(f"{name}: {self.scrubber.text(why)}\n" for name, why in self.missing.items())
        return found | ({"missing.txt": missing} if missing else {})


def gather_machine(
    bundle: DebugBundle, loaded: Configuration | None, data_dir: Path, env: Mapping[str, str], now: datetime
) -> None:
    """What this machine tells without a server. Blocks for some seconds."""
    bundle.scrubber.learn_environment(env)
    _learn_process(bundle.scrubber, data_dir)
    for name in SECRET_FILES:
        try:
            bundle.scrubber.learn((data_dir / name).read_text(errors="replace")[:4096])
        except OSError:
            continue  # there is none, or it is not ours to read: then it is not in a log that is
    bundle.try_to("versions.json", lambda: _versions(now))
    if loaded is not None:
        _learn_options(bundle.scrubber, loaded)
        bundle.try_to("options.txt", lambda: _options(loaded))
    bundle.try_to("hardware.json", _hardware)
    bundle.try_to("logs/daemon.log", lambda: _daemon_log(data_dir))
    for path in _engine_logs(data_dir, loaded):
        bundle.try_to(f"logs/engines/{path.name}", partial(_tail, path))
    bundle.try_to("data_dir.txt", lambda: _listing(data_dir))


def _learn_process(scrubber: SecretScrubber, data_dir: Path) -> None:
    """The secrets that the daemon was started with, which this command may not have in its own environment."""
    place = Path(f"/proc/{daemon_of(data_dir)}")
    try:
        environment = (place / "environ").read_bytes().decode(errors="replace").split("\0")
        arguments = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return  # it does not run, or is somebody else's
    scrubber.learn_environment(dict(text.split("=", 1) for text in environment if "=" in text))
    scrubber.learn_flags(arguments)


def _learn_options(scrubber: SecretScrubber, loaded: Configuration) -> None:
    from gpustack.config.environment import Environment
    from gpustack.config.option import table
    from gpustack.config.options import Options

    for values, options in ((loaded.options, table(Options)), (loaded.environment, table(Environment))):
        for option in options:
            value = getattr(values, option.name)
            for text in value if isinstance(value, tuple) else [value]:
                if isinstance(text, str):
                    scrubber.learn_urls(text)
                    if option.mask is not None and "://" not in text:
                        scrubber.learn(text)


def _versions(now: datetime) -> Doc:
    from importlib import metadata

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "gpustack": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "cpus": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg(),
        "at": now.isoformat(),
        "packages": {package: version(package) for package in _PACKAGES},
    }


def _options(loaded: Configuration) -> str:
    from gpustack.config.rendering import effective

    said = [f"warning: {line}" for line in loaded.warnings] + [f"note: {line}" for line in loaded.notes]
    return "\n".join([effective(loaded), *said, ""])


def _hardware() -> Any:
    from gpustack.cli.commands.hardware import dump_document

    return dump_document()


def _daemon_log(data_dir: Path) -> str:
    """The end of what the daemon wrote to stderr: of its file, or of the journal. Raises GpustackError."""
    pid = daemon_of(data_dir)
    try:
        target = Path(f"/proc/{pid}/fd/2").readlink()
    except OSError:
        return _journal("-u", "gpustack")
    if target.is_file():
        return _tail(target)
    return _journal(f"_PID={pid}")


def _journal(*which: str) -> str:
    command = ["journalctl", "--no-pager", "--quiet", "-n", str(_LINES), *which]
    try:
        ran = subprocess.run(command, capture_output=True, timeout=_COMMAND_WITHIN, check=False)
    except FileNotFoundError:
        raise GpustackError("its log is in no file, and there is no journal: add it by hand") from None
    if not ran.stdout.strip():
        raise GpustackError("its log is in no file, and the journal has nothing of it: add it by hand")
    return _end_of(ran.stdout)


def _engine_logs(data_dir: Path, loaded: Configuration | None) -> list[Path]:
    folder = data_dir / "log" if loaded is None else loaded.options.log_dir
    try:
        found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:_MOST_LOGS]
    except OSError:
        return []


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_TAIL - 1))
        return _end_of(file.read(LOG_TAIL + 1))


def _end_of(log: bytes) -> str:
    """The last ``LOG_TAIL`` bytes of a log, from the beginning of a line on: of a secret that was cut in two, what is
    left would not be known for one."""
    if len(log) > LOG_TAIL:
        _, _, log = log[-LOG_TAIL:].partition(b"\n")
    return log.decode(errors="replace")


def _listing(folder: Path) -> str:
    lines = []
    for path in sorted(folder.rglob("*"))[:2000]:
        status = path.lstat()
        lines.append(f"{status.st_mode:o} {status.st_uid} {status.st_size} {path.relative_to(folder)}")
    return "\n".join([*lines, ""])


def gather_metrics(bundle: DebugBundle, loaded: Configuration) -> None:
    """The pages for Prometheus of this machine's daemon, where it serves them."""
    import trio

    ports = {"server": loaded.options.metrics_port, "worker": loaded.options.worker_metrics_port}
    for name, port in ports.items():
        if port:
            bundle.try_to(f"metrics/{name}.txt", partial(trio.run, _metrics, port))


async def _metrics(port: int) -> str:
    from gpustack.remote.http import open_client

    async with open_client(f"http://127.0.0.1:{port}") as client:
        reply = await client.request("GET", "/metrics", deadline=_COMMAND_WITHIN, limit=_MOST)
        return reply.body.decode(errors="replace")


def gather_server(bundle: DebugBundle, session: ServerSession) -> None:
    """What the server tells; each part that it does not is missing, and the others are there."""
    try:
        session.run(lambda client: _from_server(bundle, client))
    except GpustackError as error:
        bundle.missing["server"] = str(error)


async def _from_server(bundle: DebugBundle, client: AdminClient) -> None:
    await client.head("/healthz")  # else every part would be missing, one after the other
    for name, path in _ANSWERS.items():
        await _part(bundle, name, partial(_answer, client, path))
    for name, path in _RECORDS.items():
        await _part(bundle, f"records/{name}.json", partial(client.all, path))
    for instance in bundle.parts.get("records/instances.json") or ():
        await _of_instance(bundle, client, instance)


async def _of_instance(bundle: DebugBundle, client: AdminClient, instance: Doc) -> None:
    """Why one that does not run does not, and its logs of now and before."""
    key, name = instance.get("id"), str(instance.get("name")).replace("/", "_")
    logs = sum(part.startswith("logs/instances/") for part in bundle.parts)
    if instance.get("state") in _WELL and not instance.get("restart_count"):
        return
    path = f"/v1/model-instances/{key}"
    await _part(bundle, f"records/explanations/{name}.json", lambda: client.get(f"{path}/explain"))
    if instance.get("worker_id") is None or logs >= _MOST_LOGS:
        return
    await _part(bundle, f"logs/instances/{name}.log", lambda: _log(client, path))
    await _part(bundle, f"logs/instances/{name}.previous.log", lambda: _log(client, path, previous=True))


async def _part(bundle: DebugBundle, name: str, ask: Callable[[], Awaitable[Any]]) -> None:
    import trio

    try:
        with trio.fail_after(_PART_WITHIN):
            bundle.add(name, await ask())
    except GpustackError as error:
        bundle.missing[name] = str(error)
    except trio.TooSlowError:
        bundle.missing[name] = f"it did not come within {_PART_WITHIN:.0f} s"


async def _answer(client: AdminClient, path: str) -> Any:
    reply = await client.through(path)
    if reply.status != 200 and path != "/readyz":
        raise GpustackError(f"the server answered with status {reply.status}")
    text = reply.body.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _log(client: AdminClient, path: str, **which: bool) -> str:
    text = b""
    async with client.text(f"{path}/logs", follow=False, tail=_LINES, **which) as pieces:
        async for piece in pieces:
            text = (text + piece)[-LOG_TAIL - 1 :]
    return _end_of(text)


def read_me(files: Mapping[str, str], now: datetime) -> str:
    """What is in the bundle, for who opens it."""
    listed = "".join(f"{len(text.encode()):>10}  {name}\n" for name, text in sorted(files.items()))
    return (
        f"A report of GPUStack {__version__}, made at {now:%Y-%m-%d %H:%M} UTC by gpustack debug bundle.\n\n"
        "Passwords, tokens, keys and the values of environments are taken out and stand as ***. Names of machines,\n"
        "models and their addresses are in it, and what engines wrote to their logs: look it over before you share\n"
        "it. "
        "missing.txt says what could not be had, and why.\n\n"
        f"{listed}"
    )


def pack(files: Mapping[str, str], target: Path, folder: str, now: datetime) -> None:
    """Write all files to a tar.gz that only its owner can read, in one step. Raises GpustackError, also for one that is
    there already."""
    try:
        with (
            durable_file.replacing(target, overwrite=False) as file,
            tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name, text in sorted(files.items()):
                content = text.encode("utf-8", "replace")
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size, member.mtime, member.mode = len(content), int(now.timestamp()), 0o600
                tar.addfile(member, io.BytesIO(content))
    except FileExistsError as error:
        raise GpustackError(f"{target} is there already: name another file") from error
    except OSError as error:
        raise GpustackError(f"The bundle cannot be written to {target}: {error.strerror or error}") from error


def sizes(files: Mapping[str, str]) -> Sequence[tuple[str, int]]:
    """The names of all files with their sizes in bytes, in the order of the names."""
    return [(name, len(text.encode("utf-8", "replace"))) for name, text in sorted(files.items())]
