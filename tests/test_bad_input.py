"""Whatever is put in wrongly is told at once: what was wrong, and what would be right.

Each is an error of ours and of the type that programs for 1.1 catch; nothing hangs.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import logging
import math
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from tests.spelled import spelled

import hisock
import hisock.aio
from hisock import ClientInfo, HiSockClient, HiSockServer, Limits, errors

pytestmark = pytest.mark.timeout(5)

LOCALHOST = "127.0.0.1"
ANYWHERE = (LOCALHOST, 0)

Peer = HiSockServer | HiSockClient
Call = Callable[[], object]


class Pair:
    """A server and clients, turned by hand one after the other."""

    def __init__(self) -> None:
        self.made: list[Peer] = []

    def server(self, **options: Any) -> HiSockServer:
        """A non-blocking server on a free port."""
        made = hisock.start_server(ANYWHERE, blocking=False, **options)
        self.made.append(made)
        return made

    def client(self, server: HiSockServer, **options: Any) -> HiSockClient:
        """A non-blocking client that has joined."""
        before = len(server)
        made = hisock.connect(server.addr, blocking=False, **options)
        self.made.append(made)
        self.turn_until(lambda: len(server) > before and made.wire is not None)
        return made

    def turn_until(self, done: Callable[[], object]) -> None:
        """Turn everybody until ``done()`` is true; the test's time-out is the end."""
        pause = threading.Event()
        while not done():
            for peer in self.made:
                if isinstance(peer, HiSockServer):
                    peer.run()
                else:
                    peer.update()
            pause.wait(0.0005)

    def close(self) -> None:
        """End everybody, both sides at once."""
        ends = [threading.Thread(target=peer.close) for peer in self.made]
        for end in ends:
            end.start()
        for end in ends:
            end.join()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Makes servers and clients, and closes them."""
    made = Pair()
    yield made
    made.close()


def refused(call: Call, ours: type[Exception], *theirs: type[Exception]) -> str:
    """The text of the error of ours that ``call`` raises, which is also ``theirs``."""
    with pytest.raises(ours) as caught:
        call()
    assert isinstance(caught.value, errors.HiSockError)
    for kind in theirs:
        assert isinstance(caught.value, kind)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


# --- addresses --------------------------------------------------------------------

WRONG_ADDRESSES = [
    (6969, 'an address is ("host", port)'),
    ("127.0.0.1", "'127.0.0.1' has no port; an address is like \"127.0.0.1:6969\""),
    ("127.0.0.1:http", "has no port"),
    ("127.0.0.1:99999", "port 99999 is not from 0 to 65535"),
    ("no such host.invalid:6969", "no known host name"),
    ("::1:6969", 'is ambiguous; write an IPv6 address as "[::1]:6969"'),
    ("[::1]", "has no port"),
    ("", "has no port"),
    ("unix:", "names no file; write unix:/path/to/socket"),
    ("unix:/a\0b", "names no file"),
    (b"127.0.0.1:6969", 'an address is ("host", port)'),
    ((), 'an address is ("host", port)'),
    (("127.0.0.1",), 'an address is ("host", port)'),
    (("127.0.0.1", 6969, 1), 'an address is ("host", port)'),
    ((127, 6969), 'an address is ("host", port)'),
    (("127.0.0.1", "6969"), "the port is a whole number, not '6969'"),
    (("127.0.0.1", None), "the port is a whole number, not None"),
    (("127.0.0.1", 1.5), "the port is a whole number, not 1.5"),
    (("127.0.0.1", True), "not"),
    (("127.0.0.1", -1), "port -1 is not from 0 to 65535"),
    (("127.0.0.1", 65536), "port 65536 is not from 0 to 65535"),
    (("no such host.invalid", 6969), "no known host name"),
    (("a" * 300, 6969), "no known host name"),
    (("\ud800", 6969), "no known host name"),
    (("127.0.0.1\0", 6969), "no known host name"),
]


@pytest.mark.parametrize("make", [hisock.start_server, hisock.connect])
@pytest.mark.parametrize(("address", "text"), WRONG_ADDRESSES)
def test_a_wrong_address(
    make: Callable[[Any], object], address: Any, text: str
) -> None:
    """Is refused with the form that is right, on both sides."""
    told = refused(
        lambda: make(address), errors.InvalidAddress, ValueError, TypeError, OSError
    )
    assert text in told


def test_no_address_at_all(pair: Pair) -> None:
    """A client needs one; a server without one listens nowhere."""
    told = refused(lambda: hisock.connect(None), errors.InvalidAddress, ValueError)  # type: ignore[arg-type]  # that is the point
    assert 'an address is ("host", port)' in told
    assert 'or "host:port" or "unix:/path", not None' in told
    nowhere = hisock.start_server(None, blocking=False)
    pair.made.append(nowhere)
    nowhere.run()
    assert nowhere.addr is None


def test_a_socket_file_that_cannot_be(tmp_path: Path) -> None:
    """Where no file can be made nobody listens, and where none is nobody answers."""
    missing = f"unix:{tmp_path}/no/such/folder"
    told = refused(lambda: hisock.start_server(missing), errors.CannotListen, OSError)
    assert f"cannot listen at {missing}" in told
    told = refused(
        lambda: hisock.connect(missing), errors.ServerNotRunning, ConnectionError
    )
    assert f"no server is running at {missing}" in told


def test_a_socket_file_in_use(tmp_path: Path, pair: Pair) -> None:
    """Is told as a port in use is."""
    address = f"unix:{tmp_path}/it"
    pair.made.append(hisock.start_server(address, blocking=False))
    told = refused(lambda: hisock.start_server(address), errors.AddressInUse, OSError)
    assert f"another program listens at {address}" in told


def test_an_address_of_another_machine() -> None:
    """A server cannot listen there, and is told where it can."""
    told = refused(
        lambda: hisock.start_server(("192.0.2.1", 0)), errors.CannotListen, OSError
    )
    assert "192.0.2.1 is no address of this machine" in told
    assert "get_local_ip" in told


def test_a_port_in_use(pair: Pair) -> None:
    """Tells which, and what to do; ``errno`` is the system's."""
    address = pair.server().addr
    told = refused(lambda: hisock.start_server(address), errors.AddressInUse, OSError)
    assert f"port {address[1]} is in use" in told
    assert "take another port" in told
    with pytest.raises(OSError, match="in use") as caught:
        hisock.start_server(address)
    assert caught.value.errno


def test_a_port_for_the_administrator_only() -> None:
    """Tells from which port on anybody may listen."""
    with socket.socket() as probe:
        try:
            probe.bind((LOCALHOST, 1))
        except PermissionError:
            pass
        except OSError:
            pytest.skip("port 1 is taken here")
        else:
            pytest.skip("this user may bind every port")
    told = refused(
        lambda: hisock.start_server((LOCALHOST, 1)),
        errors.PrivilegedPort,
        PermissionError,
    )
    assert "from 1024 up" in told


@pytest.mark.parametrize("make", [hisock.connect, hisock.threaded_connect])
def test_no_server_there(make: Callable[..., object]) -> None:
    """Says so at once, as a ``ConnectionError``."""
    with socket.create_server(ANYWHERE) as listener:
        address = listener.getsockname()[:2]
    told = refused(
        lambda: make(address), errors.ServerNotRunning, ConnectionError, OSError
    )
    assert f"no server is running at {LOCALHOST}:{address[1]}" in told
    assert "start it first" in told


def test_connecting_to_port_0() -> None:
    """Is nobody's port, though a server may be made with it."""
    told = refused(lambda: hisock.connect(ANYWHERE), errors.InvalidAddress, ValueError)
    assert "give its real port" in told


# --- options ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header_len", "text"),
    [
        (0, "2 to 64"),
        (1, "2 to 64"),
        (-16, "2 to 64"),
        (65, "2 to 64"),
        ("16", "a whole number, not '16'"),
        (16.0, "a whole number, not 16.0"),
        (None, "a whole number, not None"),
        (True, "a whole number, not True"),
    ],
)
def test_a_wrong_header_len(pair: Pair, header_len: Any, text: str) -> None:
    """Is refused before a socket is opened, on both sides."""
    address = pair.server().addr
    calls: tuple[Call, ...] = (
        lambda: hisock.start_server(ANYWHERE, header_len=header_len),
        lambda: hisock.connect(address, header_len=header_len),
    )
    for call in calls:
        assert text in refused(call, errors.InvalidOption, ValueError, TypeError)


def test_a_header_that_cannot_hold_the_hello(pair: Pair) -> None:
    """A long name needs more than two digits; the text says so."""
    address = pair.server().addr
    told = refused(
        lambda: hisock.connect(address, "n" * 70, header_len=2),
        errors.MessageTooLarge,
        ValueError,
    )
    assert "header_len 2 cannot hold" in told
    assert "use a larger header_len" in told


def test_a_header_that_cannot_hold_the_message(pair: Pair) -> None:
    """99 bytes are the most that two digits can say, in both directions."""
    server = pair.server(header_len=2)
    client = pair.client(server, name="ann", header_len=2)
    got: list[int] = []
    server.on("it")(lambda who, message: got.append(len(message)))
    client.on("it")(lambda message: got.append(len(message)))
    sends: tuple[Callable[[bytes], None], ...] = (
        lambda content: client.send("it", content),
        lambda content: server.send_client("ann", "it", content),
    )
    for send in sends:
        told = refused(lambda: send(bytes(97)), errors.MessageTooLarge, ValueError)  # noqa: B023
        assert "header_len 2 cannot hold the length of a message of 100 bytes" in told
        send(bytes(96))
    pair.turn_until(lambda: len(got) == 2)
    assert got == [96, 96]


def test_a_header_of_one_among_many_that_cannot_hold_it(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """A send to all reaches the others; who did not get it is in the log."""
    server, got = pair.server(), list[int]()
    pair.client(server, name="short", header_len=2)
    tall = pair.client(server, name="tall")
    tall.on("it")(lambda message: got.append(len(message)))
    with caplog.at_level(logging.ERROR, "hisock.server"):
        server.send_all_clients("it", bytes(200))
    pair.turn_until(lambda: got)
    (record,) = caplog.records
    assert "short" in record.getMessage()
    assert "header_len" in record.getMessage()


@pytest.mark.parametrize("value", [-1, 1.5, "5", None, True])
def test_a_wrong_max_connections(value: Any) -> None:
    """Is a number from 0 up."""
    told = refused(
        lambda: hisock.start_server(ANYWHERE, max_connections=value),
        errors.InvalidOption,
        ValueError,
    )
    assert "max_connections is" in told


@pytest.mark.parametrize("value", ["default", {}, "Auto", True, 7])
def test_tls_that_would_not_encrypt(value: Any) -> None:
    """Is refused, with what to do instead: 1.1's stub never encrypted."""
    told = refused(
        lambda: HiSockServer(ANYWHERE, tls=value), errors.InvalidOption, ValueError
    )
    assert 'tls= "auto", {"cert": file, "key": file} or SSLContext' in told


@pytest.mark.parametrize("value", ["ignore", None, True])
def test_a_wrong_errors_option(value: Any) -> None:
    """Is "log" or "raise"."""
    told = refused(
        lambda: hisock.start_server(ANYWHERE, errors=value), errors.InvalidOption
    )
    assert '"log" or "raise"' in told


@pytest.mark.parametrize("value", [-1e-6, 1, "50e-6", None, True, float("nan")])
def test_a_spin_that_is_none(value: Any) -> None:
    """Is a time, and a short one."""
    told = refused(
        lambda: hisock.start_server(ANYWHERE, spin=value), errors.InvalidOption
    )
    assert "seconds" in told


def test_a_spin_where_asyncio_waits() -> None:
    """Is refused: there is no run() to spin in."""
    told = refused(
        lambda: hisock.aio.start_server(ANYWHERE, spin=50e-6), errors.InvalidOption
    )
    assert "asyncio" in told


@pytest.mark.parametrize(
    "value", ["classic", (), [], {}, 5, ("websockets",), ("classic", 1), [["classic"]]]
)
def test_wires_that_nobody_speaks(value: Any) -> None:
    """Names those there are, and how they are written."""
    told = refused(
        lambda: hisock.start_server(ANYWHERE, wires=value),
        errors.InvalidOption,
        ValueError,
        TypeError,
    )
    assert '"classic"' in told
    assert '"compact"' in told


@pytest.mark.parametrize("value", [-1, math.nan, "1", True, None, []])
def test_a_wrong_wait(pair: Pair, value: Any) -> None:
    """Is 0 or more seconds."""
    address = pair.server().addr
    told = refused(
        lambda: hisock.connect(address, wait=value), errors.InvalidOption, ValueError
    )
    assert "wait is 0 or more seconds" in told


@pytest.mark.parametrize("value", [5, "x", {}, Limits])
@pytest.mark.parametrize("make", [hisock.start_server, hisock.connect])
def test_limits_that_are_none(
    pair: Pair, make: Callable[..., object], value: Any
) -> None:
    """Shows how they are written, on both sides."""
    address = pair.server().addr if make is hisock.connect else ANYWHERE
    told = refused(lambda: make(address, limits=value), errors.InvalidOption, TypeError)
    assert "limits is like Limits(message=1000)" in told


#: What is no number of seconds, and what is too many.
NO_TIMES: list[tuple[Any, str]] = [
    ("1", "a time is a number of seconds, not '1'"),
    ([], "a time is a number of seconds, not []"),
    (True, "a time is a number of seconds, not True"),
    (1j, "a time is a number of seconds, not 1j"),
    (math.nan, "a time is at most 1e9 seconds, not nan"),
    (math.inf, "a time is at most 1e9 seconds, not inf"),
    (1e300, "a time is at most 1e9 seconds, not 1e+300"),
    (10**400, "a time is at most 1e9 seconds, not 1"),
]
NOT_MORE_THAN_0: list[tuple[Any, str]] = [
    *NO_TIMES,
    (0, "more than 0 seconds, not 0"),
    (-1, "more than 0 seconds, not -1"),
]


@pytest.mark.parametrize(("value", "text"), NO_TIMES)
def test_a_wrong_time_to_wait(pair: Pair, value: Any, text: str) -> None:
    """Is refused by whatever waits, before it waits and before anything is sent."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    calls: tuple[Call, ...] = (
        lambda: server.run(timeout=value),
        lambda: server.poll(value),
        lambda: server.call_client("ann", "it", timeout=value),
        lambda: server.call_any("red", "it", timeout=value),
        lambda: server.call_group("red", "it", timeout=value),
        lambda: server.group("red").call("it", timeout=value),
        lambda: server.stream_client("ann", "it", timeout=value),
        lambda: server.client("ann").call("it", timeout=value),
        lambda: client.update(timeout=value),
        lambda: client.poll(value),
        lambda: client.recv("it", timeout=value),
        lambda: client.recv_any(timeout=value),
        lambda: client.call("it", timeout=value),
        lambda: client.stream("it", timeout=value),
    )
    for call in calls:
        assert text in refused(call, errors.InvalidOption, ValueError, TypeError)
    assert server.stats()["open_calls"] == 0


@pytest.mark.parametrize(("value", "text"), NOT_MORE_THAN_0)
def test_a_wrong_life_time(pair: Pair, value: Any, text: str) -> None:
    """``ttl`` is more than 0 seconds, in every send; nothing is sent."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    got: list[object] = []
    server.on("it")(lambda who, message: got.append(message))
    client.on("it")(got.append)
    calls: tuple[Call, ...] = (
        lambda: client.send("it", 1, ttl=value),
        lambda: server.send_client("ann", "it", 1, ttl=value),
        lambda: server.send_group("red", "it", 1, ttl=value),
        lambda: server.group("red").send("it", 1, ttl=value),
        lambda: server.send_all_clients("it", 1, ttl=value),
        lambda: server.client("ann").send("it", 1, ttl=value),
    )
    for call in calls:
        assert text in refused(call, errors.InvalidOption, ValueError, TypeError)
    client.send("it", 2)
    server.send_client("ann", "it", 2, ttl=5.0)
    pair.turn_until(lambda: len(got) == 2)
    assert got == [2, 2]


@pytest.mark.parametrize("value", [0, -0.5])
def test_a_call_without_time(pair: Pair, value: float) -> None:
    """A call's time-out is more than 0 seconds, or ``None``."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    calls: tuple[Call, ...] = (
        lambda: server.call_client("ann", "it", timeout=value),
        lambda: server.call_group("red", "it", timeout=value),
        lambda: client.call("it", timeout=value),
    )
    for call in calls:
        told = refused(call, errors.InvalidOption, ValueError, TypeError)
        assert "a time is more than 0 seconds" in told


@pytest.mark.parametrize(("value", "text"), NOT_MORE_THAN_0)
def test_a_wrong_pace(pair: Pair, value: Any, text: str) -> None:
    """``every`` takes more than 0 seconds, on both sides."""
    server = pair.server()
    for peer in (server, pair.client(server)):
        told = refused(
            lambda: peer.every(value)(lambda: None),  # noqa: B023
            errors.InvalidOption,
            ValueError,
            TypeError,
        )
        assert text in told


@pytest.mark.parametrize("thing", [None, 5, "print", [print]])
def test_what_is_to_be_called_and_is_no_function(pair: Pair, thing: Any) -> None:
    """Is refused where it is registered, on both sides."""
    server = pair.server()
    for peer in (server, pair.client(server)):
        calls: dict[str, Call] = {
            "every() calls a function": lambda: peer.every(1)(thing),  # noqa: B023
            "on_error calls a function": lambda: peer.on_error(thing),  # noqa: B023
            "use() takes Handlers()": lambda: peer.use(thing),  # noqa: B023
        }
        for text, call in calls.items():
            told = refused(call, errors.InvalidOption, TypeError)
            assert f"{text}, not {thing!r}" in told


@pytest.mark.parametrize("value", [0, -1, "1", 1.5, None, True])
def test_a_wrong_concurrency(pair: Pair, value: Any) -> None:
    """Is a number from 1 up."""
    server = pair.server()
    for peer in (server, pair.client(server)):
        told = refused(
            lambda: peer.on("it", concurrency=value)(lambda: None),  # noqa: B023
            errors.InvalidOption,
            ValueError,
        )
        assert "concurrency is 1 or more" in told


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (print, "<built-in function print>"),
        (5, "5"),
        ("int", "'int'"),
        (type, "<class 'type'>"),
        (ClientInfo, "<class 'hisock.types.ClientInfo'>"),
        (list[type], "list[type]"),
    ],
)
def test_a_wrong_type_of_an_answer(pair: Pair, value: Any, name: str) -> None:
    """What nothing converts to is refused before anything is sent or taken."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    calls: tuple[Call, ...] = (
        lambda: client.call("it", type=value),
        lambda: client.stream("it", type=value),
        lambda: client.recv("it", type=value),
        lambda: server.call_client("ann", "it", type=value),
        lambda: server.call_any("red", "it", type=value),
        lambda: server.call_group("red", "it", type=value),
        lambda: server.stream_client("ann", "it", type=value),
    )
    server.send_client("ann", "it", 5)
    for call in calls:
        told = refused(call, errors.InvalidOption, ValueError, TypeError)
        assert f"nothing converts to type={name}" in told
    pair.turn_until(lambda: server.poll() == 0)
    assert client.recv("it", timeout=4) == 5


@pytest.mark.parametrize("value", [-1, "many", None, True])
def test_a_wrong_limit(value: Any) -> None:
    """Names the limit and what it may be."""
    told = refused(lambda: Limits(message=value), errors.InvalidOption, ValueError)
    assert "Limits.message is" in told


@pytest.mark.parametrize(
    "make", [hisock.start_server, hisock.start_threaded_server, hisock.connect]
)
def test_an_unknown_option(pair: Pair, make: Callable[..., object]) -> None:
    """Is a ``TypeError`` that names it."""
    address = pair.server().addr if make is hisock.connect else ANYWHERE
    with pytest.raises(TypeError, match="blokcing"):
        make(address, blokcing=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (5, "text or None, not 5"),
        (b"ann", "text or None, not b'ann'"),
        ("two\nlines", "no control characters"),
        ("nul\0", "no control characters"),
        ("\ud800", "no control characters"),
        ("x" * 256, "at most 255 bytes"),
        ("é" * 128, "at most 255 bytes"),
    ],
)
def test_a_wrong_name_or_group(pair: Pair, name: Any, text: str) -> None:
    """Is refused in ``connect`` and in the changes; the old one stays."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    calls: tuple[Call, ...] = (
        lambda: hisock.connect(server.addr, name),
        lambda: hisock.connect(server.addr, group=name),
        lambda: client.change_name(name),
        lambda: client.change_group(name),
    )
    for call in calls:
        assert text in refused(call, errors.InvalidName, ValueError, TypeError)
    assert (client.name, client.group) == ("ann", "red")
    assert server.get_client("ann")["group"] == "red"


# --- size -------------------------------------------------------------------------


#: What a message ``it`` with 255 bytes to 64 KiB has beyond them: on the wire of 1.1
#: the command and a space; on ours five bytes more, of which three are the length.
AROUND = {("classic",): 3, None: 8}
each_wire = pytest.mark.parametrize(
    ("wires", "around"), AROUND.items(), ids=["classic", "compact"]
)


@each_wire
def test_a_message_at_the_limit_and_one_over(
    pair: Pair, wires: Any, around: int
) -> None:
    """The largest message arrives, one more byte is refused; both directions."""
    limits = Limits(message=1000)
    server, got = pair.server(limits=limits, wires=wires), list[int]()
    client = pair.client(server, name="ann", group="red", limits=limits)
    server.on("it")(lambda who, message: got.append(len(message)))
    client.on("it")(lambda message: got.append(len(message)))
    sends: tuple[Callable[[bytes], None], ...] = (
        lambda content: client.send("it", content),
        lambda content: server.send_client("ann", "it", content),
        lambda content: server.send_group("red", "it", content),
        lambda content: server.send_all_clients("it", content),
    )
    raw_sends: tuple[Callable[[bytes], None], ...] = (
        lambda content: client.raw_send(b"it " + content),
        lambda content: server.send_client_raw("ann", b"it " + content),
        lambda content: server.send_group_raw("red", b"it " + content),
    )
    largest = 1000 - around
    for send in (*sends, *raw_sends):
        # On our wire a command beside the content saves the space between them; what
        # is sent to many has to fit our wire, even if nobody there speaks it.
        size = largest - (send in raw_sends and wires is None)
        if wires and send in (*sends[2:], raw_sends[2]):
            size = 1000 - AROUND[None] - (send in raw_sends)
        told = refused(lambda: send(bytes(size + 1)), errors.MessageTooLarge)  # noqa: B023
        assert "has 1001 bytes, the limit is 1000" in told
        assert "in pieces" in told
        send(bytes(size))
    pair.turn_until(lambda: len(got) == 7)
    assert sorted(set(got)) == ([991, 992, 997] if wires else [991, 992])


def test_the_default_limit(pair: Pair) -> None:
    """16 MiB, command and space included."""
    server, got = pair.server(wires=("classic",)), list[int]()
    client = hisock.connect(server.addr)
    server.on("it")(lambda who, message: got.append(len(message)))
    largest = 16 * 1024 * 1024 - len("it ")
    refused(lambda: client.send("it", bytes(largest + 1)), errors.MessageTooLarge)
    sending = threading.Thread(target=client.send, args=("it", bytes(largest)))
    sending.start()
    pair.turn_until(lambda: got)
    sending.join()
    closing = threading.Thread(target=client.close)
    closing.start()
    pair.turn_until(lambda: not closing.is_alive())
    closing.join()
    assert got == [largest]


@each_wire
def test_a_server_ends_who_announces_too_much(
    pair: Pair, wires: Any, around: int, caplog: pytest.LogCaptureFixture
) -> None:
    """One over its own limit; the others go on, the log has both numbers."""
    server = pair.server(limits=Limits(message=1000), wires=wires)
    got: list[bytes] = []
    server.on("it")(lambda who, message: got.append(message))
    bold = pair.client(server, name="bold")
    good = pair.client(server, name="good")
    told: list[bool] = []
    bold.on("force_disconnect")(lambda: told.append(True))
    with caplog.at_level(logging.WARNING, "hisock.server"):
        bold.send("it", bytes(1001 - around))
        good.send("it", b"x")
        pair.turn_until(lambda: got and told)
    assert server.get_all_clients("name") == ["good"]
    (record,) = [each for each in caplog.records if each.name == "hisock.server"]
    assert "1001 bytes was announced, the limit is 1000" in record.getMessage()


@each_wire
def test_a_client_ends_when_the_server_announces_too_much(
    pair: Pair, wires: Any, around: int
) -> None:
    """``update`` says why."""
    server = pair.server(wires=wires)
    client = pair.client(server, name="ann", limits=Limits(message=1000))
    server.send_client("ann", "it", bytes(1001 - around))
    told = refused(
        lambda: pair.turn_until(lambda: False),
        errors.ClientDisconnected,
        ConnectionError,
    )
    assert "1001 bytes was announced, the limit is 1000" in told
    with pytest.raises(errors.ClientDisconnected):
        client.send("it")


# --- content ----------------------------------------------------------------------

LOOP: list[Any] = []
LOOP.append(LOOP)


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Move(msgspec.Struct):
    to: Point


class Colour(enum.Enum):
    RED = "red"


#: What can be sent, and how it comes without a hint: on our wire, and on that of 1.1.
SENDABLE: list[tuple[Any, Any, bytes]] = [
    ({7}, [7], b"[7]"),
    (frozenset({7}), [7], b"[7]"),
    ((1, "a"), [1, "a"], b'[1, "a"]'),
    (Point(1, 2), {"x": 1, "y": 2}, b'{"x": 1, "y": 2}'),
    (Move(Point(1, 2)), {"to": {"x": 1, "y": 2}}, b'{"to": {"x": 1, "y": 2}}'),
    (Colour.RED, "red", b"red"),
    (datetime.date(2026, 11, 24), "2026-11-24", b"2026-11-24"),
    (uuid.UUID(int=5), str(uuid.UUID(int=5)), str(uuid.UUID(int=5)).encode()),
    (decimal.Decimal("1.5"), "1.5", b"1.5"),
    ({1: None}, {1: None}, b'{"1": null}'),
    (2**64 - 1, 2**64 - 1, b"18446744073709551615"),
    (-(2**63), -(2**63), b"-9223372036854775808"),
    (bytearray(b"x"), b"x", b"x"),
    (memoryview(b"x"), b"x", b"x"),
    (None, None, b""),
    (False, False, b"false"),
]


@pytest.mark.parametrize("wires", AROUND, ids=["classic", "compact"])
@pytest.mark.parametrize(
    ("content", "expected", "text"), SENDABLE, ids=[spelled(row[0]) for row in SENDABLE]
)
def test_content_that_can_be_sent(
    pair: Pair, wires: Any, content: Any, expected: Any, text: bytes
) -> None:
    """Beyond bytes, text and numbers: on our wire as what it is, on that of 1.1 as
    text, in both directions."""
    server, got = pair.server(wires=wires), list[Any]()
    client = pair.client(server, name="ann")
    server.on("it")(lambda who, message: got.append(message))
    client.on("it")(got.append)
    client.send("it", content)
    server.send_client("ann", "it", content)
    pair.turn_until(lambda: len(got) == 2)
    wanted = text if wires else expected
    assert got == [wanted] * 2
    assert [type(one) for one in got] == [type(wanted)] * 2


#: What cannot be sent on our wire, and what is said of it.
NOT_SENDABLE: list[tuple[Any, str]] = [
    (object(), "cannot send this object: objects of type object are not known"),
    (print, "cannot send this builtin_function_or_method"),
    (1j, "cannot send this complex"),
    ([object()], "cannot send this list: objects of type object are not known"),
    ({"a": {1j}}, "cannot send this dict: objects of type complex are not known"),
    (LOOP, "cannot send this list: it is too deep, or contains itself"),
    ("\ud800", "cannot send t"),
    (["\ud800"], "cannot send text that is not Unicode"),
    (2**64, "cannot send an integer of more than 64 bits; send it as text"),
    ([-(2**63) - 1], "cannot send an integer of more than 64 bits; send it as text"),
]


@pytest.mark.parametrize(("content", "text"), NOT_SENDABLE)
def test_content_that_cannot_be_sent(pair: Pair, content: Any, text: str) -> None:
    """Is a ``TypeError`` before a byte leaves, in every send and call."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    calls: tuple[Call, ...] = (
        lambda: client.send("it", content),
        lambda: client.raw_send(content),
        lambda: client.call("it", content),
        lambda: client.stream("it", content),
        lambda: server.send_client("ann", "it", content),
        lambda: server.send_client_raw("ann", content),
        lambda: server.send_group("red", "it", content),
        lambda: server.send_group_raw("red", content),
        lambda: server.send_all_clients("it", content),
        lambda: server.call_client("ann", "it", content),
        lambda: server.call_group("red", "it", content),
    )
    for call in calls:
        assert text in refused(call, errors.NotSendable, TypeError)
    assert server.stats()["open_calls"] == 0


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (object(), "cannot send object; content is bytes, str, int"),
        (print, "cannot send builtin_function_or_method"),
        (1j, "cannot send complex"),
        ([object()], "cannot send this list as JSON"),
        ({"a": b"bytes"}, "cannot send this dict as JSON"),
        ({(1, 2): "a"}, "cannot send this dict as JSON"),
        (LOOP, "cannot send this list as JSON"),
        ("\ud800", "cannot send this text as UTF-8"),
    ],
)
def test_content_that_has_no_text(pair: Pair, content: Any, text: str) -> None:
    """What 1.1 cannot be told is a ``TypeError`` before a byte leaves."""
    server = pair.server(wires=("classic",))
    client = pair.client(server, name="ann", group="red")
    calls: tuple[Call, ...] = (
        lambda: client.send("it", content),
        lambda: client.raw_send(content),
        lambda: server.send_client("ann", "it", content),
        lambda: server.send_client_raw("ann", content),
    )
    for call in calls:
        assert text in refused(call, errors.NotSendable, TypeError)


def test_content_that_some_cannot_be_told(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """A send to many reaches those whose wire can say it; the log names the other."""
    server, got = pair.server(), list[Any]()
    new = pair.client(server, name="new", group="red")
    old = pair.client(server, name="old", group="red", header_len=2)
    new.on("it")(got.append)
    old.on("it")(got.append)
    with caplog.at_level(logging.ERROR, "hisock.server"):
        server.send_group("red", "it", {"a": b"bytes"})
    server.send_group("red", "it", b"after")
    pair.turn_until(lambda: len(got) == 3)
    assert {"a": b"bytes"} in got
    assert got.count(b"after") == 2
    (record,) = caplog.records
    assert "sent to many cannot reach" in record.getMessage()
    assert "'old'" in record.getMessage()


@pytest.mark.parametrize("told", ["server", "client"])
def test_a_call_that_1_1_cannot_be_told(pair: Pair, told: str) -> None:
    """Is refused at once, with what to do; its code is ``classic_wire``."""
    server = pair.server(wires=("classic",) if told == "server" else None)
    header_len = 2 if told == "client" else 16
    client = pair.client(server, name="ann", group="red", header_len=header_len)
    calls: tuple[Call, ...] = (
        lambda: client.call("it"),
        lambda: client.stream("it"),
        lambda: server.call_client("ann", "it"),
        lambda: server.stream_client("ann", "it"),
        lambda: server.client("ann").call("it"),
    )
    for call in calls:
        with pytest.raises(errors.Refused, match="no calls and no streams; use send"):
            call()
        with pytest.raises(errors.Refused) as caught:
            call()
        assert caught.value.code == "classic_wire"
    answers = server.call_group("red", "it")
    assert list(answers) == []
    ((who, error),) = answers.failed
    assert (who["name"], error.code) == ("ann", "classic_wire")
    text = refused(lambda: server.call_any("red", "it"), errors.UnknownClient)
    assert "nobody in group 'red' can be called" in text


UNCONVERTIBLE = [
    (int, b"five", "expected int, got b'five'"),
    (int, b"", "expected int, got b''"),
    (int, b"1.5", "expected int, got b'1.5'"),
    (int, b"9" * 5000, "expected int"),
    (float, b"x", "expected float, got b'x'"),
    (str, b"\xff\xfe", "expected str"),
    (list, b"{}", "expected list"),
    (list, b"[1", "expected list"),
    (list, b"[" * 100_000, "expected list"),
    (dict, b"[]", "expected dict"),
    (dict, b"x", "expected dict"),
    (dict, b"\xff", "expected dict"),
]


def _hinted(hint: Any, function: Callable[..., None]) -> Callable[..., None]:
    function.__annotations__["message"] = hint
    return function


@pytest.mark.parametrize(("hint", "content", "text"), UNCONVERTIBLE)
def test_content_that_cannot_be_converted(
    pair: Pair, hint: Any, content: bytes, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A client's ``update`` raises; a server logs it and goes on; both say where."""
    server, got = pair.server(), list[str]()
    client = pair.client(server, name="ann")

    def on_server(who: ClientInfo, message: Any) -> None: ...

    def on_client(message: Any) -> None: ...

    server.on("it")(_hinted(hint, on_server))
    client.on("it")(_hinted(hint, on_client))
    server.on("next")(lambda: got.append("server"))
    client.on("next")(lambda: got.append("client"))
    with caplog.at_level(logging.WARNING, "hisock.server"):
        client.send("it", content)
        client.send("next")
        pair.turn_until(lambda: got)
    (record,) = caplog.records
    server.send_client("ann", "it", content)
    server.send_client("ann", "next")
    told = refused(
        lambda: pair.turn_until(lambda: len(got) == 2),
        errors.ConversionError,
        TypeError,
        ValueError,
    )
    for said in (record.getMessage(), told):
        assert text in said
        assert re.search(r"'it' for test_bad_input\.py:\d+", said)
        assert len(said) < 400
    pair.turn_until(lambda: len(got) == 2)
    assert got == ["server", "client"]


def test_numbers_that_are_none(pair: Pair) -> None:
    """``inf`` and ``nan`` are floats, and never an ``int``."""
    server, got = pair.server(errors="raise"), list[float]()
    client = pair.client(server)

    def to_float(who: ClientInfo, message: float) -> None:
        got.append(message)

    def to_int(who: ClientInfo, message: int) -> None: ...

    server.on("float")(to_float)
    server.on("int")(to_int)
    client.send("float", math.inf)
    pair.turn_until(lambda: got)
    assert got == [math.inf]
    for value in (math.inf, math.nan):
        client.send("int", value)
        refused(lambda: pair.turn_until(lambda: False), errors.ConversionError)


# --- handlers ---------------------------------------------------------------------


class Handlers:
    """Handlers that do not fit, and the text that says so."""

    @staticmethod
    def one(a: Any) -> None: ...

    @staticmethod
    def two(a: Any, b: Any) -> None: ...

    @staticmethod
    def three(a: Any, b: Any, c: Any) -> None: ...

    @staticmethod
    def four(a: Any, b: Any, c: Any, d: Any) -> None: ...

    @staticmethod
    def keyword(a: Any, *, b: Any) -> None: ...

    @staticmethod
    async def coroutine(a: Any) -> None: ...

    @staticmethod
    def generator(a: Any) -> Any:
        yield a

    @staticmethod
    async def async_generator(a: Any) -> Any:
        yield a

    @staticmethod
    def only_message(message: int) -> None: ...

    @staticmethod
    def message_type(client: ClientInfo, message: type) -> None: ...

    @staticmethod
    def message_text(client: ClientInfo, message: no_such_type) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # that is the point

    @staticmethod
    def client_type(message: list[type]) -> None: ...

    on_server: ClassVar[list[tuple[str, Any, str]]] = [
        ("it", three, "takes (client, message);"),
        ("it", four, "takes 4 parameters (a, b, c, d)"),
        ("it", keyword, "needs the keyword 'b'"),
        ("it", only_message, "Write two: (client, message: int)"),
        ("it", message_type, "can be converted to bytes, str, int, float, list, dict"),
        ("it", message_text, "asks for no_such_type"),
        ("*", four, "takes (client, command, message);"),
        ("*", keyword, "needs the keyword 'b'"),
        ("join", two, "takes (client);"),
        ("join", generator, "is a generator, which would never run"),
        ("message", generator, "is a generator, which would never run"),
        ("leave", async_generator, "is an async generator, which would never run"),
        ("leave", two, "takes 2 parameters (a, b)"),
        ("message", three, "takes (client, message);"),
        ("message", only_message, "Write two: (client, message: int)"),
        ("name_change", four, "takes (client, old_name, new_name);"),
        ("group_change", four, "takes (client, old_group, new_group);"),
    ]
    on_client: ClassVar[list[tuple[str, Any, str]]] = [
        ("it", two, "takes (message);"),
        ("it", keyword, "needs the keyword 'b'"),
        ("it", coroutine, "plain functions only"),
        ("it", async_generator, "plain functions only"),
        ("it", client_type, "can be converted to bytes, str, int, float, list, dict"),
        ("*", three, "takes (command, message);"),
        ("*", coroutine, "plain functions only"),
        ("client_connect", coroutine, "plain functions only"),
        ("force_disconnect", generator, "is a generator, which would never run"),
        ("client_connect", two, "takes (client);"),
        ("client_disconnect", two, "takes (client);"),
        ("force_disconnect", one, "takes ();"),
    ]


def _misfit(peer: Peer, command: str, wrapped: Any, text: str) -> None:
    """Register what does not fit; the text has file, line and expectation."""
    function = wrapped.__func__
    line = function.__code__.co_firstlineno
    told = refused(
        lambda: peer.on(command)(function),
        errors.HandlerSignatureError,
        TypeError,
        ValueError,
    )
    assert told.startswith(f"on({command!r}) takes (")
    assert f"test_bad_input.py:{line} " in told
    assert function.__name__ in told
    assert text in told
    assert command not in peer.funcs


@pytest.mark.parametrize(("command", "function", "text"), Handlers.on_server)
def test_a_server_handler_that_does_not_fit(
    pair: Pair, command: str, function: Any, text: str
) -> None:
    """Fails where it is registered, not when the first message comes."""
    _misfit(pair.server(), command, function, text)


@pytest.mark.parametrize(("command", "function", "text"), Handlers.on_client)
def test_a_client_handler_that_does_not_fit(
    pair: Pair, command: str, function: Any, text: str
) -> None:
    """The same on a client."""
    _misfit(pair.client(pair.server()), command, function, text)


@pytest.mark.parametrize("thing", [None, 5, "print"])
def test_a_handler_that_is_no_function(pair: Pair, thing: Any) -> None:
    """Is told so."""
    told = refused(
        lambda: pair.server().on("it")(thing), errors.HandlerSignatureError, TypeError
    )
    assert "is no function" in told


@pytest.mark.parametrize("command", ["", None, 5, b"it", "$it$", "a $it$ b"])
def test_a_command_that_cannot_be_registered(pair: Pair, command: Any) -> None:
    """Nothing, no text, and what hisock keeps for itself."""
    server = pair.server()
    for peer in (server, pair.client(server)):
        told = refused(
            lambda: peer.on(command)(lambda: None),  # noqa: B023
            errors.ReservedCommand,
            ValueError,
            TypeError,
        )
        assert repr(command) in told
        assert not peer.funcs


# --- reserved words ---------------------------------------------------------------


@pytest.mark.parametrize("command", ["$DISCONN$", "$x$", "a $CHNAME$", "", None, 5])
def test_a_command_that_cannot_be_sent(pair: Pair, command: Any) -> None:
    """Is refused in every send; the text shows the form that is reserved."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    calls: tuple[Call, ...] = (
        lambda: client.send(command, b"x"),
        lambda: client.call(command, b"x"),
        lambda: client.stream(command, b"x"),
        lambda: client.recv(command),
        lambda: server.send_client("ann", command, b"x"),
        lambda: server.send_group("red", command, b"x"),
        lambda: server.send_all_clients(command, b"x"),
        lambda: server.group("red").send(command, b"x"),
        lambda: server.call_client("ann", command, b"x"),
        lambda: server.call_group("red", command, b"x"),
        lambda: server.stream_client("ann", command, b"x"),
    )
    for call in calls:
        told = refused(call, errors.ReservedCommand, ValueError, TypeError)
        assert "$command$" in told or "not empty" in told
    assert client.is_connected
    assert server.stats()["open_calls"] == 0


@pytest.mark.parametrize(
    "content", [b"$USRCLOSE$", b"$DISCONN$", b"$CHNAME$ x", "$GETCLT$ x", "$ANY_WORD$"]
)
def test_raw_content_that_cannot_be_sent(pair: Pair, content: Any) -> None:
    """What the other side would take for hisock's own is refused."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    calls: tuple[Call, ...] = (
        lambda: client.raw_send(content),
        lambda: server.send_client_raw("ann", content),
        lambda: server.send_group_raw("red", content),
    )
    for call in calls:
        told = refused(call, errors.ReservedCommand, ValueError, TypeError)
        assert "$WORD$" in told
    client.send("it", content)  # behind a command it means nothing


@pytest.mark.parametrize("content", [b"$", b"$5", b"$5 and $6", b"$lower$", b"$$"])
def test_a_dollar_alone_is_nothing_special(pair: Pair, content: bytes) -> None:
    """Prices may be sent."""
    server, got = pair.server(), list[bytes]()
    server.on("message")(lambda who, message: got.append(message))
    client = pair.client(server)
    client.raw_send(content)
    pair.turn_until(lambda: got)
    assert got == [content]


# --- who --------------------------------------------------------------------------


def test_an_unknown_client(pair: Pair) -> None:
    """Is a ``TypeError`` with the name that was probably meant."""
    server = pair.server()
    pair.client(server, name="Anastasia")
    calls: tuple[Call, ...] = (
        lambda: server.client("Anastasai"),
        lambda: server.call_client("Anastasai", "it"),
        lambda: server.join_group("Anastasai", "red"),
        lambda: server.send_all_clients("it", b"", exclude="Anastasai"),
        lambda: server.get_client("Anastasai"),
        lambda: server.send_client("Anastasai", "it", b""),
        lambda: server.send_client_raw("Anastasai", b""),
        lambda: server.disconnect_client("Anastasai"),
    )
    for call in calls:
        told = refused(call, errors.UnknownClient, TypeError)
        assert "no client has the name 'Anastasai'" in told
        assert "Did you mean 'Anastasia'?" in told


def test_an_unknown_group(pair: Pair) -> None:
    """Is a ``TypeError`` with the group that was probably meant."""
    server = pair.server()
    pair.client(server, name="ann", group="players")
    calls: tuple[Call, ...] = (
        lambda: server.call_any("player", "it"),
        lambda: server.get_group("player"),
        lambda: server.send_group("player", "it", b""),
        lambda: server.send_group_raw("player", b""),
    )
    for call in calls:
        told = refused(call, errors.UnknownGroup, TypeError)
        assert "nobody is in group 'player'" in told
        assert "Did you mean 'players'?" in told


@pytest.mark.parametrize("group", [None, 5, b"red", ["red"], {}])
def test_a_group_that_is_none(pair: Pair, group: Any) -> None:
    """Nobody is in it: a ``TypeError`` too. However many are here."""
    server = pair.server()
    for _ in range(5):
        pair.client(server)
    calls: tuple[Call, ...] = (
        lambda: server.get_group(group),
        lambda: server.send_group(group, "it", b""),
        lambda: server.send_group_raw(group, b""),
    )
    for call in calls:
        refused(call, errors.UnknownGroup, TypeError)


@pytest.mark.parametrize("group", [None, 5, b"red", ["red"], "two\nlines", "é" * 128])
def test_a_group_that_nobody_can_be_in(pair: Pair, group: Any) -> None:
    """Is refused wherever somebody would be put into it; nothing changes."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    calls: tuple[Call, ...] = (
        lambda: server.group(group),
        lambda: server.join_group("ann", group),
        lambda: server.leave_group("ann", group),
    )
    for call in calls:
        refused(call, errors.LocalProtocolError, ValueError, TypeError)
    assert server.client("ann").groups == {"red"}
    assert client.group == "red"


def test_too_many_groups(pair: Pair) -> None:
    """Over the limit the next one is refused; the others stay."""
    server = pair.server(limits=Limits(groups=2))
    pair.client(server, name="ann")
    server.join_group("ann", "one")
    server.join_group("ann", "two")
    told = refused(lambda: server.join_group("ann", "three"), errors.InvalidOption)
    assert "is in 2 groups already" in told
    server.join_group("ann", "two")
    assert server.client("ann").groups == {"one", "two"}


@pytest.mark.parametrize(
    ("who", "text"),
    [
        (5, 'a client is a name, "ip:port", (ip, port) or what a handler got, not 5'),
        (None, "a client is a name"),
        (b"ann", "a client is a name"),
        (("127.0.0.1", "80"), "an address is (ip, port)"),
        (("127.0.0.1", 99999), "not from 1 to 65535"),
        (("not an ip", 80), "is no IP address"),
    ],
)
def test_a_client_in_no_known_form(pair: Pair, who: Any, text: str) -> None:
    """Is a ``ValueError`` that shows the forms there are."""
    server = pair.server()
    calls: tuple[Call, ...] = (
        lambda: server.get_client(who),
        lambda: server.send_client(who, "it", b""),
        lambda: server.send_client_raw(who, b""),
        lambda: server.disconnect_client(who),
    )
    for call in calls:
        assert text in refused(call, errors.InvalidClient, ValueError)


def test_an_unknown_command_is_logged_once(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """With the command that was probably meant, and where its handler stands."""
    server, got = pair.server(), list[str]()

    @server.on("message_all")
    def handler(client: ClientInfo) -> None: ...

    server.on("fence")(lambda: got.append("fence"))
    client = pair.client(server)
    with caplog.at_level(logging.WARNING, "hisock.server"):
        for _ in range(3):
            client.send("mesage_all", b"secret")
        client.send("fence")
        pair.turn_until(lambda: got)
    (record,) = caplog.records
    told = record.getMessage()
    assert "no handler for 'mesage_all'" in told
    assert "Did you mean 'message_all'?" in told
    assert re.search(r"test_bad_input\.py:\d+", told)
    assert "secret" not in told


# --- at the wrong time ------------------------------------------------------------


def test_a_server_after_close(pair: Pair) -> None:
    """Says that it is closed; ``run`` just returns."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    client.on("force_disconnect")(lambda: None)
    info = next(iter(server.clients.values()))
    closing = threading.Thread(target=server.close)
    closing.start()
    while closing.is_alive():
        try:
            client.update()
        except errors.ClientDisconnected:
            break
    closing.join()
    server.run()
    told = refused(
        lambda: server.send_all_clients("it", b""),
        errors.ServerClosed,
        errors.ServerException,
    )
    assert "is closed" in told
    gone: tuple[Call, ...] = (
        lambda: server.send_client("ann", "it", b""),
        lambda: server.send_client(info, "it", b""),
        lambda: server.send_group("red", "it", b""),
        lambda: server.get_client("ann"),
        lambda: server.get_group("red"),
        lambda: server.call_client("ann", "it"),
        lambda: server.call_client(info, "it"),
        lambda: info.send("it"),
        lambda: info.call("it"),
    )
    for call in gone:
        with pytest.raises((errors.ServerClosed, TypeError)):
            call()
    with pytest.raises(errors.ClientDisconnected):
        client.send("it")


def test_a_client_after_close(pair: Pair) -> None:
    """Says that this program closed it; ``update`` just returns."""
    server = pair.server()
    client = pair.client(server, name="ann")
    closing = threading.Thread(target=client.close)
    closing.start()
    pair.turn_until(lambda: not closing.is_alive())
    client.update()
    calls: tuple[Call, ...] = (
        lambda: client.send("it"),
        lambda: client.raw_send(b"x"),
        client.recv_raw,
        lambda: client.change_name("bea"),
        lambda: client.change_group("red"),
        lambda: client.get_client("ann"),
        lambda: client.call("it"),
        lambda: client.stream("it"),
        lambda: client.recv("it"),
        client.recv_any,
    )
    for call in calls:
        told = refused(
            call, errors.ClientDisconnected, errors.ClientException, ConnectionError
        )
        assert "closed by this program" in told
    assert client.name == "ann"


def test_a_turn_inside_a_handler(pair: Pair) -> None:
    """Names the cure, as a ``RuntimeError``."""
    server, told = pair.server(), list[str]()
    client = pair.client(server, name="ann")
    server.on("it")(
        lambda: told.append(refused(server.run, errors.AlreadyRunning, RuntimeError))
    )
    client.on("it")(
        lambda: told.append(refused(client.update, errors.AlreadyRunning, RuntimeError))
    )
    client.send("it")
    server.send_client("ann", "it")
    pair.turn_until(lambda: len(told) == 2)
    assert sorted(text.partition("(")[0] for text in told) == ["run", "update"]
    assert all("return from the handler instead" in text for text in told)


def test_a_second_turn_at_once(pair: Pair) -> None:
    """Is refused in the second thread; the first one goes on."""
    server, held, go_on = pair.server(), threading.Event(), threading.Event()

    @server.on("hold")
    def hold() -> None:
        held.set()
        go_on.wait(4)

    client = pair.client(server)
    client.send("hold")
    turning = threading.Thread(target=pair.turn_until, args=(held.is_set,))
    turning.start()
    assert held.wait(4)
    told = refused(server.run, errors.AlreadyRunning, RuntimeError)
    assert "already running in another thread" in told
    go_on.set()
    turning.join()


def test_starting_twice() -> None:
    """A threaded server or client starts once."""
    with hisock.start_threaded_server(ANYWHERE) as server:
        told = refused(server.start_server, errors.AlreadyRunning, RuntimeError)
        assert "was started before" in told
        with hisock.threaded_connect(server.addr) as client:
            refused(client.start_client, errors.AlreadyRunning, RuntimeError)


def test_a_stranger_is_no_client(pair: Pair) -> None:
    """Whoever says no hello is dropped without an answer; the others go on."""
    server, got = pair.server(), list[bytes]()
    server.on("it")(lambda who, message: got.append(message))
    client = pair.client(server)
    strangers = [socket.create_connection(server.addr, 4) for _ in range(3)]
    for stranger, says in zip(
        strangers,
        (b"POST / HTTP/1.1\r\n\r\n", b"99999999$", os.urandom(64) + b"\0"),
        strict=True,
    ):
        stranger.sendall(says)
    client.send("it", b"x")
    pair.turn_until(lambda: got)
    began = time.monotonic()
    for stranger in strangers:
        stranger.setblocking(False)
        ended: list[bool] = []

        def look(stranger: socket.socket = stranger, ended: list[bool] = ended) -> bool:
            try:
                ended.append(stranger.recv(100) == b"")
            except BlockingIOError:
                return False
            except ConnectionError:
                ended.append(True)
            return True

        pair.turn_until(look)
        assert ended == [True]
        stranger.close()
    assert time.monotonic() - began < 2
    assert len(server) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"page": "x"}, "a server has no option 'page'. Did you mean 'pages'?"),
        ({"dashbord": True}, "Did you mean 'dashboard'?"),
        ({"unique_name": "reject"}, "Did you mean 'unique_names'?"),
        ({"zzz": 1}, "a server has no option 'zzz'."),
    ],
)
def test_a_server_knows_its_options(options: Any, words: str) -> None:
    """A mistyped one is named, with the one that was meant."""
    with pytest.raises(TypeError, match=re.escape(words)):
        hisock.start_server(("127.0.0.1", 0), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nme": "x"}, "a client has no option 'nme'. Did you mean 'name'?"),
        ({"tokn": "x"}, "Did you mean 'token'?"),
    ],
)
def test_a_client_knows_its_options(options: Any, words: str) -> None:
    """As a server does, before it connects anywhere."""
    with pytest.raises(TypeError, match=re.escape(words)):
        hisock.connect(("127.0.0.1", 9), **options)
    with pytest.raises(TypeError, match=re.escape(words)):
        hisock.aio.connect(("127.0.0.1", 9), **options)


def test_pages_that_are_not_there(tmp_path: Path) -> None:
    """Where they were looked for is said, and how to have them beside the program."""
    with pytest.raises(
        errors.InvalidOption, match="is looked for where the program was"
    ):
        hisock.start_server(("127.0.0.1", 0), pages="no such folder")
    file = tmp_path / "server.py"
    file.write_text("")
    with pytest.raises(errors.InvalidOption, match=r"server\.py is a file"):
        hisock.start_server(("127.0.0.1", 0), pages=file)


@pytest.mark.parametrize("address", ["http://127.0.0.1:6969", "https://[::1]:5/"])
def test_the_address_of_a_page(address: str) -> None:
    """What to write in its place is said."""
    rest = address.partition("//")[2].strip("/")
    for begin in (hisock.connect, hisock.start_server):
        with pytest.raises(errors.InvalidAddress, match=re.escape(f'"{rest}"')):
            begin(address)


def test_a_stranger_does_not_hear_what_there_is() -> None:
    """Who calls what nobody handles hears the near name, not the program's files."""
    with hisock.start_threaded_server(("127.0.0.1", 0)) as server:
        server.on("move")(lambda client, message: None)
        with (
            hisock.connect(server.addr) as client,
            pytest.raises(errors.RemoteError) as caught,
        ):
            client.call("mov")
    assert caught.value.message == "no handler for 'mov'. Did you mean 'move'?"
