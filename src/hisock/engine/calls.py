"""Runs handlers: one loop over what was read, for servers and clients alike.

Knows neither sockets nor locks; what happens around a call is asked of an ``Owner``.
"""

from __future__ import annotations

__all__ = ("Owner", "Runner", "explain_conversion")

from typing import Any, Protocol

from hisock.engine.link import Link
from hisock.engine.post import Post
from hisock.errors import ConversionError, RemoteProtocolError
from hisock.handlers.dispatch import Call, NoHandler, resolve
from hisock.handlers.table import HandlerEntry, HandlerTable
from hisock.session.connection import Messages
from hisock.wire.frames import Frame


class Owner(Protocol):
    """What a runner asks of the engine around it."""

    def control(self, link: Link, frame: Frame) -> bool:
        """Act on a frame that is not a message; whether a handler ran."""

    def unclaimed(self, link: Link, body: bytes) -> bool:
        """Deal with a message that no handler took; whether a handler ran."""

    def seen(self, link: Link, body: bytes) -> bool:
        """A message is done with; whether a handler ran."""

    def failed(self, link: Link, entry: HandlerEntry, error: Exception) -> None:
        """A handler raised, or its message could not be converted."""

    def broken(self, link: Link, error: RemoteProtocolError) -> None:
        """The peer sent a reserved message that is none."""


class Runner:
    """Runs what a link received, message by message.

    Args:
        table: The handlers.
        owner: The engine.
        post: What the handlers send.
        by_client: Whether the messages come from a client, that is: on a server.
    """

    __slots__ = ("_by_client", "_owner", "_post", "_table")

    def __init__(
        self, table: HandlerTable, owner: Owner, post: Post, *, by_client: bool
    ) -> None:
        self._table = table
        self._owner = owner
        self._post = post
        self._by_client = by_client

    def run_messages(self, link: Link, messages: Messages, client: Any) -> bool:
        """Run handlers for everything in ``messages``; whether one ran.

        An exception that leaves this method loses nothing: the iterator stands behind
        the message that raised it. (Hot path: bench/one_way.py.)
        """
        find = self._table.direct.get
        unsent = self._post.unsent
        ran = False
        body = b""
        for body in messages.rest:
            word, _, content = body.partition(b" ")
            call = find(word)
            if call is None:
                if self._run_other(link, body, client):
                    ran = True
            else:
                ran = True
                try:
                    call(client, content)
                except Exception as error:
                    self._failed(link, body, error)
            if unsent:
                self._post.flush_due()
        return ran

    def _run_other(self, link: Link, body: bytes, client: Any) -> bool:
        """Run a message that needs a closer look."""
        try:
            what = resolve(self._table, body, by_client=self._by_client)
        except RemoteProtocolError as error:
            self._owner.broken(link, error)
            return False
        match what:
            case NoHandler():
                ran = self._owner.unclaimed(link, body)
            case Call(entry, content):
                try:
                    self._call(link, entry, client, content)
                finally:
                    self._owner.seen(link, body)
                return True
            case frame:
                return self._owner.control(link, frame)
        return self._owner.seen(link, body) or ran

    def run_event(self, link: Link, event: str, *arguments: Any) -> bool:
        """Run the handler of a reserved event; whether there is one."""
        entry = self._table.event(event)
        if entry is None:
            return False
        self._call(link, entry, *arguments)
        if self._post.unsent:
            self._post.flush_due()
        return True

    def _call(self, link: Link, entry: HandlerEntry, *arguments: Any) -> None:
        try:
            entry.call(*arguments)
        except Exception as error:
            self._owner.failed(link, entry, error)

    def _failed(self, link: Link, body: bytes, error: Exception) -> None:
        found = self._table.find(body)
        # The handler may have registered another in its own place meanwhile.
        if found is None:
            raise error
        self._owner.failed(link, found[0], error)


def explain_conversion(entry: HandlerEntry, error: Exception) -> Exception:
    """Name the command and the handler in a failed conversion."""
    if type(error) is ConversionError:
        text = f"{entry.command!r} for {entry.signature.where}: {error}"
        return ConversionError(text)
    return error
