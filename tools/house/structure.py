"""Size and naming of modules, types and functions, and the places that know a field.

Definitions:

- *modules* are all `*.py` files; *named modules* leave out `__init__` and `__main__`.
- A function's lines go from its `def` to its end, signature and docstring included, decorators not. Methods and inner functions
  count.
- A base name is *shared* if several named modules have it. The folder tells the modules apart if there are two of them, in two
  rooms (folders right below the package): `types/tiles.py` and `operations/tiles.py`. Names in `MECHANICS`, which every room may
  need for itself, may be in any number of rooms, once in each. All other shared names are *ambiguous*.
- A type is *shared* if several modules define a class or an alias of that name at their top, private classes (`_Name`) included.
"""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from house.source import Module, named_modules, type_names

MECHANICS = {"codec", "errors", "limits", "settings"}
"""Base names for machinery that the folder qualifies: `runtime/settings.py` are the settings of a node."""


@dataclass(frozen=True)
class Structure:
    """What is counted in the modules of one package."""

    modules: int
    module_lines: float
    function_lines: float
    named_modules: int
    ing_names: list[str]
    shared_names: dict[str, list[str]]
    ambiguous_names: dict[str, list[str]]
    shared_types: dict[str, list[str]]


@dataclass(frozen=True)
class FieldPlaces:
    """Where a field is named."""

    modules: list[str]
    dashboard: list[str]
    docs: list[str]


@dataclass(frozen=True)
class UntypedUses:
    """Signs of values without a type: annotations `: Any`, and lines with a subscript `["name"]`."""

    any_annotations: int
    string_subscripts: int


def measure_structure(modules: Sequence[Module]) -> Structure:
    """Count in all `modules` of a package. There must be at least one, and one function."""
    named = named_modules(modules)
    shared = _shared((module.base, module) for module in named)
    return Structure(
        modules=len(modules),
        module_lines=median(module.lines for module in modules),
        function_lines=median(lines for module in modules for lines in _function_lines(module)),
        named_modules=len(named),
        ing_names=[str(module.path) for module in named if module.base.endswith("ing")],
        shared_names=_paths(shared),
        ambiguous_names=_paths({name: those for name, those in shared.items() if not _told_apart(name, those)}),
        shared_types=_paths(_shared((name, module) for module in modules for name in set(type_names(module)))),
    )


def find_field(name: str, modules: Sequence[Module], package: Path, docs: Sequence[Path]) -> FieldPlaces:
    """Files that hold `name` as a word: modules, files of the dashboard that are not Python, and Markdown in `docs`."""
    word = re.compile(rf"\b{re.escape(name)}\b")
    static = (path for path in sorted(package.rglob("*")) if path.suffix in {".js", ".html", ".css"})
    pages = (page for place in docs for page in ([place] if place.is_file() else sorted(place.rglob("*.md"))))
    return FieldPlaces(
        modules=[str(module.path) for module in modules if word.search(module.text)],
        dashboard=[path.relative_to(package.parent).as_posix() for path in static if word.search(path.read_text("utf-8"))],
        docs=[page.name for page in pages if word.search(page.read_text("utf-8"))],
    )


def untyped_uses(modules: Iterable[Module]) -> UntypedUses:
    """Count in these modules."""
    texts = [module.text for module in modules]
    return UntypedUses(
        any_annotations=sum(len(re.findall(r": Any\b", text)) for text in texts),
        string_subscripts=sum(bool(re.search(r'\["[^"]*"\]', line)) for text in texts for line in text.splitlines()),
    )


def _function_lines(module: Module) -> Iterable[int]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def _shared(pairs: Iterable[tuple[str, Module]]) -> dict[str, list[Module]]:
    found: defaultdict[str, list[Module]] = defaultdict(list)
    for name, module in pairs:
        found[name].append(module)
    return {name: those for name, those in sorted(found.items()) if len(those) > 1}


def _told_apart(name: str, modules: Sequence[Module]) -> bool:
    one_per_room = max(Counter(module.room for module in modules).values()) == 1
    return one_per_room and (len(modules) == 2 or name in MECHANICS)


def _paths(shared: dict[str, list[Module]]) -> dict[str, list[str]]:
    return {name: [str(module.path) for module in modules] for name, modules in shared.items()}
