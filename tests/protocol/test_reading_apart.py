"""A large message is read and encoded apart from the node: the same comes of it, and the node notices nothing of it before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from constraint_crdt import ConstraintCrdtError, GossipNode, VectorClock
from constraint_crdt.protocol import exchange_rules, gossip_node
from constraint_crdt.protocol.messages import Part, decode_message, encode_message
from constraint_crdt.protocol.transfers import split_message
from constraint_crdt.types.definition import ADD


@pytest.fixture(autouse=True, scope="module")
def _all_apart() -> object:
    """Every message counts as large, and few cells as many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange_rules, "READ_APART", 0)
        patch.setattr(exchange_rules, "READ_AT_ONCE", 3)
        patch.setattr(gossip_node, "ENCODED_APART", 0)
        yield


def full(adds: int, counts: int, removed: int) -> GossipNode:
    node = GossipNode("full", incarnation=5)
    for number in range(adds):
        node.add_constraint(f"c{number}", when="x < 1.0")
    node.record_all({f"c{number}": (number, 1) for number in range(counts)})
    for number in range(min(removed, adds)):
        node.remove_constraint(f"c{number}")
    return node


def take(reader: GossipNode, part: Part, *, apart: bool) -> list[Part]:
    work = reader.reading(part) if apart else None
    before = reader.state_hash
    if work is not None:
        reader.keep_read(work())
    assert reader.state_hash == before, "nothing is applied yet"
    return [each for each in reader.receive(part).responses if isinstance(each, Part)]


@pytest.mark.slow
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5), st.integers(0, 10), st.integers(150, 2000), st.booleans())
def test_the_same_comes_of_a_message_read_apart(adds: int, counts: int, removed: int, own: int, size: int, known: bool) -> None:
    source = full(adds, counts, removed)
    readers = [GossipNode("reader", incarnation=6) for _ in range(2)]
    for reader in readers:
        for number in range(own):
            reader.add_constraint(f"own {number}")
        if known:
            reader.receive(source.delta_since(VectorClock()))
    source.add_constraint("later")
    message = source.delta_since(VectorClock())
    parts = [each for each in split_message(message, size) if isinstance(each, Part)]
    for part in parts:
        for reader, apart in zip(readers, (True, False), strict=True):
            take(reader, part, apart=apart)
    assert readers[0].state_hash == readers[1].state_hash
    assert readers[0].state == readers[1].state
    for reader in readers:
        if parts:
            assert "later" in reader.state.constraints
        assert len(reader.state.rows) == sum(1 for kind in reader.state.rows._tables for _ in reader.state.rows.each(kind))
        assert [cell.seq for cell in reader.state.rows.above(source.replica, 0)] == [
            cell.seq
            for cell in (source.state.rows.above(source.replica, 0) if parts else reader.state.rows.above(source.replica, 0))
        ]


def test_a_part_that_does_not_complete_a_message_is_not_read() -> None:
    source, reader = full(200, 0, 0), GossipNode("reader", incarnation=6)
    parts = [each for each in split_message(source.delta_since(VectorClock()), 300) if isinstance(each, Part)]
    assert len(parts) > 2
    for part in parts[1:]:
        assert reader.reading(part) is None
        reader.receive(part)
    assert reader.reading(parts[1]) is None, "it came before"
    assert reader.reading(replace(parts[0], transfer=bytes(8))) is None, "of another transfer"
    assert reader.reading(parts[0]) is not None
    assert reader.reading(source.ping()) is None


def test_what_was_read_of_another_message_is_not_used() -> None:
    one, other = full(60, 0, 0), full(70, 0, 0)
    wrapped = []
    for each in (one, other):
        data = encode_message(each.delta_since(VectorClock()))
        wrapped.append(Part(node=each.replica, transfer=b"transfer", index=0, count=1, size=len(data), chunk=data))
    reader = GossipNode("reader", incarnation=6)
    work = reader.reading(wrapped[0])
    assert work is not None
    reader.keep_read(work())
    reader.receive(wrapped[1])
    assert len(reader.state.constraints) == 70


def test_a_table_made_apart_is_not_used_once_the_node_has_such_cells() -> None:
    source, reader = full(40, 0, 0), GossipNode("reader", incarnation=6)
    data = encode_message(source.delta_since(VectorClock()))
    part = Part(node=source.replica, transfer=b"transfer", index=0, count=1, size=len(data), chunk=data)
    work = reader.reading(part)
    assert work is not None
    read = work()
    reader.add_constraint("meanwhile")
    reader.keep_read(read)
    reader.receive(part)
    assert len(reader.state.constraints) == 41
    reader.remove_constraint("c7")
    assert reader.state.rows.held(ADD, "c7") == ()


def test_a_table_made_apart_becomes_that_of_a_blank_node() -> None:
    source, reader = full(40, 0, 0), GossipNode("reader", incarnation=6)
    data = encode_message(source.delta_since(VectorClock()))
    part = Part(node=source.replica, transfer=b"transfer", index=0, count=1, size=len(data), chunk=data)
    work = reader.reading(part)
    assert work is not None
    read = work()
    table = read.result().delta.tables[ADD]  # type: ignore[attr-defined]
    reader.keep_read(read)
    reader.receive(part)
    assert len(table) == 40
    assert reader.state.rows.table(ADD) is table
    assert reader.state_hash == source.state_hash
    assert reader.reading(part)().result().delta.tables == {}, "it has such cells now"  # type: ignore[misc, union-attr]


def test_a_malformed_message_is_refused_as_without() -> None:
    content = b"\x96\x12" * 3000
    part = Part(node=GossipNode("p", incarnation=2).replica, transfer=bytes(8), index=0, count=1, size=len(content), chunk=content)
    sentences = []
    for apart in (True, False):
        reader = GossipNode("reader", incarnation=6)
        with pytest.raises(ConstraintCrdtError) as refused:
            take(reader, part, apart=apart)
        sentences.append(str(refused.value))
        assert reader.state_hash == GossipNode("blank", incarnation=6).state_hash
    assert sentences[0] == sentences[1]


@pytest.mark.slow
@given(st.integers(0, 40), st.integers(100, 5000))
def test_a_message_encoded_apart_is_the_same_on_the_wire(adds: int, size: int) -> None:
    source = full(adds, adds, 0)
    source.receive(GossipNode("reader", incarnation=6).ping())
    message = source.delta_since(VectorClock())
    work = source.encoding(message)
    assert work is not None
    source.keep_encoded(message, work())
    assert source.encoded(message, "reader", size) == source.encoded(message, "reader", size)
    source.keep_encoded(source.ping(), work())
    assert source.encoded(message, "reader", size) == source.encoded(message, "reader", size), "of another message"
    assert source.encoding(source.ping()) is None
    assert all(decode_message(each) for each in source.encoded(message, "reader", size))
