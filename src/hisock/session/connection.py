"""One peer's conversation: hello, which wire, messages, goodbye, and their deadlines.

Pure rules. No sockets, no clock: every method that needs the time takes ``now``
(seconds of any monotonic clock).
"""

from __future__ import annotations

__all__ = (
    "LINGER",
    "Closed",
    "Connection",
    "Event",
    "Messages",
    "Opened",
    "milliseconds",
)

from collections.abc import Callable, Iterator
from operator import length_hint
from typing import Any, Final, TypeAlias

from hisock.errors import HiSockError, Refused, RemoteProtocolError, SessionLost
from hisock.session.requests import Requests
from hisock.session.states import Input, State, next_state
from hisock.types import Limits
from hisock.wire import classic, compact
from hisock.wire.detect import detect
from hisock.wire.frames import (
    PROTO,
    Ack,
    Bye,
    Compact,
    Frame,
    Hello,
    NoTLS,
    Ping,
    Pong,
    Refusal,
    Request,
    Value,
    Welcome,
)

#: Seconds that an ended connection is read on, so that the goodbye arrives: closing
#: a socket with unread bytes resets it, and a reset overtakes what was sent.
LINGER: Final = 1.0

_SILENT_END: Final = "the other side closed the connection"

#: Ends after which the other side still listens and should hear of it.
_SAYS_GOODBYE: Final = frozenset({Input.VIOLATION, Input.CLOSE})

#: With these a server answers our hello, and settles which wire is spoken.
_ANSWERS: Final = (b"$WELCOME$", b"$NOTLS$", b"$REFUSED$")
_CONFIRMATION: Final = (b"$COMPACT$",)
#: Milliseconds that a deadline is forgiven: clocks are read at different moments.
_SLACK_MS: Final = 1
#: A shorter classic header cannot hold the length of every welcome.
_SHORTEST_HEADER: Final = 4


def milliseconds(now: float) -> int:
    """A point in time as the wire writes it."""
    return int(now * 1000)


class Opened(Value, frozen=True):
    """The client said hello."""

    hello: Hello


class Messages:
    """What one read brought, in order.

    ``bodies`` may be shortened from the place where ``rest`` stands, never before.

    Attributes:
        bodies: Bodies of the classic wire, or frames of the compact one.
        rest: Those that nobody has taken yet.
        is_packed: Whether they are frames of the compact wire.
    """

    __slots__ = ("_size", "bodies", "is_packed", "rest", "searched")

    def __init__(self, bodies: list[bytes], *, is_packed: bool = False) -> None:
        self.bodies = bodies
        self.is_packed = is_packed
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


class Closed(Value, frozen=True):
    """Nothing more comes.

    Attributes:
        reason: Why, for people.
        error: What the other side did wrong, if that is why.
    """

    reason: str
    error: HiSockError | None = None


Event: TypeAlias = Opened | Messages | Closed


class Connection:
    """What one side of a link knows about the conversation on it.

    Args:
        limits: The sizes and times that hold.
        now: The time at which the link was made, in seconds.
        header_len: Bytes of every classic header, for a client. A server leaves it out
            and learns it from the hello.
        offers_compact: Whether this side speaks more than the classic wire.

    Attributes:
        deadline: When ``tick`` is due.
        feed: Takes in what was read at a time, and tells what it means.
        header_len: Bytes of every classic header.
        is_agreed: Whether both sides know which wire is spoken.
        is_open: Whether messages can be sent; the same as ``state is State.OPEN``.
        needs_attention: Whether ``take_bytes`` has something, or an end began.
        requests: Calls and streams; only on the compact wire.
        room: Where the next bytes belong if not into a buffer of their own; ``feed`` is
            then told how many came.
        state: Where the conversation stands.
        writes_compact: Whether what this side sends from now on is compact.
    """

    __slots__ = (
        "_by_client",
        "_classic",
        "_compact",
        "_hello",
        "_limits",
        "_offers_compact",
        "_offset",
        "_out",
        "deadline",
        "feed",
        "header_len",
        "is_agreed",
        "is_open",
        "needs_attention",
        "requests",
        "room",
        "state",
        "writes_compact",
    )

    feed: Callable[[Any, float], list[Event]]

    def __init__(
        self,
        limits: Limits,
        now: float,
        *,
        header_len: int | None = None,
        offers_compact: bool = True,
    ) -> None:
        self._limits = limits
        self._by_client = header_len is not None
        self._offers_compact = offers_compact
        self._hello: classic.HelloReader | None = None
        self._classic: classic.Decoder | None = None
        self._compact: compact.Decoder | None = None
        self._out = b""
        self._offset: int | None = None
        self.needs_attention = False
        self.deadline: float | None = None
        self.room: memoryview | None = None
        self.header_len = header_len or 0
        self.is_agreed = False
        self.writes_compact = False
        self.requests: Requests | None = None
        self.is_open = header_len is not None
        if header_len is None:
            self.state = State.HELLO
            self.feed = self._feed_hello
            self._hello = classic.HelloReader(limits.hello, limits.name)
            if limits.handshake:
                self.deadline = now + limits.handshake
        else:
            self.state = State.OPEN
            self.feed = self._feed_classic
            self._classic = classic.Decoder(header_len, limits.message)
            self._classic.marks = _ANSWERS if offers_compact else None
            self.is_agreed = not offers_compact

    @property
    def is_silent(self) -> bool:
        """Whether an unfinished handshake has not sent a byte yet."""
        return self._hello is not None and not len(self._hello)

    def is_expired(self, ttl: int | None, now: float) -> bool:
        """Whether a deadline on the peer's clock is over."""
        if ttl is None or self._offset is None:
            return False
        return ttl + self._offset + _SLACK_MS < milliseconds(now)

    # --- what comes ----------------------------------------------------------------

    def _feed_nothing(self, data: bytes, now: float) -> list[Event]:
        return []

    def _feed_classic(self, data: bytes, now: float) -> list[Event]:
        decoder = self._classic
        assert decoder is not None
        bodies: list[bytes] = []
        try:
            rest = decoder.feed(data, bodies)
        except RemoteProtocolError as error:
            ended = self._end(Input.VIOLATION, now, Closed(str(error), error))
            return [Messages(bodies), *ended] if bodies else ended
        if rest is not None:
            return self._feed_mark(bodies, rest, now)
        return [Messages(bodies)] if bodies else []

    def _feed_mark(self, bodies: list[bytes], rest: bytes, now: float) -> list[Event]:
        """The last body settles which wire the peer writes from here on."""
        mark = bodies.pop()
        before: list[Event] = [Messages(bodies)] if bodies else []
        try:
            frame = classic.decode_control(mark, by_client=not self._by_client)
            ended = self._agree(frame, now)
        except RemoteProtocolError as error:
            ended = self._end(Input.VIOLATION, now, Closed(str(error), error))
        if ended:
            return [*before, *ended]
        return [*before, *self.feed(rest, now)] if rest else before

    def _agree(self, frame: Frame | None, now: float) -> list[Event]:
        """Switch to what the peer's mark announces."""
        match frame:
            case Welcome(proto, _, _, their_now):
                if proto != PROTO:
                    raise RemoteProtocolError(
                        f"the server chose version {proto} of the compact wire; "
                        f"this client speaks {PROTO}"
                    )
                self._learn_clock(their_now, now)
                self._say(Compact())
                self._write_compact()
                self._read_compact()
            case Compact():
                if not self.writes_compact:
                    raise RemoteProtocolError("$COMPACT$ came before the welcome")
                self._read_compact()
            case Refusal(code, text, _):
                error = Refused(text, code=code)
                return self._end(Input.EOF, now, Closed(f"refused: {text}", error))
            case _:
                assert isinstance(frame, NoTLS)  # the last of the marks
                assert self._classic is not None
                self._classic.marks = None
                self.is_agreed = True
        return []

    def _read_compact(self) -> None:
        self._classic = None
        self._compact = compact.Decoder(self._limits.message)
        self.feed = self._feed_compact
        self.is_agreed = True

    def _write_compact(self) -> None:
        self.writes_compact = True
        self.requests = Requests(by_client=self._by_client, limit=self._limits.requests)

    def _learn_clock(self, their_now: int, now: float) -> None:
        offset = milliseconds(now) - their_now
        # The smallest seen errs only towards late.
        if self._offset is None or offset < self._offset:
            self._offset = offset

    def _feed_compact(self, data: bytes | int, now: float) -> list[Event]:
        decoder = self._compact
        assert decoder is not None
        frames: list[bytes] = []
        at_once: list[bytes] = []
        ended: list[Event] = []
        try:
            try:
                decoder.feed(data, frames, at_once)
            finally:
                if at_once:
                    self._act(at_once)
        except RemoteProtocolError as error:
            ended = self._end(Input.VIOLATION, now, Closed(str(error), error))
        else:
            self.room = decoder.room
        if frames:
            return [Messages(frames, is_packed=True), *ended]
        return ended

    def _act(self, frames: list[bytes]) -> None:
        """Replies, credit and pings never wait behind handlers; requests do, but are
        known at once."""
        requests = self.requests
        assert requests is not None
        pongs: list[bytes] = []
        for body in frames:
            match compact.decode(body):
                case Ping(n):
                    pongs.append(compact.encode(Pong(n)))
                case Pong() | Ack():
                    pass
                case Request() as request:
                    requests.announce(request)
                case frame:
                    requests.feed(frame)  # type: ignore[arg-type]  # these kinds alone
        if pongs:
            self._out += b"".join(pongs)
            self.needs_attention = True

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
        if self.header_len < _SHORTEST_HEADER:
            hello = Hello(hello.name, hello.group)
        self.state = next_state(self.state, Input.HELLO)
        self.is_open = True
        self.deadline = None
        self._hello = None
        self.feed = self._feed_classic
        self._classic = classic.Decoder(
            self.header_len, self._limits.message, bare_tokens=True
        )
        if hello.proto and self._offers_compact:
            self._classic.marks = _CONFIRMATION
            self._learn_clock(hello.now, now)
        else:
            self.is_agreed = True
        opened: list[Event] = [Opened(hello)]
        return opened + self._feed_classic(rest, now) if rest else opened

    def feed_eof(self, now: float, reason: str = _SILENT_END) -> list[Event]:
        """The other side sends no more; after its goodbye, or without one."""
        return self._end(Input.EOF, now, Closed(reason))

    # --- what goes -----------------------------------------------------------------

    def welcome(self, hello: Hello, now: float) -> None:
        """Serve a client on the compact wire, in answer to its hello."""
        if not self.is_open:  # it ended in the same read
            return
        name, group = hello.name, hello.group
        self._say(Welcome(PROTO, name, group, milliseconds(now)))
        self._write_compact()

    def refuse(self, refusal: Refusal, now: float) -> list[Event]:
        """Do not serve a client that would have had a welcome."""
        if self.is_open:
            self._say(refusal)
        return self._end(Input.CLOSE, now, Closed(refusal.text), silently=True)

    def lost(self, reason: str, now: float) -> list[Event]:
        """The link broke."""
        return self._end(Input.LOST, now, Closed(reason))

    def close(self, reason: str, now: float, bye: Bye | None = None) -> list[Event]:
        """End it from this side; the goodbye is then in ``take_bytes``."""
        return self._end(Input.CLOSE, now, Closed(reason), bye=bye)

    def tick(self, now: float) -> list[Event]:
        """Do what is due."""
        if self.deadline is None or now < self.deadline:
            return []
        waited = f"no complete hello within {self._limits.handshake:g} s"
        return self._end(Input.EXPIRED, now, Closed(waited))

    def take_bytes(self) -> bytes:
        """What the conversation itself has to send now; once."""
        out, self._out = self._out, b""
        return out

    def _say(self, frame: Frame) -> None:
        body = classic.encode_frame(frame, by_client=self._by_client)
        self._out += classic.header(len(body), self.header_len) + body
        self.needs_attention = True

    def _end(
        self,
        happened: Input,
        now: float,
        closed: Closed,
        *,
        bye: Bye | None = None,
        silently: bool = False,
    ) -> list[Event]:
        before = self.state
        if before is State.CLOSED:
            return []
        self.state = next_state(before, happened)
        self.is_open = False
        if before is State.OPEN and happened in _SAYS_GOODBYE and not silently:
            bye = bye or _bye_for(happened, closed)
            if self.writes_compact:
                self._out += compact.encode(bye)
            else:
                self._say(bye)
        self.needs_attention = True
        self.feed = self._feed_nothing
        self._classic = self._compact = self._hello = self.room = None
        if self.requests is not None:
            self.requests.fail_all(SessionLost(f"no answer came: {closed.reason}"))
        if self.state is State.CLOSED:
            self.deadline = None
        elif before is not State.CLOSING:
            self.deadline = now + LINGER
        return [] if before is State.CLOSING else [closed]


def _bye_for(happened: Input, closed: Closed) -> Bye:
    """The goodbye on the compact wire: its code, and the reason in short."""
    text = closed.reason[:1024].encode(errors="replace").decode()
    return Bye(5 if happened is Input.VIOLATION else 0, text)
