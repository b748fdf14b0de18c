"""Power cuts and damage: a log cut at any byte opens to exactly the commits that are whole in it; a file that cannot be trusted is
refused whole."""

from pathlib import Path
from random import Random

import pytest

from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Changes, StoreError, store
from tests.conftest import BUDGET, SEED
from tests.store.disk import Account, account, copy_store, open_store, reopened, taken, write_history

CUTS = 4000 if BUDGET == "nightly" else 30
FRAME, LOG_HEADER = 24 + 4096, 32


class Recorded:
    """A history on disk: what was committed after each step, how long the log was then, and the files as a crash leaves them."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "a.db"
        self.image = directory / "image.db"
        self.accounts: list[Account] = []
        self.log_sizes: list[int] = []
        rows = Rows()
        store, changes = open_store(self.path), Changes(rows)
        self._note(rows)
        for _ in write_history(rows):
            store.commit(taken(changes))
            changes.done(taken(changes))
            self._note(rows)
        copy_store(self.path, self.image)
        store.close()
        self.log = Path(f"{self.image}-wal").read_bytes()

    def _note(self, rows: Rows) -> None:
        self.accounts.append(account(rows))
        self.log_sizes.append(Path(f"{self.path}-wal").stat().st_size)

    def opened_with(self, log: bytes, directory: Path) -> Account:
        """What the image holds with another log."""
        target = directory / "cut.db"
        copy_store(self.image, target)
        Path(f"{target}-wal").write_bytes(log)
        return reopened(target)


def cuts(log: bytes, random: Random) -> list[int]:
    """Every end of a frame, the bytes beside it, and random ones."""
    ends = range(LOG_HEADER, len(log) + 1, FRAME)
    near = {end + beside for end in ends for beside in (-1, 0, 1)} | {0, 1}
    return sorted({at for at in near if at <= len(log)} | {random.randrange(len(log)) for _ in range(CUTS)})


def test_every_commit_is_synced(tmp_path: Path) -> None:
    """No test here can cut the power; that SQLite is told to sync at each commit is what can be seen."""
    open_store(tmp_path / "a.db").close()
    connection = store.connect(tmp_path / "a.db")
    full = 2
    assert connection.execute("PRAGMA synchronous").fetchone() == (full,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.long
def test_a_log_cut_at_any_byte_opens_to_the_commits_that_are_whole_in_it(tmp_path: Path) -> None:
    recorded, random = Recorded(tmp_path), Random(SEED)
    assert recorded.log_sizes == sorted(recorded.log_sizes), "no checkpoint came between"
    for at in cuts(recorded.log, random):
        whole = max((n for n, size in enumerate(recorded.log_sizes) if size <= at), default=0)
        assert recorded.opened_with(recorded.log[:at], tmp_path) == recorded.accounts[whole], f"cut at {at}, seed {SEED}"


@pytest.mark.slow
def test_garbage_at_the_end_of_the_log_is_passed_over(tmp_path: Path) -> None:
    recorded, random = Recorded(tmp_path), Random(SEED)
    for at in random.choices(range(len(recorded.log)), k=CUTS // 4):
        whole = max((n for n, size in enumerate(recorded.log_sizes) if size <= at), default=0)
        garbage = random.randbytes(random.randrange(1, 3 * FRAME))
        assert recorded.opened_with(recorded.log[:at] + garbage, tmp_path) == recorded.accounts[whole], f"seed {SEED}"


@pytest.mark.slow
def test_a_changed_bit_in_the_log_ends_it_there(tmp_path: Path) -> None:
    recorded, random = Recorded(tmp_path), Random(SEED)
    for at in random.choices(range(len(recorded.log)), k=CUTS // 4):
        log = bytearray(recorded.log)
        log[at] ^= 1 << random.randrange(8)
        assert recorded.opened_with(bytes(log), tmp_path) in recorded.accounts, f"bit in {at}, seed {SEED}"


@pytest.mark.slow
def test_with_checkpoints_between_a_cut_log_is_a_prefix_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHECKPOINT_PAGES", 6)
    recorded, random = Recorded(tmp_path), Random(SEED)
    assert len(recorded.log) < FRAME * 20, "the log began anew"
    opened = refused = 0
    for at in cuts(recorded.log, random):
        try:
            assert recorded.opened_with(recorded.log[:at], tmp_path) in recorded.accounts, f"cut at {at}, seed {SEED}"
            opened += 1
        except StoreError:
            refused += 1
    assert recorded.opened_with(recorded.log, tmp_path) == recorded.accounts[-1]
    assert opened, f"{refused} refused"


@pytest.mark.slow
def test_a_changed_bit_in_the_file_is_seen_or_matters_to_nothing(tmp_path: Path) -> None:
    recorded, random = Recorded(tmp_path), Random(SEED)
    whole = recorded.path.read_bytes()  # closed: all of it is in the file
    refused = 0
    for at in random.choices(range(len(whole)), k=2 * CUTS):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << random.randrange(8)
        target = tmp_path / "damaged.db"
        for ending in ("-wal", "-shm"):
            Path(f"{target}{ending}").unlink(missing_ok=True)
        target.write_bytes(damaged)
        try:
            assert reopened(target) == recorded.accounts[-1], f"bit in {at}, seed {SEED}"
        except StoreError:
            refused += 1
    assert refused, "so many changed bits cannot all be where nothing is"


def test_a_file_that_garbles_even_the_message_about_it_is_refused(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    whole = recorded.path.read_bytes()
    target = tmp_path / "damaged.db"
    target.write_bytes(whole.replace(b"CREATE TABLE cell", b"CREATE TABL\xc5 cell"))
    with pytest.raises(StoreError, match="damaged"):
        reopened(target)


@pytest.mark.parametrize("statement", [
    "UPDATE row SET floor = floor + 1 WHERE id = 1",
    "UPDATE row SET seq = seq + 1 WHERE id = 1",
    "UPDATE row SET seq = 0",
    "DELETE FROM cell WHERE kind = 2",
    "DELETE FROM cell WHERE key = 'speed'",
    "UPDATE cell SET kind = 3 WHERE key = 'speed'",
    "UPDATE cell SET key = 'spend' WHERE key = 'speed'",
    "UPDATE cell SET seq = seq - 1 WHERE kind = 2",
    "UPDATE cell SET row = 99 WHERE kind = 2",
    "UPDATE cell SET data = substr(data, 1, 5) WHERE kind = 2",
    "UPDATE cell SET data = 'text'",
    "UPDATE cell SET crc = 0 WHERE kind = 2",
    "DELETE FROM seal",
    "UPDATE seal SET state_hash = zeroblob(32)",
    "DELETE FROM identity",
    "UPDATE identity SET nonce = 'text'",
    "UPDATE life SET incarnation = 'text'",
    "DELETE FROM life",
    "DROP TABLE cell",
])  # fmt: skip
def test_what_is_not_what_was_committed_is_refused(tmp_path: Path, statement: str) -> None:
    recorded = Recorded(tmp_path)
    connection = store.connect(recorded.path)
    changed = connection.execute(statement).rowcount
    connection.close()
    assert changed or statement.startswith("DROP")
    with pytest.raises(StoreError, match=r"damaged \(.*\): restore it from a peer: constraint-crdt node --rejoin"):
        reopened(recorded.path)
