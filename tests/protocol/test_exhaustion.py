"""Messages made to exhaust whoever reads them: memory stays in proportion to the bytes, and no depth ends the process."""

import subprocess
import sys
import tracemalloc

import msgspec
import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode
from constraint_crdt.protocol.messages import decode_message

encode = msgspec.msgpack.Encoder().encode


def hostile() -> dict[str, bytes]:
    """Messages of some 60 KB that decode into as many objects as they can."""
    count = b"\xdc" + (20_000).to_bytes(2, "big")
    named = b"".join(encode([[chr(0x4E00 + index // 100), index % 100], 1]) for index in range(8_000))
    ping, sync = b"\x97\x11\xc0\xa1p\x02\xc4\x20" + bytes(32), b"\x96\x12\xc0\xa1p\x02\xc4\x20" + bytes(32)
    run = b"\x91\x93\x92\xa1p\x02\xcd\x4e\x20"
    return {
        "no cells": sync + run + count + b"\xc0" * 20_000,
        "tiny cells": sync + run + count + b"\x92\x63\xc0" * 20_000,
        "tiny runs": sync + b"\xdc\x3a\x98" + b"\x93\x00\x01\x90" * 15_000,
        "tiny entries": ping + b"\xc4\x08" + bytes(8) + count + b"\x92\x00\x01" * 20_000,
        "many names": ping + b"\xc0\xdc" + (8_000).to_bytes(2, "big") + named,
        "a forged length": sync + b"\xdd\xff\xff\xff\xff" + b"\x93\x00\x01\x90" * 15_000,
        "deep nesting": sync + run + b"\x91\x93\x63\xa1k" + b"\x91" * 60_000,
    }


MEMORY_FACTOR = 150
"""What a message may take while it is read, as a multiple of its size: the smallest cell is 3 bytes, and some 370 as objects."""


@pytest.mark.long(by_day=["a forged length", "deep nesting", "tiny runs"])
@pytest.mark.parametrize("name", hostile())
def test_reading_takes_memory_in_proportion_to_the_bytes_read(name: str) -> None:
    data = hostile()[name]
    victim = GossipNode("victim")
    tracemalloc.start()
    try:
        victim.receive(decode_message(data, None))
    except ConstraintCrdtError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY_FACTOR * len(data)


SMALL_STACK = 256 * 1024 if sys.version_info < (3, 12) else 4 * 1024 * 1024
"""Later Pythons let C recurse deeper than a stack of 256 KiB has room for, whatever the decoder does; a usual one has 8 MiB."""


@pytest.mark.processes
def test_deep_nesting_does_not_overflow_a_small_stack() -> None:
    """In a process of its own: what this is about would end the process."""
    code = r"""
import threading
from constraint_crdt import ConstraintCrdtError
from constraint_crdt.gossip import decode_message
head = bytes.fromhex("9612c0a17002c420") + bytes(32) + bytes.fromhex("919392a1700201919363a16b")
def read():
    for depth in (10, 500, 5_000, 60_000):
        for nest in (b"\x91", b"\x81\xa1k", b"\x81"):
            for data in (head + nest * depth + b"\xc0", nest * depth):
                try:
                    decode_message(data, None)
                except ConstraintCrdtError:
                    pass
    print("done")
threading.stack_size(STACK)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", f"STACK = {SMALL_STACK}\n{code}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
