"""The dashboard of one server: its token, its address, and who may not see it."""

from __future__ import annotations

__all__ = ("Panel",)

import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.dial import spell_address
from hisock.engine.log import logger
from hisock.engine.repeats import Repeats
from hisock.web.dashboard import PATH, Dashboard, is_dashboard

if TYPE_CHECKING:
    from hisock.engine.link import Link
    from hisock.engine.serve import ServerEngine
    from hisock.wire.http import Head, Response

#: What a server may listen at, and how a browser on its machine gets there.
_EVERYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
_BYTES: Final = 32
_REFUSED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

_log: Final = logger("hisock.server")


class Panel:
    """What answers below ``/dashboard`` on one server's port.

    Args:
        engine: The server's engine.
        scheme: ``"http"`` or ``"https"``.
        is_public: Whether other machines may see it.
    """

    def __init__(self, engine: ServerEngine, scheme: str, *, is_public: bool) -> None:
        token = secrets.token_urlsafe(_BYTES)
        source = engine.watch()
        self._pump = engine.pump
        self._dashboard = Dashboard(source, token, is_public=is_public)
        self._scheme = scheme
        self._token = token
        self._repeats = Repeats()

    def url(self, address: Any) -> str:
        """Where a browser on this machine finds it.

        The token stands where browsers keep it to themselves: it is in no request and
        in no proxy's log.

        Args:
            address: Where the server listens. At a Unix socket only a proxy can, so
                what stands here is as if that were at this machine's usual port.
        """
        if isinstance(address, tuple):
            host, port = address[:2]
            place = spell_address((_EVERYWHERE.get(host, host), port))
        else:
            place = "localhost"
        return f"{self._scheme}://{place}{PATH}#token={self._token}"

    def tell(self, address: Any) -> None:
        """Log where it is: the only way to its token beside the program's own."""
        _log.info("dashboard: %s", self.url(address))

    def answer(self, link: Link, head: Head) -> Response | None:
        """The response to a request; ``None`` if it is for something else."""
        if not is_dashboard(head.target):
            return None
        response = self._dashboard.answer(head, str(link.address[0]))
        if response.status in _REFUSED:
            if response.status is HTTPStatus.UNAUTHORIZED:
                self._pump.note_refusal(link)
            if count := self._repeats.due(response.status):
                text = "refused the dashboard to %s: %s (%d)"
                _log.warning(text, link.where, response.status.phrase, count)
        return response
