"""Every server and every client of hisock, each as a function that runs one side.

A side runs on a thread of its own until the traffic is over, sends its half of the
messages and enters what it receives.
"""

from __future__ import annotations

__all__ = ("CLIENTS", "SERVERS", "Options", "Role", "Worker", "send_all")

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from random import Random
from typing import Any, Final, TypeAlias

from hisock import aio, connect, start_server, start_threaded_server, threaded_connect
from hisock.errors import Overloaded

from .pipes import Direction
from .traffic import COMMAND, END, Traffic, opposite

Options: TypeAlias = dict[str, Any]
#: Traffic, the address to connect to or listen at, keyword options.
Role: TypeAlias = Callable[[Traffic, tuple[str, int], Options], None]

#: Seconds after which a side that should end is given up.
_PATIENCE: Final = 30.0
#: Seconds of one turn, so that its thread sees when it should end.
_TURN: Final = 0.25
#: The same while its own sending may go on.
_GLANCE: Final = 0.01
#: Bytes of a batch that leaves in one piece, or not at all.
_BATCH: Final = 32 * 1024


class Worker:
    """A function on another thread; what it raises is a failure of the traffic."""

    def __init__(self, traffic: Traffic, function: Callable[..., Any], *args: Any):
        self._traffic = traffic
        self._name = function.__name__
        self._thread = threading.Thread(
            target=self._run, args=(function, args), name=self._name, daemon=True
        )

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except (
            CancelledError,
            asyncio.CancelledError,
        ):  # its wait is over
            pass
        except BaseException as error:
            self._traffic.fail(f"{self._name} raised {error!r}")
            if not self._traffic.address.done():
                self._traffic.address.set_exception(error)

    def __exit__(self, *error: object) -> None:
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self._traffic.fail(f"{self._name} did not end")


# --- handlers --------------------------------------------------------------------


def _receive(peer: Any, traffic: Traffic, direction: Direction) -> None:
    """Register what every face has: the handlers of its half."""
    book = traffic.books[direction]
    if direction == "up":
        peer.on(COMMAND)(lambda client, content: book.take(content))
        peer.on(END)(lambda client, count: book.end(count))
    else:
        peer.on(COMMAND)(book.take)
        peer.on(END)(book.end)
    peer.on_error(lambda error: traffic.fail(f"{opposite(direction)}: {error!r}"))


def _hear_members(server: Any, traffic: Traffic) -> None:
    """Learn who the client is; a second one is a lost session."""

    def joined(client: Any) -> None:
        if not traffic.member.done():
            traffic.member.set_result(client)
        elif not traffic.is_over.is_set():
            traffic.fail("the client joined anew")

    def left(client: Any) -> None:
        if not traffic.is_over.is_set():
            traffic.fail("the client left")

    server.on("join")(joined)
    server.on("leave")(left)


def _hear_links(client: Any, traffic: Traffic) -> None:
    """Count how often the client is back, and note where it is not."""

    def lost(what: Any) -> None:
        traffic.lose_session(
            f"{what.reason}, {len(what.unacked)} unacked, {what.missed} missed"
        )

    client.on_resume(traffic.note_resume)
    client.on_session_lost(lost)


# --- sending ---------------------------------------------------------------------


def send_all(
    traffic: Traffic, direction: Direction, send: Callable[[str, Any], Any]
) -> None:
    """Send one half, as fast as the other side and the stages let it."""
    for content in traffic.messages(direction):
        if not traffic.wait_to_send(content[0]):
            return
        send(COMMAND, content)
        traffic.count_sent()
    send(END, traffic.count)


def _send_to_member(traffic: Traffic, server: Any) -> None:
    """Send the server's half, once its client is there."""
    member = traffic.member.result()
    send_all(traffic, "down", lambda *what: server.send_client(member, *what))


async def _send_all_awaited(
    traffic: Traffic, direction: Direction, send: Callable[[str, Any], Any]
) -> None:
    """The same for coroutines: not every send is awaited, large ones are."""
    rng = Random(traffic.seed)
    for content in traffic.messages(direction):
        if not traffic.may_send(content[0]):
            await asyncio.to_thread(traffic.wait_to_send, content[0])
        if traffic.is_over.is_set():
            return
        sent = send(COMMAND, content)
        traffic.count_sent()
        if len(content[2]) > 1000 or rng.random() < 0.2:
            await sent
    await send(END, traffic.count)


# --- servers ---------------------------------------------------------------------


def _prepared(server: Any, traffic: Traffic) -> Any:
    _receive(server, traffic, "up")
    _hear_members(server, traffic)
    return server


def plain_server(traffic: Traffic, at: tuple[str, int], options: Options) -> None:
    """A server turned by ``run()`` on this thread; another thread sends."""
    server = _prepared(start_server(at, **options), traffic)
    traffic.address.set_result(server.addr)
    with server, Worker(traffic, _send_to_member, traffic, server):
        while not traffic.is_closing.is_set():
            server.run(timeout=_TURN)


def threaded_server(traffic: Traffic, at: tuple[str, int], options: Options) -> None:
    """A server that turns itself; this thread sends."""
    server = _prepared(start_threaded_server(at, **options), traffic)
    with server:
        traffic.address.set_result(server.addr)
        with Worker(traffic, _send_to_member, traffic, server):
            traffic.is_closing.wait()


def aio_server(traffic: Traffic, at: tuple[str, int], options: Options) -> None:
    """A server and its sending in one asyncio loop."""

    async def main() -> None:
        server = _prepared(aio.start_server(at, **options), traffic)
        async with server:
            traffic.address.set_result(server.addr)
            member = await asyncio.wrap_future(traffic.member)
            await _send_all_awaited(
                traffic, "down", lambda *what: server.send_client(member, *what)
            )
            await asyncio.to_thread(traffic.is_closing.wait)

    asyncio.run(main())


# --- clients ---------------------------------------------------------------------


class _Bursts:
    """What a client sends between two turns on one thread: some messages, or a batch.

    Args:
        client: Who sends.
        traffic: What.
    """

    def __init__(self, client: Any, traffic: Traffic) -> None:
        self._client = client
        self._traffic = traffic
        self._rng = Random(traffic.seed)
        self._waiting = traffic.messages("up")
        #: The next message that may not be sent yet.
        self._next = next(self._waiting, None)
        self._burst: deque[list[Any]] = deque()
        self._has_ended = False

    def send(self) -> None:
        """Send a burst, and the end after the last."""
        self._fill()
        try:
            if self._rng.random() < 0.5 and _size(self._burst) < _BATCH:
                self._send_batch()
            else:
                self._send_one_by_one()
            if not (self._burst or self._next or self._has_ended):
                self._client.send(END, self._traffic.count)
                self._has_ended = True
        except Overloaded:  # nothing of it was sent: first take what came
            pass

    def _fill(self) -> None:
        for _ in range(self._rng.randint(1, 50) - len(self._burst)):
            if self._next is None or not self._traffic.may_send(self._next[0]):
                break
            self._burst.append(self._next)
            self._next = next(self._waiting, None)

    def _send_batch(self) -> None:
        with self._client.batch():
            for content in self._burst:
                self._client.send(COMMAND, content)
        while self._burst:
            self._burst.popleft()
            self._traffic.count_sent()

    def _send_one_by_one(self) -> None:
        while self._burst:
            self._client.send(COMMAND, self._burst[0])
            self._burst.popleft()
            self._traffic.count_sent()

    def patience(self) -> float:
        """How long a turn may wait: not at all while there is something to send."""
        if self._has_ended:
            return _TURN
        may_send = self._next and self._traffic.may_send(self._next[0])
        return 0.0 if self._burst or may_send else _GLANCE


def _size(burst: Iterable[list[Any]]) -> int:
    return sum(len(content[2]) for content in burst)


def blocking_client(traffic: Traffic, at: tuple[str, int], options: Options) -> None:
    """A client that sends and calls ``update()`` in turn, on this thread alone."""
    with connect(at, name="prover", **options) as client:
        _receive(client, traffic, "down")
        _hear_links(client, traffic)
        bursts = _Bursts(client, traffic)
        while not traffic.is_over.is_set():
            bursts.send()
            client.update(timeout=bursts.patience())


def threaded_client(traffic: Traffic, at: tuple[str, int], options: Options) -> None:
    """A client that turns itself; this thread sends."""
    client = threaded_connect(at, name="prover", **options)
    _receive(client, traffic, "down")
    _hear_links(client, traffic)
    with client:
        send_all(traffic, "up", client.send)
        traffic.is_over.wait()


def aio_client(traffic: Traffic, at: tuple[str, int], options: Options) -> None:
    """A client and its sending in one asyncio loop."""

    async def main() -> None:
        client = aio.connect(at, name="prover", **options)
        _receive(client, traffic, "down")
        _hear_links(client, traffic)
        async with client:
            await _send_all_awaited(traffic, "up", client.send)
            await asyncio.to_thread(traffic.is_over.wait)

    asyncio.run(main())


SERVERS: Final[dict[str, Role]] = {
    "plain": plain_server,
    "threaded": threaded_server,
    "aio": aio_server,
}
CLIENTS: Final[dict[str, Role]] = {
    "blocking": blocking_client,
    "threaded": threaded_client,
    "aio": aio_client,
}
