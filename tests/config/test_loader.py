from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpustack.config.environment import Environment
from gpustack.config.loader import Configuration
from gpustack.config.option import Option, table
from gpustack.config.options import Options
from gpustack.config.value import PortRange, SystemReservedGib, read_words
from tests.config.loading import faults, loaded

OPTIONS = [option for option in table(Options) if option.name != "config_file"]
COMPANIONS = {
    "ssl_keyfile": ["--ssl-certfile={file}"],
    "oidc_issuer": ["--oidc-client-id=x", "--oidc-redirect-uri=https://s/auth/oidc/callback"],
    "external_auth_groups": ["--external-auth-admin-groups=x"],
    "external_auth_admin_groups": ["--external-auth-groups=x"],
    "external_auth_type": [
        "--oidc-issuer=https://i",
        "--oidc-client-id=x",
        "--oidc-redirect-uri=https://s/auth/oidc/callback",
    ],
    "saml_idp_server_url": [
        "--saml-idp-entity-id=i",
        "--saml-idp-x509-cert=MAAA",
        "--saml-sp-entity-id=s",
        "--saml-sp-acs-url=https://s/auth/saml/callback",
    ],
    "ssl_certfile": ["--ssl-keyfile={file}"],
    "server_url": ["--token=x"],
}


def yaml_file(folder: Path, **values: Any) -> str:
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return f"--config-file={path}"


def named(option: Option) -> str:
    return option.name


@pytest.mark.parametrize("option", OPTIONS, ids=named)
def test_every_option_says_the_same_in_each_of_its_spellings(option: Option, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    sample = option.sample.replace("{file}", str(file))
    beside = [flag.replace("{file}", str(file)) for flag in COMPANIONS.get(option.name, [])]

    def value(found: Configuration) -> Any:
        return getattr(found.options, option.name)

    by_environment = loaded(*beside, env={option.env: sample})
    assert value(by_environment) != option.default
    assert str(by_environment.origins[option.name]) == option.env

    by_file = loaded(*beside, yaml_file(tmp_path, **{option.name: sample}))
    assert value(by_file) == value(by_environment)
    assert str(by_file.origins[option.name]) == f"{tmp_path / 'config.yaml'} line 1"

    for alias in option.aliases:
        assert value(loaded(*beside, env={alias: sample})) == value(by_environment)

    if option.flag is not None:
        words = read_words(sample) if option.repeated else [sample]
        by_flag = loaded(*beside, *(f"{option.flag}={word}" for word in words))
        assert value(by_flag) == value(by_environment)
        assert str(by_flag.origins[option.name]) == f"flag {option.flag}"


@pytest.mark.parametrize(
    ("name", "texts", "values"),
    [
        ("debug", ["true", "false", "true", "false"], [True, False, True, False]),
        ("worker_port", ["11", "12", "13", "14"], [11, 12, 13, 14]),
        ("allow_methods", ["A", "B,C", '["D"]', "E"], [("A",), ("B", "C"), ("D",), ("E",)]),
        (
            "system_reserved",
            ['{"ram":1}', '{"ram":2.5}', '{"ram":3,"vram":0}', '{"vram":4}'],
            [
                SystemReservedGib(1, 1),
                SystemReservedGib(2.5, 1),
                SystemReservedGib(3, 0),
                SystemReservedGib(2, 4),
            ],
        ),
    ],
)
def test_a_flag_beats_the_environment_beats_the_file_beats_the_old_prefix(
    name: str, texts: list[str], values: list[Any], tmp_path: Path
) -> None:
    old = {f"GPU_STACK_{name.upper()}": texts[0]}
    file = yaml_file(tmp_path, **{name: texts[1]})
    env = {f"GPUSTACK_{name.upper()}": texts[2]}
    flag = f"--{name.replace('_', '-')}={texts[3]}"
    found = [
        loaded(env=old),
        loaded(file, env=old),
        loaded(file, env=old | env),
        loaded(flag, file, env=old | env),
    ]
    assert [getattr(each.options, name) for each in found] == values
    assert [each.origins[name].kind for each in found] == ["legacy", "file", "environment", "flag"]
    assert loaded().origins[name].kind == "default"


def test_false_in_the_environment_beats_true_in_the_file(tmp_path: Path) -> None:
    file = yaml_file(tmp_path, debug=True)
    assert loaded(file).options.debug
    assert not loaded(file, env={"GPUSTACK_DEBUG": "false"}).options.debug
    assert not loaded(file, env={"GPUSTACK_DEBUG": "0"}).options.debug
    assert not loaded("--debug=false", file, env={"GPUSTACK_DEBUG": "true"}).options.debug


def test_an_empty_variable_and_a_null_key_take_no_part(tmp_path: Path) -> None:
    found = loaded(yaml_file(tmp_path, port=None), env={"GPUSTACK_PORT": "", "GPUSTACK_TOKEN": ""})
    assert found.options.port == 80
    assert found.options.token is None
    assert found.origins["port"].kind == "default"


def test_the_own_variable_of_the_token_beats_the_hub_s() -> None:
    env = {"HF_TOKEN": "theirs", "GPUSTACK_HUGGINGFACE_TOKEN": "ours"}
    assert loaded(env=env).options.huggingface_token == "ours"


def test_the_variable_can_name_the_file_and_the_flag_beats_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("port: 1")
    (tmp_path / "b.yaml").write_text("port: 2")
    env = {"GPUSTACK_CONFIG_FILE": "a.yaml"}
    assert loaded(env=env, cwd=tmp_path).options.port == 1
    found = loaded("--config-file", "b.yaml", env=env, cwd=tmp_path)
    assert found.options.port == 2
    assert str(found.origins["port"]) == "b.yaml line 1"


def test_everything_wrong_is_told_at_once_each_with_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("hosst: x\nworker_port: 70000\nssl_keyfile: /nowhere/key\nresources: {cpu: {}}\n")
    env = {
        "GPUSTACK_SERVICE_PORT_RANGE": "9-1",
        "GPUSTACK_DEBUG": "perhaps",
        "GPUSTACK_DB_POOL_SIZE": "many",
        "HF_ENDPOINT": "mirror",
    }
    argv = ["--prot=1", "--config-file=c.yaml", "--port=x", "--worker-ip=1.2.3", "--saml-security=["]
    assert faults(*argv, env=env, cwd=tmp_path) == [
        "flag --prot: is not known; did you mean --port?",
        "c.yaml line 1: hosst is not known; did you mean host?",
        "GPUSTACK_DEBUG: debug must be true or false, not 'perhaps'",
        "flag --port: port must be a whole number, not 'x'",
        "GPUSTACK_SERVICE_PORT_RANGE: service_port_range must not begin (9) after its end (1)",
        "c.yaml line 4: resources cpu.total is missing",
        "c.yaml line 2: worker_port must lie between 0 and 65535, not 70000",
        "c.yaml line 3: ssl_keyfile and ssl_certfile go together, and ssl_certfile is not set",
        "flag --worker-ip: worker_ip must be an IP address, not '1.2.3'",
        "flag --saml-security: saml_security must be a JSON object",
        "c.yaml line 3: ssl_keyfile names /nowhere/key, which is not there",
        "GPUSTACK_DB_POOL_SIZE: db_pool_size must be a whole number, not 'many'",
        "HF_ENDPOINT: must be a URL such as https://hf-mirror.com",
    ]


def test_a_configuration_file_that_is_not_there_is_told_with_the_rest(tmp_path: Path) -> None:
    assert faults("--config-file=no.yaml", "--port=x", cwd=tmp_path) == [
        f"flag --config-file: config_file names {tmp_path}/no.yaml, which is not there",
        "flag --port: port must be a whole number, not 'x'",
    ]
    assert faults("--config-file=.", cwd=tmp_path) == [
        f"flag --config-file: config_file names {tmp_path}, which is a directory"
    ]


def test_faults_never_show_a_secret() -> None:
    told = faults("--database-url=oracle://u:hunter2@h/d", "--token=", "--saml-sp-private-key", "hunter2\0")
    assert len(told) == 3
    assert "hunter2" not in " ".join(told)


def test_nothing_shows_a_secret_that_is_set() -> None:
    env = {option.env: "hunter2" for option in OPTIONS if option.mask and option.name != "database_url"}
    env |= {"GPUSTACK_DATABASE_URL": "postgresql://u:hunter2@h/d", "HTTPS_PROXY": "http://u:hunter2@p"}
    found = loaded(env=env)
    assert found.options.token == "hunter2"
    assert "hunter2" not in repr(found)


KEYS = """
    debug data_dir cache_dir token huggingface_token enable_ray ray_args ray_node_manager_port
    ray_object_manager_port ray_runtime_env_agent_port ray_dashboard_agent_grpc_port
    ray_dashboard_agent_listen_port ray_metrics_export_port
    host port metrics_port disable_worker bootstrap_password database_url ssl_keyfile ssl_certfile
    force_auth_localhost disable_update_check disable_openapi_docs model_catalog_file ray_port
    ray_client_server_port ray_dashboard_port enable_cors allow_credentials allow_origins allow_methods
    allow_headers oidc_issuer oidc_client_id oidc_client_secret oidc_redirect_uri saml_idp_server_url
    saml_idp_entity_id saml_idp_x509_cert saml_sp_entity_id saml_sp_acs_url saml_sp_x509_cert
    saml_sp_private_key saml_security external_auth_name external_auth_full_name external_auth_avatar_url
    server_url worker_name worker_ip disable_metrics disable_rpc_servers worker_metrics_port worker_port
    service_port_range rpc_server_port_range ray_worker_port_range log_dir rpc_server_args system_reserved
    tools_download_base_url enable_hf_transfer enable_hf_xet
"""


def test_the_keys_of_the_start_page_s_example_are_all_taken(tmp_path: Path) -> None:
    """The worker block of that page has disable_metrics and lacks disable_worker_metrics: both are keys."""
    file = tmp_path / "file"
    file.touch()
    samples = {option.name: option.sample.replace("{file}", str(file)) for option in table(Options)}
    values: dict[str, Any] = {name: samples[name] for name in KEYS.split()}
    values |= {"ray_args": ["--port=6379", "--verbose"], "system_reserved": {"ram": 2, "vram": 1}}
    values |= {"disable_worker": False, "enable_ray": False, "disable_worker_metrics": False}
    found = loaded(yaml_file(tmp_path, **values))
    assert found.role == "worker"
    assert found.options.ray_args == ("--port=6379", "--verbose")
    assert found.options.service_port_range == PortRange(41000, 41063)


def test_defaults_are_those_of_the_start_page() -> None:
    options = loaded().options
    assert options == Options()
    assert {
        name: getattr(options, name)
        for name in ("host", "port", "metrics_port", "worker_port", "worker_metrics_port", "ray_port")
    } == {
        "host": "0.0.0.0",
        "port": 80,
        "metrics_port": 10161,
        "worker_port": 10150,
        "worker_metrics_port": 10151,
        "ray_port": 40096,
    }
    assert str(options.data_dir) == "/var/lib/gpustack"
    assert options.database_url == "sqlite:////var/lib/gpustack/database.db"
    ranges = (options.service_port_range, options.rpc_server_port_range, options.ray_worker_port_range)
    assert [str(each) for each in ranges] == ["40000-40063", "40064-40095", "40200-40999"]
    assert options.system_reserved == SystemReservedGib(ram=2, vram=1)
    assert options.allow_headers == ("Authorization", "Content-Type")


UNBUILT = [option for option in OPTIONS if option.built is not True]


@pytest.mark.parametrize("option", UNBUILT, ids=named)
def test_an_option_without_effect_says_so_when_it_is_set(option: Option, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    beside = [flag.replace("{file}", str(file)) for flag in COMPANIONS.get(option.name, [])]
    found = loaded(*beside, env={option.env: option.sample.replace("{file}", str(file))})
    told = [line for line in found.warnings if line.startswith("Set, but without effect in this version")]
    assert len(told) == 1
    assert f"{option.name} ({option.env})" in told[0]


def test_turning_off_what_is_not_built_needs_no_warning() -> None:
    assert loaded("--enable-ray=false", "--database-url=sqlite:////tmp/x.db").warnings == ()


def test_options_of_the_other_role_are_told() -> None:
    found = loaded("--server-url=http://s", "--token=x", "--host=127.0.0.1", "--worker-name=w")
    assert found.warnings == ("Set, but without effect on a worker without a server: host (flag --host).",)
    found = loaded("--disable-worker", "--worker-name=w")
    assert found.warnings == (
        "Set, but without effect on a server without a worker: worker_name (flag --worker-name).",
    )


def test_variables_that_nothing_reads_are_told_once_with_what_they_resemble() -> None:
    env = {
        "GPUSTACK_PROT": "1",
        "GPUSTACK_ZZ": "2",
        "GPUSTACK_MODEL_VRAM_CLAIM": "3",
        "GPUSTACK_API_KEY": "4",
        "HOME": "/root",
    }
    assert loaded(env=env).warnings == (
        "Variables that nothing reads: GPUSTACK_PROT (did you mean GPUSTACK_PORT?), GPUSTACK_ZZ.",
    )


def test_old_spellings_work_and_are_told() -> None:
    found = loaded("--system-reserved", '{"memory": 0, "gpu_memory": 3}', env={"GPU_STACK_WORKER_NAME": "a"})
    assert found.options.system_reserved == SystemReservedGib(ram=0, vram=3)
    assert found.options.worker_name == "a"
    assert found.warnings == (
        "Deprecated spellings that will go (use GPUSTACK_ variables, and ram and vram): "
        "GPU_STACK_WORKER_NAME, memory, gpu_memory.",
    )


@pytest.mark.parametrize("variable", table(Environment), ids=named)
def test_the_other_variables_have_typed_values(variable: Option) -> None:
    found = getattr(loaded(env={variable.env: variable.sample}).environment, variable.name)
    assert found != variable.default
    assert getattr(loaded().environment, variable.name) == variable.default
    assert variable.default is None or type(found) is type(variable.default)


def test_switching_rpc_servers_off_is_not_switching_metrics_off() -> None:
    """The existing product reads the one from the other's variable."""
    options = loaded(env={"GPUSTACK_DISABLE_RPC_SERVERS": "true"}).options
    assert (options.disable_rpc_servers, options.disable_worker_metrics) == (True, False)
    options = loaded(env={"GPUSTACK_DISABLE_WORKER_METRICS": "true"}).options
    assert (options.disable_rpc_servers, options.disable_worker_metrics) == (False, True)


def test_secrets_that_are_shorter_than_new_ones_may_be_are_told_and_not_shown() -> None:
    found = loaded("--token=hunter2", env={"GPUSTACK_BOOTSTRAP_PASSWORD": "Hush_1!"})
    assert found.warnings == (
        "With fewer characters than a new one may have, and so sooner guessed: token (flag --token, 16 for a new one), "
        "bootstrap_password (GPUSTACK_BOOTSTRAP_PASSWORD, 8 for a new one).",
    )
    assert loaded("--token=0123456789abcdef", "--bootstrap-password=Hushed_1").warnings == ()
    assert loaded("--server-url=http://s", "--token=short").warnings == (), "it is the server's to choose"
