"""Links that are dead and do not say so, and links that are silent and alive."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from tests.chaos.pipes import Direction
from tests.chaos.proxy import ChaosProxy

from hisock import ClientInfo, connect, start_threaded_server
from hisock.server import ThreadedHiSockServer

from .programs import SLOW, AioCounter, Counter, Program
from .raw import HOST, PATIENCE, eventually

pytestmark = pytest.mark.timeout(30)

#: Seconds of silence after which a peer counts as gone, in these tests.
DEAD = 2.0
#: The same for those that have to outlive it.
SOON = 1.0
#: The same for those that notice nothing in these tests.
LONG = 25.0


class Watched:
    """A server that counts what it is told of its clients."""

    def __init__(self, **options: Any) -> None:
        self.told: list[str] = []
        self.handled: list[int] = []
        self.server: ThreadedHiSockServer = start_threaded_server((HOST, 0), **options)
        self.server.on("it")(self._handle)
        self.server.on_drop(lambda client: self.told.append("drop"))
        self.server.on_resume(lambda client: self.told.append("resume"))
        self.server.on("leave")(lambda client: self.told.append("leave"))

    def _handle(self, client: ClientInfo, number: int) -> None:
        self.handled.append(number)
        client.send("seen", number)


@contextmanager
def behind_proxy(**options: Any) -> Iterator[tuple[Watched, ChaosProxy]]:
    """A server, and a network to it that may be a black hole."""
    watched = Watched(**options)
    with watched.server, ChaosProxy(watched.server.addr) as proxy:
        yield watched, proxy


@contextmanager
def both(port: int, **options: Any) -> Iterator[list[Counter]]:
    """A client in a thread and one in an asyncio loop, that are in."""
    with (
        Counter(port, "threaded", **options) as threaded,
        AioCounter(port, "aio", **options) as looped,
    ):
        counters = [threaded, looped]
        for counter in counters:
            counter.send(1)
        eventually(lambda: all(c.seen == [0] for c in counters), "all is well")
        yield counters


@pytest.mark.parametrize("direction", [None, "up", "down"])
def test_f5_f6_a_black_hole_is_found_out(direction: Direction | None) -> None:
    """By both sides in ``dead_after``; then all goes on, and nothing is lost."""
    with (
        behind_proxy(dead_after=DEAD) as (watched, proxy),
        both(proxy.address[1], dead_after=DEAD) as counters,
    ):
        before = proxy.connections
        proxy.blackhole(direction)
        began = time.monotonic()
        for counter in counters:
            counter.send(10)
        for counter in counters:
            assert counter.next() == "drop"
            # Silence counts from the last byte that came, which was a moment before.
            assert DEAD * 0.7 < time.monotonic() - began < DEAD + 1.5
        assert proxy.wait_for(lambda: proxy.connections > before, SLOW)
        eventually(lambda: watched.told.count("drop") == 2, "the server found out")
        proxy.heal()
        for counter in counters:
            assert counter.next() == "resume"
            counter.expect(range(11))
            assert not counter.lost
        assert sorted(watched.handled) == sorted([*range(11), *range(11)])
        eventually(lambda: watched.told.count("resume") == 2, "both are back")
        assert watched.told.count("drop") == 2


def test_a_server_finds_a_client_out_that_says_so() -> None:
    """One that is read all the time beats; where nothing of that comes it is gone,
    though the client has not noticed anything."""
    with (
        behind_proxy(dead_after=SOON) as (watched, proxy),
        both(proxy.address[1], dead_after=1.9 * SOON) as counters,
    ):
        proxy.blackhole("up")
        began = time.monotonic()
        eventually(lambda: watched.told == ["drop", "drop"], "the server found out")
        assert SOON * 0.7 < time.monotonic() - began < SOON + 1.5
        proxy.heal()
        eventually(lambda: watched.told.count("resume") == 2, "they are back")
        assert not any(counter.lost for counter in counters)


def test_silence_alone_is_no_end() -> None:
    """Those who have nothing to say stay connected."""
    watched = Watched(dead_after=0.8)
    with (
        watched.server,
        both(watched.server.addr[1], dead_after=0.8) as counters,
    ):
        assert not threading.Event().wait(1.3)
        for counter in counters:
            counter.send(1)
            counter.expect(range(2))
            assert counter.events.empty()
        assert watched.told == []


def test_the_two_sides_need_not_agree() -> None:
    """A server that is less patient than its clients does not cut those it can hear,
    though they ask less often than it would like."""
    watched = Watched(dead_after=SOON)
    with watched.server, both(watched.server.addr[1], dead_after=LONG):
        assert not threading.Event().wait(1.6 * SOON)
        assert watched.told == []


@pytest.mark.parametrize("blocking", [True, False])
def test_a_plain_client_may_sit_and_think(blocking: bool) -> None:
    """Nobody pumps it for longer than ``dead_after``, and nothing is lost by that."""
    watched = Watched(dead_after=SOON)
    server, got = watched.server, list[int]()
    with (
        server,
        connect(server.addr, "ann", blocking=blocking, dead_after=SOON) as client,
    ):
        client.on("seen")(got.append)
        for number in range(5):
            client.send("it", number)
        eventually(lambda: len(watched.handled) == 5, "they are handled")
        while client.wire is None:
            client.update(timeout=0.01)
        for number in range(100, 110):
            server.send_client("ann", "seen", number)
        assert not threading.Event().wait(1.7 * SOON)
        client.send("it", 5)
        end = time.monotonic() + PATIENCE
        while len(got) < 16 and time.monotonic() < end:
            client.update(timeout=0.1)
        assert got == [0, 1, 2, 3, 4, *range(100, 110), 5]
        assert client.is_connected
        assert watched.told == []


def test_a_plain_client_that_waits_finds_out() -> None:
    """While it pumps it asks, and drops a link on which nothing comes."""
    with behind_proxy() as (watched, proxy):
        client = connect(proxy.address, "ann", dead_after=SOON)
        told: list[str] = []
        client.on_drop(lambda: told.append("drop"))
        client.on_resume(lambda: told.append("resume"))
        with client:
            eventually(lambda: len(watched.server) == 1, "it is in")
            client.update(timeout=0.2)
            proxy.blackhole()
            began = time.monotonic()
            while not told:
                client.update(timeout=0.1)
                assert time.monotonic() - began < SOON + 2
            assert time.monotonic() - began > SOON * 0.4
            proxy.heal()
            while told != ["drop", "resume"]:
                client.update(timeout=0.1)
                assert time.monotonic() - began < SLOW


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_f20_a_server_that_slept_cuts_nobody() -> None:
    """Silence counts from when it listened last; whatever turns the server."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Program.server(face, dead_after=DEAD))
            for face in ("plain", "aio")
        ]
        with ExitStack() as clients:
            counters = [
                counter
                for server in servers
                for counter in clients.enter_context(
                    both(server.next(), dead_after=1.9 * DEAD)
                )
            ]
            for server in servers:
                server.signal(signal.SIGSTOP)
            for counter in counters:
                counter.send(5)
            assert not threading.Event().wait(1.3 * DEAD)
            for server in servers:
                server.signal(signal.SIGCONT)
            for counter in counters:
                counter.send(1)
            expected = list(range(7))
            eventually(lambda: all(c.seen == expected for c in counters), "answers")
            # Nor later, when what was due in its sleep has been looked at.
            assert not threading.Event().wait(0.2 * DEAD)
            assert [c.events.qsize() for c in counters] == [0] * len(counters)
        for server in servers:
            server.signal(signal.SIGINT)
            assert server.end()[0] == 0
            assert not [word for word in server.rest() if word[:1] == ["drop"]]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_f5_a_client_that_was_stopped_goes_on() -> None:
    """Its kernel still answers, so only the beat is missing; it comes back."""
    watched = Watched(dead_after=SOON)
    source = """
import sys
from hisock import threaded_connect
client = threaded_connect(("127.0.0.1", int(sys.argv[1])), "ann", dead_after=1.0)
client.on("end")(client.stop_client)
with client:
    client.send("it", 1)
    client.join()
"""
    with watched.server, Program(source, watched.server.addr[1]) as client:
        eventually(lambda: watched.handled == [1], "it is in", within=SLOW)
        client.signal(signal.SIGSTOP)
        eventually(lambda: watched.told == ["drop"], "it is missed")
        watched.server.send_client("ann", "end")
        client.signal(signal.SIGCONT)
        assert client.end() == (0, "")
        eventually(lambda: watched.told[-1] == "leave", "it says goodbye")
    assert watched.told == ["drop", "resume", "leave"]


def test_f28_a_loop_that_was_busy_cuts_nobody() -> None:
    """A handler that blocks the server's loop for longer than ``dead_after``."""

    async def main() -> None:
        from hisock import aio

        server = aio.start_server((HOST, 0), dead_after=1.2)
        told: list[str] = []
        server.on_drop(lambda client: told.append("drop"))

        @server.on("block")
        def block(client: ClientInfo) -> None:
            threading.Event().wait(1.7)

        async with server:
            counter = Counter(server.addr[1], dead_after=2.3)
            with counter:
                await asyncio.to_thread(eventually, lambda: len(server), "it joins")
                await asyncio.to_thread(counter.client.send, "block")
                reply = counter.client.call
                server.on("add")(lambda client, number: number + 1)
                assert await asyncio.to_thread(reply, "add", 1) == 2
                assert told == []

    asyncio.run(main())


@pytest.mark.parametrize(("make", "up"), [(Counter, True), (AioCounter, False)])
def test_f25_a_slow_link_is_not_a_dead_one(make: type[Counter], up: bool) -> None:
    """A message that takes longer than ``dead_after`` to pass is no silence, though
    what its sender asks stands behind it."""
    size, dead = 800_000, 0.7
    passed: queue.SimpleQueue[int] = queue.SimpleQueue()
    with behind_proxy(dead_after=dead) as (watched, proxy):
        watched.server.on("large")(lambda client, content: passed.put(len(content)))
        with make(proxy.address[1], dead_after=dead) as counter:
            counter.client.on("large")(lambda content: passed.put(len(content)))
            counter.send(1)
            counter.expect(range(1))
            proxy.dribble(8_000, pause=0.01)
            began = time.monotonic()
            if up:
                counter.say("large", bytes(size))
            else:
                watched.server.send_client("ann", "large", bytes(size))
            assert passed.get(timeout=SLOW) == size
            assert time.monotonic() - began > 1.3 * dead
            proxy.dribble(None)
            assert counter.events.empty()
            assert watched.told == []


@pytest.mark.parametrize("make", [Counter, AioCounter])
def test_f9_a_session_in_single_bytes(make: type[Counter]) -> None:
    """Hello, messages, a cut, a resume and the goodbye, a byte at a time both ways."""
    with behind_proxy() as (watched, proxy):
        proxy.dribble(1)
        with make(proxy.address[1]) as counter:
            counter.send(5)
            counter.expect(range(5))
            proxy.cut("rst")
            assert [counter.next(), counter.next()] == ["drop", "resume"]
            counter.send(5)
            counter.expect(range(10))
        eventually(lambda: watched.told == ["drop", "resume", "leave"], "it leaves")
    assert watched.handled == list(range(10))


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_f22_both_sides_slept() -> None:
    """A machine that was suspended with both on it goes on, and nothing is lost; at
    most the link is made anew."""
    dead = 0.5
    source = """
import json, sys
from hisock import threaded_connect
client = threaded_connect(("127.0.0.1", int(sys.argv[1])), "ann", dead_after=0.5)
told = []
client.on_drop(lambda: told.append("drop"))
client.on_session_lost(lambda lost: told.append("lost"))
with client:
    for number in range(1_000_000):
        client.send("it", number)
        client.call("names", timeout=10)
        print(json.dumps([number, told]), flush=True)
"""
    with (
        Program.server(dead_after=dead) as server,
        Program(source, server.next()) as client,
    ):
        assert client.next() == [0, []]
        for each in (client, server):
            each.signal(signal.SIGSTOP)
        assert not threading.Event().wait(2 * dead)
        before = len(client.rest())
        for each in (server, client):
            each.signal(signal.SIGCONT)
        for number in range(before + 1, before + 20):
            said, told = client.next()
            assert said == number
            assert "lost" not in told
        client.process.kill()
        server.signal(signal.SIGINT)
        assert server.end()[0] == 0
        handled = server.rest()[-1]
        assert handled == list(range(len(handled)))
        assert len(handled) >= before + 20
