"""The options of signing in by another party, in each spelling, seen from outside on a running daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from tests.daemon import Daemon, daemon
from tests.options.spelling import shortly, spelled
from tests.ports import free_port
from tests.provider import ALONE, CLIENT_ID, CLIENT_SECRET, running_provider
from tests.provider.person import Person, person


@attrs.frozen
class Site:
    """A daemon at which Ada has signed in by the real provider, and what she is there."""

    daemon: Daemon
    person: Person
    back: str
    me: dict[str, Any]


@pytest.fixture(scope="module", params=shortly("file"))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With a document that names no way to sign out, in place of the one that the provider publishes."""
    folder = tmp_path_factory.mktemp(f"sign-on-{request.param}")
    port = free_port()
    back = f"http://127.0.0.1:{port}/auth/oidc/callback"
    with running_provider(free_port(), folder, [back]) as provider:
        values: dict[str, Any] = {
            "oidc_issuer": provider.issuer,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret": CLIENT_SECRET,
            "oidc_redirect_uri": back,
            "external_auth_name": "preferred_username",
            "external_auth_full_name": "family_name+given_name",
            "external_auth_avatar_url": "website",
            "external_auth_groups": "groups",
            "external_auth_admin_groups": ["others", "gpu-admins"],
            "external_auth_type": "OIDC",
            "saml_idp_server_url": "https://saml.example/",  # it would be taken, if the type did not say OIDC
            "openid_configuration": {
                "issuer": provider.issuer,
                "authorization_endpoint": f"{provider.issuer}/auth",
                "token_endpoint": f"{provider.issuer}/token",
                "jwks_uri": f"{provider.issuer}/jwks",
                "userinfo_endpoint": f"{provider.issuer}/me",
                "scopes_supported": ["groups"],
            },
        }
        arguments, env = spelled(request.param, folder, values)
        with (
            daemon(folder / "data", *arguments, *ALONE, "--port", str(port), env=env) as running,
            person("ada") as ada,
        ):
            at = ada.go(f"{running.url}/auth/oidc/login?next=/readyz")
            assert at.url.path == "/readyz", at.text
            me = ada.client.get(f"{running.url}/v1/users/me").json()
            yield Site(running, ada, back, me)


def test_oidc_options_let_people_sign_in_at_the_issuer(site: Site) -> None:
    """The provider refuses an unknown client, a wrong secret and a redirect address it was not told of."""
    assert site.me["source"] == "OIDC"
    assert site.daemon.call("GET", "/auth-config") == (200, {"is_oidc": True, "is_saml": False})
    assert CLIENT_SECRET not in site.daemon.log


def test_external_auth_options_say_which_claims_make_the_account(site: Site) -> None:
    assert (site.me["username"], site.me["full_name"]) == ("ada", "Lovelace Ada")
    assert site.me.get("avatar_url") is None  # the usual claim has one, the claim that was named has not


def test_external_auth_groups_and_admin_groups_give_the_role(site: Site) -> None:
    assert site.me["is_admin"] is True


def test_external_auth_type_chooses_between_two(site: Site) -> None:
    assert site.daemon.call("GET", "/auth-config")[1]["is_saml"] is False
    assert site.me["source"] == "OIDC"


def test_openid_configuration_is_used_in_place_of_what_the_issuer_publishes(site: Site) -> None:
    """What it publishes has a way to sign out there. The last of these tests: nobody is signed in after it."""
    answer = site.person.client.post(f"{site.daemon.url}/auth/logout", headers={"accept": "*/*"})
    assert (answer.status_code, answer.json()) == (200, None)
    assert site.person.client.get(f"{site.daemon.url}/v1/users/me").status_code == 401
