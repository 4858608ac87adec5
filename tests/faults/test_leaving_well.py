"""A server that ends in order loses nothing: what it had accepted is handled, and its
clients come back to the next one, or stay away, as they are told."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest

from hisock import ClientInfo, aio, start_threaded_server
from hisock.errors import ClientDisconnected
from hisock.session.resume import ACK_FRAMES

from .programs import SLOW, AioCounter, Counter, Program, is_refused
from .raw import HOST, PATIENCE, eventually

pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]

#: Messages of one run.
MANY = 3000
CLIENTS = [Counter, AioCounter]


def check_account(
    counter: Counter, first: list[int], second: list[int], forgiven: int
) -> None:
    """Every message was handled by one of two servers, in order, or is reported.

    Args:
        forgiven: How many a Ctrl-C may have struck in the middle of their handler. One
            that strikes amid a write cuts the link: then the last of what was handled
            is not acknowledged.
    """
    twice = set(first) & set(counter.unacked)
    assert len(twice) <= forgiven * ACK_FRAMES
    known = [*first, *(n for n in counter.unacked if n not in twice), *second]
    assert known == sorted(set(known)), (
        f"first {first[:1]}..{first[-1:]}, reported {counter.unacked[:1]}.."
        f"{counter.unacked[-1:]}, second {second[:1]}..{second[-1:]}"
    )
    assert len(set(range(counter.sent)) - set(known)) <= forgiven


def handled_by(program: Program) -> list[int]:
    """What a server that has ended says it has handled: its last words."""
    words: list[int] = program.rest()[-1]
    return words


@pytest.mark.parametrize(
    ("face", "number", "make"),
    [
        ("plain", signal.SIGINT, Counter),
        ("plain", signal.SIGINT, AioCounter),
        ("plain", signal.SIGTERM, Counter),
        ("aio", signal.SIGINT, AioCounter),
    ],
)
def test_f3_a_signal_under_load_loses_nothing(
    face: str, number: signal.Signals, make: type[Counter]
) -> None:
    """All that was accepted is handled, here or by the next server; no traceback."""
    with Program.server(face, half=MANY // 2) as first:
        port = first.next()
        with make(port) as counter:
            sending = threading.Thread(target=counter.send, args=(MANY,))
            sending.start()
            first.until("half")
            first.signal(number)
            code, errors = first.end()
            assert (code, errors) == (0, "")
            assert counter.next() == "drop"
            with Program.server(face, port) as second:
                second.next()
                assert counter.next() == "lost"
                sending.join(SLOW)
                assert not sending.is_alive()
                assert [lost.reason for lost in counter.lost] == ["server_restarted"]
                counter.send(10)
                eventually(lambda: counter.seen[-1:] == [counter.sent - 1], "the last")
                second.signal(signal.SIGINT)
                assert second.end() == (0, "")
                forgiven = face == "plain" and number == signal.SIGINT
                check_account(counter, handled_by(first), handled_by(second), forgiven)


@pytest.mark.parametrize(
    ("face", "number"), [("plain", signal.SIGTERM), ("aio", signal.SIGINT)]
)
def test_f3_answers_that_were_accepted_arrive(
    face: str, number: signal.Signals
) -> None:
    """What the server's handlers sent before its goodbye is delivered, too."""
    with Program.server(face, half=1) as server, Counter(server.next()) as counter:
        counter.send(500)
        server.until("half")
        server.signal(number)
        assert server.end() == (0, "")
        assert counter.next() == "drop"
        handled = handled_by(server)
        eventually(lambda: counter.seen == handled, "every answer")
        assert handled == list(range(len(handled)))


@pytest.mark.parametrize("face", ["plain", "aio"])
def test_f3_a_second_signal_ends_it_at_once(face: str) -> None:
    """Where the first waits for a client that does not take what was sent to it."""
    with Program.server(face, half=1) as server:
        port = server.next()
        # Its kernel takes what comes, but nobody acknowledges it.
        with Program.client(port, "stopped") as client:
            server.until("half")
            client.signal(signal.SIGSTOP)
            with Counter(port) as counter:
                counter.send(1)
                eventually(lambda: counter.seen == [0], "the answer")
                server.signal(signal.SIGINT)
                eventually(lambda: is_refused((HOST, port)), "it accepts no more")
                began = time.monotonic()
                server.signal(signal.SIGINT)
                code, errors = server.end()
                assert time.monotonic() - began < 2
                assert (code, errors) == (0, "")
                assert counter.next() == "drop"


def test_f3_a_client_that_does_not_listen_is_not_waited_for_long() -> None:
    """A drain has an end."""
    server = start_threaded_server((HOST, 0))
    server.on("it")(lambda client: server.send_client(client, "answer", b"x"))
    server.start_server()
    with Program.client(server.addr[1], "stopped") as client:
        eventually(lambda: len(server), "it joins")
        client.signal(signal.SIGSTOP)
        server.send_all_clients("news", b"x")
        began = time.monotonic()
        server.close(drain=0.5)
        assert 0.4 < time.monotonic() - began < 3
    server.join()


def acknowledged(counter: Counter) -> int:
    """How many frames of a client's its server has taken in."""
    replay = counter.client._engine.link.replay
    return 0 if replay is None else replay.acked


def test_a_drain_handles_what_waits() -> None:
    """And ends as soon as all is quiet."""
    server = start_threaded_server((HOST, 0))
    let_go, handled = threading.Event(), []

    @server.on("it", threaded=True)
    def it(client: ClientInfo, number: int) -> None:
        assert let_go.wait(PATIENCE)
        handled.append(number)
        server.send_client(client, "seen", number)

    with server, Counter(server.addr[1]) as counter:
        counter.send(200)
        eventually(lambda: acknowledged(counter) >= 64, "they come")
        closing = threading.Thread(target=server.close, kwargs={"drain": 10})
        closing.start()
        eventually(lambda: is_refused((HOST, server.addr[1])), "it accepts no more")
        let_go.set()
        began = time.monotonic()
        closing.join(SLOW)
        assert time.monotonic() - began < 3
        assert counter.next() == "end"
    assert handled == counter.seen == list(range(200))
    assert not counter.lost


@pytest.mark.parametrize("make", CLIENTS)
def test_a_plain_close_keeps_clients_away(make: type[Counter]) -> None:
    """They are told why, and do not try again."""
    server = start_threaded_server((HOST, 0))
    server.start_server()
    port = server.addr[1]
    with make(port) as counter:
        eventually(lambda: counter.client.is_connected and len(server), "it joins")
        server.close(reason="we have moved")
        server.join()
        assert counter.next() == "end"
        joined = threading.Event()
        with start_threaded_server((HOST, port)) as other:
            other.on("join")(lambda client: joined.set())
            assert not joined.wait(0.8)
        assert not counter.client.is_connected
        with pytest.raises(ClientDisconnected, match="we have moved"):
            counter.send(1)
        assert not counter.lost


@pytest.mark.parametrize("make", CLIENTS)
def test_a_client_that_is_sent_back_keeps_its_session(make: type[Counter]) -> None:
    """Its data, its groups, and whatever was on its way in both directions."""
    server = start_threaded_server((HOST, 0))
    told: list[str] = []
    handled: list[int] = []

    @server.on("it")
    def it(client: ClientInfo, number: int) -> None:
        handled.append(number)
        client.send("seen", number)
        if number % 100 == 50:
            server.disconnect_client(client, reason="move over", reconnect=True)

    server.on_drop(lambda client: told.append("drop"))
    server.on_resume(lambda client: told.append("resume"))
    server.on("leave")(lambda client: told.append("leave"))
    with server, make(server.addr[1]) as counter:
        eventually(lambda: len(server) == 1, "it joins")
        (info,) = server
        info.data["score"] = 7
        server.join_group("ann", "blue")
        for _ in range(3):
            counter.send(100)
            assert [counter.next(), counter.next()] == ["drop", "resume"]
        eventually(lambda: counter.seen == list(range(300)), "all answers")
        assert handled == list(range(300))
        assert list(server) == [info]
        assert info.data == {"score": 7}
        assert info.groups == {"blue"}
        assert told == ["drop", "resume"] * 3
        assert not counter.lost


def test_a_cancelled_run_forever_leaves_well() -> None:
    """As on Ctrl-C: it drains, tells clients to come back, and is cancelled."""
    handled: list[int] = []

    async def serve(port: asyncio.Future[int]) -> None:
        server = aio.start_server((HOST, 0))

        @server.on("it")
        async def it(client: Any, number: int) -> None:
            await asyncio.sleep(0)
            handled.append(number)
            await server.send_client(client, "seen", number)

        await server
        port.set_result(server.addr[1])
        await server.run_forever()

    async def main() -> None:
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(port))
        with Counter(await port) as counter:
            await asyncio.to_thread(counter.send, 300)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert await asyncio.to_thread(counter.next) == "drop"
            assert handled == list(range(300))
            await asyncio.to_thread(
                eventually, lambda: counter.seen == handled, "all answers"
            )

    asyncio.run(main())
