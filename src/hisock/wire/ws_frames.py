"""Frames of a WebSocket (RFC 6455 §5.2) that hold a whole binary message, cut quickly.

Pure. Knows only what is usual and well-formed; where anything else begins it stops, and
says how long that is, so that whoever knows all of the RFC can go on there.
"""

from __future__ import annotations

__all__ = (
    "MASK",
    "NEVER",
    "cut_masked",
    "cut_plain",
    "left_of",
    "masked",
    "plain",
    "plain_all",
)

import sys
from typing import Final

from hisock.wire.compact import HEADER_LEN

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its wheel: twice as slow, on all of a read
    from websockets.utils import apply_mask

#: Length of what is no frame, so that nothing can follow it.
NEVER: Final = sys.maxsize

_FIN_TEXT: Final = 0x81
_FIN_BINARY: Final = 0x82
_MASKED: Final = 0x80
#: Bytes of a mask.
MASK: Final = 4
#: Second bytes that announce a length of two or of eight bytes.
_TWO, _EIGHT = 126, 127
#: Continuation, text, binary; close, ping, pong.
_OPCODES: Final = frozenset((0, 1, 2, 8, 9, 10))

#: How the frames of short messages begin: the length, and what stands before them on
#: the compact wire. One of less than two bytes is no message of ours.
_SHORT: Final = {
    bytes((_FIN_BINARY, size)): (size, size.to_bytes(4, "big"))
    for size in range(2, _TWO)
}
_SHORT_MASKED: Final = {
    bytes((_FIN_BINARY, _MASKED | size)): (size, size.to_bytes(4, "big"))
    for size in range(2, _TWO)
}
_LONG: Final = bytes((_FIN_BINARY, _TWO))
_LONG_MASKED: Final = bytes((_FIN_BINARY, _MASKED | _TWO))


def cut_masked(data: bytes, at: int, largest: int, came: list[bytes]) -> int:
    """Take in the whole, masked messages that follow each other, as a server.

    One pass with few names, since it is most of what a message costs
    (bench/websocket_one_way.py).

    Args:
        data: What was read.
        at: Where a frame begins in it.
        largest: Bytes of the largest message.
        came: Gets for each message its header on the compact wire, and the message.

    Returns:
        Where the first frame begins that is not whole, or anything else.
    """
    known, append, size = _SHORT_MASKED.get, came.append, len(data)
    while True:
        found = known(data[at : at + 2])
        if found is not None:
            length, head = found
            start = at + 2
        elif data[at : at + 2] == _LONG_MASKED:
            start = at + 4
            head = b"\0\0" + data[at + 2 : start]
            length = int.from_bytes(head, "big")
            if length < _TWO:
                return at
        else:
            return at
        body = start + MASK
        end = body + length
        if end > size or length > largest:
            return at
        append(head)
        append(apply_mask(data[body:end], data[start:body]))
        at = end


def cut_plain(data: bytes, at: int, largest: int, came: list[bytes]) -> int:
    """As ``cut_masked``, of messages without a mask, as a client."""
    known, append, size = _SHORT.get, came.append, len(data)
    while True:
        found = known(data[at : at + 2])
        if found is not None:
            length, head = found
            body = at + 2
        elif data[at : at + 2] == _LONG:
            body = at + 4
            head = b"\0\0" + data[at + 2 : body]
            length = int.from_bytes(head, "big")
            if length < _TWO:
                return at
        else:
            return at
        end = body + length
        if end > size or length > largest:
            return at
        append(head)
        append(data[body:end])
        at = end


def left_of(data: bytes, at: int, *, is_masked: bool) -> int | None:
    """How many bytes the frame has that begins here.

    Returns:
        ``None`` while its head is not whole, ``NEVER`` if there can be no such frame.
    """
    if len(data) < at + 2:
        return None
    first, second = data[at], data[at + 1]
    if first & 0x70 or first & 0x0F not in _OPCODES or is_masked != second >> 7:
        return NEVER
    size, wide = second & 0x7F, 0
    if size >= _TWO:
        wide = 2 if size == _TWO else 8
        start = at + 2
        if len(data) < start + wide:
            return None
        size = int.from_bytes(data[start : start + wide], "big")
    return 2 + wide + MASK * is_masked + size


def plain(body: bytes, *, is_text: bool = False) -> tuple[bytes, bytes]:
    """A whole message as a server writes it: head and content."""
    return _head(_FIN_TEXT if is_text else _FIN_BINARY, len(body), 0), body


def plain_all(data: bytes) -> bytes:
    """What ``data`` has on the compact wire, each message in a frame of its own."""
    at = 0
    parts: list[bytes] = []
    while at < len(data):
        body = at + HEADER_LEN
        at = body + int.from_bytes(data[at:body], "big")
        parts += plain(data[body:at])
    return b"".join(parts)


def masked(body: bytes, mask: bytes) -> tuple[bytes, bytes, bytes]:
    """The same as a client writes it."""
    return _head(_FIN_BINARY, len(body), _MASKED), mask, apply_mask(body, mask)


def _head(first: int, size: int, bit: int) -> bytes:
    if size < _TWO:
        return bytes((first, bit | size))
    if size < 1 << 16:
        return bytes((first, bit | _TWO)) + size.to_bytes(2, "big")
    return bytes((first, bit | _EIGHT)) + size.to_bytes(8, "big")
