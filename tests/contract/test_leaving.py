"""When a send leaves: at once, or with the rest of the batch, seen on a raw wire."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from hisock import ClientInfo
from hisock.errors import ClientDisconnected

from . import Net, Peer, Raw, Record, Thread, turn_until

#: A peer to turn by hand, the raw peer opposite, and how the first sends.
Side: TypeAlias = tuple[Peer, Raw, Callable[..., None]]
#: A batch that took over 1 ms is written early, so a busy machine gets more tries.
TRIES = 50


def _server_side(net: Net) -> Side:
    """A server, its only client raw, and how it sends to that client."""
    server = net.server()
    server.on("join")(lambda: None)
    raw = net.raw_client(server)
    turn_until(server, lambda: len(server))
    (who,) = server.clients.values()
    return server, raw, lambda *what: server.send_client(who, *what)


def _client_side(net: Net) -> Side:
    """A client, its raw server, and how it sends."""
    raw, client = net.raw_server_for(net.raw_listener())
    return client, raw, client.send


@pytest.fixture(params=[_server_side, _client_side], ids=["server", "client"])
def side(request: pytest.FixtureRequest, hand: Net) -> Side:
    """Each of the two in turn."""
    made: Side = request.param(hand)
    return made


def test_a_send_outside_a_handler_leaves_at_once(side: Side) -> None:
    """Nobody has to turn for it."""
    _, raw, send = side
    send("it", b"x")
    assert raw.receive() == b"it x"


def test_a_single_messages_answer_is_out_before_its_handler_returns(
    side: Side,
) -> None:
    """With nothing else waiting, there is nothing to wait for."""
    peer, raw, send = side
    got = Record()

    @peer.on("ask")
    def ask() -> None:
        send("answer", b"x")
        got(raw.receive())

    raw.send(b"ask")
    turn_until(peer, lambda: len(got))
    assert got.next() == b"answer x"


def test_the_sends_of_a_batch_leave_together(side: Side) -> None:
    """Until its last message nothing is on the wire; then one read has all."""
    peer, raw, send = side
    seen: list[bool] = []

    @peer.on("ask")
    def ask() -> None:
        send("answer", len(seen))
        send("more", b"")
        seen.append(raw.has_mail)

    expected = [part for n in range(8) for part in (b"answer %d" % n, b"more ")]
    for _ in range(TRIES):
        seen.clear()
        raw.send(*[b"ask"] * 8)
        turn_until(peer, lambda: len(seen) == 8)
        if not any(seen[:-1]):
            assert raw.take_one_read() == expected
            return
        assert raw.take(16) == expected
    pytest.fail("sends of a batch were never seen to wait for its end")


def test_messages_nobody_handles_do_not_hold_sends_back(side: Side) -> None:
    """What a handler sent is out once ``run`` or ``update`` returns."""
    peer, raw, send = side
    got = Record()

    @peer.on("ask")
    def ask() -> None:
        send("answer", b"x")
        got("asked")

    raw.send(b"ask", b"unknown", b"$odd", b"unknown")
    turn_until(peer, lambda: len(got))
    assert raw.has_mail
    assert raw.receive() == b"answer x"


def test_a_long_answer_does_not_wait(side: Side) -> None:
    """At 64 KiB it leaves, with more of its batch still to come."""
    peer, raw, send = side
    got = Record()

    @peer.on("ask")
    def ask() -> None:
        if not len(got):
            send("answer", bytes(70_000))
            got(raw.receive() == b"answer " + bytes(70_000))
        else:
            got("last")

    raw.send(b"ask", b"ask")
    turn_until(peer, lambda: len(got) == 2)
    assert got.take(2) == [True, "last"]


def test_a_slow_handlers_sends_do_not_wait(side: Side) -> None:
    """Over 1 ms into a batch a send leaves at once, with what waited before it."""
    peer, raw, send = side
    got = Record()

    @peer.on("slow")
    def slow() -> None:
        send("one", b"")
        began = time.monotonic()
        while time.monotonic() - began < 0.002:
            pass
        send("two", b"")
        got(raw.take(2))

    peer.on("last")(lambda: got("last"))
    raw.send(b"slow", b"last")
    turn_until(peer, lambda: len(got) == 2)
    assert got.take(2) == [[b"one ", b"two "], "last"]


def test_a_slow_handlers_sends_leave_when_it_returns(side: Side) -> None:
    """Looked at once more then: the next handler finds them on the wire."""
    peer, raw, send = side
    got = Record()

    @peer.on("slow")
    def slow() -> None:
        send("one", b"")
        began = time.monotonic()
        while time.monotonic() - began < 0.002:
            pass

    peer.on("next")(lambda: got(raw.receive()))
    peer.on("last")(lambda: got("last"))
    raw.send(b"slow", b"next", b"last")
    turn_until(peer, lambda: len(got) == 2)
    assert got.take(2) == [b"one ", "last"]


def test_waiting_flushes_first(hand: Net) -> None:
    """``recv_raw`` in a handler sends what that handler had sent before."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    got = Record()

    @client.on("start")
    def start() -> None:
        client.send("question", b"x")
        got(client.recv_raw())

    client.on("last")(lambda: got("last"))
    raw.send(b"start", b"last")
    turning = Thread(turn_until, client, lambda: len(got) == 2)
    assert raw.receive() == b"question x"
    raw.send(b"answer")
    turning.result()
    assert got.take(2) == [b"answer", "last"]


def test_close_in_a_handler_flushes_first(side: Side) -> None:
    """What a handler sent before it closed arrives, and then the goodbye."""
    peer, raw, send = side
    got = Record()

    @peer.on("end")
    def end() -> None:
        send("last words", b"x")
        peer.close()
        got("closed")

    raw.send(b"end", b"more")
    turning = Thread(turn_until, peer, lambda: len(got))
    assert raw.receive() == b"last words x"
    assert raw.receive() in (b"$DISCONN$", b"$USRCLOSE$")
    raw.expect_end()
    raw.close()
    turning.result()


def test_sends_to_others_wait_for_the_batch_too(hand: Net) -> None:
    """One write for each receiver, after the batch of whoever caused them."""
    server = hand.server(roster=False)
    server.on("join")(lambda: None)
    asker, other = hand.raw_client(server), hand.raw_client(server)
    turn_until(server, lambda: len(server) == 2)
    seen: list[bool] = []

    @server.on("tell")
    def tell(who: ClientInfo, message: bytes) -> None:
        server.send_all_clients("told", message)
        seen.append(other.has_mail)

    expected = [b"told %d" % number for number in range(6)]
    for _ in range(TRIES):
        seen.clear()
        asker.send(*(b"tell %d" % number for number in range(6)))
        turn_until(server, lambda: len(seen) == 6)
        if not any(seen[:-1]):
            assert other.take_one_read() == asker.take_one_read() == expected
            return
        assert other.take(6) == asker.take(6) == expected
    pytest.fail("sends of a batch were never seen to wait for its end")


def test_a_batch_block_writes_once(hand: Net) -> None:
    """Nothing of ``with client.batch()`` is on the wire before its end."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    with client.batch():
        for number in range(20):
            client.send("it", number)
        with client.batch():
            client.raw_send(b"inner")
        assert not raw.has_mail
    assert raw.take_one_read() == [*(b"it %d" % n for n in range(20)), b"inner"]


def test_a_long_batch_block_writes_at_64_kib(hand: Net) -> None:
    """So that it never grows without bounds."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    with client.batch():
        client.send("it", bytes(70_000))
        assert raw.receive() == b"it " + bytes(70_000)
        client.send("it", b"x")
        assert not raw.has_mail
    assert raw.receive() == b"it x"


def test_recv_raw_inside_a_batch_block_flushes_first(hand: Net) -> None:
    """A question inside the block would otherwise never be answered."""
    raw, client = hand.raw_server_for(hand.raw_listener())

    def ask() -> bytes:
        with client.batch():
            client.send("question", b"x")
            return client.recv_raw()

    asking = Thread(ask)
    try:
        assert raw.receive() == b"question x"
    finally:
        raw.send(b"answer")
    assert asking.result() == b"answer"


def test_close_inside_a_batch_block_flushes_first(hand: Net) -> None:
    """What was sent before the close arrives."""
    raw, client = hand.raw_server_for(hand.raw_listener())

    def send_and_close() -> None:
        with client.batch():
            client.send("it", b"x")
            client.close()

    closing = Thread(send_and_close)
    received = raw.take(2)
    raw.close()
    closing.result()
    assert received == [b"it x", b"$USRCLOSE$"]


def test_connect_has_said_hello_when_it_returns(hand: Net) -> None:
    """Nobody has to turn for the server to know the client."""
    listener = hand.raw_listener()
    hand.client(listener, "ann", "red")
    raw = listener.accept()
    hello, probe = raw.take_one_read()
    raw.close()
    word, _, said = hello.partition(b" ")
    assert word == b"$CLTHELLO$"
    offer = json.loads(said)
    for drawn, digits in {"sid": 32, "token": 64, "next": 64}.items():
        value = offer.pop(drawn)
        assert len(value) == digits
        assert int(value, 16)
    assert isinstance(offer.pop("now"), int)
    assert offer == {
        **{"name": "ann", "group": "red", "proto": 2},
        **{"got": 0, "epoch": None, "window": 30.0, "beats": False},
    }
    assert probe == b"$DH_NUMS$"


@pytest.mark.parametrize("option", [{"reconnect": False}, {"resume_window": 0}])
def test_a_hello_without_a_session_says_nothing_of_one(
    hand: Net, option: dict[str, Any]
) -> None:
    """A client that does not come back, or keeps nothing for it, asks for none."""
    listener = hand.raw_listener()
    hand.client(listener, "ann", "red", **option)
    raw = listener.accept()
    hello, probe = raw.take_one_read()
    raw.close()
    offer = json.loads(hello.partition(b" ")[2])
    assert isinstance(offer.pop("now"), int)
    assert offer == {"name": "ann", "group": "red", "proto": 2}
    assert probe == b"$DH_NUMS$"


def test_a_header_too_short_for_our_hello_says_that_of_1_1(hand: Net) -> None:
    """With ``header_len`` under 4 there is no offer of another wire."""
    listener = hand.raw_listener()
    hand.client(listener, "ann", "red", header_len=3)
    raw = listener.accept(3)
    hello = raw.take_one_read()
    raw.close()
    assert hello == [b'$CLTHELLO$ {"name": "ann", "group": "red"}']


def test_a_batch_on_a_lost_connection_says_so(hand: Net) -> None:
    """The end of the block raises what a send would have."""
    raw, client = hand.raw_server_for(hand.raw_listener(), reconnect=False)
    raw.close()
    with pytest.raises(ClientDisconnected):
        turn_until(client, lambda: False)
    with pytest.raises(ClientDisconnected), client.batch():
        client.send("it", b"x")
