"""Plain generators that answer streams, seen by a raw peer: as much as it asked for."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from hisock import CommandError, Limits, start_threaded_server
from hisock.server import ThreadedHiSockServer

from .packed import CANCEL, CREDIT, END, FAILURE, ITEM, MESSAGE, REPLY, REQUEST, Packed
from .test_blocking import HOST, PATIENCE, eventually

WINDOW = 64
#: Numbers of requests, ascending as a client's are.
NUMBERS = itertools.count(1001, 2)


@pytest.fixture(params=[False, True], ids=["here", "threaded"])
def threaded(request: pytest.FixtureRequest) -> bool:
    """Whether the generator runs in a worker thread."""
    runs: bool = request.param
    return runs


@pytest.fixture
def server() -> Iterator[ThreadedHiSockServer]:
    """Our server, turning in its thread."""
    with start_threaded_server((HOST, 0), limits=Limits(outbox=64 * 1024)) as made:
        yield made


@pytest.fixture
def peer(server: ThreadedHiSockServer) -> Iterator[Packed]:
    """A raw client of it."""
    with Packed.call_at(server.addr) as made:
        made.agree()
        yield made
        made.reset()


def ask(peer: Packed, number: int, command: str, content: Any = None) -> None:
    """Begin a stream with the usual credit."""
    peer.put([REQUEST, number, command, content, WINDOW])


def check_rest(peer: Packed) -> None:
    """Nothing more comes of any stream: the answer to a call is next."""
    number = next(NUMBERS)
    peer.put([REQUEST, number, "echo", 1])
    assert peer.next() == [REPLY, number, 1]


def count(server: ThreadedHiSockServer, threaded: bool) -> list[str]:
    """Register ``count``, which notes what happens to it, and ``echo``."""
    notes: list[str] = []

    def count(client: Any, number: int) -> Iterator[int]:
        try:
            for each in range(number):
                notes.append("made")
                yield each
            notes.append("ended")
        finally:
            notes.append("closed")

    server.on("count", threaded=threaded)(count)
    server.on("echo")(lambda client, message: message)
    return notes


def test_items_come_in_order_and_then_the_end(
    server: ThreadedHiSockServer, peer: Packed, threaded: bool
) -> None:
    """With the number of the request on each."""
    count(server, threaded)
    ask(peer, 1, "count", 3)

    frames = [peer.next() for _ in range(4)]

    assert frames == [[ITEM, 1, 0], [ITEM, 1, 1], [ITEM, 1, 2], [END, 1]]
    check_rest(peer)


def test_an_empty_stream_ends_at_once(
    server: ThreadedHiSockServer, peer: Packed, threaded: bool
) -> None:
    """A generator that yields nothing is an end, not a silence."""
    count(server, threaded)
    ask(peer, 1, "count", 0)

    assert peer.next() == [END, 1]


def test_no_more_than_there_is_credit_for(
    server: ThreadedHiSockServer, peer: Packed, threaded: bool
) -> None:
    """A reader that takes its time slows the generator, which is never ahead of it by
    more than the credit."""
    notes = count(server, threaded)
    ask(peer, 1, "count", 100)
    assert [peer.next()[2] for _ in range(WINDOW)] == list(range(WINDOW))
    check_rest(peer)
    assert notes.count("made") == WINDOW

    peer.put([CREDIT, 1, 1])
    assert peer.next() == [ITEM, 1, WINDOW]
    check_rest(peer)

    peer.put([CREDIT, 1, 1000])
    rest = [peer.next() for _ in range(100 - WINDOW)]
    assert [each[2] for each in rest[:-1]] == list(range(WINDOW + 1, 100))
    assert rest[-1] == [END, 1]
    eventually(lambda: notes[-2:] == ["ended", "closed"], "it comes to its end")


def test_credit_before_the_first_item_counts(
    server: ThreadedHiSockServer, peer: Packed, threaded: bool
) -> None:
    """In one write with the request."""
    count(server, threaded)
    peer.put([REQUEST, 1, "count", 100, 1], [CREDIT, 1, 100])

    assert [peer.next()[0] for _ in range(101)] == [ITEM] * 100 + [END]


def test_a_cancelled_generator_is_closed(
    server: ThreadedHiSockServer, peer: Packed, threaded: bool
) -> None:
    """Its ``finally`` runs, and nothing more of it is sent."""
    notes = count(server, threaded)
    ask(peer, 1, "count", 1000)
    for _ in range(WINDOW):
        peer.next()

    peer.put([CANCEL, 1])

    eventually(lambda: "closed" in notes, "it is closed")
    assert "ended" not in notes
    check_rest(peer)
    assert server.stats()["open_calls"] == 0


def test_a_generator_whose_reader_vanishes_is_closed(
    server: ThreadedHiSockServer, threaded: bool
) -> None:
    """Whatever it was doing when the connection ended."""
    notes = count(server, threaded)
    with Packed.call_at(server.addr) as peer:
        peer.agree()
        ask(peer, 1, "count", 1000)
        for _ in range(WINDOW):
            peer.next()
        peer.reset()

    eventually(lambda: "closed" in notes, "it is closed")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (CommandError("full", "no seat", [1]), ["full", "no seat", [1]]),
        (ZeroDivisionError("secret"), ["handler_failed", "", None]),
    ],
    ids=["refuses", "fails"],
)
def test_a_generator_that_fails_fails_after_its_items(
    server: ThreadedHiSockServer,
    peer: Packed,
    threaded: bool,
    error: Exception,
    failure: list[Any],
) -> None:
    """What it yielded before comes first; what it raised is not told, unless meant."""

    def fail(client: Any, message: Any) -> Iterator[int]:
        yield 1
        yield 2
        raise error

    told: list[Exception] = []
    server.on_error(told.append)
    server.on("fail", threaded=threaded)(fail)
    server.on("echo")(lambda client, message: message)
    ask(peer, 1, "fail")

    frames = [peer.next() for _ in range(3)]

    assert frames[:2] == [[ITEM, 1, 1], [ITEM, 1, 2]]
    assert frames[2] == [FAILURE, 1, *failure]
    check_rest(peer)
    expected = 0 if isinstance(error, CommandError) else 1
    assert len(told) == expected


def test_an_item_that_cannot_be_sent_fails_the_stream(
    server: ThreadedHiSockServer, peer: Packed, threaded: bool
) -> None:
    """With the reason, and the generator is closed."""
    closed: list[bool] = []

    def odd(client: Any, message: Any) -> Iterator[Any]:
        try:
            yield 1
            yield object()
        finally:
            closed.append(True)

    server.on_error(lambda report: None)
    server.on("odd", threaded=threaded)(odd)
    ask(peer, 1, "odd")

    assert peer.next() == [ITEM, 1, 1]
    kind, number, code, text, _ = peer.next()
    assert (kind, number, code) == (FAILURE, 1, "not_sendable")
    assert "cannot send this object" in text
    eventually(lambda: closed, "it is closed")


def test_streams_take_turns(server: ThreadedHiSockServer, peer: Packed) -> None:
    """A long stream does not keep a short one, a call or a message waiting."""
    count(server, False)
    got: list[Any] = []
    server.on("note")(lambda client, message: got.append(message))
    peer.put([REQUEST, 1, "count", 100_000, 100_000])
    assert peer.next() == [ITEM, 1, 0]
    peer.put([REQUEST, 3, "count", 2, WINDOW], [REQUEST, 5, "echo", "hi"])
    peer.put([MESSAGE, "note", "there"])

    others: list[list[Any]] = []
    longs = 0
    while len(others) < 4:
        frame = peer.next()
        if frame[1] == 1:
            longs += 1
        else:
            others.append(frame)
    eventually(lambda: got, "the message is handled")
    peer.put([CANCEL, 1])

    assert sorted(others, key=repr) == sorted(
        [[ITEM, 3, 0], [ITEM, 3, 1], [END, 3], [REPLY, 5, "hi"]], key=repr
    )
    assert longs < 100_000


def test_a_reader_that_takes_nothing_does_not_fill_memory(
    server: ThreadedHiSockServer, threaded: bool
) -> None:
    """With credit without end the generator waits for room in the buffer, others are
    served, and it goes on once there is."""
    made: list[int] = []

    def flood(client: Any, message: Any) -> Iterator[bytes]:
        for number in range(300):
            made.append(number)
            yield bytes(64 * 1024)

    server.on("flood", threaded=threaded)(flood)
    server.on("echo")(lambda client, message: message)
    with (
        Packed.call_at(server.addr, "slow") as slow,
        Packed.call_at(server.addr, "other") as other,
    ):
        slow.agree()
        other.agree()
        slow.put([REQUEST, 1, "flood", None, 2**31])
        stands: list[int] = []

        def stands_still() -> bool:
            other.put([REQUEST, 2 * len(stands) + 1, "echo", 1])
            assert other.next()[0] == REPLY
            stands.append(len(made))
            return len(stands) > 50 and len(set(stands[-50:])) == 1

        eventually(stands_still, "the generator waits")
        assert len(made) < 300
        assert server.stats()["buffered_bytes"] < 64 * 1024 * 4

        kinds = [slow.next()[0] for _ in range(301)]
        assert kinds == [ITEM] * 300 + [END]


def test_a_call_for_a_stream_is_refused(
    server: ThreadedHiSockServer, peer: Packed, threaded: bool
) -> None:
    """And a stream for a call: each says which it is; the generator never begins."""
    notes = count(server, threaded)
    peer.put([REQUEST, 1, "count", 3], [REQUEST, 3, "echo", 3, WINDOW])

    frames = sorted(peer.next()[:3] for _ in range(2))

    assert frames == [[FAILURE, 1, "only_stream"], [FAILURE, 3, "no_stream"]]
    assert notes == []


def test_a_message_for_a_stream_is_a_mistake(
    server: ThreadedHiSockServer, peer: Packed
) -> None:
    """A plain message runs no generator; the server is told."""
    notes = count(server, False)
    told: list[Exception] = []
    server.on_error(told.append)
    peer.put([MESSAGE, "count", 3])
    check_rest(peer)

    assert notes == []
    assert "stream" in str(told[0])


def test_closing_the_server_closes_its_generators(threaded: bool) -> None:
    """``finally`` of each runs before ``close`` is through."""
    with start_threaded_server((HOST, 0)) as server:
        notes = count(server, threaded)
        with Packed.call_at(server.addr) as peer:
            peer.agree()
            ask(peer, 1, "count", 1000)
            for _ in range(WINDOW):
                peer.next()
            closing = threading.Thread(target=server.close)
            closing.start()
            while peer.next()[0] != 35:
                pass
        closing.join(PATIENCE)
        assert not closing.is_alive()
        eventually(lambda: "closed" in notes, "it is closed")


def test_packed_items_are_what_they_were(
    server: ThreadedHiSockServer, peer: Packed, threaded: bool
) -> None:
    """Content of every kind, one item each."""
    items = [None, True, 1, 1.5, "x", b"\x00", [1, [2]], {"a": {"b": b""}}, 2**64 - 1]
    server.on("all", threaded=threaded)(_yields(items))
    ask(peer, 1, "all")

    assert [peer.next()[2] for _ in items] == items
    assert peer.next() == [END, 1]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(items)) == items


def _yields(items: list[Any]) -> Any:
    def handler(client: Any, message: Any) -> Iterator[Any]:
        yield from items

    return handler
