"""The commands and their flags. Imports nothing but argparse, so that `--help` and usage errors answer at once."""

import argparse
from typing import NoReturn, TypeAlias

from constraint_crdt import __version__

PROGRAM = "constraint-crdt"
DEFAULT_NODE = "http://127.0.0.1:8470"
NODE_VARIABLE = "CONSTRAINT_CRDT_NODE"
LEAST_DEMO_NODES = 2
MOST_DEMO_NODES = 20
LEAST_DEMO_SECONDS = 8.0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse would print the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser. What it returns has `command`, and `run`: the function of the command, as module:name."""
    parser = _Parser(prog=PROGRAM, description="A fleet shares one set of constraints without a server.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _node(commands)
    client = _client_flags()
    _writes(commands, client)
    _reads(commands, client)
    _retire(commands, client)
    _demo(commands)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"  # argparse gives this type no public name


def _command(commands: _Commands, name: str, run: str, about: str, *parents: _Parser) -> _Parser:
    parser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", parents=list(parents), allow_abbrev=False
    )
    parser.set_defaults(run=f"constraint_crdt.cli.{run}")
    return parser


def _client_flags() -> _Parser:
    flags = _Parser(add_help=False, allow_abbrev=False)
    flags.add_argument(
        "--node", metavar="URL", help=f"the node to ask, as URL or HOST:PORT; default: {NODE_VARIABLE}, or else {DEFAULT_NODE}"
    )
    flags.add_argument("--json", action="store_true", help="print the node's answer as JSON")
    return flags


def _node(commands: _Commands) -> None:
    node = _command(commands, "node", "serving:run_node", "run a node until SIGTERM or Ctrl-C")
    node.add_argument("--name", help="name of the node, unique in its fleet; default: the host's name")
    node.add_argument("--fleet", metavar="NAME", help="the fleet to belong to; default: default")
    node.add_argument("--role", metavar="ROLE", help="peer, router or client; default: peer")
    node.add_argument("--listen", action="append", metavar="ENDPOINT", help="tcp/HOST:PORT for other nodes; may be repeated")
    node.add_argument("--connect", action="append", metavar="ENDPOINT", help="tcp/HOST:PORT of another node; may be repeated")
    node.add_argument("--no-discover", dest="discover", action="store_const", const=False, help="link to no others than these")
    node.add_argument("--api", metavar="HOST:PORT", help="where to serve the HTTP API; default: 127.0.0.1:8470")
    node.add_argument("--store", metavar="PATH", help="file for the state, memory, or default: one below the XDG state directory")
    node.add_argument("--rejoin", action="store_true", help="set a damaged store aside, and take everything from the peers again")
    node.add_argument("--probe", action="append", metavar="PROBE", help="system, none or an installed one; may be repeated")
    node.add_argument("--check-every", metavar="SECONDS", help="time between evaluations of the constraints; default: 1")
    node.add_argument("--config", metavar="FILE", help="TOML with settings; flags and CONSTRAINT_CRDT_* variables win over it")
    # For whoever starts nodes and must not leave any behind, however it ends: the system closes the pipe for it.
    node.add_argument("--while-stdin-open", action="store_true", help=argparse.SUPPRESS)


def _writes(commands: _Commands, client: _Parser) -> None:
    add = _command(commands, "add", "writing:add", "add a constraint to the fleet, or replace its definition", client)
    add.add_argument("id", metavar="ID")
    add.add_argument("--when", metavar="EXPR", help="CEL that must hold, as in 'gpu_temp_c < 85.0'; without it: only listed")
    add.add_argument("--severity", choices=("info", "warning", "critical"), default="warning", help="default: warning")
    add.add_argument("--about", metavar="TEXT", help="what it is for")

    apply = _command(commands, "apply", "applying:apply", "add and edit the constraints listed in a TOML file", client)
    apply.add_argument("file", metavar="FILE", help="a [[constraint]] each, with id and, if wanted, when, severity, about")
    apply.add_argument("--prune", action="store_true", help="remove the constraints that the file does not list")
    apply.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")

    remove = _command(commands, "remove", "writing:remove", "remove a constraint from the fleet", client)
    remove.add_argument("id", metavar="ID")

    record = _command(commands, "record", "writing:record", "count evaluations that were made elsewhere", client)
    record.add_argument("--satisfied", type=_count, default=0, metavar="N")
    record.add_argument("--violations", type=_count, default=0, metavar="N")
    record.add_argument("--constraint", metavar="ID", help="the constraint that was evaluated; default: none in particular")

    check = _command(commands, "check", "writing:check", "evaluate the constraints against values now, and count it", client)
    check.add_argument("values", nargs="+", metavar="VAR=VALUE", help="a number, true, false, or else a text")


def _reads(commands: _Commands, client: _Parser) -> None:
    _command(commands, "status", "reading:status", "how the node and its fleet are doing", client)
    _command(commands, "constraints", "reading:constraints", "the active constraints and their counts", client)
    _command(commands, "nodes", "reading:nodes", "the nodes of the fleet, as this node sees them", client)

    _command(commands, "storage", "keeping:storage", "what the node holds, and what keeps it from forgetting", client)
    _command(commands, "identity", "keeping:identity", "who the node is, and its lives so far", client)


def _retire(commands: _Commands, client: _Parser) -> None:
    retire = _command(commands, "retire", "keeping:retire", "end another node for good; its counts stay", client)
    retire.add_argument("name", metavar="NODE", help="the node to retire; its name cannot be used again")
    retire.add_argument("--dry-run", action="store_true", help="say what it would mean, and do nothing")
    retire.add_argument(
        "--force", action="store_true", help="retire it though it is live: what it wrote and no other node has taken yet is lost"
    )


def _demo(commands: _Commands) -> None:
    demo = _command(commands, "demo", "demo.story:run_demo", "run a fleet of processes on this machine, and watch it agree")
    demo.add_argument("--nodes", type=_demo_nodes, default=5, metavar="N", help="processes to start; default: 5")
    demo.add_argument("--seconds", type=_demo_seconds, default=20.0, metavar="S", help="how long to go on; default: 20")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a count: give a whole number, 0 or more")
    return int(text)


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
