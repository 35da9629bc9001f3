"""A daemon with most options set at once, as a test sees it from outside."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from gpustack.domain.audit import AuditEvent, AuditOutcome
from gpustack.domain.document import encode
from tests.daemon import Daemon, daemon
from tests.fakes.cas import Cas
from tests.fakes.hub import Hub
from tests.fakes.mirror import Mirror, llama_server
from tests.fakes.registry import Registry
from tests.options.spelling import spelled
from tests.ports import free_port, free_range

PASSWORD = "First-Password-1"
TOKEN = "a-token-that-the-tests-have-chosen"
HUB_TOKEN = "hf_of_the_tests"
NAME = "worker-of-the-tests"
ADDRESS = "127.0.0.2"


@attrs.define(eq=False)
class World:
    """The daemon, what it was told, and how it is spoken to."""

    daemon: Daemon
    values: dict[str, Any]
    folder: Path
    hub: Hub
    mirror: Mirror
    cas: Cas
    registry: Registry
    silent_id: int = 0
    """A worker that has joined and is never heard again."""
    joined: dict[str, Any] = attrs.field(factory=dict)

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """As the administrator, by the password that an option gave."""
        return self.daemon.call(method, path, body, {"authorization": self.credentials})

    @property
    def credentials(self) -> str:
        return f"Basic {base64.b64encode(f'admin:{PASSWORD}'.encode()).decode()}"

    def worker(self, name: str = NAME) -> dict[str, Any]:
        """A worker's record, once it is ready."""
        return dict(self.daemon.until(lambda: self._workers().get(name), f"the worker {name}"))

    def _workers(self) -> dict[str, Any]:
        return {one["name"]: one for one in self.call("GET", "/v1/workers")[1]["items"]}

    def fetched(self, repository: str, name: str) -> dict[str, Any]:
        """Have the worker fetch a file of the hub; its record once it is here."""
        wanted = {"huggingface_repo_id": repository, "huggingface_filename": name}
        return self.brought({"source": "huggingface", **wanted})

    def brought(self, source: dict[str, Any]) -> dict[str, Any]:
        """Have the worker fetch what a source names; its record once it is here."""
        body = {**source, "worker_id": self.worker()["id"]}
        status, made = self.call("POST", "/v1/model-files", body)
        assert status == 200, made

        def look() -> dict[str, Any] | None:
            record = self.call("GET", f"/v1/model-files/{made['id']}")[1]
            assert record["state"] != "error", record
            return dict(record) if record["state"] == "ready" else None

        return dict(self.daemon.until(look, f"{source} on the worker"))


def leave_trail(data: Path) -> None:
    """What a daemon before this one could not bring to the database: an old event and one of yesterday."""
    now = datetime.now(UTC)
    events = [
        AuditEvent(
            at=now - timedelta(days=days), action=f"tests.{name}", outcome=AuditOutcome.DONE, status=200
        )
        for name, days in (("old", 3), ("young", 1))
    ]
    (data / "audit").mkdir(parents=True)
    (data / "audit" / "1.json").write_bytes(encode(events))


@contextmanager
def world(
    spelling: str, folder: Path, hub: Hub, mirror: Mirror, cas: Cas, registry: Registry
) -> Iterator[World]:
    """Start it with every option given in one of the spellings."""
    program = folder / "llama-server"
    program.write_bytes(llama_server("4711"))
    program.chmod(0o755)
    values: dict[str, Any] = {
        "data_dir": folder / "data",
        "cache_dir": folder / "cache",
        "bin_dir": folder / "bin",
        "log_dir": folder / "log",
        "database_url": f"sqlite:///{folder}/own.db",
        "debug": True,
        "token": TOKEN,
        "huggingface_token": HUB_TOKEN,
        "host": "127.0.0.1",
        "port": free_port(),
        "advertise_url": "https://one.example:8443/",
        "bootstrap_password": PASSWORD,
        "force_auth_localhost": True,
        "jwt_secret_key": "0123456789abcdef" * 4,
        "heartbeat_interval": 0.5,
        "heartbeat_timeout": 3.0,
        "reschedule_grace": 4.0,
        "audit_retention_days": 2,
        "drain_timeout": 0.3,
        "reload_drain_timeout": 0.3,
        "engine_stop_grace": 0.3,
        "worker_name": NAME,
        "worker_ip": ADDRESS,
        "worker_port": free_port(),
        "service_port_range": free_range(4),
        "system_reserved": {"ram": 3, "vram": 0},
        "tools_download_base_url": mirror.url,
        "ollama_library_base_url": f"{registry.url}/",
        "llama_server_path": program,
        "enable_hf_transfer": True,
        "enable_hf_xet": True,
        "resources": {"cpu": {"total": 7}},
    }
    leave_trail(folder / "data")
    arguments, env = spelled(spelling, folder, values)
    variables = {"HF_ENDPOINT": hub.url, "GPUSTACK_DISABLE_DYNAMIC_LINK_LLAMA_BOX": "true"}
    with daemon(folder / "data", *arguments, env={**env, **variables}) as running:
        made = World(running, values, folder, hub, mirror, cas, registry)
        made.worker()
        request = {"name": "silent", "worker_uuid": "0" * 32, "ip": "127.0.0.9"}
        status, made.joined = running.call(
            "POST", "/v1/workers", request, {"authorization": f"Bearer {TOKEN}"}
        )
        assert status == 200, made.joined
        made.silent_id = made.joined["id"]
        yield made
