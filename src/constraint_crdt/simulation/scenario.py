"""Scenarios: a fleet with writes, a partition and churn, and the time until it settles.

Every node adds a constraint at the start (or `items` of them do). The partition splits the fleet into halves soon after; half way
through it a node of each half adds another constraint, which the other half misses. Under churn nodes are killed at random and
return after some seconds, most with their disk, some empty. The result is the time from the end of all disturbance until all nodes
agree.

The picture of a report shows the share of known writes and the bytes sent over time, with the partition behind both. `draw` decides
the layout and returns a `Picture` of bands, lines and texts; `to_svg` and `png_writer` write it.

Rules kept here:

- Marks are painted in their order on white. Places and sizes are in CSS pixels from the upper left corner; colours are as in CSS
  (#rgb or #rrggbb).
- Pillow is imported only to write a PNG.

`Simulation`: a fleet of real nodes in aligned rounds, without virtual time.

Rules kept here:

- In a round every node begins one exchange, with the peer the policy chooses.
- A node takes part in one exchange at a time. A node whose partner is busy waits, so a round has *turns*: in each turn all
  exchanges between free nodes run side by side. Their order is drawn in each round.
- A lost message is sent again, `retries` times at most; then the exchange is broken off, and its effects so far stand.
- The same seed gives the same history.

The unit of time is the round. Faults that need a finer unit (latency, partitions, crashes, clocks) are in `world`. The two do not
share a scheduler: they draw random numbers in different orders, so either in place of the other would change the outcome of every
seed.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Literal, TypeAlias
from xml.sax.saxutils import escape

from constraint_crdt.crdt.limits import DEFAULT_LIMITS, Limits
from constraint_crdt.crdt.rows import without_collection
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import Severity, html_fields
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import GossipMessage, decode_message
from constraint_crdt.protocol.peers import Nearby, PeerChoice, Schedule, Uniform, hexagon
from constraint_crdt.simulation.histories import mutations_in
from constraint_crdt.simulation.steps import Add, NodeStart
from constraint_crdt.simulation.world import Pace, Quality, SimRng, World
from constraint_crdt.types.tile_cells import Position, hex_distance

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
    sites: int = 0
    """Sites of equally many nodes, which push changes, too; 0: no sites and no pushes."""
    site_latency_ns: int = 0
    """The latency of the links between sites; 0: that of every link."""

    def check(self) -> None:
        """Raise `ConstraintCrdtError` for parameters out of bounds."""
        if not 2 <= self.nodes <= MOST_NODES:
            raise ConstraintCrdtError(f"a scenario needs 2 to {MOST_NODES} nodes, not {self.nodes}")
        if not 0.0 <= self.loss < 1.0:
            raise ConstraintCrdtError(f"loss is a probability from 0 up to, not including, 1, not {self.loss}")
        if self.items is not None and not 1 <= self.items <= self.nodes:
            raise ConstraintCrdtError(f"{self.items} nodes cannot add something at the start: there are {self.nodes}")
        if not 0 <= self.sites <= self.nodes:
            raise ConstraintCrdtError(f"{self.nodes} nodes have 1 to {self.nodes} sites, not {self.sites}")
        if self.sites and self.choice != CHOICES[0]:
            raise ConstraintCrdtError(f"nodes of sites choose peers by their site, not {self.choice}")
        if not 0 <= self.site_latency_ns < self.interval_ns:
            raise ConstraintCrdtError("the latency between sites must be below the interval between two exchanges")
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
    bytes_between: int = 0
    """Bytes of messages between sites."""

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
        longest = max(scenario.latency_ns, scenario.site_latency_ns)
        pace = Pace(interval_ns=scenario.interval_ns, patience_ns=6 * longest)
        self._names = [member.name for member in members]
        sites = _sites(scenario, self._names) if scenario.sites else None
        choice = None if sites else _choice(scenario)
        self._world = World(members, self._rng, quality=quality, pace=pace, choice=choice, watched=False, sites=sites)
        if scenario.site_latency_ns:
            far = scenario.site_latency_ns
            self._world.links.between = Quality(latency_ns=far, jitter_ns=far // 4, loss=scenario.loss)
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
            bytes_between=world.bytes_between,
            samples=tuple(self._samples),
        )


def _sites(scenario: Scenario, names: Sequence[str]) -> dict[str, str]:
    """The site of each node: of equally many nodes each, or one more."""
    return {name: f"site{place * scenario.sites // len(names)}" for place, name in enumerate(names)}


def _choice(scenario: Scenario) -> PeerChoice:
    if scenario.choice == "nearby":
        return Nearby(hexagon(scenario.nodes))
    return Schedule(scenario.nodes) if scenario.choice == "schedule" else Uniform(scenario.nodes)


FONT_SIZE = 12
BACKGROUND = "#fff"


@dataclass(frozen=True, slots=True)
class Band:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points: an axis, or a curve."""

    points: tuple[tuple[float, float], ...]
    colour: str
    thickness: float = 1.0


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text. `y` is its baseline, `x` the place of its `anchor`."""

    x: float
    y: float
    text: str
    colour: str = "#333"
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False


Mark: TypeAlias = Band | Line | Text


@dataclass(frozen=True, slots=True)
class Picture:
    """The size and all marks; a later mark covers earlier ones."""

    width: int
    height: int
    marks: tuple[Mark, ...]


def to_svg(picture: Picture) -> str:
    """The text of an SVG file."""
    width, height = picture.width, picture.height
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    font = f'font-family="system-ui,sans-serif" font-size="{FONT_SIZE}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        f'<rect width="{width}" height="{height}" fill="{BACKGROUND}"/>',
        *map(_element, picture.marks),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _element(mark: Mark) -> str:
    match mark:
        case Band(x, y, width, height, colour):
            return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
        case Line(points, colour, thickness):
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{thickness}" stroke-linejoin="round"/>'
        case Text(x, y, text, colour, anchor, bold):
            weight = ' font-weight="600"' if bold else ""
            return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


SCALE = 2
"""Pixels of a PNG for each pixel of the picture, as on today's screens."""

_OVERSAMPLING = 4
"""Pixels in each direction per averaged pixel: Pillow draws lines without antialiasing."""

_DRAWN = SCALE * _OVERSAMPLING
_DOTS_PER_INCH = 96 * SCALE  # so that the PNG is shown as large as the SVG
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}  # left, middle, right; on the baseline


def png_writer() -> Callable[[Picture, IO[bytes]], None]:
    """The function that writes a picture as PNG into an open file. Loads Pillow, which no other code here does.

    Raises `ImportError` without Pillow, or with a Pillow before 10.1, which has no font of any size. The font is Pillow's own,
    because the fonts of a machine are not known; it has a single weight, so bold text has an outline.
    """
    import PIL
    from PIL import Image, ImageDraw, ImageFont

    if tuple(map(int, PIL.__version__.split(".")[:2])) < (10, 1):  # as in Debian 12
        raise ImportError("Pillow has a font of any size since 10.1")

    def paint(canvas: ImageDraw.ImageDraw, mark: Mark, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
        match mark:
            case Band(x, y, width, height, colour):
                # Pillow includes the last pixel.
                right, bottom = (x + width) * _DRAWN - 1, (y + height) * _DRAWN - 1
                canvas.rectangle((x * _DRAWN, y * _DRAWN, right, bottom), fill=colour)
            case Line(points, colour, thickness):
                path = [(x * _DRAWN, y * _DRAWN) for x, y in points]
                canvas.line(path, fill=colour, width=round(thickness * _DRAWN), joint="curve")
            case Text(x, y, text, colour, anchor, bold):
                outline = _DRAWN // 4 if bold else 0
                place = (x * _DRAWN, y * _DRAWN)
                canvas.text(place, text, fill=colour, font=font, anchor=_ANCHORS[anchor], stroke_width=outline)

    def write(picture: Picture, file: IO[bytes]) -> None:
        drawn = Image.new("RGB", (picture.width * _DRAWN, picture.height * _DRAWN), BACKGROUND)
        canvas = ImageDraw.Draw(drawn)
        font = ImageFont.load_default(FONT_SIZE * _DRAWN)
        for mark in picture.marks:
            paint(canvas, mark, font)
        drawn.reduce(_OVERSAMPLING).save(file, "PNG", optimize=True, dpi=(_DOTS_PER_INCH, _DOTS_PER_INCH))

    return write


WIDTH, HEIGHT, LEFT, RIGHT, TOP, PANEL, GAP = 760, 430, 70, 20, 46, 140, 60
KNOWN, SENT, AXIS, PARTED, PARTED_NAME = "#1f6feb", "#b35900", "#999", "#f3e3e3", "#a55"

_ACROSS = WIDTH - LEFT - RIGHT


def draw(report: Report) -> Picture:
    """The picture of a report."""
    seconds = [0.0, *(sample.time_ns / SECOND_NS for sample in report.samples)]
    known = [0.0, *(100 * sample.known for sample in report.samples)]
    sent = [0.0, *(sample.bytes / report.scenario.nodes / 1000 for sample in report.samples)]
    end = seconds[-1] or 1.0
    panels = (
        Panel("known, %", KNOWN, TOP, most=100.0, end=end),
        Panel("sent per node, kB", SENT, TOP + PANEL + GAP, most=max(sent) or 1.0, end=end),
    )
    marks: list[Mark] = [Text(LEFT, 22, _title(report), bold=True)]
    for panel, values in zip(panels, (known, sent), strict=True):
        marks += panel.partition(report)
        marks += panel.axes()
        marks.append(panel.curve(seconds, values))
    marks.append(Text(WIDTH - RIGHT, HEIGHT - 8, "virtual time, s", anchor="end"))
    return Picture(WIDTH, HEIGHT, tuple(marks))


def _title(report: Report) -> str:
    scenario = report.scenario
    told = f"{report.rounds:.1f} rounds to settle (bound {report.bound})" if report.settled else "not settled"
    return f"{scenario.nodes} nodes, {100 * scenario.loss:.10g}% loss, seed {scenario.seed}: {told}"


@dataclass(frozen=True, slots=True)
class Panel:
    """The place and the scale of a curve with its axes."""

    label: str
    colour: str
    top: int
    most: float
    """The value at the upper end."""
    end: float
    """The time at the right end, in seconds."""

    def partition(self, report: Report) -> Iterator[Mark]:
        """The band behind the curve, if the run reached the partition."""
        if report.partition is None:
            return
        begin, stop = (min(each / SECOND_NS, self.end) for each in report.partition)
        if begin < stop:
            left, right = self._x(begin), self._x(stop)
            yield Band(left, self.top, right - left, PANEL, PARTED)
            yield Text(left + 4, self.top + 14, "partition", PARTED_NAME)

    def axes(self) -> Iterator[Mark]:
        """Both axes, with their ends and middles, and the label."""
        bottom = self.top + PANEL
        yield Line(((LEFT, self.top), (LEFT, bottom), (WIDTH - RIGHT, bottom)), AXIS)
        for share in (0.0, 0.5, 1.0):
            yield Text(LEFT - 6, self._y(self.most * share) + 4, _figure(self.most * share), anchor="end")
            yield Text(self._x(self.end * share), bottom + 16, _figure(self.end * share), anchor="middle")
        yield Text(LEFT, self.top - 6, self.label)

    def curve(self, times: Sequence[float], values: Sequence[float]) -> Line:
        """The values over the times."""
        points = tuple((self._x(time), self._y(value)) for time, value in zip(times, values, strict=True))
        return Line(points, self.colour, thickness=1.8)

    def _x(self, time: float) -> float:
        return LEFT + _ACROSS * time / self.end

    def _y(self, value: float) -> float:
        return self.top + PANEL - PANEL * value / self.most


def _figure(value: float) -> str:
    """Three digits, or all of a larger number: 3600, not 3.6e+03."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"


MOST_SIMULATED = 100_000
"""The most nodes of a simulation."""

ROUND_NS = 10**9
"""Virtual time from one round to the next, and the start of the first round."""

RETRIES = 2
"""Retries of a lost message."""


@dataclass(frozen=True, slots=True)
class Stats:
    """The cost of a simulation so far."""

    nodes: int
    rounds: int
    turns: int
    """Turns over all rounds: the duration of the rounds, counted in exchanges."""
    exchanges: int
    messages: int
    """Messages sent, lost ones included."""
    lost: int
    """Messages lost."""
    bytes: int | None
    """Bytes sent, those of lost messages included; None where messages were handed over as objects."""
    copies: float
    """Mutations received over mutations new to the reader: 1.0 without duplicates."""
    cost: float
    """The sum of the distances over which mutations were carried, per new mutation. 1.0 per link without distances."""
    time_ns: int
    """Virtual time in ns."""

    def _repr_html_(self) -> str:
        """A table of the fields, for notebooks."""
        return html_fields("Cost of a simulation", list(asdict(self).items()))


class Simulation:
    """A fleet of `GossipNode`s that exchange in rounds. `nodes` are the nodes themselves."""

    def __init__(
        self,
        node_count: int,
        seed: int = 0,
        *,
        choice: PeerChoice | None = None,
        loss: float = 0.0,
        retries: int = RETRIES,
        encoded: bool = False,
        distance: Callable[[int, int], float] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`seed`: of all random numbers. `choice`: the peer policy; `Schedule` if None, since rounds are aligned. `loss`: the
        probability a message is lost. `retries`: of a lost message. `encoded`: messages travel as bytes, which are counted;
        else as objects, which is faster. `distance`: between two nodes by number, for `Stats.cost`. `limits`: of every node.

        Raises `ConstraintCrdtError` for numbers out of bounds.
        """
        if not 2 <= node_count <= MOST_SIMULATED:
            raise ConstraintCrdtError(f"a simulation needs 2 to {MOST_SIMULATED} nodes, not {node_count}")
        if not 0.0 <= loss < 1.0:
            raise ConstraintCrdtError(f"loss is a probability from 0 up to, not including, 1, not {loss}")
        if retries < 0:
            raise ConstraintCrdtError(f"a message cannot be sent again {retries} times")
        self.seed = seed
        self.time_ns = ROUND_NS
        self._rng = SimRng(seed)
        self._choice = choice or Schedule(node_count)
        self._loss, self._retries, self._encoded, self._distance = loss, retries, encoded, distance
        self._lives = 1
        self.nodes = [self._make_node(f"n{index}", limits) for index in range(node_count)]
        self._index = {node.node_id: index for index, node in enumerate(self.nodes)}
        self._rounds = self._turns = self._exchanges = self._messages = self._lost = self._bytes = self._carried = 0
        self._cost = 0.0

    def _make_node(self, name: str, limits: Limits) -> GossipNode:
        return GossipNode(name, incarnation=1, now=lambda: self.time_ns, renew=self._new_life, fleet="simulation", limits=limits)

    def _new_life(self) -> int:
        self._lives += 1
        return self._lives

    # --- what nodes do of their own ----------------------------------------------------------------------------------

    def node(self, which: int | str) -> GossipNode:
        """A node by its number or name. Raises `ConstraintCrdtError` if there is no such node."""
        index = self._index.get(which) if isinstance(which, str) else which
        if index is None or not 0 <= index < len(self.nodes):
            raise ConstraintCrdtError(
                f"there is no node {which!r}: they are 0 to {len(self.nodes) - 1}, or n0 to n{len(self.nodes) - 1}"
            )
        return self.nodes[index]

    def add_constraint(
        self, node: int | str, id_: str, *, when: str | None = None, severity: str = Severity.WARNING, about: str | None = None
    ) -> None:
        """Let a node add a constraint, or replace its definition. Raises as `GossipNode.add_constraint` does."""
        self.node(node).add_constraint(id_, when=when, severity=severity, about=about)

    def remove_constraint(self, node: int | str, id_: str) -> None:
        """Let a node remove a constraint. Raises `KeyError` if it is not active there."""
        self.node(node).remove_constraint(id_)

    def record(self, node: int | str, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None) -> None:
        """Let a node count evaluations. Raises `ValueError` for a negative number, `ConstraintCrdtError` for no such node."""
        self.node(node).record(satisfied, violated, constraint=constraint)

    def record_satisfied(self, node: int | str, count: int = 1, *, constraint: str | None = None) -> None:
        """Let a node count satisfied evaluations."""
        self.node(node).record_satisfied(count, constraint=constraint)

    def record_violations(self, node: int | str, count: int = 1, *, constraint: str | None = None) -> None:
        """Let a node count violated evaluations."""
        self.node(node).record_violations(count, constraint=constraint)

    def update_position(self, node: int | str, position: Position) -> None:
        """Let a node move the fleet's position."""
        self.node(node).update_position(position)

    # --- rounds ------------------------------------------------------------------------------------------------------

    @property
    def is_converged(self) -> bool:
        """All nodes have the same state. O(nodes)."""
        first = self.nodes[0].state_hash
        return all(node.state_hash == first for node in self.nodes)

    @without_collection()
    def step(self) -> None:
        """Run a round."""
        rng = self._rng
        wanted = [(me, self._choice.choose(me, self._rounds, rng)) for me in range(len(self.nodes))]
        rng.shuffle(wanted)
        while wanted:
            busy = bytearray(len(self.nodes))
            waiting = []
            for pair in wanted:
                me, peer = pair
                if busy[me] or busy[peer]:
                    waiting.append(pair)
                else:
                    busy[me] = busy[peer] = 1
                    self._exchange(me, peer)
            self._turns += 1
            wanted = waiting
        self._rounds += 1
        self.time_ns += ROUND_NS

    @without_collection()
    def run_until_converged(self, max_rounds: int = 1000) -> int | None:
        """Run until all nodes have the same state; returns the number of rounds, or None if `max_rounds` do not suffice."""
        for rounds in range(max_rounds + 1):
            if self.is_converged:
                return rounds
            if rounds < max_rounds:
                self.step()
        return None

    def _exchange(self, me: int, peer: int) -> None:
        self._exchanges += 1
        a, b = self.nodes[me], self.nodes[peer]
        waiting = deque([(a, b, a.begin(b.node_id))])
        carried = 0
        while waiting:
            sender, reader, message = waiting.popleft()
            if self._encoded:
                responses = self._carry_bytes(sender, reader, message)
            else:
                responses = reader.receive(message).responses if self._arrives(0) else None
            if responses is None:
                break
            carried += mutations_in(message)
            waiting.extend((reader, sender, response) for response in responses)
        self._carried += carried
        self._cost += carried * (1.0 if self._distance is None else self._distance(me, peer))

    def _carry_bytes(self, sender: GossipNode, reader: GossipNode, message: GossipMessage) -> list[GossipMessage] | None:
        """The answers of the reader to an encoded message; None if a part of it did not arrive."""
        responses: list[GossipMessage] = []
        for data in sender.encoded(message, reader.node_id):
            if not self._arrives(len(data)):
                return None
            responses += reader.receive(decode_message(data)).responses
        return responses

    def _arrives(self, size: int) -> bool:
        """Send a message, with retries. False if it did not arrive."""
        for _ in range(1 + self._retries):
            self._messages += 1
            self._bytes += size
            if not self._rng.happens(self._loss):
                return True
            self._lost += 1
        return False

    # --- what it cost ------------------------------------------------------------------------------------------------

    @property
    def stats(self) -> Stats:
        """The cost so far. O(nodes x rows)."""
        taken = 0
        for node in self.nodes:
            known = node.clock
            taken += known.total - sum(seq for replica, seq in known.items() if replica.node_id == node.node_id)
        return Stats(
            nodes=len(self.nodes),
            rounds=self._rounds,
            turns=self._turns,
            exchanges=self._exchanges,
            messages=self._messages,
            lost=self._lost,
            bytes=self._bytes if self._encoded else None,
            copies=self._carried / taken if taken else 1.0,
            cost=self._cost / taken if taken else 0.0,
            time_ns=self.time_ns - ROUND_NS,
        )

    def __repr__(self) -> str:
        return f"Simulation({len(self.nodes)} nodes, seed={self.seed}, {self._rounds} rounds)"

    def _repr_html_(self) -> str:
        """A table of the agreement and the cost so far, for notebooks. O(nodes x rows)."""
        states = len({node.state_hash for node in self.nodes})
        fields: list[tuple[str, object]] = [("seed", self.seed), ("different states", states), ("converged", states == 1)]
        return html_fields("Simulation", fields) + self.stats._repr_html_()

    def summary(self) -> str:
        """The cost so far, for people."""
        stats = self.stats
        hashes = {node.state_hash for node in self.nodes}
        agreed = "all nodes agree" if len(hashes) == 1 else f"{len(hashes)} different states"
        sent = f"{stats.messages} messages" + (f", {stats.lost} lost" if stats.lost else "")
        size = "" if stats.bytes is None else f", {stats.bytes / stats.nodes:.0f} bytes per node"
        return (
            f"{stats.nodes} nodes, {stats.rounds} rounds ({stats.turns} turns): {agreed}\n"
            f"{stats.exchanges} exchanges, {sent}{size}\n"
            f"{stats.copies:.3f} copies of each item received"
        )


# --- lattice distance against chance ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GeometricExperiment:
    """A fleet on the lattice, once with peers drawn at random and once by their distance. Rounds are None where they did not do."""

    node_count: int
    random_convergence_rounds: int | None
    geometric_convergence_rounds: int | None
    random_messages: int
    geometric_messages: int
    random_cost: float
    """Hops over which a change was carried, per node that it reached."""
    geometric_cost: float
    """The same hops for peers by distance."""

    @property
    def speedup(self) -> float | None:
        """Rounds at random over rounds by distance; None where either did not converge, or none was needed."""
        slow, fast = self.random_convergence_rounds, self.geometric_convergence_rounds
        return slow / fast if slow is not None and fast else None


def run_experiment(node_count: int, seed: int = 0, max_rounds: int = 1000) -> GeometricExperiment:
    """Compare `Uniform` with `Nearby` on a filled hexagon, where each node adds a constraint and counts.

    Raises `ConstraintCrdtError` for numbers out of bounds.
    """
    points = hexagon(node_count)

    def distance(one: int, other: int) -> float:
        return hex_distance(points[one], points[other])

    found = []
    for choice in (Uniform(node_count), Nearby(points)):
        simulation = Simulation(node_count, seed, choice=choice, distance=distance)
        for index in range(node_count):
            simulation.add_constraint(index, f"c{index}")
            simulation.record_satisfied(index, 100 + 50 * index)
        rounds = simulation.run_until_converged(max_rounds)
        found.append((rounds, simulation.stats))
    (random_rounds, random), (geometric_rounds, geometric) = found
    return GeometricExperiment(
        node_count, random_rounds, geometric_rounds, random.messages, geometric.messages, random.cost, geometric.cost
    )
