"""The recent past of a fleet: the course of verdicts, the recent rates of judgements, and the changes of rules.

`NodeRates` has the evaluations of this node, and the answers for the fleet. Each evaluation is counted at once and decays in memory
until the count is written, at most a cell per constraint and interval. Counts in memory show in the answers of this node. A node
killed before writing loses the counts in memory; the exact counts are in the metrics.

`VerdictHistory` has the course of each constraint in memory: the value, limit and margin on this node, sampled, and the turns of
every node, as these told. The samples of a constraint are bounded: when they are full, each pair of the older half becomes a single
sample, that with the lower margin. So the recent past is fine and the older past coarse, and a sampled peak is never smoothed away.
A violation between two samples is in the turns.

`RuleHistory` puts the audit and the changes together: who changed which rule, when, why, and the former rule. A version is made by
the change of its number, and is the state that the next change found. A revert is an ordinary edit: it changes the future, not the
past.

`MessageSizes` compares the requests that a peer answered lately with those that it did not. A path that drops long packets without
a word passes each short request and no long request: a long request stalls its link until the link ends, and so again on the next.
Rules:

- A short request (`SHORT`) fits into a packet of any path. A failed short request says nothing: it may be queued behind a long
  request.
- Nothing is concluded from fewer than `FEWEST_FAILURES`, nor while nothing passes.
- Answers are not counted. A node that has much to tell a peer tells it in requests of its own rounds, too.
"""

from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from math import isfinite, isnan, nan
from typing import Final, NamedTuple, Protocol

import msgspec

from constraint_crdt.crdt.cells import Cell, split_key
from constraint_crdt.crdt.clock import SECOND, Dot, Replica
from constraint_crdt.errors import ConstraintCrdtError, NotKept, UnknownName
from constraint_crdt.model import IfUnknown, Mode, Scope, VerdictState
from constraint_crdt.operations.counts import ConstraintRate, NodeRate, RatesReport
from constraint_crdt.operations.evidence import NodeSpells, SeriesPoint, SeriesReport, SpellReport, TurnReport
from constraint_crdt.operations.operation import show_duration
from constraint_crdt.operations.rules import HistoryEntry, RevertReport, RevertStep
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.alerts import ACTOR_BYTES, ALERT_RULE, SILENCE, Silence, read_rule
from constraint_crdt.types.decay import LN2, NODE_KEY, RATE, Pair, Rates, decayed, rates_of
from constraint_crdt.types.definition import ADD, Definition
from constraint_crdt.types.nodes import AuditEntry, Cause, cut
from constraint_crdt.types.orset import (
    ALL,
    SWITCH,
    RecordedChange,
    Subject,
    Switch,
    before_change,
    read_definitions,
    read_switch,
)
from constraint_crdt.types.parameters import PARAMETER, ParameterValue, literal, read_setting
from constraint_crdt.types.variables import Scalar, read_scalar
from constraint_crdt.types.verdicts import VERDICT, NodeVerdict, read_verdict

NOTHING_LEFT = 0.0005
"""A constraint without an active definition is listed while more than this number of evaluations remains."""


class _Unwritten(NamedTuple):
    """Evaluations in memory: the decayed sums at a time, for each half-life."""

    at: float
    pairs: tuple[Pair, ...]


class NodeRates:
    """The recent rates of a node and its fleet."""

    def __init__(self, gossip: GossipNode, half_lives: tuple[float, ...], *, now: Callable[[], float]) -> None:
        """`half_lives`: those to track, in seconds. `now`: monotonic seconds. Raises `ConstraintCrdtError` for wrong half-lives."""
        self._gossip = gossip
        self._rates = gossip.state.rates
        self._rates.track(half_lives)
        self._now = now
        self._waiting: dict[str | None, _Unwritten] = {}
        self._cached: tuple[float, tuple[float, ...]] = (0.0, (1.0,) * len(half_lives))
        """The last result of `_factors`, with its age."""

    # --- gathering -----------------------------------------------------------------------------------------------------

    def note(self, counts: Mapping[str | None, tuple[int, int]]) -> None:
        """Gather evaluations made now: (satisfied, violated) by constraint, None for none in particular."""
        now = self._now()
        for constraint, (satisfied, violated) in counts.items():
            if satisfied or violated:
                pairs = tuple([(s + satisfied, v + violated) for s, v in self._left(constraint, now)])
                self._waiting[constraint] = _Unwritten(now, pairs)

    @property
    def waiting(self) -> int:
        """The constraints with counts in memory that are not written."""
        return len(self._waiting)

    def write_waiting(self, most: int | None = None) -> None:
        """Write the counts in memory, of so many constraints at most. Counts stay in memory if the write fails, as do those beyond
        2**63 - 1, to decay there.
        """
        now = self._now()
        left = {constraint: self._left(constraint, now) for constraint in islice(self._waiting, most)}
        refused = self._gossip.write(lambda me: self._rates.record_each_left(me, left))
        for constraint in left:
            waiting = self._waiting.pop(constraint)
            if constraint in refused:
                self._waiting[constraint] = waiting  # behind those that were not tried yet

    def fold(self, ids: list[str]) -> None:
        """Fold the counts of this incarnation for these constraints into the counts without a constraint."""
        if self._waiting.keys() & set(ids):
            self.write_waiting()
        self._gossip.write(lambda me: self._rates.fold(ids, node=me))

    def _left(self, constraint: str | None, now: float) -> tuple[Pair, ...]:
        """The decayed sums in memory, for each half-life."""
        waiting = self._waiting.get(constraint)
        if waiting is None:
            return ((0.0, 0.0),) * len(self._rates.half_lives)
        return tuple([(s * left, v * left) for (s, v), left in zip(waiting.pairs, self._factors(now - waiting.at), strict=True)])

    def _factors(self, age: float) -> tuple[float, ...]:
        """The part left after this age at each half-life. Most counts in memory have the same age, as they were noted together."""
        if self._cached[0] != age:
            self._cached = age, tuple([decayed(1.0, age, half_life) for half_life in self._rates.half_lives])
        return self._cached[1]

    # --- answering -----------------------------------------------------------------------------------------------------

    @property
    def half_lives(self) -> tuple[float, ...]:
        """The tracked half-lives in seconds, shortest first."""
        return self._rates.half_lives

    def of(self, constraint: str, half_life: float, node: str | None = None) -> ConstraintRate:
        """The decayed evaluations of a constraint, on a node or on all nodes. O(its cells)."""
        return self._one(constraint, half_life, node)

    def by_node(self) -> dict[str, Pair]:
        """The decayed evaluations of each node, (satisfied, violated), at the shortest half-life. O(cells of rates)."""
        found = {name: rate[:2] for name, rate in self._rates.by_node(self.half_lives[0]).items()}
        now, me = self._now(), self._gossip.node_id
        mine = [found.get(me, (0.0, 0.0)), *(self._left(constraint, now)[0] for constraint in self._waiting)]
        return {**found, me: rates_of(mine)[:2]}

    def evaluated_by(self, node: str) -> set[str]:
        """The constraints with evaluations of a node, old evaluations included. O(cells of rates)."""
        mine = {constraint for constraint in self._waiting if constraint} if node == self._gossip.node_id else set()
        cells = self._gossip.state.rows.each(RATE)
        return mine | {str(cell.key) for cell in cells if cell.replica.node_id == node and cell.key != NODE_KEY}

    def knows_constraint(self, id_: str) -> bool:
        """True if a constraint is active, or was evaluated anywhere."""
        return id_ in self._gossip.state.constraints or id_ in self._ids()

    def knows_node(self, name: str) -> bool:
        """True for this node, and for a node with a row."""
        gossip = self._gossip
        return name == gossip.node_id or any(row.node_id == name for row in gossip.state.rows.clock_mark.entries)

    def report(self, half_life: float | None = None, constraint: str | None = None, node: str | None = None) -> RatesReport:
        """The decayed evaluations at a half-life (default: the shortest), of a constraint or node or of all.

        Raises `ConstraintCrdtError`, naming the tracked half-lives, for another half-life. O(cells of rates).
        """
        rates = self._rates
        half_life = rates.half_lives[0] if half_life is None else rates.tracked(half_life)
        ids = sorted(self._ids() | set(self._gossip.state.constraints)) if constraint is None else [constraint]
        every = [self._one(id_, half_life, node) for id_ in ids]
        return RatesReport(
            half_life=half_life,
            tracked=rates.half_lives,
            total=_report(None, half_life, self._summed(every)),
            constraints=tuple(each for each in every if constraint is not None or self._is_listed(each)),
            untracked_by=tuple(name for name in rates.untracked_by(half_life) if node in (None, name)),
            ahead=rates.ahead,
            worst_skew=rates.worst_skew,
            steps_back=rates.steps_back,
        )

    def _ids(self) -> set[str]:
        """The constraints with evaluations on any node."""
        return {*self._rates.recorded, *(constraint or NODE_KEY for constraint in self._waiting)}

    def _is_listed(self, rate: ConstraintRate) -> bool:
        return rate.constraint in self._gossip.state.constraints or rate.satisfied + rate.violated > NOTHING_LEFT

    def _one(self, id_: str, half_life: float, node: str | None) -> ConstraintRate:
        """The decayed evaluations of a constraint, counts in memory included."""
        by_node = self._rates.by_node(half_life, id_)
        constraint = id_ or None
        if constraint in self._waiting:
            me = self._gossip.node_id
            waiting = self._left(constraint, self._now())[self._rates.half_lives.index(half_life)]
            by_node[me] = rates_of([by_node.get(me, Rates())[:2], waiting])
        return _report(constraint, half_life, {name: rate for name, rate in sorted(by_node.items()) if node in (None, name)})

    def _summed(self, every: list[ConstraintRate]) -> dict[str, Rates]:
        parts: dict[str, list[Pair]] = {}
        for each in every:
            for name, rate in each.by_node.items():
                parts.setdefault(name, []).append((rate.satisfied, rate.violated))
        return {name: rates_of(pairs) for name, pairs in sorted(parts.items())}


def _report(constraint: str | None, half_life: float, by_node: Mapping[str, Rates]) -> ConstraintRate:
    whole = rates_of(rate[:2] for rate in by_node.values())
    per_minute = 60.0 * LN2 / half_life
    return ConstraintRate(
        constraint=constraint,
        satisfied=whole.satisfied,
        violated=whole.violated,
        violated_share=whole.violated_share,
        satisfied_per_minute=whole.satisfied * per_minute,
        violated_per_minute=whole.violated * per_minute,
        by_node={
            name: NodeRate(satisfied=rate.satisfied, violated=rate.violated, violated_share=rate.violated_share)
            for name, rate in by_node.items()
        },
    )


SAMPLE_EVERY = 5.0
"""Seconds between two samples of a constraint, at least."""

SAMPLED_AT_ONCE = 200
"""Constraints sampled in a turn of the loop. They take some milliseconds. Of more constraints each is sampled less often."""

SAMPLES = 500
"""Samples kept of a constraint, at most."""

FEWEST_SAMPLES = 20
ALL_SAMPLES = 200_000
"""Samples kept of all constraints together, unless each has `FEWEST_SAMPLES` at most: 32 bytes each."""

TURNS = 100
"""Turns kept of a constraint on a node, at most: the latest."""

FLAPPING_LOOKED_AT = 200
"""Constraints among which those that flap are found, at most: those told of last."""

ANEW = 1_000_000_000
"""The least ns between the beginnings of two violations of a constraint on a node, told without a turn between them."""

LATEST_TURNS = 500
"""The latest turns of all constraints on all nodes, kept in their order."""

ALL_TURNS = 50_000
"""Turns kept in all. Those of the constraint without a turn for the longest time are dropped first."""


class _Course:
    """The samples of a constraint, oldest first."""

    __slots__ = ("limits", "margins", "times", "values", "variable")

    def __init__(self) -> None:
        self.variable = ""
        self.times = array("q")
        self.values = array("d")
        self.limits = array("d")
        self.margins = array("d")

    def append(self, time: int, verdict: NodeVerdict, most: int) -> None:
        """Keep a sample. A sample like the last two moves the last in time."""
        margin = nan if verdict.margin is None else verdict.margin
        value = _number(dict(verdict.inputs).get(verdict.variable or "", ""))
        limit = _limit(value, margin, verdict.share)
        self.variable = verdict.variable or self.variable
        if len(self.times) > 1 and all(map(_same, self._at(-1)[1:], (value, limit, margin))) and self._is_flat():
            self.times[-1] = time
            return
        for kept, new in zip(self._columns(), (time, value, limit, margin), strict=True):
            kept.append(new)
        if len(self.times) > most:
            self._thin()

    def samples(self, most: int) -> Iterator[tuple[int, float, float, float]]:
        """`most` of the samples as (time, value, limit, margin): of several in a row that with the lowest margin, and the last."""
        count = len(self.times)
        step, index = max(1, -(-count // most)), count - 1
        for start in range(0, count, step):
            index = min(range(start, min(start + step, count)), key=self._rank)
            yield self._at(index)
        if index < count - 1:
            yield self._at(count - 1)

    def _columns(self) -> tuple[array, ...]:  # type: ignore[type-arg]  # of integers and of numbers
        return self.times, self.values, self.limits, self.margins

    def _at(self, index: int) -> tuple[int, float, float, float]:
        return self.times[index], self.values[index], self.limits[index], self.margins[index]

    def _is_flat(self) -> bool:
        return all(map(_same, self._at(-2)[1:], self._at(-1)[1:]))

    def _rank(self, index: int) -> float:
        margin = self.margins[index]
        return float("inf") if isnan(margin) else margin

    def _thin(self) -> None:
        half = len(self.times) // 2 & ~1
        kept = [min(index, index + 1, key=self._rank) for index in range(0, half, 2)] + [*range(half, len(self.times))]
        for column in self._columns():
            column[:] = array(column.typecode, [column[index] for index in kept])


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return nan
    return number if isfinite(number) else nan


def _same(one: float, other: float) -> bool:
    return one == other or (isnan(one) and isnan(other))


def _limit(value: float, margin: float, share: float | None) -> float:
    """The threshold, from the value, the margin and its share of the threshold; NaN if these do not tell it."""
    if isnan(margin):
        return nan
    size = 0.0 if share is None else abs(margin / share) if share else abs(value)
    found = {limit for limit in (value + margin, value - margin) if abs(abs(limit) - size) <= 1e-9 * max(size, abs(value))}
    return found.pop() if len(found) == 1 else nan


class Verdicts(Protocol):
    """Knows the verdicts of this node."""

    @property
    def ids(self) -> list[str]:
        """The constraints judged on this node."""

    def verdict(self, id_: str) -> NodeVerdict | None:
        """The verdict on a constraint as of now, with the values and the margin."""


class VerdictHistory:
    """The course of the verdicts on each constraint, in memory."""

    def __init__(self, gossip: GossipNode, verdicts: Verdicts, now: Callable[[], int], is_seen: Callable[[str], bool]) -> None:
        """`now`: the time in ns since the epoch. `is_seen`: whether a node is live."""
        self._gossip = gossip
        self._verdicts = verdicts
        self._now = now
        self._is_seen = is_seen
        self._courses: dict[str, _Course] = {}
        self._due: deque[str] = deque()
        self._most = SAMPLES
        self._turns: OrderedDict[str, dict[str, deque[NodeVerdict]]] = OrderedDict()
        self._held = 0
        self._latest: deque[tuple[str, str, NodeVerdict]] = deque(maxlen=LATEST_TURNS)
        self._fresh: deque[Cell] = deque(maxlen=ALL_TURNS)
        """Cells not read yet: of many that come together most are of no interest later."""
        gossip.state.rows.watch(VERDICT, self._told)
        self._fresh.extend(gossip.state.rows.each(VERDICT))

    async def sample(self) -> None:
        """Sample some constraints of this node; in the next calls those that were left out."""
        self._take_fresh()
        if not self._due:
            ids = self._verdicts.ids
            self._most = max(FEWEST_SAMPLES, min(SAMPLES, ALL_SAMPLES // max(1, len(ids))))
            for gone in self._courses.keys() - set(ids):
                del self._courses[gone]
            self._due.extend(ids)
        now = self._now()
        for _ in range(min(SAMPLED_AT_ONCE, len(self._due))):
            id_ = self._due.popleft()
            verdict = self._verdicts.verdict(id_)
            if verdict is not None and verdict.margin is not None:
                self._courses.setdefault(id_, _Course()).append(now, verdict, self._most)

    def report(self, id_: str, points: int) -> SeriesReport:
        """The course of a constraint, with so many samples at most. Raises `KeyError` if inactive and without a course."""
        self._take_fresh()
        course, turns = self._courses.get(id_, _Course()), self._turns.get(id_, {})
        if not course.times and not turns and id_ not in self._gossip.state.constraints:
            raise UnknownName(id_, "constraint")
        return SeriesReport(
            id=id_,
            node=self._gossip.node_id,
            variable=course.variable or None,
            points=tuple(
                SeriesPoint(time=time, value=_known(value), limit=_known(limit), margin=_known(margin))
                for time, value, limit, margin in course.samples(points)
            ),
            nodes=tuple(
                NodeSpells(node=node, live=self._is_seen(node), spells=tuple(_spells(turns[node]))) for node in sorted(turns)
            ),
        )

    def flapping(self, after: int, least: int) -> Iterator[tuple[int, str, str]]:
        """The violations since a time, with constraint and node, of those with `least` at least. O(constraints told of since)."""
        self._take_fresh()
        for id_, by_node in islice(reversed(self._turns.items()), FLAPPING_LOOKED_AT):
            for node, turns in by_node.items():
                began = sum(each.since >= after and each.state is VerdictState.VIOLATED for each in turns)
                if began >= least:
                    yield began, id_, node

    def latest(self, most: int) -> list[TurnReport]:
        """The latest turns of all nodes, so many at most, in the order of their beginnings."""
        self._take_fresh()
        found = sorted(self._latest, key=lambda each: each[2].since)[-most:]
        return [
            TurnReport(
                constraint=id_, node=node, state=turn.state.value, since=turn.since, values=dict(turn.inputs), margin=turn.margin,
                margin_share=turn.share, margin_variable=turn.variable, reason=turn.reason,
            )
            for id_, node, turn in found
        ]  # fmt: skip

    def _told(self, _old: Cell | None, new: Cell | None) -> None:
        if new is not None:
            self._fresh.append(new)

    def _take_fresh(self) -> None:
        while self._fresh:
            cell = self._fresh.popleft()
            verdict, _ = read_verdict(cell)
            if verdict is not None:
                self._take(str(cell.key), cell.replica.node_id, verdict)
        while self._held > ALL_TURNS:
            _, dropped = self._turns.popitem(last=False)
            self._held -= sum(map(len, dropped.values()))

    def _take(self, id_: str, node: str, verdict: NodeVerdict) -> None:
        by_node = self._turns.setdefault(id_, {})
        self._turns.move_to_end(id_)
        turns = by_node.setdefault(node, deque())
        if turns and verdict.since < turns[-1].since:
            return  # of a former life
        if turns and (verdict.since == turns[-1].since or (verdict.state is turns[-1].state and not _is_again(turns[-1], verdict))):
            # A violation keeps its beginning from pending on; a new life restates the old spell.
            if verdict.since == turns[-1].since and (verdict.inputs or not turns[-1].inputs):
                if verdict.state is not turns[-1].state:
                    self._latest.append((id_, node, verdict))
                turns[-1] = verdict
            return
        turns.append(verdict)
        self._latest.append((id_, node, verdict))
        self._held += 1
        if len(turns) > TURNS:
            turns.popleft()
            self._held -= 1


def _is_again(before: NodeVerdict, verdict: NodeVerdict) -> bool:
    """True for a new violation. Of many turns a node tells some only, so the end of the former may be missing."""
    return verdict.state is VerdictState.VIOLATED and verdict.since - before.since >= ANEW


def _known(number: float) -> float | None:
    return None if isnan(number) else number


def _spells(turns: deque[NodeVerdict]) -> Iterator[SpellReport]:
    """Each state from its beginning to that of the next."""
    for index, turn in enumerate(turns):
        until = turns[index + 1].since if index + 1 < len(turns) else None
        yield SpellReport(
            state=turn.state.value, since=turn.since, until=until, values=dict(turn.inputs), margin=turn.margin, reason=turn.reason
        )


SHORT = 1000
"""Bytes of a request that fits into a packet of any path, with headers: 1,280 bytes (RFC 8200)."""

SIZES_FOR = 600.0
"""Seconds for which a request counts."""

FEWEST_FAILURES = 3
FAILURES_KEPT = 64
SIZED_PEERS = 1000
"""Peers whose requests are compared, at most."""


class SizeLimit(NamedTuple):
    """A length above which requests do not reach a peer."""

    peer: str
    passed: int
    """The longest request that it answered lately, in bytes."""
    failed: int
    """The shortest request that it did not, in bytes."""
    tries: int
    """Requests that it did not."""


class _Sizes(NamedTuple):
    """The requests to a peer: pairs of a time and a length in bytes."""

    answered: deque[tuple[float, int]]
    """Each longer than those after it."""
    failed: deque[tuple[float, int]]


class MessageSizes:
    """Which lengths of requests reach each peer. Times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._peers: OrderedDict[str, _Sizes] = OrderedDict()

    def requested(self, peer: str, size: int, now: float, *, answered: bool) -> None:
        """A request of this length got its answer, or none in time."""
        sizes = self._of(peer)
        if answered:
            while sizes.answered and sizes.answered[-1][1] <= size:
                sizes.answered.pop()
            sizes.answered.append((now, size))
        elif size > SHORT:
            sizes.failed.append((now, size))

    def limits(self, now: float) -> Iterator[SizeLimit]:
        """The peers that no long message reaches, while short ones do. O(peers)."""
        for peer, (answered, failed) in sorted(self._peers.items()):
            for kept in (answered, failed):
                while kept and now - kept[0][0] > SIZES_FOR:
                    kept.popleft()
            if len(failed) >= FEWEST_FAILURES and answered and answered[-1][0] > failed[0][0]:
                longest, shortest = answered[0][1], min(size for _, size in failed)
                if longest < shortest:
                    yield SizeLimit(peer, longest, shortest, len(failed))

    def _of(self, peer: str) -> _Sizes:
        sizes = self._peers.get(peer)
        if sizes is None:
            if len(self._peers) >= SIZED_PEERS:
                self._peers.popitem(last=False)
            sizes = self._peers[peer] = _Sizes(deque(), deque(maxlen=FAILURES_KEPT))
        return sizes


# --- the history of rules ----------------------------------------------------------------------------------------------


KINDS: Final[Mapping[int, str]] = {
    ADD: "constraint", SWITCH: "switch", PARAMETER: "parameter", SILENCE: "silence", ALERT_RULE: "alert rule"
}  # fmt: skip
"""The words for the kinds of cells of which changes are kept."""


class _Version(NamedTuple):
    """The state of a subject at a time."""

    lines: tuple[str, ...]
    """A line for each field, or for each of several definitions."""


_ABSENT: Final = _Version(())


class Restored(NamedTuple):
    """The result of a revert for a constraint."""

    id: str
    definition: Definition | None
    """None: it is removed."""
    present: tuple[Definition, ...]
    """The definitions in force before."""


class RestoredSetting(NamedTuple):
    """What a revert makes of a setting of a parameter, or of an alert rule."""

    subject: Subject
    value: Scalar | None
    """Of a rule its text. None: it is removed."""
    stands: bool
    """It has a value before."""


class RestoredSilence(NamedTuple):
    """What a revert makes of a silence or an acknowledgement."""

    silence: Silence
    again: bool
    """False: it ends."""


class RevertPlan(NamedTuple):
    """The steps of a revert."""

    constraints: list[Restored]
    switches: list[tuple[str, Switch | None]]
    """Constraints to be disabled as before, or with None enabled; `ALL` for all."""
    notes: list[str]
    """Sentences on parts that cannot be as before."""
    settings: Sequence[RestoredSetting] = ()
    silences: Sequence[RestoredSilence] = ()

    def subjects(self) -> list[Subject]:
        """What the revert changes, for the history."""
        ids = [each.id for each in self.constraints]
        switched = [Subject(SWITCH, id_) for id_ in dict.fromkeys([*ids, *(id_ for id_, _ in self.switches)])]
        return [*(Subject(ADD, id_) for id_ in ids), *switched, *(each.subject for each in self.settings)]

    def write(self, state: ConstraintState, *, at: int, actor: str, node: Replica) -> None:
        """Write the settings, rules and silences."""
        for (kind, key), value, _ in self.settings:
            if kind == ALERT_RULE:
                text = str(value or "")
                state.alert_rules.put(key, text, at=at, actor=cut(actor, ACTOR_BYTES), node=node, removed=value is None)
                continue
            name, *selector = split_key(key, 2)
            if value is None:
                state.parameters.unset(name, "".join(selector) or None, node=node, at=at)
            else:
                state.parameters.set(name, value, "".join(selector) or None, node=node, at=at)
        for silence, again in self.silences:
            if again:
                state.silences.put(msgspec.structs.replace(silence.value, at=at), node=node)
            else:
                state.silences.end(silence, at=at, actor=cut(actor, ACTOR_BYTES), node=node)

    def report(self) -> RevertReport:
        """The steps, not done yet."""
        steps = []
        for each in self.constraints:
            change = "removed" if each.definition is None else "replaced" if each.present else "added"
            steps.append(RevertStep(id=each.id, change=change))
        steps += [RevertStep(id=id_, change="enabled" if switch is None else "disabled") for id_, switch in self.switches]
        for subject, value, stands in self.settings:
            change = "removed" if value is None else "replaced" if stands else "added"
            steps.append(RevertStep(id=_subject_text(subject), change=change, kind=KINDS[subject.kind]))
        for silence, again in self.silences:
            change = "in force again" if again else "ended"
            steps.append(RevertStep(id=silence.id, change=change, kind="silence"))
        return RevertReport(done=False, steps=tuple(steps), notes=tuple(self.notes))


class RuleHistory:
    """The history of rules, from the audit and the changes in the state; and the steps of a revert."""

    def __init__(self, gossip: GossipNode) -> None:
        self._state = gossip.state
        self._now = gossip.time.now

    # --- reading ---------------------------------------------------------------------------------------------------------

    def entries(self, id_: str | None = None, since: int = 0) -> list[HistoryEntry]:
        """The changes in the order of time, the newest last: of a subject, or all. `since`: ns since the epoch.

        O(changes and entries of the audit).
        """
        return [self.entry(each) for each in self.find(id_, since).values()]

    def find(self, id_: str | None = None, since: int = 0) -> "dict[str, RecordedChange | AuditEntry | HistoryEntry]":
        """The items that `entries` shows, each with an id, in their order."""
        state, found = self._state, list[tuple[int, Dot, str, RecordedChange | AuditEntry | HistoryEntry]]()
        changes, told = list(state.changes), set[tuple[Replica, int]]()
        for change in changes:
            told.add((change.dot.replica, change.time))
            if change.time >= since and id_ in (None, change.subject.key, _subject_text(change.subject)):
                found.append((change.time, change.dot, f"{change.subject.kind}-{change.subject.key}", change))
        named = False
        for entry in state.audit:
            if entry.time >= since and (entry.dot.replica, entry.time) not in told and id_ in (None, entry.subject):
                found.append((entry.time, entry.dot, entry.subject, entry))
                named |= entry.operation == "add"
        if id_ is not None and not named:
            found += [(time, dot, id_, each) for time, dot, each in self._unaudited(id_) if time >= since]
        found.sort(key=lambda each: each[:3])
        return {f"{time:019d}-{dot.replica}-{dot.seq}-{subject}": each for time, dot, subject, each in found}

    def entry(self, each: "RecordedChange | AuditEntry | HistoryEntry") -> HistoryEntry:
        """The entry of an item from `find`."""
        if isinstance(each, RecordedChange):
            return self._entry(each)
        return self._first(each) if isinstance(each, AuditEntry) else each

    def _entry(self, change: RecordedChange) -> HistoryEntry:
        before, after = self._version(change.subject, change.before), self._after(change)
        return HistoryEntry(
            time=change.time,
            actor=change.actor,
            node=change.dot.replica.node_id,
            operation=change.operation,
            kind=KINDS.get(change.subject.kind, "rule"),
            subject=_subject_text(change.subject),
            version=change.number,
            why=change.why,
            before=before.lines,
            after=after.lines,
        )

    def _after(self, change: RecordedChange) -> _Version:
        """The version that a change made: the state that the next change found, else the present state."""
        later = [each for each in self._state.changes.of(change.subject) if each.number == change.number + 1]
        if later:
            return self._version(change.subject, later[0].before)
        if self._state.changes.number(change.subject) > change.number:
            return _Version(("not kept any more",))
        return self._present(change.subject)

    def _present(self, subject: Subject) -> _Version:
        return self._version(subject, before_change(self._state.rows, subject).values)

    def _version(self, subject: Subject, values: Sequence[bytes]) -> _Version:
        if subject.kind == ADD:
            definitions = list(dict.fromkeys(each.definition for each in read_definitions(subject.key, values)))
            if len(definitions) == 1:
                return _Version(tuple(f"{name}: {text}" for name, text in definition_texts(definitions[0]).items()))
            texts = (", ".join(f"{name}: {text}" for name, text in definition_texts(each).items()) for each in definitions)
            return _Version(tuple(f"definition {place}: {text}" for place, text in enumerate(texts, start=1)))
        if subject.kind == SWITCH:
            return _Version((_switch_text(read_switch(subject.key, values)),))
        if subject.kind == PARAMETER:
            return _Version(tuple(filter(None, map(_parameter_text, values))))
        if subject.kind == ALERT_RULE:
            return _Version(_rule_lines(read_rule(values)))
        return _Version(tuple(_value_text(value) for value in values))

    def _first(self, entry: AuditEntry) -> HistoryEntry:
        """The entry of a change without a version before, or of membership."""
        subject, version, after = Subject(ADD, entry.subject), None, _ABSENT
        if entry.operation == "add" and not any(each.number == 1 for each in self._state.changes.of(subject)):
            version, after = 1, self._earliest(subject)
        return HistoryEntry(
            time=entry.time,
            actor=entry.actor,
            node=entry.dot.replica.node_id,
            operation=entry.operation,
            kind="constraint" if version else "change",
            subject=entry.subject,
            version=version,
            why=entry.why,
            before=(),
            after=after.lines,
        )

    def _earliest(self, subject: Subject) -> _Version:
        """The first version that is kept."""
        changes = self._state.changes.of(subject)
        return self._version(subject, changes[0].before) if changes else self._present(subject)

    def _unaudited(self, id_: str) -> Iterator[tuple[int, Dot, HistoryEntry]]:
        """The addition of a constraint of which the audit has no entry by its name, such as an addition in a batch."""
        state, subject = self._state, Subject(ADD, id_)
        changes = state.changes.of(subject)
        if changes:
            additions = read_definitions(id_, changes[0].before) if changes[0].number <= 2 else []
        else:
            additions = [*state.constraints.additions(id_), *state.constraints.expired(id_)]
        for each in additions:
            if each.added_at is None:
                continue
            cause = (changes[0].first or Cause()) if changes else state.audit.cause(each.dot)
            yield (
                each.added_at,
                each.dot,
                HistoryEntry(
                    time=each.added_at,
                    actor=cause.actor,
                    node=cause.node,
                    operation="add",
                    kind="constraint",
                    subject=id_,
                    version=1,
                    why=cause.why,
                    before=(),
                    after=tuple(f"{name}: {text}" for name, text in definition_texts(each.definition).items()),
                ),
            )

    # --- reverting -------------------------------------------------------------------------------------------------------

    def undo(self, id_: str) -> RevertPlan:
        """Undo the last change of a constraint or of its switch. Raises `NotKept` if no change is kept."""
        found = [*self._state.changes.of(Subject(ADD, id_)), *self._state.changes.of(Subject(SWITCH, id_))]
        if not found:
            raise NotKept(f"no earlier version of {id_} is kept: edit it, or remove it", field="id")
        last = max(found, key=lambda each: (each.time, each.dot))
        if last.subject.kind == SWITCH:
            return RevertPlan([], [(id_, self._in_force(id_, last.before))], [])
        return self._plan_of(id_, last.before)

    def to_version(self, id_: str, version: int) -> RevertPlan:
        """Make a version of a definition the present version again. Raises `NotKept` for a version that is not kept."""
        before = self._version_values(Subject(ADD, id_), version)
        return self._is_present(id_, version) if before is None else self._plan_of(id_, before)

    def setting(self, subject: Subject, version: int | None = None) -> RevertPlan:
        """Undo the last change of a setting of a parameter or of an alert rule, or go back to a version of it.

        Raises `NotKept` for what is not kept.
        """
        name = _subject_text(subject)
        if version is not None:
            before = self._version_values(subject, version)
            if before is None:
                return self._is_present(name, version)
        else:
            changes = self._state.changes.of(subject)
            if not changes:
                raise NotKept(f"no earlier version of {KINDS[subject.kind]} {name} is kept", field="id")
            before = max(changes, key=lambda each: (each.time, each.dot)).before
        return RevertPlan([], [], [], settings=self._settings(subject, before))

    def silence(self, id_: str) -> RevertPlan:
        """Undo the last change of a silence or an acknowledgement: end it, or have it in force again. Raises `UnknownName`."""
        silences, now = self._state.silences, self._now()
        in_force = [each for each in silences.active(now) if each.id == id_]
        ended = [each for each in silences.ended(now) if each.id == id_]
        if not in_force and not ended:
            raise UnknownName(id_, "silence", field="id")
        found = [RestoredSilence(each, again=False) for each in in_force] or [RestoredSilence(each, again=True) for each in ended]
        return RevertPlan([], [], [], silences=found[:1])

    def _is_present(self, name: str, version: int) -> RevertPlan:
        return RevertPlan([], [], [f"version {version} of {name} is the present one"])

    def _settings(self, subject: Subject, values: Sequence[bytes]) -> list[RestoredSetting]:
        """The step that gives a setting or a rule its former value; none where it has that."""
        read = read_rule if subject.kind == ALERT_RULE else read_setting
        then, now = read(values), read(before_change(self._state.rows, subject).values)
        same = (type(then), then) == (type(now), now)
        return [] if same else [RestoredSetting(subject, then, now is not None)]

    def _version_values(self, subject: Subject, version: int) -> Sequence[bytes] | None:
        """The wire values of a version; None for the present one. Raises `NotKept` for a version that is not kept."""
        id_, changes = _subject_text(subject), self._state.changes.of(subject)
        before = {each.before for each in changes if each.number == version + 1}
        if len(before) == 1:
            return before.pop()
        present = self._state.changes.number(subject)
        if version == present and not before:
            return None
        kept = sorted({each.number - 1 for each in changes})
        told = f"there are {', '.join(map(str, [*kept, present]))}" if kept else "no earlier version is kept"
        raise NotKept(f"there is no version {version} of {id_} alone: {told}", field="to")

    def to_time(self, at: int) -> RevertPlan:
        """Put all constraints, switches, parameters, alert rules and silences back to their state at a time, in ns since the epoch.

        Raises `NotKept` for a time of which not all changes are kept, and `ConstraintCrdtError` for a time that has not come.
        """
        state = self._state
        if at > self._now():
            raise ConstraintCrdtError("that time has not come yet", field="time")
        if at < state.changes.complete_since:
            since = datetime.fromtimestamp(state.changes.complete_since / 1e9, tz=UTC).isoformat(timespec="seconds")
            raise NotKept(f"not all changes are kept from so long ago: they are since {since}", field="time")
        first = self._first_changes(at)
        constraints, switches, notes = list[Restored](), list[tuple[str, Switch | None]](), list[str]()
        settings = list[RestoredSetting]()
        for subject, change in sorted(first.items()):
            if subject.kind == SWITCH:
                then = self._in_force(subject.key, change.before)
                now = self._now_disabled(subject.key)
                if _words(then) != _words(now):
                    switches.append((subject.key, then))
            elif subject.kind in (PARAMETER, ALERT_RULE):
                settings += self._settings(subject, change.before)
            elif subject.kind == ADD:
                plan = self._plan_of(subject.key, change.before, at)
                constraints += plan.constraints
                notes += plan.notes
        for id_ in sorted(state.constraints):
            if Subject(ADD, id_) not in first:
                plan = self._without_later(id_, at)
                constraints += plan.constraints
                notes += plan.notes
        notes += self._unkept_rules(at, first)
        return RevertPlan(constraints, switches, notes, settings, self._silences(at))

    def _unkept_rules(self, at: int, kept: Collection[Subject]) -> Iterator[str]:
        """Sentences on the alert rules that changed since a time and have no change among those kept."""
        rules = self._state.alert_rules
        for name in rules:
            rule = rules.of(name)
            if rule is not None and rule.at > at and Subject(ALERT_RULE, name) not in kept:
                yield f"alert rule {name} stays: no earlier version of it is kept"

    def _first_changes(self, at: int) -> dict[Subject, RecordedChange]:
        """The first change of each subject after a time."""
        first = dict[Subject, RecordedChange]()
        for change in self._state.changes:
            if change.time > at:
                first.setdefault(change.subject, change)
        return first

    def _silences(self, at: int) -> list[RestoredSilence]:
        """The silences that were in force at a time and have ended early since, and those that are new since."""
        silences, now = self._state.silences, self._now()
        then, by_now = silences.at(at), silences.active(now)
        dots = {each.dot for each in by_now}
        again = [RestoredSilence(each, again=True) for each in then if each.dot not in dots and each.value.until > now]
        return again + [RestoredSilence(each, again=False) for each in by_now if each.value.at > at]

    def _without_later(self, id_: str, at: int) -> RevertPlan:
        """A constraint of which no change is kept, without the definitions added after a time."""
        additions = self._state.constraints.additions(id_)
        if any(each.added_at is None for each in additions):
            return RevertPlan([], [], [f"{id_} stays: the time at which it was added is not known"])
        earlier = [each for each in additions if (each.added_at or 0) <= at]
        if len(earlier) == len(additions):
            return RevertPlan([], [], [])
        newest = max(earlier, key=lambda each: (each.added_at or 0, each.dot), default=None)
        return self._plan(id_, None if newest is None else newest.definition, [])

    def _plan_of(self, id_: str, values: Sequence[bytes], by: int | None = None) -> RevertPlan:
        """The plan to put a constraint back to its former state, without the definitions that were added after the time `by`."""
        additions = read_definitions(id_, values)
        if values and not additions:
            return RevertPlan([], [], [f"{id_} stays: what it was cannot be read here"])
        additions = [each for each in additions if by is None or each.added_at is None or each.added_at <= by]
        definitions = dict.fromkeys(each.definition for each in additions)
        newest = max(additions, key=lambda each: each.added_at or 0, default=None)
        notes = [f"{id_} had {len(definitions)} definitions in conflict: the last of them counts"] if len(definitions) > 1 else []
        ends = None if newest is None else newest.definition.expires_at
        if ends is not None and ends <= self._now():
            return self._plan(id_, None, [*notes, f"the end of what {id_} was has passed"])
        return self._plan(id_, None if newest is None else newest.definition, notes)

    def _plan(self, id_: str, definition: Definition | None, notes: list[str]) -> RevertPlan:
        present = self._state.constraints.definitions(id_)
        if present == (() if definition is None else (definition,)):
            return RevertPlan([], [], notes)
        return RevertPlan([Restored(id_, definition, present)], [], notes)

    def _in_force(self, id_: str, values: Sequence[bytes]) -> Switch | None:
        switch = read_switch(id_, values)
        return switch if switch and switch.disabled and (switch.until is None or switch.until > self._now()) else None

    def _now_disabled(self, id_: str) -> Switch | None:
        switches = self._state.switches
        return switches.of_all if id_ == ALL else switches.disabling(id_) if id_ in list(switches) else None


def definition_texts(definition: Definition) -> dict[str, str]:
    """The fields of a definition as people write them, without those with their defaults."""
    ends = definition.expires_at
    texts = {
        "when": definition.when or "-",
        "severity": definition.severity.value,
        "about": definition.about or "",
        "on": str(definition.selector),
        "until": "" if ends is None else datetime.fromtimestamp(ends / 1e9, tz=UTC).isoformat(timespec="seconds"),
        "for": show_duration(definition.for_ / SECOND) if definition.for_ else "",
        "clear after": show_duration(definition.clear_after / SECOND) if definition.clear_after else "",
        "clear when": definition.clear_when or "",
        "if unknown": "" if definition.if_unknown is IfUnknown.UNKNOWN else definition.if_unknown.value,
        "max age": "" if definition.max_age is None else show_duration(definition.max_age / SECOND),
        "scope": "" if definition.scope is Scope.NODE else definition.scope.value,
        "mode": "" if definition.mode is Mode.ENFORCE else definition.mode.value,
        "each": definition.each or "",
        "meaning": "needs a later version of constraint-crdt" if definition.meaning else "",
    }
    return {name: text for name, text in texts.items() if text}


def _words(switch: Switch | None) -> tuple[int | None, str] | None:
    """The end and the reason of a disabling; None for an enabled constraint."""
    return None if switch is None else (switch.until, switch.why)


def _rule_lines(text: str | None) -> tuple[str, ...]:
    """The fields of an alert rule, as its text has them."""
    try:
        table = {} if text is None else msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        return (str(text),)
    return tuple(f"{key}: {msgspec.json.encode(value).decode()}" for key, value in sorted(table.items()))


def _switch_text(switch: Switch | None) -> str:
    if switch is None or not switch.disabled:
        return "enabled"
    end = (
        "" if switch.until is None else f" until {datetime.fromtimestamp(switch.until / 1e9, tz=UTC).isoformat(timespec='seconds')}"
    )
    return f"disabled{end}{f': {switch.why}' if switch.why else ''}"


def _subject_text(subject: Subject) -> str:
    """The name of a subject as people write it."""
    if subject.kind == SWITCH and subject.key == ALL:
        return "all constraints"
    if subject.kind == PARAMETER:
        name, *selector = split_key(subject.key, 2)
        return f"{name} on {selector[0]}" if selector and selector[0] else name
    return subject.key


def _parameter_text(value: bytes) -> str:
    """The value of a setting as people write it; empty for a removed parameter."""
    try:
        found = read_scalar(msgspec.msgpack.decode(msgspec.msgpack.decode(value, type=ParameterValue).value))
    except msgspec.DecodeError:
        return _value_text(value)
    return "" if found is None else f"value: {literal(found)}"


def _value_text(value: bytes) -> str:
    """The wire value of a kind of cells that is not known here."""
    try:
        return msgspec.json.encode(msgspec.msgpack.decode(value)).decode()
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError):
        return value.hex()
