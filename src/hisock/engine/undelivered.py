"""What was accepted for a peer and is not known to have arrived, for reports."""

from __future__ import annotations

__all__ = ("accepted", "sent_messages", "undelivered")

from collections.abc import Iterable, Iterator

from hisock.engine.link import Link
from hisock.errors import RemoteProtocolError
from hisock.handlers.cast import unpack
from hisock.session.resume import Block, Written, length_of, numbered
from hisock.types import Message
from hisock.wire import compact
from hisock.wire import frames as kinds


def undelivered(link: Link) -> list[Message]:
    """The messages for a peer that it has not acknowledged, or that wait for it."""
    waiting = link.outbox.waiting()
    if not link.writer.is_compact:
        return [m for w in waiting for m in _classic(w, link.connection.header_len)]
    frames = [] if link.replay is None else list(link.replay.frames())
    for written in waiting:
        frames += numbered(written)
    return sent_messages(frames)


def accepted(link: Link) -> int:
    """How many frames were written to a peer, or wait for it, from the first on."""
    written = 0 if link.replay is None else link.replay.last
    waiting = link.outbox.waiting()
    # What was replaced meanwhile has no bytes, and gets no number.
    counts = (f.count if isinstance(f, Block) else bool(length_of(f)) for f in waiting)
    return written + sum(counts)


def _classic(written: Written, header_len: int) -> Iterator[Message]:
    """The messages in what waits for a peer of 1.1, where all content is text."""
    data = written.data if isinstance(written, Block) else written
    assert isinstance(data, bytes)
    at = 0
    while at < len(data):
        start = at + header_len
        at = start + int(data[at:start])
        command, space, content = data[start:at].partition(b" ")
        if space and command[:1] != b"$":
            yield Message(command.decode(errors="replace"), content)


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
