"""The exchange, message by message: what each is answered by, what it proves, what happens when parts or memories are missing."""

import itertools

import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, Limits, Replica, VectorClock, exchange
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.protocol.exchange_rules import OVERWRITTEN, UNASKED, GossipResult
from constraint_crdt.protocol.messages import (
    Ack,
    ConstraintDelta,
    Delta,
    GossipMessage,
    Part,
    Ping,
    Resume,
    Sync,
    decode_message,
    encode_message,
)
from constraint_crdt.protocol.transfers import split_message
from tests.protocol.scrambled import scrambled


def node(name: str, *constraints: str, incarnation: int = 1) -> GossipNode:
    """A node that has added some constraints; later lives count up from its incarnation."""
    made = GossipNode(name, incarnation=incarnation, renew=itertools.count(incarnation + 1).__next__, now=lambda: 1)
    for id_ in constraints:
        made.add_constraint(id_)
    return made


def only(result: GossipResult) -> GossipMessage:
    """The one response."""
    assert len(result.responses) == 1
    return result.responses[0]


def over_the_wire(message: GossipMessage) -> GossipMessage:
    """What the receiver of its bytes gets."""
    return decode_message(encode_message(message))


# --- what the crate's own tests show -----------------------------------------------------------------------------------


def test_empty_nodes_agree_at_once() -> None:
    a, b = node("a"), node("b")
    assert isinstance(only(b.receive(a.ping())), Ack)
    assert not exchange(a, b)
    assert a.state_hash == b.state_hash
    assert a.converged
    assert b.converged


def test_after_an_exchange_each_has_the_others_constraints() -> None:
    a, b = node("a", "from-a"), node("b", "from-b")
    assert exchange(a, b)
    assert sorted(a.state.constraints) == sorted(b.state.constraints) == ["from-a", "from-b"]
    assert a.state == b.state
    assert not exchange(b, a)


def test_three_nodes_by_pairs_have_all_three() -> None:
    a, b, c = node("a", "1"), node("b", "2"), node("c", "3")
    for one, other in ((a, b), (b, c), (c, a), (a, b)):
        exchange(one, other)
    assert sorted(a.state.constraints) == ["1", "2", "3"]
    assert a.state == b.state == c.state


def test_a_node_says_who_it_is() -> None:
    a = node("a", "c1")
    digits = a.state_hash.hex()
    assert str(a) == f"GossipNode(a, 1 constraints, 0 peers, 0 rounds, hash={digits[:8]}…{digits[-8:]})"
    exchange(a, node("b"))
    assert "1 peers, 2 rounds" in str(a)


# --- the sequences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", [False, True])
def test_push_pull_is_ping_delta_delta_ack(wire: bool) -> None:
    """One exchange leaves both sides equal, and both have evidence of it."""
    sent = over_the_wire if wire else lambda message: message
    a, b = node("a", "x"), node("b", "y")
    first = only(b.receive(sent(a.ping())))
    assert isinstance(first, Delta)
    assert len(first.delta) == 1
    second = only(a.receive(sent(first)))
    assert isinstance(second, Delta)
    last = b.receive(sent(second))
    assert last.state_changed
    assert last.converged
    ack = only(last)
    assert isinstance(ack, Ack)
    assert not a.converged, "nothing yet proves to a that its Delta arrived"
    assert a.receive(sent(ack)).converged
    assert (b.syncs, a.syncs) == (1, 0)


def test_a_push_is_one_delta_and_an_ack() -> None:
    a, b = node("a", "x"), node("b")
    exchange(a, b)
    a.add_constraint("y")
    push = a.begin("b")
    assert isinstance(push, Delta)
    assert len(push.delta) == 1
    ack = only(b.receive(over_the_wire(push)))
    assert isinstance(ack, Ack)
    a.receive(over_the_wire(ack))
    assert a.converged
    assert b.converged


def test_rounds_count_messages_received_and_syncs_the_mismatched_pings_answered() -> None:
    a, b = node("a", "x"), node("b")
    for _ in range(3):
        b.receive(a.ping())
    assert (b.rounds, b.syncs, b.peer_count) == (3, 3, 1)
    exchange(a, b)
    before = b.syncs
    b.receive(a.ping("b"))
    assert b.syncs == before


def test_a_ping_names_a_clock_that_the_peer_knows_in_place_of_the_whole() -> None:
    a, b = node("a", "x"), node("b", "y")
    exchange(a, b)
    a.add_constraint("z")
    ping = a.ping(peer="b")
    assert ping.base is not None
    assert len(list(ping.changes)) == 1
    answer = only(b.receive(over_the_wire(ping)))
    assert isinstance(answer, Delta)
    a.receive(answer)
    assert a.tracker.clock("b") == b.clock


def test_a_named_clock_that_the_peer_has_lost_is_answered_with_where_it_stands() -> None:
    a, b = node("a", "x"), node("b")
    exchange(a, b)
    ping = a.ping(peer="b")
    assert ping.base is not None
    again = node("b", incarnation=7)
    answer = only(again.receive(over_the_wire(ping)))
    assert isinstance(answer, Ping)
    assert answer.base is None
    assert answer.clock == VectorClock()
    delta = only(a.receive(over_the_wire(answer)))
    again.receive(over_the_wire(delta))
    assert again.state == a.state


def test_an_evicted_conversation_costs_a_whole_clock_and_nothing_else() -> None:
    hub = GossipNode("hub", incarnation=1, limits=Limits(conversations=1))
    spokes = [node(name, f"of-{name}") for name in "abc"]
    for _ in range(3):
        for spoke in spokes:
            exchange(spoke, hub)
            exchange(hub, spoke)
    assert all(spoke.state == hub.state for spoke in spokes)
    assert hub.converged


def test_a_clock_that_cannot_be_named_any_more_is_no_ground_for_a_push() -> None:
    """The peer may not be able to resolve the name: then the push would be lost, and a Ping needed as well."""
    hub = GossipNode("hub", incarnation=1, limits=Limits(conversations=1))
    spoke, other = node("spoke", "x"), node("other")
    exchange(hub, spoke)
    hub.add_constraint("y")
    assert isinstance(hub.begin("spoke"), Delta)
    exchange(hub, other)
    message = hub.begin("spoke")
    assert isinstance(message, Ping)
    assert message.base is None
    exchange(hub, spoke)
    assert hub.state == spoke.state


@pytest.mark.parametrize("floor", [False, True])
def test_few_mutations_are_pushed_and_more_are_asked_for_first(floor: bool) -> None:
    a, b = node("a", *(f"c{index}" for index in range(2 * UNASKED))), node("b")
    if floor:
        a.remove_constraint("c0")
        a.collect()
    exchange(a, b)
    exchange(b, a)
    for number in range(UNASKED):
        a.add_constraint(f"d{number}")
        push = a.begin("b")
        assert isinstance(push, Delta)
        assert len(push.delta) == number + 1
    a.add_constraint("one more")
    ping = a.begin("b")
    assert isinstance(ping, Ping)
    assert ping.base is not None
    assert (ping.clock, ping.time) == (a.clock, 1)


def test_cells_written_over_are_pushed_as_few_and_not_asked_for_first() -> None:
    a, b = node("a"), node("b")
    exchange(a, b)
    for _ in range(OVERWRITTEN + 1):
        a.record_satisfied()
    assert isinstance(a.begin("b"), Ping), "that many may be of more than it takes to look"
    exchange(a, b)
    exchange(b, a)
    for _ in range(OVERWRITTEN):
        a.record_satisfied()
    push = a.begin("b")
    assert isinstance(push, Delta)
    assert sum(len(run.cells) for run in push.delta.runs) == 1
    exchange(a, b)
    assert b.state == a.state


@pytest.mark.parametrize("counts", [1, 2 * UNASKED])
def test_a_fault_and_a_question_are_told_before_news(counts: int) -> None:
    """Only a Ping carries them."""
    a, b = node("a"), node("b")
    for _ in range(2):
        exchange(a, b)

    def begin() -> GossipMessage:
        for _ in range(counts):
            a.record_satisfied()
        return a.begin("b")

    assert isinstance(begin(), Delta)
    a.local.trouble = lambda: "its disk is full"
    ping = begin()
    assert isinstance(ping, Ping)
    assert ping.trouble == "its disk is full"
    exchange(a, b)
    assert isinstance(begin(), Delta)
    a.local.trouble = str
    assert isinstance(begin(), Ping)
    exchange(a, b)
    a.local.misses, a.local.asks = lambda: True, lambda: ["c"]
    assert isinstance(begin(), Ping if counts > UNASKED else Delta)


def test_peers_hear_each_others_clock_however_much_they_have_to_tell() -> None:
    wall = [SECOND]
    a, b = (GossipNode(name, now=lambda: wall[0], steady=lambda: wall[0]) for name in "ab")
    began = list[type]()
    exchange(a, b)
    for _ in range(200):
        for one, other in ((a, b), (b, a)):
            wall[0] += SECOND // 20
            for _ in range(2 * UNASKED):
                one.record_satisfied()
            said, receiver, sender = [one.begin(other.node_id)], other, one
            began.append(type(said[0]))
            while said:
                said = [response for message in said for response in receiver.receive(message).responses]
                receiver, sender = sender, receiver
            assert len(began) < 3 or None not in (a.time.offset("b"), b.time.offset("a"))
    assert began.count(Delta) > 0.9 * len(began)


@pytest.mark.parametrize("wire", [False, True])
def test_after_the_ack_of_a_first_ping_news_are_pushed(wire: bool) -> None:
    """What was stated to no peer in particular is stated to the one that acknowledged it."""
    sent = over_the_wire if wire else lambda message: message
    a, b = node("a"), node("b")
    ack = only(b.receive(sent(a.ping())))
    assert isinstance(ack, Ack)
    assert a.receive(sent(ack)).converged
    for number in range(9):  # other first Pings take the place of that one
        a.tracker.anyone.state(VectorClock({Replica("c", 1): number + 1}).mark(a.state.rows.digest), None)
    known = a.tracker.peer("b")
    assert known is not None
    assert a.tracker.find_hash(known, a.state_hash.token(a.replica), a.replica) is not None
    a.add_constraint("x")
    push = a.begin("b")
    assert isinstance(push, Delta)
    b.receive(sent(push))
    assert b.state == a.state


def test_a_burst_for_another_life_is_answered_once() -> None:
    a, b = node("a", *(f"c{index}" for index in range(30))), node("b")
    exchange(a, b)
    a.remove_constraint("c0")
    a.collect()
    sync = only(a.receive(b.ping("a")))
    assert sync.to == b.replica.incarnation
    parts = split_message(sync, 60)
    assert len(parts) > 3
    again = node("b", incarnation=9)
    responses = [each for part in parts for each in again.receive(over_the_wire(part)).responses]
    assert [type(each) for each in responses] == [Ping]
    assert again.peer_count == 0


def test_of_a_burst_only_the_part_at_which_its_sender_pauses_is_answered() -> None:
    a, b = GossipNode("a", limits=Limits(burst_bytes=1000)), node("b")
    for index in range(200):
        a.add_constraint(scrambled(f"c{index}"))
    burst = [decode_message(each) for each in a.encoded(only(a.receive(b.ping())), "b", 200)]
    assert len(burst) > 3
    assert [len(b.receive(part).responses) for part in burst] == [0] * (len(burst) - 1) + [1]


def test_a_burst_in_another_order_is_asked_on_once_it_is_whole() -> None:
    a, b = GossipNode("a", limits=Limits(burst_bytes=1000)), node("b")
    for index in range(200):
        a.add_constraint(scrambled(f"c{index}"))
    burst = [decode_message(each) for each in a.encoded(only(a.receive(b.ping())), "b", 200)]
    other_way = [burst[-1], *burst[:-1]]
    assert [len(b.receive(part).responses) for part in other_way] == [0] * (len(burst) - 1) + [1]
    assert not [each for part in burst[:-1] for each in b.receive(part).responses], "a late copy asks for nothing"


def test_late_parts_of_a_burst_do_not_hold_up_the_next_question_of_its_sender() -> None:
    a, b = GossipNode("a", limits=Limits(burst_bytes=1000)), node("b")
    for index in range(200):
        a.add_constraint(scrambled(f"c{index}"))
    a.links.at = b.links.at = 0.0
    lost, *rest = [decode_message(each) for each in a.encoded(only(a.receive(b.ping())), "b", 200)]
    assert isinstance(lost, Part)
    assert not [each for part in [rest[-1], *rest[:-1]] for each in b.receive(part).responses]
    assert not b.is_transferring("a"), "its sender paused"
    asked = only(b.receive(a.ping("b")))
    assert isinstance(asked, Resume)
    assert asked.index == lost.index


def in_parts_to_b() -> tuple[GossipNode, GossipNode]:
    """Nodes a and b that know each other's clocks; a sent b a transfer in parts, of which none has arrived."""
    a, b = GossipNode("a", limits=Limits(burst_bytes=1000)), node("b")
    b.links.at = a.links.at = 0.0
    exchange(a, b)
    for index in range(200):
        a.add_constraint(scrambled(f"c{index}"))
    assert len(a.encoded(only(a.receive(b.ping("a"))), "b", 200)) > 1
    return a, b


def test_a_ping_beside_a_transfer_under_way_ends_with_one_answer() -> None:
    """The answer has nothing but the question for what is under way. Answered by another Ping, both went on without an end."""
    a, b = in_parts_to_b()
    delta = only(b.receive(a.ping("b")))
    assert isinstance(delta, Delta)
    assert not delta.delta.runs
    assert not a.receive(delta).responses
    a.links.at = 1000.0
    assert isinstance(only(a.receive(delta)), Delta), "the parts are lost"


def test_a_whole_state_beside_a_transfer_under_way_is_no_reason_for_a_ping() -> None:
    """A node answers each Ping of a node that it retired with its whole state: both went on without an end."""
    a, b = in_parts_to_b()
    third = node("c", "of c")
    exchange(third, b)
    whole = Sync(node=b.replica, clock=b.state.rows.clock, state_hash=b.state_hash, state=ConstraintDelta(b.state.rows.whole()))
    assert isinstance(only(a.receive(whole)), Delta), "the transfer under way is for another clock"
    assert isinstance(only(a.receive(whole)), Delta)


def test_news_beside_a_transfer_under_way_is_confirmed() -> None:
    a, b = in_parts_to_b()
    b.add_constraint(scrambled("of b"))
    delta = only(b.receive(a.ping("b")))
    assert isinstance(only(a.receive(delta)), Ping)


def test_a_peer_with_another_clock_than_that_of_the_transfer_under_way_gets_a_transfer() -> None:
    a, b = in_parts_to_b()
    third = node("c", "of c")
    exchange(third, b)
    exchange(third, a)
    delta = only(b.receive(a.ping("b")))
    assert isinstance(delta, Delta)
    assert not delta.delta.runs
    assert isinstance(only(a.receive(delta)), Delta)


# --- lives and fleets --------------------------------------------------------------------------------------------------


def test_a_message_for_another_life_is_not_taken_and_answered_with_the_present_one() -> None:
    a, b = node("a", "x"), node("b", "y")
    early = b.clock
    b.add_constraint("z")
    whole = only(a.receive(b.delta_since(early)))
    assert whole.to == b.replica.incarnation
    again = node("b", incarnation=9)
    answer = only(again.receive(whole))
    assert isinstance(answer, Ping)
    assert again.clock == VectorClock()
    assert "a" not in again.tracker, "what was not for this life is no evidence"
    delta = only(a.receive(answer))
    assert again.receive(delta).state_changed
    assert a.tracker.peer("b") is not None
    assert "x" in again.state.constraints


@pytest.mark.parametrize("starter", ["a", "b"])
def test_after_a_restart_one_exchange_is_enough_whoever_begins(starter: str) -> None:
    a, b = node("a", "x"), node("b", "y")
    exchange(a, b)
    again = node("b", "z", incarnation=9)
    exchange(*((a, again) if starter == "a" else (again, a)))
    assert a.state == again.state
    assert sorted(a.state.constraints) == ["x", "y", "z"]
    assert a.converged
    assert again.converged


def test_a_message_of_a_former_life_of_mine_makes_me_no_peer_of_myself() -> None:
    old = node("a", "x")
    new = node("a", incarnation=2)
    assert new.receive(old.ping()).responses == []
    assert new.peer_count == 0
    assert new.converged


def test_who_hears_of_more_of_its_life_than_it_knows_takes_a_new_one_and_loses_nothing() -> None:
    a, b = node("a", "x"), node("b")
    exchange(a, b)
    again = node("a")
    again_result = again.receive(b.delta_since(VectorClock()))
    assert again_result.outlived == Replica("a", 1)
    again.add_constraint("y")
    assert again.replica == Replica("a", 2)
    assert again.clock[Replica("a", 1)] == 1
    again.record_satisfied(5)
    exchange(again, b)
    assert sorted(b.state.constraints) == ["x", "y"]
    assert b.state.metrics.node_satisfied("a") == 5


def test_a_life_that_was_heard_of_through_a_merge_is_over_too() -> None:
    a, b = node("a", "x"), node("b")
    b.state.merge(a.state)
    again = node("a")
    again.state.merge(b.state)
    again.add_constraint("y")
    assert again.replica.incarnation == 2


def test_another_fleet_is_refused_in_one_sentence_and_nothing_changes() -> None:
    a = GossipNode("a", fleet="north")
    b = node("b", "x")
    with pytest.raises(ConstraintCrdtError, match=r"fleet 'default'.*'north'"):
        a.receive(b.ping())
    assert (a.rounds, a.peer_count, len(a.state.constraints)) == (0, 0, 0)


# --- transfers ---------------------------------------------------------------------------------------------------------


def test_delta_since_is_whole_and_serves_anybody_at_that_clock() -> None:
    a = node("a", "x")
    clock = a.clock
    a.add_constraint("y")
    message = a.delta_since(clock)
    assert isinstance(message, Delta)
    assert len(message.delta) == 1
    c = node("c")
    answer = only(c.receive(over_the_wire(message)))
    assert isinstance(answer, Ping), "it starts above c's clock: c says where it stands"
    assert c.clock == VectorClock()
    c.receive(over_the_wire(a.delta_since(VectorClock())))
    assert c.state == a.state


def test_a_peer_below_the_floors_gets_a_sync_and_nothing_comes_back() -> None:
    a, b = node("a", "x", "y"), node("b")
    exchange(a, b)
    a.remove_constraint("x")
    assert a.collect() == 1
    assert a.collect() == 0
    message = only(a.receive(b.ping()))
    assert isinstance(message, Sync)
    assert isinstance(a.delta_since(VectorClock()), Sync)
    b.receive(over_the_wire(message))
    assert list(b.state.constraints) == ["y"]
    assert b.state == a.state
    assert b.state.rows.floors == a.state.rows.floors
    stale = node("c", "of-c")
    exchange(stale, b)
    assert sorted(b.state.constraints) == ["of-c", "y"]


@pytest.mark.parametrize("collected", [False, True])
def test_a_transfer_of_which_a_part_is_missing_changes_nothing(collected: bool) -> None:
    a, b = node("a", *(f"c{index}" for index in range(30))), node("b")
    exchange(a, b)
    for index in range(20):
        a.remove_constraint(f"c{index}")
    a.record(3, 4)
    if collected:
        a.collect()
    message = a.delta_since(b.clock)
    assert isinstance(message, Sync if collected else Delta)
    parts = [encode_message(part) for part in split_message(message, 60)]
    assert len(parts) > 3
    assert all(len(part) <= 60 for part in parts)
    before, cells, floors = b.state_hash, len(b.state.rows), b.state.rows.floors
    for part in reversed(parts[1:] + parts[2:]):
        assert not b.receive(decode_message(part)).state_changed
    assert (b.state_hash, len(b.state.rows), b.state.rows.floors) == (before, cells, floors)
    assert b.receive(decode_message(parts[0])).state_changed
    assert b.state == a.state


def test_a_sync_that_leaves_out_the_start_of_a_row_is_refused() -> None:
    """Whatever a Sync does not list is dropped, so it must list all that it accounts for."""
    a, b = node("a", "x"), node("b")
    exchange(a, b)
    a.add_constraint("y")
    forged = Sync(node=a.replica, state_hash=a.state_hash, state=ConstraintDelta(a.state.rows.since(b.clock.as_dict())))
    hash_ = b.state_hash
    with pytest.raises(ConstraintCrdtError, match="every row from its start"):
        b.receive(forged)
    assert b.state_hash == hash_
    assert "x" in b.state.constraints


def test_the_same_message_cut_in_two_ways_does_not_mix() -> None:
    """Found by the histories: parts of different cuts had one name and were refused as a contradiction."""
    a, b = node("a", *(f"c{index}" for index in range(30))), node("b")
    message = a.delta_since(VectorClock())
    first, second = split_message(message, 60), split_message(message, 90)
    for part in (first[0], *second):
        b.receive(part)
    assert b.state == a.state


def test_a_delta_that_builds_on_what_i_lack_changes_nothing_also_where_it_has_no_run_for_it() -> None:
    """A Delta is the sender's whole state only to one who has all below it: also in the rows that it has no news of."""
    a, b, c = GossipNode("a"), GossipNode("b"), GossipNode("c")
    b.add_constraint("x")
    exchange(a, b)
    a.remove_constraint("x")
    delta = a.delta_since(b.clock)  # for b: nothing of b's row in it
    before = c.state_hash
    result = c.receive(delta)
    assert c.state_hash == before
    assert not result.state_changed
    assert [type(response).__name__ for response in result.responses] == ["Ping"], "it is told where c stands"
    exchange(a, c)
    assert c.state == a.state
