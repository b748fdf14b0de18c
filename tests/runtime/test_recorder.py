"""The file of a flight recording: bounded, each part of it replayable, and no danger to the node."""

import os
from pathlib import Path

import pytest

from constraint_crdt import ConstraintCrdtError
from constraint_crdt.runtime.persistence import FileRecorder
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.simulation.recorder import Replay, decode_frames

BOUND = 20_000


def recorder(path: Path, bound: int = BOUND) -> FileRecorder:
    return FileRecorder(str(path), bound)


@pytest.mark.slow
def test_the_file_and_the_one_set_aside_stay_within_the_bound_and_both_replay(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    keeper = recorder(path)
    node = keeper.node(NodeSettings(name="a"), lambda: 10**18)
    keeper.open()
    aside = path.with_name("a.recording.1")
    for number in range(400):
        node.add_constraint(f"c{number % 7}", when=f"v < {number}.0")
        sizes = [file.stat().st_size for file in (path, aside) if file.exists()]
        assert sum(sizes) < BOUND + 2000
    keeper.close()
    assert aside.exists()
    for file in (path, aside):
        replay = Replay(decode_frames(file.read_bytes()))
        assert all(step.agrees for step in replay)
    assert replay.node.clock.total < node.clock.total
    last = Replay(decode_frames(path.read_bytes()))
    assert [step.agrees for step in last][-1]
    assert last.node.state_hash == node.state_hash


def test_a_state_larger_than_the_bound_begins_one_file_not_many(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    keeper = recorder(path, 2_000)
    node = keeper.node(NodeSettings(name="a"), lambda: 10**18)
    for number in range(200):
        node.add_constraint(f"constraint {number}")
    keeper.open()
    size = path.stat().st_size
    node.record(1)
    keeper.close()
    assert path.stat().st_size > size > 2_000
    assert not path.with_name("a.recording.1").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_takes_nothing_ends_the_recording_and_not_the_node(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "full"
    path.symlink_to("/dev/full")
    keeper = recorder(path)
    node = keeper.node(NodeSettings(name="a"), lambda: 10**18)
    keeper.open()
    node.add_constraint("x")
    assert "x" in node.state.constraints
    assert "the recording in" in caplog.text
    assert os.strerror(28) in caplog.text


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    keeper = recorder(tmp_path / "no" / "file")
    keeper.node(NodeSettings(name="a"), lambda: 10**18)
    with pytest.raises(ConstraintCrdtError, match=r"cannot record to .*: No such file"):
        keeper.open()
