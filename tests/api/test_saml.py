"""Signing in by SAML over the API: the answers are signed here, the browser is a client with a jar of cookies."""

from __future__ import annotations

import base64
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx
import pytest
from lxml import etree

from gpustack.api.context import SignOn
from gpustack.api.sign_on import use_once
from gpustack.api.throttle import AddressRateLimiter, LoginLimiters
from gpustack.domain.access import ExternalIdentity, Session, SignIn, UsedAssertion, User, UserSource
from gpustack.errors import Forbidden
from gpustack.identity.person import ExternalPerson, pack, unpack
from tests.saml.mint import ACS, IDP, SP, TRANSIENT, Answer, saml
from tests.saml.wrapping import ATTACKS

from .world import World

PAGE = {"Accept": "text/html"}
GOOD = Answer()


@attrs.define
class Browser:
    """A visitor of ``gpustack.test``."""

    client: httpx.AsyncClient

    async def leaves(self, next_path: str = "") -> tuple[str, str]:
        """Go to sign in: the id of the request, and its state."""
        query = f"?next={next_path}" if next_path else ""
        answer = await self.client.get(f"/auth/saml/login{query}")
        assert answer.status_code == 303
        sent = parse_qs(urlsplit(answer.headers["location"]).query)
        request = etree.fromstring(zlib.decompress(base64.b64decode(sent["SAMLRequest"][0]), -15))
        return request.get("ID"), sent["RelayState"][0]

    async def brings(self, encoded: str, state: str, *, cookies: bool = False) -> httpx.Response:
        """Post an answer, as a form of the provider's page does: without a cookie, from another site."""
        sender = self.client if cookies else httpx.AsyncClient(transport=self.client._transport)
        headers = {"Origin": "http://idp.test", "Sec-Fetch-Site": "cross-site", **PAGE}
        data = {"SAMLResponse": encoded, "RelayState": state}
        return await sender.post(ACS, data=data, headers=headers)

    async def goes_on(self, answer: httpx.Response) -> httpx.Response:
        """Follow where a good answer leads."""
        assert answer.status_code == 303, answer.text
        return await self.client.get(answer.headers["location"], headers=PAGE)

    async def signs_in(self, answer: Answer = GOOD, next_path: str = "") -> httpx.Response:
        request_id, state = await self.leaves(next_path)
        made = attrs.evolve(answer, request_id=request_id, confirmed_request_id=request_id)
        return await self.goes_on(await self.brings(made.encoded(), state))


@attrs.define
class Place:
    """A server that people sign in to by SAML."""

    world: World

    def browser(self, **headers: str) -> Browser:
        return Browser(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=self.world.app, client=("10.0.0.9", 40000)),  # type: ignore[arg-type]
                base_url="http://gpustack.test",
                headers=headers,
            )
        )

    def all(self, kind: type[Any]) -> list[Any]:
        return list(self.world.store.snapshot.all(kind).values())

    def person(self, name: str) -> User | None:
        return self.world.store.snapshot.find(User, username=name)


@pytest.fixture
async def place(world: World) -> AsyncIterator[Place]:
    world.clock.now = datetime.now(UTC)  # the toolkit has no other clock than the real one
    provider = saml(external_auth_groups="groups")
    sign_on = SignOn(provider=provider, admin_groups=frozenset({"admins"}))
    yield Place(world.rebuilt(sign_on=sign_on))


async def test_a_browser_signs_in_and_is_who_the_provider_says(place: Place) -> None:
    browser = place.browser()
    answer = await browser.signs_in(next_path="/docs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/docs")
    user = place.person("alice@example.com")
    assert user is not None
    assert (user.source, user.full_name, user.is_admin) == (UserSource.SAML, "Alice Liddell", False)
    (identity,) = place.all(ExternalIdentity)
    assert (identity.issuer, identity.subject) == (IDP, "emailAddress!!!alice@example.com")
    (session,) = place.all(Session)
    assert (session.user_id, session.source) == (user.id, UserSource.SAML)
    me = await browser.client.get("/v1/users/me")
    assert me.json()["username"] == "alice@example.com"
    assert place.all(SignIn) == []
    (used,) = place.all(UsedAssertion)
    assert used.expires_at > place.world.clock.now


async def test_the_same_person_is_the_same_account_at_the_next_login(place: Place) -> None:
    await place.browser().signs_in()
    renamed = (
        ("email", ("alice@elsewhere.example",)),
        ("displayName", ("Alice L.",)),
        ("groups", ("admins", "x")),
    )
    again = attrs.evolve(GOOD, attributes=renamed, identity="_second")
    assert (await place.browser().signs_in(again)).status_code == 303
    user = place.person("alice@example.com")
    assert user is not None
    assert (user.full_name, user.is_admin) == ("Alice L.", True)
    assert len(place.all(ExternalIdentity)) == 1


async def test_signing_out_ends_the_login_here_and_not_at_the_provider(place: Place) -> None:
    browser = place.browser(Origin="http://gpustack.test")
    await browser.signs_in()
    answer = await browser.client.post("/auth/logout")
    assert (answer.status_code, answer.json()) == (200, None)
    assert place.all(Session) == []


async def test_the_metadata_is_there_for_the_provider(place: Place) -> None:
    answer = await place.browser().client.get("/auth/saml/metadata")
    assert answer.headers["content-type"] == "application/samlmetadata+xml"
    assert etree.fromstring(answer.content).get("entityID") == SP
    assert (await place.world.ask("GET", "/auth-config")).json() == {"is_oidc": False, "is_saml": True}


async def test_a_name_id_that_does_not_last_needs_a_chosen_attribute(place: Place) -> None:
    answer = attrs.evolve(GOOD, name_format=TRANSIENT, name_id="_1")
    browser = place.browser()
    request_id, state = await browser.leaves()
    made = attrs.evolve(answer, request_id=request_id, confirmed_request_id=request_id).encoded()
    told = await browser.brings(made, state)
    assert (told.status_code, "--external-auth-name" in told.text) == (403, True)
    other = Place(place.world.rebuilt(provider=saml(external_auth_name="uid")))
    await other.browser().signs_in(answer)
    assert other.all(ExternalIdentity)[0].subject == "attribute!uid!!alice"


async def test_where_nobody_signs_in_by_saml_its_addresses_are_not_there(world: World) -> None:
    for method, path in (("GET", "login"), ("POST", "callback"), ("GET", "finish"), ("GET", "metadata")):
        assert (await world.ask(method, f"/auth/saml/{path}")).status_code == 404


async def test_a_provider_that_refuses_is_quoted_on_a_page_with_the_way_to_try_again(place: Place) -> None:
    browser = place.browser()
    request_id, state = await browser.leaves()
    answer = attrs.evolve(GOOD, status="AuthnFailed", request_id=request_id).encoded()
    told = await browser.brings(answer, state)
    assert told.status_code == 403
    assert "did not sign you in: AuthnFailed" in told.text
    assert 'href="/auth/saml/login"' in told.text
    assert "default-src 'none'" in told.headers["content-security-policy"]


def test_a_person_waits_as_text() -> None:
    person = ExternalPerson(
        source=UserSource.SAML, issuer="i", subject="s", username="ü", groups=frozenset({"a", "b"})
    )
    assert unpack(pack(person)) == person
    for text in ("ONELOGIN_1", "{}", "[]", "null", '{"source": "SAML"}', ""):
        assert unpack(text) is None


# --- attacks


async def good(browser: Browser, answer: Answer = GOOD) -> tuple[str, str]:
    """A good answer to a login that this browser began, and its state."""
    request_id, state = await browser.leaves()
    return attrs.evolve(answer, request_id=request_id, confirmed_request_id=request_id).encoded(), state


def nobody_came(place: Place) -> bool:
    return place.all(Session) == [] and place.person("alice@example.com") is None


@pytest.mark.attack("saml")
async def test_an_answer_is_good_once(place: Place) -> None:
    browser = place.browser()
    answer, state = await good(browser)
    assert (await browser.brings(answer, state)).status_code == 303
    told = await browser.brings(answer, state)
    assert (told.status_code, "not under way" in told.text) == (400, True)


@pytest.mark.attack("saml")
async def test_a_used_assertion_is_refused_in_any_login_on_any_server(place: Place) -> None:
    """Also if the login it belongs to were there once more: what was used stands in the database."""
    browser = place.browser()
    answer, state = await good(browser)
    (begun,) = place.all(SignIn)
    await browser.goes_on(await browser.brings(answer, state))
    copy = attrs.evolve(begun, id=0, version=0)
    await place.world.store.write(lambda tx: tx.insert(copy))
    told = await browser.brings(answer, state)
    assert (told.status_code, "used before" in told.text) == (403, True)
    assert len(place.all(Session)) == 1


@pytest.mark.attack("saml")
async def test_used_assertions_are_kept_until_they_end_and_no_longer(place: Place) -> None:
    one = place.world
    text = attrs.evolve(GOOD, not_on_or_after=100, confirmed_until=100).encoded()
    proven = await saml().prove({"SAMLResponse": text}, "ONELOGIN_0123456789abcdef", one.clock)
    used = proven.assertion
    assert used is not None
    await one.store.write(lambda tx: use_once(tx, used))
    one.clock.forward(150)
    with pytest.raises(Forbidden, match="used before"):
        await one.store.write(lambda tx: use_once(tx, used))
    one.clock.forward(20)
    await one.store.write(lambda tx: use_once(tx, attrs.evolve(used, assertion_hash="other")))
    assert [kept.assertion_hash for kept in place.all(UsedAssertion)] == ["other"]


@pytest.mark.attack("saml")
async def test_nobody_is_logged_in_by_the_answer_of_somebody_else(place: Place) -> None:
    """A page posts its own good answer through its visitor's browser: that one never began this login."""
    villain, victim = place.browser(), place.browser()
    answer, state = await good(villain)
    told = await victim.goes_on(await victim.brings(answer, state, cookies=True))
    assert (told.status_code, "another browser" in told.text) == (400, True)
    await victim.leaves()  # a login of one's own under way does not help it
    answer, state = await good(villain, attrs.evolve(GOOD, identity="_again"))
    told = await victim.goes_on(await victim.brings(answer, state, cookies=True))
    assert told.status_code == 400
    assert nobody_came(place)


@pytest.mark.attack("saml")
async def test_an_answer_belongs_to_its_own_request(place: Place) -> None:
    browser = place.browser()
    answer, _ = await good(browser)
    _, other_state = await good(browser)
    assert (await browser.brings(answer, other_state)).status_code == 403
    assert nobody_came(place)


@pytest.mark.attack("saml")
@pytest.mark.parametrize(
    "state", ["", "0" * 64, "x" * 100_000, "https://evil.example/", "\x00", "ONELOGIN_1"]
)
async def test_an_answer_that_nobody_asked_for_is_refused(place: Place, state: str) -> None:
    """There are no logins that the provider begins."""
    browser = place.browser()
    told = await browser.brings(Answer().encoded(), state)
    assert (told.status_code, "not under way" in told.text) == (400, True)
    unasked = attrs.evolve(GOOD, request_id=None, confirmed_request_id=None).encoded()
    _, own = await browser.leaves()
    assert (await browser.brings(unasked, own)).status_code == 403
    assert nobody_came(place)


@pytest.mark.attack("saml")
async def test_a_login_that_took_too_long_is_over(place: Place) -> None:
    browser = place.browser()
    answer, state = await good(browser)
    place.world.clock.forward(601)
    assert (await browser.brings(answer, state)).status_code == 400


@pytest.mark.attack("saml")
async def test_the_last_step_is_not_the_first(place: Place) -> None:
    """The state of a login without an answer lets nobody in, and neither does one that was used."""
    browser = place.browser()
    answer, state = await good(browser)
    told = await browser.client.get(f"/auth/saml/finish?state={state}", headers=PAGE)
    assert (told.status_code, "no answer" in told.text) == (400, True)
    assert (await browser.brings(answer, state)).status_code == 400
    answer, state = await good(browser)
    onward = await browser.brings(answer, state)
    assert (await browser.goes_on(onward)).status_code == 303
    assert (await browser.goes_on(onward)).status_code == 400
    assert len(place.all(Session)) == 1


@pytest.mark.attack("saml")
@pytest.mark.parametrize(
    "next_path", ["https://evil.example/", "//evil.example/", "/%5Cevil.example", "/auth/saml/login"]
)
async def test_the_browser_ends_up_here_and_nowhere_else(place: Place, next_path: str) -> None:
    answer = await place.browser().signs_in(next_path=next_path)
    assert answer.headers["location"] == "/"


@pytest.mark.attack("saml")
async def test_the_host_that_a_browser_names_changes_nothing(place: Place) -> None:
    """Our address is the configured one: an answer for another server is not ours under its name."""
    browser = place.browser(Host="other.test")
    request_id, state = await browser.leaves()
    other = "http://other.test/auth/saml/callback"
    answer = attrs.evolve(
        GOOD, request_id=request_id, confirmed_request_id=request_id, recipient=other, destination=other
    )
    told = await browser.client.post(
        "/auth/saml/callback", data={"SAMLResponse": answer.encoded(), "RelayState": state}
    )
    assert told.status_code == 403


@pytest.mark.attack("saml")
async def test_a_local_account_is_not_taken_by_its_name(place: Place) -> None:
    """Neither ``admin`` itself nor what looks like it."""
    for number, name in enumerate(("admin", "Admin", "ADMIN", "ａｄｍｉｎ")):
        answer = attrs.evolve(GOOD, attributes=(("email", (name,)),), identity=f"_{number}")
        told = await place.browser().signs_in(answer)
        assert (told.status_code, "belongs to another account" in told.text) == (403, True)
    assert place.all(Session) == []


@pytest.mark.attack("saml")
async def test_who_is_disabled_stays_outside(place: Place) -> None:
    await place.browser().signs_in()
    user = place.person("alice@example.com")
    assert user is not None
    await place.world.store.write(lambda tx: tx.change(User, user.id, is_active=False))
    told = await place.browser().signs_in(attrs.evolve(GOOD, identity="_second"))
    assert told.status_code == 403


@pytest.mark.attack("saml")
@pytest.mark.parametrize("name", ATTACKS)
async def test_a_wrapped_answer_logs_nobody_in(place: Place, name: str) -> None:
    browser = place.browser()
    request_id, state = await browser.leaves()
    forged = ATTACKS[name](attrs.evolve(GOOD, request_id=request_id, confirmed_request_id=request_id))
    told = await browser.brings(base64.b64encode(etree.tostring(forged)).decode(), state)
    assert told.status_code == 403
    assert place.all(Session) == []
    assert place.person("admin@example.com") is None


@pytest.mark.attack("saml")
@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/x-www-form-urlencoded", 400),
        (b"SAMLResponse=a&SAMLResponse=b&RelayState=x", "application/x-www-form-urlencoded", 400),
        (b"RelayState=x&RelayState=y", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % n for n in range(100)), "application/x-www-form-urlencoded", 400),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
        (b"{}", "application/json", 400),
        (b"<x/>", "text/xml", 400),
        (b"SAMLResponse=" + b"A" * (513 << 10), "application/x-www-form-urlencoded", 413),
    ],
)
async def test_what_is_no_form_with_an_answer_is_refused(
    place: Place, content: bytes, kind: str, status: int
) -> None:
    answer = await place.world.ask(
        "POST", "/auth/saml/callback", content=content, headers={"Content-Type": kind}
    )
    assert answer.status_code == status


@pytest.mark.attack("saml")
async def test_a_login_does_not_have_answers_looked_at_for_ever(place: Place) -> None:
    """A refused answer ends no login: whoever has one could go on."""
    clock = place.world.clock.monotonic
    few = attrs.evolve(LoginLimiters.of(clock), answers=AddressRateLimiter(clock, 3))
    hasty = Place(place.world.rebuilt(logins=few))
    browser = hasty.browser()
    answer, state = await good(browser)
    for _ in range(3):
        assert (await browser.brings("PHgvPg==", state)).status_code == 403
    told = await browser.brings(answer, state)
    assert (told.status_code, int(told.headers["retry-after"]) > 0) == (429, True)
    place.world.clock.forward(61)
    assert (await browser.goes_on(await browser.brings(answer, state))).status_code == 303


@pytest.mark.attack("saml")
async def test_an_answer_does_not_come_by_a_link(place: Place) -> None:
    """By the redirect binding the answer itself would stand in logs and histories."""
    browser = place.browser()
    answer, state = await good(browser)
    query = {"SAMLResponse": answer, "RelayState": state}
    assert (await browser.client.get("/auth/saml/callback", params=query)).status_code == 405
