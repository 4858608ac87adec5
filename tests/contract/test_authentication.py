"""Authentication: the server's own check says who comes in; nothing passes before."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from hisock import (
    ClientDisconnected,
    ClientInfo,
    Credentials,
    Handlers,
    Identity,
    Limits,
    connect,
    start_threaded_server,
)
from hisock.errors import (
    HandlerError,
    HandlerSignatureError,
    InvalidOption,
    SessionLost,
    Unauthorized,
)
from hisock.server import HiSockServer, ThreadedHiSockServer

from . import LOCALHOST, PATIENCE, Net, Record, Thread, eventually, own_address

#: What a client may say before it is let in.
EARLY = 64 * 1024
SECRET = "correct horse battery staple"
BYE, WELCOME, AUTH, ACK = 35, 37, 38, 32


def users(credentials: Credentials) -> Identity | None:
    """A check as in a program: two users, by their tokens."""
    ids = {SECRET: "ann", "benny": "ben"}
    name = ids.get(credentials.token or "")
    return None if name is None else Identity(name, roles=frozenset({name}))


def connected(net: Net, token: Any, **options: Any) -> tuple[HiSockServer, Any, Record]:
    """A server whose check is ``users``, its client, and what ``join`` was told."""
    server, joined = net.server(), Record()
    server.authenticate(users)
    server.on("join")(lambda client: joined(client))
    return server, net.client(server, "it", token=token, **options), joined


# --- all faces -----------------------------------------------------------------------


def test_a_check_says_who_a_client_is(compact: Net) -> None:
    """It sees what the client shows; its name, roles and data hold from the join on."""
    server, joined, seen = compact.server(), Record(), Record()

    @server.authenticate
    def check(credentials: Credentials) -> Identity:
        seen(credentials)
        return Identity(7, "Ann", frozenset({"admin"}), {"score": 3})

    server.on("join")(lambda client: joined(dict(client), client.roles, client.data))
    server.on("who")(lambda client: client["name"])
    client = compact.client(server, "ann", "red", token=SECRET)
    compact.turn()
    assert client.call("who") == "Ann"
    shown = seen.next()
    assert (shown.token, shown.name, shown.group) == (SECRET, "ann", "red")
    assert (shown.wire, shown.resuming, shown.certificate_names) == (
        compact.spoken,
        False,
        (),
    )
    info = server.client("Ann")
    assert shown.address == info["ip"]
    assert joined.next() == (
        {"ip": info["ip"], "name": "Ann", "group": "red"},
        {"admin"},
        {"score": 3},
    )
    assert info.identity == Identity(7, "Ann", frozenset({"admin"}), {"score": 3})
    assert (client.name, client.group) == ("Ann", "red")


def test_a_coroutine_may_be_the_check(compact: Net) -> None:
    """On every server; and what it returns without a name leaves the client its own."""
    server = compact.server()

    @server.authenticate
    async def check(credentials: Credentials) -> Identity:
        return Identity(credentials.token or "", data="anything")

    server.on("who")(lambda client: client["name"])
    client = compact.client(server, "ann", token="t")
    compact.turn()
    assert client.call("who") == "ann"
    info = server.client("ann")
    assert info.identity is not None
    assert (info.identity.id, info.identity.data, info.data) == ("t", "anything", {})
    assert info.roles == frozenset()


def test_a_check_may_just_say_yes(net: Net) -> None:
    """Then nothing is known of the client but what it says itself; over both wires."""
    server, seen = net.server(), Record()

    @server.authenticate
    def check(credentials: Credentials) -> bool:
        seen((credentials.token, credentials.wire))
        return True

    got = Record()
    server.on("it")(lambda client, message: got(client.identity, message))
    client = net.client(server, "ann", token=SECRET)
    net.turn()
    client.send("it", b"1")
    assert seen.next() == (SECRET if net.is_compact else None, net.spoken)
    assert got.next() == (None, b"1")
    assert client.name == "ann"


def nonsense(credentials: Credentials) -> Any:
    """A check that answers something else."""
    return "yes"


def broken(credentials: Credentials) -> Any:
    """A check with a mistake in it."""
    return dict[str | None, Identity]()[credentials.token]


async def broken_later(credentials: Credentials) -> Any:
    """The same as a coroutine."""
    raise ValueError(credentials.token)


@pytest.mark.parametrize(
    "check",
    [lambda _: False, lambda _: None, nonsense, broken, broken_later],
    ids=["false", "none", "nonsense", "broken", "broken_later"],
)
def test_who_is_refused_is_out_for_good(
    compact: Net, check: Callable[..., Any]
) -> None:
    """It is told why, ends, and does not try again; nobody joined, nothing ran."""
    server, calls, got, errors = compact.server(), Record(), Record(), Record()

    def counted(credentials: Credentials) -> Any:
        calls(credentials.token)
        return check(credentials)

    server.on_error(lambda error: errors(error))
    server.on("join")(lambda client: got("join"))
    server.on("leave")(lambda client: got("leave"))
    server.on("it")(lambda client: got("it"))
    is_async = check is broken_later
    server.authenticate(check if is_async else counted)
    ends, handlers = Record(), Handlers()
    handlers.on("force_disconnect")(lambda: ends("end"))
    client = compact.client(server, "ann", handlers=handlers, token="bad")
    compact.turn()
    with pytest.raises(ClientDisconnected) as caught:
        client.call("it")
    assert isinstance(caught.value.__cause__, Unauthorized)
    assert caught.value.__cause__.code == "unauthorized"
    assert ends.next() == "end"
    if not is_async:
        assert calls.next() == "bad"
    if check in (nonsense, broken, broken_later):
        error = errors.next()
        assert isinstance(error, HandlerError)
        assert "bad" not in str(error)
    assert (len(server), len(got), len(calls), len(errors)) == (0, 0, 0, 0)


def test_what_is_said_early_waits_in_order(compact: Net) -> None:
    """Also what could have left at once: messages, names and groups."""
    server, got = compact.server(allow_rename=True, allow_regroup=True), Record()
    server.authenticate(users)
    server.on("it")(lambda client, number: got(number, client["name"], client["group"]))
    client = compact.client(server, "a", "red", token=SECRET)
    if not compact.client_kind.is_async:
        compact.turn(server)  # a plain client waits for the answer where it sends
    client.send("it", b"0")
    client.change_name("b")
    client.send("it", 1)
    client.change_group("blue")
    client.send("it", b"2")
    client.change_name(None)
    client.send("it", "3")
    compact.turn()
    assert got.take(4) == [
        (b"0", "a", "red"),
        (1, "b", "red"),
        (b"2", "b", "blue"),
        ("3", None, "blue"),
    ]
    assert (client.name, client.group) == (None, "blue")


def test_a_client_without_a_token_is_checked_too(compact: Net) -> None:
    """What it said before it was asked is kept, and handled once it is let in."""
    server, got = compact.server(), Record()
    go = threading.Event()

    @server.authenticate
    def check(credentials: Credentials) -> bool:
        return go.wait(PATIENCE) and credentials.token is None

    server.on("it")(lambda client, message: got(message))
    client = compact.client(server, "ann")
    for number in range(3):
        client.send("it", b"%d" % number) if compact.client_kind.is_async else None
    compact.turn()
    assert len(got) == len(server) == 0
    go.set()
    compact.expect_members(server, 1)
    client.send("it", 3)
    first = [b"0", b"1", b"2"] if compact.client_kind.is_async else []
    assert got.take(len(first) + 1) == [*first, 3]


def test_who_proved_itself_to_a_server_without_sessions_is_told_of_a_loss(
    compact: Net,
) -> None:
    """A cut is a loss there, with a token as without, and never a return."""
    server, got = compact.server(resume_window=0), Record()
    server.authenticate(lambda credentials: Identity(1, "Ann"))
    server.on("it")(lambda client, message: message)
    proxy = compact.proxy(server)
    handlers = Handlers()
    handlers.on_resume(lambda: got("resume"))
    handlers.on_session_lost(lambda lost: got(type(lost)))
    client = compact.client(proxy, "ann", token=SECRET, handlers=handlers)
    compact.turn()
    assert client.call("it", 1) == 1
    assert proxy.cut("rst") == 1
    assert got.next() is SessionLost
    assert client.call("it", 2) == 2
    assert not len(got)


def test_a_token_is_asked_for_at_each_connect(compact: Net) -> None:
    """A resume shows the new one; the same user goes on with its session, its roles
    are those of the last check."""
    server, seen = compact.server(), Record()

    @server.authenticate
    def check(credentials: Credentials) -> Identity:
        token = credentials.token or ""
        seen((token, credentials.resuming))
        return Identity(1, roles=frozenset({token}), data={"first": token})

    joined = Record()
    server.on("join")(lambda client: joined(client))
    server.on("it")(lambda client, message: message)
    tokens = iter(range(100))
    proxy = compact.proxy(server)
    client = compact.client(proxy, "ann", token=lambda: f"t{next(tokens)}")
    compact.turn()
    info = joined.next()
    assert client.call("it", 1) == 1
    assert seen.next() == ("t0", False)
    for number in (1, 2):
        assert proxy.cut("rst") == 1
        assert client.call("it", number) == number
        token, resuming = seen.next()
        assert (token, resuming) == (f"t{number}", True)
        assert server.client("ann") is info
        assert info.roles == {token}
        assert info.data == {"first": "t0"}
    assert not len(joined)


def test_a_session_is_not_for_another_user(compact: Net) -> None:
    """Though it knows the session's secret: the old session stays as it was, and who
    came is out for good."""
    server, told, handlers = compact.server(), Record(), Handlers()
    server.authenticate(users)
    server.on("join")(lambda client: told("join"))
    server.on_drop(lambda client: told("drop"))
    server.on_resume(lambda client: told("resume"))
    server.on("leave")(lambda client: told("leave"))
    tokens = iter([SECRET, "benny"])
    ends = Record()
    handlers.on("force_disconnect")(lambda: ends("end"))
    proxy = compact.proxy(server)
    client = compact.client(proxy, "it", token=lambda: next(tokens), handlers=handlers)
    compact.turn()
    assert told.next() == "join"
    info = server.client("it")
    eventually(lambda: client.is_connected)
    assert proxy.cut("rst") == 1
    assert told.next() == "drop"
    assert ends.next() == "end"
    assert server.client("it") is info
    assert info.identity == Identity("ann", roles=frozenset({"ann"}))
    assert not len(told)


def test_a_token_function_that_fails_is_asked_again(
    compact: Net, caplog: pytest.LogCaptureFixture
) -> None:
    """On the way back a failure costs a try, and its text is not logged."""
    server = compact.server()
    server.authenticate(users)
    server.on("it")(lambda client, message: message)
    calls = iter([SECRET, ValueError(SECRET), 7, SECRET])

    def token() -> Any:
        value = next(calls)
        if isinstance(value, Exception):
            raise value
        return value

    proxy = compact.proxy(server)
    client = compact.client(proxy, "ann", token=token)
    compact.turn()
    assert client.call("it", 1) == 1
    proxy.cut("rst")
    assert client.call("it", 2) == 2
    assert "ValueError" in caplog.text
    assert "InvalidOption" in caplog.text
    assert SECRET not in caplog.text


def test_a_token_is_never_shown(compact: Net, caplog: pytest.LogCaptureFixture) -> None:
    """In no log line, no repr and no error, whatever becomes of it."""
    caplog.set_level(logging.DEBUG)
    server, errors = compact.server(), Record()
    server.authenticate(broken)
    server.on_error(lambda error: errors(error))
    client = compact.client(server, "ann", token=SECRET)
    compact.turn()
    with pytest.raises(ClientDisconnected) as caught:
        client.call("it")
    assert SECRET not in f"{errors.next()!r} {caught.value!r} {client!r}"
    other = compact.server()
    other.authenticate(broken)
    client = compact.client(other, "ben", token=SECRET)
    compact.turn()
    with pytest.raises(ClientDisconnected):
        client.call("it")
    eventually(lambda: "the check broken failed: KeyError at" in caplog.text)
    shown = Credentials(token=SECRET, name="a", group=None, address=("::1", 1))
    assert SECRET not in f"{caplog.text} {shown!r} {shown} {vars(client)}"


def test_a_refused_1_1_client_knows_how_to_be_let_in(
    classic: Net, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no token; where ``wires`` names its wire, the check decides."""
    server = classic.server(wires=None)
    server.authenticate(lambda credentials: True)
    classic.turn()
    raw = classic.raw_client(server, "old", wire="classic")
    assert raw.receive() == b"$DISCONN$"
    raw.expect_end()
    eventually(lambda: 'wires=("classic", "compact")' in caplog.text)
    assert len(server) == 0


def test_1_1_clients_are_checked_where_their_wire_is_named(classic: Net) -> None:
    """Without a token, and before anything of theirs is handled."""
    server, got, seen = classic.server(), Record(), Record()
    go = threading.Event()

    @server.authenticate
    def check(credentials: Credentials) -> Identity | None:
        seen((credentials.token, credentials.wire, credentials.name))
        go.wait(PATIENCE)
        return Identity(1, "Old") if credentials.name == "old" else None

    server.on("it")(lambda client, message: got(client["name"], message))
    classic.turn()
    big = b"x" * 100_000
    raw = classic.raw_client(server, "old", saying=(b"it 1", b"it 2"))
    assert seen.next() == (None, "classic", "old")
    assert len(got) == 0
    go.set()
    assert got.take(2) == [("Old", b"1"), ("Old", b"2")]
    raw.send(b"it " + big)
    assert got.next() == ("Old", big)
    other = classic.raw_client(server, "new", saying=(b"it 3",))
    assert other.receive() == b"$DISCONN$"
    assert not len(got)


def test_a_check_for_several_files(compact: Net) -> None:
    """``Handlers`` carries it to servers; a client has no use for it."""
    handlers = Handlers()

    @handlers.authenticate
    def check(credentials: Credentials) -> bool:
        return credentials.token == SECRET

    server = compact.server()
    server.use(handlers)
    server.on("it")(lambda client: 1)
    client = compact.client(server, "ann", token=SECRET)
    with pytest.raises(InvalidOption, match="a client has no authenticate"):
        client.use(handlers)
    compact.turn()
    assert client.call("it") == 1


def test_who_was_kicked_stays_away(compact: Net) -> None:
    """Even where it did not hear of it: its session gets no second welcome."""
    server, told, handlers = compact.server(), Record(), Handlers()
    server.on("join")(lambda client: told("join"))
    server.on("leave")(lambda client: told("leave"))
    ends = Record()
    handlers.on("force_disconnect")(lambda: ends("end"))
    proxy = compact.proxy(server)
    client = compact.client(proxy, "ann", handlers=handlers)
    compact.turn()
    assert told.next() == "join"
    eventually(lambda: client.is_connected)
    proxy.blackhole("down")
    server.disconnect_client("ann")
    assert told.next() == "leave"
    assert proxy.cut("rst") == 1
    proxy.heal()
    assert ends.next() == "end"
    with pytest.raises(ClientDisconnected) as caught:
        client.call("it")
    assert getattr(caught.value.__cause__, "code", "") == "kicked"
    assert not len(told)


# --- what is registered and given ----------------------------------------------------


def test_a_check_takes_credentials_and_nothing_else() -> None:
    """That is looked at where it is registered."""
    with start_threaded_server(None) as server:
        with pytest.raises(HandlerSignatureError):
            server.authenticate(lambda one, two: True)
        with pytest.raises(HandlerSignatureError):
            server.authenticate("check")  # type: ignore[type-var]  # that is the test


@pytest.mark.parametrize("token", [7, b"bytes", ["list"], lambda: 7])
def test_what_is_no_token(token: Any) -> None:
    """Is refused at once, and not shown."""
    with (
        start_threaded_server((LOCALHOST, 0)) as server,
        pytest.raises(InvalidOption, match="token is text, or a function"),
    ):
        connect(server.addr, token=token)


def test_a_coroutine_is_no_token_here() -> None:
    """Only where a loop runs it."""

    async def token() -> str:
        return SECRET

    with pytest.raises(InvalidOption, match=r"hisock\.aio"):
        connect((LOCALHOST, 1), token=token)


def test_one_thread_has_both() -> None:
    """A server that nobody turns lets in its client in the same thread, as it does
    without a check."""
    from hisock import start_server

    got: list[Any] = []
    with start_server((LOCALHOST, 0)) as server:
        server.authenticate(users)
        server.on("it")(lambda client, message: got.append(message))
        with connect(server.addr, token=SECRET) as client:
            client.send("it", 5)
            server.run()
    assert got == [5]


def test_a_plain_client_may_take_its_time() -> None:
    """What it has not read cannot be answered: it comes back when it does."""
    limits = Limits(handshake=0.05)
    with start_threaded_server((LOCALHOST, 0), limits=limits) as server:
        server.authenticate(users)
        server.on("it")(lambda client, message: message)
        with connect(server.addr, token=SECRET) as client:
            eventually(lambda: not server.stats()["connections"])
            assert client.call("it", 1) == 1


# --- byte by byte --------------------------------------------------------------------


class Caller:
    """A raw client of our own wire."""

    def __init__(self, address: Any, **fields: Any) -> None:
        self.sock = socket.create_connection(address, PATIENCE)
        self._held = b""
        self.sid = secrets.token_hex(16)
        self.tokens = [secrets.token_hex(32) for _ in range(3)]
        self.hello = {
            "name": "raw",
            "group": None,
            "proto": 2,
            "now": int(time.monotonic() * 1000),
            **fields,
        }

    def with_session(self, **fields: Any) -> Caller:
        """Ask for a session in the hello."""
        self.hello |= {
            "sid": self.sid,
            "token": self.tokens[0],
            "next": self.tokens[1],
            "got": 0,
            "epoch": None,
            "window": 30.0,
            "beats": True,
            **fields,
        }
        return self

    def text(self, *bodies: bytes) -> None:
        """Write classic frames, all at once."""
        self.sock.sendall(b"".join(b"%-16d" % len(b) + b for b in bodies))

    def greet(self, *saying: bytes) -> None:
        """Say hello, and some messages in the same write."""
        hello = b"$CLTHELLO$ " + json.dumps(self.hello).encode()
        self.text(hello, b"$DH_NUMS$", *saying)

    def packed(self, *frames: list[Any]) -> bytes:
        """Frames of the compact wire."""
        bodies = map(msgspec.msgpack.encode, frames)
        return b"".join(len(b).to_bytes(4, "big") + b for b in bodies)

    def send(self, *frames: list[Any]) -> None:
        """Write frames of the compact wire."""
        self.sock.sendall(self.packed(*frames))

    def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            data = self.sock.recv(1 << 16)
            assert data, f"the end after {self._held!r:.100}"
            self._held += data
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def read_text(self) -> bytes:
        """The next classic frame."""
        return self._take(int(self._take(16)))

    def read(self) -> list[Any]:
        """The next frame of the compact wire, acknowledgements left out."""
        while True:
            size = int.from_bytes(self._take(4), "big")
            frame: list[Any] = msgspec.msgpack.decode(self._take(size))
            if frame[0] != ACK:
                return frame

    def is_asked(self) -> None:
        """Take the welcome that only asks."""
        assert self.read_text() == b'$WELCOME$ {"proto": 2, "auth": true}'

    def prove(self, token: str | None, *more: list[Any]) -> list[Any]:
        """Answer it; what the server says of that."""
        self.is_asked()
        mark = b"%-16d$COMPACT$" % 9
        self.sock.sendall(mark + self.packed([AUTH, token], *more))
        return self.read()

    def expect_end(self) -> None:
        """Nothing more comes."""
        assert self._held == b""
        with contextlib.suppress(ConnectionResetError):
            assert self.sock.recv(1 << 16) == b""

    def is_quiet(self) -> bool:
        """Whether nothing has come, for a moment."""
        self.sock.settimeout(0.1)
        try:
            return not self._held and not self.sock.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)


class Door:
    """A server with a check, and raw clients at it."""

    def __init__(self) -> None:
        self.got = Record()
        self.go = threading.Event()
        self.go.set()
        self.checks = Record()
        self.limits = Limits()
        self.host = LOCALHOST
        self._stack = contextlib.ExitStack()
        self.server: ThreadedHiSockServer

    def open(self, *, address: Any = (LOCALHOST, 0), **options: Any) -> Door:
        """Begin to serve."""
        self.server = start_threaded_server(address, limits=self.limits, **options)
        self.server.authenticate(self._check)
        self.server.on("join")(lambda client: self.got("join", client["name"]))
        self.server.on("leave")(lambda client: self.got("leave", client["name"]))
        self.server.on("it")(lambda client, message: self.got("it", message))
        self.server.on_drop(lambda client: self.got("drop", client["name"]))
        self.server.on_resume(lambda client: self.got("resume", client["name"]))
        self._stack.enter_context(self.server)
        return self

    def _check(self, credentials: Credentials) -> Identity | None:
        self.checks(credentials)
        assert self.go.wait(PATIENCE)
        return users(credentials)

    def caller(self, **fields: Any) -> Caller:
        """A raw client that has said nothing."""
        caller = Caller((self.host, self.server.addr[1]), **fields)
        self._stack.callback(caller.sock.close)
        return caller

    def close(self) -> None:
        """End everything."""
        self.go.set()
        self._stack.close()


@pytest.fixture
def door() -> Iterator[Door]:
    """A server with a check, on which nothing happens before ``open``."""
    made = Door()
    yield made
    made.close()


def test_the_flow_of_a_check(door: Door) -> None:
    """The welcome only asks; the second one, compact, has all fields."""
    caller = door.open().caller().with_session()
    caller.greet()
    kind, fields = caller.prove(SECRET)
    assert kind == WELCOME
    names = "proto name group now sid epoch got resumed reason window"
    assert " ".join(fields) == names
    assert fields["sid"] == caller.sid
    assert (fields["resumed"], fields["got"], fields["name"]) == (False, 0, "raw")
    assert door.got.next() == ("join", "raw")
    caller.send([1, "it", 7])
    assert door.got.next() == ("it", 7)


def test_nothing_is_handled_before_the_check_says_yes(door: Door) -> None:
    """Neither what came before the proof nor what came after it; then all in order."""
    door.go.clear()
    caller = door.open().caller().with_session()
    caller.greet(b"it 1", b"it 2", b"$CHGROUP$ x")
    caller.is_asked()
    caller.text(b"it 3")
    mark = b"%-16d$COMPACT$" % 9
    caller.sock.sendall(mark + caller.packed([AUTH, SECRET], [1, "it", 4]))
    assert door.checks.next().token == SECRET
    assert caller.is_quiet()
    assert (len(door.got), len(door.server)) == (0, 0)
    door.go.set()
    kind, fields = caller.read()
    assert (kind, fields["got"]) == (WELCOME, 4)  # what came after it was not counted
    expected = [("it", b"1"), ("it", b"2"), ("it", b"3"), ("it", 4)]
    assert door.got.take(5) == [("join", "raw"), *expected]


def test_who_is_refused_was_never_heard(door: Door) -> None:
    """A final goodbye with the code 3; nothing of what it said is handled."""
    caller = door.open().caller()
    caller.greet(b"it 1")
    bye = caller.prove("guess", [1, "it", 2])
    assert bye == [BYE, 3, "the server's check said no", None]
    caller.expect_end()
    assert len(door.got) == 0


@pytest.mark.parametrize(
    "frame",
    [[1, "it", 1], [2, 1, "it", 1], [36, {}], [37, {}], [32, 0], [38], [38, 7], [99]],
)
def test_proof_is_what_comes_first(door: Door, frame: list[Any]) -> None:
    """Anything else ends the connection, before it is looked at."""
    caller = door.open().caller()
    caller.greet()
    caller.is_asked()
    caller.sock.sendall(b"%-16d$COMPACT$" % 9 + caller.packed(frame))
    assert caller.read()[:2] == [BYE, 5]
    caller.expect_end()
    assert (len(door.got), len(door.checks)) == (0, 0)


def test_compact_before_the_welcome(door: Door) -> None:
    """Whoever goes over before it is asked does not know what it says."""
    caller = door.open().caller()
    caller.greet(b"$COMPACT$")
    assert caller.read_text() == b"$DISCONN$"
    assert len(door.got) == 0


def test_proof_twice(door: Door) -> None:
    """The second one breaks the rules, before the verdict as after it."""
    caller = door.open().caller()
    caller.greet()
    assert caller.prove(SECRET, [AUTH, SECRET])[0] == WELCOME
    assert caller.read()[:2] == [BYE, 5]
    other = door.caller()
    other.greet()
    assert other.prove(SECRET)[0] == WELCOME
    other.send([AUTH, SECRET])
    assert other.read()[:2] == [BYE, 5]
    assert door.checks.take(2)
    assert not len(door.checks)


def test_proof_that_nobody_asked_for() -> None:
    """A server without a check does not know what to make of it."""
    with start_threaded_server((LOCALHOST, 0)) as server:
        caller = Caller(server.addr)
        caller.greet()
        assert caller.read_text().startswith(b"$WELCOME$ ")
        caller.text(b"$COMPACT$")
        caller.send([AUTH, SECRET])
        assert caller.read()[:2] == [BYE, 5]
        caller.sock.close()


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("pieces", [1, 4, 1024])
def test_what_is_kept_of_a_stranger(door: Door, pieces: int, over: int) -> None:
    """64 KiB with their headers, and not a byte more."""
    probe = 16 + len(b"$DH_NUMS$")
    size = EARLY - probe + over
    each = size // pieces
    bodies = [b"it ".ljust(each - 16, b"x")] * (pieces - 1)
    rest = size - each * (pieces - 1)
    bodies.append(b"it ".ljust(rest - 16, b"x"))
    caller = door.open().caller()
    caller.greet()
    with contextlib.suppress(ConnectionError):
        caller.text(*bodies)
    if over:
        try:
            caller.is_asked()
            assert caller.read()[:2] == [BYE, 6]
        except ConnectionResetError:
            pass  # it did not read on
        assert len(door.got) == 0
        return
    assert caller.prove(SECRET)[0] == WELCOME
    assert door.got.next() == ("join", "raw")
    assert sum(len(m) + 3 + 16 for _, m in door.got.take(pieces)) == size


@pytest.mark.parametrize("announced", [EARLY + 1, 16 * 1024 * 1024, 2**32 - 1])
def test_nothing_large_comes_before_the_verdict(door: Door, announced: int) -> None:
    """On neither wire; it is refused where its length is read."""
    caller = door.open().caller()
    caller.greet()
    caller.is_asked()
    caller.sock.sendall(b"%-16d" % announced)
    assert caller.read()[:2] == [BYE, 6]
    other = door.caller()
    other.greet()
    other.is_asked()
    other.sock.sendall(b"%-16d$COMPACT$" % 9 + announced.to_bytes(4, "big"))
    assert other.read()[:2] == [BYE, 6]
    door.go.clear()
    third = door.caller()
    third.greet()
    third.is_asked()
    proof = third.packed([AUTH, SECRET])
    third.sock.sendall(b"%-16d$COMPACT$" % 9 + proof)
    door.checks.next()
    with contextlib.suppress(ConnectionError):
        third.sock.sendall(b"\0" * (EARLY + 1))
        assert third.read()[:2] == [BYE, 6]
    door.go.set()
    assert len(door.server) == 0


def test_who_owes_its_proof_is_a_stranger(door: Door) -> None:
    """Of whom there are few, and the oldest goes first; who is being checked is not."""
    door.limits = Limits(unfinished=2)
    door.go.clear()
    door.open()
    callers: list[Caller] = []
    for number in range(4):
        callers.append(caller := door.caller())
        caller.greet()
        caller.is_asked()
        if number == 1:
            proof = caller.packed([AUTH, SECRET])
            caller.sock.sendall(b"%-16d$COMPACT$" % 9 + proof)
            door.checks.next()
    callers[0].expect_end()
    assert callers[2].is_quiet()
    door.go.set()
    assert callers[1].read()[0] == WELCOME
    proof = callers[3].packed([AUTH, SECRET])
    callers[3].sock.sendall(b"%-16d$COMPACT$" % 9 + proof)
    assert callers[3].read()[0] == WELCOME


def test_a_check_that_hangs_says_no(door: Door) -> None:
    """After ``Limits.authentication``; what it says later is too late."""
    door.limits = Limits(authentication=0.1)
    door.go.clear()
    errors = Record()
    door.open().server.on_error(lambda error: errors(error))
    caller = door.caller()
    caller.greet()
    assert caller.prove(SECRET) == [BYE, 3, "the check took too long", None]
    caller.expect_end()
    assert "the check took more than 0.1 s" in str(errors.next())
    door.go.set()
    other = door.caller()
    other.greet()
    assert other.prove(SECRET)[0] == WELCOME
    assert door.got.next() == ("join", "raw")
    assert len(door.server) == 1
    assert not len(door.got)


def test_a_coroutine_that_hangs_says_no() -> None:
    """And is cancelled, a moment later."""
    import asyncio

    limits, cancelled = Limits(authentication=0.05), Record()
    with start_threaded_server((LOCALHOST, 0), limits=limits) as server:

        @server.authenticate
        async def check(credentials: Credentials) -> bool:
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                cancelled("cancelled")
                raise
            return True

        caller = Caller(server.addr)
        caller.greet()
        assert caller.prove(None)[:2] == [BYE, 3]
        caller.sock.close()
        assert cancelled.next() == "cancelled"


def test_proof_that_does_not_come(door: Door) -> None:
    """Is no reason to stay away: the client may just not have read."""
    door.limits = Limits(handshake=0.1)
    caller = door.open().caller()
    caller.greet()
    caller.is_asked()
    assert caller.read() == [BYE, 20, "no proof came within 0.1 s", 0]
    caller.expect_end()
    assert len(door.checks) == 0


def test_checks_that_hang_hold_up_nobody_else(door: Door) -> None:
    """Neither the server nor its threaded handlers."""
    door.go.clear()
    door.open()

    @door.server.on("slow", threaded=True)
    def slow(client: ClientInfo, message: bytes) -> None:
        door.got("slow", message)

    waiting = [door.caller() for _ in range(40)]
    for caller in waiting:
        caller.greet()
        caller.is_asked()
        caller.sock.sendall(b"%-16d$COMPACT$" % 9 + caller.packed([AUTH, SECRET]))
    eventually(lambda: len(door.checks) == 32)
    assert len(door.server) == 0
    door.go.set()
    for caller in waiting:
        assert caller.read()[0] == WELCOME
    waiting[0].send([1, "slow", b"x"])
    eventually(lambda: len(door.got) == 41)


def test_who_goes_meanwhile_is_forgotten(door: Door) -> None:
    """At a goodbye as at an end, before the verdict as before the proof."""
    door.go.clear()
    door.open()
    for bye in (True, False):
        caller = door.caller()
        caller.greet(b"it 1")
        caller.is_asked()
        mark = b"%-16d$COMPACT$" % 9
        proof = caller.packed([AUTH, SECRET])
        caller.sock.sendall(
            mark + (caller.packed([BYE, 0, "", None]) if bye else proof)
        )
        caller.sock.close()
    old = door.caller()
    old.greet(b"$USRCLOSE$")
    old.expect_end()
    eventually(lambda: door.server.stats()["connections"] == 0)
    door.go.set()
    assert len(door.server) == len(door.got) == 0


# --- sessions and checks -------------------------------------------------------------


def settled(door: Door, token: str = SECRET) -> Caller:
    """A raw client with a session, whose secret is its second."""
    caller = door.caller().with_session()
    caller.greet()
    assert caller.prove(token)[0] == WELCOME
    caller.send([ACK, 0])
    assert door.got.next() == ("join", "raw")
    eventually(lambda: door.server.client("raw")._member.connection.feed)
    return caller


def again(door: Door, caller: Caller, token: str) -> Caller:
    """Another connection that asks for its session with a secret of it."""
    other = door.caller()
    other.sid = caller.sid
    other.tokens = caller.tokens
    other.with_session(token=token, next=caller.tokens[2])
    other.greet()
    return other


def test_a_stolen_secret_is_of_no_use_to_another_user(door: Door) -> None:
    """Neither while the link stands, which stays, nor while it is cut."""
    caller = settled(door.open())
    thief = again(door, caller, caller.tokens[1])
    assert thief.prove("benny") == [
        *(BYE, 3),
        "that session belongs to somebody else",
        None,
    ]
    thief.expect_end()
    assert [c.resuming for c in door.checks.take(2)] == [False, True]
    caller.send([1, "it", 1])
    assert door.got.next() == ("it", 1)
    caller.sock.close()
    assert door.got.next() == ("drop", "raw")
    thief = again(door, caller, caller.tokens[1])
    assert thief.prove("benny")[:2] == [BYE, 3]
    owner = again(door, caller, caller.tokens[1])
    kind, fields = owner.prove(SECRET)
    assert (kind, fields["resumed"], fields["got"]) == (WELCOME, True, 1)
    assert door.got.next() == ("resume", "raw")


def test_no_session_is_taken_over_before_the_verdict(door: Door) -> None:
    """The old link goes on, and so does its secret."""
    caller = settled(door.open())
    door.go.clear()
    other = again(door, caller, caller.tokens[1])
    other.is_asked()
    other.sock.sendall(b"%-16d$COMPACT$" % 9 + other.packed([AUTH, SECRET]))
    door.checks.take(2)
    caller.send([1, "it", 1])
    assert door.got.next() == ("it", 1)
    other.sock.close()
    eventually(lambda: door.server.stats()["connections"] == 1)
    door.go.set()
    third = again(door, caller, caller.tokens[1])
    assert third.prove(SECRET)[1]["resumed"] is True


def test_who_guesses_too_often_is_not_heard_for_a_while(door: Door) -> None:
    """Nobody of that address is, until it is made good; who is in stays."""
    if (host := own_address()) is None:
        pytest.skip("this machine has loopback alone, which has no such limit")
    door.limits = Limits(refusal_rate=1)
    caller = settled(door.open(address=("0.0.0.0", 0)))
    door.host = host
    for _ in range(2):  # one at once, and the one too many
        guesser = again(door, caller, secrets.token_hex(32))
        assert guesser.prove(SECRET)[:2] == [BYE, 3]
        guesser.expect_end()
    began = time.monotonic()
    door.caller().expect_end()
    caller.send([1, "it", 1])
    assert door.got.next() == ("it", 1)
    address = (host, door.server.addr[1])
    with connect(address, "ben", token="benny") as client:
        client.call("it", 2, timeout=PATIENCE)  # it comes back until it is heard
    assert time.monotonic() - began > 0.5


def test_guessing_the_secret_of_a_session(door: Door) -> None:
    """Costs a connection each and changes nothing; who is told so may begin anew."""
    caller = settled(door.open())
    for _ in range(20):
        guesser = again(door, caller, secrets.token_hex(32))
        text = "this is not the token of that session"
        assert guesser.prove(SECRET) == [BYE, 3, text, 0]
        guesser.expect_end()
    assert not any(check.resuming for check in door.checks.take(21))
    caller.send([1, "it", 1])
    assert door.got.next() == ("it", 1)
    assert len(door.server) == 1


def test_the_secret_changes_with_the_first_frame_after_the_welcome(door: Door) -> None:
    """Not with the proof, which comes before it: until then both are good."""
    caller = door.open().caller().with_session()
    caller.greet()
    assert caller.prove(SECRET)[0] == WELCOME
    caller.sock.close()  # it may not have read the welcome
    assert door.got.take(2) == [("join", "raw"), ("drop", "raw")]
    other = again(door, caller, caller.tokens[0])
    assert other.prove(SECRET)[1]["resumed"] is True
    other.send([ACK, 0])
    other.send([1, "it", 1])
    assert door.got.take(2) == [("resume", "raw"), ("it", 1)]
    third = again(door, caller, caller.tokens[0])
    assert third.prove(SECRET)[:2] == [BYE, 3]


def test_our_client_confirms_the_welcome() -> None:
    """With an acknowledgement, at once; and until the welcome nothing but its proof
    leaves, whatever the program sends."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        client = connect(listener.getsockname()[:2], "ann", token=SECRET)
        sock, _ = listener.accept()
        server = Caller.__new__(Caller)
        server.sock, server._held = sock, b""
        sock.settimeout(PATIENCE)
        sending = Thread(client.send, "it", b"bytes")
        hello = json.loads(server.read_text().removeprefix(b"$CLTHELLO$ "))
        assert server.read_text() == b"$DH_NUMS$"
        assert SECRET not in json.dumps(hello)
        assert server.is_quiet()
        server.text(b'$WELCOME$ {"proto": 2, "auth": true}')
        assert server.read_text() == b"$COMPACT$"
        assert server.read() == [AUTH, SECRET]
        assert server.is_quiet()
        fields = {"proto": 2, "sid": hello["sid"], "name": "ann", "window": 9.0}
        server.send([WELCOME, fields])
        size = int.from_bytes(server._take(4), "big")
        assert msgspec.msgpack.decode(server._take(size)) == [ACK, 0]
        assert server.read() == [1, "it", b"bytes"]
        sending.result()
        sock.close()
        client.close()


@pytest.mark.parametrize(
    "answer",
    [
        [[1, "it", 1]],
        [[AUTH, "x"]],
        [[WELCOME, {"proto": 2, "auth": True}]],
        [[WELCOME, {"proto": 3}]],
        [[WELCOME, {"proto": 2, "sid": "other"}]],
        [[WELCOME, {}]],
        [[WELCOME, 7]],
        [[WELCOME, {"proto": 2}], [WELCOME, {"proto": 2}]],
    ],
    ids=str,
)
def test_a_server_that_makes_no_sense(answer: list[list[Any]]) -> None:
    """Ends our client with what was wrong, and nothing of it is handled."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        client = connect(listener.getsockname()[:2], token=SECRET)
        sock, _ = listener.accept()
        server = Caller.__new__(Caller)
        server.sock, server._held = sock, b""
        sock.settimeout(PATIENCE)
        server.text(b'$WELCOME$ {"proto": 2, "auth": true}')
        server.send(*answer)
        with pytest.raises(ClientDisconnected):
            client.run_forever()
        sock.close()
        client.close()


@pytest.mark.parametrize("asks", [True, False])
def test_a_token_leaves_only_where_it_is_asked_for(asks: bool) -> None:
    """A server without a check never sees it."""
    with start_threaded_server((LOCALHOST, 0)) as server:
        seen: list[Any] = []
        if asks:

            @server.authenticate
            def check(credentials: Credentials) -> bool:
                seen.append(credentials.token)
                return True

        server.on("it")(lambda client: 1)
        with connect(server.addr, token=SECRET) as client:
            assert client.call("it") == 1
    assert seen == ([SECRET] if asks else [])


def test_a_busy_server_says_so_after_the_check_too(door: Door) -> None:
    """Places are given with the verdict."""
    door.go.clear()
    door.open(max_connections=1)
    callers = [door.caller(), door.caller()]
    for caller in callers:
        caller.greet()
        caller.is_asked()
        caller.sock.sendall(b"%-16d$COMPACT$" % 9 + caller.packed([AUTH, SECRET]))
    door.checks.take(2)
    door.go.set()
    answers = sorted(caller.read()[:2][0] for caller in callers)
    assert answers == [BYE, WELCOME]
    assert len(door.server) == 1
