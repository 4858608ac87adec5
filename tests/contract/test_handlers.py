"""``on``: which function runs, with which arguments, and what the hints do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from hisock import ClientInfo, HiSockClient, HiSockServer

from . import Net, Record


def test_on_returns_the_function(net: Net) -> None:
    """A decorated function stays what it was, on both sides."""
    server = net.server()
    client = net.client(server)

    def handler() -> None: ...

    assert server.on("one")(handler) is handler
    assert client.on("one")(handler) is handler
    assert server.on("join")(handler) is handler
    assert client.on("force_disconnect")(handler) is handler


def test_a_server_handler_gets_the_client_and_the_content(net: Net) -> None:
    """A command's handler is called with who sent it and what came after it."""
    server, got = net.server(), Record()

    @server.on("greet")
    def greet(client: ClientInfo, message: bytes) -> None:
        got(dict(client), message)

    client = net.client(server, "ann", "red")
    net.turn()
    client.send("greet", b"hello  there ")
    who = {"ip": client.get_client_addr(), "name": "ann", "group": "red"}
    assert got.next() == (who, b"hello  there ")


def test_a_client_handler_gets_the_content(net: Net) -> None:
    """On a client a handler has nobody to be told of but the message."""
    server, got = net.server(), Record()
    client = net.client(server, "ann")

    @client.on("greet")
    def greet(message: bytes) -> None:
        got(message)

    net.turn()
    net.expect_members(server, 1)
    server.send_client("ann", "greet", b"hello  there ")
    assert got.next() == b"hello  there "


def test_fewer_parameters_are_fine(net: Net) -> None:
    """A handler is called with as many arguments as it takes."""
    server, got = net.server(), Record()

    @server.on("none")
    def none() -> None:
        got("none")

    @server.on("one")
    def one(client: ClientInfo) -> None:
        got("one", client["name"])

    @server.on("join")
    def join() -> None:
        got("join")

    @server.on("name_change")
    def renamed(client: ClientInfo, old: str | None) -> None:
        got("renamed", old)

    client = net.client(server, "ann")

    @client.on("bare")
    def bare() -> None:
        got("bare")

    net.turn()
    assert got.next() == "join"
    client.send("none", b"x")
    client.send("one", b"x")
    client.change_name("bea")
    assert got.take(3) == ["none", ("one", "ann"), ("renamed", "ann")]
    server.send_all_clients("bare", b"x")
    assert got.next() == "bare"


def test_anything_callable_is_a_handler(net: Net) -> None:
    """Methods, lambdas, partials and ``*arguments`` are called like functions."""
    server, got = net.server(), Record()

    class Game:
        def move(self, client: ClientInfo, message: str) -> None:
            got("method", message)

    def star(*arguments: Any) -> None:
        got("star", len(arguments))

    server.on("method")(Game().move)
    server.on("lambda")(lambda client, message: got("lambda", message))
    server.on("partial")(functools.partial(lambda mark, client: got(mark), "partial"))
    server.on("star")(star)
    client = net.client(server)
    net.turn()
    for command in ("method", "lambda", "partial", "star"):
        client.send(command, b"m")
    assert got.take(4) == [("method", "m"), ("lambda", b"m"), "partial", ("star", 2)]


def test_a_later_handler_takes_the_place_of_an_earlier_one(net: Net) -> None:
    """One command has one handler: the last that was registered."""
    server, got = net.server(), Record()
    server.on("x")(lambda: got("first"))
    server.on("x", override=True)(lambda: got("second"))
    client = net.client(server)
    net.turn()
    client.send("x")
    client.send("x")
    assert got.take(2) == ["second", "second"]


def test_handlers_may_be_registered_while_it_runs(net: Net) -> None:
    """Also inside a handler; the next message finds the new one."""
    server, got = net.server(), Record()

    @server.on("learn")
    def learn() -> None:
        server.on("learnt")(lambda: got("learnt"))

    client = net.client(server)
    net.turn()
    client.send("learn")
    client.send("learnt")
    assert got.next() == "learnt"


def test_join_and_leave(net: Net) -> None:
    """``join`` and ``leave`` run once for each client, with the same object."""
    server, got = net.server(), Record()
    server.on("join")(lambda client: got("join", client))
    server.on("leave")(lambda client: got("leave", client))
    client = net.client(server, "ann", "red")
    net.turn()
    event, joined = got.next()
    assert event == "join"
    who = {"ip": client.get_client_addr(), "name": "ann", "group": "red"}
    assert dict(joined) == who
    client.close()
    event, left = got.next()
    assert event == "leave"
    assert left is joined
    assert dict(left) == who
    assert not len(got)


def test_name_change_and_group_change(net: Net) -> None:
    """The handler gets client, old and new; the client is up to date by then."""
    server, got = net.server(), Record()

    @server.on("name_change")
    def renamed(client: ClientInfo, old: str | None, new: str | None) -> None:
        got("name", old, new, client["name"])

    @server.on("group_change")
    def regrouped(client: ClientInfo, old: str | None, new: str | None) -> None:
        got("group", old, new, client["group"])

    client = net.client(server, "ann", "red")
    net.turn()
    client.change_name("bea")
    client.change_name(None)
    client.change_name("cleo with spaces é")
    client.change_group("blue")
    client.change_group(None)
    client.change_group("green")
    assert got.take(6) == [
        ("name", "ann", "bea", "bea"),
        ("name", "bea", None, None),
        ("name", None, "cleo with spaces é", "cleo with spaces é"),
        ("group", "red", "blue", "blue"),
        ("group", "blue", None, None),
        ("group", None, "green", "green"),
    ]
    assert (client.name, client.group) == ("cleo with spaces é", "green")


def test_message_sees_everything_whole_and_last(net: Net) -> None:
    """``message`` runs after the own handler has finished, with command and all."""
    server, got = net.server(), Record()

    @server.on("known")
    def known(client: ClientInfo, message: bytes) -> None:
        got("known", message)

    @server.on("message")
    def message(client: ClientInfo, message: bytes) -> None:
        got("message", client["name"], message)

    client = net.client(server, "ann")
    net.turn()
    client.send("known", b"1 2")
    client.send("unknown", b"3")
    client.raw_send(b"raw")
    assert got.take(4) == [
        ("known", b"1 2"),
        ("message", "ann", b"known 1 2"),
        ("message", "ann", b"unknown 3"),
        ("message", "ann", b"raw"),
    ]


def test_the_hint_of_message_casts_the_whole(net: Net) -> None:
    """Its hint is about command and content together."""
    server, got = net.server(), Record()

    @server.on("message")
    def message(client: ClientInfo, message: str) -> None:
        got(message)

    client = net.client(server)
    net.turn()
    client.send("say", "héllo")
    assert got.next() == "say héllo"


def test_client_events(net: Net) -> None:
    """A client is told of the joins and leaves of the others, never of its own."""
    server, got = net.server(), Record()
    ann = net.client(server, "ann")

    @ann.on("client_connect")
    def connected(info: Any) -> None:
        got("connect", dict(info), info["name"])

    @ann.on("client_disconnect")
    def disconnected(info: Any) -> None:
        got("disconnect", dict(info), info["name"])

    net.turn()
    net.expect_members(server, 1)
    bea = net.client(server, "bea", "red")
    net.turn()
    who = {"ip": bea.get_client_addr(), "name": "bea", "group": "red"}
    assert got.next() == ("connect", who, "bea")
    bea.close()
    assert got.next() == ("disconnect", who, "bea")
    assert not len(got)


def test_force_disconnect(net: Net) -> None:
    """It runs once, without arguments, when the server ends the connection."""
    server, got = net.server(), Record()
    client = net.client(server, "ann")
    client.on("force_disconnect")(lambda *arguments: got(arguments))
    net.turn()
    net.expect_members(server, 1)
    server.disconnect_client("ann")
    assert got.next() == ()


def test_the_wire_cannot_ask_for_an_event(hand: Net) -> None:
    """What happens to be called like an event never runs its handler."""
    server, got = hand.server(), Record()
    for event in ("join", "leave", "name_change", "group_change"):
        server.on(event)(lambda *arguments: got("event"))
    server.on("message")(lambda client, message: got(message))
    raw = hand.raw_client(server, "mallory")
    hand.turn(server)
    assert got.next() == "event"  # its real join
    names = (b"join", b"leave {}", b"name_change a b", b"group_change", b"message x")
    raw.send(*names)
    assert got.take(len(names)) == list(names)


def test_the_server_cannot_ask_for_a_client_event(hand: Net) -> None:
    """A client's events come from what happens, not from commands."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    got = Record()
    for event in ("client_connect", "client_disconnect", "force_disconnect"):
        client.on(event)(lambda *arguments: got("event"))
    client.on("end")(lambda: got("end"))
    raw.send(b"client_connect {}", b"force_disconnect", b"client_disconnect x", b"end")
    hand.turn(client)
    assert got.next() == "end"
    assert not len(got)


@pytest.mark.parametrize(
    "event", ["join", "leave", "message", "name_change", "group_change"]
)
def test_a_client_is_warned_of_a_command_that_is_an_event(
    hand: Net, event: str
) -> None:
    """Sending what no handler there can be called for warns, and names it."""
    client = hand.client(hand.raw_listener())
    with pytest.warns(UserWarning, match=f"'{event}' is an event"):
        client.send(event, b"")


@pytest.mark.parametrize(
    "event", ["client_connect", "client_disconnect", "force_disconnect"]
)
def test_a_server_is_warned_of_a_command_that_is_an_event(
    hand: Net, event: str
) -> None:
    """The same in the other direction."""
    server = hand.server()
    with pytest.warns(UserWarning, match=f"'{event}' is an event"):
        server.send_all_clients(event, b"")


@pytest.mark.parametrize("word", ["drop", "error", "close", "update", "resume"])
def test_other_words_are_free_as_commands(hand: Net, word: str) -> None:
    """Only the events of 1.1 are reserved."""
    server, got = hand.server(), Record()
    server.on(word)(lambda client, message: got(message))
    client = hand.client(server)
    client.send(word, b"x")
    hand.turn()
    assert got.next() == b"x"


@pytest.mark.parametrize("word", ["join", "leave", "name_change", "group_change"])
def test_events_of_a_server_are_commands_on_a_client(hand: Net, word: str) -> None:
    """Each side reserves its own events only."""
    server, got = hand.server(), Record()
    client = hand.client(server)
    client.on(word)(lambda message: got(message))
    hand.turn()
    hand.expect_members(server, 1)
    server.send_all_clients(word, b"x")
    assert got.next() == b"x"


SENT_AND_COMMAND = [
    (b"move", "move", b""),
    (b"move ", "move", b""),
    (b"move  x", "move", b" x"),
    (b"move to 3 4", "move to", b"3 4"),
    (b"move to", "move to", b""),
    (b"move tofu", "move", b"tofu"),
    (b"move to the left now", "move to the left", b"now"),
    (b"move to the lefty", "move to", b"the lefty"),
    (b"mover x", None, b"mover x"),
    (b"mov x", None, b"mov x"),
    (b" move x", None, b" move x"),
    (b"", None, b""),
    (b"\xff\xfe x", None, b"\xff\xfe x"),
    ("zug é 1".encode(), "zug é", b"1"),
]


@pytest.mark.parametrize(("sent", "command", "content"), SENT_AND_COMMAND)
def test_a_command_matches_whole_and_the_longest_wins(
    hand: Net, sent: bytes, command: str | None, content: bytes
) -> None:
    """A command ends at a space or the end, and may itself have spaces."""
    server, got = hand.server(), Record()

    def note(name: str) -> Callable[[ClientInfo, bytes], None]:
        return lambda client, message: got(name, message)

    for name in ("move", "move to", "move to the left", "zug é"):
        server.on(name)(note(name))
    server.on("message")(lambda client, message: got(None, message))
    raw = hand.raw_client(server)
    hand.turn(server)
    hand.expect_members(server, 1)
    raw.send_raw(sent)
    assert got.next() == (command, content)


@pytest.mark.parametrize(("sent", "command", "content"), SENT_AND_COMMAND)
def test_a_client_matches_the_same_way(
    hand: Net, sent: bytes, command: str | None, content: bytes
) -> None:
    """One rule for both sides; what nobody claims is for ``recv_raw``."""
    raw, client = hand.raw_server_for(hand.raw_listener())
    got = Record()

    def note(name: str) -> Callable[[bytes], None]:
        return lambda message: got(name, message)

    for name in ("move", "move to", "move to the left", "zug é"):
        client.on(name)(note(name))
    raw.send_raw(sent)
    if command is None:
        assert client.recv_raw() == content
    else:
        hand.turn(client)
        assert got.next() == (command, content)


CASTS: list[tuple[Any, Any, Any]] = [
    (bytes, b"\x00\xff raw", b"\x00\xff raw"),
    (bytes, "text", b"text"),
    (bytes, 5, b"5"),
    (bytes, None, b""),
    (bytes, [1, "a"], b'[1, "a"]'),
    (bytes, bytearray(b"array"), b"array"),
    (bytes, memoryview(b"view"), b"view"),
    (str, "grüße", "grüße"),
    (str, b"bytes", "bytes"),
    (str, 5, "5"),
    (str, 2.5, "2.5"),
    (str, None, ""),
    (str, True, "true"),
    (str, {"a": 1}, '{"a": 1}'),
    (int, 5, 5),
    (int, -7, -7),
    (int, "42", 42),
    (int, b" 42 ", 42),
    (float, 2.5, 2.5),
    (float, 3, 3.0),
    (float, b"1e3", 1000.0),
    (list, [1, [2.5, "x"], None, True], [1, [2.5, "x"], None, True]),
    (list, (1, 2), [1, 2]),
    (list, b"[]", []),
    (dict, {"a": [1], "ü": None}, {"a": [1], "ü": None}),
    (dict, b"{}", {}),
]


def _with_hint(hint: Any, got: Record, *, on_server: bool) -> Callable[..., None]:
    """A handler whose message has this hint."""

    def for_server(client: ClientInfo, message: Any) -> None:
        got(type(message), message)

    def for_client(message: Any) -> None:
        got(type(message), message)

    handler: Callable[..., None] = for_server if on_server else for_client
    handler.__annotations__["message"] = hint
    return handler


@pytest.mark.parametrize(("hint", "sent", "expected"), CASTS)
def test_hints_cast_on_both_sides(
    hand: Net, hint: Any, sent: Any, expected: Any
) -> None:
    """A handler gets the type it asks for; a hint may also be written as text."""
    server, got = hand.server(), Record()
    client = hand.client(server)
    for command, spelled in (("type", hint), ("text", hint.__name__)):
        server.on(command)(_with_hint(spelled, got, on_server=True))
        client.on(command)(_with_hint(spelled, got, on_server=False))
    hand.turn()
    for command in ("type", "text"):
        client.send(command, sent)
        assert got.next() == (type(expected), expected)
        server.send_all_clients(command, sent)
        assert got.next() == (type(expected), expected)


@pytest.mark.parametrize("hint", [None, Any, object])
def test_without_a_hint_content_is_as_sent(hand: Net, hint: Any) -> None:
    """Bytes stay bytes, whatever they look like."""
    server, got = hand.server(), Record()
    client = hand.client(server)
    server.on("it")(_with_hint(hint, got, on_server=True))
    client.on("it")(_with_hint(hint, got, on_server=False))
    hand.turn()
    client.send("it", b"5")
    assert got.next() == (bytes, b"5")
    server.send_all_clients("it", b"[5]")
    assert got.next() == (bytes, b"[5]")


def test_funcs_tells_what_is_registered(net: Net) -> None:
    """``funcs`` maps a command to its function, its name and its hints."""
    server = net.server()
    client = net.client(server)

    def on_server(client: ClientInfo, message: int) -> None: ...

    def on_client(message: float) -> None: ...

    server.on("add")(on_server)
    client.on("add")(on_client)
    assert dict(server.funcs["add"]) == {
        "func": on_server,
        "name": "on_server",
        "type_hint": {"clt": ClientInfo, "msg": int},
    }
    assert dict(client.funcs["add"]) == {
        "func": on_client,
        "name": "on_client",
        "type_hint": float,
    }


def _write(peer: HiSockServer | HiSockClient) -> None:
    peer.funcs["other"] = {}  # type: ignore[index]  # that is what is tested


def test_funcs_is_read_only(net: Net) -> None:
    """Neither the mapping nor the attribute can be written."""
    server = net.server()
    client = net.client(server)
    for peer in (server, client):
        with pytest.raises(TypeError):
            _write(peer)
        with pytest.raises(AttributeError):
            setattr(peer, "funcs", {})  # noqa: B010  # mypy knows it is read-only


def test_funcs_is_live(net: Net) -> None:
    """What is registered later shows up in a mapping that was taken before."""
    server = net.server()
    client = net.client(server)
    for peer in (server, client):
        funcs = peer.funcs
        peer.on("later")(lambda: None)
        assert "later" in funcs
        assert list(funcs) == ["later"]
        assert len(funcs) == 1
