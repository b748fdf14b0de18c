"""Explanations: everything known of a constraint, with the evidence; and the overview of all constraints.

An explanation lists the mutations keeping the constraint active and their authors, the removals and the additions ended by each,
the nodes with violations and since when, the recent rates, and the nodes lacking the constraint.

`Spells` has the times of violations. Nodes write cumulative counts, not verdicts, in a cell per constraint, every few seconds. So
the counts of another node give intervals with a number of satisfied and of violated evaluations. A *spell* is a run of intervals
without a satisfied evaluation; the interval before may be mixed. The constraint is violated since the begin of the spell, at the
latest. An interval without a violation ends the spell. An interval without evaluations changes nothing. This node's own spells are
exact, because they come from its evaluations.

The overview has the constraints of a large fleet in pages, for screens. The size of a page depends on the number of constraints
asked for, not on the number of constraints. A page names few nodes and counts the others. The coverage of a constraint is given
only if asked by id, from the clocks of peers.
"""

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.expression import Verdict
from constraint_crdt.expression.evaluation import Evaluation
from constraint_crdt.insight.changes import LoggedChange
from constraint_crdt.insight.evidence import Coverage, Evidence, dot_text
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.operations.constraints import reported_fields
from constraint_crdt.operations.counts import OVERVIEW_PAGE, ConstraintOverview, ConstraintRate, LatelyReport, OverviewReport
from constraint_crdt.operations.evidence import ExplainReport, RecentRates, Removal, StandingDefinition, ViolationReport
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.counters import COUNTS, NODE_KEY, ZERO, counts_value
from constraint_crdt.types.definition import Addition

SPELLS = 100_000
"""Spells kept, of constraints and nodes, ended spells included. The spell with the oldest confirmation is dropped first."""

NAMED = 3
"""Nodes named where a constraint is violated: those with the most violations."""

NOTICED = 0.05
"""A node counts as recently violating a constraint while more than this number of violations remains."""

SHARE_OF_LOOP = 20
"""A slow sum is cached for this multiple of its duration."""

Clock = Mapping[Replica, int]


class Spell(NamedTuple):
    """The last spell of a constraint on a node. Times in ns since the epoch, by this node's clock."""

    since: int | None
    """The begin of the violation; None if the constraint is satisfied."""
    last: int
    """The time of the last confirmation."""


class VerdictChange(Protocol):
    """A change of verdicts on this node."""

    @property
    def turns(self) -> Sequence[tuple[str, Verdict]]:
        """Constraints, each with its new verdict."""


class Spells:
    """Follows the counts of a state, from `begin` on."""

    def __init__(self, rows: Rows, now: Callable[[], int]) -> None:
        self._rows = rows
        self._now = now
        self._begun = False
        self._spells: OrderedDict[tuple[str, str], Spell] = OrderedDict()
        self._nodes: dict[str, set[str]] = {}
        self._own: dict[str, int] = {}
        rows.watch(COUNTS, self._changed)

    def begin(self) -> None:
        """The node starts. Counts from before give no times."""
        self._begun = True

    def changed(self, change: VerdictChange) -> None:
        """Verdicts of this node changed."""
        for constraint, verdict in change.turns:
            self.turned(constraint, verdict)

    def turned(self, id_: str, verdict: Verdict) -> None:
        """This node's own evaluation of a constraint turned to violated, or to satisfied."""
        if verdict is Verdict.VIOLATED:
            self._own.setdefault(id_, self._now())
        else:
            self._own.pop(id_, None)

    def forget(self, id_: str) -> None:
        """A constraint was removed or redefined: drop its spells."""
        self._own.pop(id_, None)
        for node in self._nodes.pop(id_, ()):
            del self._spells[id_, node]

    def forget_all(self, ids: Collection[str]) -> None:
        """The same of many. O(ids), and next to nothing for those of which nothing is known."""
        for id_ in self._own.keys() & ids | self._nodes.keys() & ids:
            self.forget(id_)

    def own_since(self, id_: str) -> int | None:
        """The exact begin of a violation on this node; None while the constraint is not violated."""
        return self._own.get(id_)

    def of(self, id_: str, node: str) -> Spell | None:
        """The last spell of a node by its counts; None if unknown."""
        return self._spells.get((id_, node))

    def told(self, id_: str) -> dict[str, int]:
        """The nodes on which a constraint is violated by their counts, each with the begin. O(nodes of the constraint)."""
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
        elif held > 0 and after[1]:  # a constraint without violations needs no spell
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


class Evaluations(Protocol):
    """Knows the evaluations of a node."""

    def last(self, id_: str) -> Evaluation | None:
        """The last evaluation of a constraint."""


class Explanations:
    """Explains the constraints of a node."""

    def __init__(
        self, gossip: GossipNode, evidence: Evidence, coverage: Coverage, spells: Spells, evaluations: Evaluations, rates: NodeRates
    ) -> None:
        self._gossip = gossip
        self._evidence = evidence
        self._coverage = coverage
        self._spells = spells
        self._evaluations = evaluations
        self._rates = rates

    def report(self, id_: str) -> ExplainReport:
        """Everything known of a constraint. O(nodes x rows). Raises `KeyError` for an unknown constraint."""
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
            **reported_fields(definition),
            expired=expired,
        )

    def _violations(self, id_: str) -> tuple[ViolationReport, ...]:
        """The violations on every node with evaluations."""
        counts = self._gossip.state.metrics.by_node(id_)
        lately = self._rates.of(id_, self._rates.half_lives[0])
        per_minute = lately.violated_per_minute / lately.violated if lately.violated else 0.0
        names = {*counts, *lately.by_node} | ({self._gossip.node_id} if self._evaluations.last(id_) else set())
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
        """For a node: exactness, the verdict, the begin of the violation, and the time of the last confirmation."""
        last = self._evaluations.last(id_) if name == self._gossip.node_id else None
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


def _removal(change: LoggedChange, id_: str, rows: Rows) -> Removal:
    dot = change.dot
    return Removal(
        dot=dot_text(dot),
        by=dot.replica.node_id,
        ended=tuple(map(dot_text, sorted((change.removed or {}).get(id_, ())))),
        known_since=change.known_at,
        held=any(cell.seq == dot.seq for cell in rows.above(dot.replica, dot.seq - 1)[:1]),
    )


class NodeOverview:
    """Reads; changes nothing."""

    def __init__(self, gossip: GossipNode, rates: NodeRates, evaluations: Evaluations, evidence: Evidence, spells: Spells) -> None:
        self._gossip = gossip
        self._rates = rates
        self._evaluations = evaluations
        self._evidence = evidence
        self._spells = spells
        self._lately: tuple[float, LatelyReport] | None = None

    def page(self, after: str | None = None, limit: int = OVERVIEW_PAGE, node: str | None = None) -> OverviewReport:
        """The constraints after `after`, `limit` at most.

        `node`: only the constraints with recent evaluations by this node, and only those evaluations.
        """
        constraints = self._gossip.state.constraints
        ids = sorted(constraints if node is None else self._rates.evaluated_by(node).intersection(constraints))
        start = 0 if after is None else bisect_right(ids, after)
        wanted = ids[start : start + limit]
        last = wanted[-1] if start + limit < len(ids) and wanted else None
        return self._report(wanted, len(constraints), last, node=node)

    def of(self, ids: Iterable[str]) -> OverviewReport:
        """These constraints with their coverage. Inactive constraints are left out."""
        constraints = self._gossip.state.constraints
        wanted = [id_ for id_ in sorted(set(ids)) if id_ in constraints]
        return self._report(wanted, len(constraints), None, clocks=self._clocks())

    def lately(self) -> LatelyReport:
        """See `LatelyReport`. A slow report is cached: readers take a twentieth of the loop's time at most."""
        now = time.monotonic()
        if self._lately is None or now >= self._lately[0]:
            report = LatelyReport(half_life=self._rates.half_lives[0], by_node=self._rates.by_node())
            took = time.monotonic() - now
            self._lately = now + took * (SHARE_OF_LOOP + 1), report
        return self._lately[1]

    def _report(
        self,
        ids: Sequence[str],
        total: int,
        last: str | None,
        *,
        node: str | None = None,
        clocks: Sequence[Clock | None] | None = None,
    ) -> OverviewReport:
        with self._gossip.time.held():
            every = tuple(self._one(id_, node, clocks) for id_ in ids)
        return OverviewReport(
            half_lives=self._rates.half_lives,
            total=total,
            next=last,
            constraints=every,
        )

    def _one(self, id_: str, node: str | None, clocks: Sequence[Clock | None] | None) -> ConstraintOverview:
        state = self._gossip.state
        additions = state.constraints.additions(id_)
        definitions = [each.definition for each in additions]
        ends = [each.expires_at for each in definitions if each.expires_at is not None]
        first, counts, last = definitions[0], state.metrics.constraint(id_), self._evaluations.last(id_)
        lately = [self._rates.of(id_, half_life, node) for half_life in self._rates.half_lives]
        now = {name: since for name, since in self._violated_now(id_, last).items() if node in (None, name)}
        violated = {name: rate.violated for name, rate in lately[0].by_node.items() if name in now or rate.violated > NOTICED}
        violated |= {name: 0.0 for name in now if name not in violated}
        return ConstraintOverview(
            id=id_,
            when=first.when,
            severity=first.severity.value,
            about=first.about,
            on=dict(first.on),
            added_by=additions[0].dot.replica.node_id,
            added_at=additions[0].added_at,
            expires_at=max(ends) if len(ends) == len(definitions) else None,
            **reported_fields(first),
            applies_here=any(each.applies_to(self._gossip.labels) for each in definitions),
            definitions=len({each.without_end() for each in definitions}),
            satisfied=counts.satisfied,
            violations=counts.violated,
            verdict=last.verdict.value if last else None,
            reason=last.reason if last else "",
            lately=tuple((_short(rate.satisfied), _short(rate.violated)) for rate in lately),
            evaluated_on=_evaluating(lately[0]),
            violated_now=len(now),
            violated_since=min(now.values(), default=None),
            violated_on=len(violated),
            worst=tuple(sorted(violated, key=lambda name: (name not in now, -violated[name], name))[:NAMED]),
            covered=None if clocks is None else _covered([(each.dot.replica, each.dot.seq) for each in additions], clocks),
        )

    def _violated_now(self, id_: str, last: Evaluation | None) -> dict[str, int]:
        """The nodes on which a constraint is violated, and since when; for this node from its own evaluations."""
        found, me = self._spells.told(id_), self._gossip.node_id
        if last is not None and any(last.counts):
            found.pop(me, None)
            since = self._spells.own_since(id_)
            return found if since is None else {**found, me: since}
        return found

    def _clocks(self) -> list[Clock | None]:
        """The last clock of each other node of the fleet; None without evidence."""
        others = (name for name in self._evidence.names if name != self._gossip.node_id)
        peers = map(self._gossip.tracker.peer, others)
        return [None if peer is None or peer.mark is None else peer.mark.entries for peer in peers]


def _evaluating(rate: ConstraintRate) -> int:
    return sum(each.satisfied + each.violated > NOTICED for each in rate.by_node.values())


def _covered(dots: Sequence[tuple[Replica, int]], clocks: Sequence[Clock | None]) -> tuple[int, int, int]:
    have = lack = unknown = 0
    for clock in clocks:
        if clock is None:
            unknown += 1
        elif all(clock.get(replica, 0) >= seq for replica, seq in dots):
            have += 1
        else:
            lack += 1
    return have + 1, lack, unknown


def _short(number: float) -> float:
    """Enough digits for a screen."""
    return float(f"{number:.4g}")
