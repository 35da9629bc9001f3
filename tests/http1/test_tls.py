"""TLS on both sides: the server's certificate may change while it runs, the pool checks who answers."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gpustack.http1.exchange import Exchange
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.server import ServerLimits
from gpustack.http1.upstream import ConnectFailed, UpstreamAddress
from tests.http1.conftest import Serve
from tests.http1.wire import PATIENCE, Client, Served, echo, eventually, get, post


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate with its key, for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today)
        .not_valid_after(today + datetime.timedelta(days=36500))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + cert.public_bytes(serialization.Encoding.PEM)
    )
    return path


def server_context(path: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


@pytest.fixture
def cert(tmp_path: Path) -> Path:
    return certificate(tmp_path, "first")


async def connect(served: Served, trusted: Path) -> Client:
    tcp = await trio.open_tcp_stream(served.host, served.port)
    context = ssl.create_default_context(cafile=str(trusted))
    client = Client(trio.SSLStream(tcp, context, server_hostname="127.0.0.1", https_compatible=True))
    served.clients.append(client)
    return client


async def test_requests_are_served_over_tls(serve: Serve, cert: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        assert exchange.tls
        await echo(exchange)

    served = await serve(answer, tls=server_context(cert))
    client = await connect(served, cert)
    big = b"x" * (3 << 20)
    for body in (b"small", big, b"small again"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, post(body))
            assert (await client.answer()).body == body


async def test_the_certificate_of_the_next_connection_may_be_another(
    serve: Serve, cert: Path, tmp_path: Path
) -> None:
    second = certificate(tmp_path, "second")
    contexts = [server_context(cert), server_context(second)]
    served = await serve(echo, tls=lambda: contexts.pop(0))
    old, new = await connect(served, cert), await connect(served, second)
    assert (await old.ask(get())).status == 200
    assert (await new.ask(get())).status == 200
    assert (await old.ask(get())).status == 200


@pytest.mark.attack("flood")
async def test_a_handshake_that_stops_or_fails_ends_the_connection(
    serve: Serve, cert: Path, brisk: ServerLimits
) -> None:
    served = await serve(echo, tls=server_context(cert), limits=brisk)
    silent, plain = await served.connect(), await served.connect()
    await plain.send(get())
    await plain.rest()
    await silent.rest()
    await eventually(lambda: not served.server.connections)


async def test_a_client_that_leaves_cancels_its_handler_over_tls(serve: Serve, cert: Path, kind: str) -> None:
    inside, cancelled = trio.Event(), trio.Event()

    async def wait(exchange: Exchange) -> None:
        inside.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    served = await serve(wait, tls=server_context(cert))
    client = await connect(served, cert)
    await client.send(get())
    with trio.fail_after(PATIENCE):
        await inside.wait()
        await trio.aclose_forcefully(client.stream)
        await cancelled.wait()


async def test_the_pool_speaks_tls_and_checks_the_certificate(
    serve: Serve, pool: ConnectionPool, cert: Path
) -> None:
    served = await serve(echo, tls=server_context(cert))
    trusting = ssl.create_default_context(cafile=str(cert))
    body = b"x" * (3 << 20)
    with trio.fail_after(PATIENCE):
        for _ in range(2):
            async with pool.request(
                UpstreamAddress("127.0.0.1", served.port, tls=trusting), "POST", b"/", [], body
            ) as response:
                assert await response.read(4 << 20) == body
        assert "1 idle" in repr(pool)
        with pytest.raises(ConnectFailed) as caught:
            async with pool.request(
                UpstreamAddress("127.0.0.1", served.port, tls=ssl.create_default_context()), "GET", b"/"
            ):
                pass
    assert "self-signed certificate" in str(caught.value)
