"""Files and messages of version 0.1.0 read the same, and are written as the same bytes."""

import json
import shutil
from pathlib import Path

import pytest

from constraint_crdt.protocol.messages import decode_message, encode_message
from constraint_crdt.simulation.recorder import Replay, decode_frames, encode_frame
from constraint_crdt.state import ConstraintState
from constraint_crdt.state_file import from_json, to_json
from tests.compatibility import NOW, views
from tests.store.disk import loaded, open_store

DATA = Path(__file__).parent / "data" / "0.1.0"
EXPECTED = json.loads((DATA / "views.json").read_text())
MESSAGES = json.loads((DATA / "messages.json").read_text())
MESSAGE_TYPES = {"Ping", "Sync", "Delta", "Ack", "Part", "Resume", "Gone", "Buckets", "Mend"}
KINDS = 23
LATER_KIND = 99


def test_a_state_file_reads_the_same_and_is_written_as_the_same_text() -> None:
    text = (DATA / "state.json").read_text().rstrip("\n")
    state = from_json(text, now=lambda: NOW)
    assert views(state) == EXPECTED
    assert to_json(state) == text


def test_the_files_have_a_cell_of_every_kind_and_of_one_that_is_not_known() -> None:
    state = from_json((DATA / "state.json").read_text())
    kinds = {cell.kind for run in state.rows.whole() for cell in run.cells}
    assert kinds == {*range(1, KINDS + 1), LATER_KIND}


def test_a_store_reads_the_same(tmp_path: Path) -> None:
    shutil.copyfile(DATA / "store.db", tmp_path / "a.db")
    store = open_store(tmp_path / "a.db")
    try:
        state = ConstraintState(loaded(store), now=lambda: NOW)
    finally:
        store.close()
    assert views(state) == EXPECTED
    assert to_json(state) == (DATA / "state.json").read_text().rstrip("\n")


def test_there_is_a_message_of_every_type() -> None:
    assert {name.partition("-")[0] for name in MESSAGES} == MESSAGE_TYPES


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_reads_as_its_type_and_is_written_as_the_same_bytes(name: str) -> None:
    data = bytes.fromhex(MESSAGES[name])
    message = decode_message(data, max_bytes=None)
    assert type(message).__name__ == name.partition("-")[0]
    assert encode_message(message) == data


def test_a_recording_runs_again_to_the_same_hashes_and_is_written_as_the_same_bytes() -> None:
    data = (DATA / "recording").read_bytes()
    frames = decode_frames(data)
    replay = Replay(frames)
    assert [step.number for step in replay if not step.agrees] == []
    assert replay.node.state_hash.hex() == EXPECTED["hash"]
    assert b"".join(map(encode_frame, frames)) == data
