"""A peer that only has JSON: text messages on a WebSocket, beside all the others."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from msgspec import msgpack
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websocket

from hisock import ClientInfo, ThreadedHiSockServer, connect, start_threaded_server
from hisock.errors import NotSendable

HELLO = {"name": "web", "group": None, "proto": 2, "window": 0, "beats": False}
PATIENCE = 10.0


class TextPeer:
    """Says JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, *array: Any) -> None:
        self.connection.send(json.dumps(array))

    def hear(self) -> Any:
        """The next array that is no acknowledgement."""
        while True:
            text = self.connection.recv(PATIENCE)
            assert isinstance(text, str)
            array = json.loads(text)
            if array[0] != 32:
                return array

    def hear_close(self) -> tuple[int, str]:
        """The code and the reason with which the server closes."""
        with suppress(ConnectionClosed):
            while True:
                self.connection.recv(PATIENCE)
        assert self.connection.close_code is not None
        return self.connection.close_code, self.connection.close_reason or ""


@pytest.fixture
def server() -> Iterator[ThreadedHiSockServer]:
    with start_threaded_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def join(
    server: ThreadedHiSockServer,
) -> Iterator[Callable[[], TextPeer]]:
    """Makes peers that are welcome already."""
    with ExitStack() as stack:

        def join() -> TextPeer:
            uri = f"ws://127.0.0.1:{server.addr[1]}/"
            peer = TextPeer(stack.enter_context(websocket(uri)))
            peer.say(36, HELLO)
            assert peer.hear()[:1] == [37]
            return peer

        yield join


def test_both_ways(server: ThreadedHiSockServer, join: Callable[[], TextPeer]) -> None:
    """Messages, calls of both sides, a stream; bytes and large integers as well."""
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()
    server.on("it")(lambda client, content: got.put((client.wire, content)))
    server.on("add")(lambda client, numbers: sum(numbers))

    @server.on("count")
    def count(client: ClientInfo, upto: int) -> Iterator[int]:
        yield from range(upto)

    peer = join()
    peer.say(1, "it", {"a": {"$bytes": "AAE="}, "$$int": 5})
    assert got.get(timeout=PATIENCE) == ("websocket", {"a": b"\x00\x01", "$int": 5})
    peer.say(2, 1, "add", [{"$int": str(2**60)}, 1], 0, None, None)
    assert peer.hear() == [3, 1, {"$int": str(2**60 + 1)}]
    peer.say(2, 3, "count", 2, 64, None, None)
    assert [peer.hear() for _ in range(3)] == [[5, 3, 0], [5, 3, 1], [6, 3]]
    server.send_client("web", "it", b"\xff")
    assert peer.hear() == [1, "it", {"$bytes": "/w=="}]
    peer.say(35, 0, "", None)
    assert peer.hear_close()[0] == 1000


def test_beside_the_others(
    server: ThreadedHiSockServer,
    join: Callable[[], TextPeer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One broadcast reaches all; who cannot be told it is skipped, and reported."""
    peer = join()
    with connect(server.addr, "ours") as ours:
        assert ours.call("$GETCLT$", "ours")  # it is here
        for content in ({1: 2}, {"x": float("inf")}, [b"a"]):
            server.send_all_clients("it", content)
        assert [ours.recv("it") for _ in range(3)] == [
            {1: 2},
            {"x": float("inf")},
            [b"a"],
        ]
    assert [peer.hear() for _ in range(2)] == [
        [1, "it", {"1": 2}],
        [1, "it", [{"$bytes": "YQ=="}]],
    ]
    assert "text mode" in caplog.text
    with pytest.raises(NotSendable, match="text mode"):
        server.send_client("web", "it", float("nan"))


def test_what_cannot_be_told_in_a_reply(
    server: ThreadedHiSockServer, join: Callable[[], TextPeer]
) -> None:
    """The caller hears that it failed, and goes on."""
    server.on("nan")(lambda client: float("nan"))
    server.on("one")(lambda client: 1)
    peer = join()
    peer.say(2, 1, "nan", None, 0, None, None)
    peer.say(2, 3, "one", None, 0, None, None)
    failed, answered = peer.hear(), peer.hear()
    assert (failed[:2], answered) == ([4, 1], [3, 3, 1])


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ("[1", 1002, "not JSON"),
        ('[1,"it",NaN]', 1002, "NaN"),
        ('[1,"it",{"a":1,"a":2}]', 1002, "twice"),
        ("[" * 5000, 1002, ""),
        ('[77,"it"]', 1002, ""),
        ("[1]", 1002, ""),
        (b"\x93\x01\xc0\xc0", 1003, "JSON"),
        ((b'[1,"it","\xff"]', True), 1007, "UTF-8"),
    ],
    ids=["json", "nan", "twice", "deep", "kind", "short", "binary", "utf8"],
)
def test_bad_text(
    server: ThreadedHiSockServer,
    join: Callable[[], TextPeer],
    said: Any,
    code: int,
    words: str,
) -> None:
    """Ends this connection, with the code of the RFC, and no other."""
    peer, other = join(), join()
    if isinstance(said, tuple):
        peer.connection.send(said[0], text=said[1])
    else:
        peer.connection.send(said)
    told, reason = peer.hear_close()
    assert told == code
    assert words in reason
    server.send_all_clients("it", 1)
    assert other.hear() == [1, "it", 1]


def test_text_after_binary(server: ThreadedHiSockServer) -> None:
    """The first message says what all others are."""
    with websocket(f"ws://127.0.0.1:{server.addr[1]}/") as connection:
        connection.send(msgpack.encode([36, HELLO]))
        connection.send("[1]")
        code, reason = TextPeer(connection).hear_close()
        assert (code, "MessagePack" in reason) == (1003, True)


@pytest.mark.parametrize("is_text", [True, False])
def test_a_session_goes_on_in_another_mode(
    server: ThreadedHiSockServer, is_text: bool
) -> None:
    """What can be said to it is what its new link can say."""
    uri = f"ws://127.0.0.1:{server.addr[1]}/"
    tokens = [letter * 64 for letter in "abc"]
    hello = HELLO | {"sid": "d" * 32, "got": 0, "epoch": None, "window": 30}

    def arrive(peer: TextPeer, number: int, *, is_text: bool) -> dict[str, Any]:
        said = [36, hello | {"token": tokens[number], "next": tokens[number + 1]}]
        fields: dict[str, Any]
        if is_text:
            peer.say(*said)
            _, fields = peer.hear()
            return fields
        peer.connection.send(msgpack.encode(said))
        answer = peer.connection.recv(PATIENCE)
        assert isinstance(answer, bytes)
        peer.connection.send(msgpack.encode([32, 0]))
        _, fields = msgpack.decode(answer)
        return fields

    with websocket(uri) as old, websocket(uri) as new:
        welcome = arrive(TextPeer(old), 0, is_text=not is_text)
        hello["epoch"] = welcome["epoch"]
        if not is_text:
            TextPeer(old).say(32, 0)
        welcome = arrive(TextPeer(new), 1, is_text=is_text)
        assert welcome["resumed"]

        if is_text:
            with pytest.raises(NotSendable, match="text mode"):
                server.send_client("web", "it", float("inf"))
        else:
            server.send_client("web", "it", float("inf"))
            answer = new.recv(PATIENCE)
            assert isinstance(answer, bytes)
            assert msgpack.decode(answer) == [1, "it", float("inf")]
