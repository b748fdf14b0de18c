"""What a node does about its verdicts: its actions, which turns they are told, their queue on disk and the attempts; its guards.

Rules kept here:

- A turn is found in the turn of the loop of the judgement. A change without a judgement, such as the removal of a definition,
  and a turn that needs time, such as `unknown_for` and `repeat`, is found by a look each `LOOK_EVERY` seconds.
- An action is told of a constraint only while a definition of mode enforce binds the node. The last turn that an action was told is
  kept, so it is told each turn once, also over a restart, and never the end of a violation whose begin it was not told.
- Turns of a constraint are told to an action one after another, in their order, by `Deliveries`. Of different constraints
  `AT_ONCE` are told at once.
- The queue, and the last turns told to actions, are a small file beside the store, replaced as a whole. A turn is in it before the
  first attempt, and leaves it after success, so each turn is told at least once. The number of its attempts is in it before each
  attempt: a command that ends the node, such as a reboot, is repeated `attempts` times at most. Repeated messages are not kept.
- A queue that is full drops its oldest turn. Beyond `MOST_WAITING` in all, the queue that has been waiting longest drops a turn.
- A command runs in a process group of its own, which is ended with it, at its timeout, and when the node stops. On Linux the kernel
  kills the command if the node is killed.

Guards run a program or a block of code only while constraints hold on this node. A guard is told of each change of a verdict in the
turn of the loop of the judgement, too, and looks each `LOOK_EVERY` seconds.
"""

import asyncio
import contextlib
import ctypes
import functools
import logging
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

import msgspec

from constraint_crdt.alerts.actions import (
    ENDED,
    HOLDS_AGAIN,
    MOST_SECRET,
    UNKNOWN,
    VIOLATED,
    Action,
    Turn,
    environment_of,
    filled_place,
    message_of,
    read_secret,
    signed,
)
from constraint_crdt.alerts.delivery import FIRST_PAUSE, TIMEOUT, Deliveries, Failure, Message, failure_of, post
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError, GuardBroken, StoreError, UnknownConstraint
from constraint_crdt.model import Mode, Severity, VerdictState
from constraint_crdt.operations.alerts import (
    LONGEST_WAIT,
    MOST_GUARDED,
    MOST_REASONS,
    ActionReport,
    ActionsReport,
    GuardReport,
    WaitingTurn,
)
from constraint_crdt.operations.operation import show_values
from constraint_crdt.operations.service import Finding
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.evaluation import Evaluator
from constraint_crdt.sources.formats import SourceError
from constraint_crdt.store.files import read_bounded, replace_file
from constraint_crdt.transport import PublishingTransport, Transport, TransportError
from constraint_crdt.types.verdicts import VIOLATED_STATES, NodeVerdict

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the changes by time."""

AT_ONCE: Final = 4
"""Attempts of an action at once."""

THREADS: Final = 16
"""Attempts of all actions that block at once."""

MOST_WAITING: Final = 1_000
"""Turns that wait, of all actions."""

MOST_FOLLOWED: Final = 10_000
"""Pairs of an action and a constraint that is violated or unknown."""

MOST_LISTED: Final = 100
"""Constraints of an action, and turns that wait, in a report."""

OUTPUT: Final = 4 * 1024
"""Bytes of the output of a command that go to the log."""

GRACE: Final = 1.0
"""Seconds between SIGTERM and SIGKILL."""

READ_EVERY: Final = 0.1
"""Seconds between two looks at a command that says nothing."""

FILE_BYTES: Final = 8 * 1024 * 1024

PR_SET_PDEATHSIG: Final = 1

_log = logging.getLogger("constraint_crdt.actions")
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Followed(msgspec.Struct, array_like=True):
    """The last turn of a constraint that an action was told."""

    turn: str
    since: int
    """The begin of the violation, in ns since the epoch."""
    at: int
    """When it was told last."""


class Kept(msgspec.Struct, kw_only=True):
    """The content of the file."""

    waiting: list[Turn] = []
    told: list[tuple[str, str, Followed]] = []


class TurnMessage(Message):
    """A turn in a queue."""

    __slots__ = ("turn",)

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self.turn = turn
        self.tries = turn.tries


class _Figures:
    """The figures of an action since the start."""

    __slots__ = ("delivered", "dropped", "failed", "last", "last_at", "slots", "working")

    def __init__(self) -> None:
        self.delivered = self.dropped = self.failed = 0
        self.last = ""
        self.last_at: int | None = None
        self.slots = asyncio.Semaphore(AT_ONCE)
        self.working = True
        """The last attempt succeeded, or none was made."""


class Actions(Deliveries[TurnMessage]):
    """The actions of a node."""

    def __init__(
        self,
        actions: Sequence[Action],
        *,
        gossip: GossipNode,
        evaluator: Evaluator,
        destinations: Mapping[str, str],
        transport: Transport,
        file: Path | None,
        now: Callable[[], int],
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        """`file`: keeps the queue; None: it is lost with the node. `now`: ns since the epoch.

        Raises `ConstraintCrdtError` for a secret that cannot be read, for Zenoh without a session, and for MQTT without its client
        or with files that cannot be used.
        """
        super().__init__(first_pause=first_pause, threads=THREADS)
        self._actions = {action.name: action for action in actions}
        self._gossip = gossip
        self._evaluator = evaluator
        self._destinations = destinations
        self._transport = transport
        self._file = file
        self._now = now
        self._secrets = {action.name: _secret_of(action) for action in actions if action.secret_file}
        for action in actions:
            if action.zenoh and not isinstance(transport, PublishingTransport):
                raise ConstraintCrdtError(f"action {action.name}: this node has no session of Zenoh to publish with")
        self._brokers = {action.name: _publisher_of(action) for action in actions if action.mqtt}
        self._figures = {action.name: _Figures() for action in actions}
        self._matching: dict[str, tuple[Action, ...]] = {}
        self._told: dict[tuple[str, str], Followed] = {}
        self._unknown: dict[str, float] = {}
        """Since when constraints are unknown, by the monotonic clock."""
        self._redefined: dict[str, None] = {}
        self._unfollowed = 0
        self._closed = False
        self._running: set[_Command] = set()
        self._changes = self._saved = 0
        self._saving: asyncio.Task[None] | None = None
        self._unsaved = ""

    # --- turns -------------------------------------------------------------------------------------------------------------

    def note(self, id_: str) -> None:
        """The evaluation of a constraint changed."""
        for action in self._of(id_):
            self._look(action, id_)

    def redefined(self, ids: Iterable[str]) -> None:
        """The definitions of constraints changed, or where they apply: their evaluations may stay as they were."""
        if self._actions:
            self._redefined.update(dict.fromkeys(id_ for id_ in ids if self._of(id_)))

    def _of(self, id_: str) -> tuple[Action, ...]:
        """The actions on a constraint."""
        found = self._matching.get(id_)
        if found is None:
            if len(self._matching) >= MOST_FOLLOWED:
                self._matching.clear()
            found = tuple(action for action in self._actions.values() if fnmatchcase(id_, action.constraint))
            self._matching[id_] = found
        return found

    async def look(self) -> None:
        """Find changes without a judgement, and changes by time. O(constraints that are violated or unknown)."""
        for name, id_ in list(self._told):
            self._look(self._actions[name], id_)
        redefined, self._redefined = self._redefined, {}
        for id_ in (*self._unknown, *redefined):
            self.note(id_)
            if id_ in redefined and self._standing(id_) is None:
                self._redefined[id_] = None
        now = self._now()
        for (name, id_), told in self._told.items():
            repeats, key = self._actions[name].repeats, _key(name, id_)
            if repeats is not None and now - told.at >= repeats * SECOND and key not in self._queues:
                if told.turn in self._actions[name].turns:
                    self._tell(self._actions[name], id_, told.turn, told.since, repeated=True)
                told.at = now

    def _standing(self, id_: str) -> str | None:
        """`violated`, `unknown`, `holds again` or `ended`; None before a constraint was judged."""
        if id_ not in self._gossip.state.constraints or not binds(self._gossip, id_):
            return ENDED
        evaluation = self._evaluator.last(id_)
        if evaluation is None:
            return None
        if evaluation.state in VIOLATED_STATES:
            return VIOLATED
        if evaluation.state is VerdictState.UNKNOWN:
            return UNKNOWN
        return ENDED if evaluation.state is VerdictState.OFF else HOLDS_AGAIN

    def _look(self, action: Action, id_: str) -> None:
        """Tell an action of a constraint if it turned."""
        key = (action.name, id_)
        told, evaluation = self._told.get(key), self._evaluator.last(id_)
        if told is None and evaluation is not None and evaluation.state is VerdictState.HOLDS:
            self._unknown.pop(id_, None)  # by far the most frequent
            return
        standing = self._standing(id_)
        if standing != UNKNOWN:
            self._unknown.pop(id_, None)
        if standing is None or self._closed:
            return
        if standing in (HOLDS_AGAIN, ENDED):
            if told is not None:
                del self._told[key]
                self._changes += 1
                if HOLDS_AGAIN in action.turns:
                    self._tell(action, id_, standing, told.since)
        elif told is None or told.turn != standing:
            if standing == UNKNOWN and not self._is_unknown(action, id_):
                return
            if told is None and len(self._told) >= MOST_FOLLOWED:
                self._unfollowed += 1
                return
            since = self._evaluator.since(id_) or self._now()
            self._told[key] = Followed(standing, since, self._now())
            self._changes += 1
            if standing in action.turns:
                self._tell(action, id_, standing, since)

    def _is_unknown(self, action: Action, id_: str) -> bool:
        """True if a constraint is unknown for long enough, and the action is to be told."""
        if UNKNOWN not in action.turns or (id_ not in self._unknown and len(self._unknown) >= MOST_FOLLOWED):
            return False
        now = time.monotonic()
        return now - self._unknown.setdefault(id_, now) >= action.unknown_for

    def _tell(self, action: Action, id_: str, turn: str, begun: int, *, repeated: bool = False) -> None:
        verdict = self._evaluator.verdict(id_)
        given = [each.severity for each in self._gossip.state.definitions_on(id_, self._gossip.labels)]
        severity = max(given, key=lambda each: each.rank, default=None)
        told = Turn(
            action=action.name,
            constraint=id_,
            turn=turn,
            at=self._now(),
            since=self._evaluator.since(id_) or 0,
            begun=begun,
            severity="" if severity is None else severity.value,
            repeated=repeated,
            reason="it was removed or disabled, or binds this node no longer" if turn == ENDED else "",
        )
        if verdict is not None and turn != ENDED:
            told.values, told.variable, told.reason = dict(verdict.inputs), verdict.variable or "", verdict.reason
            told.margin, told.share = verdict.margin, verdict.share
        self._queue(told)

    def _queue(self, turn: Turn) -> None:
        if self.waiting >= MOST_WAITING:
            longest = next(key for key, queue in self._queues.items() if queue)
            self.drop_oldest(longest, f"more than {MOST_WAITING} wait")
        self._changes += 1
        self.put(_key(turn.action, turn.constraint), TurnMessage(turn))

    def add_destinations(self, destinations: Mapping[str, str]) -> None:
        """Use these addresses from now on. Others stay for the actions that name them."""
        self._destinations = {**self._destinations, **destinations}

    # --- attempts ----------------------------------------------------------------------------------------------------------

    def shown(self, key: str) -> str:
        """The action and the constraint."""
        name, _, id_ = key.partition("/")
        return f"action {name} on {id_}"

    def most_attempts(self, message: TurnMessage) -> int:
        """See `Action.tries`. A repeated message has a single attempt: the next message follows."""
        return 1 if message.turn.repeated else self._actions[message.turn.action].tries

    def settled(self, key: str, message: TurnMessage) -> None:  # noqa: ARG002 - of the base class
        """A turn left its queue."""
        self._changes += 1
        if self._file is not None and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self._save(self._file))
        figures = self._figures[message.turn.action]
        figures.delivered += message.delivered
        figures.dropped += message.dropped

    async def attempt(self, key: str, message: TurnMessage) -> Failure | None:  # noqa: ARG002 - of the base class
        """Put the attempt on disk, and make it."""
        turn = message.turn
        action, figures = self._actions[turn.action], self._figures[turn.action]
        async with figures.slots:
            if message.dropped:
                return Failure("too many wait", final=True)
            turn.tries = message.tries
            if not turn.repeated:
                self._changes += 1
                await self.save()
            try:
                failure = await self._attempt(action, turn)
            except Exception as error:
                _log.exception("action %s: a fault in an attempt", action.name)
                failure = Failure(f"a fault: {type(error).__name__}")
        figures.working = failure is None
        if failure is not None:
            figures.failed += 1
            figures.last, figures.last_at = failure.why, self._now()
            _log.log(
                logging.DEBUG if turn.repeated else logging.WARNING,
                "action %s on %s (%s): attempt %d failed: %s", action.name, turn.constraint, turn.turn, turn.tries, failure.why,
            )  # fmt: skip
        return failure

    async def _attempt(self, action: Action, turn: Turn) -> Failure | None:
        node, fleet = self._gossip.node_id, self._gossip.fleet
        if action.command:
            return await self._run(action, environment_of(turn, node, fleet))
        body, kind = message_of(action, turn, node=node, fleet=fleet, now=self._now())
        if action.webhook:
            headers, secret = {"Content-Type": kind}, self._secrets.get(action.name)
            if secret is not None:
                headers |= signed(secret, turn.id(node), self._now() // SECOND, body)
            address = self._destinations.get(action.webhook, action.webhook)
            return failure_of(await self.in_thread(post, address, body, headers))
        place, broker = filled_place(action.zenoh or action.topic, turn.facts(node, fleet)), self._brokers.get(action.name)
        if broker is not None:
            return await self.in_thread(_publish, broker, place, body, kind, action.retain)
        if not isinstance(self._transport, PublishingTransport):
            return Failure("this node has no session of Zenoh", final=True)
        try:
            await self._transport.publish(place, body, kind)
        except TransportError as error:
            return Failure(str(error))
        return None

    async def _run(self, action: Action, variables: Mapping[str, str]) -> Failure | None:
        command = _Command(action, variables)
        self._running.add(command)
        try:
            return await self.in_thread(command.run)
        finally:
            command.stop()
            if command.over.is_set() or not command.begun:
                self._running.discard(command)

    # --- file --------------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Load the waiting and the told turns of the file. A file that cannot be read is ignored with a warning."""
        if self._file is None or not self._actions:
            return
        try:
            kept = msgspec.json.decode(await asyncio.to_thread(read_bounded, self._file, FILE_BYTES), type=Kept)
        except FileNotFoundError:
            return
        except (OSError, ValueError, msgspec.DecodeError, RecursionError, StoreError) as error:
            _log.warning("cannot read what waits for actions in %s (%s): what is violated is told again", self._file, error)
            return
        self._told = {(name, id_): told for name, id_, told in kept.told[:MOST_FOLLOWED] if name in self._actions}
        gone = [turn for turn in kept.waiting if turn.action not in self._actions]
        if gone:
            named = ", ".join(sorted({turn.action for turn in gone}))
            _log.warning("%d turns that waited for %s are dropped: there is no such action any more", len(gone), named)
        self._loaded = [turn for turn in kept.waiting[:MOST_WAITING] if turn.action in self._actions]

    _loaded: Sequence[Turn] = ()

    def begin(self) -> None:
        """The node joined its fleet: go on with the turns that waited when it stopped."""
        for turn in self._loaded:
            self._queue(turn)
        self._loaded = ()

    async def keep(self) -> None:
        """Save the changes, once a second."""
        await self.look()
        self._changes += bool(self._unsaved)  # the disk may take it now
        await self.save()

    async def save(self) -> None:
        """Wait until all changes up to now are on disk, or the disk refuses them. Changes that come together are saved together."""
        wanted = self._changes
        while self._file is not None and self._saved < wanted:
            if self._saving is None or self._saving.done():
                self._saving = asyncio.create_task(self._save(self._file))
            await asyncio.shield(self._saving)

    async def _save(self, file: Path) -> None:
        changes = self._changes
        waiting = [each.turn for queue in self._queues.values() for each in queue if not each.turn.repeated]
        told = [(name, id_, each) for (name, id_), each in self._told.items()]
        content = msgspec.json.encode(Kept(waiting=sorted((*waiting, *self._loaded), key=lambda turn: turn.at), told=told))
        try:
            await asyncio.to_thread(replace_file, file, content)
        except OSError as error:  # a disk that refuses must not silence actions
            if not self._unsaved:
                _log.warning("cannot write what waits for actions to %s: %s", file, error.strerror or error)
            self._unsaved = error.strerror or type(error).__name__
        else:
            self._unsaved = ""
        self._saved = changes

    async def close(self) -> None:
        """End running commands, and save the waiting turns."""
        self._closed = True
        for command in self._running:
            command.stop()
        await super().close()
        if self._running:
            await asyncio.to_thread(self._wait_for_commands)
        await self.save()

    def _wait_for_commands(self) -> None:
        for command in list(self._running):
            if command.begun:
                command.over.wait(2 * GRACE)

    # --- report ------------------------------------------------------------------------------------------------------------

    def report(self) -> ActionsReport:
        """The actions, and the waiting turns."""
        waiting = sorted((each for queue in self._queues.values() for each in queue), key=lambda each: each.turn.at)
        return ActionsReport(
            actions=tuple(self._report(action, waiting) for action in self._actions.values()),
            waiting=tuple(
                WaitingTurn(
                    action=each.turn.action, constraint=each.turn.constraint, turn=each.turn.turn, at=each.turn.at,
                    tries=each.tries, runs=each.attempted, why=each.why,
                )
                for each in waiting[:MOST_LISTED]
            ),
            unfollowed=self._unfollowed,
            unsaved=self._unsaved,
        )  # fmt: skip

    def _report(self, action: Action, waiting: Sequence[TurnMessage]) -> ActionReport:
        figures = self._figures[action.name]
        return ActionReport(
            name=action.name,
            constraint=action.constraint,
            turns=action.turns,
            way=action.way,
            to=action.to,
            acting=tuple(sorted(id_ for name, id_ in self._told if name == action.name)[:MOST_LISTED]),
            waiting=sum(each.turn.action == action.name for each in waiting),
            delivered=figures.delivered,
            dropped=figures.dropped,
            failed=figures.failed,
            last_failure=figures.last,
            last_failed_at=figures.last_at,
        )

    def findings(self) -> Iterator[Finding]:
        """The findings of `doctor`: actions that fail, and dropped turns. None without an action."""
        wrong = False
        for name, figures in self._figures.items():
            if not figures.working:
                wrong = True
                what = f"action {name} fails: {figures.last}"
                advice = f"see the log, and `constraint-crdt alerts actions`; check {self._actions[name].to}"
                yield Finding(check="actions", level="warn", what=what, advice=advice)
            elif figures.dropped:
                wrong = True
                what = f"{figures.dropped} turns of action {name} were dropped since the start"
                yield Finding(check="actions", level="warn", what=what, advice="the log of the node says which, and why")
        if self._unsaved:
            wrong = True
            what = f"what waits for actions is not on disk: {self._unsaved}"
            advice = f"give the node space and rights for {self._file}: what waits is lost if it ends now"
            yield Finding(check="actions", level="warn", what=what, advice=advice)
        if self._actions and not wrong:
            yield Finding(check="actions", level="ok", what=f"no action fails, of {len(self._actions)}")


def _key(action: str, id_: str) -> str:
    """The key of a queue. Names of actions have no slash."""
    return f"{action}/{id_}"


def _secret_of(action: Action) -> bytes:
    """The secret of an action. Raises `ConstraintCrdtError`."""
    where, file = f"action {action.name}: the secret in {action.secret_file}", Path(action.secret_file)
    try:
        is_open, content = stat.S_IMODE(file.stat().st_mode) & 0o007, read_bounded(file, 2 * MOST_SECRET)
    except OSError as error:
        raise ConstraintCrdtError(f"{where} cannot be read: {error.strerror or error}") from None
    except StoreError:
        raise ConstraintCrdtError(f"{where} is too long") from None
    if is_open:
        raise ConstraintCrdtError(f"{where} can be read by other users of the machine: run `chmod o= {file}`")
    try:
        return read_secret(content.decode())
    except UnicodeDecodeError:
        raise ConstraintCrdtError(f"{where} is no text in UTF-8") from None
    except ConstraintCrdtError as error:
        raise ConstraintCrdtError(f"{where}: {error}") from None


# --- brokers ----------------------------------------------------------------------------------------------------------------


class Broker(Protocol):
    """Where messages are published; see `sources.pushed.Publisher`."""

    def publish(self, topic: str, payload: bytes, media_type: str, *, retain: bool = False) -> None:
        """Blocks until the broker has the message. Raises `SourceError`."""


def _publisher_of(action: Action) -> Broker:
    """The publisher of an action. Raises `ConstraintCrdtError`."""
    from constraint_crdt.sources.pushed import Publisher  # for actions at a broker only

    try:
        return Publisher(action.mqtt, action, TIMEOUT)
    except SourceError as error:
        raise ConstraintCrdtError(f"action {action.name}: {error}") from None


def _publish(broker: Broker, topic: str, body: bytes, kind: str, retain: bool) -> Failure | None:
    """A single attempt."""
    try:
        broker.publish(topic, body, kind, retain=retain)
    except SourceError as error:
        return Failure(str(error))
    return None


# --- commands ---------------------------------------------------------------------------------------------------------------


class _Output(NamedTuple):
    kept: bytes
    more: int
    """Bytes beyond."""


class _Command:
    """A run of a command. `run` blocks; `stop` may come from another thread."""

    def __init__(self, action: Action, variables: Mapping[str, str]) -> None:
        self._action = action
        self._variables = variables
        self._stop = threading.Event()
        self.begun = False
        self.over = threading.Event()

    def stop(self) -> None:
        """End the command soon."""
        self._stop.set()

    def run(self) -> Failure | None:
        """Run the command to its end, and end its group."""
        self.begun = True
        try:
            return Failure("the node stops") if self._stop.is_set() else self._run()
        finally:
            self.over.set()

    def _run(self) -> Failure | None:
        words = self._action.command
        try:
            process = subprocess.Popen(  # noqa: S603 - the command of the settings
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **self._variables},
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - a single call, of a library that is loaded
            )  # fmt: skip
        except OSError as error:
            return Failure(f"cannot run {words[0]}: {error.strerror or error}")
        try:
            output, ended = self._follow(process)
        finally:
            _end(process)
        self._tell(output)
        if process.returncode == 0 and ended == "":
            return None
        code = process.returncode
        return Failure(ended or (f"exit code {code}" if code > 0 else f"ended by signal {-code}"))

    def _follow(self, process: "subprocess.Popen[bytes]") -> tuple[_Output, str]:
        """Read the output until the command ends. Returns the reason if it is to be ended, too."""
        kept, more, ends = bytearray(), 0, time.monotonic() + self._action.timeout
        pipe = process.stdout
        if pipe is None:
            raise AssertionError("the output is a pipe")
        readable = select.poll()
        readable.register(pipe, select.POLLIN)
        with pipe:
            is_open, why = True, ""
            while True:
                is_over = process.poll() is not None
                wait = 0.0 if is_over else min(READ_EVERY, max(0.0, ends - time.monotonic()))
                if is_open and readable.poll(wait * 1000):
                    chunk = os.read(pipe.fileno(), 65_536)
                    is_open = bool(chunk)
                    kept += chunk[: OUTPUT - len(kept)]
                    more += len(chunk)
                    if not (is_over and len(kept) >= OUTPUT):  # a process that it left behind may write for ever
                        is_over = False
                elif not is_over and not is_open:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(wait)
                if is_over:
                    break
                if self._stop.is_set() or time.monotonic() >= ends:
                    if process.poll() is None:
                        why = "the node stops" if self._stop.is_set() else f"not done within {self._action.timeout:g} s"
                    break
        return _Output(bytes(kept), more - len(kept)), why

    def _tell(self, output: _Output) -> None:
        """The output, in the log."""
        for line in output.kept.decode(errors="replace").splitlines():
            text = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
            _log.info("action %s: %s", self._action.name, text)
        if output.more:
            _log.info("action %s: %d more bytes of output are left out", self._action.name, output.more)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a command that may be over, and all of its group."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to the group of a command, of which any part may be over."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _die_with_parent() -> None:
    """The kernel kills this process when its parent ends. Linux alone knows that."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


MOST_GUARDS: Final = 1_000
"""Guards and waiting requests of a node."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Guards:
    """The guards of a node."""

    def __init__(self, gossip: GossipNode, evaluator: Evaluator) -> None:
        self._gossip = gossip
        self._evaluator = evaluator
        self._waiting: set[asyncio.Event] = set()
        self._critical: set[str] | None = None
        """The constraints with a critical definition; None before the first guard of all of them."""
        self._redefined: set[str] = set()
        """Those to be looked at again."""

    def note(self, _: str) -> None:
        """The verdict on a constraint changed."""
        for event in self._waiting:
            event.set()

    def redefine(self, ids: Iterable[str]) -> None:
        """The definitions in force of these constraints changed."""
        if self._critical is not None:
            self._redefined.update(ids)

    def standing(self, ids: Sequence[str] = ()) -> GuardReport:
        """Whether these constraints hold here; without ids all critical ones. Raises `ConstraintCrdtError` for too many."""
        violated: list[str] = []
        unknown: list[str] = []
        missing: list[str] = []
        bound = 0
        for id_ in ids or self._all_critical():
            if id_ not in self._gossip.state.constraints:
                missing.append(id_)
                continue
            if not binds(self._gossip, id_):
                continue
            bound += 1
            verdict = self._evaluator.verdict(id_) if self._evaluator.last(id_) is not None else None
            if verdict is None:
                unknown.append(f"{id_}: not judged yet")
            elif verdict.state in VIOLATED_STATES:
                violated.append(f"{id_}: {_told(verdict)}")
            elif verdict.state is VerdictState.UNKNOWN:
                unknown.append(f"{id_}: {verdict.reason or 'unknown'}")
        if bound > MOST_GUARDED:
            raise ConstraintCrdtError(f"a guard follows at most {MOST_GUARDED} constraints, not {bound}: name fewer", field="id")
        return GuardReport(
            standing="violated" if violated else "unknown" if unknown else "holds",
            reasons=tuple([*violated, *unknown][:MOST_REASONS]),
            constraints=bound,
            missing=tuple(missing),
        )

    def _all_critical(self) -> list[str]:
        """The active critical constraints, ordered. O(these), and O(constraints) the first time."""
        state, redefined = self._gossip.state, self._redefined
        if self._critical is None:
            self._critical, redefined = set(), set(state.constraints)
        for id_ in redefined:
            if any(each.severity is Severity.CRITICAL for each in state.definitions_on(id_, self._gossip.labels)):
                self._critical.add(id_)
            else:
                self._critical.discard(id_)
        self._redefined = set()
        return sorted(id_ for id_ in self._critical if id_ in state.constraints)

    async def report(self, ids: Sequence[str] = (), *, unless: str | None = None, wait: float = 0.0) -> GuardReport:
        """The standing, once it differs from `unless`, or after `wait` seconds. Raises `ConstraintCrdtError` for too many."""
        ends = asyncio.get_running_loop().time() + wait
        await self._evaluator.renew()  # a constraint that was just added is judged before the answer
        with self._listening() as changed:
            while True:
                changed.clear()
                found = self.standing(ids)
                left = ends - asyncio.get_running_loop().time()
                if found.standing != unless or left <= 0:
                    return found
                await _within(changed, min(left, LOOK_EVERY))

    @contextmanager
    def _listening(self) -> Iterator[asyncio.Event]:
        """An event that is set when a verdict changed."""
        if len(self._waiting) >= MOST_GUARDS:
            raise ConstraintCrdtError(f"{MOST_GUARDS} guards wait at this node already")
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            yield changed
        finally:
            self._waiting.discard(changed)

    @asynccontextmanager
    async def hold(self, ids: Sequence[str], *, if_unknown: Literal["stop", "go"] = "stop") -> AsyncIterator[GuardReport]:
        """Run the block only while these constraints hold here; without ids all critical ones.

        Raises `UnknownConstraint`, and `GuardBroken` if they do not hold at the begin. A block during which they cease to hold is
        cancelled, and raises `GuardBroken`. `if_unknown`: whether to stop or go on where they cannot be decided.
        """
        begun, task, watch = await self.begin(ids, if_unknown), asyncio.current_task(), self.watch(ids, if_unknown)
        watch.add_done_callback(lambda done: None if done.cancelled() or task is None else task.cancel())
        try:
            yield begun
        except asyncio.CancelledError:
            if watch.done() and not watch.cancelled() and task is not None and task.uncancel() == 0:
                raise GuardBroken(watch.result()) from None
            raise
        finally:
            watch.cancel()

    async def begin(self, ids: Sequence[str], if_unknown: str) -> GuardReport:
        """The standing at the begin of a guard. Raises `UnknownConstraint` and `GuardBroken`."""
        await self._evaluator.renew()
        for id_ in ids:
            if id_ not in self._gossip.state.constraints:
                raise UnknownConstraint(id_)
        begun = self.standing(ids)
        if _stops(begun, if_unknown):
            raise GuardBroken(_sentence(begun))
        return begun

    def watch(self, ids: Sequence[str], if_unknown: str) -> "asyncio.Task[str]":
        """A task that ends, with a sentence, once the constraints do not hold any more."""
        return asyncio.create_task(self._broken(ids, if_unknown), name="guard")

    async def _broken(self, ids: Sequence[str], if_unknown: str) -> str:
        standing = ""
        while True:
            found = await self.report(ids, unless=standing, wait=LONGEST_WAIT)
            if _stops(found, if_unknown):
                return _sentence(found)
            standing = found.standing

    def guarded(
        self, *ids: str, if_unknown: Literal["stop", "go"] = "stop"
    ) -> Callable[[Callable[_Arguments, Awaitable[_Result]]], Callable[_Arguments, Coroutine[object, object, _Result]]]:
        """A decorator of async functions that run only while these constraints hold here. Calls raise as `hold`."""

        def decorated(
            function: Callable[_Arguments, Awaitable[_Result]],
        ) -> Callable[_Arguments, Coroutine[object, object, _Result]]:
            @functools.wraps(function)
            async def run(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
                async with self.hold(ids, if_unknown=if_unknown):
                    return await function(*arguments, **named)

            return run

        return decorated


def binds(gossip: GossipNode, id_: str) -> bool:
    """True if a definition that applies to this node is enforced, and has something to judge; not of a disabled constraint."""
    if id_ in gossip.state.switches:
        return False
    return any(
        each.mode is Mode.ENFORCE and (each.when is not None or each.meaning) and each.applies_to(gossip.labels)
        for each in gossip.state.definitions_on(id_, gossip.labels)
    )


def _stops(found: GuardReport, if_unknown: str) -> bool:
    return found.standing == "violated" or (found.standing == "unknown" and if_unknown == "stop")


def _sentence(found: GuardReport) -> str:
    what = "violated" if found.standing == "violated" else "cannot be decided"
    return f"{what}: {'; '.join(found.reasons)}"


def _told(verdict: NodeVerdict) -> str:
    """The values of a violation and its margin."""
    values = show_values(dict(verdict.inputs), verdict.margin, verdict.share, verdict.variable)
    return values or verdict.reason or "violated"


async def _within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, so long at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
