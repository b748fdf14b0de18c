"""What the demo shows while it runs: a table that stays in place on a terminal, lines with the time anywhere else."""

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

from constraint_crdt.cli.output import aligned, printable
from constraint_crdt.operations.command import Column


class Scene(NamedTuple):
    """The fleet at one moment."""

    nodes: Sequence[str]
    statuses: dict[str, Any]
    """What each node that answers says of itself."""
    constraints: Sequence[Any]
    """The constraints as one node that answers lists them."""

    def agreement(self) -> str:
        """How many nodes enforce the same, in words."""
        hashes = [status["constraints_hash"] for status in self.statuses.values()]
        most = max((hashes.count(each) for each in hashes), default=0)
        return f"{most} of {len(hashes)} live nodes enforce the same {len(self.constraints)} constraints"


class Screen(Protocol):
    """Where the demo speaks to."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def show(self, scene: Scene) -> None:
        """How the fleet is doing now."""

    def table(self, scene: Scene) -> None:
        """How the fleet is doing now, constraint by node, to stay."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def make_screen() -> Screen:
    """The screen that suits stdout."""
    return _TerminalScreen() if sys.stdout.isatty() else _PlainScreen()


def _columns(scene: Scene) -> list[Column]:
    return [Column("satisfied/violated"), *(Column(name, right=True) for name in scene.nodes)]


def _rows(scene: Scene) -> list[list[str]]:
    rows = []
    for each in scene.constraints:
        counts = each["by_node"]
        rows.append([printable(each["id"]), *("{}/{}".format(*counts[name]) if name in counts else "-" for name in scene.nodes)])
    short = {name: status["constraints_hash"][:8] for name, status in scene.statuses.items()}
    rows.append(["constraints_hash", *(short.get(name, "down") for name in scene.nodes)])
    return rows


class _PlainScreen:
    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)

    def show(self, scene: Scene) -> None:
        counts = ", ".join(f"{printable(each['id'])} {each['satisfied']}/{each['violations']}" for each in scene.constraints)
        self.say(scene.agreement() + (f"; satisfied/violated: {counts}" if counts else ""))

    def table(self, scene: Scene) -> None:
        print(*(f"          {line}" for line in aligned(_columns(scene), _rows(scene))), sep="\n", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""


class _TerminalScreen:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:6.1f} s  {text}", markup=False, highlight=False)

    def show(self, scene: Scene) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(scene.agreement()))
        for column in _columns(scene):
            table.add_column(Text(column.title), justify="right" if column.right else "left", overflow="fold")
        rows = _rows(scene)
        for row in rows:
            table.add_row(*(Text(text, style="bold red" if text == "down" else "") for text in row), end_section=row is rows[-2])
        self._live.update(table, refresh=True)

    def table(self, scene: Scene) -> None:
        self.show(scene)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
