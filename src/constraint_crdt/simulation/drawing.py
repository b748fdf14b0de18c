"""A report as a picture: what is known over time, the bytes sent over time, and the partition behind both. SVG, by hand."""

from collections.abc import Sequence

from constraint_crdt.simulation.scenario import Report

WIDTH, HEIGHT, LEFT, RIGHT, TOP, PANEL, GAP = 760, 430, 70, 20, 46, 140, 60
_SECOND_NS = 10**9
_STYLE = "font-family:system-ui,sans-serif;font-size:12px;fill:#333"


def draw(report: Report) -> str:
    """The picture as the text of an SVG file."""
    seconds = [0.0, *(sample.time_ns / _SECOND_NS for sample in report.samples)]
    known = [0.0, *(100 * sample.known for sample in report.samples)]
    sent = [0.0, *(sample.bytes / report.scenario.nodes / 1000 for sample in report.samples)]
    end = seconds[-1] or 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 22, _title(report), "font-weight:600"),
        *_panel(TOP, "known, %", seconds, known, 100.0, end, report, "#1f6feb"),
        *_panel(TOP + PANEL + GAP, "sent per node, kB", seconds, sent, max(sent) or 1.0, end, report, "#b35900"),
        _text(WIDTH - RIGHT, HEIGHT - 8, "virtual time, s", "text-anchor:end"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _title(report: Report) -> str:
    scenario = report.scenario
    told = f"{report.rounds:.1f} rounds to settle (bound {report.bound})" if report.settled else "not settled"
    return f"{scenario.nodes} nodes, {scenario.loss:.0%} loss, seed {scenario.seed}: {told}"


def _panel(
    top: int, label: str, times: Sequence[float], values: Sequence[float], most: float, end: float, report: Report, colour: str
) -> list[str]:
    """One curve with its axes."""
    width, bottom = WIDTH - LEFT - RIGHT, top + PANEL

    def place(time: float, value: float) -> str:
        return f"{LEFT + width * time / end:.1f},{bottom - PANEL * value / most:.1f}"

    parts = []
    if report.partition is not None:
        begin, stop = (min(each / _SECOND_NS, end) for each in report.partition)
        x, wide = LEFT + width * begin / end, width * (stop - begin) / end
        parts.append(f'<rect x="{x:.1f}" y="{top}" width="{wide:.1f}" height="{PANEL}" fill="#f3e3e3"/>')
        parts.append(_text(x + 4, top + 14, "partition", "fill:#a55"))
    parts.append(f'<path d="M{LEFT},{top}V{bottom}H{LEFT + width}" fill="none" stroke="#999"/>')
    for share in (0.0, 0.5, 1.0):
        parts.append(_text(LEFT - 6, bottom - PANEL * share + 4, f"{most * share:.3g}", "text-anchor:end"))
        parts.append(_text(LEFT + width * share, bottom + 16, f"{end * share:.3g}", "text-anchor:middle"))
    parts.append(_text(LEFT, top - 6, label))
    line = " ".join(place(time, value) for time, value in zip(times, values, strict=True))
    parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    return parts


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{_STYLE};{style}">{text}</text>'
