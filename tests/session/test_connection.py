"""Two peers' conversation, bytes piped by hand and the clock turned by hand."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hisock.errors import Overloaded, Refused, RemoteProtocolError, SessionLost
from hisock.session.connection import LINGER, Connection, milliseconds
from hisock.session.events import Closed, Event, Messages, Opened
from hisock.session.requests import Requests
from hisock.session.states import TRANSITIONS, Input, State
from hisock.types import Limits
from hisock.wire import classic, compact
from hisock.wire.classic import decode_control, encode_frame, header
from hisock.wire.frames import (
    PROTO,
    Ack,
    Bye,
    Cancel,
    Compact,
    Credit,
    End,
    Failure,
    Frame,
    Gap,
    Groups,
    Hello,
    Item,
    Joined,
    Left,
    Message,
    NoTLS,
    PackedFrame,
    Ping,
    Pong,
    Probe,
    Refusal,
    Regroup,
    Rename,
    Reply,
    Request,
    Roster,
    Welcome,
)

START: Final = 100.0
ADA = Hello("Ada", "red")
CUT = Closed("the other side closed the connection", is_cut=True)


def frame(body: bytes, header_len: int = 16) -> bytes:
    """A body behind its header."""
    return header(len(body), header_len) + body


def hello(header_len: int = 16) -> bytes:
    """What a client says first."""
    return frame(encode_frame(ADA), header_len)


def plain(events: list[Event]) -> list[object]:
    """Events, with the bodies of messages in place of the object around them."""
    return [
        list(event.rest) if isinstance(event, Messages) else event for event in events
    ]


class Pair:
    """A client's and a server's connection and a clock, without anything between."""

    def __init__(self, *, limits: Limits | None = None, header_len: int = 16) -> None:
        self.now = START
        self.header_len = header_len
        self.server = Connection(limits or Limits(), START)
        self.client = Connection(limits or Limits(), START, header_len=header_len)

    def say_hello(self) -> list[Event]:
        """The client's hello reaches the server."""
        return self.server.feed(hello(self.header_len), self.now)

    def to_server(self, *bodies: bytes) -> list[object]:
        """Messages reach the server."""
        data = b"".join(frame(body, self.header_len) for body in bodies)
        return plain(self.server.feed(data, self.now))

    def to_client(self, *bodies: bytes) -> list[object]:
        """Messages reach the client."""
        data = b"".join(frame(body, self.server.header_len) for body in bodies)
        return plain(self.client.feed(data, self.now))

    def advance(self, seconds: float) -> list[object]:
        """Time passes; what both sides make of it."""
        self.now += seconds
        return plain(self.server.tick(self.now) + self.client.tick(self.now))


@pytest.fixture
def pair() -> Pair:
    """A pair that has not said anything."""
    return Pair()


@pytest.fixture
def open_pair(pair: Pair) -> Pair:
    """A pair after the hello."""
    pair.say_hello()
    return pair


# --- hello -----------------------------------------------------------------------


@pytest.mark.parametrize("header_len", range(2, 65))
def test_a_server_learns_the_header_length(header_len: int) -> None:
    """A client of any header length is served, in its own length, both ways."""
    pair = Pair(header_len=header_len)

    assert [Opened(ADA)] == pair.say_hello()
    assert (State.OPEN, header_len) == (pair.server.state, pair.server.header_len)
    assert pair.to_server(b"hi", b"") == [[b"hi", b""]]
    assert pair.to_client(b"yo") == [[b"yo"]]


def test_a_client_need_not_wait() -> None:
    """A client may send as soon as it is connected: it is open at once."""
    client = Pair().client

    assert (client.state, client.header_len, client.deadline) == (State.OPEN, 16, None)
    assert not client.is_silent
    assert client.take_bytes() == b""


def test_hello_and_messages_in_one_piece(pair: Pair) -> None:
    """What comes right behind the hello is told right behind it."""
    data = hello() + frame(b"one") + frame(b"two") + header(5, 16)

    assert [Opened(ADA), [b"one", b"two"]] == plain(pair.server.feed(data, START))
    assert plain(pair.server.feed(b"three", START)) == [[b"three"]]


def test_any_pair_of_cuts_tells_the_same() -> None:
    """Wherever the bytes are cut: the hello, the messages, the same order (F10)."""
    data = hello(2) + frame(b"a", 2) + b"$CHNAME$" + frame(b"b", 2)

    for first, second in itertools.combinations(range(1, len(data)), 2):
        server = Pair().server
        events: list[Event] = []
        for piece in (data[:first], data[first:second], data[second:]):
            events += server.feed(piece, START)
        bodies = [
            body
            for event in events
            if isinstance(event, Messages)
            for body in event.bodies
        ]
        assert Opened(ADA) == events[0]
        assert bodies == [b"a", b"$CHNAME$", b"b"]


def test_a_session_in_single_bytes(pair: Pair) -> None:
    """One byte at a time works, if the hello is done in time (F9)."""
    data = hello() + frame(b"hi")
    events: list[object] = []
    for at in range(len(data)):
        events += plain(pair.server.feed(data[at : at + 1], pair.now))
        events += pair.advance(0.05)

    assert [Opened(ADA), [b"hi"]] == events


def test_a_server_forgives_what_1_1_clients_do(open_pair: Pair) -> None:
    """A 1.1 client sends two words without a header; the server reads them."""
    server = open_pair.server

    assert plain(server.feed(b"$CHNAME$", START)) == [[b"$CHNAME$"]]
    assert plain(server.feed(b"$CHGROUP$" + frame(b"x"), START)) == [
        [b"$CHGROUP$", b"x"]
    ]


def test_a_client_forgives_nothing(open_pair: Pair) -> None:
    """A server never sends a word without a header."""
    (closed,) = open_pair.client.feed(b"$CHNAME$", START)

    assert isinstance(closed, Closed)
    assert isinstance(closed.error, RemoteProtocolError)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (
            b"GET / HTTP/1.1\r\n",
            r"no hisock client begins with b'GET / HTTP/1\.1\\r\\n'",
        ),
        (b"\x16\x03\x01", "no hisock client begins with"),
        (b"x", "no hisock client begins with b'x'"),
        (b"12x", "begins with a length"),
        (frame(b"hello there"), "begins with a length"),
        (frame(b"$CLTHELLO$ {}"), "the hello has no 'name'"),
        (frame(b'$CLTHELLO${"name": null}'), r"the hello of hisock 2\.x"),
        (header(16 * 1024 + 1, 16) + b"$", "the limit is 16384"),
    ],
    ids=repr,
)
def test_a_stranger_gets_no_answer(pair: Pair, data: bytes, told: str) -> None:
    """Who is no client is told apart at once, and not a byte goes back (F13, F14)."""
    (closed,) = pair.server.feed(data, START)

    assert isinstance(closed, Closed)
    assert isinstance(closed.error, RemoteProtocolError)
    assert str(closed.error) == closed.reason
    with pytest.raises(RemoteProtocolError, match=told):
        raise closed.error
    assert (pair.server.state, pair.server.take_bytes()) == (State.CLOSED, b"")
    assert pair.server.deadline is None
    assert pair.server.feed(hello(), START) == []


def test_silence_is_told_apart_from_slowness(pair: Pair) -> None:
    """A connection that has not sent a byte may be given up first."""
    server = pair.server
    silent = [server.is_silent]

    server.feed(hello()[:1], START)
    silent.append(server.is_silent)
    server.feed(hello()[1:], START)
    silent.append(server.is_silent)

    assert silent == [True, False, False]


# --- messages --------------------------------------------------------------------


def test_messages_come_in_order(open_pair: Pair) -> None:
    """What one read brought is one event, and tells its size."""
    (messages,) = open_pair.server.feed(frame(b"one") + frame(b"two"), START)

    assert isinstance(messages, Messages)
    assert (messages.bodies, messages.size) == ([b"one", b"two"], 6)


def test_the_size_of_a_batch() -> None:
    """It is counted when first asked for, and may be set by who knows it."""
    messages = Messages([b"abc", b"", b"de"])
    sizes = [messages.size]
    messages.bodies.clear()
    sizes.append(messages.size)
    messages.size = 7

    assert [*sizes, messages.size] == [5, 5, 7]


def test_a_half_message_is_no_event(open_pair: Pair) -> None:
    """Half a message says nothing yet."""
    assert open_pair.server.feed(header(5, 16) + b"he", START) == []
    assert plain(open_pair.server.feed(b"llo", START)) == [[b"hello"]]


def test_the_place_in_a_batch() -> None:
    """``place`` counts what was taken, also after the batch was cut short."""
    messages = Messages([b"a", b"b", b"c"])
    places = [messages.place]
    for _ in messages.rest:
        places.append(messages.place)  # noqa: PERF401

    assert places == [0, 1, 2, 3]

    messages = Messages([b"a", b"b", b"c"])
    next(messages.rest)
    messages.bodies.clear()
    assert list(messages.rest) == []
    assert messages.place == 0


def test_garbage_ends_it_after_what_was_right(open_pair: Pair) -> None:
    """Messages before the garbage count; the sender hears a goodbye (F12)."""
    data = frame(b"fine") + b"garbage         " + frame(b"never")
    messages, closed = plain(open_pair.server.feed(data, START))

    assert messages == [b"fine"]
    assert isinstance(closed, Closed)
    assert "a header is digits" in closed.reason
    assert isinstance(closed.error, RemoteProtocolError)
    assert (
        open_pair.server.state,
        open_pair.server.deadline,
    ) == (State.CLOSING, START + LINGER)
    assert frame(b"$DISCONN$") == open_pair.server.take_bytes()


def test_garbage_alone_is_one_event(open_pair: Pair) -> None:
    """Garbage with nothing before it is the end and nothing else."""
    (closed,) = open_pair.client.feed(b"garbage", START)

    assert isinstance(closed, Closed)
    assert frame(b"$USRCLOSE$") == open_pair.client.take_bytes()


def test_a_message_has_the_limit_that_was_set() -> None:
    """The limit passes, one byte more ends it, at the header, on both sides."""
    pair = Pair(limits=Limits(message=50))
    pair.say_hello()

    assert pair.to_server(b"x" * 50) == [[b"x" * 50]]
    assert pair.to_client(b"x" * 50) == [[b"x" * 50]]
    for side in (pair.server, pair.client):
        (closed,) = side.feed(header(51, 16), START)
        assert isinstance(closed, Closed)
        assert "51 bytes was announced, the limit is 50" in closed.reason


# --- goodbye ---------------------------------------------------------------------


@pytest.mark.parametrize("header_len", [2, 16, 64])
@pytest.mark.parametrize("by_client", [True, False])
def test_a_goodbye_is_said_once(header_len: int, by_client: bool) -> None:
    """Who ends it says so, in a frame that the other side can read, once."""
    pair = Pair(header_len=header_len)
    pair.say_hello()
    one, other = pair.client, pair.server
    if not by_client:
        one, other = other, one

    assert [Closed("done")] == one.close("done", START)
    assert one.close("again", START) == []
    goodbye = one.take_bytes()
    assert [[encode_frame(Bye(), by_client=by_client)]] == plain(
        other.feed(goodbye, START)
    )
    assert one.take_bytes() == b""


def test_what_comes_after_the_goodbye_is_thrown_away(open_pair: Pair) -> None:
    """After its own end a side reads on, but tells nothing (F11)."""
    open_pair.server.close("done", START)

    assert open_pair.to_server(b"late") == []
    assert plain(open_pair.server.feed(b"garbage", START)) == []
    states = [open_pair.server.state]
    assert open_pair.server.feed_eof(START) == []
    states.append(open_pair.server.state)
    assert states == [State.CLOSING, State.CLOSED]
    assert open_pair.to_server(b"later") == []


def test_an_ending_takes_a_second_at_most(open_pair: Pair) -> None:
    """An ended connection lingers 1 s for its goodbye to arrive, then is over."""
    client = open_pair.client
    client.close("done", START)
    steps = [(client.state, client.deadline)]

    for seconds in (0.999, 0.001):
        assert open_pair.advance(seconds) == []
        steps.append((client.state, client.deadline))

    assert steps == [
        (State.CLOSING, START + 1.0),
        (State.CLOSING, START + 1.0),
        (State.CLOSED, None),
    ]


def test_more_ends_do_not_prolong_an_ending(open_pair: Pair) -> None:
    """The second counts from the first end, whatever comes after it."""
    open_pair.client.close("done", START)
    open_pair.client.close("done", START + 0.5)
    open_pair.client.feed(frame(b"late"), START + 0.7)

    assert open_pair.client.deadline == START + 1.0


def test_a_half_close_is_a_leave(open_pair: Pair) -> None:
    """A peer that sends no more has left; half a message of it is dropped (F8)."""
    open_pair.server.feed(header(5, 16) + b"he", START)

    assert [CUT] == open_pair.server.feed_eof(START)
    assert (
        open_pair.server.state,
        open_pair.server.take_bytes(),
    ) == (State.CLOSING, b"")
    assert open_pair.server.feed_eof(START) == []
    assert State.CLOSED is open_pair.server.state


def test_an_end_has_the_reason_it_was_given(open_pair: Pair) -> None:
    """A goodbye is the end, is told as what it said, and is no cut."""
    told = open_pair.server.feed_goodbye("it said so", START)

    assert told == [Closed("it said so")]
    assert State.CLOSING is open_pair.server.state
    assert open_pair.server.take_bytes() == b""


def test_a_broken_link_is_over_at_once(open_pair: Pair) -> None:
    """When the link is gone there is nobody to say goodbye to."""
    assert [Closed("reset", is_cut=True)] == open_pair.server.lost("reset", START)
    assert (
        open_pair.server.state,
        open_pair.server.take_bytes(),
        open_pair.server.deadline,
    ) == (State.CLOSED, b"", None)
    assert open_pair.server.lost("again", START) == []


def test_an_end_before_the_hello_is_silent(pair: Pair) -> None:
    """Who has not said hello gets no goodbye either; it lingers all the same."""
    pair.server.feed(hello()[:20], START)

    assert [Closed("stopping")] == pair.server.close("stopping", START)
    assert (pair.server.state, pair.server.take_bytes()) == (State.CLOSING, b"")
    assert pair.server.deadline == START + LINGER
    assert pair.server.feed(hello()[20:], START) == []


def test_a_port_scan_is_over_at_once(pair: Pair) -> None:
    """Who connects and goes without a word leaves nothing behind (F15)."""
    assert [CUT] == pair.server.feed_eof(START)
    assert (pair.server.state, pair.server.deadline) == (State.CLOSED, None)


def test_an_end_is_a_value() -> None:
    """Events that say the same are equal, and do not change."""
    assert Closed("a") == Closed("a")
    with pytest.raises(AttributeError):
        Closed("a").reason = "b"  # type: ignore[misc]  # that is the test


# --- deadlines -------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", hello()[:1], hello()[:-1]])
def test_a_hello_takes_five_seconds_at_most(pair: Pair, begun: bytes) -> None:
    """Who has not said the whole hello in 5 s is gone, and the text says why."""
    if begun:
        pair.server.feed(begun, START + 4)
    deadlines = [pair.server.deadline]

    assert pair.advance(4.999) == []
    assert [Closed("no complete hello within 5 s")] == pair.advance(0.001)
    deadlines.append(pair.server.deadline)
    assert deadlines == [START + 5.0, None]
    assert (pair.server.state, pair.server.take_bytes()) == (State.CLOSED, b"")
    assert pair.advance(10) == []


def test_a_hello_in_time_lifts_the_deadline(pair: Pair) -> None:
    """After the hello a quiet client may be quiet for ever."""
    pair.advance(4.9)
    pair.say_hello()

    assert pair.server.deadline is None
    assert pair.advance(10**6) == []
    assert State.OPEN is pair.server.state


def test_the_handshake_takes_what_was_set() -> None:
    """Limits.handshake sets the time; 0 switches it off."""
    quick, patient = (
        Pair(limits=Limits(handshake=0.25)),
        Pair(limits=Limits(handshake=0)),
    )

    assert [Closed("no complete hello within 0.25 s")] == quick.advance(0.25)
    assert patient.server.deadline is None
    assert patient.advance(10**6) == []


# --- which wire is spoken --------------------------------------------------------

#: What the client's clock shows at ``START``, in milliseconds.
ADAS_CLOCK: Final = 5_000
NEW_ADA: Final = Hello("Ada", "red", PROTO, ADAS_CLOCK)
WELCOME: Final = Welcome(PROTO, "Ada", "red", 100_000)
HI: Final = Raw(b"\xc4\x02hi")
WOKEN: Final = "woken"


def said(what: Frame, *, by_client: bool, header_len: int = 16) -> bytes:
    """A frame of the classic wire behind its header."""
    return frame(encode_frame(what, by_client=by_client), header_len)


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


def flat(events: list[Event]) -> list[object]:
    """Bodies one by one, each with its wire, however the reads were cut."""
    told: list[object] = []
    for event in events:
        if isinstance(event, Messages):
            told += [(event.is_packed, body) for body in event.rest]
        else:
            told.append(event)
    return told


def fed(
    connection: Connection, pieces: Iterable[bytes], now: float = START
) -> list[object]:
    """What all the pieces tell."""
    events: list[Event] = []
    for piece in pieces:
        events += connection.feed(piece, now)
    return flat(events)


def packed(command: str | None, content: bytes) -> bytes:
    """A message of the compact wire, with its header."""
    return joined(compact.Writer(0).message(command, content))


def joined(data: compact.Encoded) -> bytes:
    """A frame as it is on the wire, in one piece."""
    return data if isinstance(data, bytes) else b"".join(data)


def goodbye(connection: Connection) -> Bye:
    """What the compact wire says last."""
    frames: list[bytes] = []
    compact.Decoder(0).feed(connection.take_bytes(), frames, [])
    bye = compact.decode(frames[-1])
    assert isinstance(bye, Bye)
    return bye


class Talk:
    """Both sides of a conversation, its bytes piped by hand, in pieces of any size.

    It does what the engine does: the client says hello and probes at once, the server
    welcomes whoever speaks the compact wire too, and answers the probe of all others.
    """

    def __init__(
        self,
        *,
        client_offers: bool = True,
        server_offers: bool = True,
        header_len: int = 16,
        limits: Limits | None = None,
    ) -> None:
        self.now = START
        self.limits = limits or Limits()
        self.client = Connection(
            self.limits, START, header_len=header_len, offers_compact=client_offers
        )
        self.server = Connection(self.limits, START, offers_compact=server_offers)
        self.server_offers = server_offers
        self.hello = NEW_ADA if client_offers else ADA
        self.upward = said(self.hello, by_client=True, header_len=header_len)
        self.upward += said(Probe(), by_client=True, header_len=header_len)
        self.downward = b""
        self.all_upward = self.all_downward = b""
        self.at_server: list[object] = []
        self.at_client: list[object] = []

    def client_sends(self, command: str, content: bytes) -> None:
        """A message goes to the server, on the wire that holds now."""
        self.upward += self._message(self.client, True, command, content)

    def server_sends(self, command: str, content: bytes) -> None:
        """A message goes to the client, on the wire that holds now."""
        self.downward += self._message(self.server, False, command, content)

    def _message(
        self, side: Connection, by_client: bool, command: str, content: bytes
    ) -> bytes:
        if side.writes_compact:
            return packed(command, content)
        writer = classic.Writer(side.header_len, 0, by_client=by_client)
        return writer.message(command, content)

    def deliver(self, size: int = 10**6) -> None:
        """Pipe until nothing moves, at most ``size`` bytes at a time."""
        while self.upward or self.downward:
            data, self.upward = self.upward[:size], self.upward[size:]
            self.all_upward += data
            for event in self.server.feed(data, self.now):
                self._serve(event)
            self.downward += self.server.take_bytes()
            data, self.downward = self.downward[:size], self.downward[size:]
            self.all_downward += data
            self.at_client += flat(self.client.feed(data, self.now))
            self.upward += self.client.take_bytes()

    def _serve(self, event: Event) -> None:
        (*told,) = flat([event])
        self.at_server += told
        if isinstance(event, Opened) and event.hello.proto and self.server_offers:
            self.server.serve(event.hello.name, event.hello.group, self.now)
        elif (False, b"$DH_NUMS$") in told and not self.server.writes_compact:
            self.downward += said(NoTLS(), by_client=False)


def agreed(limits: Limits | None = None) -> Talk:
    """A conversation that is on the compact wire, both ways."""
    talk = Talk(limits=limits)
    talk.deliver()
    return talk


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10**6])
@pytest.mark.parametrize("header_len", [4, 16, 64])
def test_ours_and_ours_speak_compact(size: int, header_len: int) -> None:
    """After hello and welcome both sides write compact, in pieces of any size."""
    talk = Talk(header_len=header_len)
    before = (talk.client.is_agreed, talk.client.writes_compact)
    talk.client_sends("early", b"1")
    talk.deliver(size)
    talk.client_sends("up", b"2")
    talk.server_sends("down", b"3")
    talk.deliver(size)

    assert before == (False, False)
    assert talk.at_server == [
        Opened(NEW_ADA),
        (False, b"$DH_NUMS$"),
        (False, b"early 1"),
        (True, packed("up", b"2")[4:]),
    ]
    assert talk.at_client == [(True, packed("down", b"3")[4:])]
    for side in (talk.client, talk.server):
        assert (side.is_agreed, side.writes_compact, side.is_open) == (True,) * 3
        assert side.requests is not None
        assert side.header_len == header_len


def test_the_bytes_of_the_negotiation() -> None:
    """Hello, probe, welcome, confirmation: nothing else, each once."""
    talk = agreed()

    assert talk.all_upward == (
        said(NEW_ADA, by_client=True) + frame(b"$DH_NUMS$") + frame(b"$COMPACT$")
    )
    assert talk.all_downward == frame(
        b'$WELCOME$ {"proto": 2, "name": "Ada", "group": "red", "now": 100000}'
    )
    for side in (talk.client, talk.server):
        assert (side.take_bytes(), side.deadline) == (b"", None)


def test_messages_before_the_welcome_are_classic() -> None:
    """A client need not wait: what it sends meanwhile is classic, in order."""
    talk = Talk()
    for number in range(3):
        talk.client_sends("early", b"%d" % number)
    talk.deliver()

    assert talk.at_server[1:] == [
        (False, b"$DH_NUMS$"),
        *((False, b"early %d" % number) for number in range(3)),
    ]


def test_the_server_writes_compact_right_behind_the_welcome() -> None:
    """The welcome is its first frame; what a join handler sends is compact already."""
    talk = Talk()
    talk.server.feed(talk.upward, START)
    talk.server.serve("Ada", "red", START)
    data = talk.server.take_bytes() + packed("a", b"1") + packed("b", b"2")

    assert fed(talk.client, [data]) == [
        (True, packed("a", b"1")[4:]),
        (True, packed("b", b"2")[4:]),
    ]
    assert talk.client.take_bytes() == frame(b"$COMPACT$")
    assert talk.client.take_bytes() == b""


def test_the_server_is_agreed_when_the_client_says_so() -> None:
    """Until ``$COMPACT$`` the server reads classic, though it writes compact."""
    server = in_stage("welcoming")
    states = [(server.writes_compact, server.is_agreed)]
    told = fed(server, [frame(b"still classic")])
    states.append((server.writes_compact, server.is_agreed))
    fed(server, [frame(b"$COMPACT$")])
    states.append((server.writes_compact, server.is_agreed))

    assert told == [(False, b"still classic")]
    assert states == [(True, False), (True, False), (True, True)]


def streams() -> tuple[bytes, bytes, bytes]:
    """What goes up before the welcome and after it, and all that goes down."""
    talk = Talk()
    talk.client_sends("early", b"1")
    early = talk.upward + b"$CHNAME$" + frame(b"$5") + frame(b"$COMPACT$x")
    late = frame(b"more") + frame(b"$COMPACT$")
    late += packed("up", b"\n") + compact.encode(Ping(1)) + packed(None, b"")
    down = said(WELCOME, by_client=False)
    down += packed("a", b"1") + compact.encode(Pong(1)) + packed(None, b"2" * 50)
    return early, late, down


def opened(early: Iterable[bytes], late: Iterable[bytes]) -> tuple[list[object], bytes]:
    """What a server tells and says, when it welcomes after the first pieces."""
    server = Talk().server
    told = fed(server, early)
    server.serve("Ada", "red", START)
    told += fed(server, late)
    return told, server.take_bytes()


def test_a_server_understands_any_cut() -> None:
    """Wherever a client's bytes are cut: the same messages, the same answers (F10)."""
    early, late, _ = streams()
    expected = opened([early], [late])

    assert expected[0] == [
        Opened(NEW_ADA),
        (False, b"$DH_NUMS$"),
        (False, b"early 1"),
        (False, b"$CHNAME$"),
        (False, b"$5"),
        (False, b"$COMPACT$x"),
        (False, b"more"),
        (True, packed("up", b"\n")[4:]),
        (True, packed(None, b"")[4:]),
    ]
    assert expected[1] == said(WELCOME, by_client=False) + compact.encode(Pong(1))
    for cut in range(len(early) + 1):
        assert expected == opened(split(early, [cut]), [late])
    for cuts in itertools.combinations(range(len(late) + 1), 2):
        assert expected == opened([early], split(late, cuts))
    assert expected == opened(split(early, range(500)), split(late, range(500)))


def test_a_client_understands_any_cut() -> None:
    """Wherever a server's bytes are cut: the same messages, one confirmation (F10)."""
    down = streams()[2]
    for cuts in itertools.combinations(range(len(down) + 1), 2):
        client = Talk().client
        assert fed(client, split(down, cuts)) == [
            (True, packed("a", b"1")[4:]),
            (True, packed(None, b"2" * 50)[4:]),
        ]
        assert client.take_bytes() == frame(b"$COMPACT$")


@pytest.mark.parametrize("size", [1, 5, 10**6])
def test_ours_with_a_server_of_1_1(size: int) -> None:
    """A server that answers ``$NOTLS$`` is of version 1.1: both stay classic."""
    talk = Talk(server_offers=False)
    talk.client_sends("early", b"1")
    talk.deliver(size)
    talk.client_sends("up", b"2")
    talk.server_sends("down", b"3")
    talk.deliver(size)

    assert talk.at_server == [
        Opened(NEW_ADA),
        (False, b"$DH_NUMS$"),
        (False, b"early 1"),
        (False, b"up 2"),
    ]
    assert talk.at_client == [(False, b"down 3")]
    for side in (talk.client, talk.server):
        assert (side.is_agreed, side.writes_compact) == (True, False)
        assert side.requests is None


@pytest.mark.parametrize("size", [1, 5, 10**6])
def test_a_server_of_ours_with_a_client_of_1_1(size: int) -> None:
    """A hello without ``proto`` is of version 1.1: it is served as classic, at once."""
    talk = Talk(client_offers=False)
    agreed_at_once = talk.client.is_agreed
    talk.deliver(size)
    talk.server_sends("down", b"3")
    talk.client_sends("up", b"2")
    talk.deliver(size)

    assert agreed_at_once
    assert talk.server.is_agreed
    assert talk.at_server[0] == Opened(ADA)
    assert talk.at_server[-1] == (False, b"up 2")
    # A client of 1.1 reads $NOTLS$ as any other body.
    assert talk.at_client == [(False, b"$NOTLS$"), (False, b"down 3")]


def test_what_1_1_sends_before_its_answer() -> None:
    """The messages of its join handler may come first; they are messages."""
    client = Talk().client
    data = frame(b"hello there") + frame(b"$CLTCONN$ {}") + frame(b"$NOTLS$")
    waiting = fed(client, [data[:-1]])
    before = client.is_agreed

    assert waiting == [(False, b"hello there"), (False, b"$CLTCONN$ {}")]
    assert fed(client, [data[-1:], frame(b"after")]) == [(False, b"after")]
    assert (before, client.is_agreed, client.writes_compact) == (False, True, False)
    assert client.take_bytes() == b""


def test_after_the_answer_of_1_1_nothing_is_a_mark() -> None:
    """Once it is settled, the words of the negotiation are bodies like any other."""
    client = Talk().client
    fed(client, [frame(b"$NOTLS$")])
    words = [b"$NOTLS$", b'$WELCOME$ {"proto": 2}', b"$REFUSED$ {}"]

    assert fed(client, [b"".join(map(frame, words))]) == [
        (False, word) for word in words
    ]
    assert (client.is_open, client.writes_compact) == (True, False)


@pytest.mark.parametrize("by_client", [True, False])
def test_who_offers_nothing_hears_no_marks(by_client: bool) -> None:
    """With ``offers_compact=False`` the words of the negotiation mean nothing."""
    talk = Talk(client_offers=False, server_offers=False)
    side = talk.client if by_client else talk.server
    if not by_client:
        fed(side, [said(NEW_ADA, by_client=True)])
    words = [b"$COMPACT$", b'$WELCOME$ {"proto": 2}', b"$NOTLS$", b"$REFUSED$ {}"]

    assert side.is_agreed
    assert fed(side, [b"".join(map(frame, words))]) == [(False, word) for word in words]
    assert (side.is_open, side.writes_compact, side.take_bytes()) == (True, False, b"")


@pytest.mark.parametrize("header_len", [2, 3])
def test_a_short_header_stays_classic(header_len: int) -> None:
    """Not every welcome fits under it, so such a client is served as 1.1 is."""
    server = Talk().server
    new = Hello("A", None, PROTO, 5)
    data = said(new, by_client=True, header_len=header_len)
    data += frame(b"$COMPACT$", header_len)

    assert fed(server, [data]) == [Opened(Hello("A", None)), (False, b"$COMPACT$")]
    assert (server.is_agreed, server.writes_compact) == (True, False)


@pytest.mark.parametrize("first", [True, False])
def test_a_confirmation_before_the_welcome(first: bool) -> None:
    """``$COMPACT$`` confirms a welcome; without one it ends the connection."""
    server = Talk().server
    data = [said(NEW_ADA, by_client=True), frame(b"$COMPACT$") + packed("a", b"1")]
    told = fed(server, [b"".join(data)] if first else data)

    assert told[0] == Opened(NEW_ADA)
    (closed,) = told[1:]
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, RemoteProtocolError)
    assert "came before the welcome" in closed.reason
    assert server.take_bytes() == frame(b"$DISCONN$")


@pytest.mark.parametrize(
    "again", [said(WELCOME, by_client=False), frame(b"$NOTLS$"), frame(b"$REFUSED$ {}")]
)
def test_a_second_answer(again: bytes) -> None:
    """After the welcome a server writes compact: a classic frame is none."""
    client = in_stage("compact client")

    (closed,) = fed(client, [again])

    assert isinstance(closed, Closed)
    assert isinstance(closed.error, RemoteProtocolError)
    assert goodbye(client).code == 5


def test_a_second_confirmation() -> None:
    """After ``$COMPACT$`` a client writes compact: a classic frame is none."""
    server = in_stage("compact server")

    (closed,) = fed(server, [frame(b"$COMPACT$")])

    assert isinstance(closed, Closed)
    assert goodbye(server).code == 5


@pytest.mark.parametrize("proto", [0, 1, 3, 2**52])
def test_a_welcome_of_another_version(proto: int) -> None:
    """A version that the client does not speak ends it, and the text names both."""
    client = Talk().client

    (closed,) = fed(client, [said(Welcome(proto), by_client=False) + b"whatever"])

    assert isinstance(closed, Closed)
    assert isinstance(closed.error, RemoteProtocolError)
    told = f"chose version {proto} of the compact wire; this client speaks {PROTO}"
    assert told in closed.reason
    assert client.take_bytes() == frame(b"$USRCLOSE$")
    assert not client.writes_compact


@pytest.mark.parametrize("rest", [b"", b" {", b" []", b' {"proto": "2"}', b" \xff"])
def test_a_broken_welcome(rest: bytes) -> None:
    """A welcome that cannot be read ends it; what came before it counts."""
    client = Talk().client
    before, closed = fed(client, [frame(b"hi") + frame(b"$WELCOME$" + rest)])

    assert before == (False, b"hi")
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, RemoteProtocolError)
    assert client.take_bytes() == frame(b"$USRCLOSE$")


@pytest.mark.parametrize("cut", [1, 16, 30, 10**6])
def test_a_refusal_instead_of_a_welcome(cut: int) -> None:
    """Both sides are over; the client knows the code and the words, and is silent."""
    talk = Talk()
    talk.server.feed(talk.upward, START)
    refusal = Refusal("busy", "too many are here", 500)

    assert talk.server.refuse(refusal, START) == [Closed("too many are here")]
    data = talk.server.take_bytes()
    (closed,) = fed(talk.client, split(data + frame(b"x"), [cut]))

    assert data == frame(encode_frame(refusal))
    assert isinstance(closed, Closed)
    assert closed.reason == "refused: too many are here"
    assert isinstance(closed.error, Refused)
    assert (closed.error.code, str(closed.error)) == ("busy", "too many are here")
    for side in (talk.client, talk.server):
        assert (side.state, side.take_bytes()) == (State.CLOSING, b"")
        assert side.deadline == START + LINGER


@pytest.mark.parametrize("data", [packed("a", b"1"), compact.encode(Ping(1))])
def test_compact_bytes_before_the_hello(data: bytes) -> None:
    """The hello is classic always; a stranger gets no answer."""
    server = Talk().server

    (closed,) = fed(server, [data])

    assert isinstance(closed, Closed)
    assert isinstance(closed.error, RemoteProtocolError)
    assert (server.state, server.take_bytes()) == (State.CLOSED, b"")


def test_who_is_gone_is_not_welcomed() -> None:
    """A hello and garbage in one read: the welcome that follows says nothing."""
    for end in ("welcome", "refuse"):
        server = Talk().server
        events = server.feed(said(NEW_ADA, by_client=True) + b"garbage", START)
        assert [Opened, Closed] == [type(event) for event in events]
        if end == "welcome":
            server.serve("Ada", "red", START)
        else:
            assert server.refuse(Refusal("busy", "later"), START) == []

        assert server.take_bytes() == frame(b"$DISCONN$")
        assert (server.writes_compact, server.state) == (False, State.CLOSING)


@pytest.mark.parametrize("word", [b"$COMPACT$x", b"$WELCOME$x", b"$NOTLS$x"])
@pytest.mark.parametrize("by_client", [True, False])
def test_thousands_of_words_like_a_mark(word: bytes, by_client: bool) -> None:
    """What only begins like a mark is a message, however many come in one read."""
    talk = Talk()
    side = talk.client if by_client else talk.server
    if not by_client:
        fed(side, [said(NEW_ADA, by_client=True)])

    assert fed(side, [frame(word) * 5000]) == [(False, word)] * 5000


# --- the compact wire ------------------------------------------------------------


@pytest.mark.parametrize("by_client", [True, False])
def test_a_ping_gets_its_pong(by_client: bool) -> None:
    """Each ping is answered with its number, at once, and nobody is told."""
    side = in_stage("compact client" if by_client else "compact server")
    side.needs_attention = False
    numbers = [0, -1, 127, 2**63 - 1]

    assert fed(side, [b"".join(compact.encode(Ping(n)) for n in numbers)]) == []
    assert side.needs_attention
    assert side.take_bytes() == b"".join(compact.encode(Pong(n)) for n in numbers)


def test_a_mebibyte_of_pings_is_answered_in_no_time() -> None:
    """Answers are collected in linear time, whatever the bytes are (T27)."""
    side = in_stage("compact server")
    ping, pong = compact.encode(Ping(1)), compact.encode(Pong(1))
    count = 1024 * 1024 // len(ping)
    began = time.perf_counter()

    side.feed(ping * count, START)

    assert time.perf_counter() - began < 3
    assert side.take_bytes() == pong * count


@pytest.mark.parametrize("quiet", [Pong(1), Ack(5)])
def test_pongs_and_acks_say_nothing(quiet: Pong | Ack) -> None:
    """They are taken note of, and nobody is told."""
    side = in_stage("compact client")
    side.needs_attention = False

    assert fed(side, [compact.encode(quiet)]) == []
    assert (side.take_bytes(), side.needs_attention) == (b"", False)


def test_an_answer_does_not_wait_for_messages() -> None:
    """Replies, credit and cancellations act while they are read."""
    client = in_stage("compact client")
    requests = client.requests
    assert requests is not None
    call, stream = requests.ask("sum"), requests.ask("tail", is_stream=True)
    requests.announce(Request(2, "x", HI, 1))
    theirs = requests.begin(2)
    assert theirs is not None
    answers: list[PackedFrame] = [
        Reply(call.id, HI),
        Item(stream.id, HI),
        End(stream.id),
        Credit(2, 5),
        Cancel(2),
        Failure(99, "late", ""),
    ]
    data = packed("a", b"1") + b"".join(map(compact.encode, answers))

    assert fed(client, [data]) == [(True, packed("a", b"1")[4:])]
    assert ([*call.answers], [*stream.answers]) == ([bytes(HI)], [bytes(HI)])
    assert (theirs.credit, theirs.is_over, requests.late) == (6, True, 1)


def requests_of(side: Connection) -> Requests:
    """The calls and streams of a connection on the compact wire."""
    assert side.requests is not None
    return side.requests


def ids_of(by_client: bool) -> tuple[str, int]:
    """A side of the compact wire, and the first id that its peer gives."""
    return ("compact client", 2) if by_client else ("compact server", 1)


@pytest.mark.parametrize("by_client", [True, False])
def test_a_request_is_known_when_it_is_read(by_client: bool) -> None:
    """It waits behind the messages before it, but is open from here on."""
    stage, first = ids_of(by_client)
    side = in_stage(stage)
    said: list[PackedFrame] = [
        Message("a", HI),
        Request(first, "b", HI),
        Message("c", HI),
        Request(first + 2, "d", HI, 64),
    ]

    told = fed(side, [b"".join(map(compact.encode, said))])

    assert told == [(True, compact.encode(frame)[4:]) for frame in said]
    known = requests_of(side).answering
    assert [*known] == [first, first + 2]
    call, stream = known.values()
    assert (call.command, call.is_stream, call.credit) == ("b", False, 0)
    assert (stream.command, stream.is_stream, stream.credit) == ("d", True, 64)
    assert requests_of(side).begin(first + 2) is stream  # in any order
    assert requests_of(side).begin(first) is call


@pytest.mark.parametrize("in_one_read", [True, False])
@pytest.mark.parametrize("by_client", [True, False])
def test_what_steers_a_request_overtakes_its_turn(
    by_client: bool, in_one_read: bool
) -> None:
    """A cancellation or credit acts while the request itself still waits."""
    stage, first = ids_of(by_client)
    side = in_stage(stage)
    said: list[PackedFrame] = [
        Message("a", HI),
        Request(first, "b", HI),
        Request(first + 2, "c", HI, 2),
        Request(first + 4, "d", HI),
        Cancel(first),
        Credit(first + 2, 5),
    ]
    pieces = [*map(compact.encode, said)]

    told = fed(side, [b"".join(pieces)] if in_one_read else pieces)

    assert told == [(True, compact.encode(frame)[4:]) for frame in said[:4]]
    call, stream, other = (
        requests_of(side).begin(first + number) for number in (0, 2, 4)
    )
    assert call is not None
    assert stream is not None
    assert other is not None
    assert (call.is_over, stream.is_over, other.is_over) == (True, False, False)
    assert stream.credit == 7
    assert side.is_open


@pytest.mark.parametrize("by_client", [True, False])
def test_too_many_requests_are_refused_at_their_turn(by_client: bool) -> None:
    """They are told in order like the others, and cost the peer nothing else."""
    stage, first = ids_of(by_client)
    side = in_stage(stage, Limits(requests=1))
    said: list[PackedFrame] = [
        Request(first, "a", HI),
        Request(first + 2, "b", HI),
        Message("c", HI),
        Cancel(first + 2),
    ]

    told = fed(side, [b"".join(map(compact.encode, said))])

    assert told == [(True, compact.encode(frame)[4:]) for frame in said[:3]]
    assert requests_of(side).begin(first) is not None
    assert requests_of(side).begin(first + 2) is None
    assert side.is_open


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("wrong", ["again", "smaller", "of the other side", "refused"])
def test_an_id_that_is_not_new_is_a_violation(by_client: bool, wrong: str) -> None:
    """Told while it is read, with the reason; what came before it counts."""
    stage, first = ids_of(by_client)
    side = in_stage(stage, Limits(requests=1))
    said: list[PackedFrame] = [
        Message("a", HI),
        Request(first + 2, "b", HI),
        Request(first + 4, "c", HI),
    ]
    number = {
        "again": first + 2,
        "smaller": first,
        "of the other side": first + 5,
        "refused": first + 4,
    }[wrong]
    before = fed(side, [b"".join(map(compact.encode, said))])
    theirs = requests_of(side).answering[first + 2]

    *_, closed = fed(side, [compact.encode(Request(number, "d", HI))])

    assert before == [(True, compact.encode(frame)[4:]) for frame in said]
    told = f"the id {number} of a request is not new, or not the sender's"
    assert isinstance(closed, Closed)
    assert closed.reason == told
    assert isinstance(closed.error, RemoteProtocolError)
    assert goodbye(side) == Bye(5, told)
    assert theirs.is_over
    assert requests_of(side).begin(number) is None  # so nothing of it runs


def test_a_broken_request_is_a_violation() -> None:
    """Its id is needed at once, so what is wrong with it is told at once."""
    server = in_stage("compact server")
    body = b"\x94\x02\x00\xa1c\xc0"

    before, *_, closed = fed(
        server, [packed("a", b"1") + compact.header(len(body)) + body]
    )

    assert before == (True, packed("a", b"1")[4:])
    assert isinstance(closed, Closed)
    assert closed.reason.startswith("a frame is broken: ")
    assert requests_of(server).answering == {}


def test_what_waits_for_its_turn() -> None:
    """All else is told in order, packed, and the connection does not look into it."""
    server = in_stage("compact server")
    frames: list[PackedFrame] = [
        Message("a", HI),
        Request(1, "b", HI),
        Rename("x"),
        Regroup(None),
        Roster(True),
        Groups(["a"], []),
        Bye(),
    ]
    data = b"".join(map(compact.encode, frames)) + compact.header(2) + b"\x91\x7f"

    told = fed(server, [data])

    assert told == [
        *((True, compact.encode(frame)[4:]) for frame in frames),
        (True, b"\x91\x7f"),
    ]
    assert server.is_open


LARGE: Final = packed("large", bytes(range(256)) * 2048)


def fed_in_place(side: Connection, stream: bytes) -> list[object]:
    """What a stream tells, every byte through ``room`` that has one."""
    events: list[Event] = []
    at = 0
    while at < len(stream):
        room = side.room
        if room is None:
            piece = stream[at : at + 65_536]
            events += side.feed(piece, START)
            at += len(piece)
        else:
            count = min(len(room), 50_000, len(stream) - at)
            room[:count] = stream[at : at + count]
            events += side.feed(count, START)
            at += count
    return flat(events)


@pytest.mark.parametrize("by_client", [True, False])
def test_a_large_message_is_received_in_place(by_client: bool) -> None:
    """What comes through ``room`` is told as if it had been fed; so is all around."""
    stage, number = ids_of(by_client)
    small: list[PackedFrame] = [Ping(1), Request(number, "b", HI), Cancel(number)]
    stream = b"".join([packed("a", b"1"), LARGE, *map(compact.encode, small), LARGE])
    in_place, by_feeding = in_stage(stage), in_stage(stage)

    told = fed_in_place(in_place, stream)

    assert told == fed(by_feeding, split(stream, range(0, len(stream), 65_536)))
    assert told == [
        (True, packed("a", b"1")[4:]),
        (True, LARGE[4:]),
        (True, compact.encode(Request(number, "b", HI))[4:]),
        (True, LARGE[4:]),
    ]
    for side in (in_place, by_feeding):
        assert side.room is None
        assert side.take_bytes() == compact.encode(Pong(1))
        assert requests_of(side).answering[number].is_over


@pytest.mark.parametrize("end", ["eof", "lost", "close"])
def test_an_end_takes_the_room_away(end: str) -> None:
    """Inside a large message too; what still comes of it is thrown away."""
    server = in_stage("compact server")
    server.feed(LARGE[:65_536], START)
    room = server.room
    assert room is not None

    (closed,) = ENDS[end](server)

    assert isinstance(closed, Closed)
    assert server.room is None
    assert server.feed(1000, START) == []
    assert server.feed(LARGE[65_536:], START) == []


def test_a_large_frame_that_is_none_is_a_violation() -> None:
    """It is refused when it is whole, in place or not; what came before it counts."""
    broken = compact.header(300_000) + b"\x91\xc0".ljust(300_000, b"\x01")
    stream = packed("a", b"1") + broken
    for feed in (fed_in_place, lambda side, data: fed(side, split(data, [65_536]))):
        server = in_stage("compact server")
        before, closed = feed(server, stream)
        assert before == (True, packed("a", b"1")[4:])
        assert isinstance(closed, Closed)
        assert isinstance(closed.error, RemoteProtocolError)
        assert goodbye(server) == Bye(5, closed.reason)
        assert server.room is None


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        *(compact.header(0), compact.header(101), compact.header(2) + b"\xc0\xc0"),
        *(compact.header(2) + b"\x91\x06", compact.header(3) + b"\x92\x21\xc0"),
        compact.header(3) + b"\x92\x20\xff",
    ],
    ids=repr,
)
def test_a_violation_on_the_compact_wire(by_client: bool, wrong: bytes) -> None:
    """What was right before it counts; the goodbye has code 5 and says why."""
    side = in_stage(
        "compact client" if by_client else "compact server", Limits(message=100)
    )
    before, closed = fed(side, [packed("a", b"1") + wrong])

    assert before == (True, packed("a", b"1")[4:])
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, RemoteProtocolError)
    assert Bye(5, closed.reason) == goodbye(side)
    assert (side.state, side.deadline) == (State.CLOSING, START + LINGER)
    assert fed(side, [compact.encode(Ping(1))]) == []
    assert side.take_bytes() == b""


def test_an_answer_of_the_wrong_kind_is_a_violation() -> None:
    """A stream's item for a call ends the connection; the caller hears of it."""
    client = in_stage("compact client")
    assert client.requests is not None
    call = client.requests.ask("sum")

    (closed,) = fed(client, [compact.encode(Item(call.id, HI))])

    assert isinstance(closed, Closed)
    assert closed.reason == "Item is no answer to 'sum'"
    assert isinstance(call.failure, SessionLost)
    assert goodbye(client) == Bye(5, "Item is no answer to 'sum'")


@pytest.mark.parametrize("by_client", [True, False])
def test_a_goodbye_on_the_compact_wire(by_client: bool) -> None:
    """It has a code and the reason, or is the one that was given; once."""
    stage = "compact client" if by_client else "compact server"
    plain_end, own = in_stage(stage), in_stage(stage)

    assert plain_end.close("done", START) == [Closed("done")]
    assert own.close("done", START, Bye(17, "later", 500)) == [Closed("done")]
    assert (goodbye(plain_end), goodbye(own)) == (Bye(0, "done"), Bye(17, "later", 500))
    assert (plain_end.take_bytes(), own.take_bytes()) == (b"", b"")


def test_a_goodbye_between_welcome_and_confirmation() -> None:
    """What a server writes after its welcome is compact, the goodbye too."""
    server = in_stage("welcoming")
    server.close("done", START)

    (closing,) = fed(
        Talk().client, [said(WELCOME, by_client=False) + server.take_bytes()]
    )

    assert closing == (True, compact.encode(Bye(0, "done"))[4:])


def test_a_goodbye_that_was_given_on_the_classic_wire() -> None:
    """The classic wire has room for the word alone."""
    for stage, word in (("asking", b"$USRCLOSE$"), ("classic server", b"$DISCONN$")):
        side = in_stage(stage)
        side.close("done", START, Bye(17, "later", 500))
        assert side.take_bytes() == frame(word)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("x" * 5000, "x" * 1024),
        ("no file \udcff", "no file ?"),
        ("gr\u00fcn", "gr\u00fcn"),
    ],
    ids=range(3),
)
def test_no_reason_is_too_much_for_a_goodbye(reason: str, text: str) -> None:
    """A long reason is cut; what is not Unicode in it is replaced; it always leaves."""
    server = in_stage("compact server")

    assert server.close(reason, START) == [Closed(reason)]
    assert goodbye(server) == Bye(0, text)


ENDS: dict[str, Callable[[Connection], list[Event]]] = {
    "eof": lambda side: side.feed_eof(START),
    "lost": lambda side: side.lost("reset", START),
    "close": lambda side: side.close("done", START),
    "violation": lambda side: side.feed(b"\x00" * 4, START),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("by_client", [True, False])
def test_an_end_fails_what_is_open(by_client: bool, end: str) -> None:
    """Whoever waits for an answer is woken, and hears that the session is lost."""
    side = in_stage("compact client" if by_client else "compact server")
    requests = requests_of(side)
    call, stream = requests.ask("sum"), requests.ask("tail", is_stream=True)
    number = 2 if by_client else 1
    requests.announce(Request(number, "x", HI))
    theirs = requests.begin(number)
    assert theirs is not None
    woken: list[str] = []

    def wake() -> None:
        woken.append(WOKEN)

    call.wake = stream.wake = theirs.wake = wake
    (closed,) = ENDS[end](side)

    assert isinstance(closed, Closed)
    for asked in (call, stream):
        assert isinstance(asked.failure, SessionLost)
        assert str(asked.failure) == f"no answer came: {closed.reason}"
        assert asked.is_done
    assert theirs.is_over
    assert woken == [WOKEN] * 3
    ENDS["lost"](side)
    assert woken == [WOKEN] * 3


@pytest.mark.parametrize("by_client", [True, False])
def test_the_limit_of_open_requests(by_client: bool) -> None:
    """Limits.requests holds on both sides, each with its own ids."""
    side = in_stage(
        "compact client" if by_client else "compact server", Limits(requests=1)
    )
    requests = requests_of(side)
    mine, theirs = (1, 2) if by_client else (2, 1)

    assert requests.ask("a").id == mine
    with pytest.raises(Overloaded):
        requests.ask("b")
    for number in (theirs, theirs + 2):
        requests.announce(Request(number, "a", HI))
    assert requests.begin(theirs) is not None
    assert requests.begin(theirs + 2) is None


# --- the peer's clock ------------------------------------------------------------


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("their_now", [0, 5_000, 100_000, 10**9])
def test_a_deadline_of_the_peers_clock(by_client: bool, their_now: int) -> None:
    """Whatever the peer's clock shows, a deadline on it is over a moment after it."""
    talk = Talk()
    if by_client:
        side = talk.client
        fed(side, [said(Welcome(PROTO, now=their_now), by_client=False)])
    else:
        side = talk.server
        fed(side, [said(Hello(None, None, PROTO, their_now), by_client=True)])
    ttl = their_now + 250  # a quarter of a second, which a float holds exactly
    steps = [START, START + 0.25, START + 0.251, START + 0.2525, START + 10]

    assert [side.is_expired(ttl, now) for now in steps] == [
        *(False, False, False),
        *(True, True),
    ]
    assert not side.is_expired(None, START + 10**6)


def test_without_a_clock_nothing_expires() -> None:
    """A peer that has not told its time cannot set a deadline either."""
    for stage in ("hello", "asking", "classic client", "classic server"):
        assert not in_stage(stage).is_expired(0, START + 10**6)


@given(st.floats(0, 10**6), st.integers(0, 2**52), st.integers(0, 10**6))
def test_a_life_time_is_never_cut_short(now: float, their_now: int, life: int) -> None:
    """Rounding of clocks never makes a deadline come too early."""
    side = Talk().server
    side.feed(said(Hello(None, None, PROTO, their_now), by_client=True), now)

    assert not side.is_expired(their_now + life, now + life / 1000)
    assert side.is_expired(their_now + life, now + life / 1000 + 0.003)


@pytest.mark.parametrize("readings", [(5_000, 4_000), (4_000, 5_000), (5_000, 5_000)])
def test_the_smaller_offset_holds(readings: tuple[int, int]) -> None:
    """Of two readings of the peer's clock the one that came faster is believed."""
    side = Talk().server
    for their_now in readings:
        side._learn_clock(their_now, START)
    latest = max(readings)

    assert not side.is_expired(latest, START)
    assert side.is_expired(latest - 250, START)


def test_milliseconds_are_whole() -> None:
    """The wire writes a point in time as whole milliseconds."""
    assert [milliseconds(now) for now in (0.0, 0.0015, 100.25)] == [0, 1, 100_250]


# --- every stage, every frame ----------------------------------------------------


def in_stage(stage: str, limits: Limits | None = None) -> Connection:
    """A connection at one point of the negotiation."""
    limits = limits or Limits()
    match stage:
        case "hello":
            return Connection(limits, START)
        case "asking":
            return Talk(limits=limits).client
        case "classic client":
            side = Talk(limits=limits).client
            fed(side, [frame(b"$NOTLS$")])
        case "classic server":
            side = Talk(limits=limits).server
            fed(side, [said(ADA, by_client=True)])
        case "unwelcomed":
            side = Talk(limits=limits).server
            fed(side, [said(NEW_ADA, by_client=True)])
        case "welcoming":
            side = in_stage("unwelcomed", limits)
            side.serve("Ada", "red", START)
        case "compact client":
            side = agreed(limits).client
        case "compact server":
            side = agreed(limits).server
        case "closing":
            side = agreed(limits).server
            side.close("done", START)
        case _:
            side = agreed(limits).client
            side.lost("lost", START)
    side.take_bytes()
    return side


STAGES: Final = (
    "hello",
    "asking",
    "classic client",
    "classic server",
    "unwelcomed",
    "welcoming",
    "compact client",
    "compact server",
    "closing",
    "closed",
)
PACKED: list[PackedFrame] = [
    Message("a", HI),
    Message(None, HI, 5),
    Request(1, "a", HI),
    Request(2, "a", HI, 64),
    Reply(1, HI),
    Failure(2, "a", "b"),
    Item(1, HI),
    End(2),
    Credit(1, 5),
    Cancel(2),
    Rename("x"),
    Regroup(None),
    Roster(True),
    Joined({}),
    Left({}),
    Gap(1),
    Groups([], []),
    Ack(1),
    Ping(1),
    Pong(1),
    Bye(),
]
CLASSIC: list[bytes] = [
    *(b"", b"hi", b"$", b"$CHNAME$", b"$CHGROUP$ x", b"$GETCLT$ Ada", b"$DH_NUMS$"),
    *(b"$USRCLOSE$", b"$DISCONN$", b"$CLTCONN$ {}", b"$CLTDISCONN$ {}", b"$NOTLS$"),
    *(b"$COMPACT$", b"$COMPACT$ x", b"$REFUSED$ {}", b"$REFUSED$", b"$WELCOME$"),
    *(encode_frame(WELCOME), encode_frame(Welcome(3)), encode_frame(NEW_ADA)),
    *(encode_frame(ADA), encode_frame(Compact()), encode_frame(Refusal("a", "b", 1))),
]
INPUTS: Final = [
    *map(frame, CLASSIC),
    *map(compact.encode, PACKED),
    *(b"$CHNAME$", b"$CHGROUP$", b"garbage", b"\x00" * 8, b"\xff" * 8, b"1" * 65),
    *(compact.header(2) + b"\x91\x7f", compact.header(2) + b"\x91\x06"),
    compact.header(300) + b"\x91" * 300,
]


def check_reaction(connection: Connection, events: list[Event]) -> None:
    """Events are known, the end is the last, and the goodbye can be read."""
    kinds = [type(event) for event in events]
    assert {Opened, Messages, Closed} >= set(kinds)
    assert Closed not in kinds[:-1]
    assert connection.is_open is (connection.state is State.OPEN)
    for event in events:
        if isinstance(event, Messages):
            for body in event.bodies:
                read_body(body, is_packed=event.is_packed)


def read_body(body: bytes, *, is_packed: bool) -> None:
    """Look into a body as the engine does when its turn comes."""
    try:
        if is_packed:
            compact.decode(body)
        else:
            decode_control(body, by_client=True)
            decode_control(body, by_client=False)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize("data", INPUTS, ids=lambda data: repr(data)[:40])
@pytest.mark.parametrize("stage", STAGES)
def test_every_frame_in_every_stage(stage: str, data: bytes) -> None:
    """Each frame at each point is accepted, or ends it; it never raises."""
    connection = in_stage(stage)
    was_over = stage in ("closing", "closed")
    before = connection.state

    events = connection.feed(data, START)

    check_reaction(connection, events)
    ended = [event for event in events if isinstance(event, Closed)]
    if was_over:
        assert (events, connection.state) == ([], before)
    else:
        assert bool(ended) is (connection.state in (State.CLOSING, State.CLOSED))


@given(
    st.sampled_from(STAGES),
    st.lists(st.sampled_from(INPUTS) | st.binary(max_size=40), max_size=12),
    st.data(),
)
def test_any_frames_in_any_stage(
    stage: str, pieces: list[bytes], data: st.DataObject
) -> None:
    """Any frames and bytes, cut anywhere: one end at most, nothing after it."""
    connection = in_stage(stage)
    stream = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    events: list[Event] = []
    for piece in split(stream, cuts):
        new = connection.feed(piece, START)
        for event in new:
            if isinstance(event, Opened) and event.hello.proto:
                connection.serve(event.hello.name, event.hello.group, START)
        events += new

    check_reaction(connection, events)
    kinds = [type(event) for event in events]
    assert kinds.count(Opened) <= 1


# --- every state, every input ----------------------------------------------------


Step = Callable[[Connection, float], list[Event]]


def expire(connection: Connection, now: float) -> list[Event]:
    """Time passes until the deadline, if there is one."""
    return connection.tick(now + 10**6)


STEPS: dict[Input, Step] = {
    Input.HELLO: lambda connection, now: connection.feed(hello(), now),
    Input.VIOLATION: lambda connection, now: connection.feed(b"x", now),
    Input.EOF: lambda connection, now: connection.feed_eof(now),
    Input.LOST: lambda connection, now: connection.lost("lost", now),
    Input.EXPIRED: expire,
    Input.CLOSE: lambda connection, now: connection.close("close", now),
}


def in_state(state: State, *, by_client: bool = False) -> Connection:
    """A connection in a state."""
    pair = Pair()
    if by_client:
        connection = pair.client
    else:
        connection = pair.server
        if state is not State.HELLO:
            pair.say_hello()
    if state is State.CLOSING:
        connection.close("done", START)
    elif state is State.CLOSED:
        connection.lost("lost", START)
    return connection


@pytest.mark.parametrize("happened", Input, ids=lambda one: one.name)
@pytest.mark.parametrize("state", State, ids=lambda one: one.name)
def test_every_input_in_every_state(state: State, happened: Input) -> None:
    """Each input leads where the table says, or changes nothing; none raises."""
    connection = in_state(state)

    events = STEPS[happened](connection, START)

    assert connection.state in (state, TRANSITIONS[state].get(happened))
    ended = [event for event in events if isinstance(event, Closed)]
    is_end = state in (State.HELLO, State.OPEN) and connection.state in (
        State.CLOSING,
        State.CLOSED,
    )
    assert is_end == bool(ended)


@pytest.mark.parametrize(
    ("state", "happened"),
    [(state, happened) for state, row in TRANSITIONS.items() for happened in row],
    ids=lambda one: one.name,
)
def test_every_step_of_the_table_happens(state: State, happened: Input) -> None:
    """The table promises nothing that a connection does not do."""
    connection = in_state(state)

    STEPS[happened](connection, START)

    assert TRANSITIONS[state][happened] is connection.state


@given(
    st.lists(
        st.sampled_from([*Input]) | st.binary(min_size=1, max_size=60), max_size=12
    ),
    st.booleans(),
)
def test_whatever_happens(steps: list[Input | bytes], by_client: bool) -> None:
    """In any order: one end at most, nothing after it, one goodbye at most."""
    connection = in_state(State.OPEN if by_client else State.HELLO, by_client=by_client)
    events: list[Event] = []
    goodbyes = b""
    now = START
    for step in steps:
        before = connection.state
        if isinstance(step, bytes):
            events += connection.feed(step, now)
        else:
            events += STEPS[step](connection, now)
        goodbyes += connection.take_bytes()
        now += 0.1
        after = connection.state
        reached = {before, *TRANSITIONS[before].values()}
        if before is State.HELLO:  # the hello and more, in one read
            reached |= set(TRANSITIONS[State.OPEN].values())
        assert after in reached
        assert connection.is_open is (after is State.OPEN)
        assert after is not State.CLOSED or connection.deadline is None
        assert after is not State.CLOSING or connection.deadline is not None

    kinds = [type(event) for event in events]
    assert kinds.count(Opened) <= 1
    assert kinds.count(Closed) <= 1
    assert Closed not in kinds[:-1]
    assert (Closed in kinds) == (connection.state in (State.CLOSING, State.CLOSED))
    assert goodbyes in (
        b"",
        frame(encode_frame(Bye(), by_client=by_client), connection.header_len or 16),
    )


@given(st.lists(st.binary(min_size=1, max_size=200)))
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    """Whatever a peer sends is told as an event, never raised."""
    for connection in (in_state(State.HELLO), in_state(State.OPEN)):
        for piece in pieces:
            for event in connection.feed(piece, START):
                assert isinstance(event, Opened | Messages | Closed)
