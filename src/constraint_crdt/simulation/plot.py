"""The picture of a report: the share of known writes and the bytes sent over time, with the partition behind both.

`draw` decides the layout and returns a `Picture` of bands, lines and texts; `to_svg` and `png_writer` write it.

Rules kept here:

- Marks are painted in their order on white. Places and sizes are in CSS pixels from the upper left corner; colours are as in CSS
  (#rgb or #rrggbb).
- Pillow is imported only to write a PNG.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Literal, TypeAlias
from xml.sax.saxutils import escape

from constraint_crdt.simulation.scenario import SECOND_NS, Report

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
