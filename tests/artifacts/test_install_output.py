"""What installers write is read: how far they are, and why they failed. As pip 26, uv 0.13 and pipx 1.18 write."""

from __future__ import annotations

import pytest

from gpustack.artifacts.disk import NoSpace
from gpustack.artifacts.install_output import InstallOutput, nearest
from gpustack.errors import NotFound, Unavailable

UV_OFFLINE = """\
Using Python 3.11.7 environment at: t/uv1
error: Request failed after 3 retries in 9.0s
  cause: Failed to fetch: http://nohost.invalid/simple/vllm/
  cause: error sending request for url (http://nohost.invalid/simple/vllm/)
  cause: client error (Connect)
  cause: dns error
  cause: error resolving DNS
  cause: failed to lookup address information: Name or service not known
"""
UV_NO_VERSION = """\
error: No solution found when resolving dependencies
  cause: Because there is no version of vllm==99 and you require vllm==99, we can conclude that \
your requirements are unsatisfiable.
"""
UV_OLD_NO_VERSION = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because there is no version of
      vllm==99 and you require vllm==99, we can conclude that
      your requirements are unsatisfiable.
"""
PIP_OFFLINE = """\
WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError("HTTPConnection(\
host='127.0.0.1', port=9): Failed to establish a new connection: [Errno 111] Connection refused")': /simple/vllm/
ERROR: Could not find a version that satisfies the requirement vllm==99 (from versions: none)
ERROR: No matching distribution found for vllm==99
"""
PIP_NO_VERSION = """\
ERROR: Ignored the following versions that require a different python version: 0.1 Requires-Python >=3.12
ERROR: Could not find a version that satisfies the requirement vllm==0.11.7 \
(from versions: 0.9.2, 0.11.0, 0.12.0rc1, 0.12.0)
ERROR: No matching distribution found for vllm==0.11.7
"""
PIP_CONFLICT = """\
ERROR: Cannot install vllm==99 and transformers==4.0 because these package versions have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/
"""
UV_FULL = "error: Failed to install: torch.whl\n  cause: No space left on device (os error 28)\n"


@pytest.mark.parametrize(
    ("written", "kind", "sentence"),
    [
        (
            UV_OFFLINE,
            Unavailable,
            "could not reach the package index (Name or service not known); PIP_INDEX_URL",
        ),
        (PIP_OFFLINE, Unavailable, "could not reach the package index (Connection refused); PIP_INDEX_URL"),
        (UV_NO_VERSION, NotFound, "the package index has no vllm 99"),
        (UV_OLD_NO_VERSION, NotFound, "the package index has no vllm 99"),
        (
            PIP_NO_VERSION,
            NotFound,
            "the package index has no such version; the nearest are 0.9.2, 0.11.0, 0.12.0rc1, 0.12.0",
        ),
        (
            PIP_CONFLICT,
            Unavailable,
            "what it requires does not go together (Cannot install vllm==99 and transformers",
        ),
        (UV_FULL, NoSpace, "the disk of /data/venvs is full"),
    ],
)
def test_a_failure_is_one_sentence(written: str, kind: type[Exception], sentence: str) -> None:
    output = InstallOutput()
    for line in written.splitlines():
        output.feed(line)
    error = output.failure("vllm 99", "vllm", "/data/venvs", "uv failed (exit code 1)")
    assert type(error) is kind
    assert str(error).startswith(f"vllm 99 cannot be installed: {sentence}")


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("Collecting torch==2.13.0 (from vllm==0.32.0)", "looking for torch"),
        (
            "  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (731.2 MB)",
            "fetching torch-2.13.0 (731.2 MB)",
        ),
        (
            "Downloading https://files.example/ab/torch-2.13.0-cp311-none-any.whl (731.2 MB)",
            "fetching torch-2.13.0 (731.2 MB)",
        ),
        ("Downloading torch (731.2MiB)", "fetching torch (731.2MiB)"),
        ("Resolved 150 packages in 835ms", "fetching 150 packages"),
        ("Prepared 150 packages in 38s", "installing 150 packages"),
        ("Installing collected packages: a, b", "installing a, b"),
        (f"Installing collected packages: {', '.join(['package'] * 80)}", "installing 80 packages"),
        ("creating virtual environment...", "making the environment"),
        ("installing vllm from spec 'vllm==0.9.2'...", "installing vllm"),
        ("anything else", "beginning"),
    ],
)
def test_a_line_may_begin_a_phase(line: str, phase: str) -> None:
    output = InstallOutput()
    output.feed(line)
    assert output.phase == phase


@pytest.mark.parametrize(
    "line",
    [
        "Looking in indexes: https://me:s3cret@pypi.example/simple",
        "Looking in indexes: https://s3cret@pypi.example/simple",
        "uv: token=s3cret",
    ],
)
def test_no_login_is_shown(line: str) -> None:
    shown = InstallOutput().feed(line)
    assert "s3cret" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("0.0.1", ["0.9.2", "0.10.1", "0.11.0rc1", "0.11.0"]),
        ("0.11.0", ["0.11.0rc1", "0.11.0", "0.12.0", "1.0"]),
        ("99", ["0.11.0rc1", "0.11.0", "0.12.0", "1.0"]),
        ("nonsense", ["0.9.2", "0.10.1", "0.11.0rc1", "0.11.0"]),
    ],
)
def test_the_nearest_versions_are_those_around(wanted: str, found: list[str]) -> None:
    assert nearest(wanted, ["1.0", "0.12.0", "0.11.0", "0.11.0rc1", "0.10.1", "0.9.2"]) == found
