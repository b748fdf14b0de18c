"""Measures the house: size, names, the way of one operation, and the words of docstrings, ours beside the models of the field.

    python tools/measure_house.py [--anchors VENV] [--json] [--details] [--check]
    python tools/measure_house.py --commit REV          # how many files below src/ a commit changed
    python tools/measure_house.py --words [PATH]        # the modules whose docstrings have most vague words

The first form installs the anchors with pip into a temporary environment, or takes an environment that has them, and prints one
Markdown table. `--check` exits with 1 and a sentence for each bar that is missed. What is counted, and how: the docstrings of
`tools/house/structure.py` (modules, names), `trace.py` and `operations.py` (the operation), `words.py` and `synonyms.py`.
The project must be installed in the interpreter that runs this.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from house.anchors import ANCHORS, environment, observed, package_folders
from house.operations import OURS
from house.report import House, Project, as_data, as_table, missed
from house.source import read_modules
from house.structure import find_field, measure_structure, untyped_uses
from house.synonyms import find_synonyms, forbidden_words, kept_names
from house.words import TERMS, VAGUE, WordCounts, count_words, worst_modules

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / OURS
DOCS = (ROOT / "docs", ROOT / "README.md")
GLOSSARY = ROOT / "docs" / "design" / "glossary.md"


def measure(anchors: Path | None, field: str) -> House:
    """Measure ours and the anchors, which are in the environment `anchors`."""
    with environment(anchors) as python:
        measured = []
        for anchor in ANCHORS:
            modules = read_modules(package_folders(python, anchor.packages), without=anchor.without)
            seen = observed(python, anchor.packages[-1])
            measured.append(Project(anchor.name, measure_structure(modules), count_words(modules), **seen))
    modules = read_modules([PACKAGE])
    seen = observed(Path(sys.executable), OURS, PACKAGE.parent)
    return House(
        ours=Project(OURS, measure_structure(modules), count_words(modules), **seen),
        field=field,
        field_places=find_field(field, modules, PACKAGE, DOCS),
        untyped=untyped_uses(module for module in modules if module.room == "cli"),
        synonyms=find_synonyms(modules, forbidden_words(GLOSSARY), kept_names(GLOSSARY)),
        anchors=measured,
    )


def changed_sources(revision: str, repository: Path = ROOT) -> list[str]:
    """Files below `src/` that a commit changed, added or removed; one that moved counts once."""
    command = ["git", "-C", str(repository), "show", "--format=", "--name-only", "--find-renames", revision, "--", "src"]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return found.stdout.split("\n")[:-1]


def word_report(path: Path, limit: int) -> str:
    """The modules below `path` with most vague words, and all of them together."""
    roots = read_modules([path]) if path.is_dir() else [m for m in read_modules([path.parent]) if m.base == path.stem]
    total = count_words(roots)
    lines = [_counts(str(module.path), counts) for module, counts in worst_modules(roots, limit)]
    rates = ", ".join(f"{word} {total.per_thousand(word):.1f}" for word in (*VAGUE, *TERMS))
    return "\n".join([*lines, _counts("all", total), f"per 1,000 words: {rates}"])


def _counts(title: str, counts: WordCounts) -> str:
    used = ", ".join(f"{word} {count}" for word, count in counts.vague.items() if count)
    vague = sum(counts.vague.values())
    return f"{title}: {vague} vague of {counts.words} words ({used})"


def _details(house: House) -> str:
    """The names behind the numbers of ours."""
    structure = house.ours.structure
    lists = {
        "Ending in -ing": structure.ing_names,
        "Base names not told apart by the folder": [f"{n}: {', '.join(p)}" for n, p in structure.ambiguous_names.items()],
        "Type names in several modules": [f"{n}: {', '.join(p)}" for n, p in structure.shared_types.items()],
        "Words that the glossary has another word for": [f"{n}: {', '.join(p)}" for n, p in house.synonyms.items()],
        f"Modules that name `{house.field}`": house.field_places.modules,
    }
    return "\n\n".join("\n".join([f"{title} ({len(names)})", *(f"- {name}" for name in names)]) for title, names in lists.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure the structure of the project beside the models of the field.")
    parser.add_argument("--anchors", type=Path, metavar="VENV", help="an environment with the anchors installed")
    parser.add_argument("--field", default="severity", help="the field whose places are counted (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--details", action="store_true", help="list the names behind the numbers below the table")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    parser.add_argument("--commit", metavar="REV", help="print how many files below src/ this commit changed, and nothing else")
    parser.add_argument("--words", nargs="?", type=Path, const=PACKAGE, metavar="PATH", help="list modules with vague words")
    parser.add_argument("--limit", type=int, default=30, help="how many modules --words lists (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.commit:
        sources = changed_sources(options.commit)
        print("\n".join([f"{len(sources)} files below src/", *sources]))
        return 0
    if options.words:
        print(word_report(options.words.resolve(), options.limit))
        return 0
    house = measure(options.anchors, options.field)
    print(json.dumps(as_data(house), indent=2) if options.json else as_table(house))
    if options.details and not options.json:
        print(f"\n{_details(house)}")
    sentences = list(missed(house)) if options.check else []
    for sentence in sentences:
        print(sentence, file=sys.stderr)
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main())
