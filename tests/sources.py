"""The source of the package as syntax trees: parsed, and walked, once for all tests of a worker."""

import ast
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import constraint_crdt

ROOT = Path(constraint_crdt.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    """A module, parsed. On first use: a run without these tests need not wait."""
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> Sequence[ast.AST]:
    """All nodes of a module, as `ast.walk` gives them."""
    return list(ast.walk(tree_of(path)))
