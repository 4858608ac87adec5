"""Which wire is spoken: hello, welcome, confirmation, and all that comes instead."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from hisock.errors import Refused, RemoteProtocolError
from hisock.session.connection import LINGER
from hisock.session.events import Closed, Opened
from hisock.session.states import State
from hisock.wire import compact
from hisock.wire.classic import encode_frame
from hisock.wire.frames import (
    PROTO,
    Hello,
    Ping,
    Pong,
    Refusal,
    Welcome,
)

from .talk import (
    ADA,
    NEW_ADA,
    START,
    WELCOME,
    Talk,
    agreed,
    fed,
    frame,
    goodbye,
    in_stage,
    packed,
    said,
    split,
)


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
    assert goodbye(client).code == 6  # its digits are a length


def test_a_second_confirmation() -> None:
    """After ``$COMPACT$`` a client writes compact: a classic frame is none."""
    server = in_stage("compact server")

    (closed,) = fed(server, [frame(b"$COMPACT$")])

    assert isinstance(closed, Closed)
    assert goodbye(server).code == 6  # its digits are a length


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
