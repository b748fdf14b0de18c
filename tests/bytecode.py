"""The environment of the tests, set before pytest loads its plugins (`-p` in pyproject.toml).

Keeps bytecode where the environment asks for none, and not beside the sources.

Where PYTHONDONTWRITEBYTECODE is set, each process that a test starts would compile the package again, which is more than half of
its start, and each pytest would compile its plugins again, which are a hundred modules.

Leaves out trio, which Selenium requires for what no test uses: its plugin of Hypothesis, and httpcore, would import all of it in
each worker.
"""

import os
import sys
from pathlib import Path

if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")
sys.modules["trio"] = None  # type: ignore[assignment]  # as if it were not installed
