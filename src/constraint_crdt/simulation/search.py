"""Searching: one history after the other, until one goes wrong; and what was tried on the way."""

from collections import Counter
from dataclasses import dataclass, field

from constraint_crdt.simulation.chaos import FAULTS, Chaos
from constraint_crdt.simulation.histories import History
from constraint_crdt.simulation.writes import WRITES


@dataclass(slots=True)
class Tally:
    """What a search has tried."""

    histories: int = 0
    operations: int = 0
    events: int = 0
    checks: int = 0
    """States that were compared with the log."""
    fired: Counter[str] = field(default_factory=Counter)
    """How often each kind of fault came about."""
    written: Counter[str] = field(default_factory=Counter)
    """How often each kind of write came about."""

    def add(self, other: "Tally") -> None:
        """Count what another part of the search tried."""
        self.histories += other.histories
        self.operations += other.operations
        self.events += other.events
        self.checks += other.checks
        self.fired += other.fired
        self.written += other.written

    def never_fired(self) -> list[str]:
        """The kinds of faults that never came about: of those the search says nothing."""
        return [fault for fault in FAULTS if not self.fired[fault]]

    def never_written(self) -> list[str]:
        """The kinds of writes that never came about, likewise."""
        return [kind for kind in WRITES if not self.written[kind]]


def search_seeds(first: int, count: int) -> tuple[Tally, History | None]:
    """Run the histories of so many seeds, up to the first that goes wrong."""
    tally = Tally()
    for seed in range(first, first + count):
        outcome = Chaos(seed).run()
        tally.add(Tally(1, outcome.operations, outcome.events, outcome.checks, outcome.fired, outcome.written))
        found = outcome.history()
        if found is not None:
            return tally, found
    return tally, None
