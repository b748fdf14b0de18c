"""What an operator asks of the dashboard: what is wrong, where, since when, and what to do. In a real browser, on a live fleet."""

import json
import os
from pathlib import Path

import pytest

from constraint_crdt import Definition, MemoryNetwork, Node
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.model import IfUnknown, Severity
from constraint_crdt.operations.constraints import AddConstraint
from tests.dashboard.chromium import Chromium, need_axe
from tests.dashboard.conftest import in_force
from tests.dashboard.live_fleet import LiveFleet
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
    page.click("#add-submit")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    page.until(lambda: "30 s" in page.text("#detail dl"), "the detail says so")
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
    page.click("#add-submit")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    assert [each.when for each in definitions(fleet, "shared")] == ["x < 9"]


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
    page.click('#detail .side[data-dot^="forge-9~"] button')
    page.until(lambda: "joint_c < 95.0 → joint_c < 70.0" in page.text("#confirm-lines"), "what ends")
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
            new Truth(model);
            model.setStatus({node: 'a', trouble: null, clock_in_doubt: false, lost_writes: 0});
            model.setNodes([node('a'), node('b', {same_constraints: false, same_state: false})]);
            await look();
            Date.now = () => clock() + 6000;
            const since = (clock() - 174000) * 1e6;
            model.setNodes([node('a'), node('b', {same_constraints: false}), node('c', {live: false, convergence: {since}})]);
            await look();
            model.setNodes([node('a'), node('b', {live: false, convergence: {since}})]);
            model.setStatus({node: 'a', trouble: 'the disk is full', clock_in_doubt: true, lost_writes: 0});
            await look();
            Date.now = clock;
            done(said);
        });"""
    passing, lasting, alone = browser.driver.execute_async_script(script)
    browser.open("about:blank")  # its second line would go on
    assert passing == "2 of 2 nodes reachable · the same constraints everywhere"
    assert lasting == "2 of 3 nodes reachable · b lacks changes of constraints · c away 3 min"
    assert alone.startswith("writes are refused: the disk is full · cut off: none of 1 other nodes reachable")
    assert alone.endswith("b away 3 min · the clock of this node is in doubt")


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
    fleet.network.cut(["tongs"], ["forge", "anvil", "bellows", "hammer"])


EDIT, RETIRE, DIALOG, CONFIRM = (
    "#detail [data-focus=edit]",
    "#detail [data-focus=retire]",
    "#add-dialog[open]",
    "#confirm-dialog[open]",
)
WHERE = "#detail .pairs.now a"
DRILL = [
    ("overspeed", _overspeed, row("drill_speed"), "drill_mps 9.1, limit 1.5", [row("drill_speed"), WHERE], RETIRE),
    ("dead sensor", _dead_sensor, row("drill_temp"), "drill_c is older than 0.2 s", [row("drill_temp"), WHERE], RETIRE),
    ("wrong edit", _wrong_edit, row("drill_battery"), "drill_percent 60, limit 150", [row("drill_battery"), EDIT], DIALOG),
    ("mass violation", _mass_violation, row("drill_ping"), "and 4 others", [row("drill_ping"), EDIT], DIALOG),
    ("flapping", _flapping, "#events", "drill_flaps flaps on forge", ["#events [data-kind=flapping] a", EDIT], DIALOG),
    ("conflict", _conflict, row("drill_joint"), "conflict", [row("drill_joint"), "#detail .side button"], CONFIRM),
    ("cut", _cut, "#truth", "tongs away", ["#truth a", RETIRE], CONFIRM),
    ("told before the cut", _nothing, row("drill_last"), "on tongs (away)", [row("drill_last"), WHERE], RETIRE),
]
"""What happens, where the first screen says it and how, the clicks, and what stands there then.

A clock in doubt and a full disk are said by the line on top, see above; a clone by an event of the kind `duplicate name`.
"""


def test_the_first_screen_names_an_incident_and_three_clicks_lead_to_its_remedy(page: Chromium, fleet: LiveFleet) -> None:
    for incident, inject, place, says, clicks, remedy in DRILL:
        fleet.do(inject(fleet))
        page.until(lambda here=place, text=says: text in page.text(here), f"{incident}: {says}")  # type: ignore[misc]
        assert len(clicks) <= 3
        for selector in (*clicks, remedy):
            page.until(lambda wanted=selector: page.count(wanted), f"{incident}: {selector}")  # type: ignore[misc]
            if selector != remedy:
                page.run("document.querySelector(arguments[0]).click()", selector)
        page.run("document.querySelector('dialog[open]')?.close(); location.hash = '#/'")
    fleet.ask(fleet.network.heal)
    page.until(lambda: "tongs" not in page.text("#truth"), "it is back")


# --- budgets, alerts, events, the course ---------------------------------------------------------------------------------------


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
    page.click("#tab-doctor")
    page.until(lambda: page.count("#doctor-list [data-level]") > 3, "the findings")
    page.click("#tab-counters")
    page.until(lambda: "No counter" in page.text("#panel-counters"), "the counters")
    fleet.do(forge.budgets.remove("dock"))


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

NIGHTLY = os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly"
TABS = [f"#/?side={tab}" for tab in ("nodes", "budgets", "alerts", "doctor", "counters")]
PAGES = ["", "#/constraint/bad", "#/constraint/joint", "#/node/forge"]
VIEWS = (
    [(1600, False, [*PAGES, *TABS]), (390, True, [*PAGES, *TABS])] if NIGHTLY else [(1600, False, PAGES), (390, True, TABS[1:3])]
)
"""Width, dark, and the addresses. A look of axe-core takes some tenths of a second."""


@pytest.mark.slow
def test_axe_finds_nothing_on_any_view_in_either_theme(page: Chromium, fleet: LiveFleet) -> None:
    axe = need_axe()
    fleet.do(conflict(fleet, "joint"))
    fleet.do(fleet.nodes[0].add_constraint("bad", when="v < 1.0", severity="critical", for_=1, about="why"))
    fleet.do(fleet.nodes[0].add_constraint("alerting_2", when="v < 1.0"))
    fleet.do(fleet.nodes[0].budgets.define("dock", 5, lease=60.0))
    fleet.do(fleet.nodes[0].measure({"v": 2.0}))
    shown(page, "joint")
    page.run(axe)
    page.run("document.querySelectorAll('#notes, #banner').forEach((each) => (each.hidden = false))")
    for width, dark, views in VIEWS:
        page.size(width, 900, dark=dark)
        for view in views:
            page.run("location.hash = arguments[0] || '#/'", view)
            ready = "#detail .body" if "/?" not in view and view else "[role=tabpanel]:not([hidden])"
            page.until(lambda at=ready: page.count(at), f"the view {view}")  # type: ignore[misc]
            assert violations(page) == [], (view, width)
    page.click("#add")
    assert violations(page) == []
    page.click("#add-dialog [data-close]")
    fleet.do(fleet.nodes[0].budgets.remove("dock"))


def violations(page: Chromium) -> list[str]:
    """What axe-core finds in the page as it is: the rule, and the elements."""
    script = (
        "const done = arguments[arguments.length - 1];"  # a part that fades in has less contrast
        "Promise.allSettled(document.getAnimations().map((each) => each.finished))"
        ".then(() => axe.run(document, {resultTypes: ['violations']})).then(done)"
    )
    found = page.driver.execute_async_script(script)["violations"]
    return [f"{each['id']}: {[node['target'] for node in each['nodes']][:4]}" for each in found]


# --- rollouts ---------------------------------------------------------------------------------------------------------------


def test_a_rollout_is_told_above_the_constraints_and_can_be_stopped_and_rolled_back(page: Chromium, fleet: LiveFleet) -> None:
    node = fleet.nodes[1]
    fleet.do(node.add_constraint("paced", when="pace < 9.0"))
    shown(page, "paced")
    assert page.run("return document.getElementById('rollouts-now').hidden") is True
    staged = [AddConstraint(id="paced", when="pace < 5.0")]
    rollout = fleet.do(node.rollouts.begin(staged, stages=["!never", "!ever"], gate="violations == 0 for 10m"))
    page.until(lambda: f"Rollout {rollout.id}: stage 1 of 2, !never: 1 constraint" in page.text("#rollouts-now"), "the rollout")
    page.click("#rollouts-now button")
    page.until(lambda: page.count("#confirm-dialog[open]"), "it asks")
    assert page.text("#confirm-title") == f"Stop: rollout {rollout.id}?"
    page.click("#confirm-yes")
    page.until(lambda: "stopped in stage 1 of 2, !never: by hand" in page.text("#rollouts-now"), "it is stopped")
    assert [each.phase for each in fleet.ask(node.rollouts.reports)][-1:] == ["stopped"]
    page.click("#rollouts-now button:last-of-type")
    page.until(lambda: page.text("#confirm-title") == f"Roll back: rollout {rollout.id}?", "it asks")
    page.click("#confirm-yes")
    page.until(lambda: page.run("return document.getElementById('rollouts-now').hidden"), "none is active")
    assert [each.when for each in definitions(fleet, "paced")] == ["pace < 9.0"]
