"""Measurements as expressions read them: by the values of a label, and as windows of recent samples. Pure.

A variable measured by a label has a value for each value of the label, its *instance*: `joint_temp_c{joint="j1"}` is the name of
that measurement. A definition with `each = "joint"` has a verdict for each instance. Rules:

- A measurement is written as a map with the keys `by` and `values` alone, or by the name of an instance. Any other map stays as
  it is.
- A variable can be measured by several labels, and without a label. A measurement has a single label.
- In a definition with `each`, a variable that was measured by the label has the value of the instance. An instance without a usable
  value of such a variable has none, whatever other instances have. Other variables have the same value for all instances.
- An instance is there while one of its values counts. It goes with the last of them.

A sample is a measured value with its time, in ns of a monotonic clock, which callers pass. A window is the time (now - span, now].
There is a ring per variable that some expression asks for, and for no other. It keeps the samples of the longest window asked for,
and the last sample however old. Rules:

- None, and a value that CEL cannot use, is no sample. A value that is not measured again is no new sample.
- A window is full if the variable was measured, or its samples were kept, since the beginning of the window or earlier. A function
  of a window that is not full fails, and its message has the value over the samples that are there. A gap in the samples does not
  matter.
- A ring has a bounded length. A window that has more samples than the ring keeps fails; it never gives a wrong number.
- A failed function is a `ValueError` with a sentence that names the variable. CEL's `&&` and `||` absorb the failure, as that of a
  missing variable.
- NaN follows IEEE: a NaN among the samples makes the functions of numbers NaN, and each comparison with NaN is false.
"""

import functools
import itertools
import math
import operator
import re
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.cel import Measurements, UnusableError, WindowReader, check_names, coerce
from constraint_crdt.types.definition import LABEL_BYTES, check_label

if TYPE_CHECKING:
    from constraint_crdt.expression.evaluation import Expression


NAMES_KEPT: Final = 16_384
"""Names of instances that are read once."""

MAX_INSTANCES: Final = 256
"""Instances of a variable on a node."""

BY: Final = "by"
VALUES: Final = "values"

_NAME = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)\{([A-Za-z_][A-Za-z0-9_]*)="([^"\\{}\x00-\x1f\x7f]+)"\}')


class Instance(NamedTuple):
    """The parts of the name of a measurement with a label."""

    variable: str
    label: str
    value: str

    @property
    def series(self) -> str:
        """The variable with the label: see `series_of`."""
        return series_of(self.variable, self.label)


def instance_name(variable: str, label: str, value: str) -> str:
    """The name of a measurement with a label: `joint_temp_c{joint="j1"}`."""
    return f'{variable}{{{label}="{value}"}}'


def series_of(variable: str, label: str) -> str:
    """A key for the instances of a variable by a label, the same as that of `top_of`."""
    return f"{variable}{{{label}"


def top_of(name: str) -> str:
    """The key by which a measurement is looked up: the first part of a name (`robot.speed`), or the series of an instance."""
    return name.partition("=")[0] if "{" in name else name.partition(".")[0]


def variable_of(name: str) -> str:
    """The variable of a measurement, with its fields."""
    return name.partition("{")[0]


def read_instance(name: str) -> Instance | None:
    """The parts of the name of an instance; None for a name without a label. Raises `ConstraintCrdtError` for a wrong name."""
    return _read_instance(name) if isinstance(name, str) and "{" in name else None


@functools.lru_cache(maxsize=NAMES_KEPT)
def _read_instance(name: str) -> Instance:
    found = _NAME.fullmatch(name)
    if found is None:
        raise ConstraintCrdtError(
            f'{name!r} names no measurement: write it as VARIABLE{{LABEL="VALUE"}}, with one label, a variable without points, and '
            f"no quotes, braces, backslashes or control characters in the value"
        )
    instance = Instance(*found.groups())
    check_names([instance.variable])
    check_label(instance.label)
    if len(instance.value.encode(errors="replace")) > LABEL_BYTES:
        raise ConstraintCrdtError(f"the value of the label {instance.label} must have at most {LABEL_BYTES} bytes")
    return instance


def flattened(values: Mapping[str, object]) -> Mapping[str, object]:
    """The measurements with each instance by its name; the same mapping where none is written as a map.

    Raises `ConstraintCrdtError` for a wrong name or map of instances, and for an instance that is given twice.
    """
    for name, value in values.items():
        if type(value) is not float and _is_labelled(value):
            break
        if isinstance(name, str) and "{" in name:
            read_instance(name)
    else:
        return values
    found: dict[str, object] = {}
    for name, value in values.items():
        each = _instances(name, value) if isinstance(value, Mapping) and _is_labelled(value) else {name: value}
        twice = next((other for other in each if other in found or (other != name and other in values)), None)
        if twice is not None:
            raise ConstraintCrdtError(f"{twice} has two values: give one")
        found.update(each)
    return found


def _is_labelled(value: object) -> bool:
    return isinstance(value, Mapping) and len(value) == 2 and BY in value and VALUES in value


def _instances(name: str, value: Mapping[str, object]) -> dict[str, object]:
    label, values = check_label(value[BY]), value[VALUES]
    if not isinstance(values, Mapping):
        raise ConstraintCrdtError(f"{name}: `values` is a map from the values of the label {label} to measured values")
    found = {}
    for each, measured in values.items():
        if not isinstance(each, str):
            raise ConstraintCrdtError(f"{name}: the value of a label is a text, not {each!r}")
        full = instance_name(name, label, each)
        read_instance(full)
        found[full] = measured
    return found


class Touched(NamedTuple):
    """The measurements that have a new sample."""

    tops: frozenset[str]
    """The first parts of names without a label."""
    series: Mapping[str, list[str]]
    """The instances by series."""

    @classmethod
    def of(cls, names: Iterable[str]) -> "Touched | None":
        """Those of these names; None for all, where none has a label."""
        names = list(names)
        series: dict[str, list[str]] = {}
        for name in names:
            if "{" in name:
                key, _, rest = name.partition('="')
                series.setdefault(key, []).append(rest[:-2])
        if not series:
            return None
        return cls(frozenset(name.partition(".")[0] for name in names if "{" not in name), series)

    def instances(self, variables: Collection[str], label: str) -> Collection[str] | None:
        """The instances to be judged of a definition that reads these variables; None: all."""
        if not self.tops.isdisjoint(variables):
            return None
        found = [self.series[key] for key in (series_of(each, label) for each in variables) if key in self.series]
        return found[0] if len(found) == 1 else dict.fromkeys(each for part in found for each in part)


class InstanceValues(NamedTuple):
    """The values by which an instance is judged."""

    values: Measurements
    until: int
    """The time after which the first of them is too old, in ns of a monotonic clock."""


FOREVER: Final = 2**63 - 1
"""A time that never passes, in ns."""


class InstanceWindows:
    """The windows of an instance, in front of those of the node."""

    __slots__ = ("_label", "_value", "_variables", "_windows")

    def __init__(self, windows: WindowReader, variables: Collection[str], label: str, value: str) -> None:
        """`variables`: those that are measured by this label. `value`: of the label, the instance."""
        self._windows = windows
        self._variables = variables
        self._label = label
        self._value = value

    def _name(self, name: str) -> str:
        return instance_name(name, self._label, self._value) if name in self._variables else name

    def over(self, function: str, name: str, span: int, fraction: float = 0.0) -> float:
        """See `cel.WindowReader.over`."""
        return self._windows.over(function, self._name(name), span, fraction)

    def age(self, name: str) -> int:
        """See `cel.WindowReader.age`."""
        return self._windows.age(self._name(name))

    def last(self, name: str) -> object:
        """See `cel.WindowReader.last`."""
        return self._windows.last(self._name(name))


def named(label: str, value: str, reason: str) -> str:
    """A reason with its instance: `joint=j1: no measurement of joint_load`; the instance alone without a reason."""
    return f"{label}={value}: {reason}" if reason else f"{label}={value}"


def missing_instances(label: str) -> str:
    """The reason of a definition without an instance."""
    return f"nothing that it reads is measured by {label}"


MAX_WINDOW = 24 * 3600 * 10**9
"""The longest window, in ns."""
MAX_SAMPLES = 10_000
"""The samples that a ring keeps. 16 bytes each for numbers."""
MAX_SAMPLES_TOTAL = 1_000_000
"""The samples that all rings keep. A ring keeps at most its equal part of them."""
LATENESS = 10 * 10**9
"""Samples are kept this long after they left the longest window, in ns: an evaluation of many constraints for an instant takes
some time, while new samples arrive.
"""
_COMPACTED = 64


def requirements(expressions: Iterable["Expression"]) -> dict[str, int]:
    """The longest window, in ns, of each variable that these expressions read samples of."""
    spans: dict[str, int] = {}
    for name, span in itertools.chain.from_iterable(each.windows for each in expressions):
        spans[name] = max(span, spans.get(name, 0))
    return spans


class _Other(NamedTuple):
    """A sample that is no number: its kind, and whether it differs from the sample before."""

    kind: str
    changed: bool


class _Ring:
    """The samples of a variable, in the order of time.

    Numbers are in an array, until a sample is no number. Of texts, lists and maps only the last two are kept whole.
    """

    def __init__(self) -> None:
        self.times = array("q")
        self.values: array[float] | list[float | _Other] = array("d")
        self.begin = 0
        """The samples before this index are dropped."""
        self.known_from = 0
        """All samples measured after this time are in the ring."""
        self.overflowed = False
        """True if `known_from` is due to the bound."""
        self._whole: deque[object] = deque(maxlen=2)

    def __len__(self) -> int:
        return len(self.times) - self.begin

    def append(self, now: int, value: object) -> None:
        """Add a sample. A sample earlier than the last is dropped."""
        if not self.times:
            self.known_from = now
        elif now < self.times[-1]:
            return
        self.times.append(now)
        if type(value) is float:
            self.values.append(value)
            return
        if not isinstance(self.values, list):
            self.values = list(self.values)
        changed = len(self.values) > 0 and not _same(self._newest(), value)
        self.values.append(_Other(_kind(value), changed))
        self._whole.append(value)

    def _newest(self) -> object:
        newest = self.values[-1]
        return self._whole[-1] if isinstance(newest, _Other) else newest

    def with_sample(self, now: int, value: object) -> "_Ring":
        """A copy with a further sample. O(samples)."""
        ring = _Ring()
        ring.times, ring.values = self.times[self.begin :], self.values[self.begin :]
        ring.known_from, ring.overflowed = self.known_from, self.overflowed
        ring._whole = self._whole.copy()
        ring.append(now, value)
        return ring

    def drop(self, oldest: int, most: int) -> None:
        """Drop samples before `oldest` but for the last of them, and those above the bound."""
        times, begin, end = self.times, self.begin, len(self.times) - 1
        while begin < end and times[begin + 1] <= oldest:
            begin += 1
        self.overflowed = self.overflowed and begin == self.begin
        if end - begin >= most:
            begin, self.overflowed = end + 1 - most, True
        if begin == self.begin:
            return
        self.known_from, self.begin = times[begin - 1], begin
        if begin > _COMPACTED and begin * 2 > len(times):
            del times[:begin], self.values[:begin]
            self.begin = 0

    def bounds(self, after: int, until: int) -> tuple[int, int]:
        """The indexes of the samples of (after, until]."""
        return bisect_right(self.times, after, self.begin), self.end(until)

    def end(self, until: int) -> int:
        """The index after the last sample by this time."""
        times = self.times
        return len(times) if times and times[-1] <= until else bisect_right(times, until, self.begin)

    def value(self, index: int) -> object:
        """The sample at this index. Raises `KeyError` for a sample that is not kept whole."""
        value = self.values[index]
        if not isinstance(value, _Other):
            return value
        later = sum(isinstance(each, _Other) for each in self.values[index:])
        if later > len(self._whole):
            raise KeyError(index)
        return self._whole[-later]


def _kind(value: object) -> str:
    kinds = {bool: "bool", str: "text", list: "list", dict: "map"}
    return kinds[type(value)]


def _same(one: object, other: object) -> bool:
    """Whether two values are equal, a NaN with a NaN, and a bool with no number."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other or (one != one and other != other)


class Samples:
    """The rings of a node. For a single thread."""

    def __init__(self, most: int = MAX_SAMPLES, total: int = MAX_SAMPLES_TOTAL) -> None:
        """`most`: the samples kept of a variable; `total`: of all variables."""
        self._most = most
        self._total = total
        self._rings: dict[str, _Ring] = {}
        self._spans: dict[str, int] = {}
        self._fields: tuple[str, ...] = ()
        self.most = max(1, min(most, total))
        """The samples kept of a variable."""

    def require(self, spans: Mapping[str, int]) -> frozenset[str]:
        """Replace the requirements as a whole: the longest window of each variable, in ns, 0 for the last sample only.

        Samples of variables that are still required stay, others are dropped. Returns the variables without a sample.
        """
        self._spans = dict(spans)
        self._rings = {name: self._rings.get(name, _Ring()) for name in spans}
        self._fields = tuple(name for name in spans if "." in name)
        most = self.most = max(1, min(self._most, self._total // max(1, len(self._rings))))
        for ring in self._rings.values():
            ring.drop(0, most)
        return frozenset(name for name, ring in self._rings.items() if not len(ring))

    def __len__(self) -> int:
        return sum(map(len, self._rings.values()))

    def put(self, values: Mapping[str, object], now: int) -> None:
        """Take in the values measured at this time. Variables that are not required, None and unusable values are ignored. A
        variable `robot.speed` is a measurement of that name, or a field of the measured map `robot`.
        """
        rings = self._rings
        if not rings:
            return
        found = [(name, value) for name, value in values.items() if name in rings]
        if self._fields:
            found += [(name, _field(values, name)) for name in self._fields if name not in values]
        for name, value in found:
            if value is None:
                continue
            try:
                usable = value if type(value) is float else coerce(value)
            except UnusableError:
                continue
            ring = rings[name]
            ring.append(now, usable)
            ring.drop(now - self._spans[name] - LATENESS, self.most)

    def at(self, now: int) -> "Windows":
        """The windows that end now, for any number of evaluations."""
        return Windows(self._rings, self.most, now)


def _field(values: Mapping[str, object], name: str) -> object:
    """The field `speed` of a measured map `robot`, for the name `robot.speed`; None if there is none. The longest name wins."""
    path = name.split(".")
    for length in range(len(path) - 1, 0, -1):
        value = values.get(".".join(path[:length]))
        for part in path[length:]:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


class Windows:
    """The windows that end at an instant. Each is computed once. Made by `Samples.at`."""

    def __init__(self, rings: Mapping[str, _Ring], most: int, now: int) -> None:
        self._rings = rings
        self._most = most
        self._now = now
        self._found: dict[tuple[str, str, int, float], float | str] = {}
        self._newest: tuple[tuple[str, int], _Window] | None = None  # an expression often reads a window twice

    def over(self, function: str, name: str, span: int, fraction: float = 0.0) -> float:
        """The value of a function over the samples of the last `span` ns. `fraction`: of `quantile_over`.

        Raises `ValueError` with the reason if too little is kept.
        """
        key = (function, name, span, fraction)
        found = self._found.get(key)
        if found is None:
            try:
                found = self._compute(*key)
            except ValueError as error:
                found = str(error)
            self._found[key] = found
        if isinstance(found, float):
            return found
        raise ValueError(found)

    def with_newest(self, values: Mapping[str, object]) -> "Windows":
        """The same windows with these values as samples of now. The rings stay as they are. O(samples of these variables)."""
        rings = dict(self._rings)
        for name in rings:
            value = values.get(name)
            if value is None and "." in name and name not in values:
                value = _field(values, name)
            if value is None:
                continue
            try:
                rings[name] = rings[name].with_sample(self._now, coerce(value))
            except UnusableError:
                continue
        return Windows(rings, self._most, self._now)

    def age(self, name: str) -> int:
        """The age of the last sample in ns. Raises `ValueError` if none is kept."""
        ring, end = self._ring(name)
        return self._now - ring.times[end - 1]

    def last(self, name: str) -> object:
        """The value of the last sample, however old. Raises `ValueError` if none is kept."""
        ring, end = self._ring(name)
        try:
            return ring.value(end - 1)
        except KeyError:
            raise ValueError(f"{name} was measured too often since") from None

    def _ring(self, name: str) -> tuple[_Ring, int]:
        """The ring of a variable that has a sample by now, and the end of its samples by now."""
        ring = self._rings.get(name)
        if ring is None:
            raise ValueError(f"no samples of {name} are kept here")
        end = ring.end(self._now)
        if end == ring.begin:
            raise ValueError(f"{name} was measured too often since" if ring.overflowed else f"no sample of {name}")
        return ring, end

    def _compute(self, function: str, name: str, span: int, fraction: float) -> float:
        ring, _ = self._ring(name)
        if ring.known_from <= self._now - span:
            return _over(function, name, span, self._window(ring, name, span), fraction)
        if ring.overflowed:
            raise ValueError(f"{name} has more than {self._most} samples in {show_span(span)}: too few are kept")
        known = f"{name} has samples for {show_span(self._now - ring.known_from)} of the window of {show_span(span)}"
        try:
            value = _over(function, name, span, self._window(ring, name, span), fraction)
        except ValueError:
            raise ValueError(known) from None
        raise ValueError(f"{known} (`{function}` so far: {value:.6g})")

    def _window(self, ring: _Ring, name: str, span: int) -> "_Window":
        if self._newest and self._newest[0] == (name, span):
            return self._newest[1]
        low, high = ring.bounds(self._now - span, self._now)
        elapsed = ring.times[high - 1] - ring.times[low] if low < high else 0
        if isinstance(ring.values, list):
            values = ring.values[low:high]
            window = _Window(values, [each for each in values if not isinstance(each, _Other)], elapsed)
        else:
            numbers = ring.values[low:high]
            window = _Window(numbers, numbers, elapsed)
        self._newest = (name, span), window
        return window


class _Window(NamedTuple):
    """The samples of a window, those that are numbers, and the ns from the first to the last."""

    values: Sequence[float | _Other]
    numbers: Sequence[float]
    elapsed: int


def show_span(span: int) -> str:
    """A length of time in ns as CEL writes it, without fractions from 10 s on: `1h30m`, `40s`, `1.5s`."""
    seconds = span / 1e9
    if seconds < 10:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if number)


def _over(function: str, name: str, span: int, window: _Window, fraction: float) -> float:
    count = len(window.values)
    if function == "count_over":
        return float(count)
    if not count:
        raise ValueError(f"{name} has no sample in the last {show_span(span)}")
    if function == "changes":
        return float(_changes(window))
    numbers = window.numbers
    if len(numbers) < count:
        kind = next(each.kind for each in window.values if isinstance(each, _Other))
        raise ValueError(f"{name} has a sample that is a {kind}: `{function}` needs numbers")
    if function == "quantile_over":
        return _quantile(numbers, fraction)
    if function in _OF_VALUES:
        return _OF_VALUES[function](numbers)
    if not window.elapsed:
        raise ValueError(f"{name} has samples of one time only in the last {show_span(span)}: `{function}` needs two")
    return _OF_TIMES[function](numbers, window.elapsed / 1e9)


def _changes(window: _Window) -> int:
    values, numbers = window.values, list(window.numbers)
    if len(numbers) == len(values) and not _has_nan(numbers):
        changed: int = sum(map(operator.ne, itertools.islice(numbers, 1, None), numbers))
        return changed
    return sum(
        now.changed if isinstance(now, _Other) else isinstance(before, _Other) or not _same(before, now)
        for before, now in itertools.pairwise(values)
    )


def _sum(values: Sequence[float]) -> float:
    """The sum, rounded once."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # a sum that is too large on the way, or of infinities of both signs
        return sum(values)


def _mean(values: Sequence[float]) -> float:
    mean = _sum(values) / len(values)
    return mean if math.isfinite(mean) else _sum([value / len(values) for value in values])


def _stddev(values: Sequence[float]) -> float:
    values = list(values)
    mean = _mean(values)
    return math.dist(values, (mean,) * len(values)) / math.sqrt(len(values)) if math.isfinite(mean) else math.nan


def _has_nan(values: Sequence[float]) -> bool:
    return math.isnan(sum(values)) and any(map(math.isnan, values))


def _minimum(values: Sequence[float]) -> float:
    values = list(values)
    return math.nan if _has_nan(values) else min(values)


def _maximum(values: Sequence[float]) -> float:
    values = list(values)
    return math.nan if _has_nan(values) else max(values)


def _quantile(values: Sequence[float], fraction: float) -> float:
    """The quantile with linear interpolation between the two nearest samples."""
    ordered = sorted(values)
    if _has_nan(ordered):
        return math.nan
    rank = fraction * (len(ordered) - 1)
    below = math.floor(rank)
    weight = rank - below
    return ordered[below] * (1 - weight) + ordered[below + 1] * weight if weight else ordered[below]


def _increase(values: Sequence[float]) -> float:
    """The growth of a counter. A smaller value is a counter that began anew at 0."""
    values = list(values)
    if _has_nan(values):
        return math.nan
    smaller = map(operator.lt, itertools.islice(values, 1, None), values)
    return values[-1] - values[0] + _sum(list(itertools.compress(values, smaller)))


_OF_VALUES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "avg_over": _mean,
    "min_over": _minimum,
    "max_over": _maximum,
    "sum_over": _sum,
    "stddev_over": _stddev,
}
_OF_TIMES: Mapping[str, Callable[[Sequence[float], float], float]] = {
    "delta": lambda values, _: values[-1] - values[0],
    "increase": lambda values, _: _increase(values),
    "rate": lambda values, seconds: _increase(values) / seconds,
}
