"""The syntax tree of an expression, from the parsed form that the library serializes.

The form is protobuf (`cel.expr.ParsedExpr` and `CheckedExpr`). A decoder of its wire format needs a page; the package `protobuf`
would add 1.7 MB and its import for the same, and has no classes for CEL. Depth is bounded by the library's parser, and the length
of the text bounds the size.

Bounds on the text and the lists that an expression builds.

The library bounds the steps of macros, not the memory of their results. Text that is joined in a loop, `replace` inside `replace`,
or lists of lists that loops nest could take gigabytes from an expression of 1 KiB. `replace` and `join` take short literals only;
for an expression that builds in loops, `Growth` gives an upper estimate from the sizes of the values measured.

Comparisons of variables and literals, joined by `&&`, `||`, `!` and brackets, are most constraints of a fleet. `read_comparisons`
reads them without the library, to the tree that the library's parser makes, and takes no other text.
"""

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from constraint_crdt.expression.cel import MAX_ITERATIONS, NAME_PATTERN, TYPE_NAMES, WINDOW_FUNCTIONS, refuse

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Fields = dict[int, list[int | bytes]]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Fields:
    """The fields of a message, by number; a fixed-width field as bytes."""
    fields: Fields = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(data, at)
        else:
            size, at = _varint(data, at) if wire == _BYTES else ({_FIXED64: 8, _FIXED32: 4}[wire], at)
            value, at = data[at : at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: Fields, key: int) -> int:
    value = fields.get(key, [0])[-1]
    return value if isinstance(value, int) else 0


def _message(fields: Fields, key: int) -> bytes:
    value = fields.get(key, [b""])[-1]
    return value if isinstance(value, bytes) else b""


def _messages(fields: Fields, key: int) -> list[bytes]:
    return [value for value in fields.get(key, []) if isinstance(value, bytes)]


def _text(fields: Fields, key: int) -> str:
    return _message(fields, key).decode()


class Unsigned(int):
    """A uint of CEL."""


class Node(NamedTuple):
    """A node of the tree.

    `sort`: constant, name, field, call, list, map, message or loop. `name`: of the variable, field or function; `value`: of a
    constant. `nodes`: operands; a method call has its target first. A loop has its range, the start of the accumulator, condition,
    step and result; `bound` are its range variables and accumulator. `encoded`: the serialized form, empty for a node made here.
    """

    id: int
    sort: str
    name: str = ""
    value: object = None
    nodes: tuple["Node", ...] = ()
    member: bool = False
    bound: tuple[str, ...] = ()
    encoded: bytes = b""

    def walk(self) -> Iterator["Node"]:
        """This node and all below it."""
        yield self
        for node in self.nodes:
            yield from node.walk()

    def free(self, hidden: frozenset[str] = frozenset()) -> Iterator["Node"]:
        """The names that no loop binds."""
        if self.sort == "name" and self.name not in hidden:
            yield self
        for index, node in enumerate(self.nodes):
            # A loop binds its variables in condition, step and result, not in the range.
            yield from node.free(hidden | frozenset(self.bound) if index > 1 else hidden)


class Tree(NamedTuple):
    """A decoded expression: the root, the offset of each node in the text, and the types if it was checked."""

    root: Node
    positions: dict[int, int]
    types: dict[int, str]

    def start(self, node: Node) -> int:
        """The offset of the leftmost part of a node. The library places a call at its bracket."""
        starts = []
        for each in node.walk():
            at = self.positions.get(each.id)
            if at is not None:
                named = each.sort == "call" and not each.member and each.name.isidentifier()
                starts.append(max(at - len(each.name), 0) if named else at)
        return min(starts, default=0)


def decode(serialized: bytes) -> Tree:
    """The tree of an expression as the library serializes it, checked or not."""
    envelope = _fields(serialized)
    checked = _text(envelope, 1).endswith("CheckedExpr")
    fields = _fields(_message(envelope, 2))
    info = _fields(_message(fields, 5 if checked else 3))
    positions = {_number(entry, 1): _number(entry, 2) for entry in map(_fields, _messages(info, 4))}
    entries = map(_fields, _messages(fields, 3)) if checked else ()
    types = {_number(entry, 1): _type(_fields(_message(entry, 2))) for entry in entries}
    return Tree(_node(_message(fields, 4 if checked else 2)), positions, types)


_PRIMITIVES = ("dyn", "bool", "int", "uint", "double", "string", "bytes")
_WELL_KNOWN = ("dyn", "dyn", "timestamp", "duration")
_TYPES = {2: "null", 6: "list", 7: "map", 9: "message", 11: "type", 14: "optional"}


def _type(fields: Fields) -> str:
    if 3 in fields:
        return _PRIMITIVES[_number(fields, 3)]
    if 5 in fields:
        return _WELL_KNOWN[_number(fields, 5)]
    return next((name for key, name in _TYPES.items() if key in fields), "dyn")


def serialized_part(serialized: bytes, node: Node) -> bytes:
    """The serialized expression below a node of `decode(serialized)`, with the types and the references of the whole."""
    envelope = _fields(serialized)
    fields = _fields(_message(envelope, 2))
    root = 4 if _text(envelope, 1).endswith("CheckedExpr") else 2
    fields[root] = [node.encoded]
    return _encode({1: envelope[1], 2: [_encode(fields)]})


_INNER = {5: (1,), 6: (1, 3), 7: (1,), 8: (2,), 9: (2, 4, 5, 6, 7)}
"""The fields of the inner expressions, or of the entries of a map, by the field of a kind of expression."""


def with_names(serialized: bytes, names: Mapping[int, str]) -> bytes:
    """The serialized expression with a name in place of each of these nodes, and `duration(x)` in place of `age(x)`."""
    envelope = _fields(serialized)
    fields = _fields(_message(envelope, 2))
    checked = _text(envelope, 1).endswith("CheckedExpr")
    root = 4 if checked else 2
    fields[root] = [_named(_message(fields, root), names)]
    if checked:
        fields[2] = [_reference(entry, names) for entry in _messages(fields, 2)]
    return _encode({1: envelope[1], 2: [_encode(fields)]})


def _reference(entry: bytes, names: Mapping[int, str]) -> bytes:
    fields = _fields(entry)
    name = names.get(_number(fields, 1))
    if name is not None:
        return _encode({1: fields[1], 2: [_encode({1: [name.encode()]})]})
    age = _text(_fields(_message(fields, 2)), 1) == "age" and 3 in _fields(_message(fields, 2))
    return _encode({1: fields[1], 2: [_encode({1: [b"duration"], 3: [b"string_to_duration"]})]}) if age else entry


def _named(data: bytes, names: Mapping[int, str]) -> bytes:
    fields = _fields(data)
    name = names.get(_number(fields, 2))
    if name is not None:
        return _encode({2: fields[2], 4: [_encode({1: [name.encode()]})]})
    for kind, places in _INNER.items():
        if kind in fields:
            inner = _fields(_message(fields, kind))
            for place in places:
                each = _named if kind != 8 else _named_entry
                inner |= {place: [each(part, names) for part in _messages(inner, place)]}
            if kind == 6 and _text(inner, 2) == "age" and not inner[1]:
                inner[2] = [b"duration"]
            fields[kind] = [_encode(inner)]
    return _encode(fields)


def _named_entry(data: bytes, names: Mapping[int, str]) -> bytes:
    fields = _fields(data)
    return _encode(fields | {key: [_named(part, names) for part in _messages(fields, key)] for key in (3, 4)})


def _encode(fields: Fields) -> bytes:
    """The message with these fields, of which none has a fixed width."""
    encoded = bytearray()
    for key, values in fields.items():
        for value in values:
            if isinstance(value, int):
                encoded += _encode_varint(key << 3 | _VARINT) + _encode_varint(value)
            else:
                encoded += _encode_varint(key << 3 | _BYTES) + _encode_varint(len(value)) + value
    return bytes(encoded)


def _encode_varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _node(data: bytes) -> Node:
    return _decoded(data)._replace(encoded=data)


def _decoded(data: bytes) -> Node:
    fields = _fields(data)
    id_ = _number(fields, 2)
    if 3 in fields:
        return Node(id_, "constant", value=_constant(_fields(_message(fields, 3))))
    if 4 in fields:
        return Node(id_, "name", _text(_fields(_message(fields, 4)), 1).removeprefix("."))
    if 5 in fields:
        select = _fields(_message(fields, 5))
        return Node(id_, "field", _text(select, 2), bool(_number(select, 3)), (_node(_message(select, 1)),))
    if 6 in fields:
        call = _fields(_message(fields, 6))
        nodes = tuple(map(_node, [*_messages(call, 1), *_messages(call, 3)]))
        return Node(id_, "call", _text(call, 2), nodes=nodes, member=1 in call)
    if 7 in fields:
        return Node(id_, "list", nodes=tuple(map(_node, _messages(_fields(_message(fields, 7)), 1))))
    if 8 in fields:
        return _map(id_, _fields(_message(fields, 8)))
    loop = _fields(_message(fields, 9))
    bound = tuple(name for name in (_text(loop, 1), _text(loop, 8), _text(loop, 3)) if name)
    return Node(id_, "loop", nodes=tuple(_node(_message(loop, key)) for key in (2, 4, 5, 6, 7)), bound=bound)


def _map(id_: int, fields: Fields) -> Node:
    name = _text(fields, 1)
    entries = [_fields(entry) for entry in _messages(fields, 2)]
    nodes = tuple(_node(_message(entry, key)) for entry in entries for key in (3, 4) if key in entry)
    return Node(id_, "message" if name else "map", name, nodes=nodes)


def _constant(fields: Fields) -> object:
    [key] = fields
    value = fields[key][-1]
    if isinstance(value, int):
        return {1: None, 2: bool(value), 3: value - (1 << 64) if value >> 63 else value, 4: Unsigned(value)}[key]
    if key == 5:
        return float(struct.unpack("<d", value)[0])
    return value.decode() if key == 6 else value


OPERATORS = {
    **{f"_{mark}_": mark for mark in ("||", "&&", "<", "<=", ">", ">=", "==", "!=", "+", "-", "*", "/", "%")},
    "@in": "in",
}
_BINDING = {mark: level for level, marks in enumerate((("||",), ("&&",), ("<", "<=", ">", ">=", "==", "!=", "in"), ("+", "-"),
                                                        ("*", "/", "%"))) for mark in marks}  # fmt: skip
_OPERAND = 9


def unparse(node: Node, binding: int = -1) -> str:
    """The text of a node, on one line, in brackets where it binds looser than `binding`. A loop is written as `...`."""
    if node.sort == "constant":
        return _literal(node.value)
    if node.sort == "name":
        return node.name
    if node.sort == "field":
        text = f"{unparse(node.nodes[0], _OPERAND)}.{node.name}"
        return f"has({text})" if node.value else text
    if node.sort == "call":
        return _unparse_call(node, binding)
    if node.sort == "list":
        return f"[{', '.join(map(unparse, node.nodes))}]"
    if node.sort == "map":
        texts = list(map(unparse, node.nodes))
        return "{" + ", ".join(f"{key}: {value}" for key, value in zip(texts[::2], texts[1::2], strict=True)) + "}"
    return "..."


def _unparse_call(node: Node, binding: int) -> str:
    mark, nodes = OPERATORS.get(node.name), node.nodes
    if mark and len(nodes) == 2:
        level = _BINDING[mark]
        text = f"{unparse(nodes[0], level)} {mark} {unparse(nodes[1], level + 1)}"
        return f"({text})" if level < binding else text
    if node.name == "_?_:_":
        text = f"{unparse(nodes[0], 0)} ? {unparse(nodes[1], 0)} : {unparse(nodes[2])}"
        return f"({text})" if binding >= 0 else text
    if node.name in ("!_", "-_"):
        return node.name[0] + unparse(nodes[0], _OPERAND)
    if node.name in ("_[_]", "_[?_]"):
        return f"{unparse(nodes[0], _OPERAND)}[{'?' * ('?' in node.name)}{unparse(nodes[1])}]"
    if node.name == "_?._":
        return f"{unparse(nodes[0], _OPERAND)}.?{nodes[1].value}"
    if node.member:
        return f"{unparse(nodes[0], _OPERAND)}.{node.name}({', '.join(map(unparse, nodes[1:]))})"
    return f"{_WRITTEN.get(node.name, node.name)}({', '.join(map(unparse, nodes))})"


_WRITTEN = {"math.@max": "math.greatest", "math.@min": "math.least"}
"""Functions that have another name where they are written: macros check the number of their arguments."""


def _literal(value: object) -> str:
    if isinstance(value, Unsigned):
        return f"{int(value)}u"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, bytes):
        return "b'" + "".join(f"\\x{byte:02x}" for byte in value) + "'"
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)[1:-1].replace("'", "\\'").replace('\\"', '"')
        return f"'{quoted}'"
    return repr(value)


MAX_FACTOR = 64
"""The factor by which `replace` and `join` can make a text longer, all together."""
MAX_BUILT_BYTES = 100_000_000
"""The estimate of the bytes built by the loops of an expression, above which it is not evaluated."""

_SCALARS = frozenset({"bool", "int", "uint", "double", "duration", "timestamp", "null"})
_BUILDERS = frozenset({"format", "reverse", "split", "lowerAscii", "upperAscii", "string", "bytes", "substring", "trim", "quote"})


class Growth(NamedTuple):
    """The growth that loops cause: the number of building parts, the factor by which they can multiply sizes, whether the values
    bound the steps, the variables that loops range over and read, the bytes of literals, and the variables of which the last sample
    is read.
    """

    builders: int
    factor: int
    unbounded: bool
    ranges: frozenset[str]
    bodies: frozenset[str]
    literal_bytes: int
    last: frozenset[str]


def check_factor(source: str, tree: Tree) -> None:
    """Raise `ExpressionError` for a `replace` or `join` that can make a text very long."""
    _factor(source, tree, tree.root)


def _factor(source: str, tree: Tree, node: Node) -> int:
    factor = max((_factor(source, tree, each) for each in node.nodes), default=1)
    if node.sort == "call" and node.member and node.name in ("replace", "join"):
        inserted = node.nodes[2:3] if node.name == "replace" else node.nodes[1:2]
        for each in inserted:
            if not isinstance(each.value, str):
                refuse(source, f"`{node.name}` needs the text that it inserts as a string literal", tree.start(each))
            factor *= 1 + len(each.value)
        if factor > MAX_FACTOR:
            refuse(
                source,
                f"`{node.name}` could make the text more than {MAX_FACTOR} times as long: shorten what it inserts",
                tree.start(node),
            )
    return factor


def growth(tree: Tree) -> Growth | None:
    """The growth that the loops cause; None if they build nothing."""
    loops = _Loops(tree)
    loops.visit(tree.root, inside=False)
    if not loops.builders:
        return None
    literal = sum(len(each.value) for each in tree.root.walk() if isinstance(each.value, str | bytes))
    last = frozenset(str(each.nodes[0].value) for each in tree.root.walk() if is_window(each) and each.name == "last")
    return Growth(loops.builders, loops.factor, loops.unbounded, frozenset(loops.ranges), frozenset(loops.bodies), literal, last)


class _Loops:
    """The loops of an expression. A loop can enlarge its items by the parts that build in its range and body."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._count = 0
        self.builders = 0
        self.factor = 1
        self.unbounded = False
        self.ranges: set[str] = set()
        self.bodies: set[str] = set()

    def visit(self, node: Node, *, inside: bool) -> int:
        """The parts that build below this node, outside of further loops."""
        if node.sort != "loop":
            own = _built(self._tree, node) if inside else 0
            return own + sum(self.visit(each, inside=inside) for each in node.nodes)
        loop_range, *body = node.nodes
        measured = is_path(loop_range)
        self._count += 1
        self.unbounded |= self._count > 1 or not measured
        (self.ranges if measured else self.bodies).update(each.name for each in loop_range.free())
        self.bodies |= {each.name for part in body for each in part.free(frozenset(node.bound))}
        own = sum(self.visit(each, inside=True) for each in node.nodes)
        self.builders += own
        self.factor *= 1 + own
        return 0


def _built(tree: Tree, node: Node) -> int:
    if node.sort in ("list", "map"):
        growing = [each for each in node.nodes if each.sort != "constant" and tree.types.get(each.id, "dyn") not in _SCALARS]
        return len(growing) if len(growing) > 1 else 0
    if node.sort != "call":
        return 0
    if node.name == "_+_":
        accumulates = node.nodes[0].name == "@result"
        kinds = {tree.types.get(each.id, "dyn") for each in (node, *node.nodes)}
        return 0 if accumulates or kinds & _SCALARS or any(isinstance(each.value, int | float) for each in node.nodes) else 1
    if node.name in ("replace", "join"):
        return MAX_FACTOR
    return int(node.name in _BUILDERS)


def is_path(node: Node) -> bool:
    """True for a name, and for fields and items of a name."""
    if node.sort == "field" or (node.sort == "call" and node.name in ("_[_]", "_[?_]", "_?._")):
        return is_path(node.nodes[0])
    return node.sort == "name"


def is_window(node: Node) -> bool:
    """True for a call of a function over samples."""
    return node.sort == "call" and node.name in WINDOW_FUNCTIONS and not node.member


def built_bytes(found: Growth, range_items: int, read_bytes: int) -> int:
    """An upper estimate of the bytes that loops build: from the items of the ranges, and the bytes that loops read."""
    iterations = MAX_ITERATIONS if found.unbounded else min(range_items, MAX_ITERATIONS)
    return found.builders * found.factor * iterations * (read_bytes + found.literal_bytes)


MOST_COMPARISONS = 16
MOST_VALUES = 16
MOST_BRACKETS = 4
"""The comparisons, operands of sums and nested brackets up to which a text is read without the library: well within its bounds."""

_SPACE = r"[ \t\n\f\r]*"
_READABLE = re.compile(NAME_PATTERN)
_NUMERAL = r"-?(?:[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]{1,3})?|[0-9]+[eE][+-]?[0-9]{1,3}|[0-9]{1,15})(?![\w.])"
_PLAIN_TEXT = r"""'[ !#-&(-\[\]-~]*'|"[ !#-&(-\[\]-~]*\""""
_CONSTANT = f"{_NUMERAL}|{_PLAIN_TEXT}"
_MARK = "<=|>=|==|!=|<|>"
_VARIABLE = r"[A-Za-z_]\w*"
_COMPARISON = re.compile(
    rf"(?:({_VARIABLE}){_SPACE}({_MARK}){_SPACE}({_CONSTANT})|({_CONSTANT}){_SPACE}({_MARK}){_SPACE}({_VARIABLE}))"
    rf"{_SPACE}(?=&&|\|\||\)|\Z)",
    re.ASCII,
)
_VALUE = re.compile(rf"(?:({_VARIABLE})|({_NUMERAL})){_SPACE}", re.ASCII)
_COMPARED = re.compile(rf"({_MARK}){_SPACE}")
_ADDED = re.compile(rf"([-+]){_SPACE}")
_MULTIPLIED = re.compile(rf"(\*){_SPACE}")
_OPENING = re.compile(rf"(!?)\({_SPACE}")
_CLOSING = re.compile(rf"\){_SPACE}")
_JOINT = re.compile(rf"(&&|\|\|){_SPACE}")


class _NotComparisons(Exception):
    """The text has something else."""


def read_comparisons(source: str) -> Node | None:
    """The tree of comparisons, joined by `&&`, `||`, `!` and brackets: of a variable with a number or a text, of two variables, or
    of sums and products of variables and doubles.

    None for any other text, valid or not, and for a text that is close to a bound: the library decides about it. The nodes have no
    serialized form. Numbers are finite, and ints are exact as doubles.
    """
    reader = _ComparisonReader(source)
    try:
        return reader.read()
    except _NotComparisons:
        return None


class _ComparisonReader:
    """A reader by recursive descent."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._nodes = 0
        self._comparisons = 0
        self._values = 0

    def read(self) -> Node:
        """The whole text."""
        self._at = len(self._source) - len(self._source.lstrip(" \t\n\f\r"))
        root = self._any(0)
        if self._at != len(self._source):
            raise _NotComparisons
        return root

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._source, self._at)
        if found:
            self._at = found.end()
        return found

    def _any(self, depth: int) -> Node:
        """Parts joined by `||`, which binds looser than `&&`."""
        choices, parts = list[Node](), [self._part(depth)]
        while joint := self._take(_JOINT):
            if joint[1] == "||":
                choices.append(self._joined("_&&_", parts))
                parts = []
            parts.append(self._part(depth))
        return self._joined("_||_", [*choices, self._joined("_&&_", parts)])

    def _joined(self, name: str, parts: Sequence[Node]) -> Node:
        """A balanced tree, as of the library."""
        if len(parts) == 1:
            return parts[0]
        middle = (len(parts) + 1) // 2
        return self._call(name, self._joined(name, parts[:middle]), self._joined(name, parts[middle:]))

    def _part(self, depth: int) -> Node:
        if opening := self._take(_OPENING):
            if depth == MOST_BRACKETS:
                raise _NotComparisons
            inner = self._any(depth + 1)
            if not self._take(_CLOSING):
                raise _NotComparisons
            return self._call("!_", inner) if opening[1] else inner
        self._comparisons += 1
        if self._comparisons > MOST_COMPARISONS:
            raise _NotComparisons
        found = self._take(_COMPARISON)
        if not found:
            return self._calculated()
        name, mark, right, left, reverse, second = found.groups()
        if name:
            return self._call(f"_{mark}_", self._name(name), self._constant(right))
        return self._call(f"_{reverse}_", self._constant(left), self._name(second))

    def _calculated(self) -> Node:
        """A comparison of variables, or of sums and products."""
        left, mark = self._sum(), self._take(_COMPARED)
        if not mark:
            raise _NotComparisons
        found = self._call(f"_{mark[1]}_", left, self._sum())
        if not any(found.free()) or any(isinstance(each.value, int) for each in found.walk()):
            raise _NotComparisons
        return found

    def _sum(self) -> Node:
        found = self._product()
        while sign := self._take(_ADDED):
            found = self._call(f"_{sign[1]}_", found, self._product())
        return found

    def _product(self) -> Node:
        found = self._value()
        while self._take(_MULTIPLIED):
            found = self._call("_*_", found, self._value())
        return found

    def _value(self) -> Node:
        found = self._take(_VALUE)
        self._values += 1
        if not found or self._values > MOST_VALUES:
            raise _NotComparisons
        return self._name(found[1]) if found[1] else self._constant(found[2])

    def _call(self, name: str, *nodes: Node) -> Node:
        self._nodes += 1
        return Node(self._nodes, "call", name, nodes=nodes)

    def _name(self, name: str) -> Node:
        if name in TYPE_NAMES or not _READABLE.match(name):
            raise _NotComparisons
        self._nodes += 1
        return Node(self._nodes, "name", name)

    def _constant(self, text: str) -> Node:
        self._nodes += 1
        if text[0] in "'\"":
            return Node(self._nodes, "constant", value=text[1:-1])
        value = int(text) if text.lstrip("-").isdigit() else float(text)
        if not math.isfinite(value):
            raise _NotComparisons
        return Node(self._nodes, "constant", value=value)
