"""The faults of hisock 1.1 against our client, by the numbers of the table of faults.

A raw listening socket plays the bad or slow server; ``served`` joins it to our client.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hisock import (
    ClientDisconnected,
    ClientInfo,
    HiSockError,
    Limits,
    connect,
    start_server,
    start_threaded_server,
    threaded_connect,
)
from hisock.client import HiSockClient
from hisock.errors import (
    AlreadyRunning,
    ConversionError,
    MessageTooLarge,
    Refused,
    SessionLost,
    UnknownClient,
    WouldBlock,
)

from .raw import (
    CLIENT_GOODBYE,
    HOST,
    PROBE,
    SERVER_GOODBYE,
    Listener,
    counts_descriptors,
    ends_within,
    eventually,
    frame,
    header,
    in_thread,
    open_descriptors,
    served,
    sockets_at,
)
from .test_server_faults import BAD_LENGTHS, by_name

pytestmark = pytest.mark.timeout(20)

#: What a client's handlers were called with, in order.
Ran = list[tuple[str, bytes]]


def record(client: HiSockClient, *commands: str) -> Ran:
    """Register handlers that note what they get."""
    ran: Ran = []

    def noting(command: str) -> Callable[[bytes], None]:
        return lambda content: ran.append((command, content))

    for command in commands:
        client.on(command)(noting(command))
    return ran


def turn_until(client: HiSockClient, condition: Callable[[], object]) -> None:
    """Turn a non-blocking client until something holds."""

    def holds() -> object:
        client.update()
        return condition()

    eventually(holds, "what the client should see")


def ends(client: HiSockClient) -> ClientDisconnected:
    """Turn a non-blocking client until it says that it is disconnected."""
    caught: list[ClientDisconnected] = []

    def is_over() -> bool:
        try:
            client.update()
        except ClientDisconnected as error:
            caught.append(error)
        return bool(caught)

    eventually(is_over, "the client ends")
    return caught[0]


# --- bytes -------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, len(frame(b"ping hi"))))
def test_c01_h01_h02_split_anywhere(cut: int) -> None:
    """A message may come in any two pieces; each ``update`` between just returns."""
    whole = frame(b"ping hi")
    with served() as (client, server):
        ran = record(client, "ping")
        server.send(whole[:cut])
        for _ in range(3):
            client.update()
        assert ran == []
        server.send(whole[cut:])
        turn_until(client, lambda: ran)
        assert ran == [("ping", b"hi")]


def test_h01_byte_by_byte() -> None:
    """A server that dribbles is understood all the same."""
    with served() as (client, server):
        ran = record(client, "ping")
        for byte in frame(b"ping hi") * 2:
            server.send(bytes([byte]))
            client.update()
        turn_until(client, lambda: len(ran) == 2)
        assert ran == [("ping", b"hi")] * 2


@pytest.mark.parametrize("size", [1_000_000, 5_000_000])
def test_c03_h02b_large_message(size: int) -> None:
    """A large message arrives whole, and the next one is in step."""
    large = os.urandom(size)
    with served() as (client, server):
        ran = record(client, "ping")
        sender = in_thread(
            lambda: server.send(frame(b"ping " + large) + frame(b"ping after"))
        )
        turn_until(client, lambda: len(ran) == 2)
        assert ran == [("ping", large), ("ping", b"after")]
        assert ends_within(sender, 1.0)


def test_h03_h08_server_that_closes_at_once() -> None:
    """A server that takes the connection and ends it is a ClientDisconnected."""
    with served() as (client, server):
        server.sock.close()
        assert "closed the connection" in str(ends(client))


@pytest.mark.parametrize("answers", [True, False])
def test_h04_silent_server(answers: bool) -> None:
    """A server that says nothing keeps no send of bytes and no close waiting, even if
    it has not said yet which wire it speaks."""
    with served(answers=answers) as (client, server):
        began = time.monotonic()
        client.update()
        client.send("ping", b"hi")
        assert server.take_frame() == b"ping hi"
        client.close()
        assert time.monotonic() - began < 1.5
        assert server.take_all() == frame(CLIENT_GOODBYE)


@pytest.mark.parametrize(
    "given",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"SSH-2.0-"],
)
def test_h05_h06_server_of_something_else(given: bytes) -> None:
    """An answer that is not hisock's ends the client, and the error quotes it."""
    with served() as (client, server):
        ran = record(client, "ping")
        server.send(given + b" " * 16)
        error = ends(client)
        assert repr(given[:8])[2:-1] in str(error)
        assert isinstance(error.__cause__, HiSockError)
        assert ran == []


@by_name(BAD_LENGTHS)
def test_c02_h07_length_grammar(given: bytes) -> None:
    """The client, too, reads digits and then spaces as a length, and nothing else."""
    with served() as (client, server):
        ran = record(client, "ping")
        server.throw(given.ljust(16) + b"ping x" * 10)
        ends(client)
        assert ran == []
        assert server.take_all() == frame(CLIENT_GOODBYE)


def test_h07_limit_is_refused_at_the_header() -> None:
    """The largest message passes; of one more not a byte of the body is awaited."""
    with served(limits=Limits(message=1000)) as (client, server):
        server.send(frame(b"x" * 1000) + header(1001))
        assert client.recv_raw() == b"x" * 1000
        assert "the limit is 1000" in str(ends(client))


def test_h07b_two_gigabytes_claimed() -> None:
    """A claimed length is no message: the client ends, nothing runs."""
    with served() as (client, server):
        ran = record(client, "ping")
        server.throw(header(2_000_000_000) + b"ping x")
        assert "2000000000" in str(ends(client))
        assert ran == []


def test_h07c_zero_length() -> None:
    """An empty message is a message, and the next one is not lost."""
    with served() as (client, server):
        server.send(frame(b"") * 2 + frame(b"x"))
        assert [client.recv_raw() for _ in range(3)] == [b"", b"", b"x"]


@pytest.mark.parametrize("how", ["closed", "half closed", "reset", "goodbye"])
@pytest.mark.parametrize("told", [True, False])
def test_c04_h08_server_ends(
    how: str, told: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """The program is told by event or exception; it is neither ended nor printed to."""
    events: list[str] = []
    with served() as (client, server):
        if told:
            client.on("force_disconnect")(lambda: events.append("told"))
        match how:
            case "closed":
                server.sock.close()
            case "half closed":
                server.sock.shutdown(socket.SHUT_WR)
            case "reset":
                server.reset()
            case "goodbye":
                server.send(frame(SERVER_GOODBYE))
        if told:
            turn_until(client, lambda: events)
        ends(client)
        with pytest.raises(ClientDisconnected):
            client.send("ping")
        with pytest.raises(ClientDisconnected):
            client.recv_raw()
    assert events == ["told"] * told
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("how", ["closed", "reset", "goodbye"])
@pytest.mark.parametrize("waits", ["update", "recv_raw", "get_client"])
def test_c04_a_waiting_client_wakes_up(how: str, waits: str) -> None:
    """Whatever waits for the server raises at once when that one ends."""
    calls: dict[str, Callable[[HiSockClient], object]] = {
        "update": lambda client: client.update(),
        "recv_raw": lambda client: client.recv_raw(),
        "get_client": lambda client: client.get_client("x"),
    }
    caught: list[BaseException] = []

    def wait(client: HiSockClient) -> None:
        try:
            calls[waits](client)
        except BaseException as error:
            caught.append(error)

    with served(blocking=True) as (client, server):
        waiting = in_thread(lambda: wait(client))
        if waits == "get_client":
            assert server.take_frame() == b"$GETCLT$ x"
        match how:
            case "closed":
                server.sock.close()
            case "reset":
                server.reset()
            case "goodbye":
                server.send(frame(SERVER_GOODBYE))
        assert ends_within(waiting, 1.0)
    assert [type(error) for error in caught] == [ClientDisconnected]


def test_c04_the_program_goes_on() -> None:
    """In a program of its own: the end is an exception, the rest of it still runs."""
    program = (
        "import sys, hisock\n"
        "address = '127.0.0.1', int(sys.argv[1])\n"
        "client = hisock.connect(address, reconnect=False)\n"
        "try:\n"
        "    client.update()\n"
        "except hisock.ClientDisconnected:\n"
        "    pass\n"
        "print('went on')\n"
    )
    listener = Listener()
    with listener.sock:
        command = [sys.executable, "-W", "error", "-c", program]
        process = subprocess.Popen(
            [*command, str(listener.address[1])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with listener.accept() as server:
            server.take_frame()
        shown, _ = process.communicate(timeout=10)
    assert shown == "went on\n"
    assert process.returncode == 0


# --- which handler runs ------------------------------------------------------------


def test_h09_prefix_match() -> None:
    """A command is the whole word, on the client as well."""
    with served() as (client, server):
        ran = record(client, "ping", "pingpong")
        for body in (b"pingpong hi", b"pinged hi", b"ping hi"):
            server.send(frame(body))
        turn_until(client, lambda: len(ran) == 2)
        assert ran == [("pingpong", b"hi"), ("ping", b"hi")]
        assert client.recv_raw() == b"pinged hi"


@pytest.mark.parametrize(
    "word", ["client_connect", "client_disconnect", "force_disconnect"]
)
def test_h10_reserved_handlers_from_the_wire(word: str) -> None:
    """No event happens because the server wrote its name as a command."""
    with served() as (client, server):
        events: list[str] = []
        client.on("client_connect")(lambda: events.append("connect"))
        client.on("client_disconnect")(lambda: events.append("disconnect"))
        client.on("force_disconnect")(lambda: events.append("end"))
        body = word.encode() + b' {"name": "x"}'
        server.send(frame(body))
        assert client.recv_raw() == body
        client.update()
        assert events == []


def test_h10b_reserved_messages_are_consumed() -> None:
    """What hisock says to itself reaches the handler of its event, and no other."""
    info = {"ip": ["10.0.0.255", 65535], "name": "x", "group": None}
    with served() as (client, server):
        ran = record(client, "ping")
        events: list[tuple[str, dict[str, Any]]] = []
        client.on("client_connect")(lambda who: events.append(("in", dict(who))))
        client.on("client_disconnect")(lambda who: events.append(("out", dict(who))))
        for word in (b"$CLTCONN$ ", b"$CLTDISCONN$ "):
            server.send(frame(word + json.dumps(info).encode()))
        server.send(frame(b"$NOTLS$") + frame(b"raw") + frame(b"ping x"))
        turn_until(client, lambda: ran)
        told = {**info, "ip": ("10.0.0.255", 65535)}
        assert events == [("in", told), ("out", told)]
        assert client.recv_raw() == b"raw"


@pytest.mark.parametrize(
    "body",
    [
        b"$CLTCONN$",
        b"$CLTCONN$ ",
        b"$CLTCONN$ {",
        b"$CLTCONN$ []",
        b'$CLTCONN$ {"name": NaN}',
        b"$CLTDISCONN$ \xff",
        b"$CLTDISCONN$ " + b"[" * 100_000,
        b'$CLTCONN$ {"ip": ' + b"9" * 5000 + b"}",
    ],
)
def test_h10b_broken_reserved_message(body: bytes) -> None:
    """A reserved message that is none ends the client with an error that says so."""
    with served() as (client, server):
        events: list[object] = []
        client.on("client_connect")(events.append)
        client.on("client_disconnect")(events.append)
        server.send(frame(body) + frame(b"ping"))
        error = ends(client)
        assert "client is no" in str(error) or "the client is not" in str(error)
        assert events == []


def test_c06_h11_handler_exception() -> None:
    """What a handler raises comes out of ``update`` once; the next call goes on."""
    with served() as (client, server):
        ran = record(client, "good")

        @client.on("bad")
        def bad() -> None:
            raise ZeroDivisionError

        server.send(frame(b"good 1") + frame(b"bad") + frame(b"good 2"))
        with pytest.raises(ZeroDivisionError):
            turn_until(client, lambda: False)
        turn_until(client, lambda: len(ran) == 2)
        assert ran == [("good", b"1"), ("good", b"2")]


def test_c06_in_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody called ``update`` it is logged, and the thread goes on."""
    listener = Listener()
    with listener.sock, threaded_connect(listener.address) as client:
        ran = record(client, "good")
        client.on("bad")(lambda: 1 / 0)
        with listener.accept() as server:
            server.send(frame(b"bad") + frame(b"good 1"))
            eventually(lambda: ran, "the message after the bad one")
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("hint", [int, float, list, dict])
@pytest.mark.parametrize("body", [b"num abc", b"num", b"num \xff", b'num "x"'])
def test_c11_h12_failed_conversion(hint: type, body: bytes) -> None:
    """Content that does not fit the hint is a typed error that names the handler."""
    with served() as (client, server):
        got: list[object] = []

        def num(content: Any) -> None:
            got.append(content)

        num.__annotations__["content"] = hint
        client.on("num")(num)
        server.send(frame(body))
        with pytest.raises(ConversionError, match=f"expected {hint.__name__}") as error:
            turn_until(client, lambda: False)
        assert "test_client_faults.py" in str(error.value)
        assert got == []
        right = {int: b"1", float: b"1", list: b"[1]", dict: b'{"a": 1}'}
        server.send(frame(b"num " + right[hint]))
        turn_until(client, lambda: got)
        assert type(got[0]) is hint


# --- sending -----------------------------------------------------------------------


def test_c05_no_bare_tokens() -> None:
    """Our own messages have their header, those for no name and no group too."""
    with served() as (client, server):
        client.change_name(None)
        client.change_group(None)
        client.change_name("é")
        assert server.take_frame() == b"$CHNAME$"
        assert server.take_frame() == b"$CHGROUP$"
        assert server.take_frame() == "$CHNAME$ é".encode()


def test_c07_close_twice() -> None:
    """``close`` again is no error, whoever ended the connection first."""
    with served() as (client, server):
        ending = in_thread(client.close)
        assert server.take_all() == frame(CLIENT_GOODBYE)
        server.sock.close()
        assert ends_within(ending, 1.0)
        client.close()
        client.update()
    with served() as (client, server):
        server.sock.close()
        ends(client)
        client.close()
        client.close()


def test_c08_non_blocking_send_is_whole() -> None:
    """A large send of a non-blocking client is sent to its last byte, in order."""
    large = os.urandom(1024) * 20 * 1024
    whole = frame(b"x " + large) + frame(b"y ")
    with served(limits=Limits(message=32 * 1024 * 1024)) as (client, server):
        took: list[bytes] = []
        client.send("x", large)
        with contextlib.suppress(WouldBlock):
            client.send("y")
            took.append(b"y")
        taking = in_thread(lambda: took.append(server.take(len(whole))))

        def is_sent() -> bool:
            client.update()
            if b"y" not in took:
                with contextlib.suppress(WouldBlock):
                    client.send("y")
                    took.append(b"y")
            return not taking.is_alive()

        eventually(is_sent, "every byte is sent")
        assert whole in took


def test_c08_h13_server_that_never_reads() -> None:
    """A full outbox raises where the client may not wait; what it took stays whole."""
    data = b"x" * 16 * 1024
    with served(buffer=4096, limits=Limits(outbox=64 * 1024)) as (client, server):
        accepted = 0
        with contextlib.suppress(WouldBlock):
            while accepted < 4096:
                client.send("x", data)
                accepted += 1
        assert 0 < accepted < 4096
        took: list[bytes] = []
        taking = in_thread(
            lambda: took.extend(server.take_frame() for _ in range(accepted))
        )
        turn_until(client, lambda: not taking.is_alive())
        assert took == [b"x " + data] * accepted


def test_c08_h13_blocking_send_waits() -> None:
    """A blocking client waits until the server reads, and cuts nothing short."""
    data = b"x" * 16 * 1024
    limits = Limits(outbox=64 * 1024)
    with served(blocking=True, buffer=4096, limits=limits) as (client, server):

        def talk() -> None:
            for _ in range(1000):
                client.send("x", data)

        sender = in_thread(talk)
        for _ in range(1000):
            assert server.take_frame() == b"x " + data
        assert ends_within(sender, 1.0)


def test_h14_send_to_a_reset_server() -> None:
    """Sends after the server vanished raise, in the first turn that can know."""
    with served() as (client, server):
        server.reset()

        def is_told() -> bool:
            try:
                client.send("ping")
                client.update()
            except ClientDisconnected:
                return True
            return False

        eventually(is_told, "the client is told")


def test_h15_h21_get_client_of_nobody() -> None:
    """The answer that there is nobody is the documented TypeError."""
    with served() as (client, server):
        server.send(frame(b'{"traceback": "$NOEXIST$"'))  # as 1.1 writes it
        with pytest.raises(UnknownClient) as caught:
            client.get_client("x")
        assert isinstance(caught.value, TypeError)
        server.send(frame(b'{"ip": ["10.0.0.255", 65535], "name": "x", "group": null}'))
        assert client.get_client("x") == {
            "ip": ("10.0.0.255", 65535),
            "name": "x",
            "group": None,
        }


def test_h16_h18_roster_off(capfd: pytest.CaptureFixture[str]) -> None:
    """``roster=False`` answers ``get_client`` with Refused and tells of nobody."""
    events: list[object] = []
    with (
        start_threaded_server((HOST, 0), roster=False) as server,
        connect(server.get_addr(), "one", blocking=False) as one,
    ):
        one.on("client_connect")(events.append)
        one.on("client_disconnect")(events.append)
        connect(server.get_addr(), "two").close()
        with pytest.raises(Refused, match="does not tell"):
            one.get_client("one")
        one.update()
    assert events == []
    assert capfd.readouterr() == ("", "")


def test_h19_length_over_the_header() -> None:
    """A message whose length the header cannot hold raises, and sends no byte."""
    with served(header_len=2) as (client, server):
        for send in (client.raw_send, lambda data: client.send("x", data)):
            with pytest.raises(MessageTooLarge, match="header_len 2 cannot hold"):
                send(b"x" * 205)
        client.raw_send(b"x" * 99)
        assert server.take_frame(2) == b"x" * 99


def test_h19b_headers_count_bytes() -> None:
    """A header counts bytes of UTF-8, not letters."""
    with served() as (client, server):
        client.send("grüß", "é€😀")
        body = "grüß é€😀".encode()
        assert server.take(16 + len(body)) == frame(body)


def test_h20_server_is_full() -> None:
    """A client over the server's cap is told, by event and exception."""
    with (
        start_threaded_server((HOST, 0), max_connections=1) as server,
        connect(server.get_addr(), "first") as first,
    ):
        eventually(lambda: len(server) == 1, "the first joins")
        with connect(server.get_addr(), "second", blocking=False) as second:
            ends(second)
        assert len(server) == 1
        server.send_client("first", "ping")
        assert first.recv_raw() == b"ping "


@pytest.mark.parametrize("where", [("127.0.0.255", 65535), ("127.255.255.255", 1)])
def test_h22_whole_range_of_addresses(where: tuple[str, int]) -> None:
    """Octet 255 and port 65535 are looked for, not refused as no address."""
    with pytest.raises(HiSockError) as caught:
        connect(where).close()
    assert isinstance(caught.value, ConnectionError)


@counts_descriptors
@pytest.mark.parametrize("how", ["closed", "ended", "never there"])
def test_h23_sockets_are_really_closed(how: str) -> None:
    """A client keeps no descriptor: not after close, an end, or a failed connect."""
    before = open_descriptors()
    if how == "never there":
        listener = Listener()
        listener.sock.close()
        with pytest.raises(ConnectionError):
            connect(listener.address)
    else:
        with served() as (client, server):
            if how == "ended":
                server.sock.close()
                ends(client)
            own = client.get_client_addr()
            client.close()
            assert sockets_at(own) == []
    assert open_descriptors() == before


# --- stopping, threads, time -------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["silent", "slow", "gone"])
def test_h24_stop_from_outside(behaviour: str) -> None:
    """``stop_client`` and ``join`` are through within a second, whatever it does."""
    listener = Listener(buffer=4096)
    with listener.sock:
        client = threaded_connect(listener.address)
        client.start_client()
        with listener.accept() as server:
            if behaviour == "gone":
                server.sock.close()
            if behaviour == "slow":
                talker = in_thread(lambda: _talk(client))
                server.take(64)
            began = time.monotonic()
            client.stop_client()
            client.join()
            assert time.monotonic() - began < 1.0
            if behaviour == "slow":
                assert ends_within(talker, 1.0)
    client.close()


def _talk(client: HiSockClient) -> None:
    with contextlib.suppress(HiSockError):
        while True:
            client.send("x", b"x" * 64 * 1024)


def test_h24_stop_from_a_handler() -> None:
    """In a handler stop only sets the flag: its thread ends after the handler."""
    listener = Listener()
    done = threading.Event()
    with listener.sock:
        client = threaded_connect(listener.address)

        @client.on("stop")
        def stop() -> None:
            client.stop_client()
            client.join()  # from its own thread: returns at once
            done.set()

        client.start_client()
        with listener.accept() as server:
            server.send(frame(b"stop"))
            assert done.wait(1.0)
            assert ends_within(in_thread(client.join), 1.0)
            assert server.take_all().endswith(frame(CLIENT_GOODBYE))


def test_h24_second_start_raises() -> None:
    """A thread is started once; a second start says so, also after the stop."""
    listener = Listener()
    with listener.sock:
        client = threaded_connect(listener.address)
        client.start_client()
        with pytest.raises(AlreadyRunning):
            client.start_client()
        listener.accept().sock.close()
        client.stop_client()
        client.join()
        with pytest.raises(RuntimeError):
            client.start_client()


def test_h24_stop_before_start() -> None:
    """A client that never started stops and joins within a second."""
    listener = Listener()
    with listener.sock:
        client = threaded_connect(listener.address)
        began = time.monotonic()
        client.stop_client()
        client.join()
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("waits", ["update", "recv_raw"])
def test_h24_close_wakes_whoever_waits(waits: str) -> None:
    """``close`` from another thread ends a wait: ``update`` returns, others raise."""
    results: list[object] = []

    def wait(client: HiSockClient) -> None:
        try:
            results.append(getattr(client, waits)())
        except ClientDisconnected as error:
            results.append(type(error))

    with served(blocking=True) as (client, server):
        waiting = in_thread(lambda: wait(client))
        closing = in_thread(client.close)
        assert server.take_all() == frame(CLIENT_GOODBYE)
        server.sock.close()
        assert ends_within(closing, 1.5)
        assert ends_within(waiting, 1.0)
    assert results == [{"update": None, "recv_raw": ClientDisconnected}[waits]]


def test_h25_threads_never_interleave() -> None:
    """Messages that many threads send come whole, each thread's in order."""
    threads, each = 4, 300
    with served(blocking=True) as (client, server):

        def talk(who: int) -> None:
            for number in range(each):
                client.send(f"t{who}", b"%d " % number * 50)

        def talker(who: int) -> threading.Thread:
            return in_thread(lambda: talk(who))

        talkers = [talker(who) for who in range(threads)]
        came: dict[bytes, list[int]] = {}
        for _ in range(threads * each):
            word, _, rest = server.take_frame().partition(b" ")
            numbers = set(rest.split())
            assert len(numbers) == 1
            came.setdefault(word, []).append(int(numbers.pop()))
        assert all(ends_within(thread, 1.0) for thread in talkers)
    assert sorted(came) == [b"t0", b"t1", b"t2", b"t3"]
    assert all(numbers == list(range(each)) for numbers in came.values())


@pytest.mark.usefixtures("restless")
def test_f32_eight_threads_and_a_close() -> None:
    """Some send, some ask, some receive, and one closes: nobody hangs, each is told,
    and what arrived is whole and in each thread's order."""
    came: dict[int, list[int]] = {who: [] for who in range(4)}
    server = start_threaded_server((HOST, 0))

    @server.on("it")
    def it(client: ClientInfo, message: list[Any]) -> None:
        who, number, padding = message
        assert padding == "x" * (number % 50)
        came[who].append(number)
        client.send("news", number)

    server.on("double")(lambda client, number: 2 * number)
    done: list[object] = []
    with server:
        client = connect(server.get_addr(), "us")

        def until_closed(action: Callable[[int], object]) -> None:
            try:
                for number in range(1_000_000):
                    action(number)
            except (ClientDisconnected, SessionLost) as error:
                done.append(error)

        def sender(who: int) -> Callable[[int], object]:
            return lambda number: client.send("it", [who, number, "x" * (number % 50)])

        def ask(number: int) -> None:
            assert client.call("double", number) == 2 * number

        actions = [*map(sender, range(4)), ask, ask]
        actions += [lambda number: client.recv("news")] * 2
        threads = [in_thread(partial(until_closed, action)) for action in actions]
        eventually(lambda: all(len(each) > 50 for each in came.values()), "a lot")
        assert ends_within(in_thread(client.close), 5.0)
        assert all(ends_within(thread, 5.0) for thread in threads)
        assert len(done) == len(actions)
        eventually(lambda: not len(server), "it leaves")
    for numbers in came.values():
        assert numbers == list(range(len(numbers)))


def test_h26_half_open_servers_are_found() -> None:
    """The kernel asks a silent server whether it lives, and gives it up after 20 s."""
    with served() as (client, _):
        (sock,) = sockets_at(client.get_client_addr())
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            given_up = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert given_up == 20_000
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10


def test_h27_tls_server() -> None:
    """A server that wants TLS ends our client with an error, not with silence."""
    with served() as (client, server):
        server.send(b"\x15\x03\x03\x00\x02\x02\x28")  # alert: handshake failure
        assert "\\x15\\x03\\x03" in str(ends(client))


@pytest.mark.parametrize("size", [0, -1])
def test_c09_no_cache_is_no_cache(size: int) -> None:
    """``cache_size`` of 0 or less remembers nothing."""
    with served(cache_size=size) as (client, server):
        ran = record(client, "ping")
        server.send(frame(b"ping x") * 100)
        turn_until(client, lambda: len(ran) == 100)
        assert client.get_cache() == []


def test_c09_cache_is_bounded() -> None:
    """A cache holds the newest ``cache_size`` messages, and no more."""
    with served(cache_size=3) as (client, server):
        ran = record(client, "ping")
        server.send(b"".join(frame(b"ping %d" % number) for number in range(100)))
        turn_until(client, lambda: len(ran) == 100)
        assert client.get_cache() == [
            {"header": header(7), "content": b"ping %d" % number}
            for number in (97, 98, 99)
        ]


def test_c09_unclaimed_messages_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody handles nor receives is kept up to a limit; the oldest goes."""
    caplog.set_level(logging.WARNING, "hisock.client")
    with served(limits=Limits(unclaimed_messages=3)) as (client, server):
        ran = record(client, "done")
        server.send(b"".join(frame(b"raw %d" % number) for number in range(10)))
        server.send(frame(b"done"))
        turn_until(client, lambda: ran)
        assert [client.recv_raw() for _ in range(3)] == [b"raw 7", b"raw 8", b"raw 9"]
    # Logged the first time, the tenth, the hundredth: nobody floods the log.
    assert caplog.text.count("dropped what nobody received (1)") == 1
    assert caplog.text.count("dropped") == 1


def test_c10_recv_raw_and_update_share() -> None:
    """Each gets its own: ``update`` what has a handler, ``recv_raw`` the rest."""
    with served() as (client, server):
        ran = record(client, "ping")
        for number in range(3):
            server.send(frame(b"ping %d" % number) + frame(b"raw %d" % number))
        assert client.recv_raw() == b"raw 0"
        assert ran == []
        client.update()
        assert ran == [("ping", b"0"), ("ping", b"1"), ("ping", b"2")]
        assert [client.recv_raw(), client.recv_raw()] == [b"raw 1", b"raw 2"]


def test_c10_get_client_eats_nobodys_message() -> None:
    """The answer to ``get_client`` is found among other messages, which stay."""
    answer = b'{"ip": ["10.0.0.1", 1], "name": "x", "group": null}'
    with served() as (client, server):
        ran = record(client, "ping")
        server.send(frame(b"raw") + frame(b"ping 1") + frame(answer))
        assert client.get_client("x")["name"] == "x"
        assert ran == []
        assert client.recv_raw() == b"raw"
        turn_until(client, lambda: ran)
        assert ran == [("ping", b"1")]


def test_c10_in_a_handler() -> None:
    """``recv_raw`` in a handler takes its message out of the running batch."""
    with served() as (client, server):
        ran: list[bytes] = []
        client.on("ask")(lambda: ran.append(client.recv_raw()))
        client.on("ping")(lambda content: ran.append(content))
        server.send(frame(b"ask") + frame(b"ping 1") + frame(b"raw"))
        turn_until(client, lambda: len(ran) == 2)
        assert ran == [b"raw", b"1"]


def test_nobody_is_there() -> None:
    """A client without a server is the documented ServerNotRunning, at once."""
    server = start_server((HOST, 0))
    server.close()
    with pytest.raises(ConnectionError, match="no server is running"):
        connect(server.get_addr())


def test_hello_is_one_write() -> None:
    """Header and body leave together, since 1.1 reads each message with one ``recv``;
    and so does the probe that tells which wire the server speaks."""
    listener = Listener()
    with (
        listener.sock,
        connect(listener.address, "us", "g") as client,
        listener.accept() as server,
    ):
        said = server.sock.recv(65536)
        size = int(said[:16])
        assert said[16 : 16 + size].startswith(b'$CLTHELLO$ {"name": "us", ')
        assert said[16 + size :] == frame(PROBE)
        server.send(frame(b"$NOTLS$"))
        client.send("ping", "hi")
        assert server.sock.recv(65536) == frame(b"ping hi")
        server.sock.close()
