"""Our requests and pysaml2, its answers and us: the toolkit that most other Python programs have."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gpustack.errors import Forbidden
from gpustack.identity.saml.assertion import Assertion
from gpustack.identity.saml.provider import SamlProvider
from tests.saml import pysaml2
from tests.saml.keys import pair
from tests.saml.mint import saml
from tests.saml.pysaml2 import Pysaml2


def ours(security: str = "{}") -> SamlProvider:
    return saml(
        saml_idp_server_url=pysaml2.SSO,
        saml_idp_entity_id=pysaml2.ENTITY,
        saml_idp_x509_cert=pair("pysaml2").certificate,
        saml_security=security,
    )


async def signed_in(folder: Path, one: SamlProvider, **how: Any) -> Assertion:
    provider = Pysaml2.meeting(folder, await one.metadata())
    request = await one.request(random.Random(1))
    fields = provider.answer(await request.url("the-state"), "bob", {"mail": ["bob@example.com"]}, **how)
    assert fields["RelayState"] == "the-state"
    return await one.verify(fields["SAMLResponse"], request_id=request.secret, now=datetime.now(UTC))


@pytest.mark.parametrize(
    ("security", "how"),
    [
        ("{}", {}),
        ("{}", {"sign_response": False}),
        ('{"wantMessagesSigned": true}', {}),
        ('{"wantAssertionsSigned": false}', {"sign_assertion": False}),
    ],
)
async def test_what_pysaml2_answers_is_read(tmp_path: Path, security: str, how: dict[str, Any]) -> None:
    found = await signed_in(tmp_path, ours(security), **how)
    assert (found.subject(None), found.values("mail")) == ("persistent!!!bob", ("bob@example.com",))


async def test_it_encrypts_by_an_old_cipher_which_must_be_allowed(tmp_path: Path) -> None:
    how = {
        "encrypt_assertion": True,
        "encrypt_cert_assertion": pair("sp").bare,
        # Otherwise it renames what it has signed before, and the stock toolkit does not believe it either.
        "encrypt_assertion_self_contained": False,
    }
    with pytest.raises(Forbidden, match="encrypted by an algorithm that is not accepted"):
        await signed_in(tmp_path / "refused", ours(), **how)
    found = await signed_in(tmp_path / "taken", ours('{"rejectDeprecatedAlgorithm": false}'), **how)
    assert found.subject(None) == "persistent!!!bob"


async def test_it_takes_no_request_of_ours_that_somebody_touched(tmp_path: Path) -> None:
    from saml2.response import IncorrectlySigned

    one = ours()
    provider = Pysaml2.meeting(tmp_path, await one.metadata())
    url = await (await one.request(random.Random(1))).url("the-state")
    for touched in (url.replace("the-state", "another"), url.partition("&Signature")[0]):
        with pytest.raises(IncorrectlySigned):
            provider.answer(touched, "bob", {})
