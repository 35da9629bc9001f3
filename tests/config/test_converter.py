"""What people's shells, unit files and editors put around and into values, and what is told of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpustack.config.option import table
from gpustack.config.options import Options
from tests.config.loading import faults, loaded

SECRET = "hf_abcdefgh"
LINES = {
    "saml_idp_x509_cert",
    "saml_sp_x509_cert",
    "saml_sp_private_key",
    "saml_security",
    "system_reserved",
    "openid_configuration",
    "resources",
}
PLAIN = [option for option in table(Options) if option.type == str | None and option.name not in LINES]
AROUND = [
    "{}\n",
    "{}\r\n",
    " {} ",
    "\t{}",
    "\ufeff{}",
    "{}\u200b",
    "\u00a0{}\u2028",
    "{}\x00".replace("\x00", "\n\n"),
]


@pytest.mark.parametrize("around", AROUND)
def test_white_space_around_a_value_is_no_part_of_it(around: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"huggingface_token": around.format(SECRET), "port": around.format("81")}))
    by_file = loaded(f"--config-file={file}")
    by_environment = loaded(
        env={"HF_TOKEN": around.format(SECRET), "GPUSTACK_PORT": around.format("81"), "GPU_STACK_PORT": "82"}
    )
    by_flag = loaded("--huggingface-token", around.format(SECRET), "--port", around.format("81"))
    for found in (by_file, by_environment, by_flag):
        assert (found.options.huggingface_token, found.options.port) == (SECRET, 81)


def test_the_words_of_a_list_are_trimmed_too(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"allow_methods": [" GET\n", "POST"]}))
    assert loaded(f"--config-file={file}").options.allow_methods == ("GET", "POST")
    assert loaded(env={"GPUSTACK_ALLOW_METHODS": '["GET",\n "POST"]\n'}).options.allow_methods == (
        "GET",
        "POST",
    )
    assert loaded(env={"GPUSTACK_ALLOW_METHODS": "GET,\n  POST\n"}).options.allow_methods == ("GET", "POST")
    (fault,) = faults(env={"GPUSTACK_ALLOW_METHODS": "GE\nT,POST"})
    assert fault.startswith("GPUSTACK_ALLOW_METHODS: allow_methods must not hold a line break")


def test_a_variable_of_white_space_counts_as_not_set() -> None:
    found = loaded(env={"GPUSTACK_TOKEN": " \n", "GPUSTACK_HUGGINGFACE_TOKEN": "\ufeff", "HF_TOKEN": SECRET})
    assert (found.options.token, found.options.huggingface_token) == (None, SECRET)


@pytest.mark.parametrize("option", PLAIN, ids=lambda option: option.name)
def test_no_value_of_one_line_takes_a_line_break(option: Any) -> None:
    found = faults(env={option.env: f"{SECRET}\n{SECRET}"})
    assert f"{option.env}: {option.name} must not hold a line break" in found
    assert not any(SECRET in fault for fault in found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{SECRET}\x00x", "must not hold the control character U+0000"),
        (f"{SECRET}\x1b[2Jx", "must not hold the control character U+001B"),
        (f"{SECRET}\x9bx", "must not hold the control character U+009B"),
        (f"{SECRET}\tx", "must not hold the control character U+0009"),
        (f"{SECRET}\x85x", "must not hold a line break"),
        (f"{SECRET}\u2028x", "must not hold a line break"),
        (os.fsdecode(b"hf_\xe9"), "must be UTF-8 text"),
        ("hf_caf\u00e9", "takes letters, digits and signs of ASCII, without spaces"),
        ("hf_a b", "takes letters, digits and signs of ASCII, without spaces"),
        ("hf_a\u200bb", "takes letters, digits and signs of ASCII, without spaces"),
    ],
)
@pytest.mark.parametrize("name", ["HF_TOKEN", "GPUSTACK_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_characters_that_no_token_has_are_told_and_the_token_is_not(name: str, text: str, told: str) -> None:
    (fault,) = faults(env={name: text})
    assert fault.startswith(f"{name}: ") and fault.endswith(told)
    assert "hf_" not in fault


def test_everything_of_that_kind_is_told_at_once_with_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text('token: "a\\nb"\nworker_name: "a\\u0007b"\nport: "8\\n1"\n')
    env = {
        "GPUSTACK_DATABASE_URL": "sqlite:///a\nb",
        "HF_ENDPOINT": "https://a\nb",
        "GPUSTACK_SAML_SECURITY": '{"a": "b\x00"}',
        "HF_HUB_USER_AGENT_ORIGIN": "a\nb",
        "SSL_CERT_FILE": "/a\nb",
        "HTTPS_PROXY": "http://a:b\nc@d:1",
        "GPUSTACK_API_KEY": "a\nb",
        "UNRELATED": "a\nb",
    }
    found = faults("--config-file", str(file), "--host", "a\nb", env=env)
    assert sorted(fault.partition(": ")[0] for fault in found) == sorted(
        [
            "flag --host",
            f"{file} line 1",
            f"{file} line 2",
            f"{file} line 3",
            "GPUSTACK_DATABASE_URL",
            "HF_ENDPOINT",
            "GPUSTACK_SAML_SECURITY",
            "HF_HUB_USER_AGENT_ORIGIN",
            "SSL_CERT_FILE",
            "HTTPS_PROXY",
            "GPUSTACK_API_KEY",
        ]
    )


@pytest.mark.parametrize("name", sorted(LINES))
def test_what_is_pem_or_json_may_have_lines(name: str) -> None:
    text = {
        "system_reserved": '{\n\t"ram": 1\r\n}\n',
        "openid_configuration": '{\n"issuer": "https://i"\n}',
        "resources": '{\n"cpu": {"total": 4}}',
    }.get(name, "-----BEGIN X-----\nMAAA\r\n-----END X-----\n")
    found = faults(env={f"GPUSTACK_{name.upper()}": text})
    assert not any("line break" in fault or "control character" in fault for fault in found)


def test_a_place_that_is_no_text_is_told_wherever_it_comes_from(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    assert any("cache_dir must be UTF-8 text" in one for one in faults(env={"GPUSTACK_CACHE_DIR": str(odd)}))
    (fault, *_) = faults(f"--data-dir={'data'}", cwd=odd)
    assert "data_dir must be UTF-8 text; HOME and the working directory may be part of it" in fault
    (fault,) = faults("--config-file=a\nb")
    assert fault == "flag --config-file: config_file must not hold a line break"


def test_names_of_devices_in_the_resources_are_text() -> None:
    card = {"name": "A\x00card", "vendor": "NVIDIA", "index": 0, "memory": {"total": 1}}
    (fault,) = faults(env={"GPUSTACK_RESOURCES": json.dumps({"gpu_devices": [card]})})
    assert "gpu_devices[0].name must not hold the control character U+0000" in fault


def test_certificates_that_are_not_there_are_told_at_the_start(tmp_path: Path) -> None:
    (fault,) = faults(env={"SSL_CERT_FILE": f"{tmp_path}/none.pem "})
    assert fault.startswith(f"SSL_CERT_FILE: names {tmp_path}/none.pem, which is not there")
    (tmp_path / "some.pem").touch()
    assert faults(env={"SSL_CERT_FILE": f"{tmp_path}/some.pem\n"}) == []


@pytest.mark.parametrize(
    "name", ["config_file", "ssl_keyfile", "ssl_certfile", "pipx_path", "model_catalog_file"]
)
def test_a_name_that_no_file_has_is_told_in_a_sentence_of_bounded_length(name: str, tmp_path: Path) -> None:
    """As of a certificate given in place of the file that holds it."""
    given = {"ssl_keyfile": "k", "ssl_certfile": "c"} if name.startswith("ssl") else {}
    env = {f"GPUSTACK_{key.upper()}": value for key, value in {**given, name: "MIIB" * 2000}.items()}
    told = [one for one in faults(env=env, cwd=tmp_path) if f"{name} names" in one]
    assert len(told) == 1 and len(told[0]) < 500
    assert told[0].endswith("which is not there")


def test_certificates_with_a_name_that_no_file_has_are_told(tmp_path: Path) -> None:
    (told,) = faults(env={"SSL_CERT_FILE": "MIIB" * 2000}, cwd=tmp_path)
    assert "SSL_CERT_FILE" in told and len(told) < 500
