"""Nodes with stores on an in-memory network, and the machines they run on.

A machine, from boot to boot, is a runtime directory: that is where the marker lies which says that a store lacks nothing.
"""

from pathlib import Path
from random import Random

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node, NodeSettings
from constraint_crdt.store import marker_for
from constraint_crdt.transport import Transport
from tests.conftest import runtime_directory
from tests.runtime.fleet import QUICK


def node_on(network: MemoryNetwork, name: str, store: Path | None = None, *, transport: Transport | None = None) -> Node:
    """A node that is not started yet; in memory if there is no store."""
    settings: NodeSettings = msgspec.structs.replace(QUICK, name=name, store=str(store) if store else "memory")
    return Node(settings=settings, transport=transport or network.transport(), random=Random(name))


def boot(monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    """From now on nodes start on the machine, or in the boot of it, that has this runtime directory."""
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_directory(runtime)))


def marker_file(store: Path, runtime: Path) -> Path:
    """Where the marker of a store lies on the machine with this runtime directory."""
    file = marker_for(store, {"XDG_RUNTIME_DIR": str(runtime_directory(runtime))})._file
    assert file is not None
    return file


def counts(node: Node) -> tuple[int, int]:
    """The fleet's counts as a node sees them."""
    metrics = node.gossip.state.metrics
    return metrics.total_satisfied, metrics.total_violations


def ids(node: Node) -> set[str]:
    """The active constraints as a node sees them."""
    return set(node.gossip.state.constraints)
