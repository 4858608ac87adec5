"""Sessions that do not go on: each end is told with its reason and what it cost, and
what nobody wants back never comes back."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.chaos.pipes import How

from hisock import Limits
from hisock.engine.backpressure import Memory
from hisock.errors import ClientDisconnected, SessionLost, Undelivered
from hisock.session.resume import ACK_SIZE
from hisock.types import Message

from . import PATIENCE, Net, Record, Thread, eventually
from .cutting import CutWay
from .driving import bare

#: Seconds after which a session is over, where a test waits for that.
WINDOW = 0.3
#: Bytes that may wait for all clients, where a test sends more.
MEMORY = 100_000


def made(net: Net, **server: Any) -> CutWay:
    """A client and its server, whose events are noted."""
    way = CutWay(net, up=True, server=server)
    way.server.on_error(lambda error: way.told_server(error))
    return way


@pytest.fixture
def brief(compact: Net) -> CutWay:
    """Both, where a session does not last long."""
    with pytest.warns(UserWarning, match=r"resume_window=0\.3 .* 25 s and more"):
        return made(compact, resume_window=WINDOW)


def turn(way: CutWay) -> None:
    """Have both turned, and wait until the client is in."""
    way.net.turn()
    assert way.told_server.next() == "join"
    eventually(lambda: way.client.wire)  # it has read the welcome


def test_a_window_is_over(brief: CutWay) -> None:
    """``leave`` comes then, and just before it what could not be delivered; the client
    hears of it when it is back as somebody new."""
    got = Record()
    brief.server.on("it")(lambda who, message: got(message))
    turn(brief)
    who = brief.server.client("ann")
    brief.proxy.refuse()
    brief.cut()
    brief.expect("drop")
    for number in range(3):
        brief.server.send_client("ann", "it", number)
        brief.client.send("it", number)
    error = brief.told_server.next()
    assert isinstance(error, Undelivered)
    assert error.sent == tuple(Message("it", number) for number in range(3))
    assert error.client is who
    assert brief.told_server.next() == "leave"
    assert len(brief.server) == 0
    with pytest.raises(TypeError):
        brief.server.send_client(who, "it", 4)
    assert not len(brief.told_client)
    brief.proxy.accept_again()
    lost = brief.told_client.next()
    assert isinstance(lost, SessionLost)
    assert lost.reason == "expired"
    assert lost.unacked == tuple(Message("it", number) for number in range(3))
    assert lost.missed == 3
    assert brief.told_server.next() == "join"
    assert brief.server.client("ann") is not who
    assert brief.server.client("ann")["group"] == "red"
    brief.client.send("it", "new")
    assert got.next() == "new"
    assert not len(brief.told_client)


def test_a_client_that_came_to_nothing_is_no_error(brief: CutWay) -> None:
    """Where all had arrived, nothing is undelivered."""
    turn(brief)
    brief.proxy.refuse()
    brief.cut()
    brief.expect("drop")
    assert brief.told_server.next() == "leave"
    assert not len(brief.told_server)


def test_a_call_fails_with_its_session(brief: CutWay) -> None:
    """On both sides: nobody knows whether it ran, so it is not made again."""
    brief.client.on("it")(lambda message: None)
    turn(brief)
    brief.hold("up", "down")
    calls = [
        Thread(brief.client.call, "it", 1),
        Thread(brief.server.call_client, "ann", "it", 1),
    ]
    brief.proxy.refuse()
    brief.cut()
    brief.expect("drop")
    with pytest.raises(SessionLost):
        calls[1].result()
    brief.proxy.accept_again()
    with pytest.raises(SessionLost):
        calls[0].result()


def test_a_name_change_outlives_a_session(brief: CutWay) -> None:
    """Whoever joins anew is called what it is called by then."""
    turn(brief)
    brief.client.change_name("bea")
    eventually(lambda: brief.server.get_all_clients("name") == ["bea"])
    brief.proxy.refuse()
    brief.cut()
    assert brief.told_client.next() == "drop"
    eventually(lambda: len(brief.server) == 0)
    brief.client.change_group("blue")
    brief.proxy.accept_again()
    assert brief.told_client.next().reason == "expired"
    eventually(lambda: brief.server.get_all_clients("name") == ["bea"])
    assert brief.server.get_client("bea")["group"] == "blue"


def test_too_much_waits_for_a_client(compact: Net) -> None:
    """A session whose messages need more room than there is ends, and says so."""
    way = made(compact, limits=Limits(outbox=1000))
    turn(way)
    way.proxy.refuse()
    way.cut()
    way.expect("drop")
    sent = 0
    while len(way.server):
        way.server.send_all_clients("it", bytes(100))
        sent += 1
        assert sent < 1000
    error = way.told_server.next()
    assert isinstance(error, Undelivered)
    assert len(error.sent) in (sent - 1, sent)
    assert sent >= 30
    assert way.told_server.next() == "leave"
    way.proxy.accept_again()
    lost = way.told_client.next()
    assert (lost.reason, lost.missed) == ("overflow", len(error.sent))


def test_too_many_are_cut_off(compact: Net) -> None:
    """The session that has waited longest makes room."""
    way = made(compact, limits=Limits(dropped=1))
    turn(way)
    bea = compact.client(way.proxy, "bea")
    compact.turn()
    compact.expect_members(way.server, 2)
    way.proxy.refuse()
    assert way.proxy.cut() == 2
    assert way.told_client.next() == "drop"
    eventually(lambda: len(way.server) == 1)
    way.proxy.accept_again()
    compact.expect_members(way.server, 2)
    eventually(lambda: bea.is_connected)
    reasons = [] if not len(way.told_client) else [way.told_client.next()]
    assert all(each == "resume" or each.reason == "evicted" for each in reasons)


def waiting_for(way: CutWay, most: int) -> Any:
    """Who is cut off, when more than so much waits for it."""
    turn(way)
    way.proxy.refuse()
    way.cut()
    way.expect("drop")
    link = bare(way.server)._members.look_up("ann")
    while link.outbox.held <= most:
        assert len(way.server) == 1, "no more waits than may"
        way.server.send_client("ann", "it", bytes(1000))
    return link


def excess_of(server: Any) -> int:
    """What a server has to let go of just now."""
    return Memory(bare(server)._engine.pump, MEMORY).excess(0.0)


def test_too_much_waits_for_all_clients(compact: Net) -> None:
    """Of all servers of the program together: each that holds more than its share lets
    go of that; who is cut off makes room first."""
    way = made(compact, limits=Limits(memory=MEMORY))
    link = waiting_for(way, 6 * MEMORY // 10)
    others = made(compact)
    other = waiting_for(others, 3 * MEMORY // 10)
    idle = compact.server()
    for server in (way.server, others.server, idle):
        assert excess_of(server) <= 0
    while link.outbox.held + other.outbox.held <= MEMORY:
        assert len(way.server) == 1, "no more waits than may"
        way.server.send_client("ann", "it", bytes(1000))
    assert excess_of(others.server) < 0 > excess_of(idle)
    # Looked at when something is sent, and then only a few times a second.
    while len(way.server):
        way.server.send_all_clients("it", b"")
    error = way.told_server.next()
    assert isinstance(error, Undelivered)
    assert way.told_server.next() == "leave"
    assert excess_of(others.server) == other.outbox.held - MEMORY
    assert len(others.server) == 1
    way.proxy.accept_again()
    lost = way.told_client.next()
    assert (lost.reason, lost.missed) == ("evicted", len(error.sent))


def test_too_much_waits_for_a_slow_client(compact: Net) -> None:
    """Where nobody is cut off, the one for whom most waits goes."""
    most = 10 * MEMORY  # as the other acknowledges each 64 KiB alone
    way = made(compact, limits=Limits(memory=most))
    bea, got = compact.client(way.server, "bea"), Record()
    bea.on("it")(lambda message: got(message))
    turn(way)
    compact.turn()
    compact.expect_members(way.server, 2)
    way.hold("down")
    content, sent, end = bytes(1000), 0, time.monotonic() + PATIENCE
    while len(way.server) == 2:
        way.server.send_all_clients("it", content)
        sent += 1
        assert time.monotonic() < end
        got.next()
    assert sent * len(content) > most - 2 * ACK_SIZE  # the other's share
    assert way.told_server.next() == "drop"
    error = way.told_server.next()
    assert isinstance(error, Undelivered)
    assert way.told_server.next() == "leave"
    assert [client["name"] for client in way.server.get_all_clients()] == ["bea"]
    way.proxy.heal()
    assert way.told_client.next() == "drop"
    lost = way.told_client.next()
    assert lost.reason == "evicted"
    assert 0 <= lost.missed <= len(error.sent)  # some were on their way


@pytest.mark.parametrize("sides", ["server", "client", "both"])
def test_no_window_is_no_session(compact: Net, sides: str) -> None:
    """A cut is a leave then; the client comes back all the same, as somebody new."""
    off = {"resume_window": 0}
    way = CutWay(
        compact,
        up=True,
        server={} if sides == "client" else off,
        client={} if sides == "server" else off,
    )
    turn(way)
    way.cut()
    assert way.told_server.take(2) == ["leave", "join"]
    assert way.told_client.next() == "drop"
    lost = way.told_client.next()
    assert isinstance(lost, SessionLost)
    assert lost.reason == "unknown"
    way.net.end(way.client)
    assert way.told_server.next() == "leave"
    assert not len(way.told_client)
    assert way.proxy.connections == 2


@pytest.mark.parametrize("first", [{"resume_window": 0}, {"wires": ("classic",)}])
def test_a_session_begins_where_there_was_none(
    compact: Net, first: dict[str, Any]
) -> None:
    """A server that knows no sessions may be followed by one that does."""
    way = CutWay(compact, up=True, server=first)
    turn(way)
    new = compact.server()
    way.listen_to(new)
    compact.turn(new)
    way.proxy.target = new.addr
    way.cut()
    assert way.told_client.next() == "drop"
    assert isinstance(way.told_client.next(), SessionLost)
    assert {way.told_server.next(), way.told_server.next()} == {"leave", "join"}
    with way.apart():
        way.client.send("it", 1)
    way.net.end(way.client)
    assert way.told_server.next() == "leave"


def test_who_does_not_come_back_is_gone(net: Net) -> None:
    """With ``reconnect=False`` a cut is the end, for both sides and on every wire."""
    way = CutWay(net, up=True, client={"reconnect": False})
    turn(way)
    way.cut()
    assert way.told_client.next() == "end"
    assert way.told_server.next() == "leave"
    with pytest.raises(ClientDisconnected):
        way.client.send("it", b"")
    way.net.end(way.client)
    assert not len(way.told_client)
    assert not len(way.told_server)
    assert way.proxy.connections == 1


def test_a_client_of_an_old_server_joins_again(classic: Net) -> None:
    """What 1.1 speaks knows no session: what was not written then is lost, and it is
    not known what else."""
    way = CutWay(classic, up=True)
    got = Record()
    way.server.on("it")(lambda who, message: got(message))
    turn(way)
    way.client.send("it", b"1")
    assert got.next() == b"1"
    hows: tuple[How, ...] = ("fin", "rst")
    for how in hows:
        way.cut(how)
        assert way.told_server.take(2) == ["leave", "join"]
        assert way.told_client.next() == "drop"
        lost = way.told_client.next()
        assert isinstance(lost, SessionLost)
        assert (lost.reason, lost.unacked, lost.missed) == ("classic", (), None)
        way.client.send("it", b"2")
        assert got.next() == b"2"
    assert not len(way.told_client)


def test_a_server_that_is_another_says_so(compact: Net) -> None:
    """What is not known to have arrived is told before anything of the new one."""
    way = made(compact)
    got = Record()
    way.client.on("it")(lambda message: way.told_client(message))
    turn(way)
    way.hold("up", "down")
    way.client.send("it", 1)
    way.server.send_client("ann", "it", "never seen")
    new = compact.server()
    new.on("join")(lambda who: new.send_client(who, "it", "welcome"))
    new.on("it")(lambda who, message: got(message))
    compact.turn(new)
    way.proxy.target = new.addr
    way.proxy.refuse()
    way.cut()
    way.expect("drop")
    way.client.send("it", [2])
    way.proxy.accept_again()
    lost = way.told_client.next()
    assert isinstance(lost, SessionLost)
    assert lost.reason == "server_restarted"
    assert lost.unacked == (Message("it", 1), Message("it", [2]))
    assert way.told_client.next() == "welcome"
    way.client.send("it", 3)
    assert got.next() == 3
    assert not len(got)
    assert [who["name"] for who in new] == ["ann"]


def test_a_session_is_lost_without_a_handler(
    compact: Net, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says so."""
    server, new, got = compact.server(), compact.server(), Record()
    for each in (server, new):
        each.on("join")(lambda who: None)
    new.on("it")(lambda who, message: got(message))
    proxy = compact.proxy(server)
    client = compact.client(proxy, "ann")
    compact.turn()
    eventually(lambda: client.wire)
    proxy.target = new.addr
    assert proxy.cut() == 1

    def warnings() -> list[str]:
        said = [r for r in caplog.records if r.name == "hisock.client"]
        return [r.getMessage() for r in said if r.levelname == "WARNING"]

    assert "server_restarted" in eventually(warnings)[0]
    client.send("it", 1)
    assert got.next() == 1
    assert len(warnings()) == 1


# --- goodbyes ----------------------------------------------------------------------


def expect_no_return(way: CutWay) -> None:
    """The client has ended and knows it."""
    assert way.told_client.next() == "end"
    with pytest.raises(ClientDisconnected):
        way.client.send("it", b"")
    way.net.end(way.client)
    assert not len(way.told_client)
    assert not len(way.told_server)
    assert way.proxy.connections == 1


@pytest.mark.parametrize("when", ["at once", "cut off"])
def test_a_client_that_closes_does_not_come_back(compact: Net, when: str) -> None:
    """Its goodbye is ``leave`` at once; or the window ends, where it cannot say it."""
    options = {"resume_window": WINDOW, "dead_after": 0.0}
    if when == "cut off":
        with pytest.warns(UserWarning, match="resume_window"):
            way = made(compact, **options)
    else:
        way = made(compact)
    turn(way)
    if when == "cut off":
        way.proxy.refuse()
        way.cut()
        way.expect("drop")
    way.net.end(way.client)
    way.proxy.accept_again()
    assert way.told_server.next() == "leave"
    assert way.proxy.connections == 1
    assert not len(way.told_client)
    assert not len(way.told_server)
    assert len(way.server) == 0


def test_what_a_client_that_closes_did_not_get_rid_of_is_told(compact: Net) -> None:
    """As a lost session, with the reason ``closed``."""
    way = made(compact)
    turn(way)
    way.proxy.refuse()
    way.cut()
    way.expect("drop")
    way.client.send("it", 1)
    way.net.end(way.client)
    lost = way.told_client.next()
    assert isinstance(lost, SessionLost)
    assert lost.reason == "closed"
    assert lost.unacked == (Message("it", 1),)


def test_what_was_sent_before_a_close_arrives(compact: Net) -> None:
    """``close`` waits for it to be acknowledged, a cut in between included."""
    way = made(compact)
    got = Record()
    way.server.on("it")(lambda who, message: got(message))
    turn(way)
    for number in range(100):
        way.client.send("it", number)
    way.net.end(way.client)
    assert got.take(100) == list(range(100))
    assert way.told_server.next() == "leave"
    assert not len(way.told_client)


@pytest.mark.parametrize("when", ["at once", "cut off"])
def test_a_server_that_closes_has_nobody_back(compact: Net, when: str) -> None:
    """Its clients are told, and those that are cut off leave with it."""
    way = made(compact)
    turn(way)
    if when == "cut off":
        way.proxy.refuse()
        way.cut()
        way.expect("drop")
    way.net.end(way.server)
    assert way.told_server.next() == "leave"
    assert len(way.server) == 0
    if when == "at once":
        expect_no_return(way)


def test_who_is_disconnected_does_not_come_back(compact: Net) -> None:
    """A kick is no cut: the client is told, and tries nothing."""
    way = made(compact)
    turn(way)
    way.server.disconnect_client("ann")
    assert len(way.server) == 0
    assert way.told_server.next() == "leave"
    expect_no_return(way)


def test_who_is_disconnected_while_it_is_away_stays_away(compact: Net) -> None:
    """It cannot be told, so it tries; it is refused, and told then."""
    way = made(compact)
    turn(way)
    way.proxy.refuse()
    way.cut()
    way.expect("drop")
    way.server.disconnect_client("ann")
    assert way.told_server.next() == "leave"
    assert len(way.server) == 0
    way.proxy.accept_again()
    assert way.told_client.next() == "end"
    with pytest.raises(ClientDisconnected):
        way.client.send("it", b"")
    assert len(way.server) == 0
    assert not len(way.told_server)
