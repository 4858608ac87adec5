"""How a server ends: one client, all of them, and itself; may be called from anywhere.

Knows neither faces nor handlers; the engine turns while this waits.
"""

from __future__ import annotations

__all__ = ("Ending", "Farewell")

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypedDict

from hisock.engine.link import Link
from hisock.engine.log import logger
from hisock.session.connection import LINGER
from hisock.wire.frames import Bye

if TYPE_CHECKING:
    from hisock.engine.serve import ServerEngine

#: Milliseconds after which a client that shall come back does so at the soonest; each
#: adds as much again by chance, so that not all come at once.
_COME_BACK: Final = 250
#: Seconds between two looks whether all is quiet.
_LOOK: Final = 0.02
#: Codes of goodbyes; see ``docs/wire.md``.
_CLOSED: Final = 0
_KICKED: Final = 1
_GOING_AWAY: Final = 16

_log = logger("hisock.server")


class Farewell(TypedDict, total=False):
    """How a server may be closed.

    ``drain``: seconds for what was accepted to arrive and be handled; ``reason``: what
    clients are told; ``reconnect``: whether they shall come back later.
    """

    drain: float
    reason: str
    reconnect: bool


class Ending:
    """The endings of one server.

    Args:
        engine: Its engine.

    Attributes:
        has_begun: Whether the server is about to end.
        give_up_at: When to wait no longer, on the monotonic clock.
    """

    def __init__(self, engine: ServerEngine) -> None:
        self._engine = engine
        self._finished = threading.Event()
        self._drains_until: float | None = None
        self._quiet_since: float | None = None
        self._farewell = Bye(_CLOSED, "the server closed")
        self._linger = LINGER
        self.has_begun = False
        self.give_up_at = 0.0

    # --- one client ------------------------------------------------------------

    def disconnect(
        self, links: Iterable[Link], reason: str, *, reconnect: bool = False
    ) -> None:
        """End some clients: they leave the look-ups now, ``leave`` runs in a turn.

        Args:
            links: Whose.
            reason: What they are told.
            reconnect: Whether they shall come back to their session, which then goes
                on; only a link is cut.
        """
        end = self._send_back if reconnect else self._kick
        self._engine.lock.run(end, list(links), reason or "disconnected")

    def _kick(self, links: list[Link], reason: str) -> None:
        for link in links:
            self.end_link(link, Bye(_KICKED, reason), "kicked")

    def _send_back(self, links: list[Link], reason: str) -> None:
        for link in links:
            if link.connection.session is None:
                self.end_link(link, Bye(_GOING_AWAY, reason, _COME_BACK))
            elif link.connection.is_open:
                link.part(Bye(_GOING_AWAY, reason, _COME_BACK))
                self._engine.pump.touch(link)
        self._engine.wake()

    def hang_up(self, link: Link) -> None:
        """End a client that said goodbye; like 1.1 with nothing but the end."""
        self._engine.gate.expel(link)
        reason = "the client said goodbye"
        events = link.connection.feed_goodbye(reason, time.monotonic())
        link.end(events, discard=True)
        self._engine.settle(link)

    def end_link(self, link: Link, bye: Bye, reason: str = "unknown") -> None:
        """End a client that nobody finds from now on.

        Args:
            link: Whose.
            bye: What it is told.
            reason: What it is told if it comes back all the same.
        """
        self._engine.gate.expel(link, reason)
        self.say_goodbye(link, bye.text, bye)

    def say_goodbye(self, link: Link, reason: str, bye: Bye | None = None) -> None:
        """End a client's connection from this side; under the lock."""
        if link.is_dropped:
            self._engine.gate.end_session(link, "closed", reason)
            return
        events = link.connection.close(reason, time.monotonic(), bye)
        link.end(events, discard=True)
        self._engine.settle(link)

    # --- the server ------------------------------------------------------------

    def close(
        self,
        linger: float = LINGER,
        *,
        drain: float = 0.0,
        reason: str = "",
        reconnect: bool = False,
    ) -> None:
        """End every client and the server.

        Args:
            linger: Seconds for the goodbye to be heard.
            drain: Seconds before that for what was accepted to arrive and be handled.
            reason: What clients are told.
            reconnect: Whether they shall come back later.
        """
        engine = self._engine
        if engine.members.is_closed:
            return
        self.prepare(linger, drain=drain, reason=reason, reconnect=reconnect)
        if engine.turn.is_mine:
            engine.wake()  # from a signal handler, in its wait
            return  # the turn around this handler finishes it
        end = time.monotonic() + drain + linger + 1.0
        while not engine.turn.try_run(self.finish):
            engine.wake()
            if self._finished.wait(0.1):
                return
            if time.monotonic() >= end:
                text = "%s closes when the handler in another thread returns"
                _log.warning(text, engine.name)
                return

    def prepare(
        self,
        linger: float = LINGER,
        *,
        drain: float = 0.0,
        reason: str = "",
        reconnect: bool = False,
    ) -> None:
        """Begin the end, for a loop that turns until ``is_over``; see ``close``."""
        if self.has_begun and self._drains_until is None:
            return
        self._linger = linger
        text = reason or "the server closed"
        self._farewell = Bye(_CLOSED, text)
        if reconnect:
            self._farewell = Bye(_GOING_AWAY, text, _COME_BACK)
        if drain > 0 and self._drains_until is None:
            self._drains_until = time.monotonic() + drain
            self.has_begun = True
        elif not drain > 0:
            self._drains_until = None
            self._engine.lock.run(self._begin)

    def drain(self) -> bool:
        """Look whether what was accepted has arrived and is handled, or the time for
        that is over; whether the goodbyes are said by now."""
        until = self._drains_until
        if until is None:
            self._engine.lock.run(self._begin)  # or wait until another thread has
            return True
        self._engine.pump.stop_accepting()
        now = time.monotonic()
        if now < until and not self._is_done(now):
            return False
        self._drains_until = None
        self._engine.lock.run(self._begin)
        return True

    def _is_done(self, now: float) -> bool:
        """Whether nothing that was accepted is still under way.

        A client that sits in ``input()`` acknowledges nothing, though it will read what
        is written: that is waited for only a moment.
        """
        engine = self._engine
        tasks = engine.tasks is not None and engine.tasks.is_active
        if tasks or engine.has_finished_handlers or not engine.pump.is_quiet:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = now
        return engine.pump.is_acknowledged or now - self._quiet_since >= LINGER

    @property
    def is_over(self) -> bool:
        """Whether everybody has heard the goodbye, and every handler has finished."""
        engine = self._engine
        if not engine.is_closing or engine.pump.links:
            return False
        return engine.tasks is None or not engine.tasks.is_active

    def _begin(self) -> None:
        engine = self._engine
        if engine.is_closing:
            return
        engine.is_closing = True
        if engine.tasks is not None:
            engine.tasks.cancel_soon()  # what ``leave`` starts from here on may finish
        self.give_up_at = time.monotonic() + self._linger
        # Each leaves the look-ups in its turn: a ``leave`` handler that tells the
        # others finds them, though they hear no more.
        for link in [*engine.pump.links, *engine.pump.dropped]:
            self.say_goodbye(link, self._farewell.text, self._farewell)
        # Last: whoever turns may finish it from here on.
        self.has_begun = True

    def finish(self) -> None:
        """Say goodbye to all, wait until they have heard it, let go of everything."""
        engine = self._engine
        if engine.members.is_closed:
            return
        engine.pump.stop_accepting()
        while not self.drain():
            engine.step(True, _LOOK)
            self._dispatch(engine.work)
        self._dispatch_ends()
        while not self.is_over and (left := self.give_up_at - time.monotonic()) > 0:
            engine.step(True, left)
            self._dispatch_ends()
        if engine.tasks is not None:
            engine.tasks.close()
        self._free_busy()
        engine.pace.close()
        engine.workers.close()
        engine.gate.guard.close()
        engine.pump.close()
        engine.members.is_closed = True
        self._finished.set()
        _log.info("closed: %s", engine.name)

    def _free_busy(self) -> None:
        """Have those leave whose handlers still run: a worker cannot be ended."""
        engine = self._engine
        for link in engine.members.everybody():
            link.is_busy = False
            if link.inbox and not link.is_ready:
                link.is_ready = True
                engine.pump.ready.append(link)
        self._dispatch_ends()

    def _dispatch_ends(self) -> None:
        self._dispatch(self._engine.work_off)
        self._dispatch(self._engine.dispatch)

    @staticmethod
    def _dispatch(work: Callable[[], object]) -> None:
        while True:
            try:
                work()
            except Exception:
                # With errors="raise" a failing leave handler must not keep the port.
                _log.exception("a handler failed while the server closed")
            else:
                return

    def abandon(self) -> None:
        """Say goodbye without waiting: the interpreter or the object ends."""
        engine = self._engine
        if engine.members.is_closed:
            return
        engine.lock.run(self._abandon)

    def _abandon(self) -> None:
        text = "the server's program ended"
        self._farewell = Bye(_GOING_AWAY, text, _COME_BACK)
        self._linger = 0.0
        self._begin()
        self._engine.turn.try_run(self._let_go)

    def _let_go(self) -> None:
        engine = self._engine
        if engine.release is not None:
            engine.release()
        engine.members.is_closed = True
        self._finished.set()
        engine.pump.close()
