"""State files: what is written reads back as the same state, and what is not right is refused with one sentence."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState, Limits, Replica, StateFileError, from_json, to_json
from constraint_crdt.crdt.cells import make_cell
from constraint_crdt.crdt.clock import Digest
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.state import FORMAT, VERSION
from constraint_crdt.testing import laws_of, pairs, states
from tests.conftest import BUDGET

EXAMPLES = settings(max_examples=2000 if BUDGET == "nightly" else min(10, settings().max_examples))
LAWS = laws_of(ConstraintState)
FORGE = Replica("forge", 7)


def sample() -> ConstraintState:
    """A state with an active constraint, a removed one whose removal was collected, another whose removal stands, and counts."""
    state = ConstraintState()
    state.constraints.add("thermal", node=FORGE, when="gpu_temp_c < 85.0", severity="critical", about="hot", on={"zone": "a"})
    for gone in ("old", "older"):
        state.constraints.add(gone, node="anvil")
        state.constraints.remove(gone, node=FORGE)
        if gone == "old":
            state.rows.collect()
    state.metrics.record(FORGE, 3, 1, constraint="thermal")
    state.register.update((2, -1), node="anvil", time=5)
    state.rows.write(FORGE, make_cell(126, "future", [1, 2.5, b"x"]))
    return state


def everything(state: ConstraintState) -> object:
    """What a state file has to bring back."""
    rows = state.rows
    cells = {
        (run.replica, run.hi, run.floor): [(c.kind, c.key, c.seq, c.replica, c.data) for c in run.cells] for run in rows.whole()
    }
    return cells, rows.floors, state.clock, state.state_hash, LAWS.reading(state)


# --- what is written reads back ------------------------------------------------------------------------------------------


@pytest.mark.slow
@EXAMPLES
@given(state=states())
def test_a_state_comes_back_whole(state: ConstraintState) -> None:
    back = from_json(to_json(state))
    assert everything(back) == everything(state)
    assert back == state
    assert to_json(back) == to_json(state)
    assert from_json(to_json(state).encode()) == state


@pytest.mark.slow
@EXAMPLES
@given(states=pairs(LAWS))
def test_merging_files_is_merging_states(states: tuple[ConstraintState, ConstraintState]) -> None:
    a, b = states
    by_files = from_json(to_json(a))
    by_files.merge(from_json(to_json(b)))
    assert everything(by_files) == everything(a.merged(b))


def test_floors_removals_and_unknown_kinds_come_back() -> None:
    state = sample()
    back = from_json(to_json(state))
    assert back.rows.floors == state.rows.floors != {}
    assert everything(back) == everything(state)
    assert [cell.data for cell in back.rows.each(126)] == [cell.data for cell in state.rows.each(126)]
    assert len(list(back.rows.each(2))) == 1


def test_who_is_behind_the_floor_is_told_of_what_was_forgotten() -> None:
    old = ConstraintState()
    old.constraints.add("old", node="anvil")
    assert "old" in old.constraints
    old.merge(from_json(to_json(sample())))
    assert "old" not in old.constraints


def test_what_people_read() -> None:
    document = json.loads(to_json(sample()))
    assert (document["format"], document["version"]) == (FORMAT, VERSION) == ("constraint-crdt state", 1)
    assert document["hash"] == sample().state_hash.hex()
    assert document["reading"] == {
        "constraints": [
            {
                "id": "thermal",
                "definitions": [
                    {"when": "gpu_temp_c < 85.0", "severity": "critical", "about": "hot", "on": {"zone": "a"}}
                ],
            }
        ],
        "satisfied": 3,
        "violations": 1,
        "position": [2, -1],
    }  # fmt: skip
    assert [(row["node"], row["incarnation"], row["seq"], row["floor"]) for row in document["rows"]] == [
        ("anvil", 0, 3, 0), ("forge", 7, 5, 2)
    ]  # fmt: skip
    first = document["rows"][1]["cells"][0]
    assert first[0] == 1
    assert b"gpu_temp_c" in base64.b64decode(first[1])


def test_the_same_state_gives_the_same_text_whatever_the_time_and_the_order() -> None:
    a, b = ConstraintState(), ConstraintState()
    a.constraints.add("y", node="a", expires_at=100)
    b.constraints.add("x", node="b")
    late = ConstraintState(a.rows.copy(), now=lambda: 200)
    assert "y" not in late.constraints
    assert to_json(late) == to_json(a)
    assert to_json(a.merged(b)) == to_json(b.merged(a))
    assert "y" not in from_json(to_json(a), now=lambda: 200).constraints


def test_the_derived_part_is_not_read() -> None:
    document = json.loads(to_json(sample()))
    del document["reading"]
    document["later"] = {"a": [{}]}
    assert from_json(json.dumps(document, indent=1)) == sample()


# --- what is not right ---------------------------------------------------------------------------------------------------


def broken(**changes: Any) -> str:
    return json.dumps(json.loads(to_json(sample())) | changes)


def with_row(**changes: Any) -> str:
    document = json.loads(to_json(sample()))
    document["rows"][1] |= changes
    return json.dumps(document)


CELL = base64.b64encode(b"\x92\x01\xa1x").decode()
WRONG: dict[str, tuple[str | bytes, str, str | None]] = {
    "empty": ("", "is empty", None),
    "blank": (b" \n", "is empty", None),
    "text": ("hello", "not JSON", None),
    "cut in half": (to_json(sample())[: len(to_json(sample())) // 2], "only a part of it", None),
    "two": (to_json(sample()) * 2, "not JSON", None),
    "not text": (b"\xff\xfe{}", "not JSON", None),
    "half a character": ("\ud800", "not valid Unicode", None),
    "lists in lists": ("[" * 100_000, "no state file", None),
    "too deep": ('{"a":' * 100_000, "nested too deep", None),
    "a list": ("[]", "no state file", None),
    "another kind of JSON": ('{"constraints": []}', "no state file", None),
    "another format": (broken(format="constraint-crdt"), "no state file", None),
    "a version that is none": (broken(version="1"), "no state file", None),
    "version 0": (broken(version=0), "no state file", None),
    "a newer version": (broken(version=2, rows="else"), "newer version of constraint-crdt (form 2, this one reads up to 1)", None),
    "no rows": (broken(rows=None), "expected `array`, got `null`", "rows"),
    "a row that is none": (broken(rows=[1]), "expected `object`", "rows[0]"),
    "base64 that is none": (with_row(cells=[[1, "*"]]), "base64", "rows[1].cells[0][1]"),
    "a float": (with_row(seq=5.5), "expected `int`", "rows[1].seq"),
    "no node": (with_row(node=""), "1 to 256 bytes", "rows[1]"),
    "an incarnation beyond 63 bits": (with_row(incarnation=2**63), "incarnation", "rows[1]"),
    "seq 0": (with_row(seq=0, floor=0, cells=[]), "seq from 1", "rows[1].seq"),
    "a seq beyond 63 bits": (with_row(seq=2**63), "seq from 1", "rows[1].seq"),
    "a floor above its row": (with_row(floor=6), "floor", "rows[1].floor"),
    "a floor below 0": (with_row(floor=-1), "floor", "rows[1].floor"),
    "seqs out of order": (with_row(cells=[[2, CELL], [1, CELL]]), "seqs go up", "rows[1].cells[1]"),
    "a seq twice": (with_row(cells=[[1, CELL], [1, CELL]]), "seqs go up", "rows[1].cells[1]"),
    "a seq above its row": (with_row(cells=[[6, CELL]]), "seqs go up", "rows[1].cells[0]"),
    "a cell at 0": (with_row(cells=[[0, CELL]]), "seqs go up", "rows[1].cells[0]"),
    "two rows of one replica": (with_row(node="anvil", incarnation=0), "a row of anvil~0 before", "rows[1]"),
    "another checksum": (broken(checksum="00"), "damaged", None),
    "another cell": (with_row(cells=[[1, CELL]]), "damaged", None),
    "another floor": (with_row(floor=1), "damaged", None),
    "another hash": (broken(hash="00"), "has another hash", "hash"),
}


@pytest.mark.parametrize(("text", "says", "field"), WRONG.values(), ids=WRONG)
def test_what_is_not_right_gets_one_sentence(text: str | bytes, says: str, field: str | None) -> None:
    with pytest.raises(StateFileError) as error:
        from_json(text)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.field == field


@pytest.mark.parametrize("data", [b"", b"\x93\x03\xa1x\x91\xff", b"\x92\x01\xa0", b"\x93\x7e\xa1x" + b"\x91" * 30_000 + b"\x00"])
def test_a_cell_that_no_node_takes_is_refused_though_the_checksum_is_right(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(to_json(sample()))
    document["rows"][1]["cells"] = [[1, base64.b64encode(data).decode()]]
    monkeypatch.setattr("constraint_crdt.state._checksum", lambda rows: document["checksum"])
    with pytest.raises(StateFileError, match="this is no cell") as error:
        from_json(json.dumps(document))
    assert error.value.field == "rows[1].cells[0]"


@pytest.mark.slow
@EXAMPLES
@given(state=states(), data=st.data())
def test_a_flipped_byte_is_refused_or_says_the_same(state: ConstraintState, data: st.DataObject) -> None:
    text = bytearray(to_json(state).encode())
    text[data.draw(st.integers(0, len(text) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = from_json(bytes(text))
    except ConstraintCrdtError:
        return
    assert everything(found) == everything(state)  # it was in the derived part, say


@pytest.mark.slow
@EXAMPLES
@given(state=states(), data=st.data())
def test_a_cut_file_is_refused(state: ConstraintState, data: st.DataObject) -> None:
    text = to_json(state)
    with pytest.raises(StateFileError):
        from_json(text[: data.draw(st.integers(0, len(text) - 1))])


def test_limits() -> None:
    text = to_json(sample())
    assert from_json(text, max_bytes=len(text)) == sample()
    with pytest.raises(StateFileError, match=f"has {len(text)} bytes, more than the {len(text) - 1} that are read"):
        from_json(text, max_bytes=len(text) - 1)
    with pytest.raises(ConstraintCrdtError, match="rows that this node is set to hold"):
        from_json(text, limits=Limits(rows=1))
    with pytest.raises(ConstraintCrdtError, match="cells that this node is set to hold"):
        from_json(text, limits=Limits(cells=3))


def test_a_file_of_a_fleet_with_a_secret_is_read_with_it() -> None:
    state = ConstraintState(Rows(Digest(b"secret")))
    state.constraints.add("x", node="a")
    with pytest.raises(StateFileError, match="another secret"):
        from_json(to_json(state))
    assert from_json(to_json(state), digest=Digest(b"secret")) == state
