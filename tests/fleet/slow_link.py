"""A TCP proxy with a round trip and a rate: the only route between two nodes on this machine."""

import asyncio
import contextlib


class SlowLink:
    """Passes connections on to `target`, each way at `rate` bytes per second and `way` seconds later.

    What is sent faster waits here, in a queue of at most `queue` bytes; then the sender has to wait. `fall` ends all connections.
    """

    def __init__(self, target: tuple[str, int], *, way: float, rate: float, queue: int = 256 * 1024) -> None:
        self._target = target
        self._way = way
        self._rate = rate
        self._queue = queue
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.carried = 0
        """Bytes carried, both ways."""
        self.falls = 0
        """Connections ended by an end, not by `fall`."""
        self.endpoint = ""

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.endpoint = f"tcp/127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def fall(self) -> None:
        """End all connections at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        """End for good."""
        if self._server is not None:
            self._server.close()
        self.fall()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(self._pass(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Read at the rate, in chunks of at most a tenth of a second, and write each after the way."""
        clock = asyncio.get_running_loop()
        free, waiting = 0.0, 0
        chunk = max(64, int(self._rate / 10))
        with contextlib.suppress(OSError):
            while data := await source.read(chunk):
                free = max(free, clock.time()) + len(data) / self._rate
                waiting += len(data)
                self.carried += len(data)

                def write(data: bytes = data) -> None:
                    nonlocal waiting
                    waiting -= len(data)
                    if not sink.transport.is_closing():
                        sink.write(data)

                clock.call_at(free + self._way, write)
                if (ahead := free - clock.time()) > self._queue / self._rate:
                    await asyncio.sleep(ahead - self._queue / self._rate)
        sink.transport.abort()
        self._writers.discard(sink)
        self.falls += 1
