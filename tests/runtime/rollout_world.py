"""Nodes of a fleet with a rollout in virtual time: kills, cuts, commands of people, and a judge of each step.

Which nodes violate the new definition, and from when on, is known to the world alone; nodes see it by what they measure. A tick is
a second: nodes exchange what they know, measure, judge, and look at the rollout.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.judgement import Judge
from constraint_crdt.model import EventKind
from constraint_crdt.operations.constraints import AddConstraint
from constraint_crdt.protocol.gossip_node import GossipNode, exchange
from constraint_crdt.runtime.change_feed import ChangeFeed
from constraint_crdt.runtime.measurement import LatestMeasurements
from constraint_crdt.runtime.rollouts import NodeRollouts
from constraint_crdt.simulation.world import SimRng
from constraint_crdt.types.rollouts import Phase, Rollout

SECOND = 10**9
ZONES = "abc"
STAGES = ("zone=a", "zone=b", "zone=c")
GATE_LASTS = 8
GATE = f"violations == 0 for {GATE_LASTS}s"
TIMEOUT = 60.0
SETTLE = 110
"""Seconds without faults at the end of a history: more than all stages take, or the timeout of one."""

KNOWN_AFTER = 7
"""Seconds after which what a node found is known to all that it is connected with."""

NOTICED_AFTER = 2
"""Seconds after which the end of a link or of a node is noticed."""

OLD, NEW = "v <= 2.0", "v <= 1.0"


class Disk:
    """Takes all writes."""

    trouble: str | None = None

    def durable(self) -> Awaitable[None]:
        return asyncio.sleep(0)


class StagedNode:
    """A node, over its lives."""

    def __init__(self, world: "RolloutWorld", name: str, zone: str) -> None:
        self.world = world
        self.name = name
        self.zone = zone
        self.lives = 0
        self.up = True
        self.gossip = self._born()
        self._start()

    def _renew(self) -> int:
        self.lives += 1
        return self.lives

    def _born(self) -> GossipNode:
        node = GossipNode(
            self.name, now=lambda: self.world.wall, renew=self._renew, fleet="f", steady=lambda: self.world.wall
        )  # fmt: skip
        node.labels = {"zone": self.zone}
        return node

    def _start(self) -> None:
        state, gossip = self.gossip.state, self.gossip
        self.began = self.world.second
        self.values = LatestMeasurements(max_age=30.0)
        self.judge = Judge(
            state.constraints, self.values, lambda: gossip.labels, lambda: self.world.wall, switches=state.switches,
            staged=lambda id_, definitions: state.rollouts.staged(id_, definitions, gossip.labels),
        )  # fmt: skip
        self.feed = ChangeFeed(gossip, Disk(), "o")
        self.feed.definitions.subscribe(self.judge.redefine)
        self.rollouts = NodeRollouts(
            gossip, self.feed, self.judge, others=self, push=lambda: None, publish=self._publish, now=lambda: self.world.wall,
            check_call=lambda: None,
        )  # fmt: skip
        self.rollouts.recall()
        self.feed.write(lambda: gossip.describe("test", labels={"zone": self.zone}))

    def _publish(self, kind: EventKind, *, detail: str, actor: str, by: str, why: str) -> None:
        del actor, by, why
        assert kind is EventKind.ROLLOUT
        self.world.events.append((self.world.second, self.name, detail))

    # What a node knows of the others.

    @property
    def names(self) -> Sequence[str]:
        return sorted({self.name, *self.gossip.state.nodes})

    def is_seen(self, name: str) -> bool:
        return name == self.name or name in self.world.seen_by(self.name)

    def through(self, name: str) -> str | None:
        del name
        return None

    # Its life.

    def kill(self) -> None:
        self.up = False

    def restart(self, *, lost: bool) -> None:
        """It starts again, with its store or without."""
        before = self.gossip
        self.up, self.gossip = True, self._born()
        if not lost:
            self.gossip.merge(before.state)
        self._start()

    def measure(self) -> None:
        """Measure, and judge."""
        self.feed.settle()
        now = self.world.wall
        self.judge.judge(self.judge.renew(self.judge.stale(100), now), now)
        self.values.put({"v": 1.5 if self.world.is_bad(self.name) else 0.5}, now, "test")
        self.judge.judge(self.judge.readers(["v"]), now)

    @property
    def rollout(self) -> Rollout | None:
        return next(iter(self.gossip.state.rollouts), None)

    def definition(self) -> str:
        """The expression that it judges by."""
        state = self.gossip.state
        found = state.rollouts.staged("x", state.constraints.definitions("x"), {"zone": self.zone})
        return " and ".join(str(each.when) for each in found)


@dataclass
class RolloutWorld:
    """A fleet in virtual time, with one rollout of a constraint."""

    seed: int
    faults: bool = True
    commands: bool = True
    bad: Mapping[str, int] | None = None
    """By node the second from which on it violates the new definition; None: drawn."""
    seconds: int = 140
    problems: list[str] = field(default_factory=list)
    events: list[tuple[int, str, str]] = field(default_factory=list)
    reached: list[Mapping[str, frozenset[str]]] = field(default_factory=list)
    """By second the nodes that each node could exchange with."""

    def __post_init__(self) -> None:
        self.rng = SimRng(self.seed)
        self.second = 0
        zones = ZONES + "".join(ZONES[self.rng.below(3)] for _ in range(self.rng.below(3)))
        self.nodes = {f"n{number}": StagedNode(self, f"n{number}", zone) for number, zone in enumerate(zones)}
        self.groups = dict.fromkeys(self.nodes, 0)
        if self.bad is None:
            drawn = [name for name in self.nodes if self.rng.happens(0.2)]
            self.bad = {name: self.rng.below(self.seconds) for name in drawn}
        self.stops: list[tuple[int, str]] = []
        """The stops by people: when, and on which node."""
        self.went_on = False
        self.backs: list[tuple[int, str]] = []
        """When and where it was rolled back."""
        self.lost: dict[str, list[int]] = {}
        """When a node lost its disk, perhaps before it told anybody what it wrote last."""
        self.furthest = 0

    @property
    def wall(self) -> int:
        return (1_000_000 + self.second) * SECOND

    def is_bad(self, name: str) -> bool:
        return self.second >= (self.bad or {}).get(name, 10**9)

    def _reaches(self) -> dict[str, frozenset[str]]:
        up = [name for name, node in self.nodes.items() if node.up]
        return {one: frozenset(each for each in up if self.groups[each] == self.groups[one]) - {one} for one in up}

    def seen_by(self, name: str) -> frozenset[str]:
        """The nodes that a node takes for live: lost ones for a while longer."""
        lately = [each.get(name, frozenset[str]()) for each in self.reached[-NOTICED_AFTER:]]
        return frozenset().union(*lately)

    def run(self) -> None:
        """Let the history happen."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        first = self.nodes["n0"]
        first.feed.write(lambda: first.gossip.add_constraint("x", when=OLD))
        while self.second < self.seconds + SETTLE:
            self.second += 1
            if self.faults:
                self._disturb()
            self.reached.append(self._reaches())
            self._exchange()
            if self.second == 12:
                added = [AddConstraint(id="x", when=NEW)]
                await first.rollouts.begin(added, stages=STAGES, gate=GATE, timeout=TIMEOUT)
            if self.second > 20 and self.commands and self.second < self.seconds:
                await self._command()
            await self._step()
        self._judge_end()

    def _exchange(self) -> None:
        for name, others in self.reached[-1].items():
            for other in sorted(others):
                if self.rng.happens(2.0 / len(others)):
                    exchange(self.nodes[name].gossip, self.nodes[other].gossip)

    async def _step(self) -> None:
        names = [name for name, node in self.nodes.items() if node.up]
        for name in names:
            self.nodes[name].measure()
        for name in names[self.second % len(names) :] + names[: self.second % len(names)]:
            node = self.nodes[name]
            before = node.rollout
            await node.rollouts.step()
            after = node.rollout
            if before is not None and after is not None and after.place != before.place:
                self._judge_step(name, before, after)
            if after is not None:
                self.furthest = max(self.furthest, len(STAGES) if after.phase is Phase.COMPLETE else after.stage)
        for name in names:
            node = self.nodes[name]
            if node.definition() == NEW and ZONES.index(node.zone) > self.furthest:
                self.problems.append(f"{self.second}: {name} judges by the new definition before its stage")

    # --- faults and commands -----------------------------------------------------------------------------------------------

    def _disturb(self) -> None:
        if self.second >= self.seconds:
            self.groups = dict.fromkeys(self.nodes, 0)
            for node in self.nodes.values():
                if not node.up:
                    node.restart(lost=False)
            return
        if self.second < 12:
            return
        if self.rng.happens(0.04):
            self.groups = {name: self.rng.below(2) for name in self.nodes}
        elif self.rng.happens(0.08):
            self.groups = dict.fromkeys(self.nodes, 0)
        for node in self.nodes.values():
            if node.up and self.rng.happens(0.012) and sum(each.up for each in self.nodes.values()) > 2:
                node.kill()
            elif not node.up and self.rng.happens(0.12):
                lost = self.rng.happens(0.2)
                if lost:
                    self.lost.setdefault(node.name, []).append(self.second)
                node.restart(lost=lost)

    async def _command(self) -> None:
        up = [node for node in self.nodes.values() if node.up and node.rollout is not None]
        if not up or not self.rng.happens(0.015):
            return
        node = up[self.rng.below(len(up))]
        rollout = node.rollout
        assert rollout is not None
        what = ("stop", "go_on", "back")[self.rng.below(3)]
        command: Callable[[str], Awaitable[object]] = getattr(node.rollouts, what)
        try:
            await command(rollout.id)
        except ConstraintCrdtError:
            return
        if what == "stop":
            self.stops.append((self.second, node.name))
        self.went_on |= what == "go_on"
        if what == "back":
            self.backs.append((self.second, node.name))

    # --- the judge ---------------------------------------------------------------------------------------------------------

    def _together(self, one: str, other: str, since: int) -> bool:
        """Two nodes could exchange in each second from this one on."""
        return one == other or all(other in each.get(one, ()) for each in self.reached[max(0, since - 1) :])

    def _judge_step(self, by: str, before: Rollout, after: Rollout) -> None:
        onward = (after.phase is Phase.RUNNING and after.stage > before.stage) or after.phase is Phase.COMPLETE
        if not onward or before.phase is not Phase.RUNNING:
            return
        for name, node in self.nodes.items():
            if ZONES.index(node.zone) > before.stage or node.gossip.retired_by is not None:
                continue
            if not any(self._together(by, name, self.second - back) for back in range(NOTICED_AFTER + 1)) and name not in (
                self.reached[-1 - NOTICED_AFTER].get(by, ())
            ):
                self.problems.append(f"{self.second}: {by} went on to {after.place} without {name}")
            bad = (self.bad or {}).get(name, 10**9)
            since = self.second - KNOWN_AFTER
            if bad <= since and since > node.began and self._together(by, name, since):
                self.problems.append(f"{self.second}: {by} went on to {after.place} although {name} violates since {bad}")
        for at, where in self.stops:
            if any(when >= at for when in self.lost.get(where, ())):
                continue
            if not self.went_on and at + KNOWN_AFTER < self.second and self._together(by, where, at):
                self.problems.append(f"{self.second}: {by} went on after the stop at {at} on {where}")

    def _judge_end(self) -> None:
        places = {name: node.rollout and node.rollout.place for name, node in self.nodes.items()}
        hashes = {node.gossip.state.rollouts.__repr__() for node in self.nodes.values()}
        found = self.nodes["n0"].rollout
        if "n0" in self.lost and not any(places.values()):
            return
        if found is None or len(hashes) != 1:
            self.problems.append(f"the nodes do not agree: {places}")
            return
        phase = found.phase
        for node in self.nodes.values():
            reached = ZONES.index(node.zone) <= found.stage
            wanted = NEW if phase is Phase.COMPLETE or (phase is Phase.STOPPED and reached) else OLD
            if node.definition() != wanted:
                self.problems.append(f"{node.name} judges by {node.definition()!r}, and it is {phase.name} at {found.stage}")
        if phase is Phase.RUNNING:
            self.problems.append(f"it still runs: {found.place}, {self.nodes['n0'].rollouts.reports()}")
        told = [name for at, name in self.backs if not any(0 <= when - at <= KNOWN_AFTER for when in self.lost.get(name, ()))]
        if (told and phase is not Phase.BACK) or (phase is Phase.BACK and not self.backs):
            self.problems.append(f"it was rolled back on {told}, and is {phase.name}")
        if phase is Phase.STOPPED and not found.reason:
            self.problems.append("it stopped without a reason")
        if not self.faults and not self.commands and (phase is Phase.COMPLETE) is bool(self.bad):
            self.problems.append(f"it is {phase.name}, with {self.bad}: {found.reason}")
