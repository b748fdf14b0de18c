"""The shape of the package: who may import whom, and what the pure part may not touch (docs/design/layers.md).

Read from the source of every module, imports for type checking and inside of functions included, so new files are covered.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.sources import MODULES, ROOT, nodes_of

PACKAGE = "constraint_crdt"

LAYERS = [
    ("errors",),
    ("model",),
    ("crdt",),
    ("types",),
    ("expression",),
    ("state",),
    ("protocol", "plato"),
    ("store",),
    ("gossip", "identity"),
    ("simulation", "transport", "testing"),
    ("operations",),
    ("insight",),
    ("alerts",),
    ("sources",),
    ("runtime",),
    ("http", "dashboard", "client"),
    ("cli",),
    ("__main__",),
]
"""From the bottom up. A package imports from itself and from layers further down, never from another package in its layer."""

VERSION = f"{PACKAGE}.__version__"
"""A name that is taken from the package itself, which is all of the library: no package below its edge may."""

LAZY_NAMES = f"{PACKAGE}.lazy_names"
"""Loads public names on their first use: of packages in any layer."""

LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
PURE = {"errors", "model", "crdt", "types", "expression", "state", "protocol", "simulation", "plato", "testing"}
TYPES_FROM_ABOVE = {f"{PACKAGE}.runtime.node", f"{PACKAGE}.client.blocking"}
"""The modules from above that operations name, for a type checker only: the node of the work, the client of the commands."""
FACADE = ("constraint_crdt.types", f"{PACKAGE}.gossip")
"""The public names of `types` include those with the clock of the machine, which are loaded from above on their first use."""
IMPURE_MODULES = {
    "asyncio", "concurrent", "ctypes", "datetime", "glob", "http", "io", "logging", "multiprocessing", "os", "pathlib", "psutil",
    "random", "sched", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "starlette", "subprocess",
    "httptools", "sys", "tempfile", "threading", "time", "urllib", "uuid", "uvicorn", "zenoh", "zoneinfo",
}  # fmt: skip
IMPURE_CALLS = {"open", "input", "print", "breakpoint", "__import__"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def for_type_checking(nodes: Iterable[ast.AST]) -> set[ast.AST]:
    """The nodes in the blocks at the top of a module that do not run."""
    module = next(node for node in nodes if isinstance(node, ast.Module))
    left_out = [node for node in module.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {node for block in left_out for node in ast.walk(block)}


def imports(nodes: Iterable[ast.AST], module: str) -> Iterator[tuple[str, int]]:
    """Every module that is imported, with the line."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            assert node.module is not None
            if node.module == PACKAGE:  # names of the package itself, or a module of it
                yield from ((f"{PACKAGE}.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def violations(nodes: Sequence[ast.AST], module: str) -> list[str]:
    """What in one module is against the layers."""
    package, found, unloaded = package_of(module), [], for_type_checking(nodes)
    loaded = {imported for imported, _ in imports((node for node in nodes if node not in unloaded), module)}
    for imported, line in imports(nodes, module):
        target = "gossip" if imported == VERSION else package if imported == LAZY_NAMES else package_of(imported)
        if package == "operations" and imported in TYPES_FROM_ABOVE and imported not in loaded:
            continue
        if (module, imported) == FACADE and imported not in loaded:
            continue
        if imported.split(".")[0] == PACKAGE and target != package:
            if target not in LEVEL:
                found.append(f"{module}:{line} imports {imported}: import from the module that defines it")
            elif LEVEL[target] >= LEVEL[package]:
                found.append(f"{module}:{line} imports {imported}: {package} does not stand above {target}")
        if package in PURE and imported.split(".")[0] in IMPURE_MODULES:
            found.append(f"{module}:{line} imports {imported}: {package} is pure")
    if package in PURE:
        for node in nodes:
            if isinstance(node, ast.AsyncFunctionDef | ast.Await):
                found.append(f"{module}:{node.lineno} is asynchronous: {package} is pure")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                found.append(f"{module}:{node.lineno} calls {node.func.id}: {package} is pure")
    return found


@pytest.mark.slow
@pytest.mark.one_worker("sources")
def test_each_module_stays_in_its_layer() -> None:
    modules = {name_of(path): path for path in MODULES if package_of(name_of(path))}
    homeless = [module for module in modules if package_of(module) not in LEVEL]
    assert homeless == [], "give them a place in LAYERS"
    assert [found for module, path in modules.items() for found in violations(nodes_of(path), module)] == []


def test_the_pure_part_is_there() -> None:
    packages = {package_of(name_of(path)) for path in MODULES}
    assert packages >= {"errors", "crdt", "types", "expression", "state", "protocol"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("crdt.rows", "import asyncio"),
        ("crdt.rows", "from time import time_ns"),
        ("crdt.rows", "def f() -> None:\n    import random"),
        ("crdt.rows", "from constraint_crdt.types.counters import Counts"),
        ("crdt.rows", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from constraint_crdt.state import ConstraintState"),
        ("protocol.messages", "import constraint_crdt.gossip"),
        ("protocol.messages", "from constraint_crdt import GossipNode"),
        ("protocol.messages", "from constraint_crdt import __version__"),
        ("transport", "from constraint_crdt.runtime.node import Node"),
        ("types.counters", "from constraint_crdt.expression import Verdict"),
        ("insight.evidence", "from constraint_crdt.runtime.exchange_loop import Exchanges"),
        ("alerts.engine", "from constraint_crdt.runtime.settings import NodeSettings"),
        ("insight.explain", "from constraint_crdt.alerts import AlertRule"),
        ("state", "async def f() -> None: ..."),
        ("expression.evaluation", "print('x')"),
        ("operations.counts", "from constraint_crdt.runtime.node import Node"),
        (
            "operations.counts",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from constraint_crdt.http import app",
        ),
    ],
)
def test_a_breach_is_seen(module: str, source: str) -> None:
    name = f"{PACKAGE}.{module}"
    assert name in map(name_of, MODULES), "an example is of a module that exists"
    assert len(violations(list(ast.walk(ast.parse(source))), name)) == 1
