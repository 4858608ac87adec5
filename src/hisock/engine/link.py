"""A non-blocking socket around a Connection: the one place that reads and writes.

Never waits and never decides; the engine that holds the lock calls it.
"""

from __future__ import annotations

__all__ = ("Link",)

import contextlib
import socket
import time
from typing import Any, Final

from hisock.hub.outbox import Outbox
from hisock.session.connection import Connection, Event, Messages
from hisock.session.states import State
from hisock.types import ClientInfo

#: Bytes of one read: large enough to share the cost of a turn among hundreds of small
#: messages, small enough that the allocator does not ask the system for it.
READ_SIZE: Final = 64 * 1024

clock = time.monotonic


class Link:
    """One peer: its socket, its conversation, what waits in both directions.

    Attributes:
        sock: The socket; closed by ``drop``.
        connection: What has been agreed with the peer.
        outbox: What waits to be written.
        inbox: Events that wait for their turn, in order.
        info: What handlers get to see of the peer.
        address: Where the peer called from.
    """

    __slots__ = (
        "_eof",
        "_shut",
        "_torn",
        "address",
        "connection",
        "fd",
        "has_joined",
        "inbox",
        "info",
        "is_ready",
        "outbox",
        "sock",
        "timer",
        "watches_writing",
    )

    info: ClientInfo

    def __init__(
        self, sock: socket.socket, connection: Connection, outbox: Outbox, address: Any
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.connection = connection
        self.outbox = outbox
        self.address = address
        self.inbox: list[Event] = []
        self.has_joined = False
        self.is_ready = False
        self.watches_writing = False
        self.timer: float | None = None
        self._torn = False
        self._eof = False
        self._shut = False

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.connection.state is State.OPEN

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen on this link."""
        return self.connection.state is State.CLOSED

    @property
    def wants_writing(self) -> bool:
        """Whether the socket has to be watched for room."""
        return self.outbox.size > 0 and not self.is_over

    def next_deadline(self) -> float | None:
        """When ``Connection.tick`` or ``Outbox.check`` is due, if nothing happens."""
        own, stall = self.connection.deadline, self.outbox.deadline
        if own is None or stall is None:
            return own if stall is None else stall
        return min(own, stall)

    def read(self) -> int:
        """Read once and put what it means into the inbox; how many bytes came."""
        if self._torn:
            self._tear()
            return 0
        # A KeyboardInterrupt between the read and its place in the inbox would lose
        # bytes unseen, so until then the link counts as torn.
        self._torn = True
        size = 0
        try:
            data = self.sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.inbox += self.connection.lost(_why(error), clock())
        else:
            size = len(data)
            if data:
                self.inbox += self.connection.feed(data, clock())
            elif not self._eof and not self.is_over:
                self._eof = True
                self.inbox += self.connection.feed_eof(clock())
        self._torn = False
        return size

    def send(self, frame: bytes) -> None:
        """Write a frame after everything before it, as far as there is room."""
        if self.outbox.size:
            self.outbox.append(frame)
            self.flush()
            return
        if self._torn:
            self._tear()
            return
        self._torn = True
        try:
            sent = self.sock.send(frame)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._torn = False
            self._lose(_why(error))
            return
        if sent < len(frame):
            self.outbox.append(memoryview(frame)[sent:])
        self._torn = False

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        if self._torn:
            self._tear()
            return
        outbox = self.outbox
        while outbox.size:
            self._torn = True
            head = outbox.head()
            try:
                sent = self.sock.send(head)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._torn = False
                self._lose(_why(error))
                return
            if sent:
                outbox.advance(sent, clock())
            self._torn = False
            if sent < len(head):
                return

    def settle(self) -> None:
        """Take the next step of an ending, if there is one."""
        connection = self.connection
        goodbye = connection.take_bytes()
        if goodbye:
            self.send(goodbye)
        elif self.outbox.size and connection.state is State.CLOSING:
            self.flush()
        if connection.state is not State.CLOSING or self.outbox.size:
            return
        if not self._shut:
            self._shut = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        if self._eof:
            self.inbox += connection.lost("both sides are done", clock())

    def end(self, events: list[Event], *, discard: bool) -> None:
        """Put the end into the inbox, in place of what waits there or after it."""
        if discard:
            for event in self.inbox:
                if isinstance(event, Messages):
                    event.bodies.clear()  # ends the loop that runs them, too
        self.inbox += events

    def drop(self) -> None:
        """Close the socket, whatever state the conversation is in."""
        self.sock.close()

    def _lose(self, reason: str) -> None:
        self.outbox.clear()
        self.inbox += self.connection.lost(reason, clock())

    def _tear(self) -> None:
        """An exception struck in the middle of a read or write: where the next frame
        begins is unknown, so no byte may follow."""
        self._torn = False
        self._lose("interrupted in the middle of a frame")


def _why(error: OSError) -> str:
    return f"the connection broke: {error.strerror or error}"
