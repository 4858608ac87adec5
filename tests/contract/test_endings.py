"""Endings: who hears of them, what still works, and that they end in time."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from hisock import ClientInfo, Handlers, HiSockServer
from hisock.errors import AlreadyRunning, ClientDisconnected, ServerClosed

from . import Net, Record, Thread, eventually, turn_until

#: What a raw client says of its session.
SESSION = {
    **{"sid": "1" * 32, "token": "a" * 64, "next": "b" * 64, "got": 0},
    **{"epoch": None, "window": 30.0, "beats": False},
}


def test_disconnect_client(net: Net) -> None:
    """It is gone at once, hears of it, and ``leave`` runs; the others stay."""
    server, got = net.server(), Record()
    server.on("leave")(lambda client: got("leave", client["name"]))
    clients = [net.client(server, name) for name in ("ann", "bea")]
    clients[0].on("force_disconnect")(lambda: got("told", "ann"))
    clients[1].on("it")(lambda: got("it", "bea"))
    net.turn()
    net.expect_members(server, 2)
    server.disconnect_client("ann")
    assert len(server) == 1
    with pytest.raises(TypeError):
        server.get_client("ann")
    assert sorted(got.take(2)) == [("leave", "ann"), ("told", "ann")]
    server.send_client("bea", "it")
    assert got.next() == ("it", "bea")


def test_disconnect_client_by_every_way_to_say_who(net: Net) -> None:
    """A name, "ip:port", a tuple, a handler's object, a dictionary."""
    server = net.server()
    net.turn(server)
    ways: list[Callable[[str, int], Any]] = [
        lambda ip, port: "ann",
        lambda ip, port: f"{ip}:{port}",
        lambda ip, port: (ip, port),
        lambda ip, port: next(iter(server.clients.values())),
        lambda ip, port: server.get_client("ann"),
    ]
    for way in ways:
        client = net.client(server, "ann")
        net.expect_members(server, 1)
        server.disconnect_client(way(*client.get_client_addr()))
        assert len(server) == 0


def test_disconnect_all_clients(net: Net) -> None:
    """Everybody goes, and the server goes on for whoever comes next."""
    server, got = net.server(), Record()
    server.on("leave")(lambda client: got("leave"))
    for _ in range(3):
        net.client(server).on("force_disconnect")(lambda: got("told"))
    net.turn()
    net.expect_members(server, 3)
    server.disconnect_all_clients()
    assert len(server) == 0
    assert sorted(got.take(6)) == ["leave"] * 3 + ["told"] * 3
    server.disconnect_all_clients()
    server.on("it")(lambda: got("it"))
    net.client(server).send("it")
    assert got.next() == "it"


def test_a_server_ends_everybody_when_it_closes(net: Net) -> None:
    """Each client is told, ``leave`` runs for it, the port is free again."""
    server, got = net.server(), Record()
    server.on("leave")(lambda client: got("leave", client["name"]))
    for name in ("ann", "bea"):
        client = net.client(server, name)
        client.on("force_disconnect")(lambda name=name: got("told", name))
    net.turn()
    net.expect_members(server, 2)
    server.close()
    assert sorted(got.take(4)) == [
        ("leave", "ann"),
        ("leave", "bea"),
        ("told", "ann"),
        ("told", "bea"),
    ]
    assert (len(server), server.get_all_clients()) == (0, [])
    HiSockServer(server.get_addr()).close()


def test_a_client_says_goodbye(net: Net) -> None:
    """Its ``leave`` runs at once, after everything it sent before."""
    server, got = net.server(), Record()
    server.on("it")(lambda client, message: got(int(message)))
    server.on("leave")(lambda client: got("leave"))
    client = net.client(server)
    net.turn()
    for number in range(100):
        client.send("it", number)
    client.close()
    assert got.take(101) == [*range(100), "leave"]


def test_a_client_that_breaks_off_leaves_too(hand: Net) -> None:
    """Without a goodbye, ``leave`` runs when the connection ends."""
    server, got = hand.server(), Record()
    server.on("it")(lambda client, message: got(message))
    server.on("leave")(lambda client: got(client["name"]))
    raw = hand.raw_client(server, "ann")
    hand.turn(server)
    raw.send(b"it x")
    raw.close()
    assert got.take(2) == [b"x", "ann"]


def test_closing_twice(net: Net) -> None:
    """Is no error, from any thread."""
    server = net.server()
    client = net.client(server)
    net.turn()
    net.expect_members(server, 1)
    for _ in range(2):
        client.close()
        Thread(client.close).result()
    for _ in range(2):
        server.close()
        Thread(server.close).result()


def test_a_client_closes_itself_in_a_handler(net: Net) -> None:
    """What came behind that message is not handled any more."""
    server, got = net.server(), Record()
    server.on("leave")(lambda: got("leave"))
    client = net.client(server)

    @client.on("end", **net.may_wait(client))
    def end() -> None:
        client.close()
        got("closed")

    client.on("more")(lambda: got("more"))
    net.turn()
    net.expect_members(server, 1)
    server.send_all_clients("end")
    server.send_all_clients("more")
    assert sorted(got.take(2)) == ["closed", "leave"]
    if not net.client_kind.is_async:
        client.update()
    assert not len(got)


def test_a_server_closes_itself_in_a_handler(net: Net) -> None:
    """The handler returns, and then everything ends."""
    server, got = net.server(), Record()

    @server.on("end", **net.may_wait(server))
    def end() -> None:
        server.close()
        got("closed")

    client = net.client(server)
    client.on("force_disconnect")(lambda: got("told"))
    net.turn()
    client.send("end")
    assert sorted(got.take(2)) == ["closed", "told"]
    net.expect_members(server, 0)


def test_a_server_disconnects_in_a_handler(net: Net) -> None:
    """What that client had sent behind it is not handled any more."""
    server, got = net.server(), Record()
    raw_order: list[bytes] = []

    @server.on("end")
    def end(client: ClientInfo) -> None:
        server.disconnect_client(client)

    server.on("more")(lambda client: raw_order.append(b"more"))
    server.on("leave")(lambda client: got("leave"))
    raw = net.raw_client(server)
    raw.send(b"end", b"more")
    net.turn()
    assert got.next() == "leave"
    assert raw.receive() == b"$DISCONN$"
    raw.expect_end()
    assert raw_order == []


def test_a_client_is_told_by_an_event_and_then_by_an_error(hand: Net) -> None:
    """``force_disconnect`` runs in ``update``; from then on calls raise."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    got = Record()
    client.on("it")(lambda: got("it"))
    client.on("force_disconnect")(lambda: got("told"))
    raw.send(b"it", b"$DISCONN$")
    raw.close()
    turn_until(client, lambda: len(got) == 2)
    assert got.take(2) == ["it", "told"]
    calls: tuple[Callable[[], object], ...] = (
        client.update,
        client.recv_raw,
        lambda: client.send("x"),
        lambda: client.raw_send(b"x"),
        lambda: client.change_name("x"),
        lambda: client.change_group("x"),
        lambda: client.get_client("x"),
    )
    for call in calls:
        with pytest.raises(ClientDisconnected, match="the server ended"):
            call()
    assert not len(got)


def test_without_the_event_update_raises(hand: Net) -> None:
    """After everything that came before the end has been handled."""
    raw, client = hand.raw_server_for(hand.raw_listener(), reconnect=False)
    got = Record()
    client.on("it")(lambda: got("it"))
    raw.send(b"it", b"it")
    raw.close()
    with pytest.raises(ConnectionError) as caught:
        turn_until(client, lambda: False)
    assert isinstance(caught.value, ClientDisconnected)
    assert got.take(2) == ["it", "it"]


def _send_in_vain(send: Callable[[], object]) -> None:
    """Send until the system has said that nobody is there any more."""
    with contextlib.suppress(ClientDisconnected, TypeError):
        for _ in range(100):
            send()


def test_a_server_hears_a_goodbye_though_a_send_fails(hand: Net) -> None:
    """It came before the end that the failure tells of, so it is no cut."""
    session = SESSION if hand.is_compact else None
    server, got = hand.server(), Record()
    server.on("join")(lambda: None)
    server.on("leave")(lambda who: got("leave"))
    server.on_drop(lambda who: got("drop"))
    raw = hand.raw_client(server, "ann", claim=session)
    turn_until(server, lambda: len(server))
    raw.send(b"$USRCLOSE$")
    raw.close()
    _send_in_vain(lambda: server.send_client("ann", "it", b"x"))
    turn_until(server, lambda: len(got))
    assert got.next() == "leave"
    assert len(server) == 0


def test_a_client_hears_a_goodbye_though_a_send_fails(hand: Net) -> None:
    """It was sent away, and that it could not answer any more changes nothing."""
    listener = hand.raw_listener()
    raw, client = hand.raw_server_for(listener)
    got = Record()
    client.on("force_disconnect")(lambda: got("end"))
    client.on_drop(lambda: got("drop"))

    def agreed() -> bool:
        client.update(timeout=0.01)
        return client.wire is not None

    eventually(agreed)
    raw.send(b"$DISCONN$")
    raw.close()
    _send_in_vain(lambda: client.send("it", b"x"))
    turn_until(client, lambda: len(got))
    assert got.next() == "end"
    with pytest.raises(ClientDisconnected):
        client.update()


def test_a_closed_client_says_so(net: Net) -> None:
    """Sends raise; what it knows of itself can still be asked."""
    server = net.server()
    client = net.client(server, "ann")
    net.turn(server)
    address = client.get_client_addr()
    client.close()
    calls: tuple[Callable[[], object], ...] = (
        client.recv_raw,
        lambda: client.send("x"),
        lambda: client.raw_send(b"x"),
        lambda: client.change_name("x"),
        lambda: client.change_group(None),
        lambda: client.get_client("x"),
    )
    for call in calls:
        with pytest.raises(ClientDisconnected, match="closed by this program"):
            call()
    assert client.get_client_addr() == address
    assert client.get_server_addr() == server.addr
    assert client.get_cache() == []
    assert (client.name, client.group) == ("ann", None)


def test_a_closed_server_says_so(net: Net) -> None:
    """Sends raise; look-ups find nobody."""
    server = net.server()
    net.turn()
    server.close()
    with pytest.raises(ServerClosed, match="is closed"):
        server.send_all_clients("x", b"")
    calls: tuple[Callable[[], object], ...] = (
        lambda: server.send_client("ann", "x", b""),
        lambda: server.send_client_raw("ann", b""),
        lambda: server.send_group("red", "x", b""),
        lambda: server.send_group_raw("red", b""),
    )
    for call in calls:
        with pytest.raises((ServerClosed, TypeError)):
            call()
    assert server.get_all_clients() == []
    assert (len(server.clients), len(server.clients_rev)) == (0, 0)
    assert server.get_addr() == server.addr
    server.disconnect_all_clients()


def test_context_managers(net: Net) -> None:
    """All faces close at the end of a ``with``; threaded ones start at its start."""
    server = net.server()
    got = Record()
    server.on("leave")(lambda: got("leave"))
    with server:
        if not net.server_kind.threaded:
            net.turn(server)
        with net.client(server):
            net.expect_members(server, 1)
        assert got.next() == "leave"
    with pytest.raises(ServerClosed):
        server.send_all_clients("x", b"")


def test_max_connections_is_a_real_cap(net: Net) -> None:
    """Who comes over it is sent away; when there is room again, the next stays."""
    server, got = net.server(max_connections=1), Record()
    first = net.client(server, "first")
    net.turn()
    net.expect_members(server, 1)
    handlers = Handlers()
    handlers.on("force_disconnect")(lambda: got("told"))
    net.client(server, "second", handlers=handlers)
    net.turn()
    assert got.next() == "told"
    assert server.get_all_clients("name") == ["first"]
    first.close()
    net.expect_members(server, 0)
    net.client(server, "third")
    net.expect_members(server, 1)


def test_who_is_refused_disturbs_nobody(hand: Net) -> None:
    """Also when its first messages come in one piece with its hello."""
    server, got = hand.server(max_connections=1), Record()
    server.on("it")(lambda client: got(client["name"]))
    first = hand.client(server, "first")
    hand.turn(server)
    hand.expect_members(server, 1)
    second = hand.raw_client(server, "second", saying=(b"it x", b"$USRCLOSE$"))
    refusal = second.receive()
    if hand.is_compact:
        word, _, text = refusal.partition(b" ")
        told = json.loads(text)
        assert (word, told["code"]) == (b"$REFUSED$", "busy")
        assert told["retry"] > 0
    else:
        assert refusal == b"$DISCONN$"
    second.expect_end()
    first.send("it")
    assert got.next() == "first"


def test_leave_may_tell_the_others(net: Net) -> None:
    """Also while the server closes: a send to who is leaving harms nothing."""
    server, got = net.server(), Record()

    @server.on("leave")
    def leave(client: ClientInfo) -> None:
        server.send_all_clients("left", client["name"] or "")
        got(client["name"])

    for name in ("ann", "bea"):
        net.client(server, name)
    net.turn()
    net.expect_members(server, 2)
    server.close()
    assert sorted(got.take(2)) == ["ann", "bea"]


def test_a_peer_that_does_not_listen_costs_a_second(hand: Net) -> None:
    """``close`` waits for a silent peer, but not for long."""
    server = hand.server()
    hand.raw_client(server)
    server.on("join")(lambda: None)
    turn_until(server, lambda: len(server))
    began = time.monotonic()
    server.close()
    assert 0.5 < time.monotonic() - began < 2.0


@pytest.mark.parametrize("side", ["server", "client"])
def test_threaded_peers_stop_within_a_second(threaded: Net, side: str) -> None:
    """``join`` returns within a second of ``stop``, whatever the other side does."""
    if side == "server":
        server: Any = threaded.server()
        threaded.raw_client(server)
        threaded.turn()
        threaded.expect_members(server, 1)
        stop, join = server.stop_server, server.join
    else:
        _, client = threaded.raw_server_for(threaded.raw_listener())
        threaded.turn()
        peer: Any = client
        stop, join = peer.stop_client, peer.join
    began = time.monotonic()
    stop()
    join()
    assert time.monotonic() - began < 1.0
    stop()
    join()


def test_threaded_peers_start_once(threaded: Net) -> None:
    """A second start raises, also after the end."""
    server: Any = threaded.server()
    client: Any = threaded.client(server)
    threaded.turn()
    threaded.expect_members(server, 1)
    for start in (server.start_server, client.start_client):
        with pytest.raises(RuntimeError) as caught:
            start()
        assert isinstance(caught.value, AlreadyRunning)
    client.stop_client()
    client.join()
    with pytest.raises(AlreadyRunning):
        client.start_client()


def test_threaded_peers_that_never_started(threaded: Net) -> None:
    """May be joined and stopped all the same."""
    server: Any = threaded.server()
    client: Any = threaded.client(server)
    server.join()
    client.join()
    client.stop_client()
    server.stop_server()
    client.join()
    server.join()


def test_threaded_peers_stop_from_their_own_thread(threaded: Net) -> None:
    """There ``stop`` only sets the flag; the handler finishes first."""
    server: Any = threaded.server()
    client: Any = threaded.client(server)
    got = Record()

    def stop_server() -> None:
        server.stop_server()
        server.join()
        got("server goes on")

    def stop_client() -> None:
        client.stop_client()
        client.join()
        got("client goes on")
        client.send("stop")

    server.on("stop")(stop_server)
    client.on("stop")(stop_client)
    threaded.turn()
    threaded.expect_members(server, 1)
    server.send_all_clients("stop")
    assert got.take(2) == ["client goes on", "server goes on"]
    client.join()
    server.join()
    with pytest.raises(ServerClosed):
        server.send_all_clients("x")


def test_threads_of_threaded_peers_are_no_daemons(threaded: Net) -> None:
    """A program may consist of them alone, as in 1.1."""
    before = set(threading.enumerate())
    server = threaded.server()
    threaded.client(server)
    threaded.turn()
    started = set(threading.enumerate()) - before
    assert len(started) == 2
    assert not any(thread.daemon for thread in started)


def test_a_threaded_client_ends_with_its_connection(threaded: Net) -> None:
    """``join`` returns once the server has ended it."""
    server, got = threaded.server(), Record()
    client: Any = threaded.client(server, "ann")
    client.on("force_disconnect")(lambda: got("told"))
    threaded.turn()
    threaded.expect_members(server, 1)
    server.disconnect_client("ann")
    assert got.next() == "told"
    Thread(client.join).result()
    with pytest.raises(ClientDisconnected):
        client.send("x")


def test_a_newcomer_during_close_is_not_left_waiting(net: Net) -> None:
    """Whoever connects while a server closes learns that it did."""
    server = net.server()
    raw = net.raw_client(server)
    closing = Thread(server.close)
    eventually(lambda: raw.is_readable)
    with contextlib.suppress(ConnectionError):  # reset: its hello was never read
        if raw.sock.recv(1, socket.MSG_PEEK):
            assert raw.receive().split()[0] in (b"$DISCONN$", b"$REFUSED$")
        assert raw.sock.recv(1) == b""
    raw.close()
    closing.result()
