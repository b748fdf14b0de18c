"""What is in `deploy/` fits what a node exports, and is what the programs that read it take."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.cli import main
from constraint_crdt.cli.arguments import DEPLOYED, make_parser
from constraint_crdt.http import make_app
from constraint_crdt.runtime.settings import NodeSettings, load_settings

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
RULES = DEPLOY / "constraint-crdt.rules.yml"
DASHBOARD = DEPLOY / "grafana-dashboard.json"
PAGE = DEPLOY.parent / "docs" / "how-to" / "deploy.md"
METRIC = re.compile(r"\b(?:constraint_crdt|process)_[a-z0-9_]+")

FIRING = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {{series: 'constraint_crdt_writes_refused{{instance="a"}}', values: '0 0 1x20'}}
      - {{series: 'constraint_crdt_writes_refused{{instance="b"}}', values: '0x20'}}
      - {{series: 'constraint_crdt_alarms_total{{instance="a",alarm="divergence"}}', values: '0 0 1x20'}}
      - {{series: 'constraint_crdt_alarms_total{{instance="b",alarm="divergence"}}', values: '3x22'}}
      - {{series: 'constraint_crdt_agreeing_nodes{{instance="a"}}', values: '4x40'}}
      - {{series: 'constraint_crdt_live_peers{{instance="a"}}', values: '4x40'}}
      - {{series: 'constraint_crdt_agreeing_nodes{{instance="b"}}', values: '5x40'}}
      - {{series: 'constraint_crdt_live_peers{{instance="b"}}', values: '4x40'}}
      - {{series: 'constraint_crdt_exchanges_begun_total{{instance="a"}}', values: '0+10x80'}}
      - {{series: 'constraint_crdt_exchanges_failed_total{{instance="a"}}', values: '0+8x80'}}
    alert_rule_test:
      - eval_time: 3m
        alertname: ConstraintNodeRefusesWrites
        exp_alerts:
          - exp_labels: {{severity: critical, instance: a}}
            exp_annotations:
              summary: the disk of a takes no writes
              description: "`constraint-crdt status` there says why. It answers and gossips meanwhile, and recovers by itself."
      - eval_time: 30s
        alertname: ConstraintNodeRefusesWrites
        exp_alerts: []
      - eval_time: 3m
        alertname: ConstraintStateDiverged
        exp_alerts:
          - exp_labels: {{severity: critical, instance: a, alarm: divergence}}
            exp_annotations:
              summary: a met a peer with the same clock and another state
              description: One of the two is damaged. The nodes repair that between them; look at memory and disk of both.
      - eval_time: 6m
        alertname: ConstraintDefinitionsDiffer
        exp_alerts:
          - exp_labels: {{severity: warning, instance: a}}
            exp_annotations:
              summary: not all live nodes are known to enforce what a enforces
              description: "`constraint-crdt coverage` there names the nodes that have not heard."
      - eval_time: 15m
        alertname: ConstraintExchangesFail
        exp_alerts:
          - exp_labels: {{severity: warning, instance: a}}
            exp_annotations:
              summary: 80% of the exchanges of a fail
              description: "Peers are there and do not answer in time: look at the network, or at request_timeout."
"""
"""A few of the rules on series that are made up: those of `a` are in trouble, those of `b` are not."""


def promtool(*arguments: str | Path) -> None:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: it is in Debian's package prometheus")
    done = subprocess.run([found, *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
async def exported(tmp_path: Path) -> set[str]:
    """The names of all samples of a node that has everything."""
    settings = NodeSettings(name="forge", store=str(tmp_path / "a.db"))
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
        text, _ = make_app(node).state.metrics().text("")
        families = list(text_string_to_metric_families(text.decode()))
    # Without any request or peer a few families have no sample yet: their name is that of the one they will have.
    named = {f"{each.name}_total" if each.type == "counter" else each.name for each in families if not each.samples}
    return named | {sample.name for each in families for sample in each.samples}


def expressions(found: object) -> Iterator[str]:
    """Every query in a dashboard, those of its variables too."""
    if isinstance(found, dict):
        yield from (found[key] for key in ("expr", "query") if isinstance(found.get(key), str) and found[key] != "prometheus")
        found = list(found.values())
    if isinstance(found, list):
        for each in found:
            yield from expressions(each)


@pytest.mark.slow
async def test_each_metric_of_the_alert_rules_is_exported(exported: set[str]) -> None:
    used = {name for line in RULES.read_text().splitlines() if "expr:" in line for name in METRIC.findall(line)}
    assert len(used) >= 12
    assert used <= exported


@pytest.mark.slow
async def test_each_metric_of_the_dashboard_is_exported(exported: set[str]) -> None:
    used = {name for query in expressions(json.loads(DASHBOARD.read_text())) for name in METRIC.findall(query)}
    assert len(used) >= 40
    assert used <= exported


@pytest.mark.slow
async def test_the_page_on_metrics_names_each_and_no_other(exported: set[str]) -> None:
    page = (DEPLOY.parent / "docs" / "reference" / "metrics.md").read_text()
    told = {name for line in page.splitlines() if line.startswith("| `") for name in re.findall(r"`(constraint_crdt_\w+)", line)}
    plain = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported if name.startswith("constraint_crdt_")}
    assert told == plain


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 36
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies on another one"
        assert all(x < 24 for x, _ in cells)
        taken |= cells
        assert panel["type"] == "row" or panel["description"]
        assert all(target["expr"] for target in panel.get("targets", ()))


@pytest.mark.processes
def test_promtool_takes_the_alert_rules() -> None:
    promtool("check", "rules", RULES)


@pytest.mark.long
@pytest.mark.processes
def test_alerts_fire_for_what_is_wrong_and_for_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "firing.yml"
    file.write_text(FIRING.format(rules=RULES))
    promtool("test", "rules", file)


@pytest.mark.processes
def test_promtool_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """As alert rules, since that is what promtool reads; what only Grafana knows is put in as Grafana would."""
    queries = [query for query in expressions(json.loads(DASHBOARD.read_text())) if not query.startswith("label_values(")]
    for variable, value in (("$__rate_interval", "1m"), ("$__range", "1h"), ("$job", ".*"), ("$instance", ".*")):
        queries = [query.replace(variable, value) for query in queries]
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    promtool("check", "rules", file)


def test_the_example_settings_are_those_of_a_node() -> None:
    file = DEPLOY / "node.example.toml"
    assert load_settings({}, {}, file).fleet == "factory-1"
    shown = re.sub(r"^# (?=[a-z_]+ = )", "", file.read_text(), flags=re.MULTILINE)
    every = tomllib.loads(shown)
    assert set(every) == set(NodeSettings.__struct_fields__)
    defaults = NodeSettings()
    for key in set(every) - set(tomllib.loads(file.read_text())):
        default = getattr(defaults, key)
        assert every[key] == (list(default) if isinstance(default, tuple) else default), f"{key} is not shown with its default"


@pytest.mark.slow
def test_the_unit_starts_a_command_that_there_is() -> None:
    unit = (DEPLOY / "constraint-crdt.service").read_text()
    started = re.search(r"^ExecStart=/usr/bin/env constraint-crdt (.*)$", unit, re.MULTILINE)
    assert started is not None
    found = make_parser().parse_args(shlex.split(started[1]))
    assert (found.command, found.config) == ("node", "/etc/constraint-crdt/node.toml")


# --- containers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_manifests_are_what_kubernetes_takes() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    assert [each["kind"] for each in documents] == ["Service", "NetworkPolicy", "PodDisruptionBudget", "StatefulSet"]
    for each in documents:
        kubernetes_validate.validate(each, "1.30", strict=True)


@pytest.mark.slow
def test_the_settings_of_the_containers_are_settings_of_a_node() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    (stateful,) = (each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()) if each["kind"] == "StatefulSet")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    pod = {each["name"]: each.get("value", "pod-0") for each in container["env"]}
    for environment in (pod, *(each["environment"] for each in services.values())):
        settings = load_settings({}, environment, None)
        assert settings.insecure
        assert settings.connect
        assert settings.listen == ("tcp/0.0.0.0:7447",)
    commands = [container["livenessProbe"]["exec"]["command"], container["readinessProbe"]["exec"]["command"]]
    commands.append(json.loads(re.search(r"HEALTHCHECK.* CMD (.*)", (DEPLOY / "Dockerfile").read_text())[1]))  # type: ignore[index]
    for program, *words in commands:
        assert program == "constraint-crdt"
        make_parser().parse_args(words)


@pytest.mark.parametrize("what", DEPLOYED)
def test_each_file_is_printed(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", what]) == 0
    assert capsys.readouterr().out == (DEPLOY / DEPLOYED[what]).read_text()


@pytest.mark.slow
def test_the_page_names_what_the_files_have(capsys: pytest.CaptureFixture[str]) -> None:
    """The commands that need an engine or systemd are compared with the files that these read."""
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    printed = [shlex.split(line, comments=True)[2] for line in lines if line.startswith("constraint-crdt config ")]
    assert {*printed, "dockerfile", "compose", "man"} == set(DEPLOYED)
    for what in printed:
        assert main(["config", what]) == 0
        assert capsys.readouterr().out == (DEPLOY / DEPLOYED[what]).read_text()
    [run] = [shlex.split(line) for line in lines if line.startswith("docker run ")]
    volume = next(line.partition(" ")[2] for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line.startswith("VOLUME "))
    assert f"state:{volume}" in run
    make_parser().parse_args(run[run.index("constraint-crdt") + 1 :])
    (stateful,) = (each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()) if each["kind"] == "StatefulSet")
    assert [line.split()[2] for line in lines if line.startswith("kubectl exec ")] == [f"{stateful['metadata']['name']}-0"]
    units = {word for line in lines if line.startswith("systemctl ") for word in line.split()[2:] if not word.startswith("-")}
    assert units == {(DEPLOY / DEPLOYED["systemd"]).stem}


def test_an_installed_wheel_has_all_pages() -> None:
    settings = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    shared = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    for page in (DEPLOY.parent / "docs").glob("**/*.md"):
        name = page.relative_to(DEPLOY.parent)
        place = next(str(each) for each in (name, *name.parents) if str(each) in shared)
        assert shared[place] == f"share/doc/constraint-crdt/{Path(place).relative_to('docs')}"


def test_a_file_is_in_the_package_and_printed_by_name() -> None:
    assert {each.name for each in DEPLOY.iterdir()} == set(DEPLOYED.values())
