"""Histories as values and as files: what a failing seed leaves behind, to be replayed and shrunk.

A history is complete in itself: it holds every step, so it replays without the code that drew it, also in a later version.
"""

from collections.abc import Sequence

import msgspec

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.simulation.fleet import Fleet
from constraint_crdt.simulation.invariants import Violation
from constraint_crdt.simulation.liveness import settle
from constraint_crdt.simulation.steps import AnyStep, Member

FORMAT = "constraint-crdt history"
VERSION = 1
FILE_BYTES = 16 * 1024 * 1024
"""The largest file that is read."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet at its start, what happened to it, and what was found."""

    format: str = FORMAT
    version: int = VERSION
    seed: int
    """What it was drawn from; after shrinking only a name."""
    invariant: str
    """Which invariant did not hold."""
    sentence: str
    """What was wrong, in words."""
    members: tuple[Member, ...]
    steps: tuple[AnyStep, ...]


def replay(members: Sequence[Member], steps: Sequence[AnyStep]) -> Violation | None:
    """Carry out a history, and what follows when all faults stop; returns what does not hold in it, if anything."""
    try:
        fleet = Fleet(members)
        for step in steps:
            fleet.apply(step)
        settle(fleet)
    except Violation as found:
        return found
    return None


def to_json(history: History) -> str:
    """A history as the text of its file."""
    return msgspec.json.format(msgspec.json.encode(history), indent=1).decode() + "\n"


def from_json(data: bytes) -> History:
    """The history that a file holds. Raises `ConstraintCrdtError`, saying what to do, for anything else."""
    if len(data) > FILE_BYTES:
        raise ConstraintCrdtError(f"a history has at most {FILE_BYTES} bytes, not {len(data)}")
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.format != FORMAT:
            raise ConstraintCrdtError("this is no history: give a file that `simulate --chaos` wrote")
        if head.version != VERSION:
            raise ConstraintCrdtError(f"this history has version {head.version}, and this program reads {VERSION}: upgrade it")
        return msgspec.json.decode(data, type=History)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConstraintCrdtError(f"this is no history: {error}") from None


class _Head(msgspec.Struct):
    format: str = ""
    version: int = 0
