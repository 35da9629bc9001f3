"""Whether the ports are free, or held by the daemon that should hold them."""

from __future__ import annotations

from pathlib import Path

from gpustack.cli.check import CheckContext, Finding, failed, good
from gpustack.cli.daemon.listener import listener_specs
from gpustack.http1.listen import ListenError, open_listeners

_LOCK = "lock"


async def look(context: CheckContext) -> list[Finding]:
    if context.options is None or context.loaded is None:
        return []
    holder = daemon_of(context.options.data_dir)
    held = ports_of(holder)
    found = []
    for spec in listener_specs(context.loaded):
        if not spec.port:
            continue
        if spec.port in held:
            found.append(good(f"port {spec.port} is held by the daemon that runs (process {holder})"))
            continue
        try:
            for sock in open_listeners(
                spec.host, spec.port, option=spec.option, host_option=spec.host_option
            ):
                sock.close()
        except ListenError as error:
            ended = _program_at(spec.port) or "what holds it"
            found.append(failed(str(error), f"End {ended}, or set {spec.option} to a port that is free."))
        else:
            found.append(good(f"port {spec.port} ({spec.option}) is free"))
    return found


def daemon_of(data_dir: Path) -> int | None:
    """The process that holds the data directory, if it is alive."""
    import psutil

    try:
        text = (data_dir / _LOCK).read_text(encoding="ascii", errors="replace")[:32].strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and psutil.pid_exists(int(text)) else None


def ports_of(pid: int | None) -> frozenset[int]:
    """The TCP ports that a process listens on; empty where this user may not look."""
    import psutil

    if pid is None:
        return frozenset()
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return frozenset()
    return frozenset(one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN)


def _program_at(port: int) -> str | None:
    """The program that listens there, with its process; ``None`` where this user cannot see it."""
    import psutil

    try:
        pids = [
            one.pid
            for one in psutil.net_connections(kind="tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid
        ]
        return f"{psutil.Process(pids[0]).name()} (process {pids[0]})" if pids else None
    except psutil.Error:
        return None
