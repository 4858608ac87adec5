"""The asking side in coroutines: calls, streams, sends that are awaited."""

from __future__ import annotations

__all__ = (
    "Asker",
    "AsyncGroupCall",
    "AsyncStream",
    "BlockingVerbs",
    "Sent",
    "ServerVerbs",
    "arrive",
    "reply",
)

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Hashable
from threading import get_ident
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from hisock.engine.alarms import Alarms
from hisock.engine.asking import Stream, outcome, raise_failure, reader_for
from hisock.engine.delivery import WhenSlow, waits, wish_of
from hisock.engine.inquiry import GroupReplies, Inquiry, LinkAsker, late
from hisock.engine.link import Link
from hisock.engine.serve import ServerEngine
from hisock.engine.waiting import check_timeout
from hisock.errors import RequestTimeout, SendTimeout
from hisock.hub.outbox import STALL
from hisock.session.requests import Asked
from hisock.types import AsyncClientInfo, ClientInfo
from hisock.wire.frames import Cancel, Credit

T = TypeVar("T")

#: Seconds between two looks at a full buffer.
_LOOK: Final = 0.005


class Asker(Protocol):
    """Whom a stream or call tells what to do."""

    def give_up(self, asked: Asked) -> None:
        """Wait no longer for an answer, and tell the other side."""

    def tell(self, asked: Asked, frame: Credit | Cancel) -> None:
        """Send what steers a stream."""


def _waker(
    news: asyncio.Future[None], loop: asyncio.AbstractEventLoop
) -> Callable[[], None]:
    """What gives a future of this thread's loop its result, from any thread."""
    here = get_ident()

    def ring() -> None:
        if not news.done():
            news.set_result(None)

    def wake() -> None:
        if get_ident() == here:
            if not news.done():  # ``ring`` in place (bench/calls.py)
                news.set_result(None)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(ring)

    return wake


async def arrive(asked: list[Asked], timeout: float | None) -> None:
    """Wait until one of them has news, at most ``timeout`` seconds."""
    loop = asyncio.get_running_loop()
    news: asyncio.Future[None] = loop.create_future()
    wake = _waker(news, loop)
    for one in asked:
        one.wake = wake
    if any(one.answers or one.is_done for one in asked):
        return
    alarm = None if timeout is None else loop.call_later(max(0.0, timeout), wake)
    try:
        await news
    finally:
        if alarm is not None:
            alarm.cancel()


async def reply(
    asker: Asker,
    asked: Asked,
    read: Callable[[Any], Any],
    end: float | None,
    too_late: Callable[[], RequestTimeout],
    alarms: Alarms,
) -> Any:
    """What a call came to.

    Args:
        asker: Who asks.
        asked: The call.
        read: Reads the answer.
        end: Until when to wait, on the monotonic clock.
        too_late: What to raise then.
        alarms: Wakes who waits in the loop of the engine.

    Raises:
        RequestTimeout: No answer came until then.
        RemoteError, SessionLost, ConversionError: As ``asking.outcome``.
    """
    loop = asyncio.get_running_loop()
    news: asyncio.Future[None] = loop.create_future()
    asked.wake = _waker(news, loop)
    if not asked.is_done:
        timer = None
        try:
            if end is not None and loop is alarms.loop:
                timer = alarms.set(news, end)
            elif end is not None:  # in another thread
                timer = loop.call_later(end - time.monotonic(), asked.wake)
            await news
        except BaseException:
            asker.give_up(asked)
            raise
        finally:
            alarms.clear(news, timer)
        if not asked.is_done:
            asker.give_up(asked)
            raise too_late()
    return outcome(asked, read)


class AsyncStream(Generic[T]):
    """The items of a stream, as they come; closing it cancels the producer.

    Iterate with ``async for``, or use it with ``async with``.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[tuple[Asker, Asked]]],
        read: Callable[[Any], T],
        timeout: float | None,
    ) -> None:
        if timeout is not None:
            check_timeout(timeout)
        self._begin = begin
        self._read = read
        self._timeout = timeout
        self._asker: Asker | None = None
        self._asked: Asked | None = None
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next item; waits for it.

        Raises:
            RemoteError: The producer failed, after what came before.
            RequestTimeout: No item came in time; the stream is cancelled.
            SessionLost: The connection ended.
            ConversionError: The item is not of the type that was asked for.
        """
        if self._is_over:
            raise StopAsyncIteration
        if self._asked is None:
            self._asker, self._asked = await self._begin()
        asked, asker = self._asked, self._asker
        assert asker is not None
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while not (asked.answers or asked.is_done):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                await self.aclose()
                raise RequestTimeout(
                    f"no item of {asked.command!r} came within {self._timeout:g} s"
                )
            await arrive([asked], left)
        if asked.answers:
            item, credit = asked.take()
            if credit is not None:
                asker.tell(asked, credit)
            return self._read(item)
        self._is_over = True
        if asked.failure is not None:
            raise_failure(asked)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Read no more: the other side stops producing. Again is no error."""
        if not self._is_over:
            self._is_over = True
            if self._asked is not None and self._asker is not None:
                self._asker.give_up(self._asked)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        asked, asker = getattr(self, "_asked", None), getattr(self, "_asker", None)
        if asked is not None and asker is not None and not self._is_over:
            asker.give_up(asked)


class Sent:
    """A send that has happened; awaiting it waits until there is room for more.

    Args:
        links: To whom it went.
        early: How many bytes wait for a server's first answer, and how many may.
    """

    __slots__ = ("_early", "_links")

    def __init__(
        self, links: list[Link], early: Callable[[], tuple[int, int]] | None = None
    ) -> None:
        self._links = links
        self._early = early

    def __await__(self) -> Generator[Any, None, None]:
        return self._room().__await__()

    async def _answer(self, early: Callable[[], tuple[int, int]]) -> None:
        """Wait while too much waits for the server's first answer."""
        end = time.monotonic() + STALL
        while True:
            waiting, most = early()
            if not 0 < most <= waiting:
                return
            if time.monotonic() > end:
                raise SendTimeout(
                    f"the server did not answer the hello within {STALL:g} s, and "
                    f"{waiting} bytes wait for that"
                )
            await asyncio.sleep(_LOOK)

    async def _room(self) -> None:
        if self._early is not None:
            await self._answer(self._early)
        for link in self._links:
            end = time.monotonic() + STALL
            before = link.outbox.held
            while link.outbox.is_full and link.is_open:
                await asyncio.sleep(_LOOK)
                if link.outbox.held < before:
                    before, end = link.outbox.held, time.monotonic() + STALL
                elif time.monotonic() > end:
                    raise SendTimeout(
                        f"the other side took nothing for {STALL:g} s while "
                        f"{link.outbox.held} bytes were waiting for it"
                    )


class AsyncGroupCall(GroupReplies):
    """The replies of a group, as ``(client, reply)``, as they come: ``async for``."""

    def _client(self, link: Link) -> ClientInfo:
        return link.info._other(AsyncClientInfo)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[ClientInfo, Any]:
        """The next reply; waits for it."""
        while self._open:
            if (reply := self._next_done()) is not None:
                return reply
            left = self._left()
            if self._open:
                try:
                    await arrive(list(self._open), left)
                except BaseException:  # cancelled: nobody reads the rest
                    self.close()
                    raise
        raise StopAsyncIteration


class ServerVerbs:
    """A server's verbs for coroutines; see the methods of ``AsyncHiSockServer``.

    Args:
        engine: The server's engine.
        inquiry: Its asking half.
        face: What its users call the server.
    """

    __slots__ = ("_engine", "_face", "_inquiry")

    def __init__(self, engine: ServerEngine, inquiry: Inquiry, face: Any) -> None:
        self._engine = engine
        self._inquiry = inquiry
        self._face = face

    def send_client(
        self,
        client: Any,
        command: str | None,
        content: Any,
        *,
        ttl: float | None = None,
        when_slow: WhenSlow | None = None,
        key: Hashable = None,
    ) -> Sent:
        """Send now; awaiting waits for room."""
        wish = wish_of(ttl, when_slow, key)
        members = self._engine.members
        members.check_open()
        link = members.look_up(client)
        members.send_now(link, command, content, wish)
        return Sent([link] if waits(wish) else [])

    async def call_client(
        self,
        client: Any,
        command: str,
        content: Any = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any:
        """What one client's handler returns."""
        link = self._engine.members.look_up(client)
        return await self.call_link(link, command, content, timeout, type)

    async def call_link(
        self,
        link: Link,
        command: str,
        content: Any,
        timeout: float | None,
        kind: Any,
    ) -> Any:
        """What one client's handler returns."""
        read = reader_for(kind)
        asked = self._inquiry.ask(link, command, content, timeout=timeout)
        end = None if timeout is None else time.monotonic() + timeout
        asker = LinkAsker(self._engine, link)
        alarms = self._engine.coroutines().alarms
        return await reply(
            asker, asked, read, end, lambda: late(link, command, timeout), alarms
        )

    def stream_client(
        self,
        client: Any,
        command: str,
        content: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,
    ) -> AsyncStream[Any]:
        """An async iterator over what a client's generator yields."""
        link = self._engine.members.look_up(client)

        async def begin() -> tuple[Asker, Asked]:
            asked = self._inquiry.ask(link, command, content, is_stream=True)
            return LinkAsker(self._engine, link), asked

        return AsyncStream(begin, reader_for(type), timeout)

    def disconnect_client(
        self, client: Any, *, reason: str = "", reconnect: bool = False
    ) -> Sent:
        """End one client's connection now."""
        link = self._engine.members.look_up(client)
        self._engine.ending.disconnect([link], reason, reconnect=reconnect)
        return Sent([])


class BlockingVerbs:
    """An async server's verbs for plain functions in a worker thread.

    Args:
        face: The server.
        inquiry: Its asking half; in the loop's own thread it refuses to wait.
    """

    def __init__(self, face: Any, inquiry: Inquiry) -> None:
        self.send_client = face.send_client
        self.disconnect_client = face.disconnect_client
        self._inquiry = inquiry

    def call_client(
        self,
        client: Any,
        command: str,
        content: Any,
        *,
        timeout: float | None,
        type: Any,
    ) -> Any:
        """What one client's handler returns; waits for it."""
        return self._inquiry.call(client, command, content, timeout, type)

    def stream_client(
        self,
        client: Any,
        command: str,
        content: Any,
        *,
        type: Any,
        timeout: float | None,
    ) -> Stream[Any]:
        """Iterate over what one client's generator yields."""
        return self._inquiry.stream(client, command, content, timeout, type)
