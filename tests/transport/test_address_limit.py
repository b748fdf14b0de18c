"""The limit of connections without a link per address: its filter, and what it counts. `tests/security` floods a node."""

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from constraint_crdt.transport.topology import (
    LONGEST_SHUT,
    MOST_SHUT,
    MOST_UNLINKED,
    SHUT_SECONDS,
    AddressLimit,
    Network,
    filter_program,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limit is there on Linux only")


@pytest.fixture
def limit() -> AddressLimit:
    return AddressLimit({7447}, lambda: linked)


linked: list[str] = []


class Connections:
    """What /proc says: so many connections of each address."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_address: dict[str, int] = {}
        monkeypatch.setattr("constraint_crdt.transport.topology._remote_addresses", lambda _: list(self._addresses()))

    def _addresses(self) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        for address, number in self.by_address.items():
            yield from [ipaddress.ip_address(address)] * number


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    linked.clear()
    return Connections(monkeypatch)


def shut(limit: AddressLimit) -> list[str]:
    return [str(network) for network in limit._shut]


def test_an_address_with_too_many_connections_is_shut_out_for_a_while(limit: AddressLimit, connections: Connections) -> None:
    connections.by_address = {"192.0.2.7": MOST_UNLINKED + 1, "192.0.2.8": MOST_UNLINKED, "2001:db8::5": MOST_UNLINKED + 1}
    limit.look(0.0)
    assert shut(limit) == ["192.0.2.7/32", "2001:db8::/64"]
    connections.by_address = {}
    limit.look(SHUT_SECONDS - 1)
    assert len(shut(limit)) == 2
    limit.look(SHUT_SECONDS)
    assert shut(limit) == []


def test_each_time_lasts_twice_as_long_up_to_a_bound(limit: AddressLimit, connections: Connections) -> None:
    connections.by_address = {"192.0.2.7": MOST_UNLINKED + 1}
    now = 0.0
    for turn in range(12):
        limit.look(now)
        (until,) = limit._shut.values()
        assert until - now == min(SHUT_SECONDS * 2**turn, LONGEST_SHUT)
        now = until


def test_addresses_with_a_link_and_this_machine_are_not_shut_out(limit: AddressLimit, connections: Connections) -> None:
    linked[:] = ["192.0.2.7", "::ffff:192.0.2.9", "no address"]
    connections.by_address = dict.fromkeys(("192.0.2.7", "192.0.2.9", "127.0.0.1", "::1", "::ffff:127.0.0.1"), 500)
    limit.look(0.0)
    assert shut(limit) == []


@pytest.mark.long
def test_the_number_of_addresses_shut_out_is_bounded(limit: AddressLimit, connections: Connections) -> None:
    connections.by_address = {f"198.51.{number // 256}.{number % 256}": 100 for number in range(300)}
    limit.look(0.0)
    assert len(shut(limit)) == len(limit._times) == MOST_SHUT
    assert len(filter_program(list(limit._shut))) // 8 < 4096, "the longest program that Linux takes"


def packet(address: str) -> bytes:
    """The part of a network header that the filter reads."""
    source = ipaddress.ip_address(address)
    return (
        b"\x45" + bytes(11) + source.packed + bytes(24) if source.version == 4 else b"\x60" + bytes(7) + source.packed + bytes(16)
    )


def passes(program: bytes, header: bytes) -> bool:
    """Run a program as the kernel does. Offsets are into the network header."""
    steps: list[tuple[int, int, int, int]] = [struct.unpack("=HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    at = value = 0
    while True:
        code, yes, no, operand = steps[at]
        at += 1
        place = operand - 0xFFF00000
        match code:
            case 0x30:
                value = header[place]
            case 0x20:
                value = int.from_bytes(header[place : place + 4], "big")
            case 0x74:
                value >>= operand
            case 0x15:
                at += yes if value == operand else no
            case 0x05:
                at += operand
            case 0x06:
                return bool(operand)


NETWORKS: list[Network] = [
    ipaddress.ip_network("192.0.2.7/32"),
    ipaddress.ip_network("2001:db8:0:1::/64"),
    ipaddress.ip_network("198.51.100.1/32"),
    ipaddress.ip_network("2001:db8:0:2::/64"),
]


@pytest.mark.parametrize(
    ("address", "taken"),
    [
        ("192.0.2.7", False),
        ("192.0.2.8", True),
        ("198.51.100.1", False),
        ("2001:db8:0:1::9", False),
        ("2001:db8:0:2:ffff::1", False),
        ("2001:db8:0:3::9", True),
        ("2001:db9:0:1::9", True),
    ],
)
def test_the_filter_drops_these_networks_alone(address: str, taken: bool) -> None:
    assert passes(filter_program(NETWORKS), packet(address)) == taken
    assert passes(filter_program([]), packet(address))
    assert passes(filter_program(NETWORKS[:1]), packet(address)) == (address != "192.0.2.7")


@pytest.mark.slow
def test_the_kernel_counts_and_drops_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback, taken for another machine."""
    monkeypatch.setattr(ipaddress.IPv4Address, "is_loopback", False)
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        port = listener.getsockname()[1]
        limit = AddressLimit({port}, list)
        held = [socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) for _ in range(MOST_UNLINKED + 1)]
        accepted = [listener.accept()[0] for _ in held]
        limit.look(0.0)
        assert shut(limit) == ["127.0.0.2/32"]
        with pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.1", port), timeout=0.3, source_address=("127.0.0.2", 0))
        with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=("127.0.0.3", 0)):
            accepted.append(listener.accept()[0])
        held[0].sendall(b"x")
        assert accepted[0].recv(1) == b"x", "connections from before go on"
        for each in (*held, *accepted):
            each.close()
        limit.look(SHUT_SECONDS)
        assert shut(limit) == []
        with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=("127.0.0.2", 0)):
            listener.accept()[0].close()
