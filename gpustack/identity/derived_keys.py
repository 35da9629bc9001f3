"""The server's one secret, and a key derived from it for each use."""

from __future__ import annotations

import hashlib
import hmac

import attrs

from gpustack.errors import Invalid

_CONTEXT = b"gpustack"


@attrs.frozen(kw_only=True, repr=False)
class DerivedKeys:
    """Keys that reveal nothing of each other nor of the secret. Hashes are hex."""

    _api: bytes
    _worker: bytes
    _session: bytes
    _forward: bytes
    _sign_in: bytes

    @classmethod
    def of(cls, secret: str) -> DerivedKeys:
        """Derive from the content of ``jwt_secret_key``; raises ``Invalid`` when it is empty.

        The same secret gives the same keys always: what is stored hashed with them stays good.
        """
        material = secret.strip().encode()
        if not material:
            raise Invalid("The secret key is empty: set --jwt-secret-key, or remove the file jwt_secret_key")
        return cls(
            **{use: derive(material, use) for use in ("api", "worker", "session", "forward", "sign_in")}
        )

    def api_hash(self, secret: str) -> str:
        """What is kept of the secret part of an API key."""
        return _hash(self._api, secret)

    def worker_hash(self, secret: str) -> str:
        """What is kept of the secret part of a worker's credential. It shows by which key it was made."""
        return f"{self._worker_mark}.{_hash(self._worker, secret)}"

    def made_worker_hash(self, kept: str) -> bool:
        """Whether that was made with the present key: if not, whatever a worker shows will not fit it."""
        return kept.startswith(f"{self._worker_mark}.")

    @property
    def _worker_mark(self) -> str:
        return derive(self._worker, "mark")[:4].hex()

    def session_hash(self, token: str) -> str:
        """What is kept of a session's cookie."""
        return _hash(self._session, token)

    def sign_in_hash(self, value: str) -> str:
        """What is kept of the values by which a login under way at another party is found."""
        return _hash(self._sign_in, value)

    def forward_key(self, worker_uuid: str) -> str:
        """The key by which a worker knows the server on its own port; given again on demand, stored nowhere."""
        return _hash(self._forward, worker_uuid)

    def __repr__(self) -> str:
        return "<Keys>"


def derive(secret: bytes, use: str) -> bytes:
    """32 bytes for one use: HKDF with SHA-256 (RFC 5869), one block."""
    extracted = hmac.digest(_CONTEXT, secret, hashlib.sha256)
    return hmac.digest(extracted, use.encode() + b"\x01", hashlib.sha256)


def _hash(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hex()
