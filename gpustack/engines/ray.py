"""Ray as it is run for vLLM over several workers: command lines, environment, ports, and what its failures mean.

Facts were seen with Ray 2.60. ``ray start --block`` is the parent of all that runs on a machine, in one process group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from gpustack.engines import parameters

STARTED: Final = "Ray runtime started."
"""What ``ray start`` writes once its machine belongs to the cluster."""
OBJECT_STORE: Final = 100_000_000
"""Bytes. vLLM passes no tensors through it; Ray would take 30 % of the memory."""
LONGEST_FOLDER: Final = 40
"""Characters of Ray's folder, in which a socket has a name of 66 more: the system takes 107 at most."""

_HEAD_ONLY = ("--port", "--include-dashboard", "--redis-shard-ports", "--ray-client-server-port")
_LOOKED_AT = 8
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_WRITTEN_BY = re.compile(r"^\S+ \S+\s+[A-Z]+ \S+:\d+ -- ")


@attrs.frozen(kw_only=True)
class RayPorts:
    """The ports that Ray binds on a machine, as the options of the same names set them."""

    node_manager: int
    object_manager: int
    runtime_env_agent: int
    dashboard_agent_grpc: int
    dashboard_agent_listen: int
    metrics_export: int
    first_worker: int
    last_worker: int
    gcs: int
    """The last three are bound by a head alone."""
    client_server: int
    dashboard: int

    def pinned(self, *, head: bool) -> Mapping[int, str]:
        """Each single port that is bound, with the option that sets it."""
        found = {
            self.node_manager: "--ray-node-manager-port",
            self.object_manager: "--ray-object-manager-port",
            self.runtime_env_agent: "--ray-runtime-env-agent-port",
            self.dashboard_agent_grpc: "--ray-dashboard-agent-grpc-port",
            self.dashboard_agent_listen: "--ray-dashboard-agent-listen-port",
            self.metrics_export: "--ray-metrics-export-port",
        }
        if head:
            found |= {
                self.gcs: "--ray-port",
                self.client_server: "--ray-client-server-port",
                self.dashboard: "--ray-dashboard-port",
            }
        return found

    def given(self, arguments: Sequence[str]) -> RayPorts:
        """The ports once ``--ray-args`` follow: Ray takes the last value of an option that is given twice."""
        named = {
            name: number
            for name, flag in _PORT_FLAGS.items()
            if (number := parameters.number_of(arguments, flag)) is not None
        }
        return attrs.evolve(self, **named)


_PORT_FLAGS: Mapping[str, str] = {
    "node_manager": "--node-manager-port",
    "object_manager": "--object-manager-port",
    "runtime_env_agent": "--runtime-env-agent-port",
    "dashboard_agent_grpc": "--dashboard-agent-grpc-port",
    "dashboard_agent_listen": "--dashboard-agent-listen-port",
    "metrics_export": "--metrics-export-port",
    "first_worker": "--min-worker-port",
    "last_worker": "--max-worker-port",
    "gcs": "--port",
    "client_server": "--ray-client-server-port",
    "dashboard": "--dashboard-port",
}
_HEAD_PORTS = frozenset({"gcs", "client_server", "dashboard"})


@attrs.frozen(kw_only=True)
class RayStart:
    """One start of Ray on a machine."""

    program: str
    ip: str
    """The address at which the other machines reach this one."""
    ports: RayPorts
    folder: str
    """For this start alone: sockets, logs and session of Ray."""
    head_address: str | None
    """The head to join; ``None`` makes a head of it."""
    cpus: int | None = None
    """``None``: Ray counts them."""
    gpus: int = 0
    npus: int = 0
    arguments: tuple[str, ...] = ()
    """``--ray-args``, which come last and so win."""
    metric_ports: tuple[int, int]
    """Two ports for the numbers of Ray's autoscaler and dashboard, which ``ray start`` has no options for."""

    @property
    def is_head(self) -> bool:
        return self.head_address is None

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line. Nothing secret is in it."""
        ports = self.ports
        part = (
            ["--address", self.head_address]
            if self.head_address is not None
            else ["--head", "--dashboard-host", "127.0.0.1", "--disable-usage-stats"]
        )
        flags = {
            flag: getattr(ports, name)
            for name, flag in _PORT_FLAGS.items()
            if self.is_head or name not in _HEAD_PORTS
        }
        resources = ["--resources", f'{{"NPU": {self.npus}}}'] if self.npus else []
        return (
            *(self.program, "start", "--block", *part, "--node-ip-address", self.ip),
            *(text for flag, port in flags.items() for text in (flag, str(port))),
            *("--object-store-memory", str(OBJECT_STORE)),
            *(() if self.cpus is None else ("--num-cpus", str(self.cpus))),
            *("--num-gpus", str(self.gpus), *resources),
            *("--temp-dir", self.folder, "--log-style", "record", "--log-color", "false"),
            *(self.arguments if self.is_head else _without_head_options(self.arguments)),
        )

    def environment(self, token: str, interface: str | None) -> dict[str, str]:
        """What is set beside the inherited environment. ``interface`` holds ``ip``; processes of vLLM on this machine
        inherit it from here, and would else be told that of the machine of their main process."""
        autoscaler, dashboard = self.metric_ports
        named = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}
        return {
            **named,
            **authentication(token),
            "RAY_TMPDIR": self.folder,
            "AUTOSCALER_METRIC_PORT": str(autoscaler),
            "DASHBOARD_METRIC_PORT": str(dashboard),
        }


def authentication(token: str) -> dict[str, str]:
    """The environment with which programs of Ray prove that they belong to the cluster."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}


def driver_environment(address: str, token: str, places_within: float) -> dict[str, str]:
    """The environment of a program that uses the Ray at ``address``, such as the main process of vLLM; it waits
    ``places_within`` seconds for its places there (``launchers/vllm_ray.py``)."""
    return {
        "RAY_ADDRESS": address,
        "GPUSTACK_RAY_PLACEMENT_GROUP_READY_TIMEOUT": f"{places_within:g}",
        **authentication(token),
    }


def split_range(ports: RayPorts, is_free: Callable[[int], bool]) -> tuple[RayPorts, tuple[int, int]]:
    """Take two free ports off the end of the range of worker ports, for what ``ray start`` has no options for.

    Where there are none, the last two: Ray goes on without.
    """
    ours = range(ports.first_worker, ports.last_worker + 1)
    free = [port for port in reversed(ours[-_LOOKED_AT:]) if is_free(port)][:2]
    taken = free if len(free) == 2 else [ours[-1], ours[-2]]
    return attrs.evolve(ports, last_worker=taken[1] - 1), (taken[1], taken[0])


def _without_head_options(arguments: Sequence[str]) -> tuple[str, ...]:
    """Those that a node may be given: it refuses the options of a head, which the same list may hold."""
    kept: list[str] = []
    skips_value = False
    for token in parameters.tokens(arguments):
        if parameters.is_flag(token):
            skips_value = token in _HEAD_ONLY
            if not skips_value:
                kept.append(token)
        elif not skips_value:
            kept.append(token)
    return tuple(kept)


def plain(text: str) -> str:
    """What Ray writes, without colours."""
    return _COLOUR.sub("", text)


def reason_of_end(output: str, logs: str, ports: RayPorts, *, head: bool) -> str:
    """Why ``ray start`` ended, in one sentence: from what it wrote, and from the logs of what it started.

    Ray itself tells of a busy port without its number, and of a wrong token as a failure to connect.
    """
    text = plain(output)
    both = f"{text}\n{plain(logs)}"
    if "AuthenticationError" in both or "InvalidAuthToken" in both:
        return (
            "Ray's head refused this machine's token: both derive it from the cluster token, so give this one the "
            "--token of the server"
        )
    found = re.search(r"already running at (\S+)", text)
    if found:
        return (
            f"Another Ray runs at {found[1].rstrip('.')} already: end it, or set --ray-port to another port"
        )
    for number in re.findall(
        r"(?:specified port is|bind to port|address already in use\D{0,40}?)\s*(\d+)", both
    ):
        option = ports.pinned(head=head).get(int(number))
        if option is not None:
            return f"Port {number} was taken before Ray could bind it: it is tried again, or set {option}"
    if "timed out during startup" in text or "Timed out waiting for file" in both:
        return "Ray did not start in time, for this machine is too busy: it is tried again"
    found = re.search(r"agent failed, agent_name = (\S+?)[,.\s]", both)
    if found:
        return f"Ray's {found[1]} could not start; its log on this machine says why"
    if "Version mismatch" in text:
        return "Ray or Python has another version here than at the head: install the same on all machines"
    if "Failed to connect to GCS" in text or "Unable to connect to GCS" in text:
        return "Ray's head does not answer: --ray-port of the server must be reachable from here"
    ended = re.findall(r"-- (\w+) \[exit code=(-?\d+)\]", text)
    if ended:
        return f"Of Ray's processes ended: {', '.join(f'{name} ({_in_words(int(code))})' for name, code in ended)}"
    lines = [_WRITTEN_BY.sub("", line).strip() for line in text.splitlines() if line.strip()]
    return f"Ray ended, and last wrote: {lines[-1][:300]}" if lines else "Ray ended without a word"


def _in_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
