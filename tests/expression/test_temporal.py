"""The verdict state over time: each row of the table of temporal semantics, in virtual time; and against a model of whole traces.

A trace has a character for each 10 s: `g` good, `b` bad, `u` unknown, `_` no look. States: `.` holds, `p` pending, `F` violated,
`c` clearing, `?` unknown, `_` no look.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import Verdict, compile_expression, temporal
from constraint_crdt.expression.cel import by_default
from constraint_crdt.expression.temporal import (
    DefinitionKey,
    SavedSpells,
    Spell,
    StateSince,
    TimeRules,
    Times,
    encode_spells,
    open_spells,
    read_spells,
    together,
    wall_time,
)
from constraint_crdt.model import IfUnknown, Scope, VerdictState
from constraint_crdt.runtime.measurement import LatestMeasurements

SECOND = 1_000_000_000
EVERY = 10
GOOD, BAD, UNKNOWN = Verdict.SATISFIED, Verdict.VIOLATED, Verdict.UNKNOWN
OUTCOMES = {"g": GOOD, "b": BAD, "u": UNKNOWN}
SHOWN = {
    VerdictState.HOLDS: ".", VerdictState.PENDING: "p", VerdictState.VIOLATED: "F", VerdictState.CLEARING: "c",
    VerdictState.UNKNOWN: "?",
}  # fmt: skip
KEY = DefinitionKey("x <= 5.0")
WALL = 1_800_000_000 * SECOND


def rules(for_: float = 0, clear_after: float = 0, max_age: float = 30) -> TimeRules:
    return TimeRules(int(for_ * SECOND), int(clear_after * SECOND), int(max_age * SECOND))


def states(trace: str, how: TimeRules, clear: str = "", spell: Spell | None = None, start: int = 0, every: int = EVERY) -> str:
    """The state at each look of a trace, from `start` in seconds. `clear`: the outcomes of `clear_when`."""
    spell = spell or Spell.new(start * SECOND)
    shown = ""
    for number, mark in enumerate(trace):
        now = (start + every * number) * SECOND
        if mark == "_":
            shown += "_"
        else:
            state = spell.look(OUTCOMES[mark], now, how, OUTCOMES[clear[number]] if clear else GOOD)
            assert state is spell.state
            shown += SHOWN[state]
    return shown


# --- the table: a row each --------------------------------------------------------------------------------------------


def test_bad_from_10_without_end_for_30_s() -> None:
    assert states("gbbbbb", rules(30)) == ".pppFF"


def test_for_25_s_evaluated_each_10_s_is_up_to_one_look_late() -> None:
    assert states("gbbbbb", rules(25)) == ".pppFF"


def test_for_0_or_absent() -> None:
    assert states("gbg", TimeRules()) == ".F."


def test_bad_already_at_the_start_counts_from_the_first_look_and_never_earlier() -> None:
    spell = Spell.new(0)
    assert states("___bbbbb", rules(30), spell=spell) == "___pppFF"
    assert spell.since == 30 * SECOND


def test_good_for_one_evaluation_starts_over() -> None:
    assert states("gbbgbbbb", rules(30)) == ".pp.pppF"


@pytest.mark.parametrize(("when", "mark"), [("x <= 5.0", "b"), ("!(x > 5.0)", "g")])
def test_value_nan_for_one_evaluation(when: str, mark: str) -> None:
    """A measured NaN is a value and follows IEEE: each comparison with it is false. A sensor without a value measures null, which
    is unknown and stops the clock of `for` (the next test).
    """
    assert compile_expression(when).evaluate({"x": math.nan}).verdict is OUTCOMES[mark]


def test_one_value_is_lost_the_clock_of_for_stops_and_a_violation_stays() -> None:
    """Rows `value NaN for one evaluation` and `one scrape fails (live)`: unknown is neither good nor bad."""
    assert states("gbbubbbb", rules(30)) == ".ppppFFF"
    assert states("gbbbbubb", rules(30)) == ".pppFFFF"


def test_one_scrape_fails() -> None:
    """A failed reading of a probe withdraws nothing: the last value is used up to `max_age`. Then the clock stops."""
    measured = LatestMeasurements(15)
    expression = compile_expression("x <= 5.0")
    spell, shown = Spell.new(0), ""
    for second, reading in ((0, 1.0), (10, 9.0), (20, None), (30, None), (40, 9.0), (50, 9.0), (60, 9.0)):
        if reading is not None:
            measured.put({"x": reading}, second * SECOND)
        outcome = expression.evaluate(measured.fresh(second * SECOND)).verdict
        shown += SHOWN[spell.look(outcome, second * SECOND, rules(30))]
    assert shown == ".ppppFF", "the interval from 30 to 40 counts for nothing"


def test_a_good_scrape_lacks_the_series() -> None:
    expression = compile_expression("x <= 5.0 && y <= 5.0")
    assert expression.evaluate({"y": 1.0}).verdict is UNKNOWN
    assert states("gbbbbuuu", rules(30)) == ".pppFFFF"
    assert states("gu", rules(30)) == ".?"


def test_sample_missing_without_a_mark_holds_up_to_max_age_then_unknown() -> None:
    measured = LatestMeasurements(30)
    measured.put({"x": 9.0}, 0)
    expression = compile_expression("x <= 5.0")
    outcomes = [expression.evaluate(measured.fresh(second * SECOND)).verdict for second in (0, 30, 31)]
    assert outcomes == [BAD, BAD, UNKNOWN]
    assert states("gb_b", rules(30)) == ".p_p"
    assert states("gb_bb", rules(30)) == ".p_pF"
    assert states("gb___bbbb", rules(30)) == ".p___pppF", "40 s without a look are unknown"


def test_series_with_explicit_timestamps_the_age_of_a_measurement_decides_and_never_its_delivery() -> None:
    measured = LatestMeasurements(30)
    measured.put({"x": 9.0}, 5 * SECOND)  # measured at 5, whenever it came in
    assert measured.fresh(35 * SECOND) == {"x": 9.0}
    assert measured.fresh(36 * SECOND) == {}


def test_irregular_sampling() -> None:
    """Seconds of a monotonic clock, never looks. Looks further apart than `max_age` tell nothing of the time between."""
    assert states("gbb", rules(30, max_age=30), every=60) == ".pp", "bad at 60 and 120 only"
    assert states("gbb", rules(30, max_age=60), every=60) == ".pF"
    spell = Spell.new(0)
    for second in (0, 1, 2, 3, 60, 61, 62):
        spell.look(BAD, second * SECOND, rules(6))
    assert (spell.state, spell.elapsed) == (VerdictState.PENDING, 5 * SECOND)


def test_irregular_sampling_a_look_from_before_changes_nothing() -> None:
    spell = Spell.new(0)
    spell.look(BAD, 20 * SECOND, rules(30))
    before = msgspec.structs.replace(spell)
    assert spell.look(GOOD, 10 * SECOND, rules(30)) is VerdictState.PENDING
    assert spell == before
    spell = Spell.new(0)
    spell.look(GOOD, 20 * SECOND, rules(30))
    before = msgspec.structs.replace(spell)
    assert spell.look(GOOD, 5 * SECOND, rules(30)) is VerdictState.HOLDS
    assert spell == before


def test_end_of_trace_is_pending_and_shown_as_such() -> None:
    assert states("gbb", rules(30)) == ".pp"


def test_since_is_the_first_bad_look_of_the_spell() -> None:
    spell = Spell.new(0)
    for trace, start, state in (("gbb", 0, "p"), ("bb", 30, "F"), ("ug", 50, "c"), ("b", 70, "F"), ("g", 80, "c")):
        assert states(trace, rules(30, 20), spell=spell, start=start)[-1] == state
        assert spell.since == 10 * SECOND
    assert states("gg", rules(30, 20), spell=spell, start=90) == "c."
    assert spell.since == 100 * SECOND


def test_robustness_0_verdicts_are_boolean() -> None:
    assert compile_expression("x > 5.0").evaluate({"x": 5}).verdict is BAD
    assert compile_expression("x >= 5.0").evaluate({"x": 5}).verdict is GOOD


def test_keep_firing_for_40_s_good_from_80_on_counts_from_the_first_good_look() -> None:
    assert states("bbbbbbbbgggggg", rules(30, 40)) == "pppFFFFFcccc.."


def test_keep_40_s_vanished_from_80_on_does_not_count() -> None:
    assert states("bbbbbbbbuuuuuuuuuu", rules(30, 40)) == "pppFFFFFFFFFFFFFFF"
    assert states("bbbbguuuuggggg", rules(30, 40)) == "pppFcccccccc..", "10 s before and 30 s after"
    assert states("bbbbgguuuugggggg", rules(30, 40)) == "pppFcccccccc....", "20 s before and 20 s after"


def test_keep_40_s_bad_once_at_110_starts_over_and_for_is_not_asked_again() -> None:
    assert states("bbbbbbbbgggbggggg", rules(30, 40)) == "pppFFFFFcccFcccc."


def test_keep_40_s_only_pending_ends_at_once() -> None:
    assert states("bbg", rules(30, 40)) == "pp."


def test_keep_45_s_is_up_to_one_look_late() -> None:
    assert states("bbbbbbbbggggggg", rules(30, 45)) == "pppFFFFFccccc.."


def test_keep_without_for_one_bad_at_20_is_a_minimum_length() -> None:
    assert states("ggbggggggg", rules(0, 40)) == "..Fcccc..."


def test_after_keep_is_over_bad_again_waits_the_whole_for() -> None:
    assert states("bbbbgggbbbbb", rules(30, 20)) == "pppFcc.pppFF"


def test_label_changes_while_bad_the_state_belongs_to_definition_and_node_and_not_to_the_value() -> None:
    """The values of the variables are no part of the key. An edit of severity, text or labels keeps the spell as well."""
    expression = compile_expression("zone != 'a' && x <= 5.0")
    spell = Spell.new(0)
    for second, zone in ((0, "a"), (10, "b"), (20, "c"), (30, "a")):
        spell.look(expression.evaluate({"zone": zone, "x": 9.0}).verdict, second * SECOND, rules(30))
    assert spell.state is VerdictState.VIOLATED
    assert DefinitionKey.__struct_fields__ == (
        "when", "for_", "clear_after", "clear_when", "if_unknown", "scope", "each", "instance",
    )  # fmt: skip


def test_hysteresis_reads_the_state_before_the_look() -> None:
    """`when` is `x <= 85`, `clear_when` is `x <= 80`."""
    values = (70, 83, 86, 83, 79, 83, 86, 81, 80)
    trace = "".join("g" if x <= 85 else "b" for x in values)
    clear = "".join("g" if x <= 80 else "b" for x in values)
    assert states(trace, rules(), clear) == "..FF..FF."
    assert states(trace, rules(clear_after=10), clear) == "..FFcFFFc", "still violated at 83, and clearing starts over"
    assert states("bgg", rules(), "bug") == "FF.", "an unknown clear_when ends nothing"
    assert states("bgug", rules(clear_after=20), "bgug") == "Fccc", "and stops the clock"
    assert states("gg", rules(), "bb") == "..", "clear_when is asked in a violation only"


def test_min_over_time_of_30_s_instead_of_for() -> None:
    """A window with too little data is unknown (the tests of windows). Unknown looks at the start begin nothing."""
    assert states("uuubbbb", rules(30)) == "???pppF"


def test_bad_or_absent_over_one_gap() -> None:
    """A missing variable is absorbed by `||` only if the other side is true. A gap stops `for`, which does not start anew."""
    expression = compile_expression("x <= 5.0 || y")
    assert expression.evaluate({"y": True}).verdict is GOOD
    assert expression.evaluate({"y": False}).verdict is UNKNOWN
    assert states("gbbubb", rules(30)) == ".ppppF"
    assert states("gbuubb", rules(30)) == ".ppppp"


def saved_file(spells: Mapping[str, Mapping[DefinitionKey, Spell]], now: int) -> bytes:
    return encode_spells(open_spells(spells, now, WALL))


def restart(spell: Spell, now: int, away: int, clock: int = 0) -> Spell:
    """The spell after a restart at `now` that took `away`; the new monotonic clock then reads `clock`."""
    data = saved_file({"c": {KEY: spell}}, now)
    return read_spells(data).resume("c", KEY, clock, WALL + away)


def test_restart_while_pending_and_bad_all_along_keeps_the_time_of_before() -> None:
    spell = Spell.new(0)
    assert states("gbbb", rules(30), spell=spell) == ".ppp"
    again = restart(spell, 30 * SECOND, 500 * SECOND)
    assert again.since == -(500 + 20) * SECOND
    assert states("bb", rules(30), spell=again) == "pF", "20 s of before count, the time away does not"


def test_restart_while_firing_stays_violated() -> None:
    spell = Spell.new(0)
    assert states("bbbb", rules(30), spell=spell) == "pppF"
    assert states("ub", rules(30), spell=restart(spell, 30 * SECOND, SECOND)) == "FF"


def test_restart_the_time_away_is_unknown_an_hour_of_good_looks_is_not_assumed_bad() -> None:
    spell = Spell.new(0)
    assert states("bb", rules(30), spell=spell) == "pp"
    again = restart(spell, 10 * SECOND, 3600 * SECOND)
    assert states("g", rules(30), spell=again) == "."
    assert states("bbbb", rules(30), spell=again, start=10) == "pppF"


def test_restart_while_only_kept_goes_on_clearing() -> None:
    spell = Spell.new(0)
    assert states("bgg", rules(0, 20), spell=spell) == "Fcc"
    again = restart(spell, 20 * SECOND, 100 * SECOND)
    assert again.state is VerdictState.CLEARING
    assert states("gg", rules(0, 20), spell=again) == "c.", "10 s of before and 10 s of after"


def test_restart_while_holding_is_unknown_until_a_look() -> None:
    spell = Spell.new(0)
    states("gg", rules(), spell=spell)
    again = restart(spell, 10 * SECOND, SECOND, clock=7)
    assert again == Spell.new(7)


def test_fired_and_ended_within_one_interval_a_spell_that_was_only_pending_is_never_told() -> None:
    """The notifications are in tests/alerts/test_engine.py. Here: pending never passes through violated or clearing."""
    assert states("gbg", rules(30, 30)) == ".p."


DOCUMENTED = re.findall(
    r"^\| (.+?) \| (\d+) \| (\d+) \| `([gbu]+)` \| `([.pFc?]+)` \|",
    (Path(__file__).parents[2] / "docs" / "explanation" / "constraints.md").read_text(),
    re.MULTILINE,
)


def test_the_page_on_constraints_has_traces() -> None:
    assert len(DOCUMENTED) > 15


@pytest.mark.parametrize(("case", "for_", "clear_after", "trace", "expected"), DOCUMENTED, ids=[each[0] for each in DOCUMENTED])
def test_a_trace_of_the_page_on_constraints(case: str, for_: str, clear_after: str, trace: str, expected: str) -> None:
    assert states(trace, rules(int(for_), int(clear_after))) == expected


# --- the state at single looks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trace", "expected"), [("ug", "?."), ("ub", "?p"), ("gug", ".?."), ("gub", ".?p"), ("bug", "pp.")])
def test_unknown_begins_and_ends_nothing(trace: str, expected: str) -> None:
    assert states(trace, rules(30)) == expected


def test_durations_are_exact() -> None:
    how, spell = TimeRules(10, 20, 15), Spell.new(0)
    steps = ((BAD, 0, "p"), (BAD, 9, "p"), (BAD, 10, "F"), (GOOD, 20, "c"), (GOOD, 30, "c"), (GOOD, 39, "c"), (GOOD, 40, "."))
    for outcome, now, state in steps:
        assert SHOWN[spell.look(outcome, now, how)] == state
    spell.look(GOOD, 55, how)
    assert spell.since == 40, "an interval of `max_age` is known"
    spell.look(GOOD, 71, how)
    assert spell.since == 71
    assert spell.take() == (20 + 15, 20, 16)


def test_unknown_begins_no_violation_even_when_the_time_of_for_is_over() -> None:
    assert states("bbbu_b", rules(30)) == "pppp_F"


def test_holds_begins_anew_after_an_interval_without_looks() -> None:
    spell = Spell.new(0)
    assert states("gg____g", rules(), spell=spell) == "..____."
    assert (spell.since, spell.take()) == (60 * SECOND, Times(10 * SECOND, 0, 50 * SECOND))


def test_if_unknown_replaces_unknown_only() -> None:
    chosen = {choice: [by_default(outcome, choice) for outcome in (GOOD, BAD, UNKNOWN)] for choice in IfUnknown}
    assert chosen == {
        IfUnknown.UNKNOWN: [GOOD, BAD, UNKNOWN],
        IfUnknown.VIOLATED: [GOOD, BAD, BAD],
        IfUnknown.SATISFIED: [GOOD, BAD, GOOD],
    }


def test_several_definitions_give_the_most_severe_state_since_its_beginning() -> None:
    order = [VerdictState.HOLDS, VerdictState.UNKNOWN, VerdictState.PENDING, VerdictState.CLEARING, VerdictState.VIOLATED]
    spells = [Spell(10 + number, 0, state) for number, state in enumerate(order)]
    assert together([]) == StateSince(VerdictState.OFF, None)
    for number, state in enumerate(order):
        assert together(spells[: number + 1]) == together(spells[number::-1]) == StateSince(state, 10 + number)
    violated = [Spell(since, 0, VerdictState.VIOLATED) for since in (5, 3, 4)]
    assert together(violated).since == 3
    assert together([Spell(since, 0, VerdictState.HOLDS) for since in (5, 7, 6)]).since == 7


# --- against the whole trace ------------------------------------------------------------------------------------------


class Look(NamedTuple):
    at: int
    outcome: Verdict
    clear: Verdict


VERDICTS = st.sampled_from([GOOD, GOOD, BAD, BAD, UNKNOWN])
TRACES = st.lists(st.tuples(st.integers(0, 12), VERDICTS, VERDICTS), min_size=1, max_size=30).map(
    lambda steps: [
        Look(sum(step[0] for step in steps[: number + 1]), outcome, clear) for number, (_, outcome, clear) in enumerate(steps)
    ]
)
RULES = st.builds(TimeRules, st.integers(0, 15), st.integers(0, 15), st.integers(5, 15))


def time_of(outcomes: Sequence[Verdict], wanted: Verdict, looks: Sequence[Look], max_age: int) -> int:
    """The time of intervals that begin with this outcome, from the first look to the last."""
    intervals = [after.at - before.at for before, after in pairwise(looks)]
    return sum(passed for passed, outcome in zip(intervals, outcomes, strict=False) if outcome is wanted and passed <= max_age)


def first(numbers: Iterable[int]) -> int | None:
    return next(iter(numbers), None)


def model(looks: Sequence[Look], how: TimeRules) -> tuple[VerdictState, int | None]:
    """The state after a whole trace, from the definitions of its parts; for a spell also its beginning."""
    plain = [look.outcome for look in looks]
    ended = [look.clear if look.outcome is GOOD else look.outcome for look in looks]
    start, end = 0, len(looks)
    while True:
        bad = first(n for n in range(start, end) if plain[n] is BAD)
        if bad is None:
            return (VerdictState.HOLDS if plain[-1] is GOOD else VerdictState.UNKNOWN), None
        good = first(n for n in range(bad, end) if plain[n] is GOOD)
        until = end if good is None else good
        violated = first(
            n
            for n in range(bad, until)
            if plain[n] is BAD and time_of(plain[bad:n], BAD, looks[bad : n + 1], how.max_age) >= how.for_
        )
        if violated is None:
            if good is None:
                return VerdictState.PENDING, looks[bad].at
            start = good
            continue
        for number in range(violated + 1, end):
            last_bad = max(n for n in range(violated, number + 1) if n == violated or ended[n] is BAD)
            begun = first(n for n in range(last_bad + 1, number + 1) if ended[n] is GOOD)
            if begun is None or ended[number] is not GOOD:
                continue
            if time_of(ended[begun:number], GOOD, looks[begun : number + 1], how.max_age) >= how.clear_after:
                start = number
                break
        else:
            last_bad = max(n for n in range(violated, end) if n == violated or ended[n] is BAD)
            clearing = any(ended[n] is GOOD for n in range(last_bad + 1, end))
            return (VerdictState.CLEARING if clearing else VerdictState.VIOLATED), looks[bad].at


def looked(looks: Iterable[Look], how: TimeRules, spell: Spell) -> Spell:
    for look in looks:
        spell.look(look.outcome, look.at, how, look.clear)
    return spell


@given(TRACES, RULES)
def test_each_look_gives_the_state_of_the_whole_trace(looks: list[Look], how: TimeRules) -> None:
    spell = Spell.new(0)
    for number, look in enumerate(looks, 1):
        looked([look], how, spell)
        state, since = model(looks[:number], how)
        assert spell.state is state
        if since is not None:
            assert spell.since == since


@pytest.mark.slow
@given(TRACES, RULES)
def test_the_three_times_are_the_elapsed_time(looks: list[Look], how: TimeRules) -> None:
    spell = looked(looks, how, Spell.new(0))
    expected = dict.fromkeys(Verdict, 0)
    for before, after in pairwise([Look(0, UNKNOWN, UNKNOWN), *looks]):
        expected[before.outcome if after.at - before.at <= how.max_age else UNKNOWN] += after.at - before.at
    times = spell.take()
    assert times == (expected[GOOD], expected[BAD], expected[UNKNOWN])
    assert sum(times) == looks[-1].at
    assert spell.take() == (0, 0, 0)


@pytest.mark.slow
@given(TRACES)
def test_without_for_and_clear_after_the_states_are_the_verdicts(looks: list[Look]) -> None:
    """But for unknown, which does not end a violation."""
    spell, violated = Spell.new(0), False
    for look in looks:
        violated = look.outcome is BAD or (violated and look.outcome is UNKNOWN)
        plain = {GOOD: VerdictState.HOLDS, UNKNOWN: VerdictState.UNKNOWN}.get(look.outcome)
        assert spell.look(look.outcome, look.at, TimeRules()) is (VerdictState.VIOLATED if violated else plain)


@pytest.mark.slow
@given(TRACES, TRACES, RULES, st.integers(0, 100), st.integers(0, 10**6))
def test_a_restart_is_an_unknown_interval(before: list[Look], after: list[Look], how: TimeRules, away: int, clock: int) -> None:
    """Whatever the new monotonic clock reads. `holds` begins anew, `unknown` at the start of the node."""
    spell = looked(before, how, Spell.new(0))
    end = before[-1].at
    saved = saved_file({"c": {KEY: spell}}, end)
    again = read_spells(saved).resume("c", KEY, clock, WALL + away)
    spell.look(UNKNOWN, end, how)
    for look in after:
        spell.look(look.outcome, end + away + look.at, how, look.clear)
        again.look(look.outcome, clock + look.at, how, look.clear)
        assert again.state is spell.state
        if again.state is not VerdictState.UNKNOWN:
            assert again.since - clock == spell.since - end - away
            assert again.elapsed == spell.elapsed


# --- the file ---------------------------------------------------------------------------------------------------------


def test_only_an_edit_of_the_fields_of_the_key_begins_anew() -> None:
    spell = looked([Look(0, BAD, BAD)], rules(), Spell.new(0))
    data = saved_file({"c": {KEY: spell}}, 0)
    fields: Mapping[str, object] = {
        "when": "x <= 6.0", "for_": 1, "clear_after": 1, "clear_when": "x < 4.0", "if_unknown": IfUnknown.VIOLATED,
        "scope": Scope.FLEET, "each": "joint", "instance": "j1",
    }  # fmt: skip
    assert fields.keys() == set(DefinitionKey.__struct_fields__)
    for name, value in fields.items():
        edited = msgspec.structs.replace(KEY, **{name: value})
        assert read_spells(data).resume("c", edited, 9, WALL) == Spell.new(9)
    saved = read_spells(data)
    assert len(saved) == 1
    assert saved.resume("other", KEY, 9, WALL) == Spell.new(9)
    assert saved.resume("c", KEY, 9, WALL).state is VerdictState.VIOLATED
    assert saved.resume("c", KEY, 9, WALL) == Spell.new(9), "once"
    assert SavedSpells().resume("c", KEY, 9, WALL) == Spell.new(9)


def test_the_digest_of_a_definition_stays() -> None:
    """A file of an earlier version names its definitions by it."""
    assert DefinitionKey("x < 1.0").digest == "dc1743198f72e9a9cbc92b50a8e26b36"


def test_a_step_of_the_wall_clock_moves_no_spell() -> None:
    spell = looked([Look(0, BAD, BAD), Look(20 * SECOND, BAD, BAD)], rules(30), Spell.new(0))
    data = saved_file({"c": {KEY: spell}}, 20 * SECOND)
    for wall in (WALL - 10**18, WALL, WALL + 10**18):
        again = read_spells(data).resume("c", KEY, 0, wall)
        assert again.since <= 0
        assert states("bb", rules(30), spell=again) == "pF"


def test_a_time_for_people_is_within_the_bounds_of_times() -> None:
    assert wall_time(5, 7, WALL) == WALL - 2
    assert wall_time(-WALL, 7, WALL) == 0
    assert wall_time(0, 0, 2**70) == 2**63 - 1


def test_the_same_spells_give_the_same_bytes_and_the_most_severe_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "MAX_SPELLS", 3)
    keys = [DefinitionKey(f"x <= {number}.0") for number in range(5)]
    kinds = (VerdictState.PENDING, VerdictState.VIOLATED, VerdictState.CLEARING, VerdictState.HOLDS, VerdictState.VIOLATED)
    spells = {f"c{number}": {keys[number]: Spell(0, 0, state)} for number, state in enumerate(kinds)}
    data = saved_file(spells, 0)
    assert data == saved_file(dict(reversed(spells.items())), 0)
    saved = read_spells(data)
    assert len(saved) == 3
    assert [saved.resume(f"c{n}", keys[n], 0, WALL).state for n in range(5)] == [
        VerdictState.UNKNOWN, VerdictState.VIOLATED, VerdictState.CLEARING, VerdictState.UNKNOWN, VerdictState.VIOLATED
    ]  # fmt: skip
    monkeypatch.setattr(temporal, "MAX_SPELLS", 2)
    with pytest.raises(ConstraintCrdtError, match="3 spells, more than the 2"):
        read_spells(data)
    monkeypatch.setattr(temporal, "MAX_SPELLS_BYTES", len(data) - 1)
    with pytest.raises(ConstraintCrdtError, match="bytes, more than"):
        read_spells(data)


HEAD = b'{"format":"constraint-crdt spells","version":1,"spells":'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "damaged"),
        (b"\xff", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"version":1}', "damaged: .*format"),
        (b'{"format":"constraint-crdt state","version":1}', "no file of spells"),
        (b'{"format":"constraint-crdt spells","version":0}', "no file of spells"),
        (b'{"format":"constraint-crdt spells","version":2}', "newer version"),
        (HEAD, "damaged"),
        (HEAD + b"[]}", "damaged"),
        (HEAD + b'{"c":{"d":{"state":"holds","since":0,"elapsed":0}}}}', "damaged: .*state"),
        (HEAD + b'{"c":{"d":{"state":"pending","since":-1,"elapsed":0}}}}', "damaged: .*since"),
        (HEAD + b'{"c":{"d":{"state":"pending","since":0,"elapsed":9223372036854775808}}}}', "damaged: .*elapsed"),
        (HEAD + b'{"c":{"d":{"state":"pending","since":0}}}}', "damaged: .*elapsed"),
    ],
)
def test_a_damaged_file_is_refused_with_a_sentence(data: bytes, says: str) -> None:
    with pytest.raises(ConstraintCrdtError, match=says):
        read_spells(data)


def test_a_file_cut_at_any_byte_is_refused() -> None:
    data = saved_file({"c": {KEY: Spell(0, 0, VerdictState.VIOLATED)}}, 0)
    for length in range(len(data)):
        with pytest.raises(ConstraintCrdtError, match="damaged"):
            read_spells(data[:length])
