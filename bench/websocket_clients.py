"""Each library's own client: sends as fast as it can, and says "ping" and waits.

hisock's is the blocking client, the others are asyncio's.
"""

from __future__ import annotations

__all__ = ("CLIENTS",)

import asyncio
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from websockets.asyncio.client import connect as connect_websockets

from bench.peers import settle
from bench.websocket_servers import BODY, CONTENT, TEXT
from hisock import connect

#: Messages after which a client that never waits lets its loop write.
_BREATH = 1000
_End: TypeAlias = Callable[[Connection, int], None]


def hisock_pouring(pipe: Connection, amount: int) -> None:
    """Many sends, few writes."""
    with connect(f"ws://127.0.0.1:{pipe.recv()}") as client:
        settle(client)
        with client.batch():
            for _ in range(amount):
                client.send("move", CONTENT)


def hisock_asking(pipe: Connection, amount: int) -> None:
    """Send, wait, again."""
    with connect(f"ws://127.0.0.1:{pipe.recv()}") as client:
        settle(client)
        began = time.perf_counter()
        for _ in range(amount):
            client.send("echo", CONTENT)
            client.recv("echo")
        pipe.send(amount / (time.perf_counter() - began))


def websockets_pouring(pipe: Connection, amount: int) -> None:
    """Its ``send`` waits only where the socket is full."""

    async def main() -> None:
        uri = f"ws://127.0.0.1:{pipe.recv()}/move"
        async with connect_websockets(uri, compression=None) as connection:
            for _ in range(amount):
                await connection.send(BODY)

    asyncio.run(main())


def websockets_asking(pipe: Connection, amount: int) -> None:
    """Send, wait, again."""

    async def main() -> None:
        uri = f"ws://127.0.0.1:{pipe.recv()}/echo"
        async with connect_websockets(uri, compression=None) as connection:
            began = time.perf_counter()
            for _ in range(amount):
                await connection.send(BODY)
                await connection.recv()
            pipe.send(amount / (time.perf_counter() - began))

    asyncio.run(main())


async def _connect_picows(pipe: Connection, way: str, on_ws_frame: Any) -> Any:
    picows = import_module("picows")
    kind = type("Listener", (picows.WSListener,), {"on_ws_frame": on_ws_frame})
    uri = f"ws://127.0.0.1:{pipe.recv()}/{way}"
    transport, _ = await picows.ws_connect(kind, uri)
    return transport


def picows_pouring(pipe: Connection, amount: int) -> None:
    """Its ``send`` never waits."""

    async def main() -> None:
        transport = await _connect_picows(pipe, "move", lambda *_: None)
        binary = import_module("picows").WSMsgType.BINARY
        for number in range(amount):
            transport.send(binary, BODY)
            if not number % _BREATH:
                await asyncio.sleep(0)
        await transport.wait_disconnected()

    asyncio.run(main())


def picows_asking(pipe: Connection, amount: int) -> None:
    """Each answer is followed by the next question."""

    async def main() -> None:
        binary = import_module("picows").WSMsgType.BINARY
        done = asyncio.Event()
        left = amount

        def answered(listener: Any, transport: Any, frame: Any) -> None:
            nonlocal left
            frame.get_payload_as_bytes()
            left -= 1
            if left:
                transport.send(binary, BODY)
            else:
                done.set()

        transport = await _connect_picows(pipe, "echo", answered)
        began = time.perf_counter()
        transport.send(binary, BODY)
        await done.wait()
        pipe.send(amount / (time.perf_counter() - began))

    asyncio.run(main())


async def _connect_socketio(pipe: Connection) -> Any:
    client = import_module("socketio").AsyncClient(reconnection=False)
    uri = f"http://127.0.0.1:{pipe.recv()}"
    await client.connect(uri, transports=["websocket"])
    return client


def socketio_pouring(pipe: Connection, amount: int) -> None:
    """Emits into a queue."""

    async def main() -> None:
        client = await _connect_socketio(pipe)
        for number in range(amount):
            await client.emit("move", TEXT)
            if not number % _BREATH:
                await asyncio.sleep(0)
        await client.wait()

    asyncio.run(main())


def socketio_asking(pipe: Connection, amount: int) -> None:
    """Emit, wait for the event, again."""

    async def main() -> None:
        client = await _connect_socketio(pipe)
        answers: asyncio.Queue[str] = asyncio.Queue()
        client.on("echo", answers.put)
        began = time.perf_counter()
        for _ in range(amount):
            await client.emit("echo", TEXT)
            await answers.get()
        pipe.send(amount / (time.perf_counter() - began))
        await client.disconnect()

    asyncio.run(main())


#: For each library, who only sends and who waits for each answer.
CLIENTS: dict[str, tuple[_End, _End]] = {
    "hisock": (hisock_pouring, hisock_asking),
    "websockets": (websockets_pouring, websockets_asking),
    "picows": (picows_pouring, picows_asking),
    "python-socketio": (socketio_pouring, socketio_asking),
}
