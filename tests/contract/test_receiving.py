"""``recv_raw`` and the cache: messages without a handler, and what came last."""

from __future__ import annotations

import pytest

from hisock import ClientInfo
from hisock.errors import ClientDisconnected

from . import Net, Record, Thread, eventually, turn_until


def test_recv_raw_waits_for_a_message_without_a_handler(net: Net) -> None:
    """It returns that message whole, also one with a command nobody handles."""
    server = net.server()
    client = net.client(server)
    net.turn(server)
    net.expect_members(server, 1)
    receiving = Thread(client.recv_raw)
    server.send_client_raw(client.get_client_addr(), b"\x00\xff raw")
    assert receiving.result() == b"\x00\xff raw"
    server.send_all_clients("unknown", b"content")
    assert client.recv_raw() == b"unknown content"


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (b"bytes", b"bytes"),
        ("text é", "text é".encode()),
        (5, b"5"),
        (2.5, b"2.5"),
        (True, b"true"),
        (None, b""),
        ([1, "a"], b'[1, "a"]'),
        ((1, 2), b"[1, 2]"),
        ({"a": 1}, b'{"a": 1}'),
        (bytearray(b"array"), b"array"),
        (memoryview(b"view"), b"view"),
    ],
)
def test_recv_raw_returns_the_text_form(
    hand: Net, sent: object, received: bytes
) -> None:
    """Whatever was sent comes as bytes: text as UTF-8, numbers as text, else JSON."""
    server = hand.server()
    client = hand.client(server, "ann")
    hand.turn(server)
    hand.expect_members(server, 1)
    server.send_client_raw("ann", sent)
    got = client.recv_raw()
    assert (type(got), got) == (bytes, received)


def test_what_else_arrives_stays_in_order(hand: Net) -> None:
    """``recv_raw`` takes only what has no handler; ``update`` finds the rest."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    got = Record()
    client.on("it")(lambda message: got(int(message)))
    raw.send(b"it 1", b"raw 1", b"it 2", b"raw 2", b"it 3")
    assert [client.recv_raw(), client.recv_raw()] == [b"raw 1", b"raw 2"]
    assert not len(got)
    turn_until(client, lambda: len(got) == 3)
    assert got.take(3) == [1, 2, 3]


def test_update_keeps_what_has_no_handler(hand: Net) -> None:
    """Messages that nobody handles wait for ``recv_raw``, in order."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    got = Record()
    client.on("it")(lambda: got("it"))
    raw.send(b"raw 1", b"raw 2", b"it")
    turn_until(client, lambda: len(got))
    raw.send(b"raw 3")
    assert [client.recv_raw() for _ in range(3)] == [b"raw 1", b"raw 2", b"raw 3"]


def test_recv_raw_inside_a_handler(net: Net) -> None:
    """As in the manual's example: ask and wait for the answer, in one handler."""
    server, got = net.server(), Record()
    client = net.client(server, "ann")

    @server.on("sum")
    def add(who: ClientInfo, message: list) -> None:  # type: ignore[type-arg]  # 1.1's
        server.send_client_raw(who, sum(message))

    @client.on("hello", **net.may_wait(client))
    def hello() -> None:
        client.send("sum", [1, 2, 3])
        got(int(client.recv_raw()))

    client.on("after")(lambda: got("after"))
    net.turn()
    net.expect_members(server, 1)
    for _ in range(3):
        server.send_client("ann", "hello")
        server.send_client("ann", "after")
        assert got.take(2) == [6, "after"]


def test_recv_raw_inside_a_handler_takes_from_the_same_batch(hand: Net) -> None:
    """What came in one read with the handler's message is found as well."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    got = Record()

    @client.on("ask")
    def ask() -> None:
        got(client.recv_raw(), client.recv_raw())

    client.on("it")(lambda message: got(message))
    raw.send(b"early", b"ask", b"it 1", b"late", b"it 2")
    turn_until(client, lambda: len(got) == 3)
    assert got.take(3) == [(b"early", b"late"), b"1", b"2"]


def test_recv_raw_in_another_thread_than_the_one_that_turns(net: Net) -> None:
    """The turning thread hands over what nobody handles."""
    server, got = net.server(), Record()
    client = net.client(server, "ann")
    client.on("it")(lambda message: got(message))
    net.turn()
    net.expect_members(server, 1)
    for number in range(20):
        receiving = Thread(client.recv_raw)
        server.send_client("ann", "it", number)
        server.send_client_raw("ann", b"raw %d" % number)
        assert receiving.result() == b"raw %d" % number
    assert got.take(20) == [net.as_sent(number) for number in range(20)]


def test_two_threads_may_wait_at_once(net: Net) -> None:
    """Each message goes to one of them."""
    server = net.server()
    client = net.client(server, "ann")
    net.turn()
    net.expect_members(server, 1)
    waiting = [Thread(client.recv_raw) for _ in range(4)]
    for number in range(4):
        server.send_client_raw("ann", number)
    received = sorted(thread.result() for thread in waiting)
    assert received == [b"0", b"1", b"2", b"3"]


def test_recv_raw_on_a_client_that_nobody_turns(net: Net) -> None:
    """A program without handlers needs no ``update``."""
    server = net.server()
    server.on("ask")(lambda who, message: server.send_client_raw(who, message))
    client = net.client(server)
    net.turn(server)
    for number in range(5):
        client.send("ask", number)
        assert client.recv_raw() == b"%d" % number


def test_recv_raw_ends_with_the_connection(net: Net) -> None:
    """What came before is received first; then it raises instead of waiting."""
    server = net.server()
    client = net.client(server, "ann")
    net.turn(server)
    net.expect_members(server, 1)
    server.send_client_raw("ann", b"last")
    server.disconnect_client("ann")
    assert client.recv_raw() == b"last"
    with pytest.raises(ClientDisconnected):
        client.recv_raw()


def test_close_wakes_who_waits_in_recv_raw(net: Net) -> None:
    """From another thread, in which it says that this program closed it."""
    server = net.server()
    client = net.client(server)
    net.turn(server)
    net.expect_members(server, 1)
    receiving = Thread(client.recv_raw)
    client.close()
    with pytest.raises(ClientDisconnected, match="closed by this program"):
        receiving.result()


def _entry(body: bytes, header_len: int = 16) -> dict[str, bytes]:
    return {"header": str(len(body)).ljust(header_len).encode(), "content": body}


def test_the_cache_has_the_newest(net: Net) -> None:
    """``cache_size`` of them, whole and with their headers, the oldest first."""
    server, got = net.server(), Record()
    client = net.client(server, "ann", cache_size=3)
    assert client.get_cache() == []
    client.on("it")(lambda message: got(message))
    net.turn()
    net.expect_members(server, 1)
    for number in range(5):
        server.send_client("ann", "it", number)
    assert len(got.take(5)) == 5
    entries = [_entry(b"it 2"), _entry(b"it 3"), _entry(b"it 4")]
    assert eventually(lambda: client.get_cache() == entries)
    assert client.get_cache(0) == entries[0]
    assert client.get_cache(-1) == entries[-1]
    assert client.get_cache(slice(1, None)) == entries[1:]
    with pytest.raises(IndexError):
        client.get_cache(3)


def test_the_cache_has_what_nobody_handled_too(hand: Net) -> None:
    """Whether it was received or still waits; in order of arrival."""
    raw, client = hand.raw_server_for(hand.raw_listener(), cache_size=10)
    got = Record()
    client.on("it")(lambda: got("it"))
    raw.send(b"raw", b"it", b"\xff")
    turn_until(client, lambda: len(got))
    assert client.get_cache() == [_entry(b"raw"), _entry(b"it"), _entry(b"\xff")]


def test_the_cache_has_what_recv_raw_took(net: Net) -> None:
    """Also when it waited for the message itself."""
    server = net.server()
    client = net.client(server, "ann", cache_size=10)
    net.turn(server)
    net.expect_members(server, 1)
    server.send_client_raw("ann", b"raw")
    assert client.recv_raw() == b"raw"
    assert client.get_cache() == [_entry(b"raw")]


@pytest.mark.parametrize("size", [0, -1, -5])
def test_without_a_size_nothing_is_kept(hand: Net, size: int) -> None:
    """0 or less, as by default, is no cache."""
    raw, client = hand.raw_server_for(hand.raw_listener(), cache_size=size)
    got = Record()
    client.on("it")(lambda: got("it"))
    raw.send(b"it", b"it")
    turn_until(client, lambda: len(got) == 2)
    assert client.get_cache() == []
    assert client.get_cache(slice(None)) == []


def test_the_cache_writes_headers_of_the_clients_length(hand: Net) -> None:
    """As they stood on the wire."""
    raw, client = hand.raw_server_for(hand.raw_listener(), header_len=4, cache_size=1)
    client.on("it")(lambda: None)
    raw.send(b"it")
    turn_until(client, lambda: client.get_cache() == [_entry(b"it", 4)])
