"""Things with several names: words that the glossary does not allow, found in the names of modules, folders and types.

The glossary is read leniently. Two forms are understood: a table with a column headed *Not said*, *Not used*, *Instead of* or
*Avoid*, whose first column has the term; and, below a heading *Not said*, list items `term, not word, word` or `word, word: term`.
Without a glossary the table below counts, the names that release 0.1.0 used side by side. A column headed *names in …* has the
names of a release that have to stay.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from house.source import Module, named_modules, type_names, words_of_name

WITHOUT_GLOSSARY: Mapping[str, Sequence[str]] = {
    "diagnosis": ("doctor", "diagnosing"),
    "rates": ("lately",),
    "approximate": ("tally", "sketches"),
    "bloom": ("seen",),
}
"""Each term, and the words that are not to be used for it."""

_HEADED = re.compile(r"not (said|used)|instead of|avoid", re.IGNORECASE)
_KEPT = re.compile(r"names in\b", re.IGNORECASE)
_TERM_FIRST = re.compile(r"(?P<term>.+?),? not (?P<words>.+)")
_TERM_LAST = re.compile(r"(?P<words>.+?)(?::|→|->) (?:say )?(?P<term>.+)")


def forbidden_words(glossary: Path) -> Mapping[str, Sequence[str]]:
    """The words not to be used, by term: those of the glossary, or of `WITHOUT_GLOSSARY` if the file is missing or has none."""
    if not glossary.is_file():
        return WITHOUT_GLOSSARY
    lines = glossary.read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    for term, words in (*_from_tables(lines), *_from_lists(lines)):
        found.setdefault(term, []).extend(words)
    return found or WITHOUT_GLOSSARY


def kept_names(glossary: Path) -> frozenset[str]:
    """The names of a release that have to stay: those in backquotes in the columns *names in …* of the glossary."""
    if not glossary.is_file():
        return frozenset()
    cells = _column(glossary.read_text(encoding="utf-8").splitlines(), _KEPT)
    return frozenset(name for _, cell in cells for name in re.findall(r"`(\w+)`", cell))


def find_synonyms(
    modules: Sequence[Module], forbidden: Mapping[str, Sequence[str]], kept: Collection[str] = ()
) -> dict[str, list[str]]:
    """Where forbidden words are used: `doctor (diagnosis)` to the paths and type names that have it, as `word` or `words`.

    `kept`: names of types that may have them.
    """
    types = ((f"{m.path}: {name}", words_of_name(name)) for m in modules for name in type_names(m) if name not in kept)
    names = [*_module_names(modules), *types]
    found: dict[str, list[str]] = {}
    for term, words in forbidden.items():
        for word in words:
            if uses := [where for where, parts in names if _has(parts, words_of_name(word.lower()))]:
                found[f"{word} ({term})"] = uses
    return found


def _module_names(modules: Sequence[Module]) -> Iterator[tuple[str, list[str]]]:
    folders = sorted({parent for module in modules for parent in module.path.parents if len(parent.parts) > 1})
    yield from ((f"{folder}/", words_of_name(folder.name)) for folder in folders)
    yield from ((str(module.path), words_of_name(module.base)) for module in named_modules(modules))


def _has(parts: Sequence[str], word: Sequence[str]) -> bool:
    plural = [*word[:-1], f"{word[-1]}s"]
    return any(list(parts[at : at + len(word)]) in (list(word), plural) for at in range(len(parts) - len(word) + 1))


def _from_tables(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    for term, words in _column(lines, _HEADED):
        yield from _entry(term, words)


def _column(lines: Iterable[str], headed: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """The first cell of each row of a table, with the cell of the column that is headed so."""
    in_table, column = False, None
    for line in lines:
        if not line.startswith("|"):
            in_table, column = False, None
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not in_table:
            in_table, column = True, next((at for at, cell in enumerate(cells) if at and headed.search(cell)), None)
        elif column is not None and column < len(cells) and not set(cells[0]) <= set(":- "):
            yield cells[0], cells[column]


def _from_lists(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    listed = False
    for line in lines:
        if line.startswith("#"):
            listed = bool(_HEADED.search(line))
        elif listed and (item := re.match(r"\s*[-*] (.+)", line)):
            match = _TERM_FIRST.fullmatch(item[1]) or _TERM_LAST.fullmatch(item[1])
            if match is not None:
                yield from _entry(match["term"], match["words"])


def _entry(term: str, words: str) -> Iterator[tuple[str, list[str]]]:
    split = [_bare(word) for word in re.split(r"[,;/]| or ", re.sub(r"\(.*?\)", "", words))]
    if kept := [word for word in split if words_of_name(word)]:
        yield _bare(re.split(r"[,(]", term)[0]), kept


def _bare(text: str) -> str:
    return text.strip().strip("`*\"'. ")
