"""Round trips of calls, from the blocking client and from ``hisock.aio``.

The baseline is a bare ping-pong of as many bytes.
"""

from __future__ import annotations

__all__ = ("main",)

import time
from multiprocessing.connection import Connection

from bench.peers import Pair, Subject, compare
from bench.ping_pong import raw_client, raw_server
from hisock import ClientInfo, connect, start_server

_CONTENT = b"x" * 48


def our_server(pipe: Connection, amount: int) -> None:
    """A handler returns what it gets."""
    server = start_server(("127.0.0.1", 0))

    @server.on("echo")
    def echo(client: ClientInfo, message: bytes) -> bytes:
        return message

    pipe.send(server.addr[1])
    server.run_forever()


def our_client(pipe: Connection, amount: int) -> None:
    """Call, wait, again."""
    client = connect(("127.0.0.1", pipe.recv()))
    client.call("echo", _CONTENT)
    began = time.perf_counter()
    for _ in range(amount):
        client.call("echo", _CONTENT)
    pipe.send(amount / (time.perf_counter() - began))
    client.close()


def our_async_server(pipe: Connection, amount: int) -> None:
    """A coroutine returns what it gets; the loop of asyncio watches."""
    import asyncio

    import hisock.aio

    async def serve() -> None:
        server = await hisock.aio.start_server(("127.0.0.1", 0))

        @server.on("echo")
        async def echo(client: ClientInfo, message: bytes) -> bytes:
            return message

        pipe.send(server.addr[1])
        await asyncio.Event().wait()

    asyncio.run(serve())


def our_async_client(pipe: Connection, amount: int) -> None:
    """Call, await, again."""
    import asyncio

    import hisock.aio

    async def ask(port: int) -> float:
        client = await hisock.aio.connect(("127.0.0.1", port))
        await client.call("echo", _CONTENT)
        began = time.perf_counter()
        for _ in range(amount):
            await client.call("echo", _CONTENT)
        taken = time.perf_counter() - began
        await client.close()
        return taken

    pipe.send(amount / asyncio.run(ask(pipe.recv())))


def main(amount: int = 20_000, runs: int = 7) -> dict[str, float]:
    """Measure and print; the ratios."""
    return compare(
        "calls, 64 B, compact wire, two cores, round trips",
        Pair(raw_server, raw_client),
        [
            Subject("hisock, blocking client", Pair(our_server, our_client), 0.75),
            Subject("hisock.aio, client", Pair(our_server, our_async_client), 0.7),
            Subject(
                "hisock.aio, client and server",
                Pair(our_async_server, our_async_client),
                0.6,
            ),
        ],
        amount=amount,
        runs=runs,
    )
