"""`tools/measure_house.py`: what it counts, on small trees made up here."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from house.anchors import package_folders
from house.operations import locate, request
from house.report import House, Project, as_data, as_table, missed
from house.source import Module, read_modules, words_of_name
from house.structure import FieldPlaces, UntypedUses, find_field, measure_structure, untyped_uses
from house.synonyms import WITHOUT_GLOSSARY, find_synonyms, forbidden_words, kept_names
from house.trace import CallTrace, Following, follow
from house.words import count_words, worst_modules
from measure_house import changed_sources, main, word_report

Write = Callable[[Mapping[str, str]], list[Module]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the files of the package `fleet`, and reads its modules."""

    def written(files: Mapping[str, str]) -> list[Module]:
        for name, text in files.items():
            path = tmp_path / "fleet" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return read_modules([tmp_path / "fleet"], without={"legacy"})

    return written


@pytest.fixture
def plain(write: Write) -> House:
    """A package without a fault, and one anchor that has *that* in one of ten words and *what* in none."""
    modules = write({"__init__.py": "", "clock.py": '"""Compares clocks of replicas, and merges them."""\ndef merge(): ...\n'})
    anchor = replace(count_words([]), words=10, vague={"what": 0, "that": 1, "it": 0, "one": 0, "whoever/nobody": 0})
    figures = {"modules": 25, "moves": 90, "depth": 14}
    ours = Project("fleet", measure_structure(modules), count_words(modules), 40, figures, figures)
    model = Project("model", measure_structure(modules), anchor, None, None, None)
    return House(ours, "severity", FieldPlaces([], [], []), UntypedUses(0, 0), {}, [model])


def test_modules_and_functions_have_median_lines(write: Write) -> None:
    found = measure_structure(
        write(
            {
                "__init__.py": "",
                "a.py": "x = 1\n\n# why\n",
                "room/b.py": "class C:\n @staticmethod\n def f(\n  a,\n ):\n  return a\n\n async def g(): ...\n",
                "legacy/old.py": "def h(): ...\n" * 50,
            }
        )
    )
    assert (found.modules, found.named_modules) == (3, 2)
    assert found.module_lines == 3
    assert found.function_lines == 2.5  # four and one: the signature counts, the decorator does not


def test_names_ending_in_ing_are_those_of_modules(write: Write) -> None:
    found = measure_structure(write({"testing/__init__.py": "", "testing/laws.py": "def f(): ...", "node/sending.py": ""}))
    assert found.ing_names == ["fleet/node/sending.py"]


@pytest.mark.parametrize(
    ("paths", "ambiguous"),
    [
        (("types/tiles.py", "operations/tiles.py"), False),
        (("tiles.py", "types/tiles.py"), False),
        (("types/tiles.py", "types/shared/tiles.py"), True),
        (("types/tiles.py", "operations/tiles.py", "cli/tiles.py"), True),
        (("types/errors.py", "operations/errors.py", "cli/errors.py"), False),
        (("types/errors.py", "cli/errors.py", "cli/demo/errors.py"), True),
    ],
)
def test_a_folder_tells_two_modules_of_one_name_apart(write: Write, paths: tuple[str, ...], ambiguous: bool) -> None:
    found = measure_structure(write(dict.fromkeys((*paths, "cli/__init__.py", "types/__init__.py"), "def f(): ...")))
    [(name, modules)] = found.shared_names.items()
    assert sorted(modules) == sorted(f"fleet/{path}" for path in paths)
    assert list(found.ambiguous_names) == ([name] if ambiguous else [])


def test_types_of_several_modules_are_classes_and_aliases_at_the_top(write: Write) -> None:
    texts = {"a.py": "class Step: ...\nclass Only: ...\n", "b.py": "Step = tuple[int, int]\nSIZE = 1\n", "c.py": "SIZE = 1\n"}
    inner = {"d.py": "def f():\n    class Only: ...\n"}
    assert measure_structure(write({**texts, **inner})).shared_types == {"Step": ["fleet/a.py", "fleet/b.py"]}


def test_a_field_is_found_as_a_word(write: Write, tmp_path: Path) -> None:
    modules = write(
        {"a.py": "severity = 1", "b.py": "severity_of = 1", "c.py": "x.severity", "static/d.js": "it.severity", "e.css": ""}
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "api.md").write_text("`severity`")
    (tmp_path / "README.md").write_text("severe")
    found = find_field("severity", modules, tmp_path / "fleet", [tmp_path / "docs", tmp_path / "README.md"])
    assert found == FieldPlaces(["fleet/a.py", "fleet/c.py"], ["fleet/static/d.js"], ["api.md"])


def test_untyped_uses_are_annotations_and_lines_with_a_string_subscript(write: Write) -> None:
    text = 'def f(a: Any, b: Anyone) -> list[Any]:\n    return a["x"]["y"] + b["z"][0] + b[c]\n    d: Any = a["x"]\n'
    assert untyped_uses(write({"a.py": text})) == UntypedUses(any_annotations=2, string_subscripts=2)


def test_words_of_docstrings_are_counted_without_code(write: Write) -> None:
    text = '''"""Parses that, once parsed: `what that`.

    >>> that = it
"""
SIZE = 1
"""It caches one retry of nobody, whoever."""

def f():
    """What ``it`` is: ones."""
    return "that it one"  # that
'''
    counts = count_words(write({"a.py": text}))
    assert counts.words == 4 + 7 + 3
    assert {word: count for word, count in counts.terms.items() if count} == {"parse": 2, "cache": 1, "retry": 1}
    assert counts.vague == {"what": 1, "that": 1, "it": 1, "one": 1, "whoever/nobody": 2}
    assert counts.per_thousand("parse") == pytest.approx(2000 / 14)
    assert count_words([]).per_thousand("it") == 0


def test_the_worst_modules_come_first(write: Write, tmp_path: Path) -> None:
    modules = write(
        {"a.py": '"""It and one."""', "b.py": '"""What that is."""', "c.py": '"""Clock."""', "d.py": '"""It, it, it."""'}
    )
    assert [module.base for module, _ in worst_modules(modules, 2)] == ["d", "a"]
    lines = word_report(tmp_path / "fleet", 10).splitlines()
    assert lines[0] == "fleet/d.py: 3 vague of 3 words (it 3)"
    assert lines[3] == "all: 7 vague of 10 words (what 1, that 1, it 4, one 1)"
    assert lines[4].startswith("per 1,000 words: what 100.0, that 100.0, it 400.0")
    assert word_report(tmp_path / "fleet" / "a.py", 10).splitlines()[0] == "fleet/a.py: 2 vague of 3 words (it 1, one 1)"


def test_names_have_words() -> None:
    assert words_of_name("AlertRules") == ["alert", "rules"]
    assert words_of_name("_alert_rules") == ["alert", "rules"]
    assert words_of_name("HTTPServer") == ["http", "server"]


@pytest.mark.parametrize(
    "glossary",
    [
        "| Term | Meaning | Not said |\n| --- | :-: | --- |\n| **removal** (of a row) | gone | `tombstone`, burial |",
        "| Term | Instead of |\n|---|---|\n| removal | tombstone / burial (old) |\n\n| Not | said |\n|---|---|\n| a | b |\n",
        "## Not said\n\n- removal, not `tombstone` or *burial*\n\n## Else\n\n- clock, not watch\n",
        "## Not said\n* tombstone, burial: removal\n* nothing here\n",
        "## Words not used\n- tombstone, burial → say removal.\n",
    ],
)
def test_a_glossary_is_read_in_several_forms(tmp_path: Path, glossary: str) -> None:
    (tmp_path / "glossary.md").write_text(glossary)
    assert forbidden_words(tmp_path / "glossary.md") == {"removal": ["tombstone", "burial"]}


def test_without_a_glossary_the_names_of_the_first_release_count(tmp_path: Path) -> None:
    assert forbidden_words(tmp_path / "glossary.md") == WITHOUT_GLOSSARY
    (tmp_path / "glossary.md").write_text("# Glossary\n\n| Term | Meaning |\n| --- | --- |\n| dot | a number |\n")
    assert forbidden_words(tmp_path / "glossary.md") == WITHOUT_GLOSSARY


def test_synonyms_are_found_in_names_of_modules_folders_and_types(write: Write) -> None:
    files = {"cli/doctor.py": "", "doctors/x.py": "class DoctorReport: ...\nclass Documented: ...", "y.py": "class TornDown: ..."}
    found = find_synonyms(write(files), {"diagnosis": ["doctor", "check-up"], "stopped": ["torn down"]})
    assert found == {
        "doctor (diagnosis)": ["fleet/doctors/", "fleet/cli/doctor.py", "fleet/doctors/x.py: DoctorReport"],
        "torn down (stopped)": ["fleet/y.py: TornDown"],
    }


def test_names_of_a_release_may_stay(write: Write, tmp_path: Path) -> None:
    table = "| term | names in 0.1 | elsewhere |\n|---|---|---|\n| rate | `LatelyReport`; `/v1/lately` | `Lately` |\n"
    (tmp_path / "glossary.md").write_text(f"# Glossary\n\n{table}\n## Not said\n\n- rate, not lately\n")
    files = write({"x.py": "class LatelyReport: ...\nclass Lately: ..."})
    kept = kept_names(tmp_path / "glossary.md")
    assert kept == {"LatelyReport"}
    assert find_synonyms(files, forbidden_words(tmp_path / "glossary.md"), kept) == {"lately (rate)": ["fleet/x.py: Lately"]}


def made_up(name: str, text: str) -> ModuleType:
    """A module of this name with this code."""
    module = ModuleType(name)
    exec(text, module.__dict__)
    return module


@pytest.fixture
def entrance() -> ModuleType:
    """`fleet.api`, which calls `fleet.node` twice, and once through another package; that calls `fleet.clock`."""
    clock = made_up("fleet.clock", "def tick(): pass")
    node = made_up("fleet.node", "def add(): again(); tick()\ndef again(): pass")
    other = made_up("fleeting.relay", "def relay(call): call()")
    api = made_up("fleet.api", "def post(): add(); add(); relay(tick)")
    vars(node)["tick"] = clock.tick
    vars(api).update(add=node.add, relay=other.relay, tick=clock.tick)
    return api


def test_a_trace_has_modules_moves_and_depth(entrance: ModuleType) -> None:
    trace = follow({"fleet"}, entrance.post)
    assert trace.modules == {"fleet.api", "fleet.node", "fleet.clock"}
    # api, node, node, clock, node, node, clock, clock
    assert trace.figures() == {"modules": 3, "moves": 4, "depth": 3}


def test_a_trace_is_of_the_second_run(entrance: ModuleType) -> None:
    calls: list[int] = []

    def operation() -> None:
        calls.append(1)
        if len(calls) == 1:
            entrance.post()

    assert follow({"fleet"}, operation).figures() == {"modules": 0, "moves": 0, "depth": 0}
    assert len(calls) == 2


def test_a_trace_takes_calls_under_its_condition_only(entrance: ModuleType) -> None:
    whole, part, before = CallTrace({"fleet"}), CallTrace({"fleet"}), sys.getprofile()
    with Following((whole, lambda: True), (part, lambda: False)):
        entrance.post()
    entrance.post()
    assert (whole.moves, part.moves) == (4, 0)
    assert sys.getprofile() is before


def test_a_name_is_located_wherever_it_is_defined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    write(
        {
            "__init__.py": "class Node: ...",
            "http/__init__.py": "",
            "http/app.py": "def make_app(): ...",
            "http/server.py": "raise RuntimeError",
        }
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert locate("fleet", "Node").__module__ == "fleet"
    assert locate("fleet", "make_app").__module__ == "fleet.http.app"
    with pytest.raises(LookupError, match="no module of fleet defines make_tea"):
        locate("fleet", "make_tea")
    for name in [name for name in sys.modules if name.partition(".")[0] == "fleet"]:
        monkeypatch.delitem(sys.modules, name)


async def test_a_request_is_answered_in_this_process() -> None:
    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 201})
        await send({"type": "http.response.body", "body": b'{"%s": ' % scope["method"].encode(), "more_body": True})
        await send({"type": "http.response.body", "body": body + b"}"})

    assert await request(app, "POST", "/v1/constraints", b"[1]") == (201, {"POST": [1]})


def test_a_house_within_all_bars_misses_none(plain: House) -> None:
    assert list(missed(plain)) == []


def test_each_bar_that_is_missed_has_a_sentence(plain: House) -> None:
    structure = replace(
        plain.ours.structure,
        modules=151,
        ing_names=["a"] * 6,
        ambiguous_names={"tiles": ["a", "b"]},
    )
    words = replace(plain.ours.words, words=100, vague={"what": 1, "that": 20, "it": 0, "one": 0, "whoever/nobody": 0})
    ours = replace(plain.ours, structure=structure, words=words, names=41, answered={"modules": 26, "moves": 91, "depth": 15})
    assert list(missed(replace(plain, ours=ours, synonyms={"doctor (diagnosis)": ["cli/doctor.py"]}))) == [
        "There are 151 modules, 150 are allowed.",
        "The traced operation has modules 26, 25 is allowed.",
        "The traced operation has moves 91, 90 is allowed.",
        "The traced operation has depth 15, 14 is allowed.",
        "6 module names end in -ing, 5 may.",
        "The folder does not tell apart the modules named tiles.",
        "Names use words that the glossary has another word for: doctor (diagnosis).",
        "There are 41 public names at the top, 40 are allowed.",
        "Docstrings have *what* 10.0 times per 1,000 words, 0.0 is allowed.",
    ]
    more = replace(ours, words=replace(words, vague={**words.vague, "what": 0, "that": 21}))
    assert list(missed(replace(plain, ours=more)))[-1] == "Docstrings have *that* 210.0 times per 1,000 words, 200.0 is allowed."


def test_the_table_has_ours_and_the_anchors_in_columns(plain: House) -> None:
    lines = as_table(plain).splitlines()
    assert lines[0] == "|  | ours | model | anchors' median | bar |"
    assert {line.count("|") for line in lines} == {6}
    assert "| modules | 2 | 2 | 2 | 150 |" in lines
    assert "| one operation until answered: moves | 90 |  |  | 90 |" in lines
    assert "| *that* per 1,000 words | 0.00 | 100.00 | 100.00 | 200.00 |" in lines
    assert "| `severity` is named in | 0 modules, 0 dashboard files, 0 docs |  |  |  |" in lines
    data = as_data(plain)
    assert (data["ours"]["structure"]["modules"], data["per_thousand_words"]["model"]["that"], data["missed"]) == (2, 100.0, [])


@pytest.mark.processes
def test_packages_are_found_in_an_interpreter() -> None:
    [folder] = package_folders(Path(sys.executable), ("constraint_crdt",))
    assert (folder / "py.typed").is_file()


@pytest.mark.processes
def test_a_commit_has_the_sources_that_it_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    def put(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    git("init")
    for name in ("src/a.py", "src/b.py", "src/c.py", "docs/a.md"):
        put(name, f"{name}\n" * 20)
    git("add", ".")
    git("commit", "-m", "First")
    assert changed_sources("HEAD", tmp_path) == ["src/a.py", "src/b.py", "src/c.py"]
    put("src/a.py", "changed\n")
    put("docs/a.md", "changed\n")
    put("src/new.py", "new\n")
    (tmp_path / "src" / "b.py").unlink()
    git("mv", "src/c.py", "src/moved.py")
    git("add", ".")
    git("commit", "-m", "Second")
    assert changed_sources("HEAD", tmp_path) == ["src/a.py", "src/b.py", "src/moved.py", "src/new.py"]


def test_the_command_lists_words_without_the_anchors(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write({"a.py": '"""It."""', "b.py": '"""It is one."""'})
    assert main(["--words", str(tmp_path / "fleet"), "--limit", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "fleet/b.py: 2 vague of 3 words (it 1, one 1)",
        "all: 3 vague of 4 words (it 2, one 1)",
    ]
