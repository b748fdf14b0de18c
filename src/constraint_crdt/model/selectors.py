"""Selectors of nodes by their labels, in the syntax of Kubernetes: `zone in (a, b), model != x7, !spare`.

| requirement | a node matches |
|---|---|
| `rack=3`, `rack==3`, `rack in (3)` | the label `rack` has the value `3` |
| `zone in (a, b)` | the label `zone` has one of the values |
| `model!=x7`, `model notin (x7)` | the label `model` has another value, or the node has no such label |
| `spare` | the node has the label `spare`, with any value |
| `!spare` | the node has no label `spare` |

A node matches a selector if it matches each requirement. Beyond Kubernetes, keys and values are any text: a text with spaces at its
ends, commas, brackets or quotes is written in double quotes, with the escapes of JSON. A value without them may have spaces inside.
A selector has a single canonical form, so equal selectors are equal values.
"""

import enum
import json
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from constraint_crdt.errors import ConstraintCrdtError

Label = tuple[str, str]
"""A key and its value."""


class Operator(enum.StrEnum):
    """The relation of a requirement that is no equality."""

    EXISTS = "exists"
    ABSENT = "!"
    IN = "in"
    NOT_IN = "notin"


class Requirement(NamedTuple):
    """A requirement of a selector beyond equality."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()
    """Ordered; several of `in`, one or more of `notin`."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if a node with these labels matches. `notin` matches a node without the label, as in Kubernetes."""
        value = labels.get(self.key)
        if self.operator is Operator.EXISTS:
            return value is not None
        if self.operator is Operator.ABSENT:
            return value is None
        return (value in self.values) is (self.operator is Operator.IN)

    def __str__(self) -> str:
        """As it is parsed."""
        key = _written(self.key)
        if self.operator is Operator.EXISTS:
            return key
        if self.operator is Operator.ABSENT:
            return f"!{key}"
        if self.operator is Operator.NOT_IN and len(self.values) == 1:
            return f"{key}!={_written(self.values[0])}"
        return f"{key} {self.operator} ({', '.join(map(_written, self.values))})"


class Selector(NamedTuple):
    """Requirements on the labels of a node, in canonical order."""

    equal: tuple[Label, ...] = ()
    """Labels required of a node, ordered by key."""
    requirements: tuple[Requirement, ...] = ()
    """The requirements beyond equality, ordered."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if a node with these labels matches each requirement."""
        return all(labels.get(key) == value for key, value in self.equal) and all(
            each.matches(labels) for each in self.requirements
        )

    @property
    def is_everything(self) -> bool:
        """True without requirements: each node matches."""
        return not (self.equal or self.requirements)

    @property
    def specificity(self) -> int:
        """The number of requirements. Of several selectors for a node, that with the most is the most specific."""
        return len(self.equal) + len(self.requirements)

    def __str__(self) -> str:
        """As it is parsed, the equalities first; empty without requirements."""
        equal = [f"{_written(key)}={_written(value)}" for key, value in self.equal]
        return ", ".join([*equal, *map(str, self.requirements)])


EVERYTHING: Final = Selector()
"""Matches each node."""


class SelectorError(ConstraintCrdtError, ValueError):
    """A text that is no selector. `str()` is a sentence with the position."""


def make_selector(equal: Iterable[Label], requirements: Iterable[Requirement] = ()) -> Selector:
    """A selector in canonical form. Raises `SelectorError` for a label with two values."""
    required = dict[str, str]()
    others = set[Requirement]()
    singles = []
    for each in requirements:
        values = tuple(sorted(set(each.values)))
        if each.operator is Operator.IN and len(values) == 1:
            singles.append((each.key, values[0]))
        else:
            others.add(each._replace(values=values))
    for key, value in [*equal, *singles]:
        if required.setdefault(key, value) != value:
            raise SelectorError(
                f"on: the label {key} has two values; give one, or `{_written(key)} in ({_written(required[key])}, "
                f"{_written(value)})` for nodes with either",
                field="on",
            )
    return Selector(tuple(sorted(required.items())), tuple(sorted(others)))


_BARE: Final = re.compile(r'[^\s,()=!<>"]+')
"""A text that needs no quotes anywhere."""

_KEY: Final = _BARE
_VALUE: Final = re.compile(r'[^,()"]+')
_SPACE: Final = re.compile(r"\s*")
_SEVERAL: Final = re.compile(r"\s\S*[=!]|\s+\S+\s+(?:not)?in\s*\($")
"""In a value: a further requirement after a missing comma."""


def _written(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def parse_selector(text: str) -> Selector:
    """The selector in a text. Raises `SelectorError` with the position of a mistake, and for a text without a requirement."""
    return make_selector(*_Parser(text).parse())


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._skip()

    def parse(self) -> tuple[list[Label], list[Requirement]]:
        if self._at == len(self._text):
            raise SelectorError("the selector is empty: leave it out for all nodes", field="on")
        equal: list[Label] = []
        others: list[Requirement] = []
        while True:
            found = self._requirement()
            if isinstance(found, Requirement):
                others.append(found)
            else:
                equal.append(found)
            if self._at == len(self._text):
                return equal, others
            if not self._take(","):
                raise self._error("a comma between two requirements")

    def _requirement(self) -> Label | Requirement:
        if self._take("!"):
            return Requirement(self._word(_KEY, "a key after `!`"), Operator.ABSENT)
        key = self._word(_KEY, "the key of a label")
        if self._take("!="):
            return Requirement(key, Operator.NOT_IN, (self._value(),))
        if self._take("==") or self._take("="):
            return key, self._value()
        for operator in (Operator.NOT_IN, Operator.IN):
            if self._text.startswith(operator, self._at):
                self._at += len(operator)
                self._skip()
                return Requirement(key, operator, self._values(operator))
        return Requirement(key, Operator.EXISTS)

    def _values(self, operator: Operator) -> tuple[str, ...]:
        if not self._take("("):
            raise self._error(f"`(` after `{operator}`")
        found = [self._value()]
        while not self._take(")"):
            if not self._take(","):
                raise self._error("`,` or `)`")
            found.append(self._value())
        return tuple(found)

    def _value(self) -> str:
        start = self._at
        value = self._word(_VALUE, "a value")
        if self._text[start] != '"' and (several := _SEVERAL.search(self._text, start, self._at + 1)):
            self._at = several.start()
            raise self._error("a comma between two requirements, or a value in quotes")
        return value

    def _word(self, form: re.Pattern[str], what: str) -> str:
        """A text in quotes, or of a form without them."""
        if self._text.startswith('"', self._at):
            try:
                word, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
            except ValueError:
                raise self._error("a text in double quotes with the escapes of JSON") from None
        else:
            found = form.match(self._text, self._at)
            word = found[0].strip() if found else ""
            if found is None or not word:
                raise self._error(what)
            self._at = found.end()
        self._skip()
        return str(word)

    def _take(self, sign: str) -> bool:
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        self._skip()
        return True

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _error(self, expected: str) -> SelectorError:
        rest = self._text[self._at :].lstrip()
        before = f"not {rest[:12]!r}" if rest else "and the text ends"
        hint = ": a selector knows =, !=, in, notin and the presence of a label" if rest[:1] in ("<", ">") else ""
        place = len(self._text) - len(rest) + 1
        return SelectorError(
            f"on: {self._text!r} is no selector: expected {expected} at character {place}, {before}{hint}", field="on"
        )
