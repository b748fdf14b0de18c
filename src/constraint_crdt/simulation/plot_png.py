"""A picture as PNG, by Pillow: the one module that imports it, and nobody imports this one but to write a PNG.

Pillow draws lines with hard edges, so all is drawn much larger and then reduced, which smooths it. The font is Pillow's own, since
which fonts a machine has is not known; it has one weight, and bold letters have an outline.
"""

from typing import IO

import PIL
from PIL import Image, ImageDraw, ImageFont

from constraint_crdt.simulation.plot import BACKGROUND, FONT_SIZE, Band, Line, Mark, Picture, Text

if tuple(map(int, PIL.__version__.split(".")[:2])) < (10, 1):  # as in Debian 12
    raise ImportError("Pillow has a font of any size since 10.1")

SCALE = 2
"""Pixels of the file for each pixel of the picture, as on the screens of today."""

_OVER = 4
"""Pixels that become one, in each direction."""

_DRAWN = SCALE * _OVER
_DOTS_PER_INCH = 96 * SCALE  # so that it is shown as large as the SVG
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}  # left, middle, right; on the baseline


def write_png(picture: Picture, file: IO[bytes]) -> None:
    """Write the picture into a file that is open for it."""
    drawn = Image.new("RGB", (picture.width * _DRAWN, picture.height * _DRAWN), BACKGROUND)
    canvas = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(FONT_SIZE * _DRAWN)
    for mark in picture.marks:
        _paint(canvas, mark, font)
    drawn.reduce(_OVER).save(file, "PNG", optimize=True, dpi=(_DOTS_PER_INCH, _DOTS_PER_INCH))


def _paint(canvas: ImageDraw.ImageDraw, mark: Mark, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    match mark:
        case Band(x, y, width, height, colour):
            # Pillow counts the last pixel in.
            right, bottom = (x + width) * _DRAWN - 1, (y + height) * _DRAWN - 1
            canvas.rectangle((x * _DRAWN, y * _DRAWN, right, bottom), fill=colour)
        case Line(points, colour, thickness):
            path = [(x * _DRAWN, y * _DRAWN) for x, y in points]
            canvas.line(path, fill=colour, width=round(thickness * _DRAWN), joint="curve")
        case Text(x, y, text, colour, anchor, bold):
            outline = _DRAWN // 4 if bold else 0
            place = (x * _DRAWN, y * _DRAWN)
            canvas.text(place, text, fill=colour, font=font, anchor=_ANCHORS[anchor], stroke_width=outline)
