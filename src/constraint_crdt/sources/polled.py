"""Sources that are asked: programs, documents of web servers, growing files, exporters of Prometheus.

The sources `command`, `http` and `file`, with the standard library. Rules:

- A program has no input, and a group of processes of its own, which is killed at the timeout, and when the node stops.
- A document is taken with status 200 only. Redirects are not followed, as they would carry the token elsewhere.
- Of a growing file the lines that are new since the last reading count, and at first its last line. A line without its end waits.
  After a rotation the rest of the former file is read, then the new file from its beginning. The same for a file that was cut.

The source `prometheus`: a scrape of an exporter, parsed by Prometheus' own client library. Rules:

- The form follows the media type of the answer: in the text form timestamps are in ms, in OpenMetrics in s.
- A path names a metric and some of its labels, `node_cpu_seconds_total{mode="idle"}`. The values of all series that match are added
  up. A series that is NaN makes the sum unknown.
- A name is that of a series, as it is written on the page. In OpenMetrics a counter is `NAME_total`.
- A series whose own timestamp is older than `max_age` is unknown.
"""

import contextlib
import http.client
import math
import os
import re
import selectors
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import IO, NamedTuple, Protocol

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text_form

from constraint_crdt.sources import Polled, SourceSettings
from constraint_crdt.sources.formats import (
    MAX_PAYLOAD,
    Message,
    SourceError,
    Unknown,
    check_size,
    make_decoder,
    parse_nagios,
    text_of,
)

MOST_READ = 256 * 1024
"""Bytes of a growing file that are read at once; of more, the last ones."""

MAX_SECRET = 64 * 1024


def open_source(settings: SourceSettings, _: object = None) -> Polled:
    """The reader of a source of kind command, http, prometheus or file. Raises `SourceError`."""
    match settings.kind:
        case "command":
            return CommandReader(settings)
        case "http":
            return HttpReader(settings)
        case "prometheus":
            return PrometheusReader(settings)
        case _:
            return FileReader(settings)


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
        """The key of this certificate."""


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


OPENMETRICS = "application/openmetrics-text"
_COUNTER = re.compile(r"^([ \t]*#[ \t]*TYPE[ \t]+\S+[ \t]+)counter\b", re.MULTILINE)
"""A type that the parser of the text form would take as a reason to add `_total` to the name of a series."""

ACCEPT = f"{OPENMETRICS};version=1.0.0;q=0.5,text/plain;version=0.0.4;q=1.0,*/*;q=0.1"

_PATH = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\})?")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')


class _Wanted(NamedTuple):
    """A path."""

    path: str
    labels: tuple[tuple[str, str, str], ...]

    def matches(self, labels: dict[str, str]) -> bool:
        """True for a series with these labels."""
        return all(_holds(operator, labels.get(name, ""), value) for name, operator, value in self.labels)


def _holds(operator: str, found: str, value: str) -> bool:
    if operator == "=~":
        return re.fullmatch(value, found) is not None
    return (found == value) is (operator == "=")


def parse_path(path: str) -> tuple[str, _Wanted]:
    """The name of a metric, and the wanted part of it. Raises `SourceError` for a path that is no metric."""
    found = _PATH.fullmatch(path.strip())
    labels: list[tuple[str, str, str]] = []
    rest = (found[2] or "") if found is not None else ""
    while found is not None and rest.strip():
        label = _LABEL.match(rest)
        if label is None:
            found = None
            break
        value = re.sub(r"\\(.)", r"\1", label[3]) if label[2] != "=~" else label[3]
        labels.append((label[1], label[2], value))
        rest = rest[label.end() :]
    if found is None:
        raise SourceError(f'the path {path!r} is no metric, as in node_load1 or up{{job="a"}}')
    for _, operator, value in labels:
        if operator == "=~":
            try:
                re.compile(value)
            except re.error as error:
                raise SourceError(f"the path {path!r} has a wrong pattern: {error}") from None
    return found[1], _Wanted(path, tuple(labels))


class PrometheusReader:
    """Scrapes an exporter."""

    complete = True

    def __init__(self, settings: SourceSettings) -> None:
        self._fetcher = Fetcher(settings, ACCEPT)
        self._lasts = settings.lasts
        self._wanted: dict[str, list[_Wanted]] = defaultdict(list)
        for path in {field.path for field in settings.fields.values()}:
            name, wanted = parse_path(path)
            self._wanted[name].append(wanted)

    def read(self) -> Iterator[Message]:
        """Scrape it. Raises `SourceError`."""
        page, media_type = self._fetcher.fetch()
        yield Message(self.document(text_of(page), media_type, time.time()))

    def close(self) -> None:
        """Nothing is open between readings."""

    def document(self, page: str, media_type: str, now: float) -> dict[str, object]:
        """The values of the wanted paths. Raises `SourceError` for a page that is malformed. `now`: seconds since the epoch."""
        found: dict[str, object] = {}
        is_openmetrics = media_type.partition(";")[0].strip().lower() == OPENMETRICS
        text = page if is_openmetrics else _COUNTER.sub(r"\1untyped", page)
        parse: Callable[[str], Iterable[Metric]] = parse_openmetrics if is_openmetrics else parse_text_form
        try:
            for family in parse(text):
                for sample in family.samples:
                    for wanted in self._wanted.get(sample.name, ()):
                        if wanted.matches(sample.labels):
                            stamp = None if sample.timestamp is None else float(sample.timestamp)
                            _add(found, wanted.path, sample.value, None if stamp is None else now - stamp, self._lasts)
        except (ValueError, KeyError, IndexError) as error:
            raise SourceError(f"its page is malformed: {error}") from None
        return found


def _add(found: dict[str, object], path: str, value: float, age: float | None, lasts: float) -> None:
    before = found.get(path, 0.0)
    if age is not None and age > lasts:
        found[path] = Unknown(f"its time is {age:.0f} s ago")
    elif not math.isfinite(value):
        found[path] = Unknown(f"it says {value}")
    elif isinstance(before, float):
        found[path] = before + value
