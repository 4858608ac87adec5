"""Where they meet and what they speak: addresses, wires, refusals, life times."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hisock import ClientInfo, HiSockClient, HiSockServer, start_server
from hisock.errors import ClientDisconnected, InvalidOption, Refused

from . import LOCALHOST, Net, Record, Thread, bare, eventually, turn_until


def _echo(net: Net, server: HiSockServer) -> HiSockClient:
    """Send a message there and back; the client that did."""
    got = Record()
    server.on("up")(lambda who, message: server.send_client(who, "down", message))
    client = net.client(server, "ann")
    client.on("down")(lambda message: got(message))
    net.turn()
    client.send("up", b"x")
    assert got.next() == b"x"
    return client


def test_both_sides_tell_which_wire_they_speak(net: Net) -> None:
    """As soon as they have agreed, without anything that either has to do."""
    server = net.server()
    client = _echo(net, server)
    assert eventually(lambda: client.wire) == net.spoken
    assert server.client("ann").wire == net.spoken


def test_a_server_serves_both_wires_at_once(compact: Net) -> None:
    """A peer of 1.1 and one of ours; what is sent to all reaches both, as each can."""
    server, got = compact.server(), Record()
    server.on("up")(lambda who, message: got(who["name"], who.wire, message))
    ours = compact.client(server, "ours")
    ours.on("down")(lambda message: got(message))
    theirs = compact.raw_client(server, "theirs", wire="classic")
    compact.turn()
    compact.expect_members(server, 2)
    ours.send("up", b"1")
    assert got.next() == ("ours", compact.spoken, b"1")
    theirs.send(b"up 2")
    assert got.next() == ("theirs", "classic", b"2")
    server.send_all_clients("down", {"a": 1})
    assert got.next() == {"a": 1}
    bodies = iter(theirs.receive, b'down {"a": 1}')
    assert all(body.startswith(b"$") for body in bodies)


def test_an_ipv6_address(net: Net) -> None:
    """As a tuple or as text, with brackets."""
    if not socket.has_ipv6:
        return
    try:
        probe = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    probe.close()
    for addr in ("[::1]:0", ("::1", 0)):
        server = net.server(addr)
        assert server.addr[0] == "::1"
        assert f"[::1]:{server.addr[1]}" in str(server)
        client = _echo(net, server)
        assert server.client("ann")["ip"] == client.get_client_addr()
        assert server.get_client(f"::1:{client.get_client_addr()[1]}")["name"] == "ann"
        net.end(client)


def test_an_address_as_text(net: Net) -> None:
    """``"host:port"``, on both sides."""
    server = net.server(f"{LOCALHOST}:0")
    assert server.addr == (LOCALHOST, server.addr[1])
    _echo(net, server)


@pytest.mark.skipif(sys.platform == "win32", reason="there are none")
def test_a_unix_socket(net: Net, tmp_path: Path) -> None:
    """``"unix:/path"``; the clients on it are told apart."""
    if net.is_websocket:
        pytest.skip("a ws:// address has no path of a socket")
    server = net.server(f"unix:{tmp_path}/it")
    assert server.addr == f"unix:{tmp_path}/it"
    _echo(net, server)
    net.client(server, "bea")
    net.expect_members(server, 2)
    ips = server.get_all_clients("ip")
    assert [ip[0] for ip in ips] == ["unix", "unix"]
    assert len(set(ips)) == 2
    assert server.get_client(ips[1])["name"] == "bea"
    for client in list(server):
        server.disconnect_client(client)
    net.expect_members(server, 0)


def test_a_server_that_listens_nowhere(net: Net) -> None:
    """For tests and for mounting: everything else of it works."""
    server, got = net.server(None), Record()
    server.every(0.002)(lambda: got("tick"))
    server.on("it")(lambda: None)
    assert server.addr is None
    assert (len(server), server.get_all_clients(), list(server)) == (0, [], [])
    net.turn()
    assert got.next() == "tick"
    server.send_all_clients("it", b"x")
    assert list(server.funcs) == ["it"]


def test_messages_before_the_welcome_arrive_in_order(net: Net) -> None:
    """In both directions: bytes leave at once, the rest when it is known how."""
    server, got = net.server(), Record()

    @server.on("join")
    def join(who: Any) -> None:
        for number in range(3):
            server.send_client(who, "down", b"%d" % number)

    server.on("up")(lambda who, message: got("up", int(message)))
    client = net.client(server, "ann")
    for number in range(3):
        client.send("up", b"%d" % number)
    client.on("down")(lambda message: got("down", int(message)))
    net.turn()
    for number in range(3, 6):
        client.send("up", number)
    client.send("up", b"6")
    seen: list[tuple[str, int]] = []
    while ("up", 6) not in seen:
        seen.append(got.next())
    server.send_client("ann", "down", 3)
    while ("down", 3) not in seen:
        seen.append(got.next())
    assert [number for side, number in seen if side == "up"] == list(range(7))
    downs = [number for side, number in seen if side == "down"]
    if not net.client_kind.is_async:  # a loop may turn it before it has its handler
        assert downs == [0, 1, 2, 3]


def test_a_rename_before_the_welcome_stays_in_its_place(net: Net) -> None:
    """Between what was sent before and after it."""
    server, got = net.server(), Record()
    server.on("who")(lambda who: got(who["name"], who["group"]))
    client = net.client(server, "one")
    client.send("who")
    client.change_name("two")
    client.change_group("red")
    client.send("who")
    net.turn()
    client.send("who", 5)
    assert got.take(3) == [("one", None), ("two", "red"), ("two", "red")]


def test_a_client_that_only_sends(net: Net) -> None:
    """It need not be turned, nor wait for anything, to be heard."""
    server, got = net.server(), Record()
    server.on("it")(lambda who, message: got(message))
    server.on("leave")(lambda: got("left"))
    net.turn()
    for content in (b"bytes", 5, [1]):
        client = net.client(server)
        client.send("it", content)
        client.close()
        assert got.take(2) == [net.as_sent(content), "left"]


def test_server_and_client_in_one_thread(hand: Net) -> None:
    """As in a test or a demo: sends never wait for a turn that cannot come."""
    server, ups, downs = hand.server(), Record(), Record()

    @server.on("up")
    def up(who: ClientInfo, message: Any) -> None:
        server.send_client(who, "down", message)
        ups(message)

    client = hand.client(server, "ann")
    client.on("down")(lambda message: downs(message))
    for content in (b"bytes", 5, "text", [1, {"a": None}]):
        client.send("up", content)
        turn_until(server, lambda: len(ups))
        turn_until(client, lambda: len(downs))
        assert ups.next() == downs.next() == hand.as_sent(content)


def _note(got: Record) -> Callable[[Any, Any], None]:
    return lambda who, message: got(message)


def test_the_first_content_may_be_of_any_kind(hand: Net) -> None:
    """Its send lets the server of the same thread answer the hello first."""
    if not hand.is_compact:
        pytest.skip("what speaks as a server of 1.1 answers in its turn")
    for content in (5, "text", [1], {"a": None}):
        server, got = hand.server(), Record()
        server.on("up")(_note(got))
        client = hand.client(server, "ann")
        client.send("up", content)
        turn_until(server, got.__len__)
        assert got.next() == hand.as_sent(content)


def _refusal(net: Net, server: HiSockServer, **hello: Any) -> dict[str, Any]:
    """What a peer is told that says this hello."""
    sock = socket.create_connection(server.addr, 5)
    raw = net.adopt(sock)
    said = json.dumps({"name": "ann", "group": None, **hello}).encode()
    raw.sock.sendall(raw.classic(b"$CLTHELLO$ " + said) + raw.classic(b"$DH_NUMS$"))
    word, _, text = raw.receive().partition(b" ")
    assert word == b"$REFUSED$"
    refused: dict[str, Any] = json.loads(text)
    raw.expect_end()
    return refused


def test_a_version_that_is_not_spoken_is_refused(compact: Net) -> None:
    """With both named, and without a place to try again."""
    server = compact.server()
    compact.turn()
    refused = _refusal(compact, server, proto=1, now=0)
    assert refused["code"] == "version"
    assert refused["retry"] is None
    assert "version 2" in refused["text"]
    assert "up to 1" in refused["text"]
    assert len(server) == 0


def test_a_newer_version_is_served_with_ours(compact: Net) -> None:
    """``proto`` is the highest that a client speaks; the welcome says which it is."""
    server = compact.server()
    compact.turn()
    sock = socket.create_connection(server.addr, 5)
    raw = compact.adopt(sock)
    said = json.dumps({"name": "ann", "group": None, "proto": 9, "now": 0}).encode()
    raw.sock.sendall(raw.classic(b"$CLTHELLO$ " + said) + raw.classic(b"$DH_NUMS$"))
    compact.expect_members(server, 1)
    eventually(lambda: raw.is_readable)
    head = raw.sock.recv(16, socket.MSG_WAITALL)
    welcome = raw.sock.recv(int(head), socket.MSG_WAITALL)
    assert json.loads(welcome.partition(b" ")[2])["proto"] == 2


def test_a_full_server_says_when_to_come_again(compact: Net) -> None:
    """``busy``, with how many there are and after how many milliseconds."""
    server = compact.server(max_connections=1)
    compact.turn()
    compact.client(server)
    compact.expect_members(server, 1)
    refused = _refusal(compact, server, proto=2, now=0)
    assert refused["code"] == "busy"
    assert refused["retry"] >= 1000
    assert "(1 clients)" in refused["text"]


def test_a_client_learns_why_it_was_refused(compact: Net) -> None:
    """Whatever it does next tells; ``Refused`` with the code is the cause."""
    server = compact.server(max_connections=1)
    compact.turn()
    compact.client(server)
    compact.expect_members(server, 1)
    second = compact.client(server, "second")
    with pytest.raises(ClientDisconnected, match="full") as caught:
        second.recv("it", timeout=5)
    cause = caught.value.__cause__
    assert isinstance(cause, Refused)
    assert cause.code == "busy"


def test_a_server_without_the_wire_of_1_1(compact: Net) -> None:
    """Serves ours, and sends a peer of 1.1 away in its own words."""
    server = compact.server(wires={"compact", compact.spoken})
    _echo(compact, server)
    theirs = compact.raw_client(server, "theirs", wire="classic")
    assert theirs.receive() == b"$DISCONN$"
    theirs.expect_end()
    compact.expect_members(server, 1)


@pytest.mark.parametrize(
    "wires", [(), ("morse",), "classic", ("classic", "morse"), 5, [None]]
)
def test_wires_that_there_are_not(wires: Any) -> None:
    """Are refused, with those that there are."""
    with pytest.raises(InvalidOption, match=r"classic.*compact"):
        start_server((LOCALHOST, 0), wires=wires)


def _has(got: Record, count: int) -> bool:
    return len(got) == count


def _let_pass(seconds: float) -> None:
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > end)


def test_what_has_outlived_its_ttl_is_not_handled(hand: Net) -> None:
    """Counted instead; a peer of 1.1 knows no life times and handles it."""
    server, got = hand.server(), Record()
    server.on("join")(lambda: None)
    server.on("it")(lambda who, message: got(message))
    client = hand.client(server, "ann")
    client.on("it")(lambda message: got(message))
    turn_until(server, lambda: len(server))
    for send, peer in (
        (client.send, server),
        (lambda *what, **tail: server.send_client("ann", *what, **tail), client),
    ):
        send("it", b"short", ttl=0.01)
        send("it", b"long", ttl=60)
        send("it", b"endless")
        _let_pass(0.03)
        expected = [b"long", b"endless"]
        if not hand.is_compact:
            expected = [b"short", *expected]
        count = len(expected)
        turn_until(peer, partial(_has, got, count))
        assert got.take(len(expected)) == expected
    assert server.stats()["expired_messages"] == (1 if hand.is_compact else 0)


def test_ttl_of_sends_to_many(hand: Net) -> None:
    """One deadline for all of them."""
    server, got = hand.server(), Record()
    server.on("join")(lambda: None)
    client = hand.client(server, "ann", "red")
    client.on("it")(lambda message: got(message))
    turn_until(server, lambda: len(server))
    # Its clock is compared when it reads the welcome: late is as if it were slow.
    eventually(lambda: client.poll() or client.wire)
    server.send_all_clients("it", b"1", ttl=0.01)
    server.send_group("red", "it", b"2", ttl=0.01)
    server.group("red").send("it", b"3", ttl=0.01)
    server.client("ann").send("it", b"4", ttl=0.01)
    server.send_all_clients("it", b"5", ttl=60)
    _let_pass(0.03)
    expected = [b"5"] if hand.is_compact else [b"1", b"2", b"3", b"4", b"5"]
    turn_until(client, lambda: len(got) == len(expected))
    assert got.take(len(expected)) == expected


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), "1", True])
def test_a_ttl_is_more_than_nothing(hand: Net, ttl: Any) -> None:
    """Anything else is refused before it is sent."""
    server = hand.server()
    server.on("join")(lambda: None)
    client = hand.client(server, "ann")
    turn_until(server, lambda: len(server))
    sends: list[Callable[..., None]] = [
        client.send,
        partial(server.send_client, "ann"),
        server.send_all_clients,
    ]
    for send in sends:
        with pytest.raises(InvalidOption):
            send("it", b"x", ttl=ttl)


def test_wait_keeps_trying_until_somebody_listens(net: Net) -> None:
    """``connect(wait=)``: the first connection may take a while."""
    probe = socket.create_server((LOCALHOST, 0))
    addr = probe.getsockname()[:2]
    probe.close()

    class Later:
        """Where a server will be."""

    Later.addr = addr  # type: ignore[attr-defined]  # all that is looked at
    connecting = Thread(lambda: net.client(Later, "ann", wait=5.0))  # type: ignore[arg-type]  # the same
    server = net.server(addr)
    net.turn(server)
    connecting.result()
    net.expect_members(server, 1)
    assert bare(server).addr == addr
