"""The operations on values of the whole fleet (its counters, its position, the labels in use), and on its members."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from constraint_crdt.errors import ConstraintCrdtError, WritesRefused
from constraint_crdt.model import Operator
from constraint_crdt.operations.operation import (
    DELETE,
    GET,
    PAGED,
    POST,
    PUT,
    Body,
    Column,
    Command,
    CompositeCommand,
    Empty,
    Flag,
    Freshness,
    Lines,
    Operation,
    Paged,
    Problem,
    Reply,
    Right,
    Table,
    UsageError,
    View,
    concatenated,
    in_field,
    not_found,
    parse_duration,
    wrong,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.client.blocking import Client
    from constraint_crdt.runtime.node import Node


# --- counters ---------------------------------------------------------------------------------------------------------------------


class GetCounter(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/counters/{name}`."""

    name: str


class Moved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/counters/{name}`."""

    by: int = 1


class MoveCounter(Moved, frozen=True, kw_only=True):
    """A move, and of which counter."""

    name: str


class CounterReport(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a counter."""

    name: str
    value: int
    increments: int
    decrements: int
    by_node: dict[str, int]
    """The sum of moves per node."""


async def _counters(node: "Node", _: Empty) -> list[CounterReport]:
    return node.counters.reports()


def show_counters(answer: list[CounterReport], _: Empty, __: "Namespace") -> View:
    """A row for each counter."""
    columns = [Column("counter"), *(Column(title, right=True) for title in ("value", "up by", "down by", "nodes"))]
    return Table(columns, [[each.name, each.value, each.increments, each.decrements, len(each.by_node)] for each in answer])


COUNTERS: Final = Operation(
    name="counters",
    method=GET,
    path="/v1/counters",
    summary="The counters that were ever moved.",
    request=Empty,
    response=list[CounterReport],
    run=_counters,
    freshness=Freshness.STATE,
    command=Command(name="counters", example="counters", help="the counters of the fleet", group="state", show=show_counters),
)


async def _counter(node: "Node", request: GetCounter) -> CounterReport:
    try:
        return node.counters.report(request.name)
    except KeyError:
        detail = f"there is no counter {request.name!r} yet: the first move begins it"
        raise not_found(detail, name=request.name, known=node.gossip.state.counters) from None


def _value(client: "Client", flags: "Namespace") -> CounterReport:
    """The value of a counter; with `--by`, after a move."""
    if not flags.name:
        raise UsageError("a counter has a name of 1 to 256 bytes: give one")
    return client.counter(flags.name) if flags.by is None else client.move_counter(flags.name, flags.by)


def show_counter(answer: CounterReport, _: "Namespace") -> View:
    """The values by name."""
    return Lines(
        [
            ("counter", answer.name),
            ("value", answer.value),
            ("moves", f"up by {answer.increments}, down by {answer.decrements}"),
            ("by node", ", ".join(f"{node} {moved:+d}" for node, moved in answer.by_node.items())),
        ]
    )


COUNTER: Final = Operation(
    name="counter",
    method=GET,
    path="/v1/counters/{name:any_text}",
    summary="What a counter stands at.",
    about="The value of a counter.",
    request=GetCounter,
    response=CounterReport,
    run=_counter,
    freshness=Freshness.STATE,
    command=CompositeCommand(
        name="counter",
        example="counter parts --by 1",
        help="what a counter of the fleet stands at",
        group="state",
        options={
            "name": Flag(metavar="NAME"),
            "by": Flag("--by", type=int, metavar="N", help="move it by so much first, down by a negative number"),
        },
        call=_value,
        show=show_counter,
    ),
)


async def _move_counter(node: "Node", request: MoveCounter) -> CounterReport:
    try:
        return await node.counters.move(request.name, request.by)
    except WritesRefused:
        raise
    except ValueError as error:
        raise wrong(f"`by`: {error}", "by") from None
    except ConstraintCrdtError as error:
        raise wrong(str(error), None if error.field == "name" else "by") from None


MOVE_COUNTER: Final = Operation(
    name="move_counter",
    method=POST,
    path="/v1/counters/{name:any_text}",
    right=Right.MEASURE,
    summary="Move it up or down.",
    about="Move a counter up, or down by a negative number.",
    request=MoveCounter,
    response=CounterReport,
    run=_move_counter,
    body=Body(shape=Moved),
    positional=("name", "by"),
)


# --- the position -----------------------------------------------------------------------------------------------------------------


class Moving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/position`."""

    position: tuple[int, int]


class NodePosition(msgspec.Struct, frozen=True, kw_only=True):
    """The last position written by a node."""

    position: tuple[int, int]
    norm: int
    distance: int
    """Steps on the lattice to the position of the fleet."""


class PositionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The position of the fleet, if any, and of its nodes."""

    position: tuple[int, int] | None
    norm: int | None
    by: str | None
    """The writing node."""
    time: int | None
    """The time of the write, in ns since the epoch by the clock of that node."""
    nodes: dict[str, NodePosition]


async def _position(node: "Node", _: Empty) -> PositionReport:
    return node.position()


def _move_first(client: "Client", flags: "Namespace") -> PositionReport:
    """The positions; with two coordinates, after a move of the fleet."""
    to = _coordinates(flags.to)
    return client.position() if to is None else client.move(to)


def _coordinates(texts: list[str]) -> tuple[int, int] | None:
    if not texts:
        return None
    try:
        numbers = [int(text) for text in texts]
    except ValueError:
        numbers = []
    if len(numbers) != 2:
        raise UsageError(f"{' '.join(texts)!r} is no position: give two whole numbers, as in 3 -1")
    return numbers[0], numbers[1]


def show_position(answer: PositionReport, _: "Namespace") -> View:
    """The position of the fleet, and a row for each node with a position."""
    if answer.position is None or answer.time is None:
        return "no position is given yet: `position A B` gives one"
    when = datetime.fromtimestamp(answer.time / 1e9).astimezone().isoformat(sep=" ", timespec="seconds")
    columns = [Column("node"), *(Column(title, right=True) for title in ("position", "norm", "steps away"))]
    return [
        Lines([("position", _pair(answer.position)), ("norm", answer.norm), ("written", f"by {answer.by}, {when}")]),
        "",
        Table(columns, [[node, _pair(own.position), own.norm, own.distance] for node, own in answer.nodes.items()]),
    ]


def _pair(point: Sequence[int]) -> str:
    return "{}, {}".format(*point)


POSITION: Final = Operation(
    name="position",
    method=GET,
    path="/v1/position",
    summary="Where the fleet and its nodes are.",
    request=Empty,
    response=PositionReport,
    run=_position,
    freshness=Freshness.STATE,
    command=CompositeCommand(
        name="position",
        example="position 3 -2",
        help="where the fleet and its nodes are",
        group="state",
        options={"to": Flag(nargs="*", metavar="A B", help="move the fleet to this lattice point first")},
        call=_move_first,
        show=show_position,
    ),
)


async def _move(node: "Node", request: Moving) -> PositionReport:
    with in_field("position"):
        await node.update_position(request.position)
    return node.position()


MOVE: Final = Operation(
    name="move",
    method=PUT,
    path="/v1/position",
    right=Right.MEASURE,
    summary="Move the fleet.",
    request=Moving,
    response=PositionReport,
    run=_move,
    body=Body(shape=Moving),
    positional=("position",),
)

# --- labels -----------------------------------------------------------------------------------------------------------------


class LabelReport(msgspec.Struct, frozen=True, kw_only=True):
    """A label of a node, or in a selector of an active constraint."""

    label: str
    """As `key=value`."""
    nodes: tuple[str, ...]
    """The nodes with the label, by name. Retired nodes have none."""
    constraints: tuple[str, ...]
    """The active constraints with a definition for nodes with the label, by id."""


async def _labels(node: "Node", request: Paged) -> Reply[list[LabelReport]]:
    state = node.gossip.state
    nodes: defaultdict[str, list[str]] = defaultdict(list)
    constraints: defaultdict[str, list[str]] = defaultdict(list)
    for name in node.node_names():
        described = state.nodes.get(name)
        if described is not None and name not in state.retirements:
            for key, value in described.labels:
                nodes[f"{key}={value}"].append(name)
    with node.gossip.time.held():
        for id_ in sorted(state.constraints):
            selectors = [each.definition.selector for each in state.constraints.additions(id_)]
            required = {pair for each in selectors for pair in each.equal}
            required |= {
                (each.key, value)
                for selector in selectors
                for each in selector.requirements
                if each.operator is Operator.IN
                for value in each.values
            }
            for key, value in required:
                constraints[f"{key}={value}"].append(id_)
    page, following = request.page(sorted({*nodes, *constraints}))
    found = [LabelReport(label=each, nodes=tuple(nodes[each]), constraints=tuple(constraints[each])) for each in page]
    return Reply(found, next_after=following)


def show_labels(answer: list[LabelReport], _: Paged, __: "Namespace") -> View:
    """A row for each label."""
    columns = [Column("label"), Column("nodes"), Column("constraints")]
    return Table(columns, [[each.label, ", ".join(each.nodes) or "-", ", ".join(each.constraints) or "-"] for each in answer])


LABELS: Final = Operation(
    name="labels",
    method=GET,
    path="/v1/labels",
    summary="The labels in use, with their nodes and constraints.",
    request=Paged,
    response=list[LabelReport],
    run=_labels,
    parameters=PAGED,
    freshness=Freshness.STATE,
    join=concatenated,
    command=Command(
        name="labels",
        example="labels",
        help="the labels of the nodes, and the constraints that select them",
        group="fleet",
        show=show_labels,
    ),
)

# --- members and invitations ------------------------------------------------------------------------------------------------------


class MemberReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node with a certificate of the fleet, as far as this node knows."""

    node: str
    role: str
    fingerprint: str
    """SHA-256 of its key, in hex digits."""
    certified_by: str
    """The operator that signed its latest certificate known here; empty if the root did."""
    ends: int
    """The end of that certificate, in ns since the epoch. A node that is not live may have renewed it since."""
    live: bool
    newest_root: bool
    """That certificate ends at the newest root of the fleet."""
    revoked: bool


@contextmanager
def _with_certificates() -> Iterator[None]:
    """Turn an error about certificates, of a node without an identity as well, into a conflict with the state of the node."""
    try:
        yield
    except ConstraintCrdtError as error:
        raise Problem(HTTPStatus.CONFLICT, str(error)) from None


async def _members(node: "Node", _: Empty) -> list[MemberReport]:
    with _with_certificates():
        return node.certificates.member_reports()


SHOWN_FINGERPRINT = 12
"""Digits of a fingerprint in a table."""


def show_members(answer: list[MemberReport], _: Empty, __: "Namespace") -> View:
    """A row for each member. The root has a column while the fleet has two."""
    columns = [Column(title) for title in ("node", "role", "key", "certified by", "certificate ends", "live")]
    rotating = not all(each.newest_root for each in answer)
    columns += [Column("root")] if rotating else []
    rows = [
        [
            each.node,
            each.role,
            each.fingerprint[:SHOWN_FINGERPRINT],
            each.certified_by or "the root",
            _day(each.ends),
            "revoked" if each.revoked else "yes" if each.live else "no",
            *(["new" if each.newest_root else "former"] if rotating else []),
        ]
        for each in answer
    ]
    return Table(columns, rows)


def _day(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1e9, tz=UTC):%Y-%m-%d %H:%M} UTC"


MEMBERS: Final = Operation(
    name="members",
    method=GET,
    path="/v1/members",
    summary="The nodes with certificates of the fleet.",
    request=Empty,
    response=list[MemberReport],
    run=_members,
    errors=frozenset({409}),
    command=Command(
        name="fleet members",
        example="fleet members",
        help="the nodes with certificates of the fleet",
        group="fleet",
        show=show_members,
    ),
)


class Inviting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/invitations`."""

    role: str = "member"
    name: str = ""
    """The only name that may join by it; empty: any that is free."""
    uses: int = 1
    valid: float = 3600.0
    """Seconds."""


class InvitationReport(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation of this node."""

    id: str
    role: str
    name: str
    uses: int
    used: tuple[str, ...]
    """The nodes that joined by it."""
    ends: int
    """In ns since the epoch."""
    token: str = ""
    """The text to paste on the machine that joins; given once, in the answer to `invite`."""
    note: str = ""
    """Why other machines may not reach the address in the token, or that its port is another than usual, and the advice; empty
    without such a reason.
    """


class WithdrawInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """`DELETE /v1/invitations/{id}`."""

    id: str


async def _invite(node: "Node", request: Inviting) -> Reply[InvitationReport]:
    with _with_certificates():
        certificates = node.certificates
    made = await certificates.invite(request.role, request.name, request.uses, request.valid)
    reach = None if node.settings.join_listen else node.diagnosis.reach()
    notes = [made.note, "" if reach is None else f"{reach.what}: {reach.advice}"]
    return Reply(msgspec.structs.replace(made, note="; ".join(filter(None, notes))), created=True)


async def _invitations(node: "Node", _: Empty) -> list[InvitationReport]:
    with _with_certificates():
        return node.certificates.invitations()


async def _withdraw(node: "Node", request: WithdrawInvitation) -> InvitationReport:
    with _with_certificates():
        certificates = node.certificates
        certificates.invitations()
    try:
        return certificates.withdraw(request.id)
    except ConstraintCrdtError as error:
        raise not_found(str(error)) from None


def _invite_or_withdraw(client: "Client", flags: "Namespace") -> InvitationReport:
    if flags.withdraw is not None:
        return client.withdraw_invitation(flags.withdraw)
    return client.invite(role=flags.role, name=flags.name, uses=flags.uses, valid=parse_duration(flags.valid))


def show_invitation(answer: InvitationReport, _: "Namespace") -> View:
    """The command that joins by a new invitation."""
    if not answer.token:
        return f"the invitation {answer.id} is withdrawn"
    who = f"{answer.uses} machines" if answer.uses > 1 else "one machine"
    called = f" called {answer.name}" if answer.name else ""
    lines = [f"note: {answer.note}"] if answer.note else []
    return [
        *lines,
        f"invitation {answer.id}: {who}{called} may join as {answer.role} until {_day(answer.ends)}; on that machine, run",
        "",
        f"constraint-crdt node --join {answer.token}",
    ]


def show_invitations(answer: list[InvitationReport], _: Empty, __: "Namespace") -> View:
    """A row for each open invitation."""
    columns = [Column(title) for title in ("invitation", "role", "for", "used", "ends")]
    return Table(
        columns,
        [[each.id, each.role, each.name or "any name", f"{len(each.used)} of {each.uses}", _day(each.ends)] for each in answer],
    )


INVITE: Final = Operation(
    name="invite",
    method=POST,
    path="/v1/invitations",
    right=Right.OPERATE,
    summary="Invite a machine to the fleet.",
    request=Inviting,
    response=InvitationReport,
    run=_invite,
    errors=frozenset({409}),
    body=Body(shape=Inviting),
    command=CompositeCommand(
        name="fleet invite",
        example="fleet invite --name anvil",
        help="invite a machine to the fleet: prints the command to run there",
        group="fleet",
        options={
            "role": Flag("--role", default="member", metavar="ROLE", help="observer or member; default: member"),
            "valid": Flag("--valid", default="1h", metavar="TIME", help="how long it may join; default: 1h"),
            "name": Flag("--name", default="", metavar="NAME", help="the only name that may join"),
            "uses": Flag("--uses", type=int, default=1, metavar="N", help="how many machines may join; default: 1"),
            "withdraw": Flag("--withdraw", metavar="ID", help="end an open invitation instead"),
        },
        call=_invite_or_withdraw,
        show=show_invitation,
    ),
)

INVITATIONS: Final = Operation(
    name="invitations",
    method=GET,
    path="/v1/invitations",
    summary="The open invitations of the node.",
    request=Empty,
    response=list[InvitationReport],
    run=_invitations,
    errors=frozenset({409}),
    command=Command(
        name="fleet invitations",
        example="fleet invitations",
        help="the open invitations of the node",
        group="fleet",
        show=show_invitations,
    ),
)

WITHDRAW_INVITATION: Final = Operation(
    name="withdraw_invitation",
    method=DELETE,
    path="/v1/invitations/{id}",
    right=Right.OPERATE,
    summary="End an open invitation.",
    request=WithdrawInvitation,
    response=InvitationReport,
    run=_withdraw,
    errors=frozenset({409}),
    positional=("id",),
)


class Revoking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/revocations`."""

    node: str
    reason: str = ""
    undo: bool = False
    """Also remove all constraints whose standing definitions the node wrote, of any age."""
    dry_run: bool = False
    """Only report the effects."""


class RevocationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The revocation of a node."""

    node: str
    keys: tuple[str, ...]
    """The fingerprints of its keys."""
    revoked: bool
    """All of its keys are revoked."""
    already: bool = False
    """They were before this request."""
    constraints: tuple[str, ...]
    """The constraints with a standing definition by the node, for review."""
    certified: tuple[str, ...]
    """The nodes whose latest certificate is by it, without revoked ones: they ask other operators for another by themselves."""


async def _revoke(node: "Node", request: Revoking) -> RevocationReport:
    with _with_certificates():
        node.certificates  # noqa: B018 - raises without an identity
    try:
        return await node.revoke(request.node, reason=request.reason, undo=request.undo, dry_run=request.dry_run)
    except KeyError:
        raise not_found(f"no member {request.node!r} is known here: `constraint-crdt fleet members` lists them", "node") from None
    except WritesRefused:
        raise
    except ConstraintCrdtError as error:
        raise Problem(HTTPStatus.CONFLICT, str(error)) from None


def show_revocation(answer: RevocationReport, request: Revoking, _: "Namespace") -> View:
    """The revocation, and the constraints left for review."""
    done = f"{answer.node} is revoked" if answer.revoked else f"{answer.node} would be revoked"
    lines = [f"{done}: its links end, and what it writes from now on counts nowhere"]
    if answer.already:
        lines = [f"{answer.node} is already revoked: its links have ended, and what it writes counts nowhere"]
    if answer.constraints:
        told = ", ".join(answer.constraints)
        lines.append(f"removed, as it wrote them: {told}" if request.undo and answer.revoked else f"it wrote: {told}")
        if not request.undo:
            lines.append(
                "next: look at them; `constraint-crdt remove ID` removes one, and "
                f"`constraint-crdt fleet revoke {answer.node} --undo` all of them, of any age"
            )
    if answer.certified:
        lines.append(f"it certified {', '.join(answer.certified)}: they ask other operators for new certificates by themselves")
    return lines


REVOKE: Final = Operation(
    name="revoke",
    method=POST,
    path="/v1/revocations",
    right=Right.OPERATE,
    summary="Revoke the keys of a node.",
    about="Revoke the keys of a node: its links end, and its further writes count nowhere. `dry_run` only reports.",
    request=Revoking,
    response=RevocationReport,
    run=_revoke,
    body=Body(shape=Revoking),
    errors=frozenset({404, 409}),
    positional=("node",),
    command=Command(
        name="fleet revoke",
        example="fleet revoke anvil --dry-run",
        help="end the links and the rights of a node, as of a stolen machine",
        group="fleet",
        flags={
            "node": Flag(metavar="NODE", help="its name, as `fleet members` shows it"),
            "reason": Flag("--reason", default="", metavar="TEXT", help="stands in the state, 200 bytes at most"),
            "undo": Flag("--undo", action="store_true", help="also remove all constraints that it wrote, of any age"),
            "dry_run": Flag("--dry-run", action="store_true", help="say what it would mean, and do nothing"),
        },
        show=show_revocation,
    ),
)


class RenewalReport(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate of the node."""

    node: str
    ends: int
    """In ns since the epoch."""


async def _renew(node: "Node", _: Empty) -> RenewalReport:
    with _with_certificates():
        return await node.certificates.renew()


def show_renewal(answer: RenewalReport, _: "Namespace") -> View:
    """The new end."""
    return f"{answer.node} has a certificate until {_day(answer.ends)}"


RENEW: Final = Operation(
    name="renew",
    method=POST,
    path="/v1/renew",
    right=Right.OPERATE,
    own_node=True,
    summary="Renew the certificate of the node now.",
    request=Empty,
    response=RenewalReport,
    run=_renew,
    errors=frozenset({409}),
)
