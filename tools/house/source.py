"""Reads the modules of a package: path, text and syntax tree. Everything is discovered, no path is written down."""

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

SPECIAL = {"__init__", "__main__"}
"""File names that Python gives; they are modules, but nobody chose their names."""


@dataclass(frozen=True)
class Module:
    """A source file of a package."""

    path: PurePosixPath
    """Relative to the folder that holds the package: `package/room/name.py`."""
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree, parsed at first use."""
        return ast.parse(self.text)

    @property
    def base(self) -> str:
        """The name without folder and suffix."""
        return self.path.stem

    @property
    def room(self) -> str:
        """The folder right below the package, empty for modules of the package itself."""
        return self.path.parts[1] if len(self.path.parts) > 2 else ""

    @property
    def lines(self) -> int:
        """Lines of text, blank ones and comments included."""
        return len(self.text.splitlines())


def read_modules(roots: Sequence[Path], *, without: Collection[str] = ()) -> list[Module]:
    """Every `*.py` below the package folders `roots`, in order of path, except below folders named in `without`."""
    return [
        Module(PurePosixPath(path.relative_to(root.parent).as_posix()), path.read_text(encoding="utf-8"))
        for root in roots
        for path in sorted(root.rglob("*.py"))
        if not set(path.relative_to(root).parent.parts) & set(without)
    ]


def named_modules(modules: Sequence[Module]) -> list[Module]:
    """The modules whose names were chosen: all but `__init__` and `__main__`."""
    return [module for module in modules if module.base not in SPECIAL]


def type_names(module: Module) -> Iterator[str]:
    """Names of the types at the top of a module: classes, and aliases, which are assignments to a name like `Labels`."""
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name[0].isupper() and not name.isupper():
                yield name


def words_of_name(name: str) -> list[str]:
    """The lower-case words of a name: `AlertRules`, `alert_rules` and `HTTPServer` have two each."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
