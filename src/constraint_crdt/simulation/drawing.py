"""A report as a picture: what is known over time, the bytes sent over time, and the partition behind both.

What is drawn where is decided here, once; `picture_svg` and `picture_png` write it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from constraint_crdt.simulation.picture import Band, Line, Mark, Picture, Text
from constraint_crdt.simulation.scenario import SECOND_NS, Report

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
        _Panel("known, %", KNOWN, TOP, most=100.0, end=end),
        _Panel("sent per node, kB", SENT, TOP + PANEL + GAP, most=max(sent) or 1.0, end=end),
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
class _Panel:
    """Where one curve with its axes is, and how it is scaled."""

    label: str
    colour: str
    top: int
    most: float
    """The value at the upper end."""
    end: float
    """The time at the right end, in seconds."""

    def partition(self, report: Report) -> Iterator[Mark]:
        """The band behind the curve, if the run got as far as to a partition."""
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
