"""The file that `simulate --plot` names: SVG or PNG, by its ending.

Rules: what is wrong with the name, its place or this installation is said before the fleet runs, not when minutes are over. Pillow
is imported only where the file is a PNG.
"""

import io
from collections.abc import Callable

from constraint_crdt.cli.failures import CommandFailedError, MisuseError
from constraint_crdt.cli.whole_files import check_place, write_whole
from constraint_crdt.simulation.drawing import draw
from constraint_crdt.simulation.picture import Picture
from constraint_crdt.simulation.picture_svg import to_svg
from constraint_crdt.simulation.scenario import Report


def plotter(name: str) -> Callable[[Report], None]:
    """What draws a report into the file. Raises `MisuseError` for a name it cannot have, `CommandFailedError` if it would fail."""
    encode = _encoding(name)
    check_place(name)
    return lambda report: write_whole(name, encode(draw(report)))


def _encoding(name: str) -> Callable[[Picture], bytes]:
    ending = name.lower()
    if ending.endswith(".svg"):
        return lambda picture: to_svg(picture).encode()
    if ending.endswith(".png"):
        return _png_encoding(name)
    raise MisuseError(f"--plot draws SVG or PNG: name a file that ends in .svg or .png, not {name!r}")


def _png_encoding(name: str) -> Callable[[Picture], bytes]:
    try:
        from constraint_crdt.simulation.picture_png import write_png
    except ImportError:
        what = f"--plot {name} needs Pillow: pip install 'constraint-crdt[png]', or name a file that ends in .svg"
        raise CommandFailedError(what) from None

    def encode(picture: Picture) -> bytes:
        file = io.BytesIO()
        write_png(picture, file)
        return file.getvalue()

    return encode
