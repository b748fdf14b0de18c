"""`guard`: a program that runs only while constraints hold on the node.

Rules:

- The program runs in a process group of its own, and is stopped by SIGTERM to the group, and by SIGKILL after the grace. On Linux
  the kernel kills the program if the guard itself is killed.
- The guard asks the node for a change and waits at the node, so it hears of a violation with the sample that causes it.
- A node that does not answer for `--lost-after` is lost: `--if-lost` says how to go on. The guard goes on asking.
- SIGTERM, SIGHUP and Ctrl-C to the guard stop the program, and end the guard with its code.

Exit codes beside those of the program: 121 violated, 122 undecided, 123 node lost.
"""

import argparse
import contextlib
import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from constraint_crdt.cli.arguments import PROGRAM
from constraint_crdt.cli.connection import as_failure, connect
from constraint_crdt.cli.output import CommandFailedError, MisuseError, present, printable
from constraint_crdt.client import ClientError, NoAnswer
from constraint_crdt.client.blocking import Client
from constraint_crdt.operations.command import parse_duration
from constraint_crdt.operations.guards import GuardReport

VIOLATED, UNDECIDED, LOST = 121, 122, 123
"""Exit codes."""

ASK_AGAIN: Final = 0.2
"""Seconds after a question without an answer."""

LOOK_EVERY: Final = 0.05
"""Seconds between two looks at the program."""

LONGEST_ASK: Final = 10.0
"""Seconds that a question waits at the node."""

PR_SET_PDEATHSIG: Final = 1


def guard(arguments: argparse.Namespace) -> int:
    """Run a program while constraints hold; with `--dry-run` say whether it would be started."""
    words: list[str] = arguments.words
    if not words and not arguments.dry_run:
        raise MisuseError("give the program after --, as in `guard --on max_speed -- ./drive.sh`")
    grace, lost_after = parse_duration(arguments.grace), parse_duration(arguments.lost_after)
    with connect(arguments, timeout=lost_after) as client:
        try:
            begun = client.guard_report(id_=tuple(arguments.on))
        except NoAnswer as error:
            if arguments.if_lost == "stop" or arguments.dry_run:
                print(f"{PROGRAM} guard: {as_failure(error)}", file=sys.stderr)
                return LOST
            begun = None
        if begun is not None and begun.missing:
            raise CommandFailedError(printable(f"no constraint {begun.missing[0]!r} is active"))
        if begun is not None and not begun.constraints:
            _say("no constraint binds this node: the program runs in any case" if arguments.on else _nothing_critical())
        if arguments.dry_run:
            return _tell(begun, arguments)
        watch = _Watch(client, tuple(arguments.on), lost_after, begun)
        return _Guarded(
            watch, words, arguments.if_lost, arguments.if_unknown, grace, pause=arguments.pause, wait=arguments.wait
        ).run()


def _nothing_critical() -> str:
    return "no critical constraint binds this node: the program runs in any case; name constraints with --on"


def _tell(found: GuardReport | None, arguments: argparse.Namespace) -> int:
    """The outcome of a dry run."""
    if found is None:
        return LOST
    code = _code(found.standing, arguments.if_unknown)
    would = "would run" if code == 0 else "would not run"
    present(found, None if arguments.json else [f"{found.standing}: the program {would}", *found.reasons])
    return code


def _code(standing: str, if_unknown: str) -> int:
    """The exit code of a standing that stops the program; 0 for another standing."""
    if standing == "violated":
        return VIOLATED
    return UNDECIDED if standing == "unknown" and if_unknown == "stop" else 0


def _say(text: str) -> None:
    print(f"{PROGRAM} guard: {printable(text)}", file=sys.stderr, flush=True)


class _Watch:
    """Asks the node in a thread, and hands on each standing; `lost` without an answer for so long."""

    def __init__(self, client: Client, ids: tuple[str, ...], lost_after: float, begun: GuardReport | None) -> None:
        self._client, self._ids, self._lost_after = client, ids, lost_after
        self.changes: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        """Each change: the standing, and the reason."""
        self.standing, self.why = ("lost", "the node does not answer") if begun is None else _of(begun)
        threading.Thread(target=self._ask, name="guard", daemon=True).start()

    def _ask(self) -> None:
        known, heard = self.standing, time.monotonic()
        while True:
            unless = known if known != "lost" else None
            wait = min(LONGEST_ASK, self._lost_after) if unless else 0.0
            began = time.monotonic()
            try:
                standing, why = _of(self._client.guard_report(id_=self._ids, unless=unless, wait=wait))
                heard = time.monotonic()
            except ClientError as error:
                standing, why = known, str(error)
                if time.monotonic() - heard >= self._lost_after:
                    standing = "lost"
                time.sleep(max(0.0, ASK_AGAIN - (time.monotonic() - began)))
            if standing != known:
                known = standing
                self.changes.put((standing, why))


def _of(report: GuardReport) -> tuple[str, str]:
    return report.standing, "; ".join(report.reasons)


class _Guarded:
    """A program under a guard."""

    def __init__(
        self, watch: _Watch, words: Sequence[str], if_lost: str, if_unknown: str, grace: float, *, pause: bool, wait: bool
    ) -> None:
        self._watch, self._words, self._grace = watch, words, grace
        self._if_lost, self._if_unknown, self._pause, self._wait = if_lost, if_unknown, pause, wait
        self._asked = 0

    def run(self) -> int:
        """The exit code: that of the program, or why it was not started or was stopped."""
        before = {each: signal.signal(each, self._asked_to_end) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            return self._run()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _asked_to_end(self, number: int, _: object) -> None:
        self._asked = number

    def _stops(self, standing: str) -> int:
        """The exit code of a standing that stops the program, or 0."""
        if standing == "lost":
            return LOST if self._if_lost == "stop" else 0
        return _code(standing, self._if_unknown)

    def _run(self) -> int:
        standing, why = self._watch.standing, self._watch.why
        while code := self._stops(standing):
            if not self._wait:
                _say(f"not started, {_phrase(standing)}: {why}")
                return code
            _say(f"waiting, {_phrase(standing)}: {why}")
            change = self._next(lambda: self._asked)
            if change is None:
                return 128 + self._asked
            standing, why = change
        process = self._start()
        try:
            return self._follow(process)
        finally:
            self._end(process, 0.0)

    def _start(self) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(self._words, start_new_session=True, preexec_fn=_die_with_parent)  # noqa: S603, PLW1509 - the
            # command that the caller gave; there is one thread besides, and it holds no lock that the function needs
        except OSError as error:
            raise CommandFailedError(printable(f"cannot run {self._words[0]}: {error.strerror or error}")) from None

    def _next(self, over: Callable[[], object]) -> tuple[str, str] | None:
        """The next change of the standing; None once `over` is true."""
        while not over():
            with contextlib.suppress(queue.Empty):
                return self._watch.changes.get(timeout=LOOK_EVERY)
        return None

    def _follow(self, process: "subprocess.Popen[bytes]") -> int:
        paused = False
        while True:
            change = self._next(lambda: self._asked or process.poll() is not None)
            if change is None:
                if process.poll() is not None:
                    code = process.returncode
                    return 128 - code if code < 0 else code
                self._end(process, self._grace)
                return 128 + self._asked
            standing, why = change
            code = self._stops(standing)
            if code and not self._pause:
                _say(f"stopping {self._words[0]}, {_phrase(standing)}: {why}")
                self._end(process, self._grace)
                return code
            if bool(code) is not paused:
                paused = bool(code)
                _say(f"{'pausing' if paused else 'resuming'} {self._words[0]}, {_phrase(standing)}{f': {why}' if why else ''}")
                _signal(process, signal.SIGSTOP if paused else signal.SIGCONT)

    def _end(self, process: "subprocess.Popen[bytes]", grace: float) -> None:
        """End the program and all of its group."""
        if grace and process.poll() is None:
            _signal(process, signal.SIGTERM)
            _signal(process, signal.SIGCONT)  # a paused program ends, too
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        _signal(process, signal.SIGKILL)
        process.wait()


def _phrase(standing: str) -> str:
    return {"lost": "as the node is lost", "unknown": "as constraints cannot be decided", "holds": "as all constraints hold"}.get(
        standing, "as constraints are violated"
    )


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to the group of a program, of which any part may be over."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _die_with_parent() -> None:
    """The kernel kills this process when its parent ends. Linux alone knows that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
