"""What a server's port answers to HTTP: WebSocket, and pages."""

from __future__ import annotations

__all__ = ("Website", "WebOptions")

import re
import socket
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from hisock.engine.log import logger
from hisock.engine.repeats import Repeats
from hisock.errors import InvalidOption
from hisock.session.agreement import EARLY
from hisock.types import Limits

if TYPE_CHECKING:
    from hisock.engine.link import Link
    from hisock.engine.panel import Panel
    from hisock.engine.serve import ServerEngine
    from hisock.web.routes import Routes
    from hisock.wire.http import Head, Response, Rules

#: Seconds that the answer to one request may take, on a slow network too.
_ANSWER: Final = 60.0

_ORIGIN: Final = re.compile(r"https?://[^/?#\s]+")
_log: Final = logger("server")


class WebOptions(TypedDict, total=False):
    """A server's options that are about HTTP; ``HiSockServer`` explains them."""

    allowed_hosts: Collection[str]
    allowed_origins: Collection[str]
    dashboard: bool | Literal["public"]
    pages: str | Path | None


def _check(options: WebOptions) -> None:
    """Refuse what cannot be.

    Raises:
        InvalidOption: These are no hosts, origins or pages.
        TypeError: There is no such option.
    """
    if unknown := options.keys() - WebOptions.__annotations__.keys():
        raise TypeError(f"a server has no option {min(unknown)!r}")
    for option in ("allowed_hosts", "allowed_origins"):
        values: object = options.get(option, ())
        if not isinstance(values, list | tuple | set | frozenset) or not all(
            isinstance(value, str) for value in values
        ):
            raise InvalidOption(f"{option} is a list of text, not {values!r:.80}")
    for origin in options.get("allowed_origins", ()):
        if not _ORIGIN.fullmatch(origin):
            raise InvalidOption(
                f'allowed_origins are like "https://example.org", not {origin!r:.80}'
            )
    dashboard: object = options.get("dashboard", False)
    if not (isinstance(dashboard, bool) or dashboard == "public"):
        text = f'dashboard is True, False or "public", not {dashboard!r:.80}'
        raise InvalidOption(text)
    pages = options.get("pages")
    if pages is not None and not (
        isinstance(pages, str | Path) and Path(pages).is_dir()
    ):
        raise InvalidOption(f"pages is a folder that exists, not {pages!r:.200}")


class Website:
    """Goes on with connections that begin as HTTP.

    Args:
        options: As the user gave them.
        address: Where the server was told to listen.
        is_secure: Whether the port speaks TLS.
        limits: Of the server.

    Raises:
        InvalidOption, TypeError: An option cannot be.

    Attributes:
        panel: The dashboard, once it is opened.
    """

    def __init__(
        self, options: WebOptions, address: Any, is_secure: bool, limits: Limits
    ) -> None:
        _check(options)
        self._options = options
        self._address = address
        self._scheme = "https" if is_secure else "http"
        self._limits = limits
        self._rules: Rules | None = None
        self._routes: Routes | None = None
        self._repeats = Repeats()
        self.panel: Panel | None = None

    # Both on the first request: what they import costs 25 ms that few servers need.

    @property
    def rules(self) -> Rules:
        """Who may ask."""
        if self._rules is None:
            from hisock.wire.http import Rules

            machine = socket.gethostname()
            hosts = {
                machine,
                f"{machine}.local",
                *self._options.get("allowed_hosts", ()),
            }
            if isinstance(self._address, tuple):
                hosts.add(self._address[0])
            origins = self._options.get("allowed_origins", ())
            self._rules = Rules(hosts, origins, self._scheme)
        return self._rules

    @property
    def routes(self) -> Routes:
        """What there is to ask for."""
        if self._routes is None:
            from hisock.web.files import Folder
            from hisock.web.routes import Routes

            pages = self._options.get("pages")
            self._routes = Routes(None if pages is None else Folder(Path(pages)))
        return self._routes

    def open_dashboard(self, engine: ServerEngine) -> None:
        """Have a dashboard, where that is wanted."""
        wanted = self._options.get("dashboard", False)
        if wanted:
            from hisock.engine.panel import Panel  # and what it counts with

            is_public = wanted == "public"
            self.panel = Panel(engine, self._scheme, is_public=is_public)

    def dashboard_url(self, address: Any) -> str | None:
        """Where the dashboard of a server that listens there is; ``None`` for none."""
        if self.panel is None or address is None:
            return None
        return self.panel.url(address)

    def tell_dashboard(self, address: Any) -> None:
        """Log where it is, if there is one."""
        if self.panel is not None:
            self.panel.tell(address)

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
        check = partial(self._admit, link)
        side = ServerSide(check, partial(self._answer, link), largest())
        upgraded = UpgradedSocket(link.sock, side, largest, first)
        link.sock = link.secure = upgraded  # type: ignore[assignment]  # as with TLS
        link.read()

    def _admit(self, link: Link, head: Head) -> None:
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

    def _answer(self, link: Link, head: Head) -> Response:
        connection = link.connection
        if connection.deadline is not None:
            connection.deadline = time.monotonic() + _ANSWER
        if self.panel is not None:
            shown = self.panel.answer(link, head)
            if shown is not None:
                return shown
        return self.routes.answer(head)
