"""Lets tests import what is in `tools/`, as the commands there do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
