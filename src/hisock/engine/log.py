"""The library's loggers, got when there is something to say: ``logging`` takes 3 ms."""

from __future__ import annotations

__all__ = ("logger",)

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

        return getattr(logging.getLogger(self._name), attribute)


def logger(name: str) -> logging.Logger:
    """The logger of that name."""
    return cast("logging.Logger", _Later(name))
