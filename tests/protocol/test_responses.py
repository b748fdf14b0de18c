"""What answers carry: to whom they are, what they prove, and what can be named after them."""

import itertools

import msgspec
import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, Limits, Replica, VectorClock, exchange
from constraint_crdt.crdt.limits import MESSAGE_BYTES
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.messages import (
    Ack,
    ConstraintDelta,
    Delta,
    Gone,
    GossipMessage,
    Part,
    Ping,
    Resume,
    Sync,
    decode_message,
    encode_message,
)
from constraint_crdt.protocol.peers import bind_runs
from tests.protocol.damage import lose_cell, own_cells, pair, wire, wrong_digest, wrong_sum
from tests.protocol.scrambled import scrambled

FLEET = "north"
SMALL = Limits(burst_bytes=1000)


def node(name: str, constraints: int = 0, incarnation: int = 1) -> GossipNode:
    """A node of a named fleet that has added some constraints."""
    made = GossipNode(
        name, incarnation=incarnation, renew=itertools.count(incarnation + 1).__next__, now=lambda: 1, fleet=FLEET, limits=SMALL
    )
    for number in range(constraints):
        made.add_constraint(scrambled(f"{name} {number}"))
    return made


def only(result: GossipResult) -> GossipMessage:
    [response] = result.responses
    return response


def every_message() -> list[tuple[GossipMessage, GossipNode]]:
    """One of each kind that answers something, with its reader."""
    a, b = node("a", 60), node("b")
    a_ping = a.ping()
    delta = only(a.receive(b.ping()))
    burst = [decode_message(each) for each in a.encoded(delta, "b", 200)]
    resume = next(each for part in burst for each in b.receive(part).responses)
    rest = a.receive(resume).responses[0]
    gone = only(a.receive(Resume(node=b.replica, fleet=FLEET, transfer=b"unheard!", index=0)))
    again = node("b", incarnation=2)
    exchange(again, a)
    ack = only(a.receive(again.ping("a")))
    a.remove_constraint(scrambled("a 0"))
    a.collect()
    sync = only(a.receive(node("c").ping()))
    return [(a_ping, b), (delta, b), (burst[0], b), (resume, a), (rest, b), (gone, b), (ack, again), (sync, node("c"))]


def test_every_message_names_its_fleet_and_its_sender() -> None:
    messages = [each for each, _ in every_message()]
    assert len({type(each) for each in messages}) == 7
    assert {each.fleet for each in messages} == {FLEET}
    assert {each.node.node_id for each in messages} == {"a", "b"}
    assert {decode_message(encode_message(each)).fleet for each in messages} == {FLEET}


def test_what_goes_on_with_a_transfer_or_ends_it_is_for_one_life() -> None:
    messages = [(each, reader) for each, reader in every_message() if isinstance(each, Resume | Gone)]
    assert [each.to for each, _ in messages] == [reader.replica.incarnation for _, reader in messages] == [1, 1]


def test_until_it_is_acknowledged_no_clock_is_taken_for_known() -> None:
    a, b = node("a"), node("b")
    exchange(a, b)
    a._composer.restated_clock(a.tracker.meet(b.replica))
    assert a.ping("b").base is None


def test_where_one_stands_names_ended_lives_too() -> None:
    """Its reader may infer something else of them."""
    a, b, c = node("a"), node("b"), node("c", 1)
    exchange(a, b)
    exchange(a, c)
    a.retire("c")
    assert c.replica not in dict(a._composer.whole_ping(None).changes)
    [answer] = a._composer.restated_clock(a.tracker.meet(b.replica))
    assert isinstance(answer, Ping)
    said = dict(answer.changes) or dict(answer.clock.items() if answer.clock else ())
    assert said[c.replica] == 1


@pytest.mark.parametrize("constraints", [0, 3])
def test_who_is_told_of_a_new_life_can_acknowledge_its_state(constraints: int) -> None:
    a, b = node("a"), node("b")
    exchange(a, b)
    again = node("b", constraints, incarnation=2)
    a.receive(again.delta_since(VectorClock()))
    a.tracker.forget("b")
    a.tracker.admit(a.tracker.meet(b.replica))
    ping = a.ping("b")
    assert ping.to == 1
    answer = only(again.receive(wire(ping)))
    assert isinstance(answer, Ping)
    assert answer.to == a.replica.incarnation
    ack = only(a.receive(wire(answer)))
    assert isinstance(ack, Ack)
    assert again.tracker.hash("a") is None
    assert again.receive(wire(ack)).converged
    assert again.tracker.hash("a") == a.state_hash


def test_where_one_stands_is_spelled_out_and_can_be_acknowledged() -> None:
    a, b = node("a"), node("b")
    exchange(a, b)
    b.record(1)
    exchange(a, b)
    b.record(1)
    lost = b.begin("a")
    assert lost.base is not None
    a.tracker.conversation("b").statements.clear()  # a clock that a cannot name any more
    a.tracker.anyone.statements.clear()
    answer = only(a.receive(wire(lost)))
    assert isinstance(answer, Ping)
    assert (answer.base, answer.to) == (None, b.replica.incarnation)
    b.state.rows.apply(a.state.rows.since(b.clock.as_dict()))
    a.receive(wire(Ack(node=b.replica, fleet=FLEET, answers=answer.state_hash.token(a.replica))))
    assert a.tracker.hash("b") == answer.state_hash
    assert a.ping("b").base is not None


def test_a_transfer_larger_than_one_message_may_be_is_taken() -> None:
    a, b = node("a"), node("b")
    for number in range(100):
        a.add_constraint(f"c{number}", about=scrambled(str(number)) * 20)
    delta = only(a.receive(b.ping()))
    assert len(encode_message(delta)) > MESSAGE_BYTES
    waiting = a.encoded(delta, "b")
    while waiting:
        result = b.receive(decode_message(waiting.pop(0)))
        for response in result.responses:
            if isinstance(response, Resume):
                waiting += [encode_message(each) for each in a.receive(response).responses]
    assert b.state == a.state


def test_a_message_of_one_part_can_name_a_clock_newer_than_an_incomplete_transfer() -> None:
    a, b = node("a", 60), node("b")
    large = only(a.receive(wire(b.ping())))
    first, *rest = [decode_message(each) for each in a.encoded(large, "b", 200)]
    assert rest
    assert b.receive(first).responses == []
    b.record(1)
    for number in range(300):
        a.add_constraint(f"constraint {number}")
    [packed] = a.encoded(only(a.receive(wire(b.ping("a")))), "b")
    assert isinstance(decode_message(packed), Part)
    assert b.receive(decode_message(packed)).state_changed
    assert len(b.state.constraints) == 360


def test_the_end_of_a_transfer_is_answered_with_a_ping_to_that_peer_if_it_was_waited_for() -> None:
    a, b = node("a", 60), node("b")
    delta = only(a.receive(b.ping()))
    first, *_ = [decode_message(each) for each in a.encoded(delta, "b", 200)]
    assert isinstance(first, Part)
    b.receive(first)
    gone = Gone(node=a.replica, fleet=FLEET, to=1, transfer=first.transfer)
    assert b.receive(Gone(node=a.replica, fleet=FLEET, to=1, transfer=b"another!")).responses == []
    ping = only(b.receive(wire(gone)))
    assert isinstance(ping, Ping)
    assert ping.to == a.replica.incarnation
    assert b.receive(wire(gone)).responses == []


def test_parts_of_parts_and_parts_that_do_not_add_up_are_refused_in_one_sentence() -> None:
    a, b = node("a"), node("b")
    inner = encode_message(a.ping())
    wrapped = Part(node=a.replica, fleet=FLEET, transfer=b"transfer", index=0, count=1, size=len(inner), chunk=inner, to=1)
    sentence = "^the parts of a transfer make up a message of another sender, or to another receiver$"
    with pytest.raises(ConstraintCrdtError, match=sentence):
        b.receive(wrapped)
    with pytest.raises(ConstraintCrdtError, match=r"^the parts of a transfer do not add up to its size$"):
        b.receive(Part(node=a.replica, fleet=FLEET, transfer=b"transfer", index=0, count=1, size=9, chunk=b"8 bytes."))


def test_the_rows_of_a_clock_both_know_are_not_spelled_out_again() -> None:
    """Only the envelope has a name of a node: names may be long."""
    long, other = "a" * 120, "b" * 120
    a, b = node(long, 1), node(other, 1)
    exchange(a, b)
    a.record(1)
    b.record(1)
    ping, push = a.ping(other), a.begin(other)
    assert isinstance(push, Delta)
    answer = only(b.receive(wire(ping)))
    assert isinstance(answer, Delta)
    assert answer.behind
    names = [
        (encode_message(message).count(long.encode()), encode_message(message).count(other.encode()))
        for message in (ping, push, answer)
    ]
    assert names == [(1, 0), (1, 0), (0, 1)]


@pytest.mark.parametrize("first", ["ping", "delta"])
def test_a_stated_clock_is_enough_for_a_push_though_the_answer_was_lost(first: str) -> None:
    a, b = node("a", 1), node("b", 1)
    exchange(a, b)
    a.record(1)
    b.record(1)
    lost = only(b.receive(wire(a.ping("b") if first == "ping" else a.begin("b"))))
    push = b.begin("a")
    assert isinstance(lost, Delta)
    assert isinstance(push, Delta)
    assert push.base == b.ping("a").base == lost.base
    exchange(b, a)
    assert a.state == b.state


def test_a_delta_that_begins_below_the_clock_it_names_is_taken() -> None:
    a, b = node("a", 1), node("b", 1)
    exchange(a, b)
    a.record(1)
    b.record(1)
    delta = only(a.receive(wire(b.ping("a"))))
    assert isinstance(delta, Delta)
    overlapping = msgspec.structs.replace(delta, clock=None, delta=ConstraintDelta(a.state.rows.runs([(a.replica, 0)])))
    answer = only(b.receive(overlapping))
    assert isinstance(answer, Delta)
    assert [(run.replica, run.lo, run.hi) for run in bind_runs(answer.delta.runs, None)] == [(b.replica, 1, 2)]
    assert b.tracker.clock("a") == a.clock
    a.receive(wire(answer))
    assert a.state == b.state


def test_a_delta_without_a_proof_is_evidence_of_a_clock_and_no_alarm() -> None:
    a, b = node("a", 1), node("b")
    result = b.receive(wire(a.delta_since(VectorClock())))
    assert isinstance(only(result), Ack)
    assert (result.diverged, b.alarms) == (False, 0)
    assert (b.tracker.clock("a"), b.tracker.hash("a")) == (a.clock, None)


def test_a_clock_with_as_many_entries_as_rows_are_allowed_is_taken_and_no_larger_one() -> None:
    a = node("a", 1)
    reader = GossipNode("reader", fleet=FLEET, limits=Limits(rows=2))
    for name in "bc":
        assert reader.receive(wire(a.ping())).responses
        exchange(node(name, 1), a)
    with pytest.raises(ConstraintCrdtError, match=r"^a clock of 3 entries is more than the 2 rows allowed$"):
        reader.receive(wire(a.ping()))
    assert reader.tracker.clock("a") == VectorClock({a.replica: 1, Replica("b", 1): 1})


# --- alarms and repairs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [lose_cell, wrong_digest])
@pytest.mark.parametrize("times", [1, 2])
def test_a_repair_is_one_alarm_on_each_side_that_saw_the_difference(damage: object, times: int) -> None:
    sound, damaged = pair()
    own_cells(damaged)
    for time in range(1, times + 1):
        damaged._exchange.repairs._not_before = sound._exchange.repairs._not_before = 0
        assert callable(damage)
        damage(damaged)
        waiting = [(sound, damaged.begin(sound.node_id))]
        kinds = list[str]()
        while waiting:
            reader, message = waiting.pop(0)
            kinds.append(type(message).__name__)
            waiting += [(damaged if reader is sound else sound, each) for each in reader.receive(wire(message)).responses]
        assert sound.state_hash == damaged.state_hash
        assert kinds[:2] == ["Ping", "Buckets"]
        assert (sound.alarms, damaged.alarms) == (time, time)
        assert sound.tracker.hash(damaged.node_id) == damaged.tracker.hash(sound.node_id) == sound.state_hash
        assert kinds[2:] in (["Ack"], ["Mend", "Mend", "Mend", "Ping", "Ack"])


def test_a_node_that_mends_itself_confirms_the_hash_of_its_peer_at_once() -> None:
    sound, damaged = pair()
    own_cells(damaged)
    wrong_sum(damaged)
    ack = only(damaged.receive(wire(sound.begin(damaged.node_id))))
    assert isinstance(ack, Ack)
    assert sound.receive(wire(ack)).converged


def test_a_transfer_that_brings_nothing_shows_damage_too_and_its_repair_is_a_change() -> None:
    sound, damaged = pair()
    own_cells(damaged)
    wrong_sum(damaged)
    result = damaged.receive(wire(sound._composer.sync(None)))
    assert (result.state_changed, result.mended, damaged.state_hash == sound.state_hash) == (True, True, True)


def test_after_a_repair_the_peer_is_pinged_by_name() -> None:
    sound, damaged = pair()
    own_cells(damaged)
    lose_cell(damaged)
    waiting, last = [(sound, damaged.begin(sound.node_id))], list[GossipMessage]()
    while waiting:
        reader, message = waiting.pop(0)
        last.append(message)
        waiting += [(damaged if reader is sound else sound, each) for each in reader.receive(wire(message)).responses]
    pings = [each for each in last[1:] if isinstance(each, Ping)]
    assert len(pings) == 1
    assert pings[0].base is not None or pings[0].to is not None


@pytest.mark.slow
@pytest.mark.parametrize("damaged_begins", [False, True])
def test_once_a_peer_has_agreed_the_next_damage_is_repaired_at_once(damaged_begins: bool) -> None:
    """The pause after an attempt is for differences that remain."""
    sound, damaged = pair()
    own_cells(damaged)
    for _ in range(3):
        lose_cell(damaged)
        assert damaged.state_hash != sound.state_hash
        waiting = [(sound, damaged.begin(sound.node_id)) if damaged_begins else (damaged, sound.begin(damaged.node_id))]
        while waiting:
            reader, message = waiting.pop(0)
            waiting += [(damaged if reader is sound else sound, each) for each in reader.receive(wire(message)).responses]
        assert damaged.state_hash == sound.state_hash


def test_sums_of_a_peer_are_evidence_of_its_hash_to_a_node_that_mended_itself() -> None:
    sound, damaged = pair()
    own_cells(damaged)
    damaged.forget_peers()
    wrong_sum(damaged)
    buckets = only(sound.receive(wire(damaged.begin(sound.node_id))))
    result = damaged.receive(wire(buckets))
    assert isinstance(only(result), Ack)
    assert (result.mended, result.converged) == (True, True)
    assert damaged.tracker.hash(sound.node_id) == sound.state_hash


# --- the end of a node -----------------------------------------------------------------------------------------------------


def test_who_retires_what_it_must_not_is_told_in_one_sentence_and_nothing_changes() -> None:
    a, b = node("a", 1), node("b", 1)
    exchange(a, b)
    before = a.state_hash, a.replica
    with pytest.raises(ConstraintCrdtError, match=r"^a cannot retire itself: stop it, and retire it on another node$"):
        a.retire("a")
    with pytest.raises(KeyError, match=r"^there is no node 'c' here$"):
        a.retire("c")
    assert (a.state_hash, a.replica) == before
    [life] = a.retire("b")
    assert (life.replica, life.seq) == (b.replica, 1)


def test_a_retired_node_is_told_with_all_that_is_known_and_is_no_peer() -> None:
    a, b = node("a", 2), node("b", 1)
    exchange(a, b)
    a.retire("b")
    assert (a.peer_count, a.time.offset("b"), a.converged) == (0, None, True)
    b.record(1)
    for message in (b.ping("a"), b.delta_since(VectorClock())):
        result = a.receive(wire(message))
        assert result.converged
        sync = only(result)
        assert isinstance(sync, Sync)
        assert (sync.to, sync.fleet) == (b.replica.incarnation, FLEET)
    gone = only(a.receive(Resume(node=b.replica, fleet=FLEET, transfer=b"transfer", index=1)))
    assert isinstance(gone, Gone), "else it would ask for the rest of what it was told for ever"
    with pytest.raises(ConstraintCrdtError, match=r"^node b was retired: nothing is taken from it any more$"):
        a.receive(Ack(node=b.replica, fleet=FLEET, answers=b"12345678"))
    assert isinstance(only(a.receive(b._composer.sync(None))), Sync), "it lacks the retirement"
    assert a.peer_count == 0
    assert b.receive(wire(sync)).responses == []
    assert b.retired_by == "a"
    assert b.receive(wire(a.ping())).responses == []


def test_the_time_of_a_retired_node_does_not_count_any_more() -> None:
    a, b = node("a"), node("b", 1)
    exchange(b, a)
    assert a.time.offset("b") == 0
    a.retire("b")
    assert a.time.offset("b") is None


def test_who_hears_of_a_retirement_from_others_or_from_a_file_forgets_that_peer() -> None:
    a, b = node("a", 1), node("b", 1)
    others = [node("c"), node("d")]
    for other in (b, *others):
        exchange(other, a)
        exchange(other, b) if other is not b else None
    a.retire("b")
    exchange(a, others[0])
    result = others[1].merge(a.state)
    assert (result.state_changed, result.outlived, result.responses) == (True, None, [])
    for other in others:
        assert "b" not in other.tracker
        assert other.time.offset("b") is None
    again = others[1].merge(a.state)
    assert (again.state_changed, again.converged) == (False, others[1].converged)


def test_a_file_that_knows_more_of_a_life_than_it_does_ends_that_life() -> None:
    a = node("a", 1)
    copy = node("a")
    result = copy.merge(a.state)
    assert (result.state_changed, result.outlived, result.converged) == (True, Replica("a", 1), True)
    peer = node("b")
    exchange(peer, copy)
    assert copy.converged
    peer.record(1)
    assert not copy.merge(peer.state).converged, "nothing has proved that the peer has what came by file"
    copy.record(1)
    assert copy.replica == Replica("a", 2)
    peer.record(1)
    assert copy.merge(peer.state).outlived is None


def test_mutations_of_others_end_no_life() -> None:
    a, b = node("a", 1), node("b", 1)
    result = b.receive(wire(a.delta_since(VectorClock())))
    assert (result.state_changed, result.outlived) == (True, None)


def test_an_ack_handed_over_as_an_object_has_the_state_it_confirms() -> None:
    a, b = node("a", 1), node("b")
    exchange(a, b)
    ack = only(b.receive(a.ping("b")))
    assert isinstance(ack, Ack)
    assert (ack.clock, ack.state_hash) == (b.clock, b.state_hash)


# --- syncs, and what is worked out from them -------------------------------------------------------------------------------


def below_a_floor() -> tuple[GossipNode, GossipNode]:
    """A node that has collected a removal, and a blank one."""
    a, b = node("a", 2), node("b")
    a.remove_constraint(scrambled("a 0"))
    a.collect()
    return a, b


def test_a_sync_proves_the_hash_that_it_says() -> None:
    a, b = below_a_floor()
    sync = only(a.receive(b.ping()))
    assert isinstance(sync, Sync)
    assert sync.clock == a.clock
    result = b.receive(wire(sync))
    assert (result.state_changed, result.converged, result.diverged, b.alarms) == (True, True, False, 0)
    assert isinstance(only(result), Ack)
    assert b.tracker.hash("a") == a.state_hash


def test_a_sync_whose_hash_is_not_that_of_its_cells_alarms() -> None:
    a, b = below_a_floor()
    sync = only(a.receive(b.ping()))
    assert isinstance(sync, Sync)
    lie = Sync(node=sync.node, fleet=FLEET, to=sync.to, state=sync.state, state_hash=node("c", 1).state_hash)
    result = b.receive(lie)
    assert (result.state_changed, result.converged, result.diverged, b.alarms) == (True, False, True, 1)
    assert b.tracker.hash("a") is None


def test_a_sync_that_leaves_out_the_start_of_a_row_is_refused_in_one_sentence() -> None:
    a, b = node("a", 2), node("b")
    runs = a.state.rows.since({a.replica: 1})
    with pytest.raises(ConstraintCrdtError, match=r"^a Sync must hold every row from its start$"):
        b.receive(Sync(node=a.replica, fleet=FLEET, state=ConstraintDelta(runs), state_hash=a.state_hash))


# --- small things ------------------------------------------------------------------------------------------------------------


def test_what_is_heard_as_bytes_is_what_was_said_and_what_it_led_to() -> None:
    a, b = node("a", 1), node("b")
    message, result = b.hear(encode_message(a.delta_since(VectorClock())))
    assert message.node == a.replica
    assert result.state_changed
    with pytest.raises(ConstraintCrdtError):
        b.hear(b"no message")


def test_an_exchange_says_whether_either_side_changed() -> None:
    a, b = node("a", 1), node("b")
    assert exchange(b, a) is True
    assert exchange(a, b) is False
    a.record(1)
    assert isinstance(a.begin("b"), Delta)
    assert exchange(a, b) is True


def test_who_forgets_its_peers_begins_with_a_whole_ping_and_keeps_its_limits() -> None:
    a = GossipNode("a", fleet=FLEET, limits=Limits(peers=1))
    exchange(a, node("b"))
    a.forget_peers()
    assert (a.peer_count, len(a._inbound), len(a._outbound)) == (0, 0, 0)
    message = a.begin("b")
    assert isinstance(message, Ping)
    assert (message.base, message.to) == (None, None)
    exchange(a, node("c"))
    with pytest.raises(ConstraintCrdtError, match="more than the 1 peers"):
        a.receive(node("b").ping())


@pytest.mark.parametrize(("waits_for", "collected"), [([], 1), (["b"], 1), (["c"], 0), (["b", "c"], 0), (["b", "unknown"], 0)])
def test_a_removal_is_collected_once_all_that_are_waited_for_have_it(waits_for: list[str], collected: int) -> None:
    a, b, c = node("a", 1), node("b"), node("c")
    exchange(a, b)
    exchange(a, c)
    a.remove_constraint(scrambled("a 0"))
    exchange(a, b)
    assert a.collect(waits_for) == collected
    exchange(a, c)
    assert a.collect([*waits_for, "c"] if "unknown" not in waits_for else ["b", "c"]) == 1 - collected


def test_a_message_of_no_known_type_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConstraintCrdtError, match=r"^a node cannot receive a GossipMessage$"):
        node("a").receive(GossipMessage(node=Replica("b", 1), fleet=FLEET))
