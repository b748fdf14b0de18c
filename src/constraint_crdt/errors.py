"""The errors of the package. Each is a `ConstraintCrdtError`.

Rules kept here:

- An error is also a `KeyError`, `ValueError`, `TypeError` or `RuntimeError` where Python code expects that: an unknown name, a
  value out of bounds, a value of a wrong type, a call at a wrong time.
- `str()` is a sentence for a person, also of an error that is a `KeyError`.
- An error names the field at fault as data (`field`): a server or a form shows it there, and never searches the sentence for it.
"""

from collections.abc import Mapping

__all__ = [
    "ClockInDoubt",
    "ConstraintCrdtError",
    "ConstraintExists",
    "ConstraintInConflict",
    "CountTooLarge",
    "GuardBroken",
    "HoldLost",
    "InvalidType",
    "InvalidValue",
    "LifecycleError",
    "LooseningRefused",
    "NoRights",
    "NotKept",
    "NotPermitted",
    "StoreError",
    "StoreMissing",
    "UnknownConstraint",
    "UnknownName",
    "WritesRefused",
    "WrongThread",
]


class ConstraintCrdtError(Exception):
    """Input is refused: malformed, oversized, of another fleet or version, or against a limit.

    Nothing has changed when it is raised. `str()` is a sentence for the person who has to act on it.
    """

    field: str | None = None
    """The field or parameter at fault, if known."""

    def __init__(self, *message: object, field: str | None = None) -> None:
        """`message`: a sentence. `field`: the field or parameter at fault."""
        super().__init__(*message)
        if field is not None:
            self.field = field

    def __str__(self) -> str:
        return Exception.__str__(self)  # that of `KeyError` is the `repr` of the message


class InvalidValue(ConstraintCrdtError, ValueError):
    """A value is out of bounds, for example a negative count."""


class InvalidType(ConstraintCrdtError, TypeError):
    """A value has a wrong type, for example a number where a text is needed."""


class UnknownName(ConstraintCrdtError, KeyError):
    """A constraint, node, tile, counter or other item is not known here. `args[0]` is its name, as in a `KeyError` of Python."""

    def __init__(self, name: object, kind: str = "item", *, field: str | None = None) -> None:
        """`kind`: the word for the item. `field`: the field or parameter at fault."""
        super().__init__(name, field=field)
        self.name = name
        """The unknown name; of a tile the pair of room and id."""
        self.kind = kind
        """The word for the item."""

    def __str__(self) -> str:
        return f"there is no {self.kind} {self.name!r} here"


class UnknownConstraint(UnknownName):
    """A constraint is not active here."""

    def __init__(self, name: object, kind: str = "constraint", *, field: str | None = None) -> None:
        """`name`: the id of the constraint."""
        super().__init__(name, kind, field=field)

    def __str__(self) -> str:
        return f"no constraint {self.name!r} is active here"


class ConstraintExists(ConstraintCrdtError):
    """A constraint to be added as new is active here."""

    def __init__(self, name: str) -> None:
        """`name`: the id of the constraint."""
        super().__init__(f"{name} is active already, and was to be added as a new one: edit it, or choose another id", field="new")
        self.name = name


class ConstraintInConflict(ConstraintCrdtError):
    """A constraint has several different definitions, by concurrent edits, where an operation needs a single definition."""

    def __init__(self, name: str, count: int) -> None:
        """`name`: the id of the constraint. `count`: the number of its definitions."""
        message = f"{name} has {count} definitions in conflict, all in force: keep one, or join them (`constraint-crdt resolve`)"
        super().__init__(message)
        self.name = name


class LooseningRefused(ConstraintCrdtError):
    """An edit loosens a critical constraint, and does not say that this is meant. Nothing was changed."""

    def __init__(self, loosened: Mapping[str, str]) -> None:
        """`loosened`: what loosens each of the constraints, by id."""
        shown = [f"{id_}: {text}" for id_, text in list(loosened.items())[:_SHOWN]]
        more = len(loosened) - len(shown)
        if len(loosened) == 1:
            ((id_, text),) = loosened.items()
            told = f"{id_} is critical, and this loosens it: {text}"
        else:
            told = (
                f"this loosens {len(loosened)} critical constraints: " + "; ".join(shown) + (f"; and {more} more" if more else "")
            )
        super().__init__(f"{told}: say --loosen if that is meant (`loosen` in Python and in the API)", field="loosen")
        self.loosened = loosened


_SHOWN = 5
"""Constraints of which a sentence says what loosens them."""


class CountTooLarge(ConstraintCrdtError):
    """A cumulative count, sum or time would exceed 2**63 - 1. Other counts are not affected."""


class LifecycleError(ConstraintCrdtError, RuntimeError):
    """A call came at a wrong time: before the start of a node or server, after its stop, or as a second start."""


class ClockInDoubt(ConstraintCrdtError):
    """A write that depends on the time is refused: the clock of the node is in doubt, and the time of the fleet is not known."""


class NoRights(ConstraintCrdtError):
    """An amount of a budget cannot be held here and now. `str()` says who has free rights, as far as the node knows."""


class HoldLost(ConstraintCrdtError):
    """A hold of a budget ended before its release: its rights ran out, or it could not be renewed. The work must stop."""


class GuardBroken(ConstraintCrdtError):
    """A guarded constraint does not hold on this node, or cannot be decided; `str()` says which. The work must stop."""


class NotKept(ConstraintCrdtError, LookupError):
    """An earlier version of a rule, or a time, of which the history has no or not all changes. Nothing was reverted."""


class NotPermitted(ConstraintCrdtError, PermissionError):
    """The role of a node in its fleet does not allow a change, or the writer of a row did not have the right to it."""


class WrongThread(ConstraintCrdtError, RuntimeError):
    """A call came from another thread or event loop than those of the node."""


class StoreError(ConstraintCrdtError):
    """A store cannot be opened or used. `str()` is a sentence with advice."""


class StoreMissing(StoreError, InvalidValue):
    """There is no store in the file that was named."""


class WritesRefused(StoreError):
    """A store takes no writes now: disk full, read-only, failing. The state on disk stays as it was; a retry is safe."""
