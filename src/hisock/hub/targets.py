"""From what a user calls a client to the member it is."""

from __future__ import annotations

__all__ = ("find", "find_group", "search")

from typing import Any

from hisock._near import did_you_mean
from hisock.errors import InvalidClient, UnknownClient, UnknownGroup
from hisock.hub.names import first_of
from hisock.hub.registry import M, Registry
from hisock.types import ClientInfo


def find(registry: Registry[M], who: Any) -> tuple[M, str]:
    """The member that ``who`` names, and a warning if others have that name too.

    Args:
        registry: Who is here.
        who: A name, ``"ip:port"``, ``(ip, port)``, the object a handler got, or a
            dictionary with its ``ip``.

    Raises:
        InvalidClient: ``who`` is none of these.
        UnknownClient: Nobody of that kind is connected.
    """
    member, warning = search(registry, who)
    if member is None:
        raise UnknownClient(_nobody(registry, who))
    return member, warning


def _nobody(registry: Registry[M], who: Any) -> str:
    if isinstance(who, ClientInfo):
        return f"{dict(who)} is no longer connected"
    if isinstance(who, dict):
        who = who["ip"]
    address = who if isinstance(who, tuple) else _split_address(who)
    if address is not None:
        return f"no client with address {address[0]}:{address[1]}"
    near = did_you_mean(who, registry.names())
    return f"no client has the name {who!r:.80}.{near}"


def search(registry: Registry[M], who: Any) -> tuple[M | None, str]:
    """As ``find``, with ``None`` where nobody is; costs no more for a wrong name.

    Raises:
        InvalidClient: ``who`` is nothing that could name a client.
    """
    if isinstance(who, ClientInfo):
        member: M | None = who._member
        return (member, "") if member in registry else (None, "")
    if isinstance(who, dict) and "ip" in who:
        who = who["ip"]
    if isinstance(who, tuple):
        return _at(registry, who), ""
    if isinstance(who, str):
        return _named(registry, who)
    raise InvalidClient(
        'a client is a name, "ip:port", (ip, port) or what a handler got, '
        f"not {who!r:.80}"
    )


def find_group(registry: Registry[M], group: str) -> list[M]:
    """Everybody in a group.

    Raises:
        UnknownGroup: Nobody is.
    """
    members = registry.in_group(group) if isinstance(group, str) else []
    if not members:
        near = did_you_mean(group, registry.groups()) if isinstance(group, str) else ""
        raise UnknownGroup(f"nobody is in group {group!r:.80}.{near}")
    return members


def _at(registry: Registry[M], address: tuple[Any, ...]) -> M | None:
    try:
        member = registry.at_address(address)
    except TypeError:  # something unhashable inside
        member = None
    if member is None:
        _check_address(address)
    return member


def _named(registry: Registry[M], who: str) -> tuple[M | None, str]:
    members = registry.named(who)
    if members:
        meant, warning = first_of(members), ""
        if len(members) > 1:
            which = "oldest" if meant is members[0] else "oldest connected one"
            warning = (
                f"{len(members)} clients have the name {who!r}; "
                f"the {which} is meant, {dict(meant.info)}"
            )
        return meant, warning
    address = _split_address(who)
    return None if address is None else _at(registry, address), ""


def _split_address(who: str) -> tuple[str, int] | None:
    """``"ip:port"`` in two, or ``None`` if this is a name."""
    host, colon, port = who.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        return None
    host = host.removeprefix("[").removesuffix("]")
    looks_like_ip = ":" in host or ("." in host and host.replace(".", "").isdigit())
    return (host, int(port[:8])) if looks_like_ip else None


def _check_address(address: tuple[Any, ...]) -> None:
    """Raise if this cannot be the address of any client."""
    match address:
        case (str() as host, int() as port) if not isinstance(port, bool):
            pass
        case _:
            raise InvalidClient(f"an address is (ip, port), not {address!r:.80}")
    if host == "unix":
        return
    import ipaddress  # 2 ms, and only on the way to an error

    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise InvalidClient(
            f"{host!r:.80} in {address!r:.80} is no IP address"
        ) from None
    if not 0 < port < 65536:
        raise InvalidClient(f"port {port} in {address!r:.80} is not from 1 to 65535")
