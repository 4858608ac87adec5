"""The dashboard: who may see it, and what it answers.

Pure: what it shows and does, it asks of a ``Source``. Only a shell without any data is
shown to who has no token, and only what was meant to be data is: all of it leaves as
JSON, and the page writes it as text.
"""

from __future__ import annotations

__all__ = ("PATH", "Dashboard", "Source", "is_dashboard")

import json
from hashlib import sha256
from hmac import compare_digest
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from hisock.web.files import own_file
from hisock.web.routes import is_loopback, path_of
from hisock.wire.http import Head, HttpError, Response

#: Where the page is; all else of it stands below.
PATH: Final = "/dashboard"
_FILES: Final = {
    PATH: "dashboard.html",
    f"{PATH}/dashboard.css": "dashboard.css",
    f"{PATH}/dashboard.js": "dashboard.js",
}
#: Clients that are told of at once; the others are found by searching.
_CLIENTS: Final = 500
_FIELDS: Final = 8
_COMMAND: Final = 200
#: No other page can send this header: it would have to ask first, by a request of
#: another method, and that is never answered.
_OURS: Final = "x-hisock-dashboard"
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
_SAFE: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class Source(Protocol):
    """What the dashboard shows, and what it does for who sees it."""

    def snapshot(self, search: str, most: int) -> dict[str, Any]:
        """The server as it is now, with at most so many clients; these match."""

    def client(self, number: int) -> dict[str, Any] | None:
        """One client as it is now; ``None`` if it is not here."""

    def tail(self, client: int, after: int, *, payload: bool) -> dict[str, Any] | None:
        """What a client sent behind a number; ``None`` if it is not here."""

    def send(self, client: int, command: str, content: str) -> None:
        """Send a message to a client.

        Raises:
            HttpError: It is not here, or that cannot be sent.
        """

    def disconnect(self, client: int, *, reconnect: bool) -> None:
        """End a client, or only its connection.

        Raises:
            HttpError: It is not here.
        """


class Dashboard:
    """Answers what is asked below ``/dashboard``.

    Args:
        source: The server.
        token: Who has it may see and do everything.
        is_public: Whether other machines may, too.
    """

    __slots__ = ("_is_public", "_source", "_token")

    def __init__(self, source: Source, token: str, *, is_public: bool) -> None:
        self._source = source
        self._token = _digest(token)
        self._is_public = is_public

    def answer(self, head: Head, peer: str) -> Response:
        """The response to a request for it.

        Args:
            head: What is asked.
            peer: The address of who asks.
        """
        try:
            return _safe(self._answer(head, peer))
        except HttpError as error:
            return _safe(_json({"error": str(error)}, error.status))

    def _answer(self, head: Head, peer: str) -> Response:
        if not (self._is_public or is_loopback(peer)):
            text = 'dashboard="public" on the server would show it to other machines'
            raise HttpError(HTTPStatus.FORBIDDEN, text)
        path = path_of(head.target)
        if (file := _FILES.get(path)) is not None:
            return own_file(file, head)
        if path == f"{PATH}/":
            return Response(HTTPStatus.PERMANENT_REDIRECT, {"Location": f"..{PATH}"})
        self._check(head)
        asked = _Query(head.target)
        match path.removeprefix(f"{PATH}/"):
            case "data":
                return self._data(asked)
            case "send":
                command = asked.text("command")
                if not 0 < len(command) <= _COMMAND:
                    text = f"a command has 1 to {_COMMAND} letters"
                    raise HttpError(HTTPStatus.BAD_REQUEST, text)
                self._source.send(asked.number("client"), command, asked.text("text"))
            case "disconnect":
                client = asked.number("client")
                self._source.disconnect(client, reconnect=asked.is_set("reconnect"))
            case _:
                raise HttpError(HTTPStatus.NOT_FOUND, "there is no such thing here")
        return _json({"done": True})

    def _check(self, head: Head) -> None:
        """Refuse who has no token, and whoever is made to ask by another page.

        Raises:
            HttpError: It is one of these.
        """
        headers = head.headers
        # Old browsers do not send the first, and no program does.
        is_ours = headers.get("sec-fetch-site", "same-origin") == "same-origin"
        if not is_ours or headers.get(_OURS) != "1":
            text = "only the dashboard's own page may ask this"
            raise HttpError(HTTPStatus.FORBIDDEN, text)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        is_known = compare_digest(_digest(token.strip()), self._token)
        if scheme.lower() != "bearer" or not is_known:
            text = "this is not the token that the server has made at its start"
            raise HttpError(HTTPStatus.UNAUTHORIZED, text)

    def _data(self, asked: _Query) -> Response:
        data = self._source.snapshot(asked.text("search"), _CLIENTS)
        data["chosen"] = data["tail"] = None
        if asked.has("client"):
            client = asked.number("client")
            data["chosen"] = self._source.client(client)
            if asked.has("after"):
                after, payload = asked.number("after"), asked.is_set("payload")
                data["tail"] = self._source.tail(client, after, payload=payload)
        return _json(data)


class _Query:
    """What stands behind the question mark.

    Raises:
        HttpError: It is malformed.
    """

    __slots__ = ("_fields",)

    def __init__(self, target: str) -> None:
        try:
            self._fields = parse_qs(
                urlsplit(target).query,
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_FIELDS,
            )
        except ValueError as error:
            text = "the query is malformed"
            raise HttpError(HTTPStatus.BAD_REQUEST, text) from error

    def has(self, field: str) -> bool:
        return field in self._fields

    def text(self, field: str) -> str:
        return self._fields.get(field, [""])[0]

    def is_set(self, field: str) -> bool:
        return self.text(field) == "1"

    def number(self, field: str) -> int:
        """
        Raises:
            HttpError: That is none.
        """
        text = self.text(field)
        if not (text.isascii() and text.isdecimal() and len(text) < 16):
            raise HttpError(HTTPStatus.BAD_REQUEST, f"{field} is not a number")
        return int(text)


def is_dashboard(target: str) -> bool:
    """Whether a request is for the dashboard."""
    path = path_of(target)
    return path == PATH or path.startswith(f"{PATH}/")


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="replace")).digest()


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    body = json.dumps(value, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(status, headers, (body,), len(body))


def _safe(response: Response) -> Response:
    headers = response.headers | _SAFE
    more = response.body, response.size, response.close
    return Response(response.status, headers, *more)
