"""Links between nodes with identities, in each role of the transport; and what strangers get: nothing.

A stranger is a Zenoh session that does what it likes. Each test of one ends with two members that still see and answer each other,
and nothing else.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from secrets import token_bytes

import pytest

from constraint_crdt.identity import DAY, known_roots
from constraint_crdt.identity.credentials import Authenticator
from constraint_crdt.identity.directory import (
    certify_again,
    load_identity,
    load_issuer,
    read_rotations,
    rotate_root,
    save_certificate,
    save_rotations,
)
from constraint_crdt.identity.invitations import Invitations, Registrar, read_renewal, renewal_request
from constraint_crdt.insight.diagnosis import check_seeds
from constraint_crdt.transport import TransportError
from constraint_crdt.transport.zenoh import ZenohTransport
from constraint_crdt.transport.zenoh_startup import alive_key, node_key, proof_in
from tests.runtime.fleet import eventually
from tests.transport.seats import DEADLINE, Network, Seat, all_see_all

from .fleets import FLEET, Attempts, Fleet, Stranger

pytestmark = pytest.mark.slow


@pytest.fixture
def plant(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "plant")


class Members:
    """Transports with identities of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.network = Network("zenoh")

    async def join(
        self, name: str, role: str = "peer", connect: tuple[str, ...] = (), listen: tuple[str, ...] | None = None
    ) -> Seat:
        transport = ZenohTransport(role, listen=listen, connect=connect, identity=self.fleet.identity(name))
        return await self.network.join(name, fleet=FLEET, transport=transport)


@pytest.fixture
async def members(plant: Fleet) -> AsyncIterator[Members]:
    made = Members(plant)
    yield made
    await made.network.close()


async def test_peers_with_identities_find_and_answer_each_other(members: Members) -> None:
    forge = await members.join("forge")
    anvil = await members.join("anvil", connect=forge.transport.endpoints)
    lathe = await members.join("lathe", connect=forge.transport.endpoints)
    await all_see_all(forge, anvil, lathe)
    assert await anvil.ask(lathe, b"x") == [b"x"], "found by gossip, at an address that its certificate does not name"
    assert all(endpoint.startswith("tls/") for endpoint in forge.transport.endpoints)


async def test_clients_and_peers_agree_through_a_router(members: Members) -> None:
    router = await members.join("router", "router")
    client = await members.join("client", "client", router.transport.endpoints)
    other = await members.join("other", "client", router.transport.endpoints)
    peer = await members.join("peer", "peer", router.transport.endpoints)
    await all_see_all(router, client, other, peer)
    for asker, asked in ((client, other), (client, peer), (peer, client), (router, client), (client, router)):
        assert await asker.ask(asked, b"x") == [b"x"]


async def test_plain_endpoints_mean_tls(members: Members) -> None:
    forge = await members.join("forge", listen=("tcp/127.0.0.1:0",))
    anvil = await members.join("anvil", connect=tuple(each.replace("tls/", "tcp/") for each in forge.transport.endpoints))
    await all_see_all(forge, anvil)


async def test_a_reopened_transport_proves_its_new_session(members: Members) -> None:
    forge = await members.join("forge")
    anvil = await members.join("anvil", connect=forge.transport.endpoints)
    await all_see_all(forge, anvil)
    before = anvil.me
    anvil.me = await anvil.transport.reopen()
    await all_see_all(forge, anvil)
    assert anvil.me != before
    assert await forge.ask(anvil, b"x") == [b"x"]


async def test_an_identity_opens_only_its_own_name_and_fleet(plant: Fleet) -> None:
    network = Network("zenoh")
    for name, fleet in (("anvil", FLEET), ("forge", "other")):
        with pytest.raises(TransportError, match=f"the identity is of forge in the fleet plant, not of {name} in {fleet}"):
            await network.join(name, fleet=fleet, transport=ZenohTransport(identity=plant.identity("forge")))
    await network.close()


# --- strangers ------------------------------------------------------------------------------------------------------------------


def without_certificate(plant: Fleet, _: Path, endpoint: str) -> Stranger:
    tls = {"root_ca_certificate": str(plant.folder / "ca.pem"), "enable_mtls": False, "verify_name_on_connect": False}
    return Stranger(endpoint, identity=plant.identity("forge"), tls=tls)


def self_made(plant: Fleet, other: Path, endpoint: str) -> Stranger:
    """Of a root of its own, with the names of this fleet. It takes any certificate itself: it trusts the root of the fleet."""
    made = Fleet(other, FLEET)
    return Stranger(endpoint, identity=made.identity("forge"), tls=tls_files(plant, made.certify("forge")))


def of_another_fleet(plant: Fleet, other: Path, endpoint: str) -> Stranger:
    made = Fleet(other, "factory")
    return Stranger(endpoint, identity=made.identity("forge"), tls=tls_files(plant, made.certify("forge")))


def expired(plant: Fleet, _: Path, endpoint: str) -> Stranger:
    return Stranger(endpoint, identity=plant.identity("old", valid=DAY), tls=tls_files(plant, plant.folder / "old"))


def over_plain_tcp(_: Fleet, __: Path, endpoint: str) -> Stranger:
    return Stranger(endpoint, identity=None)


def tls_files(plant: Fleet, folder: Path) -> dict[str, object]:
    """The certificates in a folder, beside the trust in the root of the fleet."""
    key, certificate = str(folder / "node.key"), str(folder / "node.pem")
    shown = {f"{side}_private_key": key for side in ("listen", "connect")}
    shown |= {f"{side}_certificate": certificate for side in ("listen", "connect")}
    return {"root_ca_certificate": str(plant.folder / "ca.pem"), "enable_mtls": True, "verify_name_on_connect": False, **shown}


@pytest.fixture
def plant_of_last_month(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "plant", age=20 * 86_400)


@pytest.mark.long(by_day=["of_another_fleet-peer", "over_plain_tcp-peer"])
@pytest.mark.parametrize("role", ["peer", "router"])
@pytest.mark.parametrize("stranger", [without_certificate, self_made, of_another_fleet, expired, over_plain_tcp])
async def test_a_stranger_gets_nothing(
    plant_of_last_month: Fleet, tmp_path: Path, role: str, stranger: Callable[[Fleet, Path, str], Stranger]
) -> None:
    members = Members(plant_of_last_month)
    forge = await members.join("forge", role)
    endpoint = forge.transport.endpoints[0]
    attempts = Attempts(endpoint)
    intruder = await asyncio.to_thread(stranger, plant_of_last_month, tmp_path / "other", await attempts.open())
    try:
        token = intruder.raw.liveliness().declare_token(alive_key(FLEET, forge.me))
        await attempts.ended(3)
        assert await asyncio.to_thread(intruder.ask, node_key(FLEET, forge.me, proven=True)) == []
        assert await asyncio.to_thread(intruder.tokens) == [alive_key(FLEET, forge.me)], "its own token alone"
        assert intruder.links() == 0
        anvil = await members.join("anvil", connect=(endpoint,))
        await all_see_all(forge, anvil)
        assert await forge.ask(anvil, b"x") == [b"x"]
        assert [peer.name for peer, _ in forge.changes] == ["anvil"], "nothing of the stranger was told"
        token.undeclare()  # type: ignore[no-untyped-call]  # the stub leaves the return type out
    finally:
        await asyncio.to_thread(intruder.close)
        await attempts.close()
        await members.network.close()


@pytest.mark.long
@pytest.mark.parametrize("role", ["peer", "router"])
async def test_strangers_do_not_keep_members_from_linking(members: Members, role: str) -> None:
    """150 connections that say nothing, 50 that say anything, and 200 tokens of a session without a certificate."""
    forge = await members.join("forge", role)
    (endpoint,) = forge.transport.endpoints
    attempts = Attempts(endpoint)
    stranger = await asyncio.to_thread(without_certificate, members.fleet, Path(), await attempts.open())
    port = int(endpoint.rpartition(":")[2])
    writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(200)]
    random = Random(7)
    for writer in writers[:50]:
        writer.write(random.randbytes(2000))
    try:
        names = [forge.me._replace(name=f"n{number}") for number in range(200)]
        tokens = [stranger.raw.liveliness().declare_token(alive_key(FLEET, name)) for name in names]
        await attempts.ended(2)
        anvil = await members.join("anvil", connect=(endpoint,))
        await all_see_all(forge, anvil)
        assert await anvil.ask(forge, b"x") == [b"x"]
        assert [peer.name for peer, _ in forge.changes] == ["anvil"]
        assert len(tokens) == 200
    finally:
        for writer in writers:
            writer.close()
        await asyncio.to_thread(stranger.close)
        await attempts.close()


async def test_with_a_certificate_such_a_session_gets_an_answer(members: Members) -> None:
    """So the strangers fail for their certificates, and for nothing else. Without a tag it gets none."""
    forge = await members.join("forge")
    identity = members.fleet.identity("guest")
    tls = tls_files(members.fleet, members.fleet.folder / "guest")
    guest = await asyncio.to_thread(Stranger, forge.transport.endpoints[0], identity=identity, tls=tls)
    peer = forge.me._replace(name="guest", session="f" * 24)
    try:
        authenticator = Authenticator(FLEET, *peer, token_bytes)
        proof = identity.prove(peer.session, authenticator.public)
        token = guest.raw.liveliness().declare_token(alive_key(FLEET, peer, proof))
        await forge.sees_names("guest")
        found: list[str] = []
        while not found:  # the token of forge may come after it saw the guest
            found = [key for key in await asyncio.to_thread(guest.tokens) if key.startswith(alive_key(FLEET, forge.me))]
        (told,) = found
        assert authenticator.learn(*forge.me, identity.proves(proof_in(told), *forge.me, time.time_ns()) or b"")
        where = node_key(FLEET, forge.me, proven=True)
        header, _ = authenticator.sign(forge.me.session, b"", b"x")
        assert await asyncio.to_thread(guest.ask, where, payload=b"x", attachment=header) == [b"x"]
        for bad in (None, header, header[:-1] + b"\0", header + b"\0" * 12):
            assert await asyncio.to_thread(guest.ask, where, payload=b"x", attachment=bad) == []
        assert forge.transport.refused == 4
        token.undeclare()  # type: ignore[no-untyped-call]  # the stub leaves the return type out
    finally:
        await asyncio.to_thread(guest.close)


@pytest.mark.parametrize("role", ["peer", "router"])
async def test_a_member_cannot_take_the_name_of_another(members: Members, role: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of its tokens on one link, those in the name of a live node are ignored everywhere, and the true one is not."""
    forge = await members.join("forge", role)
    watcher = await members.join("watcher", "client" if role == "router" else "peer", forge.transport.endpoints)
    await all_see_all(forge, watcher)
    anvil = members.fleet.identity("anvil")
    liar = await asyncio.to_thread(Stranger, forge.transport.endpoints[0], identity=anvil)
    later, true = forge.me._replace(session="f" * 24), forge.me._replace(name="anvil", session="e" * 24)
    try:
        held = [
            liar.raw.liveliness().declare_token(alive_key(FLEET, peer, proof))
            for peer, proof in (
                (later, anvil.prove(later.session, bytes(range(32)))),
                (later, "x"),
                (true, anvil.prove(true.session, bytes(range(32)))),
            )
        ]
        await forge.sees_names("anvil", "watcher")
        await watcher.sees_names("anvil", "forge")
        # Tokens declared before the link is up come in any order: the false ones may come last.
        await eventually(lambda: sum("calls itself forge" in each.getMessage() for each in caplog.records) >= 2)
        assert all(peer.name != "forge" for peer, _ in forge.changes)
        assert [peer for peer, _ in watcher.changes if peer.name == "forge"] == [forge.me]
        assert sum("calls itself forge" in each.getMessage() for each in caplog.records) == 2, "once on each node"
        assert len(held) == 3
    finally:
        await asyncio.to_thread(liar.close)


async def test_the_end_of_a_false_token_unlists_nobody(members: Members) -> None:
    """The defect: the end of any token of a session unlisted the session, whoever had declared the token."""
    forge = await members.join("forge")
    anvil = await members.join("anvil", connect=forge.transport.endpoints)
    await all_see_all(forge, anvil)
    guest = members.fleet.identity("guest")
    liar = await asyncio.to_thread(Stranger, forge.transport.endpoints[0], identity=guest)
    try:
        last = anvil.me._replace(name="guest", session="e" * 24)
        own = liar.raw.liveliness().declare_token(alive_key(FLEET, last, guest.prove(last.session, bytes(range(32)))))
        await forge.sees_names("anvil", "guest")
        true: list[str] = []
        async with asyncio.timeout(DEADLINE):
            while not true:  # a link of its own to anvil comes by gossip
                true = [key for key in await asyncio.to_thread(liar.tokens, 0.1) if "/anvil/" in key]
        for token in [liar.raw.liveliness().declare_token(key) for key in (alive_key(FLEET, anvil.me, "x"), *true)] + [own]:
            token.undeclare()  # type: ignore[no-untyped-call]  # the stub leaves the return type out
        await forge.until(lambda: (last, False) in forge.changes)
        assert (anvil.me, False) not in forge.changes
        assert await forge.ask(anvil, b"x") == [b"x"]
    finally:
        await asyncio.to_thread(liar.close)


async def test_a_node_without_an_identity_does_not_see_those_with_one(members: Members) -> None:
    """Nor do they see it: the keys differ."""
    forge = await members.join("forge")
    plain = await Network("zenoh").join("plain", fleet=FLEET, transport=ZenohTransport(connect=tuple(
        each.replace("tls/", "tcp/") for each in forge.transport.endpoints
    )))  # fmt: skip
    anvil = await members.join("anvil", connect=forge.transport.endpoints)
    await all_see_all(forge, anvil)
    assert plain.changes == []
    await plain.transport.close()


# --- refusals are told ----------------------------------------------------------------------------------------------------------


async def test_the_refused_node_says_why(members: Members, tmp_path: Path) -> None:
    forge = await members.join("forge")
    (endpoint,) = forge.transport.endpoints

    async def said(identity: Path) -> str:
        return (await asyncio.to_thread(check_seeds, [endpoint], str(identity))).what

    assert await said(members.fleet.certify("anvil")) == f"{endpoint} answers"
    assert "its certificate is of another fleet" in await said(Fleet(tmp_path / "other").certify("anvil"))
    assert "there is no identity" in await said(tmp_path) or "cannot use the identity" in await said(tmp_path)
    foreign = Fleet(tmp_path / "factory", "factory").certify("anvil")
    (foreign / "ca.pem").write_bytes((members.fleet.folder / "ca.pem").read_bytes())
    assert "it is of another fleet, and refuses the certificate of this node" in await said(foreign)


async def test_an_expired_certificate_is_told_as_such(plant_of_last_month: Fleet) -> None:
    members = Members(plant_of_last_month)
    forge = await members.join("forge")
    old = plant_of_last_month.certify("old", valid=DAY)
    finding = await asyncio.to_thread(check_seeds, forge.transport.endpoints, str(old))
    assert "it refuses the certificate of this node as ended: compare the clocks" in finding.what
    await members.network.close()


@pytest.mark.long
async def test_a_seed_without_an_identity_is_told_as_such(plant: Fleet) -> None:
    network = Network("zenoh")
    plain = await network.join("plain")
    finding = await asyncio.to_thread(check_seeds, plain.transport.endpoints, str(plant.certify("anvil")))
    assert "it has no identity" in finding.what
    assert finding.level == "fail"
    await network.close()


@pytest.mark.long
async def test_a_link_ends_with_its_certificate(tmp_path: Path) -> None:
    plant = Fleet(tmp_path / "plant")
    members = Members(plant)
    forge = await members.join("forge")
    identity = load_identity(plant.certify("brief", valid=time.time_ns() - plant.made_at + 3 * 10**9), plant.made_at)
    brief = await members.network.join("brief", fleet=FLEET, transport=ZenohTransport(
        connect=forge.transport.endpoints, identity=identity,
    ))  # fmt: skip
    await all_see_all(forge, brief)
    await all_see_all(forge)
    assert [up for peer, up in forge.changes if peer == brief.me] == [True, False]
    await members.network.close()


# --- certificates of operators, and roots that follow each other ---------------------------------------------------------------


async def test_a_certificate_of_an_operator_links_and_a_renewed_one_replaces_it(plant: Fleet) -> None:
    """The session is opened again; the name, and whom it sees, stay."""
    network = Network("zenoh")
    forge_identity = plant.identity("forge")
    anvil_folder = plant.certify("anvil", role="member")
    issuer = load_issuer(plant.folder / "forge", forge_identity)
    assert issuer is not None
    registrar = Registrar(
        issuer, Invitations(anvil_folder / "invitations.json"),
        refusal=lambda *_: None, is_revoked=lambda _: False, is_known=lambda _: False,
        fleet=lambda: ((), ()), admitted=lambda *_: None, random=plant.random,
    )  # fmt: skip
    now = time.time_ns()
    try:
        listening = ZenohTransport(identity=forge_identity)
        forge = await network.join("forge", fleet=FLEET, transport=listening)
        before = load_identity(anvil_folder, now)
        transport = ZenohTransport(connect=forge.transport.endpoints, identity=before)
        anvil = await network.join("anvil", fleet=FLEET, transport=transport)
        await all_see_all(forge, anvil)
        chain = read_renewal(registrar.renew(renewal_request(before), before.roots, now), before, now)
        save_certificate(anvil_folder, chain, before)
        anvil.me = await transport.renew(load_identity(anvil_folder, now))
        await all_see_all(forge, anvil)
        assert await forge.ask(anvil, b"x") == [b"x"]
        assert [forge_identity.member_in(proof).certified_by for proof in listening.proofs.values()] == ["forge"]
    finally:
        await network.close()


async def test_nodes_of_two_roots_link_while_both_are_accepted(plant: Fleet) -> None:
    network = Network("zenoh")
    for name in ("forge", "anvil"):
        plant.certify(name, role="member")
    old = plant.folder / "forge"
    root, _ = rotate_root(plant.folder, both=DAY, now=time.time_ns(), random=plant.random)
    statements = read_rotations(plant.folder)
    save_rotations(old, statements, known_roots(load_identity(old, time.time_ns()).known, statements))
    new, _ = certify_again(plant.folder, root, "anvil", now=time.time_ns(), random=plant.random)
    identities = [load_identity(folder, time.time_ns()) for folder in (old, new)]
    assert identities[0].root.public_key() != identities[1].root.public_key()
    try:
        forge = await network.join("forge", fleet=FLEET, transport=ZenohTransport(identity=identities[0]))
        transport = ZenohTransport(connect=forge.transport.endpoints, identity=identities[1])
        await all_see_all(forge, await network.join("anvil", fleet=FLEET, transport=transport))
        later = load_identity(new, time.time_ns() + 2 * DAY)
        assert len(later.roots) == 1, "a node of the former root is a stranger then"
    finally:
        await network.close()
