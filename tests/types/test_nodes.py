"""Lives that are over: what is refused, what is still taken, and which clock entries travel."""

from itertools import count

import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica, exchange
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.protocol.messages import Ping, decode_message, encode_message


def nodes(*names: str) -> list[GossipNode]:
    return [GossipNode(name, incarnation=1, renew=count(100).__next__) for name in names]


def wired(a: GossipNode, b: GossipNode) -> None:
    """An exchange over bytes."""
    waiting = [(b, a.begin(b.node_id))]
    for _ in range(20):
        if not waiting:
            return
        reader, message = waiting.pop(0)
        other = a if reader is b else b
        waiting += [(other, response) for response in reader.receive(decode_message(encode_message(message))).responses]
    raise AssertionError("the exchange did not end")


def test_a_retired_nodes_counts_stay_and_its_messages_are_refused() -> None:
    a, b, c = nodes("a", "b", "c")
    c.record_satisfied(5)
    exchange(a, c)
    exchange(a, b)
    assert [(str(life.replica), life.seq) for life in a.retire("c")] == [("c~1", 1)]
    exchange(a, b)
    assert b.state.metrics.node_satisfied("c") == 5
    assert "c" in b.state.retirements
    before = b.state_hash
    c.record_satisfied(1)
    (answer,) = b.receive(c.delta_since(b.clock)).responses
    assert b.state_hash == before, "nothing is taken; it is told, instead, that it is retired"
    assert c.receive(answer).responses == []
    assert c.retired_by == "a"


def test_a_retired_node_that_returns_is_told_and_cannot_write() -> None:
    a, b = nodes("a", "b")
    b.record_satisfied(5)
    exchange(a, b)
    a.retire("b")
    (answer,) = a.receive(b.ping("a")).responses
    b.receive(answer)
    assert b.retired_by == "a"
    with pytest.raises(ConstraintCrdtError, match="retired by a"):
        b.record_satisfied(1)
    assert b.state.metrics.node_satisfied("b") == 5


def test_another_life_of_a_retired_node_is_refused_too() -> None:
    a, b = nodes("a", "b")
    b.record_satisfied(5)
    exchange(a, b)
    a.retire("b")
    again = GossipNode("b", incarnation=2)
    again.add_constraint("mine")
    exchange(again, a)
    assert "mine" not in a.state.constraints
    assert again.retired_by == "a"


def test_cells_of_a_retired_node_that_others_relay_are_taken() -> None:
    a, b, c = nodes("a", "b", "c")
    c.add_constraint("early")
    exchange(a, c)
    c.add_constraint("late")
    exchange(b, c)  # only b hears of the last write
    a.retire("c")
    exchange(a, b)
    assert sorted(a.state.constraints) == ["early", "late"]
    assert a.state == b.state


def test_retiring_needs_a_node_that_wrote_and_another_one_than_oneself() -> None:
    (a,) = nodes("a")
    with pytest.raises(KeyError):
        a.retire("b")
    with pytest.raises(ConstraintCrdtError, match="itself"):
        a.retire("a")


def test_the_clock_entry_of_an_ended_life_stops_travelling() -> None:
    a, b, c = nodes("a", "b", "c")
    for node in (b, c):
        node.record_satisfied(1)
        exchange(a, node)
    a.retire("c")
    exchange(a, b)
    ping = decode_message(encode_message(a.ping()))
    assert isinstance(ping, Ping)
    assert ping.clock is not None
    assert Replica("c", 1) not in ping.clock
    (answer,) = b.receive(ping).responses
    assert type(answer).__name__ == "Ack", "b infers the entry, and so that it knows the same"


def test_an_entry_other_than_the_end_is_spelled_out_zero_included() -> None:
    a, b, c = nodes("a", "b", "c")
    c.record_satisfied(1)
    exchange(b, c)
    b.retire("c")
    c.record_satisfied(1)
    a.state.rows.apply([run for run in b.state.rows.whole() if run.replica.node_id == "b"])  # the retire cell without c's row
    assert (Replica("c", 1), 0) in a.ping().changes


def test_somebody_who_lacks_the_retire_cell_still_gets_everything() -> None:
    a, b, c, d = nodes("a", "b", "c", "d")
    c.record_satisfied(3)
    exchange(a, c)
    a.retire("c")
    d.add_constraint("new")
    wired(a, d)
    wired(d, b)
    wired(b, a)
    assert a.state == b.state == d.state
    assert a.converged


def test_a_chain_of_lives_each_retiring_the_one_before_is_inferred_whole() -> None:
    a, b = nodes("a", "b")
    for _ in range(5):
        a.record_satisfied(1)
        exchange(a, b)
        a.local.written = -1  # as if it had started again without a marker
    a.record_satisfied(1)
    exchange(a, b)
    assert b.state.metrics.node_satisfied("a") == 6
    ping = decode_message(encode_message(a.ping()))
    assert isinstance(ping, Ping)
    assert ping.clock is not None
    assert len(ping.clock) == 1, "one entry, however many lives there were"
    (answer,) = b.receive(ping).responses
    assert type(answer).__name__ == "Ack"


def test_a_clock_that_is_spelled_out_says_0_for_an_ended_life_that_is_not_held() -> None:
    """Else its reader would infer more than the speaker has: found by the histories, where a node had lost what it knew."""
    a, b, c = nodes("a", "b", "c")
    c.record_satisfied(1)
    exchange(b, c)
    b.retire("c")
    exchange(a, b)
    d = GossipNode("d", incarnation=1)
    d.state.rows.apply([run for run in b.state.rows.whole() if run.replica.node_id == "b"])  # the retire cell without c's row
    ping = d._composer.whole_ping(None, spelled_out=True)
    assert (Replica("c", 1), 0) in ping.changes
    a.receive(decode_message(encode_message(ping)))
    assert a.tracker.clock("d") == d.clock


# --- retirements that were a mistake -----------------------------------------------------------------------------------------


def test_a_node_whose_retirement_is_undone_goes_on_in_a_new_life_and_its_counts_stay_exact() -> None:
    a, b, c = nodes("a", "b", "c")
    b.record_satisfied(5)
    exchange(a, b)
    a.retire("b")
    exchange(a, c)
    b.record_satisfied(7)  # cut off: it does not know
    exchange(b, a)
    assert b.state.retirements.nodes == ["b"]
    assert a.state.metrics.node_satisfied("b") == 5
    a.undo_retirement("b")
    assert (a.state.retirements.nodes, a.state.retirements.by("b"), a.state.retirements.undone_by("b")) == ([], None, ["a"])
    exchange(a, b)
    assert b.retired_by is None
    assert a.state.metrics.node_satisfied("b") == 12, "nothing of its former life is lost"
    b.record_satisfied(1)
    assert b.replica == Replica("b", 100)
    for one, other in ((a, b), (a, c), (b, c)):
        wired(one, other)
    assert {node.state.metrics.node_satisfied("b") for node in (a, b, c)} == {13}
    assert a.state == b.state == c.state
    assert all(node.converged for node in (a, b, c))
    b.record_satisfied(1)
    assert b.replica == Replica("b", 100), "one new life is enough"


def test_a_node_may_be_retired_again_after_that() -> None:
    a, b = nodes("a", "b")
    b.record_satisfied(1)
    exchange(a, b)
    a.retire("b")
    a.undo_retirement("b")
    a.retire("b")
    assert a.state.retirements.nodes == ["b"]
    exchange(a, b)
    assert b.retired_by == "a"


def test_only_what_was_seen_is_undone() -> None:
    """A retirement by another node, elsewhere at the same time, stands."""
    a, b, c = nodes("a", "b", "c")
    b.record_satisfied(1)
    for node in (a, c):
        exchange(node, b)
    a.retire("b")
    a.undo_retirement("b")
    c.retire("b")
    exchange(a, c)
    assert a.state.retirements.by("b") == c.state.retirements.by("b") == "c"


def test_a_node_in_service_is_given_no_second_life() -> None:
    a, b = nodes("a", "b")
    b.record_satisfied(1)
    exchange(a, b)
    before = a.state_hash
    with pytest.raises(ConstraintCrdtError, match=r"^b is not retired$"):
        a.undo_retirement("b")
    a.retire("b")
    exchange(a, b)
    with pytest.raises(ConstraintCrdtError, match=r"^node b was retired by a"):
        b.retire("a")
    with pytest.raises(ConstraintCrdtError, match=r"^node b was retired by a"):
        b.undo_retirement("b")
    assert a.state_hash != before


def test_what_does_not_count_is_over_for_good_once_an_operator_acts_on_what_counts() -> None:
    """Of two that retired each other the first stays. Its retirement is undone: the other one's does not come back."""
    a, b, c = nodes("a", "b", "c")
    for node in (a, b, c):
        node.record_satisfied(1)
    for one, other in ((a, b), (a, c), (b, c)):
        exchange(one, other)
    a.retire("b")
    b.retire("a")
    exchange(a, b)
    exchange(a, c)
    assert [node.state.retirements.nodes for node in (a, b, c)] == [["b"], ["b"], ["b"]]
    c.undo_retirement("b")
    for _ in range(2):
        for one, other in ((a, b), (a, c), (b, c)):
            exchange(one, other)
    assert [node.state.retirements.nodes for node in (a, b, c)] == [[], [], []]
    assert a.state == b.state == c.state


@pytest.mark.slow
def test_a_large_state_is_told_to_a_retired_node_in_parts() -> None:
    a, b = (GossipNode(name, incarnation=1, limits=Limits(burst_bytes=4096)) for name in ("a", "b"))
    b.record_satisfied(1)
    exchange(a, b)
    a.retire("b")
    for number in range(500):
        a.add_constraint(f"constraint-{number:03}", about=f"{number * 7919:x}" * 8)
    waiting = [(a, data) for data in b.encoded(b.begin("a"), "a", 2048)]
    said = 0
    while waiting:
        reader, data = waiting.pop(0)
        other = b if reader is a else a
        said += 1
        assert said < 500, "they talk without end"
        for response in reader.receive(decode_message(data, max_bytes=None)).responses:
            waiting += [(other, each) for each in reader.encoded(response, other.node_id, 2048)]
    assert b.retired_by == "a"
