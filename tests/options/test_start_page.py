"""The complete configuration file of the documentation starts each role, with real values for its placeholders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpustack.config.option import table
from gpustack.config.options import Options
from tests.certificates import make_certificate
from tests.daemon import Daemon, daemon
from tests.options.world import free_port

SIGN_ON = ("oidc_", "saml_", "external_auth_")
SEVERAL_NODES = ("enable_ray", "ray_", "rpc_server_", "disable_rpc_servers")
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
        "saml_idp_x509_cert": certificate.read_text(),
        "saml_sp_entity_id": "https://gpustack.example.com",
        "saml_sp_acs_url": "http://gpustack.example.com/auth/saml/callback",
        "saml_sp_x509_cert": certificate.read_text(),
        "saml_sp_private_key": key.read_text(),
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


def written(folder: Path, values: dict[str, Any]) -> tuple[str, str]:
    path = folder / "page.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return "--config-file", str(path)


def without_effect(one: Daemon) -> set[str]:
    """What the log says of options that do nothing in this version."""
    said = re.search(r"Set, but without effect in this version: (.*)\.$", one.log, flags=re.M)
    return set(re.findall(r"(\w+) \(", said[1])) if said else set()


def is_for_later(name: str) -> bool:
    return name.startswith((*SIGN_ON, *SEVERAL_NODES))


@pytest.mark.parametrize(("role", "disable_worker"), [("server+worker", False), ("server", True)])
def test_the_whole_page_starts_a_server(tmp_path: Path, role: str, disable_worker: bool) -> None:
    values = {**complete(tmp_path), "disable_worker": disable_worker}
    given = written(tmp_path, values)
    with daemon(tmp_path / "data", *given, trust=tmp_path / "server.crt") as one:
        assert one.url == f"https://127.0.0.1:{values['port']}"
        one.until(lambda: f"is ready as {role} in" in one.log, f"a {role}")
        assert all(is_for_later(name) for name in without_effect(one))
        assert one.exporter("server").endswith(f":{values['metrics_port']}")


def test_the_whole_page_starts_a_worker(tmp_path: Path) -> None:
    with daemon(tmp_path / "server" / "data", "--disable-worker", "--token", TOKEN) as server:
        (tmp_path / "worker").mkdir()
        values = {**complete(tmp_path / "worker"), "server_url": server.url}
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
        with daemon(tmp_path / "worker", "--config-file", str(tmp_path / "c.yaml")) as one:
            server.until(lambda: server.call("GET", "/v1/workers")[1]["items"], "the worker")
            assert "Metrics of the worker" not in one.log
            assert "disable_metrics" not in one.log


def test_the_page_has_every_option_but_those_that_are_ours(tmp_path: Path) -> None:
    """What it does not show: ours, those it keeps to itself, and the one that names the file."""
    ours = {option.name for option in table(Options)} - set(complete(tmp_path)) - {"server_url"}
    assert ours == {
        *(
            "config_file",
            "heartbeat_interval",
            "drain_timeout",
            "reload_drain_timeout",
            "bin_dir",
            "pipx_path",
        ),
        *("saml_sp_attribute_prefix", "heartbeat_timeout", "reschedule_grace", "ollama_library_base_url"),
        "audit_retention_days",
        *("update_check_url", "jwt_secret_key", "external_auth_type", "openid_configuration"),
        *("external_auth_groups", "external_auth_admin_groups", "advertise_url"),
        *("disable_worker_metrics", "engine_stop_grace", "llama_server_path", "resources"),
    }
