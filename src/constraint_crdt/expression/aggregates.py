"""Constraints of scope fleet: expressions over `nodes`, the nodes of the fleet that a definition selects. Pure.

Each node of `nodes` has `name`, `labels`, `live`, `position`, and its shared readings as fields. Rules kept here:

- A part that loops over nodes is an *aggregate*: `count(nodes, n, …)` and its like, `nodes.all(n, …)`,
  `nodes.exists(n, …)`, and `size` of `nodes` or of `nodes.filter(n, …)`. `fleet_view` computes the value from that of the body for
  each node, and the evaluation has a variable with it. So the cost is that of the moved nodes, not of the fleet, and an aggregate
  uses no step of the budget of macros. The evaluator never frees the arguments of a function of Python, so none is called.
- What an aggregate reads of each node is a *column*. Aggregates with the same filters and the same body share it, and so do those
  that compare the same reading with different thresholds: the column has the reading, in order, and the threshold is looked up.
- Other macros over `nodes` are evaluated as they are, over the whole list, within the budget.
- An aggregate has a direction: whether a higher value helps the expression. `fleet_view` needs it where readings are missing.
"""

import functools
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeGuard

from constraint_crdt.errors import InvalidType
from constraint_crdt.expression.cel import (
    FLEET_FUNCTIONS,
    MAX_ITERATIONS,
    ExpressionError,
    environment,
    refuse,
)
from constraint_crdt.expression.check import quote
from constraint_crdt.expression.evaluation import (
    COMPILED_EXPRESSIONS_KEPT,
    NO_KINDS,
    Expression,
    compile_expression,
    parse_expression,
)
from constraint_crdt.expression.syntax import Node, Tree, decode, is_window, serialized_part, unparse, with_names
from constraint_crdt.model import Scope
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.parameters import PARAM, parameters_of
from constraint_crdt.types.variables import FACTS

if TYPE_CHECKING:
    from cel_expr_python import cel

NODES: Final = "nodes"
"""The variable of an expression over the fleet."""

_WRITTEN_BYTES: Final = 64


# --- aggregates ----------------------------------------------------------------------------------------------------------


class Activated(Protocol):
    """A node of the fleet, in the library's own form."""

    @property
    def values(self) -> Mapping[str, object]:
        """The fields."""

    def activation(self, variable: str) -> "cel.Activation":
        """The node as this variable."""


class _Body(NamedTuple):
    """An expression about one node."""

    variable: str
    node: Node


class _Aggregate(NamedTuple):
    """A part of an expression that loops over the nodes."""

    function: str
    """A name of `FLEET_FUNCTIONS`, `size`, `all` or `exists`."""
    filters: tuple[_Body, ...]
    body: _Body | None
    fraction: float = 0.0

    @property
    def text(self) -> str:
        """As it could be written."""
        text = NODES
        for variable, node in self.filters:
            text += f".filter({variable}, {unparse(node)})"
        if self.body is None:
            return f"{text}.size()"
        variable, node = self.body
        if self.function in ("all", "exists"):
            return f"{text}.{self.function}({variable}, {unparse(node)})"
        last = f", {self.fraction!r}" if self.function == "quantile" else ""
        return f"{self.function}({text}, {variable}, {unparse(node)}{last})"


def _names_nodes(node: Node) -> bool:
    return any(each.name == NODES for each in node.free())


def _loop(node: Node) -> tuple[str, _Body] | None:
    """The macro of a loop with its body: all, exists or filter; else None."""
    if node.sort != "loop" or len(node.bound) != 2:
        return None
    (_, _, _, step, result), (variable, total) = node.nodes, node.bound
    if result.sort != "name" or result.name != total or step.sort != "call":
        return None
    if step.name in ("_&&_", "_||_") and step.nodes[0].name == total:
        return ("all" if step.name == "_&&_" else "exists"), _Body(variable, step.nodes[1])
    if step.name == "_?_:_" and step.nodes[1].name == "_+_" and step.nodes[2].name == total:
        item = step.nodes[1].nodes[1]
        if item.sort == "list" and [each.name for each in item.nodes] == [variable] and item.nodes[0].sort == "name":
            return "filter", _Body(variable, step.nodes[0])
    return None


def _chain(node: Node) -> tuple[_Body, ...] | None:
    """The filters of `nodes.filter(…).filter(…)`; None for anything else."""
    if node.sort == "name":
        return () if node.name == NODES else None
    found = _loop(node)
    if found is None or found[0] != "filter" or not _is_about_one(found[1]):
        return None
    inner = _chain(node.nodes[0])
    return None if inner is None else (*inner, found[1])


def _is_about_one(body: _Body) -> bool:
    """True if the body reads the node of its variable, and nothing else."""
    return all(each.name == body.variable for each in body.node.free())


def _aggregate(node: Node) -> _Aggregate | None:
    """The aggregate that a node of the tree is; None for any other part."""
    if node.sort == "call" and node.name == "size" and len(node.nodes) == 1:
        filters = _chain(node.nodes[0])
        return None if filters is None else _Aggregate("size", filters, None)
    if node.sort == "call" and node.name in FLEET_FUNCTIONS and not node.member:
        given = dict(zip(FLEET_FUNCTIONS[node.name], node.nodes, strict=False))
        if (
            len(given) != len(FLEET_FUNCTIONS[node.name])
            or len(given) != len(node.nodes)
            or given["node"].sort != "name"
            or given["node"].name == NODES
        ):
            return None
        body = _Body(given["node"].name, node.nodes[2])
        fraction, filters = given["fraction"].value if "fraction" in given else 0.0, _chain(given["nodes"])
        if filters is None or not _is_about_one(body) or not isinstance(fraction, float) or not 0 <= fraction <= 1:
            return None
        return _Aggregate(node.name, filters, body, fraction)
    found = _loop(node)
    if found is not None and found[0] != "filter" and _is_about_one(found[1]):
        filters = _chain(node.nodes[0])
        return None if filters is None else _Aggregate(found[0], filters, found[1])
    return None


_Found = dict[int, tuple[_Aggregate, int]]
"""Aggregates by the id of the node, with their direction: 1 where more helps the expression, -1 where less does, 0 for neither."""


def _find(node: Node, direction: int, found: _Found) -> None:
    """Find the aggregates below a node of the tree. `direction`: whether a higher value of the node helps the expression."""
    aggregate = _aggregate(node)
    if aggregate is not None:
        found[node.id] = aggregate, direction
        return
    name, nodes = node.name, node.nodes
    if node.sort != "call":
        directions = [0] * len(nodes)
    elif name in ("_&&_", "_||_", "_+_"):
        directions = [direction] * len(nodes)
    elif name in ("double", "int", "dyn"):
        directions = [direction]
    elif name in ("!_", "-_"):
        directions = [-direction]
    elif name == "_-_":
        directions = [direction, -direction]
    elif name in ("_<_", "_<=_"):
        directions = [-direction, direction]
    elif name in ("_>_", "_>=_"):
        directions = [direction, -direction]
    elif name in ("_*_", "_/_"):
        directions = [direction if _is_positive(nodes[1]) else 0, direction if name == "_*_" and _is_positive(nodes[0]) else 0]
    elif name == "_?_:_":
        directions = [0, direction, direction]
    else:
        directions = [0] * len(nodes)
    for each, of in zip(nodes, directions, strict=True):
        _find(each, of, found)


def _is_positive(node: Node) -> bool:
    return isinstance(node.value, int | float) and not isinstance(node.value, bool) and node.value > 0


def _paths(node: Node, variables: frozenset[str]) -> Iterator[tuple[str, ...]]:
    """The fields that an expression reads of these variables, as paths; an empty path for a variable that is used as a whole."""
    path: list[str] = []
    inner = node
    while True:
        if inner.sort == "field":
            path.append(inner.name)
        elif inner.name in ("_?._", "_[_]", "_[?_]") and isinstance(inner.nodes[1].value, str):
            path.append(inner.nodes[1].value)
        else:
            break
        inner = inner.nodes[0]
    if inner.sort == "name" and inner.name in variables:
        yield tuple(reversed(path))
        return
    for each in inner.nodes:
        yield from _paths(each, variables)


Quick = Callable[[Mapping[str, object]], object]
"""A body in Python, over the fields of a node: a bool or a double as CEL has it, or None where CEL has to be asked."""

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "_<_": operator.lt, "_<=_": operator.le, "_>_": operator.gt, "_>=_": operator.ge, "_==_": operator.eq, "_!=_": operator.ne,
}  # fmt: skip
_COMPUTE: Mapping[str, Callable[[float, float], float]] = {"_+_": operator.add, "_-_": operator.sub, "_*_": operator.mul}


def quick(node: Node, variable: str) -> Quick | None:
    """The body in Python, a tenth of the time; None for a body with parts beyond bools, doubles and their comparisons.

    Doubles of Python and CEL follow the same standard. Anything else than a double or bool in a field is left to CEL. An expression
    whose aggregates have names in place reads these like fields; a count is an int.
    """
    nodes = node.nodes
    if node.sort == "constant":
        return _quick_constant(node.value)
    if _is_field(node, variable):
        return _quick_field(node.name, test=bool(node.value))
    if node.sort == "name" and node.name.startswith(_PLACED):
        return _quick_placed(node.name)
    if node.sort != "call":
        return None
    if node.name == "dyn":
        return quick(nodes[0], variable)
    parts = [quick(each, variable) for each in nodes]
    if not all(parts) or len(parts) > 2:
        return None
    one, other = parts[0], parts[-1]
    if one is None or other is None:
        return None
    if node.name == "!_":
        return lambda fields: not found if isinstance(found := one(fields), bool) else None
    if node.name in ("_&&_", "_||_"):
        return _quick_logic(one, other, decides=node.name == "_||_")
    if node.name in _COMPARE:
        left, right = nodes
        if left.sort == "field" and not left.value and _is_number(right.value):
            return _quick_threshold(_COMPARE[node.name], left.name, float(right.value))
        return _quick_numbers(_COMPARE[node.name], one, other, (float, int))
    return _quick_numbers(_COMPUTE[node.name], one, other, (float,)) if node.name in _COMPUTE else None


_PLACED: Final = "@"
"""The begin of the name of an aggregate, which no name of CEL has."""


def _is_field(node: Node, variable: str) -> bool:
    """True for `n.x` and `has(n.x)` of this variable."""
    return node.sort == "field" and node.nodes[0].sort == "name" and node.nodes[0].name == variable


def _is_number(value: object) -> TypeGuard[int | float]:
    """True for a number that a double has exactly."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 1 << 53)


def _quick_constant(value: object) -> Quick | None:
    if not isinstance(value, bool) and not _is_number(value):
        return None
    return lambda _: value


def _quick_threshold(compare: Callable[[float, float], bool], name: str, threshold: float) -> Quick:
    def compared(fields: Mapping[str, object]) -> object:
        found = fields.get(name)
        return compare(found, threshold) if type(found) is float else None

    return compared


def _quick_field(name: str, *, test: bool) -> Quick:
    if test:
        return lambda fields: name in fields
    return lambda fields: found if type(found := fields.get(name)) is float or isinstance(found, bool) else None


def _quick_placed(name: str) -> Quick:
    return lambda values: values.get(name)


def _quick_logic(one: Quick, other: Quick, *, decides: bool) -> Quick:
    def logic(fields: Mapping[str, object]) -> object:
        left = one(fields)
        if left is decides:
            return left
        right = other(fields)
        return right if isinstance(right, bool) and (right is decides or isinstance(left, bool)) else None

    return logic


def _quick_numbers(combine: Callable[[Any, Any], object], one: Quick, other: Quick, kinds: tuple[type, ...]) -> Quick:
    def numbers(fields: Mapping[str, object]) -> object:
        left, right = one(fields), other(fields)
        return combine(left, right) if type(left) in kinds and type(right) in kinds else None

    return numbers


class Program:
    """A body. CEL compiles it when it is first asked."""

    __slots__ = ("_body", "_field", "_program", "_quick", "_serialized", "form")

    def __init__(self, serialized: bytes, body: _Body) -> None:
        """`serialized`: the expression that the body is in."""
        self._serialized = serialized
        self._body = body
        self._program: cel.Expression | None = None
        self._quick = quick(body.node, body.variable)
        self._field = body.node.name if _is_field(body.node, body.variable) and not body.node.value else None
        """The field that the body is. Where that is no double or bool, CEL has a text or a map, or an error."""
        self.form: Hashable = (body.variable, _form(body.node))
        """Equal for bodies that are equal as written."""

    def value(self, entry: Activated) -> bool | float | None:
        """The value for a node: a bool or number; None for an error, and for any other value."""
        if self._field is not None:
            found = entry.values.get(self._field)
            return found if type(found) is float or type(found) is bool else None
        if self._quick is not None:
            found = self._quick(entry.values)
            if found is True or found is False or type(found) is float:
                return found
            if type(found) is int:
                return float(found)
        return self.value_of_library(entry)

    def value_of_library(self, entry: Activated) -> bool | float | None:
        """The same, by CEL."""
        if self._program is None:
            self._program = environment().deserialize(serialized_part(self._serialized, self._body.node))
        try:
            value = self._program.eval(entry.activation(self._body.variable)).value()
        except (RuntimeError, TypeError):
            return None
        if value is True or value is False or type(value) is float:
            return value
        return float(value) if isinstance(value, int) else None


def _form(node: Node) -> Hashable:
    """Equal for nodes of two expressions that are equal as written; loops, maps and messages also have to have the same ids."""
    if node.sort in ("loop", "map", "message"):
        return node.encoded
    return node.sort, node.name, type(node.value), repr(node.value), node.member, tuple(map(_form, node.nodes))


class Column(NamedTuple):
    """What an aggregate reads of each node: the value of a body, of the nodes that pass filters."""

    filters: tuple[Program, ...] = ()
    body: Program | None = None
    fields: frozenset[str] | None = frozenset()
    """The top-level fields of a node that it reads; None: any."""

    @property
    def form(self) -> Hashable:
        """Equal for columns that aggregates can share."""
        return tuple(each.form for each in self.filters), self.body and self.body.form, self.fields


class Threshold(NamedTuple):
    """A number that the values of a column are compared with."""

    operator: str
    number: float

    def holds(self, value: object) -> bool | None:
        """Compare a value; None for no number, of which CEL has an error."""
        return _COMPARE[self.operator](value, self.number) if type(value) is float else None

    def count(self, ordered: Sequence[float]) -> int:
        """The number of these ordered numbers that hold."""
        find = bisect_left if self.operator in ("_<_", "_>=_") else bisect_right
        below = find(ordered, self.number)
        return below if self.operator in ("_<_", "_<=_") else len(ordered) - below


_MIRRORED: Mapping[str, str] = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_"}
"""The operators of thresholds, as written from the other side."""


def _threshold(node: Node, variable: str) -> tuple[Node, Threshold] | None:
    """The field and the threshold of a comparison like `n.x < 20.0`; None for any other node."""
    if node.sort != "call" or node.name not in _MIRRORED:
        return None
    left, right = node.nodes
    name = node.name
    if left.sort == "constant":
        left, right, name = right, left, _MIRRORED[name]
    if not _is_field(left, variable) or left.value or not _is_number(right.value):
        return None
    return left, Threshold(name, float(right.value))


def _conjuncts(node: Node) -> list[Node]:
    return [part for each in node.nodes for part in _conjuncts(each)] if node.name == "_&&_" else [node]


class Part(NamedTuple):
    """A compiled aggregate."""

    name: str
    """Of its variable in the evaluation."""
    text: str
    function: str
    fraction: float
    direction: int
    column: Column
    threshold: Threshold | None
    """What the values of the column are compared with: the result is the condition that the function is about."""


def _part(name: str, aggregate: _Aggregate, direction: int, serialized: bytes) -> Part:
    filters, body, threshold = _as_column(aggregate)
    column = Column(
        tuple(Program(serialized, each) for each in filters),
        None if body is None else Program(serialized, body),
        _fields_of([*filters, body] if body is not None else filters),
    )
    return Part(name, cut(aggregate.text), aggregate.function, aggregate.fraction, direction, column, threshold)


def _as_column(aggregate: _Aggregate) -> tuple[Sequence[_Body], _Body | None, Threshold | None]:
    """The filters and the body of the column that an aggregate reads, and what it compares the values with.

    The last filter of `size` is the condition of a count. In a count, `a && b` holds for the nodes that pass the filter `a` and for
    which `b` holds, with unknown parts as well: so the parts beside a threshold are filters.
    """
    filters, body = aggregate.filters, aggregate.body
    if aggregate.function == "size" and filters:
        filters, body = filters[:-1], filters[-1]
    if body is None or aggregate.function not in CONDITIONS:
        return filters, body, None
    parts = [body.node] if aggregate.function in ("all", "share_of") else _conjuncts(body.node)
    for place, node in enumerate(parts):
        found = _threshold(node, body.variable)
        if found is not None:
            field, threshold = found
            others = [_Body(body.variable, each) for each in parts[:place] + parts[place + 1 :]]
            return [*filters, *others], _Body(body.variable, field), threshold
    return filters, body, None


CONDITIONS: Final = frozenset({"size", "count", "share_of", "all", "exists"})
"""The functions about a condition; the other ones are about values."""


class FleetExpression:
    """A compiled `when` or `clear_when` of scope fleet. Raises nothing once it is made."""

    def __init__(self, source: str) -> None:
        """Raises `ExpressionError` for a text that is no expression over nodes."""
        compiled = compile_expression(source, checked=False)
        serialized = compiled.serialized
        tree = decode(serialized)
        found: _Found = {}
        _find(tree.root, 1, found)
        misused = next(_misused(tree.root, found), None)
        if misused is not None:
            raise ExpressionError(_why_misused(misused))
        names = {id_: f"{_PLACED}{id_}" for id_ in found}
        program = environment().deserialize(with_names(serialized, names) if names else serialized)
        self.source = source
        self.parts = tuple(_part(names[id_], each, direction, serialized) for id_, (each, direction) in found.items())
        rest = decode(program.serialize()).root
        self.native = _names_nodes(rest)
        """True if the whole list is needed: for macros that are no aggregates."""
        variables = frozenset(each.name for each in rest.free() if each.name == NODES) | frozenset(names.values())
        self.expression = Expression(f"over nodes: {source}", variables, program)
        self.quick = None if self.native else quick(rest, "")
        """The expression in Python, over the values of the parts."""
        self.needs = self.variables = _needs(tree.root)
        """The variables that nodes have to share, as names with points."""
        self.fields = _fields_read(self.parts, self.native, rest)
        self._rest = rest

    def steps(self, nodes: int) -> int:
        """The steps of macros that an evaluation over so many nodes takes at most; lists of other origin count as a single item."""
        return _steps(self._rest, nodes, frozenset())

    def __repr__(self) -> str:
        return f"FleetExpression({self.source!r})"


def _no_bools(root: Node) -> Iterator[Node]:
    """The conditions in an expression over nodes that are a node as a whole, or a field of a node that is never a bool."""
    conditions, variables = [root], set[str]()
    for each in root.walk():
        loop = _loop(each)
        if loop is not None:
            variables.add(loop[1].variable)
            conditions.append(loop[1].node)
        elif _is_helper(each) and "condition" in FLEET_FUNCTIONS[each.name] and len(each.nodes) > 2:
            variables.add(each.nodes[1].name)
            conditions.append(each.nodes[2])
    for each in conditions:
        is_fact = each.sort == "field" and each.name in FACTS - {"live"} and not each.value
        of = each.nodes[0] if is_fact else each
        is_item = of.sort == "call" and of.name == "_[_]" and of.nodes[0].name == NODES
        if is_item or (of.sort == "name" and of.name in variables):
            yield each


def _is_helper(node: Node) -> bool:
    return node.sort == "call" and node.name in FLEET_FUNCTIONS and not node.member


def _misused(node: Node, found: _Found) -> Iterator[Node]:
    """The calls of functions over nodes that are no aggregates."""
    if node.id in found:
        for each in node.nodes[1:]:
            yield from filter(_is_helper, each.walk())
    elif _is_helper(node):
        yield node
    else:
        for each in node.nodes:
            yield from _misused(each, found)


def _why_misused(node: Node) -> str:
    """Why a call of a function over nodes is none that can be evaluated."""
    wanted = FLEET_FUNCTIONS[node.name]
    form = f"{node.name}(nodes, n, {'n.battery_percent < 20.0' if 'condition' in wanted else 'n.battery_percent'}"
    form = f"write `{form}{', 0.95' * (node.name == 'quantile')})`"
    if len(node.nodes) != len(wanted):
        return f"`{node.name}` takes {len(wanted)} arguments: {form}"
    given = dict(zip(wanted, node.nodes, strict=True))
    if given["node"].sort != "name" or given["node"].name == NODES:
        return f"`{node.name}` needs a name for a node as its second argument: {form}"
    if _chain(given["nodes"]) is None:
        return f"`{node.name}` goes through `nodes` or `nodes.filter(n, ...)`: {form}"
    if not _is_about_one(_Body(given["node"].name, node.nodes[2])):
        return f"`{node.name}` looks at one node at a time, and reads only `{given['node'].name}` here: use macros for more"
    return f"the fraction of `{node.name}` is a number literal from 0.0 to 1.0: {form}"


def cut(text: str) -> str:
    data = text.encode()
    return text if len(data) <= _WRITTEN_BYTES else data[: _WRITTEN_BYTES - 3].decode(errors="ignore") + "..."


def _fields_of(bodies: Iterable[_Body]) -> frozenset[str] | None:
    paths = [path for body in bodies for path in _paths(body.node, frozenset({body.variable}))]
    return frozenset(path[0] for path in paths) if all(paths) else None


def _fields_read(parts: Iterable[Part], native: bool, rest: Node) -> frozenset[str] | None:
    found: set[str] = set()
    for each in parts:
        if each.column.fields is None:
            return None
        found |= each.column.fields
    if native:
        bound = frozenset(name for each in rest.walk() if each.sort == "loop" for name in each.bound[:-1])
        paths = [*_paths(rest, bound)]
        return None if not all(paths) else frozenset(found | {path[0] for path in paths})
    return frozenset(found)


def _needs(root: Node) -> frozenset[str]:
    bound = {name for each in root.walk() if each.sort == "loop" for name in each.bound[:-1]}
    bound |= {each.nodes[1].name for each in root.walk() if _is_helper(each) and len(each.nodes) > 2}
    return frozenset(".".join(path) for path in _paths(root, frozenset(bound)) if path and path[0] not in FACTS)


@functools.lru_cache(maxsize=1024)
def _needed(source: str) -> frozenset[str]:
    try:
        return FleetExpression(source).needs
    except ExpressionError:
        return frozenset()


def needs_of(definition: Definition) -> frozenset[str]:
    """The variables that nodes have to share for a definition of scope fleet; none for another, and of a later version."""
    if definition.scope is not Scope.FLEET or definition.meaning:
        return frozenset()
    return frozenset[str]().union(*(_needed(text) for text in (definition.when, definition.clear_when) if text))


def _steps(node: Node, nodes: int, lists: frozenset[str]) -> int:
    if node.sort != "loop":
        return sum(_steps(each, nodes, lists) for each in node.nodes)
    over, *body = node.nodes
    items = nodes if _names_nodes(over) else 1
    return _steps(over, nodes, lists) + items * (1 + sum(_steps(each, nodes, lists) for each in body))


# --- the check where an expression is written ----------------------------------------------------------------------------


def compile_written(
    source: str,
    scope: str = Scope.NODE,
    kinds: Mapping[str, str] = NO_KINDS,
    nodes: int = 0,
    bind: Callable[[str], str] = lambda source: source,
) -> Expression | FleetExpression:
    """Check and compile an expression where it is written. `nodes`: those that it is about now. `bind`: gives the text with the
    values of the parameters in place of their names, which is checked as well.

    Raises `ExpressionError` as `compile_expression` does, for parameters without a name, for functions over nodes in scope node,
    and in scope fleet for what is no expression over nodes, and for one that takes too many steps.
    """
    if PARAM in source:
        _check_parameters(source)
    bound = bind(source) if parameters_of(source) else source
    if bound != source and (scope == Scope.FLEET or compile_expression(source, kinds=kinds)):
        try:
            compile_written(bound, scope, kinds, nodes)
        except ExpressionError as error:
            raise ExpressionError(f"with the parameters as they are now ({bound}): {error}") from None
    if scope != Scope.FLEET:
        compiled = compile_expression(source, kinds=kinds)
        helper = None if compiled.is_comparisons else _find_helper(source)
        if helper is not None:
            refuse(source, f"`{helper[0]}` is for constraints on the fleet: add `scope` fleet", helper[1])
        return compiled
    if unset := parameters_of(bound):
        raise ExpressionError(f"the parameter {unset[0]} has no value here, which a constraint on the fleet needs: set it first")
    source = bound
    compile_expression(source, checked=False)
    _check_form(source, parse_expression(source))
    compile_expression(source, kinds={NODES: "list"})
    expression = FleetExpression(source)
    steps = expression.steps(nodes)
    if steps > MAX_ITERATIONS:
        raise ExpressionError(
            f"over {nodes} nodes the macros take {steps} steps, more than the {MAX_ITERATIONS} of an evaluation: "
            "use `count(nodes, n, ...)` and its like, which take none, or select fewer nodes"
        )
    return expression


def _free(tree: Tree) -> set[int]:
    """The ids of the nodes that name all parameters, not a variable of a loop."""
    return {each.id for each in tree.root.free() if each.name == PARAM}


def _check_parameters(source: str) -> None:
    """Refuse `param` alone, which no node has a value of, and `has` of a parameter."""
    tree = parse_expression(source)
    named = {each.nodes[0].id for each in tree.root.walk() if each.sort == "field" and not each.value}
    tested = {each.nodes[0].id for each in tree.root.walk() if each.sort == "field" and each.value}
    for node in tree.root.walk():
        if node.sort == "field" and node.nodes[0].sort == "field" and node.nodes[0].nodes[0].id in named & _free(tree):
            refuse(source, f"`{unparse(node.nodes[0])}` is a number, a text or a bool, and has no fields", tree.start(node))
    for node in tree.root.free():
        if node.name == PARAM and node.id in tested:
            refuse(source, "`has` is not for parameters: without a value the constraint is unknown", tree.start(node))
        if node.name == PARAM and node.id not in named:
            refuse(
                source, f"`{PARAM}` stands for all parameters: write the name of one, as in `{PARAM}.speed_limit`", tree.start(node)
            )


@functools.lru_cache(maxsize=COMPILED_EXPRESSIONS_KEPT)
def _find_helper(source: str) -> tuple[str, int] | None:
    """The first function over nodes in an expression, and its offset."""
    tree = parse_expression(source)
    helper = next(filter(_is_helper, tree.root.walk()), None)
    return None if helper is None else (helper.name, tree.start(helper))


def _check_form(source: str, tree: Tree) -> None:
    """Refuse a text that is no expression over nodes, with the column."""
    found: _Found = {}
    _find(tree.root, 1, found)
    misused = next(_misused(tree.root, found), None)
    if misused is not None:
        refuse(source, _why_misused(misused), tree.start(misused))
    window = next(filter(is_window, tree.root.walk()), None)
    if window is not None:
        refuse(source, f"`{window.name}` reads the samples of one node: it is for constraints of scope node", tree.start(window))
    bound = {each.nodes[1].name for each in tree.root.walk() if _is_helper(each)}
    names = [each for each in tree.root.free() if each.name not in bound and each.name not in (NODES, "math", "optional")]
    if names:
        name = names[0].name
        fix = f"write `n.{name}` inside of a macro or function, as in `count(nodes, n, n.{name} ...)`"
        refuse(source, f"a constraint on the fleet reads `nodes`, and {quote(name)} is a variable of each node: {fix}",
               tree.start(names[0]))  # fmt: skip
    if (wrong := next(_no_bools(tree.root), None)) is not None:
        refuse(source, f"`{unparse(wrong)}` is no bool: compare it, or use `live` or a reading", tree.start(wrong))
    if not _names_nodes(tree.root):
        refuse(source, "a constraint on the fleet is about `nodes`, as in `count(nodes, n, n.battery_percent < 20.0) <= 3`", 0)


def check_expressions(
    when: str | None,
    clear_when: str | None,
    kinds: Mapping[str, str] = NO_KINDS,
    *,
    scope: str = Scope.NODE,
    nodes: int = 0,
    bind: Callable[[str], str] = lambda source: source,
) -> None:
    """Check the expressions of a definition, as where they are written. `nodes`: those that it is about now. `bind`: see
    `compile_written`.

    Raises `ExpressionError`, and `TypeError` for another type than text; their `field` is at fault.
    """
    for what, text in (("when", when), ("clear_when", clear_when)):
        if text is not None and not isinstance(text, str):
            raise InvalidType(f"{what} is a text, not {text!r}", field=what)
    if when:
        compile_written(when, scope, kinds, nodes, bind)
    if clear_when:
        try:
            compile_written(clear_when, scope, kinds, nodes, bind)
        except ExpressionError as error:
            raise error.within("clear_when") from None
