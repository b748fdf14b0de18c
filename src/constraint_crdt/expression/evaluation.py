"""Compiled expressions and their evaluation. The last few thousand are cached.

The library compiles the patterns of `matches` once with an expression that passes its type checker, and otherwise at each
evaluation. Patterns are string literals of a bounded cost, and stand in no loop of an expression that does not pass.

Comparisons of variables and literals (`syntax.read_comparisons`) pass the check as they are, and are decided here while the values
are of the types of the literals, or missing. The library compiles such an expression only for other values. Its outcomes are the
specification.

Evaluation of the active constraints against measurements. Pure.

All standing definitions of a constraint are in force: the constraint is violated if any is, satisfied if all hold, else unknown.
A definition with a selector applies only to nodes with all of its labels; a constraint without an applying definition is not
evaluated. A definition that does not compile here, or with a meaning version that is not known here (both from a node with a later
version), reads unknown, and is kept and forwarded.
"""

import contextlib
import functools
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from constraint_crdt.crdt.limits import WHEN_BYTES
from constraint_crdt.expression.cel import (
    ALIAS,
    KINDS,
    NO_SAMPLES,
    TYPE_NAMES,
    WINDOW_FUNCTIONS,
    ExpressionError,
    Measurements,
    Outcome,
    Verdict,
    WindowCall,
    WindowReader,
    by_default,
    converted,
    environment,
    measurements,
    refuse,
)
from constraint_crdt.expression.check import (
    Place,
    check_result,
    check_tree,
    failure,
    find_windows,
    numeric_comparison,
    only_numeric,
    place_of,
    places_of,
    read_windows,
    refuse_as_library,
    refuse_type,
)
from constraint_crdt.expression.measurements import (
    InstanceWindows,
    flattened,
    missing_instances,
    named,
    read_instance,
)
from constraint_crdt.expression.syntax import (
    MAX_BUILT_BYTES,
    Growth,
    Node,
    Tree,
    built_bytes,
    check_factor,
    decode,
    growth,
    is_window,
    read_comparisons,
    serialized_part,
    unparse,
    with_names,
)
from constraint_crdt.model import Scope, VerdictState, html_fields
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.orset import ConstraintORSet
from constraint_crdt.types.parameters import BoundDefinition, parameters_of

if TYPE_CHECKING:
    from cel_expr_python import cel

MAX_EXPRESSION_BYTES = WHEN_BYTES
COMPILED_EXPRESSIONS_KEPT = 16_384
"""Some 4 KB each. With more constraints than these, each evaluation of all compiles all again."""
COMPILATIONS_KEPT = 16
"""Compilations with their trees: the check of an expression follows its compilation."""
PROGRAMS_KEPT = 4096
"""Programs of comparisons of which values are of other types than the literals."""
MAX_PATTERN_COST = 1600
"""Some 2 ms to compile, once. Without a bound, the patterns of 1 KiB take seconds and hundreds of megabytes."""

_COUNTED = re.compile(r"(.?)\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}", re.DOTALL)


def _cost(pattern: str) -> int:
    """An upper estimate of the cost of compiling a regular expression; Unicode classes and nested counts are the costly parts."""
    groups, atoms = 1, 1
    for before, least, most in _COUNTED.findall(pattern):
        count = max(int(most or 0), int(least), 1)
        if before in ("", ")", "}") or before.isspace():
            groups *= count
        else:
            atoms = max(atoms, count)
    return (len(pattern) + 60 * len(re.findall(r"\\[wWdDsSpPbB]", pattern))) * groups * atoms


def _check_patterns(source: str, tree: Tree) -> bool:
    """Raise `ExpressionError` for a pattern that is not a string literal or not valid, and for patterns above the cost limit.
    Returns whether there are any.
    """
    patterns = [node.nodes[-1] for node in tree.root.walk() if node.sort == "call" and node.name == "matches" and node.nodes]
    cost = 0
    for pattern in patterns:
        start = tree.start(pattern)
        if not isinstance(pattern.value, str):
            refuse(source, "`matches` needs its pattern as a string literal", start)
        cost += _cost(pattern.value)
        if cost > MAX_PATTERN_COST:
            refuse(source, "the patterns of `matches` are too costly: shorten them or lower their {counts}", start)
        library = environment()
        found = library.parse("''.matches(pattern)").eval(library.activation({"pattern": pattern.value}))
        if found.type() == library.error_type:
            why = failure(str(converted(found))).removeprefix("invalid regular expression: ")
            refuse(source, f"this pattern is not a valid regular expression: {why}", start)
    return bool(patterns)


_SATISFIED = Outcome(Verdict.SATISFIED, "")
_VIOLATED = Outcome(Verdict.VIOLATED, "")

_Decided = bool | frozenset[str] | None
"""The value of comparisons: a bool; or the missing variables on which it depends; None for the library to decide."""
_Decide = Callable[[Mapping[str, object]], _Decided]
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "_<_": operator.lt, "_<=_": operator.le, "_>_": operator.gt, "_>=_": operator.ge, "_==_": operator.eq, "_!=_": operator.ne,
}  # fmt: skip
_CALCULATE: Mapping[str, Callable[[Any, Any], Any]] = {"_+_": operator.add, "_-_": operator.sub, "_*_": operator.mul}
_NO_VALUES: Mapping[str, object] = {}
_MIRRORED = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_"}


def _decider(node: Node) -> _Decide:
    """The decision of comparisons, of the tree of `read_comparisons`."""
    if node.name == "!_":
        return _negated(_decider(node.nodes[0]))
    if node.name in ("_&&_", "_||_"):
        return _joined([_decider(each) for each in _operands(node, node.name)], node.name == "_||_")
    left, right = node.nodes
    if left.sort == "name" and (literal := _literal(right)) is not None:
        return _compared(left.name, _COMPARE[node.name], literal)
    if right.sort == "name" and (literal := _literal(left)) is not None:
        return _compared(right.name, _COMPARE[_MIRRORED.get(node.name, node.name)], literal)
    return _calculated(_COMPARE[node.name], _calculator(left), _calculator(right), sorted({each.name for each in node.free()}))


def _literal(node: Node) -> object:
    """The value of a literal, or of sums and products of literals; None for other nodes."""
    if node.sort != "call":
        return node.value
    return None if any(node.free()) else _calculator(node)(_NO_VALUES)


_ANY_NUMBER = (-math.inf, math.inf)


@functools.lru_cache(maxsize=COMPILED_EXPRESSIONS_KEPT)
def _bands(source: str) -> Mapping[str, tuple[float, float]] | None:
    """See `Expression.bands`."""
    root = read_comparisons(source)
    if root is None:
        return None
    found: dict[str, tuple[float, float]] = {}
    for node in _operands(root, "_&&_") if root.name == "_&&_" else (root,):
        compared = _with_number(node)
        if compared is None:
            return None
        name, band = compared
        low, high = found.get(name, _ANY_NUMBER)
        found[name] = max(low, band[0]), min(high, band[1])
    return found


def _with_number(node: Node) -> tuple[str, tuple[float, float]] | None:
    """The variable of a comparison with a number, and the least and the greatest number that satisfy it; None for other nodes."""
    if node.name not in ("_<_", "_<=_", "_>_", "_>=_", "_==_"):
        return None
    left, right = node.nodes
    if left.sort == "name" and isinstance(literal := _literal(right), int | float):
        name, operator_ = left.name, node.name
    elif right.sort == "name" and isinstance(literal := _literal(left), int | float):
        name, operator_ = right.name, _MIRRORED.get(node.name, node.name)
    else:
        return None
    number = float(literal)
    if number != literal:
        return None
    low = number if operator_ in ("_>=_", "_==_") else math.nextafter(number, math.inf) if operator_ == "_>_" else -math.inf
    high = number if operator_ in ("_<=_", "_==_") else math.nextafter(number, -math.inf) if operator_ == "_<_" else math.inf
    return name, (low, high)


def _calculator(node: Node) -> Callable[[Mapping[str, Any]], Any]:
    """The value of a sum or product, from doubles."""
    if node.sort == "name":
        return operator.itemgetter(node.name)
    if node.sort == "constant":
        return lambda _: node.value
    calculate, (left, right) = _CALCULATE[node.name], map(_calculator, node.nodes)
    return lambda values: calculate(left(values), right(values))


def _operands(node: Node, name: str) -> Iterator[Node]:
    """The operands of a balanced tree of the same operator, in order."""
    for each in node.nodes:
        if each.name == name:
            yield from _operands(each, name)
        else:
            yield each


def _compared(name: str, compare: Callable[[Any, Any], bool], literal: object) -> _Decide:
    kind, missing = (str if isinstance(literal, str) else float), frozenset([name])

    def decide(values: Mapping[str, object]) -> _Decided:
        value = values.get(name)
        if type(value) is kind:
            return compare(value, literal)
        return missing if value is None else None

    return decide


def _calculated(
    compare: Callable[[Any, Any], bool], left: Callable[[Any], Any], right: Callable[[Any], Any], names: list[str]
) -> _Decide:
    def decide(values: Mapping[str, object]) -> _Decided:
        missing = list[str]()
        for name in names:
            value = values.get(name)
            if value is None:
                missing.append(name)
            elif type(value) is not float:
                return None
        return frozenset(missing) if missing else compare(left(values), right(values))

    return decide


def _negated(inner: _Decide) -> _Decide:
    def decide(values: Mapping[str, object]) -> _Decided:
        found = inner(values)
        return not found if found is True or found is False else found

    return decide


def _joined(parts: list[_Decide], deciding: bool) -> _Decide:
    """`&&`, or `||`: `deciding` is the value of an operand that decides, whatever the others are."""

    def decide(values: Mapping[str, object]) -> _Decided:
        missing = None
        for part in parts:
            found = part(values)
            if found is deciding or found is None:
                return found
            if type(found) is frozenset:
                missing = found if missing is None else missing | found
        return not deciding if missing is None else missing

    return decide


class _Reading(NamedTuple):
    """The program of an expression with windows, where each call over samples is a variable; the calls by the name of theirs."""

    program: "cel.Expression"
    calls: Mapping[str, WindowCall]
    comparisons: "_WindowComparisons | None" = None
    """The same without the library, where calls and variables are compared alone."""

    def why(self, error: str, values: Measurements) -> str:
        """The reason of the call whose failure is the error; empty for another error."""
        for name, call in self.calls.items():
            if f'"{name}"' in error:
                try:
                    call.read(values.windows)
                except ValueError as failed:
                    return str(failed)
        return ""


def _reading(serialized: bytes, root: Node) -> _Reading | None:
    """The program without calls over samples; None if there are none. Raises `RuntimeError` as the library."""
    calls = read_windows(root)
    if not calls:
        return None
    names = {id_: f"@{id_}" for id_ in calls}
    program = environment().deserialize(with_names(serialized, names))
    return _Reading(program, {names[id_]: call for id_, call in calls.items()}, _window_comparisons(root, calls))


class _WindowComparisons(NamedTuple):
    """Comparisons of calls over samples and of variables, without the library: it takes ten times as long."""

    decide: _Decide
    calls: tuple[tuple[str, WindowCall], ...]
    reads: bool
    """Variables are read, too."""

    def holds(self, values: Measurements) -> bool:
        """True if the values satisfy it. False says nothing."""
        found = dict(values.plain) if self.reads else {}
        try:
            for name, call in self.calls:
                found[name] = call.read(values.windows)
        except ValueError:
            return False
        return self.decide(found) is True

    def outcome(self, values: Measurements) -> Outcome | None:
        """None: the library has to decide, or to say why not."""
        found = dict(values.plain) if self.reads else {}
        for name, call in self.calls:
            try:
                found[name] = call.read(values.windows)
            except ValueError as error:
                if len(self.calls) == 1 and not self.reads:
                    return Outcome(Verdict.UNKNOWN, str(error))
        decided = self.decide(found)
        return _SATISFIED if decided is True else _VIOLATED if decided is False else None


def _window_comparisons(root: Node, calls: Mapping[int, WindowCall]) -> _WindowComparisons | None:
    """The comparisons of an expression whose calls over samples have names; None for any other expression, and beside `age`."""
    if any(call.function == "age" for call in calls.values()):
        return None
    taken, names = {each.name for each in root.free()}, dict[int, str]()
    for number, id_ in enumerate(calls):
        name = f"window{number}"
        while name in taken:
            name += "_"
        names[id_] = name
    tree = read_comparisons(unparse(_with_windows(root, names)))
    if tree is None:
        return None
    return _WindowComparisons(_decider(tree), tuple((names[id_], call) for id_, call in calls.items()), bool(taken))


def _with_windows(node: Node, names: Mapping[int, str]) -> Node:
    """The tree with names in place of calls over samples, and without the `dyn` around numbers that the type check needed."""
    if node.id in names:
        return Node(node.id, "name", names[node.id])
    if node.name == "dyn" and node.sort == "call" and not node.member and node.nodes[0].sort == "constant":
        return node.nodes[0]
    return node._replace(nodes=tuple(_with_windows(each, names) for each in node.nodes))


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled `when`. Equal when the text is; safe to share between threads."""

    source: str
    variables: frozenset[str]
    """The top-level names that it reads, the variables of its windows among them."""
    _program: "cel.Expression | None" = field(repr=False, compare=False)
    """None for comparisons: the library compiles them where it has to decide."""
    _growth: Growth | None = field(default=None, repr=False, compare=False)
    windows: frozenset[tuple[str, int]] = frozenset()
    """The variables that it reads samples of, each with the length of the window in ns; 0 for the last sample only."""
    _only_windows: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    """The variables of which it reads samples only, not the value now."""
    _reading: "_Reading | None" = field(default=None, repr=False, compare=False)
    _decide: "_Decide | None" = field(default=None, repr=False, compare=False)
    """Decides comparisons."""

    @property
    def is_comparisons(self) -> bool:
        """True for comparisons of variables with literals: cheap to compile and to evaluate."""
        return self._decide is not None

    @property
    def decides(self) -> "_Decide | None":
        """Of comparisons: the decision by plain values, True, False, or something else where `evaluate` has to say why."""
        return self._decide

    @property
    def window_comparisons(self) -> "_WindowComparisons | None":
        """Comparisons of calls over samples, which are decided without the library; None for another expression."""
        return None if self._reading is None else self._reading.comparisons

    def bands(self) -> "Mapping[str, tuple[float, float]] | None":
        """Of comparisons of variables with numbers joined by `&&`: the least and the greatest number of each variable by which it
        is satisfied, whatever the others are within theirs. None for another expression.
        """
        return _bands(self.source) if self._decide is not None else None

    def satisfied_by(self, values: Measurements) -> bool:
        """True if these values satisfy comparisons, of variables or of calls over samples. False says nothing: see `evaluate`."""
        if self._decide is not None:
            return self._decide(values.plain) is True
        comparisons = self.window_comparisons
        return comparisons is not None and comparisons.holds(values)

    def evaluate(self, values: Mapping[str, object]) -> Outcome:
        """Evaluate against measured values (for many expressions, convert the values with `measurements` first).

        `UNKNOWN` if the result depends on a variable without a usable value, if the evaluation fails, or if it does not give a
        bool. `&&`, `||` and `?:` decide without the rest where CEL says so. Raises nothing.
        """
        if type(values) is not Measurements:
            values = measurements(values)
        if self._decide is not None:
            decided = self._decide(values.plain)
            if decided is True:
                return _SATISFIED
            if decided is False:
                return _VIOLATED
            if decided is not None:
                return Outcome(Verdict.UNKNOWN, values.why_not(decided))
        elif self._reading is not None and self._reading.comparisons is not None:
            outcome = self._reading.comparisons.outcome(values)
            if outcome is not None:
                return outcome
        return self._evaluate(values)

    def _evaluate(self, values: Measurements) -> Outcome:
        """The same, by the library."""
        if self._growth and self._builds_too_much(self._growth, values):
            return Outcome(Verdict.UNKNOWN, "the evaluation failed: the macros build too much from values of this size")
        try:
            if self._reading:
                result = self._reading.program.eval(values.activation_with(self.variables, self._reading.calls))
            else:
                result = (self._program or _program(self.source)).eval(values.ready or values.activation())
            value = result.value()
        except RuntimeError as error:
            return Outcome(Verdict.UNKNOWN, f"the evaluation failed: {failure(str(error))}")
        except TypeError:  # an optional, see `converted`
            value = None
        if value is True:
            return _SATISFIED
        if value is False:
            return _VIOLATED
        failed = result.type() == environment().error_type
        if not failed or value is None:  # the library gives an optional the type of an error
            kind = "optional" if failed else result.type().name().lower()
            return Outcome(Verdict.UNKNOWN, f"the result is not a bool but of type {kind}")
        return Outcome(Verdict.UNKNOWN, self._why(str(value), values))

    def _why(self, error: str, values: Measurements) -> str:
        """The reason for an error: the variables without a usable value on which the result depends, and any other failure."""
        window = self._reading.why(error, values) if self._reading else ""
        missing, unmeasured = self.variables - self._only_windows - values.keys(), not window and "No value with name" in error
        if len(missing) > unmeasured:
            found = parts(self)
            missing = found.undecided_by(found.root, values, missing)
        if missing and unmeasured:
            return values.why_not(missing)
        failed = window or f"the evaluation failed: {failure(error)}"
        return f"{failed}; {values.why_not(missing)}" if missing else failed

    def fails_without(self, missing: frozenset[str]) -> bool:
        """True if the evaluation fails whatever the other variables are, while none of these, fields of windows included, has a
        value. Compiles nothing.
        """
        found = parts(self)
        return found.fails_without(found.root, missing)

    @property
    def serialized(self) -> bytes:
        """The form of the library, for `syntax.decode`."""
        return bytes((self._program or _program(self.source)).serialize())

    def parts(self) -> "Parts":
        """The parts of the expression. Not cached: `parts` caches them."""
        root = read_comparisons(self.source) if self._program is None else None
        return Parts(b"", root) if root else Parts((self._program or _program(self.source)).serialize())

    @staticmethod
    def _builds_too_much(found: Growth, values: Measurements) -> bool:
        ranges = [values.size(name) for name in found.ranges]
        read = sum(values.size(name).bytes for name in found.bodies) + max((size.item_bytes for size in ranges), default=0)
        read += sum(values.sample_size(name).bytes for name in found.last)
        return built_bytes(found, sum(size.items for size in ranges), read) > MAX_BUILT_BYTES


PARTS_KEPT = 4096
"""Expressions whose parts are cached. A part takes some 4 KB."""
_BRANCHES = frozenset({"_&&_", "_||_", "_?_:_"})


class Parts:
    """The parts of an expression, each compiled when it is first evaluated. For evaluations of the whole that build little."""

    def __init__(self, serialized: bytes, root: Node | None = None) -> None:
        """`root`: of comparisons, which have no serialized form."""
        self._serialized = serialized
        self._programs: dict[int, _Reading] = {}
        self.root = root or decode(serialized).root

    def value(self, node: Node, values: Measurements) -> object:
        """The value of a part outside of loops; None for an error, as for null."""
        if node.sort == "constant":
            return node.value
        if node.sort == "name":
            return values.get(node.name.removeprefix(ALIAS))
        if not self._serialized and node.name in _CALCULATE:
            return self._calculated(node, values)
        if not self._serialized:
            decided = _decider(node)(values.plain)
            if decided is not None:
                return decided if isinstance(decided, bool) else None
        library = environment()
        try:
            if node.id not in self._programs and not self._serialized:
                self._programs[node.id] = _Reading(library.parse(unparse(node)), {})
            elif node.id not in self._programs:
                part = serialized_part(self._serialized, node)
                self._programs[node.id] = _reading(part, node) or _Reading(library.deserialize(part), {})
            reading = self._programs[node.id]
            calls = reading.calls
            result = reading.program.eval(values.activation_with(_read(node), calls) if calls else values.activation())
        except RuntimeError:
            return None
        return None if result.type() == library.error_type else converted(result)

    def _calculated(self, node: Node, values: Measurements) -> object:
        """The value of a sum or product of comparisons; None if an operand is no double."""
        operands = [self.value(each, values) for each in node.nodes]
        return _CALCULATE[node.name](*operands) if all(type(each) is float for each in operands) else None

    def fails_without(self, node: Node, missing: frozenset[str]) -> bool:
        """True if a part is an error while these variables have no value. See `Expression.fails_without`."""
        if node.sort == "name":
            return node.name.removeprefix(ALIAS) in missing
        if is_window(node):
            return node.nodes[WINDOW_FUNCTIONS[node.name].index("name")].value in missing
        if node.sort == "loop":
            return self.fails_without(node.nodes[0], missing)
        failing = [self.fails_without(each, missing) for each in node.nodes]
        if node.name in ("_&&_", "_||_"):
            return all(failing)
        if node.name == "_?_:_":
            return failing[0] or all(failing[1:])
        return any(failing)

    def undecided_by(self, node: Node, values: Measurements, missing: frozenset[str]) -> frozenset[str]:
        """The variables, of those without a value, whose error gets through to this node, which is an error.

        While these have no value, the node stays an error, whatever value the others have. `&&` and `||` depend on those of their
        operands that are errors, `?:` on its condition or on the chosen branch.
        """
        named = _read(node) & missing
        if not named or not any(each.name in _BRANCHES or each.sort == "loop" for each in node.walk()):
            return named
        if node.name == "_?_:_":
            condition = self.value(node.nodes[0], values)
            chosen = 1 if condition is True else 2 if condition is False else 0
            return self.undecided_by(node.nodes[chosen], values, missing)
        operands = node.nodes[:1] if node.sort == "loop" else node.nodes
        reading = [each for each in operands if not missing.isdisjoint(_read(each))]
        failed = [each for each in reading if self.value(each, values) is None]
        if node.sort == "loop" and not failed:
            return named
        return frozenset[str]().union(*(self.undecided_by(each, values, missing) for each in failed))


def _read(node: Node) -> frozenset[str]:
    return frozenset(each.name.removeprefix(ALIAS) for each in node.free())


@functools.lru_cache(maxsize=PARTS_KEPT)
def parts(expression: Expression) -> Parts:
    """The parts of an expression, cached."""
    return expression.parts()


class _Compilation(NamedTuple):
    """A compiled expression, its tree with the offsets of the source, the edits of its text for the type checker, and the error of
    a text that the type checker refuses.
    """

    expression: Expression
    tree: Tree
    edits: "_Edits"
    refused: Place | None


NO_KINDS: Mapping[str, str] = {}


def compile_expression(source: str, *, checked: bool = True, kinds: Mapping[str, str] = NO_KINDS) -> Expression:
    """Check and compile a `when`. Compiled expressions are cached, so asking again costs nothing.

    `checked`: refuse also an expression that the bounds allow and no measurement can decide, as where an expression is written.
    Definitions in force are compiled without, so that definitions of other versions keep their meaning. `kinds`: the types of
    variables where they are known (`double`, `string`, `bool`, `list`, `map`; others are ignored), for that check. Raises
    `ExpressionError` with the column.
    """
    compiled = _compiled(source)
    if not checked or (compiled.is_comparisons and _fits(source, compiled, kinds)):
        return compiled
    return _checked(_written(compiled, kinds))


def is_known(source: str | None, kinds: Mapping[str, str] = NO_KINDS) -> bool:
    """True if the check of an expression takes some µs: it is made of comparisons, or was checked before, with the same kinds."""
    if not isinstance(source, str) or len(source) > MAX_EXPRESSION_BYTES:
        return True  # refused at once
    if parameters_of(source):
        return False
    compiled = _compiled.kept(source)
    if compiled is None and (compiled := _comparisons(source)) is not None:
        _compiled.keep(source, compiled)
    return compiled is not None and (compiled.is_comparisons or _checked.kept(_written(compiled, kinds)) is not None)


def needs_library(source: str | None) -> bool:
    """True for an expression that is not made of comparisons: the CEL library reads it."""
    if source is None:
        return False
    compiled = _compiled.kept(source)
    return _comparisons(source) is None if compiled is None else not compiled.is_comparisons


def _check_size(source: str) -> None:
    # A text of 1 KiB in characters can be larger in bytes, never smaller; what cannot be encoded is refused as well.
    try:
        size = len(source.encode()) if len(source) <= MAX_EXPRESSION_BYTES else len(source)
    except UnicodeEncodeError as error:
        raise ExpressionError("the text is not valid Unicode", error.start + 1) from None
    if size > MAX_EXPRESSION_BYTES:
        raise ExpressionError(f"the expression is longer than {MAX_EXPRESSION_BYTES} bytes: split the constraint")


_Key = TypeVar("_Key")
_Kept = TypeVar("_Kept")


class _Cache(Generic[_Key, _Kept]):
    """A function with its last results, as `functools.lru_cache`, which tells its content. For any thread."""

    def __init__(self, make: Callable[[_Key], _Kept]) -> None:
        self._make = make
        self._results: dict[_Key, _Kept] = {}

    def kept(self, key: _Key) -> _Kept | None:
        """The result, if it is there."""
        return self._results.get(key)

    def __call__(self, key: _Key) -> _Kept:
        """The result. Raises what the function raises, which is not kept."""
        found = self._results.get(key)
        if found is None:
            found = self._make(key)
        self.keep(key, found)
        return found

    def keep(self, key: _Key, found: _Kept) -> None:
        """Have a result, as the latest."""
        self._results.pop(key, None)
        self._results[key] = found
        if len(self._results) > COMPILED_EXPRESSIONS_KEPT:
            with contextlib.suppress(RuntimeError):  # another thread put something in between: the next call drops the oldest
                self._results.pop(next(iter(self._results)), None)


class _Written(NamedTuple):
    """An expression to be checked as where it is written, and the kinds of its variables."""

    source: str
    kinds: frozenset[tuple[str, str]]


def _written(compiled: Expression, kinds: Mapping[str, str]) -> _Written:
    read = [(name, kind) for name, kind in kinds.items() if kind in KINDS and name.partition(".")[0] in compiled.variables]
    return _Written(compiled.source, frozenset(read))


def _comparisons(source: str) -> Expression | None:
    """The expression, if it is made of comparisons."""
    root = read_comparisons(source)
    if root is None:
        return None
    return Expression(source, frozenset(each.name for each in root.free()), None, _decide=_decider(root))


@_Cache
def _compiled(source: str) -> Expression:
    _check_size(source)
    return _comparisons(source) or _compilation(source).expression


def _fits(source: str, compiled: Expression, kinds: Mapping[str, str]) -> bool:
    """True if comparisons are with literals of the kinds of their variables, as far as these are known."""
    if kinds.keys().isdisjoint(compiled.variables):
        return True
    root = read_comparisons(source)
    for compared in root.walk() if root else ():
        if compared.name in _COMPARE:
            kind = "string" if any(isinstance(each.value, str) for each in compared.nodes) else "double"
            if any(kinds.get(each.name, kind) != kind for each in compared.free()):
                return False
    return True


@functools.lru_cache(maxsize=PROGRAMS_KEPT)
def _program(source: str) -> "cel.Expression":
    """The program of comparisons, where the library has to decide."""
    program, _, _ = _type_checked(source, parse_expression(source))
    return program or environment().parse(source)


@_Cache
def _checked(written: _Written) -> Expression:
    source, kinds = written
    compilation = _compilation(source)
    if compilation.refused:
        refuse_type(source, compilation.refused.message, compilation.refused.start, compilation.tree)
    _check_kinds(source, compilation, dict(kinds))
    check_tree(source, compilation.tree, dict(kinds))
    return _compiled(source)


def _check_kinds(source: str, compilation: _Compilation, kinds: Mapping[str, str]) -> None:
    """Raise `ExpressionError` for an error of type that shows with the kinds of variables.

    A difference in the kind of number only is none. The kind of `robot.speed` is not used beside `has`, where the type checker
    would take the name as a variable, and a `robot` that has fields by their own names can be anything.
    """
    edits, tree = compilation.edits, compilation.tree
    tests_fields = any(each.sort == "field" and each.value for each in tree.root.walk())
    dotted = {name for name in kinds if "." in name}
    parents = {name.partition(".")[0] for name in dotted}
    declared = {
        ALIAS + name if name in TYPE_NAMES else name: kind
        for name, kind in kinds.items()
        if not (name in dotted and tests_fields) and not (name in parents and kind != "map")
    }
    if not declared:
        return
    variables = _variables(parse_expression(edits.text))
    try:
        found = environment().check(edits.text, variables, frozenset(declared.items()))
    except RuntimeError as error:
        for place in places_of(edits.text, error):
            if not only_numeric(place.message):
                refuse_type(source, place.message, edits.offset(place.start), tree)
    else:
        checked = decode(found.serialize())
        check_result(source, tree, checked.types.get(checked.root.id, "dyn"))


@functools.lru_cache(maxsize=COMPILATIONS_KEPT)
def _compilation(source: str) -> _Compilation:
    _check_size(source)
    parsed = parse_expression(source)
    check_factor(source, parsed)
    has_patterns = _check_patterns(source, parsed)
    windows = find_windows(source, parsed)
    program, edits, refused = _type_checked(source, parsed)
    if program is None:
        if has_patterns and _repeats_patterns(parsed):
            raise ExpressionError("`matches` in a macro needs an expression without errors of type", 1)
        edits, program = _Edits(source), environment().parse(source)
    serialized = program.serialize()
    tree = decode(serialized)
    reading = _reading(serialized, tree.root)
    names = frozenset(name.removeprefix(ALIAS) for name in _variables(tree))
    only_windows = frozenset(name.partition(".")[0] for name, _ in windows) - names
    expression = Expression(source, names | only_windows, program, growth(tree), windows, only_windows, reading)
    return _Compilation(expression, edits.undone(tree), edits, refused)


def _repeats_patterns(tree: Tree) -> bool:
    """True if a loop has a pattern, which the library compiles at each step if the type checker refuses the expression."""
    loops = (node for node in tree.root.walk() if node.sort == "loop")
    return any(each.name == "matches" for loop in loops for part in loop.nodes[1:] for each in part.walk())


def parse_expression(source: str) -> Tree:
    """The syntax tree of a text. Raises `ExpressionError` with the column for a text that is no CEL."""
    try:
        return decode(environment().parse(source).serialize())
    except RuntimeError as error:
        refuse_as_library(source, error)


class _Edits:
    """Insertions into a text, by which it passes the type checker without another meaning."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._inserted: dict[int, str] = {}

    def insert(self, at: int, text: str) -> None:
        """Insert at this offset of the source."""
        self._inserted[at] = text + self._inserted.get(at, "")

    @property
    def text(self) -> str:
        """The text with the insertions."""
        text = self._source
        for at in sorted(self._inserted, reverse=True):
            text = text[:at] + self._inserted[at] + text[at:]
        return text

    def offset(self, edited: int) -> int:
        """The offset in the source of an offset in the text with the insertions."""
        shift = 0
        for at in sorted(self._inserted):
            if at + shift + len(self._inserted[at]) <= edited:
                shift += len(self._inserted[at])
        return edited - shift

    def undone(self, tree: Tree) -> Tree:
        """The tree with the offsets and the names of the source."""
        positions = {id_: self.offset(at) for id_, at in tree.positions.items()}
        return Tree(_without_alias(tree.root), positions, tree.types)


def _without_alias(node: Node) -> Node:
    name = node.name.removeprefix(ALIAS) if node.sort == "name" else node.name
    return node._replace(name=name, nodes=tuple(map(_without_alias, node.nodes)))


_NUMBER = re.compile(r"-?\s*(?:0x[0-9a-fA-F]+[uU]?|[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?[uU]?)")


def _type_checked(source: str, parsed: Tree) -> "tuple[cel.Expression | None, _Edits, Place | None]":
    """The expression with types, or the error of the type checker.

    Two errors are none here. A name of a type that does not fit as a type is a variable: `type == 'agv'`. And the type checker
    refuses to compare `x * 2.0` with `3`, which evaluation does on a single number line: the literal is made dynamic.
    """
    library, edits, renamed = environment(), _Edits(source), False
    literals = {parsed.positions[node.id] for node in parsed.root.walk() if node.sort == "constant" and _is_number(node.value)}
    while True:
        text = edits.text
        try:
            return library.check(text, _variables(parsed if text == source else parse_expression(text))), edits, None
        except RuntimeError as error:
            place = place_of(text, error) or Place("this is not CEL", 0, syntax=False)
        start = edits.offset(place.start)
        literal = _compared_literal(parsed, start, literals) if numeric_comparison(place.message) else None
        types = [parsed.positions[node.id] for node in parsed.root.free() if node.name in TYPE_NAMES]
        if literal is not None:
            literals.discard(literal)
            number = _NUMBER.match(source, literal)
            edits.insert(literal, "dyn(")
            edits.insert(number.end() if number else literal, ")")
        elif types and not renamed:
            renamed = True
            for at in types:
                edits.insert(at, ALIAS)
        else:
            return None, edits, place._replace(start=start)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compared_literal(tree: Tree, start: int, literals: set[int]) -> int | None:
    """The offset of a literal that is an operand of the comparison at this offset."""
    compared = (node for node in tree.root.walk() if node.sort == "call" and tree.positions.get(node.id) == start)
    return next((at for node in compared for each in node.nodes if (at := tree.positions.get(each.id, -1)) in literals), None)


_NAMESPACES = frozenset({"math", "optional"})


def _variables(tree: Tree) -> frozenset[str]:
    """The top-level names, without the names of types and the namespaces of functions."""
    calls = (node for node in tree.root.walk() if node.sort == "call" and node.member)
    spaces = {call.nodes[0].id for call in calls if call.nodes[0].name in _NAMESPACES and call.nodes[0].sort == "name"}
    return frozenset(node.name for node in tree.root.free() if node.id not in spaces and node.name not in TYPE_NAMES)


class Evaluation(NamedTuple):
    """The result of an evaluation of a constraint."""

    constraint: str
    verdict: Verdict
    reason: str = ""
    """The reason for an undecided outcome; else empty."""
    state: VerdictState = VerdictState.UNKNOWN
    """The verdict state with `for`, `clear_after` and `clear_when`; without time, the state of the verdict alone."""
    by_default: bool = False
    """The outcome was undecided, and `if_unknown` gave the verdict."""
    margin: float | None = None
    """The signed distance to the threshold, of `Node.check`; negative for a violation; None where there is no threshold."""
    margin_share: float | None = None
    """The margin as a share of the threshold."""
    margin_variable: str | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """The increment of (satisfied, violated); unknown counts neither way."""
        return int(self.verdict is Verdict.SATISFIED), int(self.verdict is Verdict.VIOLATED)

    def _repr_html_(self) -> str:
        """A table with the result, for notebooks."""
        fields: list[tuple[str, object]] = [
            ("constraint", self.constraint),
            ("verdict", self.verdict.value),
            ("state", self.state),
            ("by default", "yes" if self.by_default else None),
            ("margin", self.margin),
            ("reason", self.reason or None),
        ]
        return html_fields("Evaluation", [(name, value) for name, value in fields if value is not None])


NO_LABELS: Mapping[str, str] = {}


def evaluate(
    constraints: ConstraintORSet,
    values: Mapping[str, object],
    labels: Mapping[str, str] = NO_LABELS,
    ids: Iterable[str] | None = None,
    windows: WindowReader = NO_SAMPLES,
    bind: Callable[[Definition], BoundDefinition] = BoundDefinition,
    definitions: Callable[[str], Sequence[Definition]] | None = None,
) -> list[Evaluation]:
    """An evaluation per active constraint with a `when` (or of a later version) and a selector for these labels, ordered by id;
    without those of scope fleet.

    `ids`: only these, in this order. `windows`: the samples at the instant of the evaluation. `bind`: gives a definition with the
    parameters. `definitions`: gives those of a constraint on this node; None: they are the same on all nodes. O(active
    constraints), or O(ids).
    """
    values = flattened(values)
    prepared = measurements({name: value for name, value in values.items() if "{" not in name}, windows)
    evaluations = []
    for id_ in sorted(constraints) if ids is None else ids:
        found = [
            _evaluated(id_, bind(each), prepared) if each.each is None else _evaluated_each(id_, bind(each), values, windows)
            for each in (definitions or constraints.definitions)(id_)
            if of_node(each) and each.applies_to(labels)
        ]
        if found:
            evaluations.append(min(found, key=_gravity))
    return evaluations


def evaluable(definition: Definition) -> bool:
    """True for a definition with a condition, or of a later version."""
    return bool(definition.when or definition.meaning)


def of_node(definition: Definition) -> bool:
    """True for a definition that a node evaluates by its own measurements."""
    return evaluable(definition) and definition.scope is Scope.NODE


def expressions_of(definition: Definition) -> Iterator[Expression]:
    """The expressions of a definition of scope node; without those that do not compile here, and none of a later version."""
    for text in (definition.when, definition.clear_when):
        if text and not definition.meaning and definition.scope is Scope.NODE:
            try:
                yield compile_expression(text, checked=False)
            except ExpressionError:
                continue


def outcome_of(definition: Definition, values: Mapping[str, object]) -> Outcome:
    """The outcome of a definition's `when`, without `if_unknown`."""
    if definition.meaning:
        return _LATER
    return condition_outcome(definition.when or "", values)


def condition_outcome(condition: str, values: Mapping[str, object]) -> Outcome:
    """The outcome of a `when` or `clear_when`, also of an expression that does not compile here."""
    try:
        return compile_expression(condition, checked=False).evaluate(values)
    except ExpressionError as error:
        return Outcome(Verdict.UNKNOWN, f"cannot be evaluated on this node: {error}")


_LATER = Outcome(Verdict.UNKNOWN, "needs a later version of constraint-crdt")
"""Of a definition with a meaning version that is not known here."""


def _evaluated(id_: str, bound: BoundDefinition, values: Mapping[str, object]) -> Evaluation:
    definition = bound.definition
    outcome, reason = outcome_of(definition, values)
    if outcome is Verdict.UNKNOWN:
        reason = bound.reason or reason
    verdict = by_default(outcome, definition.if_unknown)
    return Evaluation(id_, verdict, reason, STATES[verdict], verdict is not outcome)


def _evaluated_each(id_: str, bound: BoundDefinition, values: Mapping[str, object], windows: WindowReader) -> Evaluation:
    """The evaluation of the gravest instance."""
    label, found = bound.definition.each or "", dict[str, dict[str, object]]()
    read = {name.partition(".")[0] for each in expressions_of(bound.definition) for name in each.variables}
    own = set[str]()
    for name, value in values.items():
        instance = read_instance(name)
        if instance is not None and instance.label == label and instance.variable in read and value is not None:
            found.setdefault(instance.value, {})[instance.variable] = value
            own.add(instance.variable)
    rest = {name: value for name, value in values.items() if "{" not in name and name.partition(".")[0] not in own}
    evaluations = []
    for name in sorted(found):
        each = _evaluated(id_, bound, measurements(rest | found[name], InstanceWindows(windows, own, label, name)))
        reason = "" if each.verdict is Verdict.SATISFIED else named(label, name, each.reason)
        evaluations.append(each._replace(reason=reason))
    if not evaluations:
        verdict = by_default(Verdict.UNKNOWN, bound.definition.if_unknown)
        return Evaluation(id_, verdict, missing_instances(label), STATES[verdict], verdict is not Verdict.UNKNOWN)
    return min(evaluations, key=_gravity)


STATES = {
    Verdict.VIOLATED: VerdictState.VIOLATED,
    Verdict.UNKNOWN: VerdictState.UNKNOWN,
    Verdict.SATISFIED: VerdictState.HOLDS,
}
"""The state of a verdict without time."""

GRAVITY = (Verdict.VIOLATED, Verdict.UNKNOWN, Verdict.SATISFIED)
"""The gravest first: of several definitions in force, the gravest verdict counts."""


def _gravity(evaluation: Evaluation) -> int:
    return GRAVITY.index(evaluation.verdict)
