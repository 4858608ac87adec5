"""From what was sent to the type that a handler's hint asks for.

One table for every wire. Content reaches it as *text* (the bytes of a 1.1 message), as
*packed* (the MessagePack bytes of one value), or as a value that was decoded before.
What fits the hint as it is stays; text that does not follows the rules of 1.1: numbers
are read as Python writes them, all that is richer is JSON. This module never knows
which wire it serves.
"""

from __future__ import annotations

__all__ = ("Cast", "Packed", "cast_for", "castable", "decoder", "unpack")

import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias

import msgspec  # 20 ms, and needed as soon as there is a handler
from msgspec import inspect as kinds

from hisock.errors import ConversionError, NotSendable, RemoteProtocolError
from hisock.types import Sendable
from hisock.wire.payload import as_text

#: The MessagePack bytes of exactly one value.
Packed: TypeAlias = bytes | memoryview | msgspec.Raw
_Text: TypeAlias = bytes | str
_Reader: TypeAlias = Callable[[Any], Any]

#: Hints that take any bytes as they are.
_BINARY: Final = (
    kinds.AnyType,
    kinds.BytesType,
    kinds.ByteArrayType,
    kinds.MemoryViewType,
)
#: Hints that are written as plain text, not as JSON.
_WORDS: Final = (
    kinds.EnumType,
    kinds.LiteralType,
    kinds.DateTimeType,
    kinds.DateType,
    kinds.TimeType,
    kinds.TimeDeltaType,
    kinds.UUIDType,
    kinds.DecimalType,
)
#: What msgspec would take from one wire only, or not at all.
_FOREIGN: Final = (kinds.CustomType, kinds.ExtType, kinds.RawType)
#: These are never written in base64 in a value: that is for JSON alone.
_BINARY_TYPES: Final = (bytes, bytearray, memoryview)


class Cast:
    """Converts content to one hint; made once, when a handler is registered.

    Each way in raises ``ConversionError`` for content that does not fit the hint;
    ``from_packed`` raises ``RemoteProtocolError`` for what is no MessagePack.

    Attributes:
        hint: The type it converts to.
        from_text: Takes the text of a 1.1 message, as bytes.
        from_packed: Takes the MessagePack bytes of one value.
        from_value: Takes a value that has been decoded already.
        strict: As ``from_packed``, but raises anything where content does not fit as it
            is: for who then tries the other.
    """

    __slots__ = ("from_packed", "from_text", "from_value", "hint", "strict")

    def __init__(self, hint: Any, from_text: _Reader, from_value: _Reader) -> None:
        self.hint = hint
        self.from_text: Callable[[_Text], Any] = from_text
        self.from_value = from_value
        self.strict = decoder(hint)
        self.from_packed = _from_packed(self.strict, from_value)

    def __call__(self, content: Any) -> Any:
        """Convert what may be either: bytes and text are text, all else a value."""
        if isinstance(content, bytes | str):
            return self.from_text(content)
        return self.from_value(content)


def castable() -> str:
    """The hints that are understood, for error texts."""
    return ", ".join(kind.__name__ for kind in _CASTS) + (
        ", bool, tuple, set, list[int], int | None, dataclasses, msgspec.Struct, "
        "TypedDict, NamedTuple, Enum, Literal, datetime, UUID, Decimal, and these "
        "inside one another"
    )


def cast_for(hint: Any) -> Cast | None:
    """The conversion to ``hint``; ``None`` leaves content as sent.

    Raises:
        KeyError: Nothing converts to this hint; the argument says why.
    """
    if hint is None or hint is Any or hint is object or hint == Sendable:
        return None
    if isinstance(hint, type) and hint in _CASTS:
        return Cast(hint, _CASTS[hint], _CASTS[hint])
    return _rich_cast(hint, _alternatives(hint))


def unpack(packed: Packed) -> Any:
    """The value in MessagePack bytes, as it was sent.

    Raises:
        RemoteProtocolError: The bytes are not one value in MessagePack.
    """
    try:
        return _unpack(packed)
    except RemoteProtocolError:
        raise
    except Exception as error:  # bad UTF-8, keys that cannot be keys, nested too deep
        raise RemoteProtocolError(
            f"content is no MessagePack value: {_reason(error)}"
        ) from None


def _refuse_extension(code: int, data: memoryview) -> NoReturn:
    # wire.md: the timestamp, which never comes here, is the only one on our wire.
    raise RemoteProtocolError(f"content has the MessagePack extension type {code}")


_unpack: Final = msgspec.msgpack.Decoder(ext_hook=_refuse_extension).decode


def decoder(hint: Any) -> Callable[[Packed], Any]:
    """Reads MessagePack bytes that fit the hint as they are; raises anything else."""
    return msgspec.msgpack.Decoder(hint, ext_hook=_refuse_extension).decode


def _from_packed(
    decode: Callable[[Packed], Any], from_value: _Reader
) -> Callable[[Packed], Any]:
    def from_packed(packed: Packed) -> Any:
        try:
            return decode(packed)
        except Exception:  # whatever it was, the slow way finds the right words
            value = unpack(packed)
        return from_value(value)

    return from_packed


# --- the hints of 1.1 --------------------------------------------------------------


def _to_bytes(content: Any) -> bytes:
    try:
        return as_text(content)
    except NotSendable as error:
        raise _failed("bytes", content, _reason(error)) from None


def _to_str(content: Any) -> str:
    if isinstance(content, str):
        return content
    try:
        return as_text(content).decode()
    except UnicodeDecodeError as error:
        raise _failed("str", content, f"{error.reason} at byte {error.start}") from None
    except NotSendable as error:
        raise _failed("str", content, _reason(error)) from None


def _to_int(content: Any) -> int:
    try:
        return int(content)
    except (ValueError, TypeError, OverflowError):
        raise _failed("int", content) from None


def _to_float(content: Any) -> float:
    try:
        return float(content)
    except (ValueError, TypeError, OverflowError):
        raise _failed("float", content) from None


def _to_list(content: Any) -> list[Any]:
    value = _from_json(content, "list")
    if isinstance(value, tuple):  # MessagePack does not tell them apart either
        return list(value)
    if not isinstance(value, list):
        raise _failed("list", content, f"it is a {type(value).__name__}")
    return value


def _to_dict(content: Any) -> dict[Any, Any]:
    value = _from_json(content, "dict")
    if not isinstance(value, dict):
        raise _failed("dict", content, f"it is a {type(value).__name__}")
    return value


def _from_json(content: Any, wanted: str) -> Any:
    if not isinstance(content, bytes | str):
        return content
    try:
        import json  # 2 ms, where text is to be a list or dict

        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _failed(wanted, content, f"as JSON: {error}") from None


_CASTS: Final[Mapping[type, _Reader]] = MappingProxyType(
    {
        bytes: _to_bytes,
        str: _to_str,
        int: _to_int,
        float: _to_float,
        list: _to_list,
        dict: _to_dict,
    }
)


# --- all other hints ---------------------------------------------------------------


def _alternatives(hint: Any) -> tuple[kinds.Type, ...]:
    """What the hint is in the words of msgspec; a union is its members.

    Raises:
        KeyError: msgspec, or JSON, cannot convert to it.
    """
    try:
        whole = kinds.type_info(hint)
    except Exception as error:  # also a hint inside a class that cannot be found
        why = str(error).partition(" - type `")[0].replace("`", "")
        raise KeyError(_cut(why, 160)) from None
    for part in _parts(whole, set()):
        if isinstance(part, _FOREIGN):
            foreign = getattr(part, "cls", type(part))
            if foreign is not object:  # as in list[object]: whatever it is
                raise KeyError(f"nothing converts to {foreign.__qualname__}")
    while isinstance(whole, kinds.Metadata):
        whole = whole.type
    return whole.types if isinstance(whole, kinds.UnionType) else (whole,)


def _parts(
    part: kinds.Type | kinds.Field, seen: set[int]
) -> Iterator[kinds.Type | kinds.Field]:
    """A type and all types inside it, each once: a type may contain itself."""
    if id(part) in seen:
        return
    seen.add(id(part))
    yield part
    for name in part.__struct_fields__:
        inner = getattr(part, name)
        for one in inner if isinstance(inner, tuple) else (inner,):
            if isinstance(one, kinds.Type | kinds.Field):
                yield from _parts(one, seen)


def _rich_cast(hint: Any, alternatives: tuple[kinds.Type, ...]) -> Cast:
    """The conversion to a hint that 1.1 did not know."""
    wanted = _name(hint)
    readers = _readers(hint, alternatives)
    takes_text = len(readers) == 1

    def from_text(content: Any) -> Any:
        problems: list[Exception] = []
        for read in readers:
            try:
                return read(content)
            except Exception as error:
                problems.append(error)
        try:
            raise _refused(wanted, content, problems)
        finally:
            problems.clear()  # their tracebacks lead back here: no cycle, no leak

    def from_value(value: Any) -> Any:
        try:
            return _convert(hint, value)
        except Exception as error:
            problem = error
        if isinstance(value, bytes | str):
            return from_text(value)
        if takes_text or _may_differ_as_text(value, problem):
            # What a 1.1 peer would have sent for this value gives the same here.
            with suppress(ConversionError, NotSendable):
                return from_text(as_text(value))
        try:
            raise _refused(wanted, value, [problem])
        finally:
            del problem  # as above

    return Cast(hint, from_text, from_value)


def _may_differ_as_text(value: Any, problem: Exception) -> bool:
    """Whether a value that does not fit may do so once it was JSON.

    A large container is not written and read again in vain: what JSON changes in it
    are keys, which become text.
    """
    is_container = isinstance(value, list | tuple | dict | set)
    return not is_container or " - at `key`" in str(problem)


def _readers(hint: Any, alternatives: tuple[kinds.Type, ...]) -> list[_Reader]:
    """The ways in which text may be meant, the most literal first."""
    if any(map(_takes_bytes, alternatives)):
        return [partial(_read_bytes, hint)]
    if any(isinstance(one, kinds.StrType) for one in alternatives):
        return [partial(_read_words, hint)]
    readers: list[_Reader] = []
    if any(isinstance(one, _WORDS) for one in alternatives):
        readers.append(partial(_read_words, hint))
    # Digits and keys that are no text are read exactly by msgspec; NaN, infinity and
    # the other freedoms of Python's JSON by Python.
    readers.append(msgspec.json.Decoder(hint).decode)
    readers.append(partial(_read_json, hint))
    if any(isinstance(one, kinds.IntType) for one in alternatives):
        readers.append(partial(_read_number, hint, int))
    if any(isinstance(one, kinds.FloatType) for one in alternatives):
        readers.append(partial(_read_number, hint, float))
    readers.append(partial(_read_loosely, hint))
    if any(isinstance(one, kinds.NoneType) for one in alternatives):
        readers.append(partial(_read_nothing, hint))
    return readers


def _takes_bytes(one: kinds.Type) -> bool:
    return isinstance(one, _BINARY) or getattr(one, "cls", None) is object


def _convert(hint: Any, value: Any) -> Any:
    return msgspec.convert(value, hint, builtin_types=_BINARY_TYPES, str_keys=True)


def _read_bytes(hint: Any, content: _Text) -> Any:
    return _convert(hint, content.encode() if isinstance(content, str) else content)


def _read_words(hint: Any, content: _Text) -> Any:
    return _convert(hint, _words(content))


def _read_nothing(hint: Any, content: _Text) -> Any:
    if content:
        raise ValueError("it is not empty")
    return _convert(hint, None)


def _read_json(hint: Any, content: _Text) -> Any:
    import json  # as above

    return msgspec.convert(json.loads(content), hint, str_keys=True)


def _read_number(hint: Any, number: Callable[[_Text], Any], content: _Text) -> Any:
    return _convert(hint, number(content))


def _read_loosely(hint: Any, content: _Text) -> Any:
    return msgspec.convert(_words(content), hint, strict=False)


def _words(content: _Text) -> str:
    return content.decode() if isinstance(content, bytes) else content


# --- texts -------------------------------------------------------------------------


class _Repr(reprlib.Repr):
    """A short repr that never walks a large value, where reprlib sorts all of it."""

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return super().repr_dict(dict(islice(x.items(), self.maxdict + 1)), level)

    def repr_set(self, x: set[Any], level: int) -> str:
        return super().repr_set(set(islice(x, self.maxset + 1)), level)


_SHOW: Final = _Repr()
_SHOW.maxlevel, _SHOW.maxstring = 3, 64


def _refused(wanted: str, content: Any, problems: list[Exception]) -> ConversionError:
    """The error for content that no reader took; one with a path tells the most."""
    telling = next((one for one in problems if " - at `" in str(one)), problems[0])
    error = _failed(wanted, content, _reason(telling))
    error.__cause__ = telling  # it may come from a check in a class of the user
    return error


def _failed(wanted: str, content: Any, why: str = "") -> ConversionError:
    return ConversionError(
        f"expected {wanted}, got {_shown(content)}" + (f" ({why})" if why else "")
    )


def _shown(content: Any) -> str:
    try:
        if isinstance(content, bytes | str):
            shown = repr(content[:64])
        else:
            shown = _printable(_SHOW.repr(content))
    except Exception:  # a number of 5,000 digits, lists in lists in lists, ...
        shown = f"a {type(content).__name__}"
    return shown if len(shown) <= 64 else f"{shown[:61]}..."


def _reason(error: Exception) -> str:
    """What msgspec says, in one short line with the path at its end."""
    text, at, path = str(error).rpartition(" - at `")
    text = text if at else path
    if text[1:2].islower():
        text = text[:1].lower() + text[1:]
    text = _cut(text or type(error).__name__, 96)
    return _printable(f"{text} at {_cut(path, 48)}" if at else text).replace("`", "")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _name(hint: Any) -> str:
    if hint is type(None):
        return "None"
    if isinstance(hint, type):
        return _cut(hint.__name__, 64)
    return _cut(str(hint).replace("typing.", ""), 64)
