"""What client and server say of themselves at the start: JSON objects, read strictly.

Knows fields and their bounds, not how the bodies around them are framed.
"""

from __future__ import annotations

__all__ = (
    "dump",
    "fields_of",
    "load_object",
    "hello_of",
    "read_hello",
    "read_refusal",
    "read_welcome",
    "welcome_of",
)

from typing import Any, Final

from hisock.errors import InvalidName, RemoteProtocolError
from hisock.wire.frames import Hello, Refusal, Welcome
from hisock.wire.payload import check_name

#: Hexadecimal digits of a session's id and of its secrets.
_SID_DIGITS: Final = 32
_TOKEN_DIGITS: Final = 64
_DIGITS: Final = frozenset("0123456789abcdef")
#: What is said where no session is wanted.
_WITHOUT_SESSION: Final = frozenset({"name", "group", "proto", "now"})
#: Characters of a word that one side only repeats to the other.
_SHORT: Final = 64
#: Seconds that anybody may ask for: 31 years.
_LONGEST: Final = 1e9


def read_hello(data: bytes, largest_name: int) -> Hello:
    """Who a client is.

    Args:
        data: The object.
        largest_name: Bytes of UTF-8 that a name or a group may have.

    Raises:
        RemoteProtocolError: It lacks a field, or has one that cannot be.
    """
    return hello_of(load_object(data, "hello"), largest_name)


def hello_of(fields: dict[str, Any], largest_name: int) -> Hello:
    """What the fields of a hello say.

    Raises:
        RemoteProtocolError: As ``read_hello``.
    """
    try:
        name, group = fields["name"], fields["group"]
        check_name(name, largest_name)
        check_name(group, largest_name)
    except KeyError as error:
        raise RemoteProtocolError(f"the hello has no {error}") from error
    except InvalidName as error:
        raise RemoteProtocolError(f"the hello is refused: {error}") from error
    proto = _number(fields.get("proto", 0), "proto")
    now = _number(fields.get("now", 0), "now")
    if not proto or fields.get("sid") is None:
        return Hello(name, group, proto, now)
    return Hello(
        name,
        group,
        proto,
        now,
        sid=_digits(fields["sid"], _SID_DIGITS, "sid"),
        token=_digits(fields.get("token"), _TOKEN_DIGITS, "token"),
        next=_digits(fields.get("next"), _TOKEN_DIGITS, "next"),
        got=_number(fields.get("got", 0), "got"),
        epoch=_short_text(fields.get("epoch"), "epoch"),
        window=_seconds(fields.get("window", 0), "window"),
        beats=fields.get("beats") is True,
    )


def read_welcome(rest: bytes | None) -> Welcome:
    """What a server answers to a hello.

    Raises:
        RemoteProtocolError: As ``read_hello``.
    """
    return welcome_of(load_object(rest or b"", "welcome"))


def welcome_of(fields: dict[str, Any]) -> Welcome:
    """What the fields of a welcome say.

    Raises:
        RemoteProtocolError: As ``read_hello``.
    """
    missed = fields.get("missed")
    return Welcome(
        _number(fields.get("proto"), "the welcome's proto"),
        _text_or_none(fields.get("name"), "name"),
        _text_or_none(fields.get("group"), "group"),
        _number(fields.get("now", 0), "now"),
        sid=_short_text(fields.get("sid"), "the welcome's sid"),
        epoch=_short_text(fields.get("epoch"), "the welcome's epoch"),
        got=_number(fields.get("got", 0), "the welcome's got"),
        resumed=fields.get("resumed") is True,
        reason=_short_text(fields.get("reason"), "the welcome's reason"),
        missed=None if missed is None else _number(missed, "the welcome's missed"),
        window=_seconds(fields.get("window", 0), "the welcome's window"),
        auth=fields.get("auth") is True,
    )


def read_refusal(rest: bytes | None) -> Refusal:
    """Why a server does not serve.

    Raises:
        RemoteProtocolError: As ``read_hello``.
    """
    fields = load_object(rest or b"", "refusal")
    retry = fields.get("retry")
    return Refusal(
        str(fields.get("code", "refused"))[:64],
        str(fields.get("text", "no reason was given"))[:1024],
        None if retry is None else _number(retry, "retry"),
    )


def _text_or_none(value: object, what: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise RemoteProtocolError(f"the {what} in a welcome is text, not {value!r:.32}")


def fields_of(frame: Hello | Welcome) -> dict[str, Any]:
    """What a hello or welcome says; without a session nothing of one."""
    fields = {name: getattr(frame, name) for name in frame.__struct_fields__}
    if fields.pop("auth", False):
        return {"proto": frame.proto, "auth": True}
    if not frame.sid:
        return {key: fields[key] for key in fields if key in _WITHOUT_SESSION}
    fields["epoch"] = frame.epoch or None
    if fields.get("missed", 0) is None:
        del fields["missed"]
    return fields


def dump(fields: dict[str, Any]) -> bytes:
    """An object as it is written."""
    import json  # 2 ms, and nothing of it before the first hello

    return json.dumps(fields).encode()


def load_object(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object strictly: no doubles, no NaN, no bottomless nesting."""
    import json  # 2 ms, and nothing of it before the first hello

    try:
        value = json.loads(
            data.decode(), parse_constant=_no_constant, object_pairs_hook=_no_doubles
        )
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"the {what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"the {what} is no JSON object: {data[:64]!r}")
    return value


def _number(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise RemoteProtocolError(f"{what} is a whole number, not {value!r:.32}")
    return value


def _seconds(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RemoteProtocolError(f"{what} is a number of seconds, not {value!r:.32}")
    if not 0 <= value <= _LONGEST:
        raise RemoteProtocolError(f"{what} is from 0 to {_LONGEST:g}, not {value!r}")
    return value


def _digits(value: object, count: int, what: str) -> str:
    """Hexadecimal digits, exactly so many."""
    text = value if isinstance(value, str) else ""
    if len(text) != count or not _DIGITS.issuperset(text):
        raise RemoteProtocolError(f"the {what} of a hello is {count} digits of 0-9a-f")
    return text


def _short_text(value: object, what: str) -> str:
    """Text of a few words; nothing for ``null``."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _SHORT:
        raise RemoteProtocolError(f"{what} is text of up to {_SHORT} characters")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields
