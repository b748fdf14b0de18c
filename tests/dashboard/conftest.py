"""One browser and one live fleet for all tests in the browser: they take seconds to start. A test leaves no constraint behind."""

from collections.abc import Iterator

import pytest

from constraint_crdt.operations.constraints import RemoveConstraint
from tests.dashboard.chromium import Chromium, chromium, need_browser
from tests.dashboard.live_fleet import LiveFleet, live_fleet


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    need_browser()
    with chromium() as one:
        yield one


@pytest.fixture(scope="session")
def fleet() -> Iterator[LiveFleet]:
    with live_fleet() as running:
        yield running


@pytest.fixture
def page(browser: Chromium, fleet: LiveFleet) -> Iterator[Chromium]:
    """The dashboard of the first node, connected; afterwards, what is true of every page."""
    browser.open("about:blank")
    browser.complaints().clear()
    browser.requested().clear()
    fleet.do(withdraw(fleet))
    browser.size(1600, 900)
    browser.open(fleet.url)
    browser.until(lambda: browser.text("#node-name") == "forge", "the node's name")
    browser.until(lambda: "5 of 5 nodes reachable" in browser.text("#truth"), "five nodes")
    browser.run("window.stayed = true")
    yield browser
    stayed = browser.run("return window.stayed")
    browser.run("sessionStorage.clear(); localStorage.clear()")
    fleet.do(fleet.nodes[0].batch([RemoveConstraint(id=id_) for id_ in fleet.ask(fleet.nodes[0].constraint_ids)]))
    browser.until(lambda: not any(in_force(fleet)), "no constraint is left")
    assert stayed is True, "the page was loaded anew"
    assert browser.complaints() == []
    assert browser.strangers(fleet.url) == []
    assert any("/v1/events" in each for each in browser.requested())


def in_force(fleet: LiveFleet) -> list[list[str]]:
    """The constraints that each node enforces."""
    return fleet.ask(lambda: [node.constraint_ids() for node in fleet.nodes])


async def withdraw(fleet: LiveFleet) -> None:
    """Have the nodes forget what they measured in another test."""
    for node in fleet.nodes:
        await node.measure(dict.fromkeys(node._runtime.measurements.samples))
