"""The bars, and the table that shows ours beside the anchors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from house.operations import RELEASE_0_1_0
from house.structure import FieldPlaces, Structure, UntypedUses
from house.words import TERMS, VAGUE, WordCounts

MODULES = 150
OPERATION = {"modules": 25, "moves": 90, "depth": 14}
ING_NAMES = 5
PUBLIC_NAMES = 40
VAGUE_RATIO = 2.0
"""A vague word may be used this many times as often as the anchors' median."""

FIGURES = ("modules", "moves", "depth")


@dataclass(frozen=True)
class Project:
    """What is measured of any project."""

    name: str
    structure: Structure
    words: WordCounts
    names: int | None
    """Public names at the top; None without `__all__`."""
    answered: Mapping[str, int] | None
    """Of the traced operation, as `house.operations` defines it."""
    own_task: Mapping[str, int] | None


@dataclass(frozen=True)
class House:
    """All that is measured: ours, what is counted only in ours, and the anchors."""

    ours: Project
    field: str
    field_places: FieldPlaces
    untyped: UntypedUses
    synonyms: Mapping[str, Sequence[str]]
    anchors: Sequence[Project]

    def allowed(self, word: str) -> float | None:
        """Uses of a vague word per 1,000 that are within the bar; None without anchors."""
        median_ = self.median_rate(word)
        return None if median_ is None else VAGUE_RATIO * median_

    def median_rate(self, word: str) -> float | None:
        """The anchors' median of a word per 1,000; None without anchors."""
        return median(anchor.words.per_thousand(word) for anchor in self.anchors) if self.anchors else None


def missed(house: House) -> Iterator[str]:
    """One sentence for each bar that is missed."""
    ours, structure = house.ours, house.ours.structure
    if structure.modules > MODULES:
        yield f"There are {structure.modules} modules, {MODULES} are allowed."
    for figure in FIGURES:
        if ours.answered is not None and ours.answered[figure] > OPERATION[figure]:
            yield f"The traced operation has {figure} {ours.answered[figure]}, {OPERATION[figure]} is allowed."
    if len(structure.ing_names) > ING_NAMES:
        yield f"{len(structure.ing_names)} module names end in -ing, {ING_NAMES} may."
    if structure.ambiguous_names:
        yield f"The folder does not tell apart the modules named {', '.join(structure.ambiguous_names)}."
    if house.synonyms:
        yield f"Names use words that the glossary has another word for: {', '.join(house.synonyms)}."
    if ours.names is not None and ours.names > PUBLIC_NAMES:
        yield f"There are {ours.names} public names at the top, {PUBLIC_NAMES} are allowed."
    for word in VAGUE:
        allowed, rate = house.allowed(word), ours.words.per_thousand(word)
        if allowed is not None and rate > allowed:
            yield f"Docstrings have *{word}* {rate:.1f} times per 1,000 words, {allowed:.1f} is allowed."


def as_table(house: House) -> str:
    """The Markdown table."""
    head = ["", "ours", *(anchor.name for anchor in house.anchors), "anchors' median", "bar"]
    lines = [head, ["---"] * len(head), *_rows(house)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_data(house: House) -> dict[str, Any]:
    """For JSON: everything in the table, with the names behind the numbers, and the bars missed."""
    projects = [house.ours, *house.anchors]
    rates = {each.name: {word: round(each.words.per_thousand(word), 2) for word in (*TERMS, *VAGUE)} for each in projects}
    return {**asdict(house), "per_thousand_words": rates, "missed": list(missed(house))}


def _rows(house: House) -> Iterator[list[str]]:
    def row(title: str, values: Sequence[float | None], bar: str = "", digits: int = 0) -> list[str]:
        anchors = [value for value in values[1:] if value is not None]
        shown = ["" if value is None else f"{value:.{digits}f}" for value in values]
        return [title, *shown, f"{median(anchors):.{digits}f}" if anchors else "", bar]

    def ours_only(title: str, value: str, bar: str = "") -> list[str]:
        return [title, value, *[""] * (len(house.anchors) + 1), bar]

    projects = [house.ours, *house.anchors]
    structures = [project.structure for project in projects]
    yield row("modules", [each.modules for each in structures], f"{MODULES}")
    yield row("median lines of a module", [each.module_lines for each in structures])
    yield row("median lines of a function", [each.function_lines for each in structures])
    yield row("named modules", [each.named_modules for each in structures])
    yield row("module names ending in -ing", [len(each.ing_names) for each in structures], f"{ING_NAMES}")
    yield row("base names of several modules", [len(each.shared_names) for each in structures])
    yield row("… not told apart by the folder", [len(each.ambiguous_names) for each in structures], "0")
    yield row("type names in several modules", [len(each.shared_types) for each in structures])
    for figure in FIGURES:
        yield row(
            f"one operation until answered: {figure}", [_of(each.answered, figure) for each in projects], f"{OPERATION[figure]}"
        )
    for figure in FIGURES:
        yield row(f"… its own task alone: {figure}", [_of(each.own_task, figure) for each in projects])
    before = [", ".join(str(RELEASE_0_1_0[name][figure]) for figure in FIGURES) for name in ("answered", "own_task")]
    yield ours_only("… both in release 0.1.0: modules, moves, depth", "; ".join(before))
    yield row("public names at the top", [project.names for project in projects], f"{PUBLIC_NAMES}")
    yield row("words in docstrings", [project.words.words for project in projects])
    terms = [1000 * sum(project.words.terms.values()) / max(project.words.words, 1) for project in projects]
    yield row("terms of the field per 1,000 words, all", terms, digits=2)
    for word in TERMS:
        yield row(f"*{word}* per 1,000 words", [project.words.per_thousand(word) for project in projects], digits=2)
    for word in VAGUE:
        allowed = house.allowed(word)
        bar = "" if allowed is None else f"{allowed:.2f}"
        yield row(f"*{word}* per 1,000 words", [project.words.per_thousand(word) for project in projects], bar, digits=2)
    places = house.field_places
    named = f"{len(places.modules)} modules, {len(places.dashboard)} dashboard files, {len(places.docs)} docs"
    yield ours_only(f"`{house.field}` is named in", named)
    yield ours_only("`: Any` in `cli/`", f"{house.untyped.any_annotations}")
    yield ours_only('lines with `["…"]` in `cli/`', f"{house.untyped.string_subscripts}")
    yield ours_only("words in names that the glossary has another word for", f"{len(house.synonyms)}", "0")


def _of(figures: Mapping[str, int] | None, name: str) -> int | None:
    return None if figures is None else figures[name]
