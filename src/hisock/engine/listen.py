"""The server's sockets: accepts, reads, writes, ends; hands what came to its owner.

Decides nothing: what a hello, a frame or a slow reader means stands in ``session`` and
``hub``. Only the thread that turns the server calls into here, except ``touch``.
"""

from __future__ import annotations

__all__ = ("Pump",)

import errno
import heapq
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.allowance import ByAddress, allowance_of
from hisock.engine.backpressure import Memory, gather, is_overfed, stop_asking
from hisock.engine.dial import forget_path, tune
from hisock.engine.drive import CAPACITY, Drive
from hisock.engine.link import Link
from hisock.engine.log import logger
from hisock.engine.threads import StateLock
from hisock.hub.outbox import HARD_FACTOR, Outbox
from hisock.session.connection import Connection
from hisock.session.events import Messages
from hisock.session.resume import ACK_DELAY
from hisock.types import Limits

if TYPE_CHECKING:
    from hisock.engine.tls import ServerTls
    from hisock.engine.website import Website

#: Connections taken in one go, so that a storm of them does not starve the others.
_ACCEPT_AT_ONCE: Final = 64
#: Seconds after which others have their turn first: what a newcomer has said already is
#: read with it, and that may be a lot.
_ACCEPT_FOR: Final = 0.005
#: Bounds beyond which a dropped session ends: more than cut its link, or a slow
#: consumer could never come back.
_WHILE_DROPPED: Final = 2 * HARD_FACTOR
#: Seconds that an alarm may be late before a session gets this much more.
_LATE: Final = 0.5
_GRACE: Final = 2.0
#: Seconds the listening socket rests when the process has no descriptors left.
_ACCEPT_REST: Final = 1.0
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LOOPBACK: Final = ("127.", "::1", "::ffff:127.", "unix")

_log = logger("hisock.server")


class Pump:
    """The sockets of one server.

    Args:
        listener: The listening socket; ``None`` for a server that listens nowhere.
        limits: How much strangers may ask for.
        lock: Held around everything that changes a link.
        compact: Whether our own wire is spoken.
        dead_after: Seconds of silence after which a client that is never silent counts
            as gone.
        tls: Encrypts every connection; ``None`` for plain ones.

    Attributes:
        end_session: Told of a dropped link whose session ends now, and why; set by the
            engine.
    """

    end_session: Callable[[Link, str, str], None]

    def __init__(
        self,
        listener: socket.socket | None,
        limits: Limits,
        lock: StateLock,
        *,
        compact: bool = True,
        dead_after: float = 0.0,
        tls: ServerTls | None = None,
    ) -> None:
        self._tls = tls
        self._is_paced = limits.message_rate > 0 or limits.byte_rate > 0
        self._memory = Memory(self, limits.memory)
        self._joins = ByAddress(limits.join_rate)
        self._refusals = ByAddress(limits.refusal_rate)
        self._dead_after = dead_after
        #: Links that owe an acknowledgement, and when it is due.
        self._owing: dict[Link, None] = {}
        self._ack_at: float | None = None
        self._listener: socket.socket | None = None
        self._compact = compact
        self._callers = 0
        self._limits = limits
        self._lock = lock
        self._drive = Drive()
        self._touched: dict[Link, None] = {}
        self._unfinished: dict[Link, None] = {}
        self._hosts: dict[str, int] = {}
        self._on_writable = partial(lock.run, self._write)
        self._deadlines: list[tuple[float, int, Link]] = []
        self._armed = 0
        self._accept_at: float | None = None
        self._accepts = True
        #: Whether clients have to prove who they are.
        self.is_guarded = False
        #: What goes on with who begins as HTTP, where that is served.
        self.website: Website | None = None
        #: Clients that were cut for being too slow.
        self.slow_consumers = 0
        #: Every link that has a socket.
        self.links: dict[Link, None] = {}
        #: Links without a socket whose session may go on; the oldest first.
        self.dropped: dict[Link, None] = {}
        #: Links whose inbox waits for its turn.
        self.ready: deque[Link] = deque()
        #: Links that got something while a handler of theirs still runs.
        self.busy: dict[Link, None] = {}
        if listener is not None:
            self.listen(listener)

    def spin(self, seconds: float) -> None:
        """Do not sleep in that first part of each wait."""
        self._drive.spin = seconds

    def listen(self, listener: socket.socket) -> None:
        """Accept connections from a listening socket."""
        self._listener = listener
        self._drive.watch(listener.fileno(), self._on_accept, None)

    def listens_at(self, address: Any) -> bool:
        """Whether a connection to this address would come here."""
        if self._listener is None or not self._accepts:
            return False
        own = self._listener.getsockname()
        if not (isinstance(own, tuple) and isinstance(address, tuple)):
            return bool(own == address)
        return own[1] == address[1] and own[0] in (address[0], "0.0.0.0", "::")

    @property
    def fileno(self) -> int | None:
        """What becomes readable when a socket is ready, where there is such a thing."""
        return self._drive.fileno

    def patience(self, timeout: float | None) -> float | None:
        """How long one may wait elsewhere, with a wait of ``timeout`` in mind."""
        if self.ready or self._touched:
            return 0.0
        alarm = self._drive.alarm
        if alarm is None:
            return timeout
        left = max(0.0, alarm - time.monotonic())
        return left if timeout is None else min(timeout, left)

    def wait(self, timeout: float) -> None:
        """Wait until a socket is ready, at most that many seconds; from any thread."""
        self._drive.wait(timeout)

    def read_more(self, timeout: float) -> None:
        """As a waiting ``step``, though there is something to dispatch already."""
        if self._touched:
            self._lock.run(self._attend_touched)
        self._drive.step(timeout)

    def step(self, wait: bool, timeout: float | None = None) -> None:
        """Read and write what is ready; wait for something if nothing is.

        Args:
            wait: Whether to wait.
            timeout: Seconds to wait at most.
        """
        if self._touched:
            self._lock.run(self._attend_touched)
        self._drive.step(timeout if wait and not self.ready else 0.0)
        alarm = self._drive.alarm
        if alarm is not None and alarm <= time.monotonic():
            # After the reads: silence counts only where somebody listened. What came
            # while the wait ended, or the process was stopped, is read first.
            self._drive.step(0.0)
            self._on_alarm()

    def wake(self) -> None:
        """End the wait of ``step``, from any thread."""
        self._drive.wake()

    def touch(self, link: Link) -> None:
        """Look at a link at the next step: it has something to write, or ended.

        Under the lock, from any thread.
        """
        self._touched[link] = None

    def stop_accepting(self) -> None:
        """Close the listening socket."""
        if self._accepts:
            self._accepts = False
            if self._listener is not None:
                self._drive.forget(self._listener.fileno())
                forget_path(self._listener)
                self._listener.close()

    def close(self, *, shared: bool = False) -> None:
        """Drop every socket and the drive.

        Args:
            shared: Whether another process has them, too, and goes on with them.
        """
        if shared:
            self._drive.close()
            if self._listener is not None:
                self._listener.close()
            for link in self.links:
                link.drop()
            self.links.clear()
            self.dropped.clear()
            return
        self.stop_accepting()
        for link in list(self.links):
            self._forget(link)
        self._drive.close()

    def _on_accept(self, nothing: None) -> None:
        assert self._listener is not None
        end = time.monotonic() + _ACCEPT_FOR
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                self._rest(error)
                break
            self._lock.run(self._admit, sock, address)
            if time.monotonic() > end:
                break

    def _rest(self, error: OSError) -> None:
        """Leave newcomers waiting in the kernel for a moment: without descriptors the
        socket would stay readable and the loop would spin."""
        if error.errno not in _NO_ROOM:
            _log.warning("cannot accept a connection: %s", error)
            return
        _log.warning("out of descriptors, newcomers wait %g s: %s", _ACCEPT_REST, error)
        assert self._listener is not None
        self._drive.forget(self._listener.fileno())
        self._accept_at = time.monotonic() + _ACCEPT_REST
        self._set_alarm()

    def _accept_again(self) -> None:
        self._accept_at = None
        if self._accepts and self._listener is not None:
            self._drive.watch(self._listener.fileno(), self._on_accept, None)

    def _admit(self, sock: socket.socket, address: Any) -> None:
        """Make a link of a new connection, if there is room for one more stranger."""
        if not isinstance(address, tuple):  # a unix socket's has no name
            self._callers += 1
            address = ("unix", self._callers)
        limits, host = self._limits, str(address[0])
        if 0 < CAPACITY <= len(self.links):
            sock.close()
            return
        used = self._hosts.get(host, 0)
        if 0 < limits.connections_per_address <= used and not host.startswith(
            _LOOPBACK
        ):
            sock.close()
            return
        now = time.monotonic()
        if self._refusals.is_spent(host, now) or not self._joins.take(host, now):
            sock.close()
            return
        try:
            tune(sock, dead_after=self._dead_after)
        except OSError:  # it is gone already
            sock.close()
            return
        if 0 < limits.unfinished <= len(self._unfinished):
            self._evict_stranger(now)
        connection = Connection(
            limits, now, offers_compact=self._compact, dead_after=self._dead_after
        )
        connection.is_guarded = self.is_guarded
        connection.serves_http = self.website is not None
        outbox = Outbox(limits.outbox)
        if self._tls is None:
            link = Link(sock, connection, outbox, address)
        else:
            secure = self._tls.wrap(sock, now)
            link = Link(secure, connection, outbox, address)  # type: ignore[arg-type]
            link.secure = secure
            connection.alpn = secure.alpn
        self.links[link] = None
        self._unfinished[link] = None
        self._hosts[host] = used + 1
        self._drive.watch(link.fd, self._on_readable, None, link)
        link.read()
        self._attend(link)

    def note_refusal(self, link: Link) -> None:
        """One of this address could not prove who it is."""
        host = str(link.address[0])
        if not host.startswith(_LOOPBACK):  # a proxy's, perhaps, and everybody's
            self._refusals.note(host, time.monotonic())

    def _evict_stranger(self, now: float) -> None:
        """Drop the oldest connection that sent nothing, else the oldest."""
        silent = (link for link in self._unfinished if link.connection.is_silent)
        victim = next(silent, None) or next(iter(self._unfinished))
        victim.end(victim.connection.lost("too many handshakes", now), discard=True)
        self._attend(victim)

    def _on_readable(self, link: Link) -> None:
        # ``StateLock.run`` and the usual case of ``Link.read`` in place: nothing of
        # ours can be going on further out on the one thread that turns the server
        # (bench/ping_pong.py).
        lock = self._lock
        try:
            lock.take()
            lock.is_busy = True
            try:
                lock.changes += 1  # ``StateLock.note_change`` in place
                if lock.settle is not None:
                    lock.settle()
                link.read()
                session = link.connection.session
                if session is not None and session.received != session.told:
                    self._owing[link] = None
                    if self._ack_at is None:
                        self._arm_acks()
                is_usual = link.has_joined and link.connection.is_open
                if self._is_paced:
                    self._slow_down(link)
                if (
                    not is_usual
                    or link.outbox.size
                    or link.is_busy
                    or not (link.secure is None or link.secure.is_quiet)
                ):
                    if link in self.links:
                        self._attend(link)
                else:
                    lock.changes -= 1  # nothing that anybody relies on
                    if not link.is_ready and link.inbox:
                        link.is_ready = True
                        self.ready.append(link)
            finally:
                lock.is_busy = False
        finally:
            try:  # noqa: SIM105  # a call is dear
                lock.give()
            except RuntimeError:  # it was not taken
                pass
        if lock.postponed:
            lock.catch_up()

    def _slow_down(self, link: Link) -> None:
        """Count what was read, and let a client rest that sends too much."""
        connection = link.connection
        count, size = connection.idle_talk, 0
        connection.idle_talk = 0
        if connection.is_packed:
            count += link.sock.take_idle_talk()  # type: ignore[attr-defined]  # it was upgraded
        last = link.inbox[-1] if link.inbox else None
        if isinstance(last, Messages) and last is not link.paced:
            link.paced = last
            count, size = count + len(last.bodies), last.size
        if count:
            now = time.monotonic()
            wait = allowance_of(link, self._limits, now).spend(count, size, now)
            if wait > 0:
                link.rests_until = now + wait
                self._attend(link)

    def _arm_acks(self) -> None:
        self._ack_at = time.monotonic() + ACK_DELAY
        self._set_alarm()

    def _acknowledge(self) -> None:
        """Tell those that sent little, and nothing since, that it has come."""
        self._ack_at = None
        while self._owing:
            link, _ = self._owing.popitem()
            if link in self.links:
                link.connection.acknowledge()
                if link.connection.needs_attention:
                    link.heed()
                self._attend(link)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits to be handled or written."""
        return not self.ready and not any(
            link.inbox or link.is_busy or link.wants_writing for link in self.links
        )

    @property
    def is_acknowledged(self) -> bool:
        """Whether all that was written has arrived."""
        return not any(link.outbox.held for link in self.links)

    def _write(self, link: Link) -> None:
        if link in self.links:
            link.flush()
            self._attend(link)

    def _attend_touched(self) -> None:
        while self._touched:
            link, _ = self._touched.popitem()
            if link in self.links:
                self._attend(link)

    def _attend(self, link: Link) -> None:
        """Bring everything that depends on a link's state in line with it."""
        if (first := link.connection.http) is not None:
            assert self.website is not None
            self.website.upgrade(link, first)
        link.settle()
        if link in self._unfinished and not link.connection.is_stranger:
            del self._unfinished[link]
        if link.inbox and not (link.is_ready or link.is_busy):
            link.is_ready = True
            self.ready.append(link)
        if link.inbox and link.is_busy:
            self.busy[link] = None
        if link.is_busy:
            gather(link)
        was_paused = link.is_paused
        link.is_paused = link.is_busy and is_overfed(link, self._limits)
        if link.is_paused:
            stop_asking(link, self._limits)
        elif was_paused:
            link.connection.listen_anew(time.monotonic())
        if link.is_over:
            if link in self.links:
                self._forget(link)
            if link.is_dropped:
                self._hold(link)
            return
        if (link.wants_reading, link.wants_writing) != link.watched:
            link.watched = (link.wants_reading, link.wants_writing)
            read = self._on_readable if link.wants_reading else None
            write = self._on_writable if link.wants_writing else None
            self._drive.watch(link.fd, read, write, link)
        self._arm(link)

    def _arm(self, link: Link) -> None:
        deadline = link.next_deadline()
        if deadline is not None and deadline != link.timer:
            link.timer = deadline
            self._armed += 1
            heapq.heappush(self._deadlines, (deadline, self._armed, link))
            self._set_alarm()

    def _hold(self, link: Link) -> None:
        """Keep a link without a socket, until its peer is back or its time is over."""
        session = link.connection.session
        assert session is not None
        if link not in self.dropped:
            self.dropped[link] = None
            link.ends_at = time.monotonic() + session.window
            while 0 < self._limits.dropped < len(self.dropped):
                oldest = next(iter(self.dropped))
                self.end_session(oldest, "evicted", "too many dropped sessions")
        if link in self.dropped:
            self._arm(link)

    def release(self, link: Link) -> None:
        """Hold a link no longer: it is back, or its session ends."""
        self.dropped.pop(link, None)
        link.ends_at = None

    def move(self, newcomer: Link, link: Link) -> None:
        """Give a link the socket on which its peer came back; under the lock."""
        if link in self.links:
            self._forget(link)
        self.release(link)
        self._drive.forget(newcomer.fd, newcomer)
        self.links.pop(newcomer, None)
        self._unfinished.pop(newcomer, None)
        link.adopt(newcomer)
        self.links[link] = None
        link.watched = (True, False)
        self._drive.watch(link.fd, self._on_readable, None, link)
        self.touch(link)

    def _forget(self, link: Link) -> None:
        """Give a link's descriptor back."""
        self._drive.forget(link.fd, link)
        link.drop()
        link.timer = None
        self.links.pop(link, None)
        self._unfinished.pop(link, None)
        host = str(link.address[0])
        left = self._hosts.get(host, 1) - 1
        if left:
            self._hosts[host] = left
        else:
            self._hosts.pop(host, None)

    def _next_deadline(self) -> float | None:
        heap = self._deadlines
        while heap and heap[0][2].timer != heap[0][0]:
            heapq.heappop(heap)  # its link moved on
        return heap[0][0] if heap else None

    def _set_alarm(self) -> None:
        dues = (self._next_deadline(), self._accept_at, self._ack_at)
        self._drive.alarm = min((due for due in dues if due is not None), default=None)

    def _on_alarm(self) -> None:
        self._lock.run(self._tick)
        if self._accept_at is not None and self._accept_at <= time.monotonic():
            self._accept_again()
        self._set_alarm()

    def _tick(self) -> None:
        now = time.monotonic()
        if self._ack_at is not None and self._ack_at <= now:
            self._acknowledge()
        while (when := self._next_deadline()) is not None and when <= now:
            link = heapq.heappop(self._deadlines)[2]
            link.timer = None
            if link.is_dropped and now - when > _LATE:
                # Nobody turned the server meanwhile: its client may be at the door.
                link.ends_at = now + _GRACE
                self._arm(link)
                continue
            if link.is_dropped:
                self.end_session(link, "expired", "its client did not come back")
                continue
            if link.rests_until is not None and link.rests_until <= now:
                link.rests_until = None
            if not link.wants_reading:  # silence counts only where somebody listens
                link.connection.listen_anew(now)
            link.happen(link.connection.tick(now))
            self.check_slow(link, now)
            self._attend(link)

    def check_slow(self, link: Link, now: float) -> None:
        """Cut off a link whose peer takes nothing; under the lock."""
        excess = self._memory.excess(now)
        if excess > 0:
            self._save_memory(excess)
        if link.is_dropped:
            if link.outbox.overflows(_WHILE_DROPPED):
                self.end_session(link, "overflow", "too much was waiting for it")
            return
        reason = link.outbox.check(now) if link.is_open else None
        if reason is None:
            return
        self.slow_consumers += 1
        if link.connection.session is not None:
            link.cut_reason = "slow_consumer"
            link.lose_for(reason)
        else:
            link.outbox.clear()
            link.end(link.connection.close(reason, now), discard=True)
        self.touch(link)

    def _save_memory(self, excess: int) -> None:
        """Let go of sessions while all of them together hold too much."""
        for victim in self._memory.victims():
            excess -= victim.outbox.held
            if not victim.is_dropped:
                self.slow_consumers += 1
                victim.lose_for("slow consumer: all clients together hold too much")
            if victim.is_dropped:
                self.end_session(victim, "evicted", "too much waited for all clients")
            self.touch(victim)
            if excess <= 0:
                return
