"""Real hisock 1.1 peers as processes, and ours beside them.

1.1 is found in ``.peers/hisock-1.1`` at the root of the repository, or in the folder
that ``HISOCK_1_1`` names:

    pip install --no-deps --target .peers/hisock-1.1 hisock==1.1

It is fragile: it reads a header and a body with one ``recv`` each, and one frame of a
client a turn. So nothing here sleeps, and the tests take one step after another, each
when what the step before caused was seen.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hisock import HiSockClient, ThreadedHiSockServer

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "tests" / "golden" / "agent.py"
INSTALL = "pip install --no-deps --target .peers/hisock-1.1 hisock==1.1"
HOST = "127.0.0.1"
DEADLINE = 10.0

#: A handler's name and its arguments, the clients among them as plain dictionaries.
Note = tuple[Any, ...]


class Process:
    """A Python with real hisock 1.1 on its path, outside the repository.

    Args:
        peer: The folder that holds hisock 1.1.
        folder: Where to run.
        program: What stands behind ``python``.
    """

    def __init__(self, peer: Path, folder: Path, *program: str) -> None:
        self._errors = folder / f"{os.urandom(4).hex()}.log"
        self._shown = 0
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": str(peer), "PYTHONUTF8": "1"},
                cwd=folder,
                text=True,
                encoding="utf-8",
            )

    def write_line(self, line: str) -> None:
        """Hand a line to the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def read_line(self) -> str:
        """Wait for a line of the process."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(DEADLINE, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
            watchdog.join()
        assert line, f"hisock 1.1 ended or never came back:\n{self.shown()}"
        return line

    def shown(self) -> str:
        """What hisock 1.1 printed since the last look."""
        text = self._errors.read_text(encoding="utf-8", errors="replace")
        new, self._shown = text[self._shown :], len(text)
        return new

    def end(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.communicate()


class Real(Process):
    """A real 1.1 server or client, which makes one call after another."""

    def __init__(self, peer: Path, folder: Path, role: str) -> None:
        super().__init__(peer, folder, str(AGENT), role)
        self.role = role
        self.port = 0
        self.is_busy = False

    def begin(self, call: str, *args: Any, **kwargs: Any) -> None:
        """Start a call that waits for what the test does next."""
        assert not self.is_busy
        self.is_busy = True
        order = {"call": call, "args": [_encode(arg) for arg in args], "kwargs": kwargs}
        self.write_line(json.dumps(order))

    def result(self) -> dict[str, Any]:
        """Wait for the call under way; ``handled``, ``returned`` or ``raised``."""
        result: dict[str, Any] = json.loads(self.read_line())
        self.is_busy = False
        return result

    def do(self, call: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Make a call."""
        self.begin(call, *args, **kwargs)
        return self.result()

    def handled(self) -> list[Note]:
        """Wait for the ``run`` or ``update`` under way: what its handlers got."""
        handled = self.result()["handled"]
        return [(one["handler"], *map(_decode, one["args"])) for one in handled]

    def turn(self) -> list[Note]:
        """One ``run`` or ``update``, which waits until something came."""
        self.begin("run" if self.role == "server" else "update")
        return self.handled()

    def meet(self, ours: Ours) -> list[Note]:
        """The turn in which our client joins, and the one that answers its probe: for
        that no handler runs, as if nothing had come."""
        notes = self.turn()
        if ours.probes:
            assert self.turn() == []
        return notes

    def receive(self) -> bytes:
        """``recv_raw``."""
        received: bytes = _decode(self.do("recv_raw")["returned"])
        return received

    def let_go(self) -> None:
        """Close its sockets, those of a server's clients too."""
        self.do("sock.close")
        if self.role == "server":
            for each in ("clients", "clients_rev", "_sockets_list"):
                self.do(f"{each}.clear")


class Room:
    """Our server in a thread, with what its handlers got in a queue."""

    def __init__(self, header_len: int, handlers: Iterable[str]) -> None:
        self.server = ThreadedHiSockServer((HOST, 0), header_len=header_len)
        self._notes: queue.SimpleQueue[Note] = queue.SimpleQueue()
        for name in handlers:
            self.server.on(name)(noter(name, self._notes.put))

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.server.addr[1]
        return port

    def take(self) -> Note:
        """Wait for the next handler and say what it got."""
        return self._notes.get(timeout=DEADLINE)

    def joined(self) -> dict[str, Any]:
        """Wait for ``join`` and say who it is."""
        event, info = self.take()
        assert event == "join"
        client: dict[str, Any] = info
        return client


class Ours:
    """Our client, with what its handlers got."""

    def __init__(
        self, port: int, header_len: int, handlers: Iterable[str], **who: str | None
    ) -> None:
        self.client = HiSockClient((HOST, port), header_len=header_len, **who)  # type: ignore[arg-type]  # name and group
        self.port = self.client.get_client_addr()[1]
        #: Whether its hello offers our own wire, which does not fit a short header.
        self.probes = header_len >= 4
        self._notes: list[Note] = []
        for name in handlers:
            self.client.on(name)(noter(name, self._notes.append))

    def turn(self) -> list[Note]:
        """One ``update``, which waits until a handler ran."""
        self._notes.clear()
        self.client.update()
        return list(self._notes)

    def receive(self) -> bytes:
        """``recv_raw``."""
        return self.client.recv_raw()

    def info(self, name: str | None, group: str | None) -> dict[str, Any]:
        """What others get to know of this client."""
        return {"ip": (HOST, self.port), "name": name, "group": group}


class Cast:
    """Opens what a test needs, and ends it afterwards."""

    def __init__(self, peer: Path, folder: Path, idle: list[Real]) -> None:
        self._peer = peer
        self._folder = folder
        self._idle = idle
        self._busy: list[Real] = []
        self._programs: list[Process] = []
        self._rooms: list[Room] = []
        self._ours: list[Ours] = []

    def room(self, header_len: int, *handlers: str) -> Room:
        """Our server, turning in its thread."""
        room = Room(header_len, handlers)
        self._rooms.append(room)
        room.server.start_server()
        return room

    def ours(
        self,
        port: int,
        header_len: int,
        *handlers: str,
        name: str | None = None,
        group: str | None = None,
    ) -> Ours:
        """Our client, connected."""
        ours = Ours(port, header_len, handlers, name=name, group=group)
        self._ours.append(ours)
        return ours

    def real_server(self, header_len: int, *handlers: str) -> Real:
        """A real server; `Real.turn` makes it run once."""
        real = self._real("server")
        started = real.do("start", HOST, handlers=handlers, header_len=header_len)
        real.port = started["returned"]
        return real

    def real_client(
        self,
        port: int,
        header_len: int,
        *handlers: str,
        name: str | None = None,
        group: str | None = None,
    ) -> Real:
        """A real client, connected."""
        real = self._real("client")
        who = {"name": name, "group": group}
        real.do("connect", port, handlers=handlers, header_len=header_len, **who)
        return real

    def program(self, source: str, *arguments: str) -> Process:
        """A program that imports real hisock 1.1."""
        process = Process(self._peer, self._folder, "-c", source, *arguments)
        self._programs.append(process)
        return process

    def _real(self, role: str) -> Real:
        real = next((one for one in self._idle if one.role == role), None)
        if real is None:
            real = Real(self._peer, self._folder, role)
        else:
            self._idle.remove(real)
        self._busy.append(real)
        return real

    def end(self) -> None:
        """End what was opened; processes that wait for orders may serve again."""
        for program in self._programs:
            program.end()
        for real in self._busy:
            if real.is_busy:
                real.end()
                continue
            real.let_go()
            self._idle.append(real)
        for ours in self._ours:
            ours.client.close()
        for room in self._rooms:
            room.server.stop_server()
            room.server.join()


def noter(name: str, note: Callable[[Note], None]) -> Callable[..., None]:
    """A handler that notes its name and its arguments, as they are now."""

    def handler(*arguments: Any) -> None:
        copies = (dict(one) if isinstance(one, dict) else one for one in arguments)
        note((name, *copies))

    return handler


def _encode(value: Any) -> Any:
    """Make JSON of an argument; bytes become ``{"bytes": latin-1 text}``."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"bytes"}:
        return value["bytes"].encode("latin-1")
    if isinstance(value, dict) and "ip" in value:
        return {**value, "ip": tuple(value["ip"])}
    return value


def _find_peer(environment: Mapping[str, str]) -> Path:
    """The folder with hisock 1.1; skips without it, but fails in CI."""
    peer = Path(environment.get("HISOCK_1_1") or ROOT / ".peers" / "hisock-1.1")
    if (peer / "hisock" / "__init__.py").is_file():
        return peer.resolve()
    reason = f"no real hisock 1.1 in {peer}; install it there: {INSTALL}"
    if environment.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def peer() -> Path:
    """The folder with real hisock 1.1."""
    return _find_peer(os.environ)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where real peers run: not in the repository, whose hisock they must not find."""
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="session")
def idle(peer: Path) -> Iterator[list[Real]]:
    """Processes that wait for orders, kept from test to test."""
    processes: list[Real] = []
    yield processes
    for each in processes:
        each.end()


@pytest.fixture
def cast(peer: Path, folder: Path, idle: list[Real]) -> Iterator[Cast]:
    """Everything a test needs."""
    them = Cast(peer, folder, idle)
    yield them
    them.end()


@pytest.fixture(params=(2, 8, 16, 64), ids="header_len={}".format)
def header_len(request: pytest.FixtureRequest) -> int:
    """The lengths of header to try."""
    length: int = request.param
    return length
