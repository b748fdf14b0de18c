"""Which constraints a monitoring system is told of by name, and what it is told of the others, against a plain model."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from constraint_crdt.http.metrics import OTHER, MostViolated
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.counters import Counts
from constraint_crdt.types.definition import check_definition

MOST = 2
IDS = st.sampled_from(["a", "b", "c", "d", OTHER])
NODE = "forge"
NAMED = check_definition(None, "warning", None, None, None)


class Readings(RuleBasedStateMachine):
    """Constraints come, count and go; somebody reads now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ConstraintState()
        self.read = MostViolated(MOST)
        self.counts: dict[str, list[int]] = {}
        self.told: dict[str, Counts] | None = None
        self.since: list[tuple[str | None, int, int]] = []

    @rule(id_=IDS)
    def add(self, id_: str) -> None:
        self.state.constraints.put(id_, NAMED, node=NODE)
        self.counts.setdefault(id_, [0, 0])

    @rule(id_=IDS)
    def remove(self, id_: str) -> None:
        if id_ in self.state.constraints:
            self.state.constraints.remove(id_, node=NODE)

    @rule(id_=IDS | st.none(), satisfied=st.integers(0, 9), violated=st.integers(0, 9))
    def record(self, id_: str | None, satisfied: int, violated: int) -> None:
        if id_ is None or id_ in self.counts:
            self.state.metrics.record(NODE, satisfied, violated, constraint=id_)
            self.since.append((id_, satisfied, violated))
            if id_ is not None:
                self.counts[id_][0] += satisfied
                self.counts[id_][1] += violated

    @rule()
    def look(self) -> None:
        told = self.read.read(self.state)
        active = sorted((id_ for id_ in self.state.constraints if id_ != OTHER), key=lambda id_: (-self.counts[id_][1], id_))
        assert list(told) == [*active[:MOST], OTHER]
        assert all(list(told[id_]) == self.counts[id_] for id_ in active[:MOST])
        assert told[OTHER] == self.rest(told)
        self.told, self.since = told, []

    def rest(self, told: dict[str, Counts]) -> Counts:
        """What was counted without a name: at first all that is not told by name, later what no series with a name showed."""
        if self.told is None:
            named = [counts for id_, counts in told.items() if id_ != OTHER]
            total = self.state.metrics.total
            return Counts(total[0] - sum(each[0] for each in named), total[1] - sum(each[1] for each in named))
        kept = (self.told.keys() & told.keys()) - {OTHER}
        moved = [(satisfied, violated) for id_, satisfied, violated in self.since if id_ not in kept]
        return self.told[OTHER].plus(sum(each[0] for each in moved), sum(each[1] for each in moved))


TestReadings = Readings.TestCase


def test_a_constraint_that_is_gone_and_folded_makes_no_jump() -> None:
    state, reading = ConstraintState(), MostViolated(1)
    state.constraints.put("a", NAMED, node=NODE)
    state.metrics.record(NODE, 5, 7, constraint="a")
    assert reading.read(state) == {"a": (5, 7), OTHER: (0, 0)}
    state.constraints.remove("a", node=NODE)
    assert state.metrics.fold(["a"], node=NODE) == 1
    assert reading.read(state) == {OTHER: (0, 0)}
    state.metrics.record(NODE, 1, 2)
    assert reading.read(state) == {OTHER: (1, 2)}


def test_one_that_is_back_after_its_counts_were_folded_takes_nothing_from_the_rest() -> None:
    state, reading = ConstraintState(), MostViolated(1)
    state.constraints.put("a", NAMED, node=NODE)
    state.metrics.record(NODE, 5, 7, constraint="a")
    reading.read(state)
    state.constraints.remove("a", node=NODE)
    state.metrics.fold(["a"], node=NODE)
    state.constraints.put("a", NAMED, node=NODE)
    state.metrics.record(NODE, 0, 1)
    assert reading.read(state) == {"a": (0, 0), OTHER: (0, 1)}
