"""`RoomIncrements` against a plain set of (node, seq) over random histories of three replicas.

Pages are two levels high and increments are taken together in fours, so that small histories reach every depth.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from constraint_crdt import Counts, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types import counters
from constraint_crdt.types.counters import RoomIncrements
from tests.conftest import BUDGET

REPLICAS = [Replica(name, 1) for name in "abc"]
ROOMS = ["r", "s/t"]
NODES = ["x", "y"]
EXAMPLES = 2000 if BUDGET == "nightly" else 8


def true_counts(node: str, seq: int) -> Counts:
    """What an honest node counted under a seq: the same to whomever it tells."""
    return Counts(seq % 3, (seq * 7 + len(node)) % 2)


def rows_of(view: RoomIncrements) -> Rows:
    """The cells under a view."""
    return view._rows


@dataclass
class Place:
    """One replica, and all that it should know."""

    view: RoomIncrements = field(default_factory=RoomIncrements)
    told: set[tuple[str, str, int]] = field(default_factory=set)

    def check(self) -> None:
        for room in ROOMS:
            expected: dict[str, Counts] = {}
            for at, node, seq in self.told:
                if at == room:
                    expected[node] = expected.get(node, Counts()).plus(*true_counts(node, seq))
            assert self.view.by_node(room) == expected
            sums = map(sum, zip(*expected.values(), strict=True)) if expected else ()
            assert self.view.total(room) == Counts(*sums)
        assert self.view.rooms == sorted({room for room, _, _ in self.told})


seqs = st.integers(0, 40) | st.integers(0, 8)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), st.integers(0, 2), st.sampled_from(ROOMS), st.sampled_from(NODES), seqs),
        st.tuples(st.just("stream"), st.integers(0, 2), st.sampled_from(ROOMS), st.sampled_from(NODES), seqs),
        st.tuples(st.just("merge"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("stale"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("collect"), st.integers(0, 2)),
    ),
    max_size=40,
)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "FOLD_AT", 3)
    monkeypatch.setattr(counters, "PAGE_LEVELS", 2)


def run(history: list[tuple[object, ...]]) -> list[Place]:
    places = [Place() for _ in REPLICAS]
    mailed: list[tuple[int, RoomIncrements, set[tuple[str, str, int]]]] = []
    for act, who, *rest in history:
        assert isinstance(who, int)
        me = places[who]
        if act in ("apply", "stream"):
            room, node, seq = str(rest[0]), str(rest[1]), int(str(rest[2]))
            for each in range(seq, seq + (6 if act == "stream" else 1)):
                news = me.view.apply(room, node, each, *true_counts(node, each), node=REPLICAS[who])
                assert news == ((room, node, each) not in me.told)
                me.told.add((room, node, each))
                me.check()
        elif act == "merge":
            other = places[int(str(rest[0]))]
            me.view.merge(other.view)
            me.told |= other.told
            me.check()
        elif act == "stale":
            mailed.append((int(str(rest[0])), RoomIncrements(rows_of(me.view).copy()), set(me.told)))
            if len(mailed) > 2:  # something sent a while ago arrives, whoever has written since
                to, sent, told = mailed.pop(0)
                places[to].view.merge(sent)
                places[to].told |= told
                places[to].check()
        else:
            rows_of(me.view).collect()
            me.check()
    return places


@pytest.mark.slow
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(history=steps)
def test_each_increment_counts_once_everywhere(history: list[tuple[object, ...]]) -> None:
    places = run(history)
    whole = RoomIncrements()
    for place in places:
        whole.merge(place.view)
    everything = Place(whole, set().union(*(place.told for place in places)))
    everything.check()
    for place in places:
        place.view.merge(whole)
        assert rows_of(place.view).state_hash == rows_of(whole).state_hash
    anew = RoomIncrements(rows_of(whole).copy())
    assert [anew.by_node(room) for room in ROOMS] == [whole.by_node(room) for room in ROOMS]
