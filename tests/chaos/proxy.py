"""A TCP proxy that cuts, stalls, dribbles and delays what passes, when a test says so.

It knows nothing of hisock: bytes come in on one side and leave on the other.
"""

from __future__ import annotations

__all__ = ("ChaosProxy",)

import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from .pipes import Direction, How, Pair, Pipe, Side, Way

T = TypeVar("T")

_HOST: Final = "127.0.0.1"
#: Seconds that a control may take.
_PATIENCE: Final = 10.0
_READ: Final = selectors.EVENT_READ
#: SO_LINGER on, 0 s: a close is a reset.
_RESET: Final = struct.pack("ii", 1, 0)


class ChaosProxy:
    """Listens on a free port of loopback and passes bytes to a server and back.

    One thread serves all connections. Every control may be called from any thread, and
    has taken effect when it returns.

    Args:
        target: ``(ip, port)`` of the server; may be changed for later connections.

    Attributes:
        address: Where clients connect.
        connections: Connections accepted so far.
        refused: Connections closed at once since ``refuse`` was called.
        cuts: Connections that it has cut.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.connections = 0
        self.refused = 0
        self.cuts = 0
        self._ways: dict[Direction, Way] = {"up": Way(), "down": Way()}
        self._next_cut: tuple[Direction, int, How] | None = None
        self._refusing: Literal["fin", "rst"] | None = None
        self._pairs: set[Pair] = set()
        self._timed: dict[Pair, float] = {}
        self._masks: dict[socket.socket, int] = {}
        self._asked: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._listener = self._bind(0)
        self._listener.listen(1024)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._run, name="chaos proxy")

    def __enter__(self) -> Self:
        self._watch(self._bell, _READ, self._hear)
        self._watch(self._listener, _READ, self._accept)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every connection and the thread."""
        if not self._is_closed:
            self._ask(self._stop)
            self._thread.join(_PATIENCE)

    # --- what a test sees ------------------------------------------------------

    @property
    def present(self) -> int:
        """Connections that pass bytes now."""
        return len(self._pairs)

    @property
    def bytes_up(self) -> int:
        """Bytes passed from clients to the server."""
        return self._ways["up"].passed

    @property
    def bytes_down(self) -> int:
        """Bytes passed from the server to clients."""
        return self._ways["down"].passed

    def held(self, direction: Direction) -> int:
        """Bytes that it holds for one direction."""
        return sum(pair.pipes[direction].size for pair in tuple(self._pairs))

    def wait_for(self, look: Callable[[], object], timeout: float = _PATIENCE) -> bool:
        """Wait until ``look()``, at whatever the proxy counts, is true; whether it is.

        Args:
            look: Called in this thread, after whatever the proxy does.
            timeout: Seconds to wait.
        """
        with self._changed:
            return bool(self._changed.wait_for(look, timeout))

    # --- controls --------------------------------------------------------------

    def cut(self, how: How = "fin", *, only: Side | None = None) -> int:
        """End every present connection; what it still holds is lost.

        Args:
            how: By FIN (what still comes is read and thrown away), by RST, or both.
            only: The side that is told. The other one stays open and is talking to
                nobody: a link that only one side knows to be dead.

        Returns:
            How many connections there were.
        """
        return self._ask(partial(self._cut_all, how, only))

    def cut_after(
        self, direction: Direction, n_bytes: int, how: How = "rst", *, of: str = "all"
    ) -> int:
        """Cut a connection when exactly so many further bytes have passed.

        Args:
            direction: Which bytes are counted.
            n_bytes: How many still pass; 0 cuts at once.
            how: As ``cut``.
            of: ``"all"`` present connections, each by itself, or the ``"next"`` one
                that is accepted.

        Returns:
            How many connections will be cut.
        """
        if of == "next":
            return self._ask(partial(self._cut_next, (direction, n_bytes, how)))
        return self._ask(partial(self._arm_all, direction, n_bytes, how))

    def disarm(self) -> None:
        """Forget every ``cut_after`` that has not happened."""
        self._ask(self._disarm)

    def blackhole(self, direction: Direction | None = None) -> None:
        """Pass nothing in a direction, or in neither, and do not say so."""
        self._ask(partial(self._stall, _which(direction), True))

    def heal(self) -> None:
        """End the black hole: what waited passes."""
        self._ask(partial(self._stall, _which(None), False))

    def refuse(self, how: Literal["closed", "fin", "rst"] = "closed") -> None:
        """Let no new connection through; present ones live.

        Args:
            how: Nobody listens, or it accepts and closes at once by FIN or RST.
        """
        self._ask(partial(self._refuse, how))

    def accept_again(self) -> None:
        """End ``refuse``."""
        self._ask(self._accept_again)

    def dribble(self, chunk: int | None, *, pause: float = 0.0) -> None:
        """Pass few bytes at a time, in both directions; ``None`` is as many as come.

        Args:
            chunk: Bytes of one write at most.
            pause: Seconds between two writes of a connection's direction.
        """
        self._ask(partial(self._set_ways, chunk=chunk, pause=pause))

    def latency(self, seconds: float) -> None:
        """Hold all that is read from now on for so long, in each direction."""
        self._ask(partial(self._set_ways, latency=seconds))

    # --- controls, in its thread -----------------------------------------------

    def _ask(self, act: Callable[[], T]) -> T:
        """Have something done between two rounds of its thread, and wait for it."""
        if threading.current_thread() is self._thread or not self._thread.is_alive():
            return act()
        answer: Future[T] = Future()
        self._asked.append((act, answer))
        self._ring()
        return answer.result(_PATIENCE)

    def _cut_all(self, how: How, only: Side | None) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            self._cut(pair, how, only)
        return len(pairs)

    def _cut_next(self, cut: tuple[Direction, int, How]) -> int:
        self._next_cut = cut
        return 1

    def _arm_all(self, direction: Direction, n_bytes: int, how: How) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            self._arm(pair, direction, n_bytes, how)
            self._settle(pair)
        return len(pairs)

    def _arm(self, pair: Pair, direction: Direction, n_bytes: int, how: How) -> None:
        pipe = pair.pipes[direction]
        pipe.cut_in = n_bytes
        pipe.how = how

    def _disarm(self) -> None:
        self._next_cut = None
        for pair in self._pairs:
            for pipe in pair.pipes.values():
                pipe.cut_in = None

    def _stall(self, directions: Iterable[Direction], stalls: bool) -> None:
        for direction in directions:
            self._ways[direction].is_stalled = stalls
        self._settle_all()

    def _set_ways(self, **settings: Any) -> None:
        for way in self._ways.values():
            for name, value in settings.items():
                setattr(way, name, value)
        self._settle_all()

    def _refuse(self, how: Literal["closed", "fin", "rst"]) -> None:
        self.refused = 0
        self._refusing = None if how == "closed" else how
        if how == "closed":
            # Bound and not listening: connects are refused, and the port stays ours.
            self._close(self._listener)
            self._listener = self._bind(self.address[1])

    def _accept_again(self) -> None:
        self._refusing = None
        if self._listener not in self._masks:
            self._listener.listen(1024)
            self._watch(self._listener, _READ, self._accept)

    def _stop(self) -> None:
        self._is_closed = True

    # --- its thread ------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_closed:
                self._round()
        finally:
            self._is_closed = True
            for sock in [*self._masks, self._bell, self._ringer, self._listener]:
                self._close(sock)
            for pair in self._pairs:
                pair.client.close()
                pair.server.close()
            self._pairs.clear()
            self._selector.close()
            for _, answer in self._asked:
                answer.set_exception(RuntimeError("the proxy is closed"))

    def _round(self) -> None:
        """Wait, pass what came and what is due, do what was asked."""
        timeout = None
        if self._timed:
            timeout = max(0.0, min(self._timed.values()) - time.monotonic())
        for key, mask in self._selector.select(timeout):
            if key.fileobj in self._masks:  # or closed in this round
                key.data(mask)
        now = time.monotonic()
        for pair in [pair for pair, due in self._timed.items() if due <= now]:
            self._settle(pair)
        while self._asked:
            act, answer = self._asked.popleft()
            try:
                answer.set_result(act())
            except Exception as error:
                answer.set_exception(error)
        with self._changed:
            self._changed.notify_all()

    def _ring(self) -> None:
        with suppress(BlockingIOError, OSError):  # rung already, or closed
            self._ringer.send(b"!")

    def _hear(self, _: int) -> None:
        with suppress(BlockingIOError):
            self._bell.recv(4096)

    def _bind(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        listener.setblocking(False)
        return listener

    def _accept(self, _: int) -> None:
        try:
            client, _address = self._listener.accept()
        except OSError:  # it went away again
            return
        if self._refusing is not None:
            self.refused += 1
            self._end(client, self._refusing)
            return
        self.connections += 1
        server = socket.socket()
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A failure shows when it is read, like any other end.
        server.connect_ex(self.target)
        pair = Pair(self._ways, client, server)
        self._pairs.add(pair)
        if self._next_cut is not None:
            self._arm(pair, *self._next_cut)
            self._next_cut = None
        self._settle(pair)

    def _ready(self, pair: Pair, pipe: Pipe, mask: int) -> None:
        """One socket of a pair is ready: the source of that pipe."""
        if mask & _READ and pipe.wants_reading:
            try:
                pipe.read(time.monotonic())
            except OSError:
                self._drop(pair)
                return
        self._settle(pair)

    def _settle(self, pair: Pair) -> None:
        """Pass what is due, end what is over, and wait for the rest."""
        now = time.monotonic()
        try:
            if pair.cut_due is None:
                pair.up.write(now)
            if pair.cut_due is None:
                pair.down.write(now)
        except OSError:
            self._drop(pair)
            return
        if (how := pair.cut_due) is not None:
            self._cut(pair, how)
        elif pair.is_over:
            self._forget(pair)
            self._close(pair.client)
            self._close(pair.server)
        else:
            for pipe in (pair.up, pair.down):
                wanted = pair.wanted(pipe.source, now)
                self._watch(pipe.source, wanted, partial(self._ready, pair, pipe))
            self._timed.pop(pair, None)
            if (due := pair.next_due(now)) is not None:
                self._timed[pair] = due

    def _settle_all(self) -> None:
        for pair in list(self._pairs):
            self._settle(pair)

    # --- endings ---------------------------------------------------------------

    def _cut(self, pair: Pair, how: How, only: Side | None = None) -> None:
        self.cuts += 1
        self._forget(pair)
        for side, sock in (("client", pair.client), ("server", pair.server)):
            if only is not None and side != only:
                self._drain(sock)
            elif how == "rst" or (how == "both" and side == "server"):
                self._end(sock, "rst")
            else:
                self._end(sock, "fin")

    def _drop(self, pair: Pair) -> None:
        """One side reset the connection: pass that on."""
        self._forget(pair)
        self._end(pair.client, "rst")
        self._end(pair.server, "rst")

    def _forget(self, pair: Pair) -> None:
        self._pairs.discard(pair)
        self._timed.pop(pair, None)

    def _end(self, sock: socket.socket, how: Literal["fin", "rst"]) -> None:
        if how == "rst":
            with suppress(OSError):  # macOS: the other side was quicker
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._close(sock)
            return
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # not connected any more, or not yet
            self._close(sock)
        else:
            self._drain(sock)

    def _drain(self, sock: socket.socket) -> None:
        """Read and forget until the other side ends: closing would reset it."""
        self._watch(sock, 0, None)
        sock.setblocking(False)
        self._watch(sock, _READ, partial(self._discard, sock))

    def _discard(self, sock: socket.socket, _: int) -> None:
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._watch(sock, 0, None)
        sock.close()

    def _watch(self, sock: socket.socket, mask: int, ready: Any) -> None:
        before = self._masks.get(sock, 0)
        if mask == 0:
            if before:
                self._selector.unregister(sock)
                del self._masks[sock]
            return
        if not before:
            self._selector.register(sock, mask, ready)
        elif before != mask:
            self._selector.modify(sock, mask, ready)
        self._masks[sock] = mask


def _which(direction: Direction | None) -> tuple[Direction, ...]:
    return ("up", "down") if direction is None else (direction,)
