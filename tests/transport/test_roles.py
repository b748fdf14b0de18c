"""The rule by which nodes choose their role: peer, router or client."""

from collections.abc import Mapping
from itertools import pairwise
from random import Random

import pytest

from constraint_crdt.transport import Sought
from constraint_crdt.transport.topology import (
    CLIENT,
    GIVE_UP,
    LOST,
    PEER,
    ROUTER,
    ROUTERS,
    SECOND_ROUTER,
    SETTLED,
    SPREAD,
    Choice,
    RoleRule,
    is_on_loopback,
    rank,
)

ABOVE = 40


def endpoint_of(number: int) -> tuple[str, ...]:
    return (f"tcp/10.0.{number // 200}.{number % 200 + 1}:40000",)


class Fleet:
    """Nodes with the rule, which hear at once what others are. Steps are of half a second."""

    def __init__(self, nodes: int, **endpoints: tuple[str, ...]) -> None:
        self.now = 0.0
        self.endpoints = {f"n{number:03}": endpoint_of(number) for number in range(nodes)} | endpoints
        self.rules = {name: RoleRule(name, 0.0) for name in self.endpoints}
        self.roles = dict.fromkeys(self.endpoints, PEER)
        self.choices: dict[str, Choice] = {}
        self.down: set[str] = set()
        self.told: tuple[dict[str, str], dict[str, Sought]] = {}, {}
        """Roles, and what nodes with these roles tell."""

    def known_to(self, name: str) -> Mapping[str, Sought]:
        if self.told[0] != self.roles:  # roles change seldom
            told = {other: "" if role == PEER else role for other, role in self.roles.items()}
            self.told = dict(self.roles), {other: Sought(each, role=told[other]) for other, each in self.endpoints.items()}
        known = self.told[1].copy()
        del known[name]
        return known

    def linked(self, name: str) -> list[str]:
        """The routers that a node has a link to."""
        if self.roles[name] != CLIENT or name not in self.choices:
            return []
        return [each for each in self.choices[name].routers if self.roles[each] == ROUTER and each not in self.down][:1]

    def step(self) -> None:
        self.now += 0.5
        up = {name for name in self.endpoints if name not in self.down}
        links = {name: self.linked(name) for name in up}
        cut_off = {name for name in up if self.roles[name] == CLIENT and not links[name]}
        for name in sorted(up):
            live = set() if name in cut_off else up - cut_off - {name}
            rule, role, mine = self.rules[name], self.roles[name], self.endpoints[name]
            serves = any(name in each for each in links.values())
            choice = rule.choose(self.now, role, self.known_to(name), live, mine, links[name], serves_clients=serves)
            if choice.role != role or choice.routers:
                self.choices[name] = choice
            self.roles[name] = choice.role

    def run(self, seconds: float) -> "Fleet":
        for _ in range(round(seconds * 2)):
            self.step()
        return self

    def of(self, role: str) -> set[str]:
        return {name for name, each in self.roles.items() if each == role and name not in self.down}


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2, 39, 40])
def test_a_fleet_of_up_to_forty_nodes_has_peers_only(nodes: int) -> None:
    assert len(Fleet(nodes).run(60).of(PEER)) == nodes


@pytest.mark.long
@pytest.mark.parametrize("nodes", [41, 100])
def test_a_larger_fleet_has_routers_and_clients_of_all_of_them(nodes: int) -> None:
    fleet = Fleet(nodes).run(15)
    routers = fleet.of(ROUTER)
    assert len(routers) == ROUTERS
    assert fleet.of(PEER) == set()
    assert all(set(fleet.choices[name].routers) == routers for name in fleet.of(CLIENT))


@pytest.mark.long
def test_clients_are_spread_over_the_routers_and_over_time() -> None:
    fleet = Fleet(100)
    moved = [len(fleet.run(0.5).of(CLIENT)) for _ in range(40)]
    assert max(later - before for before, later in pairwise(moved)) < 40
    first = [fleet.choices[name].routers[0] for name in fleet.of(CLIENT)]
    assert min(first.count(name) for name in fleet.of(ROUTER)) > 30


@pytest.mark.long
def test_a_router_that_fails_is_replaced_and_its_clients_choose_others() -> None:
    fleet = Fleet(60).run(20)
    gone = min(fleet.of(ROUTER))
    fleet.down.add(gone)
    fleet.run(10)
    assert len(fleet.of(ROUTER)) == ROUTERS
    assert all(gone not in fleet.choices[name].routers for name in fleet.of(CLIENT))


@pytest.mark.long
def test_when_all_routers_fail_at_once_their_clients_agree_on_others() -> None:
    fleet = Fleet(60).run(20)
    fleet.down |= fleet.of(ROUTER)
    fleet.run(LOST + 1 + SPREAD)
    assert fleet.of(ROUTER)
    fleet.run(GIVE_UP)
    assert len(fleet.of(ROUTER)) == ROUTERS
    assert all(fleet.linked(name) for name in fleet.of(CLIENT))
    assert fleet.of(PEER) == set()


@pytest.mark.long
def test_a_client_that_reaches_no_router_is_a_peer_again() -> None:
    fleet = Fleet(60).run(20)
    name = min(fleet.of(CLIENT))
    rule, known = fleet.rules[name], fleet.known_to(name)
    roles = set()
    for tick in range(round(GIVE_UP * 2) + 4):
        roles.add(rule.choose(fleet.now + tick / 2, CLIENT, known, set(), fleet.endpoints[name], []).role)
    assert PEER in roles


@pytest.mark.long
def test_roles_have_a_hysteresis() -> None:
    fleet = Fleet(41).run(20)
    fleet.down |= set(sorted(fleet.of(CLIENT))[:10])  # 31 are left
    fleet.run(2 * SETTLED)
    assert fleet.of(PEER) == set()
    fleet.down |= set(sorted(fleet.of(CLIENT))[:2])  # 29
    fleet.run(SETTLED - 5)
    assert fleet.of(PEER) == set()
    fleet.run(SPREAD + 10)
    assert len(fleet.of(PEER)) == 29


@pytest.mark.long
def test_a_public_address_serves_before_a_private_one_and_a_chosen_port_before_a_free_one() -> None:
    fleet = Fleet(60, public=("tcp/8.8.8.8:40000",), listed=("tcp/10.9.9.9:7447",))
    routers = fleet.run(20).of(ROUTER)
    assert {"public", "listed"} <= routers


@pytest.mark.long
def test_nodes_on_loopback_serve_only_where_all_are() -> None:
    loopback = {f"n{number:03}": (f"tcp/127.0.0.1:{40000 + number}",) for number in range(50)}
    alone = Fleet(0, **loopback).run(20)
    assert len(alone.of(ROUTER)) == ROUTERS
    mixed = Fleet(0, **loopback, other=("tcp/10.0.0.1:7447",)).run(20)
    assert mixed.of(ROUTER) == {"other"}


@pytest.mark.slow
def test_a_fleet_without_a_node_that_serves_says_so_and_stays_as_it_is() -> None:
    fleet = Fleet(0, **{f"n{number:03}": ("tcp/0.0.0.0:7447",) for number in range(50)}).run(30)
    assert len(fleet.of(PEER)) == 50
    assert all(rule.is_large and not rule.servers for rule in fleet.rules.values())


@pytest.mark.long
def test_a_node_that_joins_moves_little() -> None:
    fleet = Fleet(60).run(20)
    routers = fleet.of(ROUTER)
    for number in range(60, 70):
        name = f"n{number:03}"
        fleet.endpoints[name], fleet.roles[name] = endpoint_of(number), PEER
        fleet.rules[name] = RoleRule(name, fleet.now)
    fleet.run(20)
    assert fleet.of(ROUTER) == routers
    assert fleet.of(PEER) == set()


def test_a_node_does_not_serve_before_it_knows_most_nodes() -> None:
    rule, known = RoleRule("me", 0.0), {f"n{number}": Sought(endpoint_of(number)) for number in range(10)}
    live = {f"n{number}" for number in range(60)}
    roles = {rule.choose(tick / 2, PEER, known, live, ("tcp/10.0.0.9:7447",), []).role for tick in range(60)}
    assert roles == {PEER}


def test_a_start_goes_by_the_store() -> None:
    told = {f"n{number:03}": Sought(endpoint_of(number), role=ROUTER if number < ROUTERS else CLIENT) for number in range(60)}
    choice = RoleRule("new", 0.0).at_start(told, ("tcp/10.9.9.9:40000",))
    assert (choice.role, set(choice.routers)) == (CLIENT, {"n000", "n001"})
    fewer = dict(list(told.items())[1:])
    assert RoleRule("new", 0.0).at_start(fewer, ("tcp/10.9.9.9:7447",)).role == ROUTER
    assert RoleRule("new", 0.0).at_start(dict(list(told.items())[:39]), ()).role == PEER
    nobody = {name: Sought(each.endpoints) for name, each in told.items()}
    assert RoleRule("new", 0.0).at_start(nobody, ()).role == PEER


def test_one_router_is_enough_after_a_while() -> None:
    known = {f"n{number:03}": Sought(endpoint_of(number), role=ROUTER if number == 7 else "") for number in range(60)}
    rule, mine = RoleRule("zz", 0.0), ("tcp/127.0.0.1:40000",)
    found = [rule.choose(tick / 2, PEER, known, set(known), mine, []).role for tick in range(40)]
    assert found[0] == PEER
    assert found.index(CLIENT) <= (SPREAD + SECOND_ROUTER) * 2 + 1


@pytest.mark.slow
def test_equal_views_give_equal_choices() -> None:
    random = Random(5)
    names = [f"node {random.random()}" for _ in range(100)]
    known = {name: Sought(endpoint_of(number)) for number, name in enumerate(names)}
    ranks = {name: rank(name, each.endpoints, on_loopback=False) for name, each in known.items()}
    first = set(sorted(names, key=lambda name: ranks[name] or (9, 9, 9))[:ROUTERS])
    for name in names:
        others = {other: each for other, each in known.items() if other != name}
        rule = RoleRule(name, 0.0)
        found = {rule.choose(tick / 2, PEER, others, set(others), known[name].endpoints, []).role for tick in range(10)}
        assert (ROUTER in found) == (name in first)


def test_ranks() -> None:
    order = [
        ("tcp/[2001:4860::1]:7447",),
        ("tcp/8.8.8.8:40000",),
        ("tcp/host.example:7447",),
        ("tcp/10.0.0.1:40000", "tcp/127.0.0.1:7447"),
        ("tcp/[fe80::1%eth0]:7447",),
    ]
    ranks = [rank("n", each, on_loopback=False) for each in order]
    assert all(ranks)
    assert sorted(ranks, key=lambda each: each or (9, 9, 9)) == ranks
    assert rank("n", ("tcp/127.0.0.1:7447", "tcp/localhost:1", "tcp/0.0.0.0:7447", "nonsense"), on_loopback=False) is None
    assert is_on_loopback(("tcp/127.0.0.1:7447", "tcp/[::1]:1"))
    assert not is_on_loopback(("tcp/127.0.0.1:7447", "tcp/10.0.0.1:1"))
