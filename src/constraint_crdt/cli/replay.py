"""Histories and recordings: `simulate --chaos` searches for a history that breaks an invariant, `simulate --replay` repeats it.

`replay` runs the flight recording of a node again, step by step, and compares the states. Its exit code is 0 if they agree, 1 if
they do not, or if two recordings of a fleet differ at equal clocks.
"""

import argparse
import multiprocessing
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from constraint_crdt.cli.arguments import PROGRAM
from constraint_crdt.cli.files import read_whole, write_whole
from constraint_crdt.cli.output import INTERRUPTED, CommandFailedError, MisuseError, print_json, print_lines, printable
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.simulation import histories
from constraint_crdt.simulation.chaos import SearchExtent, search_seeds
from constraint_crdt.simulation.histories import FILE_BYTES, History, from_json, shrink, to_json
from constraint_crdt.simulation.recorder import Frame, Replay, ReplayedInput, decode_frames, first_difference

BATCH = 8
"""Seeds that a process is given at a time."""

TOLD_EVERY = 2.0
"""Seconds between two lines on the progress of the search."""

MOST_BYTES = 1 << 30
"""Of a recording."""

_Part = tuple[SearchExtent, History | None]

_TEST = '''"""A recorded node, run again: it must come to the hashes recorded. Written by `constraint-crdt replay --test`."""

from pathlib import Path

from constraint_crdt.simulation.recorder import decode_frames
from constraint_crdt.simulation.recorder import Replay

RECORDING = Path(__file__).parent / {name!r}


def test_the_recording_replays_to_the_same_hashes() -> None:
    for step in Replay(decode_frames(RECORDING.read_bytes())):
        assert step.agrees, f"step {{step.number}}: {{step.said}}"
'''


# --- search and replay of a history ----------------------------------------------------------------------------------------


def search(*, first_seed: int, most: int | None, seconds: float, workers: int, signed: bool, as_json: bool) -> int:
    """Search for `seconds`, or `most` histories, or until an invariant breaks: 0 if none did, else 1 and a file of the history."""
    tally, found, interrupted = SearchExtent(), None, False
    began = told = time.monotonic()
    try:
        for part, history in _parts(first_seed, most, began + seconds, workers, signed=signed):
            tally.add(part)
            if history is not None and (found is None or history.seed < found.seed):
                found = history
            if found is not None:
                break
            if time.monotonic() - told > TOLD_EVERY:
                told = time.monotonic()
                print(f"{tally.histories} histories, {tally.events} events, no violation so far", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        interrupted = True
    elapsed = time.monotonic() - began
    if as_json:
        print_json(_as_json(tally, found, elapsed))
    else:
        _print_tally(tally, elapsed)
    if found is not None:
        _keep(found)
        return 1
    if interrupted:
        print("interrupted: this is what there was by then, and nothing went wrong in it", file=sys.stderr)
        return INTERRUPTED
    never = [*tally.never_fired(), *tally.never_written()]
    if never:
        print(f"{PROGRAM} simulate: never came about: {', '.join(never)}; search for longer", file=sys.stderr)
    return 1 if never else 0


def _parts(first_seed: int, most: int | None, end: float, workers: int, *, signed: bool = False) -> Iterator[_Part]:
    """Batch after batch of histories, from as many processes."""
    seed, last = first_seed, None if most is None else first_seed + most
    if workers == 1:
        while time.monotonic() < end and (last is None or seed < last):
            count = 1 if last is None else min(BATCH, last - seed)
            yield search_seeds(seed, count, signed=signed)
            seed += count
        return
    context = multiprocessing.get_context("spawn")  # a fork of the caller might hold locks
    with ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts) as pool:
        waiting: set[Future[_Part]] = set()
        try:
            while waiting or (time.monotonic() < end and (last is None or seed < last)):
                while len(waiting) < workers + 1 and time.monotonic() < end and (last is None or seed < last):
                    count = BATCH if last is None else min(BATCH, last - seed)
                    waiting.add(pool.submit(partial(search_seeds, signed=signed), seed, count))
                    seed += count
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C goes to all processes of a terminal; the first process ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _keep(found: History) -> None:
    """Write the history to a file, shrunk if there is time."""
    name = f"chaos-{found.seed}.json"
    print(f"seed {found.seed} breaks an invariant after {len(found.steps)} steps: {printable(found.sentence)}", file=sys.stderr)
    write_whole(name, to_json(found).encode())
    try:
        found = shrink(found)
        write_whole(name, to_json(found).encode())
    except KeyboardInterrupt:
        print("interrupted: the file holds the whole history", file=sys.stderr)
    print(f"{len(found.steps)} steps are in {name}; see it again: {PROGRAM} simulate --replay {name}", file=sys.stderr)


def _print_tally(tally: SearchExtent, elapsed: float) -> None:
    rate = tally.histories / elapsed if elapsed else 0.0
    print_lines(
        [
            ("histories", f"{tally.histories} ({rate:.1f} a second)"),
            ("mutations", tally.operations),
            ("events", tally.events),
            ("checks", f"{tally.checks} states compared with the log"),
        ]
    )
    for what, happened in (("faults", tally.fired), ("writes", tally.written)):
        print_lines([(what, ", ".join(f"{kind} {times}" for kind, times in sorted(happened.items())))])


def _as_json(tally: SearchExtent, found: History | None, elapsed: float) -> dict[str, object]:
    return {
        "histories": tally.histories,
        "seconds": elapsed,
        "mutations": tally.operations,
        "events": tally.events,
        "checks": tally.checks,
        "faults": dict(sorted(tally.fired.items())),
        "never_fired": tally.never_fired(),
        "writes": dict(sorted(tally.written.items())),
        "never_written": tally.never_written(),
        "violation": None if found is None else {"seed": found.seed, "invariant": found.invariant, "sentence": found.sentence},
    }


def replay_file(name: str, *, as_json: bool) -> int:
    """Run a history again, step by step: 1 if it breaks an invariant again, else 0."""
    try:
        history = from_json(read_whole(name, FILE_BYTES))
    except ConstraintCrdtError as error:
        raise MisuseError(f"{name}: {error}") from None
    violation = histories.replay(history.members, history.steps)
    if as_json:
        print_json({"steps": len(history.steps), "violation": None if violation is None else str(violation)})
        return 0 if violation is None else 1
    for step in history.steps:
        print(printable(step))
    print(printable(violation) if violation is not None else f"all is well now; it was: {printable(history.sentence)}")
    return 0 if violation is None else 1


# --- replay of a recording -------------------------------------------------------------------------------------------------


def replay(arguments: argparse.Namespace) -> int:
    """Run a recording again, or compare two."""
    if len(arguments.files) > 2:
        raise MisuseError("replay takes one recording, or two to compare")
    recordings = [_read_recording(Path(name)) for name in arguments.files]
    try:
        outcomes = [_run_again(Path(name), frames, arguments) for name, frames in zip(arguments.files, recordings, strict=True)]
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
    return int(difference is not None or any(each.differs_at is not None for each in outcomes))


def _read_recording(path: Path) -> list[Frame]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CommandFailedError(f"{path} has more than {MOST_BYTES} bytes: no node records so much")
        return decode_frames(path.read_bytes())
    except OSError as error:
        raise CommandFailedError(f"cannot read {path}: {error.strerror or error}") from None
    except ConstraintCrdtError as error:
        raise CommandFailedError(f"cannot replay {path}: {error}") from None


class ReplayOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a replay. Times in ns since the epoch."""

    file: str
    node: str
    inputs: int
    steps: int
    begins: int = msgspec.field(name="from")
    ends: int = msgspec.field(name="to")
    hash: str
    """Of the state at the end, hex."""
    constraints: int
    differs_at: int | None
    """The step with the first state that differs from the recorded state; None if all agree."""


def _run_again(path: Path, frames: Sequence[Frame], arguments: argparse.Namespace) -> ReplayOutcome:
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
    outcome = ReplayOutcome(
        file=str(path),
        node=node.node_id,
        inputs=len(again),
        steps=last,
        begins=frames[0].time,
        ends=frames[last - 1].time,
        hash=node.state_hash.hex(),
        constraints=len(node.state.constraints),
        differs_at=differs_at,
    )
    if not arguments.json:
        verdict = "as recorded" if differs_at is None else f"DIFFERS from what was recorded, first at step {differs_at}"
        print_lines(
            [
                ("node", f"{node.node_id}, {path}"),
                ("steps", f"{last} of {len(again)}, {_time(outcome.begins)} to {_time(outcome.ends)}"),
                ("state", f"{node.state_hash}, {outcome.constraints} constraints"),
                ("replay", verdict),
            ]
        )
    return outcome


def _print_step(step: ReplayedInput, again: Replay) -> None:
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
