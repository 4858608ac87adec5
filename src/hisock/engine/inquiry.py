"""What a server asks its clients: calls to one, to a group, to the idlest, streams."""

from __future__ import annotations

__all__ = (
    "GroupCall",
    "GroupReplies",
    "Inquiry",
    "LinkAsker",
    "late",
    "open_calls",
    "wait_for",
)

import threading
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Self

from hisock.engine.asking import (
    Stream,
    begin,
    outcome,
    packed,
    reader_for,
    serving_on,
)
from hisock.engine.link import Link
from hisock.engine.waiting import check_timeout, deadline
from hisock.errors import (
    HiSockError,
    LocalProtocolError,
    Refused,
    RequestTimeout,
    SessionLost,
    UnknownClient,
    WouldDeadlock,
)
from hisock.session.requests import Asked
from hisock.types import ClientInfo
from hisock.wire import compact
from hisock.wire.frames import Cancel, Credit

if TYPE_CHECKING:
    from hisock.engine.serve import ServerEngine


class LinkAsker:
    """Waits for one client's answers, on behalf of a call or stream.

    Args:
        engine: The server's engine.
        link: The client.
    """

    __slots__ = ("_engine", "_link")

    def __init__(self, engine: ServerEngine, link: Link) -> None:
        self._engine = engine
        self._link = link

    def wait(self, asked: Asked, timeout: float | None) -> None:
        """Wait a while for something to come.

        Raises:
            WouldDeadlock: This thread turns the server, so nothing would.
        """
        wait_for(self._engine, [asked], timeout)

    def give_up(self, asked: Asked) -> None:
        """Wait no longer for an answer, and tell the client."""
        requests = self._link.connection.requests
        if requests is not None and self._engine.lock.run(requests.forget, asked):
            self.tell(asked, Cancel(asked.id))

    def tell(self, asked: Asked, frame: Credit | Cancel) -> None:
        """Send what steers a stream."""
        self._engine.outgoing.send(self._link, compact.encode(frame))


def wait_for(engine: ServerEngine, asked: list[Asked], timeout: float | None) -> None:
    """Wait until one of them has news, at most ``timeout`` seconds.

    Raises:
        WouldDeadlock: This thread turns the server, so nothing would come.
    """
    if engine.turn.is_mine:
        raise WouldDeadlock(
            "a plain handler waited for a client, on the thread that has to read the "
            "answer; make the handler `async def` and await the call, or register it "
            "with threaded=True"
        )
    event = threading.Event()
    for one in asked:
        one.wake = event.set

    def is_done() -> bool:
        return any(one.answers or one.is_done for one in asked)

    end = None if timeout is None else time.monotonic() + timeout
    while not is_done() and not engine.is_closed:
        if end is not None and time.monotonic() >= end:
            return
        engine.pump_for(is_done, event)


class Inquiry:
    """The asking half of a server's engine.

    Args:
        engine: The engine.
    """

    __slots__ = ("engine",)

    def __init__(self, engine: ServerEngine) -> None:
        self.engine = engine

    def ask(
        self,
        link: Link,
        command: str,
        content: Any,
        *,
        is_stream: bool = False,
        timeout: float | None = None,
    ) -> Asked:
        """Send a request to one client.

        Raises:
            Refused: It speaks the wire of 1.1.
            ReservedCommand, NotSendable, MessageTooLarge: It cannot be sent.
            Overloaded: Too many are open.
            SessionLost: The client is gone.
        """
        if not link.connection.writes_compact:
            raise Refused(
                f"{dict(link.info)} speaks the wire of hisock 1.1, which has no calls "
                "and no streams; use send_client()",
                code="classic_wire",
            )
        ttl = None if timeout is None else deadline(timeout)
        content, within = packed(content), serving_on(link)
        asked = self.engine.lock.run(
            self._ask, link, command, content, is_stream, ttl, within
        )
        if asked is None:
            raise LocalProtocolError(
                "a signal handler cannot call while its own thread sends"
            )
        return asked  # type: ignore[no-any-return]  # of lock.run

    def _ask(
        self,
        link: Link,
        command: str,
        content: Any,
        is_stream: bool,
        ttl: int | None,
        within: int | None,
    ) -> Asked:
        if link.connection.requests is None or not link.is_open:
            raise SessionLost(f"{dict(link.info)} is no longer connected")
        asked, frame = begin(link, command, content, is_stream, ttl, within)
        self.engine.outgoing.write_now(link, frame)
        if link.is_paused:  # from now on it is read for the answer's sake
            self.engine.pump.touch(link)
            self.engine.wake()
        return asked

    def call(
        self, who: Any, command: str, content: Any, timeout: float | None, kind: Any
    ) -> Any:
        """What one client's handler returned; waits for it."""
        return self.call_link(
            self.engine.members.look_up(who), command, content, timeout, kind
        )

    def call_link(
        self, link: Link, command: str, content: Any, timeout: float | None, kind: Any
    ) -> Any:
        """What one client's handler returned; waits for it.

        Raises:
            RequestTimeout: No answer came in ``timeout`` seconds.
            RemoteError, SessionLost, ConversionError: As ``asking.outcome``.
            WouldDeadlock: As ``wait_for``.
        """
        read = reader_for(kind)
        self.check_thread()
        asked = self.ask(link, command, content, timeout=timeout)
        asker = LinkAsker(self.engine, link)
        try:
            asker.wait(asked, timeout)
        except BaseException:
            asker.give_up(asked)
            raise
        if not asked.is_done:
            asker.give_up(asked)
            raise late(link, command, timeout)
        return outcome(asked, read)

    def check_thread(self) -> None:
        """Refuse to wait where nothing could come; before anything is sent.

        Raises:
            WouldDeadlock: As ``wait_for``.
        """
        if self.engine.turn.is_mine:
            wait_for(self.engine, [], 0)

    def stream(
        self, who: Any, command: str, content: Any, timeout: float | None, kind: Any
    ) -> Stream[Any]:
        """Begin a stream from one client."""
        read = reader_for(kind)
        if timeout is not None:
            check_timeout(timeout)
        self.check_thread()
        link = self.engine.members.look_up(who)
        asked = self.ask(link, command, content, is_stream=True)
        return Stream(LinkAsker(self.engine, link), asked, read, timeout)

    def idlest(self, group: str) -> Link:
        """The member of a group with the fewest open calls; the oldest of those. One
        whose link is cut only if all are.

        Raises:
            UnknownGroup: Nobody is in it.
            UnknownClient: Only clients of 1.1 are, and they cannot be called.
        """
        links = [
            link
            for link in self.engine.members.group(group)
            if link.connection.requests is not None
        ]
        if not links:
            raise UnknownClient(
                f"nobody in group {group!r:.80} can be called: they are all of 1.1"
            )
        return min(links, key=lambda link: (link.is_dropped, open_calls(link)))

    def call_group(
        self,
        group: str,
        command: str,
        content: Any,
        timeout: float | None,
        kind: Any,
        exclude: Any,
    ) -> GroupCall:
        """Call everybody in a group at once."""
        self.check_thread()
        members = self.engine.members
        links = members.without(members.in_group(group), exclude)
        return GroupCall(self, links, command, content, timeout, kind)


def open_calls(link: Link) -> int:
    """How many calls a client has not answered yet."""
    requests = link.connection.requests
    return 0 if requests is None else len(requests.asked)


def late(link: Link, command: str, timeout: float | None) -> RequestTimeout:
    """What to say of a client that did not answer in time."""
    return RequestTimeout(
        f"no answer to {command!r:.80} came from {dict(link.info)} within {timeout} s"
    )


class GroupReplies:
    """The calls of a whole group, and what came of them so far.

    Attributes:
        missing: After the iteration: the clients that did not answer in time.
        failed: The clients that answered with an error, each with that error.
    """

    def __init__(
        self,
        inquiry: Inquiry,
        links: Collection[Link],
        command: str,
        content: Any,
        timeout: float | None,
        kind: Any,
    ) -> None:
        self.missing: list[ClientInfo] = []
        self.failed: list[tuple[ClientInfo, HiSockError]] = []
        self._read = reader_for(kind)
        self._inquiry = inquiry
        self._end: float | None = None
        if timeout is not None:
            check_timeout(timeout)
            self._end = time.monotonic() + timeout
        self._open: dict[Asked, Link] = {}
        for link in links:
            try:
                asked = inquiry.ask(link, command, content, timeout=timeout)
            except (Refused, SessionLost) as error:
                self.failed.append((self._client(link), error))
            else:
                self._open[asked] = link

    def _client(self, link: Link) -> ClientInfo:
        """The client as whoever asks uses it."""
        return link.info

    def _next_done(self) -> tuple[ClientInfo, Any] | None:
        """A reply that has come; failures are noted on the way."""
        for asked in list(self._open):
            if asked.is_done:
                client = self._client(self._open.pop(asked))
                try:
                    return client, outcome(asked, self._read)
                except HiSockError as error:
                    self.failed.append((client, error))
        return None

    def _left(self) -> float | None:
        """Seconds that remain; when none do, whoever has not answered is missing."""
        left = None if self._end is None else self._end - time.monotonic()
        if left is not None and left <= 0:
            self.close()
        return left

    def close(self) -> None:
        """Wait for no more replies; who has not answered is missing."""
        for asked, link in self._open.items():
            self.missing.append(self._client(link))
            LinkAsker(self._inquiry.engine, link).give_up(asked)
        self._open.clear()


class GroupCall(GroupReplies):
    """The replies of a group, as ``(client, reply)``, as they come."""

    def __iter__(self) -> Iterator[tuple[ClientInfo, Any]]:
        return self

    def __next__(self) -> tuple[ClientInfo, Any]:
        """The next reply; waits for it."""
        while self._open:
            if (reply := self._next_done()) is not None:
                return reply
            left = self._left()
            if self._open:
                try:
                    wait_for(self._inquiry.engine, list(self._open), left)
                except BaseException:  # Ctrl-C: nobody reads the rest
                    self.close()
                    raise
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
