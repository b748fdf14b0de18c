"""The kinds of value in CEL, and what its operators, functions and methods take and give.

A set of kinds says what a part of an expression can be. A measurement can be a bool, double, string, list or map.
"""

import enum
import functools


class Kind(enum.IntFlag):
    """The kinds of value that a part of an expression can have. `OWN_*` are containers that the expression builds."""

    BOOL = enum.auto()
    INT = enum.auto()
    UINT = enum.auto()
    DOUBLE = enum.auto()
    STRING = enum.auto()
    BYTES = enum.auto()
    LIST = enum.auto()
    MAP = enum.auto()
    OWN_LIST = enum.auto()
    OWN_MAP = enum.auto()
    NULL = enum.auto()
    TIMESTAMP = enum.auto()
    DURATION = enum.auto()
    TYPE = enum.auto()


NOTHING = Kind(0)
MEASURED = Kind.BOOL | Kind.DOUBLE | Kind.STRING | Kind.LIST | Kind.MAP
ANY = functools.reduce(lambda kinds, kind: kinds | kind, Kind)
NUMBER = Kind.INT | Kind.UINT | Kind.DOUBLE
LISTS = Kind.LIST | Kind.OWN_LIST
MAPS = Kind.MAP | Kind.OWN_MAP
KEYS = Kind.INT | Kind.UINT | Kind.BOOL | Kind.STRING  # what can stand in the brackets of an index
_TIMES = Kind.TIMESTAMP | Kind.DURATION
_SIZED = Kind.STRING | Kind.BYTES | LISTS | MAPS
_ORDERED_WITHIN = Kind.BOOL | Kind.STRING | Kind.BYTES | _TIMES  # numbers are ordered across their kinds

_SAME = {kind: (kind, kind, kind) for kind in Kind}
_ARITHMETIC: dict[str, list[tuple[Kind, Kind, Kind]]] = {  # operator: left, right, what comes out
    "+": [
        *(_SAME[k] for k in (Kind.INT, Kind.UINT, Kind.DOUBLE, Kind.STRING, Kind.BYTES, Kind.DURATION)),
        (LISTS, LISTS, Kind.OWN_LIST),
        (Kind.TIMESTAMP, Kind.DURATION, Kind.TIMESTAMP),
    ],
    "-": [
        *(_SAME[k] for k in (Kind.INT, Kind.UINT, Kind.DOUBLE, Kind.DURATION)),
        (Kind.TIMESTAMP, Kind.TIMESTAMP, Kind.DURATION),
        (Kind.TIMESTAMP, Kind.DURATION, Kind.TIMESTAMP),
    ],
    "*": [_SAME[Kind.INT], _SAME[Kind.UINT], _SAME[Kind.DOUBLE]],
    "/": [_SAME[Kind.INT], _SAME[Kind.UINT], _SAME[Kind.DOUBLE]],
    "%": [_SAME[Kind.INT], _SAME[Kind.UINT]],
}

FUNCTIONS = {  # name: what its one argument can be, what comes out
    "size": (_SIZED, Kind.INT),
    "int": (NUMBER | Kind.STRING, Kind.INT),
    "uint": (NUMBER | Kind.STRING, Kind.UINT),
    "double": (NUMBER | Kind.STRING, Kind.DOUBLE),
    "string": (NUMBER | Kind.STRING | Kind.BYTES | _TIMES, Kind.STRING),
    "bytes": (Kind.STRING | Kind.BYTES, Kind.BYTES),
    "duration": (Kind.STRING | Kind.DURATION, Kind.DURATION),
    "timestamp": (Kind.STRING | Kind.TIMESTAMP, Kind.TIMESTAMP),
    "type": (ANY, Kind.TYPE),
    "has": (ANY, Kind.BOOL),
    "dyn": (ANY, ANY),  # gives what it was given
}
_CALENDAR = ("FullYear", "Month", "Date", "DayOfYear", "DayOfMonth", "DayOfWeek")
_CLOCK = ("Hours", "Minutes", "Seconds", "Milliseconds")
METHODS = {  # name: what it is called on, how many strings it takes, what comes out
    "size": (_SIZED, 0, Kind.INT),
    **dict.fromkeys(("contains", "startsWith", "endsWith", "matches"), (Kind.STRING, 1, Kind.BOOL)),
    **{f"get{unit}": (Kind.TIMESTAMP, 0, Kind.INT) for unit in _CALENDAR},
    **{f"get{unit}": (_TIMES, 0, Kind.INT) for unit in _CLOCK},
}
MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
TYPE_NAMES = frozenset({"bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type"})


def describe(kinds: Kind) -> str:
    """The kinds in words, as part of a sentence."""
    if kinds & MEASURED == MEASURED:
        return "a measurement"
    names = dict.fromkeys((kind.name or "").removeprefix("OWN_").lower() for kind in Kind if kind & kinds)
    return " or ".join(name if name == "null" else f"{'an' if name[0] == 'i' else 'a'} {name}" for name in names)


def arithmetic(operator: str, left: Kind, right: Kind) -> Kind | None:
    """What `left operator right` can be: `NOTHING` if no overload fits, None if this is not an operator of arithmetic."""
    if operator not in _ARITHMETIC:
        return None
    return functools.reduce(
        lambda kinds, overload: kinds | (overload[2] if left & overload[0] and right & overload[1] else NOTHING),
        _ARITHMETIC[operator],
        NOTHING,
    )


def ordered(left: Kind, right: Kind) -> bool:
    """Whether `<` and its like can compare these."""
    return bool((left & NUMBER and right & NUMBER) or left & right & _ORDERED_WITHIN)
