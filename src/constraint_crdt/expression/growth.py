"""Bounds on the text and the lists that an expression builds.

The library bounds the steps of macros, not the memory of their results. Text that is joined in a loop, `replace` inside `replace`,
or lists of lists that loops nest could take gigabytes from an expression of 1 KiB. `replace` and `join` take short literals only;
for an expression that builds in loops, `Growth` gives an upper estimate from the sizes of the values measured.
"""

from typing import NamedTuple

from constraint_crdt.expression.cel import MAX_ITERATIONS, refuse
from constraint_crdt.expression.syntax import Node, Tree

MAX_FACTOR = 64
"""The factor by which `replace` and `join` can make a text longer, all together."""
MAX_BUILT_BYTES = 100_000_000
"""The estimate of the bytes built by the loops of an expression, above which it is not evaluated."""

_SCALARS = frozenset({"bool", "int", "uint", "double", "duration", "timestamp", "null"})
_BUILDERS = frozenset({"format", "reverse", "split", "lowerAscii", "upperAscii", "string", "bytes", "substring", "trim", "quote"})


class Growth(NamedTuple):
    """What loops build: the number of building parts, the factor by which they can multiply sizes, whether the values bound the
    steps, the variables that loops range over and read, and the bytes of literals.
    """

    builders: int
    factor: int
    unbounded: bool
    ranges: frozenset[str]
    bodies: frozenset[str]
    literal_bytes: int


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
    """What the loops build; None if they build nothing."""
    loops = _Loops(tree)
    loops.visit(tree.root, inside=False)
    if not loops.builders:
        return None
    literal = sum(len(each.value) for each in tree.root.walk() if isinstance(each.value, str | bytes))
    return Growth(loops.builders, loops.factor, loops.unbounded, frozenset(loops.ranges), frozenset(loops.bodies), literal)


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
    """True for a name, and for fields and items of one."""
    if node.sort == "field" or (node.sort == "call" and node.name in ("_[_]", "_[?_]", "_?._")):
        return is_path(node.nodes[0])
    return node.sort == "name"


def built_bytes(found: Growth, range_items: int, read_bytes: int) -> int:
    """An upper estimate of the bytes that loops build: from the items of the ranges, and the bytes of what loops read."""
    iterations = MAX_ITERATIONS if found.unbounded else min(range_items, MAX_ITERATIONS)
    return found.builders * found.factor * iterations * (read_bytes + found.literal_bytes)
