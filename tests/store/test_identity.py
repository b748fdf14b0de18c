"""Whether a life may go on: only where nothing that it told others can be missing. Each way to lose writes is a test here."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Changes, Life, Store, WritesRefused, marker_for
from constraint_crdt.store.files import Machine, Marker, Session
from tests.conftest import runtime_directory
from tests.store.disk import BOOT, ME, add, copy_store, loaded, open_store, taken


class Place:
    """A store and its marker on one machine."""

    def __init__(self, directory: Path, machine: Machine = BOOT) -> None:
        self.path, self.marker, self.machine = directory / "a.db", directory / "marker", machine

    def open(self, incarnation: int = 1) -> Store:
        return open_store(self.path, Marker(self.marker, self.machine), incarnation=incarnation)

    def run(self, writes: int) -> None:
        """Open, write and close."""
        store = self.open()
        write(store, writes)
        store.close()

    def vouched(self) -> bool:
        """Open and close once."""
        store = self.open()
        try:
            return store.identity.vouched
        finally:
            store.close()


def write(store: Store, count: int = 1, replica: Replica = ME) -> None:
    """Commit some cells of the node's own, one by one."""
    rows = loaded(store)
    changes = Changes(rows)
    for _ in range(count):
        add(rows, f"c{rows.seq(replica)}", replica)
        store.commit(taken(changes))
        changes.done(taken(changes))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


_CRASHED: list[Store] = []
"""Kept, so that their connections are not collected in the middle of another test: from 3.13 on Python warns of that."""


def crash(store: Store) -> None:
    """End without closing: the lock goes with the process, the files stay as they are."""
    store._lock.release()
    _CRASHED.append(store)


def test_a_new_store_begins_its_first_life(place: Place) -> None:
    store = place.open(incarnation=7)
    assert store.identity == ("a", "f", 7, True, ())
    assert [(life.incarnation, life.why) for life in store.lives] == [(7, "first start")]
    store.close()


def test_a_restart_on_the_same_boot_goes_on(place: Place) -> None:
    place.run(3)
    store = place.open()
    assert store.identity.vouched
    write(store)
    store.close()
    assert place.vouched()
    assert place.vouched()


def test_so_does_one_after_a_crash(place: Place) -> None:
    store = place.open()
    write(store, 3)
    crash(store)
    assert place.vouched()


def test_a_crash_between_commit_and_note_loses_nothing_so_the_life_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.open()
    write(store, 2)
    monkeypatch.setattr(Marker, "note", lambda *_: None)
    write(store)
    crash(store)
    monkeypatch.undo()
    assert place.vouched()


def test_a_crash_between_the_new_nonce_and_its_marker_is_not_vouched_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.open().close()
    monkeypatch.setattr(Marker, "begin", lambda *_: None)
    crash(place.open())
    monkeypatch.undo()
    assert not place.vouched()


def test_once_in_doubt_always_in_doubt_until_a_new_life_begins(place: Place) -> None:
    place.run(1)
    place.marker.unlink()
    assert not place.vouched()
    assert not place.vouched(), "the marker was written again, but that life stays ended"
    store = place.open()
    changes = Changes(loaded(store))
    changes.begin_life(Life(2, 5, "the store may lack writes"))
    store.commit(taken(changes))
    assert store.identity == ("a", "f", 2, True, (1,))
    write(store, 1, Replica("a", 2))
    store.close()
    store = place.open()
    assert store.identity == ("a", "f", 2, True, (1,))
    assert store.lives[1] == (2, 5, "the store may lack writes")
    store.close()


@pytest.mark.parametrize("machine", [Machine("another boot", BOOT.generation), Machine(BOOT.boot, "cloned"), Machine("")])
def test_another_boot_or_vm_generation_is_not_vouched_for(place: Place, machine: Machine) -> None:
    place.run(1)
    place.machine = machine
    assert not place.vouched()


@pytest.mark.parametrize("content", ["", "x", "1 2 end\n", "constraint-crdt-marker 1 end\n", "\udcff"])
def test_a_marker_that_cannot_be_read_vouches_for_nothing(place: Place, content: str) -> None:
    place.run(1)
    place.marker.write_bytes(content.encode(errors="surrogateescape"))
    assert not place.vouched()


def test_nor_does_one_cut_off(place: Place) -> None:
    place.run(12)
    whole = place.marker.read_bytes()
    session = Session(bytes.fromhex(whole.split()[4].decode()), int(whole.split()[5]), int(whole.split()[6]))
    marker = Marker(place.marker, BOOT)
    assert marker.vouches(session, 1, 12)
    for length in range(len(whole)):
        place.marker.write_bytes(whole[:length])
        assert not marker.vouches(session, 1, 12)


def test_a_copy_from_earlier_in_this_session_put_back_is_not_vouched_for(place: Place, tmp_path: Path) -> None:
    store = place.open()
    write(store, 3)
    copy_store(place.path, tmp_path / "backup.db")
    write(store, 1)
    store.close()
    put_back(tmp_path / "backup.db", place.path)
    assert not place.vouched()


def test_one_from_which_nothing_was_written_is_the_same_and_goes_on(place: Place, tmp_path: Path) -> None:
    store = place.open()
    write(store, 3)
    copy_store(place.path, tmp_path / "backup.db")
    store.close()
    put_back(tmp_path / "backup.db", place.path)
    assert place.vouched()


def test_a_copy_from_an_earlier_session_is_not_vouched_for(place: Place, tmp_path: Path) -> None:
    place.run(3)
    copy_store(place.path, tmp_path / "backup.db")
    assert place.vouched()
    put_back(tmp_path / "backup.db", place.path)
    assert not place.vouched()


def put_back(backup: Path, path: Path) -> None:
    """Restore a copy in place: the file keeps its inode, so that only nonce and seq can tell."""
    inode = path.stat().st_ino
    copy_store(backup, path)
    assert path.stat().st_ino == inode


def test_clones_are_not_vouched_for_not_even_with_their_marker_on_the_same_boot(place: Place, tmp_path: Path) -> None:
    """Two containers from one image share the boot; the files in them are other files."""
    place.run(3)
    for name in ("one", "two"):
        clone = Place(tmp_path / name)
        (tmp_path / name).mkdir()
        copy_store(place.path, clone.path)
        clone.marker.write_bytes(place.marker.read_bytes())
        assert not clone.vouched()
    assert place.vouched()


def test_a_new_life_on_disk_that_the_marker_does_not_know_is_not_vouched_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store, changes = place.open(), Changes(Rows())
    monkeypatch.setattr(Marker, "note", lambda *_: None)
    changes.begin_life(Life(2, 0, "for a test"))
    store.commit(taken(changes))
    crash(store)
    monkeypatch.undo()
    assert not place.vouched()


def test_a_life_that_was_ended_does_not_go_on(place: Place) -> None:
    store, changes = place.open(), Changes(Rows())
    changes.end_life()
    store.commit(taken(changes))
    changes.done(taken(changes))
    assert changes.take() is None
    assert not store.identity.vouched
    store.close()
    assert not place.vouched()


def test_a_life_that_begins_while_the_end_of_the_one_before_is_being_written_is_not_ended_by_it(place: Place) -> None:
    store, changes = place.open(), Changes(Rows())
    changes.end_life()
    batch = taken(changes)
    changes.begin_life(Life(2, 0, "others knew more"))
    store.commit(batch)
    changes.done(batch)
    store.commit(taken(changes))
    changes.done(taken(changes))
    assert changes.take() is None
    assert store.identity == ("a", "f", 2, True, (1,))
    store.close()
    assert place.vouched()


def test_a_life_that_begins_and_ends_while_another_end_is_being_written_stays_ended(place: Place) -> None:
    store, changes = place.open(), Changes(Rows())
    changes.end_life()
    batch = taken(changes)
    changes.begin_life(Life(2, 0, "others knew more"))
    changes.end_life()
    store.commit(batch)
    changes.done(batch)
    store.commit(taken(changes))
    assert store.identity == ("a", "f", 2, False, (1,))
    store.close()
    assert not place.vouched()


# --- the marker itself ---------------------------------------------------------------------------------------------------


def test_a_note_is_written_only_when_the_seq_rises(tmp_path: Path) -> None:
    marker = Marker(tmp_path / "marker", BOOT)
    marker.begin(Session(b"n", 1, 2), 1, 5)
    first = (tmp_path / "marker").stat().st_ino
    marker.note(1, 5)
    marker.note(1, 4)
    assert (tmp_path / "marker").stat().st_ino == first
    marker.note(1, 6)
    assert marker.vouches(Session(b"n", 1, 2), 1, 6)
    assert not marker.vouches(Session(b"n", 1, 2), 1, 5)
    marker.note(2, 1)
    assert marker.vouches(Session(b"n", 1, 2), 2, 1)


def test_a_marker_that_cannot_be_written_is_removed_so_that_it_vouches_for_nothing_old(place: Place) -> None:
    store = place.open()
    write(store, 2)
    place.marker.with_name("marker.new").mkdir()  # in the way of a new file
    shutil.copyfile(place.marker, place.marker.with_name("other"))
    place.marker.with_name("other").rename(place.marker)  # no longer the open file
    write(store, 1)
    assert not place.marker.exists()
    store.close()
    assert not place.vouched()


def test_a_runtime_directory_that_is_gone_refuses_no_write(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    store = open_store(tmp_path / "a.db", Marker(tmp_path / "run" / "marker", BOOT))
    (tmp_path / "run" / "marker").unlink()
    (tmp_path / "run").rmdir()
    write(store, 2)
    store.close()


def test_a_marker_that_cannot_be_removed_either_refuses_writes(place: Place) -> None:
    store = place.open()
    write(store)
    place.marker.unlink()
    place.marker.mkdir()
    with pytest.raises(WritesRefused, match="marker"):
        write(store)
    store.close()


def test_markers_lie_in_the_runtime_directory_one_per_store(tmp_path: Path) -> None:
    runtime = runtime_directory(tmp_path)
    environ = {"XDG_RUNTIME_DIR": str(runtime)}
    for name in ("a.db", "b.db"):
        marker = marker_for(tmp_path / name, environ)
        marker.begin(Session(b"n", 1, 2), 1, 0)
    directory = runtime / "constraint-crdt"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len(list(directory.iterdir())) == 2
    assert marker_for(tmp_path / "b.db", environ).vouches(Session(b"n", 1, 2), 1, 0), "this machine, this boot"


def test_a_directory_that_others_can_write_to_holds_no_marker(tmp_path: Path) -> None:
    runtime = runtime_directory(tmp_path)
    (runtime / "constraint-crdt").mkdir()
    (runtime / "constraint-crdt").chmod(0o777)
    marker_for(tmp_path / "a.db", {"XDG_RUNTIME_DIR": str(runtime)}).begin(Session(b"n", 1, 2), 1, 0)
    assert list((runtime / "constraint-crdt").iterdir()) == []


def test_a_marker_lies_in_memory_so_that_no_snapshot_of_the_disk_brings_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose root with /run is put back to a snapshot, store and marker together."""
    mounts = tmp_path / "mounts"
    monkeypatch.setattr("constraint_crdt.store.files.MOUNTS", mounts)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}

    def vouches(file_system: str) -> bool:
        device = tmp_path.stat().st_dev
        mounts.write_text(
            f"1 0 0:0 / /x rw - {file_system} x rw\n2 1 {os.major(device)}:{os.minor(device)} / / rw - {file_system} / rw\n"
        )
        marker = marker_for(tmp_path / "a.db", environ)
        marker.begin(Session(b"n", 1, 2), 1, 0)
        return marker_for(tmp_path / "a.db", environ).vouches(Session(b"n", 1, 2), 1, 0)

    assert [vouches(file_system) for file_system in ("tmpfs", "ext4", "overlay", "ramfs")] == [True, False, False, True]


@pytest.mark.slow
@given(st.integers(1, 10**12), st.integers(1, 10**6), st.data())
def test_no_part_of_a_note_vouches_for_less_than_was_sent(before: int, more: int, data: st.DataObject) -> None:
    """Written in place: a store that lacks what was noted before is not vouched for, wherever the write is cut."""
    session, ahead = Session(bytes(16), 1, 2), data.draw(st.tuples(*[st.integers(-(10**18), 10**18)] * 2))
    with tempfile.TemporaryDirectory() as directory:
        clocks = iter(ahead)
        file = Path(directory) / "marker"
        marker = Marker(file, BOOT, lambda: next(clocks))
        marker.begin(session, 7, before)
        old, inode = file.read_bytes(), file.stat().st_ino
        marker.note(7, before + more)
        new = file.read_bytes()
        assert (len(old), inode) == (len(new), file.stat().st_ino)
        cut = data.draw(st.integers(0, len(new)))
        file.write_bytes(new[:cut] + old[cut:])
        assert not Marker(file, BOOT).vouches(session, 7, before - 1)
        marker.close()


@pytest.mark.parametrize("change", ["removed", "replaced", "cut", "longer"])
def test_a_note_replaces_a_file_that_is_not_the_one_before(tmp_path: Path, change: str) -> None:
    file, session = tmp_path / "marker", Session(b"n", 1, 2)
    marker = Marker(file, BOOT)
    marker.begin(session, 1, 5)
    content = file.read_bytes()
    if change in ("removed", "replaced"):
        file.rename(tmp_path / "aside")
    if change != "removed":
        file.write_bytes({"replaced": content, "cut": content[:40], "longer": content + b"more"}[change])
    marker.note(1, 6)
    assert marker.vouches(session, 1, 6)
    assert not marker.vouches(session, 1, 5)
    marker.close()
    marker.note(1, 7)
    assert not marker.vouches(session, 1, 6)


def test_a_marker_of_0_1_0_is_read(tmp_path: Path) -> None:
    file, session = tmp_path / "marker", Session(b"n", 1, 2)
    file.write_text(f"constraint-crdt-marker 2 {BOOT.boot} {BOOT.generation} 6e 1 2 -17 1 5 end\n")
    noted = Marker(file, BOOT).read()
    assert noted == (session, -17, 1, 5)
