"""From a plain fleet to one with identities, node by node (docs/security.md)."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from constraint_crdt import Node
from constraint_crdt.runtime.settings import NodeSettings, SettingsError
from constraint_crdt.transport.zenoh import ZenohTransport
from tests.conftest import BUDGET
from tests.runtime.fleet import agreed, eventually
from tests.transport.seats import Network, Seat, all_see_all

from .fleets import FLEET, Attempts, Fleet


@pytest.fixture
def plant(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "plant")


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    made = Network("zenoh")
    yield made
    await asyncio.gather(*(seat.transport.close() for seat in made.seats))


async def join(
    network: Network, name: str, plant: Fleet | None = None, *, accept_plain: bool = False, seed: Seat | None = None
) -> Seat:
    transport = ZenohTransport(
        identity=plant.identity(name) if plant is not None else None,
        accept_plain=accept_plain,
        connect=seed.transport.endpoints if seed is not None else (),
    )
    return await network.join(name, fleet=FLEET, transport=transport)


def test_plain_nodes_are_accepted_by_nodes_with_an_identity_only() -> None:
    with pytest.raises(SettingsError, match="`accept_plain` is for a node with an identity: give it one"):
        NodeSettings(accept_plain=True)
    assert NodeSettings(accept_plain=True, identity="plant/forge").links == "mixed"


@pytest.mark.long
async def test_nodes_of_each_kind_link_to_one_that_accepts_both(network: Network, plant: Fleet) -> None:
    plain = await join(network, "plain")
    other = await join(network, "other", seed=plain)
    forge = await join(network, "forge", plant, accept_plain=True, seed=plain)
    anvil = await join(network, "anvil", plant, accept_plain=True, seed=plain)
    await all_see_all(plain, other, forge, anvil)
    for asker in (plain, forge):
        for asked in (plain, other, forge, anvil):
            if asker is not asked:
                assert await asker.ask(asked, b"x") == [b"x"]
    assert [up for peer, up in forge.changes if peer == anvil.me] == [True], "told once, although it has two tokens"
    lathe = await join(network, "lathe", plant, seed=forge)
    await lathe.sees(forge, anvil)
    await forge.sees(plain, other, anvil, lathe)
    assert await lathe.ask(anvil, b"x") == [b"x"]
    assert await anvil.ask(lathe, b"x") == [b"x"]
    await anvil.transport.close()
    await forge.sees(plain, other, lathe)
    assert [up for peer, up in forge.changes if peer == anvil.me] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["both", "plain"])
async def test_a_node_that_accepts_both_finds_a_seed_of_either_kind(network: Network, plant: Fleet, seeds: str) -> None:
    forge = await join(network, "forge", plant if seeds == "both" else None)
    anvil = await join(network, "anvil", plant, accept_plain=True, seed=forge)
    await all_see_all(forge, anvil)
    assert await forge.ask(anvil, b"x") == [b"x"]


class Changing:
    """A fleet whose nodes are started again with other settings, while programs count and add constraints on all of them."""

    def __init__(self, plant: Fleet, folder: Path, names: tuple[str, ...]) -> None:
        self.plant = plant
        self.folder = folder
        self.names = names
        self.running: dict[str, Node] = {}
        self.seed: tuple[str, ...] = ()
        self.counted = 0
        self.added: list[str] = []
        self.writing = asyncio.Lock()
        self.loaded = asyncio.Event()
        """The load ends."""

    async def start(self, name: str, **how: bool | str) -> None:
        """Start a node on its store. The first one is the seed of all others, always at the same port."""
        first = name == self.names[0]
        node = Node(
            settings=NodeSettings(
                name=name,
                fleet=FLEET,
                store=str(self.folder / f"{name}.db"),
                listen=self.seed if first else (),
                connect=() if first else self.seed,
                gossip_every=0.1,
                **how,  # type: ignore[arg-type]  # checked by the settings
            )
        )
        await node.start()
        if first and not self.seed:
            self.seed = node.status().endpoints
        self.running[name] = node

    async def replace(self, name: str, *, accept_plain: bool) -> None:
        """End a node, start it again with an identity, and wait until it is linked with all others."""
        async with self.writing:
            node = self.running.pop(name)
        await node.stop()
        await self.start(name, identity=str(self.plant.folder / name), accept_plain=accept_plain)
        await self.linked()

    async def linked(self) -> None:
        nodes = list(self.running.values())
        await eventually(lambda: all(node.status().peers == len(nodes) - 1 for node in nodes), 30)

    async def load(self) -> None:
        """Until `loaded` is set. No node is stopped within a write, so that all that is counted here was written."""
        for number in itertools.count():
            for name in list(self.running):
                async with self.writing:
                    node = self.running.get(name)
                    if node is not None:
                        await node.record(satisfied=1)
                        self.counted += 1
                    if node is not None and name == NAMES[-1] and number % 10 == 0:
                        await node.add_constraint(f"{name}-{number}")
                        self.added.append(f"{name}-{number}")
            if self.loaded.is_set():
                return
            await asyncio.sleep(0.01)

    async def takes_a_plain_node(self) -> bool:
        attempts = Attempts(self.seed[0])
        endpoint = (await attempts.open()).replace("tls/", "tcp/")
        async with Node(settings=NodeSettings(name="plain", fleet=FLEET, connect=(endpoint,))) as plain:
            refused = asyncio.create_task(attempts.ended(2))
            linked = asyncio.create_task(eventually(lambda: plain.status().peers == len(self.names)))
            await asyncio.wait([refused, linked], return_when=asyncio.FIRST_COMPLETED)
            taken = plain.status().peers > 0
            for task in (refused, linked):
                task.cancel()
        await attempts.close()
        return taken

    async def stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.running.values()))


NAMES = ("forge", "anvil", "lathe", "tongs") if BUDGET == "nightly" else ("forge", "anvil", "lathe")


@pytest.mark.long
async def test_a_plain_fleet_gets_identities_node_by_node_and_loses_nothing(
    plant: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All nodes are in one process here, in which Zenoh keeps the socket of a TLS handshake with the plain port of a node that has
    # ended since. Where a process ends, the handshake fails at once.
    monkeypatch.setattr("constraint_crdt.transport.zenoh_startup.LINK_OPEN_SECONDS", 2.0)
    fleet = Changing(plant, tmp_path, NAMES)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(fleet.stop)
        for name in NAMES:
            plant.certify(name, role="operator" if name == NAMES[-1] else "member")
            await fleet.start(name)
        await fleet.linked()
        load = asyncio.create_task(fleet.load())
        for name in NAMES:
            await fleet.replace(name, accept_plain=True)
        assert {node.status().links for node in fleet.running.values()} == {"mixed"}
        assert await fleet.takes_a_plain_node()
        for name in NAMES:
            await fleet.replace(name, accept_plain=False)
        fleet.loaded.set()
        await load
        plant.certify("blank", role="observer")
        await fleet.start("blank", identity=str(plant.folder / "blank"))
        nodes = list(fleet.running.values())
        await eventually(lambda: agreed(nodes), 30)
        assert {node.status().satisfied for node in nodes} == {fleet.counted}
        assert all(node.constraint_ids() == sorted(fleet.added) for node in nodes)
        assert {node.status().links for node in nodes} == {"certificates"}
        assert not await fleet.takes_a_plain_node()
