"""Sockets that speak WebSocket, as ones that speak the compact wire.

Like ``tls.SecureSocket`` they are what ``Link`` reads and writes, and never wait, but
in ``handshake``, for TLS. Nobody imports this before the first ``GET``.
"""

from __future__ import annotations

__all__ = ("ClientWeb", "NotUpgraded", "UpgradedSocket")

import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from hisock.engine.fanout import Outlet
from hisock.engine.link import DONT_WAIT
from hisock.errors import Refused, RemoteProtocolError
from hisock.wire.websocket import WebSocket
from hisock.wire.ws_client import ClientSide

_READ: Final = 64 * 1024
#: Bytes of answers that may wait for who pings and pings, but reads none.
_MOST_PENDING: Final = 256 * 1024

#: Pieces of a page that are written in one go, before others have their turn.
_PIECES: Final = 16

#: Answers after which another try makes sense (RFC 9110).
_PASSES: Final = ("429 ", "5")


class NotUpgraded(ConnectionError):
    """The server does not speak WebSocket, or not with us.

    Attributes:
        error: What to raise to the user instead; ``None`` where a proxy says that the
            server is not there just now.
    """

    def __init__(self, text: str) -> None:
        passes = text.startswith(_PASSES)
        text = f"the server refused the WebSocket: {text}"
        super().__init__(text)
        self.error = None if passes else Refused(text, "http")


class _Violated(OSError):
    """What came is no WebSocket of hisock.

    Attributes:
        error: What to tell.
        violates: That it ends more than the link.
    """

    violates: Final = True

    def __init__(self, error: RemoteProtocolError) -> None:
        super().__init__(str(error))
        self.error = error


def _interrupted() -> OSError:
    text = "interrupted in the middle of a message"
    return ConnectionAbortedError(errno.ECONNABORTED, text)


class UpgradedSocket:
    """A connected socket, as far as hisock uses it. It has no ``sendmsg``.

    Args:
        sock: The socket, or one that encrypts.
        websocket: What is said on it.
        largest: Tells how many bytes the largest message may have by now.
        first: What was read of it already.
    """

    __slots__ = (
        "_answers",
        "_came",
        "_eof",
        "_has_failed",
        "_is_broken",
        "_is_shut",
        "_is_told",
        "_is_writing",
        "_largest",
        "_lock",
        "_pid",
        "_rest",
        "_secure",
        "_sock",
        "_taken",
        "family",
        "websocket",
    )

    def __init__(
        self,
        sock: Any,
        websocket: WebSocket,
        largest: Callable[[], int],
        first: bytes = b"",
    ) -> None:
        self._sock = sock
        self._pid = os.getpid()
        #: What encrypts below, if something does.
        self._secure = sock if hasattr(sock, "has_plaintext") else None
        self._largest = largest
        self.websocket = websocket
        # One thread may read while others write. Reentrant, for a signal handler may
        # send while its thread is in here.
        self._lock = threading.RLock()
        self._came = websocket.feed(first) if first else b""
        self._rest: memoryview | bytes = b""
        #: What was read and not looked at; empty between two calls.
        self._taken: list[bytes] = []
        self._eof = self._is_told = self._is_shut = self._has_failed = False
        #: Whether Ctrl-C struck amid a message, so that no byte may follow.
        self._is_broken = self._is_writing = False
        #: Bytes of answers to the peer's pings that found no room.
        self._answers = 0
        self.family: int = sock.family
        if first:
            self._write_quietly()

    def fileno(self) -> int:
        """Its descriptor; -1 once it is closed."""
        return int(self._sock.fileno())

    def getpeername(self) -> Any:
        """Who called."""
        return self._sock.getpeername()

    def getsockname(self) -> Any:
        """Where."""
        return self._sock.getsockname()

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As a socket's own."""
        self._sock.setsockopt(level, option, value)

    def setblocking(self, flag: bool) -> None:
        """As a socket's own."""
        self._sock.setblocking(flag)

    def getblocking(self) -> bool:
        """As a socket's own."""
        return bool(self._sock.getblocking())

    @property
    def is_open(self) -> bool:
        """Whether messages go both ways."""
        return self.websocket.is_open

    @property
    def is_text(self) -> bool:
        """Whether its messages are text (JSON)."""
        return self.websocket.is_text

    @property
    def peer_names(self) -> tuple[str, ...]:
        """The names in the peer's certificate, where there is one."""
        names: tuple[str, ...] = getattr(self._sock, "peer_names", ())
        return names

    def take_idle_talk(self) -> int:
        """How many pings and pongs came since the last time."""
        count, self.websocket.idle_talk = self.websocket.idle_talk, 0
        return count

    # --- reading ---------------------------------------------------------------------

    @property
    def has_plaintext(self) -> bool:
        """Whether ``recv`` has something to tell though the socket may stay silent."""
        if self._came or self._taken or self._owes_error:
            return True
        if self._eof and not self._is_told:
            return True
        return self._secure is not None and bool(self._secure.has_plaintext)

    @property
    def _owes_error(self) -> bool:
        """Whether it is still to be told that what came is no WebSocket of hisock."""
        return self.websocket.error is not None and not self._has_failed

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Frames of the compact wire, at most ``size`` bytes; none at the end.

        Raises:
            BlockingIOError: There are none yet.
            OSError: What came is no WebSocket of hisock, as ``error`` tells; once.
            NotUpgraded: The server refused.
        """
        self._fill(flags)
        came = self._came
        if len(came) <= size:
            self._came = b""  # and no call from here on
            return came
        self._came = came[size:]
        return came[:size]

    def recv_into(
        self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0
    ) -> int:
        """As ``recv``, into a buffer; how many there were."""
        self._fill(flags)
        with memoryview(buffer) as room:
            came = self._came[: nbytes or len(room)]
            count = len(came)
            room[:count] = came
        self._came = self._came[count:]  # and no call from here on
        return count

    def _fill(self, flags: int) -> None:
        """Read until there is something to tell; at the end there is not."""
        while not self._came:
            if self._is_broken:
                raise _interrupted()
            if not (self._eof or self._taken or self._owes_error):
                # One step for Python: no KeyboardInterrupt comes between reading, which
                # may wait, and keeping.
                self._taken.extend(map(self._sock.recv, (_READ,), (flags,)))
            try:
                if self._take_in():
                    return
            except OSError:
                raise
            except BaseException:
                self._is_broken = True
                raise
            if self._owes_error:
                self._has_failed = True
                code = "too_large" if self.websocket.is_too_large else "remote"
                text = self.websocket.error or ""
                raise _Violated(RemoteProtocolError(text, code))
            if self._eof:
                self._is_told = True
                return
            # Without the flag it is a client's wait, which goes on.
            if flags & DONT_WAIT or not self.getblocking():
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _take_in(self) -> bool:
        """Look at what was read; whether there is something to tell."""
        if not self._taken:
            return False
        data = self._taken.pop()
        with self._lock:
            websocket = self.websocket
            waiting = self.pending if self._rest or self._secure is not None else 0
            websocket.largest = self._largest()
            if data:
                self._came = websocket.feed(data)
            else:
                self._eof = True
                websocket.feed_eof()
            if self._is_idle:  # usually (bench/websocket_fan_out.py)
                self._answers = 0
            else:
                self._write_quietly()
                if websocket.is_open:
                    self._count_answers(waiting)
        if isinstance(websocket, ClientSide) and websocket.refusal:
            raise NotUpgraded(websocket.refusal)
        return bool(self._came)

    def _count_answers(self, waiting: int) -> None:
        """What has come to wait in a read is answers: nobody sends meanwhile."""
        pending = self.pending
        self._answers += max(0, pending - waiting)
        if not pending:
            self._answers = 0
        if self._answers > _MOST_PENDING and not self._eof:
            self.websocket.violate("it asks and asks, and reads no answer")

    # --- writing ---------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Bytes that wait for room: watch for writing, call ``flush``."""
        below = 0 if self._secure is None else int(self._secure.pending)
        return len(self._rest) + below + self.websocket.has_more

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Take all of it in, if nothing of before waits; how many bytes.

        Raises:
            BlockingIOError: Something of before still waits.
        """
        # All in one ``try``, for what a message that is half written, or one that is
        # written and not told of, needs is another connection.
        try:
            with self._lock:
                websocket = self.websocket
                if self._is_idle:
                    # What many get, in few steps (bench/websocket_fan_out.py).
                    framed = websocket.framed(data)
                    if framed is not None:
                        self._is_writing = True
                        try:
                            sent = self._sock.send(framed, DONT_WAIT)
                            if sent < len(framed):
                                self._rest = memoryview(framed)[sent:]
                        finally:
                            self._is_writing = False
                        return len(data)
                elif not self._write():
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                if self._is_shut:
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
                websocket.write(bytes(data))
                self._write()
                return len(data)
        except OSError:
            raise
        except BaseException:
            self._is_broken = True
            raise

    @property
    def _is_idle(self) -> bool:
        """Whether nothing waits and nothing is encrypted, so that a message may be
        written at once."""
        websocket = self.websocket
        waits = self._rest or websocket.is_writing or self._secure is not None
        has_ended = websocket.is_over or self._is_shut or self._is_broken
        return websocket.is_open and not (waits or has_ended or self._is_writing)

    @property
    def is_quiet(self) -> bool:
        """Whether nobody has to attend to it: nothing waits, nothing has ended."""
        return self._is_idle and not self._eof

    @property
    def outlet(self) -> Outlet | None:
        """As ``fanout.Outlet``, while nothing is in the way."""
        frames = self.websocket.frames
        if frames is None or not self._is_idle:
            return None
        return self._sock, frames

    def keep_rest(self, rest: memoryview) -> None:
        """Write later what was written in part past this."""
        with self._lock:
            self._rest = rest

    def flush(self) -> bool:
        """Write what waits for room; whether all of it has left."""
        try:
            with self._lock:
                return self._write()
        except OSError:
            raise
        except BaseException:
            self._is_broken = True
            raise

    def _write(self) -> bool:
        if self._is_broken:
            raise _interrupted()
        if self._is_writing:  # further out on this thread, before a signal's handler
            return False
        self._is_writing = True
        try:
            return self._write_all()
        finally:
            self._is_writing = False

    def _write_all(self) -> bool:
        websocket, pieces = self.websocket, _PIECES
        if out := websocket.take():
            self._rest = bytes(self._rest) + out if self._rest else out
        while True:
            if pieces and websocket.has_more and not self._rest:
                pieces -= 1
                self._rest = websocket.take_piece()
            if not (rest := self._rest):
                break
            try:
                sent = self._sock.send(rest, DONT_WAIT)
            except (BlockingIOError, InterruptedError):
                return False
            self._rest = memoryview(rest)[sent:] if sent < len(rest) else b""
        if self._secure is not None and not self._secure.flush():
            return False
        if websocket.is_over and not self._is_shut:
            self._is_shut = True
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        return not websocket.has_more

    def _write_quietly(self) -> None:
        """Write, and leave it to the next read to tell why that is not possible."""
        with suppress(OSError):
            self.flush()

    def shutdown(self, how: int) -> None:
        """Shut the socket; that no more comes is said by the protocol's own close."""
        with self._lock:
            if how == socket.SHUT_WR:
                self.websocket.shut()
            elif not isinstance(self.websocket, ClientSide):  # whose goodbye it were
                self.websocket.close()
            self._write_quietly()
            if how != socket.SHUT_WR:
                self._is_shut = True
                self._sock.shutdown(how)

    def close(self) -> None:
        """Say so, if that was not done, and let go of the socket."""
        # Else it forked, perhaps while a thread held the lock that is not here.
        if self._pid == os.getpid():
            with self._lock:
                self.websocket.close()
                if not self._is_shut:
                    self._write_quietly()
        self._sock.close()

    # --- a client's handshake of TLS below -----------------------------------------

    def advance(self) -> bool:
        """As ``SecureSocket.advance``; that of WebSocket is not waited for."""
        return self._secure is None or bool(self._secure.advance())

    def handshake(self, timeout: float) -> None:
        """As ``SecureSocket.handshake``."""
        if self._secure is not None:
            self._secure.handshake(timeout)


class ClientWeb:
    """What a client of a ``ws://`` or ``wss://`` address makes of its connections.

    Args:
        uri: The address.
        tls: Encrypts below; ``None`` for ``ws://``.
        largest: Bytes of the largest message; 0 for any.
    """

    def __init__(self, uri: str, tls: Any, largest: int) -> None:
        self._uri = uri
        self._tls = tls
        self._largest = largest

    def wrap(self, sock: socket.socket, address: object) -> UpgradedSocket:
        """Make a connection one that speaks WebSocket; never waits."""
        below = sock if self._tls is None else self._tls.wrap(sock, address)
        side = ClientSide(self._uri, self._largest, os.urandom)
        return UpgradedSocket(below, side, lambda: self._largest)
