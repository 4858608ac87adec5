"""Text mode: the arrays as JSON, and what JSON cannot say."""

from __future__ import annotations

import datetime
import json
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from hisock.errors import MessageTooLarge, NotSendable, RemoteProtocolError
from hisock.wire.compact import HEADER_LEN
from hisock.wire.frames import Failure
from hisock.wire.text import TextWriter, from_text, to_text

pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode
#: No MessagePack of ours.
EXTENSION: Any = msgspec.Raw(b"\xd4\x05\x00")
UTC = datetime.UTC


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("ä\n", '"ä\\n"'),
        (b"\x00hi", '{"$bytes":"AGhp"}'),
        (2**53 - 1, "9007199254740991"),
        (2**53, '{"$int":"9007199254740992"}'),
        (-(2**63), '{"$int":"-9223372036854775808"}'),
        ([1.5, True, None], "[1.5,true,null]"),
        ({"$bytes": "x"}, '{"$$bytes":"x"}'),
        ({"$$": 1, "a$": 2}, '{"$$$":1,"a$":2}'),
        ({1: "a", 2.5: b""}, '{"1":"a","2.5":{"$bytes":""}}'),
        (
            datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            '"2026-01-02T03:04:05Z"',
        ),
    ],
)
def test_content_as_json(content: Any, text: str) -> None:
    """Bytes and large integers are escaped, in content alone."""
    assert to_text(pack([1, "it", content])) == f'[1,"it",{text}]'
    assert to_text(pack([4, 1, "no", "", content])) == f'[4,1,"no","",{text}]'


def test_only_content_is_escaped() -> None:
    """What a name or a reason is, is no content."""
    assert to_text(pack([36, {"$name": "x"}])) == '[36,{"$name":"x"}]'
    assert to_text(pack([35, 0, "$int", None])) == '[35,0,"$int",null]'


def contents() -> some.SearchStrategy[Any]:
    """What both ways can say."""
    plain = (
        some.none()
        | some.booleans()
        | some.integers(-(2**63), 2**64 - 1)
        | some.floats(allow_nan=False, allow_infinity=False)
        | some.text()
        | some.binary()
    )
    keys = some.text() | some.sampled_from(["$bytes", "$int", "$", "$$", "$$int"])
    return some.recursive(
        plain, lambda inner: some.lists(inner) | some.dictionaries(keys, inner)
    )


@given(contents())
def test_what_is_written_is_read(content: Any) -> None:
    """Whatever it is, its keys like escapes too."""
    body = pack([3, 1, content])
    assert unpack(from_text(to_text(body))) == [3, 1, content]


@pytest.mark.parametrize(
    "content",
    [
        float("nan"),
        float("inf"),
        [{"a": -float("inf")}],
        {None: 1},
        {True: 1},
        {b"a": 1},
        {1: "a", "1": "b"},
        EXTENSION,
    ],
    ids=lambda content: str(content)[:16],
)
def test_what_json_cannot_say(content: Any) -> None:
    """Is refused before it has a number, whichever way it is sent."""
    writer = TextWriter(1 << 20)
    for write in (
        partial(writer.message, "it", content),
        partial(writer.message, "it", content, 5),
        partial(writer.request, 2, "it", content),
        partial(writer.reply, 2, content),
        partial(writer.item, 2, content),
        partial(writer.control, Failure(2, "no", "", msgspec.Raw(pack(content)))),
    ):
        with pytest.raises(NotSendable, match="text mode"):
            write()


def test_the_writer_writes_compact() -> None:
    """Large bytes too, which it does not leave in parts."""
    writer = TextWriter(1 << 20)
    large = b"x" * 100_000
    for content in (b"it", large, [1]):
        frame = writer.message("it", content)
        assert isinstance(frame, bytes)
        assert int.from_bytes(frame[:HEADER_LEN], "big") == len(frame) - HEADER_LEN
        assert unpack(frame[HEADER_LEN:]) == [1, "it", content]
    with pytest.raises(MessageTooLarge):
        writer.message("it", large * 100)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1",
        "{}",
        "3",
        "[NaN]",
        "[Infinity]",
        "[1e999]",
        '[1,"it",{"a":1,"a":2}]',
        '[1,"it",{"$$a":1,"$a":2}]',
        '[1,"it","\\ud800"]',
        '[1,"it",{"$bytes":1}]',
        '[1,"it",{"$bytes":"a"}]',
        '[1,"it",{"$bytes":"YQ==\\n"}]',
        '[1,"it",{"$bytes":"YQ-_"}]',
        '[1,"it",{"$int":"1.0"}]',
        '[1,"it",{"$int":"--1"}]',
        '[1,"it",{"$int":"٣"}]',
        '[1,"it",{"$int":"1_0"}]',
        '[1,"it",{"$int":"18446744073709551616"}]',
        "[1,2,18446744073709551616]",
        f"[1,2,{'9' * 5000}]",
        "[" * 100_000 + "]" * 100_000,
        '[{"a":' * 50_000,
    ],
    ids=lambda text: text[:24],
)
def test_what_is_no_json_of_ours(text: str) -> None:
    """A typed error, whatever it is."""
    with pytest.raises(RemoteProtocolError, match="not JSON of hisock"):
        from_text(text)


@given(some.text() | some.from_regex(r"[\[\]{}\",:$0-9a-z.e-]+"))
def test_any_text(text: str) -> None:
    """Is read or refused, and never more."""
    try:
        body = from_text(text)
    except RemoteProtocolError:
        return
    assert isinstance(json.loads(text), list)
    assert isinstance(unpack(body), list)
