"""The programs of the 1.1 manual run unchanged and print what it promises.

Each program is a process of its own, as for the reader of the manual. Only the port is
another one: a copy of the file gets a free port in place of the printed literal.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from hisock import get_local_ip

PROGRAMS = Path(__file__).resolve().parent / "programs"
PRINTED_PORT = re.compile(r"\b3?6969\b")
DEADLINE = 10.0


class Program:
    """A running program of the manual; what it prints can be waited for."""

    def __init__(self, path: Path, *arguments: str, answers: str = "") -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
        self._path = path
        self._output = ""
        self._ended = False
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-u", str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=path.parent,
            env=environment,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._answer(answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def output(self) -> str:
        """All that was printed so far, errors included."""
        with self._changed:
            return self._output

    @property
    def is_running(self) -> bool:
        """Whether the program has neither finished nor failed."""
        return self._process.poll() is None

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until a part of the output matches."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or re.search(pattern, self._output), DEADLINE
            )
            found = re.search(pattern, self._output)
            assert found, (
                f"{self._path.name} did not print {pattern!r}:\n{self._output}"
            )
            return found

    def is_up_or_too_early(self, pattern: str) -> bool:
        """Wait for the pattern; false if the server was not running yet."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or re.search(pattern, self._output), DEADLINE
            )
            return "ServerNotRunning" not in self._output

    def interrupt(self) -> None:
        """End the program as its user does, with Ctrl-C, and wait for its end."""
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if sys.platform == "win32" or ignored:
            self._process.terminate()
        else:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(DEADLINE)

    def _answer(self, answers: str) -> None:
        assert self._process.stdin is not None
        # A program that has failed already says why in its output.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(answers.encode())

    def _read(self) -> None:
        assert self._process.stdout is not None
        # Not by lines: a prompt has no end of line.
        while data := os.read(self._process.stdout.fileno(), 65536):
            with self._changed:
                self._output += data.decode().replace("\r\n", "\n")
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Desk:
    """Starts programs of the manual on one free port and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = contextlib.ExitStack()
        self.address = get_local_ip()
        self.port = free_port(self.address)

    def start(self, name: str, *arguments: str, answers: str = "") -> Program:
        """Run a copy of a program in which the printed port is our free one."""
        text = (PROGRAMS / f"{name}.py").read_text(encoding="utf-8")
        copy = self._folder / f"{name}.py"
        copy.write_text(PRINTED_PORT.sub(str(self.port), text), encoding="utf-8")
        program = Program(copy, *arguments, answers=answers)
        return self._running.enter_context(program)

    def start_client(self, name: str, pattern: str, answers: str = "") -> Program:
        """Run a client until it prints ``pattern``; again while no server listens."""
        deadline = time.monotonic() + DEADLINE
        while True:
            client = self.start(name, answers=answers)
            if client.is_up_or_too_early(pattern) or time.monotonic() > deadline:
                client.wait_for(pattern)
                return client

    def end(self) -> None:
        """Kill what still runs."""
        self._running.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk with a free port, on which no program is left at the end."""
    desk = Desk(tmp_path)
    yield desk
    desk.end()


def free_port(address: str) -> int:
    """A port nobody listens on."""
    with socket.create_server((address, 0)) as free:
        port: int = free.getsockname()[1]
        return port


def connect_when_up(address: str, port: int) -> socket.socket:
    """A connection to a server that may still be starting."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return socket.create_connection((address, port), DEADLINE)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise


def frame(body: bytes) -> bytes:
    """A message as 1.1 writes it with its usual header of 16 bytes."""
    return b"%-16d" % len(body) + body


def read_frame(source: socket.socket) -> bytes:
    """The body of the next message."""
    return read_exactly(source, int(read_exactly(source, 16)))


def read_exactly(source: socket.socket, size: int) -> bytes:
    """So many bytes, however they arrive."""
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        assert more, f"the server ended the connection after {data!r}"
        data += more
    return data


def test_tutorial_1_two_loops_that_find_each_other(desk: Desk) -> None:
    """The bare server and client connect and keep running, in silence."""
    server = desk.start("tutorial_1_server")
    with connect_when_up(desk.address, desk.port) as witness:
        witness.sendall(frame(b'$CLTHELLO$ {"name": null, "group": null}'))
        witness.sendall(frame(b"$DH_NUMS$"))
        assert read_frame(witness) == b"$NOTLS$"
        client = desk.start("tutorial_1_client")
        assert read_frame(witness).startswith(b'$CLTCONN$ {"ip": ["')
        assert server.is_running
        assert client.is_running
        assert server.output == client.output == ""


def test_clearing_up_handlers_get_the_content(desk: Desk) -> None:
    """Each side's handler is called with the bytes the other one sent."""
    server = desk.start("clearing_up_server")
    desk.start_client("clearing_up_client", r"b'from the server'\n")
    server.wait_for(r"b'from the client'\n")


def test_tutorial_2_join_prints_the_address(desk: Desk) -> None:
    """The server prints the address of a client that joins."""
    server = desk.start("tutorial_2_server")
    with connect_when_up(desk.address, desk.port) as witness:
        witness.sendall(frame(b'$CLTHELLO$ {"name": null, "group": null}'))
        server.wait_for(cool(desk, witness.getsockname()[1]))
        desk.start("tutorial_2_client")
        assert read_frame(witness).startswith(b'$CLTCONN$ {"ip": ["')
    server.wait_for(rf"(?s){cool(desk)}.*{cool(desk)}")


def test_tutorial_3_the_client_gets_a_random_number(desk: Desk) -> None:
    """A number the server draws on join arrives at the client."""
    server = desk.start("tutorial_3_server")
    client = desk.start_client("tutorial_3_client", RANDOM_NUMBER)
    server.wait_for(cool(desk))
    assert 1 <= int(client.wait_for(RANDOM_NUMBER)[1]) <= 10000


def test_tutorial_4_the_client_answers(desk: Desk) -> None:
    """The server prints that the client has got its number, and Ctrl-C ends both."""
    server = desk.start("tutorial_4_server")
    client = desk.start_client("tutorial_4_client", RANDOM_NUMBER)
    port = server.wait_for(cool(desk))[1]
    verified = f"Successfully sent the number to {desk.address}:{port}!\n"
    server.wait_for(re.escape(verified))
    client.interrupt()
    server.interrupt()


def test_intermediate_names_groups_and_five_ways_to_send(desk: Desk) -> None:
    """A client is reached by name, with all, by group, and raw."""
    server = desk.start("intermediate_server")
    client = desk.start_client("intermediate_client", "raw: send_group_raw\n")
    server.wait_for("Ann is in the lobby Lobby 1\n")
    assert client.output.splitlines() == [
        "one: send_client",
        "all: send_all_clients",
        "lobby: send_group",
        "raw: send_client_raw",
        "raw: send_group_raw",
    ]


def test_basic_example_with_every_prompt_left_empty(desk: Desk) -> None:
    """Enter at each prompt means the local address, no name and no group."""
    server = desk.start("basic_server")
    client = desk.start_client("basic_client", WHOOAAA, answers="\n" * 4)
    check_basic(desk, server, client)
    assert "sick" not in server.output


def test_basic_example_with_every_prompt_answered(desk: Desk) -> None:
    """Address and port are used; the server greets the name and the group."""
    server = desk.start("basic_server", desk.address)
    answers = f"{desk.address}\n{desk.port}\nAnn\nFriends of Ann\n"
    client = desk.start_client("basic_client", WHOOAAA, answers=answers)
    check_basic(desk, server, client)
    server.wait_for('    - With a sick name "Ann", very cool!\n')
    server.wait_for('    - In a sick group "Friends of Ann", cool!\n')


def test_basic_example_server_takes_its_port_from_the_second_argument(
    desk: Desk,
) -> None:
    """With two arguments the port is the second; the address stays the local one."""
    other = free_port(desk.address)
    server = desk.start("basic_server", "not read", str(other))
    client = desk.start_client("basic_client", WHOOAAA, answers=f"\n{other}\n\n\n")
    check_basic(desk, server, client)


RANDOM_NUMBER = r"Random number generated by the server is a (\d+)!\n"
WHOOAAA = r"WHOOAAA! The result is (\d+)! Thanks server!\n"


def cool(desk: Desk, port: int | None = None) -> str:
    """What the tutorial's server prints for a client that joins."""
    return rf"Cool, {re.escape(desk.address)}:({port or r'[0-9]+'}) joined!\n"


def check_basic(desk: Desk, server: Program, client: Program) -> None:
    """Both sides of the basic example told their story."""
    address = re.escape(desk.address)
    server.wait_for(rf"^Serving at {address}\n")
    port = server.wait_for(rf"Cool, {address}:(\d+) joined!\n")[1]
    server.wait_for("I'm gonna send them a quick hello message\n")
    client.wait_for(
        "Enter server IP to connect to .*: Enter Server port number .*: "
        "Name\\? .* Group\\? .* ===== ESTABLISHING CONNECTION =====\n"
    )
    client.wait_for("Thanks, server, for sending a hello, just for me!\n")
    client.wait_for(r"on timestamp \d+\.\d+, which is just -?\d[-.e\d]* milliseconds")
    server.wait_for(rf"Alright, looks like {address}:{port} received the hello message")
    server.wait_for(r"Their processing request is: randnum\*\*2\n")
    result = int(client.wait_for(WHOOAAA)[1])
    assert math.isqrt(result) ** 2 == result
    server.wait_for(rf"Cool! The result is {result}! I'mma send it to the client\n")
