"""What a server's port answers to HTTP: WebSocket, and pages."""

from __future__ import annotations

__all__ = ("Website", "WebOptions", "check_web")

import re
import socket
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.log import logger
from hisock.engine.repeats import Repeats
from hisock.errors import InvalidOption
from hisock.session.agreement import EARLY
from hisock.types import Limits
from hisock.wire.frames import Value

if TYPE_CHECKING:
    from hisock.engine.link import Link
    from hisock.session.connection import Connection
    from hisock.web.routes import Routes
    from hisock.wire.http import Head, Response, Rules

#: Seconds that the answer to one request may take, on a slow network too.
_ANSWER: Final = 60.0

_log: Final = logger("server")


class WebOptions(Value, frozen=True):
    """A server's options that are about HTTP; ``HiSockServer`` explains them."""

    allowed_hosts: Collection[str]
    allowed_origins: Collection[str]
    pages: Any


def check_web(options: WebOptions) -> None:
    """Refuse what cannot be.

    Raises:
        InvalidOption: These are no hosts, origins or pages.
    """
    hosts, origins = options.allowed_hosts, options.allowed_origins
    for option, values in (("allowed_hosts", hosts), ("allowed_origins", origins)):
        is_text = isinstance(values, str) or not isinstance(values, Collection)
        if is_text or not all(isinstance(value, str) for value in values):
            raise InvalidOption(f"{option} is a list of text, not {values!r:.80}")
        for value in values if option == "allowed_origins" else ():
            if not re.fullmatch(r"https?://[^/?#\s]+", value):
                raise InvalidOption(
                    f'allowed_origins are like "https://example.org", not {value!r:.80}'
                )
    if options.pages is None:
        return
    if not isinstance(options.pages, str | Path) or not Path(options.pages).is_dir():
        raise InvalidOption(
            f"pages is a folder that exists, not {options.pages!r:.200}"
        )


class Website:
    """Goes on with connections that begin as HTTP.

    Args:
        options: As the user gave them.
        address: Where the server was told to listen.
        is_secure: Whether the port speaks TLS.
        limits: Of the server.
    """

    def __init__(
        self, options: WebOptions, address: Any, is_secure: bool, limits: Limits
    ) -> None:
        self._options = options
        self._address = address
        self._scheme = "https" if is_secure else "http"
        self._limits = limits
        self._rules: Rules | None = None
        self._routes: Routes | None = None
        self._repeats = Repeats()

    # Both on the first request: what they import costs 25 ms that few servers need.

    @property
    def rules(self) -> Rules:
        """Who may ask."""
        if self._rules is None:
            from hisock.wire.http import Rules

            own = [self._address[0]] if isinstance(self._address, tuple) else []
            machine = socket.gethostname()
            hosts = (*own, machine, f"{machine}.local", *self._options.allowed_hosts)
            self._rules = Rules(hosts, self._options.allowed_origins, self._scheme)
        return self._rules

    @property
    def routes(self) -> Routes:
        """What there is to ask for."""
        if self._routes is None:
            from hisock.web.files import Folder
            from hisock.web.routes import Routes

            pages = self._options.pages
            self._routes = Routes(None if pages is None else Folder(Path(pages)))
        return self._routes

    def upgrade(self, link: Link, first: bytes) -> None:
        """Go on with a client that begins as HTTP."""
        from hisock.engine.upgrade import UpgradedSocket
        from hisock.wire.websocket import ServerSide

        connection, most = link.connection, self._limits.message

        def largest() -> int:
            if connection.requests is not None:  # it is let in
                return most
            return min(EARLY, most or EARLY)

        connection.expect_packed()
        check = partial(self._check, link)
        side = ServerSide(check, partial(self._answer, connection), largest())
        upgraded = UpgradedSocket(link.sock, side, largest, first)
        link.sock = link.secure = upgraded  # type: ignore[assignment]  # as with TLS
        link.read()

    def _check(self, link: Link, head: Head) -> None:
        """
        Raises:
            HttpError: It may not ask.
        """
        from hisock.wire.http import HttpError

        try:
            self.rules.check(head)
        except HttpError as error:
            if count := self._repeats.due(str(error)):
                text = "refused an HTTP request of %s: %s (%d)"
                _log.warning(text, link.where, error, count)
            raise

    def _answer(self, connection: Connection, head: Head) -> Response:
        if connection.deadline is not None:
            connection.deadline = time.monotonic() + _ANSWER
        return self.routes.answer(head)
