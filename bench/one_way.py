"""One client streams 64-byte command messages into a handler, on the wire of 1.1.

The baseline is one bare ``sendall`` for each message, drained without parsing. Our own
wire is measured in ``typed``.
"""

from __future__ import annotations

__all__ = ("main",)

import socket
import time
from multiprocessing.connection import Connection

from bench.peers import Pair, Subject, compare, settle
from hisock import connect, start_server

_COMMAND = "move"
_CONTENT = b"x" * (64 - len(_COMMAND) - 1)
_FRAME = b"64".ljust(16) + _COMMAND.encode() + b" " + _CONTENT


def raw_server(pipe: Connection, amount: int, size: int = len(_FRAME)) -> None:
    """Drain bytes; time from the first to the last."""
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    sock, _ = listener.accept()
    left = amount * size
    buffer = bytearray(256 * 1024)
    left -= sock.recv_into(buffer)
    began = time.perf_counter()
    while left > 0:
        left -= sock.recv_into(buffer)
    pipe.send(amount / (time.perf_counter() - began))


def raw_client(pipe: Connection, amount: int, size: int = len(_FRAME)) -> None:
    """One ``sendall`` a message."""
    frame = bytes(size)
    sock = socket.create_connection(("127.0.0.1", pipe.recv()))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(amount):
        sock.sendall(frame)
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1)


def our_server(pipe: Connection, amount: int) -> None:
    """A handler counts; ``run()`` is turned by hand, as in the 1.1 manual."""
    server = start_server(("127.0.0.1", 0), wires=("classic",))
    count = 0
    began = 0.0

    @server.on(_COMMAND)
    def move(client: object, message: bytes) -> None:
        nonlocal count, began
        if not count:
            began = time.perf_counter()
        count += 1

    pipe.send(server.addr[1])
    while count < amount:
        server.run()
    pipe.send(amount / (time.perf_counter() - began))
    server.close()


def our_batching_client(pipe: Connection, amount: int) -> None:
    """Many sends, few writes."""
    client = connect(("127.0.0.1", pipe.recv()))
    settle(client)
    with client.batch():
        for _ in range(amount):
            client.send(_COMMAND, _CONTENT)
    client.close()


def our_single_client(pipe: Connection, amount: int) -> None:
    """Every send on its own."""
    client = connect(("127.0.0.1", pipe.recv()))
    settle(client)
    for _ in range(amount):
        client.send(_COMMAND, _CONTENT)
    client.close()


def main(amount: int = 500_000, runs: int = 5) -> dict[str, float]:
    """Measure and print; the ratios."""
    return compare(
        "one way, 64 B, classic wire, messages",
        Pair(raw_server, raw_client, measured_by_server=True),
        [
            Subject(
                "hisock, batches into a handler",
                Pair(our_server, our_batching_client, measured_by_server=True),
                7.0,
            ),
            Subject(
                "hisock, single sends",
                Pair(our_server, our_single_client, measured_by_server=True),
                0.9,
            ),
        ],
        amount=amount,
        runs=runs,
    )
