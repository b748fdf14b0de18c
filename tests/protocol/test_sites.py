"""Who speaks for a site: the same on all nodes with the same view, and whom a node asks by it."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import GossipNode, exchange
from constraint_crdt.protocol.sites import SELDOM, SPEAKERS, STAND_INS, NodeSites, Sites, speakers, weight

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
FLEETS = st.dictionaries(NAMES, st.sampled_from(["", "berlin", "munich", "paris"]), min_size=1, max_size=14)
"""The site of each node."""


def view(me: str, site_of: dict[str, str], failed: set[str] | frozenset[str] = frozenset()) -> Sites:
    """What a node knows of a fleet."""
    sites = Sites(me, site_of[me])
    for name, site in site_of.items():
        sites.put(name, site)
    for name in failed:
        sites.failed(name)
    return sites


def members(site_of: dict[str, str], site: str) -> list[str]:
    return [name for name, of in site_of.items() if of == site]


@pytest.mark.slow
@given(FLEETS)
def test_nodes_that_see_the_same_agree_on_two_speakers_of_each_site_and_pair(site_of: dict[str, str]) -> None:
    sites = sorted(set(site_of.values()))
    views = {name: view(name, site_of) for name in site_of}
    for site in sites:
        for other in sites:
            if other == site:
                continue
            told = {tuple(each.speakers(site, other)) for each in views.values()}
            assert told == {tuple(speakers(site, other, members(site_of, site)))}
            chosen = told.pop()
            assert len(set(chosen)) == min(SPEAKERS, len(members(site_of, site)))
            for name in members(site_of, site):
                assert (views[name].shares.get(other) == 1.0) == (name in chosen)
                assert (name in chosen) == (other in views[name].speaking().get(name, []))


@pytest.mark.slow
@given(FLEETS, st.data())
def test_a_view_does_not_depend_on_the_way_to_it(site_of: dict[str, str], data: st.DataObject) -> None:
    """Nodes come, move, fail and go in any order; then the view is that of the nodes that are left."""
    me = data.draw(st.sampled_from(sorted(site_of)))
    sites = Sites(me, data.draw(st.sampled_from(["", "rome"])))
    everyone = st.sampled_from(sorted(site_of))
    for act, name in data.draw(
        st.lists(st.tuples(st.sampled_from(["put", "drop", "fail", "hear", "look"]), everyone), max_size=30)
    ):
        match act:
            case "put":
                sites.put(name, data.draw(st.sampled_from([None, "", "berlin", "rome"])) if name != me else sites.site)
            case "drop":
                sites.drop(name)
            case "fail":
                sites.failed(name)
            case "hear":
                sites.heard(name)
            case _:
                assert set(sites.shares) <= sites.others
    sites.move(site_of[me])
    for name, site in site_of.items():
        sites.put(name, site)
        sites.heard(name)
    fresh = view(me, site_of)
    assert sites.speaking() == fresh.speaking()
    assert sites.shares == fresh.shares
    assert sites.others == fresh.others == set(site_of.values()) - {site_of[me]}


@given(FLEETS, st.data())
def test_the_end_of_a_node_moves_only_the_pairs_that_it_spoke_for(site_of: dict[str, str], data: st.DataObject) -> None:
    dead = data.draw(st.sampled_from(sorted(site_of)))
    left = {name: site for name, site in site_of.items() if name != dead}
    for site in set(left.values()):
        for other in set(left.values()) - {site}:
            before, after = (speakers(site, other, members(each, site)) for each in (site_of, left))
            if dead not in before:
                assert after == before
            else:
                assert [name for name in before if name != dead] == after[: len(before) - 1]


@pytest.mark.slow
@given(FLEETS, st.data())
def test_a_failed_node_does_not_speak_until_it_is_heard(site_of: dict[str, str], data: st.DataObject) -> None:
    me = data.draw(st.sampled_from(sorted(site_of)))
    failed = data.draw(st.sets(st.sampled_from(sorted(site_of)))) - {me}
    sites, left = view(me, site_of, failed), {name: site for name, site in site_of.items() if name not in failed}
    assert all(
        sites.speakers(site_of[me], other) == speakers(site_of[me], other, members(left, site_of[me])) for other in sites.others
    )
    if members(left, site_of[me]) == [me]:
        assert sites.speaks_with() == sorted(sites.others), "it sees no other node of its site, so it speaks itself"
    for name in failed:
        sites.heard(name)
    assert sites.speaking() == view(me, site_of).speaking()


def test_a_weight_is_of_a_pair_in_either_order_and_stays_for_ever() -> None:
    assert weight("forge", "berlin", "munich") == weight("forge", "munich", "berlin") == 8509581280283210438
    assert weight("n", "a", "b1") != weight("1n", "a", "b") != weight("n1", "a", "b")


@pytest.mark.parametrize(("nodes", "sites"), [(1, 2), (2, 2), (5, 2), (20, 2), (1, 20), (5, 20), (20, 20)])
def test_a_site_begins_about_one_exchange_with_others_in_a_round(nodes: int, sites: int) -> None:
    site_of = {f"n{number}-{site}": str(site) for site in range(sites) for number in range(nodes)}
    mine, chance, rounds = [view(name, site_of) for name in members(site_of, "0")], Random(1), 400
    asked = [each.choose(chance, alone=nodes == 1) for _ in range(rounds) for each in mine]
    away = Counter(other for other in asked if other is not None)
    assert 0.7 <= away.total() / rounds <= 1.3
    assert set(away) == {str(site) for site in range(1, sites)}


@pytest.mark.parametrize(("nodes", "sites", "least"), [(1, 4, 3), (5, 2, 2), (20, 20, 3)])
def test_a_change_is_pushed_to_a_few_other_sites(nodes: int, sites: int, least: int) -> None:
    site_of = {f"n{number}-{site}": str(site) for site in range(sites) for number in range(nodes)}
    mine, chance = [view(name, site_of) for name in members(site_of, "0")], Random(1)
    told = [sum(len(each.to_tell(4, chance)) for each in mine) for _ in range(200)]
    assert least <= sum(told) / 200 <= 5


def test_the_nodes_next_in_rank_speak_each_more_seldom() -> None:
    site_of = {f"n{number:02}": "berlin" for number in range(30)} | {"far": "munich"}
    shares = sorted((view(name, site_of).shares.get("munich", 0.0) for name in members(site_of, "berlin")), reverse=True)
    assert shares[:SPEAKERS] == [1.0] * SPEAKERS
    assert shares[SPEAKERS : SPEAKERS + STAND_INS] == [SELDOM**-rank for rank in range(1, STAND_INS + 1)]
    assert set(shares[SPEAKERS + STAND_INS :]) == {0.0}
    assert sum(shares) < 1.2 * SPEAKERS


def test_a_fleet_of_one_site_knows_of_no_speakers() -> None:
    sites = view("a", dict.fromkeys("abc", ""))
    assert not sites.divided
    assert sites.choose(Random(1), alone=True) is None
    assert sites.to_tell(3, Random(1)) == [] == sites.speaks_with()


def test_a_node_whose_site_is_unknown_is_not_away() -> None:
    sites = Sites("a", "berlin")
    told = []
    for site in (None, "berlin", "munich"):
        sites.put("b", site)
        told.append((sites.divided, sites.is_away("b"), sites.speaks_with()))
    assert told == [(False, False, []), (False, False, []), (True, True, ["munich"])]


def test_the_site_of_a_node_is_that_of_its_last_life() -> None:
    reader = GossipNode("reader", incarnation=1, now=lambda: 1, renew=lambda: 2)
    sites = NodeSites(reader.state.rows)
    assert (sites.of("n"), sites.named) == (None, False)
    node = GossipNode("n", incarnation=9, now=lambda: 1, renew=lambda: 5)
    node.describe("0.1.0", labels={"site": "berlin"})
    for _ in range(5):
        node.record(1)
    exchange(node, reader)
    assert (sites.of("n"), sites.named) == ("berlin", True)
    assert sites.take_moved() == {"n"}
    node.resume(9, vouched=False)
    node.describe("0.1.0", labels={"site": "munich"})
    assert node.replica.incarnation == 5
    exchange(node, reader)
    assert sites.of("n") == "munich", "though the life in berlin wrote more"
    assert sites.take_moved() == {"n"}
    node.describe("0.1.0", labels={})
    exchange(node, reader)
    assert (sites.of("n"), sites.take_moved()) == ("", {"n"})
