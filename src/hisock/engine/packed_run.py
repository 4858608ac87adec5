"""Runs handlers for messages of the compact wire, many of them in one loop.

Knows neither sockets nor locks, and no frame but a message.
"""

from __future__ import annotations

__all__ = ("PackedRunner",)

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.link import Link
from hisock.engine.post import Post
from hisock.errors import RemoteProtocolError
from hisock.handlers.table import HandlerTable
from hisock.wire import compact
from hisock.wire.frames import Message, PackedFrame

if TYPE_CHECKING:
    from hisock.engine.owner import Owner

#: Messages of one command in a row after which more of them are expected; after each
#: wrong guess in a read twice as many. It costs what is saved by three right ones.
_ENOUGH: Final = 8


class PackedRunner:
    """The half of a ``Runner`` that has to be quick on the compact wire.

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

    def _run_frame(self, link: Link, frame: PackedFrame, client: Any) -> bool:
        """Run what is no message, or has no simple handler; whether one ran."""
        raise NotImplementedError

    def _run_packed(self, link: Link, rest: Iterator[bytes], client: Any) -> bool:
        # Hot path: bench/typed.py.
        find = self._table.packed.get
        unsent = self._post.unsent
        decode = compact.DECODE_FROM_CLIENT if self._by_client else compact.DECODE
        ran = False
        last: Callable[..., Any] | None = None
        in_a_row, enough = 0, _ENOUGH
        # While messages of one command come: reads one with its content at once.
        read: Callable[[bytes], Any] | None = None
        command: str | None = None
        handle: Any = None
        outdated: list[bool] | None = None
        for body in rest:
            if read is not None:
                try:
                    content = read(body)[2]
                except Exception:  # another one, or it takes a closer look
                    read = last = None
                    enough += enough  # it was wrong to expect one of these
                else:
                    try:
                        handle(client, content)
                    except Exception as error:
                        self._failed_packed(link, command, error)
                    if unsent:
                        self._post.flush_due()
                    if outdated:
                        read = last = None
                    continue
            try:
                frame = decode(body)
            except compact.MALFORMED as error:
                self._owner.broken(link, compact.malformed(error))
                break
            if (
                type(frame) is Message
                and frame.ttl is None
                and (call := find(frame.command)) is not None
            ):
                ran = True
                try:
                    call(client, frame.content)
                except Exception as error:
                    self._failed_packed(link, frame.command, error)
                if call is not last:
                    last, in_a_row = call, 0
                elif (in_a_row := in_a_row + 1) == enough:
                    outdated = self._table.outdated
                    if (known := self._table.reader(frame.command)) is not None:
                        command, (read, handle) = frame.command, known
            else:
                last = None
                if self._run_frame(link, frame, client):
                    ran = True
                if link.is_busy:
                    break
            if unsent:
                self._post.flush_due()
        return ran

    def _failed_packed(self, link: Link, command: str | None, error: Exception) -> None:
        if isinstance(error, RemoteProtocolError):
            self._owner.broken(link, error)
            return
        entry = self._table.get(command)
        if entry is None:
            raise error
        self._owner.failed(link, entry, error)
