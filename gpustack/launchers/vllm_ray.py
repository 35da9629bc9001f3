"""vLLM on a Ray cluster, on the devices that were placed for it: ``python vllm_ray.py RANKS serve MODEL ...``.

Run by the Python of vLLM, so it imports nothing but that, Ray and the standard library. ``RANKS`` is a JSON list with
the address of the machine and the index of the device of each rank, the first one's first. By itself vLLM takes any
devices of any machines that Ray has free, and waits half an hour for them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

RANKS = "GPUSTACK_RAY_RANKS"
"""Tells the ranks to the processes that vLLM starts, which run this module again."""
TIMEOUT = "GPUSTACK_RAY_PLACEMENT_GROUP_READY_TIMEOUT"
SHARE = 0.01
"""Of a device, as Ray reckons. Which device has how much room was decided before, and several engines may share one:
Ray only starts each rank on its machine."""
_NODE_SHARE = 0.001
_STAY_HERE = frozenset({"VLLM_API_KEY"})
"""vLLM copies all other variables of its main process to the other machines."""


class LaunchError(SystemExit):
    """It cannot start; the sentence is written to the log, and the exit code is 1."""


def ranks() -> list[tuple[str, int]]:
    """The machine and the device of each rank."""
    return [(str(one["ip"]), int(one["device"])) for one in json.loads(os.environ[RANKS])]


def place() -> Any:
    """A placement group with a bundle for each rank, on its machine. Called by vLLM once it belongs to the cluster."""
    import ray
    from vllm.platforms import current_platform

    kind = current_platform.ray_device_key or "GPU"
    wanted = ranks()
    _claim_devices(wanted)
    bundles = [{kind: SHARE, f"node:{ip}": _NODE_SHARE} for ip, _ in wanted]
    patience = float(os.environ.get(TIMEOUT) or 30)
    group = ray.util.placement_group(bundles, strategy="PACK")
    if not group.wait(patience):
        there = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        missing = sorted({ip for ip, _ in wanted} - there)
        why = f"it has no node at {', '.join(missing)}" if missing else f"not all nodes have a {kind} for it"
        raise LaunchError(
            f"RayError: The Ray cluster gave no places within {patience:g} s: {why} ({TIMEOUT})"
        )
    return group


def _claim_devices(wanted: list[tuple[str, int]]) -> None:
    """Have each rank take the device that is placed for it, where vLLM would ask Ray which one it has."""
    import ray
    from vllm.v1.executor import ray_env_utils, ray_executor_v2

    handle_of = ray_executor_v2.RayWorkerHandle

    class Device:
        """Answers as the rank's process would, which knows only what Ray reckons."""

        def __init__(self, node: str, index: int) -> None:
            self._answer = (node, [index])

        def remote(self) -> Any:
            return ray.put(self._answer)

    def handle(actor: Any, rank: int, local_rank: int, node_id: str, **more: Any) -> Any:
        actor.get_node_and_physical_gpu_ids = Device(node_id, wanted[rank][1])
        return handle_of(actor=actor, rank=rank, local_rank=local_rank, node_id=node_id, **more)

    ray_executor_v2.RayWorkerHandle = handle
    ray_env_utils.RAY_NON_CARRY_OVER_ENV_VARS = ray_env_utils.RAY_NON_CARRY_OVER_ENV_VARS | _STAY_HERE


def patch() -> None:
    """Have vLLM take our places. It asks Ray whether it runs in a placement group, and so it does."""
    import ray

    os.environ["VLLM_RAY_PER_WORKER_GPUS"] = str(SHARE)
    os.environ["VLLM_RAY_BUNDLE_INDICES"] = ",".join(str(number) for number in range(len(ranks())))
    ray.util.get_current_placement_group = place


def main() -> None:
    """Become ``vllm``, with the arguments behind the first."""
    # Python puts this folder there, which has modules of the names of other people's packages.
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder]
    if len(sys.argv) < 3:
        raise LaunchError("usage: vllm_ray.py RANKS serve MODEL ...")
    os.environ[RANKS] = sys.argv.pop(1)
    try:
        patch()
        from vllm.entrypoints.cli.main import main as vllm
    except ImportError as error:
        raise LaunchError(
            f"RayError: vLLM on several workers needs Ray in its own environment: {error}"
        ) from error
    sys.argv[0] = "vllm"
    sys.exit(vllm())


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # a process of vLLM's, started by multiprocessing
    patch()
