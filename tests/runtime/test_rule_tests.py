"""Cases of rules: the notation of series, nodes in virtual time, expectations, and a sentence with the place for each mistake."""

from collections.abc import Mapping
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt.alerts import AlertRule
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.model import Scope, VerdictState
from constraint_crdt.runtime.rule_tests import (
    EPOCH,
    GAP,
    CaseResult,
    Mismatch,
    Rules,
    RuleTestError,
    VirtualClock,
    duration,
    expand,
    junit,
    read_cases,
    run_test,
    show_time,
    virtual_fleet,
)
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.types.definition import Definition
from tests.expression.test_documented import SHOWN, TRACES, code

MINUTE = 60 * SECOND


def run(rules: Rules, test: Mapping[str, object], **fields: object) -> list[str]:
    """The mismatches of a test, as text."""
    file = read_cases({"rule_files": [], "test": [test], **fields})
    return [str(each) for each in run_test(file, file.test[0], rules)]


def constraint(when: str, **fields: object) -> Rules:
    return Rules({"x": Definition(when=when, **fields)}, [])  # type: ignore[arg-type]


# --- the notation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        ("5 -1.5 1e3 .5", [5.0, -1.5, 1000.0, 0.5]),
        ("0+2x3", [0.0, 2.0, 4.0, 6.0]),
        ("9-3x2 1x2", [9.0, 6.0, 3.0, 1.0, 1.0, 1.0]),
        ("-2+4x1", [-2.0, 2.0]),
        ("_ _x2 stale stalex2", [GAP, GAP, GAP, None, None, None]),
        ("true falsex1", [True, False, False]),
        ("5+0x2", [5.0, 5.0, 5.0]),
    ],
)
def test_the_notation_is_that_of_promtool(text: str, values: list[object]) -> None:
    assert expand(text) == values


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 9)).map(
            lambda each: (*each, f"{each[0]}{each[1]:+}x{each[2]}")
        )
    )
)
@settings(max_examples=50)
def test_a_series_is_what_a_loop_makes_of_it(items: list[tuple[int, int, int, str]]) -> None:
    wanted = [float(begin + step * number) for begin, step, times, _ in items for number in range(times + 1)]
    assert expand(" ".join(text for *_, text in items)) == wanted


@pytest.mark.parametrize("text", ["five", "5x", "1+x3", "_+1x3", "true+1x2", "0+1x99999999", "1,2"])
def test_what_is_no_notation_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(RuleTestError, match=r"is no value: write 5, _, stale"):
        expand(text)


@pytest.mark.slow
def test_a_series_has_a_bound() -> None:
    with pytest.raises(RuleTestError, match="more than 1000000 values"):
        expand("1x999999 1")


@pytest.mark.parametrize(("text", "ns"), [("90", 90), (1.5, 1.5), ("1h30m", 5400), ("0", 0), ("250ms", 0.25), ("1d", 86_400)])
def test_lengths_of_time(text: str | float, ns: float) -> None:
    assert duration(text) == ns * SECOND
    assert duration(show_time(duration(text))) == duration(text)


@pytest.mark.parametrize("text", ["", "5 m", "-1s", "400d", "soon", -1.0, "٣"])
def test_what_is_no_length_of_time_is_refused(text: str | float) -> None:
    with pytest.raises(RuleTestError, match="is not a length of time up to a year"):
        duration(text)


# --- verdicts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_violation_is_pending_violated_clearing_and_over() -> None:
    rules = constraint("x < 5.0", for_=2 * MINUTE, clear_after=MINUTE)
    expected = [
        {"at": "1m", "constraint": "x", "state": "holds", "verdict": "satisfied", "violated": False},
        {"at": "3m", "constraint": "x", "state": "pending", "since": "2m", "verdict": "violated"},
        {"at": "4m", "constraint": "x", "state": "violated", "since": "2m", "violated": True},
        {"at": "5m", "constraint": "x", "state": "clearing", "since": "2m", "violated": True},
        {"at": "6m", "constraint": "x", "state": "holds"},
    ]
    test = {"series": [{"variable": "x", "values": "1x1 9x2 1x2"}], "expect": expected}
    assert run(rules, test, max_age="2m") == []


def test_a_difference_shows_what_was_expected_and_what_came() -> None:
    expect = [{"at": "1m", "constraint": "x", "state": "violated", "since": "1m"}]
    assert run(constraint("x < 5.0"), {"series": [{"variable": "x", "values": "1x3"}], "expect": expect}, max_age="2m") == [
        "at 1m, constraint x\n  - expected: violated, since 1m\n  + got:      holds, since 0s"
    ]


@pytest.mark.parametrize(
    ("expected", "fits"),
    [
        ({"reason": "no measurement of x"}, True),
        ({"reason": "is older"}, False),
        ({"state": "unknown", "verdict": "unknown"}, True),
        ({"verdict": "satisfied"}, False),
        ({"violated": True}, False),
        ({"since": "1s"}, False),
        ({"since": 0}, True),
    ],
)
def test_each_field_is_compared(expected: dict[str, object], fits: bool) -> None:
    test = {"series": [], "expect": [{"at": "5s", "constraint": "x", **expected}]}
    assert (run(constraint("x < 5.0"), test) == []) is fits


@pytest.mark.slow
def test_the_instances_of_a_constraint_are_compared_with_their_states() -> None:
    rules = constraint("temp_c < 70.0", each="joint", for_=20 * SECOND)
    series = [
        {"variable": 'temp_c{joint="j1"}', "values": "60 90x2 60"},
        {"variable": 'temp_c{joint="j2"}', "values": "50 _ stale"},
    ]
    expect: list[dict[str, object]] = [
        {"at": at, "constraint": "x", "instances": states}
        for at, states in (
            ("0s", {"j1": "holds", "j2": "holds"}),
            ("10s", {"j1": "pending", "j2": "holds"}),
            ("30s", {"j1": "violated"}),
            ("40s", {"j1": "holds"}),
        )
    ]
    assert run(rules, {"interval": "10s", "series": series, "expect": expect}) == []
    expect[1]["instances"] = {"j1": "violated"}
    [found] = run(rules, {"interval": "10s", "series": series, "expect": expect})
    assert "- expected: instances j1 violated\n" in found
    assert found.endswith(", instances j1 pending, j2 holds")
    absent = {"at": "0s", "constraint": "x", "instances": {}}
    assert run(rules, {"series": [], "expect": [absent]}) == []


def test_a_gap_ages_and_a_stale_value_is_withdrawn() -> None:
    expect = [
        {"at": "40s", "constraint": "x", "state": "holds"},
        {"at": "41s", "constraint": "x", "state": "unknown", "reason": "is older than 30 s"},
        {"at": "60s", "constraint": "x", "state": "unknown", "reason": "no measurement"},
    ]
    test = {"interval": "10s", "series": [{"variable": "x", "values": "1 1 _x4 stale"}], "expect": expect}
    assert run(constraint("x < 5.0"), test) == []


def test_series_have_texts_lists_and_a_begin_of_their_own() -> None:
    rules = constraint('mode == "auto" && size(lanes) == 2')
    series = [
        {"variable": "mode", "values": ["_", "auto", "stale"], "interval": "5s"},
        {"variable": "lanes", "values": [[1, 2]], "start": "3s"},
    ]
    expect = [{"at": 4, "constraint": "x", "state": "unknown"}, {"at": 5, "constraint": "x", "state": "holds"}]
    assert run(rules, {"series": series, "expect": [*expect, {"at": 10, "constraint": "x", "state": "unknown"}]}) == []


@pytest.mark.slow
def test_a_window_counts_what_is_in_it() -> None:
    rules = constraint('increase("errs", duration("2m1ms")) < 10.0')
    expect = [
        {"at": "2m", "constraint": "x", "state": "unknown", "reason": "of the window"},
        {"at": "3m", "constraint": "x", "state": "holds"},
        {"at": "4m", "constraint": "x", "state": "violated", "since": "4m"},
    ]
    test = {"series": [{"variable": "errs", "values": "0+1x3 0+20x2"}], "expect": expect}
    assert run(rules, test, max_age="5m", check_every="1m") == [
        "at 4m, constraint x\n  - expected: violated, since 4m\n  + got:      holds, since 3m"
    ], "a reset is no growth"
    later = [{"at": "5m", "constraint": "x", "state": "violated", "since": "5m"}]
    assert run(rules, {**test, "expect": later}, max_age="5m", check_every="1m") == []


def test_a_constraint_ends_with_its_time() -> None:
    rules = constraint("x < 5.0", expires_at=EPOCH + 10 * SECOND)
    expect = [
        {"at": 9, "constraint": "x", "state": "violated", "node": "b"},
        {"at": 11, "constraint": "x", "state": "off", "node": "b"},
    ]
    test = {"node": [{"name": "a"}, {"name": "b"}], "series": [{"variable": "x", "values": "9", "node": "b"}], "expect": expect}
    assert run(rules, test) == []


def test_nodes_have_labels_and_values_of_their_own() -> None:
    rules = constraint("x < 5.0", on=(("zone", "a"),))
    nodes = [
        {"name": "one", "labels": {"zone": "a"}},
        {"name": "two", "labels": {"zone": "b"}},
        {"name": "three", "labels": {"zone": "a"}},
    ]
    series = [{"variable": "x", "values": "9", "node": name} for name in ("one", "two")]
    expect = [
        {"at": 1, "constraint": "x", "node": "one", "state": "violated"},
        {"at": 1, "constraint": "x", "node": "two", "state": "off"},
        {"at": 1, "constraint": "x", "node": "three", "state": "unknown"},
        {"at": 1, "constraint": "x", "state": "holds"},
    ]
    assert run(rules, {"node": nodes, "series": series, "expect": expect}) == [
        "at 1s, constraint x on one\n  - expected: holds\n  + got:      violated, since 0s"
    ], "the first node is meant where none is named"


@pytest.mark.slow
def test_a_constraint_on_the_fleet_reads_what_nodes_share() -> None:
    rules = constraint("sum(nodes, n, n.load) <= 10.0", scope=Scope.FLEET)
    series = [{"variable": "load", "values": values, "node": node} for node, values in (("a", "3x20"), ("b", "4x9 9x10"))]
    expect = [
        {"at": at, "constraint": "x", "node": node, "violated": bad} for at, bad in ((5, False), (15, True)) for node in ("a", "b")
    ]
    test = {"node": [{"name": "a"}, {"name": "b"}], "interval": "1s", "series": series, "expect": expect}
    assert run(rules, test) == []


@pytest.mark.slow
def test_alerts_fire_since_their_condition() -> None:
    rules = Rules(
        {"x": Definition(when="x < 5.0"), "y": Definition(when="y < 5.0")},
        [
            AlertRule(name="blind", kind="unknown", for_=20.0, to=("https://ops.example/secret",)),
            AlertRule(name="hot", kind="rate", half_life=30.0, above=3.0),
        ],
    )
    series = [{"variable": "x", "values": "1x9 _x60"}, {"variable": "y", "values": "1x29 9x40"}]
    alerts = [
        {"at": "39s", "alert": "blind", "pending": []},
        {"at": "50s", "alert": "blind", "pending": ["x"]},
        {"at": "61s", "alert": "blind", "firing": [{"subject": "x", "since": "40s", "fired": "60s"}], "pending": []},
        {"at": "29s", "alert": "hot"},
        {"at": "60s", "alert": "hot", "firing": ["y"]},
    ]
    assert run(rules, {"interval": "1s", "series": series, "alerts": alerts}) == []
    wrong = [{"at": "61s", "alert": "blind", "firing": [{"subject": "x", "since": "10s"}]}, {"at": "61s", "alert": "hot"}]
    first, second = run(rules, {"interval": "1s", "series": series, "alerts": wrong})
    assert first == "at 1m1s, alert blind\n  - expected: x since 10s\n  + got:      x since 40s fired at 1m"
    assert "- expected: none" in second


# --- the table of the docs --------------------------------------------------------------------------------------------------

MARKS = {"g": "1", "b": "9", "u": "stale", "_": "_"}


@pytest.mark.slow
def test_the_table_of_the_docs_holds_in_virtual_time() -> None:
    """But for the rows with restarts, suspensions and edits, which a case does not have."""
    chosen = [row for row in TRACES if set(code(row[3])) <= set(MARKS)]
    assert len(chosen) > 20
    definitions, series, expect = {}, [], []
    for number, (_, for_, clear_after, samples, states, _) in enumerate(chosen):
        name = f"x{number}"
        definitions[name] = Definition(when=f"{name} <= 5.0", for_=int(for_) * SECOND, clear_after=int(clear_after) * SECOND)
        series.append({"variable": name, "values": " ".join(MARKS[each] for each in code(samples))})
        shown = {mark: str(state) for state, mark in SHOWN.items()}
        expect += [{"at": 10 * index, "constraint": name, "state": shown[each]} for index, each in enumerate(code(states))]
    assert run(Rules(definitions, []), {"interval": "10s", "series": series, "expect": expect}) == []


# --- mistakes ---------------------------------------------------------------------------------------------------------------

GOOD = {"at": 1, "constraint": "x", "violated": False}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], "it must be a table, not a list"),
        ({}, "`rule_files` is missing"),
        ({"rule_files": [], "test": []}, "there is no test: write each under [[test]]"),
        ({"rule_files": [], "test": [{"seires": []}]}, "test 1: there is no field `seires`"),
        ({"rule_files": [], "test": [{}, {"series": [{"variable": "x"}]}]}, "test 2, series 1: `values` is missing"),
        (
            {"rule_files": [], "test": [{"series": [{"variable": 1}]}]},
            "test 1, series 1, variable: it must be a text, not a number",
        ),
        (
            {"rule_files": [], "test": [{"series": [{"variable": "x", "values": True}]}]},
            "test 1, series 1, values: it must be a text or a list, not true or false",
        ),
        (
            {"rule_files": [], "test": [{"expect": [{**GOOD, "state": "bad"}]}]},
            "test 1, expect 1, state: 'bad' is none of the values that it takes",
        ),
    ],
)
def test_a_mistake_in_the_form_has_its_place(content: object, sentence: str) -> None:
    with pytest.raises(RuleTestError) as error:
        read_cases(content)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        (
            {"expect": [{"at": 0, "constraint": "x"}]},
            "expect 1 (x): it expects nothing: give `state`, `violated`, `verdict`, `since`, `reason` or `instances`",
        ),
        ({}, "it expects nothing: write [[test.expect]] or [[test.alerts]]"),
        ({"expect": [{"at": 1, "constraint": "y"}]}, "expect 1: no rule file has a constraint 'y'"),
        ({"expect": [{**GOOD, "node": "b"}]}, "expect 1 (x): there is no node 'b': list it under [[test.node]]"),
        ({"expect": [{**GOOD, "at": "soon"}]}, "expect 1 (x): 'soon' is not a length of time"),
        ({"expect": [{**GOOD, "since": "x"}]}, "expect 1 (x): 'x' is not a length of time"),
        ({"alerts": [{"at": 1, "alert": "hot"}]}, "alerts 1: no rule file has an alert 'hot'"),
        ({"series": [{"variable": "x", "values": "a"}], "expect": [GOOD]}, "series 1 (x): 'a' is no value"),
        ({"series": [{"variable": "x", "values": "1", "interval": 0}], "expect": [GOOD]}, "`interval` must be above 0"),
        (
            {"series": [{"variable": "x", "values": "1"}] * 2, "expect": [GOOD]},
            "series 2 (x): there are two values of it on node at 0s",
        ),
        ({"series": [{"variable": "x y", "values": "1"}], "expect": [GOOD]}, "the values at 0s: "),
        ({"node": [{"name": "a"}] * 2, "expect": [GOOD]}, "two nodes have the same name"),
        ({"node": [{"name": str(n)} for n in range(51)], "expect": [GOOD]}, "at most 50 nodes, not 51"),
        ({"expect": [{**GOOD, "at": "30d"}]}, "set `check_every` of the file, as to 1m"),
    ],
)
def test_a_mistake_in_a_test_has_its_place(test: dict[str, object], sentence: str) -> None:
    with pytest.raises(RuleTestError) as error:
        run(constraint("x < 5.0"), test)
    assert sentence in str(error.value)


# --- reports ----------------------------------------------------------------------------------------------------------------


def test_junit_has_each_test_and_no_character_that_xml_lacks() -> None:
    failed = Mismatch("at 1m, constraint <x>", "holds", "violated & \x00")
    text = junit({"a.toml": [CaseResult("fine & well", [], 0.5), CaseResult("bad", [failed], 0.25)]})
    (suite,) = ET.fromstring(text)
    assert suite.attrib == {"name": "a.toml", "tests": "2", "failures": "1", "time": "0.750"}
    fine, bad = suite
    assert (fine.attrib["name"], len(fine)) == ("fine & well", 0)
    assert bad[0].attrib["message"] == "at 1m, constraint <x>"
    assert (bad[0].text or "").splitlines() == ["at 1m, constraint <x>", "  - expected: holds", "  + got:      violated & \ufffd"]


# --- virtual time -----------------------------------------------------------------------------------------------------------


async def test_a_step_is_at_its_time_and_samples_come_before_it() -> None:
    clock = VirtualClock()
    async with virtual_fleet([NodeSettings(name="a", check_every=1.0)], clock) as fleet:
        await fleet.apply({"x": Definition(when="x < 5.0", for_=int(2.5 * SECOND))})
        await fleet.nodes["a"].measure({"x": 9.0})
        await fleet.advance(3 * SECOND, inclusive=False)
        assert fleet.nodes["a"].runtime.evaluator.violated == 0
        await fleet.advance(3 * SECOND, inclusive=True)
        (pending, violated) = fleet.turns
        assert (pending.at, pending.turn.after) == (0, VerdictState.PENDING)
        assert (violated.at, violated.turn.after, violated.verdict and violated.verdict.margin) == (
            3 * SECOND,
            VerdictState.VIOLATED,
            -4.0,
        )
        assert clock.wall() == EPOCH + 3 * SECOND
