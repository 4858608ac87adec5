"""A client's verbs for coroutines, on the wire: a raw server says when what comes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from hisock import Limits, RemoteError, RequestTimeout
from hisock.aio import AsyncHiSockClient, connect
from hisock.errors import (
    ClientDisconnected,
    InvalidOption,
    LocalProtocolError,
    NotSendable,
    Refused,
    SessionLost,
    UnknownClient,
    WouldBlock,
)

from .packed import (
    BYE,
    CANCEL,
    CREDIT,
    END,
    FAILURE,
    ITEM,
    MESSAGE,
    REPLY,
    REQUEST,
    Packed,
)
from .test_blocking import HOST, PATIENCE

WELCOME = b'$WELCOME$ {"proto": 2, "now": 0}'
ANN = {"ip": ["127.0.0.1", 5000], "name": "ann", "group": None}


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in a loop of its own, not for ever."""

    async def bounded() -> None:
        await asyncio.wait_for(scene(), 3 * PATIENCE)

    asyncio.run(bounded())


async def off(call: Callable[..., Any], *arguments: Any) -> Any:
    """Make a raw peer do something that waits, beside the loop."""
    return await asyncio.to_thread(call, *arguments)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something holds."""
    while not condition():  # noqa: ASYNC110  # of a raw peer, nobody tells
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def called(
    *, buffer: int | None = None, **options: Any
) -> AsyncIterator[tuple[AsyncHiSockClient, Packed]]:
    """Our client, and the raw server of its connection, which has said nothing."""
    with socket.socket() as listener:
        listener.settimeout(PATIENCE)
        if buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        listener.bind((HOST, 0))
        listener.listen()
        client = await connect(listener.getsockname(), "us", **options)
        with Packed((await off(listener.accept))[0]) as server:
            assert (await off(server.take)).startswith(b"$CLTHELLO$ ")
            assert await off(server.take) == b"$DH_NUMS$"
            yield client, server
            server.sock.close()
            await client.close()


async def agree(client: AsyncHiSockClient, server: Packed) -> None:
    """Agree on the compact wire."""
    server.send(WELCOME)
    assert await off(server.take) == b"$COMPACT$"
    await until(lambda: client.wire == "compact")


# --- before the answer ---------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.send("it"),
        lambda client: client.raw_send(b"x"),
        lambda client: client.call("it"),
        lambda client: client.recv("it"),
        lambda client: client.recv_raw(),
        lambda client: client.get_client("ann"),
    ],
)
def test_nothing_is_sent_before_it_is_awaited(use: Callable[[Any], Any]) -> None:
    """A client that was only made says so, whatever is asked of it."""

    async def scene() -> None:
        client = connect(("127.0.0.1", 1))

        async def ask() -> None:
            made = use(client)
            if isinstance(made, Awaitable):
                await made

        with pytest.raises(LocalProtocolError, match="is not connected yet"):
            await ask()
        assert not client.is_connected
        await client.close()

    run(scene)


def test_a_wrong_pace_is_refused_where_it_is_registered() -> None:
    """Not when the client connects and nobody knows where it came from."""
    client = connect(("127.0.0.1", 1))
    for wrong in (0, -1, "1", float("inf")):
        with pytest.raises(InvalidOption):
            client.every(wrong)(lambda: None)  # type: ignore[arg-type]  # the mistake


def test_early_sends_keep_their_order() -> None:
    """What the server's answer decides on waits for it, and what is sent after that
    does too; bytes before it have left."""

    async def scene() -> None:
        async with called() as (client, server):
            client.send("one", b"1")
            client.send("two", 2)
            client.send("three", b"3")
            assert await off(server.take) == b"one 1"
            await asyncio.sleep(0)
            assert server.is_quiet()

            await agree(client, server)
            client.send("four", 4)

            frames = [await off(server.next) for _ in range(3)]
            assert frames == [
                [MESSAGE, "two", 2],
                [MESSAGE, "three", b"3"],
                [MESSAGE, "four", 4],
            ]

    run(scene)


def test_early_sends_to_1_1_are_text() -> None:
    """In order, once its answer tells what it is."""

    async def scene() -> None:
        async with called() as (client, server):
            client.send("one", 1)
            client.send("two", [2, "x"])
            server.send(b"hello there", b"$NOTLS$")
            assert [await off(server.take) for _ in range(2)] == [
                b"one 1",
                b'two [2, "x"]',
            ]
            assert client.wire == "classic"
            assert await client.recv("hello") == b"there"

    run(scene)


def test_what_cannot_be_sent_is_refused_at_once() -> None:
    """Not when the answer comes and nobody is there to hear of it."""

    async def scene() -> None:
        async with called() as (client, server):
            with pytest.raises(NotSendable):
                client.send("it", object())
            client.send("it", 5)
            await agree(client, server)
            assert await off(server.next) == [MESSAGE, "it", 5]

    run(scene)


def test_a_server_that_never_answers() -> None:
    """Calls time out with the reason; bytes leave; closing is prompt."""

    async def scene() -> None:
        async with called() as (client, server):
            with pytest.raises(RequestTimeout, match="did not answer the hello"):
                await client.call("it", timeout=0.03)
            await client.send("it", b"x")
            assert await off(server.take) == b"it x"

    run(scene)


# --- receiving -----------------------------------------------------------------------


def test_receives_take_what_is_theirs() -> None:
    """Several at once, each the messages it asked for, in order."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            ones = [asyncio.ensure_future(client.recv("one")) for _ in range(2)]
            two = asyncio.ensure_future(client.recv("two", type=str))
            await asyncio.sleep(0)
            server.put(
                [MESSAGE, "two", 2], [MESSAGE, "one", 11], [MESSAGE, "other", b"x"]
            )
            server.put([MESSAGE, "one", 12])

            assert await asyncio.gather(*ones) == [11, 12]
            assert await two == "2"
            message = await client.recv_any()
            assert (message.command, message.content) == ("other", b"x")

    run(scene)


def test_a_receive_that_is_given_up_takes_nothing() -> None:
    """By its time-out, or by cancelling it; the next gets the message."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            with pytest.raises(RequestTimeout, match=r"nothing came within 0\.01 s"):
                await client.recv("it", timeout=0.01)
            receiving = asyncio.ensure_future(client.recv("it"))
            await asyncio.sleep(0)
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            server.put([MESSAGE, "it", 5])
            assert await client.recv("it") == 5

    run(scene)


def test_handlers_get_what_they_are_for() -> None:
    """Plain ones at once, coroutines as tasks; the others are left to ``recv``."""

    async def scene() -> None:
        async with called() as (client, server):
            got: list[Any] = []
            client.on("plain")(got.append)

            @client.on("later")
            async def later(message: int) -> None:
                await asyncio.sleep(0)
                got.append(message)

            await agree(client, server)
            server.put([MESSAGE, "plain", 1], [MESSAGE, "later", 2], [MESSAGE, "x", 3])
            assert await client.recv("x") == 3
            await until(lambda: len(got) == 2)
            assert got == [1, 2]

    run(scene)


# --- asking --------------------------------------------------------------------------


def test_calls_are_answered_in_any_order() -> None:
    """Each caller gets its own answer."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            calls = [asyncio.ensure_future(client.call("echo", n)) for n in range(20)]
            requests = [await off(server.next) for _ in calls]
            for request in reversed(requests):
                server.put([REPLY, request[1], request[3]])
            assert await asyncio.gather(*calls) == list(range(20))

    run(scene)


def test_a_call_before_the_answer_waits_for_it() -> None:
    """Behind what was sent before."""

    async def scene() -> None:
        async with called() as (client, server):
            client.send("first", 1)
            calling = asyncio.ensure_future(client.call("add", [1, 2], type=int))
            await asyncio.sleep(0)
            await agree(client, server)
            assert await off(server.next) == [MESSAGE, "first", 1]
            request = await off(server.next)
            assert request[2:4] == ["add", [1, 2]]
            server.put([REPLY, request[1], 3])
            assert await calling == 3

    run(scene)


@pytest.mark.parametrize("how", ["time-out", "cancelled"])
def test_a_call_that_is_given_up_is_cancelled(how: str) -> None:
    """The server hears of it; its late answer is nobody's."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            timeout = 0.03 if how == "time-out" else None
            calling = asyncio.ensure_future(client.call("add", timeout=timeout))
            number = (await off(server.next))[1]
            if how == "cancelled":
                calling.cancel()
            with pytest.raises((RequestTimeout, asyncio.CancelledError)):
                await calling
            assert await off(server.next) == [CANCEL, number]
            server.put([REPLY, number, 3], [MESSAGE, "it", 5])
            assert await client.recv_any() is not None

    run(scene)


def test_calls_time_out_each_in_its_own_time() -> None:
    """Whatever others wait for: longer or as long, before it and after."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            patient = asyncio.ensure_future(client.call("add", timeout=60))
            hasty = [
                asyncio.ensure_future(client.call("add", timeout=timeout))
                for timeout in (0.05, 0.1, 0.05)
            ]
            for call, timeout in zip(hasty, (0.05, 0.1, 0.05), strict=True):
                with pytest.raises(RequestTimeout, match=f"within {timeout} s"):
                    await call
            number = (await off(server.next))[1]
            server.put([REPLY, number, 3])
            assert await patient == 3
            with pytest.raises(RequestTimeout):
                await client.call("add", timeout=0.05)

    run(scene)


def test_a_call_from_a_loop_of_another_thread() -> None:
    """Is answered, or times out, in that loop."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            calling = asyncio.ensure_future(
                off(lambda: asyncio.run(client.call("add", timeout=PATIENCE)))
            )
            server.put([REPLY, (await off(server.next))[1], 3])
            assert await calling == 3
            with pytest.raises(RequestTimeout):
                await off(lambda: asyncio.run(client.call("add", timeout=0.02)))

    run(scene)


def test_a_call_that_fails() -> None:
    """With what the other side said."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            calling = asyncio.ensure_future(client.call("add"))
            number = (await off(server.next))[1]
            server.put([FAILURE, number, "full", "no seat", 1])
            with pytest.raises(RemoteError) as caught:
                await calling
            assert (caught.value.code, caught.value.data) == ("full", 1)

    run(scene)


def test_a_call_within_a_handler_of_a_call() -> None:
    """Carries the number of the one it is made for, and is awaited in its turn."""

    async def scene() -> None:
        async with called() as (client, server):

            @client.on("outer")
            async def outer(number: int) -> int:
                inner: int = await client.call("inner", number, type=int)
                return inner + 1

            await agree(client, server)
            server.put([REQUEST, 2, "outer", 5])
            kind, number, command, content, _, _, within = await off(server.next)
            assert (kind, command, content, within) == (REQUEST, "inner", 5, 2)
            server.put([REPLY, number, 10])
            assert await off(server.next) == [REPLY, 2, 11]

    run(scene)


def test_a_stream_is_read_and_left() -> None:
    """With credit as it is read; leaving it early cancels it."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            async with client.stream("count", type=int) as items:
                reading = asyncio.ensure_future(anext(items))
                number = (await off(server.next))[1]
                server.put(*([ITEM, number, each] for each in range(40)))
                got = [await reading] + [await anext(items) for _ in range(31)]
                assert got == list(range(32))
                assert await off(server.next) == [CREDIT, number, 32]
            assert await off(server.next) == [CANCEL, number]
            with pytest.raises(StopAsyncIteration):
                await anext(items)

    run(scene)


def test_a_stream_to_its_end() -> None:
    """``async for`` ends where the generator did, or raises what it raised."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)

            async def read() -> list[Any]:
                return [item async for item in client.stream("count")]

            reading = asyncio.ensure_future(read())
            number = (await off(server.next))[1]
            server.put([ITEM, number, 1], [ITEM, number, 2], [END, number])
            assert await reading == [1, 2]
            reading = asyncio.ensure_future(read())
            number = (await off(server.next))[1]
            server.put([ITEM, number, 1], [FAILURE, number, "full", ""])
            with pytest.raises(RemoteError, match="full"):
                await reading

    run(scene)


def test_a_stream_that_stalls_times_out() -> None:
    """And is cancelled."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            items = client.stream("count", timeout=0.05)
            reading = asyncio.ensure_future(anext(items))
            number = (await off(server.next))[1]
            with pytest.raises(RequestTimeout, match="no item of 'count' came"):
                await reading
            assert await off(server.next) == [CANCEL, number]

    run(scene)


def test_who_somebody_is() -> None:
    """On our wire by a call of its own."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            asking = asyncio.ensure_future(client.get_client("ann"))
            request = await off(server.next)
            assert request[2:4] == ["$GETCLT$", "ann"]
            server.put([REPLY, request[1], ANN])
            assert await asking == {**ANN, "ip": ("127.0.0.1", 5000)}
            asking = asyncio.ensure_future(client.get_client("ben"))
            server.put([FAILURE, (await off(server.next))[1], "unknown_client", ""])
            with pytest.raises(UnknownClient):
                await asking

    run(scene)


def test_who_somebody_is_on_the_wire_of_1_1() -> None:
    """One question at a time, for the answers have no label; ``recv_raw`` gets none."""

    async def scene() -> None:
        async with called() as (client, server):
            server.send(b"$NOTLS$")
            receiving = asyncio.ensure_future(client.recv_raw())
            asking = [
                asyncio.ensure_future(client.get_client(name))
                for name in ("ann", "ben")
            ]
            for name in (b"ann", b"ben"):
                assert await off(server.take) == b"$GETCLT$ " + name
                assert server.is_quiet()
                server.send(
                    b'{"ip": ["127.0.0.1", 1], "name": "%b", "group": null}' % name
                )
            server.send(b"for anybody")
            answers = await asyncio.gather(*asking)
            assert [answer["name"] for answer in answers] == ["ann", "ben"]
            assert await receiving == b"for anybody"

    run(scene)


def test_calls_to_1_1_are_refused() -> None:
    """With the code of that."""

    async def scene() -> None:
        async with called() as (client, server):
            server.send(b"$NOTLS$")
            with pytest.raises(Refused) as caught:
                await client.call("it")
            assert caught.value.code == "classic_wire"
            with pytest.raises(Refused):
                await anext(client.stream("it"))

    run(scene)


# --- room ----------------------------------------------------------------------------


def test_sends_that_nobody_awaits_have_an_end() -> None:
    """From twice the bound on they raise, with the cure; awaited ones wait for room,
    and all that was accepted comes, in order."""
    bound, size = 64 * 1024, 16 * 1024

    async def scene() -> None:
        async with called(buffer=4096, limits=Limits(outbox=bound)) as (client, server):
            await agree(client, server)
            sent = 0

            async def flood() -> None:
                nonlocal sent
                while True:
                    client.send("it", b"%06d" % sent + bytes(size))
                    sent += 1
                    await asyncio.sleep(0)

            with pytest.raises(WouldBlock, match="await what a send returns"):
                await flood()
            waiting = client._engine.link.outbox.size
            assert 2 * bound <= waiting < 2 * bound + 2 * size
            total = sent + 20
            numbers: list[bytes] = []

            def read() -> None:
                numbers.extend(server.next()[2][:6] for _ in range(total))

            reading = threading.Thread(target=read, daemon=True)
            reading.start()
            while sent < total:
                with contextlib.suppress(WouldBlock):
                    await client.send("it", b"%06d" % sent + bytes(size))
                    sent += 1
                await asyncio.sleep(0)
            await until(lambda: not reading.is_alive())
            assert numbers == [b"%06d" % number for number in range(total)]

    run(scene)


def test_sends_of_one_turn_of_the_loop_leave_together() -> None:
    """At its end, in one write, in order; from other threads as well."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            for number in range(10):
                client.send("it", number)
            assert server.is_quiet()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not server.is_quiet()
            assert [(await off(server.next))[2] for _ in range(10)] == list(range(10))
            await off(client.send, "it", "from a thread")
            assert (await off(server.next))[2] == "from a thread"

    run(scene)


# --- the end -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "reset", "goodbye"])
def test_the_end_wakes_whoever_waits(how: str) -> None:
    """Receives, calls, streams and ``run_forever``; sends raise from then on."""

    async def scene() -> None:
        async with called(reconnect=False) as (client, server):
            told: list[str] = []
            client.on("force_disconnect")(lambda: told.append("told"))
            await agree(client, server)
            waiting = [
                asyncio.ensure_future(client.recv("it")),
                asyncio.ensure_future(client.recv_raw()),
                asyncio.ensure_future(client.call("it", timeout=None)),
                asyncio.ensure_future(anext(client.stream("it"))),
                asyncio.ensure_future(client.run_forever()),
            ]
            for _ in range(2):
                await off(server.next)
            if how == "reset":
                server.reset()
            elif how == "goodbye":
                server.put([BYE, 1, "enough", None])
            else:
                server.sock.close()
            errors = await asyncio.gather(*waiting, return_exceptions=True)
            kinds = [type(error) for error in errors]
            assert kinds[:2] + kinds[4:] == [ClientDisconnected] * 3
            assert set(kinds[2:4]) <= {SessionLost, ClientDisconnected}
            assert told == ["told"]
            assert not client.is_connected
            with pytest.raises(ClientDisconnected):
                client.send("it", 1)
            with pytest.raises(ClientDisconnected):
                await client.call("it")

    run(scene)


def test_closing_says_goodbye_behind_what_was_sent() -> None:
    """Wakes whoever waits, and again is no error."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            receiving = asyncio.ensure_future(client.recv("it"))
            await asyncio.sleep(0)
            client.send("last", 1)
            closing = asyncio.ensure_future(client.close())
            assert await off(server.next) == [MESSAGE, "last", 1]
            assert (await off(server.next))[:2] == [BYE, 0]
            server.sock.close()
            await closing
            with pytest.raises(ClientDisconnected, match="closed by this program"):
                await receiving
            await client.close()
            with pytest.raises(ClientDisconnected):
                client.send("it", b"")

    run(scene)


def test_closing_before_the_answer_sends_what_waits_for_it() -> None:
    """If the answer comes within a second."""

    async def scene() -> None:
        async with called() as (client, server):
            client.send("last", 1)
            closing = asyncio.ensure_future(client.close())
            await asyncio.sleep(0)
            server.send(WELCOME)
            assert await off(server.take) == b"$COMPACT$"
            assert await off(server.next) == [MESSAGE, "last", 1]
            assert (await off(server.next))[0] == BYE
            server.sock.close()
            await closing

    run(scene)


def test_closing_a_client_whose_server_never_answers() -> None:
    """Takes about a second, however much waits, and raises nothing."""

    async def scene() -> None:
        async with called() as (client, server):
            client.send("last", 1)
            loop = asyncio.get_running_loop()
            began = loop.time()
            closing = asyncio.ensure_future(client.close())
            await off(server.sock.recv, 1)  # its goodbye, or its end
            server.sock.close()
            await closing
            assert loop.time() - began < 2.5

    run(scene)


def test_leaving_the_loop_without_closing_is_quiet() -> None:
    """The program's end says goodbye; no task is left behind that complains."""

    async def scene() -> None:
        async with called() as (client, server):
            await agree(client, server)
            client.send("it", 1)
            client._engine.abandon()
            server.sock.close()

    run(scene)
