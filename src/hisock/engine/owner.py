"""What the one that runs handlers asks of the server or client around it."""

from __future__ import annotations

__all__ = ("Done", "Owner")

import contextvars
from collections.abc import Callable
from typing import Any, Protocol

from hisock.engine.inbox import Mail
from hisock.engine.link import Link
from hisock.engine.streams import Producer
from hisock.errors import RemoteProtocolError
from hisock.handlers.table import HandlerEntry
from hisock.session.requests import Answering
from hisock.session.resume import Written
from hisock.wire.frames import Frame, PackedFrame, Request

#: What a handler came to: a result, or what it raised.
Done = Callable[[Any, BaseException | None], None]


class Owner(Protocol):
    """What a runner asks of the engine around it."""

    def control(self, link: Link, frame: Frame | PackedFrame) -> bool:
        """Act on a frame that is not a message; whether a handler ran."""

    def unclaimed(self, link: Link, mail: Mail) -> None:
        """Deal with a message that no handler took."""

    def seen(self, link: Link, whole: Callable[[], bytes]) -> bool:
        """A message is done with; whether a handler ran."""

    def failed(self, link: Link, entry: HandlerEntry, error: Exception) -> None:
        """A handler raised, or its message could not be converted."""

    def forbidden(self, link: Link, entry: HandlerEntry) -> None:
        """A message came whose sender may not have it handled."""

    def allows(self, link: Link, entry: HandlerEntry) -> bool:
        """Whether a handler with a rate may run for it once more."""

    def too_often(self, link: Link, entry: HandlerEntry) -> None:
        """A message came more often than its handler allows."""

    def broken(self, link: Link, error: RemoteProtocolError) -> None:
        """The peer sent bytes that are none of hisock's."""

    def send(self, link: Link, frame: Written) -> None:
        """Send frames to the peer."""

    def reply(self, link: Link, frame: Written) -> None:
        """As ``send``, for the answer to a call."""

    def finish(self, link: Link, answering: Answering) -> bool:
        """The last word on a request is about to leave; whether it is wanted."""

    def is_expired(self, link: Link, ttl: int) -> bool:
        """Whether a message is no longer wanted, which is then counted."""

    def answer_own(self, link: Link, request: Request) -> Any:
        """Answer a reserved request of hisock's own."""

    def produce(self, producer: Producer) -> None:
        """Turn a generator from now on."""

    def work(self, link: Link, call: Callable[[], Any], done: Done) -> None:
        """Call in a worker thread; ``done`` is called on the turning thread."""

    def spawn(
        self,
        link: Link,
        coroutine: Any,
        context: contextvars.Context,
        done: Done,
        where: str,
    ) -> None:
        """Run a coroutine; ``done`` is called on the turning thread."""

    def produce_async(
        self,
        link: Link,
        answering: Answering,
        items: Any,
        context: contextvars.Context,
        fail: Callable[[Exception], None],
    ) -> None:
        """Run an async generator that answers a stream."""

    def resume(self, link: Link) -> None:
        """Look at the link again: its handler has finished."""
