"""What only the asyncio faces promise, on the stock loop and on uvloop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from hisock import Limits, aio, connect, start_threaded_server
from hisock.errors import (
    AlreadyRunning,
    LocalProtocolError,
    RequestTimeout,
    ServerNotRunning,
)

from . import LOCALHOST, PATIENCE

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on a loop of each kind; what goes wrong in it fails."""
    make = asyncio.SelectorEventLoop if request.param == "asyncio" else uvloop.Loop

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        problems: list[Any] = []
        with asyncio.Runner(loop_factory=make) as runner:
            loop = runner.get_loop()
            loop.set_exception_handler(lambda _, what: problems.append(what))
            result = runner.run(asyncio.wait_for(main, PATIENCE))
        assert problems == []
        return result

    return run


def _serve() -> aio.AsyncHiSockServer:
    return aio.start_server((LOCALHOST, 0))


async def _until(look: Callable[[], object]) -> None:
    while not look():  # noqa: ASYNC110  # nobody tells when it changes
        await asyncio.sleep(0.001)


def test_nothing_happens_until_it_is_awaited(run: Run) -> None:
    """So that handlers can be registered first; again is no error."""

    async def main() -> None:
        server = _serve()
        server.on("it")(lambda who, message: message)
        client = aio.connect((LOCALHOST, 1))
        client.on("it")(lambda message: None)
        assert not client.is_connected
        with pytest.raises(LocalProtocolError):
            client.send("it")
        with pytest.raises(ServerNotRunning):
            await client
        await client.close()
        async with server:
            assert await server is server
            async with aio.connect(server.addr) as client:
                assert await client is client
                assert await client.call("it", 5) == 5
        await server.close()

    run(main())


def test_they_are_entered_with_async_with(run: Run) -> None:
    """``with`` alone says so."""

    async def main() -> None:
        for face in (_serve(), aio.connect((LOCALHOST, 1))):
            with pytest.raises(AlreadyRunning, match="async with"), face:
                pass
            await face.close()

    run(main())


def test_a_coroutine_handler_may_close_its_own_server(run: Run) -> None:
    """It goes on behind the ``await``, ``leave`` runs, ``run_forever`` returns."""
    seen: list[str] = []

    async def main() -> None:
        server = _serve()
        server.on("leave")(lambda who: seen.append("leave"))

        @server.on("end")
        async def end(who: Any) -> None:
            await server.close()
            seen.append("closed")

        await server
        async with aio.connect(server.addr, "ann") as client:
            client.send("end")
            await server.run_forever()
            await asyncio.sleep(0)
        assert len(server) == 0

    run(main())
    assert sorted(seen) == ["closed", "leave"]


def test_a_coroutine_handler_may_close_its_own_client(run: Run) -> None:
    """And goes on behind the ``await``."""
    seen: list[str] = []

    async def main() -> None:
        async with _serve() as server:
            client = aio.connect(server.addr, "ann")

            @client.on("end")
            async def end() -> None:
                await client.close()
                seen.append("closed")

            await client
            await _until(lambda: len(server))
            await server.send_client("ann", "end")
            await client.run_forever()
            await _until(lambda: seen)

    run(main())
    assert seen == ["closed"]


def test_a_close_that_is_cancelled_goes_on(run: Run) -> None:
    """Whoever waits for it may give up; the end comes all the same."""

    async def main() -> None:
        server = await _serve()
        async with aio.connect(server.addr, "ann") as client:
            await _until(lambda: len(server))
            closing = asyncio.create_task(server.close())
            await asyncio.sleep(0)
            closing.cancel()
            await server.run_forever()
            await client.close()
        await server.close()

    run(main())


def test_close_cancels_other_coroutine_handlers(run: Run) -> None:
    """Their ``finally`` runs."""
    seen: list[str] = []

    async def main() -> None:
        async with _serve() as server:

            @server.on("wait")
            async def wait() -> None:
                try:
                    seen.append("begun")
                    await asyncio.sleep(60)
                finally:
                    seen.append("ended")

            async with aio.connect(server.addr) as client:
                client.send("wait")
                await _until(lambda: seen)
                await server.close()

    run(main())
    assert seen == ["begun", "ended"]


def test_cancelling_run_forever_closes(run: Run) -> None:
    """As Ctrl-C does in ``asyncio.run``."""

    async def main() -> None:
        server = await _serve()
        serving = asyncio.create_task(server.run_forever())
        await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert server._engine.is_closed

    run(main())


def test_errors_raise_come_out_of_run_forever(run: Run) -> None:
    """And the server goes on serving."""

    async def main() -> None:
        async with aio.start_server((LOCALHOST, 0), errors="raise") as server:

            @server.on("fail")
            def fail() -> None:
                raise ZeroDivisionError

            server.on("it")(lambda who, message: message)
            async with aio.connect(server.addr) as client:
                for _ in range(2):
                    client.send("fail")
                    with pytest.raises(ZeroDivisionError):
                        await server.run_forever()
                    assert await client.call("it", 5) == 5

    run(main())


def test_blocking_clients_in_other_threads_disturb_nothing(run: Run) -> None:
    """They wait for the server's answer in the same process."""

    async def main() -> None:
        async with _serve() as server:
            seen = 0

            @server.on("it")
            def it() -> None:
                nonlocal seen
                seen += 1

            def visit() -> None:
                for _ in range(30):
                    with connect(server.addr) as client:
                        client.send("it", 5)

            serving = asyncio.create_task(server.run_forever())
            await asyncio.gather(*(asyncio.to_thread(visit) for _ in range(3)))
            assert not serving.done()
            await _until(lambda: seen == 90)
            await server.close()
            await serving

    run(main())


def test_sends_from_other_threads_stay_in_order(run: Run) -> None:
    """Also those that wait for the server's first answer."""
    got: list[int] = []
    with start_threaded_server((LOCALHOST, 0)) as server:
        server.on("it")(lambda who, message: got.append(message))

        async def main() -> None:
            for _ in range(10):
                got.clear()
                async with aio.connect(server.addr) as client:

                    def send(client: Any = client) -> None:
                        for number in range(100):
                            client.send("it", number)

                    thread = threading.Thread(target=send)
                    thread.start()
                    await asyncio.to_thread(thread.join)
                    await _until(lambda: len(got) == 100)
                assert got == list(range(100))

        run(main())


def test_a_send_that_turns_out_to_be_impossible_is_told(run: Run) -> None:
    """One that waited for the server's answer has no caller any more; the rest goes."""
    errors: list[BaseException | None] = []
    got: list[Any] = []

    async def main() -> None:
        async with aio.start_server((LOCALHOST, 0)) as server:
            server.on("it")(lambda who, message: got.append(message))
            client = aio.connect(server.addr, limits=Limits(message=1000))
            client.on_error(lambda error: errors.append(error.__cause__))
            async with client:
                client.send("it", ["x" * 2000])
                client.send("it", [1])
                await _until(lambda: got and errors)

    run(main())
    assert got == [[1]]
    assert [type(error).__name__ for error in errors] == ["MessageTooLarge"]


def test_async_for_over_streams_and_groups(run: Run) -> None:
    """Each item as it comes; leaving the block cancels."""
    closed: list[str] = []

    async def main() -> None:
        async with _serve() as server:

            @server.on("count")
            async def count(who: Any, upto: int) -> Any:
                try:
                    for number in range(upto):
                        yield number
                finally:
                    closed.append("closed")

            async with aio.connect(server.addr, "ann", "red") as client:
                client.on("name")(lambda: "ann")
                items = [item async for item in client.stream("count", 100)]
                assert items == list(range(100))
                async with client.stream("count", 1_000_000) as some:
                    async for item in some:
                        if item == 5:
                            break
                await _until(lambda: len(closed) == 2)
                replies = server.call_group("red", "name")
                assert [reply async for _, reply in replies] == ["ann"]

    run(main())


def test_many_calls_at_once(run: Run) -> None:
    """As tasks; a cancelled one disturbs no other."""

    async def main() -> None:
        async with _serve() as server:

            @server.on("wait", concurrency=100)
            async def wait(who: Any, message: float) -> float:
                await asyncio.sleep(message)
                return message

            async with aio.connect(server.addr) as client:
                slow = asyncio.create_task(client.call("wait", 60.0))
                calls = [client.call("wait", n / 10_000) for n in range(50)]
                assert await asyncio.gather(*calls) == [n / 10_000 for n in range(50)]
                slow.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await slow
                with pytest.raises(RequestTimeout):
                    await client.call("wait", 60.0, timeout=0.01)
                assert await client.call("wait", 0.0) == 0.0

    run(main())
