"""Node: a running member of a fleet, on asyncio. Programs embed it; the command line is a thin front on it.

    async with Node(name="forge", connect=["tcp/10.0.0.1:7447"]) as node:
        await node.add_constraint("max_speed", when="speed_mps <= 1.5")
        await node.measure({"speed_mps": 1.2})
        async for event in node.events():
            ...

`lifecycle` has its parts and its background tasks.

Rules of threads: all state belongs to the event loop on which the node was started, and to the thread of this loop. Writes from
another thread or loop are refused, and so are writes before `start` and after `stop`. Reads are not checked: before `start` and
after `stop` they answer from the state in memory, and a read from another thread may see half of a change. Programs without an
event loop, and other threads, use `SyncNode`.
"""

import asyncio
import enum
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import partial
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, Unpack

import msgspec

from constraint_crdt.crdt.cells import make_key
from constraint_crdt.crdt.clock import Dot, Replica, check_id
from constraint_crdt.errors import (
    ConstraintCrdtError,
    ConstraintExists,
    InvalidType,
    LifecycleError,
    UnknownConstraint,
    WrongThread,
)
from constraint_crdt.expression import check_expressions, check_names
from constraint_crdt.expression.evaluation import Evaluation, is_known
from constraint_crdt.expression.measurements import flattened, read_instance
from constraint_crdt.insight.explain import EditEffects
from constraint_crdt.insight.history import RevertPlan, RuleHistory
from constraint_crdt.model import Event, IfUnknown, Mode, Scope, Severity, counted, html_fields
from constraint_crdt.operations.alerts import GuardReport
from constraint_crdt.operations.budgets import HoldReport
from constraint_crdt.operations.constraints import (
    MAX_CHANGES,
    AddConstraint,
    BatchChange,
    ConstraintReport,
    EditEffect,
    RecordCounts,
)
from constraint_crdt.operations.counts import single_violated
from constraint_crdt.operations.fleet import PositionReport, RevocationReport
from constraint_crdt.operations.nodes import IdentityReport, NodeReport, RetireReport, Status, StorageReport
from constraint_crdt.operations.rules import REVERTED, DecisionReport, HistoryEntry, RevertReport
from constraint_crdt.operations.service import ImportReport
from constraint_crdt.operations.variables import ParameterChange, ParameterReport, ReadingsReport, VariableReport
from constraint_crdt.runtime.change_feed import (
    BatchResult,
    apply_changes,
    check_definitions,
    is_cheap,
    new_definitions,
    sound_definitions,
)
from constraint_crdt.runtime.event_log import EventStream
from constraint_crdt.runtime.lifecycle import Runtime
from constraint_crdt.runtime.measurement import Probe
from constraint_crdt.runtime.settings import RELOADED, NodeSettings
from constraint_crdt.runtime.shared import position_report
from constraint_crdt.state import MAX_STATE_BYTES
from constraint_crdt.transport import Transport
from constraint_crdt.types.alerts import ALERT_RULE
from constraint_crdt.types.definition import ADD, DefinitionFields, Selection, check_selector, duration_ns, time_ns, with_mode
from constraint_crdt.types.nodes import AuditEntry
from constraint_crdt.types.orset import ALL, SWITCH, Change, Subject
from constraint_crdt.types.parameters import PARAMETER, check_parameter_name, check_parameter_value
from constraint_crdt.types.tile_cells import Position

if TYPE_CHECKING:  # `cryptography` is loaded for nodes with an identity only
    from constraint_crdt.runtime.certificates import Certificates


class _Life(enum.Enum):
    NEW = enum.auto()
    STARTING = enum.auto()
    RUNNING = enum.auto()
    STOPPED = enum.auto()


_SHOWN = {_Life.NEW: "not started", _Life.STARTING: "starting", _Life.RUNNING: "running", _Life.STOPPED: "stopped"}
_STARTED = {_Life.STARTING: "is starting", _Life.RUNNING: "runs already", _Life.STOPPED: "was stopped"}
_REFUSED = {_Life.NEW: "has not been started", _Life.STARTING: "is still starting", _Life.STOPPED: "was stopped"}


class Node:
    """A node of a fleet. Use it as an async context manager, or call `start` and `stop`, once each.

    Writes are for the event loop on which the node was started. They raise `WrongThread` elsewhere, and `LifecycleError` before
    `start` and after `stop`; nothing changes then. Reads work before `start` and after `stop` too; call them on the loop as well.
    `SyncNode` is for programs without an event loop, and for threads.
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
        """Keyword settings override those in `settings`. `transport`: Zenoh if left out. `actor`: who makes the changes of this
        program, for the audit; the user of the process if left out. `random`: selects peers. `now`: the time in ns since the epoch.
        `steady`: with a `now` of your own, a clock in ns that is never set; without it the node does not notice steps of `now`.

        Raises `ConstraintCrdtError` for a name or fleet out of bounds, and `InvalidType` for an object that is no transport.
        """
        if transport is not None and not callable(getattr(transport, "open", None)):
            kind = type(transport).__name__
            raise InvalidType(f"a {kind} is no transport: of a MemoryNetwork, pass what its method `transport()` returns")
        given = {"name": name, "fleet": fleet, "role": role, "listen": listen, "connect": connect, "labels": labels}
        changes = {
            key: tuple(value) if key in ("listen", "connect") else value for key, value in given.items() if value is not None
        }
        self.settings = msgspec.structs.replace(settings or NodeSettings(), **changes)
        self._life = _Life.NEW
        self._loop: asyncio.AbstractEventLoop | None = None
        random = random or Random()  # noqa: S311 - selects peers, protects nothing
        runtime = self._runtime = Runtime(self.settings, transport, probes, random, now, self._check_call, actor, steady)
        self._now = now
        self.gossip = runtime.gossip
        """The state, and the protocol of the node."""
        self.tiles = runtime.tiles
        """The tiles."""
        self.approximate = runtime.sketches
        """The sketches, among them the most violated constraints, and the Bloom filters."""
        self.budgets = runtime.budgets
        """The budgets: limits for the whole fleet, of which processes hold amounts."""
        self.counters = runtime.counters
        """Counters that go up and down."""
        self.plato = runtime.plato
        """The rooms, as clients of the PLATO contract see them."""
        self.rates = runtime.rates
        """The recent rates at which constraints held and were violated."""
        self.evidence = runtime.evidence
        """The evidence of the state of each peer."""
        self.coverage = runtime.coverage
        """Which nodes have heard of a change."""
        self.explanations = runtime.explanations
        """Everything known of a constraint."""
        self.verdict_history = runtime.verdict_history
        """The recent course of each constraint."""
        self.edit_effects = EditEffects(runtime.gossip)
        """What edits of constraints mean, in values."""
        self.decisions = runtime.decisions
        """The last decisions."""
        self.rules = RuleHistory(runtime.gossip)
        """Who changed the rules, when, and the former rules."""
        self.convergence = runtime.convergence
        """How the state of each peer compares to this node's."""
        self.overview = runtime.overview
        """The constraints of a large fleet, in pages."""
        self.diagnosis = runtime.diagnosis
        """The faults of this node."""
        self.guards = runtime.guards
        """Blocks and functions that run only while constraints hold on this node."""
        self.alerts = runtime.alerts
        """The alerts of this node's rules."""
        self.actions = runtime.actions
        """The actions of this node's settings."""
        self.fleet_alerts = runtime.fleet_alerts
        """The alert rules of the fleet, silences and acknowledgements."""
        self.rollouts = runtime.rollouts
        """Definitions that reach the fleet in stages."""
        self.notices = runtime.notices
        """Which readings changed."""
        self.metrics = runtime.metrics
        """Counters and gauges of this node."""

    # --- life --------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Node({self.settings.name!r}, fleet={self.settings.fleet!r}, {_SHOWN[self._life]})"

    def _repr_html_(self) -> str:
        """Tables of the node and of its state, for notebooks."""
        fields = [
            ("node", self.settings.name),
            ("fleet", self.settings.fleet),
            ("life", _SHOWN[self._life]),
            ("peers with known state", self.gossip.peer_count),
        ]
        return html_fields("Node", fields) + self.gossip.state._repr_html_()

    async def start(self, *, rejoin: bool = False) -> None:
        """Load the store and join the fleet. `rejoin`: rename the store and begin with an empty one; peers bring its content back.

        Raises `StoreError` or `TransportError` if store or transport cannot open, nothing runs then and a new try is allowed, and
        `LifecycleError` for a node that was started or stopped before.
        """
        if self._life is not _Life.NEW:
            raise LifecycleError(f"the node {_STARTED[self._life]}: make a new Node to start again")
        self._loop, self._life = asyncio.get_running_loop(), _Life.STARTING
        try:
            await self._runtime.start(rejoin=rejoin)
        except BaseException:
            self._life = _Life.NEW
            raise
        self._life = _Life.RUNNING

    async def stop(self) -> None:
        """Leave: write and push the gathered counts, then close the transport. Idempotent.

        Raises `WrongThread` on another event loop than that of `start`.
        """
        self._check_loop()
        self._life = _Life.STOPPED
        await self._runtime.stop()

    def _check_call(self) -> None:
        """Refuse a write outside of the life or the loop of the node."""
        if self._life is not _Life.RUNNING:
            raise LifecycleError(f"the node {_REFUSED[self._life]}: it takes writes between start and stop only")
        self._check_loop()

    def _check_loop(self) -> None:
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise WrongThread(
                "the node runs on another event loop: call it there (asyncio.run_coroutine_threadsafe), or use SyncNode"
            )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def reload(self, settings: NodeSettings) -> tuple[list[str], list[str]]:
        """Take over the settings that a running node can (`RELOADED`).

        Returns the names of those that it took over, and of those that differ and need a restart. Raises as writes do.
        """
        self._check_call()
        differing = [name for name in NodeSettings.__struct_fields__ if getattr(settings, name) != getattr(self.settings, name)]
        taken = [name for name in differing if name in RELOADED]
        self.settings = msgspec.structs.replace(self.settings, **{name: getattr(settings, name) for name in taken})
        if "labels" in taken:
            await self._runtime.relabel(self.settings)
        if "alert" in taken or "destinations" in taken:
            self._runtime.replace_alerts(self.settings)
        return taken, [name for name in differing if name not in RELOADED]

    async def over(self) -> str:
        """Wait until this node has to end for good. Returns the reason: retirement, or another live node of the same name."""
        return await self._runtime.membership.over()

    # --- writes ------------------------------------------------------------------------------------------------------

    async def add_constraint(
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
        """Add a constraint to the whole fleet, or replace its definitions known here.

        `on`: the labels of the nodes to apply the constraint to, or the text of a selector, as in `zone in (a, b), !spare`.
        `ttl`: its duration, a number in seconds; `until`: its end, a number in ns since the epoch. Without either the constraint
        lasts until its removal.

        `for_`: the constraint is violated only once `when` was violated for so long. `clear_after`: a violated constraint holds
        again only once it held for so long; `clear_when`: and only if this expression holds. `if_unknown`: the verdict to count for
        an unknown outcome. `max_age`: older values are not used. Durations are a `timedelta` or a number in seconds.
        `scope`: `fleet` for a constraint over `nodes`, the nodes that `on` selects, with their shared readings.
        `mode`: the consequence of a violation; `each`: the label of measurements whose values are its instances.
        `why`: the reason of the change, for the audit and the history.
        `new`: refuse a constraint that is active. `loosen`: take the definition also where it loosens a critical constraint.

        Raises `ConstraintExists` (`new`), `LooseningRefused` (without `loosen`), `ExpressionError` (wrong `when` or `clear_when`),
        `ClockInDoubt` (an end, while this node does not know the time) or `ConstraintCrdtError` (out of bounds); nothing changes
        then.
        """
        if new and id_ in self.gossip.state.constraints:
            raise ConstraintExists(id_)
        await self._check_expressions(when, clear_when, scope, on)
        if id_ in self.gossip.state.constraints:
            fields: DefinitionFields = {
                "when": when, "severity": severity, "about": about, "on": on, "ttl": ttl, "until": until, "for_": for_,
                "clear_after": clear_after, "clear_when": clear_when, "if_unknown": if_unknown, "max_age": max_age, "scope": scope,
                "mode": mode, "each": each,
            }  # fmt: skip
            await self.edit_effects.permit({id_: self.gossip.new_definition(fields)}, loosen=loosen)
        self._check_call()
        add = partial(
            self.gossip.add_constraint, id_, when=when, severity=severity, about=about, on=on, ttl=ttl, until=until,
            for_=for_, clear_after=clear_after, clear_when=clear_when, if_unknown=if_unknown, max_age=max_age, scope=scope,
            mode=mode, each=each,
        )  # fmt: skip
        if new and id_ in self.gossip.state.constraints:  # came while the expressions were checked
            raise ConstraintExists(id_)
        add = partial(add, at=self.gossip.time.stamp())
        return await self._runtime.feed.commit(add, "add", id_, why=why, subjects=[Subject(ADD, id_)])

    async def _check_expressions(self, when: str | None, clear_when: str | None, scope: str, on: Selection | None) -> None:
        if not when:
            return
        kinds = self.gossip.state.variables.kinds()
        nodes = self._runtime.evaluator.fleet.selected(on) if scope == Scope.FLEET else 0
        if scope != Scope.FLEET and is_known(when, kinds) and is_known(clear_when, kinds):
            check_expressions(when, clear_when, kinds)
        else:  # the CEL library may not be loaded yet
            bind = self.gossip.binding(when, clear_when)
            check = partial(check_expressions, when, clear_when, dict(kinds), scope=scope, nodes=nodes, bind=bind)
            await asyncio.to_thread(check)

    async def edit_constraint(self, id_: str, *, loosen: bool = False, **fields: Unpack[DefinitionFields]) -> Change:
        """Change the fields of an active constraint that are given, named as in `add_constraint`, and keep the others.

        None sets a field to its default; `until=None` takes its end away. `loosen`: also where it loosens a critical constraint.
        Raises `UnknownConstraint` for an inactive constraint, `ConstraintInConflict` for a constraint with several definitions, and
        as `add_constraint`; nothing changes then.
        """
        definition = self.gossip.edited_definition(id_, fields)
        await self._check_expressions(definition.when, definition.clear_when, definition.scope, definition.selector)
        await self.edit_effects.permit({id_: definition}, loosen=loosen)
        self._check_call()
        edit = partial(self.gossip.edit_constraint, id_, at=self.gossip.time.stamp(), **fields)
        return await self._runtime.feed.commit(edit, "edit", id_, subjects=[Subject(ADD, id_)])

    async def resolve_conflict(self, id_: str, keep: Dot | None = None, *, loosen: bool = False) -> Change:
        """Replace the definitions in force for a constraint by that of the dot `keep`, or by all of them, joined.

        Joined, each `when` must hold, with the gravest severity and the last end. `loosen`: also where a critical definition that
        ends is stricter. Raises `UnknownConstraint` for an inactive constraint, `LooseningRefused` without `loosen`, and
        `ConstraintCrdtError` for another dot, and for definitions that differ in a further field.
        """
        self._check_call()
        await self.edit_effects.permit({id_: self.gossip.resolved_definition(id_, keep)}, loosen=loosen)
        resolve = partial(self.gossip.resolve_conflict, id_, keep, at=self.gossip.time.stamp())
        return await self._runtime.feed.commit(resolve, "resolve", id_, subjects=[Subject(ADD, id_)])

    async def set_parameter(
        self, name: str, value: object, on: Selection | None = None, *, loosen: bool = False
    ) -> ParameterChange:
        """Give a parameter a value on all nodes, or on those that `on` selects; constraints read it as `param.NAME`.

        `value`: a number, a text or a bool. Of the settings for a node that with the most requirements counts. `loosen`: also
        where it loosens a critical constraint on a known node. Returns the nodes and constraints that it changes, as far as known
        here. Raises `LooseningRefused` without `loosen`, `TypeError` for a value of another type, and `ConstraintCrdtError` for
        values out of bounds.
        """
        self._check_call()
        check_parameter_name(name)
        checked, selector = check_parameter_value(value), check_selector(on)
        effects = await self.edit_effects.permit_parameter(name, selector, checked, loosen=loosen)
        change = await self._change_parameter(name, on, lambda: self.gossip.set_parameter(name, value, on), "set")
        return msgspec.structs.replace(change, effects=effects if change.change == "set" else ())

    async def unset_parameter(self, name: str, on: Selection | None = None, *, loosen: bool = False) -> ParameterChange:
        """Remove the setting of a parameter for this selector. Returns and raises as `set_parameter`.

        Raises `UnknownName` if none stands.
        """
        self._check_call()
        effects = await self.edit_effects.permit_parameter(name, check_selector(on), None, loosen=loosen)

        def unset() -> bool:
            self.gossip.unset_parameter(name, on)
            return True

        change = await self._change_parameter(name, on, unset, "unset")
        return msgspec.structs.replace(change, effects=effects)

    async def _change_parameter(self, name: str, on: Selection | None, write: Callable[[], bool], what: str) -> ParameterChange:
        answers = self._runtime.answers
        before = answers.parameter_values(name)
        subject = Subject(PARAMETER, make_key(name, str(check_selector(on))))
        written = await self._runtime.feed.commit(write, what, name, subjects=[subject])
        await self._runtime.evaluator.renew()
        return answers.parameter_change(name, check_selector(on), what if written else "unchanged", before)

    def parameters(self, name: str | None = None) -> list[ParameterReport]:
        """The parameters of the fleet, or that of a name, with their settings and the value on this node, ordered by name."""
        return self._runtime.answers.parameters(name)

    async def remove_constraint(self, id_: str, *, why: str = "") -> None:
        """Remove a constraint in the whole fleet, and end its disabling. `why`: the reason, for the audit and the history.

        Raises `UnknownConstraint` for a constraint not active here.
        """
        self._check_call()
        remove = partial(self.gossip.remove_constraint, id_)
        await self._runtime.feed.commit(remove, "remove", id_, why=why, subjects=_subjects(ADD, [id_]) + _subjects(SWITCH, [id_]))

    async def disable(
        self, ids: Sequence[str] = (), *, why: str, for_: timedelta | float | None = None, all_: bool = False
    ) -> list[str]:
        """Disable constraints in the whole fleet: they are kept, and evaluated on no node. Returns the ids.

        `all_`: all constraints, present and later ones. `for_`: for so long (a `timedelta`, or seconds); None: until they are
        enabled. Nodes of 0.1.0 evaluate on. Raises `UnknownConstraint` for a constraint not active here, `ClockInDoubt` for an end
        while this node does not know the time, and `ConstraintCrdtError` without a reason or for an end out of bounds.
        """
        self._check_call()
        if not why.strip():
            raise ConstraintCrdtError("say why: others have to know whether they may enable it again", field="why")
        if duration_ns(for_, "for") == 0:
            raise ConstraintCrdtError("for must be above 0 seconds", field="for")
        wanted, feed = _switched(ids, all_), self._runtime.feed
        disable = partial(self.gossip.disable, wanted, ttl=for_, actor=feed.actor, why=why)
        return await feed.commit(disable, "disable", _subject(wanted), why=why, subjects=_subjects(SWITCH, wanted))

    async def enable(self, ids: Sequence[str] = (), *, why: str = "", all_: bool = False) -> list[str]:
        """End disablings; returns the ids of those that were disabled. `all_`: that of all constraints together.

        Raises `UnknownConstraint` for a constraint not active here, and `ConstraintCrdtError` for a constraint that is disabled
        together with all others only.
        """
        self._check_call()
        wanted, switches = _switched(ids, all_), self.gossip.state.switches
        of_all = switches.of_all
        if of_all is not None and not all_ and not set(wanted) & set(switches):
            raise ConstraintCrdtError("all constraints are disabled together: enable all of them")
        feed = self._runtime.feed
        enable = partial(self.gossip.enable, wanted, actor=feed.actor, why=why)
        return await feed.commit(enable, "enable", _subject(wanted), why=why, subjects=_subjects(SWITCH, wanted))

    async def set_mode(self, id_: str, mode: str, *, why: str = "", loosen: bool = False) -> Mode:
        """Set the consequence of a violation of a constraint, `audit`, `warn` or `enforce`; returns the mode before.

        All else of its definition stays, its end as well. `loosen`: also where it loosens a critical constraint. Raises
        `UnknownConstraint` for a constraint not active here, `LooseningRefused` without `loosen`, and `ConstraintCrdtError` for
        another mode, for a constraint without a `when`, and for a constraint in conflict.
        """
        self._check_call()
        definitions = self.gossip.state.constraints.definitions(id_)
        if not definitions:
            raise UnknownConstraint(id_)
        if len(definitions) > 1:
            raise ConstraintCrdtError(f"{id_} has definitions that differ: edit it first", field="id")
        (definition,) = definitions
        wanted = with_mode(definition, mode)
        await self.edit_effects.permit({id_: wanted}, loosen=loosen)
        restore = partial(self.gossip.restore, {id_: wanted}, {}, at=self.gossip.time.stamp())
        await self._runtime.feed.commit(restore, "mode", id_, why=why, subjects=_subjects(ADD, [id_]))
        return definition.mode

    def history(self, id_: str | None = None) -> list[HistoryEntry]:
        """Who changed the rules and the membership of the fleet, when, why, and the former state; the newest last.

        `id_`: of a constraint, with its switch. Changes are kept for 90 days, the last of each node. O(changes).
        """
        return self.rules.entries(id_)

    async def revert(
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
        """Undo the last change of a constraint; with `to` make this version of its definition the present version again.

        `kind`: `id_` names a constraint, a parameter (`on`: its setting for these nodes), an alert rule or a silence. `time`,
        without `id_`: put all constraints, disablings, parameters, alert rules and silences back to their state then (an aware
        `datetime`, or ns since the epoch). A revert is an edit, in a single transaction. `dry_run`: only report. `loosen`: also
        where it loosens a critical constraint. Raises `NotKept` for a version or a time that is not kept, `UnknownName` for an
        unknown silence, and `LooseningRefused` without `loosen`; nothing changes then.
        """
        if (id_ is None) == (time is None) or (to is not None and id_ is None):
            raise ConstraintCrdtError("name a constraint, perhaps with a version, or a time for all of them", field="id")
        plan = self._revert_plan(id_, kind, on, to) if time is None else self.rules.to_time(time_ns(time, "time"))
        report = plan.report()
        definitions, switches = {each.id: each.definition for each in plan.constraints}, dict(plan.switches)
        stopped = [id_ for id_, switch in switches.items() if switch is not None and id_]
        effects = await self.edit_effects.of_all(definitions, stopped)
        steps = tuple(
            msgspec.structs.replace(each, effect=effects.get(each.id)) if each.kind == REVERTED[0] else each
            for each in report.steps
        )
        report = msgspec.structs.replace(report, steps=steps)
        if dry_run or not report.steps:
            return report
        self._check_call()
        if len(report.steps) > MAX_CHANGES:
            raise ConstraintCrdtError(f"a revert has at most {MAX_CHANGES} steps, not {len(report.steps)}")
        await self.edit_effects.permit(definitions, loosen=loosen, disabled=stopped)
        feed, at = self._runtime.feed, self.gossip.time.stamp()
        state, actor = self.gossip.state, feed.actor

        def further(me: Replica) -> None:
            plan.write(state, at=at, actor=actor, node=me)

        restore = partial(self.gossip.restore, definitions, switches, further, actor=actor, at=at)
        subject = report.steps[0].id or "all constraints"
        if len(report.steps) > 1:
            subject = f"{len(report.steps)} {'rules' if plan.settings or plan.silences else 'constraints'}"
        await feed.commit(restore, "revert", subject, why=why, subjects=plan.subjects())
        self.alerts.read_rules()
        return msgspec.structs.replace(report, done=True)

    def _revert_plan(self, id_: str | None, kind: str, on: Selection | None, to: int | None) -> RevertPlan:
        name = check_id(
            id_ or "", f"{'an' if kind[:1] in 'ae' else 'a'} {kind} id", field="id"
        )  # an empty one is the key of all switches
        if kind not in REVERTED:
            raise ConstraintCrdtError(f"kind must be one of {', '.join(REVERTED)}, not {kind!r}", field="kind")
        if on and kind != "parameter":
            raise ConstraintCrdtError("only settings of parameters are for some nodes: leave `on` out", field="on")
        if kind == "parameter":
            return self.rules.setting(Subject(PARAMETER, make_key(name, str(check_selector(on or None)))), to)
        if kind == "alert rule":
            return self.rules.setting(Subject(ALERT_RULE, name), to)
        if kind == "silence":
            if to is not None:
                raise ConstraintCrdtError("a silence has no versions: leave `to` out", field="to")
            return self.rules.silence(name)
        return self.rules.undo(name) if to is None else self.rules.to_version(name, to)

    async def record(
        self, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None, violations: int | None = None
    ) -> None:
        """Count evaluations made outside of the node, of a constraint, or without a constraint.

        `violations`: the name of `violated` in 0.1.0. Raises `ValueError` for a negative number, `TypeError` for both names, and
        `UnknownConstraint` for an inactive constraint without counts.
        """
        self._check_call()
        violated = single_violated(violated, violations)
        state = self.gossip.state
        if constraint is not None and constraint not in state.constraints and not any(state.metrics.constraint(constraint)):
            raise UnknownConstraint(constraint)
        await self._runtime.feed.commit(partial(self.gossip.record, satisfied, violated, constraint=constraint))
        self._runtime.evaluator.recorded(constraint, satisfied, violated)

    async def batch(self, changes: Sequence[BatchChange], *, why: str = "") -> list[BatchResult]:
        """Add, remove and record, up to 10,000 changes, in order, at the same instant, with a single commit to disk.

        `why`: the reason of the changes, for the audit and the history.
        Raises `BatchError` (a `ConstraintCrdtError`) naming the first wrong change, and `LooseningRefused` for additions that
        loosen critical constraints and do not say `loosen`; no change is made then.
        """
        kinds = self.gossip.state.variables.kinds()
        if is_cheap(changes, kinds):
            check_definitions(changes, kinds)
        else:
            adds = [change for change in changes if isinstance(change, AddConstraint)]
            bind = self.gossip.binding(*(text for each in adds for text in _texts(each)))
            await asyncio.to_thread(check_definitions, changes, dict(kinds), len(self.node_names()), bind)
        await self.edit_effects.permit(new_definitions(self.gossip, changes), loosen=False)
        self._check_call()
        apply = partial(apply_changes, self.gossip, changes, at=self.gossip.time.stamp())
        redefined = [change.id for change in changes if not isinstance(change, RecordCounts)]
        if redefined:
            subject = redefined[0] if len(redefined) == 1 else f"{len(redefined)} constraints"
            subjects = _subjects(ADD, redefined) + _subjects(SWITCH, self.gossip.state.switches)
            results = await self._runtime.feed.commit(apply, "batch", subject, why=why, subjects=subjects)
        else:
            results = await self._runtime.feed.commit(apply)
        for change in changes:
            if isinstance(change, RecordCounts):
                self._runtime.evaluator.recorded(change.constraint, change.satisfied, change.violations)
        return results

    async def preview(self, changes: Sequence[BatchChange]) -> list[EditEffect]:
        """What these changes of active constraints would mean: which loosen or tighten them, ordered by id. Nothing is changed.

        Additions of new constraints, removals and counts are left out, and definitions that a write would refuse.
        """
        adds = [msgspec.structs.replace(each, loosen=False) for each in changes if isinstance(each, AddConstraint)]
        active = [each for each in adds if each.id in self.gossip.state.constraints]
        bind = self.gossip.binding(*(text for each in active for text in _texts(each)))
        kinds, nodes = dict(self.gossip.state.variables.kinds()), len(self.node_names())
        sound = await asyncio.to_thread(sound_definitions, active, kinds, nodes, bind)
        return list((await self.edit_effects.of_all(new_definitions(self.gossip, sound))).values())

    async def measure(self, values: Mapping[str, object]) -> None:
        """Take measurements in. The latest value of each variable counts until its maximum age; None withdraws it at once.

        The maximum age is the `max_age` of a definition, else that of the variable in the settings, else that of the node.

        Raises `ConstraintCrdtError` for a name that no expression can read, and for a value of a wrong type or out of bounds; no
        value is taken then.
        """
        self._check_call()
        await self._runtime.evaluator.measure(values)

    async def check(self, values: Mapping[str, object]) -> list[Evaluation]:
        """Evaluate the active constraints now, against these values and the latest measurements, and count the results.

        None in place of a value: the variable is missing. Raises `ConstraintCrdtError` for a name that no expression can read.
        """
        self._check_call()
        check_names(name for name in flattened(values) if read_instance(name) is None)
        runtime = self._runtime
        runtime.persistence.check()
        evaluations = await runtime.evaluator.check(values)
        await runtime.evaluator.write_counts(at_once=True)
        runtime.exchanges.push()
        await runtime.persistence.durable()
        return evaluations

    async def decide(self, values: Mapping[str, object]) -> DecisionReport:
        """The rulings of the constraints on these values, on top of the present measurements. Nothing is counted, timed or written.

        A window has a given value as its newest sample. `for` and `clear_after` are not waited for: a condition that does not hold
        counts as violated. None in place of a value: the variable is missing. `decisions` keeps the last of them. Raises
        `ConstraintCrdtError` for a name that no expression can read.
        """
        self._check_call()
        check_names(name for name in flattened(values) if read_instance(name) is None)
        return await self.decisions.make(values, self._runtime.feed.actor)

    async def update_position(self, position: Position) -> None:
        """Move the fleet's position. Raises `ConstraintCrdtError` for coordinates beyond 32 bits."""
        self._check_call()
        await self._runtime.feed.commit(partial(self.gossip.update_position, position))

    def budget(
        self, name: str, amount: int = 1, *, timeout: float | None = None, holder: str = ""
    ) -> AbstractAsyncContextManager[HoldReport]:
        """Hold an amount of a budget inside of an `async with` block, and renew it meanwhile.

        `timeout`: seconds to wait for rights; None: without an end. `holder`: who holds it, for people. Raises `NoRights` with the
        reason, and `UnknownName`. A hold that ends before the block does cancels it, and raises `HoldLost`.
        """
        return self.budgets.hold(name, amount, holder=holder, timeout=timeout)

    def guard(self, *ids: str, if_unknown: Literal["stop", "go"] = "stop") -> AbstractAsyncContextManager[GuardReport]:
        """Run an `async with` block only while these constraints hold on this node; without ids all critical ones.

        `if_unknown`: whether to stop or go on where they cannot be decided. Raises `UnknownConstraint`, and `GuardBroken` if they
        do not hold. A block in which they cease to hold is cancelled, and raises `GuardBroken`. `guards.guarded` is the decorator.
        """
        return self.guards.hold(ids, if_unknown=if_unknown)

    async def retire(
        self, node: str, *, dry_run: bool = False, force: bool = False, undo: bool = False, why: str = ""
    ) -> RetireReport:
        """Retire a node: its counts stay, its messages are refused, and its name must not be used again.

        `dry_run`: only report. `undo`: the node is in service again; started again, it goes on in a new life with the content of
        its store. `why`: the reason, for the audit. Raises `UnknownName` for a node without writes, and `ConstraintCrdtError` for
        this node, for a live node unless `force` is given (writes not received by any peer stay in its store), and with `undo` for
        a node in service.
        """
        report = self._runtime.answers.retirement(node)
        if undo and not report.done:
            raise ConstraintCrdtError(f"{node} is not retired")
        if dry_run:
            return report
        if report.live and not force and not undo:
            raise ConstraintCrdtError(
                f"{node} is live: stop it first, or force it, which loses its writes that no peer has taken yet"
            )
        self._check_call()
        await self._runtime.retire(node, undo=undo, why=why)
        return self._runtime.answers.retirement(node)

    async def revoke(self, node: str, *, reason: str = "", undo: bool = False, dry_run: bool = False) -> RevocationReport:
        """Revoke the keys of a node: its links end, and nothing that it wrote beyond the present state counts any more.

        `undo`: also remove the constraints whose standing definitions it wrote; the report names them. `dry_run`: only report.
        Raises `UnknownName` for a node without a certificate, `NotPermitted` on a node that is no operator, and
        `ConstraintCrdtError` for this node and for a node without an identity.
        """
        report = self.certificates.revocation(node)
        if dry_run:
            return report
        self._check_call()
        if not report.revoked:
            await self._runtime.feed.commit(partial(self.gossip.revoke, node, reason, report.keys), "revoke", node, why=reason)
            self._runtime.membership.shut_out_revoked()
        if undo:
            for id_ in report.constraints:
                if id_ in self.gossip.state.constraints:
                    await self.remove_constraint(id_)
        return msgspec.structs.replace(report, revoked=True)

    async def export_state(self) -> str:
        """The whole state as JSON: see docs/reference/state-files.md. O(cells)."""
        return await self._runtime.state_files.export()

    async def import_state(self, text: str | bytes, *, max_bytes: int = MAX_STATE_BYTES) -> ImportReport:
        """Merge a state made by `export_state` or `to_json`. Newer cells here stay.

        Raises `StateFileError` for other texts, and `ConstraintCrdtError` beyond a limit; nothing changes then.
        """
        self._check_call()
        report = await self._runtime.state_files.merge(text, max_bytes)
        if report.changed and self.gossip.retired_by is None:
            feed, local = self._runtime.feed, self.gossip.local
            note = partial(local.note, feed.actor, "import", counted(report.cells, "cell"), local.time.stamp(), why=feed.why)
            await feed.commit(note)
        return report

    # --- reads -------------------------------------------------------------------------------------------------------

    def events(self, *, last: int = 0, kinds: Collection[str] = ()) -> AsyncIterator[Event]:
        """The events from now on, until the node stops.

        `last`: begin with so many that have happened since the start, such as earlier additions. `kinds`: only events of these
        kinds; empty: all. Raises `ConstraintCrdtError` for a number beyond the events that are kept and for an unknown kind.
        """
        return self._runtime.events.subscribe(last, kinds)

    @property
    def event_stream(self) -> EventStream:
        """The events with their ids, for resuming readers and for listeners."""
        return self._runtime.events

    def position(self) -> PositionReport:
        """The positions of the fleet and of its nodes. O(rows with a position)."""
        return position_report(self.gossip.state)

    @property
    def certified_role(self) -> str | None:
        """The role in the certificate of this node; None without an identity."""
        certificates = self._runtime.certificates
        return None if certificates is None else certificates.identity.subject.role

    def audit(self) -> list[AuditEntry]:
        """Who changed constraints and membership, on all nodes, by time, the newest last. O(entries)."""
        return list(self.gossip.state.audit)

    def status(self) -> Status:
        """The state of this node, and of the fleet as seen from here. O(peers x rows)."""
        return self._runtime.answers.status(self.convergence)

    def notes_on(self, id_: str) -> tuple[str, ...]:
        """Sentences for the author of an active constraint: a variable that no node measures, labels that no known node has, an
        expression that reads nothing. Empty if there are none, or if nodes did not tell yet which variables they measure.
        """
        return self.diagnosis.notes({id_: self.gossip.state.constraints.definitions(id_)})[id_]

    @property
    def has_abandoned_disk(self) -> bool:
        """The disk did not answer during the stop: a thread of this process still waits for it, and its last changes are lost."""
        return self._runtime.persistence.abandoned

    def not_ready(self) -> str | None:
        """Why this node does not take part in full; None if it does."""
        if self._runtime.membership.me is None:
            return "the node has not joined its fleet yet"
        if self.gossip.retired_by is not None:
            return f"the node was retired by {self.gossip.retired_by}"
        return self._runtime.persistence.trouble

    def constraint_ids(self) -> list[str]:
        """The active constraints, ordered."""
        return sorted(self.gossip.state.constraints)

    def expired_ids(self) -> list[str]:
        """The expired constraints not removed yet, ordered."""
        return self.gossip.state.constraints.expired_ids

    def node_names(self, on: Selection | None = None) -> list[str]:
        """The names of all known nodes, ordered; of those that a selector matches, if given.

        A retired node matches by its last labels. Raises `ConstraintCrdtError` for a wrong selector.
        """
        return self._runtime.answers.selected(on)

    def constraints(self, ids: Sequence[str] | None = None) -> list[ConstraintReport]:
        """The active constraints, or those of them in `ids`, ordered by id. O(constraints x nodes)."""
        return self._runtime.answers.constraints(ids)

    def expired(self, ids: Sequence[str] | None = None) -> list[ConstraintReport]:
        """The expired constraints not removed yet, or those in `ids`, ordered by id."""
        return self._runtime.answers.expired(ids)

    def nodes(self, names: Sequence[str] | None = None) -> list[NodeReport]:
        """All known nodes, or these, ordered by name. O(nodes x rows)."""
        return self._runtime.answers.nodes(self.convergence, names)

    def variable_ids(self, *, node: str | None = None, name: str | None = None) -> list[str]:
        """The measured variables as `NODE/NAME`, ordered: those of a node, or of a name, if given. O(nodes + variables)."""
        return self._runtime.answers.variable_ids(node, name)

    def variables(self, ids: Sequence[str] | None = None) -> list[VariableReport]:
        """The variables that the nodes measure, or those in `ids` (`NODE/NAME`), in this order. Values and ages are of this node.

        Other nodes tell the names and kinds of at most 1,000 variables each. O(variables x constraints that read them).
        """
        return self._runtime.answers.variables(self.variable_ids() if ids is None else ids)

    def reading_ids(self, *, name: str | None = None, node: str | None = None) -> list[str]:
        """The shared readings as `NAME/NODE`, ordered: those of a variable, or of a node, if given. O(readings)."""
        return self._runtime.answers.reading_ids(name, node)

    def readings(self, ids: Sequence[str] | None = None) -> ReadingsReport:
        """The readings that the nodes share, or those in `ids` (`NAME/NODE`), with the figures of their variables. O(nodes)."""
        return self._runtime.answers.readings(self.reading_ids() if ids is None else ids)

    def storage(self) -> StorageReport:
        """The cells of this node's state, and the removals held back by peers. O(cells)."""
        return self._runtime.answers.storage()

    @property
    def certificates(self) -> "Certificates":
        """The certificates of this node: members, invitations, renewal. Raises `ConstraintCrdtError` without an identity."""
        found = self._runtime.certificates
        if found is None:
            raise ConstraintCrdtError("this node has no identity: make one by `constraint-crdt fleet create` and `fleet certify`")
        return found

    def identity(self) -> IdentityReport:
        """The identity of this node, with its former incarnations."""
        return self._runtime.answers.identity()


def _texts(change: AddConstraint) -> tuple[str | None, str | None]:
    return change.when, change.clear_when


def _switched(ids: Sequence[str], all_: bool) -> list[str]:
    """The keys of the switches. Raises `ConstraintCrdtError` unless either constraints or all of them are named.

    An empty id, as of an unset variable of a shell, is refused: it is the key of all of them.
    """
    ids = [ids] if isinstance(ids, str) else list(ids)
    if bool(ids) == all_:
        raise ConstraintCrdtError("name the constraints, or all of them", field="ids")
    return [ALL] if all_ else [check_id(id_, "a constraint id", field="ids") for id_ in dict.fromkeys(ids)]


def _subject(ids: Sequence[str]) -> str:
    """The subject of an entry of the audit."""
    return (ids[0] or "all constraints") if len(ids) == 1 else f"{len(ids)} constraints"


def _subjects(kind: int, ids: Iterable[str]) -> list[Subject]:
    return [Subject(kind, id_) for id_ in dict.fromkeys(ids)]
