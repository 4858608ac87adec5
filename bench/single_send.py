"""What one send of the blocking client costs beside one bare ``sendall``.

Both write to a peer that only drains, so that nothing but the sender is measured.
"""

from __future__ import annotations

__all__ = ("main",)

import socket
import time
from functools import partial
from multiprocessing.connection import Connection as Pipe

from bench.one_way import _COMMAND, _CONTENT, _FRAME
from bench.peers import Pair, Subject, compare, settle
from hisock import connect
from hisock.session.connection import Connection
from hisock.session.events import Opened
from hisock.types import Limits
from hisock.wire import classic
from hisock.wire.frames import NoTLS


def drain(pipe: Pipe, amount: int, wire: str | None = None) -> None:
    """Read and forget; on a ``wire`` of ours answer the hello first."""
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    sock, _ = listener.accept()
    if wire is not None:
        sock.sendall(answer(sock.recv(4096), wire))
    buffer = bytearray(256 * 1024)
    while sock.recv_into(buffer):
        pass
    sock.close()


def answer(hello: bytes, wire: str) -> bytes:
    """What a server of ours says to a hello."""
    if wire == "classic":
        return classic.Writer(16, 0, by_client=False).control(NoTLS())
    now = time.monotonic()
    connection = Connection(Limits(), now)
    opened = connection.feed(hello, now)[0]
    assert isinstance(opened, Opened)
    connection.serve(opened.hello.name, opened.hello.group, now)
    return connection.take_bytes()


def raw_client(pipe: Pipe, amount: int) -> None:
    """One ``sendall`` a message."""
    sock = socket.create_connection(("127.0.0.1", pipe.recv()))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    began = time.perf_counter()
    for _ in range(amount):
        sock.sendall(_FRAME)
    pipe.send(amount / (time.perf_counter() - began))


def our_client(pipe: Pipe, amount: int) -> None:
    """One ``send`` a message."""
    client = connect(("127.0.0.1", pipe.recv()))
    settle(client)
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
        [
            Subject(
                f"hisock, blocking client, {wire} wire",
                Pair(partial(drain, wire=wire), our_client),
                0.9,
            )
            for wire in ("classic", "compact")
        ],
        amount=amount,
        runs=runs,
    )
