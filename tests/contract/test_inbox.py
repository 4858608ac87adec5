"""``recv`` and ``recv_any``: messages that are asked for, not handled."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from hisock import HiSockClient, HiSockServer, Limits, Message
from hisock.errors import (
    ClientDisconnected,
    ConversionError,
    Overloaded,
    RequestTimeout,
)

from . import Net, Record, Thread


def _meet(net: Net, **options: Any) -> tuple[HiSockServer, HiSockClient]:
    server = net.server()
    client = net.client(server, "ann", **options)
    net.turn(server)
    net.expect_members(server, 1)
    return server, client


def test_recv_waits_for_one_command(net: Net) -> None:
    """What else came stays, in order, for whoever asks for it."""
    server, client = _meet(net)
    receiving = Thread(client.recv, "two")
    for command in ("one", "two", "three", "one"):
        server.send_client("ann", command, command.encode())
    assert receiving.result() == b"two"
    assert client.recv("three") == b"three"
    assert [client.recv("one"), client.recv("one")] == [b"one", b"one"]


def test_recv_converts(net: Net) -> None:
    """To ``type=``; without, as an untyped handler would get it."""
    server, client = _meet(net)
    for content in ([1, 2], "text", 5, {"a": 1}):
        server.send_client("ann", "it", content)
    assert client.recv("it", type=list[int]) == [1, 2]
    assert client.recv("it", type=str) == "text"
    assert client.recv("it") == net.as_sent(5)
    with pytest.raises(ConversionError):
        client.recv("it", type=int)


def test_recv_gives_up_after_its_timeout(net: Net) -> None:
    """And loses nothing: what comes later is received later."""
    server, client = _meet(net)
    server.send_client("ann", "other", b"x")
    for timeout in (0.02, 0):
        with pytest.raises(TimeoutError) as caught:
            client.recv("it", timeout=timeout)
        assert isinstance(caught.value, RequestTimeout)
    server.send_client("ann", "it", b"y")
    assert client.recv("it", timeout=5) == b"y"
    assert client.recv_any(timeout=5).content == b"x"


def test_recv_any_takes_whatever_comes(net: Net) -> None:
    """With its command; raw content has none, but on the wire of 1.1 a first word."""
    server, client = _meet(net)
    server.send_client("ann", "it", b"content")
    server.send_client_raw("ann", b"raw")
    assert client.recv_any() == Message("it", b"content")
    raw = Message(None, b"raw") if net.is_compact else Message("raw", b"")
    assert client.recv_any() == raw
    with pytest.raises(RequestTimeout):
        client.recv_any(timeout=0.01)


def test_what_has_a_handler_is_not_received(net: Net) -> None:
    """It is handled, before and after, in order."""
    server, client = _meet(net)
    got = Record()
    client.on("handled")(lambda message: got(int(message)))
    net.turn()
    for number in range(6):
        server.send_client("ann", "handled" if number % 2 else "it", b"%d" % number)
    assert [client.recv("it") for _ in range(3)] == [b"0", b"2", b"4"]
    assert got.take(3) == [1, 3, 5]


def test_recv_inside_a_handler(net: Net) -> None:
    """Ask and wait, in one function."""
    server, got = net.server(), Record()
    server.on("ask")(lambda who, message: server.send_client(who, "answer", message))
    client = net.client(server, "ann")

    @client.on("go", **net.may_wait(client))
    def go(message: bytes) -> None:
        client.send("ask", message)
        got(client.recv("answer", timeout=5))

    net.turn()
    net.expect_members(server, 1)
    for content in (b"1", b"2"):
        server.send_client("ann", "go", content)
        assert got.next() == content


def test_recv_ends_with_the_connection(net: Net) -> None:
    """Whoever waits is told; also by the own ``close``."""
    server, client = _meet(net)
    waiting = [Thread(client.recv, "it"), Thread(client.recv_any)]
    server.disconnect_client("ann")
    for thread in waiting:
        with pytest.raises(ClientDisconnected):
            thread.result()
    other = net.client(server, "bea")
    waits = Thread(other.recv, "it")
    other.close()
    with pytest.raises(ClientDisconnected):
        waits.result()


def test_the_inbox_has_bounds(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    """The oldest goes for the newest, and the log says so, with the near name."""
    server, got = net.server(), Record()
    client = net.client(server, "ann", limits=Limits(unclaimed_messages=3))
    client.on("fence")(lambda: got("fence"))
    net.turn()
    net.expect_members(server, 1)
    with caplog.at_level(logging.WARNING, "hisock.client"):
        for number in range(5):
            server.send_client("ann", "fecne", b"%d" % number)
        server.send_client("ann", "fence")
        assert got.next() == "fence"
    assert [client.recv("fecne") for _ in range(3)] == [b"2", b"3", b"4"]
    with pytest.raises(RequestTimeout):
        client.recv("fecne", timeout=0.01)
    assert "'fence'" in caplog.records[0].getMessage()


def test_the_inbox_has_a_bound_of_bytes(net: Net) -> None:
    """Many short messages or a few long ones."""
    server, got = net.server(), Record()
    client = net.client(server, "ann", limits=Limits(unclaimed=2500))
    client.on("fence")(lambda: got("fence"))
    net.turn()
    net.expect_members(server, 1)
    for number in range(5):
        server.send_client("ann", "it", b"%d" % number * 1000)
    server.send_client("ann", "fence")
    assert got.next() == "fence"
    assert [client.recv("it")[:1] for _ in range(2)] == [b"3", b"4"]


def test_waiting_does_not_hoard(net: Net) -> None:
    """What has a handler and is not handled meanwhile is bounded, too."""
    if net.client_kind.face != "plain":
        return  # the others are always being turned
    server, client = _meet(net, limits=Limits(queue=10_000))
    client.on("it")(lambda message: None)
    receiving = Thread(client.recv, "never")
    for _ in range(30):
        server.send_client("ann", "it", bytes(1000))
    with pytest.raises(Overloaded):
        receiving.result()
    net.turn()


def test_many_threads_may_receive(net: Net) -> None:
    """Each gets what it asked for, with a thread that turns, and without."""
    server, client = _meet(net)
    for _ in range(2):
        waiting = {n: Thread(client.recv, f"it {n}") for n in range(4)}
        for number in reversed(range(4)):
            server.send_client("ann", f"it {number}", b"%d" % number)
        for number, thread in waiting.items():
            assert thread.result() == b"%d" % number
        net.turn()
