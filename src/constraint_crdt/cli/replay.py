"""`replay`: runs a node's flight recording again, step by step, and says whether it comes to what was recorded.

Exit code 0 if it does, 1 if it does not, or if two recordings of one fleet parted at equal clocks.
"""

import argparse
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from constraint_crdt.cli.errors import CommandFailedError, MisuseError
from constraint_crdt.cli.output import print_json, print_lines, printable
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.simulation.recorder import Frame, Replay, Step, decode_frames, first_difference

MOST_BYTES = 1 << 30

_TEST = '''"""A recorded node, run again: it must come to the hashes recorded. Written by `constraint-crdt replay --test`."""

from pathlib import Path

from constraint_crdt.simulation.recorder import decode_frames
from constraint_crdt.simulation.recorder import Replay

RECORDING = Path(__file__).parent / {name!r}


def test_the_recording_replays_to_the_same_hashes() -> None:
    for step in Replay(decode_frames(RECORDING.read_bytes())):
        assert step.agrees, f"step {{step.number}}: {{step.said}}"
'''


def replay(arguments: argparse.Namespace) -> int:
    """Run one recording again, or compare two."""
    if len(arguments.files) > 2:
        raise MisuseError("replay takes one recording, or two to compare")
    recordings = [_read(Path(name)) for name in arguments.files]
    try:
        outcomes = [_run(Path(name), frames, arguments) for name, frames in zip(arguments.files, recordings, strict=True)]
        difference = first_difference(*recordings) if len(recordings) == 2 else None
    except ConstraintCrdtError as error:
        raise CommandFailedError(f"a recording cannot be run again: {error}") from None
    if arguments.test is not None:
        _write_test(Path(arguments.files[0]), Path(arguments.test))
    if arguments.json:
        parted = difference and {"steps": list(difference.steps), "time": difference.time, "cells": list(difference.cells)}
        print_json({"recordings": outcomes, "difference": parted})
    elif len(recordings) == 2:
        if difference is None:
            print("the two never had equal clocks and different states")
        else:
            print(f"first differed at {_time(difference.time)}, after step {difference.steps[0]} and step {difference.steps[1]}:")
            print(printable("\n".join(difference.cells)).replace("\\n", "\n"))
    return int(difference is not None or any(each["differs_at"] is not None for each in outcomes))


def _read(path: Path) -> list[Frame]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CommandFailedError(f"{path} has more than {MOST_BYTES} bytes: no node records so much")
        return decode_frames(path.read_bytes())
    except OSError as error:
        raise CommandFailedError(f"cannot read {path}: {error.strerror or error}") from None
    except ConstraintCrdtError as error:
        raise CommandFailedError(f"cannot replay {path}: {error}") from None


def _run(path: Path, frames: Sequence[Frame], arguments: argparse.Namespace) -> dict[str, Any]:
    again, differs_at, last = Replay(frames), None, 0
    for step in again:
        last = step.number
        if arguments.steps and not arguments.json:
            _print_step(step, again)
        if not step.agrees:
            differs_at = step.number
            break
        if arguments.until is not None and step.number >= arguments.until:
            break
    node = again.node
    outcome: dict[str, Any] = {
        "file": str(path),
        "node": node.node_id,
        "inputs": len(again),
        "steps": last,
        "from": frames[0].time,
        "to": frames[last - 1].time,
        "hash": node.state_hash.hex(),
        "constraints": len(node.state.constraints),
        "differs_at": differs_at,
    }
    if not arguments.json:
        verdict = "as recorded" if differs_at is None else f"DIFFERS from what was recorded, first at step {differs_at}"
        print_lines(
            [
                ("node", f"{node.node_id}, {path}"),
                ("steps", f"{last} of {len(again)}, {_time(outcome['from'])} to {_time(outcome['to'])}"),
                ("state", f"{node.state_hash}, {outcome['constraints']} constraints"),
                ("replay", verdict),
            ]
        )
    return outcome


def _print_step(step: Step, again: Replay) -> None:
    mark = "" if step.agrees else "  <- another state than was recorded"
    print(printable(f"{step.number:>6} {_time(step.frame.time)} {again.node.state_hash} {step.said}{mark}"))


def _write_test(recording: Path, test: Path) -> None:
    if test.suffix != ".py" or not test.name.startswith("test_"):
        raise CommandFailedError(f"--test {test}: give a file that pytest finds, test_SOMETHING.py")
    kept = test.with_suffix(".recording")
    try:
        shutil.copyfile(recording, kept)
        test.write_text(_TEST.format(name=kept.name), encoding="utf-8")
    except (OSError, shutil.SameFileError) as error:
        raise CommandFailedError(f"cannot write the test {test}: {error}") from None


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(sep=" ", timespec="milliseconds")
