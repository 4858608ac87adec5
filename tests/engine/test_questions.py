"""What a client asks its server, on the wire: a raw server answers, late or never."""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import Any

import pytest

from hisock import (
    CommandError,
    Limits,
    RemoteError,
    RequestTimeout,
    connect,
    start_threaded_server,
)
from hisock.errors import (
    ClientDisconnected,
    NotSendable,
    Overloaded,
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
    welcomed,
)
from .test_blocking import (
    HOST,
    PATIENCE,
    Task,
    eventually,
    interrupt_at,
    updated,
)

ANN = {"ip": ["127.0.0.1", 5000], "name": "ann", "group": None}


def answer(server: Packed, content: Any, *before: list[Any]) -> list[Any]:
    """Answer the next call, with other frames before; the call."""
    request = server.next()
    server.put(*before, [REPLY, request[1], content])
    return request


# --- a call ------------------------------------------------------------------------


def test_a_call_is_a_request_with_an_odd_number() -> None:
    """Ascending, with a deadline on this side's clock where there is a time-out."""
    with welcomed() as (client, server):
        calls = [
            Task(lambda: client.call("add", [1, 2])),
            Task(lambda: client.call("add", [1, 2], timeout=None)),
        ]
        requests = [server.next() for _ in calls]
        server.put(*([REPLY, request[1], 3] for request in requests))
        assert [call.result() for call in calls] == [3, 3]

    assert sorted(request[1] for request in requests) == [1, 3]
    assert [request[2:5] for request in requests] == [["add", [1, 2], 0]] * 2
    assert sorted(type(request[5]).__name__ for request in requests) == [
        "NoneType",
        "int",
    ]


def test_what_comes_meanwhile_waits_in_order() -> None:
    """A call runs no handler; ``update`` and ``recv`` get what came, as it came."""
    with welcomed() as (client, server):
        got: list[Any] = []
        client.on("note")(got.append)
        calling = Task(lambda: client.call("add"))
        answer(
            server, 3, [MESSAGE, "note", 1], [MESSAGE, "other", 2], [MESSAGE, "note", 3]
        )

        assert calling.result() == 3
        assert got == []
        assert client.recv("other") == 2
        client.update()
        assert got == [1, 3]


def test_a_call_in_a_handler() -> None:
    """Does not wait for itself; the rest of the batch comes after."""
    with welcomed(blocking=False) as (client, server):
        got: list[Any] = []
        client.on("ask")(lambda: got.append(client.call("add")))
        client.on("note")(got.append)
        server.put([MESSAGE, "ask", None], [MESSAGE, "note", 1])
        updating = Task(client.update)
        answer(server, "sum", [MESSAGE, "note", 2])
        updating.result()
        updated(client, lambda: len(got) == 3, "the rest")

    assert got == ["sum", 1, 2]


def test_a_late_answer_is_nobodys() -> None:
    """Who gave up tells the server; the answer on its way goes nowhere."""
    with welcomed() as (client, server):
        with pytest.raises(RequestTimeout, match=r"within 0\.05 s"):
            client.call("add", timeout=0.05)
        number = server.next()[1]
        assert server.next() == [CANCEL, number]

        server.put([REPLY, number, 3], [MESSAGE, "note", 1])
        assert client.recv_any(timeout=5).content == 1


@pytest.mark.parametrize(
    ("failure", "shown"),
    [
        (["full", "no seat", {"free": 0}], "full: no seat"),
        (["handler_failed", ""], "handler_failed: the handler of 'add' failed"),
    ],
)
def test_a_failure_is_the_callers_error(failure: list[Any], shown: str) -> None:
    """With the same code, words and data."""
    with welcomed() as (client, server):
        calling = Task(lambda: client.call("add"))
        server.put([FAILURE, server.next()[1], *failure])
        with pytest.raises(RemoteError) as caught:
            calling.result()

    assert (str(caught.value), caught.value.code) == (shown, failure[0])
    assert caught.value.data == (failure[2] if len(failure) > 2 else None)


@pytest.mark.parametrize("content", [2**70, "\ud800", object(), [object()]])
def test_what_cannot_be_sent_leaves_no_call_open(content: Any) -> None:
    """Nothing was sent, and the next call is answered."""
    with welcomed() as (client, server):
        with pytest.raises(NotSendable):
            client.call("add", content)
        assert server.is_quiet()
        requests = client._engine.link.connection.requests
        assert requests is not None
        assert not requests.asked
        calling = Task(lambda: client.call("add", 1))
        answer(server, 2)
        assert calling.result() == 2


def test_a_session_that_is_lost_while_a_call_is_about_to_leave() -> None:
    """Another thread comes back to a server that knows nothing of us: which wire that
    speaks is not known yet, so the call has its error, and the next one waits."""
    with welcomed() as (client, server):
        engine = client._engine
        assert engine.uplink.know_wire()
        with engine.lock.reading:
            calling = Task(lambda: client.call("add"))
            calling.settle()
            engine.uplink.forget_wire()
        with pytest.raises(SessionLost, match="about to leave"):
            calling.result()

        calling = Task(lambda: client.call("add", 1))
        assert answer(server, 2)[2:4] == ["add", 1]
        assert calling.result() == 2


def test_what_a_signal_handler_sends_in_a_call_that_fails() -> None:
    """It leaves when the call has failed, not when something else is sent."""

    class Command(str):
        """Where a signal may strike."""

        __slots__ = ()

        def __hash__(self) -> int:
            client.send("note", b"1")
            return super().__hash__()

    with welcomed() as (client, server):
        client.send("first", 0)
        assert server.next() == [MESSAGE, "first", 0]
        with pytest.raises(NotSendable):
            client.call(Command("add"), "\ud800")

        assert server.next() == [MESSAGE, "note", b"1"]


def test_calls_for_which_there_is_no_room() -> None:
    """What the system takes a part of arrives whole, once, and in order."""
    go_on, content = threading.Event(), bytes(100_000)
    with start_threaded_server((HOST, 0)) as server:
        got: list[int] = []

        @server.on("size")
        def size(who: Any, message: bytes) -> int:
            got.append(len(message))
            assert go_on.wait(PATIENCE)
            return len(message)

        with connect(server.addr) as client:
            calls = [
                Task(lambda n=n: client.call("size", content[n:]))  # type: ignore[misc]  # a default
                for n in range(100)
            ]
            link = client._engine.link
            eventually(lambda: link.outbox.size, "there is no room")
            go_on.set()
            sizes = [call.result() for call in calls]
        assert server.stats()["resumed"] == 0

    assert sizes == [100_000 - n for n in range(100)]
    assert sorted(got) == sorted(sizes)


def test_an_interrupt_anywhere_in_a_call_leaves_the_client_usable() -> None:
    """Ctrl-C at any place: the next call is answered, and none is served twice."""
    with start_threaded_server((HOST, 0)) as server:
        got: list[int] = []

        @server.on("echo")
        def echo(who: Any, number: int) -> int:
            got.append(number)
            return number

        with connect(server.addr) as client:
            assert client.call("echo", -1) == -1
            for number in itertools.count(0, 2):
                with (
                    interrupt_at(number // 2) as reached,
                    contextlib.suppress(KeyboardInterrupt),
                ):
                    client.call("echo", number)
                assert client.call("echo", number + 1) == number + 1, reached
                client.update(timeout=0)  # what a resume has left to be handled
                if not reached:
                    break

    assert number > 40
    assert got == sorted(set(got))


@pytest.mark.parametrize("how", ["closed", "reset", "goodbye"])
def test_the_end_of_the_connection_ends_a_call(how: str) -> None:
    """At once: its outcome is unknown, and it is not tried again."""
    with welcomed() as (client, server):
        calling = Task(lambda: client.call("add", timeout=None))
        server.next()
        if how == "closed":
            server.sock.close()
        elif how == "reset":
            server.reset()
        else:
            server.put([BYE, 1, "enough", None])
        with pytest.raises((SessionLost, ClientDisconnected)):
            calling.result(2.0)


def test_closing_ends_a_call() -> None:
    """``close`` in another thread does."""
    with welcomed() as (client, server):
        calling = Task(lambda: client.call("add", timeout=None))
        server.next()
        closing = Task(client.close)
        eventually(lambda: server.next()[0] == BYE, "it says goodbye")
        server.sock.close()
        closing.result()
        with pytest.raises((SessionLost, ClientDisconnected)):
            calling.result(2.0)


def test_too_much_that_comes_meanwhile() -> None:
    """Over ``Limits.queue`` bytes the call is given up, before memory is."""
    with welcomed(limits=Limits(queue=10_000)) as (client, server):
        client.on("note")(lambda message: None)
        calling = Task(lambda: client.call("add", timeout=None))
        number = server.next()[1]
        server.put(*([MESSAGE, "note", bytes(1000)] for _ in range(20)))

        with pytest.raises(Overloaded, match="call update"):
            calling.result()
        assert server.next() == [CANCEL, number]


def test_as_many_threads_as_like_may_call() -> None:
    """One of them reads for all; each gets its own answer, in whatever order."""
    with welcomed() as (client, server):
        calls = {n: Task(lambda n=n: client.call("echo", n)) for n in range(20)}  # type: ignore[misc]  # a default
        requests = [server.next() for _ in calls]
        for request in reversed(requests):
            server.put([REPLY, request[1], request[3]])

        assert {n: call.result() for n, call in calls.items()} == {
            n: n for n in range(20)
        }


# --- calls within calls ------------------------------------------------------------


def test_a_call_on_behalf_of_ours_is_answered_at_once() -> None:
    """While this side waits, and before what came earlier."""
    with welcomed() as (client, server):
        got: list[Any] = []
        client.on("note")(got.append)
        client.on("double")(lambda number: number * 2)
        calling = Task(lambda: client.call("add"))
        ours = server.next()[1]
        server.put([MESSAGE, "note", 1], [REQUEST, 2, "double", 21, 0, None, ours])

        assert server.next() == [REPLY, 2, 42]
        assert got == []
        server.put([REPLY, ours, "sum"])
        assert calling.result() == "sum"


def test_a_call_of_its_own_waits_for_its_turn() -> None:
    """What the server asks for itself is answered by ``update``, in order."""
    with welcomed() as (client, server):
        client.on("double")(lambda number: number * 2)
        calling = Task(lambda: client.call("add"))
        ours = server.next()[1]
        server.put([REQUEST, 2, "double", 21], [REPLY, ours, "sum"])

        assert calling.result() == "sum"
        assert server.is_quiet()
        client.update()
        assert server.next() == [REPLY, 2, 42]


@pytest.mark.parametrize("depth", [16, 17])
def test_calls_within_calls_have_a_bottom(depth: int) -> None:
    """16 deep they are answered; the next is refused, and all above it end well."""
    with welcomed() as (client, server):

        def down(level: int) -> list[str]:
            try:
                below = client.call("down", level + 1)
            except RemoteError as error:
                return [error.code]
            return [f"{level}", *below]

        client.on("down")(down)
        calling = Task(lambda: client.call("down", 0, timeout=None))
        numbers = [server.next()[1]]
        for level in range(1, depth + 1):
            server.put([REQUEST, 2 * level, "down", level, 0, None, numbers[-1]])
            frame = server.next()
            if frame[0] == FAILURE:
                assert level == 17
                assert frame[1:3] == [34, "overloaded"]
                server.put([FAILURE, numbers[-1], "overloaded", ""])
                break
            assert frame[0] == REQUEST
            assert frame[6] == 2 * level
            numbers.append(frame[1])
        else:
            server.put([FAILURE, numbers[-1], "enough", ""])
        while len(numbers) > 1:
            kind, _, content = server.next()
            assert kind == REPLY
            numbers.pop()
            server.put([REPLY, numbers[-1], content])
        result = calling.result()

    assert result[-1] in ("enough", "overloaded")
    assert len(result) == 16


def test_a_handler_refuses_what_is_called_within() -> None:
    """As anywhere: with its code, and the call around it goes on."""
    with welcomed() as (client, server):

        def refuse() -> None:
            raise CommandError("no", "not now")

        client.on("refuse")(refuse)
        calling = Task(lambda: client.call("add"))
        ours = server.next()[1]
        server.put([REQUEST, 2, "refuse", None, 0, None, ours])
        assert server.next() == [FAILURE, 2, "no", "not now", None]
        server.put([REPLY, ours, "sum"])
        assert calling.result() == "sum"


def test_an_answer_is_not_refused_for_want_of_room() -> None:
    """A client that may not wait answers all the same: what its server asked for comes
    behind what was sent before."""
    limits = Limits(outbox=64 * 1024)
    with welcomed(blocking=False, buffer=4096, limits=limits) as (client, server):
        asked: list[int] = []
        client.on("double")(lambda number: asked.append(number) or number * 2)  # type: ignore[func-returns-value]  # None

        def fill() -> None:
            while True:
                client.send("big", bytes(16 * 1024))

        with pytest.raises(WouldBlock):
            fill()
        server.put([REQUEST, 4, "nobody", None], [REQUEST, 6, "double", 21])
        updated(client, lambda: asked, "it is handled")
        frames: list[list[Any]] = []

        def read() -> None:
            while len(frames) < 2:
                frame = server.next()
                if frame[0] != MESSAGE:
                    frames.append(frame)

        reading = Task(read)
        updated(client, lambda: reading.ends(0), "both answers come")

    assert [frame[:3] for frame in frames] == [
        [FAILURE, 4, "unknown_command"],
        [REPLY, 6, 42],
    ]


# --- a stream ----------------------------------------------------------------------


def test_a_stream_is_read_as_it_comes() -> None:
    """With 64 of credit, more of it at half, and the end."""
    with welcomed() as (client, server), client.stream("count", 3, type=int) as items:
        kind, number, *rest = server.next()
        assert (kind, rest[:3]) == (REQUEST, ["count", 3, 64])
        server.put(*([ITEM, number, each] for each in range(40)))
        assert [next(items) for _ in range(32)] == list(range(32))
        assert server.next() == [CREDIT, number, 32]
        server.put([END, number])
        assert list(items) == list(range(32, 40))


def test_a_stream_that_is_left_is_cancelled() -> None:
    """By ``with``, ``close`` and forgetting it."""
    with welcomed() as (client, server):
        for leave in ("with", "close", "forget"):
            items = client.stream("count")
            number = server.next()[1]
            if leave == "with":
                with items:
                    pass
            elif leave == "close":
                items.close()
            del items
            assert server.next() == [CANCEL, number]


def test_messages_are_handled_between_items() -> None:
    """Reading a stream runs no handler; ``update`` between items does."""
    with welcomed() as (client, server):
        got: list[Any] = []
        client.on("note")(got.append)
        with client.stream("count") as items:
            number = server.next()[1]
            server.put([ITEM, number, 1], [MESSAGE, "note", 1], [ITEM, number, 2])
            assert next(items) == 1
            assert got == []
            client.update()
            assert got == [1]
            assert next(items) == 2


# --- who somebody is ---------------------------------------------------------------


def test_who_somebody_is_is_a_call_of_hisocks_own() -> None:
    """And the address comes back as a pair."""
    with welcomed() as (client, server):
        asking = Task(lambda: client.get_client(("127.0.0.1", 5000)))
        request = answer(server, ANN)
        assert request[2:4] == ["$GETCLT$", "127.0.0.1:5000"]
        assert asking.result() == {**ANN, "ip": ("127.0.0.1", 5000)}


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        ("unknown_client", UnknownClient, "no client 'ann' is connected"),
        ("refused", Refused, "does not tell who 'ann' is: why not"),
    ],
)
def test_nobody_and_no_answer(code: str, error: type[Exception], text: str) -> None:
    """As on the wire of 1.1."""
    with welcomed() as (client, server):
        asking = Task(lambda: client.get_client("ann"))
        server.put([FAILURE, server.next()[1], code, "why not"])
        with pytest.raises(error, match=text):
            asking.result()


def test_a_server_that_never_says_which_wire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A question to it times out, and tells what it waited for."""
    import socket

    from hisock import connect

    monkeypatch.setattr("hisock.engine.questions._ANSWER", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = connect(listener.getsockname())
        other = listener.accept()[0]
        with other:
            with pytest.raises(RequestTimeout, match=r"within 0\.05 s"):
                client.get_client("ann")
            with pytest.raises(RequestTimeout, match="did not answer the hello"):
                client.call("add", timeout=0.05)
        client.close()


def test_many_at_once_in_both_directions() -> None:
    """Calls of this side, and calls on behalf of them, from several threads."""
    with welcomed() as (client, server):
        client.on("double")(lambda number: number * 2)
        rounds = 25

        def serve() -> None:
            pending: dict[int, int] = {}
            done, number = 0, 2
            while done < 4 * rounds:
                frame = server.next()
                if frame[0] == REQUEST:
                    pending[number] = frame[1]
                    server.put([REQUEST, number, "double", frame[3], 0, None, frame[1]])
                    number += 2
                else:
                    assert frame[0] == REPLY
                    server.put([REPLY, pending.pop(frame[1]), frame[2]])
                    done += 1

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        asking = [
            Task(lambda: [client.call("add", n) for n in range(rounds)])
            for _ in range(4)
        ]
        for task in asking:
            assert task.result(10) == [2 * n for n in range(rounds)]
        serving.join(5)
