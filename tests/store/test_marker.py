"""Where the marker of a store is kept: on machines with a read-only root, nowhere."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from constraint_crdt.store import files


def test_a_machine_without_a_writable_directory_has_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container with a read-only root, where no directory for temporary files can be found."""
    monkeypatch.setattr("tempfile.gettempdir", Mock(side_effect=FileNotFoundError("No usable temporary directory found")))
    monkeypatch.setattr(files, "make_private", Mock(side_effect=OSError("Read-only file system")))
    assert files.marker_for(tmp_path / "a.db", {})._file is None
