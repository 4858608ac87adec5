"""One MiB there and back, again and again.

The baseline receives each message whole, into one buffer, and sends it back from there.
"""

from __future__ import annotations

__all__ = ("main",)

import socket
import time
from multiprocessing.connection import Connection

from bench.peers import Pair, Subject, compare
from hisock import ClientInfo, connect, start_server

_SIZE = 1024 * 1024


def fill(sock: socket.socket, view: memoryview) -> bool:
    """Receive until the buffer is full; false at the end."""
    at = 0
    while at < _SIZE:
        count = sock.recv_into(view[at:])
        if not count:
            return False
        at += count
    return True


def raw_server(pipe: Connection, amount: int) -> None:
    """Send back what comes, once it is complete."""
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    view = memoryview(bytearray(_SIZE))
    while fill(sock, view):
        sock.sendall(view)


def raw_client(pipe: Connection, amount: int) -> None:
    """Send, wait for all of it, again."""
    sock = socket.create_connection(("127.0.0.1", pipe.recv()))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    content = bytes(_SIZE)
    view = memoryview(bytearray(_SIZE))
    began = time.perf_counter()
    for _ in range(amount):
        sock.sendall(content)
        fill(sock, view)
    pipe.send(amount / (time.perf_counter() - began))


def our_server(pipe: Connection, amount: int) -> None:
    """A handler sends back what it gets, another returns it."""
    server = start_server(("127.0.0.1", 0))

    @server.on("echo")
    def echo(client: ClientInfo, message: bytes) -> None:
        server.send_client(client, "echo", message)

    @server.on("return")
    def give_back(client: ClientInfo, message: bytes) -> bytes:
        return message

    pipe.send(server.addr[1])
    server.run_forever()


def our_client(pipe: Connection, amount: int) -> None:
    """Send, receive, again."""
    client = connect(("127.0.0.1", pipe.recv()))
    content = bytes(_SIZE)
    client.call("return", content)
    began = time.perf_counter()
    for _ in range(amount):
        client.send("echo", content)
        client.recv("echo")
    pipe.send(amount / (time.perf_counter() - began))
    client.close()


def our_calling_client(pipe: Connection, amount: int) -> None:
    """Call, again."""
    client = connect(("127.0.0.1", pipe.recv()))
    content = bytes(_SIZE)
    client.call("return", content)
    began = time.perf_counter()
    for _ in range(amount):
        client.call("return", content)
    pipe.send(amount / (time.perf_counter() - began))
    client.close()


def main(amount: int = 1_000, runs: int = 5) -> dict[str, float]:
    """Measure and print; the ratios."""
    return compare(
        "echo, 1 MiB, compact wire, two cores, round trips",
        Pair(raw_server, raw_client),
        [
            Subject("hisock, send and recv", Pair(our_server, our_client), 0.7),
            Subject("hisock, call", Pair(our_server, our_calling_client), 0.7),
        ],
        amount=amount,
        runs=runs,
    )
