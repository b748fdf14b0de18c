"""When alerts fire and resolve: against a plain reading of what was so when, over restarts, and on real nodes."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from constraint_crdt import Event, EventKind, MemoryNetwork, Node
from constraint_crdt.alerts import engine as alerting
from constraint_crdt.alerts.engine import Alert, AlertEngine, Webhooks
from constraint_crdt.alerts.rules import KINDS, About, AlertKind, AlertRule, Condition, Conditions, Facts
from tests.runtime.fleet import QUICK, eventually, fleet

RULE = AlertRule(name="r", kind="silence", for_=2.0)


class Scripted(Conditions):
    """What is found is what the test says."""

    def __init__(self) -> None:
        self.found: dict[str, bool | None] = {}

    def find(self, rule: AlertRule) -> Iterator[Condition]:
        return (Condition(subject, is_so, "because") for subject, is_so in self.found.items())


class Bench:
    """Alerting without a node."""

    def __init__(self, file: Path | None = None, rule: AlertRule = RULE, webhooks: Webhooks | None = None) -> None:
        self.conditions = Scripted()
        self.told: list[tuple[str, bool]] = []
        self.engine = AlertEngine(
            (rule,), self.conditions, who=("n", "f"), file=file, notify=self.tell, now=lambda: 7, webhooks=webhooks
        )

    def tell(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        self.told.append((alert.subject, fired))


@given(
    looks=st.lists(st.fixed_dictionaries({"x": st.sampled_from((True, False, None)), "y": st.sampled_from((True, False, None))}))
)
def test_it_fires_once_after_its_time_and_resolves_once(looks: list[dict[str, bool | None]]) -> None:
    bench = Bench()
    since: dict[str, int] = {}
    firing: set[str] = set()
    expected: list[tuple[str, bool]] = []
    for second, look in enumerate(looks):
        bench.conditions.found = {subject: is_so for subject, is_so in look.items() if is_so is not False}
        before = len(bench.told)
        changed = bench.engine.evaluate(float(second))
        assert changed is (len(bench.told) > before)
        for subject, is_so in look.items():
            if is_so:
                if second - since.setdefault(subject, second) >= 2 and subject not in firing:
                    firing.add(subject)
                    expected.append((subject, True))
            elif is_so is False:
                since.pop(subject, None)
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

    def send(self, url: str, message: Mapping[str, object]) -> None:
        self.sent.append((url, message))


def test_each_place_of_a_rule_is_told_once_for_each_turn() -> None:
    hooks = Recorded()
    rule = AlertRule(name="r", kind="silence", for_=0.0, to=("http://a/x", "log", "http://b/y"))
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


async def test_a_rate_that_is_too_high_fires_and_resolves(network: MemoryNetwork) -> None:
    async with ruled(network, AlertRule(name="hot", kind="rate", constraint="th*", above_share=0.5)) as node:
        events, task = following(node)
        await node.add_constraint("thermal", when="t < 1.0")
        await node.add_constraint("other", when="t < 1.0")
        await node.measure({"t": 2})
        assert await alerts_of(events, 1) == [("alert", "thermal")]
        await node.measure({"t": 0})
        assert await alerts_of(events, 1) == [("alert resolved", "thermal")]
        assert node.alerts.report().rules[0].name == "hot"
    await task


async def test_coverage_and_silence_and_staleness(network: MemoryNetwork) -> None:
    rules = (
        AlertRule(name="unheard", kind="coverage", for_=0.1),
        AlertRule(name="away", kind="silence", node="b*", for_=0.1),
        AlertRule(name="stale", kind="divergence", above=0.05),
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


async def test_an_alert_survives_a_restart_of_its_node(tmp_path: Path, network: MemoryNetwork) -> None:
    rule = AlertRule(name="away", kind="silence", for_=0.0)
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
