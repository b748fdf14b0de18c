"""The life of a rule as its people see it in a browser: from the form to the conflict, and back."""

import pytest

from constraint_crdt.model import Severity
from constraint_crdt.operations.constraints import AddConstraint
from tests.dashboard.chromium import Chromium
from tests.dashboard.conftest import in_force
from tests.dashboard.live_fleet import LiveFleet
from tests.dashboard.test_in_browser import chip, row, shown
from tests.dashboard.test_operator import conflict, definitions
from tests.runtime.fleet import eventually

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.one_worker("(browser)")]


def test_a_rule_from_its_first_line_to_its_removal(page: Chromium, fleet: LiveFleet) -> None:
    forge, anvil = fleet.nodes[:2]

    page.click("#add")  # a limit that is a parameter of the fleet, set in a shell
    fleet.do(anvil.set_parameter("limit", 1.0))
    page.type("#add-id", "pace")
    page.type("#add-when", "speed_mps <= param.limit")
    page.type("#add-about", "the floor is wet")
    page.run("document.querySelector('#add-more').open = true; document.querySelector('#add-severity').value = 'critical'")
    page.click("#add-submit")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    shown(page, "pace")
    page.until(lambda: all(ids == ["pace"] for ids in in_force(fleet)), "all enforce it")

    fleet.do(anvil.measure({"speed_mps": 1.25}))  # somebody is too fast
    page.until(lambda: chip(page, "violated") == "1", "it is violated")
    page.click(row("pace"))
    page.until(lambda: "0.25 above the limit (25 %)" in page.text("#detail"), "where, and by how much")
    assert "anvil" in page.text("#detail")

    page.click('#detail [data-focus="edit"]')  # to loosen it takes a tick
    page.until(lambda: page.count("#add-dialog[open]"), "the dialog")
    page.type("#add-when", "speed_mps <= 1.5")
    page.until(lambda: page.text("#add-effect").startswith("Loosens: it allows speed_mps = 1.5"), "what the edit means")
    assert page.run("return document.querySelector('#add-loosen-row').hidden") is False
    page.click("#add-loosen")
    page.click("#add-submit")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    page.until(lambda: chip(page, "violated") in ("", "0"), "it holds again")

    fleet.do(anvil.disable(["pace"], why="the sensors are being changed"))  # elsewhere it is stopped, and the page says so
    page.until(lambda: page.count("#detail-disabled"), "it is disabled")
    assert "on anvil" in page.text("#detail-disabled")
    assert "the sensors are being changed. No node evaluates it." in page.text("#detail-disabled")
    fleet.do(anvil.enable(["pace"]))
    page.until(lambda: not page.count("#detail-disabled"), "it is enabled")

    fleet.do(anvil.measure({"speed_mps": 1.25}))  # an edit that would go on from node to node by itself
    slower = [AddConstraint(id="pace", when="speed_mps <= 0.5", severity=Severity.CRITICAL)]
    rollout = fleet.do(anvil.rollouts.begin(slower, stages=["!forge", "!spare"], gate="violated == 0 for 1h"))
    page.until(lambda: f"Rollout {rollout.id}: " in page.text("#rollouts-now"), "it is staged")
    page.until(lambda: chip(page, "violated") == "1", "it is violated where it is in force")
    page.until(lambda: "stopped in stage 1 of 2, !forge" in page.text("#rollouts-now"), "its gate holds it back")
    page.click("#rollouts-now button:last-of-type")
    page.until(lambda: page.text("#confirm-title") == f"Roll back: rollout {rollout.id}?", "it asks")
    page.click("#confirm-yes")
    page.until(lambda: page.run("return document.getElementById('rollouts-now').hidden"), "no rollout is active")
    page.until(lambda: chip(page, "violated") in ("", "0"), "the rule of before is in force")

    fleet.do(forge.revert("pace", to=1))  # a colleague goes back to the parameter
    page.until(lambda: "param.limit" in page.text("#detail pre"), "the first version")
    page.click('#detail [data-focus="remove"]')
    page.click("#confirm-yes")
    page.until(lambda: not any(in_force(fleet)), "no node enforces it")


def test_two_edits_at_once_are_seen_and_one_is_kept(page: Chromium, fleet: LiveFleet) -> None:
    fleet.do(conflict(fleet, "torn"))
    page.until(lambda: chip(page, "conflicts") == "1", "a conflict is counted")
    page.click(row("torn"))
    page.until(lambda: page.count("#detail .side") == 2, "both sides")
    page.click('#detail .side[data-dot^="anvil-9~"] button')
    page.until(lambda: page.text("#confirm-yes") == "Keep this one, and loosen it", "what ends is critical")
    page.click("#confirm-yes")
    page.until(lambda: not page.count("#detail .side"), "one is left")
    assert [(each.when, each.severity) for each in definitions(fleet, "torn")] == [("joint_c < 95.0", Severity.WARNING)]
    fleet.do(eventually(lambda: fleet.nodes[4].status().conflicts == 0))
