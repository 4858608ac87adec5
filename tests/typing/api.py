"""What type checkers know of the public API; checked, never run.

``test_typing.py`` has mypy and pyright read this file: every ``assert_type`` holds, and
every ``type: ignore`` is needed, so each is a mistake that both of them find.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

from hisock import (
    AsyncClientInfo,
    ClientInfo,
    CommandError,
    Handlers,
    HiSockClient,
    HiSockServer,
    Limits,
    Message,
    ThreadedHiSockClient,
    ThreadedHiSockServer,
    connect,
    start_server,
    start_threaded_server,
    threaded_connect,
)
from hisock.aio import AsyncHiSockClient, AsyncHiSockServer
from hisock.aio import connect as aio_connect
from hisock.aio import start_server as aio_start_server


class Point:
    """A type of the user's."""

    x: int


# --- making servers and clients ------------------------------------------------------


def servers() -> None:
    """Each way to make one gives its own kind, in ``with`` too."""
    assert_type(start_server(("", 0)), HiSockServer)
    assert_type(start_server("unix:/run/it", wires=("classic",)), HiSockServer)
    assert_type(
        start_server(None, limits=Limits(message=1), roster=False), HiSockServer
    )
    assert_type(start_threaded_server(("", 0), errors="raise"), ThreadedHiSockServer)
    with start_threaded_server(("", 0)) as server:
        assert_type(server, ThreadedHiSockServer)
    start_server(("", 0), errors="ignore")  # type: ignore[arg-type]  # log or raise
    start_server(("", 0), blokcing=True)  # type: ignore[call-arg]  # no such option
    start_server(6969)  # type: ignore[arg-type]  # no address


def clients() -> None:
    """As with servers."""
    assert_type(connect(("", 0), "ann", wait=1.0), HiSockClient)
    assert_type(threaded_connect("localhost:6969", group="red"), ThreadedHiSockClient)
    with connect(("", 0)) as client:
        assert_type(client, HiSockClient)
    connect(None)  # type: ignore[arg-type]  # a client needs an address
    connect(("", 0), name=5)  # type: ignore[arg-type]  # a name is text


# --- handlers ------------------------------------------------------------------------


def handlers(server: HiSockServer, client: HiSockClient, them: Handlers) -> None:
    """A decorated function keeps its type, whatever decorates it."""

    @server.on("move")
    def move(who: ClientInfo, x: int) -> str:
        return f"{who['name']} {x}"

    @server.on("later", threaded=True, concurrency=4)
    async def later(who: AsyncClientInfo, point: Point) -> list[int]:
        return [point.x]

    @client.on("*", override=True)
    def everything(command: str, content: object) -> None: ...

    @server.every(1 / 30)
    def tick() -> None: ...

    @server.on_error
    def report(error: Exception) -> None: ...

    @them.on("move")
    def moved(x: int) -> int:
        return x

    assert_type(move(ClientInfo(None, None, None), 5), str)
    later_is: Callable[..., Any] = later
    assert_type(moved(5), int)
    tick()
    report(ValueError())
    everything("it", b"")
    move(5)  # type: ignore[call-arg,arg-type]  # it takes a client and a number
    server.use(them)
    server.on("move", threded=True)  # type: ignore[call-arg]  # no such option
    del later_is


def of_a_client(client: ClientInfo) -> None:
    """What a handler gets of a client."""
    assert_type(client.id, int)
    assert_type(client.groups, frozenset[str])
    assert_type(client.data, dict[Any, Any])
    assert_type(client.is_connected, bool)
    assert_type(client.wire, str)
    name: str | None = client["name"]
    del name


# --- asking --------------------------------------------------------------------------


def a_client_asks(client: HiSockClient) -> None:
    """``type=`` is the type of what comes; without it anything may come."""
    assert_type(client.call("add", [1, 2], type=int), int)
    assert_type(client.call("where", type=Point), Point)
    assert_type(client.call("all", type=list[int], timeout=None), list[int])
    assert_type(client.call("add"), Any)
    assert_type(client.call("add", type=None), Any)
    either: int | None = client.call("find", type=int | None)
    assert_type(client.recv("news", type=str, timeout=1.0), str)
    assert_type(client.recv("news"), Any)
    assert_type(client.recv_any(timeout=1.0), Message)
    assert_type(client.recv_any().command, str | None)
    assert_type(client.recv_raw(), bytes)
    assert_type(client.wire, str | None)
    assert_type(client.poll(0.01), int)
    for item in client.stream("count", type=int):
        assert_type(item, Any)
    wrong: str = client.call("add", type=int)  # type: ignore[assignment]  # it is int
    client.call("add", 1, 2)  # type: ignore[call-overload]  # options by name
    del wrong, either


def a_server_asks(server: HiSockServer) -> None:
    """The same of its clients."""
    assert_type(server.call_client("ann", "add", 1, type=int), int)
    assert_type(server.call_client(("127.0.0.1", 5), "add"), Any)
    for client, reply in server.call_group("red", "add"):
        assert_type(client, ClientInfo)
        assert_type(reply, Any)
    with server.stream_client("ann", "count") as items:
        assert_type(next(items), Any)
    for each in server:
        assert_type(each, ClientInfo)
    assert_type(server.client("ann"), ClientInfo)
    assert_type(len(server.group("red")), int)
    assert_type(server.stats(), dict[str, int])
    server.send_client(5, "it")  # type: ignore[arg-type]  # nobody is called so


def a_refusal(error: CommandError) -> None:
    """What a handler refuses with."""
    assert_type(error.code, str)
    assert_type(error.message, str)


# --- asyncio -------------------------------------------------------------------------


async def an_async_client(address: tuple[str, int]) -> None:
    """What brings something from afar is awaited, and has the same types."""
    async with aio_connect(address, "ann") as client:
        assert_type(client, AsyncHiSockClient)
        assert_type(await client.call("add", type=int), int)
        assert_type(await client.call("add"), Any)
        assert_type(await client.recv("news", type=str), str)
        assert_type(await client.recv_any(), Message)
        assert_type(await client.recv_raw(), bytes)
        assert_type(await client.get_client("ben"), dict[str, Any])
        async for item in client.stream("count"):
            assert_type(item, Any)
        await client.send("it", 5)
        client.send("it", 5)
        assert_type(await client.change_name("bea"), None)
        await client.close()
    assert_type(await aio_connect(address), AsyncHiSockClient)


async def an_async_server(address: tuple[str, int]) -> None:
    """The same of a server."""
    async with aio_start_server(address, wires=("compact",)) as server:
        assert_type(server, AsyncHiSockServer)

        @server.on("move")
        async def move(who: AsyncClientInfo, x: int) -> str:
            assert_type(await who.call("it"), Any)
            return str(x)

        assert_type(await move(AsyncClientInfo(None, None, None), 5), str)
        assert_type(await server.call_client("ann", "add", type=int), int)
        async for client, reply in server.call_group("red", "add"):
            assert_type(client, ClientInfo)
            assert_type(reply, Any)
        async for item in server.stream_client("ann", "count"):
            assert_type(item, Any)
        await server.send_all_clients("it")
        await server.disconnect_client("ann", reason="enough")
