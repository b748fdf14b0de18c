"""How the parts of a node write."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Told(Protocol):
    """Write, tell others soon, and return once it is on disk. Raises `WritesRefused`, at best before anything happened."""

    def __call__(self, mutate: Callable[[], Result], /) -> Awaitable[Result]: ...
