"""The commands on other data that the fleet shares: tiles, counters, sketches and filters, rates, the position.

With `--json` they print the answer of the API.
"""

import argparse
import base64
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from constraint_crdt.cli.connection import connect
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.cli.output import present, print_json
from constraint_crdt.operations.command import Column, Lines, Table, View
from constraint_crdt.operations.tiles import TileContent, TileRemoved
from constraint_crdt.operations.values import parse_duration, show_duration

if TYPE_CHECKING:
    from constraint_crdt.operations.counters import CounterReport
    from constraint_crdt.operations.counts import ConstraintRate, NodeRate, RatesReport
    from constraint_crdt.operations.positions import PositionReport
    from constraint_crdt.operations.sketches import InsertReport, SeenReport, TallyReport, TopReport
    from constraint_crdt.operations.tiles import TileReport


# --- tiles ------------------------------------------------------------------------------------------------------------------


def tiles(arguments: argparse.Namespace) -> int:
    """The tiles, or those that are deleted."""
    answer = connect(arguments).tiles(arguments.room, prefix=arguments.prefix, deleted=arguments.deleted)
    return present(answer, show_tiles(answer), as_json=arguments.json)


def show_tiles(answer: "list[TileReport]") -> View:
    """A row for each tile."""
    columns = [
        Column("room"),
        Column("id"),
        Column("bytes", right=True),
        Column("author"),
        Column("updated"),
        Column("by"),
        Column("tags"),
        Column("constraints"),
        Column("satisfied", right=True),
        Column("violated", right=True),
        Column("position"),
    ]
    rows = [
        [
            each.room,
            each.id,
            each.size,
            each.author,
            _utc_time(each.updated),
            each.written_by or "-",
            ", ".join(each.tags) or "-",
            ", ".join(each.constraints) or "-",
            each.satisfied,
            each.violations,
            "-" if each.position is None else _pair(each.position),
        ]
        for each in answer
    ]
    return Table(columns, rows)


def _utc_time(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError):
        return "-"


def put(arguments: argparse.Namespace) -> int:
    """Replace the content of a tile."""
    content = arguments.text
    if content is None:
        from constraint_crdt.cli.files import STANDARD, read_whole
        from constraint_crdt.crdt.limits import TILE_BYTES

        content = read_whole(arguments.file or STANDARD, TILE_BYTES)
    answer = connect(arguments).put_tile(
        arguments.room,
        arguments.id,
        content,
        author=arguments.author,
        tags=arguments.tags,
        constraints=arguments.constraint,
    )
    return present(answer, show_put_tile(answer), as_json=arguments.json)


def show_put_tile(answer: "TileReport") -> str:
    """The size and hash of the content, in a sentence."""
    return f"{answer.room} {answer.id}: {answer.size} bytes, {answer.hash[:16]}"


def get(arguments: argparse.Namespace) -> int:
    """Print the content of a tile, or write it to a file."""
    from constraint_crdt.cli.files import STANDARD, write_whole

    answer = connect(arguments).tile(arguments.room, arguments.id)
    content = base64.b64decode(answer.base64 or "") if answer.text is None else answer.text.encode()
    if arguments.output is not None and arguments.output != STANDARD:
        write_whole(arguments.output, content)
        if arguments.json:
            print_json({"file": arguments.output, **_without_content(answer)})
    elif arguments.json:
        print_json(answer)
    elif sys.stdout.isatty():
        _print_on_terminal(answer.text)
    else:
        write_whole(STANDARD, content)
    return 0


def _without_content(answer: TileContent) -> dict[str, object]:
    return {name: getattr(answer, name) for name in answer.__struct_fields__ if name not in ("text", "base64")}


def _print_on_terminal(text: str | None) -> None:
    """Print a text of any member of the fleet. Raises `MisuseError` if it could steer the terminal."""
    if text is None or not all(char.isprintable() or char in "\n\t" for char in text):
        raise MisuseError("the content is binary, or would steer the terminal: write it to a file with -o FILE")
    print(text, end="" if text.endswith("\n") or not text else "\n")


def rm(arguments: argparse.Namespace) -> int:
    """Delete a tile."""
    answer = connect(arguments).delete_tile(arguments.room, arguments.id)
    return present(answer, show_delete_tile(answer), as_json=arguments.json)


def show_delete_tile(answer: TileRemoved) -> str:
    """The deletion, in a sentence."""
    return f"{answer.room} {answer.id}: deleted; `tile restore` brings it back for a while"


def restore(arguments: argparse.Namespace) -> int:
    """Undo the deletion of a tile."""
    answer = connect(arguments).restore_tile(arguments.room, arguments.id)
    return present(answer, show_restore_tile(answer), as_json=arguments.json)


def show_restore_tile(answer: "TileReport") -> str:
    """The tile that is back, in a sentence."""
    return f"{answer.room} {answer.id}: restored, {answer.size} bytes"


def tag(arguments: argparse.Namespace) -> int:
    """Add tags and constraints to a tile."""
    tags, constraints = _elements(arguments)
    answer = connect(arguments).edit_tile(arguments.room, arguments.id, add_tags=tags, add_constraints=constraints)
    return present(answer, show_edit_tile(answer), as_json=arguments.json)


def untag(arguments: argparse.Namespace) -> int:
    """Take tags and constraints from a tile."""
    tags, constraints = _elements(arguments)
    answer = connect(arguments).edit_tile(arguments.room, arguments.id, remove_tags=tags, remove_constraints=constraints)
    return present(answer, show_edit_tile(answer), as_json=arguments.json)


def _elements(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The tags and the constraints. Raises `MisuseError` if there are none."""
    if not arguments.tags and not arguments.constraint:
        raise MisuseError("there is nothing to do: name a TAG, or --constraint ID")
    return arguments.tags, arguments.constraint


def show_edit_tile(answer: "TileReport") -> str:
    """The tags and constraints of the tile, in a sentence."""
    tags, constraints = ", ".join(answer.tags) or "none", ", ".join(answer.constraints) or "none"
    return f"{answer.room} {answer.id}: tags {tags}; constraints {constraints}"


# --- sketches and filters ---------------------------------------------------------------------------------------------------


def top(arguments: argparse.Namespace) -> int:
    """The most frequent items of a sketch."""
    answer = connect(arguments).top(arguments.k, of=arguments.of)
    return present(answer, show_top(answer), as_json=arguments.json)


def show_top(answer: "TopReport") -> View:
    """A row for each item."""
    if not answer.items:
        return f"nothing counted in {answer.of} yet"
    columns = [Column("item"), *(Column(title, right=True) for title in ("at most", "at least", "share", "exact"))]
    rows = [
        [
            each.item,
            each.estimate if each.upper is not None else "saturated",
            each.lower,
            f"{100 * each.share:.2f} %",
            "-" if each.exact is None else each.exact,
        ]
        for each in answer.items
    ]
    return Table(columns, rows)


def tally(arguments: argparse.Namespace) -> int:
    """Count an item."""
    name = _not_empty(arguments.of)
    answer = connect(arguments).tally(name, {arguments.item: arguments.count})
    return present(answer, show_tally(answer, arguments.item), as_json=arguments.json)


def show_tally(answer: "TallyReport", item: str) -> str:
    """The counts, in a sentence."""
    return f"counted {answer.recorded} of {item} in {answer.name}, {answer.total} in all"


def seen(arguments: argparse.Namespace) -> int:
    """Whether any node has put an item into a filter; with `--add`, put it in as well. Exit code 0 with either answer."""
    if not arguments.add and (arguments.expect is not None or arguments.fp_rate is not None):
        raise MisuseError("--expect and --fp-rate are for a filter that begins: give --add with them")
    client, name, item = connect(arguments), _not_empty(arguments.name), arguments.item
    if arguments.add:
        inserted = client.insert(name, [item], expected_items=arguments.expect, fp_rate=arguments.fp_rate)
        return present(inserted, show_insert(inserted, item), as_json=arguments.json)
    answer = client.seen(name, item)
    return present(answer, show_seen(answer), as_json=arguments.json)


def show_insert(answer: "InsertReport", item: str) -> str:
    """Whether the item is new, in a sentence."""
    return f"{item}: seen before{_doubt(answer.fpr)}" if answer.new == 0 else f"{item}: new, and put in"


def show_seen(answer: "SeenReport") -> str:
    """Whether the item is in the filter, in a sentence."""
    return f"{answer.item}: seen{_doubt(answer.fpr)}" if answer.seen else f"{answer.item}: not seen"


def _doubt(fpr: float) -> str:
    return f" (wrong in {100 * fpr:.2g} % of what is new)"


def _not_empty(name: str) -> str:
    if not name:
        raise MisuseError("the name must not be empty")
    return name


# --- rates ------------------------------------------------------------------------------------------------------------------


def rate(arguments: argparse.Namespace) -> int:
    """The recent rates of satisfied and violated evaluations."""
    half_life = None if arguments.half_life is None else parse_duration(arguments.half_life)
    answer = connect(arguments).rates(half_life=half_life, constraint=arguments.id)
    return present(answer, show_rates(answer, arguments.id, by_node=arguments.by_node), as_json=arguments.json)


def show_rates(answer: "RatesReport", constraint: str | None, *, by_node: bool) -> View:
    """A row for each constraint, or for each of its nodes, and notes on clocks and half-lives.

    `constraint`: the one that was asked for; without it the last row is the total.
    """
    named = [(each.constraint or "none in particular", each) for each in answer.constraints]
    if constraint is None:
        named.append(("all", answer.total))
    titles = ("satisfied", "violated", "violated share", "satisfied/min", "violated/min")
    columns = [Column("constraint"), *([Column("node")] if by_node else [])]
    columns += [Column(title, right=True) for title in titles if not by_node or "/" not in title]
    rows: list[list[object]] = []
    for name, each in named:
        if by_node:
            rows += [[name, node, *_amounts(rate)] for node, rate in each.by_node.items()]
        else:
            rows.append([name, *_amounts(each), f"{each.satisfied_per_minute:.2f}", f"{each.violated_per_minute:.2f}"])
    head = f"evaluations of late, where one counts half after {show_duration(answer.half_life)}"
    return [head, Table(columns, rows), *_notes(answer)]


def _amounts(rate: "ConstraintRate | NodeRate") -> list[str]:
    share = rate.violated_share
    return [f"{rate.satisfied:.2f}", f"{rate.violated:.2f}", "-" if share is None else f"{100 * share:.2f} %"]


def _notes(answer: "RatesReport") -> list[str]:
    """Conditions under which the rates are not exact."""
    notes = []
    if answer.untracked_by:
        notes.append(f"without some of {', '.join(answer.untracked_by)}: this half-life is not tracked there")
    if answer.ahead:
        notes.append(
            f"values from clocks ahead of this one: {answer.ahead}, by up to {answer.worst_skew:.0f} s; "
            "they count as of when they arrived"
        )
    if answer.steps_back:
        notes.append(f"times that the clock of this node was set back: {answer.steps_back}; no time counts as passed then")
    return notes


# --- counters ---------------------------------------------------------------------------------------------------------------


def counter(arguments: argparse.Namespace) -> int:
    """The value of one counter; with `--by`, move it first."""
    client, name = connect(arguments), arguments.name
    if not name:
        raise MisuseError("a counter has a name of 1 to 256 bytes: give one")
    answer = client.counter(name) if arguments.by is None else client.move_counter(name, arguments.by)
    return present(answer, show_counter(answer), as_json=arguments.json)


def show_counter(answer: "CounterReport") -> View:
    """The values by name."""
    return Lines(
        [
            ("counter", answer.name),
            ("value", answer.value),
            ("moves", f"up by {answer.increments}, down by {answer.decrements}"),
            ("by node", ", ".join(f"{node} {moved:+d}" for node, moved in answer.by_node.items())),
        ]
    )


def counters(arguments: argparse.Namespace) -> int:
    """All counters."""
    answer = connect(arguments).counters()
    return present(answer, show_counters(answer), as_json=arguments.json)


def show_counters(answer: "list[CounterReport]") -> View:
    """A row for each counter."""
    columns = [Column("counter"), *(Column(title, right=True) for title in ("value", "up by", "down by", "nodes"))]
    return Table(columns, [[each.name, each.value, each.increments, each.decrements, len(each.by_node)] for each in answer])


# --- the position -----------------------------------------------------------------------------------------------------------


def position(arguments: argparse.Namespace) -> int:
    """The positions of the fleet and its nodes; with two coordinates, move the fleet there first."""
    client, to = connect(arguments), _coordinates(arguments.to)
    answer = client.position() if to is None else client.move(to)
    return present(answer, show_position(answer), as_json=arguments.json)


def show_position(answer: "PositionReport") -> View:
    """The position of the fleet, and a row for each node with one."""
    if answer.position is None or answer.time is None:
        return "nobody has given a position yet: `position A B` does"
    when = datetime.fromtimestamp(answer.time / 1e9).astimezone().isoformat(sep=" ", timespec="seconds")
    columns = [Column("node"), *(Column(title, right=True) for title in ("position", "norm", "steps away"))]
    return [
        Lines([("position", _pair(answer.position)), ("norm", answer.norm), ("written", f"by {answer.by}, {when}")]),
        "",
        Table(columns, [[node, _pair(own.position), own.norm, own.distance] for node, own in answer.nodes.items()]),
    ]


def _coordinates(texts: list[str]) -> tuple[int, int] | None:
    if not texts:
        return None
    try:
        numbers = [int(text) for text in texts]
    except ValueError:
        numbers = []
    if len(numbers) != 2:
        raise MisuseError(f"{' '.join(texts)!r} is no position: give two whole numbers, as in 3 -1")
    return numbers[0], numbers[1]


def _pair(point: Sequence[int]) -> str:
    return "{}, {}".format(*point)
