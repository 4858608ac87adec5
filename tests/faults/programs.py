"""Servers and clients in processes of their own, that signals may reach."""

from __future__ import annotations

__all__ = ("AioCounter", "Counter", "Program", "is_refused")

import asyncio
import contextlib
import json
import queue
import signal
import socket
import subprocess
import sys
import threading
from typing import Any, Final, Self

from tests.faults.raw import HOST, PATIENCE, Where, eventually

from hisock import aio, threaded_connect
from hisock.errors import ClientDisconnected, SessionLost

#: Seconds for a process to start, or to end.
SLOW: Final = 15.0

#: Numbers what it handles; says its port, when it has handled ``half``, and at the end
#: everything.
_SERVER: Final = """
import asyncio, json, signal, sys, threading
from hisock import aio, start_server, start_threaded_server
face, port, half, options = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(
    sys.argv[4])
handled = []
def say(what):
    sys.stdout.write(json.dumps(what) + "\\n")
    sys.stdout.flush()
def prepare(server):
    @server.on("it")
    def it(client, number):
        handled.append(number)
        if len(handled) == half:
            say("half")
        server.send_client(client, "seen", number)
    @server.on("held", threaded=True)
    def held(client, number):
        say("held")
        while True:
            threading.Event().wait(10)
    @server.on("leave")
    def leave(client):
        say(["leave", client["name"]])
    @server.on_drop
    def drop(client):
        say(["drop", client["name"]])
    @server.on_resume
    def resume(client):
        say(["resume", client["name"]])
    @server.on_error
    def error(error):
        say(["error", error.code, [m.content for m in getattr(error, "sent", ())]])
    @server.on("names")
    def names(client):
        return [each["name"] for each in server]
    return server
address = "127.0.0.1", port
if face == "aio":
    async def main():
        server = await prepare(aio.start_server(address, **options))
        say(server.addr[1])
        await server.run_forever()
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
elif face == "threaded":
    server = prepare(start_threaded_server(address, **options))
    with server:
        say(server.addr[1])
        threading.Event().wait()
else:
    server = prepare(start_server(address, **options))
    def close(number, frame):
        server.close(drain=5, reconnect=True)
    signal.signal(signal.SIGTERM, close)
    say(server.addr[1])
    server.run_forever()
say(handled)
"""

#: Joins under the name it is given, and then sends until somebody stops it.
_CLIENT: Final = """
import sys
from hisock import connect
client = connect(("127.0.0.1", int(sys.argv[1])), sys.argv[2])
number = 0
while True:
    client.send("it", number)
    number += 1
    client.update(timeout=0)
"""


class Program:
    """A process that says what it does, one line of JSON each.

    Args:
        source: What it runs.
        arguments: What it gets.
    """

    def __init__(self, source: str, *arguments: object) -> None:
        command = [sys.executable, "-c", source, *map(str, arguments)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._listen),
            threading.Thread(target=self._listen_to_errors),
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def server(
        cls, face: str = "plain", port: int = 0, *, half: int = 0, **options: Any
    ) -> Program:
        """A server of that face."""
        return cls(_SERVER, face, port, half, json.dumps(options))

    @classmethod
    def client(cls, port: int, name: str) -> Program:
        """A client that sends all the time."""
        return cls(_CLIENT, port, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(SLOW)
        for thread in self._threads:
            thread.join(SLOW)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(json.loads(line))

    def _listen_to_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors += list(self.process.stderr)

    def next(self) -> Any:
        """What it says next."""
        try:
            return self._said.get(timeout=SLOW)
        except queue.Empty:
            raise AssertionError(f"it says nothing; {''.join(self._errors)}") from None

    def until(self, what: Any) -> list[Any]:
        """Wait until it says something; all it said before that."""
        before = []
        while (said := self.next()) != what:
            before.append(said)
        return before

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for its end; its exit code, and what it wrote to stderr."""
        code = self.process.wait(SLOW)
        for thread in self._threads:
            thread.join(SLOW)
        return code, "".join(self._errors)

    def rest(self) -> list[Any]:
        """All that it has said and nobody has heard yet, once it has ended."""
        said = []
        with contextlib.suppress(queue.Empty):
            while True:
                said.append(self._said.get_nowait())
        return said


def is_refused(address: Where) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(address, PATIENCE).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


class Counter:
    """A client in a thread that sends numbers, and what became of them."""

    def __init__(self, port: int, name: str = "ann", **options: Any) -> None:
        self.client = threaded_connect((HOST, port), name, **options)
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.lost: list[SessionLost] = []
        self.seen: list[int] = []
        self.sent = 0
        self.client.on("seen")(self._see)
        self.client.on("force_disconnect")(lambda: self.events.put("end"))
        self.client.on_drop(lambda: self.events.put("drop"))
        self.client.on_resume(lambda: self.events.put("resume"))
        self.client.on_session_lost(self._lose)

    def _see(self, number: int) -> None:
        self.seen.append(number)

    def _lose(self, lost: SessionLost) -> None:
        self.lost.append(lost)
        self.events.put("lost")

    @property
    def unacked(self) -> list[int]:
        """The numbers that were reported, in order."""
        return [m.content for lost in self.lost for m in lost.unacked]

    def send(self, count: int) -> None:
        """Send so many more."""
        for _ in range(count):
            self.client.send("it", self.sent)
            self.sent += 1

    def say(self, command: str, content: Any) -> None:
        """Send something else."""
        self.client.send(command, content)

    def expect(self, numbers: range) -> None:
        """Wait until just these answers have come."""
        eventually(lambda: self.seen == list(numbers), f"{numbers}", within=SLOW)

    def next(self) -> Any:
        """What it is told next of its link and session."""
        return self.events.get(timeout=SLOW)

    def __enter__(self) -> Self:
        self.client.start_client()
        return self

    def __exit__(self, *error: object) -> None:
        self.client.stop_client()
        self.client.join()


class AioCounter(Counter):
    """The same in an asyncio loop."""

    def __init__(self, port: int, name: str = "ann", **options: Any) -> None:
        self._address = (HOST, port)
        self._name, self._options = name, options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.events = queue.SimpleQueue()
        self.lost = []
        self.seen = []
        self.sent = 0

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SLOW)

    async def _start(self) -> None:
        client = aio.connect(self._address, self._name, **self._options)
        self.client = client  # type: ignore[assignment]  # the same verbs, awaited
        client.on("seen")(self._see)
        client.on("force_disconnect")(lambda: self.events.put("end"))
        client.on_drop(lambda: self.events.put("drop"))
        client.on_resume(lambda: self.events.put("resume"))
        client.on_session_lost(self._lose)
        await client

    async def _send(self, count: int) -> None:
        for _ in range(count):
            sent: Any = self.client.send("it", self.sent)  # type: ignore[func-returns-value]  # awaitable here
            self.sent += 1
            await sent

    def send(self, count: int) -> None:
        """Send so many more."""
        self._wait(self._send(count))

    async def _say(self, command: str, content: Any) -> None:
        sent: Any = self.client.send(command, content)  # type: ignore[func-returns-value]  # awaitable here
        await sent

    def say(self, command: str, content: Any) -> None:
        """Send something else."""
        self._wait(self._say(command, content))

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self._start())
        return self

    def __exit__(self, *error: object) -> None:
        closing: Any = self.client.close
        with contextlib.suppress(ClientDisconnected):
            self._wait(closing())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SLOW)
        self._loop.close()
