"""Which constraints are active, with their definitions: an add-wins OR-set.

An add is a cell under the constraint's id in its writer's row; a constraint is active while any add cell of it stands. A removal
names the add-dots it observed, so an add that it did not observe wins. Concurrent edits leave several definitions: *all* of them
are in force until somebody edits again, which replaces them all.
"""

import enum
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from constraint_crdt.core.cells import ADD, Cell, definition_value, make_cell, make_removal
from constraint_crdt.core.limits import ABOUT_BYTES, WHEN_BYTES
from constraint_crdt.core.replica import Dot, Replica, check_id
from constraint_crdt.core.rows import dots_of
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.view import View, writer

DOTS_PER_REMOVAL = 100
"""So many always fit into a cell. A fleet that applies one file on every node has an add of each constraint per node."""


class Severity(enum.StrEnum):
    """How much a violation matters to people; it changes nothing in how a constraint is evaluated."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


_LEVELS = tuple(Severity)


class Definition(NamedTuple):
    """What a constraint says. Two definitions are equal if they say the same."""

    when: str | None = None
    """The CEL expression that must hold; None: the constraint is listed, not evaluated."""
    severity: Severity = Severity.WARNING
    about: str | None = None


class Addition(NamedTuple):
    """A definition that stands, and the mutation that put it there."""

    definition: Definition
    dot: Dot


class Change(enum.StrEnum):
    """What adding did."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


class ConstraintORSet(View):
    """The active constraints. `in`, `len` and iteration are over constraint ids; `in` and `len` are O(1).

    The table of add cells is the reading, so there is nothing to keep beside it.
    """

    KINDS = (ADD,)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._rows.table(ADD)

    def __len__(self) -> int:
        return len(self._rows.table(ADD))

    def __iter__(self) -> Iterator[str]:
        return (str(id_) for id_ in self._rows.table(ADD))

    def __repr__(self) -> str:
        return f"ConstraintORSet({sorted(self)})"

    def additions(self, id_: str) -> tuple[Addition, ...]:
        """The definitions in force for one constraint, ordered by dot; more than one is a conflict. Empty if not active."""
        cells = sorted(self._rows.held(ADD, id_), key=lambda cell: (cell.replica, cell.seq))
        return tuple(Addition(_definition(cell), Dot(cell.replica, cell.seq)) for cell in cells)

    def definitions(self, id_: str) -> tuple[Definition, ...]:
        """The different definitions in force for one constraint. Empty if it is not active."""
        return tuple(dict.fromkeys(addition.definition for addition in self.additions(id_)))

    def add(
        self,
        id_: str,
        *,
        node: str | Replica,
        when: str | None = None,
        severity: str = Severity.WARNING,
        about: str | None = None,
    ) -> Change:
        """Make a constraint active with this definition, in place of the definitions observed so far.

        Adding what is already in force changes nothing. Raises `ConstraintCrdtError` if a part is out of bounds.
        """
        definition = check_definition(when, severity, about)
        check_id(id_, "a constraint id")
        replica = writer(node)
        observed = self._rows.held(ADD, id_)
        if observed and self.definitions(id_) == (definition,):
            return Change.UNCHANGED
        others = [held for held in observed if held.replica != replica]  # this row's own earlier add is taken over by the new one
        self._rows.write_all(replica, [make_cell(ADD, id_, _value(definition)), *_removals(id_, others)])
        return Change.REPLACED if observed else Change.ADDED

    def remove(self, id_: str, *, node: str | Replica) -> None:
        """End a constraint: removes every add of it that is known here. Raises `KeyError` if it is not active."""
        observed = self._rows.held(ADD, id_)
        if not observed:
            raise KeyError(id_)
        self._rows.write_all(writer(node), _removals(id_, observed))


def check_definition(when: str | None, severity: str, about: str | None) -> Definition:
    """Make a `Definition`, or raise `ConstraintCrdtError` if a part of it is out of bounds. Does not compile `when`."""
    try:
        level = Severity(severity)
    except ValueError:
        raise ConstraintCrdtError(f"severity must be one of {', '.join(_LEVELS)}, not {severity!r}") from None
    for what, text, limit in (("when", when, WHEN_BYTES), ("about", about, ABOUT_BYTES)):
        if text is not None and len(text.encode(errors="replace")) > limit:
            raise ConstraintCrdtError(f"{what} must have at most {limit} bytes")
    return Definition(when or None, level, about or None)


def _removals(id_: str, observed: Sequence[Cell]) -> list[Cell]:
    """As many removals as it takes to name the adds observed."""
    starts = range(0, len(observed), DOTS_PER_REMOVAL)
    return [make_removal([(id_, dots_of(observed[start : start + DOTS_PER_REMOVAL]))]) for start in starts]


def _value(definition: Definition) -> list[object] | None:
    value: list[object] = [definition.when, _LEVELS.index(definition.severity), definition.about]
    defaults: list[object] = [None, _LEVELS.index(Severity.WARNING), None]
    while value and value[-1] == defaults[len(value) - 1]:
        value.pop()
    return value or None


def _definition(cell: Cell) -> Definition:
    value = definition_value(cell)
    return Definition(value.when, _LEVELS[value.severity], value.about)
