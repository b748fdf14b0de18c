"""What a node makes of its evaluations: counts that wait to become cells, the last verdicts, and what turned.

Evaluating is frequent and a cell is not: counts gather here and are written as at most one cell per constraint and interval.
"""

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from constraint_crdt.evaluation import Evaluation
from constraint_crdt.expression import Verdict


class Turn(NamedTuple):
    """A constraint that began to be violated, or holds again."""

    constraint: str
    verdict: Verdict


class Tally:
    """Gathers the evaluations of one node."""

    def __init__(self, moved: Callable[[str], None] = lambda _: None) -> None:
        """`moved` is told each constraint of which another thing is to be said than before."""
        self._moved = moved
        self.changes = 0
        """How often that was."""
        self._waiting: dict[str | None, tuple[int, int]] = {}
        self._unknown: dict[str, int] = {}
        self._last: dict[str, Evaluation] = {}
        self._violated: set[str] = set()

    def note(self, evaluations: Iterable[Evaluation]) -> list[Turn]:
        """Gather one round of evaluations. Returns what turned: unknown turns nothing, so a gap in measuring is no recovery."""
        turns = []
        for each in evaluations:
            id_, verdict = each.constraint, each.verdict
            if verdict is Verdict.UNKNOWN or self._last.get(id_) != each:
                self.changes += 1
                self._moved(id_)
            self._last[id_] = each
            if verdict is Verdict.UNKNOWN:
                self._unknown[id_] = self._unknown.get(id_, 0) + 1
                continue
            satisfied, violated = self._waiting.get(id_, (0, 0))
            self._waiting[id_] = (satisfied + each.counts[0], violated + each.counts[1])
            if (verdict is Verdict.VIOLATED) != (id_ in self._violated):
                turns.append(Turn(id_, verdict))
                self._violated ^= {id_}
        return turns

    def take(self) -> dict[str | None, tuple[int, int]]:
        """The counts gathered since the last take: (satisfied, violated) by constraint."""
        waiting, self._waiting = self._waiting, {}
        return waiting

    @property
    def violated(self) -> int:
        """How many constraints are violated now."""
        return len(self._violated)

    def last(self, id_: str) -> Evaluation | None:
        """The last evaluation of a constraint."""
        return self._last.get(id_)

    def unknown(self, id_: str) -> int:
        """How often a constraint could not be decided."""
        return self._unknown.get(id_, 0)

    def forget_all(self, ids: Collection[str]) -> None:
        """Constraints are gone, or say something else: what was found about them says nothing any more. Counts stay.

        O(ids), and next to nothing for those of which nothing was found.
        """
        self.changes += len(ids)
        for found in (self._last, self._unknown):
            for id_ in found.keys() & ids:
                del found[id_]
        self._violated.difference_update(ids)
