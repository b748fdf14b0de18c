"""A node on an old copy of its store takes back what others know of its former life, and says so."""

import logging
import shutil
from pathlib import Path

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node
from tests.conftest import runtime_directory
from tests.runtime.fleet import QUICK, eventually


@pytest.mark.slow
async def test_what_others_know_of_a_former_life_is_taken_over_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_directory(tmp_path)))
    network = MemoryNetwork()
    settings = msgspec.structs.replace(QUICK, name="a", store=str(tmp_path / "a.db"))
    async with Node(name="b", settings=QUICK, transport=network.transport()) as b:
        async with Node(settings=settings, transport=network.transport()) as a:
            await a.record(satisfied=1)
            first = a.gossip.replica
        shutil.copy(tmp_path / "a.db", tmp_path / "old.db")
        async with Node(settings=settings, transport=network.transport()) as a:
            await a.record(satisfied=2)
            assert a.gossip.replica == first, "the marker vouches for a clean restart"
            await eventually(lambda: b.status().satisfied == 3)
        shutil.copy(tmp_path / "old.db", tmp_path / "a.db")
        with caplog.at_level(logging.WARNING, "constraint_crdt.node"):
            async with Node(settings=settings, transport=network.transport()) as a:
                await a.record(satisfied=10)
                assert a.gossip.replica != first
                await eventually(lambda: a.status().satisfied == b.status().satisfied == 13)
        assert f"former life {first}" in caplog.text
