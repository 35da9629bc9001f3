"""A login under way is found by its state, ends in the browser that began it, and leads nowhere else."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpustack.domain.access import SignIn, UserSource
from gpustack.domain.snapshot import Snapshot
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.identity.sign_in import WITHIN, SignInStart, begin, find, is_of_browser, no_cookie, path_within

KEYS = DerivedKeys.of("a secret of the tests")
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def begun(seed: int = 1, **more: Any) -> SignInStart:
    wanted: dict[str, Any] = {"secret": "s", "next_path": "/docs", "secure": False, **more}
    return begin(UserSource.OIDC, keys=KEYS, now=NOW, rng=random.Random(seed), **wanted)


def cookie_of(one: SignInStart) -> str:
    return one.cookie.partition(";")[0]


def world(*records: SignIn) -> Snapshot:
    return Snapshot(revision=1, tables={"sign_ins": dict(enumerate(records, 1))})


def test_it_is_found_by_its_state_for_ten_minutes() -> None:
    one, other = begun(1), begun(2)
    snapshot = world(one.record, other.record)

    def found(state: str | None, source: UserSource = UserSource.OIDC, after: timedelta = timedelta()) -> Any:
        return find(snapshot, source, state, keys=KEYS, now=NOW + after)

    assert found(one.state) == one.record
    assert found(other.state) == other.record
    assert found(one.state, after=WITHIN) is None
    assert found(one.state, UserSource.SAML) is None
    for wrong in (None, "", "0" * 64, one.record.state_hash, one.state * 3):
        assert found(wrong) is None


@pytest.mark.attack("session")
def test_it_is_of_the_browser_that_began_alone() -> None:
    one, other = begun(1), begun(2)
    assert is_of_browser(one.record, f"a=b; {cookie_of(one)}; c=d", keys=KEYS)
    named = cookie_of(one).partition("=")[0]
    for cookies in (
        None,
        "",
        cookie_of(other),
        f"{named}=",
        f"{named}={'0' * 64}",
        f"{named}={one.record.browser_hash}",
    ):
        assert not is_of_browser(one.record, cookies, keys=KEYS)


def test_its_cookie_is_for_signing_in_alone() -> None:
    one = begun(secure=True)
    for part in ("Path=/auth/", "HttpOnly", "SameSite=Lax", "Secure", "Max-Age=600"):
        assert part in one.cookie.split("; ")
    assert "Max-Age=0" in no_cookie(one.record, secure=False)


@pytest.mark.attack("secret")
def test_what_is_stored_opens_nothing() -> None:
    one = begun()
    kept = str(one.record) + one.record.state_hash + one.record.browser_hash
    assert one.state not in kept
    assert cookie_of(one).partition("=")[2] not in kept


@pytest.mark.attack("oidc")
@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/a\r\nSet-Cookie: x=y",
        "javascript:alert(1)",
        "evil.example",
        "/ö",
        "/a b",
        "/auth/oidc/login",
        "/" + "x" * 3000,
        "",
    ],
    ids=ascii,
)
def test_it_leads_to_no_other_place(wanted: str) -> None:
    assert path_within(wanted) == "/"


def test_it_leads_to_any_page_here() -> None:
    for path in ("/", "/docs", "/docs?a=b#c", "/#/models/list"):
        assert path_within(path) == path
    assert path_within(None) == "/"
