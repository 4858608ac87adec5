"""Limits: each passes what is just allowed and answers one more as the table of
``docs/promises.md`` says; none is left out."""

from __future__ import annotations

import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from hisock import Limits
from hisock.engine.allowance import Allowance
from hisock.errors import (
    HandlerError,
    InvalidName,
    InvalidOption,
    MessageTooLarge,
    Overloaded,
    RateLimited,
    RemoteError,
    WouldBlock,
)
from hisock.server import HiSockServer
from hisock.session.connection import Connection
from hisock.session.events import Closed, Opened, Presented
from hisock.types import Handlers

from . import (
    LOCALHOST,
    PATIENCE,
    Kind,
    Net,
    Raw,
    RawCompact,
    Record,
    Thread,
    bare,
    eventually,
    own_address,
)

Test = TypeVar("Test", bound=Callable[..., None])

TESTS = Path(__file__).parent.parent
PROMISES = TESTS.parent / "docs" / "promises.md"
FIELDS = Limits.__struct_fields__

#: Field → the tests of this file that hold it.
HERE: dict[str, list[str]] = {}
#: Field → tests of other files that hold it, or more of it.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "message": (
        "contract/test_authentication.py::test_nothing_large_comes_before_the_verdict",
        "faults/test_server_faults.py::test_h07_a_length_over_the_limit_is_refused_at_its_header",
    ),
    "handshake": (
        "faults/test_environment.py::test_t01_hello_within_the_deadline",
        "contract/test_authentication.py::test_proof_that_does_not_come",
    ),
    "authentication": (
        "contract/test_authentication.py::test_a_check_that_hangs_says_no",
    ),
    "outbox": (
        "contract/test_slow.py::test_wait_gives_up",
        "contract/test_slow.py::test_a_slow_consumer_is_cut",
        "contract/test_lost_sessions.py::test_too_much_waits_for_a_client",
    ),
    "queue": (
        "contract/test_slow.py::test_an_answer_behind_a_flood_is_not_waited_for",
    ),
    "unclaimed_messages": ("contract/test_inbox.py::test_the_inbox_has_bounds",),
    "unclaimed": ("contract/test_inbox.py::test_the_inbox_has_a_bound_of_bytes",),
    "unfinished": (
        "contract/test_authentication.py::test_who_owes_its_proof_is_a_stranger",
    ),
    "memory": (
        "contract/test_lost_sessions.py::test_too_much_waits_for_all_clients",
        "contract/test_lost_sessions.py::test_too_much_waits_for_a_slow_client",
    ),
    "refusal_rate": (
        "contract/test_authentication.py::test_who_guesses_too_often_is_not_heard_for_a_while",
    ),
    "requests": (
        "contract/test_many_calls.py::test_a_call_is_refused_where_too_many_are_open",
    ),
}


def limit(*fields: str) -> Callable[[Test], Test]:
    """Note that a test holds these limits."""

    def note(test: Test) -> Test:
        for field in fields:
            HERE.setdefault(field, []).append(test.__name__)
        return test

    return note


FACES = (Kind("plain", "blocking"), Kind("async", "asyncio"))
PLAIN = FACES[0]


@pytest.fixture(params=FACES, ids=str)
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """Servers and clients of one face."""
    made = Net("compact", request.param, request.param)
    yield made
    made.close()


@pytest.fixture
def plain() -> Iterator[Net]:
    """Plain servers and clients, for what concerns their sockets alone."""
    made = Net("compact", PLAIN, PLAIN)
    yield made
    made.close()


def serve(net: Net, handlers: Handlers | None = None, **options: Any) -> HiSockServer:
    """A server that is turned."""
    server = net.server(**options)
    if handlers is not None:
        server.use(handlers)
    net.turn(server)
    return server


def enter(net: Net, server: HiSockServer, name: str, **options: Any) -> RawCompact:
    """A raw client that is let in, or refused."""
    raw = net.raw_client(server, name, **options)
    assert isinstance(raw, RawCompact)
    raw.wait_for_answer()
    return raw


def stranger(net: Net, server: HiSockServer) -> Raw:
    """A connection that has said nothing."""
    return net.adopt(socket.create_connection(server.addr, PATIENCE))


def link_of(server: HiSockServer, name: str) -> Any:
    """The server's record of a client."""
    return bare(server)._members.look_up(name)


def say(raw: Raw, *frames: list[Any]) -> None:
    """Write frames of the compact wire, all at once."""
    raw.sock.sendall(b"".join(map(RawCompact.pack, frames)))


def hear(raw: RawCompact) -> list[Any]:
    """The next frame that is for somebody's ears."""
    raw.receive()
    return raw.frames[-1]


class Fence:
    """A client of its own: what came before, wherever, has been read after a call."""

    def __init__(self, net: Net, server: HiSockServer) -> None:
        self._raw = enter(net, server, "fence")
        self._numbers = count(1, 2)

    def __call__(self) -> None:
        """Ask for what nobody has a handler for."""
        say(self._raw, [2, next(self._numbers), "fence", None])
        assert hear(self._raw)[0] == 4


def size_of(*frame: Any) -> int:
    """Bytes of a frame behind its header."""
    return len(msgspec.msgpack.encode(frame))


def content_of(size: int) -> bytes:
    """Content with which a message ``it`` has so many bytes."""
    return bytes(2 * size - size_of(1, "it", bytes(size)))


# --- sizes ---------------------------------------------------------------------------


@limit("message")
def test_a_message_as_large_as_may_be(net: Net) -> None:
    """Arrives, both ways; a byte more is refused where it is sent, and nothing else."""
    got, limits = Record(), Limits(message=1000)
    server = net.server(limits=limits)
    server.on("it")(lambda client, message: got(len(message)))
    client = net.client(server, "ann", limits=limits)
    client.on("it")(lambda message: got(len(message)))
    net.turn()
    net.expect_members(server, 1)
    eventually(lambda: client.wire)
    fits = content_of(1000)
    for send in (client.send, partial(server.send_client, "ann")):
        send("it", fits)
        assert got.next() == len(fits)
        with pytest.raises(MessageTooLarge) as caught:
            send("it", fits + b"x")
        assert caught.value.code == "message_too_large"
        send("it", b"")
        assert got.next() == 0


@limit("message")
def test_a_message_that_is_announced_larger(net: Net) -> None:
    """Is not waited for: the goodbye says why, to a client as to a server."""
    got, limits = Record(), Limits(message=1000)
    handlers = Handlers()
    handlers.on("it")(lambda client, message: got(len(message)))
    server = serve(net, handlers, limits=limits)
    raw = enter(net, server, "raw")
    say(raw, [1, "it", content_of(1000)])
    assert got.next() == len(content_of(1000))
    raw.sock.sendall((1001).to_bytes(4, "big"))
    assert hear(raw)[:2] == [35, 6]
    raw.expect_end()
    peer, client = net.raw_server_for(
        net.raw_listener(), limits=limits, reconnect=False
    )
    assert isinstance(peer, RawCompact)
    net.turn()
    eventually(lambda: client.wire)
    peer.sock.sendall((1001).to_bytes(4, "big"))
    assert hear(peer)[:2] == [35, 6]


def hello_of(size: int) -> bytes:
    """A hello of so many bytes."""
    said = b'$CLTHELLO$ {"name": "raw", "group": null'
    return said.ljust(size - 1) + b"}"


@limit("hello")
def test_a_hello_as_large_as_may_be(plain: Net) -> None:
    """Is read; one of a byte more is not waited for, nor answered."""
    server = serve(plain, limits=Limits(hello=100, handshake=0))
    stranger(plain, server).send(hello_of(100))
    plain.expect_members(server, 1)
    over = stranger(plain, server)
    over.sock.sendall(b"%-16d" % 101 + hello_of(101)[:50])
    over.expect_cut()
    assert len(server) == 1


@limit("name")
def test_a_name_as_long_as_may_be(net: Net) -> None:
    """In bytes; a longer one of one's own is refused where it is given."""
    limits = Limits(name=5)
    server = net.server(limits=limits)
    client = net.client(server, "ann", "ééx", limits=limits)
    net.turn()
    net.expect_members(server, 1)
    server.join_group("ann", "blues")
    client.change_name("ééy")
    eventually(lambda: server.get_all_clients("name") == ["ééy"])
    assert server.client("ééy").groups == {"ééx", "blues"}
    for refused in (
        partial(client.change_name, "ééyy"),
        partial(client.change_group, "ééyy"),
        partial(net.client, server, "ééyy", limits=limits),
        partial(net.client, server, None, "ééyy", limits=limits),
        partial(server.join_group, "ééy", "violet"),
    ):
        with pytest.raises(InvalidName) as caught:
            refused()
        assert caught.value.code == "invalid_name"


@limit("name")
def test_a_name_that_a_peer_makes_too_long(plain: Net) -> None:
    """Ends its connection: without a word in the hello, with goodbye 5 later."""
    server = serve(plain, limits=Limits(name=5))
    for frame in ([9, "cynth"], [10, "cynth"], [15, ["cynth"], []]):
        raw = enter(plain, server, "clara")
        say(raw, frame, [2, 1, "fence", None])
        assert hear(raw)[:3] == [4, 1, "unknown_command"]
        too_long = json.loads(json.dumps(frame).replace("cynth", "cynthi"))
        say(raw, too_long)
        assert hear(raw)[:2] == [35, 5]
        raw.close()
    for name, group in (("cynthi", None), (None, "cynthi")):
        plain.raw_client(server, name, group).expect_cut()


@limit("groups")
def test_as_many_groups_as_may_be(net: Net) -> None:
    """Beside its own; whether the server's program wants one more, or the client."""
    server = serve(net, limits=Limits(groups=2))
    raw = enter(net, server, "ann", group="own")
    server.join_group("ann", "one")
    say(raw, [15, ["two"], []])
    eventually(lambda: server.client("ann").groups == {"own", "one", "two"})
    with pytest.raises(InvalidOption, match="is in 2 groups already") as caught:
        server.join_group("ann", "three")
    assert caught.value.code == "invalid_option"
    server.join_group("ann", "two")  # it is there already
    server.leave_group("ann", "two")
    server.join_group("ann", "three")
    say(raw, [15, ["four"], []])
    assert hear(raw)[:2] == [35, 5]


@limit("groups")
def test_no_own_group_makes_more_room(plain: Net) -> None:
    """Who makes each group its own first has no more in the end."""
    server = serve(plain, limits=Limits(groups=2))
    raw = enter(plain, server, "ann")
    for group in ("one", "two", "three"):
        say(raw, [10, group], [15, [group], []])
    assert hear(raw)[:2] == [35, 5]


# --- times ---------------------------------------------------------------------------

#: When a conversation begins, in the tests without a clock.
START = 100.0


def conversation(**limits: int) -> Connection:
    """A server's side of one, with nothing but rules behind it."""
    return Connection(Limits(**limits), START)


@limit("handshake")
def test_a_hello_just_in_time() -> None:
    """Is a hello; at the end of its time the connection is closed without a word."""
    hello = b"%-16d" % 60 + hello_of(60)
    quick, late, off = (conversation(handshake=limit) for limit in (5, 5, 0))
    assert quick.feed(hello[:-1], START + 4.99) == []
    assert quick.tick(START + 4.999) == []
    assert isinstance(quick.feed(hello[-1:], START + 4.999)[0], Opened)
    assert quick.tick(START + 100) == []
    late.feed(hello[:-1], START + 4.99)
    assert late.deadline == START + 5
    (closed,) = late.tick(START + 5)
    assert isinstance(closed, Closed)
    assert late.take_bytes() == b""
    assert off.tick(START + 1e6) == []


def asked(**limits: int) -> Connection:
    """A conversation in which the server has asked for proof, four seconds later."""
    connection = conversation(**limits)
    connection.is_guarded = True
    hello = b'$CLTHELLO$ {"name": null, "group": null, "proto": 2}'
    probe = b"$DH_NUMS$"
    said = b"".join(b"%-16d" % len(body) + body for body in (hello, probe))
    assert isinstance(connection.feed(said, START + 4)[0], Opened)
    connection.ask(START + 4)
    connection.take_bytes()
    return connection


PROOF = b"%-16d$COMPACT$" % 9 + RawCompact.pack([38, "secret"])


@limit("handshake")
def test_a_proof_just_in_time() -> None:
    """Has as long again as the hello; then goodbye 20 says that it may try again."""
    quick, late, off = (asked(handshake=limit) for limit in (5, 5, 0))
    assert quick.tick(START + 8.999) == []
    assert isinstance(quick.feed(PROOF, START + 8.999)[0], Presented)
    assert late.deadline == START + 9
    late.tick(START + 9)
    assert goodbye_in(late.take_bytes()) == [35, 20, "no proof came within 5 s", 0]
    assert off.tick(START + 1e6) == []


@limit("authentication")
def test_a_verdict_just_in_time() -> None:
    """Counts; at the end of the check's time goodbye 3 is said in its place."""
    quick, late, off = (asked(authentication=limit) for limit in (3, 3, 0))
    for connection in (quick, late, off):
        connection.feed(PROOF, START + 5)
        connection.judge(START + 5)
    assert quick.tick(START + 7.999) == []
    quick.let_in(START + 7.999)
    assert quick.tick(START + 8) == []
    assert quick.is_open
    late.tick(START + 8)
    assert goodbye_in(late.take_bytes()) == [35, 3, "the check took too long", None]
    assert not late.is_open
    assert off.tick(START + 1e6) == []


def goodbye_in(data: bytes) -> Any:
    """The frame that is all of this."""
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    return msgspec.msgpack.decode(data[4:])


# --- what waits ----------------------------------------------------------------------


def session() -> dict[str, Any]:
    """What a hello says that asks for a new session."""
    return {
        "sid": secrets.token_hex(16),
        "token": secrets.token_hex(32),
        "next": secrets.token_hex(32),
        "got": 0,
        "epoch": None,
        "window": 30.0,
        "beats": False,
    }


@limit("outbox")
@pytest.mark.parametrize("spare", [0, 1])
def test_what_waits_for_a_peer(net: Net, spare: int) -> None:
    """Is full when as much is there as may be; a byte less, and one more fits. An
    empty one takes any message."""
    content = bytes(100)
    size = 4 + size_of(1, "it", content)
    server = serve(net, limits=Limits(outbox=3 * size + spare))
    raw = enter(net, server, "raw", claim=session())
    send = partial(server.send_client, "raw", "it", when_slow="raise")
    for _ in range(3 + spare):
        send(content)
    with pytest.raises(WouldBlock) as caught:
        send(content)
    assert caught.value.code == "would_block"
    say(raw, [32, 3 + spare])  # all of it has come
    eventually(lambda: not link_of(server, "raw").outbox.held)
    send(bytes(10 * size))
    with pytest.raises(WouldBlock):
        send(b"")


class Held:
    """A server whose handler for ``hold`` does not end, and a raw client that waits
    for it: whatever it sends from then on has to queue."""

    def __init__(self, net: Net, **limits: Any) -> None:
        self.go, begun = threading.Event(), threading.Event()
        self.got = Record()
        handlers = Handlers()

        @handlers.on("hold", threaded=True)
        def hold() -> None:
            begun.set()
            assert self.go.wait(PATIENCE)

        handlers.on("it", threaded=True)(lambda client, content: self.got(content))
        self.server = serve(net, handlers, limits=Limits(**limits))
        self._settle = Fence(net, self.server)
        self.raw = enter(net, self.server, "raw")
        say(self.raw, [1, "hold", None])
        assert begun.wait(PATIENCE)
        self.link = link_of(self.server, "raw")
        eventually(lambda: not self.link.inbox)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(event.size for event in list(self.link.inbox))

    def queue(self, *contents: bytes) -> None:
        """Send messages, and wait until the server has read them."""
        size = self.size + sum(size_of(1, "it", content) for content in contents)
        say(self.raw, *([1, "it", content] for content in contents))
        eventually(lambda: self.size == size)
        self._settle()


@limit("handler_messages")
def test_as_many_messages_wait_for_a_handler_as_may_be(net: Net) -> None:
    """With one more the client is not read until there is room."""
    held = Held(net, handler_messages=3)
    held.queue(b"1", b"2", b"3")
    assert not held.link.is_paused
    held.queue(b"4")
    eventually(lambda: held.link.is_paused)
    say(held.raw, [1, "it", b"5"])
    held.go.set()
    assert held.got.take(5) == [b"1", b"2", b"3", b"4", b"5"]


@limit("handler_queue")
def test_as_many_bytes_wait_for_a_handler_as_may_be(net: Net) -> None:
    """The same in bytes."""
    held = Held(net, handler_queue=2000)
    held.queue(content_of(1000), content_of(1000))
    assert (held.size, held.link.is_paused) == (2000, False)
    held.go.set()
    held.got.take(2)
    held = Held(net, handler_queue=1999)
    held.queue(content_of(1000), content_of(1000))
    eventually(lambda: held.link.is_paused)
    say(held.raw, [1, "it", b"more"])
    held.go.set()
    assert held.got.take(3)[2] == b"more"


@limit("queue")
def test_as_much_waits_before_an_answer_as_may_be(net: Net) -> None:
    """Whatever the handlers' own limits: the server's call goes on; a byte more, and
    it fails."""
    for queue in (2000, 1999):
        held = Held(net, queue=queue, handler_messages=1, handler_queue=1)
        call = Thread(partial(held.server.call_client, "raw", "it", timeout=None))
        _, number, *_ = hear(held.raw)
        held.queue(content_of(1000), content_of(1000))
        if queue == 2000:
            assert call.is_alive
            say(held.raw, [3, number, "answer"])
            assert call.result() == "answer"
        else:
            with pytest.raises(Overloaded) as caught:
                call.result()
            assert caught.value.code == "overloaded"
        held.go.set()
        held.got.take(2)


@limit("queue")
@pytest.mark.parametrize("queue", [2000, 1999])
def test_as_much_waits_for_update_as_may_be(plain: Net, queue: int) -> None:
    """While a client waits for something else; a byte more, and the wait fails."""
    got, limits = Record(), Limits(queue=queue)
    peer, client = plain.raw_server_for(plain.raw_listener(), limits=limits)
    client.on("it")(lambda content: got(len(content)))
    engine = bare(client)._engine
    waiting = Thread(partial(client.recv, "end", timeout=PATIENCE))
    say(peer, *([1, "it", content_of(1000)] for _ in range(2)))
    if queue == 2000:
        eventually(lambda: engine.queued() == queue)
        say(peer, [1, "end", b"the end"])
        assert waiting.result() == b"the end"
    else:
        with pytest.raises(Overloaded) as caught:
            waiting.result()
        assert caught.value.code == "overloaded"
    plain.turn(client)
    assert got.take(2) == [len(content_of(1000))] * 2


@limit("unclaimed_messages", "unclaimed")
@pytest.mark.parametrize("field", ["unclaimed_messages", "unclaimed"])
def test_as_much_waits_for_recv_as_may_be(
    net: Net, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing goes; for one more the oldest, and the log says how many."""
    content = bytes(100)
    size = len(msgspec.msgpack.encode(content))
    most = {"unclaimed_messages": 3, "unclaimed": 3 * size}[field]
    server = serve(net)
    client = net.client(server, "ann", limits=Limits(**{field: most}))
    net.turn()
    eventually(lambda: client.wire)
    client.on("fence")(lambda: True)

    def send(count: int) -> None:
        for _ in range(count):
            server.send_client("ann", "it", content)
        server.call_client("ann", "fence")

    send(3)
    assert not warnings_in(caplog)
    assert [client.recv("it", timeout=0) for _ in range(3)] == [content] * 3
    send(4)
    assert "dropped what nobody received (1): " in warnings_in(caplog)[0]
    assert [client.recv("it", timeout=0) for _ in range(3)] == [content] * 3
    with pytest.raises(TimeoutError):
        client.recv("it", timeout=0)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What clients warned of."""
    said = [r for r in caplog.records if r.name == "hisock.client"]
    return [r.getMessage() for r in said if r.levelname == "WARNING"]


# --- how many ------------------------------------------------------------------------


@limit("connections")
@pytest.mark.parametrize(
    "options",
    [
        {"limits": Limits(connections=2)},
        {"limits": Limits(connections=5), "max_connections": 2},
        {"limits": Limits(connections=1), "max_connections": 2},
    ],
)
def test_as_many_clients_as_may_be(plain: Net, options: dict[str, Any]) -> None:
    """Are let in, and one more told when to try again; who leaves makes room.
    ``max_connections`` goes before."""
    server = serve(plain, **options)
    first, second = (enter(plain, server, name) for name in ("ann", "bea"))
    assert first.welcome["name"] == "ann"
    assert second.welcome["name"] == "bea"
    third = enter(plain, server, "cay")
    word, _, said = third.receive().partition(b" ")
    refusal = json.loads(said)
    assert (word, refusal["code"], refusal["retry"]) == (b"$REFUSED$", "busy", 1000)
    third.expect_end()
    first.close()
    plain.expect_members(server, 1)
    assert enter(plain, server, "cay").welcome["name"] == "cay"


@limit("connections_per_address")
def test_as_many_connections_from_one_address_as_may_be(plain: Net) -> None:
    """Are served; one more is closed without a word, and who leaves makes room. Over
    loopback there is no such limit."""
    # Here all connections come over loopback, unless the machine has another address.
    if (host := own_address()) is None:
        pytest.skip("this machine has loopback alone")
    limits = Limits(connections_per_address=2, handshake=0)
    server = serve(plain, limits=limits, addr=("0.0.0.0", 0))
    port = server.addr[1]

    def call(to: str) -> Raw:
        return plain.adopt(socket.create_connection((to, port), PATIENCE))

    first, second = call(host), call(host)
    for raw in (first, second):
        raw.greet("ann", None)
    plain.expect_members(server, 2)
    over = call(host)
    over.expect_cut()
    others = [call(LOCALHOST) for _ in range(3)]
    for raw in others:
        raw.greet("bea", None)
    plain.expect_members(server, 5)
    first.close()
    plain.expect_members(server, 4)
    call(host).greet("cay", None)
    plain.expect_members(server, 5)


def admitted_by(net: Net, pump: Any, host: str | None, port: int) -> socket.socket:
    """What a listening socket would have accepted from afar: nothing else knows whence
    a socket comes."""
    near, far = socket.socketpair()
    net.adopt(near)
    pump._admit(far, "" if host is None else (host, port))
    return far


@limit("connections_per_address")
@pytest.mark.parametrize(
    ("host", "most", "is_counted"),
    [
        ("192.0.2.7", 2, True),
        ("2001:db8::7", 2, True),
        ("127.0.0.2", 2, False),
        ("::1", 2, False),
        ("::ffff:127.0.0.1", 2, False),
        (None, 2, False),
        ("192.0.2.7", 0, False),
    ],
)
def test_addresses_are_counted_one_by_one(
    plain: Net, host: str | None, most: int, is_counted: bool
) -> None:
    """But loopback and unix sockets, as which all addresses look the same."""
    server = plain.server(limits=Limits(connections_per_address=most))
    pump = bare(server)._engine.pump
    admit = partial(admitted_by, plain, pump)
    admitted = [admit(host, port) for port in range(3)]
    closed = [sock.fileno() < 0 for sock in admitted]
    assert closed == [False, False, is_counted]
    assert admit("192.0.2.8", 1).fileno() >= 0


@limit("message_rate")
def test_who_only_receives_sends_nothing(net: Net) -> None:
    """Acknowledgements are no messages: what is sent to a client asks for them."""
    server = serve(net, limits=Limits(message_rate=1))
    client, got = net.client(server, "ann"), Record()
    client.on("it")(lambda message: got(message[0]))
    net.turn(client)
    net.expect_members(server, 1)
    for number in range(1000):
        server.send_client("ann", "it", [number, bytes(4000)])
    assert got.take(1000) == list(range(1000))
    assert server.client("ann").is_connected


@limit("refusal_rate")
@pytest.mark.parametrize(
    ("host", "most", "is_counted"),
    [
        ("192.0.2.7", 1, True),
        ("2001:db8::7", 1, True),
        ("192.0.2.7", 2, False),
        ("192.0.2.7", 0, False),
        ("127.0.0.2", 1, False),
        (None, 1, False),
    ],
)
def test_refusals_are_counted_by_address(
    plain: Net, host: str | None, most: int, is_counted: bool
) -> None:
    """After one more than may be nobody of there is heard; loopback is everybody's."""
    server = plain.server(limits=Limits(refusal_rate=most))
    pump = bare(server)._engine.pump
    admit = partial(admitted_by, plain, pump)
    assert admit(host, 1).fileno() >= 0
    (link,) = pump.links
    for _ in range(2):
        pump.note_refusal(link)
    assert (admit(host, 2).fileno() < 0) == is_counted
    assert admit("192.0.2.8", 1).fileno() >= 0


@limit("unfinished")
def test_as_many_strangers_as_may_be(net: Net) -> None:
    """Stay; for one more the oldest goes that sent nothing, else the oldest."""
    server = serve(net, limits=Limits(unfinished=2, handshake=0))
    settle = Fence(net, server)
    first, second = stranger(net, server), stranger(net, server)
    first.sock.sendall(b"5")
    settle()
    assert not any(raw.is_readable for raw in (first, second))
    third = stranger(net, server)
    second.expect_cut()
    third.sock.sendall(b"5")
    settle()
    assert not any(raw.is_readable for raw in (first, third))
    fourth = stranger(net, server)
    first.expect_cut()
    fourth.send(hello_of(60))
    third.sock.sendall(b"9".ljust(15) + hello_of(59))
    net.expect_members(server, 3)


@limit("dropped")
def test_as_many_sessions_wait_as_may_be(net: Net) -> None:
    """For one more the oldest ends, and its client is told why."""
    told, claims = Record(), {name: session() for name in ("ann", "bea", "cay")}
    handlers = Handlers()
    handlers.on("leave")(lambda client: told("leave", client["name"]))
    handlers.on_drop(lambda client: told("drop", client["name"]))
    server = serve(net, handlers, limits=Limits(dropped=2))
    raws = {n: enter(net, server, n, claim=claim) for n, claim in claims.items()}
    for name in ("ann", "bea"):
        raws[name].close()
        assert told.next() == ("drop", name)
    assert len(server) == 3
    raws["cay"].close()
    assert sorted(told.take(2)) == [("drop", "cay"), ("leave", "ann")]
    assert len(server) == 2
    for name, reason in (("ann", "evicted"), ("bea", ""), ("cay", "")):
        again = claims[name] | {"token": claims[name]["next"]}
        welcome = enter(net, server, name, claim=again).welcome
        assert (welcome["resumed"], welcome["reason"]) == (not reason, reason)


@limit("requests")
def test_as_many_calls_are_open_as_may_be(net: Net) -> None:
    """One more is refused by who would ask, and by who would answer."""
    go, begun = threading.Event(), Record()
    server = net.server(limits=Limits(requests=2))

    @server.on("hold", threaded=True, concurrency=3)
    def hold(client: Any) -> bool:
        begun("begun")
        return go.wait(PATIENCE)

    net.turn(server)
    careful = net.client(server, limits=Limits(requests=2))
    careless = net.client(server)
    net.turn()
    for client, refusal in ((careful, Overloaded), (careless, RemoteError)):
        go.clear()
        calls = [Thread(client.call, "hold") for _ in range(2)]
        begun.take(2)
        with pytest.raises(refusal) as caught:
            client.call("hold")
        assert caught.value.code == "overloaded"
        go.set()
        assert [call.result() for call in calls] == [True, True]
        assert client.call("hold") is True
        begun.take(1)


# --- how often -----------------------------------------------------------------------


@limit("message_rate", "byte_rate")
def test_what_a_client_may_send_at_once() -> None:
    """Is what it may send in a second; for more it rests until that is made good."""
    allowance = Allowance(Limits(message_rate=20), START)
    assert allowance.spend(20, 10**9, START) == 0
    assert allowance.spend(1, 0, START) == pytest.approx(1 / 20)
    assert allowance.spend(1, 0, START + 0.125) == 0
    allowance = Allowance(Limits(byte_rate=1000), START)
    assert allowance.spend(10**9, 1000, START) == 0
    assert allowance.spend(0, 1, START) == pytest.approx(1 / 1000)
    both = Allowance(Limits(message_rate=20, byte_rate=1000), START)
    assert both.spend(30, 1500, START) == pytest.approx(0.5)
    off = Allowance(Limits(), START)
    assert off.spend(10**9, 10**9, START) == 0


#: A rate, and a message of which one passes at once, and of four are so many too many
#: that it takes 2 s to make that good.
PACES = {"message_rate": (1, b"x"), "byte_rate": (100, bytes(80))}


@limit("message_rate", "byte_rate")
@pytest.mark.parametrize("field", PACES)
def test_who_sends_too_much_is_not_read(net: Net, field: str) -> None:
    """Others are all the same; and it can be disconnected meanwhile."""
    rate, content = PACES[field]
    got, handlers = Record(), Handlers()

    @handlers.on("it")
    def it(client: Any, message: bytes) -> None:
        got(client["name"], link_of(server, client["name"]).wants_reading)

    server = serve(net, handlers, limits=Limits(**{field: rate}))
    modest, greedy = (enter(net, server, name) for name in ("modest", "greedy"))
    link = link_of(server, "greedy")
    say(greedy, *([1, "it", content] for _ in range(4)))
    assert got.take(4) == [("greedy", False)] * 4
    say(modest, [1, "it", content])
    assert got.next()[0] == "modest"
    server.disconnect_client("greedy")
    assert link.wants_reading
    assert hear(greedy)[:2] == [35, 1]


@limit("message_rate", "byte_rate")
@pytest.mark.parametrize("limits", [Limits(message_rate=50), Limits(byte_rate=5000)])
def test_who_has_made_it_good_is_read_again(plain: Net, limits: Limits) -> None:
    """Not before, and all of it arrives in order."""
    got, handlers = Record(), Handlers()
    handlers.on("it")(lambda client, message: got(message[0]))
    server = serve(plain, handlers, limits=limits)
    raw = enter(plain, server, "raw")
    began = time.monotonic()
    for part in (range(60), range(60, 70)):
        say(raw, *([1, "it", bytes([n]) * 94] for n in part))
        assert got.take(len(part)) == list(part)
    # 60 messages of 100 bytes: 10 more than a second's worth, which came at once.
    assert time.monotonic() - began > 0.2


@limit("join_rate")
def test_as_many_join_as_may_be(net: Net) -> None:
    """One more of an address is closed without a word, soon after it."""
    # One at once, and the next in 100 s.
    server = serve(net, limits=Limits(join_rate=0.01, handshake=0))
    first = enter(net, server, "ann")
    stranger(net, server).expect_cut()
    assert first.welcome["name"] == "ann"
    assert len(server) == 1
    server = serve(net, limits=Limits(join_rate=10_000))
    for number in range(20):
        enter(net, server, f"{number}")
    assert len(server) == 20


def paced(net: Net, rate: str) -> tuple[HiSockServer, Record, Record]:
    """A server with a handler for ``chat``, what it was called with, and errors."""
    server, got, errors = net.server(), Record(), Record()

    @server.on("chat", rate=rate)
    def chat(client: Any, message: Any) -> Any:
        got(client["name"], message)
        return message

    server.on_error(lambda error: errors(error))
    net.turn(server)
    return server, got, errors


def test_a_command_as_often_as_may_be(net: Net) -> None:
    """One call more is refused, one message more dropped and reported; others have
    their own pace."""
    server, got, errors = paced(net, "1/h")
    ann, bea = (net.client(server, name) for name in ("ann", "bea"))
    net.turn()
    assert ann.call("chat", 1) == 1
    with pytest.raises(RemoteError) as caught:
        ann.call("chat", 2)
    assert caught.value.code == "rate_limited"
    with pytest.raises(RemoteError) as caught:
        list(ann.stream("chat", 3))
    assert caught.value.code == "rate_limited"
    assert not len(errors)
    ann.send("chat", 4)
    error = errors.next()
    assert isinstance(error, RateLimited)
    assert isinstance(error, HandlerError)
    assert (error.code, error.command) == ("rate_limited", "chat")
    assert error.client["name"] == "ann"
    assert bea.call("chat", 5) == 5
    assert got.take(2) == [("ann", 1), ("bea", 5)]
    assert not len(got)


def test_a_command_twenty_times_a_second(net: Net) -> None:
    """Twenty come through at once, and then as many as there was time for."""
    server, got, errors = paced(net, "20/s")
    began = time.monotonic()
    raw = enter(net, server, "raw")
    say(raw, *([1, "chat", number] for number in range(60)), [2, 1, "fence", None])
    assert hear(raw)[:3] == [4, 1, "unknown_command"]
    took = time.monotonic() - began
    assert 20 <= len(got) <= 20 + 20 * took
    assert len(got) + len(errors) == 60
    assert [number for _, number in got.take(20)] == list(range(20))


# --- all of them ---------------------------------------------------------------------

OFF: dict[str, Any] = dict.fromkeys(FIELDS, 0)


def test_more_passes_where_limits_are_off(net: Net) -> None:
    """More than the default of each, as far as one client can show that."""
    default, off, got = Limits(), Limits(**OFF), Record()
    server = net.server(limits=off)
    server.on("it")(lambda client, message: got(len(message)))
    name = "n" * default.hello  # and so is the hello larger than by default, too
    client = net.client(server, name, limits=off)
    net.turn()
    net.expect_members(server, 1)
    eventually(lambda: client.wire)
    assert server.get_all_clients("name") == [name]
    large = bytes(default.message)
    client.send("it", large)
    assert got.next() == len(large)
    for number in range(default.groups + 1):
        server.join_group(name, f"group {number}")
    for number in range(default.unclaimed_messages + 1):
        server.send_client(name, "it", number)
    server.send_client(name, "end")
    assert client.recv("end", timeout=PATIENCE) == b""
    assert client.recv("it", timeout=0) == 0


def test_more_waits_where_limits_are_off(net: Net) -> None:
    """For a slow handler, and for a slow client; calls as well."""
    default, held = Limits(), Held(net, **OFF)
    held.queue(*[bytes(default.handler_queue // default.handler_messages)] * 70)
    assert not held.link.is_paused
    requests = range(1, 2 * default.requests + 3, 2)
    say(held.raw, *([2, number, "hold", None] for number in requests))
    answering = held.link.connection.requests.answering
    eventually(lambda: len(answering) == default.requests + 1)
    enter(net, held.server, "slow", claim=session())  # and never acknowledges
    for _ in range(2):
        held.server.send_client("slow", "it", bytes(default.outbox), when_slow="raise")
    held.raw.close()
    held.go.set()


def test_every_limit_has_a_test() -> None:
    """At the limit and one over; and those that other files have are still there."""
    assert set(HERE) | set(ELSEWHERE) == set(FIELDS)
    for name in (name for names in ELSEWHERE.values() for name in names):
        file, _, test = name.partition("::")
        assert f"\ndef {test}(" in (TESTS / file).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("field", FIELDS)
def test_every_limit_is_documented(field: str) -> None:
    """In the table, with what is beyond it, and where it is defined."""
    text = PROMISES.read_text(encoding="utf-8")
    row = re.search(rf"^\| `{field}` \| [0-9.]+ \| .+ \| .+ \|$", text, re.MULTILINE)
    assert row is not None
    assert re.search(rf"^        {field}: ", Limits.__doc__ or "", re.MULTILINE)
