"""Messages that arrive at a node with an identity: damaged, invented, repeated and in another's name. None does harm.

They go through the edge of the transport: first the tag of the message is checked (`Authenticator`), then the message. Two senders:

- A stranger or router without the keys of a session: every message falls at its tag, before it is decoded.
- A member with valid tags, whose messages are damaged: each is refused without an effect, or leaves a consistent state, in which
  every row is as its writer signed it.

A few thousand by default; 10,000,000 with CONSTRAINT_CRDT_BUDGET=nightly. CONSTRAINT_CRDT_SEED repeats a run: failures name theirs.
"""

import random
import resource
from functools import partial

import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, VectorClock, exchange
from constraint_crdt.identity.credentials import Authenticator
from constraint_crdt.protocol.messages import encode_message
from tests.conftest import BUDGET, SEED
from tests.protocol.test_mutations import DAMAGES, check_consistent

from .credentials import FastCredentials
from .fleets import FLEET, seeded

pytestmark = pytest.mark.slow

MESSAGES = 10_000_000 if BUDGET == "nightly" else 1_500
GROWTH = 128 * 1024 * 1024
"""Bytes that the process may grow by in a run."""

A, B = "a" * 24, "b" * 24


def node(name: str, incarnation: int) -> GossipNode:
    return GossipNode(
        name,
        incarnation=incarnation,
        fleet=FLEET,
        now=lambda: 10**18,
        renew=partial(next, iter(range(900, 10**6))),
        credentials=FastCredentials(name),
    )


def scene() -> tuple[GossipNode, GossipNode]:
    """A victim, and a peer that has news for it."""
    victim, peer = node("victim", 1), node("peer", 2)
    for number in range(8):
        victim.add_constraint(f"v{number}", when="x < 1.0")
        peer.add_constraint(f"p{number}", when="x < 2.0", severity="critical")
    peer.record(3, 1, constraint="p0")
    exchange(victim, peer)
    peer.remove_constraint("v0")
    peer.update_position((3, 1))
    peer.add_constraint("news")
    return victim, peer


def corpus() -> list[bytes]:
    """Messages that the victim would take."""
    victim, peer = scene()
    messages = [peer.ping("victim"), peer.ping(), peer.begin("victim"), peer.delta_since(VectorClock())]
    messages += peer.receive(victim.ping("peer")).responses
    return [encode_message(message) for message in messages]


CORPUS = corpus()


def sessions() -> tuple[Authenticator, Authenticator]:
    victim, peer = Authenticator(FLEET, "victim", A, seeded(1)), Authenticator(FLEET, "peer", B, seeded(2))
    assert victim.learn("peer", B, peer.public)
    assert peer.learn("victim", A, victim.public)
    return victim, peer


def memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_messages_without_a_valid_tag_are_not_decoded() -> None:
    draw = random.Random(SEED)
    victim, peer = sessions()
    before = memory()
    recorded = [(peer.sign(A, b"", payload)[0], payload) for payload in CORPUS]
    for header, payload in recorded:
        assert victim.verify(header, b"", payload) is not None
    for number in range(MESSAGES):
        header, payload = draw.choice(recorded)
        attachment = header
        match number % 4:
            case 0:  # altered
                payload = draw.choice(DAMAGES)(payload, draw)
            case 1:  # another tag, counter, name of a key, or length
                changed = bytearray(header)
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
                attachment = bytes(changed) + draw.randbytes(draw.choice((0, 0, 12, 40)))
            case 2:  # invented
                attachment, payload = draw.randbytes(draw.randrange(60)), draw.randbytes(draw.randrange(600))
            case _:  # repeated
                pass
        head, place = victim.split(attachment)
        assert victim.verify(head, place, payload) is None, f"seed {SEED}, message {number}"
    for payload in CORPUS:
        assert victim.verify(peer.sign(A, b"", payload)[0], b"", payload) is not None, "and the true ones go on"
    assert memory() - before < GROWTH


def test_damaged_messages_of_a_member_do_no_harm() -> None:
    draw = random.Random(SEED)
    (victim, peer), before = scene(), memory()
    receiver, sender = sessions()
    taken = refused = 0
    for number in range(MESSAGES):
        damage = draw.choice(DAMAGES)
        payload = damage(draw.choice(CORPUS), draw)
        header, _ = sender.sign(A, b"", payload)
        request = receiver.verify(header, b"", payload)
        assert request is not None
        where = f"seed {SEED}, message {number} ({damage.__name__}): {payload[:400].hex()}"
        state = victim.state_hash
        try:
            result = victim.hear(payload, request.name)[1]
        except ConstraintCrdtError:
            refused += 1
            assert victim.state_hash == state, where
            continue
        except Exception as error:
            pytest.fail(f"{error!r}; {where}")
        taken += 1
        if result.state_changed:
            assert set(victim.state.constraints) <= set(peer.state.constraints) | {"v0"}, where
            assert {replica.node_id for replica in victim.clock.as_dict()} == {"victim", "peer"}, where
            victim, _ = scene()
    assert min(taken, refused) > MESSAGES // 100
    exchange(victim, peer)
    assert victim.state_hash == peer.state_hash
    assert memory() - before < GROWTH
    check_consistent(victim)
