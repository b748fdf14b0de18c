"""What an edit means: each way to edit a constraint has the label of the edit, and none loosens a critical one without a word."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from constraint_crdt import Node
from constraint_crdt.errors import LooseningRefused
from constraint_crdt.http import make_app
from constraint_crdt.model import Mode, Severity
from constraint_crdt.operations.constraints import AddConstraint, EditEffect, RemoveConstraint
from constraint_crdt.operations.variables import ParameterChange
from tests.http.conftest import BASE
from tests.runtime.fleet import agreed, eventually, fleet

Edit = Callable[[Node, bool], Awaitable[object]]


def add(**fields: Any) -> Edit:
    return lambda node, loosen: node.add_constraint("x", **{"when": "v <= 1.0", "severity": "critical", **fields}, loosen=loosen)


def edit(**fields: Any) -> Edit:
    return lambda node, loosen: node.edit_constraint("x", **fields, loosen=loosen)


def batch(**fields: Any) -> Edit:
    change = {"id": "x", "when": "v <= 1.0", "severity": "critical", **fields}
    return lambda node, loosen: node.batch([AddConstraint(**change, loosen=loosen)])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (add(when="v <= 2.0"), "it allows v = 2.0, which was forbidden"),
        (add(severity="warning"), "it is less severe"),
        (add(ttl=60), "it ends sooner"),
        (edit(when=None), "it forbids nothing"),
        (edit(when="v <= 1.0 || w > 3.0"), "which was forbidden"),
        (edit(on="zone=a"), "a node with no label zone is left out"),
        (edit(on="zone!=a"), "a node with zone=a is left out"),
        (edit(for_=5), "`for` is longer: it is violated later"),
        (edit(mode="warn"), "less follows from a violation"),
        (edit(if_unknown="satisfied"), "an unknown outcome counts for less"),
        (batch(when="v < 5.0"), "it allows v = 3.0, which was forbidden"),
        (batch(mode="audit"), "less follows from a violation"),
        (lambda node, loosen: node.set_mode("x", "audit", loosen=loosen), "less follows from a violation"),
        (lambda node, loosen: node.revert("x", loosen=loosen), "it allows v = 3.0, which was forbidden"),
    ],
)
async def test_no_way_loosens_what_is_critical_without_a_word(change: Edit, told: str) -> None:
    async with fleet("a") as (node,):
        await node.add_constraint("x", when="v <= 3.0", severity="critical")
        await node.add_constraint("x", when="v <= 1.0", severity="critical")
        before = node.gossip.state.constraints.definitions("x")
        with pytest.raises(LooseningRefused, match="x is critical, and this loosens it: ") as caught:
            await change(node, False)
        assert told in str(caught.value)
        assert caught.value.field == "loosen"
        assert node.gossip.state.constraints.definitions("x") == before
        await change(node, True)
        assert node.gossip.state.constraints.definitions("x") != before


@pytest.mark.parametrize(
    "change",
    [
        add(),
        add(when="1.0 >= v"),
        edit(when="v <= 0.5"),
        edit(when="v <= 1.0 && w < 3.0"),
        edit(about="why"),
        edit(clear_after=5),
        edit(if_unknown="violated"),
        edit(when="size(v) < 3"),
        batch(when="v < 0.5"),
        batch(id="new", when="v < 9.0"),
        lambda node, _: node.batch([RemoveConstraint(id="x")]),
        lambda node, _: node.set_mode("x", "enforce"),
        lambda node, _: node.disable(["x"], why="it fires everywhere"),
        lambda node, _: node.remove_constraint("x"),
    ],
)
async def test_what_does_not_loosen_or_says_so_by_its_name_needs_no_word(change: Edit) -> None:
    async with fleet("a") as (node,):
        await node.add_constraint("x", when="v <= 1.0", severity="critical")
        await node.measure({"w": 1.0})
        await change(node, False)


async def test_a_warning_is_loosened_without_a_word_and_labelled() -> None:
    async with fleet("a") as (node,), client_of(node) as client:
        await node.add_constraint("x", when="v <= 1.0")
        answer = (await client.post("/v1/constraints", json={"id": "x", "when": "v <= 2.0"})).json()
        assert answer["effect"] == {
            "id": "x",
            "effect": "loosens",
            "parts": [
                {"field": "when", "effect": "loosens", "text": "it allows v = 2.0, which was forbidden", "example": {"v": 2.0}}
            ],
        }
        assert (await client.post("/v1/mode", json={"id": "x", "mode": "audit"})).json()["effect"]["effect"] == "loosens"
        answer = (await client.post("/v1/revert", json={"id": "x"})).json()
        assert [each["effect"]["effect"] for each in answer["steps"]] == ["tightens"]


def client_of(node: Node) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=make_app(node)), base_url=BASE)


@pytest.mark.slow
async def test_the_api_refuses_with_409_and_takes_loosen() -> None:
    async with fleet("a") as (node,), client_of(node) as client:
        await node.add_constraint("x", when="v <= 1.0", severity="critical")
        whole = {"id": "x", "when": "v <= 2.0", "severity": "critical"}
        for method, path, body in (
            ("POST", "/v1/constraints", whole),
            ("PATCH", "/v1/constraints/x", {"when": "v <= 2.0"}),
            ("POST", "/v1/mode", {"id": "x", "mode": "warn"}),
            ("POST", "/v1/batch", {"changes": [{"add": whole}]}),
        ):
            answer = await client.request(method, path, json=body)
            assert (answer.status_code, answer.json()["field"]) == (409, "loosen")
        preview = (await client.post("/v1/effects", json={"changes": [{"add": whole}, {"add": {"id": "y"}}]})).json()
        assert [(each["id"], each["effect"], each["needs_loosen"]) for each in preview] == [("x", "loosens", True)]
        wrong = await client.post("/v1/effects", json={"changes": [{"add": {**whole, "when": "v <"}}]})
        assert (wrong.status_code, wrong.json()) == (200, [])
        answer = await client.post("/v1/batch", json={"changes": [{"add": {**whole, "loosen": True}}]})
        assert answer.json()["results"][0]["effect"]["effect"] == "loosens"


def told(change: ParameterChange) -> list[tuple[str, str, str]]:
    return [(each.id, each.effect, "; ".join(part.text for part in each.parts)) for each in change.effects]


@pytest.mark.slow
async def test_a_parameter_is_labelled_for_each_constraint_that_reads_it() -> None:
    async with fleet("a", "b") as (a, b):
        await a.add_constraint("top", when="v <= param.limit", severity="critical")
        await a.add_constraint("low", when="v >= param.limit - param.band")
        await a.add_constraint("other", when="v < 5.0", severity="critical")
        assert [effect for _, effect, _ in told(await a.set_parameter("limit", 1.0))] == ["undecided", "undecided"]
        await a.set_parameter("band", 0.5)
        with pytest.raises(LooseningRefused, match=r"top is critical, and this loosens it: it allows v = 2\.0"):
            await a.set_parameter("limit", 2.0)
        assert a.parameters("limit")[0].value == 1.0
        assert told(await a.set_parameter("limit", 2.0, loosen=True)) == [
            ("low", "tightens", "it forbids v = 0.5, which was allowed"),
            ("top", "loosens", "it allows v = 2.0, which was forbidden"),
        ]
        assert told(await a.set_parameter("limit", 2.0)) == []
        await a.set_parameter("limit", 1.5)
        with pytest.raises(LooseningRefused, match=r"without a value of param\.limit it is unknown"):
            await a.unset_parameter("limit")
        with pytest.raises(LooseningRefused, match=r'param\.limit = "fast" is compared with other values than 1\.5'):
            await a.set_parameter("limit", "fast")
        async with client_of(a) as client:
            assert (await client.delete("/v1/parameters/limit")).status_code == 409
            assert (await client.delete("/v1/parameters/limit?loosen=1")).status_code == 200
        await eventually(lambda: agreed([a, b]))


@pytest.mark.slow
async def test_an_edit_to_a_parameter_is_compared_by_the_values_that_it_has() -> None:
    async with fleet("a") as (node,):
        await node.add_constraint("x", when="v <= 1.0", severity="critical")
        await node.set_parameter("limit", 1.0)
        await node.edit_constraint("x", when="v <= param.limit")
        await node.edit_constraint("x", when="v <= param.limit - 1.0")
        with pytest.raises(LooseningRefused):
            await node.edit_constraint("x", when="v <= param.limit")


@pytest.mark.slow
async def test_of_definitions_in_conflict_the_critical_ones_are_not_loosened() -> None:
    async with fleet("a") as (node,), fleet("b") as (other,):
        await other.add_constraint("x", when="v <= 2.0", severity="critical")
        await node.add_constraint("x", when="v <= 1.0", severity="warning")
        await node.import_state(await other.export_state())
        dots = {each.definition.severity.value: each.dot for each in node.gossip.state.constraints.additions("x")}
        with pytest.raises(LooseningRefused):
            await node.resolve_conflict("x", dots["warning"])
        await node.resolve_conflict("x", dots["critical"])


async def test_a_revert_that_disables_or_removes_says_so() -> None:
    async with fleet("a") as (node,):
        began = node.gossip.time.now()
        await node.add_constraint("x", when="v <= 1.0", severity="critical")
        await node.disable(["x"], why="it fires everywhere")
        await node.enable(["x"])
        with pytest.raises(LooseningRefused, match="x is critical, and this loosens it: it is disabled"):
            await node.revert("x")
        report = await node.revert(time=began, dry_run=True)
        assert [(each.change, each.effect and each.effect.needs_loosen) for each in report.steps] == [("removed", True)]
        assert (await node.revert("x", loosen=True)).done


async def test_without_the_solver_comparisons_are_decided_and_others_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "z3", None)
    async with fleet("a") as (node,):
        await node.add_constraint("x", when="v <= 1.0 && v > -1.0", severity="critical")
        with pytest.raises(LooseningRefused, match=r"it allows v = 2\.0"):
            await node.edit_constraint("x", when="v <= 2.0 && v > -1.0")
        await node.edit_constraint("x", when="v <= 1.0 || w > 2.0")
        [effect] = await node.preview([AddConstraint(id="x", when="v <= 5.0", severity=Severity.CRITICAL)])
        assert (effect.effect, effect.needs_loosen) == ("undecided", False)
        assert "pip install 'constraint-crdt[analysis]'" in effect.parts[0].text


async def test_an_edit_that_comes_while_another_one_is_analysed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node analyses off its event loop: what is in force then is what counts."""
    async with fleet("a") as (node,):
        await node.add_constraint("x", when="v <= 3.0", severity="critical")
        effects, wait = node.edit_effects, node.edit_effects.of_all
        came = False

        async def of_all(*arguments: Any) -> dict[str, EditEffect]:
            nonlocal came
            found = await wait(*arguments)
            if not came:
                came = True
                node.gossip.add_constraint("x", when="v <= 1.0", severity="critical")
            return found

        monkeypatch.setattr(effects, "of_all", of_all)
        with pytest.raises(LooseningRefused):
            await node.edit_constraint("x", when="v <= 2.0")
        assert node.gossip.state.constraints.definitions("x")[0].mode is Mode.ENFORCE
        assert node.gossip.state.constraints.definitions("x")[0].when == "v <= 1.0"
