"""One peer's conversation: hello, which wire, messages, goodbye, and their deadlines.

Pure rules. No sockets, no clock: every method that needs the time takes ``now``
(seconds of any monotonic clock).
"""

from __future__ import annotations

__all__ = (
    "LINGER",
    "Connection",
    "milliseconds",
)

from collections.abc import Callable
from typing import Any, Final

from hisock.errors import Refused, RemoteProtocolError, SessionLost
from hisock.session.events import Closed, Event, Messages, Opened
from hisock.session.requests import Requests
from hisock.session.resume import Session
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
#: What a client says on the classic wire that has no number.
_NOT_NUMBERED: Final = frozenset(
    (b"$COMPACT$", b"$DH_NUMS$", b"$USRCLOSE$", b"$USRCLOSE$ ")
)
#: Milliseconds that a deadline is forgiven: clocks are read at different moments.
_SLACK_MS: Final = 1
_BYE: Final = 35
#: Goodbyes of the classic wire.
_FAREWELLS: Final = frozenset((b"$DISCONN$", b"$USRCLOSE$"))
#: The numbers of pings are as small as is enough to tell them apart.
_PING_RANGE: Final = 2**16
#: A shorter classic header cannot hold the length of every welcome.
_SHORTEST_HEADER: Final = 4


def milliseconds(now: float) -> int:
    """A point in time as the wire writes it."""
    return int(now * 1000)


class Connection:
    """What one side of a link knows about the conversation on it.

    Args:
        limits: The sizes and times that hold.
        now: The time at which the link was made, in seconds.
        header_len: Bytes of every classic header, for a client. A server leaves it out
            and learns it from the hello.
        offers_compact: Whether this side speaks more than the classic wire.
        session: A client's, which its hello asks for or goes on with.
        dead_after: Seconds of silence after which the peer counts as gone; 0 for never.

    Attributes:
        deadline: When ``tick`` is due.
        goodbye: What the peer said last, if it said goodbye.
        refusal: Why a server did not let this side in.
        feed: Takes in what was read at a time, and tells what it means.
        header_len: Bytes of every classic header.
        heard: When something was read last, or somebody began to listen.
        is_agreed: Whether both sides know which wire is spoken.
        is_open: Whether messages can be sent; the same as ``state is State.OPEN``.
        needs_attention: Whether ``take_bytes`` has something, or an end began.
        requests: Calls and streams; only on the compact wire.
        session: What goes on when the link does not; ``None`` if nothing does.
        room: Where the next bytes belong if not into a buffer of their own; ``feed`` is
            then told how many came.
        state: Where the conversation stands.
        welcome: What the server answered, until somebody has looked at it.
        writes_compact: Whether what this side sends from now on is compact.
    """

    __slots__ = (
        "_by_client",
        "_classic",
        "_compact",
        "_dead_after",
        "_early",
        "_hello",
        "_limits",
        "_offers_compact",
        "_offset",
        "_out",
        "_pinged",
        "deadline",
        "feed",
        "goodbye",
        "header_len",
        "heard",
        "is_agreed",
        "is_open",
        "needs_attention",
        "refusal",
        "requests",
        "room",
        "session",
        "state",
        "welcome",
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
        session: Session | None = None,
        dead_after: float = 0.0,
    ) -> None:
        self._limits = limits
        self._dead_after = dead_after
        self._early = 0
        self._pinged = False
        self.heard = now
        self.session = session
        self.welcome: Welcome | None = None
        self.goodbye: Bye | None = None
        self.refusal: Refusal | None = None
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

    def _feed_closing(self, data: bytes | int, now: float) -> list[Event]:
        """After the goodbye only what was taken in before it still counts."""
        assert self._compact is not None
        assert self.session is not None
        at_once: list[bytes] = []
        try:
            self._compact.feed(data, [], at_once)
            for body in at_once:
                if isinstance(frame := compact.decode(body), Ack):
                    self.session.replay.acknowledge(frame.number)
        except RemoteProtocolError:
            self.feed = self._feed_nothing
        self.room = self._compact.room
        return []

    def _feed_classic(self, data: bytes, now: float) -> list[Event]:
        decoder = self._classic
        assert decoder is not None
        bodies: list[bytes] = []
        is_early = decoder.marks is _CONFIRMATION
        try:
            rest = decoder.feed(data, bodies)
        except RemoteProtocolError as error:
            ended = self._end(Input.VIOLATION, now, Closed(str(error), error))
            return [Messages(bodies), *ended] if bodies else ended
        self.heard = now
        if is_early:
            self._count_early(bodies)
        if bodies and bodies[-1] in _FAREWELLS:
            self.goodbye = Bye()
        if rest is not None:
            return self._feed_mark(bodies, rest, now)
        return [Messages(bodies)] if bodies else []

    def _count_early(self, bodies: list[bytes]) -> None:
        """What a client of ours says before it has read the welcome counts, too."""
        count = sum(body not in _NOT_NUMBERED for body in bodies)
        if self.session is None:
            self._early += count
        elif count:
            self.session.receive(count, 0, self.heard)

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
            case Welcome():
                self._accept(frame, now)
            case Compact():
                if not self.writes_compact:
                    raise RemoteProtocolError("$COMPACT$ came before the welcome")
                self._read_compact()
                self._watch_silence()
                if self.session is not None and self.session.tokens is not None:
                    self.session.tokens.confirm()
            case Refusal(code, text, _):
                self.refusal = frame
                error = Refused(text, code=code)
                return self._end(Input.EOF, now, Closed(f"refused: {text}", error))
            case _:
                assert isinstance(frame, NoTLS)  # the last of the marks
                assert self._classic is not None
                self._classic.marks = None
                self.is_agreed = True
                self.session = None
                self.needs_attention = True
        return []

    def _accept(self, welcome: Welcome, now: float) -> None:
        """The server has answered: from here on both sides write compact."""
        if welcome.proto != PROTO:
            raise RemoteProtocolError(
                f"the server chose version {welcome.proto} of the compact wire; "
                f"this client speaks {PROTO}"
            )
        if self.session is not None and welcome.sid not in ("", self.session.sid):
            raise RemoteProtocolError("the welcome is for another session")
        if self.session is not None and not welcome.resumed:
            self.session.receive_anew()
        self._learn_clock(welcome.now, now)
        self._say(Compact())
        self._write_compact()
        self._read_compact()
        self._watch_silence()
        self.welcome = welcome

    def _watch_silence(self) -> None:
        """From now on silence is noticed."""
        if self._dead_after:
            part = 2 if self._by_client else 1
            self.deadline = self.heard + self._dead_after / part

    def _read_compact(self) -> None:
        self._classic = None
        self._compact = compact.Decoder(self._limits.message)
        self.feed = self._feed_compact
        self.is_agreed = True

    def _write_compact(self) -> None:
        self.writes_compact = True
        if self.requests is None:
            self.new_requests()

    def new_requests(self) -> None:
        """Nothing is asked yet."""
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
            self.heard = now
            if (session := self.session) is not None:
                count = len(frames) + len(at_once) - decoder.beside
                size = data if isinstance(data, int) else len(data)
                if session.receive(count, size, now):
                    self.acknowledge()
            if decoder.beside and frames:
                self._note_goodbye(frames[-1])
            decoder.beside = 0
        if frames:
            return [Messages(frames, is_packed=True), *ended]
        return ended

    def _note_goodbye(self, frame: bytes) -> None:
        """Whether the peer comes back is known before its goodbye has its turn."""
        if compact.kind_of(frame) == _BYE:
            try:
                said = compact.decode(frame)
            except RemoteProtocolError:
                return  # as its turn will show
            assert isinstance(said, Bye)
            self.goodbye = said

    def acknowledge(self) -> None:
        """Tell the peer what came, if it was not told yet."""
        session = self.session
        may = self.is_open and self.writes_compact
        if session is not None and session.owes and may:
            self._out += compact.encode(Ack(session.tell()))
            self.needs_attention = True

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
                case Pong():
                    pass
                case Ack(number):
                    if self.session is not None:
                        self.session.replay.acknowledge(number)
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
        """The other side sends no more, and said nothing of it."""
        if self.has_goodbye:
            return self._end(Input.EOF, now, Closed(reason))
        if self.session is not None:  # it will be back, on another link
            return self.lost(reason, now)
        return self._end(Input.EOF, now, Closed(reason, is_cut=True))

    @property
    def has_goodbye(self) -> bool:
        """Whether the peer said that it does not come back."""
        return self.goodbye is not None and self.goodbye.retry_ms is None

    def feed_goodbye(self, reason: str, now: float) -> list[Event]:
        """The other side said goodbye, and sends no more."""
        self.acknowledge()
        return self._end(Input.EOF, now, Closed(reason))

    # --- what goes -----------------------------------------------------------------

    def serve(
        self,
        name: str | None,
        group: str | None,
        now: float,
        *,
        session: Session | None = None,
        resumed: bool = False,
        reason: str = "",
        requests: Requests | None = None,
        beats: bool = True,
    ) -> None:
        """Welcome a client on the compact wire, in answer to its hello.

        Args:
            name, group: Who it is from now on.
            session: What goes on if the link is cut.
            resumed: Whether the session goes on from an earlier link, with these
                ``requests``.
            reason: As in the welcome.
            beats: Whether the client's silence means that it is gone.
        """
        if not self.is_open:  # it ended in the same read
            return
        self.session = session
        self.requests = requests
        if not beats:
            self._dead_after = 0.0
        welcome = Welcome(PROTO, name, group, milliseconds(now))
        if session is not None:
            if self._early:
                session.receive(self._early, 0, now)
            welcome = Welcome(
                *(PROTO, name, group, milliseconds(now)),
                sid=session.sid,
                epoch=session.epoch,
                got=session.tell(),
                resumed=resumed,
                reason=reason,
                window=session.window,
            )
        self._say(welcome)
        self._write_compact()

    def refuse(self, refusal: Refusal, now: float) -> list[Event]:
        """Do not serve a client that would have had a welcome."""
        if self.is_open:
            self._say(refusal)
        return self._end(Input.CLOSE, now, Closed(refusal.text), silently=True)

    def lost(self, reason: str, now: float) -> list[Event]:
        """The link broke."""
        is_cut = not self.has_goodbye
        return self._end(Input.LOST, now, Closed(reason, is_cut=is_cut))

    def close(self, reason: str, now: float, bye: Bye | None = None) -> list[Event]:
        """End it from this side; the goodbye is then in ``take_bytes``."""
        return self._end(Input.CLOSE, now, Closed(reason), bye=bye)

    def tick(self, now: float) -> list[Event]:
        """Do what is due."""
        if self.deadline is None or now < self.deadline:
            return []
        if self.state is State.OPEN:
            return self._check_silence(now)
        waited = f"no complete hello within {self._limits.handshake:g} s"
        return self._end(Input.EXPIRED, now, Closed(waited))

    def _check_silence(self, now: float) -> list[Event]:
        """A client asks whether somebody is there, and after as long again gives up; a
        server gives up a client that asks when all is silent."""
        gone_at = self.heard + self._dead_after
        if now >= gone_at:
            return self.lost(f"nothing came for {self._dead_after:g} s", now)
        self.deadline = gone_at
        if self._by_client:
            ask_at = self.heard + self._dead_after / 2
            if now < ask_at:
                self._pinged = False
                self.deadline = ask_at
            elif not self._pinged:
                self._pinged = True
                self._out += compact.encode(Ping(milliseconds(now) % _PING_RANGE))
                self.needs_attention = True
        return []

    def listen_anew(self, now: float) -> None:
        """Nobody read for a while: silence counts from now on."""
        self.heard = now
        self._pinged = False
        if self.state is State.OPEN and self.deadline is not None:
            self._watch_silence()

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
            session = self.session
            if session is not None and session.owes and self.writes_compact:
                self._out += compact.encode(Ack(session.tell()))
            bye = bye or _bye_for(happened, closed)
            if self.writes_compact:
                self._out += compact.encode(bye)
            else:
                self._say(bye)
        self.needs_attention = True
        self.feed = self._feed_nothing
        if self._compact is not None and self.session is not None:
            self.feed = self._feed_closing
        self._classic = self._hello = None
        if self.requests is not None and not (closed.is_cut and self.session):
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
