"""What a server's and a client's engine answer their runner alike; see ``owner``."""

from __future__ import annotations

__all__ = ("Running",)

import contextvars
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from hisock.engine.link import Link
from hisock.engine.streams import Producer
from hisock.handlers.table import HandlerEntry
from hisock.session.requests import Answering
from hisock.session.resume import Written

if TYPE_CHECKING:
    from hisock.engine.owner import Done


class Running:
    """The half of an ``Owner`` that does not depend on the side.

    Args:
        engine: The server's or client's engine.

    Attributes:
        expired: Messages that came after their life time.
    """

    __slots__ = ("_engine", "expired")

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.expired = 0

    def forbidden(self, link: Link, entry: HandlerEntry) -> None:
        """Report a message whose sender may not have it handled."""
        self._engine.reports.forbidden(link.info, entry)

    def allows(self, link: Link, entry: HandlerEntry) -> bool:
        """Whether a handler with a rate may run for it once more; counts it if so."""
        from hisock.engine.allowance import allowance_of  # few handlers have a rate

        now = time.monotonic()
        return allowance_of(link, self._engine.limits, now).allows(entry, now)

    def too_often(self, link: Link, entry: HandlerEntry) -> None:
        """Report a message that came more often than its handler allows."""
        self._engine.reports.too_often(link.info, entry)

    def send(self, link: Link, frame: Written) -> None:
        """Send frames to the peer."""
        raise NotImplementedError

    def reply(self, link: Link, frame: Written) -> None:
        """As ``send``, for the answer to a call."""
        self.send(link, frame)

    def finish(self, link: Link, answering: Answering) -> bool:
        """The last word on a request is about to leave; whether it is wanted."""
        requests = link.connection.requests
        assert requests is not None
        return requests.finish(answering)  # steps that need no lock

    def is_expired(self, link: Link, ttl: int) -> bool:
        """Whether a message is no longer wanted, which is then counted."""
        if not link.connection.is_expired(ttl, time.monotonic()):
            return False
        self.expired += 1
        return True

    def produce(self, producer: Producer) -> None:
        """Turn a generator from now on."""
        self._engine.pace.produce(producer)

    def work(self, link: Link, call: Callable[[], Any], done: Done) -> None:
        """Call in a worker thread."""
        engine = self._engine

        def later(result: Any, error: BaseException | None) -> None:
            engine.finished(partial(done, result, error))

        engine.workers.submit(call, later)

    def spawn(
        self,
        link: Link,
        coroutine: Any,
        context: contextvars.Context,
        done: Done,
        where: str,
    ) -> None:
        """Run a coroutine."""
        self._engine.spawn(coroutine, context, done, where)

    def produce_async(
        self,
        link: Link,
        answering: Answering,
        items: Any,
        context: contextvars.Context,
        fail: Callable[[Exception], None],
    ) -> None:
        """Run an async generator that answers a stream."""
        engine = self._engine

        def failed(error: Exception) -> None:
            engine.finished(partial(fail, error))

        tasks = engine.coroutines()
        tasks.produce(link, answering, items, context, self.send, failed)
