"""The faces of hisock, and what turns them in a test.

Tests speak to all of them with the verbs of the blocking faces; ``Driven`` gives the
asyncio ones these verbs, on a loop in a thread of the test's own.
"""

from __future__ import annotations

__all__ = (
    "KINDS",
    "Driven",
    "Kind",
    "LoopThread",
    "Peer",
    "Turning",
    "bare",
    "turn_of",
)

import asyncio
import inspect
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias, cast

import uvloop

from hisock import aio, connect, start_server, start_threaded_server, threaded_connect
from hisock.client import HiSockClient, ThreadedHiSockClient
from hisock.engine.awaiting import AsyncGroupCall, AsyncStream
from hisock.engine.server_face import Group
from hisock.errors import ClientDisconnected
from hisock.server import HiSockServer, ThreadedHiSockServer
from hisock.types import Handlers

from .raw import PATIENCE

Peer: TypeAlias = HiSockServer | HiSockClient

#: Seconds between two looks at something that tells nobody when it changes.
PAUSE: Final = 0.0005
_LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}


def turn_of(peer: Peer) -> Callable[[], None]:
    """What turns a plain peer once."""
    return peer.run if isinstance(peer, HiSockServer) else peer.update


class Turning:
    """Turns one plain server or client on a thread of the test's own."""

    def __init__(self, peer: Peer, *, blocking: bool) -> None:
        self.errors: list[Exception] = []
        self._peer = peer
        self._pause = 0.0 if blocking else PAUSE
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"turns {peer}")
        self._thread.start()

    def _run(self) -> None:
        turn = turn_of(self._peer)
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


class LoopThread:
    """An asyncio loop on a thread of the test's own.

    Args:
        kind: ``"asyncio"`` or ``"uvloop"``.
    """

    def __init__(self, kind: str) -> None:
        self.errors: list[str] = []
        self._runs = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(kind,), name=kind)
        self._thread.start()
        assert self._runs.wait(PATIENCE)

    def _run(self, kind: str) -> None:
        with asyncio.Runner(loop_factory=_LOOPS[kind]) as runner:
            self._loop = runner.get_loop()
            self._loop.set_exception_handler(self._note)
            runner.run(self._until_stopped())

    def _note(self, _: asyncio.AbstractEventLoop, what: dict[str, Any]) -> None:
        error = what.get("exception")
        trace = "" if error is None else "".join(traceback.format_exception(error))
        self.errors.append(f"{what['message']}\n{trace}")

    async def _until_stopped(self) -> None:
        self._stop = asyncio.Event()
        self._runs.set()
        await self._stop.wait()

    @property
    def is_here(self) -> bool:
        """Whether this is its thread."""
        return threading.current_thread() is self._thread

    def wait_for(self, awaitable: Awaitable[Any]) -> Any:
        """What an awaitable comes to; from any other thread.

        It is waited for twice as long as anything may take, so that a test fails with
        what it was waiting for.
        """

        async def coroutine() -> Any:
            return await awaitable

        future = asyncio.run_coroutine_threadsafe(coroutine(), self._loop)
        try:
            return future.result(2 * PATIENCE)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise AssertionError(f"{awaitable} did not end") from None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a plain function returns on the loop's thread."""

        async def coroutine() -> Any:
            return function(*arguments)

        return self.wait_for(coroutine())

    def close(self) -> None:
        """End the loop, and fail the test if something went wrong in it."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the loop is still running"
        assert not self.errors, "\n".join(self.errors)


class Driven:
    """An asyncio face with the verbs of the blocking ones.

    A verb is called where it is called, and what it returns is awaited in the loop; in
    the loop's own thread, in a handler, sends are not awaited.

    Args:
        face: The server or client, or a group of it.
        loop: What turns it.
    """

    def __init__(self, face: Any, loop: LoopThread) -> None:
        vars(self).update(face=face, loop=loop)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.face, name)
        if not inspect.ismethod(found):
            return found
        return partial(self._call, found)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.face, name, value)

    def _call(self, verb: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        result = verb(*arguments, **options)
        match result:
            case AsyncStream() | AsyncGroupCall():
                return _Items(result, self.loop)
            case Group():
                return Driven(result, self.loop)
            case Awaitable() if not self.loop.is_here:
                return self.loop.wait_for(result)
            case Coroutine():
                result.close()
                raise AssertionError(f"{verb.__name__}() waits for its own thread")
        return result

    def __enter__(self) -> Driven:
        self.loop.wait_for(self.face.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self.loop.wait_for(self.face.__aexit__(*error))

    def __str__(self) -> str:
        return str(self.face)

    __repr__ = __str__

    def __len__(self) -> int:
        return len(self.face)

    def __bool__(self) -> bool:
        return bool(self.face)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.face)

    def __contains__(self, item: object) -> bool:
        return item in self.face

    def __eq__(self, other: object) -> Any:
        return self.face.__eq__(bare(other))

    def __hash__(self) -> int:
        return hash(self.face)

    def __lt__(self, other: object) -> Any:
        return self.face.__lt__(bare(other))

    def __le__(self, other: object) -> Any:
        return self.face.__le__(bare(other))

    def __gt__(self, other: object) -> Any:
        return self.face.__gt__(bare(other))

    def __ge__(self, other: object) -> Any:
        return self.face.__ge__(bare(other))


class _Items:
    """A stream or a group's call of an asyncio face, iterated without ``async``."""

    def __init__(self, items: Any, loop: LoopThread) -> None:
        self._items = items
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._items, name)

    def __iter__(self) -> _Items:
        return self

    def __next__(self) -> Any:
        try:
            return self._loop.wait_for(self._items.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> _Items:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Read no more."""
        if isinstance(self._items, AsyncStream):
            self._loop.wait_for(self._items.aclose())
        else:
            self._loop.call(self._items.close)


def bare(peer: Any) -> Any:
    """The real server or client."""
    return peer.face if isinstance(peer, Driven) else peer


@dataclass(frozen=True)
class Kind:
    """A face, and how it waits: blocking or not, or on which loop."""

    face: str
    waiting: str

    def __str__(self) -> str:
        return f"{self.face}_{self.waiting}"

    @property
    def blocking(self) -> bool:
        """Whether a turn waits."""
        return self.waiting == "blocking"

    @property
    def threaded(self) -> bool:
        """Whether it turns itself in a thread."""
        return self.face == "threaded"

    @property
    def is_async(self) -> bool:
        """Whether an asyncio loop turns it."""
        return self.face == "async"

    def loop(self) -> LoopThread | None:
        """A loop for peers of this kind, if they need one."""
        return LoopThread(self.waiting) if self.is_async else None

    def serve(
        self, address: Any, loop: LoopThread | None, **options: Any
    ) -> HiSockServer:
        """Make a server of this kind; nobody turns it yet, but a loop."""
        if loop is not None:
            server: Any = loop.call(partial(aio.start_server, address, **options))
            return cast(HiSockServer, Driven(loop.wait_for(server), loop))
        make = start_threaded_server if self.threaded else start_server
        return make(address, blocking=self.blocking, **options)

    def connect(
        self,
        address: Any,
        loop: LoopThread | None,
        handlers: Handlers | None,
        **options: Any,
    ) -> HiSockClient:
        """Make a client of this kind; nobody turns it yet, but a loop."""
        handlers = handlers or Handlers()
        if loop is not None:
            client: Any = loop.call(partial(aio.connect, address, **options))
            client.use(handlers)
            return cast(HiSockClient, Driven(loop.wait_for(client), loop))
        make = threaded_connect if self.threaded else connect
        made = make(address, blocking=self.blocking, **options)
        made.use(handlers)
        return made

    def turn(self, peer: Peer) -> Turning | None:
        """Have a peer turned, by its own thread or by one of the test's."""
        if isinstance(peer, ThreadedHiSockServer):
            peer.start_server()
        elif isinstance(peer, ThreadedHiSockClient):
            peer.start_client()
        elif not self.is_async:
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


KINDS: Final = (
    Kind("plain", "blocking"),
    Kind("plain", "nonblocking"),
    Kind("threaded", "blocking"),
    Kind("threaded", "nonblocking"),
    Kind("async", "asyncio"),
    Kind("async", "uvloop"),
)
