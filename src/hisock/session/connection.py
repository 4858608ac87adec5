"""One peer's conversation: its messages, goodbye, and their deadlines.

Pure rules. No sockets, no clock: every method that needs the time takes ``now``
(seconds of any monotonic clock).
"""

from __future__ import annotations

__all__ = (
    "LINGER",
    "Connection",
    "milliseconds",
)

from typing import Final

from hisock.errors import RemoteProtocolError, SessionLost
from hisock.session.agreement import CONFIRMATION, count_numbered, end_by
from hisock.session.events import Closed, Event, Messages
from hisock.session.handshake import milliseconds
from hisock.session.packed import PackedHandshake
from hisock.session.states import Input, State, next_state
from hisock.wire import compact
from hisock.wire.frames import Ack, Bye, Ping, Pong, Reply, Request

#: Seconds that an ended connection is read on, so that the goodbye arrives: closing
#: a socket with unread bytes resets it, and a reset overtakes what was sent.
LINGER: Final = 1.0

_SILENT_END: Final = "the other side closed the connection"

#: Ends after which the other side still listens and should hear of it.
_SAYS_GOODBYE: Final = frozenset({Input.VIOLATION, Input.CLOSE, Input.EXPIRED})
_LISTENS: Final = frozenset({State.UPGRADED, State.ASKED, State.OPEN})

#: Milliseconds that a deadline is forgiven: clocks are read at different moments.
_SLACK_MS: Final = 1
_BYE: Final = 35
#: Codes of goodbyes; see ``docs/wire.md``.
_CLOSED: Final = 0
_VIOLATION: Final = 5
_TOO_LARGE: Final = 6
_SILENT: Final = 20
#: Goodbyes of the classic wire.
_FAREWELLS: Final = frozenset((b"$DISCONN$", b"$USRCLOSE$"))
_LONGEST_FAREWELL: Final = max(map(len, _FAREWELLS))
#: The numbers of pings are as small as is enough to tell them apart.
_PING_RANGE: Final = 2**16


class Connection(PackedHandshake):
    """What one side of a link knows about the conversation on it; see ``Handshake``."""

    __slots__ = ()

    def is_expired(self, ttl: int | None, now: float) -> bool:
        """Whether a deadline on the peer's clock is over."""
        if ttl is None or self._offset is None:
            return False
        # ``milliseconds`` in place (bench/calls.py).
        return ttl + self._offset + _SLACK_MS < int(now * 1000)

    # --- what comes ----------------------------------------------------------------

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
        return []

    def _feed_classic(self, data: bytes, now: float) -> list[Event]:
        decoder = self._classic
        assert decoder is not None
        bodies: list[bytes] = []
        marks = decoder.marks
        try:
            rest = decoder.feed(data, bodies)
        except RemoteProtocolError as error:
            ended = self._end(Input.VIOLATION, now, Closed(str(error), error))
            return [Messages(bodies), *ended] if bodies else ended
        self.heard = now
        if marks is CONFIRMATION:
            self._count_early(bodies)
        # Without a hash of every body (bench/ping_pong.py).
        if bodies and len(bodies[-1]) <= _LONGEST_FAREWELL and bodies[-1] in _FAREWELLS:
            self.goodbye = Bye()
        if rest is not None:
            return self._feed_mark(bodies, rest, now)
        return [Messages(bodies)] if bodies else []

    def _count_early(self, bodies: list[bytes]) -> None:
        """What a client of ours says before it has read the welcome counts, too."""
        count = count_numbered(bodies)
        if self.session is None:
            self._early += count
        elif count:
            self.session.receive(count, 0, self.heard)

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
                    self._act(at_once, now)
        except RemoteProtocolError as error:
            ended = self._end(Input.VIOLATION, now, Closed(str(error), error))
        else:
            filling = decoder.filling
            self.room = None if filling is None else filling.room
            self.heard = now
            if (session := self.session) is not None:
                count = len(frames) + len(at_once) - decoder.beside - decoder.twice
                size = data if isinstance(data, int) else len(data)
                is_amid = self.room is not None
                if session.receive(count, size, now, is_amid=is_amid):
                    self.acknowledge(again=True)
            if decoder.beside and frames:
                self._note_goodbye(frames[-1])
            decoder.beside = decoder.twice = 0
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

    def acknowledge(self, *, again: bool = False) -> None:
        """Tell the peer what came, if it was not told yet, or again."""
        session = self.session
        may = self.is_open and self.writes_compact
        if session is not None and (again or session.owes) and may:
            self._out += compact.encode(Ack(session.tell()))
            self.needs_attention = True

    def _act(self, frames: list[bytes], now: float) -> None:
        """Replies, credit and pings never wait behind handlers; requests do, but are
        known at once."""
        requests = self.requests
        assert requests is not None
        asked: int | None = None
        for body in frames:
            try:
                frame = compact.DECODE(body)
            except compact.MALFORMED as error:
                raise compact.malformed(error) from error
            match frame:
                case Reply():  # first what is frequent (bench/calls.py)
                    requests.feed(frame)
                case Request():
                    requests.announce(frame)
                case Ping(n):
                    asked = n
                    self.idle_talk += 1
                case Pong(number):
                    self.idle_talk += 1
                    self._note_answer(number, now)
                case Ack(number):  # not counted: what we send asks for it
                    if self.session is not None:
                        self.session.replay.acknowledge(number)
                case _:
                    requests.feed(frame)  # type: ignore[arg-type]  # these kinds alone
        if asked is not None:  # who asks a thousand times at once is answered once
            self._out += compact.encode(Pong(asked))
            self.needs_attention = True

    def feed_eof(self, now: float, reason: str = _SILENT_END) -> list[Event]:
        """The other side sends no more, whatever it said before."""
        if self.has_goodbye:
            self.acknowledge()
            return self._end(Input.EOF, now, self._why("the other side said goodbye"))
        if self.session is not None:  # it will be back, on another link
            return self.lost(reason, now)
        return self._end(Input.EOF, now, self._why(reason))

    @property
    def has_goodbye(self) -> bool:
        """Whether the peer said that it does not come back."""
        return self.goodbye is not None and self.goodbye.retry_ms is None

    def feed_goodbye(self, reason: str, now: float) -> list[Event]:
        """The other side said goodbye, and sends no more."""
        self.acknowledge()
        return self._end(Input.EOF, now, Closed(reason))

    # --- what goes -----------------------------------------------------------------

    def lost(self, reason: str, now: float) -> list[Event]:
        """The link broke."""
        return self._end(Input.LOST, now, self._why(reason))

    def _why(self, reason: str) -> Closed:
        """Why the peer is gone. A server's goodbye knows best, though its turn may be
        still to come; what a stranger says is not repeated."""
        is_cut = not self.has_goodbye
        if self.goodbye is None or not self._by_client:
            return Closed(reason, is_cut=is_cut)
        return end_by(self.goodbye, is_cut=is_cut)

    def close(self, reason: str, now: float, bye: Bye | None = None) -> list[Event]:
        """End it from this side; the goodbye is then in ``take_bytes``."""
        return self._end(Input.CLOSE, now, Closed(reason), bye=bye)

    def tick(self, now: float) -> list[Event]:
        """Do what is due."""
        if self.deadline is None or now < self.deadline:
            return []
        if self.state is State.OPEN:
            return self._check_silence(now)
        if self._trial is not None:
            return self._give_up(self._trial, now)
        waited = f"no complete hello within {self._limits.handshake:g} s"
        return self._end(Input.EXPIRED, now, Closed(waited))

    def _check_silence(self, now: float) -> list[Event]:
        """Ask whether somebody is there, and after as long again give up. A server
        asks, too: its client may be more patient."""
        gone_at = self.heard + self._dead_after
        if now >= gone_at:
            return self.lost(f"nothing came for {self._dead_after:g} s", now)
        self.deadline = gone_at
        ask_at = self.heard + self._dead_after / 2
        if now < ask_at:
            self.deadline = ask_at
        elif self._asked_at != self.heard:  # since then nobody asked
            self._asked_at = self.heard
            self.ping(now)
        return []

    def ping(self, now: float) -> None:
        """Ask whether somebody is there; the answer tells the round trip."""
        self.pinged_at = now
        self._out += compact.encode(Ping(_ping_number(now)))
        self.needs_attention = True

    def _note_answer(self, number: int, now: float) -> None:
        asked = self.pinged_at
        if asked is not None and number == _ping_number(asked):
            self.round_trip = now - asked
            self.pinged_at = None

    def listen_anew(self, now: float) -> None:
        """Nobody read for a while: silence counts from now on."""
        self.heard = now
        if self.state is State.OPEN and self.deadline is not None:
            self._watch_silence()

    def take_bytes(self) -> bytes:
        """What the conversation itself has to send now; once."""
        out, self._out = self._out, b""
        return out

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
        if before in _LISTENS and happened in _SAYS_GOODBYE and not silently:
            session = self.session
            if session is not None and session.owes and self.writes_compact:
                self._out += compact.encode(Ack(session.tell()))
            bye = bye or _bye_for(happened, closed)
            if self.writes_compact or self.is_packed:
                self._out += compact.encode(bye)
            else:
                self._say(bye)
        self.needs_attention = True
        self.room = None
        self.feed = self._feed_nothing
        if self._compact is not None and self.session is not None:
            self.feed = self._feed_closing
        self._classic = self._hello = self._trial = None
        if self.requests is not None and not (closed.is_cut and self.session):
            self.requests.fail_all(SessionLost(f"no answer came: {closed.reason}"))
        if self.state is State.CLOSED:
            self.deadline = None
        elif before is not State.CLOSING:
            self.deadline = now + LINGER
        return [] if before is State.CLOSING else [closed]


def _ping_number(now: float) -> int:
    return milliseconds(now) % _PING_RANGE


def _bye_for(happened: Input, closed: Closed) -> Bye:
    """The goodbye on the compact wire: its code, and the reason in short."""
    text = closed.reason[:1024].encode(errors="replace").decode()
    if happened is Input.EXPIRED:
        return Bye(_SILENT, text)
    if happened is not Input.VIOLATION:
        return Bye(_CLOSED, text)
    is_too_large = closed.error is not None and closed.error.code == "too_large"
    return Bye(_TOO_LARGE if is_too_large else _VIOLATION, text)
