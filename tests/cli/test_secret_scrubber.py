"""No secret gets into what is given to others, however it is written."""

from __future__ import annotations

import json
import time

import pytest

from gpustack.cli.secret_scrubber import SecretScrubber, is_secret_name

SECRET = "Hunter2Hunter2"
pytestmark = pytest.mark.attack("secret")


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {SECRET}==",
        f"Proxy-Authorization: {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}'}}",
        f'{{"x-api-key": "{SECRET}"}}',
        f"Set-Cookie: session={SECRET}; Path=/",
        f"cookie: a=b; c={SECRET}",
        f"https://me:{SECRET}@example.com/x?y=z",
        f"postgresql://u:{SECRET}@10.0.0.1:5432/db",
        f"--api-key {SECRET}",
        f"--hf-token={SECRET}",
        f"['--api-key', '{SECRET}']",
        f"password={SECRET}",
        f'"api_key": "{SECRET}"',
        f"hf_{SECRET}",
        f"sk-proj-{SECRET}",
        f"ghp_{SECRET}",
        f"gpustack_0123456789abcdef_{SECRET}",
        f"eyJ{SECRET}.eyJ{SECRET}.{SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n and cut off",
        f"{SECRET * 5}\n{SECRET}==\n-----END PRIVATE KEY-----",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"export WANDB_KEY='{SECRET} {SECRET}'",
        f'"private_key": "{SECRET}"',
        f"client_credential: {SECRET}",
        f"DefaultEndpointsProtocol=https;AccountKey={SECRET}==;x=y",
        f"https://example.com/a?X-Amz-Signature={SECRET}&b=c",
        f"https://example.com/a?se=1&sig={SECRET}",
        f"git clone https://{SECRET}{SECRET}@example.com/x",
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_a_text(text: str) -> None:
    scrubbed = SecretScrubber().text(f"before\n{text}\nafter")
    assert (
        SECRET not in scrubbed
        and scrubbed.startswith("before\n")
        and scrubbed.endswith("\nafter") is ("cut off" not in text)
    )


@pytest.mark.parametrize("secret", ['a"b\\c-d1', "p@ss/w ord&1", "ünïcödé-pässwörd", "four"])
def test_a_known_secret_is_taken_out_in_every_spelling(secret: str) -> None:
    from urllib.parse import quote

    scrubber = SecretScrubber()
    scrubber.learn(secret)
    for text in (secret, json.dumps({"a": secret}), quote(secret, safe=""), repr(secret), f"x{secret}y"):
        assert not scrubber.holds(scrubber.text(text))
        assert secret not in scrubber.text(text)


def test_a_secret_of_a_document_is_taken_out_of_the_logs_too() -> None:
    scrubber = SecretScrubber()
    model = {
        "name": "m",
        "env": {"WHATEVER": SECRET, "MODE": "fast"},
        "backend_parameters": ["--api-key", "Flag1234", "--token=Flag5678", "--ctx-size=512"],
        "command": "serve --secret Cmd12345 --port 1",
        "proxy": "http://u:UrlPass99@h",
    }
    scrubber.learn_document(model)
    log = f"env {SECRET} got Flag1234 and Flag5678 and Cmd12345 and UrlPass99 in fast mode with ctx-size 512"
    assert scrubber.text(log) == "env *** got *** and *** and *** and *** in fast mode with ctx-size 512"
    shown = scrubber.document(model)
    assert shown["env"] == {"WHATEVER": "***", "MODE": "***"} and shown["name"] == "m"
    assert shown["backend_parameters"] == ["--api-key", "***", "--token=***", "--ctx-size=512"]


def test_passwords_of_addresses_in_the_environment_are_known() -> None:
    scrubber = SecretScrubber()
    scrubber.learn_environment(
        {"HTTPS_PROXY": "http://u:p%40ss-word@h:1", "MY_TOKEN": "abcd", "LANG": "C.UTF-8"}
    )
    assert scrubber.text("p@ss-word p%40ss-word abcd C.UTF-8") == "*** *** *** C.UTF-8"


@pytest.mark.parametrize(
    "text",
    [
        "secret" * 20_000,
        "key_" * 20_000,
        "a_key " * 20_000,
        "A\n" * 50_000,
        "-" + "key" * 20_000,
        "a" * 100_000,
        "a-" * 50_000,
        "eyJ" * 30_000,
        "x:" * 50_000,
    ],
)
def test_a_long_run_of_anything_does_not_hold_it_up(text: str) -> None:
    scrubber = SecretScrubber()
    begun = time.process_time()
    scrubber.learn_document(text)
    scrubber.text(text)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *(
            (name, True)
            for name in ("HF_TOKEN", "password", "api_key", "jwt_secret_key", "Authorization", "cookie")
        ),
        *((name, True) for name in ("token", "credential", "AWS_SECRET_ACCESS_KEY", "forward_key")),
        *(
            (name, False)
            for name in ("max_tokens", "completion_tokens", "tokens_per_second", "name", "token_ids")
        ),
        *((name, False) for name in ("tokens_per_day", "worker_uuid", "state", "max_token_len", "key")),
    ],
)
def test_names_tell_secrets_from_counts(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_what_programs_say_of_tokenizers_and_counts_stays() -> None:
    text = "tokenizer: gpt2, author=me, max_tokens=5, monkey: 3, http://host:80/key, tokenizer_mode='auto'"
    assert SecretScrubber().text(text) == text
    scrubber = SecretScrubber()
    scrubber.learn_document(
        {"backend_parameters": ["--api-key", "Flag1234", "Flag5678", "-v", "--port", "80"]}
    )
    assert scrubber.text("Flag1234 Flag5678 80") == "*** *** 80"
    assert scrubber.document(["--api-key", "ab", "cd", "-v", "80"]) == ["--api-key", "***", "***", "-v", "80"]
