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
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Literal, TypeAlias
from xml.sax.saxutils import escape

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import html_fields
from constraint_crdt.protocol.peers import Nearby, PeerChoice, Schedule, Uniform, hexagon
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
    because the fonts of a machine are not known; it has one weight, so bold text has an outline.
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
