"""A small world for the rules of budgets: nodes with rows that copy each other whole, true time, and clocks within the bound.

It drives the `Escrow` of the package over plain dictionaries in place of rows, messages and stores, so a history costs some
milliseconds and a state can be compared. The judge counts, in true time, what processes may believe to hold: until their hold
ends by the clock of their own machine, also after their node was killed.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec

from constraint_crdt.crdt.clock import SECOND, Dot, Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.loans import OUT_OF_TURN_WAIT, TURN, Contacts, Escrow, Waiting
from constraint_crdt.types.budgets import NO_HOLDS, NO_LEDGER, Budgets, BudgetValue, Head, Holds, Known, Ledger, mark_of

NAME = "dock"


class TinyRow(msgspec.Struct, frozen=True):
    """A row of a replica at a version."""

    seq: int = 0
    definition: tuple[int, BudgetValue] | None = None
    ledger: Ledger | None = None
    holds: Holds | None = None
    ends: frozenset[Replica] = frozenset()


State = dict[Replica, TinyRow]


class TinyBudgets:
    """The view over a state, in place of `Budgets`."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.moved: set[str] = set()

    def names(self) -> list[str]:
        return [NAME] if any(row.definition for row in self.state.values()) else []

    def heads(self, name: str) -> list[Head]:
        cells = {Dot(replica, row.definition[0]): row.definition[1] for replica, row in self.state.items() if row.definition}
        over: dict[Replica, int] = {}
        for value in cells.values():
            for dot in value.overwrites:
                over[dot.replica] = max(dot.seq, over.get(dot.replica, 0))
        return [Head(dot, value) for dot, value in sorted(cells.items()) if over.get(dot.replica, 0) < dot.seq]

    def over(self) -> set[Replica]:
        return {life for row in self.state.values() for life in row.ends}

    def known(self, name: str) -> Known:
        heads, over = self.heads(name), self.over()
        nodes = {share.node for head in heads for share in head.value.shares}
        named = {share.replica for head in heads for share in head.value.shares}
        lives = {
            node: frozenset(
                each
                for each, row in self.state.items()
                if each.node_id == node and row.seq and each not in over and (heads[0].value.lease or each in named)
            )
            for node in nodes
        }
        ledgers = {each: row.ledger for each, row in self.state.items() if row.ledger}
        holds = {each: row.holds for each, row in self.state.items() if row.holds}
        return Known(heads, ledgers, holds, lives)

    def other_lives(self, life: Replica) -> list[Replica]:
        over = self.over()
        return sorted(each for each in self.state if each.node_id == life.node_id and each != life and each not in over)

    def define(
        self,
        name: str,
        limit: int,
        *,
        lease: int,
        over: list[Replica],
        at: int,
        node: Replica,
        without: Iterable[str] = (),
        removed: bool = False,
    ) -> BudgetValue:
        heads = self.heads(name)
        gone = {each for head in heads for each in head.value.without}.union(without) - {life.node_id for life in over}
        real = SimpleNamespace(known=self.known)
        chosen = [life for life in over if life.node_id not in gone]
        value = Budgets._value(real, limit, lease, heads, chosen, sorted(gone), at, name)  # type: ignore[arg-type]
        row = self.state.get(node, TinyRow())
        self.state[node] = msgspec.structs.replace(row, seq=row.seq + 1, definition=(row.seq + 1, value))
        return value

    def put(self, name: str, *, node: Replica, ledger: Ledger | None = None, holds: Holds | None = None) -> None:
        row = self.state.get(node, TinyRow())
        changed = {key: value for key, value in (("ledger", ledger), ("holds", holds)) if value is not None}
        self.state[node] = msgspec.structs.replace(row, seq=row.seq + 1, **changed)


class TinyLocal:
    """A node, in place of `LocalReplica`."""

    authority = None
    may_count = True

    @staticmethod
    def heard(_: object) -> tuple[()]:
        return ()

    def __init__(self, world: "TinyWorld", name: str, state: State, life: int, *, vouched: bool) -> None:
        self._world = world
        self.node_id = name
        self.replica = Replica(name, life)
        self.goes_on = vouched
        self.state = SimpleNamespace(
            budgets=TinyBudgets(state),
            rows=SimpleNamespace(
                clock_mark=SimpleNamespace(entries=state), seq=lambda each: state[each].seq if each in state else 0
            ),
            retirements=SimpleNamespace(
                is_over=lambda life: any(life in row.ends for row in state.values()), ended=lambda _: False, end_lives=self._end
            ),
        )
        self.time = SimpleNamespace(own=lambda: world.clock(name), max_skew=world.skew, in_doubt=False)
        self.edge = SimpleNamespace(steady=None)

    def _end(self, lives: Iterable[Replica], *, node: Replica) -> None:
        state = self.state.budgets.state
        row = state.get(node, TinyRow())
        state[node] = msgspec.structs.replace(row, seq=row.seq + 1, ends=row.ends | set(lives))

    def __enter__(self) -> Replica:
        if not self.goes_on:
            before = self.replica
            self._world.lives += 1
            self.replica, self.goes_on = Replica(self.node_id, self._world.lives), True
            self._end([before], node=self.replica)
        return self.replica

    def __exit__(self, *_: object) -> None:
        pass


class TinyNode:
    """A machine: its node if it runs, its disk, its backups, and its clock."""

    def __init__(self, name: str, offset: int) -> None:
        self.name, self.offset = name, offset
        self.local: TinyLocal | None = None
        self.escrow: Escrow | None = None
        self.disk: tuple[State, int, bool] = ({}, 0, True)
        self.synced: tuple[State, int, bool] = ({}, 0, True)
        """What the disk has while the node runs, in a world whose disks lag."""
        self.backups: list[tuple[State, int]] = []


class Violated(AssertionError):
    """More is held than the limit."""


class TinyWorld:
    """Nodes, true time and the judge."""

    def __init__(
        self,
        offsets: dict[str, int],
        *,
        limit: int,
        lease: int,
        skew: int,
        shares_over: Iterable[str] | None = None,
        lagging: bool = False,
        turn: int = 0,
        contacts: bool = False,
    ) -> None:
        """`lagging`: a killed node loses the holds granted, and the releases, since its last other write. `turn`: see `Escrow`.
        `contacts`: nodes note who speaks to them, and move rights to those only.
        """
        self.lagging, self.lost, self.turn, self.contacts = lagging, 0, turn, contacts
        self.now, self.lives, self.skew, self.lease = 1000 * SECOND, 0, skew, lease
        self.nodes = {name: TinyNode(name, offset) for name, offset in offsets.items()}
        self.holders: list[tuple[str, int, int, int, int]] = []
        """(node, life, id, amount, until by the clock of the node)."""
        self.gone: set[str] = set()
        self.definitions: dict[Dot, BudgetValue] = {}
        self.truth: dict[str, tuple[int, bytes]] = {}
        """By participant the life that wrote a ledger last, and the definitions it goes by."""
        self.peak = self.taken = 0
        for name in self.nodes:
            self.lives += 1
            self._run(name, {Replica(name, self.lives): TinyRow(1)}, self.lives, vouched=True)
        first = next(iter(self.nodes))
        for name in self.nodes:
            self.copy(name, first)
        self.define(first, limit, shares_over or list(self.nodes))
        heads = self.budgets(first).heads(NAME)
        self.agreed = [heads[0].value]
        self._judge()

    # --- machines --------------------------------------------------------------------------------------------------------

    def set_clock(self, name: str, offset: int) -> None:
        self._judge()
        self.nodes[name].offset = offset
        self._judge()

    def clock(self, name: str) -> int:
        return self.now + self.nodes[name].offset

    def budgets(self, name: str) -> TinyBudgets:
        local = self.nodes[name].local
        assert local is not None
        found: TinyBudgets = local.state.budgets
        return found

    def up(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.local is not None]

    def _run(self, name: str, state: State, life: int, *, vouched: bool) -> None:
        node = self.nodes[name]
        node.local = TinyLocal(self, name, dict(state), life, vouched=vouched)
        node.escrow = Escrow(node.local, self.turn)  # type: ignore[arg-type]
        if self.contacts:
            node.escrow.contacts = Contacts(lambda: self.now, lambda _: 0, lambda _: None)

    def stop(self, name: str) -> None:
        """Kill a node. All of its writes are on disk, but the last in a world whose disks lag."""
        node = self.nodes[name]
        if node.local is not None:
            if not self.lagging:
                self.sync(name)
            self.lost += node.synced[0] != node.local.state.budgets.state
            node.disk = node.synced
            node.local = node.escrow = None

    def sync(self, name: str) -> None:
        """All writes of a node come on its disk."""
        node = self.nodes[name]
        if node.local is not None and node.escrow is not None:
            node.synced = (dict(node.local.state.budgets.state), node.local.replica.incarnation, node.local.goes_on)
            if node.local.state.budgets.names():
                node.escrow.synced(NAME, node.escrow.kept(NAME))

    def backup(self, name: str) -> None:
        local = self.nodes[name].local
        if local is not None:
            self.nodes[name].backups.append((dict(local.state.budgets.state), local.replica.incarnation))

    def start(self, name: str, disk: str) -> None:
        """`kept`: vouched for. `doubtful`: not. `old`: the first backup. `lost`: empty."""
        node = self.nodes[name]
        if node.local is not None or name in self.gone:
            return
        state, life, goes_on = node.disk
        if disk == "lost":
            self.lives += 1
            self._run(name, {Replica(name, self.lives): TinyRow(1)}, self.lives, vouched=True)
        elif disk == "old" and node.backups:
            self._run(name, *node.backups[0], vouched=False)
        else:
            self._run(name, state, life, vouched=goes_on and disk == "kept")
        self.tend(name)

    # --- what nodes do -----------------------------------------------------------------------------------------------------

    def copy(self, sender: str, to: str) -> State | None:
        """The whole state of a node arrives at another."""
        source, reader = self.nodes[sender].local, self.nodes[to].local
        if source is None or reader is None:
            return None
        kept, life = self.nodes[sender].synced[0].get(source.replica), source.replica
        if source.state.budgets.state.get(life, TinyRow(0)).seq > (kept.seq if kept is not None else 0) or not source.goes_on:
            self.sync(sender)  # no message has a write of its sender that is not on disk
        self.arrive(to, source.state.budgets.state)
        escrow = self.nodes[to].escrow
        if escrow is not None and escrow.contacts is not None:
            escrow.contacts.met(sender)
        return dict(source.state.budgets.state)

    def arrive(self, to: str, state: State) -> None:
        reader = self.nodes[to].local
        if reader is None:
            return
        mine = reader.state.budgets.state
        own = reader.replica
        if own in state and state[own].seq > (mine[own].seq if own in mine else 0):
            reader.goes_on = False  # others know more of this life
        for replica, row in state.items():
            if replica not in mine or row.seq > mine[replica].seq:
                mine[replica] = row

    @contextmanager
    def acting(self, name: str, *, waits: bool = True) -> Iterator[Escrow | None]:
        """`waits`: for the disk."""
        escrow = self.nodes[name].escrow
        with suppress(ConstraintCrdtError):
            yield escrow
        if waits:
            self.sync(name)
        self._note(name)
        self._judge()

    def tend(self, name: str) -> None:
        with self.acting(name) as escrow:
            if escrow is not None:
                escrow.tend()

    def take(self, name: str, amount: int = 1) -> bool:
        taken = False
        with self.acting(name, waits=not self.lagging) as escrow:
            if escrow is not None:
                hold = escrow.acquire(NAME, amount, "someone")
                if not (self.lagging and escrow.is_sure(NAME, hold)):
                    self.sync(name)
                life = self.nodes[name].local.replica.incarnation  # type: ignore[union-attr]
                self.holders.append((name, life, hold.id, amount, hold.until))
                taken = True
                self.taken += 1
        return taken

    def renew(self, name: str, place: int = 0) -> None:
        mine = self._of(name)
        if mine:
            each = mine[place % len(mine)]
            with self.acting(name) as escrow:
                if escrow is not None and self.nodes[name].local.replica.incarnation == each[1]:  # type: ignore[union-attr]
                    hold = escrow.renew(NAME, each[2])
                    self.holders[self.holders.index(each)] = (*each[:4], hold.until)

    def release(self, name: str, place: int = 0) -> None:
        """The process ends its hold, whether its node runs or not."""
        mine = self._of(name)
        if mine:
            each = mine[place % len(mine)]
            self.holders.remove(each)
            with self.acting(name, waits=not self.lagging) as escrow:
                if escrow is not None and self.nodes[name].local.replica.incarnation == each[1]:  # type: ignore[union-attr]
                    escrow.release(NAME, each[2])

    def _of(self, name: str) -> list[tuple[str, int, int, int, int]]:
        return [each for each in self.holders if each[0] == name]

    def want(self, name: str, amount: int) -> None:
        with self.acting(name) as escrow:
            if escrow is not None:
                escrow.wait(NAME, Waiting(amount, self.clock(name)) if amount else None)
                escrow.tend()

    def define(self, name: str, limit: int, nodes: Iterable[str] | None = None, without: Iterable[str] = ()) -> None:
        with self.acting(name) as escrow:
            if escrow is not None and (escrow.budgets.names() or not self.definitions):  # a second root is another budget
                escrow.define(NAME, limit, lease=self.lease, nodes=nodes if nodes is not None else self.up(), without=without)

    def retire(self, name: str, dead: str) -> None:
        """A machine is gone for good, and an operator says so. Without a lease the word is also that all it did is known."""
        self.stop(dead)
        if not self.lease:
            self.arrive(name, self.nodes[dead].disk[0])
        self.gone.add(dead)
        if self.nodes[name].local is not None and name != dead and self.budgets(name).names():
            self.define(name, self.budgets(name).known(NAME).limit, without=[dead])

    # --- the judge ---------------------------------------------------------------------------------------------------------

    def _note(self, name: str) -> None:
        local = self.nodes[name].local
        if local is None:
            return
        for replica, row in local.state.budgets.state.items():
            if row.definition is not None:
                self.definitions[Dot(replica, row.definition[0])] = row.definition[1]
        row = local.state.budgets.state.get(local.replica)
        if row is not None and row.ledger is not None:
            self.truth[name] = (local.replica.incarnation, row.ledger.mark)
            heads = local.state.budgets.heads(NAME)
            if self.lease and mark_of(heads) == row.ledger.mark:
                nodes = {each.node for head in heads for each in head.value.shares}
                nodes -= {each for head in heads for each in head.value.without}
                quiet = max([head.value.made for head in heads if head.value.without], default=0) + self.lease + 2 * self.skew
                if self.clock(name) >= quiet and all(
                    node in self.truth and self.truth[node][1] == row.ledger.mark for node in nodes
                ):
                    self.agreed = [head.value for head in heads]

    @property
    def limit(self) -> int:
        """The lowest limit that all participants have come to go by."""
        if not self.lease:
            return max(value.limit for value in self.definitions.values())
        return min(value.limit for value in self.agreed)

    def _judge(self) -> None:
        # A process whose hold has ended knows it: a clock that is set back does not give it back.
        self.holders = [each for each in self.holders if not each[4] or self.clock(each[0]) < each[4]]
        held = sum(each[3] for each in self.holders)
        self.peak = max(self.peak, held)
        if hasattr(self, "agreed") and held > self.limit:
            raise Violated(f"{held} are held and the limit is {self.limit}")


# --- drawn histories ---------------------------------------------------------------------------------------------------------


def history(seed: int, lease: int = 3 * SECOND, steps: int = 260) -> TinyWorld:  # noqa: C901 - a branch for each event
    """A history drawn from a seed: each has some kinds of events only. Raises `Violated`."""
    rng, skew = Random(seed), SECOND
    most = skew // 2 - 1
    nodes = rng.randint(2, 4)
    offsets = {f"n{place}": rng.randint(-most, most) for place in range(nodes)}
    turn, contacts = Random(f"turn of {seed}").choice([0, TURN, SECOND]), Random(f"contacts of {seed}").random() < 0.5
    world = TinyWorld(offsets, limit=rng.randint(1, 4), lease=lease, skew=skew, turn=turn, contacts=contacts)
    names, old, cut = list(world.nodes), list[State](), dict[str, int]()
    hot = rng.sample(names, rng.randint(1, nodes))
    gap = rng.choice([0.02, 0.1, 0.25]) * SECOND
    shares = {
        "copy": 8, "tend": 3, "take": 6, "renew": rng.choice([0, 3, 5]), "release": rng.choice([0, 2, 5]), "old": 1,
        "stop": rng.choice([0, 0, 1, 2]), "start": 4, "backup": 1, "define": rng.choice([0, 0, 0.5, 1]),
        "retire": rng.choice([0, 0.1]), "clock": 1 if lease else 0, "cut": 0.7, "heal": rng.choice([0.2, 1]),
        "jump": rng.choice([0, 1]),
    }  # fmt: skip
    disks = rng.choice([["kept"], ["kept", "doubtful"], ["doubtful", "old"], ["kept", "doubtful", "old", "lost"]])
    for _ in range(steps):
        world.now += int(rng.expovariate(1 / gap))
        event = rng.choices(list(shares), list(shares.values()))[0]
        one, other = rng.choice(names), rng.choice(names)
        if event == "copy" and one != other and cut.get(one) == cut.get(other):
            state = world.copy(one, other)
            if state and rng.random() < 0.1:
                old.append(state)
            world.tend(other)
        elif event == "old" and old:
            world.arrive(one, rng.choice(old))
        elif event == "take":
            one, amount = rng.choice(hot), rng.choice([1, 1, 2])
            world.want(one, 0 if world.take(one, amount) else amount)
        elif event == "retire" and nodes > 2 and not world.gone and one != other and one in world.up():
            world.retire(one, other)
        elif event == "define" and one in world.up():
            world.define(one, rng.randint(0, 5))
        elif event in ("renew", "release"):
            getattr(world, event)(one, rng.randint(0, 9))
        elif event in ("tend", "stop", "backup"):
            getattr(world, event)(one)
        elif event == "start":
            world.start(one, rng.choice(disks))
        elif event == "clock":
            world.set_clock(one, rng.randint(-most, most))
        elif event == "jump":
            world.now += rng.choice([SECOND, 2 * SECOND, lease, lease + 2 * skew])
        elif event == "cut":
            cut = {name: rng.randint(0, 1) for name in names}
        elif event == "heal":
            cut = {}
    return world


def lagging_history(seed: int, steps: int = 200) -> TinyWorld:
    """A history of nodes that are killed while their last holds and releases are not on their disks, and started again at once."""
    rng, skew = Random(seed), SECOND
    offsets = {f"n{place}": rng.randint(-(skew // 2 - 1), skew // 2 - 1) for place in range(rng.randint(1, 2))}
    world = TinyWorld(offsets, limit=rng.randint(1, 3), lease=3 * SECOND, skew=skew, lagging=True)
    names, gap = list(world.nodes), rng.choice([0.02, 0.1]) * SECOND
    shares = {"take": 10, "release": rng.choice([6, 10]), "renew": rng.choice([0, 1, 3]), "kill": rng.choice([0.5, 1, 2]),
              "copy": rng.choice([0, 0.5]), "wait": rng.choice([0, 0.3])}  # fmt: skip
    for _ in range(steps):
        world.now += int(rng.expovariate(1 / gap))
        event, one = rng.choices(list(shares), list(shares.values()))[0], rng.choice(names)
        if event == "take":
            world.take(one)
        elif event in ("release", "renew"):
            getattr(world, event)(one, rng.randint(0, 9))
        elif event == "kill":
            world.stop(one)
            world.start(one, "kept")
        elif event == "copy" and len(names) > 1:
            world.copy(one, names[one == names[0]])
        elif event == "wait":
            world.now += rng.choice([SECOND, 2 * SECOND, 3 * SECOND])
    return world


# --- all histories of a small world ------------------------------------------------------------------------------------------


def copied(world: TinyWorld) -> TinyWorld:
    """An independent copy of a world."""
    other = TinyWorld.__new__(TinyWorld)
    vars(other).update(vars(world))
    other.holders, other.gone, other.truth = list(world.holders), set(world.gone), dict(world.truth)
    other.definitions, other.nodes = dict(world.definitions), {}
    for name, node in world.nodes.items():
        twin = other.nodes[name] = TinyNode(name, node.offset)
        twin.disk, twin.synced, twin.backups = node.disk, node.synced, list(node.backups)
        if node.local is not None and node.escrow is not None:
            twin.local = TinyLocal(other, name, dict(node.local.state.budgets.state), 0, vouched=node.local.goes_on)
            twin.local.replica = node.local.replica
            twin.escrow = Escrow(twin.local, other.turn)  # type: ignore[arg-type]
            twin.escrow._kept = {key: list(kept) for key, kept in node.escrow._kept.items()}
            twin.escrow._most = dict(node.escrow._most)
            for budget, waiting in node.escrow._waiting.items():
                twin.escrow.wait(budget, waiting)
    return other


def key_of(world: TinyWorld) -> tuple[Any, ...]:
    """Equal for worlds with the same future."""
    nodes: list[tuple[Any, ...]] = []
    for name, node in world.nodes.items():
        if node.local is None or node.escrow is None:
            nodes.append((name, None))
        else:
            state = frozenset(node.local.state.budgets.state.items())
            kept = tuple((key, *found) for key, found in sorted(node.escrow._kept.items()))
            waiting = tuple(node.escrow._waiting.items())
            nodes.append((name, state, node.local.replica, node.local.goes_on, waiting, kept, tuple(node.escrow._most.items())))
    return world.now, tuple(nodes), frozenset(world.holders), tuple(world.agreed), tuple(sorted(world.truth.items()))


def successors(world: TinyWorld, tick: int) -> Iterator[tuple[str, TinyWorld]]:
    """Each world that a single event leads to."""
    names = list(world.nodes)
    for name in names:
        after = copied(world)
        if any(each[0] == name for each in after.holders):
            after.release(name)
        else:
            after.want(name, 0 if after.take(name) else 1)
        yield f"use {name}", after
        for disk in ("doubtful", "old"):
            after = copied(world)
            after.stop(name)
            after.start(name, disk)
            yield f"start {name} {disk}", after
        for other in names:
            if other != name:
                after = copied(world)
                after.copy(name, other)
                after.tend(other)
                yield f"copy {name} {other}", after
    after = copied(world)
    after.now += tick
    for name in names:
        after.tend(name)
    yield "tick", after


def explore(world: TinyWorld, depth: int, tick: int = SECOND) -> int:
    """Visit every world within `depth` events; returns their number. Raises `Violated`."""
    for name in world.nodes:
        world.backup(name)
    seen, level = {key_of(world)}, [world]
    for _ in range(depth):
        following: list[TinyWorld] = []
        for each in level:
            for _, after in successors(each, tick):
                key = key_of(after)
                if key not in seen:
                    seen.add(key)
                    following.append(after)
        level = following
    return len(seen)


# --- all histories of a small world, to their end ------------------------------------------------------------------------------


def canonical(world: TinyWorld, left: int | None) -> tuple[Any, ...]:
    """Equal for worlds with the same future, of which there are finitely many: shifted in time, and without what has no effect.

    - Times count from now. A loan that is over by every clock, and its return, has no effect any more, so they are left out. Of
      the times since when nodes wait, only the order counts after `OUT_OF_TURN_WAIT`.
    - Versions of a row, and the ids of loans, are counted among those that some node has; equal versions count as one.
    - The holds of a node have an effect on that node and on the judge only, so they are left out of the rows that others have.
    """
    now, ended = world.now, world.now - world.skew - world.skew // 2
    locals_ = [node.local for node in world.nodes.values() if node.local is not None]
    rows = {(replica, row.seq): row for local in locals_ for replica, row in local.state.budgets.state.items()}
    loans: dict[Replica, set[int]] = {}
    waits = {row.holds.since for row in rows.values() if row.holds is not None}
    waits.update(each.since for node in world.nodes.values() if node.escrow is not None for each in node.escrow._waiting.values())
    for (replica, _), row in rows.items():
        loans.setdefault(replica, set()).update(each.id for each in (row.ledger or NO_LEDGER).loans if each.until > ended)
    ids = {replica: {id_: place for place, id_ in enumerate(sorted(found))} for replica, found in loans.items()}
    old = now - world.skew - world.skew // 2 - OUT_OF_TURN_WAIT
    order = {each: place for place, each in enumerate(sorted(each for each in waits if each < old))}
    since = {each: ("long ago", order[each]) if each < old else ("ago", now - each) for each in waits} | {0: ("no", 0)}
    shapes: dict[tuple[Replica, int], tuple[int, Any]] = {}
    last: dict[Replica, tuple[int, Any]] = {}
    for replica, seq in sorted(rows):
        ledger, holds = rows[replica, seq].ledger or NO_LEDGER, rows[replica, seq].holds or NO_HOLDS
        lent = [(ids[replica][each.id], each.to, each.amount, each.until - now) for each in ledger.loans if each.until > ended]
        given = [Replica(each.node, each.life) for each in holds.returned]
        back = [(owner, ids[owner][each.id]) for owner, each in zip(given, holds.returned, strict=True) if each.id in ids[owner]]
        told = ledger.share, ledger.mark, ledger.phase, ledger.admitted, ledger.acks, tuple(lent)
        shape = told, holds.level, since[holds.since], tuple(back)
        version, before = last.get(replica, (-1, None))
        last[replica] = shapes[replica, seq] = (version + (shape != before), shape)
    nodes = []
    for node in world.nodes.values():
        if node.local is not None and node.escrow is not None:
            state = node.local.state.budgets.state
            holds = state[node.local.replica].holds or NO_HOLDS
            held = tuple((each.amount, each.until - now) for each in holds.holds if each.until > ended)
            waiting = tuple((each.amount, since[each.since]) for each in node.escrow._waiting.values())
            nodes.append((frozenset((replica, shapes[replica, row.seq]) for replica, row in state.items()), held, waiting))
    holders = frozenset((name, amount, until - now) for name, _, _, amount, until in world.holders)
    return tuple(nodes), holders, tuple(sorted(world.truth.items())), left


def moves(
    world: TinyWorld, left: int | None, amounts: dict[str, int], *, broken_off: bool
) -> Iterator[tuple[TinyWorld, int | None]]:
    """Each world that a single event leads to, and how often processes may still begin or end something there.

    An event is a process that acquires or releases, an exchange of two nodes, or a second. A process that waits acquires as soon as
    its node can. `broken_off`: an exchange may end after its first message.
    """
    names = list(world.nodes)
    for place, name in enumerate(names):
        waits = world.nodes[name].escrow._waiting  # type: ignore[union-attr]
        if left != 0 and not waits:
            after = copied(world)
            if any(each[0] == name for each in after.holders):
                after.release(name)
            elif not after.take(name, amounts[name]):
                after.want(name, amounts[name])
            yield after, left and left - 1
        for other in names[place + 1 :]:
            whole = (name, other), (other, name), (name, other)
            for ways in [whole, whole[:1], whole[1:2]] if broken_off else [whole]:
                after = copied(world)
                for one, two in ways:
                    after.copy(one, two)
                    after.tend(two)
                _serve(after, (name, other), amounts)
                yield after, left
    after = copied(world)
    after.now += SECOND
    for name in names:
        after.tend(name)
    _serve(after, names, amounts)
    yield after, left


def _serve(world: TinyWorld, names: Iterable[str], amounts: dict[str, int]) -> None:
    for name in names:
        if world.nodes[name].escrow._waiting and world.take(name, amounts[name]):  # type: ignore[union-attr]
            world.want(name, 0)


def exhaust(world: TinyWorld, uses: int | None, amounts: dict[str, int], *, broken_off: bool) -> int:
    """Visit every world that exchanges and seconds, however many, lead to, where processes acquire and release `uses` times in all.

    `uses` None: however often. `amounts`: of the processes of each node. `broken_off`: see `moves`. The search ends by itself;
    returns the number of worlds. Raises `Violated`.
    """
    seen, level = {hash(canonical(world, uses))}, [(world, uses)]
    while level:
        following = []
        for each, left in level:
            for after, rest in moves(each, left, amounts, broken_off=broken_off):
                key = hash(canonical(after, rest))
                if key not in seen:
                    seen.add(key)
                    following.append((after, rest))
        level = following
    return len(seen)
