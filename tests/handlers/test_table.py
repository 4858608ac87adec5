"""What ``on`` registered, how it is found and how it is called."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hisock.errors import HandlerSignatureError, NotSendable, ReservedCommand
from hisock.handlers.table import CLIENT_EVENTS, SERVER_EVENTS, HandlerTable, Options
from hisock.types import ClientInfo, Sendable

MIB = 1024 * 1024
ADA = ClientInfo(("127.0.0.1", 5000), "Ada", None)


@pytest.fixture
def server() -> HandlerTable:
    """The handlers of a server."""
    return HandlerTable(on_server=True)


@pytest.fixture
def client() -> HandlerTable:
    """The handlers of a client."""
    return HandlerTable(on_server=False)


@pytest.fixture
def called() -> list[tuple[Any, ...]]:
    """What handlers were called with."""
    return []


def call(table: HandlerTable, body: bytes, who: ClientInfo | None = None) -> Any:
    """Call the handler of a message."""
    found = table.find(body)
    assert found is not None
    entry, content = found
    return entry.call(who, content)


def found(table: HandlerTable, body: bytes) -> tuple[str, bytes] | None:
    """Command and content of a message, by the table."""
    pair = table.find(body)
    return None if pair is None else (pair[0].command, pair[1])


def ignore(client: Any, message: Any) -> None: ...


# --- finding ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"move", ("move", b"")),
        (b"move ", ("move", b"")),
        (b"move 5 6", ("move", b"5 6")),
        (b"move  5", ("move", b" 5")),
        (b"move\n5", None),
        (b"moves 5", None),
        (b"mov", None),
        (b"MOVE", None),
        (b" move", None),
        (b"", None),
        (b" ", None),
        (b"move left", ("move left", b"")),
        (b"move left now", ("move left", b"now")),
        (b"move lefty", ("move", b"lefty")),
        (b"spring rain 1", ("spring rain", b"1")),
        (b"spring", None),
        ("né 1".encode(), ("né", b"1")),
    ],
)
def test_the_longest_command_is_found(
    server: HandlerTable, body: bytes, expected: tuple[str, bytes] | None
) -> None:
    """A command ends at a space or the end; of two that fit the longer one runs."""
    for command in ("move", "move left", "spring rain", "né"):
        server.add(command, ignore)

    assert expected == found(server, body)


def test_events_are_not_commands(server: HandlerTable, client: HandlerTable) -> None:
    """Nobody triggers ``join`` by sending the word (T16)."""
    for event in SERVER_EVENTS:
        server.add(event, lambda *arguments: None)
        assert server.find(event.encode() + b" x") is None
    for event in CLIENT_EVENTS:
        client.add(event, lambda *arguments: None)
        assert client.find(event.encode()) is None

    assert [] == server.commands() == client.commands()
    assert {} == server.direct == client.direct


def test_an_event_of_the_other_side_is_a_command(client: HandlerTable) -> None:
    """On a client ``join`` is a word like any other."""
    client.add("join", lambda message: None)

    assert found(client, b"join x") == ("join", b"x")
    assert client.event("join") is None


def test_an_event_has_one_handler(server: HandlerTable) -> None:
    """``event`` knows registered events only."""
    server.add("join", lambda client: None)
    server.add("move", ignore)

    entry = server.event("join")
    assert entry is not None
    assert entry.command == "join"
    assert server.event("leave") is None
    assert server.event("move") is None


def test_a_later_handler_replaces_an_earlier(
    server: HandlerTable, called: list[tuple[Any, ...]]
) -> None:
    """The handler registered last is the one that runs."""
    server.add("move", lambda client, message: called.append(("old",)))
    server.add("move", lambda client, message: called.append(("new",)))

    call(server, b"move 1")
    server.direct[b"move"](None, b"1")

    assert called == [("new",), ("new",)]
    assert len(server.commands()) == 1


# --- the fast look-up ------------------------------------------------------------


def test_single_words_are_called_directly(
    server: HandlerTable, called: list[tuple[Any, ...]]
) -> None:
    """A command whose word no longer one begins with needs no closer look."""
    server.add("move", lambda client, message: called.append((client, message)))
    direct = server.direct
    server.add("move left", ignore)
    server.add("chat", ignore)
    server.add("two words", ignore)

    assert {b"chat"} == set(direct)
    assert direct is server.direct


@pytest.mark.parametrize("by_tap", [True, False])
def test_nothing_is_called_directly_when_somebody_watches(
    server: HandlerTable, by_tap: bool
) -> None:
    """A ``message`` handler or a tap sees every message."""
    server.add("move", ignore)
    assert {b"move"} == set(server.direct)

    if by_tap:
        server.tap()
    else:
        server.add("message", ignore)
    server.add("chat", ignore)

    assert server.direct == {}


def test_a_direct_call_converts(
    client: HandlerTable, called: list[tuple[Any, ...]]
) -> None:
    """The fast look-up calls with converted content, on a client too."""

    def score(points: int) -> None:
        called.append((points,))

    client.add("score", score)
    client.direct[b"score"](None, b"42")

    assert called == [(42,)]


# --- calling ---------------------------------------------------------------------


SERVER_SHAPES: list[tuple[Callable[[list[Any]], Callable[..., Any]], list[Any]]] = [
    (lambda log: lambda: log.append(()), [()]),
    (lambda log: lambda client: log.append(client), [ADA]),
    (lambda log: lambda client, message: log.append((client, message)), [(ADA, b"5")]),
    (lambda log: lambda *arguments: log.append(arguments), [(ADA, b"5")]),
]


@pytest.mark.parametrize("event", [None, "message"])
@pytest.mark.parametrize(("shape", "expected"), SERVER_SHAPES, ids=range(4))
def test_a_server_passes_on_what_fits(
    server: HandlerTable, shape: Any, expected: list[Any], event: str | None
) -> None:
    """A handler gets as many of client and message as it takes; events as well."""
    log: list[Any] = []
    server.add(event or "move", shape(log))
    if event is None:
        call(server, b"move 5", ADA)
    else:
        entry = server.event(event)
        assert entry is not None
        entry.call(ADA, b"5")

    assert expected == log


def test_a_server_converts(server: HandlerTable, called: list[tuple[Any, ...]]) -> None:
    """The message is converted to the hint; the client stays the same object."""

    def move(client: ClientInfo, steps: int) -> None:
        called.append((client, steps))

    server.add("move", move)
    call(server, b"move 5", ADA)

    assert called == [(ADA, 5)]
    assert called[0][0] is ADA


def test_who_wants_bytes_gets_what_came(server: HandlerTable) -> None:
    """There is nothing to convert, so the function itself is called."""

    def keep(client: ClientInfo, message: bytes) -> None: ...

    server.add("keep", keep)
    assert server.direct == {b"keep": keep}


def test_a_client_passes_on_what_fits(
    client: HandlerTable, called: list[tuple[Any, ...]]
) -> None:
    """A client's handler gets the message, or nothing."""

    def converted(message: str) -> None:
        called.append((message,))

    client.add("none", lambda: called.append(()))
    client.add("raw", lambda message: called.append((message,)))
    client.add("text", converted)
    for body in (b"none 1", b"raw 2", b"text 3"):
        call(client, body)

    assert called == [(), (b"2",), ("3",)]


@pytest.mark.parametrize("event", ["name_change", "group_change"])
def test_an_event_passes_on_what_fits(server: HandlerTable, event: str) -> None:
    """An event's handler may take fewer than it is offered."""
    log: list[Any] = []
    server.add(event, lambda client, old: log.append((client, old)))
    server.add("join", log.append)
    for name, offered in ((event, (ADA, "a", "b")), ("join", (ADA,))):
        entry = server.event(name)
        assert entry is not None
        entry.call(*offered)

    assert log == [(ADA, "a"), ADA]


def test_an_event_without_arguments(client: HandlerTable) -> None:
    """``force_disconnect`` offers nothing."""
    log: list[Any] = []
    client.add("force_disconnect", lambda: log.append("gone"))
    entry = client.event("force_disconnect")
    assert entry is not None
    entry.call()

    assert log == ["gone"]
    with pytest.raises(HandlerSignatureError, match=r"takes \(\)"):
        client.add("force_disconnect", lambda reason: None)


# --- registering -----------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["", "$MOVE$", "a $b$", None, b"move"])
def test_a_command_that_is_none(server: HandlerTable, wrong: Any) -> None:
    """A command that cannot be one is refused, and nothing is registered."""
    with pytest.raises(ReservedCommand):
        server.add(wrong, ignore)

    assert server.commands() == []


def test_a_star_is_for_what_nobody_else_handles(
    server: HandlerTable, called: list[tuple[Any, ...]]
) -> None:
    """``*`` is no command: no message is found by it, and what it handles gets the
    command between client and content."""

    def everything(client: Any, command: str, message: int) -> None:
        called.append((client, command, message))

    server.add("*", everything)

    assert server.everything is not None
    assert server.everything.function is everything
    assert server.find(b"*") is server.find(b"* x") is None
    assert server.get("*") is None
    assert server.commands() == []
    assert list(server.describe()) == ["*"]
    server.everything.call(ADA, "move", b"12")
    server.everything.call_packed(ADA, "move", b"\x0c")
    assert called == [(ADA, "move", 12)] * 2


def test_a_star_on_a_client(
    client: HandlerTable, called: list[tuple[Any, ...]]
) -> None:
    """There it gets the command and the content, or as much as it takes."""
    client.add("*", lambda command, message: called.append((command, message)))
    assert client.everything is not None
    client.everything.call(None, "move", b"12")
    client.add("*", lambda command: called.append((command,)))
    client.everything.call(None, "move", b"12")
    client.add("*", lambda: called.append(()))
    client.everything.call_packed(None, "move", b"\x0c")

    assert called == [("move", b"12"), ("move",), ()]
    with pytest.raises(HandlerSignatureError, match=r"takes \(command, message\)"):
        client.add("*", lambda command, message, more: None)


def test_a_command_that_is_no_utf_8(server: HandlerTable) -> None:
    """A lone surrogate cannot be sent, so nothing could trigger it."""
    with pytest.raises(NotSendable):
        server.add("\udc80", ignore)


def test_a_wrong_handler_changes_nothing(server: HandlerTable) -> None:
    """When a replacement is refused, the handler before it stays."""
    server.add("move", ignore)
    with pytest.raises(HandlerSignatureError):
        server.add("move", lambda a, b, c: None)

    assert [ignore] == [entry.function for entry in server.commands()]


def test_commands_keep_their_order(server: HandlerTable) -> None:
    """``commands`` lists in the order of registration."""
    for command in ("b", "join", "a", "c"):
        server.add(command, lambda client: None)

    assert [entry.command for entry in server.commands()] == ["b", "a", "c"]


def test_funcs_of_1_1(server: HandlerTable, client: HandlerTable) -> None:
    """``funcs`` has 1.1's keys, is read-only, and names what has no name."""

    def move(client: ClientInfo, steps: int) -> None: ...
    def score(points: float) -> None: ...

    server.add("move", move)
    client.add("score", score)

    assert {
        "move": {
            "func": move,
            "name": "move",
            "type_hint": {"clt": ClientInfo, "msg": int},
        }
    } == dict(server.describe())
    assert {"score": {"func": score, "name": "score", "type_hint": float}} == dict(
        client.describe()
    )
    with pytest.raises(TypeError):
        server.describe()["move"] = {}  # type: ignore[index]  # that is the test


def test_what_has_no_name_is_described_all_the_same(client: HandlerTable) -> None:
    """An object that is called has its repr in place of a name."""

    class Score:
        def __call__(self, points: int) -> None: ...

    score = Score()
    client.add("score", score)

    assert repr(score) == client.describe()["score"]["name"]


# --- many messages of one command --------------------------------------------------


def packed(command: str, content: Any) -> bytes:
    """A message of the compact wire."""
    return msgspec.msgpack.encode([1, command, content])


def test_a_message_is_read_with_its_content(
    server: HandlerTable, client: HandlerTable, called: list[tuple[Any, ...]]
) -> None:
    """What a handler gets of the compact wire can be read in one go, as hinted."""

    def score(client: Any, message: list[int]) -> None:
        called.append((client, message))

    def alone(message: list[int]) -> None:
        called.append((None, message))

    server.add("score", score)
    client.add("score", alone)
    for table, who in ((server, ADA), (client, None)):
        reader = table.reader("score")
        assert reader is not None
        read, handle = reader
        handle(who, read(packed("score", [1, 2]))[2])
        assert table.reader("score") == reader
        for other in (packed("scor", [1]), packed("score", ["1"])):
            with pytest.raises(msgspec.ValidationError):
                read(other)

    assert called == [(ADA, [1, 2]), (None, [1, 2])]


@pytest.mark.parametrize("hint", [None, Any, object, Sendable])
def test_what_is_taken_as_sent_is_read_so(server: HandlerTable, hint: Any) -> None:
    """A hint that leaves content as it was sent takes any."""

    def take(client: Any, message: Any) -> None: ...

    take.__annotations__["message"] = hint
    server.add("it", take)
    reader = server.reader("it")

    assert reader is not None
    for content in (None, b"x", "x", 1.5, [1, {"a": b"b"}], {"x": [True]}):
        assert reader[0](packed("it", content))[2] == content


def test_what_is_not_read_in_one_go(server: HandlerTable, client: HandlerTable) -> None:
    """A handler that takes no message, is not simple, or does not see it first."""
    server.add("who", lambda client: None)
    server.add("threaded", ignore, Options(threaded=True))
    server.add("admin", ignore, Options(requires="admin"))
    server.add("*", lambda client, command, message: None)
    server.add("move", ignore)
    client.add("nothing", lambda: None)

    for command in ("who", "threaded", "admin", "*", "leave", "unknown", None):
        assert server.reader(command) is None
    assert client.reader("nothing") is None
    assert server.reader("move") is not None
    server.tap()
    assert server.reader("move") is None


def test_who_holds_on_to_a_reader_learns_of_changes(server: HandlerTable) -> None:
    """Whatever is registered makes ``outdated`` tell, and a new one takes its place."""
    changes: list[Callable[[], object]] = [
        lambda: server.add("move", ignore),
        lambda: server.add("move", lambda client, message: None),
        lambda: server.add("message", ignore),
        server.tap,
    ]
    for change in changes:
        outdated = server.outdated
        assert not outdated
        change()
        assert outdated
        assert not server.outdated


def test_at_the_end_of_the_stack_it_goes_without(server: HandlerTable) -> None:
    """Where nothing can be made any more, messages are read in two steps."""
    server.add("move", ignore)

    def at_the_end() -> Any:
        try:
            return at_the_end()
        except RecursionError:
            return server.reader("move")

    assert at_the_end() is None
    assert server.reader("move") is None


# --- time ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"a" * MIB,
        b" " * MIB,
        b"a " * (MIB // 2),
        b"$" * MIB,
        b"move left " * (MIB // 10),
        b"move" + b"\x00" * MIB,
    ],
    ids=lambda body: repr(body[:8]),
)
def test_a_mebibyte_is_looked_up_in_no_time(server: HandlerTable, body: bytes) -> None:
    """A command of a mebibyte costs nothing; no pattern runs over it (T27)."""
    for command in ("move", "move left", "move left left", "a a a a"):
        server.add(command, ignore)
    began = time.perf_counter()

    server.find(body)

    assert time.perf_counter() - began < 0.05
