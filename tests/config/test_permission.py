"""What other users of a machine can alter or read is refused or told, with the command that ends it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from gpustack.cli.check import CheckContext, CheckStatus
from gpustack.cli.checks import disk
from gpustack.config.datadir import DataDirError, refuse_open_dir
from tests.config.loading import faults, loaded
from tests.daemon import daemon
from tests.needs import requires_root

STRANGER = 12345


def fix_of(told: str) -> list[str]:
    """The command in the sentence."""
    (command,) = re.findall(r": (ch(?:mod|own) .*?)(?:\. Look.*)?$", told)
    return shlex.split(command)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    return made


@pytest.mark.attack("access")
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("data", 0o777),
        ("data", 0o1777),
        ("data", 0o702),
        ("data/token", 0o666),
        ("data/token", 0o602),
        ("data/jwt_secret_key", 0o622),
        ("data/worker_credential", 0o666),
        ("data/database.db", 0o666),
        (".", 0o777),
    ],
)
def test_what_others_can_write_is_refused_and_the_sentence_mends_it(
    tmp_path: Path, data: Path, name: str, mode: int
) -> None:
    for file in ("token", "jwt_secret_key", "worker_credential", "database.db"):
        (data / file).touch(mode=0o600)
    refuse_open_dir(data)
    (tmp_path / name).chmod(mode)
    with pytest.raises(DataDirError, match="can be written by other users") as raised:
        refuse_open_dir(data)
    assert "--data-dir" in str(raised.value)
    subprocess.run(fix_of(str(raised.value)), check=True)
    refuse_open_dir(data)


def test_a_folder_of_everybody_in_which_each_keeps_what_is_theirs_may_lead_there(
    tmp_path: Path, data: Path
) -> None:
    tmp_path.chmod(0o1777)
    refuse_open_dir(data)


def test_the_group_that_is_ones_own_may_write(data: Path) -> None:
    """As a umask of 002 leaves it where each user has a group of that name."""
    import grp
    import pwd

    if grp.getgrgid(os.getegid()).gr_name != pwd.getpwuid(os.geteuid()).pw_name:
        pytest.skip("the user of the tests has no group of its own")
    data.chmod(0o770)
    refuse_open_dir(data)


@pytest.mark.root
@pytest.mark.attack("access")
@pytest.mark.parametrize("name", ["data", "data/token"])
def test_what_belongs_to_another_user_is_refused_and_the_sentence_mends_it(
    tmp_path: Path, data: Path, name: str
) -> None:
    requires_root()
    (data / "token").touch(mode=0o600)
    os.chown(tmp_path / name, STRANGER, -1)
    with pytest.raises(DataDirError, match=rf"belongs to another user \({STRANGER}\)") as raised:
        refuse_open_dir(data)
    subprocess.run(fix_of(str(raised.value)), check=True)
    refuse_open_dir(data)


@pytest.mark.root
def test_a_group_with_other_members_may_not_write(data: Path) -> None:
    requires_root()
    os.chown(data, -1, STRANGER)
    data.chmod(0o770)
    with pytest.raises(DataDirError, match="chmod go-w"):
        refuse_open_dir(data)


@pytest.mark.attack("access")
def test_a_daemon_does_not_start_on_a_directory_that_others_can_write(data: Path) -> None:
    data.chmod(0o777)
    with daemon(data, "--disable-worker", wait=False) as one:
        assert one.process.wait(60) == 1
        assert f"gpustack: {data} can be written by other users: chmod go-w {data}." in one.log
        assert not (data / "token").exists()


@pytest.fixture
def open_data(data: Path) -> Path:
    (data / "token").write_text("0123456789abcdef")
    (data / "token").chmod(0o644)
    data.chmod(0o777)
    return data


async def test_the_doctor_says_the_same_of_it(open_data: Path) -> None:
    data = open_data
    found = await disk.look(
        CheckContext.of(["--data-dir", str(data)], {"GPUSTACK_SERVER_URL": "http://127.0.0.1:9"})
    )
    assert {(one.sentence, one.fix) for one in found if one.status is CheckStatus.FAILED} == {
        (f"{data} can be written by other users", f"chmod go-w {data}"),
        (f"{data}/token can be read by other users", f"chmod go-r {data}/token"),
    }
    assert (data / "token").stat().st_mode & 0o777 == 0o644, "a doctor looks, and changes nothing"


async def test_the_doctor_tells_of_a_short_token(data: Path) -> None:
    (data / "token").touch(mode=0o600)
    (data / "token").write_text("short\n")
    found = await disk.look(
        CheckContext.of(["--data-dir", str(data)], {"GPUSTACK_SERVER_URL": "http://127.0.0.1:9"})
    )
    (note,) = [one for one in found if "fewer than 16 characters" in one.sentence]
    assert note.status is CheckStatus.NOTE and "restart" in note.fix


@pytest.mark.attack("access")
@pytest.mark.parametrize("option", ["ssl-keyfile", "ssl-certfile", "llama-server-path"])
def test_a_key_a_certificate_or_a_program_that_others_can_write_is_refused(
    tmp_path: Path, option: str
) -> None:
    for name in ("ssl-keyfile", "ssl-certfile", "llama-server-path"):
        (tmp_path / name).touch(mode=0o700)
    given = [f"--{name}={tmp_path / name}" for name in ("ssl-keyfile", "ssl-certfile", "llama-server-path")]
    assert faults(*given) == []
    (tmp_path / option).chmod(0o766)
    (told,) = faults(*given)
    assert f"can be written by other users: chmod go-w {tmp_path / option}" in told
    subprocess.run(fix_of(told), check=True)
    assert faults(*given) == []


@pytest.mark.attack("access")
def test_a_configuration_that_others_can_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("debug: true\n")
    file.chmod(0o666)
    (told,) = faults(f"--config-file={file}")
    assert told == (
        f"flag --config-file: config_file names a file that is not safe: {file} can be written by other users: "
        f"chmod go-w {file}"
    )


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("token: a-token-of-many-letters\n", 0o644, True),
        ("database_url: mysql://u:hush@h/d\n", 0o644, True),
        ("token: a-token-of-many-letters\n", 0o600, False),
        ("database_url: mysql://u@h/d\n", 0o644, False),
        ("debug: true\n", 0o644, False),
    ],
)
def test_a_configuration_with_secrets_that_others_can_read_is_told(
    tmp_path: Path, text: str, mode: int, told: bool
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    file.chmod(mode)
    sentence = f"Secrets lie where others read: {file} can be read by other users: chmod go-r {file}."
    assert (sentence in loaded(f"--config-file={file}").warnings) is told
    assert "hush" not in str(loaded(f"--config-file={file}").warnings)


def test_a_private_key_that_others_can_read_is_told(tmp_path: Path) -> None:
    for name, mode in (("key", 0o644), ("cert", 0o644)):
        (tmp_path / name).touch(mode=mode)
    (told,) = loaded(f"--ssl-keyfile={tmp_path}/key", f"--ssl-certfile={tmp_path}/cert").warnings
    assert told == (
        f"Secrets lie where others read: {tmp_path}/key can be read by other users: chmod go-r {tmp_path}/key."
    )
