"""Keys, tokens, sessions and passwords, each alone."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import attrs
import pytest
import trio
import trio.testing

from gpustack.domain.snapshot import Snapshot
from gpustack.errors import Invalid
from gpustack.identity.derived_keys import DerivedKeys, derive
from gpustack.identity.keys import ApiKeyText, WorkerKeyText, is_token, make_api_key, parse, worker_key
from gpustack.identity.passwords import (
    LONGEST,
    check_complexity,
    hash_password,
    needs_rehash,
    verify_password,
)
from gpustack.identity.sessions import cookie, find_session, is_due, make_session, no_cookie, token_in

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_keys_of_one_secret_differ_and_stay_the_same() -> None:
    keys, again, other = DerivedKeys.of("secret\n"), DerivedKeys.of("secret"), DerivedKeys.of("other")
    hashes = [keys.api_hash("x"), keys.worker_hash("x"), keys.session_hash("x"), keys.forward_key("x")]
    assert len(set(hashes)) == 4
    assert keys == again
    assert keys.api_hash("x") != other.api_hash("x")
    assert all(len(text.rpartition(".")[2]) == 64 for text in hashes)


def test_derivation_is_hkdf() -> None:
    """RFC 5869 with SHA-256, as an independent implementation computes it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    expected = HKDF(hashes.SHA256(), 32, salt=b"gpustack", info=b"api").derive(b"secret")
    assert derive(b"secret", "api") == expected


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(Invalid, match="--jwt-secret-key"):
        DerivedKeys.of(" \n")


def test_a_key_is_taken_apart_as_it_was_made() -> None:
    access, secret, text = make_api_key(random.Random(1))
    assert (len(access), len(secret)) == (16, 32)
    assert parse(text) == ApiKeyText(access, secret)
    assert parse(worker_key(12, secret)) == WorkerKeyText(12, secret)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpustack",
        "gpustack_a",
        "gpustack_a_b_c",
        "sk_a_b",
        "gpustack_a_b\n",
        "gpustack_é_b",
        " gpustack_a_b",
    ],
)
def test_what_is_no_key_of_ours_is_none(text: str) -> None:
    assert parse(text) is None


def test_the_token_is_itself_only() -> None:
    token = "0123456789abcdef" * 2
    assert is_token(token, token)
    assert not is_token(token + " ", token)
    assert not is_token("", "")
    assert not is_token("\udcff", token)


def test_a_session_is_found_until_it_ends() -> None:
    keys = DerivedKeys.of("s")
    token, session = make_session(5, keys=keys, now=NOW, rng=random.Random(1))
    session = attrs.evolve(session, id=1)
    snapshot = Snapshot(1, {"sessions": {1: session}})
    assert token not in repr(session) and token != session.token_hash
    assert find_session(snapshot, token, keys=keys, now=NOW) == session
    assert find_session(snapshot, token, keys=keys, now=session.expires_at) is None
    assert find_session(snapshot, token, keys=DerivedKeys.of("t"), now=NOW) is None
    assert find_session(Snapshot(2, {"sessions": {}}), token, keys=keys, now=NOW) is None
    assert find_session(snapshot, None, keys=keys, now=NOW) is None
    assert not is_due(session, NOW + timedelta(minutes=105))
    assert is_due(session, NOW + timedelta(minutes=105, seconds=1))


def test_the_cookie_is_kept_from_scripts_and_other_sites() -> None:
    given = cookie("abc", secure=True)
    assert given == "gpustack_session=abc; Path=/; Max-Age=7200; HttpOnly; SameSite=Lax; Secure"
    assert "Secure" not in cookie("abc", secure=False)
    assert "Max-Age=0" in no_cookie(secure=False)
    assert token_in(given) == "abc"
    assert token_in(None) is None


async def test_a_password_is_verified_by_its_hash() -> None:
    hashed = await hash_password("Pa55word!")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await verify_password(hashed, "Pa55word!")
    assert not await verify_password(hashed, "pa55word!")
    assert not needs_rehash(hashed)


@pytest.mark.parametrize("hashed", [None, "", "plain", "$argon2id$v=19$broken"])
async def test_without_a_good_hash_no_password_is_right(hashed: str | None) -> None:
    assert not await verify_password(hashed, "")
    assert not await verify_password(hashed, "plain")


async def test_an_endless_password_is_not_hashed() -> None:
    with pytest.raises(ValueError, match="at most"):
        await hash_password("x" * (LONGEST + 1))
    assert not await verify_password(None, "x" * (LONGEST + 1))


async def test_a_flood_of_logins_takes_two_threads() -> None:
    from gpustack.nursery.limiter import limiters

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(verify_password, None, "x")
        await trio.testing.wait_all_tasks_blocked()
        (use,) = [use for use in limiters() if use.name == "passwords"]
        assert (use.total, use.busy) == (2, 2)


def test_old_costs_are_noticed() -> None:
    assert needs_rehash("$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$kPPSMYTTx3vSbiAkVzPxKA")


def test_a_weak_password_is_told_everything_it_lacks() -> None:
    assert check_complexity("Aa1!Aa1!") == []
    assert check_complexity("Aa1!Aa1") == ["The password must have at least 8 characters"]
    assert len(check_complexity("")) == 5
    assert check_complexity("aaaaaa1!") == ["The password must contain an uppercase letter"]
