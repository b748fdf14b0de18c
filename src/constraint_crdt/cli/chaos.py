"""`simulate --chaos` and `simulate --replay`: the search for a history that goes wrong, and such a history again."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from constraint_crdt.cli.arguments import PROGRAM
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.cli.files import read_whole, write_whole
from constraint_crdt.cli.output import print_json, print_lines, printable
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.simulation.chaos import Coverage, search_seeds
from constraint_crdt.simulation.histories import FILE_BYTES, History, from_json, replay, shrink, to_json

BATCH = 8
"""Seeds that a process is given at a time."""

INTERRUPTED = 130
TOLD_EVERY = 2.0
"""Seconds between two lines on how far the search has come."""

_Part = tuple[Coverage, History | None]


def search(*, first_seed: int, most: int | None, seconds: float, workers: int, as_json: bool) -> int:
    """Search until the time is over, `most` histories are done or one goes wrong: 0 if none did, else 1; its file is written."""
    tally, found, interrupted = Coverage(), None, False
    began = told = time.monotonic()
    try:
        for part, history in _parts(first_seed, most, began + seconds, workers):
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


def _parts(first_seed: int, most: int | None, end: float, workers: int) -> Iterator[_Part]:
    """Batch after batch of histories, from as many processes."""
    seed, last = first_seed, None if most is None else first_seed + most
    if workers == 1:
        while time.monotonic() < end and (last is None or seed < last):
            count = 1 if last is None else min(BATCH, last - seed)
            yield search_seeds(seed, count)
            seed += count
        return
    context = multiprocessing.get_context("spawn")  # a fork of whoever calls this might hold locks
    with ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts) as pool:
        waiting: set[Future[_Part]] = set()
        try:
            while waiting or (time.monotonic() < end and (last is None or seed < last)):
                while len(waiting) < workers + 1 and time.monotonic() < end and (last is None or seed < last):
                    count = BATCH if last is None else min(BATCH, last - seed)
                    waiting.add(pool.submit(search_seeds, seed, count))
                    seed += count
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C goes to all processes of a terminal; the one that started the others ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _keep(found: History) -> None:
    """Write what goes wrong to a file, as short as it gets."""
    name = f"chaos-{found.seed}.json"
    print(f"seed {found.seed} breaks an invariant after {len(found.steps)} steps: {printable(found.sentence)}", file=sys.stderr)
    write_whole(name, to_json(found).encode())
    try:
        found = shrink(found)
        write_whole(name, to_json(found).encode())
    except KeyboardInterrupt:
        print("interrupted: the file holds the whole history", file=sys.stderr)
    print(f"{len(found.steps)} steps are in {name}; see it again: {PROGRAM} simulate --replay {name}", file=sys.stderr)


def _print_tally(tally: Coverage, elapsed: float) -> None:
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


def _as_json(tally: Coverage, found: History | None, elapsed: float) -> dict[str, object]:
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
    """Run a history again, step by step: 1 if it goes wrong, as it should, 0 if it does not any more."""
    try:
        history = from_json(read_whole(name, FILE_BYTES))
    except ConstraintCrdtError as error:
        raise MisuseError(f"{name}: {error}") from None
    violation = replay(history.members, history.steps)
    if as_json:
        print_json({"steps": len(history.steps), "violation": None if violation is None else str(violation)})
        return 0 if violation is None else 1
    for step in history.steps:
        print(printable(step))
    print(printable(violation) if violation is not None else f"all is well now; it was: {printable(history.sentence)}")
    return 0 if violation is None else 1
