"""``run`` and ``update``: one turn, on whose thread, and what may come out of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from hisock import ClientInfo, HiSockClient, HiSockServer
from hisock.errors import AlreadyRunning, ConversionError

from . import Net, Peer, Record, Thread, eventually, turn_until


def test_handlers_run_where_run_was_called(hand: Net) -> None:
    """On the caller's thread, in both directions."""
    server, got = hand.server(), Record()
    client = hand.client(server)

    @server.on("up")
    def up(who: ClientInfo) -> None:
        got(threading.current_thread())
        server.send_client(who, "down")

    client.on("down")(lambda: got(threading.current_thread()))
    client.send("up")
    turn_until(server, lambda: len(got) == 1)
    turn_until(client, lambda: len(got) == 2)
    assert got.take(2) == [threading.current_thread()] * 2


def test_a_turn_handles_all_that_is_there(hand: Net) -> None:
    """One turn runs the handlers of everything that had arrived."""
    server, got = hand.server(), Record()
    server.on("it")(lambda who, message: got(int(message)))
    raw = hand.raw_client(server)
    raw.send(*(b"it %d" % number for number in range(50)))
    turn_until(server, lambda: len(got))
    assert got.take(50) == list(range(50))


def test_a_nonblocking_turn_returns_at_once(hand: Net) -> None:
    """With nothing to do it returns; a blocking one would wait."""
    if hand.server_kind.blocking:
        pytest.skip("a blocking turn waits")
    server = hand.server()
    client = hand.client(server)
    for _ in range(3):
        server.run()
        client.update()
    assert len(server) == 1


def test_a_blocking_turn_waits_until_a_handler_ran(hand: Net) -> None:
    """What runs no handler does not end it: a join, half a message, a rename."""
    if not hand.server_kind.blocking:
        pytest.skip("a non-blocking turn does not wait")
    server, got = hand.server(), Record()
    server.on("it")(lambda: got("handler"))
    raw = hand.raw_client(server, "ann")

    def turn() -> None:
        server.run()
        got("returned")

    turning = Thread(turn)
    hand.expect_members(server, 1)
    raw.send(b"$CHNAME$ bea", b"unknown")
    eventually(lambda: server.get_all_clients("name") == ["bea"])
    whole = raw.frame(b"it")
    raw.sock.sendall(whole[:7])
    assert not len(got)
    raw.sock.sendall(whole[7:])
    turning.result()
    assert got.take(2) == ["handler", "returned"]


def test_a_blocking_update_waits_until_a_handler_ran(hand: Net) -> None:
    """The same for a client: what nobody handles does not end it."""
    if not hand.client_kind.blocking:
        pytest.skip("a non-blocking turn does not wait")
    raw, client = hand.raw_server_for(hand.raw_listener())
    got = Record()
    client.on("it")(lambda: got("handler"))

    def turn() -> None:
        client.update()
        got("returned")

    turning = Thread(turn)
    raw.send(b"unknown", b"$CLTCONN$ {}")
    whole = raw.frame(b"it")
    raw.sock.sendall(whole[:7])
    assert not len(got)
    raw.sock.sendall(whole[7:])
    turning.result()
    assert got.take(2) == ["handler", "returned"]
    assert client.recv_raw() == b"unknown"


def test_close_from_another_thread_ends_a_turn(net: Net) -> None:
    """Whoever waits in ``run`` or ``update`` comes back."""
    server = net.server()
    client = net.client(server)
    server.on("join")(lambda: None)
    net.turn()
    net.expect_members(server, 1)
    client.close()
    server.close()
    net.close()  # fails if a thread is still inside


def test_a_turn_while_another_thread_closes(hand: Net) -> None:
    """Does nothing, as after the close: a game loop need not know of it."""
    server = hand.server()
    server.on("join")(lambda: None)
    raw = hand.raw_client(server)
    turn_until(server, lambda: len(server))
    closing = Thread(server.close)
    assert raw.receive() == b"$DISCONN$"
    eventually(lambda: _is_turned(server))  # by the thread that closes
    while closing.is_alive:
        server.run()
    closing.result()


def test_a_closed_peer_does_nothing(turned: Net) -> None:
    """A turn after ``close`` returns at once, as often as one likes."""
    server = turned.server()
    client = turned.client(server)
    turned.end(server)
    turned.end(client)
    for _ in range(3):
        HiSockServer.run(server)
        client.update()


def test_a_turn_inside_a_handler_is_refused(turned: Net) -> None:
    """It raises there, with the cure, and the outer turn goes on."""
    server, got = turned.server(), Record()
    client = turned.client(server, "ann")

    def nested(turn: Any) -> None:
        try:
            turn()
        except RuntimeError as error:
            got(type(error), "inside a handler" in str(error))

    @server.on("up")
    def up(who: ClientInfo) -> None:
        nested(lambda: HiSockServer.run(server))
        server.send_client(who, "down")

    client.on("down")(lambda: nested(client.update))
    turned.turn()
    client.send("up")
    client.send("up")
    assert got.take(4) == [(AlreadyRunning, True)] * 4


def test_a_second_turn_at_once_is_refused(turned: Net) -> None:
    """In another thread too: one turns, the other is told so."""
    server, got, go_on = turned.server(), Record(), threading.Event()
    client = turned.client(server, "ann")

    @server.on("hold")
    def hold_server() -> None:
        got("held")
        go_on.wait(5)

    @client.on("hold")
    def hold_client() -> None:
        got("held")
        go_on.wait(5)

    turned.turn()
    client.send("hold")
    assert got.next() == "held"
    with pytest.raises(RuntimeError, match="in another thread") as caught:
        HiSockServer.run(server)
    assert isinstance(caught.value, AlreadyRunning)
    server.send_client("ann", "hold")
    assert got.next() == "held"
    with pytest.raises(AlreadyRunning, match="in another thread"):
        client.update()
    go_on.set()
    client.send("hold")
    assert got.next() == "held"


@pytest.mark.parametrize("side", ["server", "client"])
def test_run_of_a_threaded_peer_refuses_and_harms_nothing(
    threaded: Net, side: str
) -> None:
    """``run`` beside its own thread raises; the thread goes on serving."""
    server: Any = threaded.server()
    client: Any = threaded.client(server, "ann")
    got = Record()
    server.on("up")(lambda who: server.send_client(who, "down"))
    client.on("down")(lambda: got("down"))
    threaded.turn()
    client.send("up")
    assert got.next() == "down"
    with pytest.raises(AlreadyRunning):
        (server if side == "server" else client).run()
    client.send("up")
    assert got.next() == "down"


def test_a_threaded_peer_may_be_run_by_its_caller(threaded: Net) -> None:
    """``run`` turns on the calling thread until it is stopped."""
    server: Any = threaded.server()
    client: Any = threaded.client(server, "ann")
    got = Record()
    server.on("up")(lambda who: server.send_client(who, "down"))
    client.on("down")(lambda: got("down"))
    turns = [Thread(server.run), Thread(client.run)]
    client.send("up")
    assert got.next() == "down"
    client.stop_client()
    server.stop_server()
    for turn in turns:
        turn.result()


def test_run_inside_another_event_loop(hand: Net) -> None:
    """As in a Jupyter cell: the running loop is set aside for the turn."""
    server, got = hand.server(), Record()
    server.on("it")(lambda who, message: got(message))
    client = hand.client(server)
    client.send("it", b"x")

    async def cell() -> object:
        turn_until(server, lambda: len(got))
        return asyncio.get_running_loop()

    assert asyncio.run(cell())
    assert got.next() == b"x"


def test_a_server_logs_what_a_handler_raises(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs nobody else anything: the next message is handled."""
    server, got = net.server(), Record()

    @server.on("fail")
    def fail(who: ClientInfo, message: bytes) -> None:
        raise ZeroDivisionError("on purpose")

    server.on("it")(lambda who, message: got(message))
    client = net.client(server)
    net.turn()
    with caplog.at_level(logging.ERROR, "hisock.server"):
        client.send("fail", b"secret")
        client.send("it", b"x")
        assert got.next() == b"x"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "test_turning.py" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert "secret" not in record.getMessage()


@pytest.mark.parametrize("event", ["join", "leave", "message", "name_change"])
def test_a_server_logs_what_an_event_raises(
    hand: Net, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Reserved events are handlers like the others."""
    server, got = hand.server(), Record()

    @server.on(event)
    def fail() -> None:
        got("called")
        raise ZeroDivisionError

    server.on("it")(lambda: got("it"))
    hand.turn(server)
    with caplog.at_level(logging.ERROR, "hisock.server"):
        first = hand.client(server)
        first.change_name("ann")
        first.send("other")
        first.close()
        assert got.next() == "called"
        hand.client(server).send("it")
        while got.next() != "it":
            pass
        hand.close()
    assert {record.name for record in caplog.records} == {"hisock.server"}


def test_errors_raise_lets_it_out_and_loses_nothing(hand: Net) -> None:
    """As 1.1 did; the next ``run`` goes on behind the message that failed."""
    server, got = hand.server(errors="raise"), Record()

    @server.on("it")
    def it(who: ClientInfo, message: int) -> None:
        server.send_client(who, "echo", message)
        if message == 2:
            raise ZeroDivisionError
        got(message)

    raw = hand.raw_client(server)
    raw.send(b"it 1", b"it 2", b"it three", b"it 4")
    with pytest.raises(ZeroDivisionError):
        turn_until(server, lambda: False)
    assert got.take(1) == [1]
    assert raw.take(2) == [b"echo 1", b"echo 2"]  # what it sent has left
    with pytest.raises(ConversionError, match=r"'it' for test_turning\.py:\d+"):
        turn_until(server, lambda: False)
    turn_until(server, lambda: len(got))
    assert got.next() == 4
    assert raw.receive() == b"echo 4"


def test_a_failing_handler_comes_out_of_update(hand: Net) -> None:
    """On a client; the next ``update`` goes on behind it."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    got = Record()

    @client.on("it")
    def it(message: int) -> None:
        client.send("echo", message)
        if message == 2:
            raise ZeroDivisionError
        got(message)

    raw.send(b"it 1", b"it 2", b"it three", b"it 4")
    with pytest.raises(ZeroDivisionError):
        turn_until(client, lambda: False)
    assert got.take(1) == [1]
    assert raw.take(2) == [b"echo 1", b"echo 2"]
    with pytest.raises(ConversionError, match=r"'it' for test_turning\.py:\d+"):
        turn_until(client, lambda: False)
    turn_until(client, lambda: len(got))
    assert got.next() == 4
    assert raw.receive() == b"echo 4"


def test_a_threaded_client_logs_what_a_handler_raises(
    threaded: Net, caplog: pytest.LogCaptureFixture
) -> None:
    """There nobody called; it goes on."""
    server, got = threaded.server(), Record()
    client = threaded.client(server, "ann")

    @client.on("fail")
    def fail() -> None:
        raise ZeroDivisionError

    client.on("it")(lambda: got("it"))
    threaded.turn()
    threaded.expect_members(server, 1)
    with caplog.at_level(logging.ERROR, "hisock.client"):
        server.send_client("ann", "fail")
        server.send_client("ann", "it")
        assert got.next() == "it"
    (record,) = caplog.records
    assert "test_turning.py" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_passes_through_a_server(hand: Net, kind: type[BaseException]) -> None:
    """``SystemExit`` and Ctrl-C in a handler leave ``run``, and nothing is lost."""
    server, got = hand.server(), Record()

    @server.on("exit")
    def leave() -> None:
        raise kind

    server.on("it")(lambda: got("it"))
    raw = hand.raw_client(server)
    raw.send(b"exit", b"it")
    with pytest.raises(kind):
        turn_until(server, lambda: False)
    assert not len(got)
    turn_until(server, lambda: len(got))
    assert got.next() == "it"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_passes_through_a_client(hand: Net, kind: type[BaseException]) -> None:
    """The same for ``update``."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    got = Record()

    @client.on("exit")
    def leave() -> None:
        raise kind

    client.on("it")(lambda: got("it"))
    raw.send(b"exit", b"it")
    with pytest.raises(kind):
        turn_until(client, lambda: False)
    assert not len(got)
    turn_until(client, lambda: len(got))
    assert got.next() == "it"


def test_a_real_exit_in_an_event_passes_through(hand: Net) -> None:
    """Events let them out as commands do."""
    server = hand.server()

    @server.on("join")
    def join() -> None:
        raise SystemExit(3)

    hand.raw_client(server)
    with pytest.raises(SystemExit):
        turn_until(server, lambda: False)
    assert len(server) == 1


def test_one_thread_after_another_may_turn(hand: Net) -> None:
    """Only two at once are refused."""
    server, got = hand.server(), Record()
    server.on("it")(lambda: got(threading.get_ident()))
    client = hand.client(server)
    for turn in (Thread, lambda *call: call[0](*call[1:])):
        client.send("it")
        made = turn(turn_until, server, lambda: len(got))
        if isinstance(made, Thread):
            made.result()
        got.next()


def test_handlers_may_do_everything(net: Net) -> None:
    """Look up, send to others, change and register, inside a handler."""
    server, got = net.server(), Record()
    ann = net.client(server, "ann", "red")
    net.turn(server)
    net.expect_members(server, 1)
    bea = net.client(server, "bea", "red")
    net.expect_members(server, 2)

    @server.on("tell")
    def tell(who: ClientInfo, message: str) -> None:
        others = server.get_all_clients(lambda one: one["name"] != who["name"])
        for other in others:
            server.send_client(other, "told", message)
        server.send_group("red", "told", "all red")

    ann.on("told")(lambda message: got("ann", message))
    bea.on("told")(lambda message: got("bea", message))
    net.turn()
    ann.send("tell", "hi")
    assert sorted(got.take(3)) == [
        ("ann", net.as_sent("all red")),
        ("bea", net.as_sent("all red")),
        ("bea", net.as_sent("hi")),
    ]


def _is_turned(peer: Peer) -> bool:
    return bool(peer._engine.turn.claims)


def test_a_handler_of_one_peer_may_turn_another(hand: Net) -> None:
    """A turn is refused inside its own handlers only."""
    server, got = hand.server(), Record()
    client: HiSockClient = hand.client(server, "ann")
    client.on("down")(lambda: got("down"))

    @server.on("up")
    def up(who: ClientInfo) -> None:
        server.send_client(who, "down")
        turn_until(client, lambda: len(got))

    client.send("up")
    turn_until(server, lambda: len(got))
    assert got.next() == "down"
    assert not _is_turned(server)
    assert not _is_turned(client)
