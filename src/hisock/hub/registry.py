"""Who is here: members by name, address and group, kept in order of arrival.

Pure and never locked; ``engine`` holds the lock around every call.
"""

from __future__ import annotations

__all__ = ("Registry",)

from collections.abc import Iterator, Set
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

    __slots__ = (
        "_addresses",
        "_groups",
        "_joined",
        "_moved",
        "_names",
        "members",
    )

    def __init__(self) -> None:
        self.members: dict[M, None] = {}
        self._addresses: dict[Any, M] = {}
        #: Where those call from now that came back from elsewhere.
        self._moved: dict[M, Any] = {}
        self._names: dict[str, dict[M, None]] = {}
        self._groups: dict[str, dict[M, None]] = {}
        # Groups beside a member's own; most have none.
        self._joined: dict[M, set[str]] = {}

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
        for address in (info["ip"], self._moved.pop(member, None)):
            if self._addresses.get(address) is member:
                del self._addresses[address]
        _leave(self._names, info["name"], member)
        for group in self.groups_of(member):
            _leave(self._groups, group, member)
        info._session.groups = frozenset(self._joined.pop(member, ()))

    def move(self, member: M, address: Any) -> None:
        """A member calls from another address now; its first one finds it, too."""
        before = self._moved.get(member)
        if before is not None and self._addresses.get(before) is member:
            del self._addresses[before]
        self._addresses.setdefault(member.info["ip"], member)
        self._addresses[address] = member
        self._moved[member] = address

    def rename(self, member: M, name: str | None) -> None:
        """Give a member another name, or none."""
        _leave(self._names, member.info["name"], member)
        member.info._change("name", name)
        _enter(self._names, name, member)

    def regroup(self, member: M, group: str | None) -> None:
        """Put a member into another group of its own, or none."""
        old = member.info["group"]
        if old not in self._joined.get(member, ()):
            _leave(self._groups, old, member)
        member.info._change("group", group)
        _enter(self._groups, group, member)

    def join(self, member: M, group: str) -> None:
        """Put a member into a group beside its own."""
        self._joined.setdefault(member, set()).add(group)
        _enter(self._groups, group, member)

    def leave(self, member: M, group: str) -> None:
        """Take a member out of a group; out of its own, it has none."""
        joined = self._joined.get(member, set())
        joined.discard(group)
        if not joined:
            self._joined.pop(member, None)
        if member.info["group"] == group:
            member.info._change("group", None)
        _leave(self._groups, group, member)

    def joined_by(self, member: M) -> Set[str]:
        """The groups that a member was put into beside its own."""
        return self._joined.get(member, frozenset())

    def groups_of(self, member: M) -> frozenset[str]:
        """Every group a member is in."""
        own = member.info["group"]
        joined = self._joined.get(member, ())
        return frozenset(joined) if own is None else frozenset((own, *joined))

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

    def group_sizes(self) -> list[tuple[str, int]]:
        """All of these, each with how many are in it."""
        return [(name, len(members)) for name, members in self._groups.items()]


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
