"""A picture as SVG, by hand: an element for each mark."""

from xml.sax.saxutils import escape

from constraint_crdt.simulation.picture import BACKGROUND, FONT_SIZE, Band, Line, Mark, Picture, Text


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
