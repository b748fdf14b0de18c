"""The tree of exceptions: every error of the package is a `ConstraintCrdtError`, with a sentence."""

import ast
import pickle
import pkgutil
from collections.abc import Callable
from importlib import import_module

import pytest

from constraint_crdt.client import NotFound, WrongInput
from constraint_crdt.errors import (
    ConstraintCrdtError,
    InvalidType,
    LifecycleError,
    UnknownConstraint,
    UnknownName,
    WrongThread,
)
from constraint_crdt.expression import ExpressionError
from constraint_crdt.plato import PlatoFieldError
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.state import ConstraintState, StateFileError
from constraint_crdt.types.counters import ConstraintGCounter
from constraint_crdt.types.sketch import SketchCRDT
from tests.sources import MODULES, ROOT, nodes_of

NO_ERRORS = {
    "constraint_crdt.cli.output.CommandFailedError",  # the end of a command, with its exit code
    "constraint_crdt.cli.output.MisuseError",
}

RAISED = {
    ("http/openapi.py", "NotImplementedError"),  # a type of a field without a schema: a mistake in the package
    ("http/endpoint.py", "RuntimeError"),  # the same, of an operation
    ("store/files.py", "OSError"),  # caught in the same module
    ("store/store.py", "ValueError"),  # the same
    ("identity/__init__.py", "ValueError"),  # the same
    ("identity/invitations.py", "ValueError"),  # the same
    ("client/__init__.py", "ValueError"),  # caught by the clients
    ("alerts/engine.py", "ValueError"),  # caught in the same module
    ("expression/measurements.py", "KeyError"),  # the same
    ("expression/measurements.py", "ValueError"),  # within a call of the CEL library, which makes an error value of it
    ("operations/evidence.py", "ValueError"),
    ("operations/alerts.py", "ValueError"),  # the parsers of parameters, whose callers name the parameter
    ("operations/counts.py", "ValueError"),
    ("operations/operation.py", "ValueError"),
    ("operations/plato.py", "ValueError"),
    ("operations/service.py", "ValueError"),
    ("operations/counts.py", "ValueError"),
    ("operations/tiles.py", "ValueError"),
}
"""Where an error of Python itself is raised: none of these reaches a caller of the public API."""

BUILT_IN = {"KeyError", "ValueError", "TypeError", "RuntimeError", "OSError", "LookupError", "NotImplementedError", "Exception"}


def exception_classes() -> set[type[BaseException]]:
    """Every public exception class that a module of the package defines."""
    found: set[type[BaseException]] = set()
    for module in pkgutil.walk_packages([str(ROOT)], "constraint_crdt."):
        if not module.name.endswith("__main__"):
            values = [value for value in vars(import_module(module.name)).values() if isinstance(value, type)]
            found.update(value for value in values if issubclass(value, BaseException))
    return {each for each in found if each.__module__.startswith("constraint_crdt") and not each.__name__.startswith("_")}


def test_every_exception_is_in_one_tree() -> None:
    classes = exception_classes()
    assert {StateFileError, ExpressionError, PlatoFieldError, NotFound} <= classes
    strangers = {f"{each.__module__}.{each.__qualname__}" for each in classes if not issubclass(each, ConstraintCrdtError)}
    assert strangers == NO_ERRORS


@pytest.mark.slow
@pytest.mark.one_worker("sources")
def test_no_other_module_raises_an_error_of_python_itself() -> None:
    found = set()
    for path in MODULES:
        for node in nodes_of(path):
            raised = node.exc if isinstance(node, ast.Raise) else None
            called = raised.func if isinstance(raised, ast.Call) else raised
            if isinstance(called, ast.Name) and called.id in BUILT_IN:
                found.add((path.relative_to(ROOT).as_posix(), called.id))
    assert found == RAISED


@pytest.mark.parametrize(
    ("error", "builtin", "sentence"),
    [
        (UnknownConstraint("speed"), KeyError, "no constraint 'speed' is active here"),
        (UnknownName(("hall", "sign"), "tile"), KeyError, "there is no tile ('hall', 'sign') here"),
        (NotFound("there is no node 'b'", 404), KeyError, "there is no node 'b'"),
        (WrongInput("`satisfied` is negative", 422, field="satisfied"), ValueError, "`satisfied` is negative"),
        (ExpressionError("no bool", 3), ValueError, "column 3: no bool"),
        (StateFileError("no text", "rows[0]"), ValueError, "the state file is wrong at `rows[0]`: no text"),
        (InvalidType("a node id is a text, not 1"), TypeError, "a node id is a text, not 1"),
        (LifecycleError("the node has not been started"), RuntimeError, "the node has not been started"),
        (WrongThread("another thread"), RuntimeError, "another thread"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_error_is_also_what_python_expects_and_reads_as_a_sentence(
    error: ConstraintCrdtError, builtin: type[Exception], sentence: str
) -> None:
    assert isinstance(error, ConstraintCrdtError)
    assert isinstance(error, builtin)
    assert str(error) == sentence


def test_an_unknown_name_keeps_the_name_as_data_also_through_pickle() -> None:
    error = pickle.loads(pickle.dumps(UnknownName(("hall", "sign"), "tile", field="tile")))  # of this test
    assert (error.args, error.name, error.kind, error.field) == ((("hall", "sign"),), ("hall", "sign"), "tile", "tile")
    assert str(error) == "there is no tile ('hall', 'sign') here"


def test_public_calls_raise_errors_of_the_tree() -> None:
    node, state = GossipNode("a", now=lambda: 1, renew=lambda: 2), ConstraintState()
    calls: list[tuple[type[Exception], Callable[[], object]]] = [
        (KeyError, lambda: node.remove_constraint("none")),
        (KeyError, lambda: state.constraints.remove("none", node="a")),
        (KeyError, lambda: state.sketches["none"]),
        (KeyError, lambda: state.blooms["none"]),
        (KeyError, lambda: state.tiles["hall", "none"]),
        (KeyError, lambda: node.retire("none")),
        (ValueError, lambda: node.record(-1)),
        (ValueError, lambda: ConstraintGCounter().record("a", violated=-1)),
        (ValueError, lambda: state.counters["lap"].increment(0, node="a")),
        (ValueError, lambda: SketchCRDT().top(0)),
        (TypeError, lambda: ConstraintGCounter().record(1, 1)),  # type: ignore[arg-type]
        (TypeError, lambda: node.record("1")),  # type: ignore[arg-type]
        (TypeError, lambda: node.add_constraint(7)),  # type: ignore[arg-type]
        (TypeError, lambda: state.tiles.tile("hall", "sign").put(7, node="a")),  # type: ignore[arg-type]
    ]
    for builtin, call in calls:
        with pytest.raises(ConstraintCrdtError) as raised:
            call()
        assert isinstance(raised.value, builtin)
        assert " " in str(raised.value)
