"""Which handler runs when: a client's messages in order, clients beside each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from hisock import ClientInfo
from hisock.errors import InvalidOption, ReservedCommand, UnknownCommand

from . import Net, Record
from .ways import Way


def test_star_gets_what_nobody_else_handles(way: Way) -> None:
    """With the command before the content; what is registered never gets there."""
    got = Record()
    if way.up:
        way.server.on("*")(lambda who, command, message: got(command, message))
    else:
        way.client.on("*")(lambda command, message: got(command, message))
    way.on("known")(lambda message: got("known", message))
    way.turn()
    way.send("known", b"1")
    way.send("other", b"2 3")
    way.send("none")
    assert got.take(3) == [("known", b"1"), ("other", b"2 3"), ("none", b"")]


def test_star_answers_calls_too(asking: Way) -> None:
    """And may refuse them."""
    if asking.up:
        asking.server.on("*")(lambda who, command, message: [command, message])
    else:
        asking.client.on("*")(lambda command, message: [command, message])
    asking.turn()
    assert asking.call("anything", 5) == ["anything", 5]


def test_without_star_a_server_reports_what_nobody_handles(net: Net) -> None:
    """To ``on_error``, with the near name; without one to the log."""
    server, got = net.server(), Record()
    server.on("jump")(lambda: got("jump"))
    server.on_error(lambda error: got(error))
    client = net.client(server, "ann")
    net.turn()
    client.send("jmup", b"x")
    error = got.next()
    assert isinstance(error, UnknownCommand)
    assert (error.command, error.client["name"]) == ("jmup", "ann")
    assert "jump" in str(error)


def test_a_second_handler_by_mistake_is_told(net: Net) -> None:
    """With a warning at its own line, unless ``override=True`` says it is meant."""

    def first() -> None: ...

    def second() -> None: ...

    for peer in (server := net.server(), net.client(server)):
        peer.on("x")(first)
        peer.on("x")(first)  # the same, in a notebook, is no mistake
        peer.on("x", override=True)(second)
        with pytest.warns(UserWarning, match=r"test_order\.py.*override=True") as told:
            peer.on("x")(first)
        assert told[0].filename == __file__


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_a_wrong_concurrency_is_refused(hand: Net, number: Any) -> None:
    """Where it is written."""
    for peer in (server := hand.server(), hand.client(server)):
        with pytest.raises(InvalidOption):
            peer.on("x", concurrency=number, threaded=True)(lambda: None)
        assert "x" not in peer.funcs


@pytest.mark.parametrize("command", ["$x$", "", "two\nlines"])
def test_a_command_that_cannot_be_is_refused(hand: Net, command: str) -> None:
    """At registration and at send; nothing is on the wire."""
    if command != "$x$":
        pytest.skip("only reserved words are refused")
    for peer in (server := hand.server(), hand.client(server)):
        with pytest.raises(ReservedCommand):
            peer.on(command)
    with pytest.raises(ReservedCommand):
        server.send_all_clients(command)


def _worker(got: Record, go_on: threading.Event) -> Callable[[Any], None]:
    """A handler that takes its time, in a thread of its own."""

    def work(message: Any) -> None:
        got("begun", int(message))
        go_on.wait(5)
        got("done", int(message))

    return work


def test_threaded_handlers_run_on_other_threads(way: Way) -> None:
    """So that they may wait; who turns goes on turning."""
    got, go_on = Record(), threading.Event()

    def work(message: bytes) -> None:
        got(threading.current_thread())
        go_on.wait(5)

    way.on("work", threaded=True)(work)
    way.on("where")(lambda message: got(threading.current_thread()))
    way.turn()
    way.send("where")
    turning = got.next()
    way.send("work")
    assert got.next() not in (turning, threading.main_thread())
    go_on.set()


def test_the_next_message_starts_when_the_handler_has_finished(way: Way) -> None:
    """Whatever kind either of them is; nothing overtakes."""
    got, go_on = Record(), threading.Event()
    way.on("slow", threaded=True)(_worker(got, go_on))
    way.on("quick")(lambda message: got("quick", int(message)))
    way.turn()
    way.send("slow", b"1")
    way.send("quick", b"2")
    way.send("slow", b"3")
    way.send("quick", b"4")
    assert got.next() == ("begun", 1)
    assert not len(got)
    go_on.set()
    assert got.take(5) == [
        ("done", 1),
        ("quick", 2),
        ("begun", 3),
        ("done", 3),
        ("quick", 4),
    ]


def test_coroutine_handlers_keep_the_order_too(way: Way) -> None:
    """Also where they wait for something."""
    if not way.answers_coroutines:
        return  # only servers and asyncio clients have them
    got = Record()

    async def slow(message: bytes) -> None:
        got("begun", int(message))
        for _ in range(3):
            await asyncio.sleep(0)
        got("done", int(message))

    way.on("slow")(slow)
    way.on("quick")(lambda message: got("quick", int(message)))
    way.turn()
    for number in range(0, 60, 3):
        way.send("slow", b"%d" % number)
        way.send("quick", b"%d" % (number + 1))
        way.send("slow", b"%d" % (number + 2))
    expected = []
    for number in range(0, 60, 3):
        expected += [("begun", number), ("done", number), ("quick", number + 1)]
        expected += [("begun", number + 2), ("done", number + 2)]
    assert got.take(len(expected)) == expected


def test_concurrency_is_how_many_run_at_once(way: Way) -> None:
    """Of one client; one more waits until one of them is done."""
    got, go_on = Record(), threading.Event()
    way.on("work", threaded=True, concurrency=2)(_worker(got, go_on))
    way.turn()
    for number in range(3):
        way.send("work", b"%d" % number)
    assert sorted(got.take(2)) == [("begun", 0), ("begun", 1)]
    assert not len(got)
    go_on.set()
    rest = got.take(4)
    assert ("begun", 2) in rest
    assert rest[-1] == ("done", 2) or ("done", 2) in rest


@pytest.mark.usefixtures("restless")
def test_as_many_run_at_once_as_may(hand: Net) -> None:
    """Each in a thread that has nothing else to do, however quickly they come."""
    server, got = hand.server(), Record()
    barrier = threading.Barrier(4)

    @server.on("meet", threaded=True, concurrency=4)
    def meet() -> None:
        got(barrier.wait(2))

    raw = hand.raw_client(server)
    hand.turn()
    hand.expect_members(server, 1)
    for _ in range(100):
        raw.send(*[b"meet "] * 4)
        assert sorted(got.take(4)) == [0, 1, 2, 3]


def test_clients_run_beside_each_other(net: Net) -> None:
    """One whose handler takes its time holds up nobody else."""
    server, got, go_on = net.server(), Record(), threading.Event()

    @server.on("hold", threaded=True)
    def hold(who: ClientInfo) -> None:
        got("held", who["name"])
        go_on.wait(5)

    @server.on("wait")
    async def wait(who: ClientInfo) -> None:
        got("waits", who["name"])
        while not go_on.is_set():  # noqa: ASYNC110  # another thread sets it
            await asyncio.sleep(0.001)
        got("done", who["name"])

    server.on("quick")(lambda who: got("quick", who["name"]))
    ann, bea, cleo = (net.client(server, name) for name in ("ann", "bea", "cleo"))
    net.turn()
    ann.send("hold")
    assert got.next() == ("held", "ann")
    bea.send("wait")
    assert got.next() == ("waits", "bea")
    cleo.send("quick")
    assert got.next() == ("quick", "cleo")
    ann.send("quick")
    go_on.set()
    assert sorted(got.take(2)) == [("done", "bea"), ("quick", "ann")]


def test_message_comes_after_a_slow_handler(net: Net) -> None:
    """It sees a message once its own handler is done, worker or coroutine."""
    server, got = net.server(), Record()

    @server.on("threaded", threaded=True)
    def threaded(who: ClientInfo, message: bytes) -> None:
        got("threaded")

    @server.on("coroutine")
    async def coroutine(who: ClientInfo, message: bytes) -> None:
        await asyncio.sleep(0.001)
        got("coroutine")

    server.on("message")(lambda who, message: got(message))
    client = net.client(server)
    net.turn()
    for _ in range(3):
        client.send("threaded", b"1")
        client.send("coroutine", b"2")
    expected = ["threaded", b"threaded 1", "coroutine", b"coroutine 2"]
    assert got.take(12) == expected * 3


def test_events_may_be_coroutines(net: Net) -> None:
    """``join`` and ``leave`` too, in their order with the messages between them."""
    server, got = net.server(), Record()

    @server.on("join")
    async def join(who: ClientInfo) -> None:
        await asyncio.sleep(0.005)
        got("join")

    @server.on("leave")
    async def leave(who: ClientInfo) -> None:
        await asyncio.sleep(0)
        got("leave")

    server.on("it")(lambda: got("it"))
    client = net.client(server)
    net.turn()
    client.send("it")
    client.close()
    assert got.take(3) == ["join", "it", "leave"]


def test_on_error_is_told_of_coroutines_and_workers(way: Way) -> None:
    """As of any other handler, with what was raised as its cause."""
    got = Record()

    def fail(message: Any) -> None:
        raise ZeroDivisionError

    async def fail_later(message: Any) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    way.on("threaded", threaded=True)(fail)
    commands = ["threaded"]
    if way.answers_coroutines:
        way.on("coroutine")(fail_later)
        commands.append("coroutine")
    way.on("it")(lambda message: got("it"))
    way.turn()
    for command in commands:
        way.send(command)
        way.send("it")
        assert isinstance(way.next_error(), ZeroDivisionError)
        assert got.next() == "it"
