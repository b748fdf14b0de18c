"""The commands on tiles: tiles, and tile put, get, rm, restore, tag, untag. With `--json` they print what the API answered."""

import argparse
import base64
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.cli.files import STANDARD, read_whole, write_whole
from constraint_crdt.cli.output import print_json, print_table, printable
from constraint_crdt.crdt.limits import TILE_BYTES
from constraint_crdt.operations.command import Column


def tiles(arguments: argparse.Namespace) -> int:
    """The tiles that there are, or that are deleted."""
    query = {"prefix": arguments.prefix, "deleted": "1" if arguments.deleted else "0"}
    if arguments.room is not None:
        query["room"] = arguments.room
    answer: Any = ApiClient.chosen(arguments).get(f"tiles?{urlencode(query, errors='replace')}")
    if arguments.json:
        print_json(answer)
        return 0
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
    print_table(columns, [_row(each) for each in answer])
    return 0


def put(arguments: argparse.Namespace) -> int:
    """Make this the content of a tile."""
    body: dict[str, object] = {"author": arguments.author, "tags": arguments.tags, "constraints": arguments.constraint}
    if arguments.text is not None:
        body["text"] = arguments.text
    else:
        body["base64"] = base64.b64encode(read_whole(arguments.file or STANDARD, TILE_BYTES)).decode()
    answer: Any = ApiClient.chosen(arguments).put(_path(arguments), body)
    _say(arguments, answer, f"{answer['room']} {answer['id']}: {answer['size']} bytes, {answer['hash'][:16]}")
    return 0


def get(arguments: argparse.Namespace) -> int:
    """Print the content of a tile, or write it to a file."""
    answer: Any = ApiClient.chosen(arguments).get(_path(arguments))
    content = base64.b64decode(answer["base64"]) if answer["text"] is None else answer["text"].encode()
    if arguments.output is not None and arguments.output != STANDARD:
        write_whole(arguments.output, content)
        if arguments.json:
            print_json({"file": arguments.output, **{key: answer[key] for key in answer if key not in ("text", "base64")}})
    elif arguments.json:
        print_json(answer)
    elif sys.stdout.isatty():
        _show(answer["text"])
    else:
        write_whole(STANDARD, content)
    return 0


def rm(arguments: argparse.Namespace) -> int:
    """Delete a tile."""
    answer: Any = ApiClient.chosen(arguments).delete(_path(arguments))
    _say(arguments, answer, f"{answer['room']} {answer['id']}: deleted; `tile restore` brings it back for a while")
    return 0


def restore(arguments: argparse.Namespace) -> int:
    """Undo the deletion of a tile."""
    answer: Any = ApiClient.chosen(arguments).post(f"{_path(arguments)}/restore", {})
    _say(arguments, answer, f"{answer['room']} {answer['id']}: restored, {answer['size']} bytes")
    return 0


def tag(arguments: argparse.Namespace) -> int:
    """Add tags and constraints to a tile."""
    return _edit(arguments, "add")


def untag(arguments: argparse.Namespace) -> int:
    """Take tags and constraints from a tile."""
    return _edit(arguments, "remove")


def _edit(arguments: argparse.Namespace, how: str) -> int:
    if not arguments.tags and not arguments.constraint:
        raise MisuseError("there is nothing to do: name a TAG, or --constraint ID")
    body = {f"{how}_tags": arguments.tags, f"{how}_constraints": arguments.constraint}
    answer: Any = ApiClient.chosen(arguments).patch(_path(arguments), body)
    tags, constraints = ", ".join(answer["tags"]) or "none", ", ".join(answer["constraints"]) or "none"
    _say(arguments, answer, f"{answer['room']} {answer['id']}: tags {tags}; constraints {constraints}")
    return 0


def _path(arguments: argparse.Namespace) -> str:
    return f"tiles/{_segment(arguments.room)}/{_segment(arguments.id)}"


def _segment(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _row(each: dict[str, Any]) -> list[object]:
    position = "-" if each["position"] is None else "{}, {}".format(*each["position"])
    sets = [", ".join(each["tags"]) or "-", ", ".join(each["constraints"]) or "-"]
    written = [each["author"], _moment(each["updated"]), each["written_by"] or "-"]
    return [each["room"], each["id"], each["size"], *written, *sets, each["satisfied"], each["violations"], position]


def _moment(time: int) -> str:
    try:
        return datetime.fromtimestamp(time // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError):
        return "-"


def _show(text: str | None) -> None:
    """Print text on a terminal, which anyone in the fleet may have written: nothing in it may steer the terminal."""
    if text is None or not all(char.isprintable() or char in "\n\t" for char in text):
        raise MisuseError("the content is binary, or would steer the terminal: write it to a file with -o FILE")
    print(text, end="" if text.endswith("\n") or not text else "\n")


def _say(arguments: argparse.Namespace, answer: object, sentence: str) -> None:
    if arguments.json:
        print_json(answer)
    else:
        print(printable(sentence))
