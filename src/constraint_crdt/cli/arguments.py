"""The commands and their flags: those of operations from their declarations, the others listed here. The completion scripts.

Rule: imports argparse and the declarations, and nothing that a command needs only to run, so that `--help` and usage errors answer
at once. The help lists the commands in six groups.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, get_args

import msgspec

from constraint_crdt import __version__
from constraint_crdt.cli.output import sentence
from constraint_crdt.model import close_to
from constraint_crdt.operations import OPERATIONS
from constraint_crdt.operations.constraints import LOOSEN
from constraint_crdt.operations.operation import AnyCommand, AnyOperation, Command, Flag, Heading, parse_count

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

PROGRAM = "constraint-crdt"
DEFAULT_NODE = "http://127.0.0.1:8470"
NODE_VARIABLE = "CONSTRAINT_CRDT_NODE"
TOKEN_FILE_VARIABLE = "CONSTRAINT_CRDT_TOKEN_FILE"  # noqa: S105 - the name of a variable
CA_VARIABLE = "CONSTRAINT_CRDT_CA"
SHELLS = ("bash", "zsh", "fish")
LEAST_DEMO_NODES = 2
MOST_DEMO_NODES = 20
LEAST_DEMO_SECONDS = 8.0
GROUPS: Final[Mapping[Heading, tuple[str, ...]]] = {
    "run": ("node", "config", "source", "guard", "mcp", "token", "demo", "simulate", "plan", "replay", "completion"),
    "constraints": ("apply", "test", "backtest", "lint", "coverage"),
    "observe": ("watch", "events", "doctor"),
    "state": ("acquire", "tile", "counter", "tally", "seen", "position"),
    "fleet": ("fleet",),
    "files": ("merge", "export", "import", "backup", "restore"),
}
"""The headings of the help, with the commands that stand first below each. Those of other operations follow."""

OWN: Final = {
    "add": "constraints:add",
    "remove": "constraints:remove",
    "check": "constraints:check",
    "decide": "constraints:decide",
    "disable": "constraints:disable",
    "revert": "constraints:revert",
    "decisions": "constraints:decisions",
    "resolve": "constraints:resolve",
    "events": "watch:events",
    "doctor": "node:doctor",
    "status": "connection:status",
    "retire": "membership:retire",
    "tile put": "files:put",
    "tile get": "files:get",
    "export": "files:export",
    "import": "files:import_",
}
"""The functions of declared commands that wait, follow a stream, or use the files and settings of this machine."""

ACTIONS: Final = {
    "tile": "put, get, delete or tag a tile: a piece of content that the fleet shares",
    "budget": "limit, held by whom since when, free here, free elsewhere, stranded; or add, set, remove a budget",
    "alerts": "what the node's alerts have found; or add, remove, list the alert rules of the fleet",
    "rollout": "list, show, stop, continue or roll back definitions that reach the fleet in stages (apply --stage)",
    "fleet": "make the root of a fleet and the identities of its nodes, invite machines, list members",
    "source": "try the sources of a settings file",
    "token": "make, list or withdraw the tokens of the API of a node",
}
"""The commands that have actions, with their help."""

OTHER_WORDS: Final = {
    "list": "constraints", "ls": "constraints", "get": "constraints", "show": "explain ID|tile get ROOM ID",
    "describe": "explain ID",
    "delete": "remove", "rm": "remove", "edit": "add", "update": "add", "replace": "add", "create": "add",
    "start": "node", "run": "node", "serve": "node", "lock": "acquire", "log": "events", "logs": "events",
    "members": "fleet members", "peers": "nodes", "health": "doctor", "version": "--version",
    "info": "explain ID|tile get ROOM ID|status",
}  # fmt: skip
"""The names of commands in other tools, and ours for them, with `|` between several."""

OTHER_ACTIONS: Final = {
    "budget": {"list": "budget", "show": "budget", "delete": "budget remove", "create": "budget add", "edit": "budget set",
               "explain": "explain NAME", "acquire": "acquire NAME", "release": "release HOLD"},
    "tile": {"list": "tiles", "show": "tile get", "delete": "tile rm", "remove": "tile rm", "add": "tile put"},
    "alerts": {"show": "alerts", "delete": "alerts remove", "create": "alerts add", "silence": "silence NAME",
               "acknowledge": "acknowledge ALERT"},
    "token": {"show": "token list", "delete": "token remove", "create": "token add"},
    "fleet": {"list": "fleet members", "show": "fleet members", "nodes": "nodes", "join": "node --join TOKEN"},
    "source": {"list": "doctor", "show": "doctor", "test": "source try"},
}  # fmt: skip
"""The same for the actions of commands."""

DEPLOYED: Final = {
    "example": "node.example.toml",
    "systemd": "constraint-crdt.service",
    "dockerfile": "Dockerfile",
    "compose": "compose.yaml",
    "kubernetes": "kubernetes.yaml",
    "prometheus-rules": "constraint-crdt.rules.yml",
    "grafana": "grafana-dashboard.json",
    "man": "constraint-crdt.1",
}
"""The files that `config` prints, by name; the settings first."""

EXAMPLES: Final = {
    "node": "node --name forge --listen tcp/127.0.0.1:7447 --probe system",
    "config": "config example > node.toml",
    "token": "token list --token-file tokens",
    "token add": "token add alice --role operate --token-file tokens",
    "token list": "token list --token-file tokens",
    "token remove": "token remove alice --token-file tokens",
    "fleet": "fleet create plant",
    "fleet create": "fleet create plant",
    "fleet certify": "fleet certify forge",
    "fleet renew": "fleet renew forge",
    "fleet rotate": "fleet rotate --both 7d",
    "mcp": "mcp --token-file agent.token",
    "apply": "apply fleet.toml --dry-run",
    "rollout": "rollout list",
    "source": "source try node.toml",
    "source try": "source try node.toml --name battery",
    "test": "test rules_test.toml",
    "backtest": "backtest forge.measurements --with new.toml",
    "lint": "lint fleet.toml --range percent=0..100",
    "acquire": "acquire dock --wait 30s -- ./unload",
    "guard": "guard --on max_speed -- ./drive",
    "watch": "watch --every 2s",
    "merge": "merge forge.json anvil.json -o both.json",
    "backup": "backup forge.db.bak",
    "restore": "restore forge.db.bak",
    "replay": "replay forge.recording --steps",
    "simulate": "simulate --nodes 100 --loss 0.2 --partition 60s",
    "plan": "plan --nodes 200 --link 256kbit/100ms",
    "demo": "demo --nodes 5",
    "completion": "completion bash > ~/.local/share/bash-completion/completions/constraint-crdt",
    "tile": "tile put lab note --text calibrated",
}
"""A use of each command without an operation, and of commands with actions; the others are declared with theirs."""

FILES: Final = frozenset({"FILE", "PATH", "FOLDER", "NODE|FILE"})
"""Metavariables of values that are names of files."""

_WITH_UNIT = re.compile(r"-\d[\d.]*[^\d.].*")


def commands_by_group() -> dict[Heading, list[str]]:
    """The names of all commands, by heading of the help."""
    groups: dict[Heading, list[str]] = {heading: list(GROUPS.get(heading, ())) for heading in get_args(Heading)}
    for operation in OPERATIONS:
        for command in operation.commands:
            name, group = command.name.partition(" ")[0], groups[command.group]
            if name not in group:
                group.append(name)
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
        choice = _CHOICE.search(message)
        if choice:
            other = OTHER_WORDS if "argument COMMAND" in message else OTHER_ACTIONS.get(self.prog.rpartition(" ")[2], {})
            ours = " or ".join(f"`{PROGRAM} {each}`" for each in other.get(choice[1], "").split("|"))
            near = f" (it is {ours})" if choice[1] in other else _near(choice[1], _WORD.findall(choice[2]))
            if near or "argument COMMAND" in message:  # the help has the commands in groups
                message = f"{message[: choice.start(2)]}{near}"
        message = _WRONG_NUMBER.sub(lambda found: f"{found[2]} is not a {_NUMBERS[found[1]]}", message)
        self.exit(2, f"{self.prog}: {sentence(message)}; see `{self.prog} --help`\n")

    def _print_message(self, message: str, file: "SupportsWrite[str] | None" = None) -> None:
        """As argparse does, without hiding a failed write."""
        if message:
            (file or sys.stderr).write(message)


_CHOICE = re.compile(r"invalid choice: '(.*)'( \(choose from .*\))$")


_WRONG_NUMBER = re.compile("invalid (int|float) value: ('.*')", re.DOTALL)
_NUMBERS = {"int": "whole number", "float": "number"}
_NO_VALUE = re.compile(r"--[\w-]+=--")
_WORD = re.compile(r"[\w-]+")
_FLAG = re.compile(r"--[\w-]+")


def _near(wrong: str, choices: Sequence[str]) -> str:
    """The word of `choices` most similar to a wrong word, as a hint; empty if none is similar."""
    near = close_to(wrong, choices)
    return f" ({near[0]} may be meant)" if near else ""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of `argv` (default: `sys.argv`), with `command`, and `run`, the function of the command as module:name.

    Raises `SystemExit` after it has printed the help or the mistake.
    """
    parser = make_parser()
    words = _attached(sys.argv[1:] if argv is None else argv)
    words, behind = _divided(words)
    for word in words:
        if _NO_VALUE.fullmatch(word):  # argparse would hand an empty list to the command
            parser.exit(2, f"{PROGRAM}: {word[:-3]} has `--` for its value: give another; see `{PROGRAM} --help`\n")
    found, unknown = parser.parse_known_args(words)
    if behind:
        found.words = behind
    if unknown:  # argparse would say this in the name of the whole program, and show its help instead of the command's
        wrong = next((word.partition("=")[0] for word in unknown if word.startswith("--")), "")
        near = _near(wrong, _FLAG.findall(found.parser.format_usage())) if wrong else ""
        told = sentence(f"unrecognized arguments: {' '.join(unknown)}")
        parser.exit(2, f"{found.prog}: {told}{near}; see `{found.prog} --help`\n")
    if empty := _empty(found):
        parser.exit(2, f"{found.prog}: the {empty} is empty, as of an unset shell variable; see `{found.prog} --help`\n")
    return found


def _empty(found: argparse.Namespace) -> str:
    """The positional argument that is the empty text, or none, by its word in the help; empty if all are well."""
    for action in found.parser._get_positional_actions():
        value, word = getattr(found, action.dest, None), str(action.metavar or action.dest).lower()
        if word in ("id", "node") and (value == "" or (isinstance(value, list) and "" in value)):
            return word
        if action.nargs is None and value == []:  # argparse takes a second `--` away
            return word
    return ""


def _divided(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of `acquire` or `guard`, and those of the command behind `--`, which argparse would not find behind a flag."""
    if words[:1] not in (["acquire"], ["guard"]) or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


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


class _Version(argparse.Action):
    """Prints the version. The core is loaded here alone: other commands do not need it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from constraint_crdt.crdt.cells import CORE

        print(f"{PROGRAM} {__version__} ({CORE} core)")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog=PROGRAM,
        description="A fleet shares one set of constraints without a server.",
        allow_abbrev=False,
        formatter_class=_Help,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and which core runs, and exit")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    client = _client_flags()
    _node(commands)
    _config(commands)
    _token(commands)
    _source(commands)
    fleet = _fleet(commands, client)
    _apply(commands, client)
    _test(commands)
    _backtest(commands)
    _lint(commands, client)
    _acquire(commands, client)
    _guard(commands, client)
    _mcp(commands, client)
    _watch(commands, client)
    _merge(commands)
    _backup(commands, client)
    _replay(commands)
    _simulate(commands)
    _plan(commands)
    _demo(commands)
    _completion(commands)
    _operations(commands, client, {"fleet": fleet})
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"  # argparse gives this type no public name


def _command(commands: _Commands, name: str, run: str, about: str, *parents: _Parser) -> _Parser:
    """`run`: module:name of the function in this package."""
    parser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", parents=list(parents), allow_abbrev=False
    )
    words = parser.prog.removeprefix(f"{PROGRAM} ")
    if words in EXAMPLES:
        parser.epilog = f"example: {PROGRAM} {EXAMPLES[words]}".replace("%", "%%")
    parser.set_defaults(run=f"constraint_crdt.cli.{run}", prog=parser.prog, parser=parser)
    return parser


FIELD = "request."
"""How the name of a field of the request begins among the parsed arguments."""


def _operations(commands: _Commands, client: _Parser, actions: dict[str, _Commands]) -> None:
    """The commands of operations, in the order of `OPERATIONS`. `actions`: of commands that have some already."""
    for operation in OPERATIONS:
        for command in operation.commands:
            name, _, action = command.name.partition(" ")
            if action and name not in actions:
                actions[name] = _actions(commands, name)
            run = OWN.get(command.name, "connection:run")
            example = f"example: {PROGRAM} {command.example}".replace("%", "%%")
            if not action and name in ACTIONS:
                parser = _command(commands, name, run, command.help, client)
                parser.epilog = example
                parser.set_defaults(operation=operation, declared=command)
                actions[name] = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", parser_class=_Parser)
                continue
            parser = _command(actions[name] if action else commands, action or name, run, command.help, client)
            parser.epilog = example
            parser.set_defaults(operation=operation, declared=command)
            _add_flags(parser, operation, command)
            if operation.takes_why and "why" not in operation.request.__struct_fields__:
                _why(parser)


def _actions(commands: _Commands, name: str) -> _Commands:
    """A command that has actions."""
    about = ACTIONS[name]
    parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False)
    parser.epilog = f"example: {PROGRAM} {EXAMPLES[name]}"
    return parser.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION", parser_class=_Parser)


def _add_flags(parser: _Parser, operation: AnyOperation, command: AnyCommand) -> None:
    flags: dict[str, Flag] = {}
    if isinstance(command, Command):
        flags = {FIELD + name: flag for name, flag in command.flags.items() if flag is not None}
        for field in msgspec.structs.fields(operation.request):
            if field.name not in command.flags and field.name not in ("after", "limit"):
                flags[FIELD + field.name] = _flag_of(operation, field)
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
    flags.add_argument(
        "--ca",
        metavar="FILE",
        help=f"the root certificate of the fleet, for https://; default: {CA_VARIABLE}, or the system's roots",
    )
    flags.add_argument("--json", action="store_true", help="print the node's answer as JSON")
    return flags


def _node(commands: _Commands) -> None:
    node = _command(commands, "node", "node:run_node", "run a node until SIGTERM or Ctrl-C")
    node.add_argument("--name", help="name of the node, unique in its fleet; default: that of the identity, or the host's name")
    node.add_argument("--fleet", metavar="NAME", help="the fleet to belong to; default: that of the identity, or default")
    node.add_argument("--identity", metavar="FOLDER", help="the node's key and certificate, for links that strangers cannot open")
    node.add_argument(
        "--accept-plain", action="store_const", const=True, help="link also to nodes without an identity, for a while"
    )
    node.add_argument("--insecure", action="store_const", const=True, help="listen beyond this machine without an identity")
    node.add_argument("--join", metavar="TOKEN", help="join the fleet of an invitation first; later starts need no token")
    node.add_argument("--join-listen", metavar="HOST:PORT", help="where machines that join are answered; default: port 7448")
    node.add_argument("--request", metavar="FILE", help="make a key, write a request for a certificate there, and end")
    node.add_argument("--role", metavar="ROLE", help="auto, peer, router or client; default: auto")
    node.add_argument("--routers", type=int, metavar="N", help="routers of a fleet that chooses roles by itself; default: 2")
    node.add_argument("--routers-above", type=int, metavar="N", help="live nodes beyond which it has routers; default: 40")
    node.add_argument("--listen", action="append", metavar="ENDPOINT", help="tcp/HOST:PORT for other nodes; may be repeated")
    node.add_argument("--connect", action="append", metavar="ENDPOINT", help="tcp/HOST:PORT of another node; may be repeated")
    node.add_argument("--no-discover", dest="discover", action="store_const", const=False, help="link to no others than these")
    node.add_argument("--api", metavar="HOST:PORT", help="where to serve the HTTP API; default: 127.0.0.1:8470")
    node.add_argument(
        "--wait-for-address", metavar="SECONDS", help="time to wait for an address that this machine does not have yet; default: 30"
    )
    node.add_argument(
        "--api-tls",
        nargs="?",
        const="identity",
        metavar="CERT.pem,KEY.pem",
        help="serve the API by TLS, with this certificate and key; default: those of the identity",
    )
    node.add_argument("--plato", metavar="CONTRACT", help="of PLATO clients that name none: crate or server; default: crate")
    node.add_argument(
        "--mcp", action="store_const", const=True, help="serve tools for agents (Model Context Protocol) at /mcp of the API, too"
    )
    node.add_argument("--base-path", metavar="PATH", help="where a proxy shows the API and its page, as in /crdt/; default: at /")
    node.add_argument("--token-file", metavar="FILE", help="tokens that the API takes; `token add` makes them")
    node.add_argument("--store", metavar="PATH", help="file for the state, memory, or default: one below the XDG state directory")
    node.add_argument(
        "--retire-away-after", metavar="TIME", help="retire nodes that were not heard of for so long, as in 7d; default: never"
    )
    node.add_argument("--rejoin", action="store_true", help="set a damaged store aside, and take everything from the peers again")
    node.add_argument("--probe", action="append", metavar="PROBE", help="system, none or an installed one; may be repeated")
    node.add_argument(
        "--share", action="append", metavar="NAME[:DEADBAND[:EVERY]]", help="share the last value of a variable with the fleet"
    )
    node.add_argument(
        "--no-share-on-request",
        dest="share_on_request",
        action="store_const",
        const=False,
        help="share nothing else, also where a constraint on the fleet needs it",
    )
    node.add_argument("--check-every", metavar="SECONDS", help="time between evaluations of the constraints; default: 1")
    node.add_argument(
        "--label",
        action="append",
        dest="labels",
        metavar="KEY=VALUE",
        help="a label that constraints may ask for; may be repeated",
    )
    node.add_argument(
        "--destination",
        action="append",
        dest="destinations",
        metavar="NAME=ADDRESS",
        help="where this node can tell alerts, as ops=https://HOST/PATH; may be repeated. A settings file keeps it out of `ps`",
    )
    node.add_argument("--site", metavar="NAME", help="the site of the node: few nodes of each site speak with other sites")
    node.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error; default: info")
    node.add_argument("--max-skew", metavar="SECONDS", help="how far the clocks of the fleet may differ; default: 10")
    node.add_argument("--keep-decisions", type=int, metavar="N", help="answers of `decide` kept in memory; default: 1000")
    node.add_argument("--config", metavar="FILE", help="TOML with settings; flags and CONSTRAINT_CRDT_* variables win over it")
    # For drills: the reaction of a fleet to a wrong clock.
    node.add_argument("--clock-offset", type=float, default=0.0, help=argparse.SUPPRESS)
    node.add_argument("--record", metavar="FILE", help="record every input of the node there, for `replay`; bounded in size")
    node.add_argument(
        "--record-measurements",
        metavar="PATH",
        help="record what is measured in this file or folder, for `backtest`; bounded in size",
    )
    node.add_argument("--record-measurements-bytes", metavar="N", help="bound of that recording, in bytes; default: 268435456")
    node.add_argument(
        "--record-deadband", metavar="SHARE", help="leave out of it what moved by no more than this share, as in 0.01; default: 0"
    )
    # For programs that start nodes and must leave none behind: the system closes the pipe when such a program ends.
    node.add_argument("--while-stdin-open", action="store_true", help=argparse.SUPPRESS)


def _config(commands: _Commands) -> None:
    config = _command(commands, "config", "files:config", "print a file to begin with: settings, a unit, containers, alerts")
    about = "default: example, all settings of a node with their meaning"
    config.add_argument("what", choices=tuple(DEPLOYED), nargs="?", default="example", help=about)


def _token(commands: _Commands) -> None:
    actions = _actions(commands, "token")
    file = _Parser(add_help=False, allow_abbrev=False)
    file.add_argument(
        "--token-file", metavar="FILE", help=f"the file of the node; default: {TOKEN_FILE_VARIABLE}, or that of the settings"
    )
    file.add_argument("--config", metavar="FILE", help="the settings of the node, which name its token file")
    add = _command(actions, "add", "node:add_token", "make a token, print it once, and keep its hash in the token file", file)
    add.add_argument("name", metavar="NAME", help="who or what uses it: the name stands in the audit")
    add.add_argument("--role", required=True, metavar="ROLE", help="read, measure or operate")
    add.add_argument("--valid", metavar="TIME", help="how long it is valid, as in 30d; default: until it is removed")
    listing = _command(actions, "list", "node:list_tokens", "list the tokens: name, role, end, and when they were made", file)
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    remove = _command(actions, "remove", "node:remove_token", "withdraw a token: running nodes refuse it from now on", file)
    remove.add_argument("name", metavar="NAME", help="its name, as `token list` shows it")


def _source(commands: _Commands) -> None:
    actions = _actions(commands, "source")
    about = "read the sources of a settings file without a node, and show their values"
    trial = _command(actions, "try", "trials:try_sources", about)
    trial.add_argument("file", metavar="FILE", help="the settings, with a [[source]] or several")
    trial.add_argument("--name", metavar="NAME", help="this source only")
    trial.add_argument("--for", dest="for_", default="5s", metavar="TIME", help="how long they are read, at most; default: 5s")
    trial.add_argument("--json", action="store_true", help="print the values as JSON")


def _fleet(commands: _Commands, client: _Parser) -> _Commands:
    actions = _actions(commands, "fleet")
    create = _command(actions, "create", "membership:create", "make the root of a fleet: its key and its certificate")
    create.add_argument("name", metavar="NAME", help="name of the fleet")
    create.add_argument("--dir", metavar="FOLDER", help="where to write them; default: a folder of that name")
    create.add_argument(
        "--operators-certify",
        default="members",
        choices=("all", "members", "none"),
        help="the roles that nodes of operators may certify: all, members and observers, or none; default: members",
    )
    certify = _command(
        actions, "certify", "membership:certify", "make identities of nodes, certify nodes again, or answer requests"
    )
    certify.add_argument("nodes", nargs="+", metavar="NODE|FILE", help="name of a node, or the file of its request")
    certify.add_argument("--role", default="member", metavar="ROLE", help="observer, member or operator; default: member")
    renew = _command(
        actions, "renew", "membership:renew", "renew the certificate of a node now: by its fleet, or by the root", client
    )
    renew.add_argument(
        "nodes", nargs="*", metavar="NODE|FILE", help="certify these again where the root is; default: ask the node of --node"
    )
    rotate = _command(actions, "rotate", "membership:rotate", "replace the root of a fleet by a new one, while the fleet runs")
    rotate.add_argument("--both", default="7d", metavar="TIME", help="how long both roots are accepted, 10m at least; default: 7d")
    for each in (certify, renew):
        each.add_argument("--valid", default="30d", metavar="TIME", help="how long the certificate is valid; default: 30d")
    for each in (certify, renew, rotate):
        each.add_argument("--dir", metavar="FOLDER", help="where the root is; default: here, or the only folder here that has one")
    return actions


def _apply(commands: _Commands, client: _Parser) -> None:
    apply = _command(commands, "apply", "constraints:apply", "add and edit the constraints listed in a TOML file", client)
    apply.add_argument(
        "file",
        metavar="FILE",
        help="a [[constraint]] each, with id and, if wanted, when, severity, about, on, ttl; - for standard input",
    )
    apply.add_argument("--prune", action="store_true", help="remove the constraints that the file does not list")
    apply.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    apply.add_argument("--loosen", action="store_true", help=LOOSEN.options["help"])
    apply.add_argument(
        "--stage",
        action="append",
        metavar="SELECTOR",
        help="in stages: first the nodes with these labels, as zone=a. Repeat it for each stage, or separate stages by `;`, or by "
        "commas as in zone=a,zone=b",
    )
    apply.add_argument("--gate", metavar="GATE", help="what has to hold before it goes on; default: 'violations == 0 for 10m'")
    apply.add_argument(
        "--stage-timeout",
        metavar="TIME",
        help="how long a stage may wait beyond the time of its gate before it stops; default: 10m",
    )
    _why(apply)
    _waits(apply)


def _test(commands: _Commands) -> None:
    test = _command(commands, "test", "trials:test", "run the cases of rules in virtual time, without a node")
    test.add_argument("files", nargs="+", metavar="FILE", help="cases in TOML or YAML: series of values, and what is expected when")
    test.add_argument("--junit", metavar="FILE", help="write the outcome there as JUnit XML, too")
    test.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _backtest(commands: _Commands) -> None:
    backtest = _command(commands, "backtest", "trials:backtest", "what new rules would have said of recorded measurements")
    backtest.add_argument("recordings", nargs="*", metavar="PATH", help="files and folders of `node --record-measurements`")
    backtest.add_argument(
        "--with",
        dest="new",
        action="append",
        required=True,
        metavar="FILE",
        help="the new rules, in TOML; may be repeated",
    )
    backtest.add_argument(
        "--against",
        action="append",
        metavar="FILE",
        help="the old rules; may be repeated; default: those of the recording",
    )
    backtest.add_argument(
        "--from-prometheus",
        action="append",
        default=[],
        metavar="[NAME=]FILE|URL",
        help="the JSON of a range query, and the variable if the metric has no name or another; may be repeated",
    )
    backtest.add_argument("--max-age", metavar="TIME", help="how long a value of Prometheus counts; default: 5m")
    backtest.add_argument("--check-every", metavar="TIME", help="the time between two ticks, for values of Prometheus; default: 1s")
    backtest.add_argument("--plot", metavar="FILE", help="draw where the two differ over time in a .svg or .png file")
    backtest.add_argument("--json", action="store_true", help="print the outcome as JSON, with each verdict change")


def _lint(commands: _Commands, client: _Parser) -> None:
    about = "find constraints that contradict or imply each other, or that no value satisfies or violates"
    lint = _command(commands, "lint", "trials:lint", about, client)
    lint.add_argument(
        "files", nargs="*", metavar="FILE", help="as apply reads them; default: the constraints of the node at --node"
    )
    lint.add_argument(
        "--range",
        action="append",
        default=[],
        metavar="NAME=LOW..HIGH",
        help="the lowest and highest value of a variable, as in percent=0..100; can be repeated",
    )


def _why(command: _Parser) -> None:
    command.add_argument("--why", metavar="TEXT", help="the reason, for the audit and the history")


def _waits(command: _Parser) -> None:
    about = "come back when so many nodes have acknowledged it: all (of the fleet), live (all that are), majority, or a number"
    command.add_argument("--wait", metavar="NODES", help=about)
    command.add_argument("--timeout", metavar="TIME", help="fail when that takes longer, naming who has not; default: 30s")


def _watch(commands: _Commands, client: _Parser) -> None:
    watch = _command(commands, "watch", "watch:watch", "the fleet in a table that stays up to date", client)
    watch.add_argument("--every", default="1s", metavar="TIME", help="how often to look; default: 1s")


def _merge(commands: _Commands) -> None:
    merge = _command(commands, "merge", "files:merge", "put together what several state files know")
    merge.add_argument("files", nargs="+", metavar="FILE", help="written by export, merge or to_json; - for standard input")
    merge.add_argument("-o", "--output", default="-", metavar="FILE", help="where to write the result; default: standard output")


def _backup(commands: _Commands, client: _Parser) -> None:
    backup = _command(commands, "backup", "files:backup", "copy the store of a node to a file, and check the copy", client)
    backup.add_argument("file", metavar="FILE", help="the backup; a former one is replaced once the new one is whole")
    backup.add_argument("--store", metavar="PATH", help="the store, which may be in use; default: that of the node at --node")
    restore = _command(commands, "restore", "files:restore", "make a backup the store of its node, which must not run")
    restore.add_argument("file", metavar="FILE", help="written by backup; it is checked, and stays")
    restore.add_argument(
        "--store", metavar="PATH", help="where to put it; default: the usual place of the node. A store there is kept"
    )
    restore.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _replay(commands: _Commands) -> None:
    replay = _command(commands, "replay", "simulate:replay", "run what `node --record` recorded again, and compare")
    replay.add_argument("files", nargs="+", metavar="FILE", help="a recording; of two, it says where they first differed")
    replay.add_argument("--steps", action="store_true", help="show every input and the state after it")
    replay.add_argument("--until", type=parse_count, metavar="N", help="stop after so many inputs")
    replay.add_argument("--test", metavar="FILE", help="write a test of the (first) recording there, test_SOMETHING.py")
    replay.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _plan(commands: _Commands) -> None:
    plan = _command(commands, "plan", "simulate:plan", "what a fleet would cost, how long agreement takes, and what breaks first")
    plan.add_argument("--nodes", metavar="N", help="nodes of the fleet; default: 100")
    plan.add_argument("--sites", metavar="N", help="sites, each of as many nodes; default: 1")
    plan.add_argument("--constraints", metavar="N", help="constraints of the fleet; default: 100")
    plan.add_argument("--change-rate", metavar="RATE", help="changed constraints, as in 5/min, 0.1/s or 100/h; default: 1/min")
    plan.add_argument(
        "--link",
        metavar="RATE/DELAY",
        help="of each node, or site, as in 256kbit/100ms: the delay is one way; default: none to mind",
    )
    plan.add_argument("--loss", metavar="SHARE", help="of packets, as in 2%%; default: 0%%")
    plan.add_argument("--judged", metavar="N", help="constraints that each node judges all the time, and counts; default: 0")
    plan.add_argument("--routers", metavar="N", help="0: all nodes link to each other; default: by the number of nodes")
    plan.add_argument("--gossip-every", metavar="TIME", help="time between rounds; default: what the link and the cores allow")
    plan.add_argument("--cores", metavar="N", help="cores of one machine that all nodes share; default: each has its own")
    plan.add_argument("--seed", metavar="S", help="decides everything that is drawn; default: 0")
    plan.add_argument("--plot", metavar="FILE", help="draw a change over time, and bytes over the nodes, in a .svg or .png file")
    plan.add_argument("--json", action="store_true", help="print the plan as JSON")


def _acquire(commands: _Commands, client: _Parser) -> None:
    acquire = _command(
        commands,
        "acquire",
        "constraints:acquire",
        "hold an amount of a budget while a command runs, or until it is released",
        client,
    )
    acquire.add_argument("name", metavar="NAME", help="the budget")
    acquire.add_argument("--amount", type=parse_count, default=1, metavar="N", help="how much to hold; default: 1")
    acquire.add_argument("--wait", metavar="TIME", help="how long to wait for rights, as in 30s; default: not at all")
    acquire.add_argument("--holder", metavar="TEXT", help="who holds it, for people; default: the command and this machine")
    acquire.set_defaults(words=[])
    acquire.usage = f"{acquire.format_usage().removeprefix('usage: ').rstrip()} [-- COMMAND ...]"


def _guard(commands: _Commands, client: _Parser) -> None:
    guard = _command(commands, "guard", "guard:guard", "run a program only while constraints hold on the node", client)
    guard.add_argument(
        "--on", action="append", default=[], metavar="ID", help="a constraint; may be repeated; default: all critical ones"
    )
    guard.add_argument("--pause", action="store_true", help="pause the program (SIGSTOP) instead of stopping it")
    guard.add_argument("--wait", action="store_true", help="wait until they hold, instead of ending at once")
    guard.add_argument("--grace", default="5s", metavar="TIME", help="from SIGTERM to SIGKILL; default: 5s")
    guard.add_argument("--if-unknown", choices=("stop", "go"), default="stop", help="where they cannot be decided; default: stop")
    guard.add_argument("--if-lost", choices=("stop", "go"), default="stop", help="where the node does not answer; default: stop")
    guard.add_argument("--lost-after", default="2s", metavar="TIME", help="without an answer for so long; default: 2s")
    guard.add_argument("--dry-run", action="store_true", help="say whether the program would run, and why not")
    guard.set_defaults(words=[])
    guard.usage = f"{guard.format_usage().removeprefix('usage: ').rstrip()} [-- COMMAND ...]"


def _mcp(commands: _Commands, client: _Parser) -> None:
    mcp = _command(commands, "mcp", "mcp:mcp", "serve tools for agents by the Model Context Protocol, on stdio", client)
    mcp.add_argument(
        "--http", metavar="HOST:PORT", help="serve streamable HTTP there instead, at /mcp, with the token of each request"
    )


def _simulate(commands: _Commands) -> None:
    simulate = _command(commands, "simulate", "simulate:simulate", "run a fleet in virtual time, or search for what breaks it")
    simulate.add_argument("--nodes", metavar="N", help="nodes of the fleet; default: 100")
    simulate.add_argument("--seed", metavar="S", help="decides everything that is drawn, and where a search begins; default: 0")
    simulate.add_argument("--seeds", metavar="N", help="run so many seeds and show the distribution; of a search: at most so many")
    simulate.add_argument("--items", metavar="N", help="nodes that have something to tell at the start; default: all")
    simulate.add_argument("--loss", metavar="P", help="probability that a message is lost, as in 0.2; default: 0")
    simulate.add_argument("--latency", metavar="TIME", help="of every link, as in 0.02s; default: 0.02s")
    simulate.add_argument("--sites", metavar="N", help="divide the fleet into so many sites, of which few nodes speak with others")
    simulate.add_argument("--site-latency", metavar="TIME", help="of the links between sites; default: that of every link")
    simulate.add_argument("--partition", metavar="TIME", help="cut the fleet into halves for so long, as in 60s")
    simulate.add_argument("--churn", metavar="RATE", help="nodes that are killed and come back, as in 5/min")
    simulate.add_argument("--choice", metavar="HOW", help="how peers are chosen: uniform, nearby or schedule; default: uniform")
    simulate.add_argument(
        "--plot", metavar="FILE", help="draw what is known and sent over time (of --seeds: in the first) in a .svg or .png file"
    )
    simulate.add_argument("--json", action="store_true", help="print the outcome as JSON")
    simulate.add_argument("--chaos", action="store_true", help="search seeds for one that breaks an invariant, under all faults")
    simulate.add_argument("--signed", action="store_true", help="search fleets with identities, whose rows are signed")
    simulate.add_argument(
        "--network", action="store_true", help="search fleets on slow and half broken links, of which nodes measure each"
    )
    simulate.add_argument("--budgets", action="store_true", help="search fleets whose nodes acquire and lend parts of budgets")
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
    """Have shtab offer files for flags with a file name, and show the plain names of the fields.

    argparse has no public way to its arguments; so does shtab.
    """
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
            continue
        action.dest = action.dest.removeprefix(FIELD)
        if action.metavar in FILES:
            vars(action)["complete"] = shtab.FILE


# --- values -----------------------------------------------------------------------------------------------------------------


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
