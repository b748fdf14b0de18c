"""`completion`: prints a script that completes the commands and flags in a shell. Asks no node, and needs none."""

import argparse
from typing import Final

import shtab

from constraint_crdt.cli.arguments import make_parser

FILES: Final = frozenset({"FILE", "PATH"})
"""Values that are the names of files."""


def completion(arguments: argparse.Namespace) -> int:
    """Print the script."""
    parser = make_parser()
    _complete_files(parser)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Have files offered where one is wanted.

    shtab reads that from the arguments. argparse has no public way to these; shtab itself goes this one.
    """
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
        elif action.metavar in FILES:
            vars(action)["complete"] = shtab.FILE
