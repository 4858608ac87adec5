"""Messages that no handler took, kept in order for whoever asks for them."""

from __future__ import annotations

__all__ = ("Inbox",)

from collections import deque
from collections.abc import Callable

from hisock.types import Limits


class Inbox:
    """A bounded queue of whole messages.

    Args:
        limits: How many, and how many bytes.
    """

    __slots__ = ("_bodies", "_limits", "_size")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bodies: deque[bytes] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._bodies)

    def add(self, body: bytes) -> list[bytes]:
        """Keep a message; those that had to go for it, the oldest first."""
        self._bodies.append(body)
        self._size += len(body)
        gone: list[bytes] = []
        while self._is_over() and len(self._bodies) > 1:
            gone.append(self._bodies.popleft())
            self._size -= len(gone[-1])
        return gone

    def _is_over(self) -> bool:
        limits = self._limits
        too_many = 0 < limits.unclaimed_messages < len(self._bodies)
        return too_many or 0 < limits.unclaimed < self._size

    def take(self, wanted: Callable[[bytes], bool] | None) -> bytes | None:
        """Take the oldest that is wanted out; ``None`` if there is none."""
        for index, body in enumerate(self._bodies):
            if wanted is None or wanted(body):
                del self._bodies[index]
                self._size -= len(body)
                return body
        return None
