"""Slow links in virtual time: a large state reaches a blank node on any of them, and small news passes in between."""

from dataclasses import replace
from functools import partial
from hashlib import blake2b
from statistics import mean

import pytest

from constraint_crdt import VectorClock
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.simulation.steps import Add, NodeStart
from constraint_crdt.simulation.world import Pace, Quality, SimRng, World
from tests.protocol.scrambled import travelling

SECOND = 10**9
SATELLITE = Quality(latency_ns=3 * SECOND // 2)
MODEM = Quality(latency_ns=SECOND // 10, bandwidth=1200)
"""9.6 kbit/s."""
NARROW = Quality(latency_ns=SECOND // 20, bandwidth=8000)
"""64 kbit/s."""
LOSSY = Quality(latency_ns=SECOND // 50, loss=0.5)


def world(quality: Quality, constraints: int, names: str = "ab", seed: int = 1) -> World:
    """A fleet of which the first node has so many constraints. Exchanges begin each second, the first timeout is a second."""
    members = [NodeStart(name, 1) for name in names]
    made = World(members, SimRng(seed), quality=quality, pace=Pace(patience_ns=SECOND), watched=False, paced=True, limits=Limits())
    for number in range(constraints):
        about = blake2b(str(number).encode(), digest_size=10).hexdigest()
        made.perform(Add, made.actors["a"], id=f"constraint-{number:05}", about=about)
    return made


def agree(made: World) -> bool:
    return len({node.state_hash for node in made.fleet.nodes.values()}) == 1


def content(made: World) -> int:
    return travelling(made.fleet.nodes["a"].delta_since(VectorClock()))


@pytest.mark.long
@pytest.mark.parametrize("quality", [SATELLITE, MODEM, NARROW, replace(SATELLITE, bandwidth=8000)], ids=str)
def test_6000_constraints_reach_a_blank_node(quality: Quality) -> None:
    made = world(quality, 6000)
    size, before = content(made), made.actors["a"].bytes
    made.run(3600 * SECOND, lambda: agree(made))
    assert agree(made)
    took, sent = made.now / SECOND, made.actors["a"].bytes - before
    least = size / quality.bandwidth if quality.bandwidth else 0.0
    way = 2 * quality.latency_ns / SECOND
    assert 80_000 < size < 140_000
    assert sent <= 1.15 * size
    assert took <= 1.3 * least + 12 * way + 5


@pytest.mark.long
def test_2000_constraints_reach_a_blank_node_where_half_of_the_messages_are_lost() -> None:
    """By chance some take long, so the means of some seeds count."""
    times, shares = list[float](), list[float]()
    for seed in range(6):
        made = world(LOSSY, 2000, seed=seed)
        size, before = content(made), made.actors["a"].bytes
        made.run(3600 * SECOND, partial(agree, made))
        assert agree(made)
        times.append(made.now / SECOND)
        shares.append((made.actors["a"].bytes - before) / size)
    assert mean(shares) <= 1.25 / (1 - LOSSY.loss)
    assert mean(times) <= 200


@pytest.mark.long
def test_news_of_any_node_passes_a_transfer_over_a_slow_link() -> None:
    """c is well linked. The blank node is b, behind 9.6 kbit/s: what it writes, and what c writes, is soon where it can be read."""
    quality = Quality(latency_ns=SECOND // 100)
    made = world(quality, 6000, "abc")
    for other in "ac":
        for sender, to in ((other, "b"), ("b", other)):
            made.links.slow(sender, to, MODEM)
    made.run(30 * SECOND)
    nodes = made.fleet.nodes
    assert nodes["c"].state_hash == nodes["a"].state_hash
    assert len(nodes["b"].state.constraints) == 0
    heard = []
    for writer, reader in ("ba", "ca", "ac", "bc"):
        made.perform(Add, made.actors[writer], id=f"news-{writer}-{reader}")
        begun = made.now
        made.run(begun + 60 * SECOND, partial(nodes[reader].state.constraints.__contains__, f"news-{writer}-{reader}"))
        heard.append((made.now - begun) / SECOND)
    assert len(nodes["b"].state.constraints) == 2, "the transfer goes on"
    assert max(heard) <= 6, "a round, a burst and two round trips at most"
    made.run(400 * SECOND, lambda: agree(made))
    assert agree(made)
