"""Whether the ports are free, or held by the daemon that should hold them."""

from __future__ import annotations

from pathlib import Path

from gpustack.cli.finding import CheckContext, Finding, failed, good
from gpustack.config.option import table
from gpustack.config.options import Options
from gpustack.http1.listen import ListenError, open_listeners

_LOCK = "lock"


async def look(scene: CheckContext) -> list[Finding]:
    if scene.options is None or scene.loaded is None:
        return []
    holder = daemon_of(scene.options.data_dir)
    held = ports_of(holder)
    found = []
    for option, host, port in _wanted(scene.options, scene.loaded.role):
        if port in held:
            found.append(good(f"port {port} is held by the daemon that runs (process {holder})"))
            continue
        try:
            for sock in open_listeners(host, port, option=option):
                sock.close()
        except ListenError as error:
            found.append(failed(str(error), f"End what holds it, or set {option} to a port that is free."))
        else:
            found.append(good(f"port {port} ({option}) is free"))
    return found


def _wanted(options: Options, role: str) -> list[tuple[str, str | None, int]]:
    ports: list[tuple[str, str | None, int]] = []
    if role != "worker":
        ports.append(("--port", options.host, options.port))
        if not options.disable_metrics:
            ports.append(("--metrics-port", options.host, options.metrics_port))
    if role != "server":
        ports.append(("--worker-port", None, options.worker_port))
        if not options.disable_worker_metrics:
            ports.append(("--worker-metrics-port", None, options.worker_metrics_port))
    built = {option.flag for option in table(Options) if option.built}
    return [(flag, host, port) for flag, host, port in ports if port and flag in built]


def daemon_of(data_dir: Path) -> int | None:
    """The process that holds the data directory, if it is alive."""
    import psutil

    try:
        text = (data_dir / _LOCK).read_text(encoding="ascii", errors="replace")[:32].strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and psutil.pid_exists(int(text)) else None


def ports_of(pid: int | None) -> frozenset[int]:
    """The TCP ports that a process listens on, as far as we may know."""
    import psutil

    if pid is None:
        return frozenset()
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return frozenset()
    return frozenset(one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN)
