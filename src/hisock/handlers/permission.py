"""Who may have a handler run: what ``on(..., requires=)`` says."""

from __future__ import annotations

__all__ = ("check_permission", "is_permitted")

import inspect
from collections.abc import Callable
from typing import Any

from hisock.errors import InvalidOption
from hisock.types import ClientInfo


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
