"""Everything about threads: the one lock, who turns, driver threads, the last goodbye.

Never imports asyncio: the blocking client uses this too.
"""

from __future__ import annotations

__all__ = (
    "Driver",
    "StateLock",
    "Turn",
    "Workers",
    "in_this_process",
    "say_goodbye_at_exit",
)

import atexit
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Protocol

from hisock.errors import AlreadyRunning

#: Seconds between two looks at whether the main thread ended by an exception.
WATCH_MAIN: Final = 1.0


class StateLock:
    """One short lock around the state of a server or client.

    Never held while user code runs or while waiting. A signal handler or finalizer
    that calls the library on the thread which holds the lock already must not see
    half-changed state: ``run`` puts its work off until the lock is free.

    Where ``with`` is dear, for it takes twice as long as the lock (bench/ping_pong.py,
    bench/single_send.py), it is taken in the block that gives it back::

        try:
            lock.take()  # nothing can interrupt between ``try`` and the end of this
            ...
        finally:
            try:
                lock.give()
            except RuntimeError:  # it was not taken: Ctrl-C ended the wait for it
                pass

    Attributes:
        reading: The lock itself, for look-ups that change nothing.
        take, give: Its two halves.
        is_busy: Whether somebody is changing something; told under ``reading``, it is
            this thread, further out.
        postponed: What a signal handler or finalizer wanted meanwhile.
        changes: How often something may have changed that is not usual.
        settle: Called before anything is changed, while something is put off that has
            to come before that; ``None`` most of the time.
    """

    __slots__ = (
        "changes",
        "give",
        "is_busy",
        "postponed",
        "reading",
        "settle",
        "take",
    )

    def __init__(self) -> None:
        self._make()
        self.is_busy = False
        self.changes = 0
        self.settle: Callable[[], None] | None = None
        self.postponed: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()

    def run(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``action`` under the lock; later, if this thread is inside it already.

        Returns:
            What ``action`` returns; ``None`` if it was put off.
        """
        with self.reading:
            if self.is_busy:
                self.postponed.append((action, arguments))
                return None
            self.is_busy = True
            try:
                self.changes += 1  # ``note_change`` in place: a call is dear
                if self.settle is not None:
                    self.settle()
                return action(*arguments)
            finally:
                self.is_busy = False
                if self.postponed:
                    self.catch_up()

    def share(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """As ``run``, for what notes itself what it changes."""
        with self.reading:
            if self.is_busy:
                self.postponed.append((action, arguments))
                return None
            self.is_busy = True
            try:
                return action(*arguments)
            finally:
                self.is_busy = False
                if self.postponed:
                    self.catch_up()

    def note_change(self) -> None:
        """Something is about to change; under the lock."""
        self.changes += 1
        if self.settle is not None:
            self.settle()

    def _make(self) -> None:
        # A C lock in a ``with`` of its own: a KeyboardInterrupt cannot come between
        # taking it and the block that gives it back.
        self.reading = threading.RLock()
        self.take = self.reading.acquire
        self.give = self.reading.release

    def disown(self) -> None:
        """Be free in a child that was just forked: another thread may have held it,
        which the child does not have."""
        self._make()
        self.is_busy = False
        self.settle = None
        self.postponed.clear()

    def catch_up(self) -> None:
        """Do what was put off; later, if this thread is inside the lock already."""
        with self.reading:
            while self.postponed and not self.is_busy:
                self.is_busy = True
                try:
                    self.note_change()
                    action, arguments = self.postponed.popleft()
                    action(*arguments)
                finally:
                    self.is_busy = False


class Turn:
    """Who turns the server or client right now: one thread, and only once.

    The first claim in the list has the turn. Adding one and taking one's own out are
    single steps for Python, so that no KeyboardInterrupt leaves the turn taken.

    Args:
        verb: What the user calls, for error texts.

    Attributes:
        claims: Empty while there is no one; only to be looked at.
    """

    __slots__ = ("_verb", "claims")

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self.claims: list[tuple[int]] = []

    @property
    def is_mine(self) -> bool:
        """Whether this thread is the one, that is: inside a handler."""
        return self.claims[:1] == [(get_ident(),)]

    def run(self, action: Callable[..., Any], *arguments: Any) -> None:
        """Call ``action`` as the one, with no asyncio loop in sight.

        Raises:
            AlreadyRunning: There is one: an outer call on this thread, or another.
        """
        # ``try_run`` once more, in place: for a round trip a call of it is dear
        # (bench/ping_pong.py).
        if not self.claims and "asyncio" not in sys.modules:
            claim = (get_ident(),)
            claims = self.claims
            try:
                claims.append(claim)
                if claims[0] is claim:
                    action(*arguments)
                    return
            finally:
                claims.remove(claim)
        if self.try_run(action, *arguments):
            return
        if self.is_mine:
            raise AlreadyRunning(
                f"{self._verb}() was called inside a handler, while {self._verb}() is "
                "still running it; return from the handler instead"
            )
        raise AlreadyRunning(
            f"{self._verb}() is already running in another thread; call it in one only"
        )

    def try_run(self, action: Callable[..., Any], *arguments: Any) -> bool:
        """As ``run``; false, without a call, where there is one already."""
        # An object of its own, and not just an equal one: that is what ``is`` tells.
        claim = (get_ident(),)
        claims = self.claims
        outer: Callable[[], None] | None = None
        try:
            # Nothing can interrupt between ``try`` and the end of this call.
            claims.append(claim)
            if claims[0] is not claim:
                return False
            if "asyncio" in sys.modules:
                outer = _set_loop_aside()
            action(*arguments)
            return True
        finally:
            claims.remove(claim)
            if outer is not None:
                outer()


class Workers:
    """Threads for handlers that say ``threaded=True``; made as they are needed.

    Args:
        name: Of whom they work for.
    """

    __slots__ = ("_idle", "_jobs", "_lock", "_name", "_threads")

    #: Threads of one engine at most; more calls wait for one to be free.
    most: Final = 32

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: Any = None
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        #: Threads without a job; below 0, jobs without a thread.
        self._idle = 0

    def submit(
        self,
        call: Callable[[], Any],
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Call on one of the threads; ``done``, there too, gets what it came to."""
        with self._lock:
            if self._jobs is None:
                import queue  # 2 ms that few ever need

                self._jobs = queue.SimpleQueue()
            self._jobs.put((call, done))
            # Counted here and where a job ends, never by the queue: a thread that has
            # just taken a job may not look busy yet, and the next would wait for it.
            self._idle -= 1
            if self._idle < 0 and len(self._threads) < self.most:
                self._idle += 1
                thread = threading.Thread(
                    target=self._work, name=f"{self._name} worker", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                with self._lock:
                    self._idle -= 1
                return
            call, done = job
            result, raised = None, None
            try:
                result = call()
            except BaseException as error:
                raised = error
            with self._lock:
                self._idle += 1
            done(result, raised)
            del job, call, done, result, raised

    def close(self) -> None:
        """Let the threads end as soon as they have nothing more to do."""
        for _ in self._threads:
            self._jobs.put(None)
        self._threads.clear()


class Driver:
    """A thread that turns something until it is told to stop.

    Args:
        name: Of the thread.
        step: One turn, that waits at most the given seconds; false ends the thread.
        finish: Closes what is turned and so ends the wait of ``step``; called by
            ``stop`` and, again, at the end of the thread.
    """

    __slots__ = ("_driving", "_finish", "_started", "_step", "_stop", "_thread")

    def __init__(
        self,
        name: str,
        step: Callable[[float], bool],
        finish: Callable[[], None],
    ) -> None:
        self._step = step
        self._finish = finish
        self._stop = threading.Event()
        self._started = False
        self._driving = threading.Lock()
        # No daemon, as in 1.1: a program may consist of its threads alone.
        self._thread = threading.Thread(target=self.run, name=name)

    def start(self) -> None:
        """Start the thread.

        Raises:
            AlreadyRunning: It was started before.
        """
        if self._started:
            raise AlreadyRunning(f"{self._thread.name} was started before")
        self._started = True
        self._thread.start()

    def run(self) -> None:
        """Turn on the calling thread until ``stop`` is called.

        Raises:
            AlreadyRunning: Another thread does.
        """
        if not self._driving.acquire(blocking=False):
            raise AlreadyRunning(f"{self._thread.name} is turned by its own thread")
        try:
            while not self._stop.is_set() and self._step(WATCH_MAIN):
                if _main_thread_crashed():
                    break
        finally:
            self._finish()

    def stop(self) -> None:
        """Let the thread end; from the thread itself this only sets the flag."""
        self._stop.set()
        if not self.is_current:
            self._finish()

    def join(self) -> None:
        """Wait for the thread to end; at once if it never started."""
        if self._started and not self.is_current:
            self._thread.join()

    @property
    def is_current(self) -> bool:
        """Whether this is the thread."""
        return threading.current_thread() is self._thread

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stop.is_set()


def _main_thread_crashed() -> bool:
    """Whether the main thread ended by an exception that nobody caught."""
    return hasattr(sys, "last_value") and not threading.main_thread().is_alive()


def _set_loop_aside() -> Callable[[], None] | None:
    """Forget for a turn that an asyncio loop runs on this thread (a Jupyter cell).

    So a handler may itself call ``asyncio.run``.

    Returns:
        What brings it back; ``None`` if there is none.
    """
    asyncio = sys.modules.get("asyncio")
    running = None if asyncio is None else asyncio._get_running_loop()
    if asyncio is None or running is None:
        return None
    asyncio._set_running_loop(None)
    return partial(asyncio._set_running_loop, running)


if TYPE_CHECKING:

    class _Farewell(Protocol):
        pid: int

        def abandon(self) -> None: ...

        def disown(self) -> None: ...


#: A weak set cannot be looked through while another thread adds to it.
_alive: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def say_goodbye_at_exit(engine: _Farewell) -> None:
    """Have ``engine.abandon()`` called when the interpreter ends in this process, and
    ``engine.disown()`` in a child that is forked."""
    _alive[id(engine)] = engine


def in_this_process() -> list[Any]:
    """Every server's and client's engine that is alive in this process."""
    return [engine for engine in _living() if engine.pid == os.getpid()]


def _living() -> list[Any]:
    engines = [reference() for reference in _alive.valuerefs()]
    return [engine for engine in engines if engine is not None]


def _disown() -> None:
    """What was made before a fork is still the parent's."""
    for engine in _living():
        with suppress(OSError, RuntimeError):
            engine.disown()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_disown)


@atexit.register
def _say_goodbye() -> None:
    for engine in in_this_process():
        with suppress(OSError, RuntimeError):  # the others want their turn, too
            engine.abandon()
