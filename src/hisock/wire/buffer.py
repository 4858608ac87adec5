"""Bytes that arrive in pieces, joined without copying a long message twice over.

Knows nothing of headers: whoever reads says how many bytes are still missing. Memory
grows only with bytes that really came, never with a length that the other side claimed
(CWE-789).
"""

from __future__ import annotations

__all__ = ("Filling", "PieceBuffer")

import io
from typing import Final

#: Memory that may be set aside for a long message, in multiples of what has come.
_AHEAD: Final = 4
#: Bytes of free memory that the allocator shall not give back at once.
_SPARE: Final = 8 * 1024 * 1024
_kept: list[bool] = []


def _keep_spare_memory() -> None:
    """Have glibc keep what a long message used for the next one.

    It gives back free memory beyond twice the largest block that was ever freed, and
    to get a MiB anew costs 0.7 ms of page faults, more than to send it. This block is
    never touched, and so costs nothing (bench/large.py).
    """
    if not _kept:
        _kept.append(True)
        bytes(_SPARE)


class PieceBuffer:
    """Holds the beginning of a message until the rest of it has come."""

    __slots__ = ("_held", "_missing")

    def __init__(self) -> None:
        self._held: bytearray | bytes = b""
        self._missing = 0

    def __len__(self) -> int:
        return len(self._held)

    def join(self, data: bytes) -> bytes | None:
        """Everything held and ``data``, or ``None`` while bytes are still missing."""
        if not self._held:
            return data
        if len(data) < self._missing:
            # A list of pieces would cost 40 bytes each to somebody who sends one
            # byte at a time; a bytearray costs one.
            if not isinstance(self._held, bytearray):
                self._held = bytearray(self._held)
            self._held += data
            self._missing -= len(data)
            return None
        whole = b"".join((self._held, data))
        self._held = b""
        return whole

    def keep(self, rest: bytes, missing: int) -> None:
        """Hold ``rest`` until at least ``missing`` more bytes have come."""
        self._held = rest
        self._missing = missing


class Filling:
    """A long message that is received into the memory where it stays.

    Args:
        length: Of the whole message.
        first: What has come of it; more than nothing, less than all.

    Attributes:
        room: Where the next bytes of it belong.
    """

    __slots__ = ("_came", "_length", "_memory", "_view", "room")

    def __init__(self, length: int, first: bytes) -> None:
        _keep_spare_memory()
        self._length = length
        self._came = len(first)
        # What it holds becomes ``bytes`` without a copy, unlike a bytearray.
        self._memory = io.BytesIO()
        self._memory.write(first)
        self._grow()

    def _grow(self) -> None:
        self._memory.seek(min(self._length, _AHEAD * self._came) - 1)
        self._memory.write(b"\0")
        self._view = self._memory.getbuffer()
        self.room = self._view[self._came :]

    def _release(self) -> None:
        self.room.release()
        self._view.release()

    def filled(self, count: int) -> bytes | None:
        """The message, if with ``count`` bytes more in ``room`` it is complete."""
        self._came += count
        if self._came < len(self._view):
            room = self.room[count:]
            self.room.release()
            self.room = room
            return None
        self._release()
        if self._came == self._length:
            return self._memory.getvalue()
        self._grow()
        return None

    def feed(self, data: bytes) -> tuple[bytes | None, bytes]:
        """Take what was received elsewhere: the message if it is complete, the rest."""
        whole: bytes | None = None
        while data and whole is None:
            count = min(len(data), len(self.room))
            self.room[:count] = data[:count]
            data = data[count:]
            whole = self.filled(count)
        return whole, data
