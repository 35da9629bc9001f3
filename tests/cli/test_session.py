"""Which server is talked to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpustack.cli.local import is_loopback
from gpustack.cli.session import URL_FILE, find_server
from gpustack.errors import GpustackError, Unauthorized, Unavailable


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def test_the_environment_names_the_server_and_the_key() -> None:
    env = {"GPUSTACK_SERVER_URL": "https://gpus.example/", "GPUSTACK_API_KEY": "gpustack_a_b"}
    found = find_server(env)
    assert (found.url, found.key, found.own) == ("https://gpus.example", "gpustack_a_b", False)
    assert "gpustack_a_b" not in repr(found)


def test_a_flag_goes_before_the_environment() -> None:
    env = {"GPUSTACK_SERVER_URL": "http://other", "GPUSTACK_API_KEY": "k"}
    assert find_server(env, url="localhost:81", key="mine").url == "http://localhost:81"


def test_another_machine_needs_a_key_and_the_error_names_the_variable() -> None:
    with pytest.raises(Unauthorized, match="GPUSTACK_API_KEY is not set"):
        find_server({"GPUSTACK_SERVER_URL": "http://10.0.0.5"})
    assert find_server({"GPUSTACK_SERVER_URL": "http://[::1]:8080"}).key is None


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://host:port", "http://host:99999"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(GpustackError, match="GPUSTACK_SERVER_URL must be an address"):
        find_server({"GPUSTACK_SERVER_URL": url, "GPUSTACK_API_KEY": "k"})


def test_the_server_of_the_data_directory_is_found(tmp_path: Path, listening: int) -> None:
    (tmp_path / URL_FILE).write_text(f"http://127.0.0.1:{listening}\n")
    found = find_server({"GPUSTACK_DATA_DIR": str(tmp_path)})
    assert found.url == f"http://127.0.0.1:{listening}" and found.own


def test_when_nobody_answers_it_says_where_it_looked(tmp_path: Path, free_port: int) -> None:
    (tmp_path / URL_FILE).write_text(f"http://127.0.0.1:{free_port}\n")
    try:
        with socket.create_connection(("127.0.0.1", 80), timeout=1):
            pytest.skip("something listens on port 80 of this machine")
    except OSError:
        pass
    with pytest.raises(Unavailable, match=f"tried http://127.0.0.1:{free_port}.*GPUSTACK_SERVER_URL"):
        find_server({"GPUSTACK_DATA_DIR": str(tmp_path)})


def test_loopback_is_known_by_name_and_number() -> None:
    assert all(
        map(is_loopback, ["http://localhost", "http://127.3.0.1:80", "https://[::1]", "http://a.localhost"])
    )
    assert not any(map(is_loopback, ["http://10.0.0.1", "http://localhost.example", "http://0.0.0.0"]))


@pytest.mark.parametrize("around", ["{}\n", " {}\r\n", "\ufeff{}"])
def test_white_space_around_what_the_environment_says_is_no_part_of_it(around: str) -> None:
    env = {
        "GPUSTACK_SERVER_URL": around.format("https://gpus.example"),
        "GPUSTACK_API_KEY": around.format("gpustack_a_b"),
    }
    found = find_server(env)
    assert (found.url, found.key) == ("https://gpus.example", "gpustack_a_b")


@pytest.mark.attack("secret")
@pytest.mark.parametrize("key", ["Hunter2\nx", "Hunter2\x00", "Hunter2\u00e9", "Hunter2 x", "Hunter2\udce9"])
def test_a_key_that_no_header_can_hold_is_told_without_it(key: str) -> None:
    with pytest.raises(GpustackError, match="GPUSTACK_API_KEY") as caught:
        find_server({"GPUSTACK_SERVER_URL": "http://10.0.0.5", "GPUSTACK_API_KEY": key})
    assert "Hunter2" not in str(caught.value)


@pytest.mark.attack("secret")
@pytest.mark.parametrize("url", ["http://me:Hunter2@x:port", "http://me:Hunter2@[::1", "http://x\ny"])
def test_an_address_that_is_none_is_told_without_its_password(url: str) -> None:
    with pytest.raises(GpustackError, match="GPUSTACK_SERVER_URL must be an address") as caught:
        find_server({"GPUSTACK_SERVER_URL": url, "GPUSTACK_API_KEY": "k"})
    assert "Hunter2" not in str(caught.value)
