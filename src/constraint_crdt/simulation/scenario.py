"""Scenarios: a fleet with writes, a partition and churn, and the time until it settles.

Every node adds a constraint at the start (or `items` of them do). The partition splits the fleet into halves soon after; half way
through it a node of each half adds another constraint, which the other half misses. Under churn nodes are killed at random and
return after some seconds, most with their disk, some empty. The result is the time from the end of all disturbance until all nodes
agree.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import html_fields
from constraint_crdt.protocol.peer_selection import Nearby, PeerChoice, Schedule, Uniform, hexagon
from constraint_crdt.simulation.steps import Add, NodeStart
from constraint_crdt.simulation.world import Pace, Quality, SimRng, World

SECOND_NS = 10**9

CHURN_LASTS_NS = 60 * SECOND_NS
"""Duration of churn in a scenario without a partition."""

DOWN_NS = 5 * SECOND_NS
"""The mean time a node is down."""

EMPTY_RETURNS = 0.3
"""The share of nodes that return with an empty disk."""

LONGEST_NS = 3600 * SECOND_NS
"""Virtual time after which a scenario ends, settled or not."""

SAMPLES = 4
"""Samples per interval."""

CHOICES = "uniform", "nearby", "schedule"

MOST_NODES = 10_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """The parameters of a scenario."""

    nodes: int
    seed: int = 0
    items: int | None = None
    """Nodes that add a constraint at the start; None: all."""
    loss: float = 0.0
    latency_ns: int = 20_000_000
    """The latency of every link, with a quarter of it as jitter."""
    interval_ns: int = SECOND_NS
    partition_ns: int = 0
    churn_per_minute: float = 0.0
    choice: str = "uniform"
    """The policy of peer selection, one of `CHOICES`."""

    def check(self) -> None:
        """Raise `ConstraintCrdtError` for parameters out of bounds."""
        if not 2 <= self.nodes <= MOST_NODES:
            raise ConstraintCrdtError(f"a scenario needs 2 to {MOST_NODES} nodes, not {self.nodes}")
        if not 0.0 <= self.loss < 1.0:
            raise ConstraintCrdtError(f"loss is a probability from 0 up to, not including, 1, not {self.loss}")
        if self.items is not None and not 1 <= self.items <= self.nodes:
            raise ConstraintCrdtError(f"{self.items} nodes cannot add something at the start: there are {self.nodes}")
        if self.choice not in CHOICES:
            raise ConstraintCrdtError(f"peers are chosen {', '.join(CHOICES)}, not {self.choice}")
        if not 0.0 <= self.churn_per_minute <= 60.0 * self.nodes:
            raise ConstraintCrdtError(
                f"churn is 0 or more nodes a minute and at most one a second for each, not {self.churn_per_minute}"
            )
        if not 0 <= self.partition_ns <= LONGEST_NS // 2:
            raise ConstraintCrdtError(
                f"a partition lasts 0 to {LONGEST_NS // 2 // SECOND_NS} seconds, not {self.partition_ns / SECOND_NS}"
            )
        if not 0 < self.latency_ns < self.interval_ns:
            raise ConstraintCrdtError("latency must be above 0 and below the interval between two exchanges")


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of the fleet at a time."""

    time_ns: int
    known: float
    """The mean share of all writes known to the nodes in service."""
    states: int
    """The number of different states among the running nodes."""
    bytes: int
    """Bytes sent so far."""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a scenario."""

    scenario: Scenario
    settled: bool
    """All nodes agree in the end."""
    rounds: float
    """Intervals from the end of all disturbance to agreement, or to the end without agreement."""
    time_ns: int
    """Virtual time of the whole scenario."""
    messages: int
    bytes_per_node: float
    copies: float
    """Mutations received over mutations new to the reader."""
    partition: tuple[int, int] | None
    """Begin and end, in ns."""
    samples: tuple[Sample, ...]

    def _repr_html_(self) -> str:
        """A table of the result, for notebooks."""
        fields = [
            ("nodes", self.scenario.nodes),
            ("seed", self.scenario.seed),
            ("settled", self.settled),
            ("rounds", self.rounds),
            ("rounds that suffice without loss", self.bound),
            ("virtual time, s", self.time_ns / 1e9),
            ("messages", self.messages),
            ("bytes per node", self.bytes_per_node),
            ("copies", self.copies),
        ]
        return html_fields("Result of a scenario", fields)

    @property
    def bound(self) -> int:
        """Rounds that suffice without loss and with aligned rounds: ceil(log3 n) + 1."""
        return math.ceil(math.log(self.scenario.nodes, 3) - 1e-9) + 1


class ScenarioRun:
    """The run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        """Raises `ConstraintCrdtError` for parameters out of bounds."""
        scenario.check()
        self.scenario = scenario
        self._rng = SimRng(scenario.seed)
        members = [NodeStart(f"n{index}", 1) for index in range(scenario.nodes)]
        quality = Quality(latency_ns=scenario.latency_ns, jitter_ns=scenario.latency_ns // 4, loss=scenario.loss)
        pace = Pace(interval_ns=scenario.interval_ns, patience_ns=6 * scenario.latency_ns)
        self._world = World(members, self._rng, quality=quality, pace=pace, choice=_choice(scenario), watched=False)
        self._names = [member.name for member in members]
        self._down: set[str] = set()
        self._samples: list[Sample] = []
        self._partition: tuple[int, int] | None = None
        self._settled = False
        self._calm_at = 0
        """The end of the last disturbance."""
        self._arrange()

    def _arrange(self) -> None:
        scenario, world = self.scenario, self._world
        items = scenario.items or scenario.nodes
        for index in range(items):
            world.after(0, self._add, self._names[index * scenario.nodes // items], f"c{index}")
        if scenario.partition_ns:
            begin, end = scenario.interval_ns, scenario.interval_ns + scenario.partition_ns
            self._partition, self._calm_at = (begin, end), end
            middle = scenario.nodes // 2
            world.after(begin, world.links.part, [self._names[:middle], self._names[middle:]])
            world.after(end, world.links.part, [])
            for name in self._names[0], self._names[-1]:
                world.after((begin + end) / 2, self._add, name, f"missed-{name}")
        if scenario.churn_per_minute:
            self._calm_at = self._calm_at or CHURN_LASTS_NS
            self._plan_kill()
            world.after(self._calm_at, self._return_all)

    def _add(self, name: str, id_: str) -> None:
        if self._world.is_up(name):
            self._world.perform(Add, self._world.actors[name], id=id_)

    def _plan_kill(self) -> None:
        self._world.after(self._rng.exponential(60 * SECOND_NS / self.scenario.churn_per_minute), self._kill)

    def _kill(self) -> None:
        if self._world.now >= self._calm_at:
            return
        name = self._rng.pick(self._names)
        if name not in self._down:
            self._world.crash(self._world.actors[name])
            self._down.add(name)
            self._world.after(self._rng.exponential(DOWN_NS), self._return, name)
        self._plan_kill()

    def _return(self, name: str) -> None:
        if name in self._down:
            self._down.discard(name)
            self._world.start(name, "lost" if self._rng.happens(EMPTY_RETURNS) else "kept")

    def _return_all(self) -> None:
        for name in sorted(self._down):
            self._return(name)

    # --- running -----------------------------------------------------------------------------------------------------

    def samples(self) -> Iterator[Sample]:
        """Run until the fleet has settled, and yield samples. May be stopped at any time; `report` has the result so far."""
        step = self.scenario.interval_ns // SAMPLES
        while not self._settled and self._world.now < LONGEST_NS:
            self._world.run(self._world.now + step)
            sample = self._look()
            self._samples.append(sample)
            self._settled = sample.states == 1 and self._world.now > self._calm_at
            yield sample

    def _look(self) -> Sample:
        nodes = self._world.fleet.nodes.values()
        counts = [node.state.rows.clock_mark.count for node in nodes]
        # Writes that only their writer knows count too; those of ended lives count where some node knows them.
        written = max([sum(node.state.rows.seq(node.replica) for node in nodes), *counts])
        known = sum(counts) / (len(counts) * written) if written else 1.0
        states = len({node.state_hash for node in nodes})
        return Sample(self._world.now, known, states, sum(actor.bytes for actor in self._world.actors.values()))

    def report(self) -> Report:
        """The result so far."""
        world, fleet = self._world, self._world.fleet
        return Report(
            scenario=self.scenario,
            settled=self._settled,
            rounds=max(0, world.now - self._calm_at) / self.scenario.interval_ns,
            time_ns=world.now,
            messages=world.messages,
            bytes_per_node=sum(actor.bytes for actor in world.actors.values()) / self.scenario.nodes,
            copies=fleet.carried / fleet.taken if fleet.taken else 1.0,
            partition=self._partition,
            samples=tuple(self._samples),
        )


def _choice(scenario: Scenario) -> PeerChoice:
    if scenario.choice == "nearby":
        return Nearby(hexagon(scenario.nodes))
    return Schedule(scenario.nodes) if scenario.choice == "schedule" else Uniform(scenario.nodes)
