"""The endpoints of nodes: those that a node tells, and what others make of them."""

import asyncio
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from constraint_crdt.transport import TransportError, topology
from constraint_crdt.transport.topology import (
    ASKED_AFTER,
    ASKED_EVERY,
    DEAD_SECONDS,
    LONGEST_DEAD_SECONDS,
    MOST_ADDRESSES,
    MOST_KNOCKS,
    dead_seconds,
    ease_links,
    first_answering,
    local_connects,
    own_addresses,
    parse_endpoint,
    with_numeric_zone,
)
from tests.conftest import within


def interfaces(monkeypatch: pytest.MonkeyPatch, routed: Sequence[str], told: Mapping[str, Sequence[str]]) -> None:
    """A machine with these addresses at its interfaces; `routed`: those with a default route. The interface `off` is down."""

    def family(address: str) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in address else socket.AF_INET

    monkeypatch.setattr(topology, "_routed_addresses", lambda: list(routed))
    listed = {name: [SimpleNamespace(family=family(each), address=each) for each in has] for name, has in told.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: listed)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: {name: SimpleNamespace(isup=name != "off") for name in told})


@pytest.mark.parametrize(
    ("routed", "told", "found"),
    [
        (
            ("192.0.2.7",),
            {"lo": ("127.0.0.1", "::1"), "eth0": ("10.0.0.1", "192.0.2.7", "fe80::1%eth0")},
            ["192.0.2.7", "10.0.0.1"],
        ),
        ((), {"lo": ("127.0.0.1",), "eth0": ("10.0.0.1", "2001:db8::7")}, ["10.0.0.1", "2001:db8::7"]),
        ((), {"lo": ("127.0.0.1",), "eth0": ("fe80::1%eth0",)}, ["fe80::1%eth0"]),
        ((), {"lo": ("127.0.0.1", "::1")}, ["127.0.0.1", "::1"]),
        ((), {"lo": ("127.0.0.1",), "off": ("10.0.0.1",)}, ["127.0.0.1"]),
        ((), {}, ["127.0.0.1"]),
    ],
)
def test_a_machine_has_the_addresses_of_its_interfaces_the_best_first(
    monkeypatch: pytest.MonkeyPatch, routed: tuple[str, ...], told: dict[str, tuple[str, ...]], found: list[str]
) -> None:
    """The defect: `[::]` without a default route told others 127.0.0.1, though the machine had an address that they reach."""
    interfaces(monkeypatch, routed, told)
    assert own_addresses() == found


def test_a_machine_with_many_addresses_tells_some(monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces(monkeypatch, ["10.0.0.9"], {"eth0": [f"10.0.0.{number}" for number in range(1, 100)]})
    assert len(own_addresses()) == MOST_ADDRESSES
    assert own_addresses()[0] == "10.0.0.9"


def test_a_link_local_address_has_a_zone_and_zenoh_gets_its_number() -> None:
    number, name = socket.if_nameindex()[0]
    assert parse_endpoint("tcp/[fe80::1%eth0]:7447") == ("fe80::1%eth0", 7447)
    assert with_numeric_zone(f"tcp/[fe80::1%{name}]:7447") == f"tcp/[fe80::1%{number}]:7447"
    for same in ("tcp/[fe80::1%4]:7447", "tcp/[::1]:7447", "tls/host:1"):
        assert with_numeric_zone(same) == same
    with pytest.raises(TransportError, match="no interface nosuch0"):
        with_numeric_zone("tcp/[fe80::1%nosuch0]:7447")


@pytest.mark.parametrize(
    "endpoint", ["tcp/[fe80::1%]:1", "tcp/[fe80::1%a/b]:1", "tcp/[%eth0]:1", "tcp/host%eth0:1", "tcp/[::1]%lo:1"]
)
def test_a_malformed_zone_is_refused(endpoint: str) -> None:
    with pytest.raises(TransportError):
        parse_endpoint(endpoint)


def test_a_link_local_address_of_another_is_tried_at_each_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0"), (7, "wlan0")])
    found = local_connects(["tcp/[fe80::1%enp3s0]:7447", "tcp/[fe80::1]:7448"], [], [])
    assert found == tuple(f"tcp/[fe80::1%{number}]:{port}" for port in (7447, 7448) for number in (2, 7))


def test_a_node_on_this_machine_is_tried_at_loopback_too() -> None:
    listening = ["tcp/0.0.0.0:7447"]
    assert local_connects(["tls/10.0.0.1:7448"], ["10.0.0.1"], listening) == ("tls/10.0.0.1:7448", "tls/127.0.0.1:7448")
    assert local_connects(["tcp/10.0.0.2:7448"], ["10.0.0.1"], listening) == ("tcp/10.0.0.2:7448",)


def test_a_node_does_not_connect_to_itself() -> None:
    own = ["10.0.0.1", "2001:db8::7"]
    assert local_connects(["tcp/10.0.0.1:7447", "tcp/127.0.0.1:7447"], own, ["tcp/0.0.0.0:7447"]) == ()
    assert local_connects(["tcp/127.0.0.1:7447"], own, ["tcp/127.0.0.1:7447"]) == ()
    assert local_connects(["tcp/10.0.0.1:7447"], own, ["tcp/127.0.0.1:7447"]) == ("tcp/10.0.0.1:7447",), "another node is there"


def test_names_are_resolved_and_the_number_of_endpoints_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        if host != "forge":
            raise OSError("unknown")
        return [(socket.AF_INET, 1, 6, "", ("10.0.0.5", port)), (socket.AF_INET6, 1, 6, "", ("2001:db8::5", port, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert local_connects(["tcp/forge:1", "tcp/nobody:2"], [], []) == ("tcp/10.0.0.5:1", "tcp/[2001:db8::5]:1")
    assert len(local_connects([f"tcp/10.0.0.1:{port}" for port in range(1, 100)], [], [])) == MOST_ADDRESSES


def info(round_trip: float, repeated: int, sent: int) -> bytes:
    found = bytearray(144)
    for offset, value in ((68, round(round_trip * 1e6)), (100, repeated), (136, sent)):
        struct.pack_into("=I", found, offset, value)
    return bytes(found)


def test_a_dead_connection_is_closed_by_what_the_system_has_measured() -> None:
    assert dead_seconds(info(0.05, 0, 1000)) == DEAD_SECONDS
    assert dead_seconds(info(0.05, 50, 1000)) == DEAD_SECONDS, "a cut leaves as much"
    assert dead_seconds(info(0.05, 300, 1000)) == 2 * DEAD_SECONDS
    assert dead_seconds(info(3.0, 0, 10)) == 24.0
    assert dead_seconds(info(5.0, 500, 1000)) == LONGEST_DEAD_SECONDS
    assert dead_seconds(info(0.05, 3, 0)) == pytest.approx(DEAD_SECONDS * 12.8)
    assert dead_seconds(info(0.0, 0, 1)) == LONGEST_DEAD_SECONDS, "nothing was measured yet"
    assert dead_seconds(b"\0" * 100) == DEAD_SECONDS, "an old kernel tells less"


@pytest.mark.slow
async def test_the_first_endpoint_that_answers_is_found_also_if_it_answers_later(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    waiting = 0

    async def answers(endpoint: str) -> bool:
        nonlocal waiting
        asked.append(endpoint)
        if endpoint == "silent":
            waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                waiting -= 1
        return endpoint == "late" and asked.count("late") > 40

    monkeypatch.setattr(topology, "_answers", answers)
    assert await first_answering(["refused", "silent", "late"], 0.001) == "late"
    assert asked.count("silent") > 40
    await asyncio.sleep(0)
    assert waiting == 0, "no try goes on"


@pytest.mark.slow
async def test_tries_that_hang_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    most = waiting = begun = 0

    async def hang(_: str) -> bool:
        nonlocal most, waiting, begun
        waiting, begun = waiting + 1, begun + 1
        most = max(most, waiting)
        try:
            await asyncio.Event().wait()
        finally:
            waiting -= 1
        return True

    monkeypatch.setattr(topology, "_answers", hang)
    looking = asyncio.create_task(first_answering(["a", "b"], 0.001))
    async with asyncio.timeout(within(5.0)):
        while begun <= 2 * MOST_KNOCKS:  # noqa: ASYNC110 - tries of its own making
            await asyncio.sleep(0.01)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert most <= MOST_KNOCKS + 2


async def test_an_endpoint_answers_if_it_takes_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"tcp/127.0.0.1:{listener.getsockname()[1]}"
        assert await topology._answers(endpoint)
    assert not await topology._answers(endpoint)
    assert not await topology._answers("tcp/not-an-address.invalid:1")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the options of Zenoh")
def test_a_silent_link_is_asked_for_an_acknowledgement_and_other_connections_are_left_alone() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as link,
        socket.create_connection(listening.getsockname()) as other,
    ):
        ends = [f"tcp/{host}:{port}" for host, port in (link.getsockname(), link.getpeername())]
        ease_links([(ends[0], ends[1])])
        asked = [each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for each in (link, other)]
        assert asked == [1, 0]
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == ASKED_AFTER
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == ASKED_EVERY
        assert ASKED_AFTER + 2 * ASKED_EVERY >= DEAD_SECONDS, "what was asked for last is waited for"
