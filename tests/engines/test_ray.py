"""How Ray is started, and what its failures are called."""

from __future__ import annotations

import pytest

from gpustack.engines.ray import RayPorts, RayStart, driver_environment, reason_of_end, split_range

PORTS = RayPorts(
    node_manager=40098,
    object_manager=40099,
    runtime_env_agent=40100,
    dashboard_agent_grpc=40101,
    dashboard_agent_listen=52365,
    metrics_export=40103,
    first_worker=40200,
    last_worker=40997,
    gcs=40096,
    client_server=40097,
    dashboard=8265,
)
HEAD = RayStart(
    program="/opt/vllm/bin/ray",
    ip="10.0.0.1",
    ports=PORTS,
    folder="/tmp/r-1",
    head_address=None,
    gpus=2,
    arguments=("--verbose",),
    metric_ports=(40998, 40999),
)
NODE = RayStart(
    program="ray",
    ip="10.0.0.2",
    ports=PORTS,
    folder="/tmp/r-2",
    head_address="10.0.0.1:40096",
    npus=8,
    arguments=("--port=6379", "--include-dashboard", "true", "--verbose"),
    metric_ports=(40998, 40999),
)


def test_the_command_line_of_a_head() -> None:
    assert " ".join(HEAD.argv) == (
        "/opt/vllm/bin/ray start --block --head --dashboard-host 127.0.0.1 --disable-usage-stats "
        "--node-ip-address 10.0.0.1 --node-manager-port 40098 --object-manager-port 40099 "
        "--runtime-env-agent-port 40100 --dashboard-agent-grpc-port 40101 --dashboard-agent-listen-port 52365 "
        "--metrics-export-port 40103 --min-worker-port 40200 --max-worker-port 40997 --port 40096 "
        "--ray-client-server-port 40097 --dashboard-port 8265 --object-store-memory 100000000 --num-gpus 2 "
        "--temp-dir /tmp/r-1 --log-style record --log-color false --verbose"
    )


def test_the_command_line_of_a_node_has_nothing_of_a_head() -> None:
    """Ray refuses a node that is given an option of heads, and ``--ray-args`` are one list for both."""
    assert " ".join(NODE.argv) == (
        "ray start --block --address 10.0.0.1:40096 --node-ip-address 10.0.0.2 --node-manager-port 40098 "
        "--object-manager-port 40099 --runtime-env-agent-port 40100 --dashboard-agent-grpc-port 40101 "
        "--dashboard-agent-listen-port 52365 --metrics-export-port 40103 --min-worker-port 40200 "
        "--max-worker-port 40997 --object-store-memory 100000000 --num-gpus 0 "
        '--resources {"NPU": 8} --temp-dir /tmp/r-2 --log-style record --log-color false --verbose'
    )


def test_secrets_and_interfaces_are_in_the_environment() -> None:
    assert HEAD.environment("s3cret", "eth1") == {
        "GLOO_SOCKET_IFNAME": "eth1",
        "NCCL_SOCKET_IFNAME": "eth1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "s3cret",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": "/tmp/r-1",
        "AUTOSCALER_METRIC_PORT": "40998",
        "DASHBOARD_METRIC_PORT": "40999",
    }
    assert "GLOO_SOCKET_IFNAME" not in HEAD.environment("s3cret", None)
    assert driver_environment("10.0.0.1:40096", "s3cret", 30.0)["RAY_ADDRESS"] == "10.0.0.1:40096"


def test_ports_that_ray_args_give_are_the_ones_that_count() -> None:
    given = PORTS.given(("--port=6379", "--metrics-export-port", "7000", "--verbose"))
    assert (given.gcs, given.metrics_export, given.dashboard) == (6379, 7000, 8265)


@pytest.mark.parametrize(
    ("taken", "workers", "own"),
    [
        (set(), 40995, (40996, 40997)),
        ({40997}, 40994, (40995, 40996)),
        ({40996}, 40994, (40995, 40997)),
        (set(range(40200, 41000)), 40995, (40996, 40997)),
    ],
)
def test_two_ports_are_taken_off_the_end_of_the_range(
    taken: set[int], workers: int, own: tuple[int, int]
) -> None:
    ports, found = split_range(PORTS, lambda port: port not in taken)
    assert (ports.first_worker, ports.last_worker, found) == (40200, workers, own)


SPOKEN = "2026-11-29 21:00:00,000\tERR scripts.py:1307 -- "


@pytest.mark.parametrize(
    ("output", "logs", "sentence"),
    [
        (
            "RuntimeError: Failed to connect to GCS.\nray.exceptions.AuthenticationError: InvalidAuthToken",
            "",
            "refused this machine's token",
        ),
        (
            "ConnectionError: Ray is trying to start at 10.0.0.1:40096, but is already running at 10.0.0.1:40096.",
            "",
            "Another Ray runs at 10.0.0.1:40096 already: end it, or set --ray-port",
        ),
        (
            "The current node timed out during startup.",
            "Failed to start the grpc server. The specified port is 40098. This means",
            "Port 40098 was taken before Ray could bind it: it is tried again, or set --ray-node-manager-port",
        ),
        ("The current node timed out during startup.", "", "too busy"),
        (
            "",
            "The raylet exited immediately because one Ray agent failed, agent_name = runtime_env_agent.",
            "Ray's runtime_env_agent could not start",
        ),
        (
            f"{SPOKEN}Some Ray subprocesses exited unexpectedly:\n{SPOKEN}gcs_server [exit code=-9]\n"
            f"{SPOKEN}raylet [exit code=1]\n{SPOKEN}Remaining processes will be killed.",
            "",
            "Of Ray's processes ended: gcs_server (signal 9), raylet (exit code 1)",
        ),
        ("RuntimeError: Failed to connect to GCS.", "", "--ray-port of the server must be reachable"),
        (f"\x1b[31m{SPOKEN}No such thing.\x1b[0m\n", "", "Ray ended, and last wrote: No such thing."),
        ("", "", "Ray ended without a word"),
    ],
)
def test_why_it_ended_is_told_in_one_sentence(output: str, logs: str, sentence: str) -> None:
    assert sentence in reason_of_end(output, logs, PORTS, head=True)
