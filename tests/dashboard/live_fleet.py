"""Six real nodes on a memory network, in a thread of their own, the first of them serving its API and the dashboard.

The thread is there because a browser is driven by calls that wait.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from time import time_ns
from typing import Any, TypeVar

import msgspec

from constraint_crdt import MemoryNetwork, Node, NodeSettings
from constraint_crdt.alerts import AlertRule
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.dashboard import dashboard_pages
from constraint_crdt.http.server import ApiServer

NAMES = ("forge", "anvil", "bellows", "hammer", "tongs", "vise")
ALERTS = (AlertRule(name="unsafe", kind="rate", constraint="alerting_*", above=0.01, for_=0.0, to=("log",)),)
SETTINGS = NodeSettings(
    name="unnamed",
    check_every=0.1,
    count_every=0.1,
    gossip_every=0.1,
    rate_every=0.2,
    request_timeout=1.0,
    alert=ALERTS,
    listen=("tcp/0.0.0.0:0",),
    insecure=True,
    max_age=600.0,  # what is measured once counts to the end of a test, on a busy machine too
)

Result = TypeVar("Result")


class LiveFleet:
    """The fleet. Its methods wait, and are called from any thread but its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True)
        self._thread.start()
        self.network = MemoryNetwork()
        self.ahead: dict[str, float] = {}
        """Seconds by which the clocks of nodes are ahead."""
        self.nodes: list[Node] = []
        self._api: ApiServer | None = None
        self._more: list[ApiServer] = []
        self.url = ""

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What a coroutine gives, run among the nodes."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def ask(self, what: Callable[[], Result]) -> Result:
        """What a function gives, called among the nodes."""

        async def asking() -> Result:
            return what()

        return self.do(asking())

    def start(self) -> None:
        """Start all of them, and serve."""
        self.nodes = [self._new(name) for name in NAMES]
        for node in self.nodes:
            self.do(node.start())
        self._serve(0)

    def serve_also(self, **serving: Any) -> str:
        """Serve the API of the first node at another address, too."""
        api = ApiServer(self.nodes[0], port=0, pages=dashboard_pages(), **serving)
        self.do(api.start())
        self._more.append(api)
        return api.url

    def stop_serving(self) -> None:
        """The first node ends, as if its process did."""
        assert self._api is not None
        self.do(self._api.stop())
        self.do(self.nodes[0].stop())

    def serve_again(self) -> None:
        """The first node starts anew, with nothing in its memory, at the address that it had."""
        self.nodes[0] = self._new(NAMES[0])
        self.do(self.nodes[0].start())
        self._serve(int(self.url.rpartition(":")[2]))

    def close(self) -> None:
        """End everything."""
        for api in filter(None, (self._api, *self._more)):
            self.do(api.stop())
        for node in self.nodes:
            self.do(node.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _new(self, name: str) -> Node:
        settings = msgspec.structs.replace(SETTINGS, name=name)
        clock = partial(self._now, name)
        return Node(settings=settings, transport=self.network.transport(), random=Random(name), now=clock)

    def clone(self, name: str) -> Node:
        """Another node of this name, as from a copied image; not started yet."""
        return self._new(name)

    def _now(self, name: str) -> int:
        return time_ns() + round(self.ahead.get(name, 0.0) * SECOND)

    def _serve(self, port: int) -> None:
        self._api = ApiServer(self.nodes[0], port=port, pages=dashboard_pages())
        self.do(self._api.start())
        self.url = self._api.url


@contextmanager
def live_fleet() -> Iterator[LiveFleet]:
    """A fleet that is gone when the block ends."""
    fleet = LiveFleet()
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.close()
