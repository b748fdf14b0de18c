"""Messages for both cores: Deltas with cells at and beyond every bound, most of them damaged; and what a node makes of them.

    python -m tests.crdt.drawn_messages FIRST COUNT

prints which core runs, and for each thousand of messages from the FIRST on a digest of the outcomes. A message depends on nothing
but its number, so two cores that print the same have accepted and refused the same, in the same words, and hold the same state.
"""

import random
import sys
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from constraint_crdt.crdt.cells import COMPILED, UnboundRun
from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.messages import Delta, decode_message, encode_message
from constraint_crdt.state import ConstraintState

CHUNK = 1_000
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 2**16, 2**32, MAX_COUNT - 1, MAX_COUNT, MAX_COUNT + 1, 2**64 - 1, -1, -(2**63))
TEXTS = (
    "",
    "a",
    "speed_mps <= 1.5",
    "é",
    "…",
    "\U0001f600",
    "x" * 31,
    "x" * 32,
    "k" * 255,
    "k" * 256,
    "k" * 257,
    "ü" * 128,
    "ü" * 129,
)
MANY = "y" * 70_000

_encode = msgspec.msgpack.Encoder().encode
Chance = random.Random


def _text(chance: Chance) -> str:
    if chance.random() < 0.0005:
        return MANY
    return chance.choice(TEXTS) if chance.random() < 0.06 else f"{chance.choice('abc')}{chance.randrange(6)}"


def _number(chance: Chance) -> int:
    return chance.choice(NUMBERS) if chance.random() < 0.04 else chance.randrange(200)


def _maybe(chance: Chance, make: Callable[[Chance], object]) -> object:
    return None if chance.random() < 0.4 else make(chance)


def _odd(chance: Chance) -> object:
    return chance.choice((None, True, 1.5, b"\0", [], {}, "x", -7, [[]], {"a": 1}, _number(chance)))


def _labels(chance: Chance) -> list[object]:
    pairs = [[_text(chance), _text(chance)] for _ in range(chance.choice((0, 0, 1, 2, 3)))]
    return sorted(pairs) if chance.random() < 0.95 else pairs  # type: ignore[return-value]  # lists of texts


def _definition(chance: Chance) -> object:
    fields = [_number(chance), _number(chance), _maybe(chance, _text), chance.randrange(4), _maybe(chance, _number), _odd(chance)]
    value = [
        _maybe(chance, _text), chance.choice((0, 1, 2, 3, 9, _number(chance))), _maybe(chance, _text), _labels(chance),
        _maybe(chance, _number), _maybe(chance, _number), chance.choice((1, 1, 1, 2, _number(chance))),
        fields[: chance.randrange(6)], _odd(chance),
    ]  # fmt: skip
    if chance.random() < 0.7:
        value = [*value[:6], 1, fields[:5]]
    return value[: chance.choice((0, 1, 2, 3, 4, 5, 6, 6, 8, 8, 7, 9))]


def _counts(chance: Chance) -> object:
    return (
        _number(chance) if chance.random() < 0.5 else [_number(chance) for _ in range(chance.choice((2, 2, 2, 2, 2, 2, 2, 1, 3)))]
    )


def _removal(chance: Chance) -> object:
    named = [["n", 1, chance.randrange(9)] for _ in range(chance.randrange(3))]
    return [[_text(chance), named, *([chance.choice((1, 3, 9))] if chance.random() < 0.3 else [])]]


def _cell(chance: Chance) -> bytes:
    kind = chance.choice((1, 1, 1, 1, 3, 3, 3, 2)) if chance.random() < 0.95 else chance.randrange(130)
    key: object = None if kind == 2 else _text(chance)
    value: object = {1: _definition, 2: _removal, 3: _counts}.get(kind, _odd)(chance)
    parts = [kind, key] if kind == 1 and chance.random() < 0.3 else [kind, key, value]
    if chance.random() < 0.05:
        parts[chance.randrange(len(parts))] = _odd(chance)
    if chance.random() < 0.05:
        parts.append(chance.choice((None, b"tag", _odd(chance))))
    return _encode(parts)


def _damaged(chance: Chance, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    match chance.randrange(5):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        case 2:
            return data[:at] + bytes([chance.choice((0x90, 0xC0, 0xC1, 0xD9, 0xDC, 0xDF, 0xCF, 0xD3, 0xFF))]) + data[at:]
        case 3:
            return data[:at] + data[at + 1 :]
        case _:
            return data[:at] + data[at : at + 4] + data[at:]


def _cells(chance: Chance) -> tuple[int, bytes]:
    cells = [_cell(chance) for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 5, 17)))]
    if cells and chance.random() < 0.2:
        place = chance.randrange(len(cells))
        cells[place] = _damaged(chance, cells[place])
    count = len(cells)
    header = bytes((0x90 | count,)) if count < 16 and chance.random() < 0.9 else b"\xdc" + count.to_bytes(2)
    if chance.random() < 0.02:
        header = b"\xdd" + chance.choice((count, 2**31, 2**32 - 1)).to_bytes(4)
    return count, header + b"".join(cells)


def _run(chance: Chance) -> list[object]:
    count, cells = _cells(chance)
    gaps: list[object] = []
    if chance.random() < 0.4:
        gaps = [chance.choice((0, 1, 2, _number(chance))) for _ in range(count)]
        if count > 1 and chance.random() < 0.5:
            gaps = [chance.randrange(3), chance.choice((1 - count, -count, -1))]
    span = count + chance.choice((0, 0, 1, 3)) + sum(each for each in gaps if isinstance(each, int) and 0 < each < 99)
    if chance.random() < 0.05:
        span = _number(chance)
    lo = chance.choice((0, 0, 0, 0, 1, _number(chance)))
    run: list[object] = [["n" + str(chance.randrange(3)), 1], span, msgspec.Raw(cells), gaps, lo]
    while len(run) > 3 and not run[-1]:
        run.pop()
    return run


def drawn_message(number: int) -> bytes:
    """The message with a number."""
    chance = Chance(number)
    runs = [_run(chance) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    data = _encode([19, None, "n", 1, None, None, runs])
    return _damaged(chance, data) if chance.random() < 0.1 else data


def outcome(data: bytes) -> bytes:
    """What a node without anything makes of a message: the words of its refusal, or the whole state after it."""
    try:
        message = decode_message(data)
        if not isinstance(message, Delta):
            return b"another message"
        runs = [run.bind(None) if isinstance(run, UnboundRun) else run for run in message.delta.runs]
        if len({run.replica for run in runs}) < len(runs):
            return b"twice"
        state = ConstraintState()
        applied = state.rows.apply(runs)
    except ConstraintCrdtError as error:
        return f"refused: {error}".encode()
    return repr((applied, _reading(state), encode_message(message))).encode()


def _reading(state: ConstraintState) -> Any:
    rows, constraints = state.rows, state.constraints
    cells = [(cell.kind, cell.key, cell.seq, cell.replica, cell.digest, cell.data) for run in rows.whole() for cell in run.cells]
    definitions = [(id_, constraints.additions(id_), state.metrics.constraint(id_)) for id_ in constraints]
    return rows.state_hash, rows.kind_sum(1), rows.kind_sum(3), len(rows), cells, definitions, state.metrics.total


def main(first: int, count: int) -> None:
    """Print the digests."""
    print("compiled" if COMPILED else "pure")  # noqa: T201 - read by the test
    for start in range(first, first + count, CHUNK):
        digest = blake2b(digest_size=16)
        for number in range(start, min(start + CHUNK, first + count)):
            digest.update(outcome(drawn_message(number)) + b"\0")
        print(start, digest.hexdigest(), flush=True)  # noqa: T201 - same


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
