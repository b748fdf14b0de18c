"""Sources against programs of Debian, over a restart: node exporter, monitoring plugins, logrotate; and a node's own metrics."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.cli import main
from constraint_crdt.http.server import ApiServer
from constraint_crdt.http.tokens import Tokens
from constraint_crdt.operations.operation import Right
from tests.source.counterparts import finding, free_port, node_with, program, running, soon, values_of, why_unknown

pytestmark = pytest.mark.processes


async def test_the_node_exporter_is_scraped_over_its_restart() -> None:
    exporter, port = program("prometheus-node-exporter", "prometheus-node-exporter"), free_port()
    command = [
        exporter,
        f"--web.listen-address=127.0.0.1:{port}",
        "--collector.disable-defaults",
        "--collector.loadavg",
        "--collector.cpu",
    ]
    table = {
        "name": "exporter", "kind": "prometheus", "url": f"http://127.0.0.1:{port}/metrics", "every": 0.1, "max_age": 1.0,
        "fields": {
            "load": "node_load1",
            "idle": {"path": 'node_cpu_seconds_total{mode="idle"}', "rate": True},
            "none": "node_of_no_name",
        },
    }  # fmt: skip
    async with node_with(table) as node:
        await node.add_constraint("calm", when="load < 10000.0")
        await node.add_constraint("odd", when="none > 0.0")
        with running(command, port):
            await soon(lambda: values_of(node).keys() == {"load", "idle"})
            assert values_of(node)["idle"] >= 0.0
            assert why_unknown(node, "odd") == "none is unknown to the source exporter: it is not in what the source sends"
        await soon(lambda: why_unknown(node, "calm"))
        assert why_unknown(node, "calm") == "load is not told: the source exporter is down (no answer: Connection refused)"
        assert finding(node).level == "warn"
        with running(command, port):
            await soon(lambda: "load" in values_of(node))
            await soon(lambda: finding(node).level == "ok")


@pytest.mark.long
async def test_a_node_reads_the_metrics_of_another_over_its_restart(tmp_path: Path) -> None:
    """With a token. The counters of the other begin again at 0, which is no rate below 0."""
    port, secret, token = free_port(), "r" * 16, tmp_path / "token"
    token.write_text(f"{secret}\n")

    @asynccontextmanager
    async def other(*, is_restarted: bool) -> AsyncIterator[Node]:
        async with (
            Node(name="b", transport=MemoryNetwork().transport()) as node,
            ApiServer(node, "127.0.0.1", port, tokens=Tokens([(Right.READ, secret)])),
        ):
            await node.add_constraint("x", when="v < 2.0")
            for _ in range(1 if is_restarted else 50):
                await node.measure({"v": 1.0})
            yield node

    table = {
        "name": "peer", "kind": "prometheus", "url": f"http://127.0.0.1:{port}/metrics", "every": 0.1, "max_age": 0.5,
        "token_file": str(token),
        "fields": {
            "constraints": "constraint_crdt_constraints",
            "judged": {"path": "constraint_crdt_satisfied_total", "rate": True},
        },
    }  # fmt: skip
    async with node_with(table) as node:
        await node.add_constraint("some", when="constraints > 0.0")
        await node.add_constraint("forward", when="judged >= 0.0")
        async with other(is_restarted=False):
            await soon(lambda: values_of(node).get("constraints") == 1.0 and "judged" in values_of(node))
        await soon(lambda: why_unknown(node, "some"))
        assert why_unknown(node, "some") == "constraints is not told: the source peer is down (no answer: Connection refused)"
        async with other(is_restarted=True):
            await soon(lambda: values_of(node).get("constraints") == 1.0 and "judged" in values_of(node))
            await soon(lambda: finding(node).level == "ok")
            assert values_of(node)["judged"] >= 0.0
        token.write_text("w" * 16)
        async with other(is_restarted=True):
            await soon(lambda: "peer (it answers 401)" in finding(node).what)


@pytest.mark.long(by_day=["check_dummy-flags3-None", "check_load-flags0-p_load1"])
@pytest.mark.parametrize(
    ("plugin", "flags", "variable"),
    [
        ("check_load", ["-w", "1000,1000,1000", "-c", "2000,2000,2000"], "p_load1"),
        ("check_disk", ["-w", "1%", "-c", "1%", "-p", "/"], "p_root"),
        ("check_ping", ["-H", "127.0.0.1", "-w", "1000,90%", "-c", "2000,100%", "-p", "1"], "p_rta"),
        ("check_dummy", ["2", "down for a test"], None),
    ],
)
async def test_monitoring_plugins(plugin: str, flags: list[str], variable: str | None, tmp_path: Path) -> None:
    """Each is taken away for a while, as at an upgrade of its package."""
    link = tmp_path / plugin
    link.symlink_to(program(plugin, "monitoring-plugins-basic"))
    table = {"name": "p", "kind": "command", "command": [str(link), *flags], "format": "nagios", "every": 0.2, "max_age": 1.0}
    async with node_with(table) as node:
        await node.add_constraint("well", when="p_code < 3.0")
        for is_back in (False, True):
            await soon(lambda: "p_code" in values_of(node))
            values = values_of(node)
            assert values["p_state"] == ("CRITICAL" if variable is None else "OK")
            assert values["p_code"] == (2.0 if variable is None else 0.0)
            assert variable is None or values[variable] > 0.0
            if not is_back:
                link.rename(tmp_path / "away")
                await soon(lambda: "cannot be run: No such file or directory" in str(why_unknown(node, "well")))
                (tmp_path / "away").rename(link)


async def test_a_host_that_does_not_answer_and_comes_back(tmp_path: Path) -> None:
    """As check_ping finds it: its network namespace is without a link in between."""
    away, ping = tmp_path / "away", program("check_ping", "monitoring-plugins-basic")
    flags = ["-H", "127.0.0.1", "-w", "999,90%", "-c", "999,100%", "-p", "1"]
    script = f'if [ -e {away} ]; then exec unshare --net "$@"; fi; exec "$@"'
    table = {
        "name": "host", "kind": "command", "command": ["sh", "-c", script, "sh", ping, *flags], "format": "nagios", "every": 0.2,
        "fields": {"ms": {"path": "rta", "scale": 1000.0}, "state": "state", "up": {"path": "code", "scale": -1, "offset": 1}},
    }  # fmt: skip
    async with node_with(table) as node:
        await node.add_constraint("near", when="ms < 500.0")
        await soon(lambda: values_of(node).get("state") == "OK" and 0.0 < values_of(node)["ms"] < 500.0)
        away.touch()
        await soon(lambda: values_of(node).get("state") == "CRITICAL" and values_of(node)["up"] == -1.0)
        assert why_unknown(node, "near") == "ms is unknown to the source host: it is not in what the source sends"
        away.unlink()
        await soon(lambda: values_of(node).get("state") == "OK" and values_of(node)["up"] == 1.0)


async def test_a_plugin_that_does_not_know_is_unknown() -> None:
    path = program("check_dummy", "monitoring-plugins-basic")
    async with node_with({"name": "p", "kind": "command", "command": [path, "3", "no link"], "format": "nagios"}) as node:
        await node.add_constraint("well", when="p_code == 0.0")
        await soon(lambda: "UNKNOWN: " in str(why_unknown(node, "well")))


@pytest.mark.parametrize("way", ["create", "copytruncate"])
async def test_a_log_is_read_over_its_rotation(way: str, tmp_path: Path) -> None:
    """By Debian's logrotate, which moves the file or cuts it; and over a time in which its writer is down and the file is gone."""
    logrotate, log, config = program("logrotate", "logrotate"), tmp_path / "press.jsonl", tmp_path / "logrotate.conf"
    config.write_text(
        f"{log} {{\n rotate 2\n {way}\n missingok\n su root root\n}}\n" if os.geteuid() == 0 else f"{log} {{ {way} }}\n"
    )

    async def read(value: float) -> None:
        """Write a value again and again until the node has it."""

        def has_it() -> bool:
            with log.open("a") as file:
                file.write(f'{{"pressure": {{"bar": {value}}}}}\n')
            return values_of(node) == {"press_bar": value}

        await soon(has_it)

    async def rotate() -> None:
        line = [logrotate, "--force", "--state", str(tmp_path / "state"), str(config)]
        done = await asyncio.to_thread(subprocess.run, line, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    table = {
        "name": "press", "kind": "file", "file": str(log), "every": 0.05, "max_age": 0.5, "fields": {"press_bar": "pressure.bar"}
    }  # fmt: skip
    async with node_with(table) as node:
        await node.add_constraint("low", when="press_bar < 9.0")
        for value in (2.0, 3.0, 4.0):
            await read(value)
            await rotate()
            assert (tmp_path / "press.jsonl.1").exists()
        log.unlink(missing_ok=True)
        await soon(lambda: "press_bar is not told: the source press is down" in str(why_unknown(node, "low")))
        await read(5.0)
        await soon(lambda: finding(node).level == "ok")


def test_what_a_source_says_is_shown_before_it_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        '[[source]]\nname = "good"\nkind = "command"\ncommand = ["echo", \'{"a": 1.5, "b": null}\']\n'
        '[[source]]\nname = "bad"\nkind = "command"\ncommand = ["/no/program"]\n'
    )
    assert main(["source", "try", str(file), "--name", "good"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "good (command): 1 messages, 0 values dropped",
        "variable  value",
        "good_a    1.5",
        "good_b    unknown: it says null",
    ]
    assert main(["source", "try", str(file)]) == 1
    assert "bad (command): 0 messages, 0 values dropped; down: /no/program cannot be run" in capsys.readouterr().out
    assert main(["source", "try", str(file), "--name", "x"]) == 2
    assert "has no source 'x': there is good, bad" in capsys.readouterr().err


@pytest.mark.long
def test_a_wrong_path_is_shown_with_those_that_are_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, growing = tmp_path / "node.toml", tmp_path / "growing"
    growing.write_text('{"line": {"speed": 1.5, "mode": "auto"}}\nno\n{"line": {"speed": 2.5, "mode": "auto"}}\n')
    table = f'[[source]]\nname = "press"\nkind = "file"\nfile = "{growing}"\n'
    file.write_text(table + 'fields = { speed = "line.speed", mode = "line.mod" }\n')
    assert main(["source", "try", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "press (file): 1 messages, 0 values dropped",
        "there is no mode at line.mod; the last message has line.speed, line.mode",
        "variable  value",
        "speed     2.5",
    ]
    file.write_text(table + 'every = 0.1\nfields = { speed = "speed" }\n')
    assert main(["source", "try", str(file), "--for", "1s"]) == 1
    out = capsys.readouterr().out
    assert "down: no path of `fields` is in what it sends\nthere is no speed at speed; the last message has line.speed" in out
    command = '[[source]]\nname = "c"\nkind = "command"\ncommand = ["echo", "{\\"a\\": 1}"]\nfields = { x = "b" }\n'
    file.write_text(command)
    assert main(["source", "try", str(file), "--for", "2s"]) == 1
    assert "there is no x at b; the last message has a" in capsys.readouterr().out
