"""The messages of the library in plain words: why a text is refused, and why an evaluation failed.

The check of an expression where it is written: an undecidable expression is refused, with the place and the fix.

The type checker of the library sees variables as `dyn`, so it accepts every use of them. A measurement is a double, text, bool,
list or map, and never an int. So each call with a measured argument is given to the type checker again with a value of each of
these kinds; a call that takes none of them can never work.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.cel import (
    ANY_SAMPLES,
    MAX_DEPTH,
    MAX_ITERATIONS,
    WINDOW_FUNCTIONS,
    ExpressionError,
    WindowCall,
    check_names,
    converted,
    environment,
    nanoseconds,
    refuse,
)
from constraint_crdt.expression.measurements import MAX_WINDOW, show_span
from constraint_crdt.expression.syntax import OPERATORS, Node, Tree, is_path, is_window, unparse

if TYPE_CHECKING:
    from cel_expr_python import cel

_REPLACEMENTS = {  # what other languages or keyboards write: what CEL writes
    **dict.fromkeys(("=", "===", ":="), "=="),
    **dict.fromkeys(("!==", "<>", "≠"), "!="),
    **dict.fromkeys(("=>", "≥"), ">="),
    **dict.fromkeys(("=<", "≤"), "<="),
    **dict.fromkeys(("&", "and"), "&&"),
    **dict.fromkeys(("|", "or"), "||"),
    **dict.fromkeys(("**", "^"), "x * x"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("‘’", "'"),  # noqa: RUF001 (the look-alikes are the point)
    "not": "!(...)",
    "True": "true",
    "False": "false",
}
_FOREIGN = re.compile(r"===|!==|=>|=<|<>|:=|\*\*|(?<![=!<>])=(?!=)|(?<!&)&(?!&)|(?<!\|)\|(?!\|)|\b(?:and|or|not)\b|[≠≥≤^“”‘’]")  # noqa: RUF001
_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*)")
_OVERLOAD = re.compile(r"found no matching overload for '(.*?)' applied to '\((.*)\)'")
_LONGEST_QUOTE = 60

GLOBALS = frozenset({"size", "int", "uint", "double", "string", "bytes", "bool", "duration", "timestamp", "type", "dyn", "has"}) | {
    *WINDOW_FUNCTIONS
}
METHODS = frozenset(
    {"contains", "startsWith", "endsWith", "matches", "all", "exists", "exists_one", "map", "filter"}
    | {f"get{unit}" for unit in ("FullYear", "Month", "Date", "DayOfYear", "DayOfMonth", "DayOfWeek")}
    | {f"get{unit}" for unit in ("Hours", "Minutes", "Seconds", "Milliseconds")}
    | {"charAt", "format", "indexOf", "join", "lastIndexOf", "lowerAscii", "replace", "reverse", "split", "substring", "trim"}
    | {"upperAscii", "hasValue", "value", "or", "orValue", "optMap", "optFlatMap"}
)
"""Only for hints: the functions of CEL and of its extensions, called as `name(x)` and as `x.name()`."""


def printable(text: str) -> str:
    """The text for a sentence: on a single line, without control characters."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def quote(text: str) -> str:
    """The text in backquotes, shortened."""
    text = printable(text)
    return f"`{text}`" if len(text) <= _LONGEST_QUOTE else f"`{text[:_LONGEST_QUOTE]}...`"


def describe(kind: str) -> str:
    """A type of CEL in words."""
    base = re.split(r"[(<]", kind, maxsplit=1)[0].removesuffix("_type")
    base = base.removeprefix("google.protobuf.").lower()
    if base in ("dyn", "null", "any"):
        return {"dyn": "a measurement", "any": "a value"}.get(base, base)
    return f"an {base}" if base[:1] in ("i", "o") else f"a {base}"


class Place(NamedTuple):
    """The first error of the library on a text: its message and its offset."""

    message: str
    start: int
    syntax: bool


def place_of(text: str, error: RuntimeError) -> Place | None:
    """The first error that the library found in this text; None for an error without a place."""
    return next(places_of(text, error), None)


def places_of(text: str, error: RuntimeError) -> Iterator[Place]:
    """The errors that the library found in this text."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    for found in _ERROR.finditer(str(error)):
        start = min(starts[min(int(found[1]), len(starts)) - 1] + int(found[2]) - 1, len(text))
        message = found[3].removesuffix(" [INVALID_ARGUMENT]")
        yield Place(re.sub(r" expecting (\{.*|<EOF>)?$", "", message), start, "Syntax error" in found[0])


def numeric_comparison(message: str) -> bool:
    """True if the type checker refuses to compare an int with a double, which evaluation does."""
    overload = _OVERLOAD.match(message)
    return overload is not None and OPERATORS.get(overload[1], "") in _COMPARISONS and set(_split(overload[2])) <= _NUMBERS


def only_numeric(message: str) -> bool:
    """True if the type checker refuses types that differ in the kind of number only, where evaluation has a single number line: in
    comparisons, `in`, indexes, the branches of `?:`, and `orValue`.
    """
    overload = _OVERLOAD.match(message)
    if overload is None:
        return False
    name, kinds = overload[1], [_NUMERIC.sub("double", kind) for kind in _operands(overload)]
    if name == "_?_:_":
        return kinds[0] in ("bool", "dyn") and kinds[1] == kinds[2]
    if name == "@in":
        return kinds[0] == "double" and kinds[1].startswith(("list(double", "map(double"))
    if name in ("_[_]", "_[?_]"):
        return kinds[1] == "double" and kinds[0].startswith(("list(", "map(double"))
    if name == "orValue":
        return kinds[0] == f"optional_type({kinds[1]})"
    return OPERATORS.get(name, "") in _COMPARISONS and kinds[0] == kinds[1]


def refuse_as_library(source: str, error: RuntimeError) -> NoReturn:
    """Raise an `ExpressionError` for an error that the library raised while it parsed this text."""
    if "recursion" in str(error):
        raise ExpressionError(f"this is nested or chained more than {MAX_DEPTH} deep: split the constraint", 1) from None
    place = place_of(source, error)
    if place is None:
        raise ExpressionError("this is not CEL", 1) from None
    _refuse_syntax(source, place.message, place.start)


_LITERALS = {
    "invalid int literal": "this int does not fit 64 bits: write it as a double, such as `1e19`",
    "invalid uint literal": "this uint does not fit 64 bits: write it as a double, such as `1e20`",
    "invalid double literal": "this number is too large for a double",
    "has() argument": "`has` needs a field, such as `has(robot.speed)`",
}


def _refuse_syntax(source: str, message: str, start: int) -> NoReturn:
    if not source.strip():
        refuse(source, "the expression is empty: write a condition such as `x < 85`", 0)
    for begins, plain in _LITERALS.items():
        if message.startswith(begins):
            refuse(source, plain, start)
    if message.startswith("reserved identifier"):
        refuse(source, f"{quote(message.split(': ')[1])} is a reserved word of CEL, so no measurement can have this name", start)
    if message.startswith("token recognition error") and source[start : start + 1] in ("'", '"'):
        _refuse_string(source, start)
    _refuse_foreign(source, start)
    if start >= len(source.rstrip()):
        wanted = re.match(r"missing ('.*?') at", message)
        needed = f"`{wanted[1][1:-1]}` is needed" if wanted else "more is needed"
        refuse(source, f"the expression ends where {needed}", start)
    if message.startswith("token recognition error"):
        refuse(source, f"{quote(source[start])} is not CEL", start)
    stands = re.match(r"(?:mismatched|extraneous) input '(.*)'$|no viable alternative at input '(.*)'$", message)
    if stands:
        refuse(
            source, f"{quote(stands[1] or stands[2] or '')} does not fit here: an operator such as `<` or a value is missing", start
        )
    refuse(source, printable(message) or "this is not CEL", start)


def _refuse_foreign(source: str, start: int) -> None:
    """Refuse a mark of another language or a number with a unit. The parser stops behind it, or in the middle of it."""
    for foreign in _FOREIGN.finditer(source):
        if foreign.start() <= start <= foreign.end() + 1:
            mark = foreign[0]
            refuse(source, f"`{mark}` is not CEL: write `{_REPLACEMENTS[mark]}`", foreign.start())
    number = re.search(r"(?<![\w.])[0-9][0-9.]*$", source[:start])
    if number and re.match(r"[A-Za-z_]", source[start : start + 1]):
        unit = re.match(r"\w+", source[start:])
        refuse(source, f"`{number[0]}{unit[0] if unit else ''}` is not a number: write digits only, without a unit", number.start())
    pointed = re.search(r"(?<![\w.])([0-9]+)\.$", source[:start])
    if pointed:
        refuse(source, f"a number cannot end in a point: write `{pointed[1]}.0`", pointed.start())


def _refuse_string(source: str, start: int) -> NoReturn:
    rest = source[start + 1 :]
    if re.search(r"(?<!\\)" + re.escape(source[start]), rest):
        refuse(source, "this string has an escape that CEL does not know: write `\\\\` for a backslash", start)
    refuse(source, "the string that begins here is not closed", start)


def refuse_type(source: str, message: str, start: int, tree: Tree) -> NoReturn:
    """Raise an `ExpressionError` for an error of the type checker, about the part of the tree at this offset."""
    overload = _OVERLOAD.match(message)
    if overload:
        name, hint = overload[1], ""
        if name in _PLACES and only_numeric(message):
            at = next((node for node in tree.root.walk() if node.name == name and tree.positions.get(node.id) == start), None)
            hint = f": write `dyn({unparse(at.nodes[_PLACES[name]])})`" if at else ""
        _refuse_overload(source, name, _operands(overload), start, tree, hint)
    undeclared = re.match(r"undeclared reference to '(.*?)'", message)
    if undeclared:
        _refuse_undeclared(source, undeclared[1], start, tree)
    field = re.match(r"expression of type '(.*?)' cannot be the operand of a select", message)
    if field:
        refuse(source, f"{describe(field[1])} has no fields", start)
    ranged = re.match(r"expression of type '(.*?)' cannot be the range of a comprehension", message)
    if ranged:
        refuse(source, f"{describe(ranged[1])} has no items for a macro", start)
    refuse(source, printable(message), start)


_PLACES = {"@in": 0, "_[_]": 1, "_[?_]": 1}
"""The operand that finds its place among numbers, by function."""


def _operands(overload: re.Match[str]) -> list[str]:
    """The types of the operands. The type checker gives a refused comparison of numbers another type, and it is a bool."""
    kinds = _split(overload[2])
    if overload[1] in ("_&&_", "_||_", "!_"):
        return ["bool" if kind == _REFUSED else kind for kind in kinds]
    if overload[1] == "_?_:_" and kinds[0] == _REFUSED:
        return ["bool", *kinds[1:]]
    return kinds


_REFUSED = "*error*"
"""The type of an expression that the type checker refused."""


def _split(kinds: str) -> list[str]:
    """The types of a list with commas, of which some are inside brackets."""
    parts, depth = [""], 0
    for character in kinds:
        depth += (character in "(<") - (character in ")>")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


_ORDER = frozenset({"<", "<=", ">", ">="})
_COMPARISONS = _ORDER | {"==", "!="}
_NUMBERS = frozenset({"int", "uint", "double"})
_NUMERIC = re.compile(r"\b(?:int|uint)\b")


def _refuse_overload(source: str, name: str, kinds: list[str], start: int, tree: Tree, hint: str) -> NoReturn:
    """`hint`: the fix for an operand of `_PLACES`."""
    mark = OPERATORS.get(name)
    node = next((node for node in tree.root.walk() if node.name == name and tree.positions.get(node.id) == start), None)
    left, right = (describe(kind) for kind in (kinds + kinds)[:2])
    if left == right and len(set(kinds)) > 1:
        left, right = (f"a {kind}" for kind in kinds[:2])
    if mark and mark in _COMPARISONS:
        first = tree.start(node.nodes[0]) if node else start
        fix = _comparison_hint(mark, kinds, node, negated=source[first : first + 1] == "!")
        refuse(source, f"`{mark}` cannot compare {left} with {right}{fix}", start)
    if mark in ("+", "-", "*", "/", "%") and set(kinds) <= _NUMBERS and node:
        if mark == "%":
            fix = " % ".join(
                f"int({unparse(each)})" if kind != "int" else unparse(each, 4) for each, kind in zip(node.nodes, kinds, strict=True)
            )
            refuse(source, f"`%` is for ints, not for {left} and {right}: write `{fix}`", start)
        if "double" in kinds:
            fix = f" {mark} ".join(_as_double(each, kind) for each, kind in zip(node.nodes, kinds, strict=True))
        else:
            fix = f" {mark} ".join(
                f"int({unparse(each)})" if kind == "uint" else unparse(each, 4)
                for each, kind in zip(node.nodes, kinds, strict=True)
            )
        refuse(source, f"`{mark}` cannot mix {left} with {right}: write `{fix}`", start)
    if mark in ("&&", "||"):
        wrong = next((index for index, kind in enumerate(kinds) if kind not in ("bool", "dyn")), 0)
        what = f"{quote(unparse(node.nodes[wrong]))} is " if node else ""
        refuse(
            source,
            f"{what}{describe(kinds[wrong])}, which `{mark}` does not take",
            tree.start(node.nodes[wrong]) if node else start,
        )
    if mark == "in":
        refuse(source, f"{right} has no items for `in` that {left} could be among{hint}", start)
    if mark:
        refuse(source, f"`{mark}` does not work on {left} and {right}", start)
    _refuse_call(source, name, kinds, start, hint)


def _comparison_hint(mark: str, kinds: list[str], node: Node | None, *, negated: bool) -> str:
    if kinds[0] == "bool" and negated:
        return ": write `!(...)` around the comparison"
    if kinds[0] == "bool" and mark not in ("==", "!=") and node and node.nodes[0].sort == "call":
        return ": join two comparisons with `&&`"
    if "google.protobuf.Duration" in kinds and set(kinds) & _NUMBERS:
        return ": write a duration such as `duration('5s')`"
    if set(kinds) <= _NUMBERS and node:
        return f": write `{' '.join((_as_double(node.nodes[0], kinds[0]), mark, _as_double(node.nodes[1], kinds[1])))}`"
    return ""


def _refuse_call(source: str, name: str, kinds: list[str], start: int, hint: str) -> NoReturn:
    given = " and ".join(map(describe, kinds))
    if name == "_?_:_":
        if kinds[0] not in ("bool", "dyn"):
            refuse(source, f"{describe(kinds[0])} cannot be the condition of `?`", start)
        one, other = map(describe, kinds[1:])
        refuse(source, f"the branches of `?` give {one} or {other}: convert one of them, or write `dyn(...)` around it", start)
    if name in ("_[_]", "_[?_]"):
        if kinds[0].startswith(("list(", "map(")):
            refuse(source, f"{describe(kinds[-1])} cannot be an index of {describe(kinds[0])}{hint}", start)
        refuse(source, f"{describe(kinds[0])} has no items", start)
    if name in ("!_", "-_"):
        refuse(source, f"`{name[0]}` does not take {given}", start)
    name = {"math.@max": "math.greatest", "math.@min": "math.least"}.get(name, name.strip("@_"))
    refuse(source, f"`{name}` does not take {given}", start)


def _as_double(node: Node, kind: str) -> str:
    if kind == "double":
        return unparse(node, 4)
    if node.sort == "constant" and isinstance(node.value, int):
        return f"{int(node.value)}.0"
    return f"double({unparse(node)})"


def _refuse_undeclared(source: str, name: str, start: int, tree: Tree) -> NoReturn:
    call = next(
        (node for node in tree.root.walk() if node.sort == "call" and node.name == name and tree.positions.get(node.id) == start),
        None,
    )
    if call is None:
        refuse(source, f"{quote(name)} is not declared", start)
    named = re.search(r"\w+\s*$", source[:start])
    start = named.start() if named else start
    count = len(call.nodes) - call.member
    if name in METHODS and not call.member:
        refuse(source, f"`{name}` is a method: write `value.{name}(...)`", start)
    if name in GLOBALS and call.member and name != "size":
        fix = window_call(name) if name in WINDOW_FUNCTIONS else f"{name}({unparse(call.nodes[0])})"
        refuse(source, f"`{name}` is a function: write `{fix}`", start)
    if name in METHODS | GLOBALS:
        refuse(source, f"`{name}` does not take {count} argument{'s'[: count != 1]}", start)
    plain = name.lower().replace("_", "").removesuffix("time")
    likely = next((known for known in sorted(METHODS | GLOBALS) if known.lower().replace("_", "") == plain), None)
    hint = f": write `{likely}`" if likely else ""
    refuse(source, f"CEL has no {'method' if call.member else 'function'} {quote(name)}{hint}", start)


_INNER = {"<iter_range>": "a macro", "<jump_condition>": "a condition"}
"""The names of the library for steps of an evaluation that no function of an expression stands for."""


def failure(text: str) -> str:
    """The library's message on a failed evaluation, as part of a sentence."""
    text = re.sub(r"^[A-Z_]+: ", "", text)
    text = re.sub(r" \[[A-Z_]+\]$", "", text)
    overload = re.match(r"No matching overloads found : (?:\([\w.]+\)\.)?([^( ]+)", text)
    if overload:
        name = _INNER.get(overload[1]) or OPERATORS.get(overload[1], overload[1].strip("_@")) or overload[1]
        subject = name if overload[1] in _INNER else f"`{name}`"
        return f"{subject} does not take the kind of value measured"
    if text.startswith("Key not found in map"):
        field = text.rsplit(" : ", 1)[-1].strip('"')
        return f"there is no field {field}"
    if text.startswith("Applying SELECT"):
        return "a value without fields is read as a map"
    if text.startswith("String to Duration"):
        return "a duration is written as `1h30m` or `1.5s`, without spaces"
    if text.startswith("String to Timestamp"):
        return "a timestamp is written as `2026-01-01T00:00:00Z`"
    if text.startswith("Iteration budget"):
        return f"the macros take more than {MAX_ITERATIONS} steps"
    if text.startswith("Invalid map key type"):
        return "the keys of a map are texts, bools and ints, not doubles"
    if text.startswith("Index error: expected"):
        return "the index of a list is a number without fraction"
    index = re.match(r"Index error: index=(\S+) size=(\d+)", text)
    if index:
        return f"item {index[1]} is out of bounds of {index[2]}"
    return printable(text.split("\n", 1)[0]).rstrip(".") or "an error of the library"


_ARGUMENTS = {"fraction": "0.95", "name": '"x"', "span": 'duration("5m")'}


def window_call(function: str, **arguments: str) -> str:
    """The text of a call of a function over samples, with these arguments or examples of them."""
    return f"{function}({', '.join((_ARGUMENTS | arguments)[each] for each in WINDOW_FUNCTIONS[function])})"


def find_windows(source: str, tree: Tree) -> frozenset[tuple[str, int]]:
    """The variables whose samples are read, each with the length of the window in ns, 0 for the last sample only.

    Raises `ExpressionError` for a function over samples whose arguments are not literals, or out of bounds.
    """
    return frozenset(_window(source, tree, node) for node in tree.root.walk() if is_window(node))


def read_windows(root: Node) -> dict[int, WindowCall]:
    """The calls over samples of an expression that passed `find_windows`, by the id of the node, for `with_names`."""
    calls = filter(is_window, root.walk())
    return {node.nodes[0].id if node.name == "age" else node.id: _read_window(node) for node in calls}


def _read_window(node: Node) -> WindowCall:
    given = dict(zip(WINDOW_FUNCTIONS[node.name], node.nodes, strict=True))
    name, span, fraction = given["name"].value, given.get("span"), given.get("fraction")
    length = nanoseconds(_duration_of(unparse(span)).plain_value()) if span else 0
    return WindowCall(node.name, str(name), length, fraction.value if fraction and isinstance(fraction.value, float) else 0.0)


@functools.lru_cache(maxsize=1024)
def _duration_of(literal: str) -> "cel.Value":
    library = environment()
    return library.parse(literal).eval(library.activation({}))


def _window(source: str, tree: Tree, node: Node) -> tuple[str, int]:
    wanted, start = WINDOW_FUNCTIONS[node.name], tree.start(node)
    if len(node.nodes) != len(wanted):
        refuse(source, f"`{node.name}` takes {_numbered[len(wanted)]}: write `{window_call(node.name)}`", start)
    given = dict(zip(wanted, node.nodes, strict=True))
    if "fraction" in given:
        _check_fraction(source, tree, given["fraction"])
    name = given["name"]
    if not isinstance(name.value, str):
        fix = f'"{unparse(name)}"' if is_path(name) else '"x"'
        refuse(source, f"`{node.name}` needs the name of a variable as a string literal: write `{fix}`", tree.start(name))
    try:
        check_names([name.value])
    except ConstraintCrdtError as error:
        refuse(source, str(error), tree.start(name))
    return name.value, _span(source, tree, given["span"]) if "span" in given else 0


_numbered = {1: "a name", 2: "a name and a duration", 3: "a fraction, a name and a duration"}


def _check_fraction(source: str, tree: Tree, node: Node) -> None:
    if isinstance(node.value, float) and 0 <= node.value <= 1:
        return
    fix = f": write `{int(node.value)}.0`" if type(node.value) is int and node.value in (0, 1) else ", such as `0.95`"
    refuse(source, f"`quantile_over` needs a number literal from 0.0 to 1.0 first{fix}", tree.start(node))


def _span(source: str, tree: Tree, node: Node) -> int:
    """The length in ns of a literal such as `duration("5m")`."""
    start = tree.start(node)
    literal = node.nodes[0].value if node.name == "duration" and len(node.nodes) == 1 else None
    if not isinstance(literal, str):
        fix = str(node.value) if isinstance(node.value, str) and not _fails(f"duration({unparse(node)})") else "5m"
        fix = f"{node.value:g}s" if type(node.value) in (int, float) else fix
        refuse(source, f'a window needs its length as a literal: write `duration("{fix}")`', start)
    found = _duration_of(unparse(node))
    if found.type() == environment().error_type:
        refuse(source, f"{quote(unparse(node))} fails: {failure(str(found.plain_value()))}", start)
    span = nanoseconds(found.plain_value())
    if not 0 < span <= MAX_WINDOW:
        refuse(source, f"a window is longer than 0 and at most {show_span(MAX_WINDOW)}", start)
    return span


_SAMPLES = {
    "bool": "true",
    "int": "1",
    "uint": "1u",
    "double": "1.5",
    "string": "'a'",
    "bytes": "b'a'",
    "timestamp": "timestamp('2020-01-01T00:00:00Z')",
    "duration": "duration('1s')",
    "null": "null",
    "list": "[dyn(1)]",
    "map": "{'a': dyn(1)}",
    "dyn": "dyn(1)",
}
_MEASURED = ("double", "string", "bool", "list", "map", "null")
_DOUBLES = "every number measured is a double"
_ARITHMETIC = frozenset({"+", "-", "*", "/", "%"})


def check_result(source: str, tree: Tree, kind: str) -> None:
    """Raise `ExpressionError` for an expression whose result is of this type, and so never a bool."""
    if kind not in ("bool", "dyn"):
        refuse(source, f"this gives {describe(kind)}, and a constraint needs a bool such as `x < 85`", tree.start(tree.root))


def check_tree(source: str, tree: Tree, kinds: Mapping[str, str]) -> None:
    """Raise `ExpressionError` for a checked expression that no measurement can decide, given the kinds of some samples."""
    root = tree.root
    check_result(source, tree, tree.types.get(root.id, "dyn"))
    for node in root.walk():
        if node.sort == "message":
            refuse(source, f"{quote(node.name)} is a message, which a constraint cannot use", tree.start(node))
        if node.sort == "constant" and node.value in (float("inf"), float("-inf")):
            refuse(source, "this number is too large for a double", tree.start(node))
        if node.sort == "map":
            _check_keys(source, tree, node)
        if node.sort == "call":
            _check_constants(source, tree, node)
        if is_window(node):
            _check_samples(source, tree, node, kinds)
    for node, bound in _calls(root, frozenset()):
        _check_measured(source, tree, node, bound, kinds)
    if not any(root.free()) and not any(map(is_window, root.walk())):
        _check_decided(source)


def _check_keys(source: str, tree: Tree, node: Node) -> None:
    """Refuse a map with a key of a type that no map has."""
    for key in node.nodes[::2]:
        kind = tree.types.get(key.id, "dyn")
        if kind not in _KEYS:
            refuse(source, f"the keys of a map are texts, bools and ints, and this is {describe(kind)}", tree.start(key))


_KEYS = frozenset({"string", "bool", "int", "uint", "dyn"})


def _check_samples(source: str, tree: Tree, node: Node, kinds: Mapping[str, str]) -> None:
    """Refuse a function of numbers over samples that are none."""
    name = str(node.nodes[WINDOW_FUNCTIONS[node.name].index("name")].value)
    kind = kinds.get(name, "double")
    if kind != "double" and node.name not in ANY_SAMPLES:
        refuse(source, f"`{node.name}` needs numbers, and {name} is {describe(kind)}", tree.start(node))


def _calls(node: Node, loops: frozenset[str]) -> Iterator[tuple[Node, frozenset[str]]]:
    """The calls, inner ones first, each with the variables of the loops around it that do not range over measurements."""
    for index, each in enumerate(node.nodes):
        inside = loops
        if node.sort == "loop" and index:
            own = frozenset(node.bound)
            inside = loops - own | (own if not _is_measured(node.nodes[0], loops) else frozenset(node.bound[-1:]))
        yield from _calls(each, inside)
    if node.sort == "call":
        yield node, loops


def _is_measured(node: Node, loops: frozenset[str]) -> bool:
    """True if the value can only be a measurement, or a part of a measurement."""
    if is_path(node):
        name = next(each for each in _leftmost(node) if each.sort == "name").name
        return name not in loops and name != "@result"
    if is_window(_base(node)):
        return _base(node).name == "last"
    sources = _sources(node)
    if sources:
        measured = [_is_measured(each, loops) for each in sources]
        return any(measured) and all(of or isinstance(each.value, float) for each, of in zip(sources, measured, strict=True))
    return (
        node.sort == "call"
        and node.name in ("_+_", "_-_", "_*_", "_/_", "-_")
        and all(_is_measured(each, loops) for each in node.nodes)
    )


_CHOICES = frozenset({"math.@max", "math.@min", "math.abs", "optional.of", "optional.ofNonZeroValue"})
"""Functions that give an argument, its size, or an optional with it."""


def _sources(node: Node) -> tuple[Node, ...]:
    """The operands among which a call chooses, as the branches of `?:`; none for other calls and values."""
    if node.sort != "call":
        return ()
    if node.name == "_?_:_":
        return node.nodes[1:]
    if node.name in _CHOICES:
        return node.nodes[0].nodes if node.nodes[0].sort == "list" else node.nodes
    if node.member and node.name in ("orValue", "or", "value"):
        return node.nodes
    if node.name == "_[_]" and node.nodes[0].sort == "list":
        return node.nodes[0].nodes
    return ()


def _base(node: Node) -> Node:
    """The value whose field or item this is; the node itself if it is none."""
    while node.sort == "field" or node.name in ("_[_]", "_[?_]", "_?._"):
        node = node.nodes[0]
    return node


def _leftmost(node: Node) -> Iterator[Node]:
    while True:
        yield node
        if not node.nodes:
            return
        node = node.nodes[0]


def _check_measured(source: str, tree: Tree, node: Node, loops: frozenset[str], sampled: Mapping[str, str]) -> None:
    """Refuse a call that takes no measured value in the place of its measured operands. `sampled`: the kinds of some samples."""
    measured = [tree.types.get(each.id, "dyn") == "dyn" and _is_measured(each, loops) for each in node.nodes]
    kinds = [tree.types.get(each.id, "dyn") for each in node.nodes]
    mark = OPERATORS.get(node.name)
    if mark in _ARITHMETIC:
        _check_mixed(source, tree, node, loops)
    if not any(measured) or not _readable(node) or node.name == "@in":
        return
    if mark in _COMPARISONS:  # numbers are one line for comparisons of dynamic values
        kinds = ["double" if kind in ("int", "uint") else kind for kind in kinds]
    choices = [_sampled(each, sampled) if of else (kind,) for each, of, kind in zip(node.nodes, measured, kinds, strict=True)]
    if mark in _ARITHMETIC | _ORDER or node.name.startswith("get"):
        # The type checker takes null for a timestamp and a duration. No evaluation does.
        choices = [
            tuple(kind for kind in each if kind != "null") if of else each for each, of in zip(choices, measured, strict=True)
        ]
    if _takes_any(node, choices):
        return
    start = tree.positions.get(node.id, 0)
    doubles = [("double",) if kind in ("int", "uint") else kinds for kind, kinds in zip(kinds, choices, strict=True)]
    if mark in _ARITHMETIC and _takes_any(node, doubles):
        nodes = tuple(each if of else _double(each, kind) for each, of, kind in zip(node.nodes, measured, kinds, strict=True))
        given = next(kind for of, kind in zip(measured, kinds, strict=True) if not of)
        fix = unparse(node._replace(nodes=nodes))
        refuse(source, f"`{mark}` cannot mix a measurement with {describe(given)} ({_DOUBLES}): write `{fix}`", start)
    mark = mark or {"-_": "-", "!_": "!"}.get(node.name, node.name)
    ints = _as_ints(node, measured, choices)
    if ints:
        refuse(source, f"`{mark}` is for ints ({_DOUBLES}): write `{unparse(ints)}`", start)
    kinds = [tree.types.get(each.id, "dyn") if not of else kind for each, of, kind in zip(node.nodes, measured, kinds, strict=True)]
    shown = [each[0] if len(each) == 1 and of else kind for each, of, kind in zip(choices, measured, kinds, strict=True)]
    refuse(source, f"`{mark}` does not take {' and '.join(map(describe, shown))}", start)


def _check_mixed(source: str, tree: Tree, node: Node, loops: frozenset[str]) -> None:
    """Refuse arithmetic with an operand that is a measurement or an int, as `m.?x.orValue(0) * 2.0`: for either kind it fails."""
    kinds = [tree.types.get(each.id, "dyn") for each in node.nodes]
    mixed = []
    for each in node.nodes:
        leaves = _leaves(each)
        ints = [kind for leaf in leaves if (kind := tree.types.get(leaf.id, "dyn")) in ("int", "uint")]
        mixed.append(ints[0] if ints and any(_is_measured(leaf, loops) for leaf in leaves) else "")
    if not any(mixed):
        return
    mark, number = OPERATORS[node.name], "int" if node.name == "_%_" else "double"
    if not _takes(node.name, node.member, tuple(number if kind in _NUMERIC_OR_ANY else kind for kind in kinds)):
        return
    if number == "int":
        nodes = tuple(
            _call("int", each) if kind in ("dyn", "double") or of else each
            for each, kind, of in zip(node.nodes, kinds, mixed, strict=True)
        )
        says = f"is for ints ({_DOUBLES})"
    else:
        nodes = tuple(_doubled(tree, each) for each in node.nodes)
        says = f"cannot mix a measurement with {describe(next(filter(None, mixed)))} ({_DOUBLES})"
    refuse(source, f"`{mark}` {says}: write `{unparse(node._replace(nodes=nodes))}`", tree.positions.get(node.id, 0))


_NUMERIC_OR_ANY = frozenset({"int", "uint", "double", "dyn"})


def _leaves(node: Node) -> tuple[Node, ...]:
    """The values among which the value of a node is chosen: the sources of its sources."""
    sources = _sources(node)
    return tuple(leaf for each in sources for leaf in _leaves(each)) if sources else (node,)


def _doubled(tree: Tree, node: Node) -> Node:
    """The node with each int among its possible values as a double."""
    sources = _sources(node)
    if not sources:
        return _double(node, tree.types.get(node.id, "dyn"))
    replaced = {id(each): _doubled(tree, each) for each in sources}

    def rebuilt(inner: Node) -> Node:
        nodes = tuple(replaced.get(id(each)) or (rebuilt(each) if each.sort == "list" else each) for each in inner.nodes)
        return inner._replace(nodes=nodes)

    return rebuilt(node)


def _sampled(node: Node, kinds: Mapping[str, str]) -> Sequence[str]:
    """The types that a measured value can have. `kinds`: those of some samples, for `last`."""
    if node.name == "last" and is_window(node) and isinstance(node.nodes[0].value, str):
        kind = kinds.get(node.nodes[0].value)
        return _MEASURED if kind is None else (kind,)
    return _MEASURED


def _takes_any(node: Node, choices: Sequence[Sequence[str]]) -> bool:
    return any(_takes(node.name, node.member, kinds) for kinds in itertools.product(*choices))


def _as_ints(node: Node, measured: Sequence[bool], choices: Sequence[Sequence[str]]) -> Node | None:
    """The call with `int()` around the measured arguments, all or one of them, if it is taken then."""
    every = frozenset(index for index, of in enumerate(measured) if of and "double" in choices[index])
    if not every:
        return None
    for chosen in (every, *(frozenset([index]) for index in every)):
        if _takes_any(node, [("int",) if index in chosen else kinds for index, kinds in enumerate(choices)]):
            nodes = tuple(_call("int", each) if index in chosen else each for index, each in enumerate(node.nodes))
            return node._replace(nodes=nodes)
    return None


def _call(name: str, node: Node) -> Node:
    return Node(0, "call", name, nodes=(node,))


def _double(node: Node, kind: str) -> Node:
    if kind not in ("int", "uint"):
        return node
    if node.sort == "constant" and isinstance(node.value, int):
        return Node(node.id, "constant", value=float(node.value))
    return _call("double", node)


def _readable(node: Node) -> bool:
    """True for a call that can be written down again: not the inner functions of macros."""
    return node.name in OPERATORS or node.name in ("!_", "-_") or node.name.replace(".", "").isidentifier()


@functools.lru_cache(maxsize=4096)
def _takes(name: str, member: bool, kinds: tuple[str, ...]) -> bool:
    """Whether the library has an overload of this function for these types."""
    names = [f"a{index}" for index in range(len(kinds))]
    call = Node(0, "call", name, nodes=tuple(Node(0, "name", each) for each in names), member=member)
    text = unparse(call)
    for each, kind in zip(names, kinds, strict=True):
        text = text.replace(each, f"({_SAMPLES.get(kind, 'dyn(1)')})")
    try:
        environment().check(text)
    except RuntimeError:
        return False
    return True


def _check_constants(source: str, tree: Tree, node: Node) -> None:
    """Refuse a call of constants that fails, such as `duration('1h 30m')`."""
    if not _readable(node) or not node.nodes or is_window(node) or not all(each.sort == "constant" for each in node.nodes):
        return
    reason = _fails(unparse(node))
    if reason:
        refuse(source, f"{quote(unparse(node))} fails: {reason}", tree.start(node))


def _check_decided(source: str) -> None:
    reason = _fails(source)
    if reason:
        refuse(source, f"this names no measurement, and the evaluation failed: {reason}", 0)


def _fails(text: str) -> str:
    """Why the evaluation of this constant fails; empty if it does not."""
    library = environment()
    try:
        value = library.parse(text).eval(library.activation({}))
    except RuntimeError as error:
        return failure(str(error))
    found = converted(value)
    return failure(found) if isinstance(found, str) and value.type() == library.error_type else ""
