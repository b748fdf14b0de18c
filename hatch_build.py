"""The compiled core, built into the wheel or, for an editable installation, beside its source; left out where that fails.

Without a compiler, and with `CONSTRAINT_CRDT_PURE=1` in the environment, the package is pure Python, and works the same.
`constraint-crdt --version` says which runs.
"""

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/constraint_crdt/crdt/_cells.c"
SOURCES = [SOURCE, "src/constraint_crdt/crdt/_deflate.c"]
MODULE = "constraint_crdt.crdt._cells"
ABI = "cp311-abi3"
"""The limited API of CPython 3.11: one build serves all later versions."""


class CompiledCore(BuildHookInterface):
    """Builds the module of `SOURCES`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and name the result and its platform in `build_data`. `version`: "standard" or "editable"."""
        root = Path(self.root)
        try:
            built = self._build(root)
        except Exception as error:
            self.app.display_warning(f"the compiled core is left out: {error}")
            return
        if built is None:
            return
        place = f"constraint_crdt/crdt/{built.name}"
        if version != "editable":
            build_data["force_include"][str(built)] = place
        build_data["pure_python"] = False
        build_data["tag"] = f"{ABI}-{_platform()}"

    def _build(self, root: Path) -> Path | None:
        if os.environ.get("CONSTRAINT_CRDT_PURE", "0") not in ("", "0") or sys.implementation.name != "cpython":
            return None
        from setuptools import Distribution, Extension
        from setuptools.command.build_ext import build_ext

        unix = os.name == "posix"
        extension = Extension(MODULE, SOURCES, py_limited_api=True, extra_compile_args=["-O3"] if unix else ["/O2"])
        with TemporaryDirectory() as objects:
            before = Path.cwd()
            os.chdir(root)
            try:
                command = build_ext(Distribution({"name": "constraint-crdt", "ext_modules": [extension]}))
                command.build_lib, command.build_temp = objects, objects
                command.finalize_options()
                command.run()
            finally:
                os.chdir(before)
            made = Path(command.get_ext_fullpath(MODULE))
            built = root / Path(SOURCE).with_name(made.name)
            beside = built.with_suffix(".new")
            shutil.copyfile(made, beside)
            beside.replace(built)  # a running process may have the one before open
        return built


def _platform() -> str:
    from sysconfig import get_platform

    return get_platform().replace("-", "_").replace(".", "_")
