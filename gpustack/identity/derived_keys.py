"""The keys that are derived from the server's one secret, one for each use."""

from __future__ import annotations

import hashlib
import hmac

import attrs

from gpustack.errors import Invalid

_CONTEXT = b"gpustack"


@attrs.frozen(kw_only=True, repr=False)
class DerivedKeys:
    """One key for each use; none reveals another one or the secret. Hashes are HMAC-SHA256 in hex."""

    _api: bytes
    _worker: bytes
    _session: bytes
    _forward: bytes
    _sign_in: bytes
    _worker_mark: str = attrs.field(
        default=attrs.Factory(lambda self: derive(self._worker, "mark")[:4].hex(), takes_self=True),
        init=False,
    )
    """Tells the present key from others, in the hashes that it makes."""

    @classmethod
    def of(cls, secret: str) -> DerivedKeys:
        """Derive them from the content of ``jwt_secret_key``. Raises ``Invalid`` when it is empty.

        The same secret always gives the same keys, so that stored hashes stay valid.
        """
        material = secret.strip().encode()
        if not material:
            raise Invalid("The secret key is empty: set --jwt-secret-key, or remove the file jwt_secret_key")
        return cls(
            **{use: derive(material, use) for use in ("api", "worker", "session", "forward", "sign_in")}
        )

    def api_hash(self, secret: str) -> str:
        """What is stored of the secret of an API key. That is random, so a slow hash would add nothing."""
        return _hash(self._api, secret)

    def worker_hash(self, secret: str) -> str:
        """What is stored of the secret of a worker's credential, with a mark of the key that made the hash."""
        return f"{self._worker_mark}.{_hash(self._worker, secret)}"

    def made_worker_hash(self, kept: str) -> bool:
        """Whether a stored hash was made with the present key: if not, no credential fits it."""
        return kept.startswith(f"{self._worker_mark}.")

    def session_hash(self, token: str) -> str:
        """What is stored of a session's cookie."""
        return _hash(self._session, token)

    def sign_in_hash(self, value: str) -> str:
        """What is stored of the state and cookie of a login under way at the identity provider."""
        return _hash(self._sign_in, value)

    def forward_key(self, worker_uuid: str) -> str:
        """The key with which the server authenticates itself to a worker. Derived when needed, never stored."""
        return _hash(self._forward, worker_uuid)

    def __repr__(self) -> str:
        return "<DerivedKeys>"


def ray_token(cluster_token: str) -> str:
    """With which the machines of a cluster let each other into its Ray: all of them have the cluster token."""
    return derive(cluster_token.strip().encode(), "ray").hex()


def derive(secret: bytes, use: str) -> bytes:
    """32 bytes for one use: HKDF with SHA-256 (RFC 5869), one block."""
    extracted = hmac.digest(_CONTEXT, secret, hashlib.sha256)
    return hmac.digest(extracted, use.encode() + b"\x01", hashlib.sha256)


def _hash(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hex()
