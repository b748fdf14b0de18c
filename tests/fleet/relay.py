"""A TCP relay that a test can cut and join: the only route between two halves of a fleet."""

import contextlib
import socket
import threading


class Relay:
    """Passes connections on to `target` while it is joined; cutting it ends those that are open and refuses new ones."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._joined = True
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp/127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """No route from now on."""
        with self._lock:
            self._joined = False
            ending, self._open = self._open, set()
        for each in ending:
            _end(each)

    def join(self) -> None:
        """A route again."""
        with self._lock:
            self._joined = True

    def close(self) -> None:
        """Cut for good."""
        self.cut()
        _end(self._listener)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                with self._lock:
                    joined = self._joined
                try:
                    outer = socket.create_connection(self._target) if joined else None
                except OSError:
                    outer = None
                if outer is None:
                    _end(inner)
                    continue
                with self._lock:
                    self._open |= {inner, outer}
                for source, sink in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with self._lock:
                self._open.discard(each)
            _end(each)


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
