"""Variables: the names and kinds that each node measures, as told by the node itself.

| kind | key | value |
|---|---|---|
| 26 VARIABLES | "" | `[[[name, kind], …], left out, life]`, ordered by name; trailing defaults left out |

`kind` is a number of `VARIABLE_KINDS`. A node has a single cell, written when the names or kinds change. Rules kept here:

- A cell has at most 1,000 variables, and at most `VARIABLES_BYTES` of them. Of more, the first by name are told, and the number of
  the others. `nodes`, `kinds` and `near` do not know the others.
- A node without variables since its start states that on request only. So an absent cell says nothing: the node may be of 0.1.0.
- A reader ignores further elements, and reads the number of an unknown kind as `mixed`. Later versions may add both.
- No cell is removed: 0.1.0 refuses a message with a removal of a kind that it does not know. A node without variables overwrites
  its cell with an empty value.
- Of several lives of a node, the cell with the highest `life` counts, then the order of the replicas. `life` is the number of
  takeovers, as in `verdicts`: a new life takes over with its first cell, and a life without knowledge of the former ones as soon as
  it hears of them and states its variables again.
- The variables of retired nodes are left out. Readings are updated with each cell, and never recomputed.
"""

import enum
from collections.abc import Iterator, Mapping
from heapq import nlargest
from itertools import pairwise
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.crdt.cells import Cell, make_cell, register, require, require_counts, require_text, value_of
from constraint_crdt.crdt.clock import Replica, check_id, writer
from constraint_crdt.crdt.limits import CELL_BYTES, MAX_COUNT
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import InvalidType
from constraint_crdt.model import close_to
from constraint_crdt.types.nodes import RETIRE, UNDO, Retirements
from constraint_crdt.types.view import IndexedView

VARIABLES: Final = 26

NODE_KEY: Final = ""

MOST_VARIABLES: Final = 1_000
"""Variables in a cell."""

VARIABLES_BYTES: Final = CELL_BYTES - 64
"""The encoded variables of a cell."""

NEAR: Final = 3
"""Names in an answer of `near`."""

COMPARED: Final = 200
"""Names that `near` compares letter by letter. A comparison takes up to 0.1 ms."""


class VariableKind(enum.StrEnum):
    """The kind of the values of a variable."""

    MIXED = "mixed"
    """Values of several kinds, or of none of the others."""
    DOUBLE = "double"
    """Numbers, whole ones included."""
    STRING = "string"
    """Texts."""
    BOOL = "bool"
    """True and false."""
    LIST = "list"
    """Lists of values of any kind."""
    MAP = "map"
    """Maps from texts to values of any kind."""


VARIABLE_KINDS: Final = (
    VariableKind.MIXED,
    VariableKind.DOUBLE,
    VariableKind.STRING,
    VariableKind.BOOL,
    VariableKind.LIST,
    VariableKind.MAP,
)
"""The kinds by their numbers on the wire."""

Kinds = Mapping[str, VariableKind]


class VariableValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A variable inside the value of a VARIABLES cell."""

    name: str
    kind: int = 0


class VariablesValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a VARIABLES cell."""

    variables: tuple[VariableValue, ...] = ()
    left_out: int = 0
    life: int = 0


def _check_variables(key: str, value: VariablesValue) -> None:
    require(not key, "the key of the variables of a node")
    require(len(value.variables) <= MOST_VARIABLES, "the number of variables of a node")
    require_counts((value.left_out, value.life, *(each.kind for each in value.variables)), "a number of the variables of a node")
    for each in value.variables:
        require(bool(each.name), "the name of a variable")
        require_text(each.name, "the name of a variable")


register(VARIABLES, VariablesValue, _check_variables, removable=True)


def kind_of(value: object) -> VariableKind:
    """The kind of a measured value."""
    if isinstance(value, bool):
        return VariableKind.BOOL
    if isinstance(value, str):
        return VariableKind.STRING
    if isinstance(value, Mapping):
        return VariableKind.MAP
    if isinstance(value, list | tuple):
        return VariableKind.LIST
    return VariableKind.DOUBLE if hasattr(value, "__float__") or hasattr(value, "__index__") else VariableKind.MIXED


def _pairs(name: str) -> set[tuple[str, str]]:
    return set(pairwise(name))


class _Standing(NamedTuple):
    """A cell that stands, with its place in the order of the lives of a node."""

    life: int
    replica: Replica
    kinds: Kinds
    left_out: int

    @property
    def rank(self) -> tuple[int, Replica]:
        """Of the cells of several lives the highest rank counts."""
        return self.life, self.replica


def _standing(cell: Cell) -> _Standing:
    value: VariablesValue = value_of(cell)
    known = len(VARIABLE_KINDS)
    kinds = {each.name: VARIABLE_KINDS[each.kind] if each.kind < known else VariableKind.MIXED for each in value.variables}
    return _Standing(value.life, cell.replica, MappingProxyType(dict(sorted(kinds.items()))), value.left_out)


_NONE: Final[Kinds] = MappingProxyType({})


class MeasuredVariables(IndexedView):
    """The variables of all nodes in service: `in`, `len` and iteration are over their names.

    Readings are O(1), or O(names returned). All mappings are ordered by name or node, except `kinds`.
    """

    KINDS = (VARIABLES, RETIRE, UNDO)

    def __init__(self, rows: Rows | None = None, *, retirements: Retirements | None = None) -> None:
        """`retirements`: those over the same rows, if they are kept already."""
        rows = Rows() if rows is None else rows
        self._retirements = Retirements(rows) if retirements is None else retirements
        super().__init__(rows)
        self._retirements.watch(self._show)

    # --- following cells -------------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        self._held: dict[str, _Standing] = {}
        """The cell that counts, by node."""
        self._shown: dict[str, _Standing] = {}
        self._by_name: dict[str, dict[str, VariableKind]] = {}
        self._kinds: dict[str, VariableKind] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None or cell.kind != VARIABLES:
            return
        node, before = cell.replica.node_id, self._held.get(cell.replica.node_id)
        after = _standing(new) if new is not None else None
        if after is None or (before is not None and before.replica == after.replica and before.rank > after.rank):
            after = self._latest(node)
        elif before is not None and before.rank > after.rank:
            return
        if after is None:
            self._held.pop(node, None)
        else:
            self._held[node] = after
        self._show(node)

    def _latest(self, node: str) -> _Standing | None:
        """The cell that counts, from all lives of a node. O(rows with variables)."""
        cells = (cell for cell in self._rows.held(VARIABLES, NODE_KEY) if cell.replica.node_id == node)
        return max(map(_standing, cells), key=lambda each: each.rank, default=None)

    def _show(self, node: str) -> None:
        """Bring the readings of a node up to date."""
        before = self._shown.pop(node, None)
        after = self._held.get(node) if node not in self._retirements else None
        if after is not None:
            self._shown[node] = after
        was, now = before.kinds if before is not None else _NONE, after.kinds if after is not None else _NONE
        for name in was.keys() | now.keys():
            if was.get(name) is not now.get(name):
                self._move(name, node, now.get(name))

    def _move(self, name: str, node: str, kind: VariableKind | None) -> None:
        nodes = self._by_name.setdefault(name, {})
        if kind is not None:
            nodes[node] = kind
        else:
            del nodes[node]
        found = set(nodes.values())
        self._kinds.pop(name, None)
        if len(found) == 1 and VariableKind.MIXED not in found:
            self._kinds[name] = found.pop()
        if not nodes:
            del self._by_name[name]

    # --- reading -------------------------------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._by_name))

    def __repr__(self) -> str:
        return f"MeasuredVariables({len(self)} variables on {len(self._shown)} nodes)"

    def of(self, node_id: str) -> Kinds:
        """The variables that a node measures, with their kinds; without those left out of its cell."""
        shown = self._shown.get(node_id)
        return shown.kinds if shown is not None else _NONE

    def told(self, node_id: str) -> bool:
        """True if the node has told its variables, none included."""
        return node_id in self._shown

    def left_out(self, node_id: str) -> int:
        """The number of further variables of a node, without room in its cell."""
        shown = self._shown.get(node_id)
        return shown.left_out if shown is not None else 0

    def nodes(self, name: str) -> tuple[str, ...]:
        """The nodes that measure a variable, ordered by name."""
        return tuple(sorted(self._by_name.get(name, ())))

    def kinds(self) -> Kinds:
        """The kind of each variable with a single kind on all nodes, `mixed` left out. A live view, in no order."""
        return MappingProxyType(self._kinds)

    def near(self, name: str) -> list[str]:
        """The names most similar to a name, at most three, the most similar first. O(names), some 30 ms for 10,000.

        Of more than `COMPARED` names, those that share most pairs of neighbouring letters are compared.
        """
        names = sorted(self._by_name)
        if len(names) > COMPARED:
            pairs = _pairs(name)
            names = nlargest(COMPARED, names, key=lambda each: len(pairs & _pairs(each)) - abs(len(each) - len(name)))
        return close_to(name, names, NEAR)

    # --- writing -------------------------------------------------------------------------------------------------------

    def put(self, variables: Kinds, *, node: str | Replica, even_none: bool = False) -> bool:
        """State the variables of a node, in place of those before. True if a cell was written: not for the same variables.

        `even_none`: state also that a node measures no variables and never did. Raises `TypeError` for another kind, and
        `ConstraintCrdtError` for a name out of bounds.
        """
        replica = writer(node)
        value = wire_variables(variables)
        cells = (cell for cell in self._rows.held(VARIABLES, NODE_KEY) if cell.replica.node_id == replica.node_id)
        lives = [each.life if each.replica == replica else min(each.life + 1, MAX_COUNT) for each in map(_standing, cells)]
        if not value and not lives and not even_none:
            return False
        life = max(lives, default=0)
        cell = make_cell(VARIABLES, NODE_KEY, value if not life else [*value, *([], 0)[len(value) :], life])
        standing = self._rows.get(VARIABLES, NODE_KEY, replica)
        if standing is not None and standing.data == cell.data:
            return False
        self._rows.write(replica, cell)
        return True


def wire_variables(variables: Kinds) -> list[object]:
    """The variables as the value of a cell, without `life`: the first by name within the bounds, and the number of the others."""
    told: list[list[object]] = []
    room = VARIABLES_BYTES
    for name, kind in sorted(variables.items()):
        if not isinstance(kind, VariableKind):
            raise InvalidType(f"the kind of a variable is a VariableKind, not {kind!r}")
        entry = [check_id(name, "the name of a variable"), VARIABLE_KINDS.index(kind)]
        room -= len(msgspec.msgpack.encode(entry))
        if room >= 0 and len(told) < MOST_VARIABLES:
            told.append(entry)
        else:
            room = -1  # the first ones only, also where a shorter name follows
    left_out = len(variables) - len(told)
    return [told, left_out] if left_out else [told] if told else []
