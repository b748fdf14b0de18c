"""Lifetimes by type, in the vocabulary of the Rust crate 0.5: constraints that end by time, by load, by use, or when told to.

A constraint of a type has the id `TYPE:NAME` and ends after the default life of its type. Load and use shorten that life:

    life = default x max(0.1, 1 - log2(uses + 1) / 100) / max(1, load)

Rules:

- The end by time is that of any constraint: agreed in hybrid time by the whole fleet. (In the crate it never leaves its node.)
- Only `evaluate` ends a constraint earlier. That is a removal, so it reaches every node, and a concurrent renewal wins.
- A use is a recorded evaluation of the constraint, on any node.
- The audit of the fleet has the cause of an early end, so other nodes tell the same cause while the audit has the entry. Of an end
  by time every node knows by itself.
- Ids of a type count, by any writer: the type is in the id.
"""

import enum
import math
from collections import OrderedDict
from typing import Final, NamedTuple

from constraint_crdt.crdt.clock import Dot
from constraint_crdt.errors import ConstraintCrdtError, UnknownConstraint
from constraint_crdt.protocol.gossip_node import GossipNode

SECOND: Final = 1_000_000_000
"""ns."""

ENDS_KEPT: Final = 10_000
"""Ended constraints that a node remembers, the latest."""

ACTOR: Final = "lifetimes"
"""Who ends a constraint, in the audit."""

LEAST_SHARE: Final = 0.1
"""Of the default life that is left by any use."""


class TtlType(enum.StrEnum):
    """The subject of a constraint, which decides how long it lives."""

    TILE = "tile"
    TASK = "task"
    AGENT = "agent"
    BEARING = "bearing"
    TRUST = "trust"

    @property
    def default_lifespan_secs(self) -> float:
        """The life without load or use: an hour, 5 min, 1 min, 30 s, a day."""
        return _LIVES[self]

    @property
    def decay_half_life(self) -> float:
        """Seconds after which a violation should weigh half, for a decaying counter."""
        return _HALF_LIVES[self]

    def lifespan_secs(self, load: float = 1.0, uses: int = 0) -> float:
        """The life at this load, 1 for a usual load, and after so many uses. Raises `ConstraintCrdtError` for a negative number."""
        if not (load >= 0 and math.isfinite(load)) or uses < 0:
            raise ConstraintCrdtError(f"load and uses are 0 or more, not {load} and {uses}")
        share = max(LEAST_SHARE, 1.0 - math.log2(uses + 1) / 100.0)
        return self.default_lifespan_secs * share / max(1.0, load)


_LIVES: Final = {
    TtlType.TILE: 3600.0,
    TtlType.TASK: 300.0,
    TtlType.AGENT: 60.0,
    TtlType.BEARING: 30.0,
    TtlType.TRUST: 86_400.0,
}
_HALF_LIVES: Final = {
    TtlType.TILE: 3600.0,
    TtlType.TASK: 300.0,
    TtlType.AGENT: 30.0,
    TtlType.BEARING: 60.0,
    TtlType.TRUST: 7200.0,
}


class DeathContext(enum.StrEnum):
    """The cause of an end."""

    TIME_EXPIRED = "time expired"
    LOAD_KILLED = "load killed"
    """The life at the load of an evaluation was over."""
    USE_EXHAUSTED = "use exhausted"
    """The life after so many uses was over, without load."""
    EXPLICIT_TERMINATION = "explicit termination"
    """It was removed."""


class TtlState(NamedTuple):
    """A constraint with a lifetime, now."""

    remaining_secs: float
    """Until its end by time; 0 after the end."""
    context: DeathContext | None = None
    """The cause of its end; None while it is active."""

    @property
    def is_active(self) -> bool:
        """True before the end."""
        return self.context is None


class TtlCrdtConstraint(NamedTuple):
    """An active constraint with a lifetime."""

    id: str
    ttl_type: TtlType
    created: int
    """Its last addition or renewal, ns since the epoch by the clock of its writer."""
    expires: int
    """Its end by time, ns since the epoch."""
    uses: int


class EmergenceEvent(NamedTuple):
    """Constraints have ended since the last evaluation."""

    before: int
    """Active constraints with a lifetime at the last evaluation."""
    after: int
    """The same now."""
    expired_ids: tuple[str, ...]
    """The ended ones, in order."""

    @property
    def delta(self) -> int:
        """By how many the active ones changed, additions included."""
        return self.after - self.before

    @property
    def expired_count(self) -> int:
        """How many have ended."""
        return len(self.expired_ids)


class TtlCrdtNode:
    """The constraints with a lifetime of a node's state."""

    def __init__(self, node: GossipNode) -> None:
        """`node`: reads and writes go through it."""
        self.node = node
        """The node."""
        self._ended: OrderedDict[str, DeathContext] = OrderedDict()
        self._before = set(self._active())

    def __repr__(self) -> str:
        return f"TtlCrdtNode({self.node.node_id}, {self.active_count} active, {self.expired_count} ended)"

    def add_constraint(self, ttl_type: TtlType, name: str | int) -> str:
        """Make a constraint active for the life of its type, or renew it; returns its id. Raises as `GossipNode.add_constraint`."""
        id_ = f"{ttl_type.value}:{name}"
        self.node.add_constraint(id_, ttl=ttl_type.default_lifespan_secs, at=self.node.time.stamp())
        self._ended.pop(id_, None)
        self._before.add(id_)
        return id_

    def terminate(self, id_: str) -> None:
        """End a constraint now. Raises `UnknownConstraint` for an inactive constraint."""
        self._end(id_, DeathContext.EXPLICIT_TERMINATION)

    def constraints(self) -> list[TtlCrdtConstraint]:
        """The active constraints with a lifetime, by id. O(constraints)."""
        return [self._constraint(id_) for id_ in sorted(self._active())]

    @property
    def active_count(self) -> int:
        """How many are active. O(constraints)."""
        return len(self._active())

    @property
    def expired_count(self) -> int:
        """Ended constraints that this node remembers, up to the last evaluation."""
        return len(self._ended)

    def state(self, id_: str) -> TtlState:
        """A constraint now. Raises `UnknownConstraint` for a constraint that was never active here, or is forgotten."""
        if id_ in self._active():
            return TtlState((self._constraint(id_).expires - self.node.time.now()) / SECOND)
        context = self._ended.get(id_) or self._context(id_)
        if context is None:
            raise UnknownConstraint(id_)
        return TtlState(0.0, context)

    def evaluate(self, load: float = 1.0) -> list[EmergenceEvent]:
        """End the constraints whose life at this load is over. An event if any have ended since the last call, else none.

        `load`: 1 for a usual load; a lower load prolongs nothing. Raises `ConstraintCrdtError` for a negative load, and where this
        node may not remove constraints.
        """
        now = self.node.time.now()
        for each in self.constraints():
            age = (now - each.created) / SECOND
            if age >= each.ttl_type.lifespan_secs(1.0, each.uses):
                self._end(each.id, DeathContext.USE_EXHAUSTED)
            elif age >= each.ttl_type.lifespan_secs(load, each.uses):
                self._end(each.id, DeathContext.LOAD_KILLED)
        before, after = self._before, set(self._active())
        ended = sorted(before - after)
        for id_ in ended:
            self._remember(id_, self._ended.get(id_) or self._context(id_) or DeathContext.EXPLICIT_TERMINATION)
        for id_ in after & self._ended.keys():
            del self._ended[id_]
        self._before = after
        return [EmergenceEvent(len(before), len(after), tuple(ended))] if ended else []

    def _active(self) -> list[str]:
        return [id_ for id_ in self.node.state.constraints if _type_of(id_) is not None and self._expiry(id_) is not None]

    def _expiry(self, id_: str) -> int | None:
        """The end by time of the definition that lasts longest; None without an end."""
        ends = [each.definition.expires_at for each in self.node.state.constraints.additions(id_)]
        return max((end for end in ends if end is not None), default=None) if None not in ends else None

    def _constraint(self, id_: str) -> TtlCrdtConstraint:
        ttl_type, expires = _type_of(id_) or TtlType.TILE, self._expiry(id_) or 0
        created = max((each.added_at or 0 for each in self.node.state.constraints.additions(id_)), default=0)
        created = created or expires - round(ttl_type.default_lifespan_secs * SECOND)
        return TtlCrdtConstraint(id_, ttl_type, created, expires, sum(self.node.state.metrics.constraint(id_)))

    def _end(self, id_: str, context: DeathContext) -> None:
        node = self.node
        since = Dot(node.replica, node.local.written)
        node.remove_constraint(id_)
        node.local.note(ACTOR, context.value, id_, node.local.time.stamp(), since)
        self._remember(id_, context)

    def _remember(self, id_: str, context: DeathContext) -> None:
        self._ended[id_] = context
        self._ended.move_to_end(id_)
        if len(self._ended) > ENDS_KEPT:
            self._ended.popitem(last=False)

    def _context(self, id_: str) -> DeathContext | None:
        """The cause of an end, from the state: the expiry of the standing definition, or the last entry of the audit."""
        state = self.node.state
        if state.constraints.expired(id_):
            return DeathContext.TIME_EXPIRED
        told = [each.operation for each in state.audit if each.subject == id_ and each.actor == ACTOR]
        return DeathContext(told[-1]) if told and told[-1] in set(DeathContext) else None


def _type_of(id_: str) -> TtlType | None:
    """The type in an id; None for an id without a type."""
    kind, separator, _ = id_.partition(":")
    return TtlType(kind) if separator and kind in _LIVES else None
