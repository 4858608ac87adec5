"""Who may have a name, and who has to go for it: the policies of ``unique_names``.

Pure and never locked; ``engine`` holds the lock around every call.
"""

from __future__ import annotations

__all__ = ("Policy", "claim", "first_of")

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias, TypeVar

from hisock.hub.registry import Registry
from hisock.types import ClientInfo, Identity

#: ``allow``: names need not be unique; ``reject``: who has one keeps it; ``replace``:
#: the last who wants one has it.
Policy: TypeAlias = Literal["allow", "reject", "replace"]


class _Holder(Protocol):
    info: ClientInfo

    @property
    def is_dropped(self) -> bool: ...


H = TypeVar("H", bound=_Holder)
M = TypeVar("M")


def claim(
    registry: Registry[H],
    name: str | None,
    member: H,
    identity: Identity | None,
    policy: Policy,
) -> list[H] | None:
    """Who has to go so that a member can have a name; ``None`` if it may not have it.

    Args:
        registry: Who is here.
        name: What it wants to be called; no name can be taken.
        member: Who.
        identity: Who that is, as far as it was checked.
        policy: What holds.
    """
    if name is None or policy == "allow":
        return []
    others = [other for other in registry.named(name) if other is not member]
    if policy == "replace" or all(_is_left(other, identity) for other in others):
        return others
    return None


def _is_left(holder: _Holder, identity: Identity | None) -> bool:
    """Whether a name is only held for somebody who could be the one that asks."""
    theirs = holder.info.identity
    is_same = (theirs and theirs.id) == (identity and identity.id)
    return holder.is_dropped and is_same


def first_of(members: Sequence[M]) -> M:
    """Who is meant by a name: one that is connected before one that is not, then the
    oldest."""
    here = (one for one in members if not getattr(one, "is_dropped", False))
    return next(here, members[0])
