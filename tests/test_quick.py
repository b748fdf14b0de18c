"""`pytest -m quick` reaches each package: one that nothing quick imports would be checked by nobody after an edit."""

import ast
from pathlib import Path

import pytest

import constraint_crdt
from tests.conftest import FIXTURES, NOT_QUICK

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


def imported(module: ast.Module) -> set[str]:
    """The packages of `constraint_crdt` that a module imports."""
    found = {each.module or "" for each in ast.walk(module) if isinstance(each, ast.ImportFrom)}
    return {name.split(".")[1] for name in found if name.startswith("constraint_crdt.")}


@pytest.fixture(scope="module")
def quick_modules() -> dict[Path, ast.Module]:
    parsed = {path: ast.parse(path.read_text()) for path in TESTS.rglob("test_*.py")}
    return {path: module for path, module in parsed.items() if has_quick_tests(module)}


@pytest.mark.slow
def test_each_package_is_imported_by_a_quick_test(quick_modules: dict[Path, ast.Module]) -> None:
    reached = {package for module in quick_modules.values() for package in imported(module)}
    assert [package for package in PACKAGES if package not in reached] == []


@pytest.mark.slow
def test_each_folder_of_tests_has_quick_ones(quick_modules: dict[Path, ast.Module]) -> None:
    reached = {path.parent.name for path in quick_modules}
    assert [folder for folder in FOLDERS if folder not in reached] == []


def test_what_is_marked_or_starts_a_process_is_not_quick() -> None:
    quick = "def test_it(node): ..."
    assert has_quick_tests(ast.parse(quick))
    assert not has_quick_tests(ast.parse(f"pytestmark = pytest.mark.slow\n{quick}"))
    assert not has_quick_tests(ast.parse(f"@pytest.mark.parametrize('x', [1])\n@pytest.mark.processes\n{quick}"))
    assert not has_quick_tests(ast.parse("async def test_it(node_url): ..."))
    assert imported(ast.parse("from constraint_crdt.crdt.rows import Rows")) == {"crdt"}
