"""What sessions cost: one way and calls, with and without them, in one run; and memory.

The baseline is the same program with ``resume_window=0`` on both sides, which numbers
and acknowledges nothing.
"""

from __future__ import annotations

__all__ = ("main",)

import time
import tracemalloc
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from bench.peers import Pair, Subject, compare
from hisock import ClientInfo, HiSockClient, connect, start_server

_CONTENT = b"x" * 59
#: Bytes of server memory that an idle connection with a session may cost.
_IDLE = 6 * 1024


def _server(pipe: Connection, amount: int, window: float) -> None:
    """A handler counts; another answers."""
    server = start_server(("127.0.0.1", 0), resume_window=window)
    count = 0
    began = 0.0

    @server.on("move")
    def move(client: ClientInfo, message: bytes) -> None:
        nonlocal count, began
        if not count:
            began = time.perf_counter()
        count += 1

    @server.on("echo")
    def echo(client: ClientInfo, message: bytes) -> bytes:
        nonlocal count, began
        if not count:
            began = time.perf_counter()
        count += 1
        return message

    @server.on("ready")
    def ready() -> None:
        """The client asks this first, so that the wire is settled."""

    pipe.send(server.addr[1])
    while count < amount:
        server.run()
    pipe.send(amount / (time.perf_counter() - began))
    server.close()


def _connected(pipe: Connection, window: float) -> HiSockClient:
    client = connect(("127.0.0.1", pipe.recv()), resume_window=window)
    client.call("ready")
    return client


def _batching(pipe: Connection, amount: int, window: float) -> None:
    with _connected(pipe, window) as client, client.batch():
        for _ in range(amount):
            client.send("move", _CONTENT)


def _single(pipe: Connection, amount: int, window: float) -> None:
    with _connected(pipe, window) as client:
        for _ in range(amount):
            client.send("move", _CONTENT)


def _calling(pipe: Connection, amount: int, window: float) -> None:
    with _connected(pipe, window) as client:
        for _ in range(amount):
            client.call("echo", _CONTENT)


def _pair(client: Any, window: float) -> Pair:
    return Pair(
        partial(_server, window=window),
        partial(client, window=window),
        measured_by_server=True,
    )


def idle_memory(connections: int) -> float:
    """Bytes of a server's memory that one idle connection with a session takes."""
    server = start_server(("127.0.0.1", 0))
    warm = [connect(server.addr) for _ in range(10)]
    _join(server, len(warm))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    hellos = [_Idle(server.addr) for _ in range(connections)]
    own = tracemalloc.get_traced_memory()[0] - before
    _join(server, len(warm) + connections)
    taken = tracemalloc.get_traced_memory()[0] - before - own
    tracemalloc.stop()
    server.close()
    for client in warm:
        client.close()
    for hello in hellos:
        hello.sock.close()
    return taken / connections


class _Idle:
    """A raw client that asks for a session and says nothing more."""

    def __init__(self, address: tuple[str, int]) -> None:
        import os
        import socket

        from hisock.wire import classic
        from hisock.wire.frames import PROTO, Hello

        hello = classic.encode_frame(
            Hello(
                *(None, None, PROTO, 0),
                sid=os.urandom(16).hex(),
                token=os.urandom(32).hex(),
                next=os.urandom(32).hex(),
                window=30.0,
            )
        )
        self.sock = socket.create_connection(address)
        self.sock.sendall(classic.header(len(hello), 16) + hello)


def _join(server: Any, count: int) -> None:
    while len(server) < count:
        server.run(timeout=0.1)


def main(amount: int = 300_000, runs: int = 5) -> dict[str, float]:
    """Measure and print; the ratios."""
    ratios: dict[str, float] = {}
    for title, client, share in (
        ("one way, 64 B, in batches", _batching, 1),
        ("one way, 64 B, single sends", _single, 1),
        ("calls", _calling, 20),
    ):
        ratios |= compare(
            f"sessions: {title}",
            _pair(client, 0.0),
            [Subject(f"with sessions, {title}", _pair(client, 30.0), 0.85)],
            amount=max(1, amount // share),
            runs=runs,
            base="without",
        )
    taken = idle_memory(min(1000, amount))
    verdict = "" if taken <= _IDLE else "  ABOVE"
    print(
        f"  an idle connection with a session: {taken:,.0f} B (limit {_IDLE}){verdict}"
    )
    return ratios


if __name__ == "__main__":
    main()
