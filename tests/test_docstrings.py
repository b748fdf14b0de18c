"""Every public name has a docstring: classes, constructors, functions, methods and properties. A docstring stands behind what it
describes.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

from tests.test_docs import ROOT, SOURCES

PLACES = (
    "constraint_crdt", "constraint_crdt.types", "constraint_crdt.gossip", "constraint_crdt.simulation", "constraint_crdt.client",
    "constraint_crdt.plato", "constraint_crdt.testing", "constraint_crdt.errors",
)  # fmt: skip


def function_of(member: object) -> Callable[..., object] | None:
    """The function of a method, property or cached property; None for other members."""
    if isinstance(member, property):
        return member.fget
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    found = getattr(member, "func", member)
    return found if inspect.isfunction(found) else None


def members(kind: type) -> Iterator[tuple[str, Callable[..., object]]]:
    """The public methods and properties of a class, those of our own bases included."""
    for base in kind.__mro__:
        if base.__module__.startswith("constraint_crdt"):
            for name, member in vars(base).items():
                function = function_of(member)
                if function is not None and function.__module__.startswith("constraint_crdt") and not name.startswith("_"):
                    yield name, function


def without_docstring(value: object, name: str) -> Iterator[str]:
    if not inspect.isclass(value):
        if callable(value) and not inspect.getdoc(value):
            yield name
        return
    own = vars(value).get("__doc__") or ""
    if not own or own.startswith(f"{value.__name__}("):  # a dataclass without a docstring gets its signature
        yield name
    constructor = vars(value).get("__init__")
    takes_more = inspect.isfunction(constructor) and len(inspect.signature(constructor).parameters) > 1
    if takes_more and not getattr(value, "_is_protocol", False) and not dataclasses.is_dataclass(value) and not constructor.__doc__:
        yield f"{name}.__init__"
    yield from (f"{name}.{member}" for member, _ in members(value) if not inspect.getdoc(getattr(value, member)))


def raises_untold(value: object, name: str) -> Iterator[str]:
    """The public functions with a `raise` whose docstring does not say so."""
    functions = list(members(value)) if inspect.isclass(value) else [("", value)] if inspect.isfunction(value) else []
    for member, function in functions:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except OSError:  # made by Hypothesis
            continue
        raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
        told = inspect.getdoc(getattr(value, member) if member else value) or ""
        if raised and "aise" not in told:
            yield f"{name}.{member}".rstrip(".")


@pytest.mark.parametrize("place", PLACES)
def test_every_public_name_has_a_docstring(place: str) -> None:
    module = import_module(place)
    assert module.__doc__
    missing = [each for name in module.__all__ for each in without_docstring(getattr(module, name), name)]
    assert missing == []


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_docstring_names_the_errors_that_are_raised(place: str) -> None:
    module = import_module(place)
    untold = {each for name in module.__all__ for each in raises_untold(getattr(module, name), name)}
    assert untold == set()


VAGUE = re.compile(r"(?:The same|Its \w+)\.")
"""Docstrings that are clear only beside another one, which tools do not show."""


def is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)


def stray_docstrings(block: ast.AST) -> Iterator[int]:
    """The lines of texts that describe nothing: neither first in a module, class or function, nor behind an assignment."""
    documented = isinstance(block, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    previous: ast.stmt | None = None
    for statement in (each for each in ast.iter_child_nodes(block) if isinstance(each, ast.stmt)):
        described = documented if previous is None else isinstance(previous, ast.Assign | ast.AnnAssign)
        if is_text(statement) and not described:
            yield statement.lineno
        yield from stray_docstrings(statement)
        previous = statement


@pytest.mark.slow
def test_a_docstring_stands_behind_what_it_describes() -> None:
    stray = [f"{source.relative_to(ROOT)}:{line}" for source in SOURCES for line in stray_docstrings(ast.parse(source.read_text()))]
    assert stray == [], "a text behind another one, or behind no assignment, describes nothing"


def test_a_stray_docstring_is_noticed() -> None:
    source = '''
        """Of the module."""
        A = 1
        """Of A."""
        """Of nothing."""
        class B:
            """Of B."""
            c: int
            """Of c."""
            """Of nothing."""
            def __init__(self):
                self.d = 1
                """Of d."""
                """Of nothing."""
                """Of nothing."""
    '''
    assert list(stray_docstrings(ast.parse(textwrap.dedent(source)))) == [5, 10, 14, 15]


@pytest.mark.slow
def test_a_docstring_says_of_what_it_is() -> None:
    vague = [
        f"{source.relative_to(ROOT)}: {text}"
        for source in SOURCES
        for text in re.findall(r'^ *"""(.*)"""$', source.read_text(), re.MULTILINE)
        if VAGUE.fullmatch(text)
    ]
    assert vague == [], "it says neither of what it is, nor what is the same"
