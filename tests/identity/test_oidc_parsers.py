"""Whatever a provider publishes or sends, it is read or refused: nothing else is ever raised, and nothing believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.errors import Forbidden, Invalid
from gpustack.identity.oidc.discovery import said
from gpustack.identity.oidc.id_token import BadToken, TokenRequirements, key_id, person_of, values, verify
from gpustack.identity.oidc.provider_document import ProviderDocument, is_endpoint, read_provider_document
from gpustack.identity.oidc.provider_keys import read_keys
from gpustack.identity.person import AttributeNames
from gpustack.remote.http import BadResponse
from tests.fakes.issuer import KEY, OTHER_KEY, unsigned

attack = pytest.mark.attack("parser")

ISSUER = "https://idp.example"
PUBLIC = read_keys({"keys": [KEY.as_dict(private=False), OTHER_KEY.as_dict(private=False)]}, ISSUER)
EXPECTED = TokenRequirements(issuer=ISSUER, client_id="c", nonce="n", algorithms=("RS256", "ES256", "EdDSA"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
heads = st.dictionaries(
    st.sampled_from(["alg", "kid", "crit", "b64", "jwk", "jku", "x5c", "typ", "zip", "enc"]),
    st.sampled_from(["RS256", "HS256", "none", "ES256", "first", "dir"]) | json_values,
)


def document(**changes: Any) -> dict[str, Any]:
    good = {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/a",
        "token_endpoint": f"{ISSUER}/t",
        "jwks_uri": f"{ISSUER}/k",
    }
    return {**good, **changes}


@attack
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_a_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(BadToken):
        verify(text, PUBLIC, EXPECTED, now=0)


@attack
@given(heads, json_values, st.binary(max_size=300))
def test_a_token_of_any_make_that_is_not_signed_is_refused(head: Any, claims: Any, signature: bytes) -> None:
    with pytest.raises(BadToken):
        verify(unsigned(head, claims, signature), PUBLIC, EXPECTED, now=0)


@attack
@given(heads)
def test_the_key_id_is_a_text_or_there_is_none(head: Any) -> None:
    try:
        found = key_id(unsigned(head, {}))
    except BadToken:
        return
    assert found is None or isinstance(found, str)


@attack
@given(json_values)
def test_a_key_set_of_any_make_gives_public_keys_or_none(told: Any) -> None:
    for one in (told, {"keys": told}, {"keys": [told, {"kty": "RSA", "n": told, "e": told}]}):
        try:
            found = read_keys(one, ISSUER)
        except BadResponse:
            continue
        assert all(not key.is_private for key in found)


@attack
@given(
    st.dictionaries(
        st.sampled_from(
            [
                *("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"),
                *("id_token_signing_alg_values_supported", "token_endpoint_auth_methods_supported"),
                *("scopes_supported", "end_session_endpoint"),
            ]
        ),
        json_values
        | st.sampled_from(["http://x", "https://u:p@x", "https://x:99999", "https://[", "//x", ISSUER]),
    )
)
def test_a_document_of_any_make_names_endpoints_by_tls_alone(changes: Any) -> None:
    try:
        found = read_provider_document(document(**changes), ISSUER)
    except Invalid:
        return
    assert isinstance(found, ProviderDocument)
    assert not {"none", "HS256"} & set(found.algorithms)
    for url in (found.token_endpoint, found.jwks_uri, found.userinfo_endpoint, found.end_session_endpoint):
        assert url is None or url.startswith("https://")


@attack
@given(json_values)
def test_a_document_that_is_none_is_refused(told: Any) -> None:
    with pytest.raises(Invalid):
        read_provider_document(told, ISSUER)


@attack
@given(
    st.dictionaries(
        st.sampled_from(["email", "name", "email_verified", "picture", "a", "groups"]), json_values
    )
)
def test_claims_of_any_make_give_a_person_that_can_be_shown_or_nobody(claims: dict[str, Any]) -> None:
    naming = AttributeNames(username="name", full_name="a+name", groups="groups")
    assert all(isinstance(value, str) for name in claims for value in values(claims, name))
    try:
        person = person_of({**claims, "iss": ISSUER, "sub": "1"}, naming)
    except Forbidden as error:
        assert str(error).isprintable()
        return
    shown = (person.username, person.full_name or "", person.avatar_url or "", *(person.groups or ()))
    assert all(text.isprintable() for text in shown)
    assert json.dumps(shown)


@attack
@given(json_values, json_values)
def test_what_a_provider_says_is_one_printable_line(error: Any, description: Any) -> None:
    assert said(error, description).isprintable()
    assert len(said(error, description)) < 700


@pytest.mark.parametrize("url", ["https://x/a?b=c", "https://x:8443/a"])
def test_an_address_by_tls_is_an_endpoint(url: str) -> None:
    assert is_endpoint(url, loopback=False)


@pytest.mark.attack("ssrf")
def test_a_program_on_this_machine_may_do_without_tls_and_names_no_other() -> None:
    here = "http://127.0.0.1:8000"
    endpoints = {name: f"{here}/x" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
    assert read_provider_document({"issuer": here, **endpoints}, here).token_endpoint == f"{here}/x"
    for evil in ("http://10.0.0.1/x", "http://localhost.evil.example/x", "http://127.0.0.1.evil.example/x"):
        with pytest.raises(Invalid):
            read_provider_document({"issuer": here, **endpoints, "token_endpoint": evil}, here)
