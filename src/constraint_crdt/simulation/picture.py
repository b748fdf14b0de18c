"""What a picture is made of: bands, lines and texts, painted in their order on white. Whoever writes a format knows only these.

Rules: places and sizes are in CSS pixels from the upper left corner, colours are as in CSS (#rgb or #rrggbb).
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

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
    """One line of text. `y` is its baseline, and `x` is where it has its `anchor`."""

    x: float
    y: float
    text: str
    colour: str = "#333"
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False


Mark: TypeAlias = Band | Line | Text


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it; a later mark covers the ones before."""

    width: int
    height: int
    marks: tuple[Mark, ...]
