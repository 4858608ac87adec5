"""Who is here: members by name, address and group, kept in order of arrival.

Pure and never locked; ``engine`` holds the lock around every call.
"""

from __future__ import annotations

__all__ = ("Registry",)

from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from hisock.types import ClientInfo


class _HasInfo(Protocol):
    info: ClientInfo


M = TypeVar("M", bound=_HasInfo)


class Registry(Generic[M]):
    """Members of a server, each with its ``info``.

    Attributes:
        members: All of them, the oldest first; for look-ups only.
    """

    __slots__ = ("_addresses", "_groups", "_names", "members")

    def __init__(self) -> None:
        self.members: dict[M, None] = {}
        self._addresses: dict[Any, M] = {}
        self._names: dict[str, dict[M, None]] = {}
        self._groups: dict[str, dict[M, None]] = {}

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[M]:
        return iter(self.members)

    def __contains__(self, member: object) -> bool:
        return member in self.members

    def add(self, member: M) -> None:
        """A member has joined."""
        info = member.info
        self.members[member] = None
        self._addresses[info["ip"]] = member
        _enter(self._names, info["name"], member)
        _enter(self._groups, info["group"], member)

    def remove(self, member: M) -> None:
        """A member has left; its ``info`` stays filled."""
        info = member.info
        self.members.pop(member, None)
        # A reused port may already belong to the next member.
        if self._addresses.get(info["ip"]) is member:
            del self._addresses[info["ip"]]
        _leave(self._names, info["name"], member)
        _leave(self._groups, info["group"], member)

    def rename(self, member: M, name: str | None) -> None:
        """Give a member another name, or none."""
        _leave(self._names, member.info["name"], member)
        member.info["name"] = name
        _enter(self._names, name, member)

    def regroup(self, member: M, group: str | None) -> None:
        """Put a member into another group, or none."""
        _leave(self._groups, member.info["group"], member)
        member.info["group"] = group
        _enter(self._groups, group, member)

    def at_address(self, address: Any) -> M | None:
        """The member with this address."""
        return self._addresses.get(address)

    def named(self, name: str) -> list[M]:
        """Everybody with this name, the oldest holder first."""
        return list(self._names.get(name, ()))

    def in_group(self, group: str) -> list[M]:
        """Everybody in this group, the oldest first; empty if there is none."""
        return list(self._groups.get(group, ()))

    def names(self) -> list[str]:
        """All names in use."""
        return list(self._names)

    def groups(self) -> list[str]:
        """All groups somebody is in."""
        return list(self._groups)


def _enter(table: dict[str, dict[M, None]], key: str | None, member: M) -> None:
    if key is not None:
        table.setdefault(key, {})[member] = None


def _leave(table: dict[str, dict[M, None]], key: str | None, member: M) -> None:
    if key is None:
        return
    holders = table.get(key, {})
    holders.pop(member, None)
    if not holders:
        table.pop(key, None)
