"""From what was sent to what the handler's hint asks for."""

from __future__ import annotations

import enum
import gc
import math
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, NamedTuple, Optional, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spelled import spelled

from hisock.errors import ConversionError, RemoteProtocolError
from hisock.handlers.cast import Cast, cast_for, castable, unpack
from hisock.types import ClientInfo, Sendable
from hisock.wire.payload import as_text

MIB = 1024 * 1024


@dataclass
class Point:
    """A dataclass."""

    x: int
    name: str = "a"


class Move(msgspec.Struct):
    """A Struct with all that needs care: keys that are no text, and bytes."""

    to: dict[int, list[Point]]
    raw: bytes = b""


class Tree(msgspec.Struct):
    """A type that contains itself."""

    children: list[Tree] = []


class Options(TypedDict):
    """A dictionary with known keys."""

    deep: bool


class Pair(NamedTuple):
    """A tuple with names."""

    left: int
    right: str


class Color(enum.Enum):
    """Words and one that looks like a number."""

    RED = "red"
    ONE = "1"


class Level(enum.IntEnum):
    """Numbers."""

    HIGH = 3


@dataclass
class Picky:
    """Raises what no conversion raises."""

    x: int

    def __post_init__(self) -> None:
        """Refuse."""
        if self.x > 4:
            raise LookupError("x is over 4")


@dataclass
class Holder:
    """A dataclass of what nothing converts to."""

    client: ClientInfo


@dataclass
class Lost:
    """A dataclass of what cannot be found."""

    x: Nowhere  # type: ignore[name-defined]  # noqa: F821


def to(hint: Any) -> Cast:
    """The cast for a hint that has one."""
    cast = cast_for(hint)
    assert cast is not None
    return cast


@pytest.mark.parametrize("hint", [None, Any, object, Sendable])
def test_no_hint_leaves_content_as_sent(hint: Any) -> None:
    """Without a hint, or with one that says nothing, bytes stay bytes."""
    assert cast_for(hint) is None


@pytest.mark.parametrize(
    ("hint", "content", "expected"),
    [
        (bytes, b"\xff", b"\xff"),
        (bytes, "né", "né".encode()),
        (bytes, 5, b"5"),
        (str, "né".encode(), "né"),
        (str, "né", "né"),
        (str, b"", ""),
        (str, 5, "5"),
        (int, b"42", 42),
        (int, b" -7 ", -7),
        (int, 7.9, 7),
        (float, b"2.5", 2.5),
        (float, b"-1e3", -1000.0),
        (float, b"inf", math.inf),
        (list, b'[1, "a", null]', [1, "a", None]),
        (list, "[]", []),
        (list, [1], [1]),
        (list, (1, 2), [1, 2]),
        (dict, b'{"a": {"b": 1}}', {"a": {"b": 1}}),
        (dict, {"a": 1}, {"a": 1}),
    ],
)
def test_content_becomes_what_was_asked_for(
    hint: Any, content: Any, expected: Any
) -> None:
    """Each hint of 1.1 converts as it did there."""
    made = to(hint)(content)

    assert (expected, type(expected)) == (made, type(made))


@pytest.mark.parametrize(
    ("hint", "content", "told"),
    [
        (int, b"abc", "expected int, got b'abc'"),
        (int, b"", "expected int, got b''"),
        (int, b"2.5", "expected int, got b'2.5'"),
        (int, b"9" * 5000, "expected int, got b'9"),
        (int, None, "expected int, got None"),
        (int, math.inf, "expected int, got inf"),
        (float, b"abc", "expected float, got b'abc'"),
        (float, [1], "expected float, got [1]"),
        (float, 10**400, "expected float, got 1000"),
        (str, b"a\xff", "expected str, got b'a\\xff' (invalid start byte at byte 1)"),
        (list, b"{}", "expected list, got b'{}' (it is a dict)"),
        (list, 5, "expected list, got 5 (it is a int)"),
        (list, b"[1", "expected list, got b'[1' (as JSON: "),
        (list, b"\xff", "expected list, got b'\\xff' (as JSON: "),
        (list, b"[" * 100_000, "expected list, got b'[[["),
        (dict, b"[]", "expected dict, got b'[]' (it is a list)"),
        (dict, b"", "expected dict, got b'' (as JSON: "),
        (dict, b"null", "expected dict, got b'null' (it is a NoneType)"),
        (dict, b'{"a": %b}' % (b"9" * 5000), 'expected dict, got b\'{"a": 999'),
    ],
    ids=lambda value: spelled(value)[:24],
)
def test_what_cannot_be_converted_is_told(hint: Any, content: Any, told: str) -> None:
    """The text tells what was expected and what came, in one short line (T13)."""
    with pytest.raises(ConversionError) as caught:
        to(hint)(content)

    assert str(caught.value).startswith(told)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("hint", "why"),
    [
        (ClientInfo, "nothing converts to ClientInfo"),
        (list[ClientInfo], "nothing converts to ClientInfo"),
        (Holder, "nothing converts to ClientInfo"),
        (complex, "nothing converts to complex"),
        ("int", "Type ''int'' is not supported"),
        (5, "Type '5' is not supported"),
        (Point | Move, "Type unions may not contain more than one dict-like type"),
        (str | bytes, "Type unions may not contain more than one str-like type"),
        (Lost, "name 'Nowhere' is not defined"),
        (msgspec.Raw, "nothing converts to RawType"),
        (msgspec.msgpack.Ext, "nothing converts to ExtType"),
    ],
    ids=spelled,
)
def test_a_hint_that_nothing_converts_to(hint: Any, why: str) -> None:
    """Other hints are refused; the caller is told which part, and why."""
    with pytest.raises(KeyError) as caught:
        cast_for(hint)

    assert caught.value.args[0].startswith(why)


def test_the_hints_that_are_understood() -> None:
    """For error texts: the hints by name, those of 1.1 first."""
    assert castable().startswith("bytes, str, int, float, list, dict, bool, tuple,")
    assert "dataclasses, msgspec.Struct" in castable()


AT: Final = datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
ID: Final = UUID(int=7)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (bytes, b"\xff"),
        (str, "n\xe9"),
        (int, -5),
        (float, 2.5),
        (float, math.inf),
        (list, [1, "a", None]),
        (dict, {"a": [1]}),
        (bool, True),
        (type(None), None),
        (tuple, (1, "a")),
        (set, {1, 2}),
        (frozenset[int], frozenset({1})),
        (bytearray, bytearray(b"\xff")),
        (list[int], [1, 2]),
        (list[float], [math.inf, 1e-5]),
        (list[object], [1, "a", None]),
        (tuple[int, str], (1, "a")),
        (dict[str, int], {"a": 1}),
        (dict[int, Point], {5: Point(1)}),
        (dict[float, int], {1.5: 1}),
        (int | None, None),
        (int | None, 5),
        (Optional[float], math.inf),  # noqa: UP045
        (str | None, "5"),
        (Annotated[str | None, msgspec.Meta(title="a")], "5"),
        (bytes | None, b"\xff"),
        (object | None, b"\xff"),
        (int | list[int], [1]),
        (Annotated[int, msgspec.Meta(ge=0)], 5),
        (Point, Point(1, "b")),
        (Point | None, Point(1, "b")),
        (list[Point], [Point(1), Point(2, "\xe9")]),
        (Move, Move({1: [Point(2)]}, b"\xff")),
        (Tree, Tree([Tree(), Tree([Tree()])])),
        (Options, {"deep": True}),
        (Pair, Pair(1, "a")),
        (datetime, AT),
        (datetime | None, AT),
        (date, AT.date()),
        (time_of_day, AT.time()),
        (timedelta, timedelta(1, 2, 3)),
        (UUID, ID),
        (list[UUID | None], [ID, None]),
        (Color, Color.RED),
        (Color, Color.ONE),
        (Level, Level.HIGH),
        (set[Color], {Color.RED}),
        (Decimal, Decimal("1.10")),
        (Decimal, Decimal("0.1234567890123456789012345678901234567890")),
        (list[Decimal], [Decimal("1.10")]),
        (Literal["a", 3], "a"),
        (Literal["a", 3], 3),
    ],
    ids=spelled,
)
def test_a_value_is_the_same_over_every_wire(hint: Any, value: Any) -> None:
    """As text, packed, or as it is: the handler gets what was sent."""
    cast = to(hint)
    packed = msgspec.msgpack.encode(value)

    made = [
        cast.from_text(as_text(value)),
        cast.from_packed(packed),
        cast.from_packed(memoryview(packed)),
        cast.from_packed(msgspec.Raw(packed)),
        cast.from_value(value),
        cast.from_value(unpack(packed)),
    ]

    assert [(value, type(value))] * 6 == [(one, type(one)) for one in made]


@pytest.mark.parametrize(
    ("hint", "sent", "expected"),
    [
        (str, 5, "5"),
        (str, None, ""),
        (str, True, "true"),
        (str, b"n\xc3\xa9", "n\xe9"),
        (str, [1, "a"], '[1, "a"]'),
        (str, AT, "2020-01-02T03:04:05.000006Z"),
        (str | None, 5, "5"),
        (str | None, b"a", "a"),
        (bytes, 2.5, b"2.5"),
        (bytes, "n\xe9", b"n\xc3\xa9"),
        (bytes, {"a": 1}, b'{"a": 1}'),
        (bytes | None, "a", b"a"),
        (bytes | None, 5, b"5"),
        (int, "5", 5),
        (int, b" -5 ", -5),
        (int, True, 1),
        (float, 5, 5.0),
        (float, "5", 5.0),
        (bool, 1, True),
        (bool, "true", True),
        (bool, b"True", True),
        (list, "[1]", [1]),
        (dict, b'{"a": 1}', {"a": 1}),
        (dict, {1: 2}, {1: 2}),
        (list[int], b"[1, 2]", [1, 2]),
        (int | None, "5", 5),
        (int | None, " +5 ", 5),
        (int | None, "", None),
        (int | None, "null", None),
        (float | None, "nan", math.nan),
        (float | None, "1e400", math.inf),
        (Point, '{"x": 1}', Point(1)),
        (dict[int, int], {"1": 2}, {1: 2}),
        (dict[int, Point], {"1": {"x": 1}}, {1: Point(1)}),
        (dict[str, int], {1: 2}, {"1": 2}),
        (datetime, "2020-01-02T03:04:05.000006Z", AT),
        (datetime, b'"2020-01-02T03:04:05.000006Z"', AT),
        (datetime, 1600000000, datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC)),
        (UUID, "0" * 31 + "7", ID),
        (Color, b"red", Color.RED),
        (Color, '"red"', Color.RED),
        (Color, "1", Color.ONE),
        (Level, "3", Level.HIGH),
        (Decimal, 1.5, Decimal("1.5")),
        (Decimal, "1.50", Decimal("1.50")),
        (Literal["a", 3], "3", 3),
        (Literal["5"], 5, "5"),
        (type(None), "", None),
    ],
    ids=spelled,
)
def test_what_does_not_fit_follows_the_rules_of_text(
    hint: Any, sent: Any, expected: Any
) -> None:
    """Text that meets another hint is read as that; what meets text is written."""
    cast = to(hint)

    made = [
        cast.from_packed(msgspec.msgpack.encode(sent)),
        cast.from_value(sent),
        cast(sent),
    ]

    assert [repr(expected)] * 3 == [repr(one) for one in made]


@pytest.mark.parametrize(
    ("hint", "sent", "told"),
    [
        (
            list[Point],
            [{"x": 1}, {"x": 1, "name": 3}],
            "expected list[handlers.test_cast.Point], got [{'x': 1}, {'name': 3, "
            "'x': 1}] (expected str, got int at $[1].name)",
        ),
        (Point, {"x": 1.5}, "expected Point, got {'x': 1.5} (expected int, got float "),
        (Point, {}, "expected Point, got {} (object missing required field x)"),
        (Point, [1], "expected Point, got [1] (expected object, got array)"),
        (Point, None, "expected Point, got None (expected object, got null)"),
        (Point, "{x", "expected Point, got '{x' (JSON is malformed: "),
        (Point, b"\xff", "expected Point, got b'\\xff' (JSON is malformed: "),
        (Point, "[NaN]", "expected Point, got '[NaN]' (expected object, got array)"),
        (list[int], "[1, 2", "expected list[int], got '[1, 2' (input data was trunc"),
        (list[int], ["1"], "expected list[int], got ['1'] (expected int, got str at $"),
        (int | None, "abc", "expected int | None, got 'abc' (JSON is malformed"),
        (
            Annotated[int, msgspec.Meta(ge=0)],
            "-5",
            "expected Annotated[int, msgspec.Meta(ge=0",
        ),
        (Annotated[str, msgspec.Meta(max_length=3)], '"abc"', "expected Annotated[str"),
        (dict[int, int], {"a": 1}, "expected dict[int, int], got {'a': 1} (expected "),
        (type(None), "x", "expected None, got 'x' (JSON is malformed"),
        (datetime, "soon", "expected datetime, got 'soon' (invalid RFC3339 encoded"),
        (Color, "a\n" * 999, "expected Color, got 'a\\na\\na\\n"),
        (str | None, b"\xff", "expected str | None, got b'\\xff' ('utf-8' codec can't"),
        (str, [b"a"], "expected str, got [b'a'] (cannot send this list as JSON: byte"),
        (bytes, [b"a"], "expected bytes, got [b'a'] (cannot send this list as JSON: "),
        # What follows is msgspec's, and differs with its version.
        (set, "[{}]", "expected set, got '[{}]' ("),
        (Picky, {"x": 5}, "expected Picky, got {'x': 5} (x is over 4)"),
        (list[Picky], '[{"x": 6}]', "expected list[handlers.test_cast.Picky], got "),
        (list[int], {n: n for n in range(9)}, "expected list[int], got {0: 0, 1: 1, 2"),
        (int, [{"a": {n: n for n in range(9)}}], "expected int, got [{'a': {0: 0, 1: "),
    ],
    ids=lambda value: spelled(value)[:32],
)
def test_an_error_tells_what_came_and_where(hint: Any, sent: Any, told: str) -> None:
    """What was expected, what came, why, and the path in it, in one short line."""
    cast = to(hint)

    for way, content in (
        (cast.from_packed, msgspec.msgpack.encode(sent)),
        (cast.from_value, sent),
        (cast, sent),
    ):
        with pytest.raises(ConversionError) as caught:
            way(content)

        assert str(caught.value).startswith(told)
        assert len(str(caught.value)) < 300
        assert str(caught.value).isprintable()


def test_what_a_class_of_the_user_raises_is_kept() -> None:
    """A check in a class may raise anything; its traceback is the cause's."""
    with pytest.raises(ConversionError, match="5") as caught:
        to(Picky).from_packed(msgspec.msgpack.encode({"x": 5}))

    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.traceback[-1].name == "from_value"


def test_an_error_keeps_no_content_alive() -> None:
    """Once an error is gone, so is what came: no cycle waits for the collector."""

    class Content(dict[str, int]):
        pass

    cast = to(list[int])
    ways: list[tuple[Any, Any]] = [
        (cast.from_value, Content(x=5)),
        (cast.from_text, memoryview(b"[x]")),
        (cast.from_packed, memoryview(b"\x91\xa1a")),
    ]
    gc.disable()
    try:
        while ways:
            way, content = ways.pop()
            gone = weakref.ref(content)
            with pytest.raises(ConversionError):
                way(content)
            del content
            assert gone() is None
    finally:
        gc.enable()


def test_what_came_is_shown_even_if_it_cannot_be() -> None:
    """A number too long for ``repr()`` is told by its kind; a set by a few of it."""
    with pytest.raises(ConversionError, match=r"^expected str, got a int "):
        to(str)(10**5000)
    with pytest.raises(ConversionError, match=r"^expected int, got \{0, 1, .*\.\.\.\}"):
        to(int)(set(range(100)))


# --- bytes of strangers ----------------------------------------------------------


HINTS: Final[list[Any]] = [
    *(bytes, str, int, float, list, dict, bool, type(None), tuple, set[int]),
    *(list[int], dict[int, Point], dict[str, Any], int | None, str | None, Point, Move),
    *(Tree, Pair, Options, datetime, date, timedelta, UUID, Color, Level, Decimal),
    *(Literal["a", 3], set[Color], list[object], Annotated[int, msgspec.Meta(ge=0)]),
]
CASTS: Final = [to(hint) for hint in HINTS]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9)
    | st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(fold=0)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["x", "name", "to", "1", 1]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from(CASTS), st.binary(max_size=40))
def test_any_bytes_are_refused_in_our_words(cast: Cast, content: bytes) -> None:
    """Whatever the bytes are, only the two errors come out, each short."""
    for way in (cast.from_text, cast.from_packed, cast.from_value):
        told = ""
        try:
            way(content)
        except (ConversionError, RemoteProtocolError) as error:
            told = str(error)
        assert len(told) < 300
        assert told.isprintable()


@given(st.sampled_from(CASTS), values)
def test_any_value_is_converted_or_refused(cast: Cast, value: Any) -> None:
    """Well-formed content has one outcome, packed or decoded: never another error."""
    outcomes = []
    for way, content in (
        (cast.from_packed, msgspec.msgpack.encode(value)),
        (cast.from_value, value),
    ):
        try:
            outcomes.append(repr(way(content)))
        except ConversionError as error:
            outcomes.append(type(error).__name__)

    assert outcomes[0] == outcomes[1]


json_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner | st.none() | st.text("ax1", max_size=3), max_size=4)
        | st.dictionaries(st.sampled_from(["x", "name", "to", "1"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.sampled_from(CASTS), json_values)
def test_a_1_1_peer_is_understood_like_any_other(cast: Cast, value: Any) -> None:
    """What a 1.1 peer can write as JSON converts as if it had come packed."""
    try:
        by_text = cast.from_text(as_text(value))
    except ConversionError:
        return
    if cast.hint is not Decimal:  # exact in text, a float when packed
        assert repr(by_text) == repr(cast.from_packed(msgspec.msgpack.encode(value)))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        b"\x01\x01",
        b"\xa1\xff",
        b"\x81\x80\x01",
        b"\xc7\x01\x05x",
        b"\x91\xc7\x01\x05x",
        b"\xd7\xff" + b"\xff" * 8,
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x91" * MIB,
        b"\x81" * MIB,
        b"\x81\xa1a" * (MIB // 3),
    ],
    ids=lambda packed: repr(packed[:9]),
)
def test_what_is_no_messagepack_is_their_mistake(packed: bytes) -> None:
    """Broken, too deep, or with other extensions: one error, whoever reads it."""
    began = time.perf_counter()

    for way in (unpack, *(cast.from_packed for cast in CASTS)):
        with pytest.raises(RemoteProtocolError, match=r"^content "):
            way(packed)

    assert time.perf_counter() - began < 1


def test_unpacking_leaves_content_as_sent() -> None:
    """Without a hint a value is what it was; a timestamp is a time."""
    value = {"a": [1, 2.5, None, True, b"\xff", "n\xe9", AT], 5: {}}

    assert value == unpack(msgspec.msgpack.encode(value))
    assert unpack(memoryview(b"\x05")) == 5


@pytest.mark.parametrize("depth", [100, 500, 900, 960, 980, 990, 1000, 5000])
def test_depth_alone_breaks_nothing(depth: int) -> None:
    """However deep content is, it is converted or refused."""
    for cast in CASTS:
        for content in (b"[" * depth + b"]" * depth, b"\x91" * depth + b"\x90"):
            for way in (cast.from_text, cast.from_packed):
                with suppress(ConversionError, RemoteProtocolError):
                    way(content)


@pytest.mark.parametrize(
    "content",
    [b"9" * 5000, b"[%b]" % (b"9" * 5000), b"9" * MIB, b"[%b]" % (b"9" * MIB)],
    ids=lambda content: f"{content[:1]!r} {len(content)}",
)
def test_a_number_of_many_digits_costs_nothing(content: bytes) -> None:
    """Python reads long numbers in quadratic time; nobody may ask for that."""
    for cast in CASTS:
        began = time.thread_time()  # of this thread alone, whatever else runs

        with suppress(ConversionError):
            cast.from_text(content)

        assert time.thread_time() - began < 0.1


@pytest.mark.parametrize("hint", [list[int], Point, Color, int | None, datetime, set])
@pytest.mark.parametrize(
    "content",
    [b"[" * MIB, b" " * MIB, b'{"' * (MIB // 2), b"\xff" * MIB, b"a\n" * (MIB // 2)],
    ids=lambda content: repr(content[:3]),
)
def test_a_mebibyte_is_refused_soon(hint: Any, content: bytes) -> None:
    """The richer hints, too, take linear time, whatever the bytes are."""
    cast = to(hint)
    began = time.perf_counter()

    with pytest.raises(ConversionError):
        cast.from_text(content)

    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize(
    ("hint", "content"),
    [
        (int, b"9" * MIB),
        (float, b"9" * MIB + b"x"),
        (str, b"a" * MIB + b"\xff"),
        (list, b"[" * MIB),
        (list, b" " * MIB),
        (dict, b'{"' * (MIB // 2)),
        (dict, b"9" * MIB),
    ],
    ids=lambda value: spelled(value)[:16],
)
def test_a_mebibyte_is_refused_in_no_time(hint: Any, content: bytes) -> None:
    """Nothing takes longer than linear time, whatever the bytes are (T27)."""
    began = time.perf_counter()

    with pytest.raises(ConversionError):
        to(hint)(content)

    assert time.perf_counter() - began < 0.05
