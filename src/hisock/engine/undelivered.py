"""What was accepted for a peer and is not known to have arrived, for reports."""

from __future__ import annotations

__all__ = ("sent_messages", "undelivered")

from collections.abc import Iterable

from hisock.engine.link import Link
from hisock.errors import RemoteProtocolError
from hisock.handlers.cast import unpack
from hisock.session.resume import numbered
from hisock.types import Message
from hisock.wire import compact
from hisock.wire import frames as kinds


def undelivered(link: Link) -> list[Message]:
    """The messages for a peer that it has not acknowledged, or that wait for it."""
    if link.replay is None:
        return []
    frames = list(link.replay.frames())
    for waiting in link.outbox.waiting():
        frames += numbered(waiting)
    return sent_messages(frames)


def sent_messages(frames: Iterable[bytes]) -> list[Message]:
    """The messages and calls among frames, as their sender meant them."""
    found: list[Message] = []
    for body in frames:
        try:
            frame = compact.decode(body)
        except RemoteProtocolError:  # what this side has encoded can be decoded
            continue
        if isinstance(frame, kinds.Message | kinds.Request):
            found.append(Message(frame.command, unpack(frame.content)))
    return found
