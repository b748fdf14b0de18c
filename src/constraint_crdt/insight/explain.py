"""Since when a constraint is violated where.

A node tells its counts, not its verdicts: cumulative, in one cell per constraint every few seconds. So of another node this sees
intervals, each with so many evaluations that held and so many that did not. A *spell* is a run of intervals in none of which one
held, and at its beginning perhaps one in which some held and some did not: violated since then, at the latest. An interval without
a violation ends it; an interval in which nothing was counted says nothing, and changes nothing.

Of the node itself the evaluations themselves are known, so its own spells are exact.

Explain: all that is known of one constraint, and how it is known.

Which mutations keep it alive and who made them, which removals ended which, where it is violated and since when, how often lately,
and who has not heard of it.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import NamedTuple

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.expression import Verdict
from constraint_crdt.insight.changes import Change
from constraint_crdt.insight.coverage import Coverage, dot_text
from constraint_crdt.insight.evidence import Evidence
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.insight.reports import ExplainReport, RecentRates, Removal, StandingDefinition, ViolationReport
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.evaluation import Tally
from constraint_crdt.types.counters import COUNTS, NODE_KEY, ZERO, counts_value
from constraint_crdt.types.definition import Addition

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


class Explaining:
    """What one node can explain."""

    def __init__(
        self, gossip: GossipNode, evidence: Evidence, coverage: Coverage, spells: Spells, tally: Tally, rates: NodeRates
    ) -> None:
        self._gossip = gossip
        self._evidence = evidence
        self._coverage = coverage
        self._spells = spells
        self._tally = tally
        self._rates = rates

    def report(self, id_: str) -> ExplainReport:
        """All that is known of a constraint. O(nodes x rows). Raises `KeyError` if nothing is."""
        state = self._gossip.state
        try:
            coverage = self._coverage.report(id_)
        except KeyError:
            coverage = None
            if not self._rates.knows_constraint(id_) and not state.metrics.by_node(id_):
                raise
        constraints = state.constraints
        with self._gossip.time.held():
            in_force, expired = constraints.additions(id_), constraints.expired(id_)
        definitions = [self._definition(each, expired=False) for each in in_force]
        definitions += [self._definition(each, expired=True) for each in expired]
        return ExplainReport(
            id=id_,
            active=bool(in_force),
            conflict=len({each.definition.without_end() for each in in_force}) > 1,
            definitions=tuple(definitions),
            removals=tuple(_removal(change, id_, state.rows) for change in self._evidence.changes.removals(id_)),
            violations=self._violations(id_),
            lately=self._lately(id_),
            coverage=coverage,
        )

    def _definition(self, addition: Addition, *, expired: bool) -> StandingDefinition:
        definition, change = addition.definition, self._evidence.changes.change(addition.dot)
        return StandingDefinition(
            dot=dot_text(addition.dot),
            when=definition.when,
            severity=definition.severity.value,
            about=definition.about,
            on=dict(definition.on),
            added_by=addition.dot.replica.node_id,
            added_at=addition.added_at,
            known_since=None if change is None else change.known_at,
            expires_at=definition.expires_at,
            expired=expired,
        )

    def _violations(self, id_: str) -> tuple[ViolationReport, ...]:
        """Of every node that evaluated it."""
        counts = self._gossip.state.metrics.by_node(id_)
        lately = self._rates.of(id_, self._rates.half_lives[0])
        per_minute = lately.violated_per_minute / lately.violated if lately.violated else 0.0
        names = {*counts, *lately.by_node} | ({self._gossip.node_id} if self._tally.last(id_) else set())
        reports = []
        for name in sorted(names):
            exact, violated, since, last = self._found(id_, name)
            rate = lately.by_node.get(name)
            reports.append(
                ViolationReport(
                    node=name,
                    live=self._evidence.is_live(name),
                    violated=violated,
                    since=since,
                    last=last,
                    exact=exact,
                    satisfied=counts[name].satisfied if name in counts else 0,
                    violations=counts[name].violated if name in counts else 0,
                    violated_per_minute=rate.violated * per_minute if rate else 0.0,
                    violated_share=rate.violated_share if rate else None,
                )
            )
        return tuple(reports)

    def _found(self, id_: str, name: str) -> tuple[bool, bool | None, int | None, int | None]:
        """Whether it is exact, whether the constraint is violated on a node, since when, and when that was last confirmed."""
        last = self._tally.last(id_) if name == self._gossip.node_id else None
        if last is not None and any(last.counts):
            since = self._spells.own_since(id_)
            return True, since is not None, since, self._evidence.now()
        spell = self._spells.of(id_, name)
        if spell is not None:
            return False, spell.since is not None, spell.since, spell.last
        ever = self._gossip.state.metrics.by_node(id_).get(name, ZERO)
        return False, False if ever.satisfied and not ever.violated else None, None, None

    def _lately(self, id_: str) -> tuple[RecentRates, ...]:
        found = []
        for half_life in self._rates.half_lives:
            rate = self._rates.of(id_, half_life)
            found.append(
                RecentRates(
                    half_life=half_life,
                    satisfied_per_minute=rate.satisfied_per_minute,
                    violated_per_minute=rate.violated_per_minute,
                    violated_share=rate.violated_share,
                )
            )
        return tuple(found)


def _removal(change: Change, id_: str, rows: Rows) -> Removal:
    dot = change.dot
    return Removal(
        dot=dot_text(dot),
        by=dot.replica.node_id,
        ended=tuple(map(dot_text, sorted((change.removed or {}).get(id_, ())))),
        known_since=change.known_at,
        held=any(cell.seq == dot.seq for cell in rows.above(dot.replica, dot.seq - 1)[:1]),
    )
