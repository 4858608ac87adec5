"""A client's and a server's side of a session, bytes piped and the clock turned by
hand: what comes over any number of cuts, and what is told of the rest."""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from hisock.errors import RemoteProtocolError
from hisock.session.connection import Connection
from hisock.session.events import Closed
from hisock.session.resume import ACK_DELAY, Session
from hisock.types import Limits
from hisock.wire import compact
from hisock.wire.compact import LARGE
from hisock.wire.frames import PROTO, Ack, Ping, Pong, Request, Welcome

from .pair import Client, Net, Peer, block, in_parts, message
from .talk import HI, START, frame, joined, requests_of, said

SID: Final = "5" * 32


@pytest.fixture
def net() -> Net:
    """A client that has said hello, and a server that has not read it."""
    return Net()


@pytest.fixture
def agreed(net: Net) -> Net:
    """Both on the compact wire, with nothing said yet."""
    net.deliver()
    return net


def held(net: Net) -> list[int]:
    """Bytes that each side keeps for the other."""
    return [peer.outbox.held for peer in (net.client, net.server)]


def acks_in(data: bytes) -> list[int]:
    """The acknowledgements among frames."""
    frames = [compact.decode(one) for one in compact.cut_frames(data)]
    return [one.number for one in frames if isinstance(one, Ack)]


# --- acknowledgements ------------------------------------------------------------


def test_a_session_begins_with_the_welcome(agreed: Net) -> None:
    """Both sides know it by the name that the client drew, and in which life."""
    client, server = agreed.client.session, agreed.server.session

    assert (client.sid, client.epoch) == (server.sid, server.epoch)
    assert client.epoch
    assert client is not server
    assert agreed.client.events == ["welcome"]


@pytest.mark.parametrize("side", [0, 1])
def test_what_came_is_acknowledged_after_a_while(agreed: Net, side: int) -> None:
    """Nothing is said of a few messages at once; 0.2 s later, all at once."""
    peers: list[Peer] = [agreed.client, agreed.server]
    sender, other = peers[side], peers[1 - side]
    for number in (1, 2, 3):
        sender.say(number)
    agreed.deliver()
    before = (other.got, sender.outbox.held > 0, other.session.owes)
    agreed.now += ACK_DELAY
    other.tick(agreed.now)
    assert acks_in(other.pipe.under_way[1 - side]) == [3]
    agreed.deliver()

    assert before == ([1, 2, 3], True, True)
    assert held(agreed) == [0, 0]


def test_an_acknowledgement_is_said_once(agreed: Net) -> None:
    """Whoever asks again is told nothing new, and nothing is owed for an ack."""
    agreed.client.say(1)
    agreed.settle()
    agreed.now += 10
    for peer in agreed.peers:
        peer.tick(agreed.now)
        peer.connection.acknowledge()
        assert not peer.connection.needs_attention

    assert [*agreed.client.pipe.under_way] == [b"", b""]


@pytest.mark.parametrize("count", [63, 64, 200])
def test_many_messages_are_acknowledged_at_once(agreed: Net, count: int) -> None:
    """From 64 on in one read, without waiting; one acknowledgement for the read."""
    agreed.client.send(block([*range(1, count + 1)]))
    agreed.server.read(10**9, agreed.now)

    acks = acks_in(agreed.server.pipe.under_way[1])
    assert acks == ([count] if count >= 64 else [])


def test_a_large_message_is_acknowledged_at_once(agreed: Net) -> None:
    """It is received in place, and counts with all its bytes."""
    agreed.client.send(in_parts(1, 2 * LARGE))
    while agreed.client.pipe.under_way[0]:
        agreed.server.read(64 * 1024, agreed.now)

    assert agreed.server.got == [1]
    assert acks_in(agreed.server.pipe.under_way[1]) == [1]


def test_a_large_message_that_takes_long_is_acknowledged_meanwhile(agreed: Net) -> None:
    """Its sender hears every 0.2 s what it knows already: that is a sign of life, for
    the answer to a ping would come only behind it."""
    agreed.client.send(in_parts(1, 12 * LARGE))
    while agreed.client.pipe.under_way[0]:
        agreed.server.read(64 * 1024, agreed.now)
        agreed.now += 0.1

    assert agreed.server.got == [1]
    assert acks_in(agreed.server.pipe.under_way[1]).count(0) >= 3
    agreed.client.read(10**9, agreed.now)
    assert agreed.client.connection.is_open


def test_pings_are_not_acknowledged(agreed: Net) -> None:
    """They are answered, and nothing is owed for them."""
    agreed.client.send_control(compact.encode(Ping(1)) * 100)
    agreed.server.read(10**9, agreed.now)

    assert agreed.server.pipe.under_way[1] == compact.encode(Pong(1))
    assert (agreed.server.session.received, agreed.server.session.owes) == (0, False)


def test_what_has_no_number_never_counts(agreed: Net) -> None:
    """Read after read: pings between messages, and behind them, are left out."""
    for number in range(1, 6):
        agreed.client.send_control(compact.encode(Ping(1)) * number)
        agreed.server.read(10**9, agreed.now)
        agreed.client.say(number)
        agreed.server.read(10**9, agreed.now)
        assert agreed.server.session.received == number


@pytest.mark.parametrize("side", [0, 1])
def test_an_acknowledgement_of_what_was_not_sent(agreed: Net, side: int) -> None:
    """It ends the connection for good: the two count differently."""
    sender: Peer = [agreed.client, agreed.server][side]
    sender.say(1)
    told = "frame 2 was acknowledged, the last sent is 1"
    (closed,) = sender.connection.feed(compact.encode(Ack(2)), agreed.now)

    assert isinstance(closed, Closed)
    assert (closed.reason, closed.is_cut) == (told, False)
    assert isinstance(closed.error, RemoteProtocolError)


def test_a_goodbye_tells_what_came(agreed: Net) -> None:
    """Who ends it, or hears that it ends, acknowledges first: nothing is reported."""
    agreed.client.say(1)
    agreed.server.read(10**9, agreed.now)
    agreed.server.connection.feed_goodbye("done", agreed.now)
    last = agreed.server.connection.take_bytes()
    agreed.client.connection.feed(last, agreed.now)

    assert acks_in(last) == [1]
    assert agreed.client.outbox.held == 0


def test_after_a_goodbye_acknowledgements_still_count(agreed: Net) -> None:
    """Nothing else does: what comes late is not taken in."""
    agreed.client.say(1)
    agreed.client.say(2)
    client = agreed.client.connection
    client.close("done", agreed.now)
    late = message(5) + compact.encode(Ack(1)) + compact.encode(Ack(2))[:3]

    assert client.feed(late, agreed.now) == []
    assert agreed.client.session.replay.acked == 1
    assert client.feed(compact.encode(Ack(2))[3:], agreed.now) == []
    assert agreed.client.outbox.held == 0
    assert agreed.client.session.received == 0


@pytest.mark.parametrize("junk", [b"\xff" * 8, compact.encode(Ack(9))])
def test_after_a_goodbye_nothing_is_a_violation(agreed: Net, junk: bytes) -> None:
    """Who is about to leave does not complain any more; nor listen."""
    agreed.client.say(1)
    client = agreed.client.connection
    client.close("done", agreed.now)
    before = client.deadline

    assert client.feed(junk, agreed.now) == []
    assert client.feed(compact.encode(Ack(1)), agreed.now) == []
    assert client.deadline == before


# --- a cut anywhere --------------------------------------------------------------


def transcript(net: Net) -> None:
    """Both sides say something, in each way that there is, all of it unread."""
    net.server.say(1)
    net.client.say(1)
    for peer in net.peers:
        peer.send(block([2, 3]))
        peer.send_control(compact.encode(Ping(7)))
        peer.send(in_parts(4, 20))
        peer.say(5)


def lengths() -> tuple[int, int]:
    """Bytes of it in both directions."""
    net = Net()
    net.deliver()
    transcript(net)
    up, down = net.client.pipe.under_way
    return len(up), len(down)


@pytest.mark.parametrize("side", [0, 1])
def test_a_cut_between_any_two_bytes(side: int) -> None:
    """Whatever was under way: after the resume everything has come once, in order."""
    for place in range(lengths()[side] + 1):
        net = Net()
        net.deliver()
        transcript(net)
        cut = [10**9, 10**9]
        cut[side] = place
        net.client.pipe.cut(*cut)
        net.deliver()
        net.client.come_back()
        net.deliver()
        net.client.say(6)
        net.server.say(6)
        net.settle()

        assert net.client.got == net.server.got == [1, 2, 3, 4, 5, 6]
        assert held(net) == [0, 0]
        assert net.client.events == ["welcome", "cut", "resumed"]


def test_cuts_in_both_directions_at_once() -> None:
    """The same where both lost something."""
    up, down = lengths()
    for first, second in itertools.product(range(0, up, 3), range(0, down, 3)):
        net = Net()
        net.deliver()
        transcript(net)
        net.client.pipe.cut(first, second)
        net.settle()

        assert net.client.got == net.server.got == [1, 2, 3, 4, 5]
        assert held(net) == [0, 0]


@pytest.mark.parametrize("room", [1000, 10**9])
def test_a_cut_between_any_two_bytes_of_the_handshake(room: int) -> None:
    """Hello, early messages, welcome, confirmation: any of it may be lost."""
    whole = Net()
    length = len(whole.client.pipe.under_way[0])
    hello = length - len(frame(b"$DH_NUMS$"))
    for place, lost_down in itertools.product(range(0, length + 60, 7), (0, 40, 500)):
        net = Net()
        net.client.say(1)
        net.client.pipe.cut(place, 10**9)
        net.read_door(net.doors[0])
        net.enter()
        net.client.pipe.cut(0, lost_down)
        net.deliver()
        net.client.come_back(room)
        net.client.say(2)
        net.settle()

        # A server that never heard of the session cannot say that it had nothing.
        assert (net.got, net.client.lost) in (([1, 2], []), ([], [1, 2]))
        assert (net.client.lost == []) is (place >= hello)
        assert held(net) == [0, 0]


def test_many_resumes_without_traffic(agreed: Net) -> None:
    """A resume on top of a resume changes nothing, and repeats nothing."""
    agreed.client.say(1)
    agreed.server.say(1)
    agreed.deliver()
    for _ in range(5):
        agreed.client.come_back()
        agreed.deliver()
    agreed.settle()

    assert agreed.client.got == agreed.server.got == [1]
    assert agreed.client.events == ["welcome", *["resumed"] * 5]
    assert held(agreed) == [0, 0]


def test_what_is_said_during_a_cut_comes_after_what_was_said_before(
    agreed: Net,
) -> None:
    """It waits without a number, on both sides, and keeps its place."""
    agreed.client.say(1)
    agreed.server.say(1)
    agreed.client.pipe.cut(0, 0)
    agreed.deliver()
    for peer in agreed.peers:
        assert peer.is_dropped
        peer.say(2)
        peer.send(in_parts(3, 10))
        peer.send(block([4, 5]))
        assert peer.session.replay.last == 1
    agreed.settle()

    assert agreed.client.got == agreed.server.got == [1, 2, 3, 4, 5]


def test_half_a_frame_is_of_no_use(agreed: Net) -> None:
    """What was cut in the middle comes whole again, also where it was received in
    place."""
    agreed.client.send(in_parts(1, LARGE))
    agreed.server.read(100_000, agreed.now)
    agreed.server.read(10_000, agreed.now)
    assert agreed.server.connection.room is not None
    agreed.client.pipe.cut(5_000, 0)
    agreed.settle()

    assert (agreed.server.got, held(agreed)) == ([1], [0, 0])


def test_open_calls_go_on(agreed: Net) -> None:
    """Nobody who waits for an answer hears of a cut; the ids go on, too."""
    asked = requests_of(agreed.client.connection).ask("sum")
    theirs = requests_of(agreed.server.connection)
    agreed.client.send(compact.encode(Request(asked.id, "sum", HI)))
    requests_of(agreed.server.connection).announce(Request(asked.id, "sum", HI))
    agreed.client.pipe.cut(0, 0)
    agreed.deliver()
    agreed.client.come_back()
    for door in agreed.doors:
        agreed.read_door(door)
    agreed.enter()

    assert not asked.is_done
    assert requests_of(agreed.server.connection) is theirs
    assert asked.id in theirs.answering


# --- several connections at once -------------------------------------------------


def test_a_resume_takes_the_old_link_over(agreed: Net) -> None:
    """The server had not noticed that it was cut; what was under way comes again."""
    agreed.client.say(1)
    agreed.server.say(1)
    old = agreed.server.pipe
    agreed.client.come_back()
    agreed.settle()

    assert old.is_open == [False, False]
    assert agreed.client.got == agreed.server.got == [1]
    assert agreed.client.events == ["welcome", "resumed"]


@pytest.mark.parametrize("newest_first", [True, False])
def test_of_two_racing_connections_one_wins(agreed: Net, newest_first: bool) -> None:
    """In whatever order they are let in, the client comes to its session."""
    agreed.client.say(1)
    agreed.client.come_back()
    agreed.client.say(2)
    agreed.client.come_back()
    for door in [*agreed.doors]:
        agreed.read_door(door)
    if newest_first:
        agreed.doors.reverse()
    agreed.enter()
    agreed.settle()

    assert agreed.server.got == [1, 2]
    assert "lost" not in "".join(agreed.client.events)
    assert held(agreed) == [0, 0]


def test_a_stale_hello_is_refused_once_the_client_has_heard(agreed: Net) -> None:
    """Its token was good only until the client's confirmation came."""
    agreed.client.come_back()
    stale = agreed.doors.pop()
    agreed.client.come_back()
    agreed.deliver()
    agreed.doors.append(stale)
    stale.pipe.is_cut = False
    agreed.read_door(stale)
    agreed.enter()
    agreed.client.say(1)
    agreed.settle()

    assert stale.pipe.is_open[1] is False
    assert not agreed.server.is_dropped
    assert agreed.server.got == [1]
    assert agreed.client.events == ["welcome", "resumed"]


def test_a_lost_welcome_loses_no_session(agreed: Net) -> None:
    """However often the answer is lost: the token that the client has is good."""
    for number in range(1, 6):
        agreed.client.say(number)
        agreed.client.come_back()
        for door in [*agreed.doors]:
            agreed.read_door(door)
        agreed.enter()
        agreed.client.pipe.cut(0, 0)
    agreed.settle()

    assert agreed.server.got == [1, 2, 3, 4, 5]
    assert agreed.client.events[:2] == ["welcome", "cut"]
    assert agreed.client.lost == []


def test_a_stranger_cannot_take_a_session_over(agreed: Net) -> None:
    """Who knows its name and not its token is refused, and touches nothing."""
    stranger = Client(agreed, seed=1)
    stranger.session.sid = agreed.client.session.sid
    agreed.doors.clear()
    stranger.come_back()
    for door in [*agreed.doors]:
        agreed.read_door(door)
    agreed.enter()
    stranger.read(10**9, agreed.now)
    agreed.client.say(1)
    agreed.settle()

    assert stranger.events == ["refused: unauthorized"]
    assert (agreed.server.got, agreed.server.events) == ([1], [])


# --- before the welcome ----------------------------------------------------------


@pytest.mark.parametrize("in_one_read", [True, False])
def test_early_messages_count(net: Net, in_one_read: bool) -> None:
    """Before and after the welcome was said: both sides count the same, and the
    welcome says how many came."""
    net.client.say(1)
    net.client.say(2)
    if not in_one_read:
        net.read_door(net.doors[0])
        net.enter()
        net.client.say(3)
        net.server.read(10**9, net.now)
        assert net.server.session.received == 3
    net.settle()
    last = net.client.session.replay.last

    assert net.server.got == [*range(1, last + 1)]
    assert net.server.session.received == last
    assert held(net) == [0, 0]


def test_an_early_message_is_replayed_compact(net: Net) -> None:
    """After a lost welcome what came is not sent again; the rest is, now compact."""
    net.client.say(1)
    net.client.say(2)
    hello_and_one = len(net.client.pipe.under_way[0]) - len(frame(b"a 2:"))
    net.client.pipe.cut(hello_and_one, 0)
    net.deliver()
    before = [*net.server.got]
    net.client.say(3)
    net.settle()

    assert before == [1]
    assert net.server.got == [1, 2, 3]
    assert net.client.events == ["cut", "resumed"]
    assert net.client.lost == []


def test_the_classic_words_that_have_a_number() -> None:
    """A new name or group counts; probe, confirmation and goodbye do not."""
    session = Session(SID, 30.0)
    server = Connection(Limits(), START)
    hello = Client(Net()).hello(START)
    words = [b"$DH_NUMS$", b"$CHNAME$ x", b"$CHGROUP$", b"a b", b"$COMPACT$x", b"raw"]
    server.feed(said(hello, by_client=True) + b"".join(map(frame, words)), START)
    server.serve("Ada", None, START, session=session)
    counts = [session.received]
    server.feed(frame(b"$CHNAME$") + frame(b"$USRCLOSE$"), START)
    counts.append(session.received)

    assert counts == [5, 6]


def test_a_server_without_sessions_counts_nothing() -> None:
    """Where the welcome names none, the client has none, and all goes on without."""
    client = Connection(
        Limits(), START, header_len=16, session=Session(SID, 30.0), dead_after=0
    )
    welcome = Welcome(PROTO, "Ada", None, 0)
    client.feed(said(welcome, by_client=False) + joined(message(1)), START)

    assert client.welcome == welcome
    assert client.is_open


# --- what the welcome may say ----------------------------------------------------


def test_a_welcome_for_another_session() -> None:
    """It is a violation: the server took us for somebody else."""
    client = Connection(Limits(), START, header_len=16, session=Session(SID, 30.0))
    welcome = Welcome(PROTO, "Ada", None, 0, sid="6" * 32, epoch="e")
    (closed,) = client.feed(said(welcome, by_client=False), START)

    assert isinstance(closed, Closed)
    assert closed.reason == "the welcome is for another session"
    assert not closed.is_cut


def test_a_welcome_of_a_new_session_counts_from_1(agreed: Net) -> None:
    """What comes behind it in the same read is number 1, whatever came before."""
    agreed.server.send(block([*range(1, 51)]))
    agreed.deliver()
    session = agreed.client.session
    counts = [session.received]
    client = Connection(Limits(), agreed.now, header_len=16, session=session)
    welcome = Welcome(PROTO, "Ada", None, 0, sid=session.sid, epoch="new")
    client.feed(said(welcome, by_client=False) + joined(message(1)), agreed.now)
    counts.append(session.received)
    client.acknowledge()

    assert counts == [50, 1]
    said_now = client.take_bytes().removeprefix(frame(b"$COMPACT$"))
    assert acks_in(said_now) == [1]


def test_nothing_is_acknowledged_before_the_welcome(agreed: Net) -> None:
    """What was owed on the old link is in the hello; not a byte is compact yet."""
    agreed.server.say(1)
    agreed.deliver()
    agreed.client.pipe.cut(0, 0)
    agreed.deliver()
    session = agreed.client.session
    assert session.owes
    client = Connection(Limits(), agreed.now, header_len=16, session=session)
    client.acknowledge()
    before = client.take_bytes()
    client.close("done", agreed.now)

    assert before == b""
    assert client.take_bytes() == frame(b"$USRCLOSE$")


@pytest.mark.parametrize("reason", ["expired", "overflow", "evicted"])
def test_an_ended_session_is_told(agreed: Net, reason: str) -> None:
    """Both sides name what may not have arrived; the next session begins at 1."""
    agreed.client.say(1)
    agreed.server.say(1)
    agreed.client.pipe.cut(0, 0)
    agreed.deliver()
    agreed.client.say(2)
    agreed.server.say(2)
    agreed.end_session(reason)
    agreed.settle()
    agreed.client.say(3)
    agreed.server.say(3)
    agreed.settle()

    assert agreed.client.events == ["welcome", "cut", f"lost: {reason}"]
    assert agreed.client.lost == agreed.lost == [1, 2]
    assert agreed.client.got == agreed.got == [3]
    assert agreed.client.session.replay.last == 1


def test_an_end_that_was_not_heard_is_told_again(agreed: Net) -> None:
    """A lost welcome of a new session does not make it the old one: the client would
    repeat to the new what the old one had."""
    agreed.client.say(1)
    agreed.deliver()
    agreed.end_session("expired")
    agreed.client.come_back()
    for _ in range(2):
        for door in [*agreed.doors]:
            agreed.read_door(door)
        agreed.enter()
        agreed.client.pipe.cut(0, 0)
        agreed.client.come_back()
    agreed.settle()

    assert agreed.client.events[-1] == "lost: expired"
    assert agreed.got == [1]
    assert agreed.client.lost == [1]


def test_a_full_pipe_keeps_the_order() -> None:
    """Where there is room for a few bytes at a time nothing is torn, over cuts too."""
    net = Net()
    net.deliver()
    net.client.come_back(700)
    net.deliver()
    for number in range(1, 200):
        net.client.say(number, number % 50)
        net.server.say(number, number % 70)
        if number % 20 == 0:
            net.client.read(500, net.now)
            net.server.read(300, net.now)
        if number % 60 == 0:
            net.client.pipe.cut(200, 100)
            net.deliver(50)
            net.client.come_back(700)
    net.settle()

    assert net.client.got == net.server.got == [*range(1, 200)]
    assert held(net) == [0, 0]
