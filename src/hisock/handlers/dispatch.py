"""What a classic message is: for a handler, for hisock itself, or for nobody.

On the compact wire each frame says so itself.
"""

from __future__ import annotations

__all__ = ("Call", "NoHandler", "resolve", "unknown_command")

from collections.abc import Callable
from typing import Any, TypeAlias

from hisock._near import did_you_mean
from hisock.handlers.table import HandlerEntry, HandlerTable
from hisock.wire.classic import decode_control
from hisock.wire.frames import Frame, Value


class Call(Value, frozen=True):
    """A handler and the content of the message it is for."""

    entry: HandlerEntry
    content: bytes

    @property
    def function(self) -> Callable[..., Any]:
        """Takes ``(client, content)``."""
        return self.entry.call


class NoHandler(Value, frozen=True):
    """A message that no handler claims."""


Resolved: TypeAlias = Call | NoHandler | Frame

_NO_HANDLER = NoHandler()


def resolve(table: HandlerTable, body: bytes, *, by_client: bool) -> Resolved:
    """What a body is. Reserved words come first: no handler ever sees one.

    Args:
        table: The handlers of this side.
        body: The whole message.
        by_client: Who sent it.

    Raises:
        RemoteProtocolError: The body is reserved, and broken.
    """
    if body[:1] == b"$":
        frame = decode_control(body, by_client=by_client)
        if frame is not None:
            return frame
    found = table.find(body)
    return _NO_HANDLER if found is None else Call(*found)


def unknown_command(table: HandlerTable, word: str, *, for_peer: bool = False) -> str:
    """A sentence on a command that nobody handles, with what was probably meant.

    Args:
        table: What is handled.
        word: What came.
        for_peer: Whether a stranger may read it, whom the program's files and all that
            it handles are no concern of.
    """
    word = word[:64]
    entries = table.commands()
    near = did_you_mean(word, [entry.command for entry in entries])
    if for_peer:
        return f"no handler for {word!r}.{near}"
    known = ", ".join(entry.signature.where for entry in entries[:8]) or "none"
    return f"no handler for {word!r}.{near} (handlers: {known})"
