"""Servers and clients for asyncio: ``start_server`` and ``connect``, awaited.

What acts when it is called, and what is a coroutine:

* ``send*``, ``raw_send``, ``join_group``, ``leave_group``, ``change_*`` and
  ``disconnect*`` act when called, from any thread; awaiting what they return waits for
  room.
* ``call*``, ``recv*``, a client's ``get_client``, ``close`` and ``run_forever`` are
  coroutines: they bring something from afar.
* ``stream*`` and ``call_group`` are iterated with ``async for``.
* Look-ups in memory, ``on``, ``every`` and ``use`` are plain.
"""

from __future__ import annotations

__all__ = ("AsyncHiSockClient", "AsyncHiSockServer", "connect", "start_server")

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, Unpack, overload

from hisock.engine.asking import cast_of
from hisock.engine.awaiting import (
    AsyncGroupCall,
    AsyncStream,
    BlockingVerbs,
    Sent,
    ServerVerbs,
)
from hisock.engine.client_face import ClientFace, ClientOptions, check_options
from hisock.engine.client_verbs import ClientVerbs
from hisock.engine.delivery import WhenSlow, wish_of
from hisock.engine.dial import listen_at
from hisock.engine.pace import check_pace
from hisock.engine.serve import DRAIN
from hisock.engine.server_face import ServerFace, ServerOptions
from hisock.engine.waiting import check_timeout
from hisock.engine.watch import ServerWatch
from hisock.errors import AlreadyRunning, InvalidOption
from hisock.types import Address, ClientLike, Message, Sendable

T = TypeVar("T")


class AsyncHiSockServer(ServerFace):
    """A server that the running asyncio loop turns; see ``HiSockServer``.

    It does no I/O until it is awaited or entered with ``async with``, so handlers can
    be registered first. Handlers run in the loop: plain functions at once, coroutines
    as tasks.

    Args:
        addr, max_connections, header_len, limits, errors, roster, wires: As
            ``HiSockServer``.

    .. versionadded:: 4.0
    """

    _listens_at_once = False

    def __init__(
        self,
        addr: Address | str | None,
        max_connections: int = 0,
        header_len: int = 16,
        **options: Unpack[ServerOptions],
    ) -> None:
        if options.get("spin"):
            raise InvalidOption("spin= is for run(); here the asyncio loop waits")
        super().__init__(addr, True, max_connections, header_len, **options)
        self._watch: ServerWatch | None = None
        self._ending: asyncio.Task[None] | None = None
        self._verbs = ServerVerbs(self._engine, self._inquiry, self)

    # --- beginning and end -----------------------------------------------------

    def __await__(self) -> Generator[Any, None, Self]:
        return self._start().__await__()

    async def _start(self) -> Self:
        """Listen, and have the running loop turn the server.

        Raises:
            CannotListen, InvalidAddress: As ``HiSockServer``.
        """
        if self._watch is not None:
            return self
        self._members.check_open()
        loop = asyncio.get_running_loop()
        if self._address is not None:
            listener = await loop.run_in_executor(None, listen_at, self._address)
            self._listen(listener)
        self._watch = ServerWatch(self._engine, loop)
        return self

    async def __aenter__(self) -> Self:
        return await self._start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close(reconnect=error is not None)

    def __enter__(self) -> NoReturn:
        raise AlreadyRunning("an async server is entered with `async with`")

    async def run_forever(self) -> None:
        """Wait until the server is closed; cancelling this closes it.

        Raises:
            Exception: With ``errors="raise"``, what a handler raised.
        """
        await self._start()
        assert self._watch is not None
        try:
            await self._watch.ended.wait()
        except asyncio.CancelledError:
            await self.close(drain=DRAIN, reconnect=True)
            raise
        if self._watch.error is not None:
            error, self._watch.error = self._watch.error, None
            self._watch.ended.clear()
            raise error

    async def close(
        self, *, drain: float = 0.0, reason: str = "", reconnect: bool = False
    ) -> None:
        """End every connection and stop listening; again is no error.

        Each client is told, ``leave`` runs for it, coroutine handlers are cancelled,
        but for one that awaits this.

        Args:
            drain, reason, reconnect: As ``HiSockServer.close``.
        """
        check_timeout(drain)
        engine = self._engine
        if engine.is_closed:
            return
        if self._watch is None:
            engine.close()
            return
        if self._ending is None:
            engine.ending.prepare(drain=drain, reason=reason, reconnect=reconnect)
            # A task of its own: whoever waits for it may be cancelled.
            self._ending = asyncio.create_task(self._end(self._watch))
        await asyncio.shield(self._ending)

    async def _end(self, watch: ServerWatch) -> None:
        engine = self._engine
        ending = engine.ending
        while not ending.drain():
            watch.turn()
            await asyncio.sleep(0.005)
        engine.pump.stop_accepting()
        while not ending.is_over and time.monotonic() < ending.give_up_at:
            watch.turn()
            await asyncio.sleep(0.005)
        watch.stop()
        engine.close(linger=0.0)

    # --- sending ---------------------------------------------------------------

    def send_client(
        self,
        client: ClientLike,
        command: str,
        content: Sendable = b"",
        *,
        ttl: float | None = None,
        when_slow: WhenSlow | None = None,
        key: Hashable = None,
    ) -> Sent:
        """Send a command to one client now; awaiting waits for room.

        Raises:
            WouldBlock: Twice as much waits for it as may: await your sends.
            InvalidClient, UnknownClient, ReservedCommand, NotSendable,
            MessageTooLarge, ServerClosed: As ``HiSockServer.send_client``.
        """
        try:
            if command not in self._known:
                self._learn(command)
        except TypeError:  # nothing that could be a key
            self._learn(command)
        return self._verbs.send_client(
            client, command, content, ttl=ttl, when_slow=when_slow, key=key
        )

    def send_client_raw(self, client: ClientLike, content: Sendable) -> Sent:
        """Send content without a command to one client now."""
        return self._verbs.send_client(client, None, content)

    def send_group(
        self,
        group: str,
        command: str,
        content: Sendable = b"",
        *,
        ttl: float | None = None,
        when_slow: WhenSlow | None = None,
        key: Hashable = None,
        exclude: Any = None,
    ) -> Sent:
        """Send a command to everybody in a group now; it waits for nobody."""
        try:
            if command not in self._known:
                self._learn(command)
        except TypeError:  # nothing that could be a key
            self._learn(command)
        wish = wish_of(ttl, when_slow, key)
        self._members.send_group(group, command, content, wish, exclude)
        return Sent([])

    def send_group_raw(
        self, group: str, content: Sendable, *, exclude: Any = None
    ) -> Sent:
        """Send content without a command to a group now."""
        self._members.send_group(group, None, content, None, exclude)
        return Sent([])

    def send_all_clients(
        self,
        command: str,
        content: Sendable = b"",
        *,
        ttl: float | None = None,
        when_slow: WhenSlow | None = None,
        key: Hashable = None,
        exclude: Any = None,
    ) -> Sent:
        """Send a command to every client now; it waits for nobody."""
        try:
            if command not in self._known:
                self._learn(command)
        except TypeError:  # nothing that could be a key
            self._learn(command)
        wish = wish_of(ttl, when_slow, key)
        self._members.send_all(command, content, wish, exclude)
        return Sent([])

    # --- asking ----------------------------------------------------------------

    @overload
    async def call_client(
        self,
        client: ClientLike,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: type[T],
    ) -> T: ...
    @overload
    async def call_client(
        self,
        client: ClientLike,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any: ...
    async def call_client(
        self,
        client: ClientLike,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any:
        """What one client's handler returns; see ``HiSockServer.call_client``."""
        return await self._verbs.call_client(
            client, command, content, timeout=timeout, type=type
        )

    def call_group(
        self,
        group: str,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 5.0,
        type: Any = None,
        exclude: Any = None,
    ) -> AsyncGroupCall:
        """Call everybody in a group; ``async for client, reply in`` it.

        See ``HiSockServer.call_group``.
        """
        links = self._members.without(self._members.in_group(group), exclude)
        return AsyncGroupCall(self._inquiry, links, command, content, timeout, type)

    async def call_any(
        self,
        group: str,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any:
        """Call the member of a group with the fewest open calls: a work queue."""
        link = self._inquiry.idlest(group)
        return await self._verbs.call_link(link, command, content, timeout, type)

    def stream_client(
        self,
        client: ClientLike,
        command: str,
        content: Sendable = None,
        *,
        type: Any = None,
        timeout: float | None = None,
    ) -> AsyncStream[Any]:
        """``async for`` over what a client's generator yields; closing cancels it."""
        return self._verbs.stream_client(
            client, command, content, type=type, timeout=timeout
        )

    @property
    def _in_plain(self) -> Any:
        """Awaitable in the loop's own code; blocking in plain handlers and workers."""
        watch = self._watch
        if watch is None or (watch.is_here and not self._engine.turn.is_mine):
            return self
        return BlockingVerbs(self, self._inquiry)

    # --- groups, endings -------------------------------------------------------

    def join_group(self, client: ClientLike, group: str) -> Sent:
        """Put a client into a group beside its own, now."""
        self._change_groups(client, group, "join")
        return Sent([])

    def leave_group(self, client: ClientLike, group: str) -> Sent:
        """Take a client out of a group, now."""
        self._change_groups(client, group, "leave")
        return Sent([])

    def disconnect_client(
        self, client: ClientLike, *, reason: str = "", reconnect: bool = False
    ) -> Sent:
        """End one client's connection now; its ``leave`` runs soon."""
        return self._verbs.disconnect_client(client, reason=reason, reconnect=reconnect)

    def disconnect_all_clients(self) -> Sent:
        """End every client's connection now."""
        self._engine.ending.disconnect(self._members.everybody(), "")
        return Sent([])


class AsyncHiSockClient(ClientFace):
    """A client that the running asyncio loop turns; see ``HiSockClient``.

    It does no I/O until it is awaited or entered with ``async with``, so handlers can
    be registered first. Handlers run in the loop: plain functions at once, coroutines
    as tasks. What they raise goes to ``on_error``, or to the log.

    Args:
        addr, name, group, header_len, cache_size, limits, wait: As ``HiSockClient``.
        token: As there; its function may be a coroutine, too.

    .. versionadded:: 4.0
    """

    _is_async = True
    _beats = True
    _logs_errors = True

    def __init__(
        self,
        addr: Address | str,
        name: str | None = None,
        group: str | None = None,
        header_len: int = 16,
        cache_size: int = -1,
        **options: Unpack[ClientOptions],
    ) -> None:
        check_options(options)
        self._prepare(addr, name, group, True, header_len, cache_size, **options)
        self._repeats: deque[tuple[float, Callable[..., Any]]] = deque()
        self._verbs = ClientVerbs(self)

    # --- beginning and end -----------------------------------------------------

    def __await__(self) -> Generator[Any, None, Self]:
        return self._start().__await__()

    def _rename(self, frame: Any) -> None:
        self._verbs.rename(frame)

    async def _start(self) -> Self:
        """Connect, and have the running loop turn the client.

        Raises:
            ServerNotRunning, InvalidAddress: As ``HiSockClient``.
        """
        if not self._verbs.is_started:
            if self._proof.is_coroutine:
                await self._proof.ask_async()
            await self._verbs.connect(self._connect)
            while self._repeats:
                self._engine.pace.every(*self._repeats.popleft())
        return self

    def _repeat(self, seconds: float, function: Callable[..., Any]) -> None:
        if self._verbs.is_started:
            super()._repeat(seconds, function)
        else:
            check_pace(seconds, function)
            self._repeats.append((seconds, function))

    async def __aenter__(self) -> Self:
        return await self._start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __enter__(self) -> NoReturn:
        raise AlreadyRunning("an async client is entered with `async with`")

    @property
    def is_connected(self) -> bool:
        """Whether it is connected, as far as is known."""
        return self._verbs.is_started and super().is_connected

    async def run_forever(self) -> None:
        """Wait until either side has ended the connection.

        Raises:
            ClientDisconnected: The server has.
        """
        await self._start()
        await self._verbs.ended()

    async def close(self) -> None:
        """End the connection, within 1 s; again is no error."""
        await self._verbs.close()

    # --- sending ---------------------------------------------------------------

    def send(
        self,
        command: str,
        content: Sendable = b"",
        *,
        ttl: float | None = None,
        when_slow: WhenSlow | None = None,
        key: Hashable = None,
    ) -> Sent:
        """Send a command to the server now; awaiting waits for room.

        What the server's first answer decides on is sent right after it, in order.

        Raises:
            WouldBlock: Twice as much waits as may: await your sends.
            ReservedCommand, NotSendable, MessageTooLarge, ClientDisconnected: As
                ``HiSockClient.send``.
        """
        try:
            if command not in self._known:
                self._learn(command)
        except TypeError:  # nothing that could be a key
            self._learn(command)
        return self._verbs.send(command, content, wish_of(ttl, when_slow, key))

    def raw_send(self, content: Sendable) -> Sent:
        """Send content without a command now; see ``send``."""
        return self._verbs.send(None, content, None)

    def change_name(self, new_name: str | None) -> Sent:  # type: ignore[override]  # awaitable here
        """Be called something else, or nothing, from now on."""
        super().change_name(new_name)
        return Sent([])

    def change_group(self, new_group: str | None) -> Sent:  # type: ignore[override]  # awaitable here
        """Be in another group, or in none, from now on."""
        super().change_group(new_group)
        return Sent([])

    # --- receiving -------------------------------------------------------------

    async def recv_raw(self) -> bytes:
        """The next message without a handler, whole; see ``HiSockClient.recv_raw``."""
        return (await self._verbs.receive(None, None)).whole()

    @overload
    async def recv(
        self, command: str, *, type: type[T], timeout: float | None = None
    ) -> T: ...
    @overload
    async def recv(
        self, command: str, *, type: Any = None, timeout: float | None = None
    ) -> Any: ...
    async def recv(
        self, command: str, *, type: Any = None, timeout: float | None = None
    ) -> Any:
        """The content of the next message with this command; see ``HiSockClient``."""
        self._learn(command)
        cast = cast_of(type)
        mail = await self._verbs.receive(lambda mail: mail.is_for(command), timeout)
        return mail.content(command, cast)

    async def recv_any(self, *, timeout: float | None = None) -> Message:
        """The next message without a handler; see ``HiSockClient.recv_any``."""
        mail = await self._verbs.receive(None, timeout)
        return Message(mail.command, mail.content(mail.command))

    # --- asking ----------------------------------------------------------------

    @overload
    async def call(
        self,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: type[T],
    ) -> T: ...
    @overload
    async def call(
        self,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any: ...
    async def call(
        self,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any:
        """What the server's handler returns; see ``HiSockClient.call``."""
        return await self._verbs.call(command, content, timeout, type)

    def stream(
        self,
        command: str,
        content: Sendable = None,
        *,
        type: Any = None,
        timeout: float | None = None,
    ) -> AsyncStream[Any]:
        """``async for`` over what the server's generator yields; closing cancels it."""
        return self._verbs.stream(command, content, timeout, type)

    async def get_client(self, client: ClientLike) -> dict[str, Any]:
        """Ask the server who somebody is; see ``HiSockClient.get_client``."""
        return await self._verbs.get_client(client)


def start_server(
    addr: Address | str | None,
    max_connections: int = 0,
    header_len: int = 16,
    **options: Unpack[ServerOptions],
) -> AsyncHiSockServer:
    """Make an ``AsyncHiSockServer``; await it, or enter it with ``async with``.

    .. versionadded:: 4.0
    """
    return AsyncHiSockServer(addr, max_connections, header_len, **options)


def connect(
    addr: Address | str,
    name: str | None = None,
    group: str | None = None,
    header_len: int = 16,
    cache_size: int = -1,
    **options: Unpack[ClientOptions],
) -> AsyncHiSockClient:
    """Make an ``AsyncHiSockClient``; await it, or enter it with ``async with``.

    .. versionadded:: 4.0
    """
    return AsyncHiSockClient(addr, name, group, header_len, cache_size, **options)
