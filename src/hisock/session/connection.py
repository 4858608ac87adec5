"""One peer's conversation: the hello, messages, the goodbye, and their deadlines.

Pure rules. No sockets, no clock: every method that needs the time takes ``now``
(seconds of any monotonic clock).
"""

from __future__ import annotations

__all__ = ("LINGER", "Closed", "Connection", "Event", "Messages", "Opened")

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import length_hint
from typing import Final, TypeAlias

from hisock.errors import RemoteProtocolError
from hisock.session.states import Input, State, next_state
from hisock.types import Limits
from hisock.wire import classic
from hisock.wire.detect import detect
from hisock.wire.frames import Bye, Hello

#: Seconds that an ended connection is read on, so that the goodbye arrives: closing
#: a socket with unread bytes resets it, and a reset overtakes what was sent.
LINGER: Final = 1.0

_SILENT_END: Final = "the other side closed the connection"

#: Ends after which the other side still listens and should hear of it.
_SAYS_GOODBYE: Final = frozenset({Input.VIOLATION, Input.CLOSE})


@dataclass(frozen=True, slots=True)
class Opened:
    """The client said hello."""

    hello: Hello


class Messages:
    """What one read brought, in order.

    ``bodies`` may be shortened from the place where ``rest`` stands, never before.
    """

    __slots__ = ("_size", "bodies", "rest", "searched")

    def __init__(self, bodies: list[bytes]) -> None:
        self.bodies = bodies
        self.rest: Iterator[bytes] = iter(bodies)
        #: How many of the first bodies are known to have a handler.
        self.searched = 0
        self._size = -1

    @property
    def size(self) -> int:
        """Bytes of all bodies; counted when first asked for."""
        if self._size < 0:
            self._size = sum(map(len, self.bodies))
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        self._size = size

    @property
    def place(self) -> int:
        """Index of the next body that nobody has taken."""
        return len(self.bodies) - length_hint(self.rest)


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more comes.

    Attributes:
        reason: Why, for people.
        error: What the other side did wrong, if that is why.
    """

    reason: str
    error: RemoteProtocolError | None = None


Event: TypeAlias = Opened | Messages | Closed


class Connection:
    """What one side of a link knows about the conversation on it.

    Args:
        limits: The sizes and times that hold.
        now: The time at which the link was made, in seconds.
        header_len: Bytes of every header, for a client. A server leaves it out and
            learns it from the hello.
    """

    __slots__ = (
        "_by_client",
        "_decoder",
        "_hello",
        "_limits",
        "_out",
        "deadline",
        "feed",
        "header_len",
        "is_open",
        "state",
    )

    def __init__(
        self, limits: Limits, now: float, *, header_len: int | None = None
    ) -> None:
        self._limits = limits
        self._by_client = header_len is not None
        self._hello: classic.HelloReader | None = None
        self._decoder: classic.Decoder | None = None
        self._out = b""
        self.deadline: float | None = None
        self.header_len = header_len or 0
        #: Takes in what was read at a time, and tells what it means.
        self.feed: Callable[[bytes, float], list[Event]]
        #: Whether messages can be sent; the same as ``state is State.OPEN``.
        self.is_open = header_len is not None
        if header_len is None:
            self.state = State.HELLO
            self.feed = self._feed_hello
            self._hello = classic.HelloReader(limits.hello, limits.name)
            if limits.handshake:
                self.deadline = now + limits.handshake
        else:
            self.state = State.OPEN
            self.feed = self._feed_messages
            self._decoder = classic.Decoder(header_len, limits.message)

    @property
    def is_silent(self) -> bool:
        """Whether an unfinished handshake has not sent a byte yet."""
        return self._hello is not None and not len(self._hello)

    def _feed_nothing(self, data: bytes, now: float) -> list[Event]:
        return []

    def _feed_messages(self, data: bytes, now: float) -> list[Event]:
        decoder = self._decoder
        assert decoder is not None
        bodies: list[bytes] = []
        try:
            decoder.feed(data, bodies)
        except RemoteProtocolError as error:
            ended = self._end(Input.VIOLATION, now, Closed(str(error), error))
            return [Messages(bodies), *ended] if bodies else ended
        return [Messages(bodies)] if bodies else []

    def _feed_hello(self, data: bytes, now: float) -> list[Event]:
        reader = self._hello
        assert reader is not None
        try:
            if not len(reader) and detect(data) is None:
                raise RemoteProtocolError(f"no hisock client begins with {data[:16]!r}")
            complete = reader.feed(data)
        except RemoteProtocolError as error:
            return self._end(Input.VIOLATION, now, Closed(str(error), error))
        if complete is None:
            return []
        hello, self.header_len, rest = complete
        self.state = next_state(self.state, Input.HELLO)
        self.is_open = True
        self.deadline = None
        self._hello = None
        self.feed = self._feed_messages
        self._decoder = classic.Decoder(
            self.header_len, self._limits.message, bare_tokens=True
        )
        opened: list[Event] = [Opened(hello)]
        return opened + self._feed_messages(rest, now) if rest else opened

    def feed_eof(self, now: float, reason: str = _SILENT_END) -> list[Event]:
        """The other side sends no more; after its goodbye, or without one."""
        return self._end(Input.EOF, now, Closed(reason))

    def lost(self, reason: str, now: float) -> list[Event]:
        """The link broke."""
        return self._end(Input.LOST, now, Closed(reason))

    def close(self, reason: str, now: float) -> list[Event]:
        """End it from this side; the goodbye is then in ``take_bytes``."""
        return self._end(Input.CLOSE, now, Closed(reason))

    def tick(self, now: float) -> list[Event]:
        """Do what is due."""
        if self.deadline is None or now < self.deadline:
            return []
        waited = f"no complete hello within {self._limits.handshake:g} s"
        return self._end(Input.EXPIRED, now, Closed(waited))

    def take_bytes(self) -> bytes:
        """What the conversation itself has to send now: the goodbye, once."""
        out, self._out = self._out, b""
        return out

    def _end(self, happened: Input, now: float, closed: Closed) -> list[Event]:
        before = self.state
        if before is State.CLOSED:
            return []
        self.state = next_state(before, happened)
        self.is_open = False
        if before is State.OPEN and happened in _SAYS_GOODBYE:
            body = classic.encode_frame(Bye(by_client=self._by_client))
            self._out = classic.header(len(body), self.header_len) + body
        self.feed = self._feed_nothing
        self._decoder = None
        self._hello = None
        if self.state is State.CLOSED:
            self.deadline = None
        elif before is not State.CLOSING:
            self.deadline = now + LINGER
        return [] if before is State.CLOSING else [closed]
