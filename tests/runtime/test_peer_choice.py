"""Whom a node asks next: by what it goes, and that the running rounds do."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import GossipNode, exchange
from constraint_crdt.protocol.peers import LEAST_ROUND_TRIP
from constraint_crdt.runtime.exchange_loop import NEAR_FROM, ROUND_TRIPS, PeerSelector
from constraint_crdt.transport import Peer

PEERS = [Peer(f"n{number:02}", "1") for number in range(NEAR_FROM)]


def timed(choice: str, peers: list[Peer]) -> PeerSelector:
    """Peers of which the first two answer a hundred times as soon as the others."""
    asking = PeerSelector(GossipNode("me"), choice, Random(1))  # type: ignore[arg-type]  # one of the words
    for place, peer in enumerate(peers):
        asking.answered(peer, 0.002 if place < 2 else 0.2)
    return asking


def share_of_first_two(asking: PeerSelector, peers: list[Peer]) -> float:
    drawn = Counter(asking.choose(peers) for _ in range(2000))
    assert set(drawn) == set(peers)
    return sum(drawn[peer] for peer in peers[:2]) / 2000


@pytest.mark.parametrize(
    ("choice", "count", "near"),
    [
        ("auto", NEAR_FROM - 1, False),
        ("auto", NEAR_FROM, True),
        ("uniform", NEAR_FROM, False),
        ("near", NEAR_FROM - 1, True),
    ],
)
def test_few_are_asked_uniformly_and_many_by_distance(choice: str, count: int, near: bool) -> None:
    peers = PEERS[:count]
    share = share_of_first_two(timed(choice, peers), peers)
    assert share > 0.5 if near else abs(share - 2 / count) < 0.05


@pytest.mark.slow
@given(st.lists(st.floats(0, 10), min_size=1, max_size=3 * ROUND_TRIPS))
def test_the_quickest_of_the_last_answers_is_the_distance(answers: list[float]) -> None:
    asking = PeerSelector(GossipNode("me"), "near", Random(1))
    assert asking.distances(PEERS[:2]) == [None, None]
    for seconds in answers:
        asking.answered(PEERS[0], seconds)
    assert asking.distances(PEERS[:2]) == [max(LEAST_ROUND_TRIP, min(answers[-ROUND_TRIPS:])), None]
    asking.gone(PEERS[0])
    asking.gone(PEERS[1])
    assert asking.distances(PEERS[:2]) == [None, None]


def test_positions_count_where_everybody_has_one() -> None:
    me, others = GossipNode("me"), [GossipNode(peer.name) for peer in PEERS[:3]]
    asking = PeerSelector(me, "near", Random(1))
    for peer in PEERS[:3]:
        asking.answered(peer, 0.5)
    me.update_position((1, 1))
    for node, position in zip(others[:2], [(1, 1), (1, 4)], strict=True):
        node.update_position(position)
        exchange(me, node)
    assert asking.distances(PEERS[:3]) == [0.5, 0.5, 0.5]
    others[2].update_position((-6, 1))
    exchange(me, others[2])
    assert asking.distances(PEERS[:3]) == [1.0, 3.0, 7.0]  # those at one place are a step apart
