"""Plain generators that answer streams: as much as there is credit and room for.

Async generators stand in ``tasks``, those in worker threads here too.
"""

from __future__ import annotations

__all__ = ("Producer", "Producers")

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from hisock.engine.link import Link
from hisock.engine.post import COALESCE, FLUSH_SIZE
from hisock.errors import ClientDisconnected
from hisock.session.requests import Answering
from hisock.session.resume import Block, Written
from hisock.wire import compact
from hisock.wire.frames import End

#: Items of one stream in a row, so that several take turns.
_AT_ONCE: Final = 64
#: Seconds between two looks at a peer whose buffer is full.
_STALLED: Final = 0.01


class Producer:
    """A generator on its way to whoever asked.

    Args:
        link: To whom.
        answering: The stream's credit.
        items: The generator.
        send: Sends a frame, or several joined.
        fail: Sends why there are no more items, and reports it.
    """

    __slots__ = ("_fail", "_items", "_send", "answering", "link")

    def __init__(
        self,
        link: Link,
        answering: Answering,
        items: Iterator[Any],
        send: Callable[[Link, Written], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self.link = link
        self.answering = answering
        self._items = items
        self._send = send
        self._fail = fail

    @property
    def is_stalled(self) -> bool:
        """Whether the peer takes nothing at the moment."""
        return self.link.outbox.is_full

    @property
    def can_go_on(self) -> bool:
        """Whether there is credit, or an end to see to."""
        return self.answering.credit > 0 or self.answering.is_over

    def step(self, most: int = _AT_ONCE) -> bool:
        """Produce some items; false when there are no more."""
        answering = self.answering
        requests = self.link.connection.requests
        if answering.is_over:
            self._close()
            if requests is not None:
                requests.finish(answering)
            return False
        if self.is_stalled:
            return True
        writer = self.link.writer
        frames: list[bytes] = []
        size = 0
        began = time.monotonic()
        error: Exception | None = None
        ended = False
        try:
            while answering.credit and len(frames) < most and size < FLUSH_SIZE:
                item = next(self._items)
                frames.append(writer.item(answering.id, item))
                size += len(frames[-1])
                answering.credit -= 1
                if time.monotonic() - began > COALESCE:
                    break  # items of a slow generator do not wait for each other
        except StopIteration:
            ended = True
        except Exception as raised:
            error = raised
        if ended and requests is not None and requests.finish(answering):
            frames.append(compact.encode(End(answering.id)))
        if frames:
            try:
                self._send(self.link, Block(len(frames), b"".join(frames)))
            except ClientDisconnected:  # just now
                self._close()
                return False
        if error is not None:
            self._close()
            self._fail(error)
        return not (ended or error)

    def run(self) -> None:
        """Produce everything on this thread, a worker's; waits for credit."""
        news = threading.Event()
        self.answering.wake = news.set
        while True:
            news.clear()
            if self.can_go_on and not self.is_stalled:
                if not self.step(1):  # the next may take its time
                    return
            else:
                news.wait(_STALLED if self.is_stalled else None)

    def _close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is None:
            return
        try:
            close()  # its ``finally`` runs
        except Exception as error:
            self._fail(error)


class Producers:
    """The generators that one engine turns.

    Args:
        wake: Ends the engine's wait, from any thread.
    """

    __slots__ = ("_wake", "active")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        #: Those that may have something to do.
        self.active: dict[Producer, None] = {}

    def add(self, producer: Producer) -> None:
        """Turn it from now on."""

        def go_on() -> None:
            self.active[producer] = None
            self._wake()

        producer.answering.wake = go_on
        self.active[producer] = None

    def step(self) -> bool:
        """Let each produce some items; whether one of them ended."""
        ended = False
        for producer in list(self.active):
            # Out first: credit may come while it works.
            self.active.pop(producer, None)
            if not producer.step():
                ended = True
            elif producer.can_go_on:
                self.active[producer] = None
        return ended

    def patience(self, timeout: float | None) -> float | None:
        """How long the engine may wait, with a wait of ``timeout`` in mind."""
        if not self.active:
            return timeout
        if not all(producer.is_stalled for producer in self.active):
            return 0.0
        return _STALLED if timeout is None else min(timeout, _STALLED)
