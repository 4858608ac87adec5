"""How a message is to be delivered, where its sender does not want the usual."""

from __future__ import annotations

__all__ = ("WHEN_SLOW", "Delivery", "WhenSlow", "waits", "wish_of")

from collections.abc import Hashable
from typing import Final, Literal, TypeAlias

from hisock.engine.waiting import deadline
from hisock.errors import InvalidOption
from hisock.wire.frames import Value

#: What becomes of a message to a peer that is too slow.
WhenSlow: TypeAlias = Literal[
    "wait", "disconnect", "raise", "drop_oldest", "drop_newest", "latest"
]
WHEN_SLOW: Final = frozenset(
    ("wait", "disconnect", "raise", "drop_oldest", "drop_newest", "latest")
)
#: Those that may drop a message.
LOOSE: Final = frozenset(("drop_oldest", "drop_newest", "latest"))


class Delivery(Value, frozen=True):
    """What a send was given besides its content.

    Attributes:
        until: When it is no longer wanted, in milliseconds of our monotonic clock.
        when_slow: What becomes of it where the peer is too slow; ``None`` for what is
            usual.
        key: With ``"latest"``: of what it is the newest state.
    """

    until: int | None = None
    when_slow: str | None = None
    key: Hashable = None

    @property
    def is_loose(self) -> bool:
        """Whether it may be dropped."""
        return self.when_slow in LOOSE


def wish_of(
    ttl: float | None, when_slow: WhenSlow | None, key: Hashable
) -> Delivery | None:
    """What a send asks for; ``None`` for the usual.

    Raises:
        InvalidOption: It asks for what is not there.
    """
    if ttl is None and when_slow is None and key is None:
        return None
    return _checked(ttl, when_slow, key)


def _checked(ttl: float | None, when_slow: str | None, key: Hashable) -> Delivery:
    if key is not None and when_slow is None:
        when_slow = "latest"
    if when_slow is not None and when_slow not in WHEN_SLOW:
        choices = ", ".join(sorted(WHEN_SLOW))
        raise InvalidOption(f"when_slow is one of {choices}, not {when_slow!r:.40}")
    if key is not None and when_slow != "latest":
        raise InvalidOption(f"key= means when_slow='latest', not {when_slow!r}")
    try:
        hash(key)
    except TypeError:
        raise InvalidOption(f"key is something hashable, not {key!r:.40}") from None
    return Delivery(None if ttl is None else deadline(ttl), when_slow, key)


def waits(wish: Delivery | None) -> bool:
    """Whether awaiting the send waits for room."""
    return wish is None or wish.when_slow in (None, "wait")
