"""An identity provider of pysaml2, in this process: the other toolkit, which shares no code with ours but libxml2."""

from __future__ import annotations

import base64
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs

from tests.needs import requires, requires_module
from tests.saml.keys import pair

ENTITY = "urn:tests:pysaml2"
SSO = "http://127.0.0.1:9/sso"
"""Nobody listens there: what would be sent to it is given to ``answer``."""
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"


@attrs.frozen
class Pysaml2:
    """The provider, once it has read who we are."""

    server: Any
    certificate: str

    @classmethod
    def meeting(cls, folder: Path, metadata: str, *, signed_requests: bool = True) -> Pysaml2:
        """One that knows the service provider of that metadata."""
        program = requires("xmlsec1")
        requires_module("saml2", pip="pysaml2")
        # Of cryptography, for ciphers that it offers and we do not use.
        with warnings.catch_warnings(action="ignore"):
            from saml2 import BINDING_HTTP_REDIRECT
            from saml2.config import IdPConfig
            from saml2.server import Server

        folder.mkdir(parents=True, exist_ok=True)
        made = pair("pysaml2")
        for name, text in (("idp.crt", made.certificate), ("idp.key", made.key), ("sp.xml", metadata)):
            (folder / name).write_text(text)
        config = IdPConfig()
        config.load(
            {
                "entityid": ENTITY,
                "xmlsec_binary": program,
                "key_file": str(folder / "idp.key"),
                "cert_file": str(folder / "idp.crt"),
                "metadata": {"local": [str(folder / "sp.xml")]},
                "service": {
                    "idp": {
                        "endpoints": {"single_sign_on_service": [(SSO, BINDING_HTTP_REDIRECT)]},
                        "want_authn_requests_signed": signed_requests,
                        "policy": {"default": {"lifetime": {"minutes": 5}, "attribute_restrictions": None}},
                    }
                },
            }
        )
        return cls(Server(config=config), made.certificate)

    def answer(self, url: str, name: str, attributes: dict[str, list[str]], **how: Any) -> dict[str, str]:
        """What a browser that is sent to ``url`` brings back, once ``name`` has signed in. Checks our signature."""
        from saml2 import BINDING_HTTP_REDIRECT
        from saml2.saml import NameID

        query = dict(parse_qsl(urlsplit(url).query))
        read = self.server.parse_authn_request(
            query["SAMLRequest"],
            BINDING_HTTP_REDIRECT,
            relay_state=query["RelayState"],
            sigalg=query.get("SigAlg"),
            signature=query.get("Signature"),
        )
        request = read.message
        made = self.server.create_authn_response(
            attributes,
            in_response_to=request.id,
            destination=request.assertion_consumer_service_url,
            sp_entity_id=request.issuer.text,
            name_id=NameID(format=PERSISTENT, text=name),
            authn={"class_ref": "urn:oasis:names:tc:SAML:2.0:ac:classes:Password"},
            **{
                "sign_assertion": True,
                "sign_response": True,
                "sign_alg": "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
                "digest_alg": "http://www.w3.org/2001/04/xmlenc#sha256",
                **how,
            },
        )
        return {
            "SAMLResponse": base64.b64encode(str(made).encode()).decode(),
            "RelayState": query["RelayState"],
        }
