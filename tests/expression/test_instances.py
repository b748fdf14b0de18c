"""Instances: the verdicts of a definition with `each`, against a plain constraint for each instance."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt.expression.judgement import Judge
from constraint_crdt.expression.measurements import MAX_INSTANCES, Touched, flattened
from constraint_crdt.model import VerdictState
from constraint_crdt.runtime.measurement import LatestMeasurements
from constraint_crdt.state import ConstraintState

SECOND = 10**9
MAX_AGE = 4
STATES = (VerdictState.VIOLATED, VerdictState.CLEARING, VerdictState.PENDING, VerdictState.UNKNOWN, VerdictState.HOLDS)


class Bench:
    """A judge of one constraint with measurements and a clock of its own."""

    def __init__(
        self, definition: Mapping[str, object], now: int = 100 * SECOND, measured: LatestMeasurements | None = None
    ) -> None:
        self.now = now
        self.state = ConstraintState()
        self.measured = LatestMeasurements(MAX_AGE) if measured is None else measured
        self.judge = Judge(self.state.constraints, self.measured, dict, lambda: self.now)
        self.add(definition)

    def add(self, definition: Mapping[str, object]) -> None:
        self.state.constraints.add("c", node="a", **definition)  # type: ignore[arg-type]
        self.judge.redefine(["c"])
        fresh = self.judge.renew(self.judge.stale(9), self.now)
        spans = self.judge.take_spans()
        if spans is not None:
            self.measured.require(spans)
        self.judge.judge(fresh, self.now)

    def measure(self, values: Mapping[str, object]) -> None:
        values = flattened(values)
        self.measured.put(values, self.now)
        self.judge.judge(self.judge.readers(values), self.now, touched=Touched.of(values))

    def tick(self, now: int) -> None:
        self.now = now
        for at, names in self.measured.aged(now).items():
            self.judge.aged(self.judge.readers(names), at)
        self.judge.aged(self.judge.take_checked(), now)
        self.judge.look(now)

    def shown(self) -> tuple[VerdictState, int | None]:
        found = self.judge.evaluation("c")
        assert found is not None
        return found.state, self.judge.since("c", self.now)

    def instances(self) -> dict[str, tuple[VerdictState, int]]:
        found = self.judge.instances("c", self.now, MAX_INSTANCES)
        assert found is not None
        assert found.total == len(found.worst)
        states = [each.verdict.state for each in found.worst]
        assert states == sorted(states, key=STATES.index), "the most severe first"
        assert found.violated == sum(state in STATES[:2] for state in states)
        return {each.instance: (each.verdict.state, each.verdict.since) for each in found.worst}


def by(**values: object) -> dict[str, object]:
    return {"by": "joint", "values": values}


class Model:
    """A plain constraint for each instance, each with measurements of its own."""

    def __init__(self, definition: Mapping[str, object]) -> None:
        self.definition = definition
        self.now = 100 * SECOND
        self.values: dict[str | None, dict[str, tuple[object, int]]] = {None: {}}
        """The values and their times, by instance; None: those without one."""
        self.measured: dict[str, LatestMeasurements] = {}
        self.benches: dict[str, Bench] = {}

    def add(self, definition: Mapping[str, object]) -> None:
        self.definition = definition
        for measured in self.measured.values():
            measured.require(self.spans)
        for each in self.benches.values():
            each.add(definition)
        self._follow()

    def measure(self, values: Mapping[str, object]) -> None:
        given: dict[str | None, dict[str, object]] = {None: {}}
        for name, value in values.items():
            for instance, measured in value["values"].items() if isinstance(value, dict) else {None: value}.items():
                given.setdefault(instance, {})[name] = measured
        for instance, measured in given.items():
            self.values.setdefault(instance, {}).update((name, (value, self.now)) for name, value in measured.items())
        for instance in given.keys() - self.measured.keys() - {None}:
            measured = self.measured[str(instance)] = LatestMeasurements(MAX_AGE)
            measured.require(self.spans)
            for name, (value, at) in self.values[None].items():
                measured.put({name: value}, at)
        for instance, measured in self.measured.items():
            here = given[None] | given.get(instance, {})
            measured.put(here, self.now)
            if "x" in here and here["x"] is None:
                measured.require({})  # a withdrawn instance begins its window anew
                measured.require(self.spans)
            if instance in self.benches:
                self.benches[instance].judge.judge(self.benches[instance].judge.readers(here), self.now)
        self._follow()

    @property
    def spans(self) -> dict[str, int]:
        return {"x": 3 * SECOND} if "over" in str(self.definition["when"]) else {}

    def tick(self, now: int) -> None:
        self.now = now
        times = {
            at for measured in self.measured.values() for at, names in measured.aged(now).items() if self._read.intersection(names)
        }
        for bench in self.benches.values():
            bench.now = now
            for at in sorted(times):  # all instances are looked at where a value of any of them is too old
                bench.judge.aged(["c"], at)
            bench.judge.aged(bench.judge.take_checked(), now)
            bench.judge.look(now)
        self._follow()

    @property
    def _read(self) -> set[str]:
        return {name for name in "xyz" if name in f"{self.definition['when']}{self.definition['clear_when']}"}

    def _follow(self) -> None:
        """Drop the instances without a value that counts, and begin those that have one."""
        read = self._read - {"z"}
        for instance, values in self.values.items():
            if instance is None:
                continue
            fresh = any(
                name in read and value is not None and self.now <= at + MAX_AGE * SECOND for name, (value, at) in values.items()
            )
            if not fresh:
                self.benches.pop(instance, None)
            elif instance not in self.benches:
                self.benches[instance] = Bench(self.definition, self.now, self.measured[instance])

    def instances(self) -> dict[str, tuple[VerdictState, int]]:
        found = {}
        for instance, bench in self.benches.items():
            state, since = bench.shown()
            assert since is not None
            found[instance] = state, since
        return found


numbers = st.sampled_from([None, 0.0, 1.0, 2.0, 3.0])
joints = st.dictionaries(st.sampled_from(["j1", "j2", "j3"]), numbers, min_size=1)
samples = st.fixed_dictionaries(
    {}, optional={"x": joints.map(lambda values: by(**values)), "y": joints.map(lambda values: by(**values)), "z": numbers}
)
definitions = st.fixed_dictionaries(
    {
        "when": st.sampled_from(
            ["x < 2.0", "x < 2.0 && z < 3.0", "x + y < 4.0", "x < y || z > 1.0", 'max_over("x", duration("3s")) < 2.0 || z > 2.0']
        ),
        "for_": st.sampled_from([0, 2 * SECOND]),
        "clear_after": st.sampled_from([0, 3 * SECOND]),
        "clear_when": st.sampled_from([None, "x < 1.0"]),
        "if_unknown": st.sampled_from(["unknown", "violated"]),
        "max_age": st.sampled_from([None]),
    }
)
steps = st.lists(st.tuples(st.integers(1, 3), st.lists(samples, max_size=3), st.none() | definitions), min_size=1, max_size=12)


@pytest.mark.slow
@given(definitions, steps, st.sampled_from([0, SECOND // 2]))
@settings(deadline=None)
def test_each_instance_has_the_verdict_of_a_plain_constraint(
    definition: dict[str, object], steps: list[tuple[int, list[dict[str, object]], dict[str, object] | None]], late: int
) -> None:
    """`late`: the time from a tick to the samples after it. Instances with a sample since a tick are not looked at in the next."""
    bench, model = Bench({**definition, "each": "joint"}), Model(definition)
    for passed, measured, edit in steps:
        ticked = bench.now - bench.now % SECOND
        for now in range(ticked + SECOND, ticked + passed * SECOND + 1, SECOND):
            bench.tick(now)
            model.tick(now)
            assert bench.instances() == model.instances()
        if edit is not None:
            bench.add({**edit, "each": "joint"})
            model.add(edit)
        bench.now = model.now = ticked + passed * SECOND + late
        for each in model.benches.values():
            each.now = bench.now
        for values in measured:
            bench.measure(values)
            model.measure(values)
        if late:  # a sample of an instance has all looked at, where a value of another may be too old
            for each in (bench, *model.benches.values()):
                each.judge.aged(["c"], bench.now)
        expected = model.instances()
        assert bench.instances() == expected
        if expected:
            state = min((state for state, _ in expected.values()), key=STATES.index)
            times = [since for each, since in expected.values() if each is state]
            assert bench.shown() == (state, max(times) if state is VerdictState.HOLDS else min(times))


def test_an_instance_with_a_sample_since_the_last_tick_is_looked_at_in_the_next_but_one() -> None:
    bench = Bench({"when": 'max_over("x", duration("3s")) < 2.0', "each": "joint"})
    bench.measure({"x": by(j1=1.0, j2=1.0)})
    bench.tick(103 * SECOND)
    bench.measure({"x": by(j1=3.0, j2=3.0)})
    bench.now += SECOND // 2
    bench.measure({"x": by(j1=1.0, j2=1.0)})
    bench.tick(105 * SECOND)
    bench.now = 106 * SECOND - SECOND // 2
    bench.measure({"x": by(j1=1.0)})
    assert bench.instances() == dict.fromkeys(("j1", "j2"), (VerdictState.VIOLATED, 103 * SECOND))
    bench.tick(106 * SECOND)
    assert bench.instances() == {"j1": (VerdictState.VIOLATED, 103 * SECOND), "j2": (VerdictState.HOLDS, 106 * SECOND)}
    bench.tick(107 * SECOND)
    assert bench.instances()["j1"] == (VerdictState.HOLDS, 107 * SECOND)


def test_the_window_of_an_instance_stays_where_the_others_of_its_variable_are_withdrawn_with_its_first_sample() -> None:
    bench = Bench({"when": 'max_over("x", duration("3s")) < 2.0', "each": "joint"})
    bench.measure({"x": by(j1=1.0)})
    bench.measure({"x": by(j2=1.0, j1=None)})
    bench.tick(102 * SECOND)
    bench.measure({"x": by(j2=1.0)})
    bench.tick(103 * SECOND)
    assert bench.instances() == {"j2": (VerdictState.HOLDS, 103 * SECOND)}
