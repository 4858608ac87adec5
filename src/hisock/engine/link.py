"""A socket around a Connection: the one place that reads and writes.

Never waits and never decides; the engine that holds the lock calls it.
"""

from __future__ import annotations

__all__ = ("DONT_WAIT", "READ_SIZE", "Link")

import contextlib
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from hisock.handlers.table import HandlerEntry
from hisock.hub.outbox import Outbox
from hisock.session.connection import Connection, Event, Messages
from hisock.session.states import State
from hisock.types import ClientInfo, Limits
from hisock.wire.compact import Encoded

#: Bytes of one read: large enough to share the cost of a turn among hundreds of small
#: messages, small enough that the allocator does not ask the system for it.
READ_SIZE: Final = 64 * 1024

#: Lets a read or write not wait even where the socket may (a client's), so that the
#: client's own waiting read is one system call, not two. Windows has no such flag, and
#: macOS not for every call; there all sockets are non-blocking.
DONT_WAIT: Final[int] = socket.MSG_DONTWAIT if sys.platform == "linux" else 0

clock = time.monotonic


class Link:
    """One peer: its socket, its conversation, what waits in both directions.

    Attributes:
        sock: The socket; closed by ``drop``, or by a user who got hold of it.
        fd: Its descriptor, also when it is closed.
        connection: What has been agreed with the peer.
        outbox: What waits to be written.
        inbox: Events that wait for their turn, in order.
        info: What handlers get to see of the peer.
        is_torn: Whether a KeyboardInterrupt struck between a read or write and the note
            of what it did: bytes may have come or gone unseen, so none may follow.
        address: Where the peer called from.
        has_joined: Whether it was ever a member of the server.
        is_member: Whether it is one now.
        writer: Encodes what is sent to it.
        is_busy: Whether its next message waits for a handler that still runs.
        is_paused: Whether it is not read, for too much of it waits already.
        todo: What has to be done once that handler has finished.
        wants_roster: Whether it is told who joins and leaves.
    """

    __slots__ = (
        "_eof",
        "_running",
        "_shut",
        "address",
        "connection",
        "fd",
        "has_joined",
        "inbox",
        "info",
        "is_busy",
        "is_member",
        "is_paused",
        "is_ready",
        "is_torn",
        "outbox",
        "sock",
        "timer",
        "todo",
        "wants_roster",
        "watched",
        "writer",
    )

    info: ClientInfo
    writer: Any

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
        self.is_member = False
        self.is_ready = False
        self.is_busy = False
        self.is_paused = False
        self.wants_roster = True
        self.todo: list[Callable[[], object]] = []
        self._running: dict[HandlerEntry, int] | None = None
        self.watched = (True, False)
        self.timer: float | None = None
        self.is_torn = False
        self._eof = False
        self._shut = False

    @property
    def where(self) -> str:
        """Its address, for texts."""
        address = self.address
        if isinstance(address, tuple):
            return f"{address[0]}:{address[1]}"
        return "a unix socket"

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.connection.is_open

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen on this link."""
        return self.connection.state is State.CLOSED

    @property
    def wants_writing(self) -> bool:
        """Whether the socket has to be watched for room."""
        return self.outbox.size > 0 and not self.is_over

    @property
    def wants_reading(self) -> bool:
        """Whether the peer may still send something."""
        return not (self._eof or self.is_paused)

    def is_overfed(self, limits: Limits) -> bool:
        """Whether as much waits for its handlers as may; more where this side awaits an
        answer that would have to come after it."""
        requests = self.connection.requests
        awaits = requests is not None and requests.asked
        limit = limits.queue if awaits else limits.handler_queue
        return 0 < limit < sum(e.size for e in self.inbox if isinstance(e, Messages))

    def begin(self, entry: HandlerEntry) -> None:
        """A handler for this link takes longer than its call."""
        if self._running is None:
            self._running = {}
        self._running[entry] = self._running.get(entry, 0) + 1
        self._weigh()

    def end_of(self, entry: HandlerEntry) -> None:
        """Such a handler has finished."""
        assert self._running is not None
        self._running[entry] -= 1
        if not self._running[entry]:
            del self._running[entry]
        self._weigh()

    @property
    def depth(self) -> int:
        """How many handlers run for it."""
        return sum((self._running or {}).values())

    def _weigh(self) -> None:
        running = (self._running or {}).items()
        self.is_busy = any(n >= entry.options.concurrency for entry, n in running)

    def next_deadline(self) -> float | None:
        """When ``Connection.tick`` or ``Outbox.check`` is due, if nothing happens."""
        own, stall = self.connection.deadline, self.outbox.deadline
        if own is None or stall is None:
            return own if stall is None else stall
        return min(own, stall)

    def read(self) -> None:
        """Read once, without waiting, and put what it means into the inbox."""
        if self.is_torn:
            self._tear()
            return
        self.is_torn = True
        room = self.connection.room
        data: bytes | int
        try:
            if room is None:
                data = self.sock.recv(READ_SIZE, DONT_WAIT)
            else:
                data = self.sock.recv_into(room, 0, DONT_WAIT)
        except OSError as error:
            self.is_torn = False
            if not isinstance(error, BlockingIOError | InterruptedError):
                self.lose(error)
            return
        connection = self.connection
        if data:
            self.inbox += connection.feed(data, clock())
            if connection.needs_attention:
                self.heed()
        else:
            self.take(data)
        self.is_torn = False

    def take(self, data: bytes | int) -> None:
        """Put what was read, or how much, into the inbox; nothing is the end."""
        if data:
            self.inbox += self.connection.feed(data, clock())
            if self.connection.needs_attention:
                self.heed()
        elif not self._eof and not self.is_over:
            self._eof = True
            self.inbox += self.connection.feed_eof(clock())

    def heed(self) -> None:
        """Send what the conversation itself has to say: marks, pongs, the goodbye."""
        self.connection.needs_attention = False
        out = self.connection.take_bytes()
        if out:
            self.is_torn = False
            self.send(out)

    def lose(self, error: OSError) -> None:
        """A read or write failed: the link is gone."""
        self._lose(_why(error))

    def send(self, frame: Encoded) -> None:
        """Write a frame after everything before it, as far as there is room."""
        if isinstance(frame, tuple):
            self._send_parts(frame)
            return
        if self.is_torn or self.outbox.size:
            self.outbox.append(frame)
            self.flush()
            return
        self.is_torn = True
        try:
            sent = self.sock.send(frame, DONT_WAIT)
        except OSError as error:
            self.keep_all(frame, error)
            return
        if sent == len(frame):
            self.is_torn = False
        else:
            self.keep(frame, sent)

    def _send_parts(self, parts: tuple[bytes, ...]) -> None:
        """Write a large frame as ``send`` does, without joining it (bench/large.py)."""
        sent = 0
        if not (self.is_torn or self.outbox.size) and hasattr(self.sock, "sendmsg"):
            self.is_torn = True
            try:
                sent = self.sock.sendmsg(parts, (), DONT_WAIT)
            except OSError as error:
                if not isinstance(error, BlockingIOError | InterruptedError):
                    self.is_torn = False
                    self.lose(error)
                    return
            for part in parts:
                if sent < len(part):
                    self.outbox.append(memoryview(part)[sent:])
                sent = max(0, sent - len(part))
            self.is_torn = False
            return
        for part in parts:
            self.outbox.append(part)
        self.flush()

    def keep(self, frame: bytes, sent: int) -> None:
        """Write later what there was no room for."""
        self.outbox.append(memoryview(frame)[sent:])
        self.is_torn = False

    def keep_all(self, frame: bytes, error: OSError) -> None:
        """Write a frame later if there was no room at all; else the link is lost."""
        if isinstance(error, BlockingIOError | InterruptedError):
            self.keep(frame, 0)
        else:
            self.is_torn = False
            self.lose(error)

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        if self.is_torn:
            self._tear()
            return
        outbox = self.outbox
        while outbox.size:
            self.is_torn = True
            head = outbox.head()
            try:
                sent = self.sock.send(head, DONT_WAIT)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self.is_torn = False
                self.lose(error)
                return
            if sent:
                outbox.advance(sent, clock())
            self.is_torn = False
            if sent < len(head):
                return

    def settle(self) -> None:
        """Take the next step of an ending, if there is one."""
        connection = self.connection
        goodbye = connection.take_bytes()
        connection.needs_attention = False
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
        self.is_torn = False
        self._lose("interrupted in the middle of a frame")


def _why(error: OSError) -> str:
    return f"the connection broke: {error.strerror or error}"
