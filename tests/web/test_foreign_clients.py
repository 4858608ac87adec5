"""Clients that others wrote talk to our server: ``websockets`` and ``aiohttp``.

On top of each speaks a hisock of forty lines, which is all that another language needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import msgspec
import pytest
from tests.faults.raw import Stage, eventually

from hisock import ClientInfo
from hisock.errors import CommandError

from .needs import needs

needs("aiohttp")

import aiohttp  # noqa: E402  # it may be missing
from websockets.asyncio.client import connect  # noqa: E402  # with its like
from websockets.exceptions import ConnectionClosed  # noqa: E402

pytestmark = pytest.mark.timeout(20)

MESSAGE, REQUEST, REPLY, FAILURE, ITEM, END, CREDIT, CANCEL = range(1, 9)
ACK, PING, PONG, BYE, HELLO, WELCOME, AUTH = range(32, 39)
SID: Final = "6" * 32
TOKENS: Final = [digit * 64 for digit in "abcd"]

#: Sends bytes as a binary message, and receives one; ``None`` at the end.
Send = Callable[[bytes], Awaitable[Any]]
Receive = Callable[[], Awaitable[bytes | None]]


class Foreign:
    """Speaks hisock over somebody else's WebSocket.

    Attributes:
        acknowledged: The highest number that the server has acknowledged.
        close_code: How the connection was closed; of the library.
        cut: Ends it without a word.
        ping: Sends a ping of WebSocket, and waits for the pong; of the library.
    """

    close_code: Callable[[], int | None]
    cut: Callable[[], object]
    ping: Callable[[], Awaitable[object]]

    def __init__(self, send: Send, receive: Receive) -> None:
        self._send = send
        self._receive = receive
        self.acknowledged = 0

    async def put(self, *elements: Any) -> None:
        """Send a frame."""
        await self._send(msgspec.msgpack.encode(elements))

    async def take(self) -> list[Any]:
        """The next frame that is no acknowledgement."""
        while True:
            body = await self._receive()
            assert body is not None, f"it ended: {self.close_code()}"
            frame: list[Any] = msgspec.msgpack.decode(body)
            if frame[0] != ACK:
                return frame
            self.acknowledged = frame[1]

    async def take_end(self) -> int | None:
        """Wait for the close; its code."""
        while (body := await self._receive()) is not None:
            assert msgspec.msgpack.decode(body)[0] == ACK
        return self.close_code()

    async def enter(self, name: str = "far", **more: Any) -> dict[str, Any]:
        """Say hello; what the welcome says."""
        fields = {"name": name, "group": "abroad", "proto": 2, "now": 0, **more}
        await self.put(HELLO, fields)
        kind, welcome = await self.take()
        assert kind == WELCOME
        assert isinstance(welcome, dict)
        return welcome


@asynccontextmanager
async def over_websockets(uri: str) -> AsyncIterator[Foreign]:
    """A client of the package ``websockets``; it offers compression."""
    async with connect(uri) as ws:

        async def receive() -> bytes | None:
            try:
                body = await ws.recv()
            except ConnectionClosed:
                return None
            assert isinstance(body, bytes)
            return body

        async def ping() -> None:
            await (await ws.ping())

        foreign = Foreign(ws.send, receive)
        foreign.close_code = lambda: ws.close_code
        foreign.cut = ws.transport.abort
        foreign.ping = ping
        yield foreign


@asynccontextmanager
async def over_aiohttp(uri: str) -> AsyncIterator[Foreign]:
    """A client of the package ``aiohttp``, compression offered as well."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        ws = await stack.enter_async_context(
            session.ws_connect(uri, compress=15, autoping=False)
        )
        assert not ws.compress

        async def receive() -> bytes | None:
            message = await ws.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                assert message.type in (
                    aiohttp.WSMsgType.CLOSE,
                    aiohttp.WSMsgType.CLOSED,
                ), message
                return None
            body: bytes = message.data
            return body

        async def ping() -> None:
            await ws.ping(b"there?")
            message = await ws.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"there?")

        def cut() -> None:
            ws._response.connection.transport.abort()  # type: ignore[union-attr]  # it is connected

        foreign = Foreign(ws.send_bytes, receive)
        foreign.close_code = lambda: ws.close_code
        foreign.cut = cut
        foreign.ping = ping
        yield foreign


LIBRARIES: Final = {"websockets": over_websockets, "aiohttp": over_aiohttp}
Scene = Callable[[Foreign], Awaitable[None]]
#: Runs a scene with a new client of one library.
Play = Callable[[Scene], None]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A server, and an honest client of ours beside the foreign one."""
    with Stage() as stage:
        yield stage


@pytest.fixture(params=LIBRARIES)
def play(request: pytest.FixtureRequest, stage: Stage) -> Play:
    """Runs a scene with a client of each library."""
    opened = LIBRARIES[request.param]

    def run(scene: Scene) -> None:
        async def main() -> None:
            host, port = stage.address
            async with opened(f"ws://{host}:{port}/") as foreign:
                await scene(foreign)

        asyncio.run(main())

    return run


def test_hello_and_goodbye(stage: Stage, play: Play) -> None:
    """It is a client like any other: it joins, is looked up, and leaves."""

    @stage.server.on("wire")
    def wire(client: ClientInfo, nothing: None) -> str:
        return client.wire

    async def scene(foreign: Foreign) -> None:
        welcome = await foreign.enter()
        assert (welcome["proto"], welcome["name"]) == (2, "far")
        eventually(lambda: "far" in stage.joined, "it joins")
        assert stage.server.get_client("far")["group"] == "abroad"
        await foreign.put(REQUEST, 1, "wire", None, 0, None, None)
        assert await foreign.take() == [REPLY, 1, "websocket"]
        await foreign.put(BYE, 0, "so long", None)
        assert await foreign.take_end() == 1000

    play(scene)
    eventually(lambda: stage.left == ["far"], "it leaves")


def test_messages_both_ways(stage: Stage, play: Play) -> None:
    """Commands with any content reach their handlers, and come back."""
    got: list[object] = []

    def note(client: ClientInfo, content: dict[str, Any]) -> None:
        got.append(content)
        stage.server.send_client(client, "noted", {"of": content["n"], "raw": b"\0"})

    stage.server.on("note")(note)

    async def scene(foreign: Foreign) -> None:
        await foreign.enter()
        for n in range(100):
            await foreign.put(MESSAGE, "note", {"n": n, "text": "é€😀"})
        for n in range(100):
            said = await foreign.take()
            assert said == [MESSAGE, "noted", {"of": n, "raw": b"\0"}]
        await foreign.put(MESSAGE, None, b"nobody listens to raw content here")
        stage.server.send_group("abroad", "all", "of you")
        assert await foreign.take() == [MESSAGE, "all", "of you"]

    play(scene)
    assert got == [{"n": n, "text": "é€😀"} for n in range(100)]


def test_a_large_message(stage: Stage, play: Play) -> None:
    """Frames of each of the three kinds of length come back whole."""

    async def scene(foreign: Foreign) -> None:
        await foreign.enter()
        for size in (1, 125, 126, 65535, 65536, 1_000_000):
            await foreign.put(MESSAGE, "echo", bytes(size))
            assert await foreign.take() == [MESSAGE, None, bytes(size)]

    play(scene)


def test_calls(stage: Stage, play: Play) -> None:
    """It calls and is called; a failure has a code and a text."""

    @stage.server.on("add")
    def add(client: ClientInfo, numbers: list[int]) -> int:
        if not numbers:
            raise CommandError("empty", "nothing to add")
        return sum(numbers)

    async def scene(foreign: Foreign) -> None:
        await foreign.enter()
        await foreign.put(REQUEST, 1, "add", [1, 2, 3], 0, None, None)
        assert await foreign.take() == [REPLY, 1, 6]
        await foreign.put(REQUEST, 3, "add", [], 0, None, None)
        kind, number, code, text, *_ = await foreign.take()
        assert (kind, number, code, text) == (FAILURE, 3, "empty", "nothing to add")
        await foreign.put(REQUEST, 5, "nothing", None, 0, None, None)
        kind, number, code, *_ = await foreign.take()
        assert (kind, number, code) == (FAILURE, 5, "unknown_command")

    play(scene)


def test_a_call_of_the_server(stage: Stage, play: Play) -> None:
    """What it answers to the server's call is what the call returns."""

    async def scene(foreign: Foreign) -> None:
        await foreign.enter()
        call = asyncio.to_thread(stage.server.call_client, "far", "sum", [4, 5])
        task = asyncio.create_task(call)
        kind, number, command, content, stream, *_ = await foreign.take()
        assert (kind, command, content, stream) == (REQUEST, "sum", [4, 5], 0)
        assert number % 2 == 0
        await foreign.put(REPLY, number, 9)
        assert await task == 9

    play(scene)


def test_a_stream_with_credit(stage: Stage, play: Play) -> None:
    """As many items come as it gave credit for, then the end; or it cancels."""

    @stage.server.on("count")
    def count(client: ClientInfo, upto: int) -> Iterator[int]:
        yield from range(upto)

    async def scene(foreign: Foreign) -> None:
        await foreign.enter()
        await foreign.put(REQUEST, 1, "count", 5, 2, None, None)
        assert [await foreign.take() for _ in range(2)] == [[ITEM, 1, 0], [ITEM, 1, 1]]
        await foreign.put(PING, 1)  # without credit nothing else comes
        assert await foreign.take() == [PONG, 1]
        await foreign.put(CREDIT, 1, 10)
        assert [await foreign.take() for _ in range(4)] == [
            *([ITEM, 1, n] for n in (2, 3, 4)),
            [END, 1],
        ]
        await foreign.put(REQUEST, 3, "count", 10**9, 1, None, None)
        assert await foreign.take() == [ITEM, 3, 0]
        await foreign.put(CANCEL, 3)
        await foreign.put(PING, 2)
        assert await foreign.take() == [PONG, 2]

    play(scene)


def test_pings(stage: Stage, play: Play) -> None:
    """Those of hisock and those of WebSocket are answered, before the hello too."""

    async def scene(foreign: Foreign) -> None:
        await foreign.ping()
        await foreign.enter()
        await foreign.ping()
        await foreign.put(PING, 7)
        assert await foreign.take() == [PONG, 7]

    play(scene)


def claim(place: int, got: int, epoch: str | None) -> dict[str, Any]:
    """What a hello says of a session."""
    return {
        **{"sid": SID, "token": TOKENS[place], "next": TOKENS[place + 1]},
        **{"got": got, "epoch": epoch, "window": 30.0, "beats": False},
    }


def test_it_comes_back_after_a_cut(stage: Stage, play: Play) -> None:
    """With its token it goes on where it was: nothing is lost, nothing comes twice."""
    stage.record("note")
    epochs: list[str] = []

    async def first(foreign: Foreign) -> None:
        welcome = await foreign.enter(**claim(0, 0, None))
        assert not welcome["resumed"]
        epochs.append(welcome["epoch"])
        await foreign.put(ACK, 0)
        await foreign.put(MESSAGE, "note", 1)
        await foreign.put(MESSAGE, "note", 2)
        eventually(lambda: len(stage.ran) == 2, "both messages")
        stage.server.send_client("far", "it", "one")
        assert await foreign.take() == [MESSAGE, "it", "one"]
        foreign.cut()

    async def second(foreign: Foreign) -> None:
        welcome = await foreign.enter(**claim(1, 1, epochs[0]))
        assert welcome["resumed"]
        assert welcome["got"] == 2
        await foreign.put(ACK, 1)
        assert await foreign.take() == [MESSAGE, "it", "two"]
        await foreign.put(MESSAGE, "note", 3)
        eventually(lambda: len(stage.ran) == 3, "the third")
        while foreign.acknowledged < 3:
            await foreign.put(PING, 1)
            assert await foreign.take() == [PONG, 1]
        await foreign.put(BYE, 0, "", None)
        assert await foreign.take_end() == 1000

    dropped: list[str | None] = []
    stage.server.on_drop(lambda client: dropped.append(client["name"]))
    play(first)
    eventually(lambda: dropped == ["far"], "the cut is noticed")
    assert stage.left == []
    stage.server.send_client("far", "it", "two")
    play(second)

    eventually(lambda: stage.left == ["far"], "it leaves")
    assert stage.joined.count("far") == 1
    assert [content for _, content in stage.ran] == [b"1", b"2", b"3"]


def test_the_close_of_a_library_is_a_goodbye(stage: Stage, play: Play) -> None:
    """It need not know of ours: whoever closes as the RFC says does not come back."""
    dropped: list[str | None] = []
    stage.server.on_drop(lambda client: dropped.append(client["name"]))

    async def scene(foreign: Foreign) -> None:
        await foreign.enter(**claim(0, 0, None))

    play(scene)

    eventually(lambda: stage.left == ["far"], "it leaves")
    assert dropped == []


def test_a_foreign_token_is_refused(stage: Stage, play: Play) -> None:
    """Whoever knows a session but not its token hears so in the close."""

    async def owner(foreign: Foreign) -> None:
        await foreign.enter(**claim(0, 0, None))
        await asyncio.to_thread(play, thief)
        await foreign.put(PING, 1)
        assert await foreign.take() == [PONG, 1]

    async def thief(foreign: Foreign) -> None:
        fields = {"name": "x", "group": None, "proto": 2, "now": 0}
        await foreign.put(HELLO, {**fields, **claim(2, 0, None)})
        kind, code, *_ = await foreign.take()
        assert (kind, code) == (BYE, 3)
        assert await foreign.take_end() == 4003

    play(owner)
