"""Which function answers which path.

Pure, but for files that are read. It never knows of links and servers: what a page
shows of them it is given.
"""

from __future__ import annotations

__all__ = ("Answer", "Routes", "is_loopback", "path_of")

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from hisock.web.files import Folder, own_file
from hisock.wire.http import Head, HttpError, Response, text

#: Our own files that a page may ask for; see ``web/static``.
_OWN: Final = ("hisock.js", "hisock.d.ts")
#: What proxies add: with one of these nobody knows from where a request comes.
_FORWARDED: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-real-ip"})

#: Paths that an option switches on.
_OPTIONS: Final = ("dashboard", "metrics")

#: Answers a request; may raise ``HttpError``.
Answer: TypeAlias = Callable[[Head], Response]


class Routes:
    """The paths of one server.

    Args:
        pages: The folder of the user's own pages; ``None`` for none.
        is_closing: Tells whether the server is about to end.
    """

    def __init__(
        self,
        pages: Folder | None = None,
        is_closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pages = pages
        self._is_closing = is_closing
        self._routes: dict[str, Answer] = {"/healthz": self._health}
        #: Paths that are for this machine only.
        self._local: set[str] = set()
        for name in _OWN:
            self.add(f"/{name}", partial(own_file, name))

    def add(self, path: str, answer: Answer, *, is_local: bool = False) -> None:
        """Have a function answer a path.

        Args:
            path: Decoded; goes before a file of that name among the user's pages.
            answer: May raise ``HttpError``.
            is_local: Whether only who asks on this machine is answered.
        """
        self._routes[path] = answer
        if is_local:
            self._local.add(path)

    def answer(self, head: Head, *, from_here: bool = False) -> Response:
        """The response to a request that may be asked.

        Args:
            head: The request.
            from_here: Whether the other end of the connection is on this machine.

        Raises:
            HttpError: There is nothing of that name, or not for who asks.
        """
        path = path_of(head.target)
        known = self._routes.get(path)
        if known is None and self._pages is not None:
            return self._pages.answer(path, head)
        if known is None:
            raise HttpError(HTTPStatus.NOT_FOUND, _absent(path))
        if path in self._local and not (from_here and _is_direct(head)):
            raise HttpError(HTTPStatus.FORBIDDEN, f"{path} is for this machine only")
        return known(head)

    def _health(self, head: Head) -> Response:
        if self._is_closing():
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "closing")
        return text(HTTPStatus.OK, "ok")


def _absent(path: str) -> str:
    """Why there is nothing, and what would be."""
    if path == "/":
        return (
            "This is a hisock server, and it runs; it serves no pages. "
            'start_server(..., pages="folder") would, or hisock serve --pages folder.'
        )
    option = path.strip("/")
    if option in _OPTIONS:
        return f"There is no {option} here; the option {option}=True would show it."
    return f"there is no {path[:100]!a} here"


def _is_direct(head: Head) -> bool:
    """Whether no proxy says that it asks for somebody else."""
    return not _FORWARDED & head.headers.keys()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's alone; a Unix socket's ``"unix"`` is."""
    if host == "unix":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def path_of(target: str) -> str:
    """The path that a request's target names, decoded once.

    Raises:
        HttpError: It is no text, or names what no file can be called.
    """
    encoded = target.partition("?")[0]
    # A proxy may have taken an encoded slash for a part of a name, and what begins a
    # fragment for a part of the path.
    if "#" in encoded or "%2f" in encoded.lower():
        raise HttpError(HTTPStatus.BAD_REQUEST, "the path is malformed")
    try:
        path = unquote_to_bytes(encoded).decode()
    except ValueError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, "the path is malformed") from error
    if not path.startswith("/") or not path.isprintable():
        raise HttpError(HTTPStatus.BAD_REQUEST, "the path is malformed")
    return path
