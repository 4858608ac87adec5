"""One link that several threads wait for: one of them reads, all of them hear of it."""

from __future__ import annotations

__all__ = ("SharedPump",)

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from hisock.engine.link import DONT_WAIT, READ_SIZE, Link
from hisock.engine.reconnect import Reconnector, is_ready
from hisock.engine.threads import StateLock
from hisock.engine.waiting import Waiter
from hisock.session.resume import ACK_DELAY

_SIZES: Final = (READ_SIZE,)
#: Seconds after which a waiting read gives up, so that a wait with a time-out is one
#: system call, too, until its last seconds.
_PATIENCE: Final = 5.0


#: Seconds after which whoever waits for another try looks around.
_SLICE: Final = 1.0
#: Seconds between two looks that still count as listening all the time.
_GAP: Final = 1.0


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
        "_keeper",
        "_link",
        "_lock",
        "_longest",
        "_patience",
        "_pumping",
        "_quiet_since",
        "_received",
        "_ticked",
        "_waiter",
        "_waiting",
        "news",
    )

    def __init__(
        self, link: Link, lock: StateLock, keeper: Reconnector, dead_after: float
    ) -> None:
        self._link = link
        self._lock = lock
        self._keeper = keeper
        self._longest = _PATIENCE
        if dead_after:
            self._longest = min(_PATIENCE, max(ACK_DELAY, dead_after / 4))
        self._quiet_since = 0.0
        self._ticked = 0.0
        #: The far end and the near end of what ``ring`` is heard by, once needed.
        self._bell: tuple[socket.socket, socket.socket] | None = None
        #: What was read, until it is looked at under the lock.
        self._received: list[bytes | int] = []
        self.rebind()
        link.reader = self
        # Reentrant, so that a KeyboardInterrupt just after taking it does not lock the
        # thread out of its own link.
        self._pumping = threading.RLock()
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0
        self.news = 0

    def rebind(self) -> None:
        """Wait for the link's present socket from now on; what an interrupt left of
        another's is sent again."""
        self._received.clear()
        self._waiter = Waiter(self._link.sock)
        if self._bell is not None:
            self._waiter.listen(self._bell[1])
        self._quiet_since = 0.0
        self._patience = 0.0
        self._be_patient(self._longest)

    def _be_patient(self, seconds: float) -> None:
        """Let a waiting read give up after so long."""
        if DONT_WAIT and seconds != self._patience:
            self._patience = seconds
            value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            with suppress(OSError):  # gone already: the first read tells
                option = socket.SO_RCVTIMEO
                self._link.sock.setsockopt(socket.SOL_SOCKET, option, value)

    def pump(
        self,
        timeout: float | None,
        seen: int,
        look: Callable[[], Any] = _look_away,
    ) -> Any:
        """Wait for something new and read it, or let another thread do that.

        Args:
            timeout: Seconds to wait at most; ``None`` for as long as it takes.
            seen: ``news`` from before the caller looked for what it wants.
            look: Looks again under the lock, where this thread has read.

        Returns:
            What ``look`` found.
        """
        try:
            if not (self._pumping.acquire(False) or self._is_left(timeout, seen)):
                return None
            if self.news != seen or not self._fetch(timeout):
                return None
            # ``StateLock.run`` in place (bench/ping_pong.py).
            lock = self._lock
            try:
                lock.take()
                if lock.is_busy:  # from a signal handler
                    self.news += 1
                    lock.postponed.append((self._read, ()))
                    return None
                lock.is_busy = True
                try:
                    self._read()
                    return look()
                finally:
                    # Not before: who had looked in between would wait for it.
                    self.news += 1
                    lock.is_busy = False
                    if lock.postponed:
                        lock.catch_up()
            finally:
                try:  # noqa: SIM105  # a call is dear
                    lock.give()
                except RuntimeError:  # it was not taken
                    pass
        finally:
            try:
                self._pumping.release()
            except RuntimeError:  # it was not taken
                pass
            else:
                if self._waiting:
                    self.announce()

    def _fetch(self, timeout: float | None) -> bool:
        """Wait for something new; false if there is nothing to look at."""
        link, received = self._link, self._received
        if link.is_dropped and not self._come_back(timeout):
            return False
        if received or link.is_torn:
            return True  # an interrupt struck before it was looked at
        if (
            (timeout is not None and timeout < self._patience)
            or not DONT_WAIT
            or self._bell is not None
            or link.outbox.size
            or link.is_dropped
            or (link.secure is not None and link.secure.pending)
        ):
            is_there = self._wait(timeout)
            if is_there and self._bell is not None:
                self._hear_bell()
            return is_there
        session, room = link.connection.session, link.connection.room
        if (
            session is not None
            and session.received != session.told
            and self._patience != ACK_DELAY
        ):
            self._be_patient(ACK_DELAY)  # then it is to be acknowledged
        try:
            # Waits and reads in one system call, and for Python in one step, too: no
            # KeyboardInterrupt comes between reading and keeping.
            if room is None:
                received.extend(map(link.sock.recv, _SIZES))
            else:
                received.extend(map(link.sock.recv_into, (room,)))
        except BlockingIOError:
            self._lock.run(self._tick, self._patience)
            self._be_patient(self._longest)
            return False  # the patience is over; the caller looks at the time
        except OSError as error:
            self._lock.run(link.lose, error)
        return True

    def _is_left(self, timeout: float | None, seen: int) -> bool:
        """Wait for news while another thread pumps; whether it has stopped meanwhile,
        so that this one pumps."""
        with self._changed:
            self._waiting += 1
        try:
            # From here on whoever lets the pump go tells us, so look once more.
            if self._pumping.acquire(False):
                return True
            with self._changed:
                self._changed.wait_for(lambda: self.news != seen, timeout)
            return False
        finally:
            with self._changed:
                self._waiting -= 1

    def try_pump(self, timeout: float) -> bool:
        """Wait for something new and read it; false if another thread does that."""
        # As ``pump`` begins and ends: where a function begins an interrupt may strike.
        try:
            if not self._pumping.acquire(False):
                return False
            self.pump(timeout, self.news)
            return True
        finally:
            try:
                self._pumping.release()
            except RuntimeError:  # it was not taken
                pass
            else:
                if self._waiting:
                    self.announce()

    def hear_out(self) -> bool:
        """Read what had come before a write failed; under the lock.

        False if another thread reads: what it has just got comes before what would be
        read here, and it is about to come upon the end itself.
        """
        if not self._pumping.acquire(False):
            return False
        try:
            if self._received:
                self._link.take(self._received.pop())
            self._link.hear_out()
        finally:
            self._pumping.release()
        return True

    def wait_beside(self, timeout: float | None, seen: int) -> None:
        """Wait until something changes, and leave the reading to others."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self.news != seen, timeout)
            finally:
                self._waiting -= 1

    def _wait(self, timeout: float | None) -> bool:
        """Wait for the socket, as long as nothing else has to be done."""
        link = self._link
        longest = self._longest
        session = link.connection.session
        if session is not None and session.owes:
            longest = ACK_DELAY
        if link.is_dropped:
            left = self._keeper.patience(time.monotonic())
            longest = longest if left is None else min(left, longest)
        part = longest if timeout is None else min(timeout, longest)
        writing = link.wants_writing
        if self._waiter.wait(part, writing):
            return True
        self._lock.run(self._tick, part)
        return False

    def _tick(self, waited: float) -> None:
        """Nothing came for so many seconds: do what is due then; under the lock."""
        link, now = self._link, time.monotonic()
        # Silence counts only as long as somebody listens.
        if now - self._ticked > waited + _GAP:
            self._quiet_since = now - waited
        self._ticked = now
        link.connection.heard = max(link.connection.heard, self._quiet_since)
        self.tend(now)

    def tend(self, now: float) -> None:
        """Do what is due besides reading; under the lock."""
        link = self._link
        connection = link.connection
        session = connection.session
        if session is not None and now - session.owed_since >= ACK_DELAY:
            connection.acknowledge()
        link.happen(connection.tick(now))
        self._keeper.work(now)

    def patience(self, now: float) -> float | None:
        """Seconds until ``tend`` has something to do; ``None`` for nothing."""
        connection = self._link.connection
        session = connection.session
        due = self._keeper.patience(now)
        dues = [] if due is None else [now + due]
        if connection.deadline is not None:
            dues.append(connection.deadline)
        if session is not None and session.owes and connection.is_open:
            dues.append(session.owed_since + ACK_DELAY)
        return max(0.0, min(dues) - now) if dues else None

    def _come_back(self, timeout: float | None) -> bool:
        """Take the next step back to the server; whether there is a socket to read."""
        keeper, link = self._keeper, self._link
        now = time.monotonic()
        self._lock.run(keeper.work, now)
        if keeper.trying is None and link.connection.is_open:
            return True
        left = keeper.patience(now)
        part = _SLICE if left is None else min(left, _SLICE)
        if timeout is not None:
            part = min(part, timeout)
        if keeper.trying is not None:
            is_ready(keeper.trying, part, reading=keeper.secures)
        elif part > 0:
            seen = self.news
            with self._changed:
                self._waiting += 1
                try:
                    self._changed.wait_for(lambda: self.news != seen, part)
                finally:
                    self._waiting -= 1
        self._lock.run(keeper.work, time.monotonic())
        return keeper.trying is None and link.connection.is_open

    def _read(self) -> None:
        """Take in what was read, or read it; under the lock."""
        link, received = self._link, self._received
        self._quiet_since = 0.0
        if link.is_torn and not link.mend():
            received.clear()  # something before it is missing
        elif not received:
            if link.wants_writing:
                link.flush()
            link.read()
        else:
            link.is_torn = True  # until all of it is in the inbox
            link.take(received.pop())
            link.is_torn = False
            if link.secure is not None and link.secure.has_plaintext:
                link.read()
        if not link.connection.is_open:
            link.settle()

    def listen_for_bell(self) -> None:
        """From now on ``ring`` ends the wait of the thread that reads, too.

        Costs two descriptors, and each wait a system call more.
        """
        with self._changed:  # two threads may come at once, and one bell is heard
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
