"""What waits to be written to one peer, and when that peer is too slow.

Pure: whoever writes says what was taken, and when.
"""

from __future__ import annotations

__all__ = ("HARD_FACTOR", "STALL", "Outbox", "Plain")

from collections import deque
from collections.abc import Callable, Hashable
from itertools import islice, repeat
from typing import Final, TypeAlias

from hisock.hub.loose import Loose, LooseFrames
from hisock.session.resume import Block, Replay, Written, length_of
from hisock.wire.compact import Encoded

#: Over the bound a message is still accepted inside a turn, up to this many bounds.
HARD_FACTOR: Final = 4
#: Seconds over the bound without a byte taken, after which a peer is cut.
STALL: Final = 10.0
#: Entries without a frame that may stand in an outbox before it is tidied up.
_GONE: Final = 64
#: Bytes joined for one write: beyond it joining costs more than it saves.
_JOIN: Final = 256 * 1024


#: Frames from which on it is worth to look whether they were joined for another peer.
_SHARED: Final = 4


class Plain(bytes):
    """Bytes without a number: acknowledgements, pongs, goodbyes."""


Waiting: TypeAlias = Written | Plain | Loose
#: What was joined last, and what that made; none of it changes.
_last: tuple[list[Waiting], Block] = ([], Block(0, b""))


class Outbox:
    """The unwritten bytes for one peer, and with a session the unacknowledged ones.

    Args:
        bound: Bytes over which the peer counts as slow; 0 for no bound.

    Attributes:
        frames: What is not begun, the oldest first; ``None`` before the first.
        size: Bytes that are not written.
        replay: What is written and not acknowledged; ``None`` without a session.
    """

    __slots__ = (
        "_acked",
        "_bound",
        "_loose",
        "_next",
        "_rest",
        "_rest_size",
        "_stalled_since",
        "_taken",
        "frames",
        "replay",
        "size",
    )

    def __init__(self, bound: int) -> None:
        self._bound = bound
        # An empty deque costs 760 bytes, so it is made on first use.
        self.frames: deque[Waiting] | None = None
        #: Those of them that may be dropped, once there are some.
        self._loose: LooseFrames | None = None
        #: What is being written; has its number already.
        self._rest: deque[bytes | memoryview] | None = None
        self._rest_size = 0
        #: What is on its way there, and then what that makes.
        self._taken: list[Waiting] | None = None
        self._next: Block | tuple[bytes, ...] | None = None
        self._stalled_since: float | None = None
        self._acked = 0
        self.replay: Replay | None = None
        self.size = 0

    @property
    def held(self) -> int:
        """Bytes that are kept for this peer, unwritten and unacknowledged together."""
        if self.replay is None:
            return self.size
        return self.size - self._rest_size + self.replay.size

    @property
    def is_full(self) -> bool:
        """Whether the bound was reached; an empty outbox takes any one message."""
        return 0 < self._bound <= self.held

    @property
    def is_overflowing(self) -> bool:
        """Whether nothing more is accepted at all."""
        return self.overflows(HARD_FACTOR)

    def overflows(self, factor: int) -> bool:
        """Whether so many bounds are exceeded."""
        most = factor * self._bound
        if not 0 < most <= self.held:
            return False
        # A message that came to an empty outbox is permitted, whatever its size.
        return self.held - self._oldest >= most

    @property
    def _oldest(self) -> int:
        """Bytes of what has waited longest."""
        if self.replay is not None and self.replay.blocks:
            return length_of(self.replay.blocks[0])
        if self._rest:
            return self._rest_size
        return length_of(self.frames[0]) if self.frames else 0

    def append(self, frame: Waiting) -> None:
        """Add what is to be written after everything before it."""
        if self.frames is None:
            self.frames = deque()
        self.frames.append(frame)
        self.size += len(frame) if frame.__class__ is bytes else length_of(frame)

    def add_loose(
        self,
        frame: bytes,
        encode_gap: Callable[[int, str | None], bytes],
        *,
        slot: Hashable = None,
        group: str | None = None,
        drops_newest: bool = False,
    ) -> None:
        """Add a message that may be dropped, and drop what has to go.

        Args:
            frame: The message.
            encode_gap: As ``LooseFrames``.
            slot: Of which only the newest message counts; ``None`` for any.
            group: To which group it goes, for the gap.
            drops_newest: Whether it is itself what goes while the peer is too slow,
                and not the oldest such message.
        """
        if self.frames is None:
            self.frames = deque()
        if self._loose is None:
            self._loose = LooseFrames(encode_gap)
        frames, loose = self.frames, self._loose
        last = frames[-1] if frames else None
        if drops_newest and self.is_full:
            gap, more = loose.gap(group, last)
            if gap is not None and gap.frame:
                frames.append(gap)
            self.size += more
            return
        entry, saved = loose.add(frame, slot, group, last)
        frames.append(entry)
        self.size += len(frame) - saved
        while slot is None and not drops_newest and self.is_full:
            less = loose.drop_oldest(but=entry)
            if less is None:
                break
            self.size -= less
        if loose.gone > _GONE + len(frames) // 2:
            self.frames = deque(
                f for f in frames if not isinstance(f, Loose) or f.frame
            )
            loose.gone = 0

    def put_first(self, data: bytes) -> None:
        """Add what has no number and no place: before all that is not begun."""
        if self.frames is None:
            self.frames = deque()
        self.frames.appendleft(Plain(data))
        self.size += len(data)

    def keep(self, parts: tuple[bytes | memoryview, ...]) -> None:
        """Write later what is left of a frame that has its number already."""
        if self._rest is None:
            self._rest = deque()
        self._rest.extend(parts)
        size = sum(map(len, parts))
        self._rest_size += size
        self.size += size

    def head(self) -> bytes | memoryview:
        """What to write next, joined as far as that is worth it; it has its number."""
        if self._taken is not None or self._next is not None:
            self._settle()
        if not self._rest:
            self._begin()
        return self._rest[0] if self._rest else b""

    @property
    def waits_for_acks(self) -> bool:
        """Whether nothing more is to be written before something is acknowledged: what
        has no number yet can still be dropped, or replaced."""
        replay = self.replay
        if replay is None or self._rest or not self._bound:
            return False
        return self._loose is not None and replay.size >= self._bound

    @property
    def is_begun(self) -> bool:
        """Whether something is written in part."""
        return bool(self._rest)

    def is_at(self, data: bytes | memoryview) -> bool:
        """Whether this is what is being written."""
        return bool(self._rest) and self._rest[0] is data  # type: ignore[index]

    def _begin(self) -> None:
        """Give the next frames their numbers.

        A KeyboardInterrupt may strike anywhere: taking the frames out is one step for
        Python, and what was begun then is finished the next time.
        """
        if not (self._taken or self.frames):  # struck between a frame and its size
            self.size = self._rest_size = 0
            return
        if not self._taken:
            assert self.frames is not None
            self._taken = []
            count = self._how_many(self.frames)
            self._taken.extend(map(deque.popleft, repeat(self.frames, count)))
            if count >= _SHARED:
                self._next = _join_once(self._taken)
        self._number(self._taken)
        if not self._rest:  # what is gone stood before a large one
            self._begin()

    @staticmethod
    def _how_many(frames: deque[Waiting]) -> int:
        """How many of the first are to be written together."""
        count = len(frames)
        if count >= _SHARED and list(frames) == _last[0]:
            return count
        first = frames[0]
        size = length_of(first)
        # A mark of the classic wire must not be replayed, so it stands alone.
        if isinstance(first, tuple | Plain) or size >= _JOIN:
            return 1
        count = 1
        for following in islice(frames, 1, None):
            more = length_of(following)
            if size >= _JOIN or more >= _JOIN or isinstance(following, tuple | Plain):
                break
            size += more
            count += 1
        return count

    def _number(self, taken: list[Waiting]) -> None:
        """Move what was taken to what is being written, and to ``replay``."""
        if self._rest is None:
            self._rest = deque()
        rest = self._rest
        if self._next is None:
            self._next = _join(taken)
        following = self._next
        parts: tuple[bytes, ...]
        if isinstance(following, Block):
            has_number, parts = following.count > 0, (following.data,)
        else:
            has_number, parts = True, following
        if has_number and self.replay is not None:
            self.replay.note_once(following)
        if parts[-1] and not (rest and rest[-1] is parts[-1]):
            rest.extend(parts)
        if self._loose is not None:
            for each in taken:
                if isinstance(each, Loose):
                    self._loose.took(each)
        self._taken = None
        self._rest_size = sum(map(len, rest))
        self._next = None

    def _settle(self) -> None:
        """Finish what a KeyboardInterrupt struck in the middle of."""
        if self._taken or self._next is not None:
            self._number(self._taken or [])

    def advance(self, taken: int, now: float) -> None:
        """Forget the first ``taken`` bytes of ``head()``: they are written."""
        rest = self._rest
        assert rest
        self.size -= taken
        self._rest_size -= taken
        first = rest.popleft()
        if taken < len(first):
            rest.appendleft(memoryview(first)[taken:])
        self._stalled_since = now if self.is_full else None

    def cut(self) -> None:
        """The link is gone: what was begun is in ``replay``, what had no number and
        was no message is of no use any more."""
        self._settle()
        self.size -= self._rest_size
        self._rest_size = 0
        self._rest = None
        if self.frames is not None:
            kept = deque(f for f in self.frames if not isinstance(f, Plain))
            self.frames = kept or None
            self.size = sum(map(length_of, kept))
        self._stalled_since = None

    def resume(self, again: list[Encoded]) -> None:
        """Write these first, which have their numbers already."""
        parts = [
            part
            for encoded in again
            for part in (encoded if isinstance(encoded, tuple) else (encoded,))
        ]
        if parts:
            self.keep(tuple(parts))

    def waiting(self) -> list[Written]:
        """What has no number yet, the oldest first."""
        self._settle()
        frames = [
            f.frame if isinstance(f, Loose) else f
            for f in self.frames or ()
            if not isinstance(f, Plain)
        ]
        return [frame for frame in frames if frame != b""]  # what was dropped is gone

    def clear(self) -> None:
        """Forget everything."""
        self.frames = self._rest = self._loose = self._next = self._taken = None
        self._stalled_since = None
        self.size = self._rest_size = 0

    def check(self, now: float) -> str | None:
        """Why the peer is too slow to go on, or ``None`` if it is not."""
        if not self.is_full:
            self._stalled_since = None
            return None
        if self.is_overflowing:
            return f"slow consumer: {self.held} bytes were waiting for it"
        acked = self._acked if self.replay is None else self.replay.acked
        if self._stalled_since is None or acked != self._acked:
            self._stalled_since = now
            self._acked = acked
        if now - self._stalled_since >= STALL:
            return f"slow consumer: it took nothing for {STALL:g} s"
        return None

    @property
    def deadline(self) -> float | None:
        """When ``check`` has to be asked again, if nothing else happens."""
        return None if self._stalled_since is None else self._stalled_since + STALL


def _join_once(taken: list[Waiting]) -> Block | tuple[bytes, ...]:
    """As ``_join``; what several broadcasts left is the same for many peers
    (bench/websocket_fan_out.py)."""
    global _last
    known, block = _last
    if taken == known:
        # An object of its own: by it ``note_once`` knows what it has noted.
        return Block(block.count, block.data)
    joined = _join(taken)
    if isinstance(joined, Block) and set(map(type, taken)) == {bytes}:
        _last = taken.copy(), joined
    return joined


def _join(taken: list[Waiting]) -> Block | tuple[bytes, ...]:
    """What is to be written together, with how many numbers it takes."""
    first = taken[0]
    if isinstance(first, tuple):
        return first
    count, parts = 0, []
    for each in taken:
        if isinstance(each, Block):
            count += each.count
            parts.append(each.data)
        else:
            part = each.frame if isinstance(each, Loose) else each
            assert isinstance(part, bytes)
            count += bool(part) and not isinstance(each, Plain)
            parts.append(part)
    return Block(count, parts[0] if len(parts) == 1 else b"".join(parts))
