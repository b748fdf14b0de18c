"""Instances: measurements with a label, as a value for each joint of a robot. Pure.

A variable measured by a label has a value for each value of the label, its *instance*: `joint_temp_c{joint="j1"}` is the name of
that measurement. A definition with `each = "joint"` has a verdict for each instance.

Rules kept here:

- A measurement is written as a map with the keys `by` and `values` alone, or by the name of an instance. Any other map stays as
  it is.
- A variable can be measured by several labels, and without a label. A measurement has a single label.
- In a definition with `each`, a variable that was measured by the label has the value of the instance. An instance without a usable
  value of such a variable has none, whatever other instances have. Other variables have the same value for all instances.
- An instance is there while one of its values counts. It goes with the last of them.
"""

import functools
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.cel import Measurements, WindowReader, check_names
from constraint_crdt.types.definition import LABEL_BYTES, check_label

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
