"""The check of an expression where it is written: what can never be decided is refused, with the place and the fix.

The type checker of the library sees variables as `dyn`, so it accepts every use of them. A measurement is a double, text, bool,
list or map, and never an int. So each call with a measured argument is given to the type checker again with a value of each of
these kinds; a call that takes none of them can never work.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence

from constraint_crdt.expression.cel import environment, refuse
from constraint_crdt.expression.growth import is_path
from constraint_crdt.expression.refusals import describe, failure, quote
from constraint_crdt.expression.syntax import OPERATORS, Node, Tree, unparse

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
_COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!="})


def check_tree(source: str, tree: Tree, kinds: Mapping[str, str]) -> None:
    """Raise `ExpressionError` for a checked expression that cannot be decided by any measurement, given the kinds of some."""
    root = tree.root
    kind = tree.types.get(root.id, "dyn")
    if kind not in ("bool", "dyn"):
        refuse(source, f"this gives {describe(kind)}, and a constraint needs a bool such as `x < 85`", tree.start(root))
    for node in root.walk():
        if node.sort == "message":
            refuse(source, f"{quote(node.name)} is a message, which a constraint cannot use", tree.start(node))
        if node.sort == "constant" and node.value in (float("inf"), float("-inf")):
            refuse(source, "this number is too large for a double", tree.start(node))
        if node.sort == "call":
            _check_constants(source, tree, node)
    for node, bound in _calls(root, frozenset()):
        _check_measured(source, tree, node, bound, kinds)
    if not any(root.free()):
        _check_decided(source)


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
    """True if the value can only be a measurement, or a part of one."""
    if is_path(node):
        name = next(each for each in _leftmost(node) if each.sort == "name").name
        return name not in loops and name != "@result"
    return (
        node.sort == "call"
        and node.name in ("_+_", "_-_", "_*_", "_/_", "-_")
        and all(_is_measured(each, loops) for each in node.nodes)
    )


def _leftmost(node: Node) -> Iterator[Node]:
    while True:
        yield node
        if not node.nodes:
            return
        node = node.nodes[0]


def _check_measured(source: str, tree: Tree, node: Node, loops: frozenset[str], known: Mapping[str, str]) -> None:
    measured = [tree.types.get(each.id, "dyn") == "dyn" and _is_measured(each, loops) for each in node.nodes]
    kinds = [tree.types.get(each.id, "dyn") for each in node.nodes]
    if not any(measured) or not _readable(node) or node.name == "@in":
        return
    mark = OPERATORS.get(node.name)
    if mark in _COMPARISONS:  # numbers are one line for comparisons of dynamic values
        kinds = ["double" if kind in ("int", "uint") else kind for kind in kinds]
    choices = [
        ((known[each.name],) if each.sort == "name" and each.name in known else _MEASURED) if is_measured else (kind,)
        for each, is_measured, kind in zip(node.nodes, measured, kinds, strict=True)
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
    ints = _as_ints(node, measured, choices)
    if ints:
        refuse(source, f"`{mark or node.name}` is for ints ({_DOUBLES}): write `{unparse(ints)}`", start)
    given = " and ".join(describe(each[0] if len(each) == 1 else "dyn") for each in choices)
    refuse(source, f"`{mark or node.name}` does not take {given}", start)


def _takes_any(node: Node, choices: Sequence[Sequence[str]]) -> bool:
    return any(_takes(node.name, node.member, kinds) for kinds in itertools.product(*choices))


def _as_ints(node: Node, measured: Sequence[bool], choices: Sequence[Sequence[str]]) -> Node | None:
    """The call with `int()` around the measured arguments, all or one of them, if it is taken then."""
    every = frozenset(index for index, of in enumerate(measured) if of)
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
    if not _readable(node) or not node.nodes or not all(each.sort == "constant" for each in node.nodes):
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
    return failure(str(value.plain_value())) if value.type() == library.error_type else ""
