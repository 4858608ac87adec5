"""What passes through the proxy: one pipe a direction, two pipes a connection.

Told the time by the proxy; reads and writes sockets that are ready, and never waits.
"""

from __future__ import annotations

__all__ = ("Direction", "How", "Pair", "Pipe", "Side", "Way")

import selectors
import socket
from collections import deque
from contextlib import suppress
from typing import Final, Literal, TypeAlias

#: ``"up"`` is from the client to the server.
Direction: TypeAlias = Literal["up", "down"]
#: How a connection ends: FIN on both sides, RST on both, or FIN to the client and RST
#: to the server.
How: TypeAlias = Literal["fin", "rst", "both"]
Side: TypeAlias = Literal["client", "server"]

#: Bytes of one direction of one connection that are held before reading stops.
_ROOM: Final = 256 * 1024
_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE


class Way:
    """What holds for one direction of every connection."""

    __slots__ = ("chunk", "is_stalled", "latency", "passed", "pause")

    def __init__(self) -> None:
        self.is_stalled = False
        self.chunk: int | None = None
        self.pause = 0.0
        self.latency = 0.0
        self.passed = 0


class Pipe:
    """One direction of one connection: what was read and has not left yet.

    Args:
        way: What holds for this direction.
        source: Where the bytes come from.
        sink: Where they go.
    """

    __slots__ = (
        "_held",
        "_not_before",
        "cut_in",
        "has_ended",
        "has_passed_end",
        "how",
        "size",
        "sink",
        "source",
        "way",
    )

    def __init__(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        self.way = way
        self.source = source
        self.sink = sink
        self.size = 0
        self.has_ended = False
        self.has_passed_end = False
        #: Bytes that may still pass before the connection is cut, and how.
        self.cut_in: int | None = None
        self.how: How = "fin"
        self._held: deque[tuple[float, memoryview]] = deque()
        self._not_before = 0.0

    @property
    def wants_reading(self) -> bool:
        """Whether there is room, and no black hole."""
        return not (self.has_ended or self.way.is_stalled or self.size >= _ROOM)

    def due(self) -> float | None:
        """When it may write next; ``None`` where nothing waits, or it must not."""
        if self.way.is_stalled or not self._held:
            return None
        return max(self._held[0][0], self._not_before)

    def read(self, now: float) -> None:
        """Take in what came.

        Raises:
            OSError: That side reset the connection.
        """
        try:
            data = self.source.recv(min(1 << 16, _ROOM - self.size))
        except BlockingIOError:
            return
        if data:
            self._held.append((now + self.way.latency, memoryview(data)))
            self.size += len(data)
        else:
            self.has_ended = True

    def write(self, now: float) -> None:
        """Pass on what is due, up to the byte of the cut; the end of it, too.

        Raises:
            OSError: The other side reset the connection.
        """
        while (due := self.due()) is not None and due <= now:
            data = self._held[0][1]
            limits = (len(data), self.way.chunk, self.cut_in)
            try:
                sent = self.sink.send(data[: min(n for n in limits if n is not None)])
            except BlockingIOError:
                return
            self._passed(sent, now)
            if self.cut_in == 0:
                return
            if self.way.chunk is not None:
                break
        if self.has_ended and not (self._held or self.way.is_stalled):
            self.pass_end()

    def pass_end(self) -> None:
        """Half-close the other side, as this one was."""
        if not self.has_passed_end:
            self.has_passed_end = True
            with suppress(OSError):  # it has closed altogether
                self.sink.shutdown(socket.SHUT_WR)

    def _passed(self, count: int, now: float) -> None:
        due, data = self._held.popleft()
        if count < len(data):
            self._held.appendleft((due, data[count:]))
        self.size -= count
        self.way.passed += count
        if self.cut_in is not None:
            self.cut_in -= count
        self._not_before = now + self.way.pause


class Pair:
    """A connection from a client and the one to the server behind it."""

    __slots__ = ("client", "down", "pipes", "server", "up")

    def __init__(
        self, ways: dict[Direction, Way], client: socket.socket, server: socket.socket
    ) -> None:
        self.client = client
        self.server = server
        self.up = Pipe(ways["up"], client, server)
        self.down = Pipe(ways["down"], server, client)
        self.pipes: dict[Direction, Pipe] = {"up": self.up, "down": self.down}

    @property
    def is_over(self) -> bool:
        """Whether both sides have ended it."""
        return self.up.has_passed_end and self.down.has_passed_end

    @property
    def cut_due(self) -> How | None:
        """How it is to be cut now, if it is."""
        for pipe in self.pipes.values():
            if pipe.cut_in == 0:
                return pipe.how
        return None

    def wanted(self, sock: socket.socket, now: float) -> int:
        """What is waited for on one of its sockets."""
        outgoing = self.down if sock is self.client else self.up
        incoming = self.up if sock is self.client else self.down
        due = outgoing.due()
        writes = _WRITE if due is not None and due <= now else 0
        return writes | (_READ if incoming.wants_reading else 0)

    def next_due(self, now: float) -> float | None:
        """When something that is held for a while may leave."""
        dues = [pipe.due() for pipe in self.pipes.values()]
        return min((due for due in dues if due is not None and due > now), default=None)
