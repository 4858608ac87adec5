"""What a handler's exception becomes, for the caller and for the program."""

from __future__ import annotations

__all__ = ("explain_conversion", "failure")

from hisock.errors import (
    CommandError,
    ConversionError,
    MessageTooLarge,
    NotSendable,
)
from hisock.handlers.table import HandlerEntry
from hisock.wire import compact
from hisock.wire.frames import Failure


def failure(number: int, error: BaseException) -> Failure:
    """What the caller gets to know of what a handler raised."""
    match error:
        case CommandError():
            data = compact.raw(error.data)
            code, text = _clean(error.code), _clean(error.message)
            return Failure(number, code, text, data)
        case ConversionError() | NotSendable() | MessageTooLarge():
            return Failure(number, error.code, _clean(error))
        case _:
            return Failure(number, "handler_failed", "")


def _clean(text: object) -> str:
    """Text that can be written as UTF-8, whatever a handler made of it."""
    return str(text).encode(errors="replace").decode()


def explain_conversion(entry: HandlerEntry, error: Exception) -> Exception:
    """Name the command and the handler in a failed conversion."""
    if type(error) is ConversionError:
        text = f"{entry.command!r} for {entry.signature.where}: {error}"
        return ConversionError(text)
    return error
