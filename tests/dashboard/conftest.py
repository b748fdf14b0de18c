"""One browser and one live fleet for all tests in the browser: they take seconds to start. A test begins without constraints.

They end with the last of these tests, as a page that stays open would take processor time from the tests of other packages.
"""

from collections.abc import Iterator

import pytest

from constraint_crdt.operations.constraints import RemoveConstraint
from tests.dashboard.chromium import Chromium, chromium, need_browser
from tests.dashboard.live_fleet import LiveFleet, live_fleet
from tests.runtime.fleet import eventually


@pytest.fixture(scope="package")
def browser() -> Iterator[Chromium]:
    need_browser()
    with chromium() as one:
        yield one


@pytest.fixture(scope="package")
def fleet() -> Iterator[LiveFleet]:
    with live_fleet() as running:
        yield running


@pytest.fixture
def page(browser: Chromium, fleet: LiveFleet) -> Iterator[Chromium]:
    """The dashboard of the first node, connected, as it is at first; afterwards, what is true of every page.

    It is loaded once for many tests, as a load takes 0.3 s of processor time.
    """
    fleet.do(emptied(fleet))
    if not browser.run("return location.href").startswith(f"{fleet.url}/"):
        browser.open("about:blank")
        browser.size(1600, 900)
        browser.open(fleet.url)
        browser.until(lambda: browser.text("#node-name") == "forge", "the node's name")
        browser.requested().clear()
    browser.complaints().clear()
    browser.size(1600, 900)
    browser.run("document.querySelector('dialog[open]')?.close(); location.hash = '#/?'; window.stayed = true")
    browser.run("document.activeElement.blur()")  # a field that another test left would take the keys
    browser.until(lambda: "6 of 6 nodes reachable" in browser.text("#truth"), "six nodes")
    browser.until(
        lambda: browser.run("return detail.hidden && !document.querySelector('#constraints-table tr[data-id]')"), "it is empty"
    )
    yield browser
    stayed = browser.run("return window.stayed")
    assert stayed is True, "the page was loaded anew"
    assert browser.complaints() == []
    assert browser.strangers(fleet.url) == []


def in_force(fleet: LiveFleet) -> list[list[str]]:
    """The constraints that each node enforces."""
    return fleet.ask(lambda: [node.constraint_ids() for node in fleet.nodes])


async def emptied(fleet: LiveFleet) -> None:
    """Have the nodes forget the constraints and the measurements of another test."""
    for node in fleet.nodes:
        await node.measure(dict.fromkeys(node._runtime.measurements.samples))
    await fleet.nodes[0].batch([RemoveConstraint(id=id_) for id_ in fleet.nodes[0].constraint_ids()])
    await eventually(lambda: not any(node.constraint_ids() for node in fleet.nodes))
