"""Which function answers which path.

Pure, but for files that are read. It never knows of links and servers: what a page
shows of them it is given.
"""

from __future__ import annotations

__all__ = ("Routes", "path_of")

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from urllib.parse import unquote_to_bytes, urlsplit

from hisock.web.files import Folder, own_file
from hisock.wire.http import Head, HttpError, Response, text

#: Our own files that a page may ask for; see ``web/static``.
_OWN = ("hisock.js", "hisock.d.ts")


class Routes:
    """The paths of one server.

    Args:
        pages: The folder of the user's own pages; ``None`` for none.
    """

    def __init__(self, pages: Folder | None = None) -> None:
        self._pages = pages
        self._routes: dict[str, Callable[[Head], Response]] = {
            "/healthz": lambda _: text(HTTPStatus.OK, "ok")
        }
        for name in _OWN:
            self.add(f"/{name}", partial(own_file, name))

    def add(self, path: str, answer: Callable[[Head], Response]) -> None:
        """Have a function answer a path; it may raise ``HttpError``."""
        self._routes[path] = answer

    def answer(self, head: Head) -> Response:
        """The response to a request that may be asked.

        Raises:
            HttpError: There is nothing of that name.
        """
        path = path_of(head.target)
        if (known := self._routes.get(path)) is not None:
            return known(head)
        if self._pages is not None:
            return self._pages.answer(path, head)
        raise HttpError(HTTPStatus.NOT_FOUND, f"there is no {path[:100]!a} here")


def path_of(target: str) -> str:
    """The path that a request's target names, decoded once.

    Raises:
        HttpError: It is no text, or names what no file can be called.
    """
    try:
        path = unquote_to_bytes(urlsplit(target).path).decode()
    except ValueError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, "the path is malformed") from error
    if not path.startswith("/") or not path.isprintable():
        raise HttpError(HTTPStatus.BAD_REQUEST, "the path is malformed")
    return path
