"""What became of the constraints whose definitions moved, or that time has ended.

Cells move many at a time, and some move back within one transfer. What people hear of is the difference between two moments at
which the state was whole: a constraint became active, says something else, has expired, or is gone.

Two steps, since a transfer may move more than can be told at once:

- `settle`, at once after each change: what was found about a constraint that is not what it was is forgotten, before anybody
  evaluates or reads it again. Of those that are new, which is where the many come from, no definition is read.
- `take`, some at a time: what is to be told. Constraints come in the order in which they changed, of one change by id, and each
  once: by what it is then, against what was last told of it. So what is back to what it was by then is not told.

An expiry is told once. The time that a node reads may go back a little (a fast peer was lost), and then a constraint that had just
expired is in force again for a moment: that is neither told, nor its second expiry. An extension is, since it says something else.

What a node says of what happens to it: its events, those of constraints and tiles that moved among them.

Rules:

- Of what moved, little is told at once; of much, `AT_ONCE` in one turn of the loop, so that 100,000 constraints that come together
  hold up no exchange and no answer, and who follows the events can keep up. `run` tells the rest, and sleeps while there is none.
- Nothing that moved is left out, or told twice for one change: see `news` and `tiles` for what each is told as, and in which order.
- What is said of a constraint comes after what became of it: "violated" never precedes "added".

What moved on a node since somebody last looked: for screens, which then read again what they show and nothing else.

Two questions are answered. *Is it still as I read it?* The state hash and a version together say so: the version moves when
readings change though the state does not (an expiry, another verdict here, a peer that came or went, or gave evidence). *What
moved?* The constraints and nodes, gathered as cells change, as long as they are few.

What only ages (decayed rates, uptime, sizes) moves neither: whoever shows that reads it again after a while.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from constraint_crdt.alerts.engine import Alert
from constraint_crdt.alerts.rules import AlertRule
from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.digest import StateHash
from constraint_crdt.crdt.kinds import registered
from constraint_crdt.model.events import Notice
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.evaluation import Tally
from constraint_crdt.runtime.events import Event, EventKind, EventStream
from constraint_crdt.runtime.exchange_loop import Exchanger
from constraint_crdt.runtime.persistence import Keeping
from constraint_crdt.runtime.tiles import NodeTiles
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.decay import RATE
from constraint_crdt.types.definition import ADD, Definition, read_addition


class News(NamedTuple):
    """One constraint that is not what it was."""

    kind: EventKind
    constraint: str
    when: str


class DefinitionNews:
    """Follows the definitions of one state."""

    def __init__(self, state: ConstraintState, forget: Callable[[Collection[str]], None] = lambda _: None) -> None:
        """`forget` is told the constraints that are not what they were, as soon as that is seen."""
        self._constraints = state.constraints
        self._rows = state.rows
        self._forget = forget
        self._touched: set[str] = set()
        self._waiting: OrderedDict[str, int | Cell | None] = OrderedDict()
        """The constraints that are to be told of, each with a hash of its definitions when they were settled. Of one that was new
        then, the add in place of it, since most are told before anybody asks for the hash.
        """
        self._listed: dict[str, int] = {}
        """The constraints as they were last told of, each with a hash of its definitions."""
        self._expired: dict[str, int] = {}
        """The same of those whose expiry was told, while any add of them stands."""
        state.rows.watch(ADD, self._moved, bulk=self._came)
        state.constraints.take_expiry_changes()  # has it kept from now on

    def _moved(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is not None:
            self._touched.add(str(cell.key))

    def _came(self, cells: Sequence[Cell]) -> None:
        self._touched.update([str(cell.key) for cell in cells])

    def note(self, ids: Iterable[str]) -> None:
        """Time may have made something else of these constraints."""
        self._touched.update(ids)

    # --- at once -------------------------------------------------------------------------------------------------------

    def settle(self) -> int:
        """Have forgotten what is true no more; returns how many constraints are not what they were at the last call.

        O(constraints that moved).
        """
        if not self._touched:
            return 0
        touched, self._touched = self._touched, set()
        changed: list[str] = []
        for id_ in sorted(touched):
            before, after = self._settled(id_), self._now(id_)
            if before != after:
                self._waiting[id_] = after
                changed.append(id_)
            elif after is None and id_ in self._expired and not self._constraints.expired(id_):
                del self._expired[id_]
        self._forget(changed)
        return len(changed)

    def _settled(self, id_: str) -> int | None:
        """A hash of the definitions that were in force when the constraint was last settled; None: none was."""
        if id_ not in self._waiting:
            return self._listed.get(id_)
        settled = self._waiting[id_]
        if isinstance(settled, Cell):
            settled = self._waiting[id_] = _hash((read_addition(settled).definition,))
        return settled

    def _now(self, id_: str) -> int | Cell | None:
        """The same of those that are in force now; or the add that they come from, of a constraint that is new."""
        if id_ not in self._constraints:
            return None
        if id_ not in self._listed and id_ not in self._waiting and id_ not in self._expired:
            held = self._rows.held(ADD, id_)
            if len(held) == 1:
                return held[0]
        return _hash(self._constraints.definitions(id_))

    # --- some at a time ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """There are constraints that were not looked at yet."""
        return bool(self._waiting or self._touched)

    def take(self, most: int | None = None) -> list[News]:
        """What is new since the last call.

        `most`: look at so many constraints only; there may be more as long as `waiting` is true.
        """
        self.settle()
        count = len(self._waiting) if most is None else min(most, len(self._waiting))
        return [news for _ in range(count) if (news := self._news(*self._waiting.popitem(last=False))) is not None]

    def take_of(self, id_: str) -> News | None:
        """What is new of one constraint."""
        self.settle()
        return self._news(id_, self._waiting.pop(id_)) if id_ in self._waiting else None

    def _news(self, id_: str, settled: int | Cell | None) -> News | None:
        now = self._constraints.definitions(id_)
        before, after = self._listed.get(id_), _hash(now)
        if after is None if isinstance(settled, Cell) else after != settled:
            self._forget((id_,))  # its time ended since
        if after == before:
            if after is None and not self._constraints.expired(id_):
                self._expired.pop(id_, None)
            return None
        if after is None:
            del self._listed[id_]
            return self._ended(id_, before)
        self._listed[id_] = after
        if before is None and self._expired.get(id_) == after:
            return None
        return News(EventKind.ADDED if before is None else EventKind.CHANGED, id_, now[0].when or "")

    def _ended(self, id_: str, before: int | None) -> News | None:
        if not self._constraints.expired(id_):
            self._expired.pop(id_, None)
            return News(EventKind.REMOVED, id_, "")
        told = self._expired.get(id_)
        if told == before or before is None:
            return None
        self._expired[id_] = before
        return News(EventKind.EXPIRED, id_, "")


def _hash(definitions: Sequence[Definition]) -> int | None:
    return hash(tuple(definitions)) if definitions else None


AT_ONCE = 250
"""Constraints, and as many tiles, that are told of in one piece: two pieces fit into what any who follows may be behind."""

_log = logging.getLogger("constraint_crdt.node")


class Announcer:
    """Tells what happens on one node."""

    def __init__(self, events: EventStream, news: DefinitionNews, tiles: NodeTiles, now: Callable[[], int]) -> None:
        """`now`: ns since the epoch."""
        self._events = events
        self._news = news
        self._tiles = tiles
        self._now = now
        self._moved = asyncio.Event()
        self._behind = False

    def publish(self, kind: EventKind, *, constraint: str = "", node: str = "", detail: str = "") -> None:
        """Tell of one thing that happened."""
        if constraint and (news := self._news.take_of(constraint)) is not None:
            self._tell_of(news)
        self._events.publish(Event(kind=kind, time=self._now(), constraint=constraint, node=node, detail=detail))

    def alert(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        """Tell that a rule of the alerts fired, or that what it fired for is over."""
        about = {"node": alert.subject} if rule.kind in ("divergence", "silence") else {"constraint": alert.subject}
        detail = f"{rule.name}: {alert.detail}" if fired else rule.name
        self.publish(EventKind.ALERT if fired else EventKind.ALERT_RESOLVED, detail=detail, **about)

    def health_changed(self, trouble: str | None) -> None:
        """Tell why writes are refused from now on, or that they are taken again (None)."""
        if trouble is None:
            _log.info("writes are taken again")
            self.publish(EventKind.RECOVERED)
        else:
            _log.error("writes are refused: %s", trouble)
            self.publish(EventKind.TROUBLE, detail=trouble)

    # --- what moved ----------------------------------------------------------------------------------------------------

    def moved(self) -> None:
        """Constraints or tiles may have moved: tell of them, all at once if they are few and nobody waits before them."""
        if not self._behind:
            self._tell_some()

    def skip(self) -> None:
        """What moved up to now is no news."""
        self._news.take()
        self._tiles.tell(self._now(), publish=False)

    async def run(self) -> None:
        """Tell what is too much for one turn of the loop, for ever."""
        while True:
            await self._moved.wait()
            await self.finish()

    async def finish(self) -> None:
        """Tell all that moved up to now, and meanwhile."""
        while self._behind:
            await asyncio.sleep(0)  # others get their turn; nothing is waited for
            self._tell_some()

    def _tell_some(self) -> None:
        """Tell of the next ones. Nothing may be awaited in here: whoever is cancelled has told of all that it took."""
        for news in self._news.take(AT_ONCE):
            self._tell_of(news)
        self._tiles.tell(self._now(), AT_ONCE)
        self._behind = self._news.waiting or self._tiles.waiting
        if self._behind:
            self._moved.set()
        else:
            self._moved.clear()

    def _tell_of(self, news: News) -> None:
        kind, id_, when = news
        self._events.publish(Event(kind=kind, time=self._now(), constraint=id_, detail=when))


__all__ = ["MOST_NAMED", "Movement", "Notice"]

MOST_NAMED = 100
"""Constraints, or nodes, that a notice names. If more moved, it names none."""

_ABOUT_A_CONSTRAINT = frozenset((ADD, COUNTS, RATE))


class _Gathered:
    """Names, as long as they are few."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, name: str) -> None:
        if len(self._names) <= MOST_NAMED:
            self._names.add(name)

    def take(self) -> tuple[str, ...] | None:
        names, self._names = self._names, set()
        return tuple(sorted(names)) if len(names) <= MOST_NAMED else None


class Movement:
    """Follows one node. Costs nothing while nobody looks but a call per cell that changes."""

    def __init__(self, gossip: GossipNode, exchanger: Exchanger, tally: Tally, keeping: Keeping) -> None:
        self._gossip = gossip
        self._exchanger = exchanger
        self._tally = tally
        self._keeping = keeping
        self._seen: tuple[object, ...] = ()
        self._version = 0
        self._told: tuple[StateHash, int] | None = None
        self._evidence: dict[str, tuple[int, StateHash | None]] = {}
        self._constraints = _Gathered()
        self._nodes = _Gathered()
        for kind in registered():
            gossip.state.rows.watch(kind, self._cell_moved)

    @property
    def version(self) -> int:
        """Moves when readings change and the state does not. O(live peers)."""
        gossip = self._gossip
        constraints = gossip.state.constraints
        # The end that comes next changes exactly when an end has passed, once the constraints were read at this time.
        seen = (
            len(constraints),
            constraints.next_expiry,
            gossip.tracker.changes,
            self._exchanger.live,
            self._tally.changes,
            self._keeping.trouble,
        )
        if seen != self._seen:
            self._seen = seen
            self._version += 1
        return self._version

    def note(self, constraint: str) -> None:
        """Another thing is to be said of this constraint than before."""
        self._constraints.add(constraint)

    def take(self) -> Notice | None:
        """What moved since the last call; None if nothing did."""
        gossip, version = self._gossip, self.version
        now = gossip.state_hash, version
        if now == self._told:
            return None
        self._told = now
        self._note_peers()
        return self._notice(version, self._constraints.take(), self._nodes.take())

    def now(self) -> Notice:
        """What readings are like now, for whoever begins to look."""
        return self._notice(self.version, (), ())

    def _notice(self, version: int, constraints: tuple[str, ...] | None, nodes: tuple[str, ...] | None) -> Notice:
        gossip = self._gossip
        return Notice(
            hash=gossip.state_hash.hex(),
            constraints_hash=gossip.constraints_hash.hex(),
            version=version,
            constraints=constraints,
            nodes=nodes,
        )

    def _note_peers(self) -> None:
        """See which peers came, went, or gave evidence. O(live peers)."""
        before, tracker = self._evidence, self._gossip.tracker
        self._evidence = {}
        for name in self._exchanger.live:
            peer = tracker.peer(name)
            said = (peer.mark.count if peer and peer.mark else 0, peer.hash if peer else None)
            self._evidence[name] = said
            if before.pop(name, None) != said:
                self._nodes.add(name)
        for name in before:
            self._nodes.add(name)

    def _cell_moved(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        self._nodes.add(cell.replica.node_id)
        if cell.kind in _ABOUT_A_CONSTRAINT and cell.key:
            self._constraints.add(str(cell.key))
