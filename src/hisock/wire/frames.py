"""The one vocabulary of everything that is not a plain message.

A message itself stays ``bytes`` until its handler is known: which of its words are
the command depends on what is registered (see ``handlers.table``).
"""

from __future__ import annotations

__all__ = (
    "Bye",
    "ClientAnswer",
    "Frame",
    "GetClient",
    "Hello",
    "Joined",
    "Left",
    "NoTLS",
    "Probe",
    "Regroup",
    "Rename",
)

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Hello:
    """The first thing a client says: who it is."""

    name: str | None
    group: str | None


@dataclass(frozen=True, slots=True)
class Rename:
    """A client's new name, or none."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Regroup:
    """A client's new group, or none."""

    group: str | None


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender is about to end the connection, on purpose."""

    by_client: bool


@dataclass(frozen=True, slots=True)
class Probe:
    """A client asks which keys the server has for 1.1's unfinished encryption."""


@dataclass(frozen=True, slots=True)
class NoTLS:
    """The answer to a probe: none."""


@dataclass(frozen=True, slots=True)
class GetClient:
    """A client asks who somebody is."""

    who: str


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """The answer to ``GetClient``: the client, or why not."""

    info: dict[str, Any] | None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    """Somebody else joined."""

    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Left:
    """Somebody else left."""

    info: dict[str, Any]


Frame: TypeAlias = (
    Hello
    | Rename
    | Regroup
    | Bye
    | Probe
    | NoTLS
    | GetClient
    | ClientAnswer
    | Joined
    | Left
)
