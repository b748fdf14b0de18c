"""Keeping a node's state on disk, or not.

What a node writes or takes in is on disk before anybody can hear of it: whoever is about to say something awaits `durable` first.
While the disk takes nothing, writes are refused before they happen, and reads and gossip go on. What could not be written stays in
memory and is tried again; so that none of it is ever said twice in different words, this life is not vouched for any more.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from constraint_crdt.core.replica import Dot, Replica
from constraint_crdt.edge import fresh_incarnation
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.node.settings import DEFAULT_STORE, MEMORY_STORE, NodeSettings
from constraint_crdt.store import Committer, Life, Store, WritesRefused, default_path, marker_for, set_aside
from constraint_crdt.store.durations import Durations


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
    def commits(self) -> Durations | None:
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
