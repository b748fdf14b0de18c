"""Histories of three replicas that write to named tables and tell each other of it, in any order, late, and more than once.

What was written is kept in plain logs beside, so that a straightforward model can say what must be read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from constraint_crdt import ConstraintState
from constraint_crdt.crdt.cells import Run

NODES = ("a", "b", "c")

Log = dict[str, int]
"""How many of each node's writes are known."""


@dataclass
class Transfer:
    """What one replica sent at some instant: a run for each row that is above the clock which it believed the receiver to be at."""

    runs: list[Run]
    log: Log
    """Of the rows that it has a run for."""


@dataclass
class History:
    """Three replicas, what each node wrote, and what of it each knows."""

    states: dict[str, ConstraintState] = field(default_factory=lambda: {node: ConstraintState() for node in NODES})
    known: dict[str, Log] = field(default_factory=lambda: {node: dict.fromkeys(NODES, 0) for node in NODES})
    written: dict[str, list[Any]] = field(default_factory=lambda: {node: [] for node in NODES})
    sent: list[Transfer] = field(default_factory=list)

    def wrote(self, node: str, what: Any) -> None:
        """A node made a write of its own."""
        self.written[node].append(what)
        self.known[node][node] += 1

    def send(self, source: str, to: str) -> None:
        """Make a transfer, to be delivered later, or never."""
        runs = self.states[source].rows.since(self.states[to].rows.clock_mark.entries)
        told = {run.replica.node_id for run in runs}
        self.sent.append(Transfer(runs, {node: count if node in told else 0 for node, count in self.known[source].items()}))

    def deliver(self, number: int, to: str) -> None:
        """Deliver one of the transfers made so far, whoever it was made for: one made for a higher clock changes nothing."""
        if self.sent:
            transfer = self.sent[number % len(self.sent)]
            if not self.states[to].rows.apply(transfer.runs).gap:
                self._learn(to, transfer.log)

    def merge(self, source: str, to: str) -> None:
        """Let one know all that another knows."""
        self.states[to].merge(self.states[source])
        self._learn(to, self.known[source])

    def _learn(self, to: str, log: Log) -> None:
        self.known[to] = {node: max(count, log[node]) for node, count in self.known[to].items()}

    def known_writes(self, node: str) -> list[Any]:
        """All writes that a replica knows of."""
        return [what for writer, count in self.known[node].items() for what in self.written[writer][:count]]


Step = tuple[Any, ...]
_node = st.sampled_from(NODES)
MOVES = st.one_of(
    st.tuples(st.just("send"), _node, _node),
    st.tuples(st.just("deliver"), st.integers(0, 30), _node),
    st.tuples(st.just("merge"), _node, _node),
    st.tuples(st.just("read"), _node),
)


def steps(write: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Step]]:
    """A history whose writes are drawn from `write`."""
    return st.lists(st.one_of(st.tuples(st.just("write"), _node, write), MOVES), min_size=5, max_size=40)


def play(history: History, moves: list[Step], write: Callable[[str, Any], None], check: Callable[[str], None]) -> None:
    """Play a history, checking a replica where it says so; in the end each one, and all after they have told each other all."""
    for kind, *arguments in moves:
        if kind == "write":
            write(*arguments)
        elif kind == "read":
            check(*arguments)
        else:
            getattr(history, kind)(*arguments)
    for node in NODES:
        check(node)
    for _ in range(2):
        for source in NODES:
            for to in NODES:
                history.merge(source, to)
    for node in NODES:
        check(node)
