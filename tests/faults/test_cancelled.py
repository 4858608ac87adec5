"""Coroutines that are cancelled wherever they wait, and loops that are not theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from hisock import ClientInfo, Limits, aio, start_threaded_server
from hisock.aio import AsyncHiSockClient
from hisock.errors import LocalProtocolError, RequestTimeout
from hisock.server import ThreadedHiSockServer

from .programs import SLOW
from .raw import HOST, counts_descriptors, eventually, open_descriptors

pytestmark = pytest.mark.timeout(30)


class CancelledAt:
    """Awaits something, and cancels the task when that waits for the n-th time.

    Attributes:
        reached: Whether it waited so often.
    """

    def __init__(self, step: int, waits: Coroutine[Any, Any, Any]) -> None:
        self._left = step
        self._waits = waits
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        advance: Callable[[], Any] = partial(self._waits.send, None)
        while True:
            try:
                waited = advance()
            except StopIteration as end:
                return end.value
            if not self._left:
                self.reached = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            self._left -= 1
            try:
                yield waited
            except BaseException as error:
                advance = partial(self._waits.throw, error)
            else:
                advance = partial(self._waits.send, None)


async def at_each_step(
    make: Callable[[int], Coroutine[Any, Any, Any]],
    check: Callable[[int], Coroutine[Any, Any, None]],
    most: int = 100,
) -> int:
    """Cancel it at its first wait, then at the second, until it has no more.

    Args:
        make: Begins it anew; gets the number of the step.
        check: Called after each.
        most: Waits that are tried.

    Returns:
        How many there are.
    """
    for step in range(most):
        awaited = CancelledAt(step, make(step))

        async def scene(awaited: CancelledAt = awaited) -> None:
            await awaited

        try:
            await asyncio.ensure_future(scene())
        except asyncio.CancelledError:
            assert awaited.reached, "somebody else cancelled it"
        await check(step)
        if not awaited.reached:
            return step
    return most


class Watched:
    """A server that notes what it handles, and answers."""

    def __init__(self) -> None:
        self.server: ThreadedHiSockServer = start_threaded_server((HOST, 0))
        self.numbers: list[int] = []
        self.streams = 0
        self.server.on("it")(lambda client, number: self.numbers.append(number))
        self.server.on("double")(lambda client, number: 2 * number)
        self.server.on("news")(lambda client, number: client.send("news", number))
        self.server.on("count")(self._count)
        self.server.on("swallow")(lambda client, content: len(content))

    def _count(self, client: ClientInfo, upto: int) -> Iterator[int]:
        self.streams += 1
        try:
            yield from range(upto)
        finally:
            self.streams -= 1


@pytest.fixture
def watched() -> Iterator[Watched]:
    """A server in its thread."""
    made = Watched()
    with made.server:
        yield made


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in a loop of its own, not for ever; no task is left behind."""

    async def bounded() -> None:
        await asyncio.wait_for(scene(), SLOW)
        await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, "a task is left behind"

    asyncio.run(bounded())


async def connected(client: AsyncHiSockClient) -> AsyncHiSockClient:
    """Wait until a client is connected."""
    return await client


async def still_works(client: AsyncHiSockClient) -> None:
    """Whether answers go to who asked, and nothing of an earlier call is open."""
    assert await client.call("double", 21) == 42
    requests = client._engine.link.connection.requests
    assert requests is not None
    assert not requests.asked


@counts_descriptors
def test_f34_a_connect_that_is_cancelled(watched: Watched) -> None:
    """Nothing is left of it; the next one connects."""

    async def scene() -> None:
        clients: list[AsyncHiSockClient] = []
        before = open_descriptors()

        def begin(step: int) -> Coroutine[Any, Any, Any]:
            clients.append(aio.connect(watched.server.addr, "ann"))
            return connected(clients[-1])

        async def check(step: int) -> None:
            await clients.pop().close()

        assert await at_each_step(begin, check) > 0
        await asyncio.to_thread(
            eventually, lambda: open_descriptors() == before, "all are closed"
        )
        client = await aio.connect(watched.server.addr, "ann")
        await still_works(client)
        await client.close()

    run(scene)
    eventually(lambda: not len(watched.server), "all have left")


async def many(client: AsyncHiSockClient, numbers: list[int], first: int) -> None:
    """Send numbers with so much behind each that there is no room until that is
    acknowledged, which is at once from 64 KiB on."""
    for number in range(first, first + 4):
        sending: Any = client.send("it", number)
        numbers.append(number)
        await sending
        await client.send("swallow", bytes(70_000))


def test_f34_sends_that_are_cancelled(watched: Watched) -> None:
    """Each message is sent whole or not at all: what was accepted arrives in order."""

    async def scene() -> None:
        accepted: list[int] = []
        limits = Limits(outbox=50_000)
        async with aio.connect(watched.server.addr, "ann", limits=limits) as client:
            await still_works(client)

            def begin(step: int) -> Coroutine[Any, Any, Any]:
                return many(client, accepted, 100 * step)

            async def check(step: int) -> None:
                await still_works(client)

            # It looks for room every 5 ms.
            assert await at_each_step(begin, check, 12) > 0
            assert watched.numbers == accepted

    run(scene)


@pytest.mark.parametrize("kind", ["call", "stream", "recv", "get_client"])
def test_f34_questions_that_are_cancelled(watched: Watched, kind: str) -> None:
    """Nobody waits for the answer any more: it is dropped, and what is asked next gets
    its own; a generator is closed; a message is left for who receives next."""

    async def ask(client: AsyncHiSockClient, step: int) -> None:
        match kind:
            case "call":
                assert await client.call("double", step) == 2 * step
            case "get_client":
                assert (await client.get_client("ann"))["name"] == "ann"
            case "recv":
                client.send("news", step)
                assert await client.recv("news") == step
            case _:
                async with client.stream("count", 200) as items:
                    assert [item async for item in items] == list(range(200))

    async def scene() -> None:
        async with aio.connect(watched.server.addr, "ann") as client:
            await still_works(client)

            async def check(step: int) -> None:
                await still_works(client)
                with suppress(RequestTimeout):
                    while True:
                        await client.recv("news", timeout=0)
                await asyncio.to_thread(
                    eventually, lambda: not watched.streams, "it is closed"
                )

            assert await at_each_step(partial(ask, client), check) > 0

    run(scene)


def test_f35_a_client_in_another_loop(watched: Watched) -> None:
    """It belongs to the loop in which it was awaited. Where that does not run, whoever
    would wait in vain is told so; ``close`` is fine even after its end."""
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(connected(aio.connect(watched.server.addr, "ann")))

    async def use() -> None:
        for wait in (
            partial(client.call, "double", 1),
            partial(client.recv, "news"),
            partial(client.get_client, "ann"),
        ):
            with pytest.raises(LocalProtocolError, match="another event loop"):
                await wait()

    asyncio.run(use())
    loop.run_until_complete(still_works(client))
    loop.close()
    asyncio.run(use())
    asyncio.run(client.close())
    eventually(lambda: not len(watched.server), "it leaves")


def test_f35_a_client_of_another_threads_loop(watched: Watched) -> None:
    """While its own loop runs, a call from another one is answered."""

    async def scene() -> None:
        async with aio.connect(watched.server.addr, "ann") as client:
            await still_works(client)

            async def ask() -> int:
                return int(await client.call("double", 4))

            assert await asyncio.to_thread(asyncio.run, ask()) == 8

    run(scene)
