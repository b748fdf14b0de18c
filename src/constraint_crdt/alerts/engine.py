"""The alert engine: evaluates the rules every second, and fires and resolves alerts. `delivery` tells them.

Rules kept here:

- An alert belongs to a rule and a subject. An alert fires once, when its condition has held for the time of the rule (`for`), and
  resolves once, when the condition was over for `keep_firing_for`. `Spell` has the exact semantics: a look per evaluation, violated
  while the condition is true.
- Time is measured by a monotonic clock. A condition without evidence stops both times and ends no alert. A pause between
  two evaluations beyond `MAX_PAUSE` is time without evidence.
- A kind may bound the time without evidence (`longest_unknown`): an alert ends then, and says so.
- The rules are those of the settings and those of the fleet. A rule of the settings stands in place of a rule of the fleet of its
  name. The alerts of a rule that is removed end.
- An alert is sent before it is saved: a node killed in between sends the alert twice, but never loses the alert.
- Alerts are saved in a small file beside the store, replaced as a whole. So after a restart no alert fires again, every alert is
  resolved, and an alert about to fire or to end keeps its time; the time away is without evidence. A node with its state in memory
  loses its alerts with the state.
- Evaluation takes a bounded share of the time: a slow evaluation runs less often.
- Everything about a kind comes from `rules`; the engine names no kind.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from constraint_crdt.alerts import (
    AlertRule,
    Condition,
    Conditions,
    check_of_fleet,
    read_rules,
    read_text,
    same_rule,
    shown_place,
    write_text,
)
from constraint_crdt.alerts.delivery import Alert, Look, Teller
from constraint_crdt.crdt.clock import SECOND, Replica, check_id
from constraint_crdt.errors import ConstraintCrdtError, StoreError, UnknownName
from constraint_crdt.expression.cel import Verdict
from constraint_crdt.expression.temporal import Spell, TimeRules
from constraint_crdt.model import VerdictState, parse_selector
from constraint_crdt.operations.alerts import (
    DEFAULT_ACKNOWLEDGEMENT,
    DEFAULT_SILENCE,
    AlertReport,
    AlertsReport,
    RuleChange,
    RuleReport,
    SilenceReport,
)
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.store.files import read_bounded, replace_file
from constraint_crdt.types.alerts import (
    ACKNOWLEDGED,
    ACTOR_BYTES,
    ALERT_RULE,
    LONGEST_SILENCE,
    QUIET,
    SELECTOR_BYTES,
    WHY_BYTES,
    FleetRule,
    FleetRules,
    Silence,
    SilenceValue,
)
from constraint_crdt.types.nodes import cut
from constraint_crdt.types.orset import Subject

LOOK_EVERY = 1.0
"""Seconds between two evaluations."""

SHARE = 0.05
"""The share of the time that evaluation takes, at most."""

MAX_PAUSE = 30.0
"""Seconds between two evaluations beyond which the time between them is without evidence, or twice the planned pause if longer."""

SAVE_EVERY = 10.0
"""Seconds between two writes of the time of alerts about to fire or to end. A killed node loses this time, at most."""

MOST = 1_000
"""Alerts tracked at once. Further conditions are counted, and tracked when other alerts have ended."""

FILE_BYTES = 4 * 1024 * 1024

KEPT_OVER: Final = 1_000
"""Alerts that ended here and are kept until all were told of it, at most."""

MOST_ACKNOWLEDGED: Final = 100
"""Alerts acknowledged by a command."""

Result = TypeVar("Result")

_OUTCOMES = {True: Verdict.VIOLATED, False: Verdict.SATISFIED, None: Verdict.UNKNOWN}
_log = logging.getLogger("constraint_crdt.alerts")


class _Tracked:
    """An alert, and the clock of its rule."""

    __slots__ = ("alert", "spell", "unknown_since")

    def __init__(self, alert: Alert, spell: Spell | None) -> None:
        """`spell`: None for an alert of before a restart, until the first evaluation."""
        self.alert = alert
        self.spell = spell
        self.unknown_since: int | None = None
        """Since when the condition is without evidence, by the monotonic clock."""

    def resume(self, at: int) -> Spell:
        """The clock of the rule, at an evaluation at this monotonic time in ns."""
        if self.spell is None:
            firing = VerdictState.CLEARING if self.alert.clearing else VerdictState.VIOLATED
            state = VerdictState.PENDING if self.alert.fired_at is None else firing
            self.spell = Spell(at, at, state, elapsed=self.alert.elapsed)
        return self.spell

    def saved(self, untold: list[str]) -> Alert:
        """The alert for the file. `untold`: the destinations that do not know of it."""
        spell = self.spell
        if spell is None:
            return msgspec.structs.replace(self.alert, untold=untold)
        clearing = spell.state is VerdictState.CLEARING
        return msgspec.structs.replace(self.alert, elapsed=spell.elapsed, clearing=clearing, untold=untold)


class Notify(Protocol):
    """Called for each alert that fires or resolves."""

    def __call__(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        """`fired` is False if the alert resolved."""


def _machine_seconds() -> float:
    return time.monotonic()


async def _at_once() -> None:
    """Nothing has to be waited for."""


class AlertEngine:
    """The alerts of a node."""

    def __init__(
        self,
        rules: tuple[AlertRule, ...],
        conditions: Conditions,
        *,
        teller: Teller,
        file: Path | None,
        notify: Notify,
        now: Callable[[], int],
        fleet_rules: FleetRules | None = None,
        half_lives: tuple[float, ...] | None = None,
        durable: Callable[[], Awaitable[None]] = _at_once,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """`rules`: of the settings. `file`: keeps alerts; None: nothing is kept. `now`: ns since the epoch. `fleet_rules`: those in
        the state. `half_lives`: those that the node tracks; None: any. `durable` waits until all writes are on disk.
        `monotonic`: seconds of a clock that is never set; None: the machine's.
        """
        self._monotonic = _machine_seconds if monotonic is None else monotonic
        self._own = {rule.name: rule for rule in rules}
        self._rules = dict(self._own)
        self._fleet_rules = fleet_rules
        self._half_lives = half_lives
        self._read_at = -1
        self._of_fleet: dict[str, AlertRule] = {}
        self._refused: dict[str, str] = {}
        """By name why a rule of the fleet is not evaluated here."""
        self._leaving: dict[str, AlertRule] = {}
        """Rules that were removed, until the ends of their alerts were told."""
        self._conditions = conditions
        self._teller = teller
        self._file = file
        self._notify = notify
        self._now = now
        self._durable = durable
        self._tracked: dict[tuple[str, str], _Tracked] = {}
        self._undecided: set[tuple[str, str]] = set()
        """Without evidence at the last evaluation."""
        self._given_up: set[tuple[str, str]] = set()
        """Ended for lack of evidence, and still without."""
        self._over: dict[tuple[str, str], Alert] = {}
        self._next_evaluation = 0.0
        self._max_pause = MAX_PAUSE
        self._untracked = 0
        self._unsaved = False
        self._unsaved_time = False
        self._next_save = 0.0
        self._saving: asyncio.Task[None] | None = None

    # --- evaluation ---------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Evaluate the rules, tell the fired and resolved alerts, and save them. Called every `LOOK_EVERY` seconds."""
        began = self._monotonic()
        if began < self._next_evaluation:
            return
        changed = self._evaluate(began)
        pause = (self._monotonic() - began) / SHARE
        await self._durable()
        self._teller.send()
        self._next_evaluation = began + pause - LOOK_EVERY
        self._max_pause = max(MAX_PAUSE, 2 * pause)
        self._unsaved = self._unsaved or changed or (self._unsaved_time and began >= self._next_save)
        if self._unsaved:
            self._next_save = began + SAVE_EVERY
        await self._save()

    def evaluate(self, at: float) -> bool:
        """Evaluate all rules once, `at` in monotonic seconds, and tell the changes. Returns True if an alert fired or resolved."""
        changed = self._evaluate(at)
        self._teller.send()
        return changed

    def _evaluate(self, at: float) -> bool:
        self._untracked, changed, now = 0, self.read_rules(), round(at * SECOND)
        self._undecided.clear()
        for rule in self._rules.values():
            found = {each.subject: each for each in self._conditions.find(rule)}
            over = [subject for name, subject in self._tracked if name == rule.name and subject not in found]
            self._undecided.update((rule.name, each.subject) for each in found.values() if each.holds is None)
            for each in (*found.values(), *(Condition(subject, False) for subject in over)):
                changed |= self._look(rule, each, now)
        self._given_up &= self._undecided
        self._tell(now)
        return changed

    def read_rules(self) -> bool:
        """Take over changed rules. Returns True if an alert of a removed rule ended."""
        fleet = self._fleet_rules
        changes = 0 if fleet is None else fleet.changes
        if changes == self._read_at:
            return False
        self._read_at = changes
        before, self._of_fleet, self._refused = self._rules, {}, {}
        for name in fleet or ():
            told = None if fleet is None else fleet.of(name)
            if told is None or name in self._own:
                continue
            try:
                self._of_fleet[name] = read_text(name, told.text, self._half_lives)
            except ConstraintCrdtError as error:
                self._refused[name] = str(error)
        self._rules = {**self._of_fleet, **self._own}
        gone = before.keys() - self._rules.keys()
        self._leaving = {name: rule for name, rule in {**self._leaving, **before}.items() if name not in self._rules}
        changed = False
        for key in [key for key in self._tracked if key[0] in gone]:
            changed |= self._end(before[key[0]], key, "the rule was removed")
        self._unsaved = self._unsaved or changed
        return changed

    def replace_rules(self, rules: Iterable[AlertRule]) -> None:
        """The rules of the settings are these now. Alerts of a rule that goes on go on."""
        self._own, self._read_at = {rule.name: rule for rule in rules}, -1
        self.read_rules()

    def _tell(self, now: int) -> None:
        fired = {key: each.alert for key, each in self._tracked.items() if each.alert.fired_at is not None}
        unfinished = (self._tracked.keys() | self._undecided) - self._given_up
        rules = {**self._leaving, **self._rules}
        self._teller.look(Look(rules, self._of_fleet.keys(), fired, unfinished, self._over), now)
        self._over = {key: alert for key, alert in self._over.items() if self._teller.is_told(*key)}
        kept = {name for name, _ in self._over}
        self._leaving = {name: rule for name, rule in self._leaving.items() if name in kept}

    def _look(self, rule: AlertRule, condition: Condition, now: int) -> bool:
        """Move the alert of a rule and a subject. Returns True if the alert fired or resolved."""
        key = (rule.name, condition.subject)
        tracked = self._tracked.get(key)
        if tracked is None:
            if not condition.holds:
                return False
            if len(self._tracked) >= MOST:
                self._untracked += 1
                return False
            alert = Alert(rule=rule.name, subject=condition.subject, since=self._now())
            tracked = self._tracked[key] = _Tracked(alert, Spell.new(now))
        alert, spell = tracked.alert, tracked.resume(now)
        if condition.holds:
            alert.detail, alert.nodes = condition.detail, list(condition.nodes)
        tracked.unknown_since = (
            None if condition.holds is not None else now if tracked.unknown_since is None else tracked.unknown_since
        )
        longest = rule.longest_unknown
        if longest is not None and tracked.unknown_since is not None and now - tracked.unknown_since >= longest * SECOND:
            self._given_up.add(key)
            return self._end(rule, key, f"no evidence for {longest:g} s: unknown, and not known to be over")
        times = (round(rule.lasts * SECOND), round(rule.keeps * SECOND), round(self._max_pause * SECOND))
        state = spell.look(_OUTCOMES[condition.holds], now, TimeRules(*times))
        if state is VerdictState.HOLDS:
            return self._end(rule, key)
        if state in (VerdictState.PENDING, VerdictState.CLEARING):
            self._unsaved_time = True
            return False
        if alert.fired_at is not None:
            return False
        alert.fired_at = self._now()
        self._notify(rule, alert, fired=True)
        return True

    def _end(self, rule: AlertRule, key: tuple[str, str], why: str = "") -> bool:
        """Drop an alert after its condition ended. Returns True for a fired alert."""
        alert = self._tracked.pop(key).alert
        if alert.fired_at is None:
            self._unsaved_time = True
            return False
        alert.detail = why or alert.detail
        self._over[key] = alert
        while len(self._over) > KEPT_OVER:
            del self._over[next(iter(self._over))]
        self._notify(rule, alert, fired=False)
        return True

    # --- persistence --------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Load the alerts of before the node stopped. An unreadable file is ignored with a warning."""
        self.read_rules()
        if self._file is None or not self._rules:
            return
        try:
            alerts = await asyncio.to_thread(_read, self._file)
        except FileNotFoundError:
            return
        except (OSError, ValueError, StoreError) as error:
            _log.warning("cannot read the alerts in %s (%s): those that hold fire again", self._file, error)
            return
        self.restore(alerts)

    def restore(self, alerts: list[Alert]) -> None:
        """Go on with the alerts of before the node stopped."""
        self.read_rules()
        kept = [alert for alert in alerts[:MOST] if alert.rule in self._rules]
        self._tracked |= {(alert.rule, alert.subject): _Tracked(alert, None) for alert in kept}
        self._teller.recall(kept, self._rules)

    def saved(self) -> list[Alert]:
        """The alerts for the file."""
        return [
            each.saved(self._teller.untold(self._rules[rule], subject) if each.alert.fired_at is not None else [])
            for (rule, subject), each in self._tracked.items()
        ]

    async def close(self) -> None:
        """Stop delivery, and save the alerts."""
        await self._teller.close()
        if self._saving is not None:
            await self._saving
        self._unsaved = self._unsaved or self._unsaved_time or any(each.alert.fired_at for each in self._tracked.values())
        await self._save()

    async def _save(self) -> None:
        if self._file is not None and self._unsaved:
            self._unsaved = self._unsaved_time = False
            content = msgspec.json.encode(self.saved())
            self._saving = asyncio.create_task(self._put(self._file, content))
            await asyncio.shield(self._saving)  # cancelling the caller does not stop the write; `close` waits for it

    async def _put(self, file: Path, content: bytes) -> None:
        try:
            await asyncio.to_thread(replace_file, file, content)
        except OSError as error:
            _log.warning("cannot write the alerts to %s: %s", file, error.strerror or error)

    # --- report -------------------------------------------------------------------------------------------------------

    @property
    def firing(self) -> int:
        """The number of alerts that fire now."""
        return sum(tracked.alert.fired_at is not None for tracked in self._tracked.values())

    def matching(self, pattern: str) -> list[tuple[Alert, AlertRule]]:
        """The firing alerts of a name: of a rule, or of a rule and its subject as `RULE/SUBJECT`."""
        return [
            (each.alert, self._rules[rule])
            for (rule, subject), each in sorted(self._tracked.items(), key=lambda item: item[0])
            if each.alert.fired_at is not None and pattern in (rule, f"{rule}/{subject}")
        ]

    def report(self) -> AlertsReport:
        """The rules and their alerts. O(alerts x silences)."""
        hooks = self._teller.webhooks
        return AlertsReport(
            alerts=tuple(self._shown(tracked.alert) for _, tracked in sorted(self._tracked.items(), key=lambda item: item[0])),
            rules=tuple(self._rule_reports()),
            waiting=hooks.waiting,
            delivered=hooks.delivered,
            dropped=hooks.dropped,
            untracked=self._untracked,
            refused=self._refused,
        )

    def _shown(self, alert: Alert) -> AlertReport:
        rule, fired = self._rules[alert.rule], alert.fired_at is not None
        acknowledged = self._teller.acknowledgement(alert) if fired else None
        return AlertReport(
            rule=alert.rule,
            kind=rule.kind,
            subject=alert.subject,
            firing=fired,
            since=alert.since,
            fired_at=alert.fired_at,
            detail=alert.detail,
            silenced=tuple(each.id for each in self._teller.silences_of(alert.rule, alert.subject, alert.nodes)),
            acknowledged=None if acknowledged is None else acknowledged.value.actor,
            told=dict(self._teller.told(rule, alert.subject)) if fired else {},
        )

    def _rule_reports(self) -> Iterator[RuleReport]:
        for name, rule in self._rules.items():
            told = self._fleet_rules.of(name) if self._fleet_rules is not None and name in self._of_fleet else None
            report = _shown(rule)
            if told is not None:
                lacking = self._teller.lacking(rule)
                report = msgspec.structs.replace(
                    report, of_fleet=True, added_by=told.actor, conflict=told.definitions > 1, lacking=lacking
                )
            yield report


class Commit(Protocol):
    """Writes for a user, see `ChangeFeed.commit`."""

    async def __call__(
        self, mutate: Callable[[], Result], operation: str, subject: str, subjects: Sequence[Subject] = ()
    ) -> Result:
        """Call `mutate`, and wait until the change is on disk. `subjects`: what the history keeps."""


class FleetAlerts:
    """The actions of people on alerts: rules of the fleet, silences and acknowledgements."""

    def __init__(
        self,
        gossip: GossipNode,
        engine: AlertEngine,
        teller: Teller,
        *,
        commit: Commit,
        actor: Callable[[], str],
    ) -> None:
        """`actor`: who asks now."""
        self._gossip = gossip
        self._state = gossip.state
        self._engine = engine
        self._teller = teller
        self._commit = commit
        self._actor = actor

    # --- rules -------------------------------------------------------------------------------------------------------------

    async def define(self, table: Mapping[str, object]) -> RuleChange:
        """Define a rule for the whole fleet, or replace it. `table`: as an `[[alert]]` of a settings file.

        Raises `ConstraintCrdtError` for a wrong rule, and beyond the number of rules.
        """
        (rule,) = read_rules([table])
        text, before = write_text(check_of_fleet(rule)), self._state.alert_rules.of(rule.name)
        if before is not None and before.definitions == 1 and _means(before, rule):
            change = "unchanged"
        else:
            at = self._gossip.time.stamp()
            await self._write(lambda me: self._rule(rule.name, text, at, me), "alert rule", rule.name, rule=True)
            self._engine.read_rules()
            change = "added" if before is None else "replaced"
        return RuleChange(name=rule.name, change=change, lacking=self._teller.lacking(rule))

    async def remove(self, name: str) -> RuleChange:
        """Remove a rule of the fleet. Raises `UnknownName`."""
        if name not in self._state.alert_rules:
            raise UnknownName(name, "alert rule", field="name")
        at = self._gossip.time.stamp()
        await self._write(lambda me: self._rule(name, "", at, me, removed=True), "remove alert rule", name, rule=True)
        self._engine.read_rules()
        return RuleChange(name=name, change="removed")

    def _rule(self, name: str, text: str, at: int, me: Replica, *, removed: bool = False) -> None:
        actor = cut(self._actor(), ACTOR_BYTES)
        self._state.alert_rules.put(name, text, at=at, actor=actor, node=me, removed=removed)

    # --- silences ----------------------------------------------------------------------------------------------------------

    def silences(self) -> list[SilenceReport]:
        """The silences and acknowledgements in force, by their end."""
        return [_silence_report(each) for each in self._state.silences.active(self._gossip.time.now())]

    async def silence(self, alert: str, *, why: str, on: str = "", for_: float = DEFAULT_SILENCE) -> SilenceReport:
        """Have alerts not told for a time, in the whole fleet. `alert`: a pattern of names of rules, constraints or nodes.

        `on`: a selector of nodes: alerts that concern other nodes, too, are told. `for_`: seconds. Raises `ConstraintCrdtError` for
        values out of bounds, and `ClockInDoubt` where this node does not know the time.
        """
        check_id(alert, "the pattern of the alerts", field="alert")
        if not why.strip() or len(why.encode()) > WHY_BYTES:
            raise ConstraintCrdtError(f"`why` is a reason of 1 to {WHY_BYTES} bytes, for the next one who looks", field="why")
        if len(on.encode()) > SELECTOR_BYTES:
            raise ConstraintCrdtError(f"a selector has at most {SELECTOR_BYTES} bytes", field="on")
        if on:
            try:
                on = str(parse_selector(on))
            except ConstraintCrdtError as error:
                raise ConstraintCrdtError(str(error), field="on") from None
        return await self._put(SilenceValue(QUIET, 0, alert, on=on, why=why), for_, "silence")

    async def acknowledge(self, alert: str, *, why: str = "", for_: float = DEFAULT_ACKNOWLEDGEMENT) -> list[SilenceReport]:
        """Say that firing alerts are looked after: they are told no more until they end. `alert`: a rule, or RULE/SUBJECT.

        Raises `UnknownName` if none fires here, and as `silence` does.
        """
        firing = self._engine.matching(alert)
        if not firing:
            raise UnknownName(alert, "firing alert", field="alert")
        if len(why.encode()) > WHY_BYTES:
            raise ConstraintCrdtError(f"`why` has at most {WHY_BYTES} bytes", field="why")
        done = []
        for each, _ in firing[:MOST_ACKNOWLEDGED]:
            episode = self._teller.episode(each.rule, each.subject)
            value = SilenceValue(ACKNOWLEDGED, 0, each.rule, each.subject, why=why, episode=episode)
            done.append(await self._put(value, for_, "acknowledge"))
        return done

    async def unsilence(self, id_: str) -> SilenceReport:
        """End a silence or an acknowledgement early, in the whole fleet. Raises `UnknownName`."""
        silences, time_ = self._state.silences, self._gossip.time
        found = silences.find(id_, time_.now())
        actor, at = cut(self._actor(), ACTOR_BYTES), time_.stamp()
        await self._write(lambda me: silences.end(found, at=at, actor=actor, node=me), "unsilence", found.value.alert)
        return _silence_report(found)

    async def _put(self, value: SilenceValue, seconds: float, operation: str) -> SilenceReport:
        if not 0 < seconds <= LONGEST_SILENCE:
            raise ConstraintCrdtError("`for` is above 0 and at most a year (366 days)", field="for")
        self._gossip.local.check_clock()
        at = self._gossip.time.stamp()
        until, actor = self._gossip.time.now() + round(seconds * SECOND), cut(self._actor(), ACTOR_BYTES)
        put = msgspec.structs.replace(value, until=until, at=at, actor=actor)
        return _silence_report(await self._write(lambda me: self._state.silences.put(put, node=me), operation, value.alert))

    async def _write(self, mutate: Callable[[Replica], Result], operation: str, subject: str, *, rule: bool = False) -> Result:
        subjects = [Subject(ALERT_RULE, subject)] if rule else []
        return await self._commit(lambda: self._gossip.write(mutate), operation, subject, subjects)


def _silence_report(silence: Silence) -> SilenceReport:
    value = silence.value
    return SilenceReport(
        id=silence.id,
        alert=f"{value.alert}/{value.subject}" if silence.acknowledges else value.alert,
        acknowledges=silence.acknowledges,
        on=value.on,
        until=value.until,
        why=value.why,
        actor=value.actor,
        node=silence.dot.replica.node_id,
        at=value.at,
    )


def _means(known: FleetRule, rule: AlertRule) -> bool:
    """True if a rule of the fleet means the same as another. An unreadable rule does not."""
    try:
        return same_rule(read_text(rule.name, known.text), rule)
    except ConstraintCrdtError:
        return False


def _shown(rule: AlertRule) -> RuleReport:
    return RuleReport(
        name=rule.name,
        kind=rule.kind,
        constraint=rule.constraint,
        node=rule.node,
        on=rule.on,
        budget=rule.budget,
        half_life=rule.half_life,
        above=rule.above,
        above_share=rule.above_share,
        within=rule.within,
        lasts=rule.lasts,
        keeps=rule.keeps,
        repeat=rule.repeat,
        to=tuple(map(shown_place, rule.to)),
    )


def _read(file: Path) -> list[Alert]:
    data = read_bounded(file, FILE_BYTES)
    try:
        return msgspec.json.decode(data, type=list[Alert])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
