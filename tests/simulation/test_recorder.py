"""The flight recorder: what was recorded, run again, comes to the same hashes; and what did not, is found."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError
from constraint_crdt.crdt.limits import DEFAULT_LIMITS
from constraint_crdt.protocol.messages import DEFAULT_FLEET, encode_message
from constraint_crdt.simulation.recorder import (
    FORMAT,
    Checkpoint,
    Frame,
    ReceivedMessage,
    RecordedNode,
    RecordingError,
    Replay,
    decode_frames,
    encode_frame,
    first_difference,
)

NAMES = ("a", "b", "c")


class Fleet:
    """Three recorded nodes, whose messages pass as bytes."""

    def __init__(self) -> None:
        self.time = 10**18
        fresh = itertools.count(1)
        self.frames: dict[str, list[Frame]] = {name: [] for name in NAMES}
        self.nodes = {name: self._node(name, lambda: next(fresh)) for name in NAMES}
        for node in self.nodes.values():
            node.checkpoint()

    def _node(self, name: str, renew: Callable[[], int]) -> RecordedNode:
        return RecordedNode(
            name,
            sink=self.frames[name].append,
            incarnation=renew(),
            now=lambda: self.time,
            renew=renew,
            fleet=DEFAULT_FLEET,
            limits=DEFAULT_LIMITS,
        )

    def exchange(self, a: str, b: str, lost_after: int = 99) -> None:
        waiting = [(b, a, encode_message(self.nodes[a].begin(b)))]
        while waiting and lost_after:
            reader, writer, payload = waiting.pop(0)
            self.time += 1
            lost_after -= 1
            _, result = self.nodes[reader].hear(payload)
            waiting += [
                (writer, reader, data) for answer in result.responses for data in self.nodes[reader].encoded(answer, writer)
            ]

    def replayed(self, name: str) -> Replay:
        data = b"".join(map(encode_frame, self.frames[name]))
        replay = Replay(decode_frames(data))
        assert all(step.agrees for step in replay)
        return replay


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "count", "exchange", "cut", "collect", "forget", "outlive", "garbage", "checkpoint"]),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
        st.integers(1, 4),
    ),
    max_size=40,
)


def take(fleet: Fleet, step: tuple[str, str, str, int]) -> None:
    what, name, other, number = step
    node = fleet.nodes[name]
    match what:
        case "add":
            node.add_constraint(f"c{number}", when="x < 1.0")
        case "remove" if f"c{number}" in node.state.constraints:
            node.remove_constraint(f"c{number}")
        case "count":
            node.record(number, number, constraint=f"c{number}")
        case "exchange" | "cut" if name != other:
            fleet.exchange(name, other, 99 if what == "exchange" else number)
        case "collect":
            node.collect([other] if number % 2 else None)
        case "forget":
            node.forget_peers()
            node.checkpoint()
        case "outlive":
            node.resume(node.replica.incarnation, vouched=False)
            node.checkpoint()
        case "garbage":
            with pytest.raises(ConstraintCrdtError):
                node.hear(b"\x93" + bytes(number))
        case "checkpoint":
            fleet.frames[name].clear()
            node.checkpoint()


@pytest.mark.slow
@given(steps)
def test_a_recording_replays_to_the_same_hashes(history: list[tuple[str, str, str, int]]) -> None:
    fleet = Fleet()
    for step in history:
        fleet.time += 1000
        take(fleet, step)
    for name, node in fleet.nodes.items():
        last = max(number for number, frame in enumerate(fleet.frames[name]) if isinstance(frame.input, Checkpoint))
        del fleet.frames[name][:last]  # as the file does, which a checkpoint begins
        replay = fleet.replayed(name)
        assert replay.node.state_hash == node.state_hash
        assert replay.node.clock == node.clock
        assert replay.node.replica == node.replica
        assert replay.node.goes_on == node.goes_on


def test_a_retired_node_and_a_second_life_replay() -> None:
    fleet = Fleet()
    a, b = fleet.nodes["a"], fleet.nodes["b"]
    b.add_constraint("x")
    fleet.exchange("a", "b")
    b.resume(b.replica.incarnation, vouched=False)
    b.add_constraint("y")
    fleet.exchange("a", "b")
    a.retire("b")
    assert a.state_hash == fleet.replayed("a").node.state_hash


def test_a_step_that_its_inputs_do_not_account_for_is_found() -> None:
    fleet = Fleet()
    a = fleet.nodes["a"]
    a.add_constraint("x")
    a.state.constraints.add("behind its back", node=a.replica)
    a.resume(a.replica.incarnation, vouched=True)
    a.record(1)
    disagreeing = [step.number for step in Replay(fleet.frames["a"]) if not step.agrees]
    assert disagreeing == [3]


def test_the_first_difference_of_two_nodes_is_found() -> None:
    fleet = Fleet()
    a = fleet.nodes["a"]
    a.add_constraint("x", when="v < 1.0")
    fleet.exchange("a", "b")
    a.add_constraint("y", when="v < 2.0")
    fleet.exchange("a", "b")
    assert first_difference(fleet.frames["a"], fleet.frames["b"]) is None
    difference = first_difference(fleet.frames["a"], damaged(fleet.frames["b"]))
    assert difference is not None
    assert any("v < 3.0" in each for each in difference.cells)


def damaged(frames: list[Frame]) -> list[Frame]:
    """As if the node had taken in another definition than was said."""
    return [
        Frame(frame.time, frame.hash, ReceivedMessage(frame.input.message.replace(b"v < 2.0", b"v < 3.0")))
        if isinstance(frame.input, ReceivedMessage)
        else frame
        for frame in frames
    ]


def recording() -> bytes:
    fleet = Fleet()
    fleet.nodes["a"].add_constraint("x")
    fleet.exchange("a", "b")
    return b"".join(map(encode_frame, fleet.frames["a"]))


def test_a_recording_that_was_cut_is_whole_up_to_there() -> None:
    data = recording()
    frames = decode_frames(data)
    first = len(encode_frame(frames[0]))
    for size in range(first, len(data)):
        found = decode_frames(data[:size])
        assert found == frames[: len(found)]
        assert len(found) < len(frames)


def test_a_damaged_recording_is_refused() -> None:
    data = recording()
    for at in range(0, len(data), 7):
        damaged_data = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        try:
            found = decode_frames(damaged_data)
        except RecordingError:
            continue
        assert found == decode_frames(data)[: len(found)], "a length that now reaches beyond the end reads as a cut"


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 8, b"not a recording at all, but a text"])
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(RecordingError, match="no recording"):
        decode_frames(data)


def test_a_recording_of_a_later_version_is_refused() -> None:
    later = Checkpoint(FORMAT + 1, "a", 1, True, DEFAULT_FLEET, b"")
    with pytest.raises(RecordingError, match="later version: upgrade"):
        decode_frames(encode_frame(Frame(1, b"", later)))
