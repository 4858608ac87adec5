"""Round trips between the blocking client and ``server.run()``, on the wire of 1.1.

Calls, which only our own wire has, are measured in ``calls``.
"""

from __future__ import annotations

__all__ = ("main",)

import socket
import time
from functools import partial
from multiprocessing.connection import Connection

from bench.peers import Pair, Subject, compare, settle
from hisock import ClientInfo, connect, start_server

_FRAME = b"x" * 64
_CONTENT = b"x" * 48


def raw_server(pipe: Connection, amount: int) -> None:
    """Send back what comes."""
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := sock.recv(4096):
        sock.sendall(data)


def raw_client(pipe: Connection, amount: int) -> None:
    """Send, wait, again."""
    sock = socket.create_connection(("127.0.0.1", pipe.recv()))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    began = time.perf_counter()
    for _ in range(amount):
        sock.sendall(_FRAME)
        sock.recv(4096)
    pipe.send(amount / (time.perf_counter() - began))


def our_server(pipe: Connection, amount: int, spin: float = 0.0) -> None:
    """A handler sends back what it gets."""
    server = start_server(("127.0.0.1", 0), wires=("classic",), spin=spin)

    @server.on("ping")
    def ping(client: ClientInfo, message: bytes) -> None:
        server.send_client_raw(client, message)

    pipe.send(server.addr[1])
    while True:
        server.run()


def our_client(pipe: Connection, amount: int) -> None:
    """Send, wait, again."""
    client = connect(("127.0.0.1", pipe.recv()))
    settle(client)
    began = time.perf_counter()
    for _ in range(amount):
        client.send("ping", _CONTENT)
        client.recv_raw()
    pipe.send(amount / (time.perf_counter() - began))
    client.close()


def main(amount: int = 20_000, runs: int = 7) -> dict[str, float]:
    """Measure and print; the ratios."""
    raw = Pair(raw_server, raw_client)
    ours = Pair(our_server, our_client)
    spinning = Pair(partial(our_server, spin=50e-6), our_client)
    return {
        **compare(
            "ping-pong, 64 B, classic wire, two cores, round trips",
            raw,
            [
                Subject("hisock, two cores", ours, 0.9),
                Subject("hisock, two cores, spin=50e-6", spinning, 0.9),
            ],
            amount=amount,
            runs=runs,
        ),
        **compare(
            "ping-pong, 64 B, classic wire, one core, round trips",
            raw,
            [Subject("hisock, one core", ours, 0.6)],
            amount=amount,
            runs=runs,
            cores=(0, 0),
        ),
    }
