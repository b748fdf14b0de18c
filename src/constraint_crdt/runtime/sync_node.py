"""SyncNode: a node for programs without an event loop. The node runs on an event loop of its own, in a thread of its own.

    with SyncNode(name="forge", connect=["tcp/10.0.0.1:7447"]) as node:
        node.add_constraint("max_speed", when="speed_mps <= 1.5")
        node.check({"speed_mps": 1.2})
        for event in node.events(timeout=5):
            ...

Rules kept here:

- Every method may be called from any thread, except the thread of the loop: a call there would wait for itself, and is refused.
- A call returns when the method of `Node` has returned on the loop, and raises its errors.
- The thread ends with `stop`, also at the exit of the interpreter. An error in a `with` block stops the node as well.
"""

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from datetime import datetime, timedelta
from random import Random
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

from constraint_crdt.crdt.clock import Dot
from constraint_crdt.errors import GuardBroken, HoldLost, InvalidType, LifecycleError, WrongThread
from constraint_crdt.expression.evaluation import Evaluation
from constraint_crdt.model import Event, IfUnknown, Mode, Scope, Severity
from constraint_crdt.operations.alerts import GuardReport
from constraint_crdt.operations.budgets import HoldReport
from constraint_crdt.operations.constraints import BatchChange, ConstraintReport, EditEffect
from constraint_crdt.operations.fleet import PositionReport, RevocationReport
from constraint_crdt.operations.nodes import IdentityReport, NodeReport, RetireReport, Status, StorageReport
from constraint_crdt.operations.rules import DecisionReport, HistoryEntry, RevertReport
from constraint_crdt.operations.service import ImportReport
from constraint_crdt.operations.variables import ParameterChange, ParameterReport, ReadingsReport, VariableReport
from constraint_crdt.runtime.change_feed import BatchResult
from constraint_crdt.runtime.measurement import Probe
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.state import MAX_STATE_BYTES
from constraint_crdt.transport import Transport
from constraint_crdt.types.definition import DefinitionFields, Selection
from constraint_crdt.types.nodes import AuditEntry
from constraint_crdt.types.orset import Change
from constraint_crdt.types.tile_cells import Position

Result = TypeVar("Result")

_running: "set[SyncNode]" = set()
"""The nodes to stop at the exit of the interpreter."""


class SyncNode:
    """A `Node` with the same methods, called without `await`. Safe from any thread.

    Use it as a context manager, or call `start` and `stop`, once each. Calls before `start` and after `stop` raise
    `LifecycleError`. `run` and `read` reach the parts of the node that have no method here, such as its tiles and counters.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        fleet: str | None = None,
        role: str | None = None,
        listen: Sequence[str] | None = None,
        connect: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        probes: Sequence[Probe] = (),
        transport: Transport | None = None,
        settings: NodeSettings | None = None,
        actor: str | None = None,
        random: Random | None = None,
        now: Callable[[], int] = time.time_ns,
        steady: Callable[[], int] | None = None,
    ) -> None:
        """The parameters, and the errors, of `Node`."""
        self._node = Node(
            name=name, fleet=fleet, role=role, listen=listen, connect=connect, labels=labels,
            probes=probes, transport=transport, settings=settings, actor=actor, random=random, now=now, steady=steady,
        )  # fmt: skip
        self.settings = self._node.settings
        """The settings of the node."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        """Held by `start` and `stop`."""
        self._calls: set[Future[Any]] = set()
        self._calls_lock = threading.Lock()
        """Held by each change of `_loop` and `_calls`."""

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self, *, rejoin: bool = False) -> None:
        """Start the thread, load the store and join the fleet. Raises as `Node.start` does; no thread runs then."""
        with self._lock:
            if self._loop is not None:
                raise LifecycleError("the node runs already: make a new SyncNode to start again")
            _stop_at_exit(self)
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_run_loop, args=(loop,), name=f"{self.settings.name} node", daemon=True)
            thread.start()
            with self._calls_lock:
                self._loop, self._thread = loop, thread
            try:
                self._wait(self._node.start(rejoin=rejoin))
            except BaseException:
                self._end_thread()
                raise

    def stop(self) -> None:
        """Leave the fleet, and end the thread. Idempotent. Raises `WrongThread` on the loop of the node."""
        self._check_thread()
        with self._lock:
            if self._loop is None:
                return
            try:
                self._wait(self._node.stop())
            finally:
                self._end_thread()

    def _end_thread(self) -> None:
        with self._calls_lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        _running.discard(self)
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
        for call in list(self._calls):
            call.cancel()  # the loop ended before it began this call

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"SyncNode({self.settings.name!r}, fleet={self.settings.fleet!r}, {'running' if self._loop else 'not running'})"

    def _repr_html_(self) -> str:
        """As of `Node`."""
        return self._node._repr_html_() if self._loop is None else self.read(lambda node: node._repr_html_())

    # --- calls on the loop -------------------------------------------------------------------------------------------

    def run(self, work: Callable[[Node], Awaitable[Result]]) -> Result:
        """The result of an asynchronous call of the node: `node.run(lambda n: n.tiles.put("hall", "sign", "open"))`.

        Raises the errors of the call, `InvalidType` if `work` makes no asynchronous call, `LifecycleError` if the node does not
        run, and `WrongThread` on the loop of the node.
        """

        async def called() -> Result:
            call = work(self._node)
            if not inspect.isawaitable(call):
                raise InvalidType("`run` takes a function that makes an asynchronous call: use `read` for all other calls")
            return await call

        return self._wait(called())

    def read(self, work: Callable[[Node], Result]) -> Result:
        """The result of a function of the node, called on its loop: `node.read(lambda n: n.counters.reports())`.

        The function sees a single state of the node: nothing changes while it runs. Raises as `run`, and `InvalidType` if `work`
        makes an asynchronous call.
        """

        async def called() -> Result:
            result = work(self._node)
            if inspect.iscoroutine(result):
                result.close()
                raise InvalidType("`read` takes a function that makes no asynchronous call: use `run` for it")
            return result

        return self._wait(called())

    def _wait(self, call: Coroutine[Any, Any, Result]) -> Result:
        with self._calls_lock:
            if self._loop is None:
                call.close()
                raise LifecycleError("the node does not run: call it between start and stop")
            try:
                self._check_thread()
            except WrongThread:
                call.close()
                raise
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
            self._calls.add(future)
        try:
            return future.result()
        except CancelledError:
            raise LifecycleError("the node was stopped during the call") from None
        except BaseException:
            future.cancel()  # after an interruption of this thread; else it is done
            raise
        finally:
            self._calls.discard(future)

    def _check_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise WrongThread("a call on the loop of the node would wait for itself: call the Node there")

    # --- writes ------------------------------------------------------------------------------------------------------

    def add_constraint(
        self,
        id_: str,
        *,
        when: str | None = None,
        severity: str = Severity.WARNING,
        about: str | None = None,
        on: Selection | None = None,
        ttl: timedelta | float | None = None,
        until: datetime | int | None = None,
        for_: timedelta | float | None = None,
        clear_after: timedelta | float | None = None,
        clear_when: str | None = None,
        if_unknown: str = IfUnknown.UNKNOWN,
        max_age: timedelta | float | None = None,
        scope: str = Scope.NODE,
        mode: str = Mode.ENFORCE,
        each: str | None = None,
        why: str = "",
        new: bool = False,
        loosen: bool = False,
    ) -> Change:
        """See `Node.add_constraint`."""
        return self._wait(
            self._node.add_constraint(
                id_, when=when, severity=severity, about=about, on=on, ttl=ttl, until=until,
                for_=for_, clear_after=clear_after, clear_when=clear_when, if_unknown=if_unknown, max_age=max_age, scope=scope,
                mode=mode, each=each, why=why, new=new, loosen=loosen,
            )
        )  # fmt: skip

    def edit_constraint(self, id_: str, *, loosen: bool = False, **fields: Unpack[DefinitionFields]) -> Change:
        """See `Node.edit_constraint`."""
        return self._wait(self._node.edit_constraint(id_, loosen=loosen, **fields))

    def resolve_conflict(self, id_: str, keep: Dot | None = None, *, loosen: bool = False) -> Change:
        """See `Node.resolve_conflict`."""
        return self._wait(self._node.resolve_conflict(id_, keep, loosen=loosen))

    def set_parameter(self, name: str, value: object, on: Selection | None = None, *, loosen: bool = False) -> ParameterChange:
        """See `Node.set_parameter`."""
        return self._wait(self._node.set_parameter(name, value, on, loosen=loosen))

    def unset_parameter(self, name: str, on: Selection | None = None, *, loosen: bool = False) -> ParameterChange:
        """See `Node.unset_parameter`."""
        return self._wait(self._node.unset_parameter(name, on, loosen=loosen))

    def parameters(self, name: str | None = None) -> list[ParameterReport]:
        """See `Node.parameters`."""
        return self.read(lambda node: node.parameters(name))

    def remove_constraint(self, id_: str, *, why: str = "") -> None:
        """See `Node.remove_constraint`."""
        self._wait(self._node.remove_constraint(id_, why=why))

    def disable(self, ids: Sequence[str] = (), *, why: str, for_: timedelta | float | None = None, all_: bool = False) -> list[str]:
        """See `Node.disable`."""
        return self._wait(self._node.disable(ids, why=why, for_=for_, all_=all_))

    def enable(self, ids: Sequence[str] = (), *, why: str = "", all_: bool = False) -> list[str]:
        """See `Node.enable`."""
        return self._wait(self._node.enable(ids, why=why, all_=all_))

    def set_mode(self, id_: str, mode: str, *, why: str = "", loosen: bool = False) -> Mode:
        """See `Node.set_mode`."""
        return self._wait(self._node.set_mode(id_, mode, why=why, loosen=loosen))

    def history(self, id_: str | None = None) -> list[HistoryEntry]:
        """See `Node.history`."""
        return self.read(lambda node: node.history(id_))

    def revert(
        self,
        id_: str | None = None,
        *,
        kind: str = "constraint",
        on: Selection | None = None,
        to: int | None = None,
        time: datetime | int | None = None,
        why: str = "",
        dry_run: bool = False,
        loosen: bool = False,
    ) -> RevertReport:
        """See `Node.revert`."""
        return self._wait(self._node.revert(id_, kind=kind, on=on, to=to, time=time, why=why, dry_run=dry_run, loosen=loosen))

    def record(
        self, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None, violations: int | None = None
    ) -> None:
        """See `Node.record`."""
        self._wait(self._node.record(satisfied, violated, constraint=constraint, violations=violations))

    def batch(self, changes: Sequence[BatchChange], *, why: str = "") -> list[BatchResult]:
        """See `Node.batch`."""
        return self._wait(self._node.batch(changes, why=why))

    def preview(self, changes: Sequence[BatchChange]) -> list[EditEffect]:
        """See `Node.preview`."""
        return self._wait(self._node.preview(changes))

    def measure(self, values: Mapping[str, object]) -> None:
        """See `Node.measure`."""
        self._wait(self._node.measure(values))

    def check(self, values: Mapping[str, object]) -> list[Evaluation]:
        """See `Node.check`."""
        return self._wait(self._node.check(values))

    def decide(self, values: Mapping[str, object]) -> DecisionReport:
        """See `Node.decide`."""
        return self._wait(self._node.decide(values))

    def update_position(self, position: Position) -> None:
        """See `Node.update_position`."""
        self._wait(self._node.update_position(position))

    @contextlib.contextmanager
    def budget(self, name: str, amount: int = 1, *, timeout: float | None = None, holder: str = "") -> Iterator[HoldReport]:
        """Hold an amount of a budget inside of a `with` block, and renew it meanwhile. Raises as `Node.budget`.

        A thread cannot be cancelled: `HoldLost` is raised at the end of the block.
        """
        report = self._wait(self._node.budgets.acquire(name, amount, holder=holder, timeout=timeout))
        keeper = self.read(lambda node: node.budgets.keep(report))
        try:
            yield report
        finally:
            with contextlib.suppress(LifecycleError):
                self.read(lambda _: keeper.cancel())
                self._wait(self._node.budgets.release(name, report.hold))
        if keeper.done() and not keeper.cancelled():
            raise HoldLost(keeper.result())

    def reload(self, settings: NodeSettings) -> tuple[list[str], list[str]]:
        """See `Node.reload`."""
        return self._wait(self._node.reload(settings))

    @contextlib.contextmanager
    def guard(self, *ids: str, if_unknown: Literal["stop", "go"] = "stop") -> Iterator[GuardReport]:
        """Run a `with` block that is meant to run only while these constraints hold. Raises as `Node.guard`.

        A thread cannot be cancelled: `GuardBroken` is raised at the end of a block in which they ceased to hold.
        """
        begun = self.run(lambda node: node.guards.begin(ids, if_unknown))
        watch = self.read(lambda node: node.guards.watch(ids, if_unknown))
        try:
            yield begun
        finally:
            with contextlib.suppress(LifecycleError):
                self.read(lambda _: watch.cancel())
        if watch.done() and not watch.cancelled():
            raise GuardBroken(watch.result())

    def audit(self) -> list[AuditEntry]:
        """See `Node.audit`."""
        return self.read(lambda node: node.audit())

    def retire(self, node: str, *, dry_run: bool = False, force: bool = False, undo: bool = False, why: str = "") -> RetireReport:
        """See `Node.retire`."""
        return self._wait(self._node.retire(node, dry_run=dry_run, force=force, undo=undo, why=why))

    def revoke(self, node: str, *, reason: str = "", undo: bool = False, dry_run: bool = False) -> RevocationReport:
        """See `Node.revoke`."""
        return self._wait(self._node.revoke(node, reason=reason, undo=undo, dry_run=dry_run))

    def export_state(self) -> str:
        """See `Node.export_state`."""
        return self._wait(self._node.export_state())

    def import_state(self, text: str | bytes, *, max_bytes: int = MAX_STATE_BYTES) -> ImportReport:
        """See `Node.import_state`."""
        return self._wait(self._node.import_state(text, max_bytes=max_bytes))

    # --- reads -------------------------------------------------------------------------------------------------------

    def over(self) -> str:
        """See `Node.over`."""
        return self._wait(self._node.over())

    def events(self, *, timeout: float | None = None, last: int = 0, kinds: Collection[str] = ()) -> Iterator[Event]:
        """The events from this call on, until the node stops. `last`, `kinds`: see `Node.events`.

        `timeout`: seconds; the iteration ends when no event came for so long. None: it waits for ever.
        """
        return self._follow(self.read(lambda node: node.events(last=last, kinds=kinds)), timeout)

    def _follow(self, events: AsyncIterator[Event], timeout: float | None) -> Iterator[Event]:
        try:
            while True:
                try:
                    event = self._wait(_next(events, timeout))
                except LifecycleError:
                    return
                if event is None:
                    return
                yield event
        finally:
            with contextlib.suppress(LifecycleError, WrongThread):  # the latter: dropped by a collection on the thread of the node
                self._wait(_close(events))

    def position(self) -> PositionReport:
        """See `Node.position`."""
        return self.read(lambda node: node.position())

    def status(self) -> Status:
        """See `Node.status`."""
        return self.read(lambda node: node.status())

    def notes_on(self, id_: str) -> tuple[str, ...]:
        """See `Node.notes_on`."""
        return self.read(lambda node: node.notes_on(id_))

    def not_ready(self) -> str | None:
        """See `Node.not_ready`."""
        return self.read(lambda node: node.not_ready())

    def constraint_ids(self) -> list[str]:
        """See `Node.constraint_ids`."""
        return self.read(lambda node: node.constraint_ids())

    def expired_ids(self) -> list[str]:
        """See `Node.expired_ids`."""
        return self.read(lambda node: node.expired_ids())

    def node_names(self, on: Selection | None = None) -> list[str]:
        """See `Node.node_names`."""
        return self.read(lambda node: node.node_names(on))

    def constraints(self, ids: Sequence[str] | None = None) -> list[ConstraintReport]:
        """See `Node.constraints`."""
        return self.read(lambda node: node.constraints(ids))

    def expired(self, ids: Sequence[str] | None = None) -> list[ConstraintReport]:
        """See `Node.expired`."""
        return self.read(lambda node: node.expired(ids))

    def nodes(self, names: Sequence[str] | None = None) -> list[NodeReport]:
        """See `Node.nodes`."""
        return self.read(lambda node: node.nodes(names))

    def variable_ids(self, *, node: str | None = None, name: str | None = None) -> list[str]:
        """See `Node.variable_ids`."""
        return self.read(lambda running: running.variable_ids(node=node, name=name))

    def variables(self, ids: Sequence[str] | None = None) -> list[VariableReport]:
        """See `Node.variables`."""
        return self.read(lambda node: node.variables(ids))

    def reading_ids(self, *, name: str | None = None, node: str | None = None) -> list[str]:
        """See `Node.reading_ids`."""
        return self.read(lambda own: own.reading_ids(name=name, node=node))

    def readings(self, ids: Sequence[str] | None = None) -> ReadingsReport:
        """See `Node.readings`."""
        return self.read(lambda node: node.readings(ids))

    def storage(self) -> StorageReport:
        """See `Node.storage`."""
        return self.read(lambda node: node.storage())

    def identity(self) -> IdentityReport:
        """See `Node.identity`."""
        return self.read(lambda node: node.identity())


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until `loop.stop`. Calls in progress then are cancelled, so that no thread waits for ever."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        while tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _next(events: AsyncIterator[Event], timeout: float | None) -> Event | None:  # noqa: ASYNC109 - of the caller
    """The next event; None after the last event, and after `timeout` seconds without an event."""
    try:
        async with asyncio.timeout(timeout):
            return await anext(events, None)
    except TimeoutError:
        return None


async def _close(events: AsyncIterator[Event]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()


def _stop_all() -> None:
    for node in list(_running):
        node.stop()


def _stop_at_exit(node: SyncNode) -> None:
    """Stop a node at the exit of the interpreter, at the latest."""
    if not _registered:
        _registered.append(True)
        # `atexit` is too late: the pools of threads that write the store are shut down before its callbacks run.
        threading._register_atexit(_stop_all)  # type: ignore[attr-defined]
    _running.add(node)


_registered: list[bool] = []
