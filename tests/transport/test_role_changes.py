"""Nodes that choose their role by themselves, on Zenoh: they change it while they run, and no node is cut off meanwhile."""

from pathlib import Path

import pytest

from constraint_crdt.identity import Identity
from constraint_crdt.model import counted
from constraint_crdt.transport import Sought, Transport
from constraint_crdt.transport.zenoh import ZenohTransport
from tests.conftest import BUDGET
from tests.network.rows import nightly
from tests.runtime.fleet import eventually
from tests.security.fleets import FLEET, Fleet

from .seats import Network, Seat

pytestmark = pytest.mark.slow

ABOVE = 4


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for others, in nodes that have few."""
    if BUDGET != "nightly":
        monkeypatch.setattr("constraint_crdt.transport.zenoh.HANDOVER", 1.0)
        monkeypatch.setattr("constraint_crdt.transport.topology.SPREAD", 1.0)
        monkeypatch.setattr("constraint_crdt.transport.topology.SECOND_ROUTER", 2.0)


def transport(
    *seeds: Seat, role: str = "auto", listen: tuple[str, ...] | None = None, identity: Identity | None = None
) -> ZenohTransport:
    connect = [endpoint for seed in seeds for endpoint in seed.transport.endpoints]
    return ZenohTransport(role, listen=listen, connect=connect, routers=2, routers_above=ABOVE, identity=identity)


def zenoh_of(seat: Seat) -> ZenohTransport:
    found: Transport = seat.transport
    assert isinstance(found, ZenohTransport)
    return found


def role_of(seat: Seat) -> str:
    return zenoh_of(seat).standing.role


def tell(seats: list[Seat]) -> None:
    """What the state does in a node: each hears the endpoints and roles of the others."""
    for seat in seats:
        others = [other for other in seats if other is not seat and other.transport.endpoints]
        zenoh_of(seat).seek({other.me.name: Sought(other.transport.endpoints, role=_told(other)) for other in others})


def _told(seat: Seat) -> str:
    return "" if role_of(seat) == "peer" else role_of(seat)


async def with_roles(network: Network, nodes: int, plant: Fleet | None = None) -> list[Seat]:
    """A fleet beyond the size of one without routers, with its roles taken. `plant`: its nodes have identities of this fleet."""
    seats: list[Seat] = []
    for name in (f"n{number}" for number in range(nodes)):
        identity = None if plant is None else plant.identity(name)
        fleet = "fleet" if plant is None else FLEET
        seats.append(await network.join(name, fleet=fleet, transport=transport(*seats[:1], identity=identity)))

    def have_roles() -> bool:
        tell(seats)
        return sorted(map(role_of, seats)) == ["client"] * (nodes - 2) + ["router"] * 2

    await eventually(have_roles, 40)
    return seats


def all_see_all(seats: list[Seat]) -> bool:
    names = {seat.me.name for seat in seats}
    return all({peer.name for peer in seat.transport.peers()} == names - {seat.me.name} for seat in seats)


async def test_a_small_fleet_has_peers_only(zenoh: Network) -> None:
    seats = [await zenoh.join("n0", transport=transport())]
    seats += [await zenoh.join(f"n{number}", transport=transport(seats[0])) for number in range(1, ABOVE)]
    tell(seats)
    await eventually(lambda: all_see_all(seats))
    at_start = ("peer", "a fleet of up to 4 nodes")
    by_a_look = [("peer", f"{counted(seen, 'node')}: a fleet of up to 4 has no routers") for seen in range(1, ABOVE + 1)]
    assert {zenoh_of(each).standing[:2] for each in seats} <= {at_start, *by_a_look}


@pytest.mark.long
async def test_a_large_fleet_has_routers_and_clients_at_the_addresses_of_before(zenoh: Network) -> None:
    seats = await with_roles(zenoh, ABOVE + 2)
    await eventually(lambda: all_see_all(seats))
    routers = {seat.me.name for seat in seats if role_of(seat) == "router"}
    for seat in seats:
        assert set(zenoh_of(seat).standing.routers) <= routers
        assert await seat.ask(next(other for other in seats if other is not seat), b"x") == [b"x"]
    clients = [seat for seat in seats if role_of(seat) == "client"]
    assert all(zenoh_of(seat).links()[other.me.name] == "router" for seat in clients for other in clients if other is not seat)

    # A node that knows a client alone joins there, and goes on to the routers.
    late = await zenoh.join("late", transport=transport(clients[0]))
    await late.until(lambda: clients[0].me in late.transport.peers())
    seats.append(late)

    def is_client() -> bool:
        tell(seats)
        return role_of(late) == "client"

    await eventually(is_client, 30)
    await eventually(lambda: all_see_all(seats), 20)


@pytest.mark.long
async def test_a_node_that_starts_again_takes_its_role_from_the_store(zenoh: Network) -> None:
    seats = await with_roles(zenoh, ABOVE + 1)
    gone = next(seat for seat in seats if role_of(seat) == "client")
    await gone.transport.close()
    rest = [seat for seat in seats if seat is not gone]
    again = transport()
    again.seek({other.me.name: Sought(other.transport.endpoints, role=_told(other)) for other in rest})
    seat = await zenoh.join(gone.me.name, transport=again)
    assert again.standing.role == "client"
    await eventually(lambda: all_see_all([*rest, seat]), 20)
    await eventually(lambda: bool(again.endpoints))


async def test_a_node_whose_routers_are_gone_starts_as_a_peer(zenoh: Network) -> None:
    gone = await zenoh.join("gone")
    endpoints = gone.transport.endpoints
    await gone.transport.close()
    alone = transport()
    alone.seek({f"n{number}": Sought(endpoints, role="router") for number in range(ABOVE + 1)})
    await zenoh.join("alone", transport=alone)
    assert alone.standing[:2] == ("peer", "no router answers")
    assert alone.endpoints


async def test_a_set_role_stays(zenoh: Network) -> None:
    peer = await zenoh.join("peer", transport=transport(role="peer"))
    router = await zenoh.join("router", transport=transport(peer, role="router"))
    assert [zenoh_of(each).standing.why for each in (peer, router)] == ["by its settings"] * 2
    await eventually(lambda: zenoh_of(peer).standing.routers == ("router",))


@nightly
async def test_nodes_with_identities_change_their_roles_and_stay_protected(zenoh: Network, tmp_path: Path) -> None:
    seats = await with_roles(zenoh, ABOVE + 2, Fleet(tmp_path / "plant"))
    await eventually(lambda: all_see_all(seats), 20)
    assert all(endpoint.startswith("tls/") for seat in seats for endpoint in seat.transport.endpoints)
    for seat in seats:
        assert await seat.ask(next(other for other in seats if other is not seat), b"x") == [b"x"]

    # A router ends: its clients go on by the other one.
    gone = next(seat for seat in seats if role_of(seat) == "router")
    await gone.transport.close()
    rest = [seat for seat in seats if seat is not gone]
    await eventually(lambda: all_see_all(rest), 40)
    for seat in rest:
        assert await seat.ask(next(other for other in rest if other is not seat), b"x") == [b"x"]
