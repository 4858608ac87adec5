"""A client's side of what its handlers' runner asks; see ``calls.Owner``."""

from __future__ import annotations

__all__ = ("Hearing",)

import contextvars
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from hisock.engine.inbox import Mail
from hisock.engine.link import Link
from hisock.engine.streams import Producer
from hisock.errors import CommandError, RemoteProtocolError
from hisock.handlers.table import HandlerEntry
from hisock.session.requests import Answering
from hisock.types import ClientInfo
from hisock.wire.compact import Encoded
from hisock.wire.frames import (
    Bye,
    Frame,
    Gap,
    Groups,
    Joined,
    Left,
    PackedFrame,
    Regroup,
    Rename,
    Request,
    Welcome,
)

if TYPE_CHECKING:
    from hisock.engine.blocking import ClientEngine
    from hisock.engine.owner import Done


class Hearing:
    """What the runner of a client's handlers asks of its engine.

    Args:
        engine: The engine.
    """

    __slots__ = ("_engine", "expired")

    def __init__(self, engine: ClientEngine) -> None:
        self._engine = engine
        #: Messages that came after their life time.
        self.expired = 0

    def control(self, link: Link, frame: Frame | PackedFrame) -> bool:
        """Act on a frame that is not a message; whether a handler ran."""
        engine = self._engine
        match frame:
            case Bye(_, text, _):
                engine.lock.run(engine.end, text or "the server ended the connection")
            case Joined(info):
                return engine.run_event("client_connect", _as_client(info))
            case Left(info):
                return engine.run_event("client_disconnect", _as_client(info))
            case Rename() | Regroup() | Groups() | Gap():
                pass  # what holds; nothing of it is refused in this version
            case Welcome():
                self.broken(link, RemoteProtocolError("a second welcome came"))
            case _ if link.connection.writes_compact:
                kind = type(frame).__name__
                self.broken(link, RemoteProtocolError(f"no server sends {kind}"))
            case _:
                pass  # only a client says these, or nobody asked
        return False

    def unclaimed(self, link: Link, mail: Mail) -> None:
        """Keep a message without a handler for whoever receives."""
        self._engine.keep(mail)

    def seen(self, link: Link, whole: Callable[[], bytes]) -> bool:
        """Remember a message in the cache."""
        if self._engine.cache.maxlen:
            self._engine.remember(Mail(None, whole()))
        return False

    def failed(self, link: Link, entry: HandlerEntry, error: Exception) -> None:
        """Let a handler's exception out of ``update``, or report it."""
        if type(error) is RemoteProtocolError:
            self.broken(link, error)
        else:
            self._engine.reports.failed(None, entry, error)

    def broken(self, link: Link, error: RemoteProtocolError) -> None:
        """End a connection on which came what is none of hisock's."""
        self._engine.lock.run(self._engine.end, str(error), error)

    def send(self, link: Link, frame: Encoded) -> None:
        """Send frames to the server; an answer is not refused for want of room."""
        if self._engine.outgoing.send(link, frame):
            self._engine.uplink.see_off()

    def begin(self, link: Link, request: Request) -> Answering | None:
        """Take a request; ``None`` if there are too many."""
        requests = link.connection.requests
        assert requests is not None
        return requests.begin(request.id)  # steps that need no lock

    def finish(self, link: Link, answering: Answering) -> bool:
        """The last word on a request is about to leave; whether it is wanted."""
        requests = link.connection.requests
        assert requests is not None
        return requests.finish(answering)  # as above

    def is_expired(self, link: Link, ttl: int) -> bool:
        """Whether a message is no longer wanted, which is then counted."""
        if not link.connection.is_expired(ttl, time.monotonic()):
            return False
        self.expired += 1
        return True

    def answer_own(self, link: Link, request: Request) -> Any:
        """A client has nothing to answer of its own.

        Raises:
            CommandError: Always.
        """
        raise CommandError("unknown_command", "hisock has no such call")

    def produce(self, producer: Producer) -> None:
        """Turn a generator from now on."""
        self._engine.pace.produce(producer)

    def work(self, link: Link, call: Callable[[], Any], done: Done) -> None:
        """Call in a worker thread."""
        engine = self._engine
        if engine.waker is None:
            engine.pump.listen_for_bell()  # the end of it is not on the socket

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

        engine.tasks.produce(link, answering, items, context, self.send, failed)

    def resume(self, link: Link) -> None:
        """Look at the link again: its handler has finished."""
        self._engine.wake()


def _as_client(info: dict[str, Any]) -> ClientInfo:
    address = info.get("ip")
    if isinstance(address, list):
        address = tuple(address)
    return ClientInfo(address, info.get("name"), info.get("group"))
