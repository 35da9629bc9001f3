from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpustack.config.environment import CommandVariables, Environment, ModelVariables
from gpustack.config.option import Option, table
from gpustack.config.options import Options
from tests.config.loading import faults, loaded

FORMS = {
    "http_url": ("nonsense", "must be a URL such as"),
    "header_value": ("two words", "takes letters, digits and signs of ASCII"),
    "file": ("/does/not/exist", "names /does/not/exist, which is not there"),
}
DECLARED = [option for cls in (Options, Environment) for option in table(cls) if option.form is not None]


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["--server-url=http://s"], "flag --server-url: a worker that joins a server needs its token"),
        (["--server-url=s:80", "-tx"], "flag --server-url: server_url must be a URL"),
        (["--server-url=ftp://s", "-tx"], "flag --server-url: server_url must be a URL"),
        (["--server-url=http://", "-tx"], "flag --server-url: server_url must be a URL"),
        (["--server-url=http://s:x", "-tx"], "flag --server-url: server_url must be a URL"),
        (
            ["--server-url=http://s", "-tx", "--disable-worker"],
            "flag --disable-worker: disable_worker and server_url together leave nothing to run",
        ),
        (["--port=10150"], "flag --port: worker_port (10150) collides with port (10150)"),
        (
            ["--worker-port=40010"],
            "flag --worker-port: service_port_range (40000-40063) collides with worker_port (40010)",
        ),
        (
            ["--service-port-range=40050-40064"],
            "flag --service-port-range: rpc_server_port_range (40064-40095) collides with service_port_range",
        ),
        (
            ["--enable-ray", "--ray-port=8265"],
            "flag --ray-port: ray_dashboard_port (8265) collides with ray_port (8265)",
        ),
        (["--host=10.0.0.300"], "flag --host: host must be an IP address or a host name"),
        (["--host=a b"], "flag --host: host must be an IP address or a host name"),
        (["--host=http://x"], "flag --host: host must be an IP address or a host name"),
        (["--worker-ip=host"], "flag --worker-ip: worker_ip must be an IP address"),
        (["--worker-name=a:b"], "flag --worker-name: worker_name takes letters"),
        (["--worker-name=-a"], "flag --worker-name: worker_name takes letters"),
        (["--database-url=oracle://h/d"], "flag --database-url: database_url must begin with"),
        (["--database-url=database.db"], "flag --database-url: database_url must begin with"),
        (["--saml-security=[1]"], "flag --saml-security: saml_security must be a JSON object"),
        (["--heartbeat-timeout=15"], "flag --heartbeat-timeout: heartbeat_timeout (15 s) must be longer"),
        (["--heartbeat-interval=50"], "flag --heartbeat-interval: heartbeat_timeout (45 s) must be longer"),
        (["--reschedule-grace=44"], "flag --reschedule-grace: reschedule_grace (44 s) must not be shorter"),
        (["--ollama-library-base-url=x"], "flag --ollama-library-base-url: ollama_library_base_url must be"),
        (
            ["--llama-server-path=/"],
            "flag --llama-server-path: llama_server_path names /, which is a directory",
        ),
        (
            ["--model-catalog-file=/no"],
            "flag --model-catalog-file: model_catalog_file names /no, which is not",
        ),
    ],
)
def test_what_does_not_go_together_is_told(argv: list[str], fault: str) -> None:
    told = faults(*argv)
    assert len(told) == 1
    assert told[0].startswith(fault)


@pytest.mark.parametrize(
    "argv",
    [
        ["--port=10150", "--disable-worker"],
        ["--port=40000", "--server-url=http://s", "-tx"],
        ["--metrics-port=10150", "--disable-metrics"],
        ["--worker-metrics-port=10150", "--disable-worker-metrics"],
        ["--service-port-range=40000-40095", "--disable-rpc-servers"],
        ["--ray-port=10150"],
        ["--port=0", "--worker-port=0", "--metrics-port=0"],
        ["--host=::", "--worker-ip=::1"],
        ["--host=gpu_box-1.example.com."],
        ["--worker-name=rack_1.node-2"],
        ["--server-url=https://[::1]:8443/", "-tx"],
        ["--model-catalog-file=https://example.com/c.yaml"],
        ["--database-url=postgresql+psycopg://u:p@h/d"],
    ],
)
def test_what_does_go_together_is_taken(argv: list[str]) -> None:
    assert faults(*argv) == []


@pytest.mark.parametrize(("platform", "count"), [("linux", 0), ("darwin", 1), ("win32", 1)])
def test_ray_needs_linux(platform: str, count: int) -> None:
    assert len(faults("--enable-ray", platform=platform)) == count


def test_half_of_a_tls_pair_is_told_and_the_whole_moves_the_port(tmp_path: Path) -> None:
    for name in ("key", "cert"):
        (tmp_path / name).touch()
    assert faults("--ssl-certfile=cert", cwd=tmp_path) == [
        "flag --ssl-certfile: ssl_keyfile and ssl_certfile go together, and ssl_keyfile is not set"
    ]
    options = loaded("--ssl-certfile=cert", "--ssl-keyfile=key", cwd=tmp_path).options
    assert (options.port, options.ssl_keyfile) == (443, tmp_path / "key")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").touch(mode=0o000)
    assert "may not be read" in faults("--llama-server-path=x", cwd=tmp_path)[0]


def test_the_role_follows_from_server_url_and_disable_worker() -> None:
    assert loaded().role == "server+worker"
    assert loaded("--disable-worker").role == "server"
    assert loaded("-s", "http://s/", "-t", "x").role == "worker"
    assert loaded("-s", "http://s/", "-t", "x").options.server_url == "http://s"


@pytest.mark.parametrize("option", DECLARED, ids=lambda option: option.name)
def test_what_an_option_is_declared_to_be_is_checked(option: Option) -> None:
    assert option.form is not None
    value, sentence = FORMS[option.form]
    assert [
        fault for fault in faults(env={option.env: value}) if f"{option.env}: " in fault and sentence in fault
    ]


@pytest.mark.parametrize("cls", [ModelVariables, CommandVariables], ids=lambda cls: cls.__name__)
def test_variables_for_others_are_known_to_the_daemon(cls: type[ModelVariables]) -> None:
    """So that nobody is told that nothing reads them."""
    names = [variable.env for variable in table(cls) if variable.env != "GPUSTACK_SERVER_URL"]
    assert names
    assert not [
        warning for warning in loaded(env=dict.fromkeys(names, "1")).warnings if "nothing reads" in warning
    ]
