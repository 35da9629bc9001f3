"""The role of a daemon (server, worker, or both in one), which options it uses, and which ports it binds."""

from __future__ import annotations

from typing import Literal

from gpustack.config.options import Options
from gpustack.config.value import PortRange

Role = Literal["server", "server+worker", "worker"]


def role(options: Options) -> Role:
    """A worker if ``server_url`` is set; else a server, with a worker inside unless ``disable_worker`` is set."""
    if options.server_url is not None:
        return "worker"
    return "server" if options.disable_worker else "server+worker"


def idle_group(part: Role) -> Literal["server", "worker"] | None:
    """The group of options that a daemon of this role does not use."""
    return {"worker": "server", "server": "worker", "server+worker": None}[part]


def ports(options: Options, part: Role) -> list[tuple[str, PortRange]]:
    """The ports that a daemon of this role binds on its host, with the names of the options that set them.

    Left out are ports that the system chooses (0), and ports of features that are turned off.
    """
    names: list[str] = []
    if part != "worker":
        names += ["port"]
        names += [] if options.disable_metrics else ["metrics_port"]
        names += _RAY_HEAD if options.enable_ray else []
    if part != "server":
        names += ["worker_port", "service_port_range"]
        names += [] if options.disable_worker_metrics else ["worker_metrics_port"]
        names += [] if options.disable_rpc_servers else ["rpc_server_port_range"]
        names += ["ray_worker_port_range"] if options.enable_ray else []
    names += _RAY_NODE if options.enable_ray else []
    claims: list[tuple[str, PortRange]] = []
    for name in names:
        value: int | PortRange = getattr(options, name)
        claims.append((name, PortRange(value, value) if isinstance(value, int) else value))
    return [(name, claim) for name, claim in claims if claim.first]


_RAY_HEAD = ["ray_port", "ray_client_server_port", "ray_dashboard_port"]
_RAY_NODE = [
    "ray_node_manager_port",
    "ray_object_manager_port",
    "ray_runtime_env_agent_port",
    "ray_dashboard_agent_grpc_port",
    "ray_dashboard_agent_listen_port",
    "ray_metrics_export_port",
]
