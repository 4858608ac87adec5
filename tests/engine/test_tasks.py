"""Coroutine handlers: on a loop turned by hand, and on the program's own."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from hisock import ClientInfo, CommandError, start_server, start_threaded_server
from hisock.engine.tasks import Tasks
from hisock.server import HiSockServer, ThreadedHiSockServer

from .packed import CANCEL, CREDIT, END, FAILURE, ITEM, MESSAGE, REPLY, REQUEST, Packed
from .test_blocking import HOST, PATIENCE, Task, eventually
from .test_serve import turn

Came = list[tuple[Any, BaseException | None]]


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    """Tasks with a loop of their own; what is left over is cancelled."""
    made = Tasks(lambda: None)
    yield made
    made.close()


def spawn(tasks: Tasks, coroutine: Any) -> Came:
    """Run a coroutine; what it comes to."""
    came: Came = []

    def done(result: Any, error: BaseException | None) -> None:
        came.append((result, error))

    tasks.spawn(coroutine, contextvars.copy_context(), done, "app.py:1 it")
    return came


# --- turned by hand ------------------------------------------------------------------


def test_a_turn_ends_when_a_task_has(tasks: Tasks) -> None:
    """With its result, however long the turn might have waited."""

    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    came = spawn(tasks, work())
    began = time.monotonic()
    while not came:
        tasks.turn(None, None)
    assert came == [("done", None)]
    assert time.monotonic() - began < PATIENCE


def test_a_turn_without_patience_only_looks(tasks: Tasks) -> None:
    """What is ready runs; nothing is waited for."""
    steps: list[int] = []

    async def work() -> None:
        for step in range(3):
            steps.append(step)
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    spawn(tasks, work())
    began = time.monotonic()
    for _ in range(6):
        tasks.turn(None, 0.0)
    assert steps == [0, 1, 2]
    assert time.monotonic() - began < 1.0


def test_a_turn_ends_when_a_socket_is_ready(tasks: Tasks) -> None:
    """Whatever the tasks do meanwhile; the next one watches it as well."""
    one, other = socket.socketpair()
    with one, other:
        spawn(tasks, asyncio.Event().wait())
        for _ in range(2):
            sender = threading.Timer(0.02, other.send, (b"x",))
            sender.start()
            tasks.turn(one.fileno(), None)
            assert one.recv(1) == b"x"
            sender.join()


def test_a_turn_ends_in_time(tasks: Tasks) -> None:
    """Though nothing happens."""
    spawn(tasks, asyncio.Event().wait())
    began = time.monotonic()
    one, other = socket.socketpair()
    with one, other:
        tasks.turn(one.fileno(), 0.03)
    assert 0.029 <= time.monotonic() - began < PATIENCE


def test_what_a_task_raises_is_what_it_comes_to(tasks: Tasks) -> None:
    """Nobody else hears of it."""
    raised = ZeroDivisionError("on purpose")

    async def fail() -> None:
        raise raised

    came = spawn(tasks, fail())
    while not came:
        tasks.turn(None, None)
    assert came == [(None, raised)]


def test_context_variables_are_carried_along(tasks: Tasks) -> None:
    """Into the task, and not out of it."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("it", default=0)

    async def work() -> int:
        before = variable.get()
        variable.set(99)
        return before

    variable.set(5)
    came = spawn(tasks, work())
    while not came:
        tasks.turn(None, None)
    assert came == [(5, None)]
    assert variable.get() == 5


def test_closing_cancels_what_runs() -> None:
    """``finally`` runs, awaits included, and each comes to its end."""
    tasks = Tasks(lambda: None)
    notes: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            notes.append(name)

    came = [spawn(tasks, work(name)) for name in ("one", "two")]
    tasks.turn(None, 0.0)
    tasks.close()

    assert sorted(notes) == ["one", "two"]
    assert [type(each[0][1]) for each in came] == [asyncio.CancelledError] * 2
    assert tasks.loop.is_closed()


def test_a_step_that_takes_long_is_named(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It held up all others; one that awaited the same time did not."""
    monkeypatch.setattr("hisock.engine.tasks.BLOCKED", 0.02)
    told: list[tuple[str, float]] = []
    tasks.blocked = lambda where, seconds: told.append((where, seconds))
    pause = threading.Event()

    async def polite() -> None:
        await asyncio.sleep(0.03)

    async def rude() -> None:
        await asyncio.sleep(0)
        pause.wait(0.03)

    for work in (polite(), rude()):
        came = spawn(tasks, work)
        while not came:
            tasks.turn(None, None)
    ((where, seconds),) = told
    assert where == "app.py:1 it"
    assert seconds >= 0.03


def test_a_call_from_elsewhere_after_the_end_is_nothing() -> None:
    """Who wakes a loop that is closed need not know."""
    tasks = Tasks(lambda: None)
    tasks.close()
    tasks.close()
    tasks.call_soon(lambda: None)


# --- on a server ---------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[ThreadedHiSockServer]:
    """Our server, turning in its thread."""
    with start_threaded_server((HOST, 0)) as made:
        made.on("echo")(lambda client, message: message)
        yield made


@pytest.fixture
def peer(server: ThreadedHiSockServer) -> Iterator[Packed]:
    """A raw client of it."""
    with Packed.call_at(server.addr) as made:
        made.agree()
        yield made


def test_a_clients_messages_wait_for_its_coroutine(
    server: ThreadedHiSockServer, peer: Packed
) -> None:
    """And nobody else's do."""
    notes: list[Any] = []
    go_on = asyncio.Event()

    @server.on("slow")
    async def slow(client: ClientInfo, message: Any) -> None:
        notes.append("begin")
        await go_on.wait()
        notes.append("end")

    server.on("note")(lambda client, message: notes.append(message))

    @server.on("go")
    async def go(client: ClientInfo) -> None:
        go_on.set()

    peer.put([MESSAGE, "slow", None], [MESSAGE, "note", "mine"])
    eventually(lambda: notes, "it begins")
    with Packed.call_at(server.addr, "other") as other:
        other.agree()
        other.put([MESSAGE, "note", "theirs"])
        eventually(lambda: "theirs" in notes, "the other is served")
        other.put([MESSAGE, "go", None])
        eventually(lambda: "mine" in notes, "the rest")

    assert notes == ["begin", "theirs", "end", "mine"]


def test_as_many_at_a_time_as_concurrency_says(
    server: ThreadedHiSockServer, peer: Packed
) -> None:
    """Of one client's messages; they begin in order."""
    running, most, begun = 0, 0, list[int]()

    @server.on("work", concurrency=3)
    async def work(client: ClientInfo, number: int) -> int:
        nonlocal running, most
        begun.append(number)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return number

    peer.put(*([REQUEST, 2 * n + 1, "work", n] for n in range(12)))
    replies = [peer.next() for _ in range(12)]

    assert sorted(reply[2] for reply in replies) == list(range(12))
    assert begun == list(range(12))
    assert most == 3


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (CommandError("full", "no seat", 1), ["full", "no seat", 1]),
        (ZeroDivisionError("secret"), ["handler_failed", "", None]),
    ],
    ids=["refuses", "fails"],
)
def test_a_coroutine_that_fails_answers_with_a_failure(
    server: ThreadedHiSockServer,
    peer: Packed,
    error: Exception,
    failure: list[Any],
) -> None:
    """And what comes after it is handled."""
    server.on_error(lambda report: None)

    @server.on("fail")
    async def fail(client: ClientInfo) -> None:
        await asyncio.sleep(0)
        raise error

    peer.put([REQUEST, 1, "fail", None], [REQUEST, 3, "echo", "after"])

    assert peer.next() == [FAILURE, 1, *failure]
    assert peer.next() == [REPLY, 3, "after"]


def make_counter(server: HiSockServer) -> list[str]:
    """Register an async generator that notes what happens to it."""
    notes: list[str] = []

    async def count(client: ClientInfo, number: int) -> AsyncIterator[int]:
        try:
            for each in range(number):
                await asyncio.sleep(0)
                notes.append("made")
                yield each
        finally:
            notes.append("closed")

    server.on("count")(count)
    return notes


def test_an_async_generator_answers_a_stream(
    server: ThreadedHiSockServer, peer: Packed
) -> None:
    """Item by item, as there is credit for, and then the end."""
    notes = make_counter(server)
    peer.put([REQUEST, 1, "count", 70, 64])
    assert [peer.next()[:2] for _ in range(64)] == [[ITEM, 1]] * 64
    peer.put([REQUEST, 3, "echo", 1])
    assert peer.next() == [REPLY, 3, 1]
    assert notes.count("made") <= 65

    peer.put([CREDIT, 1, 64])

    assert [peer.next()[2] for _ in range(6)] == list(range(64, 70))
    assert peer.next() == [END, 1]
    assert notes[-1] == "closed"


def test_a_cancelled_async_generator_is_closed(
    server: ThreadedHiSockServer, peer: Packed
) -> None:
    """Nothing more of it is sent, and its request is forgotten."""
    notes = make_counter(server)
    peer.put([REQUEST, 1, "count", 1000, 64])
    for _ in range(64):
        peer.next()

    peer.put([CANCEL, 1])

    eventually(lambda: "closed" in notes, "it is closed")
    peer.put([REQUEST, 3, "echo", 1])
    assert peer.next() == [REPLY, 3, 1]
    requests = server._members.look_up("raw").connection.requests
    assert requests is not None
    eventually(lambda: not requests.answering, "it is forgotten")


def test_closing_a_server_cancels_its_coroutines() -> None:
    """``finally`` runs before ``close`` returns, and it does not wait for the rest."""
    notes: list[str] = []
    with start_server((HOST, 0), blocking=False) as server:

        @server.on("slow")
        async def slow(client: ClientInfo) -> None:
            notes.append("begin")
            try:
                await asyncio.Event().wait()
            finally:
                notes.append("closed")

        with Packed.call_at(server.addr) as peer:
            turn(server, lambda: len(server) == 1, "it joins")
            peer.agree()
            peer.put([MESSAGE, "slow", None])
            turn(server, lambda: notes, "it begins")
            closing = Task(server.close)
            while peer.next()[0] != 35:
                pass
            peer.sock.close()
            closing.result(2.0)

    assert notes == ["begin", "closed"]


def test_a_run_inside_a_loop_runs_coroutines() -> None:
    """As in a Jupyter cell: the running loop is set aside, and is there again after."""
    got: list[Any] = []

    async def cell() -> None:
        mine = asyncio.get_running_loop()
        with start_server((HOST, 0), blocking=False) as server:

            @server.on("it")
            async def it(client: ClientInfo, message: Any) -> None:
                await asyncio.sleep(0)
                got.append((message, asyncio.get_running_loop() is mine))

            with Packed.call_at(server.addr) as peer:
                turn(server, lambda: len(server) == 1, "it joins")
                peer.agree()
                peer.put([MESSAGE, "it", 5])
                turn(server, lambda: got, "it is handled")
        assert asyncio.get_running_loop() is mine
        await asyncio.sleep(0)

    asyncio.run(cell())
    assert got == [(5, False)]
