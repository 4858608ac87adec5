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

    Attributes:
        bodies: The messages, the oldest first.
    """

    __slots__ = ("_limits", "_size", "bodies")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.bodies: deque[bytes] = deque()
        self._size = 0

    def add(self, body: bytes) -> list[bytes]:
        """Keep a message; those that had to go for it, the oldest first."""
        self.bodies.append(body)
        self._size += len(body)
        gone: list[bytes] = []
        while self._is_over() and len(self.bodies) > 1:
            gone.append(self.bodies.popleft())
            self._size -= len(gone[-1])
        return gone

    def _is_over(self) -> bool:
        limits = self._limits
        too_many = 0 < limits.unclaimed_messages < len(self.bodies)
        return too_many or 0 < limits.unclaimed < self._size

    def take(self, wanted: Callable[[bytes], bool] | None) -> bytes | None:
        """Take the oldest that is wanted out; ``None`` if there is none."""
        for index, body in enumerate(self.bodies):
            if wanted is None or wanted(body):
                del self.bodies[index]
                self._size -= len(body)
                return body
        return None
