"""Whatever is put in wrongly is told at once: what was wrong, and what would be right.

Each is an error of ours and of the type that programs for 1.1 catch; nothing hangs.
"""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

import hisock
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
        self.turn_until(lambda: len(server) > before)
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
    (None, 'an address is ("host", port)'),
    (6969, 'an address is ("host", port)'),
    ("127.0.0.1", 'an address is ("host", port)'),
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


@pytest.mark.parametrize("value", ["default", {}, "auto", True])
def test_tls_that_would_not_encrypt(value: Any) -> None:
    """Is refused, with what to do instead: 1.1's stub never encrypted."""
    told = refused(
        lambda: HiSockServer(ANYWHERE, tls=value), errors.InvalidOption, ValueError
    )
    assert "would not encrypt" in told
    assert "Leave it out" in told


@pytest.mark.parametrize("value", ["ignore", None, True])
def test_a_wrong_errors_option(value: Any) -> None:
    """Is "log" or "raise"."""
    told = refused(
        lambda: hisock.start_server(ANYWHERE, errors=value), errors.InvalidOption
    )
    assert '"log" or "raise"' in told


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


def test_a_message_at_the_limit_and_one_over(pair: Pair) -> None:
    """The largest message arrives, one more byte is refused; both directions."""
    limits = Limits(message=1000)
    server, got = pair.server(limits=limits), list[int]()
    client = pair.client(server, name="ann", group="red", limits=limits)
    server.on("it")(lambda who, message: got.append(len(message)))
    client.on("it")(lambda message: got.append(len(message)))
    sends: tuple[Callable[[bytes], None], ...] = (
        lambda content: client.send("it", content),
        lambda content: client.raw_send(b"it " + content),
        lambda content: server.send_client("ann", "it", content),
        lambda content: server.send_client_raw("ann", b"it " + content),
        lambda content: server.send_group("red", "it", content),
        lambda content: server.send_group_raw("red", b"it " + content),
        lambda content: server.send_all_clients("it", content),
    )
    for send in sends:
        told = refused(lambda: send(bytes(998)), errors.MessageTooLarge, ValueError)  # noqa: B023
        assert "has 1001 bytes, the limit is 1000" in told
        assert "in pieces" in told
        send(bytes(997))
    pair.turn_until(lambda: len(got) == len(sends))
    assert got == [997] * len(sends)


def test_the_default_limit(pair: Pair) -> None:
    """16 MiB, command and space included."""
    server, got = pair.server(), list[int]()
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


def test_a_server_ends_who_announces_too_much(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """One over its own limit; the others go on, the log has both numbers."""
    server, got = pair.server(limits=Limits(message=1000)), list[bytes]()
    server.on("it")(lambda who, message: got.append(message))
    bold = pair.client(server, name="bold")
    good = pair.client(server, name="good")
    told: list[bool] = []
    bold.on("force_disconnect")(lambda: told.append(True))
    with caplog.at_level(logging.WARNING, "hisock.server"):
        bold.send("it", bytes(998))
        good.send("it", b"x")
        pair.turn_until(lambda: got and told)
    assert server.get_all_clients("name") == ["good"]
    (record,) = caplog.records
    assert "1001 bytes was announced, the limit is 1000" in record.getMessage()


def test_a_client_ends_when_the_server_announces_too_much(pair: Pair) -> None:
    """``update`` says why."""
    server = pair.server()
    client = pair.client(server, name="ann", limits=Limits(message=1000))
    server.send_client("ann", "it", bytes(998))
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


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (object(), "cannot send object; content is bytes, str, int"),
        ({1, 2}, "cannot send set"),
        (print, "cannot send builtin_function_or_method"),
        (1j, "cannot send complex"),
        ([object()], "cannot send this list as JSON"),
        ({"a": b"bytes"}, "cannot send this dict as JSON"),
        ({(1, 2): "a"}, "cannot send this dict as JSON"),
        (LOOP, "cannot send this list as JSON"),
        ("\ud800", "cannot send this text as UTF-8"),
        (["\ud800"], ""),
    ],
)
def test_content_that_cannot_be_sent(pair: Pair, content: Any, text: str) -> None:
    """Is a ``TypeError`` before a byte leaves, in every send."""
    server = pair.server()
    client = pair.client(server, name="ann", group="red")
    if content == ["\ud800"]:
        client.send("it", content)  # JSON writes it as an escape
        return
    calls: tuple[Call, ...] = (
        lambda: client.send("it", content),
        lambda: client.raw_send(content),
        lambda: server.send_client("ann", "it", content),
        lambda: server.send_client_raw("ann", content),
        lambda: server.send_group("red", "it", content),
        lambda: server.send_group_raw("red", content),
        lambda: server.send_all_clients("it", content),
    )
    for call in calls:
        assert text in refused(call, errors.NotSendable, TypeError)


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
    async def generator(a: Any) -> Any:
        yield a

    @staticmethod
    def only_message(message: int) -> None: ...

    @staticmethod
    def message_set(client: ClientInfo, message: set[int]) -> None: ...

    @staticmethod
    def message_text(client: ClientInfo, message: no_such_type) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # that is the point

    @staticmethod
    def client_set(message: set[int]) -> None: ...

    on_server: ClassVar[list[tuple[str, Any, str]]] = [
        ("it", three, "takes (client, message);"),
        ("it", four, "takes 4 parameters (a, b, c, d)"),
        ("it", keyword, "needs the keyword 'b'"),
        ("it", coroutine, "plain functions only"),
        ("it", generator, "plain functions only"),
        ("it", only_message, "Write two: (client, message: int)"),
        ("it", message_set, "can be converted to bytes, str, int, float, list, dict"),
        ("it", message_text, "asks for no_such_type"),
        ("join", two, "takes (client);"),
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
        ("it", client_set, "can be converted to bytes, str, int, float, list, dict"),
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


@pytest.mark.parametrize("command", ["", None, 5, b"it", "$it$", "a $it$ b", "*"])
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
        lambda: server.send_client("ann", command, b"x"),
        lambda: server.send_group("red", command, b"x"),
        lambda: server.send_all_clients(command, b"x"),
    )
    for call in calls:
        told = refused(call, errors.ReservedCommand, ValueError, TypeError)
        assert "$command$" in told or "not empty" in told


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
    """Nobody is in it: a ``TypeError`` too."""
    server = pair.server()
    pair.client(server)
    calls: tuple[Call, ...] = (
        lambda: server.get_group(group),
        lambda: server.send_group(group, "it", b""),
        lambda: server.send_group_raw(group, b""),
    )
    for call in calls:
        refused(call, errors.UnknownGroup, TypeError)


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
        (b"GET / HTTP/1.1\r\n\r\n", b"99999999$", os.urandom(64) + b"\0"),
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
