"""`guard`: a program that runs only while constraints hold on the node.

Rules:

- A supervisor, a process of its own, starts the program in a session of its own. It takes the orders of the guard, and stops the
  program as well when the guard is gone, however that ended: by SIGTERM to the program and to all that the program started, and by
  SIGKILL after the grace. No process of these outlives the supervisor.
- On Linux processes whose parent ended become children of the supervisor, so a process with a session of its own is found, too.
  Elsewhere those of the program's group are. If the supervisor is killed, the kernel (of Linux) kills the program, and the guard
  its group.
- The guard asks the node for a change and waits at the node, so it hears of a violation with the sample that causes it.
- A node that does not answer for `--lost-after` is lost: `--if-lost` says how to go on. The guard goes on asking.
- SIGTERM, SIGHUP and Ctrl-C to the guard stop the program, and end the guard with its code.

Exit codes beside those of the program: 121 violated, 122 undecided, 123 node lost.
"""

import argparse
import contextlib
import ctypes
import gc
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from constraint_crdt.cli.arguments import PROGRAM
from constraint_crdt.cli.connection import as_failure, connect
from constraint_crdt.cli.output import CommandFailedError, MisuseError, present, printable
from constraint_crdt.client import ClientError, NoAnswer
from constraint_crdt.client.blocking import Client
from constraint_crdt.operations.alerts import GuardReport
from constraint_crdt.operations.operation import parse_duration

VIOLATED, UNDECIDED, LOST = 121, 122, 123
"""Exit codes."""

ASK_AGAIN: Final = 0.2
"""Seconds after a question without an answer."""

LOOK_EVERY: Final = 0.05
"""Seconds between two looks at the program."""

LONGEST_ASK: Final = 10.0
"""Seconds that a question waits at the node."""

END, KILL, PAUSE, RESUME = b"t", b"k", b"s", b"c"
"""Orders to the supervisor."""

LAST: Final = 5.0
"""Seconds for which the supervisor kills processes that do not end, such as those of another user."""

LONGEST_POLL: Final = 3_600_000
"""ms for which the supervisor sleeps."""

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36


def guard(arguments: argparse.Namespace) -> int:
    """Run a program while constraints hold; with `--dry-run` say whether it would be started."""
    words: list[str] = arguments.words
    if not words and not arguments.dry_run:
        raise MisuseError("give the program after --, as in `guard --on max_speed -- ./drive.sh`")
    if "" in arguments.on:
        raise MisuseError("--on is empty, as of an unset shell variable: name a constraint, or leave it out")
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
        self._over = threading.Event()
        threading.Thread(target=self._ask, name="guard", daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._over.set()

    def _ask(self) -> None:
        known, heard = self.standing, time.monotonic()
        while not self._over.is_set():
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
                self._over.wait(max(0.0, ASK_AGAIN - (time.monotonic() - began)))
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
            self._watch.close()
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
        program = _Program(self._words, self._grace)
        try:
            return self._follow(program)
        finally:
            program.end(KILL)

    def _next(self, over: Callable[[], object]) -> tuple[str, str] | None:
        """The next change of the standing; None once `over` is true."""
        while not over():
            with contextlib.suppress(queue.Empty):
                return self._watch.changes.get(timeout=LOOK_EVERY)
        return None

    def _follow(self, program: "_Program") -> int:
        paused = False
        while True:
            change = self._next(lambda: self._asked or program.code is not None)
            if change is None:
                if program.code is not None:
                    return program.code
                program.end(END)
                return 128 + self._asked
            standing, why = change
            code = self._stops(standing)
            if code and not self._pause:
                _say(f"stopping {self._words[0]}, {_phrase(standing)}: {why}")
                program.end(END)
                return code
            if bool(code) is not paused:
                paused = bool(code)
                _say(f"{'pausing' if paused else 'resuming'} {self._words[0]}, {_phrase(standing)}{f': {why}' if why else ''}")
                program.order(PAUSE if paused else RESUME)


# --- the program and its supervisor -----------------------------------------------------------------------------------------


class _Program:
    """A program under its supervisor, as the guard sees them."""

    def __init__(self, words: Sequence[str], grace: float) -> None:
        """Start both. Raises `CommandFailedError` for a program that cannot be run."""
        self._link, other = socket.socketpair()
        supervisor = _Supervisor(other.fileno(), grace)
        try:
            # The command is that of the caller. There is one thread besides, and it holds no lock that the function needs.
            self._supervisor = subprocess.Popen(words, start_new_session=True, preexec_fn=supervisor.run)  # noqa: S603, PLW1509
        except OSError as error:
            self._link.close()
            raise CommandFailedError(printable(f"cannot run {words[0]}: {error.strerror or error}")) from None
        finally:
            other.close()
        self._group = int.from_bytes(self._link.recv(4))

    @property
    def code(self) -> int | None:
        """The exit code, 128 and more for a signal; None while the program runs."""
        code = self._supervisor.poll()
        return 128 - code if code is not None and code < 0 else code

    def order(self, order: bytes) -> None:
        """Give an order to the supervisor, which may be over."""
        with contextlib.suppress(OSError):
            self._link.send(order)

    def end(self, how: bytes) -> None:
        """End the program and all that it started, by `END` or `KILL`."""
        self.order(how)
        if self._supervisor.wait() < 0:  # it was killed
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)
        self._link.close()


class _Supervisor:
    """The process between the guard and the program: it is the program's parent, and outlives the guard."""

    def __init__(self, link: int, grace: float) -> None:
        """`link`: a socket, whose other end the guard has; at its end the guard is gone."""
        self._link, self._grace = link, grace
        self._program = 0
        self._is_over = False
        self._code = 1
        """The exit code of the program, once it is over."""

    def run(self) -> None:
        """Become the supervisor. Called in a new process; returns in another process, which is to become the program."""
        gc.disable()
        _set_process(PR_SET_CHILD_SUBREAPER, 1)
        supervisor = os.getpid()
        self._program = os.fork()
        if self._program == 0:
            os.setsid()
            _set_process(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:
                os._exit(1)
            return
        try:
            self._supervise()
        finally:  # an exception would end in the frames of the guard
            self._signal(signal.SIGKILL)
            os._exit(1)

    def _supervise(self) -> NoReturn:
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(each, signal.SIG_IGN)  # the guard gives the orders
        self._leave_files()
        os.write(self._link, self._program.to_bytes(4))
        wakes, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poller, ends = select.poll(), float("inf")
        poller.register(self._link, select.POLLIN)
        poller.register(wakes, select.POLLIN)
        while self._has_children() and time.monotonic() < ends:
            if self._is_over and ends == float("inf"):  # what the program left behind ends as it would have
                ends = self._end()
            left = max(0.0, ends - time.monotonic())
            for ready, _ in poller.poll(min(left * 1000 + 1, LONGEST_POLL)):
                try:
                    data = os.read(ready, 64)
                except ConnectionResetError:  # the guard was killed before it read what was sent to it
                    data = b""
                if ready == wakes:
                    continue
                if not data:
                    poller.unregister(self._link)
                if not data or END in data:
                    ends = min(ends, self._end())
                elif KILL in data:
                    ends = 0.0
                else:
                    self._signal(signal.SIGSTOP if data.endswith(PAUSE) else signal.SIGCONT)
        ends = time.monotonic() + LAST
        while self._has_children() and time.monotonic() < ends:
            self._signal(signal.SIGKILL)
            if select.select([wakes], [], [], LOOK_EVERY)[0]:
                os.read(wakes, 64)
        os._exit(self._code)

    def _end(self) -> float:
        """Ask all processes to end. Returns when the grace is over."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a paused program ends, too
        return time.monotonic() + self._grace

    def _leave_files(self) -> None:
        """Keep the link alone, so that readers of the output of guard and program see its end."""
        nothing = os.open(os.devnull, os.O_RDWR)
        for each in range(3):
            os.dup2(nothing, each)
        self._link = os.dup2(self._link, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))

    def _has_children(self) -> bool:
        """Take the codes of children that ended. False if none is left."""
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if child == 0:
                return True
            if child == self._program:
                code = os.waitstatus_to_exitcode(status)
                self._is_over, self._code = True, 128 - code if code < 0 else code

    def _signal(self, number: int) -> None:
        """Send a signal to the group of the program, and to the processes that it started and that left the group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._program, number)
        for each in _descendants(os.getpid()):
            if each.group != self._program:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(each.process, number)


class _Process(NamedTuple):
    process: int
    parent: int
    group: int


def _descendants(of: int) -> Iterator[_Process]:
    """The processes below this process, on Linux."""
    children: dict[int, list[_Process]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended
            parent, group = map(int, file.read_text(errors="replace").rpartition(")")[2].split()[1:3])
            children.setdefault(parent, []).append(_Process(int(file.parent.name), parent, group))
    below = [of]
    while below:
        found = children.get(below.pop(), [])
        below += [each.process for each in found]
        yield from found


def _set_process(attribute: int, value: int) -> None:
    """Set an attribute of this process. Linux alone knows those."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(attribute, value, 0, 0, 0)


def _phrase(standing: str) -> str:
    return {"lost": "as the node is lost", "unknown": "as constraints cannot be decided", "holds": "as all constraints hold"}.get(
        standing, "as constraints are violated"
    )
