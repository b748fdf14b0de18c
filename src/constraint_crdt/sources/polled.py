"""Sources that are asked with the standard library: a program's output, a document of a web server, the end of a growing file.

Rules kept here:

- A program has no input, and a group of processes of its own, which is killed at the timeout, and when the node stops.
- A document is taken with status 200 only. Redirects are not followed, as they would carry the token elsewhere.
- Of a growing file the lines that are new since the last reading count, and at first its last line. A line without its end waits.
  After a rotation the rest of the former file is read, then the new file from its beginning. The same for a file that was cut.
"""

import contextlib
import http.client
import os
import selectors
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import IO, Protocol

from constraint_crdt.sources import SourceSettings
from constraint_crdt.sources.formats import MAX_PAYLOAD, Message, SourceError, check_size, make_decoder, parse_nagios
from constraint_crdt.sources.reader import Polled

MOST_READ = 256 * 1024
"""Bytes of a growing file that are read at once; of more, the last ones."""

MAX_SECRET = 64 * 1024


def open_source(settings: SourceSettings, _: object = None) -> Polled:
    """The reader of a source of kind command, http or file. Raises `SourceError`."""
    if settings.kind == "command":
        return CommandReader(settings)
    return HttpReader(settings) if settings.kind == "http" else FileReader(settings)


class CommandReader:
    """Runs a program."""

    complete = True

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._decode = None if settings.payload_format == "nagios" else make_decoder(settings.payload_format)
        self._running: subprocess.Popen[bytes] | None = None

    def read(self) -> Iterator[Message]:
        """Run it once. Raises `SourceError` for a program that fails, or does not end in time."""
        command = self._settings.command
        try:
            process = subprocess.Popen(  # noqa: S603 - the program that the settings name
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise SourceError(f"{command[0]} cannot be run: {error.strerror or error}") from None
        self._running = process
        with process:
            try:
                output, errors = _output_of(process, self._settings.timeout)
            finally:
                self._running = None
                _kill(process)
        if self._decode is None:
            yield Message(parse_nagios(output, process.returncode))
            return
        if process.returncode != 0:
            said = errors.decode(errors="replace").strip().splitlines()
            raise SourceError(f"{command[0]} {_ending(process.returncode)}{f': {said[-1][:200]}' if said else ''}")
        yield Message(self._decode(output))

    def close(self) -> None:
        """End the program that runs."""
        running = self._running
        if running is not None:
            _kill(running)


def _ending(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"was ended by the signal {-code}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a program, and the processes that it left running in its group."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def _output_of(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bytes]:
    """Output and errors of a program, once it has ended. Raises `SourceError` for too much of them, and at the timeout."""
    ends = time.monotonic() + seconds
    name = str(process.args[0]) if isinstance(process.args, tuple | list) else str(process.args)
    late = SourceError(f"{name} did not end within {seconds:g} s")
    gathered = {pipe.fileno(): bytearray() for pipe in (process.stdout, process.stderr) if pipe is not None}
    with selectors.DefaultSelector() as selector:
        for number in gathered:
            selector.register(number, selectors.EVENT_READ)
        while selector.get_map():
            events = selector.select(ends - time.monotonic())
            if time.monotonic() >= ends:
                raise late
            for key, _ in events:
                part = os.read(key.fd, 65536)
                gathered[key.fd] += part
                if not part:
                    selector.unregister(key.fd)
                if len(gathered[key.fd]) > MAX_PAYLOAD:
                    raise SourceError(f"{name} wrote more than {MAX_PAYLOAD} bytes")
    try:
        process.wait(max(0.0, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise late from None
    output, errors = map(bytes, gathered.values())
    return output, errors


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Every redirect is an error."""

    def redirect_request(self, *_: object) -> None:
        return None


def read_secret(file: str) -> str:
    """The content of a file with a password or a token. Raises `SourceError`."""
    try:
        with Path(file).open("rb") as opened:
            return opened.read(MAX_SECRET).decode().strip()
    except OSError as error:
        raise SourceError(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{file} is no text") from None


class Fetcher:
    """Gets the document of a source from its web server."""

    def __init__(self, settings: SourceSettings, accept: str) -> None:
        """Raises `SourceError` for files that cannot be used."""
        self._settings, self._accept = settings, accept
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if settings.url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=tls_context(settings)))
        self._opener = urllib.request.build_opener(*handlers)

    def fetch(self) -> tuple[bytes, str]:
        """The document and its media type. Raises `SourceError`."""
        settings, ends = self._settings, time.monotonic() + self._settings.timeout
        headers = {"Accept": self._accept, "User-Agent": "constraint-crdt"}
        if settings.token_file:
            headers["Authorization"] = f"Bearer {read_secret(settings.token_file)}"
        request = urllib.request.Request(settings.url, headers=headers)  # noqa: S310 - checked: http or https
        try:
            with self._opener.open(request, timeout=settings.timeout) as answer:
                body = bytearray()
                while part := answer.read1(65536):
                    body += part
                    check_size(body)
                    if time.monotonic() > ends:
                        raise SourceError(f"no whole answer within {settings.timeout:g} s")
                return bytes(body), answer.headers.get("content-type", "")
        except urllib.error.HTTPError as error:
            error.close()
            raise SourceError(f"it answers {error.code}") from None
        except urllib.error.URLError as error:
            reason = error.reason
            why = (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
            raise SourceError(f"no answer: {why}") from None
        except TimeoutError:
            raise SourceError(f"no answer within {settings.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(f"no answer: {error or type(error).__name__}") from None


class TlsFiles(Protocol):
    """The files for TLS in the settings of a source or an action."""

    @property
    def ca(self) -> str:
        """Authorities to trust; those of the system if empty."""

    @property
    def certificate(self) -> str:
        """The certificate to show; none if empty."""

    @property
    def key(self) -> str:
        """Its key."""


def tls_context(settings: TlsFiles) -> ssl.SSLContext:
    """TLS with the authorities and the certificate of a source. Raises `SourceError` for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        if settings.certificate:
            context.load_cert_chain(settings.certificate, settings.key)
    except OSError as error:  # an `ssl.SSLError` is one
        raise SourceError(f"`ca`, `certificate` or `key` cannot be used: {error.strerror or error}") from None
    return context


class HttpReader:
    """Reads a document of a web server."""

    complete = True

    def __init__(self, settings: SourceSettings) -> None:
        self._fetcher = Fetcher(settings, "application/json, */*;q=0.5")
        self._decode = make_decoder(settings.payload_format)

    def read(self) -> Iterator[Message]:
        """Get it. Raises `SourceError`."""
        yield Message(self._decode(self._fetcher.fetch()[0]))

    def close(self) -> None:
        """Nothing is open between readings."""


class FileReader:
    """Reads the lines added to a file."""

    complete = False

    def __init__(self, settings: SourceSettings) -> None:
        self._path = Path(settings.file)
        self._decode = make_decoder(settings.payload_format)
        self._lock = Lock()
        self._open: IO[bytes] | None = None
        self._rest = b""
        """The beginning of a line whose end is not there yet."""

    def read(self) -> Iterator[Message]:
        """The new lines. Raises `SourceError` for a file that cannot be read, and after the others for a line that cannot."""
        fault: SourceError | None = None
        with self._lock:
            lines = self._new_lines()
        for line in lines:
            try:
                message = Message(self._decode(line))
            except SourceError as error:
                fault = error
                continue
            fault = None
            yield message
        if fault is not None:
            raise fault

    def close(self) -> None:
        """Close the file, after the reading that is under way."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def _new_lines(self) -> list[bytes]:
        try:
            is_first = self._open is None
            if self._open is None:
                self._open = self._path.open("rb")
            lines = self._lines(self._open)
            if is_first:
                return lines[-1:]
            there = self._path.stat()
            here = os.fstat(self._open.fileno())
            if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
                self._open.close()
                self._open, self._rest = self._path.open("rb"), b""
                lines += self._lines(self._open)
            elif here.st_size < self._open.tell():
                self._open.seek(0)
                self._rest = b""
                lines += self._lines(self._open)
        except OSError as error:
            raise SourceError(f"{self._path} cannot be read: {error.strerror or error}") from None
        return lines

    def _lines(self, file: IO[bytes]) -> list[bytes]:
        """The whole lines from the present place on."""
        size, at = os.fstat(file.fileno()).st_size, file.tell()
        if size - at > MOST_READ:
            file.seek(size - MOST_READ)
            self._rest = b""
            file.readline()  # the end of a line
        read = self._rest + file.read(MOST_READ)
        *lines, self._rest = read.split(b"\n")
        if len(self._rest) > MAX_PAYLOAD:
            self._rest = b""
        return [line for line in lines if line.strip()]
