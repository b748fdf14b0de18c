"""The messages of the library in plain words: why a text is refused, and why an evaluation failed."""

import re
from typing import NamedTuple, NoReturn

from constraint_crdt.expression.cel import MAX_DEPTH, MAX_ITERATIONS, ExpressionError, refuse
from constraint_crdt.expression.syntax import OPERATORS, Node, Tree, unparse

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

GLOBALS = frozenset({"size", "int", "uint", "double", "string", "bytes", "bool", "duration", "timestamp", "type", "dyn", "has"})
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
    if base in ("dyn", "null", "any"):
        return {"dyn": "a measurement", "any": "a value"}.get(base, base)
    return f"an {base}" if base[:1] in ("i", "o") else f"a {base}"


class Place(NamedTuple):
    """The first error of the library on a text: its message and its offset."""

    message: str
    start: int
    syntax: bool


def place_of(text: str, error: RuntimeError) -> Place | None:
    """The first error that the library found in this text; None for one without a place."""
    found = _ERROR.search(str(error))
    if found is None:
        return None
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    start = min(starts[min(int(found[1]), len(starts)) - 1] + int(found[2]) - 1, len(text))
    message = found[3].removesuffix(" [INVALID_ARGUMENT]")
    return Place(re.sub(r" expecting (\{.*|<EOF>)?$", "", message), start, "Syntax error" in found[0])


def numeric_comparison(message: str) -> bool:
    """True if the type checker refuses to compare an int with a double, which evaluation does."""
    overload = _OVERLOAD.match(message)
    return overload is not None and OPERATORS.get(overload[1], "") in _COMPARISONS and set(_split(overload[2])) <= _NUMBERS


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
        _refuse_overload(source, overload[1], _split(overload[2]), start, tree)
    undeclared = re.match(r"undeclared reference to '(.*?)'", message)
    if undeclared:
        _refuse_undeclared(source, undeclared[1], start, tree)
    field = re.match(r"expression of type '(.*?)' cannot be the operand of a select", message)
    if field:
        refuse(source, f"{describe(field[1])} has no fields", start)
    refuse(source, printable(message), start)


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


_COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!="})
_NUMBERS = frozenset({"int", "uint", "double"})


def _refuse_overload(source: str, name: str, kinds: list[str], start: int, tree: Tree) -> NoReturn:
    mark = OPERATORS.get(name)
    node = next((node for node in tree.root.walk() if node.name == name and tree.positions.get(node.id) == start), None)
    left, right = (describe(kind) for kind in (kinds + kinds)[:2])
    if left == right and len(set(kinds)) > 1:
        left, right = (f"a {kind}" for kind in kinds[:2])
    if mark in _COMPARISONS:
        hint = ""
        if kinds[0] == "bool" and source[tree.start(node.nodes[0]) if node else start] == "!":
            hint = ": write `!(...)` around the comparison"
        elif kinds[0] == "bool" and mark not in ("==", "!="):
            hint = ": join two comparisons with `&&`"
        elif set(kinds) <= _NUMBERS and node:
            hint = f": write `{' '.join((_as_double(node.nodes[0], kinds[0]), mark, _as_double(node.nodes[1], kinds[1])))}`"
        refuse(source, f"`{mark}` cannot compare {left} with {right}{hint}", start)
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
        refuse(source, f"{right} has no items for `in` that {left} could be among", start)
    if mark:
        refuse(source, f"`{mark}` does not work on {left} and {right}", start)
    _refuse_call(source, name, kinds, start)


def _refuse_call(source: str, name: str, kinds: list[str], start: int) -> NoReturn:
    given = " and ".join(map(describe, kinds))
    if name == "_?_:_":
        if kinds[0] not in ("bool", "dyn"):
            refuse(source, f"{describe(kinds[0])} cannot be the condition of `?`", start)
        one, other = map(describe, kinds[1:])
        refuse(source, f"the branches of `?` give {one} or {other}: convert one of them, or write `dyn(...)` around it", start)
    if name in ("_[_]", "_[?_]"):
        refuse(source, f"{describe(kinds[0])} has no items, or {describe(kinds[-1])} cannot be an index of it", start)
    if name in ("!_", "-_"):
        refuse(source, f"`{name[0]}` does not take {given}", start)
    name = name.strip("@_")
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
        refuse(source, f"`{name}` is a function: write `{name}({unparse(call.nodes[0])})`", start)
    if name in METHODS | GLOBALS:
        refuse(source, f"`{name}` does not take {count} argument{'s'[: count != 1]}", start)
    plain = name.lower().replace("_", "")
    likely = next((known for known in sorted(METHODS | GLOBALS) if known.lower().replace("_", "") == plain), None)
    hint = f": write `{likely}`" if likely else ""
    refuse(source, f"CEL has no {'method' if call.member else 'function'} {quote(name)}{hint}", start)


def failure(text: str) -> str:
    """The library's message on a failed evaluation, as part of a sentence."""
    text = re.sub(r"^[A-Z_]+: ", "", text)
    text = re.sub(r" \[[A-Z_]+\]$", "", text)
    overload = re.match(r"No matching overloads found : (?:\([\w.]+\)\.)?([^( ]+)", text)
    if overload:
        name = OPERATORS.get(overload[1], overload[1].strip("_@")) or overload[1]
        return f"`{name}` does not take the kind of value measured"
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
    index = re.match(r"Index error: index=(\S+) size=(\d+)", text)
    if index:
        return f"item {index[1]} is out of bounds of {index[2]}"
    return printable(text.split("\n", 1)[0]).rstrip(".") or "an error of the library"
