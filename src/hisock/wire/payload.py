"""What a user may send, as the bytes of the classic wire."""

from __future__ import annotations

__all__ = ("as_text", "check_content", "check_name", "prefix_of")

import re
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, Final

import msgspec

from hisock.errors import InvalidName, NotSendable, ReservedCommand

# Compiled when first used: an import need not pay for them.
_RESERVED_COMMAND: Final = r"\$.+\$"
_RESERVED_CONTENT: Final = rb"\$[A-Z_]{2,32}\$"


def as_text(content: Any) -> bytes:
    """Write content as text: bytes as they are, text as UTF-8, all else as JSON.

    Numbers are written by ``str()``, ``None`` is empty, lists, tuples, sets,
    dictionaries, dataclasses and Structs are JSON. Dates, times, ``UUID``,
    ``Decimal`` and enums are their plain text, in quotes inside JSON only.

    Raises:
        NotSendable: The content has no text form.
    """
    if type(content) is bytes:  # by far the most usual
        return content
    match content:
        case bytes():
            return bytes(content)
        case Enum():
            return as_text(content.value)
        case str():
            return _utf8(content)
        case None:
            return b""
        case bool() | list() | tuple() | dict() | set() | frozenset():
            return _json(content)
        case int() | float():
            return _number(content)
        case bytearray() | memoryview():
            return _copy(content)
        case _:
            return _rich(content)


def prefix_of(command: str) -> bytes:
    """What stands before the content of a message: the command and a space.

    Raises:
        ReservedCommand: It is no text, empty, or has the form ``$command$``.
    """
    if not isinstance(command, str) or not command:
        raise ReservedCommand(f"a command is text, and not empty: {command!r:.80}")
    if "$" in command and re.search(_RESERVED_COMMAND, command):
        raise ReservedCommand(
            f"{command!r:.80} has the form $command$, which hisock keeps for itself; "
            "leave out the $"
        )
    return _utf8(command) + b" "


def check_content(content: bytes) -> bytes:
    """Raw content, unless a peer would read it as a message of hisock's own.

    Raises:
        ReservedCommand: It begins with a word of the form ``$WORD$``.
    """
    if content[:1] == b"$" and re.match(_RESERVED_CONTENT, content):
        raise ReservedCommand(
            f"raw content must not begin like {content[:34]!r}: words of the form "
            "$WORD$ are hisock's own"
        )
    return content


def check_name(name: object, largest: int) -> str | None:
    """A name or a group, if it is one; ``None`` is none.

    Args:
        name: What should be a name.
        largest: Bytes of UTF-8 it may have; 0 for any number.

    Raises:
        InvalidName: It is no text, too long, or has control characters.
    """
    if name is None:
        return None
    if not isinstance(name, str):
        raise InvalidName(f"a name or group is text or None, not {name!r:.64}")
    if 0 < largest < len(name):  # before a look at each letter
        raise InvalidName(f"a name or group has at most {largest} bytes: {name!r:.64}")
    if not name.isprintable() and any(_is_control(letter) for letter in name):
        raise InvalidName(f"a name or group has no control characters: {name!r:.64}")
    if 0 < largest < len(name.encode()):
        raise InvalidName(f"a name or group has at most {largest} bytes: {name!r:.64}")
    return name


def _is_control(letter: str) -> bool:
    # A lone surrogate is no character at all: it cannot be written as UTF-8.
    return letter < " " or "\x7f" <= letter < "\xa0" or "\ud800" <= letter <= "\udfff"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise NotSendable(
            f"cannot send this text as UTF-8: {error.reason} at {error.start}"
        ) from error


def _number(content: float) -> bytes:
    try:
        return str(content).encode()
    except ValueError as error:
        raise NotSendable(f"cannot send this number: {error}") from error


def _copy(content: bytearray | memoryview) -> bytes:
    try:
        return bytes(content)
    except ValueError as error:  # a released memoryview
        raise NotSendable(f"cannot send these bytes: {error}") from error


def _rich(content: Any) -> bytes:
    try:
        plain = _plain(content)
    except Exception as error:
        raise NotSendable(
            f"cannot send {type(content).__name__}; content is bytes, str, int, "
            "float, bool, None, list, tuple, dict, set, a dataclass, msgspec.Struct, "
            f"Enum, date or time, UUID or Decimal ({error!s:.80})"
        ) from error
    return _utf8(plain) if isinstance(plain, str) else _json(plain)


def _json(content: Any) -> bytes:
    try:
        return _utf8(_encoder()(content))
    except Exception as error:  # a property of the user's may raise anything
        raise NotSendable(
            f"cannot send this {type(content).__name__} as JSON: {error}"
        ) from error


def _plain(value: Any) -> Any:
    """What JSON cannot say, in what it can."""
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, bytes | bytearray | memoryview):
        # Base64 is only for a field of a class: there a hint can read it back.
        raise TypeError(f"{type(value).__name__} inside a container is no JSON")
    return msgspec.to_builtins(value, str_keys=True)


@cache
def _encoder() -> Callable[[Any], str]:
    import json  # 2 ms, and nothing of it before content that needs it

    return json.JSONEncoder(default=_plain).encode
