"""Planted bugs: each is found by the search, and shrunk until a person can read it.

What the simulator is worth is what it finds. Twelve mistakes that such systems have made are put into the code, one at a time.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from constraint_crdt.crdt import clock
from constraint_crdt.crdt.cells import Cell, Run
from constraint_crdt.crdt.clock import HybridClock, Replica
from constraint_crdt.crdt.rows import Applied, Rows
from constraint_crdt.protocol.exchange_rules import Exchange, GossipResult
from constraint_crdt.protocol.local_replica import LocalReplica
from constraint_crdt.protocol.peers import DeltaTracker, Peer, Statement
from constraint_crdt.simulation.chaos import OPERATIONS
from constraint_crdt.types.counters import ConstraintGCounter
from tests.simulation.planting import Plant, Search, find_and_shrink, forget_hashes

pytestmark = pytest.mark.slow


def clock_raised_past_data(patch: pytest.MonkeyPatch) -> None:
    """A transfer that begins above the clock is applied all the same."""
    apply = Rows.apply

    def planted(self: Rows, runs: Sequence[Run], **given: Any) -> Applied:
        closed = [Run(run.replica, min(run.lo, self.seq(run.replica)), run.hi, run.cells, run.floor) for run in runs]
        return apply(self, closed, **given)

    patch.setattr(Rows, "apply", planted)


def floors_not_carried(patch: pytest.MonkeyPatch) -> None:
    """A Sync says nothing of the removals that its sender dropped."""
    whole = Rows.whole
    patch.setattr(Rows, "whole", lambda self: [run.without_floor() for run in whole(self)])


def removal_ignored(patch: pytest.MonkeyPatch) -> None:
    """A removal is kept and passed on, and does nothing."""
    patch.setattr(Rows, "_apply_removal", lambda self, removal: None)


def seq_reused(patch: pytest.MonkeyPatch) -> None:
    """A node goes on as the life that its disk remembers, whoever vouches for that disk."""
    resume = LocalReplica.resume
    patch.setattr(LocalReplica, "resume", lambda self, incarnation, *, vouched: resume(self, incarnation, vouched=True))


def count_doubled(patch: pytest.MonkeyPatch) -> None:
    """A cumulative count is added, where it takes the place of the one before."""
    changed = ConstraintGCounter._changed

    def planted(self: ConstraintGCounter, old: Cell | None, new: Cell | None) -> None:
        changed(self, None if new is not None else old, new)

    patch.setattr(ConstraintGCounter, "_changed", planted)


def run_applied_halfway(patch: pytest.MonkeyPatch) -> None:
    """Of each run the first half of the cells is taken, and all of the clock."""
    apply = Rows.apply

    def planted(self: Rows, runs: Sequence[Run], **given: Any) -> Applied:
        halves = [Run(run.replica, run.lo, run.hi, run.cells[: (len(run.cells) + 1) // 2], run.floor) for run in runs]
        return apply(self, halves, **given)

    patch.setattr(Rows, "apply", planted)


def hash_without_length_prefixes(patch: pytest.MonkeyPatch) -> None:
    """Replica n1 of life 1 and replica n of life 11 are hashed alike."""
    patch.setattr(clock, "replica_bytes", lambda replica: f"{replica.node_id}{replica.incarnation}".encode())


def stale_ack_trusted(patch: pytest.MonkeyPatch) -> None:
    """An Ack is taken for the last thing said, whatever it answers."""
    find_hash = DeltaTracker.find_hash

    def planted(self: DeltaTracker, peer: Peer, token: bytes, reader: Replica) -> Statement | None:
        talk = self._conversations.get(peer.replica.node_id)
        last = list(talk.statements.values())[-1] if talk and talk.statements else None
        return last if last is not None and last.hash else find_hash(self, peer, token, reader)

    patch.setattr(DeltaTracker, "find_hash", planted)


def expiry_by_local_clock(patch: pytest.MonkeyPatch) -> None:
    """A node reads expiries by its own clock, whatever it hears of others."""
    patch.setattr(HybridClock, "now", lambda self: self.own())


def delta_applied_in_parts(patch: pytest.MonkeyPatch) -> None:
    """The runs of a Delta are taken one at a time; the first will do for now."""
    apply = Rows.apply

    def planted(self: Rows, runs: Sequence[Run], *, whole: bool = False, **given: Any) -> Applied:
        return apply(self, runs if whole else runs[:1], whole=whole, **given)

    patch.setattr(Rows, "apply", planted)


def rollback_unnoticed(patch: pytest.MonkeyPatch) -> None:
    """A node of which others know more goes on as the life that it was."""
    compare = Exchange._compare_life

    def planted(self: Exchange, result: GossipResult, peer: Peer, before: int) -> None:
        compare(self, result, peer, before)
        self._local.written = self._local.state.rows.seq(self._local.replica)
        result.outlived = None

    patch.setattr(Exchange, "_compare_life", planted)


def measurements_kept_over_a_step(patch: pytest.MonkeyPatch) -> None:
    """What was heard of other clocks is kept as it was when the own clock is set."""
    patch.setattr(HybridClock, "_step", lambda self, step, own: self._steps.append(step))


PLANTS: dict[Plant, Search] = {
    clock_raised_past_data: Search(15),
    floors_not_carried: Search(19),
    removal_ignored: Search(26),
    seq_reused: Search(86),
    count_doubled: Search(26),
    run_applied_halfway: Search(1),
    hash_without_length_prefixes: Search(122),
    stale_ack_trusted: Search(5000, OPERATIONS),  # what is found there shrinks only by steps that go together
    expiry_by_local_clock: Search(13),
    delta_applied_in_parts: Search(4),
    rollback_unnoticed: Search(75),
    measurements_kept_over_a_step: Search(63),
}
"""Each with histories in which it is found soon: those of the search by default."""


@pytest.fixture(autouse=True)
def _no_hashes_from_before() -> Iterator[None]:
    forget_hashes()
    yield
    forget_hashes()


@pytest.mark.long(by_day=["delta_applied_in_parts", "expiry_by_local_clock", "removal_ignored"])
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found_and_shrunk(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    find_and_shrink(plant, PLANTS[plant], monkeypatch)
