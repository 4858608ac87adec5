"""What happens to a connection, in the order in which it takes effect."""

from __future__ import annotations

__all__ = (
    "Closed",
    "Dropped",
    "Event",
    "Lost",
    "Messages",
    "Opened",
    "Presented",
    "Resumed",
)

from collections.abc import Iterator
from operator import length_hint
from typing import TypeAlias

from hisock.errors import HiSockError, SessionLost
from hisock.wire.frames import Hello, Value


class Opened(Value, frozen=True):
    """The client said hello."""

    hello: Hello


class Presented(Value, frozen=True):
    """The client has shown what proves who it is; or has nothing to show.

    Attributes:
        hello: What it had said.
        token: Its proof, for the program's check.
    """

    hello: Hello
    token: str | None

    def __repr__(self) -> str:
        return f"Presented({self.hello.name!r})"  # never the token


class Messages:
    """What one read brought, in order.

    ``bodies`` may be shortened from the place where ``rest`` stands, never before.

    Attributes:
        bodies: Bodies of the classic wire, or frames of the compact one.
        rest: Those that nobody has taken yet.
        is_packed: Whether they are frames of the compact wire.
    """

    __slots__ = ("_size", "bodies", "is_packed", "rest", "searched")

    def __init__(self, bodies: list[bytes], *, is_packed: bool = False) -> None:
        self.bodies = bodies
        self.is_packed = is_packed
        self.rest: Iterator[bytes] = iter(bodies)
        #: How many of the first bodies are known to have a handler.
        self.searched = 0
        self._size = -1

    @property
    def size(self) -> int:
        """Bytes of all bodies; counted when first asked for."""
        if self._size < 0:
            self._size = sum(map(len, self.bodies))
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        self._size = size

    @property
    def place(self) -> int:
        """Index of the next body that nobody has taken."""
        return len(self.bodies) - length_hint(self.rest)


class Dropped(Value, frozen=True):
    """The link is cut; the session waits for another."""

    reason: str


class Resumed(Value, frozen=True):
    """It goes on."""


class Lost(Value, frozen=True):
    """It does not; a client has a new one."""

    error: SessionLost


class Closed(Value, frozen=True):
    """Nothing more comes.

    Attributes:
        reason: Why, for people.
        error: What the other side did wrong, if that is why.
        is_cut: Whether nobody said goodbye, so that the session may go on.
    """

    reason: str
    error: HiSockError | None = None
    is_cut: bool = False


Event: TypeAlias = Opened | Presented | Messages | Dropped | Resumed | Lost | Closed
