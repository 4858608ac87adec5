"""What waits to be written to one peer, and when that peer is too slow.

Pure: whoever writes says what was taken, and when.
"""

from __future__ import annotations

__all__ = ("Outbox",)

from collections import deque
from typing import Final

#: Over the bound a message is still accepted inside a turn, up to this many bounds.
HARD_FACTOR: Final = 4
#: Seconds over the bound without a byte taken, after which a peer is cut.
STALL: Final = 10.0
#: Bytes joined for one write: beyond it joining costs more than it saves.
_JOIN: Final = 256 * 1024


class Outbox:
    """The unwritten bytes for one peer.

    Args:
        bound: Bytes over which the peer counts as slow; 0 for no bound.
    """

    __slots__ = ("_bound", "_first", "_frames", "_stalled_since", "size")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._first = 0
        # An empty deque costs 760 bytes, so it is made on first use.
        self._frames: deque[bytes | memoryview] | None = None
        self._stalled_since: float | None = None
        self.size = 0

    @property
    def is_full(self) -> bool:
        """Whether the bound was reached; an empty outbox takes any one message."""
        return 0 < self._bound <= self.size

    def append(self, frame: bytes | memoryview) -> None:
        """Add what is to be written after everything before it."""
        if self._frames is None:
            self._frames = deque()
        if not self.size:
            self._first = len(frame)
        self._frames.append(frame)
        self.size += len(frame)

    def head(self) -> bytes | memoryview:
        """What to write next, joined as far as that is worth it."""
        frames = self._frames
        assert frames, "an empty outbox has no head"
        if len(frames) > 1 and len(frames[0]) < _JOIN and len(frames[1]) < _JOIN:
            joined = bytearray()
            while frames and len(joined) < _JOIN and len(frames[0]) < _JOIN:
                joined += frames.popleft()
            frames.appendleft(bytes(joined))
        return frames[0]

    def advance(self, taken: int, now: float) -> None:
        """Forget the first ``taken`` bytes of ``head()``: they are written."""
        frames = self._frames
        assert frames is not None
        self.size -= taken
        first = frames.popleft()
        if taken < len(first):
            frames.appendleft(memoryview(first)[taken:])
        self._stalled_since = now if self.is_full else None

    def clear(self) -> None:
        """Forget everything."""
        self._frames = None
        self._stalled_since = None
        self.size = 0

    def check(self, now: float) -> str | None:
        """Why the peer is too slow to go on, or ``None`` if it is not."""
        if not self.is_full:
            self._stalled_since = None
            return None
        # A message that came to an empty outbox is permitted, whatever its size.
        if self.size >= HARD_FACTOR * self._bound + self._first:
            return f"slow consumer: {self.size} bytes were waiting for it"
        if self._stalled_since is None:
            self._stalled_since = now
        if now - self._stalled_since >= STALL:
            return f"slow consumer: it took nothing for {STALL:g} s"
        return None

    @property
    def deadline(self) -> float | None:
        """When ``check`` has to be asked again, if nothing else happens."""
        return None if self._stalled_since is None else self._stalled_since + STALL
