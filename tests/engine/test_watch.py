"""Any loop will do: it watches what it can, and a thread waits where it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from hisock import aio, connect, start_threaded_server
from hisock.errors import ClientDisconnected, SessionLost

from .test_blocking import HOST, PATIENCE
from .test_client_verbs import off, until


class Blind(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors, as that of Windows' Proactor."""

    def add_reader(self, *_: Any) -> None:  # type: ignore[override]  # any will do
        raise NotImplementedError

    def add_writer(self, *_: Any) -> None:  # type: ignore[override]  # any will do
        raise NotImplementedError

    def remove_reader(self, *_: Any) -> bool:
        raise NotImplementedError

    def remove_writer(self, *_: Any) -> bool:
        raise NotImplementedError


def _uvloop() -> asyncio.AbstractEventLoop:
    uvloop = pytest.importorskip("uvloop")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


@pytest.fixture(params=["stock", "uvloop", "blind"])
def make_loop(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Makes a loop of each kind."""
    kinds: dict[str, Callable[[], Any]] = {
        "stock": asyncio.SelectorEventLoop,
        "uvloop": _uvloop,
        "blind": Blind,
    }
    if request.param == "uvloop" and sys.platform == "win32":
        pytest.skip("uvloop is not for Windows")
    return kinds[request.param]


def run_in(make_loop: Callable[[], Any], scene: Callable[[], Any]) -> None:
    """Run a test in such a loop, not for ever."""

    async def bounded() -> None:
        await asyncio.wait_for(scene(), 3 * PATIENCE)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(bounded())


def test_a_dialogue_in_any_loop(make_loop: Callable[[], Any]) -> None:
    """Messages, calls both ways, streams, a large message, and an orderly end."""
    events: list[str] = []

    async def scene() -> None:
        async with aio.start_server((HOST, 0)) as server:
            server.on("leave")(lambda client: events.append("leave"))

            @server.on("double")
            async def double(client: Any, number: int) -> int:
                return await client.call("add", [number, number], type=int)  # type: ignore[no-any-return]  # int

            @server.on("count")
            async def count(client: Any, number: int) -> Any:
                for each in range(number):
                    yield each

            @server.on("size")
            def size(client: Any, message: bytes) -> int:
                return len(message)

            async with aio.connect(server.addr, "ann") as client:
                client.on("add")(lambda numbers: sum(numbers))
                assert await client.call("double", 21) == 42
                assert [i async for i in client.stream("count", 200)] == [*range(200)]
                assert await client.call("size", bytes(8_000_000)) == 8_000_000
                await server.send_client("ann", "news", 5)
                assert await client.recv("news") == 5
            await until(lambda: events)
        assert events == ["leave"]

    run_in(make_loop, scene)


def test_other_threads_may_use_what_a_loop_turns(make_loop: Callable[[], Any]) -> None:
    """Their sends leave at once, though the loop had nothing to do."""

    async def scene() -> None:
        server = await aio.start_server((HOST, 0))
        async with server, aio.connect(server.addr, "ann") as client:
            await until(lambda: client.wire and len(server))
            await off(server.send_client, "ann", "news", 1)
            assert await client.recv("news") == 1
            got: list[Any] = []
            server.on("it")(lambda who, message: got.append(message))
            await off(client.send, "it", 3)
            await until(lambda: got)

    run_in(make_loop, scene)


def test_every_keeps_its_pace_in_any_loop(make_loop: Callable[[], Any]) -> None:
    """Functions and coroutines, on servers and clients, registered before and after."""

    async def scene() -> None:
        calls: list[str] = []
        server = aio.start_server((HOST, 0))
        server.every(0.005)(lambda: calls.append("server"))
        async with server:
            client = aio.connect(server.addr)
            client.every(0.005)(lambda: calls.append("early"))
            async with client:

                @client.every(0.005)
                async def late() -> None:
                    await asyncio.sleep(0)
                    calls.append("late")

                await until(
                    lambda: all(
                        calls.count(each) > 2 for each in ("server", "early", "late")
                    )
                )

    run_in(make_loop, scene)


def test_the_end_of_the_other_side_is_noticed(make_loop: Callable[[], Any]) -> None:
    """Though this side only waits."""

    async def scene() -> None:
        server = start_threaded_server((HOST, 0))
        server.start_server()
        client = await aio.connect(server.addr)
        waiting = asyncio.ensure_future(client.run_forever())
        await until(lambda: len(server))
        await off(server.stop_server)
        with pytest.raises(ClientDisconnected):
            await waiting
        await off(server.join)
        await client.close()

    run_in(make_loop, scene)


def test_a_reset_right_behind_a_message_is_noticed(
    make_loop: Callable[[], Any],
) -> None:
    """Also by a loop that says only once that a socket broke: libuv's."""

    async def scene() -> None:
        with socket.create_server((HOST, 0)) as listener:
            address = listener.getsockname()
            async with aio.connect(address, reconnect=False, dead_after=0) as client:
                peer, _ = listener.accept()
                for body in (b"$NOTLS$", b"news 5"):  # as a server of 1.1
                    peer.sendall(str(len(body)).ljust(16).encode() + body)
                peer.setsockopt(
                    *(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                )
                peer.close()
                assert await client.recv("news") == b"5"
                with pytest.raises(ClientDisconnected):
                    await client.recv("more")

    run_in(make_loop, scene)


def test_a_server_is_closed_from_another_thread(make_loop: Callable[[], Any]) -> None:
    """``run_forever`` returns; blocking clients hear of it."""

    async def scene() -> None:
        server = await aio.start_server((HOST, 0))
        running = asyncio.ensure_future(server.run_forever())
        client = await off(connect, server.addr)
        await until(lambda: len(server))
        loop = asyncio.get_running_loop()
        closing = threading.Thread(
            target=lambda: asyncio.run_coroutine_threadsafe(server.close(), loop)
        )
        closing.start()
        with pytest.raises(ClientDisconnected):
            await off(client.update)
        await off(client.close)
        await running
        closing.join()

    run_in(make_loop, scene)


def test_nothing_to_do_costs_nothing(make_loop: Callable[[], Any]) -> None:
    """A server and a client that wait do not keep the loop busy."""

    async def scene() -> None:
        server = await aio.start_server((HOST, 0))
        async with server, aio.connect(server.addr) as client:
            await until(lambda: client.wire and len(server))
            began = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - began < 0.1

    run_in(make_loop, scene)


def test_answers_are_acknowledged(make_loop: Callable[[], Any]) -> None:
    """In time, though nothing is turned for them: the server keeps none for ever."""

    async def scene() -> None:
        server = await aio.start_server((HOST, 0))
        server.on("echo")(lambda who, message: message)
        async with server, aio.connect(server.addr, "ann", dead_after=0) as client:
            await until(lambda: len(server))
            link = server._members.look_up("ann")
            for _ in range(3):
                for number in range(20):
                    assert await client.call("echo", number) == number
                await until(lambda: not link.outbox.held)

    run_in(make_loop, scene)


def test_what_comes_with_an_answer_is_handled(make_loop: Callable[[], Any]) -> None:
    """A message before it has its turn before it, and an end does not wait."""

    async def scene() -> None:
        server = await aio.start_server((HOST, 0))

        @server.on("echo")
        async def echo(who: Any, number: int) -> int:
            who.send("note", number)
            return number

        @server.on("go")
        async def go(who: Any) -> str:
            server.disconnect_client(who)
            return "too late"

        async with server, aio.connect(server.addr, "ann") as client:
            notes: list[int] = []
            client.on("note")(notes.append)
            for number in range(20):
                assert await client.call("echo", number) == number
                assert notes == [*range(number + 1)]
            with pytest.raises(SessionLost):
                await client.call("go")
            with pytest.raises(ClientDisconnected):
                await client.run_forever()

    run_in(make_loop, scene)


def test_coroutines_that_end_together(make_loop: Callable[[], Any]) -> None:
    """All are answered, whoever asked, and what waited behind them has its turn."""

    async def scene() -> None:
        go_on = asyncio.Event()
        began: list[int] = []
        server = await aio.start_server((HOST, 0))

        @server.on("wait", concurrency=50)
        async def wait(who: Any, number: int) -> int:
            began.append(number)
            await go_on.wait()
            return number

        async with server, contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(aio.connect(server.addr))
                for _ in range(3)
            ]
            calls = [
                asyncio.ensure_future(client.call("wait", number))
                for client in clients
                for number in range(60)
            ]
            await until(lambda: len(began) == 150)
            go_on.set()
            assert await asyncio.gather(*calls) == [*range(60)] * 3

    run_in(make_loop, scene)
