"""Nodes that retire each other on the sides of cuts (docs/design/forgetting.md#retirements-that-contradict-each-other).

Random retirements and undone ones under random partial deliveries, with plain rows and with signed ones. Equal clocks have equal
readings at each step; in the end all agree on who is retired, a node at least is in service, and nobody waits for ever.
"""

from collections.abc import Sequence
from itertools import count, permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica
from constraint_crdt.crdt.clock import Dot
from constraint_crdt.protocol.messages import decode_message
from constraint_crdt.simulation.histories import SimulatedCredentials
from constraint_crdt.types.nodes import Retirement, standing

NAMES = ("a", "b", "c", "d", "e")
MESSAGES = 16
"""More than an exchange may take."""

Act = tuple[str, int, int, int]
places = st.integers(0, len(NAMES) - 1)
acts = st.tuples(
    st.sampled_from(["write", "retire", "retire", "retire", "undo", "exchange", "exchange", "exchange"]),
    places,
    places,
    st.sampled_from([1, 2, 3, MESSAGES]),
)


class Cut:
    """A fleet whose nodes met once, and then hear of each other by chance."""

    def __init__(self, nodes: int, *, signed: bool, ending: bool) -> None:
        """`ending`: a node that was retired answers once more, and then ends."""
        lives = count(100)
        self.nodes = [
            GossipNode(
                name, incarnation=1, now=lambda: 10**18, renew=lives.__next__,
                credentials=SimulatedCredentials(name) if signed else None, fleet="cut",
            )
            for name in NAMES[:nodes]
        ]  # fmt: skip
        self.ending = ending
        self.ended: set[str] = set()
        self.readings: dict[tuple[tuple[Replica, int], ...], tuple[object, ...]] = {}
        for node in self.nodes:
            node.record(1)
        for place in range(nodes):
            for other in range(nodes):
                self.exchange(place, other, MESSAGES)

    def act(self, act: Act) -> None:
        what, by, about, most = act
        node, other = self.nodes[by % len(self.nodes)], self.nodes[about % len(self.nodes)]
        if what == "exchange":
            self.exchange(by % len(self.nodes), about % len(self.nodes), most)
        elif node.retired_by is None and node.node_id not in self.ended:
            if what == "write":
                node.record(1)
            elif what == "retire" and node is not other:
                node.retire(other.node_id)
            elif what == "undo" and other.node_id in node.state.retirements:
                node.undo_retirement(other.node_id)
                self.ended.discard(other.node_id)  # it is started again
        self.observe(node)

    def exchange(self, place: int, other: int, most: int) -> None:
        """An exchange of which the first `most` messages arrive."""
        a, b = self.nodes[place], self.nodes[other]
        if a is b or {a.node_id, b.node_id} & self.ended:
            return
        waiting = [(a, b, payload) for payload in a.encoded(a.begin(b.node_id), b.node_id)]
        for _ in range(most):
            if not waiting:
                break
            sender, reader, payload = waiting.pop(0)
            try:
                responses = reader.receive(decode_message(payload)).responses
            except ConstraintCrdtError:
                assert sender.node_id in reader.state.retirements, "nothing else is refused"
                continue
            waiting += [(reader, sender, data) for each in responses for data in reader.encoded(each, sender.node_id)]
            self.observe(reader)
        else:
            assert most < MESSAGES or not waiting, "they talk without end"
        if self.ending:
            self.ended |= {node.node_id for node in (a, b) if node.retired_by is not None}

    def observe(self, node: GossipNode) -> None:
        """Equal clocks, equal readings."""
        key = tuple(sorted(node.clock.items()))
        reading = (*node.state.retirements.nodes,), node.state_hash
        assert self.readings.setdefault(key, reading) == reading

    def settle(self) -> list[GossipNode]:
        """The cut heals: every node meets every other one, three times. Returns the running nodes in service."""
        for _ in range(3):
            for place, other in permutations(range(len(self.nodes)), 2):
                self.exchange(place, other, MESSAGES)
        return [node for node in self.nodes if node.retired_by is None and node.node_id not in self.ended]


@pytest.mark.parametrize("signed", [False, True])
@given(nodes=st.integers(2, 5), steps=st.lists(acts, max_size=25))
@example(nodes=2, steps=[("retire", 0, 1, 1), ("retire", 1, 0, 1)])
@example(nodes=3, steps=[("retire", 0, 1, 1), ("retire", 1, 2, 1), ("retire", 2, 0, 1)])
@example(nodes=3, steps=[("retire", 2, 1, 1), ("retire", 1, 0, 1), ("retire", 0, 2, 1), ("exchange", 0, 1, 3)])
def test_all_agree_on_who_is_retired_and_somebody_is_left(nodes: int, steps: Sequence[Act], signed: bool) -> None:
    cut = Cut(nodes, signed=signed, ending=False)
    for step in steps:
        cut.act(step)
    left = cut.settle()
    assert left, "nobody is in service"
    assert len({tuple(node.state.retirements) for node in cut.nodes}) == 1, "also the retired ones know"
    assert {node.node_id for node in cut.nodes} - set(cut.nodes[0].state.retirements) == {node.node_id for node in left}
    assert len({node.state_hash for node in left}) == 1
    assert all(node.converged for node in left)
    for node in left:
        node.record(1)


@pytest.mark.parametrize("signed", [False, True])
@given(nodes=st.integers(2, 5), steps=st.lists(acts, max_size=25))
@example(nodes=2, steps=[("retire", 0, 1, 1), ("retire", 1, 0, 1)])
def test_the_running_nodes_agree_though_each_that_learns_that_it_was_retired_ends(
    nodes: int, steps: Sequence[Act], signed: bool
) -> None:
    cut = Cut(nodes, signed=signed, ending=True)
    for step in steps:
        cut.act(step)
    left = cut.settle()
    assert len({node.state_hash for node in left}) <= 1
    assert len({tuple(node.state.retirements) for node in left}) <= 1
    for node in left:
        gone = cut.ended - set(node.state.retirements)  # ended though it is in service: it did not hear of that
        assert gone or node.converged


def retirement(writer: str, seq: int, **ends: int) -> Retirement:
    """A retirement of nodes by the mutation `seq` of `writer`, which knew so many of their mutations."""
    return Retirement(Dot(Replica(writer, 1), seq), frozenset(ends), {Replica(name, 1): end for name, end in ends.items()})


def writers(*said: Retirement) -> list[str]:
    """The writers of those that count, however they are ordered."""
    results = {tuple(sorted(dot.replica.node_id for dot in standing(order))) for order in permutations(said)}
    (result,) = results
    return list(result)


def test_of_two_that_retire_each_other_the_first_name_stays() -> None:
    assert writers(retirement("b", 2, a=1), retirement("a", 2, b=1)) == ["a"]


def test_who_retires_fewer_nodes_stays() -> None:
    """The smaller side of a cut retires more nodes."""
    alone = [retirement("a", 2, b=1), retirement("a", 3, c=1), retirement("a", 4, d=1)]
    assert writers(*alone, retirement("b", 2, a=1)) == ["b"]


def test_a_retirement_that_was_seen_counts() -> None:
    assert writers(retirement("a", 2, b=1), retirement("c", 2, a=2)) == ["a", "c"]


def test_what_a_retired_node_retires_later_does_not_count() -> None:
    assert writers(retirement("a", 2, b=1), retirement("b", 2, c=1), retirement("c", 2, d=1)) == ["a", "c"]


def test_a_circle_of_three_is_settled_by_its_first() -> None:
    assert writers(retirement("c", 2, a=1), retirement("a", 2, b=1), retirement("b", 2, c=1)) == ["a"]


def test_a_circle_is_settled_before_what_depends_on_it() -> None:
    """`a` is retired by a node that is in service in the end, although its own retirement comes first in the order."""
    said = [retirement("c", 2, d=1), retirement("d", 2, c=1), retirement("c", 3, a=1), retirement("a", 2, b=1)]
    assert writers(*said) == ["a", "d"]
    others = [
        retirement("c", 2, d=1),
        retirement("d", 2, c=1),
        retirement("d", 3, e=1),
        retirement("c", 3, a=1),
        retirement("a", 2, b=1),
    ]
    assert writers(*others) == ["c", "c"]


retirements = st.builds(
    lambda writer, seq, nodes, end: retirement(writer, seq, **{node: end for node in set(nodes) - {writer}}),  # noqa: C420
    st.sampled_from(NAMES),
    st.integers(1, 6),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=2),
    st.integers(0, 6),
)


@given(said=st.lists(retirements, max_size=9, unique_by=lambda each: each.dot), shuffled=st.randoms(use_true_random=False))
def test_what_counts_follows_from_the_set_and_is_free_of_contradictions(said: list[Retirement], shuffled: object) -> None:
    counting = standing(said)
    order = list(said)
    shuffled.shuffle(order)  # type: ignore[attr-defined]
    assert standing(order) == counting
    chosen = [each for each in said if each.dot in counting]
    assert not any(one.contradicts(other) for one in chosen for other in chosen)
    for each in said:
        if not any(other.contradicts(each) for other in said):
            assert each.dot in counting, "nothing contradicts it"
        if each.dot not in counting:
            assert any(other.contradicts(each) or each.contradicts(other) for other in chosen), "it would contradict none"
