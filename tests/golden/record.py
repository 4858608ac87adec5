"""Record what hisock 1.1 says on the wire: ``python record.py --peer DIR``.

``DIR`` is a folder that holds the real thing: ``pip install --target DIR hisock==1.1``.
Each scenario is played three times. First a real client talks to a real server through
this program, which keeps every byte: that is the recording. Then a real server alone is
given the recorded client bytes, and a real client alone the recorded server bytes; both
must answer the same, or the recording is refused. Nothing here sleeps: each step waits
for the bytes, or for the handler, that it causes.

This program must never import the hisock that is being built.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Object: TypeAlias = dict[str, Json]

HEADER_LENGTHS = (2, 8, 16, 64)
DEADLINE = 10.0
HOST = "127.0.0.1"
SERVER = "server"
HERE = Path(__file__).resolve().parent


# ── The scenarios ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Call:
    """One call on one side and the frames it causes, in order.

    A frame is written ``"A>"`` (client A to the server) or ``"A<"`` (the server to
    client A); a number after it is the size of a token sent without a header.
    """

    who: str
    call: str
    args: tuple[str | bytes | None, ...] = ()
    kwargs: Mapping[str, str] = field(default_factory=dict)
    frames: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A conversation: which handlers exist, and who calls what."""

    about: str
    server_handlers: tuple[str, ...]
    client_handlers: tuple[str, ...]
    calls: tuple[Call, ...]
    real: frozenset[str] = frozenset({"client", SERVER})


def _joins(who: str, name: str, group: str, others: str = "") -> tuple[Call, ...]:
    return (
        Call(who, "connect", kwargs={"name": name, "group": group}, frames=f"{who}>"),
        Call(SERVER, "run", frames=others),
    )


def _leaves(who: str, others: str = "") -> tuple[Call, ...]:
    return (
        Call(who, "close", frames=f"{who}>"),
        Call(SERVER, "run", frames=others),
    )


_ANN = _joins("A", "ann", "red")
_BEN = _joins("B", "ben", "red", "A<")
_RUN = Call(SERVER, "run")


def _client_says(call: str, *args: str | bytes) -> tuple[Call, ...]:
    return (Call("A", call, args, frames="A>"), _RUN)


def _server_says(call: str, *args: str | bytes, read: str) -> tuple[Call, ...]:
    return (Call(SERVER, call, args, frames="A<"), Call("A", read))


def _asks(who: str) -> tuple[Call, ...]:
    return (
        Call("A", "get_client", (who,), frames="A>"),
        Call(SERVER, "run", frames="A<"),
    )


_BINARY = b"\x00\x01 \r\n$ \x7f\x80caf\xe9\xff"

SCENARIOS: Mapping[str, Scenario] = {
    "join_named": Scenario(
        "A client joins with a name and a group, and closes.",
        ("join", "leave"),
        (),
        _ANN + _leaves("A"),
    ),
    "join_nameless": Scenario(
        "A client joins with neither name nor group, and closes.",
        ("join", "leave"),
        (),
        (Call("A", "connect", frames="A>"), _RUN, *_leaves("A")),
    ),
    "join_unicode": Scenario(
        "Names beyond ASCII: JSON escapes in the hello, UTF-8 in a change of name.",
        ("join", "leave", "name_change"),
        (),
        _joins("A", "Žofia", "rød")
        + _client_says("change_name", "Øyvind")
        + _asks("Øyvind")
        + _leaves("A"),
    ),
    "commands": Scenario(
        "Commands each way: text, empty and binary content, and one with spaces.",
        ("greet", "message"),
        ("greet",),
        _ANN
        + _client_says("send", "greet", b"hello server")
        + _client_says("send", "greet", b"")
        + _client_says("send", "greet", _BINARY)
        + _server_says("send_client", "ann", "greet", b"hello client", read="update")
        + _server_says("send_client", "ann", "greet", b"", read="update")
        + _server_says("send_client", "ann", "greet", _BINARY, read="update")
        + _server_says(
            "send_client", "127.0.0.1:{port:A}", "greet", b"by address", read="update"
        )
        + _leaves("A"),
    ),
    "raw": Scenario(
        "Messages without a command each way, empty and binary ones among them.",
        ("message",),
        (),
        _ANN
        + _client_says("raw_send", b"raw")
        + _client_says("raw_send", b"")
        + _client_says("raw_send", _BINARY)
        + _server_says("send_client_raw", "ann", b"raw", read="recv_raw")
        + _server_says("send_client_raw", "ann", b"", read="recv_raw")
        + _server_says("send_client_raw", "ann", _BINARY, read="recv_raw")
        + _leaves("A"),
    ),
    "to_many": Scenario(
        "The server sends to a group, raw to a group, and to everybody.",
        (),
        ("news", "client_connect", "client_disconnect"),
        _ANN
        + _joins("B", "ben", "blue", "A<")
        + (Call("A", "update"),)
        + _server_says("send_group", "red", "news", b"for red", read="update")
        + _server_says("send_group_raw", "red", b"raw for red", read="recv_raw")
        + (
            Call(SERVER, "send_all_clients", ("news", b"for all"), frames="A< B<"),
            Call("A", "update"),
            Call("B", "update"),
        )
        + (Call("B", "change_group", ("red",), frames="B>"), _RUN)
        + (
            Call(SERVER, "send_group", ("red", "news", b"for both"), frames="A< B<"),
            Call("A", "update"),
            Call("B", "update"),
            Call(SERVER, "send_group_raw", ("red", b"raw, both"), frames="A< B<"),
            Call("A", "recv_raw"),
            Call("B", "recv_raw"),
        )
        + _leaves("A", "B<")
        + (Call("B", "update"),)
        + _leaves("B"),
    ),
    "change": Scenario(
        "A client changes its name and its group to other values.",
        ("name_change", "group_change", "leave"),
        (),
        _ANN
        + _client_says("change_name", "anna")
        + _client_says("change_group", "dark red")
        + _leaves("A"),
    ),
    "change_to_none": Scenario(
        "A client drops its name and its group: bare tokens, without a header. "
        "A real server breaks on them, so only the client is real here.",
        (),
        (),
        (
            Call("A", "connect", kwargs={"name": "ann", "group": "red"}, frames="A>"),
            Call("A", "change_name", (None,), frames="A>8"),
            Call("A", "change_group", (None,), frames="A>9"),
            Call("A", "change_name", ("anna",), frames="A>"),
            Call("A", "close", frames="A>"),
        ),
        frozenset({"client"}),
    ),
    "get_client": Scenario(
        "A client asks about clients: by name, by address, unknown ones, and with an "
        "impossible port, whose answer lacks its closing brace.",
        (),
        ("client_connect", "client_disconnect"),
        _ANN
        + _BEN
        + (Call("A", "update"),)
        + _asks("ben")
        + _asks("127.0.0.1:{port:B}")
        + _asks("nobody")
        + _asks("127.0.0.1:99999")
        + _leaves("B", "A<")
        + (Call("A", "update"),)
        + _leaves("A"),
    ),
    "others": Scenario(
        "Two clients: the first hears of the second one's join and leave.",
        ("join", "leave"),
        ("client_connect", "client_disconnect"),
        _ANN
        + _BEN
        + (Call("A", "update"),)
        + (Call("B", "change_name", ("benno",), frames="B>"), _RUN)
        + _leaves("B", "A<")
        + (Call("A", "update"),)
        + (Call("B", "connect", frames="B>"), Call(SERVER, "run", frames="A<"))
        + (Call("A", "update"),)
        + _leaves("B", "A<")
        + (Call("A", "update"),)
        + _leaves("A"),
    ),
    "disconnect_client": Scenario(
        "The server disconnects one of two clients, which says goodbye in turn.",
        ("leave",),
        ("force_disconnect", "client_connect", "client_disconnect"),
        _ANN
        + _BEN
        + (Call("A", "update"),)
        + (
            Call(SERVER, "disconnect_client", ("ben",), frames="B<"),
            Call("B", "update", frames="B>"),
            Call(SERVER, "run", frames="A<"),
            Call("A", "update"),
        )
        + _leaves("A"),
    ),
    "disconnect_all_clients": Scenario(
        "The server disconnects everybody; both say goodbye in turn.",
        ("leave",),
        ("force_disconnect", "client_connect", "client_disconnect"),
        _ANN
        + _BEN
        + (Call("A", "update"),)
        + (
            Call(SERVER, "disconnect_all_clients", frames="A< B<"),
            Call("A", "update", frames="A>"),
            Call(SERVER, "run", frames="B<"),
            Call("B", "update", frames="B>"),
            Call(SERVER, "run"),
        ),
    ),
    "close_server": Scenario(
        "The server closes; it no longer listens to the goodbye of its client.",
        ("leave",),
        ("force_disconnect",),
        (
            *_ANN,
            Call(SERVER, "close", frames="A<"),
            Call("A", "update", frames="A>"),
        ),
    ),
    "tls_probe": Scenario(
        "A client asks for TLS, which the server does not have, and goes on without.",
        ("greet",),
        (),
        (
            *_ANN,
            Call("A", "tls.enable", frames="A>"),
            Call(SERVER, "run", frames="A<"),
            *_client_says("send", "greet", b"in clear"),
            *_leaves("A"),
        ),
    ),
}

# Calls that return only after the other side has answered.
_WAITS_FOR_ANSWER = frozenset({"get_client", "tls.enable"})


# ── Playing one, from outside ────────────────────────────────────────────────────────


class Agent:
    """A process that runs one real 1.1 server or client and does what it is told."""

    def __init__(self, role: str, peer: Path, folder: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(peer), "PYTHONUTF8": "1"}
        self._busy = False
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "agent.py"), role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            text=True,
            encoding="utf-8",
        )

    def begin(self, call: str, args: Sequence[Json], kwargs: Object) -> None:
        """Start a call; its result is fetched with `result`."""
        if self._busy:
            self.result()
        assert self._process.stdin is not None
        order = {"call": call, "args": list(args), "kwargs": kwargs}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._busy = True

    def result(self) -> Object:
        """Wait for the call under way and say what came of it."""
        if not self._busy:
            return {}
        assert self._process.stdout is not None
        watchdog = threading.Timer(DEADLINE, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        self._busy = False
        if not line:
            raise RuntimeError("hisock 1.1 did not come back from a call")
        result: Object = json.loads(line)
        return result

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()


class Stage:
    """Plays one scenario once, with the real sides real and the others played."""

    def __init__(
        self, scenario: Scenario, header_len: int, peer: Path, real: frozenset[str]
    ) -> None:
        self._scenario = scenario
        self._header_len = header_len
        self._peer = peer
        self._real = real
        self._agents: dict[str, Agent] = {}
        self._to_client: dict[str, socket.socket] = {}
        self._to_server: dict[str, socket.socket] = {}
        self._all: list[socket.socket] = []
        self._ports: dict[str, int] = {}
        self._server_port = 0
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._folder = self._exit.enter_context(tempfile.TemporaryDirectory())
        self._listener = self._exit.enter_context(socket.create_server((HOST, 0)))
        self._listener.settimeout(DEADLINE)
        if SERVER in self._real:
            agent = self._start(SERVER, SERVER)
            agent.begin("start", (HOST,), self._options(SERVER))
            self._server_port = int(str(agent.result()["returned"]))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for agent in self._agents.values():
            agent.end()
        for each in self._all:
            each.close()
        self._exit.close()

    def play(self, reference: Sequence[Object] | None) -> list[Object]:
        """Play all calls and return the steps; played sides follow ``reference``."""
        steps: list[Object] = []
        for call in self._scenario.calls:
            side = SERVER if call.who == SERVER else "client"
            if side in self._real:
                self._begin(call)
            elif call.call == "connect":
                self._connect_played(call.who)
            action = self._describe(call, side)
            known = reference[len(steps)] if reference is not None else None
            place = len(steps)
            steps.append({"action": action})
            for mark in call.frames.split():
                said = reference[len(steps)] if reference is not None else None
                steps.append(self._pass_on(mark, said))
            if side in self._real:
                if call.call not in _WAITS_FOR_ANSWER:
                    self._note(action, self._agents[call.who].result())
            elif known is not None:
                steps[place] = known
        self._check_nothing_left()
        return steps

    def _begin(self, call: Call) -> None:
        if call.call == "connect":
            agent = self._start(call.who, "client")
            address = self._listener.getsockname()[1]
            agent.begin(
                "connect", [address], {**self._options("client"), **call.kwargs}
            )
            self._connect_real(call.who)
            return
        filled = [self._fill(arg) if isinstance(arg, str) else arg for arg in call.args]
        args = [_encode(arg) for arg in filled]
        self._agents[call.who].begin(call.call, args, dict(call.kwargs))

    def _start(self, who: str, role: str) -> Agent:
        if who in self._agents:
            self._agents[who].end()
        self._agents[who] = Agent(role, self._peer, self._folder)
        return self._agents[who]

    def _options(self, side: str) -> Object:
        scenario = self._scenario
        handlers = (
            scenario.server_handlers if side == SERVER else scenario.client_handlers
        )
        return {"handlers": list(handlers), "header_len": self._header_len}

    def _connect_real(self, who: str) -> None:
        connection, address = self._listener.accept()
        self._to_client[who] = self._keep(connection)
        self._ports[who] = address[1]
        if SERVER in self._real:
            self._connect_played(who)

    def _connect_played(self, who: str) -> None:
        address = (HOST, self._server_port)
        connection = socket.create_connection(address, DEADLINE)
        self._to_server[who] = self._keep(connection)
        self._ports[who] = connection.getsockname()[1]

    def _keep(self, connection: socket.socket) -> socket.socket:
        connection.settimeout(DEADLINE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._all.append(connection)
        return connection

    def _pass_on(self, mark: str, said: Object | None) -> Object:
        who, from_client, bare = mark[0], mark[1] == ">", int(mark[2:] or 0)
        sender = "client" if from_client else SERVER
        source = (self._to_client if from_client else self._to_server).get(who)
        target = (self._to_server if from_client else self._to_client).get(who)
        if sender in self._real:
            assert source is not None
            data = self._read_frame(source, bare)
        else:
            assert said is not None
            data = self._fill(str(said["bytes"])).encode("latin-1")
        if target is not None:
            target.sendall(data)
        text = self._blank(data.decode("latin-1"))
        return {"client": who, "from": sender, "bytes": text}

    def _read_frame(self, source: socket.socket, bare: int) -> bytes:
        if bare:
            return _read(source, bare)
        header = _read(source, self._header_len)
        return header + _read(source, int(header))

    def _fill(self, text: str) -> str:
        """Put the real ports of this run where a placeholder stands."""
        for who, port in self._ports.items():
            text = text.replace(f"{{port:{who}}}", str(port))
        return text

    def _blank(self, text: str) -> str:
        """Put a placeholder where a port of this run stands."""
        for who, port in self._ports.items():
            # The length header counts five digits; ephemeral ports have them.
            assert 10000 <= port <= 65535, f"port {port} has not five digits"
            text = text.replace(str(port), f"{{port:{who}}}")
        return text

    def _describe(self, call: Call, side: str) -> Object:
        action: Object = {"side": side}
        if side == "client":
            action["client"] = call.who
        action["call"] = call.call
        if call.args:
            action["args"] = [_encode(arg) for arg in call.args]
        if call.kwargs:
            action["kwargs"] = dict(call.kwargs)
        return action

    def _note(self, action: Object, result: Object) -> None:
        for key, value in result.items():
            action[key] = self._blank_ports(value)

    def _blank_ports(self, value: Json) -> Json:
        if isinstance(value, dict):
            return {key: self._blank_ports(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._blank_ports(each) for each in value]
        if isinstance(value, str) or value in self._ports.values():
            return self._blank(str(value))
        return value

    def _check_nothing_left(self) -> None:
        """Refuse a recording that misses bytes."""
        for agent in self._agents.values():
            with contextlib.suppress(RuntimeError):
                agent.result()
            agent.end()
        for each in self._all:
            with contextlib.suppress(ConnectionError):
                left = each.recv(65536)
                assert not left, f"unexpected bytes: {left!r}"


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        assert more, f"the connection ended after {data!r}, {size} bytes were expected"
        data += more
    return data


def _encode(value: str | bytes | None) -> Json:
    """Make JSON of an argument; bytes become ``{"bytes": latin-1 text}``."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    return value


def record(name: str, header_len: int, peer: Path) -> str:
    """Play a scenario in all ways its real sides allow; return the file's text."""
    scenario = SCENARIOS[name]
    both = frozenset({"client", SERVER})
    with Stage(scenario, header_len, peer, scenario.real) as stage:
        steps = stage.play(None)
    if scenario.real == both:
        for side in sorted(both):
            with Stage(scenario, header_len, peer, frozenset({side})) as stage:
                again = stage.play(steps)
            for one, other in zip(steps, again, strict=True):
                assert one == other, f"{name}: {side} alone differs: {one} {other}"
    head: Object = {
        "scenario": name,
        "about": scenario.about,
        "hisock": "1.1",
        "header_len": header_len,
        "recorded_from": [*sorted(scenario.real)],
        "handlers": {
            "client": list(scenario.client_handlers),
            "server": list(scenario.server_handlers),
        },
    }
    lines = [
        f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()
    ]
    body = ",\n".join(f"    {json.dumps(step)}" for step in steps)
    return "\n".join(["{", *lines, '  "steps": [', body, "  ]", "}", ""])


def main() -> None:
    """Record every scenario with every header length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peer", type=Path, required=True, help="folder with hisock 1.1"
    )
    parser.add_argument("--into", type=Path, default=HERE / "recordings")
    options = parser.parse_args()
    options.into.mkdir(exist_ok=True)
    for name in SCENARIOS:
        for header_len in HEADER_LENGTHS:
            text = record(name, header_len, options.peer.resolve())
            path = options.into / f"{name}-{header_len}.json"
            path.write_text(text, encoding="utf-8", newline="\n")
            print(path.name)


if __name__ == "__main__":
    main()
