"""Guards: programs and blocks of code that run only while constraints hold on this node.

A guard is told of each change of a verdict in the turn of the loop of the judgement. A change without a judgement, such as the
removal of a definition by another node, is seen by a look each `LOOK_EVERY` seconds.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Literal, ParamSpec, TypeVar

from constraint_crdt.errors import ConstraintCrdtError, GuardBroken, UnknownConstraint
from constraint_crdt.model import Mode, Severity, VerdictState
from constraint_crdt.operations.command import show_values
from constraint_crdt.operations.guards import LONGEST_WAIT, MOST_GUARDED, MOST_REASONS, GuardReport
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.evaluation import Evaluator
from constraint_crdt.types.verdicts import VIOLATED_STATES, NodeVerdict

LOOK_EVERY: Final = 1.0
"""Seconds between two looks of a guard, without a change of a verdict."""

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
