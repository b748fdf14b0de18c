"""The history of rules: who changed what, what it was, and the way back."""

import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode, MemoryNetwork, Node
from constraint_crdt.crdt.cells import make_key
from constraint_crdt.errors import NotKept
from constraint_crdt.insight.history import RuleHistory
from constraint_crdt.operations.constraints import AddConstraint, RemoveConstraint
from constraint_crdt.runtime.change_feed import ChangeFeed, acting_as
from constraint_crdt.state import ConstraintState
from constraint_crdt.types import orset as module
from constraint_crdt.types.alerts import ALERT_RULE, SilenceValue
from constraint_crdt.types.definition import ADD, Definition
from constraint_crdt.types.orset import SWITCH, Before, Subject
from constraint_crdt.types.parameters import PARAMETER
from tests.runtime.fleet import QUICK, agreed, eventually, fleet

SECOND = 10**9
X = Subject(ADD, "x")


class Disk:
    """A disk that takes everything at once."""

    trouble: str | None = None

    async def durable(self) -> None:
        return None


class Bench:
    """A node with a feed, and a clock of its own."""

    def __init__(self, name: str = "a") -> None:
        self.now = 1_800_000_000 * SECOND
        self.gossip = GossipNode(name, incarnation=1, now=lambda: self.now)
        self.feed = ChangeFeed(self.gossip, Disk(), "alice")
        self.rules = RuleHistory(self.gossip)

    def put(self, id_: str, when: str | None) -> None:
        self.now += SECOND
        gossip = self.gossip
        if when is None:
            subjects = [Subject(kind, id_) for kind in (ADD, SWITCH)]
            self.feed.write(lambda: gossip.remove_constraint(id_), "remove", id_, subjects=subjects)
        else:
            at = gossip.time.stamp()
            self.feed.write(lambda: gossip.add_constraint(id_, when=when, at=at), "add", id_, subjects=[Subject(ADD, id_)])

    def switch(self, id_: str, disabled: bool) -> None:
        self.now += SECOND
        change = self.gossip.disable if disabled else self.gossip.enable
        self.feed.write(lambda: change([id_]), "switch", id_, subjects=[Subject(SWITCH, id_)])

    def content(self) -> dict[str, object]:
        state = self.gossip.state
        return {id_: (state.constraints.definitions(id_), id_ in state.switches) for id_ in state.constraints}


edits = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from(("v < 1", "v < 2", "v < 3", None, "disable", "enable"))), max_size=12
)


@pytest.mark.long
@given(edits, st.data())
@settings(max_examples=60)
def test_a_revert_to_a_time_gives_the_content_of_that_time(taken: list[tuple[str, str | None]], data: st.DataObject) -> None:
    bench, past = Bench(), list[tuple[int, dict[str, object]]]()
    past.append((bench.now, bench.content()))
    for id_, what in taken:
        active = id_ in bench.gossip.state.constraints
        if what in ("disable", "enable") and active:
            bench.switch(id_, what == "disable")
        elif what not in ("disable", "enable") and (what is not None or active):
            bench.put(id_, what)
        past.append((bench.now, bench.content()))
    at, content = data.draw(st.sampled_from(past))
    plan = bench.rules.to_time(at)
    definitions = {each.id: each.definition for each in plan.constraints}
    bench.now += SECOND
    bench.gossip.restore(definitions, dict(plan.switches))
    assert bench.content() == content
    assert (plan.notes, bench.rules.to_time(bench.now).constraints) == ([], [])


class OtherRules:
    """Two nodes that tell each other all they know, with parameters, alert rules, silences and disablings."""

    def __init__(self) -> None:
        self.benches = Bench("a"), Bench("b")

    @property
    def now(self) -> int:
        return self.benches[0].now

    def step(self, by: int, what: str, key: str, value: str | None) -> None:
        bench = self.benches[by]
        for each in self.benches:
            each.now += SECOND
        gossip, state, at = bench.gossip, bench.gossip.state, bench.gossip.time.stamp()
        if what == "set":
            name, on = key, "zone=a" if value and len(value) > 1 else ""
            subjects = [Subject(PARAMETER, make_key(name, on))]
            if value is not None:
                bench.feed.write(lambda: gossip.set_parameter(name, value, on or None), "set", name, subjects=subjects)
            elif any(not each.text for each in state.parameters.settings(name)):
                bench.feed.write(lambda: gossip.unset_parameter(name), "unset", name, subjects=subjects)
        elif what == "rule":
            text, removed = f'{{"kind":"{value}"}}', value is None
            put = partial(state.alert_rules.put, key, text, at=at, actor="o", removed=removed)
            bench.feed.write(lambda: gossip.write(lambda me: put(node=me)), "rule", key, subjects=[Subject(ALERT_RULE, key)])
        elif what == "silence":
            in_force = state.silences.active(bench.now)
            if value is None and in_force:
                bench.feed.write(lambda: gossip.write(lambda me: state.silences.end(in_force[0], at=at, actor="o", node=me)))
            elif value is not None:
                silence = SilenceValue(0, at + 10**6 * SECOND, key, why=value, at=at)
                bench.feed.write(lambda: gossip.write(lambda me: state.silences.put(silence, node=me)))
        else:
            change = partial(gossip.disable, [key], ttl=10**6, why=value or "") if value else partial(gossip.enable, [key])
            bench.feed.write(change, "switch", key, subjects=[Subject(SWITCH, key)])
        self.benches[1 - by].gossip.merge(state)

    def content(self) -> object:
        state = self.benches[0].gossip.state
        parameters = {
            (name, each.text): [value.value for value in each.values]
            for name in state.parameters
            for each in state.parameters.settings(name)
        }
        rules = {name: found.text for name in state.alert_rules if (found := state.alert_rules.of(name)) is not None}
        silences = sorted((each.value.alert, each.value.why, each.value.until) for each in state.silences.active(self.now))
        disabled = {id_: (each.until, each.why) for id_ in "xy" if (each := state.switches.disabling(id_)) is not None}
        return parameters, rules, silences, disabled


other_steps = st.tuples(
    st.integers(0, 1),
    st.sampled_from(("set", "rule", "silence", "disable")),
    st.sampled_from("xy"),
    st.sampled_from(("p", "q", "long", None)),
)


@pytest.mark.long
@given(st.lists(other_steps, max_size=14), st.data())
@settings(max_examples=60)
def test_a_revert_to_a_time_covers_parameters_alert_rules_silences_and_the_words_of_disablings(
    taken: list[tuple[int, str, str, str | None]], data: st.DataObject
) -> None:
    world = OtherRules()
    for bench in world.benches:
        bench.put("x", "v < 1")
        bench.put("y", "v < 1")
    world.benches[1].gossip.merge(world.benches[0].gossip.state)
    world.benches[0].gossip.merge(world.benches[1].gossip.state)
    past = [(world.now, world.content())]
    for each in taken:
        world.step(*each)
        past.append((world.now, world.content()))
    at, content = data.draw(st.sampled_from(past))
    bench = world.benches[data.draw(st.integers(0, 1))]
    plan = bench.rules.to_time(at)
    for one in world.benches:
        one.now += SECOND
    state, stamp = bench.gossip.state, bench.gossip.time.stamp()
    bench.feed.write(
        lambda: bench.gossip.restore({}, dict(plan.switches), lambda me: plan.write(state, at=stamp, actor="o", node=me)),
        "revert", "all", subjects=plan.subjects(),
    )  # fmt: skip
    world.benches[0].gossip.merge(state)
    assert world.content() == content
    again = bench.rules.to_time(bench.now)
    assert (again.settings, again.silences, again.switches, again.notes) == ([], [], [], [])


async def test_a_parameter_an_alert_rule_and_a_silence_go_back() -> None:
    async with fleet("a") as (node,):
        await node.set_parameter("limit", 1.5)
        await node.set_parameter("limit", 0.8, on="zone=a")
        await node.set_parameter("limit", 2.0)
        assert [(each.before, each.after) for each in node.history("limit")][-1] == (("value: 1.5",), ("value: 2.0",))
        report = await node.revert("limit", kind="parameter", why="too fast")
        assert [(each.kind, each.id, each.change) for each in report.steps] == [("parameter", "limit", "replaced")]
        assert [each.value for each in node.parameters("limit")[0].settings] == [1.5, 0.8]
        assert [each.change for each in (await node.revert("limit", kind="parameter", on="zone=a")).steps] == ["removed"]
        assert (await node.revert("limit", kind="parameter", to=3)).steps[0].change == "replaced"
        with pytest.raises(NotKept, match="there is no version 9 of limit alone"):
            await node.revert("limit", kind="parameter", to=9)
        with pytest.raises(NotKept, match="no earlier version of parameter other on zone=b is kept"):
            await node.revert("other", kind="parameter", on="zone=b")
        await node.fleet_alerts.define({"name": "hot", "kind": "silence"})
        await node.fleet_alerts.define({"name": "hot", "kind": "silence", "for": 60.0})
        assert node.history("hot")[-1].diff == ["+ for: 60.0"]
        await node.revert("hot", kind="alert rule")
        assert [each.lasts for each in node.alerts.report().rules] == [30.0]
        await node.fleet_alerts.remove("hot")
        assert [each.change for each in (await node.revert("hot", kind="alert rule")).steps] == ["added"]
        silence = await node.fleet_alerts.silence("th*", why="moved")
        assert [(each.id, each.change) for each in (await node.revert(silence.id, kind="silence")).steps] == [(silence.id, "ended")]
        assert node.fleet_alerts.silences() == []
        await node.revert(silence.id, kind="silence")
        assert [(each.alert, each.why, each.until) for each in node.fleet_alerts.silences()] == [("th*", "moved", silence.until)]
        for given_, says in (
            ({"id_": "x", "kind": "budget"}, "kind must be one of constraint, parameter, alert rule, silence"),
            ({"id_": "x", "on": "zone=a"}, "only settings of parameters are for some nodes"),
            ({"id_": silence.id, "kind": "silence", "to": 1}, "a silence has no versions"),
            ({"id_": "none", "kind": "silence"}, "silence"),
        ):
            with pytest.raises(ConstraintCrdtError, match=says):
                await node.revert(**given_)


async def test_a_revert_to_a_time_gives_a_disabling_its_end_and_its_reason_back() -> None:
    async with fleet("a") as (node,):
        await node.add_constraint("x", when="v < 1")
        await node.disable(["x"], why="noise", for_=3600)
        before, then = node.gossip.state.switches.disabling("x"), time.time_ns()
        await node.disable(["x"], why="for good")
        assert [each.change for each in (await node.revert(time=then)).steps] == ["disabled"]
        after = node.gossip.state.switches.disabling("x")
        assert before is not None
        assert after is not None
        assert (after.until, after.why) == (before.until, "noise")


@pytest.mark.slow
@given(st.lists(st.sampled_from(("v < 1", "v < 2", "v < 3", None)), min_size=1, max_size=8))
@settings(max_examples=40)
def test_each_version_is_told_and_can_be_the_present_one_again(taken: list[str | None]) -> None:
    bench, versions = Bench(), list[str | None]()
    for when in taken:
        if (versions or [None])[-1] != when:
            bench.put("x", when)
            versions.append(when)
    entries = bench.rules.entries("x")
    assert [each.version for each in entries] == list(range(1, len(versions) + 1))
    assert [each.after[:1] for each in entries] == [(f"when: {when}",) if when else () for when in versions]
    assert [each.before for each in entries[1:]] == [each.after for each in entries[:-1]]
    for number, when in enumerate(versions, start=1):
        plan = bench.rules.to_version("x", number)
        found = [each.definition for each in plan.constraints]
        present = versions[-1]
        assert found == ([] if when == present else [Definition(when) if when else None])


@pytest.mark.slow
async def test_the_first_version_of_a_constraint_of_a_batch_keeps_its_author_after_an_edit() -> None:
    async with fleet("a", "b") as (a, b):
        with acting_as("carol"):
            await a.batch([AddConstraint(id="w", when="v < 1"), AddConstraint(id="q")], why="the first rules")
        await eventually(lambda: "w" in b.constraint_ids())
        with acting_as("bob"):
            await b.add_constraint("w", when="v < 2")
            await b.add_constraint("w", when="v < 3")
        await eventually(lambda: agreed([a, b]))
        for node in (a, b):
            first, second, third = node.history("w")
            assert (first.actor, first.node, first.why, first.version) == ("carol", "a", "the first rules", 1)
            assert first.diff[0] == "+ when: v < 1"
            assert [(each.actor, each.node, each.version) for each in (second, third)] == [("bob", "b", 2), ("bob", "b", 3)]


@pytest.mark.slow
async def test_the_history_says_who_when_and_why_on_every_node() -> None:
    async with fleet("a", "b") as (a, b):
        with acting_as("alice"):
            await a.add_constraint("x", when="v < 1", severity="critical", why="a start")
        await eventually(lambda: "x" in b.constraint_ids())
        with acting_as("bob"):
            await b.add_constraint("x", when="v < 2", severity="critical", why="too tight", loosen=True)
            await b.disable(["x"], why="noise", for_=3600)
        await b.batch([AddConstraint(id="y"), AddConstraint(id="z")], why="more")
        await eventually(lambda: agreed([a, b]))
        assert a.history() == b.history()
        added, edited, disabled = a.history("x")
        assert (added.actor, added.node, added.operation, added.version, added.why) == ("alice", "a", "add", 1, "a start")
        assert added.diff == ["+ when: v < 1", "+ severity: critical"]
        assert (edited.actor, edited.node, edited.version, edited.why) == ("bob", "b", 2, "too tight")
        assert edited.diff == ["- when: v < 1", "+ when: v < 2"]
        assert (disabled.kind, disabled.operation, disabled.why) == ("switch", "disable", "noise")
        assert disabled.diff[1].startswith("+ disabled until 20")
        assert [(each.operation, each.subject, each.why) for each in a.history("y")] == [("add", "y", "more")]
        assert [each.subject for each in a.history()] == ["x", "x", "x", "2 constraints"]
        report = await a.revert("x", dry_run=True)
        assert (report.done, [(each.id, each.change) for each in report.steps]) == (False, [("x", "enabled")])
        assert (await a.revert("x")).done
        assert a.status().disabled == 0
        await a.revert("x", to=1, why="back")
        assert [(each.when, each.severity) for each in a.constraints(["x"])] == [("v < 1", "critical")]
        assert [(each.operation, each.version, each.why) for each in a.history("x")][-1] == ("revert", 3, "back")
        assert (await a.revert("x", to=3)).notes == ("version 3 of x is the present one",)
        await a.remove_constraint("x")
        await a.revert("x")
        assert a.constraints(["x"])[0].when == "v < 1"
        for wrong in ({"id_": "y"}, {"id_": "x", "to": 9}, {"id_": None}, {"id_": "x", "time": 5}, {"time": 5}):
            with pytest.raises(ConstraintCrdtError):
                await a.revert(**wrong)
        with pytest.raises(ConstraintCrdtError, match="not come yet"):
            await a.revert(time=datetime.now(UTC) + timedelta(days=1))


async def test_parameters_and_the_switch_of_all_are_told_as_people_write_them() -> None:
    async with fleet("a") as (a,):
        await a.set_parameter("limit", 1.5)
        await a.set_parameter("limit", "slow", "zone in (a, b)")
        await a.set_parameter("limit", 2)
        await a.unset_parameter("limit")
        await a.disable(all_=True, why="storm")
        told = [(each.subject, *each.diff) for each in a.history()]
        assert told == [
            ("limit", "+ value: 1.5"),
            ("limit on zone in (a, b)", '+ value: "slow"'),
            ("limit", "- value: 1.5", "+ value: 2.0"),
            ("limit", "- value: 2.0"),
            ("all constraints", "- enabled", "+ disabled: storm"),
        ]
        assert len(a.history("limit")) == 3


@pytest.mark.slow
async def test_thousands_of_removals_are_reverted_together() -> None:
    async with Node(settings=QUICK, transport=MemoryNetwork().transport()) as node:
        await node.batch([AddConstraint(id=f"c{n}", when=f"v < {n}", about="for a test " * 5) for n in range(500)])
        before, at = node.gossip.constraints_hash, time.time_ns()
        definitions = [each.when for each in node.constraints()]
        await node.batch([RemoveConstraint(id=f"c{n}") for n in range(500)], why="by mistake")
        assert node.constraint_ids() == []
        assert len(node.gossip.state.changes._slots[node.gossip.replica]) < 5, "many changes share a cell"
        report = await node.revert(time=at)
        assert (report.done, len(report.steps), report.notes) == (True, 500, ())
        assert [each.when for each in node.constraints()] == definitions
        assert node.gossip.constraints_hash != before, "these are new cells"


def test_a_conflict_is_reverted_to_its_last_definition_and_says_so() -> None:
    a, b = Bench("a"), Bench("b")
    a.put("x", "v < 1")
    b.gossip.state.merge(a.gossip.state)
    a.put("x", "v < 2")
    b.now += 5 * SECOND
    b.put("x", "v < 3")
    a.gossip.state.merge(b.gossip.state)
    a.now = b.now
    a.put("x", "v < 4")
    entries = a.rules.entries("x")
    assert [(each.version, each.node) for each in entries] == [(1, "a"), (2, "a"), (2, "b"), (3, "a")]
    plan = a.rules.to_version("x", 2)
    assert [each.definition for each in plan.constraints] == [Definition("v < 3")]
    assert plan.notes == ["x had 2 definitions in conflict: the last of them counts"]


def test_changes_are_bounded_in_number_in_bytes_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHANGE_SLOTS", 4)
    now = [module.KEPT]
    state = ConstraintState(now=lambda: now[0])
    me = GossipNode("a", incarnation=1).replica

    def note(size: int, key: str = "x") -> None:
        now[0] += SECOND
        before = [Before(Subject(ADD, key), (b"\xc4" + bytes([size]) + b"v" * size,))]
        state.changes.note(before, operation="add", actor="a", why="", time=now[0], node=me)

    for _ in range(6):
        note(10)
    assert [each.number for each in state.changes.of(X)] == [4, 5, 6, 7], "the slots go round"
    assert state.changes.complete_since == now[0] - 3 * SECOND
    monkeypatch.setattr(module, "CHANGE_BYTES", 150)
    note(90)
    assert [each.number for each in state.changes.of(X)] == [8]
    assert sum(len(cell.data) for cell in state.rows.each(module.CHANGE)) < 200
    now[0] += module.KEPT + SECOND
    assert (list(state.changes), state.changes.of(X)) == ([], [])
    note(5, "y")
    assert len(state.changes) == 1, "those too old to be read are emptied"
    note(1)
    state.changes.note([Before(X, (b"\xc5\x7f\xff" + b"v" * 0x7FFF,))], operation="add", actor="a", why="", time=now[0], node=me)
    assert len(state.changes) == 2, "what does not fit into a cell is left out"
