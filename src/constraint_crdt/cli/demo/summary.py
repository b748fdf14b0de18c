"""What the demo found out: how long each change took to reach every node, and the bytes that it all took."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from constraint_crdt.cli.demo.fleet import DemoNode
from constraint_crdt.cli.output import aligned
from constraint_crdt.operations.command import Column


class Spread(NamedTuple):
    """One change, or a node coming back."""

    what: str
    seconds: float | None
    """Until every node that was up had it; None: not in time."""
    cell_bytes: int | None = None
    """The cells that say it. None for what is no change."""


def summarise(spreads: Sequence[Spread], nodes: Sequence[DemoNode], seconds: float) -> list[str]:
    """The lines that end the demo."""
    rows = [[each.what, "" if each.cell_bytes is None else str(each.cell_bytes), _time(each.seconds)] for each in spreads]
    lines = aligned([Column("what happened"), Column("bytes", right=True), Column("on every node after", right=True)], rows)
    sent, written = _total(nodes, "bytes_sent"), _total(nodes, "written_bytes")
    others = len(nodes) - 1
    definitions = sum(each.cell_bytes or 0 for each in spreads)
    per_byte = f", {sent / (written * others):.2f} for each byte due" if written else ""
    rate = sent / seconds / len(nodes)
    lines += [
        "",
        f"The nodes wrote {written} bytes in cells: {definitions} for the changes above, the rest for counts and for themselves.",
        f"Each is due on {others} other node{'s'[: others != 1]}: {written * others} bytes to bring.",
        f"The nodes sent {sent} bytes in {seconds:.0f} s, Pings included{per_byte}: {rate:.0f} bytes/s a node.",
    ]
    return lines


def _total(nodes: Iterable[DemoNode], key: str) -> int:
    """Over all processes that there were: a node that is started again counts from 0."""
    return sum(int(life.get(key, 0)) for node in nodes for life in node.lives)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "NOT IN TIME"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
