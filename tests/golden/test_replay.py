"""Every recording of real 1.1 peers, replayed against our server and our client.

The test plays the recorded bytes of one side on raw sockets; ours has to write the
other side's, byte for byte, and hand the same to its handlers. Where ours differs on
purpose, `DIFFERENCES` says so, and why; nothing else may.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pytest

from hisock import HiSockClient, ThreadedHiSockServer
from hisock.errors import ClientDisconnected, Refused, UnknownClient

from . import Action, Frame, Handled, Recording, Side, fill, load, recordings

pytestmark = pytest.mark.timeout(20)

HOST = "127.0.0.1"
DEADLINE = 5.0
HEADER_LENGTHS = (2, 8, 16, 64)
BARE_TOKENS = ("$CHNAME$", "$CHGROUP$")
#: What a client writes for which no handler of a server runs.
QUESTIONS = ("$GETCLT$ ", "$DH_NUMS$")
HELLO = b"$CLTHELLO$ "
#: What our hello says beyond 1.1's, which ignores it.
OFFER = {
    *("proto", "now"),
    *("sid", "token", "next", "got", "epoch", "window", "beats"),
}
#: Bytes of a header that has room for such a hello's length.
ROOM_FOR_OFFER = 4
#: Of all else a client writes, one of these or the command's own handler tells.
SERVER_EVENTS = ("join", "leave", "name_change", "group_change")

ANN = {"ip": ["127.0.0.1", "{port:A}"], "name": "ann", "group": "red"}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that our side does otherwise than 1.1.

    Attributes:
        scenario: Where it was recorded.
        side: Which side of ours differs.
        recorded: The body that 1.1 wrote, with placeholders; ``None`` if it is not
            about bytes.
        ours: The body we write in its place; ``None`` for none.
        why: What is promised instead.
        runs: Handlers that run beyond those recorded.
    """

    scenario: str
    side: Side
    recorded: str | None
    ours: str | None
    why: str
    runs: tuple[Handled, ...] = ()


DIFFERENCES = (
    Difference(
        "get_client",
        "server",
        '{"traceback": "99999 is not a valid port (1-65535)"',
        '{"traceback": "port 99999 in (\'127.0.0.1\', 99999) is not from 1 to 65535"}',
        "1.1 forgot the closing brace; every answer of ours is JSON.",
    ),
    Difference(
        "disconnect_all_clients",
        "server",
        '$CLTDISCONN$ {"ip": ["127.0.0.1", {port:A}], "name": "ann", "group": "red"}',
        None,
        "Disconnecting is real and at once: after its goodbye a client hears nothing. "
        "In 1.1 it heard of the others until it had said goodbye itself.",
    ),
    Difference(
        "close_server",
        "server",
        None,
        None,
        "Closing is real: a server that closes lets its clients leave. In 1.1 they "
        "stayed in its look-ups for ever.",
        runs=(Handled("leave", (ANN,)),),
    ),
    Difference(
        "change_to_none",
        "client",
        "$CHNAME$",
        "$CHNAME$",
        "With a header, as everything else: 1.1 forgot it, and its server broke.",
    ),
    Difference(
        "change_to_none",
        "client",
        "$CHGROUP$",
        "$CHGROUP$",
        "With a header, as everything else: 1.1 forgot it, and its server broke.",
    ),
    Difference(
        "tls_probe",
        "client",
        "$DH_NUMS$",
        None,
        "`client.tls` was a stub that encrypted nothing; ours has none to call.",
    ),
)


def body_of(frame: Frame, header_len: int) -> str:
    """What stands behind the header, with placeholders."""
    return frame.text if frame.text in BARE_TOKENS else frame.text[header_len:]


def difference(recording: Recording, frame: Frame) -> Difference | None:
    """The difference that our side of a recording makes for a frame, if any."""
    body = body_of(frame, recording.header_len)
    for each in DIFFERENCES:
        about = (each.scenario, each.side, each.recorded)
        if about == (recording.scenario, frame.sender, body):
            return each
    return None


def written_by_us(
    recording: Recording, frame: Frame, ports: Mapping[str, int]
) -> bytes:
    """The bytes that our side has to write where 1.1 wrote a frame."""
    differs = difference(recording, frame)
    if differs is None:
        return frame.wire(ports)
    if differs.ours is None:
        return b""
    body = fill(differs.ours, ports).encode("latin-1")
    return framed(body, recording.header_len)


def fill_value(value: Any, ports: Mapping[str, int]) -> Any:
    """A recorded value with this run's ports in it."""
    if isinstance(value, dict):
        return {key: fill_value(each, ports) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(fill_value(each, ports) for each in value)
    if isinstance(value, str):
        filled = fill(value, ports)
        # A port alone was recorded as text, and is a number.
        return int(filled) if filled != value and filled.isdigit() else filled
    return value


def fill_handled(handled: Iterable[Handled], ports: Mapping[str, int]) -> list[Handled]:
    """Recorded calls of handlers, with this run's ports."""
    return [Handled(one.handler, fill_value(one.args, ports)) for one in handled]


def noter(name: str, note: Callable[[Handled], None]) -> Callable[..., None]:
    """A handler that notes its name and its arguments, as they are now."""

    def handler(*arguments: Any) -> None:
        note(Handled(name, tuple(plain(argument) for argument in arguments)))

    return handler


def plain(argument: Any) -> Any:
    """An argument in the form of a recording."""
    if isinstance(argument, dict):
        return {**argument, "ip": list(argument["ip"])}
    return argument


def framed(body: bytes, header_len: int) -> bytes:
    """A body behind its header."""
    return str(len(body)).ljust(header_len).encode() + body


def read(source: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if the other side ends before."""
    data = b""
    while len(data) < size and (more := source.recv(size - len(data))):
        data += more
    return data


def read_to_end(source: socket.socket) -> bytes:
    """Everything until the other side ends."""
    return b"".join(iter(lambda: source.recv(65536), b""))


class Stage:
    """What both replays have in common: sockets, ports, calls that may wait."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.ports: dict[str, int] = {}
        self.raw: dict[str, socket.socket] = {}
        self._exit = contextlib.ExitStack()
        self._calls = self._exit.enter_context(ThreadPoolExecutor(4))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit.close()

    def keep(self, who: str, connection: socket.socket, port: int) -> None:
        """Remember the raw end of a client's connection."""
        connection.settimeout(DEADLINE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.raw[who] = self._exit.enter_context(connection)
        self.ports[who] = port

    def begin(self, method: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Make a call that waits for what the test does next."""
        return self._calls.submit(method, *arguments)

    def check_written(self, frames: Iterable[Frame]) -> None:
        """Compare what our side writes with what 1.1 wrote."""
        for frame in frames:
            wanted = written_by_us(self.recording, frame, self.ports)
            assert read(self.raw[frame.client], len(wanted)) == wanted

    def say(self, frames: Iterable[Frame]) -> None:
        """Write what 1.1 wrote."""
        for frame in frames:
            self.raw[frame.client].sendall(frame.wire(self.ports))

    def arguments(self, action: Action) -> Any:
        """The arguments of a recorded call."""
        return fill_value(action.args, self.ports)


class ServerReplay(Stage):
    """Plays recorded clients against our server."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording)
        server = ThreadedHiSockServer((HOST, 0), header_len=recording.header_len)
        self.server = self._exit.enter_context(server)
        self.wanted: list[Handled] = []
        self.got: list[Handled] = []
        self._notes: queue.SimpleQueue[Handled] = queue.SimpleQueue()
        self._awaited = 0
        self._closing: Future[Any] | None = None
        for name in {*recording.server_handlers, *SERVER_EVENTS}:
            server.on(name)(noter(name, self._notes.put))

    def play(self) -> None:
        """Play the whole recording."""
        for action, frames in self.recording.turns():
            if action.side == "client":
                self._client_says(action, frames)
            elif action.call == "run":
                self._wait_for_handlers(action)
                self.check_written(frames)
            else:
                done = self.begin(
                    getattr(self.server, action.call), *self.arguments(action)
                )
                self.check_written(frames)
                if action.call == "close":
                    self._closing = done  # it waits for its clients
                else:
                    done.result(DEADLINE)
        self._finish()

    def _client_says(self, action: Action, frames: Iterable[Frame]) -> None:
        if action.call == "connect":
            assert action.client is not None
            raw = socket.create_connection(self.server.addr, DEADLINE)
            self.keep(action.client, raw, raw.getsockname()[1])
        self.say(frames)
        for frame in frames:
            body = body_of(frame, self.recording.header_len)
            self._awaited += not body.startswith(QUESTIONS)
            if body == "$USRCLOSE$":
                raw = self.raw[frame.client]
                raw.shutdown(socket.SHUT_WR)
                assert read_to_end(raw) == b""

    def _wait_for_handlers(self, action: Action) -> None:
        """A turn of 1.1's loop: some handler runs, recorded or not."""
        self._take_notes(max(self._awaited, len(action.handled)))
        self._awaited = 0
        self.wanted += fill_handled(action.handled, self.ports)

    def _take_notes(self, count: int) -> None:
        known = self.recording.server_handlers
        for _ in range(count):
            note = self._notes.get(timeout=DEADLINE)
            if note.handler in known:
                self.got.append(note)

    def _finish(self) -> None:
        if self._closing is not None:
            self._closing.result(DEADLINE)
        self.server.stop_server()
        self.server.join()
        self._take_notes(self._notes.qsize())
        for each in DIFFERENCES:
            if (each.scenario, each.side) == (self.recording.scenario, "server"):
                self.wanted += fill_handled(each.runs, self.ports)


class ClientReplay(Stage):
    """Plays a recorded server against our clients."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording)
        self._listener = self._exit.enter_context(socket.create_server((HOST, 0)))
        self._listener.settimeout(DEADLINE)
        self._clients: dict[str, HiSockClient] = {}
        self._notes: list[Handled] = []
        self._asking: Future[Any] | None = None
        #: Clients whose probe the server has not answered yet.
        self._probes: list[str] = []

    def play(self) -> None:
        """Play the whole recording."""
        for action, frames in self.recording.turns():
            if action.side == "server":
                self.say(frames)
                if action.call == "run":
                    self._answer_probes()
                if self._asking is not None:
                    self._check_answer(frames[0], self._asking)
                    self._asking = None
                continue
            assert action.client is not None
            if action.call == "connect":
                self._connect(action.client, action)
                self._check_hello(action.client, frames)
            elif any(difference(self.recording, f) for f in frames):
                self._act_differently(action, frames)
            else:
                self._act(action.client, action, frames)

    def _connect(self, who: str, action: Action) -> None:
        client = HiSockClient(
            self._listener.getsockname(),
            header_len=self.recording.header_len,
            **{key: str(value) for key, value in action.kwargs.items()},  # type: ignore[arg-type]  # name and group
        )
        self._clients[who] = client
        self._exit.callback(client.close)
        connection, address = self._listener.accept()
        self.keep(who, connection, address[1])
        for name in self.recording.client_handlers:
            client.on(name)(noter(name, self._notes.append))

    def _check_hello(self, who: str, frames: tuple[Frame, ...]) -> None:
        """Compare our hello with 1.1's: the same, and what offers our own wire.

        Where a header has no room for that offer, it is 1.1's to the byte.
        """
        size = self.recording.header_len
        if size < ROOM_FOR_OFFER:
            self.check_written(frames)
            return
        [frame] = frames
        recorded = frame.wire(self.ports)[size:]
        raw = self.raw[who]
        header = read(raw, size)
        body = read(raw, int(header))
        assert header == str(len(body)).ljust(size).encode()
        assert body.startswith(HELLO)
        hello = json.loads(body.removeprefix(HELLO))
        assert {key for key in OFFER if hello.pop(key, self) is not self} == OFFER
        assert hello == json.loads(recorded.removeprefix(HELLO))
        probe = framed(b"$DH_NUMS$", size)
        assert read(raw, len(probe)) == probe
        self._probes.append(who)

    def _answer_probes(self) -> None:
        """As 1.1 does, one turn after the hello, behind what its handlers sent."""
        for who in self._probes:
            self.raw[who].sendall(framed(b"$NOTLS$", self.recording.header_len))
        self._probes.clear()

    def _act_differently(self, action: Action, frames: tuple[Frame, ...]) -> None:
        """Make a call that writes something else, if there is such a call."""
        assert action.client is not None
        client = self._clients[action.client]
        name, _, rest = action.call.partition(".")
        if rest:
            assert not hasattr(client, name)
        else:
            getattr(client, name)(*self.arguments(action))
        self.check_written(frames)

    def _act(self, who: str, action: Action, frames: tuple[Frame, ...]) -> None:
        client, arguments = self._clients[who], self.arguments(action)
        match action.call:
            case "update":
                self._notes.clear()
                client.update()
                assert self._notes == fill_handled(action.handled, self.ports)
                self.check_written(frames)
                if frames:
                    self._check_end(who)
                    with pytest.raises(ClientDisconnected):
                        client.update()
            case "recv_raw":
                assert client.recv_raw() == action.returned
            case "get_client":
                self._asking = self.begin(client.get_client, *arguments)
                self.check_written(frames)
            case "close":
                closing = self.begin(client.close)
                self.check_written(frames)
                self._check_end(who)
                closing.result(DEADLINE)
            case call:
                getattr(client, call)(*arguments)
                self.check_written(frames)

    def _check_end(self, who: str) -> None:
        """Our client writes nothing more, and ends."""
        assert read_to_end(self.raw[who]) == b""
        self.raw[who].close()

    def _check_answer(self, frame: Frame, asking: Future[Any]) -> None:
        """What ``get_client`` made of the recorded answer."""
        body = frame.wire(self.ports)[self.recording.header_len :]
        if body.startswith(b'{"ip"'):
            assert plain(asking.result(DEADLINE)) == json.loads(body)
            return
        error = UnknownClient if b"$NOEXIST$" in body else Refused
        with pytest.raises(error):
            asking.result(DEADLINE)


def by_client(handled: Iterable[Handled]) -> dict[int, list[Handled]]:
    """Handled messages in order, for each client: between two there is no promise."""
    sorted_out = defaultdict(list)
    for one in handled:
        sorted_out[one.args[0]["ip"][1]].append(one)
    return sorted_out


def recorded_from(side: Side) -> list[Any]:
    """A parameter for each recording of a real side."""
    return [
        pytest.param(each, id=f"{each.scenario}-{each.header_len}")
        for each in recordings()
        if side in each.recorded_from
    ]


@pytest.mark.parametrize("recording", recorded_from("server"))
def test_our_server_writes_what_a_real_server_wrote(recording: Recording) -> None:
    """Told the same and made to do the same, byte for byte; handlers get the same."""
    with ServerReplay(recording) as replay:
        replay.play()

        assert by_client(replay.got) == by_client(replay.wanted)


@pytest.mark.parametrize("recording", recorded_from("client"))
def test_our_client_writes_what_a_real_client_wrote(recording: Recording) -> None:
    """Told the same and made to do the same, byte for byte; handlers get the same."""
    with ClientReplay(recording) as replay:
        replay.play()


@pytest.mark.parametrize("header_len", HEADER_LENGTHS)
def test_our_server_takes_bare_tokens(header_len: int) -> None:
    """A real client drops its name and group without a header, which broke its own
    server; on ours it then has none, and what it says next is understood."""
    notes: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    recording = load("change_to_none", header_len)
    said = recording.stream("A", "client", {})
    with ThreadedHiSockServer((HOST, 0)) as server:
        for event in ("name_change", "group_change"):
            server.on(event)(lambda client, old, new: notes.put((old, new)))
        server.on("leave")(lambda client: notes.put((client["name"], client["group"])))
        with socket.create_connection(server.addr, DEADLINE) as raw:
            raw.sendall(said)

            happened = [notes.get(timeout=DEADLINE) for _ in range(4)]

    assert happened == [("ann", None), ("red", None), (None, "anna"), ("anna", None)]


@pytest.mark.parametrize("each", DIFFERENCES, ids=lambda each: each.scenario)
def test_a_difference_is_from_something_recorded(each: Difference) -> None:
    """The table has no line that nothing needs any more."""
    for header_len in HEADER_LENGTHS:
        recording = load(each.scenario, header_len)
        frames = [step for step in recording.steps if isinstance(step, Frame)]
        assert each.runs or any(
            difference(recording, frame) == each for frame in frames
        )
