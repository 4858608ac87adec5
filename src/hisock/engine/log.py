"""The library's loggers, got when there is something to say: ``logging`` takes 3 ms.

What fails in the program's own log handlers, on a full disk say, harms no connection.
"""

from __future__ import annotations

__all__ = ("logger",)

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import logging


class _Later:
    """Stands for a logger until somebody uses it."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        import logging

        return partial(_say, getattr(logging.getLogger(self._name), attribute))


def _say(
    method: Callable[..., None], text: str, *arguments: object, **options: Any
) -> None:
    """Log something, whatever becomes of it."""
    import logging

    try:
        method(text, *arguments, stacklevel=2, **options)
    except Exception:
        if arguments:
            text % arguments  # what does not fit is a mistake of ours, and raised
        # Told as ``logging`` tells what fails in its own handlers.
        with suppress(Exception):
            record = logging.makeLogRecord({"msg": text, "args": arguments})
            logging.Handler().handleError(record)


def logger(name: str) -> logging.Logger:
    """The logger of that name."""
    return cast("logging.Logger", _Later(name))
