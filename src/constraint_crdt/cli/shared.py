"""The commands on other data of the fleet that no operation declares alone: tile, tally, seen, counter, position.

With `--json` they print the answer of the API.
"""

import argparse
import base64
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from constraint_crdt.cli.connection import connect
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.cli.output import present, print_json
from constraint_crdt.operations.command import Column, Lines, Table, View
from constraint_crdt.operations.tiles import TileContent, TileRemoved

if TYPE_CHECKING:
    from constraint_crdt.operations.counters import CounterReport
    from constraint_crdt.operations.positions import PositionReport
    from constraint_crdt.operations.sketches import InsertReport, SeenReport, TallyReport
    from constraint_crdt.operations.tiles import TileReport


# --- tiles ------------------------------------------------------------------------------------------------------------------


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
