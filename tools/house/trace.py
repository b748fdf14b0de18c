"""Follows one operation through the modules of a package, with the profile hook of the interpreter.

Definitions. An *own frame* executes code of the package. *Modules* are those whose code was entered. *Moves* are counted along the
sequence of calls of own frames: each call into another module than the call before it is a move, returns are none; a coroutine that
is resumed is called again, as the interpreter reports. *Depth* is the greatest number of own frames on the stack at once. Frames of
other packages between them count for nothing.
"""

import sys
from collections.abc import Callable, Collection
from types import FrameType


class CallTrace:
    """Modules, moves and depth of the calls that were shown to it."""

    def __init__(self, packages: Collection[str]) -> None:
        self._packages = frozenset(packages)
        self._last: str | None = None
        self.modules: set[str] = set()
        self.moves = 0
        self.depth = 0

    def call(self, frame: FrameType) -> None:
        """Take note of the call that made `frame`."""
        module = self._own(frame)
        if module is None:
            return
        self.modules.add(module)
        self.moves += self._last is not None and module != self._last
        self._last = module
        self.depth = max(self.depth, self._own_frames(frame))

    def figures(self) -> dict[str, int]:
        """Number of modules, moves, and depth."""
        return {"modules": len(self.modules), "moves": self.moves, "depth": self.depth}

    def _own(self, frame: FrameType) -> str | None:
        name = str(frame.f_globals.get("__name__", ""))
        return name if name.partition(".")[0] in self._packages else None

    def _own_frames(self, frame: FrameType) -> int:
        found = 0
        at: FrameType | None = frame
        while at is not None:
            found += self._own(at) is not None
            at = at.f_back
        return found


class Following:
    """While it is entered, shows the calls of this thread to traces, each with the condition under which it takes them."""

    def __init__(self, *traces: tuple[CallTrace, Callable[[], bool]]) -> None:
        self._traces = traces

    def __enter__(self) -> None:
        sys.setprofile(self._event)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            for trace, wanted in self._traces:
                if wanted():
                    trace.call(frame)


def follow(packages: Collection[str], operation: Callable[[], object]) -> CallTrace:
    """Trace the second run of `operation`: what the first one loads and caches is not the operation."""
    operation()
    trace = CallTrace(packages)
    with Following((trace, lambda: True)):
        operation()
    return trace
