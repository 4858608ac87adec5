"""A client and its server with a network between them that can be cut."""

from __future__ import annotations

__all__ = ("CutWay",)

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.chaos.pipes import Direction, How
from tests.chaos.proxy import ChaosProxy

from hisock import ClientInfo
from hisock.client import HiSockClient
from hisock.types import Handlers

from . import Net, Record, eventually
from .ways import Way


class CutWay(Way):
    """A client called ``ann`` behind a proxy, and its server.

    Args:
        net, up: As ``Way`` takes them.
        server: Options of the server.
        client: Options of the client.

    Attributes:
        proxy: What is between them.
        told_server: What the server's events said, in order: ``"join"``, ``"drop"``,
            ``"resume"``, ``"leave"``.
        told_client: The same of the client's.
    """

    proxy: ChaosProxy

    def __init__(
        self,
        net: Net,
        *,
        up: bool,
        server: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
    ) -> None:
        self.told_server = Record()
        self.told_client = Record()
        self._options = client or {}
        super().__init__(net, up=up, **(server or {}))

    def listen_to(self, server: Any) -> None:
        """Note what becomes of the client on that server."""
        handlers = Handlers()
        handlers.on("join", override=True)(self._note_client("join"))
        handlers.on_drop(self._note_client("drop"))
        handlers.on_resume(self._note_client("resume"))
        handlers.on("leave")(self._note_client("leave"))
        server.use(handlers)

    def _note_client(self, event: str) -> Any:
        def handler(client: ClientInfo) -> None:
            if client["name"] == "ann":
                self.told_server(event)

        return handler

    def _connect(self) -> HiSockClient:
        self.listen_to(self.server)  # before it can join
        self.proxy = self.net.proxy(self.server)
        handlers = Handlers()
        handlers.on_drop(lambda: self.told_client("drop"))
        handlers.on_resume(lambda: self.told_client("resume"))
        handlers.on("force_disconnect")(lambda: self.told_client("end"))
        handlers.on_session_lost(lambda lost: self.told_client(lost))
        return self.net.client(
            self.proxy, "ann", "red", handlers=handlers, **self._options
        )

    @property
    def there(self) -> Direction:
        """Where messages go."""
        return "up" if self.up else "down"

    @property
    def back(self) -> Direction:
        """Where acknowledgements and answers go."""
        return "down" if self.up else "up"

    def turn(self) -> None:
        """Have both turned, and wait until the client is in."""
        super().turn()
        assert self.told_server.next() == "join"
        eventually(lambda: self.client.wire)  # it has read the welcome

    def hold(self, *directions: Direction) -> None:
        """Pass nothing more there."""
        for direction in directions:
            self.proxy.blackhole(direction)

    def cut(self, how: How = "rst") -> None:
        """Lose the connection, and what was held, and pass all on the next one."""
        assert self.proxy.cut(how) == 1
        self.proxy.heal()

    def expect(self, event: str) -> None:
        """Wait until both sides were told so, and of nothing else."""
        assert self.told_client.next() == event
        assert self.told_server.next() == event

    @contextmanager
    def apart(self, how: How = "rst") -> Iterator[None]:
        """Cut, and let nobody come back before the end of the block; both know."""
        self.proxy.refuse()
        self.cut(how)
        self.expect("drop")
        yield
        self.proxy.accept_again()
        self.expect("resume")
