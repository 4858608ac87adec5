"""Who may have a handler run, and how often: ``on(..., requires=, rate=)``."""

from __future__ import annotations

__all__ = ("check_permission", "is_permitted", "read_rate")

import inspect
import re
from collections.abc import Callable
from typing import Any, Final

from hisock.errors import InvalidOption
from hisock.types import ClientInfo

_SECONDS: Final = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def check_permission(requires: object) -> None:
    """Refuse what tells nothing of a client.

    Raises:
        InvalidOption: It is neither a role nor a plain function.
    """
    if requires is None or (isinstance(requires, str) and requires):
        return
    if not callable(requires):
        raise InvalidOption(
            'requires is a role like "admin", or a function that takes the client, '
            f"not {requires!r:.40}"
        )
    called = (requires, getattr(requires, "__call__", None))  # noqa: B004  # looked at
    if any(map(inspect.iscoroutinefunction, called)):
        raise InvalidOption(
            "requires calls a plain function; look up what it needs in authenticate, "
            "and leave it in client.data"
        )


def is_permitted(
    requires: str | Callable[[Any], object] | None, client: ClientInfo
) -> bool:
    """Whether a client may.

    Raises:
        Exception: What the program's function raises; nobody may then.
    """
    if requires is None:
        return True
    if isinstance(requires, str):
        return requires in client.roles
    answer = requires(client)
    if inspect.isawaitable(answer):
        # Truth of a sort, and never an answer.
        if inspect.iscoroutine(answer):
            answer.close()
        raise InvalidOption("requires= returned something to be awaited, not a bool")
    return bool(answer)


def read_rate(rate: object) -> float:
    """How often a second ``"20/s"``, ``"100/min"`` or a number is.

    Raises:
        InvalidOption: It is no rate.
    """
    if isinstance(rate, int | float) and not isinstance(rate, bool):
        value = float(rate)
    else:
        text = rate if isinstance(rate, str) else ""
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)/(s|sec|m|min|h)", text.strip())
        value = float(found[1]) / _SECONDS[found[2]] if found else 0.0
    if not 0 < value < 1e12:
        raise InvalidOption(f'a rate is like "20/s" or "100/min", not {rate!r:.40}')
    return value
