"""Nobody signs in by OpenID Connect but who began, at the provider that was chosen, for this server, now and once."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attrs
import httpx
import pytest

from gpustack.api.context import SignOn
from gpustack.api.throttle import AddressRateLimiter, LoginLimiters
from gpustack.domain.access import ExternalIdentity, Session, SignIn, User, UserSource
from gpustack.identity.oidc.discovery import Discovery
from gpustack.identity.oidc.provider import OidcClient, OidcProvider
from gpustack.identity.oidc.provider_keys import ProviderKeys
from gpustack.identity.person import AttributeNames
from tests.certificates import make_certificate
from tests.daemon import WITHIN
from tests.fakes.issuer import (
    CLIENT,
    OTHER_KEY,
    SECRET,
    Answer,
    Claims,
    Issuer,
    hmac_by_public_key,
    running_issuer,
    signed_by_hand,
    slowly,
    unsigned,
)

from .world import PASSWORD, World

BACK = "http://gpustack.example/auth/oidc/callback"
PAGE = {"accept": "text/html"}
USUALLY = AttributeNames()
attack = pytest.mark.attack("oidc")


@attrs.define
class Scene:
    """A server, and the provider that it believes in."""

    world: World
    issuer: Issuer
    provider: OidcProvider

    def with_naming(self, naming: AttributeNames, **more: Any) -> Scene:
        provider = provider_of(self.world, self.issuer, naming, self.provider.discovery)
        world = self.world.rebuilt(sign_on=SignOn(provider=provider, **more))
        return attrs.evolve(self, world=world, provider=provider)

    def with_patience(self, within: float) -> Scene:
        provider = provider_of(self.world, self.issuer, USUALLY, self.provider.discovery, within)
        return attrs.evolve(
            self, world=self.world.rebuilt(sign_on=SignOn(provider=provider)), provider=provider
        )

    def browser(self) -> Any:
        return self.world.client(headers=PAGE)

    async def begun(self, browser: httpx.AsyncClient, next_path: str | None = None) -> dict[str, str]:
        """Go to the provider and sign in there: the fields with which it sends the browser back."""
        params = {} if next_path is None else {"next": next_path}
        answer = await browser.get("/auth/oidc/login", params=params)
        assert answer.status_code == 303, answer.text
        return self.issuer.begun(answer.headers["location"])

    async def signed_in(self, browser: httpx.AsyncClient, **changes: str) -> httpx.Response:
        return await back(browser, {**await self.begun(browser), **changes})

    async def refused(self, status: int = 403) -> str:
        """One try, and what the page says; nothing comes of it."""
        before = {cls: dict(self.world.store.snapshot.all(cls)) for cls in (User, ExternalIdentity, Session)}
        async with self.browser() as browser:
            answer = await self.signed_in(browser)
            assert answer.status_code == status, answer.text
            assert "gpustack_session" not in browser.cookies
        assert {cls: dict(self.world.store.snapshot.all(cls)) for cls in before} == before
        return answer.text


async def back(browser: httpx.AsyncClient, fields: Mapping[str, str]) -> httpx.Response:
    return await browser.get(f"/auth/oidc/callback?{urlencode(fields)}")


def provider_of(
    world: World,
    issuer: Issuer,
    naming: AttributeNames = USUALLY,
    discovery: Discovery | None = None,
    within: float = WITHIN,
) -> OidcProvider:
    client = OidcClient(id=CLIENT, secret=SECRET, redirect_uri=BACK)
    found = discovery or Discovery(issuer.url, world.clock.monotonic)
    keys = ProviderKeys(world.clock.monotonic, within)
    return OidcProvider(client, found, keys, naming, within)


@pytest.fixture
def issuer(world: World) -> Iterator[Issuer]:
    with running_issuer(lambda: world.clock.now.timestamp()) as made:
        yield made


@pytest.fixture
async def scene(world: World, issuer: Issuer) -> Scene:
    provider = provider_of(world, issuer)
    assert await provider.discovery.look()
    return Scene(world.rebuilt(sign_on=SignOn(provider=provider)), issuer, provider)


# --- what works


async def test_who_signs_in_gets_an_account_and_a_login_and_is_where_they_wanted_to_be(scene: Scene) -> None:
    async with scene.browser() as browser:
        answer = await back(browser, await scene.begun(browser, "/docs?a=b"))
        assert (answer.status_code, answer.headers["location"]) == (303, "/docs?a=b")
        me = (await browser.get("/v1/users/me")).json()
        assert [name for name in browser.cookies if name.startswith("gpustack_sign_in")] == []
    assert (me["username"], me["full_name"], me["source"], me["is_admin"]) == (
        "ada@example.com",
        "Ada",
        "OIDC",
        False,
    )
    (session,) = scene.world.store.snapshot.all(Session).values()
    assert session.source is UserSource.OIDC
    assert not scene.world.store.snapshot.all(SignIn)


async def test_the_same_person_has_the_same_account_the_next_time(scene: Scene) -> None:
    for email in ("ada@example.com", "countess@example.com"):
        scene.issuer.claims = {"email": email}
        async with scene.browser() as browser:
            assert (await scene.signed_in(browser)).status_code == 303
            assert (await browser.get("/v1/users/me")).json()["username"] == "ada@example.com"


async def test_a_token_written_by_hand_is_as_good(scene: Scene) -> None:
    """So that one with odd demands is refused for those."""
    scene.issuer.makes = lambda claims: signed_by_hand(scene.issuer, {"alg": "RS256", "kid": "first"}, claims)
    async with scene.browser() as browser:
        assert (await scene.signed_in(browser)).status_code == 303


async def test_what_the_token_does_not_say_is_asked_for(scene: Scene) -> None:
    scene.issuer.claims = {"email": None, "email_verified": None}
    scene.issuer.userinfo = {"sub": "1", "email": "ada@example.com", "email_verified": True}
    async with scene.browser() as browser:
        assert (await scene.signed_in(browser)).status_code == 303
        assert (await browser.get("/v1/users/me")).json()["username"] == "ada@example.com"


async def test_groups_of_a_nested_claim_give_the_role_at_each_login(scene: Scene) -> None:
    """The account was given its role by hand before; with groups, they alone decide."""
    mapped = scene.with_naming(AttributeNames(groups="realm.roles"), admin_groups=frozenset({"gpu"}))
    for roles, is_admin in ((["staff", "gpu"], True), (["staff"], False), (None, False), (["gpu"], True)):
        scene.issuer.claims = {"realm": {"roles": roles}}
        async with mapped.browser() as browser:
            assert (await mapped.signed_in(browser)).status_code == 303
            assert (await browser.get("/v1/users/me")).json()["is_admin"] is is_admin


async def test_signing_out_ends_the_login_here_and_says_where_it_ends_at_the_provider(scene: Scene) -> None:
    async with scene.browser() as browser:
        await scene.signed_in(browser)
        answer = await browser.post("/auth/logout", headers={"accept": "application/json"})
        url = httpx.URL(answer.json()["logout_url"])
    assert str(url).startswith(f"{scene.issuer.url}/logout?")
    assert url.params["post_logout_redirect_uri"] == "http://gpustack.example/"
    assert url.params["client_id"] == CLIENT
    assert url.params["id_token_hint"].count(".") == 2
    assert not scene.world.store.snapshot.all(Session)


async def test_who_signed_in_by_password_signs_out_here_alone(scene: Scene) -> None:
    async with scene.world.client() as client:
        await client.post("/auth/login", data={"username": "admin", "password": PASSWORD})
        assert (await client.post("/auth/logout")).json() is None


async def test_a_provider_that_changed_its_keys_is_asked_once_more(scene: Scene) -> None:
    async with scene.browser() as browser:
        await scene.signed_in(browser)
        scene.issuer.key, scene.issuer.published = OTHER_KEY, [OTHER_KEY]
        scene.world.clock.forward(60)
        assert (await scene.signed_in(browser)).status_code == 303
        assert scene.issuer.asked["/jwks"] == 2
        assert (await scene.signed_in(browser)).status_code == 303
        assert scene.issuer.asked["/jwks"] == 2


async def test_a_provider_that_is_away_is_told_of_and_tried_again(world: World, issuer: Issuer) -> None:
    provider = provider_of(world, issuer)
    away = world.rebuilt(sign_on=SignOn(provider=provider))
    issuer.answers["/.well-known/openid-configuration"] = (503, {}, b"{}")
    assert not await provider.discovery.look()
    answer = await away.ask("GET", "/auth/oidc/login", headers=PAGE)
    assert answer.status_code == 503
    assert "cannot be used now" in answer.text
    assert "Sign in again" in answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert issuer.asked["/.well-known/openid-configuration"] == 1  # however many want to sign in at once
    del issuer.answers["/.well-known/openid-configuration"]
    world.clock.forward(1)
    assert (await away.ask("GET", "/auth/oidc/login")).status_code == 303
    assert provider.discovery.present is not None


async def test_where_nobody_signs_in_so_nothing_is_there(world: World) -> None:
    for path in ("/auth/oidc/login", "/auth/oidc/callback?state=x&code=y"):
        assert (await world.ask("GET", path)).status_code == 404


# --- the answer: whose, and for which sign-in


@attack
async def test_an_answer_is_good_once(scene: Scene) -> None:
    async with scene.browser() as browser:
        fields = await scene.begun(browser)
        cookies = dict(browser.cookies)
        assert (await back(browser, fields)).status_code == 303
        browser.cookies.clear()
        browser.cookies.update(cookies)
        scene.issuer.codes[fields["code"]] = {"nonce": "n", "code_challenge": "c"}
        again = await back(browser, fields)
    assert again.status_code == 400
    assert "not under way any more" in again.text
    assert scene.issuer.asked["/token"] == 1


@attack
async def test_the_answer_to_another_browser_is_refused(scene: Scene) -> None:
    """Else somebody could have a visitor work in the account of the attacker."""
    async with scene.browser() as attacker, scene.browser() as victim:
        theirs = await scene.begun(attacker)
        assert (await back(victim, theirs)).status_code == 400
        own = await scene.begun(victim)
        assert (await back(victim, theirs)).status_code == 400
        assert (await back(victim, {**theirs, "state": own["state"]})).status_code == 403
    assert not scene.world.store.snapshot.all(Session)


@attack
@pytest.mark.parametrize("state", [None, "", "x", "0" * 64, "0" * 10_000])
async def test_an_answer_without_its_state_is_refused(scene: Scene, state: str | None) -> None:
    async with scene.browser() as browser:
        fields = {name: value for name, value in (await scene.begun(browser)).items() if name != "state"}
        answer = await back(browser, fields if state is None else {**fields, "state": state})
    assert answer.status_code == 400
    assert not scene.issuer.asked["/token"]


@attack
async def test_an_answer_that_comes_too_late_is_refused(scene: Scene) -> None:
    async with scene.browser() as browser:
        fields = await scene.begun(browser)
        scene.world.clock.forward(601)
        assert (await back(browser, fields)).status_code == 400


@attack
async def test_an_answer_that_says_a_thing_twice_is_refused(scene: Scene) -> None:
    async with scene.browser() as browser:
        fields = await scene.begun(browser)
        answer = await browser.get(f"/auth/oidc/callback?{urlencode(fields)}&code=other")
    assert answer.status_code == 400
    assert not scene.issuer.asked["/token"]


@attack
@pytest.mark.parametrize("issuer_said", ["https://evil.example", "", None])
async def test_an_answer_of_another_provider_is_refused_before_its_code_is_sent_anywhere(
    scene: Scene, issuer_said: str | None
) -> None:
    """Mix-up: the browser began at a provider of the attacker's, who wants the code of the good one, or the reverse."""
    async with scene.browser() as browser:
        fields = await scene.begun(browser)
        fields = {**fields, "iss": issuer_said} if issuer_said is not None else _without(fields, "iss")
        assert (await back(browser, fields)).status_code == 403
    assert not scene.issuer.asked["/token"]


@attack
async def test_a_code_that_was_stolen_is_worth_nothing_without_its_verifier(scene: Scene) -> None:
    async with scene.browser() as victim, scene.browser() as attacker:
        stolen = (await scene.begun(victim))["code"]
        answer = await scene.signed_in(attacker, code=stolen)
    assert answer.status_code == 403
    assert "invalid_grant: no such code" in answer.text


@attack
@pytest.mark.parametrize("code", ["", "x" * 5000, None])
async def test_an_answer_without_a_code_is_refused(scene: Scene, code: str | None) -> None:
    async with scene.browser() as browser:
        fields = _without(await scene.begun(browser), "code")
        assert (await back(browser, fields if code is None else {**fields, "code": code})).status_code == 400
    assert not scene.issuer.asked["/token"]


@attack
async def test_what_a_provider_says_is_wrong_is_text_and_nothing_else(scene: Scene) -> None:
    evil = "<script>alert(1)</script>\x1b[31m\n" + "x" * 5000
    async with scene.browser() as browser:
        fields = await scene.begun(browser)
        answer = await back(
            browser, {**_without(fields, "code"), "error": "access_denied", "error_description": evil}
        )
    assert answer.status_code == 403
    assert "access_denied: &lt;script&gt;" in answer.text
    assert "<script" not in answer.text
    assert "\x1b" not in answer.text
    assert len(answer.text) < 4000
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@attack
async def test_nobody_puts_words_on_our_page_by_a_link(scene: Scene) -> None:
    async with scene.browser() as browser:
        answer = await browser.get("/auth/oidc/callback?error=x&error_description=call+0800+now&state=forged")
    assert answer.status_code == 400
    assert "0800" not in answer.text


@attack
@pytest.mark.parametrize(
    "wanted", ["https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example"]
)
async def test_nobody_is_led_away_after_signing_in(scene: Scene, wanted: str) -> None:
    async with scene.browser() as browser:
        answer = await back(browser, await scene.begun(browser, wanted))
    assert answer.headers["location"] == "/"


# --- the id token


def _without(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


LIES: Mapping[str, Claims] = {
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "another-client"},
    "no audience": {"aud": None},
    "an odd audience": {"aud": {"gpustack": 1}},
    "several audiences and nobody named": {"aud": [CLIENT, "another-client"]},
    "given to another client": {"aud": [CLIENT, "another-client"], "azp": "another-client"},
    "given to another client alone": {"azp": "another-client"},
    "ended": {"exp": 1},
    "no end": {"exp": None},
    "an endless end": {"exp": float("inf")},
    "an end that is no number": {"exp": float("nan")},
    "an end in words": {"exp": "never"},
    "from the future": {"iat": 2**40},
    "not dated": {"iat": None},
    "not yet": {"nbf": 2**40},
    "another nonce": {"nonce": "another"},
    "no nonce": {"nonce": None},
    "a nonce that is a list": {"nonce": ["x"]},
    "nobody": {"sub": None},
    "a subject that is a number": {"sub": 1},
    "an empty subject": {"sub": ""},
    "a long subject": {"sub": "x" * 256},
    "another access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}


@attack
@pytest.mark.parametrize("lie", LIES)
async def test_a_token_with_a_wrong_claim_is_refused(scene: Scene, lie: str) -> None:
    scene.issuer.claims = LIES[lie]
    await scene.refused()


async def test_a_token_of_a_slow_provider_is_judged_by_the_time_when_it_is_here(scene: Scene) -> None:
    def make(claims: Claims) -> str:
        scene.world.clock.forward(70.0)
        made = int(scene.world.clock.now.timestamp())
        return scene.issuer.signed({**claims, "iat": made, "exp": made + 300})

    scene.issuer.makes = make
    async with scene.browser() as browser:
        answer = await scene.signed_in(browser)
        assert answer.status_code == 303, answer.text
        assert "gpustack_session" in browser.cookies


def _tampered(token: str, claims: Claims) -> str:
    head, _, signature = token.split(".")
    return ".".join((head, unsigned({}, claims).split(".")[1], signature))


FORGERIES: Mapping[str, Callable[[Issuer], Callable[[Claims], str]]] = {
    "alg none": lambda issuer: lambda claims: unsigned({"alg": "none", "kid": "first"}, claims),
    "alg None": lambda issuer: lambda claims: unsigned({"alg": "None", "kid": "first"}, claims),
    "no alg": lambda issuer: lambda claims: unsigned({"kid": "first"}, claims),
    "alg is a list": lambda issuer: lambda claims: unsigned({"alg": ["RS256"], "kid": "first"}, claims),
    "no signature": lambda issuer: lambda claims: unsigned({"alg": "RS256", "kid": "first"}, claims),
    "an odd signature": lambda issuer: (
        lambda claims: unsigned({"alg": "RS256", "kid": "first"}, claims, b"x" * 256)
    ),
    "HMAC by the public key": hmac_by_public_key,
    "claims changed after signing": lambda issuer: (
        lambda claims: _tampered(issuer.signed(claims), {**claims, "sub": "2"})
    ),
    "another key by that name": lambda issuer: lambda claims: issuer.signed(claims, by=OTHER_KEY),
    "a key it brings along": lambda issuer: (
        lambda claims: issuer.signed(claims, by=OTHER_KEY, jwk=OTHER_KEY.as_dict(private=False))
    ),
    "a key of a name nobody knows": lambda issuer: (
        lambda claims: issuer.signed(claims, by=OTHER_KEY, kid="unknown")
    ),
    "an algorithm that is not offered": lambda issuer: lambda claims: issuer.signed(claims, alg="PS256"),
    "demands nobody knows": lambda issuer: (
        lambda claims: unsigned(
            {"alg": "RS256", "kid": "first", "crit": ["exp"], "exp": 1}, claims, b"x" * 256
        )
    ),
    "claims that are a list": lambda issuer: (
        lambda claims: unsigned({"alg": "RS256", "kid": "first"}, [claims])
    ),
    "two parts": lambda issuer: lambda claims: "a.b",
    "five parts": lambda issuer: lambda claims: "a.b.c.d.e",
    "not ASCII": lambda issuer: lambda claims: "ä.ö.ü",
    "nothing": lambda issuer: lambda claims: "",
    "deep": lambda issuer: lambda claims: _deep(),
    "long": lambda issuer: lambda claims: issuer.signed({**claims, "more": "x" * 70_000}),
}


def _deep() -> str:
    import base64

    return f"{base64.urlsafe_b64encode(b'[' * 30_000).decode().rstrip('=')}.e30.e30"


@attack
@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_token_that_the_provider_has_not_signed_is_refused(scene: Scene, forgery: str) -> None:
    scene.issuer.makes = FORGERIES[forgery](scene.issuer)
    assert "token" in await scene.refused()


@attack
async def test_a_key_that_was_withdrawn_signs_nobody_in(scene: Scene) -> None:
    async with scene.browser() as browser:
        await scene.signed_in(browser)
    scene.issuer.published = [OTHER_KEY]
    scene.world.clock.forward(3601)
    async with scene.browser() as browser:
        assert (await scene.signed_in(browser)).status_code == 403


@attack
async def test_keys_that_nobody_knows_do_not_make_us_ask_for_ever(scene: Scene) -> None:
    scene.issuer.makes = FORGERIES["a key of a name nobody knows"](scene.issuer)
    async with scene.browser() as browser:
        for _ in range(5):
            assert (await scene.signed_in(browser)).status_code == 403
    assert scene.issuer.asked["/jwks"] == 1


@attack
@pytest.mark.parametrize(
    "keys",
    [
        {"keys": [{"kty": "oct", "k": "AAAA", "kid": "first"}]},
        {"keys": [{**OTHER_KEY.as_dict(private=False), "use": "enc", "kid": "first"}]},
        {"keys": [{"kty": "RSA", "kid": "first"}, 7, None]},
        {"keys": {}},
        {},
        [],
    ],
    ids=("symmetric", "for encryption", "incomplete", "no list", "nothing", "no object"),
)
async def test_a_key_set_without_a_fitting_key_proves_nothing(scene: Scene, keys: Any) -> None:
    scene.issuer.answers["/jwks"] = (200, {}, json.dumps(keys).encode())
    async with scene.browser() as browser:
        answer = await scene.signed_in(browser)
    assert answer.status_code in (403, 503)
    assert not scene.world.store.snapshot.all(Session)


# --- who it is


@attack
@pytest.mark.parametrize("name", ["admin", "Admin", "ADMIN"])
async def test_somebody_called_admin_there_is_not_the_administrator_here(scene: Scene, name: str) -> None:
    scene.issuer.claims = {"preferred_username": name}
    text = await scene.with_naming(AttributeNames(username="preferred_username")).refused()
    assert "belongs to another account" in text


@attack
@pytest.mark.parametrize("verified", [None, False, "false", 0, "yes", []])
async def test_an_address_that_nobody_verified_is_no_name(scene: Scene, verified: Any) -> None:
    scene.issuer.claims = {"email": "admin@example.com", "email_verified": verified}
    await scene.with_naming(AttributeNames(username="email")).refused()
    async with scene.browser() as browser:
        await scene.signed_in(browser)
        assert (await browser.get("/v1/users/me")).json()["username"] == "1"


@attack
@pytest.mark.parametrize("sub", ["2", None, 1, ["1"]])
async def test_what_is_told_of_somebody_else_is_not_believed(scene: Scene, sub: Any) -> None:
    scene.issuer.claims = {"email": None}
    scene.issuer.userinfo = {"sub": sub, "email": "boss@example.com", "email_verified": True}
    assert "of somebody else" in await scene.refused()


@attack
async def test_what_is_merely_told_does_not_replace_what_is_signed(scene: Scene) -> None:
    scene.issuer.claims = {"name": None}
    scene.issuer.userinfo = {"sub": "1", "iss": "https://evil", "email": "boss@example.com", "name": "Boss"}
    async with scene.browser() as browser:
        assert (await scene.signed_in(browser)).status_code == 303
        assert (await browser.get("/v1/users/me")).json()["username"] == "ada@example.com"
    (identity,) = scene.world.store.snapshot.all(ExternalIdentity).values()
    assert identity.issuer == scene.issuer.url


@attack
async def test_a_disabled_account_does_not_come_back_by_signing_in(scene: Scene) -> None:
    async with scene.browser() as browser:
        await scene.signed_in(browser)
        user_id = (await browser.get("/v1/users/me")).json()["id"]
    answer = await scene.world.ask(
        "PUT", f"/v1/users/{user_id}", scene.world.admin, json={"is_active": False}
    )
    assert answer.status_code == 200
    assert "disabled" in await scene.refused()


@attack
async def test_a_login_that_was_chosen_for_somebody_is_not_theirs_after_signing_in(scene: Scene) -> None:
    async with scene.browser() as browser:
        await scene.signed_in(browser)
        former = browser.cookies["gpustack_session"]
        await scene.signed_in(browser)
        assert browser.cookies["gpustack_session"] != former
    stolen = {"cookie": f"gpustack_session={former}"}
    assert (await scene.world.ask("GET", "/v1/users/me", headers=stolen)).status_code == 401
    async with scene.browser() as browser:
        browser.cookies.set("gpustack_session", "0" * 64)
        answer = await scene.signed_in(browser)
        assert answer.status_code == 303
        assert "0" * 64 not in str(answer.headers)
    stolen = {"cookie": f"gpustack_session={'0' * 64}"}
    assert (await scene.world.ask("GET", "/v1/users/me", headers=stolen)).status_code == 401


# --- a provider that answers badly


BAD: Mapping[str, Answer | Callable[[], Answer]] = {
    "a redirect": (302, {"location": "http://169.254.169.254/"}, b""),
    "too much": (200, {}, b" " * (1 << 20)),
    "no JSON": (200, {}, b"<html>"),
    "a list": (200, {}, b"[]"),
    "an error": (500, {}, b'{"error": "<b>no</b>", "error_description": ["x"]}'),
    "deep JSON": (200, {}, b"[" * 100_000),
    "very slowly": slowly,
}


@attack
@pytest.mark.parametrize("path", ["/token", "/jwks", "/userinfo"])
@pytest.mark.parametrize("bad", BAD)
async def test_a_provider_that_answers_badly_signs_nobody_in(scene: Scene, path: str, bad: str) -> None:
    scene.issuer.claims = {"email": None}
    scene.issuer.answers[path] = BAD[bad]
    asking = scene.with_patience(0.5) if BAD[bad] is slowly else scene
    async with asking.browser() as browser:
        answer = await asking.signed_in(browser)
    assert answer.status_code in (403, 503), answer.text
    assert "<b>" not in answer.text
    assert not scene.world.store.snapshot.all(Session)


@attack
@pytest.mark.parametrize(
    "told",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"token_endpoint": "http://evil.example/token"},
        {"token_endpoint": "https://user@evil.example/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"jwks_uri": "http://169.254.169.254/latest"},
        {"jwks_uri": None},
        {"userinfo_endpoint": "ftp://evil.example"},
        {"end_session_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "//evil.example"},
        {"authorization_endpoint": "https://evil.example/\r\nx: y"},
        {"authorization_endpoint": 7},
        {"id_token_signing_alg_values_supported": ["HS256", "none"]},
    ],
    ids=str,
)
async def test_a_document_that_leads_astray_is_not_used(world: World, issuer: Issuer, told: Claims) -> None:
    issuer.document = told
    discovery = Discovery(issuer.url, lambda: 0.0)
    assert not await discovery.look()
    assert discovery.present is None


@attack
@pytest.mark.parametrize("bad", BAD)
async def test_a_document_that_cannot_be_read_is_not_used(world: World, issuer: Issuer, bad: str) -> None:
    issuer.answers["/.well-known/openid-configuration"] = BAD[bad]
    discovery = Discovery(issuer.url, lambda: 0.0, within=0.5 if BAD[bad] is slowly else WITHIN)
    assert not await discovery.look()
    assert discovery.present is None


@attack
async def test_a_provider_is_believed_by_its_certificate_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stands between could name keys of their own. Then the same with a certificate that is trusted."""
    certfile, keyfile = make_certificate(tmp_path, "idp")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certfile, keyfile)
    with running_issuer(lambda: 0.0, tls) as issuer:
        assert not await Discovery(issuer.url, lambda: 0.0).look()
        assert not issuer.asked
        monkeypatch.setenv("SSL_CERT_FILE", str(certfile))
        assert await Discovery(issuer.url, lambda: 0.0).look()
        issuer.document = {"token_endpoint": "http://127.0.0.1:1/token"}
        assert not await Discovery(issuer.url, lambda: 0.0).look()


@attack
async def test_beginning_for_ever_fills_no_memory_and_keeps_nobody_else_waiting(scene: Scene) -> None:
    clock = scene.world.clock.monotonic
    few = attrs.evolve(LoginLimiters.of(clock), starts=AddressRateLimiter(clock, 3))
    hasty = attrs.evolve(scene, world=scene.world.rebuilt(logins=few))
    async with hasty.browser() as browser:
        for _ in range(3):
            await hasty.begun(browser)
        last = await browser.get("/auth/oidc/login")
        assert last.status_code == 429
        assert int(last.headers["retry-after"]) > 0
        async with hasty.world.client(peer="10.0.0.8") as other:
            assert (await other.get("/auth/oidc/login")).status_code == 303
        assert len(scene.world.store.snapshot.all(SignIn)) == 4
        scene.world.clock.forward(601)
        await hasty.begun(browser)
    assert len(scene.world.store.snapshot.all(SignIn)) == 1


async def test_a_program_is_told_in_json(scene: Scene) -> None:
    answer = await scene.world.ask("GET", "/auth/oidc/callback?state=x")
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


async def test_who_was_let_in_and_who_was_not_is_in_the_audit_trail(scene: Scene) -> None:
    async with scene.browser() as browser:
        await scene.signed_in(browser)
        for headers in (PAGE, {"accept": "*/*"}):
            answer = await browser.get("/auth/oidc/callback?state=x", headers=headers)
            assert answer.status_code == 400
    trail = scene.world.context.trail
    await trail.flush()
    found = (await scene.world.get("/v1/audit-events?sort_by=id"))["items"]
    told = [(one["actor_name"], one["action"], one["means"], one["outcome"], one["status"]) for one in found]
    assert ("ada@example.com", "auth.login", "oidc", "done", 200) in told
    # Alike: counted.
    assert [one for one in told if one[3] != "done"] == [("", "auth.login", "oidc", "failed", 400)]
