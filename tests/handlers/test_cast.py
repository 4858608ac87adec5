"""From what was sent to what the handler's hint asks for."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from hisock.errors import ConversionError
from hisock.handlers.cast import Cast, cast_for, castable
from hisock.types import ClientInfo

MIB = 1024 * 1024


def to(hint: Any) -> Cast:
    """The cast for a hint that has one."""
    cast = cast_for(hint)
    assert cast is not None
    return cast


@pytest.mark.parametrize("hint", [None, Any, object])
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
    ids=lambda value: repr(value)[:24],
)
def test_what_cannot_be_converted_is_told(hint: Any, content: Any, told: str) -> None:
    """The text tells what was expected and what came, in one short line (T13)."""
    with pytest.raises(ConversionError) as caught:
        to(hint)(content)

    assert str(caught.value).startswith(told)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hint", [set, tuple, bool, ClientInfo, "int", list[int], 5])
def test_a_hint_that_nothing_converts_to(hint: Any) -> None:
    """Other hints are refused; the caller knows which would do."""
    with pytest.raises(KeyError):
        cast_for(hint)


def test_the_hints_that_are_understood() -> None:
    """For error texts: the hints by name."""
    assert castable() == "bytes, str, int, float, list, dict"


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
    ids=lambda value: repr(value)[:16],
)
def test_a_mebibyte_is_refused_in_no_time(hint: Any, content: bytes) -> None:
    """Nothing takes longer than linear time, whatever the bytes are (T27)."""
    began = time.perf_counter()

    with pytest.raises(ConversionError):
        to(hint)(content)

    assert time.perf_counter() - began < 0.05
