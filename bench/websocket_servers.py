"""A WebSocket server of each of four libraries: sends back, counts, sends to everybody.

All on the loop of the standard library, without compression and their own pings.
``python-socketio`` runs under aiohttp, as its documentation begins.
"""

from __future__ import annotations

__all__ = ("BODY", "CONTENT", "LIBRARIES", "TEXT", "WARM", "Library", "Task")

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.frames import Opcode

from bench.websocket_raw import SIZE, Mouth
from hisock import ClientInfo, HiSockServer, start_server

#: Our messages: an array of kind, command and content.
CONTENT = b"x" * (SIZE - 9)
BODY = b"x" * SIZE
TEXT = "x" * (SIZE - len('42["move",""]'))
#: Connections before those that are weighed.
WARM = 20


#: Clients that are ended are no news.
_silent = logging.Logger("silent", logging.CRITICAL + 1)


class Task:
    """What a server has to do, and when it is done.

    Args:
        pipe: Gets the figure.
        amount: Messages to count, or connections to weigh.
        weighs: Whether it is connections.
    """

    def __init__(self, pipe: Connection, amount: int, *, weighs: bool) -> None:
        self._pipe = pipe
        self._amount = amount
        self._weighs = weighs
        self._count = self._connected = self._before = 0
        self._began = 0.0
        self.is_done = False
        #: Ends the server.
        self.finish: Callable[[], object] = lambda: None

    def listen(self, port: int) -> None:
        """Tell where the server is."""
        self._pipe.send(port)

    def note(self) -> None:
        """A message came."""
        if not self._count:
            self._began = time.perf_counter()
        self._count += 1
        if self._count == self._amount:
            self._tell(self._amount / (time.perf_counter() - self._began))

    def connected(self) -> None:
        """Somebody is here."""
        self._connected += 1
        if not self._weighs:
            return
        if self._connected == WARM:
            self._before = _resident()
        elif self._connected == WARM + self._amount:
            taken = max(1, _resident() - self._before)
            self._tell(self._amount / (taken / 2**20))

    def _tell(self, figure: float) -> None:
        self._pipe.send(figure)
        self.is_done = True
        self.finish()


def _resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def hisock_server(task: Task) -> None:
    """Handlers, with sessions; turned by ``run``."""
    server: HiSockServer = start_server(("127.0.0.1", 0), roster=False)

    @server.on("join")
    def join(client: ClientInfo) -> None:
        task.connected()

    @server.on("move")
    def move(client: ClientInfo, message: bytes) -> None:
        task.note()

    @server.on("echo")
    def echo(client: ClientInfo, message: bytes) -> None:
        server.send_client(client, "echo", message)

    @server.on("go")
    def go(client: ClientInfo) -> None:
        server.send_group("crowd", "move", CONTENT)

    task.listen(server.addr[1])
    while not task.is_done:
        server.run()
    server.close()


def websockets_server(task: Task) -> None:
    """``websockets.asyncio``, with its ``broadcast``."""
    everybody: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        task.connected()
        assert connection.request is not None
        if connection.request.path == "/move":
            async for _ in connection:
                task.note()
        elif connection.request.path == "/go":
            everybody.add(connection)
            async for _ in connection:
                everybody.discard(connection)
                broadcast(everybody, BODY)
        else:
            async for message in connection:
                await connection.send(message)

    async def main() -> None:
        options: Any = {"compression": None, "ping_interval": None, "logger": _silent}
        async with serve(handle, "127.0.0.1", 0, **options) as server:
            task.listen(server.sockets[0].getsockname()[1])
            await _finished(task)

    asyncio.run(main())


def picows_server(task: Task) -> None:
    """``picows``: a callback for each frame, in C."""
    picows = import_module("picows")
    everybody: set[Any] = set()
    binary = picows.WSMsgType.BINARY

    def on_ws_connected(listener: Any, transport: Any) -> None:
        task.connected()
        if listener.path == b"/go":
            everybody.add(transport)

    def on_move(listener: Any, transport: Any, frame: Any) -> None:
        frame.get_payload_as_bytes()
        task.note()

    def on_echo(listener: Any, transport: Any, frame: Any) -> None:
        transport.send(binary, frame.get_payload_as_bytes())

    def on_go(listener: Any, transport: Any, frame: Any) -> None:
        everybody.discard(transport)
        for other in everybody:
            other.send(binary, BODY)

    ways = {b"/move": on_move, b"/echo": on_echo, b"/go": on_go}
    kinds = {
        path: type(
            "Listener",
            (picows.WSListener,),
            {"path": path, "on_ws_connected": on_ws_connected, "on_ws_frame": way},
        )
        for path, way in ways.items()
    }

    async def main() -> None:
        server = await picows.ws_create_server(
            lambda request: kinds[request.path](), "127.0.0.1", 0
        )
        task.listen(server.sockets[0].getsockname()[1])
        await _finished(task)
        server.close()

    asyncio.run(main())


def socketio_server(task: Task) -> None:
    """``python-socketio`` under aiohttp, without polling."""
    socketio, web = import_module("socketio"), import_module("aiohttp.web")
    server = socketio.AsyncServer(
        async_mode="aiohttp", transports=["websocket"], ping_interval=3600
    )

    @server.event  # type: ignore[untyped-decorator]  # it may be absent
    async def connect(sid: str, environ: Any) -> None:
        await server.enter_room(sid, "crowd")
        task.connected()

    @server.event  # type: ignore[untyped-decorator]  # as above
    async def move(sid: str, message: str) -> None:
        task.note()

    @server.event  # type: ignore[untyped-decorator]  # as above
    async def echo(sid: str, message: str) -> None:
        await server.emit("echo", message, to=sid)

    @server.event  # type: ignore[untyped-decorator]  # as above
    async def go(sid: str) -> None:
        await server.leave_room(sid, "crowd")
        await server.emit("move", TEXT, room="crowd")

    async def main() -> None:
        app = web.Application()
        server.attach(app)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        task.listen(runner.addresses[0][1])
        await _finished(task)

    asyncio.run(main())


async def _finished(task: Task) -> None:
    done = asyncio.Event()
    task.finish = done.set
    with suppress(asyncio.CancelledError):
        await done.wait()


@dataclass(frozen=True, slots=True)
class Library:
    """One of the four.

    Attributes:
        name: As it is installed.
        serve: Its server.
        mouths: How its server is spoken to: to be counted, sent back, sent to all.
        needs: Packages without which it cannot be measured.
    """

    name: str
    serve: Callable[[Task], None]
    mouths: dict[str, Mouth]
    needs: tuple[str, ...] = ()

    def run(self, pipe: Connection, amount: int, *, weighs: bool = False) -> None:
        """Serve, as one end of a measurement."""
        self.serve(Task(pipe, amount, weighs=weighs))


def _packed(command: bytes, content: bytes) -> bytes:
    name = bytes((0xA0 + len(command),)) + command
    return b"\x93\x01" + name + b"\xc4" + bytes((len(content),)) + content


def _ours() -> dict[str, Mouth]:
    go = _packed(b"go", b"")
    return {
        name: Mouth("/", Opcode.BINARY, _packed(name.encode(), CONTENT), go, True)
        for name in ("move", "echo", "go")
    }


def _by_path() -> dict[str, Mouth]:
    return {
        name: Mouth(f"/{name}", Opcode.BINARY, BODY, b"go")
        for name in ("move", "echo", "go")
    }


def _socketio() -> dict[str, Mouth]:
    path = "/socket.io/?EIO=4&transport=websocket"
    return {
        name: Mouth(path, Opcode.TEXT, f'42["{name}","{TEXT}"]'.encode(), b'42["go"]')
        for name in ("move", "echo", "go")
    }


LIBRARIES = {
    library.name: library
    for library in (
        Library("hisock", hisock_server, _ours()),
        Library("websockets", websockets_server, _by_path()),
        Library("picows", picows_server, _by_path(), ("picows",)),
        Library(
            "python-socketio", socketio_server, _socketio(), ("socketio", "aiohttp")
        ),
    )
}
