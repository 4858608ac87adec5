"""Coroutine handlers: an asyncio loop, ours turned by hand, or the program's own.

The one place besides ``watch`` that imports asyncio, and only where a handler needs it.
"""

from __future__ import annotations

__all__ = ("Tasks",)

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.alarms import Alarms
from hisock.engine.calls import BLOCKED
from hisock.engine.link import Link
from hisock.session.requests import Answering
from hisock.wire import compact
from hisock.wire.frames import End

if TYPE_CHECKING:
    from hisock.engine.owner import Done

#: Seconds between two looks at sockets that asyncio cannot watch on this system, or at
#: a peer whose buffer is full.
_LOOK: Final = 0.01


def _nobody_cares(where: str, seconds: float) -> None:
    """For engines that do not say so."""


def _this_task() -> asyncio.Task[Any] | None:
    """The task that this is called in, if it is one."""
    with suppress(RuntimeError):  # no loop runs here
        return asyncio.current_task()
    return None


class _Timed(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are timed: one that takes long holds up all others."""

    __slots__ = ("_inner", "_tasks", "_where")

    def __init__(
        self, inner: Coroutine[Any, Any, Any], where: str, tasks: Tasks
    ) -> None:
        self._inner = inner
        self._where = where
        self._tasks = tasks

    def send(self, value: Any) -> Any:
        began = time.monotonic()
        try:
            return self._inner.send(value)
        finally:
            self._look(began)

    def throw(self, *error: Any) -> Any:
        began = time.monotonic()
        try:
            return self._inner.throw(*error)
        finally:
            self._look(began)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()

    def _look(self, began: float) -> None:
        took = time.monotonic() - began
        if took > BLOCKED:
            self._tasks.blocked(self._where, took)


class Tasks:
    """The tasks of one engine.

    Args:
        wake: Tells the engine, from any thread, that something has finished.
        loop: The loop that the program runs; without one, a loop of our own that
            ``turn`` runs for a moment.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._wake = wake
        self._own = loop is None
        self.loop = loop or asyncio.SelectorEventLoop()
        #: For who waits in it, in its thread.
        self.alarms = Alarms(self.loop)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watched: int | None = None
        self._spared: set[asyncio.Task[Any]] = set()
        #: Told of a coroutine that held up the loop, and for how many seconds.
        self.blocked: Callable[[str, float], None] = _nobody_cares
        #: Does what a coroutine that has ended leaves to do, and turns the engine for
        #: that, where the program's own loop does; else ``wake`` has it turned soon.
        self.finish: Callable[[Callable[[], None]], None] | None = None

    def spawn(
        self,
        coroutine: Coroutine[Any, Any, Any],
        context: contextvars.Context,
        done: Done,
        where: str,
    ) -> None:
        """Run a coroutine; ``done`` gets what it came to.

        Args:
            coroutine: What to run.
            context: Its context variables.
            done: Gets its result, or what it raised.
            where: What it is called where it holds up the loop.
        """
        timed = _Timed(coroutine, where, self)
        task = self.loop.create_task(timed, context=context)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, done))

    async def within(self, seconds: float, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine returns; one that takes longer is cancelled.

        Raises:
            CancelledError: It was.
        """
        task = asyncio.ensure_future(coroutine)
        try:
            await asyncio.wait((task,), timeout=seconds)
        finally:
            task.cancel()  # if it is not done
        return await task

    def _ended(self, done: Done, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            call = partial(done, None, asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            call = partial(done, None, error)
        else:
            call = partial(done, task.result(), None)
        if self.finish is not None:
            self.finish(call)
            return
        call()
        self._wake()
        if self._own:
            self.loop.stop()

    # --- turned by hand --------------------------------------------------------------

    def turn(self, fd: int | None, timeout: float | None) -> None:
        """Run the loop until a socket of the engine is ready, a task has ended, or
        ``timeout`` seconds have passed.

        Args:
            fd: What becomes readable when a socket is ready; ``None`` where the system
                has no such thing.
            timeout: Seconds; ``None`` for as long as it takes.
        """
        loop = self.loop
        if fd is not None and self._watched != fd:
            loop.add_reader(fd, loop.stop)
            self._watched = fd
        if fd is None:
            timeout = _LOOK if timeout is None else min(timeout, _LOOK)
        alarm: asyncio.Handle | None = None
        if timeout is not None:
            alarm = loop.call_later(timeout, loop.stop)
            if timeout <= 0:
                alarm.cancel()
                alarm = loop.call_soon(loop.stop)
        try:
            loop.run_forever()
        finally:
            if alarm is not None:
                alarm.cancel()

    @property
    def is_active(self) -> bool:
        """Whether tasks run, besides one that waits for the end itself."""
        return bool(self._tasks - self._spared)

    def cancel_soon(self) -> None:
        """Cancel what runs by now, but for who calls this; from any thread."""
        self._spared = {task for task in (_this_task(),) if task is not None}
        running = self._tasks - self._spared

        def cancel() -> None:
            for task in running:
                task.cancel()

        self.call_soon(cancel)

    def close(self) -> None:
        """Cancel what runs, and wait for it where the loop is ours."""
        for task in self._tasks - self._spared:
            task.cancel()
        if not self._own or self.loop.is_closed():
            return
        if self._watched is not None:
            self.loop.remove_reader(self._watched)
            self._watched = None
        while self._tasks:  # each that ends stops the loop
            self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    # --- streams -------------------------------------------------------------------

    def produce(
        self,
        link: Link,
        answering: Answering,
        items: Any,
        context: contextvars.Context,
        send: Callable[[Link, bytes], None],
        fail: Callable[[Exception], None],
    ) -> None:
        """Send what an async generator yields, as credit comes."""
        news = asyncio.Event()
        running = self._produce(link, answering, items, news, send)
        task = self.loop.create_task(running, context=context)
        self._tasks.add(task)

        def look() -> None:
            if answering.is_over:
                task.cancel()
            news.set()

        def ended(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and isinstance(task.exception(), Exception):
                fail(task.exception())  # type: ignore[arg-type]  # just looked
            self._wake()

        answering.wake = partial(self.call_soon, look)
        task.add_done_callback(ended)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function in the loop, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(function)

    async def _produce(
        self,
        link: Link,
        answering: Answering,
        items: Any,
        news: asyncio.Event,
        send: Callable[[Link, bytes], None],
    ) -> None:
        try:
            while True:
                while not answering.credit:
                    news.clear()
                    await news.wait()
                while link.outbox.is_full and not answering.is_over:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK)  # nobody tells when it is not any more
                # Only now: it never runs ahead of its credit.
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    break
                answering.credit -= 1
                send(link, link.writer.item(answering.id, item))
        except asyncio.CancelledError:
            _finish(link, answering)  # nobody wants it any more
            raise
        finally:
            await items.aclose()
        if _finish(link, answering):
            send(link, compact.encode(End(answering.id)))


def _finish(link: Link, answering: Answering) -> bool:
    """The last word is about to leave; whether anybody wants it."""
    requests = link.connection.requests
    return requests is not None and requests.finish(answering)
