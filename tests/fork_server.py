"""Processes of the command line without the time that it takes to load the package, which is most of what a short one takes.

A server, one for each process of pytest, loads the package once and forks a process for each command. Such a process is as real as
one that a user starts: it has its own id, streams, environment and working directory, takes signals, and ends as any other. What
loads what, and how long a start takes, is tested with `python -m constraint_crdt` itself.

The server has a single thread, so that it may fork, and refuses to serve with several; a process of pytest has several. A
process is forked twice over, and the parent of the second is gone by then, so the process of pytest, which adopts orphans for
that moment, is its parent and can wait for it.

Two forked processes share no state that should differ: Python seeds `random` anew in each child, ids come from the operating
system, and Zenoh is loaded without a session, thread or socket. A child inherits its three streams and no other descriptor. The
hash seed of Python is the same in all processes of a server.

The server also builds the parser of the command line once: it depends on no argument, and nothing changes it. A command that is
done runs the callbacks of the exit, and leaves out the teardown of all modules, which takes as long as a short command. A node
ends as Python ends: its threads are part of what its tests see.
"""

import atexit
import ctypes
import gc
import importlib
import inspect
import json
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

LOADED = (
    "constraint_crdt.cli",
    "constraint_crdt.cli.node",
    "constraint_crdt.cli.constraints",
    "constraint_crdt.cli.files",
    "constraint_crdt.transport.zenoh",
    "cel_expr_python.cel",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.httptools_impl",
    "encodings.idna",
    "stringprep",
    "tests.network.switch",
)
"""What a node loads, most of which the other commands load too; and what a process needs to enter namespaces."""

_REQUEST_BYTES = 1 << 20
_SET_CHILD_SUBREAPER = 36


class CommandProcess(subprocess.Popen[str]):
    """A process of `constraint-crdt`, forked from the server of this process of pytest; with the arguments of `Popen`.

    `namespaces`: files of namespaces that it enters first.
    """

    def __init__(self, arguments: Sequence[str], *, namespaces: Sequence[str] = (), **options: Any) -> None:
        self._namespaces = list(namespaces)
        super().__init__(arguments, **options)

    def _execute_child(self, *given: Any) -> None:
        """In place of fork and exec. Python gives it the ends of the pipes by position."""
        names = list(inspect.signature(subprocess.Popen._execute_child).parameters)[1:]  # type: ignore[attr-defined]
        value = dict(zip(names, given, strict=True))
        sys.audit("subprocess.Popen", sys.executable, value["args"], value["cwd"], value["env"])
        environment = dict(os.environ if value["env"] is None else value["env"])
        request = {
            "arguments": value["args"],
            "environment": environment,
            "folder": os.fspath(value["cwd"] or os.getcwd()),
            "namespaces": self._namespaces,
        }
        ends = [value[name] if value[name] != -1 else own for own, name in enumerate(("p2cread", "c2pwrite", "errwrite"))]
        try:
            self.pid = _server().fork(request, ends)
            self._child_created = True
        finally:
            self._close_pipe_fds(*(value[name] for name in names if name[:2] in ("p2", "c2", "er")))  # type: ignore[attr-defined]


def start(arguments: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start `constraint-crdt` with these arguments. The options are those of `Popen`, and on Linux those of `CommandProcess`;
    streams are text.
    """
    if platform.system() == "Linux":
        return CommandProcess(arguments, text=True, **options)
    return subprocess.Popen([sys.executable, "-m", "constraint_crdt", *arguments], text=True, **options)


def run(arguments: Sequence[str], *, timeout: float = 60.0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `constraint-crdt` to its end, with its output. The options are those of `start`."""
    with start(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


class _Server:
    """The server, as seen by the process of pytest."""

    def __init__(self) -> None:
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line = [sys.executable, "-m", "tests.fork_server", str(other.fileno())]
        with other:
            # In a session of its own: Ctrl-C is for pytest, and the server ends when that closes its end.
            self._process = subprocess.Popen(
                line, pass_fds=[other.fileno()], cwd=Path(__file__).parents[1], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        self._lock = threading.Lock()

    def fork(self, request: dict[str, Any], streams: Sequence[int]) -> int:
        """Fork a process with these streams: its id."""
        with self._lock:  # else two threads might take the answer of each other
            self._adopt(True)
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], streams)
                return int(self._control.recv(_REQUEST_BYTES))
            finally:
                self._adopt(False)

    def close(self) -> None:
        self._control.close()
        self._process.wait()

    def _adopt(self, orphans: bool) -> None:
        if self._prctl(_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


@cache
def _server() -> _Server:
    server = _Server()
    atexit.register(server.close)
    return server


def _serve(control: socket.socket) -> None:
    """Fork a process for each request, until pytest is gone."""
    for name in LOADED:
        importlib.import_module(name)
    _keep_parser()
    gc.collect()
    gc.freeze()
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        raise RuntimeError(f"{len(threads)} threads after loading the package: a fork would copy locks that the others hold")
    while True:
        message, streams, _, _ = socket.recv_fds(control, _REQUEST_BYTES, 3)
        if not message:
            return
        reading, writing = os.pipe()
        between = os.fork()
        if not between:
            process = os.fork()
            if process:
                os.write(writing, str(process).encode())
                os._exit(0)
            control.close()
            os.close(reading)
            os.close(writing)
            _become(streams, **json.loads(message))
        for descriptor in (*streams, writing):
            os.close(descriptor)
        os.waitpid(between, 0)
        control.send(os.read(reading, 32))
        os.close(reading)


def _keep_parser() -> None:
    """Build the parser here, for all processes."""
    from constraint_crdt.cli import arguments

    arguments.make_parser = cache(arguments.make_parser)
    arguments.make_parser()


def _become(
    streams: Sequence[int], arguments: list[str], environment: dict[str, str], folder: str, namespaces: Sequence[str]
) -> NoReturn:
    from constraint_crdt.cli import main
    from tests.network.switch import enter_namespaces

    enter_namespaces(namespaces)
    for own, descriptor in enumerate(streams):
        os.dup2(descriptor, own)
    for descriptor in streams:
        os.close(descriptor)
    buffering = 1 if environment.get("PYTHONUNBUFFERED") else -1
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", buffering, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["constraint-crdt", *arguments]
    code = main()
    if arguments[:1] == ["node"]:
        sys.exit(code)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does first when it ends
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
