"""The source `prometheus`: a scrape of an exporter, parsed by Prometheus' own client library.

Rules kept here:

- The form follows the media type of the answer: in the text form timestamps are in ms, in OpenMetrics in s.
- A path names a metric and some of its labels, `node_cpu_seconds_total{mode="idle"}`. The values of all series that match are added
  up. A series that is NaN makes the sum unknown.
- A name is that of a series, as it is written on the page. In OpenMetrics a counter is `NAME_total`.
- A series whose own timestamp is older than `max_age` is unknown.
"""

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text_form

from constraint_crdt.sources import SourceSettings
from constraint_crdt.sources.formats import Message, SourceError, Unknown, text_of
from constraint_crdt.sources.polled import Fetcher
from constraint_crdt.sources.reader import Polled

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


def open_source(settings: SourceSettings, _: object = None) -> Polled:
    """The reader of a source. Raises `SourceError` for a path that is no metric."""
    return PrometheusReader(settings)


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
