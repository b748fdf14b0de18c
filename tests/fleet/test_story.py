"""The life of the rules of a fleet, from the first constraint to the last alert: five robots, and the commands of their people.

Each chapter goes on where the one before ended. The commands are those of a shell, against the APIs of five nodes in this process.
"""

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.cli import main
from constraint_crdt.http.server import ApiServer
from tests.runtime.fleet import QUICK, agreed, eventually
from tests.runtime.test_actions import Receiver

ROBOTS = {
    "arm-1": {"kind": "arm", "zone": "hall"},
    "arm-2": {"kind": "arm", "zone": "hall"},
    "agv-1": {"kind": "agv", "zone": "hall"},
    "agv-2": {"kind": "agv", "zone": "dock"},
    "agv-3": {"kind": "agv", "zone": "dock", "spare": "yes"},
}


class Story:
    """The fleet, and its shells."""

    def __init__(self, folder: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.receiver, self.capsys = folder, receiver, capsys
        self.network = MemoryNetwork()
        self.nodes: dict[str, Node] = {}
        self.urls: dict[str, str] = {}

    async def begin(self, stack: AsyncExitStack) -> None:
        """Start the robots. The arms know the way to the pager; agv-1 records what it measures."""
        for name, labels in ROBOTS.items():
            settings = msgspec.structs.replace(
                QUICK, name=name, labels=labels, destinations={"pager": self.receiver.url} if name.startswith("arm") else {},
                record_measurements=str(self.folder / "agv-1.measurements") if name == "agv-1" else "",
            )  # fmt: skip
            node = Node(settings=settings, transport=self.network.transport())
            self.nodes[name] = await stack.enter_async_context(node)
            self.urls[name] = (await stack.enter_async_context(ApiServer(node, port=0))).url
        await self.all_see(lambda node: node.status().peers == 4)

    async def all_see(self, what: Callable[[Node], object]) -> None:
        """Wait until it is so on all robots."""
        await eventually(lambda: all(what(node) for node in self.nodes.values()), within=30.0)

    async def settle(self) -> None:
        """Wait until all robots know the same."""
        await eventually(lambda: agreed(list(self.nodes.values())), within=30.0)

    async def run(self, line: str, *, on: str = "arm-1") -> tuple[int, str]:
        """A command of a shell on a robot: its exit code, and all that it says."""
        code = await asyncio.to_thread(main, [*shlex.split(line), "--node", self.urls[on]])
        out, err = self.capsys.readouterr()
        return code, out + err

    async def does(self, line: str, *, on: str = "arm-1") -> str:
        """A command that succeeds."""
        code, said = await self.run(line, on=on)
        assert code == 0, said
        return said

    async def is_refused(self, line: str, *, on: str = "arm-1") -> str:
        """A command that fails, in a sentence."""
        code, said = await self.run(line, on=on)
        assert code in (1, 2), said
        assert "Traceback" not in said
        return said

    def state(self, robot: str, id_: str) -> str | None:
        """The verdict state of a constraint on a robot."""
        return {each.id: each.state for each in self.nodes[robot].constraints()}.get(id_)

    async def becomes(self, robot: str, id_: str, state: str) -> None:
        """Wait for the verdict state."""
        await eventually(lambda: self.state(robot, id_) == state, within=30.0)

    @property
    def pages(self) -> list[tuple[str, str]]:
        """The alerts that the pager got, by name and state."""
        told = [json.loads(body) for _, body in self.receiver.got]
        return [(each["alert"], each["state"]) for each in told]


@pytest.mark.long
async def test_the_rules_of_five_robots_from_the_first_to_the_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chapters: list[Callable[[Story], Awaitable[None]]] = [
        joints_have_a_limit_of_their_zone, a_rule_is_tried_before_it_counts, a_driver_asks_first, an_edit_says_what_it_means,
        a_rule_that_fires_everywhere_is_stopped, the_past_is_kept_and_comes_back, rules_are_tested_and_tried_on_the_past,
        an_edit_reaches_the_hall_before_the_dock, two_people_edit_at_once_and_the_pager_rings_once, the_pager_is_silenced,
    ]  # fmt: skip
    receiver = Receiver()
    async with AsyncExitStack() as stack:
        stack.callback(receiver.close)
        story = Story(tmp_path, receiver, capsys)
        await story.begin(stack)
        for chapter in chapters:
            await chapter(story)


async def joints_have_a_limit_of_their_zone(story: Story) -> None:
    """Instances, selectors and parameters: one rule for each joint of each arm, and a limit for a zone."""
    added = await story.does(
        "add joint_hot --when 'joint_temp_c <= param.joint_limit' --each joint --on 'kind in (arm, crane), !spare'"
    )
    assert "the parameter joint_limit is not set" in added
    assert "- -> 80 on agv-1, agv-2, agv-3, arm-1, arm-2" in await story.does("set joint_limit 80")
    await story.settle()
    assert "80 -> 60 on agv-1, arm-1, arm-2" in await story.does("set joint_limit 60 --on zone=hall", on="agv-3")
    await story.settle()
    await story.nodes["arm-1"].measure({"joint_temp_c": {"by": "joint", "values": {"j1": 71.0, "j2": 55.0}}})
    await story.nodes["arm-2"].measure({'joint_temp_c{joint="j1"}': 59.0})
    await story.becomes("arm-1", "joint_hot", "violated")
    await story.becomes("arm-2", "joint_hot", "holds")
    assert "violated: 1 of 2 joints" in await story.does("constraints")
    explained = await story.does("explain joint_hot")
    assert "param.joint_limit = 60" in explained
    assert story.state("agv-1", "joint_hot") == "off", "no arm"
    assert "arm-2" not in await story.does("nodes --on 'zone=dock, !spare'")


async def a_rule_is_tried_before_it_counts(story: Story) -> None:
    """Modes: audit tells nobody, and enforce does."""
    await story.does("add pace --when 'speed_mps <= 0.8' --mode audit --on kind=agv --why 'is anybody faster?'")
    await story.settle()
    await story.nodes["agv-1"].measure({"speed_mps": 1.1})
    await story.becomes("agv-1", "pace", "violated")
    assert "allowed" in await story.does("decide speed_mps=1.1", on="agv-1")
    assert (
        await story.does("mode pace enforce --why 'it is'")
        == "pace: enforce, was audit\n  tightens: more follows from a violation\n"
    )
    await story.settle()


async def a_driver_asks_first(story: Story) -> None:
    """Decisions: nothing is counted, and the answer says what is missing."""
    code, said = await story.run("decide speed_mps=1.1", on="agv-2")
    assert code == 1
    assert said.startswith("NOT ALLOWED: 1 violated")
    assert "0.3 above the limit" in said
    assert (await story.does("decide speed_mps=0.5", on="agv-2")).startswith("allowed")
    assert (await story.does("decisions", on="agv-2")).count("speed_mps") == 2
    assert story.state("agv-2", "pace") != "violated", "a question is no measurement"


async def an_edit_says_what_it_means(story: Story) -> None:
    """Partial edits, and what a change means: to loosen what is critical takes a word."""
    kept = await story.does("add pace --severity critical", on="agv-3")
    assert "  severity: warning -> critical\n  tightens: it is more severe\n" in kept
    await story.settle()
    refused = await story.is_refused("add pace --when 'speed_mps <= 1.5'")
    assert "pace is critical, and this loosens it: it allows speed_mps = 1.5, which was forbidden" in refused
    assert "--loosen" in refused
    for line in ("mode pace warn", "add pace --severity info", "add pace --on zone=dock", "add pace --for 10s"):
        assert "pace is critical, and this loosens it" in await story.is_refused(line)
    assert "  tightens: it forbids speed_mps = 0.8" in await story.does("add pace --when 'speed_mps <= 0.7'")
    file = story.folder / "fleet.toml"
    file.write_text('[[constraint]]\nid = "pace"\nwhen = "speed_mps <= 1.0"\nseverity = "critical"\non = "kind=agv"\n')
    planned = await story.is_refused(f"apply {file} --dry-run")
    assert "  loosens: it allows speed_mps = 1.0, which was forbidden" in planned
    assert "it would be refused: it loosens what is critical: pace" in planned
    assert "pace: replaced" in await story.does(f"apply {file} --loosen --why 'the floor is dry'")
    await story.settle()
    assert "unchanged" in await story.does(f"apply {file}", on="agv-2")


async def a_rule_that_fires_everywhere_is_stopped(story: Story) -> None:
    """Disabling: kept, evaluated nowhere, and shown as such."""
    await story.does("disable pace --for 1h --why 'the sensors are being changed'", on="agv-2")
    await story.all_see(lambda node: node.status().disabled == 1)
    assert "DISABLED" in await story.does("constraints pace", on="agv-1")
    assert (await story.does("decide speed_mps=9", on="agv-1")).startswith("allowed")
    await story.does("enable pace", on="arm-2")
    await story.all_see(lambda node: node.status().disabled == 0)


async def the_past_is_kept_and_comes_back(story: Story) -> None:
    """History and revert: who, when, why, and the way back."""
    told = await story.does("history pace", on="arm-2")
    assert "by local on arm-1: the floor is dry" in told
    assert "- when: speed_mps <= 0.7" in told
    assert "disable pace" in told
    assert "tightens: it forbids speed_mps = 1.0" in await story.does("revert pace --to 4 --dry-run", on="agv-1")
    await story.does("revert pace --to 4 --why 'it rained'", on="agv-1")
    await story.all_see(lambda node: [each.when for each in node.constraints(["pace"])] == ["speed_mps <= 0.7"])
    assert "loosens" in await story.is_refused("revert pace")


async def rules_are_tested_and_tried_on_the_past(story: Story) -> None:
    """Rule tests and a backtest: before the fleet hears of a rule, and on what agv-1 measured this morning."""
    for speed in (0.6, 0.9, 0.6):
        await story.nodes["agv-1"].measure({"speed_mps": speed})
    await story.becomes("agv-1", "pace", "holds")
    new, cases = story.folder / "new.toml", story.folder / "cases.toml"
    new.write_text('[[constraint]]\nid = "pace"\nwhen = "speed_mps <= 0.95"\nseverity = "critical"\non = "kind=agv"\n')
    cases.write_text("""
rule_files = ["new.toml"]
[[test]]
node = [{ name = "agv-1", labels = { kind = "agv" } }]
interval = "10s"
series = [{ variable = "speed_mps", values = "0.5 0.9 1.0" }]
expect = [
    { at = "10s", constraint = "pace", state = "holds" },
    { at = "20s", constraint = "pace", state = "violated", since = "20s" },
]
""")
    assert await asyncio.to_thread(main, ["test", str(cases)]) == 0
    cases.write_text(cases.read_text().replace('state = "holds"', 'state = "violated"'))
    assert await asyncio.to_thread(main, ["test", str(cases)]) == 1
    story.capsys.readouterr()
    recording = story.folder / "agv-1.measurements"
    code = await asyncio.to_thread(main, ["backtest", str(recording), "--with", str(new), "--json"])
    [replayed] = json.loads(story.capsys.readouterr().out)
    assert (code, replayed["node"]) == (0, "agv-1")
    found = [(each["constraint"], each["old"], each["new"], each["values"]) for each in replayed["differences"]]
    assert ("pace", "violated", "holds", "speed_mps=0.9") in found


async def an_edit_reaches_the_hall_before_the_dock(story: Story) -> None:
    """Staging: a new limit holds in the hall, goes on to the dock by itself, stops there at its gate, and is rolled back."""
    await story.does("add lift --when 'load_kg <= 50.0' --on kind=agv")
    await story.settle()
    for robot, load in (("agv-1", 40.0), ("agv-2", 45.0), ("agv-3", 10.0)):
        await story.nodes[robot].measure({"load_kg": load})
    await story.becomes("agv-2", "lift", "holds")
    staged = story.folder / "staged.toml"
    staged.write_text('[[constraint]]\nid = "lift"\nwhen = "load_kg <= 42.0"\non = "kind=agv"\n')
    begun = await story.does(f"apply {staged} --stage zone=hall,zone=dock --gate 'violated == 0 for 0.2s' --json", on="agv-3")
    rollout = json.loads(begun)["id"]
    await story.all_see(lambda node: [each.phase for each in node.rollouts.reports()] == ["stopped"])
    assert "agv-2: lift is violated by load_kg = 45.0" in await story.does(f"rollout show {rollout}", on="arm-2")
    await story.becomes("agv-1", "lift", "holds")  # a step of a rollout has the definition read again
    await story.becomes("agv-2", "lift", "violated")
    assert "stopped" in await story.does("status", on="arm-1")
    await story.does(f"rollout back {rollout} --why 'the dock carries more'", on="agv-1")
    await story.becomes("agv-2", "lift", "holds")
    await story.all_see(lambda node: not node.rollouts.active())


async def two_people_edit_at_once_and_the_pager_rings_once(story: Story) -> None:
    """Edits on both sides of a cut: a conflict that one of the two arms tells the pager once, acknowledged, and resolved."""
    await story.does(
        "alerts add torn --kind conflict --for 0.2s --keep-firing-for 0.2s --to pager --why 'two people, two rules'", on="agv-2"
    )
    await story.settle()
    await the_fleet_is_torn(story, "speed_mps <= 0.65", "speed_mps <= 0.6")
    await eventually(lambda: story.pages == [("torn", "firing")], within=30.0)
    # An arm tells the pager; that the alert fires is known on the other robots once they have looked.
    await eventually(
        lambda: any((each.subject, each.firing) == ("pace", True) for each in story.nodes["agv-3"].alerts.report().alerts),
        within=30.0,
    )
    await story.does("acknowledge torn/pace --why 'on my way'", on="agv-3")
    await eventually(lambda: len(story.nodes["arm-2"].fleet_alerts.silences()) == 1, within=30.0)
    assert "acknowledged" in await story.does("silences", on="arm-2")
    assert "speed_mps <= 0.6 " in await story.does("resolve pace", on="arm-2")
    assert "pace: joined, of 2" in await story.does("resolve pace --all-of", on="arm-2")
    await story.all_see(lambda node: node.status().conflicts == 0)
    await eventually(lambda: story.pages == [("torn", "firing"), ("torn", "resolved")], within=30.0)


async def the_pager_is_silenced(story: Story) -> None:
    """While it is silenced nobody is woken, and everybody can see that it is."""
    await story.does("silence torn --for 1h --why 'we are editing'", on="agv-1")
    await story.settle()
    await the_fleet_is_torn(story, "speed_mps <= 0.55", "speed_mps <= 0.5")
    await eventually(lambda: any(each.rule == "torn" for each in story.nodes["arm-1"].alerts.report().alerts), within=30.0)
    assert "we are editing" in await story.does("silences")
    await story.does("resolve pace --keep 1 --loosen")
    await story.all_see(lambda node: node.status().conflicts == 0)
    await eventually(lambda: not story.nodes["arm-1"].alerts.report().alerts, within=30.0)
    assert story.pages == [("torn", "firing"), ("torn", "resolved")]


async def the_fleet_is_torn(story: Story, one: str, other: str) -> None:
    """The dock is cut off, and each side edits the pace."""
    hall, dock = ["arm-1", "arm-2", "agv-1"], ["agv-2", "agv-3"]
    story.network.cut(hall, dock)
    await eventually(lambda: story.nodes["arm-1"].status().peers == 2 and story.nodes["agv-2"].status().peers == 1, within=30.0)
    await story.does(f"add pace --when '{one}'", on="arm-1")
    await story.does(f"add pace --when '{other}'", on="agv-2")
    story.network.heal()
    await story.all_see(lambda node: node.status().conflicts == 1)
