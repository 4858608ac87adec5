"""One direction between a client and its server, so that a test is written once."""

from __future__ import annotations

__all__ = ("Way",)

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from hisock.client import HiSockClient
from hisock.errors import HandlerError

from . import Net, Peer, Record


class Way:
    """A client called ``ann`` and its server; one asks, the other answers.

    Handlers of both are written as a client's, that is: of the message alone.

    Args:
        net: Makes the two.
        up: Whether the client asks.
        options: Of the server.
    """

    def __init__(self, net: Net, *, up: bool, **options: Any) -> None:
        self.net = net
        self.up = up
        #: What ``on_error`` of who answers was told; see ``next_error``.
        self.errors = Record()
        self.reports: list[HandlerError] = []
        self.server = net.server(**options)
        self.server.on("join")(lambda: None)
        self.client = self._connect()

    def _connect(self) -> HiSockClient:
        """The client, which has to be turned."""
        return self.net.client(self.server, "ann", "red")

    @property
    def answerer(self) -> Peer:
        """Who has the handlers."""
        return self.server if self.up else self.client

    @property
    def asker(self) -> Peer:
        """Who sends and calls."""
        return self.client if self.up else self.server

    @property
    def answers_in_loop(self) -> bool:
        """Whether an asyncio loop turns who answers."""
        kind = self.net.server_kind if self.up else self.net.client_kind
        return kind.is_async

    @property
    def answers_coroutines(self) -> bool:
        """Whether who answers may have coroutine handlers: every server may."""
        return self.up or self.answers_in_loop

    def on(self, command: str, **options: Any) -> Callable[[Any], Any]:
        """Register a handler of the message alone with who answers."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            made = _for_server(function) if self.up else function
            self.answerer.on(command, **options)(made)
            return function

        return register

    @property
    def raises(self) -> bool:
        """Whether what goes wrong in a handler comes out of a turn: of ``update()``."""
        return not self.up and self.net.client_kind.face == "plain"

    def next_error(self) -> BaseException:
        """What went wrong in a handler, wherever it is told: its cause."""
        if self.raises:
            return self.net.take_errors(self.client, 1)[0]
        report = self.errors.next()
        assert isinstance(report, HandlerError)
        self.reports.append(report)
        cause = report.__cause__
        return report if cause is None else cause

    def turn(self) -> None:
        """Have both turned from now on."""
        self.answerer.on_error(lambda error: self.errors(error))
        self.net.turn()
        self.net.expect_members(self.server, 1)

    def send(self, command: str, content: Any = b"", **options: Any) -> None:
        """Send a command to who answers."""
        if self.up:
            self.client.send(command, content, **options)
        else:
            self.server.send_client("ann", command, content, **options)

    def call(self, command: str, content: Any = None, **options: Any) -> Any:
        """Call who answers."""
        if self.up:
            return self.client.call(command, content, **options)
        return self.server.call_client("ann", command, content, **options)

    def stream(self, command: str, content: Any = None, **options: Any) -> Any:
        """Begin a stream from who answers."""
        if self.up:
            return self.client.stream(command, content, **options)
        return self.server.stream_client("ann", command, content, **options)


def _for_server(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with the client before the message."""
    if not inspect.signature(function).parameters:
        return function
    made: Callable[..., Any]
    if inspect.isasyncgenfunction(function):

        async def items(client: Any, message: Any) -> Any:
            async with contextlib.aclosing(function(message)) as inner:
                async for item in inner:
                    yield item

        made = items
    elif inspect.iscoroutinefunction(function):

        async def coroutine(client: Any, message: Any) -> Any:
            return await function(message)

        made = coroutine
    elif inspect.isgeneratorfunction(function):

        def generator(client: Any, message: Any) -> Any:
            yield from function(message)

        made = generator
    else:

        def plain(client: Any, message: Any) -> Any:
            return function(message)

        made = plain
    hint = next(iter(get_type_hints(function).values()), Any)
    made.__annotations__ = {"message": hint}
    return made
