"""The effect of an edit, and the faults of a set of constraints, decided by an SMT solver. Pure.

The decidable part of CEL: comparisons, linear arithmetic, bools, equality of texts, `in` a list, and `&&`, `||`, `!`, `?:` over
them, over variables of a single kind each. A function over samples counts as a variable of its own. Anything else is undecided,
with the reason. Rules:

- The questions are about values: all variables are measured, and each has the kind that the expression needs. A missing value
  makes a constraint unknown, and no effect is stated for that.
- The solver computes with exact numbers, the evaluator with doubles. So each example of the solver is evaluated, and an effect
  whose example the evaluator does not confirm is undecided.
- The budget of the solver is a number of steps: the same question has the same answer on every machine.
- Comparisons of variables with numbers, joined by `&&`, are decided without the solver, by the interval of each variable. So the
  most common edits have the same label with and without it.

The solver is Z3 (`z3-solver`, the extra `analysis`), imported at first use. The theory is quantifier-free linear real arithmetic
(de Moura and Bjørner, "Z3: An Efficient SMT Solver", TACAS 2008).
"""

import enum
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any, Final, NamedTuple

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.cel import Verdict
from constraint_crdt.expression.evaluation import Expression, compile_expression, parts
from constraint_crdt.expression.measurements import variable_of
from constraint_crdt.expression.syntax import Node, is_window, unparse
from constraint_crdt.model import IfUnknown, Mode, Scope, Selector, close_to
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.parameters import PARAM, literal, measured_names, read_parameters

STEPS: Final = 200_000
"""The budget of a question, in the solver's units: some 50 ms."""

MOST_PAIRS: Final = 100_000
"""The pairs of constraints that `lint` compares. Pairs beyond are reported as not compared."""

NUMBER, TEXT, BOOL = "number", "text", "bool"

_KINDS = {"double": NUMBER, "string": TEXT, "bool": BOOL}

Range = tuple[float, float]
"""The lowest and the highest value that a variable has."""

Values = Mapping[str, float | str | bool]
"""Values of variables: an example."""

_VALUE_WINDOWS = frozenset({"avg_over", "min_over", "max_over", "sum_over", "quantile_over", "delta", "last"})
"""The functions over samples that can have any number as their value."""


class AnalysisUnavailable(ConstraintCrdtError):
    """The solver is not installed."""


class _Undecided(Exception):
    """The analysis does not decide a question; `str()` is the reason, a part of a sentence."""


class Effect(enum.StrEnum):
    """The effect of an edit on the allowed values."""

    SAME = "same"
    TIGHTENS = "tightens"
    LOOSENS = "loosens"
    BOTH = "both"
    UNDECIDED = "undecided"


class Part(NamedTuple):
    """The effect of a field of an edit."""

    field: str
    effect: Effect
    """Never `SAME`."""
    example: Values | None = None
    """Values on which the old and the new `when` differ: allowed by the new `when` only, for `LOOSENS` and `BOTH`. None for another
    field.
    """
    why: str = ""
    """The reason, for `UNDECIDED`; the nodes or the state concerned, for a field that says it in words of its own."""

    @property
    def text(self) -> str:
        """The effect in a sentence about the new definition."""
        if self.effect is Effect.UNDECIDED:
            return f"`{self.field}`: {self.why}"
        loosens = self.effect is not Effect.TIGHTENS
        if self.example is not None:
            told = ", ".join(f"{name} = {literal(value)}" for name, value in self.example.items()) or "any values"
            words = _WORDS_OF_VALUES[self.field][not loosens].format(told)
        else:
            words = self.why or _WORDS[self.field][not loosens]
        return words


_WORDS_OF_VALUES: Final = {
    "when": ("it allows {}, which was forbidden", "it forbids {}, which was allowed"),
    "clear_when": ("a violation clears with {}, which did not suffice", "a violation does not clear with {}, which sufficed"),
}
"""For a part with an example: of a loosening, and of a tightening."""

_WORDS: Final = {
    "when": ("it forbids nothing", "it forbids values, and forbade none"),
    "clear_when": ("a violation clears sooner", "a violation clears later"),
    "on": ("it applies to fewer nodes", "it applies to more nodes"),
    "for": ("`for` is longer: it is violated later", "`for` is shorter: it is violated sooner"),
    "clear_after": ("`clear_after` is shorter: a violation clears sooner", "`clear_after` is longer: a violation clears later"),
    "severity": ("it is less severe", "it is more severe"),
    "if_unknown": ("an unknown outcome counts for less", "an unknown outcome counts for more"),
    "mode": ("less follows from a violation", "more follows from a violation"),
    "until": ("it ends sooner", "it lasts longer"),
    "max_age": ("older values count", "older values count no more"),
}
"""For a part without an example: of a loosening, and of a tightening."""


class Edit(NamedTuple):
    """The meaning of an edit of a definition."""

    parts: tuple[Part, ...] = ()

    @property
    def effect(self) -> Effect:
        """The effects of all fields together."""
        found = {part.effect for part in self.parts}
        if Effect.UNDECIDED in found:
            return Effect.UNDECIDED
        if Effect.BOTH in found or {Effect.TIGHTENS, Effect.LOOSENS} <= found:
            return Effect.BOTH
        return next(iter(found), Effect.SAME)

    @property
    def loosens(self) -> bool:
        """True if some field loosens the constraint, whatever the others do."""
        return any(part.effect in (Effect.LOOSENS, Effect.BOTH) for part in self.parts)


class Fault(enum.StrEnum):
    """The kinds of findings about a set of constraints."""

    ALWAYS = "always true"
    NEVER = "never true"
    CONFLICT = "conflict"
    CONTRADICTION = "contradiction"
    IMPLIED = "implied"
    MISSPELT = "misspelt"
    UNDECIDED = "undecided"


class Finding(NamedTuple):
    """A fault of one constraint, or of two."""

    fault: Fault
    ids: tuple[str, ...]
    text: str
    """A sentence without the ids."""


class Rule(NamedTuple):
    """A constraint to analyse."""

    id: str
    definition: Definition


# --- expressions as formulas ------------------------------------------------------------------------------------------------


def _solver_library() -> Any:
    try:
        import z3
    except ImportError:
        raise AnalysisUnavailable(
            "the analysis of constraints needs the solver: install it with `pip install 'constraint-crdt[analysis]'`"
        ) from None
    return z3


def _variable(node: Node) -> str | None:
    """The text of a node that counts as a variable: a name, fields of it, or a value over its samples."""
    inner = node
    while inner.sort == "field" and not inner.value:
        inner = inner.nodes[0]
    if inner.sort == "name":
        return unparse(node)
    return unparse(node) if is_window(node) and node.name in _VALUE_WINDOWS else None


def _measured(text: str, node: Node) -> str:
    """The measured variable, or its field, that a variable of the formula depends on."""
    return text if node.sort != "call" else next(str(each.value) for each in node.nodes if isinstance(each.value, str))


def _check_independent(variables: Iterable[tuple[str, Node]]) -> None:
    """Raise `_Undecided` for two variables where a value of either says something about the other."""
    seen: dict[str, str] = {}
    for text, node in variables:
        path = _measured(text, node)
        for other, known in seen.items():
            if text != known and f"{path}.".startswith(f"{other}.") | f"{other}.".startswith(f"{path}."):
                raise _Undecided(f"{known} and {text} depend on each other")
        seen.setdefault(path, text)


_ORDER: Mapping[str, Callable[[Any, Any], Any]] = {
    "_<_": lambda left, right: left < right,
    "_<=_": lambda left, right: left <= right,
    "_>_": lambda left, right: left > right,
    "_>=_": lambda left, right: left >= right,
}
_EQUALITY = ("_==_", "_!=_")
_ARITHMETIC = ("_+_", "_-_", "_*_", "_/_", "-_")
_LOGIC = ("_&&_", "_||_", "!_")
_CHOICE = "_?_:_"


def _plain(node: Node) -> Node:
    """The tree without the conversions that the check of an expression puts around numbers."""
    nodes = tuple(map(_plain, node.nodes))
    if node.sort == "call" and not node.member and len(nodes) == 1:
        number = _kind_of(nodes[0].value) == NUMBER if nodes[0].sort == "constant" else False
        if node.name == "dyn" or (node.name == "double" and number):
            return nodes[0]
    return node._replace(nodes=nodes)


class _Kinds:
    """The kind of each variable, from the places where the expressions use it.

    The expressions of a question share a `_Kinds`: a variable of two kinds is undecided.
    """

    def __init__(self, roots: Sequence[Node], known: Mapping[str, str]) -> None:
        self._kinds: dict[str, str] = {}
        self._known = {name: _KINDS[kind] for name, kind in known.items() if kind in _KINDS}
        _check_independent(found for root in roots for found in _variables(root))
        before = -1
        while before != len(self._kinds):  # a comparison of two variables passes the kind of the one on to the other
            before = len(self._kinds)
            for root in roots:
                self._visit(root, BOOL)

    def of(self, text: str) -> str:
        """The kind of a variable. A variable without any evidence is a number."""
        return self._kinds.get(text, self._known.get(text, NUMBER))

    def of_node(self, node: Node) -> str | None:
        """The kind of the value of a node, if it is known."""
        if node.sort == "constant":
            return _kind_of(node.value)
        text = _variable(node)
        if text is not None:
            return NUMBER if node.sort == "call" else self._kinds.get(text, self._known.get(text))
        if node.name in _ARITHMETIC:
            return NUMBER
        if node.name == _CHOICE:
            return self.of_node(node.nodes[1]) or self.of_node(node.nodes[2])
        return BOOL

    def _visit(self, node: Node, kind: str | None) -> None:
        text = _variable(node)
        if text is not None:
            if kind is not None and self._kinds.setdefault(text, kind) != kind:
                raise _Undecided(f"{text} is read as a {self._kinds[text]} and as a {kind}")
            return
        if node.sort != "call":
            return
        if node.name in _LOGIC:
            inner: Sequence[str | None] = [BOOL] * len(node.nodes)
        elif node.name in _ARITHMETIC or node.name in _ORDER:
            inner = [NUMBER] * len(node.nodes)
        elif node.name in _EQUALITY:
            left, right = map(self.of_node, node.nodes)
            inner = [right or left, left or right]
        elif node.name == _CHOICE:
            inner = [BOOL, kind, kind]
        elif node.name == "@in":
            inner = [next((_kind_of(each.value) for each in node.nodes[1].nodes), None), None]
        else:
            return
        for each, expected in zip(node.nodes, inner, strict=True):
            self._visit(each, expected)


def _variables(node: Node) -> Iterator[tuple[str, Node]]:
    text = _variable(node)
    if text is not None:
        yield text, node
    else:
        for each in node.nodes:
            yield from _variables(each)


def _kind_of(value: object) -> str | None:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int | float):
        return NUMBER
    return TEXT if isinstance(value, str) else None


class _Translator:
    """Turns the trees of a question into terms of the solver. Texts are integers, a number for each text of the expressions."""

    def __init__(self, kinds: _Kinds) -> None:
        self._z3 = _solver_library()
        self._kinds = kinds
        self.texts: dict[str, int] = {}
        self.symbols: dict[str, Any] = {}

    def formula(self, node: Node) -> Any:
        """The term of an expression. Raises `_Undecided`."""
        return self._term(node, BOOL)

    def _term(self, node: Node, kind: str) -> Any:
        if node.sort == "constant":
            return self._constant(node.value, kind)
        text = _variable(node)
        if text is not None:
            return self._symbol(text, NUMBER if node.sort == "call" else self._kinds.of(text), kind)
        if node.sort != "call":
            raise _Undecided(f"`{unparse(node)}` is not analysed")
        if node.name == _CHOICE:
            condition, yes, no = node.nodes
            return self._z3.If(self._term(condition, BOOL), self._term(yes, kind), self._term(no, kind))
        if kind == NUMBER:
            return self._arithmetic(node)
        if kind == BOOL:
            return self._bool(node)
        raise _Undecided(f"`{unparse(node)}` is not analysed")

    def _symbol(self, text: str, kind: str, expected: str) -> Any:
        if kind != expected:
            raise _Undecided(f"{text} is read as a {kind} and as a {expected}")
        if text not in self.symbols:
            make = {NUMBER: self._z3.Real, TEXT: self._z3.Int, BOOL: self._z3.Bool}[kind]
            self.symbols[text] = make(text)
        return self.symbols[text]

    def _constant(self, value: object, kind: str) -> Any:
        if _kind_of(value) != kind:
            raise _Undecided(f"`{unparse(Node(0, 'constant', value=value))}` is no {kind}")
        if isinstance(value, bool):
            return self._z3.BoolVal(value)
        if isinstance(value, str):
            return self._z3.IntVal(self.texts.setdefault(value, len(self.texts)))
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise _Undecided(f"{value} is not analysed")
        return self._z3.RealVal(str(Fraction(value)))

    def _arithmetic(self, node: Node) -> Any:
        if node.name not in _ARITHMETIC:
            raise _Undecided(f"`{unparse(node)}` is not analysed")
        terms = [self._term(each, NUMBER) for each in node.nodes]
        if node.name == "-_":
            return -terms[0]
        left, right = terms
        if node.name == "_+_":
            return left + right
        if node.name == "_-_":
            return left - right
        fixed = [self._z3.simplify(term) for term in terms]
        constant = [self._z3.is_rational_value(term) for term in fixed]
        if node.name == "_*_" and any(constant):
            return left * right
        if node.name == "_/_" and constant[1] and fixed[1].as_fraction() != 0:
            return left / right
        raise _Undecided(f"`{unparse(node)}` is not linear")

    def _bool(self, node: Node) -> Any:
        if node.name in _LOGIC:
            terms = [self._term(each, BOOL) for each in node.nodes]
            join = {"_&&_": self._z3.And, "_||_": self._z3.Or, "!_": self._z3.Not}[node.name]
            return join(*terms)
        if node.name in _ORDER:
            left, right = node.nodes
            return _ORDER[node.name](self._term(left, NUMBER), self._term(right, NUMBER))
        if node.name in _EQUALITY:
            left, right = node.nodes
            kind = self._kinds.of_node(left) or self._kinds.of_node(right) or NUMBER
            equal = self._term(left, kind) == self._term(right, kind)
            return equal if node.name == "_==_" else self._z3.Not(equal)
        if node.name == "@in" and node.nodes[1].sort == "list":
            return self._member(*node.nodes)
        raise _Undecided(f"`{unparse(node)}` is not analysed")

    def _member(self, value: Node, choices: Node) -> Any:
        kind = self._kinds.of_node(value) or next((self._kinds.of_node(each) for each in choices.nodes), None) or NUMBER
        term = self._term(value, kind)
        return self._z3.Or([term == self._term(each, kind) for each in choices.nodes])


class _Question:
    """Some expressions over the same variables."""

    def __init__(self, expressions: Sequence[Expression], known: Mapping[str, str], ranges: Mapping[str, Range]) -> None:
        self._expressions, self._ranges = expressions, ranges
        roots = [_plain(parts(each).root) for each in expressions]
        self._kinds = _Kinds(roots, known)
        boxes = [] if ranges else [_box(root, self._kinds) for root in roots]
        self._boxes = [each for each in boxes if each is not None]
        if len(self._boxes) == len(roots):
            return
        self._z3 = _solver_library()
        self._translator = _Translator(self._kinds)
        self.terms = [self._translator.formula(root) for root in roots]

    def example(self, *wanted: bool) -> Values | None:
        """Values for which the first expressions have these verdicts; None if there are none. Raises `_Undecided`."""
        if len(self._boxes) == len(self._expressions):
            found = _box_example(self._boxes, wanted)
            return None if found is None else _confirmed(self._expressions, found, wanted, self._ranges)
        solver = self._z3.SolverFor("QF_LIRA")
        solver.set("rlimit", STEPS)
        for text, symbol in self._translator.symbols.items():
            if text in self._ranges and symbol.sort() == self._z3.RealSort():
                low, high = self._ranges[text]
                solver.add(symbol >= self._z3.RealVal(str(Fraction(low))), symbol <= self._z3.RealVal(str(Fraction(high))))
        for term, value in zip(self.terms, wanted, strict=False):
            solver.add(term if value else self._z3.Not(term))
        answer = solver.check()
        if answer == self._z3.unsat:
            return None
        if answer != self._z3.sat:
            raise _Undecided("the question takes the solver too long")
        return _confirmed(self._expressions, self._values(solver.model()), wanted, self._ranges)

    def _values(self, model: Any) -> dict[str, float | str | bool]:
        names = {number: text for text, number in self._translator.texts.items()}
        values: dict[str, float | str | bool] = {}
        for text, symbol in sorted(self._translator.symbols.items()):
            value = model.eval(symbol, model_completion=True)
            if symbol.sort() == self._z3.RealSort():
                values[text] = float(value.as_fraction())
            elif self._kinds.of(text) == BOOL:
                values[text] = bool(self._z3.is_true(value))
            else:
                number = value.as_long()
                values[text] = names.get(number, _other_text(names.values()))
        return values


# --- intervals: comparisons with numbers, without the solver ------------------------------------------------------------------


class _Interval(NamedTuple):
    """The numbers between two ends."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = True
    """The end is not among them."""
    high_open: bool = True

    @property
    def is_empty(self) -> bool:
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def meet(self, other: "_Interval") -> "_Interval":
        """The numbers of both."""
        low, low_open = max((self.low, self.low_open), (other.low, other.low_open))
        high, closed = min((self.high, not self.high_open), (other.high, not other.high_open))
        return _Interval(low, high, low_open, not closed)

    def outside(self) -> tuple["_Interval", "_Interval"]:
        """The numbers above it, and those below."""
        return _Interval(low=self.high, low_open=not self.high_open), _Interval(high=self.low, high_open=not self.low_open)

    def some(self) -> float:
        """A number of it: an end, zero or a number near an end."""
        if self.low < 0 < self.high:
            return 0.0
        if not self.low_open:
            return float(self.low)
        if not self.high_open:
            return float(self.high)
        if math.isinf(self.low):
            return self.high - 1.0
        return self.low + 1.0 if math.isinf(self.high) else self.low + (self.high - self.low) / 2


_Box = Mapping[str, _Interval]
"""The numbers that each variable may have, independent of the others; a variable that is left out may have any."""


def _box(node: Node, kinds: "_Kinds") -> _Box | None:
    """The values that satisfy an expression; None for one that is not made of `&&` and comparisons of a variable with a number."""
    if node.name == "_&&_":
        joined: dict[str, _Interval] = {}
        for each in node.nodes:
            box = _box(each, kinds)
            if box is None:
                return None
            joined |= {name: joined.get(name, _Interval()).meet(interval) for name, interval in box.items()}
        return joined
    if node.sort != "call" or (node.name not in _ORDER and node.name != "_==_"):
        return None
    left, right = node.nodes
    name = node.name
    if left.sort == "constant":
        left, right, name = right, left, _MIRRORED.get(name, name)
    text, limit = _variable(left), right.value
    if text is None or right.sort != "constant" or isinstance(limit, bool) or not isinstance(limit, int | float):
        return None
    if not math.isfinite(limit) or kinds.of(text) != NUMBER:
        return None
    return {text: _INTERVALS[name](limit)}


_MIRRORED: Final = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_"}

_INTERVALS: Final[Mapping[str, Callable[[float], _Interval]]] = {
    "_<_": lambda limit: _Interval(high=limit),
    "_<=_": lambda limit: _Interval(high=limit, high_open=False),
    "_>_": lambda limit: _Interval(low=limit),
    "_>=_": lambda limit: _Interval(low=limit, low_open=False),
    "_==_": lambda limit: _Interval(limit, limit, low_open=False, high_open=False),
}


def _box_example(boxes: Sequence[_Box], wanted: Sequence[bool]) -> dict[str, float | str | bool] | None:
    """A point inside of the boxes that are wanted, and outside of the other one, of which there is at most one."""
    inside = {text: _Interval() for box in boxes for text in box}
    outer: _Box | None = None
    for box, is_wanted in zip(boxes, wanted, strict=False):
        if is_wanted:
            inside |= {text: inside[text].meet(interval) for text, interval in box.items()}
        else:
            outer = box
    if any(each.is_empty for each in inside.values()):
        return None
    if outer is None:
        return {text: each.some() for text, each in inside.items()}
    for text, interval in outer.items():
        for part in (_Interval(),) if interval.is_empty else interval.outside():
            found = inside[text].meet(part)
            if not found.is_empty:
                return {name: (found if name == text else each).some() for name, each in inside.items()}
    return None


def _confirmed(
    expressions: Sequence[Expression], values: dict[str, float | str | bool], wanted: Sequence[bool], ranges: Mapping[str, Range]
) -> Values:
    """The example with as few digits as it needs. Raises `_Undecided` if the evaluator does not confirm it."""
    if any(text.endswith(")") for text in values):
        return values  # the evaluator has no samples: the numbers of the solver stand
    for digits in (0, 1, 2, 4, 8):
        rounded = {text: round(value, digits) + 0.0 if type(value) is float else value for text, value in values.items()}
        if _in_ranges(rounded, ranges) and _confirms(expressions, rounded, wanted):
            return rounded
    if _confirms(expressions, values, wanted):
        return values
    raise _Undecided("only the rounding of numbers makes a difference")


def _in_ranges(values: Values, ranges: Mapping[str, Range]) -> bool:
    return all(low <= value <= high for text, (low, high) in ranges.items() if type(value := values.get(text)) is float)


def _confirms(expressions: Sequence[Expression], values: Values, wanted: Sequence[bool]) -> bool:
    given = _nested(values)
    verdicts = [Verdict.SATISFIED if each else Verdict.VIOLATED for each in wanted]
    return all(expression.evaluate(given).verdict is verdict for expression, verdict in zip(expressions, verdicts, strict=False))


def _other_text(texts: Iterable[str]) -> str:
    """A text that is none of these."""
    taken, number = set(texts), 1
    while f"other{number}" in taken:
        number += 1
    return f"other{number}"


def _nested(values: Values) -> dict[str, object]:
    """Values by top-level name: `robot.speed` is the field of a map."""
    nested: dict[str, Any] = {}
    for text, value in values.items():
        *path, last = text.split(".")
        place = nested
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return nested


# --- edits ------------------------------------------------------------------------------------------------------------------


def compare_expressions(old: str, new: str, kinds: Mapping[str, str] | None = None) -> Part:
    """The effect of a new `when` in place of the old, with an example of each direction in turn: of the loosening first.

    `kinds`: the kinds of variables where they are known, as of `compile_expression`. Raises `AnalysisUnavailable`.
    """
    if old == new:
        return Part("when", Effect.SAME)
    try:
        question = _Question([_compiled(old), _compiled(new)], kinds or {}, {})
        loosened = question.example(False, True)
        tightened = question.example(True, False)
    except _Undecided as error:
        return Part("when", Effect.UNDECIDED, why=str(error))
    if loosened is not None and tightened is not None:
        return Part("when", Effect.BOTH, loosened)
    if loosened is not None:
        return Part("when", Effect.LOOSENS, loosened)
    return Part("when", Effect.SAME) if tightened is None else Part("when", Effect.TIGHTENS, tightened)


def compare_definitions(old: Definition, new: Definition, kinds: Mapping[str, str] | None = None) -> Edit:
    """The meaning of replacing a definition: by its `when`, and by the fields that say where, how long and how severely it holds.

    A longer `for`, a shorter `clear_after`, a lower severity, an earlier end, a choice for unknown or a mode that is less strict, a
    longer `max_age`, and a selector that fewer nodes can match loosen it. Without the solver, expressions that need it are
    undecided.
    """
    if old.meaning or new.meaning:
        return Edit((Part("when", Effect.UNDECIDED, why="it was written by a later version of constraint-crdt"),))
    fleet = Scope.FLEET in (old.scope, new.scope)
    if old.scope is not new.scope or fleet:
        same = (old.scope, old.when, old.clear_when) == (new.scope, new.when, new.clear_when)
        found = [] if same else [Part("when", Effect.UNDECIDED, why="expressions over the fleet are not analysed")]
    else:
        found = list(_compare_texts(old, new, kinds))
    found += [Part(field, Effect.LOOSENS if loosens else Effect.TIGHTENS) for field, loosens in _compare_fields(old, new)]
    found += _compare_selectors_of(old, new, fleet=fleet)
    if old.max_age != new.max_age:
        found.append(_compare_ages(old, new))
    if old.each != new.each:
        found.append(Part("each", Effect.UNDECIDED, why="other values are judged, those of other instances"))
    return Edit(tuple(found))


def merge_edits(edits: Sequence[Edit]) -> Edit:
    """The edits of several definitions into the same one, or of one on several nodes, as one: a field loosens if it loosens any."""
    found: dict[str, Part] = {}
    for part in (part for edit in edits for part in edit.parts):
        known = found.setdefault(part.field, part)
        both = {known.effect, part.effect}
        if Effect.BOTH in both or {Effect.TIGHTENS, Effect.LOOSENS} <= both:
            loosening = known if known.effect is not Effect.TIGHTENS else part
            found[part.field] = loosening._replace(effect=Effect.BOTH)
        elif part.effect is Effect.LOOSENS or known.effect is Effect.UNDECIDED:
            found[part.field] = part  # a loosening counts, also beside one that is not decided
    return Edit(tuple(found.values()))


def _compare_texts(old: Definition, new: Definition, kinds: Mapping[str, str] | None) -> Iterator[Part]:
    for field in ("when", "clear_when"):
        before, after = getattr(old, field), getattr(new, field)
        if before == after:
            continue
        if field == "when" and (before is None or after is None):
            yield Part(field, Effect.TIGHTENS if before is None else Effect.LOOSENS)
            continue
        try:
            part = compare_expressions(before or "true", after or "true", kinds)
        except AnalysisUnavailable as error:
            part = Part(field, Effect.UNDECIDED, why=str(error))
        if part.effect is not Effect.SAME:
            yield part._replace(field=field)


_STRICTNESS = {IfUnknown.SATISFIED: 0, IfUnknown.UNKNOWN: 1, IfUnknown.VIOLATED: 2}
_SAME_END: Final = 1_000_000
"""Ends that differ by less, in ns, are the same: forms and files have microseconds."""

_FORCE = {Mode.AUDIT: 0, Mode.WARN: 1, Mode.ENFORCE: 2}


def _compare_fields(old: Definition, new: Definition) -> Iterator[tuple[str, bool]]:
    """The fields whose change has a direction, with True for a field that loosens."""
    if old.for_ != new.for_:
        yield "for", new.for_ > old.for_
    if old.clear_after != new.clear_after:
        yield "clear_after", new.clear_after < old.clear_after
    if old.severity is not new.severity:
        yield "severity", new.severity.rank < old.severity.rank
    if old.if_unknown is not new.if_unknown:
        yield "if_unknown", _STRICTNESS[new.if_unknown] < _STRICTNESS[old.if_unknown]
    if old.mode is not new.mode:
        yield "mode", _FORCE[new.mode] < _FORCE[old.mode]
    if old.expires_at != new.expires_at:
        ends = [math.inf if each.expires_at is None else each.expires_at for each in (old, new)]
        if abs(ends[1] - ends[0]) >= _SAME_END:
            yield "until", ends[1] < ends[0]


def _compare_ages(old: Definition, new: Definition) -> Part:
    """The effect of another `max_age`: a value that is too old makes the constraint unknown."""
    if old.max_age is None or new.max_age is None:
        return Part("max_age", Effect.UNDECIDED, why="each node sets the age that counts without it")
    longer = new.max_age > old.max_age
    strict = IfUnknown.SATISFIED not in (old.if_unknown, new.if_unknown)
    why = "older values count" if longer else "older values count no more"
    return Part("max_age", Effect.LOOSENS if longer is strict else Effect.TIGHTENS, why=why)


def _compare_selectors_of(old: Definition, new: Definition, *, fleet: bool) -> Iterator[Part]:
    effect = _compare_selectors(old.selector, new.selector)
    if effect is Effect.SAME:
        return
    if fleet:
        yield Part("on", Effect.UNDECIDED, why="a constraint of scope fleet is about other nodes now")
        return
    left, came = _example_node(old.selector, new.selector), _example_node(new.selector, old.selector)
    told = [f"a node with {node} {words}" for node, words in ((left, "is left out"), (came, "is added")) if node]
    yield Part("on", effect, why=" and ".join(told))


def _compare_selectors(old: Selector, new: Selector) -> Effect:
    if _within(new, old):
        return Effect.SAME if _within(old, new) else Effect.LOOSENS
    return Effect.TIGHTENS if _within(old, new) else Effect.BOTH


# --- selectors ------------------------------------------------------------------------------------------------------------------

_ANY: Final = ""
"""Stands for all values of a label that no requirement names."""


def _values_of(selectors: Iterable[Selector]) -> dict[str, set[str]]:
    """The labels that selectors name, each with the values that they name."""
    named: dict[str, set[str]] = {}
    for selector in selectors:
        for key, value in selector.equal:
            named.setdefault(key, set()).add(value)
        for each in selector.requirements:
            named.setdefault(each.key, set()).update(each.values)
    return named


def _allowed(selector: Selector, key: str, values: Iterable[str]) -> set[str | None]:
    """The values of a label, None for a missing label, with which a node can match the selector."""
    equal = tuple(pair for pair in selector.equal if pair[0] == key)
    own = Selector(equal, tuple(each for each in selector.requirements if each.key == key))
    choices = [*values, _ANY]
    found: set[str | None] = {value for value in choices if own.matches({key: value})}
    return found | {None} if own.matches({}) else found


def _within(narrow: Selector, wide: Selector) -> bool:
    """True if each node that matches the first selector matches the second. A selector requires something of each label alone, so
    the labels can be looked at one by one.
    """
    named = _values_of((narrow, wide))
    allowed = {key: (_allowed(narrow, key, values), _allowed(wide, key, values)) for key, values in named.items()}
    return any(not one for one, _ in allowed.values()) or all(one <= other for one, other in allowed.values())


def _example_node(wide: Selector, narrow: Selector) -> str:
    """The labels of a node that matches the first selector and not the second, as text; empty without one."""
    named = _values_of((narrow, wide))
    matching = {key: _allowed(wide, key, values) for key, values in named.items()}
    if not all(matching.values()):
        return ""
    for key, values in named.items():
        outside = matching[key] - _allowed(narrow, key, values)
        if outside:
            chosen = {each: outside if each == key else found for each, found in matching.items()}
            return ", ".join(_label(each, found) for each, found in sorted(chosen.items()) if each == key or None not in found)
    return ""


def _label(key: str, values: set[str | None]) -> str:
    """A label with a value of these, as text."""
    named = sorted(each for each in values if each)
    return f"{key}={named[0]}" if named else f"no label {key}" if None in values else f"a label {key}"


def _meet(one: Selector, other: Selector) -> bool:
    """True if some node can match both selectors."""
    return all(_allowed(one, key, values) & _allowed(other, key, values) for key, values in _values_of((one, other)).items())


# --- a set of constraints -----------------------------------------------------------------------------------------------------


def lint(
    rules: Sequence[Rule],
    *,
    ranges: Mapping[str, Range] | None = None,
    kinds: Mapping[str, str] | None = None,
    measured: Iterable[str] = (),
    parameters: Iterable[str] = (),
) -> list[Finding]:
    """The faults of these constraints, each alone and in pairs that apply to a common node.

    `ranges`: the lowest and highest value of variables. `kinds`: as of `compile_expression`. `measured`: the names that some node
    measures. `parameters`: the names of those that are set. Several rules of one id are definitions in conflict. Raises
    `AnalysisUnavailable`.
    """
    _solver_library()
    checker = _Checker(ranges or {}, kinds or {})
    findings = [
        *_conflicts(rules),
        *_misspelt(rules, {variable_of(name) for name in measured}),
        *_misspelt_parameters(rules, parameters),
    ]
    decided: list[tuple[Rule, Expression]] = []
    for rule in rules:
        if rule.definition.when is None or rule.definition.scope is Scope.FLEET:
            continue
        found = checker.alone(rule)
        findings += found
        if not found:
            decided.append((rule, _compiled(rule.definition.when)))
    pairs = 0
    for (one, first), (other, second) in combinations(decided, 2):
        if one.id == other.id or not first.variables & second.variables:
            continue
        if not _meet(one.definition.selector, other.definition.selector):
            continue
        pairs += 1
        if pairs > MOST_PAIRS:
            text = f"more than {MOST_PAIRS} pairs of constraints share a variable: the pairs from this one on are not compared"
            findings.append(Finding(Fault.UNDECIDED, (one.id, other.id), text))
            break
        findings += checker.pair(one, other)
    return findings


def _compiled(source: str) -> Expression:
    return compile_expression(source, checked=False)


class _Checker:
    def __init__(self, ranges: Mapping[str, Range], kinds: Mapping[str, str]) -> None:
        self._ranges, self._kinds = ranges, kinds

    def _question(self, *definitions: Definition) -> _Question:
        return _Question([_compiled(each.when or "true") for each in definitions], self._kinds, self._ranges)

    def alone(self, rule: Rule) -> list[Finding]:
        """The fault of a single constraint; empty without a fault."""
        try:
            question = self._question(rule.definition)
            if question.example(True) is None:
                return [Finding(Fault.NEVER, (rule.id,), "no values satisfy it")]
            if question.example(False) is None:
                return [Finding(Fault.ALWAYS, (rule.id,), "no values violate it")]
        except _Undecided as error:
            return [Finding(Fault.UNDECIDED, (rule.id,), str(error))]
        return []

    def pair(self, one: Rule, other: Rule) -> Iterator[Finding]:
        """The faults of two constraints, each of which can hold and be violated."""
        try:
            question = self._question(one.definition, other.definition)
            if question.example(True, True) is None:
                yield Finding(Fault.CONTRADICTION, (one.id, other.id), "no values satisfy both")
                return
            implies, implied = question.example(True, False) is None, question.example(False, True) is None
        except _Undecided:
            return  # each alone is decided, and a pair of correlated variables is no fault
        first, second = one.definition.selector, other.definition.selector
        if implies and _within(second, first):
            yield Finding(Fault.IMPLIED, (other.id, one.id), f"it holds wherever {one.id} holds")
        elif implied and _within(first, second):
            yield Finding(Fault.IMPLIED, (one.id, other.id), f"it holds wherever {other.id} holds")


def _conflicts(rules: Sequence[Rule]) -> Iterator[Finding]:
    for id_, count in Counter(rule.id for rule in rules).items():
        if count > 1:
            text = (
                f"it has {count} definitions by concurrent edits, all in force: keep one, or join them (`constraint-crdt resolve`)"
            )
            yield Finding(Fault.CONFLICT, (id_,), text)


def _misspelt(rules: Sequence[Rule], measured: Collection[str]) -> Iterator[Finding]:
    """Variables of a constraint that are nearly named as a variable that a node measures, or that several constraints read; and
    pairs of names that differ by a slip of the keys, of which each is read by one constraint.
    """
    readers: dict[str, list[str]] = {}
    for rule in rules:
        if rule.definition.when is not None and rule.definition.scope is not Scope.FLEET:
            for name in measured_names(_compiled(rule.definition.when).variables):
                readers.setdefault(name, []).append(rule.id)
    sure = {name for name, ids in readers.items() if len(set(ids)) > 1} | set(measured)
    unsure = list[str]()
    for name, ids in sorted(readers.items()):
        if name in sure:
            continue
        if near := close_to(name, sure, cutoff=0.8):
            yield Finding(Fault.MISSPELT, tuple(dict.fromkeys(ids)), f"nothing else reads or measures {name}: is it {near[0]}?")
        else:
            unsure.append(name)
    for one, other in combinations(unsure, 2):
        if _is_slip(one, other):
            both = tuple(dict.fromkeys([*readers[one], *readers[other]]))
            yield Finding(
                Fault.MISSPELT, both, f"{one} and {other} are read once each, and nearly the same: is one of them the other?"
            )


def _misspelt_parameters(rules: Sequence[Rule], known: Iterable[str]) -> Iterator[Finding]:
    """Parameters that are not set, and are nearly named as one that is."""
    names = set(known)
    for rule in rules:
        for name in sorted(read_parameters(rule.definition) - names):
            if near := close_to(name, names, cutoff=0.8):
                text = f"the parameter {name} is not set: is it {PARAM}.{near[0]}?"
                yield Finding(Fault.MISSPELT, (rule.id,), text)


def _is_slip(one: str, other: str) -> bool:
    """True if a letter of a long word was left out, typed twice or changed places with the next one. Another letter or digit may be
    meant, as in `temp_a` and `temp_b`.
    """
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) == 1:
        place = next((at for at, letter in enumerate(short) if letter != long[at]), len(short))
        slips = short[place:] == long[place + 1 :] and long[place].isalpha()
    else:
        apart = [at for at, (before, after) in enumerate(zip(one, other, strict=False)) if before != after]
        slips = len(one) == len(other) and len(apart) == 2 and apart[1] - apart[0] == 1
        place = apart[0] if apart else 0
        slips = slips and one[place] == other[place + 1] and one[place + 1] == other[place]
    end = long.find("_", place)
    word = long[long.rfind("_", 0, place) + 1 : len(long) if end < 0 else end]
    return slips and len(word) > 4
