"""The files, folders, constants and modules that the pages name exist, and the modules that the source names; the map of the house
and the table of changes are true; the description on an index page has no link into the repository.

Files are named from the root of the checkout or of the package. A constant stands behind its file: `crdt/limits.py` `ID_BYTES`.
"""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest

from constraint_crdt.crdt import limits
from tests.test_docs import LINK, LINKED, ROOT, SOURCES
from tests.test_layers import LAYERS, PURE

PACKAGE = ROOT / "src" / "constraint_crdt"
CHANGES = "## Ten changes and where they go\n"
FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
QUOTED = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w./-]+\.(?:py|js|css|html)|(?:src|tests|docs|tools|benchmarks|deploy)/[\w./-]+")
FOLDER = re.compile(r"[a-z_]+/(?:[a-z_]+/)*")
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*")
MODULE = re.compile(r"constraint_crdt(?:\.[a-z][a-z_]*)+")
IN_SOURCE = re.compile(r"`(?:constraint_crdt\.)?([a-z_]+\.[a-z_]+|[a-z_]+(?:/[a-z_]+)+\.py)`")
STANDARD = {"http.client"}
"""Modules of Python that look as if they were in a package of this project."""


def test_the_description_on_an_index_page_has_no_links_into_the_repository() -> None:
    """As the build makes it: the README after the substitutions of pyproject.toml."""
    text = (ROOT / "README.md").read_text()
    assert LINK.search(text), "the README leads to pages of docs/"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for substitution in settings["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    assert not re.findall(r"\]\((?!https://)[^)]*\)", text)
    assert "Two nodes in five minutes" in text
    assert "[CEL](https://cel.dev)" in text


def quoted(page: Path) -> Iterator[tuple[str, str]]:
    """What stands in backquotes outside of code blocks, each with the text between it and the one before."""
    text, before = FENCED.sub("", page.read_text()), 0
    for found in QUOTED.finditer(text):
        yield found[1], text[before : found.start()]
        before = found.end()


def file_named(name: str) -> Path | None:
    """The file or folder of a name, from the root of the checkout, the package or the dashboard."""
    return next((base / name for base in (ROOT, PACKAGE, PACKAGE / "dashboard" / "static") if (base / name).exists()), None)


def constants_of(file: Path) -> set[str]:
    """The names assigned at the top level of a file."""
    return set(re.findall(r"^(?:export )?(?:const )?(\w+)(?:: [^=\n]+)? = ", file.read_text(), re.MULTILINE))


def is_module(name: str) -> bool:
    path = PACKAGE.parent / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_function(name: str) -> bool:
    """True for a public function of a module, such as `constraint_crdt.exchange`."""
    module, _, function = name.rpartition(".")
    return is_module(module) and callable(getattr(import_module(module), function, None))


def with_files(page: Path) -> Iterator[tuple[str, Path | None]]:
    """What stands in backquotes, a constant with the file that it stands behind."""
    file: Path | None = None
    for name, between in quoted(page):
        if FILE.fullmatch(name) or FOLDER.fullmatch(name):
            file = None if "SUBJECT" in name or "TYPE" in name else file_named(name)
            yield name, None
        elif CONSTANT.fullmatch(name) and between in (" ", ", "):
            yield name, file
        else:
            file = None
            yield name, None


def missing_names(page: Path) -> list[str]:
    missing: list[str] = []
    for name, file in with_files(page):
        if file is not None:
            if file.is_file() and name not in constants_of(file):
                missing.append(f"{name} in {file.relative_to(ROOT)}")
        elif FILE.fullmatch(name) or FOLDER.fullmatch(name):
            if file_named(name) is None and "SUBJECT" not in name and "TYPE" not in name:
                missing.append(name)
        elif MODULE.fullmatch(name) and not is_module(name) and not is_function(name):
            missing.append(name)
    return missing


@pytest.mark.slow
def test_the_files_and_constants_that_a_page_names_exist() -> None:
    missing = {page.relative_to(ROOT): missing_names(page) for page in LINKED if page.name != "CHANGELOG.md"}
    assert {str(page): names for page, names in missing.items() if names} == {}


def test_a_missing_file_or_constant_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`crdt/limits.py` `ID_BYTES`, `NO_BYTES`; `core/limits.py` `ID_BYTES`, `core/`, `constraint_crdt.core.limits`")
    assert missing_names(page) == [
        "NO_BYTES in src/constraint_crdt/crdt/limits.py",
        "core/limits.py",
        "core/",
        "constraint_crdt.core.limits",
    ]


LIMITS_PAGE = ROOT / "docs" / "reference" / "limits.md"
A_LIMIT = re.compile(r"(?:LONGEST|MAX|MOST)(?:_[A-Z0-9]+)*")
INTERNAL = {
    "alerts/delivery.py LONGEST_PAUSE",  # between two attempts
    "alerts/delivery.py MOST_NAMED",  # named in a message
    "cli/constraints.py LONGEST_REQUEST",  # a longer wait takes several requests
    "cli/files.py MOST_STRANGERS",  # named in a sentence
    "cli/guard.py LONGEST_ASK",  # the same
    "cli/guard.py LONGEST_POLL",  # a longer sleep is several
    "cli/output.py LONGEST_WORD",  # wrapping in a table
    "cli/trials.py MOST_PATHS",  # named in a sentence
    "client/__init__.py LONGEST_PAUSE",  # between two attempts
    "client/__init__.py MOST_IDLE",  # a pool
    "expression/syntax.py MOST_BRACKETS",  # a text with more is read by the library
    "expression/syntax.py MOST_COMPARISONS",  # the same
    "expression/syntax.py MOST_VALUES",  # the same
    "http/endpoint.py LONGEST_PAUSE",  # between two computed responses
    "http/security.py MOST_LOGGED",  # addresses whose last line of the log is remembered
    "insight/diagnosis.py MOST_UNTOLD",  # names compared for a hint
    "operations/alerts.py MOST_REASONS",  # named in a report
    "operations/constraints.py MOST_VIOLATED",  # named in a report
    "operations/evidence.py MOST_TOLD",  # named in a report
    "operations/nodes.py MOST_LINKS",  # named in a report
    "operations/nodes.py MOST_NAMED",  # named in a line
    "operations/nodes.py MOST_WORST",  # named in a report
    "operations/operation.py MOST_COMPARED",  # names compared for a hint
    "operations/rules.py MOST_NAMED",  # named in a report
    "operations/variables.py MOST_CHANGED",  # named in a report
    "protocol/peers.py LONGEST_REST",  # between two rounds
    "protocol/peers.py LONGEST_REST_OF_MANY",  # the same
    "protocol/peers.py LONGEST_TURN",  # of rounds
    "protocol/peers.py LONGEST_WAY",  # a guess at the length of a burst
    "protocol/peers.py MOST_DOUBLINGS",  # of a timeout, whose limit is on the page
    "protocol/peers.py MOST_GROWTH_OF_BURST",  # from one burst to the next
    "protocol/peers.py MOST_LENGTHENED",  # pauses between rounds
    "protocol/sites.py MOST_AWAY",  # a share of rounds
    "protocol/transfers.py MOST_UNITS",  # slices of a message, which are longer then
    "runtime/backtest.py MOST_BESIDE",  # a cache
    "runtime/exchange_loop.py LONGEST_BACKOFF",  # between two attempts
    "runtime/maintenance.py LONGEST_AT_REST",  # between two rounds
    "simulation/chaos.py MOST_COPIES",  # of the simulator alone, as all below in simulation/ and testing/
    "simulation/chaos.py MOST_OFFSET_NS",
    "simulation/chaos.py MOST_SITES",
    "simulation/histories.py MAX_SKEW",
    "simulation/histories.py MOST_REPLAYS",
    "simulation/plan.py MOST_ROWS",
    "simulation/plan.py MOST_TRIES",
    "simulation/recorder.py LONGEST_FRAME",  # of a damaged recording
    "sources/pushed.py LONGEST_PAUSE",  # between two attempts
    "testing/laws.py LONGEST_ROW",
    "testing/laws.py MOST_FORGED",
    "transport/zenoh.py LONGEST_HANDOVER",  # between two sessions
    "transport/zenoh.py MOST_TRIES",  # for a port at the start
    "transport/zenoh_session.py MOST_FOREIGN",  # named in a line
    "types/alerts.py MOST_SEEN",  # that a cell overrules
    "types/decay.py MAX_SKEW",  # the default for programs; that of a node, `max_skew`, is on the page
    "types/parameters.py MOST_BOUND",  # a cache
    "types/variables.py MOST_EXPONENT",  # of the wire form of a number
}
"""Constants with the name of a limit that no user meets: they bound a sentence, a hint, a cache, a pause, a guess or a test."""


def limits_named(page: Path) -> set[str]:
    """The constants that a page names with their file, and the fields of `Limits`."""
    named = {f"{file.relative_to(PACKAGE)} {name}" for name, file in with_files(page) if file is not None}
    return named | {name for name, _ in quoted(page) if name.startswith("Limits.")}


@pytest.mark.slow
def test_the_page_of_limits_has_all_limits() -> None:
    constants = {path: constants_of(path) for path in sources()}
    there = {
        f"{path.relative_to(PACKAGE)} {name}" for path, names in constants.items() for name in names if A_LIMIT.fullmatch(name)
    }
    there |= {f"crdt/limits.py {name}" for name, value in vars(limits).items() if name.isupper() and isinstance(value, int | float)}
    there |= {f"Limits.{field}" for field in limits.Limits.__struct_fields__}
    named = limits_named(LIMITS_PAGE)
    assert there - named - INTERNAL == set(), "a limit is to be on docs/reference/limits.md, or in INTERNAL if no user meets it"
    assert INTERNAL & named == set()
    assert INTERNAL - there == set()


def test_a_limit_that_a_page_names_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`Limits.cells`; `crdt/limits.py` `ID_BYTES`, `CELL_BYTES`; `MAX_COUNT`")
    assert limits_named(page) == {"Limits.cells", "crdt/limits.py ID_BYTES", "crdt/limits.py CELL_BYTES"}


PACKAGES = {path.name for path in PACKAGE.iterdir() if path.is_dir()}


def missing_modules(text: str) -> list[str]:
    """The modules in backquotes that do not exist, as `package.module` or `package/module.py`."""
    return [
        name
        for name in IN_SOURCE.findall(text)
        if name not in STANDARD
        and not (ROOT / "tests" / name).is_file()
        and (
            file_named(name) is None if "/" in name else name.split(".")[0] in PACKAGES and not is_module(f"constraint_crdt.{name}")
        )
    ]


@pytest.mark.slow
def test_the_modules_that_a_source_names_exist() -> None:
    missing = {source.relative_to(ROOT): missing_modules(source.read_text()) for source in SOURCES if source != Path(__file__)}
    assert {str(source): names for source, names in missing.items() if names} == {}


def test_a_missing_module_is_noticed() -> None:
    text = "`crdt.clock`, `crdt.hybrid_time`, `types/decay.py`, `types/aging.py`, `laws/model.py`, `http.client`, `node.start`"
    assert missing_modules(text) == ["crdt.hybrid_time", "types/aging.py"]


def rows_of(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    lines = page.read_text().split(heading, 1)[1].splitlines()
    from_table = dropwhile(lambda line: not line.startswith("|"), lines)
    table = list(takewhile(lambda line: line.startswith("|"), from_table))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


@pytest.mark.parametrize(("page", "heading"), [("CONTRIBUTING.md", "## The house\n"), ("docs/design/layers.md", "## Packages\n")])
def test_the_map_of_the_house_is_the_layers(page: str, heading: str) -> None:
    """As test_layers.py enforces them."""
    rows = rows_of(ROOT / page, heading)
    named = [{name.removesuffix("/").removesuffix(".py") for name in QUOTED.findall(packages)} for packages, _, _ in rows]
    assert named == [set(packages) for packages in LAYERS]
    for (packages, _, pure), names in zip(rows, named, strict=True):
        told = names if pure == "yes" else {name.removesuffix("/") for name in QUOTED.findall(pure)}
        assert told == names & PURE, packages


def test_the_house_has_what_the_map_names() -> None:
    there = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__"} == {package for packages in LAYERS for package in packages}


CHANGE_ROWS = rows_of(ROOT / "CONTRIBUTING.md", CHANGES)


def test_there_are_ten_changes() -> None:
    assert len(CHANGE_ROWS) == 10
    assert sum(" in " in example for _, _, example in CHANGE_ROWS) >= 6


@cache
def sources() -> dict[Path, str]:
    return {path: path.read_text() for path in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("row", [row for row in CHANGE_ROWS if " in " in row[2]], ids=lambda row: row[0])
def test_the_example_of_a_change_is_in_the_named_files_only(row: list[str]) -> None:
    word, *files = QUOTED.findall(row[2])
    holding = [path for path, text in sources().items() if word in text and re.search(rf"\b{word}\b", text)]
    assert sorted(str(path.relative_to(PACKAGE)) for path in holding) == sorted(files)


GLOSSARY = ROOT / "docs" / "design" / "glossary.md"
IDENTIFIER = re.compile(r"[A-Za-z_]+\w*(?:\.\w+)*|/v1/[\w/{}]+|--[\w-]+")


def glossary_names() -> set[str]:
    """Identifiers, paths of the API and flags in the column *names in 0.1.0*."""
    lines = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("|")]
    cells = [line.strip("|").split("|")[2] for line in lines if line.count("|") == 5]
    return {name for cell in cells for name in QUOTED.findall(cell) if IDENTIFIER.fullmatch(name)}


@pytest.mark.slow
def test_the_names_in_the_glossary_are_in_the_source() -> None:
    source = "\n".join(sources().values())
    words = set(re.findall(r"\w+", source))
    names = glossary_names()
    assert len(names) > 60
    missing = {
        name
        for name in names
        if (
            name not in source
            if name.startswith(("/", "--"))
            else not set(name.removeprefix("constraint_crdt_").split(".")) <= words
        )
    }
    assert missing == set()


def test_the_files_of_mutation_testing_exist() -> None:
    """A test selection with a missing file ends `mutmut` before its first mutant."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    flags = [flag.removeprefix("--ignore=") for flag in config["pytest_add_cli_args"] if flag.startswith("--ignore=")]
    named = [*config["only_mutate"], *config["pytest_add_cli_args_test_selection"], *flags]
    assert [name for name in named if not (ROOT / name).exists()] == []
