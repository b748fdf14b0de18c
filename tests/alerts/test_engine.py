"""When alerts fire and resolve: against a plain reading of what was so when, over restarts, and on real nodes."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from constraint_crdt import Event, EventKind, MemoryNetwork, Node
from constraint_crdt.alerts import KINDS, About, AlertKind, AlertRule, Condition, Conditions, Facts, delivery
from constraint_crdt.alerts import engine as alerting
from constraint_crdt.alerts.delivery import Alert, Teller, WebhookMessage, Webhooks
from constraint_crdt.alerts.engine import AlertEngine
from constraint_crdt.protocol.gossip_node import GossipNode
from tests.runtime.fleet import QUICK, eventually, fleet

RULE = AlertRule(name="r", kind="silence", for_=2.0, keep_firing_for=0.0)


class Scripted(Conditions):
    """What is found is what the test says."""

    def __init__(self) -> None:
        self.found: dict[str, bool | None] = {}

    def find(self, rule: AlertRule) -> Iterator[Condition]:
        return (Condition(subject, is_so, "because") for subject, is_so in self.found.items())


class Bench:
    """Alerting without a node."""

    def __init__(
        self,
        file: Path | None = None,
        rule: AlertRule = RULE,
        webhooks: Webhooks | None = None,
        now: Callable[[], int] = lambda: 7,
        gossip: GossipNode | None = None,
    ) -> None:
        """`gossip`: the state of before a restart, if it was kept."""
        self.conditions = Scripted()
        self.told: list[tuple[str, bool]] = []
        self.gossip = gossip or GossipNode("n", incarnation=1, now=now, renew=lambda: 2, fleet="f")
        teller = Teller(self.gossip, webhooks or Webhooks(), now=now)
        self.engine = AlertEngine((rule,), self.conditions, teller=teller, file=file, notify=self.tell, now=now)

    def tell(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        self.told.append((alert.subject, fired))


@pytest.mark.slow
@given(
    looks=st.lists(st.fixed_dictionaries({"x": st.sampled_from((True, False, None)), "y": st.sampled_from((True, False, None))}))
)
def test_it_fires_once_after_its_time_and_resolves_once(looks: list[dict[str, bool | None]]) -> None:
    bench = Bench()
    held: dict[str, int] = {}
    """The seconds for which it was so, a second without evidence left out."""
    before_it: dict[str, bool | None] = {}
    firing: set[str] = set()
    expected: list[tuple[str, bool]] = []
    for second, look in enumerate(looks):
        bench.conditions.found = {subject: is_so for subject, is_so in look.items() if is_so is not False}
        before = len(bench.told)
        changed = bench.engine.evaluate(float(second))
        assert changed is (len(bench.told) > before)
        for subject, is_so in look.items():
            held[subject] = held.get(subject, 0) + (before_it.get(subject) is True)
            before_it[subject] = is_so
            if is_so:
                if held[subject] >= 2 and subject not in firing:
                    firing.add(subject)
                    expected.append((subject, True))
            elif is_so is False:
                held[subject] = 0
                if subject in firing:
                    firing.remove(subject)
                    expected.append((subject, False))
    assert sorted(bench.told) == sorted(expected)
    assert {each.subject for each in bench.engine.report().alerts if each.firing} == firing


async def test_what_fired_is_remembered_and_neither_fires_again_nor_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "alerts.json"
    rule = msgspec.structs.replace(RULE, for_=0.0)
    first = Bench(file, rule)
    first.conditions.found = {"x": True, "y": True}
    await first.engine.step()
    assert sorted(first.told) == [("x", True), ("y", True)]
    assert file.stat().st_mode & 0o077 == 0
    again = Bench(file, rule)
    await again.engine.load()
    again.conditions.found = {"x": True, "y": None}
    assert not again.engine.evaluate(0.0)
    again.conditions.found = {}
    await again.engine.step()
    assert again.told == [("x", False), ("y", False)]
    last = Bench(file, rule)
    await last.engine.load()
    assert last.engine.report().alerts == ()


@pytest.mark.parametrize(
    "content", [b"", b"[{}]", b"\xff", b"[" * 100_000, b'[{"rule": "other", "subject": "x", "since": 1, "fired_at": 1}]']
)
async def test_a_file_that_says_nothing_of_use_is_passed_over(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "alerts.json"
    file.write_bytes(content)
    bench = Bench(file)
    await bench.engine.load()
    assert bench.engine.report().alerts == ()


async def test_a_file_that_is_too_large_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect: the error of the reader that alerts share with other files of the store kept the node from starting."""
    monkeypatch.setattr(alerting, "FILE_BYTES", 10)
    file = tmp_path / "alerts.json"
    file.write_bytes(b"[" + b" " * 20 + b"]")
    bench = Bench(file)
    await bench.engine.load()
    assert bench.engine.report().alerts == ()


async def test_a_file_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "none" / "alerts.json", msgspec.structs.replace(RULE, for_=0.0))
    bench.conditions.found = {"x": True}
    await bench.engine.step()
    assert bench.told == [("x", True)]


def test_only_so_many_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerting, "MOST", 2)
    bench = Bench(rule=msgspec.structs.replace(RULE, for_=0.0))
    bench.conditions.found = dict.fromkeys("abcd", True)
    bench.engine.evaluate(0.0)
    assert (len(bench.told), bench.engine.report().untracked) == (2, 2)
    bench.conditions.found = dict.fromkeys("cd", True)
    bench.engine.evaluate(1.0)
    bench.engine.evaluate(2.0)
    assert [fired for _, fired in bench.told] == [True, True, False, False, True, True]


class Recorded(Webhooks):
    """Keeps what it is to send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, Mapping[str, object]]] = []

    def send(self, url: str, content: Mapping[str, object]) -> WebhookMessage:
        self.sent.append((url, content))
        message = WebhookMessage(b"")
        message.attempted = message.delivered = True
        return message


def test_each_place_of_a_rule_is_told_once_for_each_turn() -> None:
    hooks = Recorded()
    rule = AlertRule(name="r", kind="silence", for_=0.0, keep_firing_for=0.0, to=("http://a/x", "log", "http://b/y"))
    bench = Bench(rule=rule, webhooks=hooks)
    bench.conditions.found = {"x": True}
    bench.engine.evaluate(0.0)
    bench.engine.evaluate(1.0)
    bench.conditions.found = {}
    bench.engine.evaluate(2.0)
    assert [(url, message["state"]) for url, message in hooks.sent] == [
        ("http://a/x", "firing"), ("http://b/y", "firing"), ("http://a/x", "resolved"), ("http://b/y", "resolved")
    ]  # fmt: skip
    assert hooks.sent[0][1] == {
        "alert": "r", "kind": "silence", "state": "firing", "subject": "x", "detail": "because", "node": "n", "fleet": "f",
        "since": 7, "time": 7,
    }  # fmt: skip


class Undelivered(Recorded):
    """Drops the messages for the addresses of these hosts."""

    def __init__(self, *hosts: str) -> None:
        super().__init__()
        self.hosts = hosts

    def send(self, url: str, content: Mapping[str, object]) -> WebhookMessage:
        message = super().send(url, content)
        message.dropped = any(host in url for host in self.hosts)
        message.attempted = message.delivered = not message.dropped
        return message


def test_a_place_that_was_not_told_of_an_alert_is_not_told_of_its_end() -> None:
    hooks = Undelivered("dropped")
    rule = AlertRule(name="r", kind="silence", for_=0.0, keep_firing_for=0.0, to=("http://told/", "http://dropped/"))
    bench = Bench(rule=rule, webhooks=hooks)
    assert looked(bench, "bbg") == "FF."
    assert [(url, message["state"]) for url, message in hooks.sent] == [
        ("http://told/", "firing"), ("http://dropped/", "firing"), ("http://told/", "resolved")
    ]  # fmt: skip


async def test_a_place_that_was_not_told_of_an_alert_is_told_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "alerts.json"
    rule = AlertRule(name="r", kind="silence", for_=0.0, keep_firing_for=0.0, to=("http://told/t0ken", "http://dropped/t0ken"))
    bench = Bench(file, rule, Undelivered("dropped"))
    assert looked(bench, "b") == "F"
    await bench.engine.close()
    assert b"t0ken" not in file.read_bytes()
    for expected in (["firing"], []):  # a second restart knows of it
        hooks = Recorded()
        again = Bench(file, rule, hooks)
        await again.engine.load()
        assert looked(again, "b") == "F"
        await again.engine.close()
        assert [(url, message["state"]) for url, message in hooks.sent] == [("http://dropped/t0ken", each) for each in expected]
    assert looked(again, "g", start=1) == "."
    assert [message["state"] for _, message in hooks.sent] == ["resolved", "resolved"]


async def test_what_is_queued_at_the_stop_was_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a message that is being sent, which may arrive: its end is told."""
    begun, end = threading.Event(), threading.Event()

    def post(url: str, body: bytes) -> int | str:
        begun.set()
        end.wait(10)
        return "no answer in time"

    monkeypatch.setattr(delivery, "_post", post)
    monkeypatch.setattr(delivery, "GROUP_EVERY", 0)
    file = tmp_path / "alerts.json"
    rule = AlertRule(name="r", kind="silence", for_=0.0, keep_firing_for=0.0, to=("http://a/",))
    bench = Bench(file, rule)
    bench.conditions.found = {"sent": True}
    await bench.engine.step()
    await eventually(begun.is_set)
    bench.conditions.found = {"sent": True, "queued": True}
    bench.engine.evaluate(time.monotonic() + 1)
    await bench.engine.close()
    end.set()
    hooks = Recorded()
    again = Bench(file, rule, hooks)
    await again.engine.load()
    assert again.engine.evaluate(0.0)
    assert again.told == [("sent", False), ("queued", False)]
    assert [(url, message["subject"], message["state"]) for url, message in hooks.sent] == [("http://a/", "sent", "resolved")]


@pytest.mark.slow
def test_a_value_that_turns_every_three_seconds_is_two_messages() -> None:
    """The defect: 20 messages in a minute."""
    hooks = Recorded()
    bench = Bench(rule=AlertRule(name="r", kind="silence", for_=0.0, to=("http://a/",)), webhooks=hooks)
    looked(bench, "bbbggg" * 10 + "g" * 30)
    assert [message["state"] for _, message in hooks.sent] == ["firing", "resolved"]


def test_alerts_that_turn_together_are_one_message_and_others_wait() -> None:
    hooks = Recorded()
    bench = Bench(rule=msgspec.structs.replace(RULE, for_=0.0, to=("http://a/",)), webhooks=hooks)
    for second in range(12):
        bench.conditions.found = dict.fromkeys("xy" if second < 3 else "xyz", True)
        bench.engine.evaluate(float(second))
    assert [message["subject"] for _, message in hooks.sent] == ["x", "z"]
    first = hooks.sent[0][1]
    assert first["detail"] == "2 alerts: x, y"
    assert first["alerts"] == [{"subject": each, "detail": "because", "since": 7} for each in "xy"]
    assert "alerts" not in hooks.sent[1][1]


# --- the table of temporal semantics ------------------------------------------------------------------------------------


def looked(bench: Bench, trace: str, start: int = 0) -> str:
    """A look at `x` each second: `b` bad, `g` good, `u` without evidence. Returns `.` no alert, `p` about to fire, `F` firing."""
    shown = ""
    for second, mark in enumerate(trace, start):
        bench.conditions.found = {} if mark == "g" else {"x": True if mark == "b" else None}
        bench.engine.evaluate(float(second))
        alerts = bench.engine.report().alerts
        shown += "F" if any(alert.firing for alert in alerts) else "p" if alerts else "."
    return shown


def lasting(seconds: float) -> AlertRule:
    return msgspec.structs.replace(RULE, for_=seconds)


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("gbbbbb", ".pppFF"),  # from the first bad evaluation, >=
        ("bbbb", "pppF"),  # bad at the start
        ("gbbgbbbb", ".pp.pppF"),  # good once: back to the start
        ("gbbubbbb", ".ppppFFF"),  # no evidence stops the clock
        ("gbuuuubbbb", ".ppppppppF"[:8] + "FF"),
        ("gbbbbuub", ".pppFFFF"),  # and keeps firing
        ("uuug", "...."),  # and begins nothing
        ("gbug", ".pp."),
    ],
)
def test_the_clock_of_for(trace: str, expected: str) -> None:
    assert looked(Bench(rule=lasting(3)), trace) == expected


def test_a_time_without_evaluations_counts_for_nothing() -> None:
    """As of a node that is suspended: the condition may have ended and begun in between."""
    bench = Bench(rule=lasting(60))
    assert looked(bench, "bb") == "pp"
    assert looked(bench, "b", start=100) == "p"
    assert bench.told == []


async def test_the_time_between_two_slow_evaluations_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow evaluation runs less often, by plan."""
    bench, clock = Bench(rule=lasting(60)), [0.0]
    bench.conditions.found = {"x": True}
    monkeypatch.setattr(alerting, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    find = bench.conditions.find

    def slow(rule: AlertRule) -> Iterator[Condition]:
        clock[0] += 2.0
        return find(rule)

    monkeypatch.setattr(bench.conditions, "find", slow)
    for began in (0.0, 39.5, 79.0):
        await bench.engine.step()
        assert clock[0] == began + 2.0
        clock[0] += 20.0
        await bench.engine.step()
        clock[0] += 17.5
        assert clock[0] == began + 39.5, "no evaluation in between"
    assert bench.told == [("x", True)]


async def restarted(bench: Bench, file: Path, rule: AlertRule) -> Bench:
    await bench.engine.close()
    again = Bench(file, rule)
    await again.engine.load()
    return again


async def test_an_alert_about_to_fire_survives_a_restart_with_its_time(tmp_path: Path) -> None:
    file, rule = tmp_path / "alerts.json", lasting(3)
    bench = Bench(file, rule)
    assert looked(bench, "gbb") == ".pp"
    bench = await restarted(bench, file, rule)
    assert [(each.firing, each.since) for each in bench.engine.report().alerts] == [(False, 7)]
    assert looked(bench, "bbbb", start=1000) == "ppFF", "1 s of before, 2 s of after, and none of the time away"


async def test_an_alert_about_to_fire_that_is_over_after_a_restart_is_not_told(tmp_path: Path) -> None:
    file, rule = tmp_path / "alerts.json", lasting(3)
    bench = Bench(file, rule)
    looked(bench, "gbb")
    bench = await restarted(bench, file, rule)
    assert looked(bench, "ug") == "p."
    assert bench.told == []
    bench = await restarted(bench, file, rule)
    assert bench.engine.report().alerts == ()


async def test_an_alert_about_to_fire_survives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is written each ten seconds: a killed node loses up to these."""
    file, rule, clock = tmp_path / "alerts.json", lasting(100), [0.0]
    monkeypatch.setattr(alerting, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    bench = Bench(file, rule)
    bench.conditions.found = {"x": True}
    for second in range(46):
        clock[0] = float(second)
        await bench.engine.step()
    again = Bench(file, rule)
    await again.engine.load()
    assert looked(again, "b" * 65)[54:] == "ppppppFFFFF"


async def test_the_file_of_0_1_0_is_read(tmp_path: Path) -> None:
    file = tmp_path / "alerts.json"
    file.write_bytes(b'[{"rule":"r","subject":"x","since":5,"fired_at":6,"detail":"because"}]')
    bench = Bench(file)
    await bench.engine.load()
    (alert,) = bench.engine.report().alerts
    assert (alert.firing, alert.since, alert.fired_at, alert.detail) == (True, 5, 6, "because")
    assert looked(bench, "ubg") == "FF."
    assert bench.told == [("x", False)]


async def test_a_step_of_the_wall_clock_neither_fires_nor_ends_an_alert() -> None:
    wall = [10**18]
    bench = Bench(rule=lasting(3), now=lambda: wall[0])
    for second, step in enumerate((0, 3600, -7200, 0, 3600, -7200)):
        wall[0] += step * 10**9
        assert looked(bench, "b", start=second) == ("F" if second >= 3 else "p")


# --- on nodes ------------------------------------------------------------------------------------------------------------


def ruled(network: MemoryNetwork, *rules: AlertRule, store: str = "memory") -> Node:
    settings = msgspec.structs.replace(QUICK, name="watch", alert=rules, store=store, half_lives=(0.5, 60.0))
    return Node(settings=settings, transport=network.transport())


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> MemoryNetwork:
    monkeypatch.setattr("constraint_crdt.runtime.lifecycle.LOOK_EVERY", 0.02)
    monkeypatch.setattr(alerting, "LOOK_EVERY", 0.02)
    return MemoryNetwork()


async def alerts_of(events: asyncio.Queue[Event], count: int) -> list[tuple[str, str]]:
    async with asyncio.timeout(10):
        found = [await events.get() for _ in range(count)]
    return [(each.kind.value, each.constraint or each.node) for each in found]


def following(node: Node) -> tuple[asyncio.Queue[Event], asyncio.Task[None]]:
    queue: asyncio.Queue[Event] = asyncio.Queue()
    stream = node.events()

    async def follow() -> None:
        async for event in stream:
            if event.kind in (EventKind.ALERT, EventKind.ALERT_RESOLVED):
                queue.put_nowait(event)

    return queue, asyncio.create_task(follow())


@pytest.mark.slow
async def test_a_rate_that_is_too_high_fires_and_resolves(network: MemoryNetwork) -> None:
    hot = AlertRule(name="hot", kind="rate", constraint="th*", above_share=0.5, keep_firing_for=0.0)
    async with ruled(network, hot) as node:
        events, task = following(node)
        await node.add_constraint("thermal", when="t < 1.0")
        await node.add_constraint("other", when="t < 1.0")
        await node.measure({"t": 2})
        assert await alerts_of(events, 1) == [("alert", "thermal")]
        await node.measure({"t": 0})
        assert await alerts_of(events, 1) == [("alert resolved", "thermal")]
        assert node.alerts.report().rules[0].name == "hot"
    await task


@pytest.mark.slow
async def test_coverage_and_silence_and_staleness(network: MemoryNetwork) -> None:
    rules = (
        AlertRule(name="unheard", kind="coverage", for_=0.1, keep_firing_for=0.0),
        AlertRule(name="away", kind="silence", node="b*", for_=0.1, keep_firing_for=0.0),
        AlertRule(name="stale", kind="divergence", above=0.05, keep_firing_for=0.0),
    )
    async with fleet("b", "c", network=network) as (b, _), ruled(network, *rules) as node:
        events, task = following(node)
        await eventually(lambda: node.status().peers == 2)
        network.cut(["watch"], ["b", "c"])
        await node.add_constraint("x")
        seen: set[tuple[str, str]] = set()
        while ("alert", "b") not in seen:
            seen |= set(await alerts_of(events, 1))
        network.heal()
        while ("alert resolved", "b") not in seen:
            seen |= set(await alerts_of(events, 1))
        await eventually(lambda: not node.alerts.report().alerts)
        assert "x" in b.gossip.state.constraints
    await task


@pytest.mark.slow
async def test_an_alert_survives_a_restart_of_its_node(tmp_path: Path, network: MemoryNetwork) -> None:
    rule = AlertRule(name="away", kind="silence", for_=0.0, keep_firing_for=0.0)
    store = str(tmp_path / "watch.db")
    async with fleet("b", network=network) as (b,):
        async with ruled(network, rule, store=store) as node:
            await eventually(lambda: node.status().peers == 1)
            events, task = following(node)
            network.cut(["watch"], ["b"])
            assert await alerts_of(events, 1) == [("alert", "b")]
        await task
        async with ruled(network, rule, store=store) as node:
            events, task = following(node)
            (alert,) = node.alerts.report().alerts
            assert (alert.firing, alert.subject) == (True, "b")
            network.heal()
            assert await alerts_of(events, 1) == [("alert resolved", "b")], "and it did not fire again before"
            await eventually(lambda: b.status().peers == 1)
        await task


# --- kinds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("about", "field"),
    [("constraint", {"constraint": "s"}), ("node", {"node": "s"}), ("fleet", {})],
    ids=("constraint", "node", "fleet"),
)
async def test_a_kind_that_is_added_fires_about_its_subject(
    monkeypatch: pytest.MonkeyPatch, network: MemoryNetwork, about: About, field: dict[str, str]
) -> None:
    class Crowd(AlertKind):
        """The fleet is larger than `above`."""

        name = "crowd"
        parameters = ("above",)
        lasts = 0.05

        def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
            if len(facts.evidence.names) > (rule.above or 0.0):
                yield Condition("s", True, f"{len(facts.evidence.names)} nodes")

    monkeypatch.setattr(Crowd, "about", about, raising=False)
    monkeypatch.setitem(KINDS, "crowd", Crowd())
    async with fleet("b", network=network), ruled(network, AlertRule(name="many", kind="crowd", above=1.0)) as node:
        events = node.events()
        async with asyncio.timeout(10):
            fired = await anext(event async for event in events if event.kind is EventKind.ALERT)
        assert {key: value for key in ("constraint", "node") if (value := getattr(fired, key))} == field
        assert fired.detail == "many: 2 nodes"
        (rule,), (alert,) = node.alerts.report().rules, node.alerts.report().alerts
        assert (rule.kind, rule.lasts, alert.subject) == ("crowd", 0.05, "s")
