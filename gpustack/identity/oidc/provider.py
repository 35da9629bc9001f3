"""The flow: where a browser is sent to sign in, what its coming back proves, and where it signs out."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
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
from gpustack.identity.person import AttributeNames, ExternalPerson

from .claims import lacks, person_of
from .discovery import Discovery
from .exchange import JsonAnswer, fetch_json, said
from .provider_document import ProviderDocument
from .provider_keys import ProviderKeys
from .token import TokenRequirements, judge, key_id

_LARGEST = 256 << 10
_WITHIN = 15.0
_LONGEST_CODE = 4096
_LONGEST_HINT = 4096
"""Characters of an id token that is shown again at logout: it travels in an address."""


@attrs.frozen(kw_only=True)
class OidcClient:
    """What we are to the provider. Without a secret we are a public client, and PKCE is the proof."""

    id: str
    secret: str | None = attrs.field(default=None, repr=False)
    redirect_uri: str

    @property
    def start_page(self) -> str:
        """Where a browser comes back to after signing out."""
        return self.redirect_uri.removesuffix("auth/oidc/callback")


@attrs.frozen
class VerifiedIdentity:
    """Who came back, and what to show the provider at logout."""

    person: ExternalPerson
    logout_hint: str | None = attrs.field(repr=False)


@attrs.define(eq=False, repr=False)
class OidcProvider:
    """The provider as the API sees it. ``clock`` is the wall clock."""

    client: OidcClient
    discovery: Discovery
    _keys: ProviderKeys
    _naming: AttributeNames
    _clock: Callable[[], datetime]
    _within: float = _WITHIN
    """Seconds that one answer of the provider may take."""
    _way: str | None = None
    """How the provider last took our word for who we are."""

    @property
    def source(self) -> UserSource:
        return UserSource.OIDC

    async def ready(self) -> None:
        """Wait a moment until the provider is known. Raises ``Unavailable``."""
        await self.discovery.document()

    def secret(self, rng: random.Random) -> str:
        """What one sign-in keeps here: its nonce and the verifier of its code."""
        return json.dumps(
            {"nonce": f"{rng.getrandbits(256):064x}", "verifier": f"{rng.getrandbits(256):064x}"}
        )

    async def authorization_url(self, state: str, secret: str) -> str:
        """Where the browser signs in. Raises ``Unavailable`` while the provider is not known."""
        document, kept = await self.discovery.document(), json.loads(secret)
        return str(
            prepare_grant_uri(
                document.authorization_endpoint,
                client_id=self.client.id,
                response_type="code",
                redirect_uri=self.client.redirect_uri,
                scope=_scopes(document, self._naming),
                state=state,
                nonce=kept["nonce"],
                code_challenge=create_s256_code_challenge(kept["verifier"]),
                code_challenge_method="S256",
            )
        )

    async def prove(self, answer: Mapping[str, str], secret: str) -> VerifiedIdentity:
        """Who the browser's ``answer`` (the fields of its coming back) is from.

        Raises ``Forbidden`` and ``BadRequest`` with a sentence for the person, ``Unavailable`` when the provider does
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
        claims = judge(id_token, keys, expected, now=self._clock().timestamp())
        if document.userinfo_endpoint and expected.access_token and lacks(claims, self._naming):
            claims = await self._more(claims, document.userinfo_endpoint, expected.access_token)
        person = person_of(claims, self._naming)
        return VerifiedIdentity(person, id_token if len(id_token) <= _LONGEST_HINT else None)

    def logout_url(self, session: Session) -> str | None:
        """Where that login ends at the provider too, if it can and is known."""
        document = self.discovery.present
        if session.source is not UserSource.OIDC or document is None or document.end_session_endpoint is None:
            return None
        fields = {"client_id": self.client.id, "post_logout_redirect_uri": self.client.start_page}
        if session.logout_hint is not None:
            fields["id_token_hint"] = session.logout_hint
        endpoint = document.end_session_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(fields)}"

    def _judge_answer(self, answer: Mapping[str, str], document: ProviderDocument) -> None:
        # First who speaks at all: another provider may have sent the browser here to have its code redeemed (RFC 9207).
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
            # A provider offers several ways and takes from each client one: which, only it knows.
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
        # What is signed goes before what is merely told.
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
    """How the client may say who it is, the best first. Raises ``Unavailable`` when there is no way that we know."""
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
