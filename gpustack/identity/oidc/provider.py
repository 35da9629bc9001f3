"""The OIDC provider as the sign-on flow uses it: requests, what an answer proves, and signing out there."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote_plus, urlencode

import attrs
from authlib.oauth2.rfc6749.parameters import (  # type: ignore[import-untyped]
    prepare_grant_uri,
    prepare_token_request,
)
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]

from gpustack.domain.access import Session, UserSource
from gpustack.errors import BadRequest, Forbidden, Unavailable
from gpustack.identity.person import AttributeNames, VerifiedIdentity
from gpustack.identity.sign_in import SignInRequest

from .discovery import Discovery, JsonAnswer, fetch_json, said
from .id_token import TokenRequirements, key_id, lacks, person_of, verify
from .provider_document import ProviderDocument
from .provider_keys import ProviderKeys

_LARGEST = 256 << 10
_WITHIN = 15.0
_LONGEST_CODE = 4096
_LONGEST_HINT = 4096
"""Characters of an id token that is sent again at logout, in a URL."""


@attrs.frozen(kw_only=True)
class OidcClient:
    """This server as a client of the provider. Without a secret it is a public client, protected by PKCE alone."""

    id: str
    secret: str | None = attrs.field(default=None, repr=False)
    redirect_uri: str

    @property
    def start_page(self) -> str:
        """Where a browser returns to after signing out."""
        return self.redirect_uri.removesuffix("auth/oidc/callback")


@attrs.define(eq=False, repr=False)
class OidcProvider:
    """One identity provider. It remembers the client authentication that the provider accepted last."""

    client: OidcClient
    discovery: Discovery
    _keys: ProviderKeys
    _names: AttributeNames
    _within: float = _WITHIN
    """Seconds that one answer of the provider may take."""
    _way: str | None = None
    """The client authentication that was accepted last."""

    @property
    def source(self) -> UserSource:
        return UserSource.OIDC

    async def request(self, rng: random.Random) -> SignInRequest:
        """A new request; its secret holds the nonce, and the verifier of the code (PKCE).

        Raises ``Unavailable`` while the provider is not known.
        """
        document = await self.discovery.document()
        nonce, verifier = (f"{rng.getrandbits(256):064x}" for _ in range(2))
        secret = json.dumps({"nonce": nonce, "verifier": verifier})
        return SignInRequest(secret, partial(self._authorization_url, document, nonce, verifier))

    async def _authorization_url(
        self, document: ProviderDocument, nonce: str, verifier: str, state: str
    ) -> str:
        return str(
            prepare_grant_uri(
                document.authorization_endpoint,
                client_id=self.client.id,
                response_type="code",
                redirect_uri=self.client.redirect_uri,
                scope=_scopes(document, self._names),
                state=state,
                nonce=nonce,
                code_challenge=create_s256_code_challenge(verifier),
                code_challenge_method="S256",
            )
        )

    async def prove(
        self, answer: Mapping[str, str], secret: str, clock: Callable[[], datetime]
    ) -> VerifiedIdentity:
        """Redeem the code in ``answer``, and verify the id token that it gives.

        Raises ``Forbidden`` and ``BadRequest`` with a sentence for the person, ``RemoteError`` when the provider does
        not answer.
        """
        document = await self.discovery.document()
        self._judge_answer(answer, document)
        kept = json.loads(secret)
        tokens = await self._redeem(answer["code"], kept["verifier"], document)
        id_token = tokens["id_token"]
        access_token = tokens.get("access_token")
        expected = TokenRequirements(
            issuer=document.issuer,
            client_id=self.client.id,
            nonce=kept["nonce"],
            algorithms=document.algorithms,
            access_token=access_token if isinstance(access_token, str) else None,
        )
        keys = await self._keys.of(key_id(id_token), document.jwks_uri)
        # The clock is read here: the provider may have taken its time.
        claims = verify(id_token, keys, expected, now=clock().timestamp())
        if document.userinfo_endpoint and expected.access_token and lacks(claims, self._names):
            claims = await self._more(claims, document.userinfo_endpoint, expected.access_token)
        person = person_of(claims, self._names)
        return VerifiedIdentity(person, id_token if len(id_token) <= _LONGEST_HINT else None)

    def logout_url(self, session: Session) -> str | None:
        """The provider's page that ends a login there too; ``None`` where it has none, or is not known."""
        document = self.discovery.present
        if session.source is not UserSource.OIDC or document is None or document.end_session_endpoint is None:
            return None
        fields = {"client_id": self.client.id, "post_logout_redirect_uri": self.client.start_page}
        if session.logout_hint is not None:
            fields["id_token_hint"] = session.logout_hint
        endpoint = document.end_session_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(fields)}"

    def _judge_answer(self, answer: Mapping[str, str], document: ProviderDocument) -> None:
        # The issuer first: another provider may have sent the browser here to have its code redeemed (RFC 9207).
        issuer = answer.get("iss")
        if issuer is None and document.says_issuer:
            raise Forbidden("The answer does not say which identity provider it is from")
        if issuer is not None and issuer != document.issuer:
            raise Forbidden("The answer is from another identity provider")
        if "error" in answer:
            told = said(answer["error"], answer.get("error_description"))
            raise Forbidden(f"The identity provider did not sign you in. It says: {told}")
        code = answer.get("code", "")
        if not 0 < len(code) <= _LONGEST_CODE:
            raise BadRequest("The answer of the identity provider has no code in it")

    async def _redeem(self, code: str, verifier: str, document: ProviderDocument) -> dict[str, Any]:
        for way in sorted(_ways(self.client, document), key=lambda way: way != self._way):
            answer = await self._ask_for_tokens(way, code, verifier, document)
            told = answer.document if isinstance(answer.document, dict) else {}
            # A provider offers several methods, and accepts from each client one: only it knows which.
            if told.get("error") != "invalid_client":
                self._way = way
                break
        tokens = _object(answer, "did not redeem the code")
        if not isinstance(tokens.get("id_token"), str):
            raise Forbidden("The identity provider gave no id token: is the scope openid allowed there?")
        return tokens

    async def _ask_for_tokens(
        self, way: str, code: str, verifier: str, document: ProviderDocument
    ) -> JsonAnswer:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        fields: dict[str, str] = {}
        secret = self.client.secret or ""
        if way == "client_secret_basic":
            # Both are form-encoded before they are joined (RFC 6749, 2.3.1): either may hold a colon.
            joined = f"{quote_plus(self.client.id)}:{quote_plus(secret)}"
            headers["authorization"] = f"Basic {base64.b64encode(joined.encode()).decode()}"
        else:
            fields["client_id"] = self.client.id
            if way == "client_secret_post":
                fields["client_secret"] = secret
        body = prepare_token_request(
            "authorization_code",
            code=code,
            redirect_uri=self.client.redirect_uri,
            code_verifier=verifier,
            **fields,
        )
        return await fetch_json(
            "POST",
            document.token_endpoint,
            headers=headers,
            body=str(body).encode(),
            limit=_LARGEST,
            deadline=self._within,
        )

    async def _more(self, claims: Mapping[str, Any], endpoint: str, access_token: str) -> dict[str, Any]:
        if not access_token.isascii() or not access_token.isprintable():
            raise Forbidden("The identity provider gave an access token that cannot be sent")
        headers = {"authorization": f"Bearer {access_token}"}
        answer = await fetch_json("GET", endpoint, headers=headers, limit=_LARGEST, deadline=self._within)
        told = _object(answer, "does not say who you are")
        if told.get("sub") != claims["sub"]:
            raise Forbidden("The identity provider's account information is of somebody else")
        # Signed claims take precedence over those of the userinfo endpoint.
        return {**told, **claims}

    def __repr__(self) -> str:
        return f"<OidcProvider: {self.discovery!r}>"


def _object(answer: JsonAnswer, failing: str) -> dict[str, Any]:
    told = answer.document
    if answer.status == 200 and isinstance(told, dict):
        return told
    fields = told if isinstance(told, dict) else {}
    why = said(fields.get("error"), fields.get("error_description"))
    raise Forbidden(f"The identity provider {failing} (status {answer.status}). It says: {why}")


def _ways(client: OidcClient, document: ProviderDocument) -> Sequence[str]:
    """The client authentication methods to try, the best first. Raises ``Unavailable`` when none is supported."""
    if client.secret is None:
        return ["none"]
    found = [
        way for way in ("client_secret_basic", "client_secret_post") if way in document.token_auth_methods
    ]
    if not found:
        offered = ", ".join(document.token_auth_methods)[:200]
        raise Unavailable(
            f"The identity provider takes a client's secret by {offered} alone, which is not built"
        )
    return found


def _scopes(document: ProviderDocument, naming: AttributeNames) -> str:
    wanted = ["openid", "profile", "email"]
    if naming.groups in document.scopes:
        wanted.append(str(naming.groups))
    return " ".join(wanted)
