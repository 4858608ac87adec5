"""What a user may send, as bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    ids=repr,
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
        ({1, 2}, "cannot send set; content is"),
        (1j, "cannot send complex"),
        ("a\ud800", "cannot send this text as UTF-8: surrogates not allowed at 1"),
        ([b"bytes"], "cannot send this list as JSON: .*bytes"),
        ({(1, 2): 3}, "cannot send this dict as JSON: keys must be"),
        (ring(), "cannot send this list as JSON: Circular"),
        (deep(100_000), "cannot send this list as JSON: .*recursion"),
        ([10**5000], "cannot send this list as JSON: .*digits"),
    ],
    ids=range(9),
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
    ids=repr,
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
