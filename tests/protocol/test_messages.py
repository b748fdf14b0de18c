"""Messages as bytes: what is encoded comes back, is small, and is refused with one sentence where it cannot be taken."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica, VectorClock, exchange
from constraint_crdt.crdt.cells import Cell, Run, make_cell, read_cell
from constraint_crdt.crdt.clock import ClockMark, StateHash
from constraint_crdt.crdt.limits import CELL_BYTES, ID_BYTES, MAX_COUNT, MESSAGE_BYTES, Limits
from constraint_crdt.crdt.repair import BUCKETS, SUM_BYTES
from constraint_crdt.protocol.messages import (
    HELD_BYTES,
    PACKED_FROM,
    TROUBLE_BYTES,
    Ack,
    Buckets,
    ConstraintDelta,
    Delta,
    Gone,
    GossipMessage,
    Mend,
    MendStep,
    Part,
    Ping,
    Resume,
    Sync,
    decode_message,
    encode_message,
    pack_entries,
    unpack_entries,
)
from constraint_crdt.protocol.peers import Conversation, DeltaTracker
from constraint_crdt.protocol.transfers import split_message

encode = msgspec.msgpack.Encoder().encode
FUTURE = 99
"""A kind of cell that no node here knows."""


def node(name: str, incarnation: int = 2**48 - 1, fleet: str = "default", limits: Limits | None = None) -> GossipNode:
    renew = partial(next, iter(range(900, 10**6)))
    return GossipNode(name, incarnation=incarnation, now=lambda: 10**18, renew=renew, fleet=fleet, limits=limits or Limits())


def twin(one: GossipNode) -> GossipNode:
    """An independent copy. The digest never changes and is shared."""
    digest = one.state.rows.digest
    return copy.deepcopy(one, {id(digest): digest})


def write(writer: GossipNode, cell: Cell) -> Cell:
    """A mutation of a kind that the node itself has no name for."""
    return writer.write(lambda me: writer.state.rows.write(me, cell))


def refusal(data: bytes, max_bytes: int | None = MESSAGE_BYTES) -> str:
    with pytest.raises(ConstraintCrdtError) as caught:
        decode_message(data, max_bytes)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# --- packed changes of a clock -----------------------------------------------------------------------------------------

known_clocks = st.dictionaries(st.integers(0, 40), st.integers(1, 2**62), max_size=30)


def mark_of(entries: dict[int, int]) -> ClockMark:
    return ClockMark.of({Replica(f"n{name}", 1): seq for name, seq in entries.items()}, GossipNode("x").state.rows.digest)


@pytest.mark.slow
@given(known_clocks, st.dictionaries(st.integers(0, 45), st.integers(-3, 2**61)))
def test_packed_changes_are_those_that_were_packed(before: dict[int, int], moves: dict[int, int]) -> None:
    base = mark_of(before)
    changes = {
        Replica(f"n{name}", 1): before.get(name, 0) + by for name, by in moves.items() if by and before.get(name, 0) + by >= 0
    }
    packed, rest = pack_entries(list(changes.items()), base)
    found = unpack_entries(packed, base)
    assert dict([*found, *rest]) == changes
    assert len(found) + len(rest) == len(changes)
    assert all(ref not in base.entries or changes[ref] < base.entries[ref] for ref, _ in rest if isinstance(ref, Replica))


@given(known_clocks, st.binary(max_size=40))
def test_any_bytes_are_read_as_changes_or_refused(before: dict[int, int], packed: bytes) -> None:
    base = mark_of(before)
    try:
        found = unpack_entries(packed, base)
    except ConstraintCrdtError:
        return
    assert all(base.entries[replica] <= seq <= MAX_COUNT for replica, seq in found)


def rounds(nodes: list[GossipNode], count: int, heard: Callable[[GossipMessage], object]) -> None:
    """Each node writes, and exchanges with each other one."""
    for turn in range(count):
        for each in nodes:
            each.update_position((turn, turn))
        for each in nodes:
            for other in nodes:
                if each is not other:
                    waiting = [(other, each.begin(other.node_id))]
                    while waiting:
                        reader, message = waiting.pop(0)
                        heard(message)
                        sender = each if reader is other else other
                        waiting += [
                            (sender, answer) for answer in reader.receive(decode_message(encode_message(message))).responses
                        ]


@pytest.mark.slow
def test_changes_are_packed_for_readers_that_say_that_they_read_them() -> None:
    nodes, sent = [node(f"n{number}") for number in range(10)], list[GossipMessage]()
    rounds(nodes, 4, sent.append)
    assert len({each.state_hash for each in nodes}) == 1
    assert any(isinstance(each, Ping) and each.packed for each in sent)
    rest = [each for each in sent[len(sent) // 2 :] if isinstance(each, Ping) and len(each.changes) >= PACKED_FROM]
    assert not rest
    assert not any(each.packs for each in sent[len(sent) // 2 :] if isinstance(each, Ack | Delta))


_conversation = DeltaTracker.conversation


def unable(tracker: DeltaTracker, name: str) -> Conversation:
    talk = _conversation(tracker, name)
    talk.packs = False
    return talk


@pytest.mark.slow
def test_changes_are_not_packed_for_readers_of_0_1_0() -> None:
    """Such a reader ignores the further element in an answer, and says nothing of packed changes."""
    nodes, sent = [node(f"n{number}") for number in range(10)], list[GossipMessage]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeltaTracker, "conversation", unable)
        rounds(nodes, 4, sent.append)
    assert len({each.state_hash for each in nodes}) == 1
    assert not any(isinstance(each, Ping) and each.packed for each in sent)


def test_packed_changes_need_the_clock_that_they_change() -> None:
    ping = node("a").ping()
    assert "need the clock" in refusal(encode_message(msgspec.structs.replace(ping, packed=b"x")))


# --- round trip --------------------------------------------------------------------------------------------------------

NAMES = "abcd"
ids = st.sampled_from(["c1", "c2", "c3", "é" * 64, "\0", "x" * ID_BYTES])
step = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(NAMES), ids, st.sampled_from([None, "x < 1.0", "y > 2.0"])),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), ids),
    st.tuples(st.just("record"), st.sampled_from(NAMES), st.none() | ids, st.integers(0, 2**40)),
    st.tuples(st.just("move"), st.sampled_from(NAMES), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just("future"), st.sampled_from(NAMES), st.none() | ids, st.binary(max_size=9)),
    st.tuples(st.just("collect"), st.sampled_from(NAMES)),
    st.tuples(st.just("exchange"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("restart"), st.sampled_from(NAMES)),
)


def perform(nodes: dict[str, GossipNode], action: tuple[Any, ...]) -> None:
    name, rest = action[1], action[2:]
    one = nodes[name]
    match action[0]:
        case "add":
            one.add_constraint(rest[0], when=rest[1])
        case "remove" if rest[0] in one.state.constraints:
            one.remove_constraint(rest[0])
        case "record":
            one.record(rest[1], 1, constraint=rest[0])
        case "move":
            one.update_position((rest[0], 1))
        case "future":
            write(one, make_cell(FUTURE, *rest))
        case "collect":
            one.collect()
        case "exchange" if rest[0] != name:
            exchange(one, nodes[rest[0]])
        case "restart":
            nodes[name] = node(name, one.replica.incarnation + 1)


@pytest.mark.slow
@given(st.lists(step, max_size=40), st.integers(0, 40))
def test_what_is_encoded_comes_back(actions: list[tuple[Any, ...]], early: int) -> None:
    nodes = {name: node(name, index) for index, name in enumerate(NAMES)}
    stale = VectorClock()
    for number, action in enumerate(actions):
        perform(nodes, action)
        if number == early:
            stale = nodes["a"].clock
    a, b = nodes["a"], nodes["b"]
    messages: list[GossipMessage] = [a.ping(), a.ping("b"), a.begin("b"), a.delta_since(VectorClock()), a.delta_since(stale)]
    for message in messages[:3]:
        for answer in twin(b).receive(message).responses:
            messages += [answer, *twin(a).receive(answer).responses]
    messages += split_message(messages[3], 420)
    for message in messages:
        data = encode_message(message)
        again = decode_message(data, None)
        assert encode_message(again) == data
        assert again == message
        assert hash(again) == hash(message)
        assert type(again) is type(message)
        assert (again.node, again.fleet, again.to) == (message.node, message.fleet, message.to)


counts = st.integers(0, MAX_COUNT)
replicas = st.builds(Replica, st.sampled_from(NAMES), counts)
runs = st.lists(replicas, max_size=3, unique=True).map(
    lambda rows: ConstraintDelta([Run(row, 0, 2, [cell_of(row, "k"), cell_of(row, "l", 2)]) for row in rows])
)
common = {"node": replicas, "fleet": st.sampled_from(["default", "north"]), "to": st.none() | counts}
clock_names = st.binary(min_size=8, max_size=8)
hashes = st.binary(min_size=32, max_size=32).map(StateHash)
clocks = st.dictionaries(replicas, st.integers(1, MAX_COUNT)).map(VectorClock)
buckets = st.integers(0, 2**BUCKETS - 1)
slices = st.tuples(st.integers(1, 9), st.integers(0, 8), st.integers(9, 899)).map(
    lambda drawn: {"count": drawn[0], "index": drawn[1] % drawn[0], "size": drawn[2]}
)
MESSAGES: dict[type[GossipMessage], st.SearchStrategy[GossipMessage]] = {
    Ping: st.builds(
        Ping, **common, state_hash=hashes, clock=clocks, base=st.none() | clock_names, time=st.none() | st.integers(0, 2**63 - 1)
    ),
    Sync: st.builds(Sync, **common, state_hash=hashes, state=runs),
    Delta: st.builds(
        Delta, **common, clock=clocks, base=st.none() | clock_names, proof=st.none() | clock_names, delta=runs,
        behind=st.lists(st.tuples(replicas, counts), max_size=3), packs=st.booleans(),
    ),
    Ack: st.builds(Ack, **(common | {"to": st.none()}), answers=clock_names, state_hash=st.none() | hashes, packs=st.booleans()),
    Part: st.builds(
        lambda numbers, **others: Part(**numbers, **others), slices, **common, transfer=clock_names, chunk=st.binary(min_size=1),
        pause=st.booleans(), unpacked=st.none() | st.just(900), unit=st.none() | st.just(2**16),
    ),
    Resume: st.builds(
        Resume, **common, transfer=clock_names, index=counts, held=st.none() | st.binary(min_size=1, max_size=HELD_BYTES)
    ),
    Gone: st.builds(Gone, **common, transfer=clock_names),
    Buckets: st.builds(
        Buckets, **common, base=clock_names, state_hash=hashes, sums=st.just(bytes(range(256)) * (BUCKETS * SUM_BYTES // 256))
    ),
    Mend: st.builds(
        Mend, **common, base=clock_names, step=st.sampled_from(MendStep), buckets=buckets, cells=runs, doubt=buckets,
        dead=st.lists(st.tuples(replicas, counts), max_size=3),
    ),
}  # fmt: skip


def cell_of(row: Replica, key: str, seq: int = 1) -> Cell:
    cell = make_cell(FUTURE, key, None)
    cell.replica, cell.seq = row, seq
    return cell


@pytest.mark.slow
@pytest.mark.parametrize("kind", GossipMessage.__subclasses__(), ids=lambda kind: kind.__name__)
@given(st.data())
def test_a_message_of_any_kind_comes_back_equal_and_differs_from_others(kind: type[GossipMessage], data: st.DataObject) -> None:
    one, other = data.draw(MESSAGES[kind]), data.draw(MESSAGES[kind])
    assert decode_message(encode_message(one), None) == one
    assert (one == other) == (encode_message(one) == encode_message(other))
    assert one != data.draw(st.sampled_from([each for each in MESSAGES if each is not kind]).flatmap(MESSAGES.__getitem__))
    assert one != encode_message(one)
    assert len({one, other, decode_message(encode_message(one), None)}) == (1 if one == other else 2)


@pytest.mark.parametrize("message", [
    Part(node=Replica("a", 1), transfer=b"transfer", index=3, count=4, size=2000, chunk=b"x" * 600, unit=512),
    Part(node=Replica("a", 1), transfer=b"transfer", index=0, count=1, size=2000, chunk=b"x" * 600, unit=0),
])  # fmt: skip
def test_a_part_with_slices_beyond_the_last_is_refused(message: Part) -> None:
    with pytest.raises(ConstraintCrdtError, match="beyond its last slice"):
        decode_message(encode_message(message))


@pytest.mark.parametrize("message", [
    Part(node=Replica("a", 1), transfer=b"transfer", index=1, count=5, size=2500, chunk=b"x" * 512, unit=512, unpacked=9000),
    Resume(node=Replica("a", 1), transfer=b"transfer", index=2, held=b"\x06"),
])  # fmt: skip
def test_the_further_fields_follow_those_of_0_1_0(message: Part | Resume) -> None:
    """A decoder of 0.1.0 ignores elements beyond those that it knows."""
    plain = msgspec.structs.replace(message, **({"unit": None} if isinstance(message, Part) else {"held": None}))
    whole, old = (msgspec.msgpack.decode(encode_message(each)) for each in (message, plain))
    assert whole[: len(old)] == old
    assert len(whole) > len(old)


@pytest.mark.slow
@given(st.lists(step, max_size=40))
def test_bytes_bring_what_objects_bring(actions: list[tuple[Any, ...]]) -> None:
    nodes = {name: node(name, index) for index, name in enumerate(NAMES)}
    for action in actions:
        perform(nodes, action)
    a = nodes["a"]
    by_object, by_bytes = node("x"), node("y")
    by_object.receive(a.delta_since(VectorClock()))
    by_bytes.receive(decode_message(encode_message(a.delta_since(VectorClock())), None))
    assert by_object.state_hash == by_bytes.state_hash == a.state_hash


# --- cells of kinds that are not known -----------------------------------------------------------------------------------


def test_a_kind_that_is_not_known_is_relayed_as_the_bytes_received() -> None:
    a, relay, c = node("a"), node("relay"), node("c")
    odd = b"\x93\x63\xa1k\xdf\x00\x00\x00\x01\xd9\x01x\xcd\x00\x05"  # wide headers where narrow ones would do
    write(a, Cell(FUTURE, "k", odd))
    write(a, make_cell(FUTURE, None, [1, {"deep": [None, 2.5]}]))
    write(a, make_cell(120, "k", b"other kind, same key"))
    for left, right in ((a, relay), (relay, c)):
        pass_as_bytes(left, right)
    assert a.state_hash == relay.state_hash == c.state_hash
    assert [cell.data for cell in c.state.rows.held(FUTURE, "k")] == [odd]
    assert encode([99, "k", {"x": 5}]) != odd
    write(a, make_cell(FUTURE, "k", "later"))
    for left, right in ((a, relay), (relay, c)):
        pass_as_bytes(left, right)
    assert [cell.data for cell in c.state.rows.held(FUTURE, "k")] == [encode([FUTURE, "k", "later"])]
    assert a.state_hash == relay.state_hash == c.state_hash
    assert len(c.state.rows) == 3


def pass_as_bytes(left: GossipNode, right: GossipNode) -> list[int]:
    """An exchange over a wire; the sizes of its messages."""
    waiting, sizes = [(right, left.begin(right.node_id))], []
    while waiting:
        reader, message = waiting.pop(0)
        data = encode_message(message)
        sizes.append(len(data))
        other = left if reader is right else right
        waiting += [(other, response) for response in reader.receive(decode_message(data)).responses]
    return sizes


def test_a_tag_and_later_parts_of_a_cell_are_kept() -> None:
    tagged = encode([1, "c1", ["x < 1.0", 1, None, [], None, None, 9, "a part of a later minor version"], b"t" * 16])
    assert read_cell(tagged).data == tagged


# --- refusals --------------------------------------------------------------------------------------------------------------


def test_two_fleets_never_mix() -> None:
    a, b = node("a", fleet="north"), node("b", fleet="south")
    a.add_constraint("c1")
    for message in (a.ping(), a.begin("b"), a.delta_since(VectorClock()), *split_message(a.delta_since(VectorClock()), 90)):
        before = (b.state_hash, b.peer_count, b.rounds)
        with pytest.raises(ConstraintCrdtError, match=r"^this message is for fleet 'north'; node b is in 'south'$"):
            b.receive(decode_message(encode_message(message)))
        assert (b.state_hash, b.peer_count, b.rounds) == before


def test_the_default_fleet_costs_one_byte_on_the_wire() -> None:
    assert msgspec.msgpack.decode(encode_message(node("a").ping()))[1] is None
    assert decode_message(encode_message(node("a").ping())).fleet == "default"
    assert msgspec.msgpack.decode(encode_message(node("a", fleet="north").ping()))[1] == "north"


@pytest.mark.parametrize("version", [0, 2, 7])
def test_another_major_version_is_refused_by_name(version: int) -> None:
    data = bytearray(encode_message(node("a").ping()))
    data[1] = 16 * version + 1
    sentence = f"a speaks wire version {version}, this node speaks 1: run the same major version on both"
    assert refusal(bytes(data)) == sentence
    assert refusal(bytes(data[:2])).startswith("the message speaks wire version"), "its sender is not where it is in this version"


def test_a_message_beyond_the_limit_is_refused_unread() -> None:
    data = encode_message(node("a").ping())
    assert refusal(data, len(data) - 1) == f"a message of {len(data)} bytes is larger than the {len(data) - 1} allowed"
    assert isinstance(decode_message(data, len(data)), Ping)
    assert "larger than the 65536 allowed" in refusal(bytes(MESSAGE_BYTES + 1))


REPLICA = ["p", 2]
HASH = bytes(32)
NAMED = bytes(8)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param([17, None, "", 2, HASH], id="nobody sent it"),
        pytest.param([17, None, "x" * (ID_BYTES + 1), 2, HASH], id="a long name"),
        pytest.param([17, None, "p", -1, HASH], id="a negative incarnation"),
        pytest.param([17, None, "p", MAX_COUNT + 1, HASH], id="an incarnation of 64 bits"),
        pytest.param([17, "", "p", 2, HASH], id="an empty fleet"),
        pytest.param([17, None, "p", 2, HASH[1:]], id="a short hash"),
        pytest.param([17, None, "p", 2, HASH, NAMED + b"x", [[0, 1]]], id="a long clock name"),
        pytest.param([17, None, "p", 2, HASH, None, [[0, 1]]], id="an index into no clock"),
        pytest.param([17, None, "p", 2, HASH, NAMED, [[-1, 1]]], id="a negative index"),
        pytest.param([17, None, "p", 2, HASH, None, [[REPLICA, 1], [REPLICA, 2]]], id="an entry twice"),
        pytest.param([17, None, "p", 2, HASH, None, [[REPLICA, MAX_COUNT + 1]]], id="an entry of 64 bits"),
        pytest.param([18, None, "p", 2, HASH, [[REPLICA, 1, [[99, "k"]], [], 1]]], id="a Sync from above 0"),
        pytest.param([18, None, "p", 2, HASH, [[REPLICA, 1, [[99, "k"]], [], 0, 2]]], id="a floor above the end"),
        pytest.param([18, None, "p", 2, HASH, [[REPLICA, 0, []]]], id="a run of nothing"),
        pytest.param([18, None, "p", 2, HASH, [[REPLICA, -1, []]]], id="a run backwards"),
        pytest.param([18, None, "p", 2, HASH, [[REPLICA, 2, [[99, "k"]], [-1]]]], id="a gap backwards"),
        pytest.param([19, None, "p", 2, None, None, [[REPLICA, 1, [[99, "k"]], [], 0, 1]]], id="a floor in a Delta"),
        pytest.param([19, None, "p", 2, None, NAMED[1:], []], id="a short proof"),
        pytest.param([20, None, "p", 2, NAMED[1:]], id="a short answer"),
        pytest.param([21, None, "p", 2, NAMED, 1, 1, 1, b"x"], id="a part beyond the last"),
        pytest.param([21, None, "p", 2, NAMED, 0, 2, 1, b"x"], id="more parts than bytes"),
        pytest.param([21, None, "p", 2, NAMED, 0, 1, 1, b""], id="an empty part"),
        pytest.param([21, None, "p", 2, NAMED[1:], 0, 1, 1, b"x"], id="a short transfer name"),
        pytest.param([22, None, "p", 2, NAMED, -1], id="a negative index"),
        pytest.param([22, None, "p", 2, NAMED[1:], 1], id="a short transfer name to resume"),
        pytest.param([23, None, "p", 2, NAMED + b"x"], id="a long transfer name"),
        pytest.param([24, None, "p", 2, NAMED, HASH, bytes(8 * 255)], id="too few sums"),
        pytest.param([25, None, "p", 2, NAMED, 4, bytes(32), []], id="a step that is not known"),
        pytest.param([25, None, "p", 2, NAMED, 1, bytes(31), []], id="too few buckets"),
        pytest.param([25, None, "p", 2, NAMED, 1, bytes(32), [[["p", 1], 1, [[99, "k"]], [], 1]]], id="a repair above 0"),
        pytest.param([25, None, "p", 2, NAMED, 1, bytes(32), [], None, [[0, 1]]], id="a dot of no replica"),
        pytest.param([31, None, "p", 2], id="a type that is not known"),
        pytest.param({"not": "an array"}, id="a map"),
        pytest.param(17, id="a number"),
    ],
)
def test_what_is_malformed_is_refused(body: object) -> None:
    refusal(encode(body))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x97", b"\x91\x11", encode([17, None, b"\xed\xa0\x80", 2, HASH])])
def test_what_is_cut_or_not_text_is_refused(data: bytes) -> None:
    refusal(data)


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([[REPLICA, 1, [[99, "k"], [99, "l"]]]], id="more cells than mutations"),
        pytest.param([[REPLICA, 5, [[99, "k"]], [5]]], id="a cell below the run"),
        pytest.param([[REPLICA, 5, [[99, "k"]], [1, 1]]], id="more gaps than cells"),
        pytest.param([[REPLICA, 1, [[99, "k"]]], [REPLICA, 1, [[99, "l"]]]], id="two runs of one row"),
        pytest.param([[0, 1, [[99, "k"]]]], id="an index into no clock"),
    ],
)
def test_a_transfer_that_does_not_fit_leaves_no_trace(runs: list[Any]) -> None:
    for body in ([18, None, "p", 2, HASH, runs], [19, None, "p", 2, None, None, runs]):
        victim = node("v")
        victim.add_constraint("mine")
        before = (victim.state_hash, victim.clock, len(victim.state.rows), victim.peer_count)
        with pytest.raises(ConstraintCrdtError):
            victim.receive(decode_message(encode([*body])))
        assert (victim.state_hash, victim.clock, len(victim.state.rows), victim.peer_count) == before


def test_a_refused_message_does_not_cost_a_peer_its_evidence() -> None:
    a, b = node("a"), node("b")
    exchange(a, b)
    assert a.converged
    other_life = encode([19, None, "b", 7, None, None, [[0, 1, [[99, "k"]]]]])
    with pytest.raises(ConstraintCrdtError):
        a.receive(decode_message(other_life))
    assert a.converged
    assert a.tracker.hash("b") == b.state_hash


def test_a_clock_may_not_have_more_entries_than_rows_are_allowed() -> None:
    entries = [[["p", incarnation], 1] for incarnation in range(4)]
    for body in ([17, None, "p", 2, HASH, None, entries], [19, None, "p", 2, None, None, [], [], entries]):
        victim = node("v", limits=Limits(rows=3))
        with pytest.raises(ConstraintCrdtError, match=r"4 entries .* 3 rows"):
            victim.receive(decode_message(encode(body)))
        assert victim.peer_count == 0


# --- bytes -----------------------------------------------------------------------------------------------------------------


def pair(constraints: int) -> tuple[GossipNode, GossipNode]:
    """Two nodes that agree and know that they do."""
    a, b = node("a"), node("b")
    for number in range(constraints):
        a.add_constraint(f"constraint {number}")
    exchange(a, b)
    exchange(b, a)
    assert a.converged
    assert b.converged
    return a, b


def test_nothing_new_costs_at_most_96_bytes_both_ways() -> None:
    a, b = pair(50)
    ping = a.ping("b")
    [ack] = b.receive(decode_message(encode_message(ping))).responses
    assert len(encode_message(ping)) + len(encode_message(ack)) <= 96 + len("a") + len("b")


@pytest.mark.slow
def test_one_new_constraint_costs_64_bytes_and_5_per_writer_run_beside_itself() -> None:
    a, b = pair(2_000)
    a.add_constraint("one more", when="x < 1.0")
    entry = len(a.state.rows.held(1, "one more")[0].data)
    sizes = pass_as_bytes(a, b)
    assert len(sizes) == 2
    assert sum(sizes) <= entry + 64 + 5
    assert a.state_hash == b.state_hash


@pytest.mark.slow
def test_many_new_constraints_cost_at_most_5_percent_beside_themselves() -> None:
    a, b = pair(2_000)
    for number in range(1_000):
        a.add_constraint(f"new constraint {number}")
    entries = sum(len(cell.data) for id_ in a.state.constraints if id_.startswith("new") for cell in a.state.rows.held(1, id_))
    sizes = pass_as_bytes(a, b)
    assert sum(sizes) <= 1.05 * entries
    assert a.state_hash == b.state_hash


def test_a_cell_as_large_as_allowed_travels_and_a_larger_one_is_not_made() -> None:
    a, b = node("a"), node("b")
    content = b"x" * (CELL_BYTES - 7)
    assert len(write(a, make_cell(FUTURE, "k", content)).data) == CELL_BYTES
    pass_as_bytes(a, b)
    assert a.state_hash == b.state_hash
    with pytest.raises(ConstraintCrdtError, match="would have 32769 bytes, more than the 32768 that a cell may have"):
        make_cell(FUTURE, "k", content + b"x")


# --- the fault that a node tells of itself -----------------------------------------------------------------------------------


def test_a_ping_tells_the_fault_of_its_sender_until_it_is_over() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    plain = encode_message(a.ping())
    assert a.tracker.trouble("b") == ""
    b.local.trouble = lambda: "the disk is full"
    a.receive(decode_message(encode_message(b.ping())))
    assert a.tracker.trouble("b") == "the disk is full"
    b.local.trouble = str
    assert b.ping().trouble is None
    a.receive(decode_message(encode_message(b.ping())))
    assert a.tracker.trouble("b") == ""
    assert len(plain) == len(encode_message(a.ping())), "a node without a fault sends what one of 0.1.0 sends"


def test_a_fault_beyond_the_bound_is_refused() -> None:
    a = GossipNode("a")
    a.local.trouble = lambda: "x" * (TROUBLE_BYTES + 1)
    with pytest.raises(ConstraintCrdtError, match="too long"):
        decode_message(encode_message(a.ping()))
