"""llama.cpp's RPC server: the follower of a gang that gives the main process one device of another worker.

It has no authentication and serves one client at a time, so each belongs to one instance and device.
"""

from __future__ import annotations

import math

from gpustack.errors import Unavailable

from . import parameters
from .engine import HealthPolicy, LaunchContext, LaunchSpec, Probe
from .visibility import device_environment

NO_BACKTRACE = {"GGML_NO_BACKTRACE": "1"}
"""llama.cpp starts a debugger when it aborts, as it does when a peer dies, and lingers until that is done."""
_START_SECONDS = 60.0
_STOP_GRACE = 3.0
"""It has nothing to save."""
_CACHE = ("--rpc-server-cache", "-c", "--cache")
_CACHE_FOLDER = ("--rpc-server-cache-dir",)
_DEBUG = ("--verbose", "-v")
_OURS = ("-H", "--host", "-p", "--port", "-d", "--device", "--rpc-server-host", "--rpc-server-port")


def rpc_server(context: LaunchContext) -> LaunchSpec:
    """The process of a follower: it shows its one device, or the CPU, on the worker's address.

    There is no liveness probe: connections wait in silence while another is served. When it ends, it has failed,
    whatever its exit code: it is 0 when the port is taken or an option is unknown.

    Raises ``Unavailable`` where the worker's build has no RPC server.
    """
    if context.build.rpc_server is None:  # it was there when the instance was placed
        raise Unavailable(
            "This worker lends no devices any more: it was started with --disable-rpc-servers, or its llama-server has "
            "no RPC server beside it. Let it lend again, or delete the instance, and another place is looked for"
        )
    flags, extra = translated(context.extra_arguments, data_dir=context.data_dir)
    threads = () if context.cpu_count is None else ("-t", str(max(1, math.floor(context.cpu_count))))
    return LaunchSpec(
        argv=(
            context.build.rpc_server,
            *("-H", context.address or context.host, "-p", str(context.port)),
            *threads,
            *flags,
        ),
        env={
            **device_environment(context.device_type, context.visible_devices),
            **NO_BACKTRACE,
            **extra,
        },
        health=HealthPolicy(
            readiness=Probe(path=None, period=0.25, timeout=2.0),
            liveness=None,
            start_deadline=_START_SECONDS,
            stop_grace=_STOP_GRACE,
        ),
    )


def translated(given: tuple[str, ...], *, data_dir: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """``--rpc-server-args`` as llama.cpp's program takes them: flags, and variables.

    The names of llama-box's RPC server are taken too, with or without dashes before them. Where it listens and which
    device it shows is ours to say, and left out.
    """
    words = tuple(f"--{word}" if word.startswith("rpc-server") else word for word in given)
    flags: list[str] = []
    variables: dict[str, str] = {}
    for parameter in parameters.read(parameters.expanded(words, data_dir=data_dir)):
        if parameter.flag in _CACHE or parameter.flag in _CACHE_FOLDER:
            flags += [] if "-c" in flags else ["-c"]
            if parameter.value is not None and parameter.flag in _CACHE_FOLDER:
                variables["LLAMA_CACHE"] = parameter.value
        elif parameter.flag in _DEBUG:
            variables["GGML_RPC_DEBUG"] = "1"
        elif parameter.flag not in _OURS:
            flags += [parameter.flag, *([] if parameter.value is None else [parameter.value])]
    return tuple(flags), variables
