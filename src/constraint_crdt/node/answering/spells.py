"""Since when a constraint is violated where.

A node tells its counts, not its verdicts: cumulative, in one cell per constraint every few seconds. So of another node this sees
intervals, each with so many evaluations that held and so many that did not. A *spell* is a run of intervals in none of which one
held, and at its beginning perhaps one in which some held and some did not: violated since then, at the latest. An interval without
a violation ends it; an interval in which nothing was counted says nothing, and changes nothing.

Of the node itself the evaluations themselves are known, so its own spells are exact.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import NamedTuple

from constraint_crdt.core.cells import COUNTS, Cell, counts_value
from constraint_crdt.core.rows import Rows
from constraint_crdt.expression import Verdict
from constraint_crdt.types.counter import NODE_KEY, ZERO

SPELLS = 100_000
"""Spells remembered, of constraints and nodes, ended ones included: the one that was confirmed longest ago goes first."""


class Spell(NamedTuple):
    """What one node last told of one constraint. Times in ns since the epoch, by the clock of the node that looks."""

    since: int | None
    """Since when it is violated there; None: it held again."""
    last: int
    """When that was last confirmed."""


class Spells:
    """Follows the counts of one state from `begin` on."""

    def __init__(self, rows: Rows, now: Callable[[], int]) -> None:
        self._rows = rows
        self._now = now
        self._begun = False
        self._spells: OrderedDict[tuple[str, str], Spell] = OrderedDict()
        self._nodes: dict[str, set[str]] = {}
        self._own: dict[str, int] = {}
        rows.watch(COUNTS, self._changed)

    def begin(self) -> None:
        """What was counted up to now says nothing of since when."""
        self._begun = True

    def turned(self, id_: str, verdict: Verdict) -> None:
        """This node's own evaluation of a constraint turned to violated, or to satisfied."""
        if verdict is Verdict.VIOLATED:
            self._own.setdefault(id_, self._now())
        else:
            self._own.pop(id_, None)

    def forget(self, id_: str) -> None:
        """A constraint is gone, or says something else: what was found about it says nothing any more."""
        self._own.pop(id_, None)
        for node in self._nodes.pop(id_, ()):
            del self._spells[id_, node]

    def forget_all(self, ids: Collection[str]) -> None:
        """The same of many. O(ids), and next to nothing for those of which nothing is known."""
        for id_ in self._own.keys() & ids | self._nodes.keys() & ids:
            self.forget(id_)

    def own_since(self, id_: str) -> int | None:
        """Since when this node itself finds a constraint violated, exactly; None while it does not."""
        return self._own.get(id_)

    def of(self, id_: str, node: str) -> Spell | None:
        """The last spell of a node, as its counts tell it; None if it has none that is known."""
        return self._spells.get((id_, node))

    def told(self, id_: str) -> dict[str, int]:
        """The nodes on which a constraint is violated, as their counts tell it, each with since when. O(nodes of it)."""
        spells = {node: self._spells[id_, node].since for node in self._nodes.get(id_, ())}
        return {node: since for node, since in spells.items() if since is not None}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None or not self._begun or cell.key == NODE_KEY:
            return
        id_, node = str(cell.key), cell.replica.node_id
        if new is None:
            self._drop(id_, node)
            return
        if old is None and self._rows.seq(new.replica) >= new.seq:
            return  # its row came whole: this may have been counted long ago
        before, after = ZERO if old is None else counts_value(old), counts_value(new)
        held, violated = after[0] - before[0], after[1] - before[1]
        if violated > 0:
            spell = self._spells.get((id_, node))
            since = spell.since if spell is not None and not held else None
            self._confirm(id_, node, self._now() if since is None else since)
        elif held > 0 and after[1]:  # of one that was never violated there is nothing to remember
            self._confirm(id_, node, None)

    def _confirm(self, id_: str, node: str, since: int | None) -> None:
        self._spells[id_, node] = Spell(since, self._now())
        self._spells.move_to_end((id_, node))
        self._nodes.setdefault(id_, set()).add(node)
        if len(self._spells) > SPELLS:
            self._drop(*next(iter(self._spells)))

    def _drop(self, id_: str, node: str) -> None:
        if self._spells.pop((id_, node), None) is None:
            return
        nodes = self._nodes[id_]
        nodes.discard(node)
        if not nodes:
            del self._nodes[id_]
