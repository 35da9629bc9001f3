"""The complete configuration file of the documentation starts each role, with real values for its placeholders and
with every other option beside them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpustack.config.option import table
from gpustack.config.options import Options
from tests.certificates import make_certificate
from tests.daemon import Daemon, daemon
from tests.databases import Server
from tests.ports import free_port
from tests.saml.keys import pair

LATER = ("enable_ray", "ray_", "rpc_server_", "disable_rpc_servers")
TOKEN = "a-token-that-the-tests-have-chosen"


def complete(folder: Path) -> dict[str, Any]:
    """Every key that the page shows, but for server_url, which makes a worker of it."""
    certificate, key = make_certificate(folder, "server")
    (folder / "catalog.yaml").write_text(
        "- name: Of this house\n  sizes: [7]\n"
        '  templates:\n  - {source: local_path, local_path: "/models/house-{size}b.gguf"}\n'
    )
    common = {
        "debug": False,
        "data_dir": str(folder / "data"),
        "cache_dir": str(folder / "cache"),
        "token": TOKEN,
        "huggingface_token": "hf_of_the_tests",
        "enable_ray": False,
        "ray_args": ["--port=6379", "--verbose"],
        "ray_node_manager_port": 40098,
        "ray_object_manager_port": 40099,
        "ray_runtime_env_agent_port": 40100,
        "ray_dashboard_agent_grpc_port": 40101,
        "ray_dashboard_agent_listen_port": 52365,
        "ray_metrics_export_port": 40103,
    }
    server = {
        "host": "127.0.0.1",
        "port": free_port(),
        "metrics_port": free_port(),
        "disable_worker": False,
        "bootstrap_password": "First-Password-1",
        "database_url": f"sqlite:///{folder}/own.db",
        "ssl_keyfile": str(key),
        "ssl_certfile": str(certificate),
        "force_auth_localhost": False,
        "disable_update_check": False,
        "disable_openapi_docs": False,
        "model_catalog_file": str(folder / "catalog.yaml"),
        "ray_port": 40096,
        "ray_client_server_port": 40097,
        "ray_dashboard_port": 8265,
        "enable_cors": False,
        "allow_credentials": False,
        "allow_origins": ["*"],
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["Authorization", "Content-Type"],
        "oidc_issuer": "https://login.example.com",
        "oidc_client_id": "gpustack",
        "oidc_client_secret": "a-secret-of-two",
        "oidc_redirect_uri": "http://gpustack.example.com/auth/oidc/callback",
        "saml_idp_server_url": "https://login.example.com/saml",
        "saml_idp_entity_id": "https://login.example.com",
        "saml_idp_x509_cert": pair("provider").certificate,
        "saml_sp_entity_id": "https://gpustack.example.com",
        "saml_sp_acs_url": "http://gpustack.example.com/auth/saml/callback",
        "saml_sp_x509_cert": pair("gpustack").certificate,
        "saml_sp_private_key": pair("gpustack").key,
        "saml_security": '{"wantAssertionsSigned": true, "wantMessagesSigned": true}',
        "external_auth_name": "email",
        "external_auth_full_name": "name",
        "external_auth_avatar_url": "picture",
    }
    worker = {
        "worker_name": "of-the-page",
        "worker_ip": "127.0.0.1",
        "disable_metrics": False,
        "disable_rpc_servers": False,
        "worker_metrics_port": free_port(),
        "worker_port": free_port(),
        "service_port_range": "40000-40063",
        "rpc_server_port_range": "40064-40095",
        "ray_worker_port_range": "40200-40999",
        "log_dir": str(folder / "log"),
        "rpc_server_args": ["--verbose"],
        "system_reserved": {"ram": 2, "vram": 1},
        "tools_download_base_url": "http://127.0.0.1:9",
        "enable_hf_transfer": False,
        "enable_hf_xet": False,
    }
    return {**common, **server, **worker}


def ours(folder: Path, sign_on: str) -> dict[str, Any]:
    """Every option that the page does not show, but for config_file, which names where these are."""
    program = folder / "program"
    program.write_text("#!/bin/sh\nexit 2\n")
    program.chmod(0o755)
    issuer = "https://login.example.com"
    return {
        "heartbeat_interval": 1,
        "drain_timeout": 2,
        "reload_drain_timeout": 3,
        "bin_dir": str(folder / "bin"),
        "pipx_path": str(program),
        "ollama_library_base_url": "http://127.0.0.1:9",
        "advertise_url": "http://gpustack.example.com",
        "saml_sp_attribute_prefix": "urn:example:",
        "external_auth_type": sign_on,
        "external_auth_groups": "groups",
        "external_auth_admin_groups": ["gpu-admins"],
        "openid_configuration": {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/auth",
            "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/jwks",
            "userinfo_endpoint": f"{issuer}/me",
        },
        "heartbeat_timeout": 40,
        "reschedule_grace": 50,
        "stopped_worker_grace": 20,
        "audit_retention_days": 60,
        "update_check_url": "http://127.0.0.1:9",
        "jwt_secret_key": "0123456789abcdef" * 4,
        "disable_worker_metrics": False,
        "evict_unused_files": False,
        "leave": False,
        "leave_timeout": 30,
        "engine_stop_grace": 4,
        "llama_server_path": str(program),
        "engine_path": [f"vllm={program}"],
        "resources": {"cpu": {"total": 7}},
    }


def written(folder: Path, values: dict[str, Any]) -> tuple[str, str]:
    path = folder / "page.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return "--config-file", str(path)


def without_effect(one: Daemon) -> set[str]:
    """What the log says of options that do nothing in this version."""
    said = re.search(r"Set, but without effect in this version: (.*)\.$", one.log, flags=re.M)
    return set(re.findall(r"(\w+) \(", said[1])) if said else set()


def is_for_later(name: str) -> bool:
    return name.startswith(LATER)


@pytest.mark.parametrize(("role", "sign_on"), [("server+worker", "OIDC"), ("server", "SAML")])
def test_every_option_at_once_starts_a_server_with_each_sign_on(
    tmp_path: Path, role: str, sign_on: str, servers: Callable[[str], Server]
) -> None:
    """Those of the page among them; the database is a server's, as there."""
    database = servers("postgresql")
    values = {**complete(tmp_path), **ours(tmp_path, sign_on), "disable_worker": role == "server"}
    values["database_url"] = database.create()
    given = written(tmp_path, values)
    with daemon(tmp_path / "data", *given, trust=tmp_path / "server.crt") as one:
        assert one.url == f"https://127.0.0.1:{values['port']}"
        one.until(lambda: f"is ready as {role} in" in one.log, f"a {role}")
        assert all(is_for_later(name) for name in without_effect(one))
        assert one.exporter("server").endswith(f":{values['metrics_port']}")
        chosen = {"is_oidc": sign_on == "OIDC", "is_saml": sign_on == "SAML"}
        assert one.call("GET", "/auth-config")[1].items() >= chosen.items()
    database.drop(values["database_url"])


def test_every_option_at_once_starts_a_worker(tmp_path: Path) -> None:
    with daemon(tmp_path / "server" / "data", "--disable-worker", "--token", TOKEN) as server:
        (tmp_path / "worker").mkdir()
        folder = tmp_path / "worker"
        values = {**complete(folder), **ours(folder, "OIDC"), "server_url": server.url}
        given = written(tmp_path / "worker", values)
        with daemon(tmp_path / "worker" / "data", *given) as one:

            def names() -> list[str]:
                return [item["name"] for item in server.call("GET", "/v1/workers")[1]["items"]]

            server.until(lambda: names() == ["of-the-page"], "the worker")
            assert all(is_for_later(name) for name in without_effect(one))
            assert one.exporter("worker").endswith(f":{values['worker_metrics_port']}")


def test_disable_metrics_of_a_worker_means_its_own(tmp_path: Path) -> None:
    """The page has it among the options of a worker, where there is no server's exporter to disable."""
    with daemon(tmp_path / "server", "--disable-worker", "--token", TOKEN) as server:
        (tmp_path / "c.yaml").write_text(
            yaml.safe_dump({"server_url": server.url, "token": TOKEN, "disable_metrics": True})
        )
        (tmp_path / "c.yaml").chmod(0o600)
        with daemon(tmp_path / "worker", "--config-file", str(tmp_path / "c.yaml")) as one:
            server.until(lambda: server.call("GET", "/v1/workers")[1]["items"], "the worker")
            assert "Metrics of the worker" not in one.log
            assert "disable_metrics" not in one.log


def test_no_option_is_left_out_here(tmp_path: Path) -> None:
    page, rest = set(complete(tmp_path)), set(ours(tmp_path, "OIDC"))
    assert not page & rest
    assert page | rest | {"server_url", "config_file"} == {option.name for option in table(Options)}
