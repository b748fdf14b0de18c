"""The commands and their flags: those of operations from their declarations, the others listed here. The completion scripts.

Rule: imports argparse and the declarations, and nothing that a command needs only to run, so that `--help` and usage errors answer
at once. The help lists the commands in six groups.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn, TypeAlias, get_args

import msgspec

from constraint_crdt import __version__
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.operations.catalogue import OPERATIONS
from constraint_crdt.operations.command import Command, Flag
from constraint_crdt.operations.operation import AnyOperation
from constraint_crdt.operations.values import parse_count, parse_share

PROGRAM = "constraint-crdt"
DEFAULT_NODE = "http://127.0.0.1:8470"
NODE_VARIABLE = "CONSTRAINT_CRDT_NODE"
TOKEN_FILE_VARIABLE = "CONSTRAINT_CRDT_TOKEN_FILE"  # noqa: S105 - the name of a variable
SHELLS = ("bash", "zsh", "fish")
LEAST_DEMO_NODES = 2
MOST_DEMO_NODES = 20
LEAST_DEMO_SECONDS = 8.0
GROUPS: Final = {
    "run": ("node", "demo", "simulate", "replay", "completion"),
    "constraints": ("apply", "coverage"),
    "observe": ("watch", "events", "doctor"),
    "state": ("tile", "counter", "tally", "seen", "position"),
    "fleet": (),
    "files": ("merge", "export", "import"),
}
"""The headings of the help, with the commands that no operation declares."""

FILES: Final = frozenset({"FILE", "PATH"})
"""Metavariables of values that are names of files."""

_WITH_UNIT = re.compile(r"-\d[\d.]*[^\d.].*")


def commands_by_group() -> dict[str, list[str]]:
    """The names of all commands, by heading of the help."""
    groups = {heading: list(names) for heading, names in GROUPS.items()}
    for operation in OPERATIONS:
        if operation.command is not None:
            groups[operation.command.group].append(operation.command.name)
    return groups


class _Help(argparse.HelpFormatter):
    """Lists the commands by group."""

    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, argparse._SubParsersAction) or action.dest != "command":
            return super()._format_action(action)
        commands = {each.dest: each for each in action._get_subactions()}
        parts = []
        for heading, names in commands_by_group().items():
            parts.append(f"{' ' * self._current_indent}{heading}\n")
            self._indent()
            parts += [super(_Help, self)._format_action(commands[name]) for name in names]
            self._dedent()
        return "".join(parts)


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, where argparse would print the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of `argv` (default: `sys.argv`), with `command`, and `run`, the function of the command as module:name.

    Raises `SystemExit` after it has printed the help or the mistake.
    """
    parser = make_parser()
    found, unknown = parser.parse_known_args(_attached(sys.argv[1:] if argv is None else argv))
    if unknown:  # argparse would say this in the name of the whole program, and show its help instead of the command's
        parser.exit(2, f"{found.prog}: unrecognized arguments: {' '.join(unknown)}; see `{found.prog} --help`\n")
    return found


def _attached(argv: Sequence[str]) -> list[str]:
    """The words, with negative values that have a unit (`--ttl -5m`) attached to their flags.

    argparse takes them for flags, unlike plain negative numbers, and would report a missing value.
    """
    attached: list[str] = []
    for word in argv:
        flag = attached[-1] if attached else ""
        if _WITH_UNIT.fullmatch(word) and flag.startswith("--") and "=" not in flag and "--" not in attached:
            attached[-1] = f"{flag}={word}"
        else:
            attached.append(word)
    return attached


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog=PROGRAM,
        description="A fleet shares one set of constraints without a server.",
        allow_abbrev=False,
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _node(commands)
    client = _client_flags()
    _writes(commands, client)
    _answers(commands, client)
    _files(commands, client)
    _tiles(commands, client)
    _approximate(commands, client)
    _figures(commands, client)
    _replay(commands)
    _simulate(commands)
    _demo(commands)
    _completion(commands)
    _operations(commands, client)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"  # argparse gives this type no public name


def _command(commands: _Commands, name: str, run: str, about: str, *parents: _Parser) -> _Parser:
    """`run`: module:name of the function in this package."""
    parser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", parents=list(parents), allow_abbrev=False
    )
    parser.set_defaults(run=f"constraint_crdt.cli.{run}", prog=parser.prog)
    return parser


FIELD = "request."
"""How the name of a field of the request begins among the parsed arguments."""


def _operations(commands: _Commands, client: _Parser) -> None:
    """The commands of operations, in the order of the catalogue."""
    for operation in OPERATIONS:
        command: Command[Any, Any] | None = operation.command
        if command is not None:
            parser = _command(commands, command.name, "connection:run", command.help, client)
            parser.set_defaults(operation=operation)
            _add_flags(parser, operation, command)


def _add_flags(parser: _Parser, operation: AnyOperation, command: Command[Any, Any]) -> None:
    flags = {FIELD + name: flag for name, flag in command.flags.items() if flag is not None}
    fields = {field.name: field for field in msgspec.structs.fields(operation.request)}
    for name, field in fields.items():
        if name not in command.flags and name not in ("after", "limit"):
            flags[FIELD + name] = _flag_of(operation, field)
    groups: dict[str, argparse._MutuallyExclusiveGroup] = {}
    for name, flag in (flags | dict(command.options)).items():
        target = parser if not flag.exclusive else groups.get(flag.exclusive)
        if target is None:
            target = groups[flag.exclusive] = parser.add_mutually_exclusive_group()
        if flag.names:
            target.add_argument(*flag.names, dest=name, **flag.options)
        else:
            target.add_argument(name, **flag.options)


def _flag_of(operation: AnyOperation, field: msgspec.structs.FieldInfo) -> Flag:
    """The flag of a field without a declaration."""
    about = {parameter.target: parameter.about for parameter in operation.parameters}.get(field.name)
    upper = field.name.upper()
    if field.name in operation.path_fields:
        return Flag(metavar=upper, help=about)
    name = f"--{field.name.replace('_', '-')}"
    if field.type is bool:
        return Flag(name, action="store_true", help=about)
    kind = next((each for each in (int, float) if each is field.type or each in get_args(field.type)), str)
    return Flag(name, type=kind, metavar=upper, required=field.required, help=about)


def _client_flags() -> _Parser:
    flags = _Parser(add_help=False, allow_abbrev=False)
    flags.add_argument(
        "--node", metavar="URL", help=f"the node to ask, as URL or HOST:PORT; default: {NODE_VARIABLE}, or else {DEFAULT_NODE}"
    )
    flags.add_argument("--token-file", metavar="FILE", help=f"where the token is, if the node asks; default: {TOKEN_FILE_VARIABLE}")
    flags.add_argument("--json", action="store_true", help="print the node's answer as JSON")
    return flags


def _node(commands: _Commands) -> None:
    node = _command(commands, "node", "serve:run_node", "run a node until SIGTERM or Ctrl-C")
    node.add_argument("--name", help="name of the node, unique in its fleet; default: the host's name")
    node.add_argument("--fleet", metavar="NAME", help="the fleet to belong to; default: default")
    node.add_argument("--role", metavar="ROLE", help="peer, router or client; default: peer")
    node.add_argument("--listen", action="append", metavar="ENDPOINT", help="tcp/HOST:PORT for other nodes; may be repeated")
    node.add_argument("--connect", action="append", metavar="ENDPOINT", help="tcp/HOST:PORT of another node; may be repeated")
    node.add_argument("--no-discover", dest="discover", action="store_const", const=False, help="link to no others than these")
    node.add_argument("--api", metavar="HOST:PORT", help="where to serve the HTTP API; default: 127.0.0.1:8470")
    node.add_argument("--token-file", metavar="FILE", help="tokens that the API takes: lines `read TOKEN` or `write TOKEN`")
    node.add_argument("--store", metavar="PATH", help="file for the state, memory, or default: one below the XDG state directory")
    node.add_argument("--rejoin", action="store_true", help="set a damaged store aside, and take everything from the peers again")
    node.add_argument("--probe", action="append", metavar="PROBE", help="system, none or an installed one; may be repeated")
    node.add_argument("--check-every", metavar="SECONDS", help="time between evaluations of the constraints; default: 1")
    node.add_argument(
        "--label",
        action="append",
        dest="labels",
        metavar="KEY=VALUE",
        help="a label that constraints may ask for; may be repeated",
    )
    node.add_argument("--max-skew", metavar="SECONDS", help="how far the clocks of the fleet may differ; default: 10")
    node.add_argument("--config", metavar="FILE", help="TOML with settings; flags and CONSTRAINT_CRDT_* variables win over it")
    # For drills: the reaction of a fleet to a wrong clock.
    node.add_argument("--clock-offset", type=float, default=0.0, help=argparse.SUPPRESS)
    node.add_argument("--record", metavar="FILE", help="record every input of the node there, for `replay`; bounded in size")
    # For programs that start nodes and must leave none behind: the system closes the pipe when such a program ends.
    node.add_argument("--while-stdin-open", action="store_true", help=argparse.SUPPRESS)


def _writes(commands: _Commands, client: _Parser) -> None:
    apply = _command(commands, "apply", "constraints:apply", "add and edit the constraints listed in a TOML file", client)
    apply.add_argument(
        "file", metavar="FILE", help="a [[constraint]] each, with id and, if wanted, when, severity, about, on, ttl or until"
    )
    apply.add_argument("--prune", action="store_true", help="remove the constraints that the file does not list")
    apply.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    _waits(apply)


def _waits(command: _Parser) -> None:
    about = "come back when so many nodes have acknowledged it: all (of the fleet), live (all that are), majority, or a number"
    command.add_argument("--wait", metavar="NODES", help=about)
    command.add_argument("--timeout", metavar="TIME", help="fail when that takes longer, naming who has not; default: 30s")


def _answers(commands: _Commands, client: _Parser) -> None:
    coverage = _command(
        commands, "coverage", "constraints:coverage", "which nodes have heard of a change, and which have not", client
    )
    coverage.add_argument("id", nargs="?", metavar="ID", help="the constraint; default: all changes of constraints")
    watch = _command(commands, "watch", "events:watch", "the fleet in a table that stays up to date", client)
    watch.add_argument("--every", default="1s", metavar="TIME", help="how often to look; default: 1s")
    events = _command(commands, "events", "events:events", "what happened on the node of late, and what happens", client)
    events.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    events.add_argument(
        "--last", type=parse_count, metavar="N", help="begin with so many; default: all that are kept, 10 with --follow"
    )
    events.add_argument("--kind", action="append", metavar="KIND", help="only events of this kind, as peer-up; may be repeated")
    doctor = _command(commands, "doctor", "doctor:doctor", "look for what is usually wrong, and say what to do", client)
    doctor.add_argument("--config", metavar="FILE", help="the settings of the node, to be looked at too")


def _files(commands: _Commands, client: _Parser) -> None:
    merge = _command(commands, "merge", "files:merge", "put together what several state files know")
    merge.add_argument("files", nargs="+", metavar="FILE", help="written by export, merge or to_json; - for standard input")
    merge.add_argument("-o", "--output", default="-", metavar="FILE", help="where to write the result; default: standard output")

    export = _command(commands, "export", "files:export", "write all that a node knows to a state file", client)
    export.add_argument("-o", "--output", default="-", metavar="FILE", help="where to write it; default: standard output")

    import_ = _command(commands, "import", "files:import_", "have a node take in what a state file knows", client)
    import_.add_argument("file", metavar="FILE", help="the state file; - for standard input")


def _tiles(commands: _Commands, client: _Parser) -> None:
    about = "put, get or remove a tile: a piece of content that the fleet shares"
    tile = commands.add_parser("tile", help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False)
    actions = tile.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    put = _tile(actions, "put", "make this the content of a tile", client)
    content = put.add_mutually_exclusive_group()
    content.add_argument("file", nargs="?", metavar="FILE", help="the content; - or nothing for standard input")
    content.add_argument("--text", metavar="TEXT", help="the content itself")
    put.add_argument("--author", metavar="NAME", help="who made it; default: the node")
    get = _tile(actions, "get", "print the content of a tile", client)
    get.add_argument("-o", "--output", metavar="FILE", help="where to write it; default: standard output")
    _tile(actions, "rm", "delete a tile; it can be restored for a while", client)
    _tile(actions, "restore", "undo the deletion of a tile", client)
    tag = _tile(actions, "tag", "add tags, or constraints that it is about, to a tile", client)
    untag = _tile(actions, "untag", "take tags, or constraints that it is about, from a tile", client)
    for action in (put, tag, untag):
        action.add_argument("--constraint", action="append", default=[], metavar="ID", help="a constraint; may be repeated")
    put.add_argument("--tag", action="append", default=[], dest="tags", metavar="TAG", help="a tag to add; may be repeated")
    for action in (tag, untag):
        action.add_argument("tags", nargs="*", metavar="TAG")


def _tile(actions: _Commands, name: str, about: str, client: _Parser) -> _Parser:
    parser = _command(actions, name, f"shared:{name}", about, client)
    parser.add_argument("room", metavar="ROOM")
    parser.add_argument("id", metavar="ID")
    return parser


def _approximate(commands: _Commands, client: _Parser) -> None:
    tally = _command(commands, "tally", "shared:tally", "count an item, of any number of items, in little room", client)
    tally.add_argument("item", metavar="ITEM")
    tally.add_argument("--count", type=parse_count, default=1, metavar="N", help="how often it occurred; default: 1")
    tally.add_argument("--of", default="items", metavar="NAME", help="the tally to count in; default: items")

    seen = _command(commands, "seen", "shared:seen", "whether any node has seen an id before", client)
    seen.add_argument("name", metavar="NAME", help="the filter to ask")
    seen.add_argument("item", metavar="ITEM")
    seen.add_argument("--add", action="store_true", help="put it in, too; the first one begins the filter")
    seen.add_argument("--expect", type=parse_count, metavar="N", help="items to expect, when the filter begins; default: 100000")
    seen.add_argument(
        "--fp-rate", type=parse_share, metavar="SHARE", help="of wrong findings, when the filter begins; default: 0.01"
    )


def _figures(commands: _Commands, client: _Parser) -> None:
    counter = _command(commands, "counter", "shared:counter", "what a counter of the fleet stands at", client)
    counter.add_argument("name", metavar="NAME")
    counter.add_argument("--by", type=int, metavar="N", help="move it by so much first, down by a negative number")

    position = _command(commands, "position", "shared:position", "where the fleet and its nodes are", client)
    position.add_argument("to", nargs="*", metavar="A B", help="move the fleet to this lattice point first")


def _replay(commands: _Commands) -> None:
    replay = _command(commands, "replay", "histories:replay", "run what `node --record` recorded again, and compare")
    replay.add_argument("files", nargs="+", metavar="FILE", help="a recording; of two, it says where they first differed")
    replay.add_argument("--steps", action="store_true", help="show every input and the state after it")
    replay.add_argument("--until", type=parse_count, metavar="N", help="stop after so many inputs")
    replay.add_argument("--test", metavar="FILE", help="write a test of the (first) recording there, test_SOMETHING.py")
    replay.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _simulate(commands: _Commands) -> None:
    simulate = _command(commands, "simulate", "simulate:simulate", "run a fleet in virtual time, or search for what breaks it")
    simulate.add_argument("--nodes", metavar="N", help="nodes of the fleet; default: 100")
    simulate.add_argument("--seed", metavar="S", help="decides everything that is drawn, and where a search begins; default: 0")
    simulate.add_argument("--seeds", metavar="N", help="run so many seeds and show the distribution; of a search: at most so many")
    simulate.add_argument("--items", metavar="N", help="nodes that have something to tell at the start; default: all")
    simulate.add_argument("--loss", metavar="P", help="probability that a message is lost, as in 0.2; default: 0")
    simulate.add_argument("--latency", metavar="TIME", help="of every link, as in 0.02s; default: 0.02s")
    simulate.add_argument("--partition", metavar="TIME", help="cut the fleet into halves for so long, as in 60s")
    simulate.add_argument("--churn", metavar="RATE", help="nodes that are killed and come back, as in 5/min")
    simulate.add_argument("--choice", metavar="HOW", help="how peers are chosen: uniform, nearby or schedule; default: uniform")
    simulate.add_argument(
        "--plot", metavar="FILE", help="draw what is known and sent over time (of --seeds: in the first) in a .svg or .png file"
    )
    simulate.add_argument("--json", action="store_true", help="print the outcome as JSON")
    simulate.add_argument("--chaos", action="store_true", help="search seeds for one that breaks an invariant, under all faults")
    simulate.add_argument("--minutes", metavar="M", help="how long to search; default: 1")
    simulate.add_argument("--workers", metavar="N", help="processes that search; default: 1")
    simulate.add_argument("--replay", metavar="FILE", help="run a history again that a search wrote")


def _demo(commands: _Commands) -> None:
    demo = _command(commands, "demo", "demo:run_demo", "run a fleet of processes on this machine, and watch it agree")
    demo.add_argument("--nodes", type=_demo_nodes, default=5, metavar="N", help="processes to start; default: 5")
    demo.add_argument("--seconds", type=_demo_seconds, default=20.0, metavar="S", help="how long to go on; default: 20")


def _completion(commands: _Commands) -> None:
    completion = _command(commands, "completion", "arguments:completion", "print a script that completes commands in a shell")
    completion.add_argument("shell", choices=SHELLS, help="the shell it is for")


def completion(arguments: argparse.Namespace) -> int:
    """`completion`: print a script that completes the commands and flags in a shell. Asks no node."""
    import shtab

    parser = make_parser()
    _complete_files(parser)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Have shtab offer files where a flag takes one. argparse has no public way to its arguments; shtab itself uses this one."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
        elif action.metavar in FILES:
            vars(action)["complete"] = shtab.FILE


# --- values -----------------------------------------------------------------------------------------------------------------


def parse_whole(text: str | None, flag: str, least: int, most: int, default: int) -> int:
    """A whole number from `least` to `most`; `default` for None. Raises `MisuseError`, which names the flag."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 20 or not least <= int(text) <= most:
        raise MisuseError(f"{flag} is a whole number from {least} to {most}, not {text!r}")
    return int(text)


def parse_number(text: str | None, flag: str, default: float, *, above: float, most: float) -> float:
    """A number above `above`, and at most `most`; `default` for None. Raises `MisuseError`, which names the flag."""
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = above
    if not above < number <= most:  # NaN is in no range
        raise MisuseError(f"{flag} is a number above {above:g} and at most {most:g}, not {text!r}")
    return number


def _demo_nodes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not LEAST_DEMO_NODES <= int(text) <= MOST_DEMO_NODES:
        raise argparse.ArgumentTypeError(f"give a number from {LEAST_DEMO_NODES} to {MOST_DEMO_NODES}, not {text!r}")
    return int(text)


def _demo_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not LEAST_DEMO_SECONDS <= seconds <= 86_400.0:
        raise argparse.ArgumentTypeError(f"give {LEAST_DEMO_SECONDS:g} seconds or more, not {text!r}")
    return seconds
