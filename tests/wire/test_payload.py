"""What a user may send, as bytes."""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spelled import spelled

from hisock.errors import InvalidName, NotSendable, ReservedCommand
from hisock.wire.payload import as_text, check_content, check_name, prefix_of

MIB = 1024 * 1024


def deep(depth: int) -> list[Any]:
    """Lists in lists."""
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def ring() -> list[Any]:
    """A list that contains itself."""
    made: list[Any] = []
    made.append(made)
    return made


@dataclass
class Point:
    """What is richer than JSON."""

    x: Any
    name: str = "a"


class Move(msgspec.Struct):
    """What msgspec knows."""

    to: dict[int, Point]
    raw: bytes = b""


class Color(enum.Enum):
    """An enum of text."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum of numbers that are numbers."""

    HIGH = 3


class Mixed(int, enum.Enum):
    """The same, whose ``str()`` is its name."""

    HIGH = 3


class Word(str, enum.Enum):  # noqa: UP042  # not the same as StrEnum
    """An enum of text that is text."""

    YES = "yes"


class Odd(enum.Enum):
    """An enum of what cannot be sent."""

    NESTED = object()


class Broken(dict[str, int]):
    """A dictionary that cannot be read."""

    def items(self) -> Any:
        """Fail."""
        raise KeyError("no items")


def released() -> memoryview:
    """A view of nothing."""
    view = memoryview(b"ab")
    view.release()
    return view


AT: Final = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
ID: Final = UUID(int=7)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (Color.RED, b"red"),
        (Level.HIGH, b"3"),
        (Mixed.HIGH, b"3"),
        (Word.YES, b"yes"),
        (AT, b"2020-01-02T03:04:05Z"),
        (AT.date(), b"2020-01-02"),
        (time_of_day(3, 4), b"03:04:00"),
        (timedelta(seconds=90), b"PT90S"),
        (ID, b"00000000-0000-0000-0000-000000000007"),
        (Decimal("1.10"), b"1.10"),
    ],
    ids=spelled,
)
def test_what_is_one_word_is_its_plain_text(content: Any, expected: bytes) -> None:
    """Dates, ids, exact numbers and enums are written without quotes."""
    assert expected == as_text(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (Point(1), b'{"x": 1, "name": "a"}'),
        (
            Move({1: Point(2)}, b"hi"),
            b'{"to": {"1": {"x": 2, "name": "a"}}, "raw": "aGk="}',
        ),
        ([Point("\xe9")], b'[{"x": "\\u00e9", "name": "a"}]'),
        (
            {"at": AT, "id": [ID]},
            b'{"at": "2020-01-02T03:04:05Z", "id": ["%b"]}' % str(ID).encode(),
        ),
        (
            [Decimal("1.10"), Color.RED, Level.HIGH, Mixed.HIGH],
            b'["1.10", "red", 3, 3]',
        ),
        ({1}, b"[1]"),
        (frozenset({"a"}), b'["a"]'),
        ({"a": {2}}, b'{"a": [2]}'),
        ({1: 2, 1.5: 3}, b'{"1": 2, "1.5": 3}'),
        ({Word.YES: Word.YES}, b'{"yes": "yes"}'),
        ([float("inf"), 10**30], b"[Infinity, 1000000000000000000000000000000]"),
        (Point(float("nan")), b'{"x": NaN, "name": "a"}'),
    ],
    ids=range(12),
)
def test_what_is_richer_is_json(content: Any, expected: bytes) -> None:
    """Classes and what is inside containers are JSON, spaced as Python spaces it."""
    assert expected == as_text(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        ("né", "né".encode()),
        ("", b""),
        (None, b""),
        (5, b"5"),
        (-2.5, b"-2.5"),
        (float("inf"), b"inf"),
        (True, b"true"),
        (False, b"false"),
        ([1, "a", None], b'[1, "a", null]'),
        ((1, 2), b"[1, 2]"),
        ({"a": [True]}, b'{"a": [true]}'),
    ],
    ids=spelled,
)
def test_content_is_written_as_1_1_did(content: Any, expected: bytes) -> None:
    """Bytes as they are, text as UTF-8, numbers by str(), containers as JSON."""
    assert expected == as_text(content)


def test_bytes_are_not_copied() -> None:
    """Bytes are sent as they are, without a copy."""
    content = b"x" * 100

    assert as_text(content) is content


def test_a_kind_of_bytes_is_sent_as_bytes() -> None:
    """What a program made of bytes leaves as nothing but bytes."""

    class Packet(bytes):
        pass

    assert type(as_text(Packet(b"ab"))) is bytes
    assert as_text(Packet(b"ab")) == b"ab"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (object(), "cannot send object; content is bytes, str, int,"),
        ({b"bytes"}, "cannot send this set as JSON: .*bytes"),
        (1j, "cannot send complex"),
        ("a\ud800", "cannot send this text as UTF-8: surrogates not allowed at 1"),
        ([b"bytes"], "cannot send this list as JSON: .*bytes"),
        ({(1, 2): 3}, "cannot send this dict as JSON: keys must be"),
        (ring(), "cannot send this list as JSON: Circular"),
        (deep(100_000), "cannot send this list as JSON: .*recursion"),
        ([10**5000], "cannot send this list as JSON: .*digits"),
        ([object()], "cannot send this list as JSON: .*object"),
        (Point, "cannot send type; content is"),
        (
            Point(object()),
            r"cannot send Point; content is .*\(Encoding objects of type",
        ),
        (Point(Point(10**5000)), "cannot send this dict as JSON: .*digits"),
        ([Point({(1, 2): 3})], "cannot send this list as JSON: .*key"),
        ({UUID(int=1): 1}, "cannot send this dict as JSON: keys must be"),
        (released(), "cannot send these bytes: .*released"),
        (Odd.NESTED, "cannot send object; content is"),
        (Broken(a=1), "cannot send this Broken as JSON: .*no items"),
        (msgspec.Raw(b"1"), "cannot send Raw"),
    ],
    ids=range(19),
)
def test_what_has_no_text_form_is_refused(content: Any, told: str) -> None:
    """Content that cannot be sent is refused, and the text says why."""
    with pytest.raises(NotSendable, match=told):
        as_text(content)


def test_a_number_of_many_digits_is_refused() -> None:
    """Python writes no number of over 4,300 digits; that is an error of ours too."""
    with pytest.raises(NotSendable):
        as_text(10**5000)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text("aé\n ") | st.floats(0, 1),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("ab$"), inner),
        max_leaves=8,
    ).filter(lambda value: isinstance(value, list | dict))
)
def test_containers_come_back_from_json(content: Any) -> None:
    """What was sent as a list or dictionary is read back equal."""
    assert content == json.loads(as_text(content))


@pytest.mark.parametrize(
    ("command", "prefix"),
    [
        ("move", b"move "),
        ("two words", b"two words "),
        ("né", "né ".encode()),
        ("$5", b"$5 "),
        ("5$", b"5$ "),
        ("$$", b"$$ "),
        ("$\n$", b"$\n$ "),
    ],
)
def test_a_command_stands_before_a_space(command: str, prefix: bytes) -> None:
    """A command is followed by one space; a single ``$`` is nobody's business."""
    assert prefix == prefix_of(command)


@pytest.mark.parametrize("wrong", ["", None, b"move", 5, ["move"]])
def test_a_command_is_text(wrong: Any) -> None:
    """What is no text, or empty, is no command."""
    with pytest.raises(ReservedCommand, match="a command is text, and not empty"):
        prefix_of(wrong)


@pytest.mark.parametrize("wrong", ["$MOVE$", "$a$", "x $MOVE$", "$CLTHELLO$ {}"])
def test_a_command_has_not_the_reserved_form(wrong: str) -> None:
    """``$command$`` is hisock's own; the text says what to leave out."""
    with pytest.raises(ReservedCommand, match=r"form \$command\$.*leave out the \$"):
        prefix_of(wrong)


def test_a_command_can_be_written_as_utf_8() -> None:
    """A lone surrogate is no text that could be sent."""
    with pytest.raises(NotSendable, match="UTF-8"):
        prefix_of("\ud800")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"$5", b"$a$", b"$A$", b"x$AB$", b"$A B$", b"$\n\n$"]
)
def test_raw_content_is_free(content: bytes) -> None:
    """Raw content is anything that is no word of hisock's own."""
    assert content is check_content(content)


@pytest.mark.parametrize(
    "content",
    [
        b"$CHNAME$",
        b"$CHNAME$ x",
        b"$CLTHELLO$ {}",
        b"$USRCLOSE$",
        b"$DH_NUMS$",
        b"$" + b"A" * 32 + b"$",
    ],
)
def test_raw_content_is_no_word_of_ours(content: bytes) -> None:
    """Raw content that a peer would obey is refused before it is sent."""
    with pytest.raises(ReservedCommand, match="raw content must not begin like"):
        check_content(content)


@pytest.mark.parametrize(
    "name",
    [
        *(None, "", "Ada", "a" * 255, "é" * 127, "👩\u200d🚀", "e\u0301", "é", "a b"),
        *("\u202e", "\xa0", "\ue000"),
    ],
)
def test_a_name_is_any_printable_text(name: str | None) -> None:
    """A name is kept as it is: no case, no form of é, no space is changed (F50)."""
    assert name == check_name(name, 255)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (5, "a name or group is text or None, not 5"),
        (["a"], "a name or group is text or None, not \\['a'\\]"),
        ({}, "a name or group is text or None"),
        (True, "a name or group is text or None"),
        (b"Ada", "a name or group is text or None"),
        ("a\n", "a name or group has no control characters: 'a\\\\n'"),
        ("\x00", "no control characters"),
        ("\x1b[31m", "no control characters"),
        ("a\r\nb", "no control characters"),
        ("\x7f", "no control characters"),
        ("\x85", "no control characters"),
        ("\x9f", "no control characters"),
        ("\ud800", "no control characters"),
        ("x\udfff", "no control characters"),
        ("a" * 256, "a name or group has at most 255 bytes"),
        ("é" * 128, "a name or group has at most 255 bytes"),
    ],
    ids=spelled,
)
def test_what_is_no_name_is_refused(name: object, told: str) -> None:
    """A name that would break a log or a peer is refused, and the text says why."""
    with pytest.raises(InvalidName, match=told):
        check_name(name, 255)


def test_a_name_of_any_length() -> None:
    """0 switches the limit off."""
    assert check_name("a" * 1000, 0) == "a" * 1000


@given(st.text())
def test_a_name_that_passes_can_be_sent(name: str) -> None:
    """Whatever passes is UTF-8, and has nothing that moves a cursor."""
    try:
        checked = check_name(name, 255)
    except InvalidName:
        return
    assert checked is not None
    assert len(checked.encode()) <= 255
    assert not set(checked) & {chr(code) for code in [*range(32), *range(127, 160)]}


def test_a_name_of_a_mebibyte_is_refused_in_no_time() -> None:
    """A name far over the limit is refused before its letters are looked at."""
    name = "\u202e" * MIB
    began = time.perf_counter()

    with pytest.raises(InvalidName):
        check_name(name, 255)

    assert time.perf_counter() - began < 0.05


@pytest.mark.parametrize(
    "call",
    [
        lambda: prefix_of("$" + "a" * MIB),
        lambda: prefix_of("$\n" * (MIB // 2)),
        lambda: prefix_of("$$" + "\n$$" * (MIB // 3)),
        lambda: check_content(b"$" + b"A" * MIB),
        lambda: check_content(b"$" * MIB),
        lambda: check_name("a" * MIB, 0),
    ],
)
def test_a_mebibyte_is_checked_in_no_time(call: Callable[[], object]) -> None:
    """Nothing takes longer than linear time, whatever the letters are."""
    began = time.perf_counter()

    call()

    assert time.perf_counter() - began < 0.05
