"""What an operator asks of the dashboard: what is wrong, where, since when, and what to do. In a real browser, on a live fleet."""

import json
from itertools import cycle
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from constraint_crdt import Definition, MemoryNetwork, Node
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.http.tokens import Tokens
from constraint_crdt.model import IfUnknown, Severity
from constraint_crdt.operations.constraints import AddConstraint
from constraint_crdt.operations.operation import Right
from tests.conftest import BUDGET
from tests.dashboard.chromium import Chromium, need_axe
from tests.dashboard.conftest import in_force
from tests.dashboard.live_fleet import NAMES, LiveFleet, live_fleet
from tests.dashboard.test_in_browser import chip, row, shown
from tests.runtime.fleet import eventually

pytestmark = [pytest.mark.browser, pytest.mark.one_worker("(browser)")]


def order(page: Chromium) -> list[str]:
    """The ids of the rows, from the top."""
    return list(page.run("return [...document.querySelectorAll('#constraints-table tr[data-id]')].map((each) => each.dataset.id)"))


def definitions(fleet: LiveFleet, id_: str) -> tuple[Definition, ...]:
    return fleet.ask(lambda: fleet.nodes[0].gossip.state.constraints.definitions(id_))


async def conflict(fleet: LiveFleet, id_: str) -> None:
    """Two nodes of other networks define it, without a word of each other, and the first of the fleet hears of both."""
    for name, when, severity in (("forge-9", "joint_c < 70.0", "critical"), ("anvil-9", "joint_c < 95.0", "warning")):
        async with Node(name=name, transport=MemoryNetwork().transport(), actor=f"{name}'s user") as other:
            await other.add_constraint(id_, when=when, severity=severity, ttl=3600, about="warranty")
            await fleet.nodes[0].import_state(await other.export_state())
    await fleet.nodes[0].retire("forge-9")
    await fleet.nodes[0].retire("anvil-9")


# --- editing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_an_edit_keeps_all_that_is_not_changed_and_shows_the_difference_first(page: Chromium, fleet: LiveFleet) -> None:
    node = fleet.nodes[2]
    fleet.do(
        node.add_constraint(
            "press_speed", when="speed_mps <= 1.5", severity="critical", about="people", on={"kind": "press"}, ttl=3600, for_=2.5,
            clear_after=10, clear_when="speed_mps <= 1.2", if_unknown="violated", max_age=5,
        )
    )  # fmt: skip
    before = fleet.ask(lambda: node.gossip.state.constraints.definitions("press_speed"))[0]
    shown(page, "press_speed")
    page.click(row("press_speed"))
    page.until(lambda: "speed_mps <= 1.2" in page.text("#detail dl"), "the detail has the fields")
    for text in ("for", "2.5 s", "clear after", "10 s", "if unknown", "violated", "max age", "5 s"):
        assert text in page.text("#detail dl")
    page.click('#detail [data-focus="edit"]')
    page.until(lambda: page.count("#add-dialog[open]"), "the dialog")
    assert page.text("#add-changes-title") == "Nothing is changed yet."
    assert page.run("return document.querySelector('#add-submit').disabled") is True
    assert page.count("#add-more[open]") == 1
    page.type("#add-clear_when", "speed_mps <==")
    page.click("#add-submit")
    page.until(lambda: "`clear_when`" in page.text("#add-error"), "the node refuses it")
    assert page.run("return document.activeElement.id") == "add-clear_when"
    assert ["422" in each for each in page.complaints()] == [True]
    page.complaints().clear()
    page.type("#add-clear_when", "speed_mps <= 1.0")
    page.type("#add-for", "30")
    assert page.text('#add-changes [data-field="for"] dd') == "2.5 s → 30 s"
    assert page.text('#add-changes [data-field="clear_when"] dd') == "speed_mps <= 1.2 → speed_mps <= 1.0"
    assert page.count("#add-changes [data-field]") == 2
    page.until(lambda: page.text("#add-effect").startswith("Loosens and tightens: a violation does not clear"), "the label")
    assert "speed_mps = 1.2, which sufficed; for is longer: it is violated later." in page.text("#add-effect")
    page.click("#add-submit")
    page.until(lambda: "is critical, and this loosens it" in page.text("#add-error"), "the node refuses it")
    assert page.run("return document.activeElement.id") == "add-loosen"
    assert ["409" in each for each in page.complaints()] == [True]
    page.complaints().clear()
    page.click("#add-loosen")
    page.type("#add-why", "the new hall, ½ as wide")
    page.click("#add-submit")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    page.until(lambda: "30 s" in page.text("#detail dl"), "the detail says so")
    page.until(lambda: "the new hall, ½ as wide" in page.text('#detail [data-version="2"]'), "the history has the reason")
    [after] = definitions(fleet, "press_speed")
    assert before.expires_at is not None
    assert after.expires_at is not None
    assert abs(after.expires_at - before.expires_at) < 10_000, "the end stays, to some microseconds"
    wanted = Definition(
        "speed_mps <= 1.5", severity=Severity.CRITICAL, about="people", on=(("kind", "press"),), for_=30 * SECOND,
        clear_after=10 * SECOND, clear_when="speed_mps <= 1.0", if_unknown=IfUnknown.VIOLATED, max_age=5 * SECOND,
    )  # fmt: skip
    assert after.without_end() == wanted
    page.click("#add")
    assert page.count("#add-more[open]") == 0
    assert page.run("return document.querySelector('#add-clear_when').value") == ""


@pytest.mark.long
def test_what_was_changed_or_exists_meanwhile_is_not_replaced_without_a_word(page: Chromium, fleet: LiveFleet) -> None:
    fleet.do(fleet.nodes[0].add_constraint("shared", when="x < 1"))
    shown(page, "shared")
    page.click(row("shared"))
    page.click('#detail [data-focus="edit"]')
    page.until(lambda: page.count("#add-dialog[open]"), "the dialog")
    fleet.do(fleet.nodes[0].add_constraint("shared", when="x < 2", severity="critical"))
    page.type("#add-when", "x < 3")
    page.click("#add-submit")
    page.until(lambda: "eanwhile shared was changed" in page.text("#add-error"), "it says so")
    assert [each.when for each in definitions(fleet, "shared")] == ["x < 2"]
    assert page.text('#add-changes [data-field="when"] dd') == "x < 2 → x < 3"
    assert page.text('#add-changes [data-field="severity"] dd') == "critical → warning"
    page.click("#add-dialog [data-close]")

    page.click("#add")
    page.type("#add-when", "x < 9")
    page.run("document.querySelector('#add-id').value = 'shared'; document.querySelector('#add-form').requestSubmit()")  # at once
    page.until(lambda: "constraint shared exists already" in page.text("#add-error"), "it says so")
    assert [each.when for each in definitions(fleet, "shared")] == ["x < 2"]
    assert page.text("#add-submit") == "Replace shared"
    page.until(
        lambda: page.text("#add-effect").startswith("Loosens: it allows x = 2.0, which was forbidden; it is less"), "the label"
    )
    page.click("#add-loosen")
    page.click("#add-submit")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    assert [each.when for each in definitions(fleet, "shared")] == ["x < 9"]


@pytest.mark.long
def test_a_conflict_shows_both_sides_and_keeps_one_or_both(page: Chromium, fleet: LiveFleet) -> None:
    fleet.do(conflict(fleet, "joint"))
    page.until(lambda: chip(page, "conflicts") == "1", "a conflict is counted")
    page.click(row("joint"))
    page.until(lambda: page.count("#detail .side") == 2, "both sides")
    for name, when in (("forge-9", "joint_c < 70.0"), ("anvil-9", "joint_c < 95.0")):
        side = f'#detail .side[data-dot^="{name}~"]'
        assert when in page.text(side)
        assert f"{name}'s user" in page.text(side)
    assert page.count("#detail [data-focus=edit]") == 0, "an edit of the one would end the other without a word"
    page.click('#detail [data-focus="keep both"]')
    page.click("#confirm-yes")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    shown(page, "joint-2")
    [first], [second] = definitions(fleet, "joint"), definitions(fleet, "joint-2")
    assert {(each.when, each.severity, each.about) for each in (first, second)} == {
        ("joint_c < 70.0", Severity.CRITICAL, "warranty"),
        ("joint_c < 95.0", Severity.WARNING, "warranty"),
    }
    assert first.expires_at is not None
    assert second.expires_at is not None

    fleet.do(conflict(fleet, "elbow"))
    shown(page, "elbow")
    page.run("location.hash = '#/constraint/elbow'")
    page.until(lambda: page.count("#detail .side") == 2, "both sides")
    page.click('#detail .side[data-dot^="anvil-9~"] button')
    page.until(lambda: page.text("#confirm-yes") == "Keep this one, and loosen it", "what ends is critical")
    assert "it allows joint_c = 70.0, which was forbidden" in page.text("#confirm-loosens")
    page.click("#confirm-no")
    page.click('#detail .side[data-dot^="forge-9~"] button')
    page.until(lambda: "joint_c < 95.0 → joint_c < 70.0" in page.text("#confirm-lines"), "what ends")
    assert page.text("#confirm-yes") == "Keep this one"
    page.click("#confirm-yes")
    page.until(lambda: not page.count("#detail .side"), "one is left")
    assert [(each.when, each.severity) for each in definitions(fleet, "elbow")] == [("joint_c < 70.0", Severity.CRITICAL)]


def test_every_field_of_a_definition_that_is_told_can_be_given_again() -> None:
    """`definition.js` sends a definition with all that it says, but for what it lists as found by the node."""
    from constraint_crdt.operations.constraints import NewConstraint
    from constraint_crdt.operations.evidence import StandingDefinition

    source = (Path(__file__).parents[2] / "src/constraint_crdt/dashboard/static/definition.js").read_text()
    found = set(json.loads(source.partition("const FOUND = new Set(")[2].partition(")")[0]))
    told = {field.removesuffix("_") for field in StandingDefinition.__struct_fields__}
    assert told - found <= {field.removesuffix("_") for field in NewConstraint.__struct_fields__}


# --- the first screen ---------------------------------------------------------------------------------------------------------


def test_what_is_wrong_comes_first_with_value_limit_node_and_since(page: Chromium, fleet: LiveFleet) -> None:
    forge, tongs = fleet.nodes[0], fleet.nodes[4]
    for id_, when, severity in (
        ("a_holds", "x < 5.0", "critical"),
        ("b_warning", "speed_mps <= 1.5", "warning"),
        ("c_unknown", "gpu_c < 85.0", "critical"),
        ("d_critical", "speed_mps <= 2.0", "critical"),
    ):
        fleet.do(forge.add_constraint(id_, when=when, severity=severity))
    page.until(lambda: all(len(ids) == 4 for ids in in_force(fleet)), "all enforce them")
    fleet.do(tongs.measure({"speed_mps": 9.1, "gpu_c": "broken", "x": 1.0}))
    fleet.do(forge.measure({"speed_mps": 1.0, "x": 1.0}))
    page.until(lambda: order(page) == ["d_critical", "b_warning", "c_unknown", "a_holds"], "the worst comes first")
    assert "speed_mps 9.1, limit 1.5" in page.text(row("b_warning"))
    assert "since " in page.text(row("b_warning"))
    assert "on tongs" in page.text(row("b_warning"))
    page.until(lambda: "on tongs" in page.text(row("c_unknown")), "where it is unknown")
    page.size(390, 844)
    page.until(
        lambda: page.run("return document.querySelector('tr[data-id=d_critical] .what').getBoundingClientRect().top") < 500,
        "on a phone",
    )
    assert page.run("return document.querySelector('#lattice').getBoundingClientRect().top") > 600, "the map comes after it"

    # What is filtered, sorted and opened is in the address: it is kept by links, and by loading the page anew.
    page.size(1600, 900)
    page.type("#search", "speed")
    page.click('#chips [data-value="critical"]')
    page.until(lambda: order(page) == ["d_critical"], "the one that is searched for")
    page.click(row("d_critical"))
    page.click("#detail .pairs.now a")
    page.until(lambda: page.text("#detail h2") == "tongs", "the node")
    page.until(lambda: "speed_mps 9.1, limit 2" in page.text("#detail"), "what is violated there")
    assert "gpu_c" in page.text("#detail")
    page.driver.refresh()
    page.run("window.stayed = true")
    page.until(lambda: order(page) == ["d_critical"], "as before")
    assert page.run("return document.querySelector('#search').value") == "speed"
    page.until(lambda: page.text("#detail h2") == "tongs", "as before")
    page.type("#search", "tongs")
    page.until(lambda: page.text("#found-nodes") == "Nodes: tongs", "search finds nodes")


def test_the_line_on_top_says_what_lasts_only(browser: Chromium, fleet: LiveFleet) -> None:
    browser.open(f"{fleet.url.rstrip('/')}/dashboard/truth.js")  # a page without the dashboard, which writes its own line
    script = """
        const done = arguments[arguments.length - 1];
        document.body.innerHTML = '<p id="truth"></p>';
        Promise.all([import('/dashboard/truth.js'), import('/dashboard/model.js')]).then(async ([{Truth}, {Model}]) => {
            const model = new Model(), said = [], clock = Date.now;
            const node = (name, more) => ({node: name, live: true, same_constraints: true, convergence: null, ...more});
            const look = async () => {
                for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
                said.push(truth.innerText);
            };
            new Truth(model, () => {});
            model.setStatus({node: 'a', trouble: null, clock_in_doubt: false, lost_writes: 0});
            model.setNodes([node('a'), node('b', {same_constraints: false, same_state: false})]);
            await look();
            Date.now = () => clock() + 6000;
            const since = (clock() - 174000) * 1e6;
            model.setNodes([node('a'), node('b', {same_constraints: false}), node('c', {live: false, convergence: {since}})]);
            await look();
            model.setNodes([node('a'), node('b', {live: false, convergence: {since}})]);
            model.setStatus({node: 'a', trouble: 'the disk is full', clock_in_doubt: true, lost_writes: 0,
                concerns: [{kind: 'trouble', what: 'c tells: no space'}, {kind: 'changed', what: 'that is in the events'}]});
            await look();
            Date.now = clock;
            done(said);
        });"""
    passing, lasting, alone = browser.driver.execute_async_script(script)
    browser.open("about:blank")  # its second line would go on
    assert passing == "2 of 2 nodes reachable · the same constraints everywhere"
    assert lasting == "2 of 3 nodes reachable · b lacks changes of constraints · c away 3 min"
    assert alone.startswith("writes are refused: the disk is full · cut off: none of 1 other nodes reachable")
    assert alone.endswith("b away 3 min · the clock of this node is in doubt · c tells: no space")


# --- a drill: what happens at night, what the first screen says of it, and what leads to the remedy ------------------------------


async def _overspeed(fleet: LiveFleet) -> None:
    await fleet.nodes[3].add_constraint("drill_speed", when="drill_mps <= 1.5", severity="critical")
    await fleet.nodes[3].measure({"drill_mps": 9.1})


async def _dead_sensor(fleet: LiveFleet) -> None:
    await fleet.nodes[1].add_constraint("drill_temp", when="drill_c < 85.0", severity="critical", max_age=0.2)
    await fleet.nodes[1].measure({"drill_c": 60.0})


async def _wrong_edit(fleet: LiveFleet) -> None:
    await fleet.nodes[0].measure({"drill_percent": 60.0})
    await fleet.nodes[0].add_constraint("drill_battery", when="drill_percent > 15.0")
    await fleet.nodes[0].add_constraint("drill_battery", when="drill_percent > 150.0")


async def _mass_violation(fleet: LiveFleet) -> None:
    await fleet.nodes[0].add_constraint("drill_ping", when="drill_ms < 20.0")
    await eventually(lambda: all("drill_ping" in node.constraint_ids() for node in fleet.nodes))
    for node in fleet.nodes:
        await node.measure({"drill_ms": 250.0})


async def _flapping(fleet: LiveFleet) -> None:
    await fleet.nodes[0].add_constraint("drill_flaps", when="drill_v < 1.0")
    for turn in range(5):
        await fleet.nodes[0].measure({"drill_v": float(turn % 2 == 0) * 2.0})


async def _conflict(fleet: LiveFleet) -> None:
    await conflict(fleet, "drill_joint")


async def _nothing(_: LiveFleet) -> None:
    """What another incident left."""


async def _cut(fleet: LiveFleet) -> None:
    await fleet.nodes[4].add_constraint("drill_last", when="drill_w < 1.0")
    await fleet.nodes[4].measure({"drill_w": 2.0})
    await eventually(lambda: "drill_last" in fleet.nodes[0].gossip.state.verdicts.violated)
    fleet.network.cut(["tongs"], ["forge", "anvil", "bellows", "hammer", "vise"])


async def _clock(fleet: LiveFleet) -> None:
    fleet.ahead["hammer"] = 60.0


async def _disk_full(fleet: LiveFleet) -> None:
    fleet.nodes[0]._runtime.persistence._health_changed("the disk is full")


async def _disk_full_elsewhere(fleet: LiveFleet) -> None:
    fleet.nodes[5]._runtime.persistence._health_changed("the disk is full")


async def _clone(fleet: LiveFleet) -> None:
    copy = fleet.clone("forge")
    await copy.start()
    await eventually(lambda: any(each.kind == "duplicate" for each in fleet.nodes[0].status().concerns))
    await copy.stop()


EDIT, RETIRE, DIALOG, CONFIRM, UNDO, REASON = (
    "#detail [data-focus=edit]",
    "#detail [data-focus=retire]",
    "#add-dialog[open]",
    "#confirm-dialog[open]",
    "#detail [data-focus=undo]",
    "#reason-dialog[open]",
)
WHERE = "#detail .pairs.now a"
DOCTOR = "#truth button.inline"


def advice(check: str) -> str:
    """What the doctor advises, in its tab."""
    return f'#panel-doctor:not([hidden]) [data-check="{check}"]:not([data-level=ok]) .advice'


DRILL = [
    ("overspeed", _overspeed, row("drill_speed"), "drill_mps 9.1, limit 1.5", [row("drill_speed"), WHERE], RETIRE),
    ("dead sensor", _dead_sensor, row("drill_temp"), "drill_c is older than 0.2 s", [row("drill_temp"), WHERE], RETIRE),
    ("wrong edit", _wrong_edit, row("drill_battery"), "drill_percent 60, limit 150", [row("drill_battery"), UNDO], REASON),
    ("mass violation", _mass_violation, row("drill_ping"), "and 5 others", [row("drill_ping"), EDIT], DIALOG),
    ("flapping", _flapping, row("drill_flaps"), "flaps, violated 3 times", [row("drill_flaps"), EDIT], DIALOG),
    ("conflict", _conflict, row("drill_joint"), "conflict", [row("drill_joint"), "#detail .side button"], CONFIRM),
    ("cut", _cut, "#truth", "tongs away", ["#truth a", RETIRE], CONFIRM),
    ("told before the cut", _nothing, row("drill_last"), "on tongs (away)", [row("drill_last"), WHERE], RETIRE),
    ("clock", _clock, "#truth", "clock: hammer +60", [DOCTOR], advice("clock")),
    ("disk full", _disk_full, "#truth", "writes are refused: the disk is full", [DOCTOR], advice("store")),
    ("disk full elsewhere", _disk_full_elsewhere, "#truth", "vise tells: ", [DOCTOR], advice("others")),
    ("clone", _clone, "#truth", "another live node has the name forge", [DOCTOR], advice("name")),
]
"""What happens, where the first screen says it and how, the clicks, and what stands there then."""


@pytest.mark.long
def test_the_first_screen_names_an_incident_and_three_clicks_lead_to_its_remedy(browser: Chromium) -> None:
    took = []
    with live_fleet() as fleet:  # of its own: a clock that was wrong counts for some time
        page = browser
        page.size(1600, 900)
        page.open(fleet.url)
        page.until(lambda: "6 of 6 nodes reachable" in page.text("#truth"), "six nodes")
        page.complaints().clear()
        for incident, inject, place, says, clicks, remedy in DRILL:
            fleet.do(inject(fleet))
            took.append(page.until(lambda here=place, text=says: text in page.text(here), f"{incident}: {says}"))  # type: ignore[misc]
            assert len(clicks) <= 3
            for selector in (*clicks, remedy):
                page.until(lambda wanted=selector: page.count(wanted), f"{incident}: {selector}")  # type: ignore[misc]
                if selector != remedy:
                    page.run("document.querySelector(arguments[0]).click()", selector)
            page.run("document.querySelector('dialog[open]')?.close(); location.hash = '#/?'")
        assert page.complaints() == []
        fleet.ask(fleet.network.heal)
        page.until(lambda: "tongs" not in page.text("#truth"), "it is back")
        page.open("about:blank")
    if BUDGET == "nightly":
        assert max(took) < 3.0, "; ".join(f"{name} {each:.2f}" for (name, *_), each in zip(DRILL, took, strict=True))


# --- budgets, alerts, events, the course ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_budgets_alerts_and_the_doctor_have_a_place(page: Chromium, fleet: LiveFleet) -> None:
    forge = fleet.nodes[0]
    fleet.do(forge.budgets.define("dock", 5, lease=60.0))
    fleet.do(forge.add_constraint("alerting_1", when="z < 1.0"))
    fleet.do(forge.measure({"z": 2.0}))
    hold = fleet.do(forge.budgets.acquire("dock", 2, timeout=10.0, holder="robot-7"))
    page.click("#tab-budgets")
    page.until(lambda: "robot-7 on forge" in page.text('[data-budget="dock"]'), "who holds")
    assert "dock 2 of 5 held" in page.text('[data-budget="dock"]')
    widths = page.run(
        "return [...document.querySelectorAll('[data-budget=dock] .bar i')].map((each) => parseFloat(each.style.width))"
    )
    assert widths[0] == 40
    assert sum(widths) < 100.1
    fleet.do(forge.budgets.release("dock", hold.hold))
    page.until(lambda: "Nobody holds any." in page.text('[data-budget="dock"]'), "it is released")
    page.until(lambda: "unsafe alerting_1" in page.text("#alerts-now"), "the alert is on the first screen")
    page.click("#alerts-now button")
    page.until(lambda: "judgements a minute" in page.text("#panel-alerts"), "the alert, with its reason")
    page.until(lambda: page.text("#tab-doctor b") != "", "the number of findings, before the tab is opened")
    assert not page.count("#panel-doctor:not([hidden])")
    page.click("#tab-doctor")
    page.until(lambda: page.count("#doctor-list [data-level]") > 3, "the findings")
    assert page.count("#doctor-list [data-level]:not([data-level=ok])") == int(page.text("#tab-doctor b"))
    fleet.do(forge.counters.move("moved", 2))
    page.click("#tab-counters")
    page.until(lambda: "moved" in page.text("#panel-counters"), "the counters")
    fleet.do(forge.tiles.put("hall", "sign", "the gate is open", tags=["red"]))
    page.click("#tab-tiles")
    page.click('[data-room="hall"] summary')
    page.until(lambda: "the gate is open" in page.text('[data-tile="sign"]'), "the tiles of a room")
    fleet.do(forge.tiles.delete("hall", "sign"))
    fleet.do(forge.budgets.remove("dock"))


@pytest.mark.long
def test_alerts_are_acknowledged_and_silenced_from_the_page(page: Chromium, fleet: LiveFleet) -> None:
    forge = fleet.nodes[0]
    fleet.do(forge.add_constraint("alerting_3", when="ack < 1.0"))
    fleet.do(forge.measure({"ack": 2.0}))
    line = '#alerts-list [data-alert="unsafe/alerting_3"]'
    page.until(lambda: "unsafe alerting_3" in page.text("#alerts-now"), "it is on the first screen")
    page.click("#alerts-now button")
    page.click('#alerts-list [data-focus="acknowledge unsafe/alerting_3"]')
    page.type("#reason-why", "on my way")
    page.click("#reason-yes")
    page.until(lambda: "acknowledged by local" in page.text(line), "who looks after it")
    page.until(lambda: "1 alert silenced or acknowledged" in page.text("#alerts-now"), "nobody else has to")
    assert "alerting_3" not in page.text("#alerts-now")
    assert "on my way" in page.text("#alerts-list [data-silence]")
    page.click("#alerts-list [data-silence] button")
    page.click("#confirm-yes")
    page.until(lambda: "unsafe alerting_3" in page.text("#alerts-now"), "it is open again")

    page.click('#alerts-list [data-focus="silence unsafe/alerting_3"]')
    anew = "const at = document.querySelector(arguments[0]); at.replaceWith(at.cloneNode(true))"
    page.run(anew, '#alerts-list [data-focus="silence unsafe/alerting_3"]')
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.count("dialog[open]"), "it closes")
    focused = "return document.activeElement.dataset.focus"
    page.until(lambda: page.run(focused) == "silence unsafe/alerting_3", "the focus is back, also if that was put in anew")
    page.click('#alerts-list [data-focus="silence rule unsafe"]')
    page.click("#reason-yes")
    page.until(lambda: page.text("#reason-error") == "Say why, for the others.", "a silence needs a reason")
    page.until(lambda: page.run("return document.activeElement.id") == "reason-why", "the field has the focus")
    page.type("#reason-why", "works on the dock")
    page.type("#reason-on", "kind in (")
    page.click("#reason-yes")
    page.until(lambda: page.text("#reason-error") != "", "the node refuses the selector")
    assert ["422" in each for each in page.complaints()] == [True]
    page.complaints().clear()
    page.type("#reason-on", "")
    page.click("#reason-yes")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    [silence] = fleet.ask(forge.fleet_alerts.silences)
    assert (silence.alert, silence.why) == ("unsafe", "works on the dock")
    page.until(lambda: "silenced" in page.text(line), "it is silenced")
    page.click("#alerts-list [data-silence] button")
    page.click("#confirm-yes")
    page.until(lambda: not page.count("#alerts-list [data-silence]"), "it is ended")


@pytest.mark.long
def test_a_constraint_has_its_history_and_goes_back_to_a_version(page: Chromium, fleet: LiveFleet) -> None:
    anvil = fleet.nodes[1]
    fleet.do(fleet.nodes[0].measure({"hist_c": 60.0}))
    for limit in (70, 80, 8):
        fleet.do(anvil.add_constraint("hist", when=f"hist_c < {limit}.0", severity="critical", loosen=True))
    shown(page, "hist")
    page.click(row("hist"))
    page.until(lambda: "hist_c < 80.0 → hist_c < 8.0" in page.text('#detail [data-version="3"]'), "what was changed")
    assert "on anvil" in page.text('#detail [data-version="3"]')
    page.until(lambda: "measured on" in page.text("#detail") and "alert" not in page.text("#detail .pairs .warn"), "what it reads")
    page.run("const part = document.querySelector('#detail .course'); part.mine = true; part.querySelector('button').focus()")
    page.run("document.querySelector('#detail details').open = true")
    page.click('#detail [data-focus="undo"]')
    page.until(lambda: page.text("#reason-lines dd") == "hist_c < 8.0 → hist_c < 80.0", "what it means")
    assert "It is critical, and this loosens it: it allows hist_c =" in page.text("#reason-lines .error")
    assert page.text("#reason-yes") == "Undo it, and loosen it"
    page.type("#reason-why", "a slip")
    page.click("#reason-yes")
    page.until(lambda: "a slip" in page.text('#detail [data-version="4"]'), "the history has the reason")
    assert page.run("return document.querySelector('#detail .course').mine && document.querySelector('#detail details').open")
    assert [each.when for each in definitions(fleet, "hist")] == ["hist_c < 80.0"]
    page.click('#detail [data-focus="version 1"]')
    page.until(lambda: page.count("#reason-dialog[open]"), "what it means is asked for first")
    page.click("#reason-yes")
    page.until(lambda: "hist_c < 70.0" in page.text("#detail pre"), "the first version")

    page.run("detail.scrollTop = 0")
    page.click('#detail [data-focus="disable"]')
    page.type("#reason-why", "the sensor is being replaced")
    page.click("#reason-yes")
    page.until(lambda: "the sensor is being replaced. No node evaluates it." in page.text("#detail"), "who, and why")
    page.until(lambda: "Disabled" in page.text(row("hist")), "the list says so")
    page.click('#detail [data-focus="enable"]')
    page.click("#confirm-yes")
    page.until(lambda: "Violated recently" in page.text(row("hist")), "it is evaluated again")


@pytest.mark.long
def test_events_and_courses_are_those_of_the_whole_fleet(page: Chromium, fleet: LiveFleet) -> None:
    tongs = fleet.nodes[4]
    fleet.do(fleet.nodes[0].add_constraint("afar", when="afar_c < 85.0"))
    fleet.do(fleet.nodes[0].add_constraint("watched", when="afar_c < 99.0", mode="audit"))
    page.until(lambda: all(len(ids) == 2 for ids in in_force(fleet)), "all enforce them")
    for value, said in (
        (99.5, "afar is violated on tongs"),
        (50.0, "afar is satisfied again on tongs"),
        ("broken", "cannot be decided on tongs"),
        (99.25, "afar_c 99.25, limit 85"),
    ):
        fleet.do(tongs.measure({"afar_c": value}))
        page.until(lambda text=said: text in page.text("#events"), f"of another node: {said}")  # type: ignore[misc]
    page.until(lambda: "Violated, audit" in page.text(row("watched")), "of mode audit")
    assert chip(page, "violated") == "1"
    assert chip(page, "audit") == "1"
    page.click("#strip-range")
    assert page.text("#strip-range") == "last 1 h"
    page.click("#tab-nodes")
    page.click('#nodes-table [data-key="violations"] button')
    assert {"strip=3600", "nodes=violations", "side=nodes"} <= set(page.run("return location.hash").partition("?")[2].split("&"))
    page.click(row("afar"))
    page.until(lambda: "On tongs, as told at" in page.text("#detail .course .note"), "the course where it is violated")
    page.until(lambda: page.count("#detail .u-wrap canvas"), "the chart")


def test_what_happens_on_many_nodes_at_once_has_one_line(page: Chromium, fleet: LiveFleet) -> None:
    fleet.do(fleet.nodes[0].add_constraint("everywhere", when="all_c < 1.0"))
    page.until(lambda: all(len(ids) == 1 for ids in in_force(fleet)), "all enforce it")
    for node in fleet.nodes:
        fleet.do(node.measure({"all_c": 2.0}))
    line = (
        "return [...document.querySelectorAll('#events li')].map((each) => each.innerText)"
        ".filter((each) => each.includes('everywhere is'))"
    )
    page.until(lambda: len(page.run(line)) == 1 and " and 3 others" in page.run(line)[0], "one line for six nodes")
    assert ": all_c = 2" in page.run(line)[0] or ": all_c 2, limit 1" in page.run(line)[0]


def test_events_of_one_kind_at_once_are_joined_by_constraint_or_by_node(page: Chromium) -> None:
    script = """
        const done = arguments[arguments.length - 1];
        import('/dashboard/event_list.js').then(({lines}) => {
            const turn = (second, kind, node, constraint = 'a') =>
                ({kind, node, constraint, time: second * 1e9, detail: `v ${second}`});
            const many = (count, make) => Array.from({length: count}, (_, place) => make(place));
            const kinds = ['violated', 'satisfied'];
            const told = {
                wide: many(5, (at) => turn(at / 10, 'violated', `r${at}`)),
                apart: many(3, (at) => turn(11 * at, 'violated', `r${at}`)),
                here: many(5, (at) => turn(at / 10, 'violated', 'r1', `c${at}`)),
                named: many(4, (at) => turn(at / 10, 'violated', 'r1', `c${at}`)),
                gone: many(4, (at) => ({kind: 'peer down', node: `r${at}`, time: at, constraint: ''})),
                added: many(4, (at) => ({kind: 'added', constraint: `c${at}`, time: at})),
                flaps: many(10, (at) => turn(at, kinds[(at >> 1) % 2], `r${at % 2}`)),
                few: many(3, (at) => turn(at, kinds[at % 2], 'r1')),
                begins: ['unknown', ...kinds, 'violated'].map((kind, at) => turn(at, kind, 'r1')),
                calm: many(4, (at) => turn(700 * at, kinds[at % 2], 'r1')),
            };
            const said = (events) => lines(events).map(({make}) => make().querySelector('span').innerText);
            done(Object.fromEntries(Object.entries(told).map(([name, events]) => [name, said(events)])));
        });"""
    found = page.driver.execute_async_script(script)
    assert found["wide"] == ["a is violated on r0, r1, r2 and 2 otherson r0: v 0"]
    assert found["here"] == ["c0 and 4 others are violated on r1v 0"]
    assert found["gone"] == ["r0, r1, r2 and 1 other are not live"]
    assert [len(found[each]) for each in ("apart", "named", "added", "few", "begins", "calm")] == [3, 4, 4, 3, 4, 4]
    [flaps] = found["flaps"]
    assert flaps.startswith("a flaps on r0, r1: 10 turns since ")
    assert flaps.endswith(", violated now on r1v 9")


@pytest.mark.long
def test_events_are_filtered_and_those_that_flap_have_one_line(page: Chromium, fleet: LiveFleet) -> None:
    forge = fleet.nodes[0]
    fleet.do(forge.add_constraint("flapping", when="w < 1.0"))
    shown(page, "flapping")
    for turn in range(6):
        fleet.do(forge.measure({"w": 2.0 if turn % 2 == 0 else 0.0}))
    page.until(lambda: "6 turns" in page.text("#events"), "one line")
    assert (
        page.run(
            "return [...document.querySelectorAll('#events li')].filter((each) => each.innerText.includes('flapping is')).length"
        )
        == 0
    )
    page.run(
        "const kind = document.querySelector('#events-kind'); kind.value = 'constraints'; kind.dispatchEvent(new Event('change'))"
    )
    page.until(lambda: "flapping was added" in page.text("#events") and "turns" not in page.text("#events"), "of one kind")
    page.type("#events-about", "no such thing")
    page.until(lambda: page.text("#timeline-note") == "none of these", "of one subject")
    assert "kind=constraints" in page.run("return location.hash")

    # The course: value and limit, and the spells as told by the nodes.
    fleet.do(forge.verdict_history.sample())
    fleet.do(forge.measure({"w": 9.0}))
    fleet.do(forge.verdict_history.sample())
    page.run("location.hash = '#/constraint/flapping'")
    page.until(lambda: page.count("#detail .u-wrap canvas"), "the chart")
    page.until(lambda: "w 9, limit 1" in page.text("#detail .course .note"), "the worst of it in words")
    page.until(lambda: page.count("#detail .timeline-row[data-node=forge] i.violated"), "a spell")
    page.until(lambda: "violated since" in page.text("#detail .timeline-row[data-node=forge]"), "the last spell, which lasts")
    page.click("#detail [data-shows=margin]")
    page.until(lambda: "margin" in page.text("#detail .u-legend"), "the margin")


def test_a_node_is_retired_from_its_page_once_that_is_confirmed(page: Chromium, fleet: LiveFleet) -> None:
    page.run("location.hash = '#/node/tongs'")
    page.click('#detail [data-focus="retire"]')
    page.until(lambda: "tongs is live" in page.text("#confirm-lines"), "what it means")
    page.click("#confirm-yes")
    page.until(lambda: "ongs is live" in page.text("#confirm-error"), "the node refuses it")
    assert ["409" in each for each in page.complaints()] == [True]
    page.complaints().clear()
    page.click("#confirm-no")


# --- accessibility ----------------------------------------------------------------------------------------------------------------

TABS = ("nodes", "budgets", "alerts", "doctor", "counters", "tiles")
PAGES = ("constraint/bad", "constraint/joint", "constraint/idle", "node/forge", "node/anvil")
SCREENS = ((1600, False), (1600, True), (390, False), (390, True))
"""Width, dark."""

NAMED_ROLES = {
    "button", "link", "textbox", "searchbox", "combobox", "spinbutton", "tab", "tabpanel", "tablist", "dialog", "grid", "heading",
    "application", "region", "columnheader", "image", "DisclosureTriangle",
}  # fmt: skip


def violations(page: Chromium, where: str | None = None) -> list[str]:
    """What is wrong with the page as it is, or with a part of it: what axe-core finds, and what has no name for a screen reader."""
    script = (
        "const done = arguments[arguments.length - 1];"  # a part that fades in has less contrast
        "Promise.allSettled(document.getAnimations().map((each) => each.finished))"
        ".then(() => axe.run(arguments[0] ?? document, {resultTypes: ['violations'], preload: false})).then(done)"
    )
    found = page.driver.execute_async_script(script, where)["violations"]
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    told = [(each["role"]["value"], each.get("name", {}).get("value", "").strip()) for each in nodes if not each["ignored"]]
    nameless = [f"without a name: {role}" for role, name in told if role in NAMED_ROLES and not name]
    return [f"{each['id']}: {[node['target'] for node in each['nodes']][:4]}" for each in found] + nameless


TURNS = cycle(SCREENS)


def looks(page: Chromium, where: str | None, state: str) -> None:
    """No violation, at both sizes and in both themes; by day at the next of these."""
    for width, dark in SCREENS if BUDGET == "nightly" else [next(TURNS)]:
        page.size(width, 900, dark=dark)
        assert violations(page, where) == [], (state, width, dark)


@pytest.mark.long
def test_axe_finds_nothing_on_any_view_in_either_theme(page: Chromium, fleet: LiveFleet) -> None:
    page.run(need_axe())
    forge = fleet.nodes[0]
    page.until(lambda: "No constraints yet" in page.text("#constraints-empty"), "the empty fleet")
    looks(page, None, "an empty fleet")
    page.click("#add")
    page.type("#add-when", "v <=")
    page.click("#add-submit")
    page.until(lambda: page.text("#add-error"), "an error")
    looks(page, "#add-dialog", "an error in a dialog")
    page.click("#add-dialog [data-close]")
    page.complaints().clear()

    fleet.do(conflict(fleet, "joint"))
    fleet.do(forge.add_constraint("bad", when="v < 10.0", severity="critical", for_=0.05, about="why"))
    fleet.do(forge.add_constraint("bad", when="v < 1.0", severity="critical", for_=0.05, about="why"))
    fleet.do(forge.add_constraint("alerting_2", when="v < 1.0"))
    fleet.do(forge.add_constraint("watched", when="v < 1.0", mode="audit"))
    fleet.do(forge.add_constraint("idle", when="v < 1.0"))
    fleet.do(forge.disable(["idle"], why="nobody needs it"))
    fleet.do(forge.budgets.define("dock", 5, lease=60.0))
    hold = fleet.do(forge.budgets.acquire("dock", 2, timeout=10.0, holder="robot-7"))
    fleet.do(forge.add_constraint("staged", when="v < 9.0"))
    rollout = fleet.do(forge.rollouts.begin([AddConstraint(id="staged", when="v < 8.0")], stages=["!never", "!ever"]))
    fleet.do(forge.tiles.put("hall", "sign", "the gate is open", tags=["red"]))
    fleet.do(forge.counters.move("parts", 3))
    fleet.do(forge.measure({"v": 2.0}))
    fleet.do(fleet.nodes[1].measure({"v": 3.0}))
    page.until(lambda: "unsafe alerting_2" in page.text("#alerts-now"), "an alert")
    page.run(
        "document.querySelector('#notes-list').append(Object.assign(document.createElement('li'), {textContent: 'bad: a note'}));"
        "document.querySelector('#notes').hidden = false"
    )
    for width, dark in SCREENS if BUDGET == "nightly" else SCREENS[::3]:
        page.size(width, 900, dark=dark)
        assert violations(page) == [], (width, dark)
    for subject in PAGES:
        page.run("location.hash = `#/${arguments[0]}`", subject)
        page.until(lambda at=subject: page.text("#detail h2") == at.split("/")[1] and page.count("#detail .body"), subject)  # type: ignore[misc]
        looks(page, "#detail", subject)
    for subject in ("constraint/never-there", "node/nobody"):
        page.run("location.hash = `#/${arguments[0]}`", subject)
        page.until(lambda at=subject: page.text("#detail h2") == at.split("/")[1], subject)  # type: ignore[misc]
        looks(page, "#detail", subject)
    page.complaints().clear()
    page.run("location.hash = '#/constraint/joint'")
    page.until(lambda: page.count("#detail .side") == 2, "both sides")
    page.click('#detail .side[data-dot^="anvil-9~"] button')
    page.until(lambda: page.count("#confirm-loosens"), "it loosens")
    looks(page, "#confirm-dialog", "a side of a conflict")
    page.run("document.querySelector('dialog[open]').close()")
    page.run("document.querySelector('#rollouts-now button').click()")
    looks(page, "#confirm-dialog", "a rollout")
    page.run("document.querySelector('dialog[open]').close()")
    page.run("location.hash = '#/constraint/bad'")
    page.until(lambda: page.count("#detail [data-version]"), "the history")
    page.run("for (const each of document.querySelectorAll('#detail details')) each.open = true")
    looks(page, "#detail", "the history")
    for opens, dialog in (("edit", "add"), ("remove", "confirm"), ("undo", "reason")):
        page.until(lambda what=opens: page.count(f'#detail [data-focus="{what}"]'), opens)  # type: ignore[misc]
        page.run('document.querySelector(`#detail [data-focus="${arguments[0]}"]`).click()', opens)
        page.until(lambda what=dialog: page.count(f"#{what}-dialog[open]"), dialog)  # type: ignore[misc]
        if dialog == "add":
            page.run("document.querySelector('#add-more').open = true")
            page.type("#add-when", "v < 5.0")
            page.until(lambda: page.run("return !document.querySelector('#add-loosen-row').hidden"), "it loosens")
        looks(page, f"#{dialog}-dialog", opens)
        page.run("document.querySelector('dialog[open]').close()")
    for tab in TABS:
        page.run("location.hash = `#/?side=${arguments[0]}`", tab)
        page.until(lambda at=tab: page.count(f"#panel-{at}:not([hidden])"), tab)  # type: ignore[misc]
        if tab == "doctor":
            page.until(lambda: page.count("#doctor-list li"), "the findings")
        if tab == "tiles":
            page.click('[data-room="hall"] summary')
            page.until(lambda: page.count('[data-tile="sign"]'), "the tiles of a room")
        if tab == "counters":
            page.until(lambda: "parts" in page.text("#counters-list"), "the counters")
        looks(page, "#fleet", tab)
    page.run("document.querySelector('#tab-alerts').click()")
    page.run("document.querySelector('#alerts-list [data-alert] [data-focus^=silence]').click()")
    looks(page, "#reason-dialog", "a silence")
    page.run("document.querySelector('dialog[open]').close()")
    page.run("document.querySelector('#alerts-list [data-alert] [data-focus^=acknowledge]').click()")
    looks(page, "#reason-dialog", "an acknowledgement")
    page.run("document.querySelector('#reason-form').requestSubmit()")
    page.until(lambda: page.count("#alerts-list [data-silence]"), "it is acknowledged")
    looks(page, "#fleet", "an alert that is looked after")
    looks(page, "#constraints", "no alert to look after")
    page.type("#search", "nothing at all is like that")
    page.until(lambda: "None of the constraints" in page.text("#constraints-empty"), "nothing is found")
    looks(page, "#constraints", "nothing is found")
    fleet.do(forge.rollouts.back(rollout.id))
    fleet.do(eventually(lambda: not any(node.gossip.state.rollouts.active for node in fleet.nodes)))
    fleet.do(forge.tiles.delete("hall", "sign"))
    for silence in fleet.ask(forge.fleet_alerts.silences):
        fleet.do(forge.fleet_alerts.unsilence(silence.id))
    fleet.do(forge.budgets.release("dock", hold.hold))
    fleet.do(forge.budgets.remove("dock"))
    fleet.do(forge.enable(["idle"]))


@pytest.mark.long
def test_axe_finds_nothing_while_it_is_cut_off_or_asks_for_a_token(browser: Chromium) -> None:
    axe = need_axe()
    with live_fleet() as fleet:
        page = browser
        page.size(1600, 900)
        page.open(fleet.serve_also(tokens=Tokens([(Right.READ, "x" * 40)])))
        page.until(lambda: page.count("#token-dialog[open]"), "it asks for a token")
        page.run(axe)
        looks(page, None, "signing in")
        page.open(fleet.url)
        page.until(lambda: "6 of 6" in page.text("#truth"), "six nodes")
        page.run(axe)
        fleet.ask(lambda: fleet.network.cut(NAMES[:1], NAMES[1:]))
        page.until(lambda: "cut off: none of 5 other nodes" in page.text("#truth"), "it is cut off", within=30)
        looks(page, None, "a node without the others")
        fleet.stop_serving()
        page.until(lambda: page.count("body.stale"), "the page has lost its node")
        looks(page, None, "a page without its node")
        page.open("about:blank")
        page.complaints().clear()


@pytest.mark.long
def test_the_tabulator_reaches_every_control(page: Chromium, fleet: LiveFleet) -> None:
    fleet.do(fleet.nodes[0].add_constraint("bad", when="v < 1.0"))
    fleet.do(fleet.nodes[0].measure({"v": 2.0}))
    shown(page, "bad")
    page.run("location.hash = '#/constraint/bad'")
    page.until(lambda: page.count("#detail .course select, #detail .course button"), "the page of a constraint")
    page.run("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    name = (
        "const name = (each) => each.id || each.dataset.focus || each.dataset.value || each.dataset.tab || each.dataset.id"
        " || each.getAttribute('href') || each.textContent || each.outerHTML.slice(0, 80);"
    )

    def wanted() -> list[str]:
        return list(
            page.run(
                f"{name} const some = 'a[href], button, input, select, textarea, summary, [tabindex=\"0\"]';"
                "return [...document.querySelectorAll(some)].filter("
                "(each) => each.checkVisibility() && !each.disabled && each.tabIndex === 0 && !each.closest('dialog')).map(name)"
            )
        )

    before, reached = wanted(), list[str]()
    while set(before) - set(reached) and len(reached) < 3 * len(before):  # what is put in anew meanwhile may be passed twice
        page.press(Keys.TAB)
        reached.append(page.run(f"{name} return name(document.activeElement)"))
    assert set(before) & set(wanted()) - set(reached) == set(), "there before and after, and not reached"
    assert len(before) > 20


@pytest.mark.long
def test_an_incident_is_seen_to_with_the_keyboard_alone(page: Chromium, fleet: LiveFleet) -> None:
    fleet.do(fleet.nodes[0].add_constraint("keyed", when="v < 1.0"))
    fleet.do(fleet.nodes[0].measure({"v": 2.0}))
    page.until(lambda: "Violated" in page.text(row("keyed")), "it is violated")

    def focused() -> str:
        return str(page.run("const at = document.activeElement; return at.dataset.focus ?? at.id"))

    page.press("/", "keyed")
    page.until(lambda: order(page) == ["keyed"], "it is found")
    page.press(Keys.TAB)
    for _ in range(100):
        if page.run("return document.activeElement.matches('tr[data-id]')"):
            break
        page.press(Keys.TAB)
    page.press(Keys.ENTER)
    page.until(lambda: focused() == "title", "the page of the constraint has the focus")
    for _ in range(100):
        if focused() == "edit":
            break
        page.press(Keys.TAB)
    page.press(Keys.ENTER)
    page.until(lambda: focused() == "add-when", "the dialog has the focus")
    page.run("document.activeElement.select()")
    page.press("v < 5.0")
    for _ in range(100):
        if focused() == "add-submit":
            break
        page.press(Keys.TAB)
    page.press(Keys.ENTER)
    page.until(lambda: not page.count("dialog[open]"), "it is sent")
    page.until(lambda: "v < 5.0" in page.text("#detail pre"), "and shown")
    assert focused() == "edit", "the focus is where it was"
    page.press(Keys.ESCAPE)
    page.until(lambda: page.run("return detail.hidden"), "it closes")
    page.until(lambda: page.run("return document.activeElement.dataset.id") == "keyed", "the focus is back")


def test_the_focus_moves_to_a_page_with_its_content_and_only_once(page: Chromium, fleet: LiveFleet) -> None:
    fleet.do(fleet.nodes[0].add_constraint("slow", when="w < 1.0"))
    shown(page, "slow")
    page.run(
        "const sent = window.fetch; window.slow = new Promise((go) => (window.hurry = go));"
        "window.fetch = async (...asked) => {"
        "  if (!String(asked[0]).includes('/explain/slow')) return sent(...asked);"
        "  window.fetch = sent; await window.slow; const came = await sent(...asked);"
        "  setTimeout(() => (window.hurried = true), 300); return came; }"
    )
    page.run("location.hash = '#/constraint/slow'")
    page.until(lambda: "One moment" in page.text("#detail"), "the first look is held back")
    page.run("document.getElementById('search').focus()")
    fleet.do(fleet.nodes[0].measure({"w": 2.0}))  # an event, which makes the page look again
    page.until(lambda: page.run("return document.activeElement.dataset.focus") == "title", "the second look moves the focus")
    assert page.count('#detail [data-focus="edit"]') == 1, "the content is there"
    page.until(lambda: "Violated" in page.text("#detail"), "it is fresh")
    page.press(Keys.TAB)
    page.until(lambda: page.run("return document.activeElement.dataset.focus") == "node forge", "the user goes on")
    page.run("window.hurry()")
    page.until(lambda: page.run("return window.hurried"), "the first look ends")
    assert page.run("return document.activeElement.dataset.focus") == "node forge", "and leaves the focus"


# --- rollouts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_rollout_is_told_above_the_constraints_and_can_be_stopped_and_rolled_back(page: Chromium, fleet: LiveFleet) -> None:
    node = fleet.nodes[1]
    fleet.do(node.add_constraint("paced", when="pace < 9.0"))
    shown(page, "paced")
    page.until(lambda: page.run("return document.getElementById('rollouts-now').hidden"), "none is active")
    staged = [AddConstraint(id="paced", when="pace < 5.0")]
    rollout = fleet.do(node.rollouts.begin(staged, stages=["!never", "!ever"], gate="violations == 0 for 10m"))
    page.until(lambda: f"Rollout {rollout.id}: stage 1 of 2, !never: 1 constraint" in page.text("#rollouts-now"), "the rollout")
    reached = (  # of the buttons those that lie within the line, with nothing above them
        "const box = document.querySelector('#rollouts-now .rollout').getBoundingClientRect();"
        "return [...document.querySelectorAll('#rollouts-now button')].filter((each) => {"
        "  const {left, right, top, height, width} = each.getBoundingClientRect();"
        "  return right <= box.right && document.elementFromPoint(left + width / 2, top + height / 2) === each;"
        "}).map((each) => each.innerText)"
    )
    for width in (390, 1280):
        page.size(width, 900)
        page.until(lambda: page.run(reached) == ["Stop", "Roll back"], f"both at a width of {width}")
    page.click("#rollouts-now button")
    page.until(lambda: page.count("#confirm-dialog[open]"), "it asks")
    assert page.text("#confirm-title") == f"Stop: rollout {rollout.id}?"
    page.click("#confirm-yes")
    page.until(lambda: "stopped in stage 1 of 2, !never: by hand" in page.text("#rollouts-now"), "it is stopped")
    page.until(lambda: [each.phase for each in fleet.ask(node.rollouts.reports)][-1:] == ["stopped"], "the other node heard of it")
    page.click("#rollouts-now button:last-of-type")
    page.until(lambda: page.text("#confirm-title") == f"Roll back: rollout {rollout.id}?", "it asks")
    page.click("#confirm-yes")
    page.until(lambda: page.run("return document.getElementById('rollouts-now').hidden"), "none is active")
    assert [each.when for each in definitions(fleet, "paced")] == ["pace < 9.0"]
