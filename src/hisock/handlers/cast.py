"""From what was sent to the type that a handler's hint asks for.

One table for every wire. What arrives as bytes or text follows the rules of 1.1:
text is UTF-8, numbers are read as Python writes them, ``list`` and ``dict`` are JSON.
"""

from __future__ import annotations

__all__ = ("Cast", "cast_for", "castable")

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from hisock.errors import ConversionError
from hisock.types import Sendable
from hisock.wire.payload import as_text

#: Takes what was sent, returns what the handler gets.
Cast: TypeAlias = Callable[[Any], Any]


def castable() -> str:
    """The hints that are understood, for error texts."""
    return ", ".join(kind.__name__ for kind in _CASTS)


def cast_for(hint: Any) -> Cast | None:
    """The function that converts to ``hint``; ``None`` leaves content as sent.

    Raises:
        KeyError: Nothing converts to this hint.
    """
    if hint is None or hint is Any or hint is object or hint == Sendable:
        return None
    if not isinstance(hint, type):
        raise KeyError(hint)
    return _CASTS[hint]


def _to_bytes(content: Any) -> bytes:
    return as_text(content)


def _to_str(content: Any) -> str:
    if isinstance(content, str):
        return content
    try:
        return as_text(content).decode()
    except UnicodeDecodeError as error:
        raise _failed("str", content, f"{error.reason} at byte {error.start}") from None


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
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _failed(wanted, content, f"as JSON: {error}") from None


def _failed(wanted: str, content: Any, why: str = "") -> ConversionError:
    cut = content[:64] if isinstance(content, bytes | str) else content
    shown = f"{cut!r:.64}" if len(repr(cut)) <= 64 else f"{cut!r:.61}..."
    return ConversionError(
        f"expected {wanted}, got {shown}" + (f" ({why})" if why else "")
    )


_CASTS: Mapping[type, Cast] = MappingProxyType(
    {
        bytes: _to_bytes,
        str: _to_str,
        int: _to_int,
        float: _to_float,
        list: _to_list,
        dict: _to_dict,
    }
)
