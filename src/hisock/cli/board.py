"""The whiteboard of ``hisock demo``: what one page draws all others show at once.

A user of the library like any other; the pages in ``pages/`` are its other half.
"""

from __future__ import annotations

__all__ = ("GROUP", "PAGES", "SIZE", "Board", "Piece")

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hisock import ClientInfo, Handlers, ThreadedHiSockServer

PAGES: Final = Path(__file__).with_name("pages")
#: The group of the pages that show the board.
GROUP: Final = "whiteboard"
#: Its sides, in units of its own.
SIZE: Final = 1200
#: Points that it keeps; then the oldest strokes go.
_MOST: Final = 100_000
#: Points of one message; a page sends 30 a second and needs no more than some.
_PIECE: Final = 500
_INKS: Final = 9
_WIDEST: Final = 80


@dataclass(frozen=True)
class Piece:
    """A piece of a stroke, as a page sends it while it is drawn.

    Attributes:
        stroke: The page's number for the stroke that it goes on with.
        ink: One of the page's colours.
        width: Of the line.
        points: Where the line goes.
    """

    stroke: int
    ink: int
    width: float
    points: list[tuple[float, float]]


class Board:
    """What is drawn, and who draws.

    Attributes:
        handlers: All that a server needs for it.
    """

    def __init__(self) -> None:
        self.handlers = Handlers()
        #: Client and number: the stroke as pages get it, the oldest first.
        self._strokes: dict[tuple[int, int], dict[str, Any]] = {}
        self._size = 0
        self._shown: list[dict[str, Any]] = []
        on = self.handlers.on
        on("look")(self._look)
        on("piece")(self._add)
        on("undo")(self._undo)
        on("clear")(self._clear)
        on("point")(self._point)

    def _look(self, client: ClientInfo) -> None:
        """Show a page what there is, and from then on what is added."""
        board = {"size": SIZE, "you": client.id, "strokes": [*self._strokes.values()]}
        client.send("board", board)
        client.server.join_group(client, GROUP)
        self._shown = []  # so that it gets all pointers, too

    def _add(self, client: ClientInfo, piece: Piece) -> None:
        if not piece.points:
            return
        key = client.id, piece.stroke
        ink = min(_INKS - 1, max(0, piece.ink))
        width = _between(1, piece.width, _WIDEST)
        points = [
            (_between(0, x, SIZE), _between(0, y, SIZE))
            for x, y in piece.points[:_PIECE]
        ]
        new = {"key": key, "ink": ink, "width": width, "points": points}
        stroke = self._strokes.setdefault(key, new)
        if stroke is not new:
            stroke["points"] += points
        self._size += len(points)
        client.server.group(GROUP).send("piece", new, exclude=client)
        while self._size > _MOST:
            self._remove(client, next(iter(self._strokes)))

    def _undo(self, client: ClientInfo) -> None:
        """Take away the last that this client has drawn."""
        for key in reversed(self._strokes):
            if key[0] == client.id:
                return self._remove(client, key)
        return None

    def _remove(self, client: ClientInfo, key: tuple[int, int]) -> None:
        self._size -= len(self._strokes.pop(key)["points"])
        client.server.group(GROUP).send("removed", key)

    def _clear(self, client: ClientInfo) -> None:
        self._strokes.clear()
        self._size = 0
        client.server.group(GROUP).send("cleared", client["name"])

    def _point(self, client: ClientInfo, place: tuple[float, float] | None) -> None:
        """Remember where the client's pointer is, if it is on the board."""
        client.data["at"] = place and tuple(_between(0, part, SIZE) for part in place)

    def show_pointers(self, server: ThreadedHiSockServer) -> None:
        """Tell all pages who is there and points where; to be called 30 times a second.

        Who is slow gets the newest only: that is what ``key`` is for.
        """
        pointers = [
            {
                "id": client.id,
                "name": (client["name"] or "somebody")[:20],
                "at": client.data.get("at"),
                "here": client.is_connected,
            }
            for client in server.group(GROUP)
        ]
        if pointers != self._shown:
            self._shown = pointers
            server.group(GROUP).send("pointers", pointers, key="pointers")


def _between(least: float, value: float, most: float) -> float:
    # In this order NaN becomes the least.
    return round(min(most, max(least, value)), 1)
