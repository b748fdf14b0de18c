"""The dashboard in a real browser, on a live fleet of six nodes."""

import pytest
from selenium.webdriver.common.keys import Keys

from constraint_crdt.http.tokens import Tokens
from constraint_crdt.operations.operation import Right, show_share, show_values
from tests.dashboard.chromium import WITHIN, Chromium
from tests.dashboard.conftest import in_force
from tests.dashboard.large_fleet import Size, large_fleet
from tests.dashboard.live_fleet import LiveFleet, live_fleet

pytestmark = [pytest.mark.browser, pytest.mark.one_worker("(browser)")]

SOON = 1.0
"""Seconds within which a change elsewhere is to be on the screen."""


def chip(page: Chromium, value: str) -> str:
    """The number on a filter."""
    return page.text(f'#chips [data-value="{value}"] b')


def row(id_: str) -> str:
    return f'#constraints-table tr[data-id="{id_}"]'


def shown(page: Chromium, id_: str, within: float = WITHIN) -> float:
    return page.until(lambda: page.count(row(id_)), f"a row for {id_}", within)


def gone(page: Chromium, id_: str) -> float:
    return page.until(lambda: not page.count(row(id_)), f"no row for {id_}")


def test_it_lists_the_fleet_as_a_lattice_and_as_a_table(page: Chromium) -> None:
    colours = page.run(
        "const {width, height} = lattice; const data = lattice.getContext('2d').getImageData(0, 0, width, height).data;"
        "return new Set(new Uint32Array(data.buffer)).size"
    )
    assert colours > 10, "the lattice is blank"
    page.click("#tab-nodes")
    page.until(lambda: page.count("#nodes-table tr[data-id]") >= 5, "the rows")  # and those that other tests retired
    assert "anvil" in page.text('#nodes-table tr[data-id="anvil"]')
    assert page.run("return lattice.getBoundingClientRect().height") == 0


def test_a_constraint_added_on_another_node_is_there_within_a_second(page: Chromium, fleet: LiveFleet) -> None:
    took = []
    for number in range(3):  # the best of three: a shared machine may stand still at any time
        fleet.do(fleet.nodes[3].add_constraint(f"limit_{number}", when="speed_mps <= 1.5", severity="critical"))
        took.append(shown(page, f"limit_{number}"))
    assert min(took) < SOON, took
    assert "speed_mps <= 1.5" in page.text(row("limit_0"))
    page.until(lambda: "6/6" in page.text(row("limit_0")), "all have heard of it")
    fleet.do(fleet.nodes[2].remove_constraint("limit_1"))
    gone(page, "limit_1")
    assert "limit_1" in page.text("#events")


def test_a_violated_constraint_has_its_colour_wherever_it_is_violated(page: Chromium, fleet: LiveFleet) -> None:
    fleet.do(fleet.nodes[0].add_constraint("max_speed", when="speed_mps <= 1.5"))
    fleet.do(fleet.nodes[1].add_constraint("cool", when="gpu_temp_c < 85.0"))
    shown(page, "cool")
    shown(page, "max_speed")
    fleet.do(fleet.nodes[0].measure({"speed_mps": 1.0}))
    page.until(lambda: "Holds" in page.text(row("max_speed")), "it holds")
    fleet.do(fleet.nodes[0].measure({"speed_mps": 3.0}))
    page.until(lambda: "Violated" in page.text(row("max_speed")), "violated here")
    page.until(lambda: chip(page, "violated") == "1", "one violated")
    assert page.style(f"{row('max_speed')} .what", "color") == "rgb(185, 52, 8)"
    assert page.style(f"{row('max_speed')} .badge", "backgroundColor") == "rgb(194, 65, 12)"
    page.until(lambda: all("cool" in ids for ids in in_force(fleet)), "all enforce it")
    fleet.do(fleet.nodes[4].measure({"gpu_temp_c": 99.0}))
    page.until(lambda: "Violated" in page.text(row("cool")) and "tongs" in page.text(row("cool")), "violated elsewhere")
    assert page.count("#constraints-table tr[data-state=violated]") == 2


@pytest.mark.long
def test_the_detail_has_the_state_of_each_node_with_its_clock_values_and_time(page: Chromium, fleet: LiveFleet) -> None:
    forge, anvil, tongs = fleet.nodes[0], fleet.nodes[1], fleet.nodes[4]
    fleet.do(forge.add_constraint("slow_drive", when="speed_mps <= 1.5", for_=3600))
    fleet.do(forge.add_constraint("cool_racks", when="gpu_temp_c < 85.0 && size(racks) > 0"))
    page.until(lambda: all(len(ids) == 2 for ids in in_force(fleet)), "all enforce them")
    fleet.do(forge.measure({"speed_mps": 9.0}))
    fleet.do(anvil.measure({"gpu_temp_c": 20.0, "racks": [1]}))
    fleet.do(anvil.measure({"gpu_temp_c": 95.5, "racks": [1]}))
    fleet.do(tongs.measure({"gpu_temp_c": 20.0}))

    page.click(row("slow_drive"))
    page.until(lambda: "Here: pending" in page.text("#detail-here"), "the state here")
    assert "of 3600 s" in page.text("#detail-here")
    assert "speed_mps = 9.0, 7.5 above the limit (500 %)" in page.text('#detail [data-node="forge"]')
    assert "pending" in page.text('#detail [data-node="forge"]')

    page.click(row("cool_racks"))
    page.until(lambda: "violated since" in page.text('#detail [data-node="anvil"]'), "violated there")
    bad = page.text('#detail [data-node="anvil"]')
    assert "gpu_temp_c = 95.5, 10.5 above the limit (12.4 %); racks = [1.0]" in bad
    fleet.do(anvil._runtime.evaluator.write_times())
    page.until(lambda: "1 of 2 judgements violated; held " in page.text('#detail [data-node="anvil"]'), "judgements and time")
    page.until(lambda: "no measurement of racks" in page.text('#detail [data-node="tongs"]'), "unknown, with the reason")
    assert "unknown since" in page.text('#detail [data-node="tongs"]')
    assert "Here: unknown since" in page.text("#detail-here")
    assert "no measurement of" in page.text("#detail-here")
    violated = "return [...document.querySelectorAll('#detail section > .bar.time i')].map((each) => parseFloat(each.style.width))"
    page.until(lambda: page.run(violated)[1] > 0, "the time it was violated")
    assert abs(sum(page.run(violated)) - 100) < 0.1
    assert "of the time" in page.text("#detail")


def test_values_and_shares_are_told_as_the_command_line_tells_them(page: Chromium) -> None:
    told: list[tuple[dict[str, str], float | None, float | None, str | None]] = [
        ({"speed": "9.0", "racks": "[1]"}, -7.5, -5.0, "speed"),
        ({"speed": "1.0"}, 0.5, 1 / 3, "speed"),
        ({"battery": "5"}, -15.0, -0.75, "battery"),
        ({"battery": "-15"}, 5.0, 0.25, "battery"),
        ({"speed": "9.0"}, -15.0, -5.0, "speed"),
        ({"speed": "9.0"}, -9.0, None, "speed"),
        ({"robot": '{"speed":1.0}'}, 0.123456, 1 / 3, "robot.speed"),
        ({"x": "0.0"}, 0.0, 0.0, "x"),
        ({"name": '"y"'}, None, None, None),
        ({}, None, None, None),
    ]
    shares = [None, 0.0, 0.00001, 0.5, 0.9993, 0.99999, 1.0]
    reports = [{"values": each[0], "margin": each[1], "margin_share": each[2], "margin_variable": each[3]} for each in told]
    script = (
        "const [reports, shares] = arguments; const load = () => import('/dashboard/format.js');"
        "return load().then(({measured, ofTime}) => [reports.map(measured), shares.map(ofTime)])"
    )
    values, times = page.run(script, reports, shares)
    assert values == [show_values(*each) for each in told]
    assert [each.replace("\N{EN DASH}", "-") for each in times] == [show_share(each) for each in shares]


@pytest.mark.long
def test_adding_checks_the_expression_while_it_is_typed_and_removing_asks_first(page: Chromium, fleet: LiveFleet) -> None:
    page.click("#add")
    page.type("#add-id", "from <b>here</b>/1")
    page.type("#add-when", "speed_mps <=")
    page.until(lambda: page.style("#add-verdict", "color") == "rgb(185, 52, 8)", "the expression is found wrong")
    page.click("#add-submit")
    page.until(lambda: page.text("#add-error"), "the node refuses it")
    page.type("#add-when", "speed_mps <= 2.5")
    page.until(lambda: "speed_mps" in page.text("#add-verdict") and "Well formed" in page.text("#add-verdict"), "it is well formed")
    page.type("#add-on", "kind=press")
    page.click("#add-submit")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    selector = '#constraints-table tr[data-id="from <b>here</b>/1"]'
    page.until(lambda: page.count(selector), "its row")
    assert page.run("return document.querySelectorAll('#constraints-table b').length") == 0
    page.until(lambda: all(ids == ["from <b>here</b>/1"] for ids in in_force(fleet)), "all enforce it")
    assert fleet.ask(lambda: fleet.nodes[4].constraints()[0].on) == {"kind": "press"}
    page.click(selector)
    page.until(lambda: "forge" in page.text("#detail"), "who added it")
    page.click('#detail [data-focus="remove"]')
    assert in_force(fleet)[0], "nothing is removed before it is confirmed"
    page.click("#confirm-yes")
    page.until(lambda: not page.count(selector), "the row goes")
    page.until(lambda: not any(in_force(fleet)), "nobody enforces it")


@pytest.mark.long
def test_an_addition_that_no_node_can_decide_is_noted_until_the_note_is_closed(page: Chromium, fleet: LiveFleet) -> None:
    fleet.do(fleet.nodes[0].measure({"speed_mps": 1.0}))
    page.until(lambda: fleet.ask(lambda: "speed_mps" in fleet.nodes[0].gossip.state.variables), "the node tells its variables")
    page.click("#add")
    page.type("#add-id", "max_speed")
    page.type("#add-when", "sped_mps <= 2.5")
    page.click("#add-submit")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    page.until(lambda: page.text("#notes-list"), "the note")
    assert page.text("#notes-list") == "max_speed: no node measures sped_mps (speed_mps may be meant)"
    page.until(lambda: chip(page, "undecided") == "1", "it is unknown")
    page.click("#notes-close")
    assert not page.text("#notes-list")
    page.click("#add")
    page.type("#add-id", "max_speed")
    page.until(lambda: page.text("#add-submit") == "Replace max_speed", "it says that there is one already")
    page.type("#add-when", "speed_mps <= 2.5")
    page.click("#add-submit")
    page.until(lambda: not page.count("dialog[open]"), "the dialog closes")
    page.until(lambda: not chip(page, "undecided") or chip(page, "undecided") == "0", "it is decided")
    assert page.run("return document.querySelector('#notes').hidden") is True


@pytest.mark.long
def test_it_works_without_a_mouse(page: Chromium, fleet: LiveFleet) -> None:
    for name in ("a", "b", "c"):
        fleet.do(fleet.nodes[0].add_constraint(name, when="x < 1"))
        shown(page, name)
    rows = "return [...document.querySelectorAll('#constraints-table tr[data-id]')].map((each) => each.dataset.id).join('')"
    page.until(lambda: page.run(rows) == "abc", "each has been unknown for longer than the next, or for as long")
    body = page.find("body")
    body.send_keys("/")
    assert page.run("return document.activeElement.id") == "search"
    page.driver.switch_to.active_element.send_keys("x <")
    page.driver.switch_to.active_element.send_keys(Keys.TAB)
    page.run("document.querySelector('#constraints-table tr[tabindex=\"0\"]').focus()")
    assert page.run("return document.activeElement.dataset.id") == "a"
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert page.run("return document.activeElement.dataset.id") == "b"
    assert page.count("#constraints-table tr[tabindex='0']") == 1
    page.driver.switch_to.active_element.send_keys(Keys.END)
    assert page.run("return document.activeElement.dataset.id") == "c"
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.until(lambda: page.text("#detail h2") == "c" and page.text("#detail pre"), "the detail of c")
    page.find("body").send_keys(Keys.ESCAPE)
    page.until(lambda: page.run("return detail.hidden"), "Escape closes it")
    assert page.run("return document.activeElement.dataset.id") == "c", "and the focus is where it was"
    page.run("lattice.focus()")
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    page.until(lambda: page.text("#lattice-label"), "the lattice says where one is")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.until(lambda: page.text("#detail h2") in page.text("#lattice-label") and page.text("#detail h2"), "the detail of a node")


def test_every_control_has_a_name_and_every_region_a_heading(page: Chromium) -> None:
    nameless = page.run(
        "return [...document.querySelectorAll('button, input, select, textarea, a')].filter((each) =>"
        " !(each.textContent.trim() || each.getAttribute('aria-label') || each.labels?.length)).map((each) => each.outerHTML)"
    )
    assert nameless == []
    assert page.run("return [...document.querySelectorAll('[aria-labelledby], [aria-describedby]')].every((each) => "
                    "(each.getAttribute('aria-labelledby') ?? each.getAttribute('aria-describedby')).split(' ').every("
                    "(id) => id === 'detail-title' || document.getElementById(id)))")  # fmt: skip
    assert page.run("return document.querySelectorAll('main, h1, header.top').length") == 3


@pytest.mark.long
def test_nothing_is_wider_than_the_screen(page: Chromium, fleet: LiveFleet) -> None:
    name = "a_constraint_whose_name_goes_on_and_on/" + "x" * 80
    fleet.do(fleet.nodes[0].add_constraint(name, when="x < 1 && " * 20 + "y < 2"))
    shown(page, name)
    for width in (320, 390, 768, 1024):
        page.size(width, 800)
        assert page.run("return document.scrollingElement.scrollWidth") <= width
        page.run("document.querySelector('#constraints-table tr[data-id]').click()")
        page.until(lambda: page.text("#detail pre"), "the detail")
        assert page.run("return document.scrollingElement.scrollWidth") <= width
        page.click("#detail .close")
        page.until(lambda: page.run("return detail.hidden"), "it closes")


def test_the_theme_follows_the_system_or_the_button(page: Chromium) -> None:
    light = page.style("body", "color")
    page.size(1440, 900, dark=True)
    page.until(lambda: page.style("body", "color") != light, "dark as the system")
    page.click("#theme")
    page.until(lambda: page.style("body", "color") == light, "light as chosen")
    page.click("#theme")
    page.click("#theme")
    assert page.run("return localStorage.length") == 0


@pytest.mark.long
def test_it_says_so_when_its_node_is_gone_and_goes_on_when_it_is_back(browser: Chromium) -> None:
    with live_fleet() as fleet:
        _is_gone_and_back(browser, fleet)


def _is_gone_and_back(browser: Chromium, fleet: LiveFleet) -> None:
    fleet.do(fleet.nodes[1].add_constraint("before", when="x < 1"))
    browser.size(1440, 900)
    browser.open(fleet.url)
    shown(browser, "before")
    browser.run("window.stayed = true")
    browser.complaints().clear()
    fleet.stop_serving()
    browser.until(lambda: "Not connected since" in browser.text("#banner"), "a banner")
    assert "grayscale" in browser.style("#page", "filter")
    assert browser.count(row("before")) == 1, "what was known stays"
    fleet.do(fleet.nodes[1].add_constraint("meanwhile", when="x < 2"))
    fleet.serve_again()
    browser.until(lambda: browser.run("return document.querySelector('#banner').hidden"), "the banner goes", within=15)
    shown(browser, "meanwhile")
    assert browser.count(row("before")) == 1
    browser.until(lambda: "6 of 6 nodes" in browser.text("#truth"), "all nodes")
    assert browser.run("return window.stayed") is True
    # A browser itself writes into the console that a connection was refused; nothing else may stand there.
    assert [each for each in browser.complaints() if "ERR_" not in each] == []


@pytest.mark.long
def test_where_a_token_is_needed_it_is_asked_for_and_kept_out_of_sight(browser: Chromium, fleet: LiveFleet) -> None:
    reading, writing = "r" * 24, "w" * 24
    url = fleet.serve_also(tokens=Tokens([(Right.READ, reading), (Right.OPERATE, writing)]))
    browser.size(1440, 900)
    browser.open(url)
    browser.requested().clear()
    browser.run("sessionStorage.clear(); location.reload()")
    browser.type("#token", "x" * 24)
    browser.click("#token-form [type=submit]")
    browser.until(lambda: "does not know" in browser.text("#token-error"), "a wrong token is refused")
    browser.type("#token", reading)
    browser.click("#token-form [type=submit]")
    browser.until(lambda: "6 of 6 nodes" in browser.text("#truth"), "six nodes")
    fleet.do(fleet.nodes[1].add_constraint("cool", when="x < 1"))
    shown(browser, "cool")
    browser.until(lambda: browser.text("#session-name") == "token 1: may read", "who is signed in")
    assert browser.run("return document.querySelector('#add').disabled"), "this token may only read"
    browser.run("location.hash = '#/constraint/cool'")
    browser.until(lambda: "History" in browser.text("#detail"), "the constraint")
    assert browser.count("#detail [data-focus=edit]") == browser.count("#detail [data-focus=remove]") == 0
    browser.click("#sign-out")
    browser.until(lambda: browser.count("#token-dialog[open]"), "it asks again")
    assert browser.run("return sessionStorage.length") == 0
    browser.type("#token", writing)
    browser.click("#token-form [type=submit]")
    browser.until(lambda: browser.text("#session-name") == "token 2: may change constraints", "another one is signed in")
    browser.until(lambda: browser.count("#detail [data-focus=edit]"), "and may edit")
    browser.click("#add")
    browser.type("#add-id", "more")
    browser.click("#add-submit")
    shown(browser, "more")
    assert all(token not in each for each in browser.requested() for token in (reading, writing))
    assert reading not in browser.run("return document.documentElement.outerHTML + location.href + JSON.stringify(localStorage)")
    browser.run("sessionStorage.clear()")


@pytest.mark.long
def test_of_a_large_fleet_only_what_is_in_sight_is_in_the_document(browser: Chromium) -> None:
    with large_fleet(Size(nodes=40, constraints=300)) as url:
        browser.size(1440, 900)
        browser.open(url)
        browser.until(lambda: browser.text("#constraints-note") == "300 constraints", "all of them")
        assert 10 < browser.count("#constraints-table tbody tr") < 60
        browser.run("document.querySelector('#constraints-table tr[tabindex=\"0\"]').focus()")
        browser.driver.switch_to.active_element.send_keys(Keys.END)
        last = browser.run("return document.activeElement.getAttribute('aria-rowindex')")
        assert last == "301"
        assert browser.count("#constraints-table tbody tr") < 60
        browser.type("#search", "cell-0030 battery")
        browser.until(lambda: browser.text("#constraints-note") == "1 of 300", "the one that is searched for")
        browser.until(lambda: "/40" in browser.text('#constraints-table tr[data-id="cell-0030/battery"]'), "who has heard of it")
        browser.click("#tab-nodes")
        browser.until(lambda: 5 < browser.count("#nodes-table tr[data-id]") < 40, "some of the nodes")


def test_links_without_protection_are_named(page: Chromium) -> None:
    assert page.text("#fleet-name") == "fleet default: links are not protected"
