"""Keeping a node's state on disk, or not.

What a node writes or takes in is on disk before anybody can hear of it: whoever is about to say something awaits `durable` first.
While the disk takes nothing, writes are refused before they happen, and reads and gossip go on. What could not be written stays in
memory and is tried again; so that none of it is ever said twice in different words, this life is not vouched for any more.

Writing a node's flight recording to a file: bounded, and whole up to the last input whatever happens to the process.

Each frame is handed to the system as one write, so that a kill loses none. When the file reaches half of its bound it is set aside
as `FILE.1`, in place of the one before, and a new one begins with a checkpoint: the two together are what is kept.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from constraint_crdt.crdt.replica import Dot, Replica
from constraint_crdt.edge import fresh_incarnation
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model.histogram import DurationHistogram
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.settings import DEFAULT_STORE, MEMORY_STORE, NodeSettings
from constraint_crdt.simulation.recorder import Frame, RecordedNode, encode_frame
from constraint_crdt.store import Committer, Life, Store, WritesRefused, default_path, marker_for, set_aside


def store_path(settings: NodeSettings) -> Path | None:
    """Where the settings put the store; None for none."""
    if settings.store == MEMORY_STORE:
        return None
    return default_path(settings.name, settings.fleet) if settings.store == DEFAULT_STORE else Path(settings.store)


class Keeping:
    """The store of one node, if it has one."""

    def __init__(self, settings: NodeSettings, gossip: GossipNode, on_health: Callable[[str | None], None]) -> None:
        """`on_health` is told why writes begin to be refused, and None when they are taken again."""
        self._settings = settings
        self._gossip = gossip
        self._on_health = on_health
        self._store: Store | None = None
        self._committer: Committer | None = None
        self._former: dict[Replica, int] = {}

    @property
    def path(self) -> str:
        """The file, or "memory"."""
        return str(self._store.path) if self._store else MEMORY_STORE

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._store.size if self._store else 0

    @property
    def lives(self) -> tuple[Life, ...]:
        """The lives of the node that its store remembers; none without a store."""
        return self._store.lives if self._store else ()

    @property
    def trouble(self) -> str | None:
        """Why writes are refused; None while they are not."""
        return self._committer.trouble if self._committer else None

    @property
    def commits(self) -> DurationHistogram | None:
        """How long commits took; None without a store."""
        return self._committer.durations if self._committer else None

    @property
    def waiting(self) -> int:
        """How many wait for the disk."""
        return self._committer.waiting if self._committer else 0

    async def open(self, *, rejoin: bool = False) -> Path | None:
        """Take up what is on disk. Raises `StoreError` if it cannot be used.

        `rejoin`: set the old file aside, and begin with an empty one; returns where the old one is then.
        """
        path = store_path(self._settings)
        if path is None:
            return None
        gossip = self._gossip

        def opened() -> tuple[Store, Path | None]:
            aside = set_aside(path) if rejoin else None
            store = Store.open(
                path, node=gossip.node_id, fleet=gossip.fleet, marker=marker_for(path), fresh_incarnation=fresh_incarnation
            )
            try:
                store.restore(gossip.state.rows)
            except BaseException:
                store.close()
                raise
            return store, aside

        store, aside = await asyncio.to_thread(opened)
        identity = store.identity
        gossip.resume(identity.incarnation, vouched=identity.vouched)
        replicas = [Replica(gossip.node_id, life.incarnation) for life in store.lives]
        self._former = {replica: gossip.state.rows.seq(replica) for replica in replicas}
        self._store = store
        self._committer = Committer(store, gossip.state.rows, on_health=self._on_health)
        self._committer.start()
        return aside

    def check(self) -> None:
        """Raise `WritesRefused` if the disk takes no writes at present."""
        if self.trouble is not None:
            raise WritesRefused(self.trouble)

    def changed(self) -> None:
        """Something may have changed: have it written soon."""
        if self._committer:
            self._committer.touch()

    async def durable(self) -> None:
        """Return once all that changed up to now is on disk. Raises `WritesRefused` if it cannot be."""
        if self._committer:
            await self._committer.durable()

    def recovered(self) -> list[Dot]:
        """The former lives of which others turned out to know more than the store, since the last call: each with up to where."""
        rows, found = self._gossip.state.rows, []
        for replica, known in self._former.items():
            seq = rows.seq(replica)
            if seq > known:
                self._former[replica] = seq
                if replica != self._gossip.replica:
                    found.append(Dot(replica, seq))
        return found

    def begin_life(self, incarnation: int, why: str) -> None:
        """The node goes on under another incarnation."""
        if self._committer:
            self._committer.begin_life(incarnation, why)

    def end_life(self) -> None:
        """The node's present life must not write any more."""
        if self._committer:
            self._committer.end_life()

    async def close(self) -> None:
        """Write what is left, and close the store. Idempotent."""
        committer, self._committer = self._committer, None
        if committer:
            await committer.close()
        elif self._store:
            await asyncio.to_thread(self._store.close)


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
