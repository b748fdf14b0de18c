"""Certificates of running nodes over months, by a clock that a test moves: renewal, rotation of the root, invitations."""

import argparse
import asyncio
import re
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.cli.membership import join as join_command
from constraint_crdt.cli.output import CommandFailedError
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.identity import DAY, SECOND, IdentityError, certify, create_key, fingerprint, key_pem
from constraint_crdt.identity.directory import (
    certify_again,
    certify_node,
    load_identity,
    load_issuer,
    open_root,
    rotate_root,
    save_certificate,
    write_file,
)
from constraint_crdt.identity.invitations import join, read_renewal, read_token, renewal_request
from constraint_crdt.operations.fleet import Revoking, show_revocation
from constraint_crdt.operations.service import Finding
from constraint_crdt.runtime import certificates
from constraint_crdt.runtime.change_feed import acting_as
from tests.runtime.fleet import QUICK, agreed, eventually

from .fleets import FLEET, Fleet, seeded

KEY = create_key(seeded(42))


class Fleets:
    """Nodes with identities on a network in memory, with one clock for all."""

    def __init__(self, folder: Path) -> None:
        self.plant = Fleet(folder / "plant")
        self.now = -(-self.plant.made_at // SECOND) * SECOND
        self.network = MemoryNetwork()
        self.stack = AsyncExitStack()
        self.nodes: dict[str, Node] = {}

    def folder(self, name: str, role: str) -> Path:
        return certify_node(
            self.plant.folder, open_root(self.plant.folder), name, role, now=self.now, random=self.plant.random
        )  # fmt: skip

    async def start(self, name: str, role: str = "member", folder: Path | None = None) -> Node:
        own = folder or self.folder(name, role)
        settings = msgspec.structs.replace(QUICK, name=name, fleet=FLEET, identity=str(own), join_listen="127.0.0.1:0")
        node = Node(settings=settings, transport=self.network.transport(), random=Random(1), now=lambda: self.now)
        self.nodes[name] = await self.stack.enter_async_context(node)
        await eventually(lambda: all(each.status().peers == len(self.nodes) - 1 for each in self.nodes.values()))
        return node

    async def stop(self, name: str) -> None:
        await self.nodes.pop(name).stop()

    async def after(self, time_: int) -> None:
        """Move the clock, and have each node look at its certificates."""
        self.now += time_
        for node in self.nodes.values():
            await node.certificates.look()


@pytest.fixture
async def fleets(tmp_path: Path) -> AsyncIterator[Fleets]:
    made = Fleets(tmp_path)
    async with made.stack:
        yield made


def findings(node: Node) -> dict[str, Finding]:
    return {each.check: each for each in node.diagnosis.look().findings}


def ends(node: Node) -> int:
    return node.certificates.identity.ends


# --- renewal --------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_certificates_renew_themselves_for_a_year_and_no_life_ends(fleets: Fleets) -> None:
    """Steps of two days, with a count on each: nothing is lost, and no certificate comes near its end."""
    await fleets.start("forge", "operator")
    lathe = await fleets.start("lathe")
    await eventually(lambda: "forge" in lathe.certificates.members())
    life, chains = lathe.gossip.replica, {lathe.certificates.identity.chain}
    for step in range(180):
        if step == 150:  # the issuing certificate is valid for a year
            certify_again(fleets.plant.folder, open_root(fleets.plant.folder), "forge", now=fleets.now, random=fleets.plant.random)
        await fleets.after(2 * DAY)
        chains.add(lathe.certificates.identity.chain)
        await lathe.record(satisfied=1)
        assert all(ends(node) - fleets.now > 7 * DAY for node in fleets.nodes.values())
    assert lathe.gossip.replica == life
    assert len(chains) > 12
    await eventually(lambda: agreed(list(fleets.nodes.values())))
    assert fleets.nodes["forge"].status().satisfied == 180
    assert load_identity(fleets.plant.folder / "lathe", fleets.now).chain == lathe.certificates.identity.chain


@pytest.mark.slow
async def test_no_certificate_is_renewed_early_unless_someone_asks(fleets: Fleets) -> None:
    await fleets.start("forge", "operator")
    lathe = await fleets.start("lathe")
    before = ends(lathe)
    await fleets.after(19 * DAY)
    assert ends(lathe) == before
    assert (await lathe.certificates.renew()).ends == ends(lathe) > before


@pytest.mark.slow
async def test_without_an_operator_the_node_says_so_and_tries_again(fleets: Fleets) -> None:
    forge = await fleets.start("forge", "operator")
    lathe = await fleets.start("lathe")
    await eventually(lambda: "forge" in lathe.certificates.members())
    await fleets.stop("forge")
    await fleets.after(21 * DAY)
    found = findings(lathe)["renewal"]
    assert (found.level, found.what) == ("warn", "the certificate is not renewed: no operator answers (forge)")
    assert "run `constraint-crdt fleet renew lathe`, and copy its files here" in found.advice
    with pytest.raises(IdentityError, match="the certificate of lathe could not be renewed: no operator answers"):
        await lathe.certificates.renew()
    before = ends(lathe)
    await fleets.after(SECOND)
    assert "renewal" in findings(lathe)
    await fleets.start("forge", "operator", Path(forge.settings.identity))
    await eventually(lambda: ends(lathe) > before)  # at once: the pause before a retry is not over
    await eventually(lambda: "renewal" not in findings(lathe))
    assert ends(lathe) - fleets.now == 30 * DAY


@pytest.mark.long
async def test_the_pause_of_a_retry_fits_the_time_for_which_both_roots_are_accepted(fleets: Fleets) -> None:
    forge, lathe = await fleets.start("forge", "operator"), await fleets.start("lathe")
    await eventually(lambda: "forge" in lathe.certificates.members())
    fleets.now += DAY
    rotate_root(fleets.plant.folder, both=3600 * SECOND, now=fleets.now, random=fleets.plant.random)
    await fleets.after(60 * SECOND)
    await eventually(lambda: agreed([forge, lathe]))
    await fleets.after(SECOND)
    await fleets.stop("forge")
    await fleets.after(15 * 60 * SECOND)
    for _ in range(20):  # without an operator
        await fleets.after(60 * SECOND)
    assert 0 < lathe.certificates._retry_at - fleets.now < 180 * SECOND
    await fleets.start("forge", "operator", Path(forge.settings.identity))
    await eventually(lambda: lathe.certificates.identity.root == lathe.certificates.identity.known[0])


@pytest.mark.slow
async def test_files_that_a_person_copied_are_used_without_a_restart(fleets: Fleets) -> None:
    lathe = await fleets.start("lathe")
    fleets.now += 22 * DAY
    certify_again(fleets.plant.folder, open_root(fleets.plant.folder), "lathe", now=fleets.now, random=fleets.plant.random)
    await fleets.after(0)
    assert ends(lathe) - fleets.now == 30 * DAY


@pytest.mark.long
async def test_an_operator_warns_of_the_end_of_its_issuing_certificate(fleets: Fleets) -> None:
    forge = await fleets.start("forge", "operator")
    assert "issuer" not in findings(forge)
    for _ in range(34):
        await fleets.after(10 * DAY)
    assert (
        "where the root is, run `constraint-crdt fleet renew forge`, and copy issuer.pem here" in findings(forge)["issuer"].advice
    )
    assert ends(forge) - fleets.now > 10 * DAY


@pytest.mark.slow
async def test_nodes_of_a_revoked_operator_get_certificates_of_another(fleets: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that its stolen issuing key makes later get none."""
    forge, anvil = [await fleets.start(name, "operator") for name in ("forge", "anvil")]
    lathe = await fleets.start("lathe")
    await eventually(lambda: len(lathe.certificates.members()) == 3)
    issuer = load_issuer(Path(forge.settings.identity), forge.certificates.identity)
    assert issuer is not None

    def stolen(name: str, key: Ed25519PrivateKey) -> Path:
        certificate = certify(issuer, name, "member", key.public_key(), now=fleets.now, random=fleets.plant.random)
        own = fleets.plant.folder / name
        own.mkdir(exist_ok=True)
        if not (own / "node.key").exists():
            write_file(own / "node.key", key_pem(key), secret=True)
        chain = certificate.public_bytes(Encoding.DER) + issuer.certificate.public_bytes(Encoding.DER)
        save_certificate(own, chain, roots=fleets.plant.root.pem)
        return own

    stolen("lathe", lathe.certificates.identity.key)  # as an invitation would have, before the theft
    await fleets.after(SECOND)
    assert lathe.certificates.identity.member.certified_by == "forge"
    members = [forge.certificates.identity.member, anvil.certificates.identity.member, lathe.certificates.identity.member]
    monkeypatch.setattr(anvil.certificates, "_members", lambda: members)  # over TLS, the proofs of the sessions show them
    first = await anvil.revoke("forge")
    assert (first.already, first.certified) == (False, ("lathe",))
    await eventually(lambda: lathe.certificates.identity.member.certified_by == "anvil")
    members.append(replace(lathe.certificates.identity.member, begins=fleets.now))
    again = await anvil.revoke("forge")
    assert (again.already, again.certified) == (True, ())
    monkeypatch.undo()
    assert show_revocation(again, Revoking(node="forge"), Namespace()) == [
        "forge is already revoked: its links have ended, and what it writes counts nowhere"
    ]
    await lathe.record(satisfied=1)
    await eventually(lambda: anvil.status().satisfied == 1)

    evil = load_identity(stolen("evil", KEY), fleets.now)
    (answer,) = anvil.certificates.answer(renewal_request(evil)) or []
    with pytest.raises(IdentityError, match="forge, which certified evil, is revoked: join again by an invitation"):
        read_renewal(answer, evil, fleets.now)


async def test_a_node_without_an_identity_says_so() -> None:
    async with Node(settings=QUICK, transport=MemoryNetwork().transport()) as node:
        with pytest.raises(ConstraintCrdtError, match="this node has no identity: make one by"):
            node.certificates.member_reports()


# --- rotation -------------------------------------------------------------------------------------------------------------------


def newest(node: Node) -> dict[str, bool]:
    return {each.node: each.newest_root for each in node.certificates.member_reports()}


@pytest.mark.slow
async def test_the_root_is_replaced_while_the_fleet_runs(fleets: Fleets) -> None:
    forge, lathe = await fleets.start("forge", "operator"), await fleets.start("lathe")
    both = [forge, lathe]
    await eventually(lambda: all(len(newest(node)) == 2 for node in both))
    lives = [node.gossip.replica for node in both]
    fleets.now += DAY
    rotate_root(fleets.plant.folder, both=8 * DAY, now=fleets.now, random=fleets.plant.random)
    await fleets.after(60 * SECOND)
    await eventually(lambda: agreed(both))
    await fleets.after(60 * SECOND)
    assert [len(node.certificates.identity.roots) for node in both] == [2, 2]
    assert set(newest(forge).values()) == {False}
    assert "the fleet has a new root, and these have certificates of the former one: forge, lathe" in findings(lathe)["root"].what

    await fleets.after(2 * DAY)
    assert lathe.certificates.identity.root == lathe.certificates.identity.known[0]
    assert forge.certificates.identity.root != forge.certificates.identity.known[0], "others may have been away until now"
    await fleets.after(4 * DAY)
    assert forge.certificates.identity.root == forge.certificates.identity.known[0]
    await fleets.after(2 * DAY)
    assert [len(node.certificates.identity.roots) for node in both] == [1, 1]
    assert [len(node.certificates.identity.known) for node in both] == [2, 2]
    assert [node.gossip.replica for node in both] == lives
    await lathe.record(satisfied=1)
    await eventually(lambda: forge.status().satisfied == 1 and agreed(both))


@pytest.mark.long
async def test_a_new_life_under_the_new_root_reaches_a_node_that_never_heard_of_it(fleets: Fleets) -> None:
    """The row and the statement that proves it come in one message."""
    await fleets.start("forge", "operator")
    await fleets.start("anvil")
    lathe = await fleets.start("lathe")
    await eventually(lambda: agreed(list(fleets.nodes.values())))
    fleets.network.cut(["lathe"], ["forge", "anvil"])
    others = [fleets.nodes["forge"], fleets.nodes["anvil"]]
    fleets.now += DAY
    rotate_root(fleets.plant.folder, both=8 * DAY, now=fleets.now, random=fleets.plant.random)
    for _ in range(3):
        fleets.now += 2 * DAY
        for node in others:
            await node.certificates.look()
        await eventually(lambda: len({node.gossip.state_hash for node in others}) == 1)
    folder = Path(fleets.nodes["anvil"].settings.identity)
    await fleets.stop("anvil")
    del fleets.nodes["lathe"]
    anvil = await fleets.start("anvil", folder=folder)
    fleets.nodes["lathe"] = lathe
    await anvil.record(satisfied=3)
    before = lathe.certificates.identity
    assert len(before.known) == 1
    fleets.network.heal()
    await eventually(lambda: lathe.status().satisfied == 3)
    assert len(lathe.certificates.identity.known) == 2
    await fleets.after(SECOND)
    assert len(load_identity(Path(lathe.settings.identity), fleets.now).roots) == 2


@pytest.mark.long
async def test_a_node_that_missed_a_rotation_joins_again_with_its_key_in_its_folder(
    fleets: Fleets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it heard of the new root or not. The folder of another fleet of the same name is left as it is."""
    monkeypatch.setattr("constraint_crdt.cli.membership.time", SimpleNamespace(time_ns=lambda: fleets.now))
    await fleets.start("forge", "operator")
    for name in ("lathe", "anvil"):
        await fleets.start(name)
    await eventually(lambda: len(fleets.nodes["forge"].certificates.members()) == 3)
    own = {name: Path(fleets.nodes[name].settings.identity) for name in ("lathe", "anvil")}
    await fleets.stop("lathe")
    rotate_root(fleets.plant.folder, both=3600 * SECOND, now=fleets.now, random=fleets.plant.random)
    await fleets.after(60 * SECOND)
    await eventually(lambda: agreed([fleets.nodes[name] for name in ("forge", "anvil")]))
    await fleets.after(SECOND)
    await fleets.stop("anvil")
    for _ in range(3):
        await fleets.after(1800 * SECOND)
    forge = fleets.nodes["forge"]
    assert len(forge.certificates.identity.roots) == 1
    assert forge.certificates.identity.root == forge.certificates.identity.known[0], "an operator renews by itself, also late"
    for name in ("lathe", "anvil"):
        key = (own[name] / "node.key").read_bytes()
        made = await forge.certificates.invite("member", "", 1, 3600.0)
        await asyncio.to_thread(join_as_a_command, made.token, own[name])
        assert (own[name] / "node.key").read_bytes() == key
        assert load_identity(own[name], fleets.now).subject.node == name
        node = await fleets.start(name, folder=own[name])
        await node.record(satisfied=1)
    await eventually(lambda: forge.status().satisfied == 2)
    other = Fleet(tmp_path / "other")
    mill = other.certify("mill")
    before = {file.name: file.read_bytes() for file in mill.iterdir()}
    made = await forge.certificates.invite("member", "", 1, 3600.0)
    with pytest.raises(CommandFailedError, match="and the invitation is of another fleet of this name: name a folder with"):
        await asyncio.to_thread(join_as_a_command, made.token, mill)
    assert {file.name: file.read_bytes() for file in mill.iterdir()} == before


@pytest.mark.slow
async def test_a_node_that_missed_a_rotation_names_the_cause(fleets: Fleets) -> None:
    lathe = await fleets.start("lathe")
    fleets.now += DAY
    rotate_root(fleets.plant.folder, both=DAY, now=fleets.now, random=fleets.plant.random)
    for file in ("ca.pem", "rotations.pem"):
        (Path(lathe.settings.identity) / file).write_bytes((fleets.plant.folder / file).read_bytes())
    await fleets.after(2 * DAY)
    found = findings(lathe)["renewal"]
    assert re.fullmatch(
        r"the fleet has a new root since .* UTC, and the root of this certificate is no longer accepted", found.what
    )
    assert "`constraint-crdt fleet invite --name lathe`" in found.advice
    assert f"--identity {lathe.settings.identity}: it keeps its key" in found.advice


@pytest.mark.slow
async def test_an_invitation_of_another_fleet_is_not_used(fleets: Fleets, tmp_path: Path) -> None:
    forge = await fleets.start("forge", "operator")
    made = await forge.certificates.invite("member", "", 1, 3600.0)
    with pytest.raises(CommandFailedError, match=f"the invitation is for the fleet {FLEET}, not for mill: ask for one of mill"):
        await asyncio.to_thread(join_as_a_command, made.token, tmp_path / "lathe", name="lathe", fleet="mill")
    assert [each.used for each in forge.certificates.invitations()] == [()]


def join_as_a_command(token: str, folder: Path, **flags: str) -> None:
    """Run `node --join` up to the start of the node."""
    given = {"name": None, "fleet": None, "listen": None, "connect": None} | flags
    join_command(argparse.Namespace(join=token, identity=str(folder), **given))


# --- invitations ----------------------------------------------------------------------------------------------------------------


async def joined(fleets: Fleets, token: str, name: str, seed: int = 42) -> str:
    admission = await join(read_token(token), name, create_key(seeded(seed)), lambda: fleets.now)
    return admission.member.role


@pytest.mark.slow
async def test_a_node_of_an_operator_invites_and_stops_listening_when_nobody_is_invited(fleets: Fleets) -> None:
    forge = await fleets.start("forge", "operator")
    made = await forge.certificates.invite("observer", "", 1, 3600.0)
    assert await joined(fleets, made.token, "lathe") == "observer"
    assert forge.certificates.invitations() == [], "it has no use left"
    assert forge.certificates.withdraw(made.id).id == made.id
    await fleets.after(0)
    with pytest.raises(IdentityError, match=r"no answer from the operator at 127.0.0.1:\d+"):
        await joined(fleets, made.token, "anvil", 43)


@pytest.mark.slow
async def test_the_audit_says_who_invited_and_who_joined(fleets: Fleets) -> None:
    forge = await fleets.start("forge", "operator")
    with acting_as("alice"):
        made = await forge.certificates.invite("member", "lathe", 1, 3600.0)
    await joined(fleets, made.token, "lathe")
    await joined(fleets, made.token, "lathe")  # the answer may have been lost
    forge.certificates.withdraw(made.id)
    fleets.now += DAY
    rotate_root(fleets.plant.folder, both=8 * DAY, now=fleets.now, random=fleets.plant.random)
    await fleets.after(0)
    told = [(each.operation, each.subject) for each in forge.audit()]
    assert told[:3] == [("invite", f"{made.id} lathe"), ("join", "lathe as member"), ("withdraw invitation", made.id)]
    assert told[3][0] == "rotate"
    assert [each.actor for each in forge.audit()[:2]] == ["alice", f"invitation {made.id}"]


@pytest.mark.slow
async def test_an_open_invitation_is_answered_at_the_same_address_after_a_restart(fleets: Fleets) -> None:
    forge = await fleets.start("forge", "operator")
    made = await forge.certificates.invite("member", "", 2, 3600.0)
    assert await joined(fleets, made.token, "lathe") == "member"
    await fleets.stop("forge")
    forge = await fleets.start("forge", folder=Path(forge.settings.identity))
    assert await joined(fleets, made.token, "anvil", 43) == "member"
    with pytest.raises(IdentityError, match="the invitation was used by lathe, anvil"):
        await joined(fleets, made.token, "mill", 44)


@pytest.mark.slow
async def test_the_name_of_another_key_is_taken_and_the_own_key_comes_back(fleets: Fleets) -> None:
    forge = await fleets.start("forge", "operator")
    lathe = await fleets.start("lathe")
    await eventually(lambda: "lathe" in forge.certificates.members())
    made = await forge.certificates.invite("member", "", 3, 3600.0)
    for name in ("lathe", "forge"):
        with pytest.raises(IdentityError, match=f"the name {name} is taken: join with --name OTHER"):
            await joined(fleets, made.token, name)
    own = lathe.certificates.identity.key
    assert (await join(read_token(made.token), "lathe", own, lambda: fleets.now)).member.node == "lathe"
    await fleets.stop("lathe")
    await eventually(lambda: not forge.status().peers)
    await forge.retire("lathe")
    with pytest.raises(IdentityError, match="the node lathe was retired, and its name is not used again"):
        await join(read_token(made.token), "lathe", own, lambda: fleets.now)


@pytest.mark.slow
async def test_the_name_of_a_revoked_node_is_free_for_a_new_key(fleets: Fleets) -> None:
    """And what it writes under the new key counts."""
    forge, lathe = await fleets.start("forge", "operator"), await fleets.start("lathe")
    await eventually(lambda: "lathe" in forge.certificates.members())
    stolen = lathe.certificates.identity.key
    await forge.revoke("lathe")
    await fleets.stop("lathe")
    made = await forge.certificates.invite("member", "", 1, 3600.0)
    with pytest.raises(IdentityError, match="the key of lathe is revoked: delete its folder of keys, and join again"):
        await join(read_token(made.token), "lathe", stolen, lambda: fleets.now)
    admission = await join(read_token(made.token), "lathe", KEY, lambda: fleets.now)
    own = fleets.plant.folder / "lathe"
    write_file(own / "node.key", key_pem(KEY), secret=True)
    save_certificate(own, admission.chain, roots=fleets.plant.root.pem)
    lathe = await fleets.start("lathe", folder=own)
    await lathe.record(satisfied=2)
    await eventually(lambda: forge.status().satisfied == 2)
    second = await forge.certificates.invite("member", "", 1, 3600.0)
    with pytest.raises(IdentityError, match="the name lathe is taken"):
        await joined(fleets, second.token, "lathe", 43)


@pytest.mark.slow
async def test_operators_that_certify_nobody_say_where_to_certify(fleets: Fleets) -> None:
    (fleets.plant.folder / "fleet.toml").write_text('operators_certify = "none"\n')
    forge, lathe = await fleets.start("forge", "operator"), await fleets.start("lathe")
    await eventually(lambda: "forge" in lathe.certificates.members())
    with pytest.raises(IdentityError, match="forge has no issuing certificate: either operators of this fleet certify no nodes"):
        await forge.certificates.invite("member", "", 1, 3600.0)
    with pytest.raises(IdentityError, match="the certificate of forge could not be renewed: forge has no issuing certificate"):
        await forge.certificates.renew()
    with pytest.raises(IdentityError, match=r"the certificate of lathe could not be renewed: no operator certifies \(forge\)"):
        await lathe.certificates.renew()


@pytest.mark.slow
async def test_an_operator_logs_invitations_and_who_joined(fleets: Fleets, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "constraint_crdt.node")
    forge = await fleets.start("forge", "operator")
    made = await forge.certificates.invite("member", "", 1, 3600.0)
    await joined(fleets, made.token, "lathe")
    with pytest.raises(IdentityError):
        await joined(fleets, made.token, "anvil", 43)
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert f"invitation {made.id} is open until " in told
    assert f"certified lathe as member, by the invitation {made.id}" in told
    assert "a connection to the join endpoint got no certificate, the last from 127.0.0.1: the invitation was used by lathe" in told


@pytest.mark.slow
async def test_a_node_that_certifies_nothing_says_who_does(fleets: Fleets) -> None:
    lathe = await fleets.start("lathe")
    with pytest.raises(IdentityError, match=r"lathe certifies no other nodes: ask a node of an operator \(--node URL\)"):
        await lathe.certificates.invite("member", "", 1, 3600.0)


@pytest.mark.slow
async def test_an_address_that_cannot_be_had_is_said(fleets: Fleets) -> None:
    taken = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    forge = await fleets.start("forge", "operator")
    forge.certificates._settings = msgspec.structs.replace(forge.settings, join_listen=f"127.0.0.1:{port}")
    with pytest.raises(IdentityError, match=f"the join endpoint cannot listen at 127.0.0.1:{port}: .*--join-listen"):
        await forge.certificates.invite("member", "", 1, 3600.0)
    taken.close()


@pytest.mark.slow
async def test_a_port_beside_the_usual_one_is_named(fleets: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
    monkeypatch.setattr(certificates, "JOIN_PORT", taken.sockets[0].getsockname()[1])
    forge = await fleets.start("forge", "operator")
    forge.certificates._settings = msgspec.structs.replace(forge.settings, join_listen="")
    made = await forge.certificates.invite("member", "", 1, 3600.0)
    port = read_token(made.token).addresses[0].rpartition(":")[2]
    assert f"nodes join at port {port}, as {certificates.JOIN_PORT} was taken: let it pass a firewall" in made.note
    taken.close()


@pytest.mark.slow
async def test_a_token_that_joins_during_a_rotation_learns_both_roots(fleets: Fleets) -> None:
    forge = await fleets.start("forge", "operator")
    fleets.now += DAY
    rotate_root(fleets.plant.folder, both=8 * DAY, now=fleets.now, random=fleets.plant.random)
    await fleets.after(60 * SECOND)
    made = await forge.certificates.invite("member", "", 1, 3600.0)
    admission = await join(read_token(made.token), "lathe", KEY, lambda: fleets.now)
    assert len(admission.roots) == 2
    assert admission.member.root == fingerprint(open_root(fleets.plant.folder).key.public_key())
