"""What a client receives that no handler takes, on the compact wire."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hisock.errors import ClientDisconnected, RequestTimeout

from .packed import BYE, MESSAGE, welcomed
from .test_blocking import Task, updated


def test_each_receive_takes_the_first_that_is_its() -> None:
    """The others stay, in order, for whoever asks for them next."""
    with welcomed() as (client, server):
        server.put(*([MESSAGE, word, n] for n, word in enumerate("abcab")))
        assert client.recv("b", timeout=5) == 1
        assert client.recv_any(timeout=5).command == "a"
        assert client.recv("c", timeout=5) == 2
        assert [client.recv(word, timeout=5) for word in "ba"] == [4, 3]
        with pytest.raises(RequestTimeout):
            client.recv("a", timeout=0)


def test_what_has_a_handler_is_not_received() -> None:
    """Neither a command's, nor anything where ``"*"`` takes it all, nor raw content
    that begins with a command."""
    with welcomed(blocking=False) as (client, server):
        got: list[Any] = []
        client.on("it")(got.append)
        server.put([MESSAGE, "it", 1], [MESSAGE, None, "it 2"], [MESSAGE, "x", 3])
        assert client.recv_raw() == b"x 3"
        updated(client, lambda: len(got) == 2, "both are handled")
        assert got == [1, b"2"]
        client.on("*")(lambda command, message: got.append((command, message)))
        server.put([MESSAGE, "x", 4])
        updated(client, lambda: len(got) == 3, "it is handled")
        with pytest.raises(RequestTimeout):
            client.recv("x", timeout=0)
        assert got[2] == ("x", 4)


def test_raw_content_is_received_whole() -> None:
    """As it was sent, or by ``recv_raw`` as 1.1 writes it."""
    with welcomed() as (client, server):
        server.put([MESSAGE, None, {"a": 1}], [MESSAGE, None, [1, 2]])
        message = client.recv_any(timeout=5)
        assert (message.command, message.content) == (None, {"a": 1})
        assert client.recv_raw() == b"[1, 2]"


def test_what_came_too_late_is_not_received() -> None:
    """A message whose life time is over counts as none."""
    with welcomed() as (client, server):
        # The server's clock stood at 0 when it welcomed; 1 ms of it is long over.
        passed = time.monotonic() + 0.01
        while time.monotonic() < passed:
            client.poll(0.0)
        server.put([MESSAGE, "it", 1, 1], [MESSAGE, "it", 2, 10**9])
        assert client.recv("it", timeout=5) == 2


def test_a_goodbye_ends_a_receive() -> None:
    """Though the connection stays open, and behind what was sent before it."""
    with welcomed() as (client, server):
        server.put([MESSAGE, "it", 1], [BYE, 1, "enough", None])
        assert client.recv("it", timeout=5) == 1
        receiving = Task(lambda: client.recv("it"))
        with pytest.raises(ClientDisconnected):
            receiving.result(2.0)


def test_broken_content_ends_the_client_in_its_turn() -> None:
    """What stands before it is received first; ``update`` tells the reason."""
    with welcomed(blocking=False) as (client, server):
        server.put([MESSAGE, "it", 1])
        body = b"\x93\x01\xc0\xa2\xff\xfe"  # raw content that is no UTF-8
        server.sock.sendall(len(body).to_bytes(4, "big") + body)
        assert client.recv("it", timeout=5) == 1
        with pytest.raises(ClientDisconnected, match="MessagePack"):
            updated(client, lambda: False, "it ends")


def test_receiving_in_a_handler_takes_from_the_running_batch() -> None:
    """What stands behind the message that is handled; the rest is handled after."""
    with welcomed(blocking=False) as (client, server):
        got: list[Any] = []
        client.on("ask")(lambda: got.append(client.recv("answer", timeout=5)))
        client.on("it")(got.append)
        server.put([MESSAGE, "ask", None], [MESSAGE, "it", 1], [MESSAGE, "answer", 2])
        updated(client, lambda: len(got) == 2, "both")
        assert got == [2, 1]


def test_a_receive_among_many_is_quick() -> None:
    """Looking again does not begin at the front: thousands that wait for handlers
    cost a receive nothing each."""
    with welcomed() as (client, server):
        client.on("it")(lambda message: None)
        server.put(*([MESSAGE, "it", n] for n in range(20_000)))
        server.put(*([MESSAGE, "x", n] for n in range(200)))
        began = time.monotonic()
        assert [client.recv("x", timeout=5) for _ in range(200)] == list(range(200))
        assert time.monotonic() - began < 3.0
