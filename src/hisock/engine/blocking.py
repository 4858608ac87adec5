"""The client's engine: one link, turned by whoever calls, without asyncio.

Every public method may be called from any thread.
"""

from __future__ import annotations

__all__ = ("ClientEngine",)

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.calls import Runner
from hisock.engine.hearing import Hearing
from hisock.engine.inbox import Inbox, Mail
from hisock.engine.link import Link
from hisock.engine.log import logger
from hisock.engine.pace import Pace
from hisock.engine.post import Post
from hisock.engine.proof import Persona
from hisock.engine.questions import Questions
from hisock.engine.receiving import ENDED, Receiving
from hisock.engine.reconnect import Reconnector, Terms
from hisock.engine.repeats import Repeats
from hisock.engine.reports import Reports
from hisock.engine.search import Search
from hisock.engine.sharing import SharedPump
from hisock.engine.telling import Telling
from hisock.engine.threads import StateLock, Turn, Workers, say_goodbye_at_exit
from hisock.engine.uplink import Uplink
from hisock.engine.waiting import check_timeout
from hisock.errors import (
    ClientDisconnected,
    HiSockError,
    SessionLost,
)
from hisock.handlers.dispatch import unknown_command
from hisock.handlers.table import HandlerTable
from hisock.hub.outbox import Outbox
from hisock.session.connection import LINGER
from hisock.session.events import Closed, Dropped, Event, Lost, Messages, Resumed
from hisock.types import Limits
from hisock.wire import classic
from hisock.wire.frames import Bye

if TYPE_CHECKING:
    from hisock.engine.owner import Done

#: Seconds between two looks at a handler in a worker thread.
_LOOK: Final = 0.01
#: Reads in one go, so that one fast server does not hold up the loop.
_READS: Final = 16

_log = logger("hisock.client")


class ClientEngine:
    """Everything of a client that is not its face.

    Args:
        sock: A socket connected to the server; the engine closes it.
        name, group: Who this client is.
        title: What the client is called in texts.
        limits: How much the server may ask for.
        header_len: Bytes of every classic header.
        cache_size: Messages to remember; 0 or less for none.
        waits: Whether a send may wait while the outbox is full.
        logs_errors: Whether a handler's exception is logged, for want of a caller.
        table: The handlers, and those that will be registered.
        terms: On what terms it is connected.

    Attributes:
        title: As above.
        link_waits: Whether the socket itself may wait, for a single system call.
        classic_writer: Encodes what is said before the welcome.
    """

    def __init__(
        self,
        sock: socket.socket,
        name: str | None,
        group: str | None,
        *,
        title: str,
        limits: Limits,
        header_len: int,
        cache_size: int,
        waits: bool,
        logs_errors: bool,
        table: HandlerTable,
        terms: Terms,
    ) -> None:
        self.table = table
        self.limits = limits
        self.pid = os.getpid()
        self.turn = Turn("update")
        self.cache: deque[dict[str, bytes]] = deque(maxlen=max(0, cache_size))
        self.lock = StateLock()
        self.header_len = header_len
        self.own_address: Any = _own_address(sock)
        self.title = title
        self.link_waits = sock.getblocking()
        now = time.monotonic()
        self.keeper = Reconnector(self, terms, Persona(name, group))
        self.link = Link(sock, self.keeper.connection(now), Outbox(limits.outbox), None)
        self.link.keeper = self.keeper
        if terms.tls is not None:
            self.link.secure = sock  # type: ignore[assignment]  # wrapped already
        largest = limits.message
        self.classic_writer = classic.Writer(header_len, largest, by_client=True)
        self.link.writer = self.classic_writer
        self.pump = SharedPump(self.link, self.lock, self.keeper, terms.dead_after)
        self.outgoing = Post(self.lock, self.turn, (), lambda link: None)
        self.reports = Reports(title, self.table, _log, raises=not logs_errors)
        self.pace = Pace(self.wake)
        self.workers = Workers(title)
        self.questions = Questions(self)
        self.runner = Runner(self.table, Hearing(self), self.outgoing, by_client=False)
        self.uplink = Uplink(self, waits=waits)
        self.inbox = Inbox(limits)
        self.receiving = Receiving(self)
        self.search = Search(self)
        self.telling = Telling(self)
        self._begin_turning()
        if cache_size > 0:
            self.table.tap()
        say_goodbye_at_exit(self)
        self.lock.run(self.keeper.say_hello, self.link, now)

    def _begin_turning(self) -> None:
        """Nobody has turned it yet."""
        self._dropped = Repeats()
        self._finished_handlers: deque[Callable[[], None]] = deque()
        self._handled = 0
        self._knows_wire = False
        self._over: Closed | None = None
        #: Coroutine handlers; only where a loop runs them.
        self.tasks: Any = None
        #: Has the program's own loop turn soon, where it turns the client.
        self.waker: Callable[[], None] | None = None
        #: Whether that loop tells only once that the socket broke.
        self.is_told_once = False
        #: Has that loop watch the client no longer, before its socket is closed.
        self.release: Callable[[], None] | None = None
        #: Whether messages can be sent, as far as is known.
        self.is_usable = True
        self._closed = False
        #: Told that the link has another socket.
        self.on_moved: Callable[[], None] | None = None

    @staticmethod
    def now() -> float:
        """The time, in seconds of the monotonic clock."""
        return time.monotonic()

    def moved(self) -> None:
        """The link has another socket; under the lock."""
        self.own_address = _own_address(self.link.sock)
        self.pump.rebind()
        if self.on_moved is not None:
            self.on_moved()

    def forget_wire(self) -> None:
        """The server may speak another wire by now."""
        self._knows_wire = False

    # --- turning ---------------------------------------------------------------

    def run(self, *, wait: bool, timeout: float | None = None) -> bool:
        """One turn: read, run handlers, write.

        Args:
            wait: Whether to wait until a handler ran.
            timeout: Seconds to wait at most.

        Returns:
            Whether more may come.

        Raises:
            AlreadyRunning: Called inside a handler, or in two threads at once.
            ClientDisconnected: The server ended the connection earlier, or just now
                and no handler was told.
        """
        if timeout is not None:
            check_timeout(timeout)
        if self._closed:
            return False
        self._check_over()
        self.turn.run(self._turn, wait, timeout)
        return not self._closed

    def poll(self, budget: float) -> int:
        """Run at least one handler for what waits, and more for ``budget`` seconds.

        Returns:
            How many messages were handled.
        """
        check_timeout(budget)
        if self._closed:
            return 0
        self._check_over()
        before = self._handled
        self.turn.run(self._poll, budget)
        return self._handled - before

    def _turn(self, wait: bool, timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        try:
            self._prepare()
            seen = self.pump.news
            if not wait or (timeout is not None and timeout <= 0):
                self.pump.pump(0.0, seen)
            while not self._work() and not self._closed:
                self._check_over()
                left = None if end is None else end - time.monotonic()
                if not wait or (left is not None and left <= 0):
                    break
                if self.pace.is_set:
                    left = self.pace.patience(left)
                if self.link.is_busy:  # a worker cannot end a wait for the socket
                    left = _LOOK if left is None else min(left, _LOOK)
                self.pump.pump(left, seen)
                seen = self.pump.news
        finally:
            self._rest()

    def time_handlers(self) -> None:
        """Report handlers that hold up the program's own loop."""
        self.runner.blocked = self.reports.blocked

    def turn_in_loop(self, *, reads: bool = True) -> None:
        """One turn inside a callback of the loop that turns the client.

        Args:
            reads: Whether to read what is there, and do what is due.
        """
        if not self._closed:
            self._check_over()
            self.turn.run(self._turn_in_loop, reads)

    def _turn_in_loop(self, reads: bool) -> None:
        try:
            if reads:
                self.lock.run(self.read_now)
            self._work()
        finally:
            self._rest()

    def read_in_loop(self) -> bool:
        """Read what is there; whether there is nothing to turn for."""
        link = self.link
        try:
            self.lock.run(self._read)
        finally:
            self.pump.announce()
        return self._knows_wire and not (
            link.inbox
            or link.is_dropped
            or self._finished_handlers
            or self.pace.is_set
            or not link.connection.is_open
            or self._closed
        )

    def read_now(self) -> None:
        """Read what is there, without waiting, and do what is due; under the lock."""
        self._read()
        self.pump.tend(time.monotonic())

    def _read(self) -> None:
        link, reads = self.link, _READS if self.is_told_once else 1
        while reads and link.wants_reading and not link.is_over and link.read():
            reads -= 1
        if not reads and self.is_told_once:
            self.wake()
        if not link.connection.is_open:
            link.settle()

    def patience(self) -> float | None:
        """Seconds until something is due, for the loop that turns the client."""
        due = self.pump.patience(time.monotonic())
        return self.pace.patience(due) if self.pace.is_set else due

    def _poll(self, budget: float) -> None:
        end = time.monotonic() + budget
        try:
            self._prepare()
            self.pump.pump(0.0, self.pump.news)
            while self._work(one=True) and time.monotonic() < end:
                pass
            self._check_over()
        finally:
            self._rest()

    def _prepare(self) -> None:
        self.uplink.flush_batches()
        if self.link.outbox.size and not self.link.is_dropped:
            self.lock.run(self.link.flush)

    def _rest(self) -> None:
        self.outgoing.current = None
        self.uplink.flush_unsent()
        if self._closed:
            self.pace.close()
        self.pump.announce()

    def _check_over(self) -> None:
        over = self._over
        if over is not None:
            text = f"{self.title} is disconnected: {over.reason}"
            raise ClientDisconnected(text) from over.error

    def _work(self, *, one: bool = False) -> bool:
        """Do everything there is to do; whether a handler ran or finished."""
        ran = False
        while self._finished_handlers:
            self._finished_handlers.popleft()()
            ran = True
        if self._dispatch(one=one):
            ran = True
        if self.link.is_busy and self.link.inbox:
            while (request := self.lock.run(self.search.find_nested)) is not None:
                self.runner.run_nested(self.link, request, None)
                ran = True
        if self.pace.is_set and not self._closed:
            spawn = self.spawn if self.tasks is not None else None
            if self.pace.work(self.reports.failed_alone, spawn):
                ran = True
        return ran

    def _dispatch(self, *, one: bool = False) -> bool:
        """Run what was read, or ``one`` message of it; whether a handler ran."""
        ran = False
        link = self.link
        if not self._knows_wire:
            self._knows_wire = self.uplink.know_wire()
        while link.inbox and not self._closed and not link.is_busy:
            event = self.lock.run(self._begin)
            if isinstance(event, Messages):
                if self.runner.run_messages(link, event, None, one):
                    ran = True
            elif event is not None:
                self.lock.run(self._done_with, event)
                ran = self._happened(event) or ran
            self.lock.run(self._done_with, event)
            if one and ran:
                self._handled += 1
                break
        self.uplink.flush_unsent()
        return ran

    def _happened(self, event: Event) -> bool:
        """The link or the session has changed; whether a handler was told."""
        match event:
            case Closed():
                self._over = event
                return self._ended(event)
            case Dropped() | Resumed() | Lost():
                return self.telling.happened(event)
        raise AssertionError(event)

    def _begin(self) -> Any:
        """The next event; it stays in the inbox until it is done with, so that no
        exception on the way loses it."""
        inbox = self.link.inbox
        if inbox and isinstance(inbox[0], Messages):
            self.outgoing.current = inbox[0]
            self.outgoing.note_time()
        return inbox[0] if inbox else None

    def _done_with(self, event: Any) -> None:
        self.outgoing.current = None
        inbox = self.link.inbox
        if inbox and inbox[0] is event:
            if isinstance(event, Messages) and event.place < len(event.bodies):
                return  # the rest waits for a handler, or for the next time
            del inbox[0]

    def _ended(self, closed: Closed) -> bool:
        """The server ended the connection; whether a handler was told."""
        self.is_usable = False
        self.keeper.stop()
        self.pump.announce()
        _log.info("%s is disconnected: %s", self.title, closed.reason)
        self.lock.run(self.link.settle)
        if self.release is not None:
            self.release()
        self.pump.drop()
        told = self.telling.what_stays()
        return self.run_event("force_disconnect") or told

    def run_event(self, event: str, *arguments: Any) -> bool:
        """Run the handler of a reserved event; whether there is one."""
        return self.runner.run_event(self.link, event, *arguments)

    def finished(self, call: Callable[[], None]) -> None:
        """Have something done by whoever turns: a handler has come to its end."""
        self._finished_handlers.append(call)
        self.wake()

    def spawn(
        self, coroutine: Any, context: Any, done: Done, where: str = "every()"
    ) -> None:
        """Run a coroutine; ``done`` is called in a turn."""
        self.tasks.spawn(coroutine, context, partial(self._later, done), where)

    def coroutines(self) -> Any:
        """Where coroutines run: on the program's loop."""
        return self.tasks

    def _later(self, done: Done, result: Any, error: BaseException | None) -> None:
        self.finished(partial(done, result, error))

    def wake(self) -> None:
        """Something changed; whoever waits looks again."""
        if self.waker is None:
            self.pump.ring()
        else:
            self.waker()

    def end(self, reason: str, error: HiSockError | None = None) -> None:
        """End the connection from this side; under the lock."""
        self.keeper.stop()
        if self.link.is_dropped:
            self.link.is_dropped = False
            if self.link.connection.is_open:  # it waits for its welcome
                self.link.connection.lost(reason, time.monotonic())
            self._fail_all(reason)
            self.link.end([Closed(reason, error)], discard=True)
            return
        events = self.link.connection.close(reason, time.monotonic())
        if events and error is not None:
            events = [Closed(reason, error)]
        self.link.end(events, discard=True)
        self.link.settle()

    def _fail_all(self, reason: str) -> None:
        if self.link.connection.requests is not None:
            error = SessionLost(f"no answer came: {reason}")
            self.link.connection.requests.fail_all(error)

    def come_back(self, goodbye: Bye) -> None:
        """The server asks for another try later; under the lock."""
        link = self.link
        if link.connection.goodbye is not None and link.connection.is_open:
            link.lose_for(goodbye.text or ENDED)

    def keep(self, mail: Mail) -> None:
        """Keep a message without a handler for whoever receives."""
        for lost in self.lock.run(self.inbox.add, mail) or ():
            if count := self._dropped.due("dropped"):
                text = unknown_command(self.table, lost.command or "")
                _log.warning("dropped what nobody received (%d): %s", count, text)
        self.pump.announce()

    # --- states ----------------------------------------------------------------

    def raise_closed(self) -> None:
        """Say why nothing can be sent any more.

        Raises:
            ClientDisconnected: Always.
        """
        self._check_over()
        if self._closed:
            raise ClientDisconnected(f"{self.title} was closed by this program")
        ends = [event for event in self.link.inbox if isinstance(event, Closed)]
        reason = ends[0].reason if ends else ENDED
        error = ends[0].error if ends else None
        raise ClientDisconnected(f"{self.title} is disconnected: {reason}") from error

    def queued(self) -> int:
        """Bytes of messages that wait for their handlers."""
        return sum(e.size for e in self.link.inbox if isinstance(e, Messages))

    def wait_more(self, timeout: float | None, seen: int) -> None:
        """Wait until something was read, by this thread or the one that turns."""
        if self.turn.claims and not self.turn.is_mine:
            self.pump.wait_beside(timeout, seen)
        else:
            self.pump.pump(timeout, seen)

    # --- receiving -------------------------------------------------------------

    def remember(self, mail: Mail) -> None:
        """Put a message into the cache."""
        body = mail.whole()
        head = classic.header(len(body), self.header_len)
        self.cache.append({"header": head, "content": body})

    def is_expired(self, ttl: int | None) -> bool:
        """Whether a deadline of the server's is over."""
        return self.link.connection.is_expired(ttl, time.monotonic())

    # --- ending ----------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether this side closed it."""
        return self._closed

    @property
    def is_open(self) -> bool:
        """Whether messages are still accepted."""
        return self.link.is_open

    @property
    def is_connected(self) -> bool:
        """Whether there is a link just now."""
        return self.link.connection.is_open and not self.link.is_dropped

    def close(self, linger: float = LINGER) -> None:
        """Say goodbye, wait until the server has heard it or ``linger`` seconds."""
        if self._closed:
            return
        self._closed = True
        self.is_usable = False
        if self.pid != os.getpid():
            return
        self._say_goodbye()
        end = time.monotonic() + linger
        link = self.link
        while not link.is_over and self._over is None:
            left = end - time.monotonic()
            if left <= 0:
                break
            self.pump.pump(left, self.pump.news)
        self.drop()
        if self._over is None:
            self.telling.what_stays()

    def begin_close(self) -> None:
        """Say goodbye; ``drop`` ends it."""
        self._closed = True
        self.is_usable = False
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        if collected := self.uplink.batches.take():
            self.lock.run(self.outgoing.write, self.link, collected)
        self.lock.run(self.end, "closed by this program")

    def drop(self) -> None:
        """Let go of everything."""
        self.workers.close()
        self.pump.drop()
        self.pump.announce()
        self.turn.try_run(self.pace.close)  # else ``_rest`` does

    def abandon(self) -> None:
        """Say goodbye without waiting: the interpreter or the object ends."""
        if self._closed or self.pid != os.getpid():
            return
        self._closed = True
        self.is_usable = False
        self.lock.run(self._abandon)

    def disown(self) -> None:
        """Let go of the parent's connection, in a child that was just forked."""
        self.lock.disown()
        text = "it is the parent's, which forked; connect anew in the child"
        self._over = Closed(text)
        self.is_usable = False
        self.keeper.stop()
        self.link.connection.is_open = self.link.is_dropped = False
        self.link.drop()
        self.pump.close_bell()

    def _abandon(self) -> None:
        if self._over is None:
            self.end("the program ended")
        if self.release is not None:
            self.release()
        self.link.drop()
        self.pump.close_bell()


def _own_address(sock: socket.socket) -> Any:
    address = sock.getsockname()
    return address[:2] if isinstance(address, tuple) else address
