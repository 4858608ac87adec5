"""Messages that their sender allowed to be dropped while they wait.

Pure. A message has no number as long as it waits, so only here may it go.
"""

from __future__ import annotations

__all__ = ("Loose", "LooseFrames")

from collections import deque
from collections.abc import Callable, Hashable


class Loose:
    """One waiting message that may be dropped or replaced.

    Attributes:
        frame: As it is written; empty once it is gone, or the gap in its place.
        dropped: How many messages that gap stands for.
    """

    __slots__ = ("before", "dropped", "frame", "group", "slot")

    def __init__(
        self, frame: bytes, slot: Hashable, group: str | None, before: Loose | None
    ) -> None:
        self.frame = frame
        self.slot = slot
        self.group = group
        self.before = before
        self.dropped = 0

    def __len__(self) -> int:
        return len(self.frame)


class LooseFrames:
    """Those of one outbox, in order.

    Args:
        encode_gap: Makes the frame that tells how many messages are missing, of which
            group; empty where the wire has none.
    """

    __slots__ = ("_encode_gap", "_slots", "_waiting", "gone")

    def __init__(self, encode_gap: Callable[[int, str | None], bytes]) -> None:
        self._encode_gap = encode_gap
        self._waiting: deque[Loose] = deque()
        self._slots: dict[Hashable, Loose] = {}
        #: Entries without a frame that still stand in the outbox.
        self.gone = 0

    def add(
        self, frame: bytes, slot: Hashable, group: str | None, last: object
    ) -> tuple[Loose, int]:
        """A new entry, and how many bytes fewer wait because of it.

        Args:
            frame: The message.
            slot: Whose newest message it is; ``None`` for one that may be dropped.
            group: To which group it goes.
            last: What stands last in the outbox.
        """
        before = last if isinstance(last, Loose) else None
        entry = Loose(frame, slot, group, before)
        saved = 0
        if slot is None:
            self._waiting.append(entry)
        else:
            old = self._slots.get(slot)
            if old is not None and old.frame:
                saved = len(old)
                old.frame = b""
                self.gone += 1
            self._slots[slot] = entry
        return entry, saved

    def drop_oldest(self, but: Loose | None = None) -> int | None:
        """Drop the oldest that may be, ``but`` one; by how many bytes less waits, or
        ``None``."""
        while self._waiting and self._waiting[0] is not but:
            entry = self._waiting.popleft()
            if entry.frame and not entry.dropped:
                return self._drop(entry)
        return None

    def _drop(self, entry: Loose) -> int:
        size = len(entry)
        entry.dropped = 1
        before = entry.before
        if before is not None and before.frame and _is_gap_of(before, entry.group):
            size += len(before)
            entry.dropped += before.dropped
            before.frame = b""
            self.gone += 1
        entry.before = None
        entry.frame = self._encode_gap(entry.dropped, entry.group)
        if not entry.frame:
            self.gone += 1
        return size - len(entry)

    def gap(self, group: str | None, last: object) -> tuple[Loose | None, int]:
        """Note that a message was not taken in: an entry for it, or ``None`` where the
        last one can say so, and how many bytes more wait."""
        if isinstance(last, Loose) and _is_gap_of(last, group):
            before = len(last)
            last.dropped += 1
            last.frame = self._encode_gap(last.dropped, group)
            return None, len(last) - before
        entry = Loose(self._encode_gap(1, group), None, group, None)
        entry.dropped = 1
        return entry, len(entry)

    def took(self, entry: Loose) -> bytes:
        """An entry's turn to be written has come."""
        data, entry.frame = entry.frame, b""
        entry.dropped = 0
        if self._waiting and self._waiting[0] is entry:
            self._waiting.popleft()
        entry.before = None
        if entry.slot is not None and self._slots.get(entry.slot) is entry:
            del self._slots[entry.slot]
        if not data:
            self.gone -= 1
        return data


def _is_gap_of(entry: Loose, group: str | None) -> bool:
    return entry.dropped > 0 and entry.group == group
