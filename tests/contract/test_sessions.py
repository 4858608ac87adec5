"""Sessions: through any cut every message arrives once and in order, and both sides
are told of the cut and of the return."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.chaos.pipes import Direction, How

from hisock import ClientInfo

from . import Net, Record, Thread, eventually
from .cutting import CutWay

#: Messages between two cuts.
SOME = 40
HOWS: tuple[How, ...] = ("fin", "rst", "both")


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("lost", ["messages", "acknowledgements"])
def test_a_cut_loses_nothing_and_repeats_nothing(
    cut: CutWay, lost: str, how: How
) -> None:
    """Neither where messages were on their way nor where it is only not known that
    they have arrived; and what is sent during the cut comes after them."""
    got = Record()
    cut.on("it")(lambda message: got(message))
    cut.turn()
    for first in (0, 2 * SOME):
        middle, end = first + SOME, first + 2 * SOME
        cut.hold(cut.there if lost == "messages" else cut.back)
        for number in range(first, middle):
            cut.send("it", number)
        if lost == "acknowledgements":
            assert got.take(SOME) == list(range(first, middle))
        cut.cut(how)
        for number in range(middle, end):
            cut.send("it", number)
        awaited = range(first if lost == "messages" else middle, end)
        assert got.take(len(awaited)) == list(awaited)
    cut.send("it", "last")
    assert got.next() == "last"


def test_both_sides_are_told_of_each_cut_and_return(apart: CutWay) -> None:
    """Once each and in order; ``leave`` comes once, at the goodbye."""
    apart.turn()
    for how in HOWS:
        with apart.apart(how):
            pass
    apart.net.end(apart.client)
    assert apart.told_server.next() == "leave"
    assert not len(apart.told_client)
    assert not len(apart.told_server)


def test_a_client_that_is_cut_off_stays_a_member(apart: CutWay) -> None:
    """It keeps its place, its name, its groups and what the program remembers of it;
    only ``is_connected`` is false, on both sides."""
    server = apart.server
    apart.turn()
    server.join_group("ann", "blue")
    who = server.client("ann")
    who.data["score"] = 7
    with apart.apart():
        assert not who.is_connected
        assert not apart.client.is_connected
        assert len(server) == 1
        assert server.client("ann") is who
        assert server.get_client("ann")["group"] == "red"
        assert server.get_all_clients("name") == ["ann"]
        assert [one["name"] for one in server.get_group("red")] == ["ann"]
        assert server.client(who["ip"]) is who
        assert who.groups == {"red", "blue"}
        assert who.data == {"score": 7}
        assert len(server.group("blue")) == 1
    eventually(lambda: who.is_connected and apart.client.is_connected)
    assert server.client("ann") is who
    assert who.groups == {"red", "blue"}
    assert who.data == {"score": 7}
    assert server.client(who.peer) is who


def test_an_address_is_the_newest_and_the_first(apart: CutWay) -> None:
    """``ip`` stays that of the first connection, and ``peer`` is that of the last; by
    either the client is found."""
    apart.turn()
    who = apart.server.client("ann")
    first = who["ip"]
    assert who.peer == first
    with apart.apart():
        pass
    assert who["ip"] == first != who.peer
    assert apart.server.client(first) is apart.server.client(who.peer) is who
    assert list(apart.server.clients.values()) == [who]


def test_what_is_sent_while_nobody_is_there_arrives_later(cut: CutWay) -> None:
    """All of it and in order, sent by name, to groups or to all."""
    got = Record()
    cut.on("it")(lambda message: got(message))
    cut.turn()
    server = cut.server
    with cut.apart():
        for number in range(SOME):
            cut.send("it", number)
        if not cut.up:
            server.send_group("red", "it", "group")
            server.send_all_clients("it", "all")
            server.client("ann").send("it", "himself")
    expected = [] if cut.up else ["group", "all", "himself"]
    assert got.take(SOME + len(expected)) == [*range(SOME), *expected]


def test_others_hear_nothing_of_a_cut(apart: CutWay) -> None:
    """They are told who joins and who leaves, and a cut is neither."""
    told = Record()
    apart.server.on("ready")(lambda who: True)
    apart.turn()
    bea = apart.net.client(apart.server, "bea")
    bea.on("client_connect")(lambda who: told("in", who["name"]))
    bea.on("client_disconnect")(lambda who: told("out", who["name"]))
    apart.net.turn()
    assert bea.call("ready")  # and is told from now on
    apart.net.end(apart.net.client(apart.server, "cleo"))
    assert told.take(2) == [("in", "cleo"), ("out", "cleo")]
    with apart.apart():
        pass
    apart.net.end(apart.client)
    assert told.next() == ("out", "ann")
    assert not len(told)


def counted(cut: CutWay) -> Record:
    """Register a handler that doubles; what it was called with."""
    ran = Record()

    @cut.on("double")
    def double(message: int) -> int:
        ran(message)
        return 2 * message

    return ran


def test_a_call_is_answered_after_a_cut(cut: CutWay) -> None:
    """One whose request was on its way runs once, when both are back."""
    ran = counted(cut)
    cut.turn()
    assert cut.call("double", 1) == 2
    cut.hold(cut.there)
    calling = Thread(cut.call, "double", 4)
    cut.cut()
    cut.expect("drop")
    cut.expect("resume")
    assert calling.result() == 8
    assert ran.take(2) == [1, 4]
    assert not len(ran)


def test_an_answer_that_came_to_nothing_comes_again(cut: CutWay) -> None:
    """Its handler has run, and does not run again."""
    ran = counted(cut)
    cut.turn()
    assert cut.call("double", 1) == 2
    cut.hold(cut.back)
    calling = Thread(cut.call, "double", 4)
    assert ran.take(2) == [1, 4]
    cut.cut()
    assert calling.result() == 8
    assert not len(ran)


def test_a_handler_may_end_while_nobody_is_there(cut: CutWay) -> None:
    """What it returned waits, and answers the call after the return."""
    ran, go_on = Record(), threading.Event()

    @cut.on("slow", threaded=True)
    def slow(message: int) -> int:
        ran("began")
        assert go_on.wait(5)
        return 2 * message

    cut.turn()
    calling = Thread(cut.call, "slow", 4)
    assert ran.next() == "began"
    cut.proxy.refuse("fin")
    cut.cut()
    go_on.set()
    assert cut.proxy.wait_for(lambda: cut.proxy.refused)
    assert calling.is_alive
    cut.proxy.accept_again()
    assert calling.result() == 8


def test_a_call_made_while_nobody_is_there_waits(cut: CutWay) -> None:
    """As long as its time-out, that is; the return is in time."""
    cut.on("double")(lambda message: 2 * message)
    cut.turn()
    with cut.apart():
        calling = Thread(cut.call, "double", 4)
    assert calling.result() == 8


def test_a_call_whose_time_is_up_does_not_run_later(cut: CutWay) -> None:
    """The caller gave up before the link was back, so nobody answers."""
    ran = Record()
    cut.on("it")(lambda message: ran(message))
    cut.turn()
    with cut.apart(), pytest.raises(TimeoutError):
        cut.call("it", "late", timeout=0.05)
    cut.send("it", "next")
    assert ran.next() == "next"


@pytest.mark.parametrize("threaded", [False, True])
def test_a_stream_goes_on_after_a_cut(cut: CutWay, threaded: bool) -> None:
    """Item by item as if nothing had been, however much was on its way."""

    @cut.on("count", threaded=threaded)
    def count(message: int) -> Iterator[int]:
        yield from range(message)

    cut.turn()
    items = cut.stream("count", 300)
    assert [next(items) for _ in range(5)] == list(range(5))
    cut.hold(cut.back)
    cut.cut()
    assert [next(items) for _ in range(145)] == list(range(5, 150))
    with cut.apart():
        pass
    assert list(items) == list(range(150, 300))


def test_a_stream_that_is_closed_in_a_cut_ends(cut: CutWay) -> None:
    """Its producer hears of it after the return."""
    over = Record()

    @cut.on("count")
    def count(message: int) -> Iterator[int]:
        try:
            while True:
                yield message
        finally:
            over("closed")

    cut.turn()
    items = cut.stream("count", 7)
    assert next(items) == 7
    with cut.apart():
        closing = Thread(items.close)
    closing.result()
    assert over.next() == "closed"


def test_who_calls_itself_otherwise_in_a_cut_is_called_so(apart: CutWay) -> None:
    """The server's handlers run once, when the client is back."""
    changed = Record()
    apart.server.on("name_change")(lambda who, old, new: changed("name", old, new))
    apart.server.on("group_change")(lambda who, old, new: changed("group", old, new))
    apart.turn()
    with apart.apart():
        apart.client.change_name("bea")
        apart.client.change_group("blue")
        assert apart.server.get_all_clients("name") == ["ann"]
    assert changed.take(2) == [("name", "ann", "bea"), ("group", "red", "blue")]
    assert apart.server.get_client("bea")["group"] == "blue"
    assert not len(changed)


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_cut_in_the_middle_of_a_message(
    cut: CutWay, direction: Direction, how: How
) -> None:
    """Half a frame is worth nothing: it comes again, whole and once."""
    got = Record()
    cut.on("it")(lambda message: got(message))
    cut.turn()
    large = bytes(range(256)) * 400

    def send_three() -> None:
        for _ in range(3):
            cut.send("it", large)

    for number in range(3):
        before = cut.proxy.cuts
        cut.proxy.cut_after(direction, 3 + 30_000 * number, how)
        sending = Thread(send_three)
        received = got.take(3)
        sending.result()
        assert received == [large] * 3
        cut.proxy.disarm()
        assert direction != cut.there or cut.proxy.cuts == before + 1
    assert not len(got)


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("passed", [0, 1, 100, 400, 600])
def test_a_cut_in_the_middle_of_coming_back(
    apart: CutWay, direction: Direction, passed: int
) -> None:
    """Wherever hello, welcome or replay were cut off, the next try succeeds."""
    up, down = Record(), Record()
    apart.server.on("it")(lambda who, message: up(message))
    apart.client.on("it")(lambda message: down(message))
    apart.turn()
    apart.hold("up", "down")
    for number in range(SOME):
        apart.client.send("it", number)
        apart.server.send_client("ann", "it", number)
    apart.proxy.cut_after(direction, passed, of="next")
    apart.cut()
    apart.client.send("it", "last")
    apart.server.send_client("ann", "it", "last")
    for got in (up, down):
        assert got.take(SOME + 1) == [*range(SOME), "last"]
        assert not len(got)


def test_a_cut_that_the_client_alone_knows_of(apart: CutWay) -> None:
    """It is back on a second link before the server misses the first."""
    up, down = Record(), Record()
    apart.server.on("it")(lambda who, message: up(message))
    apart.client.on("it")(lambda message: down(message))
    apart.turn()
    assert apart.proxy.cut(only="client") == 1
    apart.expect("drop")
    apart.expect("resume")
    apart.client.send("it", 1)
    apart.server.send_client("ann", "it", 2)
    assert (up.next(), down.next()) == (1, 2)
    assert len(apart.server) == 1


@pytest.mark.parametrize("told", ["neither", "server"])
def test_silence_is_noticed(compact: Net, told: str) -> None:
    """A client that hears nothing for ``dead_after`` gives the link up and comes back,
    and where it says so itself its server does."""
    dead_after = {"dead_after": 0.4}
    silent = CutWay(compact, up=True, server=dead_after, client=dead_after)
    got = Record()
    silent.server.on("it")(lambda who, message: got(message))
    silent.turn()
    silent.hold("up", "down")
    silent.client.send("it", 1)
    if told == "server":
        assert silent.proxy.cut(only="server") == 1
    assert silent.proxy.wait_for(lambda: silent.proxy.connections == 2)
    silent.proxy.heal()
    silent.expect("drop")
    silent.expect("resume")
    silent.client.send("it", 2)
    assert got.take(2) == [1, 2]


def test_a_client_that_only_sends_comes_back(idle: CutWay) -> None:
    """Though nobody calls ``update``: its sends see to it, without waiting."""
    got = Record()
    idle.server.on("it")(lambda who, message: got(message))
    idle.net.turn(idle.server)
    sent = 0

    def send() -> int:
        nonlocal sent
        idle.client.send("it", sent)
        sent += 1
        return len(idle.told_server)

    def back() -> bool:
        send()  # which reads what the server has said, too
        return bool(idle.client.is_connected)

    send()
    assert idle.told_server.next() == "join"
    for how in HOWS:
        assert idle.proxy.cut(how) == 1
        assert idle.told_server.next() == "drop"
        eventually(send)
        assert idle.told_server.next() == "resume"
        eventually(back)
    assert got.take(sent) == list(range(sent))
    assert not len(got)


#: What a program may wait with, and what ends it.
WAITS: dict[str, Callable[[Any], Any]] = {
    "recv": lambda client: client.recv("it"),
    "recv_any": lambda client: client.recv_any().content,
    "recv_raw": lambda client: int(client.recv_raw().split()[1]),
    "call": lambda client: client.call("give", timeout=5),
    "stream": lambda client: next(client.stream("each", timeout=5)),
    "get_client": lambda client: client.get_client("bea")["group"],
}


def each_of(who: ClientInfo) -> Iterator[int]:
    """Answers a stream."""
    yield 7


@pytest.mark.parametrize("wait", WAITS)
def test_who_waits_comes_back(idle: CutWay, wait: str) -> None:
    """A client that nobody turns does so inside whatever waits for the server."""
    server = idle.server
    server.on_resume(lambda who: server.send_client(who, "it", 7))
    server.on("give")(lambda who: 7)
    server.on("each")(each_of)
    idle.net.turn(server)
    idle.net.raw_client(server, "bea", "7")
    idle.client.send("hello", b"")
    assert idle.told_server.next() == "join"
    idle.cut()
    assert idle.told_server.next() == "drop"
    assert int(WAITS[wait](idle.client)) == 7


def test_several_cuts_while_both_talk(apart: CutWay) -> None:
    """In both directions at once, with threads on both sides."""
    up, down = Record(), Record()
    apart.server.on("it")(lambda who, message: up(message))
    apart.client.on("it")(lambda message: down(message))
    apart.turn()
    over = threading.Event()

    def talk(send: Callable[[int], object]) -> int:
        number = 0
        while not over.is_set():
            send(number)
            number += 1
            over.wait(0.001)
        return number

    talking = [
        Thread(talk, lambda number: apart.client.send("it", number)),
        Thread(talk, lambda number: apart.server.send_client("ann", "it", number)),
    ]
    try:
        for how in (*HOWS, *HOWS):
            apart.cut(how)
            apart.expect("drop")
            apart.expect("resume")
    finally:
        over.set()
    for got, thread in zip((up, down), talking, strict=True):
        count = thread.result()
        assert got.take(count) == list(range(count))
        assert not len(got)


def test_the_return_is_told_before_what_came_with_it(apart: CutWay) -> None:
    """A client hears that it is back, and then what was sent meanwhile."""
    apart.client.on("it")(lambda message: apart.told_client(message))
    apart.turn()
    apart.proxy.refuse()
    apart.cut()
    apart.expect("drop")
    for number in range(3):
        apart.server.send_client("ann", "it", number)
    apart.proxy.accept_again()
    assert apart.told_client.take(4) == ["resume", 0, 1, 2]
