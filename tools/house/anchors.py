"""The projects that ours is compared with: their packages, and an environment that has them installed."""

import json
import os
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Anchor:
    """A model of the field."""

    name: str
    distribution: str
    packages: tuple[str, ...]
    """Where its modules are; the last one is the package that people import."""
    without: frozenset[str] = frozenset()
    """Folders that do not count: other products, old interfaces, tests."""


ANCHORS = (
    Anchor("h11", "h11", ("h11",), frozenset({"tests"})),
    Anchor("websockets", "websockets", ("websockets",), frozenset({"legacy"})),
    Anchor("httpx", "httpx", ("httpx",)),
    Anchor("structlog", "structlog", ("structlog",)),
    Anchor("attrs", "attrs", ("attr", "attrs")),
    Anchor(
        "SQLAlchemy Core",
        "sqlalchemy",
        ("sqlalchemy",),
        frozenset({"orm", "ext", "dialects", "connectors", "future", "testing", "cyextension"}),
    ),
)

_FIND = (
    "import importlib.util, sys; print('\\n'.join(importlib.util.find_spec(n).submodule_search_locations[0] for n in sys.argv[1:]))"
)


@contextmanager
def environment(existing: Path | None) -> Iterator[Path]:
    """The interpreter of an environment with the anchors: of `existing`, or of a new one that is deleted afterwards.

    Raises `CalledProcessError` if they cannot be installed.
    """
    if existing is not None:
        yield existing / "bin" / "python"
        return
    with tempfile.TemporaryDirectory(prefix="anchors-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *(anchor.distribution for anchor in ANCHORS)], check=True)
        yield python


def package_folders(python: Path, packages: tuple[str, ...]) -> list[Path]:
    """Where the interpreter `python` has these packages."""
    found = subprocess.run([str(python), "-c", _FIND, *packages], check=True, capture_output=True, text=True)
    return [Path(line) for line in found.stdout.splitlines()]


def observed(python: Path, package: str, *paths: Path) -> dict[str, Any]:
    """What `house.operations` observes of `package` in the interpreter `python`, with `paths` searched for packages first."""
    search = os.pathsep.join(str(path) for path in (*paths, Path(__file__).parents[1]))
    command = [str(python), "-m", "house.operations", package]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": search})
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found
