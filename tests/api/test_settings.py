"""Settings are shown with where they were written and without secrets; sign-on is tried before anybody needs it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import attrs

from gpustack.cli.daemon.server_http import shown_settings
from gpustack.config.loader import load
from gpustack.identity.sign_on_trial import try_sign_on
from tests.certificates import make_certificate
from tests.fakes.issuer import running_issuer

from .world import World


async def test_settings_and_sign_on(world: World, tmp_path: Path) -> None:
    loaded = load(
        ["--port", "8080"],
        {"GPUSTACK_TOKEN": "a-token-that-is-secret", "GPUSTACK_DATA_DIR": str(tmp_path)},
        platform="linux",
        cwd=tmp_path,
        euid=1000,
    )
    trial = partial(try_sign_on, loaded.options, monotonic=world.clock.monotonic, now=world.clock)
    world = world.rebuilt(settings=shown_settings(loaded), sign_on_trial=trial)
    answer = await world.ask("GET", "/v1/settings", world.admin)
    assert "a-token-that-is-secret" not in answer.text
    shown = {one["name"]: one for one in answer.json()["items"]}
    assert (shown["port"]["value"], shown["port"]["origin"], shown["port"]["is_default"]) == (
        "8080",
        "flag --port",
        False,
    )
    assert (shown["token"]["origin"], shown["token"]["is_secret"]) == ("GPUSTACK_TOKEN", True)
    assert shown["data_dir"]["help"]
    user = await world.user("somebody")
    assert (await world.ask("GET", "/v1/settings", user)).status_code == 403

    async def tried(**body: str) -> tuple[bool, str | None, list[str]]:
        found = (await world.ask("POST", "/v1/settings/sign-on/test", world.admin, json=body)).json()
        return found["ok"], found["fault"], found["facts"]

    ok, fault, _ = await tried()
    assert not ok
    assert "No identity provider is configured" in str(fault)
    with running_issuer(lambda: world.clock.now.timestamp()) as issuer:
        ok, fault, facts = await tried(oidc_issuer=issuer.url)
        assert (ok, fault) == (True, None)
        assert facts[0] == f"The issuer is {issuer.url}"
        ok, fault, _ = await tried(oidc_issuer=f"{issuer.url}/elsewhere")
        assert not ok
        assert f"{issuer.url}/elsewhere" in str(fault)
    wrong = await world.ask("POST", "/v1/settings/sign-on/test", world.admin, json={"oidc_issuer": "x"})
    assert wrong.status_code in (400, 422)


async def test_certificates_of_a_saml_provider_are_read(world: World, tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path, "idp.example")
    loaded = load([], {"GPUSTACK_DATA_DIR": str(tmp_path)}, platform="linux", cwd=tmp_path, euid=1000)
    options = attrs.evolve(
        loaded.options,
        saml_idp_server_url="https://idp.example/sso",
        saml_idp_entity_id="https://idp.example",
        saml_idp_x509_cert=str(certificate),
        saml_sp_entity_id="gpustack",
        saml_sp_acs_url="https://gpustack.example/auth/saml/callback",
    )
    good = await try_sign_on(options, None, monotonic=world.clock.monotonic, now=world.clock)
    assert (good.kind, good.fault) == ("SAML", None)
    assert "People sign in at https://idp.example/sso" in good.facts
    broken = attrs.evolve(options, saml_idp_x509_cert="nonsense")
    bad = await try_sign_on(broken, None, monotonic=world.clock.monotonic, now=world.clock)
    assert "saml_idp_x509_cert" in str(bad.fault)
