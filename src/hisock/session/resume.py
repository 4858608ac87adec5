"""Sessions: what the other side has of what we sent, and what to send again.

Pure rules. No sockets, no clock: every method that needs the time takes ``now``.
"""

from __future__ import annotations

__all__ = (
    "ACK_DELAY",
    "ACK_FRAMES",
    "ACK_SIZE",
    "Block",
    "Replay",
    "Session",
    "Tokens",
    "Written",
    "length_of",
    "numbered",
)

from collections import deque
from collections.abc import Callable, Iterator, Sized
from itertools import islice, repeat
from typing import Any, Final, TypeAlias

from hisock.errors import RemoteProtocolError
from hisock.wire.compact import Encoded, cut_frames, kind_of
from hisock.wire.frames import LAST_NUMBERED, Hello, Value

#: Frames, bytes, and seconds, after which what came is acknowledged.
ACK_FRAMES: Final = 64
ACK_SIZE: Final = 64 * 1024
ACK_DELAY: Final = 0.2


class Block(Value, frozen=True):
    """Several frames that were written together."""

    count: int
    data: bytes


#: What most blocks are: one frame each.
_SINGLE: Final = {bytes}

#: One frame, one large frame in parts, or several frames.
Written: TypeAlias = Encoded | Block


def length_of(written: Written | Sized) -> int:
    """The bytes of it."""
    if isinstance(written, tuple):
        return sum(map(len, written))
    return len(written.data if isinstance(written, Block) else written)


class Replay:
    """What was given a number and not acknowledged yet, as it went out.

    A frame has its number from the moment it is noted here, which is before its first
    byte is written: whatever interrupts the write, the count is right.

    Attributes:
        acked: Number of the last frame that the other side has.
        acked_size: Bytes of all that the other side has.
        blocks: What it may not have, the oldest first; ``None`` for nothing.
        size: Bytes of that.
    """

    __slots__ = ("_within", "acked", "acked_size", "blocks", "size")

    def __init__(self) -> None:
        self.acked = self.acked_size = 0
        #: Frames of the first block that are acknowledged already.
        self._within = 0
        # An empty deque costs 760 bytes, and most connections are idle.
        self.blocks: deque[Written] | None = None
        self.size = 0

    def note(self, written: Written) -> None:
        """Give a number to what is about to be written."""
        if self.blocks is None:
            self.blocks = deque()
        self.blocks.append(written)
        self.size += length_of(written)

    def note_once(self, written: Written) -> None:
        """As ``note``, but not again if a KeyboardInterrupt struck just after that."""
        if self.blocks and self.blocks[-1] is written:
            self.resize()
        else:
            self.note(written)

    def resize(self) -> None:
        """Count the bytes again, after a KeyboardInterrupt."""
        self.size = sum(map(length_of, self.blocks or ()))

    def next_look(self, bound: int) -> int:
        """Bytes at which somebody should look for acknowledgements again: when so many
        more are kept, and at each message over the bound; 0 is none."""
        step = self.size + ACK_SIZE
        return min(step, bound) if bound else step

    def take_back(self) -> None:
        """Nothing of what was noted last was written: it has no number."""
        assert self.blocks is not None
        self.size -= length_of(self.blocks.pop())

    def acknowledge(self, upto: int) -> None:
        """Forget every frame that the other side now has.

        Raises:
            RemoteProtocolError: It acknowledged a frame that was never sent.
        """
        missing = upto - self.acked
        blocks = self.blocks
        if missing <= 0:
            return
        whole, within = 0, self._within
        length: Callable[[Any], int] = length_of
        if (
            blocks is not None
            and missing <= len(blocks)
            and not within
            and set(map(type, islice(blocks, missing))) == _SINGLE
        ):  # usually they are: no look at each (bench/sessions.py)
            whole, missing = missing, 0
            length = len
        for block in blocks or () if missing else ():
            count = block.count - within if type(block) is Block else 1
            if count > missing:
                within += missing
                missing = 0
                break
            within = 0
            whole += 1
            missing -= count
            if not missing:
                break
        if missing or blocks is None:  # nothing has changed yet
            raise RemoteProtocolError(
                f"frame {upto} was acknowledged, the last sent is {upto - missing}"
            )
        freed = sum(map(length, islice(blocks, whole)))
        self.size -= freed
        self.acked_size += freed
        deque(map(deque.popleft, repeat(blocks, whole)), 0)
        self._within = within
        self.acked = upto
        if not blocks:
            self.blocks = None

    def again(self) -> list[Encoded]:
        """Everything that is to be written once more, after a resume."""
        again: list[Encoded] = []
        for block in self.blocks or ():
            if isinstance(block, Block):
                again.append(_behind(block.data, 0 if again else self._within))
            else:
                again.append(block)
        return again

    @property
    def last(self) -> int:
        """Number of the last frame that has one."""
        counts = (
            block.count if isinstance(block, Block) else 1
            for block in self.blocks or ()
        )
        return self.acked - self._within + sum(counts)

    def frames(self) -> Iterator[bytes]:
        """Every frame that may not have arrived, without its header."""
        for encoded in self.again():
            yield from numbered(encoded)

    def clear(self) -> None:
        """Forget everything; the next frame is number 1."""
        self.acked = self._within = self.size = self.acked_size = 0
        self.blocks = None


def numbered(encoded: Written) -> Iterator[bytes]:
    """The frames in what is or was to be written that have, or get, a number."""
    if isinstance(encoded, Block):
        encoded = encoded.data
    data = encoded if isinstance(encoded, bytes) else b"".join(encoded)
    for frame in cut_frames(data):
        if kind_of(frame) <= LAST_NUMBERED:
            yield frame


def _behind(data: bytes, count: int) -> bytes:
    """What comes after the first ``count`` numbered frames."""
    at = 0
    for frame in cut_frames(data):
        if not count:
            break
        at += 4 + len(frame)
        if kind_of(frame) <= LAST_NUMBERED:
            count -= 1
    return data[at:]


class Session:
    """What two peers have agreed on, for as long as they may find each other again.

    Attributes:
        sid: What the client calls it.
        epoch: What the server calls it; empty until a welcome came. Another session of
            the same ``sid``, or of another life of the server, has another.
        reason: On a server: why an earlier session of its client is not there.
        missed: And how many frames its client missed of that; ``None`` if unknown.
        window: Seconds that it is kept after a cut.
        replay: What was sent.
        received: Number of the last frame that came.
        told: Up to which the other side was told so.
        owed_since: When the first came of which it was not.
        owed_size: Bytes of these.
        tokens: On a server: who may go on with it.
    """

    __slots__ = (
        "epoch",
        "missed",
        "reason",
        "owed_since",
        "owed_size",
        "received",
        "replay",
        "sid",
        "told",
        "tokens",
        "window",
    )

    def __init__(self, sid: str, window: float) -> None:
        self.sid = sid
        self.epoch = self.reason = ""
        self.missed: int | None = None
        self.window = window
        self.replay = Replay()
        self.tokens: Tokens | None = None
        self.received = self.told = self.owed_size = 0
        self.owed_since = 0.0

    def receive(
        self, count: int, size: int, now: float, *, is_amid: bool = False
    ) -> bool:
        """So many numbered frames came; whether to acknowledge now.

        Args:
            is_amid: Whether a large one is coming, which may take longer than its
                sender would wait for a sign of life: it hears what it knows, again.
        """
        if not self.owed_size:
            self.owed_since = now
        self.owed_size += size  # also of a frame that is not whole yet
        if count:
            if self.received == self.told:
                self.owed_since = now
            self.received += count
        elif self.received == self.told:
            return is_amid and now - self.owed_since >= ACK_DELAY
        return (
            self.received - self.told >= ACK_FRAMES
            or self.owed_size >= ACK_SIZE
            or now - self.owed_since >= ACK_DELAY
        )

    @property
    def owes(self) -> bool:
        """Whether something came of which the other side was not told."""
        return self.received != self.told

    def goes_on(self, hello: Hello) -> bool:
        """Whether a hello means this session, and not an earlier one whose loss its
        client has not heard of: the welcome that said so did not arrive."""
        if hello.epoch == self.epoch:
            return True
        return not (hello.epoch or self.reason)

    def tell(self) -> int:
        """The number to acknowledge; the other side is told now."""
        self.told = self.received
        self.owed_size = 0
        return self.received

    def receive_anew(self) -> None:
        """What comes from now on is of another session."""
        self.received = self.told = self.owed_size = 0


class Tokens:
    """A server's memory of the secrets that prove that a session is one's own.

    Both the token of a hello and the one it names next are good, until the client has
    shown that it knows the answer; then only the next is. So no lost answer can lock a
    client out, and a token that was overheard is soon worth nothing.

    Args:
        digest: Makes of a token what is kept of it.
        equal: Compares two of these in constant time.
    """

    __slots__ = ("_digest", "_equal", "_good")

    def __init__(
        self,
        digest: Callable[[bytes], bytes],
        equal: Callable[[bytes, bytes], bool],
        token: str,
        following: str,
    ) -> None:
        self._digest = digest
        self._equal = equal
        self._good: tuple[bytes, ...] = ()
        self.offer(token, following)

    def offer(self, token: str, following: str) -> None:
        """A hello came with these."""
        self._good = tuple(self._digest(each.encode()) for each in (token, following))

    def confirm(self) -> None:
        """The client has heard the answer: only the next token is good from now on."""
        self._good = self._good[-1:]

    def admits(self, token: str) -> bool:
        """Whether this is one of the good ones."""
        claimed = self._digest(token.encode())
        # Every one is looked at, so that the time tells nothing.
        return any([self._equal(claimed, good) for good in self._good])
