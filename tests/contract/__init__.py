"""The contract: what every face promises over every wire, each promise stated once.

A test gets a ``Net`` that makes servers and clients of one kind each, turns them and
ends them. A new face is a new ``Kind``; a new wire is a new row in ``RAW_PEERS``.
"""

from __future__ import annotations

__all__ = (
    "KINDS",
    "LOCALHOST",
    "PATIENCE",
    "RAW_PEERS",
    "Kind",
    "Net",
    "Peer",
    "RawClassic",
    "RawListener",
    "Record",
    "Thread",
    "eventually",
    "turn_until",
)

import contextlib
import json
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import pytest

from hisock import connect, start_server, start_threaded_server, threaded_connect
from hisock.client import HiSockClient, ThreadedHiSockClient
from hisock.errors import ClientDisconnected
from hisock.server import HiSockServer, ThreadedHiSockServer

#: Seconds after which what was promised counts as broken.
PATIENCE = 5.0
LOCALHOST = "127.0.0.1"
#: Seconds between two looks at something that tells nobody when it changes.
_PAUSE = 0.0005

Peer: TypeAlias = HiSockServer | HiSockClient
T = TypeVar("T")


def eventually(look: Callable[[], T]) -> T:
    """Wait until ``look()`` is true, and return it."""
    end = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not (seen := look()):
        if time.monotonic() > end:
            pytest.fail(f"still {seen!r} after {PATIENCE:g} s")
        pause.wait(_PAUSE)
    return seen


def turn_until(peer: Peer, done: Callable[[], object]) -> None:
    """Turn by hand, on this thread, until ``done()`` is true.

    A blocking peer waits for a handler in each turn, so one has to have work.
    """
    turn = _turn_of(peer)

    def turned() -> bool:
        if done():
            return True
        turn()
        return bool(done())

    eventually(turned)


def _turn_of(peer: Peer) -> Callable[[], None]:
    return peer.run if isinstance(peer, HiSockServer) else peer.update


class Record:
    """What handlers were called with, in order; waits for what is still to come."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __call__(self, *what: Any) -> None:
        self._queue.put(what[0] if len(what) == 1 else what)

    def __len__(self) -> int:
        return self._queue.qsize()

    def next(self) -> Any:
        """The next call; fails the test if it does not come."""
        try:
            return self._queue.get(timeout=PATIENCE)
        except queue.Empty:
            pytest.fail(f"no call came within {PATIENCE:g} s")

    def take(self, count: int) -> list[Any]:
        """The next calls."""
        return [self.next() for _ in range(count)]


class Thread:
    """A function on another thread; ``result`` waits for it, and raises what it did."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function, arguments))
        self._thread.start()

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._value = function(*arguments)
        except BaseException as error:
            self._error = error

    @property
    def is_alive(self) -> bool:
        """Whether the function still runs."""
        return self._thread.is_alive()

    def result(self) -> Any:
        """What the function returned; fails the test if it does not end."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"no end after {PATIENCE:g} s"
        if self._error is not None:
            raise self._error
        return self._value


class Turning:
    """Turns one plain server or client on a thread of the test's own."""

    def __init__(self, peer: Peer, *, blocking: bool) -> None:
        self.errors: list[Exception] = []
        self._peer = peer
        self._pause = 0.0 if blocking else _PAUSE
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"turns {peer}")
        self._thread.start()

    def _run(self) -> None:
        turn = _turn_of(self._peer)
        while not self._stop.is_set() and not self._peer._engine.is_closed:
            try:
                turn()
            except ClientDisconnected:
                return
            except Exception as error:
                self.errors.append(error)
            if self._pause:
                self._stop.wait(self._pause)

    def stop(self) -> None:
        """Turn no more; the peer must be closed, or a blocking one goes on waiting."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the end, and fail the test if something came out of a turn."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"{self._peer} is still being turned"
        assert not self.errors, f"came out of turning {self._peer}: {self.errors}"


@dataclass(frozen=True)
class Kind:
    """A face, and how it waits."""

    threaded: bool
    blocking: bool

    def __str__(self) -> str:
        face = "threaded" if self.threaded else "plain"
        return f"{face}_{'blocking' if self.blocking else 'nonblocking'}"

    def serve(self, address: tuple[str, int], **options: Any) -> HiSockServer:
        """Make a server of this kind; nobody turns it yet."""
        make = start_threaded_server if self.threaded else start_server
        return make(address, blocking=self.blocking, **options)

    def connect(self, address: tuple[str, int], **options: Any) -> HiSockClient:
        """Make a client of this kind; nobody turns it yet."""
        make = threaded_connect if self.threaded else connect
        return make(address, blocking=self.blocking, **options)

    def turn(self, peer: Peer) -> Turning | None:
        """Have a peer turned, by its own thread or by one of the test's."""
        if isinstance(peer, ThreadedHiSockServer):
            peer.start_server()
        elif isinstance(peer, ThreadedHiSockClient):
            peer.start_client()
        else:
            return Turning(peer, blocking=self.blocking)
        return None

    def end(self, peer: Peer) -> None:
        """Close a peer, and wait for a thread of its own."""
        if isinstance(peer, ThreadedHiSockServer):
            peer.stop_server()
            peer.join()
        elif isinstance(peer, ThreadedHiSockClient):
            peer.stop_client()
            peer.join()
        else:
            peer.close()


KINDS = tuple(Kind(t, b) for t in (False, True) for b in (True, False))


class RawClassic:
    """A peer that is nothing but a socket, and says what it is told to.

    Shows what is on the wire at which moment, which no real peer can.
    """

    def __init__(self, sock: socket.socket, header_len: int = 16) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.header_len = header_len
        self._held = b""

    @staticmethod
    def hello(name: str | None = None, group: str | None = None) -> bytes:
        """The body of a hello."""
        return b"$CLTHELLO$ " + json.dumps({"name": name, "group": group}).encode()

    def frame(self, body: bytes) -> bytes:
        """A body with its header."""
        return str(len(body)).ljust(self.header_len).encode() + body

    def send(self, *bodies: bytes) -> None:
        """Write messages, all at once."""
        self.sock.sendall(b"".join(map(self.frame, bodies)))

    def receive(self) -> bytes:
        """The next body."""
        size = int(self._exactly(self.header_len))
        return self._exactly(size)

    def take(self, count: int) -> list[bytes]:
        """The next bodies."""
        return [self.receive() for _ in range(count)]

    def take_one_read(self) -> list[bytes]:
        """The bodies that a single ``recv`` gives."""
        assert not self._held
        self._held = self.sock.recv(1 << 20)
        bodies = []
        while self._held:
            bodies.append(self.receive())
        return bodies

    def _exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            data = self.sock.recv(1 << 16)
            assert data, f"the other side ended after {self._held!r:.80}"
            self._held += data
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    @property
    def has_mail(self) -> bool:
        """Whether something can be read right now."""
        return bool(self._held or select.select([self.sock], [], [], 0)[0])

    def expect_end(self) -> None:
        """Wait for the other side to end the connection; nothing may come before."""
        assert self._held + self.sock.recv(1 << 16) == b""

    def close(self) -> None:
        """End the connection."""
        self.sock.close()


RAW_PEERS = {"classic": RawClassic}


class RawListener:
    """A server that is nothing but a listening socket."""

    def __init__(self, peer: type[RawClassic]) -> None:
        self._peer = peer
        self._sock = socket.create_server((LOCALHOST, 0))
        self._sock.settimeout(PATIENCE)
        self.addr: tuple[str, int] = self._sock.getsockname()[:2]

    def accept(self, header_len: int = 16) -> RawClassic:
        """The next client that called."""
        return self._peer(self._sock.accept()[0], header_len)

    def close(self) -> None:
        """Stop listening."""
        self._sock.close()


class Net:
    """Makes servers and clients of one kind each, turns them, and ends them all."""

    def __init__(self, wire: str, server_kind: Kind, client_kind: Kind) -> None:
        self.wire = wire
        self.server_kind = server_kind
        self.client_kind = client_kind
        self._kinds: dict[int, Kind] = {}
        self._peers: list[Peer] = []
        self._turnings: dict[int, Turning | None] = {}
        self._raw: list[RawClassic | RawListener] = []

    def server(self, **options: Any) -> HiSockServer:
        """A server on a free port, for ``turn`` or to be turned by hand."""
        server = self.server_kind.serve((LOCALHOST, 0), **options)
        self._add(server, self.server_kind)
        return server

    def client(
        self,
        server: HiSockServer | RawListener,
        name: str | None = None,
        group: str | None = None,
        **options: Any,
    ) -> HiSockClient:
        """A client of that server, for ``turn`` or to be turned by hand."""
        kind = self.client_kind
        client = kind.connect(server.addr, name=name, group=group, **options)
        self._add(client, kind)
        return client

    def _add(self, peer: Peer, kind: Kind) -> None:
        self._peers.append(peer)
        self._kinds[id(peer)] = kind

    def turn(self, *peers: Peer) -> None:
        """Have these turned from now on; without any, all that are not yet."""
        for peer in peers or self._peers:
            if id(peer) not in self._turnings:
                self._turnings[id(peer)] = self._kinds[id(peer)].turn(peer)

    def take_errors(self, peer: Peer, count: int) -> list[Exception]:
        """What came out of the turns of a plain peer, instead of failing the test."""
        turning = self._turnings[id(peer)]
        assert turning is not None
        eventually(lambda: len(turning.errors) >= count)
        taken, turning.errors[:] = list(turning.errors), []
        return taken

    def expect_members(self, server: HiSockServer, count: int) -> None:
        """Wait until so many clients are on the server."""
        eventually(lambda: len(server) == count)

    def raw_client(
        self,
        server: HiSockServer,
        name: str | None = None,
        group: str | None = None,
        header_len: int = 16,
        saying: tuple[bytes, ...] = (),
    ) -> RawClassic:
        """A raw client that has said hello, and some messages in the same write."""
        sock = socket.create_connection(server.addr, PATIENCE)
        peer = RAW_PEERS[self.wire](sock, header_len)
        self._raw.append(peer)
        peer.send(peer.hello(name, group), *saying)
        return peer

    def raw_listener(self) -> RawListener:
        """A raw server."""
        listener = RawListener(RAW_PEERS[self.wire])
        self._raw.append(listener)
        return listener

    def raw_server_for(
        self, listener: RawListener, name: str | None = None, **options: Any
    ) -> tuple[RawClassic, HiSockClient]:
        """A client of a raw server, and what the server has in hand for it."""
        client = self.client(listener, name, **options)
        peer = listener.accept(client.header_len)
        self._raw.append(peer)
        assert peer.receive().startswith(b"$CLTHELLO$ ")
        return peer, client

    def close(self) -> None:
        """End everything; both sides at once, so that neither waits for the other."""
        for raw in self._raw:
            raw.close()
        turnings = [turning for turning in self._turnings.values() if turning]
        for turning in turnings:
            turning.stop()
        ends = [Thread(self._kinds[id(peer)].end, peer) for peer in self._peers]
        with contextlib.ExitStack() as all_of_them:
            for end in ends:
                all_of_them.callback(end.result)
            for turning in turnings:
                all_of_them.callback(turning.join)
