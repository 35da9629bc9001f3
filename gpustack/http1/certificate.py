"""The certificate of a server: loaded again when its files change, unless the new pair cannot be used."""

from __future__ import annotations

import logging
import ssl
from datetime import datetime
from pathlib import Path

import attrs
import trio

from gpustack.errors import Invalid

log = logging.getLogger(__name__)

_LOOK_EVERY = 2.0

Stamp = tuple[tuple[int, int, int], ...]


@attrs.define(eq=False, repr=False)
class Certificate:
    """A service that owns the TLS context. New connections use the newest good pair; open ones keep theirs."""

    certfile: Path
    keyfile: Path
    context: ssl.SSLContext
    for_ourselves: ssl.SSLContext
    """For requests to this server from this machine: trusts this certificate, whatever its name, and no other."""
    ends: datetime | None
    """After that clients refuse it; ``None`` where that cannot be read."""
    _seen: Stamp
    _look_every: float = _LOOK_EVERY
    name: str = "certificate"

    @classmethod
    def load(cls, certfile: Path, keyfile: Path, *, look_every: float = _LOOK_EVERY) -> Certificate:
        """Read the pair. Raises ``Invalid`` with a sentence when it cannot be used. Blocking."""
        seen = _stamp(certfile, keyfile)
        context, held = server_context(certfile, keyfile), spans(certfile)
        ends = None if held is None else held[1]
        return cls(certfile, keyfile, context, _trust_in(certfile), ends, seen, look_every)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the files every two seconds, until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(self._look_every)
            self.look()  # two small files: not worth a thread

    def look(self) -> None:
        """Load the pair if its files have changed since the last call. Blocking. A bad pair is logged, not raised."""
        now = _stamp(self.certfile, self.keyfile)
        if now == self._seen:
            return
        self._seen = now
        try:
            self.context = server_context(self.certfile, self.keyfile)
            self.for_ourselves.load_verify_locations(self.certfile)
        except Invalid as fault:
            log.error("The certificate on disk is not used, the one before it stays: reason=%s", fault)
            return
        held = spans(self.certfile)
        self.ends = None if held is None else held[1]
        log.info("The certificate was loaded again: file=%s", self.certfile)

    def __repr__(self) -> str:
        return f"<Certificate {self.certfile}>"


def server_context(certfile: Path, keyfile: Path) -> ssl.SSLContext:
    """A TLS context for a server of HTTP/1.1. Raises ``Invalid`` naming the options."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
    except ssl.SSLError as error:
        raise Invalid(
            f"{certfile} (--ssl-certfile) and {keyfile} (--ssl-keyfile) are not a usable pair: "
            f"{error.reason or error}"
        ) from error
    except OSError as error:
        raise Invalid(
            f"The TLS files cannot be read: {error.filename or certfile}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise Invalid(f"{keyfile} (--ssl-keyfile) is encrypted; give a key without a passphrase") from error
    return context


def spans(certfile: Path) -> tuple[datetime, datetime] | None:
    """From when to when the first certificate in a file holds; ``None`` where none can be read. Blocking."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(certfile.read_bytes())
    except (OSError, ValueError):
        return None
    return found.not_valid_before_utc, found.not_valid_after_utc


def _trust_in(certfile: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certfile)
    return context


def _no_password() -> str:
    raise ValueError("no passphrase is asked for")


def _stamp(*files: Path) -> Stamp:
    found = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
