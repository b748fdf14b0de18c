"""What a notebook shows: tables with every text escaped."""

from collections.abc import Sequence
from html.parser import HTMLParser

from constraint_crdt import ConstraintState, Evaluation, MemoryNetwork, Node, SyncNode, Verdict
from constraint_crdt.model import MOST_ROWS, html_table
from constraint_crdt.simulation import Scenario, ScenarioRun, Simulation
from tests.runtime.fleet import QUICK

HARMFUL = '<script>alert("&")</script>'


class Tables(HTMLParser):
    """The texts of all cells, and the tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, _: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data

    def value(self, name: str) -> str:
        """The cell after the cell with this name."""
        return self.cells[self.cells.index(name) + 1]


PLAIN = {"table", "caption", "thead", "tbody", "tr", "th", "td"}


def state() -> ConstraintState:
    made = ConstraintState()
    made.constraints.add(HARMFUL, node="a", when="t < 85.0", about="<b>hot</b>")
    made.metrics.record("a", 3, 1, constraint=HARMFUL)
    return made


def test_a_state_and_its_constraints_are_tables_with_escaped_texts() -> None:
    shown = Tables(state()._repr_html_())
    assert shown.tags == PLAIN
    assert (shown.value("satisfied"), shown.value("violated"), shown.value("satisfaction rate")) == ("3", "1", "0.75")
    constraints = Tables(state().constraints._repr_html_())
    assert constraints.tags == PLAIN
    assert constraints.cells == ["id", "severity", "when", "about", HARMFUL, "warning", "t < 85.0", "<b>hot</b>"]


def test_an_evaluation_is_a_table() -> None:
    shown = Tables(Evaluation(HARMFUL, Verdict.UNKNOWN, "<i>x</i> is not measured")._repr_html_())
    assert shown.tags <= PLAIN
    assert (shown.value("constraint"), shown.value("verdict"), shown.value("state")) == (HARMFUL, "unknown", "unknown")
    assert shown.value("reason") == "<i>x</i> is not measured"


async def test_a_node_is_a_table_before_its_start_while_it_runs_and_after_its_stop() -> None:
    node = Node(name=HARMFUL, settings=QUICK, transport=MemoryNetwork().transport())
    lives = [Tables(node._repr_html_()).value("life")]
    async with node:
        await node.add_constraint("cool", about=HARMFUL)
        shown = Tables(node._repr_html_())
        lives.append(shown.value("life"))
        assert (shown.tags, shown.value("node"), shown.value("cool")) == (PLAIN, HARMFUL, "warning")
        assert repr(node) == f"Node({HARMFUL!r}, fleet='default', running)"
    assert [*lives, Tables(node._repr_html_()).value("life")] == ["not started", "running", "stopped"]


def test_a_sync_node_is_the_table_of_its_node() -> None:
    node = SyncNode(name="a", settings=QUICK, transport=MemoryNetwork().transport())
    assert Tables(node._repr_html_()).value("life") == "not started"
    with node:
        node.add_constraint("cool")
        assert Tables(node._repr_html_()).value("life") == "running"
    assert "cool" in Tables(node._repr_html_()).cells


def test_the_results_of_simulations_are_tables() -> None:
    simulation = Simulation(4, seed=7)
    simulation.record_satisfied(0)
    assert Tables(simulation._repr_html_()).value("converged") == "False"
    simulation.run_until_converged()
    shown = Tables(simulation._repr_html_())
    assert (shown.value("converged"), shown.value("seed"), shown.value("nodes")) == ("True", "7", "4")
    assert Tables(simulation.stats._repr_html_()).value("exchanges") == str(simulation.stats.exchanges)
    run = ScenarioRun(Scenario(nodes=3, seed=1))
    list(run.samples())
    report = run.report()
    assert Tables(report._repr_html_()).value("settled") == str(report.settled)


def test_a_long_table_is_cut_and_says_so() -> None:
    text = html_table("Numbers", ["number"], ([number] for number in range(MOST_ROWS + 5)), MOST_ROWS + 5)
    assert text.endswith("<p>and 5 more</p>")
    assert len(Tables(text).cells) == 1 + MOST_ROWS
