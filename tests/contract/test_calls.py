"""Calls: one side asks, the other answers, and what happens when it cannot."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hisock import ClientInfo
from hisock.errors import (
    CommandError,
    InvalidOption,
    Refused,
    RemoteError,
    RequestTimeout,
    SessionLost,
    UnknownClient,
    WouldDeadlock,
)

from . import Net, Record, Thread, eventually
from .ways import Way


def test_what_a_handler_returns_answers(asking: Way) -> None:
    """Plain, in a worker thread, or a coroutine."""

    def add(message: list[int]) -> int:
        return sum(message)

    async def add_later(message: list[int]) -> int:
        return sum(message)

    asking.on("plain")(add)
    asking.on("threaded", threaded=True)(add)
    commands = ["plain", "threaded"]
    if asking.answers_coroutines:
        asking.on("coroutine")(add_later)
        commands.append("coroutine")
    asking.turn()
    for command in commands:
        assert asking.call(command, [1, 2, 3]) == 6
        assert asking.call(command, [1], type=float) == 1.0


def test_a_handler_may_return_nothing(asking: Way) -> None:
    """``None`` is an answer, too."""
    asking.on("it")(lambda message: None)
    asking.turn()
    assert asking.call("it", b"x") is None


def test_a_send_needs_no_answer(asking: Way) -> None:
    """What its handler returns is for nobody."""
    got = Record()

    def note(message: Any) -> str:
        got(message)
        return "unheard"

    asking.on("it")(note)
    asking.turn()
    asking.send("it", 1)
    assert asking.call("it", 2) == "unheard"
    assert got.take(2) == [1, 2]


def test_calls_from_many_threads_get_their_own_answers(asking: Way) -> None:
    """Whoever asks first need not be answered first."""
    asking.on("echo", threaded=True, concurrency=4)(lambda message: message)
    asking.turn()
    threads = [Thread(asking.call, "echo", number) for number in range(8)]
    assert [thread.result() for thread in threads] == list(range(8))


def test_a_handler_may_refuse(asking: Way) -> None:
    """With ``CommandError``: the caller gets its code, message and data, all alone."""

    def buy(message: Any) -> None:
        raise CommandError("no_money", "this costs 5", {"have": 3})

    asking.on("buy")(buy)
    asking.on("rest")(lambda message: "served")
    asking.turn()
    with pytest.raises(RemoteError) as caught:
        asking.call("buy")
    error = caught.value
    assert (error.code, error.message) == ("no_money", "this costs 5")
    assert error.data == {"have": 3}
    assert asking.call("rest") == "served"
    assert not len(asking.errors)


def test_a_handler_that_fails_tells_no_secrets(asking: Way) -> None:
    """The caller hears ``handler_failed``; its own side is told the rest."""

    def fail(message: Any) -> None:
        raise ZeroDivisionError("secret")

    asking.on("fail")(fail)
    asking.on("rest")(lambda message: "served")
    asking.turn()
    with pytest.raises(RemoteError) as caught:
        asking.call("fail")
    assert caught.value.code == "handler_failed"
    assert "secret" not in str(caught.value)
    assert isinstance(asking.next_error(), ZeroDivisionError)
    assert asking.call("rest") == "served"


def test_an_unknown_command_is_told_with_the_near_name(asking: Way) -> None:
    """So that a slip of the finger is found at once."""
    asking.on("jump")(lambda message: None)
    asking.turn()
    with pytest.raises(RemoteError, match=r"[Dd]id you mean 'jump'") as caught:
        asking.call("jmup")
    assert caught.value.code == "unknown_command"


def test_a_call_gives_up_after_its_timeout(asking: Way) -> None:
    """A handler that has not begun by then never does; a later call is served."""
    got, go_on = Record(), threading.Event()

    def hold(message: Any) -> None:
        got("held")
        go_on.wait(5)

    asking.on("hold")(hold)
    asking.on("late")(lambda message: got("late"))
    asking.on("next")(lambda message: got("next"))
    asking.turn()
    asking.send("hold")
    assert got.next() == "held"
    with pytest.raises(TimeoutError) as caught:
        asking.call("late", timeout=0.05)
    assert isinstance(caught.value, RequestTimeout)
    go_on.set()
    asking.call("next")
    assert got.next() == "next"


def test_a_reply_that_comes_too_late_is_counted(compact: Net) -> None:
    """``stats()`` tells; nobody is disturbed by it."""
    way, go_on = Way(compact, up=False), threading.Event()
    way.on("hold")(lambda message: go_on.wait(5))
    way.on("next")(lambda message: "next")
    way.turn()
    with pytest.raises(RequestTimeout):
        way.call("hold", timeout=0.05)
    assert way.server.stats()["open_calls"] == 0
    go_on.set()
    assert way.call("next") == "next"
    eventually(lambda: way.server.stats()["late_replies"] == 1)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_more_than_nothing(hand: Net, timeout: float) -> None:
    """Anything else is refused before it is sent."""
    if not hand.is_compact:
        pytest.skip("there are no calls")
    for up in (True, False):
        way = Way(hand, up=up)
        way.turn()
        with pytest.raises(InvalidOption):
            way.call("it", timeout=timeout)


def test_a_type_that_nothing_converts_to_is_refused(asking: Way) -> None:
    """Before anything is sent."""
    got = Record()
    asking.on("it")(lambda message: got("called"))
    asking.turn()
    with pytest.raises(InvalidOption):
        asking.call("it", type=threading.Lock())
    assert not len(got)


def test_on_the_wire_of_1_1_there_are_no_calls(classic: Net) -> None:
    """They are refused on the asker's side, with what to use in their place."""
    for up in (True, False):
        way = Way(classic, up=up)
        way.turn()
        with pytest.raises(Refused, match=r"hisock 1\.1") as caught:
            way.call("it")
        assert caught.value.code == "classic_wire"
        with pytest.raises(Refused, match=r"hisock 1\.1") as caught:
            next(way.stream("it"))
        assert caught.value.code == "classic_wire"
        classic.end(way.client)
    way = Way(classic, up=False)
    way.turn()
    replies = way.server.call_group("red", "it")
    assert list(replies) == []
    assert replies.missing == []
    ((client, error),) = replies.failed
    assert client["name"] == "ann"
    assert isinstance(error, Refused)
    with pytest.raises(UnknownClient):
        way.server.call_any("red", "it")


def test_a_call_ends_with_the_connection(asking: Way) -> None:
    """Whether it was handled is then unknown."""
    got, go_on = Record(), threading.Event()

    def hold(message: Any) -> None:
        got("held")
        go_on.wait(5)

    asking.on("hold", threaded=True)(hold)
    asking.turn()
    calling = Thread(asking.call, "hold")
    assert got.next() == "held"
    try:
        if asking.up:
            asking.server.disconnect_client("ann")
        else:
            asking.client.close()
        with pytest.raises(ConnectionError) as caught:
            calling.result()
        assert isinstance(caught.value, SessionLost)
    finally:
        go_on.set()


def test_a_client_may_call_inside_a_handler(compact: Net) -> None:
    """What arrives meanwhile stays in order."""
    server, got = compact.server(), Record()
    server.on("add")(lambda who, message: sum(message))
    client = compact.client(server, "ann")

    @client.on("go", **compact.may_wait(client))
    def go() -> None:
        got(client.call("add", [1, 2], type=int))

    client.on("after")(lambda: got("after"))
    compact.turn()
    compact.expect_members(server, 1)
    for _ in range(3):
        server.send_client("ann", "go")
        server.send_client("ann", "after")
    assert got.take(6) == [3, "after"] * 3


def test_a_plain_server_handler_that_waits_is_told(compact: Net) -> None:
    """Its thread would have to read the answer: ``WouldDeadlock`` names the cures."""
    server, got = compact.server(), Record()

    @server.on("go")
    def go(who: ClientInfo) -> None:
        try:
            got(who.call("name"))
        except WouldDeadlock as error:
            got(str(error))

    client = compact.client(server, "ann")
    client.on("name")(lambda: "ann")
    compact.turn()
    client.send("go")
    text = got.next()
    assert "async def" in text
    assert "threaded=True" in text


def test_a_server_calls_back_in_a_worker(compact: Net) -> None:
    """A blocking call is fine in a handler that says ``threaded=True``."""
    server, got = compact.server(), Record()

    @server.on("go", threaded=True)
    def go(who: ClientInfo, message: str) -> str:
        got(who.call("double", message, type=str))
        return "done"

    client = compact.client(server, "ann")
    client.on("double")(lambda message: message * 2)
    compact.turn()
    assert client.call("go", "ab") == "done"
    assert got.next() == "abab"
    client.send("go", "x")
    assert got.next() == "xx"


def test_a_server_calls_back_in_a_coroutine(compact: Net) -> None:
    """On every server, whatever turns it."""
    server = compact.server()

    @server.on("go")
    async def go(who: Any, message: str) -> str:
        doubled: str = await who.call("double", message, type=str)
        return doubled + "!"

    client = compact.client(server, "ann")
    client.on("double")(lambda message: message * 2)
    compact.turn()
    assert client.call("go", "ab") == "abab!"


def test_a_call_within_a_call_is_served_while_that_waits(compact: Net) -> None:
    """Nobody else turns the client: its waiting call does, for this call alone."""
    server, got = compact.server(), Record()

    @server.on("go")
    async def go(who: Any, message: str) -> str:
        who.send("unrelated")
        doubled: str = await who.call("double", message, type=str)
        return doubled + "!"

    client = compact.client(server, "ann")

    @client.on("double")
    def double(message: str) -> str:
        got("double")
        return message * 2

    client.on("unrelated")(lambda: got("unrelated"))
    compact.turn(server)
    assert client.call("go", "ab") == "abab!"
    compact.turn()
    assert sorted(got.take(2)) == ["double", "unrelated"]


def test_calls_within_calls_have_a_depth(compact: Net) -> None:
    """Beyond 16 the answer is ``overloaded``, and everybody goes on."""
    server = compact.server()
    client = compact.client(server, "ann")

    @server.on("dig")
    async def dig(who: Any, message: int) -> int:
        return 0 if not message else 1 + await who.call("dig", message - 1, type=int)

    @client.on("dig", threaded=True, concurrency=64)
    def dig_there(message: int) -> int:
        return 0 if not message else 1 + client.call("dig", message - 1, type=int)

    compact.turn()
    assert client.call("dig", 6) == 6
    with pytest.raises(RemoteError) as caught:
        client.call("dig", 60)
    assert caught.value.code == "overloaded"
    assert client.call("dig", 6) == 6


def test_calls_beside_each_other_are_not_nested(compact: Net) -> None:
    """However many handlers run at a time: what counts is how many wait for one
    another."""
    server = compact.server()
    client = compact.client(server, "ann")
    count = 24
    begun: list[int] = []
    all_run = asyncio.Event()

    @server.on("outer", concurrency=count)
    async def outer(who: Any, message: int) -> int:
        begun.append(message)
        if len(begun) == count:
            all_run.set()
        await all_run.wait()
        return int(await who.call("back", message))

    @client.on("back", threaded=True, concurrency=count)
    def back(message: int) -> int:
        return client.call("inner", message, type=int)

    server.on("inner")(lambda who, message: -message)
    compact.turn()
    with ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(client.call, "outer", n) for n in range(count)]
        got = [each.result() for each in asked]

    assert got == [-n for n in range(count)]
