"""Explain: all that is known of one constraint, and how it is known.

Which mutations keep it alive and who made them, which removals ended which, where it is violated and since when, how often lately,
and who has not heard of it.
"""

from constraint_crdt.core.rows import Rows
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.node.answering.changes import Change
from constraint_crdt.node.answering.coverage import Coverage, dot_text
from constraint_crdt.node.answering.evidence import Evidence
from constraint_crdt.node.answering.reports import ExplainReport, RecentRates, Removal, StandingDefinition, ViolationReport
from constraint_crdt.node.answering.spells import Spells
from constraint_crdt.node.evaluating import Tally
from constraint_crdt.node.rates import NodeRates
from constraint_crdt.types.counter import ZERO
from constraint_crdt.types.definition import Addition


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
            conflict=len({each.definition.lasting() for each in in_force}) > 1,
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
