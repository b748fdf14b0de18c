"""Signed rows: the content covered by the signature of a writer, and the tree of hashes from which the signature is computed.

| kind | key | value |
|---|---|---|
| 28 SIGNATURE | "" | the signature of the row up to this cell |
| 29 SETTLED | the number of a stretch of `STRETCH` seqs | a bit for each seq of the stretch that the signature still covers |

A row *covers* the cells of its writer that no later cell of the same row replaced, SIGNATURE cells apart. A covered cell may stand,
or be *stubs*: removed by a cell of another row, or dropped by `collect`. Of a stub each node keeps the digest, and passes it on
with the runs of the row (`Run.stubs`), so that the signature can be checked against the rest.

The signature is about the replica, the seq, and the root of a tree of hashes (Merkle, 1988): blocks of the digests of 16 seqs, two
levels of 16 hashes each, and the root over these stretches of 4,096 seqs. A change of a long row computes few hashes again.

Rules kept here:

- The covered content follows from the row alone, never from removals. So every node with the same clock has the same.
- `predict` computes the root after a run without changing anything; `adopt` takes the prediction over after the run was applied.
- A SETTLED cell ends stubs: its writer states which seqs of a stretch are left. Other cells of the stretch do not stand.
- The tree of a row is made when it is first needed, O(cells), and follows each change after that, O(changes).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from functools import lru_cache
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from constraint_crdt.crdt.cells import MAX_KIND, Cell, Key, Run, Stub, core, make_cell, register, require, value_of
from constraint_crdt.crdt.clock import Replica, replica_bytes
from constraint_crdt.crdt.limits import KEY_BYTES, MAX_COUNT

SIGNATURE: Final = 28
SETTLED: Final = 29

SIGNATURE_BYTES: Final = 64
FAN: Final = 16
"""Digests of a block, and hashes below a hash."""

LEVELS: Final = 3
STRETCH: Final = FAN**LEVELS
"""Seqs below a hash of the highest level."""

HASH_BYTES: Final = 16
ROOT_BYTES: Final = 32
_TOP: Final = 128


def _check_signature(key: str, value: bytes) -> None:
    require(not key and len(value) == SIGNATURE_BYTES, "the signature of a row")


def _check_settled(key: str, value: bytes) -> None:
    require(key.isdecimal() and str(int(key)) == key and int(key) <= MAX_COUNT // STRETCH, "the number of a settled stretch")
    require(len(value) <= STRETCH // 8, "the seqs of a settled stretch")


register(SIGNATURE, bytes, _check_signature, key_bytes=1)
SIGNATURE_HEAD: Final = make_cell(SIGNATURE, "", bytes(SIGNATURE_BYTES)).data[:-SIGNATURE_BYTES]
"""The bytes of a SIGNATURE cell in front of the signature."""
register(SETTLED, bytes, _check_settled, key_bytes=20)


def check_stubs(stubs: Sequence[Stub], lo: int, hi: int) -> None:
    """Raise `ConstraintCrdtError` unless the stubs of a run go up from `lo` to `hi`, with digests and keys in bounds."""
    last = lo
    for seq, kind, key, digest in stubs:
        require(last < seq <= hi, "the seq of a stub")
        require(0 <= kind <= MAX_KIND and kind != SIGNATURE and len(digest) == HASH_BYTES, "a stub")
        require(key is None or len(key.encode()) <= KEY_BYTES, "the key of a stub")
        last = seq


_slot_of = attrgetter("kind", "key")


def check_slots(run: Run) -> None:
    """Raise `ConstraintCrdtError` for a run with two covered cells of one slot or seq: a row covers the later cell alone."""
    cells, stubs = run.cells, run.stubs
    if not stubs:
        require(not core.has_repeats(cells), "a row with two cells of one slot")
        return
    slots = set(map(_slot_of, cells))
    slots.update([_slot(each) for each in stubs])
    require(len(slots) == len(cells) + len(stubs), "a row with two cells of one slot")
    require({cell.seq for cell in cells}.isdisjoint([each.seq for each in stubs]), "a row with two cells of one seq")


def signed_text(fleet: str, replica: Replica, seq: int, root: bytes) -> bytes:
    """The bytes that the writer of a row signs: the row is these cells up to `seq`."""
    return _signed_head(fleet, replica) + seq.to_bytes(8) + root


@lru_cache(maxsize=4096)
def _signed_head(fleet: str, replica: Replica) -> bytes:
    return b"constraint-crdt row\0" + fleet.encode() + b"\0" + replica_bytes(replica)


def covered_digest(cell: Cell) -> bytes:
    """The digest by which a row covers a cell."""
    return (cell.digest >> _TOP).to_bytes(HASH_BYTES)


def signature_mark(cell: Cell) -> bytes:
    """Stands for the row that a SIGNATURE cell signs. Of one key and text there may be many signatures."""
    return core.blake(value_of(cell), HASH_BYTES, b"signature")


Hashes = dict[int, bytes | None]
"""Changed hashes of a level by their place; None for an empty place."""


class _Tree:
    """The hashes of a row, and its stubs."""

    __slots__ = ("by_seq", "by_slot", "levels")

    def __init__(self) -> None:
        self.levels: list[dict[int, bytes]] = [{} for _ in range(LEVELS)]
        self.by_slot: dict[tuple[int, Key], int] = {}
        self.by_seq: dict[int, Stub] = {}

    def put(self, stub: Stub) -> None:
        """Note a stub. Another stub of the slot loses its key, which a relay stated wrongly."""
        self.pop(stub.seq)
        self.rename(_slot(stub))
        self.by_slot[_slot(stub)] = stub.seq
        self.by_seq[stub.seq] = stub

    def rename(self, slot: tuple[int, Key]) -> None:
        """Take the key from the stub of a slot that another cell has. The hashes stay."""
        seq = self.by_slot.get(slot)
        if seq is not None:
            stub = self.by_seq[seq]
            self.pop(seq)
            self.by_slot[stub.kind, seq] = seq
            self.by_seq[seq] = stub._replace(key=None)

    def pop(self, seq: int) -> None:
        """Forget a stub."""
        stub = self.by_seq.pop(seq, None)
        if stub is not None:
            del self.by_slot[_slot(stub)]

    def above(self, lo: int) -> list[Stub]:
        """The stubs above a seq, in ascending order."""
        return [self.by_seq[seq] for seq in sorted(self.by_seq) if seq > lo]


class Prediction(NamedTuple):
    """A row after a run, before the run is applied."""

    run: Run
    root: bytes
    levels: list[dict[int, bytes]]
    """All hashes of a whole row."""
    hashes: Sequence[Hashes]
    """The changed hashes of each level, of another."""
    stubs: Sequence[Stub]
    """The stubs that the run brings."""
    gone: frozenset[int]
    """The seqs that the row covers no longer."""
    whole: bool
    """The run is the row from 0, and replaces the copy here."""
    superseded: Sequence[Cell] = ()
    """The standing cells that the row covers no longer, and that no cell of the run replaces."""
    known: int = 0
    """The clock of the row before the run."""
    noted: Sequence[Cell] = ()
    """The new cells that a reader takes a look at before it applies the run."""


class FollowedRows(Protocol):
    """The rows whose signatures are followed. `crdt.rows` has them."""

    def between(self, replica: Replica, lo: int, hi: int) -> Sequence[Cell]:
        """The standing cells of a row with lo < seq <= hi, in ascending order."""

    def get(self, kind: int, key: Key, replica: Replica) -> Cell | None:
        """The standing cell of a kind and key in a row."""

    def noted(self, replica: Replica) -> tuple[Sequence[Cell], Set[int] | None]:
        """Cells of a row in ascending order, and the seqs of those among them that do not stand."""

    def superseded(self, cells: Sequence[Cell]) -> list[int]:
        """The seqs of the standing cells of the slots of some cells, signatures apart."""


class SignedRows:
    """The trees of the rows of a node. Rows without a signature have none."""

    def __init__(self, rows: FollowedRows) -> None:
        self._rows = rows
        self._standing = rows.between
        self._find = rows.get
        self._trees: dict[Replica, _Tree] = {}
        self._dirty: dict[Replica, set[int] | None] = {}
        """The blocks to be hashed again before the next root; None: all."""
        self._changed: set[Replica] = set()

    def __contains__(self, replica: object) -> bool:
        return replica in self._trees

    def copy(self, rows: FollowedRows) -> "SignedRows":
        """The signed rows of a copy of the rows. O(stubs)."""
        twin = SignedRows(rows)
        for replica, tree in self._trees.items():
            twin.begin(replica, tree.by_seq.values())
        return twin

    def begin(self, replica: Replica, stubs: Iterable[Stub] = ()) -> None:
        """Follow a row: a new row, or a row from a store, with its stubs."""
        tree = self._trees[replica] = _Tree()
        for each in stubs:
            tree.put(each)
        self._dirty[replica] = None

    def forget(self, replica: Replica) -> None:
        """Follow a row no longer."""
        self._trees.pop(replica, None)
        self._dirty.pop(replica, None)
        self._changed.add(replica)

    def stubs(self, replica: Replica, lo: int = 0) -> list[Stub]:
        """The stubs of a row above a seq, in ascending order. O(stubs of the row)."""
        tree = self._trees.get(replica)
        return tree.above(lo) if tree is not None and tree.by_seq else []

    def covers(self, cell: Cell) -> bool:
        """True if the cell is among those that the writer signed, standing here or a stub."""
        tree = self._trees.get(cell.replica)
        if tree is None:
            return False
        stub = tree.by_seq.get(cell.seq)
        if stub is not None:
            return stub.digest == covered_digest(cell)
        standing = self._find(cell.kind, cell.key, cell.replica)
        return standing is not None and standing.seq == cell.seq and standing.digest == cell.digest

    def count(self) -> int:
        """The number of stubs. O(rows)."""
        return sum([len(tree.by_seq) for tree in self._trees.values()])

    def has_stub(self, kind: int, key: Key, replica: Replica) -> bool:
        """True if a removed cell of this kind and key is still covered by the row."""
        tree = self._trees.get(replica)
        return tree is not None and (kind, key) in tree.by_slot

    def continues(self, run: Run, known: int) -> bool:
        """True if a whole row has no cell up to `known` that is not in the row here, and replaces those that it does not have.

        Any new stub may be of a cell that replaced others: the keys of stubs are not signed. O(cells).
        """
        tree = self._trees.get(run.replica)
        if tree is None:
            return False
        mine = {cell.seq: covered_digest(cell) for cell in self._standing(run.replica, 0, known) if cell.kind != SIGNATURE}
        mine |= {seq: each.digest for seq, each in tree.by_seq.items()}
        theirs = {cell.seq: covered_digest(cell) for cell in run.cells if cell.seq <= known and cell.kind != SIGNATURE}
        theirs |= {each.seq: each.digest for each in run.stubs if each.seq <= known}
        if not theirs.items() <= mine.items():
            return False
        if run.stubs and run.stubs[-1].seq > known:
            return True
        new = {(cell.kind, cell.key) for cell in run.cells if cell.seq > known}
        return all(
            cell.kind == SIGNATURE or (cell.kind, cell.key) in new or (SETTLED, str(cell.seq // STRETCH)) in new
            for cell in self.replaced_by(run, known)
        )

    def replaced_by(self, run: Run, known: int) -> list[Cell]:
        """The standing cells up to `known` that a whole row which continues the row here does not cover. O(cells)."""
        covered = {cell.seq for cell in run.cells} | {each.seq for each in run.stubs}
        return [cell for cell in self._standing(run.replica, 0, known) if cell.seq not in covered]

    def take_changed(self) -> set[Replica]:
        """The rows whose stubs changed since the last call, for a store."""
        changed, self._changed = self._changed, set()
        return changed

    # --- the writer ------------------------------------------------------------------------------------------------------

    def written(self, replica: Replica, cells: Sequence[Cell]) -> None:
        """The writer appends cells to its own row, one at least: called before they are put."""
        tree = self._trees.get(replica)
        if tree is None:
            return
        ended = self._rows.superseded(cells)
        if tree.by_seq:
            ended += self._end_stubs(tree, cells)
        dirty = self._dirty[replica]
        if dirty is not None:
            dirty.update(range(cells[0].seq // FAN, cells[-1].seq // FAN + 1))
            for seq in ended:
                dirty.add(seq // FAN)

    def _end_stubs(self, tree: _Tree, cells: Sequence[Cell]) -> list[int]:
        """Forget the stubs that new cells of the writer end. Returns their seqs."""
        ended: list[int] = []
        for cell in cells:
            if cell.kind == SETTLED:
                ended += unsettled(cell, tree.by_seq)
            left = tree.by_slot.get((cell.kind, cell.key))
            if left is not None:
                ended.append(left)
            for seq in ended:
                tree.pop(seq)
        if ended:
            self._changed.add(cells[0].replica)
        return ended

    def root(self, replica: Replica) -> bytes:
        """The root of a followed row as it is. O(changes since the last call); O(cells) the first time."""
        return self._freshen(replica) or _root(self._trees[replica].levels[-1])

    def _freshen(self, replica: Replica) -> bytes | None:
        """Bring the hashes of a row up to date. Returns the root if a part of them was computed, None otherwise."""
        tree, dirty, root = self._trees[replica], self._dirty[replica], None
        if dirty is None:
            tree.levels = _hashes_of(self._standing(replica, 0, MAX_COUNT), tree.above(0))
        elif dirty:
            path, root = self._path(replica, tree, dirty)
            core.put_hashes(tree.levels, path)
        else:
            return None
        self._dirty[replica] = set()
        return root

    def settled_cells(self, replica: Replica, least: int) -> list[Cell]:
        """The SETTLED cells by which the writer ends the stubs of its row; none while they are fewer than `least`."""
        tree = self._trees[replica]
        if len(tree.by_seq) < least:
            return []
        found = []
        for stretch in sorted({seq // STRETCH for seq in tree.by_seq}):
            low = stretch * STRETCH
            bits = 0
            for cell in self._standing(replica, low - 1, low + STRETCH - 1):
                if cell.kind != SIGNATURE:
                    bits |= 1 << cell.seq - low
            found.append(make_cell(SETTLED, str(stretch), bits.to_bytes(STRETCH // 8, "little").rstrip(b"\0")))
        return found

    # --- the readers -----------------------------------------------------------------------------------------------------

    def predict(self, run: Run, known: int, noted: Sequence[Cell] = ()) -> Prediction:
        """The row after `run`, whose cells have their digests. `known`: the clock of the row here, at least the `lo` of the run.
        `noted`: see `Prediction`.

        Raises `ConstraintCrdtError` for malformed stubs.
        """
        stubs = run.stubs
        check_stubs(stubs, run.lo, run.hi)
        check_slots(run)
        tree = self._trees.get(run.replica)
        if run.lo == 0 or tree is None or not known:
            levels = _hashes_of(run.cells, stubs)
            return Prediction(run, _root(levels[-1]), levels, (), stubs, frozenset(), True, noted=noted)
        self._freshen(run.replica)
        new = [cell for cell in (run.cells if run.lo == known else run.above(known)) if cell.kind != SIGNATURE]
        news = [each for each in stubs if each.seq > known]
        gone = set(self._rows.superseded(new))
        for cell in new if tree.by_slot else ():
            seq = tree.by_slot.get((cell.kind, cell.key))
            if seq is not None:
                gone.add(seq)
        superseded: list[Cell] = []
        for each in news:
            slot = _slot(each)
            before = self._find(*slot, run.replica)
            if before is not None:
                gone.add(before.seq)
                superseded.append(before)
            if slot in tree.by_slot:
                gone.add(tree.by_slot[slot])
        added = [each.seq for each in new]
        if news:
            added += [each.seq for each in news]
        settled = [cell for cell in new if cell.kind == SETTLED]
        by_stretch: dict[int, list[int]] = {}
        for seq in (*tree.by_seq, *added) if settled else ():
            by_stretch.setdefault(seq // STRETCH, []).append(seq)
        for cell in settled:
            low = int(cell.key) * STRETCH
            standing = [each.seq for each in self._standing(run.replica, low - 1, low + STRETCH - 1)]
            gone.update(unsettled(cell, [*by_stretch.get(int(cell.key), ()), *standing]))
        touched = {seq // FAN for seq in (*gone, *added)}
        hashes, root = self._path(run.replica, tree, touched, new, news, gone)
        return Prediction(run, root, [], hashes, news, frozenset(gone), False, superseded, known, noted)

    def predict_next(self, run: Run) -> tuple[Sequence[Hashes], bytes] | None:
        """The changed hashes and the root after the usual run, which begins at the end of the row here.

        None where `predict` has to say it, or refuses it: there are stubs, or two cells of one slot.
        """
        replica, cells = run.replica, run.cells
        tree = self._trees.get(replica)
        if tree is None or tree.by_seq or run.stubs or core.has_repeats(cells):
            return None
        dirty = self._dirty[replica]
        if dirty is None or dirty:
            self._freshen(replica)
        noted, dropped = self._rows.noted(replica)
        return core.hash_path(noted, dropped, cells, set(self._rows.superseded(cells)), {}, tree.levels, _FORM)

    def adopt_next(self, replica: Replica, hashes: Sequence[Hashes]) -> None:
        """Take the hashes of `predict_next` over, after the run was applied."""
        core.put_hashes(self._trees[replica].levels, hashes)

    def adopt(self, prediction: Prediction) -> None:
        """Take a prediction over, after its run was applied."""
        replica, run = prediction.run.replica, prediction.run
        if prediction.whole:
            before = self._trees.get(replica)
            tree = self._trees[replica] = _Tree()
            tree.levels = prediction.levels
            ended = before.by_seq if before is not None else {}
            for cell in run.cells if ended else ():
                if cell.seq in ended:  # it is removed here
                    tree.put(_stub_of(cell))
            standing = {cell.seq for cell in self._standing(replica, 0, run.hi)} if prediction.stubs else ()
            for each in prediction.stubs:
                if each.seq not in standing:  # else the sender lacks the cell
                    taken = _slot(each) in tree.by_slot or self._find(*_slot(each), replica) is not None
                    tree.put(each._replace(key=None) if taken else each)
            self._dirty[replica] = set()
        else:
            tree = self._trees[replica]
            for seq in prediction.gone:
                tree.pop(seq)
            for each in prediction.stubs:
                tree.put(each)
            core.put_hashes(tree.levels, prediction.hashes)
        if tree.by_seq or prediction.gone or prediction.whole:
            self._changed.add(replica)

    def died(self, cell: Cell) -> None:
        """A cell does not stand any more, and no later cell of its row replaced it."""
        tree = self._trees.get(cell.replica)
        if tree is None or cell.kind == SIGNATURE:
            return
        tree.put(_stub_of(cell))
        self._changed.add(cell.replica)

    def revived(self, cell: Cell) -> None:
        """A repair lets a stub stand again."""
        tree = self._trees.get(cell.replica)
        if tree is not None and cell.seq in tree.by_seq:
            tree.pop(cell.seq)
            tree.rename((cell.kind, cell.key))
            self._changed.add(cell.replica)

    # --- the tree --------------------------------------------------------------------------------------------------------

    def _path(
        self,
        replica: Replica,
        tree: _Tree,
        touched: Iterable[int],
        new: Sequence[Cell] = (),
        news: Sequence[Stub] = (),
        gone: Collection[int] = frozenset(),
    ) -> tuple[list[Hashes], bytes]:
        """The changed hashes of all levels and the root: with new cells and stubs, which come after all others, and without those
        that are gone.

        `touched`: the places of the blocks, those of the new cells and stubs and of what is gone among them.
        """
        stubs: Mapping[int, Stub] = tree.by_seq
        if news:
            stubs = {**stubs, **{each.seq: each for each in news}}
        blocks: dict[int, bytes | None] = dict.fromkeys(touched)
        for block in blocks if stubs else ():
            low = block * FAN
            if not stubs.keys().isdisjoint(range(low, low + FAN)):
                cells = self._standing(replica, low - 1, low + FAN - 1)
                # Without any content a block counts as one whose cells are to be looked at: there are none.
                blocks[block] = _mixed(block, cells, new, stubs, gone)
        noted, dropped = self._rows.noted(replica)
        return core.hash_path(noted, dropped, new, gone, blocks, tree.levels, _FORM)


def _mixed(
    block: int, cells: Sequence[Cell], new: Sequence[Cell], stubs: Mapping[int, Stub], gone: Collection[int]
) -> bytes | None:
    """The hash of a block that has stubs."""
    low = block * FAN
    digests = {seq: stubs[seq].digest for seq in range(low, low + FAN) if seq in stubs and seq not in gone}
    for cell in (*cells, *new[core.position(new, low - 1) : core.position(new, low + FAN - 1)]):
        if cell.kind != SIGNATURE and cell.seq not in gone and cell.seq not in digests:
            digests[cell.seq] = covered_digest(cell)
    return _hash([digests[seq] for seq in sorted(digests)], 0) if digests else None


def _stub_of(cell: Cell) -> Stub:
    return Stub(cell.seq, cell.kind, cell.key if isinstance(cell.key, str) else None, covered_digest(cell))


def _slot(stub: Stub) -> tuple[int, Key]:
    return stub.kind, stub.seq if stub.key is None else stub.key


def unsettled(cell: Cell, seqs: Iterable[int]) -> list[int]:
    """Those of `seqs` that a SETTLED cell does not list."""
    low, bits = int(cell.key) * STRETCH, int.from_bytes(value_of(cell), "little")
    return [seq for seq in seqs if low <= seq < low + STRETCH and seq < cell.seq and not bits >> seq - low & 1]


def _hash(parts: Sequence[bytes], level: int) -> bytes:
    return core.blake(b"".join(parts), HASH_BYTES, _PERSONS[level])


_PERSONS: Final = tuple(b"row tree %d" % level for level in range(LEVELS))
_PERSON_OF_ROOT: Final = b"row root"
_FORM: Final = (SIGNATURE, FAN, HASH_BYTES, _PERSONS, ROOT_BYTES, _PERSON_OF_ROOT)


def _hashes_of(cells: Sequence[Cell], stubs: Sequence[Stub]) -> list[dict[int, bytes]]:
    """The hashes of a whole row. O(cells)."""
    levels = [core.hash_blocks(cells, SIGNATURE, FAN, HASH_BYTES, _PERSONS[0])]
    removed: dict[int, dict[int, bytes]] = {}
    for stub in stubs:
        removed.setdefault(stub.seq // FAN, {})[stub.seq] = stub.digest
    for block, digests in removed.items():
        low = block * FAN - 1
        for cell in cells[core.position(cells, low) : core.position(cells, low + FAN)]:
            if cell.kind != SIGNATURE:
                digests[cell.seq] = covered_digest(cell)
        levels[0][block] = _hash([digests[seq] for seq in sorted(digests)], 0)
    if removed:
        levels[0] = dict(sorted(levels[0].items()))
    for person in _PERSONS[1:]:
        levels.append(core.hash_level(levels[-1], FAN, HASH_BYTES, person))
    return levels


def _root(stretches: dict[int, bytes]) -> bytes:
    return core.hash_places(stretches, {}, HASH_BYTES, ROOT_BYTES, _PERSON_OF_ROOT)
