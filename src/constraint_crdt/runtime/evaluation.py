"""What a node makes of its evaluations: counts that wait to become cells, the last verdicts, and what turned.

Evaluating is frequent and a cell is not: counts gather here and are written as at most one cell per constraint and interval.

The latest measurements: one value per variable, with an age beyond which it is no measurement any more.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from constraint_crdt.crdt.replica import check_id
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import Verdict
from constraint_crdt.expression.evaluation import Evaluation


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


MAX_VARIABLES = 10_000
MAX_TEXT_BYTES = 4096


class MeasurementBoard:
    """Variables by name, each with the time it was measured. Times are in ns of any clock that only goes forward."""

    def __init__(self, max_age: float) -> None:
        """`max_age` in seconds."""
        self._max_age = int(max_age * 1e9)
        self._values: dict[str, tuple[int, object]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def put(self, values: Mapping[str, object], now: int) -> None:
        """Take new values in, all of them or, raising `ConstraintCrdtError`, none."""
        for name, value in values.items():
            check_id(name, "the name of a variable")
            if isinstance(value, str) and len(value.encode(errors="replace")) > MAX_TEXT_BYTES:
                raise ConstraintCrdtError(f"the text measured as {name} has more than {MAX_TEXT_BYTES} bytes")
            if not isinstance(value, bool | int | float | str | list | dict):
                raise ConstraintCrdtError(
                    f"the value of {name} is {value!r}; a measurement is a number, a text, true or false, or a list or map of them"
                )
        if len(self._values.keys() | values.keys()) > MAX_VARIABLES:
            raise ConstraintCrdtError(f"more than the {MAX_VARIABLES} variables that a node measures")
        self._values.update({name: (now, value) for name, value in values.items()})

    def fresh(self, now: int) -> dict[str, object]:
        """The values that are young enough. Those that are not are forgotten."""
        oldest = now - self._max_age
        self._values = {name: entry for name, entry in self._values.items() if entry[0] >= oldest}
        return {name: value for name, (_, value) in self._values.items()}
