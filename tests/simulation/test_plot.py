"""Reports as pictures: SVG and PNG have the curves, the partition and the labels where they belong."""

import io
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image, ImageChops, ImageColor

from constraint_crdt.simulation import scenario as drawing
from constraint_crdt.simulation.scenario import (
    SCALE,
    SECOND_NS,
    Line,
    Picture,
    Report,
    Sample,
    Scenario,
    ScenarioRun,
    Text,
    draw,
    png_writer,
    to_svg,
)

Point = tuple[float, float]
SVG = "{http://www.w3.org/2000/svg}"
WHITE = (255, 255, 255)

# Of four seconds, on axes that begin at 70 and end at 740 and 186 or 386, panels of 140 high.
KNOWN_POINTS = [(70.0, 186.0), (237.5, 158.0), (405.0, 116.0), (740.0, 46.0)]
SENT_POINTS = [(70.0, 386.0), (237.5, 368.5), (405.0, 351.0), (740.0, 246.0)]
PARTITION = (SECOND_NS, 3 * SECOND_NS)
IN_PARTITION = [(450.0, 150.0), (450.0, 370.0)]
"""A place of each panel in its band, below the curve."""
BESIDE_PARTITION = [(620.0, 150.0), (620.0, 370.0)]


def report(partition: tuple[int, int] | None = None, *, samples: int = 3) -> Report:
    """Ten nodes that know 20, 50 and 100 % after 1, 2 and 4 seconds, and have sent 1, 2 and 8 kB each."""
    looks = (
        Sample(1 * SECOND_NS, 0.2, 10, 10_000),
        Sample(2 * SECOND_NS, 0.5, 10, 20_000),
        Sample(4 * SECOND_NS, 1.0, 1, 80_000),
    )[:samples]
    time_ns = looks[-1].time_ns if looks else 0
    return Report(Scenario(10, seed=7), samples == 3, 4.0, time_ns, 100, 8000.0, 1.0, partition, looks)


def svg_of(picture: Picture) -> ET.Element:
    return ET.fromstring(to_svg(picture))


def png_of(picture: Picture) -> Image.Image:
    file = io.BytesIO()
    png_writer()(picture, file)
    image = Image.open(file)
    image.load()
    assert image.format == "PNG"
    return image.convert("RGB")


def colour_at(image: Image.Image, point: Point) -> object:
    return image.getpixel((round(point[0] * SCALE), round(point[1] * SCALE)))


def texts(svg: ET.Element) -> list[str | None]:
    return [each.text for each in svg.iter(f"{SVG}text")]


def test_the_svg_has_the_curves_where_the_samples_are() -> None:
    svg = svg_of(draw(report()))
    assert (svg.attrib["width"], svg.attrib["height"]) == ("760", "430")
    curves = {
        line.attrib["stroke"]: [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in svg.iter(f"{SVG}polyline")
    }
    assert curves[drawing.KNOWN] == KNOWN_POINTS
    assert curves[drawing.SENT] == SENT_POINTS
    assert texts(svg)[0] == "10 nodes, 0% loss, seed 7: 4.0 rounds to settle (bound 4)"
    assert {"known, %", "sent per node, kB", "virtual time, s", "100", "8", "4", "2", "0"} <= set(texts(svg))


@pytest.mark.long(by_day=["points0-#1f6feb"])
@pytest.mark.parametrize(("points", "colour"), [(KNOWN_POINTS, drawing.KNOWN), (SENT_POINTS, drawing.SENT)])
def test_the_png_has_the_curves_where_the_samples_are(points: list[Point], colour: str) -> None:
    image = png_of(draw(report()))
    assert image.size == (1520, 860)
    for x, y in points[1:-1]:
        assert colour_at(image, (x, y)) == ImageColor.getrgb(colour)
        assert colour_at(image, (x, y - 6)) == colour_at(image, (x, y + 6)) == WHITE
    (x, y), (end_x, end_y) = points[-2:]
    assert colour_at(image, ((x + end_x) / 2, (y + end_y) / 2)) == ImageColor.getrgb(colour)  # between two samples


@pytest.mark.long
@pytest.mark.parametrize("partition", [None, PARTITION])
def test_the_band_is_there_if_there_was_a_partition(partition: tuple[int, int] | None) -> None:
    picture = draw(report(partition))
    svg, image = svg_of(picture), png_of(picture)
    bands = [each.attrib for each in svg.iter(f"{SVG}rect") if each.attrib["fill"] == drawing.PARTED]
    assert [(band["x"], band["width"]) for band in bands] == ([("237.5", "335.0")] * 2 if partition else [])
    assert ("partition" in texts(svg)) == bool(partition)
    expected = ImageColor.getrgb(drawing.PARTED) if partition else WHITE
    assert [colour_at(image, place) for place in IN_PARTITION] == [expected] * 2
    assert [colour_at(image, place) for place in BESIDE_PARTITION] == [WHITE] * 2


@pytest.mark.long
@pytest.mark.parametrize("samples", [0, 1])
def test_a_run_that_did_not_get_to_its_partition_is_drawn_without(samples: int) -> None:
    picture = draw(report(PARTITION, samples=samples))
    assert "partition" not in texts(svg_of(picture))
    assert ImageColor.getrgb(drawing.PARTED) not in {colour for _, colour in png_of(picture).getcolors(1 << 16) or [(0, WHITE)]}
    assert "not settled" in (texts(svg_of(picture))[0] or "")


def test_a_partition_that_was_not_over_reaches_to_the_end() -> None:
    svg = svg_of(draw(report(PARTITION, samples=2)))
    bands = [each.attrib for each in svg.iter(f"{SVG}rect") if each.attrib["fill"] == drawing.PARTED]
    assert [float(band["x"]) + float(band["width"]) for band in bands] == [740.0, 740.0]


@pytest.mark.long
def test_nothing_is_cut_off_where_figures_are_long() -> None:
    samples = (Sample(900 * SECOND_NS, 0.5, 10, 10**12), Sample(3600 * SECOND_NS, 0.99, 10, 123_456_789 * 10**7))
    scenario = Scenario(10_000, seed=2**63 - 1, loss=0.999)
    picture = draw(Report(scenario, False, 3600.0, 3600 * SECOND_NS, 1, 1.0, 1.0, (SECOND_NS, 1800 * SECOND_NS), samples))
    assert {"3600", "1800", "123456789"} <= set(texts(svg_of(picture)))
    image = png_of(picture)
    left, top, right, bottom = ImageChops.difference(image, Image.new("RGB", image.size, WHITE)).getbbox() or (0, 0, 0, 0)
    assert left >= 4
    assert top >= 4
    assert right <= image.width - 4
    assert bottom <= image.height - 4


@pytest.mark.slow
def test_a_real_run_is_drawn_from_left_to_right() -> None:
    running = ScenarioRun(Scenario(10, seed=7, partition_ns=5 * SECOND_NS))
    count = sum(1 for _ in running.samples())
    picture = draw(running.report())
    curves = [mark for mark in picture.marks if isinstance(mark, Line) and mark.colour in (drawing.KNOWN, drawing.SENT)]
    assert len(curves) == 2
    for curve in curves:
        assert len(curve.points) == count + 1
        assert list(curve.points) == sorted(curve.points, key=lambda point: point[0])
        assert all(70 <= x <= 740 and 46 <= y <= 386 for x, y in curve.points)


def test_text_may_hold_what_means_something_in_xml() -> None:
    text = "loss < 5 & churn > 1/min ]]> \"'"
    assert texts(svg_of(Picture(100, 50, (Text(5, 20, text),)))) == [text]


def test_the_svg_says_anchor_and_weight() -> None:
    marks = (Text(5, 20, "a"), Text(50, 20, "b", anchor="middle", bold=True), Text(95, 20, "c", anchor="end"))
    said = [(each.get("text-anchor"), each.get("font-weight")) for each in svg_of(Picture(100, 50, marks)).iter(f"{SVG}text")]
    assert said == [("start", None), ("middle", "600"), ("end", None)]


@pytest.mark.slow
@pytest.mark.parametrize("bold", [False, True])
def test_an_anchor_is_where_the_text_begins_has_its_middle_or_ends(bold: bool) -> None:
    def extent(anchor: str) -> tuple[int, int, int, int]:
        image = png_of(Picture(400, 50, (Text(200, 30, "HHHH", anchor=anchor, bold=bold),)))  # type: ignore[arg-type]  # one of the three
        return ImageChops.invert(image).getbbox() or (0, 0, 0, 0)

    start, middle, end = extent("start"), extent("middle"), extent("end")
    assert start[0] == pytest.approx(200 * SCALE, abs=5)
    assert (middle[0] + middle[2]) / 2 == pytest.approx(200 * SCALE, abs=5)
    assert end[2] == pytest.approx(200 * SCALE, abs=5)
    assert start[3] == middle[3] == end[3] == pytest.approx(30 * SCALE, abs=2)


@pytest.mark.slow
def test_bold_text_is_darker() -> None:
    light, bold = (png_of(Picture(200, 50, (Text(5, 30, "title", bold=bold),))).convert("L") for bold in (False, True))
    assert sum(ImageChops.invert(bold).tobytes()) > 1.2 * sum(ImageChops.invert(light).tobytes())


@pytest.mark.long
@pytest.mark.processes
def test_only_writing_a_png_loads_pillow() -> None:
    rooms = Path(drawing.__file__).parent.glob("*.py")
    modules = sorted(f"constraint_crdt.simulation.{path.stem}" for path in rooms if path.stem != "__init__")
    assert "constraint_crdt.simulation.scenario" in modules
    code = f"import sys, constraint_crdt.cli.simulate, {', '.join(modules)}; print('PIL' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert told == "False\n"
