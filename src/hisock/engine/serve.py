"""The server's engine: what runs, when, and how it all ends; one turn at a time.

Owns hub, handlers and pump. Every public method may be called from any thread.
"""

from __future__ import annotations

__all__ = ("ServerEngine",)

import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import length_hint
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack

from hisock.engine.answering import Answers
from hisock.engine.backpressure import is_overfed
from hisock.engine.calls import Runner
from hisock.engine.ending import Ending, Farewell
from hisock.engine.gate import Gate
from hisock.engine.link import Link
from hisock.engine.listen import Pump
from hisock.engine.log import logger
from hisock.engine.members import Members
from hisock.engine.pace import Pace
from hisock.engine.post import Post
from hisock.engine.reports import Reports
from hisock.engine.search import take_nested
from hisock.engine.threads import StateLock, Turn, Workers, say_goodbye_at_exit
from hisock.engine.waiting import check_timeout
from hisock.errors import AlreadyRunning
from hisock.handlers.table import HandlerTable
from hisock.session.connection import LINGER
from hisock.session.events import Messages
from hisock.types import Limits

if TYPE_CHECKING:
    from hisock.engine.owner import Done
    from hisock.engine.tls import ServerTls
    from hisock.engine.watching import Watching

#: Seconds that a server which is stopped waits for what was accepted.
DRAIN: Final = 10.0
#: Seconds after which a thread that pumps for itself looks whether somebody turns.
_YIELD: Final = 0.05

_log = logger("hisock.server")


class ServerEngine:
    """Everything of a server that is not its face.

    Args:
        listener: A listening socket; the engine closes it. ``None`` listens nowhere.
        name: What the server is called in texts.
        limits: How much a peer may ask for.
        max_connections: Clients served at once; 0 for ``limits.connections``.
        errors: ``"log"`` keeps a handler's exception, ``"raise"`` lets it out of
            ``run``.
        roster: Whether clients are told of each other.
        wires: The wires that are spoken, ``"classic"`` and ``"compact"``.
        resume_window: Seconds that a session is kept after a cut.
        dead_after: Seconds of silence after which a peer counts as gone.
        tls: Encrypts every connection; ``None`` for plain ones.
        post: Its kind: one that counts, where ``watch`` is to be called.
    """

    def __init__(
        self,
        listener: socket.socket | None,
        *,
        name: str,
        limits: Limits,
        max_connections: int,
        errors: Literal["log", "raise"],
        roster: bool,
        wires: frozenset[str],
        resume_window: float,
        dead_after: float,
        tls: ServerTls | None = None,
        post: type[Post] = Post,
    ) -> None:
        self.table = HandlerTable(on_server=True)
        self.limits = limits
        self.pid = os.getpid()
        self.turn = Turn("run")
        self.lock = StateLock()
        self.pump = Pump(
            *(listener, limits, self.lock),
            compact="compact" in wires,
            dead_after=dead_after,
            tls=tls,
        )
        self.outgoing = post(self.lock, self.turn, self.pump.ready, self.settle)
        self.members = Members(
            *(name, limits, self.lock, self.turn, self.outgoing, self.settle),
            roster=roster,
        )
        self.registry = self.members.registry
        self.members.wait_beside = self._wait_beside
        self.reports = Reports(name, self.table, _log, raises=errors == "raise")
        self.workers = Workers(name)
        self.pace = Pace(self.wake)
        self.answers = Answers(self)
        self._runner = Runner(self.table, self.answers, self.outgoing, by_client=True)
        #: Who counts for the dashboard, where there is one.
        self.watching: Watching | None = None
        self.name = name
        capacity = max_connections or limits.connections
        self.gate = Gate(self, capacity, wires, resume_window, name)
        self.pump.end_session = self.gate.end_session
        self.is_closing = False
        self.ending = Ending(self)
        self._lending = threading.Lock()
        #: How often a thread that waits had the turn, or has it just now.
        self._loans = 0
        self._wanted = self._handled = 0
        #: What had its turn, calls and what clients say of themselves included.
        self.messages_received = 0
        self._finished_handlers: deque[Callable[[], None]] = deque()
        #: Coroutine handlers, once there are some; see ``tasks``.
        self.tasks: Any = None
        #: Has the program's own loop turn soon, where it turns the server.
        self.waker: Callable[[], None] | None = None
        #: Has that loop watch the server no longer.
        self.release: Callable[[], None] | None = None
        say_goodbye_at_exit(self)

    # --- turning ---------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether the end is complete."""
        return self.members.is_closed

    def wake(self) -> None:
        """End the wait of the turn, from any thread."""
        if self.waker is None:
            self.pump.wake()
        else:
            self.waker()

    def run(self, *, wait: bool, timeout: float | None = None) -> bool:
        """One turn: read, run handlers, write.

        Args:
            wait: Whether to wait until a handler ran.
            timeout: Seconds to wait at most.

        Returns:
            Whether the server is still open.

        Raises:
            AlreadyRunning: Called inside a handler, or in two threads at once.
        """
        if timeout is not None:
            check_timeout(timeout)
        members = self.members
        if members.is_closed:
            self._check_own()
            return False
        # ``Turn.run`` in place, and what is usual (bench/ping_pong.py).
        claims = self.turn.claims
        if claims or "asyncio" in sys.modules:
            self._take_turn(self._turn, wait, timeout)
            return not members.is_closed
        claim = (get_ident(),)
        is_first = False
        try:
            claims.append(claim)
            is_first = claims[0] is claim
            if is_first:
                self._turn(wait, timeout)
        finally:
            claims.remove(claim)
        if not is_first:
            self._take_turn(self._turn, wait, timeout)
        return not members.is_closed

    def poll(self, budget: float) -> int:
        """Run at least one handler for what waits, and more for ``budget`` seconds.

        Returns:
            How many messages were handled.
        """
        check_timeout(budget)
        if self.members.is_closed:
            self._check_own()
            return 0
        before = self._handled
        self._take_turn(self._poll, budget)
        return self._handled - before

    def _check_own(self) -> None:
        """A loop around a server of the parent process would never end."""
        if self.members.is_foreign:
            self.members.check_open()

    def _take_turn(self, action: Callable[..., None], *arguments: Any) -> None:
        while True:
            loans = self._loans
            try:
                self.turn.run(action, *arguments)
            except AlreadyRunning:
                if self.ending.has_begun and not self.turn.is_mine:
                    return  # close(), in another thread, turns it a last time
                lent = self._lending.locked() or loans != self._loans
                if not lent or self.turn.is_mine:
                    raise
                self._wait_for_pump()
            else:
                return

    def _wait_for_pump(self) -> None:
        """A thread that waits for an answer pumps; it lets go for whoever turns."""
        self._wanted += 1
        try:
            self.wake()
            time.sleep(0)
        finally:
            self._wanted -= 1

    def _turn(self, wait: bool, timeout: float | None) -> None:
        if self.members.is_closed:
            return  # while this thread was on its way to the turn
        end = None if timeout is None else time.monotonic() + timeout
        try:
            if self.tasks is None and not self.pace.is_set:  # ``step`` in place
                self.pump.step(wait, timeout)
            else:
                self.step(wait, timeout)
            while not self.work() and wait and not self.ending.has_begun:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    break
                self.step(True, left)
        finally:
            if self.outgoing.unsent:
                self.outgoing.flush()
        if self.ending.has_begun:
            self.ending.finish()

    def watch(self) -> Watching:
        """Have everything counted from now on; before anything has happened."""
        from hisock.engine.watching import WatchedRunner, Watching

        self.watching = watching = Watching(self)
        self.reports.watch = watching.failed
        runner = WatchedRunner(self.table, self.answers, self.outgoing, by_client=True)
        runner.watching = watching
        self._runner = runner
        return watching

    def time_handlers(self) -> None:
        """Report handlers that hold up the program's own loop."""
        self._runner.blocked = self.reports.blocked

    def turn_in_loop(self) -> None:
        """One turn inside a callback of the loop that turns the server."""
        self.turn.run(self._turn_in_loop)

    def _turn_in_loop(self) -> None:
        self.pump.step(False)
        self.work()

    def patience(self) -> float | None:
        """How long the next turn may be put off, in seconds."""
        if self._finished_handlers:
            return 0.0
        return self.pace.patience(self.pump.patience(None))

    def _poll(self, budget: float) -> None:
        end = time.monotonic() + budget
        try:
            self.step(False, None)
            while self.work(one=True) and time.monotonic() < end:
                pass
        finally:
            self.outgoing.flush()
        if self.ending.has_begun:
            self.ending.finish()

    def step(self, wait: bool, timeout: float | None) -> None:
        """Wait for something to do, as far as that is allowed."""
        if self.tasks is None and not self.pace.is_set:
            self.pump.step(wait, timeout)
            return
        if not wait or self._finished_handlers or self.pump.ready:
            timeout = 0.0
        timeout = self.pace.patience(timeout)
        if self.tasks is not None and self.waker is None:
            self.tasks.turn(self.pump.fileno, self.pump.patience(timeout))
            timeout = 0.0
        self.pump.step(timeout != 0, timeout)

    def work(self, *, one: bool = False) -> bool:
        """Do everything there is to do; whether a handler ran or finished."""
        ran = False
        if self._finished_handlers:
            ran = self.work_off()
        if self.dispatch(one=one):
            ran = True
        if self.pump.busy and self._serve_nested():
            ran = True
        # While it closes nothing is begun any more: what runs could never end.
        if (
            self.pace.is_set
            and not self.is_closing
            and self.pace.work(self.reports.failed_alone, self.spawn)
        ):
            ran = True
        return ran

    def _serve_nested(self) -> bool:
        """Run what clients call on behalf of a call of ours, though they are busy."""
        ran = False
        while self.pump.busy:
            link, _ = self.pump.busy.popitem()
            while (request := self.lock.run(take_nested, link, None)) is not None:
                self._runner.run_nested(link, request, link.info)
                ran = True
        return ran

    def work_off(self) -> bool:
        """Do what handlers left to do that have come to their end."""
        ran = False
        while self._finished_handlers:
            self._finished_handlers.popleft()()
            ran = True
        return ran

    def dispatch(self, *, one: bool = False) -> bool:
        """Run what was read, or ``one`` message of it; whether a handler ran."""
        ready = self.pump.ready
        ran = False
        while ready:
            link = ready[0]
            inbox = link.inbox
            while inbox and not link.is_busy:
                # It stays in the inbox until it is done with, so that no exception on
                # the way loses it: what was not run yet is run in the next turn.
                event = inbox[0]
                if isinstance(event, Messages):
                    is_over = True
                    # Who was refused is not heard, whatever else it had to say.
                    if link.has_joined:
                        if len(event.bodies) > 1 or len(ready) > 1:
                            ran = self._run_batch(link, event, one) or ran
                        elif self._runner.run_messages(link, event, link.info, one):
                            ran = True
                        if one or link.is_busy:
                            is_over = not length_hint(event.rest)
                    if is_over and inbox and inbox[0] is event:
                        del inbox[0]
                        self.messages_received += len(event.bodies)
                else:
                    if self.gate.happened(link, event):
                        ran = True
                    if inbox and inbox[0] is event:
                        del inbox[0]
                if one and ran:
                    self._handled += 1
                    if inbox:
                        return True  # the same link goes on next time
                    break
            link.is_ready = False
            ready.popleft()
            # Another thread ended it just now.
            if inbox and not link.is_ready and not link.is_busy:
                link.is_ready = True
                ready.append(link)
            if one and ran:
                return True
        if self.outgoing.unsent:
            self.outgoing.flush()
        return ran

    def _run_batch(self, link: Link, messages: Messages, one: bool) -> bool:
        """Run what others follow, for which what is sent may wait."""
        outgoing = self.outgoing
        outgoing.current = messages
        outgoing.note_time()
        try:
            return self._runner.run_messages(link, messages, link.info, one)
        finally:
            outgoing.current = None

    def run_event(self, link: Link, event: str, *arguments: Any) -> bool:
        """Run the handler of a reserved event; whether there is one."""
        return self._runner.run_event(link, event, *arguments)

    @property
    def has_finished_handlers(self) -> bool:
        """Whether handlers have come to their end, and something is left to do."""
        return bool(self._finished_handlers)

    def finished(self, call: Callable[[], None]) -> None:
        """Have something done by whoever turns: a handler has come to its end."""
        self._finished_handlers.append(call)
        self.wake()

    def spawn(
        self, coroutine: Any, context: Any, done: Done, where: str = "every()"
    ) -> None:
        """Run a coroutine; ``done`` is called in a turn."""
        later = partial(self._later, done)
        self.coroutines().spawn(coroutine, context, later, where)

    def _later(self, done: Done, result: Any, error: BaseException | None) -> None:
        self.finished(partial(done, result, error))

    def coroutines(self) -> Any:
        """Where coroutines run: on a loop of our own, unless the face set another."""
        if self.tasks is None:
            from hisock.engine.tasks import Tasks  # asyncio: 30 ms

            self.tasks = Tasks(self.wake)
            self.tasks.blocked = self.reports.blocked
        return self.tasks

    def resume(self, link: Link) -> None:
        """Look at a link again: its handler has finished."""
        if link.inbox and not link.is_ready:
            link.is_ready = True
            self.pump.ready.append(link)
        self.pump.touch(link)

    # --- pumping without turning -----------------------------------------------

    def pump_for(self, is_done: Callable[[], bool], event: threading.Event) -> None:
        """Wait a moment: read for whoever waits if nobody turns, else just wait."""
        if self._wanted or self.turn.claims or self.waker is not None:
            event.wait(_YIELD)
            event.clear()
            return
        self.lend(self._pump_once, is_done)

    def _wait_beside(self, is_done: Callable[[], bool]) -> None:
        self.pump_for(is_done, threading.Event())

    def lend(self, action: Callable[..., None], *arguments: Any) -> bool:
        """Let a thread that waits read for a moment, if nobody turns; whether it did.

        Whoever comes to turn meanwhile waits for that moment.
        """
        # A loop turns it whenever there is something to do, and waits for nobody. A
        # signal handler may find it taken by its own thread.
        if self.waker is not None or not self._lending.acquire(blocking=False):
            return False
        try:
            return self.turn.try_run(action, *arguments)
        finally:
            self._loans += 1
            self._lending.release()

    def _pump_once(self, is_done: Callable[[], bool]) -> None:
        if not is_done() and not self.members.is_closed:
            self.pump.read_more(_YIELD)

    def settle(self, link: Link) -> None:
        """See to a link that is behind or ended; the turning thread does the rest."""
        if link.outbox.is_full and self.turn.is_mine and link.connection.is_open:
            self._take_in(link)
        self.pump.check_slow(link, time.monotonic())
        if link.replay is not None and link.replay.size < self.limits.outbox:
            link.look_at = link.replay.next_look(self.limits.outbox)
        link.settle()
        if link.wants_writing or link.inbox or not link.is_open:
            self.pump.touch(link)
            # Claimed on this very thread: a signal handler, in its wait.
            if self.turn.claims or self.waker is not None:
                self.wake()

    def _take_in(self, link: Link) -> None:
        """Read what a client has sent, without waiting: acknowledgements make room."""
        if not is_overfed(link, self.limits):
            link.read()
            link.look_at = max(self.limits.outbox, link.outbox.held)

    # --- ending ----------------------------------------------------------------

    def close(self, linger: float = LINGER, **farewell: Unpack[Farewell]) -> None:
        """End every client and the server; see ``Ending.close``."""
        self.ending.close(linger, **farewell)

    def leave_well(self) -> None:
        """Close after Ctrl-C; another one ends it at once."""
        try:
            self.ending.close(drain=DRAIN, reconnect=True)
        except KeyboardInterrupt:
            self.ending.abandon()

    def abandon(self) -> None:
        """Say goodbye without waiting: the interpreter or the object ends."""
        self.ending.abandon()

    def disown(self) -> None:
        """Let go of the parent's sockets, in a child that was just forked."""
        self.lock.disown()
        self.members.is_closed = self.members.is_foreign = True
        self.pump.close(shared=True)
