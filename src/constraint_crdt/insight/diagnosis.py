"""Diagnosis: the common faults of a node, each with advice.

A *finding* is the result of a check: `ok`, `warn` for a risk, `fail` for a fault. Checks without a running node are functions,
for the command line.

A constraint is *undecidable* if no node of the fleet can decide it: no known node has the labels of a definition, or none of the
nodes with these labels measures a variable of its expressions. Rule: an absent variable is reported only if the nodes have told
which variables they measure. Nodes of 0.1.0 never tell, and others need some seconds after their start.
"""

import re
import socket
import ssl
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from constraint_crdt.crdt.cells import CORE
from constraint_crdt.crdt.clock import SECOND, ClockDoubt
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.aggregates import NODES, needs_of
from constraint_crdt.expression.cel import Verdict
from constraint_crdt.expression.evaluation import Evaluation, expressions_of
from constraint_crdt.insight.evidence import Evidence, LivePeers
from constraint_crdt.insight.history import SizeLimit
from constraint_crdt.model import Label, Scope, Selector, VerdictState, close_to, counted
from constraint_crdt.operations.constraints import reported_disabling, show_disabled
from constraint_crdt.operations.nodes import LinkProtection, slow_links
from constraint_crdt.operations.service import DiagnosisReport, Finding, Level, worst_of
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.parameters import measured_names, read_parameters

if TYPE_CHECKING:  # `cryptography` is loaded for nodes with an identity only
    from constraint_crdt.identity import Identity

DAY = 86_400 * SECOND

LOW_SPACE = 256 * 1024 * 1024
NO_SPACE = 16 * 1024 * 1024
"""Free bytes on the disk of the store: below the first a warning, below the second a fault."""

SEED_TIMEOUT = 2.0
"""Seconds for a connection to a seed, at most."""

ALERT_TIMEOUT = 0.3
"""Seconds for a seed to refuse the certificate of this node."""

TLS_PROBE_TIMEOUT = 0.5
"""Seconds for a seed of a node without an identity to answer the beginning of TLS. A node without an identity stays silent."""

ENDS_SOON = 7 * DAY
"""A certificate that ends sooner is a warning, in ns."""

_NO_IDENTITY = "it has no identity"
_NO_TLS = {
    "WRONG_VERSION_NUMBER": f"it does not answer by TLS: {_NO_IDENTITY}",
    "RECORD_LAYER_FAILURE": f"it does not answer by TLS: {_NO_IDENTITY}",
    "UNEXPECTED_EOF_WHILE_READING": f"it closes the connection: {_NO_IDENTITY}",
}
_NEW_ROOT = "or the fleet has a new root since this node was away: then join again by an invitation, with the same folder"
_TLS_REASONS = {
    **_NO_TLS,
    "CERTIFICATE_VERIFY_FAILED": f"its certificate is of another fleet, or not valid now by the clock of this machine; {_NEW_ROOT}",
    "TLSV1_ALERT_UNKNOWN_CA": f"it is of another fleet, and refuses the certificate of this node; {_NEW_ROOT}",
    "TLSV1_ALERT_DECRYPT_ERROR": f"it is of another fleet of this name, and refuses the certificate of this node; {_NEW_ROOT}",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it refuses the certificate of this node as ended: compare the clocks",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate",
}
"""The reasons of OpenSSL in terms of nodes."""

SHOWN: Final = frozenset(("name", "clock", "agreement", "store", "fleet", "rollback"))
"""The checks with a line of their own in a status; and `peers`, where other nodes are known."""

WARNED: Final = frozenset(("probes", "sources", "actions", "alerts", "view", "size"))
"""The checks of which a status names warnings, too."""

SEEDS = 16
"""Seeds tried, at most."""

NAMED = 10
"""Names in a sentence. Further names are counted."""

MOST_COMPARED = 20_000
"""Names compared with absent variables in a look, about. They block the node for some 0.1 s."""

NAMESAKE_FOR = 3600 * SECOND
"""A duplicate name is reported for this time after the last meeting, in ns."""

NAMESAKE_TOLD = 600 * SECOND
"""The other nodes are told of it for this time, in ns."""

_SLOW = (
    "timeouts and the size of messages follow the link by themselves, and changes take longer there; before the round trip is "
    "known, an answer may take eight times `request_timeout`"
)

DEFAULT_FLEET = "default"
"""The fleet of a node that was given none."""

_RANDOM_NAME = re.compile(r"(?=.*[0-9])(?=.*[a-f])[0-9a-f]{12}|.*-[bcdf-hj-np-tv-xz0-9]{8,10}-[bcdf-hj-np-tv-xz0-9]{5}")
"""Host names as Docker makes them, and as Kubernetes does for the pods of a deployment."""

_TRIED = ("tcp", "tls")
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def named(names: Sequence[str]) -> str:
    """Some names in a sentence."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


class Inbox(LivePeers, Protocol):
    """Receives the messages of peers."""

    @property
    def refused(self) -> int:
        """Messages refused since the start."""

    @property
    def refusal(self) -> str:
        """Why the last of them was; empty where that is not known."""

    @property
    def size_limits(self) -> Sequence[SizeLimit]:
        """The peers that only short messages reach."""


MOST_UNTOLD = 1_000
"""Variables of this node that are compared with a name, beside those that it told."""


class MissedWriters(Protocol):
    """Compares the writing nodes with the live nodes."""

    @property
    def missed(self) -> Sequence[str]:
        """The nodes writing, by evidence of others, without being live here."""


class StoreHealth(Protocol):
    """The store of a node."""

    @property
    def path(self) -> str:
        """Its file, or "memory"."""

    @property
    def trouble(self) -> str | None:
        """Why writes are refused; None if they are taken."""

    @property
    def lately(self) -> str | None:
        """Why writes are refused, or were in the last seconds; None if they were taken."""


class CertifiedNode(Protocol):
    """The certificates of a node with an identity."""

    @property
    def identity(self) -> "Identity":
        """The present identity."""

    def findings(self) -> Iterator[Finding]:
        """The certificates that need attention, beside the validity of that of this node."""


class ProbeHealth(Protocol):
    """A probe of the node."""

    @property
    def name(self) -> str:
        """The name of the probe."""

    @property
    def trouble(self) -> str | None:
        """Why it gives no values now; None if it does."""


class _Nodes(NamedTuple):
    """The nodes to which a definition applies."""

    names: tuple[str, ...]
    measured: Set[str]
    """The variables that some of them measure, and the first parts of the names with fields (`robot` of `robot.speed`)."""
    complete: bool
    """False if any of them measures further variables, without room in its cell."""


class Undecidable:
    """Finds constraints that no node of the fleet can decide, as far as this node knows. Made for a single look."""

    def __init__(
        self,
        gossip: GossipNode,
        measured: Callable[[], Collection[str]] = tuple,
        last: Callable[[str], Evaluation | None] = lambda _: None,
    ) -> None:
        """`measured`: the variables of this node now, some of which it may not have told yet. `last`: the last evaluation of a
        constraint here. The first definition with an expression or a selector costs O(nodes).
        """
        self._last = last
        self._gossip, state = gossip, gossip.state
        self._here, self._measure = gossip.node_id, measured
        self._constraints, self._variables, self._verdicts = state.constraints, state.variables, state.verdicts
        self._readings, self._parameters = state.readings, state.parameters
        self._chosen: dict[Selector, _Nodes] = {}
        self._near: dict[str, list[str]] = {}

    @cached_property
    def _measured(self) -> Collection[str]:
        return self._measure()

    @cached_property
    def _labels(self) -> Mapping[str, Mapping[str, str]]:
        """The labels of the nodes in service."""
        state = self._gossip.state
        described = {name: each for name, each in state.labels.items() if name not in state.retirements}
        return {**described, self._here: self._gossip.labels}

    def _nodes(self, definition: Definition) -> _Nodes:
        found = self._chosen.get(definition.selector)
        if found is None:
            variables = self._variables
            names = tuple(sorted(name for name, labels in self._labels.items() if definition.selects(labels)))
            measured = frozenset(each for name in names for each in variables.of(name))
            measured |= frozenset(self._measured if self._here in names else ())
            measured |= {name.partition(".")[0] for name in measured}
            found = _Nodes(names, measured, not any(map(variables.left_out, names)))
            self._chosen[definition.selector] = found
        return found

    def notes(self, definitions: Iterable[Definition]) -> tuple[str, ...]:
        """Sentences for the author of these definitions: expressions that no node can decide, and those decided already."""
        return tuple(dict.fromkeys(note for each in definitions for note in self._notes(each)))

    def _notes(self, definition: Definition) -> Iterator[str]:
        if not (definition.when or definition.clear_when or definition.on or definition.requirements):
            return
        expressions, nodes = list(expressions_of(definition)), self._nodes(definition)
        if expressions and expressions[0].source == definition.when and not expressions[0].variables:
            verdict = expressions[0].evaluate({}).verdict
            always = "undecided" if verdict is Verdict.UNKNOWN else verdict.value
            yield f"the expression reads no measurement, so it is always {always}"
        for name in sorted(read_parameters(definition)):
            reasons = {self._parameters.value(name, self._labels[node]).reason: node for node in reversed(nodes.names)}
            yield from (f"{reason} ({node})" for reason, node in sorted(reasons.items()) if reason)
        if not nodes.names:
            yield f"no known node {_having(definition.selector)}"
        elif nodes.measured or any(map(self._variables.told, nodes.names)):
            missing = self.missing(definition)
            yield from (self.sentence(definition, name) for name in missing[:NAMED])
        if definition.scope is not Scope.FLEET and NODES in self._read(definition) and NODES not in nodes.measured:
            yield f"`{NODES}` is read as a variable of each node: for the list of the nodes of the fleet add `scope` fleet"

    def missing(self, definition: Definition) -> list[str]:
        """The variables of a definition that none of its nodes measures, ordered. None if a node cannot tell all of its own."""
        nodes = self._nodes(definition)
        if not nodes.complete:
            return []
        missing = measured_names(self._read(definition)) - nodes.measured
        return sorted(name for name in missing if not any(other.startswith(f"{name}.") for other in missing))

    @staticmethod
    def _read(definition: Definition) -> set[str]:
        """The variables that a definition reads."""
        read = set(needs_of(definition))
        for each in expressions_of(definition):
            read |= each.variables | {name for name, _ in each.windows}
        return read

    def sentence(self, definition: Definition, variable: str) -> str:
        """The sentence on a variable that none of the nodes of a definition measures."""
        where = "" if definition.selector.is_everything else f" that {_having(definition.selector)}"
        if definition.on and not definition.requirements:
            where = f" with the {_labels(definition.on)}"
        if variable not in self._near and len(self._near) * len(self._variables) < MOST_COMPARED:
            untold = close_to(variable, list(self._measured)[:MOST_UNTOLD])
            self._near[variable] = self._variables.near(variable)[:1] or untold
        near = "".join(f" ({each} may be meant)" for each in self._near.get(variable, ()) if each != variable)
        return f"no node{where} measures {variable}{near}"

    def _failing(self, definition: Definition) -> tuple[str, str] | None:
        """A variable that no node measures and without which an expression always fails, and words for a `clear_when`."""
        missing = frozenset(self.missing(definition))
        for each in expressions_of(definition) if missing else ():
            read = missing & (each.variables | {name for name, _ in each.windows})
            if read and each.fails_without(missing):
                return min(read), "" if each.source == definition.when else ", which its `clear_when` reads"
        return None

    def reasons(self, ids: Iterable[str], live: Set[str]) -> tuple[dict[str, str], set[str]]:
        """The reason of each undecidable constraint of these, and the live nodes whose variables would have to be known for others.

        A constraint that can be decided without the variables that no node measures, as by the other side of `||`, is none; and
        none that a node told a state of. Reasons name the nearest variable for the first `NAMED` constraints only. O(constraints).
        """
        found, untold = dict[str, str](), set[str]()
        for id_ in ids:
            told = [each.state for each in self._verdicts.of(id_).values()]
            here = self._last(id_)
            by_fleet = any(each.scope is Scope.FLEET for each in self._constraints.definitions(id_))
            if by_fleet and here is not None:
                if here.verdict is not Verdict.UNKNOWN and not here.by_default:
                    continue  # decided, as `explain` has it, without what no node shares
                found[id_] = here.reason
            elif any(state is not VerdictState.UNKNOWN for state in told):
                continue
            for definition in self._constraints.definitions(id_):
                nodes = self._nodes(definition).names
                if nodes and definition.scope is Scope.FLEET:
                    unshared = [name for name in sorted(needs_of(definition)) if not self._is_shared(name, nodes)]
                    if unshared:
                        found[id_] = f"no node shares {unshared[0]}, which it reads of the nodes"
                    continue
                failing = self._failing(definition) if nodes else ("", "")
                silent = {name for name in nodes if name in live and not self._variables.told(name)}
                if not nodes:
                    found[id_] = f"no known node {_having(definition.selector)}"
                elif failing and silent:
                    untold |= silent
                elif failing and any(map(self._variables.told, nodes)):
                    missing, where = failing
                    told_of = self.sentence(definition, missing) if len(found) < NAMED else f"no node measures {missing}"
                    found[id_] = told_of + where
        return found, untold

    def _is_shared(self, name: str, nodes: Iterable[str]) -> bool:
        """True if any of the nodes shares this variable, or a field of it."""
        return any(each == name or each.startswith(f"{name}.") for node in nodes for each in self._readings.of(node))


def _having(selector: Selector) -> str:
    return f"matches {selector}" if selector.requirements else f"has the {_labels(selector.equal)}"


def _labels(labels: Sequence[Label]) -> str:
    shown = [f"{key}={value}" for key, value in labels]
    return f"label{'s' if len(shown) > 1 else ''} {named(shown)}"


def show_doubt(doubt: ClockDoubt) -> str:
    """Whose time a node goes by while its clock is in doubt."""
    if doubt.agreed:
        return f"it goes by the fleet's time, {doubt.offset / SECOND:+.1f} s from its own clock"
    return "too few of the others agree, so it goes by the earliest clock that it hears, and writes nothing that ends at a time"


class Diagnosis:
    """Checks a node for faults."""

    def __init__(
        self,
        gossip: GossipNode,
        evidence: Evidence,
        inbox: Inbox,
        missed_writers: MissedWriters,
        store: StoreHealth,
        *,
        seeds: Sequence[str],
        max_skew: float,
        file: Path | None,
        probes: Sequence[ProbeHealth] = (),
        measured: Callable[[], Collection[str]] = tuple,
        links: LinkProtection = "loopback",
        folder: str = "",
        listen: Sequence[str] = (),
        endpoints: Callable[[], Sequence[str]] = tuple,
        is_loopback: Callable[[str], bool] = lambda _: False,
        link_kinds: Callable[[], Mapping[str, str]] = dict,
        lacks_servers: Callable[[], bool] = bool,
        foreign: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`seeds`: the endpoints to connect to. `max_skew`: the tolerated difference of clocks, in seconds. `file`: the file of the
        store; None if the state is in memory. `measured`: gives the variables of this node within their maximum age. `links`: how
        the links are protected. `folder`: that of the node's identity, if any. `listen`: the endpoints to listen at, as they were
        given. `endpoints`: gives those for other nodes. `is_loopback`: true for an endpoint of this machine only. `link_kinds`:
        gives the link of each peer. `lacks_servers`: whether the fleet is too large for a link between all, and without a node that
        can be a router. `foreign`: the other fleets at the other ends of links, each with a node, while no node of this fleet is.
        """
        self._measured = measured
        self._gossip = gossip
        self._evidence = evidence
        self._inbox = inbox
        self._missed_writers = missed_writers
        self._store = store
        self._seeds = seeds
        self._max_skew = max_skew
        self._file = file
        self._links = links
        self.certified: CertifiedNode | None = None
        """The certificates of the node, if it has any."""
        self._folder = folder
        self._listen = listen
        self._endpoints = endpoints
        self._is_loopback = is_loopback
        self._link_kinds = link_kinds
        self._lacks_servers = lacks_servers
        self._foreign = foreign
        self._probes = probes
        self._namesake_at: int | None = None
        self.last: Callable[[str], Evaluation | None] = lambda _: None
        """Gives the last evaluation of a constraint on this node."""
        self.further: list[Callable[[], Iterable[Finding]]] = []
        """Checks of parts beside the node, such as its API."""

    def met_namesake(self) -> None:
        """Another live node has this node's name."""
        self._namesake_at = self._evidence.now()

    @property
    def trouble(self) -> str:
        """The fault of this node that the other nodes are told, in a sentence; empty for none."""
        if self._store.trouble is not None:
            return f"writes are refused: {self._store.trouble}"
        if self._store.lately is not None:
            return f"writes are refused now and then: {self._store.lately}"
        if self._namesake_at is not None and self._evidence.now() - self._namesake_at < NAMESAKE_TOLD:
            return f"another live node was called {self._gossip.node_id} too, as a copy would be"
        return ""

    def look(self) -> DiagnosisReport:
        """All findings available at once. O(nodes + constraints)."""
        findings = [*self._identity(), *self._fleet(), *self._state(), self._measuring(), *self._disabled()]
        findings += [self._constraints(), self._conflicts()]
        findings += [finding for check in self.further for finding in check()]
        return DiagnosisReport(node=self._gossip.node_id, worst=worst_of(findings), findings=tuple(findings))

    def faults(self) -> list[Finding]:
        """The findings that a status names: faults that it has no line of its own for, and values and alerts that do not come.

        O(nodes).
        """
        found = [*self._identity(), *self._fleet(), *self._state(), self._measuring()]
        found += [finding for check in self.further for finding in check()]
        shown = SHOWN | {"peers"} if set(self._evidence.names) - {self._gossip.node_id} else SHOWN
        shown = shown if self._store.trouble is not None else shown - {"store"}
        return [
            each
            for each in found
            if (each.level == "fail" and each.check not in shown) or (each.level == "warn" and each.check in WARNED)
        ]

    def look_outside(self) -> list[Finding]:
        """The findings on seeds and disk. Blocks: call it in a thread."""
        return [self.seeds(), check_disk(self._file)]

    def seeds(self) -> Finding:
        """The finding on the seeds. Blocks: call it in a thread."""
        own = (*self._listen, *self._endpoints())
        return check_seeds(self._seeds, self._folder, accept_plain=self._links == "mixed", own=own)

    def reach(self) -> Finding | None:
        """Why nodes of other machines cannot connect to this node, as far as its addresses show; None without such a reason."""
        endpoints = self._endpoints()
        everywhere = [each for each in self._listen if _host(each) in _WILDCARDS]
        if everywhere and endpoints and all(map(self._is_loopback, endpoints)):
            what = f"it listens at {named(everywhere)}, and found no address of this machine but {named([*map(_host, endpoints)])}"
            advice = "name the address with --listen tcp/ADDRESS:7447: others are told an address of this machine only"
            return Finding(check="listen", level="warn", what=what, advice=advice)
        alone = not self._seeds and not self._inbox.live and all(map(self._is_loopback, self._listen))
        if alone and (self._folder or self._gossip.fleet != DEFAULT_FLEET):
            what = "this node listens on this machine only, and connects to no other node"
            if not self._folder:  # it cannot listen beyond without an identity, and may be the first node of a trial
                return Finding(check="listen", level="ok", what=what)
            advice = "where the fleet has other machines, start it with --listen tcp/0.0.0.0:7447, or --connect to one of them"
            return Finding(check="listen", level="warn", what=what, advice=advice)
        return None

    def certificates(self) -> Iterator[Finding]:
        """The findings on the protection of the links, and on the certificates of the fleet."""
        yield self.protection()
        if self.certified is not None:
            yield from self.certified.findings()

    def protection(self) -> Finding:
        """The finding on the protection of the links, with the validity of the certificate of this node."""
        certified = self.certified
        return check_certificates(self._links, None if certified is None else certified.identity, self._evidence.now())

    def notes(self, constraints: Mapping[str, Sequence[Definition]]) -> dict[str, tuple[str, ...]]:
        """The notes on constraints with these definitions in force, see `Node.notes_on`. O(nodes + constraints)."""
        undecidable = Undecidable(self._gossip, self._measured, self.last)
        return {
            id_: (self._staged_note(id_) or undecidable.notes(definitions)) + self._disabled_note(id_)
            for id_, definitions in constraints.items()
        }

    def _staged_note(self, id_: str) -> tuple[str, ...]:
        """What a rollout does with a constraint."""
        for rollout in self._gossip.state.rollouts.covering(id_)[:1]:
            where = f"in the first {rollout.stage + 1} of {len(rollout.plan.stages)} stages"
            return (f"rollout {rollout.id}: nodes {where} judge by {rollout.plan.changes[id_].after.when or 'no expression'}",)
        return ()

    def _disabled_note(self, id_: str) -> tuple[str, ...]:
        switches = self._gossip.state.switches
        disabled = reported_disabling(switches.disabling(id_)) if switches.disabled else None
        return () if disabled is None else (show_disabled(disabled, self._evidence.now() / SECOND),)

    def clock_notes(self) -> tuple[str, ...]:
        """Sentences for the author of a constraint with an end, on the clock that decides about it. Empty for a usual clock."""
        time = self._gossip.time
        doubt = time.doubt
        if doubt is not None:
            return (f"the clock of this node is in doubt: {show_doubt(doubt)}",)
        if time.offsets or not (self._inbox.live or self._gossip.peer_count):
            return ()
        return ("no other clock was heard lately, so the end is by the clock of this node alone",)

    def _measuring(self) -> Finding:
        """The probes without values."""
        failed = [f"{each.name} ({each.trouble})" for each in self._probes if each.trouble is not None]
        if failed:
            advice = "the variables of these probes age, and what reads them becomes unknown: mend the probe or its sensor"
            return Finding(check="probes", level="warn", what=f"no values come from {named(failed)}", advice=advice)
        giving = named([each.name for each in self._probes])
        return Finding(check="probes", level="ok", what=f"values come from {giving}" if giving else "there are none")

    def _disabled(self) -> Iterator[Finding]:
        """The constraints that no node evaluates, as somebody disabled them."""
        state = self._gossip.state
        of_all = reported_disabling(state.switches.of_all)
        if of_all is not None:
            what = f"no constraint is evaluated on any node: {show_disabled(of_all, self._evidence.now() / SECOND)}"
            yield Finding(check="disabled", level="fail", what=what, advice="enable them: `constraint-crdt enable --all`")
            return
        found = [id_ for id_ in state.switches if id_ in state.constraints]
        if found:
            what = f"evaluated on no node: {named(found)}"
            advice = "`constraint-crdt constraints` says by whom and why; `constraint-crdt enable ID` ends it"
            yield Finding(check="disabled", level="warn", what=what, advice=advice)

    def undecidable(self, ids: Iterable[str]) -> tuple[dict[str, str], set[str]]:
        """Those of some constraints that no node can decide, each with the reason, and the nodes of which more has to be known."""
        live = {self._gossip.node_id, *self._inbox.live, *self._inbox.away}
        return Undecidable(self._gossip, self._measured, self.last).reasons(ids, live)

    def _constraints(self) -> Finding:
        """The constraints that no node can decide."""
        state = self._gossip.state
        found, untold = self.undecidable([id_ for id_ in sorted(state.constraints) if not state.rollouts.covering(id_)])
        if found:
            what = f"no node can decide {named([f'{id_} ({reason})' for id_, reason in found.items()])}"
            advice = (
                "measure these variables, or correct the expressions and labels; `constraint-crdt variables` lists what is measured"
            )
            return Finding(check="undecidable", level="warn", what=what, advice=advice)
        if untold:
            what = f"not known yet for all constraints: {named(sorted(untold))} did not tell which variables they measure"
            return Finding(check="undecidable", level="ok", what=what)
        return Finding(
            check="undecidable", level="ok", what="the nodes of each constraint measure its variables, as far as is known"
        )

    def _conflicts(self) -> Finding:
        """The constraints with several definitions, by concurrent edits."""
        found = self._gossip.state.constraints.conflicts()
        if not found:
            return Finding(check="conflicts", level="ok", what="each constraint has one definition")
        what = f"concurrent edits left several definitions of {named(found)}"
        advice = "all of them are in force: `constraint-crdt resolve ID` shows them, `--keep N` keeps one"
        return Finding(check="conflicts", level="warn", what=what, advice=advice)

    def _identity(self) -> Iterator[Finding]:
        name, at = self._gossip.node_id, self._namesake_at
        if at is not None and self._evidence.now() - at < NAMESAKE_FOR:
            advice = "give each node a name of its own (--name), then start both again"
            if self._folder:
                advice = (
                    f"an identity is for one machine: stop the copy of {self._folder}, and give its machine an identity of its own "
                    "(`constraint-crdt fleet invite`)"
                )
            yield Finding(check="name", level="fail", what=f"another live node was called {name} too", advice=advice)
        else:
            yield Finding(check="name", level="ok", what=f"no other node is called {name}")
        by = self._gossip.retired_by
        if by is not None:
            advice = (
                f"start it under another name; if that was a mistake, `constraint-crdt retire {name} --undo` on a node in service"
            )
            yield Finding(check="retired", level="fail", what=f"{name} was retired by {by}", advice=advice)
        yield from self._writers()
        yield self._clock()

    def _writers(self) -> Iterator[Finding]:
        """The faults of signed rows."""
        authority, local = self._gossip.authority, self._gossip.local
        if authority is None:
            return
        by = local.revoked_by or local.issuer_revoked_by
        if by is not None:
            of = "this node" if local.revoked_by else "the operator that certified this node"
            advice = (
                "make it a new identity, with a new key" if local.revoked_by else "it asks other operators by itself: see *renewal*"
            )
            yield Finding(check="revoked", level="fail", what=f"the key of {of} was revoked by {by}", advice=advice)
        for node in sorted({fork.node for fork in authority.forks.values()}):
            what = f"two different rows of {node} were seen: it runs twice, or lies; the longer row stands"
            advice = f"stop its copies; if there are none, `constraint-crdt fleet revoke {node}`"
            yield Finding(check="writers", level="fail", what=what, advice=advice)
        unproven = sorted({replica.node_id for replica in authority.unproven})
        if unproven:
            what = f"no operator vouches for what these wrote before the fleet had identities: {named(unproven)}"
            advice = "start the node of an operator that has all of it again, last of all and without --accept-plain"
            yield Finding(check="writers", level="warn", what=what, advice=advice)

    def _clock(self) -> Finding:
        time, most = self._gossip.time, self._max_skew
        off = [f"{name} {offset / SECOND:+.1f} s" for name, offset in sorted(time.offsets.items()) if abs(offset) > most * SECOND]
        doubt = time.doubt
        if doubt is not None:
            heard = named(off) or "none lately"
            what = (
                f"this node's clock differs by more than {most:g} s from at least half of those that it hears: {heard}; "
                f"{show_doubt(doubt)}"
            )
            return Finding(check="clock", level="fail", what=what, advice="set this machine's clock, and keep it by NTP")
        if off:
            what = f"clocks of peers differ from this one's by more than {most:g} s: {named(off)}"
            return Finding(check="clock", level="warn", what=what, advice="set the clocks of these machines, and keep them by NTP")
        if not time.offsets:
            return Finding(check="clock", level="ok", what="no peer's clock was heard lately, so this node's is compared with none")
        name, offset = max(time.offsets.items(), key=lambda each: abs(each[1]))
        of = f"the furthest of {len(time.offsets)}, " if len(time.offsets) > 1 else ""
        what = f"{name} is {offset / SECOND:+.2f} s from this node's clock, {of}where {most:g} s are tolerated"
        return Finding(check="clock", level="ok", what=what)

    def _other_fleets(self) -> Iterator[Finding]:
        """Whether the links lead to nodes of other fleets, as with a misspelt name of the fleet."""
        other = [f"{name} of fleet {fleet}" for fleet, name in self._foreign().items()]
        if other:
            what = f"at the other end of its links this node of fleet {self._gossip.fleet} finds {named(other)}"
            advice = "give this node the name of its fleet (--fleet), or the address of a node of its fleet (--connect)"
            yield Finding(check="fleet", level="fail", what=what, advice=advice)

    def _fleet(self) -> Iterator[Finding]:
        evidence, live = self._evidence, self._inbox.live
        ended = {self._gossip.node_id, *self._gossip.revoked_nodes}
        others = [name for name in evidence.names if name not in ended]
        if live:
            away = len(self._inbox.away - live)
            more = f", and {away} of other sites that it does not speak with" if away else ""
            yield Finding(check="peers", level="ok", what=f"live peers: {len(live)} of {len(others)} known{more}")
        elif others or self._seeds:
            links = self._gossip.links
            silent = [name for name in links if (link := links.get(name)) is not None and link.timeouts]
            advice = "look whether they run, whether their --fleet is the same, and whether a firewall is in between"
            if silent:
                advice = f"{named(sorted(silent))} can be reached, and did not answer in time: the links may be slow. {_SLOW}"
            yield from self._other_fleets()
            what = (
                f"this node sees no other one, and {len(others)} {'is' if len(others) == 1 else 'are'} known"
                if others
                else "this node sees no other one"
            )
            yield Finding(check="peers", level="fail", what=what, advice=advice)
        else:
            yield Finding(check="peers", level="ok", what="this node is alone, and was told of no other one (--connect)")
        yield from self._others(live)
        slow = slow_links(self._gossip.links, live)
        if slow:
            yield Finding(check="links", level="warn", what=f"slow links: {named([*map(str, slow)])}", advice=_SLOW)
        missed = [name for name in self._missed_writers.missed if name in others]
        if missed:
            what = (
                f"no link to {named(missed)}, which {'goes' if len(missed) == 1 else 'go'} on writing, as others tell: "
                f"{'its' if len(missed) == 1 else 'their'} news comes through others"
            )
            advice = (
                "this node tries their endpoints (`constraint-crdt nodes`) all the time: look whether a firewall or a route is "
                "missing between the two machines"
            )
            yield Finding(check="view", level="warn", what=what, advice=advice)
        around = {
            name: by
            for name in others
            if name not in missed and not evidence.is_seen(name) and (by := evidence.through(name)) is not None
        }
        if around:
            what = f"not heard here, but by others: {named([f'{name} through {by}' for name, by in around.items()])}"
            advice = "changes go around the missing link; look at the network between these machines and this one"
            yield Finding(check="links", level="warn", what=what, advice=advice)
        silent = [name for name in others if not evidence.is_seen(name) and name not in missed and name not in around]
        if silent and live:
            advice = "start them again; `constraint-crdt retire NODE` ends for good those that are not to come back"
            yield Finding(check="silent", level="warn", what=f"not live: {named(silent)}", advice=advice)
        kinds = self._link_kinds()
        if beside := sorted(name for name in others if kinds.get(name) == "side"):
            what = f"the usual link to {named(beside)} is broken or never came; a session for each link alone is in its place"
            yield Finding(check="links", level="ok", what=what)
        if self._lacks_servers():
            what = f"{len(others) + 1} nodes, each with a link to every other, as no node has an address at which others reach it"
            advice = (
                "let a node or more listen at an address of the network (--listen tcp/ADDRESS:7447): these become routers, and the "
                "others then have one link each"
            )
            yield Finding(check="links", level="warn", what=what, advice=advice)
        limits = self._inbox.size_limits
        if limits:
            yield _size_finding(limits)
        reach = self.reach()
        if reach is not None:
            yield reach
        yield self._software()

    def _others(self, live: Set[str]) -> Iterator[Finding]:
        """The faults that live nodes tell of themselves."""
        told = [f"{name} ({trouble})" for name in sorted(live) if (trouble := self._gossip.tracker.trouble(name))]
        if told:
            advice = "`constraint-crdt doctor` on these machines says what to do"
            yield Finding(check="others", level="warn", what=f"live nodes tell of a fault of theirs: {named(told)}", advice=advice)

    def _software(self) -> Finding:
        described = self._gossip.state.nodes
        live = {self._gossip.node_id, *self._inbox.live, *self._inbox.away}
        versions = sorted({described[name].software for name in live if name in described})
        if len(versions) > 1:
            what = f"the live nodes run different versions: {', '.join(versions)}"
            return Finding(check="software", level="warn", what=what, advice="upgrade the older ones when it suits")
        return Finding(check="software", level="ok", what=f"the live nodes run one version, this one with the {CORE} core")

    def _state(self) -> Iterator[Finding]:
        diverged = [name for name in self._evidence.names if self._evidence.diverged_since(name) is not None]
        if diverged:
            what = f"the state here and that of {named(diverged)} differ at equal clocks: one side is damaged"
            advice = "wait for the repair; if it does not come, start the damaged node once with --rejoin"
            yield Finding(check="agreement", level="fail", what=what, advice=advice)
        elif self._gossip.alarms:
            what = f"damage was found {counted(self._gossip.alarms, 'time')} since the start, and is repaired"
            yield Finding(
                check="agreement", level="warn", what=what, advice="test the memory and the disk of the machines concerned"
            )
        else:
            yield Finding(check="agreement", level="ok", what="no two nodes were found to differ at equal clocks")
        if self._inbox.refused:
            last = f"; the last: {self._inbox.refusal}" if self._inbox.refusal else ""
            what = f"{counted(self._inbox.refused, 'message', 'was', 'were')} refused since the start{last}"
            advice = "the log of this node says why: another version, another fleet, or beyond a limit"
            yield Finding(check="messages", level="warn", what=what, advice=advice)
        trouble = self._store.trouble
        if trouble is not None:
            advice = "make room, or make the disk writable: the node tries again by itself"
            yield Finding(check="store", level="fail", what=f"writes are refused: {trouble}", advice=advice)
        elif self._store.lately is not None:
            what = f"writes are refused now and then: {self._store.lately}"
            yield Finding(check="store", level="fail", what=what, advice="make room: the store finds some for a while by itself")
        else:
            yield Finding(check="store", level="ok", what=f"writes are taken ({self._store.path})")
        yield from check_name(self._gossip.node_id, socket.gethostname(), in_memory=self._file is None)
        yield from self.certificates()


def _size_finding(limits: Sequence[SizeLimit]) -> Finding:
    """The peers behind a path that drops long packets, or does not pass long messages for another reason."""
    told = [
        f"{each.peer} (none of {each.failed:,} bytes or more in {each.tries} tries; those of {each.passed:,} bytes do)"
        for each in limits
    ]
    advice = (
        "a tunnel or router on the way drops packets above some size without a word: let it clamp the MSS, or on both machines "
        "lower the MTU (`ip link set dev DEVICE mtu 1280`) or set `sysctl -w net.ipv4.tcp_mtu_probing=1` (docs/how-to/networks.md)"
    )
    return Finding(check="size", level="warn", what=f"short messages pass, long ones do not reach {named(told)}", advice=advice)


def check_name(name: str, host: str, *, in_memory: bool) -> Iterator[Finding]:
    """Whether the name of a node without a store is a name that its container gets at random: each start is another node then."""
    if in_memory and name == host and _RANDOM_NAME.fullmatch(name):
        what = (
            f"the name {name} is that of this container, which looks random, and the state is in memory: each start is another "
            "node, and the former ones stay as not live"
        )
        advice = "give the node a name that stays (--name) and a store, or set `retire_away_after`"
        yield Finding(check="name", level="warn", what=what, advice=advice)


def check_certificates(links: LinkProtection, identity: "Identity | None", now: int) -> Finding:
    """Whether strangers can open links to the node, and how long its certificate is valid. `now`: in ns since the epoch."""
    if links == "none":
        what = "the links are not protected: who reaches the port of a node can read and change everything"
        advice = "give each node an identity (`constraint-crdt fleet create`, then docs/security.md)"
        return Finding(check="certificates", level="warn", what=what, advice=advice)
    fault = None if identity is None else _certificate_fault(identity, now)
    if fault is not None:
        return fault
    if links == "mixed":
        what = "the fleet is open: nodes without a certificate are accepted, who can read and change everything"
        advice = "start the node again without --accept-plain as soon as all nodes have an identity"
        return Finding(check="certificates", level="warn", what=what, advice=advice)
    if identity is None:
        return Finding(check="certificates", level="ok", what="none: the node links to nodes of this machine only")
    subject, left = identity.subject, identity.ends - now
    of = f"the certificate of {subject.node} as {subject.role} of {subject.fleet}"
    if left < ENDS_SOON:
        from constraint_crdt.identity import moment

        advice = (
            "an operator's node that is live renews it; without one, run "
            f"`constraint-crdt fleet renew {subject.node}` where the root is, and copy its files here"
        )
        return Finding(check="certificates", level="warn", what=f"{of} is valid until {moment(identity.ends)}", advice=advice)
    return Finding(check="certificates", level="ok", what=f"{of} is valid for {left / DAY:.0f} days")


def _certificate_fault(identity: "Identity", now: int) -> Finding | None:
    """Why no node takes the certificate now: it, or its root, is not valid by the clock of this machine. None if both are.

    The sentence is the same at each look, so the log has it once.
    """
    from constraint_crdt.identity import moment, ns_of

    node, fleet, root = identity.subject.node, identity.subject.fleet, identity.root
    again = f"run `constraint-crdt fleet renew {node}` where the root is, and copy its files here"
    clock = "by the clock of this machine"
    new_fleet = "make the fleet a new root (`constraint-crdt fleet create`) and its nodes new identities"
    for certificate, of, advice in ((identity.certificate, node, again), (root, f"the root of {fleet}", new_fleet)):
        begins, ends = ns_of(certificate.not_valid_before_utc), ns_of(certificate.not_valid_after_utc)
        if now < begins:
            what = f"the certificate of {of} is valid from {moment(begins)} only, {clock}: no node links with this one"
            return Finding(check="certificates", level="fail", what=what, advice="set the clock of this machine")
        if now > ends:
            what = f"the certificate of {of} ended on {moment(ends)}, {clock}: no node links with this one"
            return Finding(check="certificates", level="fail", what=what, advice=f"set the clock if it is wrong, or {advice}")
    if root not in identity.roots:
        what = f"the former root of {fleet} signed the certificate of {node}, and is accepted no longer, {clock}"
        return Finding(check="certificates", level="fail", what=what, advice=f"set the clock if it is wrong, or {again}")
    return None


def check_seeds(endpoints: Sequence[str], identity: str = "", *, accept_plain: bool = False, own: Collection[str] = ()) -> Finding:
    """Try to connect to the seeds. Takes up to twice `SEED_TIMEOUT` for each.

    `identity`: the folder of the node's identity, to connect by TLS. `accept_plain`: a seed may also be without an identity. `own`:
    the endpoints of the node itself, which are left out.
    """
    own_addresses = set(map(_address, own))
    others = [endpoint for endpoint in endpoints if _address(endpoint) not in own_addresses]
    tried = [endpoint for endpoint in others if endpoint.partition("/")[0] in _TRIED][:SEEDS]
    if not others:
        beside = " beside this node" if endpoints else ""
        return Finding(check="seeds", level="ok", what=f"there are none to connect to{beside} (--connect)")
    if not tried:
        return Finding(check="seeds", level="ok", what="not tried: only those over TCP can be")
    failed = [f"{endpoint} ({why})" for endpoint in tried if (why := _refusal(endpoint, identity, accept_plain)) is not None]
    if not failed:
        return Finding(check="seeds", level="ok", what=f"all {len(tried)} answer" if len(tried) > 1 else f"{tried[0]} answers")
    advice = "look whether a node listens there (`--listen` on that machine) and whether a firewall is in between"
    level: Level = "warn" if len(failed) < len(tried) else "fail"
    return Finding(
        check="seeds",
        level=level,
        what=f"{len(failed)} of {len(tried)} {'does' if len(failed) == 1 else 'do'} not answer: {named(failed)}",
        advice=advice,
    )


def _address(endpoint: str) -> tuple[str, str]:
    """Host and port of an endpoint."""
    host, _, port = endpoint.partition("/")[2].partition("?")[0].partition("#")[0].rpartition(":")
    return host.strip("[]"), port


def _host(endpoint: str) -> str:
    return _address(endpoint)[0]


def _refusal(endpoint: str, identity: str, accept_plain: bool) -> str | None:
    """Why no node answers there that this node can link with; None if a node does."""
    host, port = _address(endpoint)
    try:
        with socket.create_connection((host, int(port)), SEED_TIMEOUT) as connection:
            if not identity:
                return "it answers by TLS only: give this node an identity (--identity)" if _answers_by_tls(connection) else None
            refusal = _tls_refusal(connection, identity)
            return None if accept_plain and refusal is not None and refusal.endswith(_NO_IDENTITY) else refusal
    except (ValueError, OverflowError):
        return "that is no host and port"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return error.strerror or str(error)


def _tls_refusal(connection: socket.socket, identity: str) -> str | None:
    """Why the other end refuses the identity, or this node its certificate; None if both are taken.

    In TLS 1.3 the other end judges the certificate of this node after the handshake: an alert follows, or silence.
    """
    from constraint_crdt.identity.directory import tls_context

    try:
        link = tls_context(Path(identity)).wrap_socket(connection)
    except TimeoutError:
        return "it does not answer by TLS: it has no identity"
    except ConstraintCrdtError as error:
        return str(error)
    except ssl.SSLError as error:
        return _tls_reason(error)
    with link:
        link.settimeout(ALERT_TIMEOUT)
        try:
            return None if link.recv(1) else "it closes the connection"
        except TimeoutError:
            return None
        except ssl.SSLError as error:
            return _tls_reason(error)


def _answers_by_tls(connection: socket.socket) -> bool:
    """True if the other end answers the beginning of TLS: by a certificate of any kind, or by an alert."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only whether it speaks TLS: nothing is sent to it
    connection.settimeout(TLS_PROBE_TIMEOUT)
    try:
        context.wrap_socket(connection).close()
    except ssl.SSLError as error:
        return error.reason not in _NO_TLS
    except OSError:  # it stays silent, or closes the connection
        return False
    return True


def _tls_reason(error: ssl.SSLError) -> str:
    return _TLS_REASONS.get(error.reason, f"TLS: {error.reason}")


def check_disk(path: Path | None) -> Finding:
    """Whether there is room for the store. `path`: its file; None if there is none."""
    if path is None:
        return Finding(check="disk", level="ok", what="nothing is kept on disk: the node forgets when it ends")
    folder = next((place for place in path.parents if place.exists()), Path())
    try:
        import shutil

        free = shutil.disk_usage(folder).free
    except OSError as error:
        advice = "look whether the disk is there, and who may read it"
        return Finding(check="disk", level="fail", what=f"cannot look at {folder}: {error.strerror or error}", advice=advice)
    what = f"{free // 1024**2} MiB are free in {folder}"
    if free < LOW_SPACE:
        return Finding(
            check="disk", level="fail" if free < NO_SPACE else "warn", what=what, advice="make room, or move the store (--store)"
        )
    return Finding(check="disk", level="ok", what=what)
