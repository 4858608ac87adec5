"""Streams: a generator answers, item by item, no faster than they are read."""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest

from hisock.errors import (
    CommandError,
    ConversionError,
    RemoteError,
    RequestTimeout,
    SessionLost,
)

from . import Record, eventually
from .ways import Way

#: Items that a producer may be ahead of its reader (``docs/wire.md``).
WINDOW = 64


def _kinds(asking: Way) -> list[str]:
    """The kinds of generators that whoever answers may have."""
    kinds = ["plain", "threaded"]
    return [*kinds, "coroutine"] if asking.answers_coroutines else kinds


def _on(asking: Way, kind: str, command: str, items: Any) -> None:
    """Register a generator of a kind that yields what an iterator does."""

    def plain(message: Any) -> Iterator[Any]:
        yield from items(message)

    async def coroutine(message: Any) -> AsyncIterator[Any]:
        inner = items(message)
        try:
            for item in inner:
                yield item
        finally:
            inner.close()

    handler = coroutine if kind == "coroutine" else plain
    asking.on(command, threaded=kind == "threaded")(handler)


def test_a_generator_answers_a_stream(asking: Way) -> None:
    """Every kind of generator, as many items as it likes, of any type."""

    def count(message: Any) -> Iterator[Any]:
        for number in range(message):
            yield {"number": number}

    for kind in _kinds(asking):
        _on(asking, kind, kind, count)
    asking.turn()
    for kind in _kinds(asking):
        for length in (0, 1, 300):
            items = list(asking.stream(kind, length))
            assert items == [{"number": number} for number in range(length)]


def test_items_are_converted(asking: Way) -> None:
    """To ``type=``; one that does not fit raises, and the stream goes on."""
    _on(asking, "plain", "it", lambda message: iter(message))
    asking.turn()
    assert list(asking.stream("it", ["1", 2, b"3"], type=int)) == [1, 2, 3]
    items = asking.stream("it", [1, "two", 3], type=int)
    assert next(items) == 1
    with pytest.raises(ConversionError):
        next(items)
    assert next(items) == 3


def test_streams_run_beside_each_other_and_beside_calls(asking: Way) -> None:
    """A stream counts as finished once its generator exists."""
    _on(asking, "plain", "count", lambda message: iter(itertools.count(message)))
    asking.on("double")(lambda message: 2 * message)
    asking.turn()
    with asking.stream("count", 0) as low, asking.stream("count", 1000) as high:
        for number in range(200):
            assert next(low) == number
            assert asking.call("double", number) == 2 * number
            assert next(high) == 1000 + number


def _is_over(produced: dict[str, int], kind: str, least: int) -> bool:
    return produced[kind] > least


def test_a_producer_is_never_more_than_the_window_ahead(asking: Way) -> None:
    """A slow reader slows it down; nothing piles up in between."""
    produced: dict[str, int] = {}

    def count(message: Any) -> Iterator[int]:
        for number in itertools.count():
            produced[message] = number + 1
            yield number

    for kind in _kinds(asking):
        _on(asking, kind, kind, count)
    asking.turn()
    for kind in _kinds(asking):
        with asking.stream(kind, kind) as items:
            for taken in range(4 * WINDOW):
                assert produced.get(kind, 0) <= taken + WINDOW
                assert next(items) == taken
            # Credit comes for half a window at a time.
            least = taken + WINDOW // 2
            eventually(partial(_is_over, produced, kind, least))
            assert produced[kind] <= taken + 1 + WINDOW


def test_closing_a_stream_cancels_its_producer(asking: Way) -> None:
    """Its ``finally`` runs, and the next call is served."""
    got = Record()

    def count(message: Any) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            got(message)

    for kind in _kinds(asking):
        _on(asking, kind, kind, count)
    asking.on("rest")(lambda message: "served")
    asking.turn()
    for kind in _kinds(asking):
        items = asking.stream(kind, kind)
        assert [next(items), next(items)] == [0, 1]
        items.close()
        assert got.next() == kind
        items.close()
        assert list(items) == []
        assert asking.call("rest") == "served"
    assert not len(asking.errors)


def test_an_error_in_the_middle_comes_after_what_came_before(asking: Way) -> None:
    """Refused on purpose with code, message and data; else ``handler_failed``."""

    def refuse(message: Any) -> Iterator[int]:
        yield 1
        yield 2
        raise CommandError("enough", "no more", [3])

    def fail(message: Any) -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("secret")

    for kind in _kinds(asking):
        _on(asking, kind, f"refuse {kind}", refuse)
        _on(asking, kind, f"fail {kind}", fail)
    asking.turn()
    for kind in _kinds(asking):
        items = asking.stream(f"refuse {kind}")
        assert [next(items), next(items)] == [1, 2]
        with pytest.raises(RemoteError) as caught:
            next(items)
        error = caught.value
        assert (error.code, error.message, error.data) == ("enough", "no more", [3])
        assert list(items) == []
        items = asking.stream(f"fail {kind}")
        assert next(items) == 1
        with pytest.raises(RemoteError) as caught:
            next(items)
        assert caught.value.code == "handler_failed"
        assert "secret" not in str(caught.value)
        assert isinstance(asking.next_error(), ZeroDivisionError)


def test_an_item_that_cannot_be_sent_ends_the_stream(asking: Way) -> None:
    """After what came before it, and the generator is closed."""
    got = Record()

    def odd(message: Any) -> Iterator[Any]:
        try:
            yield 1
            yield object()
        finally:
            got("closed")

    for kind in _kinds(asking):
        _on(asking, kind, kind, odd)
    asking.turn()
    for kind in _kinds(asking):
        items = asking.stream(kind)
        assert next(items) == 1
        with pytest.raises(RemoteError) as caught:
            next(items)
        assert caught.value.code == "not_sendable"
        assert got.next() == "closed"
        asking.next_error()


def test_items_do_not_wait_for_a_slow_generator(asking: Way) -> None:
    """Each is on its way before the next one is made, or soon after."""
    go_on = threading.Event()

    def wait(message: Any) -> Iterator[int]:
        yield 1
        go_on.wait(5)
        yield 2

    _on(asking, "threaded", "it", wait)
    asking.turn()
    items = asking.stream("it")
    assert next(items) == 1
    go_on.set()
    assert list(items) == [2]


def test_a_stream_gives_up_on_an_item_after_its_timeout(asking: Way) -> None:
    """And cancels its producer."""
    got, go_on = Record(), threading.Event()

    def wait(message: Any) -> Iterator[int]:
        try:
            yield 1
            go_on.wait(5)
            yield 2
            yield from itertools.count()
        finally:
            got("closed")

    _on(asking, "threaded", "it", wait)
    asking.turn()
    items = asking.stream("it", timeout=0.5)
    assert next(items) == 1
    with pytest.raises(RequestTimeout):
        next(items)
    assert list(items) == []
    go_on.set()
    assert got.next() == "closed"


def test_calls_and_streams_are_not_confused(asking: Way) -> None:
    """Each is told to use the other; an unknown command is told, too."""
    _on(asking, "plain", "stream", lambda message: iter([1]))
    asking.on("call")(lambda message: 1)
    asking.turn()
    with pytest.raises(RemoteError, match="stream") as caught:
        asking.call("stream")
    assert caught.value.code == "only_stream"
    with pytest.raises(RemoteError, match="call") as caught:
        next(asking.stream("call"))
    assert caught.value.code == "no_stream"
    with pytest.raises(RemoteError) as caught:
        next(asking.stream("steram"))
    assert caught.value.code == "unknown_command"


@pytest.mark.parametrize("closing", [True, False])
def test_a_stream_ends_with_the_connection(asking: Way, closing: bool) -> None:
    """The reader is told after what came, and the generator is closed."""
    got = Record()

    def count(message: Any) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            got(message)

    for kind in _kinds(asking):
        _on(asking, kind, kind, count)
    asking.turn()
    streams = [asking.stream(kind, kind) for kind in _kinds(asking)]
    for items in streams:
        assert next(items) == 0
    if closing:
        asking.net.end(asking.answerer)
    elif asking.up:
        asking.server.disconnect_client("ann")
    else:
        asking.client.close()
    assert sorted(got.take(len(streams))) == sorted(_kinds(asking))
    for items in streams:
        with pytest.raises(ConnectionError) as caught:
            list(items)
        assert isinstance(caught.value, SessionLost)
