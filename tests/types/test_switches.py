"""Switches: which constraints are disabled, against a model that knows only who knew what."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica, UnknownConstraint, exchange
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.orset import ALL, SWITCH, Switches

A, B, C = (Replica(name, 1) for name in "abc")


@dataclass
class Write:
    """A switch as the model sees it."""

    node: int
    disabled: bool
    until: int | None
    time: int
    knew: list["Write"] = field(default_factory=list)

    @property
    def chain(self) -> int:
        """The switches in the longest chain up to this one, each known to the writer of the next."""
        return 1 + max((each.chain for each in self.knew), default=0)


def expected(known: list[Write], now: int) -> bool:
    """Whether the constraint is disabled: of the writes with the longest chain an enabling, else the latest decides."""
    last = [each for each in known if each.chain == max(other.chain for other in known)]
    counting = max(last, key=lambda each: (not each.disabled, each.time, each.node), default=None)
    return counting is not None and counting.disabled and (counting.until is None or counting.until > now)


steps = st.lists(
    st.tuples(
        st.sampled_from(("disable", "disable", "enable", "merge", "merge")),
        st.integers(0, 2),
        st.integers(0, 2),
        st.none() | st.integers(1, 40),
    ),
    max_size=14,
)


@pytest.mark.slow
@given(steps, st.integers(0, 40))
def test_the_switch_that_counts_follows_from_who_knew_what(taken: list[tuple[str, int, int, int | None]], now: int) -> None:
    states = [ConstraintState(now=lambda: now) for _ in range(3)]
    known: list[list[Write]] = [[], [], []]
    for time, (what, node, other, until) in enumerate(taken):
        if what == "merge":
            states[node].merge(states[other])
            known[node] = known[node] + [each for each in known[other] if each not in known[node]]
            continue
        disabled = what == "disable"
        end = until if disabled else None
        if states[node].switches.put_all(["x"], disabled=disabled, until=end, time=time, node=(A, B, C)[node]):
            # A switch of the same row takes the place of the one before it, as everything that it knew does.
            known[node] = [*known[node], Write(node, disabled, end, time, list(known[node]))]
    for state, writes in zip(states, known, strict=True):
        assert ("x" in state.switches) == expected(writes, now)
    for state in states[1:]:
        states[0].merge(state)
    assert ("x" in states[0].switches) == expected([each for writes in known for each in writes], now)
    assert list(Switches(states[0].rows, now=lambda: now)) == list(states[0].switches)


def test_concurrently_disabled_and_enabled_it_is_in_force() -> None:
    a, b = GossipNode("a", incarnation=1), GossipNode("b", incarnation=1)
    a.add_constraint("x", when="v < 1")
    a.disable(["x"], why="fires everywhere")
    exchange(a, b)
    a.disable(["x"], why="still")
    b.enable(["x"])
    exchange(a, b)
    assert ("x" in a.state.switches, "x" in b.state.switches) == (False, False)
    a.disable(["x"])
    exchange(a, b)
    assert ("x" in b.state.switches, a.check({"v": 2}), b.check({"v": 2})) == (True, [], [])


def test_all_constraints_and_single_ones_are_disabled_apart() -> None:
    node = GossipNode("a", incarnation=1)
    for id_ in ("x", "y"):
        node.add_constraint(id_, when="v < 1")
    node.disable(["y"], why="noise", actor="bob")
    node.disable([ALL], why="storm", actor="alice")
    assert [(each.id, each.actor) for id_ in "xy" if (each := node.state.switches.disabling(id_))] == [("", "alice"), ("y", "bob")]
    assert node.enable([ALL]) == [""]
    assert (list(node.state.switches), node.state.switches.of_all) == (["y"], None)
    assert (node.enable(["x", "y"]), node.enable(["x", "y"])) == (["y"], [])
    with pytest.raises(UnknownConstraint):
        node.disable(["z"])
    with pytest.raises(ConstraintCrdtError, match="ttl"):
        node.disable(["x"], ttl=-1)


def test_a_disabling_ends_by_itself_and_turns_are_told_once() -> None:
    now = [1_000]
    state = ConstraintState(now=lambda: now[0])
    assert state.switches.take_turned() == []
    state.switches.put_all(["x"], disabled=True, until=2_000, why="w" * 300, actor="ä" * 100, node=A)
    assert state.switches.has_turned
    ((id_, before, after, _),) = state.switches.take_turned()
    assert (id_, before, after and after.until) == ("x", None, 2_000)
    assert (state.switches.take_turned(), state.switches.has_turned) == ([], False)
    now[0] = 2_000
    assert ("x" in state.switches, state.switches.has_turned, len(state.switches)) == (False, True, 0)
    ((_, before, after, cause),) = state.switches.take_turned()
    assert (before and before.until, after, cause and cause.disabled) == (2_000, None, True)
    assert len(state.rows.get(SWITCH, "x", A).data) < 400  # type: ignore[union-attr]


def test_a_removed_constraint_is_in_force_when_it_is_added_again() -> None:
    node = GossipNode("a", incarnation=1)
    node.add_constraint("x", when="v < 1")
    node.disable(["x"], why="noise")
    node.add_constraint("x", when="v < 2")
    assert "x" in node.state.switches, "an edit changes nothing of that"
    node.remove_constraint("x")
    node.add_constraint("x", when="v < 1")
    assert "x" not in node.state.switches
