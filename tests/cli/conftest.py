"""One node process for all tests of a module, and an environment without anybody's settings."""

import os
from collections.abc import Iterator
from functools import cache

import pytest

from constraint_crdt.cli import arguments
from tests.cli.process import running_node


@pytest.fixture(scope="session", autouse=True)
def one_parser() -> Iterator[None]:
    """The parser of all commands is made once for all tests in this process: parsing does not change it. (`completion` does.)"""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arguments, "make_parser", cache(arguments.make_parser))
        yield


@pytest.fixture(scope="module")
def node_url() -> Iterator[str]:
    with running_node() as node:
        yield node.url


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith("CONSTRAINT_CRDT_"):
            monkeypatch.delenv(variable)
