"""An OpenID Provider on loopback that lies: it signs whatever it is told, by whatever key, and answers as it likes.

The tests of signing in run a real provider as well; that one does not forge.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.jwk import RSAKey

Answer = tuple[int, Mapping[str, str], bytes]
Claims = dict[str, Any]

CLIENT = "gpustack"
SECRET = "a-secret-of-the-tests"


def key(kid: str) -> RSAKey:
    """A key pair with that id."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}, private=True)


KEY, OTHER_KEY = key("first"), key("second")
"""Made once: that takes long."""


@attrs.define(eq=False)
class Issuer:
    """What it does next. ``claims`` go over those of a good id token (``None`` leaves one out).

    ``makes`` makes the token from its claims in place of a good signature; ``answers`` replaces an answer by path.
    """

    url: str
    now: Callable[[], float]
    claims: Claims = attrs.field(factory=dict)
    userinfo: Claims = attrs.field(factory=lambda: {"sub": "1"})
    makes: Callable[[Claims], str] | None = None
    key: RSAKey = KEY
    published: list[RSAKey] = attrs.field(factory=lambda: [KEY])
    answers: dict[str, Answer | Callable[[], Answer]] = attrs.field(factory=dict)
    document: Claims = attrs.field(factory=dict)
    access_token: str | None = "opaque"
    asked: Counter[str] = attrs.field(factory=Counter)
    codes: dict[str, dict[str, str]] = attrs.field(factory=dict)
    """What each code was given out for: the fields of the sign-in that it belongs to."""

    def begun(self, location: str) -> dict[str, str]:
        """Somebody has signed in after being sent to ``location``: the fields with which the browser goes back."""
        fields = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        code = f"code-{len(self.codes) + 1}"
        self.codes[code] = fields
        return {"code": code, "state": fields["state"], "iss": self.url}

    def good_claims(self, nonce: str) -> Claims:
        now = int(self.now())
        known = {"iss": self.url, "aud": CLIENT, "sub": "1", "nonce": nonce, "iat": now, "exp": now + 300}
        person = {"email": "ada@example.com", "email_verified": True, "name": "Ada", "picture": "https://x/a"}
        made = {**known, **person, **self.claims}
        return {name: value for name, value in made.items() if value is not None}

    def signed(self, claims: Claims, *, by: RSAKey | None = None, **header: Any) -> str:
        """A token as the library makes one; ``header`` goes over the usual fields."""
        whose = by or self.key
        fields = {"alg": "RS256", "kid": self.key.kid, **header}
        return jwt.encode(fields, claims, whose, algorithms=[fields["alg"]])

    def tokens(self, fields: Mapping[str, str], authorization: str) -> Answer:
        """What the token endpoint says: it redeems a code once, for who began the sign-in, and knows its client."""
        expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        begun = self.codes.pop(fields.get("code", ""), None)
        if authorization != f"Basic {expected}":
            return _json({"error": "invalid_client"}, 401)
        challenge = hashlib.sha256(fields.get("code_verifier", "").encode()).digest()
        if begun is None or begun["code_challenge"] != _b64(challenge):
            return _json({"error": "invalid_grant", "error_description": "no such code"}, 400)
        claims = self.good_claims(begun["nonce"])
        token = self.signed(claims) if self.makes is None else self.makes(claims)
        answer = {"id_token": token, "token_type": "Bearer"}
        return _json(answer if self.access_token is None else {**answer, "access_token": self.access_token})

    def answer(self, path: str, fields: Mapping[str, str], authorization: str) -> Answer:
        self.asked[path] += 1
        replaced = self.answers.get(path)
        if replaced is not None:
            return replaced() if callable(replaced) else replaced
        if path == "/.well-known/openid-configuration":
            return _json({**self.discovery(), **self.document})
        if path == "/jwks":
            return _json({"keys": [one.as_dict(private=False) for one in self.published]})
        if path == "/token":
            return self.tokens(fields, authorization)
        if path == "/userinfo" and authorization == f"Bearer {self.access_token}":
            return _json(self.userinfo)
        return _json({"error": "nothing here"}, 404)

    def discovery(self) -> Claims:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "end_session_endpoint": f"{self.url}/logout",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            "authorization_response_iss_parameter_supported": True,
        }


def hmac_by_public_key(issuer: Issuer) -> Callable[[Claims], str]:
    """HS256 with the provider's public key as the secret: for who lets the token choose how it is verified."""
    public = issuer.key.as_pem(private=False)

    def make(claims: Claims) -> str:
        head, body, _ = unsigned({"alg": "HS256", "kid": issuer.key.kid}, claims).split(".")
        return f"{head}.{body}.{_b64(hmac.digest(public, f'{head}.{body}'.encode(), 'sha256'))}"

    return make


def signed_by_hand(issuer: Issuer, header: Mapping[str, Any], claims: Claims) -> str:
    """RS256 by the right key under any head, also one that the library would not write."""
    said = unsigned(header, claims).removesuffix(".")
    private = load_pem_private_key(issuer.key.as_pem(private=True), None)
    assert isinstance(private, RSAPrivateKey)
    return f"{said}.{_b64(private.sign(said.encode(), PKCS1v15(), SHA256()))}"


def unsigned(header: Mapping[str, Any], claims: Any, signature: bytes = b"") -> str:
    """A token with any head and any signature."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(map(_b64, parts))


def slowly() -> Answer:
    """An answer that takes longer than who is told to wait for half a second."""
    time.sleep(1.0)
    return _json({})


def _json(document: Any, status: int = 200) -> Answer:
    return status, {"content-type": "application/json"}, json.dumps(document).encode()


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@contextmanager
def running_issuer(now: Callable[[], float], tls: ssl.SSLContext | None = None) -> Iterator[Issuer]:
    """Start one on a free port, with TLS if told so; ``now`` is the clock that it dates tokens with."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            length = int(self.headers.get("content-length", 0))
            fields = {name: values[-1] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
            status, headers, body = issuer.answer(
                urlsplit(self.path).path, fields, self.headers.get("authorization", "")
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.send_header("connection", "close")
            self.close_connection = True
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            pass  # who asked had enough of a long answer

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        issuer = Issuer(f"{scheme}://127.0.0.1:{server.server_address[1]}", now)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
