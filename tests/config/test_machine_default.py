from __future__ import annotations

from pathlib import Path

from tests.config.loading import loaded

HOME = {"HOME": "/home/ada"}


def test_root_gets_the_system_s_directory_and_port() -> None:
    found = loaded(env=HOME)
    assert (found.options.data_dir, found.options.port) == (Path("/var/lib/gpustack"), 80)
    assert found.notes == ()


def test_a_plain_user_gets_the_data_home_and_a_high_port_and_is_told() -> None:
    found = loaded(env=HOME, euid=1000)
    assert found.options.data_dir == Path("/home/ada/.local/share/gpustack")
    assert found.options.cache_dir == Path("/home/ada/.local/share/gpustack/cache")
    assert found.options.database_url == "sqlite:////home/ada/.local/share/gpustack/database.db"
    assert found.options.port == 8080
    assert found.notes == (
        "You are not root and no data_dir is set, so data goes to /home/ada/.local/share/gpustack.",
        "You are not root and no port is set, so the server listens on 8080.",
    )
    options = loaded(env=HOME | {"XDG_DATA_HOME": "/data"}, euid=1000).options
    assert options.data_dir == Path("/data/gpustack")


def test_what_a_plain_user_sets_is_not_second_guessed() -> None:
    found = loaded("--port=80", "--data-dir=~/gpu", env=HOME, euid=1000)
    assert (found.options.data_dir, found.options.port) == (Path("/home/ada/gpu"), 80)
    assert found.notes == ()


def test_a_plain_worker_hears_nothing_of_the_server_s_port() -> None:
    found = loaded("--data-dir=/d", "-shttp://s", "-tx", env=HOME, euid=1000)
    assert found.notes == ()


def test_a_service_manager_s_state_directory_is_the_data_directory() -> None:
    found = loaded(env=HOME | {"STATE_DIRECTORY": "/var/lib/gpustack"}, euid=998)
    assert (found.options.data_dir, found.options.port) == (Path("/var/lib/gpustack"), 80)
    assert found.notes == ()


def test_windows_and_macos_have_their_own_places() -> None:
    found = loaded(env=HOME | {"APPDATA": "/appdata"}, platform="win32")
    assert found.options.data_dir == Path("/appdata/gpustack")
    assert loaded(env=HOME, platform="darwin").options.data_dir == Path("/var/lib/gpustack")


def test_relative_paths_start_at_the_working_directory_and_follow_the_data_directory() -> None:
    options = loaded("--data-dir=d", "--log-dir=l", cwd=Path("/srv")).options
    assert (options.data_dir, options.log_dir) == (Path("/srv/d"), Path("/srv/l"))
    assert (options.cache_dir, options.bin_dir) == (Path("/srv/d/cache"), Path("/srv/d/bin"))
    assert options.database_url == "sqlite:////srv/d/database.db"
