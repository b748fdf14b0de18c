"""MQTT: topics and payloads, and Debian's mosquitto with a restart in the middle, TLS, a password, a flood."""

import asyncio
import datetime as dt
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.sources.formats import SourceError
from constraint_crdt.sources.pushed import levels_of, matched_levels, split_packets, thin
from tests.conftest import BUDGET
from tests.source.counterparts import Broker, finding, node_with, program, soon, values_of, why_unknown
from tests.source.test_formats import STATE, payload


@pytest.mark.parametrize(
    ("pattern", "topic", "levels"),
    [
        ("a/b", "a/b", ()),
        ("a/+/c", "a/b/c", ("b",)),
        ("a/#", "a/b/c", ("b", "c")),
        ("+/+/#", "a/b", ("a", "b")),
        ("$share/group/a/+", "a/b", ("b",)),
        ("a/+", "a/b/c", None),
        ("a/b/c", "a/b", None),
        ("a/c", "a/b", None),
    ],
)
def test_the_texts_of_wildcards(pattern: str, topic: str, levels: tuple[str, ...] | None) -> None:
    assert matched_levels(pattern, topic) == levels
    assert levels_of(("none", pattern), topic) == (levels or ())


def text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def packet(first: int, body: bytes) -> bytes:
    length, out = len(body), bytearray([first])
    while True:
        out.append((length & 0x7F) | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            return bytes(out) + body


packets = st.builds(
    lambda first, topic, size: packet(first, text(topic) + b"x" * size),
    st.sampled_from([0x30, 0x31, 0x32, 0x40, 0xD0]),
    st.sampled_from([b"a", b"bb", b""]),
    st.sampled_from([0, 1, 100, 130, 20_000]),
)


@pytest.mark.slow
@given(st.lists(packets, max_size=8), st.integers(0, 200))
def test_packets_are_split_and_thinned(sent: list[bytes], cut: int) -> None:
    """Against a plain model: of messages of quality 0 the last of each topic stays, and everything else."""
    data = b"".join(sent)
    places, end = split_packets(data)
    assert [data[start:stop] for start, _, stop in places] == sent
    assert end == len(data)
    shorter = data[: max(0, len(data) - cut)]
    whole = split_packets(shorter)
    assert [shorter[start:stop] for start, _, stop in whole[0]] == sent[: len(whole[0])]
    assert shorter[whole[1] :] == data[whole[1] : len(shorter)]
    topics = [each[body - start :][: 2 + each[body - start + 1]] for each, (start, body, _) in zip(sent, places, strict=True)]
    kept = [
        each
        for at, each in enumerate(sent)
        if each[0] not in (0x30, 0x31)
        or not any(sent[later][0] in (0x30, 0x31) and topics[later] == topics[at] for later in range(at + 1, len(sent)))
    ]
    assert thin(data, places) == (b"".join(kept), len(sent) - len(kept))


def test_what_is_no_packet_is_refused() -> None:
    for data in (b"\x30\xff\xff\xff\xff\x7f", b"\x30\xff\xff\xff\x7f"):
        with pytest.raises(SourceError, match="the broker sent"):
            split_packets(data)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    made.start()
    yield made
    made.stop()


def table(broker: Broker, **more: Any) -> dict[str, Any]:
    return {"name": "plant", "kind": "mqtt", "url": f"mqtt://127.0.0.1:{broker.port}", "every": 0.05, **more}


async def publishing(publish: Callable[..., Any], topic: str, content: bytes | str, condition: Callable[[], object]) -> None:
    """Publish again and again until a condition holds: what is sent before a subscription is lost."""

    def repeated() -> object:
        publish(topic, content)
        return condition()

    await soon(repeated)


@pytest.mark.long
@pytest.mark.processes
async def test_values_before_and_after_a_restart_of_the_broker(broker: Broker) -> None:
    fields = {"robot_{1}.charge": "battery.charge", "speed": {"path": "speed", "unknown": [-1], "scale": 0.001}}
    async with node_with(table(broker, topics=["plant/+/state"], fields=fields, max_age=1)) as node:
        await node.add_constraint("slow", when="speed < 1.5")
        with broker.publisher() as publish:
            state = '{"battery": {"charge": 80}, "speed": 1200}'
            await publishing(publish, "plant/r-7/state", state, lambda: values_of(node) == {"robot_r_7.charge": 80.0, "speed": 1.2})
            await publishing(publish, "plant/r-7/state", '{"speed": -1}', lambda: why_unknown(node, "slow"))
            assert why_unknown(node, "slow") == "speed is unknown to the source plant: it says -1"
            await publishing(publish, "plant/r-7/state", state, lambda: "speed" in values_of(node))
            broker.stop()
        await soon(lambda: "connection to the broker ended" in finding(node).what or "cannot be reached" in finding(node).what)
        await soon(lambda: "is not told: the source plant is down" in str(why_unknown(node, "slow")))
        broker.start()
        with broker.publisher() as publish:
            await publishing(publish, "plant/r-7/state", state, lambda: values_of(node).get("speed") == 1.2)
        await soon(lambda: finding(node).level == "ok")
        publish_faults = node._runtime.sources[0].faults
        assert publish_faults == 0


@pytest.mark.processes
async def test_a_session_with_a_name_has_what_was_sent_in_between(broker: Broker) -> None:
    """With quality of service 1, over a restart of the node. A session without a name begins anew."""
    named = table(broker, topics=["a"], format="number", fields={"x": "value"}, client_id="node-a")
    plain = named | {"name": "plain", "fields": {"y": "value"}, "client_id": ""}
    async with node_with(named, plain) as node:
        with broker.publisher() as publish:
            await publishing(publish, "a", "1", lambda: values_of(node) == {"x": 1.0, "y": 1.0})
    with broker.publisher() as publish:
        publish("a", "2", 1).wait_for_publish(30)
    async with node_with(named, plain) as node:
        await soon(lambda: values_of(node) == {"x": 2.0})
        assert "y" not in values_of(node)


@pytest.mark.processes
async def test_what_cannot_be_decoded_is_counted_and_the_rest_counts(broker: Broker) -> None:
    async with node_with(table(broker, topics=["plant/#"], fields={"x": "x"})) as node:
        with broker.publisher() as publish:
            await publishing(publish, "plant/a", "no json", lambda: node._runtime.sources[0].faults)
            await publishing(publish, "plant/b", '{"x": 1}', lambda: values_of(node) == {"x": 1.0})
        assert finding(node).level == "ok"


@pytest.mark.processes
async def test_sparkplug_with_a_birth_data_and_a_death(broker: Broker) -> None:
    async with node_with(table(broker, topics=["spBv1.0/#"], format="sparkplug", prefix="")) as node:
        await node.add_constraint("cold", when="g_e_d_temp < 30.0")
        with broker.publisher() as publish:
            birth = payload(("temp", 7, 1, 20))
            await publishing(publish, "spBv1.0/g/DBIRTH/e/d", birth, lambda: values_of(node) == {"g_e_d_temp": 20.0})
            data = payload(("", 7, 0, 0xF0))
            await publishing(publish, "spBv1.0/g/DDATA/e/d", data, lambda: values_of(node) == {"g_e_d_temp": -16.0})
            publish("spBv1.0/g/NDEATH/e", payload(("bdSeq", None, 8, 0)))
            await soon(lambda: "g/e is dead" in str(why_unknown(node, "cold")))


@pytest.mark.processes
async def test_a_fleet_of_vda_5050(broker: Broker) -> None:
    topics = ["uagv/v2/+/+/state", "uagv/v2/+/+/connection"]
    fields = {"charge": "battery_percent", "x": "agvPosition.x"}
    async with node_with(table(broker, topics=topics, format="vda5050", fields=fields)) as node:
        await node.add_constraint("inside", when="x < 10.0")
        await node.add_constraint("charged", when="charge > 15.0")
        with broker.publisher() as publish:
            await publishing(publish, "uagv/v2/Acme/amr-1/state", STATE, lambda: values_of(node) == {"charge": 80.0})
            await soon(lambda: "the robot does not know its position" in str(why_unknown(node, "inside")))
            publish("uagv/v2/Acme/amr-1/connection", '{"connectionState": "CONNECTIONBROKEN"}')
            await soon(lambda: "its connection is CONNECTIONBROKEN" in str(why_unknown(node, "charged")))


def certificates(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a broker of a test")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.processes
async def test_tls_and_a_password(tmp_path: Path) -> None:
    certificate, key = certificates(tmp_path)
    key.chmod(0o644)  # mosquitto reads it as a user of its own
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    passwd = program("mosquitto_passwd", "mosquitto")
    passwords.write_text("")
    hashed = [passwd, "-b", str(passwords), "me", "hush"]
    await asyncio.to_thread(subprocess.run, hashed, check=True, capture_output=True)
    passwords.chmod(0o644)
    secret.write_text("hush\n")
    broker = Broker(tmp_path, f"certfile {certificate}", f"keyfile {key}", f"password_file {passwords}", "user root")
    broker.start()
    try:
        good = {"url": f"mqtts://127.0.0.1:{broker.port}", "topics": ["t"], "ca": str(certificate), "username": "me"}
        right = table(
            broker, **good | {"password_file": str(secret), "name": "right", "fields": {"x": "value"}, "format": "number"}
        )
        wrong = table(broker, **good | {"name": "wrong"})
        no_ca = table(broker, **{key: value for key, value in good.items() if key != "ca"} | {"name": "no_ca"})
        async with node_with(right, wrong, no_ca) as node:
            with broker.publisher(tls=str(certificate), login=("me", "hush")) as publish:
                await publishing(publish, "t", "4.5", lambda: values_of(node) == {"x": 4.5})
            await soon(lambda: "wrong (the broker refuses the connection: " in finding(node).what)
            await soon(lambda: "no_ca (the broker cannot be reached: " in finding(node).what)
            assert "right" not in finding(node).what
    finally:
        broker.stop()


@pytest.mark.processes
async def test_a_certificate_of_the_node(tmp_path: Path) -> None:
    """A broker that asks for one, and a node without."""
    certificate, key = certificates(tmp_path)
    key.chmod(0o644)
    broker = Broker(
        tmp_path, f"cafile {certificate}", f"certfile {certificate}", f"keyfile {key}", "require_certificate true", "user root",
        "allow_anonymous true",
    )  # fmt: skip
    broker.start()
    try:
        url = {"url": f"mqtts://127.0.0.1:{broker.port}", "topics": ["t"], "ca": str(certificate), "format": "number"}
        proof = {"certificate": str(certificate), "key": str(key)}
        own = table(broker, **url | proof | {"name": "own", "fields": {"x": "value"}})
        async with node_with(own, table(broker, **url | {"name": "none"})) as node:
            await soon(lambda: "none (" in finding(node).what)
            with broker.publisher(tls=str(certificate), proof=(str(certificate), str(key))) as publish:
                await publishing(publish, "t", "4.5", lambda: values_of(node) == {"x": 4.5})
            assert "none (" in finding(node).what
    finally:
        broker.stop()


def publish_packet(topic: str, content: bytes) -> bytes:
    """A PUBLISH packet of MQTT 3.1.1, of less than 128 bytes."""
    body = text(topic.encode()) + content
    return bytes([0x30, len(body)]) + body


@pytest.mark.long
@pytest.mark.processes
async def test_a_flood_is_bounded_and_its_last_value_counts(broker: Broker) -> None:
    """Values are dropped by the rule of the reader and counted; the memory that waits is that of one value a variable."""
    messages = 20_000
    connect = text(b"MQTT") + b"\x04\x02\x00\x3c" + text(b"flood")
    async with node_with(table(broker, topics=["flood/+"], format="number", fields={"x_{1}": "value"})) as node:
        [reader] = node._runtime.sources
        with broker.publisher() as publish:
            await publishing(publish, "flood/0", "1", lambda: values_of(node) == {"x_0": 1.0})
        calls = node._runtime.measurements.taken

        def flood() -> None:
            with socket.create_connection(("127.0.0.1", broker.port)) as link:
                link.sendall(bytes([0x10, len(connect)]) + connect)
                link.recv(4)
                for start in range(0, messages, 100):
                    numbers = range(start, start + 100)
                    link.sendall(b"".join(publish_packet(f"flood/{each % 5}", str(each).encode()) for each in numbers))
                    assert len(reader.intake._pending) <= 5
                link.sendall(b"\xe0\x00")

        await asyncio.to_thread(flood)
        with broker.publisher() as publish:
            await publishing(publish, "flood/0", "-1", lambda: values_of(node)["x_0"] == -1.0)
        # Each value is taken, or counted as dropped.
        await soon(lambda: reader.dropped + reader.values == reader.intake.messages)
        assert reader.dropped > 100
        assert node._runtime.measurements.taken - calls < reader.intake.messages / 10


@pytest.mark.processes
@pytest.mark.skipif(BUDGET != "nightly", reason="takes a minute, and a core that is free")
@pytest.mark.timeout(300)
async def test_50_000_values_a_second_for_a_minute() -> None:
    """Memory and the delay of the loop stay bounded, and each value is taken or counted: see `--check` of the benchmark."""
    program("mosquitto", "mosquitto")
    line = [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "sources.py"), "--check"]
    line += ["--alone"] if os.geteuid() == 0 else []
    done = await asyncio.to_thread(subprocess.run, line, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
