"""Beside other CRDT libraries: pycrdt (Yjs), loro and automerge, and constraint-crdt with its compiled core and without it.

    python benchmarks/peers.py [--rows fleet,blank] [--repeats 5] [--constraints 100000] [--json] [--check]

Ids are random and of realistic length. Each measurement is a process of its own, the processes of a row alternate, and a figure is
the median of its repeats. Times are CPU times, both sides of an exchange together. Every message is encoded, and decoded by its
reader. Each library is used in the way that suits it best:

- here: a constraint per item, the counts of a node or of a constraint; exchanges of encoded messages, large ones packed;
- pycrdt: a map of items, and, since it has no counter, a map of cumulative counts; state vectors and the updates above them;
- loro: a map of items and counters; version vectors and the updates above them;
- automerge: a map of items and its sync messages. No fleet: its sync needs a state per pair, and it has no batch of counters.

A definition is an expression with a severity: fields here, a JSON text in a map of another library. The rows named "pure" are those
of `CONSTRAINT_CRDT_PURE=1`. They have no bars.
"""

import argparse
import gc
import json
import os
import random
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import psutil
from report import Row, machine, show

REPLICAS, ROUNDS, EXCHANGES = 50, 200, 250
CONSTRAINTS = 100_000
MANY = 1_000
CHANGES = 200
"""Repeats of an exchange with a single change, and without, in a process."""

RIVALS = ("pycrdt", "loro", "automerge")
OURS, PURE = "constraint-crdt", "pure"


@dataclass(frozen=True, slots=True)
class Item:
    """What a replica adds."""

    id: str
    when: str | None
    severity: str

    @property
    def text(self) -> str | int:
        """The value in a map of another library."""
        return 1 if self.when is None else json.dumps({"when": self.when, "severity": self.severity})


def items(count: int, seed: int, *, definitions: bool) -> list[Item]:
    """Random items of realistic ids. The same seed gives the same items."""
    chance = random.Random(seed)
    places = ("dock", "lift", "aisle", "arm", "gate", "belt")
    variables = ("speed_mps", "gpu_temp_c", "battery", "distance_m", "torque_nm")
    made = []
    for _ in range(count):
        id_ = f"{chance.choice(places)}-{chance.getrandbits(48):012x}"
        when = f"{chance.choice(variables)} <= {chance.randrange(1, 10_000) / 100}" if definitions else None
        made.append(Item(id_, when, chance.choice(("warning", "critical"))))
    return made


class Library(ABC):
    """A replica of a library: one document of its own."""

    @abstractmethod
    def add(self, item: Item) -> None:
        """Add an item."""

    @abstractmethod
    def count(self, id_: str, total: int) -> None:
        """Count once under a name; `total` is the cumulative count."""

    @abstractmethod
    def exchange(self, other: Any) -> int:
        """Bring both replicas to the same knowledge, this one first. Returns the bytes that travelled."""

    @abstractmethod
    def save(self) -> bytes:
        """The whole content for a blank replica."""

    @abstractmethod
    def load(self, data: bytes) -> None:
        """Take in what another replica saved."""

    @abstractmethod
    def known(self) -> int:
        """How many items are known."""

    @abstractmethod
    def read(self) -> int:
        """Read every item with its definition; returns how many have one."""

    @abstractmethod
    def commit(self) -> None:
        """End a transaction, where the library needs to be told."""


class Ours(Library):
    """constraint-crdt."""

    def __init__(self, name: str) -> None:
        from constraint_crdt import GossipNode
        from constraint_crdt.protocol.messages import decode_message

        self.name, self.node, self._decode = name, GossipNode(name), decode_message

    def add(self, item: Item) -> None:
        state = self.node.state
        # Without compiling the expression, which no other library does.
        self.node.write(lambda me: state.constraints.add(item.id, node=me, when=item.when, severity=item.severity))

    def count(self, id_: str, total: int) -> None:  # noqa: ARG002 - the counter adds up by itself
        self.node.record_satisfied(1, constraint=id_ or None)

    def commit(self) -> None:
        pass

    def exchange(self, other: "Ours") -> int:
        decode, sent, sender, reader = self._decode, 0, self, other
        messages = [self.node.begin(other.name)]
        while messages:
            answers = []
            for message in messages:
                for data in sender.node.encoded(message, reader.name):
                    sent += len(data)
                    answers += reader.node.receive(decode(data)).responses
            sender, reader, messages = reader, sender, answers
        return sent

    def save(self) -> bytes:
        from constraint_crdt import Replica, VectorClock
        from constraint_crdt.protocol.messages import encode_message

        return encode_message(self.node.delta_since(VectorClock({Replica("nobody", 0): 0})))

    def load(self, data: bytes) -> None:
        self.node.receive(self._decode(data, max_bytes=None))

    def known(self) -> int:
        return len(self.node.state.constraints)

    def read(self) -> int:
        constraints = self.node.state.constraints
        return sum(any(each.when for each in constraints.definitions(id_)) for id_ in constraints)


class Pycrdt(Library):
    """pycrdt (Yjs)."""

    def __init__(self, _: str) -> None:
        from pycrdt import Doc, Map

        self.doc: Any = Doc()
        self.items = self.doc.get("items", type=Map)
        self.counts = self.doc.get("counts", type=Map)

    def add(self, item: Item) -> None:
        self.items[item.id] = item.text

    def count(self, id_: str, total: int) -> None:
        self.counts[id_ or str(self.doc.client_id)] = total

    def commit(self) -> None:
        pass

    def exchange(self, other: "Pycrdt") -> int:
        mine, theirs = self.doc.get_state(), other.doc.get_state()
        there, here = self.doc.get_update(theirs), other.doc.get_update(mine)
        other.doc.apply_update(there)
        self.doc.apply_update(here)
        return len(mine) + len(theirs) + len(there) + len(here)

    def save(self) -> bytes:
        return bytes(self.doc.get_update())

    def load(self, data: bytes) -> None:
        self.doc.apply_update(data)

    def known(self) -> int:
        return len(self.items)

    def read(self) -> int:
        return sum(isinstance(value, str) for _, value in self.items.items())


class Loro(Library):
    """loro."""

    def __init__(self, _: str) -> None:
        import loro

        self.loro: Any = loro
        self.doc: Any = self.loro.LoroDoc()
        self.items: Any
        self.items, self.counts, self.counter = self.doc.get_map("items"), self.doc.get_map("counts"), self.doc.get_counter("count")

    def add(self, item: Item) -> None:
        self.items.insert(item.id, item.text)

    def count(self, id_: str, total: int) -> None:  # noqa: ARG002 - the counter adds up by itself
        counter: Any = self.counts.get_or_create_container(id_, self.loro.LoroCounter()) if id_ else self.counter
        counter.increment(1)

    def commit(self) -> None:
        self.doc.commit()

    def exchange(self, other: "Loro") -> int:
        updates, vector = self.loro.ExportMode.Updates, self.loro.VersionVector.decode
        mine, theirs = self.doc.oplog_vv.encode(), other.doc.oplog_vv.encode()
        there, here = self.doc.export(updates(vector(theirs))), other.doc.export(updates(vector(mine)))
        other.doc.import_(there)
        self.doc.import_(here)
        return len(mine) + len(theirs) + len(there) + len(here)

    def save(self) -> bytes:
        return bytes(self.doc.export(self.loro.ExportMode.Snapshot()))

    def load(self, data: bytes) -> None:
        self.doc.import_(data)

    def known(self) -> int:
        return len(self.items)

    def read(self) -> int:
        return sum(isinstance(value, str) for value in self.items.get_deep_value().values())


class Automerge(Library):
    """automerge."""

    def __init__(self, _: str) -> None:
        from automerge import core

        self.core: Any = core
        self.doc: Any = core.Document()
        self._change: Any = None
        self._states: dict[int, Any] = {}

    def _in_transaction(self) -> Any:
        if self._change is None:
            self._change = self.doc.transaction().__enter__()
        return self._change

    def add(self, item: Item) -> None:
        text = item.text
        kind = self.core.ScalarType.Str if isinstance(text, str) else self.core.ScalarType.Int
        self._in_transaction().put(self.core.ROOT, item.id, kind, text)

    def count(self, id_: str, total: int) -> None:
        raise NotImplementedError("automerge takes part in no row with counts")

    def commit(self) -> None:
        if self._change is not None:
            self._change.__exit__(None, None, None)
            self._change = None

    def exchange(self, other: "Automerge") -> int:
        sent, quiet = 0, 0
        mine = self._states.setdefault(id(other), self.core.SyncState())
        theirs = other._states.setdefault(id(self), self.core.SyncState())
        sides = [(self.doc, mine, other.doc, theirs), (other.doc, theirs, self.doc, mine)]
        while quiet < 2:
            for speaker, spoken, hearer, heard in sides:
                message = speaker.generate_sync_message(spoken)
                quiet = quiet + 1 if message is None else 0
                if message is not None:
                    data = message.encode()
                    sent += len(data)
                    hearer.receive_sync_message(heard, self.core.Message.decode(data))
        return sent

    def save(self) -> bytes:
        return bytes(self.doc.save())

    def load(self, data: bytes) -> None:
        self.doc = self.core.Document.load(data)

    def known(self) -> int:
        return int(self.doc.length(self.core.ROOT))

    def read(self) -> int:
        doc, root = self.doc, self.core.ROOT
        return sum(isinstance(doc.get(root, key)[0][1], str) for key in doc.keys(root))


LIBRARIES: Mapping[str, Callable[[str], Library]] = {
    OURS: Ours,
    PURE: Ours,
    "pycrdt": Pycrdt,
    "loro": Loro,
    "automerge": Automerge,
}

Figures = dict[str, float]


# --- what is measured, each in a process of its own ------------------------------------------------------------------


def fleet(make: Callable[[str], Library], seed: int, _: int, *, definitions: bool, per_item: bool) -> Figures:
    """Replicas that add and count in turns, then push and pull in random pairs. Only the exchanges are timed."""
    replicas = [make(f"robot-{number:03d}") for number in range(REPLICAS)]
    for number, replica in enumerate(replicas):
        for turn, item in enumerate(items(ROUNDS, seed * 1_000 + number, definitions=definitions), 1):
            replica.add(item)
            replica.count(item.id if per_item else "", 1 if per_item else turn)
        replica.commit()
    chance, sent = random.Random(seed), 0
    pairs = [chance.sample(range(REPLICAS), 2) for _ in range(EXCHANGES)]
    start = process_time()
    for one, other in pairs:
        sent += replicas[one].exchange(replicas[other])
    return {"ms": (process_time() - start) * 1e3, "bytes": sent, "known": sum(each.known() for each in replicas)}


def _filled(make: Callable[[str], Library], constraints: int, seed: int, *, definitions: bool) -> Library:
    library = make("robot-001")
    for item in items(constraints, seed, definitions=definitions):
        library.add(item)
    library.commit()
    return library


def blank(make: Callable[[str], Library], seed: int, constraints: int, *, definitions: bool) -> Figures:
    """A blank replica exchanges with a full one."""
    full, empty = _filled(make, constraints, seed, definitions=definitions), make("robot-002")
    start = process_time()
    sent = empty.exchange(full)
    return {"ms": (process_time() - start) * 1e3, "bytes": sent, "known": empty.known()}


def _pair(make: Callable[[str], Library], constraints: int, seed: int) -> tuple[Library, Library]:
    full, other = _filled(make, constraints, seed, definitions=False), make("robot-002")
    full.exchange(other)
    full.exchange(other)
    return full, other


def change(make: Callable[[str], Library], seed: int, constraints: int, *, count: int) -> Figures:
    """Exchanges of two replicas that agree but for some additions of the one that begins."""
    full, other = _pair(make, constraints, seed)
    repeats = max(5, CHANGES // (count + 1) if count > 1 else CHANGES)
    times, sizes = [], []
    for number in range(repeats):
        for item in items(count, seed * 10_000 + number + 1, definitions=False):
            full.add(item)
        full.commit()
        start = process_time()
        sizes.append(full.exchange(other))
        times.append(process_time() - start)
    return {"ms": median(times) * 1e3, "bytes": median(sizes), "known": other.known()}


def write(make: Callable[[str], Library], seed: int, constraints: int) -> Figures:
    """Single additions beside the others, each of them committed."""
    full = _filled(make, constraints, seed, definitions=False)
    more = items(2_000, seed + 1, definitions=False)
    start = process_time()
    for item in more:
        full.add(item)
        full.commit()
    return {"µs": (process_time() - start) / len(more) * 1e6, "known": full.known()}


def loaded(make: Callable[[str], Library], seed: int, constraints: int, *, definitions: bool) -> Figures:
    """The growth of the process when a blank replica takes in everything, and once every item was read."""
    # The message is made in another process: what its writer needed would be part of the process.
    command = [sys.executable, __file__, "--saved", json.dumps([make.__name__, seed, constraints, definitions])]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    library = make("robot-002")
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    library.load(data)
    gc.collect()
    after = process.memory_info().rss
    read = library.read()
    gc.collect()
    return {
        "MB": (after - before) / 1e6,
        "MB read": (process.memory_info().rss - before) / 1e6,
        "known": library.known() + read,
    }


@dataclass(frozen=True, slots=True)
class Work:
    """A row of the comparison."""

    name: str
    what: str
    run: Callable[[Callable[[str], Library], int, int], Figures]
    libraries: tuple[str, ...]
    bars: Mapping[str, float]
    """By unit, the largest figure of this library."""
    ratios: Mapping[str, float]
    """By unit, the largest ratio to the best of the others."""


FLEETS = ("pycrdt", "loro")


def _work() -> list[Work]:
    def fleets(name: str, what: str, ratio: float, *, definitions: bool = False, per_item: bool = False) -> Work:
        def run(make: Callable[[str], Library], seed: int, size: int) -> Figures:
            return fleet(make, seed, size, definitions=definitions, per_item=per_item)

        return Work(name, f"50 replicas, {what}", run, FLEETS, {}, {"ms": ratio, "bytes": 0.5})

    def joins(name: str, what: str, *, definitions: bool) -> Work:
        def run(make: Callable[[str], Library], seed: int, size: int) -> Figures:
            return blank(make, seed, size, definitions=definitions)

        return Work(name, what, run, RIVALS, {}, {"ms": 0.5})

    def changes(name: str, what: str, count: int, bars: Mapping[str, float], ratios: Mapping[str, float]) -> Work:
        def run(make: Callable[[str], Library], seed: int, size: int) -> Figures:
            return change(make, seed, size, count=count)

        return Work(name, what, run, RIVALS, bars, ratios)

    def memories(name: str, what: str, most: float, *, definitions: bool) -> Work:
        def run(make: Callable[[str], Library], seed: int, size: int) -> Figures:
            return loaded(make, seed, size, definitions=definitions)

        return Work(name, what, run, RIVALS, {"MB": most, "MB read": most}, {})

    return [
        fleets("fleet", "bare ids", 0.33),
        fleets("fleet-definitions", "definitions", 0.5, definitions=True),
        fleets("fleet-counters", "a counter per constraint", 0.5, per_item=True),
        fleets("fleet-both", "definitions, a counter each", 0.5, definitions=True, per_item=True),
        joins("blank", "a blank one takes all, definitions", definitions=True),
        changes("change", "one change", 1, {"ms": 0.05}, {}),
        changes("nothing", "nothing new", 0, {"ms": 0.02}, {}),
        changes("thousand", "1,000 changes", MANY, {}, {"ms": 0.5}),
        memories("memory", "RSS when loaded, bare ids", 20, definitions=False),
        memories("memory-definitions", "RSS when loaded, definitions", 30, definitions=True),
        Work("write", "one write", write, RIVALS, {}, {}),
    ]


# --- the processes ---------------------------------------------------------------------------------------------------


def _measured(work: Work, library: str, seed: int, constraints: int) -> Figures | None:
    """The figures of a fresh process; None where the library is not installed."""
    environment = {**os.environ, "CONSTRAINT_CRDT_PURE": "1" if library == PURE else ""}
    command = [sys.executable, __file__, "--measure", json.dumps([work.name, library, seed, constraints])]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode == 3:
        print(f"{library} is not installed here, so it is left out (pip install {library})", file=sys.stderr)
        return None
    if ended.returncode:
        sys.exit(f"{work.name} of {library} failed:\n{ended.stderr}")
    figures: Figures = json.loads(ended.stdout)
    return figures


def _measure(name: str, library: str, seed: int, constraints: int) -> None:
    work = next(each for each in _work() if each.name == name)
    try:
        json.dump(work.run(LIBRARIES[library], seed, constraints), sys.stdout)
    except ImportError:
        sys.exit(3)


def _save(name: str, seed: int, constraints: int, definitions: bool) -> None:
    make = next(each for each in LIBRARIES.values() if each.__name__ == name)
    sys.stdout.buffer.write(_filled(make, constraints, seed, definitions=definitions).save())


def compare(work: Work, repeats: int, constraints: int) -> Iterator[Row]:
    """A row for each figure of each library, then the ratios to the best of the others."""
    runs: dict[str, list[Figures]] = {}
    out: set[str] = set()
    for seed in range(1, repeats + 1):
        for library in (OURS, *work.libraries, PURE):
            figures = None if library in out else _measured(work, library, seed, constraints)
            if figures is None:
                out.add(library)
            else:
                runs.setdefault(library, []).append(figures)
    known = {name: [each.pop("known") for each in found] for name, found in runs.items()}
    if any(each != known[OURS] for each in known.values()):
        sys.exit(f"{work.name}: the libraries did not do the same work: {known}")
    medians = {name: {unit: median(each[unit] for each in found) for unit in found[0]} for name, found in runs.items()}
    for name, found in medians.items():
        for unit, value in found.items():
            yield Row(f"{work.what}: {name}", value, unit, work.bars.get(unit) if name == OURS else None)
    rivals = [found for name, found in medians.items() if name in work.libraries]
    for unit, ratio in work.ratios.items() if rivals else ():
        best = min(found[unit] for found in rivals)
        yield Row(f"{work.what}: {unit} / best of the others", medians[OURS][unit] / best, "x", ratio)


def main() -> int:
    """Run, print; 1 if `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description="Beside other CRDT libraries, all in one run.")
    names = [each.name for each in _work()]
    parser.add_argument("--rows", metavar="NAMES", help=f"only these, by the beginning of their names: {', '.join(names)}")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="processes of each figure (5)")
    parser.add_argument("--constraints", type=int, default=CONSTRAINTS, metavar="N", help=f"beside a fleet ({CONSTRAINTS})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--saved", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        _measure(*json.loads(args.measure))
        return 0
    if args.saved is not None:
        _save(*json.loads(args.saved))
        return 0
    wanted = tuple(args.rows.split(",")) if args.rows else ("",)
    chosen = [each for each in _work() if each.name.startswith(wanted)]
    if not chosen or args.repeats < 1 or args.constraints < 1:
        parser.error("--rows must name a row, --repeats and --constraints must be at least 1")
    measured = [row for work in chosen for row in compare(work, args.repeats, args.constraints)]
    show(f"{machine()}; {Path(__file__).name}", measured, as_json=args.json)
    missed = [row.what for row in measured if not row.met]
    if missed and args.check:
        print(f"missed: {'; '.join(missed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
