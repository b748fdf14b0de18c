"""Which tests are quick, and the order of all tests: the rules of `tests/conftest.py`.

Quick tests reach each package: a package that no quick test imports would not be checked after an edit.
"""

import ast
import re
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import constraint_crdt
from tests import conftest
from tests.conftest import FIXTURES, NOT_QUICK, _for_workers, _is_left_out, _require_cases

TESTS = Path(__file__).parent
PACKAGES = sorted(path.parent.name for path in Path(constraint_crdt.__file__).parent.glob("*/__init__.py"))
NOTHING_QUICK = {"fleet", "survival"}
"""Their tests are about several processes."""
FOLDERS = sorted({path.parent.name for path in TESTS.glob("*/test_*.py")} - NOTHING_QUICK)


def marks(node: ast.AST) -> set[str]:
    """The names behind `pytest.mark.` in an expression or a function's decorators."""
    return {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "pytest.mark"}


def is_quick(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    of_fixtures = {FIXTURES[argument.arg] for argument in test.args.args if argument.arg in FIXTURES}
    return not of_fixtures and not any(marks(each) & {*NOT_QUICK} for each in test.decorator_list)


def has_quick_tests(module: ast.Module) -> bool:
    if any(isinstance(each, ast.Assign) and marks(each) & {*NOT_QUICK} for each in module.body):
        return False
    functions = [each for each in module.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(each.name.startswith("test_") and is_quick(each) for each in functions)


def imports(source: str, package: str) -> bool:
    return re.search(rf"^ *from {constraint_crdt.__name__}\.{package}\b", source, re.MULTILINE) is not None


def any_quick(sources: Iterable[str]) -> bool:
    """True for the first with a quick test: parsing all files takes a second."""
    return any(has_quick_tests(ast.parse(source)) for source in sources)


@pytest.fixture(scope="module")
def sources() -> dict[Path, str]:
    return {path: path.read_text() for path in TESTS.rglob("test_*.py")}


@pytest.mark.slow
def test_each_package_is_imported_by_a_quick_test(sources: dict[Path, str]) -> None:
    missed = [package for package in PACKAGES if not any_quick(each for each in sources.values() if imports(each, package))]
    assert missed == []


@pytest.mark.slow
def test_each_folder_of_tests_has_quick_ones(sources: dict[Path, str]) -> None:
    missed = [
        folder for folder in FOLDERS if not any_quick(source for path, source in sources.items() if path.parent.name == folder)
    ]
    assert missed == []


def test_what_is_marked_or_starts_a_process_is_not_quick() -> None:
    quick = "def test_it(node): ..."
    assert has_quick_tests(ast.parse(quick))
    assert not has_quick_tests(ast.parse(f"pytestmark = pytest.mark.slow\n{quick}"))
    assert not has_quick_tests(ast.parse(f"@pytest.mark.parametrize('x', [1])\n@pytest.mark.processes\n{quick}"))
    assert not has_quick_tests(ast.parse(f"@pytest.mark.long(by_day=['a'])\n{quick}"))
    assert not has_quick_tests(ast.parse("async def test_it(node_url): ..."))
    assert imports("import ast\nfrom constraint_crdt.crdt.rows import Rows", "crdt")
    assert not imports("from constraint_crdt.crdt.rows import Rows", "cr")


# --- the long tests ---------------------------------------------------------------------------------------------------------------


class Case:
    """As much of a case of a parametrized test as the budgets go by."""

    def __init__(self, case: str, *by_day: str) -> None:
        self.nodeid = f"tests/test_it.py::test_it[{case}]"
        self.callspec = SimpleNamespace(id=case)
        self._mark = pytest.mark.long(by_day=by_day).mark

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self._mark if name == "long" else None


@pytest.mark.parametrize(
    ("event", "arguments", "program"),
    [
        ("subprocess.Popen", ("true", ["true"], None, None), "['true']"),
        ("os.posix_spawn", ("/bin/true", ["true"], {}), "/bin/true"),
        ("os.system", (b"true",), "b'true'"),
        ("os.exec", ("/bin/true", ["true"], None), "/bin/true"),
        ("os.fork", (), "os.fork"),
        ("os.forkpty", (), "os.forkpty"),
    ],
)
def test_a_quick_test_that_starts_a_process_fails(
    event: str, arguments: tuple[object, ...], program: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(conftest, "_started", [])
        sys.audit(event, *arguments)
        with pytest.raises(pytest.fail.Exception, match=re.escape(f"it started {program}: mark it `processes`")):
            conftest._require_no_process(request.node)


@pytest.mark.parametrize(("budget", "left_out"), [("default", [True, False]), ("full", [False] * 2), ("nightly", [False] * 2)])
def test_by_day_what_is_long_is_left_out_but_for_the_cases_that_are_named(
    monkeypatch: pytest.MonkeyPatch, budget: str, left_out: list[bool]
) -> None:
    monkeypatch.setattr(conftest, "BUDGET", budget)
    assert [_is_left_out(cast("pytest.Item", Case(case, "b"))) for case in "ab"] == left_out


def test_a_case_that_is_named_and_not_there_is_an_error(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytestconfig, "args", ["tests"])
    _require_cases(pytestconfig, [cast("pytest.Item", Case(case, "b")) for case in "ab"])
    with pytest.raises(pytest.UsageError, match="test_it has no case b, which"):
        _require_cases(pytestconfig, [cast("pytest.Item", Case(case, "b")) for case in "ac"])


# --- the order for several workers ------------------------------------------------------------------------------------------------


class Item:
    """As much of a test as its order goes by."""

    def __init__(self, mark: str, module: int = 0) -> None:
        self.mark = mark
        self.path = Path(f"tests/test_{module}.py")

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return getattr(pytest.mark, name).mark if name == self.mark else None


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(["one_worker", "processes", "slow", "quick"]), st.integers(0, 2))), st.integers(2, 5))
def test_no_test_is_lost_and_those_of_a_module_stay_together(drawn: list[tuple[str, int]], workers: int) -> None:
    items = [Item(mark, 0 if mark == "one_worker" else module) for mark, module in drawn]
    ordered = _for_workers(cast("list[pytest.Item]", items), workers)
    assert sorted(map(id, ordered)) == sorted(map(id, items))
    together = [mark for mark, _ in drawn].count("one_worker")
    assert all(each.get_closest_marker("one_worker") for each in ordered[:together])
    modules = [(each.path, bool(each.get_closest_marker("quick"))) for each in ordered[together:]]
    slow = [path for (path, quick), _ in groupby(modules) if not quick]
    assert len(slow) == len(set(slow)), "a module is left and entered again"


def test_each_worker_ends_with_quick_tests_and_every_second_has_long_ones_spread() -> None:
    marks = ["slow", "quick", "processes", "quick"] * 3 + ["quick"] * 6 + ["one_worker"] * 2
    items = [Item(mark, 0 if mark == "one_worker" else module) for module, mark in enumerate(marks, 1)]
    ordered = _for_workers(cast("list[pytest.Item]", items), 2)
    kinds = ["quick" if each.get_closest_marker("quick") else "long" for each in ordered]
    assert kinds == [*["long"] * 4, *["quick"] * 6, *["long", "quick"] * 4, *["quick"] * 2]
