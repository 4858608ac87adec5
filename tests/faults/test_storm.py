"""A thousand clients that are cut at once, and what one costs that is idle."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import tracemalloc
from typing import Any, Final

import pytest
from tests.chaos.proxy import ChaosProxy

from hisock import ClientInfo, Limits, aio, start_threaded_server

from .programs import Program
from .raw import HOST, eventually

pytestmark = [pytest.mark.timeout(60)]

#: Clients of the storm.
MANY: Final = 1000
#: Idle ones whose memory is measured.
IDLE: Final = 300
#: Bytes that an idle connection with a session may cost its server.
COST: Final = 6 * 1024
#: Connections that are begun at once.
_AT_ONCE: Final = 100


def has_room(descriptors: int) -> bool:
    """Whether this process may have so many descriptors, if need be from now on."""
    try:
        import resource
    except ImportError:  # Windows counts no descriptors
        return True
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < descriptors <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
        soft = descriptors
    return soft >= descriptors


class Crowd:
    """Many asyncio clients in one loop.

    Args:
        address: Of the server.
        count: How many.
    """

    def __init__(self, address: Any, count: int) -> None:
        self.back = 0
        self.back_after: list[float] = []
        self.lost: list[Any] = []
        self.seen: list[list[int]] = [[] for _ in range(count)]
        self.cut_at = 0.0
        self.clients = [self._make(address, number) for number in range(count)]

    def _make(self, address: Any, number: int) -> aio.AsyncHiSockClient:
        client = aio.connect(address, f"client {number}")
        client.on_resume(self._resume)
        client.on_session_lost(self.lost.append)
        client.on("seen")(self.seen[number].append)
        return client

    def _resume(self) -> None:
        self.back += 1
        self.back_after.append(time.monotonic() - self.cut_at)

    async def enter(self) -> None:
        """Connect all, some at a time."""
        for first in range(0, len(self.clients), _AT_ONCE):
            some = self.clients[first : first + _AT_ONCE]
            await asyncio.gather(*map(connected, some))

    async def say(self, number: int) -> None:
        """Have each send one message."""
        for client in self.clients:
            await client.send("it", number)

    async def until(self, what: Any, within: float) -> None:
        """Wait until something is so."""
        end = time.monotonic() + within
        while not what():
            assert time.monotonic() < end, f"not within {within:g} s; {self.back} back"
            await asyncio.sleep(0.02)

    async def leave(self) -> None:
        """Close all."""
        await asyncio.gather(*(client.close() for client in self.clients))


async def connected(client: aio.AsyncHiSockClient) -> None:
    """Wait until a client is connected."""
    await client


async def storm(crowd: Crowd, proxy: ChaosProxy) -> None:
    """Cut all of them, with messages on their way in both directions."""
    await crowd.enter()
    await crowd.say(0)
    await crowd.until(lambda: all(seen == [0] for seen in crowd.seen), 15)
    proxy.blackhole()
    await crowd.say(1)
    crowd.cut_at = time.monotonic()
    assert await asyncio.to_thread(proxy.cut, "rst") == len(crowd.clients)
    proxy.heal()
    await crowd.say(2)
    await crowd.until(lambda: crowd.back == len(crowd.clients), 15)
    await crowd.until(lambda: all(seen == [0, 1, 2] for seen in crowd.seen), 5)
    await crowd.leave()


def test_f19_a_thousand_cut_at_once_are_back_soon() -> None:
    """All within 15 s, nine in ten far sooner, and no message is lost or doubled."""
    if not has_room(4 * MANY + 200):
        pytest.skip(f"this process may not have {4 * MANY} descriptors")
    with Program.server(resume_window=60) as server:
        port = server.next()
        with ChaosProxy((HOST, port)) as proxy:
            crowd = Crowd(proxy.address, MANY)
            asyncio.run(storm(crowd, proxy))
        assert not crowd.lost
        after = sorted(crowd.back_after)
        assert len(after) == MANY
        assert after[MANY // 2] < 5
        assert after[-1] < 15
        # Not all at the same moment: each draws a time of its own.
        assert after[-1] - after[0] > 0.1
        assert not [said for said in _said(server) if said[:1] == ["error"]]


def _said(server: Program) -> list[Any]:
    """What a server says of its clients until the last has left."""
    said, left = [], 0
    while left < MANY:
        word = server.next()
        left += word[0] == "leave"
        said.append(word)
    assert len([word for word in said if word[0] == "drop"]) == MANY
    assert len([word for word in said if word[0] == "resume"]) == MANY
    return said


_IDLE: Final = """
import asyncio, json, sys
from hisock import aio
async def connected(client):
    await client
async def main():
    port, count = int(sys.argv[1]), int(sys.argv[2])
    clients = [aio.connect(("127.0.0.1", port), f"idle {n}") for n in range(count)]
    for first in range(0, count, 50):
        await asyncio.gather(*map(connected, clients[first:first + 50]))
    print(json.dumps("in"), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="descriptors of POSIX")
def test_an_idle_connection_costs_little() -> None:
    """At most 6 KiB of the server's memory, its session included."""
    assert has_room(IDLE + 200)
    server = start_threaded_server((HOST, 0), roster=False)
    server.on("it")(lambda client: client.send("seen", 1))
    with server, Program(_IDLE, server.addr[1], 50) as warm:
        warm.until("in")
        gc.collect()
        tracemalloc.start(1)
        try:
            before = tracemalloc.get_traced_memory()[0]
            with Program(_IDLE, server.addr[1], IDLE) as crowd:
                crowd.until("in")
                eventually(lambda: len(server) == IDLE + 50, "all are in")
                assert all(client.is_connected for client in server)
                gc.collect()
                cost = (tracemalloc.get_traced_memory()[0] - before) / IDLE
        finally:
            tracemalloc.stop()
    assert cost < COST, f"{cost:.0f} bytes a connection"


def test_a_dropped_session_costs_little_and_ends() -> None:
    """Who never comes back is forgotten, and all that was kept for them."""
    limits = Limits(dropped=20)
    server = start_threaded_server((HOST, 0), limits=limits, roster=False)
    left: list[ClientInfo] = []
    all_left = threading.Event()

    @server.on("leave")
    def leave(client: ClientInfo) -> None:
        left.append(client)
        if len(left) == 30:
            all_left.set()

    with server, Program(_IDLE, server.addr[1], 50) as crowd:
        crowd.until("in")
        eventually(lambda: len(server) == 50, "all are in")
        crowd.process.kill()
        assert all_left.wait(10)
        eventually(lambda: len(server) == 20, "the newest may come back")
        assert not any(client.is_connected for client in server)


def test_f42_dropped_sessions_share_a_bound() -> None:
    """Beyond ``Limits.memory`` those end that have waited longest, and are reported;
    who has nothing that waits is left alone, as that would make no room."""
    count, size, bound = 12, 50_000, 300_000
    server = start_threaded_server((HOST, 0), limits=Limits(memory=bound), roster=False)
    left: list[str | None] = []
    undelivered: list[Any] = []
    server.on("leave")(lambda client: left.append(client["name"]))
    server.on_error(undelivered.append)
    dropped: list[str] = []
    server.on_drop(lambda client: dropped.append(str(client["name"])))
    with server, Program(_IDLE, server.addr[1], count) as crowd:
        crowd.until("in")
        eventually(lambda: len(server) == count, "all are in")
        crowd.process.kill()
        eventually(lambda: len(dropped) == count, "all are cut off")
        for name in dropped[1:]:
            server.send_client(name, "news", bytes(size))

        def has_room() -> bool:
            server.send_client(dropped[-1], "more")
            return server.stats()["buffered_bytes"] <= bound

        eventually(has_room, "some had to go")
        eventually(lambda: len(left) == count - len(server), "they have left")
        assert 6 <= len(left) < count - 1
        assert left == dropped[1 : 1 + len(left)]
        assert [error.client["name"] for error in undelivered] == left
        assert all(len(error.sent[0].content) == size for error in undelivered)
