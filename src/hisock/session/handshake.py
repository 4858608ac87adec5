"""How a conversation begins: the hello, who the client is, and which wire is spoken.

Pure rules. No sockets, no clock: every method that needs the time takes ``now``
(seconds of any monotonic clock). ``Connection`` goes on from here.
"""

from __future__ import annotations

__all__ = ("Handshake", "milliseconds")

from collections.abc import Callable
from typing import Any, Final

from hisock.errors import RemoteProtocolError, Unauthorized
from hisock.session.agreement import (
    CONFIRMATION,
    FirstFrame,
    Trial,
    hear_verdict,
    make_welcome,
    pack,
    refused,
    refused_by,
)
from hisock.session.events import Closed, Event, Messages, Opened, Presented
from hisock.session.requests import Requests
from hisock.session.resume import Session
from hisock.session.states import Input, State, next_state
from hisock.types import Limits
from hisock.wire import classic, compact
from hisock.wire.detect import Wire, detect
from hisock.wire.frames import (
    PROTO,
    Ack,
    Auth,
    Bye,
    Compact,
    Frame,
    Hello,
    NoTLS,
    Refusal,
    Welcome,
)

#: With these a server answers our hello, and settles which wire is spoken.
_ANSWERS: Final = (b"$WELCOME$", b"$NOTLS$", b"$REFUSED$")
#: A shorter classic header cannot hold the length of every welcome.
_SHORTEST_HEADER: Final = 4
_CUT: Final = "the server ended the connection for a while"


def milliseconds(now: float) -> int:
    """A point in time as the wire writes it."""
    return int(now * 1000)


class Handshake:
    """What one side of a link knows about the conversation on it.

    Args:
        limits: The sizes and times that hold.
        now: The time at which the link was made, in seconds.
        header_len: Bytes of every classic header, for a client. A server leaves it out
            and learns it from the hello.
        offers_compact: Whether this side speaks more than the classic wire.
        session: A client's, which its hello asks for or goes on with.
        dead_after: Seconds of silence after which the peer counts as gone; 0 for never.
        is_packed: Whether a client says all of it on the compact wire: on a WebSocket.

    Attributes:
        alpn: Tells what was named in a TLS handshake, once there was one.
        deadline: When ``tick`` is due.
        goodbye: What the peer said last, if it said goodbye.
        refusal: Why a server did not let this side in.
        feed: Takes in what was read at a time, and tells what it means.
        header_len: Bytes of every classic header.
        heard: When something was read last, or somebody began to listen.
        http: How this began, where it began as HTTP; for who upgrades it.
        idle_talk: Pings and pongs that came.
        is_agreed: Whether both sides know which wire is spoken.
        is_asked: Whether a server has asked for proof, and not given its verdict.
        is_guarded: Whether a client has to prove who it is.
        is_packed: Whether there is no classic wire before: on a WebSocket.
        is_open: Whether messages can be sent; the same as ``state is State.OPEN``.
        needs_attention: Whether ``take_bytes`` has something, or an end began.
        requests: Calls and streams; only on the compact wire.
        session: What goes on when the link does not; ``None`` if nothing does.
        pinged_at: When this side asked what was not answered yet.
        room: Where the next bytes belong if not into a buffer of their own; ``feed`` is
            then told how many came.
        round_trip: Seconds that the last answer to a ping took; ``None`` before.
        serves_http: Whether it may.
        state: Where the conversation stands.
        token: What a client proves with who it is.
        welcome: What the server answered, until somebody has looked at it.
        writes_compact: Whether what this side sends from now on is compact.
    """

    __slots__ = (
        "_by_client",
        "_classic",
        "_compact",
        "_dead_after",
        "_early",
        "_first",
        "_hello",
        "_limits",
        "_offers_compact",
        "_offset",
        "_out",
        "_asked_at",
        "_trial",
        "alpn",
        "deadline",
        "feed",
        "goodbye",
        "header_len",
        "heard",
        "http",
        "idle_talk",
        "is_agreed",
        "is_asked",
        "is_guarded",
        "is_open",
        "is_packed",
        "needs_attention",
        "pinged_at",
        "refusal",
        "requests",
        "room",
        "round_trip",
        "serves_http",
        "session",
        "state",
        "token",
        "welcome",
        "writes_compact",
    )

    alpn: Callable[[], str | None]
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
        is_packed: bool = False,
    ) -> None:
        self._limits = limits
        self._dead_after = dead_after
        self._early = 0
        self._asked_at = -1.0
        self.pinged_at: float | None = None
        self.round_trip: float | None = None
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
        self._trial: Trial | None = None
        self._first: FirstFrame | None = None
        self.token: str | None = None
        self.alpn = _not_encrypted
        self.is_packed, self.serves_http = is_packed, False
        self.http: bytes | None = None
        self.is_guarded = self.is_asked = False
        self.needs_attention = False
        self.deadline: float | None = None
        self.room: memoryview | None = None
        self.header_len = header_len or 0
        self.idle_talk = 0
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
        elif is_packed:
            self.state = State.OPEN
            self._await_verdict()
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

    def _feed_nothing(self, data: bytes, now: float) -> list[Event]:
        return []

    # --- the server's side ------------------------------------------------------------

    @property
    def is_stranger(self) -> bool:
        """Whether a server still waits for who this is, or for the proof of it."""
        if self.state is State.ASKED:
            return self._trial is not None and not self._trial.has_proof
        return self.state in (State.HELLO, State.UPGRADED)

    def _feed_hello(self, data: bytes, now: float) -> list[Event]:
        reader = self._hello
        assert reader is not None
        try:
            wire = Wire.CLASSIC if len(reader) else detect(data, self.alpn())
            if wire is None or (wire is Wire.HTTP and not self.serves_http):
                raise RemoteProtocolError(f"no hisock client begins with {data[:16]!r}")
            if wire is Wire.HTTP:
                self.http, self.needs_attention = data, True
                return []
            complete = reader.feed(data)
        except RemoteProtocolError as error:
            return self._end(Input.VIOLATION, now, Closed(str(error), error))
        if complete is None:
            return []
        hello, self.header_len, rest = complete
        if self.header_len < _SHORTEST_HEADER:
            hello = Hello(hello.name, hello.group)
        self.is_open = True
        self.deadline = None
        self._hello = None
        opened: list[Event] = [Opened(hello)]
        if self.is_guarded:
            return opened + self._begin_trial(hello, rest, now)
        self.state = next_state(self.state, Input.HELLO)
        self.feed = self._feed_classic
        self._classic = classic.Decoder(
            self.header_len, self._limits.message, bare_tokens=True
        )
        if hello.proto and self._offers_compact:
            self._classic.marks = CONFIRMATION
            self._learn_clock(hello.now, now)
        else:
            self.is_agreed = True
        return opened + self._feed_classic(rest, now) if rest else opened

    def _begin_trial(self, hello: Hello, rest: bytes, now: float) -> list[Event]:
        """Only keep what it says, until it has proved who it is."""
        self.state = next_state(self.state, Input.GUARD)
        expects_proof = bool(hello.proto and self._offers_compact)
        if expects_proof:
            self._learn_clock(hello.now, now)
        self._trial = Trial(
            hello, self.header_len, self._limits.message, expects_proof=expects_proof
        )
        self._trial.speaks_compact = self.is_packed
        self.feed = self._feed_asked
        return self._feed_asked(rest, now) if rest else []

    def _feed_asked(self, data: bytes, now: float) -> list[Event]:
        trial = self._trial
        assert trial is not None
        self.heard = now
        try:
            presented = trial.feed(data)
        except RemoteProtocolError as error:
            return self._end(Input.VIOLATION, now, Closed(str(error), error))
        if trial.has_left:
            return self.feed_goodbye("the client said goodbye", now)
        if presented is None:
            return []
        self.deadline = None
        return [presented]

    @property
    def early(self) -> int:
        """How many numbered messages came before the welcome."""
        return self._early if self._trial is None else self._trial.count

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
        if self._trial is not None:
            self._early = self._trial.count
        if session is not None and self._early:
            session.receive(self._early, 0, now)
        welcome = make_welcome(
            *(name, group, milliseconds(now), session),
            resumed=resumed,
            reason=reason,
        )
        if self._trial is None and not self.is_packed:
            self._say(welcome)
        else:
            self._out += pack(welcome)
            self.needs_attention = True
        self._write_compact()
        if self.is_packed and self._trial is None:
            self._read_compact()
            self._watch_silence()
            if session is not None:
                self.feed = self._feed_confirming

    def ask(self, now: float) -> list[Event]:
        """Have a client prove who it is, in answer to its hello.

        Returns:
            That it has nothing to prove it with, if it is one of 1.1.
        """
        trial = self._trial
        if trial is None or trial.is_asked or self.state is not State.ASKED:
            return []
        trial.is_asked = True
        if not trial.expects_proof:
            return [Presented(trial.hello, None)]
        asked = Welcome(PROTO, auth=True)
        if self.is_packed:
            self._out += pack(asked)
            self.needs_attention = True
        else:
            self._say(asked)
        self.writes_compact = True
        if self._limits.handshake:
            self.deadline = now + self._limits.handshake
        return []

    def judge(self, now: float) -> None:
        """The check has begun: it has to end in time."""
        assert self._trial is not None
        self._trial.is_judged = True
        if self._limits.authentication:
            self.deadline = now + self._limits.authentication

    def let_in(self, now: float) -> list[Event]:
        """The proof was good enough: what was said before counts now."""
        trial, self._trial = self._trial, None
        assert trial is not None
        self.state = next_state(self.state, Input.ADMIT)
        self.deadline = None
        events: list[Event] = [Messages(trial.bodies)] if trial.bodies else []
        if not trial.speaks_compact:
            self._classic = trial.decoder
            self._classic.largest = self._limits.message
            self.feed = self._feed_classic
            self.is_agreed = True
            return events
        self._read_compact()
        self._watch_silence()
        if rest := trial.rest():
            events += self.feed(rest, now)
        if self.is_open and self.session is not None:
            self.feed = self._feed_confirming
        return events

    def _feed_confirming(self, data: bytes | int, now: float) -> list[Event]:
        """The client has heard its welcome, as ``$COMPACT$`` shows elsewhere."""
        self.feed = self._feed_compact
        if self.session is not None and self.session.tokens is not None:
            self.session.tokens.confirm()
        return self._feed_compact(data, now)

    def refuse(self, refusal: Refusal, now: float) -> list[Event]:
        """Do not serve a client that would have had a welcome."""
        if self.is_open and not self.is_packed:
            self._say(refusal)
        elif self.is_open:
            self._out += compact.encode(refused_by(refusal))
        return self._end(Input.CLOSE, now, Closed(refusal.text), silently=True)

    def _give_up(self, trial: Trial, now: float) -> list[Event]:
        """There is no proof, or no verdict on it; only that is final."""
        if trial.is_judged:
            late = f"the check took more than {self._limits.authentication:g} s"
            closed = Closed(late, Unauthorized(late))
            bye = Bye(3, "the check took too long")
            return self._end(Input.CLOSE, now, closed, bye=bye)
        late = f"no proof came within {self._limits.handshake:g} s"
        return self.close(late, now, Bye(20, late, 0))

    # --- the client's side ------------------------------------------------------------

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
            case Refusal():
                return self._hear_refusal(frame, now)
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
        if welcome.auth:
            self._prove()
            return
        if self.session is not None and welcome.sid not in ("", self.session.sid):
            raise RemoteProtocolError("the welcome is for another session")
        if self.session is not None and not welcome.resumed:
            self.session.receive_anew()
        self._learn_clock(welcome.now, now)
        if not (self.is_asked or self.is_packed):
            self._say(Compact())
        elif welcome.sid:  # shows that it was heard, as ``$COMPACT$`` does elsewhere
            self._out += compact.encode(Ack(0))
        self.needs_attention = True
        self.is_asked = False
        self._write_compact()
        self._read_compact()
        self._watch_silence()
        self.welcome = welcome

    def _prove(self) -> None:
        """The server wants to know first who this is."""
        if self.is_asked:
            raise RemoteProtocolError("the server asked twice for proof")
        if not self.is_packed:
            self._say(Compact())
        self._out += compact.encode(Auth(self.token))
        self.needs_attention = True
        self.is_asked = self.writes_compact = True
        self._classic = None
        self._await_verdict()

    def _await_verdict(self) -> None:
        self._first = FirstFrame()
        self.feed = self._feed_verdict

    def _feed_verdict(self, data: bytes, now: float) -> list[Event]:
        """What the server says of the proof, before all else."""
        assert self._first is not None
        try:
            body = self._first.feed(data)
            if body is None:
                return []
            verdict = hear_verdict(body)
            if isinstance(verdict, Welcome):
                rest = self._first.rest()
                self._accept(verdict, now)
                return self.feed(rest, now) if rest else []
        except RemoteProtocolError as error:
            return self._end(Input.VIOLATION, now, Closed(str(error), error))
        if isinstance(verdict, Refusal):
            return self._hear_refusal(verdict, now)
        self.goodbye = verdict
        return self.lost(verdict.text or _CUT, now)

    def _hear_refusal(self, refusal: Refusal, now: float) -> list[Event]:
        self.refusal = refusal
        reason = f"refused: {refusal.text}"
        return self._end(Input.EOF, now, Closed(reason, refused(refusal)))

    # --- both sides -------------------------------------------------------------------

    def _watch_silence(self) -> None:
        """From now on silence is noticed."""
        if self._dead_after:
            self.deadline = self.heard + self._dead_after / 2

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

    def _say(self, frame: Frame) -> None:
        body = classic.encode_frame(frame, by_client=self._by_client)
        self._out += classic.header(len(body), self.header_len) + body
        self.needs_attention = True

    # --- what comes after the handshake -----------------------------------------

    def _feed_classic(self, data: bytes, now: float) -> list[Event]:
        raise NotImplementedError

    def _feed_compact(self, data: bytes | int, now: float) -> list[Event]:
        raise NotImplementedError

    def _end(
        self,
        happened: Input,
        now: float,
        closed: Closed,
        *,
        bye: Bye | None = None,
        silently: bool = False,
    ) -> list[Event]:
        raise NotImplementedError

    def feed_goodbye(self, reason: str, now: float) -> list[Event]:
        """The other side said goodbye, and sends no more."""
        raise NotImplementedError

    def lost(self, reason: str, now: float) -> list[Event]:
        """The link broke."""
        raise NotImplementedError

    def close(self, reason: str, now: float, bye: Bye | None = None) -> list[Event]:
        """End it from this side; the goodbye is then in ``take_bytes``."""
        raise NotImplementedError


def _not_encrypted() -> str | None:
    """Nothing was named."""
    return None
