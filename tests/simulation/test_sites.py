"""Sites in virtual time: what passes between them, and that they agree whatever ends or is cut."""

from functools import partial
from itertools import permutations
from math import ceil

import pytest

from constraint_crdt.crdt.limits import Limits
from constraint_crdt.protocol.sites import SPEAKERS, speakers
from constraint_crdt.simulation.scenario import SECOND_NS, Scenario, ScenarioRun
from constraint_crdt.simulation.steps import Add, NodeStart
from constraint_crdt.simulation.world import Pace, Quality, SimRng, World
from tests.conftest import BUDGET

NEAR, FAR = Quality(latency_ns=SECOND_NS // 1000), Quality(latency_ns=SECOND_NS // 40)
"""1 ms inside a site, 25 ms between two."""
INTERVAL = SECOND_NS // 5
"""Of rounds, as in a running node."""


def fleet(sites: int, each: int, seed: int = 1) -> World:
    """So many sites of so many nodes each, which agree and know clocks of those that they speak with."""
    site_of = {f"s{site}-{node}": f"s{site}" for site in range(sites) for node in range(each)}
    pace = Pace(interval_ns=INTERVAL, patience_ns=SECOND_NS // 4)
    members = [NodeStart(name, 1) for name in site_of]
    made = World(members, SimRng(seed), quality=NEAR, pace=pace, watched=False, limits=Limits(), sites=site_of)
    made.links.between = FAR
    made.run(SECOND_NS)  # all have told their site
    made.run(60 * SECOND_NS, partial(agree, made))
    assert agree(made)
    return made


def agree(made: World) -> bool:
    return len({node.state_hash for node in made.fleet.nodes.values()}) == 1


def know(made: World, id_: str) -> bool:
    return all(id_ in node.state.constraints for node in made.fleet.nodes.values())


def sent(made: World) -> int:
    return sum(actor.bytes for actor in made.actors.values())


def members(made: World, site: str) -> list[str]:
    return [name for name, of in made.links.site_of.items() if of == site]


def costs(made: World, warm: int, quiet: int, changes: int) -> tuple[float, float, float, float]:
    """Bytes between sites and in all: per second of rest after a while, and of a change beyond those."""
    made.run(made.now + warm * SECOND_NS)
    began, between, total = made.now, made.bytes_between, sent(made)
    made.run(began + quiet * SECOND_NS)
    rest, rest_all = (made.bytes_between - between) / quiet, (sent(made) - total) / quiet
    names, between, total = list(made.actors), made.bytes_between, sent(made)
    for change in range(changes):
        at = made.now
        made.perform(Add, made.actors[names[change * len(names) // changes]], id=f"c{change}", about="x" * 100)
        made.run(at + SECOND_NS)
        assert agree(made)
    news, news_all = ((now - was) / changes for now, was in ((made.bytes_between, between), (sent(made), total)))
    return rest, rest_all, news - rest, news_all - rest_all


@pytest.mark.long
def test_bytes_between_sites_do_not_grow_with_the_nodes_in_them() -> None:
    large, changes = (20, 8) if BUDGET == "nightly" else (15, 4)
    few, many = (costs(fleet(3, each), warm=8, quiet=changes, changes=changes) for each in (5, large))
    print(f"3 sites of 5: {few}; of {large}: {many}")  # noqa: T201 - the figures
    assert many[0] <= 1.2 * few[0]
    assert many[2] <= 1.2 * few[2]
    assert many[1] > 2 * few[1], "inside a site all nodes gossip as before"


@pytest.mark.skipif(BUDGET != "nightly", reason="minutes of CPU time")
@pytest.mark.slow
def test_20_sites_of_10_against_one_of_200() -> None:
    sited, flat = costs(fleet(20, 10), 200, 20, 5), costs(fleet(1, 200), 20, 5, 5)
    print(f"20 sites of 10: {sited}; one site of 200: {flat}")  # noqa: T201 - the figures
    assert flat[0] == flat[2] == 0
    assert sited[1] <= flat[1]
    small = costs(fleet(20, 5), 200, 20, 5)
    assert sited[0] <= 1.2 * small[0]


@pytest.mark.slow
def test_a_change_reaches_all_sites_soon() -> None:
    made = fleet(4, 3)
    began = made.now
    made.perform(Add, made.actors["s2-1"], id="gate")
    made.run(began + 2 * SECOND_NS, lambda: know(made, "gate"))
    assert made.now - began <= SECOND_NS


@pytest.mark.slow
def test_a_change_crosses_while_speakers_are_dead() -> None:
    made = fleet(2, 5)
    for site, other in (("s0", "s1"), ("s1", "s0")):
        for name in speakers(site, other, members(made, site)):
            made.crash(made.actors[name])
    began, writer = made.now, next(name for name in members(made, "s0") if made.is_up(name))
    made.perform(Add, made.actors[writer], id="gate")
    made.run(began + 30 * SECOND_NS, lambda: know(made, "gate"))
    assert know(made, "gate")
    assert made.now - began <= 6 * SECOND_NS, "each silence is found by timeouts alone here"


@pytest.mark.slow
def test_sites_agree_though_none_of_their_speakers_reach_the_other() -> None:
    """The speakers of both sites are cut off from the other site as a whole: those next in rank speak."""
    made = fleet(2, 6)
    for site, other in (("s0", "s1"), ("s1", "s0")):
        for name in speakers(site, other, members(made, site)):
            for far in members(made, other):
                made.links.cut(name, far)
                made.links.cut(far, name)
    began = made.now
    made.perform(Add, made.actors[members(made, "s0")[0]], id="gate")
    made.run(began + 120 * SECOND_NS, lambda: know(made, "gate"))
    assert know(made, "gate")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200 if BUDGET == "nightly" else 2))
def test_any_views_of_who_failed_agree_in_the_end(seed: int) -> None:
    """Each node holds others for failed that are not, even all of them: nodes agree, and so do their views of the speakers."""
    made, chance = fleet(3, 4, seed), SimRng(seed)
    for actor in made.actors.values():
        for name in made.names:
            if chance.happens((0.3, 1.0)[seed % 2]):
                made.sites_of(actor).failed(name)
    made.perform(Add, made.actors[chance.pick(made.names)], id="gate")
    began = made.now
    made.run(began + 10 * SECOND_NS, lambda: know(made, "gate"))
    assert know(made, "gate")
    made.run(began + 15 * SECOND_NS)
    for site, other in permutations(("s0", "s1", "s2"), 2):
        views = [made.sites_of(made.actors[name]).speakers(site, other) for name in members(made, site)]
        assert views == [speakers(site, other, members(made, site))] * 4


@pytest.mark.long
def test_each_part_of_a_site_that_is_partitioned_has_speakers() -> None:
    made = fleet(2, 8)
    inside = members(made, "s0")
    for one in inside[:4]:
        for other in inside[4:]:
            made.links.cut(one, other)
            made.links.cut(other, one)
    made.run(made.now + 20 * SECOND_NS)
    for part in (inside[:4], inside[4:]):
        speaking = [name for name in part if made.sites_of(made.actors[name]).speaks_with()]
        assert len(speaking) == SPEAKERS
    began = made.now
    made.perform(Add, made.actors[inside[0]], id="gate")
    made.run(began + 20 * SECOND_NS, lambda: know(made, "gate"))
    assert know(made, "gate")


@pytest.mark.slow
def test_a_site_that_was_cut_off_and_one_that_restarted_agree_soon_after() -> None:
    made = fleet(3, 4)
    made.links.part([members(made, "s0"), [*members(made, "s1"), *members(made, "s2")]])
    for name in members(made, "s2"):
        made.crash(made.actors[name])
    made.perform(Add, made.actors["s0-0"], id="inside")
    made.perform(Add, made.actors["s1-0"], id="outside")
    made.run(made.now + 10 * SECOND_NS)
    for name in members(made, "s2"):
        made.start(name, "kept")
    made.links.part([])
    healed = made.now
    made.run(healed + 20 * SECOND_NS, lambda: agree(made))
    assert agree(made)
    assert made.now - healed <= 2 * SECOND_NS


@pytest.mark.slow
def test_a_blank_node_of_a_new_site_joins() -> None:
    made = fleet(2, 4)
    made.links.site_of = {**made.links.site_of, "new": "s9"}
    made.start("new", "lost", 1)
    began = made.now
    made.run(began + 20 * SECOND_NS, lambda: agree(made))
    assert agree(made)
    made.run(made.now + SECOND_NS)
    assert made.sites_of(made.actors["new"]).speaks_with() == ["s0", "s1"]
    assert all("s9" in made.sites_of(actor).others for name, actor in made.actors.items() if name != "new")


@pytest.mark.long
def test_a_scenario_with_sites_settles_and_counts_what_passes_between_them() -> None:
    runs = []
    for sites in (1, 5):
        running = ScenarioRun(Scenario(20, seed=1, items=4, loss=0.1, sites=sites, site_latency_ns=SECOND_NS // 20))
        for _ in running.samples():
            pass
        runs.append(running.report())
    flat, sited = runs
    assert flat.settled
    assert sited.settled
    assert flat.bytes_between == 0 < sited.bytes_between < sited.bytes_per_node * 20
    assert ceil(sited.rounds) <= 4
