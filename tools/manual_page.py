"""The man page: all commands with their flags and examples, in the macros of man(7), from the parser of the command line.

Rule: the text depends on the declarations only, not on the terminal or the version of Python. `generate_client.py` writes it
to `deploy/constraint-crdt.1`, which `config man` prints.
"""

import argparse
from collections.abc import Iterator

from constraint_crdt import __version__
from constraint_crdt.cli.arguments import FIELD, PROGRAM, commands_by_group

ENVIRONMENT = (
    ("CONSTRAINT_CRDT_NODE", "The node that commands ask, as URL or HOST:PORT."),
    ("CONSTRAINT_CRDT_TOKEN_FILE", "Where the token is, if the node asks for one."),
    ("CONSTRAINT_CRDT_CA", "The root certificate of the fleet, for https://."),
    ("CONSTRAINT_CRDT_KEY", "The setting KEY of a node, such as CONSTRAINT_CRDT_GOSSIP_EVERY."),
)

EXIT_STATUS = (
    ("0", "Done."),
    ("1", "Failed: a sentence on stderr says why."),
    ("2", "Wrong usage, or wrong settings of a node."),
    ("130", "Interrupted by Ctrl-C."),
    ("141", "The output has no reader any more."),
)


def man_page(parser: argparse.ArgumentParser) -> str:
    """The page of the whole program."""
    lines = [
        f'.TH {PROGRAM.upper()} 1 "" "{PROGRAM} {__version__}" "User Commands"',
        ".ad l",
        ".nh",
        ".SH NAME",
        _escape(f"{PROGRAM} - a fleet shares one set of constraints without a server"),
        ".SH SYNOPSIS",
        f".B {_escape(PROGRAM)}",
        ".I COMMAND",
        "[options]",
        ".SH DESCRIPTION",
        "A node judges the constraints of its fleet by what it measures, and tells the others where one is violated.",
        "Most commands ask a node; each has the option",
        f".BR {_escape('--help')} .",
    ]
    parsers = _actions_of(parser)
    for heading, names in commands_by_group().items():
        lines.append(f'.SH "COMMANDS: {heading.upper()}"')
        for name in names:
            lines += _command(parsers[name])
    lines += [".SH ENVIRONMENT", *_terms(ENVIRONMENT), ".SH EXIT STATUS", *_terms(EXIT_STATUS)]
    return "\n".join([*lines, ""])


def _actions_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, or of the actions of a command, by name. argparse has no public way to them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A command, and its actions after it."""
    synopsis = " ".join([parser.prog.removeprefix(f"{PROGRAM} "), *filter(None, map(_in_synopsis, parser._actions))])
    yield f'.SS "{_escape(synopsis)}"'
    yield _escape(parser.description or "")
    for action in parser._actions:
        if action.help and action.help != argparse.SUPPRESS and action.dest != "help" and not _has_actions(action):
            yield from (".TP", f".B {_escape(_named(action))}", _escape(action.help.replace("%%", "%")))
    if parser.epilog:
        yield from (".PP", "Example:", ".PP", ".RS 4", ".EX")
        yield from (_escape(parser.epilog.removeprefix("example: ").replace("%%", "%")), ".EE", ".RE")
    for each in _actions_of(parser).values():
        yield from _command(each)


def _has_actions(action: argparse.Action) -> bool:
    return isinstance(action, argparse._SubParsersAction)


def _named(action: argparse.Action) -> str:
    """An option with its value, or an argument: `-o, --output FILE`."""
    value = _value(action)
    return f"{', '.join(action.option_strings)} {value}".strip() if action.option_strings else value


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(map(str, action.choices)) if action.choices else action.dest.removeprefix(FIELD).upper()


def _in_synopsis(action: argparse.Action) -> str:
    """An argument, or a required option; other options have their own lines."""
    if _has_actions(action):
        return "ACTION" if action.required else "[ACTION]"
    if action.option_strings:
        return f"{action.option_strings[0]} {_value(action)}" if action.required else ""
    form = {"?": "[{}]", "*": "[{}...]", "+": "{}..."}.get(str(action.nargs), "{}")
    return form.format(_value(action))


def _terms(pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for term, about in pairs:
        yield from (".TP", f".B {_escape(term)}", _escape(about))


def _escape(text: str) -> str:
    """Text of troff: hyphens as such, so that options can be copied, and no line is taken for a request."""
    found = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{found}" if found.startswith((".", "'")) else found
