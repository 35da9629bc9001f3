"""Schemathesis asks a running daemon all that its OpenAPI document allows, and more: it answers as documented.

The usual run is short; ``make fuzz`` tries every boundary and as many examples as it is told.
"""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, daemon

from .fuzzing import EXAMPLES

pytestmark = pytest.mark.attack("parser")

CONFIG = Path(__file__).with_name("schemathesis.toml")
CHECKS = ",".join(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
     "response_schema_conformance", "unsupported_method", "use_after_free"]
)  # fmt: skip
LONGEST = 120 if not EXAMPLES else 3600


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("asked") / "data") as one:
        yield one
        assert one.call("GET", "/readyz")[0] == 200
        assert "Traceback" not in one.log
        assert "A handler failed" not in one.log


def key_of_a_user(asked: Daemon) -> str:
    body = {"username": "ada", "password": "Adas_1_password"}
    assert asked.call("POST", "/v1/users", body)[0] == 200
    basic = {"authorization": "Basic YWRhOkFkYXNfMV9wYXNzd29yZA=="}
    status, key = asked.call("POST", "/v1/api-keys", {"name": "fuzz"}, basic)
    assert status == 200, key
    return str(key["value"])


@pytest.mark.parametrize("role", ["anybody", "user", "administrator"])
def test_whatever_is_asked_is_answered_as_documented(asked: Daemon, tmp_path: Path, role: str) -> None:
    """The administrator is whoever sits at the machine; nobody in particular is one whom a proxy forwards."""
    given = {
        "anybody": ["--header", "X-Forwarded-For:10.0.0.9"],
        "user": ["--header", f"Authorization:Bearer {key_of_a_user(asked)}"] if role == "user" else [],
        "administrator": [],
    }[role]
    command = [
        str(Path(sysconfig.get_path("scripts")) / "schemathesis"), "--config-file", str(CONFIG), "--no-color",
        "run", f"{asked.url}/openapi.json", *given, "--seed", "1", "--warnings", "off", "--checks", CHECKS,
        "--phases", "coverage,fuzzing,stateful" if EXAMPLES else "fuzzing,stateful",
        "--max-examples", str(EXAMPLES or 2), "--request-timeout", "20", "--no-shrink",
        # who deletes the own key asks no more, and at hubs beyond our walls nobody is asked
        "--exclude-operation-id-regex", "^(delete_v1_api_keys_id|.*_proxy)$",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout
