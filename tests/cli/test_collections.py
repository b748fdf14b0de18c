"""Full garbage collections of a node's process: what is loaded, and what a long one found alive, is left out of the next ones."""

import gc
import time
import weakref
from collections.abc import Iterator

import pytest

from constraint_crdt.cli.node import LONG_COLLECTION, keep_collections_short


@pytest.fixture
def callbacks() -> Iterator[None]:
    before = list(gc.callbacks)
    yield
    gc.callbacks[:] = before


class Linked:
    """An object in a cycle with itself."""

    def __init__(self) -> None:
        self.me = self


def is_left_out(one: object) -> bool:
    """The next collections do not look at it."""
    return not any(each is one for each in gc.get_objects())


@pytest.mark.slow
@pytest.mark.usefixtures("callbacks")
def test_objects_found_alive_by_a_long_collection_are_left_out_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([0.0, LONG_COLLECTION / 2, 1.0, 1.0 + 2 * LONG_COLLECTION])
    monkeypatch.setattr(time, "perf_counter", lambda: next(steps))
    gc.collect()
    gc.disable()
    try:
        module = Linked()
        keep_collections_short()
        assert is_left_out(module), "what is loaded"
        garbage, kept = Linked(), Linked()
        gone, alive = weakref.ref(garbage), weakref.ref(kept)
        gc.collect()
        assert not is_left_out(kept), "a short one"
        del garbage
        gc.collect()
    finally:
        gc.enable()
    assert is_left_out(kept)
    assert gone() is None, "garbage is collected before"
    kept.me = module.me = None  # type: ignore[assignment]
    del kept
    assert alive() is None, "reference counts free what is frozen"
