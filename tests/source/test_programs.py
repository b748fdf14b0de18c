"""Sources against the programs of Debian, with a restart in the middle: node exporter, monitoring plugins, a node's own metrics."""

from pathlib import Path

import pytest

from constraint_crdt.cli import main
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


@pytest.mark.parametrize(
    ("plugin", "flags", "variable"),
    [
        ("check_load", ["-w", "1000,1000,1000", "-c", "2000,2000,2000"], "p_load1"),
        ("check_disk", ["-w", "1%", "-c", "1%", "-p", "/"], "p_root"),
        ("check_dummy", ["2", "down for a test"], None),
    ],
)
async def test_monitoring_plugins(plugin: str, flags: list[str], variable: str | None) -> None:
    path = program(plugin, "monitoring-plugins-basic")
    table = {"name": "p", "kind": "command", "command": [path, *flags], "format": "nagios", "every": 0.2}
    async with node_with(table) as node:
        await soon(lambda: "p_code" in values_of(node))
        values = values_of(node)
    assert values["p_state"] == ("CRITICAL" if variable is None else "OK")
    assert values["p_code"] == (2.0 if variable is None else 0.0)
    assert variable is None or values[variable] > 0.0


async def test_a_plugin_that_does_not_know_is_unknown() -> None:
    path = program("check_dummy", "monitoring-plugins-basic")
    async with node_with({"name": "p", "kind": "command", "command": [path, "3", "no link"], "format": "nagios"}) as node:
        await node.add_constraint("well", when="p_code == 0.0")
        await soon(lambda: "UNKNOWN: " in str(why_unknown(node, "well")))


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
