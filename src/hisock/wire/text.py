"""The arrays of the compact wire as JSON: what a WebSocket of text messages carries.

Pure. JSON has no bytes and no integers that JavaScript could not count: inside content
these are objects with the one key ``"$bytes"`` or ``"$int"``, see ``docs/wire.md``.
"""

from __future__ import annotations

__all__ = ("TextWriter", "from_text", "to_text")

import json
from base64 import b64decode, b64encode
from math import isfinite
from typing import Any, Final, TypeVar

import msgspec

from hisock.errors import NotSendable, RemoteProtocolError
from hisock.wire import compact
from hisock.wire.compact import HEADER_LEN, Encoded
from hisock.wire.frames import PackedFrame

T = TypeVar("T")

#: The largest integer of which JavaScript still knows the next one.
_SAFE: Final = 2**53 - 1
#: Digits of any integer that MessagePack has.
_DIGITS: Final = 20
#: Where the content stands in an array, by its kind: Message, Request, Reply, Failure
#: and Item.
_CONTENT: Final = {1: 2, 2: 3, 3: 2, 4: 4, 5: 2}

_dump: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode


# --- reading ----------------------------------------------------------------------


def from_text(text: str) -> bytes:
    """One array that a peer wrote as JSON, as it would be on the compact wire.

    Raises:
        RemoteProtocolError: It is none, or says what MessagePack cannot.
    """
    try:
        value = json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_object,
        )
        if not isinstance(value, list):
            raise ValueError("it is no array")
        return compact.pack(value)
    except (ValueError, OverflowError, RecursionError, NotSendable) as error:
        text = f"a message is not JSON of hisock: {error!s:.100}"
        raise RemoteProtocolError(text) from error


def _object(pairs: list[tuple[str, Any]]) -> Any:
    if len(pairs) == 1:
        key, value = pairs[0]
        if key == "$bytes":
            return b64decode(_escaped(value), validate=True)
        if key == "$int":
            return _integer(_escaped(value))
    fields = {key[1:] if key.startswith("$$") else key: value for key, value in pairs}
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _escaped(value: object) -> str:
    if not isinstance(value, str) or not value.isascii():
        raise ValueError("$bytes and $int have text")
    return value


def _integer(digits: str) -> int:
    number = digits.removeprefix("-")
    if not (number.isdecimal() and len(number) <= _DIGITS):
        raise ValueError("$int is a whole number")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError("a number is too large")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# --- writing ----------------------------------------------------------------------

#: What was written last, and how: one broadcast to many is written once.
_last: tuple[bytes, str] = (b"", "")


def to_text(body: bytes) -> str:
    """One array of the compact wire as JSON.

    Raises:
        NotSendable: JSON cannot say it.
    """
    global _last
    known, text = _last
    if known == body:
        return text
    try:
        value = msgspec.msgpack.decode(body)
        at = _CONTENT.get(value[0])
        if at is not None and at < len(value):
            value[at] = _plain(value[at])
        text = _dump(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSendable(f"this cannot be said in text mode: {error}") from error
    _last = body, text
    return text


def _plain(value: Any) -> Any:
    """Content as JSON has it."""
    match value:
        case None | bool() | str() | float():
            return value
        case int():
            return value if -_SAFE <= value <= _SAFE else {"$int": str(value)}
        case bytes():
            return {"$bytes": b64encode(value).decode()}
        case list():
            return [_plain(item) for item in value]
        case dict():
            fields = {_key(key): _plain(item) for key, item in value.items()}
            if len(fields) != len(value):
                raise ValueError("two keys are the same as text")
            return fields
    return msgspec.to_builtins(value)  # a time, as RFC 3339 has it


def _key(key: object) -> str:
    if isinstance(key, str):
        return f"${key}" if key.startswith("$") else key
    if isinstance(key, bool) or not isinstance(key, int | float):
        raise TypeError(f"JSON has no key like {key!r:.40}")
    return str(key)


class TextWriter(compact.Writer):
    """Writes for peers in text mode, and refuses what JSON cannot say; what it writes
    is compact, and becomes text where it leaves."""

    __slots__ = ()

    def message(
        self, command: str | None, content: Any, ttl: int | None = None
    ) -> Encoded:
        """As on the compact wire."""
        return _checked(super().message(command, content, ttl))

    def control(self, frame: PackedFrame) -> bytes:
        """As on the compact wire."""
        return _checked(super().control(frame))

    def _in_parts(self, start: bytes, content: bytes, end: bytes) -> Encoded:
        parts = super()._in_parts(start, content, end)
        return parts if isinstance(parts, bytes) else b"".join(parts)

    def _framed(self, frame: tuple[Any, ...], content: Any) -> bytes:
        return _checked(super()._framed(frame, content))


def _checked(frame: T) -> T:
    assert isinstance(frame, bytes)  # nothing is in parts here
    to_text(frame[HEADER_LEN:])
    return frame
