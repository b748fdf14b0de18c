"""A path that short requests pass and long ones do not, as the lengths show it; and what `doctor` says about it."""

import asyncio
from collections import deque

import pytest

from constraint_crdt.insight.history import FAILURES_KEPT, FEWEST_FAILURES, SHORT, SIZED_PEERS, SIZES_FOR, MessageSizes, SizeLimit
from constraint_crdt.transport import Peer, Transport, Unreachable
from tests.insight.test_diagnosis import found
from tests.network.rows import random_ids
from tests.runtime.fleet import agreed, eventually, fleet


def tried(*requests: tuple[int, bool]) -> MessageSizes:
    """A peer asked once a second by requests of these lengths; whether it answered."""
    sizes = MessageSizes()
    for second, (size, answered) in enumerate(requests):
        sizes.requested("edge", size, float(second), answered=answered)
    return sizes


def test_long_ones_that_fail_between_short_ones_that_pass() -> None:
    sizes = tried((90, True), (1400, False), (90, False), (98, True), (5000, False), (1361, False), (90, True))
    assert list(sizes.limits(7.0)) == [SizeLimit("edge", passed=98, failed=1361, tries=3)]
    sizes.requested("edge", 1400, 8.0, answered=True)
    assert list(sizes.limits(9.0)) == []


def test_a_peer_that_is_away_or_slow_has_no_limit() -> None:
    away = tried((2000, True), (2000, False), (90, False), (2000, False), (90, False), (2000, False))
    assert list(away.limits(7.0)) == [], "a request of this length passed before"
    dead = tried((90, True), (2000, False), (90, False), (2000, False), (90, False), (2000, False), (90, False))
    assert list(dead.limits(8.0)) == [], "nothing passes"
    few = tried(*[(2000, False), (90, True)] * (FEWEST_FAILURES - 1))
    assert list(few.limits(9.0)) == []
    short = tried(*[(SHORT, False), (90, True)] * 10)
    assert list(short.limits(21.0)) == []


def test_what_it_remembers_ends_and_is_bounded() -> None:
    sizes = tried(*[(2000, False), (90, True)] * 200)
    assert [each.tries for each in sizes.limits(400.0)] == [FAILURES_KEPT]
    assert list(sizes.limits(400.0 + SIZES_FOR)) == []
    for number in range(SIZED_PEERS + 10):
        sizes.requested(f"peer {number}", 2000, 1000.0, answered=False)
    assert len(sizes._peers) == SIZED_PEERS
    grown = tried(*[(size, True) for size in range(1, 1000)])
    assert grown._peers["edge"].answered == deque([(998.0, 999)])


@pytest.mark.slow
async def test_doctor_says_what_it_means_and_what_to_do() -> None:
    async with fleet("a", "b") as (a, _):
        now = asyncio.get_running_loop().time()
        for _ in range(FEWEST_FAILURES):
            a._runtime.exchanges._sizes.requested("edge", 4103, now, answered=False)
        assert "size" not in found(a)
        a._runtime.exchanges._sizes.requested("edge", 98, now + 1, answered=True)
        finding = found(a)["size"]
        assert finding.level == "warn"
        assert "long ones do not reach edge (none of 4,103 bytes or more in 3 tries; those of 98 bytes do)" in finding.what
        assert "MSS" in finding.advice
        assert "tcp_mtu_probing" in finding.advice


def let_short_pass(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose long requests and answers."""
    request = transport.request

    async def request_short(peer: Peer, payload: bytes, seconds: float) -> list[bytes]:
        answers = await request(peer, payload, seconds) if len(payload) <= SHORT else []
        if not answers or max(map(len, answers)) > SHORT:
            raise Unreachable(f"{peer.name} did not answer")
        return answers

    monkeypatch.setattr(transport, "request", request_short)


@pytest.mark.slow
async def test_a_transport_that_passes_short_requests_only_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet("a", "b") as (a, b):
        await eventually(lambda: agreed([a, b]))
        for node in (a, b):
            let_short_pass(node._runtime.transport, monkeypatch)
        for id_ in random_ids(200):
            await a.add_constraint(id_)
        await eventually(lambda: "size" in found(a))
        assert "long ones do not reach b" in found(a)["size"].what
