"""The contract: what every face promises over every wire, each promise stated once.

A test gets a ``Net`` that makes servers and clients of one kind each, turns them and
ends them. A new face is a new ``Kind``; a new wire is a new row in ``RAW_PEERS``.
``conftest`` says which of them meet.
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
    "Raw",
    "RawCompact",
    "RawListener",
    "Record",
    "Thread",
    "bare",
    "eventually",
    "own_address",
    "turn_until",
)

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from tests.chaos.proxy import ChaosProxy

from hisock.client import HiSockClient
from hisock.engine.dial import spell_address
from hisock.server import HiSockServer
from hisock.types import Handlers
from hisock.wire.payload import as_text

from .driving import KINDS, PAUSE, Kind, LoopThread, Peer, Turning, bare, turn_of
from .raw import LOCALHOST, PATIENCE, RAW_PEERS, Raw, RawCompact, RawListener

T = TypeVar("T")


def eventually(look: Callable[[], T]) -> T:
    """Wait until ``look()`` is true, and return it."""
    end = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not (seen := look()):
        if time.monotonic() > end:
            pytest.fail(f"still {seen!r} after {PATIENCE:g} s")
        pause.wait(PAUSE)
    return seen


def turn_until(peer: Peer, done: Callable[[], object]) -> None:
    """Turn by hand, on this thread, until ``done()`` is true.

    A blocking peer waits for a handler in each turn, so one has to have work.
    """
    turn = turn_of(peer)

    def turned() -> bool:
        if done():
            return True
        turn()
        return bool(done())

    eventually(turned)


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


class Net:
    """Makes servers and clients of one kind each, turns them, and ends them all."""

    def __init__(self, wire: str, server_kind: Kind, client_kind: Kind) -> None:
        #: Whether clients come as WebSocket, which carries the same frames; raw peers
        #: speak the compact wire.
        self.is_websocket = wire == "websocket"
        self.wire = "compact" if self.is_websocket else wire
        self.server_kind = server_kind
        self.client_kind = client_kind
        self._making = threading.Lock()
        self._loops: dict[str, LoopThread | None] = {}
        self._kinds: dict[int, Kind] = {}
        self._peers: list[Peer] = []
        self._turnings: dict[int, Turning | None] = {}
        self._raw: list[Raw | RawListener] = []
        self._proxies: list[ChaosProxy] = []

    @property
    def spoken(self) -> str:
        """The wire of the clients, by its name."""
        return "websocket" if self.is_websocket else self.wire

    @property
    def is_compact(self) -> bool:
        """Whether content keeps its type on the wire, and there are calls."""
        return self.wire == "compact"

    def as_sent(self, content: Any) -> Any:
        """What a handler without a hint gets of content."""
        return content if self.is_compact else as_text(content)

    def server(self, addr: Any = (LOCALHOST, 0), **options: Any) -> HiSockServer:
        """A server on a free port, for ``turn`` or to be turned by hand.

        A loop turns it at once: register its handlers before its clients are made.
        """
        kind = self.server_kind
        if not self.is_compact:
            options.setdefault("wires", ("classic",))
        server = kind.serve(addr, self._loop("server", kind), **options)
        self._add(server, kind)
        return server

    def client(
        self,
        server: HiSockServer | RawListener | ChaosProxy,
        name: str | None = None,
        group: str | None = None,
        *,
        handlers: Handlers | None = None,
        **options: Any,
    ) -> HiSockClient:
        """A client of that server, for ``turn`` or to be turned by hand.

        Args:
            server: Which, or a proxy that stands before it.
            name, group, options: As ``connect`` takes them.
            handlers: What it has before anything can come; a loop turns at once.
        """
        kind = self.client_kind
        loop = self._loop("client", kind)
        options |= {"name": name, "group": group}
        addr: Any = server.address if isinstance(server, ChaosProxy) else server.addr
        if self.is_websocket and not isinstance(server, RawListener):
            addr = f"ws://{spell_address(addr)}/"
        client = kind.connect(addr, loop, handlers, **options)
        self._add(client, kind)
        return client

    def _loop(self, side: str, kind: Kind) -> LoopThread | None:
        """The loop of all servers, or of all clients."""
        with self._making:
            if side not in self._loops:
                self._loops[side] = kind.loop()
            return self._loops[side]

    def _add(self, peer: Peer, kind: Kind) -> None:
        self._peers.append(peer)
        self._kinds[id(peer)] = kind

    def turn(self, *peers: Peer) -> None:
        """Have these turned from now on; without any, all that are not yet."""
        for peer in peers or self._peers:
            if id(peer) not in self._turnings:
                self._turnings[id(peer)] = self._kinds[id(peer)].turn(peer)

    def end(self, peer: Peer) -> None:
        """Close a peer, and wait for a thread of its own."""
        self._kinds[id(peer)].end(peer)

    def may_wait(self, peer: Peer) -> dict[str, Any]:
        """Options of ``on`` with which a plain handler may use the verbs that wait.

        Where a loop turns the peer it is a worker thread that has to wait.
        """
        return {"threaded": True} if self._kinds[id(peer)].is_async else {}

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

    def proxy(self, server: HiSockServer | RawListener) -> ChaosProxy:
        """A network to that server that misbehaves when a test says so."""
        proxy = ChaosProxy(server.addr)
        self._proxies.append(proxy.__enter__())
        return proxy

    def raw_client(
        self,
        server: HiSockServer,
        name: str | None = None,
        group: str | None = None,
        header_len: int = 16,
        saying: tuple[bytes, ...] = (),
        wire: str | None = None,
        claim: dict[str, Any] | None = None,
    ) -> Raw:
        """A raw client that has said hello, and some messages in the same write.

        Args:
            claim: What its hello says of a session.
        """
        sock = socket.create_connection(server.addr, PATIENCE)
        peer = RAW_PEERS[wire or self.wire](sock, header_len)
        if claim is not None:
            assert isinstance(peer, RawCompact)
            peer.claim = claim
        self._raw.append(peer)
        peer.greet(name, group, *saying)
        return peer

    def adopt(self, sock: socket.socket) -> Raw:
        """A raw peer of a socket that has said nothing yet."""
        peer = RAW_PEERS[self.wire](sock)
        self._raw.append(peer)
        return peer

    def raw_listener(self) -> RawListener:
        """A raw server."""
        listener = RawListener(RAW_PEERS[self.wire])
        self._raw.append(listener)
        return listener

    def raw_server_for(
        self, listener: RawListener, name: str | None = None, **options: Any
    ) -> tuple[Raw, HiSockClient]:
        """A client of a raw server, and what the server has in hand for it."""
        client = self.client(listener, name, **options)
        peer = listener.accept(client.header_len)
        self._raw.append(peer)
        peer.answer_hello()
        return peer, client

    def close(self) -> None:
        """End everything; both sides at once, so that neither waits for the other."""
        for raw in self._raw:
            raw.close()
        turnings = [turning for turning in self._turnings.values() if turning]
        for turning in turnings:
            turning.stop()
        peers, self._peers = self._peers, []
        loops, self._loops = self._loops, {}
        ends = [Thread(self.end, peer) for peer in peers]
        proxies, self._proxies = self._proxies, []
        with contextlib.ExitStack() as all_of_them:
            for proxy in proxies:
                all_of_them.callback(proxy.close)
            for loop in filter(None, loops.values()):
                all_of_them.callback(loop.close)
            for end in ends:
                all_of_them.callback(end.result)
            for turning in turnings:
                all_of_them.callback(turning.join)


def own_address() -> str | None:
    """An address of this machine that others know, too; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address
