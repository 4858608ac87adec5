"""What a server's port answers to HTTP: WebSocket, and pages."""

from __future__ import annotations

__all__ = ("Website", "WebOptions", "check_web")

import re
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from hisock.engine.log import logger
from hisock.engine.repeats import Repeats
from hisock.engine.stats import stats_of
from hisock.errors import InvalidOption
from hisock.session.agreement import EARLY
from hisock.session.connection import LINGER

if TYPE_CHECKING:
    from hisock.engine.link import Link
    from hisock.engine.panel import Panel
    from hisock.engine.serve import ServerEngine
    from hisock.session.connection import Connection
    from hisock.web.routes import Routes
    from hisock.wire.http import Head, Response, Rules

#: Seconds that a piece of an answer may take, on a slow network too.
_ANSWER: Final = 60.0

_ORIGIN: Final = re.compile(r"https?://[^/?#@*\s]+")
_NAME: Final = re.compile(r"[0-9A-Za-z._-]+|[0-9a-fA-F:.]+")
_PAGES: Final = ("pages", "metrics", "dashboard")

_log: Final = logger("hisock.server")


class WebOptions(TypedDict, total=False):
    """A server's options that are about HTTP; ``HiSockServer`` explains them."""

    allowed_hosts: Collection[str]
    allowed_origins: Collection[str]
    dashboard: bool | Literal["public"]
    pages: str | Path | None
    metrics: bool | Literal["public"]


def check_web(options: WebOptions, wires: Collection[str]) -> None:
    """Refuse what cannot be.

    Args:
        options: As the user gave them.
        wires: What the server speaks.

    Raises:
        InvalidOption: These are no hosts, origins or pages; or there is no HTTP.
    """
    wanted = [name for name in _PAGES if options.get(name)]
    if wanted and "websocket" not in wires:
        raise InvalidOption(
            f'{wanted[0]} comes over HTTP, so wires has to name "websocket"'
        )
    _check_rules(options)
    for name in ("metrics", "dashboard"):
        value: object = options.get(name, False)
        if not (isinstance(value, bool) or value == "public"):
            raise InvalidOption(f'{name} is True, False or "public", not {value!r:.80}')
    if options.get("metrics") and find_spec("prometheus_client") is None:
        raise InvalidOption(
            "metrics= needs a package that is not installed; the cure is: "
            'pip install "hisock[metrics]"'
        )
    pages = options.get("pages")
    if pages is not None:
        _check_pages(pages)


def _check_pages(pages: object) -> None:
    """
    Raises:
        InvalidOption: There is no such folder.
    """
    if not isinstance(pages, str | Path):
        raise InvalidOption(f"pages is a folder, not {pages!r:.80}")
    folder = Path(pages)
    if folder.is_dir():
        return
    where = str(folder.absolute())[:200]
    if folder.exists():
        raise InvalidOption(f"pages is a folder, and {where} is a file")
    text = f"pages: there is no folder {where}"
    if not folder.is_absolute():
        text += (
            f'; "{folder}" is looked for where the program was started, '
            f'Path(__file__).with_name("{folder}") is beside the program'
        )
    raise InvalidOption(text)


def _check_rules(options: WebOptions) -> None:
    """
    Raises:
        InvalidOption: These are no hosts or origins.
    """
    for option in ("allowed_hosts", "allowed_origins"):
        values: object = options.get(option, ())
        if not isinstance(values, list | tuple | set | frozenset) or not all(
            isinstance(value, str) for value in values
        ):
            raise InvalidOption(f"{option} is a list of text, not {values!r:.80}")
    for host in options.get("allowed_hosts", ()):
        if not _NAME.fullmatch(host):
            raise InvalidOption(
                'allowed_hosts are like "example.org", without "https://" and port, '
                f"not {host!r:.80}"
            )
    for origin in options.get("allowed_origins", ()):
        if not _ORIGIN.fullmatch(origin):
            raise InvalidOption(
                'allowed_origins are like "https://example.org", without a path and '
                f"without *, not {origin!r:.80}"
            )


class Website:
    """Goes on with connections that begin as HTTP.

    Args:
        options: As the user gave them, checked.
        address: Where the server was told to listen.
        is_secure: Whether the port speaks TLS.
        engine: The server's engine.

    Attributes:
        panel: The dashboard, once it is opened.
        refused: Requests that were not served, for whom they came from or asked for.
    """

    def __init__(
        self,
        options: WebOptions,
        address: Any,
        is_secure: bool,
        engine: ServerEngine,
    ) -> None:
        self._options = options
        self._engine = engine
        # The program may go to another folder before somebody asks.
        pages = options.get("pages")
        self._pages = None if pages is None else Path(pages).resolve()
        self.refused = 0
        self._address = address
        self._scheme = "https" if is_secure else "http"
        self._limits = engine.limits
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

            pages = None if self._pages is None else Folder(self._pages)
            self._routes = Routes(pages, lambda: self._engine.ending.has_begun)
            if metrics := self._options.get("metrics"):
                from hisock.web.metrics import Metrics

                answer = Metrics(partial(stats_of, self._engine)).answer
                self._routes.add("/metrics", answer, is_local=metrics != "public")
        return self._routes

    def open_dashboard(self) -> None:
        """Have a dashboard, where that is wanted."""
        wanted = self._options.get("dashboard", False)
        if wanted:
            from hisock.engine.panel import Panel  # and what it counts with

            is_public = wanted == "public"
            self.panel = Panel(self._engine, self._scheme, is_public=is_public)

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
        from hisock.wire.ws_server import ServerSide

        connection, most = link.connection, self._limits.message

        def largest() -> int:
            if connection.requests is not None:  # it is let in
                return most
            return min(EARLY, most or EARLY)

        connection.expect_packed()
        side = ServerSide(
            partial(self._admit, link),
            partial(self._answer, link),
            largest(),
            partial(self._pace, connection),
        )
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
            self.refused += 1
            if count := self._repeats.due(str(error)):
                text = "refused an HTTP request of %s: %s (%d)"
                _log.warning(text, link.where, error, count)
            raise

    def _answer(self, link: Link, head: Head) -> Response:
        """
        Raises:
            HttpError: There is nothing of that name, or it cannot be told.
        """
        from hisock.web.routes import is_loopback
        from hisock.wire.http import HttpError

        from_here = is_loopback(str(link.address[0]))
        try:
            shown = None if self.panel is None else self.panel.answer(link, head)
            if shown is not None:
                return shown
            return self.routes.answer(head, from_here=from_here)
        except HttpError:
            raise
        except Exception:  # whatever it is, it is no end of the server
            _log.exception("no answer to %r", head.target.partition("?")[0][:100])
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            raise HttpError(status, "the server has no answer to this") from None

    def _pace(self, connection: Connection, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass an answer on, as long as each piece is taken in time."""
        for piece in pieces:
            self._prolong(connection, _ANSWER)
            yield piece
        self._prolong(connection, LINGER)  # it is written: who asked is to end it

    @staticmethod
    def _prolong(connection: Connection, seconds: float) -> None:
        if connection.is_stranger and connection.deadline is not None:
            connection.deadline = time.monotonic() + seconds
