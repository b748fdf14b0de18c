"""Files and messages of version 0.1.0 read the same, and are written as the same bytes."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, MemoryNetwork, Node, NodeSettings, Replica
from constraint_crdt.crdt.cells import RANKS, READERS, REMOVABLE, Cell, make_cell, make_removal, read_cell, registered
from constraint_crdt.model import Mode, VerdictState, parse_selector
from constraint_crdt.protocol.messages import decode_message, encode_message
from constraint_crdt.simulation.recorder import Replay, decode_frames, encode_frame
from constraint_crdt.state import ConstraintState, from_json, to_json
from constraint_crdt.types import NodeVerdict, VariableKind
from constraint_crdt.types.alerts import ALERT_RULE, DELIVERED, SILENCE, TOLD, WAYS, SilenceValue, Unit
from constraint_crdt.types.counters import SECONDS
from constraint_crdt.types.definition import ADD, Definition
from constraint_crdt.types.nodes import AUDIT, UNDO
from constraint_crdt.types.orset import CHANGE, SWITCH, Subject, before_change
from constraint_crdt.types.parameters import PARAMETER
from constraint_crdt.types.rollouts import ROLLOUT, STAGED, Phase, StagedValue
from constraint_crdt.types.variables import VARIABLES
from constraint_crdt.types.verdicts import VERDICT
from tests.compatibility import NOW, views
from tests.conftest import runtime_directory
from tests.runtime.fleet import QUICK, eventually
from tests.store.disk import loaded, open_store

DATA = Path(__file__).parent / "data" / "0.1.0"
EXPECTED = json.loads((DATA / "views.json").read_text())
MESSAGES = json.loads((DATA / "messages.json").read_text())
MESSAGE_TYPES = {"Ping", "Sync", "Delta", "Ack", "Part", "Resume", "Gone", "Buckets", "Mend"}
KINDS = 23
LATER_KIND = 99
LATER_KINDS = [kind for kind in registered() if kind > KINDS]
OF_PLAIN_FLEETS = [
    VERDICT, SECONDS, VARIABLES, AUDIT, UNDO, SILENCE, TOLD, ALERT_RULE, WAYS, PARAMETER, SWITCH, CHANGE, ROLLOUT, STAGED,
]  # fmt: skip
"""Those of the later kinds that a node without an identity writes. Nodes with identities do not link with 0.1.0."""


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


# --- the kinds of cells that are new ---------------------------------------------------------------------------------------


@contextmanager
def kinds_of_0_1_0() -> Iterator[None]:
    """The later kinds are not registered, as in 0.1.0; the rules for cells of unknown kinds are the same."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in LATER_KINDS:
            patch.delitem(READERS, kind)
            patch.delitem(REMOVABLE, kind, raising=False)
            patch.delitem(RANKS, kind, raising=False)
        yield


def node_of_0_1_0(name: str) -> GossipNode:
    """A node without a view over the later kinds."""
    node = GossipNode(name, incarnation=1)
    for kind in LATER_KINDS:
        node.state.rows._watchers.pop(kind, None)
    return node


def exchanged(new: GossipNode, old: GossipNode) -> None:
    """Exchanges in both directions over bytes, the old node without the later kinds."""
    for first, second in ((new, old), (old, new)):
        waiting = [(second, encode_message(first.begin(second.node_id)))]
        while waiting:
            reader, data = waiting.pop(0)
            if reader is old:
                with kinds_of_0_1_0():
                    responses = [encode_message(each) for each in old.receive(decode_message(data)).responses]
            else:
                responses = [encode_message(each) for each in new.receive(decode_message(data)).responses]
            waiting += [(new if reader is old else old, each) for each in responses]


def contents(node: GossipNode) -> set[tuple[int, object, Replica, int, bytes]]:
    def content(cell: Cell) -> tuple[int, object, Replica, int, bytes]:
        return cell.kind, cell.key, cell.replica, cell.seq, cell.data

    return {content(cell) for cell in node.state.rows.live_cells()}


def staged_rollout(state: ConstraintState, me: Replica) -> None:
    new = {"x": Definition("v < 1.0")}
    begun = state.rollouts.begin(new, state.constraints, stages=["zone=a", "zone=b"], gate="g", timeout=5, node=me, at=5)
    state.rollouts.step(begun, Phase.STOPPED, stage=1, node=me, at=6, reason="it is hot")
    state.staged.put([StagedValue(begun.id, 0, 1, 2, 1, 0, "x is violated")], node=me)


def test_a_node_of_0_1_0_keeps_and_forwards_the_new_cells_byte_for_byte() -> None:
    a, b, old = GossipNode("a", incarnation=1), GossipNode("b", incarnation=1), node_of_0_1_0("old")
    bad = NodeVerdict(VerdictState.VIOLATED, 5, (("v", "1"),), -1.0, None, "v", "v > 2")
    a.add_constraint("x")
    a.record_verdicts({"x": bad, "y": bad})
    a.record_seconds({"x": (1000, 2, 3)})
    a.describe_variables({"v": VariableKind.DOUBLE})
    a.write(lambda me: a.state.audit.note("alice", "add", "x", changes=1, time=5, node=me))
    a.write(lambda me: a.state.rows.write(me, make_cell(UNDO, "9", ["b", [["c", 1, 1]]])))
    a.write(lambda me: a.state.silences.put(SilenceValue(0, 10**18, "x*", why="moved"), node=me))
    a.write(lambda me: a.state.told_alerts.put_all({Unit("r", "x", "ops"): (1, DELIVERED, 5)}, node=me))
    a.write(lambda me: a.state.alert_rules.put("r", '{"kind":"silence"}', at=5, actor="alice", node=me))
    a.write(lambda me: a.state.ways_out.put(["ops"], node=me))
    a.disable(["x"], actor="alice", why="noise", ttl=60)
    later = Definition(
        "x < param.limit", each="joint", mode=Mode.AUDIT, requirements=parse_selector("zone in (a, b), !spare").requirements
    )
    a.write(lambda me: a.state.constraints.put("later", later, node=me))
    a.write(lambda me: a.state.parameters.set("limit", 1.5, node=me))
    a.write(lambda me: a.state.parameters.set("limit", 0.8, "zone=dock", node=me))
    a.write(lambda me: staged_rollout(a.state, me))
    edited = [before_change(a.state.rows, Subject(ADD, "x"))]
    a.write(lambda me: a.state.changes.note(edited, operation="add", actor="alice", why="tighter", time=5, node=me))
    exchanged(a, old)
    assert {kind for kind, *_ in contents(old)} == {1, *OF_PLAIN_FLEETS}
    assert (contents(old), old.state_hash) == (contents(a), a.state_hash)
    a.record_verdicts({"x": NodeVerdict(VerdictState.HOLDS, 7), "y": None})
    a.record_seconds({"x": (5, 0, 0)})
    a.fold(["x"])
    a.enable(["x"])
    a.write(lambda me: a.state.parameters.unset("limit", node=me))
    a.describe_variables({})
    exchanged(a, old)
    assert (contents(old), old.state_hash) == (contents(a), a.state_hash)
    exchanged(b, old)
    assert (contents(b), b.state_hash) == (contents(a), a.state_hash)
    assert "x" not in b.state.switches
    assert b.state.constraints.definitions("later") == (later,)
    assert [(each.text, each.values[0].value) for each in b.state.parameters.settings("limit")] == [("zone=dock", 0.8)]
    assert [each.why for each in b.state.changes.of(Subject(ADD, "x"))] == []  # too old to be read, by the clock of the node
    assert len(b.state.changes) == 1
    assert b.state.verdicts.of("x") == {"a": NodeVerdict(VerdictState.HOLDS, 7)}
    assert [each.value.alert for each in b.state.silences.active(5)] == ["x*"]
    assert [each.phase for each in b.state.told_alerts.of(Unit("r", "x", "ops"))] == [DELIVERED]
    (rollout,) = b.state.rollouts
    assert (rollout.phase, rollout.stage, rollout.reason) == (Phase.STOPPED, 1, "it is hot")
    assert b.state.staged.of("a", rollout.id) == StagedValue(rollout.id, 0, 1, 2, 1, 0, "x is violated")
    assert (list(b.state.alert_rules), b.state.ways_out.of("a")) == (["r"], ("ops",))
    assert from_json(to_json(old.state)).state_hash == a.state_hash


def test_a_removal_of_a_new_kind_would_be_refused_by_0_1_0_so_none_is_written() -> None:
    later = [kind for kind in OF_PLAIN_FLEETS if kind in REMOVABLE]
    assert later
    for kind in later:
        removal = make_removal([("x", [(Replica("a", 1), 1)])], kind).data
        read_cell(removal)
        with kinds_of_0_1_0(), pytest.raises(ConstraintCrdtError, match="the kind of what is removed"):
            read_cell(removal)


# --- a running node --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_node_runs_on_a_store_of_0_1_0_and_tells_its_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_directory(tmp_path)))
    shutil.copyfile(DATA / "store.db", tmp_path / "a.db")
    settings = msgspec.structs.replace(QUICK, name="a", fleet="f", store=str(tmp_path / "a.db"))
    network = MemoryNetwork()
    other = Node(settings=NodeSettings(name="z", fleet="f"), transport=network.transport())
    async with Node(settings=settings, transport=network.transport()) as node, other:
        before = node.gossip.state.metrics.total
        assert {"speed"} <= set(node.constraint_ids())
        await eventually(lambda: all(each.verdict is not None for each in node.constraints() if each.applies_here and each.when))
        await node.add_constraint("new", when="speed < 0.5", for_=0.01)
        await node.measure({"speed": 1.0})
        await eventually(lambda: other.gossip.state.verdicts.violated_on("new") == ("a",))
        await eventually(lambda: other.gossip.state.metrics.total.violated > before.violated)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ("x * 2 < 5", "the evaluation failed"),
        ("x < 'fast'", "the evaluation failed"),
        ("duration('1h 30m') > duration('1h') && x < 9.0", "a duration is written as"),
        ("x y", "cannot be evaluated on this node"),
    ],
)
async def test_a_definition_of_0_1_0_that_the_engine_refuses_reads_unknown_with_the_reason(when: str, reason: str) -> None:
    network = MemoryNetwork()
    old = GossipNode("old")
    old.write(lambda me: old.state.constraints.put("old", Definition(when=when), node=me))
    nodes = [Node(settings=msgspec.structs.replace(QUICK, name=name), transport=network.transport()) for name in ("a", "b")]
    async with nodes[0] as a, nodes[1] as b:
        await a.import_state(to_json(old.state))
        await a.measure({"x": 2.0})
        await eventually(lambda: [(each.verdict, reason in each.reason) for each in a.constraints()] == [("unknown", True)])
        [checked] = await a.check({"x": 1.0})
        assert (checked.verdict.value, reason in checked.reason) == ("unknown", True)
        assert a.status().violations == a.status().satisfied == 0
        if when != "x y":  # it reads nothing, so that no node knows more of it than others
            await eventually(lambda: set(b.gossip.state.verdicts.unknown) == {"old"})
            assert reason in b.gossip.state.verdicts.of("old")["a"].reason
