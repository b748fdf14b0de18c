"""Messages handed over as objects, within one process, say and do exactly what they do over the wire."""

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import GossipNode, Replica, VectorClock
from constraint_crdt.protocol.messages import Delta, GossipMessage, decode_message, encode_message

NODES = 4
Carry = Callable[[GossipMessage], GossipMessage]


def as_object(message: GossipMessage) -> GossipMessage:
    return message


def over_the_wire(message: GossipMessage) -> GossipMessage:
    return decode_message(encode_message(message), None)


def words(message: GossipMessage) -> object:
    """What a message says on the wire. The entries of a clock have no order, so none is left here."""
    return unordered(msgspec.msgpack.decode(encode_message(message)))


def unordered(part: object) -> object:
    return sorted(map(unordered, part), key=repr) if isinstance(part, list) else part


class Fleet:
    """Nodes whose messages are carried in one way, and everything that they said."""

    def __init__(self, carry: Carry) -> None:
        self.carry = carry
        self.said: list[object] = []
        renew = itertools.count(1_000).__next__
        self.nodes = [GossipNode(f"n{index}", incarnation=index + 1, renew=renew, now=lambda: 1) for index in range(NODES)]

    def exchange(self, a: GossipNode, b: GossipNode, lose: int) -> None:
        """`lose`: the message with this number is not delivered."""
        waiting = [(b, a.begin(b.node_id))]
        for number in range(30):
            if not waiting:
                return
            reader, message = waiting.pop(0)
            self.said.append(words(message))
            if number != lose:
                replies = reader.receive(self.carry(message)).responses
                waiting += [(a if reader is b else b, reply) for reply in replies]
        raise AssertionError("an exchange without end")


def write(fleet: Fleet, node: int, other: int) -> None:
    fleet.nodes[node].add_constraint(f"c{other}", about=f"n{node}")


def write_several(fleet: Fleet, node: int, other: int) -> None:
    for number in range(12):
        fleet.nodes[node].add_constraint(f"many-{node}-{other}-{number}")


def count(fleet: Fleet, node: int, other: int) -> None:
    fleet.nodes[node].record(other + 1, node)


def remove(fleet: Fleet, node: int, other: int) -> None:
    if f"c{other}" in fleet.nodes[node].state.constraints:
        fleet.nodes[node].remove_constraint(f"c{other}")


def collect(fleet: Fleet, node: int, _: int) -> None:
    fleet.nodes[node].collect()


def restart(fleet: Fleet, node: int, _: int) -> None:
    fleet.nodes[node].resume(50 + len(fleet.said), vouched=False)


def exchange(fleet: Fleet, node: int, other: int) -> None:
    if node != other:
        fleet.exchange(fleet.nodes[node], fleet.nodes[other], lose=-1)


def broken_exchange(fleet: Fleet, node: int, other: int) -> None:
    if node != other:
        fleet.exchange(fleet.nodes[node], fleet.nodes[other], lose=(node + other) % 3)


Step = Callable[[Fleet, int, int], None]
STEPS: list[Step] = [write, write_several, count, remove, collect, restart, exchange, exchange, exchange, broken_exchange]
nodes = st.integers(0, NODES - 1)


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(STEPS), nodes, nodes), max_size=25))
def test_both_ways_lead_to_the_same_words_and_states(history: list[tuple[Step, int, int]]) -> None:
    objects, wire = Fleet(as_object), Fleet(over_the_wire)
    for step, node, other in history:
        for fleet in (objects, wire):
            step(fleet, node, other)
        assert objects.said == wire.said
        assert [each.state_hash for each in objects.nodes] == [each.state_hash for each in wire.nodes]
        assert [each.clock for each in objects.nodes] == [each.clock for each in wire.nodes]
        assert [each.converged for each in objects.nodes] == [each.converged for each in wire.nodes]


def test_a_clock_that_does_not_fit_its_message_is_not_believed() -> None:
    a, b = Fleet(as_object).nodes[:2]
    a.add_constraint("x")
    b.add_constraint("y")
    b.add_constraint("z")
    delta = b.receive(a.begin("n1")).responses[0]
    assert isinstance(delta, Delta)
    said = msgspec.structs.replace(delta, clock=VectorClock({**b.clock.as_dict(), Replica("n3", 4): 7}))
    a.receive(said)
    assert a.tracker.clock("n1") == b.clock
