"""A client's side of what its handlers' runner asks; see ``calls.Owner``."""

from __future__ import annotations

__all__ = ("Hearing",)

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hisock.engine.inbox import Mail
from hisock.engine.link import Link
from hisock.engine.running import Running
from hisock.errors import CommandError, Refused, RemoteProtocolError
from hisock.handlers.table import HandlerEntry
from hisock.session.agreement import end_by
from hisock.session.resume import Written
from hisock.types import ClientInfo
from hisock.wire.frames import (
    Bye,
    Frame,
    Gap,
    Groups,
    Joined,
    Left,
    PackedFrame,
    Regroup,
    Rename,
    Request,
    Welcome,
)

if TYPE_CHECKING:
    from hisock.engine.blocking import ClientEngine
    from hisock.engine.owner import Done


class Hearing(Running):
    """What the runner of a client's handlers asks of its engine.

    Args:
        engine: The engine.
    """

    __slots__ = ()

    _engine: ClientEngine

    def control(self, link: Link, frame: Frame | PackedFrame) -> bool:
        """Act on a frame that is not a message; whether a handler ran."""
        engine = self._engine
        match frame:
            case Bye() if frame.retry_ms is None or not engine.keeper.is_willing:
                end = end_by(frame)
                engine.lock.run(engine.end, end.reason, end.error)
            case Bye():
                engine.lock.run(engine.come_back, frame)
            case Joined(info):
                return engine.run_event("client_connect", _as_client(info))
            case Left(info):
                return engine.run_event("client_disconnect", _as_client(info))
            case Gap():
                return engine.telling.gap(frame)
            case Rename(name):
                self._holds("name", name)
            case Regroup(group):
                self._holds("group", group)
            case Groups(join, _):
                text = f"the server leaves this client in its groups: {join!r:.200}"
                engine.reports.refused(Refused(text, "regroup_refused"))
            case Welcome():
                self.broken(link, RemoteProtocolError("a second welcome came"))
            case _ if link.connection.writes_compact:
                kind = type(frame).__name__
                self.broken(link, RemoteProtocolError(f"no server sends {kind}"))
            case _:
                pass  # only a client says these, or nobody asked
        return False

    def _holds(self, key: str, holds: str | None) -> None:
        """The server says which name or group holds."""
        engine = self._engine
        persona = engine.keeper.persona
        is_refused, new = engine.lock.run(persona.is_told, key, holds)
        if is_refused:
            code = "rename_refused" if key == "name" else "regroup_refused"
            text = f"the server does not let this client have the {key} {new!r:.80}"
            engine.reports.refused(Refused(f"{text}; it is {holds!r:.80}", code))

    def unclaimed(self, link: Link, mail: Mail) -> None:
        """Keep a message without a handler for whoever receives."""
        self._engine.keep(mail)

    def seen(self, link: Link, whole: Callable[[], bytes]) -> bool:
        """Remember a message in the cache."""
        if self._engine.cache.maxlen:
            self._engine.remember(Mail(None, whole()))
        return False

    def failed(self, link: Link, entry: HandlerEntry, error: Exception) -> None:
        """Let a handler's exception out of ``update``, or report it."""
        if type(error) is RemoteProtocolError:
            self.broken(link, error)
        else:
            self._engine.reports.failed(None, entry, error)

    def broken(self, link: Link, error: RemoteProtocolError) -> None:
        """End a connection on which came what is none of hisock's."""
        self._engine.lock.run(self._engine.end, str(error), error)

    def send(self, link: Link, frame: Written) -> None:
        """Send frames to the server; an answer is not refused for want of room."""
        if self._engine.outgoing.send(link, frame):
            self._engine.uplink.see_off()

    def answer_own(self, link: Link, request: Request) -> Any:
        """A client has nothing to answer of its own.

        Raises:
            CommandError: Always.
        """
        raise CommandError("unknown_command", "hisock has no such call")

    def work(self, link: Link, call: Callable[[], Any], done: Done) -> None:
        """Call in a worker thread."""
        if self._engine.waker is None:
            # The end of it is not on the socket.
            self._engine.pump.listen_for_bell()
        super().work(link, call, done)

    def resume(self, link: Link) -> None:
        """Look at the link again: its handler has finished."""
        self._engine.wake()


def _as_client(info: dict[str, Any]) -> ClientInfo:
    address = info.get("ip")
    if isinstance(address, list):
        address = tuple(address)
    return ClientInfo(address, info.get("name"), info.get("group"))
