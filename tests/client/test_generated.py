"""What is generated from the list of operations is what the generator makes of it now, and what there was stays there."""

import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import get_args

import msgspec
import pytest

from constraint_crdt import operations
from constraint_crdt.cli.arguments import commands_by_group, make_parser
from constraint_crdt.client.methods import AsyncMethods, BlockingMethods
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.operation import AnyOperation, Command, CompositeCommand, Heading, Operation

ROOT = Path(__file__).parent.parent.parent
AGAIN = "run `python tools/generate_client.py`"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        return importlib.import_module("generate_client")


def test_the_methods_of_the_clients_are_up_to_date(generator: ModuleType) -> None:
    assert generator.METHODS.read_text() == generator.make_methods(), AGAIN


def test_the_page_of_reference_is_up_to_date(generator: ModuleType) -> None:
    assert generator.REFERENCE.read_text() == generator.make_reference(), AGAIN


@pytest.mark.slow
def test_the_man_page_is_up_to_date_and_has_each_command_with_its_example(generator: ModuleType) -> None:
    page = generator.MAN_PAGE.read_text()
    assert page == generator.man_page(make_parser()), AGAIN
    for group in commands_by_group().values():
        for name in group:
            assert re.search(rf'^\.SS "{name}\b', page, re.MULTILINE), name
    assert page.count(".EX") == page.count('.SS "'), "each command, and each action, has an example"


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("groff") is None, reason="groff formats man pages")
def test_the_man_page_is_read_without_a_warning(generator: ModuleType) -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-z", generator.MAN_PAGE], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_request_has_a_field_for_each_parameter_and_no_other(operation: AnyOperation) -> None:
    placed = [*operation.path_fields, *(parameter.target for parameter in operation.parameters), *operation.body_fields]
    if operation.body is not None and operation.body.field is not None:
        placed.append(operation.body.field)
    assert sorted(placed) == sorted(operation.request.__struct_fields__)


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.in_clients], ids=lambda operation: operation.name)
def test_both_clients_have_the_same_method(operation: AnyOperation) -> None:
    blocking, waiting = (inspect.signature(getattr(kind, operation.name)) for kind in (BlockingMethods, AsyncMethods))
    assert blocking == waiting
    assert blocking.return_annotation == operation.response


def declared_in(package: ModuleType) -> dict[str, str]:
    """The module of each operation that a module of the package declares, by the name of the operation."""
    modules = [importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)]
    return {each.name: module.__name__ for module in modules for each in vars(module).values() if isinstance(each, Operation)}


def test_each_operation_that_a_module_declares_is_served() -> None:
    served = {operation.name for operation in OPERATIONS}
    left_out = {name: module for name, module in declared_in(operations).items() if name not in served}
    assert left_out == {}, "add the module to `_SUBJECTS` in operations/__init__.py: its operations are in no route and no client"


@pytest.mark.parametrize("kind", [Command, CompositeCommand])
def test_a_command_in_an_unknown_group_is_refused_where_it_is_declared(kind: type) -> None:
    of_kind = (command for operation in OPERATIONS for command in operation.commands if isinstance(command, kind))
    with pytest.raises(ValueError, match=r"^the command `[\w ]+` is in an unknown group 'stat': it is one of run, constraints, "):
        msgspec.structs.replace(next(of_kind), group="stat")


def test_an_operation_in_an_unknown_group_is_refused_where_it_is_declared() -> None:
    [status] = [each for each in OPERATIONS if each.name == "status"]
    with pytest.raises(ValueError, match=r"^the operation status is in an unknown group 'state': it is one of reading, writing, "):
        msgspec.structs.replace(status, group="state")


@pytest.mark.parametrize("heading", get_args(Heading))
def test_each_heading_of_the_help_has_commands(heading: Heading) -> None:
    assert commands_by_group()[heading]
