"""The convention for capitals and full stops in texts for people: docs/design/glossary.md, section Messages.

Read from the source of every module: texts that are given to an exception of the package or to a logger, help texts of flags and
commands, and summaries of operations.
"""

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from functools import cache

import pytest

from tests.sources import MODULES, ROOT, nodes_of, tree_of

LIBRARIES = {"Zenoh", "Pillow"}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


@cache
def classes() -> dict[str, ast.ClassDef]:
    return {node.name: node for path in MODULES for node in tree_of(path).body if isinstance(node, ast.ClassDef)}


@cache
def is_error(name: str) -> bool:
    """If a class of this name is an exception, of the package or of Python."""
    builtin = getattr(builtins, name, None)
    if isinstance(builtin, type):
        return issubclass(builtin, Exception)
    named = classes().get(name)
    return named is not None and any(is_error(ast.unparse(base).split("[")[0].split(".")[-1]) for base in named.bases)


def ends(text: ast.expr) -> tuple[str, str]:
    """The literal beginning and end of a text: empty where a value stands."""
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    literal = [part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "" for part in parts]
    return (literal[0], literal[-1]) if literal else ("", "")


def is_clause(text: ast.expr) -> bool:
    """Lower case at the beginning, except for the name of a library or class or an abbreviation, and no full stop at the end."""
    begin, end = ends(text)
    found = re.match(r"\w*", begin)
    word = found[0] if found else ""
    is_name = word in LIBRARIES or word in classes() or (len(word) > 1 and word.isupper())
    capital = word[:1].isupper() and not is_name
    return not capital and not end.rstrip().endswith((".", "!"))


def is_sentence(text: ast.expr) -> bool:
    """A capital at the beginning, and a full stop at the end."""
    begin, end = ends(text)
    return (not begin or not begin[0].islower()) and (not end or end.endswith("."))


def texts(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    for call in nodes:
        if not isinstance(call, ast.Call):
            continue
        called = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""
        if is_error(called):
            yield from (("error", text) for text in call.args)
        elif (
            isinstance(call.func, ast.Attribute) and called in LEVELS and ast.unparse(call.func.value).endswith("log") and call.args
        ):
            yield "log", call.args[0]
        yield from ((keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg in ("help", "summary"))


def wrong(found: Iterable[tuple[str, ast.expr]]) -> list[str]:
    return [
        f"{kind} in line {text.lineno}: {ast.unparse(text)}"
        for kind, text in found
        if not (is_sentence(text) if kind == "summary" else is_clause(text))
    ]


@pytest.mark.slow
@pytest.mark.one_worker("sources")
def test_texts_of_the_modules_follow_the_convention() -> None:
    """There are texts of each kind."""
    found = {path: list(texts(nodes_of(path))) for path in MODULES}
    assert [f"{path.relative_to(ROOT)}: {text}" for path, each in found.items() for text in wrong(each)] == []
    kinds = [kind for each in found.values() for kind, _ in each]
    assert all(kinds.count(kind) > 20 for kind in ("error", "log", "help", "summary"))


@pytest.mark.slow
@pytest.mark.one_worker("sources")
def test_a_text_against_the_convention_is_found() -> None:
    against = [
        "raise ValueError('Give a number')",
        "raise ConstraintCrdtError(f'no {name} here.')",
        "return TransportError('A transport is closed')",
        "_log.warning('%s Failed.', name)",
        "parser.add_argument('--x', help='The number')",
        "Operation(summary='the counters')",
        "Operation(summary='The counters')",
    ]
    assert {source: len(wrong(texts(ast.walk(ast.parse(source))))) for source in against} == dict.fromkeys(against, 1)
