"""One link that several threads wait for: one of them reads, all of them hear of it."""

from __future__ import annotations

__all__ = ("SharedPump",)

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from hisock.engine.link import DONT_WAIT, READ_SIZE, Link
from hisock.engine.threads import StateLock
from hisock.engine.waiting import Waiter

_SIZES: Final = (READ_SIZE,)
#: Seconds after which a waiting read gives up, so that a wait with a time-out is one
#: system call, too, until its last seconds.
_PATIENCE: Final = 5.0


def _look_away() -> None:
    """For who looks for himself."""


class SharedPump:
    """Reads a link into its inbox for whoever waits.

    Whoever comes first pumps; the others wait until it has read something or stops,
    and then look for themselves.

    Attributes:
        news: How often something changed. A caller notes it, looks for what it wants,
            and passes it to ``pump``, so that nothing comes unnoticed in between.
    """

    __slots__ = (
        "_bell",
        "_changed",
        "_link",
        "_lock",
        "_pumping",
        "_received",
        "_waiter",
        "_waiting",
        "news",
    )

    def __init__(self, link: Link, lock: StateLock) -> None:
        self._link = link
        self._lock = lock
        self._waiter = Waiter(link.sock)
        if DONT_WAIT:
            patience = struct.pack("ll", int(_PATIENCE), 0)
            with suppress(OSError):  # gone already: the first read tells
                link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        #: The far end and the near end of what ``ring`` is heard by, once needed.
        self._bell: tuple[socket.socket, socket.socket] | None = None
        # Reentrant, so that a KeyboardInterrupt just after taking it does not lock the
        # thread out of its own link.
        self._pumping = threading.RLock()
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0
        self._received: list[bytes | int] = []
        self.news = 0

    def pump(
        self,
        timeout: float | None,
        seen: int,
        look: Callable[..., Any] = _look_away,
        *wanted: object,
    ) -> Any:
        """Wait for something new and read it, or let another thread do that.

        Args:
            timeout: Seconds to wait at most; ``None`` for as long as it takes.
            seen: ``news`` from before the caller looked for what it wants.
            look: Looks again under the lock, where this thread has read.
            wanted: Passed to ``look``.

        Returns:
            What ``look`` found.
        """
        if self._pumping.acquire(False):
            return self._pump(timeout, seen, look, wanted)
        with self._changed:
            self._waiting += 1
        try:
            # From here on whoever lets the pump go tells us, so look once more.
            if self._pumping.acquire(False):
                return self._pump(timeout, seen, look, wanted)
            with self._changed:
                self._changed.wait_for(lambda: self.news != seen, timeout)
            return None
        finally:
            with self._changed:
                self._waiting -= 1

    def try_pump(self, timeout: float) -> bool:
        """Wait for something new and read it; false if another thread does that."""
        if not self._pumping.acquire(False):
            return False
        self._pump(timeout, self.news, _look_away, ())
        return True

    def wait_beside(self, timeout: float | None, seen: int) -> None:
        """Wait until something changes, and leave the reading to others."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self.news != seen, timeout)
            finally:
                self._waiting -= 1

    def _pump(
        self,
        timeout: float | None,
        seen: int,
        look: Callable[..., Any],
        wanted: tuple[object, ...],
    ) -> Any:
        link = self._link
        try:
            if self.news != seen:
                return None
            if self._received:
                pass  # an interrupt struck before it was looked at
            elif (
                (timeout is None or timeout >= _PATIENCE)
                and DONT_WAIT
                and self._bell is None
                and not link.outbox.size
            ):
                room = link.connection.room
                try:
                    # Waits and reads in one system call, and for Python in one step,
                    # too: no KeyboardInterrupt comes between reading and keeping.
                    if room is None:
                        self._received.extend(map(link.sock.recv, _SIZES))
                    else:
                        self._received.extend(map(link.sock.recv_into, (room,)))
                except BlockingIOError:
                    return None  # the patience is over; the caller looks at the time
                except OSError as error:
                    self._lock.run(link.lose, error)
            elif not self._waiter.wait(timeout, link.outbox.size > 0):
                return None
            if self._bell is not None:
                self._hear_bell()
            self.news += 1
            # ``StateLock.run`` in place (bench/ping_pong.py).
            lock = self._lock
            with lock.reading:
                if lock.is_busy:  # from a signal handler
                    lock.postponed.append((self._read, (_look_away, ())))
                    return None
                lock.is_busy = True
                try:
                    return self._read(look, wanted)
                finally:
                    lock.is_busy = False
                    if lock.postponed:
                        lock.catch_up()
        finally:
            self._pumping.release()
            if self._waiting:
                self.announce()

    def _read(self, look: Callable[..., Any], wanted: tuple[object, ...]) -> Any:
        link = self._link
        if self._received:
            link.take(self._received.pop())
        else:
            if link.outbox.size:
                link.flush()
            link.read()
        if not link.connection.is_open:
            link.settle()
        return look(*wanted)

    def listen_for_bell(self) -> None:
        """From now on ``ring`` ends the wait of the thread that reads, too.

        Costs two descriptors, and each wait a system call more.
        """
        if self._bell is None:
            near, far = socket.socketpair()
            near.setblocking(False)
            far.setblocking(False)
            self._waiter.listen(near)
            self._bell = far, near

    def ring(self) -> None:
        """Something changed that is not on the socket: everybody looks again."""
        self.announce()
        if self._bell is not None:
            with suppress(OSError):  # full, so it rings already; or closed
                self._bell[0].send(b"!")

    def close_bell(self) -> None:
        """Let go of what ``listen_for_bell`` took."""
        for end in self._bell or ():
            end.close()

    def _hear_bell(self) -> None:
        assert self._bell is not None
        with suppress(OSError):
            self._bell[1].recv(4096)

    def announce(self) -> None:
        """Something changed: threads that wait, or are about to, look again."""
        self.news += 1
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    def drop(self) -> None:
        """Close the socket; a thread that waits for it wakes up first."""
        with suppress(OSError):  # it is not connected any more
            self._link.sock.shutdown(socket.SHUT_RDWR)
        # The reader is about to let go; one that an interrupt stopped never will.
        if self._pumping.acquire(timeout=1.0):
            self._pumping.release()
        self._lock.run(self._link.drop)
        self.close_bell()
        self.announce()
