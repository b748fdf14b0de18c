"""Settings of the documentation site: `sphinx-build -W --keep-going -b html docs build/site`.

The pages are Markdown (MyST). Three additions live here:

- A line `<!-- public names: MODULE -->` in a page becomes the reference of all names in `MODULE.__all__`. Names are read from the
  package, and no internal module is named, so the reference follows a module that moves.
- A line `<!-- command help -->` becomes the `--help` of each command. The texts are those that the command itself prints.
- Docstrings are Markdown, as the pages are. autodoc expects reStructuredText, so each docstring is wrapped in a directive that
  parses its content with MyST.
"""

import inspect
import os
import re
import subprocess
import sys
from enum import Enum
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.utils import new_document
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import constraint_crdt

project = "constraint-crdt"
author = "the constraint-crdt authors"
version = release = constraint_crdt.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"constraint-crdt {release}"
html_show_copyright = False

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

# The type `bytes` of Python is also the name of fields: a reference to it is found twice.
suppress_warnings = ["ref.python"]

PUBLIC_NAMES = re.compile(r"^<!-- public names: ([\w.]+) -->$", re.MULTILINE)
COMMAND_HELP = "<!-- command help -->"
SUBCOMMAND = re.compile(r"^ {4}([a-z][a-z-]*)(?: |$)", re.MULTILINE)
"""argparse lists subcommands, and nothing else, with four spaces in front."""


class MarkdownDocstring(SphinxDirective):
    """A docstring in Markdown, inside the reStructuredText that autodoc makes."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The parsed content."""
        document = new_document(self.get_source_info()[0], self.state.document.settings)
        MystParser().parse("\n".join(self.content), document)
        return document.children


def wrap_docstring(_app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Put a docstring into `MarkdownDocstring`."""
    if any(line.strip() for line in lines):
        lines[:] = [".. markdown-docstring::", "", *(f"   {line}" for line in lines), ""]


def reference_of(module_name: str) -> str:
    """The reference of the public names of a module, as a block for autodoc."""
    module = import_module(module_name)
    blocks = []
    for name in sorted(module.__all__, key=str.casefold):
        value = getattr(module, name)
        if inspect.isclass(value):
            # Members of our own base classes belong to the class; those of Python's and of libraries do not.
            foreign = ",".join(base.__name__ for base in value.__mro__ if not base.__module__.startswith("constraint_crdt"))
            kind, options = "autoclass", ["members:", f"inherited-members: {foreign}", "show-inheritance:"]
            options += ["undoc-members:"] if issubclass(value, Enum) else []
        else:
            kind, options = ("autofunction" if inspect.isroutine(value) else "autodata"), []
        blocks.append("\n".join([f".. {kind}:: {module_name}.{name}", *(f"   :{option}" for option in options), ""]))
    return "\n".join(["```{eval-rst}", *blocks, "```"])


def help_of(*command: str) -> str:
    """The `--help` of a command and of its subcommands, a heading each."""
    argv = [sys.executable, "-m", "constraint_crdt", *command, "--help"]
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    text = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment).stdout  # noqa: S603 - our own command
    subcommands = SUBCOMMAND.findall(text)
    if not command and not subcommands:
        raise ValueError("`--help` lists no commands in the form that is looked for")
    block = f"```text\n{text}```\n"
    title = f"## {' '.join(command)}\n\n" if command else ""
    return "\n".join([title + block, *(help_of(*command, each) for each in subcommands)])


def insert_reference(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Put the reference where a page asks for it."""
    source[0] = PUBLIC_NAMES.sub(lambda found: reference_of(found[1]), source[0])
    if COMMAND_HELP in source[0]:
        source[0] = source[0].replace(COMMAND_HELP, help_of())


def setup(app: Sphinx) -> None:
    """Register the additions."""
    app.add_directive("markdown-docstring", MarkdownDocstring)
    app.connect("autodoc-process-docstring", wrap_docstring)
    app.connect("source-read", insert_reference)
