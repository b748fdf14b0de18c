"""The audit: who caused which mutations, bounded for each life, read from the cells alone."""

import pytest

from constraint_crdt import ConstraintCrdtError, Replica
from constraint_crdt.crdt.cells import make_cell, read_cell
from constraint_crdt.crdt.clock import Dot
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.nodes import AUDIT, AUDIT_SLOTS, AuditLog

ME = Replica("forge", 1)


def note(
    state: ConstraintState, subject: str, *, changes: int = 1, time: int = 5, node: Replica = ME, actor: str = "alice"
) -> None:
    state.audit.note(actor, "add", subject, changes=changes, time=time, node=node)


def add(state: ConstraintState, *ids: str, node: Replica = ME) -> None:
    for id_ in ids:
        state.constraints.add(id_, node=node)


def test_an_entry_covers_the_mutations_before_it_and_no_other() -> None:
    state = ConstraintState()
    add(state, "before", "a", "b")
    note(state, "two", changes=2)
    add(state, "after")
    found = [state.audit.of(Dot(ME, seq)) for seq in range(1, 6)]
    assert [each and each.subject for each in found] == [None, "two", "two", None, None]
    assert state.audit.of(Dot(Replica("anvil", 1), 2)) is None
    (entry,) = state.audit
    assert entry == (5, Dot(ME, 4), "alice", "add", "two", 2, "")


def test_entries_of_all_rows_come_by_time() -> None:
    state = ConstraintState()
    other = Replica("anvil", 7)
    for time, node in ((30, ME), (10, other), (20, ME), (40, other)):
        note(state, str(time), time=time, node=node)
    assert [entry.subject for entry in state.audit] == ["10", "20", "30", "40"]
    assert len(state.audit) == 4


@pytest.mark.slow
def test_a_life_overwrites_its_oldest_entries() -> None:
    state = ConstraintState()
    for number in range(AUDIT_SLOTS + 3):
        add(state, str(number))
        note(state, str(number), time=number)
    note(state, "other", node=Replica("forge", 2), time=0)
    found = [entry.subject for entry in state.audit]
    assert found == ["other", *map(str, range(3, AUDIT_SLOTS + 3))]
    assert state.audit.of(Dot(ME, 1)) is None
    assert AuditLog(state.rows).of(Dot(ME, 7)) == state.audit.of(Dot(ME, 7)) is not None
    late = ConstraintState(state.rows)
    note(late, "next", time=AUDIT_SLOTS + 3)
    assert [entry.subject for entry in state.audit][1] == "4", "the slots go on"


def test_a_cell_is_small_whatever_it_is_about() -> None:
    state = ConstraintState()
    state.audit.note("ä" * 300, "o" * 300, "s" * 300, changes=2**63 - 1, time=2**63 - 1, node=ME)
    (cell,) = state.rows.each(AUDIT)
    assert len(cell.data) <= 200
    (entry,) = state.audit
    assert (entry.actor, entry.subject) == ("ä" * 30 + "…", "s" * 61 + "…")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("1000", [1, "a", "o"]),
        ("01", [1, "a", "o"]),
        ("x", [1, "a", "o"]),
        ("٣", [1, "a", "o"]),
        ("", [1, "a", "o"]),
        ("1", [-1, "a", "o"]),
        ("1", [1, "a", "o", "s", -1]),
        ("1", [1, "a" * 65, "o"]),
        ("1", [1, "a", "o" * 25]),
        ("1", [1, "a", "o", "s" * 65]),
    ],
)
def test_a_cell_out_of_bounds_is_refused(key: str, value: list[object]) -> None:
    with pytest.raises(ConstraintCrdtError):
        read_cell(make_cell(AUDIT, key, value).data)


def test_a_later_version_may_say_more() -> None:
    cell = read_cell(make_cell(AUDIT, "1", [1, "a", "o", "s", 2, "more"]).data)
    assert cell.kind == AUDIT
