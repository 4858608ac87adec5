"""Two peers' conversation, bytes piped by hand and the clock turned by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spelled import spelled

from hisock.errors import RemoteProtocolError
from hisock.session.connection import LINGER, Connection
from hisock.session.events import Closed, Event, Messages, Opened
from hisock.session.states import TRANSITIONS, Input, State
from hisock.types import Limits
from hisock.wire.classic import encode_frame, header
from hisock.wire.compact import cut_frames, decode, encode
from hisock.wire.frames import (
    Bye,
    PackedHello,
)

from .talk import (
    ADA,
    CUT,
    START,
    Pair,
    frame,
    hello,
    plain,
)


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
    ids=spelled,
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

    assert open_pair.server.feed_eof(START) == [CUT]
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
    assert pair.server.feed_eof(START) == [CUT]
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


# --- every state, every input ----------------------------------------------------


Step = Callable[[Connection, float], list[Event]]


def expire(connection: Connection, now: float) -> list[Event]:
    """Time passes until the deadline, if there is one."""
    return connection.tick(now + 10**6)


def packed_hello() -> bytes:
    """What a client says first on a WebSocket."""
    return encode(PackedHello({"name": "ada", "group": None, "proto": 2, "now": 0}))


def greet(connection: Connection, now: float) -> list[Event]:
    """A hello comes, as the client's wire has it."""
    return connection.feed(packed_hello() if connection.is_packed else hello(), now)


def guard(connection: Connection, now: float) -> list[Event]:
    """A hello comes to a server that wants proof."""
    connection.is_guarded = True
    return greet(connection, now)


def upgrade(connection: Connection, now: float) -> list[Event]:
    """It began as HTTP, which is read below."""
    if connection.state is State.HELLO:
        connection.expect_packed()
    return []


def violate(connection: Connection, now: float) -> list[Event]:
    """Bytes come that are nothing, of the length of a header at least."""
    return connection.feed(b"xxxx", now)


def admit(connection: Connection, now: float) -> list[Event]:
    """Whoever has to prove who it is has done so."""
    return connection.let_in(now) if connection.state is State.ASKED else []


STEPS: dict[Input, Step] = {
    Input.UPGRADE: upgrade,
    Input.HELLO: greet,
    Input.GUARD: guard,
    Input.ADMIT: admit,
    Input.VIOLATION: violate,
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
        connection.is_guarded = state is State.ASKED
        if state is State.UPGRADED:
            connection.expect_packed()
        elif state is not State.HELLO:
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
    ends = (State.CLOSING, State.CLOSED)
    is_end = state not in ends and connection.state in ends
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
        if before in (State.HELLO, State.UPGRADED):  # the hello and more, in one read
            reached |= set(TRANSITIONS[State.OPEN].values())
            reached |= set(TRANSITIONS[State.ASKED].values())
        assert after in reached
        assert connection.is_open is (after in (State.ASKED, State.OPEN))
        assert after is not State.CLOSED or connection.deadline is None
        assert after is not State.CLOSING or connection.deadline is not None

    kinds = [type(event) for event in events]
    assert kinds.count(Opened) <= 1
    assert kinds.count(Closed) <= 1
    assert Closed not in kinds[:-1]
    assert (Closed in kinds) == (connection.state in (State.CLOSING, State.CLOSED))
    if connection.is_packed:
        assert [type(decode(body)) for body in cut_frames(goodbyes)] in ([], [Bye])
        return
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
