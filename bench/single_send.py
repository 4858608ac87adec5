"""What one send of the blocking client costs beside one bare ``sendall``.

Both write to a peer that only drains, so that nothing but the sender is measured.
"""

from __future__ import annotations

__all__ = ("main",)

import socket
import time
from multiprocessing.connection import Connection

from bench.one_way import _COMMAND, _CONTENT, _FRAME
from bench.peers import Pair, Subject, compare
from hisock import connect


def drain(pipe: Connection, amount: int) -> None:
    """Read and forget."""
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    sock, _ = listener.accept()
    buffer = bytearray(256 * 1024)
    while sock.recv_into(buffer):
        pass
    sock.close()


def raw_client(pipe: Connection, amount: int) -> None:
    """One ``sendall`` a message."""
    sock = socket.create_connection(("127.0.0.1", pipe.recv()))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    began = time.perf_counter()
    for _ in range(amount):
        sock.sendall(_FRAME)
    pipe.send(amount / (time.perf_counter() - began))


def our_client(pipe: Connection, amount: int) -> None:
    """One ``send`` a message."""
    client = connect(("127.0.0.1", pipe.recv()))
    began = time.perf_counter()
    for _ in range(amount):
        client.send(_COMMAND, _CONTENT)
    pipe.send(amount / (time.perf_counter() - began))
    client.close()


def main(amount: int = 200_000, runs: int = 7) -> dict[str, float]:
    """Measure and print; the ratios."""
    return compare(
        "single sends, 64 B, messages",
        Pair(drain, raw_client),
        [Subject("hisock, blocking client", Pair(drain, our_client), 0.9)],
        amount=amount,
        runs=runs,
    )
