"""Typed content: what arrives is what was sent, or what the handler asks for."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from hisock.errors import ConversionError, NotSendable, RemoteError

from . import Net, Record, eventually
from .ways import Way


@dataclass
class Point:
    """Content of the user's own."""

    x: int
    y: float = 0.0


class Card(msgspec.Struct):
    """The same, faster."""

    suit: str
    rank: int


@dataclass
class Hand:
    """Both of them inside another."""

    cards: list[Card]
    at: Point | None = None
    seen: dict[str, list[int]] = field(default_factory=dict)


class Colour(enum.Enum):
    """One of a few words."""

    RED = "red"
    BLUE = "blue"


NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, 250, tzinfo=datetime.UTC)
NUMBER = uuid.UUID("12345678-1234-5678-1234-567812345678")
HAND = Hand([Card("hearts", 7), Card("spades", 1)], Point(1, 2.5), {"ann": [1, 2]})

#: A hint, and what a handler with it gets just as it was sent.
TYPED: list[tuple[Any, Any]] = [
    (bytes, b"\x00\xff raw"),
    (str, "grüße"),
    (int, -(2**63)),
    (int, 2**64 - 1),
    (float, 2.5),
    (bool, True),
    (bool, False),
    (None, None),
    (list, [1, [2.5, "x"], None, True]),
    (list[int], [1, 2, 3]),
    (tuple[int, str], (1, "a")),
    (dict, {"a": [1], "ü": None}),
    (dict[str, list[int]], {"a": [1, 2]}),
    (dict[int, str], {1: "one", 2: "two"}),
    (set[int], {1, 2, 3}),
    (Point, Point(1, 2.5)),
    (Card, Card("hearts", 7)),
    (Hand, HAND),
    (list[Point], [Point(1), Point(2, 0.5)]),
    (dict[str, Card], {"top": Card("clubs", 2)}),
    (Card | None, Card("hearts", 7)),
    (int | None, 5),
    (datetime.datetime, NOON),
    (datetime.date, NOON.date()),
    (uuid.UUID, NUMBER),
    (Colour, Colour.BLUE),
    (Decimal, Decimal("1.10")),
]

#: What was sent, and what comes where nobody asks for a type: on our own wire.
UNTYPED: list[tuple[Any, Any]] = [
    (b"\x00\xff raw", b"\x00\xff raw"),
    (bytearray(b"array"), b"array"),
    (memoryview(b"view"), b"view"),
    ("grüße", "grüße"),
    (5, 5),
    (2**64 - 1, 2**64 - 1),
    (2.5, 2.5),
    (True, True),
    (None, None),
    ([1, [2.5, "x"], None], [1, [2.5, "x"], None]),
    ((1, "a"), [1, "a"]),
    ({"a": [1], "b": None}, {"a": [1], "b": None}),
    ({1: "one"}, {1: "one"}),
    (Point(1, 2.5), {"x": 1, "y": 2.5}),
    (Card("hearts", 7), {"suit": "hearts", "rank": 7}),
    (HAND, msgspec.to_builtins(HAND)),
    (NOON, NOON),
    (NUMBER, str(NUMBER)),
    (Colour.BLUE, "blue"),
    (Decimal("1.10"), "1.10"),
]


def _hinted(hint: Any, what: Callable[..., Any]) -> Callable[[Any], Any]:
    def handler(message: Any) -> Any:
        return what(message)

    handler.__annotations__["message"] = hint
    return handler


def test_a_typed_handler_gets_what_was_sent(way: Way) -> None:
    """Of the type of its hint, on both wires, whatever there is inside."""
    got = Record()
    for index, (hint, _) in enumerate(TYPED):
        way.on(f"it {index}")(_hinted(hint, got))
    way.turn()
    for index, (hint, sent) in enumerate(TYPED):
        if not way.net.is_compact and hint is None:
            continue  # no hint at all, so it is the empty text
        way.send(f"it {index}", sent)
        received = got.next()
        assert (type(received), received) == (type(sent), sent)


def test_an_untyped_handler_gets_it_as_sent(way: Way) -> None:
    """On our own wire what MessagePack makes of it, on that of 1.1 its text."""
    got = Record()
    way.on("it")(lambda message: got(message))
    way.turn()
    for sent, expected in UNTYPED:
        way.send("it", sent)
        received = got.next()
        if not way.net.is_compact:
            expected = way.net.as_sent(sent)
        assert (type(received), received) == (type(expected), expected)


def test_a_call_carries_types_both_ways(asking: Way) -> None:
    """The handler gets its hint's type, the caller that of ``type=``."""
    got = Record()

    def echo(message: Any) -> Any:
        got(message)
        return message

    for index, (hint, _) in enumerate(TYPED):
        asking.on(f"it {index}")(_hinted(hint, echo))
    asking.turn()
    for index, (hint, sent) in enumerate(TYPED):
        kind = type(None) if hint is None else hint
        reply = asking.call(f"it {index}", sent, type=kind)
        assert (type(reply), reply) == (type(sent), sent)
        assert got.next() == sent


def test_a_call_without_a_type_gets_the_reply_as_sent(asking: Way) -> None:
    """As an untyped handler would."""
    replies = iter([sent for sent, _ in UNTYPED])
    asking.on("next")(lambda message: next(replies))
    asking.turn()
    for _, expected in UNTYPED:
        reply = asking.call("next")
        assert (type(reply), reply) == (type(expected), expected)


@pytest.mark.parametrize(
    ("hint", "sent", "expected"),
    [
        (int, b"5", 5),
        (int, "5", 5),
        (float, b"2.5", 2.5),
        (float, 5, 5.0),
        (str, b"text", "text"),
        (str, 5, "5"),
        (bytes, "text", b"text"),
        (list[int], b"[1, 2]", [1, 2]),
        (dict, "{}", {}),
        (Point, b'{"x": 1}', Point(1)),
        (Point, {"x": 1, "y": 2}, Point(1, 2.0)),
    ],
)
def test_text_meets_another_hint(
    hand: Net, hint: Any, sent: Any, expected: Any
) -> None:
    """As in 1.1: ``client.send("n", b"5")`` reaches ``n: int``."""
    for up in (True, False):
        way, got = Way(hand, up=up), Record()
        way.on("n")(_hinted(hint, got))
        way.turn()
        way.send("n", sent)
        received = got.next()
        assert (type(received), received) == (type(expected), expected)


WRONG: list[tuple[Any, Any]] = [
    (int, "five"),
    (int, [5]),
    (list[int], [1, "two"]),
    (Point, {"y": 1.0}),
    (Point, {"x": "one"}),
    (Colour, "green"),
    (tuple[int, str], [1]),
]


def test_a_call_that_does_not_fit_is_told(asking: Way) -> None:
    """The caller hears ``conversion``, ``on_error`` sees it, and the next is served."""
    got = Record()
    for index, (hint, _) in enumerate(WRONG):
        asking.on(f"it {index}")(_hinted(hint, got))
    asking.on("good")(_hinted(int, lambda message: message))
    asking.turn()
    for index, (_, sent) in enumerate(WRONG):
        with pytest.raises(RemoteError) as caught:
            asking.call(f"it {index}", sent)
        assert caught.value.code == "conversion"
        assert isinstance(asking.next_error(), ConversionError)
    for index, report in enumerate(asking.reports):
        assert report.command == f"it {index}"
        assert report.where.startswith(("test_typed.py:", "ways.py:"))
        assert (report.client is None) is not asking.up
    assert asking.call("good", 5) == 5
    assert not len(got)


def test_a_message_that_does_not_fit_costs_only_itself(way: Way) -> None:
    """``on_error`` sees it with the path of what was wrong; the next is handled."""
    got = Record()
    way.on("it")(_hinted(list[Point], got))
    way.turn()
    way.send("it", [{"x": 1}, {"x": "one"}])
    way.send("it", [{"x": 2}])
    assert got.next() == [Point(2)]
    error = way.next_error()
    assert isinstance(error, ConversionError)
    assert "$[1].x" in str(error)


def test_a_reply_that_does_not_fit_is_the_callers(asking: Way) -> None:
    """``type=`` raises at the caller; who answered never knows."""
    asking.on("it")(lambda message: "five")
    asking.turn()
    with pytest.raises(ConversionError):
        asking.call("it", type=int)
    assert asking.call("it", type=str) == "five"
    assert not len(asking.errors)


class _Odd:
    """Nothing that can be sent."""


@pytest.mark.parametrize("content", [_Odd(), 2**64, -(2**63) - 1, {1, _Odd()}])
def test_what_cannot_be_sent_is_refused_at_send(way: Way, content: Any) -> None:
    """With nothing sent; and the connection goes on."""
    got = Record()
    way.on("it")(lambda message: got(message))
    way.turn()
    eventually(lambda: way.client.wire)
    if not way.net.is_compact and isinstance(content, int):
        way.send("it", content)  # as text it has no bounds
        assert got.next() == str(content).encode()
    else:
        with pytest.raises(NotSendable):
            way.send("it", content)
    way.send("it", b"x")
    assert got.next() == b"x"


def test_a_reply_that_cannot_be_sent_is_told(asking: Way) -> None:
    """The caller hears ``not_sendable``, ``on_error`` sees it."""
    asking.on("it")(lambda message: _Odd())
    asking.turn()
    with pytest.raises(RemoteError) as caught:
        asking.call("it")
    assert caught.value.code == "not_sendable"
    assert isinstance(asking.next_error(), NotSendable)
