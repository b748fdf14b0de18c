"""Measurements: the latest value of each variable of a node, and the probes that read values.

A probe is a source of measurements that the node reads by itself: any object with a `name` and a `read()`. Packages install more of
them as entry points of the group `constraint_crdt.probes`, each a callable without arguments that makes a probe;
`--probe NAME` selects a probe.

Rules kept here:

- A sample counts from its time on, until the maximum age of its variable. An older value is known, and reads as missing.
- Values are converted and checked once, where they come in. None withdraws a variable at once.
- Of the variables that a node shares, a sample that moved is told to the fleet (`types/variables`), at most `MOST_READINGS` of
  them: first those of the settings, then those that constraints of scope fleet need.
- At most `MAX_VARIABLES` variables: an aged variable makes room for a new one, and without an aged variable the new one is refused.
- An instance (`joint_temp_c{joint="j1"}`) is a variable, at most `MAX_INSTANCES` of them of the same name by the same rule. It is
  not shared. Its value is a number, a text, true or false. None for the name withdraws its instances, too.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, Protocol, runtime_checkable

from constraint_crdt.crdt.clock import check_id
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.expression import check_names, check_value
from constraint_crdt.expression.cel import Measurements, WindowReader, assembled
from constraint_crdt.expression.measurements import (
    FOREVER,
    MAX_INSTANCES,
    InstanceValues,
    InstanceWindows,
    Samples,
    Windows,
    instance_name,
    read_instance,
    series_of,
    variable_of,
)
from constraint_crdt.types.variables import Reading, Share, Sharing, VariableKind, check_scalar, kind_of
from constraint_crdt.types.variables import Sample as ReadingSample

MAX_VARIABLES = 10_000


class Sample(NamedTuple):
    """A measured value, as expressions see it. Times in ns of a monotonic clock."""

    at: int
    until: int
    """The end of its maximum age."""
    value: object
    source: str
    """The name of a probe, or `program`: posted by a program, with the API or the library."""


_NO_SAMPLES: Mapping[str, Any] = {}

PROGRAM = "program"

_log = logging.getLogger("constraint_crdt.node")


class LatestMeasurements:
    """The latest sample of each variable."""

    def __init__(self, max_age: float, max_ages: Mapping[str, float] | None = None) -> None:
        """`max_age`: seconds for which a value counts; `max_ages`: those of some variables."""
        self._max_age = int(max_age * 1e9)
        self._max_ages = {name: int(seconds * 1e9) for name, seconds in (max_ages or {}).items()}
        self._samples: dict[str, Sample] = {}
        self._fields: dict[str, list[str]] = {}
        """The names with fields (`robot.speed`) by their first part."""
        self._reasons: dict[str, dict[str, str]] = {}
        """Why variables have no usable value, by the first part of their names."""
        self._series: dict[str, dict[str, Sample]] = {}
        """The samples of instances, by `instances.series_of`."""
        self._labels: dict[str, list[str]] = {}
        """The labels by which a variable is measured."""
        self._spans: Mapping[str, int] = {}
        self._looked = 0
        self._rings = Samples()
        self._windows: tuple[int, Windows] | None = None
        self.taken = 0
        """Grows when values are taken in."""
        self.names_changed = False
        """Set when a variable comes, goes, or has another kind of value."""

    def __len__(self) -> int:
        return len(self._samples)

    def __repr__(self) -> str:
        return f"LatestMeasurements({len(self._samples)} variables)"

    def put(self, values: Mapping[str, object], now: int, source: str = PROGRAM, max_age: float | None = None) -> None:
        """Take all values in; None withdraws a variable. `max_age`: seconds for which values of variables without a maximum age of
        their own count, in place of that of the node. Raises `ConstraintCrdtError` for a name that no expression can read and for a
        value out of bounds, and takes none then.
        """
        samples, max_ages = self._samples, self._max_ages
        fresh = {name for name in values if name not in samples}
        if fresh:
            self._check_fresh([name for name in values if name in fresh])
        converted = {name: value if type(value) is float else check_value(name, value) for name, value in values.items()}
        for name, value in values.items():
            if value is None and name in self._labels:
                converted |= dict.fromkeys(name for name in self._instances_of(name) if name not in converted)
        labelled = self._labelled(converted) if fresh or self._series else []
        withdrawn = [name for name, value in converted.items() if value is None]
        if fresh:
            self._make_room(converted, now)
        for name in withdrawn:  # before the others come: their windows stay
            self._withdraw(name)
        if fresh:
            self._require_instances([name for name in labelled if name in fresh and converted[name] is not None])
        self._rings.put(converted, now)
        self._windows = None
        self.taken += 1
        until = now + (self._max_age if max_age is None else int(max_age * 1e9))
        for name, value in converted.items():
            if self._reasons:
                self._explain(name, None)
            if value is not None:
                self._put_sample(name, Sample(now, now + max_ages[name] if name in max_ages else until, value, source))
        for name in labelled:
            self._put_instance(name, now)

    @staticmethod
    def _labelled(values: Mapping[str, object]) -> list[str]:
        """The names of instances. Raises `ConstraintCrdtError` for a wrong value of an instance."""
        found = [name for name in values if "{" in name]
        for name in found:
            if values[name] is not None and not isinstance(values[name], float | str | bool):
                raise ConstraintCrdtError(f"{name}: the value of an instance is a number, a text, true or false")
        return found

    def _put_sample(self, name: str, sample: Sample) -> None:
        before = self._samples.get(name)
        if before is None and "." in name and "{" not in name:
            self._fields.setdefault(name.partition(".")[0], []).append(name)
        if before is None or before.until < sample.at or type(before.value) is not type(sample.value):
            self.names_changed = True
        self._samples[name] = sample

    def _put_instance(self, name: str, now: int) -> None:
        """Have the sample of an instance in its series."""
        sample = self._samples.get(name)
        if sample is None:
            return
        variable, _, rest = name.partition("{")
        label, _, value = rest[:-2].partition('="')
        if variable in self._max_ages:
            sample = self._samples[name] = sample._replace(until=now + self._max_ages[variable])
        series = self._series.get(series_of(variable, label))
        if series is None:
            series = self._series[series_of(variable, label)] = {}
            self._labels.setdefault(variable, []).append(label)
        series[value] = sample

    def instances(self, variable: str, label: str) -> Collection[str]:
        """The instances of a variable by a label, aged ones included."""
        return self._series.get(series_of(variable, label), _NO_SAMPLES)

    def _instances_of(self, variable: str) -> list[str]:
        """The names of the instances of a variable, by all labels."""
        return [
            instance_name(variable, label, value)
            for label in self._labels.get(variable, ())
            for value in self._series[series_of(variable, label)]
        ]

    def explain(self, reasons: Mapping[str, str | None]) -> None:
        """State why variables have no value, in words that follow their names: told while they have no usable value, until the next
        value. None: no reason. Reasons beyond `MAX_VARIABLES` first parts of names are left out.
        """
        for name, reason in reasons.items():
            self._explain(name, reason)

    def _explain(self, name: str, reason: str | None) -> None:
        top = name.partition(".")[0]
        if reason is not None and (top in self._reasons or len(self._reasons) < MAX_VARIABLES):
            self._reasons.setdefault(top, {})[name] = reason
        elif reason is None and top in self._reasons:
            self._reasons[top].pop(name, None)
            if not self._reasons[top]:
                del self._reasons[top]

    @staticmethod
    def _check_fresh(names: Collection[str]) -> None:
        check_names(name for name in names if read_instance(name) is None)
        for name in names:
            check_id(name, "the name of a variable")

    def _make_room(self, converted: Mapping[str, object], now: int) -> None:
        """Raise `ConstraintCrdtError` for more variables than the bound, after aged ones made room."""
        fresh = [name for name, value in converted.items() if value is not None and name not in self._samples]
        for variable in dict.fromkeys(variable_of(name) for name in fresh if "{" in name):
            names, coming = self._instances_of(variable), sum(name.startswith(f"{variable}{{") for name in fresh)
            excess = len(names) + coming - MAX_INSTANCES
            self._withdraw_aged(names, converted, now, excess, f"{MAX_INSTANCES} instances that a node measures of {variable}")
        excess = len(self._samples) + len(fresh) - MAX_VARIABLES
        self._withdraw_aged(self._samples, converted, now, excess, f"{MAX_VARIABLES} variables that a node measures")

    def _withdraw_aged(self, names: Iterable[str], converted: Mapping[str, object], now: int, excess: int, most: str) -> None:
        """Withdraw so many aged ones of these variables, but for those measured now; the oldest first."""
        if excess <= 0:
            return
        samples = self._samples
        gone = [name for name in names if name in converted and converted[name] is None]
        aged = sorted((samples[name].until, name) for name in names if samples[name].until < now and name not in converted)
        if len(gone) + len(aged) < excess:
            raise ConstraintCrdtError(f"more than the {most}")
        for _, name in aged[: max(0, excess - len(gone))]:
            self._withdraw(name)

    def _require_instances(self, fresh: Sequence[str]) -> None:
        """Keep the samples of new instances of variables with windows."""
        if any(variable_of(name) in self._spans for name in fresh):
            self._rings.require(self._with_instances(fresh))

    def _with_instances(self, fresh: Iterable[str] = ()) -> dict[str, int]:
        """The spans of the windows, of the instances, too. `fresh`: instances that come."""
        spans = dict(self._spans)
        for name in self._spans:
            spans |= dict.fromkeys(self._instances_of(name), self._spans[name])
        return spans | {name: self._spans[variable_of(name)] for name in fresh if variable_of(name) in self._spans}

    def _withdraw(self, name: str) -> None:
        if self._samples.pop(name, None) is None:
            return
        self.names_changed = True
        instance = read_instance(name)
        if instance is not None:
            series = self._series[instance.series]
            del series[instance.value]
            if not series:
                del self._series[instance.series]
                self._labels[instance.variable].remove(instance.label)
                if not self._labels[instance.variable]:
                    del self._labels[instance.variable]
            if instance.variable in self._spans:
                self._rings.require(self._with_instances())
            return
        if "." in name:
            fields = self._fields[name.partition(".")[0]]
            fields.remove(name)
            if not fields:
                del self._fields[name.partition(".")[0]]

    # --- reading -----------------------------------------------------------------------------------------------------------

    def max_age(self, name: str) -> int:
        """The ns for which a value of a variable counts."""
        return self._max_ages.get(variable_of(name), self._max_age)

    @property
    def samples(self) -> Mapping[str, Sample]:
        """The latest sample of each variable, aged ones included."""
        return self._samples

    def read(self, names: Collection[str], now: int, max_age: int | None = None) -> Measurements:
        """See `judgement.Values.read`."""
        return assembled(*self.select(names, now, max_age), self.windows(now))

    def read_each(
        self, names: Collection[str], label: str, now: int, max_age: int | None = None, only: Collection[str] | None = None
    ) -> dict[str, InstanceValues]:
        """See `judgement.Values.read_each`."""
        if len(names) == 1:  # the frequent case
            (name,) = names
            series = self._series.get(series_of(name, label))
            if series is not None:
                return self._select_some(name, label, series, now, max_age, sorted(series) if only is None else only)
        rest = [name for name in names if series_of(name, label) not in self._series]
        return self.select_each(names, label, now, max_age, only, self.windows(now), *self.select(rest, now, max_age))

    def _select_some(
        self, name: str, label: str, series: Mapping[str, Sample], now: int, max_age: int | None, only: Iterable[str]
    ) -> dict[str, InstanceValues]:
        """As `select_each`, of some instances of a single variable."""
        windows, found, own = self.windows(now), dict[str, InstanceValues](), (name,)
        for each in only:
            sample = series.get(each)
            if sample is not None:
                until = sample.until if max_age is None else sample.at + max_age
                if now <= until:
                    reader = InstanceWindows(windows, own, label, each)
                    found[each] = InstanceValues(Measurements({name: sample.value}, {}, reader), until)
        return found

    def select_each(
        self,
        names: Collection[str],
        label: str,
        now: int,
        max_age: int | None,
        only: Collection[str] | None,
        windows: WindowReader,
        usable: Mapping[str, object],
        unusable: Mapping[str, str],
        given: Mapping[str, Mapping[str, object]] = {},
    ) -> dict[str, InstanceValues]:
        """The instances, with these values beside their own. `given`: values in place of those of instances, by series."""
        series = {name: self._series.get(series_of(name, label), _NO_SAMPLES) for name in names}
        chosen = {name: given.get(series_of(name, label), _NO_SAMPLES) for name in names}
        own = [name for name in names if series[name] or chosen[name]]
        until = min((self._until(name, now, max_age) for name in names if name not in own), default=FOREVER)
        if only is None:
            only = sorted({each for name in own for part in (series[name], chosen[name]) for each in part})
        rest = assembled({name: value for name, value in usable.items() if name.partition(".")[0] not in own}, {}).plain
        why = {name: text for name, text in unusable.items() if name not in own}
        found = {}
        for each in only:
            values, aged, ends, is_there = dict(rest), dict(why), until, False
            for name in own:
                if each in chosen[name]:
                    value = chosen[name][each]
                    if value is not None:
                        values[name], is_there = value, True
                    continue
                sample = series[name].get(each)
                if sample is None:
                    continue
                last = sample.until if max_age is None else sample.at + max_age
                if now <= last:
                    values[name], is_there, ends = sample.value, True, min(ends, last)
                else:
                    aged[name] = f"is older than {(last - sample.at) / 1e9:g} s"
            if is_there:
                reader = InstanceWindows(windows, own, label, each)
                found[each] = InstanceValues(Measurements(values, aged, reader), ends)
        return found

    def _until(self, name: str, now: int, max_age: int | None) -> int:
        """The time after which the value of a variable, or of a field of it, is too old, of those that are not too old now."""
        there = [self._samples[each] for each in (name, *self._fields.get(name, ())) if each in self._samples]
        ends = [sample.until if max_age is None else sample.at + max_age for sample in there]
        return min((end for end in ends if now <= end), default=FOREVER)

    def windows(self, now: int) -> Windows:
        """The windows that end at a time, computed once for all readings of that time."""
        if self._windows is None or self._windows[0] != now:
            self._windows = now, self._rings.at(now)
        return self._windows[1]

    def require(self, spans: Mapping[str, int]) -> None:
        """Keep the samples of these variables, for windows of that length in ns, and of no others.

        The samples of a variable begin with its latest.
        """
        self._spans = dict(spans)
        for name in self._rings.require(self._with_instances()) & self._samples.keys():
            sample = self._samples[name]
            self._rings.put({name: sample.value}, sample.at)
        self._windows = None

    def select(self, names: Collection[str], now: int, max_age: int | None) -> tuple[dict[str, object], dict[str, str]]:
        """The usable values of these top-level variables and their fields, and the reasons for aged ones."""
        usable: dict[str, object] = {}
        unusable: dict[str, str] = {}
        samples, fields = self._samples, self._fields
        for top in names:
            sample = samples.get(top)
            if sample is not None and max_age is None and now <= sample.until and top not in fields:  # the frequent case
                usable[top] = sample.value
                continue
            for name in (top, *fields.get(top, ())):
                sample = self._samples.get(name)
                if sample is None:
                    if name in self._labels:
                        unusable[name] = f"is measured by {' and by '.join(self._labels[name])}: a definition reads it with `each`"
                    continue
                until = sample.until if max_age is None else sample.at + max_age
                if now <= until:
                    usable[name] = sample.value
                else:
                    unusable[top] = f"is older than {(until - sample.at) / 1e9:g} s"
            for name, reason in self._reasons.get(top, {}).items() if self._reasons else ():
                if name not in usable:
                    unusable[top] = reason
        return usable, {name: why for name, why in unusable.items() if name not in usable}

    def take_kinds(self, now: int) -> dict[str, VariableKind]:
        """The kinds of the values within their maximum age, by variable."""
        self.names_changed = False
        return {variable_of(name): kind_of(sample.value) for name, sample in self._samples.items() if now <= sample.until}

    def fresh(self, now: int) -> dict[str, object]:
        """The values within their maximum age; of a variable with instances, that of any of them."""
        return {variable_of(name): sample.value for name, sample in self._samples.items() if now <= sample.until}

    def ages_at(self) -> int | None:
        """The time at which `aged` has something to tell next, in ns; None: never. O(variables)."""
        return min((sample.until + 1 for sample in self._samples.values() if sample.until >= self._looked), default=None)

    def aged(self, now: int) -> dict[int, list[str]]:
        """The variables that passed their maximum age since the last call, by the time of that, in order."""
        found: dict[int, list[str]] = {}
        for name, sample in self._samples.items():
            if self._looked <= sample.until < now:
                found.setdefault(sample.until + 1, []).append(name)
        self._looked = now
        self.names_changed |= bool(found)
        return dict(sorted(found.items()))


ENTRY_POINTS = "constraint_crdt.probes"


@runtime_checkable
class Probe(Protocol):
    """A source of measurements."""

    @property
    def name(self) -> str:
        """The name in logs and settings."""

    def read(self) -> Mapping[str, object]:
        """The values now, by variable. Called in a thread of the probe's own, never twice at once. An exception is logged."""


class SharedMeasurements:
    """The samples that this node shares with the fleet."""

    def __init__(self, measurements: LatestMeasurements, shares: Sequence[Share], *, on_request: bool) -> None:
        """`shares`: of the settings. `on_request`: share the needs of constraints of scope fleet, too."""
        self._measurements = measurements
        self._shares = tuple(shares)
        self._on_request = on_request
        self._needs: frozenset[str] | None = None
        self._refused: set[str] = set()
        self._sharing = Sharing()

    def __repr__(self) -> str:
        return f"SharedMeasurements({sorted(self._sharing.names)})"

    @property
    def names(self) -> Collection[str]:
        """The variables shared, measured or not."""
        return self._sharing.names

    @property
    def waiting(self) -> bool:
        """True while a sample waits to be told."""
        return self._sharing.waiting

    def require(self, needs: frozenset[str], told: Collection[str]) -> None:
        """Share the needs of the constraints of scope fleet, beside the variables of the settings. `told`: shared until now.

        A need is the name of a variable, or the beginning of names with points. Does nothing for the needs of the last call.
        """
        if needs != self._needs:
            self._needs = needs
            self._choose(told)

    def _choose(self, told: Collection[str]) -> None:
        chosen = {each.name: each for each in self._shares}
        for need in sorted(self._needs or ()) if self._on_request else ():
            prefix = f"{need}."
            for name in (need, *sorted(name for name in self._measurements.samples if name.startswith(prefix))):
                chosen.setdefault(name, Share(name))
        before = set(self._sharing.names)
        self._sharing.require(chosen.values(), told)
        self.offer(self._sharing.names - before)

    def offer(self, names: Collection[str]) -> None:
        """These variables have another sample, or none any more."""
        shared = self._sharing.names
        if not shared and not self._needs:
            return
        fresh = [name for name in names if name not in shared]
        if any(name.startswith(f"{need}.") for name in fresh for need in self._needs or ()) and self._on_request:
            self._choose(())
        for name in names:
            if name in self._sharing.names:
                self._sharing.offer(name, self._sample(name))

    def _sample(self, name: str) -> ReadingSample | None:
        sample = self._measurements.samples.get(name)
        if sample is None:
            return None
        try:
            return ReadingSample(check_scalar(name, sample.value), sample.at)
        except ConstraintCrdtError as error:
            if name not in self._refused:
                self._refused.add(name)
                _log.warning("%s", error)
            return None

    def take(self, now: int, time: int) -> dict[str, Reading | None]:
        """The readings to be told now; None: to be withdrawn. `now`: monotonic, `time`: hybrid, both in ns."""
        taken = self._sharing.take(now)
        return {
            name: None if sample is None else Reading(sample.value, time - max(0, now - sample.at), every)
            for name, (sample, every) in taken.items()
        }


class SystemProbe:
    """The host: `cpu_percent`, `memory_percent`, `swap_percent`, `disk_percent` (of /), `load_1m`, `load_5m`, `process_count`,
    and where the host has sensors `temp_c`, the highest of them, and `battery_percent`.
    """

    name = "system"

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        psutil.cpu_percent()  # the first call has nothing to compare with

    def __repr__(self) -> str:
        return "SystemProbe()"

    def read(self) -> dict[str, object]:
        """The values of the host now."""
        psutil = self._psutil
        one, five, _ = psutil.getloadavg()
        values: dict[str, object] = {
            "cpu_percent": psutil.cpu_percent(),
            "memory_percent": psutil.virtual_memory().percent,
            "swap_percent": psutil.swap_memory().percent,
            "disk_percent": psutil.disk_usage("/").percent,
            "load_1m": one,
            "load_5m": five,
            "process_count": len(psutil.pids()),
        }
        values |= self._sensors()
        return values

    def _sensors(self) -> dict[str, object]:
        psutil, values = self._psutil, {}
        read_temperatures = getattr(psutil, "sensors_temperatures", None)  # not on every platform
        temperatures = [each.current for group in (read_temperatures() if read_temperatures else {}).values() for each in group]
        if temperatures:
            values["temp_c"] = max(temperatures)
        read_battery = getattr(psutil, "sensors_battery", None)
        battery = read_battery() if read_battery else None
        if battery is not None:
            values["battery_percent"] = battery.percent
        return values


SLOW = 10.0
"""Seconds after which a reading that did not return is told as trouble."""


class ProbeReader:
    """Reads a probe at regular intervals.

    All readings of a probe are made in the same thread, since libraries keep the former reading by thread (psutil does). The thread
    holds up no end of the process, however long a reading takes.
    """

    def __init__(self, probe: Probe, measure: Callable[[Mapping[str, object], str], Awaitable[None]], every: float) -> None:
        """`measure` takes the values in, with the name of the probe. `every`: seconds between two readings."""
        self._probe = probe
        self._measure = measure
        self._every = every
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        """None: the thread ends."""
        self._began: float | None = None
        self._failure: str | None = None
        self.name = probe.name

    @property
    def trouble(self) -> str | None:
        """Why the probe gives no values now; None if it does."""
        if self._began is not None and time.monotonic() - self._began > SLOW:
            return f"it has not returned for {time.monotonic() - self._began:.0f} s"
        return self._failure

    async def run(self) -> None:
        """Take in the values of the probe. Never returns. A failure is logged once, until the probe succeeds or fails otherwise."""
        Thread(target=self._read, name=f"probe {self.name}", daemon=True).start()
        try:
            while True:
                await self._take()
                await asyncio.sleep(self._every)
        finally:
            self._requests.put(None)

    async def _take(self) -> None:
        try:
            await self._measure(await self._values(), self.name)
        except Exception as error:
            if str(error) != self._failure:
                _log.warning("probe %s failed: %s", self.name, error)
            self._failure = str(error)
            return
        if self._failure is not None:
            _log.info("probe %s works again", self.name)
        self._failure = None

    async def _values(self) -> Mapping[str, object]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Mapping[str, object]] = loop.create_future()
        self._began = time.monotonic()
        self._requests.put(_Request(loop, future))
        try:
            return await future
        finally:
            self._began = None

    def _read(self) -> None:
        """The work of the thread."""
        while (request := self._requests.get()) is not None:
            try:
                done = partial(request.settle, self._probe.read())
            except Exception as error:
                done = partial(request.fail, error)
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                request.loop.call_soon_threadsafe(done)


class _Request(NamedTuple):
    """A reading that a loop waits for."""

    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Mapping[str, object]]"

    def settle(self, values: Mapping[str, object]) -> None:
        if not self.future.done():
            self.future.set_result(values)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def find_probe(name: str) -> Probe:
    """The probe of that name: `system`, or a probe of an installed package.

    Raises `InvalidValue` if there is none, and `ConstraintCrdtError` if it cannot be made.
    """
    if name == SystemProbe.name:
        return SystemProbe()
    from importlib.metadata import entry_points  # for probes of others only

    offered = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        choices = ", ".join(["none", "system", *sorted(offered)])
        raise InvalidValue(f"there is no probe {name!r}: choose from {choices}", field="probe")
    try:
        probe = offered[name].load()()
    except Exception as error:
        raise ConstraintCrdtError(f"the probe {name!r} cannot be started: {error}") from error
    if not isinstance(probe, Probe):
        raise ConstraintCrdtError(f"the probe {name!r} has no name and read()")
    return probe
