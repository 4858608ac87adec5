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
from typing import TYPE_CHECKING, Any, Final, Protocol

from hisock.handlers.table import HandlerEntry
from hisock.hub.outbox import Outbox, Plain
from hisock.session.connection import Connection
from hisock.session.events import Closed, Dropped, Event, Messages
from hisock.session.resume import Block, Replay, Session, Written
from hisock.session.states import State
from hisock.types import ClientInfo
from hisock.wire.compact import Encoded, encode
from hisock.wire.frames import Bye, Refusal, Welcome

if TYPE_CHECKING:
    from hisock.engine.allowance import Allowance
    from hisock.engine.sharing import SharedPump
    from hisock.engine.tls import SecureSocket

    class Keeper(Protocol):
        """What brings a client back after a cut."""

        is_willing: bool
        awaits: bool

        def answered(self, welcome: Welcome | None) -> bool:
            """The server has said which wire it speaks; without a welcome it is of 1.1.
            Whether the link was cut before, and is whole again."""

        def refused(self, refusal: Refusal) -> bool:
            """The server does not let us in; whether another try makes sense."""


#: Bytes of one read: large enough to share the cost of a turn among hundreds of small
#: messages, small enough that the allocator does not ask the system for it.
READ_SIZE: Final = 64 * 1024

#: Lets a read or write not wait even where the socket may (a client's), so that the
#: client's own waiting read is one system call, not two. Windows has no such flag, and
#: macOS not for every call; there all sockets are non-blocking.
DONT_WAIT: Final[int] = socket.MSG_DONTWAIT if sys.platform == "linux" else 0

_FLAGS: Final = (DONT_WAIT,)

clock = time.monotonic


class Link:
    """One peer: its socket, its conversation, what waits in both directions.

    Attributes:
        secure: The same socket, where it encrypts.
        sock: The socket; closed by ``drop``, or by a user who got hold of it.
        fd: Its descriptor, also when it is closed.
        connection: What has been agreed with the peer.
        outbox: What waits to be written.
        inbox: Events that wait for their turn, in order.
        info: What handlers get to see of the peer.
        is_torn: Whether a KeyboardInterrupt struck between a read or write and the note
            of what it did: bytes may have come or gone unseen, so none may follow.
        address: Where the peer called from.
        bytes_read: How many came, over all its sockets.
        replay: What was written and not acknowledged; ``None`` without a session.
        is_dropped: Whether its link is cut, but not its session.
        look_at: Bytes in ``replay`` from which somebody should look at it.
        ends_at: When such a session ends, on a server.
        cut_reason: Why a server cut the link.
        has_joined: Whether it was ever a member of the server.
        is_member: Whether it is one now.
        writer: Encodes what is sent to it.
        is_busy: Whether its next message waits for a handler that still runs.
        is_paused: Whether it is not read, for too much of it waits already.
        rests_until: Until when it is not read, for it sent too much too quickly.
        allowance: What it may send, where there is a limit.
        paced: What was counted last.
        todo: What has to be done once that handler has finished.
        wants_roster: Whether it is told who joins and leaves.
    """

    __slots__ = (
        "_eof",
        "_running",
        "_writing",
        "_written",
        "_shut",
        "address",
        "allowance",
        "bytes_read",
        "connection",
        "cut_reason",
        "ends_at",
        "fd",
        "has_joined",
        "inbox",
        "info",
        "is_busy",
        "is_dropped",
        "is_member",
        "is_paused",
        "is_ready",
        "is_torn",
        "keeper",
        "look_at",
        "outbox",
        "paced",
        "reader",
        "replay",
        "rests_until",
        "secure",
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
        self.bytes_read = self.look_at = 0
        self.has_joined = self.is_member = False
        self.is_ready = self.is_busy = self.is_paused = False
        self.rests_until: float | None = None
        self.allowance: Allowance | None = None
        self.paced: Messages | None = None
        self.wants_roster = True
        self.todo: list[Callable[[], object]] = []
        self._running: dict[HandlerEntry, int] | None = None
        self.is_dropped = self.is_torn = False
        self.secure: SecureSocket | None = None
        self.replay: Replay | None = None
        self.ends_at: float | None = None
        self.cut_reason = ""
        #: Brings a client back after a cut.
        self.keeper: Keeper | None = None
        #: Who reads it besides ``read``: on a client, where a read may wait.
        self.reader: SharedPump | None = None
        self.watched = (True, False)
        self.timer: float | None = None
        self._eof = self._shut = False
        #: What is being written, and then how much of it was.
        self._writing: bytes | memoryview | None = None
        self._written: list[int] = []

    @property
    def where(self) -> str:
        """Its address, for texts."""
        if isinstance(self.address, tuple):
            return f"{self.address[0]}:{self.address[1]}"
        return "a unix socket"

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent; they may have to wait for a new socket."""
        return self.connection.is_open or self.is_dropped

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen on this socket."""
        return self.connection.state is State.CLOSED

    @property
    def wants_writing(self) -> bool:
        """Whether the socket has to be watched for room."""
        if self.is_over or self.is_dropped:
            return False
        has_frames = self.outbox.size > 0 and not self.outbox.waits_for_acks
        return has_frames or self.is_encrypting

    @property
    def is_encrypting(self) -> bool:
        """Whether encrypted bytes wait for room."""
        return self.secure is not None and self.secure.pending > 0

    @property
    def wants_reading(self) -> bool:
        """Whether the peer may still send something."""
        if self._eof or self.is_paused:
            return False
        # Behind a goodbye of ours only the end is awaited: what comes costs nothing.
        return self.rests_until is None or self.connection.state is State.CLOSING

    @property
    def is_unheard(self) -> bool:
        """Whether so much is not acknowledged that somebody should look."""
        return self.replay is not None and self.replay.size > self.look_at

    @property
    def is_behind(self) -> bool:
        """Whether something waits to be written, or a lot to be acknowledged."""
        return self.outbox.size > 0 or self.is_unheard or self.is_encrypting

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

    def _weigh(self) -> None:
        running = (self._running or {}).items()
        self.is_busy = any(n >= entry.options.concurrency for entry, n in running)

    def next_deadline(self) -> float | None:
        """When ``Connection.tick`` or ``Outbox.check`` is due, if nothing happens; or
        when the session ends."""
        if self.is_dropped and self.ends_at is not None:
            return self.ends_at
        own, stall = self.connection.deadline, self.outbox.deadline
        if self.rests_until is not None:
            own = self.rests_until if own is None else min(own, self.rests_until)
        if own is None or stall is None:
            return own if stall is None else stall
        return min(own, stall)

    def read(self) -> bool:
        """Read once, without waiting, and put what it means into the inbox.

        Returns:
            Whether something came.
        """
        if self.is_torn and not self.mend():
            return False
        self.is_torn = True
        connection = self.connection
        room = connection.room
        data: bytes | int
        try:
            if room is None:
                data = self.sock.recv(READ_SIZE, DONT_WAIT)
                size = len(data)
            else:
                data = size = self.sock.recv_into(room, 0, DONT_WAIT)
        except OSError as error:
            self.is_torn = False
            if not isinstance(error, BlockingIOError | InterruptedError):
                self.lose(error)
            return False
        if data:  # ``take`` in place
            self.bytes_read += size
            self.inbox += connection.feed(data, clock())
            if connection.needs_attention:
                self.heed()
        else:
            self.take(data)
        self.is_torn = False
        if self.outbox.size and not self.is_dropped:
            self.flush()  # acknowledgements may have made room
        secure = self.secure  # no poller tells of what is decrypted already
        if (secure and secure.has_plaintext) and not (self._eof or self.is_over):
            self.read()
        return size > 0

    def take(self, data: bytes | int) -> None:
        """Put what was read, or how much, into the inbox; nothing is the end."""
        if data:
            self.inbox += self.connection.feed(data, clock())
            if self.connection.needs_attention:
                self.heed()
        elif not self._eof and not self.is_over:
            self._eof = True
            self.happen(self.connection.feed_eof(clock()))

    def heed(self) -> None:
        """Do what the conversation itself asks for: marks, pongs, acknowledgements are
        sent, a cut and a welcome have their consequences."""
        connection = self.connection
        connection.needs_attention = False
        if not connection.is_open:
            self._look_at_end()
            return
        keeper = self.keeper
        self.is_torn = False
        try:
            out = connection.take_bytes()
            if keeper is not None and keeper.awaits and connection.is_agreed:
                welcome, connection.welcome = connection.welcome, None
                if keeper.answered(welcome):
                    self.go_on(out)
                    return
            if out:
                self.send_control(out)
        except BaseException:  # Ctrl-C: what has to be said may be lost
            self.lose_for("interrupted in the middle of an answer")
            raise

    def _look_at_end(self) -> None:
        """The conversation on this socket is over; the session may not be."""
        end = self.inbox[-1] if self.inbox else None
        if not (isinstance(end, Closed) and self._goes_on(end)):
            self.connection.needs_attention = True
            if isinstance(end, Closed):
                self.is_dropped = False
            return
        self.inbox.pop()
        if not self.is_dropped:  # else a try to come back that came to nothing
            self.inbox.append(Dropped(end.reason))
        self.suspend()

    def _goes_on(self, end: Closed) -> bool:
        keeper = self.keeper
        if keeper is None:
            return end.is_cut and self.connection.session is not None
        if (refusal := self.connection.refusal) is not None:
            return keeper.refused(refusal)
        return end.is_cut and keeper.is_willing

    def suspend(self) -> None:
        """The socket is gone: what is sent waits for another."""
        self.is_dropped = True
        self.is_torn = self._eof = self._shut = False
        self.outbox.cut()
        self.connection.lost("", clock())  # where it was still saying goodbye
        with contextlib.suppress(OSError):  # wakes whoever waits for it
            self.sock.shutdown(socket.SHUT_RDWR)

    def begin_session(self, session: Session | None) -> None:
        """Keep from now on what may have to be written again."""
        self.replay = self.outbox.replay = None if session is None else session.replay

    def adopt(self, newcomer: Link) -> None:
        """Go on with the socket on which the peer came back."""
        self.sock, self.fd, self.secure = newcomer.sock, newcomer.fd, newcomer.secure
        self.address = newcomer.address
        self.connection = newcomer.connection
        self.bytes_read += newcomer.bytes_read
        self.watched = newcomer.watched
        self.ends_at = None
        # Its own timers and events are void; the first event was its hello.
        self.inbox += newcomer.inbox[1:]
        newcomer.inbox.clear()
        newcomer.timer = None

    def go_on(self, first: bytes) -> None:
        """The peer has told us what arrived: write the rest again, behind ``first``."""
        self.is_dropped = False
        again = [] if self.replay is None else self.replay.again()
        self.outbox.resume([first, *again] if first else again)
        self.flush()

    def part(self, bye: Bye) -> None:
        """Tell the peer to come back later, and cut the link."""
        self.outbox.append(Plain(encode(bye)))
        self.flush()
        self.lose_for(bye.text)

    def lose(self, error: OSError) -> None:
        """A read or write failed: the link is gone; what came before still counts."""
        if self.reader is None:
            self.hear_out()
        elif not self.reader.hear_out() and isinstance(error, ConnectionError):
            return
        final: Any = getattr(error, "error", None)
        if getattr(error, "violates", False):
            self.happen(self.connection.violated(final, clock()))
        elif final is None or self.keeper is None:
            self.lose_for(f"the connection broke: {error.strerror or error}")
        elif self.connection.lost(str(error), clock()):
            self.is_dropped = False
            self.outbox.clear()
            self.inbox.append(Closed(str(error), final))

    def hear_out(self) -> None:
        """Take in what had come before a write failed: a goodbye, perhaps."""
        connection = self.connection
        with contextlib.suppress(OSError):
            while connection.is_open and connection.room is None:
                data = self.sock.recv(READ_SIZE, DONT_WAIT)
                if not data:
                    return
                self.inbox += connection.feed(data, clock())

    def lose_for(self, reason: str) -> None:
        """The link is gone, whatever it was in the middle of."""
        events = self.connection.lost(reason, clock())
        self.happen(events)
        # Of a session that has ended it is still to be reported what waits there.
        if events and not self.is_dropped:
            self.outbox.clear()

    def happen(self, events: list[Event]) -> None:
        """Put events into the inbox that no read brought."""
        self.inbox += events
        if self.connection.needs_attention:
            self.heed()

    def send_control(self, data: bytes) -> None:
        """Write what has no number, before all that has none yet.

        While the session waits for its welcome this is all that is written.
        """
        if self.is_torn or (self.outbox.size and not self.is_dropped):
            self.outbox.put_first(data)
            self.flush()
            return
        sent = self._write(data)
        if 0 <= sent < len(data):
            self.outbox.keep((memoryview(data)[sent:],))
        self._noted()

    def send_early(self, data: bytes, packed: Encoded) -> None:
        """Write a message on the classic wire that would be replayed as ``packed``."""
        if self.replay is not None:
            self.replay.note(packed)
        self.outbox.keep((data,))
        self.flush()

    def send(self, frame: Written) -> None:
        """Write a frame after everything before it, as far as there is room."""
        if self.is_torn or self.outbox.size or self.is_dropped:
            self.outbox.append(frame)
            self.flush()
            return
        self.is_torn = True  # until what is noted is written, or kept to be
        if self.replay is not None:
            self.replay.note(frame)
        if isinstance(frame, tuple):
            return self._send_parts(frame)
        data = frame.data if isinstance(frame, Block) else frame
        sent = self._write(data)
        if 0 <= sent < len(data):
            self.keep(frame, sent)
        self._noted()

    def _write(self, data: bytes | memoryview) -> int:
        """Write now; how much, or -1 if the link is lost. Until the caller has noted
        that, and says so by ``_noted``, the link is torn, but can be mended."""
        written = self._written
        written.clear()
        self.is_torn = True
        self._writing = data
        try:
            # One step for Python: no KeyboardInterrupt comes between writing and
            # keeping how much that was.
            written.extend(map(self.sock.send, (data,), _FLAGS))
        except OSError as error:
            self._writing = None
            return self._room_or_loss(error)
        return written[0]

    def _noted(self) -> None:
        self.is_torn = False
        self._writing = None

    def _send_parts(self, parts: tuple[bytes, ...]) -> None:
        """Write a large frame as ``send`` does, without joining it (bench/large.py)."""
        if not hasattr(self.sock, "sendmsg"):
            self.outbox.keep(parts)
            self.is_torn = False
            self.flush()
            return
        try:
            sent = self.sock.sendmsg(parts, (), DONT_WAIT)
        except OSError as error:
            sent = self._room_or_loss(error)
        if sent >= 0:
            left: list[memoryview] = []
            for part in parts:
                if sent < len(part):
                    left.append(memoryview(part)[sent:])
                sent = max(0, sent - len(part))
            if left:
                self.outbox.keep(tuple(left))
            self.is_torn = False

    def keep(self, frame: bytes | Block, sent: int) -> None:
        """Write later what there was no room for; it was noted already."""
        if not sent and self.replay is not None:
            self.replay.take_back()
        if not sent:
            self.outbox.append(frame)
        else:
            data = frame.data if isinstance(frame, Block) else frame
            self.outbox.keep((memoryview(data)[sent:],))
        self._writing = None  # not to be mended by a later interrupt
        self.is_torn = False

    def keep_all(self, frame: bytes | Block, error: OSError) -> None:
        """Write a frame later if there was no room at all; else the link is lost."""
        if self._room_or_loss(error) == 0:
            self.keep(frame, 0)

    def _room_or_loss(self, error: OSError) -> int:
        """What a failed write has written: 0, or -1 if the link is lost."""
        if isinstance(error, BlockingIOError | InterruptedError):
            return 0
        self.is_torn = False
        self.lose(error)
        return -1

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        if self.is_dropped or self.is_over:  # what waits is still to be reported
            return
        if self.is_torn and not self.mend():
            return
        if self.secure is not None and not self._flush_encrypted(self.secure):
            return
        outbox = self.outbox
        while outbox.size and not outbox.waits_for_acks:
            head = outbox.head()
            sent = self._write(head)
            if sent < 0:
                return
            if sent:
                outbox.advance(sent, clock())
            self._noted()
            if sent < len(head):
                return

    def _flush_encrypted(self, secure: SecureSocket) -> bool:
        try:
            return secure.flush()
        except OSError as error:
            self.lose(error)
            return False

    def settle(self) -> None:
        """Take the next step of an ending, if there is one."""
        connection = self.connection
        if self.is_dropped:
            return
        goodbye = connection.take_bytes()
        connection.needs_attention = False
        if goodbye:
            self.outbox.append(Plain(goodbye))
            self.flush()
        elif self.outbox.size and connection.state is State.CLOSING:
            self.flush()
        if connection.state is not State.CLOSING or self.outbox.size:
            return
        if not self._shut:
            self._shut = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        if self._eof:
            self.lose_for("both sides are done")

    def end(self, events: list[Event], *, discard: bool) -> None:
        """Put the end into the inbox, in place of what waits there or after it."""
        if discard:
            for event in self.inbox:
                if isinstance(event, Messages):
                    event.bodies.clear()  # ends the loop that runs them, too
        self.happen(events)

    def drop(self) -> None:
        """Close the socket, whatever state the conversation is in."""
        self.sock.close()

    def mend(self) -> bool:
        """An exception struck in the middle of a read or write; whether that can be
        mended. Else it is unknown what has left, as of a write in many steps (TLS)."""
        self.is_torn = False
        data, self._writing = self._writing, None
        if data is None or (self.secure is not None and not self._written):
            self.lose_for("interrupted in the middle of a frame")
            return False
        sent = self._written[0] if self._written else 0
        outbox = self.outbox
        if outbox.is_at(data):
            if sent:
                outbox.advance(sent, clock())
        elif sent < len(data) and not outbox.is_begun:
            outbox.keep((memoryview(data)[sent:],))
        return True
