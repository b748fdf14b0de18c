"""The actions of a running node: turns, commands, webhooks, order, retries, restarts, and that nothing is left behind."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.alerts.actions import HOLDS_AGAIN, UNKNOWN, VIOLATED, Action, Turn
from constraint_crdt.alerts.delivery import Deliveries, Failure, Message
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http import make_app
from constraint_crdt.operations.alerts import show_actions
from constraint_crdt.operations.operation import Table
from constraint_crdt.runtime import actions as actions_module
from constraint_crdt.sources.pushed import client_type
from tests.conftest import BUDGET
from tests.runtime.fleet import QUICK, eventually

SCRIPT = 'echo "$ACTION_CONSTRAINT $ACTION_TURN $ACTION_VALUE_SPEED_MPS" >> '


class Receiver:
    """An HTTP server that answers as it is told to, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.default = 200
        self.got: list[tuple[dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.append((dict(self.headers), body))
                self.send_response(outer.answers.pop(0) if outer.answers else outer.default)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class gives it
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/T0KEN"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(found["constraint"], found["turn"]) for found in (json.loads(body) for _, body in self.got)]

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@asynccontextmanager
async def node_with(*actions: Action, store: Path | None = None, **more: Any) -> AsyncIterator[Node]:
    own = msgspec.structs.replace(QUICK, action=actions, store="memory" if store is None else str(store), **more)
    async with Node(name="a", settings=own, transport=MemoryNetwork().transport()) as node:
        node.actions._first_pause = 0.01
        yield node


async def with_speed(node: Node, *, mode: str = "enforce") -> None:
    await node.add_constraint("max_speed", when="speed_mps <= 1.5", severity="critical", mode=mode, loosen=True)


async def looked(node: Node, what: Callable[[], object]) -> None:
    """As `eventually`, with looks of the actions as often."""
    async with asyncio.timeout(10):
        while not what():
            await node.actions.look()
            await asyncio.sleep(0.005)


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.processes
async def test_a_command_runs_at_each_turn_with_the_values_in_its_environment(tmp_path: Path) -> None:
    file = tmp_path / "turns"
    async with node_with(Action(name="note", constraint="max_*", command=("sh", "-c", f"{SCRIPT}{file}"))) as node:
        await with_speed(node)
        await node.add_constraint("other", when="speed_mps <= 1.5")
        for speed in (1.0, 9.0, 9.5, 1.0):
            await node.measure({"speed_mps": speed})
        await eventually(lambda: len(lines(file)) == 2)
        assert lines(file) == ["max_speed violated 9.0", "max_speed holds again 1.0"]
        await eventually(lambda: node.actions.report().actions[0].delivered == 2)
        found = node.actions.report().actions[0]
        assert (found.to, found.acting, found.waiting, found.failed) == ("sh", (), 0, 0)


@pytest.mark.slow
async def test_only_enforced_constraints_act_and_a_change_of_the_mode_counts(receiver: Receiver) -> None:
    async with node_with(Action(name="tell", webhook=receiver.url)) as node:
        await with_speed(node, mode="warn")
        await node.measure({"speed_mps": 9.0})
        assert node.actions.report().actions[0].acting == ()
        await with_speed(node, mode="enforce")
        await looked(node, lambda: receiver.turns == [("max_speed", "violated")])
        await with_speed(node, mode="audit")
        await looked(node, lambda: receiver.turns[1:] == [("max_speed", "ended")])


@pytest.mark.slow
async def test_a_removal_ends_what_was_told(receiver: Receiver) -> None:
    async with node_with(
        Action(name="tell", webhook=receiver.url), Action(name="begin", webhook=receiver.url, turns=(VIOLATED,))
    ) as node:
        await with_speed(node)
        await node.measure({"speed_mps": 9.0})
        await node.remove_constraint("max_speed")
        await node.actions.look()
        await eventually(lambda: len(receiver.got) == 3)
        assert sorted(receiver.turns) == [("max_speed", "ended"), *[("max_speed", "violated")] * 2]
        assert all(each.acting == () for each in node.actions.report().actions)


@pytest.mark.slow
async def test_unknown_is_told_once_it_lasts(receiver: Receiver) -> None:
    turns = (VIOLATED, HOLDS_AGAIN, UNKNOWN)
    async with node_with(
        Action(name="tell", webhook=receiver.url, turns=turns, unknown_for=0.0),
        Action(name="later", webhook=receiver.url, turns=turns, unknown_for=3600.0),
    ) as node:
        await with_speed(node)
        await eventually(lambda: receiver.turns == [("max_speed", "unknown")])
        await node.actions.look()
        await node.measure({"speed_mps": 1.0})
        await eventually(lambda: receiver.turns[1:] == [("max_speed", "holds again")])


@pytest.mark.slow
async def test_a_webhook_is_tried_again_and_signed_and_its_address_stays_secret(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of twenty five..")
    secret.chmod(0o600)
    receiver.answers = [503, 200]
    action = Action(name="tell", webhook="ops", secret_file=str(secret))
    async with node_with(action, destinations={"ops": receiver.url}) as node:
        await with_speed(node)
        await node.measure({"speed_mps": 9.0})
        await eventually(lambda: node.actions.report().actions[0].delivered == 1)
        found = node.actions.report().actions[0]
        assert (found.failed, found.last_failure, found.waiting) == (1, "answered 503", 0)
        (_, first), (headers, second) = receiver.got
        assert first == second
        by_name = {name.lower(): value for name, value in headers.items()}
        signed = f"{by_name['webhook-id']}.{by_name['webhook-timestamp']}.".encode() + second
        proof = base64.b64encode(hmac.new(secret.read_bytes(), signed, hashlib.sha256).digest()).decode()
        assert by_name["webhook-signature"] == f"v1,{proof}"
        assert by_name["webhook-id"] == json.loads(second)["id"]
    assert "action tell on max_speed (violated): attempt 1 failed: answered 503" in caplog.text
    assert "T0KEN" not in caplog.text


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0o600, "action tell: the secret in .* cannot be read: No such file"),
        ("a secret of twenty five..", 0o644, "can be read by other users of the machine: run `chmod o= "),
        ("short", 0o600, "a secret has 16 to 1024 bytes"),
        ("x" * 5000, 0o600, "is too long"),
    ],
)
def test_a_secret_that_cannot_be_used_is_told_before_the_start(content: str | None, mode: int, says: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    own = msgspec.structs.replace(QUICK, action=(Action(name="tell", webhook="http://h/", secret_file=str(file)),))
    with pytest.raises(ConstraintCrdtError, match=says):
        Node(name="a", settings=own, transport=MemoryNetwork().transport())


def test_zenoh_needs_a_session() -> None:
    own = msgspec.structs.replace(QUICK, action=(Action(name="say", zenoh="a"),))
    with pytest.raises(ConstraintCrdtError, match="action say: this node has no session of Zenoh to publish with"):
        Node(name="a", settings=own, transport=MemoryNetwork().transport())


def test_a_broker_needs_the_client_and_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Action(name="say", mqtt="mqtts://h", topic="a", ca="/no/such/ca.pem")
    with pytest.raises(ConstraintCrdtError, match="action say: `ca`, `certificate` or `key` cannot be used: No such file"):
        Node(name="a", settings=msgspec.structs.replace(QUICK, action=(wrong,)), transport=MemoryNetwork().transport())
    client_type.cache_clear()
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    own = msgspec.structs.replace(QUICK, action=(Action(name="say", mqtt="mqtt://h", topic="a"),))
    with pytest.raises(ConstraintCrdtError, match=r"action say: MQTT needs `pip install 'constraint-crdt\[mqtt\]'`"):
        Node(name="a", settings=own, transport=MemoryNetwork().transport())


@pytest.mark.slow
async def test_what_waits_and_what_was_told_survive_a_restart(receiver: Receiver, tmp_path: Path) -> None:
    action, store = Action(name="tell", webhook=receiver.url), tmp_path / "a.db"
    receiver.default = 503
    async with node_with(action, store=store) as node:
        await with_speed(node)
        for speed in (9.0, 1.0, 9.0):
            await node.measure({"speed_mps": speed})
        await eventually(lambda: receiver.got)
        assert [each.turn for each in node.actions.report().waiting] == ["violated", "holds again", "violated"]
    kept = json.loads((tmp_path / "a.db.actions.json").read_text())
    assert [each["turn"] for each in kept["waiting"]] == ["violated", "holds again", "violated"]
    assert kept["waiting"][0]["tries"] >= 1
    assert [each[:2] for each in kept["told"]] == [["tell", "max_speed"]]
    receiver.default = 200
    receiver.got.clear()
    async with node_with(action, store=store) as node:
        await eventually(lambda: node.actions.report().actions[0].delivered == 3)
        assert [turn for _, turn in receiver.turns] == ["violated", "holds again", "violated"]
        await node.measure({"speed_mps": 9.0})
        assert node.actions.report().waiting == ()
        await node.measure({"speed_mps": 1.0})
        await eventually(lambda: receiver.turns[3:] == [("max_speed", "holds again")])
    async with node_with(action, store=store) as node:
        assert node.actions.report().waiting == ()


@pytest.mark.long
@pytest.mark.processes
async def test_a_killed_node_repeats_the_attempt_and_no_more_often_than_it_may(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a reboot does: the command never ends for the node that runs it."""
    file, store = tmp_path / "turns", tmp_path / "a.db"
    kept = tmp_path / "a.db.actions.json"
    action = Action(name="reboot", command=("sh", "-c", f"{SCRIPT}{file}; sleep 60"), attempts=2)
    for number in (1, 2):
        async with node_with(action, store=store) as node:
            if number == 1:
                await with_speed(node)
                await node.measure({"speed_mps": 9.0})
            await eventually(lambda number=number: len(lines(file)) == number)  # type: ignore[misc]
            left = kept.read_bytes()  # on disk when the command began
        kept.write_bytes(left)
    async with node_with(action, store=store) as node:
        await eventually(lambda: node.actions.report().actions[0].dropped == 1)
    assert len(lines(file)) == 2
    assert "a message for action reboot on max_speed is dropped" in caplog.text


@pytest.mark.slow
async def test_an_action_that_is_gone_is_told_and_a_damaged_file_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = tmp_path / "a.db.actions.json"
    turn = Turn(action="old", constraint="c", turn=VIOLATED, at=1)
    kept.write_bytes(msgspec.json.encode(actions_module.Kept(waiting=[turn])))
    async with node_with(Action(name="new", command=("true",)), store=tmp_path / "a.db") as node:
        assert node.actions.report().waiting == ()
    assert "1 turns that waited for old are dropped" in caplog.text
    kept.write_text("{")
    async with node_with(Action(name="new", command=("true",)), store=tmp_path / "a.db"):
        assert "cannot read what waits for actions" in caplog.text


@pytest.mark.processes
async def test_a_failing_command_is_dropped_and_its_output_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    action = Action(
        name="try", command=("sh", "-c", "printf 'it\\033 fails\\n'; head -c 100000 /dev/zero | tr '\\0' x; exit 3"), attempts=2
    )
    with caplog.at_level(logging.INFO):
        async with node_with(action) as node:
            await with_speed(node)
            await node.measure({"speed_mps": 9.0})
            await eventually(lambda: node.actions.report().actions[0].dropped == 1)
            found = node.actions.report().actions[0]
            assert (found.failed, found.last_failure) == (2, "exit code 3")
            (finding,) = node.actions.findings()
            assert (finding.level, finding.what) == ("warn", "action try fails: exit code 3")
    assert "action try: it\N{REPLACEMENT CHARACTER} fails" in caplog.text
    assert "95914 more bytes of output are left out" in caplog.text
    assert len(caplog.text) < 20_000


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
async def test_a_command_is_ended_at_its_timeout_with_all_of_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions_module, "GRACE", 0.05)
    file = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $$ > {file}; echo $! >> {file}; wait; sleep 60"
    async with node_with(Action(name="hang", command=("sh", "-c", script), timeout=0.2, attempts=1)) as node:
        await with_speed(node)
        await node.measure({"speed_mps": 9.0})
        await eventually(lambda: node.actions.report().actions[0].dropped == 1)
        assert node.actions.report().actions[0].last_failure == "not done within 0.2 s"
        await eventually(lambda: not any(is_alive(int(each)) for each in lines(file)))


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
async def test_a_command_and_what_it_left_behind_end_with_the_node_and_it_runs_again(tmp_path: Path) -> None:
    file, store = tmp_path / "pids", tmp_path / "a.db"
    script = f"sleep 60 & echo $! >> {file}; echo $$ >> {file}; wait"
    async with node_with(Action(name="long", command=("sh", "-c", script)), store=store) as node:
        await with_speed(node)
        await node.measure({"speed_mps": 9.0})
        await eventually(lambda: len(lines(file)) == 2)
    await eventually(lambda: not any(is_alive(int(each)) for each in lines(file)))  # the kernel takes a moment
    async with node_with(Action(name="long", command=("true",)), store=store) as node:
        await eventually(lambda: node.actions.report().actions[0].delivered == 1)


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
async def test_a_daemon_that_a_command_leaves_behind_neither_delays_nor_survives_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with node_with(Action(name="leave", command=("sh", "-c", f"yes & echo $! > {file}"))) as node:
        await with_speed(node)
        await node.measure({"speed_mps": 9.0})
        await eventually(lambda: node.actions.report().actions[0].delivered == 1)
        await eventually(lambda: not is_alive(int(lines(file)[0])))


@pytest.mark.long
@pytest.mark.processes
async def test_one_at_once_for_each_constraint_and_several_in_all(tmp_path: Path) -> None:
    """A command that waits for a file of its constraint: those of others run meanwhile, a second of the same one does not."""
    script = f'echo "$ACTION_CONSTRAINT" >> {tmp_path}/begun; while [ ! -e {tmp_path}/$ACTION_CONSTRAINT ]; do sleep 0.02; done'
    async with node_with(Action(name="wait", command=("sh", "-c", script))) as node:
        for name in "bc":
            await node.add_constraint(name, when=f"{name}_value <= 1.0")
            await node.measure({f"{name}_value": 9.0})
            await node.measure({f"{name}_value": 0.0})
        await eventually(lambda: sorted(lines(tmp_path / "begun")) == ["b", "c"])
        assert [each.runs for each in node.actions.report().waiting].count(True) == 2
        (tmp_path / "b").touch()
        await eventually(lambda: sorted(lines(tmp_path / "begun")) == ["b", "b", "c"])
        (tmp_path / "c").touch()
        await eventually(lambda: node.actions.report().actions[0].delivered == 4)


@pytest.mark.slow
async def test_a_turn_that_lasts_is_repeated_and_repetitions_are_not_kept(receiver: Receiver, tmp_path: Path) -> None:
    store = tmp_path / "a.db"
    async with node_with(Action(name="tell", webhook=receiver.url, repeat=10.0), store=store) as node:
        await with_speed(node)
        await node.measure({"speed_mps": 9.0})
        await eventually(lambda: node.actions.report().actions[0].delivered == 1)
        now = node.actions._now
        await node.actions.look()
        assert node.actions.waiting == 0
        receiver.default = 503
        node.actions._now = lambda: now() + 11 * 10**9
        await node.actions.look()
        await eventually(lambda: node.actions.report().actions[0].dropped == 1)
        assert json.loads(receiver.got[-1][1])["repeated"] is True
        await node.actions.look()
        assert node.actions.waiting == 0


@pytest.mark.slow
async def test_the_queues_are_bounded(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions_module, "MOST_WAITING", 4)
    receiver.default = 503
    async with node_with(Action(name="tell", webhook=receiver.url)) as node:
        await with_speed(node)
        for _ in range(5):
            await node.measure({"speed_mps": 9.0})
            await node.measure({"speed_mps": 1.0})
        found = node.actions.report()
        assert (found.actions[0].waiting, found.actions[0].dropped) == (4, 6)
        assert [each.turn for each in found.waiting][-2:] == ["violated", "holds again"]
        monkeypatch.setattr(actions_module, "MOST_FOLLOWED", 0)
        await node.measure({"speed_mps": 9.0})
        assert node.actions.report().unfollowed == 1


@pytest.mark.slow
async def test_a_disk_that_refuses_does_not_silence_an_action(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with node_with(Action(name="tell", webhook=receiver.url), store=tmp_path / "a.db") as node:
        monkeypatch.setattr(actions_module, "replace_file", refuse)
        await with_speed(node)
        await node.measure({"speed_mps": 9.0})
        await eventually(lambda: receiver.turns == [("max_speed", "violated")])
        assert node.actions.report().unsaved == "No space left on device"
        assert "is not on disk: No space left on device" in next(each.what for each in node.actions.findings())
        monkeypatch.undo()
        await node.actions.keep()
        assert node.actions.report().unsaved == ""


@pytest.mark.slow
async def test_the_command_and_the_metrics_say_what_waits_and_what_failed(receiver: Receiver) -> None:
    receiver.default = 503
    async with node_with(
        Action(name="tell", webhook=receiver.url), Action(name="idle", constraint="no", command=("true",))
    ) as node:
        await with_speed(node)
        await node.measure({"speed_mps": 9.0})
        await eventually(lambda: node.actions.report().actions[0].failed > 1)
        text = make_app(node).state.metrics().text("")[0].decode()
        assert 'constraint_crdt_action_turns_waiting{action="tell"} 1.0' in text
        assert 'constraint_crdt_action_turns_delivered_total{action="idle"} 0.0' in text
        tables = [each for each in show_actions(node.actions.report()) if isinstance(each, Table)]
        assert [row[:4] for row in tables[0].rows] == [
            ["tell", "*", "violated, holds again", "webhook http://127.0.0.1:" + f"{receiver.server.server_port}/…"],
            ["idle", "no", "violated, holds again", "command true"],
        ]
        assert [row[:3] for row in tables[1].rows] == [["tell", "max_speed", "violated"]]
        assert tables[1].rows[0][-1] == "answered 503"
        found = node.diagnosis.look()
        assert [each.what for each in found.findings if each.check == "actions"] == ["action tell fails: answered 503"]
    async with node_with() as node:
        assert "has no actions: [[action]] in its settings" in str(show_actions(node.actions.report()))
        assert list(node.actions.findings()) == []


# --- the queues, against a plain model ------------------------------------------------------------------------------------------


class Numbered(Message):
    """A message with a number, and how many of its attempts fail."""

    def __init__(self, number: int, failures: int, tries: int) -> None:
        super().__init__()
        self.number, self.failures, self.tries = number, failures, tries


class Recorded(Deliveries[Numbered]):
    """Deliveries that fail as their messages say."""

    def __init__(self) -> None:
        super().__init__(first_pause=0.0)
        self.taken: list[tuple[str, int]] = []
        self.settled_numbers: list[int] = []
        self.now: dict[str, int] = {}

    def shown(self, key: str) -> str:
        return key

    def most_attempts(self, message: Numbered) -> int:
        return 3

    def settled(self, key: str, message: Numbered) -> None:
        self.settled_numbers.append(message.number)

    async def attempt(self, key: str, message: Numbered) -> Failure | None:
        assert key not in self.now, "one at once for each key"
        self.now[key] = message.number
        await asyncio.sleep(0)
        del self.now[key]
        if message.failures:
            message.failures -= 1
            return Failure("as told")
        self.taken.append((key, message.number))
        return None


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.integers(0, 3)), max_size=8))
def test_messages_arrive_in_order_of_each_key_or_are_dropped(messages: list[tuple[str, int, int]]) -> None:
    async def run() -> Recorded:
        found = Recorded()
        for number, (key, failures, tries) in enumerate(messages):
            found.put(key, Numbered(number, failures, tries))
        await eventually(lambda: not found._tasks)
        await found.close()
        return found

    found = asyncio.run(run())
    for key in "ab":
        wanted = [number for number, (of, failures, tries) in enumerate(messages) if of == key and failures < 3 - tries]
        assert [number for of, number in found.taken if of == key] == wanted
    assert (found.delivered, found.delivered + found.dropped, found.waiting) == (len(found.taken), len(messages), 0)
    assert sorted(found.settled_numbers) == list(range(len(messages)))


# --- turns over restarts and kills, against a plain model ----------------------------------------------------------------------


class Line:
    """A receiver behind a line that may be cut."""

    def __init__(self) -> None:
        self.cut = False
        self.got: list[dict[str, Any]] = []

    def post(self, _: str, body: bytes, __: object) -> int:
        if self.cut:
            return 503
        self.got.append(json.loads(body))
        return 200


HISTORIES = st.lists(st.sampled_from([9.0, 1.0, 9.0, 1.0, "cut", "mend", "restart", "kill"]), min_size=1, max_size=12)


@pytest.mark.long
@settings(max_examples=200 if BUDGET == "nightly" else 4)
@given(HISTORIES)
@example([9.0, "kill", 1.0, "restart"])
@example(["cut", 9.0, 1.0, "kill", 9.0, "mend", "restart"])
def test_each_turn_arrives_in_order_and_at_least_once_over_restarts_and_kills(history: list[float | str]) -> None:
    """A turn that was not on disk at a kill is found anew, if it still is so."""
    line, kills = Line(), history.count("kill")
    wanted, violated = 0, False

    async def run(folder: Path) -> None:
        nonlocal wanted, violated
        kept, steps = folder / "a.db.actions.json", iter(history)
        over = False
        while not over:
            over, left = True, None
            async with node_with(Action(name="tell", webhook="http://h/", attempts=1000), store=folder / "a.db") as node:
                if "max_speed" not in node.gossip.state.constraints:
                    await with_speed(node)
                await node.measure({"speed_mps": 9.0 if violated else 1.0})
                for step in steps:
                    if isinstance(step, float):
                        await node.measure({"speed_mps": step})
                        wanted += violated is not (step > 1.5)
                        violated = step > 1.5
                    elif step == "kill":
                        left, line.cut = kept.read_bytes() if kept.exists() else b"", True
                    else:
                        line.cut = {"cut": True, "mend": False}.get(step, line.cut)
                    if step in ("kill", "restart"):
                        over = False
                        break
                else:
                    line.cut = False
                    await eventually(lambda: node.actions.waiting == 0)
            if left is not None:
                kept.write_bytes(left) if left else kept.unlink(missing_ok=True)
                line.cut = False

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(actions_module, "post", line.post)
        patched.setattr(actions_module, "LOOK_EVERY", 0.05)
        asyncio.run(run(Path(folder)))
    first = list({each["id"]: each for each in reversed(line.got)}.values())
    times = [each["time"] for each in reversed(first)]
    assert times == sorted(times)
    turns = [each["turn"] for each in reversed(first)]
    assert turns == [("violated", "holds again")[number % 2] for number in range(len(turns))]
    assert (turns[-1:] == ["violated"]) is violated
    if not kills:
        assert len(first) == wanted
        assert len(line.got) <= wanted + history.count("restart")  # an attempt may be cut off by the end of the node
    assert len(first) <= wanted
