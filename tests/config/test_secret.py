from __future__ import annotations

import random
import secrets
import string
from pathlib import Path

import pytest

from gpustack.config.datadir import DataDirError
from gpustack.config.secret import (
    LIMIT,
    SYMBOLS,
    ensure_secret,
    keep_initial_admin_password,
    keep_jwt_secret_key,
    keep_token,
    make_password,
    read_secret,
    replace_secret,
)
from gpustack.identity.passwords import check_complexity


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_secrets_are_made_once_and_are_their_owner_s_alone(tmp_path: Path) -> None:
    token = keep_token(tmp_path, secrets.token_hex)
    key = keep_jwt_secret_key(tmp_path, secrets.token_hex)
    password = keep_initial_admin_password(tmp_path, random.Random(1))
    assert (len(token), len(key), len(password)) == (32, 64, 12)
    assert (tmp_path / "token").read_text() == f"{token}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "initial_admin_password",
        "jwt_secret_key",
        "token",
    ]
    assert {mode(path) for path in tmp_path.iterdir()} == {0o600}
    assert keep_token(tmp_path, secrets.token_hex) == token
    assert keep_initial_admin_password(tmp_path, random.Random(2)) == password


def test_a_secret_laid_there_by_hand_is_kept_and_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("  mine \n")
    (tmp_path / "token").chmod(0o644)
    assert keep_token(tmp_path, secrets.token_hex) == "mine"
    assert mode(tmp_path / "token") == 0o600


def test_what_a_crash_left_behind_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    (tmp_path / ".token.draft").write_text("half")
    token = keep_token(tmp_path, secrets.token_hex)
    assert len(token) == 32
    assert not (tmp_path / ".token.draft").exists()


def test_a_file_that_cannot_be_a_secret_is_told(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (LIMIT + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xff")
    (tmp_path / "folder").mkdir()
    for name, told in (("big", "larger than"), ("binary", "not text"), ("folder", "cannot be kept")):
        with pytest.raises(DataDirError, match=told):
            ensure_secret(tmp_path / name, lambda: "x")
    with pytest.raises(DataDirError, match="cannot be kept"):
        ensure_secret(tmp_path / "absent" / "token", lambda: "x")


@pytest.mark.parametrize("seed", range(50))
def test_a_password_has_every_kind_of_character(seed: int) -> None:
    password = make_password(random.Random(seed))
    assert len(password) == 12
    for kind in (string.ascii_lowercase, string.ascii_uppercase, string.digits, SYMBOLS):
        assert set(password) & set(kind)
    assert not set(password) - set(string.ascii_letters + string.digits + SYMBOLS)
    assert check_complexity(password) == [], "it would be refused if somebody chose it"


def test_a_short_password_is_not_made() -> None:
    with pytest.raises(ValueError, match="8 characters"):
        make_password(random.Random(1), 7)


def test_a_file_follows_what_the_servers_agreed_on_and_what_it_held_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert read_secret(path) is None
    assert not replace_secret(path, "theirs"), "it held nothing"
    assert read_secret(path) == "theirs" and not replace_secret(path, "theirs")
    path.write_text("mine\n")
    assert replace_secret(path, "theirs")
    assert path.read_text() == "theirs\n"
    former = tmp_path / "token.replaced"
    assert former.read_text() == "mine\n"
    assert path.stat().st_mode & 0o777 == former.stat().st_mode & 0o777 == 0o600
    (tmp_path / "folder").mkdir()
    for function in (read_secret, lambda path: replace_secret(path, "x")):
        with pytest.raises(DataDirError, match="folder cannot be"):
            function(tmp_path / "folder")
