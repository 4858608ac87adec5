"""When a silent peer counts as gone, with a clock that is turned by hand."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hisock.session.connection import LINGER, Connection, milliseconds
from hisock.session.events import Closed
from hisock.session.resume import Session
from hisock.session.states import State
from hisock.types import Limits
from hisock.wire import compact
from hisock.wire.classic import encode_frame
from hisock.wire.frames import NoTLS, Ping, Pong, Welcome

from .talk import ADA, NEW_ADA, START, WELCOME, frame, hello, packed, said

DEAD_AFTER: Final = 20.0
GONE: Final = Closed("nothing came for 20 s", is_cut=True)


def client_of(dead_after: float = DEAD_AFTER) -> Connection:
    """A client that has read its welcome at ``START``."""
    client = Connection(Limits(), START, header_len=16, dead_after=dead_after)
    client.feed(said(WELCOME, by_client=False), START)
    client.take_bytes()
    return client


def server_of(*, beats: bool, dead_after: float = DEAD_AFTER) -> Connection:
    """A server whose client has confirmed its welcome at ``START``."""
    server = Connection(Limits(), START, dead_after=dead_after)
    server.feed(said(NEW_ADA, by_client=True), START)
    server.serve("Ada", "red", START, beats=beats)
    server.feed(frame(b"$COMPACT$"), START)
    server.take_bytes()
    return server


@pytest.fixture
def client() -> Connection:
    """A client on the compact wire."""
    return client_of()


@pytest.fixture
def server() -> Connection:
    """A server whose client is read all the time."""
    return server_of(beats=True)


def pings(client: Connection) -> int:
    """How often it asks now whether somebody is there; it says nothing else."""
    frames: list[bytes] = []
    compact.Decoder(0).feed(client.take_bytes(), [], frames)
    assert all(isinstance(compact.decode(one), Ping) for one in frames)
    return len(frames)


def answer(client: Connection, now: float) -> None:
    """The server's pong has come."""
    assert client.feed(compact.encode(Pong(1)), now) == []


# --- a client --------------------------------------------------------------------


def test_a_client_asks_after_half_of_the_time(client: Connection) -> None:
    """10 s without a byte, and it asks whether somebody is there; once."""
    told = []
    for late in (0.0, 5.0, 9.999, 10.0, 10.5, 15.0, 19.999):
        client.needs_attention = False
        assert client.tick(START + late) == []
        told.append((late, client.needs_attention, pings(client)))

    assert told == [
        *((late, False, 0) for late in (0.0, 5.0, 9.999)),
        (10.0, True, 1),
        *((late, False, 0) for late in (10.5, 15.0, 19.999)),
    ]


def test_a_client_is_woken_for_it(client: Connection) -> None:
    """Its deadline is when it asks, then when it gives up."""
    deadlines = [client.deadline]
    client.tick(START + 10)
    deadlines.append(client.deadline)

    assert deadlines == [START + 10, START + 20]


def test_a_client_gives_up_after_the_other_half(client: Connection) -> None:
    """The link is lost, resumable, and nobody is told goodbye."""
    client.tick(START + 10)
    client.take_bytes()

    assert client.tick(START + 19.999) == []
    assert client.tick(START + 20) == [GONE]
    assert (client.state, client.deadline) == (State.CLOSED, None)
    assert client.take_bytes() == b""
    assert client.tick(START + 1000) == []


def test_a_pong_keeps_the_link(client: Connection) -> None:
    """Whenever the answer comes, the time counts from there."""
    client.tick(START + 10)
    pings(client)
    answer(client, START + 19.9)

    assert client.tick(START + 20) == []
    assert pings(client) == 0
    assert client.deadline == START + 29.9
    assert client.tick(START + 29.9) == []
    assert pings(client) == 1
    assert client.tick(START + 39.8) == []
    assert client.tick(START + 39.9) == [GONE]


@pytest.mark.parametrize("late", [0.0, 0.001, 0.05, 1.0, 9.9])
def test_a_server_that_answers_is_never_given_up(late: float) -> None:
    """However quickly it answers, and however late the clock is looked at at times."""
    client = client_of()
    now = START
    asked = 0
    for number in range(20):
        assert client.deadline is not None
        now = max(now, client.deadline) + late * (number % 2)
        assert client.tick(now) == []
        if count := pings(client):
            asked += count
            answer(client, now + 0.0001)

    assert asked >= 9


@given(st.lists(st.floats(0.0, 9.9), min_size=1, max_size=40))
def test_who_answers_is_never_given_up(lates: list[float]) -> None:
    """Whatever the delays of the clock: a server that answers each ping stays."""
    client = client_of()
    now = START
    for late in lates:
        assert client.deadline is not None
        now = max(now, client.deadline) + late
        assert client.tick(now) == []
        if pings(client):
            answer(client, now + 0.0001)


@pytest.mark.parametrize(
    "data", [packed("a", b"1"), compact.encode(Ping(1)), packed("a", b"1")[:1]]
)
def test_any_byte_is_a_sign_of_life(client: Connection, data: bytes) -> None:
    """Not only pongs: a message, a ping, the first byte of a frame."""
    client.feed(data, START + 9)
    client.take_bytes()

    assert client.tick(START + 10) == []
    assert (client.deadline, pings(client)) == (START + 19, 0)
    client.tick(START + 19)
    assert pings(client) == 1


def test_the_numbers_of_pings_are_small(client: Connection) -> None:
    """However long the machine is up: two bytes are enough."""
    client.listen_anew(START + 10**9)
    client.tick(START + 10**9 + 10)
    frames: list[bytes] = []
    compact.Decoder(0).feed(client.take_bytes(), [], frames)
    ping = compact.decode(frames[0])

    assert isinstance(ping, Ping)
    assert 0 <= ping.n < 2**16


# --- a client that was not pumped ------------------------------------------------


def test_silence_counts_from_when_somebody_listens(client: Connection) -> None:
    """A program that sat in ``input()`` for an hour asks before it gives up."""
    client.listen_anew(START + 3600)

    assert client.deadline == START + 3610
    assert client.tick(START + 3600) == []
    assert pings(client) == 0
    assert client.tick(START + 3610) == []
    assert pings(client) == 1
    assert client.tick(START + 3620) == [GONE]


def test_who_had_asked_asks_again(client: Connection) -> None:
    """The answer to a ping of an hour ago says nothing of now."""
    client.tick(START + 10)
    first = pings(client)
    client.listen_anew(START + 3600)
    client.tick(START + 3610)

    assert (first, pings(client)) == (1, 1)


def test_a_server_listens_anew_too(server: Connection) -> None:
    """One whose ``run()`` was not called for an hour gives everybody the time again."""
    server.listen_anew(START + 3600)

    assert server.deadline == START + 3610
    assert server.tick(START + 3619.9) == []
    assert server.tick(START + 3620) == [GONE]


@pytest.mark.parametrize("state", ["hello", "asking", "closing", "closed"])
def test_to_listen_anew_changes_no_other_deadline(state: str) -> None:
    """A handshake, a wait for the welcome and an ending last as long as they did."""
    if state == "hello":
        side = Connection(Limits(), START, dead_after=DEAD_AFTER)
    elif state == "asking":
        side = Connection(Limits(), START, header_len=16, dead_after=DEAD_AFTER)
    else:
        side = client_of()
        _ = side.close("x", START) if state == "closing" else side.lost("x", START)
    before = side.deadline
    side.listen_anew(START + 3)

    assert side.deadline == before
    expected = {"hello": START + 5, "closing": START + LINGER}
    assert before == expected.get(state)


# --- a server --------------------------------------------------------------------


def test_a_server_cuts_a_client_that_beats(server: Connection) -> None:
    """One that is read all the time would answer: after 20 s it is gone."""
    assert server.deadline == START + 10
    assert server.tick(START + 10) == []
    # It asks, too: its client may be more patient than it is.
    assert server.take_bytes() == compact.encode(Ping(milliseconds(START + 10) % 2**16))
    assert server.tick(START + 19.999) == []
    assert server.take_bytes() == b""
    assert server.tick(START + 20) == [GONE]
    assert (server.state, server.take_bytes()) == (State.CLOSED, b"")


def test_a_server_leaves_a_client_alone_that_does_not() -> None:
    """A plain blocking client may sit in ``input()`` for as long as it likes."""
    server = server_of(beats=False)

    assert server.deadline is None
    assert server.tick(START + 10**6) == []
    server.listen_anew(START + 10**6)
    assert (server.state, server.deadline) == (State.OPEN, None)


def test_a_ping_keeps_a_client(server: Connection) -> None:
    """Each one gives it the whole time again, and is answered."""
    now = START
    for _ in range(5):
        now += 19.9
        server.feed(compact.encode(Ping(1)), now)
        assert server.take_bytes() == compact.encode(Pong(1))
        assert server.tick(now) == []
    assert server.tick(now + 19.9) == []
    assert server.tick(now + 20) == [GONE]


def test_both_sides_keep_each_other() -> None:
    """A client that asks and a server that answers are never gone, for a day."""
    client, server = client_of(), server_of(beats=True)
    now = START
    while now < START + 86_400:
        dues = [due for due in (client.deadline, server.deadline) if due is not None]
        now = max(now, min(dues)) + 0.001
        assert client.tick(now) == server.tick(now) == []
        assert server.feed(client.take_bytes(), now + 0.0001) == []
        assert client.feed(server.take_bytes(), now + 0.0002) == []


# --- where silence is not counted ------------------------------------------------


def test_time_without_a_limit() -> None:
    """0 switches it off, on both sides."""
    for side in (client_of(0.0), server_of(beats=True, dead_after=0.0)):
        assert side.deadline is None
        assert side.tick(START + 10**6) == []
        side.listen_anew(START + 10**6)
        assert (side.state, side.deadline) == (State.OPEN, None)


@pytest.mark.parametrize("by_client", [True, False])
def test_silence_of_a_1_1_peer(by_client: bool) -> None:
    """The classic wire has no ping, so its silence means nothing."""
    if by_client:
        side = Connection(Limits(), START, header_len=16, dead_after=DEAD_AFTER)
        side.feed(frame(encode_frame(NoTLS())), START)
    else:
        side = Connection(Limits(), START, dead_after=DEAD_AFTER)
        side.feed(hello(), START)

    assert side.deadline is None
    assert side.tick(START + 10**6) == []
    assert side.state is State.OPEN


def test_silence_before_the_welcome() -> None:
    """A client that waits for it has nothing yet to ask with."""
    client = Connection(Limits(), START, header_len=16, dead_after=DEAD_AFTER)

    assert client.deadline is None
    assert client.tick(START + 10**6) == []
    client.feed(said(WELCOME, by_client=False), START + 50)
    assert client.deadline == START + 60


def test_after_its_own_goodbye_nobody_asks(client: Connection) -> None:
    """An ending is over after its second; it is no silence."""
    client.close("done", START + 1)
    client.take_bytes()

    assert client.tick(START + 1 + LINGER) == []
    assert (client.state, client.take_bytes()) == (State.CLOSED, b"")


def test_a_session_is_silent_like_any_other() -> None:
    """Its link is lost, and it owes what it owed: nothing is said on the way out."""
    session = Session("5" * 32, 30.0)
    client = Connection(
        Limits(), START, header_len=16, session=session, dead_after=DEAD_AFTER
    )
    welcome = Welcome(WELCOME.proto, ADA.name, sid=session.sid, epoch="e")
    client.feed(said(welcome, by_client=False) + packed("a", b"1"), START)
    client.take_bytes()
    client.tick(START + 10)
    client.take_bytes()

    assert client.tick(START + 20) == [GONE]
    assert (client.take_bytes(), session.owes, session.received) == (b"", True, 1)


def test_a_ping_measures_the_round_trip(server: Connection) -> None:
    """The answer to the ping that was asked last tells how long it took; any other
    number tells nothing."""
    assert server.round_trip is None
    server.ping(START + 1)
    frames: list[bytes] = []
    compact.Decoder(0).feed(server.take_bytes(), [], frames)
    asked = compact.decode(frames[0])
    assert isinstance(asked, Ping)

    measured: list[tuple[float | None, float | None]] = []
    for number, after in ((asked.n + 1, 1.25), (asked.n, 1.5), (asked.n, 9.0)):
        server.feed(compact.encode(Pong(number)), START + after)
        measured.append((server.round_trip, server.pinged_at))

    assert measured == [(None, START + 1), (0.5, None), (0.5, None)]
