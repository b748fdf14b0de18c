"""Words of docstrings: how often the field's terms are used, and how often words that leave the reader to guess.

All docstrings count: of modules, classes, functions, and the strings below a field or constant that document it. Code in them
does not: spans in backticks, fenced blocks and doctest lines. Terms count with their inflections (`parsed`, `caches`), vague
words do not.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from house.source import Module

TERMS: Mapping[str, re.Pattern[str]] = {
    "parse": re.compile(r"pars(e|es|ed|er|ers|ing)"),
    "cache": re.compile(r"cach(e|es|ed|ing)"),
    "snapshot": re.compile(r"snapshot(s|ted|ting)?"),
    "tombstone": re.compile(r"tombstone[sd]?"),
    "timestamp": re.compile(r"timestamp(s|ed)?"),
    "buffer": re.compile(r"buffer(s|ed|ing)?"),
    "callback": re.compile(r"callbacks?"),
    "retry": re.compile(r"retr(y|ies|ied|ying)"),
    "queue": re.compile(r"queu(e|es|ed|ing)"),
}
VAGUE: Mapping[str, re.Pattern[str]] = {
    "what": re.compile(r"what"),
    "that": re.compile(r"that"),
    "it": re.compile(r"it"),
    "one": re.compile(r"one"),
    "whoever/nobody": re.compile(r"whoever|nobody"),
}

_CODE = re.compile(r"```.*?```|``.*?``|`[^`]*`|^\s*(?:>>>|\.\.\.) .*?$", re.DOTALL | re.MULTILINE)
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")


@dataclass(frozen=True)
class WordCounts:
    """Counts in docstrings, by the keys of `TERMS` and `VAGUE`."""

    words: int
    terms: dict[str, int]
    vague: dict[str, int]

    def per_thousand(self, name: str) -> float:
        """Uses of a term or vague word per 1,000 words; 0 without any words."""
        uses = self.terms[name] if name in self.terms else self.vague[name]
        return 1000 * uses / self.words if self.words else 0.0


def count_words(modules: Iterable[Module]) -> WordCounts:
    """Count in all docstrings of `modules` together."""
    words = Counter(word for module in modules for text in docstrings(module) for word in plain_words(text))
    return WordCounts(sum(words.values()), _uses(TERMS, words), _uses(VAGUE, words))


def docstrings(module: Module) -> Iterator[str]:
    """Every docstring of a module: each statement that is a string and nothing else."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def plain_words(text: str) -> list[str]:
    """The words of a docstring in lower case, without its code."""
    return _WORD.findall(_CODE.sub(" ", text).lower())


def _uses(patterns: Mapping[str, re.Pattern[str]], words: Counter[str]) -> dict[str, int]:
    return {name: sum(count for word, count in words.items() if pattern.fullmatch(word)) for name, pattern in patterns.items()}


def worst_modules(modules: Iterable[Module], limit: int) -> list[tuple[Module, WordCounts]]:
    """The modules with most vague words, most first, at most `limit`."""
    counted = [(module, count_words([module])) for module in modules]
    guilty = [pair for pair in counted if sum(pair[1].vague.values())]
    return sorted(guilty, key=lambda pair: (-sum(pair[1].vague.values()), str(pair[0].path)))[:limit]
