"""Lets the program's own asyncio loop watch an engine; any loop will do.

Where a loop cannot watch a descriptor (Windows' Proactor) a thread waits in its place.
"""

from __future__ import annotations

__all__ = ("ClientWatch", "ServerWatch")

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from hisock.engine.blocking import ClientEngine
from hisock.engine.log import logger
from hisock.engine.serve import ServerEngine
from hisock.engine.tasks import Tasks
from hisock.engine.waiting import Waiter
from hisock.errors import ClientDisconnected
from hisock.session.resume import ACK_DELAY

_log = logger("hisock.server")

#: Seconds after which a waiting thread looks whether it is still needed.
_LOOK: Final = 0.25


class _Watch:
    """Turns an engine whenever there is something to do, in the loop.

    Args:
        loop: The running loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._thread = threading.get_ident()
        self._due = False
        #: Whether a coroutine has ended in this round of the loop.
        self._has_finished = False
        self._timer: asyncio.TimerHandle | None = None
        #: When that is, on the monotonic clock; without one, long ago.
        self._timer_at = 0.0
        self.is_over = False
        #: Set once nothing more will happen.
        self.ended = asyncio.Event()

    @property
    def is_here(self) -> bool:
        """Whether this is the loop's thread."""
        return threading.get_ident() == self._thread

    def _attach(self, engine: ServerEngine | ClientEngine) -> None:
        """Have an engine turned, and its coroutines run, by the loop."""
        engine.tasks = Tasks(engine.wake, self.loop)
        self.alarms = engine.tasks.alarms
        engine.tasks.finish = self._finish
        engine.tasks.blocked = engine.reports.blocked
        engine.waker = self.ring
        engine.release = self.stop
        engine.outgoing.gather = self.gather
        engine.time_handlers()

    def stop(self) -> None:
        """Watch no longer."""
        raise NotImplementedError

    def ring(self) -> None:
        """Turn soon; from any thread."""
        if self._due:
            return  # and whatever is to be found was there before it
        if self.is_here:
            self._soon()
        else:
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._soon)

    def gather(self) -> None:
        """Write what is sent meanwhile at the end of this turn of the loop."""
        if self.is_here:
            self.loop.call_soon(self.flush)
        else:
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self.flush)

    def flush(self) -> None:
        """Write what was gathered."""
        raise NotImplementedError

    def _soon(self) -> None:
        if not (self._due or self.is_over):
            self._due = True
            self.loop.call_soon(self._turn_due)

    def _finish(self, call: Callable[[], None]) -> None:
        """Do what a coroutine leaves to do, and turn for that now and not in the next
        round of the loop (bench/calls.py).

        If more than one ends in this round, the others have one turn, in the next.
        """
        if self._due or self._has_finished or self.is_over:
            call()
            return
        self._has_finished = True
        self.loop.call_soon(self._next_round)
        self._due = True  # so that ``call`` has it not turned once more
        try:
            call()
        finally:
            self._turn_due()

    def _next_round(self) -> None:
        self._has_finished = False

    def _turn_due(self) -> None:
        self._due = False
        self.turn()

    def turn(self) -> None:
        """One turn of the engine."""
        raise NotImplementedError

    def _again(self, patience: float | None) -> None:
        """Turn again after that many seconds, at the latest."""
        if patience is None or self.is_over:
            return
        if patience <= 0:
            self._soon()
            return
        at = time.monotonic() + patience
        if self._timer is not None:
            # One that is too early looks again. To set it anew each time costs more
            # than a turn now and then (bench/calls.py).
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.loop.call_later(patience, self._timer_due)

    def _timer_due(self) -> None:
        self._timer, self._timer_at = None, 0.0
        self.turn()

    def _over(self) -> None:
        if not self.is_over:
            self.is_over = True
            if self._timer is not None:
                self._timer.cancel()
            self.alarms.close()
            self.ended.set()


class ServerWatch(_Watch):
    """Turns a server's engine in the running loop."""

    def __init__(self, engine: ServerEngine, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._engine = engine
        self._fd = engine.pump.fileno
        #: What came out of a turn that lets exceptions out.
        self.error: Exception | None = None
        self._attach(engine)
        try:
            if self._fd is None:
                raise NotImplementedError
            loop.add_reader(self._fd, self.turn)
        except NotImplementedError:
            self._fd = None
            _wait_in_thread(lambda: engine.pump.wait(_LOOK), self)
        self.ring()

    def turn(self) -> None:
        """One turn, that does not wait."""
        engine = self._engine
        if self.is_over:
            return
        try:
            engine.turn_in_loop()
        except Exception as error:
            if not engine.reports.raises:  # so it is none of the user's
                _log.exception("a turn failed")
            self.error = error
            self.ended.set()
        if engine.is_closed:
            self._over()
        else:
            self._again(engine.patience())

    def flush(self) -> None:
        """Write what was gathered."""
        self._engine.outgoing.flush()

    def stop(self) -> None:
        """Watch no longer; the engine closes its descriptor next."""
        if self.is_over:
            return
        self._engine.outgoing.gather = None
        self._engine.outgoing.flush()
        if self._fd is not None and not self.loop.is_closed():
            self.loop.remove_reader(self._fd)
        self._over()


class ClientWatch(_Watch):
    """Turns a client's engine in the running loop."""

    def __init__(self, engine: ClientEngine, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._engine = engine
        self._sock: Any = None
        self._fd: int | None = None
        self._trying: Any = None
        self._trying_reads = False
        self._trying_fd: int | None = None
        self._writes = False
        #: Set once both sides know which wire is spoken.
        self.agreed = asyncio.Event()
        self._is_agreed = False
        self.on_agreed: Callable[[], None] = _nothing
        #: In the order in which they came, which is that in which they look.
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._attach(engine)
        # libuv watches a socket no longer once it is broken, and the one call in which
        # it says so may find data before the end.
        engine.is_told_once = not isinstance(loop, asyncio.SelectorEventLoop)
        engine.on_moved = self._forget_try
        self._follow()
        self._again(engine.patience())

    def _forget_try(self) -> None:
        """What was tried is the client's socket now, and the old one is closed."""
        self._watch_trying(None)
        self._follow()

    def _on_readable(self) -> None:
        """The socket has something. Usually it is an answer, and who waits for it is
        woken by that alone: there is nothing to turn for (bench/calls.py)."""
        engine, link = self._engine, self._engine.link
        now = time.monotonic()
        if (
            self._is_agreed
            and link.sock is self._sock
            and link.connection.is_open
            # Nothing is due yet, and nothing can come to be due before the timer.
            and now < self._timer_at <= now + ACK_DELAY
        ):
            if engine.read_in_loop():
                if self._waiting:
                    self.news()
                if link.outbox.size or link.secure or self._writes:
                    self.look_for_room()
                return
            self._turn(reads=False)
            return
        self._turn()

    def turn(self) -> None:
        """One turn, that does not wait."""
        self._turn()

    def _turn(self, *, reads: bool = True) -> None:
        engine = self._engine
        if self.is_over:
            return
        with suppress(ClientDisconnected):
            engine.turn_in_loop(reads=reads)
        if not self._is_agreed and (engine.uplink.know_wire() or not engine.is_usable):
            self._is_agreed = True
            self.on_agreed()
            self.agreed.set()
        self.news()
        link = engine.link
        if not engine.is_usable or (link.is_over and not link.is_dropped):
            self.stop()
            return
        self._follow()
        self.look_for_room()
        self._again(engine.patience())

    def _follow(self) -> None:
        """Watch the socket that the client has now, and the one it is about to have."""
        link, keeper = self._engine.link, self._engine.keeper
        has_socket = link.connection.is_open and not self.is_over
        self._watch_trying(keeper.trying if has_socket is False else None)
        sock = link.sock if has_socket else None
        if sock is self._sock:
            return
        if self._sock is not None and self._fd is not None:
            self.loop.remove_reader(self._fd)
            if self._writes:
                self.loop.remove_writer(self._fd)
        self._writes = False
        self._sock, self._fd = sock, None
        if sock is not None:
            self._watch_socket(sock)

    def _watch_socket(self, sock: Any) -> None:
        try:
            self.loop.add_reader(sock.fileno(), self._on_readable)
            self._fd = sock.fileno()
        except NotImplementedError:
            waiter = Waiter(sock)
            _wait_in_thread(
                lambda: waiter.wait(_LOOK, writing=False),
                self,
                lambda: self._sock is not sock,
            )

    def _watch_trying(self, sock: Any) -> None:
        """Turn when a connect has come to something."""
        reads = self._engine.keeper.secures
        if sock is self._trying and reads is self._trying_reads:
            return
        if self._trying_fd is not None:
            self.loop.remove_writer(self._trying_fd)
            self.loop.remove_reader(self._trying_fd)
        self._trying, self._trying_reads, self._trying_fd = sock, reads, None
        if sock is not None:
            watch = self.loop.add_reader if reads else self.loop.add_writer
            with suppress(NotImplementedError):
                watch(sock.fileno(), self.turn)
                self._trying_fd = sock.fileno()

    def news(self) -> None:
        """Something came, or ended: whoever waits looks again."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_for_news(self, timeout: float | None) -> None:
        """Wait until something came, at most ``timeout`` seconds."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._waiting[future] = None
        alarm = None
        if timeout is not None:
            alarm = self.loop.call_later(timeout, self.news)
        try:
            await future
        finally:
            self._waiting.pop(future, None)
            if alarm is not None:
                alarm.cancel()

    def look_for_room(self) -> None:
        """Watch for room as long as something waits to be written; from any thread."""
        engine = self._engine
        if engine.outgoing.is_gathering:
            return  # ``flush`` looks, soon
        link = engine.link
        if not (link.outbox.size or link.secure or self._writes):
            return  # most of the time (bench/calls.py)
        wants = link.wants_writing
        if wants is self._writes or self.is_over:
            return
        if not self.is_here:
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self.look_for_room)
            return
        self._writes = wants
        if self._fd is not None and wants:
            self.loop.add_writer(self._fd, self._flush)
        elif self._fd is not None:
            self.loop.remove_writer(self._fd)
        elif wants:
            self.loop.call_later(0.005, self._flush)

    def _flush(self) -> None:
        engine = self._engine
        engine.lock.run(engine.link.flush)
        if self._fd is None:
            self._writes = False  # it was called once
        self.look_for_room()
        if not engine.link.is_open:
            self.ring()

    def flush(self) -> None:
        """Write what was gathered."""
        self._engine.outgoing.flush()
        self.look_for_room()

    def stop(self) -> None:
        """Watch no longer; the engine closes its socket next."""
        if self.is_over:
            return
        self._engine.outgoing.gather = None
        if not self.loop.is_closed():
            self._watch_trying(None)
            if self._fd is not None:
                self.loop.remove_reader(self._fd)
                if self._writes:
                    self.loop.remove_writer(self._fd)
        self.agreed.set()
        self._over()
        self.news()


def _nothing() -> None:
    """Nobody wants to know."""


def _wait_in_thread(
    wait: Callable[[], object],
    watch: _Watch,
    is_done: Callable[[], bool] = lambda: False,
) -> None:
    """Wait in a thread, and have the loop turn whenever that has come to something."""
    done = threading.Event()

    def turn() -> None:
        try:
            watch.turn()
        finally:
            done.set()

    def is_over() -> bool:
        return watch.is_over or is_done()

    def run() -> None:
        while not is_over():
            wait()
            done.clear()
            try:
                watch.loop.call_soon_threadsafe(turn)
            except RuntimeError:
                return  # the loop is closed
            while not done.wait(_LOOK):
                if is_over():
                    return

    threading.Thread(target=run, name="hisock watch", daemon=True).start()
