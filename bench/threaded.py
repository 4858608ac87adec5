"""What the threaded client's hand-over costs: a thread turns it, another uses it.

Beside the same baselines as the client without a thread: a bare ping-pong for calls,
one bare ``sendall`` each for messages.
"""

from __future__ import annotations

__all__ = ("main",)

import threading
import time
from multiprocessing.connection import Connection

from bench import calls, one_way, streams, typed
from bench.peers import Pair, Subject, compare
from bench.ping_pong import raw_client, raw_server
from hisock import ClientInfo, start_server, threaded_connect

_CONTENT = b"x" * 59


def calling_client(pipe: Connection, amount: int) -> None:
    """The main thread calls; the other one reads the answers."""
    client = threaded_connect(("127.0.0.1", pipe.recv()))
    client.start_client()
    client.call("echo", calls._CONTENT)
    began = time.perf_counter()
    for _ in range(amount):
        client.call("echo", calls._CONTENT)
    pipe.send(amount / (time.perf_counter() - began))
    client.stop_client()
    client.join()


def sending_client(pipe: Connection, amount: int) -> None:
    """The main thread sends batches, while the other one waits."""
    client = threaded_connect(("127.0.0.1", pipe.recv()))
    client.start_client()
    client.call("ready")
    with client.batch():
        for _ in range(amount):
            client.send("move", _CONTENT)
    client.stop_client()
    client.join()


def counting_server(pipe: Connection, amount: int) -> None:
    """As ``typed``, of bytes."""
    typed.our_server(pipe, amount, "bytes")


def pouring_server(pipe: Connection, amount: int) -> None:
    """A handler sends everything at once."""
    server = start_server(("127.0.0.1", 0))

    @server.on("pour")
    def pour(client: ClientInfo) -> None:
        for _ in range(amount):
            server.send_client(client, "move", _CONTENT)

    pipe.send(server.addr[1])
    server.run_forever()


def hearing_client(pipe: Connection, amount: int) -> None:
    """A handler in the other thread counts; the main thread waits for it."""
    client = threaded_connect(("127.0.0.1", pipe.recv()))
    done = threading.Event()
    count = 0

    @client.on("move")
    def move(message: bytes) -> None:
        nonlocal count
        count += 1
        if count == amount:
            done.set()

    client.start_client()
    began = time.perf_counter()
    client.send("pour", b"")
    done.wait()
    pipe.send(amount / (time.perf_counter() - began))
    client.stop_client()
    client.join()


def main(amount: int = 20_000, runs: int = 5) -> dict[str, float]:
    """Measure and print; the ratios."""
    return {
        **compare(
            "threaded client, 64 B, compact wire, two cores, round trips",
            Pair(raw_server, raw_client),
            [
                Subject(
                    "hisock, calls from the main thread",
                    Pair(calls.our_server, calling_client),
                    0.4,
                )
            ],
            amount=amount,
            runs=runs,
        ),
        **compare(
            "threaded client, sends in batches, 64 B, messages",
            Pair(one_way.raw_server, one_way.raw_client, measured_by_server=True),
            [
                Subject(
                    "hisock, sends from the main thread",
                    Pair(counting_server, sending_client, measured_by_server=True),
                    8.0,
                )
            ],
            amount=20 * amount,
            runs=runs,
        ),
        **compare(
            "threaded client, single sends to it, 64 B, messages",
            Pair(streams.raw_server, streams.raw_client),
            [
                Subject(
                    "hisock, handler in its thread",
                    Pair(pouring_server, hearing_client),
                    0.9,
                )
            ],
            amount=10 * amount,
            runs=runs,
        ),
    }
