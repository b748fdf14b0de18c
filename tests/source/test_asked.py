"""The sources that are asked: programs, web servers, growing files, exporters."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from constraint_crdt.sources.formats import MAX_PAYLOAD, SourceError, Unknown
from constraint_crdt.sources.polled import OPENMETRICS, CommandReader, FileReader, HttpReader, PrometheusReader
from tests.source.counterparts import WebServer, finding, node_with, soon, source, values_of, web, why_unknown

__all__ = ["web"]


# --- files ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def reader(log: Path) -> Iterator[FileReader]:
    made = FileReader(source(kind="file", file=str(log)))
    yield made
    made.close()


def documents(reader: FileReader) -> list[object]:
    return [message.document for message in reader.read()]


def test_the_lines_that_are_added_count(log: Path, reader: FileReader) -> None:
    log.write_text('{"x": 1}\n{"x": 2}\n')
    assert documents(reader) == [{"x": 2}], "at first the last line"
    with log.open("a") as file:
        file.write('{"x": 3}\n{"x": 4}\n{"x"')
    assert documents(reader) == [{"x": 3}, {"x": 4}], "a line without its end waits"
    with log.open("a") as file:
        file.write(": 5}\n")
    assert documents(reader) == [{"x": 5}]
    assert documents(reader) == []


def test_a_rotation_loses_no_line(log: Path, reader: FileReader) -> None:
    log.write_text('{"x": 1}\n')
    documents(reader)
    with log.open("a") as file:
        file.write('{"x": 2}\n')
    log.rename(log.with_name("log.1"))
    log.write_text('{"x": 3}\n')
    assert documents(reader) == [{"x": 2}, {"x": 3}]
    log.write_text("")  # cut, as by logrotate's copytruncate
    assert documents(reader) == []
    log.write_text('{"x": 4}\n')
    assert documents(reader) == [{"x": 4}]


def test_a_missing_file_is_told_and_read_once_it_is_there(log: Path) -> None:
    reader = FileReader(source(kind="file", file=str(log), format="number"))
    with pytest.raises(SourceError, match="log cannot be read: No such file or directory"):
        documents(reader)
    log.write_text("21.5 °C\n")
    assert documents(reader) == [{"value": 21.5}]
    reader.close()


def test_a_line_that_is_malformed_costs_only_itself(log: Path, reader: FileReader) -> None:
    log.write_text("\n")
    documents(reader)
    with log.open("a") as file:
        file.write('{"x": 1}\nno\n{"x": 2}\n')
    assert documents(reader) == [{"x": 1}, {"x": 2}]
    with log.open("a") as file:
        file.write("no\n")
    with pytest.raises(SourceError, match="it sent no JSON"):
        documents(reader)


@pytest.mark.slow
def test_of_a_long_file_the_end_is_read(log: Path, reader: FileReader) -> None:
    log.write_text("".join(f'{{"x": {number}}}\n' for number in range(100_000)))
    assert documents(reader) == [{"x": 99_999}]


# --- programs -------------------------------------------------------------------------------------------------------------------


def run(*command: str, form: str = "json", seconds: float = 10.0) -> object:
    table = source(kind="command", command=list(command), format=form, timeout=seconds)
    [message] = CommandReader(table).read()
    return message.document


@pytest.mark.processes
def test_the_output_of_a_program() -> None:
    assert run("echo", '{"x": [1, null]}') == {"x": [1, None]}
    assert run("printf", "battery.charge: 80\nups.temp=31.5 C\nstate=\n", form="pairs") == {
        "battery.charge": 80.0, "ups.temp": 31.5, "state": Unknown("it says ''"),
    }  # fmt: skip
    assert run("echo", "42%", form="number") == {"value": 42.0}
    assert run("sh", "-c", "echo 'LOAD WARNING - high|load1=3.5;3;5;0 t=12ms;;;; mem=2KB'; exit 1", form="nagios") == {
        "state": "WARNING", "code": 1.0, "message": "LOAD WARNING - high", "load1": 3.5, "t": 0.012, "mem": 2000.0,
    }  # fmt: skip


@pytest.mark.processes
def test_a_program_that_fails_gives_no_values() -> None:
    with pytest.raises(SourceError, match="/no/program cannot be run: No such file"):
        run("/no/program")
    with pytest.raises(SourceError, match="sh ended with exit code 3: no sensor"):
        run("sh", "-c", "echo no sensor >&2; exit 3")
    with pytest.raises(SourceError, match="exit code 9, which means nothing"):
        run("sh", "-c", "exit 9", form="nagios")
    with pytest.raises(SourceError, match=f"wrote more than {MAX_PAYLOAD} bytes"):
        run("sh", "-c", "exec yes")


@pytest.mark.processes
def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"sh did not end within 0\.3 s"):
        run("sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait", seconds=0.3)
    assert time.monotonic() - began < 10
    child = int((tmp_path / "pid").read_text())
    ends = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "\nState:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < ends, "the child goes on"


@pytest.mark.processes
async def test_a_constraint_is_unknown_with_the_reason_of_its_source(tmp_path: Path) -> None:
    """`doctor` and the metrics tell it, and the constraint reads its variable as unknown, never as an old or wrong number."""
    answer = tmp_path / "answer"
    answer.write_text("charge=80\n")
    table = {
        "name": "ups", "kind": "command", "command": ["cat", str(answer)], "format": "pairs", "every": 0.05, "max_age": 0.3,
        "fields": {"battery": {"path": "charge", "unknown": [255]}},
    }  # fmt: skip
    async with node_with(table) as node:
        await node.add_constraint("charged", when="battery >= 20.0")
        await soon(lambda: values_of(node) == {"battery": 80.0})
        assert finding(node).what == "values come from ups"
        os.replace(_written(tmp_path / "next", "charge=255\n"), answer)
        await soon(lambda: why_unknown(node, "charged") == "battery is unknown to the source ups: it says 255")
        assert values_of(node) == {}
        os.replace(_written(tmp_path / "next", "charge=70\n"), answer)
        await soon(lambda: values_of(node) == {"battery": 70.0})
        answer.unlink()
        await soon(lambda: str(why_unknown(node, "charged")).startswith("battery is not told: the source ups is down (cat ended"))
        assert finding(node).level == "warn"
        assert "down: ups (cat ended with exit code 1" in finding(node).what
        [figures] = node.metrics.report().sources
        assert (figures.name, figures.up) == ("ups", False)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# --- web servers ----------------------------------------------------------------------------------------------------------------


def test_a_document_of_a_web_server(web: WebServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    web.answers["/x"] = 200, "application/json", b'{"battery": {"charge": 80}}'
    [message] = HttpReader(source(kind="http", url=f"{web.url}/x", token_file=str(token))).read()
    assert message.document == {"battery": {"charge": 80}}
    assert web.requests[-1]["Authorization"] == "Bearer secret"


@pytest.mark.slow
async def test_a_web_server_that_is_started_again(web: WebServer) -> None:
    web.answers["/x"] = 200, "application/json", b'{"line": {"speed": 1200}}'
    fields = {"speed": {"path": "/line/speed", "scale": 0.001}}
    table = {"name": "line", "kind": "http", "url": f"{web.url}/x", "every": 0.05, "max_age": 0.2, "fields": fields}
    async with node_with(table) as node:
        await node.add_constraint("slow", when="speed < 2.0")
        await soon(lambda: values_of(node) == {"speed": 1.2})
        await asyncio.to_thread(web.close)
        reason = "speed is not told: the source line is down (no answer: Connection refused)"
        await soon(lambda: why_unknown(node, "slow") == reason)
        again = WebServer(int(web.url.rpartition(":")[2]))
        try:
            await soon(lambda: "it answers 404" in str(why_unknown(node, "slow")))
            again.answers["/x"] = 200, "application/json", b'{"line": {"speed": 1500}}'
            await soon(lambda: values_of(node) == {"speed": 1.5})
            await soon(lambda: finding(node).level == "ok")
        finally:
            await asyncio.to_thread(again.close)


@pytest.mark.slow
def test_an_answer_that_is_none(web: WebServer) -> None:
    web.answers["/moved"] = 302, "text/plain", b""
    web.answers["/long"] = 200, "application/json", b" " * (MAX_PAYLOAD + 1)
    web.answers["/text"] = 200, "application/json", b"<html>"
    for path, why in [
        ("/none", "it answers 404"), ("/moved", "it answers 302"), ("/long", "it sent"), ("/text", "it sent no JSON"),
    ]:  # fmt: skip
        with pytest.raises(SourceError, match=why):
            list(HttpReader(source(kind="http", url=web.url + path)).read())
    web.close()
    with pytest.raises(SourceError, match="no answer: Connection refused"):
        list(HttpReader(source(kind="http", url=f"{web.url}/x", timeout=1)).read())


# --- Prometheus -----------------------------------------------------------------------------------------------------------------

PAGE = """\
# TYPE cpu_seconds_total counter
cpu_seconds_total{cpu="0",mode="idle"} 10
cpu_seconds_total{cpu="1",mode="idle"} 20
cpu_seconds_total{cpu="0",mode="user"} 5
# TYPE temp gauge
temp{sensor="a b"} NaN
temp{sensor="c"} 41.5
old 5 1796000000123
far +Inf
"""


def scraped(*paths: str, page: str = PAGE, media_type: str = "text/plain; version=0.0.4", now: float = 1.8e9) -> dict[str, object]:
    fields = {f"v{number}": path for number, path in enumerate(paths)}
    reader = PrometheusReader(source(kind="prometheus", url="http://h/metrics", fields=fields))
    return reader.document(page, media_type, now)


def test_metrics_are_chosen_by_name_and_labels() -> None:
    paths = [
        'cpu_seconds_total{mode="idle"}',
        'cpu_seconds_total{mode!="idle"}',
        'cpu_seconds_total{cpu=~"0|1",mode=~"i.*"}',
        "none",
    ]
    assert scraped(*paths) == {paths[0]: 30.0, paths[1]: 5.0, paths[2]: 30.0}


def test_what_is_not_a_number_is_unknown() -> None:
    assert scraped("temp", 'temp{sensor="c"}', "far") == {
        "temp": Unknown("it says nan"), 'temp{sensor="c"}': 41.5, "far": Unknown("it says inf"),
    }  # fmt: skip


def test_a_counter_is_found_by_its_name_on_the_page() -> None:
    page = "# TYPE jobs counter\njobs 3\n# TYPE done_total counter\ndone_total 4\n# TYPE up_total gauge\nup_total 1\n"
    assert scraped("jobs", "done_total", "up_total", page=page) == {"jobs": 3.0, "done_total": 4.0, "up_total": 1.0}
    assert scraped("jobs_total", "done", "up", page=page) == {}, "no name of the page"
    assert scraped("jobs", "jobs_total", page=f"{page}# TYPE jobs_total counter\njobs_total 5\n") == {
        "jobs": 3.0,
        "jobs_total": 5.0,
    }


def test_times_are_in_milliseconds_in_text_and_in_seconds_in_openmetrics() -> None:
    """The wrong parser gives no error, and a time in 1970 or far ahead."""
    assert scraped("old", now=1_796_000_001.0) == {"old": 5.0}
    assert isinstance(scraped("old", now=1_796_000_100.0)["old"], Unknown)
    openmetrics = "# TYPE old gauge\nold 5 1796000000.123\n# EOF\n"
    assert scraped("old", page=openmetrics, media_type=f"{OPENMETRICS}; version=1.0.0", now=1_796_000_001.0) == {"old": 5.0}
    stale = scraped("old", page=openmetrics, media_type=f"{OPENMETRICS}; version=1.0.0", now=1_796_000_100.0)
    assert stale["old"] == Unknown("its time is 100 s ago")


@pytest.mark.parametrize(
    ("page", "media_type"),
    [
        ("# TYPE x counter\nx_total 1\n", OPENMETRICS),  # without `# EOF` it was cut
        ("# TYPE x counter\nx_total NaN\n# EOF\n", OPENMETRICS),
        ("x{ 1\n", "text/plain"),
    ],
)
def test_a_malformed_page_is_none(page: str, media_type: str) -> None:
    with pytest.raises(SourceError, match="its page is malformed"):
        scraped("x_total", "x", page=page, media_type=media_type)


@pytest.mark.parametrize("path", ["a b", "x{y}", 'x{y=~"("}', 'x{y="z"'])
def test_a_path_that_is_no_metric_is_refused(path: str) -> None:
    with pytest.raises(SourceError, match="the path"):
        scraped(path)
