"""TLS of the API: certificates, trust, and clients and ports that do not speak the same."""

import asyncio
import contextlib
import json
import shutil
import ssl
import time
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import NameOID

from constraint_crdt import ConstraintCrdtError
from constraint_crdt.client import AsyncClient, Client, ClientError, Happened, TlsError, WrongInput
from constraint_crdt.http import server
from constraint_crdt.http.security import ApiCertificate
from constraint_crdt.http.server import ApiServer
from constraint_crdt.identity import certify, key_pem
from constraint_crdt.identity.directory import load_issuer
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import NodeSettings, SettingsError, load_settings
from tests.security.fleets import Fleet

FAR = 10.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    made = Fleet(tmp_path_factory.mktemp("keys") / "plant")
    made.certify("forge")
    return made


def certificate_in(folder: Path) -> ApiCertificate:
    return ApiCertificate(folder / "node.pem", folder / "node.key")


@pytest.fixture
async def api(node: Node, fleet: Fleet) -> AsyncIterator[ApiServer]:
    async with ApiServer(node, "127.0.0.1", 0, certificate=certificate_in(fleet.folder / "forge")) as serving:
        yield serving


def for_host(folder: Path, host: str) -> tuple[Path, Path, Path]:
    """A root that is of no fleet, and a certificate for a host with its key."""
    root, own = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A root")])
    now = datetime.now(UTC)

    def builder(name: x509.Name, key: Ed25519PrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        )

    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    ca = builder(issuer, root).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    leaf = builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), own)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    files = folder / "root.pem", folder / "host.pem", folder / "host.key"
    files[0].write_bytes(ca.add_extension(usage, critical=True).sign(root, None).public_bytes(Encoding.PEM))
    files[1].write_bytes(leaf.sign(root, None).public_bytes(Encoding.PEM))
    files[2].write_bytes(key_pem(own))
    files[2].chmod(0o600)
    return files


@pytest.mark.slow
async def test_both_clients_ask_by_tls_and_trust_the_root_of_the_fleet(api: ApiServer, fleet: Fleet) -> None:
    assert api.url.startswith("https://127.0.0.1:")
    ca = fleet.folder / "ca.pem"
    async with AsyncClient(api.url, ca=ca) as client:
        await client.add("x")
        async for heard in client.events(last=1):
            assert isinstance(heard, Happened)
            break

    def blocking() -> None:
        with Client(api.url, ca=str(ca)) as client:
            for _ in range(3):
                assert client.status().node == "forge"
            assert len(client._idle) == 1, "the connection is kept"
            assert [type(heard) for heard in client.events(last=1, follow=False)][-1:] == [Happened]

    await asyncio.to_thread(blocking)


async def refused(url: str, ca: Path | None = None) -> str:
    """What both clients say."""

    def blocking() -> str:
        with pytest.raises((TlsError, WrongInput)) as raised, Client(url, ca=ca) as client:
            client.status()
        return str(raised.value)

    async with AsyncClient(url, ca=ca) as client:
        with pytest.raises((TlsError, WrongInput)) as raised:
            await client.status()
        with pytest.raises(ClientError):
            async for _ in client.events():
                pass
    assert str(raised.value) == await asyncio.to_thread(blocking)
    return str(raised.value)


@pytest.mark.slow
async def test_a_client_of_the_other_protocol_is_told_so(api: ApiServer, node: Node) -> None:
    assert await refused(api.url.replace("https", "http")) == "this port speaks TLS: use https:// in place of http://"
    async with ApiServer(node, "127.0.0.1", 0) as plain:
        url = plain.url.replace("http", "https")
        assert await refused(url) == f"the port at {url} speaks no TLS: use http:// in place of https://"


@pytest.mark.slow
async def test_an_unknown_certificate_is_not_trusted(api: ApiServer, tmp_path: Path) -> None:
    other = Fleet(tmp_path / "plant")
    for ca in (None, other.folder / "ca.pem"):
        said = await refused(api.url, ca)
        assert said.startswith(f"the certificate of {api.url} is not trusted (")
        assert "--ca FILE" in said


@pytest.mark.slow
async def test_a_certificate_of_no_fleet_must_name_the_host(node: Node, tmp_path: Path) -> None:
    ca, certificate, key = for_host(tmp_path, "localhost")
    async with ApiServer(node, "127.0.0.1", 0, certificate=ApiCertificate(certificate, key)) as api:
        by_name = api.url.replace("127.0.0.1", "localhost")
        async with AsyncClient(by_name, ca=ca) as client:
            assert (await client.status()).node == "forge"
            assert (await client.status()).node == "forge"

        def blocking() -> str:
            with Client(by_name, ca=ca) as client:
                return client.status().node

        assert await asyncio.to_thread(blocking) == "forge"
        assert (await refused(api.url, ca)).startswith(f"the certificate of {api.url} is for another host: ")


@pytest.mark.slow
async def test_a_certificate_of_a_fleet_of_another_name_counts_for_nothing(node: Node, tmp_path: Path) -> None:
    """The root says `plant`, and signs for a URI of `other`: the host is checked then, which no such certificate names."""
    fleet = Fleet(tmp_path / "plant")
    key = Ed25519PrivateKey.generate()
    issuer = fleet.root.certificate.subject
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forge")]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("constraint-crdt://other/member/forge")]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(fleet.root.key.public_key()), critical=False)
        .sign(fleet.root.key, None)
    )
    (tmp_path / "c.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (tmp_path / "c.key").write_bytes(key_pem(key))
    (tmp_path / "c.key").chmod(0o600)
    certificate = ApiCertificate(tmp_path / "c.pem", tmp_path / "c.key")
    async with ApiServer(node, "127.0.0.1", 0, certificate=certificate) as api:
        assert "is for another host" in await refused(api.url, fleet.folder / "ca.pem")


@pytest.mark.slow
async def test_a_certificate_that_an_operator_signed_is_of_the_fleet(node: Node, fleet: Fleet, tmp_path: Path) -> None:
    forge = fleet.certify("forge", role="operator")
    issuer = load_issuer(forge, fleet.identity("forge"))
    assert issuer is not None
    key, now = Ed25519PrivateKey.generate(), time.time_ns()
    own = certify(issuer, "lathe", "member", key.public_key(), now=now, random=fleet.random)
    (tmp_path / "node.pem").write_bytes(own.public_bytes(Encoding.PEM) + issuer.pem)
    (tmp_path / "node.key").write_bytes(key_pem(key))
    (tmp_path / "node.key").chmod(0o600)
    async with (
        ApiServer(node, "127.0.0.1", 0, certificate=certificate_in(tmp_path)) as api,
        AsyncClient(api.url, ca=fleet.folder / "ca.pem") as client,
    ):
        assert (await client.status()).node == "forge"


async def shown(api: ApiServer) -> bytes | None:
    """The certificate that the API shows, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]), ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found if isinstance(found, bytes) else None


@pytest.mark.slow
async def test_a_renewed_certificate_is_used_without_a_restart(node: Node, fleet: Fleet, tmp_path: Path) -> None:
    folder = tmp_path / "forge"
    shutil.copytree(fleet.folder / "forge", folder)
    certificate = certificate_in(folder)
    async with ApiServer(node, "127.0.0.1", 0, certificate=certificate) as api:
        before = await shown(api)
        (folder / "node.pem").write_text("half a certif")
        assert await shown(api) == before
        assert "goes on with its former certificate" in str(certificate.trouble)
        fleet.certify("forge")
        shutil.copyfile(fleet.folder / "forge" / "node.pem", folder / "node.pem")
        after = await shown(api)
        assert after != before
        assert after == ssl.PEM_cert_to_DER_cert((folder / "node.pem").read_text())
        assert not certificate.trouble


@pytest.mark.slow
def test_files_that_cannot_be_used_are_named(fleet: Fleet, tmp_path: Path) -> None:
    forge, anvil = fleet.folder / "forge", fleet.certify("anvil")
    key = Ed25519PrivateKey.generate()
    locked = tmp_path / "locked.key"
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    locked.chmod(0o600)
    open_key = tmp_path / "open.key"
    shutil.copyfile(forge / "node.key", open_key)
    open_key.chmod(0o604)
    for certificate, used, says in (
        (tmp_path / "nope.pem", forge / "node.key", "cannot read .*nope.pem for the TLS of the API: No such file"),
        (forge / "node.pem", tmp_path / "nope.key", "cannot read .*nope.key for the TLS of the API: No such file"),
        (forge / "node.pem", open_key, f"others on this machine can read or write the key {open_key}: `chmod 600 {open_key}`"),
        (forge / "node.pem", anvil / "node.key", "is not the key of the certificate"),
        (forge / "identity.toml", forge / "node.key", "are no certificate and key in PEM"),
        (forge / "node.pem", locked, "without a passphrase"),
    ):
        with pytest.raises(ConstraintCrdtError, match=says):
            ApiCertificate(certificate, used)


@pytest.mark.parametrize(("text", "says"), [(None, "cannot read the root certificate"), ("no", "has no certificate in PEM")])
def test_a_root_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "ca.pem").write_text(text)
    with pytest.raises(ConstraintCrdtError, match=says):
        Client("https://127.0.0.1:1", ca=tmp_path / "ca.pem")
    Client("http://127.0.0.1:1", ca=tmp_path / "ca.pem")


@pytest.mark.slow
async def test_who_does_not_begin_a_handshake_is_cut_off(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.05)
    for sent in (b"", server.TLS_RECORD):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
        writer.write(sent)
        async with asyncio.timeout(FAR):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
    assert api._server is not None
    assert api._server._bounds.open == 0


@pytest.mark.slow
async def test_old_versions_of_tls_are_refused(api: ApiServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]), ssl=context)


@pytest.mark.slow
async def test_a_page_of_the_same_origin_may_write_by_https_only(api: ApiServer, fleet: Fleet) -> None:
    context = ssl.create_default_context(cafile=fleet.folder / "ca.pem")
    context.check_hostname = False
    for origin, status in ((api.url, b"201"), (api.url.replace("https", "http"), b"403")):
        host = api.url.removeprefix("https://")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]), ssl=context)
        body = json.dumps({"id": status.decode()})
        head = f"POST /v1/constraints HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        assert (await reader.readline()).split()[1] == status
        writer.close()


@pytest.mark.parametrize(
    ("value", "found"),
    [(True, "identity"), ("true", "identity"), ("identity", "identity"), (False, ""), ("a.pem, b.pem", "a.pem,b.pem")],
)
def test_the_setting_has_two_forms(value: object, found: str, tmp_path: Path) -> None:
    settings = tmp_path / "node.toml"
    settings.write_text(f"identity = 'forge'\napi_tls = {json.dumps(value)}\n")
    assert load_settings({}, {}, settings).api_tls == found
    if isinstance(value, str):
        assert load_settings({}, {"CONSTRAINT_CRDT_API_TLS": value, "CONSTRAINT_CRDT_IDENTITY": "forge"}).api_tls == found
        assert load_settings({"api_tls": value, "identity": "forge"}, {"CONSTRAINT_CRDT_CA": "x"}).api_tls == found


@pytest.mark.parametrize("value", ["a.pem", "a.pem,", "a,b,c"])
def test_another_form_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="--api-tls"):
        load_settings({"api_tls": value}, {})


def test_the_identity_must_be_there() -> None:
    with pytest.raises(SettingsError, match="there is none"):
        NodeSettings(api_tls="identity")


@pytest.mark.parametrize(("valid", "level"), [(30, "ok"), (3, "warn"), (-1, "fail")])
def test_the_diagnosis_looks_at_the_end_of_the_certificate(tmp_path: Path, valid: int, level: str) -> None:
    day = 86_400
    fleet = Fleet(tmp_path / "plant", age=40 * day)
    folder = fleet.certify("forge", valid=(40 + valid) * day * 10**9)
    found = certificate_in(folder).validity()
    assert (found.check, found.level) == ("api", level)
    assert str(folder / "node.pem") in found.what
