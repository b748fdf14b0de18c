"""One node process for all tests of a module, and an environment without anybody's settings."""

import os
from collections.abc import Iterator

import pytest

from tests.cli.process import running_node


@pytest.fixture(scope="module")
def node_url() -> Iterator[str]:
    with running_node() as node:
        yield node.url


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith("CONSTRAINT_CRDT_"):
            monkeypatch.delenv(variable)
