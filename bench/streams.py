"""Items of 64 bytes from a generator on the server to a client that iterates.

The baseline is one bare ``sendall`` for each item, drained without parsing.
"""

from __future__ import annotations

__all__ = ("main",)

import socket
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from multiprocessing.connection import Connection

from bench.peers import Pair, Subject, compare
from hisock import connect, start_server

_ITEM = b"x" * 64


def raw_server(pipe: Connection, amount: int) -> None:
    """One ``sendall`` an item."""
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(amount):
        sock.sendall(_ITEM)
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1)


def raw_client(pipe: Connection, amount: int) -> None:
    """Drain bytes."""
    sock = socket.create_connection(("127.0.0.1", pipe.recv()))
    buffer = bytearray(256 * 1024)
    began = time.perf_counter()
    while sock.recv_into(buffer):
        pass
    pipe.send(amount / (time.perf_counter() - began))


def our_server(pipe: Connection, amount: int) -> None:
    """Generators of all kinds."""
    server = start_server(("127.0.0.1", 0))

    @server.on("plain")
    def plain() -> Iterator[bytes]:
        for _ in range(amount):
            yield _ITEM

    @server.on("threaded", threaded=True)
    def threaded() -> Iterator[bytes]:
        yield from plain()

    @server.on("async")
    async def awaiting() -> AsyncIterator[bytes]:
        for _ in range(amount):
            yield _ITEM

    pipe.send(server.addr[1])
    server.run_forever()


def our_client(pipe: Connection, amount: int, kind: str) -> None:
    """Iterate."""
    client = connect(("127.0.0.1", pipe.recv()))
    began = time.perf_counter()
    count = sum(1 for _ in client.stream(kind))
    taken = time.perf_counter() - began
    assert count == amount
    pipe.send(amount / taken)
    client.close()


def main(amount: int = 50_000, runs: int = 5) -> dict[str, float]:
    """Measure and print; the ratios."""
    return compare(
        "streams, 64 B, compact wire, items",
        Pair(raw_server, raw_client),
        [
            Subject(
                f"hisock, {kind} generator",
                Pair(our_server, partial(our_client, kind=kind)),
                goal,
            )
            for kind, goal in (("plain", 1.0), ("threaded", 0.5), ("async", 0.5))
        ],
        amount=amount,
        runs=runs,
    )
