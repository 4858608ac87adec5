"""Processes that are killed: what they may have taken along is reported, once, and
nothing is run again by itself."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from hisock import ClientInfo, start_threaded_server
from hisock.errors import SessionLost, Undelivered

from .programs import SLOW, AioCounter, Counter, Program
from .raw import HOST, eventually

pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
    # Windows this short are for tests alone.
    pytest.mark.filterwarnings("ignore:with resume_window"),
]

CLIENTS = [Counter, AioCounter]
MANY = 3000


def heard_before_the_end(program: Program) -> list[Any]:
    """What a killed process had said."""
    code, errors = program.end()
    assert (code, errors) == (-signal.SIGKILL, "")
    return program.rest()


@pytest.mark.parametrize(
    ("face", "make"), [("plain", Counter), ("plain", AioCounter), ("aio", Counter)]
)
def test_f1_a_killed_server(face: str, make: type[Counter]) -> None:
    """Every message that was not acknowledged is reported once, none is run again."""
    with Program.server(face, half=MANY // 2) as first:
        port = first.next()
        with make(port) as counter:
            enough = threading.Event()
            sending = threading.Thread(target=send_until, args=(counter, enough))
            sending.start()
            first.until("half")
            first.signal(signal.SIGKILL)
            assert heard_before_the_end(first) == []
            assert counter.next() == "drop"
            with Program.server(face, port) as second:
                second.next()
                assert counter.next() == "lost"
                enough.set()
                sending.join(SLOW)
                assert not sending.is_alive()
                counter.send(20)
                eventually(lambda: counter.seen[-1:] == [counter.sent - 1], "the last")
                second.signal(signal.SIGINT)
                assert second.end() == (0, "")
                check_report(counter, second.rest()[-1])


def send_until(counter: Counter, enough: threading.Event) -> None:
    """Send all the time."""
    while not enough.wait(0.001):
        counter.send(20)


def check_report(counter: Counter, second: list[int]) -> None:
    """What was acknowledged, then what is reported, then what the second handled."""
    (lost,) = counter.lost
    assert lost.reason == "server_restarted"
    reported = counter.unacked
    assert reported, "the server was killed in the middle of the load"
    begin, end = reported[0], reported[-1] + 1
    assert reported == list(range(begin, end))
    assert second == list(range(end, counter.sent))
    # Half of them were handled, and most of these acknowledged.
    assert begin > MANY // 2 - 500


@pytest.mark.parametrize("make", CLIENTS)
def test_f1_a_call_that_was_open_is_reported_and_not_repeated(
    make: type[Counter],
) -> None:
    """Its outcome is unknown, so whoever waits for it is told so."""
    failures: list[BaseException] = []
    with Program.server() as first:
        port = first.next()
        with make(port) as counter:

            def call() -> None:
                try:
                    reply: Any = counter.client.call("held", 1)
                    if make is AioCounter:
                        assert isinstance(counter, AioCounter)
                        counter._wait(reply)
                except SessionLost as error:
                    failures.append(error)

            calling = threading.Thread(target=call)
            calling.start()
            first.until("held")
            first.signal(signal.SIGKILL)
            first.end()
            with Program.server(port=port) as second:
                second.next()
                calling.join(SLOW)
                assert not calling.is_alive()
                (error,) = failures
                assert isinstance(error, SessionLost)
                assert error.reason == "server_restarted"
                counter.send(1)
                eventually(lambda: counter.seen == [0], "the new session's first")
                second.signal(signal.SIGINT)
                assert second.end() == (0, "")
                assert second.rest()[-1] == [0]


def test_f1_calls_and_messages_are_reported_once_over_many_deaths() -> None:
    """Each server that dies takes along only what it had not acknowledged."""
    port = 0
    with Program.server(half=50) as first:
        port = first.next()
        counter = Counter(port)
        with counter:
            counter.send(100)
            first.until("half")
            first.signal(signal.SIGKILL)
            for _ in range(2):
                assert counter.next() == "drop"
                with Program.server(port=port, half=50) as server:
                    server.next()
                    assert counter.next() == "lost"
                    counter.send(100)
                    server.until("half")
                    server.signal(signal.SIGKILL)
                    server.end()
            assert counter.next() == "drop"
            with Program.server(port=port) as last:
                last.next()
                assert counter.next() == "lost"
    assert len(counter.lost) == 3
    assert counter.unacked == sorted(set(counter.unacked))


def test_f2_a_killed_client() -> None:
    """It leaves once, when its window ends; what was sent to it is reported, and its
    name is free."""
    events: list[Any] = []
    received = threading.Event()
    server = start_threaded_server((HOST, 0), resume_window=0.6, dead_after=0.2)
    server.on("join")(lambda client: events.append("join"))
    server.on("leave")(lambda client: events.append("leave"))
    server.on_drop(lambda client: events.append("drop"))
    server.on_error(events.append)
    server.on("it")(lambda client: received.set())
    with server, Program.client(server.addr[1], "ann") as client:
        assert received.wait(SLOW)
        client.signal(signal.SIGKILL)
        client.end()
        eventually(lambda: "drop" in events, "it is dropped")
        assert len(server) == 1
        for number in range(5):
            server.send_client("ann", "news", number)
        eventually(lambda: "leave" in events, "it leaves")
        assert len(server) == 0
        join, drop, undelivered, leave = events
        assert (join, drop, leave) == ("join", "drop", "leave")
        assert isinstance(undelivered, Undelivered)
        assert [message.content for message in undelivered.sent] == list(range(5))
        with Counter(server.addr[1], "ann") as counter:
            eventually(lambda: len(server) == 1, "another has its name")
            counter.send(1)
            server.send_client("ann", "seen", 7)
            eventually(lambda: counter.seen == [7], "what is sent to that name")
    assert events.count("leave") == 2


def test_f2_half_a_frame_is_no_message() -> None:
    """A client that dies in the middle of a message has not sent it."""
    handled: list[int] = []
    left: list[ClientInfo] = []
    server = start_threaded_server((HOST, 0), resume_window=0.2, dead_after=0.1)
    server.on("it")(lambda client, content: handled.append(len(content)))
    server.on("leave")(left.append)
    source = """
import os, signal, sys
from hisock import connect
client = connect(("127.0.0.1", int(sys.argv[1])), "ann")
while client.wire is None:
    client.update(timeout=0.01)
client.send("it", b"whole")
send = client._engine.link.sock
frame = client._engine.link.writer.message("it", bytes(100_000))
send.sendall(b"".join(frame)[:50_000] if isinstance(frame, tuple) else frame[:50_000])
os.kill(os.getpid(), signal.SIGKILL)
"""
    with server, Program(source, server.addr[1]) as client:
        client.end()
        eventually(lambda: len(left) == 1, "it leaves")
    assert handled == [5]


def test_f2_the_others_hear_of_it_once() -> None:
    """When it has left for good, and not at the cut."""
    told: list[str] = []
    server = start_threaded_server((HOST, 0), resume_window=0.4, dead_after=0.2)
    received = threading.Event()
    server.on("it")(lambda client: received.set())
    with server, Counter(server.addr[1], "bob") as counter:
        counter.client.on("client_disconnect")(lambda info: told.append(info["name"]))
        with Program.client(server.addr[1], "ann") as client:
            assert received.wait(SLOW)
            client.signal(signal.SIGKILL)
            client.end()
            eventually(lambda: len(server) == 1, "it leaves")
            eventually(lambda: told == ["ann"], "bob hears of it")
    assert told == ["ann"]
