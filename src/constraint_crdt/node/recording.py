"""Writing a node's flight recording to a file: bounded, and whole up to the last input whatever happens to the process.

Each frame is handed to the system as one write, so that a kill loses none. When the file reaches half of its bound it is set aside
as `FILE.1`, in place of the one before, and a new one begins with a checkpoint: the two together are what is kept.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from constraint_crdt.edge import fresh_incarnation
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.node.settings import NodeSettings
from constraint_crdt.simulation.recording import Frame, RecordedNode, encode_frame

_log = logging.getLogger("constraint_crdt.node")


class FileRecorder:
    """The file that one node's inputs go to; without a name none, and nothing happens."""

    def __init__(self, path: str, max_bytes: int) -> None:
        """`max_bytes`: of the file and the one set aside, together. Nothing is opened before `open`."""
        self._path = Path(path)
        self._half = max_bytes // 2
        self._node: RecordedNode | None = None
        self._file: int | None = None
        self._written = 0
        self._beginning = False

    def node(self, settings: NodeSettings, now: Callable[[], int]) -> RecordedNode:
        """The node whose inputs are recorded."""
        self._node = RecordedNode(
            settings.name,
            sink=self.write,
            incarnation=fresh_incarnation(),
            now=now,
            renew=fresh_incarnation,
            fleet=settings.fleet,
            max_skew=settings.max_skew,
        )
        return self._node

    def open(self) -> None:
        """Begin the file with the state as it is. Raises `ConstraintCrdtError` if it cannot be written; one there is replaced."""
        if self._node is None:
            return
        try:
            self._begin(self._node)
        except OSError as error:
            raise ConstraintCrdtError(f"cannot record to {self._path}: {error.strerror or error}") from None

    def write(self, frame: Frame) -> None:
        """One input. A disk that takes nothing ends the recording, not the node."""
        if self._file is None:
            return
        data = encode_frame(frame)
        try:
            while data:
                written = os.write(self._file, data)
                self._written += written
                data = data[written:]
            if self._written > self._half and self._node is not None and not self._beginning:
                self._set_aside(self._node)
        except OSError as error:
            _log.error("the recording in %s ends here: %s", self._path, error.strerror or error)
            self.close()

    def close(self) -> None:
        """End the file. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _set_aside(self, node: RecordedNode) -> None:
        self.close()
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._begin(node)

    def _begin(self, node: RecordedNode) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._beginning = True  # a state that is larger than the bound begins one file, not one after the other
        try:
            node.checkpoint()
        finally:
            self._beginning = False
        self._written = 0
