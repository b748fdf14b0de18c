"""What it means here that two replicas of something can be joined.

The laws (DESIGN 7.1): `merge` is commutative, associative, idempotent and never takes knowledge away.
"""

from abc import ABC, abstractmethod
from typing import Self


class Merge(ABC):
    """A state-based CRDT: joins with another replica of itself."""

    __slots__ = ()

    @abstractmethod
    def merge(self, other: Self) -> bool:
        """Take in everything `other` knows. True if that changed what is known here."""

    @abstractmethod
    def merged(self, other: Self) -> Self:
        """A new value that knows what both know; neither operand changes."""

    @abstractmethod
    def subsumes(self, other: Self) -> bool:
        """True if a merge of `other` would change nothing."""
