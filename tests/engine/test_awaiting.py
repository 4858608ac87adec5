"""The asking side of a server in coroutines, on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hisock import Limits, RequestTimeout
from hisock.aio import AsyncHiSockServer, start_server
from hisock.errors import SessionLost, WouldBlock
from hisock.types import AsyncClientInfo

from .packed import CANCEL, CREDIT, END, ITEM, MESSAGE, REPLY, REQUEST, Packed
from .test_blocking import HOST, Raw
from .test_client_verbs import off, run, until


@contextlib.asynccontextmanager
async def room(
    *names: str, **options: Any
) -> AsyncIterator[tuple[AsyncHiSockServer, list[Packed]]]:
    """An async server with raw clients in group ``g``."""
    async with start_server((HOST, 0), **options) as server:
        with contextlib.ExitStack() as stack:
            peers: list[Packed] = []
            for name in names:
                peer = await off(Packed.call_at, server.addr, name)
                peers.append(stack.enter_context(peer))
                await off(peer.agree)
                await until(lambda name=name: name in server.get_all_clients("name"))  # type: ignore[misc]  # a default
                link = server._members.look_up(name)
                await until(lambda link=link: link.connection.is_agreed)  # type: ignore[misc]  # a default
            yield server, peers


# --- calls -------------------------------------------------------------------------


def test_a_handler_may_await_its_own_client() -> None:
    """What a coroutine handler gets of a client is awaited; its call carries the
    number of the one it serves."""

    async def scene() -> None:
        async with room("ann") as (server, [ann]):

            @server.on("ask")
            async def ask(client: AsyncClientInfo, number: int) -> int:
                answer: int = await client.call("add", number, type=int)
                return answer + 1

            ann.put([REQUEST, 1, "ask", 5])
            kind, number, command, content, _, _, within = await off(ann.next)
            assert (kind, command, content, within) == (REQUEST, "add", 5, 1)
            ann.put([REPLY, number, 6])
            assert await off(ann.next) == [REPLY, 1, 7]

    run(scene)


@pytest.mark.parametrize("how", ["time-out", "cancelled"])
def test_a_call_that_is_given_up_is_cancelled(how: str) -> None:
    """At the client too; nothing stays open."""

    async def scene() -> None:
        async with room("ann") as (server, [ann]):
            timeout = 0.03 if how == "time-out" else None
            calling = asyncio.ensure_future(
                server.call_client("ann", "add", timeout=timeout)
            )
            number = (await off(ann.next))[1]
            if how == "cancelled":
                calling.cancel()
            with pytest.raises((RequestTimeout, asyncio.CancelledError)):
                await calling
            assert await off(ann.next) == [CANCEL, number]
            assert server.stats()["open_calls"] == 0

    run(scene)


def test_a_client_that_goes_ends_its_calls() -> None:
    """At once."""

    async def scene() -> None:
        async with room("ann") as (server, [ann]):
            calling = asyncio.ensure_future(
                server.call_client("ann", "add", timeout=None)
            )
            await off(ann.next)
            ann.reset()
            with pytest.raises(SessionLost):
                await calling

    run(scene)


def test_a_group_answers_as_it_can() -> None:
    """Replies as they come; then who is missing."""

    async def scene() -> None:
        async with room("ann", "ben", "cid") as (server, [ann, ben, cid]):
            answers = server.call_group("g", "vote", timeout=0.2)
            numbers = [(await off(peer.next))[1] for peer in (ann, ben, cid)]
            ben.put([REPLY, numbers[1], "yes"])
            client, reply = await anext(answers)
            assert (client["name"], reply) == ("ben", "yes")
            assert isinstance(client, AsyncClientInfo)
            ann.put([REPLY, numbers[0], "no"])
            assert [reply async for _, reply in answers] == ["no"]
            assert [client["name"] for client in answers.missing] == ["cid"]
            assert await off(cid.next) == [CANCEL, numbers[2]]

    run(scene)


def test_a_group_that_is_given_up_is_cancelled() -> None:
    """Cancelling who reads the replies leaves no call open."""

    async def scene() -> None:
        async with room("ann", "ben") as (server, [ann, ben]):

            async def read() -> None:
                async for _ in server.call_group("g", "vote", timeout=None):
                    pass

            reading = asyncio.ensure_future(read())
            numbers = [(await off(peer.next))[1] for peer in (ann, ben)]
            ann.put([REPLY, numbers[0], "yes"])
            await until(lambda: server.stats()["open_calls"] == 1)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await off(ben.next) == [CANCEL, numbers[1]]
            assert server.stats()["open_calls"] == 0

    run(scene)


def test_a_job_goes_to_the_idlest() -> None:
    """Three jobs, three workers, then the first again."""

    async def scene() -> None:
        async with room("ann", "ben", "cid") as (server, peers):
            jobs = []
            for peer in (*peers, peers[0]):
                jobs.append(asyncio.ensure_future(server.call_any("g", "job")))
                request = await off(peer.next)
                assert request[2] == "job"
                if len(jobs) > 3:
                    peer.put([REPLY, request[1], "second"])
            assert await jobs[3] == "second"
            for job in jobs[:3]:
                job.cancel()

    run(scene)


# --- streams -----------------------------------------------------------------------


def test_a_stream_from_a_client() -> None:
    """Begun by the first read, with credit as it is read, cancelled when left."""

    async def scene() -> None:
        async with room("ann") as (server, [ann]):
            async with server.stream_client("ann", "count", type=int) as items:
                await asyncio.sleep(0)
                assert ann.is_quiet()
                reading = asyncio.ensure_future(anext(items))
                number = (await off(ann.next))[1]
                ann.put(*([ITEM, number, each] for each in range(40)))
                assert [await reading] + [
                    await anext(items) for _ in range(31)
                ] == list(range(32))
                assert await off(ann.next) == [CREDIT, number, 32]
            assert await off(ann.next) == [CANCEL, number]

            reading_all = asyncio.ensure_future(_all(server))
            number = (await off(ann.next))[1]
            ann.put([ITEM, number, 1], [END, number])
            assert await reading_all == [1]

    run(scene)


async def _all(server: AsyncHiSockServer) -> list[Any]:
    return [item async for item in server.stream_client("ann", "count")]


# --- sends -------------------------------------------------------------------------


def test_an_awaited_send_waits_for_room() -> None:
    """Un-awaited ones raise from twice the bound on; all that was accepted comes."""
    bound, size = 64 * 1024, 16 * 1024

    async def scene() -> None:
        async with room("ann", limits=Limits(outbox=bound)) as (server, [ann]):
            sent = 0

            async def flood() -> None:
                nonlocal sent
                while True:
                    server.send_client("ann", "it", b"%06d" % sent + bytes(size))
                    sent += 1
                    await asyncio.sleep(0)

            with pytest.raises(WouldBlock, match="await what a send returns"):
                await flood()
            total = sent + 10
            numbers: list[bytes] = []

            def read() -> None:
                numbers.extend(ann.next()[2][:6] for _ in range(total))

            reading = threading.Thread(target=read, daemon=True)
            reading.start()
            while sent < total:
                with contextlib.suppress(WouldBlock):
                    await server.send_client("ann", "it", b"%06d" % sent + bytes(size))
                    sent += 1
                await asyncio.sleep(0)
            await until(lambda: not reading.is_alive())
            assert numbers == [b"%06d" % number for number in range(total)]

    run(scene)


def test_a_slow_member_does_not_hold_up_a_broadcast() -> None:
    """Awaiting what is sent to many waits for nobody."""

    async def scene() -> None:
        limits = Limits(outbox=64 * 1024)
        async with room("slow", "ann", limits=limits) as (server, [_, ann]):
            for number in range(10):
                await server.send_all_clients("it", number)
            await server.send_group("g", "it", "group")
            assert [(await off(ann.next))[2] for _ in range(11)] == [
                *range(10),
                "group",
            ]

    run(scene)


def test_what_disconnects_and_groups_is_awaitable_too() -> None:
    """It acts when it is called; who is told is told."""

    async def scene() -> None:
        async with room("ann", "ben") as (server, [ann, ben]):
            server.join_group("ann", "team")
            assert server.client("ann").groups == {"g", "team"}
            await server.leave_group("ann", "g")
            assert server.client("ann").groups == {"team"}
            await server.disconnect_client("ann", reason="enough")
            assert (await off(ann.next))[1:3] == [1, "enough"]
            await server.disconnect_all_clients()
            assert (await off(ben.next))[0] == 35
            await until(lambda: len(server) == 0)

    run(scene)


def test_a_client_of_1_1_on_an_async_server() -> None:
    """Is served by coroutines like any other; its calls are refused with the reason."""

    async def scene() -> None:
        async with room() as (server, _):
            got: list[Any] = []

            @server.on("it")
            async def it(client: AsyncClientInfo, message: int) -> None:
                got.append(message)
                await client.send("it", message + 1)

            with Raw.join(server.addr, "old", b"it 5") as old:
                assert await off(old.take) == b"it 6"
                assert got == [5]
                answers = server.call_group("g", "vote")
                assert [reply async for reply in answers] == []
                ((client, error),) = answers.failed
                assert (client["name"], error.code) == ("old", "classic_wire")

    run(scene)


def test_message_content_reaches_coroutines_packed() -> None:
    """In order, while the loop does other things."""

    async def scene() -> None:
        async with room("ann") as (server, [ann]):
            got: list[Any] = []

            @server.on("it")
            async def it(client: AsyncClientInfo, message: Any) -> None:
                await asyncio.sleep(0)
                got.append(message)

            ann.put(*([MESSAGE, "it", number] for number in range(50)))
            await until(lambda: len(got) == 50)
            assert got == list(range(50))

    run(scene)
