"""Backtests: a replay gives the verdict changes of the node that was recorded, whatever is put off; and where two sets differ."""

import asyncio
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.alerts import AlertRule
from constraint_crdt.crdt.cells import make_cell
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.judgement import Turn
from constraint_crdt.model import Scope, VerdictState
from constraint_crdt.runtime.backtest import (
    Recording,
    differences,
    figures,
    read_prometheus,
    read_recordings,
    replay,
)
from constraint_crdt.runtime.change_feed import ChangeOrigin, NodeChange
from constraint_crdt.runtime.persistence import Begun, Named, Taken, Ticked, _framed, read_measurements
from constraint_crdt.runtime.rule_tests import EPOCH, Rules, TimedTurn, VirtualClock, virtual_fleet
from constraint_crdt.runtime.settings import NUMBERS, NodeSettings, VariableSettings
from constraint_crdt.simulation.recorder import RecordingError
from constraint_crdt.types.definition import ADD, Definition, wire_definition

CHANGES = 100 if os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly" else 3
NOTHING = Rules({}, [])

values = st.sampled_from([1.0, 3.0, 4.9, 5.0, 5.1, 9.0, float("nan"), None, "text", True, 3])
names = st.sampled_from(["x", "y", "z", "unread"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("measure"), st.dictionaries(names, st.sampled_from([1.0, 3.0, 4.9]), min_size=1)),
        st.tuples(st.just("measure"), st.dictionaries(names, values, min_size=1)),
        st.tuples(st.just("ticks"), st.integers(1, 4)),
        st.tuples(st.just("away"), st.sampled_from([3.0, 9.0, 40.0])),
        st.tuples(st.just("check"), st.dictionaries(names, st.sampled_from([1.0, 9.0]), max_size=2)),
        st.tuples(st.just("define"), st.sampled_from(["x", "both", "slow"])),
        st.tuples(st.just("remove"), st.sampled_from(["x", "both", "slow"])),
    ),
    max_size=40,
)
DEFINITIONS = {
    "x": Definition(when="x < 5.0"),
    "both": Definition(when="x <= 5.0 && y > 2.0 && 7.0 > z"),
    "slow": Definition(when="y < 5.0", for_=3 * SECOND, clear_after=2 * SECOND),
    "either": Definition(when="x < 5.0 || z < 5.0"),
    "window": Definition(when='avg_over("z", duration("3s")) < 5.0'),
    "fresh": Definition(when="y < 9.0", max_age=2 * SECOND),
}
EDITS = {
    "x": Definition(when="x < 4.0", clear_when="x < 2.0"),
    "both": Definition(when="x <= 5.0 && y > 2.0", severity=DEFINITIONS["x"].severity, about="another"),
    "slow": Definition(when="y < 5.0", for_=SECOND),
}


async def recorded(
    folder: Path, happened: Sequence[tuple[str, object]], ids: Collection[str] = DEFINITIONS.keys(), **fields: object
) -> list[TimedTurn]:
    """The verdict changes of a recorded node in virtual time, to which all of this happened. `ids`: its constraints."""
    told = NodeSettings(
        name="live", max_age=10.0, variables={"y": VariableSettings(max_age=4.0)}, record_measurements=str(folder), store="memory"
    )
    clock = VirtualClock(begin=77 * SECOND)
    async with virtual_fleet([msgspec.structs.replace(told, **fields)], clock, ticks=False) as fleet:
        node = fleet.nodes["live"]
        await fleet.apply({id_: DEFINITIONS[id_] for id_ in ids})
        for step, value in happened:
            clock.passed += SECOND // 3
            if step == "measure" and isinstance(value, Mapping):
                await node.measure(value)
            elif step == "check" and isinstance(value, Mapping):
                await node.runtime.evaluator.check(value)
            elif step == "ticks" and isinstance(value, int):
                for _ in range(value):
                    clock.passed += SECOND
                    await node.runtime.evaluator.tick()
            elif step == "away" and isinstance(value, float):
                clock.passed += round(value * SECOND)
                await node.runtime.evaluator.tick()
            else:
                node.define(str(value), [EDITS[str(value)]] if step == "define" else [])
                await node.runtime.evaluator.renew()
        return list(node.turns)


def told(turns: Sequence[TimedTurn]) -> list[tuple[object, ...]]:
    return [(each.at, each.turn, each.verdict) for each in turns]


@pytest.mark.slow
@given(steps, st.sets(st.sampled_from(sorted(DEFINITIONS)), min_size=1))
@settings(max_examples=CHANGES, deadline=None)
def test_a_replay_gives_each_verdict_change_of_the_node_to_the_ns(
    tmp_path_factory: pytest.TempPathFactory, happened: list[tuple[str, object]], ids: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("recording")
    turns = asyncio.run(recorded(folder, happened, ids))
    (recording,) = read_recordings([str(folder)])
    replayed = asyncio.run(replay(recording, NOTHING, None))
    assert told(replayed.old.turns) == told(turns)
    kept = {id_: each[0] for id_, each in recording.defined_once().items()}
    same = asyncio.run(replay(recording, Rules(kept, []), Rules(kept, [])))
    assert sorted(told(same.old.turns), key=repr) == sorted(told(same.new.turns), key=repr)
    assert list(differences(same)) == []


@pytest.mark.slow
async def test_the_recording_of_a_running_node_gives_its_verdict_changes(tmp_path: Path) -> None:
    """The clocks are those of the machine, and so are the ticks."""
    given = NodeSettings(name="live", store="memory", check_every=0.02, max_age=0.15, record_measurements=str(tmp_path / "it"))
    turns: list[Turn] = []

    def note(change: NodeChange) -> None:
        turns.extend(change.turns)

    async with Node(settings=given, transport=MemoryNetwork().transport()) as node:
        node._runtime.feed.subscribe(note, ChangeOrigin.EVALUATED)
        await node.add_constraint("slow", when="x < 5.0", for_=0.04, clear_after=0.03)
        await node.add_constraint("both", when="x < 5.0 && y < 5.0")
        for x, y in ((1, 1), (9, 1), (9, 9), (9, None), (1, 1), (1, 9), (1, 1)):
            await node.measure({"x": x, "y": y})
            await asyncio.sleep(0.025)
        await node.check({"x": 9.0})
        await node.add_constraint("both", when="x < 0.5", severity="critical")
        await asyncio.sleep(0.2)
        await node.remove_constraint("slow")
    (recording,) = read_recordings([str(tmp_path / "it")])
    edited = {"slow": Definition(when="x < 5.0"), "new": Definition(when="y < 5.0")}
    replayed = await replay(recording, Rules(edited, []), None)
    assert len(turns) > 8
    assert [each.turn for each in replayed.old.turns] == turns
    assert dict(replayed.constraints) == {"slow": "edited", "both": "removed", "new": "added"}
    by_new = {each.turn.constraint for each in replayed.new.turns}
    assert by_new == {"slow", "new"}


# --- files ------------------------------------------------------------------------------------------------------------------

BUSY: list[tuple[str, object]] = [
    ("measure", {"x": 9.0 if number % 7 == 3 else 1.0, "y": 3.0, "z": 1.0}) if number % 2 else ("ticks", 1) for number in range(200)
]


@pytest.mark.long
async def test_a_recording_is_bounded_and_goes_on_where_the_file_before_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = await recorded(tmp_path, BUSY)
    (whole,) = read_recordings([str(tmp_path)])
    expected = await replay(whole, NOTHING, None)
    size = (tmp_path / "live.measurements").stat().st_size
    (tmp_path / "live.measurements").unlink()
    monkeypatch.setitem(NUMBERS, "record_measurements_bytes", (1, 2**40, ""))
    assert told(await recorded(tmp_path, BUSY, record_measurements_bytes=2 * (size * 2 // 3))) == told(turns)
    assert sorted(os.listdir(tmp_path)) == ["live.measurements", "live.measurements.1"]
    (halved,) = read_recordings([str(tmp_path / "live.measurements")])
    assert told((await replay(halved, NOTHING, None)).old.turns) == told(expected.old.turns)
    (tmp_path / "live.measurements.1").unlink()
    (rest,) = read_recordings([str(tmp_path)])
    # What the lost file knew of windows is lost, and a state that goes on is no change; all else is as before.
    begin = rest.beginning.wall - whole.beginning.wall
    later = [(each.at + begin, each.turn) for each in (await replay(rest, NOTHING, None)).old.turns]
    expected_later = [(each.at, each.turn) for each in expected.old.turns if each.at > begin + SECOND]
    assert expected_later
    for constraint in ("x", "slow", "both", "either"):
        assert [each for each in later if each[0] > begin + SECOND and each[1].constraint == constraint] == [
            each for each in expected_later if each[1].constraint == constraint
        ]


@pytest.mark.slow
async def test_each_start_of_a_node_is_a_recording_of_its_own(tmp_path: Path) -> None:
    await recorded(tmp_path, BUSY[:9])
    await recorded(tmp_path, BUSY[:19])
    first, second = sorted(read_recordings([str(tmp_path)]), key=lambda each: len(list(each.inputs())))
    assert (first.defined_once().keys(), second.defined_once().keys()) == (DEFINITIONS.keys(),) * 2
    assert len(list(first.inputs())) < len(list(second.inputs()))


async def test_a_deadband_leaves_out_what_moved_little_until_it_would_age(tmp_path: Path) -> None:
    moved = [("measure", {"x": 100.0 + number / 10}) for number in range(60)]
    await recorded(tmp_path, moved, record_deadband=0.05)
    kept = [frame.values for frame in read_measurements(tmp_path / "live.measurements") if isinstance(frame, Taken)]
    assert kept == [[100.0], [101.6], [103.2], [104.8]], "each 5 s, half of the maximum age of 10 s"


@pytest.mark.slow
async def test_the_rules_of_alerts_are_recorded_without_their_places(tmp_path: Path) -> None:
    rules = (AlertRule(name="blind", kind="unknown", for_=2.0, to=("https://ops.example/secret",)),)
    await recorded(tmp_path, [("measure", {"x": 1.0}), ("ticks", 30)], alert=rules)
    assert b"secret" not in (tmp_path / "live.measurements").read_bytes()
    (recording,) = read_recordings([str(tmp_path)])
    new = Rules(DEFINITIONS, [AlertRule(name="patient", kind="unknown", for_=600.0)])
    replayed = await replay(recording, new, None)
    assert {(each.rule, each.subject, each.fired) for each in replayed.old.alerts} == {
        ("blind", id_, True) for id_ in ("x", "both", "either")
    }
    assert (replayed.new.alerts, replayed.alerts) == ([], ["blind", "patient"])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: b"", "is no recording of measurements: it is empty"),
        (lambda data: b"{}" * 40, "is damaged, or no recording of measurements: frame 1 has no such length"),
        (lambda data: data[:-9] + b"x" + data[-8:], "does not fit its checksum"),
        (lambda data: data[len(data) // 2 :], "is damaged, or no recording"),
    ],
)
async def test_a_file_that_is_none_is_refused_in_a_sentence(tmp_path: Path, damage: object, sentence: str) -> None:
    await recorded(tmp_path, BUSY[:9])
    file = tmp_path / "live.measurements"
    assert callable(damage)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(RecordingError, match=sentence):
        list(Recording([file]).inputs())


async def test_a_file_that_ends_within_a_frame_is_read_up_to_there(tmp_path: Path) -> None:
    await recorded(tmp_path, BUSY[:9])
    file = tmp_path / "live.measurements"
    count = len(list(Recording([file]).inputs()))
    file.write_bytes(file.read_bytes()[:-1])
    assert len(list(Recording([file]).inputs())) == count - 1


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        read_recordings([str(tmp_path / "none")])
    with pytest.raises(RecordingError, match=r"has no recording: their names end in \.measurements"):
        read_recordings([str(tmp_path)])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_disk_that_takes_nothing_ends_the_recording_and_not_the_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    turns = await recorded(tmp_path / "full", BUSY[:9])
    assert told(turns)
    assert "the recording in" in caplog.text
    assert "ends here: No space left on device" in caplog.text


async def test_a_place_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConstraintCrdtError, match=r"cannot record measurements to .*none/it: No such file or directory"):
        await recorded(tmp_path / "none" / "it", [])


async def test_nothing_is_recorded_without_being_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await recorded(tmp_path, BUSY[:9], record_measurements="")
    assert os.listdir(tmp_path) == []


async def test_a_conflict_of_definitions_is_replayed_as_one(tmp_path: Path) -> None:
    """All of its definitions are in force."""
    told_to = NodeSettings(name="live", record_measurements=str(tmp_path))
    both = [Definition(when="x < 5.0"), Definition(when="x > 2.0")]
    async with virtual_fleet([told_to], VirtualClock(), ticks=False) as fleet:
        node = fleet.nodes["live"]
        node.define("x", both)
        await node.runtime.evaluator.renew()
        for value in (3.0, 1.0, 3.0, 9.0):
            fleet.clock.passed += SECOND
            await node.measure({"x": value})
        turns = list(node.turns)
    (recording,) = read_recordings([str(tmp_path)])
    assert [each.turn.after for each in turns] == [
        VerdictState.HOLDS,
        VerdictState.VIOLATED,
        VerdictState.HOLDS,
        VerdictState.VIOLATED,
    ]
    assert told((await replay(recording, NOTHING, None)).old.turns) == told(turns)


# --- Prometheus and comparison ----------------------------------------------------------------------------------------------


def answer(*series: Mapping[str, object], kind: str = "matrix") -> bytes:
    return msgspec.json.encode({"status": "success", "data": {"resultType": kind, "result": series}})


def series(name: str, *values: tuple[float, str], instance: str = "forge:9100") -> dict[str, object]:
    return {"metric": {"__name__": name, "instance": instance}, "values": values}


async def test_series_of_prometheus_are_judged_by_both_sets() -> None:
    hot = series("temp_c", (1000, "80"), (1060, "91"), (1120, "93"), (1180, "70"))
    (source,) = read_prometheus([("", "a.json", answer(hot))], check_every=1.0, max_age=300.0)
    rules = [Rules({"thermal": Definition(when=f"temp_c < {limit}"), "fleet": FLEET}, []) for limit in ("90.0", "92.0")]
    replayed = await replay(source, rules[1], rules[0])
    assert source.beginning.node == "forge:9100"
    assert figures(replayed.old)["thermal"] == (3, 1, 120.0)
    assert figures(replayed.new)["thermal"] == (3, 1, 60.0)
    (only,) = differences(replayed)
    assert (only.begin, only.end, only.old, only.new, only.values) == (
        1060 * SECOND, 1120 * SECOND, VerdictState.VIOLATED, VerdictState.HOLDS, "temp_c=91.0",
    )  # fmt: skip
    assert replayed.left_out == ["fleet"]


FLEET = Definition(when="sum(nodes, n, n.load) <= 10.0", scope=Scope.FLEET)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<html>", "a.json is no answer of Prometheus to a range query"),
        (b'{"status": "error", "error": "bad query"}', "a.json: the query failed: bad query"),
        (answer(kind="vector"), "a.json has a vector: ask /api/v1/query_range"),
        (answer(), "there are no values of Prometheus for these queries and this time"),
        (answer({"metric": {}, "values": [(1, "1")]}), "a.json has series without a name: give one, as in temp_c=a.json"),
        (answer(series("a:b", (1, "1"))), "give another name, as in temp_c=a.json"),
        (answer(series("x", (1, "1")), series("x", (1, "2"))), "a.json has several series of x on forge:9100"),
        (answer(series("x", (1, "one"))), "a.json: 'one' is no number"),
    ],
)
def test_another_answer_is_refused_in_a_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(RecordingError, match=r".*") as error:
        read_prometheus([("", "a.json", content)], check_every=1.0, max_age=300.0)
    assert sentence in str(error.value)


# --- cost -------------------------------------------------------------------------------------------------------------------

HOURS = 24.0 if os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly" else 0.1
A_DAY = 20.0
"""Seconds of CPU for 24 h of 100 variables, each measured every second."""


def write_hours(path: Path, hours: float) -> None:
    """A recording of 100 variables that wander, a constraint on each, and a violation now and then."""
    random, values = Random(1), [50.0] * 100
    rules = {
        f"c{n}": [make_cell(ADD, f"c{n}", wire_definition(Definition(when=f"v{n} < 85.0", for_=30 * SECOND), None)).data]
        for n in range(100)
    }
    with path.open("wb") as file:
        file.write(_framed(Begun(1, "n", 7, 0, SECOND, EPOCH, {}, 30.0, {}, 1.0, {}, rules, b"")))
        file.write(_framed(Named(tuple(f"v{n}" for n in range(100)))))
        for second in range(int(hours * 3600)):
            values = [round(each + random.gauss(0, 1) + (50 - each) / 100, 2) for each in values]
            if second % 300 == 200:
                values[second // 300 % 100] = 95.0
            file.write(_framed(Taken(SECOND - 5000, 0, values)))
            file.write(_framed(Ticked(5000)))


@pytest.mark.long
async def test_a_day_of_100_variables_takes_at_most_20_seconds(tmp_path: Path) -> None:
    write_hours(tmp_path / "day.measurements", HOURS)
    (recording,) = read_recordings([str(tmp_path)])
    new = {f"c{n}": Definition(when=f"v{n} < {80 if n < 10 else 85}.0", for_=30 * SECOND) for n in range(100)}
    began = time.process_time()
    replayed = await replay(recording, Rules(new, []), None)
    took = time.process_time() - began
    assert took < A_DAY * HOURS / 24 + 1.0, "a second for the begin"
    assert len(replayed.same) == 90
    assert len(replayed.old.turns) > 100
    assert replayed.source.beginning.node == "n"


async def test_a_recording_begins_with_the_labels_of_its_node(tmp_path: Path) -> None:
    """They select the rules that are replayed, and the values of their parameters."""
    settings = NodeSettings(name="live", labels={"kind": "agv"}, record_measurements=str(tmp_path), store="memory")
    async with Node(settings=settings, transport=MemoryNetwork().transport()):
        (recording,) = read_recordings([str(tmp_path)])
        assert recording.beginning.labels == {"kind": "agv"}
