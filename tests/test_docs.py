"""The README and the docs: their Python blocks run, in order and in one namespace, the flags of their command lines exist, their
links lead to files, and the pages and headings that the source cites exist.
"""

import asyncio
import inspect
import re
import shlex
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from collections.abc import Iterator
from pathlib import Path

import pytest

from constraint_crdt.cli import arguments
from constraint_crdt.expression import compile_expression

ROOT = Path(__file__).parent.parent
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))] if "```python\n" in page.read_text()]
LINKED = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]
LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")
SOURCES = [*sorted((ROOT / "src").glob("**/*.py")), *sorted((ROOT / "tests").glob("**/*.py"))]
CITATION = re.compile(r"\b(docs/[\w-]+/[\w/-]+\.md)(?:#([\w-]+))?")
HEADING = re.compile(r"^#{1,4} (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.long) if page.name == "testing.md" else page for page in PAGES],  # it checks laws
    ids=lambda page: page.name,
)
def test_the_python_on_a_page_runs(page: Path) -> None:
    namespace: dict[str, object] = {}
    text = page.read_text()

    async def run() -> None:
        for block in BLOCK.finditer(text):
            if "asyncio.run(" in block[1]:  # a whole program, with a loop of its own
                await asyncio.to_thread(exec, block[1], namespace)
                continue
            code = compile(block[1], page.name, "exec", flags=PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, namespace)
            if inspect.isawaitable(result):
                await result

    asyncio.run(run())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_with_a_loop_can_be_pasted_into_the_interpreter(page: Path) -> None:
    """A blank line ends a statement in `python -m asyncio`: the lines after it would be out of place."""
    blocks = [block[1] for block in BLOCK.finditer(page.read_text()) if "\nasync with" in block[1]]
    assert not [block for block in blocks if re.search(r"\n\n[ \t]", block)]


FENCED = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
SAID = re.compile(r"constraint-crdt( \w+)?: |.* \.\.\.$")
"""What a command says, and a line that is cut short."""

FILE = re.compile(r"\b(?:benchmarks|deploy|tools)/[\w./-]+\.\w+")


def command_lines(page: str) -> Iterator[list[str]]:
    """The words of each command line of a page, units of systemd included; without what a pipe or a redirection leads to."""
    for language, text in FENCED.findall(page):
        for given in text.replace("\\\n", " ").splitlines() if language in ("", "sh", "console", "ini") else ():
            line = re.sub(r"^ *(Exec\w+=)?(\$ )?(/usr/bin/|\.venv/bin/)?", "", given)
            if line.startswith("constraint-crdt ") and not SAID.match(line):
                words = shlex.shlex(line, posix=True, punctuation_chars="|><&;")
                words.whitespace_split = True
                found = list(words)
                yield found[: next((at for at, word in enumerate(found) if word in ("|", ">", "<", "&&", ";", ">>")), len(found))]


@pytest.mark.slow
def test_the_command_lines_of_the_pages_can_be_used(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Their flags exist, and what they add to a node can be judged."""
    parser, count = arguments.make_parser(), 0
    monkeypatch.setattr(arguments, "make_parser", lambda: parser)
    for page in LINKED:
        for _, *words in command_lines(page.read_text()):
            try:
                given = arguments.parse(words)
            except SystemExit:
                pytest.fail(f"{page.relative_to(ROOT)}: {shlex.join(words)}: {capsys.readouterr().err}")
            if words[0] == "add" and "when" in given:
                compile_expression(given.when)
            count += 1
    assert count > 100


@pytest.mark.slow
def test_the_programs_that_the_pages_run_are_there() -> None:
    named = {(page.name, name) for page in LINKED if page.name != "CHANGELOG.md" for name in FILE.findall(page.read_text())}
    assert len(named) > 10
    assert [each for each in named if not (ROOT / each[1]).exists()] == []


def test_each_link_of_a_page_leads_to_a_file() -> None:
    """The strict build of the site checks links within docs/ only, and needs the extra `docs`."""
    links = [(page, link) for page in LINKED for link in LINK.findall(page.read_text())]
    assert len(links) > 100
    assert [f"{page.relative_to(ROOT)}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub make them."""
    titles = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in HEADING.findall(CODE.sub("", page)))
    return {title.replace(" ", "-") for title in titles}


def broken_citations(text: str) -> list[str]:
    """The citations of a page that does not exist, or of a heading that is not on the page."""
    cited = [(citation[0], ROOT / citation[1], citation[2]) for citation in CITATION.finditer(text)]
    return [name for name, page, anchor in cited if not page.is_file() or (anchor and anchor not in anchors(page.read_text()))]


@pytest.mark.slow
def test_each_page_that_a_source_cites_exists() -> None:
    broken = {source.relative_to(ROOT): broken_citations(source.read_text()) for source in SOURCES}
    assert {str(source): citations for source, citations in broken.items() if citations} == {}


def test_a_broken_citation_is_found() -> None:
    design = "docs/" + "design"  # in two parts: this file is a source too
    assert broken_citations(f"{design}/state.md#lifetimes, {design}/state.md") == []
    assert broken_citations(f"{design}/state.md#no-such-heading") == [f"{design}/state.md#no-such-heading"]
    assert broken_citations(f"{design}/no-such-page.md") == [f"{design}/no-such-page.md"]
