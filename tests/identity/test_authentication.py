"""Requests as honest and dishonest parties send them, and who they turn out to be."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from gpustack.domain.access import ApiKey, AuthMethod, KeyScope, Principal, Role, User
from gpustack.domain.record import Record, table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import Forbidden, Unauthorized
from gpustack.identity.authentication import (
    LocalAccessRule,
    OwnerCheck,
    PasswordCheck,
    authenticate,
    is_still_valid,
    local_principal,
    principal_of_password,
)
from gpustack.identity.credentials import Credentials
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.identity.keys import make_api_key, worker_key
from gpustack.identity.person import is_username
from gpustack.identity.sessions import make_session

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RNG = random.Random(7)
KEYS = DerivedKeys.of("0123456789abcdef" * 4)
TOKEN = "c0ffee" * 5 + "aa"

ADMIN = User(id=1, username="admin", is_admin=True, hashed_password="$argon2id$1")
ADA = User(id=2, username="ada", hashed_password="$argon2id$2", require_password_change=True)
GONE = User(id=3, username="gone", is_active=False, is_admin=True, hashed_password="$argon2id$3")
SSO = User(id=4, username="sso")


def key_of(user: User, number: int, **fields: object) -> tuple[str, ApiKey]:
    access, secret, text = make_api_key(RNG)
    record = ApiKey(
        id=number, name="k", user_id=user.id, access_key=access, secret_hash=KEYS.api_hash(secret)
    )
    return text, attrs.evolve(record, **fields)


ADAS, adas = key_of(ADA, 1, expires_at=NOW + timedelta(seconds=1))
EXPIRED, expired = key_of(ADMIN, 2, expires_at=NOW)
INACTIVE, inactive = key_of(GONE, 3)
ORPHAN, orphan = key_of(User(id=99, username="deleted"), 4)
COOKIE, login = make_session(ADMIN.id, keys=KEYS, now=NOW, rng=RNG)
OLD_COOKIE, old_login = make_session(ADMIN.id, keys=KEYS, now=NOW - timedelta(hours=2), rng=RNG)
GONE_COOKIE, gone_login = make_session(GONE.id, keys=KEYS, now=NOW, rng=RNG)
WORKER = Worker(id=7, name="w7", worker_uuid="u7", credential_hash=KEYS.worker_hash("ab12"))
NEW_WORKER = Worker(id=8, name="w8", worker_uuid="u8")


def snapshot_of(*records: Record) -> Snapshot:
    tables: dict[str, dict[int, Record]] = {}
    for record in records:
        tables.setdefault(table_of(type(record)), {})[record.id] = record
    return Snapshot(1, tables)


SNAPSHOT = snapshot_of(
    *(GONE, ADMIN, ADA, SSO, adas, expired, inactive, orphan, WORKER, NEW_WORKER),
    *(attrs.evolve(session, id=n) for n, session in enumerate((login, old_login, gone_login), 1)),
)

FAR = "192.0.2.9"
DAEMON = 1000
LOCAL_ADMINS = frozenset({0, DAEMON})


def ask(
    *,
    peer: str = FAR,
    method: str = "GET",
    trusted: bool = True,
    owner: int | None = DAEMON,
    **headers: str | None,
) -> tuple[str, str, int | None]:
    """Role, means and whose it is. Header names with ``_`` for ``-``."""
    given = {"host": "gpustack.example", **headers}
    raw = {name.replace("_", "-").encode(): text.encode() for name, text in given.items() if text is not None}
    rule = LocalAccessRule(trusted, LOCAL_ADMINS)
    found = authenticate(
        Credentials.read(raw.get, raw, peer, method),
        SNAPSHOT,
        keys=KEYS,
        token=TOKEN,
        now=NOW,
        local_rule=rule,
    )
    if isinstance(found, OwnerCheck):
        found = local_principal(owner, SNAPSHOT, rule)
    if isinstance(found, PasswordCheck):
        return "password", found.password, None if found.user is None else found.user.id
    return found.role.value, found.means.value, found.user_id or found.worker_id


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def cookie(value: str) -> str:
    return f"theme=dark; gpustack_session={value}; x=y"


LOCAL = {"peer": "127.0.0.1", "host": "localhost:8080"}
OWN = {"origin": "http://gpustack.example"}


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({"authorization": f"Bearer {ADAS}"}, ("user", "key", 2)),
        ({"authorization": f"bearer {ADAS}"}, ("user", "key", 2)),
        ({"cookie": cookie(COOKIE)}, ("admin", "cookie", 1)),
        ({"cookie": cookie("forged"), "authorization": f"Bearer {ADAS}"}, ("user", "key", 2)),
        ({"cookie": cookie(OLD_COOKIE), "authorization": f"Bearer {ADAS}"}, ("user", "key", 2)),
        ({"cookie": cookie(COOKIE), "authorization": "Bearer nonsense"}, ("admin", "cookie", 1)),
        ({"authorization": basic("ada", "a:b")}, ("password", "a:b", 2)),
        ({"authorization": basic("nobody", "x")}, ("password", "x", None)),
        ({"authorization": basic("sso", "")}, ("password", "", None)),
        ({"authorization": basic("gone", "x")}, ("password", "x", None)),
        ({"authorization": f"Bearer {TOKEN}"}, ("joiner", "token", None)),
        ({"authorization": basic("system/worker/10.0.0.1", TOKEN)}, ("joiner", "token", None)),
        ({"authorization": f"Bearer {worker_key(7, 'ab12')}"}, ("worker", "worker", 7)),
        ({"x_api_key": ADAS}, ("user", "key", 2)),
        ({"x_api_key": worker_key(7, "ab12")}, ("worker", "worker", 7)),
        ({"x_api_key": "nonsense", "authorization": f"Bearer {ADAS}"}, ("user", "key", 2)),
        ({"x_api_key": ADAS, "authorization": basic("ada", "a:b")}, ("password", "a:b", 2)),
        ({"x_api_key": ADAS, "cookie": cookie(COOKIE)}, ("user", "key", 2)),
        ({**LOCAL, "x_api_key": "dummy"}, ("admin", "local", 1)),
        ({**LOCAL, "x_api_key": ADAS}, ("user", "key", 2)),
        ({**LOCAL}, ("admin", "local", 1)),
        ({**LOCAL, "peer": "::1", "host": "[::1]:8080"}, ("admin", "local", 1)),
        ({**LOCAL, "peer": "::ffff:127.0.0.1", "host": "127.0.0.1"}, ("admin", "local", 1)),
        ({**LOCAL, "host": "LocalHost"}, ("admin", "local", 1)),
        ({**LOCAL, "owner": 0}, ("admin", "local", 1)),
        # Clients insist on a key where none is needed, and browsers add what was served under the name before.
        ({**LOCAL, "authorization": "Bearer local"}, ("admin", "local", 1)),
        ({**LOCAL, "authorization": "Bearer EMPTY"}, ("admin", "local", 1)),
        ({**LOCAL, "authorization": "Bearer "}, ("admin", "local", 1)),
        ({**LOCAL, "authorization": "Bearer sk-no-key-required"}, ("admin", "local", 1)),
        ({**LOCAL, "cookie": cookie("stale")}, ("admin", "local", 1)),
        # Another user of the machine, and one of whom nobody can tell who it is.
        ({**LOCAL, "owner": 1001}, ("user", "local", None)),
        ({**LOCAL, "owner": 65534}, ("user", "local", None)),
        ({**LOCAL, "owner": None}, ("user", "local", None)),
        ({**LOCAL, "owner": 1001, "authorization": "Bearer none"}, ("user", "local", None)),
        ({**LOCAL, "owner": None, "cookie": cookie(COOKIE)}, ("admin", "cookie", 1)),
        ({**LOCAL, "authorization": f"Bearer {ADAS}"}, ("user", "key", 2)),
        # Programs send no Origin; a JSON body or none cannot come from a form.
        ({**LOCAL, "method": "PUT", "content_type": "application/json"}, ("admin", "local", 1)),
        ({**LOCAL, "method": "DELETE"}, ("admin", "local", 1)),
        ({**LOCAL, "method": "POST", "origin": "http://localhost:8080"}, ("admin", "local", 1)),
        ({**LOCAL, "method": "POST", "sec_fetch_site": "same-origin"}, ("admin", "local", 1)),
        ({"cookie": cookie(COOKIE), "method": "POST", **OWN}, ("admin", "cookie", 1)),
        (
            {"cookie": cookie(COOKIE), "method": "POST", "origin": "https://gpustack.example:443"},
            ("admin", "cookie", 1),
        ),
        ({"cookie": cookie(COOKIE), "sec_fetch_site": "cross-site"}, ("admin", "cookie", 1)),
        # A key is nothing that a browser adds by itself: where the request comes from does not matter.
        (
            {"authorization": f"Bearer {ADAS}", "method": "POST", "origin": "https://evil.example"},
            ("user", "key", 2),
        ),
    ],
)
def test_honest_requests_are_known(request_: dict[str, str], answer: tuple[str, str, int | None]) -> None:
    assert ask(**request_) == answer  # type: ignore[arg-type]  # a table of keyword arguments


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic !!!"},
        {"authorization": "Basic " + base64.b64encode(b"no colon").decode()},
        {"authorization": "Digest x"},
        {"authorization": f"Bearer {EXPIRED}"},
        {"authorization": f"Bearer {INACTIVE}"},
        {"authorization": f"Bearer {ORPHAN}"},
        {"authorization": f"Bearer {ADAS[:-1]}x"},
        {"authorization": f"Bearer {ADAS}_x"},
        {"authorization": "Bearer gpustack__"},
        {"authorization": "Bearer gpustack_" + "a" * 10_000 + "_b"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": basic("system/worker/1", "wrong")},
        {"authorization": basic("system/worker/", "")},
        {"authorization": f"Bearer {worker_key(7, 'wrong')}"},
        {"authorization": f"Bearer {worker_key(8, '')}"},
        {"authorization": f"Bearer {worker_key(9, 'ab12')}"},
        {"authorization": "Bearer gpustack_worker_07_ab12"},
        {"authorization": f"Bearer gpustack_worker_7_{KEYS.worker_hash('ab12')}"},
        {"cookie": cookie("forged")},
        {"cookie": cookie("")},
        {"cookie": cookie(OLD_COOKIE)},
        {"cookie": cookie(GONE_COOKIE)},
        {"cookie": cookie(KEYS.session_hash(COOKIE))},
        {"cookie": f"xgpustack_session={COOKIE}"},
        # Not on this machine, whatever is claimed:
        {"host": "localhost"},
        {"host": "localhost", "x_forwarded_for": "127.0.0.1"},
        {**LOCAL, "peer": ""},
        {**LOCAL, "peer": "10.0.0.1"},
        {**LOCAL, "peer": "127.0.0.1.evil.example"},
        # A proxy on this machine asks for somebody else:
        {**LOCAL, "x_forwarded_for": "127.0.0.1"},
        {**LOCAL, "x_forwarded_for": ""},
        {**LOCAL, "forwarded": "for=127.0.0.1"},
        {**LOCAL, "x_forwarded_proto": "http"},
        {**LOCAL, "x_forwarded_host": "localhost"},
        {**LOCAL, "x_real_ip": "::1"},
        {**LOCAL, "via": "1.1 proxy"},
        # A name of another site that points to 127.0.0.1 (DNS rebinding), or cannot be read:
        {**LOCAL, "host": None},
        {**LOCAL, "host": ""},
        {**LOCAL, "host": "evil.example:8080"},
        {**LOCAL, "host": "localhost.evil.example"},
        {**LOCAL, "host": "127.0.0.1.evil.example"},
        {**LOCAL, "host": "evil.example@localhost"},
        {**LOCAL, "host": "localhost/evil.example"},
        {**LOCAL, "host": "localhost#evil"},
        {**LOCAL, "host": "localhost:port"},
        {**LOCAL, "host": "[::1"},
        {**LOCAL, "host": "0.0.0.0"},
        {**LOCAL, "x_forwarded": "for=127.0.0.1"},
        {**LOCAL, "x_forwarded_anything_new": "1"},
        {**LOCAL, "x_forward_for": "127.0.0.1"},
        {**LOCAL, "do_connecting_ip": "127.0.0.1"},
        {**LOCAL, "x_sucuri_clientip": "127.0.0.1"},
        {**LOCAL, "akamai_origin_hop": "1"},
        {**LOCAL, "x_authentik_username": "ada"},
        {**LOCAL, "x_webauth_user": "ada"},
        {**LOCAL, "x_original_forwarded_for": "127.0.0.1"},
        {**LOCAL, "x_client_ip": "127.0.0.1"},
        {**LOCAL, "true_client_ip": "127.0.0.1"},
        {**LOCAL, "fastly_client_ip": "127.0.0.1"},
        {**LOCAL, "cf_ray": "8a"},
        {**LOCAL, "cf_connecting_ip": "127.0.0.1"},
        {**LOCAL, "cdn_loop": "x"},
        {**LOCAL, "x_envoy_external_address": "127.0.0.1"},
        {**LOCAL, "x_amzn_trace_id": "Root=1"},
        {**LOCAL, "tailscale_user_login": "ada"},
        {**LOCAL, "proxy_connection": "keep-alive"},
        {**LOCAL, "x_remote_user": "admin"},
        # Who shows a bad key is not somebody who shows none:
        {**LOCAL, "authorization": "Bearer sk-anything"},
        {**LOCAL, "authorization": "Bearer wrong", "owner": 0},
        {**LOCAL, "authorization": "Bearer wrong", "owner": 1001},
        {**LOCAL, "authorization": "Basic !!!"},
        {**LOCAL, "authorization": "Digest x"},
        {**LOCAL, "authorization": "none"},
        {**LOCAL, "authorization": f"Bearer {EXPIRED}"},
        {**LOCAL, "authorization": f"Bearer {worker_key(7, 'void')}"},
        {**LOCAL, "authorization": basic("system/worker/127.0.0.1", "wrong")},
        {**LOCAL, "trusted": False},
    ],
)
def test_what_proves_nothing_is_refused(request_: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        ask(**request_)  # type: ignore[arg-type]  # a table of keyword arguments


@pytest.mark.parametrize("authority", [LOCAL, {"cookie": cookie(COOKIE)}], ids=["local", "cookie"])
@pytest.mark.parametrize(
    "site",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://localhost.evil.example:8080"},
        {"origin": "http://localhost:8081"},
        {"origin": "http://gpustack.example:8080"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "file://"},
        {"origin": "http://gpustack.example@evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "content_type": "application/json"},
        {"content_type": "text/plain"},
        {"content_type": "Text/Plain; charset=utf-8"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "multipart/form-data; boundary=x"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "post"])
def test_a_page_of_another_site_changes_nothing(
    authority: dict[str, str], site: dict[str, str], method: str
) -> None:
    with pytest.raises(Forbidden, match="another site"):
        ask(**authority, **site, method=method)


def test_a_page_of_another_site_reads_nothing_by_its_place_on_this_machine() -> None:
    with pytest.raises(Forbidden):
        ask(**LOCAL, origin="https://evil.example")


def test_without_an_active_administrator_nobody_is_trusted_for_being_here() -> None:
    with pytest.raises(Unauthorized):
        admitted(LOCAL, snapshot_of(ADA, GONE))


@pytest.mark.attack("access")
@pytest.mark.parametrize("owner", [1001, 65534, None], ids=str)
def test_another_user_of_this_machine_infers_and_reads(owner: int | None) -> None:
    found = local_principal(owner, SNAPSHOT, LocalAccessRule(admins=LOCAL_ADMINS))
    assert (found.is_admin, found.user_id, found.means) == (False, None, AuthMethod.LOCAL)
    assert found.has_scope(KeyScope.INFERENCE) and found.has_scope(KeyScope.READ)
    assert not found.has_scope(KeyScope.MANAGEMENT)
    assert is_still_valid(found, SNAPSHOT, NOW)
    assert not is_username(found.username)  # an account cannot be called so, nor seem to have done it


def test_without_a_cluster_token_nobody_joins() -> None:
    for given in ("Bearer ", "Bearer x", basic("system/worker/1", "")):
        with pytest.raises(Unauthorized):
            authenticate(Credentials(authorization=given), SNAPSHOT, keys=KEYS, token="", now=NOW)


def test_a_token_that_looks_like_a_key_still_lets_workers_join() -> None:
    chosen = "gpustack_my_token"
    found = authenticate(
        Credentials(authorization=f"Bearer {chosen}"), SNAPSHOT, keys=KEYS, token=chosen, now=NOW
    )
    assert isinstance(found, Principal)
    assert found.role is Role.JOINER


def test_a_worker_and_a_joiner_are_no_administrators() -> None:
    for given in (worker_key(7, "ab12"), TOKEN):
        found = authenticate(
            Credentials(authorization=f"Bearer {given}"), SNAPSHOT, keys=KEYS, token=TOKEN, now=NOW
        )
        assert isinstance(found, Principal)
        assert (found.is_admin, found.user_id) == (False, None)


def test_a_key_ends_when_its_user_or_the_key_goes() -> None:
    request = Credentials(authorization=f"Bearer {ADAS}")
    with pytest.raises(Unauthorized):
        authenticate(request, snapshot_of(ADA), keys=KEYS, token=TOKEN, now=NOW)
    with pytest.raises(Unauthorized):
        authenticate(
            request, snapshot_of(attrs.evolve(ADA, is_active=False), adas), keys=KEYS, token=TOKEN, now=NOW
        )
    found = authenticate(request, snapshot_of(ADA, adas), keys=KEYS, token=TOKEN, now=NOW)
    assert isinstance(found, Principal)
    assert (found.api_key_id, found.must_change_password) == (1, True)


@pytest.mark.attack("access")
@pytest.mark.parametrize(
    "change",
    [
        {"is_enabled": False},
        {"scopes": (KeyScope.READ,)},
        {"allowed_models": ("m",)},
        {"expires_at": NOW - timedelta(seconds=1)},
        {"id": 99},
    ],
    ids=ascii,
)
def test_what_a_key_let_in_holds_until_the_key_is_another(change: dict[str, Any]) -> None:
    found = admitted({"authorization": f"Bearer {ADAS}"}, snapshot_of(ADA, adas))
    assert is_still_valid(
        found, snapshot_of(attrs.evolve(ADA, full_name="A"), attrs.evolve(adas, name="x")), NOW
    )
    assert not is_still_valid(found, snapshot_of(ADA, attrs.evolve(adas, **change)), NOW)


@pytest.mark.attack("access")
@pytest.mark.parametrize("means", ["cookie", "key", "basic", "local"])
@pytest.mark.parametrize("change", [{"is_active": False}, {"is_admin": False}, {"id": 99}], ids=ascii)
def test_what_lets_somebody_in_holds_as_long_as_the_account_does(means: str, change: dict[str, Any]) -> None:
    text, key = key_of(ADMIN, 5)
    session = attrs.evolve(login, id=1)
    requests = {
        "cookie": {"cookie": cookie(COOKIE)},
        "key": {"authorization": f"Bearer {text}"},
        "basic": {"authorization": basic("admin", "x")},
        "local": LOCAL,
    }
    before = snapshot_of(ADMIN, key, session)
    found = admitted(requests[means], before)
    assert found.means is AuthMethod(means)
    assert is_still_valid(found, before, NOW)
    other = attrs.evolve(ADMIN, id=50)  # that somebody else is an administrator changes nothing
    assert not is_still_valid(found, snapshot_of(attrs.evolve(ADMIN, **change), other, key, session), NOW)


@pytest.mark.attack("session")
def test_a_login_a_password_and_a_worker_hold_as_long_as_their_proof_does() -> None:
    by_cookie = admitted({"cookie": cookie(COOKIE)}, SNAPSHOT)
    assert not is_still_valid(by_cookie, snapshot_of(ADMIN), NOW)
    assert not is_still_valid(by_cookie, SNAPSHOT, NOW + timedelta(hours=2))
    assert is_still_valid(by_cookie, SNAPSHOT, None)
    by_password = admitted({"authorization": basic("admin", "x")}, SNAPSHOT)
    assert not is_still_valid(
        by_password, snapshot_of(attrs.evolve(ADMIN, hashed_password="$argon2id$9")), NOW
    )
    worker = admitted({"authorization": f"Bearer {worker_key(7, 'ab12')}"}, SNAPSHOT)
    assert is_still_valid(worker, SNAPSHOT, NOW)
    assert not is_still_valid(
        worker, snapshot_of(attrs.evolve(WORKER, credential_hash=KEYS.worker_hash("x"))), NOW
    )
    assert not is_still_valid(worker, snapshot_of(), NOW)


def admitted(headers: dict[str, str], snapshot: Snapshot) -> Principal:
    given = {"host": "gpustack.example", **headers}
    peer = given.pop("peer", FAR)
    raw = {name.replace("_", "-").encode(): text.encode() for name, text in given.items()}
    found = authenticate(
        Credentials.read(raw.get, raw, peer, "GET"), snapshot, keys=KEYS, token=TOKEN, now=NOW
    )
    if isinstance(found, OwnerCheck):
        return local_principal(DAEMON, snapshot, LocalAccessRule(admins=LOCAL_ADMINS))
    return principal_of_password(found) if isinstance(found, PasswordCheck) else found


def test_a_key_that_is_off_is_none() -> None:
    with pytest.raises(Unauthorized):
        admitted({"authorization": f"Bearer {ADAS}"}, snapshot_of(ADA, attrs.evolve(adas, is_enabled=False)))


def test_a_verified_password_gives_the_user() -> None:
    assert principal_of_password(PasswordCheck(ADMIN, "x")).means is AuthMethod.BASIC
    with pytest.raises(Unauthorized):
        principal_of_password(PasswordCheck(None, "x"))


def test_nothing_secret_is_shown_by_repr() -> None:
    request = Credentials(authorization=f"Bearer {ADAS}", cookie=COOKIE)
    for shown in (repr(request), repr(PasswordCheck(ADA, "hush")), repr(adas), repr(login), repr(KEYS)):
        assert "hush" not in shown
        assert ADAS not in shown
        assert COOKIE not in shown
        assert adas.secret_hash not in shown
